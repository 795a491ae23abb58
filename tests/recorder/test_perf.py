"""Opening rings: what each refusal of the kernel leads to, by kernels that fail at each call."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.recorder import perf
from rogue_hunter.recorder.decode import entries
from rogue_hunter.recorder.perf import PAGE, Kernel, Rings, open_rings, parse_cpus, ring_bytes


class Fake:
    """A kernel that fails at call number `at` (and with `ever` at each later one) with `code`."""

    def __init__(self, at: int = 0, code: int = errno.EACCES, call: str = "open", ever: bool = False,
                 system: bool = True) -> None:
        self.at, self.code, self.call, self.ever, self.system = at, code, call, ever, system
        self.counts: dict[str, int] = {}
        self.open_fds: set[int] = set()
        self.maps: list[mmap.mmap] = []

    def _count(self, call: str) -> None:
        self.counts[call] = self.counts.get(call, 0) + 1
        reached = self.counts[call] >= self.at if self.ever else self.counts[call] == self.at
        if call == self.call and self.at and reached:
            raise OSError(self.code, os.strerror(self.code))

    def open(self, attr: bytes, pid: int, cpu: int) -> int:
        assert len(attr) == perf.ATTR_BYTES
        self._count("open")
        if pid == -1 and not self.system:
            raise OSError(errno.EACCES, "no")
        fd = os.open("/dev/null", os.O_RDONLY)
        self.open_fds.add(fd)
        return fd

    def map(self, fd: int, size: int) -> mmap.mmap:
        self._count("map")
        made = mmap.mmap(-1, size)
        self.maps.append(made)
        return made

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        self._count("ioctl")
        return 0

    def close(self, fd: int) -> None:
        os.close(fd)
        self.open_fds.discard(fd)

    def read(self, fd: int, size: int) -> bytes:
        self._count("read")
        return bytes(size)

    @property
    def kernel(self) -> Kernel:
        return Kernel(self.open, self.map, self.ioctl, self.close, self.read)

    def clean(self) -> bool:
        return not self.open_fds and all(each.closed for each in self.maps)


CODES = (errno.EACCES, errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EMFILE, errno.ENOMEM, errno.ENODEV,
         errno.EOPNOTSUPP, errno.EBUSY)


@pytest.mark.parametrize("call", ["open", "map", "ioctl", "read"])
@pytest.mark.parametrize("ever", [False, True])
def test_each_call_fails_with_each_error(call: str, ever: bool) -> None:
    """The Nth call fails, for each N until none is left: rings or a reason, and nothing is left open."""
    for system in (True, False):
        for code in CODES:
            at = 0
            while True:
                at += 1
                fake = Fake(at, code, call, ever, system)
                rings, why = open_rings(49, fake.kernel)
                if rings is not None:
                    assert rings.bytes <= 3 << 20
                    if rings.mode == "own":
                        rings.attach(1, [1, 2])
                    rings.copies()
                    for ring in rings.switches:
                        with suppress(OSError):
                            ring.count()
                    rings.close()
                else:
                    assert why
                assert fake.clean(), (call, code, at)
                if fake.counts.get(call, 0) < at:
                    break
                assert at < 200


def test_why_nothing_is_recorded() -> None:
    """The reason names what is missing: permission, or perf events."""
    for code, words in ((errno.EACCES, "no permission"), (errno.EPERM, "no permission"), (errno.ENOSYS, "has no"),
                        (errno.EINVAL, "perf_event_open: ")):
        rings, why = open_rings(49, Fake(1, code, ever=True).kernel)
        assert rings is None and words in why
    rings, why = open_rings(49, Fake(system=False).kernel)
    assert rings is not None and rings.mode == "own" and "other users" in why
    rings.close()


def test_an_unknown_machine_has_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the number of the call it is not made."""
    monkeypatch.setattr(perf, "SYSCALL", {})
    rings, why = open_rings(49)
    assert rings is None and "no perf_event_open" in why


def test_a_ring_is_halved_until_it_may_be_locked() -> None:
    """Locked memory is limited: two pages of data are the least."""
    for failures in range(1, 12):
        fake = Fake()
        real = fake.map
        left = iter([True] * failures)

        def map_(fd: int, size: int, left: Iterator[bool] = left, real: Any = real) -> mmap.mmap:
            if next(left, False):
                raise OSError(errno.EPERM, "too much")
            return real(fd, size)  # type: ignore[no-any-return]

        kernel = Kernel(fake.open, map_, fake.ioctl, fake.close)
        try:
            ring = perf.Ring(kernel, perf.switch_attributes(), -1, 0, 64 << 10)
        except OSError:
            assert failures > 3
        else:
            assert ring.size == (64 << 10) >> failures
            ring.close()
        assert fake.clean()


def test_memory_is_bounded_for_any_number_of_cpus() -> None:
    """At most 3 MB with their first pages, on machines that a person has, and two pages a CPU beyond."""
    for cpus in range(1, 1025):
        sizes = [ring_bytes(each, cpus) for each in (perf.SAMPLES_BYTES, perf.SWITCHES_BYTES)]
        assert all(size & (size - 1) == 0 and size >= 2 * PAGE for size in sizes)
        if cpus <= 64:
            assert cpus * (sum(sizes) + 2 * PAGE) <= 3 << 20, cpus
    assert list(parse_cpus("0-2,5\n")) == [0, 1, 2, 5]
    with pytest.raises(ValueError):
        list(parse_cpus("a"))


@pytest.mark.skipif(sys.platform != "linux", reason="perf events are Linux's")
def test_a_cpu_that_is_offline_is_left_out() -> None:
    """ENODEV for one CPU: the others are recorded."""
    rings = Rings(49, mode="system", kernel=Fake(1, errno.ENODEV).kernel, cpus=[0, 1])
    assert [ring.cpu for ring in rings.samples] == [1]
    rings.close()


@pytest.mark.skipif(sys.platform != "linux", reason="perf events are Linux's")
def test_real_rings() -> None:
    """What this kernel permits: samples of this process with its own addresses, and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))
    rings, why = open_rings(49)
    if rings is None:
        pytest.skip(f"PERF EVENTS NOT TESTED: {why}")
    try:
        if rings.mode == "own":
            assert rings.attach(os.getpid(), [os.getpid()])
        sum(i * i for i in range(3_000_000))
        copies = rings.copies()
    finally:
        rings.close()
    assert len(os.listdir("/proc/self/fd")) == before
    pids = {each.pid for copy in copies if copy.chains for each in entries(copy.data, chains=True)}
    assert os.getpid() in pids
    assert rings.bytes == 0 and Path("/proc/self").exists()
