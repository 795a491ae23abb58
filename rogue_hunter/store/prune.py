"""Remove old rows from the database by age, then the oldest until the file is small enough.

It works in small batches, each a transaction of its own, so that the owner of the writing connection can do other
things in between. Open events are never removed.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from heapq import merge
from pathlib import Path
from typing import Any

from rogue_hunter.store.database import DatabaseError, Lock, failed, open_reader, open_writer
from rogue_hunter.store.rows import SEEN_S
from rogue_hunter.store.tables import CAPTURE_PARTS
from rogue_hunter.text.errors import CONFIG_ERROR, UNAVAILABLE

BITE = 500
"""Rows of a table removed in one transaction: 500 events have about 2,000 snapshots, 1.5 MB."""

VACUUM_PAGES = 1000
"""Pages given back in one transaction: 4 MB."""

MINIMUM_BYTES = 1_000_000
"""The smallest limit: an empty database is 84 KB, and a limit below that would cost the whole history."""

SIZES = "500MB, 1.5GiB or a number of bytes"

_UNITS = {"": 1, "b": 1, **{f"{letter}b": 1000**n for n, letter in enumerate("kmgt", 1)},
          **{f"{letter}ib": 1024**n for n, letter in enumerate("kmgt", 1)}}


@dataclass(frozen=True, slots=True)
class History:
    """A table that is pruned by the time in column `ended`, epoch seconds; rows where it is NULL are still open.

    `children` are tables whose column holds the id of a row. Removing a row with its children is the work of `weight`
    events. Without `by_size` only age removes it: what was done to processes is kept for as long as is
    promised, and takes little room. `fine`: its rows are the finest history, which is kept for a shorter time. `only`:
    the condition of the rows that are meant. `slack_s`: `ended` may be so much older than what it is the end of.
    """

    table: str
    ended: str
    children: tuple[tuple[str, str], ...] = ()
    weight: float = 1
    by_size: bool = True
    fine: bool = False
    only: str = "1"
    slack_s: float = 0.0

    def bite(self, rows: int) -> int:
        """How many rows of it are as much work as `rows` rows are elsewhere."""
        return max(1, int(rows / self.weight))

    @property
    def names(self) -> tuple[str, ...]:
        """The table and its children."""
        return (self.table, *(child for child, _ in self.children))


HISTORY = (
    # Before the events: a capture is older than the end of the event that asked for it, and goes with it or earlier.
    History("forensic_captures", "captured_at", (*((part.name, "capture_id") for part in CAPTURE_PARTS.values()),
                                                  ("stacks", "capture_id")), 50),
    History("process_events", "exit_time", (("process_snapshots", "event_id"),)),
    History("pauses", "end_time", (("pause_culprits", "pause_id"), ("cpu_shares", "pause_id"), ("stacks", "pause_id")),
            15),
    History("machine_minutes", "minute"),
    History("command_minutes", "minute"),
    History("matches", "last_seen"),
    History("actions", "ts", by_size=False),
    History("proofs", "ts", by_size=False),
    History("machine_slices", "slice", weight=0.2, fine=True),
    History("process_slices", "slice", weight=0.2, fine=True),
    History("group_slices", "slice", weight=0.2, fine=True),
    History("waits", "ts", fine=True),
    History("limits", "ts", fine=True),
    History("process_minutes", "slice"),
    History("group_minutes", "slice"),
    History("machine_hours", "minute"),
    History("process_hours", "slice"),
    History("group_hours", "slice"),
    # The subjects of slices and minutes: removed once none of them can name it any more.
    *(History(table, "last_seen", by_size=False, fine=fine, only=f"kept IS {'' if fine else 'NOT '}NULL",
              slack_s=SEEN_S) for table in ("slice_processes", "slice_units") for fine in (True, False)),
)
"""What is pruned, as far as the file has it. Rows go in the order of time, whichever table they are in."""


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


def prune(connection: sqlite3.Connection, before: float, max_bytes: int, bite: int = BITE,
          fine_before: float = -math.inf) -> Iterator[Removed]:
    """Remove what ended before `before` (epoch seconds), then the oldest until the file is at most `max_bytes` large.
    Slices, waits and limits are removed from before `fine_before` if that is later.

    Every step is one short transaction, after which the sum so far is yielded; the last one also empties the
    write-ahead log into the file. `connection` is the only writing one, in autocommit mode. Raises sqlite3.Error; what
    was yielded before stays done.
    """
    kept = _kept(connection)
    done = Removed({}, pages_size(connection))
    while rows := _remove(connection, kept, before, bite, fine_before):
        done = done.plus(rows, pages_size(connection))
        yield done
    for size in _give_back(connection):
        done = replace(done, size_bytes=size)
        yield done
    kept = [history for history in kept if history.by_size]
    while done.size_bytes > max_bytes:
        until, before_it = _one_bite(connection, kept, bite), done
        while rows := _remove(connection, kept, until, bite):
            done = done.plus(rows, pages_size(connection))
            yield done
        if done is before_it:
            break
        for size in _give_back(connection):
            done = replace(done, size_bytes=size)
        yield done
    checkpoint(connection)
    yield replace(done, size_bytes=pages_size(connection))


def estimate(connection: sqlite3.Connection, before: float, max_bytes: int,
             fine_before: float = -math.inf) -> Removed:
    """What `prune` would remove, for a connection that only reads.

    Exact where age decides; where size does, an estimate: the rows of a table count as equally large.
    """
    kept = _kept(connection)
    size: float = pages_size(connection) - _free(connection)
    sizes = _row_sizes(connection, kept, size)
    rows: dict[str, int] = {}
    for history in kept:
        limit = _limit(history, before, fine_before)
        for _, counts in _in_order(connection, history, -math.inf, limit):
            _count(rows, counts)
    size -= sum(sizes[name] * count for name, count in rows.items())
    rest = (_in_order(connection, history, _limit(history, before, fine_before), math.inf)
            for history in kept if history.by_size)
    for _, counts in merge(*rest, key=lambda row: row[0]):
        if size <= max_bytes:
            break
        _count(rows, counts)
        size -= sum(sizes[name] * count for name, count in counts.items())
    return Removed(rows, round(size))


class InUse(DatabaseError):
    """Another process is the writer of the database."""


def prune_file(database: Path, before: float, limit: int, fine_before: float,
               warn: Callable[[str], object]) -> tuple[Removed, dict[str, Any]]:
    """Prune in this process, as the only writer; what was removed, and counts of the events that remain.

    Raises InUse if there is another writer, and DatabaseError. See `prune` for the arguments.
    """
    try:
        # open_writer creates a missing file and moves one aside that is not a database: neither is wanted here.
        open_reader(database).close()
    except DatabaseError as error:
        if error.code != CONFIG_ERROR:  # an older version: open_writer migrates it, and refuses other programs' files
            raise
    try:
        lock = Lock(database)
    except DatabaseError as error:
        raise InUse(str(error), error.code) if error.code == UNAVAILABLE else error from None
    try:
        connection, moved = open_writer(database)
        with closing(connection), _reported(database):
            if moved is not None:
                warn(f"{database} was corrupt; it was moved to {moved.name} and replaced by a new one")
            # No tick waits for this process, so a reader may keep it waiting for a moment.
            connection.execute("PRAGMA busy_timeout = 5000")
            removed = deque(prune(connection, before, limit, fine_before=fine_before), maxlen=1).pop()
            return removed, _remaining(connection)
    finally:
        lock.release()


def estimate_file(database: Path, before: float, limit: int,
                  fine_before: float) -> tuple[Removed, dict[str, Any]]:
    """What `prune_file` would remove. Nothing is locked or written. Raises DatabaseError."""
    with closing(open_reader(database)) as connection, _reported(database):
        connection.execute("BEGIN")
        removed, left = estimate(connection, before, limit, fine_before), _remaining(connection)
    gone = removed.rows.get("process_events", 0)
    # The oldest event after that is not worth another search.
    return removed, {**left, "events_left": left["events_left"] - gone, **({"oldest_event": None} if gone else {})}


def share_removed(database: Path, before: float, limit: int, fine_before: float) -> tuple[int, int]:
    """How many rows `prune_file` would remove, of how many that it looks after. Raises DatabaseError."""
    with closing(open_reader(database)) as connection, _reported(database):
        connection.execute("BEGIN")
        removed = estimate(connection, before, limit, fine_before)
        there = sum(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                    for history in _kept(connection) for name in history.names)
    return sum(removed.rows.values()), there


@contextmanager
def _reported(database: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise failed(database, error) from None


def _remaining(connection: sqlite3.Connection) -> dict[str, Any]:
    names = "events_left", "open_events", "oldest_event"
    return dict(zip(names, connection.execute(
        "SELECT count(*), count(*) - count(exit_time), min(entry_time) FROM process_events").fetchone(), strict=True))


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Move the write-ahead log into the file and cut it to nothing; False if a reader prevents it."""
    return not _pragma(connection, "wal_checkpoint(TRUNCATE)")


