"""The records of the readers and keepers: what rh-report and rh-prune print.

means the same here, at the highest score of the event in the record.
"""

from __future__ import annotations

from functools import partial

from rogue_hunter.schema.events import EXIT_REASONS, MACHINE_MINUTE, PAUSE
from rogue_hunter.schema.field import BANDS, Field
from rogue_hunter.schema.sampling import PROCESS

WATCH = ("running", "stale", "busy", "stopped", "hub")
"""running: rh-pipe writes. stale: it holds the database but has written nothing for a while. busy: another command
holds the database. stopped: no process does."""

_f = partial(Field, stage="report")

_PROCESS = {field.name: field for field in PROCESS}


def _process(*names: str) -> tuple[Field, ...]:
    """Fields of the process row, without the promise that they are there."""
    return tuple(_f(f.name, f.type, f.unit, f.doc, choices=f.choices) for f in map(_PROCESS.__getitem__, names))


AT_PEAK = _process(
    "cpu_percent", "memory_bytes", "disk_bytes_per_s", "gpu_ms_per_s", "wakeups_per_s",
    "run_delay_ms_per_s", "cpu_share", "gpu_share", "memory_share", "disk_share", "wakeups_share", "dominant_metrics")
"""What a report says of the snapshot with the highest score."""

_SHARE = _f("share", float, "1", "the share of the dominant resource")
_PEAK = (
    _f("peak_score", int, "0-100", "highest score", required=True),
    _f("peak_band", str, "", "its band", choices=BANDS),
    _f("peak_time", float, "s", "epoch seconds of the highest score"),
)
_CPU_SECONDS = _f("cpu_seconds", float, "s", "CPU time used between the first and the last snapshot of the events")
_IDENTITY = (
    _f("boot_id", str, "", "identity of the boot", required=True),
    _f("pid", int, "", "process id; never an identity by itself", required=True),
    _f("start_ticks", int, "host ticks", "when the process started, in the host's own unit since boot", required=True),
)

REPORT_EVENT = (
    _f("id", int, "", "number of the event in the database", required=True),
    _f("event", str, "", "the event's stable key, the same for all its records", required=True),
    *_IDENTITY,
    *_process("start_time", "ppid", "command", "exe", "cmdline", "cgroup", "uid", "user", "tty", "unit", "orphan_of",
             "model"),
    _f("entry_time", float, "s", "epoch seconds of the enter record", required=True),
    _f("exit_time", float, "s", "epoch seconds of the exit record; left out while the event is open"),
    _f("open", bool, "", "true while the event has not ended", required=True),
    _f("duration_s", float, "s", "how long it lasted, so far as it was watched", required=True),
    _f("reason", str, "", "why the event ended", choices=EXIT_REASONS),
    _f("last_seen", float, "s", "epoch seconds of its last snapshot"),
    _f("entry_score", int, "0-100", "score at the beginning"),
    _f("entry_band", str, "", "its band", choices=BANDS),
    *_PEAK,
    *_process("dominant_resource", "dominant_category"),
    _SHARE,
    *AT_PEAK,
    _CPU_SECONDS,
    _f("snapshots", list, "", "view event: its snapshots, in the order of time, as records report_snapshot"),
    _f("ranges", dict, "", "view event: metric -> {low, peak, high} over the whole event"),
)

REPORT_SNAPSHOT = (
    _f("id", int, "", "number of the snapshot in the database", required=True),
    _f("event_id", int, "", "the event", required=True),
    _f("snapshot_type", str, "", "enter, band, peak, checkpoint or exit", required=True),
    _f("captured_at", float, "s", "epoch seconds", required=True),
)
"""And every field of the process row, with the `_low` and `_high` of each metric."""

