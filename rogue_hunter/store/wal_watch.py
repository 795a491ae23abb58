"""Warn when a long-running reader keeps the write-ahead log from being checkpointed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.tick import Tick

ALARM_BYTES = 64 << 20
"""The log of a database whose readers come and go has 4 MB: SQLite moves 1,000 pages into the file at once. One reader
that stays keeps them all: 6,000 rows of 1 kB made it 37 MB."""

EVERY_S = 10.0


class WalAlarm:
    """Looks at the size of the log every ten seconds of the ticks' own clock. While it is over the limit,
    `writer.alarms["wal"]` reports it; `warn` gets a line when that begins and when it ends."""

    def __init__(self, database: Path, writer: Writer, warn: Callable[[str], object], limit: int = ALARM_BYTES,
                 every_s: float = EVERY_S) -> None:
        self._wal = database.with_name(database.name + "-wal")
        self._writer = writer
        self._warn = warn
        self._limit = limit
        self._every_ns = every_s * 1e9
        self._due = 0.0

    def look(self) -> None:
        """Look now."""
        try:
            size = os.stat(self._wal).st_size
        except OSError:
            size = 0
        if size > self._limit:
            before = self._writer.alarms.get("wal")
            alarm = self._writer.alarms["wal"] = (
                f"the write-ahead log has {size >> 20} MiB: a reader keeps a transaction open "
                f"(see `fuser {self._wal.name}`); writing continues")
            if before is None:
                self._warn(f"{self._wal}: {alarm}")
        elif self._writer.alarms.pop("wal", None) is not None:
            self._warn(f"{self._wal}: the write-ahead log is small again")

    def __call__(self, tick: Tick) -> Tick:
        """The stage, behind the store."""
        if tick.row is not None and tick.row["mono_ns"] >= self._due:
            self._due = tick.row["mono_ns"] + self._every_ns
            self.look()
        return tick
