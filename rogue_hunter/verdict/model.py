"""The input of the verdict, a window of evidence cut into slices, what a row means, and the output: causes, victims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.sampling.units import KTHREADD, is_apart
from rogue_hunter.stream.tick import shown_name

Row = Mapping[str, Any]
"""A record of rogue_hunter.schema.slices without `type` and `v`; a field that is not known is left out."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One stretch of time: the machine's row, and the rows of its processes and units of work.

    `start` is in epoch seconds, `seconds` is the measured time that the rows cover. A process row without start_ticks
    stands for all processes of one command: the history of minutes keeps no identities. In a slice that is the sum of
    shorter ones a process row has `active_s`, the seconds of those in which it was listed, and `first_slice`.
    """

    start: float
    seconds: float
    machine: Row
    processes: Sequence[Row] = ()
    groups: Sequence[Row] = ()

    @property
    def end(self) -> float:
        """Epoch seconds of its end."""
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Window:
    """All evidence about a stretch of time, in the order of time.

    `waits`, `limits` and `pauses` are records. `resolution_s` is the nominal length of a slice: 5, 60 or 3600. With
    `recent` newer slices count more, for a question about now. Processes whose pid is in `readers` are never named:
    they ask the question. `usual` holds medians of the machine's columns. A wait may have `standing`: it was there when
    the watch began.
    """

    since: float
    until: float
    slices: Sequence[Slice] = ()
    waits: Sequence[Row] = ()
    limits: Sequence[Row] = ()
    pauses: Sequence[Row] = ()
    resolution_s: float = 5.0
    recent: bool = False
    readers: frozenset[int] = frozenset()
    usual: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time that the slices cover."""
        return sum(one.seconds for one in self.slices)


def number(row: Row, name: str) -> float | None:
    """A field as a number; None when it is not known."""
    value = row.get(name)
    return None if value is None else float(value)


def total(row: Row, *names: str) -> float:
    """The sum of those of the fields that are known."""
    return sum(float(row.get(name) or 0.0) for name in names)


Key = tuple[str, int, int]
"""An identity: boot_id, pid, start_ticks."""

KINDS = ("shortage", "limit", "wait", "device", "machine", "own", "use")
"""shortage: a resource was short and others waited for it. limit: a process was held back by its own limit. wait:
processes waited for another one that used nothing. device: a disk answers slowly by itself. machine: the hypervisor,
sleep, a stop of rh-pipe, or a delay without evidence. own: rogue-hunter itself. use: nothing waited; this used most."""


@dataclass(frozen=True, slots=True)
class Member:
    """One identity of a group: its own part of the amount, in the unit of the cause's resource."""

    key: Key
    name: str
    amount: float
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class Taker:
    """A process, a family of processes or a unit of work, with what it used in the window.

    `amount` is in CPU seconds, bytes, GPU seconds or a count, and includes `children`: the part of children that
    ended, and `served`: the part that `server` used on its behalf. `rate` is `amount` over `seconds`, the time in which
    it was used, from `start` (epoch seconds). `share` is of the machine's total, 0 to 1. `key` is set only if one
    identity owns the amount.
    """

    kind: str
    name: str
    command: str
    amount: float
    children: float
    share: float
    seconds: float
    start: float
    key: Key | None = None
    root: Key | None = None
    processes: int = 1
    cmdline: str = ""
    unit: str = ""
    user: str = ""
    cgroup: str = ""
    nice: int = 0
    policy: str = ""
    forwarder: bool = False
    started: int = 0
    score: int = 0
    rogue_s: float = 0.0
    members: tuple[Member, ...] = ()
    served: float = 0.0
    server: str = ""

    @property
    def rate(self) -> float:
        """The amount per second of use."""
        return self.amount / self.seconds if self.seconds > 0 else 0.0

    @property
    def keys(self) -> frozenset[Key]:
        """Every identity in it."""
        found = {one.key for one in self.members}
        return frozenset(found | {key for key in (self.key, self.root) if key is not None})


@dataclass(frozen=True, slots=True)
class Victim:
    """A process that waited: `waited_s` seconds, or `pageins` pages that had been taken from it."""

    key: Key | None
    name: str
    waited_s: float = 0.0
    pageins: int = 0


