"""Bytes of the macOS kernel in, numbers and fields of the process record out. Pure: nothing here calls anything.

A counter that this kernel or machine does not keep is None; 0 was counted.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from rogue_hunter.host.macos.abi import (
    CPU_STATE_MAX,
    INT32_MAX,
    RUSAGE,
    SIDL,
    SSLEEP,
    SSTOP,
    SZOMB,
    TH_STATE_HALTED,
    TH_STATE_RUNNING,
    TH_STATE_STOPPED,
    TH_STATE_UNINTERRUPTIBLE,
    TH_STATE_WAITING,
    KinfoProc,
    ProcBsdInfo,
    ProcBsdShortInfo,
    ProcTaskAllInfo,
    ProcUniqIdentifierInfo,
    Timeval,
)

MAX_COMMAND_LINE = 4096


def text(raw: bytes) -> str:
    """Bytes chosen by a process, as text; any bytes decode."""
    return raw.decode("utf-8", "backslashreplace")


class Usage(NamedTuple):
    """What proc_pid_rusage counted. `*_ticks` are ticks of the process counters (`seconds_per_tick`)."""

    cpu_user_ticks: int
    cpu_system_ticks: int
    wakeups: int
    pageins: int
    memory_bytes: int
    start_abstime: int
    exit_abstime: int
    uuid: bytes
    children_ticks: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    qos_interactive_ticks: int | None = None
    memory_peak_bytes: int | None = None
    instructions: int | None = None
    cycles: int | None = None
    runnable_ticks: int | None = None
    energy_nj: int | None = None

    @property
    def cpu_ticks(self) -> int:
        return self.cpu_user_ticks + self.cpu_system_ticks


def decode_rusage(raw: bytes, version: int) -> Usage:
    """The raw structure RUSAGE[version].

    Instructions, cycles and energy read 0 on machines that do not count them (Intel: no energy; virtual machines:
    none of the three). No process uses CPU time without all three, so 0 beside CPU time means unknown.
    """
    r = RUSAGE[version].from_buffer_copy(raw)
    ran = r.ri_user_time + r.ri_system_time > 0

    def counted(value: int) -> int | None:
        return value if value or not ran else None

    return Usage(
        r.ri_user_time, r.ri_system_time, r.ri_interrupt_wkups, r.ri_pageins, r.ri_phys_footprint,
        r.ri_proc_start_abstime, r.ri_proc_exit_abstime, bytes(r.ri_uuid),
        r.ri_child_user_time + r.ri_child_system_time if version >= 1 else None,
        r.ri_diskio_bytesread if version >= 2 else None,
        # The kernel's difference of two counters that are not read at once: it can come out just below zero.
        r.ri_diskio_byteswritten if version >= 2 and r.ri_diskio_byteswritten < 2**63 else None,
        r.ri_cpu_time_qos_user_interactive if version >= 3 else None,
        r.ri_lifetime_max_phys_footprint if version >= 4 else None,
        counted(r.ri_instructions) if version >= 4 else None,
        counted(r.ri_cycles) if version >= 4 else None,
        r.ri_runnable_time if version >= 4 else None,
        counted(r.ri_energy_nj) if version >= 6 else None,
    )


class Task(NamedTuple):
    """What PROC_PIDTASKALLINFO counted of the task. A counter that stopped at INT32_MAX is None."""

    threads: int
    running: int
    priority: int
    faults: int | None = None
    context_switches: int | None = None
    syscalls: int | None = None
    mach_messages: int | None = None


def _unsaturated(*values: int) -> int | None:
    return None if INT32_MAX in values else sum(values)


class Who(NamedTuple):
    """Who a process is. `start_us` is microseconds since the epoch, None where it may not be read; `tty_device` is
    None without a terminal."""

    pid: int
    ppid: int
    uid: int
    command: str
    status: int
    nice: int | None = None
    tty_device: int | None = None
    start_us: int | None = None


def _who(b: Any) -> Who:
    # pbi_name holds twice as much as pbi_comm and is empty for what never had an exec.
    return Who(b.pbi_pid, b.pbi_ppid, b.pbi_uid, text(b.pbi_name or b.pbi_comm), b.pbi_status, b.pbi_nice,
               b.e_tdev if b.e_tdev != 0xFFFFFFFF else None, b.pbi_start_tvsec * 1_000_000 + b.pbi_start_tvusec)


def decode_bsdinfo(raw: bytes) -> Who:
    """A raw ProcBsdInfo."""
    return _who(ProcBsdInfo.from_buffer_copy(raw))


def decode_taskallinfo(raw: bytes) -> tuple[Who, Task]:
    """A raw ProcTaskAllInfo."""
    both = ProcTaskAllInfo.from_buffer_copy(raw)
    t = both.ptinfo
    return _who(both.pbsd), Task(
        t.pti_threadnum, t.pti_numrunning, t.pti_priority, _unsaturated(t.pti_faults), _unsaturated(t.pti_csw),
        _unsaturated(t.pti_syscalls_mach, t.pti_syscalls_unix),
        _unsaturated(t.pti_messages_sent, t.pti_messages_received))


def decode_shortinfo(raw: bytes) -> Who:
    """A raw ProcBsdShortInfo: another user's process, no start time."""
    b = ProcBsdShortInfo.from_buffer_copy(raw)
    return Who(b.pbsi_pid, b.pbsi_ppid, b.pbsi_uid, text(b.pbsi_comm), b.pbsi_status)


