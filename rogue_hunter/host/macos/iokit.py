"""GPU time by process, from the IORegistry. Best effort: Apple documents none of it.

The children of every IOAccelerator are its user clients. Each has its creator ("pid 533, WindowServer") and the GPU
time that it used: `accumulatedGPUTime` in nanoseconds, on the client itself (Intel drivers) or in each entry of its
`AppUsage` list (Apple's GPUs). A process has as many clients as it opened, and the time of a closed one is gone, so a
sum that falls is a new beginning. A process without a client has no GPU fields at all.

The framework is called through ctypes where it is there; `ioreg -a` prints the same as a property list and is the way
elsewhere, and the recorded form that tests and bug reports replay. Runs in the worker thread, never on the beat.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import plistlib
import re
import subprocess
from collections.abc import Callable, Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_uint32, c_ulong, c_void_p
from pathlib import Path
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

T = TypeVar("T")

GpuReader = Callable[[], dict[int, int] | None]
"""Returns pid -> GPU time in nanoseconds, or None when it cannot be read."""

IOREG = ("/usr/sbin/ioreg", "-a", "-l", "-r", "-c", "IOAccelerator")
IOREG_TIMEOUT_S = 10.0

_CREATOR = re.compile(r"pid (\d+)(?:,|$)")
_MAX_NS = 2**63 - 1


def parse_creator(text: object) -> int | None:
    """The pid in an IOUserClientCreator such as "pid 533, WindowServer"."""
    found = _CREATOR.match(text) if isinstance(text, str) else None
    return int(found[1]) if found else None


def client_ns(client: dict[str, Any]) -> int | None:
    """GPU time of one user client, nanoseconds; None when it shows none."""
    usage = client.get("AppUsage")
    times: list[Any] = [client.get("accumulatedGPUTime")]
    if isinstance(usage, list):
        times += [entry.get("accumulatedGPUTime") for entry in usage if isinstance(entry, dict)]
    known = [t for t in times if type(t) is int and 0 <= t <= _MAX_NS]
    return sum(known) if known else None


def sum_clients(clients: Iterator[dict[str, Any]]) -> dict[int, int]:
    """pid -> nanoseconds over all its clients."""
    total: dict[int, int] = {}
    for client in clients:
        pid, used = parse_creator(client.get("IOUserClientCreator")), client_ns(client)
        if pid is not None and used is not None:
            total[pid] = total.get(pid, 0) + used
    return total


def parse_ioreg(data: bytes) -> dict[int, int]:
    """pid -> GPU nanoseconds out of what `ioreg -a` prints. Raises ValueError when it is no property list."""
    if not data.strip():
        return {}   # ioreg prints nothing where nothing matches: a machine without a GPU
    try:
        tree = plistlib.loads(data)
    except (plistlib.InvalidFileException, ExpatError, ValueError, TypeError, AttributeError, KeyError, IndexError,
            OverflowError, RecursionError) as error:
        raise ValueError(f"not a property list: {error}") from None
    return sum_clients(_walk(tree))


def _walk(tree: Any) -> Iterator[dict[str, Any]]:
    """Every registry entry below `tree`, once, however deep. An entry that matches is also printed as a root of its
    own when its parent does: its id distinguishes them."""
    seen: set[int] = set()
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            number = node.get("IORegistryEntryID")
            if isinstance(number, int):
                if number in seen:
                    continue
                seen.add(number)
            stack.append(node.get("IORegistryEntryChildren"))
            yield node


def ioreg_reader(run: Callable[[], bytes] | None = None) -> GpuReader:
    """A reader that runs ioreg(8). `run` returns its output and may raise OSError."""
    def read() -> dict[int, int] | None:
        try:
            return parse_ioreg((run or _run_ioreg)())
        except (OSError, ValueError, subprocess.SubprocessError):
            return None

    return read


def _run_ioreg() -> bytes:
    return subprocess.run(IOREG, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=IOREG_TIMEOUT_S, check=True).stdout


def recorded_reader(path: Path) -> GpuReader:
    """A reader of a recorded `ioreg -a` output; the file is read each time."""
    return ioreg_reader(path.read_bytes)


_IOKIT = "/System/Library/Frameworks/IOKit.framework/IOKit"
_CF = "/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation"
_UTF8, _BINARY_PLIST = 0x08000100, 200
_PLANE = b"IOService"
_KEYS = ("IOUserClientCreator", "AppUsage", "accumulatedGPUTime")

# These prototypes could not be compared with headers (Apple's SDK for them is not redistributable): they are from
# Apple's documentation of IOKitLib and CoreFoundation.
_IOKIT_TYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "IOServiceMatching": (c_void_p, (c_char_p,)),
    "IOServiceGetMatchingServices": (c_int, (c_uint32, c_void_p, POINTER(c_uint32))),
    "IOIteratorNext": (c_uint32, (c_uint32,)),
    "IORegistryEntryGetChildIterator": (c_int, (c_uint32, c_char_p, POINTER(c_uint32))),
    "IORegistryEntryCreateCFProperty": (c_void_p, (c_uint32, c_void_p, c_void_p, c_uint32)),
    "IOIteratorIsValid": (c_int, (c_uint32,)),
    "IOIteratorReset": (None, (c_uint32,)),
    "IOObjectRelease": (c_int, (c_uint32,)),
}
_CF_TYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "CFStringCreateWithCString": (c_void_p, (c_void_p, c_char_p, c_uint32)),
    "CFPropertyListCreateData": (c_void_p, (c_void_p, c_void_p, c_long, c_ulong, c_void_p)),
    "CFDataGetLength": (c_long, (c_void_p,)),
    "CFDataGetBytePtr": (c_void_p, (c_void_p,)),
    "CFRelease": (None, (c_void_p,)),
}


class Registry:
    """The IORegistry through IOKit and CoreFoundation. Raises OSError when the frameworks are missing.

    Everything that is created or iterated is released: the worker calls this once a second for months.
    """

    def __init__(self, iokit: str = _IOKIT, core_foundation: str = _CF) -> None:
        self._io = _bound(iokit, _IOKIT_TYPES)
        self._cf = _bound(core_foundation, _CF_TYPES)
        self._keys = {key: self._cf["CFStringCreateWithCString"](None, key.encode(), _UTF8) for key in _KEYS}

    def read(self) -> dict[int, int] | None:
        """pid -> GPU nanoseconds; None without an accelerator, or when clients came and went while it was read."""
        accelerators = c_uint32()
        # The matching dictionary is consumed by the call; port 0 is the default main port.
        if self._io["IOServiceGetMatchingServices"](0, self._io["IOServiceMatching"](b"IOAccelerator"),
                                                    byref(accelerators)) != 0 or not accelerators.value:
            return None
        found = self._all(accelerators.value, self._clients)
        if not found or any(clients is None for clients in found):
            return None
        return sum_clients(client for clients in found for client in clients or ())

    def _clients(self, accelerator: int) -> list[dict[str, Any]] | None:
        children = c_uint32()
        if self._io["IORegistryEntryGetChildIterator"](accelerator, _PLANE, byref(children)) != 0:
            return []
        return self._all(children.value, self._properties)

    def _all(self, iterator: int, take: Callable[[int], T]) -> list[T] | None:
        """`take` of each entry. An iterator ends early, without an error, when the registry changes: it is then read
        once more; None if it changes again."""
        try:
            for _ in range(2):
                found = []
                while entry := self._io["IOIteratorNext"](iterator):
                    try:
                        found.append(take(entry))
                    finally:
                        self._io["IOObjectRelease"](entry)
                if self._io["IOIteratorIsValid"](iterator):
                    return found
                self._io["IOIteratorReset"](iterator)
            return None
        finally:
            self._io["IOObjectRelease"](iterator)

    def _properties(self, entry: int) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        for key, name in self._keys.items():
            value = self._io["IORegistryEntryCreateCFProperty"](entry, name, None, 0)
            if value:
                try:
                    properties[key] = self._as_python(value)
                finally:
                    self._cf["CFRelease"](value)
            elif key == "IOUserClientCreator":
                break   # not a user client
        return properties

    def _as_python(self, value: int) -> Any:
        data = self._cf["CFPropertyListCreateData"](None, value, _BINARY_PLIST, 0, None)
        if not data:
            return None
        try:
            size = self._cf["CFDataGetLength"](data)
            return plistlib.loads(ctypes.string_at(self._cf["CFDataGetBytePtr"](data), size))
        except (plistlib.InvalidFileException, ValueError):
            return None
        finally:
            self._cf["CFRelease"](data)


def _bound(path: str, types: dict[str, tuple[Any, tuple[Any, ...]]]) -> dict[str, Callable[..., Any]]:
    library = ctypes.CDLL(path)
    functions: dict[str, Callable[..., Any]] = {}
    for name, (result, arguments) in types.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise OSError(str(error)) from None
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


def system_reader() -> GpuReader:
    """The reader of this Mac: the frameworks, or ioreg where they do not load."""
    try:
        return Registry().read
    except OSError:
        return ioreg_reader()
