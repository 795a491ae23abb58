"""What a view is asked and what it may look at: the database in one reading transaction, and who writes to it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.files import Locked, check_lock
from rogue_hunter.report import queries
from rogue_hunter.report.queries import Watched
from rogue_hunter.store.database import NO_HISTORY, DatabaseError, failed, open_reader


@dataclass(frozen=True, slots=True)
class Holder:
    """Whether a process holds the database for writing, and which one (`pid` is None when that cannot be known)."""

    held: bool
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The database as one view sees it. `now` in epoch seconds; `state` is the table daemon_state.

    `connection` is None when there is no file; only the view status can do without. `live` is what a running rh-pipe
    reports over its socket (initial_state), empty if it was not asked; `silent` is the reason why it did not answer.
    """

    path: Path
    now: float
    config: Config
    connection: sqlite3.Connection | None = None
    state: dict[str, Any] = field(default_factory=dict)
    holder: Holder = field(default_factory=lambda: Holder(False))
    live: Mapping[str, Any] = field(default_factory=dict)
    silent: str | None = None

    @property
    def reader(self) -> sqlite3.Connection:
        """The connection. Raises DatabaseError, 69, when there is no database."""
        if self.connection is None:
            raise DatabaseError(f"{self.path}: {NO_HISTORY}", 69)
        return self.connection

    @property
    def last_tick(self) -> dict[str, Any]:
        """The closing row of the last tick that was written down; empty before the first."""
        return self.state.get("last_tick") or {}

    @property
    def stale_after_s(self) -> float:
        """Without news for so long a running rh-pipe is called stale: three updates of its state, or beats."""
        return 3 * (self.config.store.state_every_s + 1 / (self.state.get("hz") or self.config.system.hz))

    @property
    def watch(self) -> str:
        """running, stale, busy, stopped or hub: see the record report_status."""
        if "hub" in self.state:
            return "hub"
        if not self.holder.held:
            return "stopped"
        if self.holder.pid is not None and self.holder.pid != self.state.get("pid"):
            return "busy"
        if self.live or self.silent:
            return "running" if self.live else "stale"
        return "running" if self.now - float(self.last_tick.get("ts", 0.0)) <= self.stale_after_s else "stale"

    @property
    def watched(self) -> Watched:
        """The end of the history: now while rh-pipe runs, whose last tick is written now and then."""
        last = self.last_tick
        seen = float(last.get("ts", 0.0))
        bands = self.config.bands_of(self.state.get("model") or self.config.scoring.model)
        return Watched(last.get("boot_id", ""), max(seen, self.now) if self.watch == "running" else seen,
                       bands.start(bands.tracking) - self.config.tracking.exit_margin)


@contextlib.contextmanager
def source(path: Path, now: float, config: Config, *, needed: bool = True) -> Iterator[Source]:
    """The database, read in one transaction so that all numbers of a view agree. Raises DatabaseError.

    Without a file: an error, or with `needed` False a source without a connection.
    """
    if not needed and not path.exists():
        yield Source(path, now, config, holder=holder(path))
        return
    connection = open_reader(path)
    try:
        held = holder(path)
        connection.execute("BEGIN")
        yield Source(path, now, config, connection, queries.state(connection), held)
    except sqlite3.DatabaseError as error:
        raise failed(path, error) from None
    finally:
        connection.close()


def holder(database: Path) -> Holder:
    """Who holds the lock of `database`. Nothing is written and no process is delayed."""
    try:
        check_lock(database.with_name(database.name + ".lock"))
    except Locked as locked:
        return Holder(True, locked.holder)
    return Holder(False)
