"""The lines of a spindump report: those that open a thread, the state at the end of a stack frame, `Key: value` lines.

    Thread 0x3fd504    DispatchQueue "com.apple.main-thread"(1)    341 samples (1-341)    priority 31 (base 31)
        cpu time 0.922s (3.2G cycles, 15.4G instructions, 0.21c/i)    3 I/Os (48 KB)

Report versions up to 29 pad the parts to columns; later ones put four spaces between them. Every part but the id may
be missing. `<multiple>` and `0xa,0xb` are several threads that served one queue.

    *12  machine_switch_context + 200 (kernel + 2369672) [0xffffff8000442888] (blocked by turnstile with priority 92
         waiting for WindowServer [176] thread 0x3e2 after 3 hops) 1-12

Words between the kind of wait and its holder: `waiting for` (turnstile), `owned by` (unfair lock, krwlock, mutex,
port), `processed by` (queue), `on` (wait4). Waits without a process: `waiting for this thread`, `waiting for thread
0xce8dc4`, `UNKNOWN waiting for receive port name "x" in domain 1, mach_msg receive on port ...`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from rogue_hunter.capture.reports.decode import (
    KEY,
    NAME_LIMIT,
    TEXT_LIMIT,
    Fields,
    Keys,
    fraction,
    named,
    named_as,
    one,
    plain,
    size,
    text,
    timestamp,
    whole,
)
from rogue_hunter.capture.reports.decode import counts as decode_counts

_ID = re.compile(rb"\s*Thread (<[^>]{0,64}>|\S{1,4096})")
_SAMPLES = re.compile(rb"(?:^|\s)([0-9]{1,12}) samples? \(([0-9]{1,12})(?:-([0-9]{1,12}))?[^)]{0,64}\)")
_PRIORITIES = re.compile(rb"\spriority ([0-9]{1,6})(?:-([0-9]{1,6}))?(?: \(base ([0-9]{1,6})(?:-[0-9]{1,6})?\))?")
# `cpu time <0.001` has no unit in reports of version 25.
_CPU = re.compile(rb"\scpu time (<?[0-9][0-9.]{0,20})(?![0-9.])")
_IDLE = re.compile(rb"\sidle time (<?[0-9][0-9.]{0,20})(?![0-9.])")
_LAST_RAN = re.compile(rb"last ran (<?[0-9][0-9.,]{0,20})(?![0-9])")
_LINE_LIMIT = 8192


def is_thread_line(line: bytes) -> bool:
    """True when `line`, without its indentation, opens a thread."""
    return line.startswith((b"Thread 0x", b"Thread <"))


def thread_line(line: bytes) -> Fields:
    """The fields of a spindump_thread in the line. A name may contain text that looks like another part, so the last
    match counts."""
    line = line[:_LINE_LIMIT].rstrip()
    head = _ID.match(line)
    if head is None:
        return {"thread_id": "?"}
    rest = line[head.end() :]
    every = list(_SAMPLES.finditer(rest))
    counts = every[-1] if every else None
    labels, numbers = (rest[: counts.start()], rest[counts.end() :]) if counts else _cut_labels(rest)
    queue, name = _labels(labels.strip())
    fields: Fields = {"thread_id": text(head.group(1), 4096), "thread_name": name, "queue": queue}
    if counts:
        fields |= {"samples": int(counts[1]), "sample_first": int(counts[2]),
                   "sample_last": int(counts[3] or counts[2])}
    if found := _PRIORITIES.search(numbers):
        fields |= {key: int(digits) for key, digits in zip(
            ("priority", "priority_high", "base_priority"), found.groups(), strict=True) if digits}
    for field, pattern in (("cpu_seconds", _CPU), ("idle_seconds", _IDLE), ("last_ran_s", _LAST_RAN)):
        if found := pattern.search(numbers):
            fields[field] = fraction(found[1].replace(b",", b""))
    return fields | decode_counts(numbers)


def _cut_labels(rest: bytes) -> tuple[bytes, bytes]:
    at = rest.rfind(b" priority ")
    return (rest[:at], rest[at:]) if at >= 0 else (rest, b"")


def _labels(labels: bytes) -> tuple[str | None, str | None]:
    """Queue and name; each may be quoted and hold anything."""
    queue = name = None
    if labels.startswith(b"DispatchQueue "):
        at = labels.find(b' Thread name "')
        mine, labels = (labels[:at], labels[at + 1 :]) if at >= 0 else (labels, b"")
        queue = text(mine[len(b"DispatchQueue ") :].strip(), NAME_LIMIT)
    if labels.startswith(b"Thread name "):
        quoted = labels[len(b"Thread name ") :].removesuffix(b"(changed)").strip()
        if len(quoted) >= 2 and quoted.startswith(b'"') and quoted.endswith(b'"'):
            quoted = quoted[1:-1]
        name = text(quoted, NAME_LIMIT)
    return queue, name


_ADDRESS = re.compile(rb"\[0x[0-9a-fA-F]{1,16}\] \(")
_CLOSE = re.compile(rb"\)(?: ([0-9]{1,12})(?:-([0-9]{1,12}))?)?\s*$")
_BLOCKED = re.compile(rb"(?:^|, )blocked (?:by|on) ")
_HOPS = re.compile(rb",? after ([0-9]{1,9}) hops?$")
_THREAD = re.compile(rb"(?:^|\s)thread (0x[0-9a-fA-F]{1,16}|[0-9]{1,18})$")
_PRIORITY = re.compile(rb" with priority ([0-9]{1,6})$")
_STRONG = re.compile(rb"(?:^| |, )(?:waiting for|owned by|held by|processed by|signaled by|busy for|pushing|handled by|"
                     rb"serviced by|donated to) ")
_WEAK = re.compile(rb"(?: |, )(?:on|for|to|by) ")
_HOLDER_FLAG = re.compile(rb" \((?:suspended|zombie|frozen)\)$")
_ENDS_IN_PID = re.compile(rb"\[[0-9]{1,10}\]$")
_PORT_WORDS = (b"receive port", b"send port", b"port ", b"semaphore ", b"locked port", b"in transit")


class Wait(NamedTuple):
    """One `blocked by`. `on_what`: what is waited for if no process is named; `hops` counts the waits between
    waiter and holder, at least 1."""

    kind: str
    on_pid: int | None
    on_command: str | None
    on_thread_id: str | None
    on_self: bool
    on_what: str | None
    hops: int
    deadlock: bool
    detail: str


class State(NamedTuple):
    """The bracket of one frame. `words` are the states, for example {running, p-core}."""

    words: frozenset[bytes]
    wait: Wait | None
    first: int | None
    last: int | None


def state_of(frame: bytes) -> State | None:
    """The state at the end of a frame line; None when it has none."""
    frame = frame[:8192]
    opened = -1
    # A symbol may contain text that looks like an address: the state is the bracket after the last one.
    for found in _ADDRESS.finditer(frame):
        opened = found.end()
    if opened < 0:
        at = frame.find(b"blocked by ")
        opened = frame.rfind(b"(", 0, at) + 1 if at > 0 else 0
    closed = _CLOSE.search(frame, opened) if opened > 0 else None
    if closed is None:
        return None
    inside, first, last = frame[opened : closed.start()], closed.group(1), closed.group(2)
    blocked = _BLOCKED.search(inside)
    words = inside[: blocked.start()] if blocked else inside
    wait = wait_of(inside[blocked.end() :]) if blocked else None
    start = whole(first) if first else None
    return State(frozenset(w for w in words.split(b", ") if w), wait, start, whole(last) if last else start)


def wait_of(data: bytes) -> Wait:
    """Parse the text after `blocked by `, without the closing bracket."""
    rest = data.strip()[:TEXT_LIMIT]
    detail = text(rest)
    deadlock = b"part of a deadlock" in rest
    if deadlock:
        rest = rest[: rest.index(b"part of a deadlock")].rstrip(b" -,(")
    hops = 1
    if found := _HOPS.search(rest):
        hops, rest = max(1, int(found.group(1))), rest[: found.start()]
    while found := _HOLDER_FLAG.search(rest):
        rest = rest[: found.start()]
    thread = None
    if found := _THREAD.search(rest):
        thread, rest = text(found.group(1)), rest[: found.start()]
    kind, who = _split(rest, thread is not None)
    if found := _PRIORITY.search(kind):
        kind = kind[: found.start()]
    kind = kind.removesuffix(b" UNKNOWN").strip(b" ,")
    itself = who in (b"this thread", b"itself")
    holder = named(who)
    if itself or holder.pid is None:
        what = None if itself or not who else text(who, NAME_LIMIT)
        return Wait(text(kind, NAME_LIMIT) or "unknown", None, None, thread, itself, what, hops, deadlock, detail)
    return Wait(text(kind, NAME_LIMIT) or "unknown", holder.pid, holder.command, thread, False, None, hops, deadlock,
                detail)


def _split(rest: bytes, has_thread: bool) -> tuple[bytes, bytes]:
    """The kind of wait, and its holder."""
    found = _STRONG.search(rest)
    if found is None and (has_thread or rest.endswith((b"]", b")"))):
        found = _WEAK.search(rest)
    if found is None:
        if _ENDS_IN_PID.search(rest):
            return b"", rest
        # `waiting for` is at the very end when only a thread followed it.
        for tail in (b" waiting for", b" owned by", b" held by", b" processed by", b" on"):
            if rest.endswith(tail):
                return rest[: -len(tail)], b""
        return rest, b""
    who = rest[found.end() :].strip()
    if who.startswith(b"process ") and who.endswith(b"]"):
        who = who.removeprefix(b"process ")
    return rest[: found.start()], _owner(who)


def _owner(who: bytes) -> bytes:
    """`port 0x1 name 0x2 owned by Foo [12]`: the text after the last `owned by`, if it ends with a pid."""
    if not who.startswith(_PORT_WORDS) or not _ENDS_IN_PID.search(who):
        return who
    at = who.rfind(b" owned by ")
    return who[at + len(b" owned by ") :] if at >= 0 else who


# -- keys --------------------------------------------------------------------------------------------------------------

MAX_EXTRA = 64
"""Header lines without their own field that are kept. The longest real header has 24."""
MAX_NOTES = 32

_INTERVAL = re.compile(rb"\(([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|us|s) sampling interval\)")
_UNRESPONSIVE = re.compile(rb"unresponsive for ([0-9]{1,9}(?:\.[0-9]{1,3})?) seconds? before", re.IGNORECASE)
_SAMPLE_RANGE = re.compile(rb"[0-9]{1,12} \(([0-9]{1,12})(?:-([0-9]{1,12}))?")
_ARROW = re.compile(rb"(.+?) -> (.+)")
_OMITTED = re.compile(rb"([0-9]{1,9}) idle work queue threads? omitted")
_SUSPENDED = re.compile(rb"Suspended for ([0-9]{1,9}) samples?")
_PERCENT = re.compile(rb"\(([0-9]{1,3}(?:\.[0-9]{1,3})?)%\)")
_LEVEL = re.compile(rb"([A-Za-z]{1,32}) -> (-?[0-9]{1,9})")
_SAMPLE_WORDS = re.compile(rb"([0-9]{1,12}) samples? (?:on )?([A-Za-z]{1,16})")
_AMOUNT = re.compile(
    rb"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(s(?:econds)? cpu time|wakeups|[KMGT]?B)[a-z ]{0,64}?"
    rb" over (?:the last )?([0-9]{1,9}(?:\.[0-9]{1,3})?) seconds"
    rb"(?: \(([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGT]?)[a-zA-Z% ]{0,32}average\))?"
    rb"(?:, exceeding limit of ([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGT]?)[a-zA-Z% ]{0,32} over ([0-9]{1,9}) seconds)?")
_OLD_RATE = re.compile(rb"([0-9]{1,15}) wakeups per second for ([0-9]{1,9}) seconds")
_STEP = re.compile(rb"([0-9.]{1,15}) ([KMG]?)B/step")
_MAX = re.compile(rb"\(max ([0-9.]{1,20}\s*[KMGT]?i?B)")


def _steps(data: bytes) -> Fields:
    fields: Fields = {"steps": whole(data)}
    if found := _INTERVAL.search(data):
        factor = {b"ms": 1.0, b"us": 0.001, b"s": 1000.0}[found.group(2)]
        fields["interval_ms"] = float(found.group(1)) * factor
    if found := _STEP.search(data):
        fields["step_bytes"] = _prefixed(found[1], found[2])
    return fields


def _duration(data: bytes, name: str = "duration_s") -> Fields:
    fields: Fields = {name: fraction(data)}
    if found := _UNRESPONSIVE.search(data):
        fields["unresponsive_s"] = float(found.group(1))
    return fields


def _cpu(data: bytes) -> Fields:
    return {"cpu_seconds": fraction(data), **decode_counts(data)}


def _advisory(data: bytes) -> Fields:
    levels = {text(name): int(level) for name, level in _LEVEL.findall(data)[:16]}
    return {"advisory_levels": levels or None, "thermal_pressure": levels.get("ThermalPressure")}


def _disk(data: bytes) -> Fields:
    free, slash, total = data.partition(b"/")
    return {"disk_free_bytes": size(free), "disk_total_bytes": size(total) if slash else None}


def _prefixed(number: bytes | None, prefix: bytes | None) -> float | None:
    """A number with its decimal prefix: the sums of resource reports fit powers of 1000 only."""
    known = None if number is None else fraction(number)
    return None if known is None else known * 1000.0 ** (b"KMGT".index(prefix) + 1 if prefix else 0)


def amount(data: bytes) -> Fields:
    """The sentence of a resource report: `N seconds cpu time over S seconds (P% cpu average), exceeding limit of P% cpu
    over T seconds`, and the same with wakeups and with bytes. Units: see the record resource_report."""
    found = _AMOUNT.match(data)
    if found is None:
        old = _OLD_RATE.match(data)
        return {"unit": "wakeups", "average": float(old[1]), "over_s": float(old[2])} if old else {}
    unit = found[2]
    kind = "wakeups" if unit == b"wakeups" else "cpu_seconds" if unit.endswith(b"time") else "bytes"
    return {"amount": _prefixed(found[1], unit[:-1] if kind == "bytes" else None), "unit": kind,
            "over_s": float(found[3]), "average": _prefixed(found[4], found[5]),
            "limit": _prefixed(found[6], found[7]), "limit_over_s": float(found[8]) if found[8] else None}


_REPORT_KEYS: Keys = {
    b"Date/Time": one("ts", timestamp),
    b"End time": one("end_ts", timestamp),
    b"OS Version": one("os_version", plain),
    b"Architecture": one("architecture", plain),
    b"Report Version": one("report_version", plain),
    b"Data Source": one("data_source", plain),
    b"Reason": one("reason", plain),
    b"Event": one("event", plain),
    b"Command": one("command", lambda data: text(data.strip(), NAME_LIMIT) or None),
    b"Path": one("path", plain),
    b"PID": one("pid", whole),
    b"Duration": _duration,
    b"Duration Sampled": lambda data: _duration(data, "sampled_s"),
    b"Steps": _steps,
    b"Hardware model": one("hardware", plain),
    b"Active cpus": one("cpus", whole),
    b"Memory size": one("memory_total_bytes", size),
    b"VM page size": one("page_bytes", whole),
    b"Time Awake Since Boot": one("awake_s", fraction),
    b"Time Since Wake": one("since_wake_s", fraction),
    b"Total CPU Time": _cpu,
    b"Advisory levels": _advisory,
    b"Free disk space": _disk,
    b"Vnodes Available": one("vnodes_available_percent", fraction),
    b"Identifier": one("identifier", plain),
    b"Team ID": one("team_id", plain),
    b"Parent": named_as("parent"),
    b"Responsible": named_as("responsible"),
    b"Resource Coalition": one("coalition", plain),
    b"Resource Coalition ID": one("coalition", plain),
    b"Action taken": one("action_taken", plain),
    b"CPU": amount,
    b"Wakeups": amount,
    b"Writes": amount,
    b"CPU used": one("amount", fraction),
    b"CPU duration": one("over_s", fraction),
    b"Wakeups caused": one("amount", fraction),
    b"Wakeups duration": one("over_s", fraction),
    b"Writes duration": one("over_s", fraction),
    b"Limit duration": one("limit_over_s", fraction),
}


def report_line(line: bytes, fields: Fields, extra: dict[str, str]) -> bool:
    """Read one line of the report's header; False when it is not `Key: value`."""
    stripped = line[:16384].rstrip()
    found = KEY.match(stripped)
    if found is None:
        if stripped.startswith((b"Heavy format", b"Timeline format")):
            fields["format"] = "heavy" if stripped.startswith(b"Heavy") else "timeline"
        return False
    key, value = found.group(1), found.group(2)
    if key in (b"Heavy format", b"Timeline format"):
        fields["format"] = "heavy" if key == b"Heavy format" else "timeline"
        return True
    take = _REPORT_KEYS.get(key)
    if take is not None:
        # The machine's keys come first; the target's repeat some of them (Architecture).
        for name, known in take(value).items():
            if known is not None:
                fields.setdefault(name, known)
    elif len(extra) < MAX_EXTRA:
        label, words = text(key, 64), text(value.strip())
        extra[label] = f"{extra[label]}; {words}"[:1024] if label in extra else words
    return True


