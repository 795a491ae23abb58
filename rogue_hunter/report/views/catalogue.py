"""The views of rh-report: each takes a source and a question and gives an answer in words and in records.

A new view is a function here and a line in VIEWS.
"""

from __future__ import annotations

from collections.abc import Sequence

from rogue_hunter.report import queries
from rogue_hunter.report.database import Source
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import cause, command_line, measure, moment, name, percent, share
from rogue_hunter.report.views.actions import actions, matches
from rogue_hunter.report.views.captures import capture, captures
from rogue_hunter.report.views.datasette import datasette
from rogue_hunter.report.views.diff import diff
from rogue_hunter.report.views.pauses import pause, pauses
from rogue_hunter.report.views.sql import sql
from rogue_hunter.report.views.status import status
from rogue_hunter.report.views.summary import summary
from rogue_hunter.report.views.timeline import minutes, offenders, timeline
from rogue_hunter.report.views.view import Asked, View, columns, more, nothing
from rogue_hunter.report.views.why import why
from rogue_hunter.schema.sampling import PROCESS
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import duration, visible

_UNITS = {field.name: field.unit for field in PROCESS}


def events(source: Source, asked: Asked) -> Answer:
    """The events of the period, the newest first."""
    found = queries.events(source.reader, asked.period, source.watched, asked.rows(20))
    total = queries.count(source.reader, asked.period, source.watched)["events"]
    empty = "" if found else nothing(source, asked)

    def text(look: Style) -> str:
        if not found:
            return empty
        rows = [[str(e["id"]), moment(e["entry_time"], look.now), duration(e["duration_s"]),
                 "open" if e["open"] else str(e.get("reason", "")), str(e["peak_score"]),
                 look.band(e.get("peak_band"), e.get("peak_band")), cause(e), percent(e.get("share")), str(e["pid"]),
                 visible(str(e.get("user", ""))), command_line(e)] for e in found]
        heads = ["ID", "ENTERED", "FOR", "END", "PEAK", "BAND", "CAUSE", "SHARE", "PID", "USER", "COMMAND"]
        return table(heads, rows, look, right="ID FOR PEAK SHARE PID") + more(len(found), total)

    return Answer(found, text, columns=columns("report_event", "snapshots", "ranges"))


def event(source: Source, asked: Asked) -> Answer:
    """One event with its snapshots, and what each metric did."""
    (which,) = asked.which
    found = queries.event(source.reader, which, source.watched)
    if found is None:
        raise DatabaseError(f"{which}: no such event; `rh-report events` lists them", 65)
    flat = {key: value for key, value in found.items() if key != "snapshots"}
    taken: list[Record] = found["snapshots"]
    return Answer([found], lambda look: _event_text(found, look), single=True, ndjson_rows=[flat, *taken],
                  csv_rows=[{k: v for k, v in s.items() if k not in ("type", "v")} for s in taken])


def _event_text(e: Record, look: Style) -> str:
    level = str(e.get("peak_band", ""))
    ended = "has not ended" if e["open"] else f"ended {moment(e.get('exit_time'), look.now)}, {e.get('reason')}"
    lines = [f"Event {e['id']}, {visible(e['event'])}",
             f"{name(e)}" + (f" of {visible(e['user'])}" if e.get("user") else "") + f": {visible(command_line(e))}",
             f"entered {moment(e['entry_time'], look.now)} with score {e.get('entry_score')} {e.get('entry_band')}, "
             f"{ended}, lasted {duration(e['duration_s'])}",
             "peak " + look.band(f"{e['peak_score']} {level}".strip(), level)
             + (f" at {moment(e['peak_time'], look.now)}" if "peak_time" in e else "") + f", cause {cause(e)}"
             + (f", {words}" if (words := share(e)) else "")]
    if "cpu_seconds" in e:
        lines.append(f"CPU time used between its snapshots: {e['cpu_seconds']:.2f} s")
    return "\n".join(lines) + "\n\n" + _snapshots_text(e["snapshots"], look) + "\n" + _ranges_text(e["ranges"], look)


