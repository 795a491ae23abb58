"""Rows that are kept from tick to tick: made only where something may have changed, in the order of the host."""

from __future__ import annotations

import random

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.pipeline import RowMap
from rogue_hunter.stream.tick import Row


class Made:
    """Makes rows, and notes for which processes."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def __call__(self, key: Key, row: Row) -> Row:
        self.keys.append(key)
        return {**row, "twice": 2 * row["value"]}


def rows(**values: int) -> dict[Key, Row]:
    return {(ord(name), 1): {"value": value} for name, value in values.items()}


A, B, C, D = ((ord(name), 1) for name in "abcd")


def test_only_new_and_dirty_rows_are_made() -> None:
    kept, made = RowMap(), Made()
    assert kept.update(rows(a=1, b=2), (), (), made) == {A, B}
    first = kept.rows
    assert kept.update(rows(a=1, b=2), {B}, (), made) == set()
    assert kept.rows is first, "what is equal is the same object"
    assert kept.update(rows(a=1, b=3, c=4), {B}, (), made) == {B, C}
    assert made.keys == [A, B, B, C, B]
    assert list(kept.rows) == [A, B, C]
    assert kept.rows[A] is first[A]
    assert first == {A: {"value": 1, "twice": 2}, B: {"value": 2, "twice": 4}}, "what was handed out does not change"


def test_rows_that_are_gone_are_removed() -> None:
    kept, made = RowMap(), Made()
    kept.update(rows(a=1, b=2, c=3), (), (), made)
    before = kept.rows
    assert kept.update(rows(a=1, c=3, d=4), (), [B, (9, 9)], made) == {D}
    assert list(kept.rows) == [A, C, D]
    assert list(before) == [A, B, C]


def test_another_order_is_followed() -> None:
    kept, made = RowMap(), Made()
    kept.update(rows(b=2, c=3), (), (), made)
    assert kept.update(rows(a=1, b=2, c=3), (), (), made) == {A}
    assert list(kept.rows) == [A, B, C]


def test_every_row_can_be_made_again() -> None:
    """Equal ones stay the same objects."""
    kept, made = RowMap(), Made()
    kept.update(rows(a=1, b=2), (), (), made)
    before = dict(kept.rows)
    assert kept.update(rows(b=5, a=1), (), (), made, every=True) == {B}
    assert list(kept.rows) == [B, A]
    assert kept.rows[A] is before[A]


def test_appended_rows_come_last_until_they_are_gone() -> None:
    kept, made = RowMap(), Made()
    kept.update(rows(a=1), (), (), made)
    kept.append({B: {"ended": True}})
    assert list(kept.rows) == [A, B]
    assert kept.update(rows(a=1, c=3), (), [B], made) == {C}
    assert list(kept.rows) == [A, C]


def test_it_equals_making_all_rows_in_each_tick() -> None:
    """For any machine: processes start, at the end of the list or before it, end and change."""
    random.seed(5)
    kept, now = RowMap(), dict[Key, Row]()
    seq = 0
    for _ in range(500):
        gone = [key for key in now if random.random() < 0.1]
        for key in gone:
            del now[key]
        dirty = {key for key in now if random.random() < 0.3}
        for key in dirty:
            now[key] = {"value": random.randrange(3)}
        for _ in range(random.randrange(3)):
            seq += 1
            now = {(seq, 1): {"value": 1}, **now} if random.random() < 0.2 else {**now, (seq, 1): {"value": 1}}
        before = kept.rows
        changed = kept.update(now, dirty, gone, Made(), every=random.random() < 0.1)
        assert list(kept.rows.items()) == [(key, Made()(key, row)) for key, row in now.items()]
        assert changed == {key for key, row in kept.rows.items() if before.get(key) is not row}
