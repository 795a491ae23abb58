"""What rules matched and what the reaper did, in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Store
from rogue_hunter.store.database import open_reader, open_writer
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, Tick, record

NOW = 1_795_000_000.0


def a_match(ts: float = NOW, **more: Any) -> Record:
    return record("match", **{"ts": ts, "boot_id": "b", "pid": 4000, "start_ticks": 7, "command": "loop",
                              "rule": "infinite_loop", "priority": "critical", "action": "kill", "reason": "cpu 99 %",
                              "evidence": "window", "evidence_terms": [{"condition": "cpu_percent_min", "value": 99}],
                              "matched_s": 5.0, **more})


def an_action(**more: Any) -> Record:
    return record("action", **{"ts": NOW, "boot_id": "b", "pid": 4000, "start_ticks": 7, "command": "loop",
                               "rule": "infinite_loop", "outcome": "killed", "signals": ["SIGTERM", "SIGKILL"],
                               "signal": "SIGKILL", "dry_run": False, "run": "r1", "audit_seq": 3,
                               "bundle": {"wchan": "do_nanosleep"}, **more})


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "x.db", Store(), lambda: NOW, lambda _: None)
    yield made
    made.close()


def rows(writer: Writer, path: Path, sql: str) -> list[dict[str, Any]]:
    writer.flush()
    reader = open_reader(path / "x.db")
    try:
        return [dict(row) for row in reader.execute(sql)]
    finally:
        reader.close()


def test_a_match_that_lasts_is_one_row(writer: Writer, tmp_path: Path) -> None:
    """First and last time, how often it was reported, and the readings of the last time."""
    writer.take(Tick(records=[a_match(cpu_percent=99.0)]))
    writer.take(Tick(records=[a_match(NOW + 60, matched_s=65.0, cpu_percent=97.0),
                              a_match(NOW + 60, rule="hung_test", matched_s=0.0)]))
    found = rows(writer, tmp_path, "SELECT * FROM matches ORDER BY id")
    assert [(r["rule"], r["times"], r["first_seen"], r["last_seen"], r["cpu_percent"]) for r in found] == [
        ("infinite_loop", 2, NOW - 5, NOW + 60, 97.0), ("hung_test", 1, NOW + 60, NOW + 60, None)]
    assert wire.loads(found[0]["evidence_terms"].encode())[0]["value"] == 99


def test_a_line_of_the_audit_file_is_one_row(writer: Writer, tmp_path: Path) -> None:
    """The reaper's own record and the same line read from the file are one action; without a line each is one."""
    writer.take(Tick(records=[an_action(), an_action(detail="from the file"), an_action(audit_seq=4),
                              an_action(audit_seq=None), an_action(audit_seq=None)]))
    found = rows(writer, tmp_path, "SELECT * FROM actions ORDER BY id")
    assert [r["audit_seq"] for r in found] == [3, 4, None, None]
    assert found[0]["signals"] == '["SIGTERM","SIGKILL"]' and found[0]["dry_run"] == 0
    timeline = rows(writer, tmp_path, "SELECT what, detail, command FROM v_timeline")
    assert timeline[0] == {"what": "action", "detail": "killed by SIGKILL for rule infinite_loop", "command": "loop"}


def test_only_actions_are_written_through(tmp_path: Path) -> None:
    """synchronous is FULL around a transaction with an action in it, and NORMAL for all others."""
    said: list[str] = []

    def opener(path: Path) -> tuple[sqlite3.Connection, Path | None]:
        connection, moved = open_writer(path)
        connection.set_trace_callback(said.append)
        return connection, moved

    writer = Writer(tmp_path / "x.db", Store(), lambda: NOW, lambda _: None, opener)
    writer.take(Tick(records=[a_match()]))
    assert "COMMIT" in said and not any("synchronous" in line for line in said)
    said.clear()
    writer.take(Tick(records=[an_action()]))
    kept = [line for line in said if line.startswith(("PRAGMA", "BEGIN", "COMMIT"))]
    assert kept == ["PRAGMA synchronous = FULL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous = NORMAL"]
    writer.close()


def test_a_file_of_before_gets_the_tables(tmp_path: Path) -> None:
    """An older version is migrated; its rows stay, its views are today's."""
    from rogue_hunter.store.tables import REAP

    path = tmp_path / "x.db"
    connection, _ = open_writer(path)
    for table in REAP:
        connection.execute(f"DROP TABLE {table.name}")
    connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'm004_reap'")
    connection.execute("INSERT INTO machine_minutes (minute, boot_id, ticks, seconds) VALUES (60, 'b', 1, 1)")
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    connection, _ = open_writer(path)
    assert connection.execute("SELECT count(*) FROM machine_minutes").fetchone()[0] == 1
    assert connection.execute("SELECT count(*) FROM actions").fetchone()[0] == 0
    assert "actions" in connection.execute("SELECT sql FROM sqlite_master WHERE name = 'v_timeline'").fetchone()[0]
    connection.close()
