"""The views timeline, offenders, minutes and usage: what happened, which command caused pauses, what was used when."""

from __future__ import annotations

from rogue_hunter.report import history
from rogue_hunter.report.queries import Source
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import moment, number, percent, period_words
from rogue_hunter.report.views.view import Asked, blocks_that_fit, columns, empty, more, spark
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import duration, size, sparkline, visible
from rogue_hunter.verdict.shortage import rate

OWED_SLOTS = 24
"""Blocks of the sparkline in a table's row."""


def timeline(source: Source, asked: Asked) -> Answer:
    """What happened in the period, the newest first."""
    limit, recorded = asked.rows(40), asked.recorded_in(asked.period.since, asked.period.until)
    found = sorted([*history.timeline(source.reader, asked.period, limit), *recorded], key=lambda t: -float(t["ts"]))
    found = found[:limit] if limit else found
    total = history.timeline_count(source.reader, asked.period) + len(recorded) if asked.people else 0

    def text(look: Style) -> str:
        rows = [[moment(t["ts"], look.now), t["what"], str(t.get("id", "")), str(t.get("score", "")),
                 visible(str(t.get("detail", ""))), str(t.get("command", ""))] for t in found]
        head = "".join(f"{what + 's':<8}{line}\n" for what, kind in (("pause", "pause"), ("event", "enter"))
                       if (line := spark(asked.period, ((t["ts"], 1.0) for t in found if t["what"] == kind),
                                     blocks_that_fit(look.width))))
        return ((head + "\n" if head and len(found) == total else "")
                + table(["TIME", "WHAT", "ID", "SCORE", "DETAIL", "COMMAND"], rows, look, right="ID SCORE",
                        drop="SCORE ID DETAIL")
                + more(len(found), total))

    return Answer(found, text if found else empty(source, asked), columns=columns("report_timeline"))


def offenders(source: Source, asked: Asked) -> Answer:
    """The commands, or units of work, by the minutes of pause that they caused."""
    found = history.offenders(source.reader, asked.period, source.watched, asked.by)
    total, limit = len(found), asked.rows(20)
    found = found[:limit] if limit else found
    times = history.owed_times(source.reader, asked.period, asked.by) if asked.people else []
    paused = history.pause_times(source.reader, asked.period) if asked.people else []

    def text(look: Style) -> str:
        rows = [[duration(60 * o["pause_minutes"] or None), percent(o.get("pause_share") or None),
                 str(o["pauses"] or ""), duration(o.get("longest_s")), duration(60 * o["rogue_minutes"] or None),
                 str(o["events"] or ""),
                 str(o.get("peak_score", "")), moment(o["last_seen"], look.now),
                 spark(asked.period, ((at, owed) for name, at, owed in times if name == o.get(asked.by)), OWED_SLOTS),
                 str(o.get(asked.by) or "?")] for o in found]
        heads = ["OWES", "OF-ALL", "PAUSES", "LONGEST", "ROGUE-FOR", "EVENTS", "PEAK", "LAST", "WHEN", asked.by.upper()]
        unattributed = sum(length for _, length, cause in paused if cause not in ("cpu", "memory", "io"))
        total_s = sum(length for _, length, _ in paused)
        foot = f"{len(paused)} pause{'' if len(paused) == 1 else 's'}, " \
               f"{duration(total_s)} in all, {duration(unattributed)} of it unattributed\n"
        return (table(heads, rows, look, right="OWES OF-ALL PAUSES LONGEST ROGUE-FOR EVENTS PEAK",
                      drop="PEAK EVENTS WHEN LAST LONGEST ROGUE-FOR OF-ALL PAUSES")
                + more(len(found), total) + foot)

    return Answer(found, text if found else empty(source, asked, "pause or event", earlier=False),
                  columns=columns("report_offender"))


