"""Sums of what processes and the machine used in a stretch of time, added up tick by tick.

Slices and minutes are made from the same sums: each tick is added once, to the running slice, and a slice that has
ended is added to the minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.stream.tick import Row

AVERAGES = ("cpu_busy_cores", "cpu_steal_cores", "unattributed_cpu_cores", "pressure_cpu_some_ms_per_s",
            "pressure_memory_some_ms_per_s", "pressure_memory_full_ms_per_s", "pressure_io_some_ms_per_s",
            "pressure_io_full_ms_per_s", "self_cpu_percent")
"""Fields of the closing row of which the average over time is kept."""
HIGHEST = ("late_s", "max_score", "device_wait_ms")
SUMS = ("asleep_s", "clock_step_s", "continued", "self_run_delay_ms", "self_throttled_ms", "started", "exited",
        "refaults", "direct_reclaims", "oom_kills", "device_bytes", "device_requests_s")
LAST = ("cpus", "memory_total_bytes", "processes", "unreadable")

LARGEST = 2**63 - 1
"""The largest integer of a column of SQLite; a larger sum can only come from made-up input."""

WAITING_STATES = frozenset({"uninterruptible", "stopped"})


def count_of(value: float) -> int:
    """A sum as a whole number that the wire and the database can hold."""
    return round(max(-LARGEST, min(value, LARGEST)))


_MERGED = ("cpu", "children_cpu", "disk", "children_disk", "wakeups", "run_delay", "pageins", "gpu", "uninterruptible",
           "stopped", "rogue", "children", "exits", "unwaited")
"""The sums of Use."""


@dataclass(slots=True)
class Use:
    """What one process, or several together, used. `row` is the last one known of the (busiest) process.

    Seconds, bytes and counts. `memory` is the most that was held, `grown` what of it was not held at the beginning.
    """

    row: Row
    grown: int = 0
    memory_before: int | None = None
    cpu: float = 0.0
    children_cpu: float = 0.0
    disk: float = 0.0
    children_disk: float = 0.0
    gpu: float = 0.0
    wakeups: float = 0.0
    pageins: float = 0.0
    run_delay: float = 0.0
    uninterruptible: float = 0.0
    stopped: float = 0.0
    memory: int = 0
    max_score: int = 0
    rogue: float = 0.0
    children: int = 0
    exits: int = 0
    unwaited: float = 0.0
    """CPU time of children that the process does not wait for, as far as it was inferred for it."""

    @property
    def children_time(self) -> float:
        """CPU time of ended children, waited for or not."""
        return self.children_cpu + self.unwaited

    def add(self, row: Row, dt: float, enter: int) -> bool:
        """Add `dt` seconds at the rates of `row`; from the score `enter` on they count as rogue. True if the process
        used or waited for anything, so that the same row means as much again in the next tick."""
        get = row.get
        self.row = row
        busy = False
        # Written out: this runs in each tick for each active process, and a loop over names takes twice as long.
        if rate := get("cpu_percent"):
            self.cpu += rate * dt / 100
            busy = True
        if rate := get("children_cpu_percent"):
            self.children_cpu += rate * dt / 100
            busy = True
        if exits := get("children_exited"):
            self.exits += exits
            busy = True
        if rate := get("disk_bytes_per_s"):
            self.disk += rate * dt
            busy = True
        if rate := get("children_disk_bytes_per_s"):
            self.children_disk += rate * dt
            busy = True
        if rate := get("wakeups_per_s"):
            self.wakeups += rate * dt
            busy = True
        if rate := get("run_delay_ms_per_s"):
            self.run_delay += rate * dt / 1000
            busy = True
        if rate := get("pageins_per_s"):
            self.pageins += rate * dt
            busy = True
        if rate := get("gpu_ms_per_s"):
            self.gpu += rate * dt / 1000
            busy = True
        if score := get("score"):
            busy = True
            if score > self.max_score:
                self.max_score = score
            if score >= enter:
                self.rogue += dt
        memory = get("memory_bytes")
        if memory and memory > self.memory:
            self.memory = memory
        state = get("state")
        if state in WAITING_STATES:
            busy = True
            if state == "stopped":
                self.stopped += dt
            else:
                self.uninterruptible += dt
        return busy

    def merge(self, other: Use) -> None:
        """Add what another one used, `row` and memory apart: whose memory counts, the caller knows."""
        for name in _MERGED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.max_score = max(self.max_score, other.max_score)

    @property
    def growth(self) -> int:
        """By how much memory grew; 0 where it shrank or is not known. What has ended holds nothing: its most counts."""
        held: int | None = self.memory if self.row.get("state") == "defunct" else self.row.get("memory_bytes")
        if held is None or self.memory_before is None:
            return self.grown
        return max(0, held - self.memory_before)

    def fields(self, known: Iterable[Row]) -> dict[str, Any]:
        """The fields of a slice with the use. A sum that none of the rows `known` has a rate for is unknown, and
        left out."""
        rows = list(known)
        found: dict[str, Any] = {}
        for name, rate, value in (
                ("cpu_seconds", "cpu_percent", round(self.cpu, 3)),
                ("children_cpu_seconds", "children_cpu_percent", round(self.children_time, 3)),
                ("disk_bytes", "disk_bytes_per_s", count_of(self.disk)),
                ("children_disk_bytes", "children_disk_bytes_per_s", count_of(self.children_disk)),
                ("memory_bytes", "memory_bytes", self.memory),
                ("memory_growth_bytes", "memory_bytes", self.growth),
                ("gpu_seconds", "gpu_ms_per_s", round(self.gpu, 3)),
                ("wakeups", "wakeups_per_s", count_of(self.wakeups)),
                ("pageins", "pageins_per_s", count_of(self.pageins)),
                ("run_delay_s", "run_delay_ms_per_s", round(self.run_delay, 3)),
                ("uninterruptible_s", "state", round(self.uninterruptible, 2)),
                ("stopped_s", "state", round(self.stopped, 2)),
                ("max_score", "score", self.max_score),
                ("rogue_s", "score", round(self.rogue, 2))):
            if value or any(rate in row for row in rows):
                found[name] = value
        return found


@dataclass(slots=True)
class MachineUse:
    """Averages, extremes and sums of the closing rows."""

    ticks: int = 0
    seconds: float = 0.0
    weighted: dict[str, float] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, closing: Row, dt: float, first: bool = False) -> None:
        """Add a tick of `dt` seconds. The lateness of the `first` tick of a run is that of the start, and left out."""
        self.ticks += 1
        self.seconds += dt
        get, weighted, known, values = closing.get, self.weighted, self.known, self.values
        for name in AVERAGES:
            value = get(name)
            if value is not None:
                weighted[name] = weighted.get(name, 0.0) + value * dt
                known[name] = known.get(name, 0.0) + dt
        for name in SUMS:
            value = get(name)
            if value or (value is not None and name not in values):
                values[name] = values.get(name, 0) + value
        for name, source in _HIGHEST:
            value = get(source)
            if value is not None and value >= values.get(name, 0) and not (first and name == "late_s"):
                values[name] = value
        for name in LAST:
            if name in closing:
                values[name] = closing[name]
        value = get("memory_available_bytes")
        if value is not None and value <= values.get("memory_available_bytes", value):
            values["memory_available_bytes"] = value

    def pause(self, made: Row) -> None:
        """Count a pause record."""
        self._take({"pauses": 1, "pause_s": made["duration_s"]})

    def blocked(self, processes: int) -> None:
        """Take up the number of processes in uninterruptible sleep."""
        if processes >= self.values.get("uninterruptible", 0):
            self.values["uninterruptible"] = processes

    def merge(self, other: MachineUse) -> None:
        """Add what came after."""
        self.ticks += other.ticks
        self.seconds += other.seconds
        for mine, theirs in ((self.weighted, other.weighted), (self.known, other.known)):
            for name, value in theirs.items():
                mine[name] = mine.get(name, 0.0) + value
        self._take(other.values)

    def _take(self, found: dict[str, Any]) -> None:
        values = self.values
        for name, value in found.items():
            old = values.get(name)
            if old is None or name in LAST:
                values[name] = value
            elif name in _LARGER:
                values[name] = max(old, value)
            elif name == "memory_available_bytes":
                values[name] = min(old, value)
            else:
                values[name] = old + value

    def fields(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the fields `names` that are known."""
        found: dict[str, Any] = {"ticks": self.ticks, "seconds": round(self.seconds, 3)}
        for name in names:
            if self.known.get(name):
                found[name] = round(self.weighted[name] / self.known[name], 3)
            elif name in self.values:
                value = self.values[name]
                found[name] = count_of(value) if name.endswith("_bytes") else \
                    round(value, 3) if isinstance(value, float) else value
        return found


_HIGHEST = (*((name, name) for name in HIGHEST), ("cpu_busy_cores_max", "cpu_busy_cores"))
_LARGER = frozenset({*(name for name, _ in _HIGHEST), "uninterruptible"})
