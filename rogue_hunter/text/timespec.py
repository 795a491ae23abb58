"""Parse durations and points of time as people write them. The grammar is strict: anything else is an error.

git and journalctl disagree about `1h`, and one of them accepts any word as a time; neither is followed.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)", re.ASCII)
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+", re.ASCII)
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_EPOCH = re.compile(r"@([0-9]{1,12}(?:\.[0-9]+)?)", re.ASCII)
_LIMIT = 100 * 366 * 86400.0

DURATIONS = "90s, 1h30m, 2d, 500ms"
TIMES = ("a length of time ago (90s, 1h30m, 2d, `1h ago`), now, today, yesterday, 14:32, "
         "2026-11-21T14:32, `2026-11-21 14:32:05+01:00` or @1795244561")


def parse_duration(text: str) -> float:
    """Seconds of `1h30m`, `90s`, `2d`, `500ms`, `1.5h`; a bare number is seconds. Raises ValueError."""
    text = text.strip().lower()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text, re.ASCII):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(text))
    else:
        raise ValueError(f"{text!r} is not a length of time; write it like {DURATIONS}")
    if not math.isfinite(seconds) or seconds > _LIMIT:
        raise ValueError(f"{text!r} is longer than 100 years")
    return seconds


def parse_time(text: str, now: float) -> float:
    """Epoch seconds of a point of time; `now` is the present. Local time if no zone is given. Raises ValueError.

    A time of day that has not come yet today is yesterday's: questions concern the past.
    """
    word = text.strip()
    low = word.lower()
    if low == "now":
        return now
    today = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    if low == "today":
        return today.timestamp()
    if low == "yesterday":
        return (today - timedelta(days=1)).timestamp()
    length = low.removesuffix(" ago").removeprefix("-").strip()
    if _DURATION.fullmatch(length):
        return now - parse_duration(length)
    try:
        if found := _EPOCH.fullmatch(low):
            return float(found.group(1))
        if found := _CLOCK.fullmatch(low):
            hour, minute, second = int(found.group(1)), int(found.group(2)), int(found.group(3) or 0)
            then = today.replace(hour=hour, minute=minute, second=second)
            # `today` has the fold of the present: in the hour that winter time repeats, both may be meant.
            past = (then, then.replace(fold=0), then - timedelta(days=1))
            return next(each.timestamp() for each in past if each.timestamp() <= now)
        if re.match(r"[0-9]{4}-", word, re.ASCII):
            return datetime.fromisoformat(word).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError(f"{text!r} is not a time; write {TIMES}")
