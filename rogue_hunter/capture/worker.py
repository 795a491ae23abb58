"""Captures made by a process of its own, so that the beat does not feel them.

Python runs one thread at a time. A thread that parses 9 MB of report gives way after 5 ms; the sampler gives way at
each of its system calls, a hundred a tick, and would wait 5 ms after each: measured on 2 shared cores, the median
lateness at 10 Hz went from 0.1 to 8 ms while such a thread ran. A process of its own costs 20 MB while it lives.

It is started with the first request and kept: the next one finds it warm, which matters on a machine that thrashes.
A request is one line of JSON on its standard input, an answer a line for each record and an empty one on its standard
output: read line by line, it never keeps the interpreter from the beat for long. When its input ends, so does it.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import rogue_hunter
from rogue_hunter.capture.command import CHUNK, Spawn
from rogue_hunter.capture.platform import capturer
from rogue_hunter.capture.request import Capturer, Parts, Request, Target, capture_record
from rogue_hunter.capture.settings import ForensicsSettings
from rogue_hunter.stream.tick import Record

ANSWER_LIMIT = 1 << 27
NICENESS = 5
"""What a capture gives way by: a third of the CPU time of one who competes with it, and it does not hold up the beat on
a core that both of them are on."""
GRACE_S = 10.0
"""Seconds that an answer may come later than the timeout of a capture: starting Python on a machine that stalls."""


def request_line(request: Request, settings: ForensicsSettings) -> bytes:
    """One request as the child reads it."""
    from rogue_hunter.stream.wire import dumps

    fields: dict[str, Any] = {"capture": request.capture, "ts": request.ts, "trigger": request.trigger,
                              "event": request.event, "pause": request.pause, "boot_id": request.boot_id,
                              "targets": [[*t.key, t.command, t.role] for t in request.targets]}
    return dumps({"request": fields, "settings": asdict(settings)}) + b"\n"


def parse_request(line: bytes) -> tuple[Request, ForensicsSettings]:
    """The inverse of request_line. Raises ValueError, KeyError or TypeError for anything else."""
    from rogue_hunter.stream.wire import loads

    value = loads(line)
    fields = dict(value["request"])
    fields["targets"] = tuple(Target((t[0], t[1]), t[2], t[3]) for t in fields["targets"])
    return Request(**fields), ForensicsSettings(**value["settings"])


def serve(source: BinaryIO, sink: BinaryIO, make: Callable[[ForensicsSettings], Capturer] = capturer) -> None:
    """The child: answer each request with its records, a line each, and an empty line, until the input ends."""
    from rogue_hunter.stream.wire import dumps

    for line in source:
        request, settings = parse_request(line)
        records = make(settings)(request, threading.Event())
        sink.writelines(dumps(each) + b"\n" for each in records)
        sink.write(b"\n")
        sink.flush()


class Beside:
    """A Capturer whose captures are made by a child process; a context that ends it."""

    def __init__(self, settings: ForensicsSettings, *, argv: list[str] | None = None, spawn: Spawn = subprocess.Popen,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """`argv` is the command of the child (default: this Python, this package)."""
        self.settings = settings
        """What the next capture is made by."""
        self._argv = argv or [sys.executable, "-m", "rogue_hunter.capture.worker"]
        self._spawn = spawn
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __call__(self, request: Request, cancel: threading.Event) -> list[Record]:
        from rogue_hunter.stream.wire import loads

        with self._lock:
            try:
                child = self._running()
                answer = self._ask(child, request_line(request, self.settings), cancel)
                records: list[Record] = [loads(line) for line in answer.split(b"\n") if line]
            except (OSError, ValueError) as error:
                self._stop()
                # Cut off, dead, or no answer: said as a capture that brought nothing; the next request starts anew.
                return [capture_record(request, Parts({}, [f"no capture: {error}"]), sys.platform, 0.0, ())]
            return records

    def close(self) -> None:
        """End the child. A capture under way is given up."""
        child = self._child
        if child is not None and child.poll() is None:
            child.kill()
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._stop()
        if self._child is None:
            # The package may have been found by a path that the environment does not name.
            home = str(Path(rogue_hunter.__file__).resolve().parent.parent)
            path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
            self._child = self._spawn(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
                                      start_new_session=True)
        return self._child

    def _ask(self, child: subprocess.Popen[bytes], line: bytes, cancel: threading.Event) -> bytes:
        """Write one line, read up to an empty one. Raises OSError when the child ends, is late, or nobody waits any
        more."""
        assert child.stdin is not None and child.stdout is not None  # noqa: S101 - made with pipes
        child.stdin.write(line)
        child.stdin.flush()
        deadline = self._clock() + self.settings.timeout_s + GRACE_S
        parts: list[bytes] = []
        size = 0
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while not b"".join(parts[-2:]).endswith(b"\n\n"):
                if cancel.is_set():
                    raise OSError("cancelled")
                if self._clock() > deadline:
                    raise OSError(f"no answer within {self.settings.timeout_s + GRACE_S:g} s")
                if not selector.select(0.2):
                    continue
                data = os.read(child.stdout.fileno(), CHUNK)
                size += len(data)
                if not data or size > ANSWER_LIMIT:
                    raise OSError("the process that makes captures ended" if not data else "an answer without end")
                parts.append(data)
        return b"".join(parts)

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            child.kill()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was still to be written to it
                    continue
        child.wait()


if __name__ == "__main__":
    os.nice(NICENESS)
    serve(sys.stdin.buffer, sys.stdout.buffer)
