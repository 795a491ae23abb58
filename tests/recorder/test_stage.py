"""The stage: rings open and closed, what is asked of the helper, and what a pause and a capture get."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.config.options import Recorder as Settings
from rogue_hunter.recorder import decode as decode_module
from rogue_hunter.recorder.decode import _woven, collapsed, decode, walked, works_for
from rogue_hunter.recorder.perf import Copy, Job, Rings, dump_job, load_job, open_rings
from rogue_hunter.recorder.stage import CHECK_NS, REST_NS, FlightRecorder, decode_apart
from rogue_hunter.recorder.symbols import Symbols, parse_dump, python_frames
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.tick import Record, Row, Tick, record
from tests.recorder.rings import comm, fork, newest_first, sample, switch
from tests.recorder.test_perf import Fake

S = 1_000_000_000


def tick(mono_s: float = 10.0, *records: Record, rows: dict[Any, Row] | None = None, cpus: int = 2) -> Tick:
    return Tick({"ts": mono_s, "mono_ns": round(mono_s * S), "cpus": cpus, "interval_s": 0.333}, rows or {},
                set(rows or ()), records=list(records))


PAUSE = record("pause", ts=10.0, pause="b-1", duration_s=2.0, cause="cpu", culprits=[])
CAPTURE = record("capture", ts=10.0, capture="c-1", status="ok", trigger="event", duration_s=0.5)


class Bench:
    """A recorder with a fake kernel; `jobs` are those that reach the helper."""

    def __init__(self, *, system: bool = True, fails: bool = False, settings: Settings | None = None) -> None:
        self.fake, self.said, self.jobs = Fake(system=system), [], []  # type: ignore[var-annotated]
        self.opened = 0
        self.now = 10 * S
        self.stage = FlightRecorder(settings or Settings(), self.said.append, opener=self._open, decode=self._decode,
                                    threads=lambda pid: [pid], uid=1000, level=lambda: 2, mono_ns=lambda: self.now)
        self.fails = fails

    def _open(self, hz: int) -> tuple[Rings | None, str]:
        self.opened += 1
        if self.fails:
            return None, "this kernel or container has no perf_event_open"
        return open_rings(hz, self.fake.kernel)

    def _decode(self, job: Job) -> list[Record]:
        self.jobs.append(job)
        return [record("stack", **job.key, samples=1, stack="a;b")]

    def run(self, *ticks: Tick) -> list[Record]:
        found = [each for one in ticks for each in self.stage(one).records]
        self.stage._worker.wait(5)
        return found + self.stage(Tick()).records


def test_a_pause_and_a_capture_are_decoded() -> None:
    """The stretch of the pause; the second before a capture and its length. Others ask for nothing."""
    bench = Bench()
    rows = {(7, 1): {"command": "python3", "exe": "/usr/bin/python3", "cmdline": "python3 /x/hog.py"}}
    found = bench.run(tick(9.0, rows=rows), tick(10.0, PAUSE, CAPTURE, record("event"), rows=rows),
                      tick(10.3, {**CAPTURE, "status": "skipped"}, {**CAPTURE, "trigger": "pause"}))
    assert [job.key for job in bench.jobs] == [{"pause": "b-1"}, {"capture": "c-1"}]
    pause, capture = bench.jobs
    assert (pause.begin_ns, pause.end_ns) == (8 * S, 10 * S) and pause.shares and not capture.shares
    assert capture.end_ns - capture.begin_ns == 2.5 * S
    assert pause.processes[7] == (1, "hog.py", "/usr/bin/python3")
    assert [each["type"] for each in found if each["type"] == "stack"] == ["stack", "stack"]
    bench.stage.close()
    assert bench.fake.clean()


def test_without_permission_there_is_one_message_and_nothing_else_changes() -> None:
    """The ticks are the same, one line is logged, and the state says why."""
    bench = Bench(fails=True)
    asked = [tick(9 + i / 3, *([PAUSE] if i == 3 else [])) for i in range(20)]
    before = [(each.row, list(each.records)) for each in asked]
    bench.run(*asked)
    assert [(each.row, each.records) for each in asked] == before
    assert len(bench.said) == 1 and bench.opened == 1 and not bench.jobs
    assert bench.stage.state()["recorder"]["mode"] == "off" and "container" in bench.stage.state()["recorder"]["why"]


def test_the_budget_the_settings_and_the_cpus() -> None:
    """Closed while the beat is slowed down and while disabled; opened again when a CPU came or went."""
    bench = Bench()
    bench.stage.rate = Rate(3.0)
    bench.run(tick(1), tick(2))
    assert bench.opened == 1 and bench.fake.open_fds
    bench.stage.rate.slowed = 2
    bench.run(tick(3), tick(4))
    assert not bench.fake.open_fds and "budget" in bench.stage.state()["recorder"]["why"]
    bench.stage.rate.slowed = 1
    bench.run(tick(5), tick(6, cpus=3))
    assert bench.opened == 3
    bench.stage.configure(replace(Config(), recorder=Settings(enabled=False)))
    bench.run(tick(7), tick(8))
    assert not bench.fake.open_fds and bench.stage.state()["recorder"] == {
        "mode": "off", "why": "disabled", "paranoid": 2, "bytes": 0, "skipped": 0, "switches": False}
    bench.stage.configure(Config())
    bench.run(tick(9))
    assert bench.opened == 4
    bench.stage.abort()
    assert bench.fake.clean()


def test_at_most_so_many_an_hour() -> None:
    """Further pauses have no stacks, which is counted; an hour later there is room again."""
    bench = Bench(settings=Settings(per_hour=2))
    for _ in range(4):
        bench.run(tick(10, PAUSE))
    assert len(bench.jobs) == 2 and bench.stage.skipped == 2
    bench.now += 3601 * S
    bench.run(tick(10, PAUSE))
    assert len(bench.jobs) == 3


def test_own_processes_are_followed() -> None:
    """Only busy ones of this user that are not rogue-hunter's; one that exits is let go; the oldest for a new one."""
    bench = Bench(system=False)
    rows: dict[Any, Row] = {(pid, 1): {"cpu_percent": 50.0, "uid": 1000} for pid in range(100, 120)}
    rows |= {(1, 1): {"cpu_percent": 50.0, "uid": 0}, (2, 1): {"cpu_percent": 1.0, "uid": 1000},
             (3, 1): {"cpu_percent": 90.0, "uid": 1000, "own": True}}
    bench.run(tick(1, rows=rows))
    rings = bench.stage._rings
    assert rings is not None and len(rings.attached) == 12 and set(rings.attached) < set(range(100, 120))
    gone = rings.attached[0]
    after = tick(2)
    after.exited = ((gone, 1),)
    bench.run(after)
    assert gone not in rings.attached
    bench.run(tick(3, PAUSE))
    assert not bench.jobs[0].shares
    bench.stage.close()
    assert bench.fake.clean()


