"""The incident page: the verdict, what the machine did, which processes used it, and which waited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from rogue_hunter import __version__
from rogue_hunter.report.chart import (
    Bar,
    Line,
    Markup,
    Panel,
    Points,
    Timeline,
    document,
    escaped,
    flame,
    spark,
    tag,
    timeline,
)
from rogue_hunter.report.evidence import Evidence
from rogue_hunter.report.record_text import culprit_words, pause_words
from rogue_hunter.report.sentences import cause as cause_of
from rogue_hunter.report.sentences import command_line, moment, name, number, percent, program_first
from rogue_hunter.report.verdict_text import amount_words, cause_words, cleared_words, count, taker_name, title
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, duration, size
from rogue_hunter.verdict.model import Cause, Row, Slice, Taker, Verdict, belongs, uses

WIDE, NARROW = 1000, 360
"""Pixels of the two drawings of the timeline: one for a desk, one for a telephone."""
BARS, EVENTS, PAUSES, CAUSES, TAKERS, LINE = 8, 40, 20, 6, 5, 300
"""How many are shown of each, and characters of a command line; the page is to stay below 300 KB."""
BUCKETS = 150
"""Steps of a line of the timeline."""
TABLE = 60
"""Rows of the timeline as a table."""


@dataclass(frozen=True, slots=True)
class Incident:
    """What the page shows. `rows` are slices or minutes of the machine (records, with `slice` or `minute`) from `since`
    to `until`, epoch seconds; `slices` are those of that time with their processes, and `captures` records with the
    lines of who blocked whom. `stacks` are records of one pause or capture. A time of the day of `day` (epoch seconds)
    is shown without its date."""

    headline: str
    since: float
    until: float
    now: float
    day: float
    evidence: Evidence
    judged: Verdict
    rows: Sequence[Row] = ()
    slices: Sequence[Slice] = ()
    events: Sequence[Record] = ()
    pauses: Sequence[Record] = ()
    captures: Sequence[tuple[Record, Sequence[str]]] = ()
    stacks: Sequence[Record] = ()
    facts: Sequence[tuple[str, str]] = field(default=())


def page(incident: Incident) -> str:
    """The page as HTML."""
    style = resources.files("rogue_hunter").joinpath("data/incident.css").read_text("utf-8")
    window = incident.evidence.window
    when = f"{moment(window.since, 0)} to {moment(window.until, 0)}"
    body = [
        tag("header", tag("p", f"rogue-hunter incident report, {when}", class_="over"),
            tag("h1", incident.headline), _note(incident), _facts(incident)),
        tag("main", _timeline(incident), _causes(incident), _victims(incident), _cleared(incident),
            _pauses(incident), _stacks(incident), _events(incident), _captures(incident), _machine(incident)),
        tag("footer", f"Made by rogue-hunter {__version__} at {moment(incident.now, 0)}. This file holds names and "
                      "command lines of processes; secrets in them are masked as far as they were recognized.")]
    return document(f"Incident {when}", style, body)


# -- the top -----------------------------------------------------------------------------------------------------------

def _note(incident: Incident) -> Markup | None:
    note = incident.evidence.note
    return tag("p", f"Note: {note}.", class_="note") if note else None


def _facts(incident: Incident) -> Markup | None:
    judged, window = incident.judged, incident.evidence.window
    if incident.evidence.absent:
        return None
    first = judged.first
    state = {"found": "Cause found", "use": "Nothing was short", "nothing": "Nothing stood out"}.get(
        judged.state, "No data")
    shown = [("Verdict", state),
             ("What was short", title(first) if first is not None and first.kind != "use" else "nothing"),
             ("Confidence", first.confidence if first is not None else ""),
             ("Period", duration(window.until - window.since)),
             ("Pauses", f"{len(incident.pauses)}, {duration(sum(p['duration_s'] for p in incident.pauses))} in all"
              if incident.pauses else "none"),
             ("Resolution", f"{count(len(window.slices), 'slice')} of {duration(judged.resolution_s)}")]
    return tag("dl", [tag("div", tag("dt", label), tag("dd", words)) for label, words in shown if words],
               class_="facts")


# -- the timeline ------------------------------------------------------------------------------------------------------

def _timeline(incident: Incident) -> Markup | None:
    rows = merged(incident.rows, incident.since, incident.until)
    if not rows:
        return None
    window = incident.evidence.window
    bars = [Bar(e["entry_time"], e.get("exit_time") or max(e["entry_time"] + e["duration_s"], e.get("last_seen", 0.0)),
                f"{clip(program_first(command_line(e)), 36)} (pid {e['pid']}), {e['peak_score']} "
                f"{e.get('peak_band', '')}",
                str(e.get("peak_band", ""))) for e in sorted(incident.events, key=lambda e: -e["peak_score"])[:BARS]]
    made = Timeline(incident.since, incident.until, (window.since, window.until),
                    [(p["start"], p["end"]) for p in incident.pauses], _panels(rows),
                    sorted(bars, key=lambda b: b.start))
    about = _described(incident, rows)
    label = f"Timeline from {moment(incident.since, 0)} to {moment(incident.until, 0)}"
    stopped = bool(made.pauses) and all(pause["cause"] == "stopped" for pause in incident.pauses)
    legend = _legend([("asked", "the time of this report")] * made.marked + [
        ("paused", "rh-pipe was stopped: not measured" if stopped else "the machine paused")] * bool(made.pauses))
    return tag("section", tag("h2", "Timeline"),
               tag("figure", [timeline(made, width, prefix, label, about)
                              for width, prefix in ((WIDE, "wide"), (NARROW, "narrow"))], legend),
               _as_table(rows))


def _legend(keys: Iterable[tuple[str, str]]) -> Markup | None:
    """What the colours of a chart mean: classes of its parts, and words."""
    shown = [tag("span", tag("svg", tag("rect", class_=kind, width=12, height=12), width=12, height=12,
                             aria_hidden="true"), words) for kind, words in keys]
    return tag("p", shown, class_="legend") if shown else None


def merged(rows: Sequence[Row], since: float, until: float) -> list[dict[str, Any]]:
    """Rows of the machine as steps of one length: start, end, cpu, cpus, memory (share used), disk (bytes/s), and the
    shares of time that tasks waited. Where several rows fall into a step, the worst value of each."""
    width = max(1.0, (until - since) / BUCKETS)
    held: dict[int, dict[str, Any]] = {}
    for row in rows:
        start = float(row["slice"] if "slice" in row else row["minute"])
        seconds = float(row.get("seconds") or 5.0)
        total, free = row.get("memory_total_bytes"), row.get("memory_available_bytes")
        moved = max(row.get("disk_bytes") or 0, row.get("device_bytes") or 0)
        one = {"cpu": row.get("cpu_busy_cores"), "cpus": row.get("cpus"),
               "memory": 1 - free / total if total and free is not None else None,
               "disk": moved / seconds if "disk_bytes" in row or "device_bytes" in row else None,
               **{name: None if (ms := row.get(f"pressure_{column}_ms_per_s")) is None else ms / 1000
                  for name, column in (("cpu_wait", "cpu_some"), ("memory_wait", "memory_full"),
                                       ("io_wait", "io_full"))}}
        made = held.setdefault(int((start - since) // width), {"start": start, "end": start + seconds})
        made["end"] = max(made["end"], start + seconds)
        for key, value in one.items():
            if value is not None:
                made[key] = max(value, made.get(key, value))
    return [held[step] for step in sorted(held)]


def _panels(rows: Sequence[dict[str, Any]]) -> list[Panel]:
    def points(key: str) -> Points:
        return [(row["start"], row["end"], row[key]) for row in rows if key in row]

    cpus = float(max((row["cpus"] for row in rows if "cpus" in row), default=1))
    disk = max((row["disk"] for row in rows if "disk" in row), default=0.0)
    panels = [
        Panel(f"CPU: busy cores, of {cpus:.0f}", [Line("CPU", "cpu", points("cpu"))], cpus,
              lambda v: number(round(v, 2))),
        Panel("Waiting (PSI)", [Line("CPU", "cpu", points("cpu_wait")),
                                Line("memory", "memory-wait", points("memory_wait")),
                                Line("disk", "disk-wait", points("io_wait"))], 1.0, percent),
        Panel("Memory in use", [Line("memory", "memory", points("memory"))], 1.0, percent),
        Panel("Disk traffic", [Line("disk", "disk", points("disk"))], _round_up(disk), lambda v: f"{size(v)}/s")]
    return [panel for panel in panels if any(line.points for line in panel.lines)]


def _round_up(value: float) -> float:
    """A round number of bytes that is not lower: the top of an axis."""
    top = 1024.0
    while top < value:
        top *= 2
    return top


def _described(incident: Incident, rows: Sequence[dict[str, Any]]) -> str:
    """The timeline in a sentence, for who does not see it."""
    def high(key: str, words: Callable[[float], str]) -> str | None:
        best = max((row for row in rows if key in row), key=lambda row: float(row[key]), default=None)
        return f"{words(best[key])} at {moment(best['start'], incident.day)}" if best is not None else None

    parts = [(label, high(key, words)) for label, key, words in (
        ("CPU usage was highest with", "cpu", lambda v: f"{number(round(v, 2))} cores"),
        ("tasks waited most for a CPU with", "cpu_wait", percent), ("for storage with", "io_wait", percent),
        ("memory in use was highest with", "memory", percent),
        ("disk traffic was highest with", "disk", lambda v: f"{size(v)}/s"))]
    paused = f"; {count(len(incident.pauses), 'pause')} of the machine" if incident.pauses else ""
    return ", ".join(f"{label} {words}" for label, words in parts if words) + paused + "."


def _as_table(rows: Sequence[dict[str, Any]]) -> Markup:
    step = -(-len(rows) // TABLE)
    shown = [[moment(row["start"], row["start"]), number(round(row["cpu"], 2)) if "cpu" in row else "",
              percent(row.get("cpu_wait")), percent(row.get("memory_wait")), percent(row.get("io_wait")),
              percent(row.get("memory")), f"{size(row['disk'])}/s" if "disk" in row else ""] for row in rows[::step]]
    note = f", every {step}th row" if step > 1 else ""
    return tag("details", tag("summary", f"The timeline as a table{note}"), table(
        ["Time", "Busy cores", "CPU wait", "Memory wait", "Disk wait", "Memory in use", "Disk"], shown, range(1, 7)))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = (),
          style: str | None = None) -> Markup:
    """A table without its empty columns; `numbers` are the indices of columns that are aligned to the right. On a
    narrow screen each row is a block in which every cell has its column's name. A `style` "short" is as wide as its
    cells, not as the page."""
    right = set(numbers)
    cells = [[escaped(cell) for cell in row] for row in rows]
    shown = [n for n in range(len(heads)) if any(row[n] for row in cells)]
    kind = ["number" if n in right else None for n in range(len(heads))]
    return tag("table", tag("thead", tag("tr", [tag("th", heads[n], scope="col", class_=kind[n]) for n in shown])),
               tag("tbody", [tag("tr", [tag("td", tag("div", row[n]), class_=kind[n], data_name=heads[n])
                                        for n in shown]) for row in cells]), class_=style)


# -- causes ------------------------------------------------------------------------------------------------------------

def _causes(incident: Incident) -> Markup | None:
    judged = incident.judged
    if not judged.causes:
        return None
    head = "Likely causes" if judged.state == "found" else "What used most, none of it a problem"
    return tag("section", tag("h2", head, ", 0 to 100 points"),
               [_cause(one, incident) for one in judged.causes[:CAUSES]])


def _cause(one: Cause, incident: Incident) -> Markup:
    takers = one.takers or ((one.who,) if one.who is not None else ())
    courses = [_course(one, taker, incident) for taker in takers[:TAKERS]]
    top = max((value for course in courses for value in course if value is not None), default=0.0)
    rows = [[taker_name(taker), percent(taker.share) if taker.share > 0 else "",
             amount_words(one, taker, incident.day) if taker.amount > 0 else "",
             _spark(one, course, top), _line(taker.cmdline)] for taker, course in zip(takers, courses, strict=False)]
    points = tag("span", f"{one.points:.0f}", class_="points")
    return tag("article", tag("h3", points, title(one), tag("span", one.confidence, class_="quiet")),
               tag("p", f"{cause_words(one, incident.day)}."),
               table(["Process", "Share", "What it did", "When", "Command line"], rows, (1,)) if rows else None)


def _line(cmdline: str) -> Markup | None:
    return tag("span", clip(cmdline, LINE), class_="line") if cmdline else None


def _course(one: Cause, taker: Taker, incident: Incident) -> list[float | None]:
    """What a taker used in each slice: bytes of memory, else the amount per second; None where it is not listed.
    Nothing for a cause without use, such as a wait."""
    if taker.amount <= 0:
        return []
    slices = [each for each in incident.slices or incident.evidence.window.slices if each.processes]
    memory = _by_memory(one)
    values: list[float | None] = []
    for each in slices:
        rows = [row for row in each.processes if belongs(row, taker)]
        values.append(sum(float(row.get("memory_bytes") or 0) if memory else sum(uses(row, one.resource))
                          for row in rows) / (1.0 if memory else max(each.seconds, 1e-3)) if rows else None)
    return values


def _by_memory(one: Cause) -> bool:
    return one.cause == "memory" or one.resource not in ("cpu", "disk", "gpu", "wakeups")


def _spark(one: Cause, values: Sequence[float | None], top: float) -> Markup | None:
    """The course of a taker as a small chart; those of one cause have one scale, up to `top`."""
    known = [value for value in values if value is not None]
    if len(values) < 2 or not known:
        return None
    step = -(-len(values) // 120)
    high = [max((v for v in values[n:n + step] if v is not None), default=None) for n in range(0, len(values), step)]
    words: dict[str, Callable[[float], str]] = {
        "memory": size, "cpu": lambda v: f"{number(round(v, 2))} cores", "disk": lambda v: f"{size(v)}/s"}
    kind = "memory" if _by_memory(one) else one.resource
    return spark(high, top, kind if kind in words else "cpu", f"highest {words.get(kind, number)(max(known))}")


def _victims(incident: Incident) -> Markup | None:
    first = incident.judged.first
    if first is None or not first.victims:
        return None
    rows = [[clip(one.name, 60), one.key[1] if one.key is not None else "",
             duration(one.waited_s) if one.waited_s > 0 else "", one.pageins or ""] for one in first.victims[:10]]
    return tag("section", tag("h2", "Processes that waited"), table(
        ["Process", "Pid", "Waited", "Pages lost"], rows, (1, 2, 3), "short"))


def _cleared(incident: Incident) -> Markup | None:
    usual = incident.evidence.window.usual
    facts = [({"io": "disk", "asleep": "sleep"}.get(cause, cause), cleared_words(cause, numbers, usual))
             for cause, numbers in incident.judged.cleared.items()]
    return tag("section", tag("h2", "Not the cause"), pairs(facts)) if facts else None


def pairs(facts: Iterable[tuple[str, str]]) -> Markup:
    """Facts, one a line."""
    return tag("dl", [(tag("dt", label), tag("dd", words)) for label, words in facts], class_="plain")


# -- what happened -----------------------------------------------------------------------------------------------------

def _pauses(incident: Incident) -> Markup | None:
    if not incident.pauses:
        return None
    rows = [[moment(p["start"], incident.day), duration(p["duration_s"]), f"Paused {duration(p['duration_s'])}"
             f"{pause_words(p)}.", [tag("div", culprit_words(c)) for c in p["culprits"][:3]]]
            for p in incident.pauses[:PAUSES]]
    more = len(incident.pauses) - PAUSES
    return tag("section", tag("h2", "Pauses"), table(["Time", "Length", "What was short", "Culprits"], rows, (1,)),
               tag("p", f"and {more} more", class_="quiet") if more > 0 else None)


def _stacks(incident: Incident) -> Markup | None:
    if not incident.stacks:
        return None
    found = [(str(each["stack"]), int(each["samples"])) for each in incident.stacks]
    total = sum(samples for _, samples in found)
    label = f"Flame graph: what the processes did that had a CPU, {count(total, 'sample')}"
    rows = [[percent(samples / total), stack.split(";")[0], tag("span", clip(" < ".join(stack.split(";")[:0:-1]), LINE),
                                                                class_="line")] for stack, samples in found[:20]]
    return tag("section", tag("h2", "On the CPUs"),
               tag("figure", [flame(found, width, prefix, label)
                              for width, prefix in ((WIDE, "wide"), (NARROW, "narrow"))],
                   _legend([("frame", f"program: its share of {count(total, 'sample')} is its width"),
                            *[("frame kernel", "kernel")] * any("_[k]" in stack for stack, _ in found)])),
               tag("details", tag("summary", "The most frequent stacks as a table"),
                   table(["Share", "Process", "Stack, innermost first"], rows, (0,))))


def _events(incident: Incident) -> Markup | None:
    if not incident.events:
        return None
    rows = [[moment(e["entry_time"], incident.day), duration(e["duration_s"]),
             tag("span", f"{e['peak_score']} {e.get('peak_band', '')}", class_=f"whole {e.get('peak_band', '')}"),
             cause_of(e), name(e), tag("span", clip(command_line(e), LINE), class_="line")]
            for e in incident.events[:EVENTS]]
    more = len(incident.events) - EVENTS
    return tag("section", tag("h2", "Events"),
               table(["Time", "Length", "Peak score", "Used", "Process", "Command line"], rows, (1,)),
               tag("p", f"and {more} more", class_="quiet") if more > 0 else None)


def _captures(incident: Incident) -> Markup | None:
    if not incident.captures:
        return None
    return tag("section", tag("h2", "Captures: which process blocks which"), [
        tag("article", tag("h3", f"Capture {own.get('id', '')}, {moment(own['ts'], incident.day)}"
                                 + (f", of {name(own)}" if "pid" in own else "")),
            tag("ul", [tag("li", words.strip()) for words in lines])) for own, lines in incident.captures])


def _machine(incident: Incident) -> Markup | None:
    return tag("section", tag("h2", "The machine"), pairs(incident.facts)) if incident.facts else None
