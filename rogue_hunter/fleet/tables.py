"""The tables of many machines: the rows that a host sends, the columns that DuckDB and ClickHouse keep, and questions.

A row has a number that grows and never changes. In a table with an id it is the id; in a table that is clustered by
time it is 1000 * epoch seconds + the rank among the rows of that time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.field import Field

PER_TIME = 1000
"""Row numbers of one point of time; a minute has some 30 commands at most."""
SLICE_TOP = 3
"""Processes sent of each slice of 5 s: those with the most CPU time. The host has all of them."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the type of its records, the columns that a hub keeps, and how SQLite gives them.

    `rows` selects the rows after :after up to and with :through, in order. `last` gives the highest row that is
    complete at :end (epoch seconds), of those after :after; empty if `timed`, where it follows from the time.
    """

    name: str
    kind: str
    columns: tuple[Field, ...]
    rows: str
    last: str = ""

    @property
    def timed(self) -> bool:
        """True if the row number is made from a time."""
        return not self.last


def _columns(kind: str, *names: str) -> tuple[Field, ...]:
    known = {f.name: f for f in RECORDS[kind]}
    return tuple(known[name] for name in names)


def _extra(name: str, kind: type, doc: str) -> Field:
    return Field(name, kind, "", doc, "ship")


def _timed(name: str, kind: str, columns: tuple[Field, ...], time: str, order: str, source: str, select: str,
           top: int = PER_TIME) -> Table:
    return Table(name, kind, columns, f"""
        SELECT * FROM (
            SELECT CAST({time} AS INTEGER) * {PER_TIME} - 1 + row_number() OVER (PARTITION BY {time} ORDER BY {order})
                   AS row, {select}
            FROM {source} WHERE {time} >= :after / {PER_TIME} AND {time} <= :through / {PER_TIME})
        WHERE row > :after AND row <= :through AND row % {PER_TIME} < {top} ORDER BY row""")


def _numbered(name: str, kind: str, columns: tuple[Field, ...], table: str, time: str, select: str,
              join: str = "") -> Table:
    return Table(name, kind, columns,
                 f"SELECT t.id AS row, {select} FROM {table} t {join} WHERE t.id > :after AND t.id <= :through "
                 "ORDER BY t.id",
                 f"SELECT coalesce(min(CASE WHEN {time} >= :end THEN id END) - 1, max(id), :after) FROM {table} "
                 "WHERE id > :after")


_MACHINE = tuple(f for f in RECORDS["machine_minute"])
_COMMAND = tuple(f for f in RECORDS["command_minute"])
_SLICE = _columns(
    "process_slice", "slice", "boot_id", "seconds", "pid", "start_ticks", "user", "command", "name", "cmdline", "unit",
    "nice", "own", "state", "cpu_seconds", "children_cpu_seconds", "disk_bytes", "memory_bytes", "gpu_seconds",
    "pageins", "run_delay_s", "uninterruptible_s", "max_score", "rogue_s")
_EVENT = _columns(
    "event", "ts", "kind", "event", "boot_id", "entered", "duration_s", "scope", "processes", "peak_score", "peak_band",
    "reason", "pid", "start_ticks", "start_time", "ppid", "uid", "user", "command", "exe", "cmdline", "name", "cgroup",
    "unit", "orphan_of", "state", "threads", "cpu_percent", "memory_bytes", "disk_bytes_per_s", "gpu_ms_per_s",
    "wakeups_per_s", "run_delay_ms_per_s", "model", "score", "band", "disproportionality", "dominant_resource",
    "dominant_category")
_PAUSE = (
    *_columns("pause", "ts", "pause", "boot_id", "start", "end", "duration_s", "cause", "culprits", "unexplained_share",
              "evidence"),
    _extra("culprit", str, "the first of the culprits, as people call it"),
    _extra("os_version", str, "release of the kernel, if the pause is of the present boot"),
    Field("culprit_release", str, "", "culprit and os_version as one text", "hub", required=True))
_CAPTURE = _columns(
    "capture", "ts", "capture", "trigger", "status", "reason", "skipped", "event", "pause", "boot_id", "pid",
    "start_ticks", "command", "os", "duration_s", "processes", "threads", "blockers", "log_entries")
_ACTION = _columns(
    "action", "ts", "boot_id", "pid", "start_ticks", "user", "command", "exe", "cmdline", "rule", "priority", "reason",
    "evidence", "outcome", "detail", "signal", "dry_run", "cpu_recovered_percent", "host", "run", "audit_seq", "score",
    "band")


def _of(alias: str, columns: tuple[Field, ...], *but: str) -> str:
    return ", ".join(f'{alias}"{c.name}"' for c in columns if c.name not in but)


MADE = {"culprit_release": "concat(coalesce(culprit, '?'), ' ', coalesce(os_version, '?'))"}
"""Columns that a hub makes from others: ClickHouse groups by one text twice as fast as by two."""
_CULPRIT = "FROM pause_culprits c WHERE c.pause_id = t.id"
_SO_FAR = "FROM process_snapshots x WHERE x.event_id = t.event_id AND x.id <= t.id"

TABLES: tuple[Table, ...] = (
    _timed("machine_minutes", "machine_minute", _MACHINE, "minute", "boot_id", "machine_minutes", _of("", _MACHINE)),
    _timed("command_minutes", "command_minute", _COMMAND, "minute", "command", "command_minutes", _of("", _COMMAND)),
    _timed("process_slices", "process_slice", _SLICE, "slice",
           "coalesce(cpu_seconds, 0) + coalesce(children_cpu_seconds, 0) DESC, pid, start_ticks",
           "v_process_slices", _of("", _SLICE), SLICE_TOP),
    _numbered("events", "event", _EVENT, "process_snapshots", "captured_at", f"""
        t.captured_at AS ts, t.snapshot_type AS kind, e.event, e.boot_id, e.entry_time AS entered,
        coalesce(t.duration_s, max(0, t.captured_at - e.entry_time)) AS duration_s, e.scope, e.processes,
        coalesce((SELECT max(score) {_SO_FAR}), e.peak_score) AS peak_score,
        coalesce((SELECT band {_SO_FAR} ORDER BY score DESC, x.id LIMIT 1), e.peak_band) AS peak_band,
        CASE t.snapshot_type WHEN 'exit' THEN e.reason END AS reason,
        {_of("t.", _EVENT[11:])}""", "JOIN process_events e ON e.id = t.event_id"),
    _numbered("pauses", "pause", _PAUSE, "pauses", "end_time", f"""
        t.end_time AS ts, t.pause, t.boot_id, t.start_time AS start, t.end_time AS "end", t.duration_s, t.cause,
        t.unexplained_share, t.evidence, (SELECT coalesce(c.name, c.command) {_CULPRIT} AND c.rank = 1) AS culprit,
        (SELECT json_group_array(json_object('pid', pid, 'start_ticks', start_ticks, 'command', command, 'name', name,
         'unit', unit, 'processes', processes, 'resource', resource, 'amount', amount, 'share', share)) {_CULPRIT})
        AS culprits"""),
    _numbered("captures", "capture", _CAPTURE, "forensic_captures", "captured_at",
              "t.captured_at AS ts, " + _of("t.", _CAPTURE, "ts")),
    _numbered("actions", "action", _ACTION, "actions", "ts", _of("t.", _ACTION)),
)

_HEAD = tuple(f for f in RECORDS["fleet_batch"] if f.name not in ("row", "host_id"))
BATCHES = Table("batches", "fleet_batch", _HEAD, "")
"""The heads of the messages: who sent what, when, with which clock."""

STORED = (*TABLES, BATCHES)
BY_NAME = {table.name: table for table in TABLES}
BY_KIND = {table.kind: table for table in TABLES}

KEY = (_extra("host_id", str, "identity of the host"), _extra("row", int, "number of the row on that host"),
       Field("received", float, "s", "epoch seconds by the clock of the server when the message was stored", "hub"))
"""The columns that every stored table begins with."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """A small table that is kept while rows arrive, so that a question about a month reads little.

    `keys`: name -> type and SQL over a row `e` of `source`; `measures`: name -> min or max, type and SQL. Only minima
    and maxima: with them a row that arrives twice changes nothing.
    """

    name: str
    source: Table
    keys: Mapping[str, tuple[type, str]]
    measures: Mapping[str, tuple[str, type, str]]

    def select(self, source: str) -> str:
        """The rows of this table that follow from the rows of `source`, a table expression."""
        columns = [f"{sql} AS {name}" for name, (_, sql) in self.keys.items()]
        columns += [f"{least}({sql}) AS {name}" for name, (least, _, sql) in self.measures.items()]
        return f"SELECT {', '.join(columns)} FROM {source} AS e GROUP BY {', '.join(s for _, s in self.keys.values())}"

    def merge(self, source: str) -> str:
        """The statement of DuckDB that adds what follows from new rows."""
        same = " AND ".join(f"t.{name} = n.{name}" for name in self.keys)
        better = {"min": "least", "max": "greatest"}
        update = ", ".join(f"{name} = {better[least]}(t.{name}, n.{name})"
                           for name, (least, _, _) in self.measures.items())
        names = (*self.keys, *self.measures)
        return (f"MERGE INTO {self.name} AS t USING ({self.select(source)}) AS n ON {same} "
                f"WHEN MATCHED THEN UPDATE SET {update} "
                f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join(f'n.{n}' for n in names)})")


HOUR_S = 3600
ROLLUPS = (
    Rollup("commands", BY_NAME["events"],
           {"host_id": (str, "e.host_id"), "command": (str, "coalesce(e.command, e.unit, '?')")},
           {"first_ts": ("min", float, "e.ts"), "last_ts": ("max", float, "e.ts"),
            "highest": ("max", int, "e.score")}),
    Rollup("culprits", BY_NAME["pauses"],
           {"host_id": (str, "e.host_id"), "command": (str, "coalesce(e.culprit, '?')"),
            "version": (str, "coalesce(e.os_version, '?')")},
           {"last_ts": ("max", float, "e.ts")}),
    Rollup("host_hours", BATCHES,
           {"host_id": (str, "e.host_id"), "hour": (float, f"floor(e.received / {HOUR_S}) * {HOUR_S}")},
           {"name": ("max", str, "e.host"), "last_ts": ("max", float, "e.received"),
            "behind": ("min", float, "e.received - e.sent")}),
)
"""commands: when each command was rogue on each host, kept for longer than the events. culprits: commands named for
pauses. host_hours: what was heard of each host in each hour."""

_DUCKDB = {int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


def stored(table: Table) -> tuple[Field, ...]:
    """All columns of a stored table."""
    return (*KEY, *table.columns)


def duckdb_type(kind: type) -> str:
    """The type of a column in DuckDB; lists and objects are text of JSON."""
    return _DUCKDB.get(kind, "VARCHAR")


def duckdb_tables() -> Iterator[str]:
    """The statements that make the tables of a hub."""
    made = {table.name: [(c.name, c.type) for c in stored(table)] for table in STORED}
    made |= {each.name: [*((name, kind) for name, (kind, _) in each.keys.items()),
                         *((name, kind) for name, (_, kind, _) in each.measures.items())] for each in ROLLUPS}
    made |= {"coverage": [("host_id", str), ("spans", str)], "format": [("version", int)],
             "refused": [("host_id", str), ("received", float), ("reason", str)]}
    for table, columns in made.items():
        text = ", ".join(f'"{name}" {duckdb_type(kind)}' for name, kind in columns)
        yield f"CREATE TABLE IF NOT EXISTS {table} ({text})"


# -- questions ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Query:
    """A question with a name, one SQL text for DuckDB and ClickHouse. `{since}` and `{now}` are epoch seconds, the
    others numbers of an option."""

    doc: str
    sql: str


QUERIES: dict[str, Query] = {
    "rogue": Query("Commands that were rogue since --since on at least --hosts hosts.", """
