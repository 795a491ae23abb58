"""From a match record to a process that may be signalled, or to the reasons why it is not.

The decision is made twice: when the match arrives, and again right before each signal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rogue_hunter.reaper.guards import MANUAL, Refusal, refusals
from rogue_hunter.reaper.process import Gone, Handle, Live, Machine, Me, NotAProcess, Unreadable, Unsupported
from rogue_hunter.rules.conditions import Subject
from rogue_hunter.rules.load import load_named
from rogue_hunter.rules.logic import HELD_SHARE, decide, lasted, unknown
from rogue_hunter.rules.model import REMEDIES, Action, Rule, RuleError, RuleSet
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.sampling.naming import name_of
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, record
from rogue_hunter.text.format import visible

MATCH_AGE_S = 60.0
"""An older match says nothing about the present. A match that lasts is repeated as often."""

YOUNGEST_S = 2.0
"""A process this young cannot be distinguished from another one of the same pid: start times count in 10 ms, and its
age in the match may be wrong by a second where the kernel gives the time of boot in whole seconds."""

PID_MAX = 1 << 22
"""The highest pid that Linux assigns (PID_MAX_LIMIT)."""

FRESH_S = 1.0
"""CPU time is counted in ticks of 10 ms: over less than a second, a rate computed from it is too coarse."""

CLOCK_SET_S = 2.0
"""If the time since a match and what its process has aged since differ by more than this, the wall clock was set."""

KEEPS = frozenset({"whitelist", "rogue_hunter", "self", "ancestor", "unreadable"})
"""Guards of a process that also forbid to end another one that takes it along."""

SAMPLES = 20
"""Readings before the match that a bundle carries, if they are available."""

LEVELS = ("cpu_percent", "cpu_seconds_total", "memory_bytes", "disk_bytes_per_s", "gpu_ms_per_s", "wakeups_per_s",
          "score", "band", "state", "threads")
"""Fields of resource usage that rules have conditions on."""

_TYPES: dict[str, tuple[type, ...]] = {"pid": (int,), "start_ticks": (int,), "boot_id": (str,), "rule": (str,),
                                       "ts": (int, float)}
_MAYBE: dict[str, tuple[type, ...]] = {
    "start_time": (int, float), "age_s": (int, float), "command": (str,), "cpu_percent": (int, float),
    "cpu_seconds_total": (int, float), "orphan": (bool,), "evidence_terms": (list,), "memory_bytes": (int,),
    "disk_bytes_per_s": (int, float), "gpu_ms_per_s": (int, float), "wakeups_per_s": (int, float), "threads": (int,),
    "score": (int, float), "band": (str,), "state": (str,), "reason": (str,), "evidence": (str,), "priority": (str,),
    "rules_file": (str,), "rules_project": (str,), "rules_sha256": (str,),
}


def check_match(match: Record) -> None:
    """Raise ValueError unless the record is a match that can be acted on. Types are exact: true is not a pid."""
    for name, kinds in _TYPES.items():
        if type(match.get(name)) not in kinds:
            raise ValueError(f"match without a valid {name}")
    for name, kinds in _MAYBE.items():
        if name in match and type(match[name]) not in kinds:
            raise ValueError(f"match with an invalid {name}")
    if not 1 <= match["pid"] <= PID_MAX or match["start_ticks"] < 0:
        raise ValueError(f"match with pid {match['pid']}")


@dataclass(slots=True)
class Candidate:
    """A match and what was found out about its process. `outcome` is empty while a signal is still possible; `rules`
    are those that it is judged by.

    `parent` is the name of its parent. `live` was read at `read_at` (epoch seconds by a clock that is never set).

    What the run adds: `signals` that were sent, how long it waited for them, `bundle` of evidence, CPU use before (%),
    what was freed of it, the number of the last audit entry.
    """

    match: Record
    rules: RuleSet
    handle: Handle | None = None
    live: Live | None = None
    parent: str = ""
    outcome: str = ""
    refusals: list[Refusal] = field(default_factory=list)
    text: str = ""
    signals: list[str] = field(default_factory=list)
    wait_s: float = 0.0
    race_window_s: float | None = None
    bundle: Row = field(default_factory=dict)
    cpu_before: float | None = None
    read_at: float = 0.0
    cpu_recovered: float | None = None
    audit_seq: int | None = None

    @property
    def rule(self) -> Rule | None:
        """The rule of the match, if it is enabled in `rules`."""
        return self.rules.rule(self.match["rule"])

    @property
    def action(self) -> Action:
        """What is to be done: as its rule says; for a process that a person named, as the match says."""
        if self.rule is not None:
            return self.rule.action
        return Action(type=self.match["action"]) if self.match.get("action") in REMEDIES else Action()

    @property
    def key(self) -> Key:
        """Its identity within the boot."""
        return self.match["pid"], self.match["start_ticks"]

    def end(self, outcome: str, text: str = "") -> None:
        """Decide without a signal, for another reason than a refusal."""
        self.outcome, self.text = outcome, text

    def refuse(self, *reasons: Refusal) -> None:
        """Refuse it for these reasons; without any, nothing changes."""
        if reasons:
            self.refusals += reasons
            self.outcome, self.text = "refused", "; ".join(r.text for r in self.refusals)

    def close(self) -> None:
        """Close the handle."""
        if self.handle is not None:
            self.handle.close()


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides what may be signalled. `me` is the process that asks; `patterns` keeps results of searches.

    A match that names other rules than `rules` is judged by those, with what either of the two protects; with
    `rules_fixed` all are judged by `rules`.
    """

    machine: Machine
    me: Me
    rules: RuleSet
    patterns: Patterns
    rules_fixed: bool = False

    def assess(self, match: Record, now: float) -> Candidate:
        """Open a handle of the match's process, then read it, in this order: what is read after the handle was opened
        belongs to the handle's process as long as the handle says that it is alive."""
        found = Candidate(match, self.rules)
        if match["boot_id"] != self.machine.boot_id():
            found.end("already_gone", "it belongs to another boot")
            return found
        try:
            found.rules = self._rules_of(match)
        except RuleError as error:
            found.refuse(Refusal("rules_file", f"its rules cannot be used: {error}"))
        else:
            found.refuse(*self._of_match(found, now))
        if self._open(found):
            self.look(found, now)
        if found.live is not None and not found.outcome and found.live.row.get("ppid"):
            with contextlib.suppress(Gone, Unreadable):
                found.parent = str(self.machine.read(found.live.row["ppid"]).row["command"])
        return found

    def _rules_of(self, match: Record) -> RuleSet:
        """The rules that made the match. Raises RuleError if they cannot be read, or are not the same any more."""
        digest = match.get("rules_sha256")
        if self.rules_fixed or digest is None or digest == self.rules.digest:
            return self.rules
        rules = load_named(match.get("rules_file"), match.get("rules_project"), digest)
        return replace(rules, safety=rules.safety.with_(self.rules.safety))

    def _of_match(self, found: Candidate, now: float) -> list[Refusal]:
        """What the match alone forbids."""
        match, reasons = found.match, []
        if match["rule"] != MANUAL:
            if found.rule is None:
                reasons.append(Refusal("no_rule", f"no enabled rule is named {match['rule']!r}"))
            elif found.rule.action.type not in REMEDIES:
                reasons.append(Refusal("not_a_kill", f"the action of rule {found.rule.name} is "
                                                     f"{found.rule.action.type}, which leaves the process alone"))
            if not -MATCH_AGE_S <= now - match["ts"] <= MATCH_AGE_S:
                reasons.append(Refusal("stale", f"the match is {now - match['ts']:.0f} s old"))
            age = match.get("age_s", match["ts"] - match.get("start_time", match["ts"]))
            if age < YOUNGEST_S:
                reasons.append(Refusal("too_young", f"it was younger than {YOUNGEST_S:g} s when it matched, too young "
                                                    "to rule out a reused pid"))
        return reasons

    def _open(self, found: Candidate) -> bool:
        """Open a handle. False if there is no process to read."""
        pid = found.match["pid"]
        try:
            if pid > 1:  # 1 and below are not opened: to kill(2) they are whole groups
                found.handle = self.machine.open(pid)
        except Gone:
            found.end("already_gone")
            return False
        except NotAProcess:
            found.refuse(Refusal("thread", f"{pid} is a thread, not a process"))
            return False
        except Unsupported as error:
            found.refuse(Refusal("no_pidfd", str(error)))
        return True

    def look(self, found: Candidate, now: float, *, levels: bool = True) -> None:
        """Read the process (again) and decide: sets `live`, and `outcome` if it must not be signalled."""
        try:
            live = self.machine.read(found.match["pid"])
        except Gone:
            found.end("already_gone")
            return
        except Unreadable as error:
            found.refuse(Refusal("unreadable", str(error)))
            return
        if live.key != found.key:
            found.end("already_gone", "its pid belongs to another process now")
        elif found.handle is not None and found.handle.gone():
            found.end("zombie" if live.dead else "already_gone",
                      "it has exited; its parent has not waited for it" if live.dead else "")
        else:
            found.live, found.read_at = live, now
            found.refuse(*refusals(live, self.me, found.rules.safety))
            if not found.outcome and found.handle is None:
                found.refuse(Refusal("no_pidfd", "no handle of it is open"))
            if not found.outcome and found.action.type == "kill":
                found.refuse(*self._taken_along(found, live.pid))
            if not found.outcome:
                self._compare(found, live, now, levels=levels)

    def _taken_along(self, found: Candidate, pid: int) -> list[Refusal]:
        """Why the processes that end with this one forbid to end it."""
        for other in self.machine.ends_with(pid):
            try:
                reasons = refusals(self.machine.read(other), self.me, found.rules.safety)
            except Gone:
                continue
            except Unreadable as error:
                reasons = (Refusal("unreadable", str(error)),)
            for code, words in reasons:
                if code in KEEPS:
                    return [Refusal(code, f"process {other} would end with it: {words}")]
        return []

    def _compare(self, found: Candidate, live: Live, now: float, *, levels: bool) -> None:
        """Spare the process if it is no longer what matched; refuse it if that cannot be found out."""
        matches, why = still_matches(found.match, live, found.rule, self.patterns, now, levels=levels)
        if matches is None:
            found.refuse(Refusal("unreadable", why))
        elif not matches:
            found.end("spared", why)


