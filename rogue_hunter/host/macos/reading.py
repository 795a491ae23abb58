"""Reading one process of macOS: which calls, in which order, and what their errors mean."""

from __future__ import annotations

from dataclasses import dataclass

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
    Task,
    Usage,
    Who,
    decode_bsdinfo,
    decode_kinfo,
    decode_rusage,
    decode_shortinfo,
    decode_taskallinfo,
    text,
)
from rogue_hunter.host.macos.libproc import Library, process_kinfo, process_path
from rogue_hunter.host.macos.readers import PidInfo, RusageReader

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
