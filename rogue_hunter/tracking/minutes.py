"""The stage that turns ticks into history: slices of five seconds, minutes made from them, culprits of pauses.

They show months later what ran at 14:32. Who was to blame then is answered from the minutes of processes and units,
which the database makes of its slices (rogue_hunter.store.rollup).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.sampling.naming import OWN_NAMES
from rogue_hunter.schema.events import MACHINE_MINUTE
from rogue_hunter.stream.tick import Record, Row, Tick, record
from rogue_hunter.tracking.slices import Slice, Slicer
from rogue_hunter.tracking.use import LARGEST, MachineUse, Use, count_of

LEAST = {"cpu_seconds": 0.05, "memory_bytes": 16 << 20, "disk_bytes": 64 << 10, "gpu_seconds": 0.05, "wakeups": 60,
         "max_score": 1}
"""Less than this in a minute is left out: 0.1 % of a core, 16 MiB, 1 KiB/s, one wakeup a second."""

Judge = Callable[[Record, Sequence[Record]], dict[str, Any]]
"""Names the culprits of a pause: the pause and the records of the slices of its time in; `culprits` and
`unexplained_share`, as far as they are known, out."""

_FROM_MACHINE = tuple(f.name for f in MACHINE_MINUTE if f.name not in ("minute", "boot_id", "seconds", "ticks"))


def _command(row: Row) -> str:
    """The command that a minute counts a process with. Another program with the name of one of rogue-hunter's own
    gets another one: no answer names rogue-hunter as a cause."""
    name: str = row.get("command") or "?"
    return f"{name} (other)" if name in OWN_NAMES and not row.get("own") else name


@dataclass(slots=True)
class Command:
    """What all processes of one command used; `best` is the highest score and the most CPU time of one of them."""

    use: Use
    best: tuple[int, float] = (-1, -1.0)


class Minute:
    """The sums of one minute. `start` is in epoch seconds."""

    def __init__(self, first: Slice) -> None:
        self.start = first.number // 60 * 60
        self.boot_id = first.boot_id
        self._machine = MachineUse()
        self._commands: dict[str, Command] = {}

    def holds(self, closing: Row) -> bool:
        """True when a tick lies in this minute."""
        return bool(closing["ts"] // 60 * 60 == self.start and closing["boot_id"] == self.boot_id)

    def add(self, ended: Slice) -> None:
        """Add a slice."""
        self._machine.merge(ended.machine)
        for use in ended.uses.values():
            name = _command(use.row)
            command = self._commands.get(name)
            if command is None:
                command = self._commands[name] = Command(Use(use.row))
            command.use.merge(use)
            mark = use.max_score, use.cpu + use.children_time
            if mark > command.best:
                command.best, command.use.row = mark, use.row

    def records(self, rows: Iterable[Row], top: int) -> list[Record]:
        """The machine's record and those of the `top` commands by each of LEAST. `rows` are those of the last tick."""
        seconds = self._machine.seconds
        delay = sum(c.use.run_delay for c in self._commands.values())
        known = any("run_delay_ms_per_s" in c.use.row for c in self._commands.values())
        machine = {"minute": self.start, "boot_id": self.boot_id,
                   "run_delay_ms_per_s": round(1000 * delay / seconds, 2) if known and seconds > 0 else None,
                   "disk_bytes": count_of(sum(c.use.disk + c.use.children_disk for c in self._commands.values())),
                   **self._machine.fields(_FROM_MACHINE)}
        return [record("machine_minute", **machine), *self._top(rows, top)]

    def _top(self, rows: Iterable[Row], top: int) -> list[Record]:
        count: dict[str, int] = {}
        memory: dict[str, int] = {}
        largest: dict[str, Row] = {}
        most = self._machine.values.get("memory_total_bytes") or LARGEST
        for row in rows:
            name = _command(row)
            count[name] = count.get(name, 0) + 1
            held = row.get("memory_bytes", 0)
            memory[name] = min(memory.get(name, 0) + held, most)
            if name not in largest or held > largest[name].get("memory_bytes", 0):
                largest[name] = row
        used = {name: command.use for name, command in self._commands.items()}
        lists: dict[str, dict[str, float]] = {
            "cpu_seconds": {name: use.cpu + use.children_time for name, use in used.items()},
            "memory_bytes": {name: float(held) for name, held in memory.items()},
            "disk_bytes": {name: use.disk + use.children_disk for name, use in used.items()},
            "gpu_seconds": {name: use.gpu for name, use in used.items()},
            "wakeups": {name: use.wakeups for name, use in used.items()},
            "max_score": {name: float(use.max_score) for name, use in used.items()},
        }
        kept: dict[str, None] = {}
        for field, values in lists.items():
            some = [name for name, value in values.items() if value >= LEAST[field]]
            kept.update(dict.fromkeys(nlargest(top, some, key=values.__getitem__)))
        made = []
        for name in kept:
            use = used.get(name) or Use(largest.get(name) or {})
            made.append(record(
                "command_minute", minute=self.start, command=name, processes=count.get(name, 0),
                pid=use.row.get("pid"), unit=use.row.get("unit"),
                cpu_seconds=round(use.cpu + use.children_time, 3), memory_bytes=count_of(memory.get(name, 0)),
                disk_bytes=count_of(use.disk + use.children_disk), gpu_seconds=round(use.gpu, 3) or None,
                wakeups=count_of(use.wakeups), run_delay_s=round(use.run_delay, 3), max_score=use.max_score,
                rogue_s=round(use.rogue, 1)))
        return made


