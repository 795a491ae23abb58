"""The interface of a host: facts of the machine, and a snapshot of all processes at every beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import getpid
from typing import Any, Protocol

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.errors import UNAVAILABLE, RogueHunterError


class HostError(RogueHunterError):
    """The operating system cannot be read at all: no /proc, no libproc."""

    code = UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the machine is up. `os` is linux or macos; `own_pid` is the pid of this process as the
    host lists it, None when it does not: a recorded tree, another pid namespace."""

    os: str
    host: str
    boot_id: str
    cpus: int
    memory_total_bytes: int | None
    own_pid: int | None = field(default_factory=getpid)


@dataclass(slots=True)
class Snapshot:
    """One reading of every process.

    `processes` maps identity to row; a row equal to that of the snapshot before is the same object. `changed` holds the
    identities with another row than before, the started ones included; `exited` those that are gone. `active` counts
    the processes that ran, `cpu_cores` is the CPU use of all processes seen (None before rates are
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
        """Release descriptors and threads."""
        ...
