"""The input of the verdict, a window of evidence cut into slices, and its output: ranked causes and victims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
