"""One process of /proc: its descriptors, its last counters, its row."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import NamedTuple

from rogue_hunter.files import shut
from rogue_hunter.host.linux.describe import LARGE_BYTES, ThreadSums
from rogue_hunter.host.linux.gate import Gate
from rogue_hunter.host.linux.parse import (
    HZ,
    PF_KTHREAD,
    POLICIES,
    STATES,
    Stat,
    Status,
    effective_uid,
    parse_io,
    parse_schedstat,
    parse_status,
    text,
    tty_name,
)
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

USUAL_STATES = frozenset({b"R", b"S", b"D", b"T", b"Z", b"I"})
"""The letters that follow from `state`."""

_ASLEEP = frozenset({b"S", b"I"})

_USUAL_POLICY = "other"

Descriptors = tuple[int, int, int, int]
"""stat, status, io and schedstat, kept open; -1 for what may not be read or is not wanted."""

PAGE = os.sysconf("SC_PAGE_SIZE")
STAT_MAX = 1024
"""52 fields of at most 20 digits and a name of 64 bytes are at most 1,172 bytes; real ones are under 400."""
STATUS_MAX = 16384
"""With the numbers of a thousand groups that its user is in; without them it has 1.5 KB."""
IO_MAX = 512

LIGHT_CORES = 0.01
"""A process that uses less of a core than this, sleeps, and waits for no disk and no children is light: it is read once
a second and not at every tick in which it ran. It scores 23 of 100 at most: 1 % of the 0.8 cores that are busy at least
where others wait for a CPU is 1.25 fair shares, and pressure counts that four times."""
LIGHT_DISK_BYTES_PER_S = 1e6
LIGHT_AGE_S = 3.0
"""A younger one may become another program at any moment."""

_RATES = {
    "cpu_percent": "cpu_seconds_total", "pageins_per_s": "pageins_total", "faults_per_s": "faults_total",
    "disk_bytes_per_s": "disk_read_bytes_total", "context_switches_per_s": "context_switches_total",
    "wakeups_per_s": "wakeups_total", "run_delay_ms_per_s": "run_delay_seconds_total",
}
"""Each rate and the total that shows that it can be known."""


@dataclass(slots=True)
class Reading:
    """The files of one process, read in full.

    `status`, `io` and `sched` are empty where not readable. `clock_ns` is the CPU clock of the process, None where
    there is none: schedstat then gives the CPU time of one thread, and stat that of several. `now_ns` is the clock of
    this reading, `gate_ns` that of the gate (CPU clock, schedstat, stat): a tick with much to read takes long, and CPU
    time is divided by the time that it grew in. `before_ns` is the clock of the tick before: a process that did not run
    between its last reading and that tick has all of its counters' growth in this interval. `interval_s` is the
    tick's, 0 for the first; `uptime_s` the time since boot, from which the age of a process just seen follows.
    """

    stat: Stat
    status: bytes
    io: bytes
    sched: bytes
    clock_ns: int | None
    now_ns: int
    gate_ns: int
    before_ns: int
    interval_s: float
    uptime_s: float


class Counters(NamedTuple):
    """The raw counters of a reading, None for what was not readable. Of several threads, status and schedstat count
    the leader only: None."""

    cpu: int
    minflt: int
    majflt: int
    disk: int | None
    voluntary: int | None
    switches: int | None
    run_ns: int | None
    wait_ns: int
    clock_ns: int | None
    children_faults: int


_BORN = Counters(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Process:
    """State kept between ticks."""

    __slots__ = (
        "at",
        "comm",
        "counters",
        "denied",
        "described_ns",
        "elsewhere",
        "fds",
        "gate",
        "image",
        "io_denied",
        "kernel_thread",
        "key",
        "leader_ended",
        "light",
        "own",
        "read_ns",
        "reaped",
        "row",
        "seen_ns",
        "shared",
        "shared_ns",
        "started_s",
        "static",
        "thread_sums",
        "threads",
        "uids",
    )

    def __init__(self, key: Key, stat: Stat, boot_time: float, own: bool = False) -> None:
        self.key = key
        self.own = own
        """It is this very process, which is not read at every tick in which it ran."""
        self.gate: Gate[Process, int] | Gate[Process, bytes] | None = None
        self.at = -1
        self.fds: Descriptors | None = None
        self.started_s = stat.start / HZ
        self.comm = stat.comm
        self.image = stat.image
        self.kernel_thread = bool(stat.flags & PF_KTHREAD)
        self.threads = stat.threads
        self.leader_ended = False
        """Its leader has ended and other threads live: what stat says of memory is the leader's."""
        self.denied = self.io_denied = False
        self.described_ns = 0
        self.elsewhere = 0
        """Bytes held that are not in its resident set: swapped out, or huge pages."""
        self.shared = 0
        """Bytes that it shared with others when it was asked at `shared_ns`, 0 for never; only large ones are asked."""
        self.shared_ns = 0
        self.uids = b""
        self.counters: Counters | None = None
        self.reaped = False
        """It waited for a child between its last two readings."""
        self.light = False
        """Its row is kept for up to a second, whether it runs or not: see LIGHT_CORES."""
        self.read_ns = 0
        """Clock of the last full reading."""
        self.seen_ns = 0
        """Clock of the last reading of the gate at which the process had run."""
        self.thread_sums: ThreadSums | None = None
        self.static: Row = {"pid": key[0], "start_ticks": key[1], "start_time": round(boot_time + self.started_s, 2)}
        self.static["command"] = text(stat.comm)
        tty = tty_name(stat.tty)
        if tty is not None:
            self.static["tty"] = tty
        self.row: Row = {}

    def open(self, root: Path, schedstat: bool) -> Descriptors:
        """Keep stat, status, io, and if wanted schedstat open. Raises OSError."""
        at = os.open(f"{root}/{self.key[0]}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened: list[int] = []
        try:
            for name in ("stat", "status", "io", *(["schedstat"] if schedstat else [])):
                try:
                    opened.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=at))
                except (PermissionError, FileNotFoundError):
                    if name == "stat":
                        raise
                    opened.append(-1)
            self.io_denied = -1 in opened[:3]
            self.fds = (opened[0], opened[1], opened[2], opened[3] if schedstat else -1)
            return self.fds
        except OSError:
            for fd in opened:
                if fd >= 0:
                    shut(fd)
            raise
        finally:
            shut(at)

    def close(self) -> None:
        """Close what `open` opened."""
        if self.fds is not None:
            for fd in self.fds:
                if fd >= 0:
                    shut(fd)
            self.fds = None

    def update(self, r: Reading) -> tuple[float, bool]:
        """Take a full reading and make the row of it.

        Returns the CPU use in cores, and whether the process may be another one to a person than before: name, user or
        program changed. Raises ValueError for files that make no sense.
        """
        stat = r.stat
        status = parse_status(r.status) if r.status else Status()
        run_ns, wait_ns = parse_schedstat(r.sched) if r.sched else (None, 0)
        io = parse_io(r.io) if r.io else None
        single = stat.threads == 1
        voluntary, involuntary = (status.voluntary, status.involuntary) if single else (None, None)
        now = Counters(
            stat.utime + stat.stime, stat.minflt, stat.majflt, None if io is None else io[0] + io[1], voluntary,
            None if voluntary is None or involuntary is None else voluntary + involuntary, run_ns if single else None,
            wait_ns, r.clock_ns, stat.children_minflt + stat.children_majflt)
        changed = self._identify(stat, status)
        row = self._totals(stat, status, io, now)
        cores = self._add_rates(row, now, r)
        last = self.counters
        self.reaped = last is not None and now.children_faults > last.children_faults
        self.light = (self.own and "cpu_percent" in row) or (
            last is not None and now.clock_ns is not None and not self.reaped and cores < LIGHT_CORES
            and stat.state in _ASLEEP and not row.get("pageins_per_s")
            and row.get("disk_bytes_per_s", 0.0) < LIGHT_DISK_BYTES_PER_S
            and r.uptime_s - self.started_s >= LIGHT_AGE_S)
        self.counters = now
        self.threads = stat.threads
        self.read_ns, self.seen_ns = r.now_ns, r.gate_ns
        self.row = row
        return cores, changed

    def _identify(self, stat: Stat, status: Status) -> bool:
        """Keep name, user and place of the program; True when one of them changed and may be described otherwise."""
        changed = stat.comm != self.comm
        if changed:
            self.comm = stat.comm
            self.static["command"] = text(stat.comm)
        if stat.image is not None and stat.image != self.image:
            changed, self.image = True, stat.image
        if status.uids and status.uids != self.uids:
            uid = effective_uid(status.uids)
            if self.static.get("uid", uid) != uid:
                changed = True
                self.static.pop("user", None)
            self.uids = status.uids
            self.static["uid"] = uid
        # A kernel thread has no program; a kworker takes another name with each queue that it serves.
        return changed and not self.kernel_thread

    def _totals(self, stat: Stat, status: Status, io: tuple[int, int] | None, now: Counters) -> Row:
        """A row without rates. What most processes do not have is left out: a dict of 43 keys is twice as large."""
        row = self.static.copy()
        row["ppid"] = stat.ppid
        row["session"] = stat.session
        row["state"] = STATES.get(stat.state, "sleeping")
        if stat.state not in USUAL_STATES:
            row["state_raw"] = stat.state.decode("ascii", "replace")
        row["priority"] = stat.priority
        row["nice"] = stat.nice
        policy = POLICIES.get(stat.policy, _USUAL_POLICY)
        if policy != _USUAL_POLICY:
            row["policy"] = policy
        row["threads"] = stat.threads
        row["cpu_seconds_total"] = now.cpu / HZ
        row["cpu_user_seconds_total"] = stat.utime / HZ
        row["cpu_system_seconds_total"] = stat.stime / HZ
        if stat.children:
            row["children_cpu_seconds_total"] = stat.children / HZ
        self.elsewhere = (status.swap or 0) + status.huge
        row["memory_bytes"] = stat.rss * PAGE + self.elsewhere
        if status.peak is not None:
            row["memory_peak_bytes"] = status.peak if not self.elsewhere else max(status.peak, row["memory_bytes"])
            shared = max((status.shared or 0) + status.huge, self.shared)
            if shared >= LARGE_BYTES:
                row["shared_bytes"] = shared
            if status.swap:
                row["swap_bytes"] = status.swap
        row["pageins_total"] = stat.majflt
        row["faults_total"] = stat.minflt + stat.majflt
        if now.children_faults:
            row["children_faults_total"] = now.children_faults
            if stat.children_majflt:
                row["children_pageins_total"] = stat.children_majflt
        if io is not None:
            row["disk_read_bytes_total"], row["disk_write_bytes_total"] = io
        if now.switches is not None:
            row["context_switches_total"] = now.switches
            row["wakeups_total"] = now.voluntary
        if now.run_ns is not None:
            row["run_delay_seconds_total"] = round(now.wait_ns / 1e9, 6)
        return row

    def _add_rates(self, row: Row, now: Counters, r: Reading) -> float:
        """Rates as far as they can be known; returns the CPU use in cores."""
        since, since_full = self._since(r)
        then = self.counters if self.counters is not None else _BORN if since > 0 else None
        if then is None:
            return 0.0
        cores = 0.0
        if since > 0:
            per_s = 1.0 / since
            if now.clock_ns is not None and then.clock_ns is not None:
                cores = max(0, now.clock_ns - then.clock_ns) * 1e-9 * per_s
            elif now.run_ns is not None and then.run_ns is not None and now.run_ns >= then.run_ns:
                cores = (now.run_ns - then.run_ns) * 1e-9 * per_s
            elif now.cpu >= then.cpu:
                cores = (now.cpu - then.cpu) / HZ * per_s
            row["cpu_percent"] = round(100 * cores, 2)
            if now.majflt >= then.majflt:
                faults = now.minflt + now.majflt - then.minflt - then.majflt
                row["pageins_per_s"] = round((now.majflt - then.majflt) * per_s, 1)
                row["faults_per_s"] = round(faults * per_s, 1)
        if since_full > 0:
            per_s = 1.0 / since_full
            if now.disk is not None and then.disk is not None and now.disk >= then.disk:
                row["disk_bytes_per_s"] = round((now.disk - then.disk) * per_s, 1)
            if now.switches is not None and now.voluntary is not None and then.switches is not None \
                    and then.voluntary is not None and now.voluntary >= then.voluntary:
                row["context_switches_per_s"] = round((now.switches - then.switches) * per_s, 1)
                row["wakeups_per_s"] = round((now.voluntary - then.voluntary) * per_s, 1)
        # schedstat is read with the gate where it is the gate, else with all the others.
        waited = since_full if now.clock_ns is not None else since
        if waited > 0 and now.run_ns is not None and then.run_ns is not None and now.wait_ns >= then.wait_ns:
            row["run_delay_ms_per_s"] = round((now.wait_ns - then.wait_ns) * 1e-6 / waited, 2)
        return cores

    def _since(self, r: Reading) -> tuple[float, float]:
        """Seconds that the counters of the gate, and the others, have had to grow; 0 where no rate can be known."""
        if self.counters is None:
            age = r.uptime_s - self.started_s
            # Younger than the interval: all it ever used, it used in this interval. Its age is known to 1/HZ only.
            if r.interval_s > 0 and age <= (r.now_ns - r.before_ns) / 1e9 + 1 / HZ:
                age = max(age, 1 / HZ)
                return age, age
            return 0.0, 0.0
        if self.own or self.light:
            return (r.gate_ns - self.seen_ns) / 1e9, (r.now_ns - self.read_ns) / 1e9
        since = (r.gate_ns - max(self.seen_ns, r.before_ns)) / 1e9
        if self.counters.clock_ns is not None or self.counters.run_ns is not None:
            return since, (r.now_ns - max(self.read_ns, r.before_ns)) / 1e9
        # The gate of several threads is their CPU time to 10 ms: other counters may have grown since the last
        # full reading, which may be long ago.
        return since, (r.now_ns - self.read_ns) / 1e9

    def rest(self) -> None:
        """The process did not run since the last reading: its rates are 0, the rest of its row stays as it is."""
        row = self.row.copy()
        for name, total in _RATES.items():
            if name in row or total in row:
                row[name] = 0.0
        self.row = row
        self.light = False

    def stays_light(self, value: int | bytes, now_ns: int) -> bool:
        """True while a light process, by the `value` of its gate, has used no more than a light one does."""
        return self.light and (self.own or self._used_ns(value) < LIGHT_CORES * (now_ns - self.seen_ns))

    def _used_ns(self, value: int | bytes) -> float:
        """CPU time since the last reading, by the CPU clock; infinite for another gate."""
        known = None if self.counters is None else self.counters.clock_ns
        return inf if known is None or isinstance(value, bytes) else value - known

    def was_idle(self, value: int | bytes) -> bool:
        """False for a light process that has run since its last reading, by the `value` of its gate."""
        return not self.light or not 0 < self._used_ns(value) < inf

    def add_thread_sums(self, root: Path, now_ns: int) -> None:
        """Add to the row what all threads together waited, switched and woke up."""
        self.thread_sums = self.thread_sums or ThreadSums()
        self.thread_sums.add_to(self.row, root, self.key, now_ns)
