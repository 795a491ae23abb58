"""A process as a rule sees it, and conditions on one of its properties: a number, state, user, age, parent, name.

An answer is true, false or unknown (None), by Kleene's logic. A condition on something that is not in the row is
unknown, and what is unknown never makes a rule match, not even under a `not`. With the answer comes the time for which
it is valid while the row stays the same, so an idle process is not evaluated again before that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rogue_hunter.rules.patterns import Patterns, PatternSet, Program, program_of, with_subcommand
from rogue_hunter.schema.field import BANDS
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.redact import MASK

NEVER = math.inf

Verdict = tuple[bool | None, float]
"""The answer, and the seconds for which it is valid at least as long as the row is."""

Term = dict[str, Any]
"""One condition that held: `condition`, `limit`, `value`, `evidence`, and for a lasting one `window_s`, `held_s`."""


class Subject:
    """One process as a rule sees it.

    `age_s` is in seconds, None if unknown; `orphan` says whether its parent exited, None if unknown; `cpus` is the
    number of CPUs. `held` answers for lasting conditions, and leaves in `proofs` what proved one (evidence, seconds).
    `program` has its names where they are known better than from the row. `final`: the answer is acted on as it is, and
    what a mask over a secret hides is unknown; of what ends a process it is proven with the arguments as they are.

    With `lifetime` numbers are averages over the process's life instead of the last reading. `slack` is the part by
    which a CPU reading may miss its limit (where one short reading checks what a window has proved).
    """

    __slots__ = ("_program", "age_s", "cpus", "final", "held", "lifetime", "orphan", "patterns", "proofs", "row",
                 "rule", "slack")

    def __init__(self, row: Row, age_s: float | None, patterns: Patterns, held: Callable[[Held, Subject], Verdict], *,
                 orphan: bool | None = None, cpus: int = 1, slack: float = 0.0, program: Program | None = None) -> None:
        self.row = row
        self.age_s = age_s
        self.patterns = patterns
        self.held = held
        self.orphan = orphan
        self.cpus = cpus
        self.slack = slack
        self.lifetime = False
        self.rule = ""
        self.final = False
        self.proofs: dict[Held, tuple[str, float]] = {}
        self._program = program

    @property
    def program(self) -> Program:
        """The names of the process."""
        if self._program is None:
            self._program = program_of(self.row)
        return self._program


class Node(ABC):
    """A condition."""

    __slots__ = ()

    @abstractmethod
    def verdict(self, s: Subject) -> Verdict:
        """Does it hold of `s`?"""

    def walk(self) -> Iterator[Node]:
        """Itself and everything in it."""
        yield self

    def unknown(self, s: Subject) -> str:
        """Why the answer is unknown, in words; only meaningful where it is."""
        return f"its {self._subject()} is not known"

    @abstractmethod
    def explain(self, s: Subject) -> Iterator[Term]:
        """What held, for people; only for a condition that holds."""

    def _subject(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Held(Node):
    """The condition in it held in at least nine tenths of the last `seconds`, and holds now. Compared by object: each
    has its own window for each process."""

    node: Node
    seconds: float

    def verdict(self, s: Subject) -> Verdict:
        return s.held(self, s)

    def walk(self) -> Iterator[Node]:
        yield self
        yield from self.node.walk()

    def unknown(self, s: Subject) -> str:
        return self.node.unknown(s)

    def explain(self, s: Subject) -> Iterator[Term]:
        proof, held_s = s.proofs.get(self, ("reading", 0.0))
        s.lifetime = proof == "lifetime"
        terms = list(self.node.explain(s))
        s.lifetime = False
        for term in terms:
            yield {**term, "evidence": proof, "window_s": self.seconds, "held_s": round(held_s, 2)}


_QUANTITIES = {"cpu_percent": "CPU use", "memory_bytes": "memory use", "disk_bytes_per_s": "disk use",
               "gpu_ms_per_s": "GPU use", "wakeups_per_s": "wakeup rate"}


@dataclass(frozen=True, slots=True)
class Level(Node):
    """A number of the process record against a limit. `totals` are the counters from which its average over the
    process's life is made, times `total_scale`; without them there is no such average."""

    name: str
    limit: float
    field: str
    scale: float
    at_least: bool = True
    totals: tuple[str, ...] = ()
    total_scale: float = 1.0

    def value(self, s: Subject) -> float | None:
        """The number, in the unit of the limit."""
        if s.lifetime:
            return self._average(s)
        reading = s.row.get(self.field)
        return None if reading is None else reading * self.scale

    def verdict(self, s: Subject) -> Verdict:
        value = self.value(s)
        if value is None:
            return None, NEVER
        slack = s.slack if self.field == "cpu_percent" else 0.0
        if self.at_least:
            return value >= self.limit * (1 - slack), NEVER
        if value <= self.limit + 100 * slack:
            return True, NEVER
        if not s.lifetime or s.age_s is None or self.limit == 0:
            return False, NEVER
        return False, s.age_s * (value / self.limit - 1)  # the average of a process that does nothing falls with age

    def _subject(self) -> str:
        return _QUANTITIES.get(self.field, self.field)

    def _average(self, s: Subject) -> float | None:
        if not self.totals or s.age_s is None or s.age_s <= 0:
            return None
        total = 0.0
        for name in self.totals:
            if name not in s.row:
                return None
            total += s.row[name]
        average = total * self.total_scale / s.age_s
        if self.at_least and self.field == "cpu_percent":
            # Four threads can do in a minute what one does in four: a burst. Only if all of them were busy all the
            # time does their sum prove that the process was.
            if "threads" not in s.row:
                return None
            average /= max(1, min(s.row["threads"], s.cpus))
        return average

    def explain(self, s: Subject) -> Iterator[Term]:
        value = self.value(s)
        yield {"condition": self.name, "limit": self.limit, "value": None if value is None else round(value, 2),
               "evidence": "lifetime" if s.lifetime else "reading"}


