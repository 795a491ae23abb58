"""rh-pipe --tee: every tick as NDJSON on standard output, written by a thread that the beat never waits for."""

from __future__ import annotations

from collections.abc import Callable

from rogue_hunter.daemon.socket.client import line_of
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, Tick
from rogue_hunter.worker import Worker

QUEUE_TICKS = 60
"""Ticks that wait for a slow reader, 20 s at 3 Hz."""

QUEUE_BYTES = 8 << 20
"""Bytes that wait: a tick of 1,000 processes has 0.7 MB, and rh-pipe is to stay below 40 MB."""

FINISH_S = 0.5
"""Seconds that the end of rh-pipe waits for the reader."""

class Tee:
    """A stage that hands every tick to a writer thread. A tick for which there is no room is dropped and counted, and a
    `dropped` record stands in its place, as for a slow client of the socket. After an error nothing more is written."""

    def __init__(self, write: Callable[[bytes], object], warn: Callable[[str], object]) -> None:
        """`write` writes all of its bytes and may block; `warn` takes a line for people."""
        self._write = write
        self._warn = warn
        self._worker: Worker[bytes, int] = Worker("rh-tee", self._written, limit=QUEUE_TICKS)
        self._encode = wire.Encoder().tick
        self._waiting = 0
        self._open = True
        self._gap = 0
        self.dropped = 0

    def _written(self, data: bytes) -> int:
        self._write(data)
        return len(data)

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged."""
        self._check()
        if not self._open:
            return tick
        if self._waiting >= QUEUE_BYTES or self._worker.pending > QUEUE_TICKS:
            self._drop()
            return tick
        data = self._encode(tick)
        if not data:
            return tick
        if self._gap:
            data = line_of("dropped", ticks=self._gap, total=self.dropped) + data
        if self._worker.submit(data):
            self._waiting += len(data)
            self._gap = 0
        else:
            self._drop()
        return tick

    def close(self) -> list[Record]:
        """Give the reader a moment for what waits, then stop."""
        if not self._worker.close(FINISH_S, finish=True) or self._gap:
            self._warn(f"standard output is not read: {self.dropped} ticks were dropped, and those at the end")
        self._check()
        return []

    def state(self) -> dict[str, object]:
        """What daemon_state tells of it."""
        return {"tee": {"dropped_ticks": self.dropped, "open": self._open}}

    def _drop(self) -> None:
        if not self._gap:
            self._warn("standard output is not read fast enough: ticks are dropped")
        self._gap += 1
        self.dropped += 1

    def _check(self) -> None:
        self._waiting -= sum(self._worker.collect())
        for _, error in self._worker.failures():
            if self._open and not isinstance(error, BrokenPipeError):
                self._warn(f"nothing more is written to standard output: {error}")
            self._open = False
