"""The background pipe: every stage in one process, at the beat, into the database."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.live import Live, rebuilt, scoring, tracking
from rogue_hunter.daemon.services import Around, Surround
from rogue_hunter.host.protocol import Host
from rogue_hunter.sampling.lineage import lineage
from rogue_hunter.sampling.sample import beats_of, sample
from rogue_hunter.store.database import Lock, open_writer
from rogue_hunter.store.writer import Writer, store
from rogue_hunter.stream import wire
from rogue_hunter.stream.clock import Beat, Clock
from rogue_hunter.stream.pace import paced
from rogue_hunter.stream.tick import Stage, Tick, chain
from rogue_hunter.tracking.history import History
from rogue_hunter.tracking.pauses import pauses


def run(config: Config, host: Host, database: Path, *, hz: float, seconds: float | None = None,
        out: wire.Sink | None = None, sleep: Callable[[float], bool] | None = None, clock: Clock | None = None,
        warn: Callable[[str], None], stages: Iterable[Stage] = (), live: Live | None = None,
        surround: Surround | None = None) -> int:
    """Sample, score, track and store at `hz` until `seconds` have passed or `sleep` says stop; gives the ticks taken.

    `out` gets every tick as NDJSON; once nobody reads it any more, the pipe goes on without it. `stages` come between
    tracking and storing. `live` is the configuration when it may change meanwhile; `surround` is entered when the
    database is ours, and gives stages for behind the store. Raises DatabaseError, HostError, what `surround` raises.
    """
    live = live or Live(config, hz)
    clock = clock or getattr(host, "clock", None)
    now = clock.wall if clock else time.time
    opener = Opener()
    lock = Lock(database)
    try:
        made = History(config)
        live.recent_slices = made.slicer.recent
        writer = Writer(database, config.store, now, warn, opener)
        try:
            with surround(writer, opener.now) if surround else nullcontext(Around()) as around:
                facts = {"pid": os.getpid(), "started_at": now(), "hz": live.hz, "model": config.scoring.model,
                         "stopped_at": None, **around.facts}
                ticks = chain(
                    sample(host, _beat(host, live, sleep or _sleep, seconds, clock), silent_first=True),
                    lineage,
                    scoring(live),
                    tracking(live, writer.open_events()),
                    rebuilt(live, lambda config: pauses(config.pause), lambda config: config.pause),
                    made.stage,
                    *stages,
                    store(writer, live.rogues, **facts),
                    *around.stages,
                    *([tee(out, warn)] if out is not None else []),
                )
                count = sum(tick.row is not None for tick in ticks)
                writer.finish({**facts, "hz": live.hz, "model": live.config.scoring.model, "stopped_at": now()})
            return count
        finally:
            writer.close()
    finally:
        lock.release()


class Opener:
    """Opens the database for the writer, and knows the connection: whoever prunes must use the one that writes."""

    def __init__(self) -> None:
        self._last: sqlite3.Connection | None = None

    def __call__(self, path: Path) -> tuple[sqlite3.Connection, Path | None]:
        self._last, moved = open_writer(path, apart=True)
        return self._last, moved

    def now(self) -> sqlite3.Connection | None:
        """The connection that was opened last."""
        return self._last


def _beat(host: Host, live: Live, sleep: Callable[[float], bool], seconds: float | None,
          clock: Clock | None) -> Iterator[Beat]:
    """The beat at the rate in force; a recording has its own."""
    if getattr(host, "beats", None) is not None:
        return beats_of(host, live.hz, sleep, seconds=seconds, clock=clock)
    return paced(lambda: live.rate, sleep, clock, seconds)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def tee(out: wire.Sink, warn: Callable[[str], None]) -> Stage:
    """A stage that writes every tick to `out` until that fails: the pipe is not there for its reader."""

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        encode = wire.Encoder().tick
        open_ = True
        for tick in ticks:
            if open_:
                try:
                    out.write(encode(tick))
                    out.flush()
                except BrokenPipeError:
                    open_ = False
                except Exception as error:  # whatever the sink raises, the pipe goes on
                    open_ = False
                    warn(f"output ends: {error}")
            yield tick

    return stage
