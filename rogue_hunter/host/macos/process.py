"""One process of macOS: which calls read it, the gate that saves most of them, its last counters, its row.

The answer is read into one buffer that is used for all and compared where it lies: a process at rest costs one call,
one comparison of memory and no object. `python -m tests.bench.darwin`, with a library that answers at once: a tick of
1,000 processes at rest takes 0.26 ms, where a copy of each answer and a method for each step took 1.2; of 5,000, 1.8
where it was 8.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rogue_hunter.host.macos.abi import (
    EACCES,
    EPERM,
    ESRCH,
    PROC_PIDT_SHORTBSDINFO,
    PROC_PIDTASKALLINFO,
    PROC_PIDTBSDINFO,
    PROC_PIDUNIQIDENTIFIERINFO,
    SZOMB,
    ProcBsdInfo,
    ProcBsdShortInfo,
    ProcTaskAllInfo,
    ProcUniqIdentifierInfo,
)
from rogue_hunter.host.macos.decode import (
    NO_TASK_YET,
    NOTHING,
    YOUNGEST_S,
    Task,
    Usage,
    Who,
    decode_bsdinfo,
    decode_kinfo,
    decode_rusage,
    decode_shortinfo,
    decode_taskallinfo,
    identity_fields,
    rate_fields,
    state_fields,
    text,
    total_fields,
)
from rogue_hunter.host.macos.libproc import Library, PidInfo, RusageReader, process_kinfo, process_path
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

DENIED = (EPERM, EACCES)


class Gone(Exception):
    """The process ended, perhaps between two calls. Not an error."""


class Unclear(Exception):
    """The process is there and its answer makes no sense: counted as an error."""


@dataclass(frozen=True, slots=True)
class Look:
    """All that is cheap to read of one process. `usage` is None when its counters may not be read; `pulse` is then
    what changes when it calls exec or its pid is given to another, else the raw counters. `passing`: it was
    caught in exec or on its way out: look again soon."""

    who: Who
    pulse: object
    usage: Usage | None = None
    task: Task | None = None
    passing: bool = False


class Looker:
    """The calls that read one process, with their buffers: for one thread. At the gate, a process that may be read is
    asked by `rusage`, any other by `unique`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.rusage = RusageReader(library)
        self._taskall = PidInfo(library, PROC_PIDTASKALLINFO, ProcTaskAllInfo)
        self._bsd = PidInfo(library, PROC_PIDTBSDINFO, ProcBsdInfo)
        self._short = PidInfo(library, PROC_PIDT_SHORTBSDINFO, ProcBsdShortInfo)
        self.unique = PidInfo(library, PROC_PIDUNIQIDENTIFIERINFO, ProcUniqIdentifierInfo)

    def decode(self, raw: bytes) -> Usage:
        """What `rusage` gave, decoded."""
        return decode_rusage(raw, self.rusage.version)

    def look(self, pid: int) -> Look:
        """Everything about a process. Raises Gone or Unclear."""
        raw, errno = self.rusage(pid)
        if raw is not None:
            usage = self.decode(raw)
            who, task = self.who_and_task(pid, usage)
            return Look(who, raw, usage, task)
        if errno in DENIED:
            return Look(self.who_of_another(pid), self.pulse(pid))
        if errno == ESRCH:
            who = self.defunct(pid)
            return Look(who, self.pulse(pid), passing=who.status != SZOMB)
        raise Unclear

    def who_and_task(self, pid: int, usage: Usage) -> tuple[Who, Task | None]:
        """Who it is and what its task counted; no task for one that is defunct. Raises Gone."""
        if not usage.exit_abstime:
            raw, errno = self._taskall(pid)
            if raw is not None:
                return decode_taskallinfo(raw)
            if errno in DENIED:
                return self.who_of_another(pid), None
        return self.defunct(pid), None

    def defunct(self, pid: int) -> Who:
        """Who a defunct process was: it has no task any more, and is found only when asked for so (argument 1).

        ESRCH from the other calls is no proof of death either: a process in exec gives it too. Raises Gone.
        """
        raw, errno = self._bsd(pid, 1)
        if raw is not None:
            return decode_bsdinfo(raw)
        if errno in DENIED:
            return self.who_of_another(pid)
        raise Gone

    def who_of_another(self, pid: int) -> Who:
        """Another user's process: libproc has no start time, sysctl has. Raises Gone."""
        kinfo, _ = process_kinfo(self._library, pid)
        short, _ = self._short(pid, 1)
        if short is not None:
            who = decode_shortinfo(short)
            if kinfo is not None:
                k = decode_kinfo(kinfo)
                who = who._replace(nice=k.nice, tty_device=k.tty_device, start_us=k.start_us)
        elif kinfo is not None:
            who = decode_kinfo(kinfo)
        else:
            raise Gone
        # These give 15 or 16 bytes of the name; the rest is in the name of the program.
        if len(who.command) >= 15 and (path := self.path(pid)):
            name = path.rsplit("/", 1)[-1]
            if name.startswith(who.command):
                who = who._replace(command=name[:31])
        return who

    def pulse(self, pid: int) -> object:
        """What changes when a process that may not be read calls exec, or its pid is given to another. Raises Gone."""
        raw, _ = self.unique(pid, 1)
        if raw is not None:
            return raw
        return self.poor_pulse(pid)

    def poor_pulse(self, pid: int) -> object:
        """The same by sysctl, where `unique` gave nothing: an old kernel, a process in exec. Raises Gone."""
        kinfo, errno = process_kinfo(self._library, pid)
        if kinfo is not None:
            return decode_kinfo(kinfo)
        if errno == ESRCH:
            raise Gone
        raise Unclear

    def path(self, pid: int) -> str | None:
        """Path of the program."""
        raw = process_path(self._library, pid)
        return text(raw) if raw else None


