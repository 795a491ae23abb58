"""Copies of traces: private, within their quota, never the last room on the disk, and no reason to fail."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rogue_hunter.capture.macos import keep_raw, make_room
from rogue_hunter.capture.request import Parts
from rogue_hunter.config.options import Forensics

MB = 1 << 20


@pytest.fixture
def settings(tmp_path: Path) -> Forensics:
    return replace(Forensics(), raw_directory=str(tmp_path / "captures"), raw_quota_mb=3, free_mb=0)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    made = tmp_path / "capture.tailspin"
    made.write_bytes(b"x" * MB)
    return made


def kept(settings: Forensics, trace: Path, name: str = "c1") -> tuple[dict[str, object], list[str]]:
    parts = Parts()
    return keep_raw(trace, name, settings, parts), parts.problems


def test_a_copy_is_private_and_reported(settings: Forensics, trace: Path) -> None:
    fields, problems = kept(settings, trace)
    copy = Path(str(fields["raw_path"]))
    assert problems == [] and fields["raw_bytes"] == MB and copy.read_bytes() == trace.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600 and copy.parent.stat().st_mode & 0o777 == 0o700


def test_the_oldest_go_first(settings: Forensics, trace: Path) -> None:
    for number in range(5):
        fields, problems = kept(settings, trace, f"c{number}")
        assert not problems
        os.utime(str(fields["raw_path"]), (number, number))
    left = sorted(p.name for p in Path(settings.raw_directory).iterdir())
    assert left == ["c2.tailspin", "c3.tailspin", "c4.tailspin"]


def test_what_is_no_copy_of_ours_stays(settings: Forensics, trace: Path, tmp_path: Path) -> None:
    directory = Path(settings.raw_directory)
    directory.mkdir(mode=0o700)
    (directory / "notes.txt").write_bytes(b"n" * 9 * MB)
    (directory / "link.tailspin").symlink_to(trace)
    (directory / "folder.tailspin").mkdir()
    assert kept(settings, trace)[1] == [] and make_room(directory, 0) == 1
    assert trace.exists() and {p.name for p in directory.iterdir()} == {"notes.txt", "link.tailspin", "folder.tailspin"}


def test_a_file_beyond_the_quota_is_left_out(settings: Forensics, trace: Path) -> None:
    assert kept(replace(settings, raw_quota_mb=0), trace) == ({}, ["raw file not kept: 1 MB, the quota is 0 MB"])


def test_the_disk_keeps_its_room(settings: Forensics, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(trace)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 * MB))
    fields, (problem,) = kept(replace(settings, free_mb=100), trace)
    assert fields == {} and "less than 100 MB would be free" in problem and not list(Path(settings.raw_directory).iterdir())


def test_a_disk_that_fails_leaves_no_half_copy(settings: Forensics, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: object, target: object, size: int) -> None:
        target.write(b"half")   # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fails)
    assert kept(settings, trace) == ({}, ["raw file not kept: No space left on device"])
    assert not list(Path(settings.raw_directory).iterdir())


def test_an_obstacle_is_reported(settings: Forensics, trace: Path, tmp_path: Path) -> None:
    assert "No such file" in kept(settings, tmp_path / "none")[1][0]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "captures").rmdir() if (tmp_path / "captures").exists() else None
    (tmp_path / "captures").symlink_to(tmp_path / "elsewhere")
    assert "not a directory of its own" in kept(settings, trace)[1][0] and not list((tmp_path / "elsewhere").iterdir())
