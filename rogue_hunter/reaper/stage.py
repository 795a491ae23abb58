"""The reaper as a stage: `match` records in, `action` records out."""

from __future__ import annotations

from collections.abc import Callable

from rogue_hunter.reaper.candidate import check_match
from rogue_hunter.reaper.guards import GUARDS
from rogue_hunter.reaper.run import Setup, reap_batch
from rogue_hunter.sampling.units import KTHREADD
from rogue_hunter.stream.tick import Record, Tick, record
from rogue_hunter.worker import Worker

SETTLED = (frozenset(GUARDS) - {"unreadable"}) | {"not_a_kill"}
"""Reasons of refusals that do not pass with time."""

STAGE = "rh-reap"


class Inbox:
    """Which matches are still to be acted on. A process that was refused for good is not judged again each time that
    its match is repeated."""

    def __init__(self) -> None:
        self._settled: dict[tuple[str, int, int, str], None] = {}

    def take(self, tick: Tick) -> tuple[list[Record], list[Record]]:
        """The new matches of a tick, and an `error` record for each malformed one."""
        new: list[Record] = []
        errors: list[Record] = []
        for match in tick.records:
            if match.get("type") != "match":
                continue
            try:
                check_match(match)
            except ValueError as error:
                errors.append(record("error", stage=STAGE, message=str(error)))
            else:
                if self._key(match) not in self._settled:
                    new.append(match)
        return new, errors

    def settle(self, action: Record) -> None:
        """Remember what need not be judged again."""
        codes = action.get("refusals", ())
        if action["outcome"] == "dry_run" or (action["outcome"] == "refused" and codes and set(codes) <= SETTLED):
            self._settled[self._key(action)] = None
            if len(self._settled) > 10_000:
                del self._settled[next(iter(self._settled))]

    @staticmethod
    def _key(match: Record) -> tuple[str, int, int, str]:
        return match["boot_id"], match["pid"], match["start_ticks"], match["rule"]


class Reap:
    """The stage: acts on the matches of each tick before it passes the tick on."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._inbox = Inbox()

    def __call__(self, tick: Tick) -> Tick:
        """The tick with an `action` record for each match."""
        matches, errors = self._inbox.take(tick)
        actions = reap_batch(matches, self._setup)
        for action in actions:
            self._inbox.settle(action)
        tick.records += [*errors, *actions]
        return tick


class BackgroundReap:
    """The same off the beat: a worker thread waits for processes to die, and its records come with later ticks.

    Patterns cannot be searched on a thread, only known results are used there: a process that became another program
    is refused; give `setup.patterns` the object that the matcher uses. At the end the worker is stopped: a process that
    has had SIGTERM is `interrupted`. `wait_s` bounds that. `current`, called from both threads, returns the setup in
    force, with the stop of `setup`; None while nothing may be ended: what waits then is dropped.
    """

    def __init__(self, setup: Setup, *, wait_s: float = 10.0, current: Callable[[], Setup | None] | None = None,
                 ) -> None:
        self._stop, self._wait_s = setup.stop, wait_s
        self._current = current or (lambda: setup)
        self._inbox = Inbox()
        self._worker: Worker[list[Record], Record | None] = Worker("reap", self._work)

    def _work(self, matches: list[Record]) -> None:
        setup = self._current()
        if setup is not None:
            for action in reap_batch(matches, setup):
                self._worker.post(action)

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the actions that were done since the last one."""
        matches, errors = self._inbox.take(tick) if self._current() is not None else ([], [])
        if matches and not self._worker.submit(matches):
            errors = [*errors, record("error", stage=STAGE, message="too many matches wait")]
        tick.records += [*errors, *self._finished()]
        return tick

    def close(self) -> list[Record]:
        """Stop the worker; the actions that it has done."""
        self._stop.set()
        self._worker.close(self._wait_s)
        return self._finished()

    def _finished(self) -> list[Record]:
        # A match that waits for a thread is stale after a minute, and is then refused as such.
        found = [action for action in self._worker.collect() if action is not None]
        for action in found:
            self._inbox.settle(action)
        return found + [record("error", stage=STAGE, message=f"{type(error).__name__}: {error}")
                        for _, error in self._worker.failures()]


def prove(suspect: int, victim: int, setup: Setup) -> Record:
    """The `proof` of an experiment with two processes. Few machines allow any."""
    from rogue_hunter.reaper import experiment

    return experiment.prove(suspect, victim, setup)


class BackgroundProve:
    """The stage of rh-pipe that proves by experiment who makes others wait: at a pause for want of a CPU, the first
    culprit is the suspect, and the process that waited most for a CPU the victim. One experiment at a time, in a
    thread; its `proof` record comes with a later tick. `current` returns the setup, None while this is not wanted."""

    def __init__(self, current: Callable[[], Setup | None],
                 experiment: Callable[[int, int, Setup], Record] = prove) -> None:
        self._current, self._experiment = current, experiment
        self._worker: Worker[tuple[int, int], Record | None] = Worker("prove", self._work, limit=1)

    def _work(self, pids: tuple[int, int]) -> Record | None:
        setup = self._current()
        return self._experiment(*pids, setup) if setup is not None else None

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the proofs that are done."""
        pids = _suspicion(tick) if self._current() is not None else None
        if pids is not None and not self._worker.pending:
            self._worker.submit(pids)
        return self._told(tick)

    def close(self) -> list[Record]:
        """Wait for the end of an experiment: it ends after the trial that it is in, when the setup's stop is set."""
        self._worker.close(1.0)
        return self._told(Tick()).records

    def _told(self, tick: Tick) -> Tick:
        tick.records += [proof for proof in self._worker.collect() if proof is not None]
        tick.records += [record("error", stage=STAGE, message=f"proof: {type(error).__name__}: {error}")
                         for _, error in self._worker.failures()]
        return tick


def _suspicion(tick: Tick) -> tuple[int, int] | None:
    """Suspect and victim of a pause that ended with this tick; None without both."""
    for each in tick.records:
        if each["type"] == "pause" and each.get("cause") == "cpu" and each.get("culprits"):
            suspect = each["culprits"][0]
            key = suspect["pid"], suspect["start_ticks"]
            waiting = [(row.get("run_delay_ms_per_s", 0.0), other) for other, row in tick.processes.items()
                       if other != key and not row.get("own") and row.get("ppid") != KTHREADD]
            if key in tick.processes and waiting and max(waiting)[0] > 0:
                return key[0], max(waiting)[1][0]
    return None
