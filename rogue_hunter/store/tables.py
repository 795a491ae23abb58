"""The tables of the database, declared from the same fields as the records."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.events import COMMAND_MINUTE, EVENT, MACHINE_MINUTE
from rogue_hunter.schema.field import Field
from rogue_hunter.schema.sampling import SNAPSHOT
from rogue_hunter.schema.slices import GROUP_SLICE, LIMIT, MACHINE_SLICE, PROCESS_SLICE, WAIT


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns in order, its constraints and its indexes."""

    name: str
    columns: tuple[Field, ...]
    doc: str
    rules: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    options: str = ""

    def create(self) -> list[str]:
        """The statements that make the table."""
        lines = [f"  {quoted(c.name)} {_definition(c)}" for c in self.columns] + [f"  {rule}" for rule in self.rules]
        return [f"CREATE TABLE {self.name} (\n" + ",\n".join(lines) + f"\n){self.options}", *self.indexes]

    def insert(self, *columns: str) -> str:
        """An INSERT with named parameters, of these columns or of all but id."""
        names = columns or tuple(c.name for c in self.columns if c.name != "id")
        return f"INSERT INTO {self.name} ({', '.join(map(quoted, names))}) VALUES ({', '.join(':' + n for n in names)})"


def quoted(name: str) -> str:
    """A column's name in a statement."""
    return f'"{name}"' if name in _KEYWORDS else name


_KEYWORDS = frozenset({"limit"})
"""Fields of records whose names are words of SQL."""


def _definition(column: Field) -> str:
    if column.name == "id":
        return "INTEGER PRIMARY KEY"
    return column.sql + (" NOT NULL" if column.required else "")


def column(name: str, kind: type, unit: str, doc: str, required: bool = False) -> Field:
    """A column that no record has."""
    return Field(name, kind, unit, doc, "store", required=required)


APPLICATION_ID = 0x52476846
"""PRAGMA application_id of our files ("RGhF"), so that a file of another program is never migrated."""

DAEMON_STATE = Table(
    "daemon_state",
    (
        column("key", str, "", "name of the fact"),
        column("value", str, "", "JSON"),
        column("updated_at", float, "s", "epoch seconds"),
    ),
    "state of the running rh-pipe",
    ("PRIMARY KEY (key)",),
)

_BY_NAME = {f.name: f for f in SNAPSHOT}

PROCESS_EVENTS = Table(
    "process_events",
    (
        column("id", int, "", "number of the event"),
        column("event", str, "", "its stable key", True),
        column("boot_id", str, "", "identity of the boot", True),
        *(_BY_NAME[name] for name in ("pid", "start_ticks", "start_time", "ppid", "command", "exe", "cmdline", "cgroup",
                                      "uid", "user", "tty", "unit", "orphan_of", "model")),
        column("entry_time", float, "s", "epoch seconds of the enter record", True),
        column("exit_time", float, "s", "epoch seconds of the exit record; NULL while the event is open"),
        column("reason", str, "", "why it ended"),
        column("last_seen", float, "s", "epoch seconds of its last snapshot", True),
        column("entry_band", str, "", "band at the beginning"),
        column("entry_score", int, "0-100", "score at the beginning"),
        column("peak_band", str, "", "highest band"),
        column("peak_score", int, "0-100", "highest score"),
        column("peak_snapshot_id", int, "", "snapshot of the highest score"),
        column("dominant_resource", str, "", "the resource with the most points over the event"),
        column("dominant_category", str, "", "the category with the most points over the event"),
        # Not required: a file of an earlier version does not have them.
        *(replace(f, required=False) for f in EVENT if f.name in ("duration_s", "scope", "processes")),
    ),
    "events: a process or unit that stayed at or above the tracking band",
    ("UNIQUE (event)",),
    (
        # One process has at most one open event, also after a crash.
        "CREATE UNIQUE INDEX process_events_open ON process_events (boot_id, pid, start_ticks) "
        "WHERE exit_time IS NULL",
        "CREATE INDEX process_events_entry ON process_events (entry_time)",
        "CREATE INDEX process_events_exit ON process_events (exit_time)",
    ),
)

_IN_SNAPSHOT = (
    *(f for f in EVENT if f.name in _BY_NAME or f.name.endswith(("_low", "_high"))),
    *(replace(f, required=False) for f in EVENT if f.name == "duration_s"),
)

PROCESS_SNAPSHOTS = Table(
    "process_snapshots",
    (
        column("id", int, "", "number of the snapshot"),
        column("event_id", int, "", "the event", True),
        column("snapshot_type", str, "", "enter, band, peak, checkpoint or exit", True),
        column("captured_at", float, "s", "epoch seconds", True),
        *_IN_SNAPSHOT,
    ),
    "rows of processes at moments of their events, with the low and high of each metric over the last 20 s",
    ("FOREIGN KEY (event_id) REFERENCES process_events (id) ON DELETE CASCADE",),
    ("CREATE INDEX process_snapshots_event ON process_snapshots (event_id, captured_at)",),
)

PAUSES = Table(
    "pauses",
    (
        column("id", int, "", "number of the pause"),
        column("pause", str, "", "its stable key", True),
        column("boot_id", str, "", "identity of the boot", True),
        column("start_time", float, "s", "epoch seconds of its beginning", True),
        column("end_time", float, "s", "epoch seconds of its end", True),
        column("duration_s", float, "s", "its length", True),
        column("cause", str, "", "what was short", True),
        column("unexplained_share", float, "1", "part of the total that no process seen explains"),
        column("evidence", dict, "", "JSON: the readings by which the cause was decided"),
    ),
    "pauses of the machine",
    ("UNIQUE (pause)",),
    ("CREATE INDEX pauses_end ON pauses (end_time)",),
)

PAUSE_CULPRITS = Table(
    "pause_culprits",
    (
        column("pause_id", int, "", "the pause", True),
        column("rank", int, "", "1 for the one that used most", True),
        column("pid", int, "", "process id", True),
        column("start_ticks", int, "host ticks", "when the process started", True),
        column("command", str, "", "the kernel's short name"),
        column("unit", str, "", "its unit of work"),
        column("resource", str, "", "what it used"),
        column("amount", float, "s or bytes", "how much"),
        column("share", float, "1", "part of the machine's total"),
        column("name", str, "", "what people call it: its script, else its program"),
        column("processes", int, "", "how many processes used it; the identity is that of their root"),
    ),
    "who used what was short in a pause",
    ("PRIMARY KEY (pause_id, rank)", "FOREIGN KEY (pause_id) REFERENCES pauses (id) ON DELETE CASCADE"),
    (),
    " WITHOUT ROWID",
)

MACHINE_MINUTES = Table("machine_minutes", MACHINE_MINUTE, "the machine, one row a minute",
                        ("PRIMARY KEY (minute, boot_id)",), (), " WITHOUT ROWID")

# Clustered by time: a month is 44,640 minutes of up to 20 commands, and every question names a time.
COMMAND_MINUTES = Table("command_minutes", COMMAND_MINUTE, "the top commands of each minute",
                        ("PRIMARY KEY (minute, command)",), (), " WITHOUT ROWID")

FORENSIC_CAPTURES = Table(
    "forensic_captures",
    (
        column("id", int, "", "number of the capture"),
        column("captured_at", float, "s", "epoch seconds when the capture began", True),
        column("event_id", int, "", "the event that asked for it"),
        column("pause_id", int, "", "the pause that asked for it"),
        *(f for f in RECORDS["capture"] if f.stage != "report" and f.name != "ts"),
    ),
    "one row a capture of evidence, or a number of requests that were skipped",
    ("UNIQUE (capture)", "FOREIGN KEY (event_id) REFERENCES process_events (id) ON DELETE CASCADE",
     "FOREIGN KEY (pause_id) REFERENCES pauses (id) ON DELETE CASCADE"),
    ("CREATE INDEX forensic_captures_at ON forensic_captures (captured_at)",
     "CREATE INDEX forensic_captures_event ON forensic_captures (event_id)",
     "CREATE INDEX forensic_captures_pause ON forensic_captures (pause_id)"),
)