REPORT_PROCESS = (
    *_IDENTITY,
    *_process("command", "cmdline", "user"),
    _f("events", int, "", "its events in the period", required=True),
    _f("duration_s", float, "s", "time inside of them, within the period", required=True),
    _f("entry_time", float, "s", "epoch seconds of the first one's beginning", required=True),
    _f("last_seen", float, "s", "epoch seconds until which the last one was seen", required=True),
    _f("going", bool, "", "true when it was still at it at the last tick", required=True),
    _f("rank_points", float, "", "the number by which the worst is found: see rh-report(1)", required=True),
    *_PEAK,
    *_process("dominant_resource", "dominant_category"),
    _SHARE,
    *AT_PEAK,
    _CPU_SECONDS,
)

_ONE_OF = (
    _f("command", str, "", "the kernel's short name of the processes; left out with --by unit"),
    _f("unit", str, "", "with --by unit: the unit of work, or the command of those that have none"),
)

REPORT_COMMAND = (
    *_ONE_OF,
    _f("events", int, "", "their events in the period", required=True),
    _f("processes", int, "", "how many different processes they were", required=True),
    _f("open_events", int, "", "events that have not ended", required=True),
    _f("duration_s", float, "s", "time inside of events, within the period, summed over the processes", required=True),
    *_PEAK,
    *_process("dominant_resource", "dominant_category"),
    _CPU_SECONDS,
    _f("last_seen", float, "s", "epoch seconds until which one of them was last seen in an event", required=True),
)

_PERIOD = (
    _f("since", float, "s", "beginning of the period, epoch seconds", required=True),
    _f("until", float, "s", "end of the period, epoch seconds", required=True),
)
_WATCH = (
    _f("watch", str, "", "whether rh-pipe runs; stale: it writes nothing; busy: another command holds the database; "
       "hub: unknown, the history is from a hub",
       required=True, choices=WATCH),
    _f("last_tick", float, "s", "epoch seconds of the last tick written down"),
    _f("last_tick_age_s", float, "s", "time since then"),
    _f("answers", bool, "", "true if the running rh-pipe answered on its socket; otherwise the values are those that "
       "it wrote last, up to 10 s ago"),
    _f("processes", int, "", "processes at the last tick"),
)

WHY_CAUSES = ("cpu", "memory", "io", "gpu", "wakeups", "limit", "wait", "steal", "asleep", "stopped", "rogue-hunter",
              "rogue", "unknown")
"""What `why` can answer. io: storage. limit: held back by a limit of its own. wait: processes waited for another one
that used nothing. unknown: a delay without evidence of its cause. rogue: no longer used."""

WHY_KINDS = ("shortage", "limit", "wait", "device", "machine", "own", "use")
"""shortage: others waited for a resource. use: nothing waited; this is what used most. machine: no process is to
blame."""

VERDICTS = ("found", "use", "nothing", "no_evidence")
"""found: something was short. use: nothing waited, and what used most is named. nothing: nothing stood out.
no_evidence: there is no data about that time."""

_VERDICT = (
    _f("verdict", str, "", "whether there is an answer", required=True, choices=VERDICTS),
    _f("headline", str, "", "the answer as a sentence; names in it are made harmless for a terminal", required=True),
    _f("cause", str, "", "the first of the causes", choices=WHY_CAUSES),
    _f("kind", str, "", "its kind", choices=WHY_KINDS),
    _f("confidence", str, "", "how far it is known", choices=("measured", "inferred", "unknown")),
    _f("command", str, "", "the process that is named for it"),
    _f("name", str, "", "what people call that process: its script or module"),
    _f("pid", int, "", "its process id, or that of the unit's first process; never an identity by itself"),
    _f("start_ticks", int, "host ticks", "when that process started"),
    _f("causes", list, "", "the most likely first: cause, kind, resource, points (0-100), words, at, seconds, lost_s, "
       "confidence; name, command, pid, start_ticks, unit, user, cgroup, cmdline, processes, members, score of the one "
       "named; its amount (cores, bytes/s, bytes of memory), total and share, with the children_share of it, or "
       "waited_s in place of these where its I/O may not be read; used_s; who (the highest users, with the same "
       "fields), victims, and the readings", required=True),
    _f("victims", list, "", "the processes that waited most, for the first cause: name, pid, start_ticks, waited_s, "
       "pageins"),
    _f("resolution_s", float, "s", "nominal length of the slices of evidence: 5, or 60 for older history"),
    _f("own_cpu_percent", float, "%", "CPU use of rogue-hunter itself in that time; 100 = one core"),
)

