"""Parse /proc/locks: the holder of each file lock and the processes that wait for it.

    1: FLOCK  ADVISORY  WRITE 1234 08:01:12345 0 EOF
    1: -> FLOCK  ADVISORY  WRITE 1235 08:01:12345 0 EOF

Further waiters are indented more; all of them wait for the holder with the same number. The pid of an open file
description lock is -1. That of a flock is the process that took it, which may have exited while a child still has the
descriptor: then `lock:` lines in /proc/PID/fdinfo show which process has it open.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(rb"\s*([0-9]{1,18}):\s*(->)?\s*(?:->\s*)*([A-Z]{1,16})\s+([A-Z*]{1,16})\s+([A-Z]{1,16})\s+"
                   rb"(-?[0-9]{1,10})\s+(<none>|[0-9a-fA-F]{1,8}:[0-9a-fA-F]{1,8}:[0-9]{1,20})")

KINDS = {b"FLOCK": "flock", b"POSIX": "posix lock", b"OFDLCK": "ofd lock", b"LEASE": "lease", b"DELEG": "delegation"}


class LockWait(NamedTuple):
    """One waiter. `holder` is None where the kernel gives no pid; `file` is major:minor:inode, hexadecimal numbers
    of the device and a decimal inode, as printed."""

    kind: str
    mode: str
    waiter: int
    holder: int | None
    file: str


def parse_locks(data: bytes) -> list[LockWait]:
    """All processes that wait for a file lock."""
    waits: list[LockWait] = []
    holders: dict[bytes, int] = {}
    for line in data.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        number, arrow, kind, _, mode, pid, file = found.groups()
        if arrow is None:
            holders[number] = int(pid)
        elif int(pid) > 0:
            holder = holders.get(number, -1)
            waits.append(LockWait(KINDS.get(kind, kind.decode("ascii").lower()), mode.decode("ascii").lower(), int(pid),
                                  holder if holder > 0 else None, file.decode("ascii")))
    return waits


_SQLITE = re.compile(rb"[0-9]{1,18}:\s+POSIX\s+ADVISORY\s+WRITE\s+([0-9]{1,10})\s+(\S{1,40})\s+([0-9]{1,20})"
                     rb"\s+([0-9]{1,20})\s*$")
_RESERVED, _WAL_WRITE = (1073741825, 1073741825), (120, 120)
"""Ranges that a writer of SQLite locks: the reserved byte of the database, or the write lock of its -shm file in WAL
mode (sqlite.org/fileformat2.html, sqlite.org/walformat.html)."""


def sqlite_writers(data: bytes) -> list[tuple[int, str]]:
    """Processes that have a SQLite database locked for writing, and the locked file as in LockWait. Others wait for it
    without a lock that the kernel knows of: they try again after a sleep."""
    found = []
    for line in data.splitlines():
        match = _SQLITE.match(line)
        if match and (int(match[3]), int(match[4])) in (_RESERVED, _WAL_WRITE):
            found.append((int(match[1]), match[2].decode("ascii", "replace")))
    return found


def holds(fdinfo: bytes, file: str) -> bool:
    """True when the fdinfo of a descriptor shows that its open file holds a lock on `file`."""
    wanted = file.encode("ascii", "replace")
    for line in fdinfo.splitlines():
        if line.startswith(b"lock:") and b"->" not in line and wanted in line.split():
            return True
    return False