def _snapshots_text(taken: Sequence[Record], look: Style) -> str:
    metrics = [("CPU", "cpu_percent"), ("MEMORY", "memory_bytes"), ("DISK", "disk_bytes_per_s"),
               ("GPU", "gpu_ms_per_s"), ("WAKEUPS", "wakeups_per_s"),
               ("RUN-DELAY", "run_delay_ms_per_s"), ("PAGE-INS", "pageins_per_s")]
    known = [(head, key) for head, key in metrics if any(key in s for s in taken)]
    heads = ["TIME", "SNAPSHOT", "SCORE", "BAND", "CAUSE", *(head for head, _ in known), "STATE"]
    rows = [[moment(s["captured_at"], look.now), s["snapshot_type"], str(s.get("score", "")),
             look.band(s.get("band"), s.get("band")), cause(s), *(measure(s.get(key), _UNITS[key]) for _, key in known),
             str(s.get("state", ""))] for s in taken]
    right = " ".join(["SCORE", *(head for head, _ in known)])
    return table(heads, rows, look, right=right) if rows else "No snapshots.\n"


def _ranges_text(ranges: dict[str, dict[str, float]], look: Style) -> str:
    moved = {key: r for key, r in ranges.items() if r["high"] or r["low"]}
    still = [key for key in ranges if key not in moved]
    rows = [[key, *(measure(r.get(part), _UNITS[key]) for part in ("low", "peak", "high"))] for key, r in moved.items()]
    return ((table(["METRIC", "LOW", "AT-PEAK", "HIGH"], rows, look, right="LOW AT-PEAK HIGH") if rows else "")
            + (f"always 0: {', '.join(still)}\n" if still else ""))


def top(source: Source, asked: Asked) -> Answer:
    """The commands, or units of work, by the time that they spent at or above the tracking band."""
    found = queries.top(source.reader, asked.period, source.watched, 0, asked.by)
    total, limit = len(found), asked.rows(20)
    found = found[:limit] if limit else found
    empty = "" if found else nothing(source, asked)

    def text(look: Style) -> str:
        if not found:
            return empty
        rows = [[duration(c["duration_s"]), str(c["events"]), str(c["processes"]), str(c["peak_score"]),
                 look.band(c.get("peak_band"), c.get("peak_band")), cause(c), measure(c.get("cpu_seconds"), "s"),
                 "open" if c["open_events"] else moment(c["last_seen"], look.now), str(c.get(asked.by) or "?")]
                for c in found]
        heads = ["TIME", "EVENTS", "PROCESSES", "PEAK", "BAND", "CAUSE", "CPU-TIME", "LAST", asked.by.upper()]
        return table(heads, rows, look, right="TIME EVENTS PROCESSES PEAK CPU-TIME") + more(len(found), total)

    return Answer(found, text, columns=columns("report_command"))


def _summary(source: Source, asked: Asked) -> Answer:
    return summary(source, asked.period, 5 if asked.limit is None else asked.limit, live=asked.live)


def _status(source: Source, _: Asked) -> Answer:
    return status(source)


def _why(source: Source, asked: Asked) -> Answer:
    return why(source, asked.period, asked.at, asked.limit, asked.live)


VIEWS: dict[str, View] = {
    "summary": View(_summary, "which process hogs the machine: the worst first"),
    "why": View(_why, "why was it slow --at TIME (default: now)? causes, and what it was not", at=True),
    "pauses": View(pauses, "when the machine stood still, for want of what, and through whom"),
    "pause": View(pause, "one pause with everybody who is named, and the evidence", names=("ID",), period="refused"),
    "offenders": View(offenders, "minutes of pause that each command owes", by=True),
    "timeline": View(timeline, "pauses, events and sleep, newest first"),
    "minutes": View(minutes, "the machine minute by minute, newest first"),
    "events": View(events, "the events, newest first"),
    "event": View(event, "one event with its snapshots and what each metric did", names=("ID",), period="refused"),
    "captures": View(captures, "evidence that was kept when it was worst, newest first"),
    "capture": View(capture, "one capture: who held up whom, threads, log", names=("ID",), period="refused",
                    part=True),
    "top": View(top, "commands by the time they spent at or above the tracking band", by=True),
    "actions": View(actions, "what the reaper did, and what it left alone and why, newest first"),
    "matches": View(matches, "what the rules were about: in the mode observe, what armed would end"),
    "status": View(_status, "whether rh-pipe runs, and how it is", period="ignored", database="optional"),
    "sql": View(sql, "the rows of one SELECT of your own", names=("SELECT",), period="refused"),
    "diff": View(diff, "which commands are in another band in recording B than in A", names=("A", "B"),
                 period="refused", database="unused"),
    "datasette": View(datasette, "the command that starts Datasette on the database", period="ignored",
                      database="unused"),
}
"""View -> what makes it. The first is the one that is meant when none is named."""
