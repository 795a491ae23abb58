"""What the hosts have in common: their interface, the facts and snapshots that they give, and the names of user ids.

Names are looked up by a thread of their own, because a user database may ask the network: a directory service that
hangs delays names and nothing else.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from os import getpid
from typing import Any, Protocol

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.errors import UNAVAILABLE, RogueHunterError
from rogue_hunter.worker import Worker


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


USER_RETRY_S = 60.0
"""A user id without a name is looked up again after this long: a directory service may have been down."""


class Users:
    """Names of user ids, looked up by a thread. `mono` is a clock in nanoseconds."""

    def __init__(self, mono: Callable[[], int] = time.monotonic_ns,
                 lookup: Callable[[int], str | None] | None = None) -> None:
        self._mono = mono
        self._names: dict[int, str | None] = {}
        self._asked: dict[int, int] = {}
        find = lookup or user_name
        self._worker: Worker[int, tuple[int, str | None]] = Worker("users", lambda uid: (uid, find(uid)))

    def name(self, uid: int) -> str | None:
        """The name as far as it is known; what is not known is looked up."""
        name = self._names.get(uid)
        if name is None:
            now, asked = self._mono(), self._asked.get(uid)
            if asked is None or (uid in self._names and now - asked >= USER_RETRY_S * 1e9):
                self._asked[uid] = now
                self._names.pop(uid, None)
                self._worker.submit(uid)
        return name

    def soon(self, uid: int, seconds: float) -> str | None:
        """The name; the first time that it is asked for, it is waited for at most so long."""
        first = uid not in self._asked
        if self.name(uid) is None and first:
            self.wait(seconds)
        self.found()
        return self._names.get(uid)

    def found(self) -> dict[int, str]:
        """The names found since the last call."""
        answers = dict(self._worker.collect())
        self._names.update(answers)
        for uid, _ in self._worker.failures():
            self._names[uid] = None
        return {uid: name for uid, name in answers.items() if name is not None}

    def wait(self, seconds: float) -> None:
        """Wait until all lookups are done, at most so long."""
        self._worker.wait(seconds)

    def close(self) -> None:
        """End the thread; a lookup that hangs is left behind."""
        self._worker.close(0.1)


def user_name(uid: int) -> str | None:
    """The name of a user id in the system's user database, None without one."""
    try:
        return pwd.getpwuid(uid).pw_name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except (KeyError, OSError, OverflowError):
        return None
