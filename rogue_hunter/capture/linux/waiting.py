"""A cheap look at processes that wait for another one without using anything: file locks, pipes, tracers, freezers.

Unlike a capture, which reads every thread of a few processes, this reads /proc/locks once and then two small files of
each process that may be waiting. What a wait channel means is in the kernel's sources under the function's name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rogue_hunter.capture.linux.locks import parse_locks
from rogue_hunter.capture.linux.lookups import Index
from rogue_hunter.capture.linux.read import read_or
from rogue_hunter.capture.linux.sockets import descriptors, inode_of
from rogue_hunter.capture.linux.waits import FREEZERS
from rogue_hunter.host.linux.cgroups import Cgroups
from rogue_hunter.host.linux.parse import STATES, parse_stat
from rogue_hunter.schema.field import Key

PIPE_WRITES = frozenset(("pipe_write", "anon_pipe_write", "fifo_pipe_write"))
"""Wait channels of a writer whose pipe is full. A reader of an empty pipe just waits for work: that is no trouble."""

FANOTIFY = frozenset(("fanotify_handle_event", "fanotify_get_response"))
"""Wait channels of an access that a permission listener has not answered yet."""

SEARCH_AGAIN_S = 30.0
"""Seconds for which the result of a search counts. A search reads the open files of all processes: 0.1 s of 1,000."""

WAITERS_MAX = 50
"""Waiters named in one record; a lock with more is described by these."""


class Seen(NamedTuple):
    """One wait: its kind, what is waited for, who holds it (a pid, or None) with its state, and who waits."""

    kind: str
    object: str | None
    holder: int | None
    waiters: tuple[int, ...]
    certainty: str = "proven"
    holder_state: str | None = None


class Looker:
    """Looks at waits. Never raises: a process that has ended, or may not be read, gives nothing.

    The holder of some waits is found only by reading the open files of every process. That is done for one wait a look,
    and its result counts for SEARCH_AGAIN_S; a wait that was not searched for yet has no holder.
    """

    def __init__(self, root: Path = Path("/proc"), cgroups: Cgroups | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._cgroups = cgroups or Cgroups(root)
        self._clock = clock
        self._found: dict[str, tuple[float, int | None, str]] = {}
        """What is waited for -> when it was searched for, its holder, and how certain that is."""
        self._may_search = True

    def __call__(self, candidates: Iterable[Key]) -> list[Seen]:
        """The waits of `candidates`, and all waits for file locks."""
        root, self._may_search = self._root, True
        found = self._file_locks()
        pipes: dict[int, list[int]] = {}
        for key in candidates:
            pid, state = key[0], _state(root, key)
            if state == "t" and (tracer := _tracer(root, pid)):
                found.append(Seen("traced", None, tracer, (pid,)))
            if state not in ("S", "D"):
                continue
            channel = _text(root / str(pid) / "wchan")
            # From Linux 6.1 on a process frozen by version 1 shows state D and the wait channel that it was frozen in.
            if (state == "D" or channel in FREEZERS) and (frozen := self._frozen(pid)):
                found.append(Seen("frozen", frozen, None, (pid,)))
            elif channel in FANOTIFY:
                listener, _ = self._search("fanotify", lambda: (fanotify_listener(root), "guessed"))
                found.append(Seen("fanotify", None, listener, (pid,), "guessed"))
            elif channel in PIPE_WRITES and (inode := _full_pipe(root, pid)) is not None:
                pipes.setdefault(inode, []).append(pid)
            elif state == "D":
                found.append(Seen("uninterruptible", channel or None, None, (pid,)))
        for inode, writers in pipes.items():
            name = f"pipe:[{inode}]"
            reader, certainty = self._search(name, lambda i=inode, w=writers: _reader(root, i, w))  # type: ignore[misc]
            if reader is not None:
                found.append(Seen("pipe", name, reader, tuple(writers[:WAITERS_MAX]), certainty))
        now = self._clock()
        self._found = {what: known for what, known in self._found.items() if now - known[0] < SEARCH_AGAIN_S}
        return [one if one.holder is None else
                one._replace(holder_state=STATES.get((_state(root, one.holder) or "").encode())) for one in found]

    def _search(self, what: str, search: Callable[[], tuple[int | None, str]]) -> tuple[int | None, str]:
        """The holder of `what` and how certain that is: as found lately, else by `search`."""
        known = self._found.get(what)
        if known is None and self._may_search:
            self._may_search = False
            known = self._found[what] = self._clock(), *search()
        return (None, "guessed") if known is None else known[1:]

    def _frozen(self, pid: int) -> str | None:
        """The path of the frozen control group that a process is in."""
        return next((group.path for group in self._cgroups.groups(pid) if self._cgroups.frozen(group)), None)

    def _file_locks(self) -> list[Seen]:
        root = self._root
        data, _ = read_or(None, root / "locks", 1 << 20)
        if b"->" not in data:
            return []
        waiting: dict[tuple[str, int | None], list[int]] = {}
        for wait in parse_locks(data):
            waiting.setdefault((wait.file, wait.holder), []).append(wait.waiter)
        found = []
        for (file, holder), waiters in waiting.items():
            if holder is None or not (root / str(holder)).exists():
                # The process that took it has ended, but not a child that has the file open.
                holder, _ = self._search(f"lock {file}", lambda f=file: (_lock_holder(root, f), "proven"))  # type: ignore[misc]
            path = next((name for pid in waiters if (name := path_of(root, pid, file))), None)
            found.append(Seen("file_lock", path or f"inode {file}", holder, tuple(waiters[:WAITERS_MAX])))
        return found


def _lock_holder(root: Path, file: str) -> int | None:
    return next((wait.holder for wait in Index(root).locks() if wait.file == file and wait.holder), None)


def _reader(root: Path, inode: int, writers: list[int]) -> tuple[int | None, str]:
    """A process that has the pipe open for reading, and whether it is the only one."""
    index = Index(root)
    readers = sorted({pid for pid, fd in index.ends("pipe", inode) if _reads(root, pid, fd)} - set(writers))
    return readers[0] if readers else None, "proven" if len(readers) == 1 and not index.incomplete else "guessed"


def path_of(root: Path, pid: int, file: str) -> str | None:
    """The path of a locked file (`major:minor:inode`, the first two hexadecimal) among the open files of `pid`."""
    try:
        major, minor, inode = file.split(":")
        wanted = os.makedev(int(major, 16), int(minor, 16)), int(inode)
        names = os.listdir(root / str(pid) / "fd")
    except (OSError, ValueError):
        return None
    for name in names:
        with suppress(OSError):
            status = os.stat(root / str(pid) / "fd" / name)
            if status.st_ino == wanted[1]:
                link = os.readlink(root / str(pid) / "fd" / name)
                # The device of a file on btrfs or overlayfs is not the one that /proc/locks prints: the inode decides.
                if link.startswith("/"):
                    return link
    return None


def _full_pipe(root: Path, pid: int) -> int | None:
    """The pipe that a process writes to, by its system call where that may be read, else its only pipe for writing."""
    call, _ = read_or(None, root / str(pid) / "syscall", 256)
    words = call.split()
    try:
        links = descriptors(root, pid)
    except OSError:
        return None
    pipes = {number: end[1] for number, link in links if (end := inode_of(link)) is not None and end[0] == "pipe"}
    if len(words) > 1 and words[1].startswith(b"0x"):
        with suppress(ValueError):
            return pipes.get(int(words[1], 16) & 0xFFFFFFFF)
    writing = {inode for number, inode in pipes.items() if _mode(root, pid, number) == os.O_WRONLY}
    return writing.pop() if len(writing) == 1 else None


def _reads(root: Path, pid: int, number: int) -> bool:
    return _mode(root, pid, number) in (os.O_RDONLY, os.O_RDWR)


def _mode(root: Path, pid: int, number: int) -> int | None:
    """O_RDONLY, O_WRONLY or O_RDWR of a descriptor; None when it cannot be read."""
    data, _ = read_or(None, root / str(pid) / "fdinfo" / str(number), 4096)
    for line in data.splitlines():
        if line.startswith(b"flags:"):
            with suppress(ValueError):
                return int(line[6:].strip(), 8) & os.O_ACCMODE
    return None


def _tracer(root: Path, pid: int) -> int | None:
    """The process that traces `pid`; None without one."""
    data, _ = read_or(None, root / str(pid) / "status", 4096)
    for line in data.splitlines():
        if line.startswith(b"TracerPid:"):
            number = line[10:].strip()
            return int(number) or None if number.isdigit() else None
    return None


def _state(root: Path, process: Key | int) -> str | None:
    """The state letter of a process; None when it has ended or may not be read."""
    pid = process if isinstance(process, int) else process[0]
    data, how = read_or(None, root / str(pid) / "stat", 4096)
    if how == "ok":
        with suppress(ValueError):
            stat = parse_stat(data)
            if isinstance(process, int) or stat.start == process[1]:
                return stat.state.decode()
    return None


def fanotify_listener(root: Path) -> int | None:
    """The only process with a fanotify descriptor; None when there are several, or none may be seen."""
    found = set()
    try:
        pids = [name for name in os.listdir(root) if name.isdigit()]
    except OSError:
        return None
    for pid in pids:
        try:
            links = descriptors(root, int(pid))
        except OSError:
            continue
        if any("fanotify" in link for _, link in links):
            found.add(int(pid))
    return found.pop() if len(found) == 1 else None


def _text(file: Path) -> str:
    data, _ = read_or(None, file, 256)
    return data.decode("ascii", "backslashreplace").strip()
