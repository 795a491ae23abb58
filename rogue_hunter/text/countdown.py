"""A line on a terminal that shows how long a command still runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TextIO


class Countdown:
    """`rh-pipe: 14 s left`, rewritten in place once a second; `clear` removes it before other output. The time starts
    with the first `show`.

    Only for a terminal. Errors of a terminal that is closed are ignored.
    """

    def __init__(self, name: str, seconds: float, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._stream = stream
        self._clock = clock
        self._seconds = seconds
        self._end: float | None = None
        self._shown: int | None = None
        self._width = 0

    def show(self) -> None:
        """Write the line if the number of seconds changed."""
        now = self._clock()
        if self._end is None:
            self._end = now + self._seconds
        left = max(0, math.ceil(self._end - now))
        if left == self._shown:
            return
        text = f"{self._name}: {left} s left"
        self._write(f"\r{text:<{self._width}}")
        self._shown, self._width = left, len(text)

    def clear(self) -> None:
        """Remove the line; the next `show` writes it again."""
        if self._width:
            self._write(f"\r{'':<{self._width}}\r")
        self._shown, self._width = None, 0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass
