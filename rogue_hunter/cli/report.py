"""rh-report: what happened, from the database. One subcommand for each view, made when it is called."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.report.render import Answer
    from rogue_hunter.report.views.view import Asked
    from rogue_hunter.stream.tick import Record

USUAL_PERIOD = "1d"

_AT = click.option("--at", type=options.Moment(), metavar="TIME",
                   help="This moment (default: now); a time without seconds means its minute.")
_BY = click.option("--by", type=click.Choice(["command", "unit"]), default="command", show_default=True,
                   help="Add up by command or by unit of work.")
_USED = click.option("--by", type=click.Choice(["cpu", "disk", "memory", "gpu", "wakeups"]), default="cpu",
                     show_default=True, help="The resource by which commands are ranked.")
_PARTS = tuple(click.option(f"--{part}", "part", flag_value=part, help=doc) for part, doc in (
    ("threads", "Only its threads."), ("logs", "Only its log entries."), ("blame", "Only who blocked whom.")))
_ONELINE = click.option("--oneline", "part", flag_value="oneline",
                        help="One short line, for the status line of tmux, a bar or a prompt.")
_ABOUT = (
    click.option("--pause", "pause_id", metavar="ID", help="The time of this pause (see `rh-report pauses`)."),
    click.option("--event", "event_id", metavar="ID", help="The time of this event (see `rh-report events`)."),
    click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
                 help="Write to this file, which only you can read, instead of standard output."))
_FLAME = (click.option("--pause", "pause_id", metavar="ID", help="The stacks of this pause (see `rh-report pauses`)."),
          click.option("--capture", "capture_id", metavar="ID",
                       help="The stacks of this capture (see `rh-report captures`)."),
          click.option("--speedscope", "part", flag_value="speedscope",
                       help="A file for the viewer speedscope instead of collapsed stacks."))
_REPORTS = click.option("--reports", type=click.Path(path_type=Path, file_okay=False), multiple=True, metavar="DIR",
                        help="Directory of diagnostic reports of macOS; repeatable (default: those of this Mac).")
_HUB = click.option("--hub", metavar="HOST", help="What a hub has of this host (its identity or name); -d FILE is the "
                    "hub's file then.")
_ON_HUB = frozenset({"summary", "why", "pauses", "offenders", "timeline", "minutes", "usage", "events", "top",
                     "actions"})
"""The views that a hub can answer: stacks, captures' parts and matches stay on the hosts."""
_EXIT_CODE = click.option("--exit-code", is_flag=True, help="Exit 1 unless rh-pipe is running and writes.")


@dataclass(frozen=True, slots=True)
class View:
    """One view: what it answers, and what it takes.

    `file`: the answer is a file of this kind, in a form of its own.

    `place` is `module:function` in rogue_hunter.report.views; the function takes a Source and an Asked and returns an
    Answer. `names` are its arguments. `period`: used, ignored (accepted, so that a script can give all views the same
    options) or refused. `database`: needed, optional or unused. `usual` is the default limit in a table; a view without
    one accepts and ignores -n. `form` is the usual form, also in a pipe; None is that of all commands. `more` are
    options of this view only.
    """

    place: str
    doc: str
    names: tuple[str, ...] = ()
    period: str = "used"
    database: str = "needed"
    usual: int | None = None
    form: str | None = None
    more: tuple[Callable[[Any], Any], ...] = ()
    file: str = ""


