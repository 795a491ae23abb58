"""What rogue-hunter itself uses and what kept it from running: the account of a late tick."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from rogue_hunter.host.linux.cgroups import Cgroups, Group


@dataclass(frozen=True, slots=True)
class Own:
    """Totals since the start: CPU time of the process (s), time the sampling thread waited for a CPU (s, None where the
    system does not tell), how often the process was stopped and continued, and time that the CPU quota of its control
    group took from all processes of that group (s, None without a quota)."""

    cpu_s: float
    run_delay_s: float | None = None
    continued: int = 0
    throttled_s: float | None = None


QUOTA_CALLS = 30
"""Calls between two looks for a CPU quota on our own control group: 10 s at 3 Hz. Without one a call costs nothing."""


class OwnUse:
    """Reads Own when called. Must be made and called on the thread that samples.

    Counts SIGCONT, which also a process that handles it nowhere else gets; only the main thread may ask for it.
    """

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._cgroups = cgroups or Cgroups()
        self._limited: list[Group] = []
        self._calls = 0
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
        return Own(time.process_time(), delay, self._continued, self._throttled())

    def _throttled(self) -> float | None:
        """Seconds taken by the quotas of our own control group and its ancestors."""
        if self._calls % QUOTA_CALLS == 0:
            self._limited = [group for group in self._cgroups.groups(os.getpid()) if self._cgroups.cpu(group)]
        self._calls += 1
        limits = [limit for group in self._limited if (limit := self._cgroups.cpu(group))]
        return sum(limit.throttled_s for limit in limits) if limits else None

    def close(self) -> None:
        """Give the descriptor back."""
        if self._schedstat >= 0:
            with suppress(OSError):     # it is freed even if close fails
                os.close(self._schedstat)
            self._schedstat = -1
