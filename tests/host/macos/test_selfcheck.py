"""`rh-sample --self-check`: sound on a sound machine, and each lie of a machine is named."""

from __future__ import annotations

import os
import time

import pytest

from rogue_hunter.host.macos.selfcheck import SelfCheck, self_check
from tests.macos.fake import Fake

ME = (f"process me pid=self ppid={os.getppid()} uid=self cpu=real running=1 footprint=30000000 path=/usr/bin/python3 "
      "tstates=RW instructions=5 cycles=6 energy=1e9 {} args=python3|x\n")
MACHINE = "machine clock=real busy=+2/s free=200000 external=100000 {}\nprocess launchd pid=1 uid=0 denied=1\n"


def burn() -> None:
    """A sixth of the CPU time that the check takes on a Mac: the fake's count has no ticks to wait for."""
    end = time.process_time() + 0.05
    while time.process_time() < end:
        sum(range(1000))


def check(machine: str = "", me: str = "") -> SelfCheck:
    """The check on a machine that has these words more. The fake's CPU time is this program's own."""
    return self_check(Fake(MACHINE.format(machine) + ME.format(me)).library, burn=burn)


def told(result: SelfCheck, status: str) -> list[str]:
    """Names of the findings of one status."""
    return [finding.name for finding in result.findings if finding.status == status]


def test_sound() -> None:
    """On a machine that keeps its word everything is ok."""
    result = check()
    assert result.verdict == "sound" and told(result, "fail") == told(result, "warn") == []
    assert {"tick unit", "clocks", "every process", "kern.proc.pid"} <= set(told(result, "ok"))
    assert result.lines()[-1] == "verdict: sound"


@pytest.mark.parametrize(("machine", "me", "status", "name"), [
    ("counters=1000000000", "", "fail", "tick unit"),
    ("tbfrequency=0 timebase=1/1 counters=24000000", "", "fail", "tick unit"),
    ("", "ppid=4242", "fail", "taskallinfo"),
    ("", "start=-999999", "fail", "start time"),
    ("", "footprint=10", "fail", "own footprint"),
    ("flavors=3", "", "warn", "rusage flavor"),
    ("", "energy=0", "warn", "counters kept"),
    ("uniqids=0", "", "warn", "unique id"),
    ("", "tstates=WW", "warn", "threads"),
    ("", "path=", "warn", "path"),
])
def test_lies_are_named(machine: str, me: str, status: str, name: str) -> None:
    """Each thing that would make the numbers wrong fails by its name; each that makes one missing is warned of."""
    result = check(machine, me)
    assert name in told(result, status), result.lines()
    assert result.verdict == {"fail": "broken", "warn": "degraded"}[status], result.lines()


def test_not_even_listed() -> None:
    """When nothing of ourselves can be read, every check reports it and none is left out."""
    result = self_check(Fake(MACHINE.format("")).library)
    assert result.verdict == "broken" and {"listing", "counters", "unit"} <= set(told(result, "fail"))


def test_no_library() -> None:
    """A library that does not load is the one finding."""
    result = self_check("/no/such.dylib")
    assert result.verdict == "broken" and len(result.findings) == 1
