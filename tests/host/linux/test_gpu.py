"""GPU time from fdinfo and from NVML."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.linux import gpu as gpu_module
from rogue_hunter.host.linux.gpu import LOOK_EVERY_S, Gpu, GpuThread, Use, engine_ns, nvml_reader, parse_fdinfo
from rogue_hunter.host.linux.host import LinuxHost


def fdinfo(client: int, render: int, video: int = 0) -> str:
    return (f"pos:\t0\nflags:\t02100002\nmnt_id:\t26\ndrm-driver:\ti915\ndrm-pdev:\t0000:00:02.0\n"
            f"drm-client-id:\t{client}\ndrm-engine-render:\t{render} ns\ndrm-engine-video:\t{video} ns\n"
            f"drm-engine-capacity-video:\t2\ndrm-total-memory:\t16 MiB\n")


class Tree:
    """A /proc with GPU holders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def hold(self, pid: int, number: int, text: str, target: str = "/dev/dri/renderD128") -> None:
        base = self.root / str(pid)
        (base / "fd").mkdir(parents=True, exist_ok=True)
        (base / "fdinfo").mkdir(exist_ok=True)
        link = base / "fd" / str(number)
        if not link.is_symlink():
            os.symlink(target, link)
        (base / "fdinfo" / str(number)).write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_engines_are_summed_and_capacity_is_no_time() -> None:
    """All engines of a client count; the capacity line and memory do not."""
    assert parse_fdinfo(fdinfo(7, 1000, 500).encode()) == ((b"0000:00:02.0", b"7"), 1500)


@pytest.mark.parametrize("text", ["", "pos:\t0\nflags:\t02\n", "drm-driver:\tnouveau\n", "drm-client-id:\t1\n",
                                  "drm-client-id:\t1\ndrm-engine-gfx:\tlots ns\n"])
def test_a_missing_time_is_unknown(text: str) -> None:
    """A file, a driver without counters, nonsense: None and never 0."""
    assert parse_fdinfo(text.encode()) is None


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """For any bytes the parser returns a value or None."""
    found = parse_fdinfo(b"drm-" + data)
    assert found is None or found[1] >= 0


def test_a_client_counts_once(tree: Tree) -> None:
    """Two descriptors of one client are one client; two clients are summed."""
    tree.hold(10, 3, fdinfo(7, 1000))
    tree.hold(10, 4, fdinfo(7, 1000))
    tree.hold(10, 5, fdinfo(8, 50))
    assert engine_ns(tree.root, "10", ["3", "4", "5", "6"]) == 1050


def test_rates_and_totals(tree: Tree) -> None:
    """250 ms of GPU time in a second; a client that closes makes no negative rate and no falling total."""
    now = [0.0]
    reader = Gpu(tree.root, mono=lambda: now[0])
    tree.hold(10, 3, fdinfo(7, 1_000_000_000))
    tree.hold(11, 3, "pos:\t0\n", target="/home/x")
    assert reader.read() == {10: (1.0, None)}
    now[0] = 1.0
    tree.hold(10, 3, fdinfo(7, 1_250_000_000))
    assert reader.read() == {10: (1.25, 250.0)}
    now[0] = 2.0
    tree.hold(10, 3, fdinfo(9, 5_000_000))
    assert reader.read() == {10: (1.25, 0.0)}
    now[0] = 3.0
    tree.hold(10, 3, fdinfo(9, 105_000_000))
    assert reader.read() == {10: (1.35, 100.0)}


def test_a_late_opener_is_found(tree: Tree) -> None:
    """A process that opens a GPU after it was seen is found within the half minute."""
    now = [0.0]
    reader = Gpu(tree.root, mono=lambda: now[0])
    (tree.root / "10" / "fd").mkdir(parents=True)
    assert reader.read() == {}
    tree.hold(10, 3, fdinfo(7, 1000))
    now[0] = 1.0
    assert reader.read() == {}
    now[0] = LOOK_EVERY_S
    assert reader.read() == {10: (0.000001, None)}


def test_nvml_gives_rates_only() -> None:
    """NVML's percent become ms a second; totals stay unknown; the same sample is not asked for twice."""
    asked: list[int] = []

    def utilisation(_device: object, since: int) -> list[Any]:
        asked.append(since)
        return [SimpleNamespace(pid=5, timeStamp=99, smUtil=40)]

    nv = SimpleNamespace(nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 1, nvmlDeviceGetHandleByIndex=lambda i: i,
                         nvmlDeviceGetProcessUtilization=utilisation)
    read = nvml_reader(nv)
    assert read is not None
    assert (read(), read()) == ({5: 400.0}, {5: 400.0})
    assert asked == [0, 99]


def test_rows_carry_gpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the thread read is in the row of the process; others have no GPU fields; an end of use is 0."""
    answers: list[dict[int, Use] | None] = [{os.getpid(): (1.5, 250.0)}, None, {}]

    class Thread:
        def latest(self) -> dict[int, Use] | None:
            return answers.pop(0)

        def close(self) -> None:
            pass

    monkeypatch.setattr(gpu_module, "start", lambda root: Thread())
    monkeypatch.setattr("rogue_hunter.host.linux.host.start_gpu", lambda root: Thread())
    host = LinuxHost()
    try:
        seen = []
        for _ in range(3):
            rows = host.snapshot().processes
            (mine,) = [r for k, r in rows.items() if k[0] == os.getpid()]
            seen.append((mine.get("gpu_seconds_total"), mine.get("gpu_ms_per_s")))
            assert sum("gpu_ms_per_s" in r for r in rows.values()) == 1
        assert seen == [(1.5, 250.0), (1.5, 250.0), (1.5, 0.0)]
    finally:
        host.close()


def test_thread_answers_and_ends(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread's answer is taken once, and it ends on request."""
    monkeypatch.setattr(gpu_module, "EVERY_S", 0.01)
    tree.hold(10, 3, fdinfo(7, 1000))
    thread = GpuThread(Gpu(tree.root))
    answer = None
    for _ in range(500):
        answer = thread.latest()
        if answer is not None:
            break
        thread._stop.wait(0.01)
    thread.close()
    assert answer is not None and list(answer) == [10]
    assert not thread._thread.is_alive()
