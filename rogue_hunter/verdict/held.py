"""Causes without use: processes held back by their own limits, and processes that wait for another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rogue_hunter.sampling.units import is_apart
from rogue_hunter.verdict.model import (
    OWN_FIELDS,
    Cause,
    Key,
    Row,
    Taker,
    Victim,
    Window,
    in_group,
    key_of,
    name_of,
    total,
)
from rogue_hunter.verdict.takers import Ledger

HELD_BACK = 0.05
"""Part of the window that a limit held something back, from which that is a cause."""
KILLED_S = 2.0
"""What a process killed at a limit counts, seconds."""
LASTING_S = 3600.0
"""Seconds from which a wait counts as usual."""
LASTING, LASTING_MOST_S = 0.2, 10.0
"""A wait that lasted longer, or that existed when the watch began, is how the processes work together: it counts a
fifth of one that began since, and at most so many seconds however long the window."""
WORKING = 0.2
"""Cores that the holder of a lock, or its children, use: it works, and the others take their turn. That counts a fifth,
too. A tracer's work is what the other process waits for."""
READING = 0.05
"""Cores that the reader of a pipe uses, or part of the time that it waits for storage: it is the slower part of a
pipeline that does its work, and no problem."""
GENERATIONS = 3
"""Children of the holder, and theirs, whose work is the holder's."""
WAIT_S = 1.0
"""Waits shorter than this are not reported."""
EVEN_IF_ALONE = ("traced", "frozen")
"""Kinds of wait that are worth a word without a process that waits; a stopped job at a prompt is not."""
RESOURCES = {"io": "disk", "disk_full": "disk", "oom_kill": "memory", "memory": "memory", "rlimit": "rlimit",
             "tasks": "rlimit"}
"""Kind of a limit -> its resource, where that is not the CPU."""


def limits(window: Window, found: Sequence[Cause]) -> list[Cause]:
    """The limits that held processes back in the window. Memory that pages at a limit is a shortage of memory, and not
    here; processes killed at a limit are. An affinity is a limit unless `found` has a shortage of CPU: then other
    processes are on the same CPUs."""
    kinds = {"cpu_quota", "io", "oom_kill", "rlimit", "tasks", "disk_full"}
    if not any(one.resource == "cpu" for one in found):
        kinds.add("affinity")
    own = {row.get("pid") for one in window.slices for row in one.processes if row.get("own")}
    by: dict[tuple[str, str, int], list[Row]] = {}
    for limit in window.limits:
        kind = str(limit.get("kind"))
        if kind in kinds and limit.get("pid") not in own:
            place = str(limit.get("cgroup") or limit.get("object") or "")
            # Workers of one program that are bound to the same CPUs are one taker; so are those killed in turn.
            one = place or kind in ("affinity", "oom_kill")
            at = kind, place, 0 if one else int(limit.get("pid") or 0)
            by.setdefault(at, []).append(limit)
    made = [cause for (kind, group, _), these in by.items()
            if (cause := _limit(window, kind, group, these)) is not None]
    paused = sum(float(pause["duration_s"]) for pause in window.pauses if pause.get("cause") == "throttled")
    throttled = max(paused, sum(total(one.machine, "self_throttled_ms") for one in window.slices) / 1000)
    if paused or throttled >= max(0.5, HELD_BACK * window.seconds):
        start = window.slices[0].start if window.slices else window.since
        made.append(Cause("limit", "cpu", "limit", 0.0, throttled, start, window.seconds,
                          numbers={"self_throttled_s": round(throttled, 3)}, details={"limit": "self"}))
    return made


