"""When the Mac slept and woke, from the output of `pmset -g log`.

The sampler detects a sleep by two clocks that drift apart. The log also covers the time before the sampler started: a
pause just after a wake is caused by the wake, not by a process.

The log is made for people. Real ones contain (macOS 10.14 to 15): columns padded with blanks or tabs, `Using BATT`,
`Using Batt` and `Using AC(Charge: 0)` beside `Using AC (Charge:10%)`, a header that comes again in the middle, a zone
offset that changes with travel, a clock that steps backwards, bytes that are not UTF-8. A line that is not an event is
skipped.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

PMSET = ("/usr/bin/pmset", "-g", "log")
PMSET_TIMEOUT_S = 20.0
"""The log of a year is tens of megabytes; reading it is for a worker, never for the beat."""


class SleepWakeType(Enum):
    """Entering sleep, waking, and a wake with the display dark (mail, backups), after which it mostly sleeps again."""

    SLEEP = "sleep"
    WAKE = "wake"
    DARK_WAKE = "dark_wake"


@dataclass(frozen=True, slots=True)
class SleepWakeEvent:
    """One line of the log. `at` is epoch seconds by the clock of then, `duration_s` how long the state lasted as far as
    the log says, `power` ac or battery, `charge_percent` of the battery."""

    type: SleepWakeType
    at: float
    reason: str
    duration_s: float | None = None
    power: str | None = None
    charge_percent: int | None = None


_DOMAINS = {"Sleep": SleepWakeType.SLEEP, "Wake": SleepWakeType.WAKE, "DarkWake": SleepWakeType.DARK_WAKE}
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}) (Sleep|Wake|DarkWake)(?: {2}|\t)\s*(\S.*)")
# Two blanks or a tab end the domain's column: one blank is within a name ("Wake Requests").
_POWER = re.compile(r"[\s:]*\bUsing (AC|BATT)\s*\(\s*Charge:\s*(\d{1,3})%?\s*\)", re.IGNORECASE)
_SECONDS = re.compile(r"(\d{1,12}) secs\s*$")
_REASON = re.compile(r"due to\s*:?\s*(.*)$")
_TCP = re.compile(r"\s*:?\s*TCPKeepAlive=\w+")


def parse_pmset_log(data: bytes) -> list[SleepWakeEvent]:
    """The events of `pmset -g log`, in the log's order, which is the order in which they happened: where the clock was
    set back, `at` falls."""
    lines = data.decode("utf-8", "backslashreplace").splitlines()
    return [event for line in lines if (event := event_of(line)) is not None]


def event_of(line: str) -> SleepWakeEvent | None:
    """The event of one line; None for a line of another kind, and for a damaged one."""
    if (found := _LINE.match(line)) is None:
        return None
    try:
        at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S %z").timestamp()
    except (ValueError, OverflowError):
        return None     # a month 13 is no date
    return _event(_DOMAINS[found[2]], at, found[3].rstrip())


def _event(kind: SleepWakeType, at: float, message: str) -> SleepWakeEvent:
    seconds = _SECONDS.search(message)
    power = _POWER.search(message)
    text = message[: power.start()] if power else message[: seconds.start()] if seconds else message
    text = _TCP.sub("", text)
    reason = found[1] if (found := _REASON.search(text)) else text
    return SleepWakeEvent(
        kind, at, reason.strip(" '\t:"), float(seconds[1]) if seconds else None,
        {"ac": "ac", "batt": "battery"}[power[1].lower()] if power else None, int(power[2]) if power else None)


def _run(argv: Sequence[str]) -> bytes:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=PMSET_TIMEOUT_S, check=True).stdout


def get_recent_sleep_events(within_s: float = 86400.0, *, now: float | None = None,
                            run: Callable[[Sequence[str]], bytes] = _run) -> list[SleepWakeEvent] | None:
    """The events of the last `within_s` seconds, oldest first; None where pmset cannot be asked."""
    try:
        events = parse_pmset_log(run(PMSET))
    except (OSError, subprocess.SubprocessError):
        return None
    return recent(events, within_s, time.time() if now is None else now)


def recent(events: list[SleepWakeEvent], within_s: float, now: float) -> list[SleepWakeEvent]:
    """Those not older than `within_s`. Read from the newest back to the first that is older: beyond it, times that look
    recent are from before the clock was set back."""
    kept: list[SleepWakeEvent] = []
    for event in reversed(events):
        if event.at < now - within_s:
            break
        if event.at <= now:
            kept.append(event)
    return kept[::-1]