def still_matches(match: Record, live: Live, rule: Rule | None, patterns: Patterns, now: float, *,
                  levels: bool) -> tuple[bool | None, str]:
    """Is the process still what matched? None if that is not known; the text says why it is not, or not known.

    With `levels` its resource usage counts too: what one reading gives (memory, state, CPU time since the match) as it
    is now, the rest (rates, scores) as the match had it. Between SIGTERM and SIGKILL it does not: a process that is
    shutting down uses little. Lasting conditions are taken as proved, and the single reading may miss a CPU limit by
    the tenth that a window allows. Without a rule (a pid that was named) it must still be the same program, of an
    interpreter the same script.
    """
    if rule is None:
        if any(match.get(name) != live.row.get(name) for name in ("command", "exe")):
            return False, f"it runs another program now: {live.row.get('command', '')}"
        same = "cmdline" not in match or name_of(match) == name_of(live.row)
        return same, "" if same else f"it runs another program now: {visible(name_of(live.row))}"
    row: Row = {name: match[name] for name in LEVELS if name in match}
    row.update((k, v) for k, v in live.row.items() if levels or k not in LEVELS)
    if levels and (cpu := cpu_percent(match, live, now)) is not None:
        row["cpu_percent"] = cpu
    subject = Subject(row, live.age_s, patterns, lasted(float("inf")), orphan=match.get("orphan"),
                      slack=1 - HELD_SHARE, program=live.program)
    subject.rule = rule.name
    patterns.new_tick()
    value, _ = decide(rule.condition, subject, ())  # the whitelist is a guard
    if value is None:
        return None, f"rule {rule.name} cannot be evaluated: {unknown(rule.condition, subject)}"
    return value, "" if value else f"rule {rule.name} no longer matches it"


