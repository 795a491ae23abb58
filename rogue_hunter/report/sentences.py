"""Sentences and cells for people. Whatever a process chose itself is made harmless here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rogue_hunter.text.format import clip, duration, size, visible

Fields = Mapping[str, Any]

_VERBS = {"cpu": ("hogs the cpu", "hogged the cpu"), "memory": ("hogs memory", "hogged memory"),
          "disk": ("hogs the disk", "hogged the disk"), "gpu": ("hogs the gpu", "hogged the gpu"),
          "wakeups": ("wakes the cpu", "woke the cpu"), "blocking": ("makes others wait", "made others wait"),
          "contention": ("fights for the cpu", "fought for the cpu"),
          "pressure": ("loads the system", "loaded the system"), "efficiency": ("wastes its work", "wasted its work")}

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


def command_line(row: Fields) -> str:
    """What people know a process by: its command line, with its short name before it where the two differ.

    A process without arguments (a kernel thread, one that is gone) stands in brackets, as with ps. Not yet made safe.
    """
    command, line = str(row.get("command") or "?"), str(row.get("cmdline") or "").strip()
    if not line:
        return f"[{command}]"
    program = line.split(None, 1)[0].rsplit("/", 1)[-1]
    return line if program.startswith(command[:15]) else f"{command}: {line}"


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


def headline(row: Fields, *, present: bool, watching_ended: bool, now: float,
             band: Callable[[str, str], str] = lambda word, _: word) -> str:
    """One sentence about the worst process: who, what it does, score, band, share, for how long, its command line."""
    verb = _VERBS.get(cause(row), ("is rogue", "was rogue"))[0 if present else 1]
    level = str(row.get("peak_band") or "")
    parts = [f"{name(row)} {verb}: score " + band(f"{row['peak_score']} {level}".strip(), level), share(row),
             f"for {duration(row['duration_s'])}" + (f" in {row['events']} events" if row.get("events", 1) > 1 else "")]
    if not present:
        parts.append(f"until {moment(row['last_seen'], now)}" + (", when the watch ended" if watching_ended else ""))
    sentence = ", ".join(part for part in parts if part)
    line = command_line(row)
    return sentence if line == f"[{row.get('command')}]" else f"{sentence}; {clip(line, 100)}"
