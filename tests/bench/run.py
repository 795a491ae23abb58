"""The run itself: what is measured in which order, within a time that is not overrun.

It goes round by round over all loads, and within a round every subject takes its turn on the same load: when the time
is up, every cell has been measured as often as any other of its kind, and what was left out is reported. Our own pair, the floor
and rh-pipe, takes part in every round, because its ratio is the closest; so do all on the load that most goals are
about; elsewhere the others take part in every third round, from the first one on, with shorter windows.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from tests.bench import beats, loads, measure, report, subjects, syscalls, words
from tests.bench.build import REPO
from tests.bench.first import SECONDS as FIRST_S
from tests.bench.first import first_cpu_s
from tests.bench.loads import Load
from tests.bench.subjects import Context, Subject, SubjectError

SYSCALLS_UP_TO = 1000
"""strace makes a system call ten times slower: with more processes a tick no longer fits into its period."""

SYSCALLS_S = 2.0
AROUND_S = 0.9
"""To start and end a subject, and to wait for its mark."""

OTHERS_EVERY = 3
OTHERS_SHARE = 0.7
"""Of our own pair's window: what is ten times as dear need not be known as closely."""

PAIR = (report.FLOOR, report.OURS)
GRACE_S = 40.0
"""What hangs is cut off so long behind the end of the time."""

Say = Callable[[str], None]


class TimeUp(Exception):
    """The run took longer than it may: something hung."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `seconds` is the length of one turn's window of our own pair, `beats_s` how long rh-pipe
    is listened to (0: never), `until` the end of the time (monotonic clock)."""

    loads: Sequence[Load]
    subjects: Sequence[Subject]
    rounds: int
    seconds: float
    syscalls: bool
    beats_s: float = 0.0
    until: float = float("inf")

    def takes_part(self, subject: Subject, load: Load, number: int) -> bool:
        """Does the subject take a turn on this load in this round? Beside work, rh-pipe and what it is compared with."""
        if load.kind == "work":
            return subject.name in (report.OURS, "top") and number % OTHERS_EVERY == 1
        if subject.name in PAIR or len(self.subjects) <= len(PAIR):
            return True
        return load.kind != "sparse" and (is_main(load) or number % OTHERS_EVERY == 1)

    def counts_syscalls(self, subject: Subject, load: Load) -> bool:
        """Are its system calls counted on this load? Those of others where all are compared."""
        wanted = self.syscalls and load.size <= SYSCALLS_UP_TO and load.kind not in ("sparse", "work")
        return wanted and (is_main(load) or subject.name in PAIR)

    def hears_beats(self, load: Load) -> bool:
        """Is rh-pipe listened to on this load? Where a goal concerns its beat, and where it is at rest."""
        about = load.kind == "storm" or (load.kind == "idle" and load.size in (1000, 10_000))
        return self.beats_s > 0 and about and report.OURS in {subject.name for subject in self.subjects}

    def counts_first(self, load: Load) -> bool:
        """Are the first seconds of rh-pipe measured on this load?"""
        return self.beats_s > 0 and is_main(load) and report.OURS in {subject.name for subject in self.subjects}

    def window_s(self, subject: Subject) -> float:
        """Length of one turn's window."""
        return self.seconds * (1 if subject.name in PAIR else OTHERS_SHARE)

    def turn_s(self, subject: Subject, load: Load, hz: float) -> float:
        """About how long a turn takes."""
        window = measure.whole_periods(self.window_s(subject), subject.period_s(hz))
        return subject.warm_up_s(load.size) + AROUND_S + window

    def duration_s(self, hz: float) -> float:
        """About how long everything takes."""
        total = 0.0
        for load in self.loads:
            for subject in self.subjects:
                rounds = sum(self.takes_part(subject, load, number) for number in range(1, self.rounds + 1))
                total += rounds * self.turn_s(subject, load, hz)
                if self.counts_syscalls(subject, load):
                    total += subject.warm_up_s(load.size) + SYSCALLS_S + 2 * AROUND_S
            total += (self.beats_s + 5) * self.hears_beats(load) + self.rounds * load.size / 2000
            total += (FIRST_S + AROUND_S) * self.counts_first(load)
        return total


def is_main(load: Load) -> bool:
    """The load of most goals."""
    return load.kind == "idle" and load.size == 1000


def by_weight(found: Sequence[Load]) -> list[Load]:
    """What goals need comes first, and the largest numbers of processes last: should the time not suffice, it is
    they that are measured less often."""
    return sorted(found, key=lambda load: (not is_main(load), load.size > 1000, load.size if load.kind == "idle" else 0))


def in_turns(names: Sequence[Subject], number: int) -> Sequence[Subject]:
    """The order of a round: every other round runs backwards, so that no subject always follows the same neighbour."""
    return names if number % 2 else names[::-1]