def decode_kinfo(raw: bytes) -> Who:
    """A raw KinfoProc."""
    k = KinfoProc.from_buffer_copy(raw)
    start = k.p_starttime
    return Who(k.p_pid, k.e_ppid, k.cr_uid, text(k.p_comm), k.p_stat, k.p_nice,
               k.e_tdev if k.e_tdev != -1 else None, start.tv_sec * 1_000_000 + start.tv_usec)


def decode_uniqidentifier(raw: bytes) -> tuple[int, int]:
    """A raw ProcUniqIdentifierInfo: (p_uniqueid, p_idversion)."""
    u = ProcUniqIdentifierInfo.from_buffer_copy(raw)
    return u.p_uniqueid, u.p_idversion


def decode_timeval(raw: bytes) -> float:
    """A raw Timeval, seconds."""
    t = Timeval.from_buffer_copy(raw)
    return float(t.tv_sec + t.tv_usec / 1e6)


_ENVIRONMENT = re.compile(rb"[A-Z_][A-Z0-9_]*=")


def decode_arguments(raw: bytes) -> list[str]:
    """argv out of what KERN_PROCARGS2 gives: argc, the program's path, padding, then argc strings. The environment
    follows them and is never returned. Empty when nothing can be known; raises ValueError for what cannot be one."""
    if len(raw) < 5:
        raise ValueError("arguments cut short")
    (argc,) = struct.unpack_from("=i", raw)
    path_end = raw.find(b"\0", 4)
    if argc <= 0 or path_end < 0:
        return []
    start = path_end
    while start < len(raw) and raw[start] == 0:
        start += 1
    # 16 KiB: room for secrets to be seen as such before the text is cut to its 4 KiB.
    parts = raw[start : start + 4 * MAX_COMMAND_LINE].split(b"\0", argc)[:argc]
    # A program may blank its own first arguments. They then look like padding, and the count of strings would reach
    # into the environment: where the first string is not the program's name, the last ones are not trusted.
    if parts and parts[0].rsplit(b"/", 1)[-1].lstrip(b"-") != raw[4:path_end].rsplit(b"/", 1)[-1]:
        while parts and _ENVIRONMENT.match(parts[-1]):
            parts.pop()
    return [text(part) for part in parts]


def decode_cpu_load(words: Sequence[int]) -> list[tuple[int, int]]:
    """The words of PROCESSOR_CPU_LOAD_INFO: for each CPU its 10 ms ticks (busy, idle). The kernel keeps each state in
    32 bits that wrap after 497 days."""
    starts = range(0, len(words) - 3, CPU_STATE_MAX)
    return [(words[at] + words[at + 1] + words[at + 3], words[at + 2]) for at in starts]


def busy_cores(now: Sequence[tuple[int, int]], before: Sequence[tuple[int, int]]) -> float | None:
    """The number of CPUs that were busy between two readings: of each CPU the busy part of its ticks. None if no CPU
    counted a tick, or if there are more or fewer CPUs than before."""
    if len(now) != len(before):
        return None
    parts = []
    for (busy, idle), (busy_before, idle_before) in zip(now, before, strict=True):
        ran, rested = (busy - busy_before) % 2**32, (idle - idle_before) % 2**32
        if ran + rested:
            parts.append(ran / (ran + rested))
    return round(sum(parts), 3) if parts else None


YOUNGEST_S = 0.01
"""A process younger than this when first seen gets no rates: they would reflect the moment of reading only."""

STATUS_NAMES = {1: "SIDL", 2: "SRUN", 3: "SSLEEP", 4: "SSTOP", 5: "SZOMB"}


def state_of(status: int, task: Task | None, threads: str | None = None) -> str | None:
    """The state in the schema's words; `threads` is the result of `threads_state`. None when it cannot be known.

    p_stat of a living process is always SRUN, so only pti_numrunning shows whether one is running.
    """
    if status == SZOMB:
        return "defunct"
    if status == SSTOP:
        return "stopped"
    if status == SIDL:
        return None  # being created: it has no state yet
    if task is not None:
        return "running" if task.running > 0 else threads or "sleeping"
    return "sleeping" if status == SSLEEP else None


def threads_state(states: list[int]) -> str | None:
    """The state of a process from its threads' run states, as ps(1) of macOS ranks them: the liveliest wins."""
    for state, word in ((TH_STATE_RUNNING, "running"), (TH_STATE_UNINTERRUPTIBLE, "uninterruptible"),
                        (TH_STATE_WAITING, "sleeping"), (TH_STATE_STOPPED, "stopped"), (TH_STATE_HALTED, "halted")):
        if state in states:
            return word
    return None


