"""rh-report sql: one SELECT of the user's own that cannot write and whose run time is limited."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rogue_hunter.report.views import sql
from rogue_hunter.store.database import DatabaseError, open_reader
from tests.tools.reports import hog, record_run, seconds, ticks_of

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a minute with one event."""
    path = tmp_path_factory.mktemp("sql") / "x.db"
    record_run(path, ticks_of(60, seconds(5, 25, hog(100, 85, command="cc1\x1b[2J"))))
    return path


@pytest.fixture
def reader(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection as a view has it."""
    connection = open_reader(database)
    connection.execute("BEGIN")
    yield connection
    connection.close()


@pytest.mark.parametrize("statement", [
    "INSERT INTO daemon_state VALUES ('a', 'b', 1)", "UPDATE process_events SET command = 'x'",
    "DELETE FROM process_events", "DROP TABLE process_events", "CREATE TABLE t (x)", "CREATE TEMP TABLE t (x)",
    "ATTACH '/etc/passwd' AS x", "ATTACH ':memory:' AS x", "DETACH main", "VACUUM", "VACUUM INTO '/tmp/x'", "REINDEX",
    "PRAGMA query_only = 0", "PRAGMA user_version = 9", "PRAGMA journal_mode = DELETE", "PRAGMA wal_checkpoint",
    "PRAGMA writable_schema = 1", "ANALYZE", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT x", "ALTER TABLE pauses RENAME TO x",
    "WITH x AS (SELECT 1) DELETE FROM process_events", "REPLACE INTO daemon_state VALUES ('a', 'b', 1)",
    "SELECT load_extension('/tmp/x.so')", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE pauses", "", ";", "-- nothing",
    "SELEC 1", "SELECT * FROM nothing", "SELECT no_such_function()", "SELECT :x", "SELECT '", "\x00",
])
def test_nothing_but_one_select(database: Path, reader: sqlite3.Connection, statement: str) -> None:
    """Anything but one SELECT is refused with 65, and the file stays as it is."""
    content = database.read_bytes()
    with pytest.raises(DatabaseError) as refused:
        sql.run(reader, statement, 0)
    assert refused.value.code == 65 and "\n" not in str(refused.value)
    assert database.read_bytes() == content


@pytest.mark.parametrize("statement", ["SELECT 1", "select 1;", "  SELECT 1 -- one", "VALUES (1)", "EXPLAIN SELECT 1",
                                       "WITH x AS (SELECT 1 AS y) SELECT y FROM x", "PRAGMA table_info(pauses)",
                                       "SELECT * FROM v_offenders", "SELECT name FROM sqlite_master",
                                       "SELECT json_extract(evidence, '$.late_s') FROM pauses",
                                       "SELECT datetime('now', 'localtime')", "PRAGMA user_version"])
def test_any_statement_that_only_reads(reader: sqlite3.Connection, statement: str) -> None:
    """Views, JSON, dates, common table expressions, what there is."""
    names, _ = sql.run(reader, statement, 0)
    assert names


def test_its_run_time_is_limited(reader: sqlite3.Connection) -> None:
    """By a clock that is handed in: an endless count is ended, 69; the connection can be used again."""
    now = iter(range(0, 10**9, 4))
    with pytest.raises(DatabaseError, match="longer than 10 s") as refused:
        sql.run(reader, ENDLESS + "count(*) FROM n", 0, clock=lambda: float(next(now)))
    assert refused.value.code == 69
    assert sql.run(reader, "SELECT 1 AS x", 0) == (["x"], [(1,)])


def test_it_cannot_fill_the_memory(reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by rows nor by one value; with a limit as many rows as were asked for."""
    monkeypatch.setattr(sql, "MOST_ROWS", 1000)
    with pytest.raises(DatabaseError, match="more than 1000 rows") as refused:
        sql.run(reader, ENDLESS + "i FROM n", 0)
    assert refused.value.code == 69
    assert len(sql.run(reader, ENDLESS + "i FROM n", 20)[1]) == 20
    with pytest.raises(DatabaseError):
        sql.run(reader, "SELECT zeroblob(2000000000)", 0)


def test_values_and_names(reader: sqlite3.Connection) -> None:
    """Bytes as digits, no infinity, no half characters; no two columns of one name, none of a record's own."""
    names, rows = sql.run(reader, "SELECT x'00ff' AS type, 1e999 AS v, 1 AS a, 2 AS a, 3 AS a, "
                                  "CAST(x'61ff' AS TEXT) AS text, NULL AS b, -9223372036854775808 AS low", 0)
    assert names == ["type_2", "v_2", "a", "a_2", "a_3", "text", "b", "low"]
    assert rows == [("00ff", None, 1, 2, 3, "a\\xff", None, -(1 << 63))]


def test_as_a_command(rh: Run, database: Path) -> None:
    """Records, a table in which names are visible, a limit, and one line for what is wrong."""
    query = "SELECT pid, command, NULL AS extra FROM process_events UNION ALL SELECT 5, 'b', 1 ORDER BY pid DESC"
    done = rh("report", "sql", query, "--db", database)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"type": "report_row", "v": 1, "pid": 100, "command": "cc1\x1b[2J"},
        {"type": "report_row", "v": 1, "pid": 5, "command": "b", "extra": 1}]
    table = rh("report", "sql", query, "--table", "-n", "1", "--db", database).stdout.decode()
    assert table.splitlines() == ["pid  command     extra", r"100  cc1\x1b[2J", "... and more: -n 0 shows all"]
    text = rh("report", "sql", query, "--csv", "--db", database).stdout.decode().splitlines()
    assert text[0] == "pid,command,extra" and text[2] == "5,b,1"
    assert rh("report", "sql", "SELECT 1 WHERE 0", "--table", "--db", database).stdout == b"No rows.\n"
    wrong = rh("report", "sql", "DELETE FROM pauses", "--db", database)
    assert (wrong.returncode, wrong.stdout) == (65, b"")
    assert wrong.stderr == b"rh-report: only one SELECT is allowed\n"
