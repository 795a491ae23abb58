"""python -m tests.tools.hour: rh-pipe beside real work, and what comes of it: events an hour, growth, own cost.

The work is a command line that is run again and again, or, without one, what the machine does anyway. The pipe has
the default configuration, and a home and a database of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from rogue_hunter.store.prune import files_size
from tests.scenarios.__main__ import Pipe
from tests.tools.processes import dies_with_us

STEP_S = 5.0
HZ = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of its children that ended."""
    words = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / HZ


def highest_kib(pid: int) -> int:
    """The most memory that a process held, KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def run(seconds: float, directory: Path, work: str) -> dict[str, Any]:
    """Play, and measure."""
    pipe = Pipe(directory)
    pid = pipe.start()
    job: subprocess.Popen[bytes] | None = None
    begun: int | None = None
    began = time.monotonic()
    memory = 0
    try:
        while (spent := time.monotonic() - began) < seconds:
            if work and (job is None or job.poll() is not None):
                job = subprocess.Popen(shlex.split(work), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, preexec_fn=dies_with_us)  # noqa: PLW1509
            if begun is None and pipe.db.exists():
                begun = files_size(pipe.db)
            memory = max(memory, highest_kib(pid))
            time.sleep(min(STEP_S, max(0.0, seconds - spent)))
        own = cpu_s(pid)
    finally:
        if job is not None and job.poll() is None:
            job.terminate()
            job.wait(60)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        pipe.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with_helpers = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**measured(pipe.db, seconds, begun or 0), "own_cpu_percent": 100 * own / seconds,
            "own_cpu_percent_with_captures": 100 * with_helpers / seconds, "memory_mib": memory / 1024,
            "load": os.getloadavg()[2]}


def measured(db: Path, seconds: float, begun: int) -> dict[str, Any]:
    """The figures of the database: events by scope and length, the commands that had most of them, captures, growth
    since it had `begun` bytes. It is closed, so that its log is in the file."""
    hours = seconds / 3600
    with closing(sqlite3.connect(db)) as connection:
        def ask(query: str) -> list[Any]:
            return connection.execute(query).fetchall()

        events = ask("SELECT coalesce(scope, '?'), count(*) FROM process_events GROUP BY 1")
        lengths = ask("SELECT CASE WHEN duration_s < 3 THEN '< 3 s' WHEN duration_s < 10 THEN '3 to 10 s' WHEN "
                      "duration_s < 30 THEN '10 to 30 s' ELSE '>= 30 s' END, count(*), count(DISTINCT unit) FROM "
                      "process_events GROUP BY 1")
        most = ask("SELECT coalesce(unit, '-'), command, coalesce(scope, '?'), count(*), round(sum(duration_s), 1), "
                   "max(peak_score) FROM process_events GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT 15")
        captures = ask("SELECT status, coalesce(reason, ''), sum(coalesce(skipped, 1)) FROM forensic_captures GROUP BY 1, 2")
        parts = ask("SELECT name, sum(pgsize) FROM dbstat GROUP BY 1 ORDER BY 2 DESC LIMIT 12") if _has(connection) else []
        machine = ask("SELECT avg(cpu_busy_cores / cpus), avg(self_cpu_percent), max(self_cpu_percent), sum(started), "
                      "max(processes), max(late_s) FROM machine_slices")[0]
        pauses = ask("SELECT cause, count(*), round(sum(duration_s), 1) FROM pauses GROUP BY 1")
    return {"seconds": seconds, "events": dict(events), "events_per_hour": sum(n for _, n in events) / hours,
            "lengths": lengths, "most": most, "captures": captures, "pauses": pauses, "bytes_per_hour": (files_size(db) - begun) / hours,
            "tables": parts, "busy": machine[0], "self_cpu_percent": machine[1], "self_cpu_percent_max": machine[2],
            "started_per_s": (machine[3] or 0) / seconds, "processes": machine[4], "late_s": machine[5]}


def _has(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1 FROM dbstat LIMIT 1").fetchall()
    except sqlite3.Error:
        return False
    return True


def main() -> int:
    """Run, and print the figures as JSON, one a line."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.hour", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--work", default="", help="a command line that is run again and again")
    parser.add_argument("--keep", type=Path, help="where the pipe lives; removed if it is not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rh-hour-") as place:
        directory = options.keep or Path(place)
        directory.mkdir(parents=True, exist_ok=True)
        found = run(60 * options.minutes, directory, options.work)
    for name, value in found.items():
        print(f"{name:30} {json.dumps(round(value, 3) if isinstance(value, float) else value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
