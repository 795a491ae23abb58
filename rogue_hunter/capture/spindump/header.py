"""`Key: value` lines: those of a report's header and those of a process."""

from __future__ import annotations

import re
from collections.abc import Callable

from rogue_hunter.capture.reports.keys import KEY, Fields, Keys, named_as, one, plain
from rogue_hunter.capture.spindump.decode import NAME_LIMIT, counts, fraction, named, size, text, timestamp, whole

MAX_EXTRA = 64
"""Header lines without their own field that are kept. The longest real header has 24."""
MAX_NOTES = 32

_INTERVAL = re.compile(rb"\(([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|us|s) sampling interval\)")
_UNRESPONSIVE = re.compile(rb"unresponsive for ([0-9]{1,9}(?:\.[0-9]{1,3})?) seconds? before", re.IGNORECASE)
_RANGE = re.compile(rb"[0-9]{1,12} \(([0-9]{1,12})(?:-([0-9]{1,12}))?")
_ARROW = re.compile(rb"(.+?) -> (.+)")
_OMITTED = re.compile(rb"([0-9]{1,9}) idle work queue threads? omitted")
_SUSPENDED = re.compile(rb"Suspended for ([0-9]{1,9}) samples?")
_PERCENT = re.compile(rb"\(([0-9]{1,3}(?:\.[0-9]{1,3})?)%\)")
_LEVEL = re.compile(rb"([A-Za-z]{1,32}) -> (-?[0-9]{1,9})")
_SAMPLES = re.compile(rb"([0-9]{1,12}) samples? (?:on )?([A-Za-z]{1,16})")
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
    return {"cpu_seconds": fraction(data), **counts(data)}


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


_REPORT: Keys = {
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
    if stripped.startswith(b"\xef\xbb\xbf"):
        stripped = stripped[3:]
    found = KEY.match(stripped)
    if found is None:
        if stripped.startswith((b"Heavy format", b"Timeline format")):
            fields["format"] = "heavy" if stripped.startswith(b"Heavy") else "timeline"
        return False
    key, value = found.group(1), found.group(2)
    if key in (b"Heavy format", b"Timeline format"):
        fields["format"] = "heavy" if key == b"Heavy format" else "timeline"
        return True
    take = _REPORT.get(key)
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
    simple = (_POWERSTATS if powerstats else _PROCESS).get(key)
    if simple is not None:
        fields.update({k: v for k, v in simple(value).items() if v is not None})
    elif key in (b"Footprint", b"Task size"):
        fields.update({k: v for k, v in _footprint(value, page_bytes).items() if v is not None})
    elif key == b"Note" and not powerstats:
        _note(value, fields)


def begins_section(line: bytes) -> bool:
    """True for `Name:` without a value that is not a key of a process: a table after the last process."""
    found = KEY.match(line[:16384].rstrip())
    return found is not None and not found.group(2) and found.group(1) not in _PROCESS


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


def _samples(value: bytes) -> Fields:
    fields: Fields = {"samples": whole(value)}
    if (found := _RANGE.match(value)) and not _PERCENT.search(value):
        fields["sample_first"] = int(found.group(1))
        fields["sample_last"] = int(found.group(2) or found.group(1))
    return fields


def _share(value: bytes) -> Fields:
    found = _PERCENT.search(value)
    return {"samples": whole(value), "samples_percent": float(found[1]) if found else None}


def _split(**names: str) -> Callable[[bytes], Fields]:
    """`4 samples on Battery, 5 samples on AC`: word -> field."""
    def take(value: bytes) -> Fields:
        return {names[word.decode()]: int(n) for n, word in _SAMPLES.findall(value) if word.decode() in names}

    return take


_PROCESS: Keys = {
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
    b"Num samples": _samples,
    b"Num threads": one("threads", whole),
}

_POWERSTATS: Keys = {
    **{key: _PROCESS[key] for key in (b"UUID", b"Path", b"Identifier", b"Team ID", b"Architecture", b"Parent",
                                      b"Responsible", b"Pageins", b"CPU Time", b"Start time", b"End time")},
    b"App Version": one("version", plain),
    b"Thread ID": one("thread_id", plain),
    b"Num samples": _share,
    b"Microstackshots": _share,
    b"Primary state": one("primary_state", lambda value: re.sub(r"^\d+ samples? ", "", plain(value) or "") or None),
    b"User Activity": _split(Idle="user_idle_samples", Active="user_active_samples"),
    b"Power Source": _split(Battery="battery_samples", AC="ac_samples"),
}
