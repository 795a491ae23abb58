"""Ticks that are waited for in a thread, so that what reads them can do something else when none comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Empty, Queue

from rogue_hunter.tick import Tick

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
