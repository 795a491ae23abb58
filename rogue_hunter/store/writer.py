"""The hot writer: one transaction a tick, and only when there is something to write; its budget and its alarms.

Sampling continues when the disk is full or the database is locked: records wait in a bounded queue and are retried,
and those that are dropped from it are counted.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rogue_hunter import __version__
from rogue_hunter.config.options import Store as Settings
from rogue_hunter.store.database import DatabaseError, Lock, is_corrupt, move_aside, open_writer
from rogue_hunter.store.rows import CMDLINE, WRITES
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, Row, Tick, shown_name
from rogue_hunter.text.format import path_text
from rogue_hunter.tracking.events import Open

BYTES_PER_DAY = 18_000_000
"""Bytes written a day on average: 1,040 a slice, room for about ten processes and four units that are known already."""
BURST_BYTES = 1_500_000
"""What may be written beyond that at once: 15 minutes of a machine that starts new processes all the time."""
ROW_BYTES = {"machine_slice": 200, "process_slice": 65, "group_slice": 65}
"""Bytes of a row with its part of the pages, measured; of a new process or unit come those of its texts."""
SUBJECT_BYTES = 70
KNOWN = 4096
"""Processes and units that are remembered as written; the oldest are forgotten first."""
CALM = {"pressure_cpu_some_ms_per_s": 50.0, "pressure_memory_some_ms_per_s": 5.0, "pressure_io_some_ms_per_s": 20.0,
        "late_s": 0.25, "asleep_s": 0.0, "clock_step_s": 0.0, "continued": 0, "oom_kills": 0, "uninterruptible": 0}
"""A slice in which no process is listed and nothing is above this is quiet: a minute of them is one row."""

_TEXTS = ("command", "name", "user", "cgroup", "unit")


class SliceBudget:
    """Chooses the slice records that are written. The first process and the first unit are always among them."""

    def __init__(self) -> None:
        self._left = float(BURST_BYTES)
        self._known: dict[tuple[Any, ...], None] = {}

    def chosen(self, records: Iterable[Record]) -> list[Record]:
        """The records that are written, in order: others than those of slices are all kept."""
        found: list[Record] = []
        machine: int | None = None
        kept: set[str] = set()
        listed = False
        for each in records:
            kind = each["type"]
            if kind == "machine_slice":
                if machine is not None:
                    found[machine] = self._marked(found[machine], listed)
                machine, listed = len(found), False
                kept.clear()
                self._left = min(BURST_BYTES, self._left + BYTES_PER_DAY / 86400 * min(each["seconds"], 60.0))
            elif kind in ROW_BYTES:
                listed = True
                if kind in kept and self._cost(each) > self._left:
                    continue
                kept.add(kind)
            if kind in ROW_BYTES:
                self._left -= self._cost(each)
                self._remember(each)
            found.append(each)
        if machine is not None:
            found[machine] = self._marked(found[machine], listed)
        return found

    def _marked(self, machine: Record, listed: bool) -> Record:
        quiet = not listed and all((machine.get(name) or 0) <= most for name, most in CALM.items())
        return {**machine, "quiet": quiet}

    def _cost(self, each: Record) -> int:
        bytes_ = ROW_BYTES[each["type"]]
        if each["type"] != "machine_slice" and _subject(each) not in self._known:
            bytes_ += SUBJECT_BYTES + sum(len(each.get(name) or "") for name in _TEXTS)
            bytes_ += len((each.get("cmdline") or "")[:CMDLINE])
        return bytes_

    def _remember(self, each: Record) -> None:
        if each["type"] == "machine_slice":
            return
        self._known[_subject(each)] = None
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]


def _subject(each: Record) -> tuple[Any, ...]:
    if each["type"] == "group_slice":
        return each["boot_id"], each["unit"]
    return each["boot_id"], each["pid"], each["start_ticks"]


Batch = list[Record]

LOOK_S = 1.0
"""Seconds between two looks at whether the files at the path are those that are open: a stat(2) takes 2 us."""

TAILS = ("", "-wal", "-shm")
"""The database, its write-ahead log, and the index of that log."""

Files = tuple[tuple[int, int] | None, ...]

UNUSABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, sqlite3.IntegrityError)
"""What storing a record raises that lacks a field, or has a value that no column takes."""


class Writer:
    """Writes records and the state of the pipe. `now` is the wall clock, epoch seconds; `clock` the monotonic one, by
    which everything waits; `warn` takes a line for people.

    `degraded` is the reason why nothing can be written at the moment, None if it can; `alarms` what others find
    wrong while writing continues; `dropped` counts records lost.
    """

    def __init__(self, path: Path, settings: Settings, now: Callable[[], float], warn: Callable[[str], None],
                 opener: Callable[[Path], tuple[sqlite3.Connection, Path | None]] = open_writer,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._set = settings
        self._now = now
        self._warn = warn
        self._opener = opener
        self._clock = clock
        self._queue: deque[Batch] = deque()
        self._slices = SliceBudget()
        self._state: Callable[[], dict[str, Any]] = dict
        self._written: dict[str, str] = {}
        """The state as the open database has it: what has not changed is not written again."""
        self._retry_at = self._look_at = self._state_at = -math.inf
        self._file: Files | None = None
        self.degraded: str | None = None
        self.alarms: dict[str, str] = {}
        self.dropped = 0
        self._connection: sqlite3.Connection | None = None
        self._open()

    def _open(self) -> sqlite3.Connection:
        if self._file is not None:
            with suppress(OSError):     # it may have been deleted with its directory
                self._path.parent.mkdir(mode=0o700)
        self._connection, moved = self._opener(self._path)
        self._file = _identities(self._path)
        self._written = {}
        if moved is not None:
            self._warn(f"{self._path} was corrupt; it was renamed to {moved.name} and a new one created")
        return self._connection

    @property
    def alarm(self) -> str | None:
        """The alarms as one text, in which paths that are not UTF-8 are escaped; None without any."""
        return path_text("; ".join(self.alarms.values())) or None

    def open_events(self) -> list[Open]:
        """The events that the last writer left open, for the tracker to take up; none after the file turned out to be
        corrupt. Raises DatabaseError when it cannot be read: continuing would begin those events a second time."""
        if self._connection is None:
            return []
        try:
            return self._open_events(self._connection)
        except sqlite3.Error as error:
            # An error of Python's own, without SQLite's code, is text that is not UTF-8.
            if hasattr(error, "sqlite_errorcode") and not is_corrupt(error):
                raise DatabaseError(f"{self._path}: {error}", 74) from None
            reason = str(error)
        except (ValueError, TypeError, AttributeError) as error:
            reason = f"what it holds makes no sense: {error}"
        self._fail(reason, True)
        return []

    def _open_events(self, connection: sqlite3.Connection) -> list[Open]:
        """Raises sqlite3.Error; ValueError, TypeError or AttributeError for values that no writer wrote."""
        cursor = connection.cursor()
        cursor.row_factory = sqlite3.Row
        state = {k: wire.loads(v.encode()) for k, v in cursor.execute("SELECT key, value FROM daemon_state")}
        last = state.get("last_tick") or {}
        events = []
        for row in cursor.execute("SELECT * FROM process_events WHERE exit_time IS NULL ORDER BY id").fetchall():
            seen = float(row["last_seen"])
            if last.get("boot_id") == row["boot_id"]:
                seen = max(seen, float(last.get("ts") or 0.0))
            snapshot = cursor.execute(
                "SELECT * FROM process_snapshots WHERE event_id = ? ORDER BY id DESC LIMIT 1", (row["id"],)).fetchone()
            events.append(Open(
                row["event"], row["boot_id"], (row["pid"], row["start_ticks"]), row["entry_time"], seen,
                snapshot["band"] if snapshot and snapshot["band"] else row["peak_band"], row["peak_score"],
                row["peak_band"], _as_row(snapshot), lasted=float(row["duration_s"] or 0.0),
                unit=row["unit"] if row["scope"] == "unit" else None))
        return events

    def tells(self, state: Callable[[], dict[str, Any]]) -> None:
        """Have `state` asked for the values of daemon_state at each write."""
        self._state = state

    def finish(self, facts: dict[str, Any]) -> None:
        """Override these values of the state in the final write."""
        before = self._state
        self._state = lambda: {**before(), **facts}

    def take(self, tick: Tick) -> None:
        """Write the tick's records, or queue them. Never raises for what the disk does."""
        events = self._slices.chosen(r for r in tick.records if r["type"] in WRITES)
        if events:
            self._queue.append(events)
            while len(self._queue) > self._set.queue_ticks:
                self.dropped += len(self._queue.popleft())
        at = self._clock()
        if at >= self._look_at:
            self._look_at = at + LOOK_S
            self._look()
        if self._queue or at - self._state_at >= self._set.state_every_s:
            self.flush()

    def flush(self) -> bool:
        """Try to write the queue; False if it could not be written."""
        if self.degraded is not None and self._clock() < self._retry_at:
            return False
        self._look()
        try:
            self._commit(self._connection or self._open())
        except sqlite3.Error as error:
            self._fail(f"{getattr(error, 'sqlite_errorname', 'error')}: {error}", is_corrupt(error))
            return False
        except DatabaseError as error:
            self._fail(str(error), False)
            return False
        except MemoryError:     # what is left of the transaction would refuse every later one
            self._fail("out of memory", False)
            return False
        if self.degraded is not None:
            lost = f"; {self.dropped} records were lost" if self.dropped else ""
            self._warn(f"writing again to {self._path}{lost}")
            self.degraded = None
        return True

    def close(self) -> int:
        """Write what waits, checkpoint and close. Returns how many records could not be written at the end; they are
        reported too."""
        self._retry_at = -math.inf
        lost = 0 if self.flush() else sum(map(len, self._queue))
        self.dropped += lost
        if lost:
            self._warn(f"{self._path}: {self.dropped} records could not be written")
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        return lost

    # -- inside ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Notice that the file, or what SQLite keeps beside it, was deleted or replaced: what is written to the open
        one would be lost, and no other process could read it. The next write opens the file that is at the path now, or
        a new one."""
        if self._connection is None or self._file is None:
            return
        gone = next(((tail, now) for tail, then, now in zip(TAILS, self._file, _identities(self._path), strict=True)
                     if then not in (None, now)), None)
        if gone is None:
            return
        tail, now = gone
        self._warn(f"{self._path}{tail} was {'deleted' if now is None else 'replaced'} while rh-pipe ran; "
                   "opening it again")
        with suppress(sqlite3.Error):
            # What is in the log only would be lost to a file that has another name now.
            self._connection.execute("PRAGMA wal_checkpoint")
            self._connection.close()
        self._connection = None
        self._state_at = -math.inf

    def _fail(self, reason: str, corrupt: bool) -> None:
        if self.degraded is None:
            self._warn(f"{self._path}: {reason}; sampling continues, records wait")
        self.degraded = reason
        self._retry_at = self._clock() + self._set.retry_s
        connection = self._connection
        if connection is None:
            return
        if corrupt:
            connection.close()
            self._connection = None
            try:
                self._warn(f"{self._path} became corrupt; it was renamed to {move_aside(self._path).name}")
            except DatabaseError as error:
                self._warn(str(error))
            self._retry_at = -math.inf
        elif connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                connection.close()
                self._connection = None

    def _commit(self, connection: sqlite3.Connection) -> None:
        execute, now = connection.execute, self._now()
        acted = any(event["type"] == "action" for batch in self._queue for event in batch)
        if acted:  # what was done to a process must outlive a power cut; it cannot be set inside of a transaction
            execute("PRAGMA synchronous = FULL")
        execute("BEGIN IMMEDIATE")
        while not self._insert(connection):
            execute("ROLLBACK")
            execute("BEGIN IMMEDIATE")
        state = {**self._state(), "degraded": self.alarm, "dropped": self.dropped, "version": __version__}
        texts = {key: wire.dumps(value).decode() for key, value in state.items()}
        for key, text in texts.items():
            if self._written.get(key) == text:
                continue
            execute("INSERT INTO daemon_state (key, value, updated_at) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                    "SET value = excluded.value, updated_at = excluded.updated_at", (key, text, now))
        execute("COMMIT")
        self._written = texts
        if acted:
            execute("PRAGMA synchronous = NORMAL")
        self._queue.clear()
        self._state_at = self._clock()

    def _insert(self, connection: sqlite3.Connection) -> bool:
        """Write the queue; False after a record that cannot be stored was removed from it. Only input from elsewhere
        contains such records: they must neither end the writer nor block the others."""
        for batch in self._queue:
            for place, each in enumerate(batch):
                try:
                    WRITES[each["type"]](connection, each)
                except UNUSABLE as error:
                    del batch[place]
                    self.dropped += 1
                    self._warn(f"a record of type {each['type']} cannot be stored: {type(error).__name__}: {error}")
                    return False
        return True


def _identities(path: Path) -> Files:
    """Device and inode of the database at a path, its log and its index; None for a file that is missing."""
    found: list[tuple[int, int] | None] = []
    for tail in TAILS:
        try:
            info = os.stat(f"{path}{tail}", follow_symlinks=False)
            found.append((info.st_dev, info.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def _as_row(snapshot: sqlite3.Row | None) -> Row:
    """The process row of a stored snapshot."""
    if snapshot is None:
        return {}
    skip = ("id", "event_id", "snapshot_type", "captured_at", "age_s")
    row = {k: snapshot[k] for k in snapshot.keys()  # noqa: SIM118  (a sqlite3.Row iterates over values)
           if k not in skip and snapshot[k] is not None and not k.endswith(("_low", "_high"))}
    if "dominant_metrics" in row:
        row["dominant_metrics"] = wire.loads(row["dominant_metrics"].encode())
    return row


class Store:
    """The stage: every tick is given to `writer`. daemon_state holds the last tick, the number of ticks, the highest
    score so far and the rogues of the last tick, both without rogue-hunter's own processes."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._count = 0
        self._highest: Row = {}
        self._last = Tick()

    def __call__(self, tick: Tick) -> Tick:
        """The tick, once it is written or queued."""
        if tick.row is not None:
            self._count += 1
            self._last = tick
            if tick.row.get("max_score", 0) > self._highest.get("score", 0):
                others = (row for row in map(tick.processes.__getitem__, tick.scored) if not row.get("own"))
                first = max(others, key=lambda row: int(row["score"]), default=self._highest)
                if first.get("score", 0) > self._highest.get("score", 0):
                    self._highest = {"ts": tick.row["ts"], **_named(first)}
        self._writer.take(tick)
        return tick

    def state(self) -> dict[str, Any]:
        """The facts of daemon_state."""
        return {"last_tick": self._last.row, "ticks": self._count, "highest": self._highest,
                "rogues": [_named(row) for row in self._last.rogues.values() if not row.get("own")],
                "unwaited": _unwaited(self._last.processes.values())}


