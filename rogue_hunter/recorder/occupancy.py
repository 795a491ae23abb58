"""Who had each CPU in a stretch of time, from context switches and samples. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

IDLE = 0
"""The pid of a CPU's idle task."""


@dataclass(slots=True)
class Occupancy:
    """One CPU in a stretch of `seconds`: CPU seconds by pid (IDLE included), and how many seconds of it context
    switches covered; the rest was estimated from samples."""

    cpu: int
    seconds: float
    by_pid: dict[int, float] = field(default_factory=dict)
    switched_s: float = 0.0

    @property
    def source(self) -> str:
        """What most of it was measured by."""
        return "switches" if self.switched_s >= self.seconds / 2 else "samples"


def occupancy(cpu: int, begin_ns: int, end_ns: int, switches: Sequence[tuple[int, int]],
              samples: Iterable[tuple[int, int]], period_s: float) -> Occupancy:
    """Occupancy between two times of CLOCK_MONOTONIC, ns.

    `switches` are (time, pid that left the CPU), oldest first: that task had the CPU since the switch before. `samples`
    are (time, pid), one each `period_s` seconds in which the CPU was not idle; they fill what switches do not cover:
    the time before the first switch that is left, and since the last one.
    """
    found = Occupancy(cpu, max(0.0, (end_ns - begin_ns) / 1e9))
    covered_from = covered_to = end_ns
    used: Counter[int] = Counter()
    if len(switches) > 1:
        covered_from, covered_to = max(begin_ns, switches[0][0]), min(end_ns, switches[-1][0])
        for (start, _), (end, pid) in pairwise(switches):
            start, end = max(start, begin_ns), min(end, end_ns)
            if end > start:
                used[pid] += end - start
    covered_ns = max(0, covered_to - covered_from)
    found.switched_s = covered_ns / 1e9
    by_pid: dict[int, float] = {pid: ns / 1e9 for pid, ns in used.items()}
    left = found.seconds - found.switched_s
    rest: Counter[int] = Counter()
    for at, pid in samples:
        if begin_ns <= at <= end_ns and not (covered_ns and covered_from <= at <= covered_to):
            rest[pid] += 1
    scale = period_s * min(1.0, left / (rest.total() * period_s)) if rest else 0.0
    for pid, count in rest.items():
        by_pid[pid] = by_pid.get(pid, 0.0) + count * scale
    idle = left - rest.total() * scale
    if idle > 0:
        by_pid[IDLE] = by_pid.get(IDLE, 0.0) + idle
    found.by_pid = by_pid
    return found
