"""Lookups across all processes: locks, pipe and socket ends, children. Each is made once a capture, when needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rogue_hunter.capture.linux.locks import LockWait, holds, parse_locks
from rogue_hunter.capture.linux.read import Gone, pinned, read_or
from rogue_hunter.capture.linux.sockets import descriptors, inode_of, tcp_peers, unix_peers
from rogue_hunter.host.linux.parse import Stat

SEARCH_S = 1.0
"""Seconds for the search through the descriptors of all processes: 1,000 processes with 20 each take 0.1 s."""

End = tuple[int, int]
"""(pid, descriptor)"""


@dataclass(slots=True)
class Index:
    """Lookups of one capture. `incomplete` is True once a search ran out of time or was denied for a process."""

    root: Path
    clock: Callable[[], float] = time.monotonic
    incomplete: bool = False
    _stats: dict[int, Stat] | None = None
    _ends: dict[tuple[str, int], list[End]] | None = None
    _unix: dict[int, int] | None = None
    _tcp: dict[int, dict[int, int]] = field(default_factory=dict)
    _locks: list[LockWait] | None = None

    def stats(self) -> dict[int, Stat]:
        """The stat of every process, read at the first call."""
        if self._stats is None:
            self._stats = {}
            for pid in self._pids():
                try:
                    with pinned(self.root, pid) as (_, stat):
                        self._stats[pid] = stat
                except Gone:
                    continue
        return self._stats

    def _pids(self) -> list[int]:
        try:
            return sorted(int(entry.name) for entry in self.root.iterdir() if entry.name.isdigit())
        except OSError:
            return []

    def children(self, pid: int) -> list[int]:
        """Processes whose parent is `pid`, oldest first."""
        mine = [(stat.start, child) for child, stat in self.stats().items() if stat.ppid == pid]
        return [child for _, child in sorted(mine)]

    def locks(self) -> list[LockWait]:
        """All waits for file locks, including holders that only fdinfo names."""
        if self._locks is None:
            data, _ = read_or(None, self.root / "locks", 1 << 22)
            alive = self.stats()
            self._locks = [wait if wait.holder in alive else wait._replace(holder=self._lock_holder(wait))
                           for wait in parse_locks(data)[:1000]]
        return self._locks

    def forget_locks(self) -> None:
        """Read the locks again at the next call."""
        self._locks = None

    def _lock_holder(self, wait: LockWait) -> int | None:
        """The process that has the locked file open, by the `lock:` lines of fdinfo."""
        stop = self.clock() + SEARCH_S
        for pid in self.stats():
            if self.clock() > stop:
                self.incomplete = True
                break
            if pid == wait.waiter:
                continue
            try:
                names = [entry.name for entry in (self.root / str(pid) / "fdinfo").iterdir()]
            except OSError:
                continue
            for name in names:
                data, how = read_or(None, self.root / str(pid) / "fdinfo" / name, 8192)
                if how == "ok" and b"\nlock:" in data and holds(data, wait.file):
                    return pid
        return None

    def ends(self, kind: str, inode: int) -> list[End]:
        """The descriptors of the pipe or socket with this inode."""
        if self._ends is None:
            self._ends = self._all_ends()
        return self._ends.get((kind, inode), [])

    def _all_ends(self) -> dict[tuple[str, int], list[End]]:
        found: dict[tuple[str, int], list[End]] = {}
        stop = self.clock() + SEARCH_S
        for pid in self.stats():
            if self.clock() > stop:
                self.incomplete = True
                break
            try:
                links = descriptors(self.root, pid)
            except PermissionError:
                self.incomplete = True
                continue
            except OSError:
                continue
            for number, link in links:
                end = inode_of(link)
                if end is not None:
                    found.setdefault(end, []).append((pid, number))
        return found

    def socket_peer(self, pid: int, inode: int) -> int | None:
        """Inode of the other end of a socket that `pid` has open."""
        if self._unix is None:
            self._unix = unix_peers()
        if inode in self._unix:
            return self._unix[inode]
        if pid not in self._tcp:
            self._tcp[pid] = tcp_peers(self.root, pid)
        return self._tcp[pid].get(inode)

    def thread_owner(self, tid: int) -> int | None:
        """The process that a thread belongs to. /proc/TID exists for threads, though it is not listed."""
        data, _ = read_or(None, self.root / str(tid) / "status", 4096)
        for line in data.splitlines():
            if line.startswith(b"Tgid:"):
                number = line[5:].strip()
                return int(number) if number.isdigit() and len(number) < 11 else None
        return None
