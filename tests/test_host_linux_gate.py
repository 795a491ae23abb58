"""The gate: one read a process, and nothing for those that did not run."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.linux.gate import SCHEDSTAT_BYTES, STAT_BYTES, Gate


class Kernel:
    """Descriptors and what a pread of each says, counted; an OSError is raised."""

    def __init__(self) -> None:
        self.says: dict[int, bytes | OSError] = {}
        self.reads: list[int] = []

    def pread(self, fd: int, size: int, at: int) -> bytes:
        assert 0 < size <= 64 and at == 0
        self.reads.append(fd)
        said = self.says[fd]
        if isinstance(said, OSError):
            raise said
        return said[:size]


def gate(count: int) -> tuple[Kernel, Gate, list[Any]]:
    """A gate that watches descriptors 10, 11, ... of as many owners."""
    kernel = Kernel()
    made = Gate(64, kernel.pread)
    owners = [SimpleNamespace(gate=None, at=-1, fd=10 + i) for i in range(count)]
    for owner in owners:
        kernel.says[owner.fd] = b"0"
        made.add(owner, owner.fd, b"0")  # type: ignore[arg-type]
    return kernel, made, owners


def test_nobody_ran() -> None:
    """One read each, nobody named, and the list of what was said is not even replaced."""
    kernel, made, _ = gate(5)
    before = made.last
    assert made.poll() == ([], [])
    assert kernel.reads == [10, 11, 12, 13, 14]
    assert made.last is before


def test_who_ran() -> None:
    """Those whose bytes changed, once; what they say now is kept."""
    kernel, made, owners = gate(5)
    kernel.says[11] = kernel.says[14] = b"1"
    assert made.poll() == ([owners[1], owners[4]], [])
    assert made.said(owners[1]) == b"1"
    assert made.poll() == ([], [])


@pytest.mark.parametrize("dead", [[0], [4], [2], [0, 1], [3, 4], [0, 2, 4], [0, 1, 2, 3, 4]])
def test_read_that_fails(dead: list[int]) -> None:
    """A descriptor that fails is reported with its error; all others are read all the same, and
    once more in full, because they changed."""
    kernel, made, owners = gate(5)
    for i in range(5):
        kernel.says[10 + i] = ProcessLookupError(errno.ESRCH, "gone") if i in dead else b"1"
    ran, failed = made.poll()
    assert sorted(kernel.reads) == sorted([*range(10, 15), *(10 + i for i in range(5) if i not in dead)])
    assert ran == [owners[i] for i in range(5) if i not in dead]
    assert [(owner, error.errno) for owner, error in failed] == [(owners[i], errno.ESRCH) for i in dead]


def test_remove() -> None:
    """The last entry takes the free place; what is removed is not read again and its descriptor is handed back."""
    kernel, made, owners = gate(4)
    assert made.remove(owners[1]) == 11
    assert owners[1].gate is None and len(made) == 3
    assert made.remove(owners[2]) == 12
    assert made.remove(owners[3]) == 13
    kernel.says[10] = b"7"
    assert made.poll() == ([owners[0]], [])
    assert made.remove(owners[0]) == 10
    assert made.poll() == ([], []) and len(made) == 0


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "run", "die"]), st.integers(0, 30)), max_size=60))
def test_any_course(course: list[tuple[str, int]]) -> None:
    """However processes come and go, each poll reads each watched descriptor once, those that ran once more, and names
    exactly those."""
    kernel, made, _ = gate(0)
    watched: list[Any] = []
    fd = 100
    for step, which in course:
        who = watched[which % len(watched)] if watched else None
        if step == "add":
            fd += 1
            owner: Any = SimpleNamespace(gate=None, at=-1, fd=fd, count=0)
            kernel.says[fd] = b"0"
            made.add(owner, fd, b"0")
            watched.append(owner)
        elif who is None:
            continue
        elif step == "remove":
            assert made.remove(who) == who.fd
            watched.remove(who)
        else:
            kernel.says[who.fd] = OSError(errno.ESRCH, "gone") if step == "die" else b"%d" % (who.count + 1)
            who.count += 1
        kernel.reads.clear()
        expected = {
            o.fd for o in watched if not isinstance(kernel.says[o.fd], OSError) and made.said(o) != kernel.says[o.fd]
        }
        ran, failed = made.poll()
        assert sorted(kernel.reads) == sorted([*(o.fd for o in watched), *expected])
        assert {o.fd for o in ran} == expected  # type: ignore[attr-defined]
        assert {o.fd for o, _ in failed} == {o.fd for o in watched if isinstance(kernel.says[o.fd], OSError)}  # type: ignore[attr-defined]
        assert all(made.fds[o.at] == o.fd and made.owners[o.at] is o for o in watched)


def test_sizes() -> None:
    """A schedstat of three largest numbers fits; all fields of stat that move stand within what is read of it."""
    assert len(b"%d %d %d\n" % ((2**64 - 1,) * 3)) <= SCHEDSTAT_BYTES
    longest = b"%d (%b) S %b" % (2**22, b"x" * 64, b" ".join([b"%d" % (2**64 - 1)] * 13))
    assert len(longest) <= STAT_BYTES, "the CPU times of any stat line lie within what the gate compares"
