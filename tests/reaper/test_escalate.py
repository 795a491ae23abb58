"""SIGTERM, time to obey, SIGKILL, time to die: with handles of our own, in short times."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from rogue_hunter.reaper.process import Gone, Stop, Veto, Victim, escalate
from tests.reaper.fakes import FakeHandle, FakeMachine, FakeProcess


def free(_: int) -> None:
    """A guard without objections."""


def victims(count: int, on: dict[int, Callable[[FakeProcess], None]], **more: Any) -> tuple[FakeMachine, list[Victim]]:
    machine = FakeMachine(*(FakeProcess(2000 + i) for i in range(count)))
    for process in machine.processes.values():
        process.on = on
    return machine, [Victim(FakeHandle(p, machine.sent), free, **{"term_wait_s": 0.2, **more})
                     for p in machine.processes.values()]


DIE, STAY = FakeProcess.die, FakeProcess.ignore


@pytest.mark.parametrize(("on", "kill", "outcome", "signals"), [
    ({15: DIE}, True, "terminated", ["SIGTERM"]), ({18: DIE}, True, "terminated", ["SIGTERM", "SIGCONT"]),
    ({9: DIE}, True, "killed", ["SIGTERM", "SIGCONT", "SIGKILL"]),
    ({}, True, "survived", ["SIGTERM", "SIGCONT", "SIGKILL"]), ({}, False, "survived", ["SIGTERM", "SIGCONT"]),
])
def test_outcomes(on: dict[int, Any], kill: bool, outcome: str, signals: list[str]) -> None:
    machine, (victim,) = victims(1, on, kill=kill)
    escalate([victim], Stop(), kill_wait_s=0.1)
    assert (victim.outcome, victim.signals) == (outcome, signals)
    assert [signal.Signals(n).name for _, n in machine.sent] == signals


@pytest.mark.slow
def test_an_exit_in_the_wait_is_seen_at_once_and_the_others_continue() -> None:
    _, both = victims(2, {9: DIE}, term_wait_s=1.5)
    first = both[0].handle.process  # type: ignore[attr-defined]
    threading.Timer(0.1, first.die).start()
    escalate(both, Stop(), kill_wait_s=0.1)
    assert [v.outcome for v in both] == ["terminated", "killed"]
    assert both[0].wait_s < 1.0 < 1.5 <= both[1].wait_s


def test_waits_run_side_by_side() -> None:
    _, many = victims(40, {}, term_wait_s=0.3)
    begin = time.monotonic()
    escalate(many, Stop(), kill_wait_s=0.3)
    assert {v.outcome for v in many} == {"survived"} and time.monotonic() - begin < 40 * 0.6 / 4


def test_without_a_descriptor_the_handle_is_asked() -> None:
    machine, (victim,) = victims(1, {}, term_wait_s=5)
    victim.handle.fileno = lambda: -1  # type: ignore[method-assign]
    threading.Timer(0.1, machine.processes[2000].die).start()
    escalate([victim], Stop(), kill_wait_s=0.1)
    assert victim.outcome == "terminated" and victim.wait_s < 4


@pytest.mark.parametrize(("raised", "outcome"), [(Veto("spared", "x"), "spared"), (Gone(), "already_gone")])
def test_a_guard_that_objects_to_sigterm(raised: Exception, outcome: str) -> None:
    def guard(_: int) -> None:
        raise raised

    machine, (victim,) = victims(1, {})
    victim.guard = guard
    escalate([victim], Stop())
    assert victim.outcome == outcome and machine.sent == [] and victim.signals == [] and victim.wait_s == 0


@pytest.mark.parametrize(("raised", "outcome"), [(Veto("refused", "x"), "refused"), (Gone(), "terminated")])
def test_a_guard_that_objects_to_sigkill(raised: Exception, outcome: str) -> None:
    def guard(number: int) -> None:
        if number == signal.SIGKILL:
            raise raised

    machine, (victim,) = victims(1, {})
    victim.guard = guard
    escalate([victim], Stop())
    assert victim.outcome == outcome and [n for _, n in machine.sent] == [15, 18]


def test_a_kernel_that_forbids_it() -> None:
    def forbid(_: FakeProcess) -> None:
        raise PermissionError

    _, (victim,) = victims(1, {15: forbid})
    escalate([victim], Stop())
    assert (victim.outcome, victim.text) == ("refused", "the kernel does not permit it")


def test_a_stop_in_the_wait_ends_it_without_sigkill() -> None:
    machine, three = victims(3, {}, term_wait_s=30)
    stop = Stop()
    threading.Timer(0.1, machine.processes[2001].die).start()
    threading.Timer(0.3, stop.set).start()
    escalate(three, stop)
    assert [v.outcome for v in three] == ["interrupted", "terminated", "interrupted"]
    assert not any(n == signal.SIGKILL for _, n in machine.sent)
    stop.close()


def test_a_stop_before_sends_nothing() -> None:
    machine, (victim,) = victims(1, {})
    stop = Stop()
    stop.set()
    escalate([victim], stop)
    assert victim.outcome == "interrupted" and machine.sent == []


def test_ctrl_c_is_a_stop() -> None:
    def interrupt(_: FakeProcess) -> None:
        raise KeyboardInterrupt

    _, both = victims(2, {15: interrupt})
    stop = Stop()
    escalate(both, stop)
    assert [v.outcome for v in both] == ["interrupted"] * 2 and stop
