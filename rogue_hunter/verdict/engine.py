"""The verdict: from a window of evidence to ranked causes. One pure function, used by every answer of the product.

What was short comes first, slice by slice; then who took it while it was short, and who waited. Causes are ranked by
the time that was lost to them. If nothing was short, the largest user is named as use, which is no accusation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rogue_hunter.verdict import shortage
from rogue_hunter.verdict.causes import (
    cpu_cause,
    disk_cause,
    gpu_cause,
    least,
    lost_s,
    machine_causes,
    machine_total,
    memory_cause,
    merge,
    pause_overlap,
    readings,
    steal_cause,
    use_causes,
)
from rogue_hunter.verdict.held import limits, waits
from rogue_hunter.verdict.model import Cause, Slice, Verdict, Window, gives_way, number, total
from rogue_hunter.verdict.shortage import Shortage

HALF_S = 10.0
"""Lost seconds that give half of the points above NOTICED."""
NOTICED = 20.0
"""Points of the smallest shortage; use has fewer."""
RECENT_S = 15.0
"""For a question about now, a slice this old counts half."""
STEADY_CORES, STEADY_S = 0.8, 5.0
"""Cores of its own and seconds in the tracking band from which a process that nothing waited for stands out."""
OWN_CORES = 0.1
"""CPU use of rogue-hunter itself, over the window, from which it is a cause: twice its budget."""

RESOURCE_OF = {"cpu": "cpu", "memory": "memory", "io": "disk"}
"""Cause of a pause -> the resource that was short."""


def verdict(window: Window) -> Verdict:
    """Judge a window. The same window always gives the same verdict."""
    slices = window.slices
    if not slices and not window.pauses:
        return Verdict("no_evidence", resolution_s=window.resolution_s)
    recency = [_recency(window, one) for one in slices]
    limited, crowded = _limited(window, "cpu_quota"), _limited(window, "memory")
    judged = [shortage.judge(one, window.usual, held, window.readers, full)
              if shortage.may_be_short(one.machine) or held or full else Shortage({})
              for one, held, full in zip(slices, limited, crowded, strict=True)]
    severity = {resource: [one.severity.get(resource, 0.0) for one in judged]
                for resource in ("cpu", "memory", "disk", "steal")}
    _add_pauses(window, severity)
    weights = {resource: [part * recent for part, recent in zip(parts, recency, strict=True)]
               for resource, parts in severity.items()}
    short = {resource for resource, parts in weights.items() if lost_s(window, parts) >= least(window)}
    found = [
        cause for cause in (
            cpu_cause(window, weights["cpu"], judged) if "cpu" in short else None,
            memory_cause(window, weights["memory"], judged) if "memory" in short else None,
            disk_cause(window, weights["disk"], judged) if "disk" in short else None,
            steal_cause(window, weights["steal"]) if "steal" in short else None,
            gpu_cause(window, recency))
        if cause is not None]
    found += limits(window, found)
    if any(one.kind == "limit" and one.cause == "memory" and one.who is not None for one in found):
        found = [one for one in found if one.cause != "memory" or one.who is not None]
    found += waits(window, found)
    if any(one.resource in ("disk", "uninterruptible") and one.kind in ("limit", "wait") and not _standing(one)
           for one in found):
        found = [one for one in found if "idle" not in one.details]     # that says why they wait for no disk
    found += machine_causes(window, severity)
    found = merge(one for one in found if one.lost_s >= least(window))
    own = _own_cores(slices)
    if all(map(_standing, found)):
        found += use_causes(window, recency)
    mine = _own(window, own)
    if mine is not None:
        found.append(mine)
    ranked = [replace(one, points=_points(one)) for one in
              sorted(found, key=lambda one: (one.kind in ("use", "own"), _standing(one), -one.lost_s, one.cause))]
    if all(one.kind in ("use", "own") or _standing(one) for one in ranked):
        ranked.sort(key=lambda one: (one.kind == "own", _standing(one)))
    for index, one in enumerate(ranked[1:], 1):     # what is listed later never has more points
        ranked[index] = replace(one, points=min(one.points, ranked[index - 1].points))
    state = ("found" if ranked and ranked[0].kind not in ("use", "own") and not _standing(ranked[0])
             else "use" if ranked and ranked[0].kind in ("use", "own") else "nothing")
    return Verdict(state, tuple(ranked), _cleared(window, ranked), own, window.seconds, window.resolution_s)


def culprits(window: Window, resource: str) -> tuple[Cause | None, float | None]:
    """What the verdict says about a pause: the cause for `resource` (cpu, memory or io), with its takers, and
    the share that no process explains; None where it is not known, as that of memory."""
    found = next((one for one in verdict(window).causes
                  if one.cause == resource and one.kind in ("shortage", "limit", "device")), None)
    if found is None or resource == "memory":
        return found, None
    whole = machine_total(window.slices, [1.0] * len(window.slices), RESOURCE_OF[resource])
    return found, None if whole is None else max(0.0, 1.0 - sum(one.share for one in found.takers))


def stands_out(cause: Cause) -> bool:
    """True for use that is reported as a find of the watch although nothing waited: one process that kept a core busy
    by itself, above the tracking band and without giving way to others. A build or a player is not that."""
    who = cause.who
    return (cause.kind == "use" and cause.resource == "cpu" and who is not None and who.children < 0.5 * who.amount
            and who.rogue_s >= STEADY_S and who.rate >= STEADY_CORES
            and not gives_way({"nice": who.nice, "policy": who.policy}))


# -- weights -----------------------------------------------------------------------------------------------------------

def _recency(window: Window, one: Slice) -> float:
    return RECENT_S / (RECENT_S + max(0.0, window.until - one.end)) if window.recent else 1.0


def _limited(window: Window, kind: str) -> list[set[str]]:
    """By slice, the control groups that a limit of their own held back then. One pass: a day has 86,400 limits."""
    found: list[set[str]] = [set() for _ in window.slices]
    starts = [one.start for one in window.slices]
    for limit in window.limits:
        binds = kind != "cpu_quota" or total(limit, "held_back_s") > 0
        if limit.get("kind") == kind and limit.get("cgroup") and binds:
            ts = float(limit["ts"])
            index = bisect_right(starts, ts) - 1
            while index >= 0 and ts <= window.slices[index].end + window.resolution_s:
                found[index].add(str(limit["cgroup"]))
                index -= 1
    return found


def _add_pauses(window: Window, severity: Mapping[str, list[float]]) -> None:
    """A pause says that its resource was short throughout."""
    for pause in window.pauses:
        resource = RESOURCE_OF.get(str(pause.get("cause")))
        if resource is None:
            continue
        for index, one in enumerate(window.slices):
            part = pause_overlap(pause, one) / max(one.seconds, 1e-3)
            if total(one.machine, "self_throttled_ms") >= 500 * total(one.machine, "late_s") > 0:
                continue
            # Storage pressure while a single process used the disk politely is no shortage.
            polite = resource == "disk" and not severity[resource][index] and shortage.knows_waiters(one)
            if part > 0 and not polite:
                severity[resource][index] = max(severity[resource][index], min(1.0, part))


def _standing(cause: Cause) -> bool:
    """True for a wait that is how the machine works: it was there before the watch began, or has lasted for an hour. It
    is listed, but explains no trouble of this window."""
    return "standing" in cause.details


def _points(cause: Cause) -> float:
    part = cause.lost_s / (cause.lost_s + HALF_S)
    if cause.kind in ("use", "own") or _standing(cause):
        return round((NOTICED - 1) * part, 1)
    return round(NOTICED + (100 - NOTICED) * part, 1)


def _own_cores(slices: Sequence[Slice]) -> float | None:
    """CPU use of rogue-hunter itself over the slices, in cores."""
    known = [(percent, one.seconds) for one in slices
             if (percent := number(one.machine, "self_cpu_percent")) is not None]
    seconds = sum(s for _, s in known)
    rows = sum(total(row, "cpu_seconds", "children_cpu_seconds") for one in slices for row in one.processes
               if row.get("own"))
    covered = sum(one.seconds for one in slices)
    found = [sum(percent / 100 * s for percent, s in known) / seconds] if seconds > 0 else []
    if covered > 0 and rows > 0:
        found.append(rows / covered)
    return max(found) if found else None


def _own(window: Window, cores: float | None) -> Cause | None:
    if cores is None or cores < OWN_CORES:
        return None
    return Cause("own", "cpu", "rogue-hunter", 0.0, cores * window.seconds, window.slices[0].start, window.seconds,
                 numbers={"self_cpu_percent": round(100 * cores, 2)})


# -- what it was not ---------------------------------------------------------------------------------------------------

_READINGS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("pressure_cpu_some_ms_per_s", "cpu_busy_cores", "cpus", "run_delay_ms_per_s"),
    "memory": ("pressure_memory_full_ms_per_s", "memory_available_bytes", "memory_total_bytes"),
    "io": ("pressure_io_full_ms_per_s", "disk_bytes", "device_bytes", "device_wait_ms", "seconds"),
    "steal": ("cpu_steal_cores", "cpus"),
    "asleep": ("asleep_s",),
}
"""Cause -> the readings that rule it out. The slice with the highest first reading is shown, then by the second."""


def _cleared(window: Window, causes: Sequence[Cause]) -> dict[str, Mapping[str, float]]:
    """The readings of every resource that was not the cause, when it was worst."""
    guilty = {one.cause for one in causes}
    machines = [{"seconds": one.seconds, **one.machine} for one in window.slices]
    found: dict[str, Mapping[str, float]] = {}
    for cause, names in _READINGS.items():
        known = [one for one in machines if any(name in one for name in names[:2])]
        if cause not in guilty and known:
            sign = -1 if cause == "memory" else 1
            worst = max(known, key=lambda one, n=names, s=sign: (  # type: ignore[misc]
                total(one, n[0]), s * total(one, n[1 % len(n)])))
            found[cause] = readings(worst, *names)
    late = [total(one, "late_s") for one in machines if "late_s" in one]
    if late and not window.pauses and "unknown" not in guilty:
        found["pause"] = {"late_s": max(late)}
    own = [total(one, "self_cpu_percent") for one in machines if "self_cpu_percent" in one]
    if own and "rogue-hunter" not in guilty:
        found["rogue-hunter"] = {"self_cpu_percent": max(own)}
    return found