REPORT_SUMMARY = (
    *_PERIOD,
    *_VERDICT,
    _f("events", int, "", "events in the period", required=True),
    _f("open_events", int, "", "those that have not ended", required=True),
    _f("rogue_processes", int, "", "how many different processes they were", required=True),
    _f("worst", list, "", "the processes of these events as records report_process; first those that "
       "the verdict names", required=True),
    _f("highest", dict, "", "when there is no event: the process with the highest score seen, and when"),
    *_WATCH,
)

REPORT_STATUS = (
    *_WATCH,
    _f("running", bool, "", "true when an rh-pipe holds the database", required=True),
    _f("pid", int, "", "the process that holds the database"),
    _f("started_at", float, "s", "epoch seconds of rh-pipe's start"),
    _f("stopped_at", float, "s", "epoch seconds of its orderly end"),
    _f("uptime_s", float, "s", "time since its start"),
    _f("hz", float, "1/s", "beats a second"),
    _f("model", str, "", "scoring model", choices=("share", "stress")),
    _f("ticks", int, "", "ticks since its start"),
    _f("self_cpu_percent", float, "%", "CPU use of rogue-hunter itself; 100 = one core"),
    _f("self_memory_bytes", int, "bytes", "memory of rogue-hunter itself"),
    _f("max_score", int, "0-100", "highest score at the last tick that was written; while rh-pipe runs"),
    _f("rogues", list, "", "the processes selected at the last tick, highest score first"),
    _f("unwaited", str, "", "which process has left most of its ended children unwaited for; left out below 50"),
    _f("open_events", int, "", "events that have not ended"),
    _f("events_today", int, "", "events that began today, local time"),
    _f("events_total", int, "", "all events in the database"),
    _f("oldest_event", float, "s", "epoch seconds of the oldest event's beginning"),
    _f("database", str, "", "path of the database", required=True),
    _f("database_bytes", int, "bytes", "size of its files"),
    _f("degraded", str, "", "why nothing can be written at the moment, or what else is wrong with the database; left "
       "out when all is well"),
    _f("dropped", int, "", "records lost since the start because they could not be written"),
    _f("version", str, "", "version of this command", required=True),
    _f("writer_version", str, "", "version of the rh-pipe that wrote last"),
    _f("schema_version", int, "", "version of the tables"),
    _f("sqlite_version", str, "", "version of the SQLite library", required=True),
    _f("python_version", str, "", "version of Python", required=True),
    _f("config_file", str, "", "the user's configuration file; left out if there is none"),
    _f("recorder", str, "", "what the flight recorder records: all processes, those of this user, nothing; left out "
       "where there is none", choices=("system", "own", "off")),
    _f("recorder_why", str, "", "why it records no more"),
    _f("recorder_more", str, "", "how to get more"),
    _f("recorder_bytes", int, "bytes", "memory of its rings"),
)

REPORT_PAUSE = (
    _f("id", int, "", "number of the pause in the database", required=True),
    *(_f(f.name, f.type, f.unit, f.doc, required=f.required, choices=f.choices) for f in PAUSE if f.name != "ts"),
    _f("cpu_shares", list, "", "view pause: who had each CPU during it, as records cpu_share"),
    _f("stacks", list, "", "view pause: the stacks seen on the CPUs during it, as records stack"),
)

