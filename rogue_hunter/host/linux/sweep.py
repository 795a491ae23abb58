"""Which processes are read although they did not run: for what others can change of them.

That is memory, which the kernel takes when it is short of it. Where it took none (PSI counts the time that tasks, and
kswapd, spend on it), a process that did not run holds what it held. A process whose gate is not exact (stat tells CPU
time to 10 ms) is read as often as ever: what took less shows in its other counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from rogue_hunter.host.linux.files import Files
from rogue_hunter.host.linux.process import Process

SWEEP_S = 60.0
"""Every process is read at least this often while memory is taken."""

CALM_SWEEP_S = 600.0
"""And this often while none is. A reading costs 28 us: at 1,000 processes 0.15 ms a tick at the first rate, of 4."""


class Sweep:
    """Spreads the readings over the ticks."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._exact = _Round()
        self._others = _Round()

    def due(self, interval_s: float, calm: bool) -> Iterator[Process]:
        """The processes to read in a tick of this length; some may be gone by now."""
        files = self._files
        yield from self._exact.due((files.clock.owners, files.sched.owners),
                                   interval_s / (CALM_SWEEP_S if calm else SWEEP_S))
        cold = [process for process, _ in files.cold.values()] if files.cold else []
        yield from self._others.due((files.stat.owners, cold), interval_s / SWEEP_S)


class _Round:
    """One process after the other, and how many are owed."""

    def __init__(self) -> None:
        self._left: Iterator[Process] = iter(())
        self._owed = 0.0

    def due(self, whom: Sequence[Sequence[Process]], part: float) -> Iterator[Process]:
        count = sum(map(len, whom))
        self._owed = min(self._owed + count * part, float(count))
        while self._owed >= 1.0:
            self._owed -= 1.0
            process = next(self._left, None)
            if process is None:
                self._left = chain.from_iterable([list(some) for some in whom])
                process = next(self._left)
            yield process
