"""The records of macOS's diagnostic reports: resource limits, memory kills, crashes, resets, and of its sleep log."""

from __future__ import annotations

from functools import partial

from rogue_hunter.schema.field import Field

RESOURCE_UNITS = ("cpu_seconds", "wakeups", "bytes")
"""What `amount` counts. `average` and `limit` are in percent of a core, wakeups a second, bytes a second."""
SLEEP_KINDS = ("sleep", "wake", "dark_wake")
TASK_SOURCES = ("powermetrics", "top", "taskinfo")
SUSPECT_REASONS = ("unresponsive", "target", "cpu", "memory")
"""unresponsive: it did not respond, by the report. target: the subject of the report. cpu: it used most of the CPU
time. memory: it held most of the memory."""

_f = partial(Field, stage="forensics", platforms="macos")

COUNTS = (
    _f("cycles", int, "", "CPU cycles while sampling"),
    _f("instructions", int, "", "instructions executed while sampling"),
    _f("cycles_per_instruction", float, "", "their ratio, as printed"),
)
MACHINE = (
    _f("advisory_levels", dict, "", "levels that macOS asks its background work to heed: name -> level"),
    _f("thermal_pressure", int, "", "of these, ThermalPressure: 0 nominal, higher is hotter"),
    _f("vnodes_available_percent", float, "%", "vnodes left"),
    _f("disk_free_bytes", int, "bytes", "free space of the disk"),
    _f("disk_total_bytes", int, "bytes", "its size"),
)
_CAPTURE = _f("capture", str, "", "key of the capture that this belongs to; absent for a report parsed from a file")
_NUMBER = _f("process", int, "", "number of the process in its report, from 1", required=True)
_TS = _f("ts", float, "s", "epoch seconds of the report, of its first sample if it has any")
_FILE = _f("file", str, "", "name of the file")
_WHO = (
    _f("pid", int, "", "process id"),
    _f("command", str, "", "name of the process"),
    _f("path", str, "", "path of its program"),
    _f("identifier", str, "", "bundle identifier"),
)
_RELATED = (
    _f("parent_pid", int, "", "parent's process id"),
    _f("parent_command", str, "", "parent's name"),
    _f("responsible_pid", int, "", "process id of the application on whose behalf it runs"),
    _f("responsible_command", str, "", "its name"),
)
_SYSTEM = (
    _f("os_version", str, "", "operating system and build"),
    _f("hardware", str, "", "hardware model"),
)
_FRAMES = _f("frames", list, "", "heaviest stack, innermost frame first")

RESOURCE_REPORT = (
    _CAPTURE, _TS,
    _f("end_ts", float, "s", "epoch seconds of its last sample"),
    _FILE,
    _f("event", str, "", "cpu usage, wakeups, disk writes; powerstats for a report without a limit"),
    _f("action_taken", str, "", "what macOS did: none, Process killed"),
    *_WHO,
    _f("team_id", str, "", "team that signed it"),
    _f("coalition", str, "", "the group of processes that is accounted together"),
    *_RELATED,
    _f("amount", float, "see unit", "what was counted: CPU seconds, wakeups, bytes dirtied"),
    _f("unit", str, "", "its unit", choices=RESOURCE_UNITS),
    _f("over_s", float, "s", "time in which it was counted"),
    _f("average", float, "%, 1/s or bytes/s", "average over that time"),
    _f("limit", float, "%, 1/s or bytes/s", "the limit that was exceeded"),
    _f("limit_over_s", float, "s", "time over which the limit counts"),
    _f("duration_s", float, "s", "time that the report covers"),
    _f("sampled_s", float, "s", "the part of it in which samples were taken"),
    _f("steps", int, "", "samples taken"),
    _f("step_bytes", float, "bytes", "disk writes: bytes that each sample stands for"),
    _FRAMES,
    _f("processes", int, "", "sections `Powerstats for:`", required=True),
    _f("report_version", str, "", "version of the report's format"),
    _f("data_source", str, "", "Microstackshots"),
    *_SYSTEM,
    _f("architecture", str, "", "machine's architecture"),
    _f("cpus", int, "", "active CPUs"),
    _f("memory_total_bytes", int, "bytes", "memory of the machine"),
    *MACHINE,
    _f("header", dict, "", "header lines without a field"),
    _f("lines", int, "", "lines read", required=True),
)

