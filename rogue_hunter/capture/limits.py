"""When a capture may be made: pure decisions over what was made before, and the tally of what was not."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rogue_hunter.capture.request import Request, Target
from rogue_hunter.capture.settings import ForensicsSettings
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, record

HOUR_S = 3600.0
MAX_NAMED = 20
"""Processes that a record of skipped requests names."""
MAX_KNOWN = 10_000
"""Processes whose captures are counted one by one; a storm of short-lived ones must not fill the memory."""


@dataclass(slots=True)
class Budget:
    """Times of the captures of the last hour, on the clock of the caller, seconds."""

    made: deque[float] = field(default_factory=deque)
    by_key: dict[Key, deque[float]] = field(default_factory=dict)

    def refuses(self, target: Target | None, now: float, settings: ForensicsSettings) -> str | None:
        """Why no capture may be made now; None when one may."""
        while self.made and self.made[0] <= now - HOUR_S:
            self.made.popleft()
        if self.made and now - self.made[-1] < settings.debounce_s:
            return "debounce"
        if len(self.made) >= settings.per_hour:
            return "hour_budget"
        if target is not None:
            times = self.by_key.get(target.key)
            while times and times[0] <= now - HOUR_S:
                times.popleft()
            if (len(times) if times else 0) >= settings.per_identity_per_hour:
                return "identity_budget"
        return None

    def spend(self, target: Target | None, now: float) -> None:
        """A capture was begun."""
        self.made.append(now)
        if target is None:
            return
        if len(self.by_key) >= MAX_KNOWN:
            self.by_key = {k: t for k, t in self.by_key.items() if t and t[-1] > now - HOUR_S}
        if len(self.by_key) < MAX_KNOWN or target.key in self.by_key:
            self.by_key.setdefault(target.key, deque()).append(now)


@dataclass(slots=True)
class Skipped:
    """Requests that were not followed, by reason, until they are said."""

    count: dict[str, int] = field(default_factory=dict)
    named: dict[str, dict[Key, Target]] = field(default_factory=dict)
    first: dict[str, Request] = field(default_factory=dict)
    since: float | None = None

    def add(self, reason: str, request: Request, now: float) -> None:
        """One more."""
        self.count[reason] = self.count.get(reason, 0) + 1
        self.first.setdefault(reason, request)
        if self.since is None:
            self.since = now
        named = self.named.setdefault(reason, {})
        if request.culprit is not None and len(named) < MAX_NAMED:
            named.setdefault(request.culprit.key, request.culprit)

    def say(self) -> list[Record]:
        """One capture record a reason, and forget them."""
        said = []
        for reason, count in self.count.items():
            first = self.first[reason]
            targets = [{"pid": t.key[0], "start_ticks": t.key[1], "command": t.command, "outcome": "skipped"}
                       for t in self.named[reason].values()]
            said.append(record(
                "capture", ts=round(first.ts, 3), capture=first.capture, trigger=first.trigger, status="skipped",
                reason=reason, skipped=count, event=first.event if count == 1 else None,
                pause=first.pause if count == 1 else None, boot_id=first.boot_id,
                targets=targets or None))
        self.count.clear()
        self.named.clear()
        self.first.clear()
        self.since = None
        return said
