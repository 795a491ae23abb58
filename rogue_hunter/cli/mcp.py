"""rh-mcp: read-only answers for agents, over the Model Context Protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rogue_hunter.commandline import options, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from rogue_hunter.config.options import Config
    from rogue_hunter.report.queries import Source
    from rogue_hunter.report.render import Answer


@run.command("rh-mcp", """
Examples:
  rh-mcp    started by an agent: {"command": "/path/to/rh-mcp"}
""")
@options.db_option()
@options.config_option
def command(db: Path | None, config: Config) -> int:
    """Answer an agent's questions about this machine on standard input and output, by the Model Context Protocol.

    Tools: why, summary, pauses, capture, status. All of them only read; no process is touched.
    """
    import time

    from rogue_hunter.daemon.socket.client import live_slices, with_live_state
    from rogue_hunter.report.agent import Answers, server
    from rogue_hunter.report.queries import source

    run.input_open()
    if os.isatty(0):
        raise run.Failure("speaks the Model Context Protocol on standard input: name it in the configuration of an "
                          "agent", run.USAGE)
    database = options.database_path(db, config, system=True)

    def show(needed: bool, view: Callable[[Source], Answer]) -> Answer:
        with source(database, time.time(), config, needed=needed) as found:
            return view(found if needed else with_live_state(found))

    try:
        made = server(Answers(show, live_slices))
    except ImportError as error:
        if (error.name or "").split(".")[0] != "mcp":
            raise
        raise run.Failure("mcp is not installed; in the checkout: pip install '.[mcp]'", run.UNAVAILABLE) from None
    made.run()
    return run.OK


main = run.entry(command)
