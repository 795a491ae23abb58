"""What every service manager needs: commands that are missing or hang, files that are not ours or cannot be written."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from rogue_hunter.service.launchd import Launchd
from rogue_hunter.service.manager import Done, Program, ServiceError, read, remove_file, run_command, write_file
from rogue_hunter.service.platform import here
from rogue_hunter.service.systemd import Systemd

MARK = b"# ours"


def test_commands_that_do_not_come_to_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run_command(["/bin/sh", "-c", "echo a; echo b >&2; exit 3"]) == Done(3, "a\n", "b\n")
    assert run_command([str(tmp_path / "none")]).code == 127
    plain = tmp_path / "plain"
    plain.write_bytes(b"no program")
    assert (run_command([str(plain)]).code, run_command([str(plain)]).words) == (126, f"{plain}: Permission denied")

    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("x", 1)

    monkeypatch.setattr(subprocess, "run", hangs)
    done = run_command(["systemctl"])
    assert done.code == 124 and "took longer" in done.words


def test_words_of_a_command() -> None:
    assert Done(1, "out\nmore", "").words == "out" and Done(1, "o", "first\nsecond").words == "first"
    assert Done(7, "", " \n").words == "exit code 7"


def test_each_platform_has_its_own(tmp_path: Path) -> None:
    program = Program(("/bin/rh-pipe",))
    assert isinstance(here(program, tmp_path, platform="darwin"), Launchd)
    assert isinstance(here(program, tmp_path, platform="linux"), Systemd)
    with pytest.raises(ServiceError, match="rh-service does not support plan9"):
        here(program, tmp_path, platform="plan9")


def test_a_file_is_written_once_and_only_over_our_own(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "unit"
    assert write_file(file, MARK + b"1", MARK) is True and write_file(file, MARK + b"1", MARK) is False
    assert write_file(file, MARK + b"2", MARK) is True and read(file) == MARK + b"2"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644 and [p.name for p in file.parent.iterdir()] == ["unit"]
    file.write_bytes(b"theirs")
    for refused in (lambda: write_file(file, MARK, MARK), lambda: remove_file(file, MARK)):
        with pytest.raises(ServiceError, match="was not written by rh-service"):
            refused()
    assert file.read_bytes() == b"theirs"
    file.write_bytes(MARK)
    assert remove_file(file, MARK) is True and remove_file(file, MARK) is False


def test_what_cannot_be_written_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "unit"
    file.write_bytes(MARK)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ServiceError, match="No space left") as refused:
        write_file(file, MARK + b"new", MARK)
    assert refused.value.code == 74 and file.read_bytes() == MARK and [p.name for p in tmp_path.iterdir()] == ["unit"]

    def fails(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", fails)
    with pytest.raises(ServiceError, match="Read-only"):
        remove_file(file, MARK)


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None
    with pytest.raises(ServiceError, match="Is a directory") as refused:
        read(tmp_path)
    assert refused.value.code == 74


def test_a_link_in_the_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f".unit.{os.getpid()}").symlink_to(victim)
    write_file(tmp_path / "unit", MARK, MARK)
    assert victim.read_bytes() == b"precious" and read(tmp_path / "unit") == MARK
