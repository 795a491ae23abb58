"""The configuration in force, and the stages that follow it when it changes while they run.

A stage that is rebuilt goes on with the next tick: an open event stays open, a beat is not lost. What only the start
can set (the database, the socket, the log) is named to whoever changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rogue_hunter.config.check import toml_value
from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import settings
from rogue_hunter.schema.field import Key
from rogue_hunter.scoring.stage import score
from rogue_hunter.stream.tick import Record, Row, Stage, Tick
from rogue_hunter.tracking.events import Open, Tracker

AT_ONCE = frozenset({"system", "bands", "scoring", "rogue_selection", "tracking", "pause", "budget", "forensics",
                     "reap"})
"""Sections that take effect with the next tick; the others with the next start."""


class Live:
    """What is configured now. `hz` given on a command line stands above the file's; `slowed` divides the beat."""

    def __init__(self, config: Config, hz: float | None = None) -> None:
        self.config = config
        self.slowed = 1
        self.tracker: Tracker | None = None
        """The one that is at work, once there is one."""
        self.recent_slices: Callable[[], list[Record]] = list
        """The slice records in memory."""
        self._given_hz = hz

    @property
    def hz(self) -> float:
        """Beats a second that are asked for."""
        return self._given_hz or self.config.system.hz

    @property
    def rate(self) -> float:
        """Beats a second in force: slowed down when the budget is overdrawn."""
        return self.hz / self.slowed

    def use(self, config: Config) -> tuple[list[str], list[str]]:
        """Take up a configuration: the changes as texts, those in force from the next tick and those from the next
        start."""
        before = {(s.table, s.name): s.value for s in settings(self.config)}
        changes: tuple[list[str], list[str]] = [], []
        for s in settings(config):
            old = before[s.table, s.name]
            if s.value != old:
                change = f"{s.table}.{s.name} {toml_value(old)} -> {toml_value(s.value)}"
                changes[s.table.split(".")[0] not in AT_ONCE].append(change)
        self.config = config
        return changes

    def before(self) -> list[tuple[Row, Mapping[Key, Row]]]:
        """The last ticks of the rogues, oldest first, as the tracker keeps them."""
        return self.tracker.ring.ticks() if self.tracker is not None else []

    def rogues(self, tick: Tick) -> dict[Key, Row]:
        """What the tracker picked of a tick, the highest score first; nothing for a tick that is not its last."""
        if tick.row is None or self.tracker is None or self.tracker.picked[0] is not tick.row:
            return {}
        return self.tracker.picked[1]


def rebuilt(live: Live, make: Callable[[Config], Stage], key: Callable[[Config], Any]) -> Stage:
    """A stage that is made anew when `key` of the configuration changes. Only for stages that give one tick for each
    that they get; the new one is told that every row has changed."""

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        held: list[Tick] = []
        used: Any = object()
        inner: Iterator[Tick] = iter(())
        for tick in ticks:
            if key(live.config) != used:
                used = key(live.config)
                inner = make(live.config)(_given(held))
                tick = Tick(tick.row, tick.processes, set(tick.processes), tick.exited, tick.scored, tick.records)
            held.append(tick)
            yield next(inner)

    return stage


def _given(held: list[Tick]) -> Iterator[Tick]:
    """What was put in, one by one; the stage behind it asks only when there is one."""
    while True:
        yield held.pop()


def scoring(live: Live) -> Stage:
    """The score stage of the configuration in force."""
    return rebuilt(live, score, lambda config: (config.scoring, config.bands))


def tracking(live: Live, restored: Iterable[Open] = ()) -> Stage:
    """The track stage of the configuration in force; open events and the ring are handed on when it changes."""

    def key(config: Config) -> Any:
        return (config.bands_of(config.scoring.model), config.tracking, config.rogue_selection,
                config.system.ring_ticks)

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        tracker: Tracker | None = None
        used: Any = None
        for tick in ticks:
            if tick.row is not None:
                if tracker is None:
                    used = key(live.config)
                    tracker = live.tracker = Tracker(live.config, used[0], restored)
                elif key(live.config) != used:
                    used = key(live.config)
                    tracker = live.tracker = _succeed(
                        tracker, Tracker(live.config, used[0], _living(tracker, tick)), tick)
                tick.records.extend(tracker.update(tick, tick.row))
            yield tick
        last = tracker.stop() if tracker is not None else []
        if last:
            yield Tick(records=last)

    return stage


def _living(tracker: Tracker, tick: Tick) -> list[Open]:
    """The open events whose processes live, taken out of the tracker."""
    return [tracker.open.pop(key) for key in list(tracker.open) if key in tick.processes or tick.partial]


def _succeed(old: Tracker, new: Tracker, tick: Tick) -> Tracker:
    """The new tracker, with the ring of the old one; those whose processes are gone end with the old one's words."""
    for closing, rows in old.ring.ticks():
        new.ring.push(closing, rows)
    if tick.row is not None and old.open:
        tick.records.extend(old.update(Tick(tick.row, tick.processes), tick.row))
    # Its selection begins here too, and has to look at every state once.
    tick.changed = set(tick.processes)
    return new
