"""The records of sampling: processes and the closing row of a tick, errors of input, and what a part costs."""

from __future__ import annotations

from functools import partial

from rogue_hunter.schema.field import BANDS, CATEGORIES, RESOURCES, STATES, Field

_f = Field
_m = partial(Field, metric=True)

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
    _f("cmdline", str, "", "arguments, as the process presents them; secrets redacted, 4 KiB at most; empty when it "
       "has none, missing while they are not known"),
    _f("name", str, "", "what people call the process: the script or module of an interpreter, the queue of a kernel "
       "worker, else the program; left out when it is `command`"),
    _f("own", bool, "", "true for rogue-hunter's own commands, of the same user or of root, and what they started"),
    _f("cgroup", str, "", "control group path", platforms="linux"),
    _f("tty", str, "", "controlling terminal"),
    _f("session", int, "", "session id: pid of the session's leader", platforms="linux"),
    _f("orphan_of", str, "", "the parent that died, `command[pid]`, and the unit of work it belonged to"),
    _f("unit", str, "", "unit of work: container:ID, flatpak:APP, snap:APP, slurm:JOB, a systemd service or scope, an "
       "app, or the topmost process below a shell, service manager or wrapper (timeout, sudo, ...), `name[pid]`"),
)

_STATE = (
    _f("state", str, "", "state in the field's words", choices=STATES),
    _f("state_raw", str, "", "state as the kernel prints it; left out when it is the usual letter of `state` (Linux: "
       "R, S, D, T, Z, I)"),
    _m("priority", int, "", "scheduling priority of the kernel"),
    _f("nice", int, "", "nice value"),
    _f("policy", str, "", "scheduling policy; left out when it is `other`", platforms="linux",
       choices=("other", "fifo", "rr", "batch", "idle", "deadline", "ext")),
    _m("threads", int, "", "number of threads"),
    _f("ended", bool, "", "true in the last row of a process that is gone: its rates are what it used since the row "
       "before, as inferred from its parent's counters"),
    _f("age_s", float, "s", "ts - start_time; added when the row is written"),
)

_CPU = (
    _f("cpu_seconds_total", float, "s", "CPU time used, user and system"),
    _f("cpu_user_seconds_total", float, "s", "CPU time used in user mode"),
    _f("cpu_system_seconds_total", float, "s", "CPU time used in the kernel"),
    _f("children_cpu_seconds_total", float, "s", "CPU time of children that ended and were waited for; on Linux left "
       "out when it is 0", sparse=True),
    _m("cpu_percent", float, "%", "CPU use of the interval; 100 = one core"),
    _m("children_exited", int, "", "children that ended in the interval, as the kernel reports each exit; left out "
       "where it reports none", platforms="linux"),
    _m("children_failed", int, "", "those of them that were killed by a signal or ended with a status other than 0",
       platforms="linux"),
    _m("children_cpu_percent", float, "%", "CPU use, in the interval, of children that ended in it, as far as it was "
       "not seen in rows of their own; at most all cores; left out when it is 0", sparse=True),
)

_MEMORY = (
    _m("memory_bytes", int, "bytes", "memory held: physical footprint (macOS); resident set, huge pages and what was "
       "swapped out (Linux), where `shared_bytes` is divided among the processes of one unit with this program"),
    _f("memory_peak_bytes", int, "bytes", "highest memory held so far"),
    _f("shared_bytes", int, "bytes", "files, shared memory, huge pages and pages shared since a fork, which other "
       "processes may hold as well; left out below 64 MiB", platforms="linux"),
    _f("swap_bytes", int, "bytes", "memory that was swapped out; left out when it is 0", platforms="linux"),
    _f("pageins_total", int, "", "page-ins: faults that needed the disk (major faults)"),
    _m("pageins_per_s", float, "1/s", "page-ins of the interval"),
    _f("faults_total", int, "", "all page faults, minor and major"),
    _m("faults_per_s", float, "1/s", "page faults of the interval"),
    _f("children_pageins_total", int, "", "page-ins of children that ended and were waited for; left out when it is 0",
       platforms="linux", sparse=True),
    _f("children_pageins_per_s", float, "1/s", "page-ins, in the interval, of children that ended in it, as far as "
       "they were not seen in rows of their own; left out when it is 0", platforms="linux", sparse=True),
    _f("children_faults_total", int, "", "page faults of children that ended and were waited for; left out when it is "
       "0", platforms="linux", sparse=True),
)

