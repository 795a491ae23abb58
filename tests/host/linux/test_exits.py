"""Exits out of the kernel's messages: parsing, floods, and a real storm of short processes."""

from __future__ import annotations

import errno
import struct
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.linux.exits import (
    EVENTS_MAX,
    PROC_EVENT_EXIT,
    ExitReader,
    in_first_pid_namespace,
    listen,
    parse_exit,
)


def message(pid: int, parent: int, code: int = 0, *, thread: int | None = None, what: int = PROC_EVENT_EXIT) -> bytes:
    """A message as the kernel sends it."""
    event = struct.pack("=IIQiiIIii", what, 0, 1, pid if thread is None else thread, pid, code, 17, parent, parent)
    return struct.pack("=IHHII", 76, 3, 0, 0, 0) + struct.pack("=IIIIHH", 1, 1, 0, 0, len(event), 0) + event


class Line:
    """A socket with these messages; an exception is raised in its place."""

    def __init__(self, *items: bytes | OSError) -> None:
        self.items = list(items)
        self.closed = False

    def recv(self, _size: int, /) -> bytes:
        item = self.items.pop(0) if self.items else BlockingIOError()
        if isinstance(item, OSError):
            raise item
        return item

    def close(self) -> None:
        self.closed = True


def test_children_are_counted_by_parent() -> None:
    """Two of parent 9, one of them badly; an exit of a thread and another event count for nothing."""
    found = ExitReader(Line(message(11, 9), message(12, 9, 256), message(13, 8), message(14, 8, thread=15),
                            message(16, 8, what=1))).read()
    assert (found.children, found.failed, found.pids, found.lost) == ({9: 2, 8: 1}, {9: 1}, [11, 12, 13], False)


def test_children_that_no_parent_waits_for_have_none() -> None:
    """The kernel says 0 for those of a parent that ignores SIGCHLD."""
    found = ExitReader(Line(message(11, 0), message(12, 9), message(13, 0, 256))).read()
    assert (found.children, found.failed, found.unwaited, found.pids) == ({9: 1}, {}, {11, 13}, [11, 12, 13])


def test_a_flood_is_cut_off_and_reported() -> None:
    """So many are read and no more; dropped messages are reported, and reading continues."""
    line = Line(*[message(11, 9)] * (EVENTS_MAX + 5))
    reader = ExitReader(line)
    assert reader.read().children == {9: EVENTS_MAX} and len(line.items) == 5
    dropped = ExitReader(Line(OSError(errno.ENOBUFS, "full"), message(11, 9))).read()
    assert dropped.lost and dropped.children == {9: 1}


def test_a_socket_that_fails_is_given_up() -> None:
    """Any other error: closed, off, with the reason."""
    line = Line(OSError(errno.EBADF, "bad"))
    reader = ExitReader(line)
    assert reader.read().lost and line.closed
    assert not reader.available and reader.reason and reader.read().children == {}


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """A message of another kind or length is ignored."""
    parse_exit(data)
    parse_exit(message(1, 2)[:len(data)] + data)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_real_storm(spawn: object) -> None:
    """A shell that runs /bin/true 40 times and /bin/false once."""
    if not in_first_pid_namespace():
        pytest.skip("NO EXITS IN A PID NAMESPACE: the kernel reports them to the first one only")
    reader = listen()
    if not reader.available:
        pytest.skip(f"NO EXITS FROM THIS KERNEL: {reader.reason}")
    script = "for i in 1 2 3 4; do for j in 1 2 3 4 5 6 7 8 9 0; do /bin/true; done; done; /bin/false; exec sleep 60"
    for _ in range(6):      # beside other storms the kernel may drop a message, which it says at the next reading
        shell = spawn(["/bin/sh", "-c", script])        # type: ignore[operator]
        children = failed = 0
        lost = False
        end = time.monotonic() + 5
        while children < 41 and time.monotonic() < end:
            found = reader.read()
            children += found.children.get(shell.pid, 0)
            failed += found.failed.get(shell.pid, 0)
            lost = lost or found.lost
            time.sleep(0.02)
        if (children, failed) == (41, 1):
            break
    reader.close()
    assert (children, failed) == (41, 1), f"lost: {lost}"
