"""The log of rh-pipe: one JSON line an entry, rotated by size, never in the way of the beat.

An entry is a `log` record, so that `jq` and the filters read it. What it says may come from a client or a process's
name: JSON keeps it on its line, and whoever prints it for people makes it visible.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rogue_hunter.config.options import Log as Settings
from rogue_hunter.paths import private_dir, state_dir
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import record

LEVELS = ("debug", "info", "warning", "error")

MESSAGE = 4096
"""Characters of a message that are kept."""


def log_path(settings: Settings) -> Path:
    """The log file: the configured one, else the user's. Raises PathError without a home."""
    return Path(settings.path).expanduser().absolute() if settings.path else state_dir() / "rh-pipe.log"


def last(path: Path, keep: int, count: int) -> list[bytes]:
    """The last entries of a log and its rotated files, oldest first; a line that is cut short is left out."""
    found: list[bytes] = []
    for name in (path, *(path.with_name(f"{path.name}.{n}") for n in range(1, keep + 1))):
        if len(found) >= count:
            break
        try:
            data = name.read_bytes()
        except FileNotFoundError:
            continue
        found = [line + b"\n" for line in data.split(b"\n")[:-1]] + found
    return found[-count:] if count else []


def follow(path: Path, sleep: Callable[[float], object] = time.sleep) -> Iterator[bytes]:
    """Every entry from now on, for ever; an empty one after each look that found none. A rotated file is read to its
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
    """Appends entries. What cannot be written is counted in `lost` and said in the next entry that can be."""

    def __init__(self, path: Path, settings: Settings, now: Callable[[], float] = time.time) -> None:
        """Raises PathError when the log's own directory cannot be made, OSError never."""
        self.path = path
        self.lost = 0
        self._set = settings
        self._now = now
        self._fd = -1
        self._inode: tuple[int, int] | None = None
        if not settings.path:
            private_dir(path.parent)

    def write(self, level: str, message: str, source: str = "rh-pipe", **more: object) -> bool:
        """Append one entry; False when it could not be written, or its level is not."""
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
        except OSError:
            self.lost += 1
            return False
        self.lost = 0
        return True

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _ready(self, more: int) -> None:
        """Have the file open, with room for `more` bytes. Raises OSError."""
        try:
            info = os.lstat(self.path)
        except FileNotFoundError:
            info = None
        # Somebody else, logrotate or another rh-pipe, may have moved the file.
        if self._fd < 0 or info is None or (info.st_dev, info.st_ino) != self._inode:
            self._open()
        elif info.st_size + more > self._set.max_mb * 1_000_000:
            self._rotate()
            self._open()

    def _open(self) -> None:
        self.close()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                     0o600)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
            os.close(fd)
            raise OSError("not a file of ours")
        self._fd, self._inode = fd, (info.st_dev, info.st_ino)

    def _rotate(self) -> None:
        """FILE becomes FILE.1, and so on; the oldest goes."""
        self.close()
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, self._set.keep + 1))]
        if self._set.keep == 0:
            os.unlink(self.path)
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            with suppress(FileNotFoundError):
                os.replace(newer, older)
