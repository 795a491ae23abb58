"""The records of a perf ring buffer, from bytes: samples, context switches, names, forks. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

SAMPLE, COMM, FORK = 9, 3, 7
"""Types of records (enum perf_event_type, include/uapi/linux/perf_event.h)."""
COMM_EXEC = 1 << 13
"""Flag of a COMM record: the name changed because another program was executed."""
CONTEXT_MIN = (1 << 64) - 4095
"""From this value on an entry of a call chain is no address but a mark (PERF_CONTEXT_MAX)."""
CONTEXT_KERNEL, CONTEXT_USER = (1 << 64) - 128, (1 << 64) - 512
CHAIN_MAX = 127
"""Entries of a call chain that are read: kernel.perf_event_max_stack is 127."""
UNKNOWN_PID = (1 << 32) - 1
"""The pid of a task that has exited."""

_HEADER = struct.Struct("=IHH")
_WHO = struct.Struct("=IIQ")
_COUNT = struct.Struct("=Q")


class Sample(NamedTuple):
    """A task on a CPU: `ns` of CLOCK_MONOTONIC; `chain`: addresses and marks, innermost first, empty in a ring of
    context switches, where the task left the CPU at `ns`."""

    ns: int
    pid: int
    tid: int
    chain: tuple[int, ...] = ()


class Name(NamedTuple):
    """A task got a name; `executed`: by executing a program."""

    ns: int
    pid: int
    name: bytes
    executed: bool


class Fork(NamedTuple):
    """A process was made by another one."""

    ns: int
    pid: int
    ppid: int


Entry = Sample | Name | Fork


def entries(data: bytes, *, chains: bool) -> Iterator[Entry]:
    """The records of a ring that is written backwards, newest first; `data` begins at its head.

    Ends at the first record that cannot be one: the oldest is overwritten in part. `chains`: samples carry a call
    chain. Records of other types and of threads that were made are skipped.
    """
    at, end = 0, len(data)
    while at + 8 <= end:
        kind, misc, size = _HEADER.unpack_from(data, at)
        if size < 8 or size % 8 or at + size > end:
            return
        made = _entry(kind, misc, data[at + 8: at + size], chains)
        if made is not None:
            yield made
        at += size


def _entry(kind: int, misc: int, body: bytes, chains: bool) -> Entry | None:
    if kind == SAMPLE and len(body) >= 16:
        pid, tid, ns = _WHO.unpack_from(body)
        if not chains:
            return Sample(ns, pid, tid)
        if len(body) < 24:
            return None
        count = min(_COUNT.unpack_from(body, 16)[0], CHAIN_MAX, (len(body) - 24) // 8)
        return Sample(ns, pid, tid, struct.unpack_from(f"={count}Q", body, 24))
    if kind == COMM and len(body) >= 32:  # pid, tid, the name, then pid, tid and time of the record itself
        pid, tid = struct.unpack_from("=II", body)
        if pid != tid:
            return None
        return Name(_WHO.unpack_from(body, len(body) - 16)[2], pid, body[8:-16].split(b"\0", 1)[0],
                    bool(misc & COMM_EXEC))
    if kind == FORK and len(body) >= 24:
        pid, ppid, tid, _, ns = struct.unpack_from("=IIIIQ", body)
        return Fork(ns, pid, ppid) if pid == tid and pid != ppid else None
    return None


def addresses(chain: tuple[int, ...]) -> Iterator[tuple[int, bool]]:
    """The addresses of a call chain, innermost first, each with whether it is the kernel's. Return addresses are moved
    back by one, into the call."""
    kernel, first = False, True
    for value in chain:
        if value >= CONTEXT_MIN:
            kernel, first = value == CONTEXT_KERNEL, True
        else:
            yield value if first or value == 0 else value - 1, kernel
            first = False
