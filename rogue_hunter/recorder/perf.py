"""Perf events by perf_event_open(2) through ctypes: rings that the kernel overwrites, its permissions, jobs to decode.

A ring is mapped read-only and written backwards, so the kernel overwrites the oldest records and nothing has to be read
before something happened. Output is paused while a ring is copied. A job is what the helper process is given to decode:
the rings of a pause or a capture, and what is known of processes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rogue_hunter.stream import wire

SYSCALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "s390x": 331}
"""Machine -> number of perf_event_open. Other machines are not supported."""

SOFTWARE, CPU_CLOCK, CONTEXT_SWITCHES, DUMMY = 1, 0, 3, 9
"""Type of the events and their numbers (enum perf_sw_ids)."""
TID, TIME, CALLCHAIN = 1 << 1, 1 << 2, 1 << 5
INHERIT, EXCLUDE_KERNEL, EXCLUDE_IDLE, COMM, FREQ, TASK, ID_ALL, EXCLUDE_GUEST, COMM_EXEC, USE_CLOCKID, BACKWARD = (
    1 << bit for bit in (1, 5, 7, 9, 10, 13, 18, 20, 24, 25, 27))
TIME_ENABLED = 1
"""Flag of what a read returns besides the count (PERF_FORMAT_TOTAL_TIME_ENABLED)."""
DISABLE, ENABLE, SET_OUTPUT, PAUSE_OUTPUT = 0x2401, 0x2400, 0x2405, 0x40042409
CLOEXEC = 1 << 3
ATTR_BYTES = 112
"""PERF_ATTR_SIZE_VER5, Linux 4.8: the first with sample_max_stack; write_backward is of 4.7."""
HEAD_AT = 1024
"""Offset of data_head in the first page of a ring."""

PAGE = mmap.PAGESIZE
STACK_MAX = 48
"""Entries of a call chain that the kernel collects: a sample has 400 bytes at most."""
SAMPLES_BYTES, SWITCHES_BYTES = 256 << 10, 128 << 10
"""Data of the two rings of a CPU. At 49 Hz and 25 frames a busy CPU fills the first in 20 s. Together less than
kernel.perf_event_mlock_kb, 516, which a user may lock for each CPU."""
ALL_BYTES = 2 << 20
"""Limit of the data of all rings; with more CPUs each ring is smaller."""
PERMISSION = (errno.EACCES, errno.EPERM)


def attributes(config: int, period: int, sample: int, flags: int) -> bytes:
    """A struct perf_event_attr with the times of CLOCK_MONOTONIC."""
    return struct.pack("=IIQQQQQIIQQQQIiQIHH", SOFTWARE, ATTR_BYTES, config, period, sample, TIME_ENABLED,
                       flags | USE_CLOCKID | BACKWARD, 0, 0, 0, 0, 0, 0, 0, time.CLOCK_MONOTONIC, 0, 0,
                       STACK_MAX if sample & CALLCHAIN else 0, 0)


def clock_attributes(hz: int, flags: int = 0) -> bytes:
    """Samples of the task on a CPU with its call chain, `hz` a second of CPU time that is not idle."""
    return attributes(CPU_CLOCK, hz, TID | TIME | CALLCHAIN, FREQ | EXCLUDE_IDLE | EXCLUDE_GUEST | flags)


def switch_attributes() -> bytes:
    """Which task left the CPU when: a record of 24 bytes. Names and forks too, for processes that live shortly."""
    return attributes(CONTEXT_SWITCHES, 1, TID | TIME, COMM | COMM_EXEC | TASK | ID_ALL | EXCLUDE_GUEST)


def _open(attr: bytes, pid: int, cpu: int) -> int:
    number = SYSCALL.get(os.uname().machine)
    if number is None or struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, "not supported on this machine")
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    fd: int = libc.syscall(ctypes.c_long(number), buffer, ctypes.c_long(pid), ctypes.c_long(cpu), ctypes.c_long(-1),
                           ctypes.c_ulong(CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def _map(fd: int, size: int) -> mmap.mmap:
    return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)


@dataclass(frozen=True, slots=True)
class Kernel:
    """The calls that a recorder makes. Each raises OSError. `open(attributes, pid, cpu)` returns a descriptor."""

    open: Callable[[bytes, int, int], int] = _open
    map: Callable[[int, int], mmap.mmap] = _map
    ioctl: Callable[[int, int, int], int] = fcntl.ioctl
    close: Callable[[int], None] = os.close
    read: Callable[[int, int], bytes] = os.read


class Ring:
    """The ring of one event. Raises OSError when it cannot be mapped, even when halved some times."""

    def __init__(self, kernel: Kernel, attr: bytes, pid: int, cpu: int, size: int) -> None:
        self._kernel = kernel
        self.cpu = cpu
        self.fd = kernel.open(attr, pid, cpu)
        try:
            self._map, self.size = self._mapped(size)
        except BaseException:
            kernel.close(self.fd)
            raise

    def _mapped(self, size: int) -> tuple[mmap.mmap, int]:
        """Locked memory may be limited: the largest ring that is permitted."""
        while True:
            try:
                return self._kernel.map(self.fd, PAGE + size), size
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOMEM) or size <= 2 * PAGE:
                    raise
                size //= 2

    def snapshot(self) -> bytes:
        """The data, beginning with the newest record. Raises OSError."""
        self._kernel.ioctl(self.fd, PAUSE_OUTPUT, 1)
        try:
            head: int = struct.unpack_from("=Q", self._map, HEAD_AT)[0] % self.size
            return self._map[PAGE + head: PAGE + self.size] + self._map[PAGE: PAGE + head]
        finally:
            self._kernel.ioctl(self.fd, PAUSE_OUTPUT, 0)

    def count(self) -> tuple[int, int]:
        """Events so far, and for how many nanoseconds the kernel has counted them. Raises OSError."""
        data = self._kernel.read(self.fd, 16)
        if len(data) != 16:
            raise OSError(errno.EIO, "no count")
        count, enabled_ns = struct.unpack("=QQ", data)
        return count, enabled_ns

    def control(self, request: int) -> None:
        """ENABLE or DISABLE. Raises OSError."""
        self._kernel.ioctl(self.fd, request, 0)

    def close(self) -> None:
        """Give the ring back."""
        self._map.close()
        self._kernel.close(self.fd)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copied ring: of which CPU, and whether it holds samples with chains (else context switches)."""

    cpu: int
    chains: bool
    data: bytes


