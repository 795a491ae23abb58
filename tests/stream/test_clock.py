"""The beat keeps its rate, skips what it missed, and says how late it came."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rogue_hunter.stream.clock import NS, Beat, Clock, Rate, beats, system_clock


class Time:
    """A monotonic clock that only sleeping and working move; `suspended` counts in the other clock only."""

    def __init__(self, at: int = 10**15) -> None:
        self.now = at
        self.suspended = 0
        self.wall_step = 0.0
        self.overslept = 0.0
        self.slept: list[float] = []

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now / NS + self.wall_step, lambda: self.now + self.suspended)

    def work(self, seconds: float) -> None:
        self.now += round(seconds * NS)

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.work(seconds + self.overslept)
        self.overslept = 0.0
        return True


def run(time: Time, hz: float, count: int, during: Callable[[Beat], None] = lambda beat: None) -> list[Beat]:
    """`count` beats; `during` is what the consumer does with each."""
    taken = []
    for beat in beats(Rate(hz), time.sleep, time.clock(), count):
        taken.append(beat)
        during(beat)
    return taken


def test_rate_does_not_drift_with_the_cost_of_a_tick() -> None:
    """Deadlines are absolute: 100 ms of work in each of 30 ticks leaves them 1/3 s apart."""
    time = Time()
    taken = run(time, 3, 31, lambda beat: time.work(0.1))
    assert [b.seq for b in taken] == list(range(31))
    assert taken[-1].mono_ns - taken[0].mono_ns == pytest.approx(10 * NS, abs=100)
    assert all(b.interval_s == pytest.approx(1 / 3, abs=1e-6) for b in taken[1:])
    assert all(b.late_s == 0 for b in taken)


def test_first_beat() -> None:
    """The first beat comes at once, with no interval."""
    beat = run(Time(), 3, 1)[0]
    assert (beat.seq, beat.interval_s, beat.late_s, beat.asleep_s) == (0, 0, 0, 0)


def test_late_wake_is_data() -> None:
    """A sleep that took 2 s longer is a beat that came 2 s late; the next is on the grid again and not late."""
    time = Time()

    def during(beat: Beat) -> None:
        if beat.seq == 2:
            time.overslept = 2.0

    taken = run(time, 4, 6, during)
    assert [round(b.late_s, 3) for b in taken] == [0, 0, 0, 2.0, 0, 0]
    assert taken[3].interval_s == pytest.approx(2.25)
    assert (taken[4].mono_ns - taken[0].mono_ns) % (NS // 4) == 0


def test_a_stall_during_the_work_is_late_too() -> None:
    """The machine may stop us while we read /proc as well as while we sleep: the beat that should have come is late."""
    time = Time()

    def during(beat: Beat) -> None:
        if beat.seq == 1:
            time.work(3.1)

    taken = run(time, 2, 5, during)
    # Beat 2 was due 0.5 s after beat 1; the first deadline in the future was 3.5 s after it.
    assert taken[2].interval_s == pytest.approx(3.5)
    assert taken[2].late_s == pytest.approx(3.0)
    assert [b.late_s for b in taken[3:]] == [0, 0]


def test_missed_beats_are_not_made_up_for() -> None:
    """After a stall of ten periods comes one beat, not ten."""
    time = Time()
    taken = run(time, 10, 4, lambda beat: time.work(1.0) if beat.seq == 0 else None)
    assert [b.seq for b in taken] == [0, 1, 2, 3]
    assert taken[2].interval_s == pytest.approx(0.1)


def test_suspend_is_distinguished_from_lateness() -> None:
    """An hour of suspend stops the monotonic clock: asleep_s says it, late_s does not."""
    time = Time()

    def during(beat: Beat) -> None:
        if beat.seq == 1:
            time.suspended += 3600 * NS

    taken = run(time, 3, 4, during)
    assert [round(b.asleep_s) for b in taken] == [0, 0, 3600, 0]
    assert all(b.late_s == 0 for b in taken)


def test_clocks_read_apart_are_no_suspend() -> None:
    """A few milliseconds between the readings of the two clocks are not reported as sleep."""
    time = Time()
    taken = run(time, 3, 3, lambda beat: setattr(time, "suspended", time.suspended + 9_000_000))
    assert all(b.asleep_s == 0 for b in taken)


def test_without_a_second_clock() -> None:
    """Where time asleep cannot be known the beat continues."""
    time = Time()
    clock = Clock(lambda: time.now, lambda: 0.0)
    assert [b.asleep_s for b in beats(Rate(3), time.sleep, clock, 3)] == [0, 0, 0]


def test_wall_clock_step_moves_only_ts() -> None:
    """A day forward on the wall clock changes ts and nothing else."""
    time = Time()
    taken = run(time, 3, 4, lambda beat: setattr(time, "wall_step", 86400.0))
    assert taken[1].ts - taken[0].ts > 86400
    assert all(b.interval_s == pytest.approx(1 / 3, abs=1e-6) and b.late_s == 0 for b in taken[1:])


def test_stop() -> None:
    """The beat ends as soon as sleep returns False."""
    time = Time()
    left = [True, True, False]
    assert len(list(beats(Rate(3), lambda s: time.sleep(s) and left.pop(0), time.clock()))) == 3


def test_sleep_that_wakes_early_sleeps_again() -> None:
    """A signal that ends a sleep early brings no early beat."""
    time = Time()

    def nap(seconds: float) -> bool:
        return time.sleep(seconds / 2 if seconds > 0.01 else seconds)

    taken = list(beats(Rate(3), nap, time.clock(), 3))
    assert [round(b.interval_s, 3) for b in taken] == [0, 0.333, 0.333]


@pytest.mark.parametrize(("hz", "seconds", "expected"), [(3, 2, 7), (1, 0.5, 1), (10, 1, 11)])
def test_seconds(hz: float, seconds: float, expected: int) -> None:
    """`seconds` of beats: those that are due within them, and the whole time is used."""
    time = Time()
    begin = time.now
    assert len(list(beats(Rate(hz), time.sleep, time.clock(), seconds=seconds))) == expected
    assert (time.now - begin) / NS == pytest.approx(seconds, abs=1e-6)


def test_system_clock() -> None:
    """The machine's own clocks go forward, and the sleeping one is not behind the monotonic one."""
    clock = system_clock()
    before = clock.mono()
    assert clock.mono() >= before
    if clock.sleeping is not None:
        assert clock.sleeping() >= before


