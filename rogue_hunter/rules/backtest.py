"""Trying rules: on the examples of their file, and on recorded history.

The database holds snapshots of processes that scored high: one when they began, one every 30 s, one at the end. CPU
use between two of them is known exactly, from the counter; what else a process used is taken as it was in the later
one. So windows come out to within one snapshot, and a process that never scored high was never recorded: a rule about
idle ones (a hung test) finds only those that once were busy.
"""

from __future__ import annotations

import itertools
import math
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rogue_hunter.rules.conditions import Held, Subject
from rogue_hunter.rules.logic import NS, Lasting, Window, decide, evidence, lasted, reason
from rogue_hunter.rules.model import Example, Rule, RuleSet
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.sampling.units import in_service
from rogue_hunter.stream.tick import Row

BY_ITSELF_S = 300.0
"""A process that exited by itself so soon after the match would have finished anyway."""

GAP_S = 120.0
"""Snapshots of one event come every 30 s. Between two that are further apart nothing was recorded."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A rule that would have matched a process: when for the first time, why, and what that would have meant.

    `cpu_seconds_saved` is what the process used from then on, as far as it was recorded. `ended` is how its last event
    ended (`exited`, `below_threshold`, ...; empty while it is open). `regret` says why the match may have been wrong;
    empty when nothing speaks for that.
    """

    rule: str
    priority: str
    action: str
    boot_id: str
    pid: int
    start_ticks: int
    command: str
    ts: float
    reason: str
    evidence: str
    cpu_seconds_saved: float
    ended: str
    regret: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All firings of a rule: how many, how many of them regrets, CPU seconds saved."""

    rule: str
    firings: int
    regrets: int
    cpu_seconds_saved: float


def history(connection: sqlite3.Connection, since: float, until: float) -> Iterator[Row]:
    """Every snapshot between two times (epoch seconds), process by process and oldest first; a key that is NULL is
    left out. `ended` and `ended_at` say how and when the event ended."""
    cursor = connection.execute(
        "SELECT e.boot_id, e.pid, e.start_ticks, e.start_time, e.ppid, e.command, e.exe, e.cmdline, e.cgroup, e.uid,"
        " e.user, e.tty, e.orphan_of, e.reason AS ended, e.exit_time AS ended_at, s.*"
        " FROM process_snapshots s JOIN process_events e ON e.id = s.event_id"
        " WHERE s.captured_at BETWEEN ? AND ? ORDER BY e.boot_id, e.pid, e.start_ticks, s.captured_at, s.id",
        (since, until))
    names = [column[0] for column in cursor.description]
    for values in cursor:
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def backtest(rules: RuleSet, snapshots: Iterable[Row]) -> list[Firing]:
    """The first firing of each enabled rule for each process, in order of time. `snapshots` as `history` gives them;
    patterns are bounded as they are in `match`."""
    patterns = Patterns()
    found: list[Firing] = []
    for _, group in itertools.groupby(snapshots, key=lambda r: (r["boot_id"], r["pid"], r["start_ticks"])):
        found += _replay(rules, list(group), patterns)
    return sorted(found, key=lambda firing: (firing.ts, firing.pid, firing.rule))


def summary(firings: Iterable[Firing]) -> list[Summary]:
    """The firings by rule, the most CPU seconds first."""
    by_rule: dict[str, list[Firing]] = {}
    for firing in firings:
        by_rule.setdefault(firing.rule, []).append(firing)
    rows = [Summary(rule, len(fired), sum(bool(f.regret) for f in fired),
                    round(sum(f.cpu_seconds_saved for f in fired), 1)) for rule, fired in by_rule.items()]
    return sorted(rows, key=lambda row: (-row.cpu_seconds_saved, row.rule))


def _replay(rules: RuleSet, snapshots: list[Row], patterns: Patterns) -> Iterator[Firing]:
    """The firings of one process."""
    open_rules = list(rules.enabled)
    windows: dict[Held, Window] = {}
    before: Row | None = None
    for snapshot in snapshots:
        row, begin = _between(before, snapshot)
        if before is not None and begin != before["captured_at"]:
            for window in windows.values():
                window.note(False, _ns(before["captured_at"]))
        subject = _subject(rules, row, begin, windows, patterns)
        for rule in list(open_rules):
            subject.rule = rule.name
            if decide(rule.condition, subject, rules.safety.whitelist)[0]:
                open_rules.remove(rule)
                yield _firing(rule, subject, snapshot, snapshots[-1])
        before = snapshot


def _between(before: Row | None, now: Row) -> tuple[Row, float]:
    """What is known of the time up to a snapshot, and when that time began."""
    if before is None or now["captured_at"] - before["captured_at"] > GAP_S:
        return now, now["captured_at"]
    seconds = now["captured_at"] - before["captured_at"]
    total, earlier = now.get("cpu_seconds_total"), before.get("cpu_seconds_total")
    if seconds > 0 and total is not None and earlier is not None and total >= earlier:
        now = {**now, "cpu_percent": 100 * (total - earlier) / seconds}
    return now, before["captured_at"]


def _subject(rules: RuleSet, row: Row, begin: float, windows: dict[Held, Window], patterns: Patterns) -> Subject:
    """The process at a snapshot, with its windows brought up to date."""
    age_s = row["captured_at"] - row["start_time"] if "start_time" in row else None
    lasting = Lasting(windows, _ns(row["captured_at"]), 0, lifetime=False)
    subject = Subject(row, age_s, patterns, lasting, orphan=_orphan(row))
    patterns.new_tick()
    lasting.note(((rule.name, node) for rule in rules.enabled for node in rule.windows), subject, _ns(begin))
    return subject


def _orphan(row: Row) -> bool | None:
    """Has its parent exited? A child of process 1 is an orphan unless its control group is that of a service."""
    if "orphan_of" in row:
        return True
    if row.get("ppid") != 1:
        return False if "ppid" in row else None
    if "cgroup" in row or sys.platform == "darwin":
        return not in_service(str(row.get("cgroup", "")))
    return None


def _ns(seconds: float) -> int:
    return round(seconds * NS)


def _firing(rule: Rule, subject: Subject, now: Row, last: Row) -> Firing:
    terms = list(rule.condition.explain(subject))
    total, saved = last.get("cpu_seconds_total"), 0.0
    if total is not None and "cpu_seconds_total" in now:
        saved = max(saved, total - now["cpu_seconds_total"])
    return Firing(
        rule.name, rule.priority, rule.action.type, now["boot_id"], now["pid"], now["start_ticks"],
        str(now.get("command", "")), now["captured_at"], reason(terms, subject.age_s), evidence(terms),
        round(saved, 2), str(last.get("ended", "")), _regret(now, last))


def _regret(now: Row, last: Row) -> str:
    """Why the match may have been wrong."""
    reasons = []
    ended: Any = last.get("ended_at")
    if last.get("ended") == "exited" and ended is not None and ended - now["captured_at"] <= BY_ITSELF_S:
        reasons.append(f"it ended by itself {ended - now['captured_at']:.0f} s later")
    elif last.get("ended") == "exited":
        reasons.append("it ended by itself later")
    elif last.get("ended") == "below_threshold":
        reasons.append("it calmed down by itself")
    if "tty" in now:
        reasons.append(f"it had a terminal: {now['tty']}")
    return "; ".join(reasons)


def check_examples(rules: RuleSet) -> list[str]:
    """A sentence for each example that does not come out as its file says; empty if all do."""
    patterns = Patterns()
    return [f"{rule.source}: rule {rule.name}: {_wanted(example)}: {example.why}"
            for rule in rules.rules for example in rule.examples
            if matches(rules, rule, example, patterns) != example.match]


def _wanted(example: Example) -> str:
    return "must match and does not" if example.match else "must not match and does"


def matches(rules: RuleSet, rule: Rule, example: Example, patterns: Patterns) -> bool:
    """Would `rule` match the process of `example`? The whitelist counts too. Names and arguments that the
    example does not give are empty, not unknown: an example contains what matters."""
    patterns.new_tick()
    row = {"command": "", "exe": "", "cmdline": "", **example.row}
    age_s = row.pop("age_s", math.inf)
    subject = Subject(row, age_s, patterns, lasted(example.held_s), orphan=example.orphan)
    subject.rule = rule.name
    return decide(rule.condition, subject, rules.safety.whitelist)[0] is True
