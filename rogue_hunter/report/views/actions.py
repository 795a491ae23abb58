"""The views actions and matches: what the reaper did, what it proved, and which processes matched a rule."""

from __future__ import annotations

from typing import Any

from rogue_hunter.report.database import Source
from rogue_hunter.report.queries import Period, known
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import command_line, moment
from rogue_hunter.report.views.view import Asked, columns, more, nothing
from rogue_hunter.schema import RECORDS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import clip, duration, visible

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
        _bound(asked.period)).fetchall()
    total = sum(count for _, count, _ in counts)
    proofs = _rows(source, "proof", f"SELECT * {_PROOFS} ORDER BY ts DESC, id DESC", asked, 20) \
        if source.watch != "hub" else []
    empty = "" if found or proofs else nothing(source, asked, "action of the reaper", earlier=False)

    def text(look: Style) -> str:
        return empty or "\n".join([*([_acted(look)] if found else ()), *([_proved(proofs, look)] if proofs else ())])

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

    return Answer([*found, *proofs], text, columns=columns("report_action"), csv_rows=found)


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
    total = source.reader.execute(f"SELECT count(*) {_MATCHES}", _bound(asked.period)).fetchone()[0]
    empty = "" if found else nothing(source, asked, "match of a rule", earlier=False)

    def text(look: Style) -> str:
        if not found:
            return empty
        rows = [[str(m["id"]), moment(m["first_seen"], look.now), duration(m["last_seen"] - m["first_seen"]),
                 visible(m["rule"]), visible(m["priority"]), visible(m["action"]), str(m["pid"]),
                 clip(command_line(m), 40), str(m["reason"])] for m in found]
        heads = ["ID", "SINCE", "FOR", "RULE", "PRIORITY", "ASKS", "PID", "COMMAND", "WHY"]
        made = table(heads, rows, look, right="ID FOR PID", drop="PRIORITY ID FOR PID ASKS SINCE")
        return made + more(len(found), total)

    return Answer(found, text, columns=columns("report_match"))


def _bound(period: Period) -> dict[str, Any]:
    return {"since": period.since, "until": period.until, "text": period.text.lower()}


def _rows(source: Source, kind: str, sql: str, asked: Asked, usual: int) -> list[Record]:
    """The rows of a query as records of their declared fields, with what was stored as JSON taken apart."""
    types = {f.name: f.type for f in RECORDS[kind]}
    made = []
    for row in source.reader.execute(f"{sql} LIMIT :limit", {**_bound(asked.period), "limit": asked.rows(usual) or -1}):
        made.append(record(kind, **{name: _value(types[name], value) for name, value in known(row).items()
                                    if name in types}))
    return made


def _value(kind: type, value: Any) -> Any:
    if kind in (list, dict):
        return wire.loads(value.encode())
    return bool(value) if kind is bool else value
