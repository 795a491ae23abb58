"""Records as rows: the statements by which each type of record is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from rogue_hunter.schema.slices import LIMIT, SLICE_S, WAIT
from rogue_hunter.store.rollup import ADDED, AVERAGED, LARGEST, roll_minute
from rogue_hunter.store.tables import (
    ACTIONS,
    CAPTURE_PARTS,
    COMMAND_MINUTES,
    CPU_SHARES,
    FORENSIC_CAPTURES,
    GROUP_SLICES,
    LIMITS,
    MACHINE_MINUTES,
    MACHINE_SLICES,
    MATCHES,
    PAUSE_CULPRITS,
    PAUSES,
    PROCESS_EVENTS,
    PROCESS_SLICES,
    PROCESS_SNAPSHOTS,
    PROOFS,
    SLICE_PROCESSES,
    SLICE_UNITS,
    STACKS,
    WAITS,
    Table,
    quoted,
)
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import cut

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
        # Not only for `enter`: after a corrupt file was moved aside, an event continues in the new one.
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
        execute("UPDATE process_events SET peak_score = ?, peak_band = ?, peak_snapshot_id = ?, last_seen = ?"
                " WHERE id = ?", (event["peak_score"], event["peak_band"], snapshot_id, event["ts"], event_id))
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
            " orphan_of = coalesce(orphan_of, ?), duration_s = ?, processes = coalesce(?, processes),"
            " dominant_resource = coalesce(?, dominant_resource), dominant_category = coalesce(?, dominant_category)"
            " WHERE id = ?",
            (*(event.get(name) for name in ("exe", "cmdline", "user", "cgroup", "unit", "orphan_of", "duration_s",
                                            "processes", "dominant_resource", "dominant_category")), event_id))


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
                "pid", "start_ticks", "command", "name", "unit", "processes", "resource", "amount", "share")}}
            for rank, culprit in enumerate(pause["culprits"], 1)])


def _write_machine_minute(connection: sqlite3.Connection, minute: Record) -> None:
    """A minute that a restart cut in two: averages by time, extremes, sums; of the rest, what came last."""
    connection.execute(_ADD_MACHINE, {c.name: minute.get(c.name) for c in MACHINE_MINUTES.columns})
    roll_minute(connection, minute["minute"])


def _write_command_minute(connection: sqlite3.Connection, minute: Record) -> None:
    """A minute that a restart cut in two is added up."""
    connection.execute(_ADD_COMMAND, {c.name: minute.get(c.name) for c in COMMAND_MINUTES.columns})


def _both(name: str) -> str:
    """The value of a column of machine_minutes or machine_slices out of two parts of the time."""
    if name in ADDED:
        return f"coalesce({name} + excluded.{name}, {name}, excluded.{name})"
    if name in LARGEST:
        return f"coalesce(max({name}, excluded.{name}), {name}, excluded.{name})"
    if name == "memory_available_bytes":
        return f"min(coalesce({name}, excluded.{name}), coalesce(excluded.{name}, {name}))"
    if name in AVERAGED:
        return (f"round((coalesce({name}, excluded.{name}) * seconds + coalesce(excluded.{name}, {name}) *"
                f" excluded.seconds) / max(seconds + excluded.seconds, 0.001), 3)")
    return f"coalesce(excluded.{name}, {name})"


_ADD_MACHINE = MACHINE_MINUTES.insert() + " ON CONFLICT (minute, boot_id) DO UPDATE SET " + ", ".join(
    f"{c.name} = {_both(c.name)}" for c in MACHINE_MINUTES.columns if c.name not in ("minute", "boot_id"))
_ADD_SLICE = MACHINE_SLICES.insert() + " ON CONFLICT (slice, boot) DO UPDATE SET " + ", ".join(
    f"{c.name} = {_both(c.name)}" for c in MACHINE_SLICES.columns if c.name not in ("slice", "boot"))
_ADD_COMMAND = COMMAND_MINUTES.insert() + " ON CONFLICT (minute, command) DO UPDATE SET " + ", ".join(
    f"{n} = coalesce({n}, 0) + coalesce(excluded.{n}, 0)" for n in (
        "cpu_seconds", "disk_bytes", "gpu_seconds", "wakeups", "run_delay_s", "rogue_s")
) + ", max_score = max(max_score, excluded.max_score), memory_bytes = excluded.memory_bytes"

def _insert_capture() -> str:
    names = [c.name for c in FORENSIC_CAPTURES.columns if c.name != "id"]
    values = {name: f":{name}" for name in names}
    values.update(captured_at=":ts", event_id="(SELECT id FROM process_events WHERE event = :event)",
                  pause_id="(SELECT id FROM pauses WHERE pause = :pause)")
    return f"INSERT OR IGNORE INTO forensic_captures ({', '.join(names)}) VALUES ({', '.join(values.values())})"


def _insert_part(table: Table) -> str:
    names = _part_names(table)
    return (f"INSERT INTO {table.name} (capture_id, {', '.join(map(quoted, names))}) SELECT id, "
            f"{', '.join(':' + name for name in names)} FROM forensic_captures WHERE capture = :capture")


def _part_names(table: Table) -> list[str]:
    return [c.name for c in table.columns if c.name not in ("id", "capture_id")]


_CAPTURE = _insert_capture()
_CAPTURE_VALUES = ("ts", *(c.name for c in FORENSIC_CAPTURES.columns))
_PARTS = {kind: (_insert_part(table), ("capture", *_part_names(table))) for kind, table in CAPTURE_PARTS.items()}


def _write_named(statement: str, names: tuple[str, ...], connection: sqlite3.Connection, each: Record) -> None:
    """A record as a row of the columns `names`, each the field of that name."""
    connection.execute(statement, _bound({name: each.get(name) for name in names}))


def _write_stack(connection: sqlite3.Connection, each: Record) -> None:
    """A stack of a pause or a capture. One whose pause was not stored, as in a file that replaced a corrupt one, is
    dropped."""
    row = {name: each.get(name) for name in _STACK_NAMES}
    row["pause_id"] = _id_of(connection, "pauses", "pause", each)
    row["capture_id"] = _id_of(connection, "forensic_captures", "capture", each)
    if row["pause_id"] is not None or row["capture_id"] is not None:
        connection.execute(STACKS.insert(), row)


def _write_cpu_share(connection: sqlite3.Connection, each: Record) -> None:
    """Who had a CPU during a pause."""
    pause_id = _id_of(connection, "pauses", "pause", each)
    if pause_id is not None:
        connection.execute(CPU_SHARES.insert().replace("INSERT", "INSERT OR IGNORE", 1),
                           {**{c.name: each.get(c.name) for c in CPU_SHARES.columns}, "pause_id": pause_id})


def _id_of(connection: sqlite3.Connection, table: str, key: str, each: Record) -> int | None:
    row = connection.execute(f"SELECT id FROM {table} WHERE {key} = ?", (each.get(key),)).fetchone()
    return row[0] if row else None


_STACK_NAMES = tuple(c.name for c in STACKS.columns if c.name != "id")

_ACTION = ACTIONS.insert().replace("INSERT", "INSERT OR IGNORE", 1)
"""A line of the audit file is one row, however often it is read."""
_ACTION_NAMES = tuple(c.name for c in ACTIONS.columns if c.name != "id")
_MATCH_NAMES = tuple(c.name for c in MATCHES.columns if c.name != "id")
_MATCH_KEY = ("boot_id", "pid", "start_ticks", "rule")
_MATCH = (
    MATCHES.insert() + f" ON CONFLICT ({', '.join(_MATCH_KEY)}) DO UPDATE SET times = times + 1, "
    "first_seen = min(first_seen, excluded.first_seen), " + ", ".join(
        f"{name} = coalesce(excluded.{name}, {name})" for name in _MATCH_NAMES
        if name not in (*_MATCH_KEY, "first_seen", "times")))


def _write_match(connection: sqlite3.Connection, match: Record) -> None:
    """One match: a new row, or the row of the match that lasts."""
    row = {name: match.get(name) for name in _MATCH_NAMES}
    row.update(first_seen=match["ts"] - match.get("matched_s", 0.0), last_seen=match["ts"], times=1)
    connection.execute(_MATCH, _bound(row))


# -- slices ----------------------------------------------------------------------------------------------------------

SEEN_S = 600.0
"""Seconds after which the `last_seen` of a process or unit is written again: each time costs a row."""
CMDLINE = 200
"""Characters of a command line that are kept with slices: the event of a rogue process has all of it."""

_MACHINE_NAMES = tuple(c.name for c in MACHINE_SLICES.columns)


def _subject_of(table: Table) -> tuple[str, str, tuple[str, ...]]:
    """The statements that write and find the process or unit of a slice row, and their columns. The first
    parent of a process is kept: when that ends, process 1 is its parent, which did not start it."""
    names = tuple(c.name for c in table.columns if c.name not in ("id", "boot"))
    key = table.rules[0].removeprefix("UNIQUE ")
    others = [n for n in names if n not in key and n not in ("last_seen", "ppid")]
    moved = " OR ".join(f"(excluded.{n} IS NOT NULL AND {n} IS NOT excluded.{n})" for n in others)
    write = (table.insert() + f" ON CONFLICT {key} DO UPDATE SET last_seen = excluded.last_seen, " + ", ".join(
        f"{n} = coalesce(excluded.{n}, {n})" for n in others)
        + f" WHERE last_seen < excluded.last_seen - {SEEN_S} OR {moved}")
    find = f"SELECT id FROM {table.name} WHERE " + " AND ".join(
        f"{n} = :{n}" for n in key.strip("()").split(", "))
    return write, find, names


def _boot(connection: sqlite3.Connection, boot_id: str) -> int:
    connection.execute("INSERT OR IGNORE INTO slice_boots (boot_id) VALUES (?)", (boot_id,))
    number: int = connection.execute("SELECT id FROM slice_boots WHERE boot_id = ?", (boot_id,)).fetchone()[0]
    return number


def _write_machine_slice(connection: sqlite3.Connection, each: Record) -> None:
    """A slice of the machine. A quiet one is added to the quiet row just before it in the same minute."""
    row: dict[str, Any] = {name: each.get(name) for name in _MACHINE_NAMES}
    row["boot"] = _boot(connection, each["boot_id"])
    if each.get("quiet"):
        last = connection.execute("SELECT slice, seconds, quiet FROM machine_slices WHERE boot = ? AND slice <= ? "
                                  "ORDER BY slice DESC LIMIT 1", (row["boot"], row["slice"])).fetchone()
        if last and last[2] and last[0] // 60 == row["slice"] // 60 and abs(last[0] + last[1] - row["slice"]) < SLICE_S:
            row["slice"] = last[0]
    connection.execute(_ADD_SLICE, row)


def _write_use(table: Table, subject: Table, own: str, connection: sqlite3.Connection, each: Record) -> None:
    """What a process or a unit used in a slice."""
    write, find, names = _SUBJECTS[subject.name]
    about: dict[str, Any] = {name: each.get(name) for name in names}
    about.update(boot=_boot(connection, each["boot_id"]), last_seen=each["slice"])
    if about.get("cmdline"):
        about["cmdline"] = cut(about["cmdline"], CMDLINE)
    connection.execute(write, about)
    row = {}
    for column in table.columns:
        name = column.name
        if name.endswith("_ms") and name not in each:
            value = each.get(name.removesuffix("_ms") + "_s", each.get(name.removesuffix("_ms") + "_seconds"))
            row[name] = None if value is None else round(1000 * value)
        else:
            row[name] = each.get(name)
    row[own] = connection.execute(find, about).fetchone()[0]
    connection.execute(_REPLACE[table.name], row)


_SUBJECTS = {table.name: _subject_of(table) for table in (SLICE_PROCESSES, SLICE_UNITS)}
_REPLACE = {table.name: table.insert().replace("INSERT", "INSERT OR REPLACE", 1)
            for table in (PROCESS_SLICES, GROUP_SLICES)}

WRITES: dict[str, Callable[[sqlite3.Connection, Record], None]] = {
    "event": _write_event, "pause": _write_pause, "machine_minute": _write_machine_minute,
    "command_minute": _write_command_minute, "match": _write_match,
    "action": partial(_write_named, _ACTION, _ACTION_NAMES),
    "proof": partial(_write_named, PROOFS.insert().replace("INSERT", "INSERT OR IGNORE", 1),
                     tuple(c.name for c in PROOFS.columns if c.name != "id")),
    "capture": partial(_write_named, _CAPTURE, _CAPTURE_VALUES),
    **{kind: partial(_write_named, *made) for kind, made in _PARTS.items()},
    "cpu_share": _write_cpu_share,
    "stack": _write_stack,
    "machine_slice": _write_machine_slice,
    "process_slice": partial(_write_use, PROCESS_SLICES, SLICE_PROCESSES, "process"),
    "group_slice": partial(_write_use, GROUP_SLICES, SLICE_UNITS, "unit"),
    "wait": partial(_write_named, WAITS.insert().replace("INSERT", "INSERT OR REPLACE", 1),
                    tuple(f.name for f in WAIT)),
    "limit": partial(_write_named, LIMITS.insert(), tuple(f.name for f in LIMIT)),
}
"""Record types that are stored, and how."""


def _bound(values: dict[str, Any]) -> dict[str, Any]:
    """Values that SQLite can hold: lists as JSON."""
    return {k: wire.dumps(v).decode() if isinstance(v, (list, dict)) else v for k, v in values.items()}