def usage(source: Source, asked: Asked) -> Answer:
    """What each command used, the one that used most of a resource first."""
    found = history.usage(source.reader, asked.period, asked.by)
    total, limit = len(found), asked.rows(20)
    found = found[:limit] if limit else found

    def text(look: Style) -> str:
        rows = [[duration(u.get("cpu_seconds")), size(u.get("disk_bytes")), size(u.get("memory_bytes")),
                 duration(u.get("gpu_seconds") or None), str(u.get("wakeups", "")), str(u["minutes"]),
                 moment(u["peak_minute"], look.now), str(u.get("pid", "")), str(u["command"])] for u in found]
        heads = ["CPU-TIME", "DISK", "MEMORY", "GPU-TIME", "WAKEUPS", "MINUTES", "MOST-AT", "PID", "COMMAND"]
        keep = {"cpu": "CPU-TIME", "gpu": "GPU-TIME"}.get(asked.by, asked.by.upper())
        drop = [head for head in ("MINUTES", "GPU-TIME", "WAKEUPS", "PID", "MEMORY", "DISK", "CPU-TIME", "MOST-AT")
                if head != keep]
        made = table(heads, rows, look, right=" ".join([*heads[:6], "PID"]), drop=" ".join(drop))
        return made + more(len(found), total)

    return Answer(found, text if found else empty(source, asked, f"usage of {asked.by}", earlier=False),
                  columns=columns("report_usage"))


def minutes(source: Source, asked: Asked) -> Answer:
    """The machine minute by minute, the newest first, each with its top commands."""
    found = history.minutes(source.reader, asked.period, asked.rows(20))
    total = history.minute_count(source.reader, asked.period) if asked.people and not asked.period.text else len(found)
    whole = history.machine(source.reader, asked.period.since - 60, asked.period.until) if asked.people else []

    def text(look: Style) -> str:
        rows = []
        for m in found:
            first: Record = m["commands"][0] if m["commands"] else {}
            cpus, memory = m.get("cpus") or 1, m.get("memory_total_bytes")
            available = m.get("memory_available_bytes")
            busy = m.get("cpu_busy_cores")
            rows.append([
                moment(m["minute"], look.now), "" if busy is None else percent(busy / cpus),
                sparkline([busy], cpus), _waited(m.get("pressure_cpu_some_ms_per_s")),
                percent(available / memory) if available is not None and memory else "",
                f"{size(rate(m, 'disk_bytes'))}/s", _waited(m.get("pressure_io_full_ms_per_s")),
                duration(m.get("late_s")), duration(m["pause_s"]) if m.get("pause_s") else "",
                str(m.get("max_score", "")),
                f"{number(round(first['cpu_seconds'] / max(m['seconds'], 1), 2))} {first['command']}"
                if first.get("cpu_seconds") else ""])
        heads = ["MINUTE", "CPU", "LEVEL", "CPU-WAIT", "AVAIL", "DISK", "DISK-WAIT", "LATE", "PAUSED", "PEAK",
                 "CORES, TOP"]
        return (_sparks(whole, asked, look)
                + table(heads, rows, look, right="CPU CPU-WAIT AVAIL DISK DISK-WAIT LATE PAUSED PEAK",
                        drop="LEVEL PEAK LATE DISK AVAIL DISK-WAIT CPU-WAIT PAUSED")
                + more(len(found), total))

    return Answer(found, text if found else empty(source, asked, "minute", earlier=False),
                  columns=columns("report_minute", "commands"))


def _waited(ms_per_s: float | None) -> str:
    return "" if ms_per_s is None else percent(ms_per_s / 1000)


def _sparks(whole: list[history.Minute], asked: Asked, look: Style) -> str:
    """CPU, memory and pauses over the whole period: the worst minute of each block."""
    period = asked.period
    most = blocks_that_fit(look.width)
    width = max(60.0, (period.until - period.since) / most)
    slots = max(1, min(most, int((period.until - period.since) / width) + 1))
    rows = (("cpu", "cpu_busy_cores", "cpus"), ("memory", "memory_available_bytes", "memory_total_bytes"),
            ("pauses", "pause_s", ""))
    lines = []
    for label, name, of in rows:
        held: list[float | None] = [None] * slots
        for m in whole:
            if name not in m or (of and not m.get(of)):
                continue
            value = m[name] / m[of] if of else m[name]
            at = min(slots - 1, max(0, int((m["minute"] - period.since) / width)))
            held[at] = max(held[at] or 0.0, 1 - value if label == "memory" else value)
        blocks = sparkline(held, 1.0 if of else None).rstrip()
        if blocks:
            lines.append(f"{label:<8}{blocks}\n")
    span = f"{'':<8}{period_words(period.since, period.until, look.now)}, {duration(width)} each\n\n"
    return "".join(lines) + span if lines else ""
