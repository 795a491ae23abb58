"""The machine as a whole: facts of its boot, and CPU time, memory, disks and pressure for the closing row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rogue_hunter.files import shut
from rogue_hunter.host.linux.parse import (
    HZ,
    CpuTimes,
    Disk,
    Reclaim,
    parse_arcstats,
    parse_cpu,
    parse_diskstats,
    parse_meminfo,
    parse_pressure,
    parse_vmstat,
)
from rogue_hunter.host.protocol import Facts, HostError

_T = TypeVar("_T")

STAT_BYTES = 1 << 16
"""Holds the cpu lines of /proc/stat on a machine of 600 CPUs."""

CALM_NS = 60_000_000_000

ARCSTATS = "spl/kstat/zfs/arcstats"

_FILES = {"meminfo": 160, "pressure/cpu": 256, "pressure/memory": 256, "pressure/io": 256, "vmstat": 1 << 14,
          "diskstats": 1 << 15, ARCSTATS: 1 << 14}
"""File and bytes to read. MemTotal and MemAvailable are in the first three lines of meminfo."""

IN_PIECES = frozenset({"vmstat", "diskstats"})
"""Of a file of many records the kernel gives a page at a time, with any size (fs/seq_file.c): 30 to 60 disks."""
PIECES_MAX = 64

SHORTAGE_NS = 900_000_000
"""Between two readings of vmstat and diskstats: at 3 Hz every third tick has their counts. They cost 0.06 ms."""

WAIT_REQUESTS = 5
"""Requests in a tick from which their average time is meaningful."""

_RECLAIM = "pressure_memory_some_ms_per_s"


class Machine:
    """Reads the files through kept-open descriptors where the tree is a live /proc."""

    def __init__(self, root: Path, live: bool) -> None:
        self.root = root
        self._live = live
        self._fds: dict[str, int] = {}
        self._parsed: dict[str, tuple[bytes, Any]] = {}
        """What was made of each file last: on an idle machine most of them stay as they are."""
        self._before: tuple[int, CpuTimes | None, dict[str, int]] | None = None
        self._shortage: tuple[Reclaim | None, dict[bytes, Disk] | None] = (None, None)
        self._shortage_ns = -SHORTAGE_NS
        self._stat_bytes = STAT_BYTES
        self._reclaimed_ns = -CALM_NS
        self._has_arc = os.path.exists(root / ARCSTATS)
        self.calm = False
        """True while the kernel reclaimed no memory for CALM_NS, as far as PSI shows."""
        self.errors = 0

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self._fds.values():
            shut(fd)
        self._fds.clear()

    def read(self, name: str, size: int) -> bytes | None:
        """The first `size` bytes of a file below the root; None when it cannot be read."""
        fd = self._fds.get(name)
        try:
            if fd is not None:
                return os.pread(fd, size, 0)
            fd = os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(fd, size, 0)
        except OSError:
            if fd is not None:
                self._fds.pop(name, None)
                shut(fd)
            return None
        if self._live:
            self._fds[name] = fd
        else:
            shut(fd)
        return data

    def parsed(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        """A file of the machine, parsed; None when it is missing or makes no sense (which is counted)."""
        data = self.read(name, _FILES[name])
        if data is None:
            return None
        if name in IN_PIECES and (fd := self._fds.get(name)) is not None:
            with suppress(OSError):
                for _ in range(1, PIECES_MAX):
                    if not (more := os.pread(fd, _FILES[name], len(data))):
                        break
                    data += more
        before, made = self._parsed.get(name, (None, None))
        if data != before:
            try:
                made = parse(data)
            except ValueError:
                self.errors += 1
                return None
            self._parsed[name] = data, made
        return made

    def cpu(self, whole: bool = False) -> CpuTimes | None:
        """CPU times of the machine. `whole` also reads the time of the boot, behind the long line of interrupts."""
        data = self.read("stat", STAT_BYTES if whole else self._stat_bytes)
        if data is not None and not whole and b"\nintr" not in data:
            data = self.read("stat", STAT_BYTES)  # the first time, or more CPUs than a tick ago
        if data is None:
            return None
        self._stat_bytes = data.find(b"\nintr") + 6
        try:
            return parse_cpu(data)
        except ValueError:
            self.errors += 1
            return None

    def memory(self) -> tuple[int, int | None] | None:
        """Total and available bytes. The cache of ZFS is available: it shrinks when others need memory."""
        found = self.parsed("meminfo", parse_meminfo)
        if found is None or found[1] is None or not self._has_arc:
            return found
        return found[0], min(found[0], found[1] + (self.parsed(ARCSTATS, parse_arcstats) or 0))

    def fields(self, mono_ns: int) -> dict[str, Any]:
        """cpus, cpu_busy_cores, memory_*_bytes and pressure_*_ms_per_s; rates from the second reading on."""
        self.errors = 0
        fields: dict[str, Any] = {}
        cpu, memory = self.cpu(), self.memory()
        totals: dict[str, int] = {}
        for name in ("cpu", "memory", "io"):
            some, full = self.parsed("pressure/" + name, parse_pressure) or (None, None)
            if some is not None:
                totals[f"pressure_{name}_some_ms_per_s"] = some
            # System-wide `cpu full` is always 0: while a task waits for a CPU, another one runs (psi.rst).
            if full is not None and name != "cpu":
                totals[f"pressure_{name}_full_ms_per_s"] = full
        if cpu is not None:
            fields["cpus"] = cpu.cpus
        if memory is not None:
            fields["memory_total_bytes"] = memory[0]
            if memory[1] is not None:
                fields["memory_available_bytes"] = memory[1]
        if self._before is not None and mono_ns > self._before[0]:
            then_ns, cpu_then, totals_then = self._before
            seconds = (mono_ns - then_ns) / 1e9
            if cpu is not None and cpu_then is not None and cpu.busy >= cpu_then.busy:
                busy, idle = cpu.busy - cpu_then.busy, cpu.idle - cpu_then.idle
                steal = max(0, cpu.steal - cpu_then.steal)
                fields["cpu_busy_cores"] = round(min(busy / HZ / seconds, float(cpu.cpus)), 3)
                fields["cpu_steal_cores"] = round(steal / HZ / seconds, 3)
                fields["cpu_counted_cores"] = round(max(0, busy + idle + steal) / HZ / seconds, 2)
            for name, total in totals.items():
                then = totals_then.get(name)
                if then is not None and total >= then:
                    fields[name] = round(min((total - then) / 1000 / seconds, 1000.0), 1)
            if totals.get(_RECLAIM) != totals_then.get(_RECLAIM):
                self._reclaimed_ns = mono_ns
        if mono_ns - self._shortage_ns >= SHORTAGE_NS:
            self._shortage_ns = mono_ns
            fields.update(self._memory_and_disks())
        self.calm = _RECLAIM in totals and mono_ns - self._reclaimed_ns >= CALM_NS
        self._before = (mono_ns, cpu, totals)
        return fields


    def _memory_and_disks(self) -> dict[str, Any]:
        """Counts since the last reading of these files: refaults, direct_reclaims, oom_kills, device_bytes,
        device_requests_s; the wait of the slowest disk, device_wait_ms."""
        fields: dict[str, Any] = {}
        reclaim, disks = self.parsed("vmstat", parse_vmstat), self.parsed("diskstats", parse_diskstats)
        reclaim_then, disks_then = self._shortage
        if reclaim is not None and reclaim_then is not None:
            for name, now, then in zip(Reclaim._fields, reclaim, reclaim_then, strict=True):
                if now is not None and then is not None and now >= then:
                    fields[name] = now - then
        if disks is not None and disks_then is not None:
            moved, spent_ms, slowest = 0, 0, None
            for device, disk in disks.items():
                before = disks_then.get(device)
                if before is None or disk.requests < before.requests or disk.moved < before.moved:
                    continue  # plugged in since, or its counters began again
                moved += disk.moved - before.moved
                spent_ms += max(0, disk.wait_ms - before.wait_ms)
                if (requests := disk.requests - before.requests) >= WAIT_REQUESTS:
                    slowest = max(slowest or 0.0, (disk.wait_ms - before.wait_ms) / requests)
            if disks:
                fields.update(device_bytes=moved, device_requests_s=spent_ms / 1000)
            if slowest is not None:
                fields["device_wait_ms"] = round(max(0.0, slowest), 2)
        self._shortage = reclaim, disks
        return fields


def is_procfs(root: Path) -> bool:
    """True when `root` is a mounted procfs and not a recorded tree."""
    try:
        real = os.path.realpath(root).encode()
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                head, _, tail = line.partition(b" - ")
                if tail.startswith(b"proc ") and head.split()[4] == real:
                    return True
    except OSError:
        pass
    return False


def own_namespace(root: Path) -> bool:
    """True when the tree shows the pid namespace that this process is in."""
    try:
        return os.readlink(root / "self") == str(os.getpid())
    except OSError:
        return False


def read_facts(machine: Machine, root: Path, live: bool) -> tuple[Facts, float]:
    """Facts, and the epoch seconds of the boot. Raises HostError for a tree that is missing or holds no processes."""
    if not os.path.isdir(root):
        raise HostError(f"{root}: not a directory")
    cpu, memory = machine.cpu(whole=True), machine.memory()
    if cpu is None and memory is None and not _has_processes(root):
        raise HostError(f"{root}: holds no processes; is /proc mounted?")
    name = machine.read("sys/kernel/hostname", 256)
    if live:
        boot_time = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    else:
        boot_time = float(cpu.boot_time) if cpu and cpu.boot_time else 0.0
    facts = Facts("linux", name.decode("utf-8", "backslashreplace").strip() if name else os.uname().nodename,
                  _boot_id(machine, boot_time), cpu.cpus if cpu else os.cpu_count() or 1, memory[0] if memory else None,
                  os.getpid() if own_namespace(root) else None)
    return facts, boot_time


def _boot_id(machine: Machine, boot_time: float) -> str:
    """The kernel's id of this boot. A sandbox may hide it; the minute of the boot distinguishes two boots as well, but
    moves when the clock is set."""
    boot_id = machine.read("sys/kernel/random/boot_id", 64)
    known = boot_id.decode("ascii", "replace").strip() if boot_id else ""
    return known or (f"boot-{int(boot_time) // 60}" if boot_time > 0 else "unknown")


def _has_processes(root: Path) -> bool:
    """False for a directory that can be listed and holds no process."""
    try:
        return any(name.isdigit() for name in os.listdir(root))
    except OSError:
        return True  # every reading reports that


def uptime(machine: Machine, live: bool) -> Callable[[], float]:
    """Seconds since the boot: CLOCK_BOOTTIME, or the file `uptime` of a recorded tree."""
    if live:
        return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    return lambda: _recorded_uptime(machine)


def _recorded_uptime(machine: Machine) -> float:
    data = machine.read("uptime", 64)
    try:
        return float(data.split()[0]) if data else 0.0
    except ValueError:
        return 0.0


def shows_own_pids(root: Path) -> bool:
    """True when /proc/loadavg is the kernel's: a container may have another file mounted over it (lxcfs, which
    refreshes it every some seconds), whose last pid is not that of the last process."""
    try:
        return os.stat(root / "loadavg").st_dev == os.stat(root).st_dev
    except OSError:
        return False
