"""Lookups across all processes: file locks, pipe and socket ends, children. Each is made once a capture, when needed.

/proc/locks:

    1: FLOCK  ADVISORY  WRITE 1234 08:01:12345 0 EOF
    1: -> FLOCK  ADVISORY  WRITE 1235 08:01:12345 0 EOF

Further waiters are indented more; all of them wait for the holder with the same number. The pid of an open file
description lock is -1. That of a flock is the process that took it, which may have exited while a child still has the
descriptor: then `lock:` lines in /proc/PID/fdinfo show which process has it open.

The other end of a Unix socket comes from sock_diag(7), that of a local TCP connection from /proc/net/tcp. Both give
inode numbers, which the links in /proc/PID/fd contain.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rogue_hunter.capture.linux.process import Gone, numbers, pinned, read_or
from rogue_hunter.host.linux.parse import Stat

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
"""Numbers of linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h."""

_TCP = re.compile(rb"\s*[0-9]{1,9}: ([0-9A-F]{8,32}:[0-9A-F]{4}) ([0-9A-F]{8,32}:[0-9A-F]{4}) ([0-9A-F]{2}) "
                  rb"\S+ \S+ \S+ +[0-9]{1,10} +[0-9]{1,10} ([0-9]{1,20})")


def parse_unix_diag(data: bytes) -> tuple[dict[int, int], bool]:
    """Messages of one datagram: inode -> inode of the peer, and whether the dump is over."""
    peers: dict[int, int] = {}
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16 or at + length > len(data) or kind in (_NLMSG_DONE, _NLMSG_ERROR):
            return peers, kind in (_NLMSG_DONE, _NLMSG_ERROR)
        if kind == _SOCK_DIAG_BY_FAMILY and length >= 32:
            (inode,) = struct.unpack_from("=I", data, at + 20)
            attribute = at + 32
            while attribute + 4 <= at + length:
                size, name = struct.unpack_from("=HH", data, attribute)
                if size < 4 or attribute + size > at + length:
                    break
                if name == _UNIX_DIAG_PEER and size >= 8:
                    peers[inode] = struct.unpack_from("=I", data, attribute + 4)[0]
                attribute += size + 3 & ~3
        at += length + 3 & ~3
    return peers, False


def unix_peers(timeout_s: float = 1.0) -> dict[int, int]:
    """Inode of every connected Unix socket of this network namespace -> inode of its peer. Empty if the kernel
    does not report them."""
    try:
        with socket.socket(socket.AddressFamily(16), socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(timeout_s)
            every = 0xFFFFFFFF
            body = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, every, 0, _UDIAG_SHOW_PEER, every, every)
            diag.send(struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body)
            peers: dict[int, int] = {}
            # 4,096 datagrams of 32 KiB have room for a million sockets.
            for _ in range(4096):
                found, over = parse_unix_diag(diag.recv(1 << 18))
                peers.update(found)
                if over:
                    break
            return peers
    except (OSError, ValueError, AttributeError):
        return {}


def parse_tcp(data: bytes) -> dict[tuple[bytes, bytes], int]:
    """/proc/net/tcp or tcp6: (local, remote) -> inode of established connections."""
    found: dict[tuple[bytes, bytes], int] = {}
    for line in data.splitlines()[1:]:
        row = _TCP.match(line)
        if row and row.group(3) == b"01":
            found[row.group(1), row.group(2)] = int(row.group(4))
    return found


def tcp_peers(root: Path, pid: int) -> dict[int, int]:
    """Inode of each local end of a TCP connection of the process's network namespace -> inode of the other end,
    if both ends are on this machine."""
    peers: dict[int, int] = {}
    for name in ("tcp", "tcp6"):
        data, _ = read_or(None, root / str(pid) / "net" / name, 1 << 22)
        table = parse_tcp(data)
        for (local, remote), inode in table.items():
            other = table.get((remote, local))
            if other is not None and other != inode:
                peers[inode] = other
    return peers


def inode_of(link: str) -> tuple[str, int] | None:
    """`pipe:[123]` or `socket:[123]` -> kind and inode."""
    kind, _, rest = link.partition(":[")
    number = rest.removesuffix("]")
    if kind in ("pipe", "socket") and number.isascii() and number.isdigit() and len(number) < 20:
        return kind, int(number)
    return None


def descriptors(root: Path, pid: int) -> list[tuple[int, str]]:
    """(descriptor, target of its link) of one process. Raises OSError."""
    found: list[tuple[int, str]] = []
    at = os.open(root / str(pid) / "fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(at):
            try:
                found.append((int(name), os.readlink(name, dir_fd=at)))
            except (OSError, ValueError):
                continue
    finally:
        os.close(at)
    return found


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


def held_files(fdinfo: bytes) -> set[bytes]:
    """The files (major:minor:inode) of which the fdinfo of a descriptor shows that its open file holds a lock."""
    return {word for line in fdinfo.splitlines() if line.startswith(b"lock:") and b"->" not in line
            for word in line.split() if word.count(b":") == 2}


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
    _named: dict[str, list[End]] = field(default_factory=dict)
    _unix: dict[int, int] | None = None
    _tcp: dict[int, dict[int, int]] = field(default_factory=dict)
    _locks: list[LockWait] | None = None
    _holders: dict[str, int | None] = field(default_factory=dict)

    def stats(self) -> dict[int, Stat]:
        """The stat of every process, read at the first call."""
        if self._stats is None:
            self._stats = {}
            for pid in numbers(self.root):
                try:
                    with pinned(self.root, pid) as (_, stat):
                        self._stats[pid] = stat
                except Gone:
                    continue
        return self._stats

    def children(self, pid: int) -> list[int]:
        """Processes whose parent is `pid`, oldest first."""
        mine = [(stat.start, child) for child, stat in self.stats().items() if stat.ppid == pid]
        return [child for _, child in sorted(mine)]

    def locks(self) -> list[LockWait]:
        """All waits for file locks, including holders that only fdinfo names."""
        if self._locks is None:
            data, _ = read_or(None, self.root / "locks", 1 << 22)
            alive = self.stats()
            waits = parse_locks(data)[:1000]
            holders = self.lock_holders({wait.file for wait in waits if wait.holder not in alive})
            self._locks = [wait if wait.holder in alive else wait._replace(holder=holders[wait.file]) for wait in waits]
        return self._locks

    def forget_locks(self) -> None:
        """Read the locks again at the next call."""
        self._locks = None

    def lock_holders(self, files: Collection[str]) -> dict[str, int | None]:
        """The process that has each of these locked files open, by the `lock:` lines of fdinfo; None: not found.

        One search through all processes answers for all files, however many wait for them.
        """
        wanted = {file.encode("ascii", "replace"): file for file in files if file not in self._holders}
        stop = self.clock() + SEARCH_S
        for pid in self.stats() if wanted else ():
            if self.clock() > stop:
                self.incomplete = True
                break
            try:
                names = [entry.name for entry in (self.root / str(pid) / "fdinfo").iterdir()]
            except OSError:
                continue
            for name in names:
                data, how = read_or(None, self.root / str(pid) / "fdinfo" / name, 8192)
                for held in held_files(data) if how == "ok" and b"lock:" in data else ():
                    if held in wanted:
                        self._holders[wanted.pop(held)] = pid
            if not wanted:
                break
        self._holders.update(dict.fromkeys(wanted.values()))
        return {file: self._holders[file] for file in files}

    def ends(self, kind: str, inode: int) -> list[End]:
        """The descriptors of the pipe or socket with this inode."""
        if self._ends is None:
            self._ends = {}
            for pid, number, link in self._descriptors():
                end = inode_of(link)
                if end is not None:
                    self._ends.setdefault(end, []).append((pid, number))
        return self._ends.get((kind, inode), [])

    def pipe_ends(self, name: str) -> list[End]:
        """The descriptors of a pipe: `pipe:[123]`, or the path of a named one."""
        end = inode_of(name)
        if end is not None:
            return self.ends(*end)
        if name not in self._named:
            self._named[name] = [(pid, number) for pid, number, link in self._descriptors() if link == name]
        return self._named[name]

    def _descriptors(self) -> Iterator[tuple[int, int, str]]:
        """(pid, descriptor, target of its link) of every process that may be read, until time is up."""
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
                yield pid, number, link

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
