"""SIGINT and SIGTERM for a command that ends processes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType

from rogue_hunter.reaper.candidate import Candidate
from rogue_hunter.stream.tick import Tick

Ask = Callable[[Sequence[Candidate]], bool]


class Interrupts:
    """While input or an answer is waited for, a signal ends the command; while processes are being ended it ends the
    wait, and what was done is told. `code` is the exit code that follows, 0 as long as none has come."""

    def __init__(self) -> None:
        self.code = 0
        self._waiting = False

    @contextlib.contextmanager
    def handled(self, stop: Callable[[], None]) -> Iterator[None]:
        """Handle them in the body, on the main thread; `stop` ends a wait for processes."""
        def handler(number: int, _frame: FrameType | None) -> None:
            if not self._waiting:
                self.code = 128 + number
                stop()
            elif number == signal.SIGINT:
                raise KeyboardInterrupt
            else:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)

    @contextlib.contextmanager
    def _idle(self) -> Iterator[None]:
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def reading(self, ticks: Iterable[Tick]) -> Iterator[Tick]:
        """The same ticks; until the next one has come nothing is under way."""
        source = iter(ticks)
        while True:
            with self._idle():
                tick = next(source, None)
            if tick is None:
                return
            yield tick

    def asking(self, ask: Ask) -> Ask:
        """The same question; until the answer nothing is under way."""
        def asked(candidates: Sequence[Candidate]) -> bool:
            with self._idle():
                return ask(candidates)

        return asked
