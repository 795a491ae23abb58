"""The records of captures: captures, reports of stacks, waits between processes, log entries.

A spindump report, a decoded tailspin and a reading of /proc become the same records, so that one wait graph and one set
of tables serve both platforms. Fields that a process row has too have the same names: `command`, `memory_bytes`.

Children follow their parent: the processes of a report are numbered from 1 in its order (`process`), because a report
can list the same pid twice (exec), and each thread and each blocker has that number.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rogue_hunter.schema import diagnostics
from rogue_hunter.schema.field import Field

THREAD_STATES = ("running", "runnable", "sleeping", "blocked", "suspended", "uninterruptible", "stopped", "defunct",
                 "idle")
"""The state in which a thread was seen most often."""

CAPTURE_STATUSES = ("ok", "partial", "failed", "skipped")
PART_STATUSES = ("ok", "partial", "denied", "unavailable", "timeout", "failed", "skipped")
"""Status of one part of a capture. denied: no permission; unavailable: this machine has no such source."""

REPORT_FORMATS = ("heavy", "timeline", "snapshot", "sample", "stackshot")
CERTAINTIES = ("proven", "guessed")
"""proven: reported by the kernel. guessed: from the memory layout of a library, or the only candidate left."""

LOG_SOURCES = ("unified", "journal", "kernel")
TRIGGERS = ("event", "pause", "manual")

MAX_FRAMES = 40
"""The innermost frames of a stack are kept. Real ones go down to 120; the innermost one is what a thread waits in."""
FRAME_LIMIT = 160
"""Characters of a frame that are kept."""

_f = partial(Field, stage="forensics")


def _who(prefix: str, whose: str) -> tuple[Field, ...]:
    return (_f(f"{prefix}_pid", int, "", f"process id of {whose}", platforms="macos"),
            _f(f"{prefix}_command", str, "", f"name of {whose}", platforms="macos"))


_COUNTS = diagnostics.COUNTS
_CAPTURE = _f("capture", str, "", "key of the capture that this belongs to; absent for a report parsed from a file")
_PROCESS = _f("process", int, "", "number of the process in its report, from 1; 0 when the report names none",
              required=True)

CAPTURE = (
    _f("ts", float, "s", "epoch seconds when the capture began", required=True),
    _f("capture", str, "", "stable key of the capture", required=True),
    _f("trigger", str, "", "what requested it", required=True, choices=TRIGGERS),
    _f("status", str, "", "its status", required=True, choices=CAPTURE_STATUSES),
    _f("reason", str, "", "why it was skipped: debounce, busy, same_trouble, hour_budget, identity_budget, "
       "cpu_budget, other_boot, failing"),
    _f("skipped", int, "", "with status skipped: number of requests that this record reports"),
    _f("event", str, "", "key of the event that requested it"),
    _f("pause", str, "", "key of the pause that requested it"),
    _f("boot_id", str, "", "identity of the boot"),
    _f("pid", int, "", "the culprit's process id"),
    _f("start_ticks", int, "host ticks", "when the culprit started"),
    _f("command", str, "", "the culprit's name"),
    _f("targets", list, "", "the target processes: {pid, start_ticks, command, outcome}"),
    _f("os", str, "", "linux or macos"),
    _f("duration_s", float, "s", "duration of the capture"),
    _f("processes", int, "", "process records kept"),
    _f("threads", int, "", "thread records kept"),
    _f("blockers", int, "", "waits found"),
    _f("log_entries", int, "", "log entries kept"),
    _f("log_entries_left_out", int, "", "log entries beyond the limit"),
    _f("threads_status", str, "", "threads from /proc", platforms="linux", choices=PART_STATUSES),
    _f("waits_status", str, "", "waits between processes, from /proc", platforms="linux", choices=PART_STATUSES),
    _f("pressure_status", str, "", "pressure stall information", platforms="linux", choices=PART_STATUSES),
    _f("kernel_log_status", str, "", "the kernel's ring buffer", platforms="linux", choices=PART_STATUSES),
    _f("journal_status", str, "", "the journal", platforms="linux", choices=PART_STATUSES),
    _f("tailspin_status", str, "", "saving the kernel's trace", platforms="macos", choices=PART_STATUSES),
    _f("spindump_status", str, "", "decoding it", platforms="macos", choices=PART_STATUSES),
    _f("logs_status", str, "", "the unified log", platforms="macos", choices=PART_STATUSES),
    _f("reports_status", str, "", "macOS's resource reports of the last minutes", platforms="macos",
       choices=PART_STATUSES),
    _f("problems", list, "", "errors, as text"),
    _f("raw_path", str, "", "the kept raw file", platforms="macos"),
    _f("raw_bytes", int, "bytes", "its size", platforms="macos"),
    *(_f(f"pressure_{r}_{k}_percent", float, "%", f"part of the last 10 s in which {k} task{s} waited for {w}",
         platforms="linux")
      for r, w in (("cpu", "a CPU"), ("memory", "memory"), ("io", "storage"))
      for k, s in (("some", ""), ("full", "s"))),
    Field("id", int, "", "number of the capture in the database", "report"),
    Field("children", list, "", "the records of its parts: report, processes, threads, waits, log", "report"),
)

SPINDUMP_REPORT = (
    _CAPTURE,
    _f("ts", float, "s", "epoch seconds when sampling began"),
    _f("end_ts", float, "s", "epoch seconds when it ended"),
    _f("file", str, "", "name of the file"),
    _f("format", str, "", "how stacks are ordered; snapshot: read from /proc", choices=REPORT_FORMATS),
    _f("report_version", str, "", "version of the report's format; text, because 35.1 exists"),
    _f("data_source", str, "", "Stackshots, KPerf Lightweight PET (tailspin), Microstackshots, procfs"),
    _f("os_version", str, "", "operating system and build"),
    _f("architecture", str, "", "machine's architecture"),
    _f("hardware", str, "", "hardware model"),
    _f("cpus", int, "", "active CPUs"),
    _f("memory_total_bytes", int, "bytes", "memory of the machine"),
    _f("page_bytes", int, "bytes", "size of a page"),
    _f("reason", str, "", "why the report was made"),
    _f("event", str, "", "the subject of the report: hang, cpu usage, service process watchdog"),
    _f("pid", int, "", "the process that the report examines"),
    _f("command", str, "", "its name"),
    _f("path", str, "", "path of its program"),
    _f("duration_s", float, "s", "how long was sampled"),
    _f("unresponsive_s", float, "s", "time for which the target had been unresponsive"),
    _f("steps", int, "", "samples taken"),
    _f("interval_ms", float, "ms", "time between samples"),
    _f("sampled_s", float, "s", "the part of it in which samples were taken, if it is another"),
    _f("cpu_seconds", float, "s", "CPU time of all processes while sampling"),
    *_COUNTS,
    _f("idle_seconds", float, "s", "idle time of all CPUs while sampling, from the kernel's idle threads",
       platforms="macos"),
    _f("cpu_busy_cores", float, "cores", "average number of busy CPUs while sampling, from idle_seconds",
       platforms="macos"),
    _f("identifier", str, "", "bundle identifier of the process that the report examines", platforms="macos"),
    _f("team_id", str, "", "team that signed it", platforms="macos"),
    *_who("parent", "its parent"), *_who("responsible", "the application on whose behalf it runs"),
    *diagnostics.MACHINE,
    _f("top", list, "", "sample: the innermost frames seen most often: {frame, samples}", platforms="macos"),
    _f("awake_s", float, "s", "time awake since boot"),
    _f("since_wake_s", float, "s", "time since wake"),
    _f("frames", list, "", "heaviest stack of the target's main thread, innermost first"),
    _f("header", dict, "", "header lines without a field"),
    _f("binary", bool, "", "true if the report also has its binary form, which is not read", platforms="macos"),
    _f("processes", int, "", "`Process:` lines", required=True),
    _f("threads", int, "", "thread lines", required=True),
    _f("threads_aggregated", int, "", "of these, lines for several threads each (`<multiple>`, `0xa,0xb`)",
       required=True),
    _f("blockers", int, "", "waits: `blocked by` states", required=True),
    _f("edges", int, "", "of these, waits that name the process waited for", required=True),
    _f("sections", list, "", "names of sections after the last process"),
    _f("lines", int, "", "lines read", required=True),
    _f("complete", bool, "", "false if the report is truncated; absent if unknown"),
    _f("problems", list, "", "what could not be read, as text"),
)

SPINDUMP_PROCESS = (
    _CAPTURE, _PROCESS,
    _f("pid", int, "", "process id"),
    _f("unique_pid", int, "", "process id that is never reused", platforms="macos"),
    _f("start_ticks", int, "host ticks", "when it started", platforms="linux"),
    _f("command", str, "", "name of the process", required=True),
    _f("display_name", str, "", "name shown to people", platforms="macos"),
    _f("path", str, "", "path of the program"),
    _f("uuid", str, "", "identity of the program's binary", platforms="macos"),
    _f("identifier", str, "", "bundle identifier", platforms="macos"),
    _f("version", str, "", "version of the program", platforms="macos"),
    _f("architecture", str, "", "architecture of the program", platforms="macos"),
    _f("parent_pid", int, "", "parent's process id"),
    _f("parent_command", str, "", "parent's name"),
    _f("responsible_pid", int, "", "process id of the application on whose behalf it runs", platforms="macos"),
    _f("responsible_command", str, "", "its name", platforms="macos"),
    _f("execed_from", str, "", "name before exec", platforms="macos"),
    _f("execed_to", str, "", "name after exec", platforms="macos"),
    _f("uid", int, "", "user id"),
    _f("cgroup", str, "", "control group path", platforms="linux"),
    _f("state", str, "", "state of the main thread", choices=THREAD_STATES),
    _f("codesigning_id", str, "", "identifier in its code signature", platforms="macos"),
    _f("team_id", str, "", "team that signed it", platforms="macos"),
    _f("first_party", bool, "", "true for a program of Apple", platforms="macos"),
    _f("sudden_termination", str, "", "whether macOS may kill it without notice: Tracked, Dirty", platforms="macos"),
    _f("suspended", bool, "", "its threads are suspended", platforms="macos"),
    _f("suspended_samples", int, "", "samples in which they were", platforms="macos"),
    _f("unresponsive", bool, "", "true if the report says that it did not respond", platforms="macos"),
    _f("unresponsive_s", float, "s", "time for which it had not responded before sampling", platforms="macos"),
    _f("idle_threads_omitted", int, "", "idle threads of its work queue that the report leaves out",
       platforms="macos"),
    _f("defunct", bool, "", "it has exited and was not waited for yet"),
    _f("memory_bytes", int, "bytes", "memory held: physical footprint (macOS), resident set (Linux)"),
    _f("memory_before_bytes", int, "bytes", "the same at the first sample, if it changed", platforms="macos"),
    _f("memory_peak_bytes", int, "bytes", "highest memory held"),
    _f("memory_mapped_bytes", int, "bytes", "address space mapped", platforms="linux"),
    _f("memory_anonymous_bytes", int, "bytes", "resident and not backed by a file", platforms="linux"),
    _f("memory_file_bytes", int, "bytes", "resident and backed by a file", platforms="linux"),
    _f("memory_shared_bytes", int, "bytes", "resident shared memory", platforms="linux"),
    _f("memory_swap_bytes", int, "bytes", "swapped out", platforms="linux"),
    _f("memory_proportional_bytes", int, "bytes", "resident, shared pages divided by their users (Pss)",
       platforms="linux"),
    _f("open_files", int, "", "open file descriptors", platforms="linux"),
    _f("pageins_total", int, "", "page-ins", platforms="macos"),
    _f("cpu_seconds", float, "s", "CPU time used while sampling (macOS), so far (Linux)"),
    *_COUNTS,
    _f("faults_total", int, "", "page faults, of a stackshot", platforms="macos"),
    _f("age_s", float, "s", "time since it was forked"),
    _f("start_ts", float, "s", "epoch seconds of its first sample"),
    _f("end_ts", float, "s", "epoch seconds of its last sample"),
    _f("samples", int, "", "samples in which it was seen"),
    _f("sample_first", int, "", "first of them"),
    _f("sample_last", int, "", "last of them"),
    _f("threads", int, "", "threads it has"),
    _f("threads_listed", int, "", "threads in the report"),
    _f("notes", list, "", "notes of the report"),
    _f("role", str, "", "its role in the capture: culprit, rogue, waiter, holder, uninterruptible"),
)

SPINDUMP_THREAD = (
    _CAPTURE, _PROCESS,
    _f("pid", int, "", "process id"),
    _f("command", str, "", "name of the process"),
    _f("thread_id", str, "", "thread id as printed: 0x4eb9, several ids joined by commas, <multiple>, or a Linux tid",
       required=True),
    _f("main", bool, "", "true for the first thread of the process"),
    _f("thread_name", str, "", "name of the thread"),
    _f("queue", str, "", "dispatch queue", platforms="macos"),
    _f("state", str, "", "state in which it was seen most often", choices=THREAD_STATES),
    _f("state_raw", str, "", "state as the kernel prints it", platforms="linux"),
    _f("samples", int, "", "samples in which it was seen; more than `steps` if several threads are added up"),
    _f("sample_first", int, "", "first of them"),
    _f("sample_last", int, "", "last of them"),
    _f("running_samples", int, "", "samples on a CPU"),
    _f("runnable_samples", int, "", "samples waiting for a CPU"),
    _f("blocked_samples", int, "", "samples blocked by a named holder"),
    _f("suspended_samples", int, "", "samples suspended", platforms="macos"),
    _f("uninterruptible_samples", int, "", "samples in uninterruptible wait", platforms="linux"),
    _f("priority", int, "", "scheduling priority, lowest seen"),
    _f("priority_high", int, "", "highest seen, if it changed", platforms="macos"),
    _f("base_priority", int, "", "priority before boosts", platforms="macos"),
    _f("cpu_seconds", float, "s", "CPU time used while sampling (macOS), so far (Linux)"),
    *_COUNTS,
    _f("idle_seconds", float, "s", "idle time, of the kernel's idle threads", platforms="macos"),
    _f("last_ran_s", float, "s", "time since it ran last, before the report", platforms="macos"),
    _f("qos", str, "", "quality of service and flags, of the first stretch", platforms="macos"),
    _f("blocked_by", str, "", "what it waited for longest, as text"),
    _f("wchan", str, "", "kernel function it sleeps in (Linux), address of the event it waits for (stackshots)"),
    _f("syscall", str, "", "system call it is in, with its arguments", platforms="linux"),
    _f("frames", list, "", "heaviest stack, innermost first; of the main threads of processes that matter"),
    _f("leaf", str, "", "innermost frame of the heaviest stack"),
)

SPINDUMP_BLOCKER = (
    _CAPTURE, _PROCESS,
    _f("pid", int, "", "the process that waits"),
    _f("command", str, "", "its name"),
    _f("thread_id", str, "", "the thread that waits", required=True),
    _f("blocked_by", str, "", "kind of wait: turnstile, unfair lock, wait4, flock, pipe, futex", required=True),
    _f("on_pid", int, "", "the process waited for"),
    _f("on_command", str, "", "its name"),
    _f("on_thread_id", str, "", "the thread waited for, if known"),
    _f("on_self", bool, "", "it waits for itself"),
    _f("on_what", str, "", "what is waited for if not a process"),
    _f("hops", int, "", "length of the chain of waits to the holder, as followed by the kernel; 1: a direct wait"),
    _f("deadlock", bool, "", "true if the kernel reports that the wait is part of a deadlock", platforms="macos"),
    _f("samples", int, "", "weight: samples in which the wait was seen", required=True),
    _f("sample_first", int, "", "first of them (timeline)"),
    _f("sample_last", int, "", "last of them (timeline)"),
    _f("certainty", str, "", "certainty of the holder", choices=CERTAINTIES),
    _f("detail", str, "", "the wait as the source prints it, or the evidence"),
)

LOG_ENTRY = (
    _CAPTURE,
    _f("ts", float, "s", "epoch seconds"),
    _f("source", str, "", "which log", required=True, choices=LOG_SOURCES),
    _f("level", str, "", "default, info, debug, error, fault (unified); emerg to debug (journal, kernel)"),
    _f("kind", str, "", "kind of the entry if it is not a message: activity, signpost; limit_hit, jetsam_kill: the "
       "kernel reports a process over one of its limits, or one that it killed for memory", platforms="macos"),
    _f("about_pid", int, "", "of limit_hit and jetsam_kill: that process", platforms="macos"),
    _f("about_command", str, "", "its name", platforms="macos"),
    _f("pid", int, "", "process that logged"),
    _f("thread_id", str, "", "thread that logged"),
    _f("uid", int, "", "its user"),
    _f("command", str, "", "its name"),
    _f("path", str, "", "path of its program"),
    _f("sender", str, "", "library, unit or facility that logged"),
    _f("subsystem", str, "", "subsystem", platforms="macos"),
    _f("category", str, "", "category", platforms="macos"),
    _f("mach_ticks", int, "mach ticks", "machine time of the entry", platforms="macos"),
    _f("message", str, "", "the message; secrets redacted, 4 KiB at most"),
)

BUFFER_CONTEXT = (
    _f("capture", str, "", "key of the capture", required=True),
    _f("ts", float, "s", "epoch seconds of the newest tick of the ring", required=True),
    _f("first_ts", float, "s", "epoch seconds of the oldest"),
    _f("sample_count", int, "", "ticks in the ring", required=True),
    _f("peak_score", int, "0-100", "highest score in the ring"),
    _f("culprits", list, "", "the processes with the highest scores before the capture, highest first"),
)

_RECORDED = tuple(replace(f, stage="pipe", platforms="linux") for f in (
    _f("pid", int, "", "process id; 0 is the idle task of the CPU"),
    _f("start_ticks", int, "host ticks", "when the process started"),
    _f("command", str, "", "its name; of an interpreter the script"),
    _f("cpu", int, "", "number of the CPU"),
    _f("pause", str, "", "key of the pause"),
))
_BY_NAME = {f.name: f for f in _RECORDED}

CPU_SHARE = tuple(replace(f, stage="pipe", platforms="linux") for f in (
    *(replace(_BY_NAME[name], required=True) for name in ("pause", "cpu")),
    _f("rank", int, "", "1 for the process that had the CPU longest", required=True),
    *(replace(_BY_NAME[name], required=name == "pid") for name in ("pid", "start_ticks", "command")),
    _f("parent_pid", int, "", "its parent, of a process that was made shortly before"),
    _f("cpu_seconds", float, "s", "time that it had the CPU", required=True),
    _f("share", float, "1", "part of the pause", required=True),
    _f("source", str, "", "how most of the time of this CPU was measured: by context switches, or by 49 samples a "
       "second", choices=("switches", "samples")),
    _f("for_pid", int, "", "of a kernel thread: the process that it probably worked for"),
    _f("for_command", str, "", "its name"),
    _f("for_reason", str, "", "why it is thought so"),
))

STACK = (
    *(_BY_NAME[name] for name in ("pause", "pid", "start_ticks", "command", "cpu")),
    *(replace(f, stage="pipe", platforms="linux") for f in (
        replace(_CAPTURE, doc="key of the capture"),
        _f("samples", int, "", "samples with this stack", required=True),
        _f("share", float, "1", "part of all samples of the pause, capture or profile"),
        _f("stack", str, "", "its frames, outermost first, joined by ;: the process, then functions; _[k] marks "
           "those of the kernel", required=True),
        _f("note", str, "", "where frames come from, if not from the samples"),
    )),
)

BLAME = (
    _CAPTURE,
    _f("rank", int, "", "1 holds up most", required=True),
    _f("pid", int, "", "the process at the root"),
    _f("command", str, "", "its name", required=True),
    _f("threads", list, "", "its threads that others wait for"),
    _f("samples", float, "", "samples of waiting that end at it", required=True),
    _f("samples_of_others", float, "", "of these, samples that other processes waited", required=True),
    _f("waiters", int, "", "threads that wait for it, directly or through others", required=True),
    _f("processes", int, "", "other processes among them", required=True),
    _f("hops", int, "", "length of the longest chain that ends at it", required=True),
    _f("chain", list, "", "that chain, from the first waiter to the root", required=True),
    _f("waits_for", str, "", "what the root itself waits for, if not a process"),
    _f("cycle", list, "", "the members of the deadlock, if the root is one"),
    _f("certain", bool, "", "of a deadlock: every wait in it lasted through all samples"),
    _f("certainty", str, "", "guessed if a link of the chain is", choices=CERTAINTIES),
)

RECORDS: dict[str, tuple[Field, ...]] = {
    "capture": CAPTURE,
    "spindump_report": SPINDUMP_REPORT,
    "spindump_process": SPINDUMP_PROCESS,
    "spindump_thread": SPINDUMP_THREAD,
    "spindump_blocker": SPINDUMP_BLOCKER,
    "log_entry": LOG_ENTRY,
    "buffer_context": BUFFER_CONTEXT,
    "blame": BLAME,
    "cpu_share": CPU_SHARE,
    "stack": STACK,
    **diagnostics.RECORDS,
}

SUMMARY: dict[str, str] = {
    "capture": "one forensic capture, or the requests that were skipped",
    "spindump_report": "a report of stacks: its header and counts",
    "spindump_process": "one process of a report",
    "spindump_thread": "one thread of a report",
    "spindump_blocker": "one wait: the thread, what it waited for, and for how many samples",
    "log_entry": "one entry of a log",
    "buffer_context": "the ring before a capture",
    "blame": "one root of the wait graph: a process that blocks others",
    "cpu_share": "a process that had a CPU during a pause, and for how long",
    "stack": "a stack in which a process was seen on a CPU, and how often",
    **diagnostics.SUMMARY,
}
