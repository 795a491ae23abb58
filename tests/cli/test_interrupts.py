"""SIGINT and SIGTERM while a command ends processes: the wait ends, what was done is reported; while nothing is under way, the
command ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rogue_hunter.cli.reap import Interrupts
from rogue_hunter.stream.tick import Tick


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_processes_are_ended_ends_the_wait(number: int, code: int) -> None:
    stopped: list[int] = []
    before = signal.getsignal(number)
    interrupts = Interrupts()
    assert interrupts.code == 0
    with interrupts.handled(lambda: stopped.append(number)):
        signal.raise_signal(number)
        signal.raise_signal(number)     # once more is no reason to end in the middle
    assert (interrupts.code, stopped) == (code, [number, number]) and signal.getsignal(number) == before


def test_ctrl_c_while_input_is_waited_for_ends_the_command() -> None:
    def ticks() -> Iterator[Tick]:
        yield Tick()
        signal.raise_signal(signal.SIGINT)
        yield Tick()

    interrupts = Interrupts()
    seen = 0
    with interrupts.handled(lambda: None), pytest.raises(KeyboardInterrupt):
        for _ in interrupts.reading(ticks()):
            seen += 1
    assert (seen, interrupts.code) == (1, 0)


def test_ctrl_c_at_a_question_is_no_answer() -> None:
    def ask(_: object) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    interrupts = Interrupts()
    with interrupts.handled(lambda: None):
        with pytest.raises(KeyboardInterrupt):
            interrupts.asking(ask)([])
        signal.raise_signal(signal.SIGTERM)     # behind the question something is under way again
    assert interrupts.code == 143
    assert interrupts.asking(lambda _: True)([]) is True


def test_input_that_ends_ends() -> None:
    assert len(list(Interrupts().reading([Tick(), Tick()]))) == 2


def test_sigterm_while_nothing_is_under_way_is_what_it_usually_is() -> None:
    code = ("import signal\nfrom rogue_hunter.cli.reap import Interrupts\n"
            "def ticks():\n    signal.raise_signal(signal.SIGTERM)\n    yield\n"
            "i = Interrupts()\nwith i.handled(lambda: None):\n    list(i.reading(ticks()))\n")
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -signal.SIGTERM
