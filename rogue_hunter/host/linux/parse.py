"""The bytes of /proc as values. Every function here is pure, none of them reads, and bytes that make no sense are a
ValueError.

A process chooses its own name, so nothing here trusts a name to be text, to lack parentheses or to lack line feeds.
"""

from __future__ import annotations

import os
import re
from sys import intern
from typing import Any, NamedTuple

HZ = os.sysconf("SC_CLK_TCK")
"""Clock ticks a second of utime, stime and starttime (100 on every kernel built so far)."""

PF_KTHREAD = 0x00200000
"""Bit of the flags field of stat: the process is a kernel thread (include/linux/sched.h)."""

STATES = {
    b"R": "running", b"S": "sleeping", b"D": "uninterruptible", b"T": "stopped", b"t": "stopped", b"Z": "defunct",
    b"X": "defunct", b"x": "defunct", b"I": "idle", b"P": "idle", b"W": "running", b"K": "running",
}
"""The state letter of stat, proc_pid_stat(5), in the words of the schema."""


POLICIES = {b"0": "other", b"1": "fifo", b"2": "rr", b"3": "batch", b"5": "idle", b"6": "deadline", b"7": "ext"}
"""The scheduling policies of stat, sched(7), in the words of the schema; ext is sched_ext."""


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that are used. Times in clock ticks, rss in pages. `policy` is a key of POLICIES;
    `image` is the program's place in memory (start_code, arg_start), another one after each exec, and None where the
    kernel does not show it: for a process that may not be traced, or that has no memory."""

    comm: bytes
    state: bytes
    ppid: int
    session: int
    tty: int
    flags: int
    minflt: int
    majflt: int
    utime: int
    stime: int
    children: int
    priority: int
    nice: int
    threads: int
    start: int
    rss: int
    children_minflt: int = 0
    children_majflt: int = 0
    policy: bytes = b""
    image: tuple[bytes, bytes] | None = None


def parse_stat(data: bytes) -> Stat:
    """/proc/PID/stat. Raises ValueError when it is cut short or no stat at all."""
    left, right = data.find(b"("), data.rfind(b")")
    f = data[right + 2:].split()
    if left < 0 or right < left or len(f) < 22:
        raise ValueError("stat is cut short")
    whole = len(f) > 45
    return Stat(
        data[left + 1:right], f[0], int(f[1]), int(f[3]), int(f[4]), int(f[6]), int(f[7]), int(f[9]), int(f[11]),
        int(f[12]), int(f[13]) + int(f[14]), int(f[15]), int(f[16]), int(f[17]), int(f[19]), int(f[21]), int(f[8]),
        int(f[10]), f[38] if whole else b"", (f[23], f[45]) if whole and f[45] != b"0" else None,
    )


def without_arguments(data: bytes) -> bool:
    """Whether /proc/PID/stat says that a process has no arguments: arg_start and arg_end, fields 48 and 49, are the
    same place. They differ where arguments are there and cannot be read, as during an exec, and both are 0 where the
    kernel does not show them."""
    f = data[data.rfind(b")") + 2:].split()
    return len(f) > 46 and f[45] == f[46] != b"0"


_PAGES = 1 << 47
"""More pages than that are more bytes than 64 bits count, where a page has 64 KiB."""


def parse_touched(data: bytes) -> tuple[int, int, int]:
    """What others can change of a process that does not run, out of its stat: start time (to know it again), parent
    and resident pages. Raises ValueError."""
    right = data.rfind(b")")
    f = data[right + 2:].split(None, 22)
    if right < 0 or len(f) < 22:
        raise ValueError("stat is cut short")
    start, ppid, pages = int(f[19]), int(f[1]), int(f[21])
    if not (-1 << 31 <= ppid < 1 << 31 and 0 <= pages < _PAGES):
        raise ValueError("a number beyond what a kernel has")
    return start, ppid, pages


def parse_schedstat(data: bytes) -> tuple[int, int]:
    """/proc/PID/schedstat: nanoseconds on a CPU and nanoseconds waiting for one, of the main thread."""
    fields = data.split()
    if len(fields) < 2:
        raise ValueError("schedstat is cut short")
    return int(fields[0]), int(fields[1])


class Status(NamedTuple):
    """The fields of /proc/PID/status that are used: the four user ids as printed, sizes in bytes, context switches.
    None for what is missing: a kernel thread has no memory, a kernel before 4.5 does not divide it. `swap` is what was
    swapped out, `huge` what is mapped from the pool of huge pages; neither is in the resident set."""

    uids: bytes = b""
    peak: int | None = None
    voluntary: int | None = None
    involuntary: int | None = None
    shared: int | None = None
    swap: int | None = None
    huge: int = 0


def parse_status(data: bytes) -> Status:
    """/proc/PID/status. Raises ValueError when it is cut short.

    `Name:` is the first line and the kernel escapes its line feeds, so a key is searched after a line feed only.
    """
    at = data.find(b"\nUid:")
    uids = data[at + 5:data.find(b"\n", at + 5)] if at >= 0 else b""
    at = data.find(b"\nVmHWM:")
    peak = shared = swap = None
    huge = 0
    if at >= 0:
        peak = _kib(data, at + 7)
        file, shmem = data.find(b"\nRssFile:", at), data.find(b"\nRssShmem:", at)
        if file >= 0 and shmem >= 0:
            shared = _kib(data, file + 9) + _kib(data, shmem + 10)
        at = data.find(b"\nVmSwap:", at)
        if at >= 0:
            swap = _kib(data, at + 8)
            at = data.find(b"\nHugetlbPages:", at)
            if at >= 0:
                huge = _kib(data, at + 14)
    at = data.rfind(b"\nvoluntary_ctxt_switches:")
    if at < 0:
        return Status(uids, peak, None, None, shared, swap, huge)
    fields = data[at:].split()
    if len(fields) < 4:
        raise ValueError("status is cut short")
    return Status(uids, peak, int(fields[1]), int(fields[3]), shared, swap, huge)


_ROLLUP = re.compile(rb"^(Rss|Private_Clean|Private_Dirty|Swap|SwapPss): +([0-9]{1,15}) kB$", re.MULTILINE)


def parse_shared(rollup: bytes) -> int:
    """/proc/PID/smaps_rollup: bytes of the resident set and of what was swapped out that other processes have mapped as
    well, also those that a child has in common with its parent since fork(2). Raises ValueError.

    Of n processes that share S swapped bytes, each has Swap - SwapPss = S - S/n: at least half of S.
    """
    sizes = {name: int(number) * 1024 for name, number in _ROLLUP.findall(rollup)}
    if len(sizes) < 3:
        raise ValueError("smaps_rollup is cut short")
    swap = sizes.get(b"Swap", 0)
    swapped = min(swap, 2 * max(0, swap - sizes.get(b"SwapPss", swap)))
    return max(0, sizes[b"Rss"] - sizes[b"Private_Clean"] - sizes[b"Private_Dirty"]) + swapped


def _kib(data: bytes, at: int) -> int:
    """Bytes of the size in kB that begins at `at`."""
    return int(data[at:data.find(b"kB", at)]) * 1024


def parse_io(data: bytes) -> tuple[int, int]:
    """/proc/PID/io: bytes read from and written to storage."""
    at = data.index(b"\nread_bytes:")
    fields = data[at:].split()
    if len(fields) < 4:
        raise ValueError("io is cut short")
    return int(fields[1]), int(fields[3])


def effective_uid(uids: bytes) -> int:
    """The effective one of the four ids of status: real, effective, saved, file system."""
    ids = uids.split()
    if len(ids) < 2:
        raise ValueError("no user ids")
    return int(ids[1])


def tty_name(number: int) -> str | None:
    """The terminal of stat's tty_nr: minor in bits 0-7 and 20-31, major in bits 8-19. None for no terminal."""
    if number == 0:
        return None
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136) * 256}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return f"{major}:{minor}"


