"""The client side of the socket: connect to rh-pipe, read lines, send a request."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rogue_hunter.daemon.socket.address import SocketError, check_length
from rogue_hunter.daemon.socket.peer import Peer, peer_of
from rogue_hunter.schema.field import VERSION
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record

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
    held = b""
    while data := receive():
        held += data
        *lines, held = held.split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(held) > limit:
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
