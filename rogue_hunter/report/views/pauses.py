"""The views pauses and pause: when the machine stalled, which resource was short, and which processes used it."""

from __future__ import annotations

from rogue_hunter.report import history
from rogue_hunter.report.capture_text import top_text
from rogue_hunter.report.evidence import over
from rogue_hunter.report.queries import Period, Source, events
from rogue_hunter.report.record_text import culprit_name, culprit_words, pause_words
from rogue_hunter.report.render import Answer, Style, pairs, table
from rogue_hunter.report.sentences import command_line, measure, moment, name, percent, period_words
from rogue_hunter.report.verdict_text import cause_words, cleared_words, count
from rogue_hunter.report.views.captures import cpu_shares_of, stacks_of
from rogue_hunter.report.views.view import SLOTS, Asked, columns, empty, existing, more, spark
from rogue_hunter.schema.sampling import TICK
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, duration, size, visible
from rogue_hunter.verdict.engine import verdict
from rogue_hunter.verdict.model import Verdict

_UNITS = {field.name: field.unit for field in TICK}
_IO = {"io": "disk"}


def pauses(source: Source, asked: Asked) -> Answer:
    """The pauses of the period, the newest first."""
    found = history.pauses(source.reader, asked.period, asked.rows(20))
    times = history.pause_times(source.reader, asked.period) if asked.people else []

    def text(look: Style) -> str:
        by: dict[str, float] = {}
        for _, length, cause in times:
            by[cause] = by.get(cause, 0.0) + length
        total = sum(by.values())
        causes = ", ".join(f"{cause} {duration(s)}" for cause, s in sorted(by.items(), key=lambda one: -one[1]))
        when = period_words(asked.period.since, asked.period.until, look.now)
        head = f"{count(len(times), 'pause')} {when}, {duration(total)} in all: {causes}\n" \
               f"{spark(asked.period, ((at, length) for at, length, _ in times), min(SLOTS, look.width))}\n\n"
        rows = []
        for p in found:
            first = p["culprits"][0] if p["culprits"] else {}
            who = culprit_name(first) if first else f"({_without(p['cause'])})"
            rows.append([
                str(p["id"]), moment(p["start"], look.now), duration(p["duration_s"]), p["cause"],
                percent(first.get("share")), percent(p.get("unexplained_share")), str(first.get("pid", "")), who])
        heads = ["ID", "AT", "FOR", "CAUSE", "SHARE", "UNATTRIBUTED", "PID", "CULPRIT"]
        return head + table(heads, rows, look, right="ID FOR SHARE UNATTRIBUTED PID",
                            drop="UNATTRIBUTED PID SHARE ID") + more(len(found), len(times))

    return Answer(found, text if found else empty(source, asked, "pause", earlier=False),
                  columns=columns("report_pause"))


def _without(cause: str) -> str:
    """Why a pause has no culprit."""
    return {"steal": "the hypervisor", "stopped": "only rh-pipe was stopped",
            "throttled": "the CPU quota of rh-pipe"}.get(cause, "no evidence")


def pause(source: Source, asked: Asked) -> Answer:
    """One pause: what was short, which processes used it, what it was not, and the readings it was judged by."""
    (which,) = asked.which
    found = existing(history.pause(source.reader, which), "pause", which)
    open_then = events(source.reader, Period(found["start"], found["end"]), source.watched, 10)
    found = {**found, "cpu_shares": cpu_shares_of(source.reader, found["id"]) or None,
             "stacks": stacks_of(source.reader, "pause", found["id"]) or None}
    found = {name: value for name, value in found.items() if value is not None}
    judged = verdict(over(source, found["start"], found["end"]).window)
    return Answer([found], lambda look: _text(found, judged, open_then, look), single=True,
                  csv_rows=[{"rank": rank, **c} for rank, c in enumerate(found["culprits"], 1)],
                  columns=["rank", "pid", "start_ticks", "command", "name", "unit", "processes", "resource", "amount",
                           "share"])


def _text(p: Record, judged: Verdict, open_then: list[Record], look: Style) -> str:
    evidence = p["evidence"]
    lines = [f"Pause {p['id']}, {visible(p['pause'])}",
             f"paused {duration(p['duration_s'])} from {moment(p['start'], look.now)} to {moment(p['end'], look.now)}"
             f"{pause_words(p)}"]
    if judged.first is not None and judged.first.kind != "use":
        lines += ["", f"Verdict of that time: {cause_words(judged.first, look.now)}."]
    if p["culprits"]:
        rows = [[str(rank), percent(c.get("share")), _amount(c), str(c["pid"]), clip(str(c.get("unit", "")), 30),
                 culprit_name(c)] for rank, c in enumerate(p["culprits"], 1)]
        lines += ["", f"First: {culprit_words(p['culprits'][0])}.",
                  table(["RANK", "SHARE", "AMOUNT", "PID", "UNIT", "COMMAND"], rows, look,
                        right="RANK SHARE AMOUNT PID", drop="UNIT AMOUNT RANK PID").rstrip("\n")]
    else:
        lines += ["", f"No process is named: {_without(p['cause'])}."]
    if "unexplained_share" in p:
        lines.append(f"{percent(p['unexplained_share'])} of it is not attributed to any process.")
    lines += recorded_lines(p, look)
    found = {p["cause"], *(one.cause for one in judged.causes)}
    out = [(f"not {_IO.get(cause, cause)}", cleared_words(cause, numbers, {}))
           for cause, numbers in judged.cleared.items() if cause not in found and cause != "pause"]
    if out:
        lines += ["", pairs(out, look).rstrip("\n")]
    if open_then:
        lines += ["", "At or above the tracking band at that time:"]
        lines += [clip(f"  {name(e)} score {e['peak_score']} {e.get('peak_band', '')}: {command_line(e)}", look.width)
                  for e in open_then]
    if evidence:
        lines += ["", "Evidence:", pairs([(f"  {k}", measure(v, _UNITS.get(k, ""))) for k, v in evidence.items()
                                         if isinstance(v, (int, float))], look).rstrip("\n")]
    return "\n".join(lines) + "\n"


def recorded_lines(p: Record, look: Style) -> list[str]:
    """Who had each CPU during the pause and where in its code, by the flight recorder."""
    lines = []
    if p.get("cpu_shares"):
        rows = [[str(s["cpu"]), percent(s["share"]), duration(s["cpu_seconds"]), str(s["pid"]),
                 visible(str(s.get("command", "?"))), f"for {s['for_command']} (pid {s['for_pid']}): {s['for_reason']}"
                 if "for_pid" in s else ""] for s in p["cpu_shares"]]
        if not any(row[-1] for row in rows):
            rows = [row[:-1] for row in rows]
        heads = ["CPU", "SHARE", "TIME", "PID", "PROCESS", "WORKED"][: len(rows[0])]
        lines += ["", "Who had each CPU during the pause:",
                  table(heads, rows, look, right="CPU SHARE TIME PID", drop="TIME PID").rstrip("\n")]
    if p.get("stacks"):
        lines += ["", "Where, by samples:", top_text(p["stacks"], look).rstrip("\n")]
    return lines


def _amount(culprit: Record) -> str:
    amount = culprit.get("amount")
    if amount is None:
        return ""
    resource = culprit.get("resource")
    return duration(amount) if resource == "cpu" else count(round(amount), "page") if resource == "pageins" else \
        size(amount)
