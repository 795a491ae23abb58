"""Processes that limits hold back: CPU quota, memory, I/O and tasks of control groups, affinity, open files, a full
disk.

A limit is looked for only where it can matter: on the control groups of processes that used or waited for something in
the last seconds. A machine without limits costs one reading of /proc/PID/cgroup a process that becomes active.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rogue_hunter.host.linux.cgroups import Cgroups, CpuLimit, Group, IoLimit, MemoryLimit, TaskLimit
from rogue_hunter.sampling.units import KTHREADD, starts_jobs
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, Tick, record, shown_name
from rogue_hunter.worker import Worker

EVERY_S = 1.0
"""Seconds between two looks. With 10 limited groups a look takes 0.25 ms, so less than 0.1 ms a tick at 3 Hz."""

RECHECK_S = 30.0
"""Seconds after which a group is asked again whether it has limits at all: they can be set at any time."""

NEW_GROUPS = 20
"""Processes whose groups are looked up in one look, at 15 us each; the others follow in the next one."""

CPU_PERCENT = 1.0
RUN_DELAY_MS_PER_S = 10.0
"""Use and waiting from which a process is of interest."""

MEMORY_NEAR = 0.9
IO_NEAR = 0.8
"""Parts of a limit from which it counts as reached. The kernel lets I/O through in bursts, so its rate over a second is
below the limit even while writers wait for it."""

AFFINITY_DELAY_MS_PER_S = 200.0
AFFINITY_IDLE_CORES = 0.5
"""A process waits this long for its CPUs while at least so many others idle: its affinity keeps it there."""

FULL_EVERY_S = 3.0
FULL_LEAST = 1 << 20
"""Seconds between two looks for full file systems, and bytes free below which one is full: no program writes on."""
FULL_TRIES, FULL_WAIT_S = 8, 0.03
"""How often the files of a process are read before it counts as one that does not write there, and the time between."""
FULL_CPU_PERCENT, FULL_BYTES_PER_S = 5.0, 1e6
BUSIEST = 4
"""CPU use, or traffic, from which a process is asked whether it uses a full file system; and how many are asked about
that, and about their open files. One that waits for space would be asleep, one that tries again and again is busy.
Writes that fail count as traffic."""

LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ntfs3", "jfs", "tmpfs", "zfs",
                   "bcachefs", "overlay"))
"""File systems that answer without a network."""

HEAVY_BYTES = 16 << 20
"""Memory from which a process can be the one that the kernel killed for want of memory."""


@dataclass(slots=True)
class _State:
    """What a group's limits were at the last look."""

    cpu: CpuLimit | None = None
    memory: MemoryLimit | None = None
    io: dict[tuple[str, str, bool], IoLimit] = field(default_factory=dict)
    tasks: TaskLimit | None = None
    checked_ns: int = 0
    read_ns: int = 0


