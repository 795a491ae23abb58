"""The view datasette: how to open the database in a browser, with the queries of the package."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path
from typing import Any

from rogue_hunter.report.database import Source
from rogue_hunter.report.render import Answer
from rogue_hunter.report.views.view import Asked, columns
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record

USUAL = "rogue-hunter"
"""The name of the database in the packaged metadata: Datasette names a database after the stem of its file."""

def metadata_file() -> Path:
    """The packaged metadata."""
    return Path(str(resources.files("rogue_hunter").joinpath("data/datasette.json")))


def metadata() -> dict[str, Any]:
    """The packaged metadata, parsed."""
    made: dict[str, Any] = wire.loads(metadata_file().read_bytes())
    return made


def datasette(source: Source, _: Asked) -> Answer:
    """The answer, of one record report_datasette, which is metadata itself: `... --json | datasette FILE -m -`."""
    made = describe(source.path.absolute())
    comments = ("# Datasette (https://datasette.io) is not a part of this package: pip install datasette. It serves\n"
                "# http://127.0.0.1:8001 and reads while rh-pipe writes; never start it with --immutable.\n")
    return Answer([made], lambda _: f"{comments}{made['command']}\n# with Datasette 1.0:\n# {made['command_1_0']}\n",
                  single=True, columns=columns("report_datasette", "databases"), raw=True)


def describe(path: Path) -> Record:
    """The record for the database at `path`."""
    held = metadata()
    file, quoted = metadata_file(), shlex.quote(str(path))
    plugins = f"--plugins-dir {shlex.quote(str(file.parent / 'datasette'))}"
    queries = held["databases"][USUAL]
    if path.stem == USUAL:
        command, newer = (f"datasette {quoted} {option} {shlex.quote(str(file))} {plugins}" for option in ("-m", "-c"))
    else:
        # The metadata has to name the queries after the file, so it is generated.
        told = f"rh-report datasette --json --db {quoted}"
        command, newer = (f"{told} | datasette {quoted} {option} - {plugins}" for option in ("-m", "-c"))
    boards = held["plugins"]["datasette-dashboards"]
    for chart in (chart for board in boards.values() for chart in board["charts"].values()):
        chart["db"] = path.stem
    return record("report_datasette", command=command, command_1_0=newer, database=str(path), metadata=str(file),
                  title=held["title"], description=held["description"], databases={path.stem: queries},
                  plugins=held["plugins"])
