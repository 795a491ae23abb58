"""The capturer of this platform, and a child process, rh-capture, that makes captures so that the beat is not delayed.

Python runs one thread at a time. A thread that parses a report of 9 MB gives way after 5 ms; the sampler gives way at
each of its system calls, a hundred a tick, and would wait 5 ms after each: measured on 2 shared cores, the median
lateness at 10 Hz went from 0.1 to 8 ms while such a thread ran. A process costs 20 MB while it lives.

The child starts with the first request and is kept: it answers the next request without starting Python, which
matters on a machine that thrashes. A request is one line of JSON on its standard input. The answer on its standard
output is a line for each record, a line with the CPU time that the child has used, and an empty line. The child exits
at the end of its input.
"""

from __future__ import annotations

import os
import resource
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import rogue_hunter
from rogue_hunter.capture.command import CHUNK, Spawn
from rogue_hunter.capture.request import Capturer, Parts, Request, Target, capture_record, new_capture_key
from rogue_hunter.config.options import Forensics
from rogue_hunter.host.platform import here
from rogue_hunter.stream.tick import Record

ANSWER_LIMIT = 1 << 27
NICENESS = 5
"""Added to the nice value of the child: it gets a third of the CPU time of a competitor and does not delay the beat on
a core that both run on."""
GRACE_S = 10.0
"""Seconds added to the timeout of a capture, for the start of Python on a machine that stalls."""
COMMAND = "rh-capture"
"""The child's name in ps, top and rh-report; a thread name of Linux has 15 characters."""


def capturer(settings: Forensics | None = None) -> Capturer:
    """The function that makes captures on this platform."""
    mine = settings or Forensics()
    if sys.platform == "darwin":
        from rogue_hunter.capture.macos import capture_macos

        return lambda request, cancel: capture_macos(request, cancel, settings=mine)
    from rogue_hunter.capture.linux.capture import capture_linux

    return lambda request, cancel: capture_linux(request, cancel, settings=mine)


def capture_now(pids: Sequence[int], settings: Forensics) -> tuple[list[Record], list[int]]:
    """The records of a capture of these processes, the first one as culprit, and the pids that do not exist.

    Without pids the capturer chooses processes itself; if none of the pids exists, there are no records.
    """
    host = here()
    try:
        boot_id, rows = host.facts().boot_id, host.snapshot().processes
    finally:
        host.close()
    known = {key[0]: Target(key, str(row.get("command") or "")) for key, row in rows.items()}
    found = [known[pid] for pid in dict.fromkeys(pids) if pid in known]
    missing = [pid for pid in pids if pid not in known]
    if missing and not found:
        return [], missing
    now = time.time()
    targets = tuple(each if i == 0 else replace(each, role="rogue") for i, each in enumerate(found))
    request = Request(new_capture_key(now), now, "manual", targets, boot_id=boot_id)
    return capturer(settings)(request, threading.Event()), missing


def request_line(request: Request, settings: Forensics) -> bytes:
    """The line that the child reads for one request."""
    from rogue_hunter.stream.wire import dumps

    fields: dict[str, Any] = {"capture": request.capture, "ts": request.ts, "trigger": request.trigger,
                              "event": request.event, "pause": request.pause, "boot_id": request.boot_id,
                              "targets": [[*t.key, t.command, t.role] for t in request.targets]}
    return dumps({"request": fields, "settings": asdict(settings)}) + b"\n"


def parse_request(line: bytes) -> tuple[Request, Forensics]:
    """The request and settings of a line of request_line. Raises ValueError, KeyError or TypeError for others."""
    from rogue_hunter.stream.wire import loads

    value = loads(line)
    fields = dict(value["request"])
    fields["targets"] = tuple(Target((t[0], t[1]), t[2], t[3]) for t in fields["targets"])
    return Request(**fields), Forensics(**value["settings"])


def serve(source: BinaryIO, sink: BinaryIO, make: Callable[[Forensics], Capturer] = capturer) -> None:
    """Run the child: answer each request line of `source` until the input ends."""
    from rogue_hunter.stream.wire import dumps

    for line in source:
        request, settings = parse_request(line)
        records = make(settings)(request, threading.Event())
        sink.writelines(dumps(each) + b"\n" for each in records)
        sink.write(dumps(sum(_cpu_seconds(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))) + b"\n\n")
        sink.flush()


def _cpu_seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


class CaptureProcess:
    """A Capturer that makes its captures in a child process. Use it as a context: the child ends with it.

    `settings` are those of the next capture. `cpu_seconds`: the CPU time that its children have used so far.
    """

    def __init__(self, settings: Forensics, *, argv: list[str] | None = None, spawn: Spawn = subprocess.Popen,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """`argv`: the command of the child (default: this Python, this module)."""
        self.settings = settings
        self._argv = argv or [sys.executable, "-m", "rogue_hunter.capture.worker"]
        self._spawn = spawn
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._child_cpu_s = 0.0
        self._ended_cpu_s = 0.0
        self._lock = threading.Lock()

    @property
    def cpu_seconds(self) -> float:
        """Of children that ended, and of the running child up to its last answer."""
        return self._ended_cpu_s + self._child_cpu_s

    def __enter__(self) -> CaptureProcess:
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
                *records, self._child_cpu_s = [loads(line) for line in answer.split(b"\n") if line]
            except (OSError, ValueError) as error:
                self._stop()
                # Killed, crashed or too late: a failed capture. The next request starts another child.
                return [capture_record(request, Parts({}, [f"no capture: {error}"]), sys.platform, 0.0, ())]
            return records

    def close(self) -> None:
        """End the child, and with it a capture that is being made."""
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
        """Write the request, read the answer. Raises OSError when the child exits, is late, or `cancel` is set."""
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
                    raise OSError("the process that makes captures exited" if not data else "the answer is too long")
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
                except OSError:  # a request that could not be flushed
                    continue
        before = _cpu_seconds(resource.RUSAGE_CHILDREN)
        child.wait()
        self._ended_cpu_s += max(self._child_cpu_s, _cpu_seconds(resource.RUSAGE_CHILDREN) - before)
        self._child_cpu_s = 0.0


def set_command(name: str) -> None:
    """Set the name of this process in ps and top. Linux only; elsewhere the name stays that of Python."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


if __name__ == "__main__":
    os.nice(NICENESS)
    set_command(COMMAND)
    serve(sys.stdin.buffer, sys.stdout.buffer)
