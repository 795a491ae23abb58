"""Signals that reach only the process they are meant for.

A pid is a number that the kernel reuses once its process is gone. A pidfd refers to the process itself: it was opened
before the process was read, and a signal through it reaches that process or none. No number is ever
given to kill(2) here; where there is no pidfd, nothing is signalled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator
from typing import Protocol

TERM, KILL, CONT = signal.SIGTERM, signal.SIGKILL, signal.SIGCONT


class Gone(Exception):
    """The process is gone."""


class NotAProcess(Exception):
    """The number is a thread's."""


class Unsupported(Exception):
    """The kernel cannot tie a signal to a process; the text says why."""


class Handle(Protocol):
    """One process, whatever becomes of its pid. `method` is a word of the action record's `method`."""

    method: str

    def send(self, number: int) -> float | None:
        """Send a signal. Gives the seconds between the last look at the process and the signal where the two are not
        tied together, else None. Raises Gone, PermissionError."""
        ...

    def gone(self) -> bool:
        """Has it ended? True also for one that waits to be collected by its parent."""
        ...

    def fileno(self) -> int:
        """A descriptor that is readable once it has ended; -1 where there is none and `gone` must be polled."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class Pidfd:
    """Linux: the process behind a pidfd (pidfd_open since Linux 5.3). Raises Gone, NotAProcess, Unsupported."""

    method = "pidfd"

    def __init__(self, pid: int) -> None:
        if pid <= 1:
            raise Unsupported(f"{pid} is no process that may be signalled")
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise Gone from None
        except OSError as error:
            # A thread that leads no process: ENOENT (EINVAL before Linux 6.9).
            if error.errno in (errno.ENOENT, errno.EINVAL) and os.path.exists(f"/proc/{pid}"):
                raise NotAProcess from None
            if error.errno in (errno.ENOENT, errno.EINVAL):
                raise Gone from None
            raise Unsupported(f"pidfd_open: {error.strerror}") from None
        except AttributeError:
            raise Unsupported("this Python knows no pidfd_open") from None

    def send(self, number: int) -> float | None:
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            raise Gone from None
        return None

    def gone(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


class Stop:
    """A request to stop waiting, which wakes the waiting thread. Safe to set from a signal handler or another
    thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._set = False

    def set(self) -> None:
        """Stop."""
        self._set = True
        with contextlib.suppress(OSError):
            os.write(self._write, b"x")

    def __bool__(self) -> bool:
        return self._set

    def fileno(self) -> int:
        """A descriptor that is readable once it is set."""
        return self._read

    @contextlib.contextmanager
    def on_signals(self, *numbers: int) -> Iterator[Stop]:
        """Set it on SIGINT and SIGTERM (or `numbers`) while the body runs; only on the main thread."""
        before = {n: signal.signal(n, lambda *_: self.set()) for n in numbers or (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Give back the descriptors."""
        os.close(self._read)
        os.close(self._write)
