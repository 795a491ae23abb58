"""What a view is asked, what a view is, and what all of them say alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rogue_hunter.report import queries
from rogue_hunter.report.database import Source
from rogue_hunter.report.evidence import Live
from rogue_hunter.report.queries import Period
from rogue_hunter.report.render import Answer
from rogue_hunter.report.sentences import ago, moment
from rogue_hunter.schema import RECORDS
from rogue_hunter.text.format import sparkline, visible

SLOTS = 60
"""Blocks of a sparkline over a whole period."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants of a view. `limit` 0 is no limit, None the view's own for people and none for programs.

    `which` are the words behind the view's name, `at` a point of time (epoch seconds), `by` command or unit,
    `part` what is asked of a capture alone. `live` asks a running rh-pipe for its slices.
    """

    period: Period
    limit: int | None = None
    which: tuple[str, ...] = ()
    people: bool = False
    at: float | None = None
    by: str = "command"
    part: str = ""
    live: Live | None = None

    def rows(self, usual: int) -> int:
        """How many rows to give at most, 0 for all."""
        return self.limit if self.limit is not None else usual if self.people else 0


@dataclass(frozen=True, slots=True)
class View:
    """A view: what it answers, and what it takes.

    `names` are the words that must follow its name. `period`: used, ignored (where it has no meaning, so that a script
    may give all views the same options) or refused. `database`: needed, optional (there may be none) or unused.
    """

    answer: Callable[[Source, Asked], Answer]
    doc: str
    names: tuple[str, ...] = ()
    period: str = "used"
    database: str = "needed"
    at: bool = False
    by: bool = False
    part: bool = False


def columns(kind: str, *without: str) -> list[str]:
    """The names of a record's fields, for CSV."""
    return [field.name for field in RECORDS[kind] if field.name not in without]


def more(shown: int, total: int) -> str:
    """The line that says what was left out."""
    return f"... and {total - shown} more: -n 0 shows all\n" if total > shown else ""


def nothing(source: Source, asked: Asked, what: str = "event", *, earlier: bool = True) -> str:
    """A sentence for an empty list: nothing happened, or nobody watched."""
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
