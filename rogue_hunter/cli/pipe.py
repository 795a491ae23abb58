"""rh-pipe: the background pipe."""

from __future__ import annotations

import gc
import math
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from rogue_hunter import paths
from rogue_hunter.commandline import options, run
from rogue_hunter.text.format import visible

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.daemon.log import Log
    from rogue_hunter.stream.tick import Tick


class Countdown:
    """`rh-pipe: 14 s left`, rewritten in place once a second; `clear` removes it before other output. The time starts
    with the first `show`.

    Only for a terminal. Errors of a terminal that is closed are ignored.
    """

    def __init__(self, name: str, seconds: float, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._stream = stream
        self._clock = clock
        self._seconds = seconds
        self._end: float | None = None
        self._shown: int | None = None
        self._width = 0

    def show(self) -> None:
        """Write the line if the number of seconds changed."""
        now = self._clock()
        if self._end is None:
            self._end = now + self._seconds
        left = max(0, math.ceil(self._end - now))
        if left == self._shown:
            return
        text = f"{self._name}: {left} s left"
        self._write(f"\r{text:<{self._width}}")
        self._shown, self._width = left, len(text)

    def clear(self) -> None:
        """Remove the line; the next `show` writes it again."""
        if self._width:
            self._write(f"\r{'':<{self._width}}\r")
        self._shown, self._width = None, 0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass


PRINTED = 1000
"""Characters of a message on standard error: fewer than the 4096 bytes for which a pipe that is ready has room."""

COLLECT_FROM = 10_000
"""Containers made and not freed from which the garbage collector looks for cycles (Python's default is 700 or 2,000). A
tick makes rows and frees as many; what it keeps for history made the collector read 5 ms of cold memory every 5 s."""

PATIENCE_S = 0.5
"""What is not urgent is done right behind a beat, when the beat is at most this far away."""


@run.command("rh-pipe", """
Examples:
  rh-pipe --for 20s --report   watch for 20 s, then report the worst
  rh-pipe                      until stopped; rh-report reads what it writes
  rh-pipe --tee | jq -c 'select(.type == "event")'
""", facts=True)
@options.hz_option
@click.option("--for", "seconds", type=options.Seconds(), metavar="TIME", help="Stop after this time (90s, 1h30m, 2d).")
@options.db_option()
@click.option("--tee", is_flag=True, help="Print every tick as well: a table on a terminal, records in a pipe.")
@click.option("--ndjson", is_flag=True, help="With --tee: print records even on a terminal.")
@click.option("--report", is_flag=True, help="At the end, print the summary of rh-report for this run.")
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors on standard error.")
@click.option("--socket", type=click.Path(path_type=Path), metavar="FILE",
              help="Serve this socket (default: the user's; rh-tail follows it).")
@click.option("--no-socket", is_flag=True, help="Serve no socket.")
@options.host_options
@options.config_file_option("Configuration file (default: the user's, if there is one). Read again when it changes.")
def command(hz: float | None, seconds: float | None, db: Path | None, tee: bool, ndjson: bool, report: bool,
            quiet: bool, socket: Path | None, no_socket: bool, proc_root: Path, libproc: str | None,
            config_file: Path | None) -> int:
    """Sample, score and track every process at 3 Hz, evaluate the rules, and write what happens to the database.

    No process is killed unless the configuration has [reap] mode = "armed". Runs in the foreground until SIGTERM,
    SIGINT or --for. One rh-pipe at a time writes to a database.
    """
    from rogue_hunter.capture.waiting import Waits
    from rogue_hunter.config.toml import load
    from rogue_hunter.daemon import pipe
    from rogue_hunter.daemon.loop import Loop
    from rogue_hunter.daemon.rules_stage import ruling
    from rogue_hunter.daemon.sd_notify import Notifier
    from rogue_hunter.daemon.services import Setting, background, capturing
    from rogue_hunter.daemon.socket.address import socket_path
    from rogue_hunter.host.platform import here
    from rogue_hunter.reaper.run import here as machine
    from rogue_hunter.recorder.stage import FlightRecorder
    from rogue_hunter.sampling.limits import Limits
    from rogue_hunter.store.database import DatabaseError

    # A request to read the configuration is fulfilled when it comes before the first reading. Until the loop answers
    # the signal, it would end the process.
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    gc.set_threshold(COLLECT_FROM)
    run.exclude((tee and report, "--tee and --report both want standard output; choose one"),
                (ndjson and not tee, "--ndjson needs --tee"),
                (socket and no_socket, "--socket and --no-socket exclude each other"))
    config = load(config_file, paths.config_file())
    database = options.database_path(db, config, make=True)
    if tee or report:
        run.output()  # fails here if standard output is closed
    began = time.time()
    log = _log(config)
    if log is not None:
        log.listeners.append(lambda problem: _print(problem or "the log is written again"))

    countdown = _countdown(seconds) if not quiet and not tee else None

    def say(level: str, message: str) -> None:
        if log is not None:
            log.write(level, message)
        if countdown is not None:
            countdown.clear()
        if level in ("warning", "error") or (level == "info" and not quiet):
            _print(message)

    serve = not no_socket and (config.socket.enabled or socket is not None)
    setting = Setting(database, (config_file or paths.config_file()).absolute(), config_file is not None,
                      socket_path(config.socket.path, socket) if serve else None)
    notifier = Notifier()
    host = here(proc_root, libproc)
    try:
        # Captures are of the machine that this runs on; a recording is of another one, or of another day.
        here_and_now = proc_root == Path("/proc") and libproc is None
        with (Loop(patience=PATIENCE_S) as loop, capturing(config) if here_and_now else nullcontext() as captures,
              ruling(config, config_file, say, machine if here_and_now else None) as rules):
            def sleep(left: float) -> bool:
                if countdown is not None:
                    countdown.show()
                return loop.sleep(left)

            ran = pipe.run(
                config, host, database, hz=hz, seconds=seconds,
                write=run.write_output if tee else None, encode=None if ndjson else _for_people(), sleep=sleep,
                warn=lambda message: say("warning", message),
                evidence=(Limits(), Waits()) if here_and_now else (), captures=captures,
                recorder=FlightRecorder(config.recorder, lambda message: say("info", message))
                if here_and_now and sys.platform == "linux" else None, rules=rules,
                start=background(config, loop, setting, say, log, notifier))
    except Exception as error:
        # Refused because another rh-pipe runs: the log is that one's.
        if log is not None and not (isinstance(error, DatabaseError) and error.code == run.UNAVAILABLE):
            log.write("error", f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        if countdown is not None:
            countdown.clear()
        host.close()
        notifier.close()
        if log is not None:
            log.close()
    if report:
        from rogue_hunter.report.views.summary import print_summary

        print_summary(database, began, time.time())
    return run.IO_ERROR if ran.lost else run.OK


def _for_people() -> Callable[[Tick], bytes] | None:
    """What makes text of a tick for the terminal on standard output; None if there is none."""
    if run.stream_form(None) == "ndjson":
        return None
    from rogue_hunter.report.record_text import Texts
    from rogue_hunter.report.render import style

    return Texts(style(sys.stdout, time.time())).utf8


def _print(message: str) -> None:
    """A line on standard error, unless it would have to wait for a reader: the beat must not, and the log has it."""
    with suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            run.say(visible(message)[:PRINTED])


def _countdown(seconds: float | None) -> Countdown | None:
    """For a run of known length in front of a person; None elsewhere."""
    if seconds is None or sys.stderr is None or not sys.stderr.isatty():
        return None
    return Countdown("rh-pipe", seconds, sys.stderr)


def _log(config: Config) -> Log | None:
    """The log; without one when its directory cannot be had, which is no reason not to watch."""
    from rogue_hunter.daemon.log import Log, log_path

    if not config.log.enabled:
        return None
    try:
        return Log(log_path(config.log), config.log)
    except paths.PathError as error:
        run.say(f"no log is written: {error}")
        return None


main = run.entry(command, prints=False)
