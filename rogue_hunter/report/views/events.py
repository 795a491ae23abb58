"""The views events, event, top, actions and matches: rogue processes and commands, and what the reaper did or saw."""

from __future__ import annotations

from collections.abc import Sequence

from rogue_hunter.report import queries
from rogue_hunter.report.queries import Source, known, typed
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import cause, command_line, measure, moment, name, percent, share
from rogue_hunter.report.views.view import Asked, columns, empty, existing, more, nothing, recorded_lines
from rogue_hunter.schema.sampling import PROCESS
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, duration, visible

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
