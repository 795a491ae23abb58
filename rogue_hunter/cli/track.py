"""rh-track: events of processes that stay rogue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run
from rogue_hunter.stream.pipeline import chain

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config


@run.command("rh-track", """
Examples:
  rh-sample | rh-score | rh-track | jq -c '[.kind, .command, .score, .reason]'
  rh-sample | rh-score | rh-track --db x.db --tee | rh-match
""")
@options.db_option("Store the events in this database.")
@click.option("--tee", is_flag=True, help="Print the ticks too, not only the events.")
@click.option("--model", type=click.Choice(["share", "stress"]),
              help="Which model's bands to use (default: the configured model's).")
@options.stream_options
@options.config_option
def command(db: Path | None, tee: bool, model: str | None, form: str | None, config: Config) -> int:
    """Read scored ticks and print an event record when a process reaches, moves within or leaves the tracking band.

    With --db the events are stored too.
    """
    from rogue_hunter.tracking.events import Track

    out = run.output()
    ticks, finish = run.read_ticks("rh-track")
    form, keep = run.stream_form(form), None if tee else lambda _: True
    scored = run.NeedScores(_no_scores)
    if db is None:
        run.write_ticks(chain(ticks, scored, Track(config, model)), out, form, keep)
        return finish()
    from rogue_hunter.store.database import Lock
    from rogue_hunter.store.writer import Store, Writer

    lock = Lock(db)
    writer = Writer(db, config.store, time.time, run.say)
    try:
        stored = Store(writer)
        writer.tells(stored.state)
        run.write_ticks(chain(ticks, scored, Track(config, model, writer.open_events()), stored), out, form, keep)
    finally:
        writer.close()
        lock.release()
    return finish()


def _no_scores() -> None:
    raise run.Failure("the input holds no scores; run it through rh-score", run.BAD_INPUT)


main = run.entry(command)
