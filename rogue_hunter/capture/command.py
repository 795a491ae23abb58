"""Run a command with a time limit and an output limit."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import IO

CHUNK = 1 << 16
ERROR_LIMIT = 4096
GRACE_S = 0.5
"""Seconds between SIGTERM and SIGKILL for a command that took too long."""

Spawn = Callable[..., "subprocess.Popen[bytes]"]


def _temporary() -> IO[bytes]:
    import tempfile  # with random numbers and three libraries for compression: 0.9 MB of memory

    return tempfile.TemporaryFile()


@dataclass(slots=True)
class Outcome:
    """The end of a command. status: ok, failed (exit code not 0), timeout, cancelled, limit (stopped because it printed
    too much), unavailable (no such command), denied (no permission to run it)."""

    status: str = "ok"
    code: int | None = None
    error: str = ""
    printed: int = 0


@dataclass(slots=True)
class Command:
    """One command to run once: iterate over `lines()`, then read `outcome`. `given` is its standard input."""

    argv: Sequence[str]
    timeout_s: float
    limit_bytes: int = 1 << 26
    cancel: threading.Event | None = None
    spawn: Spawn = subprocess.Popen
    clock: Callable[[], float] = time.monotonic
    given: bytes = b""
    outcome: Outcome = field(default_factory=Outcome)

    def lines(self, max_line: int = 1 << 20) -> Iterator[bytes]:
        """Lines of the command's standard output with their line feeds; a line of more than `max_line` bytes is split.
        At the end of the iteration the command has exited, or was killed."""
        held = b""
        for chunk in self._chunks():
            *whole, held = (held + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
            if len(held) > max_line:
                yield held
                held = b""
        if held:
            yield held

    def run(self) -> bytes:
        """Everything that it prints."""
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        try:
            with _temporary() if self.given else nullcontext(subprocess.DEVNULL) as source:
                if not isinstance(source, int):
                    source.write(self.given)
                    source.seek(0)
                child = self.spawn(list(self.argv), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True, close_fds=True)
        except FileNotFoundError:
            self.outcome = Outcome("unavailable", error=f"{self.argv[0]}: not found")
            return
        except PermissionError:
            self.outcome = Outcome("denied", error=f"{self.argv[0]}: permission denied")
            return
        except OSError as error:
            self.outcome = Outcome("failed", error=f"{self.argv[0]}: {error.strerror}")
            return
        try:
            yield from self._read(child)
        finally:
            self._end(child)

    def _read(self, child: subprocess.Popen[bytes]) -> Iterator[bytes]:
        deadline = self.clock() + self.timeout_s
        errors = b""
        with selectors.DefaultSelector() as selector:
            for stream in (child.stdout, child.stderr):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                left = deadline - self.clock()
                if left <= 0:
                    self.outcome.status = "timeout"
                    return
                if self.cancel is not None and self.cancel.is_set():
                    self.outcome.status = "cancelled"
                    return
                for key, _ in selector.select(min(left, 0.2)):
                    file: IO[bytes] = key.fileobj  # type: ignore[assignment]
                    data = os.read(file.fileno(), CHUNK)
                    if not data:
                        selector.unregister(file)
                    elif file is child.stderr:
                        errors = (errors + data)[:ERROR_LIMIT]
                        self.outcome.error = errors.decode("utf-8", "backslashreplace").strip()
                    else:
                        self.outcome.printed += len(data)
                        yield data
                        if self.outcome.printed > self.limit_bytes:
                            self.outcome.status = "limit"
                            return
        # Both ends are closed, but the command itself may still run.
        try:
            child.wait(max(0.01, deadline - self.clock()))
        except subprocess.TimeoutExpired:
            self.outcome.status = "timeout"

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        for stop in (signal.SIGTERM, signal.SIGKILL):
            if child.poll() is not None:
                break
            with suppress(ProcessLookupError, PermissionError):
                # Its own session: its children are signalled too. It is not reaped yet, so its pid is not reused.
                os.killpg(child.pid, stop)
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                continue
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
        self.outcome.code = child.poll()
        if self.outcome.code is None:
            # sudo runs as root and cannot be signalled: a thread waits for it, so that the capture need not.
            threading.Thread(target=child.wait, name="rh-forensics-reap", daemon=True).start()
        elif self.outcome.code != 0 and self.outcome.status == "ok":
            self.outcome.status = "failed"


def first_words(outcome: Outcome, limit: int = 200) -> str:
    """The first line of the command's standard error, or its exit code."""
    words = outcome.error.splitlines()[0] if outcome.error else ""
    return words[:limit] or f"exit code {outcome.code}"


def part_status(outcome: Outcome) -> str:
    """The outcome as the status of a part of a capture."""
    return {"ok": "ok", "limit": "partial", "cancelled": "failed"}.get(outcome.status, outcome.status)


RunCommand = Callable[[Sequence[str], float, int, "threading.Event | None"], Command]


def default_runner(spawn: Spawn = subprocess.Popen) -> RunCommand:
    """A function that makes Commands which use `spawn`."""
    def make(argv: Sequence[str], timeout_s: float, limit_bytes: int, cancel: threading.Event | None) -> Command:
        return Command(argv, timeout_s, limit_bytes, cancel, spawn)

    return make
