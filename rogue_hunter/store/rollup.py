"""Slices are added up to minutes, and minutes to hours, by identity: what stays when the slices are pruned.

A minute is made when its row of the machine is written, an hour with the first minute after it, each by one statement
for each table, from what the database holds: made again it is the same, so a restart cuts no minute in two. A minute
has at most MOST processes and as many units, the highest in anything; that is at most 1.7 MB a day, and 0.3 MB on a
quiet machine, with up to 4 MB for the names of processes on a machine on which others lead in each minute. An hour
adds a sixtieth of that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from rogue_hunter.store.tables import (
    GROUP_HOURS,
    GROUP_MINUTES,
    GROUP_SLICES,
    MACHINE_HOURS,
    MACHINE_MINUTES,
    MACHINE_SLICES,
    PROCESS_HOURS,
    PROCESS_MINUTES,
    PROCESS_SLICES,
    SLICE_PROCESSES,
    SLICE_UNITS,
    Table,
)
from rogue_hunter.tracking.use import AVERAGES, HIGHEST, SUMS

ADDED = (*SUMS, "ticks", "seconds", "disk_bytes", "device_bytes", "pauses", "pause_s")
LARGEST = (*HIGHEST, "cpu_busy_cores_max", "uninterruptible")
AVERAGED = (*AVERAGES, "run_delay_ms_per_s")
"""How the columns of the machine are joined: added, the largest, the average over `seconds`. Of the others, available
memory is the least of all and the rest is what came last."""

TOP = 3
"""Processes (and units) that are kept for each of LEAST."""
MOST = 12
"""Processes, and units, of one minute or hour at most."""
LEAST: Mapping[str, int] = {
    "coalesce(cpu_ms, 0) + coalesce(children_cpu_ms, 0)": 300,
    "coalesce(disk_bytes, 0) + coalesce(children_disk_bytes, 0)": 1 << 20,
    "memory_growth_bytes": 16 << 20, "memory_bytes": 64 << 20, "run_delay_ms": 300, "uninterruptible_ms": 500,
    "stopped_ms": 5000, "pageins": 100, "wakeups": 6000, "gpu_ms": 300, "rogue_ms": 1000}
"""By what they are chosen, and the least of it: half a percent of a core, 17 KiB/s."""

_HIGHEST = ("memory_bytes", "max_score", "processes")
_LEFT_OUT = ("state",)
_REACH_S = 65
"""A slice that began earlier does not end in the minute: a tick counts 60 s at most."""

# A slice that was cut by a pause or a gap begins at no multiple of five seconds, and belongs to the minute it ends in.
_MINUTE_OF = ("60 * CAST((CASE WHEN m.slice = CAST(m.slice AS INTEGER) AND CAST(m.slice AS INTEGER) % 5 = 0 "
              "THEN m.slice ELSE m.slice + m.seconds END) / 60 AS INTEGER)")


def roll_minute(connection: sqlite3.Connection, minute: int) -> None:
    """Make the minute that begins at `minute` (epoch seconds), and the hour before it when it is the first one after
    it. Raises sqlite3.Error."""
    _make(connection, _MINUTES, minute, minute + 60)
    before = connection.execute("SELECT max(minute) FROM machine_minutes WHERE minute < ?", (minute,)).fetchone()[0]
    if before is not None and before // 3600 < minute // 3600:
        _make(connection, _HOURS, before // 3600 * 3600, before // 3600 * 3600 + 3600)


def roll_all(connection: sqlite3.Connection) -> None:
    """Make the minutes and hours of all slices. Raises sqlite3.Error."""
    _make(connection, _MINUTES, 0, 1 << 40)
    _make(connection, _HOURS, 0, 1 << 40)


def _make(connection: sqlite3.Connection, statements: Iterable[str], since: int, until: int) -> None:
    for statement in statements:
        connection.execute(statement, {"since": since, "until": until})


def _sums(table: Table) -> str:
    """The columns of a table of use, added up; `state` is not known of a sum."""
    return ", ".join(f"{'NULL' if c.name in _LEFT_OUT else f'{_how(c.name)}(s.{c.name})'} AS {c.name}"
                     for c in table.columns[2:])


def _how(name: str) -> str:
    return "max" if name in _HIGHEST else "sum"


def _chosen(into: Table, used: str) -> str:
    """The statement that writes those of `used` that are among the highest in something."""
    own = into.columns[1].name
    names = ", ".join(c.name for c in into.columns)
    ranks = ", ".join(f"CASE WHEN {what} >= {least} THEN row_number() OVER (PARTITION BY slice ORDER BY {what} DESC, "
                      f"{own}) ELSE 999 END" for what, least in LEAST.items())
    return (f"INSERT OR REPLACE INTO {into.name} ({names}) SELECT {names} FROM (SELECT *, row_number() OVER "
            f"(PARTITION BY slice ORDER BY best, {own}) AS place FROM (SELECT *, min({ranks}) AS best FROM ({used}))) "
            f"WHERE best <= {TOP} AND place <= {MOST}")


def _from_slices(into: Table, table: Table, subject: Table) -> str:
    own = table.columns[1].name
    return _chosen(into, (
        f"SELECT {_MINUTE_OF} AS slice, s.{own} AS {own}, {_sums(table)}, "
        f"CAST(round(sum(1000 * m.seconds)) AS INTEGER) AS active_ms, min(s.slice) AS first_slice "
        f"FROM {MACHINE_SLICES.name} m JOIN {table.name} s ON s.slice = m.slice "
        f"JOIN {subject.name} p ON p.id = s.{own} AND p.boot = m.boot WHERE m.slice >= :since - {_REACH_S} "
        f"AND m.slice < :until AND {_MINUTE_OF} >= :since AND {_MINUTE_OF} < :until GROUP BY 1, 2"))


def _from_minutes(into: Table, table: Table) -> str:
    own = table.columns[1].name
    rolled = {"active_ms": "sum(s.active_ms) AS active_ms", "first_slice": "min(s.first_slice) AS first_slice"}
    plain = Table("", table.columns[:-2], "")
    return _chosen(into, (
        f"SELECT 3600 * (CAST(s.slice AS INTEGER) / 3600) AS slice, s.{own} AS {own}, {_sums(plain)}, "
        f"{', '.join(rolled.values())} FROM {table.name} s WHERE s.slice >= :since AND s.slice < :until GROUP BY 1, 2"))


def _keep(subject: Table, table: Table) -> str:
    """What a minute names outlives the slices."""
    return (f"UPDATE {subject.name} SET kept = 1 WHERE kept IS NULL AND id IN (SELECT {table.columns[1].name} FROM "
            f"{table.name} WHERE slice >= :since AND slice < :until)")


def joined(name: str) -> str:
    """The expression that joins a column of the machine over several rows."""
    if name in ADDED:
        return f"sum({name})"
    if name in LARGEST:
        return f"max({name})"
    if name == "memory_available_bytes":
        return f"min({name})"
    if name in AVERAGED:
        return f"round(sum({name} * seconds) / sum(CASE WHEN {name} IS NOT NULL THEN max(seconds, 0.001) END), 3)"
    return f"max({name})"


_MACHINE_HOURS = (
    f"INSERT OR REPLACE INTO {MACHINE_HOURS.name} ({', '.join(c.name for c in MACHINE_HOURS.columns)}) SELECT "
    + ", ".join("3600 * (minute / 3600)" if c.name == "minute" else c.name if c.name == "boot_id" else joined(c.name)
        for c in MACHINE_MINUTES.columns)
    + f" FROM {MACHINE_MINUTES.name} WHERE minute >= :since AND minute < :until GROUP BY 1, 2")

_MINUTES = (_from_slices(PROCESS_MINUTES, PROCESS_SLICES, SLICE_PROCESSES),
            _from_slices(GROUP_MINUTES, GROUP_SLICES, SLICE_UNITS),
            _keep(SLICE_PROCESSES, PROCESS_MINUTES), _keep(SLICE_UNITS, GROUP_MINUTES))
_HOURS = (_from_minutes(PROCESS_HOURS, PROCESS_MINUTES), _from_minutes(GROUP_HOURS, GROUP_MINUTES), _MACHINE_HOURS)