def _of_capture(name: str, kind: str, doc: str, order: str = "") -> Table:
    """The table of a record that belongs to a capture."""
    return Table(
        name,
        (column("id", int, "", "number of the row"), column("capture_id", int, "", "the capture", True),
         *(f for f in RECORDS[kind] if f.name != "capture")),
        doc,
        ("FOREIGN KEY (capture_id) REFERENCES forensic_captures (id) ON DELETE CASCADE",),
        (f"CREATE INDEX {name}_capture ON {name} (capture_id{order})",),
    )


CAPTURE_PARTS: dict[str, Table] = {
    "spindump_report": _of_capture("spindump_reports", "spindump_report", "what a capture looked at, as a whole"),
    "spindump_process": _of_capture("spindump_processes", "spindump_process", "the processes of a capture",
                                    ", process"),
    "spindump_thread": _of_capture("spindump_threads", "spindump_thread", "their threads, by the process's number",
                                   ", process"),
    "spindump_blocker": _of_capture("spindump_blockers", "spindump_blocker", "which thread waited for whom",
                                    ", process"),
    "log_entry": _of_capture("log_entries", "log_entry", "what was logged before a capture", ", ts"),
    "resource_report": _of_capture("resource_reports", "resource_report",
                                   "processes over a limit, as macOS recorded them before a capture", ", ts"),
    "resource_process": _of_capture("resource_processes", "resource_process", "the processes of these reports",
                                    ", process"),
    "buffer_context": _of_capture("buffer_context", "buffer_context", "what the ring held before a capture"),
}
"""Record type of a part of a capture -> its table. All parts are removed with their capture."""

_RECORDED = ("pause", "capture")

STACKS = Table(
    "stacks",
    (column("id", int, "", "number of the row"), column("pause_id", int, "", "the pause"),
     column("capture_id", int, "", "the capture"), *(f for f in RECORDS["stack"] if f.name not in _RECORDED)),
    "the stacks seen on the CPUs during a pause, or before a capture",
    ("FOREIGN KEY (pause_id) REFERENCES pauses (id) ON DELETE CASCADE",
     "FOREIGN KEY (capture_id) REFERENCES forensic_captures (id) ON DELETE CASCADE"),
    ("CREATE INDEX stacks_pause ON stacks (pause_id)", "CREATE INDEX stacks_capture ON stacks (capture_id)"),
)

CPU_SHARES = Table(
    "cpu_shares",
    (column("pause_id", int, "", "the pause", True), *(f for f in RECORDS["cpu_share"] if f.name not in _RECORDED)),
    "who had each CPU during a pause",
    ("PRIMARY KEY (pause_id, cpu, rank)", "FOREIGN KEY (pause_id) REFERENCES pauses (id) ON DELETE CASCADE"),
    (),
    " WITHOUT ROWID",
)

PROOFS = Table("proofs", (column("id", int, "", "number of the proof"), *RECORDS["proof"]),
               "whether a process makes another one wait, found by experiment", ("UNIQUE (run, audit_seq)",),
               ("CREATE INDEX proofs_ts ON proofs (ts)",))

RECORDED = (STACKS, CPU_SHARES, PROOFS)

FORENSICS = (FORENSIC_CAPTURES, *CAPTURE_PARTS.values())

_MATCH = {f.name: f for f in RECORDS["match"]}
_MATCH_OWN = ("ts", "seq", "matched_s", "boot_id", "pid", "start_ticks", "rule", "rules_file", "rules_project",
              "rules_sha256")

MATCHES = Table(
    "matches",
    (
        column("id", int, "", "number of the match"),
        *(_MATCH[name] for name in ("boot_id", "pid", "start_ticks", "rule")),
        column("first_seen", float, "s", "epoch seconds at which the rule began to match", True),
        column("last_seen", float, "s", "epoch seconds of its last report", True),
        column("times", int, "", "number of reports: one a minute while it lasts", True),
        *(f for name, f in _MATCH.items() if name not in _MATCH_OWN),
    ),
    "one row a process and rule: a rule that matched it, with the readings of the last time",
    ("UNIQUE (boot_id, pid, start_ticks, rule)",),
    ("CREATE INDEX matches_last ON matches (last_seen)",),
)

