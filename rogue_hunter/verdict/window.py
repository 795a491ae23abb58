"""The input of the verdict: a window of evidence, cut into slices of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
"""A record of rogue_hunter.schema.slices without `type` and `v`; a field that is not known is left out."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One stretch of time: the machine's row, and the rows of its processes and units of work.

    `start` is in epoch seconds, `seconds` is the measured time that the rows cover. A process row without start_ticks
    stands for all processes of one command: the history of minutes keeps no identities. In a slice that is the sum of
    shorter ones a process row has `active_s`, the seconds of those in which it was listed, and `first_slice`.
    """

    start: float
    seconds: float
    machine: Row
    processes: Sequence[Row] = ()
    groups: Sequence[Row] = ()

    @property
    def end(self) -> float:
        """Epoch seconds of its end."""
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Window:
    """All evidence about a stretch of time, in the order of time.

    `waits`, `limits` and `pauses` are records. `resolution_s` is the nominal length of a slice: 5, 60 or 3600. With
    `recent` newer slices count more, for a question about now. Processes whose pid is in `readers` are never named:
    they ask the question. `usual` holds medians of the machine's columns. A wait may have `standing`: it was there when
    the watch began.
    """

    since: float
    until: float
    slices: Sequence[Slice] = ()
    waits: Sequence[Row] = ()
    limits: Sequence[Row] = ()
    pauses: Sequence[Row] = ()
    resolution_s: float = 5.0
    recent: bool = False
    readers: frozenset[int] = frozenset()
    usual: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time that the slices cover."""
        return sum(one.seconds for one in self.slices)


def number(row: Row, name: str) -> float | None:
    """A field as a number; None when it is not known."""
    value = row.get(name)
    return None if value is None else float(value)


def total(row: Row, *names: str) -> float:
    """The sum of those of the fields that are known."""
    return sum(float(row.get(name) or 0.0) for name in names)
