"""The view why: why was the machine slow at a time? In plain words, ranked, with the numbers, and what it was not."""

from __future__ import annotations

from collections.abc import Sequence

from rogue_hunter.report import history
from rogue_hunter.report.causes import Cause, causes, ruled_out, verdicts
from rogue_hunter.report.database import Source
from rogue_hunter.report.evidence import Scene, around, look
from rogue_hunter.report.queries import Period
from rogue_hunter.report.render import Answer, Style
from rogue_hunter.report.sentences import moment, percent
from rogue_hunter.report.shortage import Judged
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, duration, sparkline

SPARK_MINUTES = 15
"""Minutes before and after that the lines of blocks show."""

_LABEL = {"io": "disk", "asleep": "sleep", "rogue-hunter": "rogue-hunter"}


def why(source: Source, period: Period, at: float | None, limit: int | None = None) -> Answer:
    """The answer, of one record report_why. `at` is the point of time that was asked for, else the period counts."""
    since, until = (at, at) if at is not None else (period.since, period.until)
    scene = look(source, since, until, at, period.text)
    judged = verdicts(scene)
    found = causes(source, scene, judged)
    if not found and at is not None and scene.minutes:
        beside = around(source, scene)
        found = causes(source, beside, verdicts(beside), beside=True)
    found = found[:limit] if limit else found
    out = [] if scene.absent or scene.slept else ruled_out(scene, judged, found)
    first = found[0] if found else None
    verdict = "found" if found else "no_evidence" if scene.absent else "nothing"
    made = record(
        "report_why", since=scene.since, until=scene.until, at=at, verdict=verdict,
        headline=_headline(source, scene, first), cause=first.cause if first else None,
        command=first.command if first else None, pid=first.pid if first else None,
        causes=[one.fields() for one in found], not_causes=[_out(one) for one in out], pauses=list(scene.pauses),
        minutes=len(scene.minutes), watched_s=scene.watched_s, usual_minutes=scene.normal_of)
    lines = _sparks(source, scene)
    rows = [{"rank": rank, "is_cause": True, **{k: v for k, v in one.fields().items() if k != "who"}}
            for rank, one in enumerate(found, 1)]
    return Answer([made], lambda look: _text(made, scene, found, out, lines, look), single=True,
                  csv_rows=[*rows, *({"is_cause": False, **_out(one)} for one in out)],
                  columns=["rank", "is_cause", "cause", "points", "command", "pid", "at", "words"])


def _out(one: Judged) -> dict[str, object]:
    return {"cause": one.cause, "words": one.words, **one.numbers}


def _when(source: Source, scene: Scene) -> str:
    if scene.at is not None:
        return f"at {moment(scene.at, source.now)}"
    return f"from {moment(scene.since, source.now)} to {moment(scene.until, source.now)}"


def _headline(source: Source, scene: Scene, first: Cause | None) -> str:
    when = _when(source, scene)
    if first is not None:
        return f"{when[0].upper()}{when[1:]}: {first.cause}: {first.words}."
    if scene.absent:
        return f"No evidence: {scene.absent}."
    return f"No evidence of anything unusual {when}: nothing was short, nobody stood out."


def _text(made: Record, scene: Scene, found: Sequence[Cause], out: Sequence[Judged], sparks: Sequence[str],
          look: Style) -> str:
    lines = _wrapped(made["headline"], look.width, 0)
    if scene.note:
        lines.append(f"Note: {scene.note}.")
    if found:
        lines += ["", "Likely causes, 0 to 100 points:"]
    for one in found:
        lines += _wrapped(f"{one.points:3.0f}  {one.cause}: {one.words}", look.width, 5)
        lines += [f"       {percent(w.get('share')):>5}  {clip(str(w.get('command', '?')), look.width - 20)}"
                  for w in one.who]
    if out:
        lines += ["", "Not the cause:"]
        width = max(len(_LABEL.get(not_it.cause, not_it.cause)) for not_it in out) + 2
        for not_it in out:
            label = _LABEL.get(not_it.cause, not_it.cause)
            lines += _wrapped(f"     {label:<{width}}{not_it.words}", look.width, 5 + width)
    if sparks:
        lines += ["", *sparks]
    if scene.minutes:
        span = scene.until - scene.since
        part = f" of {duration(span)}" if made["watched_s"] < 0.9 * span and not scene.note else ""
        lines.append(f"From {made['minutes']} minute{'' if made['minutes'] == 1 else 's'} of history, "
                     f"{duration(made['watched_s'])}{part} watched; the usual is the median of {made['usual_minutes']} "
                     "other minutes." if made["usual_minutes"] else
                     f"From {made['minutes']} minute{'' if made['minutes'] == 1 else 's'} of history; too little of it "
                     "to know what is usual.")
    return "\n".join(lines) + "\n"


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    """A line broken at spaces, its rest indented. What is in it is safe for a terminal already."""
    from textwrap import wrap

    return wrap(line, max(width, indent + 20), subsequent_indent=" " * indent, break_on_hyphens=False,
                drop_whitespace=True, replace_whitespace=False) or [line]


def _sparks(source: Source, scene: Scene) -> list[str]:
    """Lines of blocks: CPU, memory, storage and pauses, some minutes before and after."""
    middle = scene.at if scene.at is not None else (scene.since + scene.until) / 2
    reach = max(60 * SPARK_MINUTES, (scene.until - scene.since) / 2)
    low = (middle - reach) // 60 * 60
    minutes = scene.minutes if reach > 60 * SPARK_MINUTES else history.machine(source.reader, low, middle + reach)
    if len(minutes) < 2:
        return []
    step = max(1, round(2 * reach / 60 / 61)) * 60
    slots = int(2 * reach // step) + 1

    def line(value: object, top: float) -> str:
        held: list[float | None] = [None] * slots
        for m in minutes:
            made = value(m)  # type: ignore[operator]
            at = int((m["minute"] - low) // step)
            if made is not None and at < slots:
                held[at] = max(held[at] or 0.0, made)
        return sparkline(held, top)

    rows = [
        ("cpu", line(lambda m: m.get("cpu_busy_cores", 0.0) / (m.get("cpus") or 1), 1.0)),
        ("memory", line(lambda m: 1 - m["memory_available_bytes"] / m["memory_total_bytes"]
                        if m.get("memory_total_bytes") and "memory_available_bytes" in m else None, 1.0)),
        ("disk", line(lambda m: m.get("pressure_io_full_ms_per_s"), 1000.0)),
        ("pauses", line(lambda m: m.get("pause_s", 0.0), 0.0)),
    ]
    made = [f"{label:<8}{blocks.rstrip()}" for label, blocks in rows if blocks.strip()]
    return [*made, f"{'':<8}{moment(low, source.now)} to {moment(low + slots * step, source.now)}, "
            f"{'a minute' if step == 60 else duration(step)} each"]
