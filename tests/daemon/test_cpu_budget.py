"""The budget: slower when it is overdrawn for a minute, said, and back; and the beat at a rate that changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rogue_hunter.config.options import Budget as Settings
from rogue_hunter.config.options import Config
from rogue_hunter.daemon.cpu_budget import Budget, budgeted
from rogue_hunter.daemon.live import Live
from rogue_hunter.stream.clock import NS, Clock
from rogue_hunter.stream.pace import paced
from rogue_hunter.stream.tick import Tick
from tests.tools.ticks import closing


def spend(budget: Budget, settings: Settings, percent: float, seconds: float, step: float = 1 / 3) -> list[str]:
    """Use so much of a core for so long; gives what was said."""
    said = [budget.spend(settings, percent, step) for _ in range(round(seconds / step))]
    return [text for text in said if text]


def test_a_minute_over_the_limit_slows_down_and_a_minute_below_half_of_it_goes_back() -> None:
    """Once each, and both are said."""
    budget, settings = Budget(), Settings()
    assert spend(budget, settings, 5.0, 58) == []
    (said,) = spend(budget, settings, 5.0, 4)
    assert budget.slowed == 2 and "used 5 %" in said and "2 %" in said and "1/2" in said
    # Half of the beats cost half as much; that is over the limit still, so it is halved again.
    (said,) = spend(budget, settings, 2.5, 62)
    assert budget.slowed == 4 and "1/4" in said
    # 1.25 % is below the limit, but twice as many beats would not be.
    assert spend(budget, settings, 1.25, 600) == []
    (said,) = spend(budget, settings, 0.3, 62)
    assert budget.slowed == 2 and "goes back to 1/2" in said
    (said,) = spend(budget, settings, 0.6, 100)
    assert budget.slowed == 1 and "full rate" in said


def test_a_short_peak_changes_nothing() -> None:
    """Ten seconds of 10 % in a quiet minute are 1.7 %."""
    budget, settings = Budget(), Settings()
    for _ in range(10):
        assert spend(budget, settings, 0.0, 50) == []
        assert spend(budget, settings, 10.0, 10) == []
    assert budget.slowed == 1 and budget.used_percent is not None


def test_it_is_not_slowed_down_without_end() -> None:
    """The slowest part is a limit of its own; no limit means never, and lifts what was set."""
    budget, settings = Budget(), Settings(slowest=4)
    spend(budget, settings, 50.0, 600)
    assert budget.slowed == 4
    off = Settings(cpu_percent=0.0)
    assert len(spend(budget, off, 50.0, 200)) == 2
    assert budget.slowed == 1
    assert spend(budget, off, 50.0, 600) == []


def test_what_is_kept_does_not_grow() -> None:
    """A window of a minute at 100 beats a second."""
    budget = Budget()
    spend(budget, Settings(), 1.0, 1000, 0.01)
    assert len(budget._spent) <= 6001
    assert budget.used_percent == pytest.approx(1.0)


def test_the_stage_slows_the_rate_down() -> None:
    """What the closing rows say is what counts; a batch without one is passed on."""
    live, said = Live(Config()), []
    ticks = [Tick(closing(n, 0, self_cpu_percent=6.0)) for n in range(200)]
    ticks.insert(3, Tick(records=[{"type": "error"}]))
    assert list(budgeted(live, Budget(), said.append)(iter(ticks))) == ticks
    assert len(said) == 1 and live.slowed == 2 and live.rate == 1.5


# -- the beat ----------------------------------------------------------------------------------------------------------

class Fake:
    """A clock that moves when somebody sleeps. `at` runs something at a moment."""

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
    fake, rate = Fake(), [1.0]
    fake.at = [(10**12 + 3_050_000_000, lambda: rate.__setitem__(0, 10.0))]
    beats = list(paced(lambda: rate[0], fake.sleep, fake.clock, seconds=4))
    assert [b.seq for b in beats] == list(range(len(beats)))
    assert [round((b.mono_ns - 10**12) / NS, 3) for b in beats[:7]] == [0, 1, 2, 3, 3.1, 3.2, 3.3]
    assert [round(b.interval_s, 3) for b in beats[:7]] == [0, 1, 1, 1, 0.1, 0.1, 0.1]
    assert max(b.late_s for b in beats) < 1e-6
    assert len(beats) == 14


def test_a_rate_that_falls_waits_longer_and_is_not_late() -> None:
    """Slowed down by the budget: a longer interval is no pause."""
    fake, rate = Fake(), [3.0]
    beats = []
    for beat in paced(lambda: rate[0], fake.sleep, fake.clock, seconds=10):
        beats.append(beat)
        if beat.seq == 5:
            rate[0] = 1.5
    assert [round(b.interval_s, 2) for b in beats[5:9]] == [0.33, 0.67, 0.67, 0.67]
    assert max(b.late_s for b in beats) < 1e-6


def test_a_change_hides_no_lateness_and_no_sleep() -> None:
    """The machine stood still, or was suspended, just when the rate changed."""
    fake, rate = Fake(), [1.0]

    def freeze() -> None:
        rate[0] = 2.0
        fake.ns += 5 * NS
        fake.asleep += 7 * NS

    fake.at = [(10**12 + 2_200_000_000, freeze)]
    beats = list(paced(lambda: rate[0], fake.sleep, fake.clock, seconds=9))
    assert [b.seq for b in beats][:4] == [0, 1, 2, 3]
    assert beats[3].interval_s == pytest.approx(5.2) and beats[3].late_s == pytest.approx(4.7)
    assert beats[3].asleep_s == pytest.approx(7.0)
    assert [b.asleep_s for b in beats[4:]] == [0.0] * len(beats[4:])


def test_it_ends_when_told_in_the_midst_of_a_change() -> None:
    """A stop that comes together with another rate is a stop."""
    fake, rate = Fake(), [1.0]

    def stop() -> None:
        rate[0], fake.stopped = 5.0, True

    fake.at = [(10**12 + 1_500_000_000, stop)]
    assert len(list(paced(lambda: rate[0], fake.sleep, fake.clock))) == 2


def test_the_time_is_up_while_waiting_for_the_first_beat_of_a_new_rate() -> None:
    """The end of the run does not wait for a slow beat."""
    fake, rate = Fake(), [1.0]
    fake.at = [(10**12 + 1_500_000_000, lambda: rate.__setitem__(0, 0.1))]
    assert len(list(paced(lambda: rate[0], fake.sleep, fake.clock, seconds=3))) == 2
    assert fake.ns == 10**12 + 3 * NS