def process_line(line: bytes, fields: Fields, page_bytes: int, *, powerstats: bool = False) -> None:
    """Read one `Key: value` of a process, or of a section `Powerstats for:`."""
    found = KEY.match(line[:16384].rstrip())
    if found is None:
        return
    key, value = found.group(1), found.group(2).strip()
    simple = (_POWERSTATS if powerstats else _PROCESS_KEYS).get(key)
    if simple is not None:
        fields.update({k: v for k, v in simple(value).items() if v is not None})
    elif key in (b"Footprint", b"Task size"):
        fields.update({k: v for k, v in _footprint(value, page_bytes).items() if v is not None})
    elif key == b"Note" and not powerstats:
        _note(value, fields)


def begins_section(line: bytes) -> bool:
    """True for `Name:` without a value that is not a key of a process: a table after the last process."""
    found = KEY.match(line[:16384].rstrip())
    return found is not None and not found.group(2) and found.group(1) not in _PROCESS_KEYS


def _note(value: bytes, fields: Fields) -> None:
    notes = fields.setdefault("notes", [])
    if len(notes) < MAX_NOTES:
        notes.append(text(value, 512))
    if value.startswith(b"Terminated (zombie)"):
        fields["defunct"] = True
    elif found := _SUSPENDED.match(value):
        fields["suspended_samples"] = int(found[1])
    elif found := _OMITTED.match(value):
        fields["idle_threads_omitted"] = int(found[1])
    elif value.startswith(b"Unresponsive"):
        fields["unresponsive"] = True
        if found := _UNRESPONSIVE.search(value):
            fields["unresponsive_s"] = float(found[1])


