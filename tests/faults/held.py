"""A database that another process holds, that is empty, or whose creation was interrupted."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from rogue_hunter.config.options import Config, Store
from rogue_hunter.daemon import pipe
from rogue_hunter.daemon.services import Running, Services
from rogue_hunter.store import database, migrations
from rogue_hunter.store.database import open_reader, open_writer
from rogue_hunter.store.migrations import VERSION
from rogue_hunter.store.writer import WalAlarm
from rogue_hunter.stream.tick import Tick

from .limits import state
from .statements import Faults, Scripted, contents, migrated, run
from .table import REPO, Bench, case, clean


@case("a reader that stays", "in a transaction while 10 MB are written: every tick taken and written, the log's size is said once "
      "and in daemon_state; when it goes, the log shrinks and that is said")
def pinned(bench: Bench) -> str:
    database = bench.tmp / "x.db"
    run(database, Faults())
    wal = Path(f"{database}-wal")
    reader = open_reader(database)
    reader.execute("BEGIN")
    before = reader.execute("SELECT count(*) FROM process_events").fetchone()[0]
    host = Scripted()
    said: list[str] = []
    sizes: list[int] = []
    told: list[Any] = []
    beats = 0
    limit = 9 << 20

    def sleep(seconds: float) -> bool:
        nonlocal beats
        beats += 1
        host.mono_ns += round(seconds * 1e9) + 1
        if wal.exists():
            sizes.append(wal.stat().st_size)
        if reader.in_transaction and sizes and sizes[-1] > limit + (1 << 20):
            told.append(state(database)["degraded"])
            reader.execute("COMMIT")
        return beats < 1500 and (reader.in_transaction or not any("small again" in line for line in said))

    def bloat(tick: Tick) -> Tick:
        """As much in a tick as a storm of events writes in a minute."""
        if tick.row is not None and reader.in_transaction:
            tick.row["host"] = os.urandom(60_000).hex()
        return tick

    @contextmanager
    def start(running: Running) -> Iterator[Services]:
        yield Services(wal=WalAlarm(database, running.writer, said.append, limit, every_s=1.0))

    ticks, _ = pipe.run(Config(store=Store(state_every_s=0.0)), host, database, hz=3.0, sleep=sleep, clock=host.clock,
                        warn=said.append, captures=bloat, start=start)
    reader.close()
    assert ticks == beats - 1 and beats < 1500, (ticks, beats)
    assert [("keeps a transaction open" in line, "small again" in line) for line in said] == [(True, False), (False, True)], said
    assert "keeps a transaction open" in told[0] and max(sizes) > limit and state(database)["degraded"] is None
    assert sizes[-1] <= 8 << 20, sizes[-1]
    assert len(contents(database)["events"]) >= before
    return (f"{ticks} ticks, the log grew to {max(sizes) >> 20} MiB and was cut to {sizes[-1] >> 20}; said: "
            f"{said[0].partition(': ')[2][:60]}...")


NOTHING = {"0 bytes": b"", "one byte": b"S", "zeros": bytes(8192), "text": b"# a note of mine\n" * 400,
           "the first page only": b"SQLite format 3\0" + bytes(84)}


@case("a database of nothing", "0 bytes, or zeros of which it never became more: begun; text or a damaged head: moved aside "
      "or refused untouched, a line; then every tick")
def nothing(bench: Bench) -> str:
    seen = []
    for name, data in NOTHING.items():
        place = bench.tmp / "run"
        place.mkdir()
        (place / "x.db").write_bytes(data)
        outcome = run(place / "x.db", Faults(), 45)
        aside = list(place.glob("x.db.corrupt-*[0-9]"))
        if outcome.refused:
            assert "\n" not in outcome.refused and (place / "x.db").read_bytes() == data, outcome
            seen.append(f"{name}: refused")
        else:
            assert outcome.ticks == 44 and len(contents(place / "x.db")["events"]) > 5
            assert [a.read_bytes() for a in aside] == [data] * len(aside)
            seen.append(f"{name}: {'moved aside' if aside else 'begun'}")
            assert aside or len(data) <= 1, f"{name}: what was in it is gone"
        shutil.rmtree(place)
    assert seen[0] == "0 bytes: begun"
    empty = bench.tmp / "empty.db"
    empty.touch(0o600)
    done = bench.rh("report", "--db", empty)
    clean(done.stderr, lines=1)
    assert done.returncode in (69, 78) and empty.stat().st_size == 0, done
    return "; ".join(seen) + f"; rh-report of 0 bytes: {done.returncode}"


_KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
real, count, at = sqlite3.connect, 0, int(sys.argv[2])
def call():
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
class Cursor(sqlite3.Cursor):
    def execute(self, *args):
        call()
        return super().execute(*args)
class Connection(sqlite3.Connection):
    def cursor(self, factory=Cursor):
        return super().cursor(factory)
    def execute(self, *args):
        call()
        return super().execute(*args)
sqlite3.connect = lambda *args, **more: real(*args, **{**more, "factory": Connection})
import sqlite_utils
from rogue_hunter.store import database
from tests.faults.statements import migrated
database.migrate_apart = migrated
for at in range(at, at + 1000, int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        database.open_writer(Path(sys.argv[1] + str(at)))[0].close()
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(at - 1, flush=True)
"""
"""From the statement argv[2] on, every argv[3]th, each in a child of its own: a kill before it, until one migration runs
through. The process of its own that migrates an old file is this child too: its statements are those to be killed at."""


