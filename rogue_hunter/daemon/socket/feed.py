"""What clients are sent: `initial_state` when they connect, then every tick, its rogues only.

A tick becomes bytes once, however many clients there are, and not at all when there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, Tick, record

HISTORY = 120
"""Ticks whose highest score is sent to a new client: 40 s at 3 Hz, the width of a terminal's sparkline."""

BULKY = frozenset({"spindump_report", "spindump_process", "spindump_thread", "spindump_blocker", "log_entry",
                   "buffer_context"})
"""Records of a capture that are not sent: thousands of lines, which are in the database."""

_SENT = ("event", "boot_id", "pid", "start_ticks", "command", "user", "entered", "peak_score", "peak_band", "band")


class Clients(Protocol):
    """The clients that a feed is sent to."""

    @property
    def clients(self) -> int:
        """Their number."""
        ...

    def broadcast(self, frame: bytes) -> None:
        """Send to all of them; returns at once."""
        ...

    def state(self) -> dict[str, Any]:
        """Their state for daemon_state."""
        ...


class Feed:
    """Encodes ticks for clients, and keeps what a new client is sent first. `state` returns the fields of
    initial_state that describe rh-pipe itself."""

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self._state = state
        self._encode = wire.Encoder().tick
        self._history: deque[tuple[float, int | None]] = deque(maxlen=HISTORY)
        self._events: dict[str, Record] = {}
        self._last: Tick | None = None

    def take(self, tick: Tick) -> None:
        """Keep what a new client will be sent."""
        for each in tick.records:
            if each["type"] == "event":
                if each["kind"] == "exit":
                    self._events.pop(each["event"], None)
                else:
                    self._events[each["event"]] = {name: each[name] for name in _SENT if name in each}
        if tick.row is not None:
            self._history.append((tick.row["ts"], tick.row.get("max_score")))
            self._last = Tick(tick.row, dict(tick.rogues))

    def frame(self, tick: Tick) -> bytes:
        """The lines of a tick for clients."""
        kept = [each for each in tick.records if each["type"] not in BULKY]
        return self._encode(Tick(tick.row, dict(tick.rogues), records=kept))

    def greeting(self) -> bytes:
        """The `initial_state` record, and the last tick."""
        last = self._last
        row = (last.row if last is not None else None) or {}
        known = {name: row.get(name) for name in ("ts", "host", "boot_id", "os", "cpus", "memory_total_bytes")}
        lines = wire.dumps(record("initial_state", **known, **self._state(), events=list(self._events.values()),
                                  history=[{"ts": ts, "max_score": score} for ts, score in self._history])) + b"\n"
        return lines + (self._encode(last) if last is not None else b"")


class Broadcast:
    """The stage: every tick is sent to the connected clients."""

    def __init__(self, feed: Feed, clients: Clients) -> None:
        self._feed, self._clients = feed, clients

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged."""
        self._feed.take(tick)
        if self._clients.clients:
            frame = self._feed.frame(tick)
            if frame:
                self._clients.broadcast(frame)
        return tick

    def state(self) -> dict[str, Any]:
        """The state of the server."""
        return {"socket": self._clients.state()}
