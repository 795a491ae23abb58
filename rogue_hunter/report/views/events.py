"""The views of what happened: events, event, top, actions and matches; timeline, offenders, minutes and usage."""

from __future__ import annotations

from collections.abc import Sequence

from rogue_hunter.report import history, queries
from rogue_hunter.report.queries import Source, known, typed
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import (
    cause,
    command_line,
    measure,
    moment,
    name,
    number,
    percent,
    period_words,
    share,
)
from rogue_hunter.report.views.view import (
    Asked,
    blocks_that_fit,
    columns,
    empty,
    existing,
    more,
    nothing,
    recorded_lines,
    spark,
)
from rogue_hunter.schema.sampling import PROCESS
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, duration, size, sparkline, visible
from rogue_hunter.verdict.shortage import rate

_UNITS = {field.name: field.unit for field in PROCESS}


def events(source: Source, asked: Asked) -> Answer:
    """The events of the period, the newest first."""
    found = queries.events(source.reader, asked.period, source.watched, asked.rows(20))
    total = queries.count(source.reader, asked.period, source.watched)["events"]
    recorded = [each for each in asked.recorded_in(asked.period.since, asked.period.until) if each["what"] != "report"]
    words = "" if found else nothing(source, asked)

    def text(look: Style) -> str:
        said = "".join(f"{line}\n" for line in recorded_lines(recorded[:10], look.now)) + more(
            min(10, len(recorded)), len(recorded)).replace("-n 0 shows all", "rh-report timeline")
        if not found:
            return words + said
        rows = [[str(e["id"]), moment(e["entry_time"], look.now), duration(e["duration_s"]),
                 "open" if e["open"] else str(e.get("reason", "")), str(e["peak_score"]),
                 look.band(e.get("peak_band"), e.get("peak_band")), cause(e), percent(e.get("share")), str(e["pid"]),
                 visible(str(e.get("user", ""))), command_line(e)] for e in found]
        heads = ["ID", "ENTERED", "FOR", "END", "PEAK", "BAND", "CAUSE", "SHARE", "PID", "USER", "COMMAND"]
        made = table(heads, rows, look, right="ID FOR PEAK SHARE PID", drop="USER BAND END SHARE PID CAUSE ID")
        return made + more(len(found), total) + ("\n" + said if said else "")

    return Answer([*found, *recorded], text, csv_rows=found, columns=columns("report_event", "snapshots", "ranges"))


def event(source: Source, asked: Asked) -> Answer:
    """One event with its snapshots, and what each metric did."""
    (which,) = asked.which
    found = existing(queries.event(source.reader, which, source.watched), "event", which)
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
    drop = " ".join([*(head for head, _ in reversed(known)), "BAND", "CAUSE", "SNAPSHOT"])
    return table(heads, rows, look, right=right, drop=drop) if rows else "No snapshots.\n"


def _ranges_text(ranges: dict[str, dict[str, float]], look: Style) -> str:
    moved = {key: r for key, r in ranges.items() if r["high"] or r["low"]}
    still = [key for key in ranges if key not in moved]
    rows = [[key, *(measure(r.get(part), _UNITS[key]) for part in ("low", "peak", "high"))] for key, r in moved.items()]
    heads = ["METRIC", "LOW", "AT-PEAK", "HIGH"]
    return ((table(heads, rows, look, right="LOW AT-PEAK HIGH", drop="AT-PEAK") if rows else "")
            + (f"always 0: {', '.join(still)}\n" if still else ""))


def top(source: Source, asked: Asked) -> Answer:
    """The commands, or units of work, by the time that they spent at or above the tracking band."""
    found = queries.top(source.reader, asked.period, source.watched, 0, asked.by)
    total, limit = len(found), asked.rows(20)
    found = found[:limit] if limit else found

    def text(look: Style) -> str:
        rows = [[duration(c["duration_s"]), str(c["events"]), str(c["processes"]), str(c["peak_score"]),
                 look.band(c.get("peak_band"), c.get("peak_band")), cause(c), measure(c.get("cpu_seconds"), "s"),
                 "open" if c["open_events"] else moment(c["last_seen"], look.now), str(c.get(asked.by) or "?")]
                for c in found]
        heads = ["TIME", "EVENTS", "PROCESSES", "PEAK", "BAND", "CAUSE", "CPU-TIME", "LAST", asked.by.upper()]
        return table(heads, rows, look, right="TIME EVENTS PROCESSES PEAK CPU-TIME",
                      drop="BAND PROCESSES LAST CPU-TIME EVENTS CAUSE") + more(len(found), total)

    return Answer(found, text if found else empty(source, asked), columns=columns("report_command"))


_HAS_TEXT = ("(:text = '' OR instr(lower(coalesce(command, '')), :text) OR instr(lower(coalesce(cmdline, '')), :text) "
             "OR lower(rule) = :text)")
_ACTIONS = f"FROM actions WHERE ts >= :since AND ts < :until AND {_HAS_TEXT}"
_PROOFS = ("FROM proofs WHERE ts >= :since AND ts < :until AND (:text = '' "
           "OR instr(lower(coalesce(command, '')), :text) OR instr(lower(coalesce(victim_command, '')), :text))")
