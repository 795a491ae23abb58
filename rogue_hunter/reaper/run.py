"""One run of the reaper: matches in, action records out.

The order matters: open a handle, read the process, check guards and rule, ask for confirmation, take the lock, check
the budget, read again, collect evidence, and before each signal read once more and write the audit entry.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rogue_hunter.files import Locked, lock
from rogue_hunter.paths import PathError, private_dir
from rogue_hunter.reaper.audit import AuditError, AuditLog
from rogue_hunter.reaper.candidate import FRESH_S, Candidate, Judge, bundle, cpu_percent, distinct
from rogue_hunter.reaper.guards import HOUR_S, Budget, Refusal, disarm, disarmed, refusals
from rogue_hunter.reaper.process import (
    KILL,
    KILL_WAIT_S,
    QUICK_WAIT_S,
    Gone,
    Guard,
    Live,
    Machine,
    Stop,
    Unreadable,
    Veto,
    Victim,
    escalate,
)
from rogue_hunter.reaper.remedies import DONE, apply
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.schema.field import Key
from rogue_hunter.schema.rules import ACTION
from rogue_hunter.stream.tick import Record, Row, record

LOCK_WAIT_S = 15.0
"""How long to wait for another reaper, which takes 8 s at most, seconds."""

_FROM_MATCH = frozenset(f.name for f in ACTION) - {"ts"}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run needs.

    `confirm` gets the candidates that may be signalled and returns whether to go ahead; without it there is no
    question (--yes, rh-pipe), and nothing is done after a failure. `report` gets each action record when it is decided.
    `samples` returns the last readings of an identity. `state_dir` holds the lock. With `rules_fixed` all matches are
    judged by `rules`, even if they name another file.
    """

    rules: RuleSet
    machine: Machine
    audit: AuditLog
    state_dir: Path
    host: str = ""
    dry_run: bool = False
    rules_fixed: bool = False
    confirm: Callable[[Sequence[Candidate]], bool] | None = None
    report: Callable[[Record], None] = lambda _: None
    samples: Callable[[Key], list[Row]] = lambda _: []
    patterns: Patterns = field(default_factory=Patterns)
    stop: Stop = field(default_factory=Stop)
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    kill_wait_s: float = KILL_WAIT_S
    run: str = field(default_factory=lambda: os.urandom(6).hex())


def reap_batch(matches: Sequence[Record], setup: Setup) -> list[Record]:
    """Judge, and unless it is a dry run, end the processes of `matches`. Returns one action record for each process, in
    their order. Never raises for one process; a broken audit file refuses all. Matches must have passed
    `check_match`."""
    if not matches:
        return []
    now = _steady(setup)
    judge = Judge(setup.machine, setup.machine.me(), setup.rules, setup.patterns, setup.rules_fixed)
    candidates = [judge.assess(match, now()) for match in distinct(matches)]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _judge_and_act(candidates, judge, setup, now)
        for candidate in candidates:
            if not candidate.outcome:
                setup.stop.set()
                candidate.outcome, candidate.text = "interrupted", "before anything was sent"
        return [_recorded(candidate, setup) for candidate in candidates]
    finally:
        for candidate in candidates:
            candidate.close()


def _steady(setup: Setup) -> Callable[[], float]:
    """The time of day as it was when the run began, plus the time that passed: setting the clock does not change it."""
    began, at = setup.now(), setup.clock()
    return lambda: began + setup.clock() - at


def _judge_and_act(candidates: Sequence[Candidate], judge: Judge, setup: Setup, now: Callable[[], float]) -> None:
    _refuse_all(candidates, unauditable(setup))
    if setup.confirm is None and (why := disarmed(setup.state_dir)) is not None:
        _refuse_all(candidates, Refusal("disarmed", f"disarmed: {why}"))
    dry = [candidate for candidate in _open(candidates) if _dry(candidate, setup)]
    if dry:
        _budget(dry, setup)
        for candidate in _open(dry):
            done = DONE.get(candidate.action.type)
            candidate.end("dry_run", f"would be {done}; nothing was done" if done else "nothing was sent")
    if _open(candidates):
        if setup.confirm is not None and not setup.confirm(_open(candidates)):
            for candidate in _open(candidates):
                candidate.outcome, candidate.text = "declined", "not confirmed"
        elif not setup.stop:
            _act(_open(candidates), judge, setup, now)


def _dry(candidate: Candidate, setup: Setup) -> bool:
    """A dry run of this command, or of the rules that the candidate is judged by."""
    return setup.dry_run or candidate.rules.settings.dry_run


def _open(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if not candidate.outcome]


def _refuse_all(candidates: Sequence[Candidate], reason: Refusal | None) -> None:
    """Refuse everything that is not decided for another reason."""
    for candidate in candidates:
        if reason is not None and candidate.outcome in ("", "refused"):
            candidate.refuse(reason)


def unauditable(setup: Setup) -> Refusal | None:
    """The refusal of everything if the audit file cannot be written; None if it can."""
    try:
        setup.audit.check()
    except AuditError as error:
        return Refusal("no_audit", f"no audit is possible: {error}")
    return None


