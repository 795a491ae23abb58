"""The log of rh-pipe: one JSON line per entry, rotated by size.

An entry is a `log` record, so that `jq` and the filters read it. A message may contain text of a client or the name of
a process: JSON keeps it on its line, and control characters are made visible where it is printed for people.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from rogue_hunter.config.options import Log as Settings
from rogue_hunter.files import last_lines, open_private, rotate, rotated, shut
from rogue_hunter.paths import PathError, private_dir, state_dir
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import record

LEVELS = ("debug", "info", "warning", "error")

MESSAGE = 4096
"""Characters of a message that are kept."""

READ_BYTES = 1 << 24
"""Bytes of one file that `last` reads at most."""


def log_path(settings: Settings) -> Path:
    """The log file: the configured one, else the user's. Raises PathError without a home."""
    return Path(settings.path).expanduser().absolute() if settings.path else state_dir() / "rh-pipe.log"


def last(path: Path, keep: int, count: int) -> list[bytes]:
    """The last entries of a log and its rotated files, oldest first; an incomplete line is left out. Raises OSError."""
    found: list[bytes] = []
    for name in (path, *(rotated(path, n) for n in range(1, keep + 1))):
        missing = count - len(found)
        if missing > 0:
            lines, _ = last_lines(name, lambda lines, missing=missing: len(lines) >= missing, READ_BYTES)  # type: ignore[misc]
            found = [line + b"\n" for line in lines] + found
    return found[-count:] if count else []


def follow(path: Path, sleep: Callable[[float], object] = time.sleep) -> Iterator[bytes]:
    """Every entry from now on, without end; an empty one after each look that found none. A rotated file is read to its
    end first."""
    file = _opened(path, at_end=True)
    held = b""
    try:
        while True:
            data = file.read(1 << 16) if file is not None else b""
            if data:
                *lines, held = (held + data).split(b"\n")
                yield from (line + b"\n" for line in lines)
                continue
            if file is None or not _same(file, path):
                if file is not None:
                    file.close()
                file, held = _opened(path, at_end=False), b""
                if file is not None:
                    continue
            yield b""
            sleep(0.3)
    finally:
        if file is not None:
            file.close()


def _opened(path: Path, at_end: bool) -> BinaryIO | None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    if at_end:
        file.seek(0, os.SEEK_END)
    return file


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return True  # between two names; the next look finds the new one
    then = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino) and now.st_size >= file.tell()


class Log:
    """Appends entries. Entries that cannot be written are counted in `lost` and in the next one that can; the beginning
    and the end of such a time are reported to `listeners`."""

    def __init__(self, path: Path, settings: Settings, now: Callable[[], float] = time.time) -> None:
        """Raises PathError when the user's own log directory cannot be made."""
        self.path = path
        self.lost = 0
        self.problem: str | None = None
        """Why entries cannot be written; None when they can."""
        self.listeners: list[Callable[[str | None], object]] = []
        """Called with `problem` when it changes between None and a reason."""
        self._set = settings
        self._now = now
        self._fd = -1
        self._inode: tuple[int, int] | None = None
        if not settings.path:
            private_dir(path.parent)

    def write(self, level: str, message: str, source: str = "rh-pipe", **more: object) -> bool:
        """Append one entry; False when it could not be written, or its level is not logged."""
        if LEVELS.index(level) < LEVELS.index(self._set.level):
            return False
        if self.lost:
            more["lost"] = self.lost
        text = message.encode("utf-8", "backslashreplace").decode()
        entry = wire.dumps(record("log", ts=round(self._now(), 3), level=level, source=source,
                                  message=text[:MESSAGE], **more)) + b"\n"
        try:
            self._ready(len(entry))
            # One write: lines of two writers do not mix in a file that is opened for appending.
            os.write(self._fd, entry)
        except (OSError, PathError) as error:
            self.lost += 1
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            self._report(f"the log {self.path} cannot be written: {reason}")
            return False
        self.lost = 0
        self._report(None)
        return True

    def _report(self, problem: str | None) -> None:
        changed = (problem is None) != (self.problem is None)
        self.problem = problem
        if changed:
            for listener in self.listeners:
                listener(problem)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            shut(self._fd)
            self._fd = -1

    def _ready(self, more: int) -> None:
        """Have the file open, with room for `more` bytes. Raises OSError, PathError."""
        try:
            info = os.lstat(self.path)
        except FileNotFoundError:
            info = None
        # Another process, logrotate or another rh-pipe, may have moved the file.
        if self._fd < 0 or info is None or (info.st_dev, info.st_ino) != self._inode:
            self._open()
        elif info.st_size + more > self._set.max_mb * 1_000_000:
            self.close()
            rotate(self.path, self._set.keep)
            self._open()

    def _open(self) -> None:
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            self._fd = open_private(self.path, flags)
        except FileNotFoundError:  # the directory was removed
            private_dir(self.path.parent)
            self._fd = open_private(self.path, flags)
        info = os.fstat(self._fd)
        self._inode = (info.st_dev, info.st_ino)
