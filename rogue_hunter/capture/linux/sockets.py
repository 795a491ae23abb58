"""The other end of a socket: of a Unix socket by sock_diag(7), of a local TCP connection by /proc/net/tcp.

Both give inode numbers, which the links in /proc/PID/fd contain.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path

from rogue_hunter.capture.linux.read import read_or

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
"""Numbers of linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h."""

_TCP = re.compile(rb"\s*[0-9]{1,9}: ([0-9A-F]{8,32}:[0-9A-F]{4}) ([0-9A-F]{8,32}:[0-9A-F]{4}) ([0-9A-F]{2}) "
                  rb"\S+ \S+ \S+ +[0-9]{1,10} +[0-9]{1,10} ([0-9]{1,20})")


def parse_unix_diag(data: bytes) -> tuple[dict[int, int], bool]:
    """Messages of one datagram: inode -> inode of the peer, and whether the dump is over."""
    peers: dict[int, int] = {}
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16 or at + length > len(data) or kind in (_NLMSG_DONE, _NLMSG_ERROR):
            return peers, kind in (_NLMSG_DONE, _NLMSG_ERROR)
        if kind == _SOCK_DIAG_BY_FAMILY and length >= 32:
            (inode,) = struct.unpack_from("=I", data, at + 20)
            attribute = at + 32
            while attribute + 4 <= at + length:
                size, name = struct.unpack_from("=HH", data, attribute)
                if size < 4 or attribute + size > at + length:
                    break
                if name == _UNIX_DIAG_PEER and size >= 8:
                    peers[inode] = struct.unpack_from("=I", data, attribute + 4)[0]
                attribute += size + 3 & ~3
        at += length + 3 & ~3
    return peers, False


def unix_peers(timeout_s: float = 1.0) -> dict[int, int]:
    """Inode of every connected Unix socket of this network namespace -> inode of its peer. Empty if the kernel
    does not report them."""
    try:
        with socket.socket(socket.AddressFamily(16), socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(timeout_s)
            every = 0xFFFFFFFF
            body = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, every, 0, _UDIAG_SHOW_PEER, every, every)
            diag.send(struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body)
            peers: dict[int, int] = {}
            # 4,096 datagrams of 32 KiB have room for a million sockets.
            for _ in range(4096):
                found, over = parse_unix_diag(diag.recv(1 << 18))
                peers.update(found)
                if over:
                    break
            return peers
    except (OSError, ValueError, AttributeError):
        return {}


def parse_tcp(data: bytes) -> dict[tuple[bytes, bytes], int]:
    """/proc/net/tcp or tcp6: (local, remote) -> inode of established connections."""
    found: dict[tuple[bytes, bytes], int] = {}
    for line in data.splitlines()[1:]:
        row = _TCP.match(line)
        if row and row.group(3) == b"01":
            found[row.group(1), row.group(2)] = int(row.group(4))
    return found


def tcp_peers(root: Path, pid: int) -> dict[int, int]:
    """Inode of each local end of a TCP connection of the process's network namespace -> inode of the other end,
    if both ends are on this machine."""
    peers: dict[int, int] = {}
    for name in ("tcp", "tcp6"):
        data, _ = read_or(None, root / str(pid) / "net" / name, 1 << 22)
        table = parse_tcp(data)
        for (local, remote), inode in table.items():
            other = table.get((remote, local))
            if other is not None and other != inode:
                peers[inode] = other
    return peers


def inode_of(link: str) -> tuple[str, int] | None:
    """`pipe:[123]` or `socket:[123]` -> kind and inode."""
    kind, _, rest = link.partition(":[")
    number = rest.removesuffix("]")
    if kind in ("pipe", "socket") and number.isascii() and number.isdigit() and len(number) < 20:
        return kind, int(number)
    return None


def descriptors(root: Path, pid: int) -> list[tuple[int, str]]:
    """(descriptor, target of its link) of one process. Raises OSError."""
    found: list[tuple[int, str]] = []
    at = os.open(root / str(pid) / "fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(at):
            try:
                found.append((int(name), os.readlink(name, dir_fd=at)))
            except (OSError, ValueError):
                continue
    finally:
        os.close(at)
    return found