@contextlib.contextmanager
def alone(setup: Setup) -> Iterator[bool]:
    """While no other reaper acts; False if another one does not finish in time."""
    try:
        private_dir(setup.state_dir)
        held = lock(setup.state_dir / "reap.lock", wait_s=LOCK_WAIT_S, stop=lambda: bool(setup.stop))
    except (OSError, PathError, Locked):
        yield False
        return
    with held:
        yield True


def _budget(candidates: Sequence[Candidate], setup: Setup) -> None:
    """Refuse what is beyond the budget."""
    try:
        budget = Budget(setup.audit.recent(HOUR_S, setup.machine.boot_id()), setup.run)
    except AuditError as error:
        _refuse_all(candidates, Refusal("no_audit", str(error)))
        return
    for candidate in candidates:
        reason = budget.refusal(candidate.match["rule"], candidate.rules.safety)
        if reason is not None:
            candidate.refuse(reason)
        else:
            budget.spend(candidate.match["rule"])


def _act(candidates: Sequence[Candidate], judge: Judge, setup: Setup, now: Callable[[], float]) -> None:
    with alone(setup) as free:
        if not free:
            _refuse_all(candidates, None if setup.stop else Refusal("busy", "another rh-reap or rh-pipe is acting"))
            return
        _budget(candidates, setup)
        for candidate in _open(candidates):
            # The question may have taken minutes: what is measured and recorded is read now.
            first, then = candidate.live, candidate.read_at
            judge.look(candidate, now())
            if candidate.live is not None and first is not None:
                candidate.cpu_before = _cpu_now(candidate, candidate.live, first, then)
        for candidate in _open(candidates):
            if candidate.action.type != "kill":
                _soften(candidate, judge, setup, now)
        pairs = [(candidate, _victim(candidate, judge, setup, now)) for candidate in _open(candidates)]
        escalate([victim for _, victim in pairs], setup.stop, kill_wait_s=setup.kill_wait_s, clock=setup.clock)
        for candidate, victim in pairs:
            _conclude(candidate, victim, setup, now)


def _cpu_now(candidate: Candidate, live: Live, first: Live, then: float) -> float | None:
    """CPU use since the first reading if that is long enough ago, else since the match. None if unknown."""
    before, after = first.row.get("cpu_seconds_total"), live.row.get("cpu_seconds_total")
    passed = candidate.read_at - then
    if passed >= FRESH_S and before is not None and after is not None:
        return float(round(100 * (after - before) / passed, 2))
    return cpu_percent(candidate.match, live, candidate.read_at)


def _soften(candidate: Candidate, judge: Judge, setup: Setup, now: Callable[[], float]) -> None:
    """Renice, stop or freeze: one audit entry before, one with the outcome."""
    guard = _guard(candidate, judge, setup, now)
    if candidate.handle is None or candidate.live is None:
        raise ValueError("a candidate without a process")

    def protected(pid: int) -> str | None:
        try:
            found = refusals(setup.machine.read(pid), judge.me, candidate.rules.safety)
        except (Gone, Unreadable) as error:
            return None if isinstance(error, Gone) else str(error)
        return found[0].text if found else None

    try:
        outcome, text = apply(candidate.action, candidate.live, candidate.handle, guard, protected)
    except Gone:
        outcome, text = "already_gone", ""
    except Veto as veto:
        outcome, text = veto.outcome, veto.text
    except OSError as error:
        outcome, text = "refused", f"the kernel does not permit it: {error.strerror}"
    candidate.end(outcome, text)
    if outcome == "stopped":
        candidate.signals = ["SIGSTOP"]


def _guard(candidate: Candidate, judge: Judge, setup: Setup, now: Callable[[], float]) -> Guard:
    """What is called before each signal (0: another remedy): it reads the process again and writes the audit entry."""
    if candidate.handle is None or candidate.live is None:
        raise ValueError("a candidate without a process")
    candidate.bundle = bundle(setup.machine, candidate.live, candidate.match, setup.samples(candidate.key))

    def guard(number: int) -> None:
        """Read the process again, and write the signal to the audit file before it is sent."""
        judge.look(candidate, now(), levels=number != KILL)
        if candidate.outcome:
            outcome, text = candidate.outcome, candidate.text
            candidate.outcome = ""
            raise Gone if outcome in ("already_gone", "zombie") and number == KILL else Veto(outcome, text)
        entry = entry_of(candidate, setup, kind="escalate" if number == KILL else "intent",
                       **({"signal": signal.Signals(number).name} if number else {}))
        try:
            candidate.audit_seq = setup.audit.append(**entry)
        except AuditError as error:
            reason = Refusal("no_audit", f"no audit is possible: {error}")
            candidate.refusals.append(reason)
            raise Veto("survived" if number == KILL else "refused", reason.text) from None

    return guard


