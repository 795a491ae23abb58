"""The causes that a window shows: resources that were short, delays of the machine, and what used most without harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rogue_hunter.sampling.units import KTHREADD
from rogue_hunter.verdict import shortage
from rogue_hunter.verdict.model import (
    REALTIME,
    Cause,
    Key,
    Row,
    Slice,
    Taker,
    Victim,
    Window,
    belongs,
    gives_way,
    in_group,
    key_of,
    name_of,
    number,
    total,
)
from rogue_hunter.verdict.shortage import Shortage
from rogue_hunter.verdict.takers import FORWARDED, Ledger

NAMED = 0.2
"""A taker with less than this share of what was used is not named as the cause, unless it stands far above the next."""
NAMED_REALTIME = 0.05
"""The same of a real-time process, which holds up all others."""
EQUAL = 0.8
"""A taker with this part of the first one's use is behind the shortage too, and no victim of it."""
VICTIM_PAGES = 50
"""Pages read back from which a process is a victim of a shortage of memory."""
LOST_S = 0.5
"""Lost time below which a shortage is not reported: the scheduler and the disk always cost a little."""
LOST_PART = 0.1
"""The same as a part of a window that is shorter than five seconds."""
UNKNOWN = 0.3
"""What a delay without evidence counts, compared with a shortage that was measured."""
LATE_S = 0.5
"""A late beat that is reported although nothing explains it."""

CAUSE_OF = {"disk": "io", "waiting": "io", "growth": "memory"}
"""Resource -> the word of the records, where it differs."""
USE_CORES, USE_CPU_S = 0.05, 0.3
"""Cores, and CPU seconds, from which use is worth a sentence."""
USE_BYTES, USE_RATE = 20e6, 5e6
"""Bytes, and bytes per second, from which disk traffic is."""
USE_GROWTH = 0.03
"""Part of the machine's memory that a process took, from which that is."""
USE_WAKEUPS, USE_GPU = 2000.0, 0.2
FULL_WAKEUPS = 100_000
"""Wakeups per second that count as a fully used machine: 10 us each."""
WORKS = 0.1
"""CPU time for each second of waiting for storage, from which a process may move much. dd with direct I/O has 0.2,
random reads of 64 KiB 0.04, a journal that syncs 50 times a second 0.02."""
MOST = 0.6
"""Part of the time that processes of unknown I/O wait, from which one of them is named."""
CLEAR = 4
"""How many times as long as those that work a process must have waited that hardly works itself."""
ITS_REQUESTS = (0.5, 4.0)
"""Time that the user of the disks waited, as a part of the time that all requests took. Less is that of a victim, more
is waiting for something else, such as a lock. A loop of fsync waits for the kernel's journal: 1.5 to 3.4."""
QUEUED = 0.05
"""Run delay for each second of use of a process that competes for a CPU: one that never queues runs on other CPUs."""
USE_STUCK = 0.3
"""Part of the time in uninterruptible sleep from which a process uses the disk, however few bytes it moves."""
BUSY_DISK = 200e6
"""Bytes per second that count as one fully used disk."""
GROWTH_S = 20.0
"""Seconds of a fully used machine that taking all of its memory counts as."""
GPU_FULL = 0.9


# -- readings of a window ----------------------------------------------------------------------------------------------

def pause_overlap(pause: Row, one: Slice) -> float:
    """Seconds of a slice in which the pause lasted."""
    return max(0.0, min(float(pause["end"]), one.end) - max(float(pause["start"]), one.start))


def lost_s(window: Window, weights: Sequence[float]) -> float:
    """The seconds of the window, weighted."""
    return sum(weight * one.seconds for weight, one in zip(weights, window.slices, strict=True))


def least(window: Window) -> float:
    """The lost time from which a shortage of the window is reported."""
    return min(LOST_S, LOST_PART * window.seconds) if window.seconds else LOST_S


def worst_span(window: Window, weights: Sequence[float]) -> tuple[float, float]:
    """The beginning (epoch seconds) of the worst run of slices with weight, and the seconds of all of them."""
    best, start, run, seconds, run_start = -1.0, window.since, 0.0, 0.0, window.since
    inside = False
    for weight, one in zip(weights, window.slices, strict=True):
        if weight > 0:
            if not inside:
                run, run_start = 0.0, one.start
            run += weight * one.seconds
            seconds += one.seconds
            if run > best:
                best, start = run, run_start
        inside = weight > 0
    return start, seconds