RESOURCE_PROCESS = (
    _CAPTURE, _NUMBER, *_WHO,
    _f("display_name", str, "", "name shown to people"),
    _f("uuid", str, "", "identity of the program's binary"),
    _f("version", str, "", "version of the program"),
    _f("team_id", str, "", "team that signed it"),
    _f("architecture", str, "", "architecture of the program"),
    *_RELATED,
    _f("thread_id", str, "", "the thread, if the section describes one"),
    _f("memory_bytes", int, "bytes", "physical footprint at the end"),
    _f("memory_before_bytes", int, "bytes", "the same at the beginning, if it changed"),
    _f("memory_peak_bytes", int, "bytes", "the highest in between"),
    _f("pageins_total", int, "", "page-ins"),
    _f("cpu_seconds", float, "s", "CPU time used"),
    *COUNTS,
    _f("start_ts", float, "s", "epoch seconds of its first sample"),
    _f("end_ts", float, "s", "epoch seconds of its last sample"),
    _f("samples", int, "", "samples of it"),
    _f("samples_percent", float, "%", "part of all samples of the report"),
    _f("primary_state", str, "", "the state of most samples: frontmost, suppressed, user or kernel mode, QoS"),
    _f("user_idle_samples", int, "", "samples while the user was idle"),
    _f("user_active_samples", int, "", "samples while the user was active"),
    _f("battery_samples", int, "", "samples on battery"),
    _f("ac_samples", int, "", "samples on AC power"),
    _FRAMES,
    _f("leaf", str, "", "innermost frame of the heaviest stack"),
)

JETSAM_REPORT = (
    _CAPTURE, _TS, _FILE,
    _f("reason", str, "", "why memory was short, or a process too big: that of the first victim"),
    _f("victims", list, "", "the processes that macOS killed: {pid, command, reason, memory_bytes}"),
    _f("largest_process", str, "", "the process that held most; not always the victim"),
    _f("page_bytes", int, "bytes", "size of a page"),
    *(_f(f"{name}_bytes", int, "bytes", doc) for name, doc in (
        ("free", "free memory"), ("active", "active memory"), ("inactive", "inactive memory"),
        ("wired", "wired memory"), ("anonymous", "memory without a file"), ("file_backed", "memory of files"),
        ("purgeable", "purgeable memory"), ("compressor", "memory that the compressor holds"))),
    *_SYSTEM,
    _f("processes", int, "", "processes listed", required=True),
)

JETSAM_PROCESS = (
    _CAPTURE, _NUMBER,
    _f("pid", int, "", "process id"),
    _f("command", str, "", "name of the process"),
    _f("memory_bytes", int, "bytes", "resident pages"),
    _f("memory_peak_bytes", int, "bytes", "the most that it held in its life"),
    _f("cpu_seconds", float, "s", "CPU time used so far"),
    _f("states", list, "", "frontmost, daemon, idle, suspended"),
    _f("reason", str, "", "why it was killed; absent for those that were not"),
    _f("coalition", int, "", "number of the group of processes that is accounted together"),
    _f("uuid", str, "", "identity of the program's binary"),
)

CRASH_REPORT = (
    _CAPTURE, _TS, _FILE, *_WHO,
    _f("version", str, "", "version of the program"),
    *_RELATED,
    _f("uid", int, "", "user id"),
    _f("start_ts", float, "s", "epoch seconds when it was started"),
    _f("exception", str, "", "type of the exception"),
    _f("signal", str, "", "the signal"),
    _f("termination", str, "", "why it was terminated"),
    _f("thread", int, "", "number of the thread that crashed"),
    _f("thread_name", str, "", "its name or queue"),
    _f("frames", list, "", "its stack, innermost frame first"),
    *_SYSTEM,
)

RESET_REPORT = (
    _CAPTURE, _TS, _FILE,
    _f("boot_faults", list, "", "what the hardware recorded of the last shutdown: btn_rst, wdog", required=True),
    _f("forced", bool, "", "true if the power button was held, so that the machine was switched off"),
    _f("watchdog", bool, "", "true if a watchdog reset the machine"),
    _f("reset_count", int, "", "resets counted"),
    *_SYSTEM,
)

