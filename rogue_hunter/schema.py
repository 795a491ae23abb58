"""Every record type and every field, declared once.

The wire format, the SQL columns, the packaged JSON Schemas and the field tables of rogue-hunter(5) are all made
from these declarations; a test compares each with what is committed.

A field is known or unknown. Unknown is a missing key on the wire, a missing key in memory and NULL in SQL; a zero was
measured. The unit stands in the name (`_bytes`, `_per_s`, `_ms_per_s`, `_total` for a counter that only grows).
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 1
"""The `v` of every record. A reader refuses a higher one (exit 65)."""

STATES = ("running", "sleeping", "uninterruptible", "stopped", "defunct", "idle", "halted")
BANDS = ("low", "medium", "elevated", "high", "critical")
RESOURCES = ("cpu", "gpu", "memory", "disk", "wakeups")
CATEGORIES = ("blocking", "contention", "pressure", "efficiency")

Key = tuple[int, int]
"""(pid, start_ticks): one process of one boot. A pid alone never identifies a process."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    `type` is int, float, str, bool, list or dict; `sql` follows from it. `stage` names what adds the field.
    `metric` marks a number whose lowest and highest values over the ring are kept with each snapshot.
    """

    name: str
    type: type
    unit: str
    doc: str
    stage: str = "sample"
    platforms: str = "linux macos"
    metric: bool = False
    required: bool = False
    choices: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The column's declared type."""
        return {int: "INTEGER", bool: "INTEGER", float: "REAL"}.get(self.type, "TEXT")


def _f(name: str, kind: type, unit: str, doc: str, **more: object) -> Field:
    return Field(name, kind, unit, doc, **more)  # type: ignore[arg-type]


def _m(name: str, kind: type, unit: str, doc: str, **more: object) -> Field:
    return Field(name, kind, unit, doc, metric=True, **more)  # type: ignore[arg-type]


_IDENTITY = (
    _f("pid", int, "", "process id; never an identity by itself", required=True),
    _f("start_ticks", int, "host ticks", "when the process started, in the host's own unit: clock ticks since boot "
       "(Linux), microseconds since the epoch (macOS)", required=True),
    _f("start_time", float, "s", "when the process started, epoch seconds"),
    _f("ppid", int, "", "parent's process id; 0 when the parent is outside of the pid namespace"),
    _f("uid", int, "", "effective user id"),
    _f("user", str, "", "name of uid"),
    _f("command", str, "", "the kernel's short name of the process; any bytes, chosen by the process itself"),
    _f("exe", str, "", "path of the program"),
    _f("cmdline", str, "", "arguments, as the process wants them seen; secrets redacted, 4 KiB at most"),
    _f("cgroup", str, "", "control group path", platforms="linux"),
    _f("tty", str, "", "controlling terminal"),
    _f("session", int, "", "session id: pid of the session's leader", platforms="linux"),
    _f("orphan_of", str, "", "the parent that died, `command[pid]`, and the unit of work it belonged to"),
    _f("unit", str, "", "unit of work: container:ID, a systemd service or scope, an app, or the topmost process below "
       "a shell or service manager, `command[pid]`"),
)

_STATE = (
    _f("state", str, "", "state in the field's words", choices=STATES),
    _f("state_raw", str, "", "state as the kernel prints it"),
    _m("priority", int, "", "scheduling priority of the kernel"),
    _f("nice", int, "", "nice value"),
    _m("threads", int, "", "number of threads"),
    _f("age_s", float, "s", "ts - start_time; added when the row is written"),
)

_CPU = (
    _f("cpu_seconds_total", float, "s", "CPU time used, user and system"),
    _f("cpu_user_seconds_total", float, "s", "CPU time used in user mode"),
    _f("cpu_system_seconds_total", float, "s", "CPU time used in the kernel"),
    _f("children_cpu_seconds_total", float, "s", "CPU time of children that ended and were waited for"),
    _m("cpu_percent", float, "%", "CPU use of the interval; 100 = one core"),
    _m("children_cpu_percent", float, "%", "CPU use, in the interval, of children that ended in it, as far as it was "
       "not seen in rows of their own; at most all cores"),
)

