"""Read one process by a descriptor of /proc/PID, which fails once the process is gone, even if its pid is reused."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from rogue_hunter.files import read_start
from rogue_hunter.host.linux.parse import Stat, parse_stat
from rogue_hunter.schema.field import Key

T = TypeVar("T")


def read(at: int | None, name: str | Path, size: int = 65536) -> bytes:
    """At most `size` bytes of a file, relative to the directory descriptor `at`. Raises OSError."""
    return read_start(name, size, dir_fd=at)


def read_or(at: int | None, name: str | Path, size: int = 65536) -> tuple[bytes, str]:
    """The bytes, and ok, denied, gone or failed."""
    try:
        return read(at, name, size), "ok"
    except PermissionError:
        return b"", "denied"
    except (FileNotFoundError, ProcessLookupError):
        return b"", "gone"
    except OSError:
        return b"", "failed"


def numbers(directory: Path) -> list[int]:
    """The names in a directory that are numbers (pids, thread ids), sorted; none if it cannot be read."""
    try:
        return sorted(int(name) for name in os.listdir(directory) if name.isdigit())
    except OSError:
        return []


class Gone(Exception):
    """The process has exited, or another one has its pid."""


@contextmanager
def pinned(root: Path, key: Key | int) -> Iterator[tuple[int, Stat]]:
    """A descriptor of the directory of the process `key`, and its stat. With a pid alone: the process that has it now.

    Raises Gone when no process has this identity.
    """
    pid = key if isinstance(key, int) else key[0]
    try:
        at = os.open(root / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Gone(f"process {pid} is gone") from error
    try:
        try:
            stat = parse_stat(read(at, "stat", 4096))
        except (OSError, ValueError) as error:
            raise Gone(f"process {pid} is gone") from error
        if not isinstance(key, int) and stat.start != key[1]:
            raise Gone(f"process {pid} is gone: another process has its pid")
        yield at, stat
    finally:
        os.close(at)


def still(at: int, start: int) -> bool:
    """True when the process of `at` is alive and started at `start`."""
    try:
        return parse_stat(read(at, "stat", 4096)).start == start
    except (OSError, ValueError):
        return False


class Late(Exception):
    """A call that did not return in time; its thread still waits."""


def bounded(call: Callable[[], T], seconds: float) -> T:
    """The value of `call`, called in another thread. Raises Late after `seconds`, and what `call` raises.

    Reading a process whose memory map is locked blocks until it is unlocked and cannot be interrupted. The thread
    stays blocked; it is a daemon, so this process can exit.
    """
    box: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            box.append(call())
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=run, name="rh-forensics-read", daemon=True)
    worker.start()
    worker.join(seconds)
    if failed:
        raise failed[0]
    if not box:
        raise Late(f"timeout after {seconds:g} s")
    return box[0]


class Pressure(NamedTuple):
    """avg10 of /proc/pressure/*, percent; None if the line is missing."""

    some: float | None
    full: float | None


def parse_pressure_avg10(data: bytes) -> Pressure:
    """The first averages of `some avg10=0.04 avg60=... total=...` and of the line `full`."""
    found: dict[bytes, float] = {}
    for line in data.splitlines():
        kind, _, rest = line.partition(b" ")
        if rest.startswith(b"avg10="):
            try:
                found[kind] = float(rest[6:].split(None, 1)[0])
            except (ValueError, IndexError):
                continue
    return Pressure(found.get(b"some"), found.get(b"full"))


def is_native(auxv: bytes) -> bool:
    """True when the auxiliary vector has 64-bit pairs: the process has the architecture of the kernel.

    Keys of the vector are below 64 (include/uapi/linux/auxvec.h); read as 64-bit, a 32-bit vector holds an address
    in the upper half of its first key.
    """
    if len(auxv) < 16 or struct.calcsize("P") != 8:
        return len(auxv) >= 8 and struct.calcsize("P") == 4
    return all(key < 256 for key in struct.unpack_from("=QxxxxxxxxQ", auxv.ljust(32, b"\0")))
