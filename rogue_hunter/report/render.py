"""Answers as bytes: a table for people, JSON, NDJSON, CSV. The only importer of tabulate."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import Formatter
from typing import Any, TextIO

from rogue_hunter.schema import RECORDS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record
from rogue_hunter.text import format as text
from rogue_hunter.text.errors import USAGE, RogueHunterError

FORMS = ("table", "json", "ndjson", "csv")

_ESCAPE = "\x1b"
"""Only Style.band writes it: text from processes is escaped before."""

LAST_MINIMUM = 20
"""Terminal columns that the last column of a table gets before others are dropped for it."""
CELL_MINIMUM = 6
"""Terminal columns to which a cell is cut at most, when a table without columns to drop is too wide."""

TIMES = frozenset(field.name for fields in RECORDS.values() for field in fields
                  if field.unit == "s" and not field.name.endswith(("_s", "_seconds", "_seconds_total")))
"""Fields that are points of time (epoch seconds); durations have their unit in the name."""

_COLOURS = {"medium": "36", "elevated": "33", "high": "31", "critical": "1;31"}


@dataclass(frozen=True, slots=True)
class Style:
    """How text for people is printed: terminal columns, whether bands are coloured, the present (epoch seconds), and
    whether sentences are wrapped."""

    width: int
    colour: bool
    now: float
    wrap: bool = True

    def band(self, word: str | None, band: str | None) -> str:
        """`word` in the colour of a band."""
        code = _COLOURS.get(band or "")
        return f"{_ESCAPE}[{code}m{word or ''}{_ESCAPE}[0m" if self.colour and code else word or ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a view found. `text` makes the text for people; a `single` answer is one JSON object instead of an array.

    `csv_rows` and `ndjson_rows` are the lines of CSV and NDJSON if they differ from `records`. `notes` are lines about
    the input for standard error, and `code` is the exit code. A `raw` answer is printed as it is: no line of its text
    is wrapped, no number in CSV is taken for a time.
    """

    records: Sequence[Record]
    text: Callable[[Style], str]
    single: bool = False
    csv_rows: Sequence[Mapping[str, Any]] | None = None
    ndjson_rows: Sequence[Record] | None = None
    columns: Sequence[str] = ()
    notes: Sequence[str] = ()
    code: int = 0
    raw: bool = False


def select(answer: Answer, fields: Sequence[str]) -> Answer:
    """The rows of an answer, as CSV has them, with these fields only. Raises RogueHunterError for an unknown field."""
    rows = answer.records if answer.csv_rows is None else answer.csv_rows
    known = list(answer.columns) or list(dict.fromkeys(name for row in rows for name in row))
    for name in fields:
        if name not in known and (known or not name):
            raise RogueHunterError(f"--columns: no such field: {name!r}; fields: {', '.join(known)}", USAGE)
    made = [{name: row[name] for name in fields if name in row} for row in rows]

    def text(look: Style) -> str:
        cells = [[_cell(name, row.get(name), times=not answer.raw) for name in fields] for row in made]
        numeric = [name.upper() for name in fields if name not in TIMES
                   and all(isinstance(row.get(name, 0), (int, float)) for row in made)]
        return table([name.upper() for name in fields], cells, look, right=" ".join(numeric))

    return Answer(made, text, columns=fields, notes=answer.notes, code=answer.code, raw=answer.raw)


def formatted(answer: Answer, template: str) -> Answer:
    """One line a record, by a template such as `{peak_score} {command}`; `{peak_score:>3}` as in Python, \\t and \\n.

    The rows are those of CSV if they have all the fields, else the records of the answer. Raises RogueHunterError for
    a template that is wrong, and for an unknown field.
    """
    try:
        parts = [(words, name, spec or "") for words, name, spec, _ in Formatter().parse(template)]
    except ValueError as error:
        raise RogueHunterError(f"--format: {error}", USAGE) from None
    names = [name for _, name, _ in parts if name is not None]
    groups = [(answer.records if answer.csv_rows is None else answer.csv_rows, answer.columns), (answer.records, ())]
    fields = [_fields(rows, columns) for rows, columns in groups]
    try:
        rows = next(rows for (rows, _), known in zip(groups, fields, strict=True) if known >= set(names) or not known)
    except StopIteration:
        wrong = next(name for name in names if name not in fields[0] | fields[1])
        raise RogueHunterError(f"--format: no such field: {wrong!r}; fields: "
                               f"{', '.join(sorted(fields[0] | fields[1]))}", USAGE) from None
    literal = [words.replace("\\t", "\t").replace("\\n", "\n") for words, _, _ in parts]
    lines = ["".join(words + ("" if name is None else _filled(name, row.get(name), spec))
                     for words, (_, name, spec) in zip(literal, parts, strict=True)) for row in rows]
    return Answer(answer.records, lambda _: "".join(f"{line}\n" for line in lines), notes=answer.notes,
                  code=answer.code, raw=True)