def _limit(window: Window, kind: str, group: str, these: Sequence[Row]) -> Cause | None:
    held = sum(total(one, "held_back_s") for one in these)
    count = int(sum(total(one, "count") for one in these))
    last = these[-1]
    seconds = window.seconds or window.until - window.since
    lost = KILLED_S * max(count, 1) if kind == "oom_kill" else min(held, seconds)
    if kind in ("io", "rlimit", "tasks", "disk_full") and not held:
        # Each record is of a moment in which the limit bound, one a second.
        lost = min(seconds, window.resolution_s * len(these))
    if lost < HELD_BACK * seconds and kind != "oom_kill":
        return None
    resource = RESOURCES.get(kind, "cpu")
    who = _held_back(window, these, resource, group)
    numbers = {"held_back_s": round(held, 3), **({"count": count} if count else {}),
               **{name: float(last[name]) for name in ("limit", "use") if last.get(name) is not None}}
    cause = {"oom_kill": "memory", "disk_full": "io"}.get(kind, "limit")
    return Cause("limit", resource, cause, 0.0, lost, float(these[0]["ts"]) - window.resolution_s, seconds, who,
                 (who,) if who else (), (), "measured", numbers,
                 {"limit": kind, "cgroup": str(last.get("cgroup") or ""), "object": str(last.get("object") or "")})


def _held_back(window: Window, these: Sequence[Row], resource: str, group: str) -> Taker | None:
    """The process that a limit holds back: the one its records name, else the largest user in its control group."""
    limit = these[-1]
    named = {(one.get("pid"), one.get("start_ticks")) for one in these if one.get("start_ticks") is not None}
    # Several that were killed in turn belong to who starts them again; each alone may have lived too short for a name.
    above = {row.get("ppid") for one in window.slices for row in one.processes
             if len(named) > 1 and (row.get("pid"), row.get("start_ticks")) in named}

    def accept(row: Row) -> bool:
        return (row.get("pid"), row.get("start_ticks")) in named or row.get("pid") in above if named else \
            bool(group) and in_group(row, group)

    for name in dict.fromkeys((resource, "cpu")):
        if name in OWN_FIELDS:
            ranked = Ledger(window.slices, [1.0] * len(window.slices), name, within=accept).rank(None, 1)
            if ranked:
                return ranked[0]
    if not limit.get("name"):
        return None
    pid, start = limit.get("pid"), limit.get("start_ticks")
    key = (str(limit.get("boot_id", "")), int(pid), int(start)) if pid is not None and start is not None else None
    return Taker("process" if key else "unit", str(limit["name"]), str(limit["name"]), 0.0, 0.0, 0.0, 0.0,
                 float(limit["ts"]), key, unit="" if key else group, cgroup=group)


_Wait = tuple[object, object, object]
"""What makes several records one wait: kind, object, pid of the holder."""


def waits(window: Window, shortages: Sequence[Cause]) -> list[Cause]:
    """The processes that others wait for without any use of a resource.

    A holder that waits for another process itself is not to blame: its waiters count for the last holder of the chain.
    """
    known: Mapping[Key, Row] = {key: row for one in window.slices for row in one.processes
                                if (key := key_of(row)) is not None}
    own = {key[1] for key, row in known.items() if row.get("own")}
    starved = {victim.key for cause in shortages if cause.resource == "cpu" for victim in cause.victims}
    by: dict[_Wait, list[Row]] = {}
    for wait in window.waits:
        if wait.get("holder_pid") not in own:
            by.setdefault((wait.get("kind"), wait.get("object"), wait.get("holder_pid")), []).append(wait)
    waiting = {at: _waiters(these, own) for at, these in by.items()}
    lasted = {at: max(total(one, "since_s") for one in these) for at, these in by.items()}
    for at in list(by):
        root = _root(at, waiting)
        if root != at and lasted[at] >= WAIT_S:
            waiting[root] = {**waiting[at], **waiting[root]}
            lasted[root] = max(lasted[root], lasted[at])
            del by[at]
    found = []
    for at, these in by.items():
        # A record made after the holder has ended has no name for it.
        longest = max(these, key=lambda one: (one.get("holder_start_ticks") is not None, total(one, "since_s")))
        since, kind = lasted[at], str(at[0])
        alone = kind in EVEN_IF_ALONE and not any(one.get("waiters") for one in these)
        if since < WAIT_S or not (waiting[at] or alone):
            continue
        if kind == "uninterruptible" and any(cause.resource in ("disk", "memory") and "idle" not in cause.details
                                             for cause in shortages):
            continue
        lost = min(since, max(window.seconds, window.resolution_s)) * min(2.0, 0.5 + 0.5 * len(waiting[at]))
        usual = since > LASTING_S or bool(longest.get("standing"))
        boot = str(longest.get("boot_id", ""))
        who = _holder(longest, boot, known)
        cores, stuck = _work(window, longest)
        if kind == "pipe" and (max(cores, stuck) >= READING or longest.get("holder_state") == "running"):
            continue        # a reader that runs, or queues for a CPU, empties its pipe; a short one has no row
        if usual or (cores >= WORKING and kind not in ("mutex", "traced")):
            lost = min(LASTING * lost, LASTING_MOST_S)
        if who is not None and who.key in starved:
            lost *= 0.3     # the holder itself waits for a CPU: the process that has it is the cause
        victims = tuple(Victim((boot, pid, start), str(w.get("name") or "?"), round(since, 3))
                        for (pid, start), w in waiting[at].items())[:5]
        details = {name: str(longest[name]) for name in ("object", "holder_state") if longest.get(name)}
        if usual:
            details["standing"] = "yes"
        found.append(Cause("wait", kind, "wait", 0.0, lost, float(longest["ts"]) - since, since, who,
                           (who,) if who else (), victims,
                           "inferred" if longest.get("certainty") == "guessed" else "measured",
                           {"waiters": len(waiting[at]), "since_s": round(since, 3)}, {"wait": kind, **details}))
    return found


