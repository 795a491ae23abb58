"""One turn of one subject: its CPU time, memory and ticks from a mark after the warm-up to the end of the window."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.bench.subjects import Context, Running, Subject, SubjectError, started

POLL_S = 0.02
"""How often the subject's CPU clock is read within the window to tell its ticks apart: one system call of ours."""

QUIET_POLLS = 2
"""So many readings in a row without CPU time lie between two ticks."""

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn measured. `tick_cpu_ms` holds each tick's CPU time where the ticks could be told apart."""

    round: int
    window_s: float
    ticks: int
    cpu_s: float
    memory_bytes: int
    tick_cpu_ms: tuple[float, ...] = ()

    @property
    def cpu_ms_per_tick(self) -> float:
        return self.cpu_s * 1000 / self.ticks if self.ticks else float("nan")


@dataclass(frozen=True, slots=True)
class Syscalls:
    """System calls of a subject, by strace: how many a tick, and the most frequent ones."""

    per_tick: float
    top: tuple[tuple[str, float], ...]


def process_cpu_ns(pid: int) -> int | None:
    """CPU time of the process, all its threads, those that ended included; None when it is gone.

    The id of another process's CPU clock is made as clock_getcpuclockid(3) does: the complement of the pid, shifted by
    three bits, and 2 for the scheduler's clock, which counts in nanoseconds.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    found = [pid]
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def parse_children_ticks(stat: bytes) -> int:
    """cutime + cstime of a /proc/PID/stat, in clock ticks: the CPU time of children that were waited for."""
    fields = stat[stat.rindex(b")") + 2:].split()
    return int(fields[13]) + int(fields[14])


def parse_rss_bytes(status: bytes) -> int:
    """VmRSS of a /proc/PID/status; 0 for a process without memory of its own."""
    found = re.search(rb"^VmRSS:\s+(\d+) kB", status, re.M)
    return int(found[1]) * 1024 if found else 0


def tree_cpu_ns(pid: int) -> int:
    """CPU time of the process, of those below it, and of those that ended below it and were waited for."""
    total = 0
    for one in descendants(pid):
        total += process_cpu_ns(one) or 0
        try:
            stat = Path(f"/proc/{one}/stat").read_bytes()
        except OSError:
            continue
        total += parse_children_ticks(stat) * 1_000_000_000 // CLOCK_TICKS
    return total


def tree_memory_bytes(pid: int) -> int:
    """Resident memory of the process and those below it."""
    total = 0
    for one in descendants(pid):
        try:
            total += parse_rss_bytes(Path(f"/proc/{one}/status").read_bytes())
        except OSError:
            continue
    return total


def split_ticks(increments_ns: Sequence[int]) -> tuple[float, ...]:
    """CPU ms of each tick from the CPU time used between readings: a tick lies between two quiet stretches."""
    ticks: list[float] = []
    current, quiet = 0, QUIET_POLLS
    for used in increments_ns:
        if used:
            current += used
            quiet = 0
            continue
        quiet += 1
        if quiet == QUIET_POLLS and current:
            ticks.append(current / 1e6)
            current = 0
    return (*ticks, current / 1e6) if current else tuple(ticks)


def count_ticks(subject: Subject, running: Running, from_byte: int, scraped: int, window_s: float, hz: float) -> int:
    """The ticks of the window: by the marks in the output, by the answers to scrapes, or by the period."""
    if subject.marker:
        with running.output.open("rb") as file:
            file.seek(from_byte)
            return len(subject.marker.findall(file.read()))
    if subject.scrape:
        return running.scraped[0] - scraped
    return round(window_s / subject.period_s(hz))


def whole_periods(seconds: float, period_s: float) -> float:
    """The window nearest to `seconds` that is a whole number of periods, at least two."""
    return max(2, round(seconds / period_s)) * period_s


def take_turn(subject: Subject, context: Context, number: int, warmup_s: float, seconds: float) -> Turn:
    """Start the subject, let it warm up, measure it, end it. Raises SubjectError."""
    window_s = whole_periods(seconds, subject.period_s(context.hz))
    with started(subject, context) as running:
        _sleep_until(time.monotonic() + warmup_s, running)
        family = descendants(running.pid)
        from_byte, scraped = running.output.stat().st_size, running.scraped[0]
        begin, before = time.monotonic(), tree_cpu_ns(running.pid)
        readings = [sum(process_cpu_ns(pid) or 0 for pid in family)]
        due = begin + POLL_S
        while due < begin + window_s:
            time.sleep(max(0.0, due - time.monotonic()))
            readings.append(sum(process_cpu_ns(pid) or 0 for pid in family))
            due += POLL_S
        time.sleep(max(0.0, begin + window_s - time.monotonic()))
        cpu_ns, elapsed = tree_cpu_ns(running.pid) - before, time.monotonic() - begin
        running.check()
        memory = tree_memory_bytes(running.pid)
        ticks = count_ticks(subject, running, from_byte, scraped, elapsed, context.hz)
    if not ticks:
        raise SubjectError("no tick within the window")
    parts = split_ticks([b - a for a, b in pairwise(readings)])
    # Where it hardly rests, or threads run in between, the parts are not its ticks: say nothing rather than that.
    told_apart = abs(len(parts) - ticks) <= max(1, ticks // 10)
    return Turn(number, elapsed, ticks, cpu_ns / 1e9, memory, parts if told_apart else ())


def _sleep_until(when: float, running: Running) -> None:
    while time.monotonic() < when:
        time.sleep(min(0.25, max(0.0, when - time.monotonic())))
        running.check()


def _wait_for_rest(pid: int, limit_s: float) -> None:
    """Until the subject is between two ticks, so that whole ticks are counted; at most `limit_s`."""
    until, quiet, before = time.monotonic() + limit_s, 0, process_cpu_ns(pid)
    while quiet < QUIET_POLLS and time.monotonic() < until:
        time.sleep(POLL_S)
        used = process_cpu_ns(pid)
        quiet, before = (quiet + 1 if used == before else 0), used


def _is_traced(pid: int) -> bool:
    return b"\nTracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_bytes()


def parse_strace(summary: str) -> dict[str, int]:
    """The table of `strace -c`: name of the system call -> calls. `total` is left out."""
    counts: dict[str, int] = {}
    for line in summary.splitlines():
        words = line.split()
        # "% time, seconds, usecs/call, calls, errors (may be blank), syscall"
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] = counts.get(words[-1], 0) + int(words[3])
    return counts


def count_syscalls(subject: Subject, context: Context, warmup_s: float, seconds: float) -> Syscalls | None:
    """System calls a tick, counted by strace attached after the warm-up; None where strace is missing or refused.

    Raises SubjectError.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    window_s = whole_periods(seconds, subject.period_s(context.hz))
    summary = context.scratch / f"{subject.name}.strace"
    with started(subject, context) as running:
        _sleep_until(time.monotonic() + warmup_s, running)
        _wait_for_rest(running.pid, subject.period_s(context.hz))
        attach = [word for pid in descendants(running.pid) for word in ("-p", str(pid))]
        tracer = subprocess.Popen([strace, "-f", "-q", "-c", "-o", str(summary), *attach],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while tracer.poll() is None and not _is_traced(running.pid):
                time.sleep(0.01)
            from_byte, scraped = running.output.stat().st_size, running.scraped[0]
            begin = time.monotonic()
            while tracer.poll() is None and time.monotonic() < begin + window_s:
                time.sleep(max(0.0, min(0.1, begin + window_s - time.monotonic())))
            _wait_for_rest(running.pid, subject.period_s(context.hz))
            ticks = count_ticks(subject, running, from_byte, scraped, window_s, context.hz)
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
