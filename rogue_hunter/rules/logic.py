"""Conditions combined, conditions that last, the decision of a rule, and its reason in words."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

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
from rogue_hunter.rules.patterns import described, whitelisted
from rogue_hunter.text.format import duration

HELD_SHARE = 0.9
"""Part of a window in which a lasting condition must have held, by measured time. A loop that sometimes waits for a
CPU dips below its threshold for single readings of 10 ms resolution; a burst does not fill nine tenths of minutes."""

NS = 1e9
"""Nanoseconds of a second."""


@dataclass(frozen=True, slots=True)
class _Several(Node):
    """Conditions of which one can decide: `ends` is the answer of one that is the answer of all."""

    nodes: tuple[Node, ...]
    ends: ClassVar[bool]

    def verdict(self, s: Subject) -> Verdict:
        ends = self.ends
        answer: bool | None = not ends
        due = NEVER
        for node in self.nodes:
            value, when = node.verdict(s)
            if value is ends:
                return ends, when  # until this one changes, nothing else matters
            if value is None:
                answer = None
            due = min(due, when)
        return answer, due

    def walk(self) -> Iterator[Node]:
        yield self
        for node in self.nodes:
            yield from node.walk()

    def unknown(self, s: Subject) -> str:
        return next((node.unknown(s) for node in self.nodes if node.verdict(s)[0] is None), "")


class AllOf(_Several):
    """Every one of these holds."""

    __slots__ = ()
    ends = False

    def explain(self, s: Subject) -> Iterator[Term]:
        for node in self.nodes:
            yield from node.explain(s)


class AnyOf(_Several):
    """At least one of these holds."""

    __slots__ = ()
    ends = True

    def explain(self, s: Subject) -> Iterator[Term]:
        for node in self.nodes:
            if node.verdict(s)[0]:
                yield from node.explain(s)
                return


@dataclass(frozen=True, slots=True)
class NoneOf(Node):
    """This does not hold."""

    node: Node

    def verdict(self, s: Subject) -> Verdict:
        value, when = self.node.verdict(s)
        return (None if value is None else not value), when

    def walk(self) -> Iterator[Node]:
        yield self
        yield from self.node.walk()

    def unknown(self, s: Subject) -> str:
        return self.node.unknown(s)

    def explain(self, s: Subject) -> Iterator[Term]:
        return iter(())


def names_needed(condition: Node) -> tuple[Called, ...]:
    """The patterns of which each must hit for the condition to hold."""
    if isinstance(condition, Called):
        return () if condition.excluded else (condition,)
    nodes = condition.nodes if isinstance(condition, AllOf) else ()
    return tuple(each for node in nodes for each in names_needed(node))


def cost(node: Node) -> int:
    """Order of evaluation: conditions that are cheap and often false first, patterns last."""
    kinds: tuple[type, ...] = (Level, Written, State, Band, Age, User, Orphan, Held, AnyOf, NoneOf, AllOf, Called)
    return kinds.index(type(node))


# -- conditions that last ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Window:
    """When a lasting condition held of one process: spans of a clock in ns, None before the first ended (an empty
    deque is 0.6 KB, and an idle process has been idle since it was first seen). `since` is the start of the span that
    has not ended."""

    spans: deque[tuple[int, int]] | None = None
    since: int | None = None

    def note(self, holds: bool, begin: int) -> None:
        """From `begin` on (the start of the interval of a reading) the condition holds, or does not."""
        if holds and self.since is None:
            self.since = begin
        elif not holds and self.since is not None:
            if begin > self.since:
                self.spans = self.spans or deque()
                self.spans.append((self.since, begin))
            self.since = None

    def interrupt(self, end: int, begin: int) -> None:
        """Nothing is known from `end` to `begin`: that time counts as not held."""
        if self.since is not None:
            self.note(False, end)
            self.note(True, begin)

    def held(self, now: int, length: int) -> int:
        """For how long of the last `length` it held, ns."""
        cut = now - length
        while self.spans and self.spans[0][1] <= cut:
            self.spans.popleft()
        total = sum(end - max(begin, cut) for begin, end in self.spans or ())
        return total + (now - max(self.since, cut) if self.since is not None else 0)


class Lasting:
    """Answers for the lasting conditions of one process at one reading.

    `windows` belongs to the process and is kept from reading to reading. `now` and `began` are times of one clock, ns:
    of the reading, and of the beginning of the stream. With `lifetime`, a window that is longer than the stream may be
    proved by the average over the process's life.
    """

    __slots__ = ("_began", "_lifetime", "_now", "_values", "_windows")

    def __init__(self, windows: dict[Held, Window], now: int, began: int, *, lifetime: bool) -> None:
        self._windows = windows
        self._now, self._began, self._lifetime = now, began, lifetime
        self._values: dict[Held, Verdict] = {}

    def note(self, conditions: Iterable[tuple[str, Held]], s: Subject, begin: int) -> None:
        """Evaluate the lasting conditions (rule name, condition) and note that they hold, or not, since `begin`."""
        for rule, node in conditions:
            s.rule = rule
            self._values[node] = value, _ = node.node.verdict(s)
            window = self._windows.get(node)
            if window is None:
                if not value:
                    continue
                window = self._windows[node] = Window()
            window.note(value is True, begin)

    def __call__(self, node: Held, s: Subject) -> Verdict:
        """Has the condition held for long enough?"""
        value, valid_s = self._values[node]
        if not value:
            return value, valid_s
        length = int(node.seconds * NS)
        has, needs = self._windows[node].held(self._now, length), int(HELD_SHARE * length)
        if has >= needs:
            s.proofs[node] = "window", has / NS
            return True, valid_s
        wait = min(valid_s, (needs - has) / NS)
        if self._lifetime and self._now - self._began < length and s.age_s is not None:
            if s.age_s < node.seconds:
                return False, min(wait, node.seconds - s.age_s)
            s.lifetime = True
            value, valid_s = node.node.verdict(s)
            s.lifetime = False
            if value:
                s.proofs[node] = "lifetime", s.age_s
                return True, wait
            wait = min(wait, valid_s)
        return False, wait


def lasted(seconds: float) -> Callable[[Held, Subject], Verdict]:
    """Answers for lasting conditions where it is given that what holds now has held for `seconds`."""

    def held(node: Held, s: Subject) -> Verdict:
        value, valid_s = node.node.verdict(s)
        return (False, NEVER) if value and seconds < HELD_SHARE * node.seconds else (value, valid_s)

    return held


# -- the decision ------------------------------------------------------------------------------------------------------


def decide(condition: Node, s: Subject, whitelist: Collection[str]) -> Verdict:
    """Does a rule with this condition match? True only if the condition is proven true, the arguments of the process
    have been read and no entry of the whitelist can be one of its names."""
    value, valid_s = condition.verdict(s)
    if value:
        listed = whitelisted(s.program, whitelist)
        value = False if listed else None if listed is None or not described(s.row) else True
    return value, valid_s


def unknown(condition: Node, s: Subject) -> str:
    """Why `decide` has no answer, in words."""
    if condition.verdict(s)[0] is None:
        return condition.unknown(s)
    return s.program.names_unread or s.program.line_unread


# -- the reason --------------------------------------------------------------------------------------------------------


def evidence(terms: list[Term]) -> str:
    """The weakest proof among the lasting conditions; `reading` if there are none."""
    kinds = {term["evidence"] for term in terms}
    return "lifetime" if "lifetime" in kinds else "window" if "window" in kinds else "reading"


def reason(terms: list[Term], age_s: float | None) -> str:
    """The conditions that held, in words: `cpu 99.9 % for 5m 00s; age 5h 12m`."""
    parts = [_phrase(term) for term in terms if term["condition"] not in ("age_hours", "age_seconds")]
    if age_s is not None:
        parts.append(f"age {duration(age_s)}")
    return "; ".join(parts)


_UNITS = {"cpu_percent_min": ("cpu", " %"), "cpu_percent_max": ("cpu only", " %"), "memory_mb_min": ("memory", " MB"),
          "disk_mb_per_s_min": ("disk", " MB/s"), "written_mb_per_day_min": ("written", " MB a day"),
          "gpu_percent_min": ("gpu", " %"), "wakeups_per_s_min": ("wakeups", "/s"), "score_min": ("score", ""),
          "band_min": ("band", "")}


def _phrase(term: Term) -> str:
    kind, value = term["condition"], term["value"]
    if kind in _UNITS:
        word, unit = _UNITS[kind]
        text = f"{word} {value if isinstance(value, str) else f'{value:g}'}{unit}"
    elif kind == "orphan":
        text = "its parent exited" if value else "its parent is running"
    elif kind in ("command_patterns", "cmdline_patterns"):
        text = f"name matches {term['limit']}"
    else:
        text = f"{kind} {value}"
    if "window_s" in term:
        text += f" for {duration(term['held_s'])}" if term["evidence"] == "window" else \
            f" on average over {duration(term['held_s'])} of life" if term["evidence"] == "lifetime" else ""
    return text
