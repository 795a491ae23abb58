"""The database: tables from the declarations, one writer, and nothing lost that can be kept."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.config.options import Store as Settings
from rogue_hunter.daemon.pipe import Opener
from rogue_hunter.schema.events import EVENT
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.database import DatabaseError, Lock, open_reader, open_writer
from rogue_hunter.store.migrations import VERSION
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.tables import APPLICATION_ID, TABLES
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Tick
from rogue_hunter.tracking.events import Track
from tests.tools.ticks import START, row, stream

CONFIG = Config()


class Clock:
    """A wall clock that is only moved by the test."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def events(burn: int = 20, rest: int = 40, **more: Any) -> Iterator[Tick]:
    """A process that burns a core for `burn` ticks and rests for `rest`, tracked."""
    ticks = [[row(7, command="hog", cpu_percent=100.0, cpu_seconds_total=i / 3)] for i in range(burn)]
    ticks += [[row(7, command="hog", cpu_percent=0.0)]] * rest
    return chain(stream(ticks, **more), Score(CONFIG), Track(CONFIG))


def write(db: Path, ticks: Iterator[Tick], clock: Clock, said: list[str], settings: Settings = CONFIG.store) -> Writer:
    """Write all ticks; the writer stays open."""
    writer = Writer(db, settings, clock, said.append, clock=clock)
    for tick in chain(ticks, Store(writer)):
        if tick.row:
            clock.now = tick.row["ts"]
    return writer


def rows(db: Path, sql: str) -> list[tuple[Any, ...]]:
    with open_reader(db) as connection:
        connection.row_factory = None
        return connection.execute(sql).fetchall()


def test_columns_are_the_declared_fields(db: Path) -> None:
    """The file's columns, types and order are those of the declarations; a snapshot holds every field of an event."""
    open_writer(db)[0].close()
    with open_reader(db) as connection:
        for table in TABLES:
            columns = [(c["name"], c["type"]) for c in connection.execute(f"PRAGMA table_info({table.name})")]
            assert columns == [(c.name, c.sql) for c in table.columns], table.name
        names = {c["name"] for c in connection.execute("PRAGMA table_info(process_snapshots)")}
        head = {"ts", "kind", "event", "boot_id", "entered", "duration_s", "peak_score", "peak_band", "reason",
                "scope", "processes"}
        assert {f.name for f in EVENT} - head <= names
        assert connection.execute("PRAGMA user_version").fetchone()[0] == VERSION
        assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2


def test_one_event_from_begin_to_end(db: Path, clock: Clock, said: list[str]) -> None:
    """An event has its enter and exit snapshots, its peak, its reason, and the low and high of the ring."""
    write(db, events(), clock, said).close()
    (event,) = rows(db, "SELECT command, entry_score, peak_score, reason, exit_time > entry_time FROM process_events")
    assert event == ("hog", 56, 56, "below_threshold", 1)
    kinds = rows(db, "SELECT snapshot_type, cpu_percent, cpu_percent_low, cpu_percent_high"
                     " FROM process_snapshots ORDER BY id")
    assert kinds[0] == ("enter", 100.0, 100.0, 100.0)
    assert kinds[-1] == ("exit", 0.0, 0.0, 100.0)
    assert said == []


def test_state_that_stays_is_written_once(db: Path, clock: Clock, said: list[str]) -> None:
    """Each value has the time of its last change; into a file that takes the place of the first, all of it goes."""
    writer = write(db, stream([[row(7)]]), clock, said)
    facts = {"pid": 7, "ticks": 1}
    writer.tells(lambda: facts)
    clock.now, before = START + 100, rows(db, "SELECT value, updated_at FROM daemon_state WHERE key = 'pid'")
    writer.flush()
    clock.now, facts["ticks"] = START + 200, 2
    writer.flush()
    state = dict(rows(db, "SELECT key, updated_at FROM daemon_state"))
    assert before == [] and state["pid"] == START + 100 and state["ticks"] == START + 200
    for each in db.parent.glob(db.name + "*"):
        each.unlink()
    clock.now = START + 300
    writer.flush()
    writer.close()
    assert dict(rows(db, "SELECT key, updated_at FROM daemon_state"))["pid"] == START + 300


