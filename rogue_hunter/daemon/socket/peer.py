"""The process at the other end of a Unix socket, as the kernel identifies it."""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass

SOL_LOCAL, LOCAL_PEERCRED, LOCAL_PEERPID = 0, 1, 2
"""macOS, <sys/un.h>: Python has no names for them."""

_XUCRED = struct.Struct("@IIh16I")
"""macOS, <sys/ucred.h> struct xucred: version (0), uid, number of groups, 16 groups."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected or listens: its effective user at that time, and its pid if known."""

    uid: int
    pid: int | None = None

    @property
    def trusted(self) -> bool:
        """True for this user, and for root, who can read everything anyway."""
        return self.uid in (os.geteuid(), 0)


def peer_of(connection: socket.socket, platform: str = sys.platform) -> Peer | None:
    """The peer of a connected Unix socket; None if the system does not identify it: then it is not trusted."""
    try:
        if platform == "linux":
            size = struct.calcsize("3i")
            pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            return Peer(uid, pid)
        if platform == "darwin":
            version, uid, *_ = _XUCRED.unpack(connection.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, _XUCRED.size))
            if version != 0:
                return None
            (pid,) = struct.unpack("i", connection.getsockopt(SOL_LOCAL, LOCAL_PEERPID, 4))
            return Peer(uid, pid)
    except (OSError, struct.error):
        return None
    return None
