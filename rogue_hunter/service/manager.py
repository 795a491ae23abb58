"""What systemd and launchd share: the command line of the service, its environment, its state, files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rogue_hunter
from rogue_hunter import files
from rogue_hunter.text.errors import RogueHunterError

XDG = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
"""Usually set in the profile of a shell, which a service manager does not read."""


QUIET = "--quiet"
"""The arguments after this option were chosen at the installation."""


@dataclass(frozen=True, slots=True)
class Program:
    """`argv` begins with an absolute path. `environment`: the variables that the manager sets. `name`: the command."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    name: str = "rh-pipe"

    @property
    def short(self) -> str:
        """The name without rh-."""
        return self.name.removeprefix("rh-")


PROGRAMS = {"rh-pipe": [QUIET], "rh-ship": [], "rh-hub": ["run"]}
"""The commands that can be a service -> their first arguments."""


def chosen(words: Sequence[str], name: str) -> list[str]:
    """The arguments in a command line of a service that were chosen at the installation."""
    if name == "rh-pipe":
        return list(words[words.index(QUIET) + 1:]) if QUIET in words else []
    return list(words[(1 if Path(words[0]).name == name else 5) + len(PROGRAMS[name]):])


def program(arguments: Sequence[str] = (), environment: Mapping[str, str] = os.environ,
            name: str = "rh-pipe") -> Program:
    """A command as a service, with these arguments: rh-pipe --quiet, rh-ship, rh-hub run.

    In a checkout it is started by the launcher in bin/ (which repairs its environment), otherwise by the script in the
    directory of the interpreter, otherwise by the interpreter itself.
    """
    places = tuple((name, environment[name]) for name in XDG if environment.get(name, "").startswith("/"))
    return Program((*command_line(name), *PROGRAMS[name], *arguments), places, name)


def command_line(name: str) -> list[str]:
    """The command line of rh-NAME of this installation, independent of PATH. The first word is an absolute path."""
    package = Path(rogue_hunter.__file__).resolve().parent
    for place in (package.parent / "bin" / name, Path(sys.executable).parent / name):
        if place.is_file() and os.access(place, os.X_OK):
            return [str(place)]
    return [sys.executable, "-P", "-m", "rogue_hunter", name.removeprefix("rh-")]


TIMEOUT_S = 60.0


class ServiceError(RogueHunterError):
    """A request that the service manager cannot follow. `code`: 1 refused, 69 not available, 74 a file."""

    def __init__(self, message: str, code: int = 69) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a command. `code` 127: command not found."""

    code: int
    out: str
    error: str

    @property
    def words(self) -> str:
        """Its error in one line."""
        lines = (self.error or self.out).strip().splitlines()
        return lines[0] if lines else f"exit code {self.code}"


Run = Callable[[Sequence[str]], Done]


def run_command(argv: Sequence[str]) -> Done:
    """Run a command of the system and wait for its exit, at most TIMEOUT_S seconds."""
    try:
        done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        return Done(127, "", f"{argv[0]}: not found")
    except subprocess.TimeoutExpired:
        return Done(124, "", f"{argv[0]}: took longer than {TIMEOUT_S:g} s")
    except OSError as error:
        return Done(126, "", f"{argv[0]}: {error.strerror}")
    return Done(done.returncode, done.stdout.decode("utf-8", "backslashreplace"),
                done.stderr.decode("utf-8", "backslashreplace"))


@dataclass(frozen=True, slots=True)
class State:
    """The state of the service. `state` is one of schema.daemon.STATES; None is unknown."""

    installed: bool
    state: str
    current: bool | None = None
    enabled: bool | None = None
    pid: int | None = None
    exit_code: int | None = None
    says: str | None = None
    signal: str | None = None
    exit_reason: str | None = None
    runs: int | None = None


def write_file(file: Path, text: bytes, mark: bytes) -> bool:
    """Write a world-readable file atomically; False if it already has this content.

    A file without `mark` was not written by rh-service and is never overwritten. Raises ServiceError.
    """
    before = read(file)
    if before == text:
        return False
    if before is not None and mark not in before:
        raise ServiceError(f"{file}: was not written by rh-service; move it away first", 1)
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.replace(file, text, mode=0o644)
    except OSError as error:
        raise ServiceError(f"{file}: {error.strerror}", 74) from None
    return True


def remove_file(file: Path, mark: bytes) -> bool:
    """Remove a file; False if it does not exist. Raises ServiceError for a file without `mark`."""
    if not ours(file, mark):
        return False
    try:
        file.unlink()
    except OSError as error:
        raise ServiceError(f"{file}: {error.strerror}", 74) from None
    return True


def ours(file: Path, mark: bytes) -> bool:
    """True if a file exists and has `mark`; raises ServiceError if it exists without."""
    before = read(file)
    if before is not None and mark not in before:
        raise ServiceError(f"{file}: was not written by rh-service and is not removed", 1)
    return before is not None


def read(file: Path) -> bytes | None:
    """The bytes of a file; None if it does not exist. Raises ServiceError."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServiceError(f"{file}: {error.strerror}", 74) from None
