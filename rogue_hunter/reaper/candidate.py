"""From a match record to a process that may be signalled, or to the reasons why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rogue_hunter.reaper.guards import Refusal, refusals
from rogue_hunter.reaper.judge import changed
from rogue_hunter.reaper.limits import MANUAL
from rogue_hunter.reaper.process import Live, Machine, Me, Unreadable
from rogue_hunter.reaper.signals import Gone, Handle, NotAProcess, Unsupported
from rogue_hunter.rules.model import Rule, RuleSet
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, record

MATCH_AGE_S = 60.0
"""A match older than this says nothing about now. A match that lasts is repeated as often."""

YOUNGEST_S = 2.0
"""A process this young cannot be told from another one of the same pid: start times count in 10 ms, and its age in the
match may be wrong by a second where the kernel gives the time of boot in whole seconds."""

PID_MAX = 1 << 22
"""The highest pid that Linux gives out (PID_MAX_LIMIT)."""

_TYPES: dict[str, tuple[type, ...]] = {"pid": (int,), "start_ticks": (int,), "boot_id": (str,), "rule": (str,),
                                       "ts": (int, float)}
_MAYBE: dict[str, tuple[type, ...]] = {
    "start_time": (int, float), "age_s": (int, float), "command": (str,), "cpu_percent": (int, float),
    "cpu_seconds_total": (int, float), "orphan": (bool,), "evidence_terms": (list,), "memory_bytes": (int,),
    "disk_bytes_per_s": (int, float), "gpu_ms_per_s": (int, float), "wakeups_per_s": (int, float), "threads": (int,),
    "score": (int, float), "band": (str,), "state": (str,), "reason": (str,), "evidence": (str,), "priority": (str,),
}


def check_match(match: Record) -> None:
    """Raise ValueError unless the record is a match that can be acted on. Types are exact: true is no pid."""
    for name, kinds in _TYPES.items():
        if type(match.get(name)) not in kinds:
            raise ValueError(f"match without a proper {name}")
    for name, kinds in _MAYBE.items():
        if name in match and type(match[name]) not in kinds:
            raise ValueError(f"match with a wrong {name}")
    if not 1 <= match["pid"] <= PID_MAX or match["start_ticks"] < 0:
        raise ValueError(f"match with pid {match['pid']}")


@dataclass(slots=True)
class Candidate:
    """A match and what was found out about it. `outcome` is empty while nothing speaks against a signal.

    What the run adds: `signals` that were sent, for how long they were waited for, `bundle` of evidence, CPU use
    before (%) with the clock and the counter it goes on from, and what was recovered of it, the number of the last
    audit line.
    """

    match: Record
    rule: Rule | None = None
    handle: Handle | None = None
    live: Live | None = None
    outcome: str = ""
    refusals: list[Refusal] = field(default_factory=list)
    text: str = ""
    signals: list[str] = field(default_factory=list)
    wait_s: float = 0.0
    race_window_s: float | None = None
    bundle: Row = field(default_factory=dict)
    cpu_before: float | None = None
    cpu_at: float = 0.0
    cpu_seconds: float = 0.0
    cpu_recovered: float | None = None
    audit_seq: int | None = None

    @property
    def key(self) -> Key:
        """Its identity within the boot."""
        return self.match["pid"], self.match["start_ticks"]

    def refuse(self, *reasons: Refusal) -> None:
        """Leave it alone for these reasons."""
        self.refusals += reasons
        self.outcome, self.text = "refused", "; ".join(r.text for r in self.refusals)

    def refuse_all(self, reasons: Iterable[Refusal]) -> None:
        """The same for what may be no reason at all."""
        reasons = list(reasons)
        if reasons:
            self.refuse(*reasons)

    def close(self) -> None:
        """Let go of the process."""
        if self.handle is not None:
            self.handle.close()


@dataclass(frozen=True, slots=True)
class Court:
    """What is needed to judge: the machine, who asks, the rules and what is known of patterns."""

    machine: Machine
    me: Me
    rules: RuleSet
    patterns: Patterns

    def assess(self, match: Record, now: float) -> Candidate:
        """Take hold of the process of a match, then look at it, in this order: what is read after the handle was
        opened is the handle's process as long as the handle says that it lives."""
        found = Candidate(match, self.rules.rule(match["rule"]))
        if match["boot_id"] != self.machine.boot_id():
            found.outcome, found.text = "already_gone", "it belongs to another boot"
            return found
        found.refuse_all(self._of_match(found, now))
        try:
            # 1 and below are not opened: to kill(2) they are whole groups, and nothing comes of holding them.
            if match["pid"] > 1:
                found.handle = self.machine.open(match["pid"])
        except Gone:
            found.outcome, found.text = "already_gone", ""
            return found
        except NotAProcess:
            found.refuse(Refusal("thread", f"{match['pid']} is a thread, not a process"))
            return found
        except Unsupported as error:
            found.refuse(Refusal("no_pidfd", str(error)))
        self.look(found, now)
        return found

    def _of_match(self, found: Candidate, now: float) -> list[Refusal]:
        """What the match alone forbids."""
        match, reasons = found.match, []
        if match["rule"] != MANUAL:
            if found.rule is None:
                reasons.append(Refusal("no_rule", f"there is no enabled rule {match['rule']!r} here"))
            elif found.rule.action.type != "kill":
                reasons.append(Refusal("not_a_kill", f"rule {found.rule.name} only asks to {found.rule.action.type}"))
            if not -MATCH_AGE_S <= now - match["ts"] <= MATCH_AGE_S:
                reasons.append(Refusal("stale", f"the match is {now - match['ts']:.0f} s old"))
            age = match.get("age_s", match["ts"] - match.get("start_time", match["ts"]))
            if age < YOUNGEST_S:
                reasons.append(Refusal("too_young", "it was too young to be told from another process of its pid"))
        return reasons

    def look(self, found: Candidate, now: float, *, levels: bool = True) -> None:
        """Look at the process (again) and decide: sets `live`, and `outcome` where it must be left alone."""
        handle = found.handle
        try:
            live = self.machine.read(found.match["pid"])
        except Gone:
            found.outcome, found.text = "already_gone", ""
            return
        except Unreadable as error:
            found.refuse(Refusal("unreadable", str(error)))
            return
        if live.key != found.key:
            found.outcome, found.text = "already_gone", "its pid belongs to another process now"
        elif handle is None:
            found.live = live
            found.refuse_all(refusals(live, self.me, self.rules.safety))
            if not found.outcome:
                found.refuse(Refusal("no_pidfd", "it is not held"))
        elif handle.gone():
            found.outcome = "zombie" if live.dead else "already_gone"
            found.text = "it is dead and waits for its parent" if live.dead else ""
        else:
            found.live = live
            found.refuse_all(refusals(live, self.me, self.rules.safety))
            if not found.outcome:
                why = changed(found.match, live, found.rule, self.patterns, now, levels=levels)
                if why is not None:
                    found.outcome, found.text = "spared", why


def manual(machine: Machine, pid: int, now: float) -> Record:
    """The match record of a process that a person named. Raises Gone, Unreadable."""
    live = machine.read(pid)
    return record("match", ts=round(now, 3), boot_id=machine.boot_id(), **live.row, rule=MANUAL, action="kill",
                  reason="named by a person", evidence="person", age_s=round(live.age_s, 2))


def distinct(matches: Iterable[Record]) -> list[Record]:
    """One match for each process: the first, which is that of the highest priority."""
    found: dict[tuple[str, Key], Record] = {}
    for match in matches:
        found.setdefault((match["boot_id"], (match["pid"], match["start_ticks"])), match)
    return list(found.values())
