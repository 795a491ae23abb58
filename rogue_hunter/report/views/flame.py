"""The view flame: the stacks of a pause or a capture; and the queries for stacks and CPU shares."""

from __future__ import annotations

import math
import sqlite3

from rogue_hunter.report.capture_text import collapsed_text, speedscope
from rogue_hunter.report.database import Source
from rogue_hunter.report.queries import Period, known
from rogue_hunter.report.render import Answer
from rogue_hunter.report.views.view import Asked, columns
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.errors import USAGE, RogueHunterError

_TABLES = {"pause": ("pauses", "end_time"), "capture": ("forensic_captures", "captured_at")}


def stacks_of(connection: sqlite3.Connection, kind: str, number: int) -> list[Record]:
    """The `stack` records of a pause or capture, by its number in the database, most samples first. A capture that was
    made for a pause has those of the pause."""
    if kind == "capture":
        rows = connection.execute(
            "SELECT s.*, p.pause, c.capture FROM forensic_captures c JOIN stacks s ON s.capture_id = c.id "
            "OR s.pause_id = c.pause_id LEFT JOIN pauses p ON p.id = s.pause_id WHERE c.id = ? "
            "ORDER BY s.samples DESC, s.id", (number,))
    else:
        rows = connection.execute("SELECT s.*, p.pause FROM stacks s JOIN pauses p ON p.id = s.pause_id "
                                  "WHERE p.id = ? ORDER BY s.samples DESC, s.id", (number,))
    return [_row("stack", row, "id", "pause_id", "capture_id") for row in rows]


def cpu_shares_of(connection: sqlite3.Connection, number: int) -> list[Record]:
    """The `cpu_share` records of a pause, by CPU, the longest first."""
    return [_row("cpu_share", row, "pause_id") for row in connection.execute(
        "SELECT s.*, p.pause FROM cpu_shares s JOIN pauses p ON p.id = s.pause_id WHERE p.id = ? ORDER BY cpu, rank",
        (number,))]


def _row(kind: str, row: sqlite3.Row, *without: str) -> Record:
    return record(kind, **{name: value for name, value in known(row).items() if name not in without})


def flame(source: Source, asked: Asked) -> Answer:
    """The collapsed stacks of one pause or capture, by default of the last one of the period, or a file of
    speedscope."""
    if asked.pause and asked.capture:
        raise RogueHunterError("--pause and --capture exclude each other", USAGE)
    if asked.pause or asked.capture:
        kind, which = ("pause", asked.pause) if asked.pause else ("capture", asked.capture)
        number = int(which) if which.isdecimal() and len(which) < 19 else -1
        row = source.reader.execute(f"SELECT id, {kind} FROM {_TABLES[kind][0]} WHERE id = ? OR {kind} = ?",
                                    (number, which)).fetchone()
        if row is None:
            raise DatabaseError(f"{which}: no such {kind}; `rh-report {kind}s` lists them", 65)
        notes = f"{kind} {which} has no stacks"
    else:
        kind, row = _last(source.reader, asked.period)
        notes = "no stacks in this period"
    found = stacks_of(source.reader, kind, row[0]) if row else []
    if asked.part == "speedscope" and row:
        made = wire.dumps_pretty(speedscope(found, f"{kind} {row[1]}")).decode() + "\n"
    else:
        made = collapsed_text(found)
    return Answer(found, lambda look: made, columns=columns("stack"), raw=True,
                  notes=() if found else (f"{notes} (see rh-report status)",))


def _last(connection: sqlite3.Connection, period: Period) -> tuple[str, sqlite3.Row | None]:
    """The last pause or capture of the period that has stacks of its own; its kind, number and key."""
    asked = {"since": period.since, "until": period.until, "text": period.text.lower()}
    best: tuple[float, str, sqlite3.Row | None] = (-math.inf, "pause", None)
    for kind, (table, at) in _TABLES.items():
        row = connection.execute(
            f"SELECT id, {kind}, {at} FROM {table} o WHERE {at} >= :since AND {at} < :until AND EXISTS (SELECT 1 FROM "
            f"stacks s WHERE s.{kind}_id = o.id AND (:text = '' OR instr(lower(coalesce(s.command, '')), :text))) "
            f"ORDER BY {at} DESC LIMIT 1", asked).fetchone()
        if row is not None and row[2] > best[0]:
            best = row[2], kind, row
    return best[1:]
