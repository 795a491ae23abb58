"""Pruning removes what it should, gives the room back, and never touches what is open."""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing as closed
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.cli.prune import command
from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.field import Field
from rogue_hunter.store import prune as pruning
from rogue_hunter.store.database import Lock, open_reader, open_writer
from rogue_hunter.store.prune import HISTORY, estimate, files_size, pages_size, parse_size, prune
from rogue_hunter.store.tables import PROCESS_EVENTS, PROCESS_SNAPSHOTS, TABLES, Table
from rogue_hunter.stream import wire
from tests.tools.reports import CONFIG, connect, hog, record_run, seconds, ticks_of

DAY = 86_400.0
NOW = 1_795_000_000.0
ELSEWHERE = ("event_id", "pause_id")
"""Columns that name a row of a history of its own, where they may be empty."""
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def filler(field: Field, rnd: random.Random) -> Any:
    """A value of a column that takes the room that real ones take."""
    if field.type is str:
        return "text of some length"
    if field.type in (list, dict):
        return "[]"
    return rnd.random() * 1e6 if field.type is float else rnd.randrange(10**6)


def insert(connection: sqlite3.Connection, table: Table, rnd: random.Random, **values: Any) -> None:
    """A row in which every column has a value."""
    row = {c.name: filler(c, rnd) for c in table.columns if c.name not in ("id", *ELSEWHERE)}
    row |= dict.fromkeys(ELSEWHERE)
    connection.execute(table.insert(), {**row, **values})