class CpuTimes(NamedTuple):
    """/proc/stat: clock ticks of all CPUs together, how many are online, and seconds since the epoch of the boot."""

    busy: int
    idle: int
    steal: int
    cpus: int
    boot_time: int | None


def parse_cpu(data: bytes) -> CpuTimes:
    """The cpu lines and btime of /proc/stat. guest time is a part of user time and is not counted twice."""
    lines = data.split(b"\n")
    if not lines[0].startswith(b"cpu "):
        raise ValueError("no cpu line")
    t = [int(x) for x in lines[0].split()[1:9]]
    t += [0] * (8 - len(t))
    cpus = 0
    while cpus + 1 < len(lines) and lines[cpus + 1].startswith(b"cpu"):
        cpus += 1
    boot = None
    at = data.find(b"\nbtime ")
    if at >= 0:
        boot = int(data[at + 7:].partition(b"\n")[0])
    return CpuTimes(t[0] + t[1] + t[2] + t[5] + t[6], t[3] + t[4], t[7], max(1, cpus), boot)


def parse_meminfo(data: bytes) -> tuple[int, int | None]:
    """/proc/meminfo: total and available bytes; a kernel before 3.14 has no MemAvailable: None."""
    def field(name: bytes) -> int | None:
        at = data.find(name)
        return int(data[at + len(name):].partition(b"kB")[0]) * 1024 if at >= 0 else None

    total = field(b"MemTotal:")
    if total is None:
        raise ValueError("no MemTotal")
    return total, field(b"MemAvailable:")


