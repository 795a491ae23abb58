"""Conditions put together: all, any, none of them, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rogue_hunter.rules.conditions import Age, Band, Called, Level, Orphan, State, User
from rogue_hunter.rules.subject import NEVER, Held, Node, Subject, Term, Verdict


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of these holds."""

    nodes: tuple[Node, ...]

    def verdict(self, s: Subject) -> Verdict:
        answer: bool | None = True
        due = NEVER
        for node in self.nodes:
            value, when = node.verdict(s)
            if value is False:
                return False, when  # until this one changes, nothing else matters
            if value is None:
                answer = None
            due = min(due, when)
        return answer, due

    def walk(self) -> Iterator[Node]:
        yield self
        for node in self.nodes:
            yield from node.walk()

    def explain(self, s: Subject) -> Iterator[Term]:
        for node in self.nodes:
            yield from node.explain(s)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds."""

    nodes: tuple[Node, ...]

    def verdict(self, s: Subject) -> Verdict:
        answer: bool | None = False
        due = NEVER
        for node in self.nodes:
            value, when = node.verdict(s)
            if value:
                return True, when
            if value is None:
                answer = None
            due = min(due, when)
        return answer, due

    def walk(self) -> Iterator[Node]:
        yield self
        for node in self.nodes:
            yield from node.walk()

    def explain(self, s: Subject) -> Iterator[Term]:
        for node in self.nodes:
            if node.verdict(s)[0]:
                yield from node.explain(s)
                return


@dataclass(frozen=True, slots=True)
class NoneOf:
    """This does not hold."""

    node: Node

    def verdict(self, s: Subject) -> Verdict:
        value, when = self.node.verdict(s)
        return (None if value is None else not value), when

    def walk(self) -> Iterator[Node]:
        yield self
        yield from self.node.walk()

    def explain(self, s: Subject) -> Iterator[Term]:
        return iter(())


def cost(node: Node) -> int:
    """Order in which conditions are asked: what is cheap and often false first, patterns last."""
    kinds: tuple[type, ...] = (Level, State, Band, Age, User, Orphan, Held, AnyOf, NoneOf, AllOf, Called)
    return kinds.index(type(node))
