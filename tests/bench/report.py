"""The outcome of a run: medians, ratios within a round, a Markdown table for people, JSON for comparison."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.loads import Load
from tests.bench.measure import Syscalls, Turn

OURS, FLOOR = "rh-pipe", "floor"
VERSION = 1
"""Of the JSON document."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of several values with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        known = [v for v in values if not math.isnan(v)]
        return cls(median(known), min(known), max(known)) if known else None


@dataclass(slots=True)
class Result:
    """What was measured on one load. `processes` counts all that can be seen, those of the load among them."""

    load: Load
    processes: int
    turns: dict[str, list[Turn]] = field(default_factory=dict)
    syscalls: dict[str, Syscalls] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


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
    """CPU ms of every single tick of all rounds; empty unless every round's ticks could be told apart."""
    return [ms for turn in turns for ms in turn.tick_cpu_ms] if all(turn.tick_cpu_ms for turn in turns) else []


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


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def document(results: Sequence[Result], settings: dict[str, Any], missing: dict[str, str]) -> dict[str, Any]:
    """Everything measured, every turn by itself, and the figures derived from it."""
    return {
        "version": VERSION,
        "machine": machine(),
        "settings": settings,
        "missing": missing,
        "loads": [_load_document(result) for result in results],
    }


def _load_document(result: Result) -> dict[str, Any]:
    subjects = {}
    for name, turns in result.turns.items():
        times = tick_times(turns)
        calls = result.syscalls.get(name)
        subjects[name] = {
            "cpu_ms_per_tick": _spread(cost(turns)),
            "times_floor": _spread(ratio(turns, result.turns.get(FLOOR, []))),
            "times_rh_pipe": _spread(ratio(turns, result.turns.get(OURS, []))),
            "tick_cpu_ms_p50": percentile(times, 0.5),
            "tick_cpu_ms_p99": percentile(times, 0.99),
            "memory_bytes": _spread(memory(turns)),
            "syscalls_per_tick": calls.per_tick if calls else None,
            "syscalls_top": dict(calls.top) if calls else None,
            "turns": [{key: value for key, value in asdict(turn).items() if key != "tick_cpu_ms"} for turn in turns],
        }
    return {"name": result.load.name, "kind": result.load.kind, "size": result.load.size,
            "processes": result.processes, "failed": result.failed, "subjects": subjects}


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return asdict(spread) if spread else None


def number(value: float | None) -> str:
    """Three significant digits, never an exponent; a dash for what is not known."""
    if value is None or math.isnan(value):
        return "-"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def span(spread: Spread | None, unit: str = "") -> str:
    """`median (low to high)`."""
    if spread is None:
        return "-"
    return f"{number(spread.median)}{unit} ({number(spread.low)} to {number(spread.high)})"


HEAD = ("", "CPU ms a tick", "p99", "% of a core", "x floor", "x rh-pipe", "RSS MB", "syscalls a tick")


def rows(result: Result, hz: float) -> list[tuple[str, ...]]:
    """One row of the table for each subject, in the order in which they were asked for."""
    out: list[tuple[str, ...]] = []
    for name, turns in result.turns.items():
        if not turns:
            continue
        ms, calls, held = cost(turns), result.syscalls.get(name), memory(turns)
        out.append((
            name, span(ms), number(percentile(tick_times(turns), 0.99)), number(ms.median * hz / 10 if ms else None),
            "1" if name == FLOOR else span(ratio(turns, result.turns.get(FLOOR, []))),
            "1" if name == OURS else span(ratio(turns, result.turns.get(OURS, []))),
            number(held.median / 1e6 if held else None), number(calls.per_tick if calls else None),
        ))
    return out


def markdown(results: Sequence[Result], settings: dict[str, Any], missing: dict[str, str]) -> str:
    """The tables, one for each load, with the machine they come from and what could not be measured."""
    where, hz = machine(), float(settings["hz"])
    held = f", {where['memory_bytes'] / 2**30:.0f} GiB" if where["memory_bytes"] else ""
    lines = [
        f"{where['cpu']}, {where['cpus']} cpus{held}, Linux {where['kernel']}, Python {where['python']}; {hz:g} Hz, "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s each in turns. Median (lowest to highest round); "
        "ratios are taken within a round. % of a core: at the beat's rate, also for those that cannot run at it. "
        + ("Seen: the load, the subject and the benchmark." if settings["alone"] else "Seen: the whole machine."),
    ]
    for result in results:
        lines += ["", f"**{result.load.name}** ({result.processes:,} processes seen)", ""]
        lines += table([HEAD, *rows(result, hz)])
        lines += [f"\n{name}: failed: {reason}" for name, reason in result.failed.items()]
    if missing:
        lines += ["", "Missing: " + "; ".join(f"{name} ({reason})" for name, reason in missing.items()) + "."]
    return "\n".join(lines) + "\n"


def table(cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose source lines up, too; the first row is its head, the first column its labels."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in cells]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]