class History:
    """The stage: adds ticks up; `slicer` holds the running slice and the last complete ones.

    `judge` names the culprits of pauses; without one they have none.
    """

    def __init__(self, config: Config, model: str | None = None, judge: Judge | None = None) -> None:
        bands = config.bands_of(model or config.scoring.model)
        self.slicer = Slicer(bands.start(bands.tracking))
        self._top = config.minutes.top
        self._most = config.pause.culprits
        self._minute: Minute | None = None
        self._judge = judge

    def configure(self, config: Config) -> None:
        """Use these settings from the next pause on."""
        self._most = config.pause.culprits

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the records of the slice, and of the minute, that ended before it."""
        closing = tick.row
        if closing is not None:
            pauses = [each for each in tick.records if each["type"] == "pause" and "end" in each]
            if self.slicer.ends(closing, bool(pauses)):
                tick.records.extend(self._end(closing))
            self.slicer.add(tick, closing)
            if any(pause["end"] >= closing["ts"] for pause in pauses):
                tick.records.extend(self._end(closing, cut=True))
            for pause in pauses:
                self._name(pause)
        return tick

    def close(self) -> list[Record]:
        """The records of what was not complete when the ticks ended."""
        return self._end(None)

    def _name(self, pause: Record) -> None:
        """Add who used what was short in the pause."""
        if self._judge is None:
            return
        pause.update(self._judge(pause, self.slicer.between(pause["start"], pause["end"])))
        pause["culprits"] = pause["culprits"][: self._most]
        for culprit in pause["culprits"]:
            if "start_ticks" not in culprit:
                culprit["start_ticks"] = self.slicer.start_ticks(culprit["pid"])

    def _end(self, closing: Row | None, *, cut: bool = False) -> list[Record]:
        """End the running slice, and the minute unless the next tick, with `closing`, belongs to it too."""
        ended, last = self.slicer.finish(cut), self.slicer.last
        if ended is None or last is None:
            return []
        if self._minute is None:
            self._minute = Minute(ended)
        minute = self._minute
        minute.add(ended)
        made = self.slicer.records(ended)
        if closing is None or not minute.holds(closing):
            self._minute = None
            made += minute.records(last.processes.values(), self._top)
        return made
