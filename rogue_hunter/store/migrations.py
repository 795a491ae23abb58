"""The steps from an empty file to today's tables. The only importer of sqlite_utils.

All steps that a file lacks run in one transaction that is begun IMMEDIATE: two commands that migrate at once wait for
each other instead of failing in the middle. `user_version` counts the steps and is a part of that transaction.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rogue_hunter.store.rollup import roll_all
from rogue_hunter.store.tables import (
    APPLICATION_ID,
    COMMAND_MINUTES,
    DAEMON_STATE,
    FORENSICS,
    MACHINE_MINUTES,
    PAUSE_CULPRITS,
    PAUSES,
    PROCESS_EVENTS,
    PROCESS_SNAPSHOTS,
    REAP,
    RECORDED,
    ROLLED,
    SLICES,
    TABLES,
    VIEWS,
    Table,
    quoted,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing steps; an empty file needs no sqlite_utils. The connection is in autocommit mode. Raises
    sqlite3.Error; nothing is then changed."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:      # another process was faster
            connection.execute("COMMIT")
            return
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            from sqlite_utils import Database

            _steps().apply(Database(connection, recursive_triggers=False, execute_plugins=False))
        else:
            _make(connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def migrate_apart(path: Path) -> None:
    """Apply the missing steps in a process of its own, for a program that runs for months.

    sqlite_utils takes 7.5 MB that are never given back, and is needed once in a file's life. Raises sqlite3.Error.
    """
    around = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [around, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, "-P", "-m", __name__, str(path)], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        name, _, message = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2].partition(": ")
        error = sqlite3.OperationalError(message or "the migration failed")
        error.sqlite_errorname = name
        error.sqlite_errorcode = getattr(sqlite3, name, sqlite3.SQLITE_ERROR)
        raise error


def _main(path: str) -> int:
    """The other process: the error's name and text on standard error, 1 if there is one."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        prepare(connection)
        migrate(connection)
    except sqlite3.Error as error:
        sys.stderr.write(f"{getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')}: {error}\n")
        return 1
    finally:
        connection.close()
    return 0


def prepare(connection: sqlite3.Connection) -> None:
    """What must be set before the first table: pruned pages can be given back in small bites."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def _events(connection: sqlite3.Connection) -> None:
    _create(connection, DAEMON_STATE, PROCESS_EVENTS, PROCESS_SNAPSHOTS)


def _history(connection: sqlite3.Connection) -> None:
    _create(connection, PAUSES, PAUSE_CULPRITS, MACHINE_MINUTES, COMMAND_MINUTES)


def _everything(connection: sqlite3.Connection) -> None:
    _complete(connection, *TABLES)
    _views(connection)


def _sessions(connection: sqlite3.Connection) -> None:
    _complete(connection, *SLICES)
    _views(connection)


def _minutes_by_identity(connection: sqlite3.Connection) -> None:
    _create(connection, *ROLLED)
    _everything(connection)
    roll_all(connection)


def _reports(connection: sqlite3.Connection) -> None:
    known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    _create(connection, *(table for table in FORENSICS if table.name not in known))
    _complete(connection, *FORENSICS)


STEPS: dict[str, Callable[[sqlite3.Connection], None]] = {
    "m001_events": _events,
    "m002_history": _history,
    "m003_forensics": lambda connection: _create(connection, *FORENSICS),
    "m004_reap": lambda connection: _create(connection, *REAP),
    "m005_processes": lambda connection: _complete(connection, PROCESS_SNAPSHOTS),
    "m006_slices": lambda connection: _create(connection, *SLICES),
    "m007_durations": _everything,
    "m008_sessions": _sessions,
    "m009_minutes_by_identity": _minutes_by_identity,
    "m010_recorded": lambda connection: _create(connection, *RECORDED),
    "m011_reports": _reports,
    "m012_standing": lambda connection: _complete(connection, *SLICES),
    "m013_device_requests": _everything,
}
"""In order. A step that a released version has applied somewhere is never changed."""

VERSION = len(STEPS)
"""The user_version of a file that has them all."""

_SET = "rogue_hunter"
_APPLIED = (
    'CREATE TABLE "_sqlite_migrations" (\n   "id" INTEGER PRIMARY KEY,\n   "migration_set" TEXT,\n   "name" TEXT,\n'
    '   "applied_at" TEXT\n)',
    'CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"\n'
    '    ON "_sqlite_migrations" ("migration_set", "name")',
)
"""The table of applied steps as sqlite_utils makes it."""


def _steps() -> Any:
    """The steps for sqlite_utils."""
    from sqlite_utils import Migrations

    steps = Migrations(_SET)
    for name, step in STEPS.items():
        steps(name=name)(lambda db, step=step: step(db.conn))
    return steps


def _make(connection: sqlite3.Connection) -> None:
    """Apply all steps to an empty file: sqlite_utils alone would take 0.13 s of CPU time."""
    for statement in _APPLIED:
        connection.execute(statement)
    for name, step in STEPS.items():
        step(connection)
        connection.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
                           (_SET, name, str(datetime.now(UTC))))


def _views(connection: sqlite3.Connection) -> None:
    """Create the views again: a view holds nothing, so today's text takes the place of an earlier version's."""
    for name, query in VIEWS.items():
        connection.execute(f"DROP VIEW IF EXISTS {name}")
        connection.execute(f"CREATE VIEW {name} AS {query}")


def _complete(connection: sqlite3.Connection, *tables: Table) -> None:
    """Add the declared columns that a file of an earlier version lacks. Tables of later steps do not exist yet."""
    for table in tables:
        known = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
        for column in table.columns:
            if known and column.name not in known:
                connection.execute(f"ALTER TABLE {table.name} ADD COLUMN {quoted(column.name)} {column.sql}")


def _create(connection: sqlite3.Connection, *tables: Table) -> None:
    for table in tables:
        for statement in table.create():
            connection.execute(statement)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
