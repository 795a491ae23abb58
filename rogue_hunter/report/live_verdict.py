"""The verdict inside of rh-pipe: who is behind a pause that has just ended, and what is wrong now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rogue_hunter.report.evidence import NOW_S, of_records
from rogue_hunter.report.verdict_text import taker_fields, taker_name, title
from rogue_hunter.stream.tick import Record
from rogue_hunter.verdict.engine import culprits, stands_out, verdict

_NAMES = ("pid", "start_ticks", "command", "name", "unit", "user", "processes", "share")


def pause_culprits(pause: Record, records: Sequence[Record]) -> dict[str, Any]:
    """Who used what was short in a pause, by the records of the slices of its time: the takers of the verdict about the
    same window that `rh-report why` is asked about. None for a pause that no process is to blame for."""
    if pause["cause"] not in ("cpu", "memory", "io"):
        return {"culprits": []}
    others = [each for each in records if each["type"] != "pause"]
    cause, unexplained = culprits(of_records([*others, pause], pause["start"], pause["end"]), pause["cause"])
    rest = {} if unexplained is None else {"unexplained_share": round(unexplained, 4)}
    found: list[dict[str, Any]] = []
    if cause is None or cause.who is None:
        return {"culprits": found, **rest}
    resource = {"io": "disk"}.get(pause["cause"], pause["cause"])
    if cause.details.get("measure") == "pageins":
        resource = "pageins"
    for taker in cause.takers:
        fields = taker_fields(cause, taker)
        row = {**{name: fields[name] for name in _NAMES if name in fields}, "resource": resource,
               "amount": fields["total"]}
        if "pid" in row:
            found.append(row)
            continue
        for member in taker.members:    # several of one name, without a common root: each by itself
            part = member.amount / taker.amount if taker.amount > 0 else 0.0
            found.append({**row, "pid": member.key[1], "start_ticks": member.key[2], "name": member.name,
                          "processes": 1, "amount": round(member.amount, 3), "share": round(taker.share * part, 4)})
    return {"culprits": found, **rest}


def now_words(records: Sequence[Record], now: float) -> str:
    """What is wrong at the time `now` (epoch seconds), and who is behind it, in a few words; empty if nothing is."""
    judged = verdict(of_records(records, now - NOW_S, now, recent=True))
    first = judged.first
    if first is None or not (judged.state == "found" or stands_out(first)):
        return ""
    return f"{title(first)}: {taker_name(first.who)}" if first.who is not None else title(first)