UNWAITED_LEAST = 50
"""Ended children of one process that it has not waited for: fewer are a moment's. Each takes a pid and 10 kB of the
kernel's memory until its parent ends."""


def _unwaited(rows: Collection[Row]) -> str | None:
    """Who has left most children unwaited for, if that are many."""
    counts = Counter(row.get("ppid") for row in rows if row.get("state") == "defunct")
    parent, count = next(iter(counts.most_common(1)), (None, 0))
    if count < UNWAITED_LEAST:
        return None
    name = next((shown_name(row) for row in rows if row["pid"] == parent), None)
    return f"{name or '?'} (pid {parent}) has not waited for {count} children"


class StoreActions:
    """A stage that collects the actions of `run` and stores them; others come from the input. The user's own database
    is written only if it exists and has no other writer, because rh-pipe takes the actions from the audit file; with
    `must` a failure is raised."""

    def __init__(self, database: Path, settings: Settings, warn: Callable[[str], None], *, must: bool,
                 run: str) -> None:
        self.actions: list[Record] = []
        self._run = run
        self._database, self._settings, self._warn, self._must = database, settings, warn, must

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged. Raises DatabaseError."""
        new = [each for each in tick.records if each["type"] == "action" and each.get("run") == self._run]
        self.actions += new
        if new and (self._must or self._database.exists()):
            try:
                self._store(new)
            except DatabaseError:
                if self._must:
                    raise
        return tick

    def _store(self, actions: list[Record]) -> None:
        lock = Lock(self._database)
        try:
            writer = Writer(self._database, self._settings, time.time, self._warn)
            writer.take(Tick(records=actions))
            writer.close()
        finally:
            lock.release()


_NAMED = ("pid", "start_ticks", "start_time", "command", "cmdline", "user", "state", "score", "band",
          "dominant_resource", "dominant_category", "cpu_share", "gpu_share", "memory_share", "disk_share",
          "wakeups_share", "cpu_percent", "memory_bytes", "disk_bytes_per_s", "wakeups_per_s")


def _named(row: Row) -> Row:
    return {name: row[name] for name in _NAMED if name in row}


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
