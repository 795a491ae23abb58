"""The numbers of a report are those of the ticks that went into the database."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rogue_hunter.report import queries
from rogue_hunter.report.queries import Holder, Period, Source, Watched, holder, rank, source
from rogue_hunter.store.database import DatabaseError, Lock
from tests.tools.reports import CONFIG, connect, hog, record_run, seconds, ticks_of
from tests.tools.ticks import BOOT, START

ALWAYS = Period(START - 10, START + 1000)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A minute: a compiler for 20 s, a loop that runs to the end, a start-up of a third of a second."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(
        60, seconds(5, 25, hog(100, 85, command="cc1", cmdline="/usr/lib/cc1 -O2 big.c")),
        seconds(30, 99, hog(200, 66, command="sh", cmdline="sh -c while :; do :; done", cpu_share=0.97)),
        seconds(40, 40.3, hog(300, 90, command="ls", cmdline="ls -l \u00dcbung", user="bob"))))
    return path


@pytest.fixture
def opened(database: Path) -> Iterator[Source]:
    """The database as a view sees it, right after the run."""
    with source(database, START + 60, CONFIG) as found:
        yield found


def test_events_are_the_stays_newest_first(opened: Source) -> None:
    """Entry, end, length, reason, peak and the values at the peak of each stay."""
    short, loop, compiler = sorted(queries.events(opened.reader, ALWAYS, opened.watched), key=lambda e: -e["pid"])
    assert [e["pid"] for e in queries.events(opened.reader, ALWAYS, opened.watched)] == [300, 200, 100]
    assert (compiler["type"], compiler["v"], compiler["open"]) == ("report_event", 1, False)
    assert compiler["entry_time"] == pytest.approx(START + 5, abs=0.01)
    assert compiler["exit_time"] == pytest.approx(START + 25, abs=0.01)
    assert compiler["duration_s"] == pytest.approx(20 - 1 / 3, abs=0.01)
    assert (compiler["peak_score"], compiler["peak_band"], compiler["reason"]) == (85, "critical", "exited")
    assert (compiler["share"], compiler["cpu_percent"], compiler["cmdline"]) == (0.82, 98.4, "/usr/lib/cc1 -O2 big.c")
    assert compiler["cpu_seconds"] == pytest.approx(0.984 * 20, abs=0.4)
    assert (loop["reason"], loop["share"]) == ("stopped", 0.97)
    assert short["duration_s"] == 0.0
    assert "dominant_category" not in loop and None not in loop.values()


def test_the_limit_takes_the_newest(opened: Source) -> None:
    """0 is no limit."""
    assert [e["pid"] for e in queries.events(opened.reader, ALWAYS, opened.watched, 2)] == [300, 200]
    assert len(queries.events(opened.reader, ALWAYS, opened.watched, 0)) == 3


@pytest.mark.parametrize(("since", "until", "pids"), [
    (0, 4.9, []), (0, 5.1, [100]), (24, 29, [100]), (25.5, 29, []), (26, 31, [200]), (40.1, 40.2, [300, 200]),
    (0, 100, [300, 200, 100])])
def test_a_period_takes_what_overlaps_it(opened: Source, since: float, until: float, pids: list[int]) -> None:
    """An event that began before the period or ends after it belongs to it."""
    period = Period(START + since, START + until)
    assert [e["pid"] for e in queries.events(opened.reader, period, opened.watched)] == pids
    assert queries.count(opened.reader, period, opened.watched)["events"] == len(pids)


@pytest.mark.parametrize(("text", "pids"), [("cc1", [100]), ("BIG.C", [100]), ("while", [200]), ("l", [300, 200, 100]),
                                            ("\u00dcbung", [300]), ("%", []), ("'", []), ("", [300, 200, 100])])
def test_text_selects_by_name_and_command_line(opened: Source, text: str, pids: list[int]) -> None:
    """Upper and lower case are one; nothing in the text is a pattern or SQL."""
    period = Period(ALWAYS.since, ALWAYS.until, text)
    assert [e["pid"] for e in queries.events(opened.reader, period, opened.watched)] == pids


def test_one_event_by_number_and_by_key(opened: Source) -> None:
    """With its snapshots in order, and the low and high of each metric over them and their rings."""
    one = queries.event(opened.reader, "1", opened.watched)
    assert one is not None and one["pid"] == 100
    assert queries.event(opened.reader, one["event"], opened.watched) == one
    assert [s["snapshot_type"] for s in one["snapshots"]] == ["enter", "exit"]
    assert {s["type"] for s in one["snapshots"]} == {"report_snapshot"}
    assert one["ranges"]["score"] == {"low": 85, "peak": 85, "high": 85}
    assert one["ranges"]["cpu_percent"]["high"] == 98.4
    assert "energy_watts" not in one["ranges"]


@pytest.mark.parametrize("which", ["0", "99", "-1", "1.0", "x", "", "9" * 30, "¹", "1 OR 1=1"])
def test_no_such_event(opened: Source, which: str) -> None:
    """Text that names no event gives none."""
    assert queries.event(opened.reader, which, opened.watched) is None


def test_the_worst_lasted_long_or_still_lasts(opened: Source) -> None:
    """The start-up with the highest score comes last; what is still active outranks what was a little worse."""
    worst = queries.worst(opened.reader, ALWAYS, opened.watched, 0)
    assert [(w["pid"], w["going"]) for w in worst] == [(200, True), (100, False), (300, False)]
    assert [w["rank_points"] for w in worst] == [86.0, 85.0, pytest.approx(90 - 99.7, abs=0.1)]
    assert worst[0]["duration_s"] == pytest.approx(30, abs=0.01)
    assert [w["pid"] for w in queries.worst(opened.reader, ALWAYS, opened.watched, 1)] == [200]


def test_time_is_counted_within_the_period(opened: Source) -> None:
    """Of an event that reaches beyond the period, only the part inside."""
    period = Period(START + 20, START + 35)
    inside = {w["pid"]: w["duration_s"] for w in queries.worst(opened.reader, period, opened.watched, 0)}
    assert inside == {100: pytest.approx(5, abs=0.01), 200: pytest.approx(5, abs=0.01)}
    commands = {c["command"]: c["duration_s"] for c in queries.top(opened.reader, period, opened.watched, 0)}
    assert commands == {"cc1": pytest.approx(5, abs=0.01), "sh": pytest.approx(5, abs=0.01)}


def test_a_process_that_comes_and_goes_is_one(tmp_path: Path) -> None:
    """Events of one identity are merged, with the peak of the highest."""
    path = tmp_path / "x.db"
    flap = [seconds(at, at + 4, hog(100, 60 + at, command="flap")) for at in (0, 12, 24)]
    calm = [seconds(at + 4, at + 12, hog(100, 5, command="flap")) for at in (0, 12, 24)]
    record_run(path, ticks_of(40, *flap, *calm))
    with source(path, START + 40, CONFIG) as found:
        (worst,) = queries.worst(found.reader, ALWAYS, found.watched, 0)
        assert (worst["events"], worst["peak_score"], worst["peak_band"], worst["going"]) == (3, 84, "critical", False)
        assert worst["duration_s"] == pytest.approx(11, abs=0.1)
        assert worst["entry_time"] == pytest.approx(START, abs=0.01)
        assert queries.count(found.reader, ALWAYS, found.watched) == {
            "events": 3, "open_events": 0, "rogue_processes": 1}


def test_top_adds_up_the_processes_of_a_name(tmp_path: Path) -> None:
    """Events, processes, time and CPU time of all of them; longest first."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(
        30, seconds(0, 8, hog(100, 62, command="cc1")),
        seconds(2, 10, hog(101, 70, command="cc1", dominant_resource="disk")),
        seconds(0, 12, hog(200, 90, command="ld"))))
    with source(path, START + 30, CONFIG) as found:
        one, other = queries.top(found.reader, ALWAYS, found.watched, 0)
        assert (one["command"], one["events"], one["processes"], one["open_events"]) == ("cc1", 2, 2, 0)
        assert one["duration_s"] == pytest.approx(16 - 2 / 3, abs=0.05)
        assert (one["peak_score"], one["dominant_resource"]) == (70, "disk")
        assert one["cpu_seconds"] == pytest.approx(0.984 * 16, abs=0.8)
        assert (other["command"], other["peak_score"]) == ("ld", 90)
        assert [c["command"] for c in queries.top(found.reader, ALWAYS, found.watched, 1)] == ["cc1"]


