"""The columns of rh-top's table: every metric of a process, as the schema declares it, with a title and a width."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rogue_hunter.report.sentences import measure, number, percent
from rogue_hunter.schema.sampling import METRICS, PROCESS
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.format import clip, columns, duration, size

FIRST = {
    "cpu_percent": "CPU%", "memory_bytes": "MEMORY", "disk_bytes_per_s": "DISK/s", "dominant_resource": "USES",
    "user": "USER", "state": "STATE", "age_s": "AGE", "run_delay_ms_per_s": "DELAY", "threads": "THR",
    "children_cpu_percent": "CHILD%", "pageins_per_s": "PAGEIN/s", "faults_per_s": "FAULT/s",
    "context_switches_per_s": "SWITCH/s", "wakeups_per_s": "WAKE/s", "gpu_ms_per_s": "GPU", "nice": "NI",
    "children_disk_bytes_per_s": "CHDISK/s", "children_exited": "EXITED", "children_failed": "FAILED",
    "syscalls_per_s": "SYSCALL/s", "mach_messages_per_s": "MACH/s", "qos_interactive_ms_per_s": "QOS",
    "energy_watts": "WATTS", "disproportionality": "TIMES", "blocking_score": "BLOCK", "contention_score": "CONTEND",
    "pressure_score": "PRESSURE", "efficiency_score": "WASTE", "dominant_category": "USES", "priority": "PRI",
}
"""Title of the columns that come first, in their order; the remaining metrics follow under their own names."""

_LEFT = {"dominant_resource": 8, "dominant_category": 10, "user": 8, "state": 8}
"""Columns of text, with their width."""

_STATES = {"uninterruptible": "disk", "sleeping": "sleep", "running": "run", "stopped": "stop", "defunct": "defunct",
           "idle": "idle"}

def brief(value: float) -> str:
    """A count in at most five characters: 812, 1.2k, 34k, 5.6M."""
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or unit == "G":
            break
        value /= 1000
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"


_BRIEF: dict[str, Callable[[Any], str]] = {
    "bytes": size, "bytes/s": size, "%": lambda v: f"{v:.1f}", "s": duration, "1/s": brief,
    "ms/s": lambda v: f"{v:.0f}", "1": lambda v: f"{v:.2f}", "x": lambda v: f"{v:.1f}",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the field, its title, its width in columns of the terminal, on which side the text is."""

    field: str
    title: str
    width: int
    unit: str = ""
    left: bool = False

    def cell(self, row: Row) -> str:
        """The text of a process in this column, of exactly `width` columns."""
        value = row.get(self.field)
        if value is None or (self.field == "dominant_resource" and not row.get("score")):
            return " " * self.width
        if self.field == "dominant_resource" and row.get("children_cpu_percent", 0.0) > row.get("cpu_percent", 0.0):
            value = "children" if value == "cpu" else value     # its own CPU use is not what its score comes from
        if self.left:
            return fill(_STATES.get(value, str(value)) if self.field == "state" else str(value), self.width)
        text = _BRIEF.get(self.unit, number if isinstance(value, (int, float)) else str)(value)
        return clip(text, self.width).rjust(self.width)

    def head(self, mark: str = "") -> str:
        """Its title, with a mark behind it where the table is sorted by it."""
        text = clip(self.title + mark, self.width)
        return text.ljust(self.width) if self.left else text.rjust(self.width)


def _made() -> tuple[Column, ...]:
    units = {f.name: f.unit for f in PROCESS}
    rest = {f.name: f.name.replace("_per_s", "/s").upper() for f in METRICS if f.name not in {*FIRST, "score"}}
    return tuple(Column(name, title, _LEFT.get(name, max(len(title) + 1, 8 if units[name].startswith("bytes") else 6)),
                        units[name], name in _LEFT) for name, title in {**FIRST, **rest}.items())


COLUMNS = _made()
"""All of them, in their order."""

SORTS = ("score", *(column.field for column in COLUMNS), "pid", "name")
"""Fields that the table can be sorted by."""


def known(rows: Iterable[Row]) -> list[Column]:
    """The columns that at least one of the processes has a value for."""
    names: set[str] = set()
    for row in rows:
        names.update(row)
    return [column for column in COLUMNS if column.field in names]


def fill(text: str, width: int) -> str:
    """The text clipped and padded to exactly `width` columns, control characters escaped."""
    text = clip(text, width)
    return text + " " * (width - columns(text))


def whole(field: str, value: Any) -> str:
    """A value with its unit, for the view of one process."""
    unit = next((f.unit for f in PROCESS if f.name == field), "")
    if field.endswith("_share"):
        return percent(value)
    return measure(value, unit) if isinstance(value, (int, float)) else clip(str(value), 400)