def cpu_percent(match: Record, live: Live, now: float) -> float | None:
    """CPU use since the match, if that is at least a second ago; else the match's own value. None if unknown. Where the
    wall clock was set, the time since is by how much the process has aged."""
    before, after, elapsed = match.get("cpu_seconds_total"), live.row.get("cpu_seconds_total"), now - match["ts"]
    if "age_s" in match and abs(aged := live.age_s - match["age_s"] - elapsed) > CLOCK_SET_S:
        elapsed += aged
    if before is not None and after is not None and elapsed >= FRESH_S and after >= before:
        return float(round(100 * (after - before) / elapsed, 2))
    reported = match.get("cpu_percent")
    return None if reported is None else float(reported)


def bundle(machine: Machine, live: Live, match: Record, samples: list[Row] | None = None) -> Row:
    """What the process is doing now, with its control group, the conditions it met and its last readings."""
    found = machine.bundle(live.pid)
    for name in ("cgroup", "exe", "memory_bytes", "threads", "state"):
        if name in live.row:
            found.setdefault(name, live.row[name])
    if match.get("evidence_terms"):
        found["evidence_terms"] = match["evidence_terms"]
    if samples:
        found["samples"] = samples[-SAMPLES:]
    return found


def manual(machine: Machine, pid: int, now: float, remedy: str = "kill") -> Record:
    """The match record of a process that was named by its pid, and what is to be done to it. Raises Gone,
    Unreadable."""
    live = machine.read(pid)
    return record("match", ts=round(now, 3), boot_id=machine.boot_id(), **live.row, rule=MANUAL, action=remedy,
                  reason="named by its pid", evidence="person", age_s=round(live.age_s, 2))


def distinct(matches: Iterable[Record]) -> list[Record]:
    """One match for each process: the first, which has the highest priority."""
    found: dict[tuple[str, Key], Record] = {}
    for match in matches:
        found.setdefault((match["boot_id"], (match["pid"], match["start_ticks"])), match)
    return list(found.values())
