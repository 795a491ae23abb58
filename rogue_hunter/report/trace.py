"""Pauses, events, slices and captures as Chrome trace events, the JSON that Perfetto and chrome://tracing read.

The format: a list of objects with `ph` (X: a span with `ts` and `dur`, i: an instant, C: a counter, M: a name), `pid`
and `tid`; times in microseconds. The spans of one track nest or follow each other, so an event that overlaps another
one of its process gets a track of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rogue_hunter.report.sentences import cause, command_line
from rogue_hunter.stream.tick import Record, shown_name
from rogue_hunter.text.format import clip
from rogue_hunter.verdict.model import Row

MACHINE = 1
"""The track of the machine. Other tracks are numbered from here on: a pid may have been used twice."""
_COUNTERS = (
    ("busy cores", "cpu_busy_cores", 1.0), ("waiting for a CPU, %", "pressure_cpu_some_ms_per_s", 0.1),
    ("waiting for memory, %", "pressure_memory_full_ms_per_s", 0.1),
    ("waiting for storage, %", "pressure_io_full_ms_per_s", 0.1),
    ("available memory, MiB", "memory_available_bytes", 2**-20))
_ARGS = ("event", "user", "unit", "reason", "entry_score", "peak_score", "peak_band", "share", "cpu_seconds")

Event = dict[str, Any]


class _Tracks:
    """The tracks of processes, each with the number by which the trace knows it."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}
        self.made: list[Event] = []

    def number(self, row: Row) -> int:
        """The number of a process; its name is written at the first time."""
        key = row.get("boot_id"), row["pid"], row.get("start_ticks")
        if key not in self._numbers:
            self._numbers[key] = MACHINE + 1 + len(self._numbers)
            called = clip(str(shown_name(row) or "?"), 40)
            self.made += named(self._numbers[key], f"{called} (pid {row['pid']})", "events")
        return self._numbers[key]


def named(number: int, process: str, thread: str, tid: int | None = None) -> list[Event]:
    """The names of a process and of a track in it."""
    tid = number if tid is None else tid
    return [{"ph": "M", "name": "process_name", "pid": number, "tid": tid, "args": {"name": process}},
            {"ph": "M", "name": "process_sort_index", "pid": number, "tid": tid, "args": {"sort_index": number}},
            {"ph": "M", "name": "thread_name", "pid": number, "tid": tid, "args": {"name": thread}}]


def trace_events(machine: Iterable[Row], processes: Mapping[float, Sequence[Row]], events: Iterable[Record],
                 pauses: Iterable[Record], captures: Iterable[Record]) -> list[Event]:
    """The trace events: `machine` are slices or minutes, `processes` the rows of processes by the start of their slice
    (epoch seconds); the others are records."""
    tracks = _Tracks()
    made = named(MACHINE, "machine", "pauses")
    for pause in pauses:
        made.append(_span(f"pause: {pause['cause']}", "pause", MACHINE, MACHINE, pause["start"], pause["end"],
                          {"culprits": [f"{c.get('command', '?')} (pid {c['pid']})" for c in pause["culprits"]],
                           "evidence": pause.get("evidence")}))
    for row in machine:
        made += _machine(row)
    for rows in processes.values():
        for row in rows:
            used, seconds = row.get("cpu_seconds"), row.get("seconds")
            if used is not None and seconds:
                made.append(_count("CPU, cores", tracks.number(row), row["slice"], used / seconds))
    ends: dict[int, list[float]] = {}
    for event in sorted(events, key=lambda one: float(one["entry_time"])):
        number, start = tracks.number(event), float(event["entry_time"])
        end = start + float(event["duration_s"])
        free = ends.setdefault(number, [])
        lane = next((n for n, until in enumerate(free) if until <= start), len(free))
        free[lane:lane + 1] = [end]
        made.append(_span(f"{event.get('peak_band', '')} {cause(event)}".strip() or "event", "event", number,
                          number + 100_000 * lane, start, end,
                          {"command_line": command_line(event), **{key: event[key] for key in _ARGS if key in event}}))
    for own in captures:
        if own["status"] != "skipped":
            made.append({"ph": "i", "s": "g", "name": f"capture {own.get('id', '')}", "cat": "capture", "pid": MACHINE,
                         "tid": MACHINE, "ts": _micros(own["ts"]),
                         "args": {"capture": own["capture"], "status": own["status"]}})
    return tracks.made + made


def _micros(ts: float) -> int:
    return round(ts * 1e6)


def _span(name: str, kind: str, pid: int, tid: int, start: float, end: float, args: Mapping[str, Any]) -> Event:
    return {"ph": "X", "name": name, "cat": kind, "pid": pid, "tid": tid, "ts": _micros(start),
            "dur": max(1, _micros(end) - _micros(start)), "args": args}


def _count(name: str, pid: int, ts: float, value: float) -> Event:
    return {"ph": "C", "name": name, "pid": pid, "tid": pid, "ts": _micros(ts), "args": {"value": round(value, 3)}}


def _machine(row: Row) -> list[Event]:
    ts, seconds = float(row["slice"] if "slice" in row else row["minute"]), float(row.get("seconds") or 5.0)
    made = [_count(name, MACHINE, ts, row[column] * factor) for name, column, factor in _COUNTERS if column in row]
    moved = max(row.get("disk_bytes") or 0, row.get("device_bytes") or 0)
    if "disk_bytes" in row or "device_bytes" in row:
        made.append(_count("disk, MiB/s", MACHINE, ts, moved / max(seconds, 1e-3) / 2**20))
    return made
