"""Rogue selection: the highest scores, the highest of each category, and who is stuck; the same in every process."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.scoring.stage import Selector
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.ticks import key, row, stream

SETTINGS = Config().rogue_selection


def ticks(rows: Iterable[Iterable[Row]]) -> list[Tick]:
    """Ticks whose `scored` is what a score stage would say."""
    made = list(stream(rows))
    for tick in made:
        tick.scored = {k for k, r in tick.processes.items() if r.get("score")}
    return made


def pids(picked: Iterable[tuple[int, int]]) -> list[int]:
    return [k[0] for k in picked]


def test_highest_scores_first() -> None:
    """The top by score, then by CPU; those at 0 are no rogues."""
    (tick,) = ticks([[row(1, score=10), row(2, score=70), row(3, score=70, cpu_percent=5.0), row(4, score=0), row(5)]])
    assert pids(Selector(SETTINGS).rogues(tick)) == [3, 2, 1]
    assert pids(Selector(replace(SETTINGS, top=1)).rogues(tick)) == [3]
    assert pids(Selector(replace(SETTINGS, top=0)).rogues(tick)) == []


def test_equals_in_a_fixed_order() -> None:
    """Which of many equals is picked does not hang on how a set was filled."""
    rows = [row(pid, score=50, blocking_score=60.0) for pid in range(1, 200)]
    picked = set()
    for seed in range(5):
        (tick,) = ticks([rows])
        shuffled = list(tick.scored)
        random.Random(seed).shuffle(shuffled)
        tick.scored = set()
        for k in shuffled:
            tick.scored.add(k)
        tick.changed = set(shuffled)
        picked.add(tuple(Selector(SETTINGS).rogues(tick)))
    assert len(picked) == 1


def test_categories() -> None:
    """The highest of each category from the minimum on, beside the highest scores."""
    rows = [
        row(1, score=60, blocking_score=10.0),
        row(2, score=5, blocking_score=90.0),
        row(3, score=4, pressure_score=50.0),
        row(4, score=3, pressure_score=49.9),
        row(5, score=2, blocking_score=80.0),
    ]
    (tick,) = ticks([rows])
    assert pids(Selector(replace(SETTINGS, top=1)).rogues(tick)) == [1, 2, 5, 3]
    assert pids(Selector(replace(SETTINGS, top=1, per_category=1)).rogues(tick)) == [1, 2, 3]


def test_states() -> None:
    """Defunct and stuck processes are selected at any score while they are in that state, at most five of each."""
    stuck = [row(pid, state="uninterruptible") for pid in range(1, 8)]
    awake, dead = [row(1)], [row(20, state="defunct")]
    selector = Selector(SETTINGS)
    a, b, c = ticks([[*stuck, *dead], [*awake, *stuck[1:], *dead], [*awake]])
    assert pids(selector.rogues(a)) == [20, 1, 2, 3, 4, 5]
    assert pids(selector.rogues(b)) == [20, 2, 3, 4, 5, 6]
    assert pids(selector.rogues(c)) == []
    assert pids(Selector(replace(SETTINGS, states=())).rogues(a)) == []


def test_only_what_changed_is_looked_at() -> None:
    """A process that stays stuck without a new row stays selected."""
    stuck = row(1, state="uninterruptible")
    selector = Selector(SETTINGS)
    for tick in ticks([[stuck]] * 3):
        assert pids(selector.rogues(tick)) == [1]
    assert tick.changed == set()


def test_rows_are_shared() -> None:
    """What is picked are the rows of the tick, not copies."""
    made = row(1, score=50)
    (tick,) = ticks([[made]])
    assert Selector(SETTINGS).rogues(tick)[key(made)] is made


def test_of_equal_scores_the_one_that_runs_comes_first() -> None:
    """By CPU, which counts as 0 where it is unknown; then by identity, the latest first."""
    (tick,) = ticks([[row(1, score=70, cpu_percent=5.0), row(2, score=70, cpu_percent=0.5), row(3, score=70),
                      row(4, score=70, cpu_percent=None), row(5, score=70, cpu_percent=0.0)]])
    assert pids(Selector(SETTINGS).rogues(tick)) == [1, 2, 5, 4, 3]


@pytest.mark.parametrize("minimum", [0.0, 0.5])
def test_rows_without_categories_have_no_picks_by_category(minimum: float) -> None:
    """The share model has no categories; a low minimum picks those that have one and no others."""
    (tick,) = ticks([[row(1, score=70), row(2, score=50), row(3, score=5, blocking_score=0.5), row(4, score=1)]])
    assert pids(Selector(replace(SETTINGS, top=1, category_minimum=minimum)).rogues(tick)) == [1, 3]
