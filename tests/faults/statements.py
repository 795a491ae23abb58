"""Every database call of rh-pipe fails in turn, with each error of SQLite, once, for a while and permanently."""

from __future__ import annotations

import random
import shutil
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from rogue_hunter.config.options import Config, Store
from rogue_hunter.daemon import pipe
from rogue_hunter.host.protocol import Facts, Snapshot
from rogue_hunter.store import database, migrations
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream.clock import Clock
from tests.tools import ticks as ticktools

from .calls import EVER, ONCE, WHILE
from .table import SEED, Bench, case

ERRORS = {name: getattr(sqlite3, f"SQLITE_{name}") for name in (
    "FULL", "BUSY", "IOERR", "READONLY", "CORRUPT", "NOMEM", "CANTOPEN", "LOCKED")}
ROLLS_BACK = ("FULL", "IOERR", "NOMEM")
"""Errors at which SQLite itself ends the transaction, mostly (lang_transaction.html)."""

BEATS, MENDED = 90, 40


@dataclass
class Faults:
    """As in `calls`, for statements. `rolled` says whether the transaction is gone when the error comes."""

    nth: int = 0
    name: str = ""
    how: str = ONCE
    rolled: bool = False
    armed: bool = True
    count: int = 0
    hit: str = ""
    seen: list[str] = field(default_factory=list)

    def call(self, sql: str, connection: sqlite3.Connection | None) -> None:
        """Raises sqlite3.OperationalError or DatabaseError."""
        if not self.armed:
            return
        self.count += 1
        if not (self.nth and (self.count == self.nth or (self.how != ONCE and self.count > self.nth))):
            return
        self.hit = self.hit or " ".join(sql.split())[:50]
        if self.rolled and self.name in ROLLS_BACK and connection is not None and connection.in_transaction:
            sqlite3.Connection.execute(connection, "ROLLBACK")
        kind = sqlite3.DatabaseError if self.name == "CORRUPT" else sqlite3.OperationalError
        error = kind(f"injected {self.name}")
        error.sqlite_errorcode, error.sqlite_errorname = ERRORS[self.name], f"SQLITE_{self.name}"
        raise error


@contextmanager
def failing(faults: Faults) -> Iterator[None]:
    """Connections of this process whose statements are counted and fail."""
    real = sqlite3.connect

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *args: Any) -> Cursor:  # type: ignore[override]
            faults.call(sql, self.connection)
            super().execute(sql, *args)
            return self

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            faults.call(sql, self)
            return super().execute(sql, *args)

    def connect(*args: Any, **more: Any) -> sqlite3.Connection:
        faults.call("connect", None)
        made: sqlite3.Connection = real(*args, **{**more, "factory": Connection})
        return made

    # The process of its own that migrates would know nothing of the faults, and take longer than all the ticks.
    with mock.patch.object(sqlite3, "connect", connect), mock.patch.object(database, "migrate_apart", migrated):
        yield


def migrated(path: Path) -> None:
    """migrate_apart, here. Raises sqlite3.Error."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations.prepare(connection)
        migrations.migrate(connection)


class Scripted:
    """A host whose processes are those of a seeded machine."""

    def __init__(self) -> None:
        self.machine = ticktools.Machine(11, processes=12, cpus=2)
        self.mono_ns = 10**12
        self.clock = Clock(lambda: self.mono_ns, lambda: ticktools.START + self.mono_ns / 1e9)

    def facts(self) -> Facts:
        return Facts("linux", "testhost", ticktools.BOOT, 2, 16 << 30)

    def snapshot(self) -> Snapshot:
        tick = self.machine.tick()
        row = tick.row or {}
        named = {n: row[n] for n in ("memory_available_bytes", "cpu_busy_cores", "pressure_cpu_some_ms_per_s")
                 if row.get(n) is not None}
        return Snapshot(self.mono_ns, tick.processes, tick.changed, tick.exited, machine=named)

    def close(self) -> None:
        pass


@dataclass
class Outcome:
    """The number of ticks, the messages, the error that refused the start."""

    ticks: int
    said: list[str]
    refused: str = ""


def run(file: Path, faults: Faults, until: int = BEATS) -> Outcome:
    """rh-pipe's loop on a scripted machine. Raises what is not handled."""
    host = Scripted()
    beats = 0

    def sleep(seconds: float) -> bool:
        nonlocal beats
        beats += 1
        host.mono_ns += round(seconds * 1e9) + 1
        if beats >= MENDED and faults.how != EVER:
            faults.armed = False
        return beats < until

    said: list[str] = []
    config = Config(store=Store(retry_s=1.0, state_every_s=2.0))
    with failing(faults):
        try:
            ran = pipe.run(config, host, file, hz=3.0, sleep=sleep, clock=host.clock, warn=said.append)
        except DatabaseError as error:
            return Outcome(0, said, str(error))
        finally:
            faults.armed = False
    assert bool(ran.lost) == any("could not be written" in line for line in said)
    return Outcome(ran.ticks, said)


