"""Which captures may be made: limits by time, trouble, number and CPU time, and the tally of skipped requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rogue_hunter.capture.request import Request, Target
from rogue_hunter.config.options import Forensics
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, record

HOUR_S = 3600.0
SAVED_S = 60.0
"""Seconds for which unused CPU budget is saved up: 0.6 s of CPU at 1 %. A capture of a quiet machine uses 0.1 s."""
MAX_NAMED = 20
"""Processes that a record of skipped requests names."""
MAX_TROUBLES = 10_000
"""Troubles whose captures are counted; a storm of short-lived ones must not fill the memory."""


@dataclass(slots=True)
class Budget:
    """The captures of the last hour, by the caller's clock (seconds), and the CPU time they may still use.

    A trouble is named by the unit or command that is blamed, by the cause of a pause, or by both; a request may be
    about several. `saved_s` is CPU time: it grows by
    `cpu_percent` of the time that passes, up to SAVED_S of it, and falls by what captures use. A capture may begin
    when half of the most that can be saved is there.
    """

    made: deque[float] = field(default_factory=deque)
    by_trouble: dict[str, list[float]] = field(default_factory=dict)
    saved_s: float | None = None
    at: float = 0.0

    def refuses(self, troubles: Sequence[tuple[str, ...]], now: float, settings: Forensics) -> str | None:
        """The reason why no capture of these troubles may be made now; None if one may."""
        self.charge(0.0, now, settings)
        while self.made and self.made[0] <= now - HOUR_S:
            self.made.popleft()
        if self.made and now - self.made[-1] < settings.debounce_s:
            return "debounce"
        times = [[t for name in names for t in self._times(name, now)] for names in troubles]
        if times and all(now - max(each, default=-HOUR_S) < settings.same_trouble_s for each in times):
            return "same_trouble"
        if times and all(len(each) >= settings.per_identity_per_hour for each in times):
            return "identity_budget"
        if len(self.made) >= settings.per_hour:
            return "hour_budget"
        most = settings.cpu_percent / 100 * SAVED_S
        return "cpu_budget" if most and (self.saved_s or 0.0) < most / 2 else None

    def _times(self, name: str, now: float) -> list[float]:
        """When a trouble of this name was captured in the last hour."""
        times = self.by_trouble.get(name, ())
        return [t for t in times if t > now - HOUR_S]

    def charge(self, cpu_s: float, now: float, settings: Forensics) -> None:
        """Captures have used so much CPU time since the last call."""
        rate = settings.cpu_percent / 100
        most = rate * SAVED_S
        saved = most if self.saved_s is None else min(most, self.saved_s + rate * max(0.0, now - self.at))
        self.saved_s, self.at = saved - cpu_s, now

    def begin(self, troubles: Sequence[tuple[str, ...]], now: float) -> None:
        """A capture of these troubles begins."""
        self.made.append(now)
        if len(self.by_trouble) >= MAX_TROUBLES:
            self.by_trouble = {k: t for k, t in self.by_trouble.items() if t and t[-1] > now - HOUR_S}
        for name in {name for names in troubles for name in names}:
            if len(self.by_trouble) < MAX_TROUBLES or name in self.by_trouble:
                self.by_trouble[name] = [*self._times(name, now), now]


@dataclass(slots=True)
class Skipped:
    """Requests that were skipped, by reason, until they are reported. `since`: the time of the first."""

    count: dict[str, int] = field(default_factory=dict)
    named: dict[str, dict[Key, Target]] = field(default_factory=dict)
    first: dict[str, Request] = field(default_factory=dict)
    since: float | None = None

    def add(self, reason: str, request: Request, now: float) -> None:
        """Count one more."""
        self.count[reason] = self.count.get(reason, 0) + 1
        self.first.setdefault(reason, request)
        if self.since is None:
            self.since = now
        named = self.named.setdefault(reason, {})
        if request.culprit is not None and len(named) < MAX_NAMED:
            named.setdefault(request.culprit.key, request.culprit)

    def report(self) -> list[Record]:
        """One capture record for each reason; the tally begins again."""
        records = []
        for reason, count in self.count.items():
            first = self.first[reason]
            targets = [{"pid": t.key[0], "start_ticks": t.key[1], "command": t.command, "outcome": "skipped"}
                       for t in self.named[reason].values()]
            records.append(record(
                "capture", ts=round(first.ts, 3), capture=first.capture, trigger=first.trigger, status="skipped",
                reason=reason, skipped=count, event=first.event if count == 1 else None,
                pause=first.pause if count == 1 else None, boot_id=first.boot_id,
                targets=targets or None))
        self.count.clear()
        self.named.clear()
        self.first.clear()
        self.since = None
        return records
