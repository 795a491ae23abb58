"""rh-report: what happened, from the database."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from rogue_hunter.cli import options, run
from rogue_hunter.config.options import Config
from rogue_hunter.paths import PathError
from rogue_hunter.report.database import Source, holder, source
from rogue_hunter.report.queries import BY, Period
from rogue_hunter.report.render import Answer, render, style
from rogue_hunter.report.sentences import moment
from rogue_hunter.report.views.catalogue import VIEWS
from rogue_hunter.report.views.status import healthy
from rogue_hunter.report.views.view import Asked, View

_F = TypeVar("_F", bound=Callable[..., Any])

USUAL_PERIOD = "1d"
LIVE_S = 2.0
"""How long rh-pipe has to answer with its slices; it does so between two ticks, in some 10 ms."""


_FORMS = {"table": "A table for people (default on a terminal).",
          "json": "One JSON array, or one object where there is but one answer.",
          "ndjson": "One JSON object a line (default in a pipe).",
          "csv": "Comma separated values with a header."}


def _form_options(function: _F) -> _F:
    for name, doc in reversed(_FORMS.items()):
        function = click.option(f"--{name}", "form", flag_value=name, help=doc)(function)
    return function


@run.command("rh-report", """
Views:
""" + "".join(f"  {' '.join((name, *view.names)):<11} {view.doc}\n" for name, view in VIEWS.items()) + """
\b
Examples:
  rh-report                              which process hogs the machine, worst first
  rh-report why --at 14:32               why was it slow then?
  rh-report pauses --since 7d
  rh-report offenders --since 30d --by unit
  rh-report events --since 2d --command chrome
  rh-report sql "SELECT command, sum(cpu_seconds) s FROM command_minutes GROUP BY 1 ORDER BY s DESC LIMIT 9"
  rh-report diff before.ndjson after.ndjson
  rh-report status --exit-code || systemctl --user restart rogue-hunter