def _fields(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> set[str]:
    """The names of the fields that rows have or can have."""
    declared = {field.name for row in rows[:1] for field in RECORDS.get(str(row.get("type")), ())}
    return {*columns, *declared, *(name for row in rows for name in row)}


def _filled(name: str, value: object, spec: str) -> str:
    """A field of a template, safe for a terminal: unknown is empty, a time is local, a list is JSON."""
    if isinstance(value, (list, dict)):
        value = wire.dumps(value).decode()
    elif name in TIMES and isinstance(value, (int, float)) and not spec:
        value = _local(value)
    try:
        return "" if value is None else text.visible(format(value, spec))
    except ValueError as error:
        raise RogueHunterError(f"--format: {name}: {error}", USAGE) from None


def style(stream: TextIO | None, now: float) -> Style:
    """The style for a stream: colours on a terminal that wants them, and its width. Without a terminal, and without
    COLUMNS, tables have 120 columns and sentences are not wrapped."""
    try:
        terminal = stream is not None and stream.isatty()
    except ValueError:
        terminal = False
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return Style(max(40, shutil.get_terminal_size((120, 24)).columns), colour, now,
                 terminal or "COLUMNS" in os.environ)


def render(answer: Answer, form: str, look: Style, *, epoch: bool = False) -> bytes:
    """The answer in one of FORMS, ending with a line feed; an empty list as NDJSON is no bytes at all.

    `epoch`: times in CSV are numbers (seconds since 1970), not local times.
    """
    if form == "table":
        made = answer.text(look)
        return (made if answer.raw or not look.wrap else wrapped(made, look.width)).encode("utf-8", "backslashreplace")
    if form == "json":
        return wire.dumps_pretty(answer.records[0] if answer.single else list(answer.records)) + b"\n"
    if form == "ndjson":
        rows = answer.records if answer.ndjson_rows is None else answer.ndjson_rows
        return b"".join(wire.dumps(row) + b"\n" for row in rows)
    return _csv(answer.records if answer.csv_rows is None else answer.csv_rows, answer.columns,
                times=not (epoch or answer.raw))


def wrapped(made: str, width: int) -> str:
    """Text whose lines are at most `width` columns wide, broken at spaces; a longer word keeps a line of its own. The
    rest of a line is indented by two columns more than its beginning."""
    lines = []
    for line in made.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" ")))
        head, used = "", 0
        for word in _WORDS.findall(line) if _wide(line) > width else [line]:
            cells = _wide(word.rstrip(" "))
            if head.strip() and used + cells > width:
                lines.append(head.rstrip(" "))
                head, used = indent + "  ", len(indent) + 2
                word = word.lstrip(" ")
            head += word
            used += _wide(word)
        lines.append(head.rstrip(" ") if _wide(line) > width else head)
    return "\n".join(lines)


_WORDS = re.compile(r" *[^ ]+ *| +")
_COLOUR = re.compile(f"{_ESCAPE}\\[[0-9;]*m")


def _wide(cell: str) -> int:
    """Terminal columns of a text that may be coloured."""
    return text.columns(_COLOUR.sub("", cell) if _ESCAPE in cell else cell)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], look: Style, *, right: str = "",
          drop: str = "") -> str:
    """A table in plain columns that fits the terminal.

    Where it is too narrow, the columns of `drop` are left out, the first one first, until the last column has room;
    then long cells are cut. Cells are text that is safe for a terminal, except in the last column, which is made safe
    here. `right` names the headers of columns that are aligned to the right.
    """
    from tabulate import tabulate

    body = [[*row[:-1], text.visible(row[-1])] for row in rows]
    widths = {head: max(map(_wide, [head, *(row[i] for row in body)])) for i, head in enumerate(headers)}
    last = headers[-1]
    need = min(widths[last], LAST_MINIMUM)
    shown = list(headers)
    for head in drop.split():
        if sum(widths[h] + 2 for h in shown[:-1]) + need <= look.width:
            break
        shown.remove(head)
    room = {head: widths[head] for head in shown}
    over = sum(room.values()) + 2 * (len(shown) - 1) - look.width
    if over > 0 and room[last] > need:
        cut = min(over, room[last] - need)
        room[last] -= cut
        over -= cut
    while over > 0 and room[widest := max(shown, key=lambda head: room[head])] > CELL_MINIMUM:
        room[widest] -= 1
        over -= 1
    cells = [[cell if _wide(cell) <= room[head] else text.clip(_COLOUR.sub("", cell), room[head])
              for head, cell in zip(headers, row, strict=True) if head in room] for row in [list(headers), *body]]
    align = ["right" if head in right.split() else "left" for head in shown]
    # The headers are a row: tabulate pads columns by two more below real ones.
    made = str(tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=align))
    return "\n".join(line.rstrip() for line in made.split("\n")) + "\n"


def pairs(facts: Sequence[tuple[str, str]], look: Style) -> str:
    """Facts, one a line: name, words."""
    width = max(len(name) for name, _ in facts) + 2
    room = max(LAST_MINIMUM, look.width - width)
    return "".join(f"{name:<{width}}{words if _ESCAPE in words else text.clip(words, room)}\n" for name, words in facts)


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, times: bool) -> bytes:
    """Comma separated values with a header (RFC 4180): `columns`, or all names in the order in which they appear."""
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow([text.csv_cell(name) for name in names])
    for row in rows:
        writer.writerow([_cell(name, row.get(name), times=times) for name in names])
    return made.getvalue().encode("utf-8", "backslashreplace")


def _cell(name: str, value: object, *, times: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        value = wire.dumps(value).decode()
    elif times and name in TIMES and isinstance(value, (int, float)):
        value = _local(value)
    return text.csv_cell(value)


def _local(ts: float) -> str:
    """A local time in ISO 8601, with a space so that spreadsheets recognise it; the number if it is out of range."""
    try:
        then = datetime.fromtimestamp(round(ts, 3))
    except (ValueError, OverflowError, OSError):
        return str(ts)
    return then.isoformat(" ", "milliseconds" if then.microsecond else "seconds")