VIEWS: dict[str, View] = {
    "summary": View("summary:summary_view", "which process hogs the machine, the worst first", usual=5),
    "why": View("why:why_view", "why was it slow --at TIME (default: now)? causes, and what was ruled out", usual=0,
                more=(_AT, _REPORTS)),
    "pauses": View("pauses:pauses", "stalls of the machine, with resource and culprit", usual=20),
    "pause": View("pauses:pause", "one pause with all culprits and the evidence", ("ID",), "refused"),
    "offenders": View("events:offenders", "minutes of pause that each command caused", usual=20, more=(_BY,)),
    "timeline": View("events:timeline", "pauses, events, sleep, and what macOS recorded, newest first", usual=40,
                     more=(_REPORTS,)),
    "minutes": View("events:minutes", "the machine minute by minute, newest first", usual=20),
    "usage": View("events:usage", "what each command used, by CPU, disk, memory, GPU or wakeups", usual=20,
                  more=(_USED,)),
    "events": View("events:events", "events of rogue processes, newest first", usual=20, more=(_REPORTS,)),
    "event": View("events:event", "one event with its snapshots and the range of each metric", ("ID",), "refused"),
    "captures": View("captures:captures", "captured evidence of bad moments, newest first", usual=20),
    "capture": View("captures:capture", "one capture: who blocked whom, threads, log", ("ID",), "refused", usual=0,
                    more=_PARTS),
    "flame": View("captures:flame", "collapsed stacks of a pause or a capture (default: the last one), for a flame "
                  "graph", form="table", more=_FLAME),
    "top": View("events:top", "commands by their time at or above the tracking band", usual=20, more=(_BY,)),
    "actions": View("events:actions", "what the reaper did or refused, and why, newest first", usual=20),
    "matches": View("events:matches", "processes that matched a rule (in observe mode: what armed mode would have "
                    "killed)", usual=20),
    "status": View("status:status", "whether rh-pipe runs, and its state", (), "ignored", "optional",
                   more=(_ONELINE, _EXIT_CODE)),
    "html": View("incident:html", "a page about a time, a pause or an event, for a browser; needs no network",
                 more=(_AT, *_ABOUT), file="html"),
    "trace": View("incident:trace", "pauses, events, CPU usage and captures as a trace for Perfetto",
                  more=(_AT, *_ABOUT), file="json"),
    "sql": View("sql:sql", "the rows of one SELECT", ("SELECT",), "refused", usual=20),
    "diff": View("diff:diff", "commands whose band differs between recordings A and B", ("A", "B"), "refused", "unused",
                 usual=40),
    "datasette": View("sql:datasette", "the command that starts Datasette on the database", (), "ignored",
                      "unused"),
}
"""The views, in the order of --help. The first is the default."""

_LISTED = {"pause": "pauses", "event": "events", "capture": "captures"}
"""View of one thing -> view that lists its IDs."""


def _view_options(name: str, view: View) -> list[Callable[[Any], Any]]:
    """The decorators of a view's options, in the order of --help."""
    period = [
        ("--since", "since", options.Moment(), "TIME", f"Start of the period (default: {USUAL_PERIOD} ago): 1h30m, "
         "today, 14:32, 2026-11-21T14:32, @1795244561."),
        ("--until", "until", options.Moment(), "TIME", "End of the period (default: now)."),
        ("--command", "text", None, "TEXT", "Only commands and command lines that contain this text.")]
    usual = {None: "", 0: " (default: all)"}.get(view.usual, f" (default: {view.usual} in tables, else all)")
    usual = " (default: 5)" if view.usual == 5 else usual
    usual_options: list[Callable[[Any], Any]] = [
        *view.more, *((_HUB,) if name in _ON_HUB else ()),
        *(click.option(flag, name, type=kind, metavar=metavar, help=doc, hidden=view.period == "ignored")
          for flag, name, kind, metavar, doc in period if view.period != "refused"),
        options.db_option(), options.config_option, run.version_option("rh-report"),
    ]
    return usual_options if view.file else [
        *usual_options[:-3],
        click.option("-n", "--limit", type=options.Whole(0), metavar="N", hidden=view.usual is None,
                     help=f"At most N rows, 0 for all{usual}."),
        options.form_options(json="One JSON array, or one object if there is only one answer."),
        click.option("--columns", metavar="A,B", help="Only these fields, in this order."),
        click.option("--format", "template", metavar="TEXT",
                     help="A line for each record, such as '{peak_score} {command}'."),
        click.option("--epoch", is_flag=True, help="CSV: times as seconds since 1970, not as local time."),
        *usual_options[-3:],
    ]


class _ViewCommand(click.Command):
    """A view as a command, with error messages that name the views that have an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError."""
        name = self.name or ""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            having = [view for view in VIEWS if error.option_name in _flags(_made(view))]
            if not having or len(having) > 5:
                raise
            verb = "have" if len(having) > 1 else "has"
            which = " and ".join(filter(None, (", ".join(having[:-1]), having[-1])))
            message = f"{name} has no option {error.option_name}; {which} {verb}"
            raise click.UsageError(message, ctx) from None
        except click.MissingParameter as error:
            missing = error.param.make_metavar(ctx) if error.param is not None else ""
            where = f" (see rh-report {_LISTED[name]})" if name in _LISTED else ""
            raise click.UsageError(f"{name}: missing {missing}{where}", ctx) from None


