"""Keeping the database small: what ended long ago goes, then the oldest until the file is small enough.

Everything is done in small bites, each a transaction of its own, so that whoever owns the writing connection can do
other things between two of them. What is open is never removed.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import merge
from pathlib import Path

BITE = 500
"""Events removed in one transaction: about 2,000 snapshots, 1.5 MB, 20 ms."""

VACUUM_PAGES = 1000
"""Pages given back in one transaction: 4 MB."""

MINIMUM_BYTES = 1_000_000
"""The smallest limit: an empty database is 84 KB, and a limit below that would cost the whole history."""

SIZES = "500MB, 1.5GiB or a number of bytes"

_UNITS = {"": 1, "b": 1, **{f"{letter}b": 1000**n for n, letter in enumerate("kmgt", 1)},
          **{f"{letter}ib": 1024**n for n, letter in enumerate("kmgt", 1)}}


@dataclass(frozen=True, slots=True)
class History:
    """A table that is pruned: rows whose `ended` (epoch seconds) is NULL still go on. `children` hang on its id."""

    table: str
    ended: str
    children: tuple[tuple[str, str], ...] = ()


HISTORY = (History("process_events", "exit_time", (("process_snapshots", "event_id"),)),)
"""What is pruned. Rows of all these tables go in the order of time, whichever table they are in."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What is gone so far: rows by table, and the size of the database as its pages say."""

    rows: dict[str, int]
    size_bytes: int

    def plus(self, rows: dict[str, int], size_bytes: int) -> Removed:
        """With `rows` more."""
        return Removed({name: self.rows.get(name, 0) + rows.get(name, 0) for name in {**self.rows, **rows}}, size_bytes)


def parse_size(text: str) -> int:
    """Bytes of `500MB` (millions), `1.5GiB` (powers of 1024) or a bare number. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([a-z]{0,3})", text.strip().lower(), re.ASCII)
    if found is None or found.group(2) not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write it like {SIZES}")
    size = int(float(found.group(1)) * _UNITS[found.group(2)])
    if size < MINIMUM_BYTES:
        raise ValueError(f"{text!r} is less than 1MB")
    return size


def prune(connection: sqlite3.Connection, before: float, max_bytes: int, bite: int = BITE) -> Iterator[Removed]:
    """Remove what ended before `before` (epoch seconds), then the oldest until the file is at most `max_bytes` large.

    Every step is one short transaction, after which the sum so far is yielded; the last one also empties the
    write-ahead log into the file. `connection` is the only writing one, in autocommit mode. Raises sqlite3.Error; what
    was yielded before stays done.
    """
    done = Removed({}, pages_size(connection))
    while rows := _remove(connection, before, bite):
        done = done.plus(rows, pages_size(connection))
        yield done
    for size in _give_back(connection):
        done = replace(done, size_bytes=size)
        yield done
    while done.size_bytes > max_bytes:
        oldest = _oldest(connection, bite)
        rows = _remove(connection, oldest, bite, including=True) if oldest is not None else {}
        if not rows:
            break
        done = done.plus(rows, pages_size(connection))
        for size in _give_back(connection):
            done = replace(done, size_bytes=size)
        yield done
    checkpoint(connection)
    yield replace(done, size_bytes=pages_size(connection))


def estimate(connection: sqlite3.Connection, before: float, max_bytes: int) -> Removed:
    """What `prune` would remove, for a connection that only reads. Where the size decides it is an estimate: all rows
    count as equally large, and single rows are taken instead of bites.
    """
    names = [name for history in HISTORY for name in (history.table, *(child for child, _ in history.children))]
    whole = sum(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names)
    size: float = pages_size(connection) - _free(connection)
    each = max(0.0, size - _empty_size(connection)) / max(1, whole)
    rows: dict[str, int] = {}
    for ended, counts in merge(*(_in_order(connection, history) for history in HISTORY), key=lambda row: row[0]):
        if ended >= before and size <= max_bytes:
            break
        rows = {name: rows.get(name, 0) + counts.get(name, 0) for name in {**rows, **counts}}
        size -= each * sum(counts.values())
    return Removed(rows, round(size))


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Move the write-ahead log into the file and cut it to nothing; False when a reader is in the way."""
    busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy


