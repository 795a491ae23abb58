"""System calls that a thread can wait in, by number and architecture."""

from __future__ import annotations

from typing import NamedTuple

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
