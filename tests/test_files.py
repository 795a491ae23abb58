"""Locks, private files, replacement, rotation, and which configuration files are trusted."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rogue_hunter.files import (
    FileError,
    Locked,
    check_lock,
    last_lines,
    lock,
    open_private,
    read_trusted,
    replace,
    rotate,
    rotated,
    shut,
)

LIMIT = 1000
NOT_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    file = tmp_path / "own" / "config.toml"
    file.parent.mkdir(mode=0o755)
    file.write_bytes(b"content")
    file.chmod(0o644)
    return file


def test_trusted_file_is_read(trusted: Path) -> None:
    assert read_trusted(trusted, LIMIT) == b"content"
    assert read_trusted(trusted, len(b"content")) == b"content"


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o620, 0o602])
def test_file_that_others_may_write_to_is_refused(trusted: Path, mode: int) -> None:
    trusted.chmod(mode)
    with pytest.raises(FileError, match=rf"config\.toml: other users may write to the file \(mode {mode:04o}\)"):
        read_trusted(trusted, LIMIT)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_file_in_a_directory_that_others_may_write_to_is_refused(trusted: Path, mode: int) -> None:
    trusted.parent.chmod(mode)
    with pytest.raises(FileError, match="other users may write to the directory"):
        read_trusted(trusted, LIMIT)


def test_directory_further_up_that_everybody_may_write_to(tmp_path: Path) -> None:
    file = tmp_path / "open" / "own" / "config.toml"
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(FileError, match=r"open \(mode 0777\)"):
        read_trusted(file, LIMIT)
    (tmp_path / "open").chmod(0o1777)
    assert read_trusted(file, LIMIT) == b""


def test_sticky_directory_is_accepted(trusted: Path) -> None:
    trusted.parent.chmod(0o1777)
    assert read_trusted(trusted, LIMIT) == b"content"


@NOT_ROOT
def test_file_of_another_user_is_refused(trusted: Path) -> None:
    os.chown(trusted, 4242, 4242)
    with pytest.raises(FileError, match="the file belongs to user 4242; it must be yours or root's"):
        read_trusted(trusted, LIMIT)


@NOT_ROOT
def test_directory_of_another_user_is_refused(trusted: Path) -> None:
    os.chown(trusted.parent, 4242, 4242)
    with pytest.raises(FileError, match="the directory belongs to user 4242"):
        read_trusted(trusted, LIMIT)


def test_link_is_followed_if_both_ends_are_trusted(trusted: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "config.toml"
    link.parent.mkdir()
    link.symlink_to("../own/config.toml")
    assert read_trusted(link, LIMIT) == b"content"
    with pytest.raises(FileError, match="a symbolic link"):
        read_trusted(link, LIMIT, follow=False)
    link.parent.chmod(0o777)
    with pytest.raises(FileError, match="other users may write to the directory"):
        read_trusted(link, LIMIT)
    link.parent.chmod(0o755)
    trusted.parent.chmod(0o777)
    with pytest.raises(FileError, match="other users may write to the directory"):
        read_trusted(link, LIMIT)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    zero = tmp_path / "zero"
    zero.symlink_to("/dev/zero")
    for path in (fifo, zero, tmp_path):
        with pytest.raises(FileError, match=r"not a regular file|a directory, not a file"):
            read_trusted(path, LIMIT)


def test_large_file_is_refused(trusted: Path) -> None:
    trusted.write_bytes(bytes(2049))
    with pytest.raises(FileError, match="larger than 2 KiB"):
        read_trusted(trusted, 2048)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nothing: No such file") as raised:
        read_trusted(tmp_path / "nothing", LIMIT)
    assert raised.value.code == 78


def test_lock_excludes_another_process_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = ("import sys; from rogue_hunter.files import lock; held = lock(sys.argv[1]); print('locked', flush=True); "
            "sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"locked\n"
        with pytest.raises(Locked, match=f"locked by process {child.pid}") as raised:
            lock(path)
        assert (raised.value.holder, raised.value.code) == (child.pid, 69)
        with pytest.raises(Locked):
            check_lock(path)
        child.communicate()
    check_lock(path)
    with lock(path) as held:
        with pytest.raises(Locked):
            lock(path)
        assert path.read_text() == f"{os.getpid()}\n"
    held.release()
    lock(path).release()


def test_lock_is_waited_for_as_long_as_asked(tmp_path: Path) -> None:
    now = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    with lock(tmp_path / "lock") as held:
        with pytest.raises(Locked):
            lock(tmp_path / "lock", wait_s=0.1, sleep=sleep, clock=lambda: now)
        assert 0.1 <= sum(slept) < 0.15
        with pytest.raises(Locked):
            lock(tmp_path / "lock", wait_s=1e9, stop=lambda: True)
        lock(tmp_path / "lock", wait_s=1e9, sleep=lambda _: held.release()).release()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may have none: that is no other process that holds the lock."""
    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "x.db.lock").touch(0o600)
    check_lock(tmp_path / "x.db.lock")
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        lock(tmp_path / "x.db.lock")


def test_check_of_a_lock_creates_nothing(tmp_path: Path) -> None:
    check_lock(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_private_file_is_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o666)
    file.chmod(0o666)
    shut(open_private(file, os.O_RDWR))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_private_file_is_neither_link_nor_fifo(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        open_private(tmp_path / "link", os.O_WRONLY | os.O_CREAT)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        open_private(tmp_path / "fifo", os.O_RDWR)
    assert not (tmp_path / "elsewhere").exists()


@NOT_ROOT
def test_private_file_belongs_to_this_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 4242, -1)
    with pytest.raises(OSError, match="belongs to user 4242"):
        open_private(tmp_path / "file", os.O_RDWR)


def test_replace_is_one_step(tmp_path: Path) -> None:
    file = tmp_path / "file"
    replace(file, b"one")
    with file.open("rb") as before:
        replace(file, b"two", mode=0o644)
        assert before.read() == b"one"
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        replace(tmp_path / "folder", b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is noticed at the write, whose error has no name."""
    def fsync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no room") as caught:
        replace(tmp_path / "no room", b"x")
    assert caught.value.filename == str(tmp_path / "no room") and list(tmp_path.iterdir()) == []


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    file = tmp_path / "log"
    for text in "abcd":
        file.write_text(text)
        rotate(file, 2)
    assert not file.exists()
    assert [rotated(file, n).read_text() for n in (1, 2)] == ["d", "c"]
    assert not rotated(file, 3).exists()
    file.write_text("e")
    rotate(file, 0)
    rotate(file, 0)
    assert not file.exists()


def test_last_lines_reads_as_much_as_needed(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert last_lines(file, lambda _: True, 1 << 20) == ([], True)
    lines = [b"%06d" % n for n in range(100_000)]
    file.write_bytes(b"\n".join(lines) + b"\nunfinished")
    found, whole = last_lines(file, lambda _: True, 1 << 20)
    assert found == lines[-len(found):]
    assert 9_000 < len(found) < 10_000
    assert not whole
    found, whole = last_lines(file, lambda found: len(found) >= 20_000, 1 << 20)
    assert found == lines[-len(found):]
    assert 20_000 <= len(found) < 40_000
    assert last_lines(file, lambda _: False, 1 << 20) == (lines, True)
    found, whole = last_lines(file, lambda _: False, 1000)
    assert found == lines[-len(found):]
    assert (len(found), whole) == (141, False)