def machine_total(slices: Sequence[Slice], weights: Sequence[float], resource: str) -> float | None:
    """The machine's total of a resource in the slices with weight, of `waiting` the time that all requests to the disks
    took; None when it is not known."""
    used = [one for one, weight in zip(slices, weights, strict=True) if weight > 0]
    if resource == "cpu":
        known = [(number(one.machine, "cpu_busy_cores"), one.seconds) for one in used]
        return None if any(busy is None for busy, _ in known) else sum((busy or 0.0) * s for busy, s in known)
    if resource == "disk":
        if any("device_bytes" in one.machine for one in used):
            return sum(total(one.machine, "device_bytes") for one in used)
        return sum(total(one.machine, "disk_bytes") for one in used) or None
    if resource == "waiting":
        return sum(total(one.machine, "device_requests_s") for one in used) or None
    if resource in ("memory", "growth"):
        return max((total(one.machine, "memory_total_bytes") for one in used), default=0.0) or None
    return None


def nameable(takers: Sequence[Taker]) -> Taker | None:
    """The taker that can be named: it has a good part, or far more than the next."""
    if not takers:
        return None
    first = takers[0]
    next_share = takers[1].share if len(takers) > 1 else 0.0
    alone = first.policy in REALTIME and first.share >= NAMED_REALTIME
    return first if alone or first.share >= NAMED or first.share >= max(0.1, 2 * next_share) else None


def worst_row(window: Window, weights: Sequence[float]) -> Row:
    """The machine's row of the slice with the highest weight."""
    index = max(range(len(weights)), key=lambda n: weights[n])
    return window.slices[index].machine


def readings(row: Row, *names: str) -> dict[str, float]:
    """Those of the fields that the row has."""
    return {name: row[name] for name in names if row.get(name) is not None}


def pause_readings(window: Window, cause: str) -> dict[str, float]:
    """How many pauses of a cause the window has, their seconds, and the number of the longest."""
    these = [p for p in window.pauses if p.get("cause") == cause]
    if not these:
        return {}
    longest = max(these, key=lambda p: float(p["duration_s"]))
    return {"pauses": len(these), "pause_s": round(sum(float(p["duration_s"]) for p in these), 3),
            **readings(longest, "id")}


# -- shortages ---------------------------------------------------------------------------------------------------------

def cpu_cause(window: Window, weights: Sequence[float], judged: Sequence[Shortage]) -> Cause | None:
    """Who had the CPUs while others waited for one."""
    lost = lost_s(window, weights)
    whole = machine_total(window.slices, weights, "cpu")
    spans = [one for one, weight in zip(window.slices, weights, strict=True) if weight > 0]
    idle = shortage.mostly(judged, weights, "idle")
    takers = Ledger(window.slices, weights, "cpu", readers=window.readers).rank(whole)
    unseen = shortage.unseen(spans, takers[0] if takers else None)
    who = None if unseen else nameable(takers)
    if idle and who is not None and not _competes(spans, who):
        who, takers = None, []
    start, seconds = worst_span(window, weights)
    numbers = readings(worst_row(window, weights), "cpu_busy_cores", "cpu_busy_cores_max", "cpus",
                       "pressure_cpu_some_ms_per_s", "started", "unattributed_cpu_cores", "unreadable")
    waited = [(shortage.others_delay(s, one.limited, window.readers, who)[0], s.seconds)
              for one, weight, s in zip(judged, weights, window.slices, strict=True) if weight > 0]
    if any(part is not None for part, _ in waited):
        numbers["waited_s"] = round(sum((part or 0.0) * s for part, s in waited), 3)
    numbers.update(pause_readings(window, "cpu"))
    details = {"unseen": "yes"} if unseen else {}
    if idle:
        bound = next((limit for limit in window.limits if limit.get("kind") == "affinity"), None)
        if who is not None and who.policy in REALTIME:
            details["while_idle"] = "realtime"
        else:
            details["while_idle"] = "affinity" if bound is not None else "unknown"
    victims = _victims(window, weights, [one for one in takers if who and one.share >= EQUAL * who.share], 0.1, _delay)
    if details.get("while_idle") == "unknown" and not victims and "pauses" not in numbers:
        return None     # many processes started at once: each waited for a moment, and CPUs were idle
    inferred = all("cpu" in one.inferred for one, weight in zip(judged, weights, strict=True) if weight > 0)
    return Cause("shortage", "cpu", "cpu", 0.0, lost, start, seconds, who, tuple(takers), victims,
                 "inferred" if inferred else "measured", numbers, details)


