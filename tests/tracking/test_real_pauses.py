"""Pauses that this machine really makes: rh-pipe is stopped, and starved of a CPU. Only root may do that to it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import pytest

from rogue_hunter.cli.report import command
from rogue_hunter.store.database import open_reader
from tests.tools.processes import wait_for

Spawn = Callable[..., "subprocess.Popen[bytes]"]

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scheduling classes and /proc are Linux's"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may take the CPU from rh-pipe and give it back"),
    pytest.mark.slow,
]

BURN = "import signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: time.sleep(30))\nwhile True: pass"
"""A loop that sleeps once it gets SIGUSR1."""


@pytest.fixture
def watched(spawn: Spawn, clean_env: Mapping[str, str], tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The pid of an rh-pipe that writes, and its database."""
    db = tmp_path / "x.db"
    pipe = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--no-socket", "--db", str(db)],
                 env=dict(clean_env), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: ask(db, "SELECT 1 FROM daemon_state WHERE key = 'last_tick'"), 30)
    yield pipe.pid, db
    with suppress(OSError):
        os.kill(pipe.pid, signal.SIGCONT)


def ask(db: Path, sql: str) -> list[dict[str, Any]]:
    """The rows of a query; none while there is no database yet."""
    try:
        with closing(open_reader(db)) as reader:
            return [dict(row) for row in reader.execute(sql)]
    except (Exception, sqlite3.Error):
        return []


def culprits(db: Path, pause: int) -> list[dict[str, Any]]:
    """Who is named for a pause, first to last."""
    return ask(db, f"SELECT * FROM pause_culprits WHERE pause_id = {pause} ORDER BY rank")


def test_stopped_and_continued(
    watched: tuple[int, Path], in_process: Callable[[click.Command], Callable[..., subprocess.CompletedProcess[bytes]]]
) -> None:
    """SIGSTOP and SIGCONT of rh-pipe: one pause, cause stopped, no culprit; `why` names no process."""
    pid, db = watched
    time.sleep(1)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(pid, signal.SIGCONT)
    with suppress(AssertionError):
        wait_for(lambda: ask(db, "SELECT 1 FROM pauses WHERE cause = 'stopped'"), 20)
    assert ask(db, "SELECT 1 FROM pauses WHERE cause = 'stopped'"), ask(db, "SELECT * FROM pauses")
    # A loaded machine may add a pause of its own; of being stopped there is one.
    (pause,) = ask(db, "SELECT * FROM pauses WHERE cause = 'stopped'")
    assert 1.5 < pause["duration_s"] < 6
    assert culprits(db, pause["id"]) == []
    assert json.loads(pause["evidence"])["continued"] >= 1
    said = json.loads(in_process(command)("why", "--at", f"@{pause['start_time']:.3f}", "--json", "--db", db).stdout)
    (stopped,) = [one for one in said["causes"] if one["cause"] == "stopped"]
    assert "no process is to blame" in stopped["words"] and "command" not in stopped


@contextmanager
def first_in_line() -> Iterator[None]:
    """This process keeps running: it must end in time what it began. Its children do not."""
    with suppress(PermissionError):  # a control group may have no share of real time
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def favour(pid: int, nice: int) -> None:
    """Set the nice value of a process, and of its session where sessions are scheduled as groups."""
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def schedule(pid: int, policy: int) -> None:
    """Put every thread of a process into a scheduling class."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(task.name), policy, os.sched_param(0))


def starve(pid: int, db: Path, spawn: Spawn) -> tuple[set[int], list[dict[str, Any]]]:
    """Take the CPUs from `pid` for two seconds by loops that come first; gives their pids and the pauses since.

    The loops sleep until rh-pipe has seen them after the gap: of a process that ends within a gap nothing is known but that
    its parent had a child.
    """
    before = max((p["id"] for p in ask(db, "SELECT id FROM pauses")), default=0)
    loops = [spawn([sys.executable, "-I", "-S", "-c", BURN], stdin=subprocess.DEVNULL, start_new_session=True)
             for _ in range(2 * (os.cpu_count() or 1))]
    schedule(pid, os.SCHED_IDLE)
    favour(pid, 19)
    try:
        for child in loops:
            favour(child.pid, -20)
        time.sleep(2)
    finally:
        schedule(pid, os.SCHED_OTHER)
        favour(pid, 0)
        for child in loops:
            child.send_signal(signal.SIGUSR1)
    time.sleep(1)
    with suppress(AssertionError):
        wait_for(lambda: ask(db, f"SELECT 1 FROM pauses WHERE id > {before}"), 5)
    for child in loops:
        child.kill()
        child.wait(10)
    return {child.pid for child in loops}, ask(db, f"SELECT * FROM pauses WHERE id > {before}")


@pytest.mark.serial  # it takes every CPU from everybody
def test_starved_of_the_cpu(watched: tuple[int, Path], spawn: Spawn) -> None:
    """Loops take every CPU from rh-pipe: a pause, cause cpu, the loops ahead of everybody else, and all explained.

    On a loaded machine another process may rank above each single loop, not before all together, and a short pause comes
    before the long one.
    Where the hypervisor takes the CPUs itself in that time, the pause is called steal, which is true; that is tried again.
    """
    pid, db = watched
    seen = []
    for _ in range(3):
        with first_in_line():
            loops, found = starve(pid, db, spawn)
        seen += [(p, culprits(db, p["id"])) for p in found]
        for pause in found:
            named = culprits(db, pause["id"])
            ours = sum(c["share"] for c in named if c["pid"] in loops)
            others = max((c["share"] for c in named if c["pid"] not in loops), default=0)
            if pause["cause"] == "cpu" and ours > others and pause["duration_s"] >= 0.8:
                assert pause["unexplained_share"] < 0.2
                assert [c["share"] for c in named] == sorted((c["share"] for c in named), reverse=True)
                return
        time.sleep(1)
    state = ask(db, "SELECT * FROM daemon_state")
    raise AssertionError(f"no pause for want of cpu with the loops ahead: {seen}; {state}")
