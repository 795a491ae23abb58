"""A case is a function that provokes something and says what it saw; AssertionError: it is not what was expected."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tools import forked

REPO = Path(__file__).resolve().parents[2]
SEED = 20_310_716
"""Of every random choice in every case."""


class Skip(Exception):
    """The case cannot be tried on this machine; the text says why."""


@dataclass
class Bench:
    """What a case works with: a directory of its own, processes that do not outlive it, and how long it may take."""

    tmp: Path
    long: bool = False
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """An environment whose home is this case's, with this checkout in it."""
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "TZ", "COVERAGE_PROCESS_CONFIG")}
        home = self.tmp / "home"
        home.mkdir(exist_ok=True)
        return {**kept, "HOME": str(home), "PYTHONPATH": str(REPO)}

    def command(self, name: str, *args: str | Path) -> list[str]:
        """The command line of `rh-NAME`."""
        return [sys.executable, "-P", "-m", "rogue_hunter", name, *map(str, args)]

    def rh(self, name: str, *args: str | Path, stdin: bytes = b"", prefix: Sequence[str] = (), timeout: float = 120,
           env: Mapping[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `rh-NAME` to its end."""
        if not prefix and not options:
            return forked.run([name, *args], {**self.env, **(env or {})}, stdin, timeout)
        return subprocess.run([*prefix, *self.command(name, *args)], input=stdin, capture_output=True, check=False,
                              timeout=timeout, env={**self.env, **(env or {})}, **options)

    def start(self, args: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process that is killed, by its own id, when the case is over."""
        options.setdefault("env", self.env)
        process = forked.popen([*map(str, args)], **options)
        self.started.append(process)
        return process

    def close(self) -> None:
        """End what was started."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(30)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@dataclass(frozen=True)
class Case:
    """`run` gives what was seen, in a few words."""

    name: str
    expected: str
    run: Callable[[Bench], str]
    long_only: bool = False


CASES: dict[str, Case] = {}


def case(name: str, expected: str, *, long_only: bool = False) -> Callable[[Callable[[Bench], str]], Any]:
    """Put a function into the table."""
    def add(run: Callable[[Bench], str]) -> Callable[[Bench], str]:
        assert name not in CASES, name
        CASES[name] = Case(name, expected, run, long_only)
        return run
    return add


@contextmanager
def bench(long: bool = False, directory: Path | None = None) -> Iterator[Bench]:
    """A bench in a directory of its own, in memory where that is possible: there are thousands of small databases."""
    place = directory or (Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
    made = Bench(Path(tempfile.mkdtemp(prefix="rh-faults-", dir=place)), long)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(made.tmp, ignore_errors=True)


def clean(err: bytes, *, lines: int | None = None) -> None:
    """Assert that standard error holds words for people and no traceback."""
    assert b"Traceback" not in err, err.decode("utf-8", "replace")[-2000:]
    if lines is not None:
        assert err.count(b"\n") == lines, err
