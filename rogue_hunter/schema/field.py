"""The class of a field, and the constants that several records share.

A field is known or unknown. Unknown is a missing key on the wire, a missing key in memory and NULL in SQL; a zero was
measured. The unit is part of the name (`_bytes`, `_per_s`, `_ms_per_s`, `_total` for a counter that only grows).
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 1
"""The `v` of every record. A reader refuses a higher one (exit 65)."""

STATES = ("running", "sleeping", "uninterruptible", "stopped", "defunct", "idle", "halted")
BANDS = ("low", "medium", "elevated", "high", "critical")
RESOURCES = ("cpu", "gpu", "memory", "disk", "wakeups")
CATEGORIES = ("blocking", "contention", "pressure", "efficiency")

Key = tuple[int, int]
"""(pid, start_ticks): one process of one boot. A pid alone never identifies a process."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    `type` is int, float, str, bool, list or dict; `sql` follows from it. `stage`: what adds the field.
    `metric` marks a number whose lowest and highest values over the ring are kept with each snapshot; `sparse` one that
    is left out when it is 0.
    """

    name: str
    type: type
    unit: str
    doc: str
    stage: str = "sample"
    platforms: str = "linux macos"
    metric: bool = False
    sparse: bool = False
    required: bool = False
    choices: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The declared type of the column."""
        return {int: "INTEGER", bool: "INTEGER", float: "REAL"}.get(self.type, "TEXT")