_MEMORY = (
    _m("memory_bytes", int, "bytes", "memory held: physical footprint (macOS), resident set (Linux)"),
    _f("memory_peak_bytes", int, "bytes", "highest memory held so far"),
    _f("pageins_total", int, "", "page-ins: faults that needed the disk (major faults)"),
    _m("pageins_per_s", float, "1/s", "page-ins of the interval"),
    _f("faults_total", int, "", "all page faults, minor and major"),
    _m("faults_per_s", float, "1/s", "page faults of the interval"),
)

_DISK = (
    _f("disk_read_bytes_total", int, "bytes", "bytes fetched from storage"),
    _f("disk_write_bytes_total", int, "bytes", "bytes sent to storage, cancelled writes not subtracted"),
    _m("disk_bytes_per_s", float, "bytes/s", "bytes read and written of the interval"),
)

_ACTIVITY = (
    _f("context_switches_total", int, "", "context switches, voluntary and involuntary"),
    _m("context_switches_per_s", float, "1/s", "context switches of the interval"),
    _f("syscalls_total", int, "", "system calls, Mach and Unix", platforms="macos"),
    _m("syscalls_per_s", float, "1/s", "system calls of the interval", platforms="macos"),
    _f("mach_messages_total", int, "", "Mach messages sent and received", platforms="macos"),
    _m("mach_messages_per_s", float, "1/s", "Mach messages of the interval", platforms="macos"),
)

_EFFICIENCY = (
    _f("instructions_total", int, "", "instructions retired", platforms="macos"),
    _f("cycles_total", int, "", "CPU cycles", platforms="macos"),
    _m("ipc", float, "1", "instructions per cycle of the interval", platforms="macos"),
)

_POWER = (
    _f("wakeups_total", int, "", "wakeups: interrupt wakeups (macOS); voluntary context switches of the main thread "
       "(Linux), each of which ends in one wakeup"),
    _m("wakeups_per_s", float, "1/s", "wakeups of the interval"),
    _f("energy_joules_total", float, "J", "energy used", platforms="macos"),
    _m("energy_watts", float, "W", "power of the interval", platforms="macos"),
)

_CONTENTION = (
    _f("run_delay_seconds_total", float, "s", "time spent ready to run but waiting for a CPU"),
    _m("run_delay_ms_per_s", float, "ms/s", "run delay of the interval"),
    _f("qos_interactive_seconds_total", float, "s", "CPU time at the user-interactive quality of service",
       platforms="macos"),
    _m("qos_interactive_ms_per_s", float, "ms/s", "the same, of the interval", platforms="macos"),
)

_GPU = (
    _f("gpu_seconds_total", float, "s", "GPU time used"),
    _m("gpu_ms_per_s", float, "ms/s", "GPU time of the interval"),
)

_SCORE = (
    _f("model", str, "", "scoring model", stage="score", choices=("share", "stress")),
    _m("score", int, "0-100", "how rogue the process is", stage="score"),
    _f("band", str, "", "the score's band", stage="score", choices=BANDS),
    _m("disproportionality", float, "x", "largest weighted multiple of the fair share", stage="score"),
    _f("dominant_resource", str, "", "the resource of that multiple", stage="score", choices=RESOURCES),
    _m("cpu_share", float, "1", "part of the CPU use of all processes (or of the floor, if larger)", stage="score"),
    _m("gpu_share", float, "1", "part of the GPU time", stage="score"),
    _m("memory_share", float, "1", "part of the memory, times its scarcity", stage="score"),
    _m("disk_share", float, "1", "part of the disk traffic", stage="score"),
    _m("wakeups_share", float, "1", "part of the wakeups", stage="score"),
    _m("blocking_score", float, "0-100", "stress model: what makes others wait", stage="score"),
    _m("contention_score", float, "0-100", "stress model: fighting for the CPU", stage="score"),
    _m("pressure_score", float, "0-100", "stress model: load on the system", stage="score"),
    _m("efficiency_score", float, "0-100", "stress model: work wasted", stage="score"),
    _f("dominant_category", str, "", "stress model: the category with the most points", stage="score",
       choices=CATEGORIES),
    _f("dominant_metrics", list, "", "stress model: that category's largest inputs, `name:value`", stage="score"),
    _f("terms", list, "", "with --explain: what each resource or input contributed", stage="score"),
)

