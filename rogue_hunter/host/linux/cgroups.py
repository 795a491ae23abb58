"""Control groups: where a process's groups lie, which limits they set, and how far those limits bind.

Reads version 1 (one tree a controller), version 2 (one tree for all) and machines that have both. A limit of an
ancestor binds its descendants, so every group up to the root of the tree is looked at. File formats: cgroup-v2.rst and
cgroup-v1/{memory,blkio-controller,pids}.rst of the kernel's admin guide, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from rogue_hunter.files import read_start

CONTROLLERS = ("cpu", "memory", "blkio", "freezer", "pids")
"""The trees of version 1 that are read. blkio is called io in version 2."""

UNLIMITED_BYTES = 1 << 60
"""memory.limit_in_bytes of a group without a limit is the largest multiple of a page below 2^63."""

FILE_MAX = 1 << 16


class CpuLimit(NamedTuple):
    """A CPU quota: cores allowed; CPU periods in which it struck, and seconds held back, since the group was made."""

    cores: float
    throttled: int
    throttled_s: float


class MemoryLimit(NamedTuple):
    """A memory limit: bytes allowed and used; how often an allocation met it, and processes killed for it. `path` is
    that of the group that sets it, empty for the group that was asked about."""

    limit: int
    use: int
    hits: int
    oom_kills: int
    path: str = ""


class IoLimit(NamedTuple):
    """A limit of bytes, or with `requests` of requests, a second to one device in one direction, and what was moved so
    far in that direction."""

    device: str
    direction: str
    limit: int
    moved: int
    requests: bool = False


class TaskLimit(NamedTuple):
    """A limit of tasks (processes and threads): how many there may be, and how often a new one was refused. `path` as
    in MemoryLimit."""

    limit: int
    refused: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """One control group in one tree. `controller` is empty in version 2, where one directory has all files."""

    directory: Path
    controller: str
    path: str

    @property
    def line(self) -> list[Group]:
        """The group and its ancestors but the root, itself first."""
        parts = self.path.strip("/").split("/")
        return [self, *(Group(directory, self.controller, "/" + "/".join(parts[:-up])) for up, directory in enumerate(
            self.directory.parents[:len(parts) - 1], 1))]


def parse_cgroup(data: bytes) -> dict[str, str]:
    """/proc/PID/cgroup as controller -> path; the key of version 2's tree is empty."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        number, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if not colon or not number.isdigit():
            continue
        for name in names.split(","):
            found.setdefault(name, path)
    return found


