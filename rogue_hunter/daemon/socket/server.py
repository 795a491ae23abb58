"""The server of the socket: accepts clients, queues ticks for them and handles their requests while the beat waits.

Nothing here blocks, and no action of a client raises: a client that misbehaves is disconnected, with a log entry.

Both sides are bounded. When the queue is full, the oldest frame is dropped and counted; a line may have 64 KiB; the
kernel makes a client wait that sends too fast.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.config.options import Socket as Settings
from rogue_hunter.daemon.loop import READ, WRITE, Loop
from rogue_hunter.daemon.socket.address import Peer, Place, SocketError, peer_of
from rogue_hunter.paths import PathError
from rogue_hunter.schema.field import VERSION
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import path_text

LINE = 1 << 16
"""Bytes of one line that a client may send."""

CHUNK = 1 << 14
"""Bytes received from a client at once: parsing them takes less than a millisecond, then the beat is checked again."""

LINES_PER_S, LINES_BURST = 20.0, 40.0
"""Lines accepted from one client; more wait in its own send buffer."""

ANSWERS = 64
"""Answers that may wait for one client; a client that does not read them is disconnected."""


class Gone(Exception):
    """The client has disconnected, or has to be disconnected; the message says why, empty if it just left."""


@dataclass(slots=True)
class Bucket:
    """A rate limit: `rate` a second on average, `burst` at once."""

    rate: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> Bucket:
        """With all its tokens."""
        return cls(rate, burst, burst, now)

    def take(self, now: float) -> bool:
        """Take one; False when there is none."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass(slots=True)
class Client:
    """`dropped` frames since the last `dropped` record, `dropped_total` in all. `moved` is the time, by the server's
    clock, at which it last received a byte or had nothing to receive."""

    number: int
    connection: socket.socket
    peer: Peer
    limit: int
    moved: float
    lines: Bucket
    frames: deque[bytes] = field(default_factory=deque)
    answers: deque[bytes] = field(default_factory=deque)
    sending: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytearray = field(default_factory=bytearray)
    dropped: int = 0
    dropped_total: int = 0
    bad: int = 0
    held_back: bool = False

    # -- to the client ---------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """True when something has not been sent."""
        return bool(self.sending or self.answers or self.frames)

    def push(self, frame: bytes) -> None:
        """Queue a frame; if the queue is full, the oldest one that is not being sent is dropped."""
        if len(self.frames) >= self.limit:
            self.frames.popleft()
            self.dropped += 1
            self.dropped_total += 1
        self.frames.append(frame)

    def answer(self, line: bytes) -> None:
        """Queue an answer, which is never dropped. Raises Gone for a client that does not read its answers."""
        if len(self.answers) >= ANSWERS:
            raise Gone("does not read its answers")
        self.answers.append(line)

    def send(self, now: float) -> None:
        """Send what the kernel accepts without waiting. Raises Gone."""
        if not self.waiting:
            self.moved = now
        while self.sending or self._next():
            try:
                sent = self.connection.send(self.sending)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                raise Gone("") from None
            self.sending = self.sending[sent:]
            self.moved = now

    def _next(self) -> bool:
        """Begin the next frame; where frames were dropped, first a `dropped` record."""
        if self.answers:
            self.sending = memoryview(self.answers.popleft())
        elif self.dropped:
            self.sending = memoryview(line_of("dropped", ticks=self.dropped, total=self.dropped_total))
            self.dropped = 0
        elif self.frames:
            self.sending = memoryview(self.frames.popleft())
        return bool(self.sending)

    # -- from the client -------------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Receive what the kernel has, up to CHUNK bytes. Raises Gone."""
        try:
            data = self.connection.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            raise Gone("") from None
        if not data:
            raise Gone("")
        self.received += data

    def lines_in(self, clock: Callable[[], float]) -> Iterator[bytes]:
        """The complete lines that the rate limit allows now. Raises Gone for a line that is too long."""
        self.held_back = False
        while (end := self.received.find(b"\n", 0, LINE + 1)) >= 0:
            if not self.lines.take(clock()):
                self.held_back = True
                return
            line = bytes(self.received[:end])
            del self.received[:end + 1]
            yield line
        if len(self.received) > LINE:
            raise Gone(f"sent a line of more than {LINE} bytes")

    def close(self) -> None:
        """Close the connection and drop what waits."""
        self.connection.close()
        self.frames.clear()
        self.answers.clear()
        self.received.clear()


