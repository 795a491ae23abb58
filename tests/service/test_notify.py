"""The notifications that rh-pipe sends to systemd."""

from __future__ import annotations

import os
import re
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from rogue_hunter.daemon.loop import Loop
from rogue_hunter.daemon.sd_notify import Notifier, Notify, status
from rogue_hunter.daemon.services import announce
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.tick import Tick


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_notified(tmp_path: Path, abstract: bool) -> None:
    """READY with the first tick, the watchdog with every one, the status now and then; no name can add a line."""
    if abstract and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    name = f"@rh-test-{os.getpid()}" if abstract else str(tmp_path / "n")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind("\0" + name[1:] if abstract else name)
    manager.settimeout(5)
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.wanted and notifier.watchdog_s == 10.0
    now = [0.0]
    tick = Tick({"ts": 9.0, "max_score": 70, "processes": 3})
    stage = Notify(notifier, lambda: now[0], lambda at: f"cpu: a\nREADY=0\x1b[2J (pid {at:.0f})")
    for each in (tick, tick, Tick(records=[]), tick):
        assert stage(each) is each
        now[0] += 2.6
    got = [manager.recv(4096).decode() for _ in range(3)]
    assert got == ["READY=1\nWATCHDOG=1\nSTATUS=score 70, 3 processes; cpu: a\\nREADY=0\\x1b[2J (pid 9)", "WATCHDOG=1",
                   "WATCHDOG=1\nSTATUS=score 70, 3 processes; cpu: a\\nREADY=0\\x1b[2J (pid 9)"]
    notifier.reloading()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(4096).decode())
    manager.close()
    assert notifier.tell(READY=1) is False
    notifier.close()
    assert notifier.tell(READY=1) is False


@pytest.mark.parametrize("environment", [
    {}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "-1"},
    {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "²"}])
def test_without_a_notify_socket(environment: dict[str, str]) -> None:
    """Nothing is sent, and no watchdog is fed."""
    notifier = Notifier(environment)
    assert (notifier.wanted, notifier.watchdog_s, notifier.tell(READY=1)) == (False, None, False)
    assert status(Tick({})) == "score 0, 0 processes"


@pytest.mark.parametrize(("hz", "more"), [(3.0, ""), (0.01, "EXTEND_TIMEOUT_USEC=230000000\n")])
def test_ready_is_left_to_the_first_tick(tmp_path: Path, hz: float, more: str) -> None:
    """At a slow rate systemd is asked for more time, and READY is not sent before events of the last run are taken up."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "n"))
    manager.settimeout(5)
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")})
    with Loop() as loop, ExitStack() as stack:
        announce(loop, notifier, Rate(hz), stack)
        loop.sleep(0.1)
        assert manager.recv(4096).decode() == f"{more}STATUS=waiting for the first tick"
    assert manager.recv(4096).decode() == "STOPPING=1\nSTATUS=stopped"
    notifier.close()
    manager.close()
