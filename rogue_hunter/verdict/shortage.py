"""What was short in one slice of time: for how much of the time other processes waited for a CPU, memory, a disk.

Use is no shortage: a full CPU for which nothing else waits is in good use. Every severity is a part of the time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rogue_hunter.sampling.units import KTHREADD
from rogue_hunter.verdict.model import Row, Slice, Taker, belongs, gives_way, in_group, number, total, uses
from rogue_hunter.verdict.takers import Ledger

DELAY = 0.05
"""Seconds per second that processes other than the largest consumer waited for a CPU, from which that counts. An idle
machine shows 0.005 to 0.02, a build with a free CPU 0.03."""
DELAYED = 0.15
"""Part of the time they wanted to run that they waited: less is the usual work of the scheduler."""
WAITED = 0.2
"""PSI (some) for CPU from which it counts where run delay is not known."""
BUSY = 0.65
"""Part of the CPUs in use from which PSI or load alone can mean a shortage."""
FULL = 0.9
"""Part of the CPUs in use from which they count as short where the kernel does not report who waited."""
IDLE = 0.8
"""Part of the CPUs in use below which waiting for a CPU is a matter of a quota, an affinity or a real-time process."""
IDLE_WAIT = 0.25
"""Waiting that needs that explanation, part of the time."""
LATE_S = 0.3
"""A beat that is later than this was delayed; the scheduler's own delays stay below 0.1 s on a full machine."""
MEMORY = 0.03
"""Part of the time in which tasks waited for memory, from which that counts."""
SCARCE = 0.1
"""Part of memory available below which it counts as short where the kernel does not report who waited."""
ROOMY = 0.2
"""Part of memory available above which memory pressure is that of a control group's own limit."""
REFAULT_S, REFAULTS = 1e-4, 0.1
"""What a page costs that a limit of memory evicted and that is read again (a solid state disk needs 80 us), and the
part of the time lost to that from which it counts. Where the disk is fast, pressure (PSI) hardly shows it."""
OOM_S = 2.0
"""What a kill for want of memory counts, seconds."""
PAGE = 4096
DISK = 0.1
"""Part of the time in which tasks waited for storage, from which that counts."""
STUCK = 0.05
"""Part of the slice that a process spent in uninterruptible sleep, from which it waited for storage."""
DEVICE_MS = 30.0
"""Average time of a request from which the device itself is slow; a hard disk needs 10 ms, a solid state one 0.2."""
TRAFFIC = 5e6
"""Bytes per second below which a disk is idle, and pressure alone no proof."""
FAST_DISK = 300e6
"""Traffic (bytes/s) that counts in full where the kernel does not report who waited; less, if it is usual."""
UNUSUAL = 5.0
"""How many times the usual is unusual."""
IDLE_DISK = 0.1
"""Time that requests to disks took, for each second in which tasks waited for storage, below which the disks are not
what they waited for."""
UNSEEN = 0.5
"""Part of the CPU use, or of what the disks moved, that no process explains, from which that is most of it."""
STEAL = 0.1
"""Part of the CPUs that the hypervisor gave to others, from which that counts."""

COLUMNS = ("seconds", "cpus", "cpu_busy_cores", "cpu_steal_cores", "memory_total_bytes", "memory_available_bytes",
           "pressure_cpu_some_ms_per_s", "pressure_memory_full_ms_per_s", "pressure_io_full_ms_per_s", "disk_bytes",
           "started", "self_cpu_percent")