def test_files_are_the_owners_alone(tmp_path: Path, clock: Clock, said: list[str]) -> None:
    """Database, -wal, -shm and lock file have mode 0600 with any umask."""
    before = os.umask(0)
    try:
        lock = Lock(tmp_path / "x.db")
        writer = write(tmp_path / "x.db", events(), clock, said)
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
        writer.close()
        lock.release()
    finally:
        os.umask(before)
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600, "x.db.lock": 0o600}


def test_only_one_writer(db: Path) -> None:
    """The lock refuses a second writer, names the first, and is free once that has gone."""
    lock = Lock(db)
    with pytest.raises(DatabaseError, match=f"process {os.getpid()}") as refusal:
        Lock(db)
    assert refusal.value.code == 69
    lock.release()
    Lock(db).release()


def test_newer_file_is_refused_untouched(db: Path) -> None:
    """A file of a newer version is not changed by a byte, neither by a writer nor by a reader."""
    open_writer(db)[0].close()
    with sqlite3.connect(db) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = db.read_bytes()
    for opening in (open_writer, open_reader):
        with pytest.raises(DatabaseError, match="newer") as refusal:
            opening(db)
        assert refusal.value.code == 78
    assert db.read_bytes() == before


def test_foreign_file_is_refused_untouched(db: Path) -> None:
    """A database of another program is never migrated."""
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = db.read_bytes()
    with pytest.raises(DatabaseError, match="not a database of rogue-hunter") as refusal:
        open_writer(db)
    assert refusal.value.code == 78
    assert db.read_bytes() == before


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/etc/passwd")],
                         ids=["directory", "fifo", "symlink"])
def test_what_is_no_file_is_refused(db: Path, make: Callable[[Path], None]) -> None:
    """A directory, a FIFO, a link to another file: refused, nothing touched."""
    make(db)
    with pytest.raises(DatabaseError) as refusal:
        open_writer(db)
    assert refusal.value.code == 74


