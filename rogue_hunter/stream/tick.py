"""What travels between stages: one beat's reading of the whole machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.schema.field import VERSION, Key

Row = dict[str, Any]
"""The fields of one process without `type`, `v` and what the writer adds: `ts`, `seq`, `age_s`."""

Record = dict[str, Any]
"""One whole record of another type, beginning with `type` and `v`."""

Recent = tuple[tuple[Row, Mapping[Key, Row]], ...]
"""Ticks, oldest first: closing row and selected rows of each."""


@dataclass(slots=True)
class Tick:
    """One beat.

    `row` holds the fields of the closing row (without `type` and `v`). It is None for a batch that carries `records`
    only: what came between ticks, or the last records of a stage. `processes` maps identity to row, in the order of
    output. `changed` holds the identities whose row is not the one of the tick before; `exited` those that were in
    the tick before and are gone; `scored` those whose score is above 0, once a score stage has run.

    The track stage sets `rogues`, the selected rows with the highest score first, and `recent`, the last ticks up to
    this one, oldest first: closing row and selected rows.
    """

    row: dict[str, Any] | None = None
    processes: dict[Key, Row] = field(default_factory=dict)
    changed: set[Key] = field(default_factory=set)
    exited: tuple[Key, ...] = ()
    scored: set[Key] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)
    rogues: Mapping[Key, Row] = field(default_factory=dict)
    recent: Recent = ()

    def with_rows(self, kept: dict[Key, Row], before: Mapping[Key, Row]) -> Tick:
        """The tick with these of its rows only; `before` are those that were kept of the tick before.

        `exited` is empty if rows were left out: a process that has ended looks like one that was left out.
        """
        changed = {key for key, row in kept.items() if before.get(key) is not row}
        made = Tick(self.row, kept, changed, (), self.scored & kept.keys(), self.records)
        if not made.partial:
            made.exited = self.exited
        return made

    @property
    def steady(self) -> bool:
        """True when the rows are those of the tick before, every one: what was made of them still holds."""
        return not self.changed and not self.exited and not self.partial

    @property
    def partial(self) -> bool:
        """True when rows were left out (`--active`, `--pid`, ...): then a missing process may still be running."""
        return self.row is not None and len(self.processes) < self.row.get("processes", 0)


def lived(row: Row, ts: float, interval_s: float) -> float:
    """The part of the interval before `ts` in which the process lived, 0.01 s at the least of it.

    The rates of a process that began in the interval are of its own lifetime; what it used in the interval is its
    rate times this: `ls` that ran for 3 ms did not use a core for the whole interval.
    """
    age = ts - row.get("start_time", 0.0)
    # A start in the future: the wall clock was set back since then, so the age is unknown.
    known = -1.0 < age < interval_s and interval_s > 0
    return max(age, 0.01) / interval_s if known else 1.0


def record(kind: str, /, **fields: Any) -> Record:
    """A record of type `kind`; fields that are None are unknown and left out."""
    return {"type": kind, "v": VERSION, **{k: v for k, v in fields.items() if v is not None}}


def shown_name(row: Mapping[str, Any]) -> str | None:
    """The name of a process for people: that of its script or module, else the program's. None if neither is known."""
    return row.get("name") or row.get("command")


SEARCHED = ("name", "command", "cmdline", "user", "unit", "pid")
"""Fields that a filter is searched in."""


def matches(row: Mapping[str, Any], search: str) -> bool:
    """One of the fields of the process has the text of the filter in it, in any case."""
    word = search.strip().casefold()
    return any(word in str(row.get(name, "")).casefold() for name in SEARCHED)
