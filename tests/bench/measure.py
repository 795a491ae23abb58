"""One turn of one subject: its CPU time, memory and ticks from a mark after the warm-up to the end of the window."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from tests.bench.subjects import Context, Running, Subject, SubjectError, started

POLL_S = 0.02
"""How often the subject's CPU clock is read within the window to tell its ticks apart: one system call of ours."""

QUIET_POLLS = 2
"""So many readings in a row without CPU time lie between two ticks."""

REST_S = 0.15
"""Behind a mark, this long at most is waited for the subject to rest: some print their mark before the work is over."""

PATIENCE_S = 20.0
"""A subject that prints nothing for so long, beyond what its tick should take, has failed."""

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn measured. `tick_cpu_ms` holds each tick's CPU time where the ticks could be separated;
    `other_cores` is what all others used in that time, the load among them, but not this benchmark."""

    round: int
    window_s: float
    ticks: int
    cpu_s: float
    memory_bytes: int
    tick_cpu_ms: tuple[float, ...] = ()
    other_cores: float = 0.0

    @property
    def cpu_ms_per_tick(self) -> float:
        return self.cpu_s * 1000 / self.ticks if self.ticks else float("nan")


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


def parse_busy_ticks(stat: bytes) -> int:
    """Clock ticks in which a CPU of the machine was busy, from /proc/stat: all states but idle, iowait and steal; guests
    are counted within user."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, stat.split(b"\n", 1)[0].split()[1:])
    return user + nice + system + irq + softirq


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


class Marks:
    """Counts the marks in a subject's output as it grows; a line that is not whole yet waits."""

    def __init__(self, marker: re.Pattern[bytes], output: BinaryIO) -> None:
        self._marker, self._output, self._rest = marker, output, b""
        self._count = 0

    def count(self) -> int:
        """Marks so far."""
        whole, end, rest = (self._rest + self._output.read()).rpartition(b"\n")
        self._count += len(self._marker.findall(whole + end))
        self._rest = rest
        return self._count


class Pace:
    """How far a subject has got: by the marks in its output, by the answers to scrapes, else by its beat."""

    def __init__(self, subject: Subject, running: Running, hz: float, output: BinaryIO) -> None:
        self._period_s, self._running = subject.period_s(hz), running
        self._marks = Marks(subject.marker, output) if subject.marker else None
        self.told = bool(subject.marker or subject.scrape)

    def ticks(self) -> int:
        """Ticks so far, of a subject that reports them; else 0."""
        return self._marks.count() if self._marks else self._running.scraped[0]

    def next(self) -> int:
        """Wait for the next tick's mark, and then for rest. Raises SubjectError when none comes."""
        if self.told:
            before, until = self.ticks(), time.monotonic() + PATIENCE_S + 3 * self._period_s
            while (now := self.ticks()) == before:
                if time.monotonic() > until:
                    raise SubjectError(f"no tick within {PATIENCE_S + 3 * self._period_s:.0f} s")
                self._running.check()
                time.sleep(POLL_S / 2)
            wait_for_rest(self._running.pid, REST_S)
            return now
        wait_for_rest(self._running.pid, self._period_s)
        return 0


@contextmanager
def pace(subject: Subject, running: Running, hz: float) -> Iterator[Pace]:
    """Follow a subject that runs."""
    with running.output.open("rb") as output:
        yield Pace(subject, running, hz, output)


def whole_periods(seconds: float, period_s: float) -> float:
    """The window nearest to `seconds` that is a whole number of periods, at least two."""
    return max(2, round(seconds / period_s)) * period_s


def warm_up(subject: Subject, context: Context, running: Running, processes: int) -> None:
    """Wait until the subject's start is over. Raises SubjectError when it ends before."""
    until = time.monotonic() + subject.warm_up_s(processes) * context.warm
    while time.monotonic() < until:
        time.sleep(min(0.25, max(0.0, until - time.monotonic())))
        running.check()


def take_turn(subject: Subject, context: Context, number: int, processes: int, seconds: float) -> Turn:
    """Start the subject among so many processes, let it warm up, measure it, end it. Raises SubjectError.

    The window begins and ends between two ticks. Where the subject reports its ticks, it ends with the first one behind
    `seconds`: one that cannot keep the beat is measured over whole ticks, too.
    """
    window_s = whole_periods(seconds, subject.period_s(context.hz))
    with started(subject, context) as running, pace(subject, running, context.hz) as steps:
        warm_up(subject, context, running, processes)
        first = steps.next()
        family = descendants(running.pid)
        begin, before, others = time.monotonic(), tree_cpu_ns(running.pid), _Others(running.pid)
        readings = [sum(process_cpu_ns(pid) or 0 for pid in family)]
        # A subject that reports its ticks is asked to stop half a tick early, so that the window does not have one more.
        until = begin + window_s - (subject.period_s(context.hz) / 2 if steps.told else 0)
        due = begin + POLL_S
        while due < until:
            time.sleep(max(0.0, due - time.monotonic()))
            readings.append(sum(process_cpu_ns(pid) or 0 for pid in family))
            due += POLL_S
        time.sleep(max(0.0, until - time.monotonic()))
        ticks = steps.next() - first if steps.told else round(window_s / subject.period_s(context.hz))
        cpu_ns, elapsed = tree_cpu_ns(running.pid) - before, time.monotonic() - begin
        running.check()
        memory = tree_memory_bytes(running.pid)
        other_cores = others.cores(cpu_ns / 1e9, elapsed)
    parts = split_ticks([b - a for a, b in pairwise(readings)])
    # Where it hardly rests, or threads run in between, the parts are not its ticks: say nothing rather than that.
    told_apart = abs(len(parts) - ticks) <= max(1, ticks // 10)
    return Turn(number, elapsed, ticks, cpu_ns / 1e9, memory, parts if told_apart else (), other_cores)


class _Others:
    """CPUs that anybody but the subject and this benchmark keeps busy."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._busy, self._own = self._now()

    @staticmethod
    def _now() -> tuple[int, float]:
        with open("/proc/stat", "rb") as file:
            return parse_busy_ticks(file.read(4096)), time.process_time()

    def cores(self, subject_s: float, elapsed_s: float) -> float:
        """Since the beginning; the kernel's ticks are of 10 ms, so a little below 0 is 0."""
        busy, own = self._now()
        used = (busy - self._busy) / CLOCK_TICKS - subject_s - (own - self._own)
        return max(0.0, round(used / elapsed_s, 3))


def wait_for_rest(pid: int, limit_s: float) -> None:
    """Until the subject is between two ticks, so that whole ticks are counted; at most `limit_s`."""
    until, quiet, before = time.monotonic() + limit_s, 0, process_cpu_ns(pid)
    while quiet < QUIET_POLLS and time.monotonic() < until:
        time.sleep(POLL_S)
        used = process_cpu_ns(pid)
        quiet, before = (quiet + 1 if used == before else 0), used
