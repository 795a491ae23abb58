"""What a thread waits for, and which process could end the wait, as far as the kernel shows it.

Of mutexes the owner is read, and processes are found that wait for a mutex that another process holds.

Priority-inheriting mutexes keep the thread id of the owner in the word, because the kernel needs it there: that is
proof. Robust mutexes (and those of musl) do so by convention. The plain mutex of glibc keeps 0, 1 or 2 in the word and
the owner 8 bytes further (struct __pthread_mutex_s: lock, count, owner, nusers, kind, each of 4 bytes): a guess, and
only made when the fields next to it look like a mutex.

To find those who wait for the mutex of another process, the wait channel of every thread is read, which takes no lock.
Of threads that sleep in a futex, the system call is read, and the futex word if it is shared between processes. Private
mutexes, as of a thread pool, are skipped.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rogue_hunter.capture.linux.lookups import End, Index, inode_of
from rogue_hunter.capture.linux.process import (
    FORKS,
    LOCKS,
    READS,
    WRITES,
    Call,
    Late,
    Process,
    Thread,
    bounded,
    numbers,
    parse_syscall,
    read_or,
)
from rogue_hunter.host.linux.parse import PF_KTHREAD, Stat

MAX_CANDIDATES = 8
"""If more processes than this could end a wait, none is named, for example the writers of a pipe."""
MEMORY_S = 1.0
"""Seconds for reading a futex word out of another process's memory."""

FREEZERS = frozenset(("__refrigerator", "refrigerator", "do_freezer_trap", "get_signal"))
"""Wait channels of a thread whose control group was frozen: the first two of version 1 (and of a machine that goes to
sleep), the others of version 2, where the compiler puts one function into the other."""

