"""Events: one process's stay at or above the tracking band has one beginning and one end, with any events between."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.config.options import Config
from rogue_hunter.schema.events import EVENT, EXIT_REASONS
from rogue_hunter.schema.field import BANDS
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.tracking.events import Open, Track, Tracker
from tests.tools.ticks import BOOT, START, Machine, closing, key, row

CONFIG = Config()
BANDS_OF = CONFIG.bands
NOW = replace(CONFIG, tracking=replace(CONFIG.tracking, enter_s=0.0))
"""An event begins with the first tick at or above the band."""
FAST = replace(NOW, tracking=replace(NOW.tracking, exit_ticks=3))
"""Three ticks below end an event, so that a table of scores stays short."""


def rated(points: int, pid: int = 1, start: int = 1000, **fields: Any) -> Row:
    return row(pid, start, score=points, band=BANDS_OF.of(points), **fields)


def ticks(rows: Iterable[Iterable[Row]], **fields: Any) -> Iterator[Tick]:
    """Scored ticks of these rows."""
    before: dict[tuple[int, int], Row] = {}
    for seq, made in enumerate(rows):
        now = {key(r): r for r in made}
        end = closing(
            seq, len(now), **{name: value(seq) if callable(value) else value for name, value in fields.items()}
        )
        yield Tick(
            end,
            now,
            {k for k in now if now[k] is not before.get(k)},
            tuple(k for k in before if k not in now),
            {k for k, r in now.items() if r.get("score")},
        )
        before = now


def events(stream: Iterable[Tick], config: Config = FAST, restored: Iterable[Open] = ()) -> list[Record]:
    return [r for tick in chain(stream, Track(config, restored=restored)) for r in tick.records]


def said(scores: Iterable[int | None], config: Config = FAST) -> list[tuple[Any, ...]]:
    """(tick, kind, subject) of the events of one process with these scores; None: it is gone."""
    found = []
    for record in events(ticks([[] if s is None else [rated(s)] for s in scores]), config):
        at = round((record["ts"] - START) * 3)
        about = {"exit": "reason", "band": "band", "peak": "peak_score", "enter": "score"}.get(record["kind"], "score")
        found.append((at, record["kind"], record[about]))
    return found


TABLE = {
    "never": ([0, 10, 44, 44, 44, 0], []),
    "enter and stop": ([44, 45, 45], [(1, "enter", 45), (2, "exit", "stopped")]),
    "first tick": ([66], [(0, "enter", 66), (0, "exit", "stopped")]),
    "exit after three below the margin": ([50, 39, 39, 39, 39], [(0, "enter", 50), (3, "exit", "below_threshold")]),
    "hover inside the margin": ([50, 40, 44, 40, 40, 41, 40], [(0, "enter", 50), (6, "exit", "stopped")]),
    "dips begin to count anew": ([50, 39, 39, 40, 39, 39, 40], [(0, "enter", 50), (6, "exit", "stopped")]),
    "exit and enter again": (
        [50, 0, 0, 0, 0, 50],
        [(0, "enter", 50), (3, "exit", "below_threshold"), (5, "enter", 50), (5, "exit", "stopped")],
    ),
    "peak": ([50, 52, 51, 53], [(0, "enter", 50), (1, "peak", 52), (3, "peak", 53), (3, "exit", "stopped")]),
    "band up counts at once": (
        [50, 61, 85],
        [
            (0, "enter", 50),
            (1, "band", "high"),
            (1, "peak", 61),
            (2, "band", "critical"),
            (2, "peak", 85),
            (2, "exit", "stopped"),
        ],
    ),
    "band down waits as an exit does": (
        [61, 54, 54, 54, 54],
        [(0, "enter", 61), (3, "band", "elevated"), (4, "exit", "stopped")],
    ),
    "band down inside the margin": ([61, 55, 55, 55, 55], [(0, "enter", 61), (4, "exit", "stopped")]),
    "gone": ([50, None, None], [(0, "enter", 50), (1, "exit", "exited")]),
    "gone and back is another event": (
        [50, None, 50],
        [(0, "enter", 50), (1, "exit", "exited"), (2, "enter", 50), (2, "exit", "stopped")],
    ),
}


@pytest.mark.parametrize(("scores", "wanted"), TABLE.values(), ids=TABLE)
def test_course(scores: list[int | None], wanted: list[tuple[Any, ...]]) -> None:
    """Scores of successive ticks, and the events that they make."""
    assert said(scores) == wanted


def test_default_hysteresis() -> None:
    """An event ends after 15 ticks in a row below 40: 14 are not enough."""
    assert said([50, *[39] * 14, 40], NOW)[-1] == (15, "exit", "stopped")
    assert said([50, *[39] * 15], NOW)[-1] == (15, "exit", "below_threshold")


def test_checkpoints() -> None:
    """Every 30 s a checkpoint, counted from the beginning and from checkpoint to checkpoint."""
    kinds = [(at, kind) for at, kind, _ in said([50] * 200, NOW)]
    assert kinds == [(0, "enter"), (90, "checkpoint"), (180, "checkpoint"), (199, "exit")]


def test_reused_pid() -> None:
    """A pid with another start time is another process: one event ends as replaced, another begins."""
    found = events(ticks([[rated(50)], [rated(70, start=2000)]]))
    assert [(r["kind"], r["start_ticks"], r.get("reason")) for r in found] == [
        ("enter", 1000, None),
        ("exit", 1000, "replaced"),
        ("enter", 2000, None),
        ("exit", 2000, "stopped"),
    ]
    assert len({r["event"] for r in found}) == 2


def test_record() -> None:
    """An event record says what happened, to whom, since when, how high, with the whole row and its range."""
    first, second = rated(50, cpu_percent=60.0), rated(70, cpu_percent=90.0)
    enter, *_, last = events(ticks([[first], [second], []]))
    assert {
        name: enter[name]
        for name in ("type", "v", "kind", "ts", "entered", "boot_id", "pid", "start_ticks", "duration_s")
    } == {
        "type": "event",
        "v": 1,
        "kind": "enter",
        "ts": START,
        "entered": START,
        "boot_id": BOOT,
        "pid": 1,
        "start_ticks": 1000,
        "duration_s": 0.0,
    }
    assert last["kind"] == "exit" and last["reason"] == "exited"
    assert (last["score"], last["peak_score"], last["peak_band"], last["band"]) == (70, 70, "high", "high")
    assert (last["cpu_percent"], last["cpu_percent_low"], last["cpu_percent_high"]) == (90.0, 60.0, 90.0)
    assert last["duration_s"] == pytest.approx(1 / 3, abs=1e-3) and last["command"] == "p1"
    assert last["age_s"] == pytest.approx(last["ts"] - first["start_time"], abs=0.01)
    for record in (enter, last):
        wire.check("event", {name: value for name, value in record.items() if name not in ("type", "v")})
        assert set(record) - {"type", "v"} <= {f.name for f in EVENT}
        assert json.loads(wire.dumps(record)) == record


def test_records_stand_with_their_tick() -> None:
    """Events travel with the tick that they belong to; the last words come alone at the end."""
    got = list(chain(ticks([[rated(50)], [rated(50)]]), Track(FAST)))
    assert [[r["kind"] for r in tick.records] for tick in got] == [["enter"], [], ["exit"]]
    assert got[-1].row is None


def test_unscored_process_is_below() -> None:
    """A row without a score counts as 0, not as gone."""
    found = events(ticks([[rated(50)], *[[row(1)]] * 3]))
    assert [r.get("reason") for r in found] == [None, "below_threshold"]


@pytest.mark.parametrize("model", ["share", "stress"])
def test_bands_of_the_model(model: str) -> None:
    """The tracking band is that of the model: 45 points for share, 40 for stress."""
    found = [r for tick in chain(ticks([[rated(44)]]), Track(NOW, model)) for r in tick.records]
    assert [r["kind"] for r in found] == ([] if model == "share" else ["enter", "exit"])


# -- how long a stay must last ---------------------------------------------------------------------------------------


def test_a_stay_must_last() -> None:
    """Two seconds at the band begin an event, with its beginning; less is no event. A critical score needs one."""
    assert said([50] * 6, CONFIG) == []
    found = events(ticks([[rated(10)]] * 3 + [[rated(50)]] * 9), CONFIG)
    assert [(r["kind"], round((r["ts"] - START) * 3), round((r["entered"] - START) * 3)) for r in found] == [
        ("enter", 9, 3), ("exit", 11, 3)]
    assert found[0]["duration_s"] == pytest.approx(2, abs=0.01)
    assert said([85] * 5, CONFIG) == [(3, "enter", 85), (4, "exit", "stopped")]


def test_a_dip_does_not_end_a_stay() -> None:
    """Less than a second below the band is ignored, more begins again."""
    assert said([50, 50, 50, 30, 50, 50, 50, 50], CONFIG)[0] == (7, "enter", 50)
    assert said([50, 50, 50, 30, 30, 30, 30, 50, 50, 50, 50], CONFIG) == []


def test_the_exit_margin_is_not_counted() -> None:
    """An event lasts to the last tick at or above the band, not to the tick in which that is known."""
    *_, last = events(ticks([[rated(50)]] * 10 + [[rated(3)]] * 20), CONFIG)
    assert last["kind"] == "exit" and last["duration_s"] == pytest.approx(3, abs=0.01)
    assert last["ts"] - last["entered"] == pytest.approx(8, abs=0.01)


def test_the_resource_of_an_event_is_that_of_the_whole_of_it() -> None:
    """A cold start that reads for a moment with the highest score is no disk hog when it then computes for 8 s."""
    rows = [[rated(90 if n == 2 else 60, dominant_resource="disk" if n == 2 else "cpu")] for n in range(30)]
    found = events(ticks(rows), CONFIG)
    assert found[-1]["peak_score"] == 60 and {r["dominant_resource"] for r in found} == {"cpu"}


def test_own_processes_have_no_events() -> None:
    """Neither alone nor as a unit."""
    rows = [rated(90, pid, own=True, unit="rh", disproportionality=512.0, dominant_resource="cpu") for pid in (1, 2)]
    assert events(ticks([rows] * 30)) == []


# -- units -----------------------------------------------------------------------------------------------------------


def member(pid: int, times: float, **fields: Any) -> Row:
    """A process of the unit make[7] that uses `times` its fair share of the CPU."""
    score = max(0, round(10 * math.log2(times)))
    return rated(score, pid, pid, unit="make[7]", disproportionality=times, dominant_resource="cpu",
                 cpu_percent=times, ppid=7, **fields)


ROOT = row(7, 7, unit="make[7]", command="make", score=0, band="low", disproportionality=0.0)


def test_many_short_processes_are_one_event_of_their_unit() -> None:
    """A build whose processes live for 1 s each: one event, with the identity of its root and the sums of all."""
    rows = [[ROOT, *(member(100 + 10 * (n // 3) + i, 25.0) for i in range(4))] for n in range(60)]
    found = events(ticks([*rows, *[[ROOT]] * 70]), CONFIG)
    assert [r["kind"] for r in found] == ["enter", "checkpoint", "exit"]
    enter, calm, last = found
    assert calm["score"] == 0
    assert (enter["pid"], enter["command"], enter["scope"], enter["processes"]) == (7, "make", "unit", 4)
    assert enter["score"] == 66 and enter["cpu_percent"] == pytest.approx(100)
    assert last["reason"] == "below_threshold" and last["duration_s"] == pytest.approx(59 / 3, abs=0.1)
    wire.check("event", {name: value for name, value in enter.items() if name not in ("type", "v")})


def test_a_suite_that_waits_now_and_then_is_one_event() -> None:
    """Twenty seconds of work, eight of waiting, again and again; two minutes of rest end it."""
    work, wait = [[ROOT, *(member(100 + i, 25.0) for i in range(4))]] * 60, [[ROOT]] * 24
    found = events(ticks([*(work + wait) * 5, *[[ROOT]] * 360, *work, *wait]), CONFIG)
    assert [r["kind"] for r in found if r["kind"] in ("enter", "exit")] == ["enter", "exit", "enter", "exit"]
    first = next(r for r in found if r["kind"] == "exit")
    assert first["duration_s"] == pytest.approx(4 * 28 + 20, abs=1)


def test_kernel_threads_are_no_unit() -> None:
    """Ten of them that are busy are no event of kthreadd."""
    rows = [row(2, 1, unit="kthreadd[2]", command="kthreadd", score=0, disproportionality=0.0),
            *(rated(30, 20 + n, 1, unit="kthreadd[2]", ppid=2, disproportionality=8.0, dominant_resource="cpu")
              for n in range(10))]
    assert events(ticks([rows] * 60), CONFIG) == []


def test_one_that_leads_its_unit_is_the_event() -> None:
    """Beside a shell that uses next to nothing, a hog is the event itself."""
    found = events(ticks([[ROOT, member(8, 1.1), member(9, 80.0)]] * 30), CONFIG)
    assert [(r["kind"], r["pid"], r["scope"]) for r in found] == [("enter", 9, "process"), ("exit", 9, "process")]


def test_a_test_suite_is_not_an_event_a_test() -> None:
    """One test of 4 s after the other: the first is an event of its own, the rest are one of the unit."""
    found = events(ticks([[ROOT, member(100 + n // 12, 80.0)] for n in range(240)]), CONFIG)
    assert [(r["scope"], r["pid"]) for r in found if r["kind"] == "enter"] == [("process", 100), ("unit", 7)]


def test_two_hogs_of_one_unit_are_one_event() -> None:
    """Workers that use as much each are summed up, however long they live."""
    found = events(ticks([[member(8, 60.0), member(9, 60.0)]] * 30), CONFIG)
    assert [(r["kind"], r["scope"], r["pid"]) for r in found] == [("enter", "unit", 8), ("exit", "unit", 8)]


def test_what_is_kept_of_a_storm_is_bounded() -> None:
    """Ten thousand processes of one unit: only what decides who leads is kept, and not once the event has begun."""
    tracker = Tracker(CONFIG, BANDS_OF)
    for tick in ticks([[ROOT, *(member(100 + 10 * n + i, 25.0) for i in range(10))] for n in range(1000)]):
        assert tick.row is not None
        tracker.update(tick, tick.row)
    stay = tracker._stays.of("make[7]")
    assert stay is not None and len(stay.by_member) < 100 and len(tracker._stays._stays) < 20


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [86_400, -86_400])
def test_wall_clock_that_is_set(step: int) -> None:
    """A day forward or back changes no duration and makes no checkpoint: the clock of events cannot be set."""
    found = events(
        ticks([[rated(50)]] * 100, ts=lambda seq: round(START + seq / 3 + (step if seq >= 10 else 0), 3)), NOW
    )
    assert [r["kind"] for r in found] == ["enter", "checkpoint", "exit"]
    assert found[-1]["duration_s"] == pytest.approx(33, abs=0.01)
    assert found[1]["duration_s"] == pytest.approx(30, abs=0.4)


def test_time_asleep_counts() -> None:
    """An event that lasts over an hour of suspend lasted an hour longer, although the monotonic clock stood still."""
    found = events(ticks([[rated(50)]] * 4, asleep_s=lambda seq: 3600.0 if seq == 2 else 0.0))
    assert found[-1]["duration_s"] == pytest.approx(3601, abs=0.01)


def test_reboot_in_a_recording() -> None:
    """A recording that spans a restart: open events crashed with it, even for an equal identity."""

    def boot(seq: int) -> str:
        return BOOT if seq < 2 else BOOT.replace("1", "2")

    found = events(ticks([[rated(50)]] * 4, boot_id=boot, mono_ns=lambda seq: seq % 2 * 333_333_333))
    assert [(r["kind"], r.get("reason"), r["boot_id"]) for r in found] == [
        ("enter", None, boot(0)),
        ("exit", "crashed", boot(0)),
        ("enter", None, boot(2)),
        ("exit", "stopped", boot(2)),
    ]
    assert [r["ts"] for r in found[:2]] == [START, round(START + 1 / 3, 3)]


# -- ticks from which rows were left out -----------------------------------------------------------------------------


def partial(rows: list[list[Row]], machine: int = 5) -> Iterator[Tick]:
    for tick in ticks(rows):
        assert tick.row is not None
        tick.row["processes"] = machine
        tick.exited = ()
        yield tick


def test_partial_ticks_end_an_event_slowly() -> None:
    """Where rows are left out, a missing process is below, not gone; back in time its event continues."""
    a, other = rated(50), rated(50, pid=2)
    found = [
        r
        for r in events(partial([[a, other], [other], [other], [a, other], [other], [other], [other]]))
        if r["pid"] == 1
    ]
    assert [(r["kind"], r.get("reason")) for r in found] == [("enter", None), ("exit", "below_threshold")]
    assert found[-1]["ts"] == pytest.approx(START + 2, abs=0.01)


# -- restart ---------------------------------------------------------------------------------------------------------


def opened(**fields: Any) -> Open:
    """An event as the database gives it back."""
    usual: dict[str, Any] = {
        "event": "e-1",
        "boot_id": BOOT,
        "key": (1, 1000),
        "entered": START - 100,
        "seen": START - 10,
        "band": "elevated",
        "peak_score": 70,
        "peak_band": "high",
        "row": {"command": "old", "score": 50},
        "lasted": 90.0,
    }
    return Open(**{**usual, **fields})


def test_restored_event_continues() -> None:
    """The process still lives: the same event, no second enter, its peak kept, its time added to what it had lasted."""
    found = events(ticks([[rated(50)], [rated(71)], []]), restored=[opened()])
    assert [(r["kind"], r["event"]) for r in found] == [("band", "e-1"), ("peak", "e-1"), ("exit", "e-1")]
    assert found[1]["peak_score"] == 71
    assert found[-1]["duration_s"] == pytest.approx(90 + 1 / 3, abs=0.01) and found[-1]["reason"] == "exited"


def test_restored_event_has_checkpoints() -> None:
    """The next checkpoint comes 30 s after the restart."""
    found = events(ticks([[rated(50)]] * 92), CONFIG, restored=[opened()])
    assert [(r["kind"], round((r["ts"] - START) * 3)) for r in found] == [("checkpoint", 90), ("exit", 91)]


@pytest.mark.parametrize(
    "change", [{"key": (7, 1000)}, {"key": (1, 999)}, {"boot_id": "another"}], ids=["gone", "reused", "rebooted"]
)
def test_restored_event_whose_process_is_gone(change: dict[str, Any]) -> None:
    """It closes once, as crashed, with the last time it was known; the process with its pid now is another one."""
    found = events(ticks([[rated(10)]] * 3), restored=[opened(**change)])
    (last,) = found
    assert (last["kind"], last["reason"], last["event"], last["ts"]) == ("exit", "crashed", "e-1", START - 10)
    assert last["duration_s"] == 90.0 and last["command"] == "old"
    assert (last["pid"], last["start_ticks"], last["boot_id"]) == (
        *change.get("key", (1, 1000)),
        change.get("boot_id", BOOT),
    )


def test_restored_event_that_is_not_listed() -> None:
    """In a tick from which rows were left out, a missing process did not crash: it used too little to be listed."""
    other = rated(50, pid=2)
    found = [r for r in events(partial([[other]] * 4), restored=[opened()]) if r["event"] == "e-1"]
    assert [(r["kind"], r["reason"]) for r in found] == [("exit", "below_threshold")]


def test_restored_events_are_closed_without_a_tick() -> None:
    """Stopped before the first tick, nothing is known of their processes but when they were last seen."""
    for stream in ([], [Tick(records=[])]):
        (found,) = events(stream, restored=[opened()])
        assert (found["kind"], found["reason"], found["event"]) == ("exit", "crashed", "e-1")
        assert found["ts"] == opened().seen


# -- laws ------------------------------------------------------------------------------------------------------------


def lives(records: list[Record]) -> dict[str, list[Record]]:
    by_event: dict[str, list[Record]] = {}
    for record in records:
        by_event.setdefault(record["event"], []).append(record)
    return by_event


@given(st.lists(st.lists(st.sampled_from([None, 0, 39, 40, 44, 45, 60, 80, 100]), min_size=3, max_size=3), max_size=25))
def test_every_event_begins_once_and_ends_once(course: list[list[int | None]]) -> None:
    """Any course of three processes: enter first, exit last, both once; the peak never falls; bands follow scores."""
    found = events(ticks([[rated(s, pid) for pid, s in enumerate(scores, 1) if s is not None] for scores in course]))
    for records in lives(found).values():
        kinds = [r["kind"] for r in records]
        assert kinds[0] == "enter" and kinds[-1] == "exit" and kinds.count("enter") == kinds.count("exit") == 1
        peaks = [r["peak_score"] for r in records]
        assert peaks == sorted(peaks) and peaks[0] >= 45
        assert all(r["peak_band"] == BANDS_OF.of(r["peak_score"]) for r in records)
        assert len({(r["pid"], r["start_ticks"], r["entered"]) for r in records}) == 1
        times = [r["ts"] for r in records]
        assert times == sorted(times)
        assert records[-1]["reason"] in EXIT_REASONS and all("reason" not in r for r in records[:-1])
        assert all(BANDS.index(r["band"]) >= BANDS.index("elevated") for r in records)


@pytest.mark.parametrize("model", ["share", "stress"])
@pytest.mark.parametrize("seed", range(3 if "RH_LONG" in os.environ else 2))
def test_whole_machine(seed: int, model: str) -> None:
    """Over a machine's life no identity has two open events at once, and every record keeps its contract."""
    stream = chain(Machine(seed).ticks(300), Score(CONFIG, model), Track(FAST, model))
    open_now: set[tuple[int, int]] = set()
    count = 0
    for tick in stream:
        for record in tick.records:
            count += 1
            wire.check("event", {name: value for name, value in record.items() if name not in ("type", "v")})
            who = record["pid"], record["start_ticks"]
            assert (who in open_now) is (record["kind"] != "enter")
            if record["kind"] == "enter":
                open_now.add(who)
            elif record["kind"] == "exit":
                open_now.discard(who)
    assert not open_now and count > 20


