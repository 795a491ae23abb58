"""The records of evidence: slices of five seconds of the machine, its processes and its units; waits and limits.

A slice row belongs to an identity (boot_id, pid, start_ticks), never to a name. Own use and the use of ended children
are kept apart, so that a sentence can say which of the two it speaks of.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rogue_hunter.schema.field import STATES, Field
from rogue_hunter.schema.sampling import PROCESS

SLICE_S = 5
"""Seconds of a slice: a stall of 3 s drowns in a minute's average and still fills more than half of a slice."""

WAIT_KINDS = ("file_lock", "mutex", "pipe", "socket", "fanotify", "traced", "stopped", "frozen", "uninterruptible")
LIMIT_KINDS = ("cpu_quota", "memory", "oom_kill", "io", "affinity", "rlimit", "tasks", "disk_full")

_f = partial(Field, stage="slices")

_ROW = {field.name: field for field in PROCESS}


def _of_process(*names: str) -> tuple[Field, ...]:
    return tuple(replace(_ROW[name], stage="slices", metric=False, required=name in ("pid", "start_ticks"))
                 for name in names)


_SLICE = (
    _f("slice", float, "s", "epoch seconds at which the slice begins", required=True),
    _f("boot_id", str, "", "identity of the boot", required=True),
    _f("seconds", float, "s", "measured time that the slice covers", required=True),
)

MACHINE_SLICE = (
    *_SLICE,
    _f("ticks", int, "", "ticks taken in the slice", required=True),
    _f("cpus", int, "", "CPUs online"),
    _f("cpu_busy_cores", float, "cores", "CPU use, average"),
    _f("cpu_busy_cores_max", float, "cores", "CPU use, highest tick"),
    _f("cpu_steal_cores", float, "cores", "CPUs given to others by the hypervisor, average", platforms="linux"),
    _f("unattributed_cpu_cores", float, "cores", "busy cores that no process seen explains, average"),
    _f("run_delay_ms_per_s", float, "ms/s", "time that all processes together waited for a CPU"),
    _f("memory_total_bytes", int, "bytes", "memory of the machine"),
    _f("memory_available_bytes", int, "bytes", "memory available, lowest tick"),
    *(_f(f"pressure_{name}_ms_per_s", float, "ms/s", f"{words}, average", platforms="linux")
      for name, words in (("cpu_some", "some task waited for a CPU"), ("memory_some", "some task waited for memory"),
                          ("memory_full", "all tasks waited for memory"), ("io_some", "some task waited for storage"),
                          ("io_full", "all tasks waited for storage"))),
    _f("disk_bytes", int, "bytes", "disk traffic of all processes seen"),
    _f("device_bytes", int, "bytes", "traffic of all disks, as the kernel counts it", platforms="linux"),
    _f("device_requests_s", float, "s", "time that all requests to the disks took, added up", platforms="linux"),
    _f("device_wait_ms", float, "ms", "average time that a request to the slowest disk took", platforms="linux"),
    _f("refaults", int, "", "pages that were read again soon after they had been evicted", platforms="linux"),
    _f("direct_reclaims", int, "", "allocations that had to free memory first", platforms="linux"),
    _f("oom_kills", int, "", "processes killed by the kernel for want of memory", platforms="linux"),
    _f("late_s", float, "s", "latest beat"),
    _f("asleep_s", float, "s", "time suspended"),
    _f("clock_step_s", float, "s", "by how much the wall clock was set"),
    _f("continued", int, "", "times that rh-pipe itself was stopped and continued"),
    _f("self_run_delay_ms", float, "ms", "how long the sampling thread waited for a CPU", platforms="linux"),
    _f("self_throttled_ms", float, "ms", "how long a CPU quota kept rh-pipe itself from running", platforms="linux"),
    _f("self_cpu_percent", float, "%", "CPU use of rogue-hunter itself, all of its processes; 100 = one core"),
    _f("processes", int, "", "processes, last tick"),
    _f("started", int, "", "processes begun"),
    _f("exited", int, "", "processes ended"),
    _f("unreadable", int, "", "processes of which something may not be read"),
    _f("uninterruptible", int, "", "processes in uninterruptible sleep, highest tick"),
    _f("max_score", int, "0-100", "highest score"),
)