"""Columns of the machine's history of which the usual is wanted."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """One slice: severity by resource (cpu, memory, disk, steal), and what is known about it.

    `idle` waiting for a CPU while CPUs were idle. `device` the disk answered slowly by itself. `idle_disk` tasks waited
    for storage, and not for a disk. `inferred` the severity of these resources does not come from processes that were
    seen to wait. `limited` are the control groups that a CPU quota of their own held back.
    """

    severity: Mapping[str, float]
    idle: bool = False
    device: bool = False
    idle_disk: bool = False
    inferred: Collection[str] = ()
    limited: Collection[str] = ()


def mostly(judged: Sequence[Shortage], weights: Sequence[float], name: str) -> bool:
    """Whether the slices of which this field holds have more than half of the weight."""
    return sum(weight for weight, one in zip(weights, judged, strict=True) if getattr(one, name)) > 0.5 * sum(weights)


def judge(one: Slice, usual: Mapping[str, float], limited: Collection[str] = (),
          readers: Collection[int] = (), crowded: Collection[str] = ()) -> Shortage:
    """What was short in a slice. `limited` are control groups that a CPU quota of their own held back then: their
    waiting is not a shortage of the machine. `crowded` are control groups that were at their limit of memory."""
    inferred: set[str] = set()
    cpu, idle = _cpu(one, limited, readers, inferred)
    memory = max(_memory(one.machine, one.seconds, inferred), _reread(one, crowded))
    disk, device = _disk(one, usual, readers, inferred)
    if memory > 0 and _paging(one):
        memory, disk = max(memory, disk), 0.0
    steal, cpus = number(one.machine, "cpu_steal_cores"), number(one.machine, "cpus")
    stolen = steal / cpus if steal is not None and cpus else 0.0
    severity = {"cpu": cpu, "memory": memory, "disk": disk, "steal": stolen if stolen >= STEAL else 0.0}
    return Shortage(severity, idle, device, disk > 0 and _idle_disk(one), inferred, limited)


def may_be_short(machine: Row) -> bool:
    """False for a slice in which `judge` finds nothing: a quick look, because a day has 17,280 of them. What is the
    sum of several slices (`summed`) shows no shortage: each of them was looked at."""
    if machine.get("summed"):
        return False
    cpus = machine.get("cpus") or 1
    memory = machine.get("memory_total_bytes") or 0
    seconds = max(float(machine.get("seconds") or 5.0), 0.001)
    psi = machine.get("pressure_cpu_some_ms_per_s")
    return ((machine.get("run_delay_ms_per_s") or 0.0) >= 1000 * DELAY
            or (psi is None and (machine.get("cpu_busy_cores") or 0.0) >= BUSY * cpus)
            or (psi or 0.0) >= 1000 * WAITED
            or (machine.get("pressure_memory_some_ms_per_s") or 0.0) >= 1000 * MEMORY
            or (machine.get("pressure_memory_full_ms_per_s") or 0.0) >= 1000 * MEMORY
            or (machine.get("memory_available_bytes", memory) or 0) < SCARCE * memory
            or (machine.get("pressure_io_some_ms_per_s") or 0.0) >= 1000 * DISK
            or (machine.get("pressure_io_full_ms_per_s") or 0.0) >= 1000 * DISK
            or (machine.get("disk_bytes") or 0) / seconds >= DISK * FAST_DISK
            or (machine.get("cpu_steal_cores") or 0.0) >= STEAL * cpus
            or (machine.get("device_wait_ms") or 0.0) >= DEVICE_MS
            or (machine.get("asleep_s") or 0.0) >= 1 or (machine.get("late_s") or 0.0) >= LATE_S
            or bool(machine.get("oom_kills")) or bool(machine.get("continued"))
            or (machine.get("self_cpu_percent") or 0.0) >= 10)


def others_delay(one: Slice, limited: Collection[str], readers: Collection[int],
                 first: Taker | None = None) -> tuple[float | None, float]:
    """Run delay (s/s) of all but one taker, the limited and those that give way by their nice value, and what these
    others used (cores). Without a taker it is the largest consumer of CPU in the slice.

    The machine's total has the delay of processes that have ended, too: the taker's part of it is that of its ended
    children in the CPU time of all that have no row. None: run delay is not known here.
    """
    rows = [row for row in one.processes if row.get("pid") not in readers]
    machine = number(one.machine, "run_delay_ms_per_s")
    if machine is None and not any("run_delay_s" in row and "start_ticks" in row for row in rows):
        return None, 0.0
    whole = machine / 1000 * one.seconds if machine is not None else sum(total(row, "run_delay_s") for row in rows)
    if first is None:
        first = next(iter(Ledger([one], [1.0], "cpu", readers=readers).rank(None, 1)), None)
        if unseen([one], first):
            first = None
    left, used = whole, total(one.machine, "cpu_busy_cores") * one.seconds
    of_unit = 0.0
    if first is not None:
        used -= first.amount
        if first.kind != "process" and first.root is not None:
            of_unit = max((total(g, "run_delay_s") for g in one.groups
                           if g.get("unit") == first.unit or g.get("pid") == first.root[1]), default=0.0)
    of_rows = ended = shown = 0.0
    for row in rows:
        shown += total(row, "run_delay_s")
        if belongs(row, first):
            of_rows += total(row, "run_delay_s")
            ended += total(row, "children_cpu_seconds")
        elif gives_way(row) or any(in_group(row, group) for group in limited):
            left -= total(row, "run_delay_s")
            used -= total(row, "cpu_seconds", "children_cpu_seconds")
    if ended and machine is not None:
        rest = total(one.machine, "cpu_busy_cores") * one.seconds - sum(total(row, "cpu_seconds") for row in rows)
        left -= min(1.0, ended / max(rest, ended)) * max(0.0, whole - shown)
    left -= max(of_rows, of_unit)
    return max(0.0, left) / one.seconds, max(0.0, used) / one.seconds


def unseen(slices: Sequence[Slice], first: Taker | None) -> bool:
    """Whether most of the CPU use was that of interrupts, or of processes that cannot be seen (hidepid of proc(5), a
    container): UNSEEN of all, and more than that of the largest process that is seen."""
    hidden, busy = (sum(total(one.machine, name) * one.seconds for one in slices)
                    for name in ("unattributed_cpu_cores", "cpu_busy_cores"))
    return hidden >= UNSEEN * busy > 0 and (first is None or first.amount < hidden)


def unread(slices: Sequence[Slice], weights: Sequence[float]) -> bool:
    """Whether most of what the disks moved in the slices with weight was not that of processes whose I/O is known."""
    used = [one for one, weight in zip(slices, weights, strict=True) if weight > 0]
    moved = sum(total(one.machine, "device_bytes") for one in used)
    seen = sum(max(total(one.machine, "disk_bytes"), sum(sum(uses(row, "disk")) for row in one.processes))
               for one in used)
    return seen <= (1 - UNSEEN) * moved and any(total(one.machine, "unreadable") for one in used)


def _cpu(one: Slice, limited: Collection[str], readers: Collection[int],
         inferred: set[str]) -> tuple[float, bool]:
    machine = one.machine
    busy, cpus = number(machine, "cpu_busy_cores"), number(machine, "cpus")
    if busy is None or not cpus or one.seconds <= 0:
        return 0.0, False
    part = busy / cpus
    waited = number(machine, "pressure_cpu_some_ms_per_s")
    delay, used = others_delay(one, limited, readers)
    found = 0.0
    if delay is not None:
        if delay >= DELAY and delay >= DELAYED * (delay + used) and (waited is None or waited >= 1000 * DELAY):
            # Two thousand processes that wait 5 ms each did not lose ten seconds: PSI has the time in which any waited.
            found = min(1.0, delay, waited / 1000 if waited is not None else 1.0)
    elif waited is not None:
        found = waited / 1000 if part >= BUSY and waited >= 1000 * WAITED and not limited else 0.0
        inferred.add("cpu")
    else:
        found = max(0.0, part - FULL) / (1 - FULL) if part >= FULL else 0.0
        inferred.add("cpu")
    found = max(found, _late(one, part))
    # A first tick by itself has the pressure of the seconds before it.
    idle = one.seconds >= 1 and idles(machine) and max(delay or 0.0, (waited or 0.0) / 1000) >= IDLE_WAIT
    return found, idle


def idles(machine: Row) -> bool:
    """True when CPUs were idle all the time: no tick of the slice had all of them in use."""
    most = [n for n in (number(machine, "cpu_busy_cores"), number(machine, "cpu_busy_cores_max")) if n is not None]
    return bool(most) and max(most) <= IDLE * total(machine, "cpus")


def _late(one: Slice, part: float) -> float:
    """The part of the slice in which even the beat did not get a CPU."""
    late = number(one.machine, "late_s") or 0.0
    queued = number(one.machine, "self_run_delay_ms")
    if late < LATE_S or (number(one.machine, "self_throttled_ms") or 0.0) >= 500 * late:
        return 0.0
    if queued >= 500 * late if queued is not None else part >= FULL:
        return min(1.0, late / one.seconds)
    return 0.0


def _memory(machine: Row, seconds: float, inferred: set[str]) -> float:
    some = number(machine, "pressure_memory_some_ms_per_s")
    full = number(machine, "pressure_memory_full_ms_per_s")
    available, whole = number(machine, "memory_available_bytes"), number(machine, "memory_total_bytes")
    found = 0.0
    if some is not None or full is not None:
        waited = max(full or 0.0, 0.5 * (some or 0.0)) / 1000
        found = waited if waited >= MEMORY else 0.0
    elif available is not None and whole and available < SCARCE * whole:
        inferred.add("memory")
        found = (SCARCE * whole - available) / (SCARCE * whole)
    if machine.get("oom_kills"):
        found = max(found, min(1.0, OOM_S * float(machine["oom_kills"]) / max(seconds, 1e-3)))
    return found


def _reread(one: Slice, crowded: Collection[str]) -> float:
    """The part of the time that processes at a limit of memory spent on reading evicted pages again."""
    if not crowded:
        return 0.0
    paged = sum(total(row, "pageins") for row in one.processes if any(in_group(row, group) for group in crowded))
    lost = REFAULT_S * max(total(one.machine, "refaults"), paged) / max(one.seconds, 1e-3)
    return min(1.0, lost) if lost >= REFAULTS else 0.0


def _paging(one: Slice) -> bool:
    """The disk traffic is that of memory: pages that were evicted and are read again, or written to swap."""
    machine = one.machine
    moved = max(total(machine, "device_bytes"), total(machine, "disk_bytes"))
    refaults, pressure = number(machine, "refaults"), total(machine, "pressure_memory_full_ms_per_s")
    some = max(total(machine, "pressure_memory_some_ms_per_s"), pressure)
    if refaults is not None and refaults * PAGE >= 0.3 * moved:
        return True
    return some >= 0.3 * max(total(machine, "pressure_io_some_ms_per_s"), total(machine, "pressure_io_full_ms_per_s"))


def _disk(one: Slice, usual: Mapping[str, float], readers: Collection[int], inferred: set[str]) -> tuple[float, bool]:
    machine = one.machine
    full, some = number(machine, "pressure_io_full_ms_per_s"), number(machine, "pressure_io_some_ms_per_s")
    moved = max(total(machine, "device_bytes"), total(machine, "disk_bytes")) / max(one.seconds, 1e-3)
    if full is None and some is None:
        inferred.add("disk")
        fast = moved / FAST_DISK
        return (min(1.0, fast) if fast >= 0.2 and moved >= UNUSUAL * usual.get("disk_bytes", 0.0) else 0.0), False
    waited = max(full or 0.0, 0.5 * (some or 0.0)) / 1000
    answer = number(machine, "device_wait_ms")
    slow = answer is not None and answer >= DEVICE_MS
    if waited < DISK:
        return 0.0, False
    stuck = number(machine, "uninterruptible")
    if not knows_waiters(one):
        inferred.add("disk")
        return (waited if moved >= TRAFFIC or "disk_bytes" not in machine else 0.0), False
    others = waiters(one, readers)
    if others or (stuck or 0) >= 2:
        return waited, slow and moved < TRAFFIC
    if slow:
        return waited, moved < TRAFFIC
    return 0.0, False


def _idle_disk(one: Slice) -> bool:
    """Tasks waited for storage, but the disks had next to nothing to do: it is a network or FUSE file system, a limit,
    or a device that does not answer."""
    machine = one.machine
    spent = number(machine, "device_requests_s")
    waited = max(total(machine, "pressure_io_full_ms_per_s"), total(machine, "pressure_io_some_ms_per_s")) / 1000
    moved = max(total(machine, "device_bytes"), total(machine, "disk_bytes"))
    return spent is not None and spent < IDLE_DISK * waited * one.seconds and moved < TRAFFIC * one.seconds


def knows_waiters(one: Slice) -> bool:
    """Whether the slice has the processes that waited for storage; the history of minutes does not."""
    return "uninterruptible" in one.machine or any("uninterruptible_s" in row for row in one.processes)


def waiters(one: Slice, readers: Collection[int] = ()) -> list[Row]:
    """Processes that waited for storage, but for the one that moved most; and where not all I/O may be read, for the
    one of unknown I/O that waited most, too."""
    rows = [row for row in one.processes if row.get("pid") not in readers and not row.get("own")
            and row.get("ppid") != KTHREADD]
    first = max(rows, key=lambda row: sum(uses(row, "disk")), default=None)
    hidden = max((row for row in rows if "disk_bytes" not in row and one.machine.get("unreadable")),
                 key=lambda row: total(row, "uninterruptible_s"), default=None)
    return [row for row in rows if row is not first and row is not hidden
            and total(row, "uninterruptible_s") >= STUCK * one.seconds]


# -- what is usual -----------------------------------------------------------------------------------------------------

def usual(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each of COLUMNS over these rows; disk_bytes and started as rates. Empty below ten rows."""
    if len(rows) < 10:
        return {}
    found: dict[str, float] = {}
    for name in COLUMNS:
        values = [rate(m, name) if name in ("disk_bytes", "started") else m[name] for m in rows if name in m]
        if values:
            found[name] = median(values)
    return found


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number of them, the lower of the two in the middle, which was measured."""
    return sorted(values)[(len(values) - 1) // 2]


def rate(row: Mapping[str, Any], name: str) -> float:
    """A sum of a slice or a minute, per second."""
    return float(row.get(name, 0)) / max(float(row.get("seconds") or 60.0), 0.001)
