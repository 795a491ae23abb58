"""Experiments inside of the arena: planted pairs, noise, and a prover that is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rogue_hunter.reaper.experiment import Experiment, KeeperProcess, prove
from rogue_hunter.reaper.process import Gone, Handle, Pidfd
from tests.reaper.arena import Arena
from tests.reaper.scenarios import setup


def _burn(cpus: set[int]) -> Any:
    def work() -> None:
        os.sched_setaffinity(0, cpus)
        while True:
            pass
    return work


def _noise(cpus: set[int], seed: int) -> Any:
    """Computes and sleeps for random times of the length of a trial."""
    def work() -> None:
        os.sched_setaffinity(0, cpus)
        rng = random.Random(seed)
        while True:
            end = time.monotonic() + rng.uniform(0.05, 0.6)
            while time.monotonic() < end:
                pass
            time.sleep(rng.uniform(0.05, 0.6))
    return work


def keeper(handle: Handle, limit_s: float) -> KeeperProcess:
    """By an interpreter that an ordinary user can read, which that of the tests may not be."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            subprocess.run([python, "-c", "pass"], check=True)
            return KeeperProcess(handle, limit_s, python)
    raise RuntimeError("NOT TESTED: no interpreter that an ordinary user can read")


def _first(arena: Arena, *pids: int) -> None:
    """They get more of their CPU than what else runs on this machine; only root can see to that."""
    for pid in pids if arena.root else ():
        os.setpriority(os.PRIO_PROCESS, pid, -15)
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text("-15")


def _proof(arena: Arena, suspect: int, victim: int, **how: Any) -> Any:
    proof = arena.as_user(lambda: prove(suspect, victim, setup(arena), Experiment(keeper=keeper, **how)))
    return {**proof, "suspect_stopped": state(suspect) == "T"}


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ended(pid: int) -> bool:
    """Is this process gone, or a zombie?"""
    try:
        return state(pid) in ("Z", "X")
    except FileNotFoundError:
        return True


def pairs(arena: Arena, count: int = 1, kind: str = "guilty") -> Any:
    """guilty: suspect and victim share a CPU. innocent: the suspect has another CPU, and something else has the
    victim's. noise: as innocent, and both CPUs have processes that come and go."""
    cpus = sorted(os.sched_getaffinity(0))
    found = []
    for number in range(count):
        victim = arena.fork(_burn({cpus[0]}), "sufferer")
        suspect = arena.fork(_burn({cpus[0 if kind == "guilty" else -1]}), "victim")
        others = [arena.fork(_burn({cpus[0]}), "other")] if kind == "innocent" else []
        if kind == "noise":
            others = [arena.fork(_noise({cpus[0]}, number * 10 + i), "noise") for i in range(2)]
        # Not a suspect with a CPU of its own: the prover, and all else on this machine, would have no CPU left.
        _first(arena, victim, *others, *([suspect] if kind == "guilty" else []))
        found.append(_proof(arena, suspect, victim, trials=10 if count > 1 else 8, stop_s=0.2 if count > 1 else 0.1))
        for pid in (victim, suspect, *others):
            arena.end(pid)
    return found


def refused(arena: Arena) -> Any:
    """Who may not be stopped: another user's process, one that is stopped already, the victim itself, more than five
    an hour; and a victim that does not wait."""
    victim, suspect = arena.victim("obey", name="sufferer"), arena.victim("obey")
    stopped = arena.victim("stopped")
    found = {"idle": _proof(arena, suspect, victim), "self": _proof(arena, suspect, suspect),
             "stopped": _proof(arena, stopped, victim), "gone": arena.as_user(
                 lambda: prove(suspect, 1 << 21, setup(arena), Experiment())),
             "dry": arena.as_user(lambda: prove(suspect, victim, setup(arena, dry_run=True), Experiment())),
             "declined": arena.as_user(lambda: prove(suspect, victim, setup(arena, confirm=lambda _: False)))}
    if arena.root:
        root = os.fork()
        if root == 0:
            signal.pause()
            os._exit(0)
        arena.children.add(root)
        found["root"] = arena.as_user(lambda: prove(root, victim, setup(arena)))
    found["audit"] = arena.as_user(lambda: [e["kind"] for e in setup(arena).audit.recent(100)])
    return found


def killed(arena: Arena, times: int = 20) -> Any:
    """The prover is killed at a random moment of its stops; afterwards the suspect runs. And the keeper is."""
    suspect = arena.victim("loop")
    rng = random.Random(7)
    stopped_then = left = 0
    for number in range(times):
        ready, tell = os.pipe()

        def prover(tell: int = tell) -> None:
            handle = Pidfd(suspect)
            kept = keeper(handle, 0.35)
            kept.stop()
            kept.go()
            os.write(tell, kept.pid.to_bytes(4, "little"))
            with contextlib.suppress(Gone):
                while True:
                    kept.stop()
                    time.sleep(0.01)
                    kept.go()
                    time.sleep(0.002)
            kept.close()  # the keeper was killed
            os.write(tell, b"done")
            time.sleep(60)

        pid = arena.fork(prover, "prover")
        os.close(tell)
        keeper_pid = int.from_bytes(os.read(ready, 4), "little")
        time.sleep(rng.uniform(0, 0.03))
        if number % 5 == 4:
            os.kill(keeper_pid, signal.SIGKILL)
            assert os.read(ready, 4) == b"done"
        else:
            os.kill(pid, signal.SIGKILL)
        stopped_then += state(suspect) == "T"
        # Until the keeper has ended: it still does what it was asked for before, one stop after the other.
        deadline = time.monotonic() + 20
        while (state(suspect) == "T" or not ended(keeper_pid)) and time.monotonic() < deadline:
            time.sleep(0.005)
        left += state(suspect) == "T"
        os.close(ready)
        arena.end(pid)
    return {"stopped_then": stopped_then, "left": left, "alive": arena.alive(suspect)}
