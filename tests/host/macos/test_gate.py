"""The gate of macOS: who is looked at, whose time is known, and that a process at rest costs no object."""

from __future__ import annotations

import ctypes
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.host.macos.decode import Usage, Who
from rogue_hunter.host.macos.process import Gate, Look, Process
from tests.bench.build import build_library, compiler
from tests.macos.machine import BURNER, Machine, row, scripted

machine = pytest.fixture(scripted)


class Reader:
    """Answers from a dictionary; None: no answer. Each question takes 10 ns of the clock."""

    good = 0

    def __init__(self) -> None:
        self.buffer = bytearray(4)
        self.answers: dict[int, bytes | None] = {}
        self.now = 0

    def mono(self) -> int:
        return self.now

    def each(self, pids: Iterable[int]) -> Iterator[int]:
        for pid in pids:
            self.now += 10
            answer = self.answers[pid]
            if answer is None:
                ctypes.set_errno(3)
                yield -1
            else:
                self.buffer[:] = answer
                yield 0


def process(pid: int, pulse: object = b"rest", settled: bool = True) -> Process:
    made = Process(Look(Who(pid, 1, 501, "p", 2, start_us=pid), pulse, Usage(*[0] * 7, b"")), 0)
    made.settled, made.refresh_ns = settled, 10**9
    return made


@pytest.fixture
def asked() -> tuple[Reader, Gate, list[Process]]:
    """Three processes at rest."""
    reader = Reader()
    gate = Gate(reader, reader.mono)  # type: ignore[arg-type]
    made = [process(pid) for pid in (1, 2, 3)]
    for one in made:
        reader.answers[one.key[0]] = b"rest"
        gate.add(one)
    return reader, gate, made


def test_only_another_answer_is_given(asked: tuple[Reader, Gate, list[Process]]) -> None:
    """With its bytes; no answer with its errno; and what is not kept is given again."""
    reader, gate, made = asked
    assert (list(gate.poll()), len(gate)) == ([], 3)
    reader.answers.update({2: b"work", 3: None})
    for _ in range(2):
        assert list(gate.poll()) == [(made[1], b"work", 0), (made[2], None, 3)]
    made[1].pulse = b"work"
    gate.keep(made[1])
    assert list(gate.poll()) == [(made[2], None, 3)]


def test_who_is_not_at_rest_or_is_due_is_given_in_any_case(asked: tuple[Reader, Gate, list[Process]]) -> None:
    """So is one whose pulse is no answer of this reader."""
    reader, gate, made = asked
    made[0].settled = False
    gate.keep(made[0])
    made[1].refresh_ns = 1
    reader.now = 5
    made[2].pulse = ("what sysctl said",)
    gate.keep(made[2])
    assert [one.key[0] for one, raw, _ in gate.poll() if raw == b"rest"] == [1, 2, 3]


def test_the_last_entry_takes_a_free_place(asked: tuple[Reader, Gate, list[Process]]) -> None:
    _, gate, made = asked
    gate.remove(made[0])
    assert (len(gate), made[0].place, made[1].place, made[2].place) == (2, -1, 1, 0)
    gate.remove(made[1])
    gate.remove(made[2])
    assert (list(gate.poll()), len(gate)) == ([], 0)


def test_a_process_at_rest_is_known_until_the_poll_before(asked: tuple[Reader, Gate, list[Process]]) -> None:
    """Its rates are over the time since then, though the time of reading was not recorded: not since it last ran."""
    reader, gate, made = asked
    list(gate.poll())                    # from 0 to 30
    reader.now = 1000
    reader.answers[2] = b"work"
    list(gate.poll())
    assert made[1].read_ns == 10         # a third of the way
    made[1].read_ns = 1020               # what its reading then noted
    gate.keep(made[1])
    reader.answers[1] = b"work"
    reader.now = 2000
    list(gate.poll())
    assert made[0].read_ns == 1000 and made[1].read_ns == 1020
    gate.remove(made[1])
    assert 2000 <= made[2].read_ns <= 2030     # it moved: its time would be lost with its place


def test_rates_after_a_rest_are_of_the_last_interval(machine: Machine) -> None:
    """A process that slept for many ticks and then takes half a core has 50 %, not its part of the whole sleep."""
    fake, host = machine("process p pid=10 user=1\nat 4.0 p user=+0.5/s\n" + BURNER)
    for _ in range(11):
        shot = host.snapshot()           # the last one at 4.0
        fake.advance(0.4)
    assert row(shot, 10)["cpu_percent"] == 0.0
    assert row(host.snapshot(), 10)["cpu_percent"] == pytest.approx(50, rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_a_tick_at_rest_is_one_call_a_process_and_no_object(tmp_path: Path) -> None:
    """Of 2,000 processes: beyond the mapping of rows and the list of pids, a few hundred bytes in all."""
    from tests.bench.darwin import Instant

    made: Any = Instant(build_library(tmp_path, "instant"), 2000, 0)
    try:
        made.settle()
        made.reset()
        shot = made.host.snapshot()
        calls = made.calls()
        assert (calls["proc_pid_rusage"], calls["proc_listallpids"], sum(calls.values())) == (2000, 1, 2003)
        assert len(shot.processes) == 2000 and not shot.changed
        tracemalloc.start()
        rows = dict(shot.processes)
        held = tracemalloc.get_traced_memory()[0]
        del rows
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        made.host.snapshot()
        assert tracemalloc.get_traced_memory()[1] - before < held + 2000 * 4 + 8192
    finally:
        tracemalloc.stop()
        made.host.close()


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_the_benchmark_s_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    """Small machines: a call for each process, one more for each that ran."""
    from tests.bench import darwin

    monkeypatch.setattr(darwin, "SIZES", (40, 80))
    assert darwin.main(["--ticks", "3", "--json", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    assert "proc_listallpids 1, proc_pid_rusage 80, proc_pidinfo 4, others 2" in said
    assert "us for each process: idle" in said
    cells = json.loads((tmp_path / "out.json").read_text())["cells"]
    assert [(cell["processes"], cell["active"]) for cell in cells] == [(40, 0), (40, 2), (40, 0), (80, 0), (80, 4), (80, 0)]
    assert cells[5]["denied"] and cells[5]["calls"]["proc_pidinfo"] == 80 and cells[5]["calls"]["proc_pid_rusage"] == 0
