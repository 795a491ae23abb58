"""Whether an answer is right: hit@1, hit@3, the right cause, an innocent process blamed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tests.scenarios.peers import Reading
from tests.scenarios.scenario import Scenario

Record = dict[str, Any]
BLAMING = ("found",)
"""Verdicts that name a process as the cause of trouble; `use` and `nothing` blame no process."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How one answer did. `first` and `third` are None where the scenario has no name to give; `blamed` is True when a
    process is named as the cause of trouble that it did not make, `abstained` when the answer names no cause."""

    first: bool | None
    third: bool | None
    cause: bool | None
    blamed: bool
    victims: bool | None = None
    said: str = ""
    abstained: bool = False

    def cell(self) -> str:
        """1, 3 or - for the rank; c for the right cause; B for blame of an innocent process."""
        rank = "1" if self.first else "3" if self.third else "-"
        return rank + ("c" if self.cause else "-") + ("B" if self.blamed else "")

    def record(self) -> Record:
        """For the JSON document."""
        return asdict(self)


_PLACE = re.compile(r"/\S*/")


def names(cause: Record) -> Iterator[str]:
    """Everything by which a cause names a process, without directories: those are named after scenarios."""
    for key in ("name", "command", "cmdline", "unit", "script", "cgroup", "object", "holder"):
        if isinstance(cause.get(key), str) and "tests.scenarios" not in cause[key]:
            yield _PLACE.sub("", cause[key])


def named(cause: Record, scenario: Scenario) -> bool:
    """One of the names that are right is in what the cause names first. The list behind it counts only where the
    sentence names its first process."""
    who = cause.get("who") or []
    heads = [cause, *(who[:1] if cause.get("command") or "the highest was" in cause.get("words", "") else ())]
    return any(part in text for head in heads if isinstance(head, dict) for text in names(head) for part in scenario.who)


def mark(scenario: Scenario, verdict: str | None, causes: list[Record], victims: list[Record], said: str) -> Mark:
    """Compare an answer with the truth. `causes` are the most likely first."""
    blaming = verdict in BLAMING and bool(causes)
    kinds = [str(cause.get("cause") or cause.get("kind")) for cause in causes]
    if scenario.kind in ("benign", "nobody"):
        expected = scenario.kind == "nobody" and bool(kinds) and kinds[0] in scenario.causes
        blamed = blaming and not expected and (any(names(causes[0])) or bool(causes[0].get("who")))
        return Mark(not blamed, not blamed, expected or not blaming, blamed, None, said, not causes)
    hits = [named(cause, scenario) for cause in causes]
    first, third = bool(hits and hits[0]), any(hits[:3])
    right = bool(causes) and any(str(causes[0].get(key)) in scenario.causes
                                 for key in ("cause", "wait_kind", "limit_kind"))
    suffering = None
    if scenario.victims:
        suffering = any(part in text for victim in victims for text in names(victim) for part in scenario.victims)
    return Mark(first, third, right, blaming and not first, suffering, said, not causes)


def mark_peer(scenario: Scenario, said: Reading) -> Mark:
    """Compare what another tool shows: its first row is to blame, for the cause that it measures."""
    hits = [any(part in _PLACE.sub("", command) for part in scenario.who) for command in said.commands]
    words = said.commands[0] if said.commands else ""
    none = not said.commands
    if scenario.kind in ("benign", "nobody"):
        return Mark(none, none, None, not none, None, words, none)
    first = bool(hits and hits[0])
    return Mark(first, any(hits[:3]), said.cause in scenario.causes, not none and not first, None, words, none)
