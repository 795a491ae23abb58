"""The beat at a rate that may change while it runs: reloaded from the configuration, or slowed down by the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rogue_hunter.stream.clock import NS, Beat, Clock, beats, system_clock


def paced(rate: Callable[[], float], sleep: Callable[[float], bool], clock: Clock | None = None,
          seconds: float | None = None) -> Iterator[Beat]:
    """Beat `rate()` times a second, as `beats` does, until `seconds` have passed or `sleep` says stop.

    A rate that changes is noticed at each return of `sleep`: the next beat is due one new period after the last one.
    """
    clock = clock or system_clock()
    start = clock.mono()
    last: Beat | None = None
    gap = 0
    while True:
        hz = rate()
        stopped = False

        def nap(wait: float, hz: float = hz) -> bool:
            nonlocal stopped
            stopped = not sleep(wait)
            return not stopped and rate() == hz

        if last is not None and not _wait(last.mono_ns + int(NS / hz), nap, clock, start, seconds):
            if not stopped and rate() != hz:
                continue
            return
        first = last
        left = None if seconds is None else (start + round(seconds * NS) - clock.mono()) / NS
        for beat in beats(hz, nap, clock, seconds=left):
            if first is not None:
                # The first beat of a segment knows nothing of the ones before.
                asleep = (clock.sleeping() - beat.mono_ns if clock.sleeping else 0) - gap
                beat = beat._replace(interval_s=(beat.mono_ns - first.mono_ns) / NS,
                                     late_s=max(0, beat.mono_ns - first.mono_ns - int(NS / hz)) / NS,
                                     asleep_s=asleep / NS if asleep > 10_000_000 else 0.0)
                first = None
            last = beat = Beat(0 if last is None else last.seq + 1, *beat[1:])
            gap = clock.sleeping() - beat.mono_ns if clock.sleeping else 0
            yield beat
            if rate() != hz:
                break
        else:
            if stopped or rate() == hz:
                return


def _wait(due: int, nap: Callable[[float], bool], clock: Clock, start: int, seconds: float | None) -> bool:
    """Wait until `due`, or until the end of the run; True when a beat is due."""
    end = None if seconds is None else start + int(seconds * NS)
    until = due if end is None else min(due, end)
    while (wait := until - clock.mono()) > 0:
        if not nap(wait / NS):
            return False
    return end is None or due <= end
