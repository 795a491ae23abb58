"""One process of /proc: its descriptors, its last counters, its row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rogue_hunter.host.linux.delay import ThreadDelay
from rogue_hunter.host.linux.descriptors import shut
from rogue_hunter.host.linux.parse import (
    HZ,
    PF_KTHREAD,
    STATES,
    Stat,
    effective_uid,
    parse_io,
    parse_schedstat,
    parse_status,
    text,
    tty_name,
)
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

if TYPE_CHECKING:
    from rogue_hunter.host.linux.gate import Gate

Descriptors = tuple[int, int, int, int]
"""stat, status, io and schedstat, kept open; -1 for what may not be read or is not wanted."""

PAGE = os.sysconf("SC_PAGE_SIZE")
STAT_MAX = 1024
"""52 fields of at most 20 digits and a name of 64 bytes are at most 1,172 bytes; real ones are under 400, and only the
first 24 fields are used."""
STATUS_MAX = 4096
IO_MAX = 512

_ZERO_RATES = {
    "cpu_percent": 0.0, "pageins_per_s": 0.0, "faults_per_s": 0.0, "disk_bytes_per_s": 0.0,
    "context_switches_per_s": 0.0, "wakeups_per_s": 0.0, "run_delay_ms_per_s": 0.0,
}


class Process:
    """State kept between ticks. Counters are the raw ones of the last full reading; None was not readable."""

    __slots__ = (
        "at",
        "children_faults",
        "clock_ns",
        "comm",
        "cpu",
        "delay",
        "denied",
        "fds",
        "gate",
        "invol",
        "io_denied",
        "kernel_thread",
        "key",
        "majflt",
        "minflt",
        "own",
        "rd",
        "read_ns",
        "reaped",
        "row",
        "run_ns",
        "seen_ns",
        "started_s",
        "static",
        "threads",
        "uids",
        "vol",
        "wait_ns",
        "wr",
    )

    def __init__(self, key: Key, stat: Stat, boot_time: float, own: bool = False) -> None:
        self.key = key
        self.own = own
        """It is this very process, which is not read at every tick in which it ran."""
        self.gate: Gate[int] | Gate[bytes] | None = None
        self.at = -1
        self.fds: Descriptors | None = None
        self.started_s = stat.start / HZ
        self.comm = stat.comm
        self.kernel_thread = bool(stat.flags & PF_KTHREAD)
        self.threads = stat.threads
        self.denied = self.io_denied = False
        self.uids = b""
        self.cpu = self.minflt = self.majflt = 0
        self.rd: int | None = None
        self.wr = 0
        self.vol: int | None = None
        self.invol = 0
        self.clock_ns: int | None = None
        self.run_ns: int | None = None
        self.wait_ns = 0
        self.read_ns = 0
        """Clock of the last full reading."""
        self.seen_ns = 0
        """Clock of the last reading of the gate at which the process had run."""
        self.delay: ThreadDelay | None = None
        self.children_faults = 0
        self.reaped = False
        """It waited for a child between its last two readings."""
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

    def update(self, stat: Stat, status: bytes, io: bytes, sched: bytes, clock_ns: int | None, now_ns: int,
               gate_ns: int, before_ns: int, interval_s: float, uptime_s: float) -> tuple[float, bool]:
        """Take a full reading and make the row of it.

        `clock_ns` is the CPU clock of the process, None where there is none: then schedstat tells the CPU time of one
        thread, and stat that of several. `now_ns` is the clock of this reading, `gate_ns` that of what the gate said
        (CPU clock, schedstat, stat): a tick with much to read takes long, and CPU time is divided by the time that it
        grew in. `before_ns` is the clock of the tick before: a process that did not run between its last reading and
        that tick has all of its counters' growth in this interval. `interval_s` is the tick's, 0 for the first;
        `uptime_s` the time since boot, by which the age of a process just seen is known. `status`, `io` and `sched` are
        empty where not readable. Gives the CPU use in cores, and whether the name or the user changed.
        """
        uids, peak, vol, invol = parse_status(status) if status else (b"", None, None, None)
        run_ns, wait_ns = parse_schedstat(sched) if sched else (None, 0)
        rd, wr = parse_io(io) if io else (None, 0)
        cpu = stat.utime + stat.stime
        first = not self.row
        new_name = stat.comm != self.comm
        if new_name:
            self.comm = stat.comm
            self.static["command"] = text(stat.comm)
        if uids != self.uids and uids:
            uid = effective_uid(uids)
            if self.static.get("uid", uid) != uid:
                new_name = True
                self.static.pop("user", None)
            self.uids = uids
            self.static["uid"] = uid
        row = self.static.copy()
        row["ppid"] = stat.ppid
        row["session"] = stat.session
        row["state"] = STATES.get(stat.state, "sleeping")
        row["state_raw"] = stat.state.decode("ascii", "replace")
        row["priority"] = stat.priority
        row["nice"] = stat.nice
        row["threads"] = stat.threads
        row["cpu_seconds_total"] = cpu / HZ
        row["cpu_user_seconds_total"] = stat.utime / HZ
        row["cpu_system_seconds_total"] = stat.stime / HZ
        row["children_cpu_seconds_total"] = stat.children / HZ
        row["memory_bytes"] = stat.rss * PAGE
        if peak is not None:
            row["memory_peak_bytes"] = peak
        row["pageins_total"] = stat.majflt
        row["faults_total"] = stat.minflt + stat.majflt
        row["children_pageins_total"] = stat.children_majflt
        row["children_faults_total"] = stat.children_minflt + stat.children_majflt
        if rd is not None:
            row["disk_read_bytes_total"] = rd
            row["disk_write_bytes_total"] = wr
        if vol is not None and invol is not None:
            row["context_switches_total"] = vol + invol
            row["wakeups_total"] = vol
        if run_ns is not None and stat.threads == 1:
            row["run_delay_seconds_total"] = round(wait_ns / 1e9, 6)

        since, since_full = self._since(first, now_ns, gate_ns, before_ns, interval_s, uptime_s)
        cores = 0.0
        if since > 0:
            per_s = 1.0 / since
            if clock_ns is not None and self.clock_ns is not None:
                cores = max(0, clock_ns - self.clock_ns) * 1e-9 * per_s
            elif run_ns is not None and self.run_ns is not None and stat.threads == 1 and run_ns >= self.run_ns:
                cores = (run_ns - self.run_ns) * 1e-9 * per_s
            elif cpu >= self.cpu:
                cores = (cpu - self.cpu) / HZ * per_s
            row["cpu_percent"] = round(100 * cores, 2)
            if stat.majflt >= self.majflt:
                row["pageins_per_s"] = round((stat.majflt - self.majflt) * per_s, 1)
                row["faults_per_s"] = round((stat.minflt + stat.majflt - self.minflt - self.majflt) * per_s, 1)
        if since_full > 0:
            per_s = 1.0 / since_full
            if rd is not None and self.rd is not None and rd + wr >= self.rd + self.wr:
                row["disk_bytes_per_s"] = round((rd + wr - self.rd - self.wr) * per_s, 1)
            if vol is not None and self.vol is not None and invol is not None and vol >= self.vol:
                row["context_switches_per_s"] = round((vol + invol - self.vol - self.invol) * per_s, 1)
                row["wakeups_per_s"] = round((vol - self.vol) * per_s, 1)
        # schedstat is read with the gate where it is the gate, else with all the others.
        waited = since_full if clock_ns is not None else since
        if waited > 0 and "run_delay_seconds_total" in row and wait_ns >= self.wait_ns and self.run_ns is not None:
            row["run_delay_ms_per_s"] = round((wait_ns - self.wait_ns) * 1e-6 / waited, 2)
        self.reaped = not first and row["children_faults_total"] > self.children_faults
        self.children_faults = row["children_faults_total"]
        self.cpu, self.minflt, self.majflt = cpu, stat.minflt, stat.majflt
        self.rd, self.wr = rd, wr
        self.vol, self.invol = vol, invol or 0
        self.run_ns, self.wait_ns = (run_ns if stat.threads == 1 else None), wait_ns
        self.clock_ns = clock_ns
        self.threads = stat.threads
        self.read_ns, self.seen_ns = now_ns, gate_ns
        self.row = row
        return cores, new_name

    def _since(self, first: bool, now_ns: int, gate_ns: int, before_ns: int, interval_s: float, uptime_s: float,
               ) -> tuple[float, float]:
        """Seconds that the counters of the gate, and the others, have had to grow; 0 where no rate can be told."""
        if first:
            age = uptime_s - self.started_s
            # Younger than the interval: all it ever used, it used in this interval. Its age is known to 1/HZ only.
            if interval_s > 0 and age <= (now_ns - before_ns) / 1e9 + 1 / HZ:
                self.rd, self.vol, self.run_ns, self.clock_ns = 0, 0, 0, 0
                age = max(age, 1 / HZ)
                return age, age
            return 0.0, 0.0
        if self.own:
            return (gate_ns - self.seen_ns) / 1e9, (now_ns - self.read_ns) / 1e9
        since = (gate_ns - max(self.seen_ns, before_ns)) / 1e9
        if self.clock_ns is not None or (self.threads == 1 and self.run_ns is not None):
            return since, (now_ns - max(self.read_ns, before_ns)) / 1e9
        # The gate of several threads is their CPU time to 10 ms: other counters may have grown since the last
        # full reading, which may be long ago.
        return since, (now_ns - self.read_ns) / 1e9

    def rest(self) -> None:
        """The process did not run since the last reading: its rates are 0, the rest of its row stands."""
        row = self.row.copy()
        for name, zero in _ZERO_RATES.items():
            if name in row or _total_of(name) in row:
                row[name] = zero
        self.row = row

    def thread_delay(self, root: Path, now_ns: int) -> None:
        """Add the run delay of several threads to the row."""
        self.delay = self.delay or ThreadDelay()
        self.delay.tell(self.row, root, self.key, now_ns)


_TOTALS = {
    "cpu_percent": "cpu_seconds_total", "pageins_per_s": "pageins_total", "faults_per_s": "faults_total",
    "disk_bytes_per_s": "disk_read_bytes_total", "context_switches_per_s": "context_switches_total",
    "wakeups_per_s": "wakeups_total", "run_delay_ms_per_s": "run_delay_seconds_total",
}


def _total_of(rate: str) -> str:
    return _TOTALS[rate]
