"""rh-pipe: the background pipe."""

from __future__ import annotations

import time
from pathlib import Path

import click

from rogue_hunter import pipe
from rogue_hunter.cli import common
from rogue_hunter.config import Config
from rogue_hunter.host import here


@common.command("rh-pipe", """
Examples:
  rh-pipe --for 20s --report           watch for 20 seconds, then say who hogs the machine
  rh-pipe                              until stopped; rh-report reads what it writes
  rh-pipe --tee | jq -c 'select(.type == "event")'
""")
@common.hz_option
@click.option("--for", "seconds", type=common.Seconds(), metavar="TIME", help="Stop after this time (90s, 1h30m).")
@common.db_option
@click.option("--tee", is_flag=True, help="Print every tick as NDJSON as well.")
@click.option("--report", is_flag=True, help="At the end, print the summary of rh-report for this run.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing on standard error but errors.")
@common.host_options
@common.config_option
def command(hz: float | None, seconds: float | None, db: Path | None, tee: bool, report: bool, quiet: bool,
            proc_root: Path, libproc: str | None, config: Config) -> int:
    """Sample, score and track every process at 3 Hz and write what happens to the database.

    Runs in the foreground until SIGTERM, SIGINT or --for. One rh-pipe at a time writes to a database.
    """
    if tee and report:
        raise common.Failure("--tee and --report both want standard output; choose one", common.USAGE)
    database = common.database_path(db, config, make=True)
    out = common.output() if tee else None
    began = time.time()
    host = here(proc_root, libproc)
    try:
        with pipe.Stopper() as stopper:
            if not quiet:
                common.say(f"watching at {hz or config.system.hz:g} Hz, writing to {database}"
                           + (f", for {seconds:g} s" if seconds else ""))
            pipe.run(config, host, database, hz=hz or config.system.hz, seconds=seconds, out=out,
                     sleep=stopper.sleep, warn=common.say)
    finally:
        host.close()
    if report:
        from rogue_hunter.report import print_summary

        print_summary(database, began, time.time())
    return common.OK


main = common.entry(command, prints=False)
