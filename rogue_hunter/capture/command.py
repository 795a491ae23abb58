"""Running a command that may be slow, may hang, may print without end: bounded in time and in bytes."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

CHUNK = 1 << 16
ERROR_LIMIT = 4096
GRACE_S = 0.5
"""Seconds between the polite and the final signal to a command that took too long."""

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@dataclass(slots=True)
class Outcome:
    """How a command ended. status: ok, failed (it said so), timeout, cancelled, limit (it printed too much and was
    stopped), unavailable (there is no such command), denied (it may not be run)."""

    status: str = "ok"
    code: int | None = None
    error: str = ""
    printed: int = 0


@dataclass(slots=True)
class Command:
    """One command to run once: iterate over `lines()`, then look at `outcome`."""

    argv: Sequence[str]
    timeout_s: float
    limit_bytes: int = 1 << 26
    cancel: threading.Event | None = None
    spawn: Spawn = subprocess.Popen
    clock: Callable[[], float] = time.monotonic
    outcome: Outcome = field(default_factory=Outcome)

    def lines(self, max_line: int = 1 << 20) -> Iterator[bytes]:
        """Lines of the command's standard output with their line feeds; a line beyond `max_line` bytes is cut in
        pieces. The command is over when this is: ended, or stopped and its end not waited for any longer."""
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
        """All that it prints."""
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        try:
            child = self.spawn(list(self.argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True, close_fds=True)
        except FileNotFoundError:
            self.outcome = Outcome("unavailable", error=f"{self.argv[0]}: not found")
            return
        except PermissionError:
            self.outcome = Outcome("denied", error=f"{self.argv[0]}: may not be run")
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
        # Both ends are closed; the command itself may still take a moment, or for ever.
        try:
            child.wait(max(0.01, deadline - self.clock()))
        except subprocess.TimeoutExpired:
            self.outcome.status = "timeout"

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        for stop in (signal.SIGTERM, signal.SIGKILL):
            if child.poll() is not None:
                break
            with suppress(ProcessLookupError, PermissionError):
                # Its own session: what it started goes with it. It is not reaped yet, so the number is still its own.
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
            # sudo runs as root and may not be signalled: somebody has to wait for it, but not the capture.
            threading.Thread(target=child.wait, name="rh-forensics-reap", daemon=True).start()
        elif self.outcome.code != 0 and self.outcome.status == "ok":
            self.outcome.status = "failed"


def first_words(outcome: Outcome, limit: int = 200) -> str:
    """The first line that the command said on standard error, or its exit code."""
    words = outcome.error.splitlines()[0] if outcome.error else ""
    return words[:limit] or f"exit code {outcome.code}"


def part_status(outcome: Outcome) -> str:
    """The outcome in the words of a capture's parts."""
    return {"ok": "ok", "limit": "partial", "cancelled": "failed"}.get(outcome.status, outcome.status)


RunCommand = Callable[[Sequence[str], float, int, "threading.Event | None"], Command]


def default_runner(spawn: Spawn = subprocess.Popen) -> RunCommand:
    """Makes Commands that use `spawn`."""
    def make(argv: Sequence[str], timeout_s: float, limit_bytes: int, cancel: threading.Event | None) -> Command:
        return Command(argv, timeout_s, limit_bytes, cancel, spawn)

    return make