def _competes(spans: Sequence[Slice], who: Taker) -> bool:
    """Whether a taker can have had the CPUs for which others waited while CPUs were idle: it is a real-time process, or
    queued itself while they ran, which is not known of short-lived children, nor of members that are not listed."""
    used = queued = theirs = 0.0
    for one in spans:
        for row in one.processes:
            if belongs(row, who) and "run_delay_s" in row:
                used, queued = used + total(row, "cpu_seconds"), queued + total(row, "run_delay_s")
            elif _delay(one, row)[0] > 0 and not belongs(row, who):
                theirs += total(row, "cpu_seconds")
    return who.policy in REALTIME or used < 0.5 * who.amount or queued >= min(QUEUED * used, 0.5 * theirs)


def _victims(window: Window, weights: Sequence[float], behind: Sequence[Taker | None], least: float,
             measure: Callable[[Slice, Row], tuple[float, float]]) -> tuple[Victim, ...]:
    """The processes that waited most and are not behind it: at least `least` seconds, or for VICTIM_PAGES pages, as
    `measure` reads seconds and pages from a row."""
    found: dict[Key, Victim] = {}
    for weight, one in zip(weights, window.slices, strict=True):
        for row in one.processes if weight > 0 else ():
            key = key_of(row)
            if key is None or row.get("own") or row.get("pid") in window.readers or \
                    row.get("ppid") == KTHREADD or any(belongs(row, who) for who in behind):
                continue
            waited, pages = measure(one, row)
            old = found.get(key, Victim(key, name_of(row)))
            found[key] = replace(old, waited_s=round(old.waited_s + waited, 3), pageins=int(old.pageins + pages))
    worth = [one for one in found.values() if one.waited_s >= least or one.pageins >= VICTIM_PAGES]
    return tuple(sorted(worth, key=lambda one: -(one.pageins + 100 * one.waited_s))[:5])


def _delay(one: Slice, row: Row) -> tuple[float, float]:
    """The seconds in which it queued for a CPU, if they were a good part of the time in which it wanted to run."""
    delay = 0.0 if gives_way(row) else total(row, "run_delay_s")
    return (delay if delay >= 0.1 * (delay + total(row, "cpu_seconds")) else 0.0), 0


def _stuck(one: Slice, row: Row) -> tuple[float, float]:
    """The seconds in which it waited for storage."""
    return total(row, "uninterruptible_s"), 0


def memory_takers(window: Window, weights: Sequence[float]) -> tuple[list[Taker], str, str]:
    """Who holds or took the memory that was short; the control group whose limit it is, empty for the machine; and what
    the amounts are: held, growth or pageins."""
    slices = window.slices
    whole = machine_total(slices, weights, "memory") or 0.0
    free = max((total(one.machine, "memory_available_bytes") for one, weight in zip(slices, weights, strict=True)
                if weight > 0), default=0.0)
    group = ""
    if whole and free >= shortage.ROOMY * whole:
        group = _crowded(window, weights)
        pagers = Ledger(slices, weights, "pageins", readers=window.readers).rank(None)
        if group:
            bound = next((float(limit["limit"]) for limit in window.limits
                          if limit.get("cgroup") == group and limit.get("limit")
                          and limit.get("kind") in ("memory", "oom_kill")), None)
            held = Ledger(slices, weights, "memory", readers=window.readers,
                          within=lambda row: in_group(row, group)).rank(bound)
            if held and held[0].share >= NAMED:
                return held, group, "held"
            # Pages of files are no process's own: who has them read again and again fills the group.
            inner = Ledger(slices, weights, "pageins", readers=window.readers,
                           within=lambda row: in_group(row, group)).rank(None)
            if inner or held:
                return (inner, group, "pageins") if inner else (held, group, "held")
        if pagers:
            return pagers, group, "pageins"
    grown = Ledger(slices, weights, "growth", readers=window.readers).rank(None)
    if grown and grown[0].amount >= 0.01 * whole > 0:
        return grown, "", "growth"
    return Ledger(slices, weights, "memory", readers=window.readers).rank(whole or None), "", "held"