class Process:
    """State kept between ticks.

    `pulse` is what the cheap reading of a tick gave last; as long as it gives the same, nothing was counted. `settled`:
    the row already is that of a process at rest. `usage` is None for a process that may not be read.
    `place` is its place in its gate, -1 for none; `read_ns` is when it was read, or was last seen at rest.
    `extra` holds what the worker found out; it is added to the row as it comes. `start_shift_s` is by how much the wall
    clock was set since the process started: the kernel keeps the start time of then.
    """

    __slots__ = ("delay_since_ns", "delay_ticks", "extra", "gpu", "key", "place", "pulse", "rates", "read_ns",
                 "refresh_ns", "row", "settled", "start_shift_s", "task", "thread_state", "usage", "who")

    def __init__(self, look: Look, now_ns: int) -> None:
        self.who = who = look.who
        self.key: Key = (who.pid, who.start_us or 0)
        self.pulse = look.pulse
        self.usage = usage = look.usage
        self.task = look.task
        self.place = -1
        self.read_ns = now_ns
        self.refresh_ns = 0
        self.settled = usage is None
        self.row: Row = {}
        self.rates: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.gpu: dict[str, Any] = {}
        self.thread_state: str | None = None
        self.start_shift_s = 0.0
        self.delay_ticks = _delay(usage)
        self.delay_since_ns = now_ns

    @property
    def restless(self) -> bool:
        """Was a thread running or ready to run at the last look? Then it may have gone to sleep since, uncounted."""
        return self.task is not None and self.task.running > 0

    def outdated_by(self, usage: Usage) -> bool:
        """True when new counters show another identity or task. Memory taken from a process at rest or a late write of
        its data change only counters."""
        before = self.usage
        return before is None or _life(usage) != _life(before)

    def begin_rates(self, age_s: float, interval_s: float, tick_s: float) -> bool:
        """Rates at first sight: over its own lifetime if that began within the interval, else unknown. Says whether
        it is known to have run."""
        if self.usage is None or not YOUNGEST_S <= age_s <= interval_s:
            return False
        self.rates = rate_fields(self.usage, self.task, NOTHING, NO_TASK_YET, age_s, tick_s)
        if self.delay_ticks is not None:
            self.rates["run_delay_ms_per_s"] = round(self.delay_ticks * tick_s * 1000 / age_s, 2)
        return self.usage.cpu_ticks > 0

    def advance(self, who: Who, usage: Usage, task: Task | None, now_ns: int, tick_s: float) -> bool:
        """Take the next reading; returns whether the process ran since the last one. Called for a process at rest too:
        its rates become 0."""
        before = self.usage
        seconds = (now_ns - self.read_ns) / 1e9
        if before is None or usage.start_abstime != before.start_abstime or seconds <= 0:
            # Counters of another kind of beginning: nothing can be subtracted.
            self.rates = {}
            self.delay_ticks, self.delay_since_ns = _delay(usage), now_ns
            ran = False
        else:
            ran = (usage.cpu_ticks, usage.runnable_ticks) != (before.cpu_ticks, before.runnable_ticks)
            # A defunct process has no task any more; what the task had counted is kept.
            self.rates = rate_fields(usage, task or self.task, before, self.task, seconds, tick_s)
            if (rate := self._delay_rate(usage, task, usage.cpu_ticks != before.cpu_ticks, now_ns, tick_s)) is not None:
                self.rates["run_delay_ms_per_s"] = rate
        if ran:
            self.thread_state = None
        self.settled = not ran and usage == before and not (task is not None and task.running > 0)
        self.who, self.usage, self.task, self.read_ns = who, usage, task, now_ns
        return ran

    def _delay_rate(self, usage: Usage, task: Task | None, used_cpu: bool, now_ns: int, tick_s: float) -> float | None:
        """Run delay of the interval, ms/s.

        Runnable time minus CPU time. The kernel counts a thread's CPU time as it goes, but its runnable time only when
        it blocks or its quantum ends (10 ms; xnu, thread_block and thread_quantum_expire): the difference dips and
        catches up, so its highest value so far is used. A thread that waits for a CPU through several ticks is
        counted all at once when it runs; that wait is spread over the ticks in which it was ready and used nothing.
        """
        delay = _delay(usage)
        if delay is None or self.delay_ticks is None:
            return None
        rate = 0.0
        if delay > self.delay_ticks:
            rate = round((delay - self.delay_ticks) * tick_s * 1e12 / (now_ns - self.delay_since_ns), 2)
            self.delay_ticks, self.delay_since_ns = delay, now_ns
        elif used_cpu or task is None or task.running == 0:
            self.delay_since_ns = now_ns
        return rate

    def compose(self, user: str | None, terminal: str | None, tick_s: float) -> Row:
        """The row as it should be now."""
        row: Row = identity_fields(self.who)
        row["start_ticks"] = self.key[1]
        if self.start_shift_s and "start_time" in row:
            row["start_time"] = round(row["start_time"] + self.start_shift_s, 6)
        if user is not None:
            row["user"] = user
        row.update(self.extra)
        if terminal is not None:
            row["tty"] = terminal
        row.update(state_fields(self.who, self.task, self.thread_state))
        if self.usage is not None:
            row.update(total_fields(self.usage, self.task, tick_s))
            if self.delay_ticks is not None:
                row["run_delay_seconds_total"] = round(self.delay_ticks * tick_s, 6)
            row.update(self.rates)
        row.update(self.gpu)
        return row