ACTIONS = Table(
    "actions",
    (column("id", int, "", "number of the action"), *RECORDS["action"]),
    "one row a decision of the reaper: what was done about a process, or why it was not signalled",
    # The same line of the audit file can come from the reaper itself and from the file.
    ("UNIQUE (run, audit_seq)",),
    ("CREATE INDEX actions_ts ON actions (ts)",),
)

REAP = (MATCHES, ACTIONS)

def compact(field: Field) -> Field:
    """The column of a sum of a slice. Seconds are whole milliseconds: two bytes where a REAL has eight, and a day has
    300,000 such rows. The views give them as they were declared."""
    if field.type is not float:
        return field
    return column(field.name.removesuffix("_seconds").removesuffix("_s") + "_ms", int, "ms", field.doc)


_PROCESS_OWN = ("boot_id", "pid", "start_ticks", "ppid", "session", "uid", "user", "command", "name", "cmdline",
                "cgroup", "unit", "nice", "policy", "own")
_GROUP_OWN = ("boot_id", "unit", "name", "pid", "start_ticks")
_LAST_SEEN = column("last_seen", float, "s", "epoch seconds of a slice in which it was seen, 10 minutes apart", True)

SLICE_BOOTS = Table(
    "slice_boots",
    (column("id", int, "", "number of the boot"), column("boot_id", str, "", "identity of the boot", True)),
    "the boots that slices are of",
    ("UNIQUE (boot_id)",),
)


_KEPT = column("kept", bool, "", "true if a minute names it, so that it outlives the slices")


def _subject(name: str, fields: tuple[Field, ...], own: tuple[str, ...], key: str, doc: str) -> Table:
    """The subjects of a slice table, once for all its slices."""
    by_name = {f.name: f for f in fields}
    return Table(
        name,
        (column("id", int, "", "its number"), column("boot", int, "", "number of the boot", True),
         *(by_name[n] for n in own if n != "boot_id"), _LAST_SEEN, _KEPT),
        doc, (f"UNIQUE (boot, {key})",), (f"CREATE INDEX {name}_seen ON {name} (last_seen)",))


SLICE_PROCESSES = _subject("slice_processes", PROCESS_SLICE, _PROCESS_OWN, "pid, start_ticks",
                           "the processes of the slices")
SLICE_UNITS = _subject("slice_units", GROUP_SLICE, _GROUP_OWN, "unit", "the units of the slices")

MACHINE_SLICES = Table(
    "machine_slices",
    (MACHINE_SLICE[0], column("boot", int, "", "number of the boot", True),
     *(f for f in MACHINE_SLICE if f.name not in ("slice", "boot_id")),
     column("quiet", bool, "", "true if nothing was listed; such slices of one minute are one row")),
    "the machine, one row a slice of 5 s", ("PRIMARY KEY (slice, boot)",), (), " WITHOUT ROWID")


_ROLLED = (column("active_ms", int, "ms", "time covered by the slices that it is the sum of"),
           column("first_slice", float, "s", "epoch seconds at which the first of them begins"))


def _slices(name: str, fields: tuple[Field, ...], own: tuple[str, ...], subject: str, doc: str,
            more: tuple[Field, ...] = ()) -> Table:
    """The table of what processes or units used. Clustered by time, as every question names one."""
    return Table(
        name,
        (fields[0], column(subject, int, "", f"number of the {subject}", True),
         *(compact(f) for f in fields if f.name not in ("slice", "seconds", *own)), *more),
        doc, (f"PRIMARY KEY (slice, {subject})",), (), " WITHOUT ROWID")


PROCESS_SLICES = _slices("process_slices", PROCESS_SLICE, _PROCESS_OWN, "process",
                         "processes in a slice, those that were among the highest in something")
GROUP_SLICES = _slices("group_slices", GROUP_SLICE, _GROUP_OWN, "unit",
                       "units of work in a slice, those that were among the highest in something")

MACHINE_HOURS = Table("machine_hours", MACHINE_MINUTE, "the machine, one row an hour, made from the minutes",
                      ("PRIMARY KEY (minute, boot_id)",), (), " WITHOUT ROWID")
PROCESS_MINUTES, PROCESS_HOURS = (
    _slices(f"process_{each}s", PROCESS_SLICE, _PROCESS_OWN, "process",
            f"processes in one {each}, those that were among the highest in something", _ROLLED)
    for each in ("minute", "hour"))