def _crowded(window: Window, weights: Sequence[float]) -> str:
    """The control group at its limit of memory whose processes read most of evicted pages; empty without one."""
    spans = [one for one, weight in zip(window.slices, weights, strict=True) if weight > 0]
    read: dict[str, float] = {}
    for limit in window.limits:
        group, ts = str(limit.get("cgroup") or ""), float(limit["ts"])
        if limit.get("kind") in ("memory", "oom_kill") and group and group not in read:
            near = [one for one in spans if one.start <= ts <= one.end + window.resolution_s]
            if near:
                read[group] = sum(total(row, "pageins") + total(row, "disk_bytes") / shortage.PAGE
                                  for one in near for row in one.processes if in_group(row, group))
    return max(read, key=lambda group: read[group], default="")


def memory_cause(window: Window, weights: Sequence[float], judged: Sequence[Shortage]) -> Cause:
    """Who holds or took the memory that was short, of the machine or of a control group."""
    lost = lost_s(window, weights)
    takers, group, measure = memory_takers(window, weights)
    who = nameable(takers)
    start, seconds = worst_span(window, weights)
    numbers = readings(worst_row(window, weights), "memory_available_bytes", "memory_total_bytes",
                       "pressure_memory_some_ms_per_s", "pressure_memory_full_ms_per_s", "refaults",
                       "direct_reclaims", "oom_kills", "unreadable")
    numbers.update(pause_readings(window, "memory"))
    bound = next((limit for limit in window.limits if limit.get("cgroup") == group and limit.get("limit")), None)
    if group and bound is not None:
        numbers["limit"] = float(bound["limit"])

    def paged(one: Slice, row: Row) -> tuple[float, float]:
        """Pages that it read back by faults, or by calls, as far as evicted pages were read again."""
        if group and not in_group(row, group):
            return 0.0, 0
        read = min(total(row, "disk_bytes"), shortage.PAGE * total(one.machine, "refaults")) if group else 0.0
        return total(row, "uninterruptible_s"), max(total(row, "pageins"), read / shortage.PAGE)

    victims = _victims(window, weights, [who], 0.25, paged)
    inferred = all("memory" in one.inferred for one, weight in zip(judged, weights, strict=True) if weight > 0)
    kind = "limit" if group and not victims else "shortage"
    return Cause(kind, "memory", "memory", 0.0, lost, start, seconds, who, tuple(takers), victims,
                 "inferred" if inferred or (group and bound is None) else "measured", numbers,
                 {"measure": measure, **({"cgroup": group} if group else {})})


def disk_cause(window: Window, weights: Sequence[float], judged: Sequence[Shortage]) -> Cause:
    """Who used the disks while others waited for them, or the disk that answers slowly."""
    lost = lost_s(window, weights)
    takers = Ledger(window.slices, weights, "disk", readers=window.readers).rank(
        machine_total(window.slices, weights, "disk"))
    who = nameable(takers)
    start, seconds = worst_span(window, weights)
    worst = worst_row(window, weights)
    numbers = readings(worst, "disk_bytes", "device_bytes", "device_wait_ms", "pressure_io_some_ms_per_s",
                       "pressure_io_full_ms_per_s", "unreadable")
    numbers["disk_bytes_per_s"] = round(max(total(worst, "device_bytes"), total(worst, "disk_bytes"))
                                        / max(float(worst.get("seconds") or window.resolution_s), 1e-3))
    numbers.update(pause_readings(window, "io"))
    inferred = all("disk" in one.inferred for one, weight in zip(judged, weights, strict=True) if weight > 0)
    slow, idle = (shortage.mostly(judged, weights, name) for name in ("device", "idle_disk"))
    stuck = _victims(window, weights, [None if idle else who], 0.25, _stuck)
    if slow or idle:
        return Cause("device", "disk", "io", 0.0, lost, start, seconds, None, () if idle else tuple(takers), stuck,
                     "measured", numbers, {"idle": "yes"} if idle else {})
    details = {"unread": "yes"} if shortage.unread(window.slices, weights) else {}
    if details:
        spent_s = machine_total(window.slices, weights, "waiting") or 0.0
        numbers.update({"device_requests_s": round(spent_s, 3)} if spent_s else {})
        who = _unreadable_taker(window, weights, spent_s)
        if who is not None:
            takers, inferred, details = [], True, {"measure": "waiting"}
            stuck = _victims(window, weights, [who], 0.25, _stuck)
    return Cause("shortage", "disk", "io", 0.0, lost, start, seconds, who, tuple(takers), stuck,
                 "inferred" if inferred or (who is not None and who.forwarder) else "measured", numbers, details)


