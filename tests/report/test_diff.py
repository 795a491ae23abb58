"""rh-report diff: which commands are in another band when the same ticks are scored otherwise."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.report.views.diff import Recording, Seen, compare
from rogue_hunter.schema import RECORDS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Row
from tests.tools.ticks import Machine, lines, row, stream

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def scored(path: Path, *rows: Row, ticks: int = 6) -> Path:
    """A recording in which these rows stay as they are."""
    path.write_bytes(lines(stream([[*rows]] * ticks)))
    return path


def hog(pid: int, command: str, score: int, band: str, **more: Any) -> Row:
    return row(pid, command=command, **{"score": score, "band": band, "dominant_resource": "cpu", **more})


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """One goes up, one down, one stays, one is new, one gone, one new that never mattered."""
    a = scored(tmp_path / "a.ndjson", hog(1, "up", 28, "low"), hog(2, "down", 85, "critical"),
               hog(3, "same", 50, "elevated"), hog(4, "gone", 61, "high"), hog(5, "up", 10, "low"))
    b = scored(tmp_path / "b.ndjson", hog(1, "up", 62, "high", dominant_resource="disk"), hog(2, "down", 44, "medium"),
               hog(3, "same", 59, "elevated"), hog(5, "up", 10, "low"), hog(6, "new\x1b[2J", 46, "elevated"),
               hog(7, "quiet", 3, "low"), ticks=9)
    return a, b


def test_gained_and_lost(rh: Run, two: tuple[Path, Path]) -> None:
    """The largest difference first, with score, band, cause and the time in that band of both."""
    done = rh("report", "diff", *two)
    assert (done.returncode, done.stderr) == (0, b"")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(d["command"], d["change"], d["bands"]) for d in found] == [
        ("gone", "gone", -3), ("down", "down", -3), ("up", "up", 3), ("new\x1b[2J", "new", 2)]
    up = found[2]
    assert (up["score_a"], up["band_a"], up["reason_a"]) == (28, "low", "cpu")
    assert (up["score_b"], up["band_b"], up["reason_b"]) == (62, "high", "disk")
    assert up["seconds_a"] == pytest.approx(2 * 6 / 3, abs=0.01) and up["seconds_b"] == pytest.approx(9 / 3, abs=0.01)
    assert not any(key.endswith("_b") for key in found[0])
    for one in found:
        assert (one.pop("type"), one.pop("v")) == ("report_diff", 1)
        wire.check("report_diff", one)
        assert one.keys() <= {f.name for f in RECORDS["report_diff"]}


@pytest.mark.slow
def test_as_a_table(rh: Run, two: tuple[Path, Path]) -> None:
    """A sentence with the counts first; names visible; no database is asked for."""
    text = rh("report", "diff", *two, "--table", "--db", "/nonexistent/x.db").stdout.decode()
    assert text.splitlines()[0] == "commands in B: worse: 2, better: 2, same: 2 (6 ticks in A, 9 in B)"
    assert r"new\x1b[2J" in text and "\x1b" not in text
    same = rh("report", "diff", two[0], two[0], "--table").stdout.decode()
    assert same == "commands in B: worse: 0, better: 0, same: 4 (6 ticks in A, 6 in B)\n"
    assert rh("report", "diff", two[0], two[0]).stdout == b""
    assert len(rh("report", "diff", *two, "-n", "1").stdout.splitlines()) == 1


@pytest.mark.slow
def test_one_of_them_from_a_pipe(rh: Run, two: tuple[Path, Path]) -> None:
    """`rh-score --config other.toml < recorded | rh-report diff before -`."""
    done = rh("report", "diff", two[0], "-", stdin=two[1].read_bytes())
    assert done.stdout == rh("report", "diff", *two).stdout and done.returncode == 0
    assert rh("report", "diff", "-", "-").returncode == 2


@pytest.mark.slow
def test_a_replay_with_another_configuration(rh: Run, tmp_path: Path) -> None:
    """The same recording through rh-score twice: with higher bands, commands lose theirs and none gains one."""
    recorded = lines(Machine(7).ticks(120))
    (tmp_path / "other.toml").write_text("[bands]\nmedium = 60\nelevated = 80\nhigh = 95\ncritical = 99\n")
    first, second = rh("score", stdin=recorded), rh("score", "--config", tmp_path / "other.toml", stdin=recorded)
    assert (first.returncode, second.returncode) == (0, 0)
    (tmp_path / "a").write_bytes(first.stdout)
    (tmp_path / "b").write_bytes(second.stdout)
    found = [json.loads(line) for line in rh("report", "diff", tmp_path / "a", tmp_path / "b").stdout.splitlines()]
    assert found and all(d["change"] == "down" and d["score_a"] == d["score_b"] for d in found)
    back = [json.loads(line) for line in rh("report", "diff", tmp_path / "b", tmp_path / "a").stdout.splitlines()]
    assert {d["command"]: -d["bands"] for d in back} == {d["command"]: d["bands"] for d in found}


@pytest.mark.parametrize(("content", "words"), [
    (b"", "holds no tick"), (b"nonsense\n", "holds no tick; line 1"),
    (lines(stream([[row(1)]] * 3)), "holds no scores; run it through rh-score")])
def test_what_is_no_recording(rh: Run, two: tuple[Path, Path], tmp_path: Path, content: bytes, words: str) -> None:
    """65 and one line that names the file."""
    (tmp_path / "x").write_bytes(content)
    done = rh("report", "diff", two[0], tmp_path / "x")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (65, b"", 1)
    assert words in done.stderr.decode() and str(tmp_path / "x") in done.stderr.decode()


@pytest.mark.slow
def test_what_is_damaged_or_absent(rh: Run, two: tuple[Path, Path], tmp_path: Path) -> None:
    """A recording that is cut short is compared up to there and reported, exit 65; an absent one is an error, 74."""
    (tmp_path / "cut").write_bytes(two[1].read_bytes()[:-40])
    done = rh("report", "diff", two[0], tmp_path / "cut")
    assert (done.returncode, len(done.stdout.splitlines())) == (65, 4)
    assert b"cut short" in done.stderr and done.stderr.count(b"\n") == 1
    (tmp_path / "bad").write_bytes(b"x\n" + two[1].read_bytes())
    assert b"1 lines could not be used; line 1" in rh("report", "diff", two[0], tmp_path / "bad").stderr
    absent = rh("report", "diff", two[0], tmp_path / "no")
    assert (absent.returncode, absent.stdout, absent.stderr.count(b"\n")) == (74, b"", 1)


def test_compare_is_the_same_from_both_sides() -> None:
    """Swapped recordings swap up and down, new and gone."""
    a = Recording({"x": Seen(50, "elevated"), "y": Seen(90, "critical"), "z": Seen(10, "low")}, 1, "")
    b = Recording({"x": Seen(70, "high"), "z": Seen(20, "low"), "w": Seen(31, "medium")}, 1, "")
    other = {"up": "down", "down": "up", "new": "gone", "gone": "new", "same": "same"}
    there = {d["command"]: (d["change"], d["bands"]) for d in compare(a, b)}
    back = {d["command"]: (other[d["change"]], -d["bands"]) for d in compare(b, a)}
    assert there == back and there["z"] == ("same", 0) and there["y"] == ("gone", -4)
