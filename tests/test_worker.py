"""The background thread: order, bounds, errors, and an end within its deadline."""

from __future__ import annotations

import threading

import pytest

from rogue_hunter.worker import Worker


def test_results_come_in_order() -> None:
    worker: Worker[int, int] = Worker("test", lambda job: job * 2)
    assert worker.collect() == []
    assert all(worker.submit(n) for n in range(5))
    assert worker.wait(10)
    assert worker.collect() == [0, 2, 4, 6, 8]
    assert worker.collect() == []
    assert worker.pending == 0
    assert worker.close(10)


def test_queue_is_bounded_and_refusals_are_counted() -> None:
    go, began = threading.Event(), threading.Event()

    def work(job: int) -> int:
        began.set()
        go.wait(10)
        return job

    worker = Worker("test", work, limit=2)
    assert worker.submit(0)
    assert began.wait(10)
    assert [worker.submit(n) for n in (1, 2, 3, 4)] == [True, True, False, False]
    assert (worker.refused, worker.pending) == (2, 3)
    go.set()
    assert worker.wait(10)
    assert worker.collect() == [0, 1, 2]
    assert worker.close(10)
    assert not worker.submit(5)


def test_error_ends_its_job_only() -> None:
    worker = Worker("test", lambda job: 10 // job)
    for job in (1, 0, 2):
        worker.submit(job)
    assert worker.wait(10)
    assert worker.collect() == [10, 5]
    (job, error), = worker.failures()
    assert (job, type(error), worker.failed) == (0, ZeroDivisionError, 1)
    assert worker.failures() == []
    assert worker.close(10)


def test_close_does_not_wait_for_a_job_that_hangs() -> None:
    go, began = threading.Event(), threading.Event()

    def work(_: int) -> None:
        began.set()
        go.wait(60)

    worker = Worker("test", work)
    worker.submit(1)
    worker.submit(2)
    assert began.wait(10)
    assert not worker.close(0.01)
    assert not worker.wait(0.0)
    go.set()
    assert worker.close(10)
    assert worker.pending == 0


def test_close_can_finish_what_waits() -> None:
    done: list[int] = []
    worker = Worker("test", done.append)
    for n in range(100):
        worker.submit(n)
    assert worker.close(10, finish=True)
    assert done == list(range(100))


def test_results_can_come_before_the_job_is_done() -> None:
    def work(job: int) -> int:
        worker.post(-job)
        return job

    worker: Worker[int, int] = Worker("test", work)
    worker.submit(3)
    assert worker.wait(10)
    assert worker.collect() == [-3, 3]
    assert worker.close(10)


def test_thread_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    worker: Worker[int, int] = Worker("test", lambda job: job)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert worker.submit(1)
        assert worker.collect() == []
    early = worker.collect()
    assert worker.wait(10)
    assert early + worker.collect() == [1]
    assert worker.close(10)


def test_close_without_a_job() -> None:
    started: list[bool] = []
    worker = Worker("test", lambda job: job, on_start=lambda: started.append(True))
    assert worker.close()
    assert started == []
