"""libproc and libSystem of macOS through ctypes: what is called, with which types, and what an answer means.

Nothing is loaded when this is imported, so it imports on any platform; `load` takes the path of the library, so the
same code runs on a fake one. Every call that reads one process returns a pair: the raw bytes and 0, or None and the
errno. No exception is raised on the beat for a process that is gone or denied.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from ctypes import POINTER, c_char_p, c_int, c_int32, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from itertools import repeat
from typing import Any

from rogue_hunter.host.macos.abi import (
    CTL_KERN,
    EINVAL,
    ESRCH,
    KERN_PROC,
    KERN_PROC_PID,
    KERN_PROCARGS2,
    PROC_PIDPATHINFO_MAXSIZE,
    RUSAGE,
    S_IFCHR,
    KinfoProc,
    MachTimebaseInfo,
)
from rogue_hunter.host.protocol import HostError

SYSTEM_LIBRARY = "/usr/lib/libSystem.B.dylib"
"""It re-exports libproc. dyld opens it from its shared cache: since macOS 11 no such file lies on the disk."""

Answer = tuple[bytes | None, int]
"""Raw bytes and 0, or None and the errno."""

SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "proc_listallpids": (c_int, (c_void_p, c_int)),
    "proc_pidinfo": (c_int, (c_int, c_int, c_uint64, c_void_p, c_int)),
    # Declared with `rusage_info_t *`, which is a void **; what it wants is the structure's own address.
    "proc_pid_rusage": (c_int, (c_int, c_int, c_void_p)),
    "proc_pidpath": (c_int, (c_int, c_void_p, c_uint32)),
    "proc_name": (c_int, (c_int, c_void_p, c_uint32)),
    "sysctl": (c_int, (POINTER(c_int), c_uint, c_void_p, POINTER(c_size_t), c_void_p, c_size_t)),
    "sysctlbyname": (c_int, (c_char_p, c_void_p, POINTER(c_size_t), c_void_p, c_size_t)),
    "mach_timebase_info": (c_int, (c_void_p,)),
    "mach_absolute_time": (c_uint64, ()),
    "mach_continuous_time": (c_uint64, ()),
    "mach_host_self": (c_uint32, ()),
    "host_processor_info": (c_int, (c_uint32, c_int, POINTER(c_uint32), POINTER(c_void_p), POINTER(c_uint32))),
    "vm_deallocate": (c_int, (c_uint32, c_size_t, c_size_t)),
    "pthread_set_qos_class_self_np": (c_int, (c_uint32, c_int)),
    "devname_r": (c_char_p, (c_int32, ctypes.c_uint16, c_void_p, c_int)),
}
"""Function -> its result and argument types. tests/darwin/test_abi.py proves each against Apple's headers."""

OPTIONAL: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "proc_signal_with_audittoken": (c_int, (c_void_p, c_int)),
}
"""Functions that older systems lack."""


class Library:
    """The functions of SIGNATURES, bound. Raises HostError when the library or one of them is missing."""

    proc_signal_with_audittoken: Callable[..., int] | None

    def __init__(self, path: str | None = None) -> None:
        self.injected = path is not None
        self.path = path or SYSTEM_LIBRARY
        if not self.injected and sys.platform != "darwin":
            raise HostError(f"there is no libproc on {sys.platform}; name one with ROGUE_HUNTER_LIBPROC")
        try:
            self.handle = ctypes.CDLL(self.path, use_errno=True)
        except OSError as error:
            raise HostError(f"cannot load {self.path}: {error}") from None
        for name, (result, arguments) in SIGNATURES.items():
            try:
                function = getattr(self.handle, name)
            except AttributeError:
                raise HostError(f"{self.path} lacks {name}") from None
            self._bind(name, function, result, arguments)
        try:
            self.task = int(c_uint32.in_dll(self.handle, "mach_task_self_").value)
        except ValueError:
            raise HostError(f"{self.path} lacks mach_task_self_") from None
        for name, (result, arguments) in OPTIONAL.items():
            function = getattr(self.handle, name, None)
            self._bind(name, function, result, arguments)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Of the functions of SIGNATURES, which are bound when the library is loaded, only their common type."""
        raise AttributeError(name)

    def bare(self, name: str) -> Callable[..., int]:
        """The same function without declared argument types, for the gate: it takes ints, which it passes as C ints,
        and what `from_param` has converted beforehand. 0.15 us a call, where a typed one takes 0.33."""
        function: Callable[..., int] = self.handle[name]
        return function

    def _bind(self, name: str, function: Any, result: Any, arguments: tuple[Any, ...]) -> None:
        if function is not None:
            function.restype = result
            function.argtypes = arguments
        setattr(self, name, function)


@functools.cache
def load(path: str | None = None) -> Library:
    """The library at `path`, or the system's; loaded once."""
    return Library(path)


