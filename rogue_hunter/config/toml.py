"""Read a configuration from TOML and write it as TOML, by the declarations of the options."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from rogue_hunter.config import check
from rogue_hunter.config.check import ConfigError, Place, toml_value
from rogue_hunter.config.options import Config
from rogue_hunter.files import FileError, read_trusted
from rogue_hunter.schema.field import BANDS

RULE_TABLES = ("daemon", "logging", "notifications", "metrics", "safety", "rules")
"""Tables of a rule file, which the configuration file may contain too; rogue_hunter.rules reads them."""

FILE_LIMIT = 256 * 1024
"""Bytes of a configuration file. One with every key and its comment has 20 KB."""


def parse(data: bytes, name: str = "configuration") -> Config:
    """TOML bytes as a Config. Raises ConfigError naming `name`, the key and the reason."""
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        # ValueError: a TOMLDecodeError, or a number of more digits than Python converts.
        raise ConfigError(f"{name}: {error}") from None
    place = Place(name)
    check.known_keys(values, (*(f.name for f in fields(Config)), *RULE_TABLES), place)
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
    values = check.table(values, place) if place.path else values
    known = {f.name: f for f in fields(default)}
    check.known_keys(values, known, place)
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
        return check.texts(value, place, meta["choices"])
    if kind is bool:
        return check.flag(value, place)
    if kind is str:
        return check.choice(value, meta["choices"], place) if meta["choices"] else check.text(value, place, empty=True)
    bounded = check.whole if kind is int else check.number
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
