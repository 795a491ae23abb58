"""Slices: what the machine, its busiest processes and its units of work did, five seconds at a time.

A tick is added to the sums of the processes whose row changed or that are active; an idle process costs nothing. A
slice begins at a multiple of five seconds of the wall clock, and earlier ones end at once when the clock is set, after
a suspension, a gap in the ticks or another boot, and where a pause begins or ends, so that a pause has slices of its
own. Seconds are measured by the monotonic clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import nlargest
from itertools import zip_longest
from typing import Any

from rogue_hunter.sampling.units import WRAPPERS, is_apart, starts_jobs
from rogue_hunter.schema.field import Key
from rogue_hunter.schema.slices import MACHINE_SLICE, SLICE_S
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, Row, Tick, lived, record, shown_name
from rogue_hunter.tracking.use import LARGEST, MachineUse, Use, count_of

TOP = 6
"""Processes kept of each resource: culprits are among the first three of a resource."""
GROUPS = 4
"""The same of units of work."""
KEPT = 24
"""Complete slices kept in memory: two minutes, so that "why is it slow" asked now needs no database."""
GAP_S = 5.0
"""A tick that covers more than this says nothing about a single slice: it begins a new one."""
LONGEST_S = 60.0
"""Of a tick that covers more, so much is counted: one reading must not fill hours of history."""
EDGE_S = 0.1
"""A slice that reaches into a time by less than this, or by less than a quarter of it, is not of that time: beats are
not exact, and times are rounded."""
MEMORY_LEAST = 16 << 20
"""Bytes held below which a process is not listed for its memory."""
SCARCE, MEMORY_WAIT_MS_PER_S = 0.25, 5.0
"""Part of the machine's memory available below which its holders are listed in each slice, not once a minute; waiting
for memory from which they are, too."""

Measure = Callable[[Use], float]

_RANKS: tuple[tuple[Measure, float], ...] = (
    (lambda use: use.cpu, 0.02),
    (lambda use: use.children_time, 0.02),
    (lambda use: use.disk, 64 << 10),
    (lambda use: use.children_disk, 64 << 10),
    (lambda use: use.growth, 1 << 20),
    (lambda use: use.run_delay, 0.01),
    (lambda use: use.uninterruptible, 0.05),
    (lambda use: use.pageins, 1),
    (lambda use: use.wakeups, 100),
    (lambda use: use.gpu, 0.02),
    (lambda use: use.rogue, 0.05),
)
"""By what the highest processes are found, and the least of it a second: 2 % of a core, 64 KiB/s, 1 % of the time
spent waiting. rh-pipe itself uses 1 % of a core; an idle machine stays below all of it."""

_GROUP_RANKS: tuple[tuple[Measure, float], ...] = (
    (lambda use: use.cpu + use.children_time, 0.02),
    (lambda use: use.disk + use.children_disk, 64 << 10),
    (lambda use: use.run_delay, 0.01),
)
FAMILY = 3
"""Processes at work in a slice from which a parent is listed with its descendants."""
BRANCH = 0.65
"""Part of a family's CPU use above which one branch of it is listed by itself instead."""
ANCESTORS = 8
"""Generations that are followed."""
UNWAITED_LEAST, UNWAITED_CORES = 2.0, 0.1
"""Children a second that end unwaited for, and cores that no process explains, from which they explain each other."""
STARTS_LEAST = 1.0
"""Processes a second that a unit must begin to be listed for that."""

_FROM_ROW = ("pid", "start_ticks", "ppid", "session", "uid", "user", "command", "cmdline", "cgroup", "unit", "nice",
             "name", "policy", "own")
_FROM_MACHINE = tuple(f.name for f in MACHINE_SLICE if f.name not in ("slice", "boot_id", "seconds", "ticks"))


class Slice:
    """The sums of one slice. `begin` is in epoch seconds, `number` the multiple of five seconds that it lies in."""

    def __init__(self, begin: float, number: int, boot_id: str) -> None:
        self.begin = begin
        self.number = number
        self.boot_id = boot_id
        self.machine = MachineUse()
        self.uses: dict[Key, Use] = {}
        self.started: set[Key] = set()
        self.ended: dict[Key, Row] = {}
        """Processes that ended without having done anything in the slice: parents of those that did."""
        self.seen: dict[str, set[Key]] = {}
        """Processes that ended in the slice, by unit: they belong to its processes too."""
        self.evidence: list[Record] = []
        """The waits, limits and pauses that were reported in it."""


