"""The gates of all processes, the descriptors of /proc that are kept open, and all reading of a process's files.

Every process has a gate: its CPU clock, or a kept-open file where there is none, as long as descriptors last. Those
that ran lately have stat, status, io and schedstat open as well. A process without a gate, as is every one of a
recorded tree, is cold: its files are opened at each reading.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from math import ceil
from pathlib import Path

from rogue_hunter.files import shut
from rogue_hunter.host.linux.gate import GONE, SCHEDSTAT_BYTES, STAT_BYTES, ClockGate, FileGate, Gate
from rogue_hunter.host.linux.parse import Stat, parse_stat
from rogue_hunter.host.linux.process import IO_MAX, STAT_MAX, STATUS_MAX, Process
from rogue_hunter.schema.field import Key

SPARE_FDS = 64
"""Descriptors left for everything that is not a process: database, socket, standard streams, the machine's files."""

HOT_SET = 4
"""stat, status, io and schedstat."""

_NO_MORE = (errno.EMFILE, errno.ENFILE)

GateValue = bytes | int
"""The value of a gate: the bytes of its file, or the nanoseconds of its clock."""


class Files:
    """All descriptors below `root`. `live` is True for a mounted procfs, `clocks` where CPU clocks are those of its
    processes. `errors` counts reads of a poll that failed although the process is not gone."""

    def __init__(self, root: Path, live: bool, clocks: bool = False) -> None:
        self.root = root
        self.live = live
        self.clocks = clocks
        self.errors = 0
        self.clock: ClockGate[Process] = ClockGate()
        self.sched: FileGate[Process] = FileGate(SCHEDSTAT_BYTES, exact=True)
        self.stat: FileGate[Process] = FileGate(STAT_BYTES, exact=False)
        self.cold: dict[Key, tuple[Process, bytes]] = {}
        self.hot: dict[Key, Process] = {}
        self.gate_limit, self.hot_limit = _descriptor_limits() if live else (0, 0)
        self.has_schedstat = self._schedstat_works()

    def poll(self) -> tuple[list[tuple[Process, GateValue]], list[Process]]:
        """Read every gate once: the processes that ran, with the gate's value, and those that are gone."""
        ran: list[tuple[Process, GateValue]] = []
        gone: list[Process] = []
        gates: tuple[Gate[Process, int] | Gate[Process, bytes], ...] = (self.clock, self.sched, self.stat)
        for gate in filter(len, gates):
            changed, failed = gate.poll()
            ran += [(process, gate.last_value(process)) for process in changed]
            for process, error in failed:
                if error.errno in gate.gone:
                    gone.append(process)
                else:
                    self.errors += 1
        for key, (process, before) in list(self.cold.items()):
            try:
                value = self.read(process, "stat", STAT_MAX)
                if value != before:
                    if parse_stat(value).start != key[1]:
                        gone.append(process)
                        continue
                    self.cold[key] = (process, value)
                    ran.append((process, value))
            except OSError as error:
                if error.errno in GONE:
                    gone.append(process)
                else:
                    self.errors += 1
            except ValueError:
                self.errors += 1
        return ran, gone

    def full(self, process: Process, value: GateValue, stat: bytes = b"") -> tuple[bytes, bytes, bytes, bytes]:
        """stat, status, io and schedstat of a process; empty what may not be read, and the schedstat of several
        threads. `value` is the value of its gate, `stat` what was just read of it.

        The files are kept open from the second reading on: most processes do not run again soon. Raises OSError.
        """
        data, sched = stat, b""
        if not isinstance(value, int):
            data, sched = (stat, value) if process.gate is self.sched else (value, b"")
        try:
            fds = process.fds or (self.open(process) if self.live and process.counters is not None else None)
        except OSError as error:
            if error.errno not in _NO_MORE:
                raise
            fds = None
        if fds is None:
            if not sched and (not self.live or (self.clocks and self.has_schedstat)):
                sched = self.optional(process, "schedstat")
            data = data or self.read(process, "stat", STAT_MAX)
            status, io = self.optional(process, "status"), self.optional(process, "io")
            if not self.live or process.counters is not None or (status and (io or process.io_denied)):
                return data, status, io, sched
            fds = self.open(process)    # what failed may be readable now: an idle process is not read again soon
        data = data or os.pread(fds[0], STAT_MAX, 0)
        if fds[3] >= 0 and process.threads == 1:
            sched = os.pread(fds[3], SCHEDSTAT_BYTES, 0)
        status = os.pread(fds[1], STATUS_MAX, 0) if fds[1] >= 0 else b""
        io = b""
        if fds[2] >= 0:
            try:
                io = os.pread(fds[2], IO_MAX, 0)
            except PermissionError:
                process.io_denied = True
        if fds[1] < 0:
            # The status of every process may be read, so this passes: the next reading tries again.
            process.close()
        return data, status, io, sched

    def keep(self, process: Process, stat: Stat, value: bytes) -> None:
        """A process was read in full: choose its gate again, and count its descriptors as used just now."""
        if self.live:
            self.regate(process, stat, value)
            self.hot.pop(process.key, None)
            if process.fds is not None:
                self.hot[process.key] = process

    def trim(self) -> None:
        """Close hot descriptors beyond the limit."""
        while len(self.hot) > self.hot_limit:
            self.cool()

    def open(self, process: Process) -> tuple[int, int, int, int]:
        """Hot descriptors for a process. Where there are too many, those unused for longest are closed first."""
        while self.hot and len(self.hot) >= self.hot_limit:
            self.cool()
        while True:
            try:
                return process.open(self.root, self.clocks and self.has_schedstat)
            except OSError as error:
                if error.errno not in _NO_MORE or not self.hot:
                    raise
                self.hot_limit = len(self.hot)
                self.cool()

    def cool(self) -> None:
        """Close the hot descriptors that were unused for longest."""
        self.hot.pop(next(iter(self.hot))).close()

    def watch(self, process: Process, stat: Stat, value: bytes) -> GateValue:
        """Choose the gate of a new process; returns the gate's value. `value` is its stat. Raises OSError."""
        if self.clocks:
            with contextlib.suppress(OSError):  # a process that is gone has no file to open either
                return self.clock.watch(process)
        if not self.live or len(self.sched) + len(self.stat) >= self.gate_limit:
            self.cold[process.key] = (process, value)
            return value
        gate, name = (self.sched, "schedstat") if stat.threads == 1 and self.has_schedstat else (self.stat, "stat")
        try:
            fd = os.open(f"{self.root}/{process.key[0]}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in _NO_MORE:
                raise
            self.gate_limit = len(self.sched) + len(self.stat)
            self.cold[process.key] = (process, value)
            return value
        try:
            value = os.pread(fd, gate.size, 0)
        except OSError:
            shut(fd)
            raise
        gate.add(process, fd, value)
        return value

    def regate(self, process: Process, stat: Stat, value: bytes) -> None:
        """A process that got a second thread, or lost it, changes its file."""
        if process.gate is None or process.gate is self.clock or not self.has_schedstat:
            return
        single = stat.threads == 1
        if single is not (process.gate is self.sched):
            process.gate.remove(process)
            self.watch(process, stat, value)

    def unwatch(self, process: Process) -> None:
        """Release everything of a process."""
        if process.gate is not None:
            process.gate.remove(process)
        self.cold.pop(process.key, None)
        self.hot.pop(process.key, None)
        process.close()

    def read(self, process: Process, name: str, size: int) -> bytes:
        """Up to `size` bytes of a file of a process. Raises OSError."""
        return self.read_file(f"{process.key[0]}/{name}", size)

    def read_file(self, name: str, size: int) -> bytes:
        """Up to `size` bytes of a file below the root. Raises OSError."""
        # A joined text and not a Path: 3 us less, and this is every process once a minute.
        fd = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, size)
        finally:
            shut(fd)

    def optional(self, process: Process, name: str) -> bytes:
        """The same; empty where it may not be read or does not exist. An io that is denied is remembered. Raises
        OSError for a passing error: a process that does not run again would never get the rest of its row."""
        try:
            return self.read(process, name, STATUS_MAX)
        except PermissionError:
            process.io_denied = process.io_denied or name == "io"
        except OSError as error:
            if error.errno not in GONE:
                raise
        return b""

    def _schedstat_works(self) -> bool:
        """False where the kernel was built without it or counts nothing."""
        with contextlib.suppress(OSError):
            return self.live and self.read_file("self/schedstat", SCHEDSTAT_BYTES).split()[:1] not in ([b"0"], [])
        return False


def _descriptor_limits() -> tuple[int, int]:
    """How many gates and how many sets of hot descriptors to keep open; raises the limit as far as it is allowed.

    A quarter of all descriptors is for hot ones, at most 1,024 sets.
    """
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        return 0, 1  # a sandbox may forbid to ask; every process is then opened at each tick
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    if soft == resource.RLIM_INFINITY or soft >= hard:
        soft = hard
    else:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    free = max(0, soft - SPARE_FDS)
    hot = min(1024, ceil(free / (4 * HOT_SET)))
    return free - HOT_SET * hot, hot