def online_cpus(path: str = "/sys/devices/system/cpu/online") -> list[int]:
    """The numbers of the CPUs that are online; 0, 1, ... where the file cannot be read."""
    try:
        return list(parse_cpus(Path(path).read_text("ascii")))
    except (OSError, ValueError):
        return list(range(os.cpu_count() or 1))


def parse_cpus(text: str) -> Iterator[int]:
    """The numbers in `0-3,8`. Raises ValueError."""
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def ring_bytes(wanted: int, cpus: int) -> int:
    """The size of a ring on each of `cpus`: a power of two of pages, in proportion to ALL_BYTES."""
    share = min(wanted, ALL_BYTES * wanted // (SAMPLES_BYTES + SWITCHES_BYTES) // max(1, cpus))
    return PAGE << max(1, (share // PAGE).bit_length() - 1)


class Rings:
    """Open rings, one or two a CPU. `mode` is system (all processes) or own (those attached).

    Raises OSError when none can be opened: EACCES or EPERM without permission, ENOSYS or EINVAL where the kernel has no
    such events.
    """

    def __init__(self, hz: int, *, mode: str, kernel: Kernel | None = None, cpus: Iterable[int] | None = None,
                 size: int = SAMPLES_BYTES) -> None:
        self.mode = mode
        self._kernel = kernel or Kernel()
        self.cpus = list(online_cpus() if cpus is None else cpus)
        self._attached: dict[int, list[int]] = {}
        self.samples: list[Ring] = []
        self.switches: list[Ring] = []
        first: OSError | None = None
        try:
            if mode == "own":
                self._attr = self._permitted(hz)
            attr = clock_attributes(hz) if mode == "system" else attributes(DUMMY, 0, TID | TIME, EXCLUDE_KERNEL)
            for cpu in self.cpus:
                try:
                    target = -1 if mode == "system" else 0
                    self.samples.append(Ring(self._kernel, attr, target, cpu, ring_bytes(size, len(self.cpus))))
                except OSError as error:  # a CPU may go offline in between
                    first = first or error
                    if error.errno not in (errno.ENODEV, errno.ENXIO):
                        raise
            if not self.samples:
                raise first or OSError(errno.ENODEV, "no CPU is online")
            if mode == "system":
                self._open_switches()
        except BaseException:
            self.close()
            raise

    def _permitted(self, hz: int) -> bytes:
        """Attributes of samples of an own process: with the kernel's part where that is permitted. Raises OSError."""
        for flags in (0, EXCLUDE_KERNEL):
            attr = clock_attributes(hz, flags | INHERIT)
            try:
                self._kernel.close(self._kernel.open(attr, 0, self.cpus[0] if self.cpus else 0))
            except OSError as error:
                if flags or error.errno not in PERMISSION:
                    raise
            else:
                return attr
        raise AssertionError("unreachable")

    def _open_switches(self) -> None:
        """A second ring a CPU; without it the samples alone say who had the CPU."""
        size = ring_bytes(SWITCHES_BYTES, len(self.cpus))
        try:
            for cpu in [ring.cpu for ring in self.samples]:
                self.switches.append(Ring(self._kernel, switch_attributes(), -1, cpu, size))
        except OSError:
            for ring in self.switches:
                ring.close()
            self.switches = []

    @property
    def bytes(self) -> int:
        """Memory of all rings."""
        return sum(ring.size + PAGE for ring in (*self.samples, *self.switches))

    def attach(self, pid: int, threads: Iterable[int]) -> bool:
        """Record the threads of a process of this user, and what they start; False if nothing can be recorded."""
        fds: list[int] = []
        for tid in threads:
            for ring in self.samples:
                try:
                    fd = self._kernel.open(self._attr, tid, ring.cpu)
                except OSError:  # it has exited, is another user's, or no descriptor is left
                    continue
                try:
                    self._kernel.ioctl(fd, SET_OUTPUT, ring.fd)
                except OSError:
                    self._kernel.close(fd)
                    continue
                fds.append(fd)
        self.detach(pid)
        if fds:
            self._attached[pid] = fds
        return bool(fds)

    def detach(self, pid: int) -> None:
        """Record it no more; nothing happens if it is not recorded."""
        for fd in self._attached.pop(pid, ()):
            self._kernel.close(fd)

    @property
    def attached(self) -> list[int]:
        """The pids that are recorded, the first attached first."""
        return list(self._attached)

    def copies(self) -> list[Copy]:
        """All rings as they are now. A ring that cannot be read is left out."""
        made = []
        for chains, rings in ((True, self.samples), (False, self.switches)):
            for ring in rings:
                try:
                    made.append(Copy(ring.cpu, chains, ring.snapshot()))
                except OSError:
                    continue
        return made

    def close(self) -> None:
        """Give everything back."""
        for pid in self.attached:
            self.detach(pid)
        for ring in (*self.samples, *self.switches):
            ring.close()
        self.samples, self.switches = [], []


FEW_FDS = 256
"""Limit of open files below which the recorder stays off: it needs two a CPU, the sampler one a process."""


def open_rings(hz: int, kernel: Kernel | None = None) -> tuple[Rings | None, str]:
    """The rings that are permitted, and why there are no more of them: "" in mode system. None: nothing is."""
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < FEW_FDS:     # -1: no limit
        return None, f"the limit of open files is below {FEW_FDS}: the sampler needs them"
    try:
        return Rings(hz, mode="system", kernel=kernel), ""
    except OSError as error:
        if error.errno not in PERMISSION:
            return None, _reason(error)
    try:
        return Rings(hz, mode="own", kernel=kernel), "no permission to record processes of other users"
    except OSError as error:
        return None, _reason(error)


def _reason(error: OSError) -> str:
    if error.errno in PERMISSION:
        return "no permission for perf_event_open"
    if error.errno == errno.ENOSYS:
        return "this kernel or container has no perf_event_open"
    return f"perf_event_open: {error.strerror or error}"


def paranoid(path: str = "/proc/sys/kernel/perf_event_paranoid") -> int | None:
    """The kernel's setting that restricts perf events; None where it cannot be read."""
    try:
        return int(Path(path).read_bytes())
    except (OSError, ValueError):
        return None


Known = tuple[int, str, str]
"""What is known of a process: when it started, its name, its program."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be decoded. `key` is {"pause": key} or {"capture": key}; times in ns of CLOCK_MONOTONIC; `processes`
    by pid; `work` names, by resource, the process that kernel threads probably worked for, and why."""

    key: dict[str, str]
    begin_ns: int
    end_ns: int
    hz: int
    rings: tuple[Copy, ...]
    processes: Mapping[int, Known]
    work: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    shares: bool = True


def dump_job(job: Job) -> bytes:
    """A job as the helper reads it."""
    head = {name: getattr(job, name) for name in ("key", "begin_ns", "end_ns", "hz", "work", "shares")}
    head |= {"rings": [[ring.cpu, ring.chains, len(ring.data)] for ring in job.rings],
             "processes": [[pid, *known] for pid, known in job.processes.items()]}
    return b"".join([wire.dumps(head), b"\n", *(ring.data for ring in job.rings)])


def load_job(source: BinaryIO) -> Job:
    """The job that `dump_job` wrote. Raises ValueError, KeyError or TypeError for other bytes."""
    head = wire.loads(source.readline())
    rings = tuple(Copy(cpu, chains, source.read(size)) for cpu, chains, size in head.pop("rings"))
    processes = {pid: (start, name, exe) for pid, start, name, exe in head.pop("processes")}
    work = {resource: (pid, why) for resource, (pid, why) in head.pop("work").items()}
    return Job(rings=rings, processes=processes, work=work, **head)