@pytest.mark.parametrize("damage", ["text", "truncated", "header", "middle"])
def test_corrupt_file_is_moved_aside(db: Path, clock: Clock, said: list[str], damage: str) -> None:
    """A damaged file is kept under another name, a new one is begun, with one message."""
    write(db, events(), clock, said).close()
    data = bytearray(db.read_bytes())
    if damage == "text":
        data = bytearray(b"this is no database\n" * 100)
    elif damage == "truncated":
        del data[len(data) // 2:]
    elif damage == "header":
        data[0:4] = b"XXXX"
    else:
        data[4096:8192] = b"\xa5" * 4096
    db.write_bytes(data)
    write(db, events(), clock, said).close()
    (kept,) = db.parent.glob("x.db.corrupt-*[0-9]")
    assert kept.read_bytes() == bytes(data)
    assert len(said) == 1 and "corrupt" in said[0]
    assert rows(db, "SELECT count(*) FROM process_events") == [(1,)]


def test_a_lack_of_memory_ends_no_later_write(db: Path, clock: Clock, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite asks for memory in the middle of a transaction, which is taken back: records wait as for a full disk."""
    def write(connection: sqlite3.Connection, each: Record) -> None:
        if len(said) < 1:
            raise MemoryError
        usual(connection, each)

    usual = WRITES["event"]
    monkeypatch.setitem(WRITES, "event", write)
    writer = Writer(db, Settings(retry_s=1.0), clock, said.append, clock=clock)
    for tick in events():
        writer.take(tick)
    assert writer.degraded == "out of memory"
    clock.now += 5
    assert writer.flush() and writer.close() == 0
    assert rows(db, "SELECT count(*) FROM process_events") == [(1,)]


def test_full_disk_keeps_records_until_there_is_room(db: Path, clock: Clock, said: list[str]) -> None:
    """SQLITE_FULL: sampling continues, the state is degraded, and once there is room everything is written."""
    writer = Writer(db, Settings(retry_s=1.0), clock, said.append, clock=clock)
    connection = writer._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 1").fetchall()
    hogs = [[row(p, cpu_percent=100.0 * (i < 40), cpu_seconds_total=i / 3, cmdline="x" * 999) for p in range(9)]
            for i in range(100)]
    degraded = 0
    writer.alarms["log"] = "the log /\udcff/rh-pipe.log cannot be written"   # a name that is not UTF-8
    for tick in chain(stream(hogs, cpu_busy_cores=8.0), Score(CONFIG), Track(CONFIG)):
        if tick.row:
            clock.now = tick.row["ts"]
        if clock.now > START + 25:
            connection.execute("PRAGMA max_page_count = 100000")
        writer.take(tick)
        degraded += writer.degraded is not None
    assert degraded > 10
    clock.now += 5
    assert writer.flush() and rows(db, "SELECT value FROM daemon_state WHERE key = 'degraded'") == [
        (r'"the log /\\xff/rh-pipe.log cannot be written"',)]
    assert writer.degraded is None and writer.dropped == 0
    writer.close()
    assert "SQLITE_FULL" in said[0] and "writing again" in said[-1] and len(said) == 2
    assert rows(db, "SELECT count(*), count(exit_time) FROM process_events") == [(9, 9)]


@pytest.mark.parametrize("deed", ["-wal", "-shm"])
def test_what_sqlite_keeps_beside_the_file_is_deleted(db: Path, clock: Clock, said: list[str], deed: str) -> None:
    """Other processes could not read the database any more; nothing is lost."""
    writer = Writer(db, CONFIG.store, clock, said.append, clock=clock)
    for place, tick in enumerate(events(60, 90)):
        if place == 30:
            Path(f"{db}{deed}").unlink()
        if tick.row:
            clock.now = tick.row["ts"]
        writer.take(tick)
        if place == 40:
            writer.flush()
            with closing(open_reader(db)) as reader:
                assert reader.execute("SELECT count(*) FROM process_events").fetchone()[0] == 1
    assert len(said) == 1 and f"{db}{deed} was deleted" in said[0]
    assert writer.close() == 0
    assert rows(db, "SELECT command, reason FROM process_events") == [("hog", "below_threshold")]
    assert rows(db, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("deed", ["delete", "replace", "rename", "delete directory", "rename directory"])
def test_a_file_that_is_deleted_or_replaced_is_opened_again(tmp_path: Path, clock: Clock, said: list[str],
                                                           deed: str) -> None:
    """Noticed within a second and reported; what comes later is in the new file, an open event among it. A file that
    has another name now keeps what was written to it."""
    db = tmp_path / "data" / "x.db"
    db.parent.mkdir()
    lock = Lock(db)
    opener = Opener(lock)
    writer = Writer(db, CONFIG.store, clock, said.append, opener, clock=clock)
    for place, tick in enumerate(events(60, 90)):
        if place == 30:
            if deed == "rename directory":
                db.parent.rename(tmp_path / "away")
            elif deed == "delete directory":
                shutil.rmtree(db.parent)
            elif deed == "rename":
                db.rename(tmp_path / "x.db")
            else:
                for file in db.parent.iterdir():
                    file.unlink()
            if deed == "replace":
                open_writer(db)[0].close()
        if tick.row:
            clock.now = tick.row["ts"]
        writer.take(tick)
        if place == 34:
            assert len(said) >= 1 and str(db) in said[0] and ("replaced" if deed == "replace" else "deleted") in said[0]
            assert writer.degraded is None
    writer.close()
    assert writer.dropped == 0
    assert rows(db, "SELECT command, reason FROM process_events") == [("hog", "below_threshold")]
    if "rename" in deed:
        before = tmp_path / ("x.db" if deed == "rename" else "away/x.db")
        assert rows(before, "SELECT command, reason FROM process_events") == [("hog", None)]
    with pytest.raises(DatabaseError, match="another rh-pipe writes"):
        Lock(db)
    lock.release()


def test_a_file_system_without_locks_is_not_another_rh_pipe(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(DatabaseError, match="cannot be locked") as caught:
        Lock(db)
    assert caught.value.code == 74


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
def test_retries_do_not_wait_for_the_wall_clock(db: Path, clock: Clock, said: list[str], step: float) -> None:
    """The disk is full and the clock is set by a day: the next try comes after retry_s all the same."""
    monotonic = Clock()
    writer = Writer(db, Settings(retry_s=2.0), clock, said.append, clock=monotonic)
    other = sqlite3.connect(db, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer.take(next(t for t in events() if t.records))
    assert writer.degraded is not None
    other.execute("ROLLBACK")
    other.close()
    clock.now += step
    writer.take(Tick())
    assert writer.degraded is not None
    monotonic.now += 2.0
    writer.take(Tick())
    assert writer.degraded is None
    writer.close()


def test_the_highest_score_is_never_our_own(db: Path) -> None:
    """On an idle machine rh-pipe may well use most: that is its cost, and not what a report names."""
    store = Store(Writer(db, CONFIG.store, Clock(), list[str]().append))
    ticks = [[row(7, command="rh-pipe", own=True, cpu_percent=40.0), row(8, command="tar", cpu_percent=much)]
             for much in (0.0, 20.0, 25.0, 10.0)]
    for tick in chain(stream(ticks, cpu_busy_cores=0.7), Score(CONFIG), Track(CONFIG)):
        store(tick)
    state = store.state()
    assert state["last_tick"]["max_score"] > state["highest"]["score"] > 0
    assert (state["highest"]["command"], state["highest"]["cpu_percent"]) == ("tar", 25.0)
    assert [each["command"] for each in state["rogues"]] == ["tar"]


@pytest.mark.parametrize(("ended", "expected"), [(49, None), (60, "make (pid 7) has not waited for 60 children")])
def test_who_does_not_wait_for_children_is_in_the_state(db: Path, ended: int, expected: str | None) -> None:
    store = Store(Writer(db, CONFIG.store, Clock(), list[str]().append))
    children = [row(100 + i, ppid=7, state="defunct", command="cc") for i in range(ended)]
    for tick in stream([[row(7, command="make"), row(8, ppid=1, state="defunct"), *children]]):
        store(tick)
    assert store.state()["unwaited"] == expected


def test_queue_is_bounded_and_counts_what_it_drops(db: Path, clock: Clock, said: list[str]) -> None:
    """With nowhere to write, the queue keeps the newest and says how many records were lost."""
    writer = Writer(db, Settings(queue_ticks=3, retry_s=1e3), clock, said.append, clock=clock)
    other = sqlite3.connect(db, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    record: Record = next(t for t in events() if t.records).records[0]
    for i in range(10):
        writer.take(Tick(records=[{**record, "event": f"e{i}", "pid": i}]))
    assert writer.dropped == 7
    assert "SQLITE_BUSY" in (writer.degraded or "")
    other.execute("ROLLBACK")
    other.close()
    writer.close()
    assert rows(db, "SELECT event FROM process_events ORDER BY id") == [("e7",), ("e8",), ("e9",)]


def test_locked_file_does_not_hold_up_the_beat(db: Path, clock: Clock, said: list[str]) -> None:
    """While another process holds the write lock, a tick's write gives up in milliseconds and nothing is lost."""
    writer = Writer(db, CONFIG.store, clock, said.append, clock=clock)
    other = sqlite3.connect(db, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waits: list[str] = []
    writer._connection.set_trace_callback(waits.append)  # type: ignore[union-attr]
    for tick in events(5, 20):
        writer.take(tick)
    assert sum(w.startswith("BEGIN IMMEDIATE") for w in waits) <= 8, "one try every 2 s, not one a tick"
    assert writer._connection.execute("PRAGMA busy_timeout").fetchone()[0] == 20  # type: ignore[union-attr]
    other.execute("ROLLBACK")
    other.close()
    writer.close()
    assert rows(db, "SELECT count(*), count(exit_time) FROM process_events") == [(1, 1)]


def test_corruption_while_running_begins_a_new_file(db: Path, clock: Clock, said: list[str]) -> None:
    """A file that becomes corrupt under the writer is moved aside and the open event continues in a new one."""
    writer = Writer(db, CONFIG.store, clock, said.append, clock=clock)
    ticks = [t for t in events(20, 20) if t.records]
    writer.take(ticks[0])

    class Broken:
        in_transaction = False

        def execute(self, *_: object) -> object:
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            error.sqlite_errorname = "SQLITE_CORRUPT"
            raise error

        def close(self) -> None:
            pass

    real = writer._connection
    assert real is not None
    writer._connection = Broken()  # type: ignore[assignment]
    for tick in ticks[1:]:
        writer.take(tick)
    writer.close()
    real.close()
    assert len(list(db.parent.glob("x.db.corrupt-*"))) >= 1
    assert rows(db, "SELECT count(*), count(exit_time) FROM process_events") == [(1, 1)]


@pytest.mark.slow
def test_two_migrations_at_once(tmp_path: Path) -> None:
    """Five processes that open an empty file at the same moment all succeed."""
    code = ("import sys; from pathlib import Path; from rogue_hunter.store.database import open_writer\n"
            "open_writer(Path(sys.argv[1]))[0].close()")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    args = [sys.executable, "-P", "-c", code, str(tmp_path / "x.db")]
    runs = [subprocess.Popen(args, env=env, stderr=subprocess.PIPE) for _ in range(5)]
    results = [(run.communicate(timeout=60)[1], run.returncode) for run in runs]
    assert results == [(b"", 0)] * 5


def test_migration_apart(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file is the same as one that sqlite_utils made, step by step, or that a process of its own has completed;
    sqlite_utils is not in this process. An error is ours."""
    from sqlite_utils import Database

    from rogue_hunter.store import migrations

    code = ("import sys; from pathlib import Path; from rogue_hunter.store.database import open_writer\n"
            "open_writer(Path(sys.argv[1]), apart=True)[0].close(); print('sqlite_utils' in sys.modules)")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    run = subprocess.run([sys.executable, "-P", "-c", code, str(db)], env=env, capture_output=True, check=True)
    assert run.stdout == b"False\n"
    other = db.with_name("y.db")
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        migrations.prepare(connection)
        migrations._steps().apply(Database(connection))
        connection.execute(f"PRAGMA user_version = {VERSION - 1}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    open_writer(other, apart=True)[0].close()
    layout = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    assert rows(db, layout) == rows(other, layout)
    assert rows(db, "PRAGMA auto_vacuum") == [(2,)]
    held = sqlite3.connect(db.with_name("z.db"), isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("rogue_hunter.store.database.MAKING_MS", 50)
    with pytest.raises(DatabaseError, match="locked") as refusal:
        open_writer(db.with_name("z.db"), apart=True)
    assert refusal.value.code == 69
    held.close()


def test_a_file_of_the_version_before_is_completed(db: Path) -> None:
    """Its number of steps is lower, so that the missing ones are applied: waits had no column `standing`."""
    open_writer(db)[0].close()
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE waits DROP COLUMN standing")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name >= 'm012'")
        connection.execute("PRAGMA user_version = 11")
    open_writer(db)[0].close()
    assert "standing" in [row[1] for row in rows(db, "PRAGMA table_info(waits)")]
    assert rows(db, "SELECT count(*) FROM _sqlite_migrations") == rows(db, "PRAGMA user_version") == [(VERSION,)]


def test_migration_that_fails_leaves_nothing(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails at its Nth statement leaves the file as it was, for every N."""
    from rogue_hunter.store import migrations

    statements = [s for t in TABLES for s in t.create()]
    for n in range(len(statements)):
        done = 0
        create = migrations._create

        def failing(database: Any, *tables: Any, n: int = n) -> None:
            nonlocal done
            for table in tables:
                for statement in table.create():
                    if done == n:
                        raise sqlite3.OperationalError("disk I/O error")
                    database.execute(statement)
                    done += 1

        monkeypatch.setattr(migrations, "_create", failing)
        with pytest.raises(DatabaseError):
            open_writer(db)
        monkeypatch.setattr(migrations, "_create", create)
        connection = sqlite3.connect(db)
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        connection.close()
    open_writer(db)[0].close()


def test_open_events_are_restored_once(db: Path, clock: Clock, said: list[str]) -> None:
    """After a crash a living process's event continues under its key, a dead one's ends once as crashed."""
    ticks = stream([[row(pid, cpu_percent=100.0, cpu_seconds_total=i / 3) for pid in (7, 8)] for i in range(10)])
    writer = Writer(db, CONFIG.store, clock, said.append, clock=clock)
    crash = chain(ticks, Score(CONFIG), Track(CONFIG))
    for _ in range(9):
        writer.take(next(crash))
    assert writer._connection is not None
    writer._connection.close()
    first = rows(db, "SELECT event, exit_time FROM process_events ORDER BY pid")
    assert [r[1] for r in first] == [None, None]

    writer = Writer(db, CONFIG.store, clock, said.append, clock=clock)
    restored = writer.open_events()
    assert [(e.event, e.key) for e in restored] == [(first[0][0], (7, 1000)), (first[1][0], (8, 1000))]
    again = stream([[row(7, cpu_percent=100.0, cpu_seconds_total=i / 3)] for i in range(10, 20)])
    for tick in chain(again, Score(CONFIG), Track(CONFIG, restored=restored)):
        writer.take(tick)
    writer.close()
    after = rows(db, "SELECT event, reason FROM process_events ORDER BY pid")
    assert after == [(first[0][0], "stopped"), (first[1][0], "crashed")]


def test_second_open_event_of_one_process_cannot_exist(db: Path, clock: Clock, said: list[str]) -> None:
    """The database itself refuses two open events of one identity."""
    writer = Writer(db, CONFIG.store, clock, said.append, clock=clock)
    record: Record = next(t for t in events() if t.records).records[0]
    for name in ("a", "b"):
        writer.take(Tick(records=[{**record, "event": name}]))
    writer.close()
    assert rows(db, "SELECT event FROM process_events") == [("a",)]


def test_reader_of_nothing(tmp_path: Path) -> None:
    """A missing database is unavailable, a text file is not a database; neither is made or changed."""
    with pytest.raises(DatabaseError) as refusal:
        open_reader(tmp_path / "none.db")
    assert refusal.value.code == 69
    (tmp_path / "text.db").write_text("hello")
    with pytest.raises(DatabaseError) as refusal:
        open_reader(tmp_path / "text.db")
    assert refusal.value.code == 74
    assert (tmp_path / "text.db").read_text() == "hello"


def test_hostile_values_are_stored_as_they_are(db: Path, clock: Clock, said: list[str]) -> None:
    """Quotes, escapes and huge numbers in a record are data."""
    name = "a'); DROP TABLE process_events; --\x1b[2J\u202e"
    ticks = [[row(7, command=name, cmdline=name, cpu_percent=100.0, memory_bytes=2**63 - 1)]] * 9
    write(db, chain(stream(ticks), Score(CONFIG), Track(CONFIG)), clock, said).close()
    assert rows(db, "SELECT command, cmdline FROM process_events") == [(name, name)]


def test_a_reader_that_cannot_make_a_file_beside(tmp_path: Path) -> None:
    """On a full disk and in a directory of others a history at rest can be read, one with a log beside it cannot."""
    path = tmp_path / "x.db"
    open_writer(path)[0].close()
    Path(f"{path}-shm").symlink_to(f"{path}-shm")
    with closing(open_reader(path)) as reader:
        assert reader.execute("SELECT count(*) FROM process_events").fetchone()[0] == 0
    lock = Lock(path)
    with pytest.raises(DatabaseError):
        open_reader(path)
    lock.release()
    Path(f"{path}-wal").write_bytes(b"x")
    with pytest.raises(DatabaseError):
        open_reader(path)


def test_a_file_that_is_still_empty_is_no_foreign_one(tmp_path: Path) -> None:
    """rh-pipe was killed before it wrote to it."""
    (tmp_path / "x.db").touch()
    with pytest.raises(DatabaseError, match="no history yet") as refusal:
        open_reader(tmp_path / "x.db")
    assert refusal.value.code == 69
