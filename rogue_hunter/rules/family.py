"""Which processes are orphans: their parent has exited. Known from the ticks before, because the kernel then gives an
orphan to another parent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rogue_hunter.sampling.units import in_service
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

SERVICE_MANAGERS = frozenset({"systemd", "launchd"})
"""Processes other than pid 1 that become the parent of orphans: systemd --user does (PR_SET_CHILD_SUBREAPER)."""
FIRST = SERVICE_MANAGERS | {"init"}
"""Names of a pid 1 whose other children are services. In a container it is any program, with children of its own."""


@dataclass(slots=True)
class Kin:
    """What is known of a process's parent: its pid, `name[pid]`, whether it exited (None: unknown), and which one did.

    `adopted` is true while its first known parent is pid 1 or a service manager and it is not known whether the process
    is a service, and so a child of it by design.
    """

    ppid: int
    parent: str = ""
    orphan: bool | None = None
    orphan_of: str = ""
    adopted: bool = False

    def update(self, row: Row) -> None:
        """Take over what a row says: the parent, the parent that exited, the control group of a service."""
        if "ppid" in row and row["ppid"] != self.ppid:
            # A process's parent changes only when the parent exits.
            if self.ppid > 0:
                self.parent_exited()
            self.ppid = row["ppid"]
        if "orphan_of" in row:
            self.orphan, self.orphan_of, self.adopted = True, row["orphan_of"], False
        if self.adopted and "cgroup" in row:
            self.orphan, self.adopted = not in_service(row["cgroup"]), False

    def parent_exited(self) -> None:
        """The parent exited."""
        self.orphan, self.orphan_of, self.adopted = True, self.orphan_of or self.parent, False


class Family:
    """Parents and children of one boot. With `cgroups`, rows have a control group once they are described."""

    def __init__(self, *, cgroups: bool = True) -> None:
        self._cgroups = cgroups
        self._by_pid: dict[int, Key] = {}
        self._children: dict[Key, dict[Key, Kin]] = {}
        self._parents: dict[Key, Key] = {}

    def register(self, keys: Iterable[Key]) -> None:
        """These exist now. All of a tick are registered before any is added: a child may come before its parent."""
        for key in keys:
            self._by_pid[key[0]] = key

    def add(self, key: Key, row: Row, processes: dict[Key, Row]) -> Kin:
        """A process that is seen for the first time.

        A child of pid 1 or of a service manager has lost another parent, unless it is a service. If pid 1 is another
        program, as in a container, its children may be its own: then it is unknown, unless the child is in the session
        of a third process.
        """
        kin = Kin(row.get("ppid", 0))
        manager = own = False
        parent = self._by_pid.get(kin.ppid, key)
        if parent != key and parent in processes:
            command = processes[parent].get("command")
            kin.parent = f"{command or ''}[{kin.ppid}]"
            manager = command in SERVICE_MANAGERS
            own = kin.ppid == 1 and command not in FIRST and \
                row.get("session") in (None, key[0], processes[parent].get("session"))
            self._children.setdefault(parent, {})[key] = kin
            self._parents[key] = parent
        if kin.ppid > 0 and not own:
            kin.adopted = (kin.ppid == 1 or manager) and self._cgroups
            kin.orphan = None if kin.adopted else kin.ppid == 1 or manager
        kin.update(row)
        return kin

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove processes that may still be running: their children are no orphans by it."""
        for key in keys:
            self._remove(key)

    def remove(self, keys: Iterable[Key]) -> set[Key]:
        """These have exited. Returns their children, whose rows may still name the old parent: a process that does not
        run is not read again."""
        orphans: set[Key] = set()
        for key in keys:
            for child, kin in self._remove(key).items():
                kin.parent_exited()
                orphans.add(child)
        return orphans

    def _remove(self, key: Key) -> dict[Key, Kin]:
        """Remove one process; returns its children."""
        if self._by_pid.get(key[0]) == key:
            del self._by_pid[key[0]]
        parent = self._parents.pop(key, None)
        if parent in self._children:
            self._children[parent].pop(key, None)
        children = self._children.pop(key, {})
        for child in children:
            del self._parents[child]
        return children
