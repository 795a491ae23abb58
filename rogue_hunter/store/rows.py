"""Records as rows: the statements by which each type of record is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from rogue_hunter.store import rows_forensics, rows_reap
from rogue_hunter.store.tables import (
    COMMAND_MINUTES,
    MACHINE_MINUTES,
    PAUSE_CULPRITS,
    PAUSES,
    PROCESS_EVENTS,
    PROCESS_SNAPSHOTS,
)
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record
from rogue_hunter.tracking.use import AVERAGES

_EVENT_COLUMNS = tuple(c.name for c in PROCESS_EVENTS.columns if c.name != "id")
_SNAPSHOT_COLUMNS = tuple(c.name for c in PROCESS_SNAPSHOTS.columns if c.name != "id")
_INSERT_EVENT = PROCESS_EVENTS.insert().replace("INSERT", "INSERT OR IGNORE", 1)
_INSERT_SNAPSHOT = PROCESS_SNAPSHOTS.insert()


def _write_event(connection: sqlite3.Connection, event: Record) -> None:
    """One event record: its row of process_events made or moved on, and a snapshot."""
    execute = connection.execute
    kind, name = event["kind"], event["event"]
    row = execute("SELECT id, peak_snapshot_id FROM process_events WHERE event = ?", (name,)).fetchone()
    if row is None:
        # Not only for `enter`: after a corrupt file was moved aside, an event goes on in the new one.
        begun = {column: event.get(column) for column in _EVENT_COLUMNS}
        begun.update(entry_time=event["entered"], last_seen=event["ts"], entry_band=event.get("band"),
                     entry_score=event.get("score"), reason=None)
        execute(_INSERT_EVENT, _bound(begun))
        row = execute("SELECT id, peak_snapshot_id FROM process_events WHERE event = ?", (name,)).fetchone()
        if row is None:
            return
    event_id, peak_id = row
    snapshot = {column: event.get(column) for column in _SNAPSHOT_COLUMNS}
    snapshot.update(event_id=event_id, snapshot_type=kind, captured_at=event["ts"])
    snapshot_id = execute(_INSERT_SNAPSHOT, _bound(snapshot)).lastrowid
    if kind in ("enter", "peak"):
        execute("UPDATE process_events SET peak_score = ?, peak_band = ?, peak_snapshot_id = ?,"
                " dominant_resource = ?, dominant_category = ?, last_seen = ? WHERE id = ?",
                (event["peak_score"], event["peak_band"], snapshot_id, event.get("dominant_resource"),
                 event.get("dominant_category"), event["ts"], event_id))
        # Only the last peak is of interest; the enter snapshot stays.
        execute("DELETE FROM process_snapshots WHERE id = ? AND snapshot_type = 'peak'", (peak_id,))
    elif kind == "exit":
        execute("UPDATE process_events SET exit_time = ?, reason = ?, last_seen = ?"
                " WHERE id = ? AND exit_time IS NULL",
                (event["ts"], event.get("reason"), event["ts"], event_id))
    else:
        execute("UPDATE process_events SET last_seen = ? WHERE id = ?", (event["ts"], event_id))
    execute("UPDATE process_events SET exe = coalesce(exe, ?), cmdline = coalesce(cmdline, ?),"
            " user = coalesce(user, ?), cgroup = coalesce(cgroup, ?), unit = coalesce(?, unit),"
            " orphan_of = coalesce(orphan_of, ?) WHERE id = ?",
            (*(event.get(name) for name in ("exe", "cmdline", "user", "cgroup", "unit", "orphan_of")), event_id))


def _write_pause(connection: sqlite3.Connection, pause: Record) -> None:
    """A pause and its culprits."""
    row = {"pause": pause["pause"], "boot_id": pause["boot_id"], "start_time": pause["start"], "end_time": pause["end"],
           "duration_s": pause["duration_s"], "cause": pause["cause"],
           "unexplained_share": pause.get("unexplained_share"), "evidence": pause["evidence"]}
    cursor = connection.execute(PAUSES.insert().replace("INSERT", "INSERT OR IGNORE", 1), _bound(row))
    if cursor.rowcount:
        pause_id = cursor.lastrowid
        connection.executemany(PAUSE_CULPRITS.insert(), [
            {"pause_id": pause_id, "rank": rank, **{name: culprit.get(name) for name in (
                "pid", "start_ticks", "command", "unit", "resource", "amount", "share")}}
            for rank, culprit in enumerate(pause["culprits"], 1)])


def _write_machine_minute(connection: sqlite3.Connection, minute: Record) -> None:
    """A minute that a restart cut in two: averages by time, extremes, sums; of the rest, what came last."""
    connection.execute(_ADD_MACHINE, {c.name: minute.get(c.name) for c in MACHINE_MINUTES.columns})


def _write_command_minute(connection: sqlite3.Connection, minute: Record) -> None:
    """A minute that a restart cut in two is added up."""
    connection.execute(_ADD_COMMAND, {c.name: minute.get(c.name) for c in COMMAND_MINUTES.columns})


def _both(name: str) -> str:
    """The value of a column of machine_minutes out of two parts of a minute."""
    if name in ("ticks", "seconds", "asleep_s", "disk_bytes", "started", "exited", "pauses", "pause_s"):
        return f"coalesce({name}, 0) + coalesce(excluded.{name}, 0)"
    if name in ("late_s", "cpu_busy_cores_max", "max_score"):
        return f"max(coalesce({name}, 0), coalesce(excluded.{name}, 0))"
    if name == "memory_available_bytes":
        return f"min(coalesce({name}, excluded.{name}), coalesce(excluded.{name}, {name}))"
    if name in AVERAGES:
        return (f"round((coalesce({name}, excluded.{name}) * seconds + coalesce(excluded.{name}, {name}) *"
                f" excluded.seconds) / max(seconds + excluded.seconds, 0.001), 3)")
    return f"coalesce(excluded.{name}, {name})"


_ADD_MACHINE = MACHINE_MINUTES.insert() + " ON CONFLICT (minute, boot_id) DO UPDATE SET " + ", ".join(
    f"{c.name} = {_both(c.name)}" for c in MACHINE_MINUTES.columns if c.name not in ("minute", "boot_id"))
_ADD_COMMAND = COMMAND_MINUTES.insert() + " ON CONFLICT (minute, command) DO UPDATE SET " + ", ".join(
    f"{n} = coalesce({n}, 0) + coalesce(excluded.{n}, 0)" for n in (
        "cpu_seconds", "disk_bytes", "gpu_seconds", "wakeups", "run_delay_s", "rogue_s")
) + ", max_score = max(max_score, excluded.max_score), memory_bytes = excluded.memory_bytes"

WRITES: dict[str, Callable[[sqlite3.Connection, Record], None]] = {
    "event": _write_event, "pause": _write_pause, "machine_minute": _write_machine_minute,
    "command_minute": _write_command_minute, **rows_forensics.WRITES,
    **rows_reap.WRITES,
}
"""Record types that are stored, and how."""


def _bound(values: dict[str, Any]) -> dict[str, Any]:
    """Values that SQLite can hold: lists as JSON."""
    return {k: wire.dumps(v).decode() if isinstance(v, (list, dict)) else v for k, v in values.items()}
