"""Limits that hold processes back, on made-up control groups and, where this user may make one, on a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rogue_hunter.host.linux.cgroups import Cgroups, parse_mounts
from rogue_hunter.sampling.limits import Limits, on_full, parse_descriptor_slots, parse_open_files_limit
from rogue_hunter.sampling.sample import OwnUse
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, Tick

KEY = (7, 70)


class Scene:
    """One process in one control group of version 2; `look` is a second of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.proc = tmp_path / "proc"
        self.group = tmp_path / "tree" / "jobs" / "encoder"
        for directory in (self.proc / "7" / "fd", self.group):
            directory.mkdir(parents=True)
        (self.proc / "7/cgroup").write_text("0::/jobs/encoder\n")
        self.allowed: dict[int, set[int]] = {}
        self.limits = Limits(Cgroups(self.proc, {"": tmp_path / "tree"}), self.proc,
                             lambda pid: self.allowed.get(pid, {0, 1}))
        self.now_ns = 0
        self.beside: dict[Key, Row] = {}
        self.machine: dict[str, Any] = {"cpus": 2, "cpu_busy_cores": 0.2}

    def look(self, row: Row | None = None, exited: tuple[Key, ...] = (), **files: str) -> list[Record]:
        for name, text in files.items():
            (self.group / name.replace("__", ".")).write_text(text)
        processes = {} if row is None else {KEY: {"pid": 7, "start_ticks": 70, "command": "encoder", **row}, **self.beside}
        self.now_ns += 1_000_000_000
        tick = Tick({"ts": 1000.0 + self.now_ns / 1e9, "mono_ns": self.now_ns, "boot_id": "b", **self.machine},
                    processes, set(processes), exited)
        return [one for one in self.limits(tick).records if one["type"] == "limit"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def throttled(times: int, seconds: float) -> dict[str, str]:
    return {"cpu__max": "20000 100000\n", "cpu__stat": f"nr_throttled {times}\nthrottled_usec {int(seconds * 1e6)}\n"}


def test_a_cpu_quota_names_group_and_process(scene: Scene) -> None:
    """The third look is the first with two readings of the group behind it."""
    busy = {"cpu_percent": 20.0}
    assert scene.look(busy, **throttled(0, 0)) == scene.look(busy, **throttled(10, 0.8)) == []
    (found,) = scene.look(busy, **throttled(20, 1.6))
    assert (found["kind"], found["cgroup"], found["pid"], found["name"]) == ("cpu_quota", "/jobs/encoder", 7, "encoder")
    assert (found["limit"], found["use"], found["held_back_s"], found["count"]) == (0.2, 0.2, 0.8, 10)


def test_a_quota_that_does_not_bind_is_no_limit(scene: Scene) -> None:
    """The count of throttled periods does not grow."""
    for _ in range(4):
        assert scene.look({"cpu_percent": 5.0}, **throttled(10, 0.8)) == []


def test_an_idle_process_is_not_asked(scene: Scene) -> None:
    """A process that neither runs nor waits is not held back: its groups are not even looked up."""
    (scene.proc / "7/cgroup").unlink()
    for times in range(4):
        assert scene.look({"cpu_percent": 0.0}, **throttled(times, times)) == []


def memory(use: int, hits: int, kills: int = 0) -> dict[str, str]:
    return {"memory__max": "1000\n", "memory__current": f"{use}\n", "memory__events": f"max {hits}\noom_kill {kills}\n"}


def test_a_memory_limit_counts_once_it_is_reached(scene: Scene) -> None:
    """Near the limit and still meeting it; below it, old counts say nothing."""
    busy = {"pageins_per_s": 900.0}
    scene.look(busy, **memory(999, 0))
    scene.look(busy, **memory(999, 5))
    (found,) = scene.look(busy, **memory(999, 25))
    assert (found["kind"], found["limit"], found["use"], found["count"]) == ("memory", 1000.0, 999.0, 20)
    assert scene.look(busy, **memory(300, 30)) == []


def test_an_oom_kill_in_a_group_names_its_victim(scene: Scene) -> None:
    """The group's count of kills grew, and the process that ended had the memory."""
    heavy = {"cpu_percent": 90.0, "memory_bytes": 500 << 20}
    scene.look(heavy, **memory(999, 0))
    scene.look(heavy, **memory(999, 0))
    scene.machine["oom_kills"] = 1
    (one,) = scene.look(None, (KEY,), **memory(10, 9, 1))
    assert (one["kind"], one["name"], one["pid"], one["count"], one["cgroup"]) == ("oom_kill", "encoder", 7, 1, "/jobs/encoder")


def test_an_oom_kill_that_is_counted_later_names_no_stranger(scene: Scene) -> None:
    """The kernel's count of kills is read once a second: the victim ended before, another large process since."""
    heavy = {"cpu_percent": 90.0, "memory_bytes": 500 << 20, "cgroup": "/jobs/encoder"}
    scene.look(heavy, **memory(999, 0))
    scene.look(heavy, **memory(999, 0))
    scene.look(None, (KEY,), **memory(10, 9, 0))
    other = Tick({"ts": 1003.1, "mono_ns": scene.now_ns + 1, "boot_id": "b", **scene.machine},
                 {(9, 90): {"pid": 9, "command": "stranger", "memory_bytes": 900 << 20, "cgroup": "/"}}, {(9, 90)}, ())
    scene.limits(other)
    scene.machine["oom_kills"] = 1
    (one,) = scene.look(None, ((9, 90),), **memory(10, 9, 1))
    assert (one["kind"], one["name"], one["pid"]) == ("oom_kill", "encoder", 7)


def test_an_oom_kill_that_the_machine_counts_later_is_one(scene: Scene) -> None:
    """The group's count is read in one look, that of the machine in the next: no second kill, for want of memory of its own."""
    heavy = {"cpu_percent": 90.0, "memory_bytes": 500 << 20}
    scene.look(heavy, **memory(999, 0))
    scene.look(heavy, **memory(999, 0))
    assert [one["cgroup"] for one in scene.look(heavy, **memory(10, 9, 1))] == ["/jobs/encoder"]
    scene.machine["oom_kills"] = 1
    assert scene.look(None, (KEY,), **memory(10, 9, 1)) == []
    assert [one.get("count") for one in scene.look(None, (KEY,), **memory(10, 9, 1))] == [1]     # this one is the machine's


def test_an_oom_kill_of_the_machine_names_the_largest_that_ended(scene: Scene) -> None:
    """No group has a limit: the machine's own count decides."""
    scene.look({"cpu_percent": 90.0, "memory_bytes": 500 << 20})
    scene.machine["oom_kills"] = 1
    (found,) = scene.look(None, (KEY,))
    assert (found["kind"], found["name"], found["pid"], found["count"]) == ("oom_kill", "encoder", 7, 1)
    assert "cgroup" not in found


@pytest.mark.parametrize(("parent", "line", "name"), [
    ({"command": "sh", "name": "sh keeper.sh", "cmdline": "sh keeper.sh"}, None, "encoder of sh keeper.sh"),
    ({"command": "sh", "name": "sh keeper.sh", "cmdline": "sh keeper.sh"}, "encoder x", "encoder"),
    ({"command": "bash", "cmdline": "-bash"}, None, "encoder"), (None, None, "encoder")])
def test_a_victim_without_arguments_is_named_with_its_parent(scene: Scene, parent: Row | None, line: str | None,
                                                             name: str) -> None:
    """It may have lived too short for its script to be read: `python` says nothing."""
    heavy = {"cpu_percent": 90.0, "memory_bytes": 500 << 20, "ppid": 6, **({"cmdline": line} if line else {})}
    scene.look(heavy, **memory(999, 0))
    scene.look(heavy, **memory(999, 0))
    if parent is not None:
        scene.beside[6, 60] = {"pid": 6, "start_ticks": 60, **parent}
    scene.machine["oom_kills"] = 1
    (scene.group / "memory.events").write_text("max 9\noom_kill 1\n")
    tick = Tick({"ts": 1003.5, "mono_ns": scene.now_ns + 10**9, "boot_id": "b", **scene.machine}, dict(scene.beside), set(),
                (KEY,))
    (found,) = [one for one in scene.limits(tick).records if one.get("kind") == "oom_kill"]
    assert (found["name"], found["pid"]) == (name, 7)


def test_an_io_limit_binds_near_its_rate(scene: Scene) -> None:
    """4 MB/s allowed and 4 MB/s moved; at half of that it does not bind."""
    busy = {"disk_bytes_per_s": 4e6}

    def moved(megabytes: float) -> dict[str, str]:
        return {"io__max": "8:0 rbps=max wbps=4000000\n", "io__stat": f"8:0 rbytes=0 wbytes={int(megabytes * 1e6)}\n"}

    scene.look(busy, **moved(0))
    scene.look(busy, **moved(4))
    (found,) = scene.look(busy, **moved(8))
    assert (found["kind"], found["limit"], found["use"]) == ("io", 4e6, 4e6)
    assert scene.look(busy, **moved(10)) == []


def test_affinity_holds_back_while_other_cpus_idle(scene: Scene) -> None:
    """A process bound to one CPU waits for it although the machine has another one to spare."""
    waits = {"cpu_percent": 18.0, "run_delay_ms_per_s": 800.0}
    scene.allowed[7] = {0}
    scene.machine["cpu_busy_cores"] = 1.0
    scene.look(waits)
    (found,) = scene.look(waits)
    assert (found["kind"], found["limit"], found["held_back_s"]) == ("affinity", 1.0, 0.8)
    scene.machine["cpu_busy_cores"] = 2.0
    assert scene.look(waits) == []
    scene.machine["cpu_busy_cores"], scene.allowed[7] = 1.0, {0, 1}
    assert scene.look(waits) == []
    scene.allowed[7] = {0}
    assert scene.look({**waits, "ppid": 2}) == []       # a kernel thread belongs to its CPU


def test_a_limit_of_requests(scene: Scene) -> None:
    """100 requests a second are allowed and made."""
    busy = {"disk_bytes_per_s": 4e5}

    def made(requests: int) -> dict[str, str]:
        return {"io__max": "8:0 rbps=max wbps=max riops=100 wiops=max\n", "io__stat": f"8:0 rbytes=0 rios={requests}\n"}

    scene.look(busy, **made(0))
    scene.look(busy, **made(100))
    (found,) = scene.look(busy, **made(200))
    assert (found["kind"], found["limit"], found["use"], found["object"]) == ("io", 100.0, 100.0, "requests")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_full_disk_names_who_writes_to_it(spawn: Callable[..., subprocess.Popen[bytes]], tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with a file open for writing there, and none that only reads or lies elsewhere."""
    (tmp_path / "file").touch()
    code = "import sys, time\nf = open(sys.argv[1], sys.argv[2])\nprint(flush=True)\ntime.sleep(600)"
    writer, reader = (spawn([sys.executable, "-c", code, str(tmp_path / "file"), mode], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL) for mode in ("a", "r"))
    for child in (writer, reader):
        child.stdout.readline()         # type: ignore[union-attr]
    device = os.stat(tmp_path).st_dev
    proc = tmp_path / "proc"
    proc.mkdir()
    for pid in (writer.pid, reader.pid):
        (proc / str(pid)).symlink_to(f"/proc/{pid}")
    (proc / "self").mkdir()
    (proc / "self/mountinfo").write_text(
        f"1 0 {os.major(device)}:{os.minor(device)} / /full\\040disk rw,relatime - ext4 /dev/x rw\n"
        f"2 0 {os.major(device)}:{os.minor(device)} / /net rw - nfs4 server:/ rw\n")
    room = {"f_bavail": 0, "f_bfree": 0, "f_frsize": 4096, "f_blocks": 10**6, "f_files": 9, "f_ffree": 9}
    asked: list[str] = []
    monkeypatch.setattr(os, "statvfs", lambda place: asked.append(place) or SimpleNamespace(**room))
    assert on_full(proc, (writer.pid, reader.pid)) == {writer.pid: "/full disk"} and asked == ["/full disk"]
    room["f_bfree"] = 4100      # what root cannot use either: a full ext4 says that so many blocks are free
    assert on_full(proc, (writer.pid,)) == {writer.pid: "/full disk"}
    room["f_bavail"] = room["f_bfree"] = 10**5
    assert on_full(proc, (writer.pid, reader.pid)) == {}
    room["f_ffree"] = 0
    assert on_full(proc, (writer.pid,)) == {writer.pid: "/full disk"}


@pytest.mark.parametrize(("use", "asked"), [({"cpu_percent": 9.0}, [(7,)]), ({"disk_bytes_per_s": 4e7, "cpu_percent": 2.0}, [(7,)]),
                                            ({"cpu_percent": 2.0}, [])])
def test_who_is_asked_about_full_disks(scene: Scene, use: Row, asked: list[tuple[int, ...]]) -> None:
    """A log writer that sleeps a little between two tries uses next to no CPU, but the kernel counts its bytes."""
    seen: list[tuple[int, ...]] = []
    scene.limits.close()
    scene.limits._full = SimpleNamespace(collect=tuple, submit=seen.append, pending=0)  # type: ignore[assignment]
    scene.now_ns = 10 * 10**9
    scene.look(use)
    scene.look(use)
    assert seen == asked


def test_open_files_at_their_limit(scene: Scene) -> None:
    """The busiest process has every descriptor in use that it may have."""
    (scene.proc / "7/limits").write_text("Limit  Soft  Hard  Units\nMax open files            2        64       files\n")
    (scene.proc / "7/status").write_text("Name:\tx\nFDSize:\t64\n")
    for number in range(2):
        (scene.proc / "7/fd" / str(number)).touch()
    scene.look({"cpu_percent": 99.0})
    (found,) = scene.look({"cpu_percent": 99.0})
    assert (found["kind"], found["limit"], found["use"]) == ("rlimit", 2.0, 2.0)


def test_a_process_beside_a_busier_one_is_asked_for_its_open_files(scene: Scene) -> None:
    """A server that sleeps a little between two tries is not the busiest of the machine."""
    for pid, slots in ((7, 64), (8, 256)):
        (scene.proc / f"{pid}/fd").mkdir(parents=True, exist_ok=True)
        (scene.proc / f"{pid}/limits").write_text("Max open files            2        64       files\n" if pid == 7 else
                                                  "Max open files            1024     4096     files\n")
        (scene.proc / f"{pid}/status").write_text(f"Name:\tx\nFDSize:\t{slots}\n")
    for number in range(2):
        (scene.proc / "7/fd" / str(number)).touch()
    scene.beside = {(8, 80): {"pid": 8, "start_ticks": 80, "command": "build", "cpu_percent": 190.0}}
    scene.look({"cpu_percent": 3.0})
    assert [(one["kind"], one["pid"]) for one in scene.look({"cpu_percent": 3.0})] == [("rlimit", 7)]


def test_a_limit_of_tasks(scene: Scene) -> None:
    """The kernel counts each process that it refuses; a limit that refuses none is no news, and neither is an old one."""
    busy = {"cpu_percent": 20.0}
    files = {"pids__max": "20\n", "pids__events": "max 5\n"}
    assert scene.look(busy, **files) == scene.look(busy, **files) == scene.look(busy) == []
    (found,) = scene.look(busy, pids__events="max 905\n")
    assert (found["kind"], found["cgroup"], found["pid"], found["limit"], found["count"]) == (
        "tasks", "/jobs/encoder", 7, 20.0, 900)
    assert scene.look(busy, pids__max="max\n", pids__events="max 906\n") == []


def test_unlimited_open_files_are_no_limit() -> None:
    """`unlimited`, missing and malformed lines give none."""
    assert parse_open_files_limit(b"Max open files            unlimited unlimited files\n") is None
    assert parse_open_files_limit(b"") is None and parse_descriptor_slots(b"FDSize:\tx\n") is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="makes a control group: needs root on Linux")
def test_a_real_quota(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    """A loop in a group of 20 % of a core is held back, by the kernel's own count."""
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_bytes())
    place = mounts.get("cpu")
    if place is None:
        pytest.skip("NO CPU CONTROLLER of version 1 is mounted here")
    group = place / f"rogue-hunter-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("20000")
        loop = spawn([sys.executable, "-c", "while True: pass"])
        (group / "cgroup.procs").write_text(str(loop.pid))
        limits, found = Limits(), []
        for second in range(60):    # on a busy machine the loop takes a while to use its quota up
            if found:
                break
            time.sleep(0.3)
            tick = Tick({"ts": 1.0, "mono_ns": (second + 1) * 10**9, "boot_id": "b"},
                        {(loop.pid, 1): {"pid": loop.pid, "command": "python", "cpu_percent": 20.0}}, {(loop.pid, 1)})
            found += limits(tick).records
        loop.kill()
        loop.wait()
    finally:
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)
    assert [one["kind"] for one in found] == ["cpu_quota"]
    assert found[0]["limit"] == 0.2 and found[0]["held_back_s"] > 0 and found[0]["cgroup"].endswith(group.name)


@pytest.mark.parametrize("lifted", [False, True])
def test_own_quota(tmp_path: Path, lifted: bool) -> None:
    """What a quota took is known up to the moment in which it is lifted; a new quota counts from its first reading."""
    group = tmp_path / "tree/g"
    group.mkdir(parents=True)
    (tmp_path / f"proc/{os.getpid()}").mkdir(parents=True)
    (tmp_path / f"proc/{os.getpid()}/cgroup").write_text("0::/g\n")
    before, own = signal.getsignal(signal.SIGCONT), OwnUse(Cgroups(tmp_path / "proc", {"": tmp_path / "tree"}))
    try:
        for quota, seconds in (("max", 5), ("20000", 7), ("max" if lifted else "10000", 15)):
            (group / "cpu.max").write_text(f"{quota} 100000\n")
            (group / "cpu.stat").write_text(f"nr_throttled {seconds}\nthrottled_usec {seconds * 1_000_000}\n")
            own._called_ns = 0      # as after a late beat
            found = own().throttled_s
            assert found == {5: None, 7: 0.0, 15: 8.0}[seconds]
        own._called_ns = 0
        assert own().throttled_s == (None if lifted else 8.0)
    finally:
        own.close()
        signal.signal(signal.SIGCONT, before)
