"""Who belongs to whom: children's CPU, orphans, and the unit of work of each process.

Three things that only the past knows. A shell that runs `ls` in a loop uses little CPU itself; its children, each gone
before anybody looks, use a core: their time is credited to the shell. An orphan's parent is process 1 by the time
somebody asks; who it was stands in the tick before. And a person does not think in processes but in the thing that
was started: a service, a container, an app, a command at a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row, Tick, newcomers

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "mksh", "tcsh", "csh", "ash", "busybox", "nu", "xonsh",
                    "pwsh", "elvish"})
"""Programs whose children were started by a person or a script, each as a thing of its own."""

MANAGERS = frozenset({"systemd", "init", "launchd", "sshd", "sshd-session", "login", "cron", "crond", "atd", "tmux",
                      "tmux: server", "screen", "supervisord", "runit", "runsv", "s6-supervise", "dockerd",
                      "containerd-shim", "tini", "dumb-init", "gdm", "sddm", "getty", "agetty", "su", "sudo", "doas"})
"""Programs that start services and sessions."""

_CONTAINER = re.compile(r"(?:docker|libpod|crio|cri-containerd|containerd|lxc\.payload)[-./:]+([0-9a-f]{12})[0-9a-f]*")
_PLAIN_CONTAINER = re.compile(r"/(?:docker|kubepods[^/]*(?:/[^/]+)*)/(?:[^/]*-)?([0-9a-f]{12})[0-9a-f]{20,}")
_LXC = re.compile(r"/lxc(?:\.payload\.|/)([^/]+)")
_SERVICE = re.compile(r"/([^/]+\.service)(?:/[^/]*)?$")
_SCOPE = re.compile(r"/([^/]+\.scope)$")
_APP = re.compile(r"/([^/]+\.app)/Contents/")
# Scopes and services that hold a whole session, not one thing that was started.
_SESSION = re.compile(r"^(?:session-.*\.scope|user@.*\.service|init\.scope|vte-spawn-.*\.scope|tmux-spawn-.*\.scope"
                      r"|app-.*terminal.*\.(?:scope|service)|.*(?:gnome-terminal-server|konsole).*\.service"
                      r"|ssh@.*\.service|sshd?\.service|cron\.service|getty@.*\.service)$")

_NO_CPU = 0.005
"""Seconds: half of the 10 ms in which children's time is counted. Less is no time at all."""


def lineage(ticks: Iterator[Tick]) -> Iterator[Tick]:
    """The stage: adds children_cpu_percent, orphan_of and unit to rows. Costs nothing for rows that did not change."""
    family = Family()
    for tick in ticks:
        yield tick if tick.row is None else family.update(tick, tick.row)