def pages_size(connection: sqlite3.Connection) -> int:
    """Bytes of the database file once the write-ahead log is in it."""
    return _pragma(connection, "page_count") * _pragma(connection, "page_size")


def files_size(database: Path) -> int:
    """Bytes of the database file and its write-ahead log; 0 without a file."""
    total = 0
    for tail in ("", "-wal"):
        with suppress(OSError):
            total += database.with_name(database.name + tail).stat().st_size
    return total


# -- inside ----------------------------------------------------------------------------------------------------------

def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _free(connection: sqlite3.Connection) -> int:
    return _pragma(connection, "freelist_count") * _pragma(connection, "page_size")


def _kept(connection: sqlite3.Connection) -> list[History]:
    """The histories that this file has: an older one may lack some."""
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [history for history in HISTORY if history.table in there]


def _limit(history: History, before: float, fine_before: float) -> float:
    """The time before which rows of a history are removed by age."""
    return (max(before, fine_before) if history.fine else before) - history.slack_s


def _count(rows: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        rows[name] = rows.get(name, 0) + count


def _remove(connection: sqlite3.Connection, kept: list[History], until: float, bite: int,
            fine_until: float = -math.inf) -> dict[str, int]:
    """Remove a bite of what ended before a time from each table, and what hangs on it, in one transaction."""
    rows: dict[str, int] = {}
    connection.execute("BEGIN IMMEDIATE")
    try:
        for history in kept:
            table, ended, before = history.table, history.ended, _limit(history, until, fine_until)
            # Rows of one moment go together, so a bite can be a little larger.
            sql = f"SELECT {ended} FROM {table} WHERE {ended} < ? AND {history.only} ORDER BY {ended} LIMIT 1 OFFSET ?"
            last = connection.execute(sql, (before, history.bite(bite) - 1)).fetchone()
            chosen, values = f"{ended} <= ?" if last else f"{ended} < ?", (last[0] if last else before,)
            # The children first, although the tables would see to it: so they are counted.
            for child, column in history.children:
                sql = f"DELETE FROM {child} WHERE {column} IN (SELECT id FROM {table} WHERE {chosen})"
                # A table may belong to more than one: stacks are of captures or of pauses.
                rows[child] = rows.get(child, 0) + connection.execute(sql, values).rowcount
            gone = connection.execute(f"DELETE FROM {table} WHERE {chosen} AND {history.only}", values).rowcount
            rows[table] = rows.get(table, 0) + gone
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return {name: count for name, count in rows.items() if count}


def _one_bite(connection: sqlite3.Connection, kept: list[History], bite: int) -> float:
    """The time before which the oldest lies: a bite of the table with the most rows, or a twentieth of it if less."""
    most, largest = 0, kept[0]
    for history in kept:
        rows = connection.execute(f"SELECT count({history.ended}) FROM {history.table}").fetchone()[0]
        if rows > most:
            most, largest = rows, history
    sql = (f"SELECT {largest.ended} FROM {largest.table} WHERE {largest.ended} IS NOT NULL "
           f"ORDER BY {largest.ended} LIMIT 1 OFFSET ?")
    row = connection.execute(sql, (min(bite, max(1, most // 20)) - 1,)).fetchone()
    # "Before" means smaller: the next number up includes that moment.
    return math.nextafter(row[0], math.inf) if row else -math.inf


def _in_order(connection: sqlite3.Connection, history: History, since: float,
              before: float) -> Iterator[tuple[float, dict[str, int]]]:
    """The rows that ended in a time, in the order of their end: when, and how many rows of which table would go with
    each."""
    children = "".join(f", (SELECT count(*) FROM {child} WHERE {column} = {history.table}.id)"
                       for child, column in history.children)
    for row in connection.execute(f"SELECT {history.ended}, 1{children} FROM {history.table} "
                                  f"WHERE {history.ended} >= ? AND {history.ended} < ? AND {history.only} "
                                  f"ORDER BY {history.ended}",
                                  (since, before)):
        yield row[0], dict(zip(history.names, tuple(row)[1:], strict=True))


def _row_sizes(connection: sqlite3.Connection, kept: list[History], size: float) -> dict[str, float]:
    """Bytes of a row of each table: as a sample of rows suggests, scaled so that all rows make up `size`."""
    counts: dict[str, int] = {}
    means: dict[str, float] = {}
    for name in (name for history in kept for name in history.names):
        counts[name] = connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
        sample = connection.execute(f"SELECT * FROM {name} LIMIT 100").fetchall()
        whole = sum(len(v) if isinstance(v, str) else 0 if v is None else 6 for row in sample for v in tuple(row))
        means[name] = whole / max(1, len(sample))
    # A page for each table and index, and two that describe the file, are there without any row.
    roots: int = connection.execute("SELECT count(*) FROM sqlite_master WHERE rootpage > 0").fetchone()[0]
    content = sum(counts[name] * means[name] for name in counts)
    scale = max(0.0, size - (roots + 2) * _pragma(connection, "page_size")) / content if content else 0.0
    return {name: scale * mean for name, mean in means.items()}


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
