"""rh-prune: keep the database small."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import path_text, visible

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config


class Size(options.Reading):
    """A size of a file: `500MB`, `1.5GiB`. The value is in bytes."""

    name = "size"

    def read(self, text: str) -> int:
        from rogue_hunter.store.prune import parse_size

        return parse_size(text)


@run.command("rh-prune", """
Examples:
  rh-prune                             as configured: 30 days, 500 MB
  rh-prune --older-than 7d --dry-run   what would be removed?
  rh-prune --max-size 100MB
  rh-prune --print-cron                a line for your crontab
""")
@click.option("--older-than", type=options.Seconds(unit=True), metavar="TIME",
              help="Remove what ended longer ago than this (default: retention.days of the configuration).")
@click.option("--max-size", type=Size(), metavar="SIZE",
              help="Then remove the oldest until the file is not larger (default: retention.max_size_mb).")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before more than half of the history is removed.")
@click.option("--dry-run", is_flag=True, help="Remove nothing; print what would be removed.")
@click.option("--print-cron", is_flag=True, help="Print a crontab line that runs this daily, with full paths.")
@options.stream_options
@options.db_option()
@options.config_option
def command(older_than: float | None, max_size: int | None, yes: bool, dry_run: bool, print_cron: bool,
            form: str | None, db: Path | None, config: Config) -> int:
    """Remove old history from the database and make its file smaller. Open events stay. rh-pipe does so by itself, once
    an hour.

    Prints one record `prune`. On a terminal it asks before it removes more than half of the history. While rh-pipe
    writes to the database, rh-prune asks it over its socket to prune.
    """
    from rogue_hunter.store import prune as pruning

    if print_cron:
        click.echo(options.cron_line("rh-prune", "0 4 * * *", sys.argv[1:]))
        return run.OK
    age = config.retention.days * 86400 if older_than is None else older_than
    limit = config.retention.max_size_mb * 1_000_000 if max_size is None else max_size
    database = options.database_path(db, config)
    now = time.time()
    before = pruning.files_size(database)
    fine_before = now - 3600 * config.retention.slice_hours
    if not (dry_run or yes) and os.isatty(0) and not _confirmed(database, now - age, limit, fine_before):
        run.say("nothing was removed")
        return run.FOUND
    try:
        removed, left = pruning.estimate_file(database, now - age, limit, fine_before) if dry_run else \
            pruning.prune_file(database, now - age, limit, fine_before, run.say)
    except pruning.InUse as refused:
        from rogue_hunter.daemon.socket.client import prune_through_pipe

        answer = prune_through_pipe(database, age, limit, config, refused)
        _print(answer, form)
        return run.OK if answer.get("below_limit", True) else run.FOUND
    after = removed.size_bytes if dry_run else pruning.files_size(database)
    _print(record(
        "prune", ts=now, database=path_text(database), dry_run=dry_run,
        older_than_s=age, max_bytes=limit, removed=removed.rows, before_bytes=before, after_bytes=after,
        below_limit=after <= limit, **left), form)
    if after > limit:
        run.say(f"{database}: still {after / 1e6:.1f} MB, the limit is {limit / 1e6:.1f} MB; " + (
            "a reader keeps the file from shrinking" if removed.size_bytes <= limit else "open events are not removed"))
        return run.FOUND
    return run.OK


def _print(found: Record, form: str | None) -> None:
    from rogue_hunter.report.record_text import prune_words
    from rogue_hunter.report.render import Answer

    run.print_answer(Answer([found], lambda _: f"{prune_words(found)}\n"), run.stream_form(form))


def _confirmed(database: Path, before: float, limit: int, fine_before: float) -> bool:
    """True unless more than half of the history would be removed and the person at the terminal does not want that."""
    from rogue_hunter.store.prune import share_removed

    gone, there = share_removed(database, before, limit, fine_before)
    if 2 * gone <= there:
        return True
    return click.confirm(f"This removes {gone:,} of {there:,} rows of history from {visible(str(database))}. Proceed?",
                         default=False, err=True)


main = run.entry(command)
