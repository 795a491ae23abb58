"""Who had a CPU: switches where they reach, samples elsewhere, idle time where neither says otherwise."""

from __future__ import annotations

import random

import pytest

from rogue_hunter.recorder.decode import IDLE, occupancy

S = 1_000_000_000


def test_switches_alone() -> None:
    """The task of a switch had the CPU since the one before."""
    found = occupancy(0, 0, 4 * S, [(0, 1), (1 * S, 7), (3 * S, 0), (4 * S, 8)], [], 1 / 49)
    assert found.by_pid == {7: 1.0, IDLE: 2.0, 8: 1.0} and found.source == "switches"


def test_a_hog_that_still_runs() -> None:
    """It has not left the CPU, so no switch shows it: the samples since the last switch do."""
    samples = [(S + i * S // 50, 7) for i in range(1, 150)]
    found = occupancy(1, 0, 4 * S, [(0, 1), (S // 2, 8), (S, 0)], samples, 1 / 50)
    assert found.by_pid[7] == pytest.approx(2.98) and found.by_pid[8] == 0.5 and found.source == "samples"
    assert sum(found.by_pid.values()) == pytest.approx(4.0)


def test_switches_outside_of_the_stretch_and_none_at_all() -> None:
    """Only what lies within counts; a CPU of which nothing is known was idle or not sampled."""
    found = occupancy(0, 10 * S, 11 * S, [(0, 1), (20 * S, 7)], [], 1 / 49)
    assert found.by_pid == {7: 1.0}
    assert occupancy(0, 0, S, [], [], 1 / 49).by_pid == {IDLE: 1.0}
    assert occupancy(0, S, S, [(0, 1), (2 * S, 7)], [(S, 7)], 1 / 49).seconds == 0.0


def test_the_sum_is_the_stretch() -> None:
    """For any switches and samples the parts add up to the whole, and none is negative."""
    rng = random.Random(3)
    for _ in range(2000):
        end = rng.randint(1, 5 * S)
        switches = sorted((rng.randint(-S, end + S), rng.randint(0, 4)) for _ in range(rng.randint(0, 12)))
        samples = [(rng.randint(-S, end + S), rng.randint(1, 4)) for _ in range(rng.randint(0, 300))]
        found = occupancy(0, 0, end, switches, samples, 1 / 49)
        assert all(seconds >= 0 for seconds in found.by_pid.values())
        assert sum(found.by_pid.values()) == pytest.approx(end / 1e9)
