"""A cheap look at processes that wait for another one without using anything: file locks, pipes, tracers, freezers.

Unlike a capture, which reads every thread of a few processes, this reads /proc/locks once and then two small files of
each process that may be waiting. What a wait channel means is in the kernel's sources under the function's name.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rogue_hunter.capture.linux.lookups import Index, descriptors, inode_of, parse_locks, sqlite_writers
from rogue_hunter.capture.linux.process import parse_syscall, read_or
from rogue_hunter.capture.linux.waits import FREEZERS
from rogue_hunter.host.linux.cgroups import Cgroups
from rogue_hunter.host.linux.parse import STATES, Stat, parse_stat
from rogue_hunter.schema.field import Key

PIPE_WRITES = frozenset(("pipe_write", "anon_pipe_write", "fifo_pipe_write"))
"""Wait channels of a writer whose pipe is full. A reader of an empty pipe just waits for work: that is no trouble."""

FANOTIFY = frozenset(("fanotify_handle_event", "fanotify_get_response"))
"""Wait channels of an access that a permission listener has not answered yet."""

PEER_WAITS = PIPE_WRITES | frozenset((
    "pipe_read", "anon_pipe_read", "fifo_pipe_read", "unix_stream_read_generic", "unix_stream_data_wait",
    "__skb_wait_for_more_packets", "sock_alloc_send_pskb", "unix_wait_for_peer", "wait_woken", "sk_wait_data",
    "sk_stream_wait_memory"))
"""Wait channels of a process that waits for the other end of a pipe or socket. A server that waits for events of many
is not among them."""

TERMINAL_WAITS = frozenset(("wait_woken", "n_tty_read", "do_poll", "do_select", "poll_schedule_timeout",
                            "do_sys_poll"))
"""Wait channels of a process that waits for input. One with a terminal, such as a pager, waits for a person, and the
writer behind it just has more to show."""

SLEEPS = frozenset(("hrtimer_nanosleep", "do_nanosleep", "common_nsleep"))
"""Wait channels of a process that sleeps for a time, as between two attempts to lock a SQLite database."""

CROWD = 8
"""Threads from which a busy process is asked whether they wait for one lock."""
SAMPLE = 16
"""Threads of it that are read, at 30 us each."""
CONTENDED = 4
"""Of those, so many that wait for the same lock in memory are a queue for it."""

SEARCH_AGAIN_S = 30.0
"""Seconds for which the result of a search counts. A search reads the open files of all processes: 0.1 s of 1,000."""
SEARCH_PART = 0.02
"""Part of a core that searches may use: after one that took 0.1 s of CPU time, the next begins 5 s later."""
LOCKS_MAX = 20
"""Locked files of one look, those with most waiters."""
PATHS_MAX = 3
"""Waiters whose open files are read for the path of a lock."""

STEPS = "system calls"
"""What a traced process that runs waits for: it stops at each of them until its tracer has looked, as under strace."""

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

    The holder of some waits is found only by reading the open files of every process. One search answers for all
    waits of a look, its results count for SEARCH_AGAIN_S, and searches use SEARCH_PART of a core, however many
    processes wait; a wait that was not searched for yet has no holder. `cpu` is the CPU time of the thread that looks,
    in seconds.
    """

    def __init__(self, root: Path = Path("/proc"), cgroups: Cgroups | None = None,
                 clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.thread_time) -> None:
        self._root = root
        self._cgroups = cgroups or Cgroups(root)
        self._clock, self._cpu = clock, cpu
        self._found: dict[str, tuple[float, int | None, str]] = {}
        """What is waited for -> when it was searched for, its holder, and how certain that is."""
        self._peers: dict[int, tuple[float, tuple[int, ...]]] = {}
        """A stopped process -> when its peers were searched for, and which they are."""
        self._search_at = -math.inf
        self._searched = False
        self._index: Index | None = None
        """What this look finds by searching; None if it may not search."""

    def __call__(self, candidates: Iterable[Key], busiest: Key | None = None,
                 restless: Collection[Key] = ()) -> list[Seen]:
        """The waits of `candidates`, all waits for file locks, those of the threads of `busiest` for each other, and
        those of `restless`, which run and stop all the time, for a tracer."""
        root, began = self._root, self._cpu()
        self._searched = False
        self._index = index = Index(root) if self._clock() >= self._search_at else None
        found = self._file_locks()
        pipes: dict[str, list[int]] = {}
        asleep: list[int] = []
        found += [Seen("traced", STEPS, tracer, (pid,)) for pid, _ in restless if (tracer := _tracer(root, pid))]
        for key in candidates:
            pid, state = key[0], _state(root, key)
            if state == "t" and key not in restless and (tracer := _tracer(root, pid)):
                found.append(Seen("traced", None, tracer, (pid,)))
            elif state == "T" and (waiters := self._waiters_for(pid)):
                found.append(Seen("stopped", None, pid, waiters))
            if state not in ("S", "D"):
                continue
            channel = _text(f"{root}/{pid}/wchan")
            # From Linux 6.1 on a process frozen by version 1 shows state D and the wait channel that it was frozen in.
            if (state == "D" or channel in FREEZERS) and (frozen := self._frozen(pid)):
                found.append(Seen("frozen", frozen, None, (pid,)))
            elif channel in FANOTIFY:
                listener, _ = self._search("fanotify", lambda _: (fanotify_listener(root), "guessed"))
                found.append(Seen("fanotify", None, listener, (pid,), "guessed"))
            elif channel in PIPE_WRITES and (pipe := _full_pipe(root, pid)) is not None:
                pipes.setdefault(pipe, []).append(pid)
            elif state == "D":
                found.append(Seen("uninterruptible", channel or None, None, (pid,)))
            elif channel in SLEEPS:
                asleep.append(pid)
        for name, writers in pipes.items():
            reader, certainty = self._search(name, lambda index, n=name, w=writers: _reader(index, n, w))  # type: ignore[misc]
            if reader is not None and not _awaits_input(root, reader):
                found.append(Seen("pipe", name, reader, tuple(writers[:WAITERS_MAX]), certainty))
        found += self._databases(asleep)
        if busiest is not None and contended(root, busiest[0], os.uname().machine):
            found.append(Seen("mutex", "one lock of its threads", busiest[0], (busiest[0],)))
        now = self._clock()
        self._found = {what: known for what, known in self._found.items() if now - known[0] < SEARCH_AGAIN_S}
        if index is not None and self._searched:
            self._search_at = now + (self._cpu() - began) / SEARCH_PART
        return [one if one.holder is None else
                one._replace(holder_state=STATES.get((_state(root, one.holder) or "").encode()))
                for one in _merged(found)]

    def _waiters_for(self, pid: int) -> tuple[int, ...]:
        """Processes that wait for a stopped one: its parent, if that waits for nothing else, and the other ends of its
        pipes and sockets."""
        stat = _stat(self._root, pid)
        parent = stat.ppid if stat is not None else 0
        found = {parent} if parent > 1 and _text(f"{self._root}/{parent}/wchan") == "do_wait" else set()
        known = self._peers.get(pid)
        now = self._clock()
        if (known is None or now - known[0] >= SEARCH_AGAIN_S) and self._index is not None:
            self._searched = True
            self._peers = {p: peers for p, peers in self._peers.items() if now - peers[0] < SEARCH_AGAIN_S}
            known = self._peers[pid] = now, _peers(self._index, pid)
        for other in known[1][:WAITERS_MAX] if known is not None else ():
            if _state(self._root, other) in ("S", "D") and _text(f"{self._root}/{other}/wchan") in PEER_WAITS:
                found.add(other)
        return tuple(sorted(found))[:WAITERS_MAX]

    def _databases(self, asleep: list[int]) -> list[Seen]:
        """Processes that sleep and have a SQLite database open that another one has locked for writing."""
        if not asleep:
            return []
        found = []
        for holder, file in sqlite_writers(read_or(None, self._root / "locks", 1 << 20)[0])[:LOCKS_MAX]:
            open_in = {pid: path for pid in asleep if pid != holder and (path := path_of(self._root, pid, file))}
            if open_in:
                found.append(Seen("file_lock", next(iter(open_in.values())), holder, tuple(open_in), "guessed"))
        return found

    def _search(self, what: str, search: Callable[[Index], tuple[int | None, str]]) -> tuple[int | None, str]:
        """The holder of `what` and how certain that is: as found lately, else by `search`."""
        known = self._found.get(what)
        if known is None and self._index is not None:
            self._searched = True
            known = self._found[what] = self._clock(), *search(self._index)
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
        most = sorted(waiting.items(), key=lambda each: -len(each[1]))[:LOCKS_MAX]
        # The process that took a lock may have ended, but not a child that has the file open.
        lost = {file for (file, holder), _ in most if holder is None or not (root / str(holder)).exists()}
        if self._index is not None and any(f"lock {file}" not in self._found for file in lost):
            self._index.lock_holders(lost)
        for (file, holder), waiters in most:
            if file in lost:
                holder, _ = self._search(f"lock {file}", lambda index, f=file: (index.lock_holders([f])[f], "proven"))  # type: ignore[misc]
            path = next((name for pid in waiters[:PATHS_MAX] if (name := path_of(root, pid, file))), None)
            found.append(Seen("file_lock", path or f"inode {file}", holder, tuple(waiters[:WAITERS_MAX])))
        return found


