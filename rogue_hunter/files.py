"""Files that need care: locks, private files, atomic replacement, rotation, trusted configuration files."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rogue_hunter.text.errors import CONFIG_ERROR, RogueHunterError

_RETRY_S = 0.01
"""Between two attempts to lock: flock(2) has no timeout."""

_LINKS = 40
"""Symbolic links followed one after the other, as the kernel does (path_resolution(7))."""

_BLOCK = 1 << 16
"""Bytes read at first from the end of a file."""


class FileError(RogueHunterError):
    """A file that cannot be read or is not to be trusted. The message begins with the path."""

    code = CONFIG_ERROR


class Locked(RogueHunterError):
    """Another process holds the lock. `holder` is its pid, None if the file does not name it."""

    code = 69

    def __init__(self, path: Path | str, holder: int | None) -> None:
        super().__init__(f"{path}: locked by {f'process {holder}' if holder else 'another process'}")
        self.holder = holder


def shut(fd: int) -> None:
    """Close a descriptor and ignore errors: Linux frees it even if close(2) fails, so nothing can be done."""
    with suppress(OSError):
        os.close(fd)


_CHUNK = 1 << 20
"""Bytes of one read: room for them is taken before it is known how many there are."""


def read_start(path: Path | str, size: int, *, flags: int = 0, dir_fd: int | None = None) -> bytes:
    """At most `size` bytes from the start of a file; one that would have to be waited for, a fifo, gives none. `flags`
    are added to those of open(2). Raises OSError, and ValueError for a path with a NUL."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags, dir_fd=dir_fd)
    try:
        parts: list[bytes] = []
        while size > 0 and (part := os.read(fd, min(size, _CHUNK))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    finally:
        shut(fd)


# -- locks -----------------------------------------------------------------------------------------------------------

class Lock:
    """An exclusive flock(2) with the holder's pid in the file. It ends with `release` or with the process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def release(self) -> None:
        """Unlock. The file stays: removing it would let two processes lock two files of one name."""
        if self.fd >= 0:
            with suppress(OSError):
                os.ftruncate(self.fd, 0)
            shut(self.fd)
            self.fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.release()


def lock(path: Path | str, *, wait_s: float = 0.0, dir_fd: int | None = None,
         stop: Callable[[], object] = lambda: False, sleep: Callable[[float], object] = time.sleep,
         clock: Callable[[], float] = time.monotonic) -> Lock:
    """Lock the file `path`, which is created with mode 0600 if needed; retry for `wait_s` seconds while `stop()` is
    false. `path` is relative to the directory `dir_fd` if that is given.

    Raises Locked when another process holds the lock, OSError when the file cannot be opened as one of ours.
    """
    return hold(open_private(path, os.O_RDWR | os.O_CREAT, dir_fd=dir_fd), path, wait_s=wait_s, stop=stop, sleep=sleep,
                clock=clock)


def hold(fd: int, path: Path | str, *, wait_s: float = 0.0, stop: Callable[[], object] = lambda: False,
         sleep: Callable[[float], object] = time.sleep, clock: Callable[[], float] = time.monotonic) -> Lock:
    """Lock an open file as `lock` does. The descriptor is closed with the lock, or at once when that fails."""
    deadline = clock() + wait_s
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= deadline or stop():
                    raise Locked(path, _pid_in(fd)) from None
                sleep(_RETRY_S)
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        shut(fd)
        raise
    return Lock(fd)


def check_lock(path: Path | str) -> None:
    """Raise Locked if another process holds the lock of this file. Nothing is created, written or waited for. On a file
    system without locks no process holds one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # A shared lock: two processes that check at the same time do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(path, _pid_in(fd)) from None
    except OSError:
        return
    finally:
        shut(fd)


def _pid_in(fd: int) -> int | None:
    try:
        text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdecimal() else None


# -- files of our own ------------------------------------------------------------------------------------------------

def open_private(path: Path | str, flags: int, *, dir_fd: int | None = None) -> int:
    """A descriptor of a regular file of this user, made with mode 0600 (with O_CREAT); an existing one that others may
    access is closed to them. Links are not followed and a fifo is not waited for.

    Raises OSError: `strerror` says what is wrong with the file.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if info.st_uid != os.geteuid():
            raise OSError(errno.EPERM, f"belongs to user {info.st_uid}", str(path))
        if info.st_mode & 0o077:
            os.fchmod(fd, 0o600)
    except BaseException:
        shut(fd)
        raise
    return fd


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file in one step: readers see the old content or the new, and the new is on disk. Raises OSError, which
    names the file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        beside.unlink()  # left by a process of this pid that was killed
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)      # of a write to an open file
        raise


def rotated(path: Path, number: int) -> Path:
    """The name of a rotated file: FILE.1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def rotate(path: Path, keep: int) -> None:
    """Rename FILE to FILE.1, FILE.1 to FILE.2 and so on; at most `keep` of them stay. Raises OSError."""
    names = [path, *(rotated(path, n) for n in range(1, keep + 1))]
    if keep == 0:
        path.unlink(missing_ok=True)
    for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
        with suppress(FileNotFoundError):
            os.replace(newer, older)


def last_lines(path: Path, enough: Callable[[list[bytes]], bool], limit: int) -> tuple[list[bytes], bool]:
    """The last complete lines of a file, without their line feeds, and whether they are all of it.

    More is read from the end until `enough(lines)` or `limit` bytes are read. A missing file has no lines. A last line
    without line feed is still being written and is left out. Raises OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], True
    with os.fdopen(fd, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        take = min(_BLOCK, limit)
        while True:
            file.seek(max(0, size - take))
            lines = file.read(take).split(b"\n")[:-1]
            whole = take >= size
            if not whole:
                del lines[:1]  # begins somewhere before
            if whole or take >= limit or enough(lines):
                return lines, whole
            take = min(take * 4, limit)


# -- files that people write -----------------------------------------------------------------------------------------

def read_trusted(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """The content of a configuration file: a regular file of at most `limit` bytes, owned by this user or root, that
    no other user may write to or replace. `follow` accepts a symbolic link to such a file.

    Nothing is waited for: a fifo, a device or a directory is refused at once. Raises FileError, whose message names
    the file, the reason and the remedy.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if not follow and path.is_symlink():
            raise FileError(f"{path}: a symbolic link; it must be the file itself") from None
        raise FileError(f"{path}: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            what = "a directory, not a file" if stat.S_ISDIR(info.st_mode) else "not a regular file"
            raise FileError(f"{path}: {what}")
        _check_writers(path, info, "file")
        for directory in _directories(path):
            _check_directories(path, directory)
        return _read(fd, path, limit)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    finally:
        shut(fd)


def _read(fd: int, path: Path, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit + 1
    while left > 0 and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise FileError(f"{path}: larger than {limit // 1024} KiB")
    return b"".join(parts)


def _check_writers(path: Path, info: os.stat_result, what: str) -> None:
    """Refuse a file or directory that another user owns or may write to. A sticky directory is no danger: only its
    owner and the owner of a file in it may rename or remove that file."""
    if info.st_uid not in (0, os.geteuid()):
        raise FileError(f"{path}: the {what} belongs to user {info.st_uid}; it must be yours or root's")
    if info.st_mode & 0o022 and not (what == "directory" and info.st_mode & stat.S_ISVTX):
        raise FileError(f"{path}: other users may write to the {what} (mode {stat.S_IMODE(info.st_mode):04o}); "
                        f"remove that with: chmod go-w")


def _directories(path: Path) -> Iterator[Path]:
    """The directory of the file, and of each symbolic link that leads to it."""
    for _ in range(_LINKS):
        yield path.parent
        if not path.is_symlink():
            return
        path = path.parent / os.readlink(path)


def _check_directories(path: Path, directory: Path) -> None:
    """Refuse a directory that others may write to, and one below a directory that everybody may write to. A group may
    own what lies further up: /usr/local and home directories on many systems."""
    real = Path(os.path.realpath(directory))
    _check_writers(path, os.stat(real), "directory")
    for above in real.parents:
        mode = os.stat(above).st_mode
        if mode & 0o002 and not mode & stat.S_ISVTX:
            raise FileError(f"{path}: other users may write to {above} (mode {stat.S_IMODE(mode):04o}); "
                            f"remove that with: chmod o-w")