_ARC = re.compile(rb"^(size|c_min) +[0-9]+ +([0-9]{1,19})$", re.MULTILINE)


def parse_arcstats(data: bytes) -> int:
    """/proc/spl/kstat/zfs/arcstats: bytes of the ARC, the cache of ZFS, that it gives back when memory is short. The
    kernel counts them as used. Raises ValueError."""
    sizes = {name: int(number) for name, number in _ARC.findall(data)}
    if len(sizes) < 2:
        raise ValueError("arcstats without size and c_min")
    return max(0, sizes[b"size"] - sizes[b"c_min"])


def parse_pressure(data: bytes) -> tuple[int | None, int | None]:
    """/proc/pressure/*: the some and the full total, microseconds since boot; None where the line is missing."""
    totals: dict[bytes, int] = {}
    for line in data.splitlines():
        kind, _, rest = line.partition(b" ")
        at = rest.find(b"total=")
        if at >= 0:
            totals[kind] = int(rest[at + 6:])
    return totals.get(b"some"), totals.get(b"full")


def parse_loadavg_last_pid(data: bytes) -> bytes:
    """The last field of /proc/loadavg: the pid given out last. It changes whenever a process or thread is made."""
    return data[data.rstrip().rfind(b" ") + 1:].strip()


def split_cmdline(data: bytes) -> list[str]:
    """/proc/PID/cmdline as arguments. A process that writes its title over its arguments leaves one with blanks."""
    return [text(part) for part in data.rstrip(b"\0").split(b"\0")] if data.strip(b"\0") else []


def text(data: bytes) -> str:
    """Bytes as text: what is not UTF-8 becomes a visible escape, so there is never a surrogate. Equal texts are one
    object as long as it is in use: of 1,000 processes most have a name and arguments that others have."""
    return intern(data.decode("utf-8", "backslashreplace"))


def fits(row: dict[str, Any]) -> bool:
    """False for a number of more than 64 bits: no kernel writes one, but a recorded tree may hold anything."""
    return row["start_ticks"] >= 0 and all(-1 << 63 <= v < 1 << 63 for v in row.values() if type(v) is int)


class Reclaim(NamedTuple):
    """What /proc/vmstat counts of memory that was short: pages read again soon after their eviction, allocations that
    had to free memory first, processes killed. None where the kernel does not count it."""

    refaults: int | None
    direct_reclaims: int | None
    oom_kills: int | None


_VMSTAT = re.compile(rb"^(workingset_refault|allocstall|oom_kill)([a-z_]*) ([0-9]{1,19})$", re.MULTILINE)


def parse_vmstat(data: bytes) -> Reclaim:
    """Sums over zones and over anonymous and file pages (mm/vmstat.c)."""
    sums: dict[bytes, int] = {}
    for name, tail, number in _VMSTAT.findall(data):
        if name != b"oom_kill" or not tail:
            sums[name] = sums.get(name, 0) + int(number)
    return Reclaim(sums.get(b"workingset_refault"), sums.get(b"allocstall"), sums.get(b"oom_kill"))


class Disk(NamedTuple):
    """One line of /proc/diskstats: requests done, bytes moved, milliseconds that the requests took together."""

    requests: int
    moved: int
    wait_ms: int


SECTOR_BYTES = 512
"""Size of a sector of /proc/diskstats, independent of the device's own (Documentation/admin-guide/iostats.rst)."""

_PARTITION = re.compile(rb"(?:[sv]d[a-z]+|hd[a-z]+|xvd[a-z]+)[0-9]+|"
                        rb"(?:nvme[0-9]+n[0-9]+|mmcblk[0-9]+|nbd[0-9]+)p[0-9]+|nvme[0-9]+c[0-9]+n[0-9]+")
"""And a path to a disk of several (NVMe multipath)."""
_STACKED = (b"loop", b"ram", b"dm-", b"md", b"zram", b"sr", b"fd", b"drbd", b"bcache", b"zd")
"""Devices whose traffic is that of another device, or of memory: counting them would count it twice."""


def parse_diskstats(data: bytes) -> dict[bytes, Disk]:
    """Whole disks that lie on no other device, by name. A malformed line is left out."""
    found: dict[bytes, Disk] = {}
    for line in data.splitlines():
        words = line.split()
        if len(words) < 11 or words[2].startswith(_STACKED) or _PARTITION.fullmatch(words[2]):
            continue
        try:
            reads, sectors_in, ms_in, writes, sectors_out, ms_out = (int(words[at]) for at in (3, 5, 6, 7, 9, 10))
        except ValueError:
            continue
        found[words[2]] = Disk(reads + writes, (sectors_in + sectors_out) * SECTOR_BYTES, ms_in + ms_out)
    return found
