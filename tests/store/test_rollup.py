"""Slices become minutes, and minutes hours, by identity: the same sums, in little room, made again without doubling."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.store import migrations
from rogue_hunter.store.database import open_reader, open_writer
from rogue_hunter.store.migrations import VERSION
from rogue_hunter.store.prune import files_size
from rogue_hunter.store.rollup import MOST, roll_all, roll_minute
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.tables import SLICES, VIEWS
from rogue_hunter.store.writer import SliceBudget
from tests.store.test_slices import write
from tests.tools.slices import FIRST, busy_day, group, machine, minute, process, usual_day

HOUR = FIRST // 3600 * 3600 + 3600


def read(path: Path, view: str) -> list[dict[str, Any]]:
    with closing(open_reader(path)) as reader:
        return [{k: row[k] for k in row.keys() if row[k] is not None}  # noqa: SIM118
                for row in reader.execute(f"SELECT * FROM {view}")]


def test_sums_by_identity(tmp_path: Path) -> None:
    """Two processes of one name are two; what is added is added, what is held is the most, and the time that was
    listed is known."""
    slices = [[machine(FIRST + 5 * n), *([process(FIRST + 5 * n, 7, cpu_seconds=1.5, memory_bytes=n << 20)]
                                         if n >= 6 else []), process(FIRST + 5 * n, 8, cpu_seconds=0.5)] for n in range(12)]
    write(tmp_path / "x.db", [*slices, [minute(FIRST)]])
    rows = {row["pid"]: row for row in read(tmp_path / "x.db", "v_process_minutes")}
    assert (rows[7]["cpu_seconds"], rows[7]["active_s"], rows[7]["first_slice"]) == (9.0, 30.0, FIRST + 30)
    assert (rows[8]["cpu_seconds"], rows[8]["active_s"]) == (6.0, 60.0)
    assert rows[7]["memory_bytes"] == 11 << 20 and rows[7]["command"] == rows[8]["command"] == "cc1plus"
    assert "state" not in rows[7] and rows[7]["slice"] == FIRST


def test_a_minute_that_is_made_again_is_the_same(tmp_path: Path) -> None:
    """A restart cuts it in two: the second part is added up with what the first has left."""
    path = tmp_path / "x.db"
    write(path, [[machine(FIRST), process(FIRST, 7, cpu_seconds=1.0), minute(FIRST, seconds=5.0)]])
    write(path, [[machine(FIRST + 5), process(FIRST + 5, 7, cpu_seconds=2.0), minute(FIRST, seconds=5.0)]])
    (row,) = read(path, "v_process_minutes")
    assert (row["cpu_seconds"], row["active_s"]) == (3.0, 10.0)
    connection, _ = open_writer(path)
    roll_minute(connection, FIRST)
    roll_all(connection)
    connection.close()
    assert read(path, "v_process_minutes") == [row]


def test_a_slice_of_a_pause_counts_where_it_ends(tmp_path: Path) -> None:
    """It begins before the minute, and no other minute has it."""
    write(tmp_path / "x.db", [[minute(FIRST - 60)],
                              [machine(FIRST - 1.25, seconds=3.0), process(FIRST - 1.25, 7, cpu_seconds=3.0), minute(FIRST)]])
    assert [(r["slice"], r["cpu_seconds"]) for r in read(tmp_path / "x.db", "v_process_minutes")] == [(FIRST, 3.0)]


def test_hours(tmp_path: Path) -> None:
    """Made with the first minute after them: sums of processes, averages by time, extremes and sums of the machine."""
    path = tmp_path / "x.db"
    batches = [[machine(HOUR + 60 * n), process(HOUR + 60 * n, 7, cpu_seconds=2.0),
                group(HOUR + 60 * n, "make[7]", cpu_seconds=3.0, processes=n + 1),
                minute(HOUR + 60 * n, cpu_busy_cores=float(n < 30), late_s=0.01 * n, pauses=1)] for n in range(60)]
    write(path, batches)
    assert read(path, "machine_hours") == []
    write(path, [[minute(HOUR + 7200)]])
    (hour,) = read(path, "machine_hours")
    assert (hour["minute"], hour["seconds"], hour["cpu_busy_cores"], hour["pauses"]) == (HOUR, 3600, 0.5, 60)
    assert hour["late_s"] == pytest.approx(0.59)
    (row,) = read(path, "v_process_hours")
    assert (row["slice"], row["cpu_seconds"], row["active_s"], row["first_slice"]) == (HOUR, 120.0, 300.0, HOUR)
    (unit,) = read(path, "v_group_hours")
    assert (unit["cpu_seconds"], unit["processes"], unit["unit"]) == (180.0, 60, "make[7]")


@pytest.mark.slow
@pytest.mark.parametrize("day", [busy_day, usual_day])
def test_a_day_of_minutes_is_small(tmp_path: Path, day: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Two hours of a busy machine: at most MOST processes a minute; 6 MB a day in the worst case, with their names."""
    path = tmp_path / "x.db"
    connection, _ = open_writer(path)
    budget = SliceBudget()
    connection.execute("BEGIN")
    for n, batch in enumerate(day(1440)):
        for each in budget.chosen(batch):
            WRITES[each["type"]](connection, each)
        if n % 12 == 11:
            WRITES["machine_minute"](connection, minute(FIRST + 60 * (n // 12)))
    connection.execute("COMMIT")
    most = connection.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM process_minutes GROUP BY slice)").fetchone()[0]
    for table in SLICES[3:6]:
        connection.execute(f"DELETE FROM {table.name}")
    for table in SLICES[1:3]:
        connection.execute(f"DELETE FROM {table.name} WHERE kept IS NULL")
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    open_writer(tmp_path / "empty.db")[0].close()
    grown = 12 * (files_size(path) - files_size(tmp_path / "empty.db"))
    with capsys.disabled():
        print(f"\n{day.__name__}: minutes of {grown / 1e6:.2f} MB a day, at most {most} processes each")
    assert most <= MOST and grown <= 6e6


STEPS = {2: "m003_forensics", 5: "m006_slices", 6: "m007_durations", 7: "m008_sessions", 8: "m009_minutes_by_identity",
         12: "m013_device_requests"}
"""Version -> the step that it lacks first."""


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def older(path: Path, version: int) -> None:
    """Make a file of today look like one of an earlier version: without the tables of later steps, and some columns."""
    from sqlite_utils import Database

    with closing(sqlite3.connect(path.with_name("then.db"), isolation_level=None)) as then:
        migrations._steps().apply(Database(then), stop_before=STEPS[version])
    gone = {"machine_minutes": ("run_delay_ms_per_s", "device_bytes", "oom_kills", "device_requests_s"),
            "machine_slices": ("device_requests_s",), "slice_processes": ("kept",), "slice_units": ("kept",), "pause_culprits": ("name", "processes"),
            "process_events": ("duration_s",) if version < 7 else ()}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for view in VIEWS:
            connection.execute(f"DROP VIEW {view}")
        for table in tables(path) - tables(path.with_name("then.db")):
            connection.execute(f"DROP TABLE {table}")
        for table, columns in gone.items():
            for column in columns if table in tables(path) else ():
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name >= ?", (STEPS[version],))
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", sorted(STEPS))
def test_every_older_version_becomes_todays(tmp_path: Path, version: int) -> None:
    """The same tables, columns and views as a new file; what it had is kept, and slices that it had become minutes."""
    fresh, old = tmp_path / "fresh.db", tmp_path / "old.db"
    open_writer(fresh)[0].close()
    write(old, [[machine(FIRST), process(FIRST, 7, cpu_seconds=2.0), minute(FIRST)], [minute(FIRST + 3600)]])
    older(old, version)
    open_writer(old)[0].close()

    def shape(path: Path) -> dict[str, set[str]]:
        with closing(open_reader(path)) as reader:
            names = [row[0] for row in reader.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
            return {name: {row["name"] for row in reader.execute(f"PRAGMA table_info({name})")} for name in names}

    assert shape(old) == shape(fresh)
    with closing(open_reader(old)) as reader:
        assert reader.execute("PRAGMA user_version").fetchone()[0] == VERSION
    assert len(read(old, "machine_minutes")) == 2
    rows = read(old, "v_process_minutes")
    assert [(row["pid"], row["cpu_seconds"]) for row in rows] == ([(7, 2.0)] if version >= 6 else [])
    assert len(read(old, "machine_hours")) >= 1 and read(old, "v_machine_slices") == ([] if version < 6 else
                                                                                     read(old, "v_machine_slices"))