def _unreadable_takers(window: Window, weights: Sequence[float], works: float = 0.0) -> list[Taker]:
    """The processes whose I/O only root may read, by the time that they waited for storage; with `works` only those
    that used so much CPU time for each second of it."""
    return Ledger(window.slices, weights, "waiting", readers=window.readers, within=lambda row: (
        "disk_bytes" not in row and row.get("ppid") != KTHREADD and
        total(row, "cpu_seconds", "children_cpu_seconds") >= works * total(row, "uninterruptible_s"))).rank(None)


def _unreadable_taker(window: Window, weights: Sequence[float], requests_s: float) -> Taker | None:
    """The process that probably uses the disks, of those whose I/O only root may read. `requests_s` is the time that
    all requests to the disks took.

    By Little's law that time is what all together waited for their requests, of which the user has at least half. A
    victim that waits for one request at a time does not reach that: those of the user are outstanding all the time,
    too, whether it waits for them or not. A process that hardly works must wait far longer than all that do.
    """
    waiting, working = (_unreadable_takers(window, weights, works) for works in (0.0, WORKS))
    clear = [one for one in waiting[:1] if one.amount >= CLEAR * sum(
        other.amount for other in working if not other.keys & one.keys)]
    low, high = (part * requests_s for part in ITS_REQUESTS)
    return next((one for one in (*clear, *working[:1]) if one.share >= MOST and low <= one.amount <= high
                 and one.amount >= USE_STUCK * one.seconds), None)


def steal_cause(window: Window, weights: Sequence[float]) -> Cause:
    """The hypervisor gave CPUs to others."""
    start, seconds = worst_span(window, weights)
    return Cause("machine", "steal", "steal", 0.0, lost_s(window, weights), start, seconds,
                 numbers=readings(worst_row(window, weights), "cpu_steal_cores", "cpus"))


def gpu_cause(window: Window, recency: Sequence[float]) -> Cause | None:
    """A GPU that is in use all the time: what waits for it is not known to the kernel."""
    weights = [recent if sum(total(row, "gpu_seconds") for row in one.processes) >= GPU_FULL * one.seconds else 0.0
               for recent, one in zip(recency, window.slices, strict=True)]
    if not any(weights):
        return None
    takers = Ledger(window.slices, weights, "gpu", readers=window.readers).rank(None)
    start, seconds = worst_span(window, weights)
    return Cause("shortage", "gpu", "gpu", 0.0, 0.5 * lost_s(window, weights), start, seconds, nameable(takers),
                 tuple(takers), (), "inferred",
                 {"gpu_seconds_per_s": round(sum(one.amount for one in takers) / seconds, 3)})


# -- the machine, rogue-hunter, use ------------------------------------------------------------------------------------

def machine_causes(window: Window, severity: Mapping[str, Sequence[float]]) -> list[Cause]:
    """Sleep, the hypervisor, a stop of rh-pipe, and delays without evidence: no process is to blame."""
    found = []
    asleep = [one for one in window.slices if total(one.machine, "asleep_s") >= 1]
    if asleep:
        slept = sum(total(one.machine, "asleep_s") for one in asleep)
        found.append(Cause("machine", "asleep", "asleep", 0.0, slept, asleep[0].start, slept,
                           numbers={"asleep_s": round(slept, 3)}))
    for cause in ("stopped", "steal", "suspend", "clock", "unknown"):
        these = [p for p in window.pauses if p.get("cause") == cause]
        if not these or (cause == "suspend" and asleep):
            continue
        longest = max(these, key=lambda p: float(p["duration_s"]))
        lost = sum(float(p["duration_s"]) for p in these) * (UNKNOWN if cause in ("unknown", "clock") else 1.0)
        evidence = longest.get("evidence") or {}
        found.append(Cause("machine", cause, {"suspend": "asleep", "clock": "unknown"}.get(cause, cause), 0.0,
                           max(LOST_S, lost), float(longest["start"]), sum(float(p["duration_s"]) for p in these),
                           confidence="unknown" if cause == "unknown" else "measured",
                           numbers={**pause_readings(window, cause), **readings(
                               evidence, "cpu_steal_cores", "cpu_counted_cores", "cpus", "self_run_delay_ms",
                               "clock_step_s")}))
    late = [one for index, one in enumerate(window.slices) if total(one.machine, "late_s") >= LATE_S
            and not any(parts[index] for parts in severity.values())
            and not any(pause_overlap(pause, one) > 0 for pause in window.pauses)]
    for stopped in (True, False):
        these_late = [one for one in late if bool(one.machine.get("continued")) is stopped
                      and total(one.machine, "self_throttled_ms") < 500 * total(one.machine, "late_s")]
        if these_late and not (stopped and any(one.resource == "stopped" for one in found)):
            worst = max(these_late, key=lambda one: total(one.machine, "late_s"))
            seconds = total(worst.machine, "late_s")
            found.append(Cause("machine", "stopped" if stopped else "late", "stopped" if stopped else "unknown", 0.0,
                               max(LOST_S, seconds * (1.0 if stopped else UNKNOWN)), worst.start, seconds,
                               confidence="measured" if stopped else "unknown",
                               numbers=readings(worst.machine, "late_s", "self_run_delay_ms")))
    return found


