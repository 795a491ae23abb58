"""The gate: one question a process, and nothing for those that did not run."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.linux import gate as gates
from rogue_hunter.host.linux.gate import SCHEDSTAT_BYTES, STAT_BYTES, ClockGate, FileGate, clocks_tell, cpu_clock


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


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that a gate has closed; they are numbers only."""
    closed: list[int] = []
    monkeypatch.setattr(gates, "shut", closed.append)
    return closed


def gate(count: int) -> tuple[Kernel, FileGate, list[Any]]:
    """A gate that watches descriptors 10, 11, ... of as many owners."""
    kernel = Kernel()
    made = FileGate(64, True, kernel.pread)
    owners = [SimpleNamespace(gate=None, at=-1, fd=10 + i) for i in range(count)]
    for owner in owners:
        kernel.says[owner.fd] = b"0"
        made.add(owner, owner.fd, b"0")  # type: ignore[arg-type]
    return kernel, made, owners


def test_no_process_ran() -> None:
    """One read each, no process returned, and the list of values is not even replaced."""
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
    assert made.last_value(owners[1]) == b"1"
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


def test_remove(closed: list[int]) -> None:
    """The last entry takes the free place; what is removed is not read again and its descriptor is closed."""
    kernel, made, owners = gate(4)
    kernel.says[13] = b"longer"
    assert made.poll() == ([owners[3]], [])
    made.remove(owners[1])
    assert owners[1].gate is None and len(made) == 3
    assert made.poll() == ([], []), "the moved one is read at its own length"
    made.remove(owners[2])
    made.remove(owners[3])
    kernel.says[10] = b"7"
    assert made.poll() == ([owners[0]], [])
    made.remove(owners[0])
    assert made.poll() == ([], []) and len(made) == 0
    assert closed == [11, 12, 13, 10]


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
            made.remove(who)
            watched.remove(who)
        else:
            kernel.says[who.fd] = OSError(errno.ESRCH, "gone") if step == "die" else b"%d" % (who.count + 1)
            who.count += 1
        kernel.reads.clear()
        expected = {
            o.fd for o in watched if not isinstance(kernel.says[o.fd], OSError) and made.last_value(o) != kernel.says[o.fd]
        }
        ran, failed = made.poll()
        assert sorted(kernel.reads) == sorted([*(o.fd for o in watched), *expected])
        assert {o.fd for o in ran} == expected  # type: ignore[attr-defined]
        assert {o.fd for o, _ in failed} == {o.fd for o in watched if isinstance(kernel.says[o.fd], OSError)}  # type: ignore[attr-defined]
        assert all(made.handles[o.at] == o.fd and made.owners[o.at] is o for o in watched)


def test_sizes() -> None:
    """A schedstat of three largest numbers fits; all fields of stat that move stand within what is read of it."""
    assert len(b"%d %d %d\n" % ((2**64 - 1,) * 3)) <= SCHEDSTAT_BYTES
    longest = b"%d (%b) S %b" % (2**22, b"x" * 64, b" ".join([b"%d" % (2**64 - 1)] * 13))
    assert len(longest) <= STAT_BYTES, "the CPU times of any stat line lie within what the gate compares"


# -- CPU clocks ------------------------------------------------------------------------------------------------------


class Clocks:
    """What the CPU clock of each pid says, counted; who is not in it has none."""

    def __init__(self, **says: int) -> None:
        self.says = {cpu_clock(int(pid[1:])): ns for pid, ns in says.items()}
        self.asked: list[int] = []

    def __call__(self, clock: int) -> int:
        self.asked.append(clock)
        if clock not in self.says:
            raise OSError(errno.EINVAL, "Invalid argument")
        return self.says[clock]


def test_clocks() -> None:
    """One read each; one more of those that ran; those that exited are returned with the error."""
    clocks = Clocks(p5=100, p6=200, p7=300)
    made = ClockGate(clocks)
    owners: list[Any] = [SimpleNamespace(gate=None, at=-1, key=(pid, 1)) for pid in (5, 6, 7)]
    assert [made.watch(owner) for owner in owners] == [100, 200, 300]
    clocks.asked.clear()
    assert made.poll() == ([], []) and clocks.asked == made.handles
    clocks.says[cpu_clock(6)] += 1
    assert made.poll() == ([owners[1]], []) and made.last_value(owners[1]) == 201
    del clocks.says[cpu_clock(5)]
    clocks.says[cpu_clock(7)] += 1
    ran, failed = made.poll()
    assert ran == [owners[2]] and [(owner, error.errno) for owner, error in failed] == [(owners[0], errno.EINVAL)]
    made.remove(owners[0])
    assert owners[0].gate is None and made.poll() == ([], []) and made.owners == [owners[2], owners[1]]
    with pytest.raises(OSError, match="Invalid"):
        made.watch(SimpleNamespace(gate=None, at=-1, key=(8, 1)))  # type: ignore[arg-type]
    assert len(made) == 2, "who has no clock is not watched"


@given(st.integers(1, 2**22))
def test_id_of_a_clock(pid: int) -> None:
    """As the C library makes it: the complement of the pid, and no bit of a thread's clock or of a descriptor's."""
    clock = cpu_clock(pid)
    assert ~(clock >> 3) == pid and clock & 7 == 2 and -(2**31) <= clock < 0


def test_our_own_clock() -> None:
    """It is the one that time.process_time reads, and it counts the work of every thread."""
    before = time.process_time_ns()
    assert before <= time.clock_gettime_ns(cpu_clock(os.getpid())) <= time.process_time_ns()


def test_clocks_speak_of_our_own_proc_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a recorded tree, of another namespace's /proc, or where the kernel does not answer or lies."""
    assert clocks_tell(Path("/proc"))
    (tmp_path / "self").symlink_to(str(os.getpid()))
    assert not clocks_tell(tmp_path) and not clocks_tell(tmp_path / "none")
    for refusal in (PermissionError(errno.EPERM, "no"), OSError(errno.ENOSYS, "no")):
        with monkeypatch.context() as patch:
            def refuse(clock: int, refusal: OSError = refusal) -> int:
                raise refusal
            patch.setattr(time, "clock_gettime_ns", refuse)
            assert not clocks_tell(Path("/proc"))
    with monkeypatch.context() as patch:
        patch.setattr(time, "clock_gettime_ns", lambda clock: 0)
        assert not clocks_tell(Path("/proc"))
    with monkeypatch.context() as patch:
        patch.setattr(gates, "own_namespace", lambda root: False)
        assert not clocks_tell(Path("/proc"))
