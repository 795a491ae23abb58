"""The worker of the macOS host: a job that hangs or fails delays or ends nothing else."""

from __future__ import annotations

import threading

import pytest

from tests.macos.fake import Fake


@pytest.mark.slow
def test_the_host_continues_beside_a_hanging_worker() -> None:
    """A registry that hangs does not delay a snapshot; its answer is used when it comes."""
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
    """A job that fails is an error of the tick that collects it."""
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
