"""rh-top: the live view of a running rh-pipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from rogue_hunter.config.options import Config


@run.command("rh-top", """
Examples:
  rh-top                        the worst first; ? shows the keys
  rh-top --socket /run/x.sock   of an rh-pipe that serves another socket
""")
@click.option("--socket", type=click.Path(path_type=Path), metavar="FILE",
              help="Connect to this socket (default: the user's).")
@options.config_option
def command(socket: Path | None, config: Config) -> int:
    """Show live what a running rh-pipe measures: processes with all metrics, recent events, tracked processes.

    Sorts, filters, groups by unit, shows one process with its history, and terminates a process after confirmation,
    with all protections of rh-reap. Waits while rh-pipe is not running.
    """
    from rogue_hunter.daemon.socket.address import check_length
    from rogue_hunter.daemon.socket.client import place_of

    # Textual paints on standard error.
    if not all(map(os.isatty, (0, 1, 2))) or os.environ.get("TERM", "dumb") == "dumb":
        raise run.Failure("needs a terminal; for a pipe or a file: rh-tail", run.USAGE)
    path = place_of(config, socket, options.database_path(None, config, system=True))
    check_length(path)
    try:
        from rogue_hunter.tui.app import Top
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("textual", "rich"):
            raise
        raise run.Failure("textual is not installed; in the checkout: pip install '.[tui]'",
                          run.UNAVAILABLE) from None
    app = Top(path, config)
    code = app.run(mouse=False)     # the terminal selects and copies text, as people expect of it
    if app.reader.error is not None:
        raise run.Failure(str(app.reader.error), app.reader.error.code)
    return app.return_code or 0 if code is None else code


main = run.entry(command)
