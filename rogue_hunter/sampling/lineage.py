"""What follows from a process's relatives and its past: use of its ended children, its unit, who its parent was.

A shell that runs `ls` in a loop uses little CPU itself; its children, each gone before a reading, use a core: that is
credited to the shell. An orphan's parent is process 1 after the fact; its real parent was in the tick before. And a
person does not think in processes but in the thing that was started: a service, a container, an app, a command.

The resident sets of ten database backends hold the same buffers ten times; their sum may exceed the machine. Only
/proc/PID/smaps shows which pages are shared. It takes milliseconds a gigabyte, in which the process cannot change its
memory map. So processes of one unit that run one program, under any name, are taken to share what they may share: the
largest shared part among them counts once, divided in proportion to the parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rogue_hunter.sampling.ledger import CPU, DISK, OWN, PAGEINS, READ, Amounts, Ledger, Settlement, parent_of
from rogue_hunter.sampling.naming import looks_own, name_of
from rogue_hunter.sampling.units import MANAGERS, SHELLS, Units, unit_of
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.pipeline import RowMap
from rogue_hunter.stream.tick import Row, Tick, lived

Group = tuple[str, str]
"""Unit and program: its path, until that is known its parent's, else its command."""


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


_KEPT_AT_END = ("cpu_percent", "cpu_seconds_total", "disk_bytes_per_s", "disk_read_bytes_total",
                "disk_write_bytes_total")
"""Rates and totals of a last row; every other rate of its interval is unknown."""


HELPER_DEPTH = 4
"""Generations of helper processes: rh-pipe starts a worker, which starts the programs that it reads from."""


