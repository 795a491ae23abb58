"""What both service managers have in common: what they are asked, how they are run, how a file is put in place."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rogue_hunter.text.errors import RogueHunterError

TIMEOUT_S = 60.0


class ServiceError(RogueHunterError):
    """The service manager cannot do it. `code` is the exit code: 1 refused, 69 not available, 74 a file."""

    def __init__(self, message: str, code: int = 69) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Done:
    """A command that was run. `code` 127: there is none of this name."""

    code: int
    out: str
    error: str

    @property
    def words(self) -> str:
        """What it said was wrong, in a line."""
        lines = (self.error or self.out).strip().splitlines()
        return lines[0] if lines else f"exit code {self.code}"


Run = Callable[[Sequence[str]], Done]


def run_command(argv: Sequence[str]) -> Done:
    """Run a command of the system to its end."""
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
    """How the service is. `state` is a word of schema_serve.STATES; None is unknown."""

    installed: bool
    state: str
    current: bool | None = None
    enabled: bool | None = None
    pid: int | None = None
    exit_code: int | None = None
    says: str | None = None


class Manager(Protocol):
    """systemd or launchd. Every method raises ServiceError; the texts that methods give say what was done."""

    kind: str
    name: str
    file: Path

    def text(self) -> bytes:
        """The file that describes the service."""
        ...

    def arguments(self) -> list[str]:
        """What the installed file gives rh-pipe, behind --quiet."""
        ...

    def install(self) -> list[str]:
        """Write the file, have the service start now and at login. Doing it twice is doing it once."""
        ...

    def uninstall(self) -> list[str]:
        """Stop the service and remove the file. Nothing to do is no error."""
        ...

    def start(self) -> list[str]:
        """Start it."""
        ...

    def stop(self) -> list[str]:
        """Stop it and wait for its end; it stays installed."""
        ...

    def restart(self) -> list[str]:
        """Stop and start it."""
        ...

    def state(self) -> State:
        """How it is."""
        ...


def put(file: Path, text: bytes, mark: bytes) -> bool:
    """Write a file that others may read, whole or not at all; False when it is there like this already.

    A file without `mark` was written by somebody else and is not written over. Raises ServiceError.
    """
    before = read(file)
    if before == text:
        return False
    if before is not None and mark not in before:
        raise ServiceError(f"{file}: was not written by rh-service; move it away first", 1)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            with open(fd, "wb") as out:
                out.write(text)
                out.flush()
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            os.replace(beside, file)
        finally:
            with suppress(FileNotFoundError):
                beside.unlink()
    except OSError as error:
        raise ServiceError(f"{file}: {error.strerror}", 74) from None
    return True


def take_away(file: Path, mark: bytes) -> bool:
    """Remove a file of ours; False when there is none. Raises ServiceError for somebody else's."""
    before = read(file)
    if before is None:
        return False
    if mark not in before:
        raise ServiceError(f"{file}: was not written by rh-service; it is left alone", 1)
    try:
        file.unlink()
    except OSError as error:
        raise ServiceError(f"{file}: {error.strerror}", 74) from None
    return True


def read(file: Path) -> bytes | None:
    """The file's bytes, None when there is none. Raises ServiceError."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServiceError(f"{file}: {error.strerror}", 74) from None
