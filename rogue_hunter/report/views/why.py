"""The view why: why was the machine slow at a time? In plain words, ranked, with the numbers, and what it was not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from rogue_hunter.report import history
from rogue_hunter.report.evidence import Evidence, Live, at_moment, of_now, over
from rogue_hunter.report.queries import Period, Source
from rogue_hunter.report.render import Answer, Style
from rogue_hunter.report.sentences import moment, percent, period_words
from rogue_hunter.report.verdict_text import cause_fields, cause_words, cleared_words, taker_name, title, victim_fields
from rogue_hunter.report.views.view import Asked, recorded_lines
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, duration, sparkline
from rogue_hunter.verdict.engine import verdict
from rogue_hunter.verdict.model import Verdict

SPARK_MINUTES = 15
"""Minutes before and after that the lines of blocks show."""
SPARK_BLOCKS = 51
"""Blocks of such a line at most: with its label it fits 60 columns."""
NOW_S = 1.0
"""A question about a moment that is not longer ago is one about now."""

_LABEL = {"io": "disk", "asleep": "sleep"}


def why_view(source: Source, asked: Asked) -> Answer:
    """The answer to why the machine was slow, as a view of rh-report."""
    return why(source, asked.period, asked.at, asked.limit, asked.live, asked.recorded_in)


def why(source: Source, period: Period, at: float | None, limit: int | None = None,
        live: Live | None = None, recorded_in: Callable[[float, float], Sequence[Record]] | None = None) -> Answer:
    """The answer, of one record report_why. `at` is the point of time that was asked for, else the period counts.

    `live` asks a running rh-pipe for the slices that it has in memory, `recorded_in` gives what macOS recorded between
    two times.
    """
    found = evidence_of(source, period, at, live)
    judged = verdict(found.window)
    causes = judged.causes[:limit] if limit else judged.causes
    first = causes[0] if causes else None
    now, window = source.now, found.window
    recorded = list(recorded_in(window.since, window.until)) if recorded_in is not None else []
    out = [{"cause": cause, "words": cleared_words(cause, numbers, window.usual), **numbers}
           for cause, numbers in judged.cleared.items()]
    fields = [cause_fields(one, now) for one in causes]
    head = {name: fields[0].get(name) for name in ("command", "pid", "start_ticks", "name")} \
        if first is not None and first.who is not None else {}
    made = record(
        "report_why", since=round(window.since, 3), until=round(window.until, 3), at=at, verdict=judged.state,
        headline=headline(source, found, judged, recorded), cause=first.cause if first else None,
        kind=first.kind if first else None, confidence=first.confidence if first else None, **head,
        causes=fields, not_causes=out, victims=victim_fields(first.victims) if first else [],
        pauses=list(found.pauses), recorded=recorded or None, minutes=found.minutes, watched_s=round(window.seconds, 1),
        resolution_s=None if found.absent else window.resolution_s, usual_minutes=found.usual_of,
        own_cpu_percent=None if judged.own_cores is None else round(100 * judged.own_cores, 2))
    lines = _sparks(source, found)
    rows = [{"rank": rank, "is_cause": True, **{k: v for k, v in one.items() if k not in ("who", "victims")}}
            for rank, one in enumerate(fields, 1)]
    return Answer([made], lambda look: _text(made, found, judged, lines, look, limit), single=True,
                  csv_rows=[*rows, *({"is_cause": False, **one} for one in out)],
                  columns=["rank", "is_cause", "cause", "kind", "points", "command", "pid", "at", "words"])


def evidence_of(source: Source, period: Period, at: float | None, live: Live | None) -> Evidence:
    """The evidence about a moment, now, or a period if `at` is None."""
    if at is None:
        return over(source, period.since, period.until, live, period.text)
    if abs(at - source.now) <= NOW_S:
        return of_now(source, live)
    return at_moment(source, at, live, period.text)


def _when(source: Source, found: Evidence) -> str:
    window, now = found.window, source.now
    if window.recent:
        return f"in the last {duration(now - window.since)}"
    if found.at is not None and found.at % 60:      # a time to the minute means the whole minute
        return f"at {moment(found.at, now)}"
    return period_words(window.since, window.until, now)


def headline(source: Source, found: Evidence, judged: Verdict, recorded: Sequence[Record] = ()) -> str:
    """The verdict as a sentence, safe for a terminal; without evidence also the first of what macOS recorded."""
    when = _when(source, found)
    begin = f"{when[0].upper()}{when[1:]}"
    if found.absent or judged.state == "no_evidence":
        known = f" {recorded_lines(recorded[:1], source.now)[0]}." if recorded else ""
        return f"No data: {found.absent or 'nothing was recorded'}.{known}"
    first = judged.first
    if first is None:
        return f"{begin}: nothing was short, and no process stood out."
    words = cause_words(first, source.now, present=found.window.recent)
    if judged.state == "use":
        return f"{begin}: nothing was short and nothing waited. Used most: {words}."
    return f"{begin}: {title(first)}: {words}."


def _text(made: Record, found: Evidence, judged: Verdict, sparks: Sequence[str], look: Style,
          limit: int | None) -> str:
    lines = _wrapped(made["headline"], look.width, 0)
    if found.note:
        lines.append(f"Note: {found.note}.")
    for line in recorded_lines((made.get("recorded") or [])[:10], look.now):
        lines += _wrapped(line, look.width, 2)
    causes = judged.causes[:limit] if limit else judged.causes
    if causes:
        lines += ["", "Likely causes, 0 to 100 points:" if judged.state == "found" else
                  "What used most, none of it a problem:"]
    for one in causes:
        lines += _wrapped(f"{one.points:3.0f}  {title(one)}: {cause_words(one, look.now)}", look.width, 5)
        if len(one.takers) > 1 or (one.who is not None and one.who.members):
            lines += [f"       {percent(taker.share):>5}  {clip(taker_name(taker), look.width - 20)}"
                      for taker in one.takers[:3]]
        if one.who is not None and one.who.kind != "process":
            lines += [f"              {clip(f'pid {m.key[1]}  {m.name}', look.width - 20)}"
                      for m in one.who.members[:3]]
    out: list[dict[str, Any]] = made["not_causes"]
    if out:
        lines += ["", "Not the cause:"]
        width = max(len(_LABEL.get(each["cause"], each["cause"])) for each in out) + 2
        for each in out:
            label = _LABEL.get(each["cause"], each["cause"])
            lines += _wrapped(f"     {label:<{width}}{each['words']}", look.width, 5 + width)
    if sparks:
        lines += ["", *sparks]
    if not found.absent:
        lines += ["", *_wrapped(_footer(made, found), look.width, 0)]
    return "\n".join(lines) + "\n"


def _footer(made: Record, found: Evidence) -> str:
    slices, each = len(found.window.slices), duration(made["resolution_s"])
    usual = f"the usual is the median of {made['usual_minutes']} other minutes" if made["usual_minutes"] else \
        "too little history to know what is usual"
    return f"From {slices} slice{'' if slices == 1 else 's'} of {each}, {duration(made['watched_s'])} watched; {usual}."


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    """A line broken at spaces, its rest indented. What is in it is safe for a terminal already."""
    from textwrap import wrap

    return wrap(line, max(width, indent + 20), subsequent_indent=" " * indent, break_on_hyphens=False,
                drop_whitespace=True, replace_whitespace=False) or [line]


def _sparks(source: Source, found: Evidence) -> list[str]:
    """Lines of blocks: CPU, memory, storage and pauses, some minutes before and after."""
    window = found.window
    middle = found.at if found.at is not None else (window.since + window.until) / 2
    reach = max(60.0 * SPARK_MINUTES, (window.until - window.since) / 2)
    low = (middle - reach) // 60 * 60
    step = max(1, ceil(2 * reach / 60 / SPARK_BLOCKS)) * 60
    slots = int(2 * reach // step) + 1
    highest = history.highest_minutes(source.reader, low, middle + reach, step) if not found.absent else {}
    if sum(row["minutes"] for row in highest.values()) < 2:
        return []
    lines = [(label, sparkline([highest[at].get(label) if at in highest else None for at in range(slots)], top))
             for label, top in (("cpu", 1.0), ("memory", 1.0), ("disk", 1000.0), ("pauses", 0.0))]
    made = [f"{label:<8}{blocks.rstrip()}" for label, blocks in lines if blocks.strip()]
    return [*made, f"{'':<8}{moment(low, source.now)} to {moment(low + slots * step, source.now)}, "
            f"{'a minute' if step == 60 else duration(step)} each"]
