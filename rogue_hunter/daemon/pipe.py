"""The background pipe: every stage in one process, at the beat, into the database and, with --tee, to stdout."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.rules_stage import RuleStages
from rogue_hunter.daemon.services import Running, Services, Start
from rogue_hunter.host.protocol import Host
from rogue_hunter.recorder.stage import FlightRecorder
from rogue_hunter.report.verdict_text import pause_culprits
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.sample import beats_of, sample
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.database import Lock, open_writer
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.clock import Clock, Rate
from rogue_hunter.stream.clock import sleep as plain_sleep
from rogue_hunter.stream.pipeline import Pipeline, Stage
from rogue_hunter.stream.tick import Record, Tick, record
from rogue_hunter.tracking.events import Open, Track
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.pauses import Pauses
from rogue_hunter.worker import Worker

QUEUE_TICKS = 60
"""Ticks that wait for a slow reader, 20 s at 3 Hz."""

QUEUE_BYTES = 8 << 20
"""Bytes that wait: a tick of 1,000 processes has 0.7 MB, and rh-pipe is to stay below 40 MB."""

FINISH_S = 0.5
"""Seconds that the end of rh-pipe waits for the reader."""

class Tee:
    """A stage that hands every tick to a writer thread. A tick for which there is no room is dropped and counted, and a
    `dropped` record takes its place, as for a slow client of the socket. After an error nothing more is written."""

    def __init__(self, write: Callable[[bytes], object], warn: Callable[[str], object],
                 encode: Callable[[Tick], bytes] | None = None) -> None:
        """`write` writes all of its bytes and may block; `warn` takes a line for people. `encode` makes the bytes of a
        tick, in the thread of the beat; without one they are records."""
        self._write = write
        self._warn = warn
        self._worker: Worker[bytes, int] = Worker("rh-tee", self._written, limit=QUEUE_TICKS)
        self._encode = encode or wire.Encoder().tick
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
            data = self._encode(Tick(records=[record("dropped", ticks=self._gap, total=self.dropped)])) + data
        if self._worker.submit(data):
            self._waiting += len(data)
            self._gap = 0
        else:
            self._drop()
        return tick

    def close(self) -> list[Record]:
        """Give the reader a moment for what waits, then stop."""
        self._worker.wait(FINISH_S)
        left = self._worker.pending
        self._worker.close(0.0)
        self.dropped += left
        if left or self._gap:
            self._warn(f"standard output is not read: ticks not written: {self.dropped}")
        self._check()
        return []

    def state(self) -> dict[str, object]:
        """Its fields of daemon_state."""
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


def stages(config: Config, writer: Writer, restored: Iterable[Open], history: History, evidence: Iterable[Stage],
           captures: Stage | None, recorder: Stage | None, rules: RuleStages, services: Services,
           tee: Stage | None) -> Pipeline:
    """The stages of rh-pipe in their order, behind `sample`."""
    order: list[Stage | None] = [
        Lineage(),
        *evidence,
        Score(config),
        Track(config, restored=restored),
        Pauses(config.pause),
        history,
        captures,
        recorder,
        rules.match,
        rules.reap,
        rules.others,
        rules.prove,
        rules.recorded,
        rules.tell,
        rules.metrics,
        Store(writer),
        services.budget,
        services.wal,
        services.broadcast,
        tee,
        services.notify,
    ]
    return Pipeline(*(stage for stage in order if stage is not None))


class Ran(NamedTuple):
    """How many ticks there were, and how many records could not be written at the end."""

    ticks: int
    lost: int


def run(config: Config, host: Host, database: Path, *, hz: float | None = None, seconds: float | None = None,
        write: Callable[[bytes], object] | None = None, encode: Callable[[Tick], bytes] | None = None,
        sleep: Callable[[float], bool] | None = None,
        clock: Clock | None = None, warn: Callable[[str], None], evidence: Iterable[Stage] = (),
        captures: Stage | None = None, recorder: FlightRecorder | None = None, rules: RuleStages | None = None,
        start: Start | None = None) -> Ran:
    """Sample, score, track and store until `seconds` have passed or `sleep` says stop.

    `evidence` are stages that read more of this machine than the host does: limits that bind, waits without use.
    `hz` takes the place of the configured rate. `write` gets every tick as NDJSON, or as `encode`
    makes it, on a thread of its own. `start` is entered when the database is ours. Raises DatabaseError,
    HostError, what `start` raises.
    """
    rate = Rate(hz or config.system.hz)
    if recorder is not None:
        recorder.rate = rate
    clock = clock or getattr(host, "clock", None)
    now = clock.wall if clock else time.time
    lock = Lock(database)
    opener = Opener(lock)
    try:
        writer = Writer(database, config.store, now, warn, opener)
        try:
            def configure(config: Config) -> None:
                if hz is None:
                    rate.hz = config.system.hz
                pipeline.configure(config)

            history = History(config, judge=pause_culprits)
            running = Running(writer, opener.now, rate, configure, history.slicer.recent)
            with start(running) if start else nullcontext(Services()) as services:
                pipeline = stages(config, writer, writer.open_events(), history, evidence, captures, recorder,
                                  rules or RuleStages(), services, Tee(write, warn, encode) if write else None)
                facts = {"pid": os.getpid(), "started_at": now(), "stopped_at": None, **services.facts}

                def state() -> dict[str, Any]:
                    return {**facts, "hz": rate.hz, **pipeline.state()}

                writer.tells(state)
                beat = beats_of(host, rate, sleep or plain_sleep, seconds=seconds, clock=clock)
                count = sum(tick.row is not None
                            for tick in pipeline.run(sample(host, beat, silent_first=True)))
                writer.finish({"stopped_at": now()})
        finally:
            lost = writer.close()
        return Ran(count, lost)
    finally:
        lock.release()


class Opener:
    """Opens the database for the writer, and keeps the connection: pruning must use the one that writes."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._last: sqlite3.Connection | None = None

    def __call__(self, path: Path) -> tuple[sqlite3.Connection, Path | None]:
        self._lock.keep()
        self._last, moved = open_writer(path, apart=True)
        return self._last, moved

    def now(self) -> sqlite3.Connection | None:
        """The connection that was opened last."""
        return self._last
