"""The calls that are made for every process: the list of pids, and readers that keep their buffer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from ctypes import c_int, c_uint64
from itertools import repeat

from rogue_hunter.host.macos.abi import EINVAL, RUSAGE
from rogue_hunter.host.macos.libproc import Answer, Library
from rogue_hunter.host.protocol import HostError


def last_errno() -> int:
    """The errno of this thread's last call that failed."""
    return ctypes.get_errno()


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
