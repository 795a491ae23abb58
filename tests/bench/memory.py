"""Where the memory of an idle process goes: bytes for each, by the lines of the package that asked for them.

    python -m tests.bench.memory [PROCESSES] [LINES]            2,000 processes, the 25 largest lines: half a minute

The processes of load.c are watched through every stage of rh-pipe that keeps something of them, in this process, and
what is held at the end is divided by their number (tracemalloc: Python's own objects, without what the allocator rounds
up). What was held before the first tick does not count. Run it alone in a pid namespace for exact numbers:
`unshare --fork --pid --mount-proc --kill-child .venv-test/bin/python -m tests.bench.memory`.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

from rogue_hunter.config.options import Config
from rogue_hunter.host.platform import here
from rogue_hunter.rules.load import user_rules
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.sample import sample
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream.clock import Beat
from rogue_hunter.stream.pipeline import Stage, chain
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.pauses import Pauses
from tests.bench.build import build
from tests.bench.loads import Load, running
from tests.bench.words import table

PROCESSES, LINES = 2000, 25
TICKS, INTERVAL_S = 40, 0.25
"""Until names, command lines and averages have come to rest: ten seconds."""


def beats() -> Iterator[Beat]:
    """So many, at once behind each other but for the time that the descriptions need."""
    before = time.monotonic_ns()
    for seq in range(TICKS):
        now = time.monotonic_ns()
        yield Beat(seq, now, time.time(), (now - before) / 1e9, 0.0, 0.0)
        before = now
        time.sleep(INTERVAL_S)


def profile(lines: int) -> tuple[int, list[tuple[str, int, float]]]:
    """The processes of the last tick; lines as (place, bytes, objects), both for each process, the largest first."""
    config, rules = Config(), user_rules(None)
    host = here()
    stages: list[Stage] = [Lineage(), Score(config), Track(config), Pauses(config.pause), History(config),
                           Matcher(rules, lifetime=False)]
    found: list[tuple[str, int, float]] = []
    count = 0
    gc.collect()
    tracemalloc.start()
    try:
        for number, tick in enumerate(chain(sample(host, beats()), *stages), 1):
            if number == TICKS:
                gc.collect()
                count = len(tick.processes)
                taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
                found = [(f"{Path(each.traceback[0].filename).name}:{each.traceback[0].lineno}", each.size // count,
                          each.count / count) for each in taken.statistics("lineno")]
    finally:
        tracemalloc.stop()
        host.close()
    shown = found[:lines]
    rest = sum(size for _, size, _ in found[lines:]), sum(objects for _, _, objects in found[lines:])
    return count, [*shown, ("all others", *rest), ("together", sum(f[1] for f in found), sum(f[2] for f in found))]


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    processes, lines = (int(argv[i]) if len(argv) > i else usual for i, usual in enumerate((PROCESSES, LINES)))
    with tempfile.TemporaryDirectory(prefix="rh-memory-") as place:
        tools = build(Path(place))
        with running(tools.load, Load(f"{processes:,} idle", "idle", idle=processes)):
            count, found = profile(lines)
    print(f"{count:,} processes")
    cells = [("line", "bytes each", "objects each"), *((name, f"{size:,}", f"{objects:.2f}") for name, size, objects in found)]
    print("\n".join(table(cells)))


if __name__ == "__main__":
    main(sys.argv[1:])
