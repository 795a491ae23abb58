"""Reading the operating system: two methods, and the one place that picks the platform."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rogue_hunter.schema import Key
from rogue_hunter.tick import Row


class HostError(Exception):
    """The operating system cannot be read at all: no /proc, no libproc. A command exits 69 with this text."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the machine is up. `os` is linux or macos."""

    os: str
    host: str
    boot_id: str
    cpus: int
    memory_total_bytes: int


@dataclass(slots=True)
class Snapshot:
    """One reading of every process.

    `processes` maps identity to row; a row that says the same as in the snapshot before is the same object. `changed`
    holds the identities with another row than before, the started ones included; `exited` the identities gone.
    `active` counts the processes that ran, `cpu_cores` is the CPU use of all processes seen (None before rates are
    known). `machine` holds fields of the closing row that the host knows: cpus, cpu_busy_cores,
    memory_available_bytes, pressure_*; absent where unknown. `mono_ns` is the clock at the reading.
    """

    mono_ns: int
    processes: dict[Key, Row]
    changed: set[Key]
    exited: tuple[Key, ...] = ()
    started: int = 0
    active: int = 0
    unreadable: int = 0
    errors: int = 0
    cpu_cores: float | None = None
    machine: dict[str, Any] = field(default_factory=dict)


class Host(Protocol):
    """A machine whose processes can be read. All conversion of units is inside."""

    def facts(self) -> Facts:
        """Facts of this boot. Raises HostError."""
        ...

    def snapshot(self) -> Snapshot:
        """Read every process now. Never raises for a single process: what fails is counted. Raises HostError."""
        ...

    def close(self) -> None:
        """Give back descriptors and threads."""
        ...


def here(proc_root: str | Path = "/proc", libproc: str | None = None) -> Host:
    """The host of this machine.

    `libproc` (or ROGUE_HUNTER_LIBPROC) names a library from which every libproc and libSystem function is taken; the
    macOS host is then chosen on any platform. Raises HostError where neither host fits.
    """
    library = _library(libproc)
    if library or sys.platform == "darwin":
        from rogue_hunter.host.darwin import DarwinHost

        return DarwinHost(library=library)
    if sys.platform == "linux" or str(proc_root) != "/proc":
        from rogue_hunter.host.linux import LinuxHost
        from rogue_hunter.host.linux.record import Replay, is_recording

        return Replay(Path(proc_root)) if is_recording(Path(proc_root)) else LinuxHost(Path(proc_root))
    raise HostError(f"cannot read processes on {sys.platform}")


def lister(proc_root: str | Path = "/proc", libproc: str | None = None) -> Callable[[], int]:
    """What only lists the processes, and gives their number. Raises HostError where there is no list."""
    library = _library(libproc)
    if library or sys.platform == "darwin":
        from rogue_hunter.host.darwin_readers import PidLister
        from rogue_hunter.host.libproc import load

        pids = PidLister(load(library))
        return lambda: len(pids())
    if not os.path.isdir(proc_root):
        raise HostError(f"{proc_root} is no directory")
    return lambda: sum(name.isdigit() for name in os.listdir(proc_root))


def _library(libproc: str | None) -> str | None:
    return libproc or os.environ.get("ROGUE_HUNTER_LIBPROC") or None
