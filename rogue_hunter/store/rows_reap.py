"""Matches and actions as rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from rogue_hunter.store.tables_reap import ACTIONS, MATCHES
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record

_ACTION = ACTIONS.insert().replace("INSERT", "INSERT OR IGNORE", 1)
_ACTION_NAMES = tuple(c.name for c in ACTIONS.columns if c.name != "id")
_MATCH_NAMES = tuple(c.name for c in MATCHES.columns if c.name != "id")
_KEY = ("boot_id", "pid", "start_ticks", "rule")
_MATCH = (
    MATCHES.insert() + f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET times = times + 1, "
    "first_seen = min(first_seen, excluded.first_seen), " + ", ".join(
        f"{name} = coalesce(excluded.{name}, {name})" for name in _MATCH_NAMES
        if name not in (*_KEY, "first_seen", "times")))


def _write_action(connection: sqlite3.Connection, action: Record) -> None:
    """One action; a line of the audit file is one row, however often it comes."""
    connection.execute(_ACTION, {name: _value(action.get(name)) for name in _ACTION_NAMES})


def _write_match(connection: sqlite3.Connection, match: Record) -> None:
    """One match: a row made, or moved on."""
    row = {name: _value(match.get(name)) for name in _MATCH_NAMES}
    row.update(first_seen=match["ts"] - match.get("matched_s", 0.0), last_seen=match["ts"], times=1)
    connection.execute(_MATCH, row)


def _value(value: Any) -> Any:
    return wire.dumps(value).decode() if isinstance(value, (list, dict)) else value


WRITES: dict[str, Callable[[sqlite3.Connection, Record], None]] = {"match": _write_match, "action": _write_action}
"""Record types of the reaper, and how they are stored."""
