"""The frames of a Python process, by py-spy where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
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
