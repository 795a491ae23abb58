"""The macOS kernel's numbers as fields of the process record. Pure. What is unknown is left out; 0 was counted."""

from __future__ import annotations

from typing import Any

from rogue_hunter.host.macos.abi import (
    SIDL,
    SSLEEP,
    SSTOP,
    SZOMB,
    TH_STATE_HALTED,
    TH_STATE_RUNNING,
    TH_STATE_STOPPED,
    TH_STATE_UNINTERRUPTIBLE,
    TH_STATE_WAITING,
)
from rogue_hunter.host.macos.decode import Task, Usage, Who

YOUNGEST_S = 0.01
"""A process younger than this when first seen gets no rates: they would reflect the moment of reading only."""

STATUS_NAMES = {1: "SIDL", 2: "SRUN", 3: "SSLEEP", 4: "SSTOP", 5: "SZOMB"}


def state_of(status: int, task: Task | None, threads: str | None = None) -> str | None:
    """The state in the schema's words; `threads` is the result of `threads_state`. None when it cannot be known.

    p_stat of a living process is SRUN whatever its threads do, so only pti_numrunning shows whether one is running.
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
    fields: dict[str, Any] = {"pid": who.pid, "start_ticks": who.start_us or 0}
    if who.start_us:
        fields["start_time"] = who.start_us / 1e6
    fields["ppid"] = who.ppid
    fields["uid"] = who.uid
    fields["command"] = who.command
    return fields


def state_fields(who: Who, task: Task | None, threads: str | None) -> dict[str, Any]:
    """The record fields of its state."""
    fields: dict[str, Any] = {}
    if (state := state_of(who.status, task, threads)) is not None:
        fields["state"] = state
    fields["state_raw"] = STATUS_NAMES.get(who.status, str(who.status))
    if task is not None:
        fields["priority"] = task.priority
    if who.nice is not None:
        fields["nice"] = who.nice
    if task is not None:
        fields["threads"] = task.threads
    return fields


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
