"""Records and ticks as text for people: what filters, rh-tail and rh-prune print on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rogue_hunter.reaper.notify import sentence
from rogue_hunter.report.render import Style, table, wrapped
from rogue_hunter.report.sentences import amount, cause, command_line, moment, name, number, percent, program_first
from rogue_hunter.report.verdict_text import count
from rogue_hunter.sampling.naming import called
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.text.format import clip, duration, size, visible
from rogue_hunter.tracking.pauses import STOOD_STILL

ROWS = 10
"""Processes that are listed of one tick, the highest first."""
EVERY_S = 1.0
"""On a terminal a tick is printed at most so often: three tables a second cannot be read."""

_ENDS = {"below_threshold": "calmed down", "exited": "exited", "replaced": "was replaced by another program",
         "stopped": "was still active when rh-pipe stopped", "crashed": "was active when rh-pipe crashed"}


def line(found: Record) -> str:
    """A record in one line, safe for a terminal; an empty text for one that only programs read."""
    words = _WORDS.get(found["type"])
    if words is None:
        return ""
    at = found.get("end") or found.get("ts")
    try:
        return (f"{clock(at)} " if at is not None else "") + words(found)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, OSError):  # made by another program
        return f"{found['type']} record without what its text needs: --ndjson prints it"


def clock(ts: float) -> str:
    """The time of day, local: `14:32:05`."""
    return time.strftime("%H:%M:%S", time.localtime(ts))


def _event(found: Record) -> str:
    kind, many = found["kind"], found.get("processes", 1)
    who = name(found) + (f" and {count(many - 1, 'process')} of its unit" if many > 1 else "")
    score = f"score {found.get('score', '?')} {found.get('band', '')}".rstrip()
    if kind == "enter":
        much = f", {words}" if (words := amount(found)) else ""
        return f"{who} began to hog {cause(found) or 'the machine'}: {score}{much}; {clip(command_line(found), 80)}"
    lasted = duration(found.get("duration_s"))
    if kind == "exit":
        end = _ENDS.get(str(found.get("reason")), visible(str(found.get("reason", "ended"))))
        return f"{who} {end} after {lasted}, peak {found.get('peak_score', '?')}"
    did = {"band": "changed to", "peak": "peaked at"}.get(kind, "is still at")
    return f"{who} {did} {score} after {lasted}"


def _pause(found: Record) -> str:
    words = pause_words({**found, "evidence": found.get("evidence") or {}}) if "cause" in found else ""
    culprits = found.get("culprits") or ()
    first = f": {culprit_words(culprits[0])}" if culprits and "pid" in culprits[0] else ""
    return f"PAUSE of {duration(found.get('duration_s'))}{words}{first}"


def _match(found: Record) -> str:
    return f"{visible(str(found['rule']))} matches {name(found)}: {clip(str(found.get('reason', '')), 120)}"


def _capture(found: Record) -> str:
    who = f" of {name(found)}" if "pid" in found else ""
    if found["status"] == "skipped":
        return f"capture{who} skipped: {visible(str(found.get('reason', '')))}"
    held = ", ".join(f"{found[key]} {words}" for key, words in (
        ("processes", "processes"), ("threads", "threads"), ("blockers", "waits"), ("log_entries", "log entries"))
        if found.get(key))
    return f"capture{who}: {visible(found['status'])}" + (f", {held}" if held else "")


def _error(found: Record) -> str:
    where = f", line {found['line']}" if "line" in found else ""
    return f"error of {visible(str(found.get('stage', '?')))}{where}: {visible(str(found.get('message', '')))}"


def _dropped(found: Record) -> str:
    return f"{count(found['ticks'], 'tick')} left out: this terminal is too slow"


def prune_words(found: Record) -> str:
    """What rh-prune removed, or with --dry-run would remove."""
    removed: Mapping[str, int] = found["removed"]
    total = sum(removed.values())
    most = ", ".join(f"{visible(table)} {rows}" for table, rows in sorted(removed.items(), key=lambda one: -one[1])[:4])
    more = f" and {len(removed) - 4} more tables" if len(removed) > 4 else ""
    verb, to = ("would remove", "about ") if found["dry_run"] else ("removed", "")
    oldest = f", the oldest began {moment(found['oldest_event'], found['ts'])}" if "oldest_event" in found else ""
    return (f"{verb} {count(total, 'row')}" + (f" ({most}{more})" if total else "")
            + f"; {size(found['before_bytes'])} before, {to}{size(found['after_bytes'])} after; "
            f"{count(found['events_left'], 'event')} left{oldest}")


def pause_words(pause: Record) -> str:
    """What follows after `paused 2.1s`: what was short, or what is known instead."""
    evidence, cause = pause["evidence"], pause["cause"]
    if cause == "steal":
        counted, cpus = evidence.get("cpu_counted_cores"), evidence.get("cpus")
        if counted is not None and cpus and counted < STOOD_STILL * cpus:
            return f" with the whole virtual machine: {number(counted)} of {cpus} CPUs ran; no process is to blame"
        return (f" because the hypervisor ran others: {number(evidence.get('cpu_steal_cores', 0.0))} of {cpus} CPUs; "
                "no process is to blame")
    if cause == "stopped":
        return " because rh-pipe itself was stopped (SIGSTOP, or a debugger); no process is to blame"
    if cause == "throttled":
        return " because rh-pipe itself reached the CPU quota of its control group; no process is to blame"
    if cause == "unknown":
        delay = evidence.get("self_run_delay_ms")
        queue = f" (rh-pipe waited {number(round(delay))} ms of it for a CPU)" if delay is not None else ""
        return f", and nothing was short{queue}: no evidence of a cause"
    return f" for want of {'storage' if cause == 'io' else cause}"


def culprit_name(culprit: Mapping[str, Any]) -> str:
    """`python3 backup.py`: what people call a culprit of a pause, safe for a terminal."""
    return clip(called(str(culprit.get("command") or "?"), str(culprit.get("name") or "")), 60)


def culprit_words(culprit: Mapping[str, Any]) -> str:
    """`stress (pid 812) used 3.9s of CPU time, 93 %`."""
    resource, amount = culprit.get("resource"), culprit.get("amount") or 0.0
    others = (culprit.get("processes") or 1) - 1
    more = f" and its {count(others, 'process')}" if others > 0 else ""
    did = {"cpu": f"used {duration(amount)} of CPU time", "memory": f"had {size(amount)} of memory",
           "pageins": f"read {count(round(amount), 'page')} back in",
           "disk": f"moved {size(amount)}"}.get(str(resource), "")
    return f"{culprit_name(culprit)} (pid {culprit['pid']}){more} {did}, {percent(culprit.get('share'))}"


_WORDS: dict[str, Callable[[Record], str]] = {
    "event": _event, "pause": _pause, "match": _match, "action": sentence, "capture": _capture, "error": _error,
    "dropped": _dropped, "log": lambda found: visible(str(found.get("message", ""))),
    "process": lambda found: f"{name(found)}: {_process(found)}", "tick": lambda found: "  ".join(machine(found))}


def _process(found: Record) -> str:
    score = f"score {found['score']} {found.get('band', '')}".rstrip() if "score" in found else ""
    return ", ".join(part for part in (score, amount(found), clip(command_line(found), 80)) if part)


def machine(closing: Mapping[str, Any]) -> list[str]:
    """The closing row of a tick as parts of a line: the host, CPUs, memory, processes, a late beat."""
    busy = closing.get("cpu_busy_cores")
    parts = (
        str(closing.get("host", "")),
        f"{busy:.1f} of {closing.get('cpus', '?')} CPUs busy" if busy is not None else "",
        f"{size(closing['memory_available_bytes'])} available" if "memory_available_bytes" in closing else "",
        count(closing["processes"], "process"),
        f"LATE {duration(closing['late_s'])}" if closing.get("late_s", 0) >= 0.5 else "")
    return [visible(part) for part in parts if part]


def block(tick: Tick, look: Style) -> str:
    """A tick: a line about the machine, and a table of its first processes by score, then by CPU usage."""
    rows = sorted(tick.processes.values(), key=lambda row: (-(row.get("score") or 0), -(row.get("cpu_percent") or 0.0)))
    made = wrapped(line({"type": "tick", **(tick.row or {})}), look.width) + "\n"
    if not rows:
        return made
    columns = [one for one in _COLUMNS if any(one[1](row) for row in rows[:ROWS])]
    heads = [head for head, _ in columns]
    cells = [[look.band(words(row), row.get("band")) if head == "BAND" else words(row) for head, words in columns]
             for row in rows[:ROWS]]
    made += table(heads, cells, look, right="SCORE CPU% MEMORY DISK/S PID", drop=" ".join(
        head for head in ("USER", "DISK/S", "BAND", "USES", "MEMORY", "PID", "SCORE") if head in heads))
    terms = [f"  {name(row)}: {_terms(row['terms'])}\n" for row in rows[:ROWS] if row.get("terms")]
    left = len(rows) - ROWS
    return made + "".join(terms) + (f"... and {left} more: --ndjson prints all\n" if left > 0 else "")


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("SCORE", lambda row: str(row.get("score", ""))), ("BAND", lambda row: visible(row.get("band") or "")),
    ("USES", lambda row: visible(cause(row))),
    ("CPU%", lambda row: f"{row['cpu_percent']:.1f}" if "cpu_percent" in row else ""),
    ("MEMORY", lambda row: size(row.get("memory_bytes"))),
    ("DISK/S", lambda row: size(row.get("disk_bytes_per_s") or None)), ("PID", lambda row: str(row["pid"])),
    ("USER", lambda row: clip(str(row.get("user", row.get("uid", ""))), 16)),
    ("COMMAND", lambda row: program_first(command_line(row))))


def _terms(terms: Iterable[Mapping[str, Any]]) -> str:
    """The terms of a score: `cpu 62 points, memory 3 points`."""
    return ", ".join(f"{visible(str(one.get('resource') or one.get('input') or '?'))} {round(one['points'])}"
                     for one in terms if isinstance(one, dict) and isinstance(one.get("points"), (int, float))
                     and one["points"]) or "no points"


class Texts:
    """Ticks as text: their records as lines, at once; and without `keep` the processes, every EVERY_S by the clock of
    the ticks. `keep` selects records."""

    def __init__(self, look: Style, keep: Callable[[Record], bool] | None = None) -> None:
        self._look, self._keep = look, keep
        self._due = 0.0
        self._held: Tick | None = None

    def __call__(self, tick: Tick) -> str:
        """The text of a tick, or nothing."""
        made = "".join(f"{wrapped(text, self._look.width)}\n" for each in tick.records
                       if (self._keep is None or self._keep(each)) and (text := line(each)))
        if tick.row is not None and self._keep is None:
            self._held = tick
            if tick.row["ts"] >= self._due:
                self._due, self._held = tick.row["ts"] + 0.95 * EVERY_S, None
                made += block(tick, self._look)
        return made

    def utf8(self, tick: Tick) -> bytes:
        """The text of a tick as bytes."""
        return self(tick).encode("utf-8", "backslashreplace")

    def end(self) -> str:
        """The processes of the last tick, if they were not yet printed."""
        return block(self._held, self._look) if self._held is not None else ""


def texts(ticks: Iterable[Tick], look: Style, keep: Callable[[Record], bool] | None = None) -> Iterator[str]:
    """The texts of ticks, as they come."""
    text = Texts(look, keep)
    yield from filter(None, map(text, ticks))
    yield from filter(None, [text.end()])