_USE = (
    _f("cpu_seconds", float, "s", "CPU time of its own"),
    _f("children_cpu_seconds", float, "s", "CPU time of children that ended, as far as no row of their own has it; "
       "of a process that does not wait for its many children, its part of the time that no process explains"),
    _f("disk_bytes", int, "bytes", "bytes read and written"),
    _f("children_disk_bytes", int, "bytes", "the same of children that ended, as far as no row of their own has it"),
    _f("memory_bytes", int, "bytes", "memory held, highest tick"),
    _f("memory_growth_bytes", int, "bytes", "by how much it grew from the first to the last tick"),
    _f("gpu_seconds", float, "s", "GPU time"),
    _f("wakeups", int, "", "wakeups"),
    _f("pageins", int, "", "page-ins"),
    _f("run_delay_s", float, "s", "time spent waiting for a CPU"),
    _f("uninterruptible_s", float, "s", "time seen in uninterruptible sleep"),
    _f("stopped_s", float, "s", "time seen stopped"),
    _f("max_score", int, "0-100", "highest score"),
    _f("rogue_s", float, "s", "time at or above the tracking band"),
)

PROCESS_SLICE = (
    *_SLICE,
    *_of_process("pid", "start_ticks", "ppid", "session", "uid", "user", "command", "cmdline", "cgroup", "unit",
                 "nice"),
    _f("name", str, "", "what people call it: script or module of an interpreter, else the program"),
    _f("policy", str, "", "scheduling policy: other, batch, idle, fifo, rr, deadline", platforms="linux"),
    _f("own", bool, "", "true for a process of rogue-hunter itself"),
    _f("state", str, "", "state at the end; uninterruptible or stopped if it was so for most of the slice",
       choices=STATES),
    _f("children", int, "", "children that ended in the slice"),
    *_USE,
)

GROUP_SLICE = (
    *_SLICE,
    _f("unit", str, "", "unit of work that all of them belong to", required=True),
    _f("name", str, "", "what most of its processes are called"),
    _f("pid", int, "", "the process at the root of the unit, if it is one"),
    _f("start_ticks", int, "host ticks", "when that process started"),
    _f("processes", int, "", "processes seen in it", required=True),
    _f("started", int, "", "processes begun in it"),
    *_USE,
)

WAIT = (
    _f("ts", float, "s", "epoch seconds at which the wait was seen", required=True),
    _f("boot_id", str, "", "identity of the boot", required=True),
    _f("kind", str, "", "what is waited for", required=True, choices=WAIT_KINDS),
    _f("object", str, "", "the file, device, cgroup or pipe waited for; system calls, of a process under a tracer"),
    _f("since_s", float, "s", "how long it has lasted: since a waiter was last seen to run"),
    _f("standing", bool, "", "true if it was there when rh-pipe began to watch"),
    _f("holder_pid", int, "", "the process that holds it"),
    _f("holder_start_ticks", int, "host ticks", "when that process started"),
    _f("holder", str, "", "what that process is called"),
    _f("holder_state", str, "", "its state", choices=STATES),
    _f("waiters", list, "", "who waits: pid, start_ticks, name"),
    _f("certainty", str, "", "proven: reported by the kernel; guessed: the only candidate left",
       choices=("proven", "guessed")),
)

LIMIT = (
    _f("ts", float, "s", "epoch seconds at which the limit was seen to bind", required=True),
    _f("boot_id", str, "", "identity of the boot", required=True),
    _f("kind", str, "", "what limits", required=True, choices=LIMIT_KINDS),
    _f("cgroup", str, "", "the control group whose limit it is"),
    _f("object", str, "", "the file system that is full"),
    _f("pid", int, "", "the process that is held back, where it is one"),
    _f("start_ticks", int, "host ticks", "when that process started"),
    _f("name", str, "", "what it, or most of the group, is called"),
    _f("limit", float, "", "the limit: cores, bytes, bytes/s, files, tasks, or CPUs allowed"),
    _f("use", float, "", "what is used of it, in the same unit"),
    _f("held_back_s", float, "s", "time held back since it was seen last"),
    _f("count", int, "", "how often it struck since it was seen last: kills, allocations or processes refused"),
)

RECORDS: dict[str, tuple[Field, ...]] = {
    "machine_slice": MACHINE_SLICE, "process_slice": PROCESS_SLICE, "group_slice": GROUP_SLICE, "wait": WAIT,
    "limit": LIMIT,
}

SUMMARY: dict[str, str] = {
    "machine_slice": "the machine in one slice of five seconds",
    "process_slice": "a process in one slice, if it was among the highest in something",
    "group_slice": "all processes of one unit of work in one slice, if together they were among the highest",
    "wait": "processes that wait for another one without using anything",
    "limit": "a process or a control group that its own limit holds back",
}