def _footprint(value: bytes, page_bytes: int) -> Fields:
    """`A`, or `A -> B (+C) (max M at time index N)`."""
    peak = _MAX.search(value)
    most = size(peak.group(1)) if peak else None
    if found := _ARROW.match(value):
        return {"memory_before_bytes": size(found.group(1), page_bytes),
                "memory_bytes": size(found.group(2), page_bytes), "memory_peak_bytes": most}
    return {"memory_bytes": size(value, page_bytes), "memory_peak_bytes": most}


def _sample_range(value: bytes) -> Fields:
    fields: Fields = {"samples": whole(value)}
    if (found := _SAMPLE_RANGE.match(value)) and not _PERCENT.search(value):
        fields["sample_first"] = int(found.group(1))
        fields["sample_last"] = int(found.group(2) or found.group(1))
    return fields


def _share(value: bytes) -> Fields:
    found = _PERCENT.search(value)
    return {"samples": whole(value), "samples_percent": float(found[1]) if found else None}


def _words(**names: str) -> Callable[[bytes], Fields]:
    """`4 samples on Battery, 5 samples on AC`: word -> field."""
    def take(value: bytes) -> Fields:
        return {names[word.decode()]: int(n) for n, word in _SAMPLE_WORDS.findall(value) if word.decode() in names}

    return take


