"""What a process is: program, command line, control group; and what only its threads show.

The first is read once, off the beat, and again after exec. Reading a command line takes the lock of the process's
memory map, which a process in trouble may hold for seconds. It must not delay a beat: a thread does it.

A name or a command line does not prove that a process is one of rogue-hunter's own: any program may be called rh-pipe.
Each command of rogue-hunter keeps an anonymous file (memfd_create(2)) of a certain name open as long as it runs, which
/proc/PID/fd shows. Only root's processes and those of the sampler's user count: another user may do what he likes.
"""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from sys import intern

from rogue_hunter import OWN_MARK
from rogue_hunter.files import read_start, shut
from rogue_hunter.host.linux.parse import (
    Stat,
    effective_uid,
    parse_schedstat,
    parse_shared,
    parse_stat,
    parse_status,
    split_cmdline,
    text,
    without_arguments,
)
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.redact import LIMIT, redact
from rogue_hunter.worker import Worker

CMDLINE_BYTES = 2 * LIMIT
"""Read twice what is kept: redaction shortens."""

QUEUE_MAX = 1 << 17
"""More processes than a kernel has by default (pid_max 32,768) wait at most."""

DESCRIBED = ("exe", "cmdline", "cgroup", "own")
"""The fields that a description replaces as a whole."""

LARGE_BYTES = 64 << 20
"""Memory held from which a process is asked which part of it is shared, and such a part from which a row has it: one
more key in every row. Asking takes 1.5 ms at this size."""

LINK = f"/memfd:{OWN_MARK} (deleted)"
"""What the link in /proc/PID/fd reads (proc_pid_fd(5))."""

LOOKED_AT = 64
"""The mark is made when a command begins, so its number is among the first."""

WORDS = (b"rogue_hunter", b"rh-")
"""One of them is in the arguments of every command: only such processes are looked at."""

Description = tuple[Key, Row, bool]
"""Identity, fields, and whether something may not be read."""


class Describer:
    """Describes processes in a thread, those of one tick after all of them were read: while both work, the interpreter
    changes between them at every system call. `ask` only takes note, `answers` returns what is there by now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._asked: list[tuple[Key, bool, bool]] = []
        self._worker: Worker[tuple[Key, bool, bool], Description] = Worker("describe", self._describe, limit=QUEUE_MAX)

    def ask(self, key: Key, kernel_thread: bool, shared: bool = False) -> None:
        """Have the process described."""
        self._asked.append((key, kernel_thread, shared))

    def answers(self) -> list[Description]:
        """The descriptions made since the last call. One without fields is of a process that is gone."""
        self._begin()
        return self._worker.collect()

    def wait(self, seconds: float) -> None:
        """Wait until everything asked for is answered, at most so long."""
        self._begin()
        self._worker.wait(seconds)

    def _begin(self) -> None:
        for each in self._asked:
            self._worker.submit(each)
        self._asked.clear()

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _describe(self, asked: tuple[Key, bool, bool]) -> Description:
        key, kernel_thread, shared = asked
        return (key, *describe(self.root, key, kernel_thread, shared))


def describe(root: Path, key: Key, kernel_thread: bool = False, shared: bool = False,
             argv: list[str] | None = None) -> tuple[Row, bool]:
    """exe, cmdline, cgroup and own of one process, with `shared` also shared_bytes, and whether something of it may not
    be read.

    An empty `cmdline` is known to be empty; a missing one is unknown. `argv` takes up the arguments without the masks
    over secrets. All is read below one descriptor of /proc/PID, which fails once that process is gone, even when its
    pid is in use again; the start time is compared first, because the pid may have changed hands before that.
    """
    fields: Row = {}
    denied = False
    try:
        # A joined text: every part of a Path is kept by the interpreter as long as it runs.
        at = os.open(f"{root}/{key[0]}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return fields, True
    except OSError:
        return fields, False
    try:
        stat = parse_stat(read_start("stat", 4096, dir_fd=at))
        if stat.start != key[1]:
            return fields, False
        if not kernel_thread:
            denied = _program(root, key[0], at, stat, fields, argv)
            if "cmdline" not in fields:     # the leader may have ended since its state was read
                data = read_start("stat", 4096, dir_fd=at)
                stat = parse_stat(data)
                denied = _program(root, key[0], at, stat, fields, argv) or denied
                if "cmdline" not in fields and without_arguments(data):
                    fields["cmdline"] = ""
            if shared:
                with suppress(OSError, ValueError):
                    fields["shared_bytes"] = parse_shared(read_start("smaps_rollup", 4096, dir_fd=at))
        cgroup = cgroup_path(read_start("cgroup", 4096, dir_fd=at))
        if cgroup:
            fields["cgroup"] = cgroup
    except (OSError, ValueError) as error:
        denied = denied or isinstance(error, PermissionError)
    finally:
        shut(at)
    return fields, denied


def _program(root: Path, pid: int, at: int, stat: Stat, fields: Row, argv: list[str] | None) -> bool:
    """Add exe, own and, unless there are none, the arguments, which `argv` takes up unmasked; returns whether something
    may not be read. Raises OSError, ValueError."""
    of = ""
    if stat.state == b"Z" and stat.threads > 1:
        thread = live_thread(root, pid)
        of = f"task/{thread[0]}/" if thread else ""
    denied = False
    try:
        fields["exe"] = text(os.fsencode(os.readlink(of + "exe", dir_fd=at)))
    except PermissionError:
        denied = True
    except OSError:
        pass
    data = read_start(of + "cmdline", CMDLINE_BYTES, dir_fd=at)
    if argv is not None:
        argv[:] = split_cmdline(data)
    if data:
        fields["cmdline"] = _line(data) if len(data) <= _CACHED_BYTES else intern(redact(split_cmdline(data)))
    if any(word in data for word in WORDS):
        uid = effective_uid(parse_status(read_start("status", 4096, dir_fd=at)).uids)
        if is_marked(at, uid):
            fields["own"] = True
    return denied


_CACHED_BYTES = 512


@functools.lru_cache(maxsize=256)
def _line(data: bytes) -> str:
    """A command line, secrets masked. Most of a machine's are those of several processes: 40 us each."""
    argv = split_cmdline(data)
    return intern(redact(argv)) if argv else ""