def _version(file: Path) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found


@case("kill -9 in a migration", "before each of its statements, of a new file and of one of version 1: the old version or the new one, "
      "never between; the next start brings it up to date, what was in it is there")
def migration(bench: Bench) -> str:
    seen = []
    step = 1 if bench.long else 12
    for name in ("new", "old"):
        place = bench.tmp / name
        place.mkdir()
        if name == "old":
            first = place / "first.db"
            _of_version_1(first)
            for at in range(1, 1000, step):
                shutil.copyfile(first, place / f"{at}")
        done = subprocess.run([sys.executable, "-P", "-c", _KILLED, f"{place}/", "1", str(step)], env=bench.env, cwd=REPO,
                              capture_output=True, check=False, timeout=300)
        assert done.returncode == 0, done
        kills = int(done.stdout)
        assert kills > 30, kills
        versions: dict[int, int] = {}
        for at in range(1, kills + 1, step):
            file = place / str(at)
            if not file.exists():
                continue
            found = _version(file)
            versions[found] = versions.get(found, 0) + 1
            assert found in (0, 1, VERSION), (name, at, found)
            with nullcontext() if at == 1 else mock.patch.object(database, "migrate_apart", migrated):
                connection, moved = open_writer(file)
            try:
                assert moved is None, (name, at)
                assert connection.execute("PRAGMA user_version").fetchone()[0] == VERSION
                assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
                assert connection.execute("SELECT count(*) FROM actions").fetchone()[0] == 0
                if name == "old":
                    assert connection.execute("SELECT event FROM process_events").fetchall() == [("kept",)]
            finally:
                connection.close()
        assert set(versions) <= {0 if name == "new" else 1, VERSION}, versions
        seen.append(f"{name}: {sum(versions.values())} kills, then version " + ", ".join(f"{v} {n} times" for v, n in versions.items()))
    return "; ".join(seen)


def _of_version_1(file: Path) -> None:
    """A file as the first version made it, with an event in it."""
    first = dict(list(migrations.STEPS.items())[:1])
    with mock.patch.object(migrations, "STEPS", first), mock.patch.object(migrations, "VERSION", 1), \
            closing(sqlite3.connect(file, isolation_level=None)) as connection:
        migrations.prepare(connection)
        migrations.migrate(connection)
        columns = {row[1]: row for row in connection.execute("PRAGMA table_info(process_events)")}
        needed = [c for c, row in columns.items() if row[3] and row[4] is None and c != "id"]
        values = ["kept" if c == "event" else "x" if columns[c][2] == "TEXT" else 1 for c in needed]
        connection.execute(f"INSERT INTO process_events ({', '.join(needed)}) VALUES ({', '.join('?' * len(needed))})",
                           values)
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 1


