"""A recording of live processes, replayed: what only threads and descriptors show is in it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rogue_hunter.host.linux.host import LinuxHost
from rogue_hunter.host.linux.recording import Replay, recorded
from rogue_hunter.stream.clock import Beat
from rogue_hunter.stream.tick import Row
from tests.tools.processes import REPO, by_pid, python, state_of, wait_for

Spawn = Callable[..., "subprocess.Popen[bytes]"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HEADLESS = """
import ctypes, threading
def burn():
    while True: pass
threading.Thread(target=burn).start()
libc = ctypes.CDLL(None)
libc.syscall(93 if __import__('os').uname().machine == 'aarch64' else 60, 0)
"""
"""The leader ends by exit(2), the other thread burns."""


def beats(count: int) -> Iterator[Beat]:
    before = time.monotonic_ns()
    for seq in range(count):
        now = time.monotonic_ns()
        yield Beat(seq, now, time.time(), (now - before) / 1e9, 0.0, 0.0)
        before = now
        time.sleep(0.3)


def proc_of(place: Path, *pids: int) -> Path:
    """A directory that has of /proc these processes and what is of the machine."""
    place.mkdir()
    for name in ("loadavg", "meminfo", "pressure", "stat", "sys", "uptime", *map(str, pids)):
        (place / name).symlink_to(f"/proc/{name}")
    return place


@pytest.mark.slow
def test_what_was_read_live_is_read_again(spawn: Spawn, tmp_path: Path) -> None:
    """A process whose leader has ended, one with busy threads, one of rogue-hunter's own: program, arguments, state,
    memory, switches and mark are those that the live host saw."""
    headless = spawn(python(HEADLESS, "--port", "8080")).pid
    threads = spawn(python("""
import threading, time
def wake():
    while True: time.sleep(0.0005)
for _ in range(3): threading.Thread(target=wake).start()""")).pid
    own = spawn([sys.executable, "-P", "-m", "rogue_hunter", "score"], stdin=subprocess.PIPE, cwd=REPO).pid
    wait_for(lambda: state_of(headless) == "Z")
    wait_for(lambda: Path(f"/proc/{own}/comm").read_text() == "rh-score\n", 30)
    target = tmp_path / "recording"
    host = LinuxHost()
    live: dict[int, Row] = {}
    for _ in recorded(beats(8), proc_of(tmp_path / "proc", headless, threads, own), target):
        live = by_pid(host.snapshot())
    host.close()
    again: dict[int, Row] = {}
    replay = Replay(target)
    for _ in replay.beats():
        again = by_pid(replay.snapshot())
        replay._describer.wait(10)
    replay.close()
    for pid, names in ((headless, ("command", "state", "state_raw", "exe", "cmdline", "threads")),
                       (threads, ("exe", "cmdline", "threads")), (own, ("exe", "cmdline", "own"))):
        for name in names:
            assert name in live[pid] and again[pid].get(name) == live[pid][name], (pid, name)
    assert again[headless]["memory_bytes"] > 1 << 20 and "8080" in again[headless]["cmdline"]
    assert again[threads]["wakeups_per_s"] > 500
