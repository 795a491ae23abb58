"""The log: one JSON line an entry, rotated, never in the way; and keeping the machine awake."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from rogue_hunter.config.options import Log as Settings
from rogue_hunter.daemon.log import MESSAGE, Log, follow, last, log_path
from rogue_hunter.daemon.services import inhibitor, keep_awake
from tests.tools.docs import json_schema


def entries(path: Path) -> list[dict[str, object]]:
    """What is in a log file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def log(path: Path, **fields: object) -> Log:
    """A log in `path` whose clock does not move."""
    return Log(path, Settings(path=str(path), **fields), lambda: 1_700_000_000.1234)  # type: ignore[arg-type]


def test_an_entry_is_a_line_and_a_record(tmp_path: Path) -> None:
    """Any message: control characters, line feeds, lone surrogates, megabytes."""
    path = tmp_path / "x.log"
    made = log(path)
    for text in ("plain", "a\nb\x1b[2J\u202e", "lone \udc80 surrogate", "x" * 1_000_000, "\u2028"):
        assert made.write("warning", text, pid=7)
    made.close()
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 6 and lines[-1] == b""
    for entry in entries(path):
        Draft202012Validator(json_schema("log")).validate(entry)
    assert [e["message"] for e in entries(path)][:3] == ["plain", "a\nb\x1b[2J\u202e", "lone \\udc80 surrogate"]
    assert [e["message"] for e in entries(path)][3] == "x" * MESSAGE
    assert {(e["source"], e["ts"], e["level"]) for e in entries(path)} == {("rh-pipe", 1_700_000_000.123, "warning")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_levels_below_the_configured_are_left_out(tmp_path: Path) -> None:
    """debug and info are not written at level warning."""
    made = log(tmp_path / "x.log", level="warning")
    assert [made.write(level, level) for level in ("debug", "info", "warning", "error")] == [False, False, True, True]
    assert made.lost == 0


def test_it_is_rotated(tmp_path: Path) -> None:
    """At its size; the newest entries are in the file, so many older files are kept, no entry is torn or lost among
    them."""
    path = tmp_path / "x.log"
    made = log(path, max_mb=0.002, keep=3)
    for n in range(200):
        made.write("info", f"{n:04d}")
    made.close()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert all(p.stat().st_size <= 2000 for p in tmp_path.iterdir())
    numbers = [int(str(e["message"])) for n in reversed(names) for e in entries(tmp_path / n)]
    assert numbers == list(range(numbers[0], 200))
    assert last(path, 3, 25) == [line + b"\n" for n in reversed(names)
                                 for line in (tmp_path / n).read_bytes().splitlines()][-25:]
    assert last(path, 3, 0) == [] and len(last(path, 3, 10_000)) == len(numbers)


def test_no_old_files_are_kept(tmp_path: Path) -> None:
    """keep = 0."""
    made = log(tmp_path / "x.log", max_mb=0.001, keep=0)
    for n in range(100):
        made.write("info", str(n))
    assert [p.name for p in tmp_path.iterdir()] == ["x.log"]
    assert (tmp_path / "x.log").stat().st_size <= 1000


def test_directory_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """For its owner only; no entry is lost."""
    path = tmp_path / "sub" / "deep" / "x.log"
    made = log(path)
    heard: list[str | None] = []
    made.listeners.append(heard.append)
    assert made.write("info", "a")
    shutil.rmtree(tmp_path / "sub")
    assert made.write("info", "b")
    assert [e["message"] for e in entries(path)] == ["b"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (made.lost, made.problem, heard) == (0, None, [])


def test_what_cannot_be_written_is_counted_and_reported(tmp_path: Path) -> None:
    """Once when it begins and once when it ends; the count is in the next entry."""
    path = tmp_path / "sub" / "x.log"
    made = log(path)
    heard: list[str | None] = []
    made.listeners.append(heard.append)
    (tmp_path / "sub").write_text("a file, not a directory")
    assert [made.write("info", "a"), made.write("info", "b")] == [False, False]
    assert heard == [made.problem] != [None]
    assert made.problem is not None and str(path) in made.problem and "cannot be written" in made.problem
    (tmp_path / "sub").unlink()
    assert made.write("info", "c")
    assert made.write("info", "d")
    assert [(e["message"], e.get("lost")) for e in entries(path)] == [("c", 2), ("d", None)]
    assert heard[1:] == [None]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_file_of_another_user_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.touch()
    os.chown(path, 4242, 4242)
    made = log(path)
    assert not made.write("info", "a")
    assert made.problem is not None and "belongs to user 4242" in made.problem


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_only_a_file_is_written_to(tmp_path: Path, kind: str) -> None:
    """A planted link is not followed; a fifo is not waited for."""
    path, target = tmp_path / "x.log", tmp_path / "target"
    target.write_text("")
    {"link": lambda: path.symlink_to(target), "fifo": lambda: os.mkfifo(path), "directory": path.mkdir}[kind]()
    assert not log(path).write("info", "x")
    assert target.read_text() == ""


def test_a_new_file_is_begun_after_a_move(tmp_path: Path) -> None:
    """By logrotate, or by another rh-pipe."""
    path = tmp_path / "x.log"
    made = log(path)
    made.write("info", "a")
    path.rename(tmp_path / "old")
    made.write("info", "b")
    assert [e["message"] for e in entries(path)] == ["b"]


def test_following_goes_through_a_rotation(tmp_path: Path) -> None:
    """Nothing is missed or printed twice, and half a line waits for its other half."""
    path = tmp_path / "x.log"
    path.write_bytes(b"before\n")

    def add(data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)

    steps: list[Callable[[], object]] = [
        lambda: add(b"one\ntw"), lambda: add(b"o\n"), lambda: (add(b"three\n"), path.rename(tmp_path / "x.log.1")),
        lambda: add(b"four\n"), path.unlink, lambda: add(b"five\n")]
    stream = follow(path, lambda _: steps.pop(0)() if steps else None)
    got: list[bytes] = []
    while len(got) < 5:
        got += [line] if (line := next(stream)) else []
        assert steps or line or len(got) < 5
    stream.close()
    assert got == [b"one\n", b"two\n", b"three\n", b"four\n", b"five\n"]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the state directory, unless configured."""
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert log_path(Settings()) == Path("/s/rogue-hunter/rh-pipe.log")
    assert log_path(Settings(path="/var/x.log")) == Path("/var/x.log")


# -- awake -------------------------------------------------------------------------------------------------------------

def test_the_machine_is_kept_awake_only_when_asked() -> None:
    """The child lives inside of `with`, and its standard input is our life line."""
    children: list[subprocess.Popen[bytes]] = []

    def spawn(argv: list[str], **options: object) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(argv, **options))  # type: ignore[call-overload]
        return children[-1]

    said: list[str] = []
    with keep_awake(False, said.append, ["cat"], spawn):
        assert children == []
    with keep_awake(True, said.append, ["cat"], spawn):
        assert children[0].poll() is None
    assert children[0].returncode is not None
    with keep_awake(True, said.append, ["/nonexistent/inhibit"], spawn):
        assert "No such file" in said[-1]
    with keep_awake(True, said.append, [sys.executable, "-c", "raise SystemExit(3)"], spawn):
        children[1].wait(20)
    assert "exit code 3" in said[-1]


def test_the_command_of_each_platform() -> None:
    """caffeinate watches our process; systemd-inhibit holds as long as its cat reads; none is no error."""
    assert inhibitor("darwin") == ["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())]
    found = inhibitor("linux", lambda name: f"/usr/bin/{name}")
    assert found is not None and found[0] == "/usr/bin/systemd-inhibit" and found[-1] == "cat"
    assert inhibitor("linux", lambda name: None) is None
