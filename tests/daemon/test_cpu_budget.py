"""The budget: slower when it was exceeded for a minute, with a warning, and back."""

from __future__ import annotations

import pytest

from rogue_hunter.config.options import Budget as Settings
from rogue_hunter.config.options import Config
from rogue_hunter.daemon.services import Budget, CpuBudget
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.tick import Tick
from tests.tools.ticks import closing


def spend(budget: Budget, settings: Settings, percent: float, seconds: float, step: float = 1 / 3) -> list[str]:
    """Use so much of a core for so long; returns the messages."""
    said = [budget.spend(settings, percent, step) for _ in range(round(seconds / step))]
    return [text for text in said if text]


def test_a_minute_over_the_limit_slows_down_and_a_minute_below_half_of_it_goes_back() -> None:
    """Once each, with a message for both."""
    budget, settings = Budget(), Settings(cpu_percent=2.0)
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
    """Ten seconds of 25 % in a quiet minute are 4.2 %."""
    budget, settings = Budget(), Settings()
    for _ in range(10):
        assert spend(budget, settings, 0.0, 50) == []
        assert spend(budget, settings, 25.0, 10) == []
    assert budget.slowed == 1 and budget.used_percent is not None


def test_the_usual_cost_changes_nothing() -> None:
    """Where caches are cold after each wait, as in many virtual machines, 1,000 idle processes cost 10 ms a beat, or 3 %."""
    budget = Budget()
    assert spend(budget, Settings(), 3.0, 600) == [] and budget.slowed == 1


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
    rate, said = Rate(3.0), []
    ticks = [Tick(closing(n, 0, self_cpu_percent=6.0)) for n in range(200)]
    ticks.insert(3, Tick(records=[{"type": "error"}]))
    stage = CpuBudget(Settings(), rate, said.append)
    assert [stage(tick) for tick in ticks] == ticks
    assert len(said) == 1 and (rate.slowed, rate.period_ns) == (2, 666_666_666)
    assert stage.state() == {"budget": {"limit_percent": 5.0, "used_percent": 6.0, "slowed": 2}}
    stage.configure(Config(budget=Settings(cpu_percent=0.0)))
    for tick in ticks:
        stage(tick)
    assert rate.slowed == 1
