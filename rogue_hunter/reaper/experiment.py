"""Proof by experiment: stop a suspect for a moment, several times in random order, and see whether a victim recovers.

The suspect passes every guard of the reaper, before the experiment and again before each stop. The experiment is in the
audit file before the first signal, and counts against the hourly budget of the reaper. Another process sends the
signals and continues the suspect even if this one is killed (rogue_hunter.reaper.keeper).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import rogue_hunter
from rogue_hunter.reaper.audit import AuditError
from rogue_hunter.reaper.candidate import Candidate, Judge, manual
from rogue_hunter.reaper.guards import HOUR_S, Budget, Refusal, disarmed
from rogue_hunter.reaper.keeper import READY
from rogue_hunter.reaper.process import CONT, Gone, Handle, Unreadable
from rogue_hunter.reaper.run import Setup, alone, entry_of, unauditable
from rogue_hunter.stream.tick import Record, record

ALPHA = 0.02
"""Probability of a difference as large as the one that was seen, if the suspect had no effect, below which an effect is
proven: with 8 trials the smallest possible one is 1/256."""
EFFECT = 0.25
"""The victim must lose at least this part of its waiting while the suspect is stopped. If it is shown to lose less, the
suspicion is refuted."""
EXACT_MAX = 14
"""Trials up to which all changes of sign are tried, 16,384; with more, RANDOM random ones."""
RANDOM = 20_000


class Trial(NamedTuple):
    """How the victim fared in two short stretches: while the suspect ran and while it was stopped. Higher is worse."""

    running: float
    stopped: float


class Finding(NamedTuple):
    """The verdict, the part of the waiting that ended, the probabilities by which proof and refutation were decided."""

    verdict: str
    effect: float | None
    p_value: float
    p_refute: float


def sign_test(differences: Sequence[float], chosen: Callable[[], random.Random] = random.Random) -> float:
    """The probability of a mean as high as that of `differences` if each could as well have had the other sign."""
    observed = sum(differences) - 1e-12
    if len(differences) <= EXACT_MAX:
        signs = itertools.product((1, -1), repeat=len(differences))
        hits = sum(sum(s * d for s, d in zip(each, differences, strict=True)) >= observed for each in signs)
        return float(hits / 2 ** len(differences))
    rng = chosen()
    hits = sum(sum(d if rng.random() < 0.5 else -d for d in differences) >= observed for _ in range(RANDOM))
    return (hits + 1) / (RANDOM + 1)


def find(trials: Sequence[Trial], least: float) -> Finding:
    """The verdict of trials. `least`: the mean while the suspect runs below which the victim does not wait at all."""
    mean = sum(each.running for each in trials) / len(trials) if trials else 0.0
    if not trials or mean < least:
        return Finding("not_proven", None, 1.0, 1.0)
    differences = [each.running - each.stopped for each in trials]
    effect = sum(differences) / len(differences) / mean
    p_value = sign_test(differences)
    p_refute = sign_test([EFFECT * each.running - d for each, d in zip(trials, differences, strict=True)])
    if p_value <= ALPHA and effect >= EFFECT:
        verdict = "proven"
    elif p_refute <= ALPHA and effect < EFFECT:
        verdict = "refuted"
    else:
        verdict = "not_proven"
    return Finding(verdict, effect, p_value, p_refute)


RULE = "prove"
"""The rule in the audit file, by which the budget of an hour is counted."""
STOP_S, TRIALS, TRIALS_MIN = 0.2, 10, 8
SETTLE_S = 0.03
"""After a stop or a continuation, before the victim is measured: what runs now must first be switched to."""
REST_S = 0.1
"""Between two stretches, so that what had piled up is worked off."""
GRACE_S = 0.15
"""Added to the length of a stop: after that the keeper continues the suspect by itself."""
START_S, ANSWER_S = 20.0, 2.0
"""How long the keeper may take to start, and to answer."""
BASE_S = 0.5
"""How long the victim is watched first, to see what it waits for."""


class Counters(NamedTuple):
    """What a victim has waited and done so far: time waiting for a CPU (ns), and page-ins."""

    delay_ns: int
    pageins: int


METRICS: dict[str, tuple[str, float]] = {
    "run_delay_ms_per_s": ("waited for a CPU", 20.0),
    "pageins_per_s": ("waited for pages from the disk", 5.0),
}
"""What a victim may wait by, in the order in which it is chosen; words, and the rate from which it counts."""


class KeeperProcess:
    """Stops and continues the process behind `handle`, by a process of its own that `python` runs. Raises OSError.

    `stop` and `go` raise Gone when the suspect, or what does it, is gone."""

    def __init__(self, handle: Handle, limit_s: float, python: str = sys.executable) -> None:
        self._handle = handle
        home = str(Path(rogue_hunter.__file__).resolve().parent.parent)
        path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
        self._child = subprocess.Popen(
            [python, "-P", "-m", "rogue_hunter.reaper.keeper", str(handle.fileno()), f"{limit_s:g}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            pass_fds=[handle.fileno()], env={**os.environ, "PYTHONPATH": path}, bufsize=0)
        assert self._child.stdout is not None  # noqa: S101 - made with pipes
        # Its interpreter may take seconds to start on a machine that is slow.
        if not select.select([self._child.stdout], [], [], START_S)[0] or self._child.stdout.read(1) != READY:
            self.close()
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def stop(self) -> None:
        self._ask(b"s")

    def go(self) -> None:
        self._ask(b"c")

    def _ask(self, byte: bytes) -> None:
        assert self._child.stdin is not None and self._child.stdout is not None  # noqa: S101 - made with pipes
        try:
            self._child.stdin.write(byte)
            ready = select.select([self._child.stdout], [], [], ANSWER_S)[0]
            if not ready or self._child.stdout.read(1) != byte:
                raise Gone("the keeper does not answer")
        except OSError:
            raise Gone("the keeper is gone") from None

    def close(self) -> None:
        """End it. The suspect is continued from here as well: the keeper may have been killed."""
        with contextlib.suppress(Gone, PermissionError):
            self._handle.send(CONT)
        assert self._child.stdin is not None and self._child.stdout is not None  # noqa: S101 - made with pipes
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        # Between the two signals the keeper may have stopped it once more.
        with contextlib.suppress(Gone, PermissionError):
            self._handle.send(CONT)


@dataclass(frozen=True, slots=True)
class Experiment:
    """How it is done. `read` returns the counters of a pid and raises OSError when it is gone."""

    trials: int = TRIALS
    stop_s: float = STOP_S
    read: Callable[[int], Counters] = field(default_factory=lambda: counters)
    keeper: Callable[[Handle, float], KeeperProcess] = KeeperProcess
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.SystemRandom)


def prove(suspect: int, victim: int, setup: Setup, how: Experiment | None = None) -> Record:
    """The `proof` record of an experiment, or of why it was refused. Raises ValueError for fewer than TRIALS_MIN
    trials; never leaves the suspect stopped."""
    how = how or Experiment()
    if how.trials < TRIALS_MIN:
        raise ValueError(f"at least {TRIALS_MIN} trials are needed")
    judge = Judge(setup.machine, setup.machine.me(), setup.rules, setup.patterns, setup.rules_fixed)
    try:
        found = judge.assess(manual(setup.machine, suspect, setup.now()), setup.now())
    except (Gone, Unreadable) as error:
        return _answer(setup, how, suspect, victim, "refused", str(error) or f"{suspect}: no such process")
    try:
        return _prove(found, victim, judge, setup, how)
    finally:
        found.close()


def _prove(found: Candidate, victim: int, judge: Judge, setup: Setup, how: Experiment) -> Record:
    def refused(text: str) -> Record:
        return _answer(setup, how, found.match["pid"], victim, "refused", text, found)

    try:
        sufferer = setup.machine.read(victim)
        how.read(victim)
    except (Gone, OSError):
        return refused(f"{victim}: no such process")
    except Unreadable as error:
        return refused(f"{victim}: {error}")
    if victim == found.match["pid"]:
        return refused("suspect and victim are the same process")
    found.refuse(*_more_refusals(found, setup))
    if found.outcome or found.handle is None:
        return refused(found.text or found.outcome.replace("_", " "))
    if setup.dry_run or setup.rules.settings.dry_run:
        return refused("a dry run: nothing was stopped")
    if setup.confirm is not None and not setup.confirm([found]):
        return refused("not confirmed")
    with alone(setup) as free:
        if not free:
            return refused("another rh-reap or rh-pipe is acting")
        try:
            budget = Budget(setup.audit.recent(HOUR_S, setup.machine.boot_id()), setup.run)
            if (over := budget.refusal(RULE, setup.rules.safety)) is not None:
                found.refuse(over)
                return refused(over.text)
            found.audit_seq = setup.audit.append(**entry_of(
                found, setup, kind="intent", rule=RULE, signal="SIGSTOP", stops=how.trials, stop_s=how.stop_s,
                victim_pid=victim, victim_start_ticks=sufferer.key[1]))
        except AuditError as error:
            found.refuse(Refusal("no_audit", f"no audit is possible: {error}"))
            return refused(found.text)
        record_ = _run(found, found.handle, victim, sufferer.key[1], judge, setup, how)
        with contextlib.suppress(AuditError):
            setup.audit.append(**entry_of(found, setup, kind="proof", rule=RULE, **{
                name: record_[name] for name in ("verdict", "detail", "trials", "p_value", "victim_pid")
                if name in record_}))
        return record_


def _more_refusals(found: Candidate, setup: Setup) -> Iterator[Refusal]:
    """What forbids a stop, but not a kill."""
    if (reason := unauditable(setup)) is not None:
        yield reason
    if setup.confirm is None and (why := disarmed(setup.state_dir)) is not None:
        yield Refusal("disarmed", f"disarmed: {why}")
    if found.live is not None and found.live.row.get("state") == "stopped":
        yield Refusal("stopped", "it is stopped already: a person or a debugger may have done that")
    if _in_foreground(found.match["pid"]):
        yield Refusal("foreground", "it is in the foreground of a terminal: its shell would take the terminal back")


def _in_foreground(pid: int, root: Path = Path("/proc")) -> bool:
    """True when its process group is the one that reads from its terminal."""
    try:
        fields = (root / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[4]) != 0 and fields[2] == fields[5]
    except (OSError, ValueError, IndexError):
        return False


def _run(found: Candidate, handle: Handle, victim: int, victim_start: int, judge: Judge, setup: Setup,
         how: Experiment) -> Record:
    """The trials, and the record."""
    def answer(verdict: str, detail: str, **more: object) -> Record:
        return _answer(setup, how, found.match["pid"], victim, verdict, detail, found,
                       victim_start_ticks=victim_start, **more)

    trials: list[Trial] = []
    metric = ""
    try:
        before, at = how.read(victim), how.clock()
        how.sleep(BASE_S)
        base = _rates(before, how.read(victim), how.clock() - at)
        metric = next((name for name, (_, least) in METRICS.items() if base.get(name, 0.0) >= least), "")
        if not metric:
            return answer("not_proven", "the victim does not wait now, neither for a CPU nor for pages")
        try:
            keeper = how.keeper(handle, how.stop_s + GRACE_S)
        except OSError as error:
            return answer("refused", f"the process that continues the suspect cannot be started: {error.strerror}")
        with contextlib.closing(keeper):
            for _ in range(how.trials):
                if setup.stop:
                    return answer("not_proven", f"interrupted after {len(trials)} trials", metric=metric)
                judge.look(found, setup.now(), levels=False)
                if found.outcome:
                    return answer("not_proven", f"after {len(trials)} trials: {found.text or found.outcome}",
                                  metric=metric)
                trials.append(_trial(victim, metric, keeper, how))
    except Gone as gone:
        why = str(gone) or "the suspect is gone"
        return answer("not_proven", f"after {len(trials)} trials: {why}", metric=metric or None)
    except OSError:
        return answer("not_proven", f"after {len(trials)} trials: the victim is gone", metric=metric or None)
    least = METRICS[metric][1] / 2
    result = find(trials, least)
    return answer(result.verdict, _words(result, trials, metric), metric=metric,
                  running=round(sum(t.running for t in trials) / len(trials), 3),
                  stopped=round(sum(t.stopped for t in trials) / len(trials), 3),
                  effect=None if result.effect is None else round(result.effect, 4), p_value=round(result.p_value, 5),
                  p_refute=round(result.p_refute, 5), trials=[[round(v, 3) for v in each] for each in trials])


def _trial(victim: int, metric: str, keeper: KeeperProcess, how: Experiment) -> Trial:
    """Measure the victim while the suspect runs and while it is stopped, in random order."""
    order = [False, True]
    how.rng.shuffle(order)
    rates: dict[bool, float] = {}
    for stopped in order:
        if stopped:
            keeper.stop()
        try:
            how.sleep(SETTLE_S)
            before, at = how.read(victim), how.clock()
            how.sleep(max(0.0, how.stop_s - SETTLE_S))
            rates[stopped] = _rates(before, how.read(victim), how.clock() - at)[metric]
        finally:
            if stopped:
                keeper.go()
        how.sleep(REST_S * (0.5 + how.rng.random()))
    return Trial(rates[False], rates[True])


def _rates(before: Counters, after: Counters, seconds: float) -> dict[str, float]:
    seconds = max(seconds, 1e-6)
    return {"run_delay_ms_per_s": max(0, after.delay_ns - before.delay_ns) / 1e6 / seconds,
            "pageins_per_s": max(0, after.pageins - before.pageins) / seconds}


def _words(result: Finding, trials: list[Trial], metric: str) -> str:
    what = METRICS[metric][0]
    if result.effect is None:
        return f"the victim hardly {what} during the trials"
    change = f"{result.effect:.0%} less" if result.effect >= 0 else f"{-result.effect:.0%} more"
    return f"while the suspect was stopped, the victim {what} {change} ({len(trials)} trials, p = {result.p_value:.3g})"


def _answer(setup: Setup, how: Experiment, suspect: int, victim: int, verdict: str, detail: str,
            found: Candidate | None = None, **more: object) -> Record:
    row = (found.live.row if found.live is not None else found.match) if found is not None else {}
    victim_row = {}
    with contextlib.suppress(Gone, Unreadable):
        victim_row = setup.machine.read(victim).row
    return record(
        "proof", ts=round(setup.now(), 3), boot_id=setup.machine.boot_id(), pid=suspect,
        start_ticks=row.get("start_ticks"), command=row.get("command"), victim_pid=victim,
        **{"victim_start_ticks": victim_row.get("start_ticks"), "victim_command": victim_row.get("command"), **more},
        verdict=verdict, detail=detail, stop_s=how.stop_s, run=setup.run,
        refusals=[each.code for each in found.refusals] or None if found is not None else None,
        audit_seq=found.audit_seq if found is not None else None)


def counters(pid: int, root: Path = Path("/proc")) -> Counters:
    """The counters of a process, all of its threads. Raises OSError when it is gone or cannot be read."""
    folder = root / str(pid)
    delay = 0
    for name in os.listdir(folder / "task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            delay += int((folder / "task" / name / "schedstat").read_bytes().split()[1])
    fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
    return Counters(delay, int(fields[9]))
