"""What a process is called: command line, program, control group, user name. Read once, off the beat.

Reading a command line takes the lock of the process's memory map, which a process in trouble may hold for seconds,
and looking up a user may ask the network. Neither may ever hold up a beat, so one thread does both.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import threading
from collections import deque
from pathlib import Path
from sys import intern

from rogue_hunter.host.linux.descriptors import shut
from rogue_hunter.host.linux.parse import parse_stat, split_cmdline, text
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.redact import LIMIT, redact

CMDLINE_BYTES = 2 * LIMIT
"""Read twice what is kept: redaction shortens."""


class Describer:
    """One daemon thread between two queues. `ask` never waits; `answers` gives what is there by now."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._asked: queue.SimpleQueue[tuple[Key, int, bool] | threading.Event | None] = queue.SimpleQueue()
        self._answers: deque[tuple[Key, Row, bool]] = deque()
        self._pending = 0
        self._thread: threading.Thread | None = None

    def ask(self, key: Key, uid: int, kernel_thread: bool) -> None:
        """Have the process described."""
        self._pending += 1
        self._asked.put((key, uid, kernel_thread))
        self._begin()

    def _begin(self) -> None:
        """Have the thread, if there is one to be had; what was asked waits for it."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="describe", daemon=True)
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def answers(self) -> list[tuple[Key, Row, bool]]:
        """(identity, fields, whether something may not be read) of what was described since the last call."""
        found = []
        if self._pending:
            self._begin()
        while self._answers:
            found.append(self._answers.popleft())
        self._pending -= len(found)
        return found

    def wait(self, seconds: float) -> None:
        """Wait until everything asked for is answered, at most so long."""
        if self._thread is not None and self._pending > len(self._answers):
            done = threading.Event()
            self._asked.put(done)
            done.wait(seconds)

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join(1.0)
            self._thread = None

    def _run(self) -> None:
        users: dict[int, str | None] = {}
        while (asked := self._asked.get()) is not None:
            if isinstance(asked, threading.Event):
                asked.set()
                continue
            key, uid, kernel_thread = asked
            if uid not in users:
                users[uid] = _user(uid)
            fields, denied = describe(self._root, key, kernel_thread)
            if users[uid] is not None:
                fields["user"] = users[uid]
            self._answers.append((key, fields, denied))


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except (KeyError, OSError, OverflowError):
        return None


def describe(root: Path, key: Key, kernel_thread: bool = False) -> tuple[Row, bool]:
    """exe, cmdline and cgroup of one process, and whether something of it may not be read.

    All is read below one descriptor of /proc/PID, which fails once that process is gone, even when its pid is in use
    again; the start time is compared first, because the pid may have changed hands before that.
    """
    fields: Row = {}
    denied = False
    try:
        # A joined text: every part of a Path is kept by the interpreter as long as it runs.
        at = os.open(f"{root}/{key[0]}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return fields, True
    except OSError:
        return fields, False
    try:
        if parse_stat(_read(at, "stat", 4096)).start != key[1]:
            return fields, False
        if not kernel_thread:
            try:
                fields["exe"] = text(os.fsencode(os.readlink("exe", dir_fd=at)))
            except PermissionError:
                denied = True
            except OSError:
                pass
            argv = split_cmdline(_read(at, "cmdline", CMDLINE_BYTES))
            if argv:
                fields["cmdline"] = intern(redact(argv))
        cgroup = cgroup_path(_read(at, "cgroup", 4096))
        if cgroup:
            fields["cgroup"] = cgroup
    except (OSError, ValueError) as error:
        denied = denied or isinstance(error, PermissionError)
    finally:
        shut(at)
    return fields, denied


def cgroup_path(data: bytes) -> str | None:
    """The path of the unified hierarchy (`0::`), else of the systemd one, else the longest of version 1."""
    best = b""
    for line in data.splitlines():
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if number == b"0" and path not in (b"", b"/"):
            return text(path)
        if (controllers == b"name=systemd" and path not in (b"", b"/")) or len(path) > len(best):
            best = path
    return text(best) if best else None


def _read(at: int, name: str, size: int) -> bytes:
    """Up to `size` bytes of a file. Raises OSError."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
    try:
        parts = []
        left = size
        while left > 0 and (part := os.read(fd, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        shut(fd)