REPORT_OFFENDER = (
    *_ONE_OF,
    _f("pause_minutes", float, "min", "minutes of pause that it owes: of each pause, its share of what was short",
       required=True),
    _f("pause_share", float, "1", "part of the time of all pauses of the period"),
    _f("pauses", int, "", "pauses in which it is named", required=True),
    _f("longest_s", float, "s", "the longest of them"),
    _f("events", int, "", "its events in the period", required=True),
    _f("rogue_minutes", float, "min", "time inside of them, within the period", required=True),
    _f("peak_score", int, "0-100", "highest score in them"),
    _f("last_seen", float, "s", "epoch seconds of the end of its last pause or event", required=True),
)

REPORT_MINUTE = (
    *(_f(f.name, f.type, f.unit, f.doc, required=f.required) for f in MACHINE_MINUTE),
    _f("commands", list, "", "the top commands of the minute as in command_minute, by CPU time", required=True),
)

REPORT_USAGE = (
    _f("command", str, "", "the kernel's short name of the processes", required=True),
    _f("cpu_seconds", float, "s", "CPU time"),
    _f("disk_bytes", int, "bytes", "bytes read and written"),
    _f("memory_bytes", int, "bytes", "memory of all its processes, in the highest minute"),
    _f("gpu_seconds", float, "s", "GPU time"),
    _f("wakeups", int, "", "wakeups"),
    _f("run_delay_s", float, "s", "time spent waiting for a CPU"),
    _f("minutes", int, "", "minutes in which it was among the top commands; only those are counted", required=True),
    _f("max_score", int, "0-100", "highest score"),
    _f("peak_minute", float, "s", "epoch seconds of the minute in which it used most", required=True),
    _f("pid", int, "", "one of its processes in that minute"),
)

RECORDED = ("limit", "jetsam", "crash", "hang", "panic", "reset", "sleep", "wake", "report")
"""What macOS itself recorded: a process over a limit, a kill for memory, a crash, a hang, a panic, a reset by the power
button or a watchdog, sleep and wake, another report."""
TIMELINE = ("pause", "enter", "exit", "asleep", "action", *RECORDED)
"""The kind of a line of the timeline."""

REPORT_TIMELINE = (
    _f("ts", float, "s", "epoch seconds", required=True),
    _f("end_ts", float, "s", "epoch seconds of its end, of what macOS recorded"),
    _f("what", str, "", "a pause began; a process entered or left the tracking band; the machine slept; "
       "the reaper signalled a process; or what macOS recorded: a process over a limit, a kill for memory (jetsam), a "
       "crash, a hang, a panic, a reset, sleep, wake, another report",
       required=True, choices=TIMELINE),
    _f("detail", str, "", "in a few words"),
    _f("command", str, "", "the first culprit, or the process"),
    _f("score", int, "0-100", "at the beginning of an event; at its end the peak"),
    _f("id", int, "", "number of the pause, the event or the action"),
    _f("pid", int, "", "process id, of what macOS recorded"),
    _f("file", str, "", "the report of macOS"),
)

REPORT_WHY = (
    *_PERIOD,
    _f("at", float, "s", "the point of time that was asked for"),
    *_VERDICT,
    _f("not_causes", list, "", "what it was not: cause, words, and the numbers", required=True),
    _f("pauses", list, "", "pauses in the period, as records report_pause", required=True),
    _f("minutes", int, "", "minutes of history in the period", required=True),
    _f("watched_s", float, "s", "time that their ticks cover", required=True),
    _f("recorded", list, "", "what macOS itself recorded in that time, as records report_timeline"),
    _f("usual_minutes", int, "", "how many other minutes the usual is the median of", required=True),
)

REPORT_ROW: tuple[Field, ...] = ()
"""Nothing is declared: the fields are the columns of the user's SELECT."""

CHANGES = ("up", "down", "new", "gone", "same")

