"""The machine's own files: rates over measured time, nothing where nothing is known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rogue_hunter.host.linux.machine import Machine, is_procfs, read_facts
from tests.tools.processes import HZ, Tree

SECOND = 1_000_000_000


def cpu(busy: int, idle: int, steal: int = 0, cpus: int = 2) -> bytes:
    """/proc/stat with these clock ticks."""
    return (
        b"cpu  %d 0 0 %d 0 0 0 %d 0 0\n" % (busy, idle, steal)
        + b"".join(b"cpu%d 1\n" % i for i in range(cpus))
        + b"btime 1700000000\n"
    )


def pressure(some: int, full: int | None = None) -> bytes:
    """A file of /proc/pressure with these totals."""
    return b"some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n" % some + (
        b"" if full is None else b"full avg10=0.00 total=%d\n" % full
    )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "proc")


def test_first_reading_has_no_rates(tree: Tree) -> None:
    """What needs two readings is unknown after one, not 0."""
    tree.write("pressure/cpu", pressure(5))
    machine = Machine(tree.path, live=False)
    assert machine.fields(0) == {"cpus": 2, "memory_total_bytes": 16 << 30, "memory_available_bytes": 8 << 30}
    assert machine.errors == 0


def test_rates(tree: Tree) -> None:
    """Busy cores and pressure are the growth over the time between the two readings."""
    machine = Machine(tree.path, live=False)
    tree.write("stat", cpu(1000, 1000, 0))
    for name in ("cpu", "memory", "io"):
        tree.write(f"pressure/{name}", pressure(0, 0))
    machine.fields(7 * SECOND)
    tree.write("stat", cpu(1000 + 3 * HZ, 1000 + HZ // 2, HZ // 2))
    tree.write("pressure/cpu", pressure(1_000_000, 0))
    tree.write("pressure/memory", pressure(500_000, 250_000))
    tree.write("pressure/io", pressure(20_000, 10_000))
    fields = machine.fields(9 * SECOND)
    assert fields["cpu_busy_cores"] == 1.5
    assert {name: value for name, value in fields.items() if name.startswith("pressure")} == {
        "pressure_cpu_some_ms_per_s": 500.0,
        "pressure_memory_some_ms_per_s": 250.0,
        "pressure_memory_full_ms_per_s": 125.0,
        "pressure_io_some_ms_per_s": 10.0,
        "pressure_io_full_ms_per_s": 5.0,
    }


def test_bounds(tree: Tree) -> None:
    """Jitter never makes more busy cores than there are, nor more than a second of pressure a second."""
    machine = Machine(tree.path, live=False)
    tree.write("stat", cpu(0, 0))
    tree.write("pressure/io", pressure(0, 0))
    machine.fields(0)
    tree.write("stat", cpu(5 * HZ, 0))
    tree.write("pressure/io", pressure(1_100_000, 0))
    fields = machine.fields(SECOND)
    assert fields["cpu_busy_cores"] == 2.0 and fields["pressure_io_some_ms_per_s"] == 1000.0


def test_memory_and_disks_are_counted_from_the_second_reading(tree: Tree) -> None:
    """Refaults, direct reclaims, OOM kills and disk traffic are counts of the interval; the wait is an average."""
    machine = Machine(tree.path, live=False)
    tree.write("vmstat", b"allocstall_normal 5\nworkingset_refault_file 7\noom_kill 1\n")
    tree.write("diskstats", b"8 0 sda 100 0 1000 500 0 0 0 0 0 0 0\n")
    assert "refaults" not in machine.fields(0)
    tree.write("vmstat", b"allocstall_normal 6\nworkingset_refault_file 17\noom_kill 3\n")
    tree.write("diskstats", b"8 0 sda 110 0 1200 1500 0 0 0 0 0 0 0\n8 16 sdb 9 0 9 9 9 0 9 9 0 0 0\n")
    fields = machine.fields(SECOND)
    expected = {"refaults": 10, "direct_reclaims": 1, "oom_kills": 2, "device_bytes": 200 * 512,
                "device_requests_s": 1.0, "device_wait_ms": 100.0}
    assert {name: fields[name] for name in expected} == expected
    tree.write("vmstat", b"")
    tree.write("diskstats", b"")
    assert not {"refaults", "oom_kills", "device_bytes"} & machine.fields(2 * SECOND).keys()


def test_disks_beyond_a_page_are_counted(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives a file of many records a page at a time: loop devices come first, the disk last."""
    loops = b"".join(b"   7 %7d loop%d 13 0 280 5 0 0 0 0 0 8 5 0 0 0 0 0 0\n" % (n, n) for n in range(90))
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: whole(fd, min(size, 4096), at))
    tree.write("diskstats", loops + b"8 0 sda 100 0 1000 500 0 0 0 0 0 0 0\n")
    machine = Machine(tree.path, live=True)
    machine.fields(0)
    tree.write("diskstats", loops + b"8 0 sda 110 0 1200 500 0 0 0 0 0 0 0\n")
    assert machine.fields(SECOND)["device_bytes"] == 200 * 512
    machine.close()