def identity_fields(who: Who) -> dict[str, Any]:
    """The record fields of who a process is; `start_ticks` is microseconds since the epoch."""
    started = {"start_time": who.start_us / 1e6} if who.start_us else {}
    return {"pid": who.pid, "start_ticks": who.start_us or 0, **started, "ppid": who.ppid, "uid": who.uid,
            "command": who.command}


def state_fields(who: Who, task: Task | None, threads: str | None) -> dict[str, Any]:
    """The record fields of its state."""
    fields = {
        "state": state_of(who.status, task, threads), "state_raw": STATUS_NAMES.get(who.status, str(who.status)),
        "priority": task.priority if task else None, "nice": who.nice, "threads": task.threads if task else None}
    return {name: value for name, value in fields.items() if value is not None}


def total_fields(usage: Usage, task: Task | None, tick_s: float) -> dict[str, Any]:
    """The record's counters and sizes; what is unknown is left out. Run delay is the sampler's to add: it needs
    the readings before."""
    user, system = usage.cpu_user_ticks * tick_s, usage.cpu_system_ticks * tick_s
    fields: dict[str, Any] = {
        "cpu_seconds_total": round(user + system, 6), "cpu_user_seconds_total": round(user, 6),
        "cpu_system_seconds_total": round(system, 6),
        "children_cpu_seconds_total": _scaled(usage.children_ticks, tick_s),
        "memory_bytes": usage.memory_bytes, "memory_peak_bytes": usage.memory_peak_bytes,
        "pageins_total": usage.pageins, "faults_total": task.faults if task else None,
        "disk_read_bytes_total": usage.disk_read_bytes, "disk_write_bytes_total": usage.disk_write_bytes,
        "context_switches_total": task.context_switches if task else None,
        "syscalls_total": task.syscalls if task else None,
        "mach_messages_total": task.mach_messages if task else None,
        "instructions_total": usage.instructions, "cycles_total": usage.cycles,
        "wakeups_total": usage.wakeups, "energy_joules_total": _scaled(usage.energy_nj, 1e-9),
        "qos_interactive_seconds_total": _scaled(usage.qos_interactive_ticks, tick_s),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 6)


def _rate(now: int | None, before: int | None, seconds: float, factor: float = 1.0, digits: int = 2) -> float | None:
    """Difference a second. A counter that fell or is unknown gives None, never a huge number."""
    if now is None or before is None or now < before:
        return None
    if now == before:       # most counters of most processes that ran: a fifth less of all their cost
        return 0.0
    return round((now - before) * factor / seconds, digits)


def rate_fields(usage: Usage, task: Task | None, before: Usage, task_before: Task | None, seconds: float,
                tick_s: float) -> dict[str, Any]:
    """The record's rates over `seconds` between two readings of one process; what is unknown is left out."""
    disk = before_disk = None
    if usage.disk_read_bytes is not None and usage.disk_write_bytes is not None:
        disk = usage.disk_read_bytes + usage.disk_write_bytes
        if before.disk_read_bytes is not None and before.disk_write_bytes is not None:
            before_disk = before.disk_read_bytes + before.disk_write_bytes
    t, t0 = task or _NO_TASK, task_before or _NO_TASK
    fields: dict[str, Any] = {
        "cpu_percent": _rate(usage.cpu_ticks, before.cpu_ticks, seconds, 100 * tick_s),
        "pageins_per_s": _rate(usage.pageins, before.pageins, seconds),
        "faults_per_s": _rate(t.faults, t0.faults, seconds),
        "disk_bytes_per_s": _rate(disk, before_disk, seconds),
        "context_switches_per_s": _rate(t.context_switches, t0.context_switches, seconds),
        "syscalls_per_s": _rate(t.syscalls, t0.syscalls, seconds),
        "mach_messages_per_s": _rate(t.mach_messages, t0.mach_messages, seconds),
        "ipc": _ipc(usage, before),
        "wakeups_per_s": _rate(usage.wakeups, before.wakeups, seconds),
        "energy_watts": _rate(usage.energy_nj, before.energy_nj, seconds, 1e-9, 4),
        "qos_interactive_ms_per_s": _rate(usage.qos_interactive_ticks, before.qos_interactive_ticks, seconds,
                                          1000 * tick_s),
    }
    return {name: value for name, value in fields.items() if value is not None}


_NO_TASK = Task(0, 0, 0)
NOTHING = Usage(0, 0, 0, 0, 0, 0, 0, b"", 0, 0, 0, 0, 0, 0, 0, 0, 0)
"""The counters of a process at its start."""
NO_TASK_YET = Task(0, 0, 0, 0, 0, 0, 0)


def _ipc(usage: Usage, before: Usage) -> float | None:
    if usage.instructions is None or usage.cycles is None or before.instructions is None or before.cycles is None:
        return None
    cycles, instructions = usage.cycles - before.cycles, usage.instructions - before.instructions
    return round(instructions / cycles, 3) if cycles > 0 and instructions >= 0 else None