_STAMP = (
    _f("ts", float, "s", "epoch seconds of the tick", required=True),
    _f("seq", int, "", "number of the tick since the sampler started", required=True),
)

PROCESS = (*_STAMP, *_IDENTITY, *_STATE, *_CPU, *_MEMORY, *_DISK, *_ACTIVITY, *_EFFICIENCY, *_POWER, *_CONTENTION,
           *_GPU, *_SCORE)

TICK = (
    *_STAMP,
    _f("mono_ns", int, "ns", "monotonic clock of the reading", required=True),
    _f("host", str, "", "host name"),
    _f("boot_id", str, "", "identity of this boot; with pid and start_ticks it identifies a process for ever",
       required=True),
    _f("os", str, "", "linux or macos", required=True),
    _f("interval_s", float, "s", "measured time since the tick before", required=True),
    _f("late_s", float, "s", "how much later than due the tick was taken", required=True),
    _f("asleep_s", float, "s", "how long the machine was suspended since the tick before"),
    _f("clock_step_s", float, "s", "by how much the wall clock was set since the tick before, if by 0.5 s or more"),
    _f("continued", int, "", "times that the toolkit itself was stopped and continued since the tick before"),
    _f("cpus", int, "", "CPUs online"),
    _f("cpu_busy_cores", float, "cores", "CPU use of the whole machine in the interval"),
    _f("cpu_steal_cores", float, "cores", "CPUs that the hypervisor gave to others", platforms="linux"),
    _f("cpu_counted_cores", float, "cores", "CPU time that the kernel accounted for, idle included; far below cpus "
       "when the machine itself stood still", platforms="linux"),
    _f("memory_total_bytes", int, "bytes", "memory of the machine"),
    _f("memory_available_bytes", int, "bytes", "memory that can be had without swapping"),
    _f("pressure_cpu_some_ms_per_s", float, "ms/s", "time in which some task waited for a CPU", platforms="linux"),
    _f("pressure_memory_some_ms_per_s", float, "ms/s", "time in which some task waited for memory", platforms="linux"),
    _f("pressure_memory_full_ms_per_s", float, "ms/s", "time in which all tasks waited for memory", platforms="linux"),
    _f("pressure_io_some_ms_per_s", float, "ms/s", "time in which some task waited for storage", platforms="linux"),
    _f("pressure_io_full_ms_per_s", float, "ms/s", "time in which all tasks waited for storage", platforms="linux"),
    _f("processes", int, "", "processes seen", required=True),
    _f("active", int, "", "processes that ran in the interval", required=True),
    _f("started", int, "", "processes first seen in this tick", required=True),
    _f("exited", int, "", "processes gone since the tick before", required=True),
    _f("unreadable", int, "", "processes of which something may not be read", required=True),
    _f("errors", int, "", "readings that failed or could not be parsed", required=True),
    _f("unattributed_cpu_cores", float, "cores", "busy cores minus the sum of all processes seen"),
    _f("self_cpu_percent", float, "%", "CPU use of rogue-hunter itself; 100 = one core"),
    _f("self_run_delay_ms", float, "ms", "how long the sampling thread waited for a CPU in the interval",
       platforms="linux"),
    _f("self_pageins", int, "", "page-ins of rogue-hunter itself in the interval"),
    _f("self_memory_bytes", int, "bytes", "memory of rogue-hunter itself"),
    _f("max_score", int, "0-100", "highest score of the tick", stage="score"),
)

EVENT_KINDS = ("enter", "band", "peak", "checkpoint", "exit")
EXIT_REASONS = ("below_threshold", "exited", "replaced", "stopped", "crashed")