@dataclass(frozen=True, slots=True)
class Written(Node):
    """Megabytes written a day of its life, of which at least one day counts: so macOS limits the writes of 24 hours."""

    limit: float

    def value(self, s: Subject) -> float | None:
        """The number, in the unit of the limit."""
        total = s.row.get("disk_write_bytes_total")
        return None if total is None or s.age_s is None else total / 1e6 / max(1.0, s.age_s / 86400)

    def verdict(self, s: Subject) -> Verdict:
        value = self.value(s)
        if value is None or value < self.limit:
            return (None if value is None else False), NEVER
        # The average of a process that writes nothing falls with its age.
        return True, max(0.0, s.row["disk_write_bytes_total"] / 1e6 / self.limit * 86400 - (s.age_s or 0.0))

    def _subject(self) -> str:
        return "disk use"

    def explain(self, s: Subject) -> Iterator[Term]:
        value = self.value(s)
        yield {"condition": "written_mb_per_day_min", "limit": self.limit,
               "value": None if value is None else round(value, 2), "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class Band(Node):
    """The score's band is this one or a higher."""

    limit: str

    def verdict(self, s: Subject) -> Verdict:
        band = None if s.lifetime else s.row.get("band")
        return (None if band not in BANDS else BANDS.index(band) >= BANDS.index(self.limit)), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "band_min", "limit": self.limit, "value": s.row.get("band"), "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class State(Node):
    """The state is one of these."""

    states: tuple[str, ...]

    def verdict(self, s: Subject) -> Verdict:
        state = None if s.lifetime else s.row.get("state")
        return (None if state is None else state in self.states), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "state", "limit": ",".join(self.states), "value": s.row.get("state"), "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class User(Node):
    """The user is one of these, by name or by number."""

    users: tuple[str, ...]

    def verdict(self, s: Subject) -> Verdict:
        uid, name = s.row.get("uid"), s.row.get("user")
        if (name is not None and name in self.users) or (uid is not None and str(uid) in self.users):
            return True, NEVER
        # An id that has no name may still be one of the names of `users` on the machine that the row comes from.
        known = (uid is not None or not any(u.isdigit() for u in self.users)) and (
            name is not None or all(u.isdigit() for u in self.users))
        return (False if known else None), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "user", "limit": ",".join(self.users), "value": s.row.get("user", s.row.get("uid")),
               "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class Age(Node):
    """The process is at least this old. `name` and `unit_s` are the words that the file used."""

    seconds: float
    name: str
    unit_s: float

    def verdict(self, s: Subject) -> Verdict:
        if s.age_s is None:
            return None, NEVER
        return (True, NEVER) if s.age_s >= self.seconds else (False, self.seconds - s.age_s)

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": self.name, "limit": self.seconds / self.unit_s,
               "value": None if s.age_s is None else round(s.age_s / self.unit_s, 2), "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class Orphan(Node):
    """The parent exited, or did not."""

    wanted: bool

    def unknown(self, s: Subject) -> str:
        return "it is not known whether its parent exited"

    def verdict(self, s: Subject) -> Verdict:
        return (None if s.orphan is None else s.orphan == self.wanted), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "orphan", "limit": self.wanted, "value": s.orphan, "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class Called(Node):
    """Patterns that must hit the process's names or command line; with `excluded`, that must not. Then the program with
    its subcommand counts as a name too: `^cargo build$` also excludes a build with options."""

    name: str
    patterns: PatternSet
    excluded: bool

    def verdict(self, s: Subject) -> Verdict:
        program = with_subcommand(s.program) if self.excluded else s.program
        hit = s.patterns.hits(s.rule, self.patterns, program)
        if hit is False and s.final and MASK in (program.line or "") and not self.patterns.names_only:
            hit = None
        return (None if hit is None else hit != self.excluded), NEVER

    def unknown(self, s: Subject) -> str:
        if s.rule in s.patterns.disabled:
            return s.patterns.disabled[s.rule]
        if s.final and MASK in (s.program.line or ""):
            return "a secret in its arguments is masked"
        return s.program.names_unread or s.program.line_unread or "patterns are searched on the main thread only"

    def explain(self, s: Subject) -> Iterator[Term]:
        if not self.excluded:
            # It hit within the budget a moment ago, and the search is repeated in the same order now.
            yield {"condition": self.name, "limit": self.patterns.first(s.program), "value": s.program.line,
                   "evidence": "reading"}
