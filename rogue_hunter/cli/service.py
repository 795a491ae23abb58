"""rh-service: run rh-pipe as a service of this user."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rogue_hunter import paths
from rogue_hunter.commandline import options, run
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import record

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.service.platform import Manager

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Which:
    """The service that is meant. `kind`: systemd, launchd, system, or None for that of this machine."""

    kind: str | None
    program: str


def _manager_option(function: _F) -> _F:
    """--manager, --system and --program: they reach the command as `manager`."""
    @functools.wraps(function)
    def chosen(*args: Any, manager: str | None, system: bool, program: str, **more: Any) -> Any:
        run.exclude((system and manager, "--system and --manager exclude each other"),
                    (system and program != "rh-pipe", "--system is for rh-pipe"))
        return function(*args, manager=_Which("system" if system else manager, program), **more)

    for option in (
        click.option("--program", type=click.Choice(["rh-pipe", "rh-ship", "rh-hub"]), default="rh-pipe",
                     show_default=True, help="The command that is the service."),
        click.option("--manager", type=click.Choice(["systemd", "launchd"]),
                     help="Service manager (default: that of this machine)."),
        click.option("--system", is_flag=True,
                     help="Linux: one service for all processes, under a user of its own; for root."),
    ):
        chosen = option(chosen)
    return chosen  # type: ignore[return-value]


@run.group("rh-service", """
Examples:
  rh-service install            start rh-pipe now and at every login
  rh-service install --print    only print the unit file or property list
  rh-service status && rh-service logs -n 20
  rh-service uninstall          keeps the history
  sudo rh-service install --system    one service for all processes and users
  rh-service install --program rh-ship -- -s tls://nats.example:4222
