"""The waiting of the beat: descriptors, timers, signals and pieces of work, and never later than due for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from rogue_hunter.daemon.loop import READ, SWITCH_S, Loop


class Clock:
    """A clock that moves on request, and by `step` with each reading."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_what_is_ready_is_looked_after() -> None:
    """While waiting; what is no longer watched is not."""
    with Loop() as loop:
        ours, theirs = socket.socketpair()
        got: list[bytes] = []
        loop.watch(ours, READ, lambda _: got.append(ours.recv(10)))
        theirs.send(b"a")
        assert loop.sleep(0.0) and got == [b"a"]
        loop.watch(ours, 0, lambda _: None)
        loop.watch(ours, 0, lambda _: None)
        theirs.send(b"b")
        assert loop.sleep(0.0) and got == [b"a"]
        loop.watch(ours, READ, lambda _: got.append(b"first"))
        loop.watch(ours, READ, lambda _: got.append(ours.recv(10)))
        loop.sleep(0.0)
        assert got == [b"a", b"b"]
        ours.close()
        theirs.close()


def test_a_flood_does_not_make_the_beat_wait() -> None:
    """Thirty descriptors that are always ready, each of which takes a while: the wait ends when it is over."""
    clock = Clock()
    loop = Loop(clock=clock)
    pairs = [socket.socketpair() for _ in range(30)]
    calls = 0

    def slow(_events: int) -> None:
        nonlocal calls
        calls += 1
        clock.now += 0.04

    for ours, theirs in pairs:
        theirs.send(b"x")
        loop.watch(ours, READ, slow)
    for _ in range(20):
        before, calls = clock.now, 0
        assert loop.sleep(0.1)
        assert calls == 3 and 0.1 <= clock.now - before < 0.15
    loop.close()
    for pair in pairs:
        for each in pair:
            each.close()


def test_timers() -> None:
    """At their period, not more often when the loop was away; one may be hurried, from another thread too."""
    clock = Clock()
    loop = Loop(clock=clock)
    calls: list[float] = []
    timer = loop.every(1.0, lambda: calls.append(clock.now))
    for _ in range(24):
        clock.now += 0.125
        loop.sleep(0.0)
    assert calls == [1.0, 2.0, 3.0]
    clock.now += 10
    loop.sleep(0.0)
    loop.sleep(0.0)
    assert len(calls) == 4
    thread = threading.Thread(target=loop.hurry, args=(timer, 0.2))
    thread.start()
    thread.join()
    clock.now += 0.25
    loop.sleep(0.0)
    assert len(calls) == 5
    loop.hurry(timer, 50)
    clock.now += 1.1
    loop.sleep(0.0)
    assert len(calls) == 6
    loop.close()


def test_pieces_of_work_are_done_when_there_is_time() -> None:
    """One at a time, and none just before the beat."""
    clock = Clock(0.001)
    loop = Loop(clock=clock)
    done: list[int] = []

    def piece() -> None:
        done.append(len(done))
        clock.now += 0.015
        if len(done) < 10:
            loop.soon(piece)

    loop.soon(piece)
    loop.sleep(0.1)
    assert 4 <= len(done) <= 6 and clock.now < 0.11
    held = len(done)
    loop.sleep(0.0)
    assert len(done) == held
    loop.sleep(0.1)
    assert len(done) == 10
    loop.close()


def test_signals_wake_it() -> None:
    """One that was asked for calls back; a first TERM ends the waiting at once."""
    before = signal.getsignal(signal.SIGTERM)
    with Loop() as loop:
        calls: list[str] = []
        loop.on(signal.SIGHUP, lambda: calls.append("hup"))
        os.kill(os.getpid(), signal.SIGHUP)
        assert loop.sleep(0.05) and calls == ["hup"]
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        assert loop.sleep(60) is False
        assert time.monotonic() - began < 30
        assert loop.sleep(60) is False
        timer.join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_ends_the_process() -> None:
    """At any point of its work."""
    code = ("import os, signal, time\nfrom rogue_hunter.daemon.loop import Loop\nwith Loop() as loop:\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n    print(loop.sleep(60), flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"False\n")


def test_threads_give_way_to_the_beat() -> None:
    """Inside, another thread keeps the interpreter no longer than SWITCH_S; behind it, as long as before."""
    before = sys.getswitchinterval()
    with Loop():
        assert sys.getswitchinterval() == SWITCH_S < before
    assert sys.getswitchinterval() == before


def test_descriptors_are_given_back() -> None:
    """All of them."""
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        with Loop() as loop:
            loop.sleep(0.0)
    assert len(os.listdir("/dev/fd")) == before
