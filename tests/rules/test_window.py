"""For how long something held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.rules.logic import Window


def test_what_lasts_counts_from_its_beginning() -> None:
    window = Window()
    assert window.held(100, 50) == 0
    window.note(True, 80)
    assert window.held(100, 50) == 20 and window.held(100, 20) == 20 and window.held(100, 10) == 10
    window.note(True, 95)
    assert window.held(100, 50) == 20
    window.note(False, 100)
    assert window.held(120, 50) == 20 and window.held(140, 50) == 10 and window.held(150, 50) == 0
    window.note(False, 160)
    assert window.held(160, 500) == 0


def test_what_was_before_the_window_is_forgotten() -> None:
    window = Window()
    for begin in range(0, 100, 10):
        window.note(begin % 20 == 0, begin)
    assert len(window.spans) == 5 and window.held(100, 60) == 30
    assert list(window.spans) == [(40, 50), (60, 70), (80, 90)]
    assert window.held(100, 50) == 20 and list(window.spans) == [(60, 70), (80, 90)]


def test_what_held_for_no_time_leaves_nothing() -> None:
    """A condition that flips within one reading: many of them must not add up to memory."""
    window = Window()
    for _ in range(5):
        window.note(True, 10)
        window.note(False, 10)
    window.note(True, 10)
    window.note(False, 9)
    assert not window.spans and window.since is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=30), st.integers(1, 60))
def test_is_what_a_count_by_seconds_says(steps: list[tuple[bool, int]], length: int) -> None:
    window, seconds, now = Window(), [], 0
    for holds, span in steps:
        window.note(holds, now)
        seconds += [holds] * span
        now += span
        assert window.held(now, length) == sum(seconds[-length:])