GROUP_MINUTES, GROUP_HOURS = (
    _slices(f"group_{each}s", GROUP_SLICE, _GROUP_OWN, "unit",
            f"units of work in one {each}, those that were among the highest in something", _ROLLED)
    for each in ("minute", "hour"))
ROLLED = (MACHINE_HOURS, PROCESS_MINUTES, PROCESS_HOURS, GROUP_MINUTES, GROUP_HOURS)

WAITS = Table(
    "waits", (column("id", int, "", "number of the wait"), *WAIT), "processes that waited for another one",
    ("UNIQUE (boot_id, kind, object, holder_pid, holder_start_ticks, ts)",), ("CREATE INDEX waits_ts ON waits (ts)",))
LIMITS = Table(
    "limits", (column("id", int, "", "number of the limit"), *LIMIT), "limits that held processes back", (),
    ("CREATE INDEX limits_ts ON limits (ts)",))

SLICES = (SLICE_BOOTS, SLICE_PROCESSES, SLICE_UNITS, MACHINE_SLICES, PROCESS_SLICES, GROUP_SLICES, WAITS, LIMITS)

TABLES = (DAEMON_STATE, PROCESS_EVENTS, PROCESS_SNAPSHOTS, PAUSES, PAUSE_CULPRITS, MACHINE_MINUTES, COMMAND_MINUTES,
          *FORENSICS, *REAP, *SLICES, *ROLLED, *RECORDED)

def _declared(table: Table, fields: tuple[Field, ...], subject: Table | None, own: tuple[str, ...]) -> str:
    """The query that gives the rows of a slice table with the fields that the record has."""
    columns, rolled = [], table in ROLLED
    for field in fields:
        name = field.name
        if name == "boot_id":
            columns.append("b.boot_id")
        elif name in own:
            columns.append(f"p.{name}")
        elif name == "seconds" and subject is not None:
            columns.append("s.active_ms / 1000.0 AS active_s, s.first_slice" if rolled else "m.seconds")
        elif subject is not None and compact(field).name != name and name != "slice":
            columns.append(f"s.{compact(field).name} / 1000.0 AS {name}")
        else:
            columns.append(f"s.{name}")
    joins = "JOIN slice_boots b ON b.id = s.boot"
    if subject is not None:
        joins = f"JOIN {subject.name} p ON p.id = s.{table.columns[1].name} JOIN slice_boots b ON b.id = p.boot"
        if not rolled:
            joins += " LEFT JOIN machine_slices m ON m.slice = s.slice AND m.boot = p.boot"
    return f"SELECT {', '.join(columns)} FROM {table.name} s {joins} ORDER BY s.slice"


