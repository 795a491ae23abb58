"""The address of the socket (a private directory, a lock, the socket itself), and who is at its other end.

Only a socket of this user is ever removed, and only while the lock is held: then the process that made it has ended.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rogue_hunter.files import Lock, Locked, lock
from rogue_hunter.paths import SYSTEM_SOCKET, own_or_system, private_dir, runtime_dir
from rogue_hunter.text.errors import UNAVAILABLE, RogueHunterError

SOL_LOCAL, LOCAL_PEERCRED, LOCAL_PEERPID = 0, 1, 2
"""macOS, <sys/un.h>: Python has no names for them."""

_XUCRED = struct.Struct("@IIh16I")
"""macOS, <sys/ucred.h> struct xucred: version (0), uid, number of groups, 16 groups."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected or listens: its effective user at that time, and its pid if known."""

    uid: int
    pid: int | None = None

    @property
    def trusted(self) -> bool:
        """True for this user, and for root, who can read everything anyway."""
        return self.uid in (os.geteuid(), 0)


def peer_of(connection: socket.socket, platform: str = sys.platform) -> Peer | None:
    """The peer of a connected Unix socket; None if the system does not identify it: then it is not trusted."""
    try:
        if platform == "linux":
            size = struct.calcsize("3i")
            pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            return Peer(uid, pid)
        if platform == "darwin":
            version, uid, *_ = _XUCRED.unpack(connection.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, _XUCRED.size))
            if version != 0:
                return None
            (pid,) = struct.unpack("i", connection.getsockopt(SOL_LOCAL, LOCAL_PEERPID, 4))
            return Peer(uid, pid)
    except (OSError, struct.error):
        return None
    return None


NAME = "rh-pipe.sock"

SUN_PATH = 104 if sys.platform == "darwin" else 108
"""Bytes of sockaddr_un.sun_path, the closing NUL included: <sys/un.h> of macOS and of Linux."""

BACKLOG = 32


class SocketError(RogueHunterError):
    """The socket cannot be served or reached. `code` is the exit code: 69 not served or served by another process,
    74 a directory or file with the wrong owner, type or mode, 78 an invalid path."""

    code = UNAVAILABLE


class Taken(SocketError):
    """Another rh-pipe serves this socket. `holder` is its pid, None if that is not known."""

    def __init__(self, path: Path, holder: int | None) -> None:
        who = f" (process {holder})" if holder is not None else ""
        super().__init__(f"{path}: another rh-pipe serves it{who}", 69)
        self.holder = holder


def socket_path(configured: str = "", given: Path | None = None) -> Path:
    """The socket: the one given, else the configured one, else the user's. Raises PathError without a home."""
    if given is not None:
        return given.absolute()
    if configured:
        return Path(configured).expanduser().absolute()
    return runtime_dir() / NAME


def client_path(configured: str = "", given: Path | None = None) -> Path:
    """The socket to connect to: as `socket_path`, but that of the system's service where the user has none.
    Raises PathError without a home."""
    path = socket_path(configured, given)
    return path if configured or given is not None else own_or_system(path, SYSTEM_SOCKET)


def check_length(path: Path) -> None:
    """Raise SocketError for a path that is too long for a socket."""
    size = len(os.fsencode(path))
    if size >= SUN_PATH:
        raise SocketError(f"{path}: a socket's path has at most {SUN_PATH - 1} bytes, this one has {size}; "
                          "name another with [socket] path or --socket", 78)


class Place:
    """The right to serve one socket path: checks and locks it; `listen` then creates the socket."""

    def __init__(self, path: Path) -> None:
        """Check the directory and lock. Raises SocketError, PathError; nothing is removed."""
        check_length(path)
        self.path = path
        self._made: tuple[int, int] | None = None
        self._left = False
        private_dir(path.parent)
        self._dir = _open_private(path.parent)
        try:
            self._lock = self._take_lock()
        except BaseException:
            os.close(self._dir)
            raise

    def _take_lock(self) -> Lock:
        try:
            return lock(self.path.name + ".lock", dir_fd=self._dir)
        except Locked as locked:
            raise Taken(self.path, locked.holder) from None
        except OSError as error:
            raise SocketError(f"{self.path}.lock: {error.strerror}", 74) from None

    def listen(self) -> socket.socket:
        """The listening socket, non-blocking, mode 0600. A stale one of this user is replaced. Raises SocketError."""
        name = self.path.name
        info = self._look()
        if info is not None:
            if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
                raise SocketError(f"{self.path}: exists and is not a socket of this user; it is not replaced", 74)
            os.unlink(name, dir_fd=self._dir)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(str(self.path))
            listener.listen(BACKLOG)
            # bind resolved the path again: the entry of the checked directory must be this socket.
            made = self._look()
            if made is None or not stat.S_ISSOCK(made.st_mode) or made.st_uid != os.geteuid():
                raise SocketError(f"{self.path}: the directory was replaced at the same time", 74)
            self._made = made.st_dev, made.st_ino
            # The directory and the peer credentials protect the socket; some systems check its mode too.
            os.chmod(name, 0o600, dir_fd=self._dir)
        except OSError as error:
            listener.close()
            raise SocketError(f"{self.path}: {error.strerror}", 74) from None
        except BaseException:
            listener.close()
            raise
        return listener

    def is_intact(self) -> bool:
        """True while the path leads to the socket made here: a cleaner of temporary files may have removed it."""
        try:
            info = os.lstat(self.path)
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == self._made

    def _look(self) -> os.stat_result | None:
        try:
            return os.stat(self.path.name, dir_fd=self._dir, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SocketError(f"{self.path}: {error.strerror}", 74) from None

    def leave(self) -> None:
        """Remove the socket, if it is still the one made here, and release the lock."""
        if self._left:
            return
        self._left = True
        with suppress(SocketError, OSError):
            info = self._look()
            if info is not None and (info.st_dev, info.st_ino) == self._made:
                os.unlink(self.path.name, dir_fd=self._dir)
        self._lock.release()
        os.close(self._dir)

    def renewed(self) -> Place:
        """The same path, checked and locked again, after the socket or its directory was removed. Raises SocketError,
        PathError."""
        self.leave()
        return Place(self.path)


def _open_private(directory: Path) -> int:
    """A descriptor of the directory, checked through it: the path may lead to another directory a moment later."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SocketError(f"{directory}: {error.strerror}", 74) from None
    info = os.fstat(fd)
    reason = ""
    if info.st_uid != os.geteuid():
        reason = f"belongs to user {info.st_uid}"
    elif info.st_mode & 0o022:
        reason = f"others may write to it (mode {stat.S_IMODE(info.st_mode):04o})"
    if reason:
        os.close(fd)
        raise SocketError(f"{directory}: {reason}", 74)
    return fd
