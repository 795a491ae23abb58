"""The steps from an empty file to today's tables. The only importer of sqlite_utils.

All steps that a file lacks run in one transaction that is begun IMMEDIATE: two commands that migrate at once wait for
each other instead of failing in the middle. `user_version` counts the steps and is a part of that transaction.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from rogue_hunter.store.tables import (
    APPLICATION_ID,
    COMMAND_MINUTES,
    DAEMON_STATE,
    MACHINE_MINUTES,
    PAUSE_CULPRITS,
    PAUSES,
    PROCESS_EVENTS,
    PROCESS_SNAPSHOTS,
    VIEWS,
    Table,
)

VERSION = 2
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
        for name, query in VIEWS.items():
            db.conn.execute(f"CREATE VIEW {name} AS {query}")

    return steps


def _create(db: Any, *tables: Table) -> None:
    for table in tables:
        for statement in table.create():
            db.conn.execute(statement)
