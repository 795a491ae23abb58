"""The view flame: the stacks of a pause or a capture; and the queries for stacks and CPU shares."""

from __future__ import annotations

import sqlite3

from rogue_hunter.report.database import Source
from rogue_hunter.report.flame import collapsed_text, speedscope
from rogue_hunter.report.queries import known
from rogue_hunter.report.render import Answer
from rogue_hunter.report.views.view import Asked, columns
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.errors import FOUND, USAGE, RogueHunterError

_TABLES = {"pause": "pauses", "capture": "forensic_captures"}


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
    """The collapsed stacks of one pause or capture, or a file of speedscope."""
    if bool(asked.pause) == bool(asked.capture):
        raise RogueHunterError("flame needs --pause ID or --capture ID, and not both", USAGE)
    kind, which = ("pause", asked.pause) if asked.pause else ("capture", asked.capture)
    number = int(which) if which.isdecimal() and len(which) < 19 else -1
    row = source.reader.execute(f"SELECT id, {kind} FROM {_TABLES[kind]} WHERE id = ? OR {kind} = ?",
                                (number, which)).fetchone()
    if row is None:
        raise DatabaseError(f"{which}: no such {kind}; `rh-report {kind}s` lists them", 65)
    found = stacks_of(source.reader, kind, row[0])
    if asked.part == "speedscope":
        made = wire.dumps_pretty(speedscope(found, f"{kind} {row[1]}")).decode() + "\n"
    else:
        made = collapsed_text(found)
    notes = () if found else (f"{kind} {which} has no stacks; rh-report status shows whether the flight recorder runs",)
    return Answer(found, lambda look: made, columns=columns("stack"), notes=notes, code=0 if found else FOUND, raw=True)
