"""The tables of the database, declared from the same fields as the records."""

from __future__ import annotations

from rogue_hunter.schema.events import COMMAND_MINUTE, EVENT, MACHINE_MINUTE
from rogue_hunter.schema.sampling import SNAPSHOT
from rogue_hunter.store.table import Table
from rogue_hunter.store.table import column as _c
from rogue_hunter.store.tables_forensics import FORENSICS
from rogue_hunter.store.tables_reap import REAP

APPLICATION_ID = 0x52476846
"""PRAGMA application_id of our files ("RGhF"), so that a file of another program is never migrated."""

DAEMON_STATE = Table(
    "daemon_state",
    (
        _c("key", str, "", "what is said"),
        _c("value", str, "", "JSON"),
        _c("updated_at", float, "s", "epoch seconds"),
    ),
    "what the running rh-pipe says of itself",
    ("PRIMARY KEY (key)",),
)

_BY_NAME = {f.name: f for f in SNAPSHOT}

PROCESS_EVENTS = Table(
    "process_events",
    (
        _c("id", int, "", "number of the event"),
        _c("event", str, "", "its stable key", True),
        _c("boot_id", str, "", "identity of the boot", True),
        *(_BY_NAME[name] for name in ("pid", "start_ticks", "start_time", "ppid", "command", "exe", "cmdline", "cgroup",
                                      "uid", "user", "tty", "unit", "orphan_of", "model")),
        _c("entry_time", float, "s", "epoch seconds of the enter record", True),
        _c("exit_time", float, "s", "epoch seconds of the exit record; NULL while the event is open"),
        _c("reason", str, "", "why it ended"),
        _c("last_seen", float, "s", "epoch seconds of its last snapshot", True),
        _c("entry_band", str, "", "band at the beginning"),
        _c("entry_score", int, "0-100", "score at the beginning"),
        _c("peak_band", str, "", "highest band"),
        _c("peak_score", int, "0-100", "highest score"),
        _c("peak_snapshot_id", int, "", "snapshot of the highest score"),
        _c("dominant_resource", str, "", "the resource at the highest score"),
        _c("dominant_category", str, "", "the category at the highest score"),
    ),
    "one row an event: a process's stay at or above the tracking band",
    ("UNIQUE (event)",),
    (
        # One process has at most one open event, whatever dies when.
        "CREATE UNIQUE INDEX process_events_open ON process_events (boot_id, pid, start_ticks) "
        "WHERE exit_time IS NULL",
        "CREATE INDEX process_events_entry ON process_events (entry_time)",
        "CREATE INDEX process_events_exit ON process_events (exit_time)",
    ),
)

_IN_SNAPSHOT = tuple(
    f for f in EVENT
    if f.name in _BY_NAME or f.name.endswith(("_low", "_high"))
)

PROCESS_SNAPSHOTS = Table(
    "process_snapshots",
    (
        _c("id", int, "", "number of the snapshot"),
        _c("event_id", int, "", "the event", True),
        _c("snapshot_type", str, "", "enter, band, peak, checkpoint or exit", True),
        _c("captured_at", float, "s", "epoch seconds", True),
        *_IN_SNAPSHOT,
    ),
    "the whole row of a process at a moment of its event, with the low and high of each metric over the ring",
    ("FOREIGN KEY (event_id) REFERENCES process_events (id) ON DELETE CASCADE",),
    ("CREATE INDEX process_snapshots_event ON process_snapshots (event_id, captured_at)",),
)

PAUSES = Table(
    "pauses",
    (
        _c("id", int, "", "number of the pause"),
        _c("pause", str, "", "its stable key", True),
        _c("boot_id", str, "", "identity of the boot", True),
        _c("start_time", float, "s", "epoch seconds of its beginning", True),
        _c("end_time", float, "s", "epoch seconds of its end", True),
        _c("duration_s", float, "s", "its length", True),
        _c("cause", str, "", "what was short", True),
        _c("unexplained_share", float, "1", "part of the total that no process seen explains"),
        _c("evidence", dict, "", "JSON: the readings by which the cause was decided"),
    ),
    "one row a pause of the machine",
    ("UNIQUE (pause)",),
    ("CREATE INDEX pauses_end ON pauses (end_time)",),
)

PAUSE_CULPRITS = Table(
    "pause_culprits",
    (
        _c("pause_id", int, "", "the pause", True),
        _c("rank", int, "", "1 for the one that used most", True),
        _c("pid", int, "", "process id", True),
        _c("start_ticks", int, "host ticks", "when the process started", True),
        _c("command", str, "", "its name"),
        _c("unit", str, "", "its unit of work"),
        _c("resource", str, "", "what it used"),
        _c("amount", float, "s or bytes", "how much"),
        _c("share", float, "1", "part of the machine's total"),
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

TABLES = (DAEMON_STATE, PROCESS_EVENTS, PROCESS_SNAPSHOTS, PAUSES, PAUSE_CULPRITS, MACHINE_MINUTES, COMMAND_MINUTES,
          *FORENSICS, *REAP)

VIEWS = {
    "v_open_events": """
        SELECT id, event, pid, command, cmdline, user, unit, entry_time,
               datetime(entry_time, 'unixepoch', 'localtime') AS since, last_seen - entry_time AS duration_s,
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
                   sum(coalesce(exit_time, last_seen) - entry_time) / 60 AS rogue_minutes
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
}
"""Views: one text for sqlite3, Datasette and rh-report."""