# -- a rate that changes ------------------------------------------------------------------------------------------------

class Fake:
    """A clock that moves with each sleep. `at` runs something at a moment."""

    def __init__(self) -> None:
        self.ns = 10**12
        self.asleep = 0
        self.at: list[tuple[int, Callable[[], None]]] = []
        self.stopped = False
        self.clock = Clock(lambda: self.ns, lambda: self.ns / NS, lambda: self.ns + self.asleep)

    def sleep(self, seconds: float) -> bool:
        """Move on; wake up early when something happens, as a signal or a reload does."""
        until = self.ns + max(1, round(seconds * NS))
        while self.at and self.at[0][0] <= until:
            self.ns, happens = self.at.pop(0)
            happens()
            return not self.stopped
        self.ns = until
        return not self.stopped


def test_the_rate_changes_while_the_beat_waits() -> None:
    """From 1 to 10 a second: the next beat comes one new period after the last, on time, and is numbered on."""
    fake, rate = Fake(), Rate(1.0)
    fake.at = [(10**12 + 3_050_000_000, lambda: setattr(rate, "hz", 10.0))]
    taken = list(beats(rate, fake.sleep, fake.clock, seconds=4))
    assert [b.seq for b in taken] == list(range(len(taken)))
    assert [round((b.mono_ns - 10**12) / NS, 3) for b in taken[:7]] == [0, 1, 2, 3, 3.1, 3.2, 3.3]
    assert [round(b.interval_s, 3) for b in taken[:7]] == [0, 1, 1, 1, 0.1, 0.1, 0.1]
    assert max(b.late_s for b in taken) < 1e-6
    assert len(taken) == 14


def test_a_rate_that_falls_waits_longer_and_is_not_late() -> None:
    """Slowed down by the budget: a longer interval is no pause."""
    fake, rate = Fake(), Rate(3.0)
    taken = []
    for beat in beats(rate, fake.sleep, fake.clock, seconds=10):
        taken.append(beat)
        if beat.seq == 5:
            rate.slowed = 2
    assert [round(b.interval_s, 2) for b in taken[5:9]] == [0.33, 0.67, 0.67, 0.67]
    assert max(b.late_s for b in taken) < 1e-6


def test_a_change_hides_no_lateness_and_no_sleep() -> None:
    """The machine stood still, or was suspended, just when the rate changed: late by the deadline of the old rate."""
    fake, rate = Fake(), Rate(1.0)

    def freeze() -> None:
        rate.hz = 2.0
        fake.ns += 5 * NS
        fake.asleep += 7 * NS

    fake.at = [(10**12 + 2_200_000_000, freeze)]
    taken = list(beats(rate, fake.sleep, fake.clock, seconds=9))
    assert [b.seq for b in taken][:4] == [0, 1, 2, 3]
    assert taken[3].interval_s == pytest.approx(5.2) and taken[3].late_s == pytest.approx(4.2)
    assert taken[3].asleep_s == pytest.approx(7.0)
    assert [b.asleep_s for b in taken[4:]] == [0.0] * len(taken[4:])


def test_it_ends_on_request_during_a_change() -> None:
    """A stop that comes together with another rate is a stop."""
    fake, rate = Fake(), Rate(1.0)

    def stop() -> None:
        rate.hz, fake.stopped = 5.0, True

    fake.at = [(10**12 + 1_500_000_000, stop)]
    assert len(list(beats(rate, fake.sleep, fake.clock))) == 2


def test_the_time_is_up_while_waiting_for_the_first_beat_of_a_new_rate() -> None:
    """The end of the run does not wait for a slow beat."""
    fake, rate = Fake(), Rate(1.0)
    fake.at = [(10**12 + 1_500_000_000, lambda: setattr(rate, "hz", 0.1))]
    assert len(list(beats(rate, fake.sleep, fake.clock, seconds=3))) == 2
    assert fake.ns == 10**12 + 3 * NS


def test_a_beat_that_only_the_new_rate_makes_overdue_is_not_late() -> None:
    """From one beat in 10 s to 3 a second, 5 s after the last: the next beat comes at once and no pause is seen."""
    fake, rate = Fake(), Rate(0.1)
    fake.at = [(10**12 + 5 * NS, lambda: setattr(rate, "hz", 3.0))]
    taken = list(beats(rate, fake.sleep, fake.clock, count=4))
    assert [round((b.mono_ns - 10**12) / NS, 2) for b in taken] == [0, 5, 5.33, 5.67]
    assert [b.late_s for b in taken] == [0, 0, 0, 0]
