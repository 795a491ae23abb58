"""The clock as an iterator of beats, at a rate that may change. Lateness is data: it is the symptom to be found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

NS = 1_000_000_000


class Beat(NamedTuple):
    """One beat.

    `mono_ns` is the monotonic clock when it came, `ts` the wall clock then (epoch seconds), `interval_s` the measured
    time since the beat before (0 for the first), `late_s` how much later it came than the first deadline after the
    beat before, `asleep_s` how long the machine was suspended since the beat before.
    """

    seq: int
    mono_ns: int
    ts: float
    interval_s: float
    late_s: float
    asleep_s: float


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks a beat needs, each in nanoseconds; tests hand in their own.

    `sleeping` is a clock that keeps running while the machine is suspended (CLOCK_BOOTTIME, mach_continuous_time); the
    monotonic clock stops then, so the difference of the two grows by the time asleep.
    """

    mono: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], float] = time.time
    sleeping: Callable[[], int] | None = None


def system_clock() -> Clock:
    """This machine's clocks. Where there is no CLOCK_BOOTTIME, time asleep is not known here and reads 0."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return Clock()
    return Clock(sleeping=lambda: time.clock_gettime_ns(boottime))


def sleep(seconds: float) -> bool:
    """Wait; never ends the beat (see `beats`)."""
    time.sleep(seconds)
    return True


@dataclass(slots=True)
class Rate:
    """How often the clock beats: `hz` beats a second, divided by `slowed`. Both may change while it runs."""

    hz: float
    slowed: int = 1

    @property
    def period_ns(self) -> int:
        """Nanoseconds from one beat to the next."""
        return int(NS * self.slowed / self.hz)


def beats(rate: Rate, sleep: Callable[[float], bool], clock: Clock | None = None, count: int | None = None,
          seconds: float | None = None) -> Iterator[Beat]:
    """Beat at `rate` until `count` beats, `seconds` of time, or until `sleep` returns False.

    Deadlines are absolute, so the cost of a tick does not slow the rate; a deadline that has passed is not made up
    for, the next one is the first in the future. A changed rate is noticed at each return of `sleep`: the next beat is
    due one new period after the last one. `sleep(seconds)` waits and returns False to end the beat.
    """
    clock = clock or system_clock()
    period = rate.period_ns
    start = owed = due = before = clock.mono()
    end = None if seconds is None else start + int(seconds * NS)
    gap_before = clock.sleeping() - before if clock.sleeping else 0
    seq = 0
    while True:
        now = clock.mono()
        gap = clock.sleeping() - now if clock.sleeping else 0
        # 10 ms: the two clocks are read one after the other; no suspension is that short.
        asleep = gap - gap_before if gap - gap_before > 10_000_000 else 0
        yield Beat(seq, now, clock.wall(), (now - before) / NS, max(0, now - owed) / NS, asleep / NS)
        before, gap_before = now, gap
        seq += 1
        if count is not None and seq >= count:
            return
        now = clock.mono()
        due += period
        if due <= before:
            due += ((before - due) // period + 1) * period
        # What was owed is kept when it is skipped: the machine may stop us while we read as well as while we sleep.
        owed = due
        if due <= now:
            due += -(-(now - due) // period) * period
        while True:
            if rate.period_ns != period:
                period = rate.period_ns
                now = clock.mono()
                # A beat that only the new rate makes overdue is not late.
                owed = max(before + period, min(owed, now))
                due = before + period
            if (wait := (due if end is None else min(due, end)) - clock.mono()) <= 0:
                break
            if not sleep(wait / NS):
                return
        if end is not None and due > end:
            return
