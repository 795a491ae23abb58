"""rh-hub: store the histories of many hosts, and ask questions about them."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rogue_hunter import paths
from rogue_hunter.cli.ship import access_options
from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from rogue_hunter.fleet.bus import Access
    from rogue_hunter.fleet.warehouse import Warehouse
    from rogue_hunter.report.render import Answer

_FILE = click.Path(path_type=Path)
_DB = click.option("-d", "--db", type=_FILE, metavar="FILE",
                   help="The hub's file (default: hub.duckdb in the data directory).")
_QUESTIONS = ("rogue", "new", "worst", "pauses", "silent", "skewed", "gaps", "sql")


def _database(db: Path | None, *, make: bool = False) -> Path:
    if db is not None:
        return db
    place = paths.private_dir(paths.data_dir()) if make else paths.data_dir()
    return place / "hub.duckdb"


@run.group("rh-hub", """
Examples:
  rh-hub demo                    a server, a hub and 50 simulated hosts, here
  rh-hub run -s tls://nats.example:4222 --creds hub.creds
  rh-hub query rogue --since 2d --hosts 5
  rh-hub query sql "SELECT culprit, count(*) FROM pauses GROUP BY 1"
  rh-hub export fleet.db --since 1d && datasette fleet.db
""")
def command() -> None:
    """Store what rh-ship sends from many hosts, and ask questions about all of them."""


@command.command("run")
@access_options
@_DB
@click.option("--keep", type=options.Seconds(unit=True), default="30d", show_default=True, metavar="TIME",
              help="Rows that arrived earlier are deleted, hour by hour.")
@click.option("--stream-mb", type=options.Whole(1), default=10_240, show_default=True, metavar="N",
              help="Size of the stream, if it is made; full, it refuses what hosts then keep.")
@click.option("--replicas", type=options.Whole(1, 5), default=1, show_default=True, metavar="N",
              help="Copies of the stream in a cluster, if it is made.")
@click.option("--ask", type=options.Seconds(), default="30s", show_default=True, metavar="TIME",
              help="Time between two requests for the same missing rows.")
@click.option("--memory-mb", type=options.Whole(64), default=512, show_default=True, metavar="N",
              help="Memory of DuckDB.")
def serve(access: Access, db: Path | None, keep: float, stream_mb: int, replicas: int, ask: float,
          memory_mb: int) -> int:
    """Store rows until it is stopped, ask hosts for those that are missing, and answer queries."""
    import asyncio

    from rogue_hunter.fleet.warehouse import Warehouse

    warehouse = Warehouse(_database(db, make=True), memory_mb=memory_mb)
    try:
        return asyncio.run(_serve(access, warehouse, keep, ask, stream_mb << 20, replicas))
    finally:
        warehouse.close()


async def _serve(access: Access, warehouse: Warehouse, keep_s: float, ask_s: float, stream_bytes: int,
                 replicas: int) -> int:
    import asyncio

    from rogue_hunter.daemon.sd_notify import Notifier
    from rogue_hunter.fleet.bus import Bus
    from rogue_hunter.fleet.hub import Hub, listen, socket_path
    from rogue_hunter.fleet.intake import ALL

    bus = Bus(access, "hub", run.say)

    async def prepare() -> None:
        await bus.make_stream([ALL], stream_bytes, 7 * 86_400.0, replicas)
        Notifier().tell(READY=1)
        run.say(f"storing into {warehouse.path}; {warehouse.hosts()} hosts are known")

    hub = Hub(warehouse, bus, time.time, keep_s=keep_s, report=run.say, ask_s=ask_s, prepare=prepare)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, hub.stop)
    place = socket_path(warehouse.path)
    server = await listen(hub, place)
    try:
        await hub.run()
    finally:
        server.close()
        place.unlink(missing_ok=True)
        await bus.close()
    run.say(f"stored {hub.rows} rows of {hub.messages} messages; {hub.refused} refused")
    return run.OK


@command.command("query")
@click.argument("question", type=click.Choice(_QUESTIONS))
@click.argument("sql", required=False)
@click.option("--since", type=options.Moment(), default="1d", show_default=True, metavar="TIME",
              help="Begin of the period.")
@click.option("--hosts", type=options.Whole(1), default=1, show_default=True, metavar="N",
              help="On at least so many hosts.")
@click.option("--silent", type=options.Seconds(), default="10m", show_default=True, metavar="TIME",
              help="silent: nothing was received for so long.")
@click.option("--skew", type=options.Seconds(), default="5s", show_default=True, metavar="TIME",
              help="skewed: the clock differs by so much.")
@click.option("-n", "--limit", type=options.Whole(1, 100_000), default=20, show_default=True, metavar="N",
              help="Lines of a named question.")
@_DB
@options.form_options()
def query(question: str, sql: str | None, since: float, hosts: int, silent: float, skew: float, limit: int,
          db: Path | None, form: str | None) -> int:
    """Answer a named question, or `sql` a SELECT of your own.

    rogue: commands that were rogue on --hosts hosts. new: rogue since --since and never before. worst: hosts by time
    in pauses. pauses: by named command and kernel release. silent: hosts that send nothing. skewed: hosts with a wrong
    clock. gaps: rows that hosts have sent and that are missing here.
    """
    from rogue_hunter.fleet import hub
    from rogue_hunter.fleet.tables import TIMES
    from rogue_hunter.fleet.tables import question as text

    if (question == "sql") != (sql is not None):
        raise run.Failure("sql needs one SELECT, and the named questions none", run.USAGE)
    if question == "gaps":
        return run.print_answer(_answer(*hub.query(_database(db), None), ()), form)
    statement = sql if sql is not None else text(question, {
        "since": since, "now": time.time(), "hosts": hosts, "silent": silent, "skew": skew, "limit": limit})
    names, rows = hub.query(_database(db), statement)
    return run.print_answer(_answer(names, rows, TIMES if sql is None else ()), form)


def _answer(names: Sequence[str], rows: Sequence[Sequence[Any]], times: Collection[str]) -> Answer:
    from rogue_hunter.report.views.sql import rows_answer

    return rows_answer(names, rows, times=times)


@command.command("export")
@click.argument("file", type=_FILE)
@click.option("--since", type=options.Moment(), default="1d", show_default=True, metavar="TIME",
              help="Rows that arrived since then.")
@click.option("--parquet", is_flag=True, help="FILE is a directory of Parquet files, one for each table and hour.")
@_DB
def export(file: Path, since: float, parquet: bool, db: Path | None) -> int:
    """Write a SQLite file of all hosts, for Datasette and sqlite3, or Parquet files."""
    from rogue_hunter.fleet.hub import ask

    made = ask(_database(db), {"export": str(file.absolute()), "since": since, "parquet": parquet}, 3600.0)
    run.say(f"wrote {made['rows']} rows to {file}")
    return run.OK


@command.command("print")
@click.argument("name", type=click.Choice(["clickhouse.sql", "nats-node.conf", "nats-leaf.conf"]))
def show(name: str) -> int:
    """Print a file of the package: tables for ClickHouse, a server of a cluster of three, a server near the hosts."""
    from rogue_hunter.fleet.demo import example

    run.emit(example(name))
    return run.OK


@command.command("demo")
@click.option("--hosts", type=options.Whole(1, 2000), default=50, show_default=True, metavar="N",
              help="Simulated hosts.")
@click.option("--minutes", type=options.Whole(1, 1440), default=10, show_default=True, metavar="N",
              help="Minutes of history of each.")
@click.option("--recording", type=_FILE, metavar="FILE",
              help="Send the last minutes of this database of rh-pipe, in the name of each host (default: made up).")
def demo(hosts: int, minutes: int, recording: Path | None) -> int:
    """Start a NATS server on loopback, a hub and simulated hosts; count what arrives, and ask the questions.

    Some hosts have a wrong clock; messages are lost, repeated and reordered. All of it is removed afterwards.
    """
    import asyncio
    import tempfile

    from rogue_hunter.fleet.demo import Server
    from rogue_hunter.fleet.warehouse import Warehouse

    with tempfile.TemporaryDirectory(prefix="rh-hub-demo-") as name:
        place = Path(name)
        server = Server(place)
        warehouse = Warehouse(place / "hub.duckdb")
        server.start()
        try:
            return asyncio.run(_demo(server.url, warehouse, hosts, minutes, recording))
        finally:
            warehouse.close()
            server.stop()


async def _demo(url: str, warehouse: Warehouse, hosts: int, minutes: int, recording: Path | None) -> int:
    import asyncio

    from rogue_hunter.fleet.bus import Access, Bus
    from rogue_hunter.fleet.demo import Fleet
    from rogue_hunter.fleet.hub import Hub
    from rogue_hunter.fleet.intake import ALL
    from rogue_hunter.fleet.tables import QUERIES, TIMES
    from rogue_hunter.fleet.tables import question as text

    inbox, carrier = Bus(Access((url,)), "hub", run.say), Bus(Access((url,)), "hosts", run.say)
    await inbox.make_stream([ALL], 1 << 30, 86_400.0, 1)
    hub = Hub(warehouse, inbox, time.time, keep_s=86_400.0, report=run.say, ask_s=1.0)
    fleet = Fleet(carrier, hosts, minutes, time.time(), recording=recording)
    serving = asyncio.create_task(hub.run())
    began = time.monotonic()
    try:
        await fleet.send()
        await fleet.finish()
        run.say(f"{hosts} hosts sent {fleet.messages} messages: " + ", ".join(
            f"{count} {what}" for what, count in sorted(fleet.faults.items())))
        await fleet.until_stored(warehouse.query, 60.0)
    finally:
        await fleet.stop()
        hub.stop()
        await serving
        await carrier.close()
        await inbox.close()
    wrong = fleet.differences(warehouse.query)
    run.say(f"stored {hub.rows} rows in {time.monotonic() - began:.1f} s; expected {fleet.rows()}, "
            f"{'no differences' if not wrong else f'{len(wrong)} differences, for example {wrong[0]}'}")
    numbers = {"since": fleet.start - 3600.0, "now": time.time() + 3600, "hosts": 2, "silent": 1.0, "skew": 5.0,
               "limit": 5}
    for question, known in QUERIES.items():
        run.say(f"rh-hub query {question}: {known.doc}")
        run.print_answer(_answer(*warehouse.query(text(question, numbers)), TIMES), "table")
    return run.OK if not wrong else run.FOUND


main = run.entry(command)
