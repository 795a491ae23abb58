"""The view summary: which process is hogging the machine, answered in the first line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from rogue_hunter.config.options import Config
from rogue_hunter.report import queries
from rogue_hunter.report.evidence import Live, over
from rogue_hunter.report.queries import Period, Source, source
from rogue_hunter.report.render import Answer, Style, render, style, table
from rogue_hunter.report.sentences import (
    Fields,
    ago,
    cause,
    command_line,
    moment,
    name,
    number,
    percent,
    period_words,
    share,
)
from rogue_hunter.report.verdict_text import cause_fields, cause_words, count, title, victim_fields
from rogue_hunter.report.views.status import sentence
from rogue_hunter.report.views.view import Asked
from rogue_hunter.schema import RECORDS
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, duration, visible
from rogue_hunter.verdict.engine import stands_out, verdict
from rogue_hunter.verdict.model import Cause, Verdict

PRESENT_S = 20.0
"""A process that was active within this time before the end of the period is reported in the present tense."""
SLIGHT = 0.1
"""Part of what was used from which a further process is worth a line."""
FURTHER = 3
"""Causes after the first that are listed."""


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


def summary_view(found: Source, asked: Asked) -> Answer:
    """The summary as a view of rh-report."""
    return summary(found, asked.period, 5 if asked.limit is None else asked.limit, live=asked.live)


def summary(found: Source, period: Period, limit: int, *, footer: bool = True, live: Live | None = None) -> Answer:
    """The answer, of one record report_summary. `footer` adds a line that says whether rh-pipe runs."""
    watched = found.watched
    counts = queries.count(found.reader, period, watched)
    evidence = over(found, period.since, period.until, live, period.text)
    judged = verdict(evidence.window)
    causes = [one for one in judged.causes if not period.text or _like(one, period.text)]
    worst = _ordered(queries.worst(found.reader, period, watched, 0), causes)
    worst = worst[:limit] if limit else worst
    last = found.last_tick
    seen = last.get("ts")
    first = causes[0] if causes else None
    state = judged.state if first is not None or judged.state == "no_evidence" else "nothing"
    if first is not None and state == "use" and stands_out(first):
        state = "found"
    fields = [cause_fields(one, found.now) for one in causes]
    head = {key: fields[0].get(key) for key in ("command", "pid", "start_ticks", "name")} \
        if first is not None and first.who is not None else {}
    made = record("report_summary", since=period.since, until=period.until, verdict=state, headline="",
                  cause=first.cause if first else None, kind=first.kind if first else None,
                  confidence=first.confidence if first else None, **head, causes=fields,
                  victims=victim_fields(first.victims) if first else [], **counts, worst=worst,
                  highest=_highest(found, period) if not worst else None, watch=found.watch, last_tick=seen,
                  processes=last.get("processes"),
                  last_tick_age_s=None if seen is None else round(max(0.0, found.now - seen), 3),
                  resolution_s=None if evidence.absent else evidence.window.resolution_s,
                  own_cpu_percent=None if judged.own_cores is None else round(100 * judged.own_cores, 2))
    made["headline"] = _headline(made, found, period, causes)
    return Answer([made], lambda look: _text(made, found, period, judged, causes, look, footer), single=True,
                  csv_rows=worst, columns=[f.name for f in RECORDS["report_process"]])


def _like(one: Cause, text: str) -> bool:
    who = one.who
    return who is not None and any(text.lower() in part.lower() for part in (who.name, who.command, who.cmdline,
                                                                            who.unit))


def _ordered(worst: list[Record], causes: list[Cause]) -> list[Record]:
    """The processes of events, first those that the verdict names, in its order."""
    rank = {(key[1], key[2]): n for n, one in reversed(list(enumerate(causes))) if one.who is not None
            for key in one.who.keys}
    return sorted(worst, key=lambda row: rank.get((row["pid"], row["start_ticks"]), len(causes)))


def _headline(made: Record, found: Source, period: Period, causes: list[Cause]) -> str:
    if not causes:
        return _none(made, found, period)
    first = causes[0]
    words = cause_words(first, found.now, present=_active(first, found, period))
    if first.kind == "use":
        calm = f"Nothing was short {period_words(period.since, period.until, found.now)}, and nothing waited."
        alone = cause_words(first, found.now, present=_active(first, found, period), calm="nothing waited for it")
        return f"{alone}." if made["verdict"] == "found" else f"{calm} Used most: {words}."
    return f"{words}." if first.who is not None else f"{title(first)}: {words}."


def _active(one: Cause, found: Source, period: Period) -> bool:
    """True while a taker is active as far as is known: rh-pipe runs, and the last slices show it."""
    who = one.who
    return (found.watch == "running" and period.until >= found.now - PRESENT_S and who is not None
            and who.start + who.seconds >= found.now - PRESENT_S)


def _present(row: Fields, found: Source, period: Period) -> bool:
    """True for a process that was in its event at the last tick of an rh-pipe that runs."""
    return (bool(row["going"]) and found.watch == "running"
            and period.until - max(found.watched.seen, float(row["last_seen"])) < PRESENT_S)


def _none(made: Record, found: Source, period: Period) -> str:
    """The headline when nothing was short: how near anything came, or that there is no data."""
    when = period_words(period.since, period.until, found.now)
    if not found.last_tick and not made["worst"]:
        return "Nothing was recorded yet."
    seen = found.watched.seen
    if seen < period.since:
        return f"Nothing was recorded {when}: the last tick was {ago(seen, found.now)}."
    if made["worst"] and made["verdict"] == "nothing" and not period.text:
        return f"Nothing was short {when}, and no process stood out; the events of that time were short."
    if made["worst"]:
        first = made["worst"][0]
        line = command_line(first)
        score = f"score {first['peak_score']} {first.get('peak_band', '')}".strip()
        words = ", ".join(part for part in (score, share(first), f"for {duration(first['duration_s'])}") if part)
        known = "" if made["verdict"] == "nothing" else "; there are no slices of that time to judge it by"
        return f"{name(first)} reached the tracking band {when}: {words}; {clip(line, 100)}{known}."
    if period.text:
        return f"No event of a command like {visible(repr(period.text))} {when}."
    highest = made.get("highest")
    if not highest:
        return f"Nothing was short {when}, and no process reached the tracking band."
    words = ", ".join(w for w in (f"score {highest['score']} {highest.get('band', '')}".strip(), share(highest)) if w)
    line = f"; {clip(command_line(highest), 100)}" if highest.get("cmdline") else ""
    return (f"Nothing was short {when}, and no process reached the tracking band. The highest was {name(highest)}: "
            f"{words}, at {moment(highest['ts'], found.now)}{line}")


def _highest(found: Source, period: Period) -> Record | None:
    """The highest score that is known of the period: of the whole run, or of its last tick when that lies outside."""
    if period.text or found.last_tick.get("ts") is None:
        return None
    at = found.last_tick["ts"]
    highest = found.state.get("highest") or {}
    now = [{"ts": at, **row} for row in found.state.get("rogues") or [] if row.get("score")]
    inside = [row for row in [highest, *now] if row.get("score") and period.since <= row.get("ts", 0.0) <= period.until]
    return max(inside, key=lambda row: float(row["score"]), default=None)


def _slight(one: Cause) -> bool:
    """Use of a small part of what was used, beside something larger."""
    return one.kind == "use" and one.who is not None and one.who.share < SLIGHT


def _text(made: Record, found: Source, period: Period, judged: Verdict, causes: list[Cause], look: Style,
          footer: bool) -> str:
    lines = [made["headline"]]
    for one in [one for one in causes[1:] if one.kind != "own" and not _slight(one)][:FURTHER]:
        lines.append(f"{'Also used' if one.kind == 'use' else 'Also'}: {title(one)}: {cause_words(one, look.now)}.")
    worst = made["worst"]
    if worst:
        lines.append(f"{count(made['events'], 'event')} of {count(made['rogue_processes'], 'process')} "
                     f"{period_words(period.since, period.until, look.now)}, {made['open_events']} open.")
    if judged.own_cores is not None and judged.own_cores > 0:
        lines.append(f"rogue-hunter itself: {number(round(100 * judged.own_cores, 1))} % of a core.")
    if len(worst) > 1:
        rows = [[str(w["peak_score"]), look.band(w.get("peak_band"), w.get("peak_band")), cause(w),
                 percent(w.get("share")), duration(w["duration_s"]),
                 "now" if _present(w, found, period) else moment(w["last_seen"], look.now), str(w["pid"]),
                 command_line(w)] for w in worst]
        lines += ["", table(["PEAK", "BAND", "CAUSE", "SHARE", "FOR", "UNTIL", "PID", "COMMAND"], rows, look,
                            right="PEAK SHARE FOR PID", drop="BAND SHARE CAUSE PEAK UNTIL PID").rstrip("\n")]
        if made["rogue_processes"] > len(worst):
            lines.append(f"... and {made['rogue_processes'] - len(worst)} more: -n 0 shows all")
    if footer:
        lines += [*([""] if worst else []), sentence(_watch(made, found), look.now) + "."]
    return "\n".join(lines) + "\n"


def _watch(made: Record, found: Source) -> Record:
    return {**made, "pid": found.holder.pid, **({"started_at": s} if (s := found.state.get("started_at")) else {})}
