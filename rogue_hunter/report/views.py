"""The views of rh-report: each takes a source and a question and gives an answer in words and in records.

A new view is a function here and a line in VIEWS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rogue_hunter.report import queries
from rogue_hunter.report.queries import Period
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.source import Source
from rogue_hunter.report.status import status
from rogue_hunter.report.summary import summary
from rogue_hunter.report.words import ago, cause, command_line, measure, moment, name, percent, share
from rogue_hunter.schema import PROCESS, RECORDS
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.text import duration, visible
from rogue_hunter.tick import Record

_UNITS = {field.name: field.unit for field in PROCESS}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants of a view. `limit` 0 is no limit, None the view's own for people and none for programs."""

    period: Period
    limit: int | None = None
    which: str = ""
    people: bool = False

    def rows(self, usual: int) -> int:
        """How many rows to give at most, 0 for all."""
        return self.limit if self.limit is not None else usual if self.people else 0


@dataclass(frozen=True, slots=True)
class View:
    """A view: what it answers, and whether it is about one thing that must be named."""

    answer: Callable[[Source, Asked], Answer]
    doc: str
    names: str = ""
    period: bool = True


def _nothing(source: Source, asked: Asked) -> str:
    """A sentence for an empty list: nothing happened, or nobody watched."""
    period, like = asked.period, f" of a command like {visible(repr(asked.period.text))}" if asked.period.text else ""
    since = moment(period.since, source.now)
    if not source.last_tick:
        return "Nothing was recorded yet.\n"
    earlier = queries.latest(source.reader, period, source.watched)
    before = f" The last one before that began {moment(earlier, source.now)}." if earlier is not None else ""
    seen = source.watched.seen
    if seen < period.since:
        return f"Nothing was recorded since {since}: the last tick was {ago(seen, source.now)}.{before}\n"
    return f"No event{like} since {since}.{before}\n"


def _more(shown: int, total: int) -> str:
    return f"... and {total - shown} more: -n 0 shows all\n" if total > shown else ""


def events(source: Source, asked: Asked) -> Answer:
    """The events of the period, the newest first."""
    found = queries.events(source.reader, asked.period, source.watched, asked.rows(20))
    total = queries.count(source.reader, asked.period, source.watched)["events"]
    empty = "" if found else _nothing(source, asked)

    def text(look: Style) -> str:
        if not found:
            return empty
        rows = [[str(e["id"]), moment(e["entry_time"], look.now), duration(e["duration_s"]),
                 "open" if e["open"] else str(e.get("reason", "")), str(e["peak_score"]),
                 look.band(e.get("peak_band"), e.get("peak_band")), cause(e), percent(e.get("share")), str(e["pid"]),
                 visible(str(e.get("user", ""))), command_line(e)] for e in found]
        heads = ["ID", "ENTERED", "FOR", "END", "PEAK", "BAND", "CAUSE", "SHARE", "PID", "USER", "COMMAND"]
        return table(heads, rows, look, right="ID FOR PEAK SHARE PID") + _more(len(found), total)

    return Answer(found, text, columns=_columns("report_event", "snapshots", "ranges"))


def event(source: Source, asked: Asked) -> Answer:
    """One event with its snapshots, and what each metric did."""
    found = queries.event(source.reader, asked.which, source.watched)
    if found is None:
        raise DatabaseError(f"{asked.which}: no such event; `rh-report events` lists them", 65)
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
    """The commands by the time that they spent at or above the tracking band."""
    found = queries.top(source.reader, asked.period, source.watched, 0)
    total, limit = len(found), asked.rows(20)
    found = found[:limit] if limit else found
    empty = "" if found else _nothing(source, asked)

    def text(look: Style) -> str:
        if not found:
            return empty
        rows = [[duration(c["duration_s"]), str(c["events"]), str(c["processes"]), str(c["peak_score"]),
                 look.band(c.get("peak_band"), c.get("peak_band")), cause(c), measure(c.get("cpu_seconds"), "s"),
                 "open" if c["open_events"] else moment(c["last_seen"], look.now), c["command"]] for c in found]
        heads = ["TIME", "EVENTS", "PROCESSES", "PEAK", "BAND", "CAUSE", "CPU-TIME", "LAST", "COMMAND"]
        return table(heads, rows, look, right="TIME EVENTS PROCESSES PEAK CPU-TIME") + _more(len(found), total)

    return Answer(found, text, columns=_columns("report_command"))


def _columns(kind: str, *without: str) -> list[str]:
    return [field.name for field in RECORDS[kind] if field.name not in without]


def _summary(source: Source, asked: Asked) -> Answer:
    return summary(source, asked.period, 5 if asked.limit is None else asked.limit)


def _status(source: Source, _: Asked) -> Answer:
    return status(source)


VIEWS: dict[str, View] = {
    "summary": View(_summary, "which process hogs the machine: the worst first"),
    "events": View(events, "the events, newest first"),
    "event": View(event, "one event with its snapshots and what each metric did", names="ID", period=False),
    "top": View(top, "commands by the time they spent at or above the tracking band"),
    "status": View(_status, "whether rh-pipe runs, and how it is", period=False),
}
"""View -> what makes it. The first is the one that is meant when none is named."""