_ACCESS = 0o3
_LOCK_WORDS = ("lock", "flock", "posix", "fcntl")


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait of one thread. `on_pid` is None if no process can be named; `on_what` is then what it waits for."""

    tid: int
    kind: str
    on_pid: int | None
    on_tid: int | None
    on_what: str | None
    certainty: str
    evidence: str


def waits_of(process: Process, index: Index, own_namespace: str | None) -> Iterator[Wait]:
    """The waits of the threads of `process`; idle sleep is not one."""
    locks = {wait.waiter: wait for wait in index.locks()}
    lock = locks.get(process.key[0])
    if lock is not None:
        yield from _lock(process, lock.kind, lock.mode, lock.holder, lock.file)
    for thread in process.threads.values():
        state, wchan, call = thread.last
        if state in ("R", "Z", "X", "T", "t", "I"):
            continue
        if wchan in FREEZERS:
            # It may have waited for something else before, but now it waits to be thawed.
            yield Wait(thread.tid, "freezer", None, None, "the process that froze its control group", "proven",
                       f"state {state} in {wchan}")
            continue
        name = call.name if call else None
        if name in LOCKS and lock is not None:
            continue
        found = list(_by_call(process, thread, call, index, own_namespace)) if call and call.name else []
        yield from found
        if not found and state == "D":
            yield Wait(thread.tid, "uninterruptible", None, None, wchan or "the kernel", "proven",
                       f"state D in {wchan or 'the kernel'}" + (f", {call.words()}" if call else ""))


def _by_call(process: Process, thread: Thread, call: Call, index: Index, own_namespace: str | None) -> Iterator[Wait]:
    name = call.name or ""
    if name in READS or name in WRITES:
        yield from _descriptor(process, thread, call, index)
    elif name in ("futex", "futex_wait"):
        yield from _futex(process, thread, call, index, own_namespace)
    elif name in ("wait4", "waitid"):
        yield from _child(process, thread, call, index)
    elif name in FORKS and thread.last[0] == "D":
        yield from _vfork(process, thread, index)


def _lock(process: Process, kind: str, mode: str, holder: int | None, file: str) -> Iterator[Wait]:
    """/proc/locks names the process; the thread that waits is the one that sleeps in a lock call."""
    threads = list(process.threads.values())
    asleep = [t for t in threads if t.last[2] is not None and t.last[2].name in LOCKS] or \
             [t for t in threads if any(w in (t.last[1] or "") for w in _LOCK_WORDS)]
    tid = (asleep or threads)[0].tid if threads else process.key[0]
    known = "proven" if len(threads) == 1 or len(asleep) == 1 else "guessed"
    evidence = f"/proc/locks: {mode} {kind} on {file}"
    if len(asleep) != 1 and len(threads) > 1:
        evidence += "; which of its threads waits is a guess"
    yield Wait(tid, kind, holder, None, None if holder else f"file {file}", known, evidence)


def _descriptor(process: Process, thread: Thread, call: Call, index: Index) -> Iterator[Wait]:
    """A pipe or socket: the processes that have the other end open."""
    pid = process.key[0]
    number = call.args[0] & 0xFFFFFFFF if call.args else 0
    try:
        link = os.readlink(index.root / str(pid) / "fd" / str(number))
    except OSError:
        return
    end = inode_of(link)
    if end is None and not (link.startswith("/") and "pipe_" in (thread.last[1] or "")):
        return      # neither a socket nor a pipe, nor a named one
    kind, inode = end or ("pipe", 0)
    reading = call.name in READS
    if kind == "pipe":
        way = os.O_WRONLY if reading else os.O_RDONLY
        others = [end for end in index.pipe_ends(link) if _opens(index.root, end, way)]
        role = "writer" if reading else "reader"
    else:
        peer = index.socket_peer(pid, inode)
        if not peer:
            return
        others, role = index.ends("socket", peer), "peer"
    wait = f"{kind} read" if reading else f"{kind} write"
    yield from _candidates(process, thread, wait, others, f"{link}, {call.name}", role, index.incomplete)


def _opens(root: Path, end: End, wanted: int) -> bool:
    """True when the descriptor is open for `wanted`, or for both directions."""
    data, how = read_or(None, root / str(end[0]) / "fdinfo" / str(end[1]), 4096)
    if how != "ok":
        return False
    for line in data.splitlines():
        if line.startswith(b"flags:"):
            try:
                access = int(line[6:].strip(), 8) & _ACCESS
            except ValueError:
                return False
            return access in (wanted, os.O_RDWR)
    return False


def _candidates(process: Process, thread: Thread, kind: str, others: list[End], what: str, role: str,
                incomplete: bool) -> Iterator[Wait]:
    pids = sorted({pid for pid, _ in others} - {process.key[0]})
    if not pids:
        if others:
            yield Wait(thread.tid, kind, process.key[0], None, None, "proven", f"{what}: it is itself the only {role}")
        return
    if len(pids) > MAX_CANDIDATES:
        yield Wait(thread.tid, kind, None, None, f"{what}: {len(pids)} processes could be its {role}", "guessed", what)
        return
    alone = len(pids) == 1 and len({pid for pid, _ in others}) == 1 and not incomplete
    for pid in pids:
        yield Wait(thread.tid, kind, pid, None, None, "proven" if alone else "guessed",
                   f"{what}: its only {role}" if alone else f"{what}: one of several that could be its {role}")


def _child(process: Process, thread: Thread, call: Call, index: Index) -> Iterator[Wait]:
    pid = process.key[0]
    wanted = 0
    if call.name == "wait4" and call.args:
        wanted = call.args[0] & 0xFFFFFFFF
        wanted = wanted - (1 << 32) if wanted >> 31 else wanted
    elif len(call.args) > 1 and call.args[0] == 1:  # P_PID
        wanted = call.args[1] & 0xFFFFFFFF
    if wanted > 0:
        if process.pid_namespace is None or wanted in index.stats():
            yield Wait(thread.tid, call.name or "wait", wanted, None, None, "proven", f"{call.words()}: that child")
        return
    children = index.children(pid)
    if len(children) == 1:
        yield Wait(thread.tid, call.name or "wait", children[0], None, None, "proven", "its only child")


def _vfork(process: Process, thread: Thread, index: Index) -> Iterator[Wait]:
    """A process that called vfork sleeps uninterruptibly until the child runs a program or exits."""
    children = index.children(process.key[0])
    if children:
        alone = len(children) == 1
        yield Wait(thread.tid, "vfork", children[-1], None, None, "proven" if alone else "guessed",
                   "its only child" if alone else "its youngest child")


def _futex(process: Process, thread: Thread, call: Call, index: Index, own_namespace: str | None) -> Iterator[Wait]:
    where = futex_word(call)
    pid = process.key[0]
    if where is None or "memory" in process.denied:
        return
    try:
        memory = bounded(lambda: read_memory(index.root, pid, where[0]), MEMORY_S)
    except Late:
        process.denied.add("memory")
        process.problems.append(f"process {pid}: its memory could not be read within {MEMORY_S:g} s: its memory map "
                                f"is locked, by itself or by a process that changes it")
        return
    except OSError:
        process.denied.add("memory")
        return
    owner = mutex_owner(where[1], memory)
    if owner is None or (owner.tid == thread.tid and owner.certainty == "guessed"):
        return
    evidence = f"{owner.evidence} at {where[0]:#x}"
    if owner.tid in process.threads:
        yield Wait(thread.tid, "futex", pid, owner.tid, None, owner.certainty, evidence)
        return
    if own_namespace is not None and process.pid_namespace not in (None, own_namespace):
        yield Wait(thread.tid, "futex", None, None, f"thread {owner.tid} of its pid namespace", owner.certainty,
                   evidence)
        return
    home = index.thread_owner(owner.tid)
    if home is None:
        yield Wait(thread.tid, "futex", None, None, f"a mutex whose owner, thread {owner.tid}, has exited",
                   owner.certainty, evidence)
    elif home == pid or owner.shared or owner.certainty == "proven":
        yield Wait(thread.tid, "futex", home, owner.tid, None, owner.certainty, evidence)


MUTEX_BYTES = 20
"""Bytes that are read: the five fields of a mutex."""

_WAITERS, _TID = 0x8000_0000, 0x3FFF_FFFF
_PRIVATE = 128
_WAIT, _LOCK_PI, _WAIT_BITSET, _WAIT_REQUEUE_PI, _LOCK_PI2 = 0, 6, 9, 11, 13
"""Numbers of linux/futex.h."""


class MutexOwner(NamedTuple):
    """The thread that owns the mutex, as numbered in the process that waits."""

    tid: int
    certainty: str
    evidence: str
    shared: bool


def futex_word(call: Call) -> tuple[int, int] | None:
    """Address of the word and operation, when `call` waits on one futex."""
    if call.name == "futex" and len(call.args) >= 2:
        operation = call.args[1] & 0x7F
        if operation in (_WAIT, _LOCK_PI, _WAIT_BITSET, _WAIT_REQUEUE_PI, _LOCK_PI2):
            # The futex that a requeued waiter will own is the fifth argument.
            at = call.args[4] if operation == _WAIT_REQUEUE_PI and len(call.args) > 4 else call.args[0]
            return at, call.args[1]
    return None


def mutex_owner(operation: int, memory: bytes) -> MutexOwner | None:
    """The owner, from `memory` at the futex word (MUTEX_BYTES, or 4 bytes if only the word can be read)."""
    if len(memory) < 4:
        return None
    (word,) = struct.unpack_from("=I", memory)
    shared = not operation & _PRIVATE
    kind = operation & 0x7F
    tid = word & _TID
    if kind in (_LOCK_PI, _LOCK_PI2, _WAIT_REQUEUE_PI):
        return MutexOwner(tid, "proven", "the word of a priority-inheriting futex", shared) if tid else None
    if word & _WAITERS and tid:
        return MutexOwner(tid, "guessed", "the futex word, read as that of a robust mutex", shared)
    if word == 2 and len(memory) >= MUTEX_BYTES:
        _, count, holder, users, mutex_kind = struct.unpack_from("=IIiIi", memory)
        if 0 < holder <= _TID and 0 < users < 1 << 20 and 0 <= mutex_kind < 512 and count < 1 << 20:
            return MutexOwner(holder, "guessed", "the owner field of glibc's mutex", shared)
    return None


def read_memory(root: os.PathLike[str] | str, pid: int, at: int, size: int = MUTEX_BYTES) -> bytes:
    """Bytes of a process's memory. Takes its memory lock: call it through `bounded`. Raises OSError."""
    fd = os.open(os.path.join(root, str(pid), "mem"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            return os.pread(fd, size, at)
        except OSError:
            return os.pread(fd, 4, at)
    except OverflowError as error:
        raise OSError(str(error)) from error
    finally:
        os.close(fd)


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
            tids = numbers(root / str(pid) / "task") if stat.threads > 1 else [pid]
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
    where = futex_word(call) if call is not None else None
    if where is None:
        return None
    try:
        found = mutex_owner(where[1], read_memory(root, pid, where[0]))
    except OSError:
        return None
    return found.tid if found is not None and found.shared and found.tid != tid else None


def _namespace(root: Path, pid: int | str) -> str | None:
    try:
        return os.readlink(root / str(pid) / "ns" / "pid")
    except OSError:
        return None
