"""rh-prune: keep the database small."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import click

from rogue_hunter.cli import options, run
from rogue_hunter.config.options import Config
from rogue_hunter.service.program import XDG, command_line
from rogue_hunter.store import prune as pruning
from rogue_hunter.store.database import DatabaseError, Lock, open_reader, open_writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import record


class InUse(DatabaseError):
    """Another process is the writer."""


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on only
    """A size of a file: `500MB`, `1.5GiB`. The value is in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of the text; a usage error names the forms."""
        try:
            return pruning.parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@run.command("rh-prune", """
Examples:
  rh-prune                             as the configuration says: 30 days, 500 MB
  rh-prune --older-than 7d --dry-run   what would go?
  rh-prune --max-size 100MB
  rh-prune --print-cron                a line for your crontab
""")
@click.option("--older-than", type=options.Seconds(), metavar="TIME",
              help="Remove what ended longer ago than this (default: retention.days of the configuration).")
@click.option("--max-size", type=Size(), metavar="SIZE",
              help="Then remove the oldest until the file is not larger (default: retention.max_size_mb).")
@click.option("--dry-run", is_flag=True, help="Remove nothing, say what would be removed.")
@click.option("--print-cron", is_flag=True, help="Print a crontab line that runs this daily, with full paths.")
@options.db_option()
@options.config_option
def command(older_than: float | None, max_size: int | None, dry_run: bool, print_cron: bool, db: Path | None,
            config: Config) -> int:
    """Remove old history from the database and make its file smaller. Open events stay.

    Prints one record `prune`. While rh-pipe writes to the database, it is asked to do it, over its socket.
    """
    if print_cron:
        click.echo(cron_line(sys.argv[1:]))
        return run.OK
    age = config.retention.days * 86400 if older_than is None else older_than
    limit = config.retention.max_size_mb * 1_000_000 if max_size is None else max_size
    database = options.database_path(db, config, make=False)
    out = run.output()
    now = time.time()
    before = pruning.files_size(database)
    try:
        removed, left = (_look if dry_run else _prune)(database, now - age, limit,
                                                       now - 3600 * config.retention.slice_hours)
    except InUse as refused:
        return _through_pipe(database, age, limit, config, refused, out)
    except sqlite3.DatabaseError as error:
        busy = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        raise DatabaseError(f"{database}: {error}", run.UNAVAILABLE if busy else run.IO_ERROR) from None
    after = removed.size_bytes if dry_run else pruning.files_size(database)
    out.write(wire.dumps(record(
        "prune", ts=now, database=os.fsencode(database).decode("utf-8", "backslashreplace"), dry_run=dry_run,
        older_than_s=age, max_bytes=limit, removed=removed.rows, before_bytes=before, after_bytes=after,
        below_limit=after <= limit, **left)) + b"\n")
    out.flush()
    if after > limit:
        run.say(f"{database}: {after} bytes are left, {limit} were wanted; " + (
            "a reader keeps the file from shrinking" if removed.size_bytes <= limit else "what is open is not removed"))
        return run.FOUND
    return run.OK


def cron_line(arguments: Sequence[str]) -> str:
    """A crontab line for 4:00 that runs this rh-prune with these arguments. Cron has a PATH of its own and reads % as
    the end of the line. Raises Failure for what a line cannot hold."""
    words = [*command_line("rh-prune"), *(word for word in arguments if word != "--print-cron")]
    places = [f"{name}={shlex.quote(os.environ[name])}" for name in XDG if os.environ.get(name, "").startswith("/")]
    line = " ".join(["0 4 * * * ", *places, shlex.join(words), ">/dev/null"])
    if not line.isprintable():
        raise run.Failure("a crontab line cannot hold control characters", run.USAGE)
    return line.replace("%", "\\%")


def _prune(database: Path, before: float, limit: int, fine_before: float) -> tuple[pruning.Removed, dict[str, Any]]:
    """Prune in this process, which takes the place of the only writer meanwhile."""
    try:
        # The writer makes what is not there and moves aside what is no database: neither is meant here.
        open_reader(database).close()
    except DatabaseError as error:
        if error.code != run.CONFIG_ERROR:  # an older version: the writer migrates it, and refuses what is not ours
            raise
    try:
        lock = Lock(database)
    except DatabaseError as error:
        raise InUse(str(error), error.code) if error.code == run.UNAVAILABLE else error from None
    try:
        connection, moved = open_writer(database)
        try:
            if moved is not None:
                run.say(f"{database} was corrupt; it is kept as {moved.name} and a new one is begun")
            # No beat waits for us: a reader that has just come may keep us a moment.
            connection.execute("PRAGMA busy_timeout = 5000")
            removed = deque(pruning.prune(connection, before, limit, fine_before=fine_before), maxlen=1).pop()
            return removed, _left(connection)
        finally:
            connection.close()
    finally:
        lock.release()


def _through_pipe(database: Path, age: float, limit: int, config: Config, refused: InUse, out: BinaryIO) -> int:
    """Have the rh-pipe that writes to this database prune it, between its beats. It answers with the same record."""
    from rogue_hunter.daemon.socket.address import SocketError, socket_path
    from rogue_hunter.daemon.socket.framing import ask

    request = record("prune_request", older_than_s=age, max_bytes=limit,
                     database=os.fsencode(os.path.realpath(database)).decode("utf-8", "backslashreplace"))
    try:
        answer = ask(socket_path(config.socket.path), request, "prune")
    except SocketError as error:
        raise DatabaseError(f"{refused}, which cannot be asked to prune it: {error}", refused.code) from None
    out.write(wire.dumps(answer) + b"\n")
    out.flush()
    return run.OK if answer.get("below_limit", True) else run.FOUND


def _look(database: Path, before: float, limit: int, fine_before: float) -> tuple[pruning.Removed, dict[str, Any]]:
    """What pruning would remove. Nothing is locked or written."""
    connection = open_reader(database)
    try:
        connection.execute("BEGIN")
        removed, left = pruning.estimate(connection, before, limit, fine_before), _left(connection)
    finally:
        connection.close()
    gone = removed.rows.get("process_events", 0)
    # Which event would be the oldest then is not worth another search.
    return removed, {**left, "events_left": left["events_left"] - gone, **({"oldest_event": None} if gone else {})}


def _left(connection: sqlite3.Connection) -> dict[str, Any]:
    names = "events_left", "open_events", "oldest_event"
    return dict(zip(names, connection.execute(
        "SELECT count(*), count(*) - count(exit_time), min(entry_time) FROM process_events").fetchone(), strict=True))


main = run.entry(command)
