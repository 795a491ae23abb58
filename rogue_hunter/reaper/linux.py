"""Linux: read a process from /proc for the decision whether it may be signalled."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.files import read_start
from rogue_hunter.host.linux.describe import describe, live_thread
from rogue_hunter.host.linux.parse import HZ, PF_KTHREAD, STATES, Stat, parse_stat, text, tty_name
from rogue_hunter.host.linux.process import STATUS_MAX
from rogue_hunter.host.protocol import Users
from rogue_hunter.reaper.process import ANCESTORS_MAX, Gone, Handle, Live, Me, Pidfd, Unreadable, live, my_uids
from rogue_hunter.stream.tick import Row

PAGE = os.sysconf("SC_PAGE_SIZE")

INITIAL_PID_NAMESPACE = f"pid:[{0xEFFFFFFC}]"
"""The link /proc/self/ns/pid of a process that is in no container (PROC_PID_INIT_INO, linux/proc_ns.h)."""

THREADS_SHOWN = 16
TEXT_MAX = 4096

USER_WAIT_S = 0.5
"""How long the name of a user is waited for: a directory service that hangs must not make a reading old."""


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LinuxMachine:
    """Reads `root`; signals go to the running kernel. `boottime` returns the seconds since boot: start times count from
    there."""

    def __init__(self, root: Path = Path("/proc"), boottime: Callable[[], float] = _boottime) -> None:
        self._root = root
        self._boottime = boottime
        self._users = Users()

    def boot_id(self) -> str:
        return _read(self._root / "sys/kernel/random/boot_id").decode("utf-8", "replace").strip()

    def open(self, pid: int) -> Handle:
        return Pidfd(pid)

    def read(self, pid: int) -> Live:
        folder = self._root / str(pid)
        try:
            raw = _read(folder / "stat")
            status = _status(_read(folder / "status", STATUS_MAX))
        except (FileNotFoundError, ProcessLookupError):
            raise Gone from None
        except OSError as error:
            raise Unreadable(f"{folder}: {error.strerror}") from None
        try:
            stat, session = parse_stat(raw), int(raw[raw.rfind(b")") + 2:].split()[3])
            uids = tuple(int(uid) for uid in status[b"Uid"].split())
            leader = int(status[b"Tgid"])
        except (ValueError, KeyError, IndexError):
            raise Unreadable(f"{folder}: cannot be parsed") from None
        key = (pid, stat.start)
        kernel = bool(stat.flags & PF_KTHREAD)
        row: Row = {
            "pid": pid, "start_ticks": stat.start, "ppid": stat.ppid, "uid": uids[1], "command": text(stat.comm),
            "state": STATES.get(stat.state, "sleeping"), "threads": stat.threads,
            "cpu_seconds_total": (stat.utime + stat.stime) / HZ,
            "memory_bytes": stat.rss * PAGE + sum(_kib(status.get(n, b"")) for n in (b"VmSwap", b"HugetlbPages")),
        }
        if stat.state == b"Z" and stat.threads > 1 and (thread := live_thread(self._root, pid)) is not None:
            row.update(state=STATES.get(thread[1].state, "sleeping"), memory_bytes=thread[1].rss * PAGE)
        if (tty := tty_name(stat.tty)) is not None:
            row["tty"] = tty
        if (user := self._users.soon(uids[1], USER_WAIT_S)) is not None:
            row["user"] = user
        argv: list[str] = []
        row.update(describe(self._root, key, kernel, argv=argv)[0])
        directory = ""
        with contextlib.suppress(OSError):
            directory = text(os.fsencode(os.readlink(folder / "cwd")))
        return live(key, row, uids, argv, directory, leader=leader, session=session, kernel_thread=kernel,
                    age_s=max(0.0, self._boottime() - stat.start / HZ))

    def me(self) -> Me:
        pid = os.getpid()
        ancestors: set[int] = set()
        parent, hidden_before = os.getppid(), 0
        oldest = self._stat(pid)
        while parent > 0 and parent not in ancestors and len(ancestors) < ANCESTORS_MAX:
            ancestors.add(parent)
            above = self._stat(parent)
            if above is None and parent > 1:
                hidden_before = sys.maxsize if oldest is None else oldest.start
            parent, oldest = 0 if above is None else above.ppid, above
        return Me(pid, my_uids(), frozenset(ancestors), os.getsid(0), self._in_own_pid_namespace(), hidden_before)

    def _stat(self, pid: int) -> Stat | None:
        """None if it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            return parse_stat(_read(self._root / str(pid) / "stat"))
        return None

    def _in_own_pid_namespace(self) -> bool:
        """False also where the kernel does not say: then low pids are protected."""
        try:
            return os.readlink(self._root / "self/ns/pid") != INITIAL_PID_NAMESPACE
        except OSError:
            return False

    def ends_with(self, pid: int) -> list[int]:
        depth, space = self._place(pid)
        if depth < 2:
            return []
        found = []
        for other in [int(name) for name in os.listdir(self._root) if name.isdigit()]:
            its_depth, its_space = self._place(other, any_place=True)
            if other != pid and (its_depth > depth or (its_depth == depth and its_space in (space, ""))):
                found.append(other)
        return found

    def _place(self, pid: int, *, any_place: bool = False) -> tuple[int, str]:
        """In how many pid namespaces a process is, and the innermost one, "" if that may not be read. Unless
        `any_place`, 0 for a process that is not the first of a namespace."""
        pids, space = [b""], ""
        with contextlib.suppress(OSError):
            pids = _status(_read(self._root / str(pid) / "status", STATUS_MAX)).get(b"NSpid", b"").split() or pids
            space = os.readlink(self._root / str(pid) / "ns/pid")
        return (len(pids) if any_place or pids[-1] == b"1" else 0), space

    def bundle(self, pid: int) -> Row:
        folder = self._root / str(pid)
        found: Row = {}
        for name in ("wchan", "syscall", "stack"):
            with contextlib.suppress(OSError):
                words = text(_read(folder / name, TEXT_MAX)).strip()
                if words and words != "0":
                    found[name] = words
        with contextlib.suppress(OSError):
            found["open_files"] = len(os.listdir(folder / "fd"))
        with contextlib.suppress(OSError):
            # The first thread first: numbers start again at a low one, so that a later thread can have a lower one.
            tasks = sorted(os.listdir(folder / "task"), key=lambda tid: (int(tid) != pid, int(tid)))
            found["threads"] = [t for t in map(self._thread, (folder / "task" / n for n in tasks[:THREADS_SHOWN])) if t]
        return found

    @staticmethod
    def _thread(folder: Path) -> Row | None:
        try:
            stat = parse_stat(_read(folder / "stat"))
            wchan = text(_read(folder / "wchan")).strip()
        except (OSError, ValueError):
            return None
        thread = {"tid": int(folder.name), "command": text(stat.comm), "state": STATES.get(stat.state, "sleeping")}
        return {**thread, "wchan": wchan} if wchan not in ("", "0") else thread


def _read(path: Path, size: int = TEXT_MAX) -> bytes:
    """Up to `size` bytes. Raises OSError."""
    return read_start(path, size)


def _kib(size: bytes) -> int:
    """Bytes of a size of /proc/PID/status, such as b"12 kB"."""
    number = size.partition(b" ")[0]
    return int(number) * 1024 if number.isdigit() else 0


def _status(data: bytes) -> dict[bytes, bytes]:
    """/proc/PID/status by key. The name is the first line and its line feeds are escaped. Of a key that occurs twice,
    the first counts: a second one could only be forged."""
    found: dict[bytes, bytes] = {}
    for line in data.split(b"\n"):
        key, colon, value = line.partition(b":")
        if colon:
            found.setdefault(key, value.strip())
    return found
