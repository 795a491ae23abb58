"""TOML into options and options into TOML, by the declarations alone. A key that is not declared is an error."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from rogue_hunter.config.options import Config
from rogue_hunter.files import FileError, read_trusted
from rogue_hunter.schema.field import BANDS
from rogue_hunter.text.errors import CONFIG_ERROR, RogueHunterError

_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f]')
"""What a text of TOML may not hold as it is."""

RULE_TABLES = ("daemon", "logging", "notifications", "metrics", "safety", "rules")
"""Tables of a rule file, which may stand in the configuration file too; rogue_hunter.rules reads them."""


FILE_LIMIT = 256 * 1024
"""Bytes of a configuration file. One with every key and its comment has 20 KB."""


class ConfigError(RogueHunterError):
    """A configuration that cannot be used; the message names file, key and reason."""

    code = CONFIG_ERROR


def parse(data: bytes, name: str = "configuration") -> Config:
    """TOML bytes as a Config. Raises ConfigError naming `name`, the key and the reason."""
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        # ValueError: a TOMLDecodeError, or a number of more digits than Python converts.
        raise ConfigError(f"{name}: {error}") from None
    own = {key: value for key, value in values.items() if key not in RULE_TABLES}
    config: Config = _table(Config(), own, "", name)
    for where, bands in (("bands", config.bands), ("scoring.stress.bands", config.scoring.stress.bands)):
        starts = [bands.start(band) for band in BANDS]
        if sorted(set(starts)) != starts:
            raise ConfigError(f"{name}: {where}: each band must begin above the one before")
    if config.scoring.share.memory_scarce_at >= config.scoring.share.memory_free_at:
        raise ConfigError(f"{name}: scoring.share.memory_scarce_at must be below memory_free_at")
    return config


def _table(default: Any, values: Mapping[str, Any], where: str, name: str) -> Any:
    hints = get_type_hints(type(default))
    known = {f.name: f for f in fields(default)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}{key}"
        if key not in known:
            close = _closest(key, known if where else (*known, *RULE_TABLES))
            raise ConfigError(f"{name}: {path}: unknown key" + (f"; did you mean {close}?" if close else ""))
        current = getattr(default, key)
        if is_dataclass(current):
            if not isinstance(value, dict):
                raise ConfigError(f"{name}: {path}: must be a table")
            changes[key] = _table(current, value, path + ".", name)
        else:
            try:
                changes[key] = _value(hints[key], value, known[key].metadata)
            except ValueError as error:
                raise ConfigError(f"{name}: {path}: {error}") from None
    return replace(default, **changes)


def _value(kind: Any, value: Any, meta: Mapping[str, Any]) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(v, get_args(kind)[0]) for v in value):
            raise ValueError("must be an array of texts")
        for one in value:
            if meta["choices"] and one not in meta["choices"]:
                raise ValueError(f"{one!r} is not one of {', '.join(meta['choices'])}")
        return tuple(value)
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise ValueError("must be finite") from None
    if type(value) is not kind:
        words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise ValueError(f"{_shown(value)}must be {words[kind]}")
    if kind is str and meta["choices"] and value not in meta["choices"]:
        raise ValueError(f"must be one of {', '.join(meta['choices'])}")
    if kind in (int, float):
        # A whole number is finite, and may have too many digits to be asked as a fraction.
        if kind is float and not math.isfinite(value):
            raise ValueError("must be finite")
        low, high = meta["low"], meta["high"]
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"must be {f'from {low} to {high}' if high is not None else f'at least {low}'}")
    return value


def _shown(value: Any) -> str:
    """A value of the wrong kind as TOML, for the text of an error; nothing for one that is long or has parts."""
    if isinstance(value, (bool, float, str)) or (isinstance(value, int) and value.bit_length() <= 64):
        text = toml_value(value)
        return f"{text}: " if len(text) <= 60 else ""
    return ""


def _closest(key: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    found = get_close_matches(key, list(known), 1)
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as people see it: its table, name, value now, default and reason."""

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
    """The configuration as TOML, each key with its reason. Defaults can be given as comments, for a file to edit."""
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


def toml_value(value: Any) -> str:
    """A scalar, an array or an inline table. Python's repr of numbers is TOML's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_value(v)}" for key, v in value.items()) + " }"
    if isinstance(value, str):
        return '"' + _SPECIAL.sub(_escape, value) + '"'
    return repr(value)


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    return "\\" + char if char in '"\\' else f"\\u{ord(char):04x}"


def load(path: Path | None, default: Path | None = None) -> Config:
    """The configuration of a file.

    `path` must exist; `default` is read if it exists, else the defaults stand. Raises ConfigError.
    """
    file = path or default
    if file is None or (path is None and not _is_there(file)):
        return Config()
    try:
        data = read_trusted(file, FILE_LIMIT)
    except FileError as error:
        raise ConfigError(str(error)) from None
    return parse(data, str(file))


def _is_there(file: Path) -> bool:
    """False also where this user may not even look: a home that belongs to somebody else holds nothing of ours."""
    try:
        os.lstat(file)
    except OSError:
        return False
    return True
