"""The process that stops a suspect for a moment and continues it, even if the command that asked is killed.

It holds a pidfd of the suspect. On its standard input it reads single bytes: `s` stops the suspect, `c` continues it.
It answers each with the same byte once it is done, after one byte that says that it is ready. The suspect is continued
after a limit even if no `c` comes, and at the end of the input: when the command that asked is killed, the kernel
closes the pipe. It leads a session of its own and ignores the signals of a terminal, so that only SIGKILL of both
processes at once can leave the suspect stopped.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGUSR1,
           signal.SIGUSR2, signal.SIGPIPE)

READY = b"r"
"""Written once, when it is ready for the first byte."""


def keep(send: Callable[[int], object], source: int, sink: int, limit_s: float) -> None:
    """Obey the bytes of the descriptor `source` until it ends; the suspect runs when this returns. `send` sends a
    signal to the suspect and raises OSError when it is gone. `limit_s`: the longest that it is stopped at a time."""
    stopped = False
    try:
        while True:
            if not select.select([source], [], [], limit_s if stopped else None)[0]:
                send(signal.SIGCONT)
                stopped = False
                continue
            asked = os.read(source, 1)
            if asked not in (b"s", b"c"):
                return
            # Before the signal: an exception in between must continue it.
            stopped = stopped or asked == b"s"
            send(signal.SIGSTOP if asked == b"s" else signal.SIGCONT)
            stopped = asked == b"s"
            os.write(sink, asked)
    except OSError:  # the suspect exited, or the answers have no reader
        return
    finally:
        if stopped:
            with suppress(OSError):
                send(signal.SIGCONT)


if __name__ == "__main__":
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    handle = int(sys.argv[1])
    os.write(1, READY)
    keep(lambda number: signal.pidfd_send_signal(handle, number), 0, 1, float(sys.argv[2]))
