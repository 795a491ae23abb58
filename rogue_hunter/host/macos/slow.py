"""What is read off the beat: command lines, terminal names, thread states, available memory, GPU time.

Any of these can hang for seconds: a command line copies a process's memory, the GPU walks a registry. The beat never
waits for them, except once, bounded, for the first snapshot.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rogue_hunter.host.macos.abi import (
    PROC_PIDLISTTHREADS,
    PROC_PIDTBSDINFO,
    PROC_PIDTHREADINFO,
    QOS_CLASS_UTILITY,
    ProcBsdInfo,
    ProcThreadInfo,
)
from rogue_hunter.host.macos.decode import decode_arguments, decode_bsdinfo, threads_state
from rogue_hunter.host.macos.iokit import GpuReader, recorded_reader, system_reader
from rogue_hunter.host.macos.libproc import (
    Library,
    PidInfo,
    device_name,
    list_threads,
    process_arguments,
    set_thread_qos,
    sysctl_int,
)
from rogue_hunter.host.macos.process import Process
from rogue_hunter.host.protocol import Users
from rogue_hunter.schema.field import Key
from rogue_hunter.text.redact import redact
from rogue_hunter.worker import Worker

EVERY_NS = 1_000_000_000
"""GPU time and thread states are read once a second: the registry walk was measured at 10 ms and more."""
PROBED = 16
"""Processes whose threads are read in each such round: the busiest of the last seconds that do not run now."""
FADE = 0.9
"""What is left of a process's interest after each round: one that used a whole core is looked at for 40 s more."""


JOBS_MAX = 20_000
"""Jobs kept for a worker that hangs. Beyond it they are refused and counted as errors."""


class Job(NamedTuple):
    """What kind of reading, of what (None: the machine), and the function that reads it."""

    kind: str
    subject: Any
    read: Callable[[Any], Any]