@pytest.mark.parametrize("seconds", [0, -1])
def test_time_that_does_not_pass(tree: Tree, seconds: int) -> None:
    """No rates over no time."""
    machine = Machine(tree.path, live=False)
    machine.fields(5 * SECOND)
    tree.write("stat", cpu(9999, 0))
    assert "cpu_busy_cores" not in machine.fields((5 + seconds) * SECOND)


def test_counters_that_fall(tree: Tree) -> None:
    """A counter that went back is a new baseline, never a negative or a huge rate."""
    tree.write("stat", cpu(1000, 1000))
    tree.write("pressure/io", pressure(1000, 1000))
    machine = Machine(tree.path, live=False)
    machine.fields(0)
    tree.write("stat", cpu(10, 10))
    tree.write("pressure/io", pressure(5, 5))
    fields = machine.fields(SECOND)
    assert "cpu_busy_cores" not in fields and "pressure_io_some_ms_per_s" not in fields
    tree.write("stat", cpu(10 + HZ, 10))
    assert machine.fields(2 * SECOND)["cpu_busy_cores"] == 1.0


def test_files_that_are_missing_or_make_no_sense(tree: Tree) -> None:
    """A missing file is unknown, one that makes no sense is an error that is counted; the rest is still reported."""
    machine = Machine(tree.path, live=False)
    tree.write("stat", b"\xff\xfe")
    assert machine.fields(0) == {"memory_total_bytes": 16 << 30, "memory_available_bytes": 8 << 30}
    assert machine.errors == 1
    (tree.path / "stat").unlink()
    tree.write("meminfo", b"")
    assert machine.fields(1) == {} and machine.errors == 1
    (tree.path / "meminfo").unlink()
    assert machine.fields(2) == {} and machine.errors == 0


def test_cpus_that_come_and_go(tree: Tree) -> None:
    """The number of CPUs is read at every tick."""
    machine = Machine(tree.path, live=False)
    tree.write("stat", cpu(0, 0, cpus=8))
    assert machine.fields(0)["cpus"] == 8
    tree.write("stat", cpu(0, 0, cpus=3))
    assert machine.fields(SECOND)["cpus"] == 3


def test_live_descriptors_are_kept_and_given_back() -> None:
    """On a live /proc each file is opened once; close gives all of them back."""
    before = set(os.listdir("/proc/self/fd"))
    machine = Machine(Path("/proc"), live=True)
    machine.fields(0)
    opened = set(os.listdir("/proc/self/fd"))
    machine.fields(SECOND)
    assert set(os.listdir("/proc/self/fd")) == opened
    machine.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_live() -> None:
    """This machine: what it says lies in its bounds, and agrees with what sysconf says."""
    machine = Machine(Path("/proc"), live=True)
    try:
        machine.fields(0)
        fields = machine.fields(SECOND)
    finally:
        machine.close()
    assert fields["cpus"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert fields["memory_total_bytes"] == pytest.approx(
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01
    )
    assert 0 < fields["memory_available_bytes"] <= fields["memory_total_bytes"]
    assert 0 <= fields["cpu_busy_cores"] <= fields["cpus"]


def test_is_procfs(tmp_path: Path) -> None:
    """A mounted procfs is distinguished from a recorded tree, also through a link."""
    assert is_procfs(Path("/proc"))
    assert not is_procfs(tmp_path)
    assert not is_procfs(Path("/proc/self"))
    (tmp_path / "link").symlink_to("/proc")
    assert is_procfs(tmp_path / "link")
    assert not is_procfs(tmp_path / "nowhere")


@pytest.mark.parametrize(("arc", "available"), [
    (b"size 4 2097152\nc_min 4 1048576\n", 3 << 20), (b"size 4 999999999999\nc_min 4 0\n", 8 << 20),
    (b"size 4 1\nc_min 4 1048576\n", 2 << 20), (b"nothing of the kind\n", 2 << 20), (None, 2 << 20)])
def test_the_cache_of_zfs_is_available(tree: Tree, arc: bytes | None, available: int) -> None:
    """The kernel counts it as used. Never more than the machine has; what cannot be read adds nothing."""
    tree.write("meminfo", b"MemTotal: 8192 kB\nMemAvailable: 2048 kB\n")
    if arc is not None:
        (tree.path / "spl/kstat/zfs").mkdir(parents=True)
        tree.write("spl/kstat/zfs/arcstats", arc)
    assert Machine(tree.path, live=False).fields(0)["memory_available_bytes"] == available


def test_what_a_tree_does_not_tell_is_left_out(tree: Tree) -> None:
    """Without meminfo there is no memory of 0 bytes; without a boot id and a boot time no two trees are one boot by a
    made-up id: the id says that it is unknown."""
    for name in ("meminfo", "sys/kernel/random/boot_id"):
        (tree.path / name).unlink(missing_ok=True)
    tree.write("stat", cpu(1, 1))
    machine = Machine(tree.path, live=False)
    assert not {"memory_total_bytes", "memory_available_bytes"} & machine.fields(0).keys()
    facts, _ = read_facts(machine, tree.path, False)
    assert facts.memory_total_bytes is None and facts.boot_id == "boot-28333333"
    tree.write("stat", cpu(1, 1).replace(b"btime 1700000000\n", b""))
    assert read_facts(Machine(tree.path, live=False), tree.path, False)[0].boot_id == "unknown"