_DISK = (
    _f("disk_read_bytes_total", int, "bytes", "bytes fetched from storage, without those of children that ended since "
       "the process was first seen"),
    _f("disk_write_bytes_total", int, "bytes", "bytes sent to storage, cancelled writes not subtracted; children as "
       "above"),
    _m("disk_bytes_per_s", float, "bytes/s", "bytes read and written of the interval"),
    _m("children_disk_bytes_per_s", float, "bytes/s", "bytes read and written, in the interval, by children that ended "
       "in it, as far as they were not seen in rows of their own; left out when it is 0", platforms="linux",
       sparse=True),
)

_ACTIVITY = (
    _f("context_switches_total", int, "", "context switches, voluntary and involuntary, of all threads"),
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
    _f("wakeups_total", int, "", "wakeups: interrupt wakeups (macOS); voluntary context switches (Linux), each of "
       "which ends in one wakeup; of several threads, as far as their sum was read"),
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
    _m("cpu_share", float, "1", "part of the CPU use of all processes (or of the floor, if larger); left out when it "
       "is 0", stage="score", sparse=True),
    _m("gpu_share", float, "1", "part of the GPU time; left out when it is 0", stage="score", sparse=True),
    _m("memory_share", float, "1", "part of the memory, times its scarcity; left out when it is 0", stage="score",
       sparse=True),
    _m("disk_share", float, "1", "part of the disk traffic; left out when it is 0", stage="score", sparse=True),
    _m("wakeups_share", float, "1", "part of the wakeups; left out when it is 0", stage="score", sparse=True),
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
    _f("boot_id", str, "", "identity of this boot; with pid and start_ticks it identifies a process",
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
    _f("memory_available_bytes", int, "bytes", "memory that can be had without swapping, the cache of ZFS included"),
    _f("pressure_cpu_some_ms_per_s", float, "ms/s", "time in which some task waited for a CPU", platforms="linux"),
    _f("pressure_memory_some_ms_per_s", float, "ms/s", "time in which some task waited for memory", platforms="linux"),
    _f("pressure_memory_full_ms_per_s", float, "ms/s", "time in which all tasks waited for memory", platforms="linux"),
    _f("pressure_io_some_ms_per_s", float, "ms/s", "time in which some task waited for storage", platforms="linux"),
    _f("pressure_io_full_ms_per_s", float, "ms/s", "time in which all tasks waited for storage", platforms="linux"),
    _f("refaults", int, "", "pages read again soon after they had been evicted; this and the next five are counted "
       "since the last tick that has them, about a second before", platforms="linux"),
    _f("direct_reclaims", int, "", "allocations that had to free memory first", platforms="linux"),
    _f("oom_kills", int, "", "processes that the kernel killed for want of memory", platforms="linux"),
    _f("device_bytes", int, "bytes", "traffic of all disks, as the kernel counts it", platforms="linux"),
    _f("device_requests_s", float, "s", "time that all requests to the disks took, added up", platforms="linux"),
    _f("device_wait_ms", float, "ms", "average time that a request to the slowest disk took", platforms="linux"),
    _f("processes", int, "", "processes seen", required=True),
    _f("active", int, "", "processes that ran in the interval", required=True),
    _f("started", int, "", "processes first seen in this tick", required=True),
    _f("exited", int, "", "processes gone since the tick before", required=True),
    _f("unreadable", int, "", "processes of which something may not be read", required=True),
    _f("errors", int, "", "readings that failed or could not be parsed", required=True),
    _f("unattributed_cpu_cores", float, "cores", "busy cores minus the sum of all processes seen"),
    _f("self_pid", int, "", "process id of the sampler, when it is among the processes seen"),
    _f("self_cpu_percent", float, "%", "CPU use of rogue-hunter itself, helper processes included; 100 = one core"),
    _f("self_run_delay_ms", float, "ms", "how long the sampling thread waited for a CPU in the interval",
       platforms="linux"),
    _f("self_throttled_ms", float, "ms", "how long a CPU quota of its control group kept rogue-hunter from running "
       "in the interval", platforms="linux"),
    _f("self_pageins", int, "", "page-ins of rogue-hunter itself in the interval"),
    _f("self_memory_bytes", int, "bytes", "memory of rogue-hunter itself"),
    _f("max_score", int, "0-100", "highest score of the tick", stage="score"),
)

METRICS = tuple(f for f in PROCESS if f.metric)
"""The numbers of a process whose low and high over the ring a snapshot carries."""

SNAPSHOT = tuple(f for f in PROCESS if f.name not in ("ts", "seq", "terms"))
"""The process fields that an event record carries."""

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

RECORDS: dict[str, tuple[Field, ...]] = {"process": PROCESS, "tick": TICK, "error": ERROR, "bench": BENCH}

SUMMARY: dict[str, str] = {
    "process": "one process in one tick",
    "tick": "the closing row of a tick: the machine, and what the reading cost",
    "error": "a line of input that is no record; nothing was done with it",
    "bench": "what one part of rogue-hunter costs on this machine",
}
