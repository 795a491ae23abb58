"""Builds and drives the fake libproc: the machine of a script behind libproc's own functions.

script.md describes the script's words. The library is built once for a test run, of C of our own, one half of it
under Apple's headers as the ziglang package bundles them; where that is not installed, `build` skips the test and says
so.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rogue_hunter.host.macos.host import DarwinHost
from rogue_hunter.host.macos.libproc import Library

SOURCE = Path(__file__).parent / "fake"

# What the headers need to know that Apple's compilers define by themselves.
APPLE = ["-D__APPLE__=1", "-D__MACH__=1", "-D__APPLE_CC__=6000", "-D__LITTLE_ENDIAN__=1", "-D_FORTIFY_SOURCE=0",
         "-D__ENVIRONMENT_MAC_OS_X_VERSION_MIN_REQUIRED__=150000"]


def zig() -> list[str]:
    """The command of zig's C compiler. Skips the test where ziglang is not installed."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: nothing of the macOS ABI was checked against Apple's headers")
    return [sys.executable, "-m", "ziglang", "cc"]


def zig_lib() -> Path:
    """zig's own files, Apple's headers and the list of libSystem's symbols among them."""
    zig()
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "lib"


def run(command: list[str]) -> None:
    """Run a compiler; its words are the failure."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@functools.cache
def build() -> Path:
    """The fake library, built in a directory of its own that the interpreter's end removes."""
    # Python keeps the directory object, so the finalizer runs at exit and not before.
    directory = _directory()
    headers = zig_lib() / "libc" / "include" / "any-darwin-any"
    arm = ["-D__arm64__=1", "-D__LP64__=1"] if platform.machine() in ("aarch64", "arm64") else []
    library = directory / "fake_libproc.so"
    if compiler := shutil.which("cc"):
        own = subprocess.run([compiler, "-print-file-name=include"], capture_output=True, text=True, check=True)
        apple = [compiler, "-nostdinc", "-isystem", str(headers), "-isystem", own.stdout.strip()]
        plain = [compiler]
    else:
        apple = [*zig(), "-target", f"{platform.machine()}-linux-none", "-nostdinc", "-isystem", str(headers),
                 "-isystem", str(zig_lib() / "include")]
        plain = zig()
    flags = ["-c", "-fPIC", "-O1", "-w"]
    objects = []
    for source, command in (("apple", [*apple, *APPLE, *arm]), ("model", plain), ("iokit", plain)):
        objects.append(str(directory / f"{source}.o"))
        run([*command, *flags, str(SOURCE / f"{source}.c"), "-o", objects[-1]])
    run([*plain, "-shared", *objects, "-o", str(library), "-lpthread"])
    return library


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _directory() -> Path:
    _kept.append(tempfile.TemporaryDirectory(prefix="fake-libproc-"))
    return Path(_kept[-1].name)


class Fake:
    """The scripted machine, with a clock that only `advance` moves unless the script says `clock=real`."""

    def __init__(self, script: str) -> None:
        self.path = str(build())
        self.handle = ctypes.CDLL(self.path)
        self.handle.fake_load.restype = self.handle.fake_problem.restype = ctypes.c_char_p
        self.handle.fake_wall.restype = ctypes.c_double
        self.handle.fake_advance.argtypes = (ctypes.c_double,)
        self.handle.fake_calls.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
        problem = self.handle.fake_load(script.encode())
        assert problem == b"", problem
        self.library = Library(self.path)

    def host(self, **options: object) -> DarwinHost:
        """A host that reads this machine, by its clocks."""
        return DarwinHost(self.library, wall=self.handle.fake_wall, **options)  # type: ignore[arg-type]

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.handle.fake_advance(seconds)

    def calls(self, function: str | None = None, pid: int = -1, beat: int = 1) -> int:
        """Calls of `function` (all) about `pid` (any): of the beat (1), of the worker (0), of both (-1)."""
        problem = self.handle.fake_problem()
        assert problem == b"", problem
        return int(self.handle.fake_calls(function.encode() if function else None, pid, beat))

    def signals(self, name: str) -> list[int]:
        """The signals that a process of the script got."""
        got = [int(self.handle.fake_signal_of(name.encode(), index)) for index in range(8)]
        return [number for number in got if number]

    def reset_calls(self) -> None:
        """Count from here."""
        self.handle.fake_reset_calls()


def environment(script: Path, **more: str) -> dict[str, str]:
    """The environment in which any rh command reads the machine of `script`."""
    return {**os.environ, "ROGUE_HUNTER_LIBPROC": str(build()), "FAKE_LIBPROC_SCRIPT": str(script), **more}