def fill(path: Path, events: int, days: float, *, every_open: int = 0, snapshots: int = 4, end: float = NOW) -> None:
    """`events` over the last `days` before `end`, with snapshots each; every n-th never ended."""
    rnd = random.Random(23)
    connection, _ = open_writer(path)
    first = connection.execute("SELECT coalesce(max(id), 0) FROM process_events").fetchone()[0]
    connection.execute("BEGIN")
    for n in range(first + 1, first + events + 1):
        start = end - days * DAY * (1 - (n - first - 1) / events)
        live = every_open and n % every_open == 0
        insert(connection, PROCESS_EVENTS, rnd, event=f"e{n}", boot_id="b", pid=n, start_ticks=n, entry_time=start,
               exit_time=None if live else start + 60, last_seen=start + 60, peak_snapshot_id=None)
        for at in range(snapshots):
            insert(connection, PROCESS_SNAPSHOTS, rnd, event_id=n, snapshot_type="checkpoint", captured_at=start + at)
    connection.execute("COMMIT")
    connection.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 events of 40 days, every hundredth of them open: about 7 MB."""
    path = tmp_path_factory.mktemp("prune") / "x.db"
    fill(path, 1200, 40, every_open=100)
    return path


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(made, tmp_path / "x.db"))


def run(path: Path, before: float, max_bytes: int, bite: int = pruning.BITE) -> list[pruning.Removed]:
    """Prune, step by step."""
    connection, _ = open_writer(path)
    try:
        return list(prune(connection, before, max_bytes, bite))
    finally:
        connection.close()


def ask(path: Path, sql: str) -> Any:
    """The one value of a query."""
    with closed(connect(path)) as connection:
        return connection.execute(sql).fetchone()[0]


def whole(path: Path) -> None:
    """The file is in order, and no snapshot is without its event."""
    assert ask(path, "PRAGMA integrity_check") == "ok"
    alone = "SELECT count(*) FROM process_snapshots WHERE event_id NOT IN (SELECT id FROM process_events)"
    assert ask(path, alone) == 0


# -- by age ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_age_removes_what_ended_before_and_nothing_else(database: Path) -> None:
    """Open events stay, however old; the room is given back to the file system."""
    before = NOW - 30 * DAY
    gone = ask(database, f"SELECT count(*) FROM process_events WHERE exit_time < {before}")
    size = database.stat().st_size
    last = run(database, before, 10**9)[-1]
    assert last.rows == {"process_events": gone, "process_snapshots": 4 * gone} and gone > 250
    assert ask(database, f"SELECT count(*) FROM process_events WHERE exit_time < {before}") == 0
    assert ask(database, "SELECT count(*) FROM process_events WHERE exit_time IS NULL") == 12
    assert ask(database, "SELECT count(*) FROM process_events") == 1200 - gone
    assert ask(database, "PRAGMA freelist_count") == 0
    assert database.stat().st_size == last.size_bytes < 0.85 * size
    whole(database)


@pytest.mark.slow
def test_the_bites_are_small(database: Path) -> None:
    """No transaction removes more than a bite, and the sum grows with each step."""
    sums = [step.rows.get("process_events", 0) for step in run(database, NOW, 10**9, bite=50)]
    assert sums == sorted(sums) and sums[-1] == 1188
    assert max(b - a for a, b in zip([0, *sums], sums, strict=False)) == 50


def test_what_was_done_stays_done(database: Path) -> None:
    """An interrupted pruning has removed whole batches, and the next one continues."""
    connection, _ = open_writer(database)
    steps = prune(connection, NOW, 10**9, bite=100)
    next(steps)
    next(steps)
    steps.close()
    connection.close()
    assert ask(database, "SELECT count(*) FROM process_events") == 1000
    whole(database)
    assert run(database, NOW, 10**9)[-1].rows["process_events"] == 988


def test_twice_is_once(database: Path) -> None:
    """The second time there is nothing to do."""
    run(database, NOW - 20 * DAY, 3_000_000)
    content = database.read_bytes()
    assert run(database, NOW - 20 * DAY, 3_000_000)[-1].rows == {}
    assert database.read_bytes()[100:] == content[100:]


def test_events_of_one_moment_go_together(tmp_path: Path) -> None:
    """After a crash many events end at the same time: a bite may then be larger, and nothing loops."""
    path = tmp_path / "x.db"
    fill(path, 300, 10)
    with closed(connect(path)) as connection:
        connection.execute("UPDATE process_events SET exit_time = ?", (NOW - DAY,))
        connection.commit()
    assert run(path, NOW, 10**9, bite=10)[-1].rows["process_events"] == 300


# -- by size -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [6_000_000, 3_000_000, 1_000_000])
def test_size_removes_the_oldest_until_the_file_is_below(database: Path, limit: int) -> None:
    """The file itself is small enough afterwards, the newest are kept, and not much more is lost than must be."""
    assert database.stat().st_size > 6_500_000
    run(database, 0.0, limit)
    assert limit * 0.8 < files_size(database) <= limit
    assert ask(database, "SELECT max(exit_time) FROM process_events") == pytest.approx(NOW, abs=3 * DAY)
    assert ask(database, "SELECT count(*) FROM process_events WHERE exit_time IS NULL") == 12
    oldest = ask(database, "SELECT min(exit_time) FROM process_events")
    assert ask(database, f"SELECT count(*) FROM process_events WHERE exit_time < {oldest}") == 0
    whole(database)


def test_open_events_alone_may_be_too_large(tmp_path: Path) -> None:
    """Then nothing more is removed, and the size shows it."""
    path = tmp_path / "x.db"
    fill(path, 400, 10, every_open=1)
    last = run(path, NOW, 1_000_000)[-1]
    assert last.rows == {} and last.size_bytes > 1_000_000
    assert ask(path, "SELECT count(*) FROM process_events") == 400


@pytest.mark.slow
def test_months_stay_below_the_limit(tmp_path: Path) -> None:
    """Pruned once a day for 40 days (RH_LONG: 100), the file is below its limit after each day, and no open event is ever
    lost."""
    path = tmp_path / "x.db"
    kept = 0
    days = 100 if "RH_LONG" in os.environ else 40
    for day in range(days):
        now = NOW + day * DAY
        fill(path, 10, 1, every_open=50, end=now)
        run(path, now - 30 * DAY, 1_000_000)
        assert files_size(path) <= 1_000_000, day
        live = ask(path, "SELECT count(*) FROM process_events WHERE exit_time IS NULL")
        assert live >= kept
        kept = live
    assert kept == days // 5
    whole(path)


def test_a_reader_is_not_disturbed_and_the_file_shrinks_when_it_has_gone(database: Path) -> None:
    """A reader in a transaction sees what it saw; the log cannot be emptied before it ends, and is the next time."""
    reader = open_reader(database)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM process_events").fetchone()[0] == 1200
    run(database, NOW, 10**9)
    assert reader.execute("SELECT count(*) FROM process_events").fetchone()[0] == 1200
    reader.close()
    run(database, NOW, 10**9)
    assert files_size(database) < 1_000_000
    whole(database)


# -- what is pruned ----------------------------------------------------------------------------------------------------


def test_every_history_names_existing_tables_and_columns() -> None:
    """A column that is renamed in tables.py is noticed here; and every table with a time is pruned."""
    tables = {table.name: {c.name for c in table.columns} for table in TABLES}
    for history in HISTORY:
        if history.table in tables:
            assert history.ended in tables[history.table]
            for child, column in history.children:
                assert column in tables[child] and "id" in tables[history.table]
    pruned = {name for history in HISTORY for name in history.names}
    assert set(tables) - {"daemon_state", "slice_boots"} <= pruned


@pytest.mark.slow
def test_all_histories_go_by_one_clock(tmp_path: Path) -> None:
    """Size takes the oldest rows whichever table they are in."""
    path = tmp_path / "x.db"
    connection, _ = open_writer(path)
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    rnd = random.Random(5)
    tables = {table.name: table for table in TABLES}
    used = list({history.table: history for history in HISTORY if history.table in there}.values())
    connection.execute("BEGIN")
    for n in range(600):
        for history in used:
            unique = {c.name: f"{n}" for c in tables[history.table].columns if c.name in ("event", "pause", "capture", "unit")}
            row = {"pid": n, "start_ticks": n, "audit_seq": n, "boot_id": "b", "command": f"c{n}", **unique,
                   history.ended: NOW + 60 * n}
            known = {c.name for c in tables[history.table].columns}
            insert(connection, tables[history.table], rnd, **{k: v for k, v in row.items() if k in known})
            for child, column in history.children:
                for rank in range(3):
                    extra = {"rank": rank} if "rank" in {c.name for c in tables[child].columns} else {}
                    others = {c.name: None for c in tables[child].columns if c.name in ("pause_id", "capture_id")}
                    insert(connection, tables[child], rnd, **{**others, column: n + 1, **extra})
    connection.execute("COMMIT")
    size = pages_size(connection)
    list(prune(connection, 0.0, size // 2))
    oldest = [connection.execute(f"SELECT min({h.ended}) FROM {h.table}").fetchone()[0] for h in used if h.by_size]
    assert connection.execute("SELECT count(*) FROM actions").fetchone()[0] == 600  # those go by age alone
    assert "actions" not in estimate(connection, 0.0, 1).rows
    assert estimate(connection, NOW + 60 * 100, 1).rows["actions"] == 100
    for history in used:
        for child, column in history.children:
            orphans = f"SELECT count(*) FROM {child} WHERE {column} NOT IN (SELECT id FROM {history.table})"
            assert connection.execute(orphans).fetchone()[0] == 0
    connection.close()
    assert max(oldest) - min(oldest) <= 60 and min(oldest) > NOW
    assert files_size(path) <= size // 2


# -- the estimate ------------------------------------------------------------------------------------------------------


def test_a_dry_run_by_age_is_exact(database: Path) -> None:
    """The same rows as the real one, and nothing is written."""
    content = database.read_bytes()
    with closed(open_reader(database)) as reader:
        guess = estimate(reader, NOW - 30 * DAY, 10**9)
    assert database.read_bytes() == content
    last = run(database, NOW - 30 * DAY, 10**9)[-1]
    assert guess.rows == last.rows
    assert guess.size_bytes == pytest.approx(last.size_bytes, rel=0.1)


@pytest.mark.parametrize("limit", [5_000_000, 2_000_000])
def test_a_dry_run_by_size_is_near(database: Path, limit: int) -> None:
    """Within a tenth of all events."""
    with closed(open_reader(database)) as reader:
        guess = estimate(reader, 0.0, limit)
    last = run(database, 0.0, limit)[-1]
    assert guess.rows["process_events"] == pytest.approx(last.rows["process_events"], abs=120)
    assert guess.size_bytes <= limit


# -- sizes as people write them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "size"), [
    ("500MB", 500_000_000), ("1.5GiB", 3 << 29), ("2000000", 2_000_000), ("1 MB", 1_000_000), ("1tb", 10**12),
    ("2048KiB", 2 << 20), ("1000kb", 1_000_000), ("1000000B", 1_000_000)])
def test_size(text: str, size: int) -> None:
    """MB are millions, MiB powers of two."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-5MB", "5", "999kB", "5M", "5 bytes", "1e9", "0x100000", "1,5GB", "inf",
                                  "٥MB", "5MB5MB", "1MiBB"])
