"""A process as a rule sees it at one moment, and what a condition answers about it.

An answer is true, false or unknown (None), by Kleene's logic: what cannot be known never makes a rule match, not even
under a `not`. With the answer comes the time for which it stands while the process's row stays what it is, so that an
idle process need not be asked again before that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.rules.program import Program, program_of
from rogue_hunter.stream.tick import Row

NEVER = math.inf

Verdict = tuple[bool | None, float]
"""The answer, and the seconds for which it stands at least as long as the row does."""

HELD_SHARE = 0.9
"""Part of a window in which a sustained condition must have held, by measured time. A loop that now and then waits for
a CPU dips below its threshold for single readings of 10 ms resolution; a burst does not fill nine tenths of minutes."""

Term = dict[str, Any]
"""One condition that held: `condition`, `limit`, `value`, `evidence`, and for a sustained one `window_s`, `held_s`."""


class Subject:
    """One process as a rule sees it.

    `held` answers for the sustained conditions, and leaves in `proofs` what proved one (evidence, seconds). With
    `lifetime` numbers are averages over the process's life instead of the last reading. `slack` is the part by which a
    CPU reading may miss its limit (where one short reading checks what a window has proved).
    """

    __slots__ = ("_program", "age_s", "cpus", "held", "lifetime", "orphan", "patterns", "proofs", "row", "rule",
                 "slack")

    def __init__(self, row: Row, age_s: float | None, patterns: Patterns, held: Callable[[Held, Subject], Verdict], *,
                 orphan: bool | None = None, cpus: int = 1, slack: float = 0.0) -> None:
        self.row = row
        self.age_s = age_s
        self.patterns = patterns
        self.held = held
        self.orphan = orphan
        self.cpus = cpus
        self.slack = slack
        self.lifetime = False
        self.rule = ""
        self.proofs: dict[Held, tuple[str, float]] = {}
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        """The names of the process."""
        if self._program is None:
            self._program = program_of(self.row)
        return self._program


class Node(Protocol):
    """A condition."""

    def verdict(self, s: Subject) -> Verdict:
        """Does it hold of `s`?"""
        ...

    def walk(self) -> Iterator[Node]:
        """Itself and everything in it."""
        ...

    def explain(self, s: Subject) -> Iterator[Term]:
        """What held, for people; only asked of a condition that holds."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What is in it held in at least nine tenths of the last `seconds`, and holds now. Compared by object: each has
    its own window for each process."""

    node: Node
    seconds: float

    def verdict(self, s: Subject) -> Verdict:
        return s.held(self, s)

    def walk(self) -> Iterator[Node]:
        yield self
        yield from self.node.walk()

    def explain(self, s: Subject) -> Iterator[Term]:
        proof, held_s = s.proofs.get(self, ("reading", 0.0))
        s.lifetime = proof == "lifetime"
        terms = list(self.node.explain(s))
        s.lifetime = False
        for term in terms:
            yield {**term, "evidence": proof, "window_s": self.seconds, "held_s": round(held_s, 2)}
