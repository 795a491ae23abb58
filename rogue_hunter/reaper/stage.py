"""The reaper as a stage: `match` records in, `action` records out."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from rogue_hunter.reaper.candidate import check_match
from rogue_hunter.reaper.guards import GUARDS
from rogue_hunter.reaper.run import Setup, reap_batch
from rogue_hunter.stream.tick import Record, Tick, record

SETTLED = frozenset(GUARDS) | {"not_a_kill"}
"""Reasons to leave a process alone that do not pass with time."""

STAGE = "rh-reap"


class Inbox:
    """Which matches are still to be acted on. A process that was refused for good is not judged again each time that
    its match is repeated."""

    def __init__(self) -> None:
        self._settled: dict[tuple[str, int, int, str], None] = {}

    def take(self, tick: Tick) -> tuple[list[Record], list[Record]]:
        """The matches of a tick that are new, and an `error` record for each that is none."""
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
        """Remember what need not be asked again."""
        codes = action.get("refusals", ())
        if action["outcome"] == "dry_run" or (action["outcome"] == "refused" and codes and set(codes) <= SETTLED):
            self._settled[self._key(action)] = None
            if len(self._settled) > 10_000:
                del self._settled[next(iter(self._settled))]

    @staticmethod
    def _key(match: Record) -> tuple[str, int, int, str]:
        return match["boot_id"], match["pid"], match["start_ticks"], match["rule"]


def reap(ticks: Iterator[Tick], setup: Setup) -> Iterator[Tick]:
    """Act on the matches of each tick before the next is read. Ends when `setup.stop` is set."""
    inbox = Inbox()
    for tick in ticks:
        matches, errors = inbox.take(tick)
        actions = reap_batch(matches, setup)
        for action in actions:
            inbox.settle(action)
        tick.records += [*errors, *actions]
        yield tick
        if setup.stop:
            return


def reap_behind(ticks: Iterator[Tick], setup: Setup, *, wait_s: float = 10.0,
                current: Callable[[], Setup | None] | None = None) -> Iterator[Tick]:
    """The same off the beat: one worker thread waits for processes to die, and its records come with later ticks.

    Patterns that are not known for a program cannot be asked on a thread, so a process that became another program is
    spared; give `setup.patterns` the object that `match` uses. At the end the worker is stopped: who has had SIGTERM
    is `interrupted`. `wait_s` bounds that. `current`, asked from both threads, gives the setup in force, with the stop
    of `setup`; None while nothing may be ended: what waits then is dropped.
    """
    inbox = Inbox()
    todo: queue.SimpleQueue[list[Record] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Record] = queue.SimpleQueue()
    now = current or (lambda: setup)

    def work() -> None:
        while (matches := todo.get()) is not None:
            in_force = now()
            for action in reap_batch(matches, in_force) if in_force is not None else ():
                done.put(action)

    worker: threading.Thread | None = None
    try:
        for tick in ticks:
            matches, errors = inbox.take(tick) if now() is not None else ([], [])
            if matches:
                if worker is None:
                    fresh = threading.Thread(target=work, name="reap", daemon=True)
                    try:
                        fresh.start()
                        worker = fresh
                    except RuntimeError as error:
                        # What waits is stale after a minute, and then refused as such.
                        errors = [*errors, record("error", stage="rh-reap", message=f"matches wait: {error}")]
                todo.put(matches)
            tick.records += [*errors, *_finished(done, inbox)]
            yield tick
    finally:
        setup.stop.set()
        if worker is not None:
            todo.put(None)
            worker.join(wait_s)
    last = list(_finished(done, inbox))
    if last:
        yield Tick(records=last)


def _finished(done: queue.SimpleQueue[Record], inbox: Inbox) -> Iterator[Record]:
    while not done.empty():
        action = done.get()
        inbox.settle(action)
        yield action
