"""The columns of rh-top, and its picture as lines of styled text: pure functions of model, arrangement and size."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rogue_hunter.report.record_text import clock
from rogue_hunter.report.sentences import OWN, cause, command_line, measure, number, percent
from rogue_hunter.schema.field import Key
from rogue_hunter.schema.sampling import METRICS, PROCESS
from rogue_hunter.stream.tick import Row, shown_name
from rogue_hunter.text.format import clip, columns, duration, size, sparkline, visible
from rogue_hunter.tui.model import TIME, Entry, Model, Order

FIRST = {
    "cpu_percent": "CPU%", "memory_bytes": "MEMORY", "disk_bytes_per_s": "DISK/s", "dominant_resource": "USES",
    "user": "USER", "state": "STATE", "age_s": "AGE", "run_delay_ms_per_s": "DELAY", "threads": "THR",
    "children_cpu_percent": "CHILD%", "pageins_per_s": "PAGEIN/s", "faults_per_s": "FAULT/s",
    "context_switches_per_s": "SWITCH/s", "wakeups_per_s": "WAKE/s", "gpu_ms_per_s": "GPU", "nice": "NI",
    "children_disk_bytes_per_s": "CHDISK/s", "children_exited": "EXITED", "children_failed": "FAILED",
    "syscalls_per_s": "SYSCALL/s", "mach_messages_per_s": "MACH/s", "qos_interactive_ms_per_s": "QOS",
    "energy_watts": "WATTS", "disproportionality": "TIMES", "blocking_score": "BLOCK", "contention_score": "CONTEND",
    "pressure_score": "PRESSURE", "efficiency_score": "WASTE", "dominant_category": "USES", "priority": "PRI",
}
"""Title of the columns that come first, in their order; the remaining metrics follow under their own names."""

_LEFT = {"dominant_resource": 8, "dominant_category": 10, "user": 8, "state": 8}
"""Columns of text, with their width."""

_STATES = {"uninterruptible": "disk", "sleeping": "sleep", "running": "run", "stopped": "stop", "defunct": "defunct",
           "idle": "idle"}

def brief(value: float) -> str:
    """A count in at most five characters: 812, 1.2k, 34k, 5.6M."""
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or unit == "G":
            break
        value /= 1000
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"


_BRIEF: dict[str, Callable[[Any], str]] = {
    "bytes": size, "bytes/s": size, "%": lambda v: f"{v:.1f}", "s": duration, "1/s": brief,
    "ms/s": lambda v: f"{v:.0f}", "1": lambda v: f"{v:.2f}", "x": lambda v: f"{v:.1f}",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the field, its title, its width in columns of the terminal, on which side the text is."""

    field: str
    title: str
    width: int
    unit: str = ""
    left: bool = False

    def cell(self, row: Row) -> str:
        """The text of a process in this column, of exactly `width` columns."""
        value = row.get(self.field)
        if value is None or (self.field == "dominant_resource" and not row.get("score")):
            return " " * self.width
        if self.field == "dominant_resource" and row.get("children_cpu_percent", 0.0) > row.get("cpu_percent", 0.0):
            value = "children" if value == "cpu" else value     # its own CPU use is not what its score comes from
        if self.left:
            return fill(_STATES.get(value, str(value)) if self.field == "state" else str(value), self.width)
        text = _BRIEF.get(self.unit, number if isinstance(value, (int, float)) else str)(value)
        return clip(text, self.width).rjust(self.width)

    def head(self, mark: str = "") -> str:
        """Its title, with a mark behind it where the table is sorted by it."""
        text = clip(self.title + mark, self.width)
        return text.ljust(self.width) if self.left else text.rjust(self.width)


def _made() -> tuple[Column, ...]:
    units = {f.name: f.unit for f in PROCESS}
    rest = {f.name: f.name.replace("_per_s", "/s").upper() for f in METRICS if f.name not in {*FIRST, "score"}}
    return tuple(Column(name, title, _LEFT.get(name, max(len(title) + 1, 8 if units[name].startswith("bytes") else 6)),
                        units[name], name in _LEFT) for name, title in {**FIRST, **rest}.items())


COLUMNS = _made()
"""All of them, in their order."""

SORTS = ("score", *(column.field for column in COLUMNS), "pid", "name")
"""Fields that the table can be sorted by."""