@contextmanager
def cut_off(seconds: float) -> Iterator[None]:
    """Raise TimeUp inside of the block when it lasts longer: the last resort against what hangs."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds) if seconds != float("inf") else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(slots=True)
class Run:
    """A run under way. `left_out` lists what there was no time for."""

    plan: Plan
    context: Context
    say: Say
    results: list[report.Result] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def go(self) -> None:
        """Measure everything; what fails is noted in the results."""
        self.results = [report.Result(load, 0, {subject.name: [] for subject in self.plan.subjects})
                        for load in self.plan.loads]
        try:
            with cut_off(self.plan.until + GRACE_S - time.monotonic()):
                for number in range(1, self.plan.rounds + 1):
                    for result in self.results:
                        self._on_load(result, number)
        except TimeUp:
            self.say("the time is up and something hung: showing what there is")
            self.left_out.append("all behind a turn that hung")

    def _on_load(self, result: report.Result, number: int) -> None:
        load, plan = result.load, self.plan
        turns = [s for s in in_turns(plan.subjects, number) if plan.takes_part(s, load, number)
                 and s.name not in result.failed and "load" not in result.failed]
        if not turns:
            return
        try:
            with loads.running(self.context.tools.load, load):
                result.processes = result.processes or loads.count_processes()
                for subject in turns:
                    self._turn(result, subject, number)
                if number == 1:
                    self._once(result)
        except loads.LoadError as error:
            result.failed["load"] = str(error)
            self.say(f"{load.name}: {error}")

    def _has_time(self, seconds: float, what: str) -> bool:
        if time.monotonic() + seconds <= self.plan.until:
            return True
        self.left_out.append(what)
        return False

    def _turn(self, result: report.Result, subject: Subject, number: int) -> None:
        load, plan = result.load, self.plan
        where = f"{load.name}, round {number} of {plan.rounds}: {subject.name}"
        longer = (self.context.warm - 1) * subject.warm_up_s(load.size)
        if not self._has_time(plan.turn_s(subject, load, self.context.hz) + longer, where):
            return
        try:
            turn = measure.take_turn(subject, self.context, number, load.size, plan.window_s(subject))
        except SubjectError as error:
            result.failed[subject.name] = self._nameless(error)
            self.say(f"{where} failed: {error}")
            return
        result.turns[subject.name].append(turn)
        self.say(f"{where} {words.number(turn.cpu_ms_per_tick)} ms a tick")

    def _once(self, result: report.Result) -> None:
        load = result.load
        for subject in self.plan.subjects:
            if not self.plan.counts_syscalls(subject, load) or subject.name in result.failed:
                continue
            where = f"{load.name}: system calls of {subject.name}"
            if not self._has_time(subject.warm_up_s(load.size) + SYSCALLS_S + 2 * AROUND_S, where):
                continue
            try:
                counted = syscalls.count_syscalls(subject, self.context, load.size, SYSCALLS_S)
            except SubjectError as error:
                self.say(f"{where} failed: {error}")
                continue
            if counted:
                result.syscalls[subject.name] = counted
                self.say(f"{where} {words.number(counted.per_tick)} a tick")
        if self.plan.counts_first(load) and self._has_time(FIRST_S + AROUND_S, f"{load.name}: the first seconds"):
            try:
                result.first_cpu_s = round(first_cpu_s(self.context)[0], 3)
                self.say(f"{load.name}: {result.first_cpu_s:.2f} s of CPU in the first {FIRST_S:g} s")
            except SubjectError as error:
                self.say(f"{load.name}: the first seconds failed: {error}")
        if self.plan.hears_beats(load) and self._has_time(self.plan.beats_s + 10, f"{load.name}: the beat"):
            try:
                result.beats = beats.take_beats(self.context, load.size, self.plan.beats_s, ask=load.kind == "storm")
            except SubjectError as error:
                result.failed["beat"] = self._nameless(error)
                self.say(f"{load.name}: the beat failed: {error}")
                return
            self.say(f"{load.name}: {len(result.beats.late_ms)} beats, latest {max(result.beats.late_ms, default=0):.1f} "
                     f"ms late, the slowest tick {max(result.beats.took_ms, default=0):.1f} ms")

    def _nameless(self, error: SubjectError) -> str:
        """What failed, without anything that names this machine."""
        return str(error).replace(str(self.context.scratch), "SCRATCH").replace(str(REPO), "CHECKOUT")


def prepared(wanted: Sequence[Subject], say: Say) -> tuple[list[Subject], dict[str, str]]:
    """The subjects that can run here, ready to be started, and why the others cannot."""
    ready, missing = [], {}
    for subject in wanted:
        reason = subject.missing()
        if not reason:
            try:
                subjects.prepare(subject)
            except SubjectError as error:
                reason = str(error).replace(str(REPO), "CHECKOUT")
        if reason:
            missing[subject.name] = reason
            say(f"missing: {subject.name}: {reason}")
        else:
            ready.append(subject)
    return ready, missing