def test_memory_is_bounded() -> None:
    """What the tracker keeps is the open events and the ring, however many processes come and go."""
    tracker = Tracker(FAST, BANDS_OF)
    for tick in ticks([[rated(50, pid, pid)] for pid in range(1, 500)]):
        assert tick.row is not None
        tracker.update(tick, tick.row)
    assert len(tracker.open) == 1
    assert len(tracker.ring) == FAST.system.ring_ticks
    assert sum(len(rows) for _, rows in tracker.ring.ticks()) <= FAST.system.ring_ticks


def test_only_records_of_a_filter() -> None:
    """What rh-track prints without --tee: its events, and the errors that came in, not the rows."""
    error = {"type": "error", "v": 1, "stage": "x", "message": "m"}
    sink = io.BytesIO()
    stream = [*ticks([[rated(50)]]), Tick(records=[error])]
    wire.write(chain(stream, Track(FAST)), sink, encode=wire.only_records)
    assert [json.loads(line)["type"] for line in sink.getvalue().splitlines()] == ["event", "error", "event"]


def test_what_is_left_of_a_unit_must_last_again() -> None:
    """The process with the event ends; what else its unit has uses as much for a second more: no event of no length."""
    first = rated(60, 7, 7, unit="make[7]", disproportionality=64.0, dominant_resource="cpu")
    second = rated(60, 20, 20, ppid=1, unit="make[7]", disproportionality=64.0, dominant_resource="cpu")
    found = events(ticks([*[[first]] * 30, *[[second]] * 3, *[[]] * 60]), CONFIG)
    assert [r["pid"] for r in found if r["kind"] == "enter"] == [7]
