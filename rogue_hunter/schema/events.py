"""The records of tracking: events, pauses, and the minutes of machine and commands."""

from __future__ import annotations

from dataclasses import replace

from rogue_hunter.schema.field import BANDS, Field
from rogue_hunter.schema.sampling import METRICS, SNAPSHOT
from rogue_hunter.schema.slices import MACHINE_SLICE

_f = Field

EVENT_KINDS = ("enter", "band", "peak", "checkpoint", "exit")
EXIT_REASONS = ("below_threshold", "exited", "replaced", "stopped", "crashed")

_EVENT_HEAD = (
    _f("ts", float, "s", "epoch seconds of what happened", stage="track", required=True),
    _f("kind", str, "", "what happened", stage="track", required=True, choices=EVENT_KINDS),
    _f("event", str, "", "the event's stable key, the same for all its records", stage="track", required=True),
    _f("boot_id", str, "", "identity of the boot", stage="track", required=True),
    _f("entered", float, "s", "epoch seconds at which the score first reached the tracking band; the enter record "
       "comes when it has stayed there", stage="track", required=True),
    _f("duration_s", float, "s", "measured time from then to the last tick at or above the band", stage="track",
       required=True),
    _f("scope", str, "", "process: of this process alone; unit: of all processes of its unit together, with their sums "
       "and the identity of the process at the root", stage="track", choices=("process", "unit")),
    _f("processes", int, "", "processes of the unit that had a score, with scope unit", stage="track"),
    _f("peak_score", int, "0-100", "highest score so far", stage="track", required=True),
    _f("peak_band", str, "", "its band", stage="track", required=True, choices=BANDS),
    _f("reason", str, "", "why the event ended", stage="track", choices=EXIT_REASONS),
)


def _names(fields: tuple[Field, ...]) -> set[str]:
    return {f.name for f in fields}


_RANGES = tuple(
    Field(f.name + tail, f.type, f.unit, f"{word} value over the ring", "track", f.platforms)
    for f in METRICS for tail, word in (("_low", "lowest"), ("_high", "highest"))
)

EVENT = (*_EVENT_HEAD, *(f for f in SNAPSHOT if f.name not in _names(_EVENT_HEAD)), *_RANGES)

CAUSES = ("cpu", "memory", "io", "steal", "stopped", "throttled", "unknown")

PAUSE = (
    _f("ts", float, "s", "epoch seconds when the pause was known", stage="pause", required=True),
    _f("pause", str, "", "the pause's stable key", stage="pause", required=True),
    _f("boot_id", str, "", "identity of the boot", stage="pause", required=True),
    _f("start", float, "s", "epoch seconds of its beginning", stage="pause", required=True),
    _f("end", float, "s", "epoch seconds of its end", stage="pause", required=True),
    _f("duration_s", float, "s", "how long the machine did not let the beat run, or all tasks waited", stage="pause",
       required=True),
    _f("cause", str, "", "what was short: cpu, memory, io; steal: the hypervisor ran others; stopped: only the toolkit "
       "itself was stopped; throttled: the CPU quota of its own control group kept it from running; unknown: no "
       "evidence", stage="pause", required=True, choices=CAUSES),
    _f("culprits", list, "", "who used what was short, as the verdict about that time has it: pid, start_ticks, "
       "command, name, unit, processes, resource, amount (s or bytes), share of the machine's total", stage="pause",
       required=True),
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
    *(replace(f, stage="minutes", doc=f.doc.replace("slice", "minute")) for f in MACHINE_SLICE if f.name in (
        "run_delay_ms_per_s", "pressure_memory_some_ms_per_s", "pressure_io_some_ms_per_s", "device_bytes",
        "device_requests_s", "device_wait_ms", "refaults", "direct_reclaims", "oom_kills", "clock_step_s", "continued",
        "self_run_delay_ms", "self_throttled_ms", "unreadable", "uninterruptible")),
)
"""With everything that the verdict asks a slice for."""

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

RECORDS: dict[str, tuple[Field, ...]] = {
    "event": EVENT, "pause": PAUSE, "machine_minute": MACHINE_MINUTE, "command_minute": COMMAND_MINUTE,
}

SUMMARY: dict[str, str] = {
    "event": "one moment of a process's stay at or above the tracking band",
    "pause": "a stretch in which the machine did not let the beat run, or all tasks waited",
    "machine_minute": "the machine in one minute",
    "command_minute": "a command in one minute, if it was among the highest in something",
}
