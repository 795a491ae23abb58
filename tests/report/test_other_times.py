"""`why` about every kind of time: what it answers, whether or not rh-pipe runs, and never about another time."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.report.queries import Period
from rogue_hunter.report.views.why import why
from rogue_hunter.store.database import open_writer
from rogue_hunter.stream.tick import Record, Tick
from tests.report.test_evidence import EVER, asked, moved, write
from tests.tools.reports import hog, seconds, ticks_of
from tests.tools.ticks import BOOT, START, stream

NOW = START + 20_000

STATES = {
    "before the history": (-3600.0, "no_evidence", None, "No data: the history begins at"),
    "watched": (11.0, "use", "first", "first (pid 7)"),
    "a gap": (300.0, "no_evidence", None, "No data: nothing was recorded between"),
    "watched again": (631.0, "use", "second", "second (pid 8)"),
    "asleep": (1800.0, "found", None, "the machine was asleep for 40m"),
    "awake again": (3050.0, "use", "third", "third (pid 9)"),
    "skipped by the clock": (5000.0, "no_evidence", None, "the clock was set forward by 1h"),
    "after the clock was set": (6675.0, "use", "fourth", "fourth (pid 10)"),
    "off between two boots": (8000.0, "no_evidence", None, "the machine was rebooted in between"),
    "another boot": (9011.0, "use", "fifth", "fifth (pid 11)"),
    "after the end": (15_000.0, "no_evidence", None, "No data: nothing was recorded after"),
    "the future": (90_000.0, "no_evidence", None, "No data: that time has not come yet"),
}
"""Seconds from the beginning -> verdict, command and words of the answer."""

ENDS = {"stopped": "rh-pipe is not running", "running": "that time is not written yet",
        "stale": "rh-pipe runs, but writes nothing"}


def part(name: str, pid: int, at: float, **first: float | str) -> list[Tick]:
    """Twenty seconds of a loop, from `at` on; the first tick has these fields."""
    ticks = list(moved(stream(ticks_of(20, seconds(0, 99, hog(pid, 66, command=name)))), at))
    assert ticks[0].row is not None
    ticks[0].row.update(first)
    return ticks


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history with everything that can be between two watched times."""
    path = tmp_path_factory.mktemp("times") / "x.db"
    again = part("fifth", 11, 9000)
    for tick in again:
        assert tick.row is not None
        tick.row["boot_id"] = BOOT.replace("0001", "0002")
    write(path, [*part("first", 7, 0), *part("second", 8, 620), *part("third", 9, 3041, asleep_s=2400.0),
                 *part("fourth", 10, 6662, clock_step_s=3600.0), *again])
    return path


def copied(history: Path, place: Path) -> Path:
    (place / "x.db").write_bytes(history.read_bytes())
    return place / "x.db"


def ask(path: Path, state: str, at: float | None, period: Period = EVER) -> Record:
    ticked = NOW - 5000 if state == "stale" else None
    with asked(path, NOW, running=state != "stopped", ticked=ticked) as found:
        (one,) = why(found, period, at).records
    return one


@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("name", STATES)
def test_a_moment(history: Path, tmp_path: Path, name: str, state: str) -> None:
    """--at T."""
    at, verdict, command, words = STATES[name]
    one = ask(copied(history, tmp_path), state, START + at)
    assert (one["verdict"], one.get("command")) == (verdict, command), one["headline"]
    assert words in one["headline"]
    if name == "after the end":
        assert ENDS[state] in one["headline"]
    if verdict == "no_evidence":
        assert one["causes"] == [] and "resolution_s" not in one and one["watched_s"] == 0


@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("name", STATES)
def test_a_period(history: Path, tmp_path: Path, name: str, state: str) -> None:
    """--since and --until, six seconds around the same moment."""
    at, verdict, command, words = STATES[name]
    one = ask(copied(history, tmp_path), state, None, Period(START + at - 3, START + at + 3))
    assert (one["verdict"], one.get("command")) == (verdict, command), one["headline"]
    assert words in one["headline"] and (name != "after the end" or ENDS[state] in one["headline"])


def test_a_long_period_without_anything(history: Path, tmp_path: Path) -> None:
    """Days before the history, and a period that ends after it."""
    path = copied(history, tmp_path)
    one = ask(path, "stopped", None, Period(START - 9 * 86400, START - 86400))
    assert one["verdict"] == "no_evidence" and "the history begins at" in one["headline"]
    one = ask(path, "stopped", None, Period(START + 9100, START + 19_000))
    assert one["verdict"] == "no_evidence" and "nothing was recorded after" in one["headline"]


def test_an_empty_history(tmp_path: Path) -> None:
    """A database without a tick."""
    open_writer(tmp_path / "x.db")[0].close()
    one = ask(tmp_path / "x.db", "stopped", START)
    assert one["headline"] == "No data: nothing was recorded yet."


@pytest.mark.slow
def test_exit_codes(history: Path, tmp_path: Path, rh: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """No data is an answer: 0. No database: 69. One of an older version: 78, with what to do."""
    path = copied(history, tmp_path)
    for name in ("watched", "a gap", "the future"):
        done = rh("report", "why", "--at", f"@{START + STATES[name][0]:.0f}", "--json", "--db", path)
        assert (done.returncode, json.loads(done.stdout)["verdict"], done.stderr) == (0, STATES[name][1]
                                                                                     if name != "the future" else "no_evidence", b"")
    done = rh("report", "why", "--db", tmp_path / "none.db")
    assert (done.returncode, done.stdout) == (69, b"") and b"no history yet" in done.stderr
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 5")
    connection.close()
    done = rh("report", "why", "--at", f"@{START:.0f}", "--db", path)
    assert (done.returncode, done.stdout) == (78, b"")
    assert b"made by an older version; rh-pipe migrates it when it starts" in done.stderr
