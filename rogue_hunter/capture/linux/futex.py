"""The owner of the mutex that a thread waits for, from the futex word and the fields that a library keeps next to it.

Priority-inheriting mutexes keep the owner's thread id in the word, because the kernel needs it there: that is
proof. Robust mutexes (and musl's) do so by convention. glibc's plain mutex keeps 0, 1 or 2 in the word and the owner
8 bytes further (struct __pthread_mutex_s: lock, count, owner, nusers, kind, each of 4 bytes): a guess, and only made
when the fields next to it look like a mutex.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from rogue_hunter.capture.linux.syscalls import Call

WINDOW = 20
"""Bytes that are read: the five fields of a mutex."""

_WAITERS, _TID = 0x8000_0000, 0x3FFF_FFFF
_PRIVATE = 128
_WAIT, _LOCK_PI, _WAIT_BITSET, _WAIT_REQUEUE_PI, _LOCK_PI2 = 0, 6, 9, 11, 13
"""Numbers of linux/futex.h."""


class Owner(NamedTuple):
    """The thread that owns the mutex, as numbered in the process that waits."""

    tid: int
    certainty: str
    evidence: str
    shared: bool


def address(call: Call) -> tuple[int, int] | None:
    """Address of the word and operation, when `call` waits on one futex."""
    if call.name == "futex" and len(call.args) >= 2:
        operation = call.args[1] & 0x7F
        if operation in (_WAIT, _LOCK_PI, _WAIT_BITSET, _WAIT_REQUEUE_PI, _LOCK_PI2):
            # The futex that a requeued waiter will own is the fifth argument.
            at = call.args[4] if operation == _WAIT_REQUEUE_PI and len(call.args) > 4 else call.args[0]
            return at, call.args[1]
    return None


def owner(operation: int, memory: bytes) -> Owner | None:
    """The owner, from `memory` at the futex word (WINDOW bytes, or 4 if only the word can be read)."""
    if len(memory) < 4:
        return None
    (word,) = struct.unpack_from("=I", memory)
    shared = not operation & _PRIVATE
    kind = operation & 0x7F
    tid = word & _TID
    if kind in (_LOCK_PI, _LOCK_PI2, _WAIT_REQUEUE_PI):
        return Owner(tid, "proven", "the word of a priority-inheriting futex", shared) if tid else None
    if word & _WAITERS and tid:
        return Owner(tid, "guessed", "the futex word, read as that of a robust mutex", shared)
    if word == 2 and len(memory) >= WINDOW:
        _, count, holder, users, mutex_kind = struct.unpack_from("=IIiIi", memory)
        if 0 < holder <= _TID and 0 < users < 1 << 20 and 0 <= mutex_kind < 512 and count < 1 << 20:
            return Owner(holder, "guessed", "the owner field of glibc's mutex", shared)
    return None


def read_memory(root: os.PathLike[str] | str, pid: int, at: int, size: int = WINDOW) -> bytes:
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
