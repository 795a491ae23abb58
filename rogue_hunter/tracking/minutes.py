"""Minutes: what stays of the ticks. One row of the machine and the top commands each minute, about 3 MB a day.

This answers months later what went on at 14:32. A tick adds to the sums of the processes that did something; the
whole machine is looked at once a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.stream.tick import Record, Row, Stage, Tick, lived, record

AVERAGES = ("cpu_busy_cores", "cpu_steal_cores", "unattributed_cpu_cores", "pressure_cpu_some_ms_per_s",
             "pressure_memory_full_ms_per_s", "pressure_io_full_ms_per_s", "self_cpu_percent")

LEAST = {"cpu_seconds": 0.05, "memory_bytes": 16 << 20, "disk_bytes": 64 << 10, "gpu_seconds": 0.05, "wakeups": 60,
         "max_score": 1}
"""Less than this in a minute is not history: 0.1 % of a core, 16 MiB, 1 KiB/s, one wakeup a second."""

MOST = 2**63 - 1
"""What a column of SQLite holds; more is somebody's invention."""


def minutes(config: Config, model: str | None = None) -> Stage:
    """The stage: with the first tick of a new minute come the records of the one before, and at the end of all ticks
    those of the last."""
    bands = config.bands_of(model or config.scoring.model)
    enter = bands.start(bands.tracking)

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        minute = Minute(enter)
        for tick in ticks:
            if tick.row is not None:
                number = int(tick.row["ts"] // 60)
                if minute.ticks and (number != minute.number or tick.row["boot_id"] != minute.boot_id):
                    tick.records.extend(minute.records(config.minutes.top))
                    minute = Minute(enter)
                minute.add(tick, tick.row)
            yield tick
        if minute.ticks:
            yield Tick(records=minute.records(config.minutes.top))

    return stage


@dataclass(slots=True)
class Sums:
    """What the processes of one command did in a minute."""

    cpu_seconds: float = 0.0
    disk_bytes: float = 0.0
    gpu_seconds: float = 0.0
    wakeups: float = 0.0
    run_delay_s: float = 0.0
    max_score: int = 0
    rogue_s: float = 0.0
    best: tuple[float, float] = (-1.0, -1.0)
    row: Row | None = None


class Minute:
    """The sums of one minute. `enter` is the score from which a process is rogue."""

    def __init__(self, enter: int) -> None:
        self._enter = enter
        self.number = 0
        self.boot_id = ""
        self.ticks = 0
        self._seconds = 0.0
        self._sums: dict[str, Sums] = {}
        self._averages = dict.fromkeys(AVERAGES, 0.0)
        self._known = dict.fromkeys(AVERAGES, 0.0)
        self._machine: Row = {}
        self._last: Tick | None = None

    def add(self, tick: Tick, closing: Row) -> None:
        """Add a tick."""
        if not self.ticks:
            self.number, self.boot_id = int(closing["ts"] // 60), closing["boot_id"]
        self.ticks += 1
        dt = min(closing.get("interval_s") or 0.0, 60.0)
        self._seconds += dt
        self._last = tick
        for name in AVERAGES:
            if name in closing:
                self._averages[name] += closing[name] * dt
                self._known[name] += dt
        m = self._machine
        m["late_s"] = max(m.get("late_s", 0.0), closing.get("late_s", 0.0))
        m["cpu_busy_cores_max"] = max(m.get("cpu_busy_cores_max", 0.0), closing.get("cpu_busy_cores", 0.0))
        m["max_score"] = max(m.get("max_score", 0), closing.get("max_score", 0))
        for name in ("asleep_s", "started", "exited"):
            m[name] = m.get(name, 0) + closing.get(name, 0)
        if "memory_available_bytes" in closing:
            m["memory_available_bytes"] = min(m.get("memory_available_bytes", 1 << 62),
                                              closing["memory_available_bytes"])
        for made in tick.records:
            if made["type"] == "pause":
                m["pauses"] = m.get("pauses", 0) + 1
                m["pause_s"] = m.get("pause_s", 0.0) + made["duration_s"]
        for key in tick.changed | tick.scored:
            row = tick.processes[key]
            self._process(row, dt * lived(row, closing["ts"], dt))

    def _process(self, row: Row, dt: float) -> None:
        name = row.get("command") or "?"
        sums = self._sums.get(name)
        if sums is None:
            sums = self._sums[name] = Sums()
        cpu = (row.get("cpu_percent", 0.0) + row.get("children_cpu_percent", 0.0)) / 100
        score = row.get("score", 0)
        sums.cpu_seconds += cpu * dt
        sums.disk_bytes += row.get("disk_bytes_per_s", 0.0) * dt
        sums.gpu_seconds += row.get("gpu_ms_per_s", 0.0) / 1000 * dt
        sums.wakeups += row.get("wakeups_per_s", 0.0) * dt
        sums.run_delay_s += row.get("run_delay_ms_per_s", 0.0) / 1000 * dt
        sums.max_score = max(sums.max_score, score)
        if score >= self._enter:
            sums.rogue_s += dt
        if (score, cpu) > sums.best:
            sums.best, sums.row = (score, cpu), row

    def records(self, top: int) -> list[Record]:
        """The machine's record and those of the top commands."""
        last = self._last
        if last is None or last.row is None:
            return []
        rows = last.processes.values()
        closing = last.row
        start = self.number * 60
        machine: dict[str, Any] = {
            "minute": start, "boot_id": self.boot_id, "ticks": self.ticks, "seconds": round(self._seconds, 3),
            "cpus": closing.get("cpus"), "memory_total_bytes": closing.get("memory_total_bytes"),
            "processes": closing.get("processes"),
            "disk_bytes": _count(sum(s.disk_bytes for s in self._sums.values())),
        }
        for name in AVERAGES:
            if self._known[name]:
                machine[name] = round(self._averages[name] / self._known[name], 3)
        machine.update({name: round(v, 3) if isinstance(v, float) else v for name, v in self._machine.items()})
        return [record("machine_minute", **machine), *self._commands(start, rows, top)]

    def _commands(self, start: int, rows: Iterable[Row], top: int) -> list[Record]:
        count: dict[str, int] = {}
        memory: dict[str, int] = {}
        largest: dict[str, Row] = {}
        for row in rows:
            name = row.get("command") or "?"
            count[name] = count.get(name, 0) + 1
            held = row.get("memory_bytes", 0)
            memory[name] = memory.get(name, 0) + held
            if name not in largest or held > largest[name].get("memory_bytes", 0):
                largest[name] = row
        lists: dict[str, dict[str, float]] = {"memory_bytes": {k: float(v) for k, v in memory.items()}}
        for field in LEAST:
            if field != "memory_bytes":
                lists[field] = {name: getattr(sums, field) for name, sums in self._sums.items()}
        kept: dict[str, None] = {}
        for field, values in lists.items():
            some = [name for name, value in values.items() if value >= LEAST[field]]
            kept.update(dict.fromkeys(nlargest(top, some, key=values.__getitem__)))
        made = []
        for name in kept:
            sums = self._sums.get(name) or Sums()
            row = sums.row or largest.get(name) or {}
            made.append(record(
                "command_minute", minute=start, command=name, processes=count.get(name, 0), pid=row.get("pid"),
                unit=row.get("unit"), cpu_seconds=round(sums.cpu_seconds, 3), memory_bytes=_count(memory.get(name, 0)),
                disk_bytes=_count(sums.disk_bytes), gpu_seconds=round(sums.gpu_seconds, 3) or None,
                wakeups=_count(sums.wakeups), run_delay_s=round(sums.run_delay_s, 3), max_score=sums.max_score,
                rogue_s=round(sums.rogue_s, 1)))
        return made


def _count(value: float) -> int:
    """A sum as a whole number that the wire and the database can hold."""
    return round(max(-MOST, min(value, MOST)))
