"""Which evidence an answer uses: never that of another time, and the same for every view."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rogue_hunter.report.evidence import SHORT_MOST, STRETCHES, over
from rogue_hunter.report.queries import Period, Source, source
from rogue_hunter.report.render import Style
from rogue_hunter.report.views.summary import summary
from rogue_hunter.report.views.why import why
from rogue_hunter.store.database import Lock, open_writer
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Tick
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.minutes import History
from tests.tools.reports import CONFIG, connect, hog, record_run, seconds, ticks_of
from tests.tools.slices import FIRST, build_busy_day, machine, minute, process
from tests.tools.ticks import BOOT, START, Machine, row, stream

EVER = Period(0, 2 * START)
PLAIN = Style(100, False, START)


@contextmanager
def asked(path: Path, now: float, *, running: bool, ticked: float | None = None) -> Iterator[Source]:
    """The database as a view sees it, while an rh-pipe holds it (this process; its last tick at `ticked`) or not."""
    if running:
        connection = connect(path)
        connection.execute("INSERT OR REPLACE INTO daemon_state VALUES ('pid', ?, 0)", (str(os.getpid()),))
        connection.execute("UPDATE daemon_state SET value = json_set(value, '$.ts', ?) WHERE key = 'last_tick'",
                           (now if ticked is None else ticked,))
        connection.commit()
        connection.close()
    lock = Lock(path) if running else None
    try:
        with source(path, now, CONFIG) as found:
            yield found
    finally:
        if lock is not None:
            lock.release()


def answer(path: Path, at: float, *, now: float, running: bool) -> Record:
    """The record of `why --at`."""
    with asked(path, now, running=running) as found:
        (one,) = why(found, EVER, at).records
    wire.check("report_why", {k: v for k, v in one.items() if k not in ("type", "v")})
    return one


@pytest.fixture
def gap(tmp_path: Path) -> Path:
    """A loop for 20 s, nothing for 10 minutes, another loop for 20 s."""
    path = tmp_path / "x.db"
    loop = ticks_of(20, seconds(0, 99, hog(7, 66, command="before")))
    later = ticks_of(20, seconds(0, 99, hog(8, 66, command="after")))
    write(path, [*stream(loop), *moved(stream(later), 620)])
    return path


def moved(ticks: Iterator[Tick], by: float) -> Iterator[Tick]:
    """The ticks, later."""
    for tick in ticks:
        assert tick.row is not None
        tick.row["ts"] += by
        tick.row["mono_ns"] += int(by * 1e9)
        yield tick


def write(path: Path, ticks: Sequence[Tick]) -> None:
    """Store the ticks as rh-pipe would."""
    lock = Lock(path)
    writer = Writer(path, CONFIG.store, lambda: START, lambda message: None)
    stored = Store(writer)
    writer.tells(lambda: {"pid": 4242, "started_at": START - 100, "hz": 3.0, "model": "share", **stored.state()})
    for _ in chain(ticks, Track(CONFIG), History(CONFIG), stored):
        pass
    writer.finish({})
    writer.flush()
    writer.close()
    lock.release()


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("at", "words"), [
    (-3600, "the history begins at"), (300, "nothing was recorded between"), (90_000, "that time has not come yet"),
    (1200, "nothing was recorded after")])
def test_another_time_is_never_the_answer(gap: Path, at: float, words: str, running: bool) -> None:
    """N1: before the history, in a gap, in the future and after it, whether or not rh-pipe runs: no data."""
    one = answer(gap, START + at, now=START + 2000, running=running)
    assert (one["verdict"], one["causes"]) == ("no_evidence", [])
    assert one["headline"].startswith("No data: ") and words in one["headline"]
    assert "before" not in str(one.get("command")) and "after" not in str(one.get("command"))


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("at", "command"), [(11, "before"), (633, "after"), (-4, "before"), (623, "after")])
def test_five_seconds_beside_are_the_same_moment(gap: Path, at: float, command: str, running: bool) -> None:
    """The slices that overlap T +- 5 s, and their resolution."""
    one = answer(gap, START + at, now=START + 2000, running=running)
    assert (one["command"], one["resolution_s"]) == (command, 5)


def test_a_moment_is_not_answered_with_what_ended_before_it(tmp_path: Path) -> None:
    """One loop after the other: of the slice in which the first ended, most lies outside of the time that is asked for."""
    path = tmp_path / "x.db"
    first = ticks_of(21, seconds(0, 99, hog(7, 66, command="before")))
    then = ticks_of(12, seconds(0, 99, hog(8, 66, command="after")))
    write(path, [*stream(first), *moved(stream(then), 21)])
    one = answer(path, START + 29, now=START + 2000, running=False)      # the first loop is in the slice of 20 to 25 s
    assert [each["command"] for each in one["causes"] if "command" in each][:1] == ["after"]
    assert "before" not in str(one["causes"])


def test_a_period_in_a_gap_has_no_data(gap: Path) -> None:
    """N1, with --since and --until."""
    with asked(gap, START + 2000, running=True) as found:
        (one,) = why(found, Period(START + 100, START + 500), None).records
    assert one["verdict"] == "no_evidence" and "nothing was recorded between" in one["headline"]


def test_minutes_answer_when_slices_are_gone(gap: Path) -> None:
    """By identity, with the resolution they have; minutes of older versions by command, without a pid that would be that
    of one process."""
    connection = connect(gap)
    for table in ("machine_slices", "process_slices", "group_slices"):
        connection.execute(f"DELETE FROM {table}")
    connection.commit()
    connection.close()
    one = answer(gap, START + 11, now=START + 2000, running=False)
    assert (one["command"], one["resolution_s"], one["pid"]) == ("before", 60, 7)
    assert one["causes"][0]["used_s"] == pytest.approx(20, abs=0.5)
    connection = connect(gap)
    connection.execute("DELETE FROM process_minutes")
    connection.commit()
    connection.close()
    one = answer(gap, START + 11, now=START + 2000, running=False)
    assert (one["command"], one["resolution_s"]) == ("before", 60) and "pid" not in one


def test_asleep(tmp_path: Path) -> None:
    """N1: the machine slept, which is known."""
    ticks = list(stream([[row(2)]] * 60))
    for tick in ticks[30:]:
        assert tick.row is not None
        tick.row["ts"] += 2400
    assert ticks[30].row is not None
    ticks[30].row["asleep_s"] = 2400.0
    write(tmp_path / "x.db", ticks)
    one = answer(tmp_path / "x.db", START + 1200, now=START + 3000, running=True)
    assert (one["verdict"], one["cause"]) == ("found", "asleep")


def test_now_is_answered_from_the_memory_of_rh_pipe(gap: Path) -> None:
    """Slices that are in no database yet; with the newest weighing most; without a running rh-pipe: no data."""
    now = START + 2000
    history = History(CONFIG)
    loop = ticks_of(20, seconds(0, 99, hog(9, 66, command="live")))
    for _ in chain(moved(stream(loop), 1980), history):
        pass
    live = history.slicer.recent
    with asked(gap, now, running=True) as found:
        (one,) = why(found, EVER, now, live=lambda _: live()).records
    assert (one["verdict"], one["command"], one["pid"]) == ("use", "live", 9)
    assert one["headline"].startswith("In the last ")
    with asked(gap, now, running=False) as found:
        (one,) = why(found, EVER, now, live=lambda _: []).records
    assert one["verdict"] == "no_evidence" and "rh-pipe is not running" in one["headline"]


def test_now_without_an_answer_of_rh_pipe_is_the_newest_slice_if_it_is_fresh(gap: Path) -> None:
    """It holds the database and does not answer."""
    for late, verdict in ((3.0, "use"), (200.0, "no_evidence")):
        with asked(gap, START + 640 + late, running=True, ticked=START + 640) as found:
            (one,) = why(found, EVER, START + 640 + late, live=lambda _: []).records
        assert one["verdict"] == verdict


def test_the_summary_is_in_the_past_when_the_watch_ended(gap: Path) -> None:
    """N23: nothing is in the present tense or lasts until now."""
    for running in (False, True):
        with asked(gap, START + 641, running=running) as found:
            text = summary(found, Period(START + 600, START + 641), 5).text(PLAIN)
        assert (" uses " in text) == running and (" now" not in text or running)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_the_summary_and_why_agree(tmp_path: Path, seed: int) -> None:
    """The same window: the same causes, takers, numbers and words."""
    path = tmp_path / f"{seed}.db"
    if not path.exists():
        write(path, list(Machine(seed).ticks(90)))
    with source(path, START + 2000, CONFIG) as found:
        period = Period(START - 10, START + 1000)
        (short,) = summary(found, period, 5).records
        (long,) = why(found, period, None).records
    assert short["causes"] == long["causes"]
    same = ("cause", "kind", "command", "pid", "start_ticks", "own_cpu_percent", "victims")
    assert [short.get(name) for name in same] == [long.get(name) for name in same]


def test_who_is_named_comes_first_in_the_table(tmp_path: Path) -> None:
    """One order: that of the verdict."""
    path = tmp_path / "x.db"
    last = record_run(path, ticks_of(40, seconds(0, 12, hog(7, 90, command="short")),
                                     seconds(5, 40, hog(8, 60, command="long"))))
    with source(path, last, CONFIG) as found:
        (one,) = summary(found, Period(START, last), 5).records
    assert [w["pid"] for w in one["worst"]] == [c["pid"] for c in one["causes"][:2]] == [8, 7]


def test_identities_of_another_boot_are_others(tmp_path: Path) -> None:
    """The same pid and start after a reboot."""
    ticks = list(stream(ticks_of(10, seconds(0, 99, hog(7, 66, command="one")))))
    again = list(moved(stream(ticks_of(10, seconds(0, 99, hog(7, 66, command="two")))), 100))
    for tick in again:
        assert tick.row is not None
        tick.row["boot_id"] = BOOT.replace("0001", "0002")
    write(tmp_path / "x.db", [*ticks, *again])
    with source(tmp_path / "x.db", START + 200, CONFIG) as found:
        causes: list[dict[str, Any]] = why(found, Period(START, START + 200), None).records[0]["causes"]
    assert sorted(c["command"] for c in causes) == ["one", "two"]


@pytest.mark.slow
def test_a_long_period_is_a_small_window(tmp_path: Path) -> None:
    """Of a day with a shortage in most slices: the worst ones, sums of the rest, and nothing twice."""
    hours = 3
    path = tmp_path / "x.db"
    build_busy_day(path, 720 * hours)
    with source(path, FIRST + 3600 * hours, CONFIG) as found:
        window = over(found, FIRST, FIRST + 3600 * hours).window
        sums = [one for one in window.slices if one.machine.get("summed")]
        whole = dict(found.reader.execute("SELECT p.pid, sum(s.cpu_ms) / 1000.0 FROM process_slices s JOIN "
                                          "slice_processes p ON p.id = s.process WHERE p.pid < 105 GROUP BY 1").fetchall())
    assert len(window.slices) - len(sums) == SHORT_MOST and STRETCHES / 2 < len(sums) <= STRETCHES
    assert window.seconds == pytest.approx(3600 * hours, rel=0.001)
    for pid, cpu in whole.items():
        seen = sum(row.get("cpu_seconds", 0) for one in window.slices for row in one.processes if row["pid"] == pid)
        assert 0.3 * cpu < seen <= cpu + 0.1     # a minute has the highest of its processes only


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, 4, 40])
def test_hours_minutes_and_slices_cover_a_period_once(tmp_path: Path, days: int) -> None:
    """At any ends: hours for several days, minutes beside them, slices at the ends."""
    path = tmp_path / "x.db"
    connection, _ = open_writer(path)
    connection.execute("BEGIN")
    for n in range(24 * 60 * days):
        if n % (1 if days == 1 else 10) == 0:
            at = FIRST + 60 * n
            for each in (machine(at), process(at, 7, cpu_seconds=3.0), minute(at, seconds=5.0)):
                WRITES[each["type"]](connection, each)
    connection.execute("COMMIT")
    connection.close()
    since, until = FIRST + 7213.0, FIRST + 86400.0 * days - 1111.0
    with source(path, until + 10, CONFIG) as found:
        window = over(found, since, until).window
        (count,) = found.reader.execute("SELECT count(*) FROM machine_slices WHERE slice > ? AND slice < ?",
                                        (since - 5, until)).fetchone()
    seen = sum(row.get("cpu_seconds", 0) for one in window.slices for row in one.processes)
    assert seen == pytest.approx(3.0 * count, abs=7) and window.seconds == pytest.approx(5.0 * count, abs=15)
