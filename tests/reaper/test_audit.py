"""The audit file: on disk before anything is done, and a chain that shows what was changed."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.reaper.audit import AuditError, AuditLog, verify


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "state" / "audit.log")


def fill(log: AuditLog, count: int) -> None:
    for i in range(count):
        log.append(kind="intent", pid=1000 + i, rule="r")


def test_lines_are_numbered_chained_and_private(log: AuditLog) -> None:
    assert [log.append(kind="intent", command="a\x1b\n\ud800\u2028é"), log.append(kind="outcome")] == [1, 2]
    first, second = [json.loads(line) for line in log.path.read_bytes().split(b"\n")[:-1]]
    assert first["command"] == "a\x1b\n\ud800\u2028é" and first["timestamp"][-1] == "Z"
    assert second["prev"] == first["hash"]
    assert log.path.read_bytes().isascii()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600 and stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700
    assert log.verify() == (2, ())


def test_every_changed_byte_is_found(log: AuditLog) -> None:
    fill(log, 4)
    good = log.path.read_bytes()
    for at in range(0, len(good), 7):
        bad = bytearray(good)
        bad[at] ^= 1
        log.path.write_bytes(bad)
        assert log.verify().damages, at


@pytest.mark.parametrize("which", ["first", "middle", "last", "two swapped", "one twice", "half of the last"])
def test_missing_added_and_moved_lines_are_found(log: AuditLog, which: str) -> None:
    fill(log, 5)
    lines = log.path.read_bytes().splitlines(keepends=True)
    changed = {
        "first": lines[1:], "middle": lines[:2] + lines[3:], "last": lines[:-1], "one twice": [*lines[:3], *lines[2:]],
        "two swapped": [lines[0], lines[2], lines[1], *lines[3:]], "half of the last": [*lines[:-1], lines[-1][:50]],
    }[which]
    log.path.write_bytes(b"".join(changed))
    assert log.verify().damages and log.verify().damages[0].text


def test_a_forged_line_with_a_right_hash_breaks_the_next(log: AuditLog) -> None:
    import hashlib

    fill(log, 3)
    lines = log.path.read_bytes().split(b"\n")[:-1]
    entry = json.loads(lines[1])
    entry.pop("hash")
    body = json.dumps({**entry, "pid": 1}, separators=(",", ":")).encode()
    forged = hashlib.sha256(entry["prev"].encode() + b"\n" + body).hexdigest()
    lines[1] = body[:-1] + b',"hash":"' + forged.encode() + b'"}'
    log.path.write_bytes(b"\n".join(lines) + b"\n")
    assert [d.line for d in log.verify().damages] == [3]


def test_rotation_keeps_the_chain_and_the_number_of_files(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "state" / "audit.log", max_bytes=1500, keep=3)
    fill(log, 40)
    assert sorted(p.name for p in log.path.parent.iterdir()) == [
        "audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.head", "audit.log.lock"]
    verdict = log.verify()
    assert verdict.damages == () and 10 < verdict.lines < 40
    assert log.append(kind="x") == 41
    bad = log.path.parent / "audit.log.2"
    bad.write_bytes(bad.read_bytes().replace(b"intent", b"attent", 1))
    assert log.verify().damages[0].file == str(bad)
    bad.unlink()
    (log.path.parent / "audit.log.3").rename(bad)
    assert log.verify().damages  # a file taken out of the middle


@given(st.integers(1, 400))
def test_a_torn_last_line_is_set_aside_and_the_rest_stands(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(Path(folder) / "state" / "audit.log")
        fill(log, 2)
        whole = log.path.read_bytes()
        log.append(kind="outcome", pid=3)
        data = log.path.read_bytes()
        torn = data[: len(whole) + min(cut, len(data) - len(whole) - 1)]
        log.path.write_bytes(torn)
        assert log.append(kind="intent", pid=4) == 4
        kinds = [json.loads(line)["kind"] for line in log.path.read_bytes().splitlines()]
        assert kinds == ["intent", "intent", "repair", "intent"]
        assert Path(f"{log.path}.torn").read_bytes() == torn[len(whole):] + b"\n"
        assert log.verify().damages == ()


def test_a_damaged_last_line_is_not_written_behind(log: AuditLog) -> None:
    fill(log, 2)
    log.path.write_bytes(log.path.read_bytes() + b"what is this\n")
    with pytest.raises(AuditError, match="its last line is damaged; check it with rh-reap --verify"):
        log.append(kind="x")
    with pytest.raises(AuditError):
        log.check()


@pytest.mark.parametrize("what", ["directory", "fifo", "link", "open to others above"])
def test_what_is_no_file_of_ours_is_refused(log: AuditLog, what: str, tmp_path: Path) -> None:
    log.path.parent.mkdir(mode=0o700)
    if what == "directory":
        log.path.mkdir()
    elif what == "fifo":
        os.mkfifo(log.path)
    elif what == "link":
        (tmp_path / "target").write_text("")
        log.path.symlink_to(tmp_path / "target")
    else:
        log.path.parent.chmod(0o777)
    with pytest.raises(AuditError):
        log.append(kind="x")
    if what == "link":
        assert (tmp_path / "target").read_text() == ""


def test_a_file_that_others_could_read_is_closed_to_them(log: AuditLog) -> None:
    log.append(kind="x")
    log.path.chmod(0o666)
    log.append(kind="x")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_is_no_json_is_refused_and_leaves_nothing(log: AuditLog, value: object) -> None:
    log.append(kind="x")
    size = log.path.stat().st_size
    with pytest.raises(AuditError):
        log.append(kind="x", value=value)
    assert log.path.stat().st_size == size and log.append(kind="x") == 2


def test_a_write_that_fails_leaves_no_half_line(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(kind="x")
    before = log.path.read_bytes()
    real = os.write
    for fault in ("short", "error", "sync"):
        with monkeypatch.context() as patch:
            if fault == "short":
                patch.setattr(os, "write", lambda fd, data: real(fd, data[:10]) if data.startswith(b'{"seq"') else
                              real(fd, data))
            elif fault == "error":
                patch.setattr(os, "write", _fail)
            else:
                patch.setattr(os, "fsync", _fail)
            with pytest.raises(AuditError, match="No space left"):
                log.append(kind="y")
        assert log.path.read_bytes() == before
    assert log.append(kind="z") == 2 and log.verify() == (2, ())


def _fail(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_writers_take_turns(log: AuditLog) -> None:
    threads = [threading.Thread(target=fill, args=(log, 15)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.verify() == (60, ())


def test_recent_reads_from_the_end(tmp_path: Path) -> None:
    now = [1000.0]
    log = AuditLog(tmp_path / "state" / "audit.log", max_bytes=40_000, now=lambda: now[0])
    for i in range(300):
        now[0] += 1
        log.append(kind="intent", n=i, pad="x" * 100)
    assert [e["n"] for e in log.recent(10.5)] == list(range(289, 300))
    assert [e["n"] for e in log.recent(150)][-1] == 299 and len(log.recent(150)) == 151
    assert AuditLog(tmp_path / "other" / "audit.log").recent(10) == []


def test_no_file_at_all_verifies(tmp_path: Path) -> None:
    assert verify(tmp_path / "none") == (0, ())


def test_a_wall_clock_that_is_set_makes_no_entry_too_old(tmp_path: Path) -> None:
    """The budget of an hour counts by the monotonic clock too."""
    wall, mono = [1_700_000_000.0], [10**12]
    log = AuditLog(tmp_path / "audit.log", now=lambda: wall[0], mono_ns=lambda: mono[0])
    log.append(kind="intent", rule="r", boot_id="b")
    wall[0], mono[0] = wall[0] + 86_400.0, mono[0] + 60 * 10**9
    (entry,) = log.recent(3600.0, "b")
    assert log.recent(3600.0) == log.recent(3600.0, "another") == []
    assert (entry["rule"], entry["mono_ns"]) == ("r", 10**12)
    mono[0] += 3600 * 10**9
    assert log.recent(3600.0, "b") == []
