"""RESULTS.md: how many changes of each module were noticed, and the survivors, each with the reason given by hand."""

from __future__ import annotations

import fcntl
import re
from dataclasses import dataclass
from pathlib import Path

from .operators import Mutant
from .targets import TARGETS

PATH = Path(__file__).resolve().with_name("RESULTS.md")
_HEAD = """# Changes that tests notice

Written by `python -m tests.mutation --record`. The last column is by hand: why it is no mistake that a test should
find. It is kept as long as the line of code and the change are the same.

| module | changes | noticed | |
|---|---|---|---|
"""
_SURVIVORS = """
| module | line of code | change | why it may stand |
|---|---|---|---|
"""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "¦").split())


@dataclass
class Outcome:
    """One module's run."""

    module: str
    tried: int
    survived: list[Mutant]
    lines: list[str]

    @property
    def score(self) -> float:
        """The share that was noticed."""
        return 1 - len(self.survived) / self.tried if self.tried else 1.0

    def line(self) -> str:
        """A row of the first table."""
        return f"| {self.module} | {self.tried} | {self.tried - len(self.survived)} | {100 * self.score:.1f} % |"

    def survivors(self, why: dict[str, str]) -> list[str]:
        """Rows of the second table."""
        rows = []
        for mutant in self.survived:
            key = f"| {self.module} | `{_cell(self.lines[mutant.line - 1])[:90]}` | {_cell(mutant.change)[:70]} |"
            rows.append(f"{key} {why.get(key, '')} |")
        return rows


def keep(outcome: Outcome) -> None:
    """Replace the rows of a module. Raises OSError."""
    with open(PATH, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        first, _, second = text.partition(_SURVIVORS.strip().splitlines()[0])
        counts = {row.split(" ")[1]: row for row in re.findall(r"^\| [a-z_/]+ \| \d.*$", first, re.MULTILINE)}
        rows: dict[str, list[str]] = {}
        why: dict[str, str] = {}
        for row in re.findall(r"^\| [a-z_/]+ \| `.*$", second, re.MULTILINE):
            rows.setdefault(row.split(" ")[1], []).append(row)
            key, _, reason = row.removesuffix(" |").rpartition(" | ")
            why[f"{key} |"] = reason
        counts.pop("all", None)
        counts[outcome.module] = outcome.line()
        rows[outcome.module] = outcome.survivors(why)
        # One that is not in TARGETS may be from a run that began later than this one, with a longer list.
        known = sorted(counts, key=lambda name: list(TARGETS).index(name) if name in TARGETS else len(TARGETS))
        tried = sum(int(counts[name].split("|")[2]) for name in known)
        noticed = sum(int(counts[name].split("|")[3]) for name in known)
        file.truncate(0)
        file.write(_HEAD + "".join(f"{counts[name]}\n" for name in known))
        file.write(f"| all | {tried} | {noticed} | {100 * noticed / tried:.1f} % |\n")
        file.write(_SURVIVORS + "".join(f"{row}\n" for name in known for row in rows.get(name, [])))
