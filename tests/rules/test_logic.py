"""Conditions put together, by Kleene's logic, and for how long the answer stands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rogue_hunter.rules.conditions import (
    NEVER,
    Age,
    Band,
    Called,
    Held,
    Level,
    Node,
    Orphan,
    State,
    Subject,
    Term,
    User,
    Verdict,
    Written,
)
from rogue_hunter.rules.logic import AllOf, AnyOf, NoneOf, cost
from rogue_hunter.rules.patterns import Patterns, PatternSet


@dataclass(frozen=True)
class Said:
    """A condition that says this, for so long."""

    value: bool | None
    stands: float = NEVER
    word: str = "x"

    def verdict(self, s: Subject) -> Verdict:
        return self.value, self.stands

    def walk(self) -> Iterator[Node]:
        yield self

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": self.word, "limit": 1, "value": 2, "evidence": "lifetime" if s.lifetime else "reading"}


def subject(held: Any = None) -> Subject:
    return Subject({}, None, Patterns(), held or (lambda node, s: (None, NEVER)))


YES, NO, UNKNOWN = True, False, None


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_truth_tables(size: int) -> None:
    """Unknown is either: an answer that depends on it is unknown too."""
    for values in itertools.product((YES, NO, UNKNOWN), repeat=size):
        nodes = tuple(Said(v) for v in values)
        possible = [tuple(bool(v) if v is not None else guess for v, guess in zip(values, guesses, strict=True))
                    for guesses in itertools.product((True, False), repeat=size)]
        for kind, function in ((AllOf, all), (AnyOf, any)):
            outcomes = {function(p) for p in possible}
            expected = outcomes.pop() if len(outcomes) == 1 else None
            assert kind(nodes).verdict(subject())[0] is expected, (kind, values)
    for value, opposite in ((YES, NO), (NO, YES), (UNKNOWN, UNKNOWN)):
        assert NoneOf(Said(value)).verdict(subject())[0] is opposite


def test_nothing_at_all_holds_of_everything_and_is_in_nothing() -> None:
    assert AllOf(()).verdict(subject()) == (True, NEVER) and AnyOf(()).verdict(subject()) == (False, NEVER)


class TestHowLongItStands:
    def test_all_stand_until_the_first_changes(self) -> None:
        assert AllOf((Said(YES, 9.0), Said(YES, 5.0), Said(YES, 7.0))).verdict(subject()) == (True, 5.0)
        assert AllOf((Said(YES, 9.0), Said(UNKNOWN, 5.0))).verdict(subject()) == (None, 5.0)

    def test_one_that_does_not_hold_decides_alone(self) -> None:
        assert AllOf((Said(YES, 1.0), Said(NO, 50.0), Said(NO, 2.0))).verdict(subject()) == (False, 50.0)

    def test_none_holds_until_the_first_does(self) -> None:
        assert AnyOf((Said(NO, 9.0), Said(NO, 5.0), Said(UNKNOWN, 7.0))).verdict(subject()) == (None, 5.0)
        assert AnyOf((Said(NO, 3.0), Said(NO, 5.0))).verdict(subject()) == (False, 3.0)

    def test_one_that_holds_decides_alone(self) -> None:
        assert AnyOf((Said(NO, 1.0), Said(YES, 50.0), Said(YES, 2.0))).verdict(subject()) == (True, 50.0)

    def test_the_opposite_stands_as_long(self) -> None:
        assert NoneOf(Said(NO, 4.0)).verdict(subject()) == (True, 4.0)
        assert NoneOf(Said(UNKNOWN, 4.0)).verdict(subject()) == (None, 4.0)


def test_walking_is_itself_and_everything_in_it_in_order() -> None:
    a, b, c = Said(YES, word="a"), Said(NO, word="b"), Said(YES, word="c")
    held, none, anyof = Held(a, 5.0), NoneOf(b), AnyOf((c, a))
    both = AllOf((held, none, anyof))
    assert list(both.walk()) == [both, held, a, none, b, anyof, c, a]


class TestExplaining:
    @staticmethod
    def words(node: Any, s: Subject | None = None) -> list[str]:
        return [term["condition"] for term in node.explain(s or subject())]

    def test_all_of_them_the_first_of_some_and_nothing_of_what_is_not(self) -> None:
        a, b, c = Said(YES, word="a"), Said(NO, word="b"), Said(YES, word="c")
        assert self.words(AllOf((a, c))) == ["a", "c"]
        assert self.words(AnyOf((b, a, c))) == ["a"]
        assert self.words(AnyOf((b, Said(UNKNOWN)))) == []
        assert self.words(NoneOf(b)) == []
        assert self.words(AllOf((a, NoneOf(b), AnyOf((b, c))))) == ["a", "c"]

    @pytest.mark.parametrize("proof", ["window", "lifetime"])
    def test_for_how_long_and_by_which_proof(self, proof: str) -> None:
        node, s = Held(AllOf((Said(YES, word="a"), Said(YES, word="b"))), 300.0), subject()
        s.proofs[node] = proof, 271.23456
        assert list(node.explain(s)) == [
            {"condition": word, "limit": 1, "value": 2, "evidence": proof, "window_s": 300.0, "held_s": 271.23}
            for word in "ab"]
        assert s.lifetime is False

    def test_numbers_of_a_life_are_shown_where_they_are_the_proof_and_not_after(self) -> None:
        seen: list[bool] = []

        class Asked(Said):
            def explain(self, s: Subject) -> Iterator[Term]:
                seen.append(s.lifetime)
                return super().explain(s)

        proved, s = Held(Asked(YES), 5.0), subject()
        s.proofs[proved] = "lifetime", 9.0
        list(AllOf((proved, Asked(YES), Held(Asked(YES), 5.0))).explain(s))
        assert seen == [True, False, False]

    def test_without_a_proof_it_is_the_reading(self) -> None:
        (term,) = Held(Said(YES), 300.0).explain(subject())
        assert (term["evidence"], term["held_s"]) == ("reading", 0.0)


def test_held_is_asked_of_who_keeps_the_windows() -> None:
    asked: list[tuple[Node, Subject]] = []

    def held(node: Node, s: Subject) -> Verdict:
        asked.append((node, s))
        return True, 7.0

    node, s = Held(Said(NO), 5.0), subject(held)
    assert node.verdict(s) == (True, 7.0) and asked == [(node, s)]
    assert node != Held(Said(NO), 5.0)


def test_what_is_cheap_and_often_false_is_asked_first_and_patterns_last() -> None:
    nodes: list[Node] = [
        Level("x", 1.0, "score", 1.0), Written(1.0), State(("running",)), Band("high"), Age(1.0, "age_seconds", 1.0),
        User(("u",)), Orphan(True), Held(Said(YES), 1.0), AnyOf(()), NoneOf(Said(YES)), AllOf(()), Called("x", PatternSet(()), False)]
    assert [cost(node) for node in nodes] == list(range(12))
