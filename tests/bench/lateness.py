"""How late rh-pipe's beat comes while it takes captures, beside without them, under the same load and in turns.

    python -m tests.bench.lateness [ROUNDS] [SECONDS] [HZ]        3 rounds of 30 s each way at 10 Hz: three minutes

The load is a loop that takes a core, a new one every few seconds, so that each is a new event and asks for a capture.
Prints the ticks, the captures that were made, and percentiles of `late_s`. The machine should be quiet otherwise: this
measures wall time. A turn's first two seconds do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.build import REPO
from tests.bench.report import percentile

EACH_S = 3.0
"""How long one loop lives: the captures' debounce is shorter."""

WARM_S = 2.0

CONFIG = """[bands]
forensics = "medium"
[forensics]
enabled = {enabled}
debounce_s = 2.0
per_hour = 10000
per_identity_per_hour = 10000
"""
"""medium: a loop on a machine where others run, too, does not always reach more."""


@dataclass(slots=True)
class Late:
    """Lateness of the beats of several turns, ms, and the captures made during them."""

    late_ms: list[float] = field(default_factory=list)
    captures: int = 0

    def line(self, name: str) -> str:
        """What is printed; a dash where there was no tick."""
        told = "  ".join(f"{word} {value:.3f}" if (value := percentile(self.late_ms, share)) is not None else f"{word} -"
                         for word, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)))
        return f"{name:<13}  ticks {len(self.late_ms):>5}  captures {self.captures:>3}  late in ms: {told}"


@contextmanager
def loops(each_s: float = EACH_S) -> Iterator[None]:
    """One loop at a time that takes a core, for so long each; gone behind the block."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            with subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) as loop:
                done.wait(each_s)
                loop.kill()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def take_turn(found: Late, captures: bool, seconds: float, hz: float, repo: Path = REPO) -> None:
    """Run the rh-pipe of the checkout `repo` for so long under the load, and add what it says to `found`."""
    with tempfile.TemporaryDirectory(prefix="rh-late-") as directory, loops():
        place = Path(directory)
        (place / "c.toml").write_text(CONFIG.format(enabled=str(captures).lower()))
        command = [sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--no-socket", "--tee", "--hz", str(hz),
                   "--db", str(place / "x.db"), "-c", str(place / "c.toml"), "--for", f"{seconds:g}s"]
        environment = {**os.environ, "PYTHONPATH": str(repo), "HOME": directory, "XDG_STATE_HOME": directory}
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as pipe:
            try:
                assert pipe.stdout is not None
                ticks = (line for line in pipe.stdout if line.startswith(b'{"type":"tick"'))
                found.late_ms += [1000 * json.loads(line)["late_s"] for n, line in enumerate(ticks) if n >= WARM_S * hz]
            finally:
                pipe.terminate()
        with closing(sqlite3.connect(place / "x.db")) as connection:
            (made,) = connection.execute(
                "SELECT count(*) FROM forensic_captures WHERE status IN ('ok', 'partial')").fetchone()
        found.captures += made


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for captures off and one for captures on."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lateness", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("seconds", type=float, nargs="?", default=30.0)
    parser.add_argument("hz", type=float, nargs="?", default=10.0)
    parser.add_argument("--repo", type=Path, default=REPO, help="measure another checkout's rh-pipe")
    options = parser.parse_args(argv)
    found = {False: Late(), True: Late()}
    for number in range(options.rounds):
        for captures in (False, True) if number % 2 == 0 else (True, False):
            take_turn(found[captures], captures, options.seconds, options.hz, options.repo)
    for captures, late in found.items():
        print(late.line(f"captures {'on' if captures else 'off'}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
