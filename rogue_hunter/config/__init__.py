"""Configuration: frozen dataclasses with every default and its reason, and the reading of TOML into them.

The declarations are the documentation: `rh-config init`, `rh-config show` and the tables of rogue-hunter(5) are made
from the same fields. A key that is not declared is an error, never ignored.
"""

from __future__ import annotations

import os
from pathlib import Path

from rogue_hunter.config.declare import option, section
from rogue_hunter.config.forensics import Forensics
from rogue_hunter.config.options import (
    Bands,
    Budget,
    Config,
    Log,
    Minutes,
    Pause,
    Power,
    Retention,
    RogueSelection,
    Scoring,
    Share,
    Socket,
    Store,
    Stress,
    System,
    Tracking,
)
from rogue_hunter.config.reap import Reap
from rogue_hunter.config.toml import RULE_TABLES, ConfigError, Setting, parse, settings, to_toml

__all__ = [
    "RULE_TABLES",
    "Bands",
    "Budget",
    "Config",
    "ConfigError",
    "Forensics",
    "Log",
    "Minutes",
    "Pause",
    "Power",
    "Reap",
    "Retention",
    "RogueSelection",
    "Scoring",
    "Setting",
    "Share",
    "Socket",
    "Store",
    "Stress",
    "System",
    "Tracking",
    "load",
    "option",
    "parse",
    "section",
    "settings",
    "to_toml",
]


def load(path: Path | None, default: Path | None = None) -> Config:
    """The configuration of a file.

    `path` must exist; `default` is read if it exists, else the defaults stand. Raises ConfigError.
    """
    file = path or default
    if file is None or (path is None and not _is_there(file)):
        return Config()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    return parse(data, str(file))


def _is_there(file: Path) -> bool:
    """False also where this user may not even look: a home that belongs to somebody else holds nothing of ours."""
    try:
        os.lstat(file)
    except OSError:
        return False
    return True
