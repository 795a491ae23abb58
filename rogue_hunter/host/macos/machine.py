"""macOS as a whole: what is fixed for a boot, the clocks, and the machine's part of the closing row."""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Callable
from typing import Any

from rogue_hunter.host.macos.abi import (
    HOST_CPU_LOAD_INFO,
    HOST_CPU_LOAD_INFO_COUNT,
    HOST_VM_INFO64,
    HOST_VM_INFO64_REV1_COUNT,
    HostCpuLoadInfo,
    VmStatistics64,
)
from rogue_hunter.host.macos.decode import decode_available_pages, decode_cpu_load, decode_timeval
from rogue_hunter.host.macos.libproc import Library, sysctl_bytes, sysctl_int, sysctl_text, timebase
from rogue_hunter.host.protocol import Facts, HostError
from rogue_hunter.stream.clock import Clock


def read_facts(library: Library) -> Facts:
    """Facts of this boot. Raises HostError where CPUs and memory of the machine are not known."""
    cpus, memory = sysctl_int(library, "hw.ncpu"), sysctl_int(library, "hw.memsize")
    if not cpus or not memory:
        raise HostError(f"{library.path} gives no hw.ncpu or hw.memsize")
    boot_id = sysctl_text(library, "kern.bootsessionuuid")
    if not boot_id:
        # macOS before 10.15 has none. The boot time moves when the clock is set, so only its minute is taken.
        boot_id = f"boot-{int(boot_time(library) or 0) // 60}"
    host = sysctl_text(library, "kern.hostname") or socket.gethostname()
    return Facts("macos", host, boot_id, cpus, memory)


def boot_time(library: Library) -> float | None:
    """kern.boottime, epoch seconds. Wall clock: it moves when the clock is set, so it identifies no boot."""
    raw = sysctl_bytes(library, "kern.boottime")
    return decode_timeval(raw) if raw is not None and len(raw) == 16 else None


def monotonic_ns(library: Library) -> Callable[[], int]:
    """The clock that stops while the machine sleeps, nanoseconds.

    Python's own monotonic clock is mach_absolute_time and costs an eighth of a ctypes call; a library that was handed
    in brings its own time.
    """
    if not library.injected:
        return time.monotonic_ns
    return _scaled_clock(library.mach_absolute_time, *timebase(library))


def darwin_clock(library: Library) -> Clock:
    """The clocks a beat needs. mach_continuous_time also runs while the machine sleeps, mach_absolute_time does not.

    Both count in the timebase that this program gets (1/1 under Rosetta), unlike the counters of processes.
    """
    return Clock(mono=monotonic_ns(library), sleeping=_scaled_clock(library.mach_continuous_time, *timebase(library)))


def _scaled_clock(read: Callable[[], int], numer: int, denom: int) -> Callable[[], int]:
    if numer == denom:
        return read
    return lambda: read() * numer // denom


class Machine:
    """The machine's fields of the closing row; flows are differences between two calls."""

    def __init__(self, library: Library) -> None:
        self._library = library
        # Each mach_host_self adds a reference to a port name: once is enough for the life of the process.
        self._port = library.mach_host_self()
        self._page = sysctl_int(library, "hw.pagesize") or 4096
        self._memory = sysctl_int(library, "hw.memsize") or 0
        self._before: tuple[int, int] | None = None
        self._cpus = sysctl_int(library, "hw.ncpu") or 1

    def read(self) -> dict[str, Any]:
        """cpu_busy_cores and memory_available_bytes; what cannot be known is left out."""
        fields: dict[str, Any] = {}
        if (busy := self._busy_cores()) is not None:
            fields["cpu_busy_cores"] = busy
        raw = self._statistics(self._library.host_statistics64, HOST_VM_INFO64, HOST_VM_INFO64_REV1_COUNT,
                               VmStatistics64)
        if raw is not None:
            fields["memory_available_bytes"] = min(self._memory, decode_available_pages(raw) * self._page)
        return fields

    def _statistics(self, call: Callable[..., int], flavor: int, words: int,
                    structure: type[ctypes.Structure]) -> bytes | None:
        buffer = ctypes.create_string_buffer(ctypes.sizeof(structure))
        count = ctypes.c_uint32(words)
        return buffer.raw if call(self._port, flavor, buffer, ctypes.byref(count)) == 0 else None

    def _busy_cores(self) -> float | None:
        """Busy CPUs as the busy part of all ticks counted since the last call: the kernel's ticks of 10 ms need no
        clock of ours, and a CPU that was off line counted none."""
        raw = self._statistics(self._library.host_statistics, HOST_CPU_LOAD_INFO, HOST_CPU_LOAD_INFO_COUNT,
                               HostCpuLoadInfo)
        if raw is None:
            return None
        now, before = decode_cpu_load(raw), self._before
        self._before = now
        if before is None:
            return None
        # Modulo: each state's 32 bits wrap after 497 days of one CPU.
        busy, idle = (now[0] - before[0]) % 2**32, (now[1] - before[1]) % 2**32
        return round(self._cpus * busy / (busy + idle), 3) if busy + idle else None


__all__ = ["Machine", "boot_time", "darwin_clock", "monotonic_ns", "read_facts"]
