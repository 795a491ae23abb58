"""A process as it is now, read for the decision whether it may be signalled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rogue_hunter.reaper.signals import Handle
from rogue_hunter.rules.patterns import Program, program_of
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

ANCESTORS_MAX = 1000
"""A chain of parents is never this long; with a broken /proc the search must end."""


class Unreadable(Exception):
    """Something that a decision needs may not be read; the text says what."""


@dataclass(frozen=True, slots=True)
class Live:
    """One process now.

    `row` holds the fields of a process record that need one reading (no rates). `uids` are real, effective, saved
    and file system user. `leader` is the process that the pid's thread belongs to; the pid itself unless it is a
    thread's. `session` is the pid of the session's leader, 0 if that is outside of the pid namespace, None if unknown.
    `age_s` is measured on the clock that start times count on, so setting the wall clock does not change it.
    `located` is `program` with the whole path of a script.
    """

    key: Key
    row: Row
    uids: tuple[int, ...]
    leader: int
    session: int | None = 0
    kernel_thread: bool = False
    age_s: float = 0.0
    program: Program = field(default=Program((), ""))
    located: Program = field(default=Program((), ""))

    @property
    def pid(self) -> int:
        """The process id."""
        return self.key[0]

    @property
    def dead(self) -> bool:
        """Exited, and its parent has not waited for it."""
        return self.row.get("state") == "defunct" and self.row.get("threads", 1) <= 1


@dataclass(frozen=True, slots=True)
class Me:
    """The process that sends the signals. `uids` are real, effective and saved user; `ancestors` every parent up
    to the first process; `session` the leader of the session; `own_pid_namespace` whether pids are those of a
    container, where the system's processes have no low ones. Processes that started up to `hidden_before` (clock ticks)
    may be ancestors too: one of these is hidden from this user (hidepid of proc(5)), so what is above it is unknown."""

    pid: int
    uids: tuple[int, ...]
    ancestors: frozenset[int]
    session: int
    own_pid_namespace: bool = False
    hidden_before: int = 0


class Machine(Protocol):
    """Processes of this machine that can be read and signalled."""

    def boot_id(self) -> str:
        """Identity of this boot."""
        ...

    def open(self, pid: int) -> Handle:
        """Open a handle of a process. Raises Gone, NotAProcess, Unsupported."""
        ...

    def read(self, pid: int) -> Live:
        """Read a process. Raises Gone, Unreadable."""
        ...

    def me(self) -> Me:
        """The process that asks, with its ancestors."""
        ...

    def ends_with(self, pid: int) -> list[int]:
        """The processes that the kernel ends with this one: those of the pid namespace of which it is the first."""
        ...

    def bundle(self, pid: int) -> Row:
        """What the process is doing, as evidence; what cannot be read is left out. Never raises."""
        ...


def live(key: Key, row: Row, uids: tuple[int, ...], argv: Sequence[str] = (), directory: str = "",
         **more: object) -> Live:
    """A Live with the names of `row`. Rules see the arguments as they are (`argv`): what protects a process may lie
    under the masks that cover secrets in a row. For the whitelist a script has its whole path below the working
    `directory`; not for rules, whose patterns rh-pipe searches on its main thread only, in the names of the row."""
    seen = {**row, "cmdline": " ".join(argv)} if argv and "cmdline" in row else row
    return Live(key, row, uids, program=program_of(seen), located=program_of(seen, directory), **more)  # type: ignore[arg-type]


def my_uids() -> tuple[int, ...]:
    """Real, effective and, where the system reports it, saved user id."""
    return os.getresuid() if hasattr(os, "getresuid") else (os.getuid(), os.geteuid())