class Lineage:
    """Adds to each row name, own, unit, orphan_of, ended and the use of its ended children, and counts memory that
    several processes share once."""

    def __init__(self) -> None:
        self._sources: Mapping[Key, Row] = {}
        self._map = RowMap()
        self._by_pid: dict[int, Key] = {}
        self._names: dict[Key, str] = {}
        self._own: dict[Key, bool] = {}
        """Processes of rogue-hunter itself; true for those that another one started."""
        self._started: set[Key] = set()
        """Those whose parent was found to be one of rogue-hunter's after they were looked at."""
        self._units = Units()
        self._shared = SharedMemory()
        self._orphans: dict[Key, str] = {}
        self._ledger: Ledger | None = None
        self._credited: set[Key] = set()
        self._not_own: dict[Key, Amounts] = {}
        self._ended: dict[Key, Row] = {}
        self._ts: float | None = None
        self._helpers: dict[Key, float] = {}
        """CPU use of the processes that this one started."""

    def __call__(self, tick: Tick) -> Tick:
        """The tick with its rows completed."""
        closing = tick.row
        if closing is None:
            return tick
        interval = closing.get("interval_s") or 0.0
        settled = self._settle(tick, closing, interval)
        last_rows = self._last_rows(tick, settled, interval)
        exited = (*self._ended, *(key for key in tick.exited if key not in last_rows))
        for key in tick.changed:
            self._by_pid[key[0]] = key
        for key in tick.exited:
            self._shared.forget(key)
        dirty = tick.changed | self._credited | self._units.renamed | self._shared.moved
        self._units.renamed.clear()
        self._credited = set()
        first = self._ts is None
        gone: Iterable[Key] = (*exited, *tick.exited)
        if tick.partial:
            gone = [key for key in self._map.rows if key not in tick.processes]

        def complete(key: Key, row: Row, closing: Row = closing) -> Row:
            return self._completed(key, row, tick.processes, closing, settled, first)

        changed = self._map.update(tick.processes, dirty, gone, complete)
        while again := (self._shared.moved | self._started) & tick.processes.keys():
            self._started = set()
            changed |= self._map.update(tick.processes, again, (), complete)
        self._map.append(last_rows)
        changed |= last_rows.keys()
        for key in tick.exited:
            self._forget(key)
        rows = self._map.rows
        left_s = closing["processes"] - len(tick.processes) if tick.partial else 0
        closing = self._closing(closing, rows, settled, interval)
        if self._ended or last_rows:
            closing = {**closing, "processes": len(rows) + left_s, "exited": len(exited)}
        self._sources, self._ended = tick.processes, last_rows
        self._ts = closing["ts"]
        return Tick(closing, rows, changed, exited, tick.scored, tick.records)

    def _settle(self, tick: Tick, closing: Row, interval: float) -> Settlement:
        """What reaped children used in the interval."""
        if self._ledger is None:
            self._ledger = Ledger(closing.get("os") != "macos")
        settled = self._ledger.settle(self._sources, tick.processes, tick.changed, tick.exited, self._by_pid, interval,
                                      closing["ts"] - interval if self._ts is None else self._ts)
        for key, amounts in settled.not_own.items():
            known = self._not_own.get(key)
            self._not_own[key] = amounts if known is None else [a + b for a, b in zip(known, amounts, strict=True)]
        for key in tick.exited:
            if self._by_pid.get(key[0]) == key:
                del self._by_pid[key[0]]
        return settled

    def _last_rows(self, tick: Tick, settled: Settlement, interval: float) -> dict[Key, Row]:
        """One more row of each process that is gone and used something since its row before."""
        made: dict[Key, Row] = {}
        for key, used in settled.ended.items():
            row = self._map.rows.get(key)
            if row is None or interval <= 0:
                continue
            last = {name: value for name, value in row.items()
                    if name in _KEPT_AT_END or (not name.startswith("children_")
                    and not name.endswith(("_per_s", "_percent", "_watts")))}
            last["ended"] = True
            last["cpu_percent"] = round(100 * used[CPU] / interval, 2)
            last["disk_bytes_per_s"] = round(sum(used[i] for i in DISK) / interval, 1)
            last["cpu_seconds_total"] = round(last.get("cpu_seconds_total", 0.0) + used[CPU], 6)
            for i in DISK:
                last[OWN[i]] = last.get(OWN[i], 0) + round(used[i])
            made[key] = last
        return made

    def _completed(self, key: Key, row: Row, processes: Mapping[Key, Row], closing: Row, settled: Settlement,
                   first: bool) -> Row:
        """A row with all that this stage adds."""
        out = row.copy()
        was = self._sources.get(key)
        if was is not None and was.get("ppid") != row.get("ppid"):
            self._reparented(key, was)
        self._add_children(key, row, was, out, closing, settled, first)
        name = self._names[key] = name_of(row)
        if name != row.get("command"):
            out["name"] = name
        started = self._own.get(key) or self._started_by_own(key, row)
        if started or self._is_own(key, row, processes, closing):
            if key not in self._own:
                self._started |= {k for k, r in processes.items() if r.get("ppid") == key[0] and k not in self._own}
            self._own[key] = started
            out["own"] = True
            used = out.get("cpu_percent", 0.0) + out.get("children_cpu_percent", 0.0)
            if used and self._started_by(closing.get("self_pid"), row, processes):
                self._helpers[key] = used
            else:
                self._helpers.pop(key, None)
        elif self._own.pop(key, None) is not None:      # it became another program
            self._helpers.pop(key, None)
        if key in self._orphans:
            out["orphan_of"] = self._orphans[key]
        unit = out["unit"] = self._units.find(key, row, name, processes, self._by_pid, self._names)
        shared = row.get("shared_bytes", 0)
        if shared or key in self._shared:
            parent = parent_of(key, row, processes, self._by_pid)
            program = row.get("exe") or parent.get("exe") or row.get("command", "")
            out["memory_bytes"] = self._shared.held(key, (unit, program), row["memory_bytes"], shared)
        return out

    # -- use of ended children -----------------------------------------------------------------------------------

    def _add_children(self, key: Key, row: Row, was: Row | None, out: Row, closing: Row, settled: Settlement,
                      first: bool) -> None:
        """Rates of children that ended unseen; disk counters and rate without what children did."""
        interval = closing.get("interval_s") or 0.0
        not_own = self._not_own.get(key)
        if not_own is not None:
            for i in DISK:
                if OWN[i] in out:
                    out[OWN[i]] = max(0, out[OWN[i]] - round(not_own[i - READ]))
        if interval <= 0:
            return
        if was is None:
            seconds = 0.0 if first else interval * lived(row, closing["ts"], interval)
            if seconds <= 0 or "cpu_percent" not in row:
                return      # it is older than the interval: it is unknown when its children ended
            used = [row.get("children_cpu_seconds_total") or 0.0, row.get("children_pageins_total") or 0.0, 0.0, 0.0]
        else:
            seconds = interval
            used = settled.children.get(key, [0.0] * 4)
        if any(used):
            most = seconds * (closing.get("cpus") or 1)
            for name, rate in (("children_cpu_percent", round(100 * min(used[CPU], most) / seconds, 2)),
                               ("children_pageins_per_s", round(used[PAGEINS] / seconds, 1)),
                               ("children_disk_bytes_per_s", round(sum(used[i] for i in DISK) / seconds, 1))):
                if rate:
                    out[name] = rate
            self._credited.add(key)
        children = settled.not_own.get(key)
        if children is not None and was is not None and out.get("disk_bytes_per_s"):
            grown = sum(row[OWN[i]] - was[OWN[i]] for i in DISK if OWN[i] in row and OWN[i] in was)
            own = max(0.0, grown - sum(children))
            out["disk_bytes_per_s"] = round(out["disk_bytes_per_s"] * own / grown, 1) if grown > 0 else 0.0
            self._credited.add(key)

    def _closing(self, closing: Row, rows: Mapping[Key, Row], settled: Settlement, interval: float) -> Row:
        """The closing row: CPU time that was found in children is attributed, and the own use is that of this process
        and its helpers. Other rh-* commands have a row each: their use neither slows this beat down nor excuses it."""
        helpers = sum(self._helpers.values())
        if helpers and "self_cpu_percent" in closing:
            closing = {**closing, "self_cpu_percent": round(closing["self_cpu_percent"] + helpers, 2)}
        left = closing.get("unattributed_cpu_cores")
        if left is None or interval <= 0:
            return closing
        found = sum(rows[key].get("children_cpu_percent", 0.0) / 100 for key in self._credited)
        found += sum(used[CPU] for used in settled.ended.values()) / interval
        return {**closing, "unattributed_cpu_cores": round(max(0.0, left - found), 3)} if found else closing

    def _forget(self, key: Key) -> None:
        """The process is gone."""
        for held in (self._names, self._orphans, self._not_own, self._helpers, self._own):
            held.pop(key, None)
        self._units.forget(key)
        if self._ledger is not None:
            self._ledger.forget(key)

    # -- relatives -----------------------------------------------------------------------------------------------

    def _is_own(self, key: Key, row: Row, processes: Mapping[Key, Row], closing: Row) -> bool:
        """The sampler, or a command that the host knows by its mark. Where hosts know no mark (macOS), a command by its
        arguments, if it runs the sampler's own program as the sampler's user."""
        if row.get("own") or key[0] == closing.get("self_pid"):
            return True
        if closing.get("os") != "macos" or not looks_own(row):
            return False
        me = processes.get(self._by_pid.get(closing.get("self_pid") or -1, (0, 0)), {})
        return "exe" in me and all(row.get(name) == me.get(name) for name in ("exe", "uid"))

    def _started_by_own(self, key: Key, row: Row) -> bool:
        parent = self._by_pid.get(row.get("ppid") or -1)
        return parent is not None and parent in self._own and parent[1] <= key[1]

    def _started_by(self, pid: int | None, row: Row, processes: Mapping[Key, Row]) -> bool:
        """True for a process below `pid`."""
        above = row.get("ppid")
        for _ in range(HELPER_DEPTH):
            if above is None or above == pid:
                return pid is not None and above == pid
            above = processes.get(self._by_pid.get(above, (0, 0)), {}).get("ppid")
        return False

    def _reparented(self, key: Key, was: Row) -> None:
        """The parent died: remember who it was."""
        parent = next((k for k in self._sources if k[0] == was.get("ppid")), None)
        name = self._sources[parent].get("command", "?") if parent else "?"
        unit = self._units.get(parent) if parent else None
        described = f"{name}[{was.get('ppid')}]"
        self._orphans.setdefault(key, f"{described} of {unit}" if unit and unit != described else described)


__all__ = ["MANAGERS", "SHELLS", "Lineage", "unit_of"]
