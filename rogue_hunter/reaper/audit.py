"""The audit file: one JSON line for each signal, on disk before it is sent, and one for each outcome.

Each line ends with the SHA-256 of itself and of the line before, so a line that is changed, removed or inserted breaks
the chain; a small file beside it holds the last link, so that a truncated end is detected too. The chain detects
corruption and casual edits: a process that may write to the file can rewrite all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rogue_hunter.config.check import ConfigError
from rogue_hunter.config.options import Reap
from rogue_hunter.files import rotate
from rogue_hunter.paths import PathError, private_dir, state_dir
from rogue_hunter.reaper.audit_chain import START, TAIL, Verdict, entry_of, link_of, numbered, own_link, sha256, verify
from rogue_hunter.rules.model import Settings

LOCK_WAIT_S = 10.0
"""A line takes milliseconds to write; a process that holds the lock for this long hangs."""


class AuditError(Exception):
    """The audit file cannot be written, so no signal may be sent; the text says why."""


class AuditLog:
    """Appends to `path`. At `max_bytes` the file becomes `path.1`, and so on up to `keep` files."""

    def __init__(self, path: Path, *, max_bytes: int = 100_000_000, keep: int = 5,
                 now: Callable[[], float] = time.time, mono_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._now, self._mono_ns = now, mono_ns

    def check(self) -> None:
        """Raise AuditError unless a line could be written now."""
        with self._locked() as fd:
            self._last(fd)
            if os.fstatvfs(fd).f_bavail == 0:
                raise AuditError(f"{self.path}: no space left on the disk")

    def append(self, **entry: Any) -> int:
        """Write a line, wait until it is on disk, and return its number. Raises AuditError."""
        with self._locked() as fd:
            seq, link = self._last(fd)
            if os.fstat(fd).st_size >= self._max_bytes:
                rotate(self.path, self._keep)
                with self._opened() as fresh:
                    return self._write(fresh, seq + 1, link, entry)
            return self._write(fd, seq + 1, link, entry)

    def recent(self, seconds: float, boot_id: str | None = None) -> list[dict[str, Any]]:
        """The entries of the last `seconds`, oldest first. Those of this boot (`boot_id`) count by the monotonic clock
        too, so that setting the wall clock makes none too old. Raises AuditError."""
        since, mono_ns = self._now() - seconds, self._mono_ns()

        def recent(entry: dict[str, Any]) -> bool:
            mono = entry.get("mono_ns") if boot_id is not None and entry.get("boot_id") == boot_id else None
            return _time(entry) >= since or (type(mono) is int and 0 <= mono_ns - mono <= seconds * 1e9)

        found: list[dict[str, Any]] = []
        with self._locked():
            for file in (self.path, numbered(self.path, 1)):
                entries, whole = _newer(file, recent)
                found = entries + found
                if not whole:
                    break
        return found

    def verify(self) -> Verdict:
        """Check every line of every file, from the oldest."""
        return verify(self.path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, under its lock. Raises AuditError."""
        try:
            private_dir(self.path.parent)
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                           0o600)
        except (OSError, PathError) as error:
            raise AuditError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from None
        try:
            self._wait_for(lock)
            with self._opened() as fd:
                yield fd
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise AuditError(f"{self.path}: its lock was held by another process for {LOCK_WAIT_S:.0f} s"
                                     ) from None
                time.sleep(0.005)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                         0o600)
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror}") from None
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise AuditError(f"{self.path}: not a regular file")
            if info.st_uid != os.geteuid():
                raise AuditError(f"{self.path}: belongs to user {info.st_uid}")
            if info.st_mode & 0o077:
                os.fchmod(fd, 0o600)
            yield fd
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror}") from None
        finally:
            os.close(fd)

    def _last(self, fd: int) -> tuple[int, str]:
        """Number and link of the last line; a torn one (a crash while it was written) is set aside first."""
        size = os.fstat(fd).st_size
        if size == 0:
            return self._before()
        tail = os.pread(fd, min(size, 1 << 20), max(0, size - (1 << 20)))
        if not tail.endswith(b"\n"):
            torn = tail[tail.rfind(b"\n") + 1:]
            self._set_aside(fd, size, torn)
            return self._last(fd)
        line = tail[:-1].rsplit(b"\n", 1)[-1]
        entry, link = entry_of(line), own_link(line)
        if entry is None or link is None or type(entry.get("seq")) is not int:
            raise AuditError(f"{self.path}: its last line is damaged; check it with rh-reap --verify and move it away")
        return entry["seq"], link

    def _before(self) -> tuple[int, str]:
        """Number and link that a new file continues: those of the end of the rotated file, if there is one."""
        rotated = numbered(self.path, 1)
        if not rotated.exists():
            return 0, START
        line = rotated.read_bytes().rstrip(b"\n").rsplit(b"\n", 1)[-1]
        entry, link = entry_of(line), own_link(line)
        if entry is None or link is None or type(entry.get("seq")) is not int:
            raise AuditError(f"{rotated}: its last line is damaged; check it with rh-reap --verify and move it away")
        return entry["seq"], link

    def _set_aside(self, fd: int, size: int, torn: bytes) -> None:
        with open(f"{self.path}.torn", "ab", opener=_private) as file:
            file.write(torn + b"\n")
        os.ftruncate(fd, size - len(torn))
        seq, link = self._last(fd)
        self._write(fd, seq + 1, link, {"kind": "repair", "torn_bytes": len(torn),
                                        "torn_sha256": sha256(torn)})

    def _write(self, fd: int, seq: int, link: str, entry: dict[str, Any]) -> int:
        now = self._now()
        head = {"seq": seq, "prev": link, "ts": round(now, 3), "mono_ns": self._mono_ns(),
                "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        try:
            body = json.dumps({**head, **entry}, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, TypeError) as error:
            raise AuditError(f"{self.path}: an entry that is not JSON: {error}") from None
        new = link_of(link, body)
        line = body[:-1] + TAIL + new.encode() + b'"}\n'
        size = os.fstat(fd).st_size
        try:
            if os.write(fd, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)  # half a line would look like a crash
            raise
        self._note_head(seq, new)
        return seq

    def _note_head(self, seq: int, link: str) -> None:
        """Write the last link beside the file. After a crash it may lag behind; it is never ahead."""
        fd = os.open(f"{self.path}.head", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                     0o600)
        try:
            os.pwrite(fd, f"{seq:020d} {link}\n".encode(), 0)
        finally:
            os.close(fd)


def _newer(file: Path, recent: Callable[[dict[str, Any]], bool]) -> tuple[list[dict[str, Any]], bool]:
    """The recent entries of a file, read from its end, and whether all of the file is recent."""
    size = file.stat().st_size if file.exists() else 0
    take = 1 << 16
    while size:
        with open(file, "rb") as stream:
            stream.seek(max(0, size - take))
            lines = stream.read(take).split(b"\n")[:-1]
        entries = [entry for entry in map(entry_of, lines if take >= size else lines[1:]) if entry is not None]
        newer = [entry for entry in entries if recent(entry)]
        if len(newer) < len(entries) or take >= size:
            return newer, len(newer) == len(entries)
        take *= 4
    return [], True


def _time(entry: dict[str, Any]) -> float:
    """When it was written; a damaged line counts as new, which can only make a budget smaller."""
    ts = entry.get("ts")
    return ts if isinstance(ts, (int, float)) else math.inf


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def audit_path(reap: Reap, settings: Settings) -> Path:
    """The audit file: reap.audit, else logging.file of the rules, else audit.log in the state directory.

    All reapers of a user must use the same file, whatever their directory: raises ConfigError for a relative path.
    """
    named = reap.audit or settings.log_file
    if not named:
        return state_dir() / "audit.log"
    path = Path(named).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"audit file {named}: must be an absolute path, or begin with ~/")
    return path


def audit_log(reap: Reap, settings: Settings) -> AuditLog:
    """The audit file, with the size and number of files of the rules. Raises ConfigError."""
    return AuditLog(audit_path(reap, settings), max_bytes=settings.log_max_bytes, keep=settings.log_keep)