SLEEP_WAKE = (
    _CAPTURE,
    _f("ts", float, "s", "epoch seconds, by the clock of then", required=True),
    _FILE,
    _f("kind", str, "", "the machine went to sleep, woke, or woke with the display dark", required=True,
       choices=SLEEP_KINDS),
    _f("reason", str, "", "why, as macOS logs it"),
    _f("duration_s", float, "s", "how long the state lasted, as far as the log says"),
    _f("power", str, "", "source of power", choices=("ac", "battery")),
    _f("charge_percent", int, "%", "charge of the battery"),
)

TASK = (
    _CAPTURE, _NUMBER,
    _f("source", str, "", "the program that printed it", required=True, choices=TASK_SOURCES),
    _f("ts", float, "s", "powermetrics: epoch seconds when its sample began"),
    _f("end_ts", float, "s", "powermetrics: epoch seconds when its sample ended"),
    _f("duration_s", float, "s", "powermetrics: duration of its sample"),
    _f("pid", int, "", "process id; absent for all processes that ended during the sample (DEAD_TASKS)"),
    _f("command", str, "", "name of the process", required=True),
    _f("parent_pid", int, "", "parent's process id"),
    _f("state", str, "", "its state, as top names it"),
    _f("age_s", float, "s", "time since it was started"),
    _f("threads", int, "", "its threads"),
    _f("cpu_percent", float, "%", "CPU usage, 100 is one core"),
    _f("cpu_seconds", float, "s", "CPU time used so far"),
    _f("wakeups_per_s", float, "1/s", "wakeups by interrupts"),
    _f("wakeups_total", int, "", "wakeups by interrupts so far"),
    _f("energy_impact", float, "", "energy, by the formula of powermetrics"),
    _f("memory_bytes", int, "bytes", "physical footprint"),
    _f("memory_peak_bytes", int, "bytes", "the most that it held in its life"),
    _f("cpu_limit_percent", float, "%", "CPU usage beyond which macOS writes a resource report"),
    _f("cpu_limit_over_s", float, "s", "time over which that limit counts"),
    _f("wakeups_limit", float, "1/s", "wakeups beyond which macOS writes a resource report"),
)

SUSPECT = (
    _CAPTURE,
    _f("reason", str, "", "why it is named", required=True, choices=SUSPECT_REASONS, platforms="linux macos"),
    _f("pid", int, "", "process id", platforms="linux macos"),
    _f("command", str, "", "name of the process", required=True, platforms="linux macos"),
    _f("thread_id", str, "", "its main thread"),
    _f("state", str, "", "state in which that thread was seen most often"),
    _f("leaf", str, "", "where it was: innermost frame of the heaviest stack"),
    _f("samples", int, "", "samples of that thread in this state"),
    _f("of_samples", int, "", "samples of that thread"),
    _f("unresponsive_s", float, "s", "time for which it had not responded"),
    _f("cpu_seconds", float, "s", "CPU time used while sampling", platforms="linux macos"),
    _f("sampled_s", float, "s", "time in which it was used", platforms="linux macos"),
    _f("memory_bytes", int, "bytes", "memory held", platforms="linux macos"),
    _f("memory_total_bytes", int, "bytes", "memory of the machine", platforms="linux macos"),
)

RECORDS: dict[str, tuple[Field, ...]] = {
    "resource_report": RESOURCE_REPORT,
    "resource_process": RESOURCE_PROCESS,
    "jetsam_report": JETSAM_REPORT,
    "jetsam_process": JETSAM_PROCESS,
    "crash_report": CRASH_REPORT,
    "reset_report": RESET_REPORT,
    "sleep_wake": SLEEP_WAKE,
    "task": TASK,
    "suspect": SUSPECT,
}

SUMMARY: dict[str, str] = {
    "resource_report": "macOS recorded a process over a limit: CPU, wakeups, disk writes",
    "resource_process": "one process of such a report: its samples, states and heaviest stack",
    "jetsam_report": "macOS killed processes for memory: which, why, and what memory was",
    "jetsam_process": "one process of such a report",
    "crash_report": "a program crashed: its exception, termination and stack",
    "reset_report": "the hardware recorded why the machine was restarted",
    "sleep_wake": "the machine went to sleep or woke",
    "task": "one process in the output of powermetrics, top or taskinfo",
    "suspect": "a process that a report points at without a wait: unresponsive, busy, or large",
}
