"""Recorded /proc trees that a test can change, and processes of the live machine that do a known thing."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.host.protocol import Snapshot
from rogue_hunter.stream.tick import Row

FIXTURE = Path(__file__).parent.parent / "fixtures/proc/machine"
REPO = Path(__file__).resolve().parent.parent.parent
HZ = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_us() -> None:
    """For preexec_fn: the child ends when this process ends, however it ends. A loop that a killed test run left
    behind would use a core without end."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)     # PR_SET_PDEATHSIG


# The link /proc/PID/exe of the recorded processes: a link that leads nowhere is no good guest in a repository.
EXE = {
    1000: "/usr/bin/python3.11",
    1004: "/usr/bin/vforker",
    1008: "/usr/bin/gone (deleted)",
    1010: "/usr/lib/postgresql/postgres",
}


def stat_line(
    pid: int,
    comm: bytes = b"x",
    state: bytes = b"S",
    *,
    ppid: int = 1,
    session: int = 1,
    tty: int = 0,
    flags: int = 0,
    minflt: int = 0,
    majflt: int = 0,
    utime: int = 0,
    stime: int = 0,
    cutime: int = 0,
    cstime: int = 0,
    priority: int = 20,
    nice: int = 0,
    threads: int = 1,
    start: int = 1000,
    rss: int = 100,
) -> bytes:
    """/proc/PID/stat as the kernel writes it: 52 fields."""
    head = b"%d (%b) %b" % (pid, comm, state)
    numbers = [
        ppid,
        pid,
        session,
        tty,
        -1,
        flags,
        minflt,
        0,
        majflt,
        0,
        utime,
        stime,
        cutime,
        cstime,
        priority,
        nice,
        threads,
        0,
        start,
        1 << 20,
        rss,
        (1 << 64) - 1,
        *[0] * 27,
    ]
    return head + b"".join(b" %d" % n for n in numbers) + b"\n"


def status_text(uid: int = 1000, peak_kb: int | None = 4, voluntary: int = 0, involuntary: int = 0) -> bytes:
    """The lines of /proc/PID/status that are used, among others."""
    peak = b"" if peak_kb is None else b"VmHWM:\t%8d kB\n" % peak_kb
    return (
        b"Name:\tx\nUmask:\t0022\nUid:\t%d\t%d\t%d\t%d\nGid:\t0\t0\t0\t0\n" % (uid, uid, uid, uid)
        + peak
        + b"voluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t%d\n" % (voluntary, involuntary)
    )


def io_text(read: int = 0, written: int = 0) -> bytes:
    """/proc/PID/io."""
    return b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: %d\nwrite_bytes: %d\ncancelled_write_bytes: 7\n" % (
        read,
        written,
    )


class Tree:
    """A recorded tree in a directory of the test's own, with a clock that only `beat` moves."""

    def __init__(self, path: Path, *, recorded: bool = False) -> None:
        self.path = path
        self.mono_ns = 10**12
        self.uptime_s = 5000.0
        if recorded:
            shutil.copytree(FIXTURE, path)
            for pid, target in EXE.items():
                (path / str(pid) / "exe").symlink_to(target)
        else:
            path.mkdir()
            self.write("stat", b"cpu  100 0 50 1000 0 0 0 0 0 0\ncpu0 1\ncpu1 1\nbtime 1700000000\n")
            self.write("meminfo", b"MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:   8388608 kB\n")
            self.write("sys/kernel/random/boot_id", b"0b00710d-0000-4000-8000-000000000001\n")

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, with the directories above it."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def process(
        self,
        pid: int,
        comm: bytes = b"x",
        state: bytes = b"S",
        *,
        uid: int = 1000,
        peak_kb: int | None = 4,
        voluntary: int = 0,
        involuntary: int = 0,
        read: int = 0,
        written: int = 0,
        cmdline: bytes | None = None,
        **fields: int,
    ) -> None:
        """Put a process there, or write what it says now."""
        self.write(f"{pid}/stat", stat_line(pid, comm, state, **fields))
        self.write(f"{pid}/status", status_text(uid, peak_kb, voluntary, involuntary))
        self.write(f"{pid}/io", io_text(read, written))
        if cmdline is not None:
            self.write(f"{pid}/cmdline", cmdline)

    def remove(self, pid: int) -> None:
        """The process is gone."""
        shutil.rmtree(self.path / str(pid))

    def beat(self, seconds: float = 1.0) -> None:
        """Time passes."""
        self.mono_ns += round(seconds * 1e9)
        self.uptime_s += seconds


def by_pid(shot: Snapshot) -> dict[int, Row]:
    """The rows of a snapshot by pid."""
    return {k[0]: made for k, made in shot.processes.items()}


# -- the live machine ------------------------------------------------------------------------------------------------

PYTHON = next((p for p in ("/usr/bin/python3", sys.executable) if os.access(p, os.X_OK)), sys.executable)
"""An interpreter for children: one that another user may run too, where there is one."""


def python(code: str, *args: str) -> list[str]:
    """The command line of a child that runs `code`."""
    return [PYTHON, "-I", "-S", "-c", code, *args]


def wait_for(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds. Raises AssertionError when it never does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.01)


def state_of(pid: int) -> str:
    """The state letter of a live process."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()


def ready(child: subprocess.Popen[bytes]) -> None:
    """Wait until a child that writes a line says that it is ready."""
    assert child.stdout is not None
    assert child.stdout.readline(), "the child ended early"


def unprivileged() -> list[str] | None:
    """What to put before a command so that it runs as uid 1000; None where that is not possible."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None or sys.executable == PYTHON:
        return None
    return ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"]
