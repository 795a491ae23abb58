"""A verdict in words, as fields of a record, and as the culprits that rh-pipe writes into a pause that has ended.

Every sentence takes its numbers from one taker and one window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rogue_hunter.report.evidence import NOW_S, of_records
from rogue_hunter.report.sentences import moment, number, percent
from rogue_hunter.sampling.naming import script_of
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, duration, size, visible
from rogue_hunter.verdict.causes import EQUAL
from rogue_hunter.verdict.engine import culprits, stands_out, verdict
from rogue_hunter.verdict.model import Cause, Taker, Victim

LINE = 100
"""Columns of a command line in a sentence."""

_ALONE = {
    "asleep": "the machine was asleep for {seconds}",
    "suspend": "the machine was suspended for {seconds}",
    "stopped": "rh-pipe itself was stopped for {seconds} (SIGSTOP, or a debugger) and continued; nothing is known of "
               "the machine in that time, and no process is to blame",
    "clock": "the clock was set",
}

_LIMITS = {
    "cpu_quota": "was held back by its own CPU quota",
    "io": "was held back by the I/O limit of its control group",
    "rlimit": "has as many files open as it may",
    "tasks": "could start no further process: its control group has as many as it may",
    "affinity": "was held back by its own CPU affinity, with other CPUs idle",
}

_WAITS = {
    "file_lock": "a file lock", "mutex": "a lock in memory", "pipe": "a pipe", "socket": "a socket",
    "fanotify": "permission to open files (fanotify)", "traced": "a tracer", "stopped": "a process that is stopped",
    "frozen": "a frozen control group", "uninterruptible": "a device or file system that does not answer",
}


# -- who ---------------------------------------------------------------------------------------------------------------

def taker_name(who: Taker) -> str:
    """`python3 backup.py (pid 812)`, `make (pid 7) and its 23 other processes`; safe for a terminal."""
    name = clip(called(who), 60)
    if who.kind == "process":
        return f"{name} (pid {who.key[1]})" if who.key is not None else name
    if who.kind == "command":
        return f"{name} ({who.processes} processes)" if who.processes > 1 else name
    root = who.root
    if root is None or name.endswith(" processes"):
        parent = f" below pid {root[1]}" if root is not None else ""
        return f"{name}{parent}" if name.endswith(" processes") else f"{name} ({count(who.processes, 'process')})"
    others = who.processes - 1
    return f"{name} (pid {root[1]})" + (f" and its {count(others, 'process')}" if others > 0 else "")


def called(who: Taker) -> str:
    """The name of a taker, with the interpreter of a script before it. Not yet made safe."""
    if not who.command or who.kind == "unit" or who.name.startswith(who.command[:15]) or \
            who.command.startswith(who.name):
        return who.name
    first = who.cmdline.split(None, 1)[0].rsplit("/", 1)[-1].lstrip("-") if who.cmdline else ""
    if first.rstrip(":") == who.name and script_of(who.command, [who.name]):     # an interpreter under another name
        return f"{who.command} (it calls itself {who.name})"
    if first and not first.startswith(who.command[:15]) and who.name != who.command:
        return f"{who.name} (it calls itself {who.command})"
    return f"{who.command} {who.name}"


def count(many: int, noun: str) -> str:
    """`1 process`, `3 processes`."""
    return f"{many} {noun}" if many == 1 else f"{many} {noun}es" if noun.endswith("s") else f"{many} {noun}s"


def cores(value: float) -> str:
    """`0.25`, `1.9`, `12`: cores with two or three digits."""
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def amount_words(cause: Cause, who: Taker, now: float, *, present: bool = False) -> str:
    """What a taker used, for how long, and from when: `used 1.9 of 2 cores for 7.0s from 21:45:12`."""
    spent = f" for {duration(who.seconds)}" if who.seconds > 0 else ""
    since = f" from {moment(who.start, now)}" if who.seconds > 0 else ""
    part = f"{percent(who.share)} of what was used" if who.share > 0 else ""
    if cause.cause == "memory":
        measure = cause.details.get("measure", "growth")
        if measure == "pageins":
            return f"read {count(round(who.amount), 'page')} back in{spent}{since}"
        if measure == "growth":
            return f"took {size(who.amount)} of memory{spent}{since}"
        of = "of all memory" if not cause.details.get("cgroup") else "of what its group held"
        if abs(who.amount - who.share * cause.numbers.get("limit", 0.0)) <= 0.01 * who.amount:
            of = "of the limit"     # with swap, a group can hold more than that
        return f"held {size(who.amount)} of memory ({percent(who.share)} {of})"
    if cause.details.get("measure") == "waiting":
        did = "waited" if cause.kind == "use" else "probably used the disks most: it waited"
        of = "for storage" if cause.kind == "use" else \
            f"of the {duration(cause.numbers['device_requests_s'])} that all requests took"
        return f"{did} {duration(who.amount)} {of}; its I/O cannot be read without root"
    if cause.resource == "disk":
        speed = f"{size(who.rate)}/s" if who.seconds > 0 else ""
        return f"moved {size(who.amount)}{spent}{since} ({', '.join(one for one in (speed, part) if one)})"
    if cause.resource == "gpu":
        return f"used {percent(who.rate)} of a GPU{spent}{since}"
    if cause.resource == "wakeups":
        return f"woke up {round(who.rate)} times a second{spent}{since}"
    of_cpus = cause.numbers.get("cpus")
    rate = min(who.rate, float(of_cpus)) if of_cpus else who.rate
    many = f"{cores(rate)} of {count(int(of_cpus), 'core')}" if of_cpus else f"{cores(rate)} cores"
    verb = "used" if not present else "uses" if who.kind == "process" else "use"
    words = f"{verb} {many}{spent}{since}" + (f" ({part})" if part else "")
    if who.children >= 0.5 * who.amount and who.seconds > 0:
        many = f"{who.started} short-lived" if who.started > 1 else "short-lived"
        words += f", {cores(min(rate, who.children / who.seconds))} of them by {many} children"
    if who.served > 0 and who.seconds > 0:
        words += f", {cores(min(rate, who.served / who.seconds))} of them by {clip(who.server, 20)} on its behalf"
    return words


def line_of(who: Taker | None) -> str:
    """The command line for the end of a sentence, and the container or user where they add something."""
    if who is None:
        return ""
    extra = (f"in {clip(who.unit.replace(':', ' '), 30)}" if who.unit.startswith("container:") else "",
             f"user {clip(who.user, 20)}" if who.user and who.user != "root" else "",
             f"nice {who.nice}" if who.nice >= 10 else "")
    line = clip(who.cmdline, LINE) if who.cmdline else ""
    return "; ".join(filter(None, (", ".join(filter(None, extra)), line)))


# -- causes ------------------------------------------------------------------------------------------------------------

def cause_words(cause: Cause, now: float, *, present: bool = False, calm: str = "") -> str:
    """A cause as one sentence without its full stop, safe for a terminal. `now` in epoch seconds.

    `calm` is added before the command line.
    """
    words = {"shortage": _shortage, "limit": _limit, "wait": _wait, "device": _device, "machine": _machine,
             "own": _own, "use": _use}[cause.kind](cause, now, present)
    return "; ".join(part for part in (words, calm, line_of(cause.who)) if part)


def _shortage(cause: Cause, now: float, present: bool) -> str:
    what = _what(cause, now)
    if cause.who is not None:
        through = ", on behalf of others" if cause.who.forwarder else ""
        equals = [one for one in cause.takers[1:] if one.share >= EQUAL * cause.who.share > 0]
        too = f"{taker_name(equals[0])} used nearly as much ({percent(equals[0].share)})" if equals else ""
        did = f"{taker_name(cause.who)} {amount_words(cause, cause.who, now, present=present)}{through}"
        return "; ".join(part for part in (did, too, what) if part)
    if "unread" in cause.details:
        most = ", and no process that waited accounts for most requests" \
            if cause.victims and "device_requests_s" in cause.numbers else ""
        return f"{what}; the I/O of {count(int(cause.numbers['unreadable']), 'process')} cannot be read without root" \
               f"{most}"
    if cause.takers:
        first = cause.takers[0]
        which = "most by interrupts or processes that cannot be seen: the highest of the others" \
            if "unseen" in cause.details else "no process alone: the highest"
        return f"{what}; {which} was {taker_name(first)}, which {amount_words(cause, first, now)}"
    return what


def _what(cause: Cause, now: float) -> str:
    """What was short, with its numbers."""
    n = cause.numbers
    words = []
    if "pauses" in n:
        words.append(f"the machine paused {duration(n['pause_s'])}" if n["pauses"] == 1 else
                     f"the machine paused {int(n['pauses'])} times, {duration(n['pause_s'])} in all")
    if cause.resource == "cpu":
        if n.get("waited_s", 0.0) > 0:
            together = " all together" if n["waited_s"] > cause.seconds else ""     # several at once
            words.append(f"others waited {duration(n['waited_s'])}{together} for a CPU")
        elif "pressure_cpu_some_ms_per_s" in n:
            words.append(f"some task waited for a CPU {percent(n['pressure_cpu_some_ms_per_s'] / 1000)} of the time")
        if cause.who is None and "cpu_busy_cores" in n and "cpus" in n:
            words.append(f"{cores(n['cpu_busy_cores'])} of {int(n['cpus'])} cores busy")
        while_idle = cause.details.get("while_idle")
        if while_idle:
            words.append({"realtime": "on its CPU alone, as a real-time process",
                          "affinity": "on their CPU alone: others were idle, and the processes that waited are bound"}
                         .get(while_idle, "while other CPUs were idle: perhaps an affinity or a quota"))
        if n.get("unattributed_cpu_cores", 0.0) >= max(0.1, 0.3 * n.get("cpu_busy_cores", 1.0)):
            words.append(f"{cores(n['unattributed_cpu_cores'])} cores not attributed to any process")
    elif cause.resource == "memory":
        words.append(_memory(cause))
    elif cause.resource == "disk":
        full, some = (n.get(f"pressure_io_{name}_ms_per_s", 0.0) / 1000 for name in ("full", "some"))
        if full or some:        # while any task runs, not all of them wait
            which, part = ("all tasks", full) if full >= 0.5 * some else ("some task", some)
            words.append(f"{which} waited for storage {percent(part)} of the time")
        elif cause.who is None:
            words.append(f"traffic {size(n.get('disk_bytes_per_s', 0.0))}/s")
    elif cause.resource == "gpu":
        words.append(f"{percent(n.get('gpu_seconds_per_s'))} of a GPU in use")
    if cause.victims:
        words.append(_victims(cause.victims))
    return "; ".join(part for part in words if part)


def _memory(cause: Cause) -> str:
    n, group = cause.numbers, cause.details.get("cgroup")
    limit = f" ({size(n['limit'])})" if "limit" in n else ""
    waited = n.get("pressure_memory_full_ms_per_s") or n.get("pressure_memory_some_ms_per_s")
    return ", ".join(filter(None, (
        f"at the limit of its control group{limit} {clip(group, 60)}" if group else
        f"{percent(n['memory_available_bytes'] / n['memory_total_bytes'])} of memory available"
        if n.get("memory_total_bytes") and "memory_available_bytes" in n else "",
        f"tasks waited for memory {percent(waited / 1000)} of the time" if waited else "",
        f"the kernel killed {count(int(n['oom_kills']), 'process')} for want of memory" if n.get("oom_kills") else "")))


def _victims(victims: Sequence[Victim]) -> str:
    first = victims[0]
    name = clip(first.name, 40) + (f" (pid {first.key[1]})" if first.key is not None else "")
    did = f"waited {duration(first.waited_s)}" if first.waited_s > 0 else f"lost {count(first.pageins, 'page')}"
    return f"{name} {did}" + (f", and {len(victims) - 1} more" if len(victims) > 1 else "")


def _limit(cause: Cause, now: float, present: bool) -> str:
    n, kind = cause.numbers, cause.details.get("limit", "")
    if kind == "self":
        held = duration(n.get("self_throttled_s"))
        return f"rh-pipe itself was held back by a CPU quota for {held}; no process is to blame"
    who = taker_name(cause.who) if cause.who is not None else clip(cause.details.get("cgroup", "a control group"), 60)
    if kind == "oom_kill":
        times, group = int(n.get("count", 1)), clip(cause.details.get("cgroup", ""), 60)
        several = cause.who is not None and cause.who.key is None and cause.who.processes > 1
        limit = f" at the limit of {'their' if several else 'its'} control group{group and f' {group}'} " \
                f"({size(n['limit'])})" if "limit" in n else ""
        if cause.who is not None and several:
            pid = f" (pid {cause.who.root[1]})" if cause.who.root is not None else ""
            return f"the kernel killed processes of {clip(called(cause.who), 60)}{pid} {count(times, 'time')} for " \
                   f"want of memory{limit}"
        if times > 1 and cause.who is not None and cause.who.key is not None:
            who = f"{clip(called(cause.who), 60)} (last pid {cause.who.key[1]})"
        return f"{who} was killed by the kernel{f' {times} times' if times > 1 else ''} for want of memory{limit}"
    if cause.cause == "memory":
        did = f" {amount_words(cause, cause.who, now)}" if cause.who is not None else ""
        return f"{who}{did}, {_memory(cause)}; no other process is to blame"
    if kind == "disk_full":
        place = clip(cause.details.get("object") or "a file system", 60)
        return f"{who} writes to {place}, which is full; no other process is to blame"
    requests = cause.details.get("object") == "requests"
    words = {"cpu_quota": f"{cores(n.get('limit', 0.0))} cores",
             "io": f"{round(n.get('limit', 0.0))} requests/s" if requests else f"{size(n.get('limit', 0.0))}/s",
             "affinity": f"{count(int(n.get('limit', 0)), 'core')}"}.get(kind, str(round(n.get("limit", 0.0))))
    limit = f" ({words})" if "limit" in n else ""
    spent = f" for {duration(n['held_back_s'])}" if n.get("held_back_s") else ""
    did = _LIMITS.get(kind, "was held back by a limit of its own")
    return f"{who} {did}{limit}{spent}; no other process is to blame"


def _wait(cause: Cause, now: float, present: bool) -> str:
    kind, waiting = cause.details.get("wait", ""), int(cause.numbers.get("waiters", 0))
    what = _WAITS.get(kind, kind)
    on = f" on {clip(cause.details['object'], 60)}" if cause.details.get("object") else ""
    names = sorted({clip(victim.name, 30) for victim in cause.victims})
    who = f"{waiting} {names[0]}" if len(names) == 1 and waiting > 1 else \
        ", ".join(names) if names else "a process"
    since, held = duration(cause.numbers.get("since_s")), "" if cause.who is None else taker_name(cause.who)
    if kind == "frozen":
        return f"{who} did not run for {since}: its control group{on.removeprefix(' on')} is frozen; " \
               "no process is to blame"
    if kind == "mutex" and cause.who is not None and cause.who.key in {victim.key for victim in cause.victims}:
        return f"threads of {held} waited for each other for {since}: many of them want one lock in its memory"
    if kind == "traced" and held and cause.details.get("object"):
        return f"{who} was slowed down for {since} by its tracer {held}, which stopped it at its " \
               f"{clip(cause.details['object'], 60)}"
    if kind == "traced" and held:
        return f"{who} is stopped by its tracer {held} for {since}"
    if kind == "stopped" and held:
        return f"{who} waited {since} for {held}, which is stopped (SIGSTOP)"
    words = f"{who} waited {since} for {what}{on}"
    if cause.who is not None:
        words += f", held by {held}"
        state = cause.details.get("holder_state")
        if state in ("stopped", "uninterruptible", "defunct"):
            words += {"stopped": ", which is stopped (SIGSTOP)", "uninterruptible": ", which waits for a device itself",
                      "defunct": ", which has ended"}[state]
    if cause.confidence == "inferred":
        words += " (inferred)" if cause.who is not None else ""
    return words


def _device(cause: Cause, now: float, present: bool) -> str:
    victims = f"; {_victims(cause.victims)}" if cause.victims else ""
    if "idle" in cause.details:
        part = percent(cause.numbers.get("pressure_io_some_ms_per_s", 0.0) / 1000)
        return f"tasks waited for storage {part} of the time, and the disks had nothing to do: a network or FUSE " \
               f"file system, or a device that does not answer; no process is to blame{victims}"
    wait = cause.numbers.get("device_wait_ms")
    took = f": a request took {number(round(wait))} ms" if wait is not None else ""
    traffic = size(cause.numbers.get("disk_bytes_per_s", 0.0))
    return f"the disk answers slowly by itself{took} at {traffic}/s; no process is to blame{victims}"


def _machine(cause: Cause, now: float, present: bool) -> str:
    n = cause.numbers
    if cause.resource in _ALONE:
        return _ALONE[cause.resource].format(seconds=duration(cause.seconds))
    if cause.cause == "steal":
        counted, cpus = n.get("cpu_counted_cores"), n.get("cpus")
        if counted is not None and cpus and counted < 0.5 * cpus:
            words = f"the whole virtual machine stood still: {number(round(counted, 2))} of {int(cpus)} CPUs ran"
        else:
            words = f"the hypervisor took {number(round(n.get('cpu_steal_cores', 0.0), 2))} of {int(cpus or 0)} CPUs " \
                    "for others"
        paused = f", paused {duration(n['pause_s'])}" if "pause_s" in n else ""
        return f"{words}{paused} at {moment(cause.start, now)}; no process is to blame"
    delay = n.get("self_run_delay_ms")
    if delay is not None and delay < 100 * cause.seconds and n.get("cpu_counted_cores", 1.0) > 0:
        return f"only rh-pipe did not run, for {duration(cause.seconds)} at {moment(cause.start, now)}: nothing was " \
               "short, and it did not wait for a CPU (its control group was frozen, or a debugger held it); no " \
               "process is to blame"
    queue = f" (rh-pipe waited {number(round(delay))} ms of it for a CPU)" if delay is not None else ""
    return f"rh-pipe did not run for {duration(cause.seconds)} at {moment(cause.start, now)}, and nothing was " \
           f"short{queue}: no evidence of a cause"


def _own(cause: Cause, now: float, present: bool) -> str:
    return f"rogue-hunter itself used {number(cause.numbers.get('self_cpu_percent', 0.0))} % of a core"


def _use(cause: Cause, now: float, present: bool) -> str:
    who = cause.who
    words = f"{taker_name(who)} {amount_words(cause, who, now, present=present)}" if who is not None else ""
    held = cause.numbers.get("waiting_while_idle")
    return f"{words}; it may be held back by a CPU quota or an affinity" if held else words


# -- what it was not ---------------------------------------------------------------------------------------------------

def cleared_words(cause: str, n: Mapping[str, float], usual: Mapping[str, float]) -> str:
    """What rules a resource out, with its numbers and the usual ones."""
    def usually(name: str, words: Any) -> str:
        return f" (usually {words(usual[name])})" if name in usual else ""

    def part(ms: float) -> str:
        return percent(ms / 1000)

    if cause == "cpu":
        words = f"{number(round(n.get('cpu_busy_cores', 0.0), 2))} of {int(n.get('cpus', 0))} cores busy" \
                f"{usually('cpu_busy_cores', lambda v: number(round(v, 2)))}"
        waited = n.get("pressure_cpu_some_ms_per_s")
        return words + (f", some task waited for a CPU {part(waited)} of the time"
                        f"{usually('pressure_cpu_some_ms_per_s', part)}" if waited is not None else "")
    if cause == "memory":
        available, total = n.get("memory_available_bytes"), n.get("memory_total_bytes")
        words = f"{percent(available / total)} available, {size(available)} of {size(total)}" \
            if available is not None and total else "available memory not known"
        if total and "memory_available_bytes" in usual:
            words += f" (usually {percent(usual['memory_available_bytes'] / total)})"
        waited = n.get("pressure_memory_full_ms_per_s")
        return words + (f", pressure {part(waited)}{usually('pressure_memory_full_ms_per_s', part)}"
                        if waited is not None else "")
    if cause == "io":
        moved = max(n.get("disk_bytes", 0), n.get("device_bytes", 0)) / max(n.get("seconds", 1.0), 1e-3)
        words = f"traffic {size(moved)}/s{usually('disk_bytes', lambda v: f'{size(v)}/s')}"
        waited = n.get("pressure_io_full_ms_per_s")
        return words + (f", all tasks waited for storage {part(waited)} of the time"
                        f"{usually('pressure_io_full_ms_per_s', part)}" if waited is not None else "")
    if cause == "steal":
        stolen = number(round(n.get("cpu_steal_cores", 0.0), 2))
        return f"the hypervisor took {stolen} of {int(n.get('cpus', 0))} CPUs for others"
    if cause == "asleep":
        return f"the machine was asleep for {duration(n['asleep_s'])}" if n.get("asleep_s") else \
            "the machine did not sleep"
    if cause == "pause":
        late = n.get("late_s", 0.0)
        return f"the longest delay of a tick was {duration(late)}" if late >= 0.05 else "no tick was delayed"
    return f"rogue-hunter itself used {number(round(n.get('self_cpu_percent', 0.0), 2))} % of a core"


# -- records -----------------------------------------------------------------------------------------------------------

def cause_fields(cause: Cause, now: float) -> dict[str, Any]:
    """A cause as the fields of a record."""
    who = cause.who
    made: dict[str, Any] = {
        "cause": cause.cause, "kind": cause.kind, "resource": cause.resource, "points": cause.points,
        "words": cause_words(cause, now), "at": round(cause.start, 3), "seconds": round(cause.seconds, 3),
        "lost_s": round(cause.lost_s, 3), "confidence": cause.confidence}
    if who is not None:
        made.update(taker_fields(cause, who))
    made["who"] = [taker_fields(cause, one) for one in cause.takers[:5]] or None
    made["victims"] = victim_fields(cause.victims) or None
    details = {{"limit": "limit_kind", "wait": "wait_kind"}.get(name, name): value
               for name, value in cause.details.items()}
    made.update({"pause" if name == "id" else name: value for name, value in {**cause.numbers}.items()})
    return {key: value for key, value in {**details, **made}.items() if value is not None}


def taker_fields(cause: Cause, who: Taker) -> dict[str, Any]:
    """A taker as the fields of a record. `amount` is a rate (cores, bytes/s) for what is used over time."""
    flow = cause.cause != "memory" and who.seconds > 0
    identity = who.key or who.root
    made: dict[str, Any] = {
        "name": who.name, "command": who.command, "pid": identity[1] if identity else None,
        "start_ticks": None if identity is None or (who.key is None and not identity[2]) else identity[2],
        "unit": who.unit or None,
        "user": who.user or None, "cgroup": who.cgroup or None, "cmdline": who.cmdline or None,
        "processes": who.processes,
        **({"waited_s": round(who.amount, 3)} if cause.details.get("measure") == "waiting" else
           {"amount": round(who.rate if flow else who.amount, 3), "total": round(who.amount, 3),
            "share": round(who.share, 4)}),
        "children_share": round(who.children / who.amount, 4) if who.children > 0 and who.amount > 0 else None,
        "used_s": round(who.seconds, 3) or None, "score": who.score or None,
        "members": [{"pid": one.key[1], "start_ticks": one.key[2], "name": one.name, "total": round(one.amount, 3)}
                    for one in who.members] or None}
    return {key: value for key, value in made.items() if value is not None}


def victim_fields(victims: Sequence[Victim]) -> list[dict[str, Any]]:
    """Victims as the fields of a record."""
    return [{key: value for key, value in {
        "name": one.name, "pid": one.key[1] if one.key else None,
        "start_ticks": one.key[2] or None if one.key else None,
        "waited_s": one.waited_s or None, "pageins": one.pageins or None}.items() if value is not None}
        for one in victims]


def title(cause: Cause) -> str:
    """The word that stands before the sentence of a cause."""
    return visible(cause.cause)


_NAMES = ("pid", "start_ticks", "command", "name", "unit", "user", "processes", "share")


def pause_culprits(pause: Record, records: Sequence[Record]) -> dict[str, Any]:
    """Who used what was short in a pause, by the records of the slices of its time: the takers of the verdict about the
    same window that `rh-report why` is asked about. None for a pause that no process is to blame for."""
    if pause["cause"] not in ("cpu", "memory", "io"):
        return {"culprits": []}
    others = [each for each in records if each["type"] != "pause"]
    cause, unexplained = culprits(of_records([*others, pause], pause["start"], pause["end"]), pause["cause"])
    rest = {} if unexplained is None else {"unexplained_share": round(unexplained, 4)}
    found: list[dict[str, Any]] = []
    if cause is None or cause.who is None:
        return {"culprits": found, **rest}
    resource = {"io": "disk"}.get(pause["cause"], pause["cause"])
    if cause.details.get("measure") == "pageins":
        resource = "pageins"
    for taker in cause.takers:
        fields = taker_fields(cause, taker)
        row = {**{name: fields[name] for name in _NAMES if name in fields}, "resource": resource,
               "amount": fields["total"]}
        if "pid" in row:
            found.append(row)
            continue
        for member in taker.members:    # several of one name, without a common root: each by itself
            part = member.amount / taker.amount if taker.amount > 0 else 0.0
            found.append({**row, "pid": member.key[1], "start_ticks": member.key[2], "name": member.name,
                          "processes": 1, "amount": round(member.amount, 3), "share": round(taker.share * part, 4)})
    return {"culprits": found, **rest}


def now_words(records: Sequence[Record], now: float) -> str:
    """What is wrong at the time `now` (epoch seconds), and who is behind it, in a few words; empty if nothing is."""
    judged = verdict(of_records(records, now - NOW_S, now, recent=True))
    first = judged.first
    if first is None or not (judged.state == "found" or stands_out(first)):
        return ""
    return f"{title(first)}: {taker_name(first.who)}" if first.who is not None else title(first)
