"""Two runs side by side: new / old for each figure, marked where it moved by more than the rounds differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.bench.report import Document, Spread
from tests.bench.words import number, span, table

FIGURES = (("cpu_ms_per_tick", "CPU ms a tick"), ("times_floor", "x floor"), ("memory_bytes", "RSS bytes"),
           ("syscalls_per_tick", "system calls a tick"))

ALONE = 0.1
"""Without a spread on either side, a change by more than this part is marked."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure in both runs."""

    where: str
    figure: str
    old: Spread
    new: Spread

    @property
    def ratio(self) -> float:
        return self.new.median / self.old.median if self.old.median else float("nan")

    @property
    def outside(self) -> bool:
        """Does no round of the one lie within the rounds of the other?"""
        if self.old.count == 1 and self.new.count == 1:
            return abs(self.ratio - 1) > ALONE
        return self.new.low > self.old.high or self.new.high < self.old.low


def _figures(made: Document) -> Iterator[tuple[str, str, Spread]]:
    for load in made["loads"]:
        for name, subject in load["subjects"].items():
            for key, figure in FIGURES:
                if (spread := _spread(subject.get(key))) and not (name == "floor" and key == "times_floor"):
                    yield f"{load['name']}: {name}", figure, spread
    for name, found in made.get("start_up", {}).items():
        if spread := _spread(found["wall_ms"]):
            yield name, "ms from start to end", spread
    if made.get("slope"):
        yield "rh-pipe", "MB for 100,000 ticks", _one(made["slope"]["mb_per_100k_ticks"])


def _spread(found: dict[str, Any] | float | None) -> Spread | None:
    if found is None:
        return None
    return Spread.from_document(found) if isinstance(found, dict) else _one(found)


def _one(value: float) -> Spread:
    return Spread(value, value, value)


def cells(old: Document, new: Document) -> list[Cell]:
    """The figures that both runs have."""
    before = {(where, figure): spread for where, figure, spread in _figures(old)}
    return [Cell(where, figure, before[where, figure], spread) for where, figure, spread in _figures(new)
            if (where, figure) in before]


def text(old: Document, new: Document) -> str:
    """The table, with a word on whether the two can be compared at all."""
    lines = [f"New ({new['day']}) beside old ({old['day']}). Marked * where no round of the new one lies within the "
             f"rounds of the old one (without rounds: by more than {ALONE:.0%})."]
    differing = [key for key in ("cpu", "cpus", "kernel", "python") if old["machine"][key] != new["machine"][key]]
    if differing:
        lines.append("Another machine: " + ", ".join(
            f"{key} {old['machine'][key]} -> {new['machine'][key]}" for key in differing)
            + ". Only the columns that are ratios within a run can be compared.")
    found = [("", "figure", "old", "new", "new / old")]
    found += [(cell.where, cell.figure, span(cell.old), span(cell.new),
               number(cell.ratio) + (" *" if cell.outside else "  ")) for cell in cells(old, new)]
    return "\n".join([*lines, "", *table(found)]) + "\n"