def parse_mounts(mountinfo: bytes) -> dict[str, Path]:
    """/proc/self/mountinfo as controller -> where its tree is mounted; the key of version 2's tree is empty."""
    found: dict[str, Path] = {}
    for line in mountinfo.decode("utf-8", "surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        place = Path(fields[4].replace("\\040", " "))
        if kind[0] == "cgroup2":
            found.setdefault("", place)
        elif kind[0] == "cgroup":
            for name in kind[2].split(","):
                if name in CONTROLLERS:
                    found.setdefault(name, place)
    return found


def parse_pairs(data: bytes) -> dict[str, int]:
    """Lines of `name number`, as in cpu.stat, memory.events and memory.oom_control."""
    found: dict[str, int] = {}
    for line in data.decode("ascii", "replace").splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit() and len(number) < 20:
            found[name] = int(number)
    return found


def parse_devices(data: bytes) -> dict[str, dict[str, int]]:
    """Lines of `8:0 rbytes=1 wbytes=2` (io.max, io.stat) as device -> name -> number; `max` is left out."""
    found: dict[str, dict[str, int]] = {}
    for line in data.decode("ascii", "replace").splitlines():
        words = line.split()
        for pair in words[1:]:
            name, _, number = pair.partition("=")
            if number.isdigit() and len(number) < 20:
                found.setdefault(words[0], {})[name] = int(number)
    return found


def parse_throttle(data: bytes) -> dict[tuple[str, str], int]:
    """Lines of `8:0 Read 123` (blkio.throttle.io_service_bytes) or `8:0 4194304` as (device, direction) -> number."""
    found: dict[tuple[str, str], int] = {}
    for line in data.decode("ascii", "replace").splitlines():
        words = line.split()
        if len(words) in (2, 3) and words[-1].isdigit() and ":" in words[0] and len(words[-1]) < 20:
            found[words[0], words[1].lower() if len(words) == 3 else ""] = int(words[-1])
    return found


class Cgroups:
    """The trees of control groups of this machine, as far as they are mounted and may be read.

    `root` is the /proc to read; `mounts` replaces the places of the trees (tests). No method raises: a file that is
    missing, unreadable or malformed gives no limit.
    """

    def __init__(self, root: Path = Path("/proc"), mounts: dict[str, Path] | None = None) -> None:
        self._root = root
        self._mounts = parse_mounts(_read(root / "self/mountinfo")) if mounts is None else mounts

    def groups(self, pid: int) -> list[Group]:
        """The groups of a process and all their ancestors but the roots, those of the process first."""
        found: list[Group] = []
        for controller, path in parse_cgroup(_read(self._root / str(pid) / "cgroup")).items():
            place = self._mounts.get(controller)
            parts = [part for part in path.split("/") if part]
            if place is None or ".." in parts:
                continue
            if parts:
                own = "/".join(parts)
                found += Group(place / own, controller, "/" + own).line
        return found

    def cpu(self, group: Group) -> CpuLimit | None:
        """The CPU quota of a group; None without one."""
        if group.controller == "":
            quota, _, period = _read(group.directory / "cpu.max").strip().partition(b" ")
        elif group.controller == "cpu":
            quota = _read(group.directory / "cpu.cfs_quota_us").strip()
            period = _read(group.directory / "cpu.cfs_period_us").strip()
        else:
            return None
        throttled, held_s = self.throttled(group)
        if not quota.isdigit() or not period.isdigit() or int(period) == 0 or throttled is None:
            return None
        return CpuLimit(int(quota) / int(period), throttled, held_s)

    def throttled(self, group: Group) -> tuple[int | None, float]:
        """In how many CPU periods a quota held a group back, None if that is not known, and for how many seconds."""
        stat = parse_pairs(_read(group.directory / "cpu.stat"))
        held_s = stat.get("throttled_usec", 0) / 1e6 + stat.get("throttled_time", 0) / 1e9
        return stat.get("nr_throttled"), held_s

    def memory(self, group: Group) -> MemoryLimit | None:
        """The memory limit of a group; None without one."""
        directory, path = group.directory, group.path
        if group.controller == "":
            bounds = [_number(directory / "memory.max"), _number(directory / "memory.high")]
            use = _number(directory / "memory.current")
            events = parse_pairs(_read(directory / "memory.events"))
            hits, kills = events.get("max", 0) + events.get("high", 0), events.get("oom_kill", 0)
        elif group.controller == "memory":
            # A kill is counted in the group of the process that was killed; the limit may be that of an ancestor.
            bound, at = min(((_number(each.directory / "memory.limit_in_bytes") or UNLIMITED_BYTES, each)
                             for each in group.line), key=itemgetter(0))
            bounds, path = [bound], at.path
            use = _number(at.directory / "memory.usage_in_bytes")
            hits = _number(directory / "memory.failcnt") or 0
            kills = parse_pairs(_read(directory / "memory.oom_control")).get("oom_kill", 0)
        else:
            return None
        limit = min((bound for bound in bounds if bound is not None), default=UNLIMITED_BYTES)
        return None if limit >= UNLIMITED_BYTES or use is None else MemoryLimit(
            limit, use, hits, kills, path if path != group.path else "")

    def tasks(self, group: Group) -> TaskLimit | None:
        """The limit of tasks of a group; None without one, and where the kernel does not count refusals."""
        if group.controller not in ("", "pids"):
            return None
        # Version 1, and version 2 before Linux 6.11, count a refusal in the group of the process that could not fork;
        # the limit may be that of an ancestor. Later kernels count in the group with the limit (and in the others, for
        # its descendants).
        local = _read(group.directory / "pids.events.local") if group.controller == "" else b""
        limits = [(limit - (_number(each.directory / "pids.current") or 0), limit, each.path)
                  for each in (group.line if not local else [group])
                  if (limit := _number(each.directory / "pids.max")) is not None]
        refused = parse_pairs(local or _read(group.directory / "pids.events")).get("max") if limits else None
        if refused is None:
            return None
        _, limit, path = min(limits, key=itemgetter(0))
        return TaskLimit(limit, refused, path if path != group.path else "")

    def frozen(self, group: Group) -> bool:
        """True when every process of the group is kept from running by its freezer."""
        if group.controller == "":
            return parse_pairs(_read(group.directory / "cgroup.events")).get("frozen") == 1
        return group.controller == "freezer" and _read(group.directory / "freezer.state").strip() == b"FROZEN"

    def io(self, group: Group) -> list[IoLimit]:
        """The limits of a group on traffic to devices, in bytes and in requests a second."""
        directory = group.directory
        found = []
        if group.controller == "":
            bounds, moved = parse_devices(_read(directory / "io.max")), parse_devices(_read(directory / "io.stat"))
            for device, limits in bounds.items():
                for way, letter in (("read", "r"), ("write", "w")):
                    for requests, bound, total in ((False, f"{letter}bps", f"{letter}bytes"),
                                                   (True, f"{letter}iops", f"{letter}ios")):
                        if bound in limits:
                            found.append(IoLimit(device, way, limits[bound], moved.get(device, {}).get(total, 0),
                                                 requests))
        elif group.controller == "blkio":
            for requests, bound, total in ((False, "bps", "io_service_bytes"), (True, "iops", "io_serviced")):
                served: dict[tuple[str, str], int] | None = None
                for way in ("read", "write"):
                    for (device, _), limit in parse_throttle(
                            _read(directory / f"blkio.throttle.{way}_{bound}_device")).items():
                        if served is None:
                            served = parse_throttle(_read(directory / f"blkio.throttle.{total}"))
                        found.append(IoLimit(device, way, limit, served.get((device, way), 0), requests))
        return found


def _read(file: Path) -> bytes:
    try:
        return read_start(file, FILE_MAX)
    except (OSError, ValueError):
        return b""


def _number(file: Path) -> int | None:
    data = _read(file).strip()
    return int(data) if data.isdigit() and len(data) < 20 else None
