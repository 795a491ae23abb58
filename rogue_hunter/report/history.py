"""Pauses, minutes, offenders and the timeline, as records. Every function takes a read-only connection.

Where a view of the database says the same, it is asked, so that Datasette and rh-report cannot differ.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from rogue_hunter.report.queries import END, OVERLAPS, Period, Watched, bind, group_of, inside, known
from rogue_hunter.sampling.naming import OWN_NAMES
from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.events import COMMAND_MINUTE, MACHINE_MINUTE
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record

Minute = dict[str, Any]
"""The known columns of a row of machine_minutes or command_minutes."""

_MACHINE = tuple(f.name for f in MACHINE_MINUTE)
_COLUMNS = ", ".join(_MACHINE)
_COMMAND = tuple(f.name for f in COMMAND_MINUTE if f.name != "minute")
_CULPRIT = ("pid", "start_ticks", "command", "name", "unit", "processes", "resource", "amount", "share")

_PAUSED = ("p.start_time < :until AND p.end_time >= :since AND (:text = '' OR EXISTS (SELECT 1 FROM pause_culprits c "
           "WHERE c.pause_id = p.id AND instr(lower(coalesce(c.command, '')), :text)))")
_HAPPENED = "ts >= :since AND ts < :until AND (:text = '' OR instr(lower(coalesce(command, '')), :text))"


def pauses(connection: sqlite3.Connection, period: Period, limit: int = 0) -> list[Record]:
    """The pauses that overlap the period, the newest first; `limit` 0 is no limit."""
    rows = connection.execute(f"SELECT * FROM pauses p WHERE {_PAUSED} ORDER BY p.start_time DESC, p.id DESC "
                              "LIMIT :limit", {**period.values(), "limit": limit or -1}).fetchall()
    return _with_culprits(connection, rows)


def pause(connection: sqlite3.Connection, which: str) -> Record | None:
    """One pause by its number or its key; None: no such pause."""
    number = int(which) if which.isdecimal() and len(which) < 19 else -1
    rows = connection.execute("SELECT * FROM pauses WHERE id = ? OR pause = ?", (number, which)).fetchall()
    return _with_culprits(connection, rows)[0] if rows else None


def pause_times(connection: sqlite3.Connection, period: Period) -> list[tuple[float, float, str]]:
    """Start, length (s) and cause of every pause of the period."""
    return [tuple(row) for row in connection.execute(
        f"SELECT p.start_time, p.duration_s, p.cause FROM pauses p WHERE {_PAUSED}", period.values())]


def offenders(connection: sqlite3.Connection, period: Period, watched: Watched, by: str) -> list[Record]:
    """The commands (or units) by the minutes of pause that they owe, then by their time in events.

    A pause counts whole when it overlaps the period; of events, the part inside of it.
    """
    sql = f"""
        WITH owed AS (
          SELECT {group_of(by, "c")} AS name, count(DISTINCT p.id) AS pauses, sum(p.duration_s * c.share) / 60 AS owed,
                 max(p.duration_s) AS longest, max(p.end_time) AS last
          FROM pauses p JOIN pause_culprits c ON c.pause_id = p.id
          WHERE p.start_time < :until AND p.end_time >= :since
                AND (:text = '' OR instr(lower(coalesce(c.command, '')), :text)) GROUP BY 1),
        rogue AS (
          SELECT name, count(*) AS events, max(peak_score) AS peak_score, max(ended) AS last,
                 sum({inside("ended")}) / 60 AS rogue
          FROM (SELECT e.*, {group_of(by, "e")} AS name, {END} AS ended FROM process_events e
                WHERE {OVERLAPS}) AS e GROUP BY 1)
        SELECT name AS {by}, round(coalesce(owed, 0), 3) AS pause_minutes, coalesce(pauses, 0) AS pauses,
               longest AS longest_s, coalesce(events, 0) AS events, round(coalesce(rogue, 0), 1) AS rogue_minutes,
               peak_score, max(coalesce(owed.last, 0), coalesce(rogue.last, 0)) AS last_seen
        FROM (SELECT name FROM owed UNION SELECT name FROM rogue)
             LEFT JOIN owed USING (name) LEFT JOIN rogue USING (name)
        ORDER BY coalesce(owed, 0) DESC, coalesce(rogue, 0) DESC, name"""
    rows = connection.execute(sql, {**bind(period, watched)}).fetchall()
    total = sum(length for _, length, _ in pause_times(connection, Period(period.since, period.until)))
    return [record("report_offender", **known(row),
                   pause_share=round(60 * row["pause_minutes"] / total, 4) if total else None) for row in rows]


def owed_times(connection: sqlite3.Connection, period: Period, by: str) -> list[tuple[str, float, float]]:
    """Name, start of the pause and seconds owed, of every culprit of the period."""
    return [tuple(row) for row in connection.execute(
        f"SELECT {group_of(by, 'c')}, p.start_time, p.duration_s * c.share FROM pauses p JOIN pause_culprits c "
        f"ON c.pause_id = p.id WHERE {_PAUSED}", period.values())]


def timeline(connection: sqlite3.Connection, period: Period, limit: int = 0) -> list[Record]:
    """What happened in the period, the newest first, from the view v_timeline."""
    rows = connection.execute(
        f"SELECT ts, what, detail, command, score, id FROM v_timeline WHERE {_HAPPENED} "
        "ORDER BY ts DESC, id DESC LIMIT :limit", {**period.values(), "limit": limit or -1})
    return [record("report_timeline", **known(row)) for row in rows]


def timeline_count(connection: sqlite3.Connection, period: Period) -> int:
    """How many lines the timeline of the period has."""
    row = connection.execute(f"SELECT count(*) FROM v_timeline WHERE {_HAPPENED}", period.values()).fetchone()
    count: int = row[0]
    return count


# -- minutes -----------------------------------------------------------------------------------------------------------

def minutes(connection: sqlite3.Connection, period: Period, limit: int = 0) -> list[Record]:
    """The minutes of the period with their top commands, the newest first. A minute belongs to it that overlaps it.

    With a text, only the commands that hold it, and the minutes in which there is one.
    """
    having = "" if not period.text else (
        "AND EXISTS (SELECT 1 FROM command_minutes WHERE minute = m.minute AND instr(lower(command), :text))")
    asked = {**period.values(), "limit": limit or -1, "first": period.since - 60}
    rows = connection.execute(f"SELECT {_COLUMNS} FROM machine_minutes m WHERE m.minute > :first AND m.minute < :until "
                              f"{having} ORDER BY m.minute DESC, m.boot_id LIMIT :limit", asked).fetchall()
    if not rows:
        return []
    held: dict[int, list[Minute]] = {}
    names = ", ".join(_COMMAND)
    for row in connection.execute(
            f"SELECT minute, {names} FROM command_minutes WHERE minute BETWEEN :low AND :high AND "
            "(:text = '' OR instr(lower(command), :text)) ORDER BY minute, cpu_seconds DESC, command",
            {"low": rows[-1]["minute"], "high": rows[0]["minute"], "text": asked["text"]}):
        held.setdefault(row[0], []).append({n: v for n, v in zip(_COMMAND, tuple(row)[1:], strict=True)
                                            if v is not None})
    return [record("report_minute", **_machine(row), commands=held.get(row["minute"], [])) for row in rows]


USED = {"cpu": "cpu_seconds", "disk": "disk_bytes", "memory": "memory_bytes", "gpu": "gpu_seconds",
        "wakeups": "wakeups"}
"""Resource -> the column of command_minutes by which usage is ranked."""


def usage(connection: sqlite3.Connection, period: Period, resource: str) -> list[Record]:
    """What each command used in the minutes that overlap the period, the one that used most of `resource` first."""
    column = USED[resource]
    most = f"{'max' if resource == 'memory' else 'sum'}({column})"
    sums = ", ".join(f"round(sum({name}), 3) AS {name}" for name in ("cpu_seconds", "gpu_seconds", "run_delay_s"))
    rows = connection.execute(
        f"WITH m AS (SELECT *, row_number() OVER (PARTITION BY command ORDER BY {column} DESC, minute DESC) AS nth "
        "FROM command_minutes WHERE minute > :first AND minute < :until "
        "AND (:text = '' OR instr(lower(command), :text))) "
        f"SELECT command, {sums}, sum(disk_bytes) AS disk_bytes, max(memory_bytes) AS memory_bytes, "
        "sum(wakeups) AS wakeups, count(*) AS minutes, max(max_score) AS max_score, "
        "max(CASE WHEN nth = 1 THEN minute END) AS peak_minute, max(CASE WHEN nth = 1 THEN pid END) AS pid "
        f"FROM m GROUP BY command HAVING {most} > 0 ORDER BY {most} DESC, command",
        {**period.values(), "first": period.since - 60})
    return [record("report_usage", **known(row)) for row in rows]


def minute_count(connection: sqlite3.Connection, period: Period) -> int:
    """How many minutes overlap the period."""
    count: int = connection.execute("SELECT count(*) FROM machine_minutes WHERE minute > ? AND minute < ?",
                                    (period.since - 60, period.until)).fetchone()[0]
    return count


def machine(connection: sqlite3.Connection, since: float, until: float) -> list[Minute]:
    """The rows of the minutes that begin at `since` or later and before `until`, in the order of time."""
    return [_machine(row) for row in connection.execute(
        f"SELECT {_COLUMNS} FROM machine_minutes WHERE minute >= ? AND minute < ? ORDER BY minute", (since, until))]


def highest_minutes(connection: sqlite3.Connection, since: float, until: float, step: int) -> dict[int, Minute]:
    """For each stretch of `step` seconds, by its number: how many minutes, and the highest of them: cpu and memory as
    parts, disk in ms/s of full pressure, pauses in seconds."""
    return {row["stretch"]: known(row) for row in connection.execute(
        "SELECT CAST((minute - :since) / :step AS INTEGER) AS stretch, count(*) AS minutes, "
        "max(coalesce(cpu_busy_cores, 0) / max(coalesce(cpus, 1), 1)) AS cpu, "
        "max(1 - 1.0 * memory_available_bytes / memory_total_bytes) AS memory, max(pressure_io_full_ms_per_s) AS disk, "
        "max(coalesce(pause_s, 0)) AS pauses FROM machine_minutes WHERE minute >= :since AND minute < :until "
        "GROUP BY stretch", {"since": since, "until": until, "step": float(step)})}


def neighbours(connection: sqlite3.Connection, since: float, until: float) -> tuple[Minute | None, Minute | None]:
    """The last minute before `since` and the first one from `until` on."""
    before = connection.execute(f"SELECT {_COLUMNS} FROM machine_minutes WHERE minute < ? ORDER BY minute DESC LIMIT 1",
                                (since,)).fetchone()
    after = connection.execute(f"SELECT {_COLUMNS} FROM machine_minutes WHERE minute >= ? ORDER BY minute LIMIT 1",
                               (until,)).fetchone()
    return (_machine(before) if before else None), (_machine(after) if after else None)


def commands_of(connection: sqlite3.Connection, at: Sequence[int]) -> dict[int, list[Minute]]:
    """The commands of these minutes, by minute: what versions before the minutes of processes have left. Without pid:
    it is that of one process, the sums are of all that had the name."""
    held: dict[int, list[Minute]] = {}
    names = ", ".join(name for name in _COMMAND if name != "pid")
    for row in connection.execute(f"SELECT minute, {names} FROM command_minutes WHERE minute IN "
                                  "(SELECT value FROM json_each(?))", (wire.dumps(list(at)).decode(),)):
        held.setdefault(row["minute"], []).append({"own": row["command"] in OWN_NAMES, **known(row)})
    return held


_STEPS = "WITH RECURSIVE s(m) AS (SELECT :first UNION ALL SELECT m + :step FROM s WHERE m + :step <= :last) "


def spread(connection: sqlite3.Connection, wanted: int) -> dict[str, int]:
    """About `wanted` minutes spread evenly over the history: first, last, step, in seconds; empty without history.

    The step shares no factor with the minutes of an hour or the hours of a day, so that what runs at a fixed minute is
    met as often as it happens.
    """
    first, last = connection.execute("SELECT min(minute), max(minute) FROM machine_minutes").fetchone()
    if first is None:
        return {}
    step = max(1, round((last - first) / 60 / wanted))
    while step > 1 and any(step % factor == 0 for factor in (2, 3, 5)):
        step += 1
    return {"first": first, "last": last, "step": 60 * step}


def sample(connection: sqlite3.Connection, names: Iterable[str], steps: dict[str, int]) -> list[Minute]:
    """These columns of the machine's minutes that `steps` meets."""
    if not steps:
        return []
    columns = ", ".join(("minute", *names))
    return [known(row) for row in connection.execute(
        f"{_STEPS} SELECT {columns} FROM s JOIN machine_minutes ON minute = m", steps)]


# -- inside ----------------------------------------------------------------------------------------------------------

def _machine(row: sqlite3.Row) -> Minute:
    return {name: value for name, value in zip(_MACHINE, row, strict=True) if value is not None}


def _with_culprits(connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[Record]:
    named: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
    for row in connection.execute("SELECT * FROM pause_culprits WHERE pause_id IN (SELECT value FROM json_each(?)) "
                                  "ORDER BY pause_id, rank", (wire.dumps(list(named)).decode(),)):
        named[row["pause_id"]].append({name: row[name] for name in _CULPRIT if row[name] is not None})
    made = []
    for row in rows:
        fields = dict(row)
        fields.update(start=fields.pop("start_time"), end=fields.pop("end_time"), culprits=named[row["id"]],
                      evidence=wire.loads(row["evidence"].encode()) if row["evidence"] else {})
        declared = [f.name for f in RECORDS["report_pause"]]
        made.append(record("report_pause", **{name: fields.get(name) for name in declared}))
    return made
