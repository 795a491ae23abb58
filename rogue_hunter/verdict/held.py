"""Causes without use: processes held back by their own limits, and processes that wait for another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rogue_hunter.verdict.model import Cause, Key, Taker, Victim
from rogue_hunter.verdict.takers import Ledger, key_of, name_of
from rogue_hunter.verdict.window import Row, Window, total

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
too."""
WAIT_S = 1.0
"""Waits shorter than this are not reported."""
EVEN_IF_ALONE = ("traced", "frozen")
"""Kinds of wait that are worth a word without a process that waits; a stopped job at a prompt is not."""


def limits(window: Window) -> list[Cause]:
    """The limits that held processes back in the window. Memory that pages at a limit is a shortage of memory, and not
    here; processes killed at a limit are."""
    by: dict[tuple[str, str, int], list[Row]] = {}
    for limit in window.limits:
        if limit.get("kind") in ("cpu_quota", "io", "oom_kill", "rlimit"):
            at = str(limit["kind"]), str(limit.get("cgroup") or ""), int(limit.get("pid") or 0)
            by.setdefault(at, []).append(limit)
    found = [one for (kind, group, _), these in by.items() if (one := _limit(window, kind, group, these)) is not None]
    throttled = sum(total(one.machine, "self_throttled_ms") for one in window.slices) / 1000
    if throttled >= max(0.5, HELD_BACK * window.seconds):
        found.append(Cause("limit", "cpu", "limit", 0.0, throttled, window.slices[0].start, window.seconds,
                           numbers={"self_throttled_s": round(throttled, 3)}, details={"limit": "self"}))
    return found


def _limit(window: Window, kind: str, group: str, these: Sequence[Row]) -> Cause | None:
    held = sum(total(one, "held_back_s") for one in these)
    count = int(sum(total(one, "count") for one in these))
    last = these[-1]
    seconds = window.seconds or window.until - window.since
    lost = KILLED_S * max(count, 1) if kind == "oom_kill" else min(held, seconds)
    if kind == "rlimit" and not held:
        lost = 0.1 * count
    if kind == "io" and not held and last.get("limit") and total(last, "use") >= 0.9 * float(last["limit"]):
        lost = min(seconds, window.resolution_s * len(these))
    if lost < HELD_BACK * seconds and kind != "oom_kill":
        return None
    resource = {"io": "disk", "oom_kill": "memory", "rlimit": "rlimit"}.get(kind, "cpu")
    who = _held_back(window, last, resource, group)
    numbers = {"held_back_s": round(held, 3), **({"count": count} if count else {}),
               **{name: float(last[name]) for name in ("limit", "use") if last.get(name) is not None}}
    return Cause("limit", resource, "memory" if kind == "oom_kill" else "limit", 0.0, lost,
                 float(these[0]["ts"]) - window.resolution_s, seconds, who, (who,) if who else (), (), "measured",
                 numbers, {"limit": kind, "cgroup": group})


def _held_back(window: Window, limit: Row, resource: str, group: str) -> Taker | None:
    """The process that the limit holds back: the one it names, else the largest user in its control group."""
    pid, start = limit.get("pid"), limit.get("start_ticks")

    def named(row: Row) -> bool:
        return row.get("pid") == pid and row.get("start_ticks") == start

    def inside(row: Row) -> bool:
        cgroup = str(row.get("cgroup") or "")
        return bool(group) and (cgroup == group or cgroup.startswith(group.rstrip("/") + "/"))

    accept: Callable[[Row], bool] = named if pid is not None and start is not None else inside
    if resource in ("cpu", "disk", "memory"):
        ranked = Ledger(window.slices, [1.0] * len(window.slices), resource, within=accept).rank(None, 1)
        if ranked:
            return ranked[0]
    if not limit.get("name"):
        return None
    key = (str(limit.get("boot_id", "")), int(pid), int(start)) if pid is not None and start is not None else None
    return Taker("process" if key else "unit", str(limit["name"]), str(limit["name"]), 0.0, 0.0, 0.0, 0.0,
                 float(limit["ts"]), key, unit="" if key else group, cgroup=group)


def waits(window: Window, shortages: Sequence[Cause]) -> list[Cause]:
    """The processes that others wait for without any use of a resource."""
    known: Mapping[Key, Row] = {key: row for one in window.slices for row in one.processes
                                if (key := key_of(row)) is not None}
    own = {key[1] for key, row in known.items() if row.get("own")}
    starved = {victim.key for cause in shortages if cause.resource == "cpu" for victim in cause.victims}
    working: dict[int, float] = {}
    for row in (row for one in window.slices for row in (*one.processes, *one.groups)):
        pid = int(row.get("pid") or 0)
        working[pid] = working.get(pid, 0.0) + total(row, "cpu_seconds", "children_cpu_seconds")
    by: dict[tuple[object, ...], list[Row]] = {}
    for wait in window.waits:
        if wait.get("holder_pid") not in own:
            by.setdefault((wait.get("kind"), wait.get("object"), wait.get("holder_pid")), []).append(wait)
    found = []
    for these in by.values():
        longest = max(these, key=lambda one: total(one, "since_s"))
        waiting = {(int(w.get("pid") or 0), int(w.get("start_ticks") or 0)): w
                   for one in these for w in one.get("waiters") or () if w.get("pid") not in own}
        since = total(longest, "since_s")
        kind = str(longest.get("kind"))
        if since < WAIT_S or (not waiting and kind not in EVEN_IF_ALONE):
            continue
        if kind == "uninterruptible" and any(cause.resource in ("disk", "memory") for cause in shortages):
            continue
        lost = min(since, max(window.seconds, window.resolution_s)) * min(2.0, 0.5 + 0.5 * len(waiting))
        usual = since > LASTING_S or bool(longest.get("standing"))
        boot = str(longest.get("boot_id", ""))
        who = _holder(longest, boot, known)
        if usual or working.get(int(longest.get("holder_pid") or 0), 0.0) >= WORKING * window.seconds > 0:
            lost = min(LASTING * lost, LASTING_MOST_S)
        if who is not None and who.key in starved:
            lost *= 0.3     # the holder itself waits for a CPU: the process that has it is the cause
        victims = tuple(Victim((boot, pid, start), str(w.get("name") or "?"), round(since, 3))
                        for (pid, start), w in waiting.items())[:5]
        details = {name: str(longest[name]) for name in ("object", "holder_state") if longest.get(name)}
        if usual:
            details["standing"] = "yes"
        found.append(Cause("wait", kind, "wait", 0.0, lost, float(longest["ts"]) - since, since, who,
                           (who,) if who else (), victims,
                           "inferred" if longest.get("certainty") == "guessed" else "measured",
                           {"waiters": len(waiting), "since_s": round(since, 3)}, {"wait": kind, **details}))
    return found


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