class Views(click.Group):
    """rh-report: the first argument that is not an option is the view; options may stand on either side of it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the views."""
        return list(VIEWS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a view."""
        return _made(cmd_name) if cmd_name in VIEWS else None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of the group; for the shell's completion those of the default view, which may be left out."""
        return _made(next(iter(VIEWS))).get_params(ctx) if ctx.resilient_parsing else super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments with the view first. The shell's completion may still add a view."""
        add = not ctx.resilient_parsing or _first_argument(args) is not None
        return super().parse_args(ctx, self.ordered(args) if add else args)

    def ordered(self, args: list[str]) -> list[str]:
        """The arguments with the view first; without one it is the summary, and --help describes all views."""
        at = _first_argument(args)
        if at is not None:
            return [args[at], *args[:at], *args[at + 1:]]
        return ["--help"] if {"-h", "--help"} & set(args) else [next(iter(VIEWS)), *args]

    def resolve_command(self, ctx: click.Context, args: list[str]
                        ) -> tuple[str | None, click.Command | None, list[str]]:
        """The view's command. Raises UsageError with the names of the views."""
        if args[0] not in VIEWS and not ctx.resilient_parsing:
            raise click.UsageError(f"no such view: {args[0]!r}; views: {', '.join(VIEWS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the default view, then the views."""
        _made(next(iter(VIEWS))).format_options(ctx, formatter)
        with formatter.section("Views (rh-report VIEW --help prints the options of one)"):
            formatter.write_dl([(" ".join((name, *view.names)), view.doc) for name, view in VIEWS.items()])


def _flags(command: click.Command) -> list[str]:
    return [flag for param in command.params if isinstance(param, click.Option) for flag in param.opts]


def _first_argument(args: Sequence[str]) -> int | None:
    """The index of the first word that is neither an option nor the value of one."""
    valued: set[str] | None = None
    skip = False
    for i, word in enumerate(args):
        if skip:
            skip = False
        elif word == "--":
            return i + 1 if i + 1 < len(args) else None
        elif len(word) < 2 or not word.startswith("-"):
            return i
        else:
            if valued is None:
                valued = {flag for name in VIEWS for param in _made(name).params
                          if isinstance(param, click.Option) and not param.is_flag for flag in param.opts}
            skip = word in valued
    return None


def _made(name: str) -> click.Command:
    """The command of a view, with its arguments and options."""
    view = VIEWS[name]

    def answer(hub: str | None = None, **given: Any) -> int:
        which = tuple(given[word.lower()] for word in view.names)
        if hub is None:
            return _print(view, which, **given)
        with _history(hub, given) as file:
            return _print(view, which, **{**given, "db": file})

    made = answer
    for option in reversed(_view_options(name, view)):
        made = option(made)
    for word in reversed(view.names):
        made = click.argument(word.lower(), metavar=word)(made)
    doc = f"{view.doc[0].upper()}{view.doc[1:]}."
    return click.command(name, cls=_ViewCommand, help=doc, context_settings=run.CONTEXT)(made)


def _print(view: View, which: tuple[str, ...], *, db: Path | None, config: Config, form: str | None = None,
           limit: int | None = None, columns: str | None = None, template: str | None = None, epoch: bool = False,
           pause_id: str | None = None, event_id: str | None = None, output: Path | None = None,
           since: float | None = None, until: float | None = None,
           at: float | None = None, text: str | None = None, by: str = "command", part: str | None = None,
           exit_code: bool = False, capture_id: str | None = None, reports: tuple[Path, ...] = (),
           **_names: str) -> int:
    from rogue_hunter.daemon.socket.client import live_slices
    from rogue_hunter.report.queries import Period
    from rogue_hunter.report.sentences import moment
    from rogue_hunter.report.views.view import Asked
    from rogue_hunter.store.database import damaged

    now = time.time()
    span = since is not None or until is not None
    run.exclude((at is not None and span, "--at is a moment; it cannot be combined with --since or --until"),
                (sum((span or at is not None, bool(pause_id), bool(event_id))) > 1,
                 "a pause, an event and a time exclude each other"),
                (view.file and output is None and os.isatty(1),
                 f"the {view.file} is for another program: > FILE, or -o FILE"))
    if _AT in view.more and not view.file and not span and at is None:
        at = now
    period = Period(options.Moment().convert(USUAL_PERIOD, None, None) if since is None else since,
                    now if until is None else until, text or "")
    if period.since > period.until:
        raise run.Failure(f"--since ({moment(period.since, 0)}) is later than --until ({moment(period.until, 0)})",
                          run.USAGE)
    form = run.output_form(form or ("table" if part == "oneline" or view.file else view.form))
    database = options.database_path(db, config, system=True)
    asked = Asked(period, limit, which, form == "table" and template is None, at, by, part or "", exit_code,
                  live=live_slices, pause=pause_id or "", event=event_id or "",
                  capture=capture_id or "", recorded=partial(_recorded, reports))
    try:
        answer = _answer(view, asked, database, now, config)
        if output is not None:
            return run.write_answer(answer, output)
        return run.print_answer(answer, form, now=now, fields=columns.split(",") if columns else (), epoch=epoch,
                                template=template)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise damaged(database, error) from error


@contextmanager
def _history(host: str, given: Mapping[str, Any]) -> Iterator[Path]:
    """A database of what a hub has of a host about the time that is asked for."""
    import tempfile

    from rogue_hunter import paths
    from rogue_hunter.fleet.history import find_host, write_history
    from rogue_hunter.fleet.hub import query
    from rogue_hunter.report.verdict_text import count

    ask = partial(query, given["db"] or paths.data_dir() / "hub.duckdb")
    at, now = given.get("at"), time.time()
    since, until = (at - 3600.0, at + 3600.0) if at is not None else (given.get("since"), given.get("until"))
    with tempfile.TemporaryDirectory(prefix="rh-report-") as place:
        file = Path(place) / "history.db"
        begin = options.Moment().convert(USUAL_PERIOD, None, None) if since is None else since
        wrong = write_history(ask, find_host(ask, host), begin, now if until is None else until, file)
        if wrong:
            run.say(f"{count(wrong, 'row')} of this host malformed and left out")
        yield file


def _recorded(reports: tuple[Path, ...], since: float, until: float) -> list[Record]:
    """What macOS recorded between two times; what could not be read is printed on standard error."""
    from rogue_hunter.capture.reports.collect import recorded

    found, problems = recorded(since, until, reports or None)
    for problem in problems:
        run.say(problem)
    return found


def _answer(view: View, asked: Asked, database: Path, now: float, config: Config) -> Answer:
    from rogue_hunter.daemon.socket.client import with_live_state
    from rogue_hunter.report.queries import Source, source

    module, function = view.place.split(":")
    answer: Callable[[Source, Asked], Answer] = getattr(import_module(f"rogue_hunter.report.views.{module}"), function)
    if view.database == "unused":
        return answer(Source(database, now, config), asked)
    with source(database, now, config, needed=view.database == "needed") as found:
        return answer(with_live_state(found) if view.database == "optional" else found, asked)


@run.group("rh-report", """
Examples:
  rh-report                  which process hogs the machine, worst first
  rh-report why --at 14:32   why was it slow then?
  rh-report pauses --since 7d
  rh-report offenders --since 30d --by unit
  rh-report usage --by disk --since 8h
  rh-report flame --pause 12 | flamegraph.pl > pause.svg
  rh-report events --since 2d --command chrome
  rh-report events --csv --columns entry_time,command,peak_score > events.csv
  rh-report --since 10m --format '{peak_score} {command} (pid {pid})'
  rh-report html --at 14:32 > incident.html
  rh-report trace --since 1h -o trace.json    open it in Perfetto
  rh-report sql "SELECT command, count(*) FROM process_events GROUP BY 1"
  rh-report diff before.ndjson after.ndjson
  rh-report status --oneline             for the status line of tmux
  rh-report status --exit-code || systemctl --user restart rogue-hunter
""", cls=Views, subcommand_metavar="[VIEW] [ARGUMENTS]", options_metavar="[OPTIONS]")
def command() -> None:
    """Report what happened: which process hogs the machine, why it was slow at a time, when it stalled and because of
    which process.

    Without a VIEW: the summary of the last day. Reads the database, also while rh-pipe writes to it.
    """


main = run.entry(command)