def known(rows: Iterable[Row]) -> list[Column]:
    """The columns that at least one of the processes has a value for."""
    names: set[str] = set()
    for row in rows:
        names.update(row)
    return [column for column in COLUMNS if column.field in names]


def fill(text: str, width: int) -> str:
    """The text clipped and padded to exactly `width` columns, control characters escaped."""
    text = clip(text, width)
    return text + " " * (width - columns(text))


def whole(field: str, value: Any) -> str:
    """A value with its unit, for the view of one process."""
    unit = next((f.unit for f in PROCESS if f.name == field), "")
    if field.endswith("_share"):
        return percent(value)
    return measure(value, unit) if isinstance(value, (int, float)) else clip(str(value), 400)


Piece = tuple[str, str]
"""Text without control characters, and the name of its style: a band, bold, dim, title, cursor, pause or key."""

Line = tuple[Piece, ...]

SCORE, PID = 6, 7
COMMAND = 24
"""The command never has fewer columns than this, unless the terminal has not that many."""

GAUGE = 30

SILENT_S = 3.0
"""Seconds without a tick after which rh-pipe, still connected, is shown as silent: stopped, or waiting for the disk."""

KEYS = (("up down", "select a process (also PgUp PgDn Home End)"),
        ("Enter", "show one process; fold or unfold a unit"),
        ("left right", "other metrics"), ("/", "filter by name, arguments, user, unit or pid; Esc clears it"),
        ("s S", "sort by the next or previous column"), ("r", "reverse the order"), ("t", "as a tree of units"),
        ("a", "all processes, or only the rogues"), ("k", "terminate the selected process, after a question"),
        ("space", "pause and continue"), ("?", "this help"), ("q", "quit"))
FOOT = (("q", "quit"), ("?", "help"), ("Enter", "detail"), ("/", "filter"), ("s", "sort"), ("t", "tree"),
        ("a", "rogues"), ("k", "terminate"), ("space", "pause"))


