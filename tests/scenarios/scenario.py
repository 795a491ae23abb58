"""What a scenario is, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.scenarios.stage import Stage

Play = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One slowdown.

    `kind`: culprit: `who` is to be named; self: its own limit holds `who` back, and no other process is to be blamed;
    `nobody`: no process is to be blamed; benign: nothing is wrong: use may be reported as use, never as trouble. `who` are
    names of which any is right (a part of the name is enough), `causes` the resources or kinds of cause of which any is
    right. `victims` are names of processes that suffer. `play` sets it up, before rh-pipe starts with `early`; it runs for
    `seconds`, then it is ended.
    """

    name: str
    kind: str
    what: str
    play: Play
    who: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    victims: tuple[str, ...] = ()
    seconds: float = 9.0
    early: bool = False


ALL: list[Scenario] = []


def scenario(kind: str, what: str, *, who: tuple[str, ...] = (), causes: tuple[str, ...] = (),
             victims: tuple[str, ...] = (), seconds: float = 9.0, early: bool = False) -> Callable[[Play], Play]:
    """Add the function below as a scenario; its name, with dashes, is the scenario's."""

    def add(play: Play) -> Play:
        ALL.append(Scenario(play.__name__.replace("_", "-"), kind, what, play, who, causes, victims, seconds,
                            early))
        return play

    return add


def find(names: list[str]) -> list[Scenario]:
    """Scenarios of these names or categories (`cpu`, `io`), all when none is named. Raises KeyError."""
    if not names:
        return ALL
    found = [one for one in ALL if one.name in names or one.name.split("-")[0] in names]
    unknown = set(names) - {one.name for one in ALL} - {one.name.split("-")[0] for one in ALL}
    if unknown:
        raise KeyError(", ".join(sorted(unknown)))
    return found
