"""Follows the socket in a thread: every batch goes to the model, and a complete reading asks for a picture."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rogue_hunter.daemon.socket.address import SocketError
from rogue_hunter.daemon.socket.client import connect, follow
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import record
from rogue_hunter.tui.model import Model

LIMIT = 16 << 20
"""Bytes of the longest line: an answer with 10,000 processes is 9 MB."""

ROWS = 1000
"""Processes that are asked for: the most conspicuous ones of all, or of those that match the filter."""


class _Closed(Exception):
    """The reader was closed."""


class Reader:
    """`paint` is called in the reader's thread when there is something new to show: a complete reading, a connection
    that was lost. `lock` is held while the model changes."""

    def __init__(self, path: Path, model: Model, paint: Callable[[], object],
                 connecting: Callable[[Path], socket.socket] = connect) -> None:
        self.lock = threading.Lock()
        self.error: SocketError | None = None
        self._path, self._model, self._paint, self._connecting = path, model, paint, connecting
        self._connection: socket.socket | None = None
        self._woken, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        os.write(self._waker, b"x")
        if self._thread.is_alive():
            self._thread.join(2.0)
        os.close(self._woken)
        os.close(self._waker)

    def ask(self, search: str = "") -> bool:
        """Ask for the processes, or those that match a filter; False if that cannot be asked."""
        wanted = {"filter": search} if search.strip() else {}
        return self._model.answers_processes and self._send(record("processes_request", limit=ROWS, **wanted))

    def log(self, level: str, message: str) -> None:
        """Have rh-pipe write a line to its log; lost if there is no connection."""
        self._send(record("log", level=level, source="rh-top", message=message))

    def _send(self, request: dict[str, object]) -> bool:
        connection = self._connection
        if connection is None or not self._model.connected:
            return False
        with suppress(OSError):
            return connection.send(wire.dumps(request) + b"\n") > 0
        return False

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for batch in follow(self._path, self._wait, self._said, connecting=self._connect, limit=LIMIT):
                if not batch:
                    continue
                with self.lock:
                    kind = self._model.take(batch)
                if kind in ("processes", "initial_state") or (kind == "tick" and not self._model.answers_processes):
                    self._paint()
        except _Closed:
            return
        except SocketError as error:
            self.error = error      # another user's socket, an endless line: trying again does not help
            self._paint()

    def _connect(self, path: Path) -> socket.socket:
        self._connection = None
        self._connection = self._connecting(path)
        return self._connection

    def _said(self, message: str) -> None:
        """What follow reports is shown with the countdown instead."""

    def _wait(self, connection: socket.socket | None, seconds: float | None) -> bool:
        if connection is None and seconds is not None:
            with self.lock:
                self._model.disconnected("rh-pipe is not running", seconds)
            self._paint()
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if connection is not None:
            poll.register(connection, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)]
        if self._woken in ready:
            raise _Closed
        return bool(ready)
