"""A cheap look at processes that wait for another one without using anything: file locks, pipes, tracers, freezers.

Unlike a capture, which reads every thread of a few processes, this reads /proc/locks once and then two small files of
each process that may be waiting. What a wait channel means is in the kernel's sources under the function's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
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


def look(root: Path, candidates: Iterable[Key], cgroups: Cgroups | None = None) -> list[Seen]:
    """The waits of `candidates`, and all waits for file locks.

    Never raises: a process that has ended, or may not be read, gives nothing.
    """
    index, trees = Index(root), cgroups or Cgroups(root)
    found = _file_locks(root, index)
    pipes: dict[int, list[int]] = {}
    for key in candidates:
        pid, state = key[0], _state(root, key)
        if state == "t" and (tracer := _tracer(root, pid)):
            found.append(Seen("traced", None, tracer, (pid,)))
        if state not in ("S", "D"):
            continue
        channel = _text(root / str(pid) / "wchan")
        # From Linux 6.1 on a process frozen by version 1 shows state D and the wait channel that it was frozen in.
        if (state == "D" or channel in FREEZERS) and (frozen := next(filter(trees.frozen, trees.groups(pid)), None)):
            found.append(Seen("frozen", frozen.path, None, (pid,)))
        elif channel in FANOTIFY:
            found.append(Seen("fanotify", None, fanotify_listener(root), (pid,), "guessed"))
        elif channel in PIPE_WRITES:
            inode = _full_pipe(root, pid)
            if inode is not None:
                pipes.setdefault(inode, []).append(pid)
        elif state == "D":
            found.append(Seen("uninterruptible", channel or None, None, (pid,)))
    for inode, writers in pipes.items():
        readers = sorted({pid for pid, fd in index.ends("pipe", inode) if _reads(root, pid, fd)} - set(writers))
        for reader in readers[:1]:
            found.append(Seen("pipe", f"pipe:[{inode}]", reader, tuple(writers[:WAITERS_MAX]),
                              "proven" if len(readers) == 1 and not index.incomplete else "guessed"))
    return [one if one.holder is None else
            one._replace(holder_state=STATES.get((_state(root, one.holder) or "").encode())) for one in found]


def _file_locks(root: Path, index: Index) -> list[Seen]:
    data, _ = read_or(None, root / "locks", 1 << 20)
    if b"->" not in data:
        return []
    waiting: dict[tuple[str, int | None], list[int]] = {}
    for wait in parse_locks(data):
        waiting.setdefault((wait.file, wait.holder), []).append(wait.waiter)
    found = []
    for (file, holder), waiters in waiting.items():
        if holder is None or not (root / str(holder)).exists():
            holder = next((wait.holder for wait in index.locks() if wait.file == file and wait.holder), None)
        path = next((name for pid in waiters if (name := path_of(root, pid, file))), None)
        found.append(Seen("file_lock", path or f"inode {file}", holder, tuple(waiters[:WAITERS_MAX])))
    return found


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
