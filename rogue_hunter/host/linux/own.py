"""The mark by which a process is known as one of rogue-hunter's own.

A name or a command line proves nothing: any program may be called rh-pipe. Each command of rogue-hunter keeps an
anonymous file (memfd_create(2)) of a certain name open as long as it runs, which /proc/PID/fd shows. Only root's
processes and those of the sampler's user count: another user may do what he likes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

from rogue_hunter import OWN_MARK
from rogue_hunter.files import shut

LINK = f"/memfd:{OWN_MARK} (deleted)"
"""What the link in /proc/PID/fd reads (proc_pid_fd(5))."""

LOOKED_AT = 64
"""The mark is made when a command begins, so its number is among the first."""

WORDS = (b"rogue_hunter", b"rh-")
"""One of them is in the arguments of every command: only such processes are looked at."""


def is_marked(at: int, uid: int) -> bool:
    """Whether the process of the directory `at` of /proc, with the effective user id `uid`, is marked. False where its
    descriptors may not be read."""
    if uid not in (0, os.geteuid()):
        return False
    try:
        fds = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    except OSError:
        return False
    try:
        for name in islice(os.listdir(fds), LOOKED_AT):
            with suppress(OSError):
                if os.readlink(name, dir_fd=fds) == LINK:
                    return True
        return False
    except OSError:
        return False
    finally:
        shut(fds)
