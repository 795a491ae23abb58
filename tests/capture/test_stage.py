"""The capture stage: which records request a capture, the limits, and how skipped requests are reported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.capture.request import Parts, Request, capture_record, new_capture_key
from rogue_hunter.capture.stage import RECORDS_PER_TICK, Budget, Captures
from rogue_hunter.config.options import Bands, Config, Forensics
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick, record
from rogue_hunter.worker import Worker
from tests.tools.spindump import Record, check, of


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def event(pid: int = 1, band: str = "critical", kind: str = "enter", ts: float = 0.0, boot: str = "b") -> Record:
    """An event record, with the fields that matter here."""
    return record("event", ts=ts, kind=kind, event=f"e{pid}", boot_id=boot, entered=0.0, duration_s=0.0, peak_score=90,
                  peak_band=band, pid=pid, start_ticks=pid * 10, command=f"p{pid}", band=band, score=90)


def closing(seq: int, **rows: int) -> Tick:
    """A tick of processes with these scores, `p3=80` being pid 3."""
    scores = {int(name[1:]): score for name, score in rows.items()}
    processes = {(p, p * 10): {"pid": p, "start_ticks": p * 10, "command": f"p{p}", "score": s}
                 for p, s in scores.items()}
    row = {"ts": float(seq), "seq": seq, "boot_id": "b", "processes": len(processes)}
    return Tick(row, processes, scored={k for k, r in processes.items() if r["score"]})


class Fake:
    """A capturer that remembers what it was asked for."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request, cancel: threading.Event) -> list[Record]:
        self.requests.append(request)
        parts = Parts({"threads": "ok"})
        process = record("spindump_process", capture=request.capture, process=1, command="p")
        return [capture_record(request, parts, "linux", 0.1, [process]), process]


class AtOnce(Worker[Any, Any]):
    """A worker that does each job when it is submitted, without a thread."""

    def submit(self, job: Any) -> bool:
        self._results.append(self._work(job))
        return True


class Held(Worker[Any, Any]):
    """A worker that does its jobs when `run` is called."""

    def _begin(self) -> None:
        pass

    def run(self) -> None:
        """Do all jobs that wait."""
        while self._jobs:
            self._results.append(self._work(self._jobs.popleft()))


def run(ticks: list[Tick], settings: Forensics | None = None, *, clock: Clock | None = None,
        step: float = 0.0, capturer: object | None = None, **more: object) -> tuple[list[Tick], Fake]:
    """All ticks through the stage, the clock advanced by `step` before each."""
    clock, fake = clock or Clock(), Fake()

    def source() -> Iterator[Tick]:
        for tick in ticks:
            clock.now += step
            yield tick

    out = list(chain(source(), Captures(settings or Forensics(), capturer or fake, clock, worker=AtOnce, **more)))  # type: ignore[arg-type]
    check(r for tick in out for r in tick.records if r["type"] in ("capture", "buffer_context", "spindump_process"))
    return out, fake


def records(ticks: list[Tick], kind: str) -> list[Record]:
    """Records of one type in all ticks."""
    return [r for tick in ticks for r in of(tick.records, kind)]


def test_an_event_at_the_band_gets_a_capture() -> None:
    """Capture, context and children come with the tick; the event stays; the rows are untouched."""
    tick = closing(1, p1=90, p2=50)
    tick.records = [event()]
    before = dict(tick.processes)
    out, fake = run([tick])
    assert [r["type"] for r in out[0].records] == ["event", "capture", "buffer_context", "spindump_process"]
    assert out[0].processes == before and out[0].row is tick.row
    (request,) = fake.requests
    assert request.trigger == "event" and request.event == "e1" and request.boot_id == "b"
    assert [(t.key, t.role) for t in request.targets] == [((1, 10), "culprit"), ((2, 20), "rogue")]


@pytest.mark.parametrize(("made", "wanted"), [
    (event(band="high"), 0), (event(kind="checkpoint"), 0), (event(kind="exit"), 0), (event(kind="peak"), 1),
    (event(kind="band"), 1), (record("match", pid=1), 0), (record("pause", ts=1.0), 1),
    (record("event", kind="enter", band="nonsense", pid=1, start_ticks=2), 0),
])
def test_what_asks_for_a_capture(made: Record, wanted: int) -> None:
    """enter, band and peak in the forensics band, and every pause."""
    assert len(run([Tick(records=[made])])[1].requests) == wanted


