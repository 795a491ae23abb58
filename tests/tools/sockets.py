"""A server of the socket with a clock that the test moves, and clients that read it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config, Socket
from rogue_hunter.daemon.loop import Loop
from rogue_hunter.daemon.socket.address import Place, peer_of
from rogue_hunter.daemon.socket.requests import Feed, logging
from rogue_hunter.daemon.socket.server import Server
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick
from rogue_hunter.tracking.events import Track
from tests.tools.ticks import Machine, at_once

STATE = {"pid": 1, "version": "0", "started_at": 1.0, "hz": 3.0, "slowed": 1, "model": "share", "database": "x.db"}


class Served:
    """A server, its loop, and a clock that the test moves."""

    def __init__(self, directory: Path, **fields: Any) -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.written: list[tuple[Any, ...]] = []
        self.loop = Loop()
        self.feed = Feed(lambda: STATE)
        peer = fields.pop("peer", peer_of)
        self.place = Place(directory / "run" / "s")
        self.server = Server(self.place, self.loop, Socket(**fields), self.feed.greeting,
                             lambda level, message: self.said.append(message), clock=lambda: self.now, peer=peer)
        self.server.handle("log", logging(lambda *words, **more: bool(self.written.append((*words, more)) or 1),
                                          lambda: self.now))
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """A client that is being served."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(5)
        made.connect(str(self.place.path))
        self.clients.append(made)
        self.turn()
        return made

    def turn(self, times: int = 4) -> None:
        """Let the loop look after what is ready."""
        for _ in range(times):
            self.loop.sleep(0)

    def close(self) -> None:
        """Give everything back."""
        for each in self.clients:
            each.close()
        self.server.close()
        self.loop.close()


def received(client: socket.socket, served: Served, until: Callable[[list[Any]], bool] = lambda _: False) -> list[Any]:
    """Every record that comes until there is nothing more, or `until` is true; fails on half a line."""
    client.setblocking(False)
    data = b""
    quiet = 0
    while quiet < 3:
        try:
            chunk = client.recv(1 << 20)
        except BlockingIOError:
            quiet += 1
            served.turn()
            continue
        if not chunk:
            break
        quiet = 0
        data += chunk
        served.turn()
        if data.endswith(b"\n") and until([json.loads(line) for line in data.splitlines()]):
            break
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def ticks(count: int) -> Iterator[Tick]:
    """Ticks of an active machine, scored and tracked."""
    return chain(Machine(5, processes=40).ticks(count), Score(Config()), Track(at_once(Config())))