def test_no_size(text: str) -> None:
    """Unclear units and limits that would empty the database are refused."""
    with pytest.raises(ValueError, match=r"is not a size|is less than 1MB"):
        parse_size(text)


@pytest.mark.slow
@given(st.text(max_size=20))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    """Never another exception, never a limit below a million."""
    try:
        assert parse_size(text) >= 1_000_000
    except ValueError as error:
        assert "size" in str(error) or "1MB" in str(error)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def call(in_process: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """rh-prune in this process, at a fixed time."""
    monkeypatch.setattr("time.time", lambda: NOW)
    return in_process(command)


def said(done: subprocess.CompletedProcess[bytes], code: int = 0) -> dict[str, Any]:
    """The one record of a run."""
    assert done.returncode == code, done.stderr
    (line,) = done.stdout.splitlines()
    record: dict[str, Any] = json.loads(line)
    assert (record.pop("type"), record.pop("v")) == ("prune", 1)
    wire.check("prune", record)
    assert record.keys() <= {f.name for f in RECORDS["prune"]}
    return record


def test_the_command_says_what_it_removed(call: Run, database: Path) -> None:
    """As the configuration says: 30 days; sizes are those of the files."""
    before = files_size(database)
    dry = said(call("--db", database, "--dry-run"))
    assert files_size(database) == before and dry["dry_run"] is True
    done = said(call("--db", database))
    assert done["removed"] == dry["removed"] and done["removed"]["process_events"] > 250
    assert (done["before_bytes"], done["after_bytes"]) == (before, files_size(database))
    assert (done["older_than_s"], done["max_bytes"], done["below_limit"]) == (30 * DAY, 500_000_000, True)
    assert (done["open_events"], done["events_left"]) == (12, ask(database, "SELECT count(*) FROM process_events"))
    assert dry["events_left"] == done["events_left"]
    again = said(call("--db", database))
    assert again["removed"] == {} and again["before_bytes"] == again["after_bytes"] == done["after_bytes"]
    assert sorted(p.name for p in database.parent.iterdir()) == ["x.db", "x.db.lock"]


def test_configuration_and_options(call: Run, database: Path, tmp_path: Path) -> None:
    """[retention] counts, options count more."""
    config = tmp_path / "c.toml"
    config.write_text("[retention]\ndays = 10\nmax_size_mb = 2\n")
    done = said(call("--db", database, "-c", config, "--dry-run"))
    assert (done["older_than_s"], done["max_bytes"]) == (10 * DAY, 2_000_000)
    done = said(call("--db", database, "-c", config, "--older-than", "39d", "--max-size", "3MB"))
    assert (done["older_than_s"], done["max_bytes"]) == (39 * DAY, 3_000_000)
    assert files_size(database) <= 3_000_000


def test_a_size_that_cannot_be_reached_is_reported(call: Run, tmp_path: Path) -> None:
    """Open events are larger than the limit: exit 1, and why."""
    fill(tmp_path / "x.db", 400, 10, every_open=1)
    done = call("--db", tmp_path / "x.db", "--max-size", "1MB")
    assert said(done, 1)["below_limit"] is False
    assert done.stderr.endswith(b"open events are not removed\n") and done.stderr.count(b"\n") == 1


def test_while_someone_writes_nothing_is_removed(call: Run, database: Path) -> None:
    """69, and who it is; a dry run still answers."""
    content = database.read_bytes()
    lock = Lock(database)
    try:
        done = call("--db", database)
        assert (done.returncode, done.stdout) == (69, b"")
        assert f"(process {os.getpid()})".encode() in done.stderr
        assert said(call("--db", database, "--dry-run"))["removed"]
    finally:
        lock.release()
    assert database.read_bytes() == content


def test_what_the_reports_show_is_left_of_a_real_run(call: Run, tmp_path: Path) -> None:
    """A database as rh-pipe leaves it: all that ended goes, what a crash left open stays."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(20, seconds(2, 6, hog(7, 70)), seconds(10, 99, hog(8, 70))), crash=True, config=CONFIG)
    done = said(call("--db", path, "--older-than", "0s"))
    assert (done["removed"]["process_events"], done["events_left"], done["open_events"]) == (1, 1, 1)
    whole(path)


@pytest.mark.parametrize(("args", "code", "words"), [
    (("--older-than", "soon"), 2, "is not a length of time"), (("--older-than", "-1d"), 2, "is not a length of time"),
    (("--older-than", "1"), 2, "'1' has no unit"), (("--older-than", "1d2"), 2, "is not a length of time"),
    (("--max-size", "5M"), 2, "is not a size"), (("--max-size", "10kB"), 2, "less than 1MB"), (("x",), 2, "x")])
def test_mistakes(call: Run, database: Path, args: tuple[str, ...], code: int, words: str) -> None:
    """A usage error, and nothing is removed."""
    done = call("--db", database, *args)
    assert (done.returncode, done.stdout) == (code, b"") and words in done.stderr.decode()
    assert ask(database, "SELECT count(*) FROM process_events") == 1200


@pytest.mark.parametrize(("content", "code"), [(None, 69), (b"these are my notes " * 999, 74)])
def test_no_database(call: Run, tmp_path: Path, content: bytes | None, code: int) -> None:
    """A file of another kind is not moved aside, locked or changed, and none is made."""
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    for more in ((), ("--dry-run",)):
        done = call("--db", path, *more)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1)
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["x.db"])
    assert content is None or path.read_bytes() == content


def test_another_programs_database(call: Run, tmp_path: Path) -> None:
    """78, untouched."""
    path = tmp_path / "x.db"
    with closed(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE process_events (id INTEGER, exit_time REAL)")
        connection.execute("INSERT INTO process_events VALUES (1, 1.0)")
        connection.commit()
    assert call("--db", path, "--older-than", "0s").returncode == 78
    assert ask(path, "SELECT count(*) FROM process_events") == 1


def on_terminal(args: list[str], answer: bytes, env: dict[str, str]) -> tuple[int, bytes]:
    """Run rh-prune with a terminal as its standard input; exit code and what it prints on standard error."""
    master, slave = pty.openpty()
    child = subprocess.Popen([sys.executable, "-P", "-m", "rogue_hunter", "prune", *args], stdin=slave,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    os.close(slave)
    os.write(master, answer)
    try:
        _, err = child.communicate(timeout=60)
    finally:
        os.close(master)
    return child.returncode, err


@pytest.mark.slow
def test_more_than_half_of_the_history_is_asked_about(database: Path, clean_env: dict[str, str]) -> None:
    """On a terminal; in cron nothing is asked, and less is not asked about either."""
    few = ["--db", str(database), "--older-than", "36500d"]
    code, err = on_terminal(few, b"", clean_env)
    assert code in (0, 1) and b"Proceed" not in err
    much = ["--db", str(database), "--older-than", "1s"]
    for answer in (b"n\n", b"\n"):
        code, err = on_terminal(much, answer, clean_env)
        assert code == 1 and b"rows of history" in err and b"nothing was removed" in err
    before = ask(database, "SELECT count(*) FROM process_events")
    code, err = on_terminal(much, b"y\n", clean_env)
    assert code == 0, err
    assert ask(database, "SELECT count(*) FROM process_events") < before / 2
