"""Every reader reports damaged values in one line, without a traceback."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rogue_hunter.report.metrics_page import recorded
from rogue_hunter.store.database import DatabaseError, misfit
from tests.tools.reports import hog, record_run, seconds, ticks_of
from tests.tools.ticks import START

Rh = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    record_run(path, ticks_of(5, seconds(1, 4, hog(100, 85, command="cc1"))))
    return path


def damage(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql).rowcount > 0


def test_what_a_writer_wrote_fits(database: Path) -> None:
    assert misfit(database) is None


@pytest.mark.parametrize(("sql", "words"), [
    ("UPDATE daemon_state SET value = '{\"ts\"!' WHERE key = 'last_tick'", "daemon_state: last_tick is invalid"),
    ("UPDATE daemon_state SET value = '{\"us\":1}' WHERE key = 'last_tick'", "daemon_state: last_tick is invalid: tick without"),
    ("UPDATE daemon_state SET value = '[1]' WHERE key = 'last_tick'", "daemon_state: last_tick is invalid"),
    ("UPDATE daemon_state SET value = x'ff22' WHERE key = 'ticks'", "daemon_state.value holds a value of another type"),
    ("UPDATE daemon_state SET value = CAST(x'22ff22' AS TEXT) WHERE key = 'ticks'", "daemon_state: ticks is invalid"),
    ("UPDATE process_events SET peak_score = 'x'", "process_events.peak_score holds a value of another type"),
    ("UPDATE process_snapshots SET dominant_metrics = '{\"a\"'", "process_snapshots.dominant_metrics is no array"),
    ("UPDATE process_snapshots SET dominant_metrics = '{}'", "process_snapshots.dominant_metrics is no array"),
])
def test_where_the_damage_is(database: Path, sql: str, words: str) -> None:
    damage(database, sql)
    found = misfit(database)
    assert found is not None and found.startswith(words) and "\n" not in found


def test_a_file_that_cannot_be_read_says_why(database: Path, tmp_path: Path) -> None:
    assert "no history yet" in (misfit(tmp_path / "none") or "")
    with database.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 4)
    assert misfit(database)


@pytest.mark.slow
def test_readers_say_it_in_a_line(database: Path, rh: Rh) -> None:
    damage(database, "UPDATE daemon_state SET value = '{\"ts\"!' WHERE key = 'last_tick'")
    with pytest.raises(DatabaseError, match="damaged: daemon_state: last_tick") as refused:
        recorded(database, START)
    assert refused.value.code == 74
    for command in (("report", "--since", "3000d"), ("metrics",)):
        done = rh(*command, "--db", database)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (74, b"", 1), done
        assert b"last_tick is invalid" in done.stderr