def _waiters(these: Sequence[Row], own: Collection[int]) -> dict[tuple[int, int], Row]:
    """The processes of some records of one wait, by pid and start; without a start only where none is known."""
    found = {(int(w.get("pid") or 0), int(w.get("start_ticks") or 0)): w
             for one in these for w in one.get("waiters") or () if w.get("pid") not in own}
    known = {pid for pid, start in found if start}
    return {(pid, start): w for (pid, start), w in found.items() if start or pid not in known}


def _root(at: _Wait, waiting: Mapping[_Wait, Mapping[tuple[int, int], Row]]) -> _Wait:
    """The wait at the end of the chain: that for the process for which the holder, and its holder, wait in turn. The
    wait itself where the chain closes (a deadlock) or ends in a wait without a holder."""
    now, met = at, {at}
    while True:
        above = next((one for one, pids in waiting.items() if one[2] is not None and one not in met
                      and any(pid == now[2] for pid, _ in pids)), None)
        if above is None:
            closed = any(pid == now[2] for one in met for pid, _ in waiting[one])
            return at if closed else now
        met.add(above)
        now = above


def _work(window: Window, wait: Row) -> tuple[float, float]:
    """What the holder of a wait and its children did during it: cores used, and the part of the time that it waited for
    storage."""
    pid, until = int(wait.get("holder_pid") or 0), float(wait["ts"])
    since = until - total(wait, "since_s")
    seconds = cpu = stuck = 0.0
    for one in window.slices:
        if one.end <= since or one.start >= until:
            continue
        seconds += one.seconds
        family, known = {pid}, {row.get("pid"): row for row in one.processes}
        for _ in range(GENERATIONS):
            family |= {int(row["pid"]) for row in one.processes
                       if row.get("ppid") in family and not is_apart(row, known.get(row["ppid"]))}
        rows = [row for row in one.processes if row.get("pid") in family]
        together = [total(row, "cpu_seconds", "children_cpu_seconds") for row in one.groups if row.get("pid") == pid]
        cpu += max(sum(total(row, "cpu_seconds", "children_cpu_seconds") for row in rows), *together, 0.0)
        stuck += max((total(row, "uninterruptible_s") for row in rows), default=0.0)
    return (cpu / seconds, stuck / seconds) if seconds > 0 else (0.0, 0.0)


def _holder(wait: Row, boot: str, known: Mapping[Key, Row]) -> Taker | None:
    pid, start = wait.get("holder_pid"), wait.get("holder_start_ticks")
    if pid is None:
        return None
    key = None if start is None else (boot, int(pid), int(start))
    row: Row = known.get(key, {}) if key is not None else {}
    name = str(wait.get("holder") or (name_of(row) if row else f"pid {pid}"))
    return Taker("process", name, str(row.get("command") or wait.get("holder") or ""), 0.0, 0.0, 0.0, 0.0,
                 float(wait["ts"]), key, None if key else (boot, int(pid), 0), 1, str(row.get("cmdline") or ""),
                 str(row.get("unit") or ""), str(row.get("user") or ""), str(row.get("cgroup") or ""))
