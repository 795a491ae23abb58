"""What was short in a minute, and how much: pure functions of a minute's row and of what is usual.

Points from 0 to 100 rank one shortage against another. They follow the part of the time in which somebody waited: that
is what a person notices. All tasks waiting for storage or memory weighs more than some task waiting for a CPU, because
it stops everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.report.sentences import measure, number, percent
from rogue_hunter.text.format import duration, size

Numbers = Mapping[str, float]

NOTICED = 20.0
"""Points from which something is called a cause: some task waited for a CPU in a fifth of the time."""

IO_WEIGHT, MEMORY_WEIGHT, STEAL_WEIGHT = 3.0, 4.0, 2.0
"""What a percent of the time counts in which all tasks waited for storage, for memory (each wait of which ends in
storage), or in which the hypervisor ran others, against one in which some task waited for a CPU."""

BUSY_FROM = 0.7
"""Part of the CPUs in use from which they count as short where the kernel does not say who waited."""
SCARCE_BELOW = 0.15
"""Part of memory available below which it counts as short where the kernel does not say who waited."""
FAST_DISK = 300e6
"""Traffic (bytes/s) that counts in full where the kernel does not say who waited; less, if it is usual."""
UNUSUAL = 5.0
"""How many times the usual is unusual."""
MANY_BEGUN = 5.0
"""Processes begun a second from which that is told, if it is unusual."""
SLEPT_S, LATE_S = 5.0, 0.5
"""Sleep that is surely noticed, and a late beat that nothing else tells of."""

COLUMNS = ("seconds", "cpus", "cpu_busy_cores", "cpu_steal_cores", "unattributed_cpu_cores", "memory_total_bytes",
           "memory_available_bytes", "pressure_cpu_some_ms_per_s", "pressure_memory_full_ms_per_s",
           "pressure_io_full_ms_per_s", "disk_bytes", "started", "self_cpu_percent")
"""Columns of machine_minutes of which the usual is wanted."""


WORST = ("cpu_busy_cores", "pressure_cpu_some_ms_per_s", "pressure_memory_full_ms_per_s",
         "pressure_io_full_ms_per_s", "disk_bytes", "cpu_steal_cores", "asleep_s", "late_s", "self_cpu_percent")
"""Columns of which more is worse."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One resource in one minute: its points and the numbers behind them.

    The words for people are made when they are asked for: of a month of minutes, few are told.
    """

    cause: str
    points: float
    say: Callable[[], str]
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What was seen, with its numbers and the usual ones."""
        return self.say()


