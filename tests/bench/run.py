"""The run itself: every subject in turn on every load, then the system calls in turns of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench import loads, measure, report, subjects
from tests.bench.loads import Load
from tests.bench.subjects import Context, Subject, SubjectError

SYSCALLS_UP_TO = 1000
"""strace makes a system call ten times slower: with more processes a tick no longer fits into its period."""

SYSCALLS_S = 4.0

WARMUP_S_PER_PROCESS = 0.0005
"""On top of the warm-up: beside its beat, rh-pipe first reads the command lines of all, two seconds for 5,000."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `seconds` and `warmup_s` are those of one turn."""

    loads: Sequence[Load]
    subjects: Sequence[Subject]
    rounds: int
    seconds: float
    warmup_s: float
    syscalls: bool

    def warmup_for(self, load: Load) -> float:
        """Seconds from a subject's start to the mark."""
        return self.warmup_s + load.size * WARMUP_S_PER_PROCESS

    def counts_syscalls(self, load: Load) -> bool:
        return self.syscalls and load.size <= SYSCALLS_UP_TO

    def duration_s(self) -> float:
        """Roughly how long it takes: turns, system calls, half a second to start and end each."""
        total = 0.0
        for load in self.loads:
            around = self.warmup_for(load) + 0.5
            total += self.rounds * (around + self.seconds) + self.counts_syscalls(load) * (around + SYSCALLS_S)
        return total * len(self.subjects)


def in_turns(names: Sequence[Subject], number: int) -> Sequence[Subject]:
    """The order of a round: every other round runs backwards, so that nobody always follows the same neighbour."""
    return names if number % 2 else names[::-1]


def run(plan: Plan, context: Context, say: Callable[[str], None]) -> list[report.Result]:
    """Measure everything; what fails is noted in the results, and `say` tells of the progress."""
    results = []
    for load in plan.loads:
        result = report.Result(load, 0, {subject.name: [] for subject in plan.subjects})
        results.append(result)
        try:
            with loads.running(context.tools.load, load):
                result.processes = loads.count_processes()
                _on_load(plan, context, result, say)
        except loads.LoadError as error:
            result.failed["load"] = str(error)
            say(f"{load.name}: {error}")
    return results


def _on_load(plan: Plan, context: Context, result: report.Result, say: Callable[[str], None]) -> None:
    warmup_s = plan.warmup_for(result.load)
    for number in range(1, plan.rounds + 1):
        for subject in in_turns(plan.subjects, number):
            if subject.name in result.failed:
                continue
            where = f"{result.load.name}, round {number} of {plan.rounds}: {subject.name}"
            try:
                turn = measure.take_turn(subject, context, number, warmup_s, plan.seconds)
            except SubjectError as error:
                result.failed[subject.name] = str(error)
                say(f"{where} failed: {error}")
                continue
            result.turns[subject.name].append(turn)
            say(f"{where} {report.number(turn.cpu_ms_per_tick)} ms a tick")
    if not plan.counts_syscalls(result.load):
        return
    for subject in plan.subjects:
        if subject.name in result.failed:
            continue
        try:
            counted = measure.count_syscalls(subject, context, warmup_s, SYSCALLS_S)
        except SubjectError as error:
            say(f"{result.load.name}: {subject.name} under strace failed: {error}")
            continue
        if counted:
            result.syscalls[subject.name] = counted
            say(f"{result.load.name}: {subject.name} {report.number(counted.per_tick)} system calls a tick")


def prepared(wanted: Sequence[Subject], say: Callable[[str], None]) -> tuple[list[Subject], dict[str, str]]:
    """The subjects that can run here, ready to be started, and why the others cannot."""
    ready, missing = [], {}
    for subject in wanted:
        reason = subject.missing()
        if not reason:
            try:
                subjects.prepare(subject)
            except SubjectError as error:
                reason = str(error)
        if reason:
            missing[subject.name] = reason
            say(f"missing: {subject.name}: {reason}")
        else:
            ready.append(subject)
    return ready, missing