VIEWS = {
    "v_open_events": """
        SELECT id, event, pid, command, cmdline, user, unit, entry_time,
               datetime(entry_time, 'unixepoch', 'localtime') AS since, duration_s,
               peak_score, peak_band, dominant_resource, dominant_category
        FROM process_events WHERE exit_time IS NULL ORDER BY peak_score DESC""",
    "v_pauses": """
        SELECT p.id, datetime(p.start_time, 'unixepoch', 'localtime') AS at, p.start_time, p.end_time,
               round(p.duration_s, 1) AS duration_s, p.cause, c.command AS culprit, c.pid, c.unit, c.resource,
               round(100 * c.share, 1) AS share_percent, round(100 * p.unexplained_share, 1) AS unexplained_percent
        FROM pauses p LEFT JOIN pause_culprits c ON c.pause_id = p.id AND c.rank = 1
        ORDER BY p.start_time DESC, p.id DESC""",
    # What a command owes of a pause is its share of what was short, as time.
    "v_offenders": """
        WITH owed AS (
            SELECT c.command, count(DISTINCT p.id) AS pauses, sum(p.duration_s * c.share) / 60 AS pause_minutes
            FROM pause_culprits c JOIN pauses p ON p.id = c.pause_id GROUP BY c.command),
        rogue AS (
            SELECT command, count(*) AS events, max(peak_score) AS peak_score,
                   sum(duration_s) / 60 AS rogue_minutes
            FROM process_events GROUP BY command)
        SELECT command, round(coalesce(pause_minutes, 0), 3) AS pause_minutes, coalesce(pauses, 0) AS pauses,
               coalesce(events, 0) AS events, round(coalesce(rogue_minutes, 0), 1) AS rogue_minutes, peak_score
        FROM (SELECT command FROM owed UNION SELECT command FROM rogue)
             LEFT JOIN owed USING (command) LEFT JOIN rogue USING (command)
        ORDER BY coalesce(pause_minutes, 0) DESC, coalesce(rogue_minutes, 0) DESC, command""",
    "v_timeline": """
        SELECT start_time AS ts, datetime(start_time, 'unixepoch', 'localtime') AS at, 'pause' AS what,
               cause || ' for ' || round(duration_s, 1) || ' s' AS detail,
               (SELECT command FROM pause_culprits c WHERE c.pause_id = p.id AND rank = 1) AS command, NULL AS score,
               id FROM pauses p
        UNION ALL
        SELECT entry_time, datetime(entry_time, 'unixepoch', 'localtime'), 'enter', entry_band || ' ' ||
               coalesce(dominant_resource, dominant_category, ''), command, entry_score, id FROM process_events
        UNION ALL
        SELECT exit_time, datetime(exit_time, 'unixepoch', 'localtime'), 'exit', reason, command, peak_score, id
        FROM process_events WHERE exit_time IS NOT NULL
        UNION ALL
        SELECT ts, datetime(ts, 'unixepoch', 'localtime'), 'action', outcome || ' by ' || coalesce(signal, '') ||
               ' for rule ' || rule, command, score, id FROM actions WHERE signals IS NOT NULL
        UNION ALL
        SELECT minute, datetime(minute, 'unixepoch', 'localtime'), 'asleep', 'for ' || round(asleep_s) || ' s', NULL,
               NULL, NULL FROM machine_minutes WHERE asleep_s >= 1
        ORDER BY 1 DESC, id DESC""",
    "v_minutes": """
        SELECT minute, datetime(minute, 'unixepoch', 'localtime') AS at, ticks, seconds, cpus, cpu_busy_cores,
               round(100 * cpu_busy_cores / cpus, 1) AS busy_percent,
               round(pressure_cpu_some_ms_per_s / 10, 1) AS cpu_waited_percent,
               round(100.0 * memory_available_bytes / memory_total_bytes, 1) AS available_percent,
               round(pressure_memory_full_ms_per_s / 10, 1) AS memory_waited_percent,
               round(disk_bytes / max(seconds, 0.001)) AS disk_bytes_per_s,
               round(pressure_io_full_ms_per_s / 10, 1) AS io_waited_percent, cpu_steal_cores, late_s, asleep_s,
               pauses, round(pause_s, 1) AS pause_s, max_score, processes, started,
               (SELECT command FROM command_minutes c WHERE c.minute = m.minute
                ORDER BY cpu_seconds DESC, command LIMIT 1) AS top_command,
               (SELECT max(cpu_seconds) FROM command_minutes c WHERE c.minute = m.minute) AS top_cpu_seconds
        FROM machine_minutes m ORDER BY minute DESC""",
    **{f"v_{name}": _declared(*view) for name, view in {
        "machine_slices": (MACHINE_SLICES, MACHINE_SLICE, None, ()),
        "process_slices": (PROCESS_SLICES, PROCESS_SLICE, SLICE_PROCESSES, _PROCESS_OWN),
        "group_slices": (GROUP_SLICES, GROUP_SLICE, SLICE_UNITS, _GROUP_OWN),
        "process_minutes": (PROCESS_MINUTES, PROCESS_SLICE, SLICE_PROCESSES, _PROCESS_OWN),
        "group_minutes": (GROUP_MINUTES, GROUP_SLICE, SLICE_UNITS, _GROUP_OWN),
        "process_hours": (PROCESS_HOURS, PROCESS_SLICE, SLICE_PROCESSES, _PROCESS_OWN),
        "group_hours": (GROUP_HOURS, GROUP_SLICE, SLICE_UNITS, _GROUP_OWN),
    }.items()},
}
"""Views: one text for sqlite3, Datasette and rh-report. Those of slices have the columns of the records."""
