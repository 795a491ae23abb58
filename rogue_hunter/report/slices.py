"""The rows that a window of evidence is made of: slices of five seconds, minutes and hours, by identity.

Every function takes a read-only connection; times are epoch seconds. `step` is the resolution: 5, 60 or 3600.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from rogue_hunter.report.queries import known
from rogue_hunter.schema.events import MACHINE_MINUTE
from rogue_hunter.schema.slices import GROUP_SLICE, PROCESS_SLICE, SLICE_S
from rogue_hunter.store.rollup import joined
from rogue_hunter.store.tables import MACHINE_SLICES, PROCESS_SLICES, SLICE_PROCESSES, SLICE_UNITS, compact
from rogue_hunter.stream import wire
from rogue_hunter.tracking.slices import overlaps
from rogue_hunter.verdict import shortage

Row = dict[str, Any]
"""The known columns of a row."""

MINUTE_S, HOUR_S = 60, 3600
LONGEST_SLICE_S = 65.0
"""Quiet slices of one minute may be one row, and a tick counts 60 s at most."""

_KIND = {SLICE_S: "slices", MINUTE_S: "minutes", HOUR_S: "hours"}
_MACHINE = {SLICE_S: ("v_machine_slices", "slice"), MINUTE_S: ("machine_minutes", "minute"),
            HOUR_S: ("machine_hours", "minute")}
_SUBJECTS = {"process": (SLICE_PROCESSES, PROCESS_SLICE), "group": (SLICE_UNITS, GROUP_SLICE)}
_LARGEST = ("memory_bytes", "max_score", "processes")
SUMMED = tuple(c.name for c in PROCESS_SLICES.columns[2:] if c.name not in (*_LARGEST, "state"))
"""The columns of use that are added up."""

_SEVERITY = """
    coalesce(pressure_cpu_some_ms_per_s, 1000 * cpu_busy_cores / cpus, 0) + coalesce(run_delay_ms_per_s / cpus, 0)
    + 2 * max(coalesce(pressure_memory_full_ms_per_s, 0), coalesce(pressure_memory_some_ms_per_s, 0))
    + max(2 * coalesce(pressure_io_full_ms_per_s, 0), coalesce(pressure_io_some_ms_per_s, 0))
    + 1000 * coalesce(cpu_steal_cores / cpus, 0)
    + 1000 * (coalesce(late_s, 0) + coalesce(asleep_s, 0)) / max(seconds, 0.001)
    + 1000 * max(0.0, :scarce - coalesce(1.0 * memory_available_bytes / memory_total_bytes, 1))
    + coalesce(disk_bytes, 0) / max(seconds, 0.001) / 1e6 + coalesce(device_wait_ms, 0)
    + 2000 * coalesce(oom_kills, 0) + 1000 * coalesce(continued, 0)"""
"""A quick measure of how much was short: parts of the time in ms/s, added up."""

_WORTH = ("coalesce(sum(cpu_ms), 0) + coalesce(sum(children_cpu_ms), 0) >= max(500, 0.05 * sum(active_ms)) "
          "OR coalesce(sum(disk_bytes), 0) + coalesce(sum(children_disk_bytes), 0) >= 2e7 "
          "OR sum(memory_growth_bytes) >= 1e8 OR sum(gpu_ms) >= 500 OR sum(wakeups) >= 0.5 * sum(active_ms) "
          "OR sum(uninterruptible_ms) >= 1000")
"""What a process must have used in a stretch to be worth a row: 5 % of a core while it was listed, 20 MB, 100 MB of
memory taken."""


def machine(connection: sqlite3.Connection, since: float, until: float) -> list[Row]:
    """The machine's slices that overlap a time, in the order of time."""
    rows = connection.execute("SELECT * FROM v_machine_slices WHERE slice > ? AND slice < ?",
                              (since - LONGEST_SLICE_S, until))
    return sorted((row for row in map(known, rows) if overlaps(row["slice"], row["seconds"], since, until)),
                  key=lambda row: float(row["slice"]))


def nearest(connection: sqlite3.Connection, since: float, until: float) -> tuple[Row | None, Row | None]:
    """The last slice that began before `since` and the first one from `until` on."""
    before = connection.execute("SELECT * FROM v_machine_slices WHERE slice = (SELECT max(slice) FROM machine_slices "
                                "WHERE slice < ?)", (since,)).fetchone()
    after = connection.execute("SELECT * FROM v_machine_slices WHERE slice = (SELECT min(slice) FROM machine_slices "
                               "WHERE slice >= ?)", (until,)).fetchone()
    return (known(before) if before else None), (known(after) if after else None)


