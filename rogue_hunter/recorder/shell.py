"""Which line of its script a bash reached, by how far it has read the file."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

SCRIPT_FD = 255
"""The descriptor from which bash reads its script (shell.c, open_shell_script)."""
BLOCK = 8192
"""Bash reads a script in such blocks at most (input.c), and moves back to the end of the command that it runs before it
starts a process."""
SCRIPT_BYTES = 1 << 20
_POSITION = re.compile(rb"pos:\t(\d{1,19})\n")


def script_line(pid: int, exe: str, root: Path = Path("/proc")) -> str | None:
    """`script.sh (read to line 7)` of a bash that runs a script; None where that cannot be known: another program, no
    permission, or a position that is only the end of a block or of the file, because the commands that run start no
    process."""
    if exe.rpartition("/")[2] != "bash":
        return None
    folder = root / str(pid)
    with suppress(OSError, ValueError):
        if str((folder / "exe").readlink()) != exe:     # the process has exited, and its pid is another's
            return None
        name = (folder / f"fd/{SCRIPT_FD}").readlink().name
        match = _POSITION.match((folder / f"fdinfo/{SCRIPT_FD}").read_bytes())
        fd = os.open(folder / f"fd/{SCRIPT_FD}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = os.pread(fd, SCRIPT_BYTES, 0)
        finally:
            os.close(fd)
        at = int(match[1]) if match else 0
        lines = data.count(b"\n", 0, at)
        if 0 < at < len(data) and at % BLOCK and data[at - 1:at] == b"\n":
            return f"{name} (read to line {lines})"
    return None
