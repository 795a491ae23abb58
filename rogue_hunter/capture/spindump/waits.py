"""The bracket at the end of a stack frame: was the thread running, runnable, suspended, and who blocked it.

    *12  machine_switch_context + 200 (kernel + 2369672) [0xffffff8000442888] (blocked by turnstile with priority 92
         waiting for WindowServer [176] thread 0x3e2 after 3 hops) 1-12

Words seen between the kind of wait and the one waited for: `waiting for` (turnstile), `owned by` (unfair lock, krwlock,
mutex, port), `processed by` (queue), `on` (wait4). Seen without a process: `waiting for this thread`, `waiting for
thread 0xce8dc4`, `UNKNOWN waiting for receive port name "x" in domain 1, mach_msg receive on port ...`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rogue_hunter.capture.spindump.decode import NAME_LIMIT, TEXT_LIMIT, named, text, whole

_ADDRESS = re.compile(rb"\[0x[0-9a-fA-F]{1,16}\] \(")
_CLOSE = re.compile(rb"\)(?: ([0-9]{1,12})(?:-([0-9]{1,12}))?)?\s*$")
_BLOCKED = re.compile(rb"(?:^|, )blocked (?:by|on) ")
_HOPS = re.compile(rb",? after ([0-9]{1,9}) hops?$")
_THREAD = re.compile(rb"(?:^|\s)thread (0x[0-9a-fA-F]{1,16}|[0-9]{1,18})$")
_PRIORITY = re.compile(rb" with priority ([0-9]{1,6})$")
_STRONG = re.compile(rb"(?:^| |, )(?:waiting for|owned by|held by|processed by|signaled by|busy for|pushing|handled by|"
                     rb"serviced by|donated to) ")
_WEAK = re.compile(rb"(?: |, )(?:on|for|to|by) ")
_HOLDER_FLAG = re.compile(rb" \((?:suspended|zombie|frozen)\)$")
_ENDS_IN_PID = re.compile(rb"\[[0-9]{1,10}\]$")
_PORT_WORDS = (b"receive port", b"send port", b"port ", b"semaphore ", b"locked port", b"in transit")


class Wait(NamedTuple):
    """One `blocked by`. `on_what` says what is waited for when no process is named; `hops` counts the waits between
    waiter and holder, at least 1."""

    kind: str
    on_pid: int | None
    on_command: str | None
    on_thread_id: str | None
    on_self: bool
    on_what: str | None
    hops: int
    deadlock: bool
    detail: str


class State(NamedTuple):
    """The bracket of one frame. `words` are the states, for example {running, p-core}."""

    words: frozenset[bytes]
    wait: Wait | None
    first: int | None
    last: int | None


def state_of(frame: bytes) -> State | None:
    """The state at the end of a frame line; None when it has none."""
    frame = frame[:8192]
    opened = -1
    # A symbol may hold what looks like an address: the state is the bracket after the last one.
    for found in _ADDRESS.finditer(frame):
        opened = found.end()
    if opened < 0:
        at = frame.find(b"blocked by ")
        opened = frame.rfind(b"(", 0, at) + 1 if at > 0 else 0
    closed = _CLOSE.search(frame, opened) if opened > 0 else None
    if closed is None:
        return None
    inside, first, last = frame[opened : closed.start()], closed.group(1), closed.group(2)
    blocked = _BLOCKED.search(inside)
    words = inside[: blocked.start()] if blocked else inside
    wait = wait_of(inside[blocked.end() :]) if blocked else None
    start = whole(first) if first else None
    return State(frozenset(w for w in words.split(b", ") if w), wait, start, whole(last) if last else start)


def wait_of(data: bytes) -> Wait:
    """What follows `blocked by `, without the closing bracket."""
    rest = data.strip()[:TEXT_LIMIT]
    detail = text(rest)
    deadlock = b"part of a deadlock" in rest
    if deadlock:
        rest = rest[: rest.index(b"part of a deadlock")].rstrip(b" -,(")
    hops = 1
    if found := _HOPS.search(rest):
        hops, rest = max(1, int(found.group(1))), rest[: found.start()]
    while found := _HOLDER_FLAG.search(rest):
        rest = rest[: found.start()]
    thread = None
    if found := _THREAD.search(rest):
        thread, rest = text(found.group(1)), rest[: found.start()]
    kind, who = _split(rest, thread is not None)
    if found := _PRIORITY.search(kind):
        kind = kind[: found.start()]
    kind = kind.removesuffix(b" UNKNOWN").strip(b" ,")
    itself = who in (b"this thread", b"itself")
    holder = named(who)
    if itself or holder.pid is None:
        what = None if itself or not who else text(who, NAME_LIMIT)
        return Wait(text(kind, NAME_LIMIT) or "unknown", None, None, thread, itself, what, hops, deadlock, detail)
    return Wait(text(kind, NAME_LIMIT) or "unknown", holder.pid, holder.command, thread, False, None, hops, deadlock,
                detail)


def _split(rest: bytes, has_thread: bool) -> tuple[bytes, bytes]:
    """The kind of wait and the one waited for."""
    found = _STRONG.search(rest)
    if found is None and (has_thread or rest.endswith((b"]", b")"))):
        found = _WEAK.search(rest)
    if found is None:
        if _ENDS_IN_PID.search(rest):
            return b"", rest
        # `waiting for` may stand at the very end, when the thread that followed it was all that was said.
        for tail in (b" waiting for", b" owned by", b" held by", b" processed by", b" on"):
            if rest.endswith(tail):
                return rest[: -len(tail)], b""
        return rest, b""
    who = rest[found.end() :].strip()
    if who.startswith(b"process ") and who.endswith(b"]"):
        who = who.removeprefix(b"process ")
    return rest[: found.start()], _owner(who)


def _owner(who: bytes) -> bytes:
    """`port 0x1 name 0x2 owned by Foo [12]`: what follows the last `owned by`, when a pid ends it."""
    if not who.startswith(_PORT_WORDS) or not _ENDS_IN_PID.search(who):
        return who
    at = who.rfind(b" owned by ")
    return who[at + len(b" owned by ") :] if at >= 0 else who