def test_another_band() -> None:
    """The band is a parameter."""
    assert len(run([Tick(records=[event(band="high")])], band="high")[1].requests) == 1


def test_a_pause_brings_its_culprits() -> None:
    """In each of the forms that a culprit's identity may have; anything else is ignored."""
    culprits = [{"pid": 5, "start_ticks": 50, "command": "a"}, {"identity": {"pid": 6, "start_ticks": 60}},
                {"identity": ["b", 7, 70]}, {"pid": "x"}, None]
    _, fake = run([Tick(records=[record("pause", start=3.0, end=4.0, cause="cpu", culprits=culprits)])])
    (request,) = fake.requests
    assert request.trigger == "pause" and request.ts == 4.0
    assert [t.key for t in request.targets] == [(5, 50), (6, 60), (7, 70)]


def test_everything_of_one_tick_is_one_capture() -> None:
    """Two events and a pause: three targets, the first is the culprit."""
    pause = record("pause", ts=1.0, culprits=[{"pid": 3, "start_ticks": 30}])
    _, fake = run([Tick(records=[event(1), event(2), pause])])
    (request,) = fake.requests
    assert [(t.key[0], t.role) for t in request.targets] == [(1, "culprit"), (2, "rogue"), (3, "rogue")]


def test_targets_are_limited() -> None:
    """The culprit and the highest scores."""
    tick = closing(1, p1=90, p2=50, p3=80, p4=70)
    tick.records = [event(1)]
    _, fake = run([tick], Forensics(targets=2))
    assert [t.key[0] for t in fake.requests[0].targets] == [1, 3, 4]


def test_a_storm() -> None:
    """100 events in 10 s: one each 2 s; the rest is reported with reason, number and names."""
    ticks = [Tick(records=[event(pid)]) for pid in range(1, 101)]
    out, fake = run(ticks, Forensics(per_identity_per_hour=1000), step=0.1)
    assert len(fake.requests) == 5
    said = [r for r in records(out, "capture") if r["status"] == "skipped"]
    assert {r["reason"] for r in said} == {"debounce"} and sum(r["skipped"] for r in said) == 95
    assert said[0]["targets"][0] == {"pid": 2, "start_ticks": 20, "command": "p2", "outcome": "skipped"}
    assert all(len(r["targets"]) <= 20 for r in said)


def test_the_budget_of_an_hour_and_of_one_trouble() -> None:
    """20 an hour, 3 of one trouble; an hour later there is room again."""
    out, fake = run([Tick(records=[event(1)]) for _ in range(6)], step=200)
    assert len(fake.requests) == 3
    assert {r["reason"] for r in records(out, "capture") if r["status"] == "skipped"} == {"identity_budget"}
    out, fake = run([Tick(records=[event(pid)]) for pid in range(1, 31)], step=60)
    assert len(fake.requests) == 20
    assert {r["reason"] for r in records(out, "capture") if r["status"] == "skipped"} == {"hour_budget"}
    _, fake = run([Tick(records=[event(1)]) for _ in range(10)], step=1300)
    assert len(fake.requests) == 10


def test_one_trouble_is_captured_once() -> None:
    """A build: events of its compilers and the pauses that it causes, within seconds, in either order. A later pause of
    the same cause is the same trouble, but not if only an event was captured and the pause blames another process.

    After three minutes it is captured again, and another unit is another trouble at once.
    """
    compilers = [{**event(pid), "command": "cc1", "unit": "make[77]"} for pid in range(1, 9)]
    pause = record("pause", ts=1.0, cause="cpu", culprits=[{"pid": 9, "start_ticks": 90, "unit": "make[77]"}])
    other = record("pause", ts=2.0, cause="cpu", culprits=[{"pid": 10, "start_ticks": 100, "command": "rsync"}])
    for storm, made in (([*compilers, pause], 1), ([pause, other, *compilers], 1), ([*compilers, pause, other], 2)):
        out, fake = run([Tick(records=[each]) for each in storm], step=3)
        said = [r for r in records(out, "capture") if r["status"] == "skipped"]
        assert {r["reason"] for r in said} == {"same_trouble"}
        assert len(fake.requests) == made and sum(r["skipped"] for r in said) == len(storm) - made
    _, fake = run([Tick(records=[each]) for each in (compilers[0], event(20), compilers[1])], step=100)
    assert [r.targets[0].key[0] for r in fake.requests] == [1, 20, 2]


