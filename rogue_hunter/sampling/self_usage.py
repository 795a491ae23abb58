"""What the toolkit itself uses, and what it had to wait for: the beat's own account of a late tick."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Own:
    """Totals since the start: CPU time of the process (s), time the sampling thread waited for a CPU (s, None where the
    system does not tell), and how often the process was stopped and continued."""

    cpu_s: float
    run_delay_s: float | None = None
    continued: int = 0


class OwnUse:
    """Reads Own when called. Must be made and called on the thread that samples.

    Counts SIGCONT, which also a process that handles it nowhere else gets; only the main thread may ask for it.
    """

    def __init__(self) -> None:
        self._continued = 0
        self._schedstat = -1
        with suppress(ValueError):
            signal.signal(signal.SIGCONT, self._count)
        with suppress(OSError):
            self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def _count(self, _number: int, _frame: object) -> None:
        self._continued += 1

    def __call__(self) -> Own:
        """What was used so far."""
        delay = None
        if self._schedstat >= 0:
            with suppress(OSError, ValueError, IndexError):
                delay = int(os.pread(self._schedstat, 64, 0).split()[1]) / 1e9
        return Own(time.process_time(), delay, self._continued)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._schedstat >= 0:
            with suppress(OSError):     # it is given back whatever close says
                os.close(self._schedstat)
            self._schedstat = -1
