"""The records of the readers and keepers: what rh-report and rh-prune print.

Imported by rogue_hunter.schema only, which is the one place that names every record. A name that a process row has
means the same here, at the highest score of the event that the record tells of.
"""

from __future__ import annotations

from rogue_hunter.schema import BANDS, EXIT_REASONS, PROCESS, Field

WATCH = ("running", "stale", "busy", "stopped")
"""running: rh-pipe writes. stale: it holds the database but has written nothing for a while. busy: another command
holds the database. stopped: nobody does."""


def _f(name: str, kind: type, unit: str, doc: str, *, required: bool = False, choices: tuple[str, ...] = ()) -> Field:
    return Field(name, kind, unit, doc, "report", required=required, choices=choices)


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
    *_process("start_time", "ppid", "command", "exe", "cmdline", "cgroup", "uid", "user", "tty", "model"),
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

REPORT_COMMAND = (
    _f("command", str, "", "the kernel's short name of the processes", required=True),
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
    _f("watch", str, "", "whether rh-pipe runs; stale: it writes nothing; busy: another command holds the database",
       required=True, choices=WATCH),
    _f("last_tick", float, "s", "epoch seconds of the last tick written down"),
    _f("last_tick_age_s", float, "s", "time since then"),
    _f("processes", int, "", "processes at the last tick"),
)

REPORT_SUMMARY = (
    *_PERIOD,
    _f("headline", str, "", "the answer as a sentence; names in it are made harmless for a terminal", required=True),
    _f("events", int, "", "events in the period", required=True),
    _f("open_events", int, "", "those that have not ended", required=True),
    _f("rogue_processes", int, "", "how many different processes they were", required=True),
    _f("worst", list, "", "the processes of these events as records report_process, worst first", required=True),
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
    _f("rogues", list, "", "the processes selected at the last tick, highest score first"),
    _f("open_events", int, "", "events that have not ended"),
    _f("events_today", int, "", "events that began today, local time"),
    _f("events_total", int, "", "all events in the database"),
    _f("oldest_event", float, "s", "epoch seconds of the oldest event's beginning"),
    _f("database", str, "", "path of the database", required=True),
    _f("database_bytes", int, "bytes", "size of its files"),
    _f("degraded", str, "", "why nothing can be written at the moment; left out when all is well"),
    _f("dropped", int, "", "records lost since the start because they could not be written"),
    _f("version", str, "", "version of this command", required=True),
    _f("writer_version", str, "", "version of the rh-pipe that wrote last"),
    _f("schema_version", int, "", "version of the tables"),
    _f("sqlite_version", str, "", "version of the SQLite library", required=True),
    _f("python_version", str, "", "version of Python", required=True),
    _f("config_file", str, "", "the user's configuration file; left out when there is none"),
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
    "prune": PRUNE,
}

SUMMARY: dict[str, str] = {
    "report_summary": "who hogs the machine: the worst process of a period first",
    "report_process": "one process of a summary, with all its events of the period",
    "report_event": "one event of the history",
    "report_snapshot": "one snapshot of an event: its fields and those of the process row, with low and high",
    "report_command": "the events of all processes of one name in a period",
    "report_status": "whether rh-pipe runs, and how it is",
    "prune": "what rh-prune removed",
}
