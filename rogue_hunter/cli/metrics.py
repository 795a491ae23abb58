"""rh-metrics: metrics for Prometheus."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config
    from rogue_hunter.metrics import Page

LOCAL = ("127.0.0.1", "localhost", "")
EVERY_S = 15.0
"""Interval between two writes of a file: the usual scrape interval of Prometheus."""


class Address(options.Reading):
    """`127.0.0.1:9090`, `:9090` or `9090`. The value is the port."""

    name = "address"

    def read(self, text: str) -> int:
        """The port. Raises ValueError, also for an address that others can reach."""
        host, _, port = text.rpartition(":")
        if host not in LOCAL:
            raise ValueError(f"{text}: only loopback addresses are allowed (127.0.0.1)")
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise ValueError(f"{text}: write it like 127.0.0.1:9090")
        return int(port)


@run.command("rh-metrics", """
Examples:
  rh-metrics                          the page, from the database of rh-pipe
  rh-metrics --serve 127.0.0.1:9090   a page for Prometheus to scrape
  rh-sample | rh-score | rh-match --tee | rh-metrics --serve :9090
  rh-metrics --print-rules > rh.yml   alerts; --print-dashboard: for Grafana
  rh-metrics --textfile /var/lib/node_exporter/rh.prom --print-cron
""")
@click.option("--serve", "port", type=Address(), metavar="ADDRESS",
              help="Serve the page over HTTP on 127.0.0.1 (127.0.0.1:9090, :9090 or 9090).")
@click.option("--path", default="/metrics", show_default=True, metavar="PATH", help="Path of the page, with --serve.")
@click.option("--textfile", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the page to this file atomically, for node_exporter.")
@click.option("--every", type=options.Seconds(), default=EVERY_S, show_default=True, metavar="TIME",
              help="Interval between two writes of the file.")
@click.option("--print-dashboard", "data", flag_value="grafana-dashboard.json",
              help="Print a Grafana dashboard of these metrics (JSON, to import) and exit.")
@click.option("--print-rules", "data", flag_value="prometheus-rules.yml",
              help="Print alert and recording rules for Prometheus (YAML) and exit.")
@click.option("--print-cron", is_flag=True,
              help="Print a crontab line that writes --textfile each minute, with full paths, and exit.")
@options.db_option("Read this database instead of standard input.")
@options.config_option
def command(port: int | None, path: str, textfile: Path | None, every: float, data: str | None, print_cron: bool,
            db: Path | None, config: Config) -> int:
    """Count ticks, matches and actions, and export the counts in the Prometheus text format.

    Reads standard input. With --db, or without piped input, it reads the database. Without --serve and --textfile the
    page is printed at the end of the input.
    """
    if data is not None:
        from importlib import resources

        run.emit(resources.files("rogue_hunter").joinpath("data", data).read_bytes())
        return run.OK
    if print_cron:
        if textfile is None:
            raise run.Failure("--print-cron needs --textfile FILE", run.USAGE)
        click.echo(options.cron_line("rh-metrics", "* * * * *", sys.argv[1:]))
        return run.OK
    if not path.startswith("/"):
        raise run.Failure(f"--path {path}: must begin with /", run.USAGE)
    try:
        from rogue_hunter.metrics import Metrics

        metrics = Metrics()
    except ImportError:
        raise run.Failure("prometheus-client is not installed; in the checkout: pip install '.[metrics]'",
                             run.UNAVAILABLE) from None
    if db is not None or not _piped():
        return _of_database(options.database_path(db, config, system=True), port, path, textfile)
    ticks, finish = run.read_ticks("rh-metrics")
    server = _serving(metrics, port, path)
    try:
        for _ in chain(ticks, metrics, _Written(metrics, textfile, every)):
            pass
        if textfile is not None:
            _write(metrics, textfile)
        elif port is None:
            run.emit(metrics.render())
    finally:
        if server is not None:
            server()
    return finish()


def _piped() -> bool:
    """True if standard input is a pipe or a file; a terminal and /dev/null are no input."""
    try:
        return not stat.S_ISCHR(os.fstat(0).st_mode)
    except OSError:
        return False


class _Recorded:
    """The page from the database, read again at each request."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def render(self) -> bytes:
        from rogue_hunter.report.metrics_page import recorded

        return recorded(self._database)


def _of_database(database: Path, port: int | None, path: str, textfile: Path | None) -> int:
    page = _Recorded(database)
    first = page.render()  # report a problem of the database now, not at the first scrape
    if textfile is not None:
        _write(page, textfile)
    elif port is None:
        run.emit(first)
    if port is not None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        close = _serving(page, port, path)
        stop.wait()
        if close is not None:
            close()
    return run.OK


def _serving(page: Page, port: int | None, path: str) -> Callable[[], None] | None:
    """Start the server; returns the function that stops it."""
    if port is None:
        return None
    from rogue_hunter.metrics import Server

    try:
        server = Server(page, port, path)
    except OSError as error:
        raise run.Failure(f"127.0.0.1:{port}: {error.strerror}", run.UNAVAILABLE) from None
    server.start()
    run.say(f"serving http://127.0.0.1:{server.port}{path}")
    return server.close


class _Written:
    """A stage that writes the file at the first tick and at intervals, by the clock of the ticks."""

    def __init__(self, page: Page, file: Path | None, every_s: float) -> None:
        self._page, self._file, self._every_ns = page, file, every_s * 1e9
        self._due = 0.0

    def __call__(self, tick: Tick) -> Tick:
        if self._file is not None and tick.row is not None and tick.row["mono_ns"] >= self._due:
            self._due = tick.row["mono_ns"] + self._every_ns
            _write(self._page, self._file)
        return tick


def _write(page: Page, file: Path) -> None:
    from rogue_hunter.metrics import write_textfile

    write_textfile(page, file)


main = run.entry(command)
