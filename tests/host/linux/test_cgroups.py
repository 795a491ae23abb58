"""Control groups of version 1, of version 2, of both at once, and of machines without any."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.linux.cgroups import (
    Cgroups,
    CpuLimit,
    Group,
    IoLimit,
    MemoryLimit,
    TaskLimit,
    parse_cgroup,
    parse_devices,
    parse_mounts,
    parse_pairs,
    parse_throttle,
)


def put(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_groups_are_those_of_the_process_and_its_ancestors(tmp_path: Path) -> None:
    """From the process's own group up to, but without, the root of each tree that is mounted."""
    put(tmp_path / "proc/7", cgroup="4:memory:/jobs/a\n3:cpu,cpuacct:/\n2:pids:/x\n0::/system.slice/a.service\n")
    cgroups = Cgroups(tmp_path / "proc", {"memory": tmp_path / "m", "cpu": tmp_path / "c", "": tmp_path / "u"})
    assert cgroups.groups(7) == [
        Group(tmp_path / "m/jobs/a", "memory", "/jobs/a"),
        Group(tmp_path / "m/jobs", "memory", "/jobs"),
        Group(tmp_path / "u/system.slice/a.service", "", "/system.slice/a.service"),
        Group(tmp_path / "u/system.slice", "", "/system.slice"),
    ]


def test_a_group_outside_of_the_namespace_is_left_out(tmp_path: Path) -> None:
    """A path with `..` lies above what this mount shows."""
    put(tmp_path / "proc/7", cgroup="0::/../../other\n")
    assert Cgroups(tmp_path / "proc", {"": tmp_path}).groups(7) == []


def test_limits_of_version_2(tmp_path: Path) -> None:
    """cpu.max, memory.max and memory.high, io.max, with what io.stat and the event files count."""
    directory = put(tmp_path / "g", cpu__max="20000 100000\n", cpu__stat="usage_usec 9\nnr_throttled 7\nthrottled_usec 2500000\n",
                    memory__max="max\n", memory__high="1048576\n", memory__current="1000000\n",
                    memory__events="low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\n",
                    io__max="8:16 rbps=2097152 wbps=max riops=max wiops=120\n", io__stat="8:16 rbytes=42 wbytes=7 rios=1\n")
    group, cgroups = Group(directory, "", "/g"), Cgroups(tmp_path, {})
    assert cgroups.cpu(group) == CpuLimit(0.2, 7, 2.5)
    assert cgroups.memory(group) == MemoryLimit(1048576, 1000000, 5, 1)
    assert cgroups.io(group) == [IoLimit("8:16", "read", 2097152, 42), IoLimit("8:16", "write", 120, 0, True)]


def test_limits_of_version_1(tmp_path: Path) -> None:
    """Each controller's files in its own tree."""
    cpu = put(tmp_path / "cpu", cpu__cfs_quota_us="150000\n", cpu__cfs_period_us="100000\n",
              cpu__stat="nr_periods 9\nnr_throttled 4\nthrottled_time 500000000\n")
    memory = put(tmp_path / "mem", **{"memory__limit_in_bytes": "4096\n", "memory__usage_in_bytes": "4096\n",
                                      "memory__failcnt": "12\n", "memory__oom_control": "oom_kill_disable 0\noom_kill 2\n"})
    blkio = put(tmp_path / "blk", **{"blkio__throttle__write_bps_device": "8:0 4194304\n", "blkio__throttle__read_bps_device": "",
                                     "blkio__throttle__io_service_bytes": "8:0 Read 1\n8:0 Write 99\nTotal 100\n",
                                     "blkio__throttle__read_iops_device": "8:0 100\n",
                                     "blkio__throttle__io_serviced": "8:0 Read 7\n8:0 Write 3\n"})
    cgroups = Cgroups(tmp_path, {})
    assert cgroups.cpu(Group(cpu, "cpu", "/")) == CpuLimit(1.5, 4, 0.5)
    assert cgroups.memory(Group(memory, "memory", "/")) == MemoryLimit(4096, 4096, 12, 2)
    assert cgroups.io(Group(blkio, "blkio", "/")) == [IoLimit("8:0", "write", 4194304, 99), IoLimit("8:0", "read", 100, 7, True)]


