"""Run delay of a process of several threads: schedstat tells that of one thread, so it is summed over all."""

from __future__ import annotations

import os
from pathlib import Path

from rogue_hunter.host.linux.parse import parse_schedstat
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

DELAY_THREADS = 32
"""Run delay of threads is summed over task/*/schedstat only up to this many threads: 12 us each."""
DELAY_CPU_PERCENT = 1.0
"""And only of a process that uses so much."""
DELAY_EVERY_NS = 1_000_000_000


class ThreadDelay:
    """The sum for one process. A thread that ended keeps its part."""

    __slots__ = ("_at_ns", "_by_thread", "_ns", "_rate")

    def __init__(self) -> None:
        self._ns = self._at_ns = 0
        self._by_thread: dict[str, int] | None = None
        self._rate: float | None = None

    def tell(self, row: Row, root: Path, key: Key, now_ns: int) -> None:
        """Add run_delay_seconds_total and run_delay_ms_per_s to a row. What was measured last stands until it is
        measured again, within a second; nothing is added when it cannot be."""
        if (self._by_thread is None or now_ns - self._at_ns >= DELAY_EVERY_NS) and not self._measure(root, key, now_ns):
            return
        row["run_delay_seconds_total"] = round(self._ns / 1e9, 6)
        if self._rate is not None:
            row["run_delay_ms_per_s"] = self._rate

    def _measure(self, root: Path, key: Key, now_ns: int) -> bool:
        base = root / str(key[0]) / "task"
        before, now = self._by_thread, dict[str, int]()
        try:
            for tid in os.listdir(base):
                with open(base / tid / "schedstat", "rb", buffering=0) as file:
                    now[tid] = parse_schedstat(file.read(64))[1]
        except (OSError, ValueError):
            return False
        grown = sum(max(0, ns - (before or {}).get(tid, 0)) for tid, ns in now.items())
        self._ns += grown
        if before is not None:
            self._rate = round(grown / 1e6 / ((now_ns - self._at_ns) / 1e9), 2)
        self._by_thread, self._at_ns = now, now_ns
        return True