def list_threads(library: Library, pid: int, flavor: int, limit: int = 256) -> list[int]:
    """Handles of up to `limit` threads, for PROC_PIDTHREADINFO's argument; empty when they may not be seen."""
    handles = (c_uint64 * limit)()
    size = library.proc_pidinfo(pid, flavor, 0, ctypes.addressof(handles), ctypes.sizeof(handles))
    return handles[: max(0, size) // 8]


def process_path(library: Library, pid: int) -> bytes | None:
    """Path of the program; given for every user's processes, None for a deleted or defunct one."""
    buffer = ctypes.create_string_buffer(PROC_PIDPATHINFO_MAXSIZE)
    size: int = library.proc_pidpath(pid, buffer, len(buffer))
    return buffer.raw[:size] if size > 0 else None


def process_kinfo(library: Library, pid: int) -> Answer:
    """The raw KinfoProc of any user's process, defunct or not; ESRCH when there is none."""
    buffer = ctypes.create_string_buffer(ctypes.sizeof(KinfoProc))
    size, errno = _sysctl(library, (CTL_KERN, KERN_PROC, KERN_PROC_PID, pid), buffer)
    return (buffer.raw, 0) if size == len(buffer) else (None, errno or ESRCH)


def process_arguments(library: Library, pid: int, buffer: ctypes.Array[ctypes.c_char]) -> Answer:
    """What KERN_PROCARGS2 gives, read into `buffer` (kern.argmax bytes). The most expensive call: once per identity,
    never on the beat. EINVAL and EIO also mean defunct, in exec, or another user's."""
    size, errno = _sysctl(library, (CTL_KERN, KERN_PROCARGS2, pid), buffer)
    return (None, errno or EINVAL) if size is None else (ctypes.string_at(buffer, size), 0)


def _sysctl(library: Library, name: tuple[int, ...],
            buffer: ctypes.Array[ctypes.c_char]) -> tuple[int | None, int]:
    """Fill the buffer: the bytes written and 0, or None and the errno."""
    size = c_size_t(len(buffer))
    failed = library.sysctl((c_int * len(name))(*name), len(name), buffer, ctypes.byref(size), None, 0) != 0
    return (None, ctypes.get_errno()) if failed else (size.value, 0)


def sysctl_bytes(library: Library, name: str) -> bytes | None:
    """The value of a sysctl, raw; None when this machine has no such name."""
    size = c_size_t(0)
    if library.sysctlbyname(name.encode(), None, ctypes.byref(size), None, 0) != 0 or size.value == 0:
        return None
    buffer = ctypes.create_string_buffer(size.value)
    if library.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, 0) != 0:
        return None
    return buffer.raw[: size.value]


def sysctl_int(library: Library, name: str) -> int | None:
    """The value of a sysctl of 4 or 8 bytes."""
    value = sysctl_bytes(library, name)
    return int.from_bytes(value, sys.byteorder) if value is not None and len(value) in (4, 8) else None


def sysctl_text(library: Library, name: str) -> str | None:
    """The value of a string sysctl."""
    value = sysctl_bytes(library, name)
    return value.split(b"\0", 1)[0].decode("utf-8", "backslashreplace") if value is not None else None


def timebase(library: Library) -> tuple[int, int]:
    """mach_timebase_info: (numer, denom), ticks of mach_absolute_time * numer / denom = nanoseconds."""
    info = MachTimebaseInfo()
    if library.mach_timebase_info(ctypes.addressof(info)) != 0 or not info.numer or not info.denom:
        raise HostError("mach_timebase_info failed")
    return info.numer, info.denom


def seconds_per_tick(library: Library) -> float:
    """Seconds in one tick of a process's time counters.

    sysctl hw.tbfrequency first: a program translated by Rosetta gets a timebase of 1/1, while the counters of
    other processes stay in 24 MHz ticks and would read 41.67 times too small.
    """
    frequency = sysctl_int(library, "hw.tbfrequency")
    if frequency:
        return 1.0 / frequency
    numer, denom = timebase(library)
    return numer / denom / 1e9


