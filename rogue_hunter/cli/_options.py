"""Options of the commands about rules, and what else several of them share beside common."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rogue_hunter.cli.common import USAGE, Failure, say
from rogue_hunter.config.toml import load
from rogue_hunter.paths import config_file as users_file
from rogue_hunter.rules.load import find_project, user_rules
from rogue_hunter.stream.tick import Tick

_F = TypeVar("_F", bound=Callable[..., Any])


def rules_options(function: _F) -> _F:
    """-c, --project, --no-project: the rules reach the command as `rules`, the configuration as `config`.

    On a group they count for its subcommands too.
    """
    @functools.wraps(function)
    def with_rules(*args: Any, config_file: Path | None, project: Path | None, no_project: bool, **more: Any) -> Any:
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            return None
        above = context.parent.params if context.parent is not None else {}
        config_file, project = config_file or above.get("config_file"), project or above.get("project")
        no_project = no_project or above.get("no_project", False)
        if project is not None and no_project:
            raise Failure("--project and --no-project exclude each other", USAGE)
        config = load(config_file, users_file())
        rules = user_rules(config_file, project or (None if no_project else find_project(Path.cwd())))
        return function(*args, config=config, rules=rules, **more)

    for option in (
        click.option("--no-project", is_flag=True, help="Look for no project's file."),
        click.option("--project", type=click.Path(path_type=Path), metavar="FILE",
                     help="A project's file, which can only narrow the rules (default: .rogue-hunter.toml or "
                          ".reaper.toml here or above)."),
        click.option("-c", "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
                     help="Configuration or rule file (default: the user's, else the built-in rules)."),
    ):
        with_rules = option(with_rules)
    return with_rules  # type: ignore[return-value]


class Counted:
    """A stage that changes nothing; `report` prints how many processes the last tick had, for a command that found none
    of them worth a record."""

    def __init__(self) -> None:
        self._processes: int | None = None

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged."""
        if tick.row is not None:
            self._processes = len(tick.processes)
        return tick

    def report(self) -> None:
        """One line on standard error; nothing where there was no tick."""
        if self._processes is not None:
            say(f"{self._processes} process{'es' * (self._processes != 1)}, no rule matches")


def form_options(function: _F) -> _F:
    """--table, --json, --ndjson, --csv: the value reaches the command as `form`."""
    for name, doc in (("csv", "Comma separated values with a header."),
                      ("ndjson", "One JSON object a line (default in a pipe)."), ("json", "One JSON array."),
                      ("table", "A table for people (default on a terminal).")):
        function = click.option(f"--{name}", "form", flag_value=name, help=doc)(function)
    return function


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on only
    """A point of time: `1h`, `today`, `14:32`, ISO 8601, `@epoch`. The value is in epoch seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Epoch seconds of the text; a usage error names the forms."""
        from rogue_hunter.text.timespec import parse_time

        try:
            seconds = parse_time(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return seconds
