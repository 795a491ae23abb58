"""Whose parent died. Remembered from before the kernel gives an orphan to another parent, because after that nothing
of it can be told any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

SERVICE_MANAGERS = frozenset({"systemd", "launchd"})
"""What else than pid 1 takes in orphans: systemd --user does."""

SHELLS = frozenset({"ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"})
"""As pid 1, in a container, these have children of their own beside the orphans that fall to them."""


@dataclass(slots=True)
class Kin:
    """What is known of a process's parent: its pid, `name[pid]`, whether it died, and which one did."""

    ppid: int
    parent: str = ""
    orphan: bool | None = None
    orphan_of: str = ""

    def now_child_of(self, ppid: int) -> None:
        """A process changes its parent in one way only: it loses it."""
        if ppid != self.ppid:
            if self.ppid > 0:
                self.bereaved()
            self.ppid = ppid

    def told(self, row: Row) -> None:
        """What the row says: its parent now, and of which parent it is the orphan where somebody saw that."""
        if "ppid" in row:
            self.now_child_of(row["ppid"])
        if "orphan_of" in row:
            self.orphan, self.orphan_of = True, row["orphan_of"]

    def bereaved(self) -> None:
        """The parent died."""
        self.orphan, self.orphan_of = True, self.orphan_of or self.parent


class Family:
    """Parents and children of one boot."""

    def __init__(self) -> None:
        self._by_pid: dict[int, Key] = {}
        self._children: dict[Key, dict[Key, Kin]] = {}
        self._parents: dict[Key, Key] = {}

    def born(self, keys: Iterable[Key]) -> None:
        """These exist now. All of a tick come before any is met, because a child may be listed before its parent."""
        for key in keys:
            self._by_pid[key[0]] = key

    def meet(self, key: Key, row: Row, processes: dict[Key, Row]) -> Kin:
        """See a process for the first time.

        A child of pid 1 or of a service manager has lost another parent, unless it is a service: that is its manager's
        child by design. Where pid 1 is a shell nobody knows.
        """
        kin = Kin(row.get("ppid", 0))
        manager = shell = False
        parent = self._by_pid.get(kin.ppid, key)
        if parent != key and parent in processes:
            kin.parent = f"{processes[parent].get('command', '')}[{kin.ppid}]"
            command = processes[parent].get("command")
            manager, shell = command in SERVICE_MANAGERS, kin.ppid == 1 and command in SHELLS
            self._children.setdefault(parent, {})[key] = kin
            self._parents[key] = parent
        if kin.ppid > 0 and not shell:
            kin.orphan = (kin.ppid == 1 or manager) and not str(row.get("cgroup", "")).endswith(".service")
        kin.told(row)
        return kin

    def forget(self, keys: Iterable[Key]) -> None:
        """Nothing more is to be known of these. They may live: nobody is bereaved by it."""
        for key in keys:
            self._leave(key)

    def buried(self, keys: Iterable[Key]) -> set[Key]:
        """These are gone. Gives their children, whose rows need not say so yet: a process that does not run is not
        read again."""
        orphans: set[Key] = set()
        for key in keys:
            for child, kin in self._leave(key).items():
                kin.bereaved()
                orphans.add(child)
        return orphans

    def _leave(self, key: Key) -> dict[Key, Kin]:
        """Take one out of the family; gives its children, who have no parent in it any more."""
        if self._by_pid.get(key[0]) == key:
            del self._by_pid[key[0]]
        parent = self._parents.pop(key, None)
        if parent in self._children:
            self._children[parent].pop(key, None)
        children = self._children.pop(key, {})
        for child in children:
            del self._parents[child]
        return children