def worst(connection: sqlite3.Connection, step: int, since: float, until: float, most: int) -> list[Row]:
    """Those rows of the machine in which most was short, in the order of time."""
    table, begin = _MACHINE[step]
    source = MACHINE_SLICES.name if step == SLICE_S else table
    rows = connection.execute(
        f"SELECT * FROM {table} WHERE {begin} IN (SELECT {begin} FROM {source} WHERE {begin} >= :since AND "
        f"{begin} < :until ORDER BY {_SEVERITY} DESC LIMIT :most) ORDER BY {begin}",
        {"since": since, "until": until, "most": most, "scarce": shortage.SCARCE})
    return [known(row) for row in rows]


def rows_of(connection: sqlite3.Connection, step: int, what: str, at: Sequence[float]) -> dict[float, list[Row]]:
    """The rows of processes or groups (`what`) of the slices or minutes that begin at these times, by beginning."""
    held: dict[float, list[Row]] = {}
    for begin in (at[n:n + 500] for n in range(0, len(at), 500)):
        for row in connection.execute(f"SELECT * FROM v_{what}_{_KIND[step]} WHERE slice IN "
                                      "(SELECT value FROM json_each(?))", (wire.dumps(list(begin)).decode(),)):
            held.setdefault(float(row["slice"]), []).append(known(row))
    return held


def span(connection: sqlite3.Connection, step: int) -> tuple[float, float] | None:
    """From when until when processes are listed at a resolution; None if they are not."""
    table = f"process_{_KIND[step]}" if step != SLICE_S else MACHINE_SLICES.name
    first, last = (connection.execute(f"SELECT {which}(slice) FROM {table}").fetchone()[0] for which in ("min", "max"))
    return None if first is None else (float(first), float(last) + step)


def machine_sums(connection: sqlite3.Connection, step: int, since: float, until: float,
                 width: float) -> dict[int, Row]:
    """The machine's minutes or hours of a time, joined to stretches of `width` seconds, by the number of the stretch:
    averages by time, extremes, sums."""
    columns = ", ".join(f"{joined(f.name)} AS {f.name}" for f in MACHINE_MINUTE if f.name not in ("minute", "boot_id"))
    rows = connection.execute(
        f"SELECT CAST((minute - :since) / :width AS INTEGER) AS stretch, min(minute) AS minute, max(boot_id) AS "
        f"boot_id, {columns} FROM {_MACHINE[step][0]} WHERE minute >= :since AND minute < :until GROUP BY stretch",
        {"since": since, "until": until, "width": float(width)})
    return {row.pop("stretch"): row for row in map(known, rows)}


def sums(connection: sqlite3.Connection, step: int, what: str, since: float, until: float,
         width: float) -> dict[int, list[Row]]:
    """The rows of processes or groups of a time, of minutes or hours, added up in stretches of `width` seconds, by the
    number of the stretch. `active_s` is the time that a row covers, `first_slice` the beginning of its first slice."""
    subject, fields = _SUBJECTS[what]
    own = {c.name for c in subject.columns}
    use = [f for f in fields if f.name not in own and f.name not in ("slice", "boot_id", "seconds", "state")]
    inner = ", ".join(f"{'max' if f.name in _LARGEST else 'sum'}({compact(f).name}) AS {compact(f).name}" for f in use)
    outer = ", ".join(f"u.{f.name}" if compact(f).name == f.name else f"u.{compact(f).name} / 1000.0 AS {f.name}"
                      for f in use)
    names = ", ".join(f"p.{f.name}" for f in fields if f.name in own)
    subject_id = "unit" if what == "group" else "process"
    held: dict[int, list[Row]] = {}
    for row in connection.execute(
            f"SELECT u.stretch, u.first_slice, u.active_ms / 1000.0 AS active_s, b.boot_id, {names}, {outer} FROM "
            f"(SELECT CAST((slice - :since) / :width AS INTEGER) AS stretch, {subject_id} AS subject, min(first_slice) "
            f"AS first_slice, sum(active_ms) AS active_ms, {inner} FROM {what}_{_KIND[step]} WHERE slice >= :since AND "
            f"slice < :until GROUP BY 1, 2 HAVING {_WORTH}) u JOIN {subject.name} p ON p.id = u.subject "
            "JOIN slice_boots b ON b.id = p.boot", {"since": since, "until": until, "width": float(width)}):
        fields_ = known(row)
        held.setdefault(fields_.pop("stretch"), []).append(fields_)
    return held


def waits_and_limits(connection: sqlite3.Connection, since: float, until: float) -> tuple[list[Row], list[Row]]:
    """What was recorded of waits and of limits in a time."""
    found = []
    for table in ("waits", "limits"):
        rows = [known(row) for row in connection.execute(
            f"SELECT * FROM {table} WHERE ts > ? AND ts <= ? ORDER BY ts LIMIT 5000", (since, until))]
        for row in rows:
            if isinstance(row.get("waiters"), str):
                row["waiters"] = wire.loads(row["waiters"].encode())
        found.append(rows)
    return found[0], found[1]
