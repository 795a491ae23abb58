"""`Key: value` lines: those of a report's header and those of a process."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rogue_hunter.capture.spindump.decode import NAME_LIMIT, fraction, named, size, text, timestamp, whole

MAX_EXTRA = 64
"""Header lines without their own field that are kept. The longest real header has 24."""
MAX_NOTES = 32

_KEY = re.compile(rb"([A-Za-z][A-Za-z0-9/ ._-]{0,39}):[ \t]*(.*)$")
_INTERVAL = re.compile(rb"\(([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|us|s) sampling interval\)")
_UNRESPONSIVE = re.compile(rb"unresponsive for ([0-9]{1,9}(?:\.[0-9]{1,3})?) seconds? before", re.IGNORECASE)
_RANGE = re.compile(rb"[0-9]{1,12} \(([0-9]{1,12})(?:-([0-9]{1,12}))?")
_ARROW = re.compile(rb"(.+?) -> (.+)")
_MAX = re.compile(rb"\(max ([0-9.]{1,20}\s*[KMGT]?i?B)")

Fields = dict[str, Any]


def _plain(data: bytes) -> str | None:
    return text(data.strip()) or None


def _steps(data: bytes) -> Fields:
    fields: Fields = {"steps": whole(data)}
    if found := _INTERVAL.search(data):
        factor = {b"ms": 1.0, b"us": 0.001, b"s": 1000.0}[found.group(2)]
        fields["interval_ms"] = float(found.group(1)) * factor
    return fields


def _duration(data: bytes) -> Fields:
    fields: Fields = {"duration_s": fraction(data)}
    if found := _UNRESPONSIVE.search(data):
        fields["unresponsive_s"] = float(found.group(1))
    return fields


def _one(name: str, convert: Callable[[bytes], Any]) -> Callable[[bytes], Fields]:
    return lambda data: {name: convert(data)}


_REPORT: dict[bytes, Callable[[bytes], Fields]] = {
    b"Date/Time": _one("ts", timestamp),
    b"End time": _one("end_ts", timestamp),
    b"OS Version": _one("os_version", _plain),
    b"Architecture": _one("architecture", _plain),
    b"Report Version": _one("report_version", _plain),
    b"Data Source": _one("data_source", _plain),
    b"Reason": _one("reason", _plain),
    b"Event": _one("event", _plain),
    b"Command": _one("command", lambda data: text(data.strip(), NAME_LIMIT) or None),
    b"Path": _one("path", _plain),
    b"PID": _one("pid", whole),
    b"Duration": _duration,
    b"Duration Sampled": lambda data: {k: v for k, v in _duration(data).items() if k != "duration_s"},
    b"Steps": _steps,
    b"Hardware model": _one("hardware", _plain),
    b"Active cpus": _one("cpus", whole),
    b"Memory size": _one("memory_total_bytes", size),
    b"VM page size": _one("page_bytes", whole),
    b"Time Awake Since Boot": _one("awake_s", fraction),
    b"Time Since Wake": _one("since_wake_s", fraction),
    b"Total CPU Time": _one("cpu_seconds", fraction),
}


def report_line(line: bytes, fields: Fields, extra: dict[str, str]) -> bool:
    """Read one line of the report's header; False when it is not `Key: value`."""
    stripped = line[:16384].rstrip()
    if stripped.startswith(b"\xef\xbb\xbf"):
        stripped = stripped[3:]
    found = _KEY.match(stripped)
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


def process_line(line: bytes, fields: Fields, page_bytes: int) -> None:
    """Read one `Key: value` of a process."""
    found = _KEY.match(line[:16384].rstrip())
    if found is None:
        return
    key, value = found.group(1), found.group(2).strip()
    simple = _PROCESS.get(key)
    if simple is not None:
        fields.update({k: v for k, v in simple(value).items() if v is not None})
    elif key in (b"Footprint", b"Task size"):
        fields.update({k: v for k, v in _footprint(value, page_bytes).items() if v is not None})
    elif key == b"Note":
        _note(value, fields)


def begins_section(line: bytes) -> bool:
    """True for `Name:` without a value that is not a key of a process: a table after the last process."""
    found = _KEY.match(line[:16384].rstrip())
    return found is not None and not found.group(2) and found.group(1) not in _PROCESS


def _note(value: bytes, fields: Fields) -> None:
    notes = fields.setdefault("notes", [])
    if len(notes) < MAX_NOTES:
        notes.append(text(value, 512))
    if value.startswith(b"Terminated (zombie)"):
        fields["defunct"] = True
    elif value.startswith(b"Suspended for"):
        fields["suspended"] = True


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
    if found := _RANGE.match(value):
        fields["sample_first"] = int(found.group(1))
        fields["sample_last"] = int(found.group(2) or found.group(1))
    return fields


def _parent(value: bytes) -> Fields:
    who = named(value)
    return {"parent_pid": who.pid, "parent_command": who.command or None}


def _responsible(value: bytes) -> Fields:
    who = named(value)
    return {"responsible_pid": who.pid, "responsible_command": who.command or None}


_PROCESS: dict[bytes, Callable[[bytes], Fields]] = {
    b"UUID": _one("uuid", _plain),
    b"Path": _one("path", _plain),
    b"Identifier": _one("identifier", _plain),
    b"Version": _one("version", _plain),
    b"Architecture": _one("architecture", _plain),
    b"Parent": _parent,
    b"Responsible": _responsible,
    b"Execed from": lambda value: {"execed_from": named(value).command or None},
    b"Execed to": lambda value: {"execed_to": named(value).command or None},
    b"UID": _one("uid", whole),
    b"Pageins": _one("pageins_total", whole),
    b"CPU Time": _one("cpu_seconds", fraction),
    b"Time Since Fork": _one("age_s", fraction),
    b"Start time": _one("start_ts", timestamp),
    b"End time": _one("end_ts", timestamp),
    b"Num samples": _samples,
    b"Num threads": _one("threads", whole),
}