def pages_size(connection: sqlite3.Connection) -> int:
    """Bytes of the database file once the write-ahead log is in it."""
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    return pages * _page(connection)


def files_size(database: Path) -> int:
    """Bytes of the database file and its write-ahead log."""
    total = 0
    for tail in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += database.with_name(database.name + tail).stat().st_size
    return total


# -- inside ----------------------------------------------------------------------------------------------------------

def _page(connection: sqlite3.Connection) -> int:
    size: int = connection.execute("PRAGMA page_size").fetchone()[0]
    return size


def _free(connection: sqlite3.Connection) -> int:
    pages: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return pages * _page(connection)


def _empty_size(connection: sqlite3.Connection) -> int:
    """Bytes of a database without rows: a page for each table and index, and two that describe the file."""
    roots: int = connection.execute("SELECT count(*) FROM sqlite_master WHERE rootpage > 0").fetchone()[0]
    return (roots + 2) * _page(connection)


def _in_order(connection: sqlite3.Connection, history: History) -> Iterator[tuple[float, dict[str, int]]]:
    """The rows that ended, in the order of their end: when, and how many rows of which table would go with them."""
    children = "".join(f", (SELECT count(*) FROM {child} WHERE {column} = {history.table}.id)"
                       for child, column in history.children)
    names = [child for child, _ in history.children]
    for row in connection.execute(f"SELECT {history.ended}{children} FROM {history.table} "
                                  f"WHERE {history.ended} IS NOT NULL ORDER BY {history.ended}"):
        yield row[0], {history.table: 1, **dict(zip(names, tuple(row)[1:], strict=True))}


def _remove(connection: sqlite3.Connection, before: float, bite: int, including: bool = False) -> dict[str, int]:
    """Remove at most `bite` rows of each table that ended before a time, and what hangs on them: one transaction."""
    rows: dict[str, int] = {}
    sign = "<=" if including else "<"
    connection.execute("BEGIN IMMEDIATE")
    try:
        for history in HISTORY:
            chosen = (f"SELECT id FROM {history.table} WHERE {history.ended} IS NOT NULL AND {history.ended} {sign} ? "
                      f"ORDER BY {history.ended}, id LIMIT {bite}")
            ids = [row[0] for row in connection.execute(chosen, (before,))]
            if not ids:
                continue
            marks = ",".join("?" * len(ids))
            # The children first, although the tables would see to it: so they are counted.
            for child, column in history.children:
                rows[child] = connection.execute(f"DELETE FROM {child} WHERE {column} IN ({marks})", ids).rowcount
            rows[history.table] = connection.execute(f"DELETE FROM {history.table} WHERE id IN ({marks})", ids).rowcount
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return rows


def _oldest(connection: sqlite3.Connection, bite: int) -> float | None:
    """The time up to which one bite reaches: the earliest, over the tables, at which a bite of it is full."""
    times = []
    for history in HISTORY:
        where = f"FROM {history.table} WHERE {history.ended} IS NOT NULL ORDER BY {history.ended}"
        row = connection.execute(f"SELECT {history.ended} {where} LIMIT 1 OFFSET {bite - 1}").fetchone() or \
            connection.execute(f"SELECT {history.ended} {where} DESC LIMIT 1").fetchone()
        if row is not None:
            times.append(float(row[0]))
    return min(times, default=None)


def _give_back(connection: sqlite3.Connection) -> Iterator[int]:
    """Give free pages back to the file system, a few at a time; yields the size after each time."""
    free = _free(connection)
    while free:
        # Each row that is fetched is a step of the work; without fetching them all only one page would move.
        connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        before, free = free, _free(connection)
        yield pages_size(connection)
        if free >= before:
            return