def cgroup_path(data: bytes) -> str | None:
    """The path of the unified hierarchy (`0::`), else of the systemd one, else the longest of version 1."""
    best = b""
    for line in data.splitlines():
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if number == b"0" and path not in (b"", b"/"):
            return text(path)
        if (controllers == b"name=systemd" and path not in (b"", b"/")) or len(path) > len(best):
            best = path
    return text(best) if best else None


def is_marked(at: int, uid: int) -> bool:
    """Whether the process of the directory `at` of /proc, with the effective user id `uid`, is marked. False where its
    descriptors may not be read."""
    if uid not in (0, os.geteuid()):
        return False
    try:
        fds = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    except OSError:
        return False
    try:
        for name in islice(os.listdir(fds), LOOKED_AT):
            with suppress(OSError):
                if os.readlink(name, dir_fd=fds) == LINK:
                    return True
        return False
    except OSError:
        return False
    finally:
        shut(fds)


THREADS_MAX = 32
"""Threads are read only up to this many: 30 us each."""
THREADS_CPU_PERCENT = 0.5
"""And only of a process that uses so much CPU."""
THREADS_EVERY_NS = 1_000_000_000

_LIVELIEST = (b"R", b"D")
_ENDED = (b"Z", b"X", b"x")


class ThreadSums:
    """Sums over the threads of one process. schedstat and status of a process are those of its leader only. A thread
    that ended keeps its part."""

    __slots__ = ("_at_ns", "_by_thread", "_fields", "_sums")

    def __init__(self) -> None:
        self._at_ns = 0
        self._sums = [0, 0, 0]
        self._by_thread: dict[str, _Counters] | None = None
        self._fields: Row = {}

    def add_to(self, row: Row, root: Path, key: Key, now_ns: int) -> None:
        """Add run delay, context switches and wakeups to a row, as measured within the last second. What cannot be read
        of every thread is left out."""
        if self._by_thread is None or now_ns - self._at_ns >= THREADS_EVERY_NS:
            read = _read_threads(f"{root}/{key[0]}/task")
            if not read:
                return
            self._take(read, now_ns)
        row.update(self._fields)

    def _take(self, now: dict[str, _Counters], now_ns: int) -> None:
        before, seconds = self._by_thread, (now_ns - self._at_ns) / 1e9
        self._fields = {}
        for i, (total, total_scale, rate, rate_scale, digits) in enumerate(_FIELDS):
            grown = 0
            for tid, counters in now.items():
                value, then = counters[i], None if before is None else before.get(tid, (0, 0, 0))[i]
                if value is None:
                    break
                grown += max(0, value - (then or 0))
            else:
                self._sums[i] += grown
                self._fields[total] = round(self._sums[i] * total_scale, 6) if total_scale < 1 else self._sums[i]
                if before is not None and all(counters[i] is not None for counters in before.values()):
                    self._fields[rate] = round(grown * rate_scale / seconds, digits)
        self._by_thread, self._at_ns = now, now_ns


_Counters = tuple[int | None, int | None, int | None]
"""ns ready to run but waiting, all context switches, voluntary ones; None for what cannot be read."""

_FIELDS = (("run_delay_seconds_total", 1e-9, "run_delay_ms_per_s", 1e-6, 2),
           ("context_switches_total", 1, "context_switches_per_s", 1, 1),
           ("wakeups_total", 1, "wakeups_per_s", 1, 1))
"""For each counter the field of its sum, with its factor, and of its rate, with factor and digits."""


def _read_threads(folder: str) -> dict[str, _Counters]:
    """The counters of every thread; empty when one ended while they were read."""
    found: dict[str, _Counters] = {}
    try:
        for tid in os.listdir(folder):
            waited_ns = switches = voluntary = None
            data = _optional(f"{folder}/{tid}/schedstat", 64)
            if data:
                waited_ns = parse_schedstat(data)[1]
            data = _optional(f"{folder}/{tid}/status", 4096)
            if data:
                status = parse_status(data)
                voluntary = status.voluntary
                if voluntary is not None and status.involuntary is not None:
                    switches = voluntary + status.involuntary
            if waited_ns is None and switches is None:
                return {}
            found[tid] = waited_ns, switches, voluntary
    except (OSError, ValueError):
        return {}
    return found


def _optional(path: str, size: int) -> bytes:
    """The first bytes of a file; empty where it does not exist: a kernel may lack it."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(size)
    except FileNotFoundError:
        return b""


def live_thread(root: Path, pid: int) -> tuple[str, Stat] | None:
    """A thread of a process whose leader has ended, and its stat: one that runs, else one in an uninterruptible wait,
    else any. None when all have ended or none can be read.

    The leader of such a process is a zombie without memory, program and arguments; its threads still have them.
    """
    found: tuple[str, Stat] | None = None
    try:
        for tid in islice(os.listdir(f"{root}/{pid}/task"), THREADS_MAX):
            try:
                with open(f"{root}/{pid}/task/{tid}/stat", "rb", buffering=0) as file:
                    stat = parse_stat(file.read(1024))
            except (OSError, ValueError):
                continue
            if stat.state == b"R":
                return tid, stat
            if stat.state not in _ENDED and (found is None or stat.state in _LIVELIEST):
                found = tid, stat
    except OSError:
        return None
    return found