SELECT command, sum(CASE WHEN last_ts >= {since} THEN 1 ELSE 0 END) AS hosts, min(first_ts) AS first_seen,
       max(last_ts) AS last_seen, max(highest) AS highest_score
FROM commands GROUP BY command HAVING sum(CASE WHEN last_ts >= {since} THEN 1 ELSE 0 END) >= {hosts}
ORDER BY hosts DESC, last_seen DESC, command LIMIT {limit}"""),
    "new": Query("Commands that were rogue since --since and never before, as far as the hub knows.", """
SELECT command, count(*) AS hosts, min(first_ts) AS first_seen, max(highest) AS highest_score
FROM commands GROUP BY command HAVING min(first_ts) >= {since} AND count(*) >= {hosts}
ORDER BY hosts DESC, first_seen, command LIMIT {limit}"""),
    "worst": Query("Hosts with the most time in pauses.", """
SELECT host_id, count(*) AS pauses, round(sum(duration_s), 1) AS pause_s, max(duration_s) AS longest_s
FROM pauses WHERE ts >= {since}
GROUP BY host_id ORDER BY sum(duration_s) DESC, host_id LIMIT {limit}"""),
    "pauses": Query("Pauses by the command named for them and the kernel release, on at least --hosts hosts.", """
SELECT c.command AS command, c.version AS version, p.pauses AS pauses, c.hosts AS hosts, p.pause_s AS pause_s
FROM (SELECT command, version, concat(command, ' ', version) AS culprit_release, count(*) AS hosts
      FROM culprits WHERE last_ts >= {since} GROUP BY command, version HAVING count(*) >= {hosts}) AS c
