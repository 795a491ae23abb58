"""Follow a running rh-pipe: complete ticks, with reconnection, and earlier events from the database."""

from __future__ import annotations

import math
import re
import select
import socket
import sqlite3
from collections.abc import Callable, Iterator
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any

from rogue_hunter.daemon.socket.address import SocketError
from rogue_hunter.daemon.socket.framing import CHUNK, connect, lines_of
from rogue_hunter.report.history import pauses
from rogue_hunter.report.queries import Period
from rogue_hunter.schema.events import EVENT
from rogue_hunter.schema.field import VERSION
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record

FIRST_S, LONGEST_S = 1.0, 30.0
"""Seconds until the first try to connect again; each further one waits twice as long, up to the longest."""

Batch = list[bytes]
"""The lines of one tick, its closing row last; or one line of another record."""

_TYPE = re.compile(rb'\{"type":"([a-z_]+)"')


def kind_of(line: bytes) -> str:
    """The record type of a line: every record begins with it."""
    found = _TYPE.match(line)
    return found.group(1).decode() if found else ""


def whole(lines: Iterator[bytes]) -> Iterator[Batch]:
    """The lines grouped by tick. Rows without a closing row are dropped: half a tick looks like a quiet machine."""
    rows: Batch = []
    for line in lines:
        kind = kind_of(line)
        if kind == "initial_state" or kind == "dropped":
            rows = []
        if kind == "process" or rows:
            rows.append(line)
            if kind == "tick":
                yield rows
                rows = []
        elif kind:
            yield [line]


class Output:
    """Waits for a connection, and notices when the reader of the output closes it."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def wait(self, connection: socket.socket | None, seconds: float | None) -> bool:
        """True when there is something to read; False after `seconds`. Raises BrokenPipeError."""
        poll = select.poll()
        if connection is not None:
            poll.register(connection, select.POLLIN)
        if self._fd is not None:
            poll.register(self._fd, 0)
        for fd, events in poll.poll(None if seconds is None else seconds * 1000):
            if fd == self._fd and events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                raise BrokenPipeError
            if connection is not None and fd == connection.fileno():
                return True
        return False


def follow(path: Path, wait: Callable[[socket.socket | None, float | None], bool], say: Callable[[str], object],
           again: bool = True, connecting: Callable[[Path], socket.socket] = connect) -> Iterator[Batch]:
    """Every batch that rh-pipe sends, without end; an empty one before each wait for a connection.

    `wait(connection, seconds)` waits until a connection is readable, or for that time. Without `again` it ends with the
    first connection. Raises SocketError for a socket of another user, or without `again` for one that is not served.
    """
    delay = FIRST_S
    told = False
    while True:
        try:
            connection = connecting(path)
        except SocketError as error:
            if error.code != 69 or not again:
                raise
            if not told:
                say(f"{error}; trying again every {FIRST_S:g} to {LONGEST_S:g} s")
                told = True
            yield []
            wait(None, delay)
            delay = min(LONGEST_S, 2 * delay)
            continue
        with connection:
            connection.setblocking(False)

            def receive(connection: socket.socket = connection) -> bytes:
                while wait(connection, None):
                    try:
                        return connection.recv(CHUNK)
                    except BlockingIOError:
                        continue
                    except OSError:
                        return b""
                return b""

            for batch in whole(lines_of(receive)):
                if told:
                    say("connected")
                delay, told = FIRST_S, False
                yield batch
        if not again:
            return
        say("rh-pipe ended; connecting again")
        told = True
        yield []
        wait(None, delay)
        delay = min(LONGEST_S, 2 * delay)


# -- the database --------------------------------------------------------------------------------------------------

_COLUMNS = frozenset(f.name for f in EVENT)
_JSON = frozenset(f.name for f in EVENT if f.type in (list, dict))
_BOOL = frozenset(f.name for f in EVENT if f.type is bool)


def stored(connection: sqlite3.Connection, start: float) -> Iterator[Record]:
    """The `event` and `pause` records that were stored from `start` (epoch seconds) on, in the order of time."""
    return merge(since(connection, start), _pauses(connection, start), key=itemgetter("ts"))


def identity(found: Record) -> tuple[object, ...]:
    """What tells one `event` or `pause` record from another."""
    names = ("event", "kind", "ts") if found["type"] == "event" else ("pause",)
    return tuple(found.get(name) for name in names)


def _pauses(connection: sqlite3.Connection, start: float) -> Iterator[Record]:
    for row in reversed(pauses(connection, Period(start, math.inf))):
        yield record("pause", ts=row["end"], **{k: v for k, v in row.items() if k not in ("type", "v", "id")})


def since(connection: sqlite3.Connection, start: float) -> Iterator[Record]:
    """The `event` records that were stored from `start` (epoch seconds) on, in the order of time.

    A record is made of its snapshot and the row of its event. Of several peaks of one event the last one is kept.
    """
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    rows = cursor.execute(
        "SELECT e.event, e.boot_id, e.pid, e.start_ticks, e.entry_time, e.reason, e.peak_score AS highest,"
        " e.scope, e.processes, e.peak_band AS highest_band, s.*"
        " FROM process_snapshots s JOIN process_events e ON e.id = s.event_id"
        " WHERE s.captured_at >= ? ORDER BY s.captured_at, s.id", (start,)).fetchall()
    for row in rows:
        yield _event(dict(zip(row.keys(), tuple(row), strict=True)))


def _event(row: dict[str, Any]) -> Record:
    kind = row["snapshot_type"]
    fields = {name: _value(name, value) for name, value in row.items() if name in _COLUMNS and value is not None}
    if kind != "exit":
        fields.pop("reason", None)
    head = {"ts": row["captured_at"], "kind": kind, "event": row["event"], "boot_id": row["boot_id"],
            "entered": row["entry_time"], "duration_s": row["duration_s"] if row["duration_s"] is not None else
            round(max(0.0, row["captured_at"] - row["entry_time"]), 3),
            "peak_score": row["highest"], "peak_band": row["highest_band"],
            **{name: row[name] for name in ("scope", "processes") if row[name] is not None}}
    return {"type": "event", "v": VERSION, **head, **{k: v for k, v in fields.items() if k not in head}}


def _value(name: str, value: Any) -> Any:
    if name in _JSON:
        return wire.loads(str(value).encode())
    return bool(value) if name in _BOOL else value
