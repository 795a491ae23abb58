"""Whether an answer is right: hit@1, hit@3, the right cause, somebody blamed for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tests.scenarios.catalogue import Scenario

Record = dict[str, Any]
BLAMING = ("found",)
"""Verdicts that name somebody as the cause of trouble; `use` and `nothing` blame no process."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How one answer did. `first` and `third` are None where the scenario has no name to give; `blamed` is True when a
    process is named as the cause of trouble that it did not make."""

    first: bool | None
    third: bool | None
    cause: bool | None
    blamed: bool
    victims: bool | None = None
    said: str = ""

    def cell(self) -> str:
        """1, 3 or - for the rank; c for the right cause; B for blame of somebody innocent."""
        rank = "1" if self.first else "3" if self.third else "-"
        return rank + ("c" if self.cause else "-") + ("B" if self.blamed else "")

    def record(self) -> Record:
        """For the JSON document."""
        return asdict(self)


def names(cause: Record) -> Iterator[str]:
    """Everything by which a cause names a process: its fields, and those of the processes it lists."""
    for key in ("name", "command", "cmdline", "unit", "script", "cgroup", "object", "holder"):
        if isinstance(cause.get(key), str):
            yield cause[key]


def named(cause: Record, scenario: Scenario) -> bool:
    """One of the names that are right is in what the cause names first."""
    who = cause.get("who") or []
    heads = [cause, *who[:1]]
    return any(part in text for head in heads if isinstance(head, dict) for text in names(head) for part in scenario.who)


def mark(scenario: Scenario, verdict: str | None, causes: list[Record], victims: list[Record], said: str) -> Mark:
    """Compare an answer with the truth. `causes` are the most likely first."""
    blaming = verdict in BLAMING and bool(causes)
    kinds = [str(cause.get("cause") or cause.get("kind")) for cause in causes]
    if scenario.kind in ("benign", "nobody"):
        expected = scenario.kind == "nobody" and bool(kinds) and kinds[0] in scenario.causes
        blamed = blaming and not expected and (any(names(causes[0])) or bool(causes[0].get("who")))
        return Mark(not blamed, not blamed, expected or not blaming, blamed, None, said)
    hits = [named(cause, scenario) for cause in causes]
    first, third = bool(hits and hits[0]), any(hits[:3])
    cause = bool(kinds and kinds[0] in scenario.causes)
    suffering = None
    if scenario.victims and victims:
        suffering = any(part in text for victim in victims for text in names(victim) for part in scenario.victims)
    elif scenario.victims:
        suffering = False
    return Mark(first, third, cause, blaming and not first, suffering, said)


_TOP = re.compile(r"^\s*([0-9]+) .* ([0-9]+[.,][0-9]) +[0-9.,]+ +[0-9:.]+ (.*)$")


def top_first(output: str, ours: set[int]) -> list[str]:
    """The command lines of the last screen of `top -b -c -o %CPU`, the busiest first, without our own processes."""
    screen = output.rpartition("PID USER")[2].splitlines()[1:]
    found = []
    for line in screen:
        match = _TOP.match(line)
        if match and int(match[1]) not in ours and float(match[2].replace(",", ".")) > 3 and not match[3].startswith("top "):
            found.append(match[3])
    return found


def mark_top(scenario: Scenario, commands: list[str]) -> Mark:
    """An operator who reads top: whoever stands first is to blame, for the CPU."""
    hits = [any(part in command for part in scenario.who) for command in commands]
    said = commands[0] if commands else ""
    if scenario.kind in ("benign", "nobody", "self"):
        return Mark(not commands, not commands, None, bool(commands) and scenario.kind == "benign", None, said)
    return Mark(bool(hits and hits[0]), any(hits[:3]), bool(hits and hits[0]) and "cpu" in scenario.causes,
                bool(commands) and not hits[0], None, said)
