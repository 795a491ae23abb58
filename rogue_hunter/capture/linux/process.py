"""Read one process: its memory and CPU time, and of each thread the state, wait channel, system call and stack.

It is read by a descriptor of /proc/PID, which fails once the process is gone, even if its pid is reused.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rogue_hunter.files import read_start
from rogue_hunter.host.linux.describe import cgroup_path
from rogue_hunter.host.linux.parse import HZ, PF_KTHREAD, STATES, Stat, effective_uid, parse_stat, parse_status, text
from rogue_hunter.schema.capture import FRAME_LIMIT, MAX_FRAMES
from rogue_hunter.schema.field import Key

T = TypeVar("T")


def read(at: int | None, name: str | Path, size: int = 65536) -> bytes:
    """At most `size` bytes of a file, relative to the directory descriptor `at`. Raises OSError."""
    return read_start(name, size, dir_fd=at)


def read_or(at: int | None, name: str | Path, size: int = 65536) -> tuple[bytes, str]:
    """The bytes, and ok, denied, gone or failed."""
    try:
        return read(at, name, size), "ok"
    except PermissionError:
        return b"", "denied"
    except (FileNotFoundError, ProcessLookupError):
        return b"", "gone"
    except OSError:
        return b"", "failed"


def numbers(directory: Path) -> list[int]:
    """The names in a directory that are numbers (pids, thread ids), sorted; none if it cannot be read."""
    try:
        return sorted(int(name) for name in os.listdir(directory) if name.isdigit())
    except OSError:
        return []


class Gone(Exception):
    """The process has exited, or another one has its pid."""


@contextmanager
def pinned(root: Path, key: Key | int) -> Iterator[tuple[int, Stat]]:
    """A descriptor of the directory of the process `key`, and its stat. With a pid alone: the process that has it now.

    Raises Gone when no process has this identity.
    """
    pid = key if isinstance(key, int) else key[0]
    try:
        at = os.open(root / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Gone(f"process {pid} is gone") from error
    try:
        try:
            stat = parse_stat(read(at, "stat", 4096))
        except (OSError, ValueError) as error:
            raise Gone(f"process {pid} is gone") from error
        if not isinstance(key, int) and stat.start != key[1]:
            raise Gone(f"process {pid} is gone: another process has its pid")
        yield at, stat
    finally:
        os.close(at)


def still(at: int, start: int) -> bool:
    """True when the process of `at` is alive and started at `start`."""
    try:
        return parse_stat(read(at, "stat", 4096)).start == start
    except (OSError, ValueError):
        return False


class Late(Exception):
    """A call that did not return in time; its thread still waits."""


def bounded(call: Callable[[], T], seconds: float) -> T:
    """The value of `call`, called in another thread. Raises Late after `seconds`, and what `call` raises.

    Reading a process whose memory map is locked blocks until it is unlocked and cannot be interrupted. The thread
    stays blocked; it is a daemon, so this process can exit.
    """
    box: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            box.append(call())
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=run, name="rh-forensics-read", daemon=True)
    worker.start()
    worker.join(seconds)
    if failed:
        raise failed[0]
    if not box:
        raise Late(f"timeout after {seconds:g} s")
    return box[0]


class Pressure(NamedTuple):
    """avg10 of /proc/pressure/*, percent; None if the line is missing."""

    some: float | None
    full: float | None


def parse_pressure_avg10(data: bytes) -> Pressure:
    """The first averages of `some avg10=0.04 avg60=... total=...` and of the line `full`."""
    found: dict[bytes, float] = {}
    for line in data.splitlines():
        kind, _, rest = line.partition(b" ")
        if rest.startswith(b"avg10="):
            try:
                found[kind] = float(rest[6:].split(None, 1)[0])
            except (ValueError, IndexError):
                continue
    return Pressure(found.get(b"some"), found.get(b"full"))


def is_native(auxv: bytes) -> bool:
    """True when the auxiliary vector has 64-bit pairs: the process has the architecture of the kernel.

    Keys of the vector are below 64 (include/uapi/linux/auxvec.h); read as 64-bit, a 32-bit vector holds an address
    in the upper half of its first key.
    """
    if len(auxv) < 16 or struct.calcsize("P") != 8:
        return len(auxv) >= 8 and struct.calcsize("P") == 4
    return all(key < 256 for key in struct.unpack_from("=QxxxxxxxxQ", auxv.ljust(32, b"\0")))


_X86_64 = {
    0: "read", 1: "write", 2: "open", 3: "close", 7: "poll", 9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk",
    16: "ioctl", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 23: "select", 25: "mremap", 28: "madvise",
    34: "pause", 35: "nanosleep", 40: "sendfile", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom",
    46: "sendmsg", 47: "recvmsg", 56: "clone", 57: "fork", 58: "vfork", 59: "execve", 60: "exit", 61: "wait4",
    65: "semop", 69: "msgsnd", 70: "msgrcv", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 82: "rename",
    87: "unlink", 101: "ptrace", 128: "rt_sigtimedwait", 130: "rt_sigsuspend", 162: "sync", 165: "mount",
    202: "futex", 217: "getdents64", 220: "semtimedop", 230: "clock_nanosleep", 231: "exit_group", 232: "epoll_wait",
    247: "waitid", 257: "openat", 263: "unlinkat", 270: "pselect6", 271: "ppoll", 275: "splice", 276: "tee",
    281: "epoll_pwait", 288: "accept4", 295: "preadv", 296: "pwritev", 299: "recvmmsg", 306: "syncfs",
    307: "sendmmsg", 316: "renameat2", 426: "io_uring_enter", 435: "clone3", 437: "openat2", 441: "epoll_pwait2",
    449: "futex_waitv", 455: "futex_wait",
}
_AARCH64 = {
    22: "epoll_pwait", 25: "fcntl", 29: "ioctl", 32: "flock", 35: "unlinkat", 40: "mount", 56: "openat", 57: "close",
    61: "getdents64", 63: "read", 64: "write", 65: "readv", 66: "writev", 67: "pread64", 68: "pwrite64", 69: "preadv",
    70: "pwritev", 71: "sendfile", 72: "pselect6", 73: "ppoll", 76: "splice", 77: "tee", 81: "sync", 82: "fsync",
    83: "fdatasync", 93: "exit", 94: "exit_group", 95: "waitid", 98: "futex", 101: "nanosleep",
    115: "clock_nanosleep", 117: "ptrace", 133: "rt_sigsuspend", 137: "rt_sigtimedwait", 188: "msgrcv", 189: "msgsnd",
    192: "semtimedop", 193: "semop", 202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom", 211: "sendmsg",
    212: "recvmsg", 214: "brk", 215: "munmap", 216: "mremap", 220: "clone", 221: "execve", 222: "mmap",
    226: "mprotect", 233: "madvise", 242: "accept4", 243: "recvmmsg", 260: "wait4", 267: "syncfs", 269: "sendmmsg",
    276: "renameat2", 426: "io_uring_enter", 435: "clone3", 437: "openat2", 441: "epoll_pwait2", 449: "futex_waitv",
    455: "futex_wait",
}
_TABLES = {"x86_64": _X86_64, "amd64": _X86_64, "aarch64": _AARCH64, "arm64": _AARCH64, "riscv64": _AARCH64}

READS = frozenset(("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "accept", "accept4", "preadv", "pread64"))
"""Calls whose first argument is a descriptor to read from."""
WRITES = frozenset(("write", "writev", "sendto", "sendmsg", "sendmmsg", "connect", "pwritev", "pwrite64"))
"""Calls whose first argument is a descriptor to write to."""
LOCKS = frozenset(("flock", "fcntl"))
FORKS = frozenset(("vfork", "clone", "clone3"))


class Call(NamedTuple):
    """The system call that a thread is in. `number` is -1 outside of one; `name` is None if it is unknown."""

    number: int
    name: str | None
    args: tuple[int, ...]

    def words(self) -> str:
        """`read(3, 0x7f..., 0x1000)` for people: arguments as the kernel prints them, three at most."""
        if self.number < 0:
            return "none"
        shown = ", ".join(str(a) if a < 4096 else hex(a) for a in self.args[:3])
        return f"{self.name or f'syscall {self.number}'}({shown})"


def parse_syscall(data: bytes, machine: str) -> Call | None:
    """/proc/PID/syscall: number, six arguments, stack pointer, program counter; `running`; or -1 when it waits outside
    of a call. None when it runs or nothing can be read. `machine` is that of uname; empty if the process has another
    architecture than the kernel, whose numbers have no names here."""
    fields = data.split()
    if len(fields) < 3:
        return None
    try:
        number = int(fields[0])
        args = tuple(int(f, 16) for f in fields[1:7]) if number >= 0 else ()
    except ValueError:
        return None
    return Call(number, _TABLES.get(machine, {}).get(number), args)


_MEMORY = {
    b"VmSize": "memory_mapped_bytes", b"VmHWM": "memory_peak_bytes", b"VmRSS": "memory_bytes",
    b"RssAnon": "memory_anonymous_bytes", b"RssFile": "memory_file_bytes", b"RssShmem": "memory_shared_bytes",
    b"VmSwap": "memory_swap_bytes",
}


@dataclass(slots=True)
class Thread:
    """One thread. `looks`: each reading of it, (state letter, wait channel, call)."""

    tid: int
    name: str
    priority: int
    cpu_seconds: float
    stack: tuple[str, ...] = ()
    looks: list[tuple[str, str | None, Call | None]] = field(default_factory=list)

    @property
    def last(self) -> tuple[str, str | None, Call | None]:
        """The last reading."""
        return self.looks[-1]

    def same_wait(self) -> int:
        """In how many readings, counted back from the last, the thread was in the same wait."""
        _, wchan, call = self.last
        count = 0
        for state, channel, other in reversed(self.looks):
            if state == "R" or channel != wchan or other != call:
                break
            count += 1
        return max(1, count)


@dataclass(slots=True)
class Process:
    """One process. `fields` are those of its record; `denied`: what there is no permission to read."""

    key: Key
    command: str
    role: str
    stat: Stat
    fields: dict[str, Any]
    threads: dict[int, Thread]
    threads_total: int
    native: bool
    pid_namespace: str | None
    denied: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    stuck: bool = False


def parse_stack(data: bytes) -> tuple[str, ...]:
    """/proc/PID/stack: `[<0>] futex_wait+0xb1/0x150` a line, innermost first; names without offsets."""
    frames: list[str] = []
    for line in data.splitlines()[:MAX_FRAMES]:
        _, _, rest = line.partition(b"] ")
        name = rest.strip().split(b"+0x", 1)[0]
        if name and not name.startswith(b"0xffffffffffffffff"):
            frames.append(text(name)[:FRAME_LIMIT])
    return tuple(frames)


def parse_memory(status: bytes) -> dict[str, int]:
    """The memory lines of /proc/PID/status, bytes. They are counters: no lock of the process is needed for them."""
    found: dict[str, int] = {}
    for line in status.splitlines():
        name, _, rest = line.partition(b":")
        known = _MEMORY.get(name)
        if known is not None:
            number = rest.split(None, 1)[0] if rest.strip() else b""
            if number.isdigit() and len(number) < 16:
                found[known] = int(number) * 1024
    return found


def parse_wchan(data: bytes) -> str | None:
    """/proc/PID/wchan: a kernel function; 0 when the thread runs or there is no permission to read it."""
    name = data.strip()
    return None if name in (b"", b"0") else text(name)[:FRAME_LIMIT]


def read_process(root: Path, key: Key | int, role: str, machine: str, limit: int, *,
                 without_locks: bool = False) -> Process:
    """One process and at most `limit` of its threads. Raises Gone.

    The identity is checked before and after, so that everything read belongs to it. Stacks, system calls and the
    auxiliary vector need a lock that a process holds during exec: `without_locks` skips them, for a process that is
    stuck there.
    """
    with pinned(root, key) as (at, stat):
        pid = key if isinstance(key, int) else key[0]
        denied: set[str] = set()
        status, _ = read_or(at, "status")
        auxv = b"" if without_locks else read_or(at, "auxv", 64)[0]
        native = bool(stat.flags & PF_KTHREAD) or not auxv or is_native(auxv)
        fields = _fields(at, stat, status, denied, without_locks)
        try:
            namespace: str | None = os.readlink("ns/pid", dir_fd=at)
        except OSError:
            namespace = None
        tids = _tids(at)
        threads: dict[int, Thread] = {}
        for tid in tids[:limit]:
            thread = _thread(at, tid, machine if native else "", denied, without_locks)
            if thread is not None:
                threads[tid] = thread
        process = Process((pid, stat.start), text(stat.comm), role, stat, fields, threads, len(tids), native, namespace,
                          denied, stuck=without_locks)
        if len(tids) > limit:
            process.problems.append(f"process {pid} has {len(tids)} threads; the first {limit} were read")
        if not still(at, stat.start):
            raise Gone(f"process {pid} exited while it was read")
        return process


def _tids(at: int) -> list[int]:
    try:
        return sorted(int(name) for name in _listdir(at, "task") if name.isdigit())
    except OSError:
        return []


def _listdir(at: int, name: str) -> list[str]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _fields(at: int, stat: Stat, status: bytes, denied: set[str], without_locks: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"parent_pid": stat.ppid or None, "threads": stat.threads or None,
                              "cpu_seconds": (stat.utime + stat.stime) / HZ}
    fields["state"] = STATES.get(stat.state)
    if stat.state in (b"Z", b"X", b"x"):
        fields["defunct"] = True
    fields.update(parse_memory(status))
    with suppress(ValueError, IndexError):
        fields["uid"] = effective_uid(parse_status(status)[0])
    group, _ = read_or(at, "cgroup", 4096)
    if group:
        fields["cgroup"] = cgroup_path(group)
    if without_locks:
        return fields
    try:
        fields["path"] = text(os.fsencode(os.readlink("exe", dir_fd=at)))[:1024]
    except PermissionError:
        denied.add("exe")
    except OSError:
        pass
    try:
        fields["open_files"] = len(_listdir(at, "fd"))
    except PermissionError:
        denied.add("open files")
    except OSError:
        pass
    return fields


def _thread(at: int, tid: int, machine: str, denied: set[str], without_locks: bool) -> Thread | None:
    try:
        stat = parse_stat(read(at, f"task/{tid}/stat", 4096))
    except (OSError, ValueError):
        return None
    thread = Thread(tid, text(stat.comm), stat.priority, (stat.utime + stat.stime) / HZ)
    if without_locks:
        wchan, _ = read_or(at, f"task/{tid}/wchan", 256)
        thread.looks.append((stat.state.decode("ascii", "replace"), parse_wchan(wchan), None))
        return thread
    stack, how = read_or(at, f"task/{tid}/stack", 16384)
    if how == "denied":
        denied.add("kernel stack")
    thread.stack = parse_stack(stack)
    _look(at, thread, stat, machine, denied)
    return thread


def _look(at: int, thread: Thread, stat: Stat, machine: str, denied: set[str]) -> None:
    wchan, _ = read_or(at, f"task/{thread.tid}/wchan", 256)
    call, how = read_or(at, f"task/{thread.tid}/syscall", 256)
    if how == "denied":
        denied.add("system call")
    thread.looks.append((stat.state.decode("ascii", "replace"), parse_wchan(wchan), parse_syscall(call, machine)))


def look_again(root: Path, process: Process, machine: str) -> None:
    """Read the threads of `process` once more. Threads that have exited keep their last reading."""
    if process.stuck:
        return
    try:
        with pinned(root, process.key) as (at, _):
            for thread in process.threads.values():
                try:
                    stat = parse_stat(read(at, f"task/{thread.tid}/stat", 4096))
                except (OSError, ValueError):
                    continue
                _look(at, thread, stat, machine if process.native else "", process.denied)
    except Gone:
        process.problems.append(f"process {process.key[0]} exited while it was read")


def proportional(root: Path, key: Key) -> int | None:
    """Pss in bytes, from smaps_rollup. Takes the memory lock of the process: call it through `bounded`."""
    try:
        with pinned(root, key) as (at, _):
            for line in read(at, "smaps_rollup", 65536).splitlines():
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (Gone, OSError, ValueError, IndexError):
        return None
    return None


def age(process: Process, uptime_s: float | None) -> float | None:
    """Seconds since the process started."""
    return None if uptime_s is None else round(max(0.0, uptime_s - process.stat.start / HZ), 2)


def uptime(root: Path) -> float | None:
    """Seconds since boot, sleep included."""
    try:
        return float(read(None, root / "uptime", 128).split()[0])
    except (OSError, ValueError, IndexError):
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        return None if boottime is None else time.clock_gettime(boottime)
