"""The view summary: which process is hogging the machine, answered in the first line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from rogue_hunter.config.options import Config
from rogue_hunter.report import queries
from rogue_hunter.report.database import Source, source
from rogue_hunter.report.queries import Period
from rogue_hunter.report.render import Answer, Style, render, style, table
from rogue_hunter.report.sentences import Fields, ago, cause, command_line, headline, moment, name, percent, share
from rogue_hunter.report.views.status import sentence
from rogue_hunter.schema import RECORDS
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, duration, visible

PRESENT_S = 60.0
"""A process that was at it when the watch ended, which is not longer ago than this, is told of in the present."""


def print_summary(database: Path, since: float, until: float, config: Config | None = None,
                  out: BinaryIO | None = None) -> None:
    """Write the summary of a run to `out`, standard output by default: what `rh-pipe --report` ends with.

    Raises DatabaseError, and OSError for what cannot be written.
    """
    with source(database, until, config or Config()) as found:
        answer = summary(found, Period(since, until), 5, footer=False)
    data = render(answer, "table", style(sys.stdout, until))
    sink = sys.stdout.buffer if out is None else out
    sink.write(data)
    sink.flush()


def summary(found: Source, period: Period, limit: int, *, footer: bool = True) -> Answer:
    """The answer, of one record report_summary. `footer` adds a line that says whether rh-pipe runs."""
    watched = found.watched
    counts = queries.count(found.reader, period, watched)
    worst = queries.worst(found.reader, period, watched, limit)
    last = found.last_tick
    seen = last.get("ts")
    highest = _highest(found, period) if not worst else None
    made = record("report_summary", since=period.since, until=period.until, headline="", **counts, worst=worst,
                  highest=highest, watch=found.watch, last_tick=seen, processes=last.get("processes"),
                  last_tick_age_s=None if seen is None else round(max(0.0, found.now - seen), 3))
    plain = Style(100, False, found.now)
    made["headline"] = _headline(made, found, period, plain)
    return Answer([made], lambda look: _text(made, found, period, look, footer), single=True, csv_rows=worst,
                  columns=[f.name for f in RECORDS["report_process"]])


def _headline(made: Record, found: Source, period: Period, look: Style) -> str:
    if not made["worst"]:
        return _none(made, found, period)
    first = made["worst"][0]
    return headline(first, present=_present(first, found, period), watching_ended=bool(first["going"]), now=look.now,
                    band=look.band)


def _present(row: Fields, found: Source, period: Period) -> bool:
    """True for a process that is still at it, as far as can be known."""
    return bool(row["going"]) and period.until - max(found.watched.seen, float(row["last_seen"])) < PRESENT_S


def _none(made: Record, found: Source, period: Period) -> str:
    """What to say when there is no event: how near anything came, or that nobody watched."""
    since = moment(period.since, found.now)
    if not found.last_tick:
        return "Nothing was recorded yet."
    seen = found.watched.seen
    if seen < period.since:
        return f"Nothing was recorded since {since}: the last tick was {ago(seen, found.now)}."
    if period.text:
        return f"No event of a command like {visible(repr(period.text))} since {since}."
    highest = made.get("highest")
    if not highest:
        return f"Nothing reached the tracking band since {since}."
    words = ", ".join(w for w in (f"score {highest['score']} {highest.get('band', '')}".strip(), share(highest)) if w)
    line = clip(command_line(highest), 100)
    return (f"Nothing reached the tracking band since {since}. The highest was {name(highest)}: {words}, "
            f"at {moment(highest['ts'], found.now)}" + (f"; {line}" if highest.get("cmdline") else ""))


def _highest(found: Source, period: Period) -> Record | None:
    """The highest score that is known of the period: of the whole run, or of its last tick when that lies outside."""
    if period.text or found.last_tick.get("ts") is None:
        return None
    at = found.last_tick["ts"]
    highest = found.state.get("highest") or {}
    now = [{"ts": at, **row} for row in found.state.get("rogues") or [] if row.get("score")]
    inside = [row for row in [highest, *now] if row.get("score") and period.since <= row.get("ts", 0.0) <= period.until]
    return max(inside, key=lambda row: float(row["score"]), default=None)


def _text(made: Record, found: Source, period: Period, look: Style, footer: bool) -> str:
    lines = [_headline(made, found, period, look)]
    worst = made["worst"]
    if worst:
        one = made["events"] == 1
        lines.append(f"{made['events']} event{'' if one else 's'} of {made['rogue_processes']} "
                     f"process{'' if made['rogue_processes'] == 1 else 'es'} from {moment(period.since, look.now)} to "
                     f"{moment(period.until, look.now)}, {made['open_events']} open.")
    if len(worst) > 1:
        rows = [[str(w["peak_score"]), look.band(w.get("peak_band"), w.get("peak_band")), cause(w),
                 percent(w.get("share")), duration(w["duration_s"]),
                 "now" if _present(w, found, period) else moment(w["last_seen"], look.now), str(w["pid"]),
                 command_line(w)] for w in worst]
        lines += ["", table(["PEAK", "BAND", "CAUSE", "SHARE", "FOR", "UNTIL", "PID", "COMMAND"], rows, look,
                            right="PEAK SHARE FOR PID").rstrip("\n")]
        if made["rogue_processes"] > len(worst):
            lines.append(f"... and {made['rogue_processes'] - len(worst)} more: -n 0 shows all")
    if footer:
        lines += [*([""] if worst else []), sentence(_watch(made, found), look.now) + "."]
    return "\n".join(lines) + "\n"


def _watch(made: Record, found: Source) -> Record:
    return {**made, "pid": found.holder.pid, **({"started_at": s} if (s := found.state.get("started_at")) else {})}