def contents(file: Path) -> dict[str, Any]:
    """What the file holds, by table, without numbers that depend on the order of writing."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {
            "events": sorted(connection.execute(
                "SELECT event, pid, entry_time, exit_time, reason, peak_score FROM process_events")),
            "snapshots": sorted(connection.execute(
                "SELECT e.event, snapshot_type, captured_at FROM process_snapshots s JOIN process_events e"
                " ON e.id = s.event_id")),
            "minutes": sorted(connection.execute("SELECT minute, command FROM command_minutes")),
            "open": connection.execute("SELECT count(*) FROM process_events WHERE exit_time IS NULL").fetchone()[0],
        }


def _sweep(bench: Bench, prepare: Callable[[Path], object], start: int) -> str:
    place = bench.tmp / "run"
    place.mkdir()
    prepare(place / "x.db")
    usual = Faults()
    assert run(place / "x.db", usual).ticks == BEATS - 1
    truth = contents(place / "x.db")
    assert len(truth["events"]) > 5 and truth["open"] == 0
    rng = random.Random(SEED)
    runs = refused = degraded = moved = 0
    problems = []
    every = range(1, usual.count + 2)
    for nth in every if bench.long else (*every[:start], *every[start::48]):
        # All 24 of each would be some hours; the seed is fixed, so what was once tried is tried again.
        for name in rng.sample(list(ERRORS), 3 if bench.long else 1):
            for how in (rng.choice((ONCE, ONCE, WHILE, EVER)),):
                shutil.rmtree(place)
                place.mkdir()
                prepare(place / "x.db")
                faults = Faults(nth, name, how, rng.random() < 0.5)
                runs += 1
                try:
                    outcome = run(place / "x.db", faults)
                    _check(place, outcome, faults, truth, usual.count)
                except Exception as error:
                    ours = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)
                            if "rogue_hunter" in f.filename][-2:]
                    problems.append(f"{how} {name} at {nth} ({faults.hit}): {type(error).__name__} {error} {ours}")
                    continue
                refused += bool(outcome.refused)
                degraded += any("sampling continues" in line for line in outcome.said)
                moved += any("corrupt" in line for line in outcome.said)
    assert not problems, f"{len(problems)} of {runs}:\n" + "\n".join(problems)
    return (f"{usual.count} statements, {runs} runs: 0 unhandled, 0 records lost without a word, 0 twice; {degraded} "
            f"degraded, {moved} with a new file, {refused} refused to begin")


def _check(place: Path, outcome: Outcome, faults: Faults, truth: dict[str, Any], usual: int) -> None:
    assert faults.count < 3 * usual + 200, f"spins: {faults.count} statements"
    assert len(outcome.said) < 25, f"{len(outcome.said)} lines"
    assert all("\n" not in line for line in (*outcome.said, outcome.refused))
    if outcome.refused:
        assert outcome.ticks == 0
        return
    assert outcome.ticks == BEATS - 1, outcome.ticks
    lost = any("could not be written" in line or "were lost" in line for line in outcome.said)
    if faults.how == EVER and faults.hit:
        # The file is as the last transaction that went through left it, or not there at all.
        assert lost or outcome.said or faults.count == usual, "lost without a word"
        return
    aside = list(place.glob("x.db.corrupt-*"))
    if aside:
        assert any("corrupt" in line for line in outcome.said)
        assert contents(place / "x.db")["open"] == 0
        return
    if faults.hit and not lost:
        assert contents(place / "x.db") == truth, "not what a run without faults leaves"


@case("database/a new file", "every tick is taken, degraded is said and its end is said, what is lost is counted, "
      "nothing twice, nothing open")
def new_file(bench: Bench) -> str:
    return _sweep(bench, lambda file: None, 0)


@case("database/a file with history", "the same, and events that the last run left open are closed once")
def old_file(bench: Bench) -> str:
    template = bench.tmp / "template.db"
    run(template, Faults())
    with closing(sqlite3.connect(template)) as connection:
        # As a crash leaves it: two events of processes that are gone by now.
        connection.execute("UPDATE process_events SET exit_time = NULL, reason = NULL WHERE id IN (1, 3)")
        connection.commit()
    return _sweep(bench, lambda file: shutil.copyfile(template, file), 24)