_EVENT_HEAD = (
    _f("ts", float, "s", "epoch seconds of what happened", stage="track", required=True),
    _f("kind", str, "", "what happened", stage="track", required=True, choices=EVENT_KINDS),
    _f("event", str, "", "the event's stable key, the same for all its records", stage="track", required=True),
    _f("boot_id", str, "", "identity of the boot", stage="track", required=True),
    _f("entered", float, "s", "epoch seconds of the enter record", stage="track", required=True),
    _f("duration_s", float, "s", "time since the enter record", stage="track", required=True),
    _f("peak_score", int, "0-100", "highest score so far", stage="track", required=True),
    _f("peak_band", str, "", "its band", stage="track", required=True, choices=BANDS),
    _f("reason", str, "", "why the event ended", stage="track", choices=EXIT_REASONS),
)


def _names(fields: tuple[Field, ...]) -> set[str]:
    return {f.name for f in fields}


METRICS = tuple(f for f in PROCESS if f.metric)
"""The numbers of a process whose low and high over the ring a snapshot carries."""

_RANGES = tuple(
    Field(f.name + tail, f.type, f.unit, f"{word} value over the ring", "track", f.platforms)
    for f in METRICS for tail, word in (("_low", "lowest"), ("_high", "highest"))
)

SNAPSHOT = tuple(f for f in PROCESS if f.name not in ("ts", "seq", "terms"))
"""The process fields that an event record carries."""

EVENT = (*_EVENT_HEAD, *(f for f in SNAPSHOT if f.name not in _names(_EVENT_HEAD)), *_RANGES)

CAUSES = ("cpu", "memory", "io", "steal", "stopped", "unknown")

PAUSE = (
    _f("ts", float, "s", "epoch seconds when the pause was known", stage="pause", required=True),
    _f("pause", str, "", "the pause's stable key", stage="pause", required=True),
    _f("boot_id", str, "", "identity of the boot", stage="pause", required=True),
    _f("start", float, "s", "epoch seconds of its beginning", stage="pause", required=True),
    _f("end", float, "s", "epoch seconds of its end", stage="pause", required=True),
    _f("duration_s", float, "s", "how long the machine did not let the beat run, or all tasks waited", stage="pause",
       required=True),
    _f("cause", str, "", "what was short: cpu, memory, io; steal: the hypervisor ran others; stopped: only the toolkit "
       "itself was stopped; unknown: no evidence", stage="pause", required=True, choices=CAUSES),
    _f("culprits", list, "", "who used what was short: pid, start_ticks, command, unit, resource, amount (s or bytes), "
       "share of the machine's total", stage="pause", required=True),
    _f("unexplained_share", float, "1", "part of the total that no process seen explains", stage="pause"),
    _f("evidence", dict, "", "the readings by which the cause was decided", stage="pause", required=True),
)

MACHINE_MINUTE = (
    _f("minute", int, "s", "epoch seconds at which the minute begins", stage="minutes", required=True),
    _f("boot_id", str, "", "identity of the boot", stage="minutes", required=True),
    _f("ticks", int, "", "ticks taken in the minute", stage="minutes", required=True),
    _f("seconds", float, "s", "time that these ticks cover", stage="minutes", required=True),
    _f("late_s", float, "s", "latest beat", stage="minutes"),
    _f("asleep_s", float, "s", "time suspended", stage="minutes"),
    _f("cpus", int, "", "CPUs online", stage="minutes"),
    _f("cpu_busy_cores", float, "cores", "CPU use, average", stage="minutes"),
    _f("cpu_busy_cores_max", float, "cores", "CPU use, highest tick", stage="minutes"),
    _f("cpu_steal_cores", float, "cores", "CPUs given to others by the hypervisor, average", stage="minutes"),
    _f("unattributed_cpu_cores", float, "cores", "busy cores that no process seen explains, average", stage="minutes"),
    _f("memory_total_bytes", int, "bytes", "memory of the machine", stage="minutes"),
    _f("memory_available_bytes", int, "bytes", "memory available, lowest tick", stage="minutes"),
    *(_f(f"pressure_{name}_ms_per_s", float, "ms/s", f"{words}, average", stage="minutes", platforms="linux")
      for name, words in (("cpu_some", "some task waited for a CPU"), ("memory_full", "all tasks waited for memory"),
                          ("io_full", "all tasks waited for storage"))),
    _f("disk_bytes", int, "bytes", "disk traffic of all processes seen", stage="minutes"),
    _f("processes", int, "", "processes, last tick", stage="minutes"),
    _f("started", int, "", "processes begun", stage="minutes"),
    _f("exited", int, "", "processes ended", stage="minutes"),
    _f("max_score", int, "0-100", "highest score", stage="minutes"),
    _f("pauses", int, "", "pauses that ended in the minute", stage="minutes"),
    _f("pause_s", float, "s", "their length", stage="minutes"),
    _f("self_cpu_percent", float, "%", "CPU use of rogue-hunter itself, average", stage="minutes"),
)

