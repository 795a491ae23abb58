"""The question that a view of rh-report answers, and text that several views share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rogue_hunter.report import queries
from rogue_hunter.report.evidence import Live
from rogue_hunter.report.queries import Period, Source
from rogue_hunter.report.render import Style
from rogue_hunter.report.sentences import ago, moment
from rogue_hunter.schema import RECORDS
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import sparkline, visible

_T = TypeVar("_T")

SLOTS = 60
"""Blocks of a sparkline over a whole period."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments and options of a view. `limit` 0 is no limit, None the view's default in a table and no limit in
    other forms (`people` is True for a table).

    `which` are the arguments after the view's name, `at` a point of time (epoch seconds), `by` command, unit or a
    resource, `part` the part of a capture or of the status, `exit_code` whether a bad status sets the exit code.
    `live` asks a running rh-pipe for its slices, `recorded` gives what macOS recorded between two times. `pause`,
    `event` and `capture` are the number or the key of what is asked about.
    """

    period: Period
    limit: int | None = None
    which: tuple[str, ...] = ()
    people: bool = False
    at: float | None = None
    by: str = "command"
    part: str = ""
    exit_code: bool = False
    live: Live | None = None
    pause: str = ""
    event: str = ""
    capture: str = ""
    recorded: Callable[[float, float], Sequence[Record]] = lambda since, until: ()

    def recorded_in(self, since: float, until: float) -> list[Record]:
        """What macOS recorded between two times, epoch seconds, about commands that contain the text asked for."""
        text = self.period.text.lower()
        return [each for each in self.recorded(since, until) if text in str(each.get("command", "")).lower()]

    def rows(self, usual: int) -> int:
        """How many rows to give at most, 0 for all."""
        return self.limit if self.limit is not None else usual if self.people else 0


def columns(kind: str, *without: str) -> list[str]:
    """The names of a record's fields, for CSV."""
    return [field.name for field in RECORDS[kind] if field.name not in without]


def more(shown: int, total: int) -> str:
    """The line that says what was left out."""
    return f"... and {total - shown} more: -n 0 shows all\n" if total > shown else ""


def nothing(source: Source, asked: Asked, what: str = "event", *, earlier: bool = True) -> str:
    """A sentence for an empty list: nothing happened, or nothing was recorded."""
    period, like = asked.period, f" of a command like {visible(repr(asked.period.text))}" if asked.period.text else ""
    since = moment(period.since, source.now)
    if not source.last_tick:
        return "Nothing was recorded yet.\n"
    last = queries.latest(source.reader, period, source.watched) if earlier else None
    before = f" The last one before that began {moment(last, source.now)}." if last is not None else ""
    seen = source.watched.seen
    if seen < period.since:
        return f"Nothing was recorded since {since}: the last tick was {ago(seen, source.now)}.{before}\n"
    return f"No {what}{like} since {since}.{before}\n"


def empty(source: Source, asked: Asked, what: str = "event", *, earlier: bool = True) -> Callable[[Style], str]:
    """The text of an empty list, see `nothing`."""
    words = nothing(source, asked, what, earlier=earlier)
    return lambda _: words


def existing(found: _T | None, kind: str, which: str) -> _T:
    """What was found by a number or key. Raises DatabaseError, 65, if that is None."""
    if found is None:
        raise DatabaseError(f"{which}: no such {kind}; `rh-report {kind}s` lists them", 65)
    return found


def blocks_that_fit(width: int) -> int:
    """Blocks of a sparkline behind a label of eight columns, on a terminal of this width."""
    return max(1, min(SLOTS, width - 8))


def spark(period: Period, points: Iterable[tuple[float, float]], slots: int = SLOTS) -> str:
    """The sums of (time, value) over the period as a line of blocks; the highest is a full block."""
    held = [0.0] * slots
    width = max(period.until - period.since, 1e-9) / slots
    for at, value in points:
        # What began before the period and reaches into it counts at its beginning.
        held[min(slots - 1, max(0, int((at - period.since) / width)))] += value
    high = max(held)
    # A little is not nothing: what would round to an empty block gets the lowest one.
    return sparkline([max(v, high / 8) if v > 0 else 0.0 for v in held]) if high else ""


def recorded_lines(found: Sequence[Record], now: float) -> list[str]:
    """`macOS recorded: X, 2,450 wakeups/s, limit 150 (pid 5, 14:32 to 14:36)`, a line for each."""
    lines = []
    for each in found:
        who = [visible(str(each["command"]))] if each.get("command") else []
        span = moment(each["ts"], now) + (f" to {moment(each['end_ts'], now)}" if "end_ts" in each else "")
        pid = f"pid {each['pid']}, " if "pid" in each else ""
        what = [] if each["what"] == "limit" else [each["what"]]
        lines.append(f"macOS recorded: {', '.join([*who, *what, *filter(None, [visible(each.get('detail', ''))])])} "
                     f"({pid}{span})")
    return lines
