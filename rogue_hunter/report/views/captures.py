"""The views captures and capture: the stored captures, and one capture with its parts."""

from __future__ import annotations

import sqlite3
from typing import Any

from rogue_hunter.capture.blame import blame, blame_records
from rogue_hunter.report.capture_text import blame_text, capture_text, logs_text, of, status_words, threads_text
from rogue_hunter.report.database import Source
from rogue_hunter.report.queries import Period
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import moment
from rogue_hunter.report.views.flame import stacks_of
from rogue_hunter.report.views.view import Asked, columns, more, nothing
from rogue_hunter.schema import RECORDS
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.store.tables import CAPTURE_PARTS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import duration

_KINDS = {kind: {f.name: f.type for f in RECORDS[kind]} for kind in ("capture", *CAPTURE_PARTS)}
_IN_PERIOD = ("captured_at >= :since AND captured_at < :until AND (:text = '' OR instr(lower(coalesce(command, '')), "
              ":text) OR instr(lower(coalesce(targets, '')), :text))")


def find(connection: sqlite3.Connection, period: Period, limit: int = 0) -> list[Record]:
    """The `capture` records of the period, those of skipped requests too, the newest first; `limit` 0 is no limit."""
    sql = f"SELECT * FROM forensic_captures WHERE {_IN_PERIOD} ORDER BY captured_at DESC, id DESC LIMIT :limit"
    rows = connection.execute(sql, {**_bind(period), "limit": limit or -1})
    return [_own(row) for row in rows]


def count(connection: sqlite3.Connection, period: Period) -> int:
    """How many captures `find` returns."""
    found: int = connection.execute(f"SELECT count(*) FROM forensic_captures WHERE {_IN_PERIOD}",
                                    _bind(period)).fetchone()[0]
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
        children += [record(kind, capture=own["capture"], **_fields(kind, each)) for each in rows]
    children += stacks_of(connection, "capture", own["id"])
    return own, children


def _bind(period: Period) -> dict[str, Any]:
    return {"since": period.since, "until": period.until, "text": period.text.lower()}


def _own(row: sqlite3.Row) -> Record:
    return record("capture", id=row["id"], ts=row["captured_at"], **_fields("capture", row, "id"))


def _fields(kind: str, row: sqlite3.Row, *without: str) -> dict[str, Any]:
    """The columns of a row that are fields of the record, as the record had them."""
    types = _KINDS[kind]
    return {name: _value(row[name], types[name]) for name in row.keys()  # noqa: SIM118  (a Row iterates over values)
            if name in types and name not in without and row[name] is not None}


def _value(value: Any, kind: type) -> Any:
    if kind in (list, dict):
        return wire.loads(value.encode())
    return bool(value) if kind is bool else value


# -- views -----------------------------------------------------------------------------------------------------------

def captures(source: Source, asked: Asked) -> Answer:
    """The captures of the period, the newest first."""
    found = find(source.reader, asked.period, asked.rows(20))
    total = count(source.reader, asked.period)
    empty = "" if found else nothing(source, asked, "capture", earlier=False)

    def text(look: Style) -> str:
        if not found:
            return empty
        rows = [[str(c["id"]), moment(c["ts"], look.now), c["trigger"], status_words(c), *_counts(c),
                 duration(c.get("duration_s")), str(c.get("pid", "")), str(c.get("command", ""))] for c in found]
        heads = ["ID", "AT", "FOR", "STATUS", "PROCESSES", "THREADS", "WAITS", "LOG", "TOOK", "PID", "CULPRIT"]
        return table(heads, rows, look, right="ID PROCESSES THREADS WAITS LOG TOOK PID",
                      drop="LOG TOOK PROCESSES THREADS WAITS PID STATUS FOR") + more(len(found), total)

    return Answer(found, text, columns=columns("capture", "children"))


def _counts(own: Record) -> list[str]:
    return [str(own.get(name, "")) for name in ("processes", "threads", "blockers", "log_entries")]


def capture(source: Source, asked: Asked) -> Answer:
    """One capture, or one part of it: threads, logs or blame."""
    (which,) = asked.which
    found = read(source.reader, which)
    if found is None:
        raise DatabaseError(f"{which}: no such capture; `rh-report captures` lists them", 65)
    own, children = found
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
