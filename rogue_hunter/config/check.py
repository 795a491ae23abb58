"""Checks of the values of a TOML file: each raises an error that names file, key, reason and the value found."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rogue_hunter.text.errors import CONFIG_ERROR, RogueHunterError

_SHOWN = 60
"""Characters of a value that an error shows."""

_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f]')
"""Characters that a TOML string must escape."""


class ConfigError(RogueHunterError):
    """A configuration that cannot be used; the message names file, key and reason."""

    code = CONFIG_ERROR


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file: the file's name, the path of keys, and the class of errors about it."""

    source: str
    path: str = ""
    kind: type[RogueHunterError] = ConfigError

    def at(self, key: str) -> Place:
        """The place of `key` in the table at this place."""
        return replace(self, path=f"{self.path}.{key}" if self.path else key)

    def error(self, reason: str) -> RogueHunterError:
        """An error about this place, to be raised."""
        return self.kind(f"{self.source}: {self.path}: {reason}" if self.path else f"{self.source}: {reason}")

    def must(self, wanted: str, value: object) -> RogueHunterError:
        """The error that the value here must be something else: `must be a number, not "three"`."""
        # More digits than Python converts to text are an error of their own; TOML's hexadecimal numbers may have them.
        found = toml_value(value) if not isinstance(value, int) or value.bit_length() < 10_000 else \
            f"a number of {value.bit_length()} bits"
        return self.error(f"must be {wanted}, not {found if len(found) <= _SHOWN else found[:_SHOWN] + '...'}")


def known_keys(table: Mapping[str, Any], known: Collection[str], place: Place) -> None:
    """Raise for the first key that is not one of `known`; the error names the most similar known key."""
    for key in table:
        if key not in known:
            raise place.at(key).error("unknown key" + did_you_mean(key, known))


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean X?` for the most similar known word; empty if none is similar."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def flag(value: Any, place: Place) -> bool:
    """true or false."""
    if type(value) is not bool:
        raise place.must("true or false", value)
    return value


def number(value: Any, place: Place, low: float | None = None, high: float | None = None) -> float:
    """A finite number from `low` to `high`, as a float; whole numbers are numbers too."""
    if type(value) not in (int, float):
        raise place.must("a number", value)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise place.must("finite", value)
    _within(found, value, place, low, high)
    return found


def whole(value: Any, place: Place, low: int | None = None, high: int | None = None) -> int:
    """A whole number from `low` to `high`."""
    if type(value) is not int:
        raise place.must("a whole number", value)
    _within(value, value, place, low, high)
    return value


def _within(found: float, value: object, place: Place, low: float | None, high: float | None) -> None:
    if (low is not None and found < low) or (high is not None and found > high):
        raise place.must(f"at least {low}" if high is None else f"from {low} to {high}", value)


def text(value: Any, place: Place, *, empty: bool = False) -> str:
    """A text; with `empty` it may have no characters."""
    if not isinstance(value, str):
        raise place.must("a text", value)
    if not empty and not value.strip():
        raise place.error("must not be empty")
    return value


def choice(value: Any, choices: Collection[str], place: Place) -> str:
    """One of `choices`."""
    if not isinstance(value, str) or value not in choices:
        close = did_you_mean(value, choices) if isinstance(value, str) else ""
        error = place.must(f"one of {', '.join(choices)}", value)
        raise place.kind(f"{error}{close}")
    return value


def table(value: Any, place: Place) -> Mapping[str, Any]:
    """A table."""
    if not isinstance(value, Mapping):
        raise place.must("a table", value)
    return value


def tables(value: Any, place: Place) -> list[Mapping[str, Any]]:
    """An array of tables."""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise place.must("an array of tables", value)
    return value


def texts(value: Any, place: Place, choices: Collection[str] | None = None, *, single: bool = False) -> tuple[str, ...]:
    """An array of texts, each one of `choices` if there are any; with `single` one text is an array of one."""
    if single and isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise place.must("an array of texts", value)
    for each in value:
        if choices:
            choice(each, choices, place)
    return tuple(value)


def toml_value(value: Any) -> str:
    """A value in the notation of TOML. Python's repr of numbers is TOML's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_value(v)}" for key, v in value.items()) + " }"
    if isinstance(value, str):
        return '"' + _SPECIAL.sub(_escape, value) + '"'
    return repr(value) if isinstance(value, (int, float)) else str(value)


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    return "\\" + char if char in '"\\' else f"\\u{ord(char):04x}"