def device_name(library: Library, device: int) -> str | None:
    """Name of a character device, such as ttys003. May read a file: never on the beat."""
    buffer = ctypes.create_string_buffer(64)
    name = library.devname_r(device, S_IFCHR, buffer, len(buffer))
    text = name.decode("utf-8", "backslashreplace") if name else ""
    return text if text and text != "??" else None


def set_thread_qos(library: Library, qos: int) -> bool:
    """Give the calling thread a quality of service, so that the scheduler does not defer it under load."""
    return bool(library.pthread_set_qos_class_self_np(qos, 0) == 0)


class PidLister:
    """proc_listallpids with a buffer that grows. A full buffer may be a cut list: it is read again into a larger."""

    def __init__(self, library: Library, capacity: int = 2048) -> None:
        self._list = library.proc_listallpids
        self._buffer = (c_int * capacity)()
        self._raw = b""
        self._pids: list[int] = []

    def __call__(self) -> list[int]:
        """All process ids, in no order; the same list as long as the system gives the same, so it is not to be
        altered. Raises HostError when there is no list."""
        while True:
            capacity = len(self._buffer)
            ctypes.set_errno(0)
            count = self._list(self._buffer, ctypes.sizeof(self._buffer))
            if count <= 0:
                raise HostError(f"proc_listallpids failed, errno {ctypes.get_errno()}")
            if count < capacity:
                raw = ctypes.string_at(self._buffer, count * ctypes.sizeof(c_int))
                if raw != self._raw:
                    self._raw, self._pids = raw, self._buffer[:count]
                return self._pids
            self._buffer = (c_int * (2 * capacity))()


def _shared(size: int) -> tuple[bytearray, ctypes.Array[ctypes.c_char]]:
    """A buffer that Python compares in place, and the same memory for C to write to."""
    buffer = bytearray(size)
    return buffer, (ctypes.c_char * size).from_buffer(buffer)


class RusageReader:
    """proc_pid_rusage at the newest flavor that the kernel knows.

    An unknown flavor is EINVAL for every process; a flavor that has once worked is not given up again. The answer is in
    `buffer` until the next is asked for.
    """

    good = 0
    """What the function returns when it has answered."""

    def __init__(self, library: Library, version: int = len(RUSAGE) - 1) -> None:
        self._call = library.proc_pid_rusage
        self._bare = library.bare("proc_pid_rusage")
        self._proven = False
        self._use(version)

    def _use(self, version: int) -> None:
        self.version = version
        self.buffer, self._memory = _shared(ctypes.sizeof(RUSAGE[version]))
        self._address = ctypes.addressof(self._memory)

    def each(self, pids: Iterable[int]) -> Iterator[int]:
        """Ask about one after another as the results are taken: `good`, or the errno is set."""
        return map(self._bare, pids, repeat(c_int.from_param(self.version)), repeat(ctypes.byref(self._memory)))

    def __call__(self, pid: int) -> Answer:
        """The raw structure RUSAGE[self.version] of `pid`."""
        while True:
            if self._call(pid, self.version, self._address) == 0:
                self._proven = True
                return bytes(self.buffer), 0
            errno = ctypes.get_errno()
            if errno != EINVAL or self._proven or self.version == 0:
                return None, errno
            self._use(self.version - 1)


class PidInfo:
    """One flavor of proc_pidinfo, with its own buffer of the flavor's exact size, in which the answer is until the next
    is asked for."""

    def __init__(self, library: Library, flavor: int, structure: type[ctypes.Structure]) -> None:
        self._call = library.proc_pidinfo
        self._bare = library.bare("proc_pidinfo")
        self._flavor = flavor
        self.good = self._size = ctypes.sizeof(structure)
        self.buffer, self._memory = _shared(self._size)
        self._address = ctypes.addressof(self._memory)

    def each(self, pids: Iterable[int], argument: int = 1) -> Iterator[int]:
        """Ask about one after another as the results are taken: `good`, or there was no answer."""
        return map(self._bare, pids, repeat(c_int.from_param(self._flavor)), repeat(c_uint64.from_param(argument)),
                   repeat(ctypes.byref(self._memory)), repeat(c_int.from_param(self._size)))

    def __call__(self, pid: int, argument: int = 0) -> Answer:
        """The raw structure. `argument` 1 asks for the defunct too (where the flavor knows them)."""
        ctypes.set_errno(0)
        if self._call(pid, self._flavor, argument, self._address, self._size) == self._size:
            return bytes(self.buffer), 0
        # 0 bytes and errno 0 was seen of processes in exec: not dead, not readable.
        return None, ctypes.get_errno() or EINVAL