def test_a_cpu_that_switches_too_often_is_given_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted every ten seconds; enabled again after a minute."""
    bench = Bench()
    bench.run(tick(1))
    rings = bench.stage._rings
    assert rings is not None
    requests: list[tuple[int, int]] = []
    monkeypatch.setattr("rogue_hunter.recorder.perf.Ring.control", lambda self, request: requests.append((self.cpu, request)))
    counts = {ring.cpu: 0 for ring in rings.switches}
    monkeypatch.setattr("rogue_hunter.recorder.perf.Ring.count", lambda self: (counts[self.cpu], bench.now))
    for _ in range(3):
        bench.now += CHECK_NS
        counts[0] += Settings().switches_per_s * 10 - 5
        bench.run(tick(2))
    assert requests == []
    bench.now += CHECK_NS
    counts[1] += Settings().switches_per_s * 10 + 1
    bench.run(tick(3))
    assert [cpu for cpu, _ in requests] == [1]
    bench.now += REST_NS
    bench.run(tick(4))
    assert [cpu for cpu, _ in requests] == [1, 1] and requests[0] != requests[1]


def test_a_cpu_that_was_offline_between_two_ticks_is_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends the events of a CPU that goes offline, also while a machine sleeps; the number of CPUs is as before.
    The rings are opened again when one no longer counts time."""
    bench = Bench()
    bench.run(tick(1))
    ended_ns = 0
    monkeypatch.setattr("rogue_hunter.recorder.perf.Ring.count",
                        lambda self: (5, ended_ns if self.cpu == 1 and ended_ns else bench.now))
    for _ in range(3):
        bench.now += CHECK_NS
        bench.run(tick(2))
    assert bench.opened == 1
    ended_ns = bench.now
    for _ in range(2):
        bench.now += CHECK_NS
        bench.run(tick(3), tick(4))
    assert bench.opened == 2 and not bench.said
    bench.stage.close()
    assert bench.fake.clean()


