"""The client side of the socket: connect to rh-pipe, read lines, send a request, follow its ticks."""

from __future__ import annotations

import math
import os
import re
import select
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.socket.address import Peer, SocketError, check_length, client_path, peer_of, socket_path
from rogue_hunter.host.platform import suspended
from rogue_hunter.paths import PathError
from rogue_hunter.report.history import pauses
from rogue_hunter.report.queries import Period, Source, source
from rogue_hunter.schema.events import EVENT
from rogue_hunter.schema.field import VERSION
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import path_of, path_text

CHUNK = 1 << 16


class Silent(SocketError):
    """An rh-pipe serves the socket, and does not answer in time."""


def connect(path: Path, timeout: float | None = 5.0,
            peer: Callable[[socket.socket], Peer | None] = peer_of) -> socket.socket:
    """A connection to the rh-pipe that serves `path`. Raises SocketError: 69 when it is not served, 74 when it belongs
    to another user or is not accessible, 78 for an invalid path."""
    check_length(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        raise SocketError(f"{path}: no rh-pipe serves it", 69) from None
    except TimeoutError:
        connection.close()
        raise Silent(f"{path}: rh-pipe does not answer", 69) from None
    except OSError as error:
        connection.close()
        raise SocketError(f"{path}: {error.strerror}", 74) from None
    who = peer(connection)
    # Another user could send anything; root may read it all the same.
    if os.geteuid() != 0 and (who is None or not who.trusted):
        connection.close()
        raise SocketError(f"{path}: served by {f'user {who.uid}' if who else 'an unknown user'}", 74)
    return connection


def lines_of(receive: Callable[[], bytes], limit: int = wire.MAX_LINE) -> Iterator[bytes]:
    """The complete lines, with their line feeds, until `receive` returns nothing. Raises SocketError for an endless
    one."""
    held: list[bytes] = []
    size = 0
    while data := receive():
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield b"".join((*held, line, b"\n"))
            held, size = [], 0
        held.append(rest)
        size += len(rest)
        if size > limit:
            raise SocketError("rh-pipe sent an endless line", 74)


def _record(line: bytes) -> dict[str, Any]:
    """The record of a line. Raises SocketError."""
    try:
        found = wire.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SocketError("rh-pipe sent a malformed record", 74)
    return found


def greeting(path: Path, timeout: float = 1.0, clock: Callable[[], float] = time.monotonic) -> Record:
    """The present state of rh-pipe: its record `initial_state`. Raises SocketError, as `ask` does."""
    return ask(path, {}, "initial_state", timeout, clock)


def ask(path: Path, request: Record, answer: str, timeout: float = 600.0,
        clock: Callable[[], float] = time.monotonic) -> Record:
    """Send one request, unless it is empty, and wait for the record of type `answer`; other records are skipped.

    Raises SocketError: 69 when no rh-pipe serves the socket, or it ends or takes longer than `timeout`, 74 when it
    answers with an error.
    """
    deadline = clock() + timeout
    with connect(path, min(5.0, timeout)) as connection:

        def receive() -> bytes:
            left = deadline - clock()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            return connection.recv(CHUNK)

        try:
            if request:
                connection.sendall(wire.dumps({"type": request["type"], "v": VERSION, **request}) + b"\n")
            for line in lines_of(receive):
                found = _record(line)
                if found.get("type") == answer:
                    return dict(found)
                if found.get("type") == "error":
                    raise SocketError(f"rh-pipe: {found.get('message')}", 74)
        except TimeoutError:
            raise Silent(f"{path}: no answer in {timeout:g} s", 69) from None
        except OSError as error:
            raise SocketError(f"{path}: {error.strerror}", 69) from None
    raise SocketError(f"{path}: rh-pipe ended before it answered", 69)


LIVE_S = 2.0
"""How long rh-pipe has to answer with its slices; it does so between two ticks, in some 10 ms."""


def serves(found: Source) -> Path:
    """The socket of the rh-pipe that writes to this database: it may be that of the service of the whole system. Where
    none is known, the configured one. Raises PathError."""
    return socket_path(path_of(found.state.get("socket_path") or found.config.socket.path))


def place_of(config: Config, given: Path | None, database: Path) -> Path:
    """The socket to follow: the one `given` or configured, else the user's; where that is missing, as after su or in a
    crontab, which do not name the runtime directory, that of the rh-pipe that writes to `database`. Raises
    PathError."""
    path = client_path(config.socket.path, given)
    if given is None and not config.socket.path and not os.path.lexists(path):
        with suppress(DatabaseError), source(database, time.time(), config) as found:
            if found.holder.held:
                return serves(found)
    return path


def live_slices(found: Source) -> list[dict[str, Any]]:
    """The slices in the memory of the rh-pipe that writes to this database; none if there is no answer."""
    if not found.holder.held:
        return []
    try:
        answer: list[dict[str, Any]] = ask(serves(found), record("slices_request"), "slices", LIVE_S)["records"]
    except (SocketError, PathError):
        return []
    return answer


def with_live_state(found: Source) -> Source:
    """The source with the live state of the rh-pipe that holds the database: what it wrote may be 10 s old, and it
    cannot write that it cannot write. Unchanged if it serves no socket."""
    pid = found.holder.pid
    if pid is None:
        return found
    halted = suspended(pid)
    if halted is not None:
        return replace(found, silent=f"rh-pipe does not run: {halted}")
    try:
        live = greeting(serves(found))
    except Silent:
        return replace(found, silent="rh-pipe does not answer on its socket")
    except (SocketError, PathError):
        return found
    return replace(found, live=live) if live.get("pid") == pid else found


def prune_through_pipe(database: Path, age_s: float, max_bytes: int, config: Config, refused: DatabaseError) -> Record:
    """Have the rh-pipe that writes to this database prune it, between its ticks; its `prune` record.

    Raises DatabaseError, with the reason in `refused`, if it cannot be asked.
    """
    request = record("prune_request", older_than_s=age_s, max_bytes=max_bytes,
                     database=path_text(os.path.realpath(database)))
    try:
        with source(database, time.time(), config, needed=False) as found:
            place = serves(found)
        answer: Record = ask(place, request, "prune")
    except SocketError as error:
        raise DatabaseError(f"{refused}, which cannot be asked to prune it: {error}", refused.code) from None
    return answer


FIRST_S, LONGEST_S = 0.5, 1.5
"""Seconds until the first try to connect again; each further one waits twice as long, up to the longest. A try on
a local socket costs 0.1 ms; a new rh-pipe is followed within two seconds of its start."""

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


class Quit(Exception):
    """The key q was pressed."""


class Output:
    """Waits for a connection, and notices when the reader of the output closes it, or the key q on a terminal."""

    def __init__(self, fd: int | None, keys: int | None = None) -> None:
        self._fd, self._keys = fd, keys

    def wait(self, connection: socket.socket | None, seconds: float | None) -> bool:
        """True when there is something to read; False after `seconds`. Raises BrokenPipeError and Quit."""
        poll = select.poll()
        if connection is not None:
            poll.register(connection, select.POLLIN)
        if self._fd is not None:
            poll.register(self._fd, 0)
        if self._keys is not None:
            poll.register(self._keys, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
            if self._keys is not None and self._keys in ready and not self._key():
                poll.unregister(self._keys)
                self._keys = None
            if self._fd in ready:       # only errors are reported, as no event was asked for
                raise BrokenPipeError
            if connection is not None and connection.fileno() in ready:
                return True
            if not ready:
                return False

    def _key(self) -> bool:
        """Read the keys that were pressed. False if the terminal is gone; raises Quit for q."""
        try:
            pressed = os.read(self._keys, 64) if self._keys is not None else b""
        except OSError:
            return False
        if b"q" in pressed.lower():
            raise Quit
        return bool(pressed)


def follow(path: Path, wait: Callable[[socket.socket | None, float | None], bool], say: Callable[[str], object],
           again: bool = True, connecting: Callable[[Path], socket.socket] = connect,
           limit: int = wire.MAX_LINE) -> Iterator[Batch]:
    """Every batch that rh-pipe sends, without end; an empty one before each wait for a connection.

    `wait(connection, seconds)` waits until a connection is readable, or for that time. Without `again` it ends with the
    first connection. `limit` is the longest line in bytes. Raises SocketError for a socket of another user, or without
    `again` for one that is not served.
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
                say(f"{error}; trying again at least every {LONGEST_S:g} s")
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

            for batch in whole(lines_of(receive, limit)):
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
    """The identity of an `event` or `pause` record."""
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