_MATCHES = f"FROM matches WHERE last_seen >= :since AND first_seen < :until AND {_HAS_TEXT}"


def actions(source: Source, asked: Asked) -> Answer:
    """What the reaper did or refused in the period, newest first, then what it found by experiments. A hub has no
    experiments."""
    found = _rows(source, "report_action", f"SELECT * {_ACTIONS} ORDER BY ts DESC, id DESC", asked, 20)
    counts = source.reader.execute(
        f"SELECT outcome, count(*), sum(cpu_recovered_percent) {_ACTIONS} GROUP BY outcome ORDER BY 2 DESC",
        asked.period.values()).fetchall()
    total = sum(count for _, count, _ in counts)
    proofs = _rows(source, "proof", f"SELECT * {_PROOFS} ORDER BY ts DESC, id DESC", asked, 20) \
        if source.watch != "hub" else []

    def text(look: Style) -> str:
        return "\n".join([*([_acted(look)] if found else ()), *([_proved(proofs, look)] if proofs else ())])

    def _acted(look: Style) -> str:
        recovered = sum(cpu or 0.0 for _, _, cpu in counts)
        head = ", ".join(f"{count} {visible(outcome).replace('_', ' ')}" for outcome, count, _ in counts)
        head += f"; {recovered:.0f} % CPU given back" if recovered > 0 else ""
        rows = [[str(a["id"]), moment(a["ts"], look.now), visible(a["outcome"]), visible(a["rule"]),
                 visible(" ".join(map(str, a.get("signals", ())))), str(a["pid"]),
                 clip(str(a.get("command", "?")), 20), _why(a)]
                for a in found]
        heads = ["ID", "AT", "OUTCOME", "RULE", "SIGNALS", "PID", "COMMAND", "WHY"]
        made = table(heads, rows, look, right="ID PID", drop="SIGNALS ID RULE PID AT")
        return f"{head}\n\n{made}{more(len(found), total)}"

    return Answer([*found, *proofs], text if found or proofs else
                  empty(source, asked, "action of the reaper", earlier=False), columns=columns("report_action"),
                  csv_rows=found)


def _proved(proofs: list[Record], look: Style) -> str:
    rows = [[moment(each["ts"], look.now), visible(each["verdict"]).replace("_", " "), str(each["pid"]),
             clip(str(each.get("command", "?")), 20), str(each["victim_pid"]),
             clip(str(each.get("victim_command", "?")), 20), str(each.get("detail", ""))] for each in proofs]
    heads = ["AT", "VERDICT", "PID", "SUSPECT", "VICTIM PID", "VICTIM", "WHY"]
    return f"Experiments (rh-reap prove):\n\n{table(heads, rows, look, right='PID VICTIM', drop='AT PID')}"


def _why(action: Record) -> str:
    detail = action.get("detail") if action["outcome"] in ("refused", "survived", "spared") else None
    return str(detail or action.get("reason", ""))


def matches(source: Source, asked: Asked) -> Answer:
    """What the rules matched in the period, newest first: in observe mode, what armed mode would have killed."""
    found = _rows(source, "report_match", f"SELECT * {_MATCHES} ORDER BY last_seen DESC, id DESC", asked, 20)
    total = source.reader.execute(f"SELECT count(*) {_MATCHES}", asked.period.values()).fetchone()[0]

    def text(look: Style) -> str:
        rows = [[str(m["id"]), moment(m["first_seen"], look.now), duration(m["last_seen"] - m["first_seen"]),
                 visible(m["rule"]), visible(m["priority"]), visible(m["action"]), str(m["pid"]),
                 clip(command_line(m), 40), str(m["reason"])] for m in found]
        heads = ["ID", "SINCE", "FOR", "RULE", "PRIORITY", "ASKS", "PID", "COMMAND", "WHY"]
        made = table(heads, rows, look, right="ID FOR PID", drop="PRIORITY ID FOR PID ASKS SINCE")
        return made + more(len(found), total)

    return Answer(found, text if found else empty(source, asked, "match of a rule", earlier=False),
                  columns=columns("report_match"))


def _rows(source: Source, kind: str, sql: str, asked: Asked, usual: int) -> list[Record]:
    """The rows of a query as records of their declared fields, with what was stored as JSON taken apart."""
    rows = source.reader.execute(f"{sql} LIMIT :limit", {**asked.period.values(), "limit": asked.rows(usual) or -1})
    return [record(kind, **typed(kind, known(row))) for row in rows]


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
    for label, column, of in rows:
        held: list[float | None] = [None] * slots
        for m in whole:
            if column not in m or (of and not m.get(of)):
                continue
            value = m[column] / m[of] if of else m[column]
            at = min(slots - 1, max(0, int((m["minute"] - period.since) / width)))
            held[at] = max(held[at] or 0.0, 1 - value if label == "memory" else value)
        blocks = sparkline(held, 1.0 if of else None).rstrip()
        if blocks:
            lines.append(f"{label:<8}{blocks}\n")
    span = f"{'':<8}{period_words(period.since, period.until, look.now)}, {duration(width)} each\n\n"
    return "".join(lines) + span if lines else ""
