"""Keep the machine from sleeping while rh-pipe runs; off by default."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

Spawn = Callable[..., "subprocess.Popen[bytes]"]


def inhibitor(platform: str = sys.platform, which: Callable[[str], str | None] = shutil.which) -> list[str] | None:
    """The command that keeps the machine awake as long as its standard input is open; None if there is none.

    It ends with this process however that ends: `caffeinate -w` watches the process, and `cat` ends with its input.
    """
    if platform == "darwin":
        return ["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())]
    program = which("systemd-inhibit")
    if program is None:
        return None
    return [program, "--what=idle:sleep", "--who=rogue-hunter", "--why=watching the machine", "--mode=block", "cat"]


@contextmanager
def keep_awake(wanted: bool, warn: Callable[[str], None], command: Sequence[str] | None = None,
               spawn: Spawn = subprocess.Popen) -> Iterator[None]:
    """Keep the machine awake inside `with`, if `wanted`; a failure is reported to `warn` and otherwise ignored."""
    argv = list(command) if command is not None else inhibitor()
    child = None
    if wanted and argv is None:
        warn("cannot keep the machine awake: there is no systemd-inhibit")
    elif wanted and argv is not None:
        try:
            child = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError as error:
            warn(f"cannot keep the machine awake: {argv[0]}: {error.strerror}")
    try:
        yield
    finally:
        if child is not None:
            _end(child, warn)


def _end(child: subprocess.Popen[bytes], warn: Callable[[str], None]) -> None:
    if child.poll() not in (None, 0):
        warn(f"the command that keeps the machine awake ended, exit code {child.returncode}")
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()
    child.terminate()
    try:
        child.wait(0.5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
