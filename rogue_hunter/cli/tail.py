"""rh-tail: follow a running rh-pipe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from rogue_hunter.commandline import options, run
from rogue_hunter.schema import RECORDS

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.daemon.socket.client import Batch
    from rogue_hunter.stream.tick import Record


@run.command("rh-tail", """
Examples:
  rh-tail                                        a live table on a terminal
  rh-tail -n 3 --type tick | jq .max_score
  rh-tail | jq -c 'select(.type == "event") | [.kind, .command, .score]'
  rh-tail --since 1h --type event --type pause   those of the last hour first
""")
@click.option("-n", "--count", type=options.Whole(1), metavar="N", help="Stop after N ticks.")
@click.option("-t", "--type", "types", multiple=True, type=click.Choice(sorted(RECORDS)), metavar="TYPE",
              help="Print records of this type only (tick, process, event, pause, ...); may be given more than once.")
@click.option("--since", "start", type=options.Moment(), metavar="TIME",
              help="First print the events and pauses stored since then (in the table: the last ones): 1h, 14:32.")
@click.option("--table", "form", flag_value="table", help="Print the table even if the output is not a terminal.")
@click.option("--ndjson", "--json", "form", flag_value="ndjson", help="Print records even on a terminal.")
@click.option("--no-wait", is_flag=True, help="Do not wait: exit 69 if rh-pipe is not running, and 0 when it ends.")
@click.option("--socket", type=click.Path(path_type=Path), metavar="FILE",
              help="Connect to this socket (default: the user's).")
@options.db_option()
@options.config_option
def command(count: int | None, types: tuple[str, ...], start: float | None, form: str | None, no_wait: bool,
            socket: Path | None, db: Path | None, config: Config) -> int:
    """Follow a running rh-pipe: every tick with its rogues, events and pauses as they happen. On a terminal q quits.

    Waits while rh-pipe is not running, and reconnects when it starts.
    """
    from rogue_hunter.daemon.socket.client import Output, Quit, follow, place_of

    path = place_of(config, socket, options.database_path(db, config, system=True))
    # Of chosen types a terminal gets a line each, not the picture.
    table = form == "table" or (form is None and not types and os.isatty(1))
    out = run.output()
    before = [] if start is None else _stored(start, options.database_path(db, config, system=True))
    keys = 0 if table and _full_screen() and os.isatty(0) else None
    batches = follow(path, Output(None if os.isatty(1) else 1, keys).wait, _silent if table else run.say, not no_wait)
    if not table:
        return _print(batches, count, out, frozenset(types), before, run.stream_form(form) == "table")
    with suppress(Quit):
        _draw(batches, count, out, before, keys)
    return run.OK


def _full_screen() -> bool:
    return os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb"


def _silent(_message: str) -> None:
    """The table itself shows that rh-pipe is not running."""


def _stored(start: float, database: Path) -> list[Record]:
    from rogue_hunter.daemon.socket.client import stored
    from rogue_hunter.store.database import open_reader

    with closing(open_reader(database)) as connection:
        return list(stored(connection, start))


def _print(batches: Iterator[Batch], count: int | None, out: BinaryIO, types: frozenset[str],
           before: Sequence[Record], people: bool) -> int:
    from rogue_hunter.daemon.socket.client import identity, kind_of
    from rogue_hunter.report import record_text
    from rogue_hunter.report.render import wrapped
    from rogue_hunter.stream import wire

    def written(line: bytes) -> bytes:
        if not people:
            return run.for_output(line)
        words = record_text.line(wire.loads(line))
        made = wrapped(words, shutil.get_terminal_size((100, 24)).columns)
        return f"{made}\n".encode("utf-8", "backslashreplace") if words else b""

    for each in before:
        if not types or each["type"] in types:
            out.write(written(wire.dumps(each) + b"\n"))
    out.flush()
    seen = {identity(each) for each in before}
    ticks = 0
    for batch in batches:
        kept = [line for line in batch if (not types or kind_of(line) in types) and not _again(line, seen)]
        if kept:
            out.write(b"".join(map(written, kept)))
            out.flush()
        ticks += bool(batch) and kind_of(batch[-1]) == "tick"
        if count is not None and ticks >= count:
            break
    return run.OK


def _again(line: bytes, seen: Collection[object]) -> bool:
    from rogue_hunter.daemon.socket.client import identity, kind_of
    from rogue_hunter.stream import wire

    return bool(seen) and kind_of(line) in ("event", "pause") and identity(wire.loads(line)) in seen


def _draw(batches: Iterator[Batch], count: int | None, out: BinaryIO, before: Sequence[Record],
          keys: int | None) -> None:
    from rogue_hunter.daemon.socket.client import identity, kind_of
    from rogue_hunter.report.live_view import View, screen
    from rogue_hunter.stream import wire

    terminal = _full_screen()
    colour = terminal and not os.environ.get("NO_COLOR")
    view = View()
    for each in before:
        view.take([wire.dumps(each)])
    seen = {identity(each) for each in before}
    with screen(terminal, out, keys) as draw:
        for batch in batches:
            if batch and not _again(batch[-1], seen):
                view.take(batch)
            elif not batch:
                view.note = "rh-pipe is not running; waiting (start it: rh-pipe, or rh-service install)"
            if not batch or kind_of(batch[-1]) == "tick":
                size = shutil.get_terminal_size((100, 24))
                draw(view.lines(size.columns, size.lines - (1 if terminal else 0), colour))
            if count is not None and view.ticks >= count:
                break


main = run.entry(command)
