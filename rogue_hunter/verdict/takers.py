"""Who took a resource: processes, families of processes and units of work, ranked by what they used while it was short.

Use is added up per identity. Many processes of one family or unit are one taker; processes that share only a name are
never added up. Kernel threads and servers that work for others rank behind those for whom they can have worked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rogue_hunter.sampling.units import KTHREADD, is_apart, starts_jobs
from rogue_hunter.verdict.model import (
    REALTIME,
    SERVERS,
    Key,
    Member,
    Row,
    Slice,
    Taker,
    is_forwarder,
    key_of,
    name_of,
    total,
    uses,
)

DOMINANT = 0.6
"""One identity with this part of a group's use is named instead of the group."""
SPECIFIC = 0.65
"""A smaller group with this part of a larger one's use is named instead of the larger one."""
ALONE = 0.7
"""A few processes of one name with this part of the use of an idle parent's children are named instead of it, even if
they are short."""
IDLE_ROOT = 0.05
"""A parent with less than this part of the use of its family only starts and waits."""
FEW = 8
"""Up to so many workers of one name are called by their name; more belong to the process that starts them."""
ACTIVE = 0.25
"""Part of its highest rate from which a taker counts as active in a slice."""
FORWARDED = 0.25
"""What the use of a process counts that works for others: it is first only if no other process comes near."""
INTERRUPTS = 0.5
"""The same of a kernel thread that handles interrupts: packets of another machine have no sender here, and the program
that receives them is not to blame for them."""
PREEMPTS, PREEMPTS_CORES, PREEMPTS_LATE_S = 3.0, 0.5, 0.3
"""What the CPU use of a real-time process counts, where it uses so many cores or a beat came so late: nothing else runs
where it runs, and the delays are longer than those that ordinary processes cause each other. An audio server or a
control loop that uses a little does not hold up others for long."""
SERVED = 0.02
"""What a program below a server uses at least, as a part of the server's use, to be the one that it works for."""
CARRIED_SLICES = 12
"""Written data reaches the disk up to a minute later: dirty_expire_centisecs is 30 s, dirty_writeback 5 s."""

_Id = Key | str


