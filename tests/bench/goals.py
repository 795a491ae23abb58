"""What was to be reached, and whether it was: a verdict for each goal, from the document of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.bench.report import OURS, Document, Spread, figure, of_kind
from tests.bench.words import number, span, table

STORM = "storm"
"""The name of the process that load.c lets start the others."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reached` is None when it was not measured. `told` is the text of the figure, with its spread."""

    goal: str
    reached: bool | None
    told: str

    @property
    def word(self) -> str:
        return {True: "reached", False: "NOT REACHED", None: "not measured"}[self.reached]


def _judged(goal: str, spread: Spread | None, holds: Callable[[float], bool], unit: str = "",
            scale: float = 1.0) -> Verdict:
    """By the median of what was measured."""
    if spread is None:
        return Verdict(goal, None, "-")
    scaled = Spread(spread.median * scale, spread.low * scale, spread.high * scale, spread.count)
    return Verdict(goal, holds(scaled.median), span(scaled, unit))


def _floor(goal: str, load: dict[str, Any] | None, most: float) -> Verdict:
    """By the floor that reads /proc; beside it stands the lower one, which asks CPU clocks as rh-pipe does."""
    made = _judged(goal, figure(load, OURS, "times_floor"), lambda v: v <= most, " x")
    least = figure(load, OURS, "times_floor_clock")
    return replace(made, told=f"{made.told}; {span(least)} x floor-clock") if least else made


def _beat(goal: str, load: dict[str, Any] | None, key: str, limit: float) -> Verdict:
    beats = load and load["beats"]
    if not beats:
        return Verdict(goal, None, "-")
    return Verdict(goal, beats[key] <= limit, f"{number(beats[key])} ms over {beats['ticks']} ticks")


def _named(load: dict[str, Any] | None) -> Verdict:
    goal = "fork storm: its parent named"
    beats = load and load["beats"]
    if not beats:
        return Verdict(goal, None, "-")
    told = (f"highest score: {beats['leader'] or 'nobody'} in {beats['leader_ticks']} of {beats['ticks']} ticks; "
            f"rh-report why: {beats['reported'] or 'nobody'}")
    return Verdict(goal, beats["reported"] == STORM or (beats["leader"] == STORM and
                                                        2 * beats["leader_ticks"] > beats["ticks"]), told)


def _growth(made: Document, low: int, high: int) -> Verdict:
    goal = f"memory for each idle process from {low:,} to {high:,}: under 1 KB"
    small, large = (figure(of_kind(made, "idle", size), OURS, "memory_bytes") for size in (low, high))
    if small is None or large is None:
        return Verdict(goal, None, "-")
    each = (large.median - small.median) / (high - low)
    return Verdict(goal, each < 1024, f"{number(each / 1024)} KB")


def verdicts(made: Document) -> Iterator[Verdict]:
    """A verdict for each goal, in the order in which they were set."""
    main, hz = of_kind(made, "idle", 1000), made["settings"]["hz"]
    yield _floor("1,000 idle: at most 1.4 x the floor", main, 1.4)
    for name, least in (("top", 10), ("psutil", 50), ("glances", 50)):
        yield _judged(f"1,000 idle: {name} at least {least} x rh-pipe", figure(main, name, "times_rh_pipe"),
                      lambda v, least=least: v >= least, " x")  # type: ignore[misc]
    work = of_kind(made, "work")
    yield _judged("1,000 idle beside one that computes, captures on: top at least 10 x rh-pipe",
                  figure(work, "top", "times_rh_pipe"), lambda v: v >= 10, " x")
    began = main and main.get("first_cpu_s")
    yield Verdict("1,000 idle: at most 0.7 s of CPU in the first 25 s", began and began <= 0.7,
                  f"{number(began)} s" if began else "-")
    yield _floor("1,000, 5 % active: at most 2 x the floor", of_kind(made, "active", 1000), 2)
    yield _floor("100 processes of 50 threads: at most 1.5 x the floor", of_kind(made, "threads"), 1.5)
    yield _beat("10,000 idle: p99 of a tick under 100 ms", of_kind(made, "idle", 10_000), "took_ms_p99", 100)
    yield _beat("fork storm: no beat late by more than 50 ms", of_kind(made, "storm"), "late_ms_max", 50)
    yield _named(of_kind(made, "storm"))
    yield _judged("1,000, 2 % active: under 1 % of a core", figure(of_kind(made, "sparse", 1000), OURS,
                                                                   "cpu_ms_per_tick"),
                  lambda v: v < 1, " %", hz / 10)
    yield _judged("1,000 idle: memory under 35 MB", figure(main, OURS, "memory_bytes"), lambda v: v < 35, " MB", 1e-6)
    yield _growth(made, 1000, 5000)
    slope = made["slope"]
    yield Verdict("memory: under 0.1 MB for 100,000 ticks", slope and slope["mb_per_100k_ticks"] < 0.1,
                  f"{slope['mb_per_100k_ticks']:+.3f} MB" if slope else "-")
    for name, goal, limit in (("rh-report why", "rh-report why on a month: under 300 ms", 300),
                              ("rh-report of a busy day", "rh-report of a busy day: under 300 ms", 300),
                              ("rh-sample --help", "rh-sample --help: under 80 ms", 80)):
        found = made["start_up"].get(name)
        yield _judged(goal, Spread.from_document(found["wall_ms"]) if found else None,
                      lambda v, limit=limit: v < limit, " ms")  # type: ignore[misc]


def text(made: Document) -> str:
    """The verdicts as a table."""
    cells = [("goal", "verdict", "measured"), *((v.goal, v.word, v.told) for v in verdicts(made))]
    return "\n".join(table(cells)) + "\n"
