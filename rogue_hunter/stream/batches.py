"""Ticks that are waited for in a thread, so that what reads them can do something else when none comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Empty, Queue

from rogue_hunter.stream.tick import Record, Tick

AHEAD = 4
"""Ticks that are read ahead; beyond it whoever writes them has to wait, as with any pipe."""


def pumped(ticks: Iterator[Tick], every_s: float) -> Iterator[Tick]:
    """The ticks, and an empty one whenever none came for `every_s` seconds.

    For a stage that has something to say between two ticks. Raises what reading raises.
    """
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
    """Records that come outside of ticks, in batches: those of one time (`ts`, `seq`), as they were made together.

    A batch ends with a record of another time, with a whole tick, at the end, and when nothing came for `every_s`
    seconds. For a stage that treats what belongs together as one. Raises what reading raises.
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