class Units:
    """Who belongs to each unit of work now, and how much memory they hold together."""

    def __init__(self) -> None:
        self.members: dict[str, dict[Key, None]] = {}
        self.memory: dict[str, int] = {}
        self._of: dict[Key, tuple[str, int]] = {}

    def put(self, key: Key, unit: str | None, memory: int) -> None:
        """A process is new, has changed its unit (None: not known yet) or the memory that it holds."""
        now = unit, memory
        old = self._of.get(key)
        if old == now:
            return
        if old is not None and old[0] == now[0]:
            self.memory[old[0]] += now[1] - old[1]
        else:
            self.remove(key)
            if now[0] is None:
                return
            self.members.setdefault(now[0], {})[key] = None
            self.memory[now[0]] = self.memory.get(now[0], 0) + now[1]
        self._of[key] = now  # type: ignore[assignment]

    def remove(self, key: Key) -> None:
        """A process has ended."""
        unit, memory = self._of.pop(key, (None, 0))
        if unit is None:
            return
        members = self.members[unit]
        del members[key]
        if members:
            self.memory[unit] -= memory
        else:
            del self.members[unit], self.memory[unit]

    def root(self, unit: str) -> Key | None:
        """The oldest living process of a unit: the one that the others descend from, while it lives."""
        return min(self.members.get(unit, ()), key=lambda key: (key[1], key[0]), default=None)


