"""The views html and trace: a time, a pause or an event as a page for a browser, or as a trace for Perfetto.

A trace is Chrome's list of objects with `ph` (X: a span with `ts` and `dur`, i: an instant, C: a counter, M: a name),
`pid` and `tid`; times in microseconds. The spans of one track nest or follow each other, so an event that overlaps
another one of its process gets a track of its own.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rogue_hunter.capture.blame import blame
from rogue_hunter.report import history, queries, slices
from rogue_hunter.report.capture_text import blame_lines
from rogue_hunter.report.evidence import WHOLE_S, Evidence, over
from rogue_hunter.report.incident_page import Incident, page
from rogue_hunter.report.queries import Period, Source
from rogue_hunter.report.render import Answer
from rogue_hunter.report.sentences import cause, command_line, number
from rogue_hunter.report.views import captures
from rogue_hunter.report.views.view import Asked, existing
from rogue_hunter.report.views.why import evidence_of, headline
from rogue_hunter.schema.slices import SLICE_S
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, shown_name
from rogue_hunter.text.format import clip, size
from rogue_hunter.verdict.engine import verdict
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


def named(number: int, process: str, thread: str) -> list[Event]:
    """The names of a process and of a track in it."""
    return [{"ph": "M", "name": "process_name", "pid": number, "tid": number, "args": {"name": process}},
            {"ph": "M", "name": "process_sort_index", "pid": number, "tid": number, "args": {"sort_index": number}},
            {"ph": "M", "name": "thread_name", "pid": number, "tid": number, "args": {"name": thread}}]


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


AROUND_S = (120.0, 900.0)
"""The timeline begins so long before the time in question, and ends so long after it, at least and at most: as long as
that time lasted."""
CAPTURES = 3
"""Captures of which is shown who blocked whom: those of the period, the newest first."""
EVENTS = 200
SLICES_MOST = 2000
"""Slices of which a trace has the processes: three hours."""


def html(source: Source, asked: Asked) -> Answer:
    """The page about a time, a pause or an event, as text."""
    period, at = _subject(source, asked)
    found = evidence_of(source, period, at, asked.live)
    judged = verdict(found.window)
    around = _around(source, found)
    inside = Period(found.window.since, found.window.until)
    rows = machine_rows(source, around, asked)
    around = _recorded(around, rows)
    day = found.window.since
    courses = over(source, around.since, around.until, asked.live).window.slices \
        if around.until - around.since <= WHOLE_S else ()
    made = Incident(
        headline(source if found.window.recent or found.absent else replace(source, now=day), found, judged),
        around.since, around.until, source.now, day, found, judged, rows, courses,
        queries.events(source.reader, around, source.watched, EVENTS),
        history.pauses(source.reader, around), _blamed(source, inside), _stacks(source, inside),
        _facts(source, found, judged.own_cores, inside))
    return Answer([], lambda _: page(made), raw=True)


def trace(source: Source, asked: Asked) -> Answer:
    """Pauses, events, slices and captures of a time as Chrome trace events."""
    period, at = _subject(source, asked)
    if at is not None:
        window = evidence_of(source, period, at, asked.live).window
        period = Period(window.since, window.until)
    machine = machine_rows(source, period, asked)
    sliced = [float(row["slice"]) for row in machine if "slice" in row][-SLICES_MOST:]
    processes = slices.rows_of(source.reader, SLICE_S, "process", sliced)
    events = trace_events(machine, processes, queries.events(source.reader, period, source.watched),
                          history.pauses(source.reader, period), captures.find(source.reader, period))
    made = wire.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).decode()
    return Answer([], lambda _: f"{made}\n", raw=True)


def _subject(source: Source, asked: Asked) -> tuple[Period, float | None]:
    """The period, or the moment, that is asked for. Raises DatabaseError for an unknown pause or event."""
    if asked.pause:
        pause = existing(history.pause(source.reader, asked.pause), "pause", asked.pause)
        return Period(pause["start"], pause["end"]), None
    if asked.event:
        event = existing(queries.event(source.reader, asked.event, source.watched), "event", asked.event)
        return Period(event["entry_time"], event["entry_time"] + event["duration_s"]), None
    return asked.period, asked.at


def _around(source: Source, found: Evidence) -> Period:
    window = found.window
    length = window.until - window.since
    margin = 0.0 if length > 2 * AROUND_S[1] else min(AROUND_S[1], max(AROUND_S[0], length))
    return Period(window.since - margin, max(window.until, min(source.now, window.until + margin)))


def _recorded(period: Period, rows: Sequence[Row]) -> Period:
    """The part of a period from which something is recorded: a day of which an hour is known is drawn as an hour."""
    if not rows:
        return period
    first, last = (float(row["slice"] if "slice" in row else row["minute"]) for row in (rows[0], rows[-1]))
    margin = max(5.0, 0.02 * (last - first))
    return replace(period, since=max(period.since, first - margin),
                   until=min(period.until, last + float(rows[-1].get("seconds") or 60.0) + margin))


def machine_rows(source: Source, period: Period, asked: Asked) -> list[Row]:
    """The machine's slices of a period, those of a running rh-pipe too, and minutes of the time that has no slices."""
    rows: list[Row] = list(slices.machine(source.reader, period.since, period.until))
    if asked.live is not None and source.watch == "running":
        last = rows[-1]["slice"] if rows else period.since
        rows += [one for one in asked.live(source)
                 if one["type"] == "machine_slice" and last < one["slice"] < period.until]
    begin = float(rows[0]["slice"]) if rows else period.until
    older = history.machine(source.reader, period.since // 60 * 60, begin) if begin - period.since > 60 else []
    return [*(row for row in older if not rows or row["minute"] + 60 <= begin + 1), *rows]


def _captures(source: Source, period: Period) -> list[Record]:
    """The captures of a time: a capture begins after its pause, or while its event lasts."""
    wide = replace(period, since=period.since - 30, until=period.until + 30)
    return [own for own in captures.find(source.reader, wide) if own["status"] != "skipped"]


def _blamed(source: Source, period: Period) -> list[tuple[dict[str, object], list[str]]]:
    made: list[tuple[dict[str, object], list[str]]] = []
    for own in _captures(source, period):
        found = captures.read(source.reader, str(own["id"]))
        if found is not None and len(made) < CAPTURES:
            made.append((found[0], list(blame_lines(blame(found[1]), 5))))
    return made


def _stacks(source: Source, period: Period) -> list[Record]:
    """The stacks of the longest pause of a time that has some, else of a capture."""
    longest = sorted(history.pauses(source.reader, period), key=lambda one: -float(one["duration_s"]))
    those = [*(("pause", one["id"]) for one in longest), *(("capture", one["id"]) for one in _captures(source, period))]
    found = (captures.stacks_of(source.reader, kind, number) for kind, number in those[:20])
    return next(filter(None, found), [])


def _facts(source: Source, found: Evidence, own_cores: float | None, period: Period) -> list[tuple[str, str]]:
    last = source.last_tick
    machine = found.window.slices[-1].machine if found.window.slices else last
    again = ["rh-report", "html", "--since", f"@{period.since:.0f}", "--until", f"@{period.until:.0f}", "--db",
             str(source.path)]
    facts = [
        ("Host", last.get("host")), ("System", last.get("os")), ("Boot", machine.get("boot_id") or last.get("boot_id")),
        ("CPUs", machine.get("cpus") or last.get("cpus")),
        ("Memory", size(machine.get("memory_total_bytes") or last.get("memory_total_bytes"))),
        ("rogue-hunter", None if own_cores is None else f"{number(round(100 * own_cores, 1))} % of a core"),
        ("Time zone", time.strftime("%Z (UTC%z)", time.localtime(found.window.since))), ("Command", shlex.join(again))]
    return [(label, str(words)) for label, words in facts if words not in (None, "")]
