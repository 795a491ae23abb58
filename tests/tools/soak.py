"""A small machine whose clock is handed in, so that hours of ticks pass in seconds, and what this process holds."""

from __future__ import annotations

import gc
import os
import random
import sys
from pathlib import Path

from rogue_hunter.host.protocol import Facts, Snapshot
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.clock import Clock
from rogue_hunter.stream.tick import Row

BOOT = "0b00710d-0000-4000-8000-000000000001"


class FastHost:
    """A machine of twelve processes: most sleep, one burns a core for a minute now and then, some die and are replaced
    under the same pid."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._random = random.Random(11)
        self._rows: dict[Key, Row] = {}
        self._started = 0
        self._tick = 0
        self._burning: Key | None = None
        for pid in range(100, 112):
            self._begin(pid)

    def _begin(self, pid: int) -> Key:
        self._started += 1
        key = pid, self._started
        self._rows[key] = {"pid": pid, "start_ticks": self._started, "start_time": self._clock.wall(), "ppid": 1,
                           "uid": 1000, "command": f"p{pid}", "state": "sleeping", "threads": 1,
                           "cpu_seconds_total": 0.0, "cpu_percent": 0.0, "memory_bytes": 1 << 22,
                           "disk_bytes_per_s": 0.0, "wakeups_per_s": 0.0, "context_switches_per_s": 0.0}
        return key

    def facts(self) -> Facts:
        """Always the same."""
        return Facts("linux", "soak", BOOT, 4, 8 << 30)

    def snapshot(self) -> Snapshot:
        """The next moment."""
        self._tick += 1
        before, r = dict(self._rows), self._random
        exited: tuple[Key, ...] = ()
        phase = self._tick % 1500
        if phase == 1:
            self._burning = r.choice(list(self._rows))
        if phase == 181 and self._burning in self._rows:
            self._rows[self._burning] = {**self._rows[self._burning], "cpu_percent": 0.0, "state": "sleeping"}
            self._burning = None
        if self._burning in self._rows:
            row = self._rows[self._burning]
            self._rows[self._burning] = {**row, "cpu_percent": 90.0 + r.random() * 10, "state": "running",
                                         "cpu_seconds_total": row["cpu_seconds_total"] + 0.33}
        if self._tick % 200 == 0:
            gone = r.choice(list(self._rows))
            exited = (gone,)
            del self._rows[gone]
            self._begin(gone[0])
        changed = {key for key, row in self._rows.items() if before.get(key) is not row}
        return Snapshot(self._clock.mono(), dict(self._rows), changed, exited, len(exited), len(changed), cpu_cores=0.5,
                        machine={"cpu_busy_cores": 0.5, "memory_available_bytes": 6 << 30})

    def close(self) -> None:
        """Nothing to give back."""


def memory() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    if sys.platform != "linux":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
