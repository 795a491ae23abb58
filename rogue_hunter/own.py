"""What the toolkit itself uses, and what it had to wait for: the beat's own account of a late tick."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Own:
    """Totals since the start: CPU time of the process (s), time the sampling thread waited for a CPU (s, None where the
    system does not tell), and how often the process was stopped and continued."""

    cpu_s: float
    run_delay_s: float | None = None
    continued: int = 0


def own_use() -> Callable[[], Own]:
    """A function that reads Own. Must be made and called on the thread that samples.

    Counts SIGCONT, which also a process that handles it nowhere else gets; only the main thread may ask for it.
    """
    continued = 0

    def count(_number: int, _frame: object) -> None:
        nonlocal continued
        continued += 1

    with suppress(ValueError):
        signal.signal(signal.SIGCONT, count)
    schedstat = -1
    with suppress(OSError):
        schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def read() -> Own:
        delay = None
        if schedstat >= 0:
            with suppress(OSError, ValueError, IndexError):
                delay = int(os.pread(schedstat, 64, 0).split()[1]) / 1e9
        return Own(time.process_time(), delay, continued)

    return read
