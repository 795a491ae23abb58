"""Stages and pipelines: a stage takes a tick and returns a tick, a pipeline is a list of stages; rows kept by a stage.

A stage may add records and fields, replace rows by new ones and leave rows out; it never changes a row that it was
given, because the same row object is in many ticks: the row of a process that did not run is not built again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, Tick

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config


class Stage(Protocol):
    """A stage. It may also have the methods of Configurable, Closable, Abortable and Stateful."""

    def __call__(self, tick: Tick, /) -> Tick:
        """The tick with what the stage adds."""


@runtime_checkable
class Configurable(Protocol):
    """A stage that follows the configuration while it runs."""

    def configure(self, config: Config) -> None:
        """Use this configuration from the next tick on."""


@runtime_checkable
class Closable(Protocol):
    """A stage that has something to do at the end of the stream."""

    def close(self) -> Iterable[Record]:
        """Release what the stage holds; returns its last records."""


@runtime_checkable
class Abortable(Protocol):
    """A stage that ends in another way when the stream is given up; others are closed and their records dropped."""

    def abort(self) -> None:
        """Release what the stage holds, without waiting for results."""


@runtime_checkable
class Stateful(Protocol):
    """A stage that has facts for the table daemon_state."""

    def state(self) -> Mapping[str, Any]:
        """The facts now, by their keys."""


class Pipeline:
    """Stages in order. A pipeline is itself a stage."""

    def __init__(self, *stages: Stage) -> None:
        self.stages = stages
        # isinstance of a protocol takes 30 us, and the state is asked for at every commit.
        self._stateful = [stage for stage in stages if isinstance(stage, Stateful)]

    def __call__(self, tick: Tick) -> Tick:
        """The tick after all stages."""
        for stage in self.stages:
            tick = stage(tick)
        return tick

    def configure(self, config: Config) -> None:
        """Hand a changed configuration to the stages."""
        for stage in self.stages:
            if isinstance(stage, Configurable):
                stage.configure(config)

    def state(self) -> dict[str, Any]:
        """The facts of all stages."""
        return {key: value for stage in self._stateful for key, value in stage.state().items()}

    def close(self) -> list[Record]:
        """Close the stages in order. The last records of each pass through the stages behind it; returns them all."""
        records: list[Record] = []
        for place, stage in enumerate(self.stages, 1):
            if isinstance(stage, Closable) and (last := list(stage.close())):
                records += Pipeline(*self.stages[place:])(Tick(records=last)).records
        return records

    def abort(self) -> None:
        """Release what the stages hold; errors and last records are dropped."""
        for stage in self.stages:
            with suppress(Exception):
                if isinstance(stage, Abortable):
                    stage.abort()
                elif isinstance(stage, Closable):
                    stage.close()

    def run(self, ticks: Iterable[Tick]) -> Iterator[Tick]:
        """Every tick after all stages, then the last records, if there are any, as a tick without a row. The stages
        are aborted if the input or a stage raises, or the reader closes this iterator."""
        try:
            for tick in ticks:
                yield self(tick)
            last = self.close()
        except BaseException:
            self.abort()
            raise
        if last:
            yield Tick(records=last)


def chain(ticks: Iterable[Tick], *stages: Stage) -> Iterator[Tick]:
    """Ticks through stages: the form of a shell pipeline inside one process."""
    return Pipeline(*stages).run(ticks)


AHEAD = 4
"""Ticks that are read ahead; then the writer has to wait, as with any pipe."""


def pumped(ticks: Iterator[Tick], every_s: float) -> Iterator[Tick]:
    """The ticks, and an empty tick whenever none arrived for `every_s` seconds, so that a stage can add records
    between two ticks. Raises what reading raises."""
    from queue import Empty, Queue  # rh-pipe has no use for it

    queue: Queue[Tick | BaseException | None] = Queue(AHEAD)

    def read() -> None:
        try:
            for tick in ticks:
                queue.put(tick)
        except BaseException as error:
            queue.put(error)
        else:
            queue.put(None)

    threading.Thread(target=read, name="rh-pump", daemon=True).start()
    while True:
        try:
            got = queue.get(timeout=every_s)
        except Empty:
            yield Tick()
            continue
        if got is None:
            return
        if isinstance(got, BaseException):
            raise got
        yield got


def gathered(ticks: Iterator[Tick], every_s: float) -> Iterator[Tick]:
    """Records between ticks, in batches of one time (`ts`, `seq`): records that were made together.

    A batch ends at a record of another time, at a tick, at the end of the input, and when nothing arrived for `every_s`
    seconds. Raises what reading raises.
    """
    held: list[Record] = []
    for tick in pumped(ticks, every_s):
        if held and (tick.row is not None or not tick.records or _time(tick.records[0]) != _time(held[0])):
            yield Tick(records=held)
            held = []
        if tick.row is None:
            held += tick.records
        else:
            yield tick
    if held:
        yield Tick(records=held)


def _time(made: Record) -> tuple[object, object]:
    return made.get("ts"), made.get("seq")


class RowMap:
    """The rows of a stage's output, in the order of the host.

    `rows` is never changed once it was handed out: an update that changes anything makes a copy (0.05 ms for 1,000
    processes), and a row that is made again and is equal stays the same object.
    """

    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}

    def update(self, now: dict[Key, Row], dirty: Collection[Key], gone: Iterable[Key],
               make: Callable[[Key, Row], Row], *, every: bool = False) -> set[Key]:
        """Take over the processes `now`; returns the keys whose row is another one than before.

        `gone` holds every process that has a row and is not in `now`. `make(key, row)` is called for new processes, in
        order, and for those in `dirty`; with `every` for all.
        """
        before = self.rows
        rows: dict[Key, Row] = {} if every else before
        left = set() if every else {key for key in gone if key in before}
        if left:
            rows = before.copy()
            for key in left:
                del rows[key]
        asked: Iterable[Key] = now
        in_order = True
        if not every:
            new = _appended(now, rows)
            in_order = new is not None
            first = [key for key in now if key not in rows] if new is None else new
            asked = [*first, *(dirty if not first else set(dirty).difference(first))]
        changed: set[Key] = set()
        for key in asked:
            row = now.get(key)
            if row is None:
                continue
            made, known = make(key, row), before.get(key)
            if made is known and (rows is before or key in rows):
                continue
            if known is None or known != made:
                changed.add(key)
            elif rows is before or key in rows:
                continue
            else:
                made = known
            if rows is before:
                rows = before.copy()
            rows[key] = made
        if not in_order or len(rows) != len(now):
            for key in now.keys() - rows.keys():
                rows = {**rows, key: make(key, now[key])}
                changed.add(key)
            rows = {key: rows[key] for key in now}
        self.rows = rows
        return changed

    def append(self, more: Mapping[Key, Row]) -> None:
        """Add rows of processes that are not in the next update's processes, behind the others."""
        if more:
            self.rows = {**self.rows, **more}


def _appended(now: dict[Key, Row], known: dict[Key, Row]) -> list[Key] | None:
    """The keys of `now` that `known` lacks, in order, if they come after all others; else None.

    A host appends new processes, so the order can be kept without a walk through all of them.
    """
    count = len(now) - len(known)
    if count < 0:
        return None
    new = list(islice(reversed(now), count))
    new.reverse()
    return None if any(key in known for key in new) else new
