"""`rh-sample --self-check`: sound on a sound machine, and each lie of a machine is named."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rogue_hunter.host.macos.selfcheck import SelfCheck, self_check
from rogue_hunter.service.macos_check import findings
from rogue_hunter.service.manager import Done
from tests.capture.reports.test_kinds import MAC
from tests.macos.fake import Fake
from tests.tools.spindump import binary_report

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


def test_it_can_be_shared(tmp_path: Path) -> None:
    """No name of the user or the host, no path of theirs, no identifier; and the services and reports are covered."""
    place = tmp_path / "DiagnosticReports"
    place.mkdir()
    for i, file in enumerate(sorted(MAC.iterdir())):
        (place / f"{i}-{Path.home().name}-{file.name}").write_bytes(file.read_bytes())
    (place / "other.txt").write_text("hello\n")
    (place / "stall.shutdownStall").write_bytes(binary_report())

    def run(argv: Sequence[str]) -> Done:
        answers = {"info": "tailspin has been disabled (default behavior)\n", "log": (
            "2030-01-02 22:59:44 +0100 Sleep               \tEntering Sleep state due to 'x' 14 secs\n")}
        return Done(0, answers.get(argv[-1], "\truns = 2\n\tlast terminating signal = Killed: 9\n"), "")

    result = check().with_(findings(run, [place, tmp_path / "missing"], str(tmp_path / "none"), 501))
    text = "\n".join(result.lines())
    for private in (str(Path.home()), socket.gethostname(), str(tmp_path), "6F1C3A52"):
        assert private not in text
    assert "tailspin" in told(result, "warn") and "disabled, the default" in text
    assert "runs = 2; last terminating signal = Killed: 9" in text and "1 lines, 1 sleep" in text
    files = len(list(MAC.iterdir()))
    assert f"{files + 2} files; of {files + 2}: 2 crash, 1 jetsam" in text and "3 spindump, 3 task; 1 of a kind not" in text
    assert "1 incomplete or in binary form only" in text
    assert "no such directory" in text and result.lines()[-1] == "verdict: degraded"


def test_refusals_are_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that macOS protects, commands that are missing, a check that fails: each is a line."""
    monkeypatch.setattr(Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    found = {f.name: f for f in findings(lambda argv: Done(127, "", f"{argv[0]}: not found"), [tmp_path])}
    assert found["reports 1"].status == "warn" and "Full Disk Access" in found["reports 1"].detail
    assert found["tailspin"].detail == "not known: exit 127, /usr/bin/tailspin: not found"
    assert found["sleep log"].status == "warn" and found["agent"].detail == "not loaded (exit 127)"

    def broken(argv: Sequence[str]) -> Done:
        raise ValueError("boom")

    assert [f.status for f in findings(broken, [])] == ["fail", "fail", "fail"]
