"""rh-ship: send the history of this host to a hub."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.fleet.bus import Access
    from rogue_hunter.fleet.source import Shipper

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def access_options(function: _F) -> _F:
    """--server, --creds, --nkey, --ca, --cert, --key: they reach the command as `access`."""
    @functools.wraps(function)
    def with_access(*args: Any, server: tuple[str, ...], creds: Path | None, nkey: Path | None, ca: Path | None,
                    cert: Path | None, key: Path | None, **more: Any) -> Any:
        from rogue_hunter.fleet.bus import Access

        run.exclude((creds is not None and nkey is not None, "--creds and --nkey exclude each other"),
                    (key is not None and cert is None, "--key needs --cert"))
        return function(*args, access=Access(server, creds, nkey, ca, cert, key), **more)

    for option in (
        click.option("--key", type=_FILE, metavar="FILE", help="Private key of --cert (default: in the same file)."),
        click.option("--cert", type=_FILE, metavar="FILE", help="Certificate of this client."),
        click.option("--ca", type=_FILE, metavar="FILE",
                     help="Certificates to verify the server with; implies TLS (default: those of the system)."),
        click.option("--nkey", type=_FILE, metavar="FILE", help="Seed of an nkey."),
        click.option("--creds", type=_FILE, metavar="FILE", help="Credentials: a JWT and its seed."),
        click.option("-s", "--server", multiple=True, default=("nats://127.0.0.1:4222",),
                     metavar="URL", help="NATS server, tls:// for TLS; repeatable (default: nats://127.0.0.1:4222)."),
    ):
        with_access = option(with_access)
    return with_access  # type: ignore[return-value]


@run.command("rh-ship", """
Examples:
  rh-ship -s tls://hub.example:4222 --creds /etc/rogue-hunter/host.creds
  rh-ship --from 2d --once        send two days, then end
  rh-ship --dry-run               what would be sent
  rh-ship --stdout --from 5m | jq -c 'select(.type == "pause")'
""")
@access_options
@click.option("--host-id", metavar="ID", help="Identity of this host (default: made from the machine's).")
@click.option("--from", "start", type=options.Moment(), metavar="TIME",
              help="Begin here, the first time (default: a day ago).")
@click.option("--pace", type=options.Number(0.01, 10_000), default=5.0, show_default=True, metavar="N",
              help="Messages a second while this host is behind.")
@click.option("--once", is_flag=True, help="Send what is complete, then end.")
@click.option("--dry-run", is_flag=True, help="Count what would be sent; connect to nothing and change nothing.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the messages instead of sending them; change nothing.")
@click.option("--state", type=_FILE, metavar="FILE", help="What was sent (default: ship.json in the state directory).")
@options.db_option()
@options.config_option
def command(access: Access, host_id: str | None, start: float | None, pace: float, once: bool, dry_run: bool,
            to_stdout: bool, state: Path | None, db: Path | None, config: Config) -> int:
    """Send the history of this host to a hub over NATS: one message a minute, without secrets, each row once.

    The database of rh-pipe is read, nothing is stored twice. What cannot be sent stays there and is sent later.
    """
    import asyncio
    import sqlite3

    from rogue_hunter import files, paths
    from rogue_hunter.fleet import source

    if dry_run and to_stdout:
        raise run.Failure("--dry-run and --stdout exclude each other", run.USAGE)
    file = state or paths.private_dir(paths.state_dir()) / "ship.json"
    cursor = source.Cursor(file)
    changes = not (dry_run or to_stdout)
    lock = files.lock(file.with_name(file.name + ".lock")) if changes else None
    try:
        known = cursor.load()
        path = options.database_path(db, config, system=True)
        database = source.HostDatabase(path)
        try:
            chosen = source.host_id(host_id) if host_id is not None or known is None else known.host_id
            if known is not None and known.host_id != chosen:
                raise run.Failure(f"{file}: is of host {known.host_id}; for a new identity move it away",
                                  run.CONFIG_ERROR)
            if known is None or (start is not None and not changes):
                began = int(time.time() - 86_400 if start is None else start) // 60 * 60
                known = source.begin(database, chosen, began)
            elif start is not None:
                run.say(f"--from is ignored: {file} knows what was sent")
            if source.resume(database, known):
                run.say("the database is a new file: its rows are sent from the first")
            shipper = source.Shipper(database, known, time.time, cursor.save if changes else lambda _: None)
            if not changes:
                return _print(shipper, dry_run)
            cursor.save(known)
            return asyncio.run(_send(access, shipper, pace, once))
        except sqlite3.Error as error:
            raise run.Failure(f"{path}: {error}", run.IO_ERROR) from None
        finally:
            database.close()
    finally:
        if lock is not None:
            lock.release()


def _print(shipper: Shipper, dry_run: bool) -> int:
    """Everything that would be sent now, or its size."""
    from rogue_hunter.fleet.intake import SUBJECT

    out = run.output()
    messages = size = redacted = 0
    rows: dict[str, int] = {}
    while (message := shipper.next()) is not None:
        data = message.payload(time.time())
        messages, size, redacted = messages + 1, size + len(data), redacted + message.redacted
        for table, count in message.rows.items():
            rows[table] = rows.get(table, 0) + count
        if not dry_run:
            out.write(data)
        shipper.done(message)
    out.flush()
    if dry_run:
        counts = ", ".join(f"{count} {table}" for table, count in rows.items() if count) or "no rows"
        run.say(f"would send {messages} messages of {size} bytes on {SUBJECT.format(shipper.state.host_id)}: {counts}; "
                f"{redacted} texts masked")
    return run.OK


async def _send(access: Access, shipper: Shipper, pace: float, once: bool) -> int:
    import asyncio

    from rogue_hunter.daemon.sd_notify import Notifier
    from rogue_hunter.fleet.bus import Bus
    from rogue_hunter.fleet.ship import ShipLoop

    bus = Bus(access, shipper.state.host_id, run.say)
    loop = ShipLoop(shipper, bus, time.time, pace=pace, once=once, report=run.say)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, loop.stop)
    try:
        Notifier().tell(READY=1)
        await loop.run()
    finally:
        await bus.close()
    if once or os.isatty(2):
        run.say(f"sent {loop.sent} messages with {loop.rows} rows")
    return run.OK


main = run.entry(command)