@dataclass(frozen=True, slots=True)
class Sizes:
    """Heights of the parts for a terminal; 0 for a part that has no room."""

    head: int
    table: int
    panels: int
    foot: int

    @classmethod
    def of(cls, height: int) -> Sizes:
        """The parts of a terminal with so many lines: the table grows, the panels have a third at most."""
        head = 3 if height >= 10 else 1
        foot = 1 if height >= 8 else 0
        panels = 0 if height < 18 else min(12, (height - head - foot) // 3)
        return cls(head, max(1, height - head - foot - panels), panels, foot)


# -- head --------------------------------------------------------------------------------------------------------------

def head(model: Model, width: int, now: float, flags: Sequence[str] = ()) -> list[Line]:
    """Three lines: the machine, the gauge of the highest score with the process that has it, the last scores."""
    return [_machine(model, width, now, flags), _gauge(model, width), _scores(model, width)]


def _machine(model: Model, width: int, now: float, flags: Sequence[str]) -> Line:
    if not model.connected:
        left = max(0.0, model.retry_at - now)
        problem = model.problem or "connecting"
        return ((fill(f"{problem}; trying again in {left:.1f}s (start it: rh-pipe, or rh-service install)", width),
                 "critical"),)
    tick = model.tick
    if not tick:
        return ((fill("waiting for the first tick", width), "dim"),)
    silent_s, slowed = now - model.tick_at, model.state.get("slowed", 1)
    silent = silent_s > max(SILENT_S, 3 * tick.get("interval_s", 0.0))
    waits = [(title, value) for title, field in (
        ("CPU", "pressure_cpu_some_ms_per_s"), ("memory", "pressure_memory_full_ms_per_s"),
        ("disk", "pressure_io_full_ms_per_s")) if (value := tick.get(field)) is not None]
    parts: list[Piece] = [
        *((flag, "pause") for flag in flags),
        (f"no tick for {duration(silent_s)}" if silent else "", "critical"),
        (f"LATE {duration(tick['late_s'])}" if tick.get("late_s", 0.0) >= 0.5 else "", "critical"),
        ("DEGRADED" if model.state.get("degraded") else "", "critical"),
        (f"slowed to 1/{slowed}" if slowed > 1 else "", "elevated"),
        (clip(str(tick.get("host", "")), 20), "bold"), (clock(tick["ts"]), ""),
        (f"{tick['cpu_busy_cores']:.1f} of {tick.get('cpus', '?')} CPUs" if "cpu_busy_cores" in tick else "", ""),
        (f"{size(tick['memory_available_bytes'])} available" if "memory_available_bytes" in tick else "", ""),
        (f"{tick.get('processes', '?')} processes", ""),
        *((f"wait for {title} {value / 10:.0f}%", "elevated" if value >= 200 else "dim") for title, value in waits),
        (f"rh-pipe {tick['self_cpu_percent']:.1f}%" if "self_cpu_percent" in tick else "", "dim")]
    return _joined([part for part in parts if part[0]], width)


def _joined(parts: Sequence[Piece], width: int) -> Line:
    """The parts with two blanks between them, as many as fit."""
    line: list[Piece] = []
    used = 0
    for text, style in parts:
        gap = 2 if line else 0
        if used + gap + columns(text) > width:
            break
        if gap:
            line.append(("  ", ""))
        line.append((text, style))
        used += gap + columns(text)
    return (*line, (" " * (width - used), ""))


def _gauge(model: Model, width: int) -> Line:
    score = model.tick.get("max_score") if model.connected else None
    top = max(model.rogues.values(), key=lambda row: row.get("score", 0), default=None)
    band = str(top.get("band", "")) if top is not None and score is not None else ""
    label = f"score {'-' if score is None else score:>3} {band:<9}"
    room = min(GAUGE, max(0, width - len(label) - 2))
    filled = round(room * min(100, score or 0) / 100)
    name = f"  {_name(top)}  {cause(top)}" if top is not None and score else ""
    rest = max(0, width - len(label) - room)
    return ((label, band or "dim"), ("█" * filled, band or "dim"), ("░" * (room - filled), "dim"),
            (fill(name, rest), ""))


def _name(row: Row) -> str:
    return f"{shown_name(row) or '?'} [{row['pid']}]"


def _scores(model: Model, width: int) -> Line:
    label = "highest "
    room = max(0, width - len(label))
    values = list(model.scores)[-room:] if room else []
    return ((label[:width], "dim"), (sparkline(values, 100.0).rjust(room), "" if model.connected else "dim"))


# -- table -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit between the pid and the command, and the width of the command. `more` counts the columns
    that are further right."""

    columns: tuple[Column, ...]
    command: int
    more: int

    @classmethod
    def of(cls, entries: Sequence[Entry], width: int, first: int) -> Layout:
        """For a terminal of `width` columns, from the column with number `first` on; the command has a third."""
        there = known(entry.row for entry in entries)
        first = min(first, max(0, len(there) - 1))
        room = width - SCORE - PID - 2 - max(COMMAND, width // 3)
        shown: list[Column] = []
        for column in there[first:]:
            if column.width + 1 > room:
                break
            room -= column.width + 1
            shown.append(column)
        used = sum(column.width + 1 for column in shown)
        return cls(tuple(shown), max(1, width - SCORE - PID - 2 - used), len(there) - first - len(shown))


def header(layout: Layout, order: Order, width: int, shown: int, total: int) -> Line:
    """The titles, the one that the table is sorted by marked; at the right what is shown of how many."""
    mark = "▲" if order.ascending else "▼"

    def title(text: str, field: str) -> str:
        return text + (mark if order.sort == field else "")

    cells = [title("SCORE", "score").rjust(SCORE)[-SCORE:], title("PID", "pid").rjust(PID)]
    cells += [column.head(mark if order.sort == column.field else "") for column in layout.columns]
    count = f"{shown} of {total}" if shown != total else f"{total}"
    count = f" /{visible(order.filter)} {count}" if order.filter else f" {count}"
    command = title("UNIT" if order.tree else "COMMAND", "name")
    room = layout.command - columns(count)
    cells.append(fill(command, room) + count if room >= len(command) else fill(command, layout.command))
    return ((fill(" ".join(cells), width), "title"),)


def row_line(entry: Entry, layout: Layout, width: int, cursor: bool, stale: bool, folded: bool) -> Line:
    """One row. Its score has the colour of its band; a process that uses nothing is dim."""
    row, band = entry.row, str(entry.row.get("band", ""))
    score = f"{row['score']:>{SCORE}}" if row.get("score") else " " * (SCORE - 1) + "·"
    pid = f"{row['pid']:>{PID}}" if "pid" in row else " " * PID
    cells = " ".join((pid, *(column.cell(row) for column in layout.columns)))
    if entry.members:
        name = f"{'▸' if folded else '▾'} {row['unit']} ({entry.members})"
    else:
        name = "  " * entry.depth + command_text(row)
    used = SCORE + 1 + columns(cells) + 1
    text = fill(name, max(0, width - used))
    if cursor:
        return ((clip(f"{score} {cells} {text}", width), "cursor"),)
    quiet = not row.get("score") and row.get("cpu_percent", 0.0) < 0.05
    plain = "dim" if stale or row.get("own") or (quiet and not entry.members) else ""
    strong = "dim" if stale else "bold" if entry.members else band if band in ("high", "critical") else plain
    return ((score, "dim" if stale or not row.get("score") else band), (f" {cells} ", plain), (text, strong))


def command_text(row: Row) -> str:
    """The command line with the directory of the program left out; without one, the kernel's name in brackets. A
    command of rogue-hunter has the name that people type."""
    line, command = str(row.get("cmdline") or ""), str(row.get("command", "?"))
    if not line or (command.startswith("rh-") and OWN in line):
        return command_line(row)
    program, blank, rest = line.partition(" ")
    last = program.rpartition("/")[2]
    known = last and (last[:15] == command or last == str(row.get("exe", "")).rpartition("/")[2])
    return (last if known else program) + blank + rest


# -- panels ------------------------------------------------------------------------------------------------------------

def panels(model: Model, width: int, height: int, now: float) -> list[Line]:
    """What happened, and beside it the open and the last ended events; the latter only where there is room."""
    left = width if width < 64 else width - max(28, width // 3)
    log = _log(model, left, height)
    if left == width:
        return log
    tracked = _tracked(model, width - left - 1, height, now)
    return [(*a, ("│", "dim"), *b) for a, b in zip(log, tracked, strict=True)]


def _log(model: Model, width: int, height: int) -> list[Line]:
    lines: list[Line] = [((fill("ACTIVITY", width), "title"),)]
    if height > 1:
        last = [(band, part) for band, text in list(model.log)[1 - height:] for part in textwrap.wrap(
            text, max(width, 2 * TIME), subsequent_indent=" " * TIME)]     # the end of a refusal is its reason
        lines += [((fill(text, width), band),) for band, text in last[1 - height:]]
    return _padded(lines, width, height)


def _tracked(model: Model, width: int, height: int, now: float) -> list[Line]:
    opened = sorted(model.open.values(), key=lambda e: (-e.get("peak_score", 0), e.get("entered", 0.0)))
    lines: list[Line] = [((fill(f"TRACKED {len(opened)}", width), "title"),)]
    lines += [_event(event, width, now - event.get("entered", now)) for event in opened]
    lines += [_event(event, width, None) for event in model.ended]
    return _padded(lines[:height], width, height)


def _event(event: Row, width: int, lasts_s: float | None) -> Line:
    band = str(event.get("band") or event.get("peak_band", ""))
    length = duration(max(0.0, lasts_s) if lasts_s is not None else event.get("duration_s"))
    many = f" ({event['processes']} processes)" if event.get("processes", 1) > 1 else ""
    who = event["unit"] if event.get("scope") == "unit" and "unit" in event else _name(event)
    text = f"{event.get('peak_score', '?'):>3} {length:>7} {who}{many}"
    return ((fill(text if lasts_s is not None else f"{text} ended", width), band if lasts_s is not None else "dim"),)


def _padded(lines: list[Line], width: int, height: int) -> list[Line]:
    return [*lines[:height], *[((" " * width, ""),)] * (height - len(lines))]


def foot(width: int, message: str = "") -> Line:
    """The keys, or a message."""
    if message:
        return ((fill(message, width), "bold"),)
    line: list[Piece] = []
    used = 0
    for key, text in FOOT:
        if used + len(key) + len(text) + 3 > width:
            break
        line += [(key, "key"), (f" {text}  ", "")]
        used += len(key) + len(text) + 3
    return (*line, (" " * (width - used), ""))


def back(width: int, more: str) -> Line:
    """The keys of a screen above the table, and how many lines are further down."""
    return (("Esc", "key"), (fill(f" back{'  up down: scroll' if more else ''}{more}", max(0, width - 3)), ""))


# -- one process, help -------------------------------------------------------------------------------------------------

_FACTS = ("user", "state", "unit", "exe", "cgroup", "ppid", "tty", "session", "orphan_of", "nice", "policy")

_LINES = (("score", "SCORE", 100.0), ("cpu_percent", "CPU", None), ("memory_bytes", "MEMORY", None),
          ("disk_bytes_per_s", "DISK", None))


def detail(model: Model, key: Key, last: Row, width: int) -> list[Line]:
    """One process: names, command line, history, every metric. `last` is its last row, shown when it is gone."""
    row = model.find(key)
    gone = row is None
    row = last if row is None else row
    band = str(row.get("band", ""))
    title = f"{_name(row)}  score {row.get('score', '-')} {band}" + "  GONE: these are its last values" * gone
    lines: list[Line] = [((fill(title, width), "dim" if gone else band or "bold"),), _blank(width)]
    for text in textwrap.wrap(visible(str(row.get("cmdline") or f"[{row.get('command', '?')}]")), max(10, width),
                              max_lines=4, placeholder=" …"):
        lines.append(((fill(text, width), ""),))
    lines.append(_blank(width))
    points = model.histories.get(key, ())
    for name, label, top in _LINES:
        lines.append(_history(label, name, [getattr(point, name) for point in points], top, width))
    lines.append(_blank(width))
    facts = [(name, whole(name, row[name])) for name in _FACTS if name in row]
    if "start_time" in row and "ts" in model.tick:
        facts.insert(1, ("age", duration(max(0.0, model.tick["ts"] - row["start_time"]))))
    lines += [((f"{name:<12}", "dim"), (fill(text, max(0, width - 12)), "")) for name, text in facts]
    lines.append(_blank(width))
    return lines + _metrics(row, width)


def _history(label: str, name: str, values: Sequence[float | None], top: float | None, width: int) -> Line:
    last = values[-1] if values else None
    text = clip(f"{label:<7} {whole(name, last) if last is not None else '-':>12}  ", width)
    room = max(0, width - columns(text))
    return ((text, "dim"), (fill(sparkline(list(values)[-room:] if room else [], top), room), ""))


_UNIT = re.compile("(_bytes)?_per_s$|_(bytes|percent|watts|ms_per_s)$")
"""The part of the name of a metric that is its unit, which is behind the value."""


def _metrics(row: Row, width: int) -> list[Line]:
    """Every metric that is known, in as many columns as fit."""
    cells = [(_UNIT.sub("", f.name).replace("_", " "), whole(f.name, row[f.name])) for f in METRICS if f.name in row]
    many = max(1, width // 42)
    each = width // many
    lines: list[Line] = []
    for start in range(0, len(cells), many):
        line: list[Piece] = []
        for name, text in cells[start:start + many]:
            line += [(fill(name, min(28, each)), "dim"), (fill(text, max(0, each - 28)), "")]
        lines.append(tuple(line))
    return lines


def _blank(width: int) -> Line:
    return ((" " * width, ""),)


def help_lines(width: int) -> list[Line]:
    """The keys."""
    title = "rh-top: the processes that make this machine pause, as rh-pipe sees them"
    lines: list[Line] = [((fill(title, width), "bold"),), _blank(width)]
    lines += [((f"  {key:<12}", "key"), (fill(text, max(0, width - 14)), "")) for key, text in KEYS]
    notes = ("SCORE is how far a process exceeds its fair share, 0 to 100. USES is the resource it takes, children "
             "if that is CPU of children that ended.",
             "DELAY is the time that it waited for a CPU, in ms a second. CHILD% is the CPU of children that ended.",
             "TRACKED lists the events: processes at or above the tracking band, with their peak.",
             "Other rogue-hunter commands are dim. Everything comes from rh-pipe; for the past there is rh-report.")
    lines += [_blank(width), *(((fill(text, width), "dim"),) for note in notes
                               for text in textwrap.wrap(note, max(10, width)))]
    return lines
