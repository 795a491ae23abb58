"""The benchmark's C programs, compiled where they are needed: the sources are what is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent


class BuildError(Exception):
    """No compiler, or it refused the source; the text says which."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the compiled programs."""

    floor: Path
    load: Path
    isolate: Path


def compiler() -> str | None:
    """The C compiler that will be used: $CC, cc or gcc; None where there is none."""
    wanted = os.environ.get("CC")
    return shutil.which(wanted) if wanted else shutil.which("cc") or shutil.which("gcc")


def _compile(name: str, target: Path, *flags: str) -> Path:
    cc = compiler()
    if cc is None:
        raise BuildError("no C compiler found (cc, gcc or $CC): the floor and the loads are compiled on the spot")
    command = [cc, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", *flags, "-o", str(target),
               str(HERE / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{name}.c: {done.stderr.strip() or f'compiler ended with {done.returncode}'}")
    return target


def build(directory: Path) -> Tools:
    """Compile all programs into `directory`. Raises BuildError."""
    floor, load, isolate = (_compile(name, directory / name) for name in ("floor", "load", "isolate"))
    return Tools(floor, load, isolate)


def build_library(directory: Path, name: str) -> Path:
    """Compile a shared library into `directory`. Raises BuildError."""
    return _compile(name, directory / f"{name}.so", "-shared", "-fPIC")