JOIN (SELECT culprit_release, count(*) AS pauses, round(sum(duration_s), 1) AS pause_s
      FROM pauses WHERE ts >= {since} GROUP BY culprit_release) AS p ON p.culprit_release = c.culprit_release
ORDER BY pauses DESC, command, version LIMIT {limit}"""),
    "silent": Query("Hosts that have sent nothing for --silent.", """
SELECT host_id, argMax(name, last_ts) AS host, max(last_ts) AS last_received, round({now} - max(last_ts), 0) AS silent_s
FROM host_hours GROUP BY host_id HAVING max(last_ts) < {now} - {silent}
ORDER BY last_received, host_id LIMIT {limit}"""),
    "skewed": Query("Hosts whose clock differs by --skew or more; positive: it is behind.", """
SELECT host_id, argMax(name, last_ts) AS host, round(min(behind), 1) AS behind_s, max(last_ts) AS last_received
FROM host_hours WHERE hour > {since} - 3600
GROUP BY host_id HAVING abs(min(behind)) >= {skew}
ORDER BY abs(min(behind)) DESC, host_id LIMIT {limit}"""),
}

Ask = Callable[[str], tuple[list[str], list[list[Any]]]]
"""SQL to names and rows."""
TIMES = frozenset({"first_seen", "last_seen", "last_received"})
"""Columns of these answers that are points of time."""


def question(name: str, values: Mapping[str, float]) -> str:
    """The SQL of a question with its numbers. Numbers only, so nothing has to be quoted."""
    return QUERIES[name].sql.format(**{key: repr(value + 0) for key, value in values.items()}).strip()
