"""Values that their column was not declared with, and JSON that is none: no writer of ours makes them, damage on the
disk does."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from rogue_hunter.store.database import DatabaseError, open_reader
from rogue_hunter.store.table import quoted
from rogue_hunter.store.tables import TABLES
from rogue_hunter.stream import wire

_FITS = {"TEXT": "('null', 'text')", "INTEGER": "('null', 'integer')", "REAL": "('null', 'real', 'integer')"}


def misfit(path: Path) -> str | None:
    """The place of the first damaged value, or why the file cannot be read; None when all is as declared.

    Reads the whole file: for when an answer has failed, not for each one.
    """
    try:
        connection = open_reader(path)
    except DatabaseError as error:
        return str(error)
    # What is no UTF-8 would be an error of its own when it is fetched; it is only looked at here.
    connection.text_factory = bytes
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found is not None and found[0] != b"ok":
            return bytes(found[0]).decode("utf-8", "backslashreplace")
        there = {bytes(row[0]).decode() for row in connection.execute("SELECT name FROM sqlite_master")}
        for table in TABLES:
            for column in table.columns if table.name in there else ():
                wrong = f"typeof({quoted(column.name)}) NOT IN {_FITS[column.sql]}"
                if connection.execute(f"SELECT 1 FROM {table.name} WHERE {wrong} LIMIT 1").fetchone() is not None:
                    return f"{table.name}.{column.name} holds a value of another type"
                if column.type in (list, dict) and _broken(connection, table.name, column.name, column.type):
                    return f"{table.name}.{column.name} is no {_JSON[column.type]} of JSON"
        return _state(connection)
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.close()


_JSON = {list: "array", dict: "object"}


def _broken(connection: sqlite3.Connection, table: str, column: str, kind: type) -> bool:
    for row in connection.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"):
        try:
            if not isinstance(wire.loads(bytes(row[0])), kind):
                return True
        except ValueError:
            return True
    return False


def _state(connection: sqlite3.Connection) -> str | None:
    """What is wrong with daemon_state."""
    for key, value in connection.execute("SELECT key, value FROM daemon_state"):
        name = bytes(key).decode("utf-8", "backslashreplace")
        try:
            stored = wire.loads(bytes(value))
            if key == b"last_tick" and stored is not None:
                wire.check("tick", stored)
        except (ValueError, TypeError, AttributeError) as error:
            return f"daemon_state: {name} is invalid: {error}"
    return None
