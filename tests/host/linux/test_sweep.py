"""Reading what did not run: how often, and how evenly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.linux.host import LIGHT_EVERY_NS, LinuxHost
from rogue_hunter.host.linux.machine import CALM_NS, Machine
from rogue_hunter.host.linux.table import CALM_SWEEP_S, SWEEP_S, Sweep
from rogue_hunter.stream.tick import Row
from tests.tools.processes import Tree


def files(single: int = 0, several: int = 0, cold: int = 0) -> Any:
    """What a Sweep needs of Files; processes are names. Half of the exactly gated ones have a clock."""
    return SimpleNamespace(clock=SimpleNamespace(owners=[f"a{i}" for i in range(single // 2)]),
                           sched=SimpleNamespace(owners=[f"a{i}" for i in range(single // 2, single)]),
                           stat=SimpleNamespace(owners=[f"b{i}" for i in range(several)]),
                           cold={i: (f"c{i}", b"") for i in range(cold)})


def swept(sweep: Sweep, seconds: float, calm: bool, hz: float = 3.0) -> tuple[Counter[Any], int]:
    """How often each was read, and the most in one tick."""
    ticks = [list(sweep.due(1 / hz, calm)) for _ in range(round(seconds * hz))]
    return Counter(each for tick in ticks for each in tick), max(map(len, ticks))


@given(st.integers(0, 400), st.integers(0, 50), st.integers(0, 50), st.booleans())
def test_each_once_in_its_time(single: int, several: int, cold: int, calm: bool) -> None:
    """A round skips no process; one reading more at its turn is all that it may be late by."""
    sweep = Sweep(files(single, several, cold))
    found, most = swept(sweep, SWEEP_S * 1.1 + 2, calm)
    for each in (*(f"b{i}" for i in range(several)), *(f"c{i}" for i in range(cold))):
        assert 1 <= found[each] <= 2
    if not calm:
        assert all(1 <= found[f"a{i}"] <= 2 for i in range(single))
    else:
        assert sum(found[f"a{i}"] for i in range(single)) <= single * (SWEEP_S * 1.1 + 2) / CALM_SWEEP_S + 1
    assert most <= single / SWEEP_S / 3 + (several + cold) / SWEEP_S / 3 + 2


def test_ten_minutes_are_enough_while_it_is_calm() -> None:
    found, most = swept(Sweep(files(single=300)), CALM_SWEEP_S * 1.01, calm=True)
    assert len(found) == 300 and most == 1


def test_a_long_gap_is_made_good_at_once_and_only_once() -> None:
    sweep = Sweep(files(single=5, several=2))
    assert len(list(sweep.due(1e6, False))) >= 5
    assert list(sweep.due(0.0, False)) == []


def pressure(total: int | None) -> dict[str, bytes]:
    return {} if total is None else {"pressure/memory": b"some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n"
                                     b"full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" % total}


def test_calm_is_a_minute_without_reclaim(tmp_path: Path) -> None:
    """Known from the first reading on; any growth of the total ends it for a minute."""
    tree = Tree(tmp_path / "proc")
    for name, data in pressure(5).items():
        tree.write(name, data)
    machine = Machine(tree.path, live=False)
    assert not machine.calm
    machine.fields(0)
    assert machine.calm
    for name, data in pressure(6).items():
        tree.write(name, data)
    machine.fields(1_000_000_000)
    assert not machine.calm
    machine.fields(CALM_NS)
    assert not machine.calm
    machine.fields(1_000_000_000 + CALM_NS)
    assert machine.calm


def test_no_pressure_no_calm(tmp_path: Path) -> None:
    """Where the kernel does not tell, nothing is assumed."""
    tree = Tree(tmp_path / "proc")
    (tree.path / "pressure" / "memory").unlink(missing_ok=True)
    machine = Machine(tree.path, live=False)
    for now in (0, CALM_NS, 5 * CALM_NS):
        machine.fields(now)
        assert not machine.calm


@pytest.mark.skipif(sys.platform != "linux", reason="needs a /proc")
def test_our_own_row_is_made_once_a_second() -> None:
    """We run at every beat: the row stands until LIGHT_EVERY_NS have passed, and its rate is that of the whole time."""
    now = 10**12
    host = LinuxHost(mono=lambda: now)
    try:
        host.snapshot()
        rows = []
        for _ in range(9):
            now += 333_333_333
            began = time.process_time()
            while time.process_time() - began < 0.025:  # both user and system time are in steps of 10 ms
                pass
            shot = host.snapshot()
            (key,) = (key for key in shot.processes if key[0] == os.getpid())
            rows.append(shot.processes[key])
            assert shot.active >= 1
        new = [n for n, row in enumerate(rows) if n == 0 or row is not rows[n - 1]]
        assert new == [0, 2, 5, 8]
        before, after = rows[2], rows[5]
        spent = after["cpu_seconds_total"] - before["cpu_seconds_total"]
        assert abs(after["cpu_percent"] - 100 * spent / 1.0) < 2.1  # 10 ms more or less in a second, twice
        assert LIGHT_EVERY_NS > 2 * 333_333_333
    finally:
        host.close()


_WORKER = """
import sys, time
for line in sys.stdin:
    end = time.process_time() + float(line)
    while time.process_time() < end:
        pass
    print(flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a /proc")
def test_what_uses_next_to_nothing_is_read_once_a_second() -> None:
    """Its row stands for two ticks of three, at rates of all the time since it was read; when it uses more it is read in
    the same tick, and when it rests its rates are 0 within a second. The first readings are of any process."""
    now = 10**12
    host = LinuxHost(mono=lambda: now, uptime=lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 60.0)
    child = subprocess.Popen([sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None

    def tick(seconds: float | None) -> Row:
        nonlocal now
        if seconds is not None:
            print(seconds, file=child.stdin, flush=True)
            child.stdout.readline()     # type: ignore[union-attr]
            while _state(child.pid) != "S":
                time.sleep(0.001)
        now += 333_333_333
        shot = host.snapshot()
        return next(row for key, row in shot.processes.items() if key[0] == child.pid)

    try:
        tick(0.0)
        if not host._files.clocks:
            pytest.skip("no CPU clocks of other processes here")
        for _ in range(3):
            tick(0.002)
        rows = [tick(0.002) for _ in range(9)]
        assert 3 <= len({id(row) for row in rows}) <= 4
        assert all(0.5 < row["cpu_percent"] < 1.0 for row in rows)
        assert tick(0.05)["cpu_percent"] >= 1.5     # 50 ms, of a second at the most
        for _ in range(4):
            tick(0.0)
        assert [tick(None)["cpu_percent"] for _ in range(4)][-1] == 0.0
    finally:
        host.close()
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
