"""Which processes are read although they did not run: for what others can change of them.

That is memory, which the kernel takes when it is short of it. Where it took none (PSI counts the time that tasks, and
kswapd, spend on it), a process that did not run holds what it held. A process of several threads is read as often as
ever: its gate is its CPU time to 10 ms, and what took less shows in its other counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        self._single = _Round()
        self._others = _Round()

    def due(self, interval_s: float, calm: bool) -> Iterator[Process]:
        """The processes to read in a tick of this length; some may be gone by now."""
        yield from self._single.due(self._files.sched.owners, interval_s / (CALM_SWEEP_S if calm else SWEEP_S))
        others: Sequence[Process] = self._files.stat.owners
        if self._files.cold:
            others = [*others, *(process for process, _ in self._files.cold.values())]
        yield from self._others.due(others, interval_s / SWEEP_S)


class _Round:
    """One process after the other, and how many are owed."""

    def __init__(self) -> None:
        self._left: Iterator[Process] = iter(())
        self._owed = 0.0

    def due(self, whom: Sequence[Process], part: float) -> Iterator[Process]:
        self._owed = min(self._owed + len(whom) * part, float(len(whom)))
        while self._owed >= 1.0:
            self._owed -= 1.0
            process = next(self._left, None)
            if process is None:
                self._left = iter(list(whom))
                process = next(self._left)
            yield process
