"""Read ticks in a background thread, so that a stage also runs when no tick arrives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Empty, Queue

from rogue_hunter.stream.tick import Record, Tick

AHEAD = 4
"""Ticks that are read ahead; then the writer has to wait, as with any pipe."""


def pumped(ticks: Iterator[Tick], every_s: float) -> Iterator[Tick]:
    """The ticks, and an empty tick whenever none arrived for `every_s` seconds, so that a stage can add records
    between two ticks. Raises what reading raises."""
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
