"""What only the threads of a process show: run delay and switches of all of them, and life after the leader's end."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from rogue_hunter.host.linux.parse import Stat, parse_schedstat, parse_stat, parse_status
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

THREADS_MAX = 32
"""Threads are read only up to this many: 30 us each."""
THREADS_CPU_PERCENT = 0.5
"""And only of a process that uses so much CPU."""
THREADS_EVERY_NS = 1_000_000_000

_LIVELIEST = (b"R", b"D")
_ENDED = (b"Z", b"X", b"x")


class ThreadSums:
    """Sums over the threads of one process. schedstat and status of a process are those of its leader only. A thread
    that ended keeps its part."""

    __slots__ = ("_at_ns", "_by_thread", "_fields", "_sums")

    def __init__(self) -> None:
        self._at_ns = 0
        self._sums = [0, 0, 0]
        self._by_thread: dict[str, _Counters] | None = None
        self._fields: Row = {}

    def add_to(self, row: Row, root: Path, key: Key, now_ns: int) -> None:
        """Add run delay, context switches and wakeups to a row, as measured within the last second. What cannot be read
        of every thread is left out."""
        if self._by_thread is None or now_ns - self._at_ns >= THREADS_EVERY_NS:
            read = _read_threads(f"{root}/{key[0]}/task")
            if not read:
                return
            self._take(read, now_ns)
        row.update(self._fields)

    def _take(self, now: dict[str, _Counters], now_ns: int) -> None:
        before, seconds = self._by_thread, (now_ns - self._at_ns) / 1e9
        self._fields = {}
        for i, (total, total_scale, rate, rate_scale, digits) in enumerate(_FIELDS):
            grown = 0
            for tid, counters in now.items():
                value, then = counters[i], None if before is None else before.get(tid, (0, 0, 0))[i]
                if value is None:
                    break
                grown += max(0, value - (then or 0))
            else:
                self._sums[i] += grown
                self._fields[total] = round(self._sums[i] * total_scale, 6) if total_scale < 1 else self._sums[i]
                if before is not None and all(counters[i] is not None for counters in before.values()):
                    self._fields[rate] = round(grown * rate_scale / seconds, digits)
        self._by_thread, self._at_ns = now, now_ns


_Counters = tuple[int | None, int | None, int | None]
"""ns ready to run but waiting, all context switches, voluntary ones; None for what cannot be read."""

_FIELDS = (("run_delay_seconds_total", 1e-9, "run_delay_ms_per_s", 1e-6, 2),
           ("context_switches_total", 1, "context_switches_per_s", 1, 1),
           ("wakeups_total", 1, "wakeups_per_s", 1, 1))
"""For each counter the field of its sum, with its factor, and of its rate, with factor and digits."""


def _read_threads(folder: str) -> dict[str, _Counters]:
    """The counters of every thread; empty when one ended while they were read."""
    found: dict[str, _Counters] = {}
    try:
        for tid in os.listdir(folder):
            waited_ns = switches = voluntary = None
            data = _optional(f"{folder}/{tid}/schedstat", 64)
            if data:
                waited_ns = parse_schedstat(data)[1]
            data = _optional(f"{folder}/{tid}/status", 4096)
            if data:
                status = parse_status(data)
                voluntary = status.voluntary
                if voluntary is not None and status.involuntary is not None:
                    switches = voluntary + status.involuntary
            if waited_ns is None and switches is None:
                return {}
            found[tid] = waited_ns, switches, voluntary
    except (OSError, ValueError):
        return {}
    return found


def _optional(path: str, size: int) -> bytes:
    """The first bytes of a file; empty where it does not exist: a kernel may lack it."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(size)
    except FileNotFoundError:
        return b""


def live_thread(root: Path, pid: int) -> tuple[str, Stat] | None:
    """A thread of a process whose leader has ended, and its stat: one that runs, else one in an uninterruptible wait,
    else any. None when all have ended or none can be read.

    The leader of such a process is a zombie without memory, program and arguments; its threads still have them.
    """
    found: tuple[str, Stat] | None = None
    try:
        for tid in islice(os.listdir(f"{root}/{pid}/task"), THREADS_MAX):
            try:
                with open(f"{root}/{pid}/task/{tid}/stat", "rb", buffering=0) as file:
                    stat = parse_stat(file.read(1024))
            except (OSError, ValueError):
                continue
            if stat.state == b"R":
                return tid, stat
            if stat.state not in _ENDED and (found is None or stat.state in _LIVELIEST):
                found = tid, stat
    except OSError:
        return None
    return found