""")
def command() -> None:
    """Run rh-pipe as a service of this user: systemd on Linux, launchd on macOS."""


@command.command("install")
@click.option("--print", "print_only", is_flag=True, help="Write the file to standard output and change nothing.")
@click.option("--tailspin", is_flag=True,
              help="macOS: record the kernel's trace (tailspin) and let rh-pipe save it at a pause. Asks for your "
                   "password for sudo.")
@options.hz_option
@options.db_option()
@click.option("--socket", type=click.Path(path_type=Path), metavar="FILE", help="Serve this socket.")
@options.config_file_option("Configuration file of the service (default: the user's).")
@_manager_option
@click.argument("arguments", nargs=-1)
def install(print_only: bool, tailspin: bool, hz: float | None, db: Path | None, socket: Path | None,
            config_file: Path | None, manager: _Which, arguments: tuple[str, ...]) -> int:
    """Write the file of the service; start it now and at every login. Running it again updates the file.

    ARGUMENTS after -- are those of --program rh-ship or rh-hub.
    """
    from rogue_hunter.service.systemd import lingers

    config = _config(config_file)
    pipe = manager.program == "rh-pipe"
    run.exclude((pipe and arguments, "rh-pipe takes the options of this command, and no arguments"),
                (not pipe and (hz or socket or tailspin), "--hz, --socket and --tailspin are for rh-pipe"),
                (manager.program == "rh-hub" and config_file is not None, "rh-hub has no configuration file"))
    words: list[str] = list(arguments)
    for flag, value in (("--config", config_file), ("--db", db), ("--socket", socket)):
        words += [flag, str(value.absolute())] if value is not None else []
    words += ["--hz", f"{hz:g}"] if hz else []
    service = _service(manager, words)
    if print_only:
        click.echo(_sudoers(config).text if tailspin else service.text(), nl=False)
        return run.OK
    if tailspin and service.kind != "launchd":
        raise run.Failure("--tailspin is for macOS: Linux needs no such rule", run.USAGE)
    if os.geteuid() == 0 and service.kind == "launchd":
        raise run.Failure("run it as the user of the session, not with sudo", run.FOUND)
    _say(service.install())
    if tailspin:
        _say(_sudoers(config).install())
        _say(_tailspin().install())
    if service.kind == "systemd" and manager.kind == "system":
        run.say(f"its history is in {paths.SYSTEM_DATABASE.parent}: sudo rh-report")
    elif service.kind == "systemd" and not lingers():
        run.say("it stops at logout; to keep it: loginctl enable-linger")
    return run.OK


@command.command("uninstall")
@click.option("--purge", is_flag=True, help="Also delete the history and the log; the configuration stays.")
@click.option("--yes", is_flag=True, help="With --purge: do not ask for confirmation.")
@options.config_option
@_manager_option
def uninstall(purge: bool, yes: bool, config: Config, manager: _Which) -> int:
    """Stop the service and remove its file. The history stays, unless --purge is given."""
    if purge and not yes:
        if not sys.stdin or not sys.stdin.isatty():
            raise run.Failure("--purge deletes the history; without a terminal it needs --yes", run.FOUND)
        click.confirm(f"Delete {paths.data_dir()} and {paths.state_dir()}?", abort=True, err=True)
    service = _service(manager)
    _say(service.uninstall())
    if service.kind == "launchd" and manager.program == "rh-pipe":
        _say(_sudoers(config).uninstall())
        _say(_tailspin().uninstall())
    if purge:
        _purge()
    return run.OK


def _does(verb: str, doc: str) -> None:
    """A command that has the service manager do this."""
    def do(manager: _Which) -> int:
        _say(getattr(_service(manager), verb)())
        return run.OK

    command.command(verb, help=doc)(_manager_option(do))


_does("start", "Start the installed service.")
_does("stop", "Stop it until the next login, or until it is started.")
_does("restart", "Stop it and start it again.")


@command.command("status")
@options.form_options("table", table="Text for people (default on a terminal).")
@click.option("--ndjson", "--json", "form", flag_value="ndjson", help="Print a record, also on a terminal.")
@options.config_option
@_manager_option
def status(form: str | None, config: Config, manager: _Which) -> int:
    """Print the state of the service. Exit 0 if it runs, 69 if not."""
    from rogue_hunter.report.render import Answer, pairs

    service = _service(manager)
    state = service.state()
    rule = _sudoers(config).installed() if service.kind == "launchd" and manager.program == "rh-pipe" else None
    fields: dict[str, Any] = {
        "manager": service.kind, "name": service.name, "file": str(service.file), "installed": state.installed,
        "current": state.current, "enabled": state.enabled, "state": state.state, "pid": state.pid,
        "exit_code": state.exit_code, "signal": state.signal, "exit_reason": state.exit_reason, "runs": state.runs,
        "says": state.says, "sudoers": rule, "tailspin": _tailspin().enabled() if rule is not None else None}
    answer = Answer([record("service", **fields)], lambda look: pairs(
        [(name, {True: "yes", False: "no"}.get(value, str(value))) for name, value in fields.items()
         if value is not None], look), single=True, code=run.OK if state.state == "running" else run.UNAVAILABLE)
    form = run.stream_form(form)
    if form == "table" and state.current is False:
        run.say("the file is outdated: rh-service install updates it")
    if form == "table" and rule and fields["tailspin"] is False:
        run.say("macOS records no trace, so captures have none: rh-service install --tailspin enables it")
    return run.print_answer(answer, form)


@command.command("logs")
@click.option("-n", "--lines", type=options.Whole(0), default=20, show_default=True, metavar="N",
              help="Number of entries.")
@click.option("-f", "--follow", is_flag=True, help="Wait for further entries and print them.")
@click.option("--json", "as_json", is_flag=True, help="Print records, also on a terminal.")
@options.config_option
def show_logs(lines: int, follow: bool, as_json: bool, config: Config) -> int:
    """Print the log of rh-pipe: records in a pipe, lines for people on a terminal."""
    from rogue_hunter.daemon import log

    file = log.log_path(config.log)
    out = run.output()
    people = os.isatty(1) and not as_json
    for line in log.last(file, config.log.keep, lines):
        out.write(_for_people(line) if people else line)
    out.flush()
    if not follow:
        return run.OK
    for line in log.follow(file):
        if line:
            out.write(_for_people(line) if people else line)
            out.flush()
    return run.OK


def _for_people(line: bytes) -> bytes:
    from rogue_hunter.text.format import visible

    try:
        entry = wire.loads(line)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["ts"]))
        text = f"{when} {entry['level']:<7} {entry.get('source', '?')}: {entry['message']}"
    except (ValueError, KeyError, TypeError, OverflowError):
        text = line.decode("utf-8", "backslashreplace")
    return (visible(text.rstrip("\n")) + "\n").encode(sys.stdout.encoding or "utf-8", "replace")


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        run.say(line)


def _config(file: Path | None) -> Config:
    from rogue_hunter.config.toml import load

    return load(file, paths.config_file())


def _service(manager: _Which, words: Sequence[str] | None = None) -> Manager:
    """The service manager, with these arguments; without `words`, with those of the installed file."""
    from rogue_hunter.service.manager import program
    from rogue_hunter.service.platform import here

    platform = {"systemd": "linux", "launchd": "darwin"}.get(manager.kind or "", sys.platform)
    errors = paths.state_dir() / f"{manager.program}.err"
    system = manager.kind == "system"
    if words is None:
        made = here(program(name=manager.program), errors, platform=platform, system=system)
        words = made.arguments()
    return here(program(words, name=manager.program), errors, platform=platform, system=system)


def _sudoers(config: Config) -> Any:
    """The rule for tailspin, for this user; under sudo, for the user who called it."""
    import pwd

    from rogue_hunter.service.tailspin import Sudoers

    caller = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    uid = int(caller) if caller.isascii() and caller.isdecimal() else os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    return Sudoers(user, uid, config.forensics.tailspin_file)


def _tailspin() -> Any:
    from rogue_hunter.service.tailspin import Tailspin, root_prefix

    return Tailspin(paths.state_dir() / "tailspin.before", root_prefix())


def _purge() -> None:
    """Delete the data, state and runtime directories; each must be private."""
    from rogue_hunter.service.manager import ServiceError

    for directory in (paths.data_dir(), paths.state_dir(), paths.runtime_dir()):
        if not os.path.lexists(directory):
            continue
        paths.private_dir(directory)
        try:
            shutil.rmtree(directory)
        except OSError as error:
            raise ServiceError(f"{directory}: {error.strerror}", 74) from None
        run.say(f"deleted {directory}")


main = run.entry(command)
