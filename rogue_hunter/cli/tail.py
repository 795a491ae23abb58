"""rh-tail: follow a running rh-pipe."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from rogue_hunter.cli import options, run
from rogue_hunter.config.options import Config
from rogue_hunter.daemon.socket.address import socket_path
from rogue_hunter.daemon.socket.follow import Batch, Output, follow, kind_of, since
from rogue_hunter.schema import RECORDS
from rogue_hunter.stream import wire


@run.command("rh-tail", """
Examples:
  rh-tail                                        a live table on a terminal
  rh-tail -n 3 --type tick | jq .max_score
  rh-tail | jq -c 'select(.type == "event") | [.kind, .command, .score]'
  rh-tail --since 1h --type event --type pause   the last hour's from the database, then live
""")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after N ticks.")
@click.option("-t", "--type", "types", multiple=True, type=click.Choice(sorted(RECORDS)), metavar="TYPE",
              help="Print records of this type only (tick, process, event, pause, ...); may be given more than once.")
@click.option("--since", "start", type=options.Moment(), metavar="TIME",
              help="First the events that the database has since then: 1h, 14:32, yesterday.")
@click.option("--table", "form", flag_value="table", help="Draw the table, also when the output is no terminal.")
@click.option("--ndjson", "--json", "form", flag_value="ndjson", help="Print records, also on a terminal.")
@click.option("--no-wait", is_flag=True, help="Exit 69 if no rh-pipe runs, and end with it, instead of waiting.")
@click.option("--socket", type=click.Path(path_type=Path), metavar="FILE", help="The socket (default: the user's).")
@options.db_option()
@options.config_option
def command(count: int | None, types: tuple[str, ...], start: float | None, form: str | None, no_wait: bool,
            socket: Path | None, db: Path | None, config: Config) -> int:
    """Follow a running rh-pipe: every tick with its rogues, events and pauses as they happen.

    Waits for rh-pipe when it does not run, and goes on when it comes back.
    """
    path = socket_path(config.socket.path, socket)
    table = form == "table" or (form is None and not types and os.isatty(1))
    out = run.output()
    batches = follow(path, Output(None if os.isatty(1) else 1).wait, run.say if not table else _hush, not no_wait)
    if table:
        return _draw(batches, count, out)
    seen = _before(start, db, config, out, types) if start is not None else frozenset()
    return _print(batches, count, out, frozenset(types), seen)


def _hush(_message: str) -> None:
    """The table says it itself."""


def _before(start: float, db: Path | None, config: Config, out: BinaryIO, types: tuple[str, ...]) -> frozenset[object]:
    """Print what the database has; gives the keys of what was printed, for it may come again."""
    from rogue_hunter.store.database import open_reader

    connection = open_reader(options.database_path(db, config, make=False))
    try:
        records = list(since(connection, start))
    finally:
        connection.close()
    if not types or "event" in types:
        for each in records:
            out.write(wire.dumps(each) + b"\n")
        out.flush()
    return frozenset((each["event"], each["kind"], each["ts"]) for each in records)


def _print(batches: Iterator[Batch], count: int | None, out: BinaryIO, types: frozenset[str],
           seen: frozenset[object]) -> int:
    ticks = 0
    for batch in batches:
        kept = [line for line in batch if (not types or kind_of(line) in types) and not _again(line, seen)]
        if kept:
            out.write(b"".join(kept))
            out.flush()
        ticks += bool(batch) and kind_of(batch[-1]) == "tick"
        if count is not None and ticks >= count:
            return run.OK
    return run.OK


def _again(line: bytes, seen: frozenset[object]) -> bool:
    if not seen or kind_of(line) != "event":
        return False
    found = wire.loads(line)
    return (found.get("event"), found.get("kind"), found.get("ts")) in seen


def _draw(batches: Iterator[Batch], count: int | None, out: BinaryIO) -> int:
    from rogue_hunter.report.live_view import View

    screen = os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb"
    colour = screen and not os.environ.get("NO_COLOR")
    view = View()
    with _screen(screen, out) as draw:
        for batch in batches:
            if batch:
                view.take(batch)
            else:
                view.note = "rh-pipe does not run: waiting for it"
            if not batch or kind_of(batch[-1]) == "tick":
                size = shutil.get_terminal_size((100, 24))
                draw(view.lines(size.columns, size.lines - (1 if screen else 0), colour))
            if count is not None and view.ticks >= count:
                break
    return run.OK


@contextmanager
def _screen(screen: bool, out: BinaryIO) -> Iterator[Callable[[list[str]], None]]:
    """How a picture reaches the output: over the one before, on the terminal's second screen; or below it."""
    def put(text: str) -> None:
        out.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
        out.flush()

    def below(lines: list[str]) -> None:
        put("\n".join(lines) + "\n\n")

    def over(lines: list[str]) -> None:
        put("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1]) + f"{lines[-1]}\x1b[K\x1b[J")

    if not screen:
        yield below
        return

    def leave(number: int, _frame: object) -> None:
        # Not through `out`: the signal may have come while it was writing.
        with suppress(OSError):
            os.write(1, b"\x1b[?25h\x1b[?1049l")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    put("\x1b[?1049h\x1b[?25l\x1b[2J")
    try:
        yield over
    finally:
        put("\x1b[?25h\x1b[?1049l")
        for number, handler in before.items():
            signal.signal(number, handler)


main = run.entry(command)
