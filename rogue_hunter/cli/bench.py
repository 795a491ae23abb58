"""rh-bench: what rogue-hunter costs on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.report.render import Style
    from rogue_hunter.stream.tick import Record


@run.command("rh-bench", """
Examples:
  rh-bench                  ten seconds, a table
  rh-bench --json | jq '.[] | select(.part == "tick") | .core_percent'
""")
@click.option("--seconds", type=options.Number(1, 600), default=10.0, show_default=True, metavar="N",
              help="Time to measure, seconds.")
@click.option("--iterations", type=options.Whole(1, 1_000_000), default=1000, show_default=True,
              metavar="N", help="Runs of one part within that time, at most.")
@options.form_options()
@options.host_options
@options.config_option
def command(seconds: float, iterations: int, form: str | None, proc_root: Path, libproc: str | None,
            config: Config) -> int:
    """Measure what each part of rogue-hunter costs here, in CPU time, on the processes that run now."""
    from rogue_hunter import bench
    from rogue_hunter.host.platform import here, lister
    from rogue_hunter.report.render import Answer
    from rogue_hunter.rules.load import load

    found = []
    for made in bench.measures(lambda: here(proc_root, libproc), lister(proc_root, libproc), load(), config,
                               bench.Limits(seconds, iterations)):
        found.append(made)
        if sys.stderr is not None and sys.stderr.isatty():
            run.say(f"{made['part']} measured")
    return run.print_answer(Answer(found, lambda look: _text(found, look)), form)


def _text(found: list[Record], look: Style) -> str:
    from rogue_hunter.report.render import table

    rows = [[r["part"], f"{r['median_ms']:.2f}", f"{r['mean_ms']:.2f}", f"{r['min_ms']:.2f}", f"{r['max_ms']:.2f}",
             f"{r['runs']}", f"{r['us_per_process']:.1f}",
             f"{r['core_percent']:.2f} %" if "core_percent" in r else "", r["meaning"]]
            for r in found if "median_ms" in r]
    memory = next(r["memory_bytes"] for r in found if "memory_bytes" in r)
    head = ["PART", "MEDIAN", "AVERAGE", "LEAST", "MOST", "RUNS", "US/PROC", "CORE", "WHAT"]
    return (f"{found[0]['processes']} processes; milliseconds of CPU time\n\n"
            + table(head, rows, look, right="MEDIAN AVERAGE LEAST MOST RUNS US/PROC CORE",
                    drop="LEAST MOST RUNS AVERAGE US/PROC")
            + f"\nmemory {memory / 1e6:.1f} MB at its highest\n")


main = run.entry(command)
