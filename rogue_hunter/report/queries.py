"""The database as the views read it: in one transaction, who writes to it, and what it holds, as records.

The functions that ask take a read-only connection and give dicts ready for the wire. The SQL is written here and in
report/history.py and nowhere else among the readers, so that a view of the database can take it over.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.files import Locked, check_lock
from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.field import RESOURCES
from rogue_hunter.schema.sampling import METRICS
from rogue_hunter.store.database import NO_HISTORY, DatabaseError, failed, open_reader
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import path_text

FULL_WEIGHT_S = 10.0
"""An event that lasted less than this ranks lower: starting a program pegs a core for a moment, and is no hog."""

GOING_POINTS = 20.0
"""What a process that is still at it ranks higher by: four times the share, on the logarithmic scale of the score."""


@dataclass(frozen=True, slots=True)
class Period:
    """What is asked for. Times in epoch seconds; `text` selects commands and command lines that hold it."""

    since: float
    until: float
    text: str = ""

    def values(self) -> dict[str, Any]:
        """The parameters of a statement: since, until, text."""
        # lower() of SQLite changes ASCII letters only, and so does that of bytes.
        return {"since": self.since, "until": self.until, "text": path_text(self.text).encode().lower().decode()}


@dataclass(frozen=True, slots=True)
class Watched:
    """Until when the machine was watched: the last tick, epoch seconds, and of which boot.

    `leave` is the score below which a process is on its way out of its event.
    """

    boot_id: str = ""
    seen: float = 0.0
    leave: int = 0


END = "coalesce(e.exit_time, max(e.last_seen, CASE WHEN e.boot_id = :boot THEN :seen ELSE e.last_seen END))"
"""When an event ended; of an open one, until when it was seen."""

LASTED = (f"(coalesce(e.duration_s, max(0.0, {END} - e.entry_time)) + CASE WHEN e.exit_time IS NULL "
          f"THEN min(max({END} - e.last_seen, 0.0), 60.0) ELSE 0.0 END)")
"""How long an event lasted: as measured, and of an open one what has passed since its last record, a minute at most.
A difference of wall times alone is wrong when the clock was set."""

ENTRY = f"min(e.entry_time, {END} - coalesce(e.duration_s, 0.0))"
"""When an event began, by the clock that it ended by: the clock may have been set back in between."""

OVERLAPS = (f"{ENTRY} < :until AND (e.exit_time IS NULL OR e.exit_time >= :since) AND (:text = '' OR "
             "instr(lower(coalesce(e.command, '')), :text) OR instr(lower(coalesce(e.cmdline, '')), :text))")

_CPU_SECONDS = ("(SELECT CASE WHEN count(s.cpu_seconds_total) > 1 "
                "THEN max(s.cpu_seconds_total) - min(s.cpu_seconds_total) END "
                "FROM process_snapshots s WHERE s.event_id = e.id)")

_METRICS = tuple(f.name for f in METRICS)
_AT_PEAK = ", ".join(f"p.{f.name}" for f in RECORDS["report_event"] if f.name in (*_METRICS, "dominant_metrics"))

_EVENT = ("e.id, e.event, e.boot_id, e.pid, e.start_ticks, e.start_time, e.ppid, e.command, e.exe, e.cmdline, "
          "e.cgroup, e.uid, e.user, e.tty, e.unit, e.orphan_of, e.model, e.entry_time, e.exit_time, "
          "e.exit_time IS NULL AS open, "
          f"{LASTED} AS duration_s, e.reason, e.last_seen, e.entry_score, e.entry_band, "
          "e.peak_score, e.peak_band, p.captured_at AS peak_time, e.dominant_resource, e.dominant_category, "
          f"{_AT_PEAK}, {_CPU_SECONDS} AS cpu_seconds")

_EVENTS = f"{_EVENT} FROM process_events e LEFT JOIN process_snapshots p ON p.id = e.peak_snapshot_id"


def rank(peak_score: float | None, duration_s: float, going: bool) -> float:
    """How bad a process was, in points of the score.

    The peak score counts in full when the events lasted 10 s together, 10 points less for each halving of that: the
    score is ten times the binary logarithm of a multiple, so a point is a point. One that is still going has 20 more.
    """
    short = min(1.0, max(duration_s, 0.01) / FULL_WEIGHT_S)
    return round((peak_score or 0) + 10 * math.log2(short) + (GOING_POINTS if going else 0), 1)


def state(connection: sqlite3.Connection) -> dict[str, Any]:
    """The table daemon_state: what the last rh-pipe reported about itself."""
    return {row[0]: wire.loads(row[1].encode()) for row in connection.execute("SELECT key, value FROM daemon_state")}


def events(connection: sqlite3.Connection, period: Period, watched: Watched, limit: int = 0) -> list[Record]:
    """The events that overlap the period, the newest first; `limit` 0 is no limit."""
    rows = connection.execute(f"SELECT {_EVENTS} WHERE {OVERLAPS} ORDER BY e.entry_time DESC, e.id DESC LIMIT :limit",
                              {**bind(period, watched), "limit": limit or -1})
    return [_event(row) for row in rows]


def event(connection: sqlite3.Connection, which: str, watched: Watched) -> Record | None:
    """One event by its number or its key, with its snapshots and the range of every metric; None: no such event."""
    number = int(which) if which.isdecimal() and len(which) < 19 else -1
    row = connection.execute(f"SELECT {_EVENTS} WHERE e.id = :id OR e.event = :event",
                             {**bind(Period(0, 0), watched), "id": number, "event": which}).fetchone()
    if row is None:
        return None
    found = _event(row)
    taken = connection.execute("SELECT * FROM process_snapshots WHERE event_id = ? ORDER BY captured_at, id",
                               (found["id"],)).fetchall()
    found["snapshots"] = [record("report_snapshot", **known(snapshot)) for snapshot in taken]
    peak = connection.execute("SELECT peak_snapshot_id FROM process_events WHERE id = ?", (found["id"],)).fetchone()[0]
    found["ranges"] = _ranges(found["snapshots"], peak)
    return found


def count(connection: sqlite3.Connection, period: Period, watched: Watched) -> dict[str, int]:
    """How many events overlap the period, how many of them are open, and of how many processes they are."""
    row = connection.execute(
        "SELECT count(*) AS events, count(*) - count(e.exit_time) AS open_events, "
        "count(DISTINCT e.boot_id || '/' || e.pid || '/' || e.start_ticks) AS rogue_processes "
        f"FROM process_events e WHERE {OVERLAPS}", bind(period, watched)).fetchone()
    return dict(row)


def worst(connection: sqlite3.Connection, period: Period, watched: Watched, limit: int) -> list[Record]:
    """The processes of the period's events, worst first (see `rank`); `limit` 0 is no limit."""
    connection.create_function("rh_rank", 3, rank, deterministic=True)
    sql = f"""
        WITH e AS (
          SELECT e.*, {END} AS ended,
                 :until >= :seen AND (e.exit_time IS NULL AND e.boot_id = :boot
                                      OR e.reason IS 'stopped' AND e.exit_time >= :seen)
                 AND coalesce((SELECT s.score FROM process_snapshots s WHERE s.event_id = e.id
                               ORDER BY s.id DESC LIMIT 1), 0) >= :leave AS at_it
          FROM process_events e WHERE {OVERLAPS}),
        g AS (
          SELECT e.*, count(*) OVER one AS events, sum({inside("e.ended")}) OVER one AS lasted_s,
                 min(e.entry_time) OVER one AS first_entry, max(e.ended) OVER one AS last_end,
                 max(e.at_it) OVER one AS going,
                 row_number() OVER (PARTITION BY e.boot_id, e.pid, e.start_ticks
                                    ORDER BY e.peak_score DESC, e.id DESC) AS nth
          FROM e WINDOW one AS (PARTITION BY e.boot_id, e.pid, e.start_ticks)),
        w AS (
          SELECT *, rh_rank(peak_score, lasted_s, going) AS rank_points FROM g WHERE nth = 1
          ORDER BY rank_points DESC, lasted_s DESC, id DESC LIMIT :limit)
        SELECT w.boot_id, w.pid, w.start_ticks, w.command, w.cmdline, w.user, w.events, w.lasted_s AS duration_s,
               w.first_entry AS entry_time, w.last_end AS last_seen, w.going, w.rank_points, w.peak_score, w.peak_band,
               p.captured_at AS peak_time, w.dominant_resource, w.dominant_category, {_AT_PEAK},
               (SELECT sum({_CPU_SECONDS}) FROM e
                WHERE (e.boot_id, e.pid, e.start_ticks) = (w.boot_id, w.pid, w.start_ticks)) AS cpu_seconds
        FROM w LEFT JOIN process_snapshots p ON p.id = w.peak_snapshot_id
        ORDER BY w.rank_points DESC, w.lasted_s DESC, w.id DESC"""
    rows = connection.execute(sql, {**bind(period, watched), "limit": limit or -1})
    return [record("report_process", **_with_share(row)) for row in rows]


