"""rh-report status asks a running rh-pipe: what it wrote last may be old, and it cannot write that it cannot write."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.daemon.socket.address import SocketError
from rogue_hunter.daemon.socket.client import greeting
from rogue_hunter.host.platform import suspended

pytestmark = pytest.mark.waits

Spawn = Callable[..., "subprocess.Popen[bytes]"]
Status = Callable[[], tuple[int, dict[str, Any]]]


@pytest.fixture
def watched(spawn: Spawn, clean_env: Mapping[str, str], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """An rh-pipe whose state is written every 5 s, and its socket, whose name is not UTF-8 where that can be."""
    config, socket = tmp_path / "c.toml", tmp_path / "run" / (os.fsdecode(b"\xff") if sys.platform == "linux" else "s")
    config.write_text("[store]\nstate_every_s = 5.0\n")
    run = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "-q", "--db", str(tmp_path / "x.db"), "-c",
                 str(config), "--socket", str(socket)], env=dict(clean_env), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told(socket, lambda state: "ts" in state)
    yield run, socket
    run.send_signal(signal.SIGCONT)


def told(socket: Path, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What rh-pipe reports about itself, once it is as wanted."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = greeting(socket, 5.0)
        except SocketError:
            state = {}
        if state and wanted(state):
            return state
        time.sleep(0.05)
    raise AssertionError("rh-pipe does not tell it")


@pytest.fixture
def status(clean_env: Mapping[str, str], tmp_path: Path) -> Status:
    """Exit code and record of `rh-report status --exit-code`, which finds the socket in the database."""
    def ask() -> tuple[int, dict[str, Any]]:
        done = subprocess.run([sys.executable, "-P", "-m", "rogue_hunter", "report", "status", "--exit-code", "--json",
                               "--db", str(tmp_path / "x.db")], env=dict(clean_env),
                              capture_output=True, check=False, timeout=60)
        return done.returncode, json.loads(done.stdout)

    return ask


def test_last_tick_is_that_of_the_beat(watched: tuple[subprocess.Popen[bytes], Path], status: Status) -> None:
    """Not the one that was written up to 10 s ago, which looked like a stall."""
    time.sleep(2.5)
    code, found = status()
    assert (code, found["watch"], found["answers"]) == (0, "running", True)
    assert found["last_tick_age_s"] < 2


def test_a_failed_write_is_reported_at_once(watched: tuple[subprocess.Popen[bytes], Path], status: Status,
                                                tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        told(watched[1], lambda state: "degraded" in state)
        code, found = status()
    finally:
        other.close()
    assert (code, found["watch"]) == (1, "running")
    assert "locked" in found["degraded"]


def test_a_stopped_pipe_is_reported_at_once(watched: tuple[subprocess.Popen[bytes], Path], status: Status) -> None:
    run, _ = watched
    run.send_signal(signal.SIGSTOP)
    code, found = status()
    run.send_signal(signal.SIGCONT)
    assert (code, found["watch"], found["answers"]) == (1, "stale", False)
    if sys.platform == "linux":
        assert found["degraded"] == (
            f"rh-pipe does not run: it is stopped by a signal (kill -CONT {run.pid} continues it)")


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize("version", [1, 2])
def test_frozen_control_group_is_named(tmp_path: Path, version: int) -> None:
    group = tmp_path / "tree" / "a" / "b"
    group.mkdir(parents=True)
    proc = tmp_path / "proc"
    for name in ("self", "7"):
        (proc / name).mkdir(parents=True)
    (proc / "7" / "stat").write_bytes(Path("/proc/self/stat").read_bytes())
    kind, options, lines = ("cgroup2", "rw", "0::/a/b\n") if version == 2 else (
        "cgroup", "rw,freezer", "3:freezer:/a/b\n")
    (proc / "self" / "mountinfo").write_text(f"1 2 0:3 / {tmp_path / 'tree'} rw - {kind} {kind} {options}\n")
    (proc / "7" / "cgroup").write_text(lines)
    assert suspended(7, proc) is None
    if version == 2:
        (group.parent / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    else:
        (group.parent / "freezer.state").write_text("FROZEN\n")
    assert suspended(7, proc) == "its control group /a is frozen"
    assert suspended(8, proc) is None
