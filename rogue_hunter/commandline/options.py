"""Options and option types that several commands share."""

from __future__ import annotations

import functools
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rogue_hunter.commandline.run import USAGE, Failure

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config

_F = TypeVar("_F", bound=Callable[..., Any])

_HUGE = 1e9
"""Bounds above this are of a data type; people get no number."""


def _range(low: float | None, high: float | None) -> str:
    return f"{low} or more" if high is None or high > _HUGE else f"{low} to {high}"


class Whole(click.IntRange):
    """An integer with bounds, which --help and errors give in words."""

    def _describe_range(self) -> str:
        return _range(self.min, self.max)


class Number(click.FloatRange):
    """A number with bounds, which --help and errors give in words."""

    def _describe_range(self) -> str:
        return _range(self.min, self.max)


_FORMS = {"table": "A table for people (default on a terminal).", "json": "One JSON array.",
          "ndjson": "One JSON object a line (default in a pipe).", "csv": "Comma separated values with a header."}


def form_options(*names: str, **docs: str) -> Callable[[_F], _F]:
    """--table, --json, --ndjson, --csv, or only those of `names`: the value reaches the command as `form`. `docs`
    replaces the help of some."""
    def wrap(function: _F) -> _F:
        for name in reversed(names or tuple(_FORMS)):
            function = click.option(f"--{name}", "form", flag_value=name, help=docs.get(name, _FORMS[name]))(function)
        return function
    return wrap


def stream_options(function: _F) -> _F:
    """--table and --ndjson, for a command that prints records as they come; see `run.stream_form`."""
    return form_options("table", "ndjson", table="Text for people (default on a terminal).")(function)


def config_option(function: _F) -> _F:
    """-c/--config: the value reaches the command as a Config."""
    def load_config(_context: click.Context, _param: click.Parameter, value: Path | None) -> Config:
        from rogue_hunter.config.toml import load
        from rogue_hunter.paths import config_file

        return load(value, config_file())

    return _config("config", "Configuration file (default: the user's, if there is one).", load_config)(function)


def config_file_option(doc: str = "Configuration file (default: the user's, if there is one).") -> Callable[[_F], _F]:
    """-c/--config: the path reaches the command as `config_file`, for a command that does more with it than load it."""
    return _config("config_file", doc)


def _config(name: str, doc: str, callback: Callable[..., Any] | None = None) -> Callable[[_F], _F]:
    return click.option("-c", "--config", name, type=click.Path(path_type=Path), metavar="FILE", callback=callback,
                        help=doc)


def rules_options(function: _F) -> _F:
    """-c, --project, --no-project: the rules reach the command as `rules`, the configuration as `config`.

    Given to a group, they apply to its subcommands too.
    """
    @functools.wraps(function)
    def with_rules(*args: Any, config_file: Path | None, project: Path | None, no_project: bool, **more: Any) -> Any:
        from rogue_hunter.config.toml import load
        from rogue_hunter.paths import config_file as users_file
        from rogue_hunter.rules.load import find_project, user_rules

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
        click.option("--no-project", is_flag=True, help="Ignore project files."),
        click.option("--project", type=click.Path(path_type=Path), metavar="FILE",
                     help="A project's file, which can only narrow the rules (default: .rogue-hunter.toml or "
                          ".reaper.toml here or above)."),
        config_file_option("Configuration or rule file (default: the user's, else the built-in rules)."),
    ):
        with_rules = option(with_rules)
    return with_rules  # type: ignore[return-value]


def host_options(function: _F) -> _F:
    """--proc-root and --libproc, for every command that samples."""
    function = click.option("--libproc", metavar="PATH",
                            help="macOS: take libproc's functions from this library.")(function)
    return click.option("--proc-root", default="/proc", show_default=True, metavar="DIR",
                        type=click.Path(path_type=Path),
                        help="Linux: read this tree, a recorded one for example.")(function)


def hz_option(function: _F) -> _F:
    """--hz."""
    return click.option("--hz", type=Number(0.01, 100), metavar="N",
                        help="Ticks a second (default: system.hz of the configuration, 3).")(function)


def db_option(doc: str = "Database file (default: store.path if set, else the user's).") -> Callable[[_F], _F]:
    """-d/--db."""
    return click.option("-d", "--db", type=click.Path(path_type=Path), metavar="FILE", help=doc)


def database_path(db: Path | None, config: Config, *, make: bool = False, system: bool = False) -> Path:
    """The database: --db, else the configured one, else the user's; `make` makes the user's directory. With `system`,
    for commands that only read, it is that of the service of the whole system where the user has none."""
    from rogue_hunter.paths import SYSTEM_DATABASE, database, own_or_system, private_dir

    if db is not None:
        return db
    if config.store.path:
        return Path(config.store.path).expanduser()
    path = database()
    if make:
        private_dir(path.parent)
    return own_or_system(path, SYSTEM_DATABASE) if system else path


class Reading(click.ParamType, ABC):  # type: ignore[type-arg]  # generic from click 8.5 on only
    """A value that `read` makes of a text; a ValueError of `read` is a usage error, which names the forms."""

    @abstractmethod
    def read(self, text: str) -> Any:
        """The value. Raises ValueError."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value of the text."""
        try:
            return self.read(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(Reading):
    """A length of time: `90`, `90s`, `1h30m`, `500ms`. The value is in seconds. With `unit` a bare number is an error:
    for an option that deletes, 1 must not be a second when a day was meant."""

    name = "duration"

    def __init__(self, *, unit: bool = False) -> None:
        self._unit = unit

    def read(self, text: str) -> float:
        from rogue_hunter.text.timespec import parse_duration

        seconds = parse_duration(text)
        if self._unit and text.strip()[-1:].isdecimal():
            raise ValueError(f"{text!r} has no unit; write it like 7d, 12h, 90s")
        return seconds


class Moment(Reading):
    """A point of time: `1h`, `today`, `14:32`, ISO 8601, `@epoch`. The value is in epoch seconds."""

    name = "time"

    def read(self, text: str) -> float:
        from rogue_hunter.text.timespec import parse_time

        return parse_time(text, time.time())


def cron_line(name: str, when: str, arguments: Sequence[str]) -> str:
    """A crontab line that runs rh-NAME of this installation with these arguments, `when` in cron's five fields. Cron
    has a PATH of its own, runs commands in the home directory with a pipe as standard input, and reads % as the end of
    the line. Raises Failure for what a line cannot hold."""
    import shlex

    from rogue_hunter.service.manager import XDG, command_line

    words = [*command_line(name), *(word for word in _from_anywhere(arguments) if word != "--print-cron")]
    places = [f"{each}={shlex.quote(os.environ[each])}" for each in XDG if os.environ.get(each, "").startswith("/")]
    line = " ".join([f"{when} ", *places, shlex.join(words), "</dev/null >/dev/null"])
    if not line.isprintable():
        raise Failure("a crontab line cannot hold control characters", USAGE)
    return line.replace("%", "\\%")


def _from_anywhere(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments with whole paths."""
    before = ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if before in _PATHS:
            yield os.path.abspath(word)
        elif equals and option in _PATHS:
            yield f"{option}={os.path.abspath(value)}"
        else:
            yield word
        before = word


_PATHS = ("-d", "--db", "-c", "--config", "--textfile")