@dataclass(slots=True)
class _Node:
    """A process or a unit while it is added up. Amounts by the number of the slice."""

    row: Row
    own: dict[int, float] = field(default_factory=dict)
    children: dict[int, float] = field(default_factory=dict)
    served: dict[int, float] = field(default_factory=dict)
    """What a server used on its behalf."""
    server: str = ""
    active: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Of slices that are sums: the beginning and the seconds of the time in which it was listed."""
    score: int = 0
    rogue_s: float = 0.0
    processes: int = 1
    started: int = 0

    def at(self, index: int) -> float:
        return self.own.get(index, 0.0) + self.children.get(index, 0.0) + self.served.get(index, 0.0)

    def amount(self, held: bool) -> float:
        parts = (sum(self.own.values()), sum(self.children.values()), sum(self.served.values()))
        return max(self.own.values(), default=0.0) if held else sum(parts)

    def points(self, weights: Sequence[float], held: bool) -> float:
        if held:
            return self.amount(True)
        return sum(weights[index] * self.at(index) for index in self.own.keys() | self.served.keys())


@dataclass(slots=True)
class _Group:
    """A family or a unit: the identities in it, its root, and for a unit its own row."""

    members: set[_Id]
    root: tuple[str, int] | None = None
    unit: str = ""
    node: _Node | None = None


class Ledger:
    """The use of one resource in some slices, by identity and by unit.

    `weights` has a number of 0 or more for each slice: how much its use counts. Rows of rogue-hunter itself and of
    `readers` are left out, and with `within` all rows that it does not accept.
    """

    def __init__(self, slices: Sequence[Slice], weights: Sequence[float], resource: str, *,
                 readers: Collection[int] = (), within: Callable[[Row], bool] | None = None) -> None:
        self.slices, self.weights, self.resource = slices, weights, resource
        self._held = resource == "memory"
        self._nodes: dict[_Id, _Node] = {}
        self._units: dict[tuple[str, str], _Node] = {}
        self._known: dict[tuple[str, int], Row] = {}
        self._parents: dict[Key, Row] = {}
        own = {(row.get("boot_id"), row.get("pid")) for one in slices for row in one.processes if row.get("own")}
        for index, one in enumerate(slices):
            for row in one.processes:
                if row.get("own") or row.get("pid") in readers or (within is not None and not within(row)):
                    continue
                row = self._of_first_parent(row)
                self._known[str(row.get("boot_id", "")), int(row.get("pid") or 0)] = row
                if weights[index] > 0:
                    self._add(self._nodes, key_of(row) or f"command {row.get('command')}", row, index)
            for row in one.groups if weights[index] > 0 and within is None else ():
                # Kernel threads have nothing in common, and our own processes are not named.
                if row.get("pid") == KTHREADD or (row.get("boot_id"), row.get("pid")) in own:
                    continue
                self._add(self._units, (str(row.get("boot_id", "")), str(row["unit"])), row, index)
        if resource == "disk":
            self._without_doubles()
            self._carry()
        elif resource == "cpu":
            self._serve()

    def _of_first_parent(self, row: Row) -> Row:
        """The row with the parent that it was seen with first: a process whose parent has ended is still its work."""
        key = key_of(row)
        first = self._parents.setdefault(key, row) if key is not None else row
        return {**row, "ppid": first["ppid"]} if first.get("ppid") and first["ppid"] != row.get("ppid") else row

    def _add(self, nodes: dict[object, _Node] | dict[_Id, _Node] | dict[tuple[str, str], _Node], at: object,
             row: Row, index: int) -> None:
        node = nodes.get(at)  # type: ignore[call-overload]
        if node is None:
            node = nodes[at] = _Node(row)  # type: ignore[index]
        if len(row.get("cmdline") or "") >= len(node.row.get("cmdline") or ""):
            node.row = row
        own, children = uses(row, self.resource)
        node.own[index] = node.own.get(index, 0.0) + own
        node.children[index] = node.children.get(index, 0.0) + children
        if row.get("active_s"):
            node.active[index] = float(row["first_slice"]), float(row["active_s"])
        node.score = max(node.score, int(row.get("max_score") or 0))
        node.rogue_s += total(row, "rogue_s")
        node.processes = max(node.processes, int(row.get("processes") or 1))
        node.started += int(row.get("started") or 0) + int(row.get("children") or 0)

    def _without_doubles(self) -> None:
        """Bytes of ended children whose own row is here are theirs, not the parent's."""
        moved: dict[tuple[str, int], float] = {}
        for node in self._nodes.values():
            parent = node.row.get("ppid")
            if parent:
                at = str(node.row.get("boot_id", "")), int(parent)
                moved[at] = moved.get(at, 0.0) + sum(node.own.values())
        for node in self._nodes.values():
            left = moved.get((str(node.row.get("boot_id", "")), int(node.row.get("pid") or 0)), 0.0)
            for index in sorted(node.children):
                taken = min(left, node.children[index])
                node.children[index] -= taken
                left -= taken

    def _serve(self) -> None:
        """What a terminal multiplexer or another server used goes to the program below it that used most of all of
        them: it prints what the server has to draw or to send."""
        for server in [node for node in self._nodes.values() if node.row.get("command") in SERVERS]:
            at = str(server.row.get("boot_id", "")), int(server.row.get("pid") or 0)
            below = [node for node in self._nodes.values() if node is not server and self._is_below(node.row, at)]
            first = max(below, key=lambda node: node.amount(False), default=None)
            if first is not None and first.amount(False) >= max(DOMINANT * sum(node.amount(False) for node in below),
                                                                SERVED * server.amount(False)) > 0:
                for index, much in server.own.items():
                    first.served[index] = first.served.get(index, 0.0) + much
                server.own = dict.fromkeys(server.own, 0.0)
                first.server = str(server.row.get("command"))

    def _is_below(self, row: Row, at: tuple[str, int]) -> bool:
        """True for a descendant of a process, as far as the processes between them are known."""
        for _ in range(8):
            parent = str(row.get("boot_id", "")), int(row.get("ppid") or 0)
            if parent == at:
                return True
            above = self._known.get(parent)
            if above is None:
                return False
            row = above
        return False

    def _carry(self) -> None:
        """What a disk did in a slice beyond what processes moved then goes to those that wrote shortly before."""
        written: list[tuple[int, Key, _Node, float]] = []
        for index, one in enumerate(self.slices):
            moved = [(key, row, uses(row, "disk")[0]) for row in one.processes
                     if (key := key_of(row)) is not None and not row.get("own") and not is_forwarder(row)]
            device = total(one.machine, "device_bytes")
            if self.weights[index] <= 0:
                written += [(index, key, self._nodes.get(key) or _Node(row), amount)
                            for key, row, amount in moved if amount > 0]
                continue
            gap = device - sum(amount for _, _, amount in moved)
            written = [entry for entry in written if index - entry[0] <= CARRIED_SLICES]
            backlog = sum(entry[3] for entry in written)
            if gap <= 0.3 * device or backlog <= 0:
                continue
            part = min(1.0, gap / backlog)
            for _, key, node, left in written:
                node = self._nodes.setdefault(key, node)
                node.own[index] = node.own.get(index, 0.0) + part * left
            written = [(since, key, node, left * (1 - part)) for since, key, node, left in written]

    # -- groups --------------------------------------------------------------------------------------------------------

    def _points(self, node: _Node) -> float:
        factor, weights = 1.0, self.weights
        if is_forwarder(node.row):
            factor = INTERRUPTS if str(node.row.get("command")).startswith(("ksoftirqd/", "irq/")) else FORWARDED
        elif self.resource == "cpu" and node.row.get("policy") in REALTIME:
            weights = [weight * (PREEMPTS if node.at(index) >= PREEMPTS_CORES * one.seconds
                                 or total(one.machine, "late_s") >= PREEMPTS_LATE_S else 1.0)
                       for index, (weight, one) in enumerate(zip(weights, self.slices, strict=True))]
        return factor * node.points(weights, self._held)

    def _starts_jobs(self, at: tuple[str, int]) -> bool | None:
        """Whether the children of a process are its work: not those of an interactive shell or a service manager. None:
        the process is not known."""
        row = self._known.get(at)
        if at[1] <= 2:
            return False
        if row is None:
            return None
        return starts_jobs(dict(row))

    def _groups(self, points: Mapping[_Id, float]) -> list[_Group]:
        families: dict[tuple[str, int], set[_Id]] = {}
        units: dict[tuple[str, str], _Group] = {at: _Group(set(), _root_of(node.row), at[1], node)
                                                for at, node in self._units.items()}
        for key, node in self._nodes.items():
            if isinstance(key, str) or points[key] <= 0:
                continue
            boot = key[0]
            if node.row.get("unit") and node.row["unit"] != f"kthreadd[{KTHREADD}]":
                at = boot, str(node.row["unit"])
                units.setdefault(at, _Group(set(), _bracketed(boot, at[1]), at[1])).members.add(key)
            below, up, seen = node.row, (boot, int(node.row.get("ppid") or 0)), {key[1]}
            while up[1] > 2 and up[1] not in seen and self._starts_jobs(up) is not False:
                row = self._known.get(up)
                if is_apart(below, row):
                    break
                families.setdefault(up, set()).add(key)
                seen.add(up[1])
                if row is None:
                    break
                below, up = row, (boot, int(row.get("ppid") or 0))
        found = [one for one in units.values() if one.members or one.node]
        for parent, members in families.items():
            row = self._known.get(parent)
            own = None if row is None else key_of(row)
            if own is not None and points.get(own, 0.0) > 0:
                members.add(own)
            names = {name_of(self._nodes[one].row) for one in members}
            listed = next((one for one in found if one.node is not None and one.root == parent), None)
            if listed is not None:
                listed.members |= members
            elif len(members) > 1 and (row is not None or len(names) == 1 or len(members) >= 5):
                found.append(_Group(members, parent))
        return found

    def rank(self, whole: float | None, most: int = 8) -> list[Taker]:
        """The takers, most points first. `whole` is the machine's total of the resource, None when it is not known."""
        points: dict[_Id, float] = {key: self._points(node) for key, node in self._nodes.items()}
        chosen: list[tuple[float, Taker]] = []
        taken: set[_Id] = set()
        groups = self._groups(points)
        sums = {id(one): self._group_points(one, points) for one in groups}
        groups.sort(key=lambda one: (-sums[id(one)], len(one.members), not one.unit, one.unit, one.root or ("", 0)))
        seen = max(sum(node.amount(self._held) for node in self._nodes.values()),
                   max((one.node.amount(self._held) for one in groups if one.node), default=0.0))
        whole = max(seen, whole or 0.0) or 1.0
        for group in groups:
            if not group.members & taken:
                inner = self._specific(group, groups, sums)
                made = self._group_taker(inner, points, whole)
                if made is not None:
                    chosen.append(made[:2])
                    taken |= made[2]
        chosen += [(points[key], self._taker(key, whole)) for key in self._nodes
                   if key not in taken and points[key] > 0]
        chosen.sort(key=lambda pair: (-pair[0], pair[1].forwarder, pair[1].name, pair[1].key or ("", 0, 0)))
        return [taker for _, taker in chosen[:most]]

    def _group_points(self, group: _Group, points: Mapping[_Id, float]) -> float:
        members = sum(points[one] for one in group.members)
        return max(members, group.node.points(self.weights, self._held) if group.node else 0.0)

    def _specific(self, group: _Group, groups: Sequence[_Group], sums: Mapping[int, float]) -> _Group:
        """The smallest group inside of this one that has nearly all of its use."""
        inside = [one for one in groups[:40] if one.members and one.members < group.members
                  and sums[id(one)] >= SPECIFIC * sums[id(group)]]
        return min(inside, key=lambda one: len(one.members), default=group)

    def _group_taker(self, group: _Group, points: Mapping[_Id, float],
                     whole: float) -> tuple[float, Taker, set[_Id]] | None:
        """The group as one taker, with its points and members; None when one process, or each for itself, is named.

        Up to FEW workers of one name that last are named by it, without other members of the group; otherwise the
        group is named by its root.
        """
        members = sorted(group.members, key=lambda one: -points[one])
        summed = self._group_points(group, points)
        if summed <= 0 or (members and points[members[0]] >= DOMINANT * summed):
            return None
        root = self._known.get(group.root) if group.root else None
        called = name_of(root) if root is not None else _bare(group.unit)
        alike = self._alike(members, points, summed, root)
        # Workers that are called as their parent is are named by it; the oldest of a container is no parent.
        parent = root is None or any(self._nodes[one].row.get("ppid") == root.get("pid") for one in alike)
        if alike and not (parent and called and name_of(self._nodes[alike[0]].row).startswith(called)):
            own, children = _summed([self._nodes[one] for one in alike])
            row = self._nodes[alike[0]].row
            return sum(points[one] for one in alike), self._made(
                "family", name_of(row), str(row.get("command") or "?"), own, children, whole, row=row, key=None,
                nodes=[self._nodes[one] for one in alike], processes=len(alike), unit=group.unit,
                members=tuple(self._member(one) for one in alike if isinstance(one, tuple))), set(alike)
        names = {name_of(self._nodes[one].row) for one in filter(self._described, members)} or \
            {name_of(self._nodes[one].row) for one in members}
        count = max(len(members), group.node.processes if group.node else 0)
        started = group.node.started if group.node else 0
        # A few that last, below an idle parent, have each a work of their own: what a runner started one by one.
        idle = root is not None and points.get(key_of(root) or "", 0.0) <= IDLE_ROOT * summed
        if (count < 3 or (idle and count <= FEW)) and started < 5 and len(names) > 1:
            return None
        if not called:
            called = names.pop() if len(names) == 1 else f"{count} processes"
        nodes = [self._nodes[one] for one in members]
        own, children = _summed(nodes)
        if group.node is not None and group.node.amount(self._held) > _amount(own, children, self._held):
            own, children = group.node.own, group.node.children
        row = root if root is not None else group.node.row if group.node else nodes[0].row
        start = row.get("start_ticks") if root is not None or group.node is not None else None
        return summed, self._made(
            "unit" if group.unit else "family", called,
            str(root.get("command") or called) if root is not None else _bare(group.unit) or called, own, children,
            whole, row=row, key=None, nodes=[*nodes, *([group.node] if group.node else [])], processes=count,
            root=None if group.root is None else (*group.root, int(start or 0)), unit=group.unit,
            described=root is not None,
            members=tuple(self._member(one) for one in members[:5] if isinstance(one, tuple))), group.members

    def _alike(self, members: Sequence[_Id], points: Mapping[_Id, float], summed: float,
               root: Row | None) -> list[_Id]:
        """A few members of one name that have most of the group's use and last, or are started by an idle root itself
        and have nearly all of it; empty if there are none."""
        idle = 0.0 if root is None else points.get(key_of(root) or "", 0.0)
        if idle >= 0.2 * summed and root is not None and any(
                self._nodes[one].row.get("ppid") == root.get("pid") for one in members):
            return []
        by_name: dict[str, list[_Id]] = {}
        for one in members:
            by_name.setdefault(name_of(self._nodes[one].row), []).append(one)
        most = max(by_name.values(), key=lambda some: sum(points[one] for one in some), default=[])
        if not 2 <= len(most) <= FEW or (root is not None and not any(map(self._described, most))):
            return []
        used = sum(points[one] for one in most)
        lasted = sum(len(self._nodes[one].own) for one in most)
        weighted = sum(weight > 0 for weight in self.weights)
        direct = root is not None and all(self._nodes[one].row.get("ppid") == root.get("pid") for one in most)
        return most if (used >= DOMINANT * summed and lasted >= 0.6 * weighted * len(most)) or \
            (direct and used >= ALONE * summed and idle <= IDLE_ROOT * summed) else []

    def _described(self, one: _Id) -> bool:
        """True for a process whose arguments are known. One that lived too short for that is called by its program, an
        interpreter perhaps, and its parent says more."""
        return bool(self._nodes[one].row.get("cmdline"))

    def _member(self, key: Key) -> Member:
        node = self._nodes[key]
        return Member(key, name_of(node.row), node.amount(self._held), str(node.row.get("cmdline") or ""))

    def _taker(self, key: _Id, whole: float) -> Taker:
        node = self._nodes[key]
        own = {index: node.own.get(index, 0.0) + node.served.get(index, 0.0) for index in node.own | node.served}
        made = self._made("process" if isinstance(key, tuple) else "command", name_of(node.row),
                          str(node.row.get("command") or "?"), own, node.children, whole, row=node.row,
                          key=key if isinstance(key, tuple) else None, processes=node.processes, nodes=[node],
                          unit=str(node.row.get("unit") or ""))
        return replace(made, served=sum(node.served.values()), server=node.server) if node.server else made

    def _made(self, kind: str, name: str, command: str, own: Mapping[int, float], children: Mapping[int, float],
              whole: float, *, row: Row, key: Key | None, processes: int, nodes: Sequence[_Node], unit: str,
              root: Key | None = None, described: bool = True, members: tuple[Member, ...] = ()) -> Taker:
        amount = _amount(own, children, self._held)
        seconds, start = self._active(own, children, amount, nodes)
        return Taker(kind, name, command, amount, 0.0 if self._held else sum(children.values()),
                     min(1.0, amount / whole), seconds, start, key, root, processes,
                     str(row.get("cmdline") or "") if described else "", unit,
                     str(row.get("user") or ""), str(row.get("cgroup") or ""), int(row.get("nice") or 0),
                     str(row.get("policy") or ""), is_forwarder(row) and kind == "process",
                     max((one.started for one in nodes), default=0), max((one.score for one in nodes), default=0),
                     max((one.rogue_s for one in nodes), default=0.0), members)

    def _active(self, own: Mapping[int, float], children: Mapping[int, float], amount: float,
                nodes: Sequence[_Node]) -> tuple[float, float]:
        """For how long (s) and from when it was used.

        The first and the last slice of a run are used in part: as much of them as the use in between, or the highest
        tick of the machine, shows.
        """
        listed: dict[int, tuple[float, float]] = {}
        for node in nodes:
            for index, (begin, spent_s) in node.active.items():
                first_begin, most = listed.get(index, (begin, spent_s))
                listed[index] = min(begin, first_begin), min(self.slices[index].seconds, max(most, spent_s))
        length = {index: listed[index][1] if index in listed else self.slices[index].seconds for index in own}
        at = {index: (own.get(index, 0.0) + children.get(index, 0.0)) / max(length[index], 1e-3) for index in own}
        peak = max(at.values(), default=0.0)
        active = sorted(index for index, rate in at.items() if rate > 0 and rate >= ACTIVE * peak)
        if not active:
            return 0.0, self.slices[0].start if self.slices else 0.0
        runs = _runs(active)
        seconds, starts = 0.0, []
        for run in runs:
            inner = max((at[index] for index in run[1:-1]), default=max(at[index] for index in run))
            if len(run) == 1:
                inner = 0.0
            spent = {index: length[index] if index in listed or index not in (run[0], run[-1])
                     else self._part(index, at[index], inner) for index in run}
            first = self.slices[run[0]]
            starts.append((sum(at[index] * spent[index] for index in run),
                           listed[run[0]][0] if run[0] in listed else
                           first.end - spent[run[0]] if len(run) > 1 else first.start))
            seconds += sum(spent.values())
        cpus = max((float(one.machine.get("cpus") or 0) for one in self.slices), default=0.0)
        if self.resource == "cpu" and cpus:
            seconds = max(seconds, min(amount / cpus, sum(length[index] for index in active)))
        return seconds, max(starts)[1]

    def _part(self, index: int, rate: float, inner: float) -> float:
        """Seconds of a slice in which its use fell."""
        one = self.slices[index]
        if inner > 0:
            return one.seconds * min(1.0, rate / inner)
        busy, highest = total(one.machine, "cpu_busy_cores"), total(one.machine, "cpu_busy_cores_max")
        if self.resource == "cpu" and rate >= 0.7 * busy and highest > busy > 0:
            return one.seconds * max(0.1, busy / highest)
        return one.seconds


def _root_of(row: Row) -> tuple[str, int] | None:
    boot = str(row.get("boot_id", ""))
    return (boot, int(row["pid"])) if row.get("pid") else _bracketed(boot, str(row.get("unit") or ""))


def _bracketed(boot: str, unit: str) -> tuple[str, int] | None:
    """The process that a unit such as `make[123]` is named after."""
    found = re.fullmatch(r"(?s).*\[(\d+)\]", unit)
    return (boot, int(found.group(1))) if found else None


def _bare(unit: str) -> str:
    return re.sub(r"\[\d+\]$", "", unit)


def _summed(nodes: Iterable[_Node]) -> tuple[dict[int, float], dict[int, float]]:
    own: dict[int, float] = {}
    children: dict[int, float] = {}
    for node in nodes:
        for into, parts in ((own, node.own), (children, node.children)):
            for index, amount in parts.items():
                into[index] = into.get(index, 0.0) + amount
    return own, children


def _amount(own: Mapping[int, float], children: Mapping[int, float], held: bool) -> float:
    return max(own.values(), default=0.0) if held else sum(own.values()) + sum(children.values())


def _runs(indices: Sequence[int]) -> list[list[int]]:
    """Runs of consecutive numbers."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
