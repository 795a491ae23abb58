"""Bytes of perf rings, as the kernel writes them."""

from __future__ import annotations

import struct

from rogue_hunter.recorder.decode import COMM, COMM_EXEC, CONTEXT_KERNEL, CONTEXT_USER, FORK, SAMPLE


def head(kind: int, body: bytes, misc: int = 0) -> bytes:
    body += b"\0" * (-len(body) % 8)
    return struct.pack("=IHH", kind, misc, 8 + len(body)) + body


def sample(ns: int, pid: int, user: tuple[int, ...] = (), kernel: tuple[int, ...] = (), tid: int | None = None) -> bytes:
    chain = [*((CONTEXT_KERNEL, *kernel) if kernel else ()), *((CONTEXT_USER, *user) if user else ())]
    return head(SAMPLE, struct.pack(f"=IIQQ{len(chain)}Q", pid, pid if tid is None else tid, ns, len(chain), *chain))


def switch(ns: int, pid: int) -> bytes:
    return head(SAMPLE, struct.pack("=IIQ", pid, pid, ns))


def comm(ns: int, pid: int, name: bytes, executed: bool = True, tid: int | None = None) -> bytes:
    name += b"\0" * (8 - len(name) % 8)
    return head(COMM, struct.pack("=II", pid, tid or pid) + name + struct.pack("=IIQ", pid, pid, ns),
                COMM_EXEC if executed else 0)


def fork(ns: int, pid: int, ppid: int) -> bytes:
    return head(FORK, struct.pack("=IIIIQIIQ", pid, ppid, pid, ppid, ns, ppid, ppid, ns))


def newest_first(*records: bytes, size: int = 1 << 16) -> bytes:
    """A ring that is written backwards: `records` in the order of time."""
    data = b"".join(reversed(records))
    return data + b"\0" * (size - len(data))