def _victim(candidate: Candidate, judge: Judge, setup: Setup, now: Callable[[], float]) -> Victim:
    guard, action = _guard(candidate, judge, setup, now), candidate.action
    if candidate.handle is None:
        raise ValueError("a candidate without a process")
    quick = action.signal == "SIGKILL"
    return Victim(candidate.handle, guard, min(action.timeout_s, QUICK_WAIT_S) if quick else action.timeout_s,
                  kill=action.fallback or quick)


def _conclude(candidate: Candidate, victim: Victim, setup: Setup, now: Callable[[], float]) -> None:
    """Take over the outcome, and measure the CPU use that was freed."""
    candidate.outcome, candidate.text = victim.outcome, victim.text
    candidate.signals, candidate.wait_s = victim.signals, victim.wait_s
    candidate.race_window_s = victim.race_window_s
    if victim.outcome in ("terminated", "killed") and candidate.cpu_before is not None:
        candidate.cpu_recovered = candidate.cpu_before
    elif victim.outcome == "survived":
        disarm(setup.state_dir, f"pid {candidate.match['pid']} survived: {victim.text}")
        with contextlib.suppress(Gone, Unreadable):
            last = setup.machine.read(candidate.match["pid"]).row.get("cpu_seconds_total")
            first = candidate.live.row.get("cpu_seconds_total") if candidate.live is not None else None
            passed = now() - candidate.read_at  # since the last signal
            if candidate.cpu_before is not None and first is not None and last is not None and passed > 0:
                candidate.cpu_recovered = max(0.0, round(candidate.cpu_before - 100 * (last - first) / passed, 2))


def entry_of(candidate: Candidate, setup: Setup, **more: object) -> Record:
    """A line of the audit file. The fields of the specification's log come first."""
    action = _record(candidate, setup)
    match = candidate.match
    age_s = candidate.live.age_s if candidate.live is not None else match.get("age_s")
    spoken = {"action": candidate.action.type, "hostname": setup.host,
              "memory_mb": round(action["memory_bytes"] / 1e6, 2) if "memory_bytes" in action else None,
              "age_hours": None if age_s is None else round(age_s / 3600, 2)}
    return {**more, **{k: v for k, v in spoken.items() if v is not None},
            **{k: v for k, v in action.items() if k not in ("type", "v", "ts", "host") and k not in more}}


def _recorded(candidate: Candidate, setup: Setup) -> Record:
    """The action record of a decided candidate, after its line in the audit file."""
    try:
        candidate.audit_seq = setup.audit.append(**entry_of(candidate, setup, kind="outcome"))
    except AuditError as error:
        if not any(reason.code == "no_audit" for reason in candidate.refusals):
            candidate.text = f"{candidate.text}; not in the audit file: {error}".lstrip("; ")
    action = _record(candidate, setup)
    setup.report(action)
    return action


def _record(candidate: Candidate, setup: Setup) -> Record:
    """The action record, as far as it is decided."""
    fields = {name: value for name, value in candidate.match.items() if name in _FROM_MATCH}
    if candidate.live is not None:
        fields.update({k: v for k, v in candidate.live.row.items() if k in _FROM_MATCH})
        fields["age_s"] = round(candidate.live.age_s, 2)
    signals = candidate.signals
    fields.update(
        ts=round(setup.now(), 3), outcome=candidate.outcome or None,
        refusals=[reason.code for reason in candidate.refusals] or None, detail=candidate.text or None,
        signals=signals or None, signal=next((s for s in reversed(signals) if s != "SIGCONT"), None),
        method=candidate.handle.method if signals and candidate.handle is not None else None,
        race_window_s=candidate.race_window_s, wait_s=round(candidate.wait_s, 3) if signals else None,
        dry_run=_dry(candidate, setup), cpu_percent=fields.get("cpu_percent") if candidate.cpu_before is None
        else candidate.cpu_before, cpu_recovered_percent=candidate.cpu_recovered, bundle=candidate.bundle or None,
        host=setup.host or None, config_file=", ".join(candidate.rules.sources) or None, run=setup.run,
        audit_seq=candidate.audit_seq)
    return record("action", **fields)


def exit_code(actions: Sequence[Record]) -> int:
    """0: all that was to be done is done. 1: something was refused or survived. 130: interrupted."""
    outcomes = {action["outcome"] for action in actions}
    return 130 if "interrupted" in outcomes else 1 if outcomes & {"refused", "survived", "declined"} else 0


def here(proc_root: str | Path = "/proc", libproc: str | None = None) -> Machine:
    """The machine that this runs on. `libproc` (or ROGUE_HUNTER_LIBPROC) names the library of the macOS one, which is
    then chosen on any platform. Raises HostError where neither fits."""
    library = libproc or os.environ.get("ROGUE_HUNTER_LIBPROC") or None
    if library or sys.platform == "darwin":
        from rogue_hunter.reaper.macos import DarwinMachine

        return DarwinMachine.load(library)
    from rogue_hunter.reaper.linux import LinuxMachine

    return LinuxMachine(Path(proc_root))
