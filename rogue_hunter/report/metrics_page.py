"""The metrics page from the database, for a scrape without a pipe of ticks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from rogue_hunter.metrics import Metrics
from rogue_hunter.report import queries
from rogue_hunter.store.database import DatabaseError, damaged, open_reader
from rogue_hunter.stream.tick import Record, Row, Tick, record

STALE_S = 60.0
"""Seconds after which the last tick is outdated: rh-pipe stores it every ten seconds."""


def recorded(path: Path, now: float | None = None) -> bytes:
    """The page: gauges of the last tick if it is recent, and counters of everything in the database. Counters fall when
    history is pruned, as at a restart. Raises DatabaseError."""
    now = time.time() if now is None else now
    try:
        with closing(open_reader(path)) as connection:
            connection.execute("BEGIN")
            return _page(connection, now)
    except sqlite3.Error as error:
        raise DatabaseError(f"{path}: {error}", 74) from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise damaged(path, error) from error


def _page(connection: sqlite3.Connection, now: float) -> bytes:
    state = queries.state(connection)
    last: Row = state.get("last_tick") or {}
    running = state.get("stopped_at") is None and "started_at" in state
    clock = [float(state["started_at"]) if running else now]
    metrics = Metrics(lambda: clock[0])
    for ts, each in _records(connection):
        clock[0] = ts
        metrics.observe(Tick(records=[each]))
    clock[0] = now
    for field, seconds in _pressures(connection):
        metrics.add_pressure(field, seconds)
    metrics.restore(last if now - float(last.get("ts", 0.0)) <= STALE_S else None, int(state.get("ticks") or 0))
    return metrics.render()


def _records(connection: sqlite3.Connection) -> Iterator[tuple[float, Record]]:
    """Every record that is counted, with the time of its last report."""
    for kind, sql in (
        ("pause", "SELECT end_time AS at, cause, duration_s FROM pauses"),
        ("match", "SELECT last_seen AS at, boot_id, pid, start_ticks, rule, priority FROM matches ORDER BY last_seen"),
        ("event", "SELECT entry_time AS at, event, 'exit' AS kind, peak_band FROM process_events"),
        ("action", "SELECT ts AS at, boot_id, pid, start_ticks, rule, outcome, cpu_recovered_percent FROM actions"),
    ):
        for row in connection.execute(sql):
            fields = dict(row)
            yield float(fields.pop("at")), record(kind, **fields)


def _pressures(connection: sqlite3.Connection) -> Iterator[tuple[str, float]]:
    """Field of a closing row, seconds of pressure in all minutes; nothing for what was never measured."""
    for field in ("pressure_cpu_some_ms_per_s", "pressure_memory_full_ms_per_s", "pressure_io_full_ms_per_s"):
        (total,) = connection.execute(f"SELECT sum({field} * seconds) / 1000 FROM machine_minutes").fetchone()
        if total is not None:
            yield field, total