def _merged(found: list[Seen]) -> list[Seen]:
    """One for each thing that is waited for, with all of its waiters."""
    by: dict[tuple[str, str | None, int | None, tuple[int, ...]], Seen] = {}
    for one in found:
        at = one.kind, one.object, one.holder, one.waiters if one.object is None and one.holder is None else ()
        before = by.get(at)
        by[at] = one if before is None else before._replace(
            waiters=tuple(dict.fromkeys((*before.waiters, *one.waiters)))[:WAITERS_MAX])
    return list(by.values())


def _peers(index: Index, pid: int) -> tuple[int, ...]:
    """Processes at the other ends of the pipes and sockets of a process."""
    found: set[int] = set()
    try:
        links = descriptors(index.root, pid)
    except OSError:
        return ()
    for _, link in links:
        end = inode_of(link)
        if end is not None:
            inode = end[1] if end[0] == "pipe" else index.socket_peer(pid, end[1])
            found.update(other for other, _ in (index.ends(end[0], inode) if inode else ()))
    return tuple(sorted(found - {pid}))


def _awaits_input(root: Path, pid: int) -> bool:
    """True for a process with a terminal that waits for input."""
    stat = _stat(root, pid)
    return stat is not None and stat.tty != 0 and stat.state == b"S" and \
        _text(f"{root}/{pid}/wchan") in TERMINAL_WAITS