def _life(usage: Usage) -> tuple[object, ...]:
    return (usage.cpu_ticks, usage.runnable_ticks, usage.start_abstime, usage.exit_abstime, usage.uuid)


def _delay(usage: Usage | None) -> int | None:
    if usage is None or usage.runnable_ticks is None:
        return None
    return max(0, usage.runnable_ticks - usage.cpu_ticks)


NEVER = b""
"""Never the answer of a process: one that is known by it is read in any case."""

_END = 1 << 63
"""More than any moment: sorts behind all marks of a place."""


class Gate:
    """Parallel lists: pids, their last answers, and their processes. One `reader` reads all of them.

    `mono` is a monotonic clock in nanoseconds.
    """

    def __init__(self, reader: RusageReader | PidInfo, mono: Callable[[], int]) -> None:
        self._reader = reader
        self._mono = mono
        self._pids: list[int] = []
        self._last: list[bytes] = []
        self._owners: list[Process] = []
        # (place, moment) of a poll: where it began, was interrupted, continued and ended.
        self._marks: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._pids)

    def add(self, process: Process) -> None:
        """Watch a process: it is read when its answer differs from its `pulse`, and at its `refresh_ns`."""
        process.place = len(self._pids)
        self._pids.append(process.key[0])
        self._last.append(NEVER)
        self._owners.append(process)
        self.keep(process)

    def keep(self, process: Process) -> None:
        """Take note of its `pulse`. One that is not at rest is looked at next time, too: its rates become 0 then."""
        pulse = process.pulse
        self._last[process.place] = pulse if process.settled and isinstance(pulse, bytes) else NEVER

    def remove(self, process: Process) -> None:
        """Stop watching; not while `poll` is under way. The last entry takes the free place."""
        place = process.place
        pid, last, moved = self._pids.pop(), self._last.pop(), self._owners.pop()
        if moved is not process:
            moved.read_ns = max(moved.read_ns, _moment(self._marks, moved.place))
            self._pids[place], self._last[place], self._owners[place] = pid, last, moved
            moved.place = place
        process.place = -1

    def poll(self) -> Iterator[tuple[Process, bytes | None, int]]:
        """Read every process once. Returns those whose answer changed, and those that are due, with the answer (raw
        bytes and 0, or None and the errno); handle each before the next is taken.

        `read_ns` of a process at rest stays behind while it is only asked; it is brought up to the poll before.
        """
        begin, before = self._mono(), self._marks
        for due in [process.place for process in self._owners if process.refresh_ns <= begin]:
            self._last[due] = NEVER
        self._marks = marks = [(0, begin)]
        good, buffer = self._reader.good, self._reader.buffer
        for place, (result, known) in enumerate(zip(self._reader.each(self._pids), self._last, strict=True)):
            if result == good and buffer == known:
                continue
            answer = (bytes(buffer), 0) if result == good else (None, ctypes.get_errno())
            marks.append((place, self._mono()))
            process = self._owners[place]
            if process.settled:
                process.read_ns = max(process.read_ns, _moment(before, place))
            yield process, *answer
            marks.append((place + 1, self._mono()))
        marks.append((len(self._pids), self._mono()))


def _moment(marks: list[tuple[int, int]], place: int) -> int:
    """When the process at `place` was read: between two marks, each read takes the same time. 0 when none was."""
    at = bisect_right(marks, (place, _END)) - 1
    if at < 0:
        return 0
    place_0, moment_0 = marks[at]
    if at + 1 == len(marks):
        return moment_0
    place_1, moment_1 = marks[at + 1]
    return moment_0 + (moment_1 - moment_0) * (place - place_0) // (place_1 - place_0)