""")
@click.argument("view", type=click.Choice(list(VIEWS)), default=next(iter(VIEWS)), metavar="[VIEW]")
@click.argument("which", metavar="[ID|SELECT|A B]", nargs=-1)
@click.option("--since", type=options.Moment(), metavar="TIME",
              help=f"From this time on (default: {USUAL_PERIOD} ago): 1h30m, today, 14:32, 2026-11-21T14:32, "
                   "@1795244561.")
@click.option("--until", type=options.Moment(), metavar="TIME", help="Up to this time (default: now).")
@click.option("--at", type=options.Moment(), metavar="TIME",
              help="why: this moment (default: now); a time without seconds means its minute.")
@click.option("--command", "text", metavar="TEXT", help="Only commands and command lines that hold this text.")
@click.option("--by", type=click.Choice(BY), help="top, offenders: add up by command (default) or unit of work.")
@click.option("-n", "--limit", type=click.IntRange(0), metavar="N",
              help="At most so many rows, 0 for all (default: 5 in the summary, 20 in tables, else all).")
@_form_options
@click.option("--threads", "part", flag_value="threads", help="capture: its threads only.")
@click.option("--logs", "part", flag_value="logs", help="capture: its log entries only.")
@click.option("--blame", "part", flag_value="blame", help="capture: who held up whom only.")
@click.option("--exit-code", is_flag=True, help="status: exit 1 unless rh-pipe is running and writes.")
@options.db_option()
@options.config_option
def command(view: str, which: tuple[str, ...], since: float | None, until: float | None, at: float | None,
            text: str | None, by: str | None, limit: int | None, form: str | None, part: str | None, exit_code: bool,
            db: Path | None, config: Config) -> int:
    """Say what happened: which process hogs the machine, why it was slow at a time, when it paused and through whom.

    Without a VIEW it is the summary of the last day. Reads the database; works while rh-pipe writes to it.
    """
    chosen = VIEWS[view]
    _fits(view, chosen, which, {"--since, --until or --command": since is not None or until is not None or bool(text),
                                "--at": at is not None, "--by": by is not None, "--exit-code": exit_code,
                                f"--{part or 'threads'}": part is not None})
    now = time.time()
    if chosen.at and since is None and until is None and at is None:
        at = now
    period = Period(options.Moment().convert(USUAL_PERIOD, None, None) if since is None else since,
                    now if until is None else until, text or "")
    if at is not None and (since is not None or until is not None):
        raise run.Failure("--at is a point of time; it goes without --since and --until", run.USAGE)
    if period.since > period.until:
        raise run.Failure(f"--since ({moment(period.since, 0)}) is later than --until ({moment(period.until, 0)})",
                             run.USAGE)
    out = run.output()
    form = run.output_form(form, out.isatty())
    database = options.database_path(db, config, make=False)
    try:
        asked = Asked(period, limit, which, form == "table", at, by or BY[0], part or "",
                      live=partial(_live_slices, database, config))
        answer = _answer(chosen, asked, database, now, config)
        made = render(answer, form, style(sys.stdout, now))
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise _damaged(database, error) from error
    for note in answer.notes:
        run.say(note)
    out.write(made)
    out.flush()
    return run.FOUND if exit_code and not healthy(answer.records[0]) else answer.code


def _live_slices(database: Path, config: Config) -> list[dict[str, Any]]:
    """The slices in the memory of the rh-pipe that writes to this database; nothing if none can be asked."""
    from rogue_hunter.daemon.socket.address import SocketError, socket_path
    from rogue_hunter.daemon.socket.framing import ask
    from rogue_hunter.stream.tick import record

    if not holder(database).held:
        return []
    try:
        found: list[dict[str, Any]] = ask(socket_path(config.socket.path), record("slices_request"), "slices",
                                          LIVE_S)["records"]
    except SocketError:
        return []
    return found


def _damaged(database: Path, error: Exception) -> Exception:
    """What to say of an answer that could not be made: that the file is damaged if it is, else the error itself."""
    from rogue_hunter.store.damage import misfit

    wrong = misfit(database) if database.exists() else None
    return error if wrong is None else run.Failure(f"{database}: damaged: {wrong}", run.IO_ERROR)


def _answer(view: View, asked: Asked, database: Path, now: float, config: Config) -> Answer:
    if view.database == "unused":
        return view.answer(Source(database, now, config), asked)
    with source(database, now, config, needed=view.database == "needed") as found:
        if view is VIEWS["status"] and found.holder.pid is not None:
            found = _asked(found, config)
        return view.answer(found, asked)


def _asked(found: Source, config: Config) -> Source:
    """The source with what the rh-pipe that holds the database tells now: what it wrote may be 10 s old, and it cannot
    write that it cannot write. Unchanged if it serves no socket."""
    from rogue_hunter.daemon.socket.address import SocketError, socket_path
    from rogue_hunter.daemon.socket.framing import Silent, greeting
    from rogue_hunter.host.platform import suspended

    pid = found.holder.pid
    halted = suspended(pid) if pid is not None else None
    if halted is not None:
        return replace(found, silent=f"rh-pipe does not run: {halted}")
    try:
        live = greeting(socket_path(config.socket.path))
    except Silent:
        return replace(found, silent="rh-pipe does not answer on its socket")
    except (SocketError, PathError):
        return found
    return replace(found, live=live) if live.get("pid") == pid else found


def _fits(name: str, view: View, which: tuple[str, ...], given: dict[str, bool]) -> None:
    """Raise Failure for an argument or an option that the view has no use for."""
    if len(which) < len(view.names):
        raise run.Failure(f"{name}: which? give its {' and '.join(view.names[len(which):])}", run.USAGE)
    if len(which) > len(view.names):
        takes = f"takes {len(view.names)} argument{'s' * (len(view.names) > 1)}" if view.names else "takes no argument"
        raise run.Failure(f"{name} {takes}; {which[len(view.names)]!r} is one too many", run.USAGE)
    period, at, by, exit_code, part = given
    if given[period] and view.period == "refused":
        raise run.Failure(f"{name} takes no {period}", run.USAGE)
    for option, fits in ((at, view.at), (by, view.by), (exit_code, name == "status"), (part, view.part)):
        if given[option] and not fits:
            fitting = [n for n, v in VIEWS.items() if {at: v.at, by: v.by, exit_code: n == "status",
                                                             part: v.part}[option]]
            raise run.Failure(f"{option} belongs to the view {' and '.join(fitting)}", run.USAGE)


main = run.entry(command)