def contended(root: Path, pid: int, machine: str) -> bool:
    """Whether threads of a process queue for one lock in memory. A mutex of glibc, musl and Rust has the value 2 while
    threads wait for it; a pool of idle threads waits for another value."""
    stat = _stat(root, pid)
    if stat is None or stat.threads < CROWD:
        return False
    try:
        tids = [name for name in os.listdir(root / str(pid) / "task") if name.isdigit()]
    except OSError:
        return False
    waiting: dict[int, int] = {}
    for tid in tids[:: max(1, len(tids) // SAMPLE)][:SAMPLE]:
        call = parse_syscall(read_or(None, root / str(pid) / "task" / tid / "syscall", 256)[0], machine)
        if call is not None and call.name == "futex" and len(call.args) > 2 and not call.args[1] & 0x7F \
                and call.args[2] == 2:
            waiting[call.args[0]] = waiting.get(call.args[0], 0) + 1
    return max(waiting.values(), default=0) >= CONTENDED


def _reader(index: Index, pipe: str, writers: list[int]) -> tuple[int | None, str]:
    """A process that has the pipe open for reading, and whether it is the only one."""
    readers = sorted({pid for pid, fd in index.pipe_ends(pipe) if _reads(index.root, pid, fd)} - set(writers))
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


def _full_pipe(root: Path, pid: int) -> str | None:
    """The pipe that a process writes to, `pipe:[123]` or the path of a named one, by its system call where that may be
    read; else its only pipe for writing that has no name."""
    call, _ = read_or(None, f"{root}/{pid}/syscall", 256)
    words = call.split()
    try:
        links = dict(descriptors(root, pid))
    except OSError:
        return None
    if len(words) > 1 and words[1].startswith(b"0x"):
        with suppress(ValueError):
            link = links.get(int(words[1], 16) & 0xFFFFFFFF, "")
            return link if link.startswith(("pipe:[", "/")) else None
    writing = {link for number, link in links.items()
               if link.startswith("pipe:[") and _mode(root, pid, number) == os.O_WRONLY}
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
    data, _ = read_or(None, f"{root}/{pid}/status", 4096)
    for line in data.splitlines():
        if line.startswith(b"TracerPid:"):
            number = line[10:].strip()
            return int(number) or None if number.isdigit() else None
    return None


def _stat(root: Path, pid: int) -> Stat | None:
    """The stat of a process; None when it has ended or may not be read."""
    data, how = read_or(None, f"{root}/{pid}/stat", 4096)
    if how == "ok":
        with suppress(ValueError):
            return parse_stat(data)
    return None


def _state(root: Path, process: Key | int) -> str | None:
    """The state letter of a process; None when it has ended or may not be read."""
    stat = _stat(root, process if isinstance(process, int) else process[0])
    return stat.state.decode() if stat is not None and (isinstance(process, int) or stat.start == process[1]) else None


def fanotify_listener(root: Path) -> int | None:
    """The only process that asks to be asked (fanotify permission events); None when there are several, or none may be
    seen. A listener that is only notified of accesses delays no process."""
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
        if any(link == "anon_inode:[fanotify]" and _permits(root, pid, number) for number, link in links):
            found.add(int(pid))
    return found.pop() if len(found) == 1 else None


_PERMISSIONS = 0x10000 | 0x20000 | 0x40000 | 0x100000
"""FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM and FAN_PRE_ACCESS of linux/fanotify.h."""


def _permits(root: Path, pid: str, number: int) -> bool:
    """True when a mark of the descriptor has a permission event, or its marks cannot be read."""
    data, how = read_or(None, root / pid / "fdinfo" / str(number), 1 << 16)
    masks = re.findall(rb"^fanotify .*? mask:([0-9a-f]{1,16})", data, re.M)
    return how != "ok" or not masks or any(int(mask, 16) & _PERMISSIONS for mask in masks)


def _text(file: str) -> str:
    data, _ = read_or(None, file, 256)
    return data.decode("ascii", "backslashreplace").strip()