class Limits:
    """A stage: adds a `limit` record for each limit that held processes back since the last check.

    `affinity` returns the CPUs that a pid may run on; `root` is the /proc for limits of open files.
    """

    def __init__(self, cgroups: Cgroups | None = None, root: Path = Path("/proc"),
                 affinity: Callable[[int], set[int]] | None = None) -> None:
        self._full: Worker[tuple[int, ...], dict[int, str]] = Worker("rh-full", partial(on_full, root), limit=1)
        self._full_ns = 0
        self._cgroups = cgroups or Cgroups(root)
        self._root = root
        self._affinity = affinity or getattr(os, "sched_getaffinity", None)
        self._groups: dict[Key, tuple[Group, ...]] = {}
        self._states: dict[Group, _State] = {}
        self._active: dict[Key, Row] = {}
        """Rows of interest since the last look: the newest of each process."""
        self._heavy: dict[Key, Row] = {}
        self._killed: list[tuple[Key, Row]] = []
        self._killed_before: list[tuple[Key, Row]] = []
        """Those of the last look: kills are counted less often than the processes are read, and may show later."""
        self._oom_kills = 0
        self._early = 0
        """Kills that groups counted in the last look, before the machine did."""
        self._then_ns: int | None = None

    def __call__(self, tick: Tick) -> Tick:
        """Collect what is of interest, and look at the limits once in EVERY_S."""
        if tick.row is None:
            return tick
        for key in tick.changed:
            row = tick.processes.get(key)
            if row is None:
                continue
            if _interesting(row):
                self._active[key] = row
            if row.get("memory_bytes", 0) >= HEAVY_BYTES:
                self._heavy[key] = row
        for key in tick.exited:
            if (row := self._heavy.pop(key, None)) is not None:
                self._killed.append((key, row))
            elif key not in self._active:
                self._groups.pop(key, None)
        self._oom_kills += tick.row.get("oom_kills") or 0
        now: int = tick.row["mono_ns"]
        if self._then_ns is None:
            self._then_ns = now
        elif now - self._then_ns >= EVERY_S * 1e9:
            tick.records += self._look(tick, tick.row, now)
            self._then_ns = now
        return tick

    def _look(self, tick: Tick, machine: Row, now: int) -> list[Record]:
        ts, boot = machine["ts"], machine["boot_id"]
        members: dict[Group, list[tuple[Key, Row]]] = {}
        asked = 0
        if self._oom_kills:
            self._active.update([*self._killed_before, *self._killed])
        for key, row in self._active.items():
            groups = self._groups.get(key)
            if groups is None:
                if asked >= NEW_GROUPS or key not in tick.processes:
                    continue
                asked += 1
                groups = self._groups[key] = tuple(self._cgroups.groups(key[0]))
            for group in groups:
                members.setdefault(group, []).append((key, row))
        found: list[Record] = []
        for group, of_it in members.items():
            state = self._states.setdefault(group, _State())
            for values in self._bound(group, state, now):
                main_key, main = max(of_it, key=lambda pair: _weight(pair[1]))
                values.setdefault("use", round(sum(row.get("cpu_percent") or 0.0 for _, row in of_it) / 100, 3))
                values["cgroup"] = values.get("cgroup") or group.path
                found.append(record("limit", ts=ts, boot_id=boot, pid=main_key[0], start_ticks=main_key[1],
                                    name=shown_name(main), **values))
        found += self._oom(tick, ts, boot, found)
        found += self._affinities(tick, machine, (now - (self._then_ns or now)) / 1e9)
        found += self._open_files(tick, ts, boot)
        found += self._full_disks(tick, ts, boot, now)
        for key in {*self._active, *dict(self._killed_before)} - tick.processes.keys() - dict(self._killed).keys():
            self._groups.pop(key, None)
        self._active.clear()
        self._killed_before, self._killed = self._killed, []
        self._oom_kills = 0
        return found

    def _bound(self, group: Group, state: _State, now: int) -> list[Row]:
        """What each limit of a group did since it was read last; nothing for a group that has none."""
        then, seconds = state, (now - state.read_ns) / 1e9 if state.read_ns else 0.0
        check = not state.checked_ns or now - state.checked_ns >= RECHECK_S * 1e9
        ask = self._cgroups
        fresh = _State(ask.cpu(group) if check or then.cpu else None,
                       ask.memory(group) if check or then.memory else None,
                       {limit[:2] + limit[4:]: limit for limit in (ask.io(group) if check or then.io else ())},
                       ask.tasks(group) if check or then.tasks else None, now if check else then.checked_ns, now)
        self._states[group] = fresh
        if seconds <= 0:
            return []
        found: list[Row] = []
        if fresh.cpu and then.cpu and fresh.cpu.throttled > then.cpu.throttled:
            found.append({"kind": "cpu_quota", "limit": fresh.cpu.cores,
                          "held_back_s": round(max(0.0, fresh.cpu.throttled_s - then.cpu.throttled_s), 3),
                          "count": fresh.cpu.throttled - then.cpu.throttled})
        if fresh.memory and then.memory:
            if fresh.memory.hits > then.memory.hits and fresh.memory.use >= MEMORY_NEAR * fresh.memory.limit:
                found.append({"kind": "memory", "limit": float(fresh.memory.limit), "use": float(fresh.memory.use),
                              "count": fresh.memory.hits - then.memory.hits})
            if fresh.memory.oom_kills > then.memory.oom_kills:
                found.append({"kind": "oom_kill", "limit": float(fresh.memory.limit), "use": float(fresh.memory.use),
                              "count": fresh.memory.oom_kills - then.memory.oom_kills, "cgroup": fresh.memory.path})
        if fresh.tasks and then.tasks and fresh.tasks.refused > then.tasks.refused:
            found.append({"kind": "tasks", "limit": float(fresh.tasks.limit), "use": float(fresh.tasks.limit),
                          "count": fresh.tasks.refused - then.tasks.refused, "cgroup": fresh.tasks.path})
        for at, limit in fresh.io.items():
            rate = (limit.moved - then.io[at].moved) / seconds if at in then.io else 0.0
            if rate >= IO_NEAR * limit.limit:
                found.append({"kind": "io", "limit": float(limit.limit), "use": round(rate, 1),
                              "object": "requests" if limit.requests else None})
        return found

    def _oom(self, tick: Tick, ts: float, boot: str, found: list[Record]) -> list[Record]:
        """Name the victim of the kernel: of the processes that ended, the one that held most memory.

        A kill inside of a control group with a limit is already in `found`; its record gets the victim's name. A kill
        for want of the machine's own memory makes a record without a group.
        """
        inside = [one for one in found if one["kind"] == "oom_kill"]
        kills = max(0, self._oom_kills - self._early)
        self._early = max(0, sum(one["count"] for one in inside) - kills)
        if not self._oom_kills:
            return []
        victims = sorted([*self._killed, *self._killed_before], key=lambda pair: -pair[1].get("memory_bytes", 0))
        for one in inside:
            in_it = [(key, row) for key, row in victims if row.get("cgroup") == one["cgroup"] or
                     any(group.path == one["cgroup"] for group in self._groups.get(key, ()))]
            for key, row in in_it[:1] or [pair for pair in victims if "cgroup" not in pair[1]][:1]:
                one.update(pid=key[0], start_ticks=key[1], name=_name_of_killed(row, tick))
        if inside or not kills:
            return []
        names: Row = {}
        for key, row in victims[:1]:
            names = {"pid": key[0], "start_ticks": key[1], "name": _name_of_killed(row, tick),
                     "use": float(row["memory_bytes"]), "cgroup": row.get("cgroup")}
        return [record("limit", ts=ts, boot_id=boot, kind="oom_kill", count=kills, **names)]

    def _affinities(self, tick: Tick, machine: Row, seconds: float) -> list[Record]:
        """Processes that wait for the few CPUs they may use while others idle."""
        cpus, busy = machine.get("cpus"), machine.get("cpu_busy_cores")
        if self._affinity is None or cpus is None or busy is None or cpus - busy < AFFINITY_IDLE_CORES:
            return []
        found = []
        for key, row in self._active.items():
            delay = row.get("run_delay_ms_per_s") or 0.0
            # A kernel thread of one CPU is bound to it by design.
            if delay < AFFINITY_DELAY_MS_PER_S or key not in tick.processes or row.get("ppid") == KTHREADD:
                continue
            with suppress(OSError, ValueError):
                allowed = len(self._affinity(key[0]))
                if allowed < cpus:
                    found.append(record("limit", ts=machine["ts"], boot_id=machine["boot_id"], kind="affinity",
                                        pid=key[0], start_ticks=key[1], name=shown_name(row),
                                        limit=float(allowed), use=round((row.get("cpu_percent") or 0.0) / 100, 3),
                                        held_back_s=round(min(delay / 1000, 1.0) * seconds, 3)))
        return found

    def _open_files(self, tick: Tick, ts: float, boot: str) -> list[Record]:
        """The busiest processes that have as many files open as they may: they get "too many open files" and retry."""
        found = []
        busiest = sorted(((key, row) for key, row in self._active.items()
                          if key in tick.processes and not row.get("own")),
                         key=lambda pair: -(pair[1].get("cpu_percent") or 0.0))
        for key, row in busiest[:BUSIEST]:
            place = self._root / str(key[0])
            with suppress(OSError):
                slots = parse_descriptor_slots((place / "status").read_bytes())
                limit = parse_open_files_limit((place / "limits").read_bytes())
                # The table of descriptors grows in powers of two: below the limit there is no need to count them.
                if limit is None or slots is None or slots < limit:
                    continue
                if (use := len(os.listdir(place / "fd"))) >= limit:
                    found.append(record("limit", ts=ts, boot_id=boot, kind="rlimit", pid=key[0], start_ticks=key[1],
                                        name=shown_name(row), limit=float(limit), use=float(use)))
        return found

    def _full_disks(self, tick: Tick, ts: float, boot: str, now: int) -> list[Record]:
        """The busiest processes that work on a file system that is full, as another thread found them."""
        found = []
        for pids in self._full.collect():
            for key, row in self._active.items():
                if key[0] in pids and key in tick.processes:
                    found.append(record("limit", ts=ts, boot_id=boot, kind="disk_full", object=pids[key[0]], pid=key[0],
                                        start_ticks=key[1], name=shown_name(row)))
        busy = sorted((key for key, row in self._active.items() if not row.get("own")
                       and ((row.get("cpu_percent") or 0.0) >= FULL_CPU_PERCENT
                            or (row.get("disk_bytes_per_s") or 0.0) >= FULL_BYTES_PER_S)),
                      key=lambda key: -_weight(self._active[key]))
        if busy and now - self._full_ns >= FULL_EVERY_S * 1e9 and not self._full.pending:
            self._full_ns = now
            self._full.submit(tuple(key[0] for key in busy[:BUSIEST]))
        return found

    def close(self) -> tuple[Record, ...]:
        """End the thread."""
        self._full.close()
        return ()


