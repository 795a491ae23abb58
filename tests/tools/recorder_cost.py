"""What the flight recorder costs: rh-pipe with and without it, and what its rings take from a loop on each CPU.

`python -m tests.tools.recorder_cost [--for SECONDS]` prints a record. Two runs of rh-pipe work side by side, one with the
recorder off: their CPU time and memory are compared. While they work, the loop of each CPU works through blocks of the
same length, in alternation with rings of its own and without: the rings of rh-pipe are in both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median

from rogue_hunter.recorder.perf import open_rings
from rogue_hunter.recorder.stage import HZ
from tests.bench.measure import parse_rss_bytes, process_cpu_ns

WINDOW_S = 0.25
"""Length of a measurement with rings or without: 12 samples."""
WARM_S = 10.0
"""For how long both runs of rh-pipe work before they are measured."""
LATE = 1.2
"""A block that took so many times the median was interrupted by another task and does not count."""
LOOP = """
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static double block(void) { double a = now(); volatile unsigned x = 1;
  for (unsigned i = 0; i < 1000000; i++) x = x * 3 + 1; return now() - a; }
int main(int c, char **v) {
  cpu_set_t set; char byte; double window = atof(v[2]);
  CPU_ZERO(&set); CPU_SET(atoi(v[1]), &set);
  if (sched_setaffinity(0, sizeof set, &set)) return 3;
  while (read(0, &byte, 1) == 1) {
    double end = now() + window;
    while (now() < end) printf("%.9f ", block());
    putchar('\\n'); fflush(stdout); }
  return 0; }
"""


def typical(blocks: Sequence[float]) -> float:
    """The mean length of the blocks that no other task interrupted."""
    limit = LATE * median(blocks)
    return mean(each for each in blocks if each <= limit)


def overhead(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Percent by which blocks take longer with rings, of pairs with and without: the median, and its error (1.25 sigma
    of the mean, sigma from the quartiles)."""
    found = sorted(100 * (with_ / without - 1) for with_, without in pairs)
    spread = (found[3 * len(found) // 4] - found[len(found) // 4]) / 1.349
    return median(found), float(1.25 * spread / len(found) ** 0.5)


def _pipe(stack: ExitStack, folder: Path, enabled: bool) -> int:
    name = "on" if enabled else "off"
    (folder / f"{name}.toml").write_text(f"[recorder]\nenabled = {str(enabled).lower()}\n[budget]\n"
                                         "cpu_percent = 0\n")
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--no-socket", "--db", str(folder / f"{name}.db"),
         "--config", str(folder / f"{name}.toml")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}, start_new_session=True)
    stack.callback(child.wait)
    stack.callback(child.terminate)
    return child.pid


def _rss(pid: int) -> int:
    return parse_rss_bytes(Path(f"/proc/{pid}/status").read_bytes())


def _windows(loops: Sequence[subprocess.Popen[str]]) -> list[float]:
    """The typical block of each loop, all at the same time."""
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("g")
        loop.stdin.flush()
    return [typical([float(word) for word in loop.stdout.readline().split()]) for loop in loops if loop.stdout]


def _alternated(loops: Sequence[subprocess.Popen[str]], until: Callable[[], bool],
                ) -> tuple[list[list[tuple[float, float]]], int]:
    """For each loop its pairs with and without rings, and the bytes of the rings, which the kernel holds; every second
    pair begins without."""
    pairs: list[list[tuple[float, float]]] = [[] for _ in loops]
    turn = held = 0
    while not until():
        found: dict[bool, list[float]] = {}
        for with_rings in (True, False) if turn % 2 else (False, True):
            rings, why = open_rings(HZ) if with_rings else (None, "")
            if with_rings and (rings is None or rings.mode != "system"):
                raise SystemExit(f"not measured: {why}")
            try:
                found[with_rings] = _windows(loops)
                held = rings.bytes if rings is not None else held
            finally:
                if rings is not None:
                    rings.close()
        for kept, with_, without in zip(pairs, found[True], found[False], strict=True):
            kept.append((with_, without))
        turn += 1
    return pairs, held


def measure(seconds: float) -> dict[str, object]:
    """The record of one measurement. Raises SystemExit without permission for perf events of all processes."""
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "loop.c").write_text(LOOP)
        subprocess.run(["gcc", "-O1", "-o", folder / "loop", folder / "loop.c"], check=True)
        pids = {enabled: _pipe(stack, folder, enabled) for enabled in (True, False)}
        time.sleep(WARM_S)
        begin = {each: process_cpu_ns(pid) or 0 for each, pid in pids.items()}
        start = time.monotonic()
        # The rings take CPU from busy CPUs only, and busy CPUs change what rh-pipe costs: half of the time each.
        time.sleep(seconds / 2)
        loops = [stack.enter_context(subprocess.Popen([folder / "loop", str(cpu), str(WINDOW_S)], text=True,
                                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)) for cpu in cpus]
        pairs, held = _alternated(loops, lambda: time.monotonic() - start >= seconds)
        took = time.monotonic() - start
        used = {each: ((process_cpu_ns(pid) or 0) - begin[each]) / 1e9 for each, pid in pids.items()}
        memory = {each: _rss(pid) for each, pid in pids.items()}
    kernel = [overhead(each) for each in pairs]
    pipe = 100 * (used[True] - used[False]) / took / len(cpus)
    return {"type": "recorder_cost", "seconds": round(took, 1), "pairs": len(pairs[0]), "load_1min": os.getloadavg()[0],
            "pipe_cpu_percent_on": round(100 * used[True] / took, 4), "pipe_cpu_percent_off": round(100 * used[False] / took, 4),
            "pipe_percent_of_each_cpu": round(pipe, 4), "rings_percent_of_busy_cpu": [round(m, 4) for m, _ in kernel],
            "rings_error": [round(e, 4) for _, e in kernel], "memory_mb_on": round(memory[True] / 1e6, 2),
            "memory_mb_off": round(memory[False] / 1e6, 2), "memory_mb_more": round((memory[True] - memory[False]) / 1e6, 2),
            "rings_mb": round(held / 1e6, 2),
            "total_percent_of_each_cpu": [round(m + pipe, 4) for m, _ in kernel]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="seconds", type=float, default=600.0, help="seconds of the whole measurement")
    print(json.dumps(measure(parser.parse_args().seconds)))
