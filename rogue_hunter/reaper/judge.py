"""Is the process still what it was judged for? Asked again just before each signal."""

from __future__ import annotations

from rogue_hunter.reaper.evidence import cpu_percent
from rogue_hunter.reaper.process import Live
from rogue_hunter.rules.model import Rule
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.rules.subject import HELD_SHARE, Held, Subject, Verdict
from rogue_hunter.stream.tick import Record, Row

LEVELS = ("cpu_percent", "cpu_seconds_total", "memory_bytes", "disk_bytes_per_s", "gpu_ms_per_s", "wakeups_per_s",
          "score", "band", "state", "threads")
"""What a process uses, as far as rules ask for it."""


def changed(match: Record, live: Live, rule: Rule | None, patterns: Patterns, now: float, *,
            levels: bool) -> str | None:
    """Why the process is to be spared; None when it is still what was judged.

    With `levels` its use of resources is asked again too: what one reading gives (memory, state, CPU time since the
    match) as it is now, the rest (rates, scores) as the match had it. Between SIGTERM and SIGKILL they are not: a
    process that winds up uses little. Windows are taken as proved, and the single reading may miss a CPU limit by the
    tenth that a window forgives. Without a rule (a person named the process) it must still be the same program.
    """
    if rule is None:
        same = all(match.get(name) == live.row.get(name) for name in ("command", "exe"))
        return None if same else f"it runs another program now: {live.row.get('command', '')}"
    row: Row = {name: match[name] for name in LEVELS if name in match}
    row.update((k, v) for k, v in live.row.items() if levels or k not in LEVELS)
    if levels and (cpu := cpu_percent(match, live, now)) is not None:
        row["cpu_percent"] = cpu

    def held(node: Held, s: Subject) -> Verdict:
        return node.node.verdict(s)

    subject = Subject(row, live.age_s, patterns, held, orphan=match.get("orphan"), slack=1 - HELD_SHARE)
    subject.rule = rule.name
    patterns.new_tick()
    value = rule.condition.verdict(subject)[0]
    if value:
        return None
    return f"rule {rule.name} no longer matches it" if value is False else f"rule {rule.name} cannot be asked again"
