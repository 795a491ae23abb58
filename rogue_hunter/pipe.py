"""The background pipe: every stage in one process, at the beat, into the database."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType, TracebackType

from rogue_hunter import wire
from rogue_hunter.beat import Clock
from rogue_hunter.config import Config
from rogue_hunter.host import Host
from rogue_hunter.lineage import lineage
from rogue_hunter.minutes import minutes
from rogue_hunter.pause import pauses
from rogue_hunter.sample import beats_of, sample
from rogue_hunter.score import score
from rogue_hunter.score.select import Selector
from rogue_hunter.store import Lock, Writer, store
from rogue_hunter.tick import Stage, Tick, chain
from rogue_hunter.track import track


class Stopper(AbstractContextManager["Stopper"]):
    """Turns SIGTERM and SIGINT into the end of the beat; a second one ends the process at once.

    `sleep(seconds)` waits and gives False once a signal has come. A signal wakes it through a socket, so none is
    missed between the look and the wait.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._awake, self._waker = socket.socketpair()
        self._before: dict[int, object] = {}
        self._wakeup = -1

    def __enter__(self) -> Stopper:
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        self._awake.close()
        self._waker.close()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.stopping = True

    def sleep(self, seconds: float) -> bool:
        """Wait so long, or until a signal; False when it is time to stop."""
        if not self.stopping:
            ready, _, _ = select.select([self._awake], [], [], seconds)
            if ready:
                with suppress(BlockingIOError):
                    self._awake.recv(4096)
        return not self.stopping


def run(config: Config, host: Host, database: Path, *, hz: float, seconds: float | None = None,
        out: wire.Sink | None = None, sleep: Callable[[float], bool] | None = None, clock: Clock | None = None,
        warn: Callable[[str], None], stages: Iterable[Stage] = ()) -> int:
    """Sample, score, track and store at `hz` until `seconds` have passed or `sleep` says stop; gives the ticks taken.

    `out` gets every tick as NDJSON; once nobody reads it any more, the pipe goes on without it. `stages` come between
    tracking and storing. Raises DatabaseError, HostError.
    """
    lock = Lock(database)
    try:
        writer = Writer(database, config.store, time.time, warn)
        try:
            facts = {"pid": os.getpid(), "started_at": time.time(), "hz": hz, "model": config.scoring.model,
                     "stopped_at": None}
            beat = beats_of(host, hz, sleep or _sleep, seconds=seconds, clock=clock)
            ticks = chain(
                sample(host, beat, silent_first=True),
                lineage,
                score(config),
                track(config, restored=writer.open_events()),
                pauses(config.pause),
                minutes(config),
                *stages,
                store(writer, Selector(config.rogue_selection).rogues, **facts),
                *([tee(out, warn)] if out is not None else []),
            )
            count = sum(tick.row is not None for tick in ticks)
            facts["stopped_at"] = time.time()
            writer.finish(facts)
            return count
        finally:
            writer.close()
    finally:
        lock.release()


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