def group_of(by: str, table: str) -> str:
    """The SQL of what `table`'s rows are rolled up by; a process without a unit of work stands for itself."""
    return f"{table}.command" if by == "command" else f"coalesce({table}.unit, {table}.command)"


def top(connection: sqlite3.Connection, period: Period, watched: Watched, limit: int,
        by: str = "command") -> list[Record]:
    """The commands (or units) by the time that their processes spent inside of events within the period, longest
    first."""
    sql = f"""
        WITH e AS (SELECT e.*, {group_of(by, "e")} AS grp, {END} AS ended FROM process_events e WHERE {OVERLAPS}),
        g AS (
          SELECT e.grp, e.peak_score, e.peak_band, e.peak_snapshot_id, e.dominant_resource, e.dominant_category,
                 count(*) OVER one AS events, count(*) OVER one - count(e.exit_time) OVER one AS open_events,
                 sum({inside("e.ended")}) OVER one AS duration_s, max(e.ended) OVER one AS last_seen,
                 row_number() OVER (PARTITION BY e.grp ORDER BY e.peak_score DESC, e.id DESC) AS nth
          FROM e WINDOW one AS (PARTITION BY e.grp))
        SELECT g.grp AS {by}, g.events, (SELECT count(DISTINCT e.boot_id || '/' || e.pid || '/' || e.start_ticks)
                                     FROM e WHERE e.grp IS g.grp) AS processes,
               g.open_events, g.duration_s, g.peak_score, g.peak_band, p.captured_at AS peak_time, g.dominant_resource,
               g.dominant_category, (SELECT sum({_CPU_SECONDS}) FROM e WHERE e.grp IS g.grp) AS cpu_seconds,
               g.last_seen
        FROM g LEFT JOIN process_snapshots p ON p.id = g.peak_snapshot_id WHERE g.nth = 1
        ORDER BY g.duration_s DESC, g.peak_score DESC, g.grp LIMIT :limit"""
    rows = connection.execute(sql, {**bind(period, watched), "limit": limit or -1})
    return [record("report_command", **known(row)) for row in rows]