def _name_of_killed(row: Row, tick: Tick) -> str | None:
    """What a process was called; with its parent, if it lived too short for its script to be read."""
    name = shown_name(row)
    if "cmdline" not in row:
        parent = next((one for one in tick.processes.values() if one["pid"] == row.get("ppid")), None)
        if parent is not None and starts_jobs(parent):
            return f"{name} of {shown_name(parent)}"
    return name


def on_full(root: Path, pids: Sequence[int]) -> dict[int, str]:
    """Those of the processes that have a file open for writing on a local file system that is full, and where that is
    mounted. `root` is the /proc to read. A program that tries again opens and closes its file, so it is looked at
    several times."""
    full: dict[int, str] = {}
    for line in _text(root / "self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(), tail.split()[:1]
        if len(fields) < 6 or not LOCAL & set(kind) or "rw" not in fields[5].split(","):
            continue
        with suppress(OSError, ValueError):
            major, _, minor = fields[2].partition(":")
            device, place = os.makedev(int(major), int(minor)), fields[4].replace("\\040", " ")
            free = os.statvfs(place)
            # Root may use the reserved blocks, but for those that ext4 keeps for itself (ext4_calculate_resv_clusters).
            kept = min(free.f_blocks // 50, 4096) if "ext4" in kind else 0
            room = max(free.f_bavail, free.f_bfree - kept if os.geteuid() == 0 else 0) * free.f_frsize
            if device not in full and free.f_blocks and (
                    room < min(FULL_LEAST, free.f_blocks * free.f_frsize // 10) or (free.f_files and not free.f_ffree)):
                full[device] = place
    found: dict[int, str] = {}
    for _ in range(FULL_TRIES if full else 0):
        for pid in pids:
            if pid not in found and (on := _writes_to(root, pid, full)) is not None:
                found[pid] = full[on]
        if len(found) == len(pids):
            break
        time.sleep(FULL_WAIT_S)
    return found


def _writes_to(root: Path, pid: int, devices: Mapping[int, str]) -> int | None:
    """That of the devices on which a process has a file open for writing."""
    at = root / str(pid)
    with suppress(OSError):
        for number in os.listdir(at / "fd"):
            with suppress(OSError):
                place = os.stat(at / "fd" / number).st_dev
                flags = re.search(r"^flags:\s*([0-7]+)", _text(at / "fdinfo" / number), re.M)
                if place in devices and flags and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                    return place
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def parse_open_files_limit(limits: bytes) -> int | None:
    """The soft limit of open files out of /proc/PID/limits; None when there is none."""
    for line in limits.splitlines():
        if line.startswith(b"Max open files"):
            words = line[len(b"Max open files"):].split()
            return int(words[0]) if words and words[0].isdigit() else None
    return None


def parse_descriptor_slots(status: bytes) -> int | None:
    """FDSize of /proc/PID/status: the size of the table of descriptors."""
    for line in status.splitlines():
        if line.startswith(b"FDSize:"):
            number = line[7:].strip()
            return int(number) if number.isdigit() else None
    return None


def _interesting(row: Row) -> bool:
    return ((row.get("cpu_percent") or 0.0) >= CPU_PERCENT
            or (row.get("run_delay_ms_per_s") or 0.0) >= RUN_DELAY_MS_PER_S
            or row.get("state") == "uninterruptible" or bool(row.get("pageins_per_s"))
            or bool(row.get("disk_bytes_per_s")))


def _weight(row: Row) -> float:
    """By what the main process of a group is chosen: time used and time waited."""
    return float((row.get("cpu_percent") or 0.0) + (row.get("run_delay_ms_per_s") or 0.0) / 10
                 + (row.get("disk_bytes_per_s") or 0.0) / 1e6 + row.get("memory_bytes", 0) / 1e10)