def line_of(kind: str, /, **fields: object) -> bytes:
    """A record as a line."""
    return wire.dumps(record(kind, **fields)) + b"\n"


CHECK_S, ALONE_S = 1.0, 5.0
"""Interval of checking for stuck clients, rate-limited requests and a removed socket: with clients, and without."""

BAD_LINES = 20
"""Malformed requests after which a client is disconnected."""

Say = Callable[[str, str], object]
"""(level, message) for the log."""

Reply = Callable[[Record], None]
"""Sends a record to the client of the request, if it is still connected; now or later."""

Handler = Callable[[Record, Peer, Reply], None]
"""Handles a request record of one type. Must return soon: long work is done in pieces."""


class Server:
    """Serves one socket from a loop. `greet` returns the bytes that a new client is sent first."""

    def __init__(self, place: Place, loop: Loop, settings: Settings, greet: Callable[[], bytes], say: Say,
                 handlers: Mapping[str, Handler] | None = None, clock: Callable[[], float] = time.monotonic,
                 peer: Callable[[socket.socket], Peer | None] = peer_of) -> None:
        self._place = place
        self._loop = loop
        self._set = settings
        self._greet = greet
        self._say = say
        self._handlers = dict(handlers or {})
        self._clock = clock
        self._peer = peer
        self._clients: dict[int, Client] = {}
        self._count = 0
        self._refused = 0
        self._dropped = 0
        self._complaints = Bucket.full(0.2, 10, clock())
        self._lost = False
        self._listener: socket.socket | None = place.listen()
        loop.watch(self._listener, READ, self._accept)
        self._checks = loop.every(CHECK_S, self.check)

    # -- for the pipe ------------------------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """Number of connected clients."""
        return len(self._clients)

    def state(self) -> dict[str, Any]:
        """The state of the socket for daemon_state."""
        return {"path": path_text(self._place.path), "clients": self.clients, "clients_total": self._count,
                "refused": self._refused,
                "dropped_ticks": self._dropped + sum(c.dropped_total for c in self._clients.values())}

    def broadcast(self, frame: bytes) -> None:
        """Queue `frame`, complete lines, for every client; returns at once."""
        now = self._clock()
        for client in list(self._clients.values()):
            client.push(frame)
            self._send(client, now)

    def handle(self, kind: str, handler: Handler) -> None:
        """Use `handler` for requests of a type."""
        self._handlers[kind] = handler

    def close(self) -> None:
        """Send what the kernel accepts without waiting, disconnect all clients, remove the socket."""
        now = self._clock()
        for client in list(self._clients.values()):
            with suppress(Gone):
                client.send(now)
            self._drop(client, "")
        if self._listener is not None:
            self._loop.watch(self._listener, 0, self._accept)
            self._listener.close()
            self._listener = None
        self._place.leave()

    # -- connections -------------------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # No descriptors left: the listener stays ready and would spin; check() registers it again.
            self._complain(f"cannot accept clients: {error.strerror}")
            self._loop.watch(self._listener, 0, self._accept)
            return
        connection.setblocking(False)
        peer = self._peer(connection)
        if peer is None or not peer.trusted:
            self._refuse(connection, f"user {peer.uid}" if peer else "unknown user", "not for this user")
        elif len(self._clients) >= self._set.clients:
            self._refuse(connection, f"process {peer.pid}", f"{self._set.clients} clients are connected already")
        else:
            self._admit(connection, peer)

    def _admit(self, connection: socket.socket, peer: Peer) -> None:
        now = self._clock()
        self._count += 1
        client = Client(self._count, connection, peer, self._set.queue_ticks, now,
                        Bucket.full(LINES_PER_S, LINES_BURST, now))
        self._clients[client.number] = client
        self._loop.hurry(self._checks, CHECK_S)
        client.answers.append(self._greet())
        self._send(client, now)

    def _refuse(self, connection: socket.socket, who: str, why: str) -> None:
        self._refused += 1
        with suppress(OSError):
            connection.send(line_of("error", stage="rh-pipe", message=why))
        connection.close()
        self._complain(f"client refused ({who}): {why}")

    def _drop(self, client: Client, reason: str) -> None:
        if self._clients.pop(client.number, None) is None:
            return
        self._dropped += client.dropped_total
        with suppress(OSError, ValueError, KeyError):
            self._loop.watch(client.connection, 0, self._accept)
        client.close()
        if reason:
            self._complain(f"client disconnected (process {client.peer.pid}): {reason}")

    def _complain(self, message: str) -> None:
        """Log what a client did, at a limited rate."""
        if self._complaints.take(self._clock()):
            self._say("warning", message)

    # -- sending and receiving ---------------------------------------------------------------------------------------

    def _send(self, client: Client, now: float) -> None:
        try:
            client.send(now)
        except Gone as reason:
            self._drop(client, str(reason))
            return
        self._watch(client)

    def _watch(self, client: Client) -> None:
        events = (0 if client.held_back else READ) | (WRITE if client.waiting else 0)
        self._loop.watch(client.connection, events, lambda came: self._ready(client, came))

    def _ready(self, client: Client, events: int) -> None:
        try:
            if events & READ:
                client.receive()
                self._requests(client)
            if events & WRITE:
                client.send(self._clock())
        except Gone as reason:
            self._drop(client, str(reason))
        else:
            self._watch(client)

    def _requests(self, client: Client) -> None:
        for line in client.lines_in(self._clock):
            try:
                self._request(client, line)
            except ValueError as error:
                client.bad += 1
                client.answer(line_of("error", stage="rh-pipe", message=str(error)[:200]))
                if client.bad >= BAD_LINES:
                    raise Gone(f"sent {BAD_LINES} malformed requests") from None
        client.send(self._clock())

    def _request(self, client: Client, line: bytes) -> None:
        """Handle one line. Raises ValueError for a malformed request."""
        try:
            value = wire.loads(line)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(value, dict) or value.get("v") != VERSION:
            raise ValueError(f"not a record of version {VERSION}")
        handler = self._handlers.get(str(value.get("type")))
        if handler is None:
            raise ValueError(f"takes records of the types {', '.join(sorted(self._handlers))}")
        wire.check(str(value["type"]), {k: v for k, v in value.items() if k not in ("type", "v")})
        number = client.number

        def reply(answer: Record) -> None:
            asked = self._clients.get(number)
            if asked is not None:
                try:
                    asked.answer(wire.dumps(answer) + b"\n")
                    asked.send(self._clock())
                    self._watch(asked)
                except Gone as reason:
                    self._drop(asked, str(reason))

        handler(value, client.peer, reply)

    # -- checks ------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Disconnect stuck clients, continue rate-limited requests, and create a socket that was removed again."""
        now = self._clock()
        self._checks.period = CHECK_S if self._clients else ALONE_S
        for client in list(self._clients.values()):
            if client.waiting and now - client.moved >= self._set.stall_s:
                self._drop(client, f"read nothing for {self._set.stall_s:g} s")
            elif client.held_back:
                try:
                    self._requests(client)
                except Gone as reason:
                    self._drop(client, str(reason))
                else:
                    self._watch(client)
        if self._listener is not None and self._place.is_intact():
            self._loop.watch(self._listener, READ, self._accept)
            return
        if self._listener is not None:
            self._loop.watch(self._listener, 0, self._accept)
            self._listener.close()
            self._listener = None
        try:
            self._place = self._place.renewed()
            self._listener = self._place.listen()
        except (SocketError, PathError) as error:
            if not self._lost:
                self._say("warning", f"the socket was removed and cannot be created again: {error}")
            self._lost = True
            return
        self._lost = False
        self._loop.watch(self._listener, READ, self._accept)
        self._say("warning", f"{self._place.path} was removed; it was created again")
