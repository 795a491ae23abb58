"""How much of each slice is written, so that a day of them stays below 20 MB whatever the machine does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rogue_hunter.stream.tick import Record

BYTES_PER_DAY = 18_000_000
"""Bytes written a day on average: 1,040 a slice, room for about ten processes and four units that are known already."""
BURST_BYTES = 1_500_000
"""What may be written beyond that at once: 15 minutes of a machine that starts new processes all the time."""
ROW_BYTES = {"machine_slice": 200, "process_slice": 65, "group_slice": 65}
"""Bytes of a row with its part of the pages, measured; of a new process or unit come those of its texts."""
SUBJECT_BYTES = 70
KNOWN = 4096
"""Processes and units that are remembered as written; the oldest are forgotten first."""
CALM = {"pressure_cpu_some_ms_per_s": 50.0, "pressure_memory_some_ms_per_s": 5.0, "pressure_io_some_ms_per_s": 20.0,
        "late_s": 0.25, "asleep_s": 0.0, "clock_step_s": 0.0, "continued": 0, "oom_kills": 0, "uninterruptible": 0}
"""A slice in which no process is listed and nothing is above this is quiet: a minute of them is one row."""

_TEXTS = ("command", "name", "user", "cgroup", "unit")


class SliceBudget:
    """Chooses the slice records that are written. The first process and the first unit are always among them."""

    def __init__(self, bytes_per_day: float = BYTES_PER_DAY, burst: float = BURST_BYTES, cmdline: int = 200) -> None:
        self._rate = bytes_per_day / 86400
        self._burst = burst
        self._left = burst
        self._cmdline = cmdline
        self._known: dict[tuple[Any, ...], None] = {}

    def chosen(self, records: Iterable[Record]) -> list[Record]:
        """The records that are written, in order: others than those of slices are all kept."""
        found: list[Record] = []
        machine: int | None = None
        kept: set[str] = set()
        listed = False
        for each in records:
            kind = each["type"]
            if kind == "machine_slice":
                if machine is not None:
                    found[machine] = self._marked(found[machine], listed)
                machine, listed = len(found), False
                kept.clear()
                self._left = min(self._burst, self._left + self._rate * min(each["seconds"], 60.0))
            elif kind in ROW_BYTES:
                listed = True
                if kind in kept and self._cost(each) > self._left:
                    continue
                kept.add(kind)
            if kind in ROW_BYTES:
                self._left -= self._cost(each)
                self._remember(each)
            found.append(each)
        if machine is not None:
            found[machine] = self._marked(found[machine], listed)
        return found

    def _marked(self, machine: Record, listed: bool) -> Record:
        quiet = not listed and all((machine.get(name) or 0) <= most for name, most in CALM.items())
        return {**machine, "quiet": quiet}

    def _cost(self, each: Record) -> int:
        bytes_ = ROW_BYTES[each["type"]]
        if each["type"] != "machine_slice" and _subject(each) not in self._known:
            bytes_ += SUBJECT_BYTES + sum(len(each.get(name) or "") for name in _TEXTS)
            bytes_ += len((each.get("cmdline") or "")[: self._cmdline])
        return bytes_

    def _remember(self, each: Record) -> None:
        if each["type"] == "machine_slice":
            return
        self._known[_subject(each)] = None
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]


def _subject(each: Record) -> tuple[Any, ...]:
    if each["type"] == "group_slice":
        return each["boot_id"], each["unit"]
    return each["boot_id"], each["pid"], each["start_ticks"]
