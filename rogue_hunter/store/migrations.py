"""The steps from an empty file to today's tables. The only importer of sqlite_utils.

All steps that a file lacks run in one transaction that is begun IMMEDIATE: two commands that migrate at once wait for
each other instead of failing in the middle. `user_version` counts the steps and is a part of that transaction.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
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

VERSION = 11
"""Number of steps: the user_version of a file that has them all."""


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing steps. The connection is in autocommit mode. Raises sqlite3.Error; nothing is then changed."""
    from sqlite_utils import Database

    connection.execute("BEGIN IMMEDIATE")
    try:
        _steps().apply(Database(connection, recursive_triggers=False, execute_plugins=False))
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


def _steps() -> Any:
    """The steps, in order. A step that a released version has applied somewhere is never changed."""
    from sqlite_utils import Migrations

    steps = Migrations("rogue_hunter")

    @steps()
    def m001_events(db: Any) -> None:
        _create(db, DAEMON_STATE, PROCESS_EVENTS, PROCESS_SNAPSHOTS)

    @steps()
    def m002_history(db: Any) -> None:
        _create(db, PAUSES, PAUSE_CULPRITS, MACHINE_MINUTES, COMMAND_MINUTES)

    @steps()
    def m003_forensics(db: Any) -> None:
        _create(db, *FORENSICS)

    @steps()
    def m004_reap(db: Any) -> None:
        _create(db, *REAP)

    @steps()
    def m005_processes(db: Any) -> None:
        _complete(db, PROCESS_SNAPSHOTS)

    @steps()
    def m006_slices(db: Any) -> None:
        _create(db, *SLICES)

    @steps()
    def m007_durations(db: Any) -> None:
        _complete(db, *TABLES)
        _views(db)

    @steps()
    def m008_sessions(db: Any) -> None:
        _complete(db, *SLICES)
        _views(db)

    @steps()
    def m009_minutes_by_identity(db: Any) -> None:
        _create(db, *ROLLED)
        _complete(db, *TABLES)
        _views(db)
        roll_all(db.conn)

    @steps()
    def m010_recorded(db: Any) -> None:
        _create(db, *RECORDED)

    @steps()
    def m011_reports(db: Any) -> None:
        known = {row[0] for row in db.conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        _create(db, *(table for table in FORENSICS if table.name not in known))
        _complete(db, *FORENSICS)

    return steps


def _views(db: Any) -> None:
    """Create the views again: a view holds nothing, so today's text takes the place of an earlier version's."""
    for name, query in VIEWS.items():
        db.conn.execute(f"DROP VIEW IF EXISTS {name}")
        db.conn.execute(f"CREATE VIEW {name} AS {query}")


def _complete(db: Any, *tables: Table) -> None:
    """Add the declared columns that a file of an earlier version lacks. Tables of later steps do not exist yet."""
    for table in tables:
        known = {row[1] for row in db.conn.execute(f"PRAGMA table_info({table.name})")}
        for column in table.columns:
            if known and column.name not in known:
                db.conn.execute(f"ALTER TABLE {table.name} ADD COLUMN {quoted(column.name)} {column.sql}")


def _create(db: Any, *tables: Table) -> None:
    for table in tables:
        for statement in table.create():
            db.conn.execute(statement)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