def use_causes(window: Window, recency: Sequence[float]) -> list[Cause]:
    """What used most while nothing was short: one cause for each taker, by the resource of which it used most."""
    slices = window.slices
    if not slices:
        return []
    cpus = max((total(one.machine, "cpus") for one in slices), default=0.0) or 1.0
    memory = machine_total(slices, recency, "growth") or 0.0
    found: list[Cause] = []

    def add(resource: str, taker: Taker, amount: float) -> None:
        start, seconds = taker.start, taker.seconds
        worst = max(slices, key=lambda one: total(one.machine, "cpu_busy_cores")).machine
        held = resource == "cpu" and taker.rate <= shortage.IDLE * cpus and _held_back(slices)
        numbers = {**readings(worst, "cpu_busy_cores", "cpus"), **({"waiting_while_idle": 1.0} if held else {})}
        weight = FORWARDED if taker.forwarder else 1.0
        found.append(Cause("use", {"waiting": "disk", "growth": "memory"}.get(resource, resource),
                           CAUSE_OF.get(resource, resource), 0.0, weight * amount, start, seconds, taker,
                           () if resource == "waiting" else (taker,), numbers=numbers,
                           details={"measure": resource} if resource == "waiting" else {}))

    def ranked(resource: str) -> list[Taker]:
        ledger = Ledger(slices, recency, resource, readers=window.readers)
        return ledger.rank(machine_total(slices, recency, resource), 3)

    for one in ranked("cpu"):
        if one.rate >= USE_CORES and one.amount >= USE_CPU_S:
            add("cpu", one, one.amount / cpus)
    stuck = {one.key: one for one in ranked("waiting") if one.amount >= USE_STUCK * one.seconds}
    for one in ranked("disk"):
        waited = stuck[one.key].amount if one.key in stuck else 0.0
        if (one.rate >= USE_RATE and one.amount >= USE_BYTES) or waited >= 1:
            add("disk", one, 0.5 * max(one.amount / BUSY_DISK, waited))
    for one in _unreadable_takers(window, recency)[:3]:
        most = ITS_REQUESTS[1] * (machine_total(slices, recency, "waiting") or 0.0)
        if max(1.0, USE_STUCK * one.seconds) <= one.amount <= most:
            add("waiting", one, 0.5 * one.amount)
    for one in ranked("growth"):
        if memory and one.amount >= USE_GROWTH * memory:
            add("growth", one, GROWTH_S * one.amount / memory)
    for one in ranked("gpu"):
        if one.rate >= USE_GPU:
            add("gpu", one, 0.5 * one.amount)
    for one in ranked("wakeups"):
        if one.rate >= USE_WAKEUPS:
            add("wakeups", one, one.amount / FULL_WAKEUPS)
    return merge(found)[:5]


def _held_back(slices: Sequence[Slice]) -> bool:
    """Something waited for a CPU a good part of the time although CPUs were idle."""
    return any(total(one.machine, "pressure_cpu_some_ms_per_s") >= 1000 * shortage.IDLE_WAIT
               and shortage.idles(one.machine) for one in slices)


# -- one cause for each taker ------------------------------------------------------------------------------------------

def merge(found: Iterable[Cause]) -> list[Cause]:
    """One cause for each taker, the one to which most time was lost. Being held back by a limit, and threads that queue
    for one lock, come before all: they are why it uses or waits."""
    kept: list[Cause] = []
    for one in sorted(found, key=lambda one: (one.kind != "limit" and one.resource != "mutex", -one.lost_s)):
        if one.who is None or not any(_same(one.who, other.who) for other in kept if other.who is not None):
            kept.append(one)
    return kept


def _same(one: Taker, other: Taker | None) -> bool:
    if other is None:
        return False
    if one.keys and other.keys:
        return bool(one.keys & other.keys)
    return (one.kind, one.unit, one.command) == (other.kind, other.unit, other.command)