def test_a_request_for_a_new_trouble_is_followed_with_an_old_one_in_the_same_tick() -> None:
    """Both are targets of it."""
    _, fake = run([Tick(records=[event(1)]), Tick(records=[event(1), event(2)]), Tick(records=[event(2)])], step=3)
    assert [[t.key[0] for t in r.targets] for r in fake.requests] == [[1], [1, 2]]


@pytest.mark.parametrize(("percent", "cost", "made"), [(1.0, 0.0, 100), (1.0, 1.0, 34), (1.0, 6.0, 6), (0.0, 6.0, 100),
                                                       (10.0, 6.0, 50)])
def test_captures_keep_to_their_cpu_budget(percent: float, cost: float, made: int) -> None:
    """A new trouble each 36 s for an hour, each capture at a cost of so many CPU seconds: 1 % of a core is 36 s."""
    fake = Fake()
    settings = Forensics(cpu_percent=percent, per_hour=1000)
    out, _ = run([Tick(records=[event(pid)]) for pid in range(1, 101)], settings, step=36, capturer=fake,
                 cpu_seconds=lambda: cost * len(fake.requests))
    assert abs(len(fake.requests) - made) <= 1
    assert not percent or cost * len(fake.requests) <= percent * 36 + percent * 0.6 + cost
    reasons = {r["reason"] for r in records(out, "capture") if r["status"] == "skipped"}
    assert reasons == (set() if made == 100 else {"cpu_budget"})


def test_a_budget_does_not_grow_without_end() -> None:
    """Troubles of more than an hour ago are forgotten."""
    budget, settings = Budget(), Forensics(per_hour=10**6, debounce_s=0)
    for i in range(30_000):
        assert budget.refuses(((f"u{i}",),), i * 1.0, settings) is None
        budget.begin(((f"u{i}",),), i * 1.0)
    assert len(budget.by_trouble) <= 10_000 and len(budget.made) <= 3601


def test_one_at_a_time() -> None:
    """While a capture is made others are skipped as busy; its records come with the tick after it is done."""
    workers: list[Held] = []
    clock = Clock()
    fake = Fake()
    source: list[Tick] = [Tick(records=[event(1)]), Tick(records=[event(2)]), Tick(), Tick(records=[event(3)])]

    def ticks() -> Iterator[Tick]:
        for i, tick in enumerate(source):
            clock.now += 5
            if i == 2:
                workers[0].run()
            yield tick

    def hold(name: str, work: Callable[[Any], Any]) -> Held:
        workers.append(Held(name, work))
        return workers[-1]

    out = list(chain(ticks(), Captures(Forensics(), fake, clock, worker=hold, finish_s=0)))
    assert [r.targets[0].key[0] for r in fake.requests] == [1]
    assert [r.get("reason") for r in out[2].records if r["type"] == "capture"] == [None, "busy"]
    assert workers[0].pending == 1, "the third was begun and not waited for"


def test_the_end_of_the_input_waits_for_the_capture() -> None:
    """A filter at the end of a file gives out what its last event asked for."""
    go = threading.Event()

    def slow(request: Request, cancel: threading.Event) -> list[Record]:
        go.wait(20)
        return [capture_record(request, Parts({"threads": "ok"}), "linux", 0.0, [])]

    def ticks() -> Iterator[Tick]:
        yield Tick(records=[event(1)])
        threading.Timer(0.05, go.set).start()

    out = list(chain(ticks(), Captures(Forensics(), slow, Clock())))
    assert [r["status"] for r in records(out, "capture")] == ["ok"] and out[-1].row is None


def test_closing_early_cancels() -> None:
    """When the pipe is closed the capture is cancelled and not waited for."""
    told = threading.Event()

    def slow(request: Request, cancel: threading.Event) -> list[Record]:
        if cancel.wait(20):
            told.set()
        return []

    stream = chain([Tick(records=[event(1)]), Tick()], Captures(Forensics(), slow, Clock()))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert told.wait(20)


def test_a_failed_capture_is_reported() -> None:
    """An exception ends one capture and nothing else."""
    def broken(request: Request, cancel: threading.Event) -> list[Record]:
        raise ValueError("no\nsuch thing")

    out, _ = run([Tick(records=[event(1)]), Tick()], capturer=broken)
    (own,) = records(out, "capture")
    assert own["status"] == "failed" and "no\nsuch thing" in own["problems"][0]
    out, _ = run([Tick(records=[event(1)])], capturer=lambda request, cancel: [])
    assert records(out, "capture")[0]["status"] == "failed"


