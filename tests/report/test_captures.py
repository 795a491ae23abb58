"""rh-report captures and capture: what was kept, in words and as records."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.capture.blame import blame
from rogue_hunter.config.options import Store
from rogue_hunter.report.views.captures import read
from rogue_hunter.store.database import open_reader
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.tick import Tick
from tests.tools.captures import capture, parts
from tests.tools.reports import hog, record_run, seconds, ticks_of
from tests.tools.ticks import START

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
HOSTILE = "evil\x1b[2J\u202e\n=1+1"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an event; three captures (one with a hostile name), and requests that were skipped."""
    path = tmp_path_factory.mktemp("captures") / "x.db"
    record_run(path, ticks_of(60, seconds(5, 25, hog(100, 85))))
    writer = Writer(path, Store(), lambda: START, lambda said: None)
    hostile = [{**each, **({"command": HOSTILE} if "command" in each else {})} for each in parts("k2", START + 20)]
    skipped = capture("k3", START + 21, status="skipped", reason="debounce", skipped=12, duration_s=None)
    for batch in ([capture("k1", START + 10), *parts("k1", START + 10)],
                  [capture("k2", START + 20, command=HOSTILE), *hostile], [skipped],
                  [capture("k4", START + 30, trigger="pause", status="failed", problems=["no capture: gone"])]):
        writer.take(Tick(records=[{k: v for k, v in each.items() if v is not None} for each in batch]))
    writer.close()
    return path


@pytest.fixture
def report(rh: Run, database: Path) -> Callable[..., str]:
    """rh-report on that database, over its time; gives what was printed."""
    def ask(*words: str, code: int = 0) -> str:
        period = ["--since", f"@{START:.0f}"] if words[0] == "captures" else []
        done = rh("report", *words, *period, "--db", str(database), TZ="UTC")
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        return done.stdout.decode() or done.stderr.decode()

    return ask


def ndjson(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_the_list(report: Callable[..., str]) -> None:
    """Newest first, what was skipped among them; the same in every form."""
    found = ndjson(report("captures"))
    assert [(c["id"], c["capture"], c["status"]) for c in found] == [
        (4, "k4", "failed"), (3, "k3", "skipped"), (2, "k2", "partial"), (1, "k1", "partial")]
    assert found[-1]["targets"][0]["outcome"] == "ok" and "duration_s" not in found[1]
    rows = list(csv.DictReader(io.StringIO(report("captures", "--csv"))))
    assert [row["id"] for row in rows] == ["4", "3", "2", "1"] and rows[2]["command"].startswith("evil")
    words = report("captures", "--table")
    assert "skipped 12: debounce" in words and "\\x1b[2J" in words and not set(words) & {"\x1b", "\u202e"}
    assert len(ndjson(report("captures", "-n", "1"))) == 1 and "... and 3 more" in report("captures", "--table", "-n", "1")
    assert [c["id"] for c in ndjson(report("captures", "--command", "EVIL"))] == [2]


def test_an_empty_list_is_a_sentence(rh: Run, tmp_path: Path) -> None:
    """Nothing was recorded, or nothing was captured."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(10))
    done = rh("report", "captures", "--table", "--since", f"@{START:.0f}", "--db", str(path))
    assert done.returncode == 0 and b"No capture since" in done.stdout


@pytest.mark.slow
def test_one_capture_whole(report: Callable[..., str], database: Path) -> None:
    """One object with everything as JSON; the stream that rh-forensics reads as NDJSON."""
    with open_reader(database) as connection:
        found = read(connection, "k1")
    assert found is not None
    made = json.loads(report("capture", "1", "--json"))
    assert made == {**found[0], "children": found[1]} == json.loads(report("capture", "k1", "--json"))
    assert ndjson(report("capture", "1")) == [found[0], *found[1]]
    assert [row["role"] for row in csv.DictReader(io.StringIO(report("capture", "1", "--csv")))] == [
        "culprit", "waiter", "waiter"]


@pytest.mark.slow
def test_one_capture_in_words(report: Callable[..., str]) -> None:
    """Who asked, how the parts went, who held up whom, who did what, what was logged; nothing that a terminal obeys."""
    words = report("capture", "1", "--table")
    for part in ("Capture 1, k1", "partial, ", "for an event of hog (pid 7), took 0.2s", "threads ok, waits partial",
                 "cpu some 12.5 %", "In the 20s before it, 60 ticks:",
                 "1. hog [7] thread 7 blocks 2 threads of 2 other processes", "culprit", "1 blocked", "1 running",
                 "2 log entries, 1 of them warnings or worse", "tick\\x1b[2Jtock"):
        assert part in words, part
    hostile = report("capture", "2", "--table")
    assert "evil\\x1b[2J\\u202e\\n=1+1" in hostile and not set(words + hostile) & {"\x1b", "\u202e"}
    assert "skipped 12: debounce" in report("capture", "3", "--table")
    assert "no capture: gone" in report("capture", "4", "--table") and "for a pause, first hog" in report(
        "capture", "4", "--table")


@pytest.mark.slow
def test_its_parts_alone(report: Callable[..., str], database: Path) -> None:
    """--threads, --logs, --blame: as records and in words."""
    threads = ndjson(report("capture", "1", "--threads"))
    assert [(t["type"], t["pid"], t["state"]) for t in threads] == [
        ("spindump_thread", 7, "running"), ("spindump_thread", 8, "blocked"), ("spindump_thread", 9, "blocked")]
    assert "flock_lock" in report("capture", "1", "--threads", "--table")
    assert [e["source"] for e in ndjson(report("capture", "1", "--logs"))] == ["kernel", "journal"]
    assert [e["source"] for e in ndjson(report("capture", "1", "--logs", "-n", "1"))] == ["journal"]
    assert "a quiet word" in report("capture", "1", "--logs", "--table")
    (root,) = ndjson(report("capture", "1", "--blame"))
    assert (root["type"], root["capture"], root["pid"], root["waiters"]) == ("blame", "k1", 7, 2)
    assert report("capture", "1", "--blame", "--table").startswith("1. hog [7] thread 7 blocks 2 threads")
    assert report("capture", "4", "--blame", "--table") == "no blocker found\n"
    assert report("capture", "4", "--threads", "--csv").startswith("capture,process,")
    with open_reader(database) as connection:
        found = read(connection, "k1")
    assert found is not None and blame(found[1]) == blame(parts("k1", START + 10))


@pytest.mark.parametrize(("words", "code", "said"), [
    (("capture", "99"), 65, "no such capture"), (("capture", "k"), 65, "no such capture"),
    (("capture",), 2, "missing ID"), (("events", "--blame"), 2, "--blame; capture has"),
    (("captures", "--threads"), 2, "--threads; capture has"), (("capture", "1", "--at", "1h"), 2, "--at"),
])
def test_what_cannot_be_answered(report: Callable[..., str], words: tuple[str, ...], code: int, said: str) -> None:
    """One line, and an exit code."""
    assert said in report(*words, code=code)
