"""What is known about a process just before it is signalled, and what its end gave back."""

from __future__ import annotations

from rogue_hunter.reaper.process import Live, Machine
from rogue_hunter.stream.tick import Record, Row

FRESH_S = 1.0
"""CPU time is counted in ticks of 10 ms: below a second a rate made of it says little (1 % at one second)."""

SAMPLES = 20
"""Readings before the match that a bundle carries, if somebody kept any."""


def cpu_percent(match: Record, live: Live, now: float) -> float | None:
    """CPU use since the match, where that is long enough ago to say; else what the match said. None if unknown."""
    before, after, elapsed = match.get("cpu_seconds_total"), live.row.get("cpu_seconds_total"), now - match["ts"]
    if before is not None and after is not None and elapsed >= FRESH_S and after >= before:
        return float(round(100 * (after - before) / elapsed, 2))
    said = match.get("cpu_percent")
    return None if said is None else float(said)


def bundle(machine: Machine, live: Live, match: Record, samples: list[Row] | None = None) -> Row:
    """What the process does at this moment, with its control group, the conditions it met and the last readings."""
    found = machine.bundle(live.pid)
    for name in ("cgroup", "exe", "memory_bytes", "threads", "state"):
        if name in live.row:
            found.setdefault(name, live.row[name])
    if match.get("evidence_terms"):
        found["evidence_terms"] = match["evidence_terms"]
    if samples:
        found["samples"] = samples[-SAMPLES:]
    return found