class Slicer:
    """Adds ticks up into slices. `enter` is the score from which a process is rogue."""

    def __init__(self, enter: int) -> None:
        self.enter = enter
        self.units = Units()
        self.last: Tick | None = None
        self._slice: Slice | None = None
        self._begin = 0.0
        """Beginning of the last slice: no two may have the same, by which the store knows them."""
        self._complete: deque[tuple[float, float, bytes]] = deque(maxlen=KEPT)
        """Beginning and seconds of each slice, and its records as one JSON array: a third of the memory that they take
        as dicts."""
        self._cut = False
        self._active: set[Key] = set()
        self._owed_s = 0.0
        """Time of the last ticks, in which no row changed: what it means for the active ones is added in one step."""
        self._large: set[Key] = set()
        self._pids: dict[int, Key] = {}
        self._blocked: set[Key] = set()
        self._stopped: set[Key] = set()
        self._listed = -1
        """The minute in which the holders of memory and the stopped processes were listed last."""

    def ends(self, closing: Row, paused: bool = False) -> bool:
        """True when a tick does not belong to the running slice, which is to be finished before the tick is added:
        with `paused` a pause has just ended, or is what the tick covers."""
        running = self._slice
        self._cut = self._cut or paused
        return running is not None and (running.number != _number(closing) or running.boot_id != closing["boot_id"]
                                        or self._cut or _breaks(closing))

    def add(self, tick: Tick, closing: Row) -> None:
        """Add a tick, to a new slice if none is running."""
        last = self.last.row if self.last is not None else None
        again = last is None or last["boot_id"] != closing["boot_id"]
        if self._slice is None:
            number = _number(closing)
            whole = not (again or self._cut or _breaks(closing))
            begin = round(float(number if whole else closing["ts"] - (closing.get("interval_s") or 0.0)), 3)
            if begin == self._begin:
                begin = round(begin + 0.001, 3)     # a tick that ends at the multiple is a slice that begins there
            self._begin = begin
            self._slice = Slice(begin, number, closing["boot_id"])
        self._cut = False
        self._slice.evidence += (each for each in tick.records if each["type"] in ("wait", "limit", "pause"))
        self._add(self._slice, tick, closing, again)

    def finish(self, cut: bool = False) -> Slice | None:
        """End the running slice; with `cut` before its time, so that the next one does not begin where it began."""
        self._add_owed()
        ended, self._slice, self._cut = self._slice, None, self._cut or cut
        return ended

    def records(self, ended: Slice) -> list[Record]:
        """The records of a slice that has ended, the most important first; they are kept for `recent`."""
        minute = ended.number // 60
        made = self._records(ended, minute != self._listed)
        self._listed = minute
        self._complete.append((ended.begin, ended.machine.seconds, wire.dumps([*made, *ended.evidence])))
        return made

    def current(self) -> list[Record]:
        """The records of the running slice as far as it has come; nothing before the first tick."""
        self._add_owed()
        return self._records(self._slice, True) if self._slice is not None else []

    def recent(self) -> list[Record]:
        """The records of the last complete slices and of the running one, oldest first."""
        return self.between(-math.inf, math.inf) + self.current()

    def between(self, since: float, until: float) -> list[Record]:
        """The records of the complete slices of a time, oldest first, with the waits, limits and pauses reported in
        them."""
        return [each for begin, seconds, made in self._complete if overlaps(begin, seconds, since, until)
                for each in wire.loads(made)]

    def start_ticks(self, pid: int) -> int | None:
        """When the living process of this id started; None if there is none."""
        return self._pids[pid][1] if pid in self._pids else None

    # -- adding ------------------------------------------------------------------------------------------------------

    def _add(self, running: Slice, tick: Tick, closing: Row, first: bool) -> None:
        before: Mapping[Key, Row] = self.last.processes if self.last is not None else {}
        if first:
            self._forget(before)
            before = {}
        dt = min(closing.get("interval_s") or 0.0, LONGEST_S)
        if tick.steady and running.machine.ticks and not first:
            self._owed_s += dt
        else:
            self._add_owed()
            self._add_rows(running, tick, closing["ts"], before, dt, first)
        running.machine.add(closing, dt, first)
        running.machine.blocked(len(self._blocked))
        for made in tick.records:
            if made["type"] == "pause":
                running.machine.pause(made)
        self.last = tick

    def _add_owed(self) -> None:
        if self._owed_s and self._slice is not None:
            for key in self._active:
                use = self._slice.uses[key]
                use.add(use.row, self._owed_s, self.enter)
        self._owed_s = 0.0

    def _add_rows(self, running: Slice, tick: Tick, ts: float, before: Mapping[Key, Row], dt: float,
                  first: bool) -> None:
        rows = tick.processes
        for key in tick.exited:
            self._end(running, key, before.get(key))
        for key in tick.changed | self._active:
            row = rows.get(key)
            if row is None:
                self._active.discard(key)
                continue
            was = before.get(key)
            if row is not was:
                self._describe(running, key, row, was, first)
            part = dt
            if was is None:
                part = dt * lived(row, ts, dt)
            use = running.uses.get(key)
            if use is None:
                held = (was or row).get("memory_bytes") or 0
                use = running.uses[key] = Use(row, memory_before=held if was is not None or first else 0)
            if use.add(row, part, self.enter):
                self._active.add(key)
            else:
                self._active.discard(key)

    def _describe(self, running: Slice, key: Key, row: Row, was: Row | None, first: bool) -> None:
        """A row has changed: keep the sets by which processes are found without looking at all of them."""
        get = row.get
        state, memory, unit = get("state"), get("memory_bytes") or 0, get("unit")
        if was is None:
            self._pids[key[0]] = key
            if not first:
                running.started.add(key)
        if was is None or memory != (was.get("memory_bytes") or 0) or unit != was.get("unit"):
            self.units.put(key, unit, memory)
            if memory >= MEMORY_LEAST:
                self._large.add(key)
            else:
                self._large.discard(key)
        if was is None or state != was.get("state"):
            for held, name in ((self._blocked, "uninterruptible"), (self._stopped, "stopped")):
                if state == name:
                    held.add(key)
                else:
                    held.discard(key)

    def _end(self, running: Slice, key: Key, row: Row | None) -> None:
        self._forget([key])
        if row is None:
            return
        if key not in running.uses:
            running.ended[key] = row
        if "unit" in row:
            running.seen.setdefault(row["unit"], set()).add(key)
        parent = self._pids.get(row.get("ppid") or -1)
        if parent in running.uses:
            running.uses[parent].children += 1

    def _forget(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.units.remove(key)
            if self._pids.get(key[0]) == key:
                del self._pids[key[0]]
            for held in (self._active, self._large, self._blocked, self._stopped):
                held.discard(key)

    # -- records -----------------------------------------------------------------------------------------------------

    def _records(self, done: Slice, standing: bool) -> list[Record]:
        """`standing` lists also those who hold memory or are stopped, without doing anything."""
        seconds = done.machine.seconds
        head = {"slice": done.begin, "boot_id": done.boot_id, "seconds": round(seconds, 3)}
        machine = done.machine.fields(_FROM_MACHINE)
        if any("disk_bytes_per_s" in use.row for use in done.uses.values()):
            machine["disk_bytes"] = count_of(sum(use.disk + use.children_disk for use in done.uses.values()))
        if seconds > 0 and any("run_delay_ms_per_s" in use.row for use in done.uses.values()):
            delay = sum(use.run_delay for use in done.uses.values())
            machine["run_delay_ms_per_s"] = round(1000 * delay / seconds, 2)
        if self._credit_unwaited(done, machine.get("unattributed_cpu_cores") or 0.0):
            machine["unattributed_cpu_cores"] = 0.0
        listed = [self._process(head, key, use) for key, use in self._chosen(done, standing)]
        return [record("machine_slice", **{**machine, **head}), *listed, *self._groups(done, head)]

    def _credit_unwaited(self, done: Slice, spare_cores: float) -> bool:
        """A parent that ignores SIGCHLD gets no CPU time of its children from the kernel. Processes that lose many
        children and got none share the CPU time that no process explains, by the number of those children. True if
        there are any."""
        seconds = done.machine.seconds
        spare = spare_cores * seconds
        exits = {key: use.exits for key, use in done.uses.items() if spare_cores >= UNWAITED_CORES
                 and use.exits >= UNWAITED_LEAST * seconds and use.children_cpu < 0.1 * spare}
        for key, use in done.uses.items():
            use.unwaited = spare * exits[key] / sum(exits.values()) if key in exits else 0.0
        return bool(exits)

    def _chosen(self, done: Slice, standing: bool) -> Iterator[tuple[Key, Use]]:
        """The processes that are listed: the first of each rank, then the second of each, and so on."""
        seconds = done.machine.seconds
        ranked: list[list[Key]] = []
        for measure, least in _RANKS:
            some = [key for key, use in done.uses.items() if measure(use) > 0 and measure(use) >= least * seconds]
            ranked.append(nlargest(TOP, some, key=lambda key: (measure(done.uses[key]), key)))
        if standing or self._short_of_memory(done):
            ranked += self._holders(done), sorted(self._stopped)[:TOP]
        for key in dict.fromkeys(key for level in zip_longest(*ranked) for key in level if key is not None):
            use = done.uses.get(key)
            if use is None:
                row = self.last.processes.get(key) if self.last is not None else None
                if row is None:
                    continue
                use = Use(row, memory=row.get("memory_bytes") or 0,
                          stopped=done.machine.seconds if row.get("state") == "stopped" else 0.0)
            yield key, use

    def _holders(self, done: Slice) -> list[Key]:
        rows = self.last.processes if self.last is not None else {}

        def held(key: Key) -> tuple[int, Key]:
            use = done.uses.get(key)
            return (use.memory if use is not None else rows[key].get("memory_bytes", 0) if key in rows else 0), key

        return nlargest(TOP, self._large, key=held)

    def _short_of_memory(self, done: Slice) -> bool:
        waited, values = done.machine.weighted.get("pressure_memory_some_ms_per_s", 0.0), done.machine.values
        return bool(waited >= MEMORY_WAIT_MS_PER_S * done.machine.seconds > 0   # a control group can be short by itself
                    or values.get("memory_available_bytes", math.inf) < SCARCE * values.get("memory_total_bytes", 0))

    def _process(self, head: dict[str, Any], key: Key, use: Use) -> Record:
        row, seconds = use.row, head["seconds"]
        state = row.get("state")
        for name, spent in (("uninterruptible", use.uninterruptible), ("stopped", use.stopped)):
            if spent > seconds / 2:
                state = name
        return record("process_slice", **head, **{name: row[name] for name in _FROM_ROW if name in row}, state=state,
                      children=max(use.children, use.exits) or None, **use.fields((row,)))

    def _groups(self, done: Slice, head: dict[str, Any]) -> Iterator[Record]:
        """The units of at least two processes that used most together. The sums are over all of them."""
        sums: dict[str, Use] = {}
        rows: dict[str, list[Row]] = {}
        for use in done.uses.values():
            unit = use.row.get("unit")
            if unit is None or use.row.get("own"):
                continue        # what rogue-hunter uses is not the work of the program that starts it
            if unit not in sums:
                sums[unit], rows[unit] = Use(use.row), []
            sums[unit].merge(use)
            sums[unit].grown += use.growth
            rows[unit].append(use.row)
        started = Counter(done.uses[key].row.get("unit") for key in done.started if key in done.uses)
        members = {unit: self.units.members.get(unit, {}).keys() | done.seen.get(unit, set()) for unit in sums}
        seconds = done.machine.seconds
        ranked = []
        for measure, least in (*_GROUP_RANKS, (lambda use: started[use.row.get("unit")], STARTS_LEAST)):
            some = [unit for unit, use in sums.items() if len(members[unit]) > 1 and measure(use) > 0
                    and measure(use) >= least * seconds]
            ranked.append(nlargest(GROUPS, some, key=lambda unit: (measure(sums[unit]), unit)))
        families = {made["unit"]: made for made in self._families(done, head)}
        for unit in dict.fromkeys(unit for level in zip_longest(*ranked) for unit in level if unit is not None):
            use = sums[unit]
            if unit in families:
                continue
            use.memory = min(self.units.memory.get(unit, 0), _all_memory(done))
            yield self._group(head, unit, self.units.root(unit), use, rows[unit], members=len(members[unit]),
                              started=started[unit])
        yield from families.values()

    def _families(self, done: Slice, head: dict[str, Any]) -> Iterator[Record]:
        """Parents that used most together with all their descendants, unless one branch has nearly all of it: a script
        that starts programs of many names, each of which is a unit by itself. What is started at a prompt or by a
        service manager has nothing in common."""
        pids = {key[0]: key for key in (*done.ended, *done.uses)}
        below: dict[Key, list[Key]] = {}
        branches: dict[Key, dict[Key, float]] = {}
        for key, use in done.uses.items():
            if use.row.get("own"):
                continue
            branch = key
            for parent, row in self._ancestors(done, use.row, pids):
                if starts_jobs(row):
                    below.setdefault(parent, []).append(key)
                    part = branches.setdefault(parent, {})
                    part[branch] = part.get(branch, 0.0) + use.cpu + use.children_time
                branch = parent
        seconds = done.machine.seconds
        found: list[tuple[float, Key, Record]] = []
        for parent, keys in below.items():
            own = done.uses.get(parent)
            whole = [done.uses[key] for key in keys] + ([own] if own is not None else [])
            parts = [*branches[parent].values(), *([own.cpu + own.children_time] if own is not None else [])]
            first = self._row_of(done, parent)
            if first is None or len(whole) < FAMILY or max(parts) > BRANCH * sum(parts):
                continue
            together = Use(first, memory=min(sum(use.memory for use in whole), _all_memory(done)),
                           grown=sum(use.growth for use in whole))
            for use in whole:
                together.merge(use)
            if not any(measure(together) >= least * seconds > 0 for measure, least in _GROUP_RANKS):
                continue
            started = sum(key in done.started for key in keys)
            unit = f"{shown_name(first) or '?'}[{parent[0]}]"
            found.append((sum(parts), parent, self._group(head, unit, parent, together, [use.row for use in whole],
                                                          members=len(whole), started=started)))
        yield from (made for _, _, made in nlargest(GROUPS, found, key=lambda each: each[:2]))

    def _ancestors(self, done: Slice, row: Row, pids: Mapping[int, Key]) -> Iterator[tuple[Key, Row]]:
        """The parent of a process, its parent, and so on up to a shell at a prompt or a service manager."""
        for _ in range(ANCESTORS):
            ppid = row.get("ppid") or 0
            parent = self._pids.get(ppid) or pids.get(ppid)
            above = self._row_of(done, parent) if parent is not None and ppid > 2 else None
            if parent is None or above is None or is_apart(row, above) or \
                    not (starts_jobs(above) or above.get("command") in WRAPPERS):
                return
            yield parent, above
            row = above

    def _row_of(self, done: Slice, key: Key) -> Row | None:
        """The row of a process that lives, or ended in the slice."""
        living = self.last.processes.get(key) if self.last is not None else None
        return living if living is not None else done.uses[key].row if key in done.uses else done.ended.get(key)

    def _group(self, head: dict[str, Any], unit: str, root: Key | None, use: Use, rows: list[Row], members: int,
               started: int) -> Record:
        names = Counter(shown_name(row) or "?" for row in rows)
        use.rogue = min(use.rogue, head["seconds"])
        return record("group_slice", **head, unit=unit, name=max(names, key=lambda name: (names[name], name)),
                      pid=root[0] if root else None, start_ticks=root[1] if root else None, processes=members,
                      started=started or None, **use.fields(rows))


def overlaps(begin: float, seconds: float, since: float, until: float) -> bool:
    """True if a slice is of the time from `since` to `until`, epoch seconds."""
    edge = min(EDGE_S, (until - since) / 4)
    return begin + seconds > since + edge and begin < until - edge


def _all_memory(done: Slice) -> int:
    """The memory of the machine: pages that a child shares with its parent are in the sums twice."""
    return int(done.machine.values.get("memory_total_bytes") or LARGEST)


def _breaks(closing: Row) -> bool:
    """The tick does not continue the one before: the clock was set, the machine slept, or ticks are missing."""
    return bool(closing.get("clock_step_s") or closing.get("asleep_s") or (closing.get("interval_s") or 0.0) > GAP_S)


def _number(closing: Row) -> int:
    """The slice that a tick lies in, as the second at which it begins."""
    return int(closing["ts"] // SLICE_S) * SLICE_S