class SlowReader:
    """The readings themselves. The buffers belong to the worker's thread."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._bsd = PidInfo(library, PROC_PIDTBSDINFO, ProcBsdInfo)
        self._thread = PidInfo(library, PROC_PIDTHREADINFO, ProcThreadInfo)
        self._buffer: ctypes.Array[ctypes.c_char] | None = None

    def start(self) -> None:
        """Runs first in the thread: its work is not urgent."""
        set_thread_qos(self._library, QOS_CLASS_UTILITY)

    def command_line(self, key: Key) -> str | None:
        """Command line of one process, secrets masked; None when it may not be read."""
        if self._buffer is None:
            self._buffer = ctypes.create_string_buffer(sysctl_int(self._library, "kern.argmax") or 1 << 20)
        raw, _ = process_arguments(self._library, key[0], self._buffer)
        if raw is None:
            return None
        # The pid may be another process's by now: the answer is used only if that process has the same start time.
        who, _ = self._bsd(key[0], 1)
        if who is None or decode_bsdinfo(who).start_us != key[1]:
            return None
        return redact(argv) if (argv := decode_arguments(raw)) else None

    def threads(self, key: Key) -> str | None:
        """State of a process from the states of its threads (256 at most)."""
        states = []
        for handle in list_threads(self._library, key[0], PROC_PIDLISTTHREADS):
            raw, _ = self._thread(key[0], handle)
            if raw is not None:
                states.append(ProcThreadInfo.from_buffer_copy(raw).pth_run_state)
        return threads_state(states)


def default_gpu_reader(library: Library) -> GpuReader | None:
    """The frameworks of this Mac; with ROGUE_HUNTER_IOREG the recorded `ioreg -a` output of another; else none."""
    if recorded := os.environ.get("ROGUE_HUNTER_IOREG"):
        return recorded_reader(Path(recorded))
    return system_reader() if sys.platform == "darwin" and not library.injected else None


class Slow:
    """The beat's side: submits jobs and takes their answers. `failed` counts jobs that failed or were refused."""

    def __init__(self, library: Library, mono: Callable[[], int], gpu: GpuReader | None,
                 memory: Callable[[], None]) -> None:
        self._library, self._mono, self._memory = library, mono, memory
        self._reader = SlowReader(library)
        self._worker: Worker[Job, tuple[Job, Any]] = Worker("slow", _run, limit=JOBS_MAX, on_start=self._reader.start)
        self._users = Users(mono)
        self._terminals: dict[int, str | None] = {}
        self._gpu = gpu or default_gpu_reader(library)
        self._gpu_before: tuple[int, dict[int, tuple[Key, int]]] | None = None
        self._interest: dict[Key, float] = {}
        self._in_progress: set[str] = set()
        self._due_ns = 0
        self.failed = 0

    def wait(self, seconds: float) -> None:
        """Wait until all is done, at most so long for each of the two threads."""
        self._worker.wait(seconds)
        self._users.wait(seconds)

    def close(self) -> None:
        """End the threads."""
        self._worker.close()
        self._users.close()

    def describe(self, process: Process) -> None:
        """Ask for the command line of a new process, or of one that called exec."""
        process.extra.pop("cmdline", None)
        self._submit("cmdline", process.key, self._reader.command_line)

    def user(self, uid: int) -> str | None:
        """Name of a user if it is known already."""
        return self._users.name(uid)

    def terminal(self, device: int | None) -> str | None:
        """Name of a terminal if it is known already."""
        if device is None:
            return None
        if device not in self._terminals:
            self._terminals[device] = None
            self._submit("terminal", device, partial(device_name, self._library))
        return self._terminals[device]

    def _submit(self, kind: str, subject: object, read: Callable[[Any], object]) -> None:
        self.failed += not self._worker.submit(Job(kind, subject, read))

    def note(self, process: Process) -> None:
        """Remember how busy a process is, so that its threads are read when it stops running."""
        rates = process.rates
        busy = (rates.get("cpu_percent", 0.0) + rates.get("pageins_per_s", 0.0)
                + rates.get("disk_bytes_per_s", 0.0) / 1e6)
        if busy >= 1:
            self._interest[process.key] = max(busy, self._interest.get(process.key, 0.0))

    def ask(self, now: int, by_pid: dict[int, Process]) -> None:
        """Once a second: available memory, GPU time, and the threads of processes that were busy and no longer run. A
        process whose threads wait for the disk uses nothing, so by its counters it looks like one that sleeps."""
        if now < self._due_ns:
            return
        self._due_ns = now + EVERY_NS
        if "memory" not in self._in_progress:
            self._in_progress.add("memory")
            self._submit("memory", None, lambda _: self._memory())
        if self._gpu is not None and "gpu" not in self._in_progress:
            self._in_progress.add("gpu")
            gpu = self._gpu
            self._submit("gpu", None, lambda _: (self._mono(), gpu()))
        if "threads" in self._in_progress:
            return
        self._interest = {key: busy * FADE for key, busy in self._interest.items()
                          if busy >= 1 and (p := by_pid.get(key[0])) is not None and p.key == key}
        still = {key: busy for key, busy in self._interest.items()
                 if (p := by_pid[key[0]]).task is not None and not p.restless}
        still |= {p.key: float("inf") for p in by_pid.values() if p.thread_state is not None}
        for key in heapq.nlargest(PROBED, still, key=still.__getitem__):
            self._in_progress.add("threads")
            self._submit("threads", key, self._reader.threads)
        if "threads" in self._in_progress:
            self._submit("threads", None, lambda _: None)   # the end of the round

    def take(self, by_pid: dict[int, Process]) -> dict[Key, Process]:
        """Give the answers to the processes; returns those whose row has to be made again."""
        stale: dict[Key, Process] = {}
        names = self._users.found()
        if names:
            stale |= {p.key: p for p in by_pid.values() if p.who.uid in names}
        failed = self._worker.failures()
        self.failed += len(failed)
        # The value of a job is None for what cannot be known.
        for (kind, subject, _), value in [*self._worker.collect(), *((job, None) for job, _ in failed)]:
            if kind == "terminal":
                self._terminals[subject] = value
                stale |= {p.key: p for p in by_pid.values() if p.who.tty_device == subject}
            elif subject is None:
                self._in_progress.discard(kind)
                if kind == "gpu" and value is not None:
                    stale |= self._take_gpu(by_pid, *value)
            elif (process := by_pid.get(subject[0])) is not None and process.key == subject:
                _take_one(process, kind, value)
                stale[process.key] = process
        return stale

    def _take_gpu(self, by_pid: dict[int, Process], read_ns: int, used: dict[int, int] | None) -> dict[Key, Process]:
        """GPU time since the reading before. A client that closed takes its time with it: a sum that fell is a new
        beginning, its rate unknown. Processes without a client carry no GPU fields."""
        if used is None:
            return {}
        before_ns, before = self._gpu_before or (None, {})
        now: dict[int, tuple[Key, int]] = {}
        stale: dict[Key, Process] = {}
        for pid, ns in used.items():
            if (process := by_pid.get(pid)) is None:
                continue
            now[pid] = (process.key, ns)
            process.gpu = {"gpu_seconds_total": round(ns / 1e9, 6)}
            key, ns_before = before.get(pid, (process.key, 0))
            if before_ns is not None and key == process.key and ns >= ns_before and read_ns > before_ns:
                process.gpu["gpu_ms_per_s"] = round((ns - ns_before) * 1000 / (read_ns - before_ns), 2)
            stale[process.key] = process
        for pid in before.keys() - now.keys():
            if (process := by_pid.get(pid)) is not None and process.gpu:
                process.gpu = {}
                stale[process.key] = process
        self._gpu_before = (read_ns, now)
        return stale


def _run(job: Job) -> tuple[Job, Any]:
    return job, job.read(job.subject)


def _take_one(process: Process, kind: str, value: Any) -> None:
    if kind == "threads":
        # Running or asleep follows from fresher counters; only what they do not show is taken.
        process.thread_state = value if value in ("uninterruptible", "stopped", "halted") else None
    elif value is not None:
        process.extra["cmdline"] = value
