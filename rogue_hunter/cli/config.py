"""rh-config: show, check and write the configuration; completion for the shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter import paths
from rogue_hunter.commandline import options, run
from rogue_hunter.files import read_trusted, replace
from rogue_hunter.stream import wire

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.rules.model import RuleSet


@run.group("rh-config", """
Examples:
  rh-config init               write a file with a comment on every key
  rh-config validate my.toml   exit 78 and the reason if it is invalid
  eval "$(rh-config completion bash)"
""")
def command() -> None:
    """Show, check and write the configuration."""


@command.command("init")
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing file (it is kept as FILE.bak).")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def init(file: Path | None, force: bool) -> int:
    """Write a configuration file with every key and its reason, as comments."""
    from rogue_hunter.config.options import Config

    target = _target(file)
    if (target.exists() or target.is_symlink()) and not force:
        raise run.Failure(f"{target}: exists; --force overwrites it", run.FOUND)
    from rogue_hunter.rules.load import builtin

    _write(target, _whole(Config(), builtin(), comment=True))
    _place(str(target))
    return run.OK


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options.config_file_option()
def show(as_json: bool, config_file: Path | None) -> int:
    """Print the configuration in force, defaults included."""
    from rogue_hunter.config.toml import load, settings
    from rogue_hunter.rules.load import settings_of, user_rules

    config, rules = load(config_file, paths.config_file()), user_rules(config_file)
    if as_json:
        tables: dict[str, dict[str, object]] = {}
        for s in settings(config):
            tables.setdefault(s.table, {})[s.name] = list(s.value) if isinstance(s.value, tuple) else s.value
        shown: dict[str, object] = {name: {key: value for key, value, _ in keys} for name, keys in settings_of(rules)}
        shown |= {"rules": [rule.name for rule in rules.rules]}     # rh-match rules --json has all of them
        click.echo(wire.dumps_pretty({**tables, **shown}).decode())
    else:
        click.echo(_whole(config, rules), nl=False)
    return run.OK


def _whole(config: Config, rules: RuleSet, *, comment: bool = False) -> str:
    """Every table of a configuration file, including those of the rules."""
    from rogue_hunter.config.toml import to_toml
    from rogue_hunter.rules.load import rules_toml

    return f"{to_toml(config, comment_defaults=comment)}\n{rules_toml(rules, comment=comment)}"


@command.command("path")
def path() -> int:
    """Print the paths of configuration, database, logs and socket."""
    for name, place in (("config", paths.config_file()), ("database", paths.database()), ("state", paths.state_dir()),
                        ("runtime", paths.runtime_dir())):
        _place(f"{name:<10}{place}" if os.isatty(1) else f"{name}\t{place}")
    return run.OK


@command.command("validate")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def validate(file: Path | None) -> int:
    """Check a configuration or rule file, its rules and their examples; exit 78 with a line for each error.

    Without FILE: the user's files, or the built-in rules, and a project's file here or above.
    """
    from rogue_hunter.config.toml import load
    from rogue_hunter.rules.load import find_project, user_file, user_rules

    target = file or paths.config_file()
    if file is None and not target.exists():
        _word(f"{target}: does not exist; the defaults are used")
        rules = user_rules(file)
    else:
        load(target)
        rules = user_rules(file)    # one file can have both: it is only reported as ok if both are
        _word(f"{target}: ok")
    _rules_ok(str(user_file(file) or "built-in rules"), rules)
    project = find_project(Path.cwd()) if file is None else None
    if project is not None:
        narrowed = user_rules(None, project)
        _word(f"{project}: ok, narrows the rules to {len(narrowed.enabled)} that are enabled")
    return run.OK


def _rules_ok(source: str, rules: RuleSet) -> None:
    """Report that the rules are valid and their examples pass; raise Failure if they do not."""
    from rogue_hunter.rules.backtest import check_examples

    wrong = check_examples(rules)
    for sentence in wrong[1:]:
        run.say(sentence)
    if wrong:
        raise run.Failure(wrong[0], run.CONFIG_ERROR)
    examples = sum(len(rule.examples) for rule in rules.rules)
    _word(f"{source}: {len(rules.rules)} rules, {len(rules.enabled)} enabled, {examples} examples: ok")


@command.command("edit")
def edit() -> int:
    """Open the file in $VISUAL or $EDITOR; an invalid text does not replace it."""
    from rogue_hunter.config.options import Config
    from rogue_hunter.config.toml import parse
    from rogue_hunter.rules.load import builtin
    from rogue_hunter.rules.load import parse as parse_rules

    target = paths.config_file()
    try:
        text = _read(target).decode("utf-8") if target.exists() else _whole(Config(), builtin(), comment=True)
    except UnicodeDecodeError:
        raise run.Failure(f"{target}: not UTF-8", run.CONFIG_ERROR) from None
    changed = click.edit(text, extension=".toml")
    if changed is None or changed == text:
        run.say("nothing changed")
        return run.OK
    parse(changed.encode(), "the edited text")
    _rules_ok("the edited text", parse_rules(changed.encode(), "the edited text"))
    _write(target, changed)
    _place(str(target))
    return run.OK


@command.command("reset")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> int:
    """Restore the defaults: the file is kept as config.toml.bak."""
    target = paths.config_file()
    if not target.exists():
        run.say("there is no configuration file; the defaults are used")
        return run.OK
    if not yes:
        click.confirm(f"Move {target} to {target.name}.bak?", abort=True, err=True)
    os.replace(target, target.with_name(target.name + ".bak"))
    return run.OK


@command.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion of all commands for a shell, to be evaluated by it."""
    from importlib import import_module

    from click.shell_completion import get_completion_class

    from rogue_hunter.cli import names

    made = get_completion_class(shell)
    if made is None:
        raise run.Failure(f"no completion for {shell}", run.UNAVAILABLE)
    for name in names():
        program = f"rh-{name}"
        one = made(import_module(f"rogue_hunter.cli.{name}").command, {}, program,
                   f"_{program}_COMPLETE".replace("-", "_").upper())
        # source() would first start bash to get its version; the text is the same. Fish's splits help at each comma.
        template = one.source_template.replace('string split ","', 'string split -m 1 ","')
        click.echo(template % one.source_vars())
    return run.OK


def _word(line: str) -> None:
    """Print a line for people; control characters in file names are escaped."""
    from rogue_hunter.text.format import visible

    click.echo(visible(line))


def _place(line: str) -> None:
    """Print a line with a path: escaped on a terminal, unchanged in a pipe, whose reader will open it."""
    if os.isatty(1):
        _word(line)
    else:
        run.emit(os.fsencode(line) + b"\n")


def _target(file: Path | None) -> Path:
    if file is not None:
        return file
    paths.private_dir(paths.config_dir())
    return paths.config_file()


def _read(target: Path) -> bytes:
    """The file as it is; nothing is waited for. Raises FileError for what is no file of a configuration."""
    from rogue_hunter.config.toml import FILE_LIMIT

    return read_trusted(target, FILE_LIMIT)


def _write(target: Path, text: str) -> None:
    """Replace the file in one step; the old one is kept as FILE.bak."""
    paths.private_dir(target.parent) if target == paths.config_file() else None
    if target.exists():
        replace(target.with_name(target.name + ".bak"), _read(target))
    replace(target, text.encode())


main = run.entry(command)