class Family:
    """What is remembered between ticks."""

    def __init__(self) -> None:
        self._sources: Mapping[Key, Row] = {}
        self._rows: dict[Key, Row] = {}
        self._by_pid: dict[int, Key] = {}
        self._units: dict[Key, str] = {}
        self._named: dict[Key, tuple[str | None, str | None]] = {}
        self._orphans: dict[Key, str] = {}
        self._credited: dict[Key, float] = {}
        self._debt: dict[Key, float] = {}

    def update(self, tick: Tick, closing: Row) -> Tick:
        """The tick with its rows completed."""
        before = self._sources
        reaped = self._bury(tick)
        for key in tick.changed:
            self._by_pid[key[0]] = key
        rows = self._rows.copy() if tick.exited else self._rows
        for key in tick.exited:
            rows.pop(key, None)
        changed = set()
        credited: dict[Key, float] = {}
        interval = closing.get("interval_s") or 0.0
        cap = interval * (closing.get("cpus") or 1)
        cores = 0.0
        new = None if tick.partial else newcomers(tick.processes, rows)
        asked = [*(new or ()), *(tick.changed | self._credited.keys()).difference(new or ())]
        if asked and not tick.exited:
            rows = rows.copy()  # which takes 0.05 ms at 1,000 processes, and as much when it is thrown away
        for key in asked:
            row = tick.processes.get(key)
            if row is None:
                continue
            was = before.get(key)
            out = row.copy()
            if was is not None and was.get("ppid") != row.get("ppid"):
                self._reparented(key, was, before)
            share = self._credit(key, row, was, reaped.get(key[0], 0.0), interval, cap)
            if share is not None:
                out["children_cpu_percent"] = share
                if share:
                    credited[key] = share * interval / 100
                    cores += share / 100
            if key in self._orphans:
                out["orphan_of"] = self._orphans[key]
            unit = self._unit(key, row, tick.processes)
            if unit:
                out["unit"] = unit
            known = rows.get(key)
            if known is None or known != out:
                rows[key] = out
                changed.add(key)
        for key in tick.exited:
            for held in (self._units, self._named, self._orphans, self._debt):
                held.pop(key, None)
        self._credited = credited
        if new is None or len(rows) != len(tick.processes):
            rows = {key: rows.get(key, row) for key, row in tick.processes.items()}
        self._rows, self._sources = rows, tick.processes
        left = closing.get("unattributed_cpu_cores")
        if cores and left is not None:
            closing = {**closing, "unattributed_cpu_cores": round(max(0.0, left - cores), 3)}
        return Tick(closing, rows, changed, tick.exited, tick.scored, tick.records)

    # -- the dead ------------------------------------------------------------------------------------------------

    def _bury(self, tick: Tick) -> dict[int, float]:
        """Forget those that are gone. Gives, by the parent's pid, the CPU time of them that was already counted while
        they lived: it comes back in the parent's children's time and must not count twice."""
        reaped: dict[int, float] = {}
        for key in tick.exited:
            row = self._sources.get(key)
            if row is not None and row.get("ppid"):
                seen = (row.get("cpu_seconds_total") or 0.0) + (row.get("children_cpu_seconds_total") or 0.0)
                reaped[row["ppid"]] = reaped.get(row["ppid"], 0.0) + seen
            if self._by_pid.get(key[0]) == key:
                del self._by_pid[key[0]]
        return reaped

    def _credit(self, key: Key, row: Row, was: Row | None, reaped: float, interval: float, cap: float) -> float | None:
        """CPU percent of children that ended in the interval and were never seen, or not to their end."""
        total = row.get("children_cpu_seconds_total")
        if total is None or was is None or interval <= 0 or "children_cpu_seconds_total" not in was:
            return None
        grown = total - was["children_cpu_seconds_total"]
        left = grown - reaped - self._debt.pop(key, 0.0)
        # A child may be reaped between the reading of its own row and of its parent's. What was credited too much a
        # tick ago, before the child was found to be gone, is owed back. Only that: a parent that ignores SIGCHLD is
        # never told its children's time and owes nothing.
        if left < -_NO_CPU and key in self._credited:
            self._debt[key] = min(-left, self._credited[key])
        return round(100 * min(max(0.0, left), cap) / interval, 2) if left >= _NO_CPU else 0.0

    # -- orphans -------------------------------------------------------------------------------------------------

    def _reparented(self, key: Key, was: Row, before: Mapping[Key, Row]) -> None:
        """The parent died: remember who it was."""
        parent = next((k for k in before if k[0] == was.get("ppid")), None)
        name = before[parent].get("command", "?") if parent else "?"
        unit = self._units.get(parent) if parent else None
        said = f"{name}[{was.get('ppid')}]"
        self._orphans.setdefault(key, f"{said} of {unit}" if unit and unit != said else said)

    # -- units ---------------------------------------------------------------------------------------------------

    def _unit(self, key: Key, row: Row, processes: Mapping[Key, Row]) -> str | None:
        """The unit of work: container, service or scope, app, else the topmost child of a shell or manager."""
        known = self._units.get(key)
        # Control group and path come a tick after the process, from another thread, and seldom change.
        named = row.get("cgroup"), row.get("exe")
        if known is not None and self._named.get(key) == named:
            return known
        self._named[key] = named
        found = unit_of(row) or known or self._tree(key, row, processes)
        if found:
            self._units[key] = found
        return found

    def _tree(self, key: Key, row: Row, processes: Mapping[Key, Row]) -> str:
        seen = {key}
        while True:
            parent = self._by_pid.get(row.get("ppid") or -1)
            up = processes.get(parent) if parent else None
            # A parent that is younger than its child is another process that got the parent's pid.
            if parent is None or up is None or parent in seen or parent[1] > key[1] or parent[0] == 1:
                break
            if up.get("command") in SHELLS or up.get("command") in MANAGERS:
                break
            seen.add(parent)
            if parent in self._units:
                return self._units[parent]
            key, row = parent, up
        return f"{row.get('command', '?')}[{key[0]}]"


def unit_of(row: Row) -> str | None:
    """The unit that a process's control group or program path names; None where they name a session or nothing."""
    cgroup = row.get("cgroup")
    if cgroup:
        found = _CONTAINER.search(cgroup) or _PLAIN_CONTAINER.search(cgroup)
        if found:
            return f"container:{found.group(1)}"
        found = _LXC.search(cgroup)
        if found:
            return f"container:{found.group(1)}"
        found = _SERVICE.search(cgroup) or _SCOPE.search(cgroup)
        if found and not _SESSION.match(found.group(1)):
            return found.group(1)
    found = _APP.search(row.get("exe") or "")
    return found.group(1) if found else None
