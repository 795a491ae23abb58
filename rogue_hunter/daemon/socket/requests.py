"""What clients of the socket get: every tick, and answers to their requests (a log entry, the last slices,
all processes, pruning).

A tick becomes bytes once, however many clients there are, and not at all when there is none.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from heapq import nlargest
from pathlib import Path
from typing import Any, Protocol

from rogue_hunter.config.options import Retention
from rogue_hunter.daemon.log import LEVELS
from rogue_hunter.daemon.loop import Loop
from rogue_hunter.daemon.socket.address import Peer
from rogue_hunter.daemon.socket.server import Bucket, Handler, Reply
from rogue_hunter.store import prune as pruning
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, Row, Tick, matches, record
from rogue_hunter.text.format import cut, path_of, path_text

HISTORY = 120
"""Ticks whose highest score is sent to a new client: 40 s at 3 Hz, the width of a terminal's sparkline."""

BULKY = frozenset({"spindump_report", "spindump_process", "spindump_thread", "spindump_blocker", "log_entry",
                   "buffer_context"})
"""Records of a capture that are not sent: thousands of lines, which are in the database."""

_SENT = ("event", "boot_id", "pid", "start_ticks", "command", "name", "unit", "scope", "processes", "user", "entered",
         "peak_score", "peak_band", "band")


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
    initial_state that describe rh-pipe itself; `last` is the last tick."""

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self._state = state
        self._encode = wire.Encoder().tick
        self._history: deque[tuple[float, int | None]] = deque(maxlen=HISTORY)
        self._events: dict[str, Record] = {}
        self.last: Tick | None = None

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
            self.last = tick

    def frame(self, tick: Tick) -> bytes:
        """The lines of a tick for clients."""
        return self._rogues(tick, [each for each in tick.records if each["type"] not in BULKY])

    def _rogues(self, tick: Tick, records: list[Record]) -> bytes:
        return self._encode(Tick(tick.row, dict(tick.rogues), records=records))

    def greeting(self) -> bytes:
        """The `initial_state` record, and the last tick."""
        last = self.last
        row = (last.row if last is not None else None) or {}
        known = {name: row.get(name) for name in ("ts", "host", "boot_id", "os", "cpus", "memory_total_bytes")}
        lines = wire.dumps(record("initial_state", **known, **self._state(), events=list(self._events.values()),
                                  history=[{"ts": ts, "max_score": score} for ts, score in self._history])) + b"\n"
        return lines + (self._rogues(last, []) if last is not None else b"")


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


LOGS_PER_S, LOGS_BURST = 5.0, 100.0
"""Entries of all clients together: a day of them at the full rate would still leave our own in four files of 5 MB."""

BITE = 20
"""Rows removed in one piece of work: 20 events have about 80 snapshots, some 5 ms."""

PRUNE_S = 3600.0
"""Seconds between two times that rh-pipe prunes by itself, the first a minute after the start: each removes an hour's
worth of slices, which is done in a second."""

_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

Write = Callable[..., bool]
"""Log.write: (level, message, source, **more)."""


def logging(write: Write, clock: Callable[[], float] = time.monotonic) -> Handler:
    """Write log entries of clients, with their name and pid, at a limited rate."""
    bucket = Bucket.full(LOGS_PER_S, LOGS_BURST, clock())
    dropped = 0

    def handle(asked: Record, peer: Peer, _reply: Reply) -> None:
        nonlocal dropped
        level = asked.get("level")
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}")
        if not bucket.take(clock()):
            dropped += 1
            return
        if dropped:
            write("warning", f"{dropped} log entries of clients were dropped: too many")
            dropped = 0
        source = str(asked.get("source", ""))
        # A client must not write entries in the name of rh-pipe.
        name = source if _SOURCE.fullmatch(source) and source != "rh-pipe" else "client"
        write(level, str(asked["message"]), name, pid=peer.pid)

    return handle


def slices(recent: Callable[[], list[Record]], now: Callable[[], float] = time.time) -> Handler:
    """Answer a `slices_request` with the records of `recent()`, in one record."""

    def handle(_asked: Record, _peer: Peer, reply: Reply) -> None:
        reply(record("slices", ts=now(), records=recent()))

    return handle


MOST = 10_000
"""Processes in one answer: 9 MB, 15 ms of work."""

CMDLINE = 400
"""Characters of a command line in such an answer: two lines of a wide terminal."""


def processes(last: Callable[[], Tick | None], later: Callable[[Callable[[], object]], object]) -> Handler:
    """Answer a `processes_request` with rows of the tick `last()`. `later` calls a function when there is time before
    the beat."""

    def handle(asked: Record, _peer: Peer, reply: Reply) -> None:
        limit = asked["limit"]
        if not 1 <= limit <= MOST:
            raise ValueError(f"limit is not between 1 and {MOST}")
        later(lambda: reply(_processes(last(), limit, asked.get("filter"))))

    return handle


def _processes(tick: Tick | None, limit: int, search: str | None) -> Record:
    every = () if tick is None else tick.processes.values()
    rows: list[Row] = nlargest(limit, (row for row in every if search is None or matches(row, search)),
                               key=lambda row: (row.get("score", 0), row.get("cpu_percent", 0.0),
                                                row.get("memory_bytes", 0)))
    return record("processes", ts=tick.row["ts"] if tick is not None and tick.row is not None else None,
                  total=len(every), filter=search,
                  rows=[{**row, "cmdline": cut(row["cmdline"], CMDLINE)} if "cmdline" in row else row for row in rows])


class Pruner:
    """Prunes in pieces between the beats, one request after the other. `connection` is the writing connection, None
    while there is none; `retention` the configuration in force."""

    def __init__(self, loop: Loop, connection: Callable[[], sqlite3.Connection | None], database: Path,
                 say: Callable[[str, str], object], now: Callable[[], float] = time.time,
                 retention: Callable[[], Retention] = Retention) -> None:
        self._retention = retention
        self._loop = loop
        self._connection = connection
        self._database = database
        self._say = say
        self._now = now
        self._jobs: list[Iterator[None]] = []

    def handle(self, asked: Record, _peer: Peer, reply: Reply) -> None:
        """Begin with a `prune_request`; the answer is a `prune` record, or an `error`. Raises ValueError."""
        age, limit = asked["older_than_s"], asked["max_bytes"]
        if not 0 <= age < 1e11 or not pruning.MINIMUM_BYTES <= limit < 1 << 62:
            raise ValueError("older_than_s or max_bytes is out of bounds")
        meant = asked.get("database")
        if meant is not None and os.path.realpath(path_of(meant)) != os.path.realpath(self._database):
            raise ValueError("writes to another database")
        if len(self._jobs) >= 4:
            raise ValueError("is pruning already")
        self._begin(float(age), int(limit), reply)

    def routine(self) -> None:
        """Prune by age and size as configured, unless a request is still running. rh-pipe calls this once an hour."""
        if not self._jobs and self._connection() is not None:
            kept = self._retention()
            self._begin(kept.days * 86400, kept.max_size_mb * 1_000_000, lambda answer: None)

    def _begin(self, age: float, limit: int, reply: Reply) -> None:
        self._jobs.append(self._job(age, limit, reply))
        if len(self._jobs) == 1:
            self._loop.soon(self._step)

    def _step(self) -> None:
        if next(self._jobs[0], True):
            self._jobs.pop(0)
        if self._jobs:
            self._loop.soon(self._step)

    def _job(self, age: float, limit: int, reply: Reply) -> Iterator[None]:
        """Yields after each piece."""
        connection = self._connection()
        if connection is None:
            reply(record("error", stage="rh-pipe", message="the database cannot be written at the moment"))
            return
        now, before = self._now(), pruning.files_size(self._database)
        done = pruning.Removed({}, 0)
        try:
            fine = now - 3600 * self._retention().slice_hours
            for sofar in pruning.prune(connection, now - age, limit, BITE, fine):
                done = sofar
                yield
            left = connection.execute(
                "SELECT count(*), count(*) - count(exit_time), min(entry_time) FROM process_events").fetchone()
        except sqlite3.Error as error:
            reply(record("error", stage="rh-pipe", message=f"pruning ended early: {error}"))
            self._say("warning", f"pruning ended early: {error}")
            return
        after = pruning.files_size(self._database)
        answer: dict[str, Any] = dict(zip(("events_left", "open_events", "oldest_event"), left, strict=True))
        reply(record("prune", ts=now, database=path_text(self._database), dry_run=False, older_than_s=age,
                     max_bytes=limit, removed=done.rows, before_bytes=before, after_bytes=after,
                     below_limit=after <= limit, **answer))
        self._say("info" if done.rows else "debug",
                  f"pruned: {sum(done.rows.values())} rows, {before} bytes before, {after} after")
