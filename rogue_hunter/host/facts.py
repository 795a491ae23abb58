"""What `rh-pipe --version` prints: the facts about this machine that a bug report needs."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("click", "orjson", "sqlite-utils", "tabulate", "watchdog", "prometheus-client")


def facts(root: Path = Path("/")) -> list[str]:
    """One line for each of Python, SQLite, system, and libraries. `root` is where etc and proc are looked for."""
    lines = [f"Python {platform.python_version()} ({platform.python_implementation()})",
             f"SQLite {sqlite3.sqlite_version}",
             " ".join([platform.system(), platform.release(), platform.machine(), f"({os.cpu_count() or '?'} CPUs)"])]
    if platform.system() == "Darwin":
        lines.append(f"macOS {platform.mac_ver()[0]}")
    elif name := _distribution(root):
        lines.append(name)
    if platform.system() == "Linux":
        lines.append(f"pressure (PSI): {'yes' if _readable(root / 'proc/pressure/cpu') else 'no'}")
    return [*lines, "libraries: " + ", ".join(f"{each} {_version(each)}" for each in LIBRARIES)]


def _distribution(root: Path) -> str:
    try:
        lines = (root / "etc/os-release").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2].strip("\"'") for line in lines if line.startswith("PRETTY_NAME=")), "")


def _readable(path: Path) -> bool:
    """Reading is tried: a kernel without psi=1 has the file and refuses to read it."""
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"