@pytest.mark.parametrize("controller", ["", "pids"])
def test_limits_of_tasks(tmp_path: Path, controller: str) -> None:
    """pids.max and pids.events are the same in both versions; without the count, or without a limit, none is known."""
    directory, cgroups = put(tmp_path / "g", pids__max="20\n", pids__events="max 7\n"), Cgroups(tmp_path, {})
    assert cgroups.tasks(Group(directory, controller, "/g")) == TaskLimit(20, 7)
    assert cgroups.tasks(Group(directory, "memory", "/g")) is None
    (directory / "pids.max").write_text("max\n")
    assert cgroups.tasks(Group(directory, controller, "/g")) is None
    assert cgroups.tasks(Group(put(tmp_path / "old", pids__max="20\n"), controller, "/old")) is None


@pytest.mark.parametrize("controller", ["", "pids"])
def test_the_limit_of_tasks_of_an_ancestor(tmp_path: Path, controller: str) -> None:
    """Where refusals are counted in the group of the process that forks: the limit with the least room is the one."""
    put(tmp_path / "a", pids__max="20\n", pids__current="20\n", pids__events="max 0\n")
    own = Group(put(tmp_path / "a/b/c", pids__max="max\n", pids__current="9\n", pids__events="max 7\n"), controller, "/a/b/c")
    put(tmp_path / "a/b", pids__max="500\n", pids__current="9\n", pids__events="max 0\n")
    cgroups = Cgroups(tmp_path, {})
    assert cgroups.tasks(own) == TaskLimit(20, 7, "/a")
    (tmp_path / "a/b/c/pids.max").write_text("9\n")
    assert cgroups.tasks(own) == TaskLimit(9, 7)


def test_refusals_are_counted_where_the_limit_is_on_new_kernels(tmp_path: Path) -> None:
    """pids.events has those of the descendants too, pids.events.local has not."""
    own = put(tmp_path / "a", pids__max="20\n", pids__events="max 7\n", pids__events__local="max 2\n")
    child = put(tmp_path / "a/b", pids__max="max\n", pids__events="max 0\n", pids__events__local="max 0\n")
    cgroups = Cgroups(tmp_path, {})
    assert (cgroups.tasks(Group(own, "", "/a")), cgroups.tasks(Group(child, "", "/a/b"))) == (TaskLimit(20, 2), None)


def test_a_kill_for_the_memory_limit_of_an_ancestor(tmp_path: Path) -> None:
    """Version 1 counts it in the group of the process that was killed."""
    limits = {"memory__failcnt": "0\n", "memory__oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"}
    child = put(tmp_path / "a/b", memory__limit_in_bytes="9223372036854771712\n", memory__usage_in_bytes="5\n", **limits)
    put(tmp_path / "a", memory__limit_in_bytes="1048576\n", memory__usage_in_bytes="900000\n")
    assert Cgroups(tmp_path, {}).memory(Group(child, "memory", "/a/b")) == MemoryLimit(1048576, 900000, 0, 1, "/a")


def test_a_group_without_limits_has_none(tmp_path: Path) -> None:
    """`max`, -1 and the largest number that fits are no limits; missing files are none either."""
    plain = put(tmp_path / "v2", cpu__max="max 100000\n", cpu__stat="nr_throttled 0\n", memory__max="max\n", memory__current="5\n")
    old = put(tmp_path / "v1", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n", cpu__stat="nr_throttled 0\n",
              memory__limit_in_bytes="9223372036854771712\n", memory__usage_in_bytes="5\n")
    cgroups = Cgroups(tmp_path, {})
    for group in (Group(plain, "", "/"), Group(old, "cpu", "/"), Group(old, "memory", "/"), Group(old, "blkio", "/"),
                  Group(tmp_path / "absent", "", "/")):
        assert (cgroups.cpu(group), cgroups.memory(group), cgroups.io(group)) == (None, None, [])


def test_mounts_of_a_hybrid_machine() -> None:
    """Version 1 by controller, version 2 under the empty name; the first mount of each counts."""
    lines = (b"30 23 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
             b"31 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
             b"32 23 0:27 / /mnt/again rw - cgroup2 cgroup2 rw\n23 1 0:1 / / rw - ext4 /dev/vda rw\nnonsense\n")
    assert parse_mounts(lines) == {"cpu": Path("/sys/fs/cgroup/cpu,cpuacct"), "": Path("/sys/fs/cgroup/unified")}


@given(st.binary(max_size=400))
def test_any_bytes_are_parsed(data: bytes) -> None:
    """A malformed file gives fewer values and never an exception."""
    for parse in (parse_cgroup, parse_mounts, parse_pairs, parse_devices, parse_throttle):
        parse(data)