REPORT_DIFF = (
    _f("command", str, "", "the kernel's short name of the processes", required=True),
    _f("change", str, "", "its highest band in the second recording is higher or lower; new, gone: it is in one only",
       required=True, choices=CHANGES),
    _f("bands", int, "", "by how many bands", required=True),
    *(_f(f"{name}_{side}", kind, unit, f"{doc} in the {which} recording", choices=choices)
      for side, which in (("a", "first"), ("b", "second"))
      for name, kind, unit, doc, choices in (
          ("band", str, "", "highest band", BANDS), ("score", int, "0-100", "highest score", ()),
          ("seconds", float, "s", "time in that band, summed over processes", ()),
          ("reason", str, "", "dominant resource or category at the highest score", ()))),
)

REPORT_DATASETTE = (
    _f("command", str, "", "the command line that starts Datasette on this database", required=True),
    _f("command_1_0", str, "", "the same for Datasette 1.0", required=True),
    _f("database", str, "", "path of the database", required=True),
    _f("metadata", str, "", "path of the packaged metadata; it fits databases of the usual name", required=True),
    _f("title", str, "", "Datasette's heading", required=True),
    _f("description", str, "", "what stands below it"),
    _f("databases", dict, "", "the canned queries, under this database's name: the record itself is metadata",
       required=True),
    _f("plugins", dict, "", "a dashboard, shown if the plugin datasette-dashboards is installed", required=True),
)

PRUNE = (
    _f("ts", float, "s", "epoch seconds of the run", required=True),
    _f("database", str, "", "path of the database", required=True),
    _f("dry_run", bool, "", "true when nothing was removed", required=True),
    _f("older_than_s", float, "s", "ended longer ago than this: removed", required=True),
    _f("max_bytes", int, "bytes", "size that the file was to get below", required=True),
    _f("removed", dict, "", "table -> rows removed from it; a table of which nothing was removed is left out",
       required=True),
    _f("before_bytes", int, "bytes", "size of the database's files before", required=True),
    _f("after_bytes", int, "bytes", "size of them afterwards; with dry_run an estimate", required=True),
    _f("below_limit", bool, "", "true when that is not above max_bytes", required=True),
    _f("events_left", int, "", "events that remain", required=True),
    _f("open_events", int, "", "those of them that are open: they are never removed", required=True),
    _f("oldest_event", float, "s", "epoch seconds of the oldest remaining event's beginning"),
)

RECORDS: dict[str, tuple[Field, ...]] = {
    "report_summary": REPORT_SUMMARY,
    "report_process": REPORT_PROCESS,
    "report_event": REPORT_EVENT,
    "report_snapshot": REPORT_SNAPSHOT,
    "report_command": REPORT_COMMAND,
    "report_status": REPORT_STATUS,
    "report_pause": REPORT_PAUSE,
    "report_why": REPORT_WHY,
    "report_timeline": REPORT_TIMELINE,
    "report_offender": REPORT_OFFENDER,
    "report_minute": REPORT_MINUTE,
    "report_usage": REPORT_USAGE,
    "report_row": REPORT_ROW,
    "report_diff": REPORT_DIFF,
    "report_datasette": REPORT_DATASETTE,
    "prune": PRUNE,
}

SUMMARY: dict[str, str] = {
    "report_summary": "who hogs the machine: the worst process of a period first",
    "report_process": "one process of a summary, with all its events of the period",
    "report_event": "one event of the history",
    "report_snapshot": "one snapshot of an event: its fields and those of the process row, with low and high",
    "report_command": "the events of all processes of one name, or one unit of work, in a period",
    "report_status": "whether rh-pipe runs, and how it is",
    "report_pause": "one pause of the machine with its culprits",
    "report_why": "why the machine was slow at a time",
    "report_timeline": "one moment of the history",
    "report_offender": "the minutes of pause that a command, or a unit of work, owes",
    "report_minute": "the machine in one minute, and its top commands",
    "report_usage": "what the processes of one name used in a period",
    "report_row": "one row of a query of the user's own: its columns are its fields",
    "report_diff": "a command whose highest band differs between two recordings",
    "report_datasette": "how to start Datasette, and the metadata that it wants",
    "prune": "what rh-prune removed",
}
