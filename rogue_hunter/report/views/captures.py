"""The views captures, capture and flame: stored captures, one with its parts, stacks; and the queries for stacks."""

from __future__ import annotations

import math
import sqlite3

from rogue_hunter.capture.blame import blame, blame_records
from rogue_hunter.report.capture_text import (
    blame_text,
    capture_text,
    collapsed_text,
    logs_text,
    of,
    speedscope,
    status_words,
    threads_text,
)
from rogue_hunter.report.queries import Period, Source, known, typed
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import moment
from rogue_hunter.report.views.view import Asked, columns, empty, existing, more
from rogue_hunter.store.tables import CAPTURE_PARTS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.errors import USAGE, RogueHunterError
from rogue_hunter.text.format import duration

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
    return [record("stack", **typed("stack", known(row))) for row in rows]


def cpu_shares_of(connection: sqlite3.Connection, number: int) -> list[Record]:
    """The `cpu_share` records of a pause, by CPU, the longest first."""
    return [record("cpu_share", **typed("cpu_share", known(row))) for row in connection.execute(
        "SELECT s.*, p.pause FROM cpu_shares s JOIN pauses p ON p.id = s.pause_id WHERE p.id = ? ORDER BY cpu, rank",
        (number,))]


def flame(source: Source, asked: Asked) -> Answer:
    """The collapsed stacks of one pause or capture, by default of the last one of the period, or a file of
    speedscope."""
    if asked.pause and asked.capture:
        raise RogueHunterError("--pause and --capture exclude each other", USAGE)
    if asked.pause or asked.capture:
        kind, which = ("pause", asked.pause) if asked.pause else ("capture", asked.capture)
        number = int(which) if which.isdecimal() and len(which) < 19 else -1
        row = existing(source.reader.execute(f"SELECT id, {kind} FROM {_TABLES[kind][0]} WHERE id = ? OR {kind} = ?",
                                             (number, which)).fetchone(), kind, which)
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
    best: tuple[float, str, sqlite3.Row | None] = (-math.inf, "pause", None)
    for kind, (place, at) in _TABLES.items():
        row = connection.execute(
            f"SELECT id, {kind}, {at} FROM {place} o WHERE {at} >= :since AND {at} < :until AND EXISTS (SELECT 1 FROM "
            f"stacks s WHERE s.{kind}_id = o.id AND (:text = '' OR instr(lower(coalesce(s.command, '')), :text))) "
            f"ORDER BY {at} DESC LIMIT 1", period.values()).fetchone()
        if row is not None and row[2] > best[0]:
            best = row[2], kind, row
    return best[1:]


_IN_PERIOD = ("captured_at >= :since AND captured_at < :until AND (:text = '' OR instr(lower(coalesce(command, '')), "
              ":text) OR instr(lower(coalesce(targets, '')), :text))")


def find(connection: sqlite3.Connection, period: Period, limit: int = 0) -> list[Record]:
    """The `capture` records of the period, those of skipped requests too, the newest first; `limit` 0 is no limit."""
    sql = f"SELECT * FROM forensic_captures WHERE {_IN_PERIOD} ORDER BY captured_at DESC, id DESC LIMIT :limit"
    rows = connection.execute(sql, {**period.values(), "limit": limit or -1})
    return [_own(row) for row in rows]


def count(connection: sqlite3.Connection, period: Period) -> int:
    """How many captures `find` returns."""
    found: int = connection.execute(f"SELECT count(*) FROM forensic_captures WHERE {_IN_PERIOD}",
                                    period.values()).fetchone()[0]
    return found


def read(connection: sqlite3.Connection, which: str) -> tuple[Record, list[Record]] | None:
    """One capture by its number or its key: its record and those of its parts, in the order of storing; None: no such
    capture."""
    number = int(which) if which.isdecimal() and len(which) < 19 else -1
    row = connection.execute("SELECT * FROM forensic_captures WHERE id = ? OR capture = ?", (number, which)).fetchone()
    if row is None:
        return None
    own = _own(row)
    children = []
    for kind, declared in CAPTURE_PARTS.items():
        rows = connection.execute(f"SELECT * FROM {declared.name} WHERE capture_id = ? ORDER BY id", (own["id"],))
        children += [record(kind, capture=own["capture"], **typed(kind, dict(each))) for each in rows]
    children += stacks_of(connection, "capture", own["id"])
    return own, children


def _own(row: sqlite3.Row) -> Record:
    return record("capture", id=row["id"], ts=row["captured_at"], **typed("capture", dict(row), "id"))


# -- views -----------------------------------------------------------------------------------------------------------

def captures(source: Source, asked: Asked) -> Answer:
    """The captures of the period, the newest first."""
    found = find(source.reader, asked.period, asked.rows(20))
    total = count(source.reader, asked.period)

    def text(look: Style) -> str:
        rows = [[str(c["id"]), moment(c["ts"], look.now), c["trigger"], status_words(c), *_counts(c),
                 duration(c.get("duration_s")), str(c.get("pid", "")), str(c.get("command", ""))] for c in found]
        heads = ["ID", "AT", "FOR", "STATUS", "PROCESSES", "THREADS", "WAITS", "LOG", "TOOK", "PID", "CULPRIT"]
        return table(heads, rows, look, right="ID PROCESSES THREADS WAITS LOG TOOK PID",
                      drop="LOG TOOK PROCESSES THREADS WAITS PID STATUS FOR") + more(len(found), total)

    return Answer(found, text if found else empty(source, asked, "capture", earlier=False),
                  columns=columns("capture", "children"))


def _counts(own: Record) -> list[str]:
    return [str(own.get(name, "")) for name in ("processes", "threads", "blockers", "log_entries")]


def capture(source: Source, asked: Asked) -> Answer:
    """One capture, or one part of it: threads, logs or blame."""
    (which,) = asked.which
    own, children = existing(read(source.reader, which), "capture", which)
    if asked.part == "blame":
        answer = blame(children)
        return Answer(list(blame_records(answer, own["capture"])), lambda look: blame_text(children),
                      columns=columns("blame"))
    if asked.part in ("threads", "logs"):
        kind, words = ("spindump_thread", threads_text) if asked.part == "threads" else ("log_entry", logs_text)
        made = of(children, kind)
        limit = asked.rows(0)
        cut = (made[-limit:] if asked.part == "logs" else made[:limit]) if limit else made
        return Answer(cut, lambda look: words(made, look, limit), columns=columns(kind))
    return Answer([{**own, "children": children}], lambda look: capture_text(own, children, look), single=True,
                  ndjson_rows=[own, *children], csv_rows=of(children, "spindump_process"),
                  columns=columns("spindump_process"))
