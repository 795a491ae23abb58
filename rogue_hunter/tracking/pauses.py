"""Pauses: stretches in which the machine did not let the beat run, each with its cause.

A beat that comes late was kept from running, and so were other processes that waited for the same resource. Suspension
is no lateness (the clock of the beat stops), and SIGSTOP of the toolkit, its CPU quota, the hypervisor and a set clock
are recognised. Who used what was short is not decided here: the verdict names it from the slices of that time
(rogue_hunter.tracking.minutes).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rogue_hunter.config.options import Config, Pause
from rogue_hunter.sampling.units import KTHREADD
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, Tick, record

EVIDENCE = (
    "late_s", "interval_s", "asleep_s", "clock_step_s", "continued", "cpus", "cpu_busy_cores", "cpu_steal_cores",
    "cpu_counted_cores", "unattributed_cpu_cores", "memory_total_bytes", "memory_available_bytes",
    "pressure_cpu_some_ms_per_s", "pressure_memory_some_ms_per_s", "pressure_memory_full_ms_per_s",
    "pressure_io_some_ms_per_s", "pressure_io_full_ms_per_s", "self_run_delay_ms", "self_throttled_ms", "self_pageins",
    "self_cpu_percent",
)
"""Fields of the closing row that are kept with a pause."""

STOOD_STILL = 0.5
"""Of the CPU time that should have passed, less than this was counted: the virtual machine itself did not run."""
STOLEN = 0.25
"""Part of the CPUs that the hypervisor gave to others."""
MEMORY_FULL_MS = 200.0
IO_FULL_MS = 300.0
"""Rates at which all tasks waited, over the whole gap, ms/s. Reclaim needs storage, so memory is asked first."""
SCARCE = 0.05
"""Part of memory available below which a machine that pages in is short of memory (where there is no PSI)."""
WAITED = 0.5
"""Part of the gap that the sampling thread itself spent in the run queue."""
BUSY = 0.9
SURE_S = 1.0
"""A beat that is late by less is a pause only with a known cause: a timer alone is late by up to half a second on a
virtual machine whose host is busy."""
WORKED = 0.5
"""Part of the lateness that the sampler itself computed for: the beat was late for its own work, as when thousands of
processes are described at the start, and the machine did not pause."""
WAITERS = 2
"""Processes that must have waited during a stall: of a single one that runs, all tasks always wait for its storage."""
PAGEINS_WAIT = 5.0
"""Page-ins a second from which a process waits for storage."""


def cause(evidence: Row, gap_s: float) -> str:
    """What was short in a gap of `gap_s` seconds, judged by the readings of the tick that ended it."""
    cpus = evidence.get("cpus") or 1
    counted = evidence.get("cpu_counted_cores")
    if evidence.get("continued"):
        return "stopped"
    if evidence.get("self_throttled_ms", 0.0) >= WAITED * 1000 * gap_s:
        return "throttled"
    if (counted is not None and counted < STOOD_STILL * cpus) or \
            evidence.get("cpu_steal_cores", 0.0) >= STOLEN * cpus:
        return "steal"
    if evidence.get("pressure_memory_full_ms_per_s", 0.0) >= MEMORY_FULL_MS:
        return "memory"
    available, total = evidence.get("memory_available_bytes"), evidence.get("memory_total_bytes")
    if available is not None and total and available < SCARCE * total and evidence.get("self_pageins"):
        return "memory"
    if evidence.get("self_run_delay_ms", 0.0) >= WAITED * 1000 * gap_s:
        return "cpu"
    if evidence.get("pressure_io_full_ms_per_s", 0.0) >= IO_FULL_MS:
        return "io"
    busy = evidence.get("cpu_busy_cores", 0.0) >= BUSY * cpus
    # Where the time spent in the run queue is known, a busy machine that did not make us wait is not the cause.
    if busy and "self_run_delay_ms" not in evidence:
        return "cpu"
    return "unknown"


@dataclass(slots=True)
class Stall:
    """All tasks wait for memory or storage, since `start`; `waiting` are processes that were seen to wait."""

    resource: str
    start: float
    mono_ns: int
    worst: float = 0.0
    waiting: set[Key] = field(default_factory=set)


class Pauses:
    """The stage: appends a `pause` record to the tick in which a pause is known."""

    def __init__(self, settings: Pause) -> None:
        self._set = settings
        self._closing: Row | None = None
        self._stall: Stall | None = None

    def configure(self, config: Config) -> None:
        """Use these settings from the next tick on."""
        self._set = config.pause

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the pauses that ended with it."""
        if tick.row is not None:
            tick.records.extend(self._update(tick, tick.row))
        return tick

    def _update(self, tick: Tick, closing: Row) -> list[Record]:
        found: list[Record] = []
        before = self._closing
        if before is not None and before.get("boot_id") == closing.get("boot_id"):
            judged = closing
            if "continued" in before and before.get("late_s", 0.0) < self._set.late_s:
                # Stopped in the middle of the tick before: that counted the SIGCONT, and this one is late.
                judged = {**closing, "continued": before["continued"] + closing.get("continued", 0)}
            if self._paused(judged):
                found.append(self._late(judged))
                self._stall = None
            else:
                found += self._stalls(tick, closing, before)
        else:
            self._stall = None
        self._closing = closing
        return found

    def _paused(self, closing: Row) -> bool:
        """True when a late beat is a pause of the machine."""
        late = closing.get("late_s", 0.0)
        worked = closing.get("self_cpu_percent", 0.0) / 100 * (closing.get("interval_s") or 0.0)
        if late < self._set.late_s or worked >= WORKED * late:
            return False
        return bool(late >= SURE_S or cause(closing, late) != "unknown")

    def _late(self, closing: Row) -> Record:
        late = closing["late_s"]
        evidence = {name: closing[name] for name in EVIDENCE if name in closing}
        why = cause(evidence, late)
        start, lasted = closing["ts"] - late, late
        if self._stall is not None and why in ("memory", "io"):
            start, lasted = self._stall.start, (closing["mono_ns"] - self._stall.mono_ns) / 1e9
        return _record(closing, start, lasted, why, evidence)

    def _stalls(self, tick: Tick, closing: Row, before: Row) -> list[Record]:
        """Follow a stall, begin one, or end one."""
        full = {name: closing.get(f"pressure_{name}_full_ms_per_s", 0.0) for name in ("memory", "io")}
        resource = max(full, key=lambda name: (full[name] >= self._set.full_ms_per_s, name == "memory", full[name]))
        stalled = full[resource] >= self._set.full_ms_per_s
        stall = self._stall
        found: list[Record] = []
        if stall is not None:
            lasted = (closing["mono_ns"] - stall.mono_ns) / 1e9
            if not stalled or lasted >= self._set.longest_s:
                end = closing if stalled else before
                lasted = (end["mono_ns"] - stall.mono_ns) / 1e9
                if lasted >= self._set.full_s and len(stall.waiting) >= WAITERS:
                    evidence = {name: end[name] for name in EVIDENCE if name in end}
                    evidence[f"pressure_{stall.resource}_full_ms_per_s"] = stall.worst
                    evidence["interval_s"] = round(lasted, 3)
                    found.append(_record(end, stall.start, lasted, stall.resource, evidence))
                self._stall = stall = None
        if stalled:
            if stall is None:
                self._stall = stall = Stall(resource, before["ts"], before["mono_ns"])
            stall.worst = max(stall.worst, full[resource])
            _see_waiting(tick, stall)
            if resource == "memory":
                stall.resource = "memory"
        return found


def _record(closing: Row, start: float, lasted: float, why: str, evidence: Row) -> Record:
    return record("pause", ts=closing["ts"], pause=f"{closing['boot_id'][:8]}-{round(start * 1000)}",
                  boot_id=closing["boot_id"], start=round(start, 3), end=closing["ts"],
                  duration_s=round(lasted, 3), cause=why, culprits=[], evidence=evidence)


def _see_waiting(tick: Tick, stall: Stall) -> None:
    """Note which processes wait: in uninterruptible sleep, or for pages. The kernel's own threads work for others."""
    if len(stall.waiting) >= WAITERS:
        return
    for key, row in tick.processes.items():
        waits = row.get("state") == "uninterruptible" or row.get("pageins_per_s", 0.0) >= PAGEINS_WAIT
        if waits and row.get("ppid") != KTHREADD and not row.get("own"):
            stall.waiting.add(key)
