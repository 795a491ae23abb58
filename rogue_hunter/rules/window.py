"""For how long something held, by measured time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class Window:
    """When a sustained condition held of one process: spans of the monotonic clock, ns, None before the first ended
    (an empty deque is 0.6 KB, and an idle process has held idle since it was met). `since` is the start of the span
    that still goes on."""

    spans: deque[tuple[int, int]] | None = None
    since: int | None = None

    def note(self, holds: bool, begin: int) -> None:
        """From `begin` on (the start of the interval that a reading is of) the condition holds, or does not."""
        if holds and self.since is None:
            self.since = begin
        elif not holds and self.since is not None:
            if begin > self.since:
                self.spans = self.spans or deque()
                self.spans.append((self.since, begin))
            self.since = None

    def held(self, now: int, length: int) -> int:
        """For how long of the last `length` it held, ns."""
        cut = now - length
        while self.spans and self.spans[0][1] <= cut:
            self.spans.popleft()
        total = sum(end - max(begin, cut) for begin, end in self.spans or ())
        return total + (now - max(self.since, cut) if self.since is not None else 0)
