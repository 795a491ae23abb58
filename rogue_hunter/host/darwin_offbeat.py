"""Slow readings, in a thread of their own: command lines, user and terminal names, thread states, GPU time.

The beat hands out jobs and picks up what is done; it never waits, except once, bounded, for the first snapshot. Any of
these can hang for seconds: a user name asks a directory service, a command line copies a process's memory, the GPU
walks a registry.
"""

from __future__ import annotations

import contextlib
import ctypes
import pwd
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

from rogue_hunter.host.darwin_abi import (
    PROC_PIDLISTTHREADS,
    PROC_PIDTBSDINFO,
    PROC_PIDTHREADINFO,
    PROC_PIDUNIQIDENTIFIERINFO,
    QOS_CLASS_UTILITY,
    ProcBsdInfo,
    ProcThreadInfo,
    ProcUniqIdentifierInfo,
)
from rogue_hunter.host.darwin_decode import (
    decode_arguments,
    decode_bsdinfo,
    decode_uniqidentifier,
    threads_state,
)
from rogue_hunter.host.libproc import (
    Library,
    PidInfo,
    device_name,
    list_threads,
    process_arguments,
    set_thread_qos,
    sysctl_int,
)
from rogue_hunter.redact import redact
from rogue_hunter.schema import Key

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
            self._thread = threading.Thread(target=self._run, name="rogue-hunter-offbeat", daemon=True)
            self._thread.start()
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


class Described(NamedTuple):
    """What is read once of an identity, and again after an exec."""

    cmdline: str | None = None
    unique_id: int | None = None
    id_version: int | None = None


class SlowReader:
    """The jobs of a Library. Its buffers belong to the worker's thread."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._bsd = PidInfo(library, PROC_PIDTBSDINFO, ProcBsdInfo)
        self._unique = PidInfo(library, PROC_PIDUNIQIDENTIFIERINFO, ProcUniqIdentifierInfo)
        self._thread = PidInfo(library, PROC_PIDTHREADINFO, ProcThreadInfo)
        self._arguments: ctypes.Array[ctypes.c_char] | None = None

    def start(self) -> None:
        """For the thread's beginning: nobody waits for what it reads."""
        set_thread_qos(self._library, QOS_CLASS_UTILITY)

    def describe(self, key: Key) -> Described:
        """Command line (secrets masked) and identifiers of one process."""
        pid = key[0]
        if self._arguments is None:
            self._arguments = ctypes.create_string_buffer(sysctl_int(self._library, "kern.argmax") or 1 << 20)
        unique, _ = self._unique(pid, 1)
        raw, _ = process_arguments(self._library, pid, self._arguments)
        # The pid may be another process's by now: what was read is used only if it still began when this one did.
        # Where that may not be seen (another user's process) nothing of it could be read either, but for the ids.
        who, _ = self._bsd(pid, 1)
        if who is not None and decode_bsdinfo(who).start_us != key[1]:
            return Described()
        argv = decode_arguments(raw) if raw is not None and who is not None else []
        ids = decode_uniqidentifier(unique) if unique is not None else (None, None)
        return Described(redact(argv) if argv else None, *ids)

    def threads(self, key: Key) -> str | None:
        """State of a process from the states of its threads (256 at most)."""
        states = []
        for handle in list_threads(self._library, key[0], PROC_PIDLISTTHREADS):
            raw, _ = self._thread(key[0], handle)
            if raw is not None:
                states.append(ProcThreadInfo.from_buffer_copy(raw).pth_run_state)
        return threads_state(states)

    def terminal(self, device: int) -> str | None:
        """Name of a terminal."""
        return device_name(self._library, device)


def user_name(uid: int) -> str | None:
    """Name of a user. May ask a directory service over the network."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