def totals(connection: sqlite3.Connection, midnight: float) -> dict[str, Any]:
    """Counts of all events, of the open ones and of those since `midnight`, and when the oldest began."""
    row = connection.execute("SELECT count(*) AS events_total, count(*) - count(exit_time) AS open_events, "
                             "coalesce(sum(entry_time >= ?), 0) AS events_today, min(entry_time) AS oldest_event "
                             "FROM process_events", (midnight,)).fetchone()
    return known(row)


def latest(connection: sqlite3.Connection, period: Period, watched: Watched) -> float | None:
    """When the last event before the period began; None if there is none."""
    earlier = Period(-math.inf, period.since, period.text)
    found: float | None = connection.execute(
        f"SELECT max(e.entry_time) FROM process_events e WHERE {OVERLAPS}", bind(earlier, watched)).fetchone()[0]
    return found


# -- inside ----------------------------------------------------------------------------------------------------------

def bind(period: Period, watched: Watched) -> dict[str, Any]:
    return {**period.values(), "boot": watched.boot_id, "seen": watched.seen, "leave": watched.leave}


def inside(end: str) -> str:
    """The part of an event that lies within the period, in seconds; never more than the event was measured to last."""
    return f"min({LASTED}, max(0.0, min({end}, :until) - max({ENTRY}, :since)))"


def known(row: sqlite3.Row) -> dict[str, Any]:
    """The columns of a row that are known, as JSON has them."""
    fields = {name: row[name] for name in row.keys() if row[name] is not None}  # noqa: SIM118  (a Row iterates over values)
    for name in ("duration_s", "cpu_seconds"):
        if name in fields:
            fields[name] = round(fields[name], 3)
    if "dominant_metrics" in fields:
        fields["dominant_metrics"] = wire.loads(fields["dominant_metrics"].encode())
    return fields


def typed(kind: str, fields: Mapping[str, Any], *without: str) -> dict[str, Any]:
    """The known columns of a row that are fields of a type of record, as the record had them."""
    types = _TYPES[kind]
    return {name: _value(types[name], value) for name, value in fields.items()
            if name in types and name not in without and value is not None}


def _value(kind: type, value: Any) -> Any:
    if kind in (list, dict):
        return wire.loads(value.encode())
    return bool(value) if kind is bool else value


