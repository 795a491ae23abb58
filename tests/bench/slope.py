"""Does rh-pipe's memory grow with time? Hours of ticks with the clock handed in, resident memory on the way.

    python -m tests.bench.slope [TICKS]

100,000 ticks are nine hours at 3 Hz. The machine is a small made-up one (tests/tools/soak.py) on which processes come,
go and burn a core now and then; everything else is rh-pipe's: stages, database, events, minutes. Prints one JSON object.

SQLite keeps the pages that it writes until they are 2 MB, which at 3 Hz takes three days, so before the ticks that are
measured come some at a slow beat (one in 20 s) that write as much.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.build import REPO

TICKS = 100_000
SLOWED, WARM = 60, 60_000
"""The warm-up: so many ticks of a beat so much slower, 14 days."""
EVERY = 1000
"""Ticks between two looks at the memory."""
PER = 100_000
"""The slope is given for this many ticks."""


@dataclass(frozen=True, slots=True)
class Slope:
    """`mb_per_100k_ticks` is the slope of the least-squares line through resident memory behind the warm-up;
    `cpu_us_per_tick` is that of a tick whose processes cost nothing to read."""

    ticks: int
    mb_per_100k_ticks: float
    first_mb: float
    last_mb: float
    cpu_us_per_tick: float


def fit(points: list[tuple[float, float]]) -> float:
    """The slope of the least-squares line through (x, y)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return (sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points))


def take(ticks: int) -> Slope:
    """Run so many ticks of the pipe in this process."""
    sys.path.insert(0, str(REPO / "tests"))
    from rogue_hunter.config.options import Config
    from rogue_hunter.daemon import pipe
    from rogue_hunter.daemon.services import Running, Services
    from rogue_hunter.stream.clock import NS, Clock, Rate
    from tests.tools.soak import FastHost, memory

    now, done = [10**12], [0]
    clock = Clock(lambda: now[0], lambda: 1_700_000_000.0 + now[0] / NS - 1000, lambda: now[0])
    points: list[tuple[float, float]] = []
    rates: list[Rate] = []
    used = [0.0]

    def start(running: Running) -> AbstractContextManager[Services]:
        rates.append(running.rate)
        rates[0].slowed = SLOWED
        return nullcontext(Services())

    def sleep(seconds: float) -> bool:
        now[0] += round(seconds * NS)
        done[0] += 1
        if done[0] == WARM:
            rates[0].slowed = 1
            used[0] = time.process_time()
        if done[0] % EVERY == 0 and done[0] >= WARM + ticks // 10:
            points.append((done[0] / PER, memory() / 1e6))
        return done[0] < WARM + ticks

    with tempfile.TemporaryDirectory(prefix="rh-slope-") as place:
        gc.freeze()          # what was imported is not looked through at each measurement
        pipe.run(Config(), FastHost(clock), Path(place) / "x.db", hz=3.0, sleep=sleep, clock=clock, start=start,
                 warn=lambda message: print(message, file=sys.stderr))
    return Slope(ticks, round(fit(points), 4), round(points[0][1], 3), round(points[-1][1], 3),
                 round((time.process_time() - used[0]) / ticks * 1e6, 1))


def measured(ticks: int, timeout_s: float) -> Slope | str:
    """The same in a process of its own; why not, when it failed or took too long."""
    command = [sys.executable, "-m", "tests.bench.slope", str(ticks)]
    try:
        done = subprocess.run(command, cwd=REPO, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=timeout_s)
        return Slope(**json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return f"not done within {timeout_s:.0f} s"
    except (ValueError, TypeError):
        return (done.stderr.strip().splitlines() or ["no word"])[-1]


def main() -> int:
    """Print the slope of so many ticks as JSON."""
    print(json.dumps(asdict(take(int(sys.argv[1]) if len(sys.argv) > 1 else TICKS))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