def test_events_of_another_boot_are_skipped() -> None:
    """A recorded event says nothing about the processes that live now."""
    out, fake = run([closing(1), Tick(records=[event(1, boot="other")])])
    assert not fake.requests and records(out, "capture")[0]["reason"] == "other_boot"


def test_switched_off() -> None:
    """Then nothing is captured and nothing is reported."""
    out, fake = run([Tick(records=[event(1)])], Forensics(enabled=False))
    assert not fake.requests and not records(out, "capture")


def test_logs_of_the_time_before() -> None:
    """The last ticks of the tracker, else those of the stage: highest scores first, with when and how many ticks."""
    ticks = [closing(i, p1=10 * i, p2=30) for i in range(1, 6)]
    ticks[-1].records = [event(1)]
    (context,) = records(run(ticks)[0], "buffer_context")
    assert (context["sample_count"], context["first_ts"], context["ts"], context["peak_score"]) == (5, 1.0, 5.0, 50)
    assert [c["pid"] for c in context["culprits"]] == [1, 2]
    tick = closing(8)
    tick.records = [event(1)]
    tick.recent = (({"ts": 7.0}, {(9, 90): {"pid": 9, "score": 77, "command": "other"}}),)
    (context,) = records(run([tick])[0], "buffer_context")
    assert context["culprits"][0]["pid"] == 9
    assert not records(run([Tick(records=[event(1)])])[0], "buffer_context")


def test_keys_sort_by_time_and_differ() -> None:
    """Two captures of one second have different keys."""
    assert new_capture_key(0.0)[:17] == "19700101T000000Z-" and new_capture_key(0.0) != new_capture_key(0.0)
    assert new_capture_key(1e9) < new_capture_key(2e9)


def test_a_real_capture_through_the_stage() -> None:
    """With the machine's own capturer, in its own thread."""
    import os
    import sys

    if sys.platform != "linux":
        pytest.skip("reads the /proc of Linux")
    from rogue_hunter.capture.worker import capturer
    from rogue_hunter.host.linux.parse import parse_stat

    start = parse_stat(Path("/proc/self/stat").read_bytes()).start
    made = {**event(os.getpid()), "start_ticks": start}
    settings = Forensics(rounds=1, log_entries=0)
    out = list(chain([Tick(records=[made])], Captures(settings, capturer(settings))))
    check(r for tick in out for r in tick.records if r["type"] != "event")
    (own,) = records(out, "capture")
    assert own["targets"][0]["outcome"] == "ok" and records(out, "spindump_thread")


def test_settings_have_bounds_and_reasons() -> None:
    """Each default lies within its bounds and says why it is what it is."""
    from dataclasses import fields

    for each in fields(Forensics):
        low, high = each.metadata["low"], each.metadata["high"]
        assert each.metadata["doc"]
        assert low is None or low <= each.default <= high


def test_many_records_go_out_in_slices() -> None:
    """What a large capture brings comes with several ticks, in its order, none lost, the rest with the end."""
    def large(request: Request, cancel: threading.Event) -> list[Record]:
        rows = [record("spindump_process", capture=request.capture, process=i, command=f"p{i}")
                for i in range(1, 3 * RECORDS_PER_TICK)]
        return [capture_record(request, Parts({"threads": "ok"}), "macos", 1.0, rows), *rows]

    out, _ = run([Tick(records=[event(1)]), Tick(), Tick(records=[event(2)])], capturer=large)
    assert [len(tick.records) for tick in out[:2]] == [RECORDS_PER_TICK + 1, RECORDS_PER_TICK]
    assert [r["process"] for r in records(out, "spindump_process")] == [*range(1, 3 * RECORDS_PER_TICK)]


def test_the_end_cancels_a_slow_capture_and_reports_it() -> None:
    """A capture that is not done when there is no more time is in the output as one that failed."""
    def slow(request: Request, cancel: threading.Event) -> list[Record]:
        assert cancel.wait(20)
        return [capture_record(request, Parts({}, ["cancelled"]), "linux", 0.0, [])]

    out = list(chain([Tick(records=[event(1)])], Captures(Forensics(), slow, Clock(), finish_s=0.01)))
    (own,) = records(out, "capture")
    assert (own["status"], own["problems"]) == ("failed", ["cancelled"])


def test_a_given_boot_overrides_that_of_the_ticks() -> None:
    """A recording of another boot, and events without ticks: nothing is captured of another machine."""
    for ticks in ([closing(1), Tick(records=[event(1)])], [Tick(records=[event(1)])]):
        out, fake = run(ticks, boot_id="today's")
        assert not fake.requests and records(out, "capture")[0]["reason"] == "other_boot"
    assert run([Tick(records=[event(1)])], boot_id="b")[1].requests


