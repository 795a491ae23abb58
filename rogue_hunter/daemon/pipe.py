"""The background pipe: every stage in one process, at the beat, into the database."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.rules_stage import RuleStages
from rogue_hunter.daemon.services import Running, Services, Start
from rogue_hunter.daemon.tee import Tee
from rogue_hunter.host.protocol import Host
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.sample import beats_of, sample
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.database import Lock, open_writer
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream.clock import Clock, Rate
from rogue_hunter.stream.clock import sleep as plain_sleep
from rogue_hunter.stream.pipeline import Pipeline, Stage
from rogue_hunter.tracking.events import Open, Track
from rogue_hunter.tracking.history import History
from rogue_hunter.tracking.pauses import Pauses


def stages(config: Config, writer: Writer, restored: Iterable[Open], history: History, evidence: Iterable[Stage],
           captures: Stage | None, rules: RuleStages, services: Services, tee: Stage | None) -> Pipeline:
    """The stages of rh-pipe in their order, behind `sample`."""
    order: list[Stage | None] = [
        Lineage(),
        *evidence,
        Score(config),
        Track(config, restored=restored),
        Pauses(config.pause),
        history,
        captures,
        rules.match,
        rules.reap,
        rules.others,
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


def run(config: Config, host: Host, database: Path, *, hz: float | None = None, seconds: float | None = None,
        write: Callable[[bytes], object] | None = None, sleep: Callable[[float], bool] | None = None,
        clock: Clock | None = None, warn: Callable[[str], None], evidence: Iterable[Stage] = (),
        captures: Stage | None = None, rules: RuleStages | None = None, start: Start | None = None) -> int:
    """Sample, score, track and store until `seconds` have passed or `sleep` says stop; returns the number of ticks.

    `evidence` are stages that read more of this machine than the host does: limits that bind, waits without use.
    `hz` takes the place of the configured rate. `write` gets every tick as NDJSON, on a thread of its own. `start` is
    entered when the database is ours. Raises DatabaseError, HostError, what `start` raises.
    """
    rate = Rate(hz or config.system.hz)
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

            history = History(config)
            running = Running(writer, opener.now, rate, configure, history.slicer.recent)
            with start(running) if start else nullcontext(Services()) as services:
                pipeline = stages(config, writer, writer.open_events(), history, evidence, captures,
                                  rules or RuleStages(), services, Tee(write, warn) if write is not None else None)
                facts = {"pid": os.getpid(), "started_at": now(), "stopped_at": None, **services.facts}

                def state() -> dict[str, Any]:
                    return {**facts, "hz": rate.hz, **pipeline.state()}

                writer.tells(state)
                beat = beats_of(host, rate, sleep or plain_sleep, seconds=seconds, clock=clock)
                count = sum(tick.row is not None
                            for tick in pipeline.run(sample(host, beat, silent_first=True)))
                writer.finish({"stopped_at": now()})
            return count
        finally:
            writer.close()
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