def usual(minutes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each column over these minutes; disk and started as rates a second. Empty below ten minutes."""
    if len(minutes) < 10:
        return {}
    found: dict[str, float] = {}
    for name in COLUMNS:
        values = [rate(m, name) if name in ("disk_bytes", "started") else m[name] for m in minutes if name in m]
        if values:
            found[name] = median(values)
    return found


def median(values: Sequence[float]) -> float:
    """The middle one; of an even number, the lower of the two in the middle, which is a value that was measured."""
    return sorted(values)[(len(values) - 1) // 2]


def rate(minute: Mapping[str, Any], name: str) -> float:
    """A sum of a minute, per second."""
    return float(minute.get(name, 0)) / max(float(minute.get("seconds") or 60.0), 0.001)


def may_be_short(m: Mapping[str, Any]) -> bool:
    """False for a minute of which `judge` would notice nothing: a quick look, for there are 44,640 in a month."""
    cpus = m.get("cpus") or 1
    total = m.get("memory_total_bytes") or 0
    return (m.get("pressure_cpu_some_ms_per_s", 0.0) >= 10 * NOTICED
            or m.get("cpu_busy_cores", 0.0) >= BUSY_FROM * cpus
            or m.get("pressure_memory_full_ms_per_s", 0.0) >= 10 * NOTICED / MEMORY_WEIGHT
            or m.get("memory_available_bytes", total) <= SCARCE_BELOW * total
            or m.get("pressure_io_full_ms_per_s", 0.0) >= 10 * NOTICED / IO_WEIGHT
            or rate(m, "disk_bytes") >= NOTICED / 100 * FAST_DISK
            or m.get("cpu_steal_cores", 0.0) >= NOTICED / 100 / STEAL_WEIGHT * cpus
            or m.get("asleep_s", 0.0) >= 1 or m.get("late_s", 0.0) >= LATE_S
            or m.get("self_cpu_percent", 0.0) >= NOTICED)


def extremes(minutes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The minutes that are worst in something; each once."""
    if not minutes:
        return []
    worst = {id(m): m for name in WORST for m in [max(minutes, key=lambda m: float(m.get(name, -1.0)))]}
    scarcest = min(minutes, key=lambda m: float(m.get("memory_available_bytes", math.inf)))
    return [*{**worst, id(scarcest): scarcest}.values()]


def judge(minute: Mapping[str, Any], normal: Numbers) -> dict[str, Judged]:
    """Every resource of which the minute says something, by cause."""
    made = (_cpu(minute, normal), _memory(minute, normal), _io(minute, normal), _steal(minute, normal),
            _asleep(minute), _late(minute), _own(minute))
    return {one.cause: one for one in made if one is not None}


def _cpu(m: Mapping[str, Any], normal: Numbers) -> Judged | None:
    busy, cpus, waited = m.get("cpu_busy_cores"), m.get("cpus"), m.get("pressure_cpu_some_ms_per_s")
    if busy is None or not cpus:
        return None
    load = 100 * max(0.0, busy / cpus - BUSY_FROM) / (1 - BUSY_FROM)
    # All CPUs in use, and nobody waits: that is how they should be used.
    points = load if waited is None else max(waited / 10, 0.6 * load)
    numbers = {"cpu_busy_cores": busy, "cpus": cpus}
    begun = rate(m, "started")
    if begun >= MANY_BEGUN and begun >= UNUSUAL * normal.get("started", 0.0):
        numbers["started"] = m["started"]
    alone = m.get("unattributed_cpu_cores", 0.0)
    if alone >= 0.3 * busy and alone >= 0.25:
        numbers["unattributed_cpu_cores"] = alone

    def say() -> str:
        words = f"{number(round(busy, 2))} of {cpus} cores busy{_usually(normal, 'cpu_busy_cores', number)}"
        if waited is not None:
            words += (f", some task waited for a CPU {part(waited)} of the time"
                      f"{_usually(normal, 'pressure_cpu_some_ms_per_s', part)}")
        if "started" in numbers:
            words += f"; {m['started']} processes were begun"
            words += f" (usually {round(60 * normal.get('started', 0.0))} a minute)" if normal else ""
        if "unattributed_cpu_cores" in numbers:
            words += f"; {number(round(alone, 2))} cores are of nobody seen: the kernel, or processes gone at once"
        return words

    return Judged("cpu", _bound(points), say, _with(numbers, m, "pressure_cpu_some_ms_per_s"))


def _memory(m: Mapping[str, Any], normal: Numbers) -> Judged | None:
    available, total = m.get("memory_available_bytes"), m.get("memory_total_bytes")
    waited = m.get("pressure_memory_full_ms_per_s")
    if available is None or not total:
        return None
    free = available / total
    scarce = 100 * max(0.0, SCARCE_BELOW - free) / SCARCE_BELOW
    points = scarce if waited is None else max(MEMORY_WEIGHT * waited / 10, 0.5 * scarce)

    def say() -> str:
        words = f"{percent(free)} available, {size(available)} of {size(total)}"
        if "memory_available_bytes" in normal:
            words += f" (usually {percent(normal['memory_available_bytes'] / total)})"
        if waited is not None:
            words += f", pressure {part(waited)}{_usually(normal, 'pressure_memory_full_ms_per_s', part)}"
        return words

    return Judged("memory", _bound(points), say,
                  _with({"memory_available_bytes": available, "memory_total_bytes": total}, m,
                        "pressure_memory_full_ms_per_s"))


def _io(m: Mapping[str, Any], normal: Numbers) -> Judged | None:
    waited = m.get("pressure_io_full_ms_per_s")
    if waited is None and "disk_bytes" not in m:
        return None
    moved = rate(m, "disk_bytes")
    fast = 100 * moved / FAST_DISK if moved >= UNUSUAL * normal.get("disk_bytes", 0.0) else 0.0
    points = fast if waited is None else max(IO_WEIGHT * waited / 10, 0.5 * fast)
    numbers = {"disk_bytes_per_s": float(round(moved))} if "disk_bytes" in m else {}

    def say() -> str:
        words = []
        if numbers:
            words.append(f"traffic {size(moved)}/s{_usually(normal, 'disk_bytes', lambda v: f'{size(v)}/s')}")
        if waited is not None:
            words.append(f"all tasks waited for storage {part(waited)} of the time"
                         f"{_usually(normal, 'pressure_io_full_ms_per_s', part)}")
        return ", ".join(words)

    return Judged("io", _bound(points), say, _with(numbers, m, "pressure_io_full_ms_per_s"))


def _steal(m: Mapping[str, Any], normal: Numbers) -> Judged | None:
    stolen, cpus = m.get("cpu_steal_cores"), m.get("cpus")
    if stolen is None or not cpus:
        return None
    return Judged("steal", _bound(STEAL_WEIGHT * 100 * stolen / cpus),
                  lambda: f"the hypervisor took {number(round(stolen, 2))} of {cpus} CPUs for others"
                          f"{_usually(normal, 'cpu_steal_cores', number)}",
                  {"cpu_steal_cores": stolen, "cpus": cpus})


def _asleep(m: Mapping[str, Any]) -> Judged | None:
    asleep = m.get("asleep_s")
    if asleep is None:
        return None
    points = 95.0 if asleep >= SLEPT_S else 50.0 if asleep >= 1 else 0.0
    return Judged("asleep", points,
                  lambda: f"the machine was asleep for {duration(asleep)}" if asleep else "the machine did not sleep",
                  {"asleep_s": asleep})


def _late(m: Mapping[str, Any]) -> Judged | None:
    """A late beat that is no pause in the list: it says that something was wrong, not what."""
    late = m.get("late_s")
    if late is None:
        return None
    points = 40 * late if late >= LATE_S and not m.get("pauses") else 0.0
    return Judged("unknown", _bound(points), lambda: f"a beat came {duration(late)} late, and nothing tells why",
                  {"late_s": late})


def _own(m: Mapping[str, Any]) -> Judged | None:
    own = m.get("self_cpu_percent")
    if own is None:
        return None
    return Judged("rogue-hunter", _bound(own), lambda: f"rogue-hunter itself used {measure(own, '%')} of a core",
                  {"self_cpu_percent": own})


# -- inside ------------------------------------------------------------------------------------------------------------

def part(ms_per_s: float) -> str:
    """A rate of waiting as a part of the time."""
    return percent(ms_per_s / 1000)


def _bound(points: float) -> float:
    return round(min(100.0, max(0.0, points)), 1)


def _usually(normal: Numbers, name: str, words: Any) -> str:
    return f" (usually {words(round(normal[name], 3))})" if name in normal else ""


def _with(numbers: dict[str, float], m: Mapping[str, Any], *names: str) -> dict[str, float]:
    return {**numbers, **{name: m[name] for name in names if name in m}}
