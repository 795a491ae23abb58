"""Captures in the database: what is written is what can be read, and it goes with its time."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Store
from rogue_hunter.report.views.captures import read
from rogue_hunter.schema import RECORDS
from rogue_hunter.store.database import open_reader, open_writer
from rogue_hunter.store.prune import HISTORY, estimate, prune
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.tables import CAPTURE_PARTS, FORENSICS
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.tick import Record, Tick, record
from tests.tools.captures import capture, parsed, parts
from tests.tools.ticks import START

NAMES = [table.name for table in FORENSICS]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def write(path: Path, *batches: list[Record]) -> list[str]:
    """Write the batches, a tick each; gives what was complained about."""
    said: list[str] = []
    writer = Writer(path, Store(), lambda: START, said.append)
    for batch in batches:
        writer.take(Tick(records=batch))
    writer.close()
    return said


def counts(path: Path) -> dict[str, int]:
    with open_reader(path) as connection:
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in NAMES}


def event(name: str = "e1", ts: float = START, kind: str = "enter", **more: Any) -> Record:
    return record("event", ts=ts, kind=kind, event=name, boot_id="b", entered=START, duration_s=0.0, peak_score=90,
                  peak_band="critical", pid=7, start_ticks=70, command="hog", band="critical", score=90, **more)


def test_every_field_has_a_column_and_the_reverse() -> None:
    """But those that say where a record belongs; the database has numbers for that."""
    for kind, table in CAPTURE_PARTS.items():
        fields = {f.name for f in RECORDS[kind]} - {"capture"}
        assert {c.name for c in table.columns} - {"id", "capture_id"} == fields
    names = {c.name for c in FORENSICS[0].columns}
    stored = {f.name for f in RECORDS["capture"] if f.stage == "forensics"} - {"ts"}
    assert names - {"id", "event_id", "pause_id", "captured_at"} == stored
    assert set(WRITES) >= {"capture", *CAPTURE_PARTS}


@pytest.mark.parametrize("name", ["deadlock.spin", "heavy.txt"])
def test_what_is_written_is_what_is_read(db: Path, name: str) -> None:
    """Every record of a capture comes back as it was, with any values; by number and by key."""
    own, children = capture(), [*parts(), *parsed(name, "k1")]
    assert write(db, [own, *children[:3]], children[3:]) == []
    with open_reader(db) as connection:
        found = read(connection, "1")
        assert found == read(connection, "k1") and read(connection, "2") is None and read(connection, "k") is None
    assert found is not None
    back, rows = found
    assert {k: v for k, v in back.items() if k != "id"} == own and back["id"] == 1
    by_kind = [[each for each in children if each["type"] == kind] for kind in CAPTURE_PARTS]
    assert rows == [each for same in by_kind for each in same]


def test_a_capture_belongs_to_its_event_and_its_pause(db: Path) -> None:
    """By number, for readers of SQL; a capture requested by hand belongs to no event."""
    pause = record("pause", ts=START, pause="p1", boot_id="b", start=START - 2, end=START, duration_s=2.0, cause="cpu",
                   culprits=[], evidence={})
    write(db, [event()], [pause], [capture("k1", event="e1")], [capture("k2", pause="p1", trigger="pause")],
          [capture("k3", event="nobody's", trigger="manual")])
    with open_reader(db) as connection:
        found = [tuple(row) for row in connection.execute(
            "SELECT capture, event_id, pause_id FROM forensic_captures ORDER BY id")]
    assert found == [("k1", 1, None), ("k2", None, 1), ("k3", None, None)]


def test_parts_without_their_capture_are_left_out(db: Path) -> None:
    """The record of the capture fell out of a full queue: its parts are no reason to stop writing."""
    assert write(db, parts("lost"), [capture("k1"), *parts("k1")]) == []
    found = counts(db)
    assert found["forensic_captures"] == 1 and found["spindump_threads"] == 3 and found["log_entries"] == 2


def test_a_capture_is_stored_once(db: Path) -> None:
    """The same record again is the same capture."""
    write(db, [capture("k1")], [capture("k1", status="ok")])
    with open_reader(db) as connection:
        assert [r["status"] for r in connection.execute("SELECT status FROM forensic_captures")] == ["partial"]


@pytest.mark.parametrize("bad", [
    {"type": "event", "v": 1}, {"type": "pause", "v": 1, "pause": "p"},
    {"type": "pause", "v": 1, "pause": "p", "boot_id": "b", "start": 1, "end": 2, "duration_s": 1, "cause": "cpu",
     "evidence": {}, "culprits": [5]},
    {"type": "pause", "v": 1, "pause": "p", "boot_id": "b", "start": 1, "end": 2, "duration_s": 1, "cause": "cpu",
     "evidence": {}, "culprits": [{"pid": None}]},
    capture("k9", skipped=2**64 - 1),
])
def test_what_cannot_be_a_row_is_left_out(db: Path, bad: Record) -> None:
    """Untrusted input: reported and counted; what came with it and after it is stored, nothing of it is."""
    said = write(db, [capture("k1"), bad, *parts("k1")], [bad], [capture("k2")])
    assert len(said) == 2 and all("cannot be stored" in line and bad["type"] in line for line in said)
    found = counts(db)
    assert found["forensic_captures"] == 2 and found["spindump_threads"] == 3
    with open_reader(db) as connection:
        assert connection.execute("SELECT count(*) FROM pauses").fetchone()[0] == 0
        (dropped,) = connection.execute("SELECT value FROM daemon_state WHERE key = 'dropped'").fetchone()
    assert dropped == "2"


def test_a_capture_goes_with_everything_that_is_its_own(db: Path) -> None:
    """By age: counted row by row, as it was estimated; the younger one stays whole."""
    stack = record("stack", pid=1, samples=2, stack="a;b")
    write(db, *([capture(key, at), *parts(key), {**stack, "capture": key}, {**stack, "capture": "none"},
                 *parsed("mac/Crawler_2030-01-02-143600_test.diag", key)]
                for key, at in (("old", START - 1000), ("new", START))))
    with open_reader(db) as connection:
        guess = estimate(connection, START - 500, 10**9).rows
    connection, _ = open_writer(db)
    done = list(prune(connection, START - 500, 10**9))[-1]
    connection.close()
    whole = {"forensic_captures": 1, "buffer_context": 1, "spindump_reports": 1, "spindump_processes": 3,
             "spindump_threads": 3, "spindump_blockers": 2, "log_entries": 2, "resource_reports": 1,
             "resource_processes": 2, "stacks": 1}
    assert done.rows == whole == guess
    assert counts(db) == {name: count for name, count in whole.items() if name != "stacks"}


def test_a_capture_is_gone_when_its_event_is(db: Path) -> None:
    """Also where a user deletes the event by hand."""
    write(db, [event()], [capture("k1", event="e1"), *parts()])
    connection, _ = open_writer(db)
    connection.execute("DELETE FROM process_events")
    connection.close()
    assert set(counts(db).values()) == {0}


def test_captures_are_pruned_in_smaller_bites(db: Path) -> None:
    """One has as many rows as hundreds of events: a beat that waits for a bite waits as long for either."""
    write(db, *[[capture(f"k{n}", START + n), *parts(f"k{n}")] for n in range(40)])
    connection, _ = open_writer(db)
    steps = [done.rows.get("forensic_captures", 0) for done in prune(connection, START + 100, 10**9, bite=100)]
    connection.close()
    taken = [b - a for a, b in zip([0, *steps], steps, strict=False) if b > a]
    assert sum(taken) == 40 and max(taken) == 2
    assert HISTORY[0].table == "forensic_captures"


def test_an_older_file_gets_the_tables(db: Path) -> None:
    """A database of before: its events stay, and captures can be written; views are today's."""
    from rogue_hunter.store import migrations, tables

    write(db, [event()])
    connection = sqlite3.connect(db, isolation_level=None)
    for name in reversed(NAMES):
        connection.execute(f"DROP TABLE {name}")
    connection.execute("DELETE FROM _sqlite_migrations WHERE name >= 'm003'")
    newer = [t for t in tables.TABLES if t.name not in NAMES and t.name in _made_after(connection)]
    for table in newer:
        connection.execute(f"DROP TABLE {table.name}")
    connection.execute("DROP VIEW v_timeline")
    connection.execute("CREATE VIEW v_timeline AS SELECT 1 AS old")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    assert write(db, [capture("k1", event="e1"), *parts()]) == []
    assert counts(db)["spindump_threads"] == 3
    with open_reader(db) as reader:
        assert reader.execute("SELECT count(*) FROM process_events").fetchone()[0] == 1
        assert "ts" in {d[0] for d in reader.execute("SELECT * FROM v_timeline").description}
        assert reader.execute("PRAGMA user_version").fetchone()[0] == migrations.VERSION


def _made_after(connection: sqlite3.Connection) -> set[str]:
    """Tables of later steps than these."""
    early = {"daemon_state", "process_events", "process_snapshots", "pauses", "pause_culprits", "machine_minutes",
             "command_minutes", "_sqlite_migrations"}
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} - early