_TYPES = {kind: {f.name: f.type for f in fields} for kind, fields in RECORDS.items()}


def _with_share(row: sqlite3.Row) -> dict[str, Any]:
    fields = known(row)
    for name in ("open", "going"):
        if name in fields:
            fields[name] = bool(fields[name])
    resource = fields.get("dominant_resource")
    share = fields.get(f"{resource}_share") if resource in RESOURCES else None
    if share is not None:
        fields["share"] = share
    return fields


def _event(row: sqlite3.Row) -> Record:
    return record("report_event", **_with_share(row))


def _ranges(snapshots: list[Record], peak_id: int | None) -> dict[str, dict[str, float]]:
    """Of every known metric: the lowest and highest of all snapshots and their rings, and the value at the peak."""
    peak = next((s for s in snapshots if s["id"] == peak_id), {})
    ranges = {}
    for name in _METRICS:
        lows = [v for s in snapshots for v in (s.get(name + "_low"), s.get(name)) if v is not None]
        highs = [v for s in snapshots for v in (s.get(name + "_high"), s.get(name)) if v is not None]
        if lows and highs:
            ranges[name] = {"low": min(lows), **({"peak": peak[name]} if name in peak else {}), "high": max(highs)}
    return ranges


@dataclass(frozen=True, slots=True)
class Holder:
    """Whether a process holds the database for writing, and which one (`pid` is None when that cannot be known)."""

    held: bool
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The database as one view sees it. `now` in epoch seconds; `state` is the table daemon_state.

    `connection` is None when there is no file; only the view status can do without. `live` is what a running rh-pipe
    reports over its socket (initial_state), empty if it was not asked; `silent` is the reason why it did not answer.
    """

    path: Path
    now: float
    config: Config
    connection: sqlite3.Connection | None = None
    state: dict[str, Any] = field(default_factory=dict)
    holder: Holder = field(default_factory=lambda: Holder(False))
    live: Mapping[str, Any] = field(default_factory=dict)
    silent: str | None = None

    @property
    def reader(self) -> sqlite3.Connection:
        """The connection. Raises DatabaseError, 69, when there is no database."""
        if self.connection is None:
            raise DatabaseError(f"{self.path}: {NO_HISTORY}", 69)
        return self.connection

    @property
    def last_tick(self) -> dict[str, Any]:
        """The closing row of the last tick that was written down; empty before the first."""
        return self.state.get("last_tick") or {}

    @property
    def stale_after_s(self) -> float:
        """Without news for so long a running rh-pipe is called stale: three updates of its state, or beats."""
        return 3 * (self.config.store.state_every_s + 1 / (self.state.get("hz") or self.config.system.hz))

    @property
    def watch(self) -> str:
        """running, stale, busy, stopped or hub: see the record report_status."""
        if "hub" in self.state:
            return "hub"
        if not self.holder.held:
            return "stopped"
        if self.holder.pid is not None and self.holder.pid != self.state.get("pid"):
            return "busy"
        if self.live or self.silent:
            return "running" if self.live else "stale"
        return "running" if self.now - float(self.last_tick.get("ts", 0.0)) <= self.stale_after_s else "stale"

    @property
    def watched(self) -> Watched:
        """The end of the history: now while rh-pipe runs, whose last tick is written now and then."""
        last = self.last_tick
        seen = float(last.get("ts", 0.0))
        bands = self.config.bands_of(self.state.get("model") or self.config.scoring.model)
        return Watched(last.get("boot_id", ""), max(seen, self.now) if self.watch == "running" else seen,
                       bands.start(bands.tracking) - self.config.tracking.exit_margin)


@contextlib.contextmanager
def source(path: Path, now: float, config: Config, *, needed: bool = True) -> Iterator[Source]:
    """The database, read in one transaction so that all numbers of a view agree. Raises DatabaseError.

    Without a file: an error, or with `needed` False a source without a connection.
    """
    if not needed and not path.exists():
        yield Source(path, now, config, holder=holder(path))
        return
    connection = open_reader(path)
    try:
        held = holder(path)
        connection.execute("BEGIN")
        yield Source(path, now, config, connection, state(connection), held)
    except sqlite3.DatabaseError as error:
        raise failed(path, error) from None
    finally:
        connection.close()


def holder(database: Path) -> Holder:
    """Who holds the lock of `database`. Nothing is written and no process is delayed."""
    try:
        check_lock(database.with_name(database.name + ".lock"))
    except Locked as locked:
        return Holder(True, locked.holder)
    return Holder(False)
