"""Read a configuration from TOML, check its values, and write it as TOML, by the declarations of the options."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from rogue_hunter.config.options import Config
from rogue_hunter.files import FileError, read_trusted
from rogue_hunter.schema.field import BANDS
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

    def refuse(self, *cases: tuple[object, str, str]) -> None:
        """Raise the error of the first case that holds: whether it does, the key (empty: this place), the reason."""
        for wrong, key, reason in cases:
            if wrong:
                raise (self.at(key) if key else self).error(reason)

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
    """A text; with `empty` it may have no characters. A path or an argument cannot hold a NUL character."""
    if not isinstance(value, str) or "\0" in value:
        raise place.must("a text without NUL characters" if isinstance(value, str) else "a text", value)
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


def texts(value: Any, place: Place, choices: Collection[str] | None = None) -> tuple[str, ...]:
    """An array of texts, each one of `choices` if there are any."""
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
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


RULE_TABLES = ("daemon", "logging", "notifications", "metrics", "safety", "rules")
"""Tables of a rule file, which the configuration file may contain too; rogue_hunter.rules reads them."""

FILE_LIMIT = 256 * 1024
"""Bytes of a configuration file. One with every key and its comment has 20 KB."""


def values_of(data: bytes, place: Place) -> dict[str, Any]:
    """The values of a file of TOML."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))   # editors on Windows begin a file with a mark
    except UnicodeDecodeError:
        raise place.error("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        # ValueError: a TOMLDecodeError, or a number of more digits than Python converts.
        raise place.error(str(error)) from None


def parse(data: bytes, name: str = "configuration") -> Config:
    """TOML bytes as a Config. Raises ConfigError naming `name`, the key and the reason."""
    place = Place(name)
    values = values_of(data, place)
    known_keys(values, (*(f.name for f in fields(Config)), *RULE_TABLES), place)
    config: Config = _table(Config(), {k: v for k, v in values.items() if k not in RULE_TABLES}, place)
    for where, bands in (("bands", config.bands), ("scoring.stress.bands", config.scoring.stress.bands)):
        starts = [bands.start(band) for band in BANDS]
        if sorted(set(starts)) != starts:
            raise place.at(where).error("each band must begin above the one before, not at "
                                        + ", ".join(map(str, starts[1:])))
    share = config.scoring.share
    if share.memory_scarce_at >= share.memory_free_at:
        raise place.at("scoring.share").error(f"memory_scarce_at must be below memory_free_at "
                                              f"({share.memory_free_at:g}), not {share.memory_scarce_at:g}")
    return config


def _table(default: Any, values: Any, place: Place) -> Any:
    """The options of `default` with the values of a table."""
    values = table(values, place) if place.path else values
    known = {f.name: f for f in fields(default)}
    known_keys(values, known, place)
    hints = get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        current = getattr(default, key)
        changes[key] = _table(current, value, place.at(key)) if is_dataclass(current) else \
            _value(hints[key], value, known[key].metadata, place.at(key))
    return replace(default, **changes)


def _value(kind: Any, value: Any, meta: Mapping[str, Any], place: Place) -> Any:
    """The value of one option, checked by its type, bounds and choices."""
    if get_origin(kind) is tuple:
        return texts(value, place, meta["choices"])
    if kind is bool:
        return flag(value, place)
    if kind is str:
        return choice(value, meta["choices"], place) if meta["choices"] else text(value, place, empty=True)
    bounded = whole if kind is int else number
    return bounded(value, place, meta["low"], meta["high"])


@dataclass(frozen=True, slots=True)
class Setting:
    """One key for people: its table, name, current value, default and reason."""

    table: str
    name: str
    value: Any
    default: Any
    doc: str


def settings(config: Config) -> Iterator[Setting]:
    """Every key of a configuration, table by table."""
    yield from _settings(config, Config(), "")


def _settings(config: Any, default: Any, table: str) -> Iterator[Setting]:
    nested = []
    for f in fields(config):
        value, usual = getattr(config, f.name), getattr(default, f.name)
        if is_dataclass(value):
            nested.append((value, usual, f"{table}.{f.name}" if table else f.name))
        else:
            yield Setting(table, f.name, value, usual, f.metadata["doc"])
    for value, usual, name in nested:
        yield from _settings(value, usual, name)


def to_toml(config: Config, *, comment_defaults: bool = False) -> str:
    """The configuration as TOML, each key with its reason. With `comment_defaults`, defaults are comments."""
    lines: list[str] = []
    table = None
    for s in settings(config):
        if s.table != table:
            table = s.table
            lines += ["", f"[{table}]"]
        lines.append(f"# {s.doc}")
        mark = "# " if comment_defaults and s.value == s.default else ""
        lines.append(f"{mark}{s.name} = {toml_value(s.value)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def load(path: Path | None, default: Path | None = None) -> Config:
    """The configuration of a file.

    `path` must exist; `default` is read if it exists, otherwise the defaults are used. Raises ConfigError.
    """
    file = path or default
    if file is None or (path is None and not _exists(file)):
        return Config()
    try:
        data = read_trusted(file, FILE_LIMIT)
    except FileError as error:
        raise ConfigError(str(error)) from None
    return parse(data, str(file))


def _exists(file: Path) -> bool:
    """False also if this user may not enter the directory: another user's home holds no file of this user."""
    try:
        os.lstat(file)
    except OSError:
        return False
    return True
