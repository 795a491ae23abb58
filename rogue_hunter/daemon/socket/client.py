"""One client of the socket: its queue of frames to send, and the requests it sent.

Both sides are bounded. When the queue is full, the oldest frame is dropped and counted; a line may have 64 KiB; the
kernel makes a client wait that sends too fast.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rogue_hunter.daemon.socket.peer import Peer
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import record

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
