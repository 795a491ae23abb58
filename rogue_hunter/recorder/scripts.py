"""Where a script is: the frames of a Python process, by py-spy where it is installed, and the line of a bash script, by
how far the bash has read the file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rogue_hunter.stream import wire

DUMP_S = 3.0
FRAMES_MAX = 60
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*[a-z]*$")

Run = Callable[[Sequence[str], float], bytes]


def _run(argv: Sequence[str], seconds: float) -> bytes:
    """The output of a command; empty if it fails or is late."""
    try:
        done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=seconds, check=False)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == 0 else b""


def is_python(exe: str) -> bool:
    """True for the path of an interpreter of Python."""
    return _PYTHON.search(exe.removesuffix(" (deleted)")) is not None


def python_frames(pid: int, exe: str, run: Run = _run, found: str | None = None) -> list[str]:
    """The frames of its busiest thread now, outermost first, as `function (file:line)`; empty without py-spy.

    The process is not stopped for it. `found`: the path of py-spy (default: as PATH has it).
    """
    spy = found or shutil.which("py-spy")
    if not is_python(exe) or spy is None:
        return []
    return parse_dump(run([spy, "dump", "--json", "--nonblocking", "--pid", str(pid)], DUMP_S))


def parse_dump(data: bytes) -> list[str]:
    """The frames of the first thread that runs, else of the first thread, of `py-spy dump --json`."""
    try:
        threads = wire.loads(data)
        running = [each for each in threads if each.get("active")] or threads
        return [_frame(each) for each in running[0]["frames"][:FRAMES_MAX]][::-1]
    except (ValueError, TypeError, LookupError, AttributeError):
        return []


def _frame(frame: Any) -> str:
    file = str(frame.get("short_filename") or frame.get("filename") or "?").rpartition("/")[2]
    return f"{frame.get('name') or '?'} ({file}:{frame.get('line') or '?'})"


def record_command(pid: int, exe: str, seconds: float, hz: int) -> list[str] | None:
    """The command that prints the collapsed stacks of a Python process over some time; None without py-spy."""
    spy = shutil.which("py-spy")
    if spy is None or not is_python(exe):
        return None
    return [spy, "record", "--format", "raw", "--nonblocking", "--output", "/dev/stdout", "--rate", str(hz),
            "--duration", str(max(1, round(seconds))), "--pid", str(pid)]


def exe_of(pid: int, root: Path = Path("/proc")) -> str:
    """The path of its program; empty if it cannot be read."""
    try:
        return str((root / str(pid) / "exe").readlink())
    except OSError:
        return ""


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
