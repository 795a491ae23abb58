"""Which rules are in force for a user: those of the configuration file, of reaper.toml beside it, or the built-in."""

from __future__ import annotations

import tomllib
from pathlib import Path

from rogue_hunter.config.toml import RULE_TABLES
from rogue_hunter.paths import config_file, rules_file
from rogue_hunter.rules.load import load
from rogue_hunter.rules.model import RuleError, RuleSet


def user_file(config: Path | None = None) -> Path | None:
    """The file that rules are read from; None for the built-in ones.

    `config` is a file that was named: it alone counts. Else the user's configuration file if a table of rules stands in
    it, else reaper.toml beside it. Rules in both are an error: nobody should have to guess which of them end processes.
    Raises RuleError.
    """
    if config is not None:
        return config
    main, beside = config_file(), rules_file()
    in_main = _holds_rules(main)
    if in_main and beside.exists():
        raise RuleError(f"{main} has a table {in_main}, and {beside} is there too: keep the rules in one of the two")
    return main if in_main else beside if beside.exists() else None


def user_rules(config: Path | None = None, project: Path | None = None) -> RuleSet:
    """The rules in force, narrowed by a project's file. Raises RuleError."""
    return load(user_file(config), project)


def _holds_rules(file: Path) -> str | None:
    """The first table of rules in a configuration file; None where there is none, or no file that can be read: who
    reads the configuration itself says what is wrong with it."""
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return next((name for name in RULE_TABLES if name in values), None)