def test_children_of_the_maker_are_no_subject() -> None:
    """The process that makes captures starts with a second of CPU time: that is no event to capture."""
    mine = {**event(1), "ppid": 4711}
    assert not run([Tick(records=[mine])], own_pid=4711)[1].requests
    assert run([Tick(records=[mine])], own_pid=4712)[1].requests
    assert [t.key[0] for t in run([Tick(records=[mine, event(2)])], own_pid=4711)[1].requests[0].targets] == [2]
    assert not run([Tick(records=[{**event(1), "own": True}])])[1].requests
    tick = closing(1, p1=90, p2=95)
    tick.processes[2, 20]["own"] = True
    tick.records = [event(1)]
    assert [t.key[0] for t in run([tick])[1].requests[0].targets] == [1]


def test_settings_and_band_may_change() -> None:
    """What is in force is asked for with each request."""
    out: list[Tick] = []
    fake = Fake()
    ticks = [Tick(records=[event(1, "high")]), Tick(records=[event(2, "high")]), Tick(records=[event(3, "high")])]
    stage = Captures(Forensics(enabled=False), fake, Clock(), worker=AtOnce)
    for i, tick in enumerate(ticks):
        out.append(stage(tick))
        stage.configure(Config(bands=Bands(forensics="critical" if i == 0 else "high")))
    assert [r.targets[0].key[0] for r in fake.requests] == [3]


def test_a_pause_is_named() -> None:
    """The capture of a pause, or the one request of a pause that was skipped, has its key."""
    pause = record("pause", ts=1.0, pause="p7", culprits=[])
    out, fake = run([Tick(records=[pause]), Tick(records=[{**pause, "pause": "p8"}])])
    assert fake.requests[0].pause == "p7"
    made = records(out, "capture")
    assert [(r["status"], r["pause"]) for r in made] == [("ok", "p7"), ("skipped", "p8")]


@pytest.mark.parametrize("made", [
    {"type": "event", "v": 1, "kind": "enter", "band": "critical"},
    {"type": "event", "v": 1, "kind": "enter", "band": "critical", "pid": "x", "start_ticks": []},
    {"type": "event", "v": 1, "kind": ["enter"], "band": {}, "pid": 1, "start_ticks": 2},
])
def test_what_is_no_event_asks_for_nothing(made: Record) -> None:
    """Lines of a pipeline are written by anybody."""
    assert not run([Tick(records=[made])])[1].requests


@pytest.mark.parametrize("ts", [1e300, -5, 10**30, "now", None, True])
def test_strange_times_and_names(ts: object) -> None:
    """A request is made of what can be used of them; its capture can be written."""
    made = {**event(1), "ts": ts, "event": 7, "boot_id": ["x"], "command": {"a": 1}}
    out, fake = run([Tick(records=[made, {"type": "pause", "v": 1, "culprits": 5}])])
    (request,) = fake.requests
    assert 0 <= request.ts < 1e11 and (request.event, request.boot_id) == (None, None)
    assert request.targets[0].command == "" and records(out, "capture")


@pytest.mark.slow
def test_captures_of_a_bad_day_cost_one_percent_of_a_core() -> None:
    """Trouble in each tick for six hours, a new one every ten seconds, with captures that take 0.2 or 3 s of CPU each: within the budget, one
    capture of one trouble, and the rest is counted."""
    for cost in (0.2, 3.0):
        clock, fake = Clock(), Fake()
        stage = Captures(Forensics(per_hour=10_000), fake, clock, worker=AtOnce,
                         cpu_seconds=lambda fake=fake, cost=cost: cost * len(fake.requests))  # type: ignore[misc]
        skipped = 0
        for n in range(6 * 3600):
            clock.now = float(n)
            tick = Tick({"ts": clock.now, "seq": n, "boot_id": "b", "processes": 1}, records=[event(1 + n // 10, ts=clock.now)])
            skipped += sum(each.get("skipped", 0) for each in stage(tick).records if each["type"] == "capture")
        used = cost * len(fake.requests)
        assert 0.5 * 216 < used <= 0.01 * 6 * 3600 + 1 + cost, cost
        assert max(len([r for r in fake.requests if r.event == f"e{pid}"]) for pid in range(1, 2161)) == 1
        assert skipped + len(fake.requests) >= 6 * 3600 - 100
