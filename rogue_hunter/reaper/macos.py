"""macOS: looking at a process through libproc, and signalling it by its audit token.

There is no pidfd. `proc_signal_with_audittoken` ties a signal to (pid, idversion): the kernel sends nothing when that
pid is another process by now, or the same one after an exec. It is private, so it is looked up by name; where it is
missing, the identity is read once more right before kill(2) and the time in between is recorded.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import time
from collections.abc import Callable
from ctypes import c_int, c_uint32
from typing import Any

from rogue_hunter.host.macos.abi import (
    ESRCH,
    PROC_PIDTBSDINFO,
    PROC_PIDUNIQIDENTIFIERINFO,
    SZOMB,
    ProcBsdInfo,
    ProcUniqIdentifierInfo,
)
from rogue_hunter.host.macos.decode import decode_arguments, decode_kinfo, decode_rusage, decode_uniqidentifier, text
from rogue_hunter.host.macos.libproc import (
    Library,
    PidInfo,
    RusageReader,
    device_name,
    load,
    process_arguments,
    process_kinfo,
    process_path,
    seconds_per_tick,
)
from rogue_hunter.host.macos.machine import read_facts
from rogue_hunter.reaper.process import ANCESTORS_MAX, Gone, Handle, Live, Me, Unreadable, live, my_uids
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.redact import LIMIT, redact

AuditToken = c_uint32 * 8
"""audit_token_t: the kernel reads the pid at 5 and p_idversion at 7 (audit_token_to_pid and _pidversion of libbsm)."""

EPERM = 1
_STATUS = {1: "idle", 2: "running", 3: "sleeping", 4: "stopped", SZOMB: "defunct"}


class Signaller:
    """The two functions of the library that send. `token` is None where the library has no such function."""

    def __init__(self, handle: Any) -> None:
        self.kill = handle.kill
        self.token = getattr(handle, "proc_signal_with_audittoken", None)
        for function, arguments in ((self.kill, (c_int, c_int)), (self.token, (ctypes.POINTER(AuditToken), c_int))):
            if function is not None:
                function.argtypes, function.restype = arguments, c_int


class Held:
    """One process, by its unique id, which is never given out twice in a boot. Raises Gone."""

    def __init__(self, pid: int, identify: Callable[[int], tuple[int, int] | None], status: Callable[[int], int | None],
                 signaller: Signaller, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid, self._identify, self._status, self._signaller, self._clock = pid, identify, status, signaller, clock
        self.method = "audittoken" if signaller.token is not None else "kill"
        who = identify(pid)
        if who is None:
            raise Gone
        self._unique = who[0]

    def send(self, number: int) -> float | None:
        looked = self._clock()
        who = self._identify(self._pid)
        if who is None or who[0] != self._unique:
            raise Gone
        if self._signaller.token is not None:
            token = AuditToken()
            token[5], token[7] = self._pid, who[1] & 0xFFFFFFFF
            self._result(self._signaller.token(ctypes.byref(token), number))
            return None
        window = self._clock() - looked
        self._result(self._signaller.kill(self._pid, number))
        return window

    @staticmethod
    def _result(answer: int) -> None:
        """0, or an errno as the answer, or -1 with errno set: libproc does both."""
        code = ctypes.get_errno() if answer == -1 else answer
        if code == ESRCH:
            raise Gone
        if code == EPERM:
            raise PermissionError(code, os.strerror(code))
        if code:
            raise Gone from OSError(code, os.strerror(code))

    def gone(self) -> bool:
        who = self._identify(self._pid)
        return who is None or who[0] != self._unique or self._status(self._pid) in (None, SZOMB)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Nothing is held."""


class DarwinMachine:
    """Reads through `library`, sends through `signaller`."""

    def __init__(self, library: Library, signaller: Signaller) -> None:
        self._library, self._signaller = library, signaller
        self._bsdinfo = PidInfo(library, PROC_PIDTBSDINFO, ProcBsdInfo)
        self._unique = PidInfo(library, PROC_PIDUNIQIDENTIFIERINFO, ProcUniqIdentifierInfo)
        self._rusage = RusageReader(library)
        self._tick_s = seconds_per_tick(library)
        self._boot_id = read_facts(library).boot_id

    @classmethod
    def load(cls, path: str | None = None) -> DarwinMachine:
        """The machine behind the library at `path`, or the system's. Raises HostError."""
        library = load(path)
        return cls(library, Signaller(library.handle))

    def boot_id(self) -> str:
        return self._boot_id

    def _identify(self, pid: int) -> tuple[int, int] | None:
        raw, _ = self._unique(pid, 1)
        return None if raw is None else decode_uniqidentifier(raw)

    def _status(self, pid: int) -> int | None:
        raw, _ = self._bsdinfo(pid, 1)
        return None if raw is None else int(ProcBsdInfo.from_buffer_copy(raw).pbi_status)

    def open(self, pid: int) -> Handle:
        return Held(pid, self._identify, self._status, self._signaller)

    def read(self, pid: int) -> Live:
        raw, code = self._bsdinfo(pid, 1)
        if raw is None and code == ESRCH:
            raise Gone
        if raw is None:
            raise Unreadable(f"process {pid}: {os.strerror(code)}")
        info = ProcBsdInfo.from_buffer_copy(raw)
        start = info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec
        row: Row = {"pid": pid, "start_ticks": start, "start_time": start / 1e6, "ppid": info.pbi_ppid,
                    "uid": info.pbi_uid, "command": text(info.pbi_name or info.pbi_comm),
                    "state": _STATUS.get(info.pbi_status, "sleeping")}
        path = process_path(self._library, pid)
        if path is not None:
            row["exe"] = text(path)
        arguments, _ = process_arguments(self._library, pid, ctypes.create_string_buffer(4 * LIMIT))
        argv: list[str] = []
        if arguments is not None:
            with contextlib.suppress(ValueError):
                argv = decode_arguments(arguments)
                row["cmdline"] = redact(argv)
        if info.e_tdev != 0xFFFFFFFF:
            row["tty"] = device_name(self._library, info.e_tdev) or f"device {info.e_tdev:#x}"
        with contextlib.suppress(KeyError, OverflowError):
            row["user"] = pwd.getpwuid(info.pbi_uid).pw_name
        used, _ = self._rusage(pid)
        if used is not None:
            usage = decode_rusage(used, self._rusage.version)
            row["cpu_seconds_total"] = round(usage.cpu_ticks * self._tick_s, 6)
            row["memory_bytes"] = usage.memory_bytes
        return live((pid, start), row, (info.pbi_ruid, info.pbi_uid, info.pbi_svuid), argv, leader=pid,
                    session=self._session(pid), kernel_thread=pid == 0, age_s=max(0.0, time.time() - start / 1e6))

    def _session(self, pid: int) -> int | None:
        """The session's leader, None if unknown; only the running system knows it."""
        if self._library.injected:
            return 0
        try:
            return os.getsid(pid)
        except OSError:
            return None

    def me(self) -> Me:
        ancestors: set[int] = set()
        parent = os.getppid()
        while parent > 0 and parent not in ancestors and len(ancestors) < ANCESTORS_MAX:
            ancestors.add(parent)
            raw, _ = process_kinfo(self._library, parent)
            if raw is None:
                break
            parent = decode_kinfo(raw).ppid
        return Me(os.getpid(), my_uids(), frozenset(ancestors), os.getsid(0))

    def ends_with(self, pid: int) -> list[int]:
        return []

    def bundle(self, pid: int) -> Row:
        return {}
