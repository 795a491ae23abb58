"""Exits of processes as the kernel reports them (the proc connector): which parent lost how many children.

Processes that live for less than a tick are in no listing of /proc, and a parent that ignores SIGCHLD is not credited
with their CPU time either. The kernel sends a message for each exit over a netlink socket: to every user from Linux 6.6
on, before that to root, and only in the initial network namespace (drivers/connector/cn_proc.c).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

NETLINK_CONNECTOR = 11
CN_IDX_PROC = CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1
PROC_EVENT_EXIT = 0x80000000
_NLMSG_DONE = 3
_SO_RCVBUFFORCE = 33
"""Numbers of linux/netlink.h, linux/connector.h, linux/cn_proc.h and asm-generic/socket.h."""

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, sender."""
_CONNECTOR = struct.Struct("=IIIIHH")
"""cn_msg: index, value, sequence, acknowledgement, length of the data, flags."""
_EXIT = struct.Struct("=IIQiiIIii")
"""proc_event of an exit: what, cpu, time; thread, process, exit code, signal, the parent's thread, the parent."""
_DATA = _HEADER.size + _CONNECTOR.size

EVENTS_MAX = 1000
"""Messages read in one tick: at 2 us each that is 2 ms. Of a flood the kernel drops the rest, with an error."""

BUFFER_BYTES = 4 << 20
"""Asked of the kernel for unread messages, about 800 bytes each; without root it gives at most net.core.rmem_max."""


@dataclass(slots=True)
class Exits:
    """What ended since the last reading: by parent, how many children ended and how many of them badly (a signal or an
    exit code other than 0); in all; and whether messages were lost, so that all of it is a lower bound.

    A process that no parent waits for, as its parent ignores SIGCHLD, is reported with parent 0: it is in `unwaited`.
    """

    children: dict[int, int] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    pids: list[int] = field(default_factory=list)
    unwaited: set[int] = field(default_factory=set)
    lost: bool = False


class Socket(Protocol):
    """The part of a socket that is used."""

    def recv(self, size: int, /) -> bytes:
        """One message. Raises BlockingIOError when there is none, OSError with ENOBUFS when some were lost."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


class ExitReader:
    """Reads exits without blocking. `of` None: this kernel, user or network namespace gives none; `reason` says why."""

    def __init__(self, of: Socket | None = None, reason: str = "") -> None:
        self._socket = of
        self.reason = reason

    @property
    def available(self) -> bool:
        """True when exits are reported to us."""
        return self._socket is not None

    def read(self) -> Exits:
        """The exits since the last call; empty when they are not available."""
        found = Exits()
        if self._socket is None:
            return found
        for _ in range(EVENTS_MAX):
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return found
            except OSError as error:
                found.lost = True
                if error.errno != errno.ENOBUFS:
                    self.close()
                    self.reason = os.strerror(error.errno or 0)
                    return found
                continue
            exited = parse_exit(data)
            if exited is None:
                continue
            pid, parent, code = exited
            found.pids.append(pid)
            if not parent:
                found.unwaited.add(pid)
                continue
            found.children[parent] = found.children.get(parent, 0) + 1
            if code:
                found.failed[parent] = found.failed.get(parent, 0) + 1
        found.lost = True
        return found

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None


def listen() -> ExitReader:
    """Ask this kernel for the exits of all processes."""
    try:
        made = socket.socket(socket.AddressFamily(16), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
                             NETLINK_CONNECTOR)
    except (OSError, AttributeError) as error:
        return ExitReader(None, f"no proc connector: {error}")
    try:
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            with suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
                break
        made.bind((0, CN_IDX_PROC))
        # The second number limits the messages to exits from Linux 6.6 on; older kernels take the first alone.
        numbers = (PROC_CN_MCAST_LISTEN, PROC_EVENT_EXIT)[:2 if _release() >= (6, 6) else 1]
        data = struct.pack(f"={len(numbers)}I", *numbers)
        body = _CONNECTOR.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(data), 0) + data
        made.send(_HEADER.pack(_HEADER.size + len(body), _NLMSG_DONE, 0, 0, os.getpid()) + body)
    except OSError as error:
        made.close()
        return ExitReader(None, f"the proc connector refuses: {error.strerror}")
    return ExitReader(made)


def parse_exit(data: bytes) -> tuple[int, int, int] | None:
    """A message as (process, parent, exit code); None for one of another kind, of a thread, or malformed."""
    if len(data) < _DATA + _EXIT.size:
        return None
    index, value, *_ = _CONNECTOR.unpack_from(data, _HEADER.size)
    what, _, _, thread, process, code, _, _, parent = _EXIT.unpack_from(data, _DATA)
    if (index, value, what) != (CN_IDX_PROC, CN_VAL_PROC, PROC_EVENT_EXIT) or thread != process:
        return None
    return process, parent, code


def _release() -> tuple[int, int]:
    numbers = [int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the first pid namespace (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""


def in_first_pid_namespace() -> bool:
    """True when our pids are the ones that the messages name: those of the first pid namespace."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE
    except OSError:
        return False
