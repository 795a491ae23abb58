"""Sentences and cells for people. Names that a process chose itself are made harmless here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rogue_hunter.text.format import clip, duration, size, visible

Fields = Mapping[str, Any]

_METRICS: dict[str, tuple[str, Callable[[float], str]]] = {
    "cpu": ("cpu_percent", lambda v: f"{v:.0f} % of a core"),
    "memory": ("memory_bytes", size),
    "disk": ("disk_bytes_per_s", lambda v: f"{size(v)}/s"),
    "gpu": ("gpu_ms_per_s", lambda v: f"{v / 10:.0f} % of a gpu"),
    "wakeups": ("wakeups_per_s", lambda v: f"{v:.0f}/s"),
}

_UNITS: dict[str, Callable[[float], str]] = {
    "bytes": size, "bytes/s": lambda v: f"{size(v)}/s", "%": lambda v: f"{number(v)} %", "s": duration,
    "1/s": lambda v: f"{number(v)}/s", "ms/s": lambda v: f"{number(v)} ms/s", "W": lambda v: f"{number(v)} W",
}

_DIRECTORY = re.compile(r"^((?:\S+: )?)/(?:[^/\s]+/)*(?=[^/\s])")
"""The directory of the program of a command line, which may have a name before it."""


def number(value: float) -> str:
    """A number with three digits that matter, no exponent."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")


def measure(value: float | None, unit: str) -> str:
    """A metric with its unit, as the schema names it; nothing for an unknown one."""
    if value is None:
        return ""
    return _UNITS.get(unit, number)(value)


def percent(share: float | None) -> str:
    """A share as `82 %`; `<1 %` for a little, nothing when it is unknown."""
    if share is None:
        return ""
    return "<1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def moment(ts: float | None, now: float) -> str:
    """A point of time, local: the time of day for today, the date with it for another day."""
    if ts is None:
        return ""
    try:
        then, today = datetime.fromtimestamp(ts), datetime.fromtimestamp(now)
    except (ValueError, OverflowError, OSError):
        return f"@{ts:.0f}"
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M:%S}"


def period_words(since: float, until: float, now: float) -> str:
    """`in the last 24 h`, or `from 14:00:00 to 15:00:00`, with dates where the days differ."""
    if abs(until - now) < 2:
        return f"in the last {_span(until - since)}"
    begin, end = moment(since, now), moment(until, now)
    if len(begin) != len(end):
        begin, end = moment(since, 0.0), moment(until, 0.0)
    return f"from {begin} to {end}"


def _span(seconds: float) -> str:
    hours = round(seconds / 3600)
    if hours >= 1 and abs(seconds - 3600 * hours) < 2:
        return f"{hours} h" if hours <= 48 else f"{hours // 24} days" if hours % 24 == 0 else f"{hours} h"
    return duration(seconds)


def ago(ts: float, now: float) -> str:
    """How long ago a point of time was."""
    return f"{duration(max(0.0, now - ts))} ago"


def cause(row: Fields) -> str:
    """The dominant resource, or the dominant category of the stress model."""
    return str(row.get("dominant_resource") or row.get("dominant_category") or "")


def amount(row: Fields) -> str:
    """How much of its dominant resource a process used, absolutely: `98 % of a core`; nothing when unknown."""
    name, words = _METRICS.get(cause(row), ("", number))
    value = row.get(name)
    return words(value) if value is not None else ""


OWN = " -m rogue_hunter "
"""How the launchers start a command; what follows is its name and its arguments."""


def command_line(row: Fields) -> str:
    """What people know a process by: its command line, with its short name before it where the two differ.

    A process without arguments (a kernel thread, one that has ended) is in brackets, as in ps. A command of
    rogue-hunter is shown as people type it. Not yet made safe.
    """
    command, line = str(row.get("command") or "?"), str(row.get("cmdline") or "").strip()
    if not line:
        return f"[{command}]"
    if command.startswith("rh-") and OWN in line:
        return "rh-" + line.partition(OWN)[2]
    program = line.split(None, 1)[0].rsplit("/", 1)[-1]
    return line if program.startswith(command[:15]) else f"{command}: {line}"


def program_first(line: str) -> str:
    """A command line without the directory of its program, which would fill a narrow column."""
    return _DIRECTORY.sub(r"\1", line, count=1)


def name(row: Fields) -> str:
    """`sh (pid 12174)`, safe for a terminal."""
    return f"{clip(str(row.get('command') or '?'), 40)} (pid {row['pid']})"


def share(row: Fields) -> str:
    """`cpu share 82 % (101 % of a core)`, or the numbers behind a category of the stress model."""
    resource, part = row.get("dominant_resource"), row.get("share")
    if resource and part is None:
        part = row.get(f"{resource}_share")
    much = amount(row)
    if part is not None:
        return f"{resource} share {percent(part)}" + (f" ({much})" if much else "")
    if much:
        return much
    metrics = row.get("dominant_metrics")
    return visible(", ".join(map(str, metrics))) if metrics else ""
