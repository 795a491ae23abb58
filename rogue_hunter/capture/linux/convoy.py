"""Find processes that wait for a mutex held by another process; unlike file locks, the kernel does not list them.

The wait channel of every thread is read, which takes no lock. Of threads that sleep in a futex, the system call is
read, and the futex word if it is shared between processes. Private mutexes, as of a thread pool, are skipped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from rogue_hunter.capture.linux import futex
from rogue_hunter.capture.linux.read import Late, bounded, read_or
from rogue_hunter.capture.linux.syscalls import parse_syscall
from rogue_hunter.host.linux.parse import PF_KTHREAD, Stat

SEARCH_S = 0.3
"""Seconds for the whole search. A thread takes 20 us, one that sleeps in a futex 60."""
MAX_THREADS = 64
"""Threads of one process that are read."""

_WORDS = (b"futex", b"rt_mutex", b"rtmutex")

MutexWait = tuple[int, int]
"""(pid of the process that waits, thread id of the holder as the kernel numbers it)"""


def mutex_waits(root: Path, stats: Iterable[tuple[int, Stat]], machine: str,
                clock: Callable[[], float] = time.monotonic, seconds: float = SEARCH_S) -> list[MutexWait]:
    """Waits for a mutex that a thread of another process holds, as many as can be found within `seconds`."""
    found: list[MutexWait] = []
    stop = clock() + seconds

    def search() -> None:
        namespace = _namespace(root, "self")
        for pid, stat in stats:
            if clock() > stop:
                return
            if stat.flags & PF_KTHREAD or stat.state not in (b"S", b"D"):
                continue
            tids = _tids(root, pid) if stat.threads > 1 else [pid]
            for tid in tids[:MAX_THREADS]:
                owner = _owner(root, pid, tid, machine)
                if owner is not None and owner not in tids and _namespace(root, pid) == namespace:
                    found.append((pid, owner))

    # Reading a system call or memory blocks while the process has its memory map locked: return what was found
    # so far.
    with suppress(Late, OSError):
        bounded(search, 2 * seconds)
    return list(found)


def _owner(root: Path, pid: int, tid: int, machine: str) -> int | None:
    at = root / str(pid) / "task" / str(tid)
    channel, _ = read_or(None, at / "wchan", 256)
    if not any(word in channel for word in _WORDS):
        return None
    call = parse_syscall(read_or(None, at / "syscall", 256)[0], machine)
    where = futex.address(call) if call is not None else None
    if where is None:
        return None
    try:
        owner = futex.owner(where[1], futex.read_memory(root, pid, where[0]))
    except OSError:
        return None
    return owner.tid if owner is not None and owner.shared and owner.tid != tid else None


def _tids(root: Path, pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(root / str(pid) / "task") if name.isdigit())
    except OSError:
        return []


def _namespace(root: Path, pid: int | str) -> str | None:
    try:
        return os.readlink(root / str(pid) / "ns" / "pid")
    except OSError:
        return None
