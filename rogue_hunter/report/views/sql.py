"""The views sql and datasette: one SELECT of the user's own, and how to open the database in a browser.

A SELECT cannot write, and its run time is limited.
"""

from __future__ import annotations

import math
import shlex
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rogue_hunter.report.queries import Source
from rogue_hunter.report.render import CELL_MINIMUM, Answer, Style, pairs, table
from rogue_hunter.report.sentences import number
from rogue_hunter.report.views.view import Asked, columns
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, path_text, visible

LIMIT_S = 10.0
"""A query that takes longer is cancelled: a full scan of a month's history takes half a second."""
MOST_ROWS = 200_000
"""Maximum number of rows in memory: about 200 MB."""
LONGEST = 10 << 20
"""Maximum bytes of one value, and of the statement."""

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_LOOKS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "user_version"}
"""Pragmas that only read."""


def sql(source: Source, asked: Asked, clock: Callable[[], float] = time.monotonic) -> Answer:
    """The rows of one SELECT. Raises DatabaseError: 65 for what is no such statement, 69 when it takes too long."""
    (statement,) = asked.which
    limit = asked.rows(20)
    names, rows = run(source.reader, statement, limit + 1 if limit else 0, clock)
    shown = rows[:limit] if limit else rows
    return rows_answer(names, shown, more=len(rows) > len(shown))


def rows_answer(names: Sequence[str], rows: Sequence[Sequence[Any]], *, more: bool = False,
                times: Collection[str] = ()) -> Answer:
    """Rows of any query as records and as a table. `more`: not all are in it; `times`: columns that are shown as local
    time."""
    records: list[Record] = [{"type": "report_row", "v": 1, **{n: v for n, v in zip(names, row, strict=True)
                                                              if v is not None}} for row in rows]

    def word(name: str, value: Any) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if name in times and value is not None \
            else _word(value)

    def text(look: Style) -> str:
        if not rows:
            return "No rows.\n"
        cells = [[word(n, v) for n, v in zip(names, row, strict=True)] for row in rows]
        body = [[*(clip(cell, 60) for cell in row[:-1]), row[-1]] for row in cells]
        numeric = [n for i, n in enumerate(names) if n not in times
                   and all(isinstance(row[i], (int, float, type(None))) for row in rows)]
        heads = [visible(n) for n in names]
        if len(names) * (CELL_MINIMUM + 2) > look.width:    # too many columns for a table: a block for each row
            blocks = ([(name, visible(cell)) for name, cell in zip(heads, row, strict=True)] for row in cells)
            made = "\n".join(pairs(block, look) for block in blocks)
        else:
            made = table(heads, body, look, right=" ".join(n for n in numeric if " " not in n))
        return made + ("... and more: -n 0 shows all\n" if more else "")

    return Answer(records, text, columns=names, raw=True)


def run(connection: sqlite3.Connection, statement: str, limit: int,
        clock: Callable[[], float] = time.monotonic) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and the rows, `limit` of them at most (0: all). Raises DatabaseError."""
    deadline = clock() + LIMIT_S
    connection.set_authorizer(_allow)
    connection.set_progress_handler(lambda: clock() > deadline, 10_000)
    # Invalid UTF-8 in the file is escaped instead of failing the query.
    connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    try:
        cursor = connection.execute(statement)
        if cursor.description is None:
            raise DatabaseError("not a SELECT: it returns no rows", 65)
        names = _distinct([column[0] for column in cursor.description])
        rows = cursor.fetchmany(limit or MOST_ROWS + 1)
        if len(rows) > MOST_ROWS:
            raise DatabaseError(f"more than {MOST_ROWS} rows; put a LIMIT into the query", 69)
        cursor.close()
        return names, [tuple(_plain(value) for value in tuple(row)) for row in rows]
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _refusal(error) from None
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_authorizer(None)


def _allow(action: int, first: str | None, second: str | None, _db: str | None, _trigger: str | None) -> int:
    if action in _ALLOWED and not (action == sqlite3.SQLITE_FUNCTION and second == "load_extension"):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _LOOKS and (second is None or first != "user_version"):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _refusal(error: Exception) -> DatabaseError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_INTERRUPT":
        return DatabaseError(f"the query took longer than {LIMIT_S:.0f} s and was cancelled", 69)
    if name in ("SQLITE_AUTH", "SQLITE_READONLY") or "not authorized" in str(error) or "prohibited" in str(error):
        return DatabaseError("only one SELECT is allowed", 65)
    if "one statement" in str(error):
        return DatabaseError("one statement at a time", 65)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return DatabaseError(f"the database is locked: {error}", 69)
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR")):
        return DatabaseError(str(error), 74)
    return DatabaseError(f"SQL: {error}", 65)


def _distinct(names: list[str]) -> list[str]:
    """Names of fields: unique, and different from those that every record begins with."""
    taken = {"type", "v"}
    made = []
    for name in names:
        found, n = name, 1
        while found in taken:
            n += 1
            found = f"{name}_{n}"
        taken.add(found)
        made.append(found)
    return made


def _plain(value: Any) -> Any:
    """A value that JSON can hold: bytes as hexadecimal digits; a float that is not finite is unknown."""
    if isinstance(value, bytes):
        return value.hex()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _word(value: Any) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) and abs(value) < 1e9 else str(value)


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
        chart["db"] = path_text(path.stem)
    return record("report_datasette", command=path_text(command), command_1_0=path_text(newer),
                  database=path_text(path), metadata=path_text(file), title=held["title"],
                  description=held["description"], databases={path_text(path.stem): queries}, plugins=held["plugins"])