COMMAND_MINUTE = (
    _f("minute", int, "s", "epoch seconds at which the minute begins", stage="minutes", required=True),
    _f("command", str, "", "the command; all of its processes together", stage="minutes", required=True),
    _f("processes", int, "", "how many had this name", stage="minutes", required=True),
    _f("pid", int, "", "the one of them with the highest score, else the most CPU", stage="minutes"),
    _f("unit", str, "", "its unit of work", stage="minutes"),
    _f("cpu_seconds", float, "s", "CPU time, short-lived children included", stage="minutes"),
    _f("memory_bytes", int, "bytes", "memory at the end of the minute", stage="minutes"),
    _f("disk_bytes", int, "bytes", "bytes read and written", stage="minutes"),
    _f("gpu_seconds", float, "s", "GPU time", stage="minutes"),
    _f("wakeups", int, "", "wakeups", stage="minutes"),
    _f("run_delay_s", float, "s", "time spent waiting for a CPU", stage="minutes"),
    _f("max_score", int, "0-100", "highest score", stage="minutes"),
    _f("rogue_s", float, "s", "time at or above the tracking band", stage="minutes"),
)

BENCH = (
    _f("part", str, "", "what was measured", stage="bench", required=True),
    _f("meaning", str, "", "in words", stage="bench", required=True),
    _f("median_ms", float, "ms", "CPU time, median of the runs", stage="bench"),
    _f("mean_ms", float, "ms", "the same, their average", stage="bench"),
    _f("min_ms", float, "ms", "least", stage="bench"),
    _f("max_ms", float, "ms", "most", stage="bench"),
    _f("runs", int, "", "how often it was done", stage="bench"),
    _f("processes", int, "", "processes on the machine", stage="bench", required=True),
    _f("us_per_process", float, "us", "median by process", stage="bench"),
    _f("core_percent", float, "%", "of one core, when done at every beat", stage="bench"),
    _f("memory_bytes", int, "bytes", "resident memory at its highest", stage="bench"),
)

ERROR = (
    _f("stage", str, "", "the command that could not use the line", stage="any", required=True),
    _f("line", int, "", "number of the line in that command's input, from 1", stage="any"),
    _f("message", str, "", "what was wrong with it", stage="any", required=True),
)

RECORDS: dict[str, tuple[Field, ...]] = {"process": PROCESS, "tick": TICK, "event": EVENT, "error": ERROR,
                                         "pause": PAUSE, "machine_minute": MACHINE_MINUTE,
                                         "command_minute": COMMAND_MINUTE, "bench": BENCH}
"""Record type -> its fields, without `type` and `v`, which every record begins with."""

SUMMARY: dict[str, str] = {
    "process": "one process in one tick",
    "tick": "the closing row of a tick: the machine, and what the reading cost",
    "event": "one moment of a process's stay at or above the tracking band",
    "pause": "a stretch in which the machine did not let the beat run, or all tasks waited",
    "machine_minute": "the machine in one minute",
    "command_minute": "a command in one minute, if it was among the highest in something",
    "bench": "what one part of rogue-hunter costs on this machine",
    "error": "a line of input that is no record; nothing was done with it",
}

# Declared apart for the length of this file. They take Field from here, so they come last.
from rogue_hunter import schema_forensics, schema_reap, schema_report, schema_serve  # noqa: E402

for _more in (schema_forensics, schema_reap, schema_report, schema_serve):
    RECORDS.update(_more.RECORDS)
    SUMMARY.update(_more.SUMMARY)
