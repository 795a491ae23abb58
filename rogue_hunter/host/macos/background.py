"""Work that must not hold the beat, in a thread of its own: the beat hands out jobs and picks up what is done."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

MAX_WAITING = 20_000
"""Jobs kept for a worker that hangs. Beyond it they are refused and counted as errors."""


class Done(NamedTuple):
    """One finished job: what kind, for whom, and the answer (None: cannot be known). `failed` is a bug or an
    unforeseen answer, counted in the record."""

    kind: str
    subject: Any
    value: Any
    failed: bool = False


class OffBeat:
    """One worker thread: jobs in, answers out, in order."""

    def __init__(self, on_start: Callable[[], object] | None = None) -> None:
        self._jobs: SimpleQueue[tuple[str, Any, Callable[[Any], Any]] | None] = SimpleQueue()
        self._done: deque[Done] = deque()
        self._on_start = on_start
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._waiting = 0
        self._lock = threading.Lock()

    def submit(self, kind: str, subject: Any, job: Callable[[Any], Any]) -> bool:
        """Have `job(subject)` run. False when too many wait already."""
        with self._lock:
            if self._waiting >= MAX_WAITING:
                return False
            self._waiting += 1
            self._idle.clear()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="rogue-hunter-offbeat", daemon=True)
            with contextlib.suppress(RuntimeError):  # none to be had now: the job waits for the next that is submitted
                thread.start()
                self._thread = thread
        self._jobs.put((kind, subject, job))
        return True

    def collect(self) -> list[Done]:
        """The answers since the last call."""
        answers = []
        with contextlib.suppress(IndexError):
            while True:
                answers.append(self._done.popleft())
        return answers

    def wait(self, seconds: float) -> bool:
        """Wait until every job is done, at most so long."""
        return self._thread is None or self._idle.wait(seconds)

    def close(self) -> None:
        """Let the thread end after the job it is at; a job that hangs is left behind (the thread is a daemon)."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(1.0)
            self._thread = None

    def _run(self) -> None:
        if self._on_start is not None:
            self._on_start()
        while (item := self._jobs.get()) is not None:
            kind, subject, job = item
            try:
                answer = Done(kind, subject, job(subject))
            except Exception:  # whatever a hostile process or a strange machine makes fail must not end the thread
                answer = Done(kind, subject, None, failed=True)
            self._done.append(answer)
            with self._lock:
                self._waiting -= 1
                if self._waiting == 0:
                    self._idle.set()
