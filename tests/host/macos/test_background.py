"""The worker thread: its answers, its failures, and that nothing waits for it."""

from __future__ import annotations

import threading

import pytest

from rogue_hunter.host.macos import background
from rogue_hunter.host.macos.background import Done, OffBeat
from tests.macos.fake import Fake


def test_answers_come_back_in_order() -> None:
    """Each job's answer, once; the thread's beginning is run in the thread; an idle worker needs no thread."""
    began: list[str] = []
    threads = threading.active_count()
    worker = OffBeat(lambda: began.append(threading.current_thread().name))
    assert worker.wait(0) and worker.collect() == [] and threading.active_count() == threads
    for n in (1, 2, 3):
        assert worker.submit("double", n, lambda n: n * 2)
    assert worker.wait(10)
    assert worker.collect() == [Done("double", n, n * 2) for n in (1, 2, 3)] and worker.collect() == []
    assert began == ["rogue-hunter-offbeat"]
    worker.close()


def test_a_failing_job_is_told_and_the_next_runs() -> None:
    """An exception is an answer that says so."""
    worker = OffBeat()
    worker.submit("a", 1, lambda _: 1 / 0)
    worker.submit("b", 2, lambda _: "x")
    assert worker.wait(10)
    assert worker.collect() == [Done("a", 1, None, failed=True), Done("b", 2, "x")]
    worker.close()


def test_a_hanging_job_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a job hangs, others are taken up to a bound and then refused; waiting has an end."""
    monkeypatch.setattr(background, "MAX_WAITING", 3)
    release = threading.Event()
    worker = OffBeat()
    assert [worker.submit("x", n, lambda _: release.wait(30)) for n in range(5)] == [True, True, True, False, False]
    assert not worker.wait(0.01)
    release.set()
    assert worker.wait(10) and len(worker.collect()) == 3
    worker.close()


def test_the_host_goes_on_beside_a_hanging_worker() -> None:
    """A registry that hangs does not hold a snapshot back; what it said in the end is taken."""
    release = threading.Event()
    fake = Fake("process p pid=10 user=+0.5/s args=p|x\n")

    def gpu() -> dict[int, int]:
        release.wait(30)
        return {10: 7_000_000_000}

    host = fake.host(gpu=gpu, first_wait_s=0.01)
    try:
        for _ in range(4):
            shot = host.snapshot()
            fake.advance(0.5)
        (row,) = shot.processes.values()
        assert row["cpu_percent"] == pytest.approx(50) and "gpu_seconds_total" not in row
        release.set()
        host._slow.wait(10)
        (row,) = host.snapshot().processes.values()
        assert row["gpu_seconds_total"] == 7.0
    finally:
        release.set()
        host.close()


def test_failures_of_the_worker_are_counted() -> None:
    """A job that fails is an error of the tick that hears of it."""
    fake = Fake("process p pid=10\n")

    def gpu() -> dict[int, int]:
        raise RuntimeError("a strange machine")

    host = fake.host(gpu=gpu)
    try:
        assert host.snapshot().errors == 1
        fake.advance(0.3)
        assert host.snapshot().errors == 0
    finally:
        host.close()
