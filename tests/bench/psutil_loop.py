"""What a careful Python programmer writes first: psutil over all processes, the fields that rh-sample has.

    python psutil_loop.py HZ

What never changes (exe, cmdline, user, start time, terminal) is read once for each process; `oneshot` shares the files
among the rest. Prints one line a tick, which is how the benchmark counts them. Runs until it is ended.
"""

from __future__ import annotations

import importlib
import sys
import time

psutil = importlib.import_module("psutil")

ONCE = ("exe", "cmdline", "username", "create_time", "terminal")
EACH_TICK = ("name", "ppid", "uids", "status", "nice", "num_threads", "cpu_times", "memory_info", "io_counters",
             "num_ctx_switches")


def tick(known: dict[tuple[int, float], dict[str, object]]) -> int:
    """Read every process once; `known` keeps what was read of each before. Returns their number."""
    seen: dict[tuple[int, float], dict[str, object]] = {}
    for process in psutil.process_iter():
        try:
            identity = (process.pid, process.create_time())
            row = known.get(identity) or process.as_dict(attrs=ONCE)
            row.update(process.as_dict(attrs=EACH_TICK))
        except psutil.NoSuchProcess:
            continue
        seen[identity] = row
    known.clear()
    known.update(seen)
    psutil.cpu_times()
    psutil.virtual_memory()
    return len(seen)


def main() -> None:
    period_s = 1 / float(sys.argv[1])
    known: dict[tuple[int, float], dict[str, object]] = {}
    due = time.monotonic()
    while True:
        tick(known)
        print("tick", flush=True)
        due = max(due + period_s, time.monotonic())      # a tick that took longer than the period is not made up for
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