def test_a_helper_that_fails_is_reported() -> None:
    """An error of the helper is a line for people, and the beat continues."""
    bench = Bench()
    bench.stage._worker._work = lambda job: (_ for _ in ()).throw(OSError("no stacks within 20 s"))
    bench.run(tick(10, PAUSE), tick(11))
    assert any("no stacks" in line for line in bench.said)


# -- decode ------------------------------------------------------------------------------------------------------------

def job(**more: Any) -> Job:
    ring = newest_first(*(sample(8 * S + i * S // 50, 7, (0x10, 0x20)) for i in range(50)),
                        *(sample(9 * S + i * S // 50, 33, (), (0xffffffff81000000,)) for i in range(50)))
    flat = newest_first(comm(8 * S, 50, b"storm"), fork(8 * S + 1, 51, 50), switch(8 * S, 1), switch(9 * S, 7),
                        switch(9 * S + S // 2, 33), switch(10 * S, 51))
    made = Job({"pause": "p"}, 8 * S, 10 * S, 50, (Copy(0, True, ring), Copy(0, False, flat)),
               {7: (1, "hog.py", "/bin/hog"), 33: (2, "kswapd0", ""), 60: (3, "eater", "/bin/eater")},
               {"memory": (60, "its memory grew")})
    return replace(made, **more)


def test_a_job_survives_encoding() -> None:
    """As the helper reads it."""
    made = job()
    assert load_job(io.BytesIO(dump_job(made))) == replace(made, key={"pause": "p"})


def test_shares_stacks_and_whom_a_kernel_thread_works_for() -> None:
    """By switches; a child that executed nothing has its parent's name; kswapd leads to the process that grew."""
    found = decode(job(), Symbols(root=__import__("pathlib").Path("/nonexistent")), dumps=False)
    shares = [each for each in found if each["type"] == "cpu_share"]
    assert [(s["command"], s["share"]) for s in shares] == [("hog.py", 0.5), ("kswapd0", 0.25), ("storm", 0.25)]
    assert shares[1]["for_pid"] == 60 and shares[1]["for_command"] == "eater" and shares[2]["parent_pid"] == 50
    assert all(s["source"] == "switches" for s in shares)
    stacks = [each for each in found if each["type"] == "stack"]
    assert {(s["stack"], s["samples"]) for s in stacks} == {("hog.py;[exited]", 50), ("kswapd0;[kernel]_[k]", 50)}
    assert not [each for each in decode(job(shares=False), Symbols(), dumps=False) if each["type"] == "cpu_share"]


def test_more_stacks_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left over is one record of no process; the shares do not look for one in it."""
    monkeypatch.setattr(decode_module, "STACKS_MAX", 1)
    found = decode(job(), Symbols(), dumps=False)
    assert [each.get("pid") in (7, 33) for each in found if each["type"] == "stack"] == [True, False]
    assert len([each for each in found if each["type"] == "cpu_share"]) == 3


@pytest.mark.parametrize("name, stack, expected", [
    ("kworker/flush", ";kworker;wb_workfn_[k]", 1), ("jbd2/vda1-8", "", 1), ("kswapd0", "", 2),
    ("kworker/events", ";k;process_one_work_[k];wb_workfn_[k];do_writepages_[k]", 1),
    ("hog", ";hog;main", None), ("kworker/events", ";k;cfg_work_[k]", None)])
def test_whom_kernel_threads_work_for(name: str, stack: str, expected: int | None) -> None:
    """By name or by stack; other kernel work leads to no process."""
    found = works_for(name, stack, {"disk": (1, "wrote"), "memory": (2, "grew")})
    assert (found[0] if found else None) == expected
    assert works_for(name, stack, {}) is None


@pytest.mark.slow
def test_the_helper_is_a_process_of_its_own() -> None:
    """A real one gives the same records; one that is late or dies is an error."""
    made = job(processes={7: (1, "hog\x1b;x", "/bin/hog")})
    found = decode_apart(made)
    stack = next(each["stack"] for each in found if each["type"] == "stack" and each["pid"] == 7)
    assert stack.startswith("hog") and "\x1b" not in stack and stack.count(";") == 1
    with pytest.raises(OSError, match="within"):
        decode_apart(made, 0.0)
    with pytest.raises(OSError, match="ended with"):
        decode_apart(replace(made, begin_ns="no"))  # type: ignore[arg-type]


Run = Callable[..., object]


def test_code_of_before_an_exec_is_not_named_by_the_program_of_now() -> None:
    """Its map is gone: the kernel's frames stay, and nothing is invented for the rest."""
    made = job(rings=(Copy(0, True, newest_first(sample(8 * S, 7, (0x10,), (0xffffffff81000000,)), sample(9 * S, 7, (0x10,)))),
                      Copy(0, False, newest_first(comm(8 * S + 5, 7, b"new")))))

    class Named(Symbols):
        def names(self, pid: int, start_ticks: int | None, wanted: Any) -> dict[Any, str]:
            return {each: "k_[k]" if each[1] else "now" for each in wanted}

    stacks = {each["stack"] for each in decode(made, Named(), dumps=False) if each["type"] == "stack"}
    assert stacks == {"hog.py;[exited];k_[k]", "hog.py;now"}


def test_the_end_of_frame_pointers_is_no_code_of_before_an_exec() -> None:
    """A call chain that ends with address 0 is one of the program that runs."""
    made = job(rings=(Copy(0, True, newest_first(sample(9 * S, 7, (0x10, 0)))),))

    class Named(Symbols):
        def names(self, pid: int, start_ticks: int | None, wanted: Any) -> dict[Any, str]:
            return {each: "leaf" if each[0] == 0x10 else "[no code]" for each in wanted}

    assert [each["stack"] for each in decode(made, Named(), dumps=False) if each["type"] == "stack"] == ["hog.py;leaf"]


def test_frames_of_python() -> None:
    """What py-spy says of the busiest thread takes the place of the interpreter's loop."""
    dump_ = (b'[{"active":false,"frames":[]},{"active":true,"frames":[{"name":"inner","short_filename":"x/a.py","line":3},'
             b'{"name":"main","filename":"a.py","line":9}]}]')
    assert parse_dump(dump_) == ["main (a.py:9)", "inner (a.py:3)"]
    assert parse_dump(b"") == parse_dump(b"{}") == parse_dump(b"[]") == parse_dump(b'[{"frames":[5]}]') == []
    assert python_frames(1, "/usr/bin/python3.11", lambda argv, s: dump_, "py-spy")[0] == "main (a.py:9)"
    assert python_frames(1, "/usr/bin/perl", lambda argv, s: dump_, "py-spy") == []
    eval_ = "_PyEval_EvalFrameDefault"
    assert _woven(["_start", eval_, "call", eval_, "long_add"], ["main", "inner"]) == ["_start", "main", "inner", "long_add"]
    assert _woven(["gc_collect"], ["main"]) == ["gc_collect"]


def test_frames_without_frame_pointers() -> None:
    """From the first value that is no code nothing is kept; what cannot be named is one frame; names cannot break a
    line."""
    assert walked(["leaf", "caller", "[no code]", "junk"]) == ["caller", "leaf"]
    assert walked(["[no code]", "caller"]) == ["caller", "[no code]"]
    assert walked(["k_[k]", "[exited]", "[exited]"]) == ["[exited]", "k_[k]"]
    assert collapsed(["a;b", "c\nd", ""]) == "a:b;c\\nd;?"
    assert len(collapsed(["f" * 300] * 100)) <= 4200
