"""How long processes and units of work have been at or above the tracking band, before that makes an event.

Starting a program pegs a core for a moment, and is no event: a score must last. A build or a test suite is many
processes that are each too short to last, but together they do: their points are added up by unit of work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rogue_hunter.config.options import Bands, Tracking
from rogue_hunter.sampling.units import KTHREADD
from rogue_hunter.schema.field import Key
from rogue_hunter.scoring.share import points
from rogue_hunter.stream.tick import Row, Tick

DIP_S = 1.0
"""Seconds below the band that do not end a stay: between two processes of a test suite nothing runs for a moment."""
LEADS = 0.75
"""Part of its unit's points from which one process is the event, not the unit."""

_ROUNDING_S = 1e-3

Subject = Key | str
"""An identity, or the name of a unit."""


@dataclass(slots=True)
class Together:
    """A unit in one tick: its members with a score, and what the score of all together is."""

    members: dict[Key, Row] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    single: int = 0

    def add(self, key: Key, row: Row) -> None:
        """Add a member."""
        self.members[key] = row
        resource = row.get("dominant_resource")
        if resource is not None:
            self.times[resource] = self.times.get(resource, 0.0) + row.get("disproportionality", 0.0)
        self.single = max(self.single, row["score"])

    @property
    def resource(self) -> str | None:
        """The resource of which all together use most."""
        return max(self.times, key=self.times.__getitem__, default=None)

    @property
    def score(self) -> int:
        """The score of the sum of what the members use of one resource."""
        return max(self.single, round(points(max(self.times.values(), default=0.0))))


@dataclass(slots=True)
class Stay:
    """A stay at or above the band that is not an event yet.

    `entered` is in epoch seconds; `begun` and `above` (the last tick at or above) on the tracker's clock. `lasted` and
    `critical` are seconds at or above the tracking and the critical band. `points` is the integral of the score by
    resource, `by_member` by process. `events` counts those that came of it.
    """

    entered: float
    begun: float
    above: float
    lasted: float = 0.0
    critical: float = 0.0
    points: dict[str, float] = field(default_factory=dict)
    by_member: dict[Key, float] = field(default_factory=dict)
    events: int = 0

    def leader(self) -> Key | None:
        """The process that has most of the points, if it has nearly all."""
        if not self.by_member:
            return None
        first = max(self.by_member, key=lambda key: (self.by_member[key], key))
        return first if self.by_member[first] >= LEADS * sum(self.by_member.values()) else None


class Stays:
    """The stays of one stream of ticks, and the units of the last tick."""

    def __init__(self, bands: Bands, settings: Tracking) -> None:
        self._stays: dict[Subject, Stay] = {}
        self.units: dict[str, Together] = {}
        self._high: dict[Subject, tuple[int, str | None]] | None = None
        """Score and resource of what is at or above the band in the last tick; None when it has to be found again."""
        self.configure(bands, settings)

    def configure(self, bands: Bands, settings: Tracking) -> None:
        """Use these settings from now on."""
        self._enter = bands.start(bands.tracking)
        self._critical = bands.start("critical")
        self._set = settings
        self._high = None

    def update(self, tick: Tick, ts: float, clock: float, dt: float) -> None:
        """Add a tick."""
        if self._high is None or not tick.steady:
            self._high = self._measured(tick)
        now = self._high
        for subject, (score, resource) in now.items():
            stay = self._stays.get(subject)
            if stay is None:
                stay = self._stays[subject] = Stay(ts, clock, clock)
            else:
                stay.lasted += dt
                stay.critical = stay.critical + dt if score >= self._critical else 0.0
            stay.above = clock
            stay.points[resource or ""] = stay.points.get(resource or "", 0.0) + score * dt
            if isinstance(subject, str) and not stay.events:
                for key, row in self.units[subject].members.items():
                    more = row.get("disproportionality", 0.0) * dt
                    stay.by_member[key] = stay.by_member.get(key, 0.0) + more
        for subject in [s for s, stay in self._stays.items() if s not in now and (
                clock - stay.above > DIP_S or (not isinstance(s, str) and s not in tick.processes))]:
            del self._stays[subject]

    def _measured(self, tick: Tick) -> dict[Subject, tuple[int, str | None]]:
        """Score and resource of the processes and units that are at or above the band; adds up the units."""
        found: dict[Subject, tuple[int, str | None]] = {}
        units: dict[str, Together] = {}
        self.units = units
        for key in tick.scored:
            row = tick.processes[key]
            if row.get("own"):
                continue
            if row["score"] >= self._enter:
                found[key] = row["score"], row.get("dominant_resource") or row.get("dominant_category")
            unit = row.get("unit")
            # Kernel threads work for others, and have nothing in common.
            if unit is not None and "disproportionality" in row and KTHREADD not in (key[0], row.get("ppid")):
                units.setdefault(unit, Together()).add(key, row)
        for unit, together in units.items():
            score = together.score
            if score >= self._enter:
                found[unit] = score, together.resource
        return found

    def due(self, clock: float) -> Iterable[tuple[Subject, Stay]]:
        """The stays that have lasted long enough and are at or above the band in this tick; units first, in order."""
        enter, critical = self._set.enter_s - _ROUNDING_S, self._set.enter_critical_s - _ROUNDING_S
        found = [(subject, stay) for subject, stay in self._stays.items()
                 if stay.above == clock and (stay.lasted >= enter or 0 < critical <= stay.critical)]
        return sorted(found, key=lambda each: (not isinstance(each[0], str), str(each[0])))

    def forget(self, subject: Subject) -> None:
        """An event has ended: another one needs another stay."""
        self._stays.pop(subject, None)

    def of(self, subject: Subject) -> Stay | None:
        """The stay of a process or unit."""
        return self._stays.get(subject)


def row_of_unit(root: Row, together: Together) -> Row:
    """The row of a unit's event: the process at its root, with the rates, shares and score of all members together."""
    row = {**root, "score": together.score}
    for name in ("cpu_percent", "children_cpu_percent", "disk_bytes_per_s", "children_disk_bytes_per_s",
                 "wakeups_per_s", "pageins_per_s", "run_delay_ms_per_s", "gpu_ms_per_s", "memory_bytes", "threads",
                 "cpu_share", "gpu_share", "memory_share", "disk_share", "wakeups_share"):
        known = [member[name] for member in together.members.values() if name in member]
        if known:
            total = sum(known)
            row[name] = min(1.0, round(total, 5)) if name.endswith("_share") else \
                round(total, 3) if isinstance(total, float) else total
    resource = together.resource
    if resource is not None:
        row.update(dominant_resource=resource, disproportionality=round(together.times[resource], 3))
    return row
