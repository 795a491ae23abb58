"""How long the commands take from their start to their end: the median of several runs, in turns.

Wall time is what a user waits, so the goals use it; a machine that does other things makes it longer, which the
CPU time beside it shows. `rh-report why` is asked about a trouble in a month's database (tests/tools/history.py), and
the summary about a busy day (tests/tools/slices.py).
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.build import REPO
from tests.tools.slices import DAY, FIRST

BIN = REPO / "bin"
RUN_TIMEOUT_S = 30.0
MONTH_TIMEOUT_S = 120.0

_MONTH = """
import os, sys
os.environ["RH_LONG"] = "1"     # the whole month
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.tools.history import CASES, build_month, planted
from tests.tools.slices import build_busy_day
build_month(Path(sys.argv[2]))
build_busy_day(Path(sys.argv[2]).with_name("day.db"))
print(round(planted(0) + CASES[0].at))
"""


@dataclass(frozen=True, slots=True)
class StartUp:
    """One command: `wall_ms` and `cpu_ms`, its own and its children's, of each run."""

    name: str
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]


def commands(month: Path | None, at: str) -> dict[str, list[str]]:
    """Name -> argv. The bare interpreter is included: no command can be quicker."""
    made = {
        "python -c pass": [sys.executable, "-I", "-c", "pass"],
        "rh-sample --help": [str(BIN / "rh-sample"), "--help"],
        "rh-score --help": [str(BIN / "rh-score"), "--help"],
        "rh-sample -n 1": [str(BIN / "rh-sample"), "-n", "1"],
    }
    if month is not None:
        made["rh-report"] = [str(BIN / "rh-report"), "--since", f"@{int(at) - 86_400}", "--until", f"@{at}", "--db",
                             str(month)]
        made["rh-report of a busy day"] = [str(BIN / "rh-report"), "--since", f"@{FIRST:.0f}", "--until",
                                           f"@{FIRST + 5 * DAY:.0f}", "--db", str(month.with_name("day.db"))]
        made["rh-report why"] = [str(BIN / "rh-report"), "why", "--at", f"@{at}", "--db", str(month)]
    return made


def build_month(place: Path) -> tuple[Path | None, str]:
    """A month's database in `place` and a moment of trouble in it (epoch seconds); None when it cannot be made."""
    path = place / "month.db"
    try:
        done = subprocess.run([sys.executable, "-c", _MONTH, str(REPO / "tests"), str(path)], cwd=REPO, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=MONTH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, ""
    return (path, done.stdout.strip()) if done.returncode == 0 else (None, "")


def timed(argv: Sequence[str], environment: dict[str, str]) -> tuple[float, float] | None:
    """Wall and CPU ms of one run; None when it failed or did not end in time."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=environment)
    handle = os.pidfd_open(process.pid)
    try:
        if not select.select([handle], [], [], RUN_TIMEOUT_S)[0]:
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        os.close(handle)
    wall = time.perf_counter() - began
    return (1000 * wall, 1000 * (usage.ru_utime + usage.ru_stime)) if process.returncode == 0 else None


def measured(place: Path, runs: int, until: float = float("inf")) -> list[StartUp]:
    """Every command so many times, or until the time is up (monotonic clock); one that fails is left out."""
    month, at = build_month(place)
    environment = {**os.environ, "LC_ALL": "C.UTF-8",
                   **dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"), str(place))}
    argvs = commands(month, at)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in argvs}
    for number in range(runs + 1):
        for name, argv in argvs.items():
            if time.monotonic() > until:
                break
            once = timed(argv, environment)
            if once and number:          # the first run fills the page cache, and makes the environment where it is new
                times[name].append(once)
    if month is not None:
        for file in (month, month.with_name("day.db")):
            with suppress(OSError):
                file.unlink()
    return [StartUp(name, tuple(w for w, _ in kept), tuple(c for _, c in kept)) for name, kept in times.items() if kept]


def line(found: StartUp) -> str:
    """For the progress."""
    return f"{found.name}: {median(found.wall_ms):.0f} ms, of which {median(found.cpu_ms):.0f} ms on a CPU"
