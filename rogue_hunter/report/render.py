"""Answers as bytes: a table for people, JSON, NDJSON, CSV. The only importer of tabulate."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record
from rogue_hunter.text import format as text

FORMS = ("table", "json", "ndjson", "csv")

_ESCAPE = "\x1b"
"""Only Style.band writes it: whatever comes from a process is made harmless before."""

LAST_MINIMUM = 20
"""Columns that the last column of a table keeps on a terminal that is too narrow for all."""

_COLOURS = {"medium": "36", "elevated": "33", "high": "31", "critical": "1;31"}


@dataclass(frozen=True, slots=True)
class Style:
    """How text for people is to look: terminal columns, whether bands are coloured, and the present, epoch seconds."""

    width: int
    colour: bool
    now: float

    def band(self, word: str | None, band: str | None) -> str:
        """`word` in the colour of a band."""
        code = _COLOURS.get(band or "")
        return f"{_ESCAPE}[{code}m{word or ''}{_ESCAPE}[0m" if self.colour and code else word or ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a view found. `text` makes the words for people; `single` answers are one JSON object instead of an array.

    `csv_rows` and `ndjson_rows` are the lines of CSV and NDJSON where they differ from `records`. `notes` are lines for
    people about what was asked of, and `code` the exit code.
    """

    records: Sequence[Record]
    text: Callable[[Style], str]
    single: bool = False
    csv_rows: Sequence[Mapping[str, Any]] | None = None
    ndjson_rows: Sequence[Record] | None = None
    columns: Sequence[str] = ()
    notes: Sequence[str] = ()
    code: int = 0


def style(stream: TextIO | None, now: float, environ: Mapping[str, str] | None = None) -> Style:
    """The style for a stream: colours on a terminal that wants them, its width, or 120 columns where there is none."""
    environ = os.environ if environ is None else environ
    try:
        terminal = stream is not None and stream.isatty()
    except ValueError:
        terminal = False
    colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"
    return Style(max(40, shutil.get_terminal_size((120, 24)).columns), colour, now)


def render(answer: Answer, form: str, look: Style) -> bytes:
    """The answer in one of FORMS, ending with a line feed; an empty list as NDJSON is no bytes at all."""
    if form == "table":
        return answer.text(look).encode("utf-8", "backslashreplace")
    if form == "json":
        return wire.dumps_pretty(answer.records[0] if answer.single else list(answer.records)) + b"\n"
    if form == "ndjson":
        rows = answer.records if answer.ndjson_rows is None else answer.ndjson_rows
        return b"".join(wire.dumps(row) + b"\n" for row in rows)
    return _csv(answer.records if answer.csv_rows is None else answer.csv_rows, answer.columns)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], look: Style, *, right: str = "") -> str:
    """A table in plain columns that fits the terminal: what is too long in the last column is cut.

    Cells are words that are safe for a terminal, but for the last column, which is made safe here. `right` names the
    headers of columns that are aligned to the right.
    """
    from tabulate import tabulate

    heads = list(headers[:-1])
    used = sum(max(map(text.columns, [h, *(_uncoloured(row[i]) for row in rows)])) + 2 for i, h in enumerate(heads))
    room = max(LAST_MINIMUM, look.width - used)
    body = [[*row[:-1], text.clip(row[-1], room)] for row in rows]
    align = ["right" if h in right.split() else "left" for h in headers]
    # The headers are handed over as a row: tabulate pads columns by two more below real ones.
    made = str(tabulate([list(headers), *body], tablefmt="plain", disable_numparse=True, colalign=align))
    return "\n".join(line.rstrip() for line in made.split("\n")) + "\n"


def pairs(facts: Sequence[tuple[str, str]], look: Style) -> str:
    """Facts, one a line: name, words."""
    width = max(len(name) for name, _ in facts) + 2
    room = max(LAST_MINIMUM, look.width - width)
    return "".join(f"{name:<{width}}{words if _ESCAPE in words else text.clip(words, room)}\n" for name, words in facts)


def _uncoloured(cell: str) -> str:
    if _ESCAPE not in cell:
        return cell
    return cell.split("m", 1)[1].removesuffix(f"{_ESCAPE}[0m")


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Comma separated values with a header (RFC 4180): `columns`, or all names in the order in which they appear."""
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return made.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        value = wire.dumps(value).decode()
    return text.csv_cell(value)
