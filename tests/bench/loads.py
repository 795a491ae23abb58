"""What is watched: processes of load.c in the numbers and kinds that a question needs."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KINDS = ("idle", "active", "sparse", "work", "threads", "storm")
"""What `--loads` takes. sparse: a machine at rest, 2 % of its processes active. work: one process computes beside 1,000
idle ones, so that there are events and captures."""

SPARSE = 0.02

THREADED_PROCESSES, THREADS_EACH = 100, 50
STORM_PER_S = 200
WAKE_HZ, SPIN_US = 10, 50
"""An active process wakes ten times a second, so that it runs in every tick, and costs 0.05 % of a core."""
WORK_US = 90_000
"""What the one of the load work computes each time it wakes: 90 % of a core."""

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


class LoadError(Exception):
    """The machine refused so many processes or threads, or they did not come up in time."""


@dataclass(frozen=True, slots=True)
class Load:
    """A set of processes. `size` is the number of processes that stand while it runs (the x of the chart)."""

    name: str
    kind: str
    idle: int = 0
    active: int = 0
    threaded: int = 0
    storm_per_s: int = 0

    @property
    def size(self) -> int:
        return self.idle + self.active + self.threaded

    def arguments(self) -> list[str]:
        """The options of load.c."""
        numbers = {
            "--idle": self.idle, "--active": self.active, "--wake-hz": WAKE_HZ,
            "--spin-us": WORK_US if self.kind == "work" else SPIN_US,
            "--threaded": self.threaded, "--threads": THREADS_EACH, "--storm": self.storm_per_s,
        }
        return [word for name, number in numbers.items() for word in (name, str(number))]


def _active(size: int, share: float, kind: str) -> Load:
    active = max(1, round(size * share))
    return Load(f"{size:,}, {active:,} of them active", kind, idle=size - active, active=active)


def plan(kinds: Sequence[str], sizes: Sequence[int], active_sizes: Sequence[int], share: float) -> list[Load]:
    """The loads of a run: idle ones of all sizes, some with a share of active ones, then those of one size only."""
    loads = []
    if "idle" in kinds:
        loads += [Load(f"{size:,} idle", "idle", idle=size) for size in sizes]
    if "active" in kinds:
        loads += [_active(size, share, "active") for size in active_sizes]
    if "sparse" in kinds:
        loads += [_active(size, SPARSE, "sparse") for size in active_sizes]
    if "work" in kinds:
        loads.append(Load("1,000 idle beside one that computes", "work", idle=1000, active=1))
    if "threads" in kinds:
        name = f"{THREADED_PROCESSES} processes of {THREADS_EACH} threads"
        loads.append(Load(name, "threads", threaded=THREADED_PROCESSES))
    if "storm" in kinds:
        loads.append(Load(f"100 idle and {STORM_PER_S} short processes a second", "storm", idle=100,
                          storm_per_s=STORM_PER_S))
    return loads


@contextmanager
def running(tool: Path, load: Load) -> Iterator[int]:
    """The load stands inside of the block and is gone behind it; yields the number of its processes.

    Raises LoadError when it cannot be set up. Every process of it ends even if this one is killed: see load.c.
    """
    process = subprocess.Popen([str(tool), *load.arguments()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdin and process.stdout and process.stderr
    try:
        readable, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT_S)
        words = process.stdout.readline().split() if readable else []
        if not words or words[0] != b"ready":
            if not readable:
                process.terminate()
            said = process.stderr.read().decode(errors="backslashreplace").strip()
            raise LoadError(f"{load.name}: {said or 'not ready in time'}")
        yield int(words[1])
    finally:
        process.stdin.close()          # it ends its children, collects them, and ends itself
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()             # and the kernel ends its children
            process.wait()
        process.stdout.close()
        process.stderr.close()


def count_processes() -> int:
    """Processes that can be seen from here."""
    return sum(name.isdigit() for name in os.listdir("/proc"))
