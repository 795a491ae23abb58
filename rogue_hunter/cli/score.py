"""rh-score: score how much of a hog each process is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config


@run.command("rh-score", """
Examples:
  rh-sample -n 3 | rh-score --min-score 45 | jq -c '[.pid, .score]'
  rh-sample -n 3 | rh-score --top 3 --explain | jq .terms
  rh-score --model stress < recorded.ndjson
  rh-score -c other.toml < recorded.ndjson    the same ticks, other settings
""")
@click.option("--model", type=click.Choice(["share", "stress"]),
              help="Scoring model (default: the configured one, share).")
@click.option("--explain", is_flag=True, help="Add `terms`: what each resource or input contributed.")
@click.option("--min-score", type=options.Whole(0, 100), metavar="N", help="Only processes with this score or more.")
@click.option("--top", type=options.Whole(1), metavar="N", help="Only the N highest scores, highest first.")
@options.stream_options
@options.config_option
def command(model: str | None, explain: bool, min_score: int | None, top: int | None,
            form: str | None, config: Config) -> int:
    """Read ticks, add a score from 0 to 100, its band and its reasons to every process, and print the ticks."""
    from rogue_hunter.scoring.stage import Least, Score
    from rogue_hunter.stream.pipeline import Stage, chain

    out = run.output()
    ticks, finish = run.read_ticks("rh-score")
    stages: list[Stage] = [Score(config, model, explain)]
    if min_score is not None or top is not None:
        stages.append(Least(min_score, top))
    run.write_ticks(chain(ticks, *stages), out, run.stream_form(form))
    return finish()


main = run.entry(command)
