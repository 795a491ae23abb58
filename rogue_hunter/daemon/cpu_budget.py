"""Limit of rh-pipe's own CPU usage: the beat slows down when it was exceeded for a minute, and recovers later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from rogue_hunter.config.options import Budget as Settings
from rogue_hunter.config.options import Config
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.tick import Tick


class Budget:
    """The average of the last `over_s` seconds, and by what the beat is divided: 1, 2, 4, ... up to `slowest`."""

    def __init__(self) -> None:
        self.slowed = 1
        self.used_percent: float | None = None
        self._spent: deque[tuple[float, float]] = deque()
        self._cpu_s = 0.0
        self._time_s = 0.0

    def spend(self, settings: Settings, cpu_percent: float, interval_s: float) -> str | None:
        """Account for one interval; the text says what changed, None when nothing did.

        Slows down when the average is above the limit, and goes back when it is below half of it, since twice the
        beats cost at most twice as much. After each change the measurement of `over_s` starts again.
        """
        self._spent.append((cpu_percent * interval_s / 100, interval_s))
        self._cpu_s += self._spent[-1][0]
        self._time_s += interval_s
        while self._time_s - self._spent[0][1] >= settings.over_s:
            cpu_s, time_s = self._spent.popleft()
            self._cpu_s -= cpu_s
            self._time_s -= time_s
        self.used_percent = round(100 * self._cpu_s / self._time_s, 2) if self._time_s > 0 else None
        if self._time_s < settings.over_s or self.used_percent is None:
            return None
        limit = settings.cpu_percent
        if limit and self.used_percent > limit and self.slowed * 2 <= settings.slowest:
            return self._change(self.slowed * 2, limit)
        if self.slowed > 1 and (not limit or self.used_percent < limit / 2):
            return self._change(self.slowed // 2, limit)
        return None

    def _change(self, slowed: int, limit: float) -> str:
        self.slowed, before = slowed, self.slowed
        used = self.used_percent
        self._spent.clear()
        self._cpu_s = self._time_s = 0.0
        verb = "slows down to" if slowed > before else "goes back to"
        part = f"1/{slowed} of its rate" if slowed > 1 else "its full rate"
        return f"used {used:g} % of a core, the budget is {limit:g} %: the beat {verb} {part}"


class CpuBudget:
    """The stage: adds up `self_cpu_percent` and slows the clock down."""

    def __init__(self, settings: Settings, rate: Rate, warn: Callable[[str], object]) -> None:
        self._set, self._rate, self._warn = settings, rate, warn
        self._budget = Budget()

    def configure(self, config: Config) -> None:
        """Use this limit from the next tick on."""
        self._set = config.budget

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged."""
        used = tick.row.get("self_cpu_percent") if tick.row is not None else None
        if tick.row is not None and used is not None:
            changed = self._budget.spend(self._set, used, tick.row["interval_s"])
            self._rate.slowed = self._budget.slowed
            if changed:
                self._warn(changed)
        return tick

    @property
    def used_percent(self) -> float | None:
        """Average CPU usage of rh-pipe, percent of a core."""
        return self._budget.used_percent

    def state(self) -> dict[str, Any]:
        """Limit, use, and by what the beat is divided."""
        return {"budget": {"limit_percent": self._set.cpu_percent, "used_percent": self.used_percent,
                           "slowed": self._rate.slowed}}
