"""When the Mac slept and woke, from the output of `pmset -g log`, as `sleep_wake` records.

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
from collections.abc import Callable, Iterable, Iterator, Sequence

from rogue_hunter.capture.spindump.decode import timestamp
from rogue_hunter.stream.tick import Record, record

PMSET = ("/usr/bin/pmset", "-g", "log")
PMSET_TIMEOUT_S = 20.0
"""The log of a year is tens of megabytes; reading it is for a worker, never for the beat."""
_KINDS = {"Sleep": "sleep", "Wake": "wake", "DarkWake": "dark_wake"}
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}) (Sleep|Wake|DarkWake)(?: {2}|\t)\s*(\S.*)", re.ASCII)
# Two blanks or a tab end the domain's column: one blank is within a name ("Wake Requests").
_POWER = re.compile(r"[\s:]*\bUsing (AC|BATT)\s*\(\s*Charge:\s*(\d{1,3})%?\s*\)", re.IGNORECASE)
_SECONDS = re.compile(r"(\d{1,12}) secs\s*$")
_REASON = re.compile(r"due to\s*:?\s*(.*)$")
_TCP = re.compile(r"\s*:?\s*TCPKeepAlive=\w+")


def parse(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """The events, in the log's order, which is the order in which they happened: where the clock was set back, `ts`
    falls."""
    for line in lines:
        text = line[:4096].decode("utf-8", "backslashreplace").rstrip()
        found = _LINE.match(text)
        at = timestamp(found[1].encode()) if found else None
        if found and at is not None:    # a month 13 is no date
            yield _event(_KINDS[found[2]], at, found[3], capture)


def _event(kind: str, at: float, message: str, capture: str | None) -> Record:
    seconds, power = _SECONDS.search(message), _POWER.search(message)
    text = message[: power.start()] if power else message[: seconds.start()] if seconds else message
    text = _TCP.sub("", text)
    reason = found[1] if (found := _REASON.search(text)) else text
    return record(
        "sleep_wake", capture=capture, ts=at, kind=kind, reason=reason.strip(" '\t:")[:1024] or None,
        duration_s=float(seconds[1]) if seconds else None,
        power={"ac": "ac", "batt": "battery"}[power[1].lower()] if power else None,
        charge_percent=int(power[2]) if power else None)


def _run(argv: Sequence[str]) -> bytes:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=PMSET_TIMEOUT_S, check=True).stdout


def get_recent_sleep_events(within_s: float = 86400.0, *, now: float | None = None,
                            run: Callable[[Sequence[str]], bytes] = _run) -> list[Record] | None:
    """The events of the last `within_s` seconds, oldest first; None where pmset cannot be asked."""
    try:
        return recent(list(parse(run(PMSET).splitlines())), within_s, time.time() if now is None else now)
    except (OSError, subprocess.SubprocessError):
        return None


def recent(events: list[Record], within_s: float, now: float) -> list[Record]:
    """Those not older than `within_s`. Read from the newest back to the first that is older: beyond it, times that look
    recent are from before the clock was set back."""
    kept: list[Record] = []
    for event in reversed(events):
        if event["ts"] < now - within_s:
            break
        if event["ts"] <= now:
            kept.append(event)
    return kept[::-1]
