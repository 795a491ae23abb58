"""macOS as a whole: what is fixed for a boot, the clocks, and the machine's part of the closing row."""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Callable
from typing import Any

from rogue_hunter.host.macos.abi import PROCESSOR_CPU_LOAD_INFO
from rogue_hunter.host.macos.decode import busy_cores, decode_cpu_load, decode_timeval
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
        # macOS before 10.14 has none. The boot time moves when the clock is set, so only its minute is taken.
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


_FREE_PAGES = ("vm.page_free_count", "vm.page_pageable_external_count", "vm.page_purgeable_count")
"""Pages that can be had without compressing or swapping: free, file-backed (the speculative ones included) and
purgeable ones; the complement of what Activity Monitor calls memory used."""
STALE_NS = 5_000_000_000


class Machine:
    """The machine's fields of the closing row; flows are differences between two calls.

    host_statistics and host_statistics64 are not used: since macOS 10.14 the kernel answers all programs together only
    2 to 10 times a second, and gives everyone else a cached answer without an error (xnu, rate_limit_host_statistics).
    host_processor_info and sysctl have no such limit.
    """

    def __init__(self, library: Library, mono: Callable[[], int]) -> None:
        self._library, self._mono = library, mono
        # Each mach_host_self adds a reference to a port name: once is enough for the life of the process.
        self._port = library.mach_host_self()
        self._page = sysctl_int(library, "hw.pagesize") or 4096
        self._memory = sysctl_int(library, "hw.memsize") or 0
        self._before: list[tuple[int, int]] | None = None
        self._cpus, self._info, self._words = ctypes.c_uint32(), ctypes.c_void_p(), ctypes.c_uint32()
        self._available: int | None = None
        self._read_ns = 0
        self.refresh()

    def read(self, now: int) -> dict[str, Any]:
        """cpu_busy_cores and memory_available_bytes; what cannot be known is left out. `now` is the clock of the beat,
        nanoseconds."""
        fields: dict[str, Any] = {}
        if (busy := self._busy_cores()) is not None:
            fields["cpu_busy_cores"] = busy
        if now - self._read_ns > STALE_NS:
            self.refresh()  # the worker hangs, or the beat paused
        if self._available is not None:
            fields["memory_available_bytes"] = self._available
        return fields

    def refresh(self) -> None:
        """Read the available memory: once a second, in the worker."""
        pages = [sysctl_int(self._library, name) for name in _FREE_PAGES]
        known = [count for count in pages if count is not None]
        self._available = min(self._memory, sum(known) * self._page) if len(known) == len(pages) else None
        self._read_ns = self._mono()

    def _busy_cores(self) -> float | None:
        """The kernel's ticks of 10 ms need no clock of ours. The array is ours to release."""
        if self._library.host_processor_info(self._port, PROCESSOR_CPU_LOAD_INFO, ctypes.byref(self._cpus),
                                             ctypes.byref(self._info), ctypes.byref(self._words)) != 0:
            return None
        address, count = self._info.value or 0, self._words.value
        try:
            now = decode_cpu_load((ctypes.c_uint32 * count).from_address(address)[:])
        finally:
            self._library.vm_deallocate(self._library.task, address, 4 * count)
        before, self._before = self._before, now
        return None if before is None else busy_cores(now, before)
