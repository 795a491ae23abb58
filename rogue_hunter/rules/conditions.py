"""What can be asked about a process: a number, its state, user, age, parent, name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rogue_hunter.rules.patterns import PatternSet
from rogue_hunter.rules.program import with_subcommand
from rogue_hunter.rules.subject import NEVER, Subject, Term, Verdict
from rogue_hunter.schema.field import BANDS


class _Leaf:
    __slots__ = ()

    def walk(self) -> Iterator[Any]:
        yield self


@dataclass(frozen=True, slots=True)
class Level(_Leaf):
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
            # time is their sum a proof that the process was.
            average /= max(1, min(s.row.get("threads", 1), s.cpus))
        return average

    def explain(self, s: Subject) -> Iterator[Term]:
        value = self.value(s)
        yield {"condition": self.name, "limit": self.limit, "value": None if value is None else round(value, 2),
               "evidence": "lifetime" if s.lifetime else "reading"}


@dataclass(frozen=True, slots=True)
class Band(_Leaf):
    """The score's band is this one or a higher."""

    limit: str

    def verdict(self, s: Subject) -> Verdict:
        band = None if s.lifetime else s.row.get("band")
        return (None if band not in BANDS else BANDS.index(band) >= BANDS.index(self.limit)), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "band_min", "limit": self.limit, "value": s.row.get("band"), "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class State(_Leaf):
    """The state is one of these."""

    states: tuple[str, ...]

    def verdict(self, s: Subject) -> Verdict:
        state = None if s.lifetime else s.row.get("state")
        return (None if state is None else state in self.states), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "state", "limit": ",".join(self.states), "value": s.row.get("state"), "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class User(_Leaf):
    """The user is one of these, by name or number."""

    users: tuple[str, ...]

    def verdict(self, s: Subject) -> Verdict:
        known = [str(s.row[name]) for name in ("user", "uid") if name in s.row]
        return (any(name in self.users for name in known) if known else None), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "user", "limit": ",".join(self.users), "value": s.row.get("user", s.row.get("uid")),
               "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class Age(_Leaf):
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
class Orphan(_Leaf):
    """The parent died, or did not."""

    wanted: bool

    def verdict(self, s: Subject) -> Verdict:
        return (None if s.orphan is None else s.orphan == self.wanted), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        yield {"condition": "orphan", "limit": self.wanted, "value": s.orphan, "evidence": "reading"}


@dataclass(frozen=True, slots=True)
class Called(_Leaf):
    """Patterns that must hit the process's names or command line; with `excluded`, that must not, and then the
    program with its subcommand counts as a name too: who excludes `^cargo build$` means the build with options."""

    name: str
    patterns: PatternSet
    excluded: bool

    def verdict(self, s: Subject) -> Verdict:
        program = with_subcommand(s.program) if self.excluded else s.program
        hit = s.patterns.hits(s.rule, self.patterns, program)
        return (None if hit is None else hit != self.excluded), NEVER

    def explain(self, s: Subject) -> Iterator[Term]:
        if not self.excluded:
            # It hit within its budget a moment ago, and looks for the same in the same order now.
            yield {"condition": self.name, "limit": self.patterns.first(s.program), "value": s.program.line,
                   "evidence": "reading"}