def test_an_event_left_open_lasts_until_the_last_tick(tmp_path: Path) -> None:
    """After kill -9: as far as it was watched, not until now."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(20, seconds(5, 99, hog(100, 85))), crash=True)
    with source(path, START + 5000, CONFIG) as found:
        assert found.watch == "stopped"
        (one,) = queries.events(found.reader, Period(0, START + 5000), found.watched)
        assert one["open"] is True and "exit_time" not in one and "reason" not in one
        assert one["duration_s"] == pytest.approx(15, abs=0.4)
        assert queries.count(found.reader, ALWAYS, found.watched)["open_events"] == 1


def test_an_open_event_of_another_boot_is_not_current(tmp_path: Path) -> None:
    """Its process has exited, even if the last tick lists it."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(20, seconds(5, 99, hog(100, 85))), crash=True)
    with source(path, START + 20, CONFIG) as found:
        assert queries.worst(found.reader, ALWAYS, found.watched, 0)[0]["going"] is True
        other = Watched("another-boot", found.watched.seen, found.watched.leave)
        assert queries.worst(found.reader, ALWAYS, other, 0)[0]["going"] is False
        earlier = Period(ALWAYS.since, START + 10)
        assert queries.worst(found.reader, earlier, found.watched, 0)[0]["going"] is False


