"""rh-sample: read every process, three times a second."""

from __future__ import annotations

import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.stream.tick import Tick


@run.command("rh-sample", """
Examples:
  rh-sample -n 1 | jq -c 'select(.pid) | [.pid, .command, .cpu_percent]'
  rh-sample -n 3 --top 5                    the five that use the most CPU
  rh-sample --hz 1 --active > day.ndjson    record what ran, once a second
  rh-sample | rh-score --min-score 45       what is rogue, as it happens
""")
@click.option("-n", "--count", type=options.Whole(1), metavar="N", help="Stop after N ticks (default: never).")
@options.hz_option
@click.option("--active", is_flag=True, help="Only processes that ran in the tick.")
@click.option("--pid", "pids", type=options.Whole(0, 2**31 - 1), multiple=True, metavar="PID",
              help="Only this process; may be repeated.")
@click.option("--user", "users", multiple=True, metavar="NAME",
              help="Only this user's processes (name or id); may be repeated.")
@click.option("--top", type=options.Whole(1), metavar="N", help="Only the N processes that use the most CPU.")
@click.option("--record", type=click.Path(path_type=Path), metavar="DIR",
              help="Also record what is read, secrets masked, in DIR; --proc-root DIR replays it.")
@click.option("--self-check", is_flag=True, help="macOS: check every system call used, print a verdict and exit.")
@options.stream_options
@options.host_options
@options.config_option
def command(count: int | None, hz: float | None, active: bool, pids: tuple[int, ...], users: tuple[str, ...],
            top: int | None, record: Path | None, self_check: bool, form: str | None, proc_root: Path,
            libproc: str | None, config: Config) -> int:
    """Read every process and print one tick after another: a line for each process and a closing line.
    On a terminal: the processes that use the most CPU, once a second.

    The first reading is not printed, so the first tick already has rates.
    """
    if self_check:
        return _self_check(libproc)
    from rogue_hunter.host.platform import here
    from rogue_hunter.sampling.lineage import Lineage
    from rogue_hunter.sampling.sample import Select, beats_of, sample
    from rogue_hunter.stream.clock import Rate
    from rogue_hunter.stream.pipeline import Stage, chain

    for user in users:
        _check_user(user)
    out = run.output()
    host = here(proc_root, libproc)
    beat = beats_of(host, Rate(hz or config.system.hz), count=None if count is None else count + 1)
    if record is not None:
        from rogue_hunter.host.linux.recording import recorded

        beat = recorded(beat, proc_root, record)
    try:
        stages: list[Stage] = [Lineage()]
        if pids:
            stages.append(_MissingPids(pids))
        if active or pids or users or top:
            stages.append(Select(active=active, pids=pids, users=users, top=top))
        run.write_ticks(chain(sample(host, beat, silent_first=True), *stages), out, run.stream_form(form))
    finally:
        host.close()
    return run.OK


def _check_user(user: str) -> None:
    """Raise Failure for a name that no user of this machine has; an id needs no entry in the list of users."""
    if user.isascii() and user.isdecimal():
        return
    try:
        pwd.getpwnam(user)
    except (KeyError, ValueError):      # ValueError: a null character in the name
        raise run.Failure(f"--user {user}: no such user", run.USAGE) from None


class _MissingPids:
    """A stage that prints which pids the first tick does not have."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def __call__(self, tick: Tick) -> Tick:
        found = {row["pid"] for row in tick.processes.values()}
        for pid in dict.fromkeys(self._pids):
            if pid not in found:
                run.say(f"{pid}: no such process")
        self._pids = ()
        return tick


def _self_check(libproc: str | None) -> int:
    from rogue_hunter.host.macos.selfcheck import self_check
    from rogue_hunter.text.format import visible

    found = self_check(libproc)
    if sys.platform == "darwin" and libproc is None:
        from rogue_hunter.service.macos_check import findings

        found = found.with_(findings())
    click.echo("\n".join(visible(line) for line in found.lines()))
    return run.UNAVAILABLE if found.verdict == "broken" else run.OK


main = run.entry(command)
