"""What rh-pipe costs from its start on: the first seconds, in which it describes every process of the machine.

    python -m tests.bench.first [PROCESSES] [RUNS] [COMMAND ...]     1,000 processes, three runs; COMMAND instead of rh-pipe

With default settings, and of the whole tree of processes: interpreter, helper processes of captures, what has ended.
Run it alone in a pid namespace, as `python -m tests.bench` does, for exact numbers:
`unshare --fork --pid --mount-proc --kill-child .venv-test/bin/python -m tests.bench.first`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.build import build
from tests.bench.loads import Load, running
from tests.bench.measure import tree_cpu_ns, tree_memory_bytes
from tests.bench.subjects import SUBJECTS, Context, added, prepare, started

SECONDS = 25.0
PROCESSES, RUNS = 1000, 3


def first_cpu_s(context: Context, name: str = "rh-pipe", seconds: float = SECONDS) -> tuple[float, int]:
    """CPU seconds of all processes of the subject in the first `seconds` after its start, and the memory that they hold
    then. Raises SubjectError."""
    subject = SUBJECTS[name] if name in SUBJECTS else added(name)
    with started(subject, context) as run:
        time.sleep(seconds)
        run.check()
        return tree_cpu_ns(run.pid) / 1e9, tree_memory_bytes(run.pid)


def main(argv: Sequence[str]) -> None:
    """Print each run."""
    processes, runs = (int(argv[i]) if len(argv) > i else usual for i, usual in ((1, PROCESSES), (2, RUNS)))
    names = [f"other={each}" for each in argv[3:]] or ["rh-pipe"]
    with tempfile.TemporaryDirectory(prefix="rh-first-") as place:
        context = Context(build(Path(place)), Path(place), 3.0)
        prepare(SUBJECTS["rh-pipe"])
        with running(context.tools.load, Load(f"{processes:,} idle", "idle", idle=processes)):
            for name in names:
                found = [first_cpu_s(context, name) for _ in range(runs)]
                times = " ".join(f"{cpu:.2f}" for cpu, _ in found)
                print(f"{name}: {processes:,} idle, first {SECONDS:g} s: {times} s of CPU, median "
                      f"{median(cpu for cpu, _ in found):.2f}; {median(held for _, held in found) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv)