@dataclass(frozen=True, slots=True)
class Cause:
    """One answer. `lost_s` is the time that was lost to it: seconds of the window, weighted by how much was short.

    `cause` is the word of the records: cpu, memory, io, gpu, wakeups, wait, limit, steal, asleep, stopped, unknown,
    rogue. `takers` are ranked, most first; `who` is the first of them if it can be named. `numbers` are the readings.
    `details` are texts: the cgroup of a limit, the object of a wait.
    """

    kind: str
    resource: str
    cause: str
    points: float
    lost_s: float
    start: float
    seconds: float
    who: Taker | None = None
    takers: tuple[Taker, ...] = ()
    victims: tuple[Victim, ...] = ()
    confidence: str = "measured"
    numbers: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one window. `state` is found, use, nothing or no_evidence.

    `cleared` has, for every resource that was not the cause, its readings when it was worst. `own_cores` is the CPU
    use of rogue-hunter itself, None when it is not known.
    """

    state: str
    causes: tuple[Cause, ...] = ()
    cleared: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    own_cores: float | None = None
    seconds: float = 0.0
    resolution_s: float = 5.0

    @property
    def first(self) -> Cause | None:
        """The most likely cause."""
        return self.causes[0] if self.causes else None


OWN_FIELDS = {"cpu": "cpu_seconds", "disk": "disk_bytes", "gpu": "gpu_seconds", "wakeups": "wakeups",
              "pageins": "pageins", "memory": "memory_bytes", "growth": "memory_growth_bytes",
              "waiting": "uninterruptible_s"}
"""Resource -> field of its own use. Memory held is the highest value of the window, all others are sums."""
CHILDREN_FIELDS = {"cpu": "children_cpu_seconds", "disk": "children_disk_bytes"}

BYTES_PER_CPU_SECOND = 20e9
"""No process moves more per second of its own CPU time (a direct write of 1 MiB takes some 60 us): such bytes were
credited to a parent that waited for the child that moved them."""

REALTIME = frozenset({"fifo", "rr", "deadline"})
"""Scheduling policies whose processes run before all others (sched(7))."""
NICE = 10
"""From this nice value on a process gives way to all others: that it waits is what was asked for."""

_KERNEL = re.compile(r"^(?:ksoftirqd/|kworker/|kswapd|jbd2/|loop\d|kcryptd|dmcrypt|flush-|md\d+_(?!resync)|kcompactd|"
                     r"writeback|xfsaild|btrfs-|z_wr|txg_sync|irq/|migration/|rcu|nvme-)")
SERVERS = frozenset({"tmux: server", "screen", "sshd", "sshd-session", "dockerd", "containerd", "containerd-shim",
                     "conmon", "systemd-journal", "journald", "rsyslogd", "syslog-ng", "dbus-daemon", "Xorg",
                     "gnome-terminal-", "konsole", "xterm"})
"""Programs that use resources mostly on behalf of others."""


def is_forwarder(row: Row) -> bool:
    """True for a kernel thread or server that works for others. A program that only calls itself like a kernel thread
    has a command line or a parent other than kthreadd (pid 2)."""
    command = str(row.get("command") or "")
    if command in SERVERS:
        return True
    return bool(_KERNEL.match(command)) and not row.get("cmdline") and row.get("ppid") in (0, KTHREADD, None)


def gives_way(row: Row) -> bool:
    """True for a process that runs only while no other one wants to: by nice(1), or the idle policy of chrt(1)."""
    return (row.get("nice") or 0) >= NICE or row.get("policy") == "idle"


def name_of(row: Row) -> str:
    """What people call the process: its script or module, else its program."""
    return str(shown_name(row) or "?")


def key_of(row: Row) -> Key | None:
    """The identity of a row; None for a row that stands for all processes of a command."""
    pid, start = row.get("pid"), row.get("start_ticks")
    return None if pid is None or start is None else (str(row.get("boot_id", "")), int(pid), int(start))


def in_group(row: Row, group: str) -> bool:
    """True for a process in a control group or below it."""
    cgroup = str(row.get("cgroup") or "")
    return cgroup == group or cgroup.startswith(group.rstrip("/") + "/")


def uses(row: Row, resource: str) -> tuple[float, float]:
    """Own use of a resource and that of ended children."""
    own = max(0.0, total(row, OWN_FIELDS[resource]))
    children = max(0.0, total(row, CHILDREN_FIELDS[resource])) if resource in CHILDREN_FIELDS else 0.0
    if resource == "disk" and own > BYTES_PER_CPU_SECOND * max(0.001, total(row, "cpu_seconds")):
        return 0.0, own + children
    return own, children


def belongs(row: Row, taker: Taker | None) -> bool:
    """True for the row of a process that is the taker or a part of it."""
    if taker is None:
        return False
    whole = taker.kind != "process" and taker.root is not None
    unit = whole and bool(taker.unit) and row.get("unit") == taker.unit
    family = whole and taker.root is not None and row.get("ppid") == taker.root[1] and \
        not is_apart(row, {"command": taker.command, "cmdline": taker.cmdline})
    return unit or family or key_of(row) in taker.keys or (taker.kind == "command"
                                                          and row.get("command") == taker.command)
