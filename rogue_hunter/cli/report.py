"""rh-report: what happened, from the database."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rogue_hunter.cli import common
from rogue_hunter.config import Config
from rogue_hunter.report.queries import Period
from rogue_hunter.report.render import render, style
from rogue_hunter.report.source import source
from rogue_hunter.report.status import healthy
from rogue_hunter.report.views import VIEWS, Asked, View
from rogue_hunter.report.words import moment

_F = TypeVar("_F", bound=Callable[..., Any])

USUAL_PERIOD = "1d"


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on only
    """A point of time: `1h`, `today`, `14:32`, ISO 8601, `@epoch`. The value is in epoch seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Epoch seconds of the text; a usage error names the forms."""
        from rogue_hunter.timespec import parse_time

        try:
            return parse_time(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


_FORMS = {"table": "A table for people (default on a terminal).",
          "json": "One JSON array, or one object for summary, event and status.",
          "ndjson": "One JSON object a line (default in a pipe).",
          "csv": "Comma separated values with a header."}


def _form_options(function: _F) -> _F:
    for name, doc in reversed(_FORMS.items()):
        function = click.option(f"--{name}", "form", flag_value=name, help=doc)(function)
    return function


@common.command("rh-report", """
Views:
""" + "".join(f"  {name + ' ' + view.names:<10} {view.doc}\n" for name, view in VIEWS.items()) + """
\b
Examples:
  rh-report                              which process hogs the machine, worst first
  rh-report --since yesterday --until today
  rh-report events --since 2d --command chrome
  rh-report event 42
  rh-report top --since 7d --csv
  rh-report status --exit-code || systemctl --user restart rogue-hunter
  rh-report events | jq -c 'select(.peak_score >= 80) | [.command, .duration_s]'
""")
@click.argument("view", type=click.Choice(list(VIEWS)), default=next(iter(VIEWS)), metavar="[VIEW]")
@click.argument("which", metavar="[ID]", required=False)
@click.option("--since", type=Moment(), metavar="TIME",
              help=f"From this time on (default: {USUAL_PERIOD} ago): 1h30m, today, 14:32, 2026-11-21T14:32, "
                   "@1795244561.")
@click.option("--until", type=Moment(), metavar="TIME", help="Up to this time (default: now).")
@click.option("--command", "text", metavar="TEXT", help="Only commands and command lines that hold this text.")
@click.option("-n", "--limit", type=click.IntRange(0), metavar="N",
              help="At most so many rows, 0 for all (default: 5 in the summary, 20 in tables, else all).")
@_form_options
@click.option("--exit-code", is_flag=True, help="status: exit 1 unless rh-pipe is running and writes.")
@common.db_option
@common.config_option
def command(view: str, which: str | None, since: float | None, until: float | None, text: str | None, limit: int | None,
            form: str | None, exit_code: bool, db: Path | None, config: Config) -> int:
    """Say what happened: which process hogs the machine, the events, one event in full, the worst commands, the state.

    Without a VIEW it is the summary of the last day. Reads the database; works while rh-pipe writes to it.
    """
    chosen = VIEWS[view]
    _fits(view, chosen, which, since is not None or until is not None or bool(text), exit_code)
    now = time.time()
    period = Period(Moment().convert(USUAL_PERIOD, None, None) if since is None else since,
                    now if until is None else until, text or "")
    if period.since > period.until:
        raise common.Failure(f"--since ({moment(period.since, 0)}) is later than --until ({moment(period.until, 0)})",
                             common.USAGE)
    out = common.output()
    terminal = out.isatty()
    form = form or ("table" if terminal else "ndjson")
    with source(common.database_path(db, config, make=False), now, config, needed=view != "status") as found:
        answer = chosen.answer(found, Asked(period, limit, which or "", form == "table"))
    out.write(render(answer, form, style(sys.stdout, now)))
    out.flush()
    return common.FOUND if exit_code and not healthy(answer.records[0]) else common.OK


def _fits(name: str, view: View, which: str | None, period: bool, exit_code: bool) -> None:
    """Raise Failure for an argument or an option that the view has no use for."""
    if view.names and which is None:
        raise common.Failure(f"{name}: which? give its {view.names}", common.USAGE)
    if which is not None and not view.names:
        raise common.Failure(f"{name} takes no argument; {which!r} is one too many", common.USAGE)
    if period and not view.period:
        raise common.Failure(f"{name} takes no --since, --until or --command", common.USAGE)
    if exit_code and name != "status":
        raise common.Failure("--exit-code belongs to the view status", common.USAGE)


main = common.entry(command)