_PROCESS_KEYS: Keys = {
    b"UUID": one("uuid", plain),
    b"Path": one("path", plain),
    b"Identifier": one("identifier", plain),
    b"Version": one("version", plain),
    b"Architecture": one("architecture", plain),
    b"Parent": named_as("parent"),
    b"Responsible": named_as("responsible"),
    b"Codesigning ID": one("codesigning_id", plain),
    b"Team ID": one("team_id", plain),
    b"Is First Party": one("first_party", {b"Yes": True, b"No": False}.get),
    b"Sudden Term": one("sudden_termination", plain),
    b"Execed from": lambda value: {"execed_from": named(value).command or None},
    b"Execed to": lambda value: {"execed_to": named(value).command or None},
    b"UID": one("uid", whole),
    b"Pageins": one("pageins_total", whole),
    b"CPU Time": _cpu,
    b"Time Since Fork": one("age_s", fraction),
    b"Start time": one("start_ts", timestamp),
    b"End time": one("end_ts", timestamp),
    b"Num samples": _sample_range,
    b"Num threads": one("threads", whole),
}

_POWERSTATS: Keys = {
    **{key: _PROCESS_KEYS[key] for key in (b"UUID", b"Path", b"Identifier", b"Team ID", b"Architecture", b"Parent",
                                      b"Responsible", b"Pageins", b"CPU Time", b"Start time", b"End time")},
    b"App Version": one("version", plain),
    b"Thread ID": one("thread_id", plain),
    b"Num samples": _share,
    b"Microstackshots": _share,
    b"Primary state": one("primary_state", lambda value: re.sub(r"^\d+ samples? ", "", plain(value) or "") or None),
    b"User Activity": _words(Idle="user_idle_samples", Active="user_active_samples"),
    b"Power Source": _words(Battery="battery_samples", AC="ac_samples"),
}
