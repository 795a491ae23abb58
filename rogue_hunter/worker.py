"""A background thread with a bounded queue: the beat submits jobs and collects the results later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Worker(Generic[Job, Result]):
    """Runs `work(job)` for each job, one after the other, in a daemon thread that the first job starts.

    No method blocks except `wait` and `close`. At most `limit` jobs wait; further ones are refused and counted in
    `refused`. An exception of `work` ends that job only: it is counted in `failed` and returned by `failures`.
    """

    def __init__(self, name: str, work: Callable[[Job], Result], *, limit: int = 1000,
                 on_start: Callable[[], object] | None = None) -> None:
        """`on_start` runs first in the thread."""
        self.refused = 0
        self.failed = 0
        self._name = name
        self._work = work
        self._limit = limit
        self._on_start = on_start
        self._jobs: deque[Job] = deque()
        self._results: deque[Result] = deque()
        self._failures: deque[tuple[Job, Exception]] = deque(maxlen=limit)
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def pending(self) -> int:
        """Jobs that wait or run."""
        with self._changed:
            return len(self._jobs) + self._busy

    def submit(self, job: Job) -> bool:
        """Queue a job; False when it is refused because too many wait or the worker is closed."""
        with self._changed:
            if self._closed or len(self._jobs) >= self._limit:
                self.refused += 1
                return False
            self._jobs.append(job)
            self._changed.notify_all()
        self._begin()
        return True

    def post(self, result: Result) -> None:
        """Add a result before the job is done. For `work` to call."""
        self._results.append(result)

    def collect(self) -> list[Result]:
        """The results since the last call, in order."""
        if self._jobs:
            self._begin()
        return _taken(self._results) if self._results else []

    def failures(self) -> list[tuple[Job, Exception]]:
        """The jobs that failed since the last call."""
        return _taken(self._failures) if self._failures else []

    def wait(self, seconds: float) -> bool:
        """Wait until every job is done, at most `seconds`; True when they are. Without a thread there is no wait."""
        if self._thread is None:
            return not self._jobs
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, seconds)

    def close(self, seconds: float = 1.0, *, finish: bool = False) -> bool:
        """Stop: drop the jobs that wait, or with `finish` do them first. Waits at most `seconds` for the thread and
        returns True when it has ended; a job that hangs is left to the daemon thread."""
        deadline = time.monotonic() + seconds
        if finish and self._thread is not None:
            self.wait(seconds)
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _begin(self) -> None:
        """Start the thread. If the system has none to give, the next call tries again; jobs wait for it."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        if self._on_start is not None:
            self._on_start()
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs.popleft()
                self._busy = True
            try:
                self._results.append(self._work(job))
            except Exception as error:  # no error may end the thread
                self.failed += 1
                self._failures.append((job, error))
            del job     # it may hold megabytes, and the next one may come in an hour


Each = TypeVar("Each")


def _taken(found: deque[Each]) -> list[Each]:
    taken = []
    while found:    # there is one reader
        taken.append(found.popleft())
    return taken
