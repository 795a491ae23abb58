"""The outcome of a run: one JSON document with every turn by itself, and the figures derived from it.

Everything that is shown (tables, verdicts, README, chart, comparison) is made from this document, so it can be made
again later, and a test can hold README to what the command would write.
"""

from __future__ import annotations

import math
import os
import platform
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.beats import Beats
from tests.bench.loads import KINDS, Load
from tests.bench.measure import Turn
from tests.bench.slope import Slope
from tests.bench.startup import StartUp
from tests.bench.syscalls import Syscalls

OURS, FLOOR, FLOOR_CLOCK = "rh-pipe", "floor", "floor-clock"
VERSION = 2
"""Of the JSON document."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of several values with the lowest and the highest; `count` of them."""

    median: float
    low: float
    high: float
    count: int = 1

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        known = [v for v in values if not math.isnan(v)]
        return cls(median(known), min(known), max(known), len(known)) if known else None

    @classmethod
    def from_document(cls, found: dict[str, Any] | None) -> Spread | None:
        return cls(**found) if found else None


@dataclass(slots=True)
class Result:
    """What was measured on one load. `processes` counts all that can be seen, those of the load among them."""

    load: Load
    processes: int
    turns: dict[str, list[Turn]] = field(default_factory=dict)
    syscalls: dict[str, Syscalls] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    beats: Beats | None = None
    first_cpu_s: float | None = None


def cost(turns: Sequence[Turn]) -> Spread | None:
    """CPU ms a tick over the rounds."""
    return Spread.of(turn.cpu_ms_per_tick for turn in turns)


def ratio(turns: Sequence[Turn], others: Sequence[Turn]) -> Spread | None:
    """How many times the CPU time a tick of `others` was that of `turns`, each round by itself."""
    base = {turn.round: turn.cpu_ms_per_tick for turn in others}
    return Spread.of(turn.cpu_ms_per_tick / base[turn.round] for turn in turns if base.get(turn.round))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def tick_times(turns: Sequence[Turn]) -> list[float]:
    """CPU ms of every single tick of those rounds whose ticks could be separated, if they are half of all at least."""
    known = [turn for turn in turns if turn.tick_cpu_ms]
    return [ms for turn in known for ms in turn.tick_cpu_ms] if 2 * len(known) >= len(turns) else []


def memory(turns: Sequence[Turn]) -> Spread | None:
    """Resident bytes at the end of the turns."""
    return Spread.of(float(turn.memory_bytes) for turn in turns)


def machine() -> dict[str, Any]:
    """What the numbers come from, without anything that names this very machine."""
    cpuinfo = _text("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    total = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo"), re.M)
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": int(total[1]) * 1024 if total else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def load_average() -> float:
    """Of the last minute: how many processes ran or wanted to, in the whole machine."""
    return os.getloadavg()[0]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


@dataclass(slots=True)
class Outcome:
    """All that a run found, before it is a document."""

    results: Sequence[Result]
    settings: dict[str, Any]
    missing: dict[str, str]
    left_out: Sequence[str] = ()
    start_up: Sequence[StartUp] = ()
    slope: Slope | None = None
    load_average: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0


def document(found: Outcome, day: str | None = None) -> Document:
    """Everything measured, every turn by itself, and the figures derived from it."""
    quiet = [turn.other_cores for result in found.results if result.load.kind == "idle"
             for turns in result.turns.values() for turn in turns]
    return {
        "version": VERSION,
        "day": day or time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "settings": found.settings,
        "took_s": round(found.took_s),
        "load_average": found.load_average,
        "other_cores": round(median(quiet), 3) if quiet else None,
        "missing": found.missing,
        "left_out": list(found.left_out),
        "loads": [_load_document(result) for result in
                  sorted(found.results, key=lambda one: (KINDS.index(one.load.kind), one.load.size))],
        "start_up": {one.name: {"wall_ms": _spread(Spread.of(one.wall_ms)), "cpu_ms": _spread(Spread.of(one.cpu_ms))}
                     for one in found.start_up},
        "slope": asdict(found.slope) if found.slope else None,
    }


def _load_document(result: Result) -> dict[str, Any]:
    subjects = {}
    for name, turns in result.turns.items():
        if not turns:
            continue
        times = tick_times(turns)
        calls = result.syscalls.get(name)
        subjects[name] = {
            "cpu_ms_per_tick": _spread(cost(turns)),
            "times_floor": _spread(ratio(turns, result.turns.get(FLOOR, []))),
            "times_floor_clock": _spread(ratio(turns, result.turns.get(FLOOR_CLOCK, []))),
            "times_rh_pipe": _spread(ratio(turns, result.turns.get(OURS, []))),
            "tick_cpu_ms_p50": percentile(times, 0.5),
            "tick_cpu_ms_p99": percentile(times, 0.99),
            "ticks": sum(turn.ticks for turn in turns),
            "memory_bytes": _spread(memory(turns)),
            "syscalls_per_tick": calls.per_tick if calls else None,
            "syscalls_top": dict(calls.top) if calls else None,
            "turns": [{key: value for key, value in asdict(turn).items() if key != "tick_cpu_ms"} for turn in turns],
        }
    return {"name": result.load.name, "kind": result.load.kind, "size": result.load.size,
            "processes": result.processes, "failed": result.failed, "subjects": subjects,
            "beats": _beats(result.beats), "first_cpu_s": result.first_cpu_s}


def _beats(found: Beats | None) -> dict[str, Any] | None:
    if found is None or not found.late_ms:
        return None
    leader, led = next(iter(found.leaders.most_common(1)), (None, 0))
    return {
        "ticks": len(found.late_ms),
        **{f"late_ms_{name}": round(percentile(found.late_ms, share) or 0.0, 3) for name, share in SHARES},
        **{f"took_ms_{name}": round(percentile(found.took_ms, share) or 0.0, 3) for name, share in SHARES},
        "leader": leader, "leader_ticks": led, "reported": found.reported,
    }


SHARES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def _spread(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {key: value if isinstance(value, int) else round(value, 6) for key, value in asdict(spread).items()}


def of_kind(made: Document, kind: str, size: int | None = None) -> dict[str, Any] | None:
    """The load of that kind (and size) in a document; None when it was not measured."""
    return next((load for load in made["loads"] if load["kind"] == kind and size in (None, load["size"])), None)


def figure(load: dict[str, Any] | None, subject: str, name: str) -> Spread | None:
    """A figure of a subject on a load; None when there is none."""
    found = load and load["subjects"].get(subject, {}).get(name)
    return Spread.from_document(found) if found else None