def test_an_exiting_process_is_not_current(tmp_path: Path) -> None:
    """At the end of the run the event has not ended, but the score has fallen already."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(12, seconds(2, 10, hog(100, 85)), seconds(10, 99, hog(100, 12))))
    with source(path, START + 12, CONFIG) as found:
        (one,) = queries.worst(found.reader, ALWAYS, found.watched, 0)
        assert (one["going"], one["peak_score"]) == (False, 85)


@pytest.mark.parametrize(("score", "length", "going", "points"), [
    (66, 10.0, False, 66.0), (66, 3600.0, False, 66.0), (66, 5.0, False, 56.0), (66, 2.5, False, 46.0),
    (66, 10.0, True, 86.0), (None, 10.0, False, 0.0)])
def test_rank(score: int | None, length: float, going: bool, points: float) -> None:
    """Ten seconds count in full, each halving costs ten points, an active one gains twenty."""
    assert rank(score, length, going) == points
    assert rank(90, 0.0, False) < rank(45, 10.0, False)


def test_totals(opened: Source) -> None:
    """All events, open ones, those since midnight, and the oldest."""
    assert queries.totals(opened.reader, START + 30) == {
        "events_total": 3, "open_events": 0, "events_today": 2,
        "oldest_event": pytest.approx(START + 5, abs=0.01)}
    before = queries.latest(opened.reader, Period(START + 35, START + 50), opened.watched)
    assert before == pytest.approx(START + 30, abs=0.01)
    assert queries.latest(opened.reader, Period(START, START + 50), opened.watched) is None


def test_a_reader_changes_nothing_and_sees_one_moment(database: Path, opened: Source) -> None:
    """A concurrent write does not change the answer in the middle, and a view cannot write."""
    before = queries.count(opened.reader, ALWAYS, opened.watched)
    other = connect(database)
    other.execute("DELETE FROM process_snapshots")
    other.execute("DELETE FROM process_events")
    other.commit()
    other.close()
    assert queries.count(opened.reader, ALWAYS, opened.watched) == before
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        opened.reader.execute("DELETE FROM process_events")


def test_the_lock_is_seen_and_not_touched(tmp_path: Path) -> None:
    """Who holds it is known; nothing is made, taken or waited for."""
    path = tmp_path / "x.db"
    assert holder(path) == Holder(False)
    assert not list(tmp_path.iterdir())
    lock = Lock(path)
    assert holder(path) == Holder(True, os.getpid())
    lock.release()
    assert holder(path) == Holder(False)
    Lock(path).release()


@pytest.mark.parametrize(("age", "pid", "held", "watch"), [
    (2, None, False, "stopped"), (2, "own", True, "running"), (33, "own", True, "stale"), (2, 1, True, "busy")])
def test_watch(tmp_path: Path, age: float, pid: object, held: bool, watch: str) -> None:
    """running needs the lock, the pid that the database names, and a fresh tick."""
    path = tmp_path / "x.db"
    last = record_run(path, ticks_of(20, seconds(5, 99, hog(100, 85))), pid=77)
    found = Source(path, last + age, CONFIG, state={"pid": 77, "hz": 3.0, "last_tick": {"ts": last, "boot_id": BOOT}},
                   holder=Holder(held, 77 if pid == "own" else 1 if pid else None))
    assert found.watch == watch
    assert found.watched.seen == (last + age if watch == "running" else last)


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    """69 when there is none, 74 for a file of another kind; nothing is made."""
    with pytest.raises(DatabaseError, match="no history yet") as none, source(tmp_path / "no.db", START, CONFIG):
        pass
    assert none.value.code == 69
    text = tmp_path / "notes"
    text.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(DatabaseError, match="not a readable database") as notes, source(text, START, CONFIG):
        pass
    assert notes.value.code == 74
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]


def test_a_damaged_page_is_an_error_of_reading(database: Path) -> None:
    """Found in the middle of a query: one line and exit code 74, no traceback."""
    with database.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 12)
    with pytest.raises(DatabaseError) as damaged, source(database, START, CONFIG) as found:
        queries.events(found.reader, ALWAYS, found.watched)
        queries.worst(found.reader, ALWAYS, found.watched, 0)
        queries.event(found.reader, "1", found.watched)
    assert damaged.value.code == 74
