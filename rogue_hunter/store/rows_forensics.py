"""The records of a capture as rows. Each names its capture by key; what belongs to none that is stored is left out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from rogue_hunter.store.table import Table
from rogue_hunter.store.tables_forensics import CHILDREN, FORENSIC_CAPTURES
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record


def _insert_capture() -> str:
    names = [c.name for c in FORENSIC_CAPTURES.columns if c.name != "id"]
    values = {name: f":{name}" for name in names}
    values.update(captured_at=":ts", event_id="(SELECT id FROM process_events WHERE event = :event)",
                  pause_id="(SELECT id FROM pauses WHERE pause = :pause)")
    return f"INSERT OR IGNORE INTO forensic_captures ({', '.join(names)}) VALUES ({', '.join(values.values())})"


def _insert_child(table: Table) -> str:
    names = _names(table)
    return (f"INSERT INTO {table.name} (capture_id, {', '.join(names)}) SELECT id, "
            f"{', '.join(':' + name for name in names)} FROM forensic_captures WHERE capture = :capture")


def _names(table: Table) -> list[str]:
    return [c.name for c in table.columns if c.name not in ("id", "capture_id")]


_CAPTURE = _insert_capture()
_CAPTURE_VALUES = ("ts", *(c.name for c in FORENSIC_CAPTURES.columns))
_CHILD = {kind: (_insert_child(table), ("capture", *_names(table))) for kind, table in CHILDREN.items()}


def _write(statement: str, names: tuple[str, ...], connection: sqlite3.Connection, each: Record) -> None:
    connection.execute(statement, {name: _value(each.get(name)) for name in names})


def _value(value: Any) -> Any:
    return wire.dumps(value).decode() if isinstance(value, (list, dict)) else value


WRITES: dict[str, Callable[[sqlite3.Connection, Record], None]] = {
    "capture": partial(_write, _CAPTURE, _CAPTURE_VALUES),
    **{kind: partial(_write, *made) for kind, made in _CHILD.items()},
}
"""Record types of a capture, and how they are stored."""
