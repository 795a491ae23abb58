"""System calls of a subject a tick, counted by strace in turns of their own: it makes everything slow."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.bench.measure import POLL_S, descendants, pace, process_cpu_ns, split_ticks, warm_up, whole_periods
from tests.bench.subjects import Context, Subject, started

ATTACH_S = 10.0
"""strace is given up when it has not attached by then."""


@dataclass(frozen=True, slots=True)
class Syscalls:
    """System calls of a subject, by strace: how many a tick, and the most frequent ones."""

    per_tick: float
    top: tuple[tuple[str, float], ...]


def parse_strace(summary: str) -> dict[str, int]:
    """The table of `strace -c`: name of the system call -> calls. `total` is left out."""
    counts: dict[str, int] = {}
    for line in summary.splitlines():
        words = line.split()
        # "% time, seconds, usecs/call, calls, errors (may be blank), syscall"
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] = counts.get(words[-1], 0) + int(words[3])
    return counts


def _is_traced(pid: int) -> bool:
    return b"\nTracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_bytes()


def _ticks_in(readings: Sequence[int], expected: int) -> int:
    """Ticks of a subject that does not tell them: strace's coming and going moves the window by a part of one, so they
    are counted where they can be separated."""
    seen = len(split_ticks([b - a for a, b in pairwise(readings)]))
    return seen if abs(seen - expected) <= 1 else expected


def count_syscalls(subject: Subject, context: Context, processes: int, seconds: float) -> Syscalls | None:
    """System calls a tick, counted by strace attached after the warm-up; None where strace is missing or refused.

    Raises SubjectError.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    period_s = subject.period_s(context.hz)
    window_s = whole_periods(seconds, period_s)
    summary = context.scratch / f"{subject.name}.strace"
    with started(subject, context) as running, pace(subject, running, context.hz) as steps:
        warm_up(subject, context, running, processes)
        steps.next()
        attach = [word for pid in descendants(running.pid) for word in ("-p", str(pid))]
        tracer = subprocess.Popen([strace, "-f", "-q", "-c", "-o", str(summary), *attach],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + ATTACH_S
            while tracer.poll() is None and not _is_traced(running.pid):
                if time.monotonic() > until:
                    return None
                time.sleep(0.01)
            first, until = steps.ticks(), time.monotonic() + window_s
            readings = [process_cpu_ns(running.pid) or 0]
            while tracer.poll() is None and time.monotonic() < until:
                time.sleep(POLL_S)
                readings.append(process_cpu_ns(running.pid) or 0)
            # One that reports its ticks may have had none yet: strace makes it that slow.
            now = steps.next()
            ticks = now - first if steps.told else _ticks_in(readings, round(window_s / period_s))
            running.check()
        finally:
            tracer.send_signal(signal.SIGINT)          # it lets go, and writes the table
            try:
                tracer.wait(10)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.wait()
    counts = parse_strace(summary.read_text(errors="replace")) if summary.exists() else {}
    if not counts or not ticks:
        return None
    top = sorted(counts.items(), key=lambda item: -item[1])[:8]
    return Syscalls(sum(counts.values()) / ticks, tuple((name, calls / ticks) for name, calls in top))
