"""Memory that several processes of one command hold together, counted once.

The resident sets of ten database backends hold the same buffers ten times; their sum may exceed the machine. Only
/proc/PID/smaps shows which pages are shared. It takes milliseconds a gigabyte, in which the process cannot change its
memory map. So processes of one unit with one command are taken to share what they may share: the largest shared part
among them counts once, divided in proportion to the parts.
"""

from __future__ import annotations

from rogue_hunter.schema.field import Key

Group = tuple[str, str]
"""Unit and command."""


class SharedMemory:
    """The processes that may share memory. `moved` are those whose part changed since it was asked for."""

    def __init__(self) -> None:
        self.moved: set[Key] = set()
        self._groups: dict[Group, dict[Key, int]] = {}
        self._of: dict[Key, Group] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._of

    def held(self, key: Key, group: Group, memory: int, shared: int) -> int:
        """What a process holds of `memory`, of which `shared` may be other processes' as well."""
        shared = min(shared, memory)
        if self._of.get(key, group) != group or not shared:
            self.forget(key)
        if not shared:
            return memory
        members = self._groups.setdefault(group, {})
        if members.get(key) != shared:
            members[key] = shared
            self._of[key] = group
            self.moved |= members.keys() - {key}
        self.moved.discard(key)
        return memory - shared + shared * max(members.values()) // sum(members.values())

    def forget(self, key: Key) -> None:
        """The process is gone, or shares nothing any more."""
        self.moved.discard(key)
        group = self._of.pop(key, None)
        if group is None:
            return
        members = self._groups[group]
        del members[key]
        self.moved |= members.keys()
        if not members:
            del self._groups[group]
