"""The records of rh-pipe's socket besides the ticks, of rh-service, and the head of a message from rh-ship to a hub."""

from __future__ import annotations

from functools import partial

from rogue_hunter.schema.field import Field

LEVELS = ("debug", "info", "warning", "error")
STATES = ("running", "stopped", "failed", "starting", "stopping", "unknown")

_f = partial(Field, stage="pipe")
_ship = partial(Field, stage="ship")

INITIAL_STATE = (
    _f("ts", float, "s", "epoch seconds of the last tick; left out before the first"),
    _f("pid", int, "", "process id of rh-pipe", required=True),
    _f("version", str, "", "its version", required=True),
    _f("started_at", float, "s", "epoch seconds of its start", required=True),
    _f("hz", float, "1/s", "beats a second, as configured", required=True),
    _f("slowed", int, "", "the rate of beats is divided by this, to stay within the CPU budget", required=True),
    _f("model", str, "", "scoring model", required=True, choices=("share", "stress")),
    _f("database", str, "", "path of the database", required=True),
    _f("degraded", str, "", "why nothing can be written at present, or another problem of the database; left "
       "out if there is none"),
    _f("dropped", int, "", "records lost since the start because they could not be written"),
    _f("config_file", str, "", "the configuration file; left out if there is none"),
    _f("config_error", str, "", "why the current file is not in use"),
    _f("self_cpu_percent_average", float, "%", "CPU use of rh-pipe over the last minute; 100 = one core"),
    _f("host", str, "", "host name"),
    _f("boot_id", str, "", "identity of this boot"),
    _f("os", str, "", "linux or macos"),
    _f("cpus", int, "", "CPUs online"),
    _f("memory_total_bytes", int, "bytes", "memory of the machine"),
    _f("events", list, "", "open events: event, identity, command, name, unit, scope, processes, user, entered, "
       "peak_score, peak_band, band", required=True),
    _f("history", list, "", "the last ticks, oldest first: ts, max_score", required=True),
)

DROPPED = (
    _f("ticks", int, "", "ticks dropped at this point, because this client was slow", required=True),
    _f("total", int, "", "all ticks dropped for this client", required=True),
)

LOG = (
    _f("ts", float, "s", "epoch seconds; left out by a client"),
    _f("level", str, "", "severity", required=True, choices=LEVELS),
    _f("source", str, "", "the command that logs it"),
    _f("message", str, "", "the message", required=True),
    _f("pid", int, "", "process id of the client, from the kernel"),
    _f("lost", int, "", "entries before this one that could not be written"),
)

PRUNE_REQUEST = (
    _f("older_than_s", float, "s", "remove history that ended longer ago than this", required=True),
    _f("max_bytes", int, "bytes", "then remove the oldest until the file is not larger", required=True),
    _f("database", str, "", "the database to prune; an rh-pipe with another database refuses"),
)

SLICES = (
    _f("ts", float, "s", "epoch seconds", required=True),
    _f("records", list, "", "the records machine_slice, process_slice, group_slice, wait, limit and pause of the last "
       "complete slices and of the running one, oldest first", required=True),
)

PROCESSES_REQUEST = (
    _f("limit", int, "", "send at most so many processes: those with the highest scores, then the most CPU, then the "
       "most memory", required=True),
    _f("filter", str, "", "only those that have this text, in any case, in their name, command, arguments, user, unit "
       "or pid"),
)

PROCESSES = (
    _f("ts", float, "s", "epoch seconds of the last tick; left out before the first"),
    _f("total", int, "", "processes in that tick", required=True),
    _f("filter", str, "", "the filter of the request"),
    _f("rows", list, "", "the fields of process records without ts, seq and age_s; a command line is cut to 400 "
       "characters", required=True),
)

SERVICE = (
    _f("manager", str, "", "the service manager", required=True, choices=("systemd", "launchd")),
    _f("name", str, "", "its name there", required=True),
    _f("file", str, "", "the unit or property list", required=True),
    _f("installed", bool, "", "true if that file exists", required=True),
    _f("current", bool, "", "true if the file is what install would write"),
    _f("enabled", bool, "", "true if it starts at login"),
    _f("state", str, "", "state by the manager", required=True, choices=STATES),
    _f("pid", int, "", "its process"),
    _f("exit_code", int, "", "the last exit code, if it is not running"),
    _f("signal", str, "", "macOS: the signal that ended it last, for example Killed: 9"),
    _f("exit_reason", str, "", "macOS: why launchd or the kernel ended it, for example JETSAM_REASON_MEMORY_HIGHWATER"),
    _f("runs", int, "", "macOS: how often it was started since it was loaded"),
    _f("says", str, "", "the status line of rh-pipe, or the state in the words of the manager"),
    _f("sudoers", bool, "", "macOS: true if the rule for tailspin is installed"),
    _f("tailspin", bool, "", "macOS: true if the system records the trace that captures save; it is off by default"),
)

FLEET_BATCH = (
    _ship("row", int, "ms", "number of the message: `sent` in milliseconds", required=True),
    _ship("host_id", str, "", "identity of the host; the subject of the message has the same", required=True),
    _ship("sent", float, "s", "epoch seconds by the clock of the host when the message was sent", required=True),
    _ship("minute", int, "s", "epoch seconds until which rows that are complete are in it", required=True),
    _ship("host", str, "", "host name"),
    _ship("boot_id", str, "", "the present boot of the host: two at the same time are two machines with one identity"),
    _ship("os", str, "", "linux or macos"),
    _ship("os_version", str, "", "release of the kernel"),
    _ship("version", str, "", "version of rh-ship"),
    _ship("redacted", int, "", "texts in which a secret was masked only when they were sent", required=True),
    _ship("tables", dict, "", "table -> {base, after, through, rows}: all `rows` rows after `after` up to and with "
       "`through` are in the message, and all before were sent; `base` is where this host began", required=True),
)

RECORDS: dict[str, tuple[Field, ...]] = {
    "initial_state": INITIAL_STATE,
    "dropped": DROPPED,
    "log": LOG,
    "prune_request": PRUNE_REQUEST,
    "slices_request": (),
    "slices": SLICES,
    "processes_request": PROCESSES_REQUEST,
    "processes": PROCESSES,
    "service": SERVICE,
    "fleet_batch": FLEET_BATCH,
}

SUMMARY: dict[str, str] = {
    "initial_state": "the first record that a client of the socket receives",
    "dropped": "a gap: ticks that were not sent to a slow client",
    "log": "an entry of the log; a client may send one",
    "prune_request": "a request of rh-prune to rh-pipe; answered with a record prune",
    "slices_request": "a request for the slices in memory; answered with a record slices",
    "slices": "the slices of the last two minutes",
    "processes_request": "a request for the processes of the last tick; answered with a record processes",
    "processes": "processes of the last tick, in one record",
    "service": "rh-pipe as a service: what rh-service status prints",
    "fleet_batch": "the head of a message from rh-ship: whose rows follow, and which; each of them is a record of "
                   "its own type with its number in the database, `row`",
}
