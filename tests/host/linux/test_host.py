"""The Linux host on recorded trees: every odd process, every fault, and the row of the whole machine."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rogue_hunter.host.linux import host as linux
from rogue_hunter.host.linux.exits import ExitReader
from rogue_hunter.host.linux.host import LinuxHost
from rogue_hunter.host.linux.process import Descriptors, Process
from rogue_hunter.host.linux.table import LIST_EVERY, SWEEP_S
from rogue_hunter.host.platform import here
from rogue_hunter.host.protocol import HostError, Snapshot
from rogue_hunter.schema.sampling import PROCESS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Row
from tests.host.linux.test_exits import message as exit_message
from tests.tools.processes import HZ, PAGE, PYTHON, REPO, Tree, by_pid, stat_line, status_text, unprivileged


class Watch:
    """A host on a tree, beat by beat."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.host = LinuxHost(tree.path, mono=lambda: tree.mono_ns, uptime=lambda: tree.uptime_s)

    def take(self, seconds: float = 1.0) -> Snapshot:
        self.tree.beat(seconds)
        return self.host.snapshot()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "proc")


@pytest.fixture
def watch(tree: Tree) -> Iterator[Watch]:
    made = Watch(tree)
    yield made
    made.host.close()


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Watch]:
    made = Watch(Tree(tmp_path / "recorded", recorded=True))
    yield made
    made.host.close()


# -- the recorded machine --------------------------------------------------------------------------------------------

READABLE = {2, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1015}
"""Processes of the fixture that can be reported; 1012 is cut short, 1013 empty, 1014 vanished while it was listed."""


def test_recorded_machine(recorded: Watch) -> None:
    """Readable processes are reported, malformed ones counted, exited ones ignored."""
    shot = recorded.take()
    assert set(by_pid(shot)) == READABLE
    assert (shot.started, shot.errors, shot.exited) == (len(READABLE), 2, ())
    assert shot.changed == set(shot.processes)
    assert shot.active == 0 and shot.cpu_cores is None
    assert {k[1] for k in shot.processes if k[0] == 1000} == {426727}


@pytest.mark.parametrize(
    ("pid", "fields"),
    [
        (
            2,
            {
                "command": "kthreadd",
                "ppid": 0,
                "memory_bytes": 0,
                "memory_peak_bytes": None,
                "exe": None,
                "cmdline": None,
            },
        ),
        (1000, {"command": "python3", "state": "sleeping", "exe": "/usr/bin/python3.11", "threads": 1}),
        (1001, {"threads": 4, "uid": 1001, "run_delay_seconds_total": None}),
        (1002, {"state": "defunct", "state_raw": None, "exe": None, "cmdline": None, "memory_bytes": 0}),
        (1003, {"state": "stopped"}),
        (1004, {"state": "uninterruptible", "command": "d"}),
        (1005, {"command": "foo) Z 1 2 3", "state": "sleeping"}),
        (1006, {"command": "a\nb) R 9 9", "state": "sleeping"}),
        (1007, {"command": "\\xff\\xfe\x1b[2J)(", "state": "sleeping"}),
        (1008, {"exe": "/usr/bin/gone (deleted)"}),
        (1009, {"cmdline": None}),
        (1010, {"cmdline": "postgres: user db password=*** idle"}),
        (1011, {"command": "old", "memory_bytes": 2012 * PAGE}),
        (1015, {"uid": None, "disk_read_bytes_total": None, "wakeups_total": None, "user": None, "command": "python3"}),
    ],
)
def test_recorded_process(recorded: Watch, pid: int, fields: dict[str, Any]) -> None:
    """Kernel threads, zombies, stopped, stuck, hostile names, titles, old kernels: each as it is."""
    made = by_pid(recorded.take())[pid]
    assert {name: made.get(name) for name in fields} == fields
    assert made["start_time"] == pytest.approx(1795250738 + made["start_ticks"] / HZ, abs=0.01)


def test_recorded_rows_keep_the_contract(recorded: Watch) -> None:
    """Every row of every process passes the check that a reader makes, and goes through the wire."""
    for _ in range(2):
        shot = recorded.take()
        for made in shot.processes.values():
            wire.check("process", {"ts": 0.0, "seq": 0, **made})
            assert set(made) <= {f.name for f in PROCESS} and None not in made.values()
            assert wire.loads(wire.dumps(made)) == made
        wire.check(
            "tick",
            {
                **dict.fromkeys(("ts", "interval_s", "late_s"), 0.0),
                "boot_id": "",
                "os": "",
                "mono_ns": 0,
                **dict.fromkeys(("seq", "processes", "active", "started", "exited", "unreadable", "errors"), 0),
                **shot.machine,
            },
        )


def test_facts(recorded: Watch) -> None:
    """Facts come from the tree, not from the machine that reads it."""
    facts = recorded.host.facts()
    assert (facts.os, facts.host, facts.boot_id, facts.cpus) == (
        "linux",
        "testhost",
        "0b00710d-0000-4000-8000-000000000001",
        2,
    )
    assert facts.memory_total_bytes == 24684092 * 1024


def test_rows_that_say_the_same_are_the_same(recorded: Watch) -> None:
    """An idle tick changes no row object but those that rest for the first time, and the one after it none at all: not
    even the mapping is a new one. A mapping that was returned is never changed."""
    first, second, third = (recorded.take() for _ in range(3))
    assert {k for k in second.processes if second.processes[k] is not first.processes[k]} == second.changed
    assert third.changed == set() and (third.active, third.started, third.exited) == (0, 0, ())
    assert third.processes is second.processes is not first.processes
    pid = next(iter(third.processes))[0]
    before = dict(third.processes)
    recorded.tree.remove(pid)
    assert recorded.take().processes.keys() < before.keys() and third.processes == before


def test_without_a_tree(tmp_path: Path) -> None:
    """No /proc is an error of the host, with the name of the place."""
    with pytest.raises(HostError, match="nowhere"):
        LinuxHost(tmp_path / "nowhere")
    with pytest.raises(HostError, match="file"):
        (tmp_path / "file").write_text("")
        here(tmp_path / "file")


def test_empty_tree(tmp_path: Path) -> None:
    """A tree without anything is no /proc; one process makes it one, other missing files are left out."""
    tmp_path.joinpath("proc").mkdir()
    with pytest.raises(HostError, match="holds no processes; is /proc mounted"):
        here(tmp_path / "proc")
    tmp_path.joinpath("proc", "7").mkdir()
    host = here(tmp_path / "proc")
    assert host.facts().boot_id == "unknown"
    shot = host.snapshot()
    assert (shot.processes, shot.machine, shot.errors) == ({}, {}, 0)
    host.close()


# -- lives -----------------------------------------------------------------------------------------------------------


def test_life(watch: Watch) -> None:
    """Begun, run, rested, gone: each once, with its rates and its place in the sets of the tick."""
    tree = watch.tree
    tree.process(7)
    watch.take()
    tree.process(9, start=round(tree.uptime_s * HZ) + HZ // 2, utime=HZ // 4)
    shot = watch.take()
    k = next(key for key in shot.processes if key[0] == 9)
    assert (shot.started, shot.active, shot.changed - {(7, 1000)}) == (1, 1, {k})
    assert shot.processes[k]["cpu_percent"] == 50.0 and shot.cpu_cores == pytest.approx(0.5)
    watch.host._describer.wait(10)
    tree.process(9, start=k[1], utime=HZ)
    shot = watch.take()
    assert shot.processes[k]["cpu_percent"] == 75.0 and (shot.started, shot.active) == (0, 1)
    shot = watch.take()
    assert shot.processes[k]["cpu_percent"] == 0.0 and shot.active == 0 and shot.cpu_cores == 0 and shot.changed == {k}
    assert watch.take().changed == set()
    tree.remove(9)
    shot = watch.take()
    assert shot.exited == (k,) and set(shot.processes) == {(7, 1000)} and shot.changed == set()
    assert watch.take().exited == ()


def test_reused_pid(watch: Watch) -> None:
    """The same pid with another start time: one is gone, another began, both in one tick, nothing is carried over."""
    watch.tree.process(9, utime=500)
    watch.take()
    watch.take()
    start = round(watch.tree.uptime_s * HZ) + HZ // 2
    watch.tree.process(9, comm=b"new", start=start, utime=HZ // 10)
    shot = watch.take()
    assert shot.exited == ((9, 1000),) and set(shot.processes) == {(9, start)} == shot.changed
    assert (shot.started, shot.errors) == (1, 0)
    made = shot.processes[9, start]
    assert made["command"] == "new" and made["cpu_percent"] == 20.0


def test_vanished_and_back(watch: Watch) -> None:
    """A process whose files are gone while its directory stands is gone; the same identity later is found again."""
    watch.tree.process(9)
    watch.take()
    (watch.tree.path / "9/stat").unlink()
    assert watch.take().exited == ((9, 1000),)
    assert watch.take().errors == 0
    watch.tree.process(9)
    assert watch.take().started == 1


def test_new_name_is_described_again(watch: Watch) -> None:
    """After an exec the program and the command line are those of the new program."""
    watch.tree.process(9, comm=b"sh", cmdline=b"sh\0")
    assert by_pid(watch.take())[9]["cmdline"] == "sh"
    watch.tree.process(9, comm=b"vim", cmdline=b"vim\0x\0")
    assert by_pid(watch.take())[9]["command"] == "vim"
    watch.host._describer.wait(10)
    made = by_pid(watch.take())[9]
    assert made["cmdline"] == "vim x" and made["command"] == "vim"


def test_a_user_in_many_groups(watch: Watch) -> None:
    """Their numbers come before the counters in /proc/PID/status, which is then longer than a page."""
    watch.tree.process(7, voluntary=5)
    groups = b"Groups:\t" + b" ".join(b"%d" % (1_400_000_000 + n) for n in range(900)) + b"\n"
    watch.tree.write("7/status", groups.join(status_text(voluntary=5).partition(b"Gid:\t0\t0\t0\t0\n")[::2]))
    assert by_pid(watch.take())[7]["wakeups_total"] == 5


def test_orphan_learns_its_new_parent(watch: Watch) -> None:
    """A process does not run to get another parent: when its parent goes, it is asked at once."""
    watch.tree.process(9)
    watch.tree.process(10, ppid=9)
    watch.take()
    watch.tree.remove(9)
    watch.tree.write("10/stat", stat_line(10, ppid=1))
    assert by_pid(watch.take())[10]["ppid"] == 1


def test_everything_is_read_once_a_minute(watch: Watch) -> None:
    """What others can change of an idle process (files that the gate does not show) is read within a minute, evenly."""
    for pid in range(10, 70):
        watch.tree.process(pid, peak_kb=4)
    watch.take()
    watch.take()
    for pid in range(10, 70):
        watch.tree.write(f"{pid}/status", status_text(1000, 8))
    seen = []
    for _ in range(int(SWEEP_S) + 2):
        shot = watch.take()
        seen.append(sum(made["memory_peak_bytes"] == 8192 for made in shot.processes.values()))
        assert shot.active == 0
    assert seen[-1] == 60
    assert all(after - before <= 2 for before, after in pairwise(seen))


def test_names_that_are_no_processes(watch: Watch) -> None:
    """Other entries of /proc, digits of other scripts among them, are no processes."""
    for name in ("self", "tty", "12a", "१२", "-5", "+7", "1_0"):
        watch.tree.write(f"{name}/stat", stat_line(5))
    watch.tree.process(12)
    assert set(by_pid(watch.take())) == {12}


# -- faults ----------------------------------------------------------------------------------------------------------

JUNK = {
    "empty": b"",
    "letter": b"x",
    "parenthesis": b")",
    "NULs": b"\0" * 300,
    "cut behind the name": b"9 (x) ",
    "no numbers": b"9 (x) S a b c",
    "10 MB": b"9 (" + b"x" * 10_000_000 + b") S 1",
    "10 MB of digits": b"9 (x) S " + b"1" * 10_000_000,
    "too large": stat_line(9, rss=1 << 62),
    "too large start": stat_line(9, start=1 << 64),
    "negative start": stat_line(9, start=-5),
    "too large time": stat_line(9, utime=10**400),
    "not digits": stat_line(9).replace(b" 1000 ", b" 1e3 "),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_stat_that_makes_no_sense(watch: Watch, junk: bytes) -> None:
    """The row is left out and counted, every other process is reported, and a good stat later is read."""
    watch.tree.process(8)
    watch.tree.write("9/stat", junk)
    shot = watch.take()
    assert set(by_pid(shot)) == {8} and shot.errors == 1
    watch.tree.process(9)
    assert set(by_pid(watch.take())) == {8, 9}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_stat_that_turns_to_nonsense(watch: Watch, junk: bytes) -> None:
    """A process that was known keeps its last good row while its files are malformed, and continues after."""
    watch.tree.process(9, utime=5)
    watch.take()
    before = by_pid(watch.take())[9]
    watch.tree.write("9/stat", junk)
    shot = watch.take()
    if shot.exited:
        assert b"start" not in junk and set(by_pid(shot)) <= {9}
    else:
        assert shot.errors == 1 and by_pid(shot)[9] is before
    watch.tree.process(9, utime=6)
    shot = watch.take()
    assert by_pid(shot)[9]["cpu_seconds_total"] == 6 / HZ and shot.errors == 0


@pytest.mark.parametrize("name", ["status", "io", "schedstat"])
@pytest.mark.parametrize(
    "junk", [b"", b"\xff", b"\nUid:\t1\n", b"\nread_bytes: x\n", b"7", b"\nvoluntary_ctxt_switches: 1", b"x" * 100_000]
)
def test_other_files_that_make_no_sense(watch: Watch, name: str, junk: bytes) -> None:
    """No file of a process can end the tick: either that part is unknown or the process is counted as an error."""
    watch.tree.process(8)
    watch.tree.process(9)
    watch.take()
    watch.tree.process(9, utime=5)
    watch.tree.write(f"9/{name}", junk)
    shot = watch.take()
    assert 8 in by_pid(shot) and shot.errors <= 1
    watch.tree.process(9, utime=7)
    (watch.tree.path / f"9/{name}").write_bytes(
        status_text()
        if name == "status"
        else b"1 1 1"
        if name == "schedstat"
        else b"x: 1\nread_bytes: 1\nwrite_bytes: 1\n"
    )
    assert by_pid(watch.take())[9]["cpu_seconds_total"] == 7 / HZ


@settings(max_examples=100 if "RH_LONG" in os.environ else 30)
@given(st.data())
def test_any_bytes_in_any_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any recorded tree gives a snapshot, and its rows can be written and read."""
    tree = Tree(tmp_path_factory.mktemp("any") / "proc")
    watch = Watch(tree)
    try:
        for _ in range(2):
            for pid in (8, 9):
                tree.process(pid, utime=data.draw(st.integers(0, 9)))
            for name in data.draw(
                st.lists(
                    st.sampled_from(
                        [
                            "9/stat",
                            "9/status",
                            "9/io",
                            "9/cmdline",
                            "9/cgroup",
                            "stat",
                            "meminfo",
                            "uptime",
                            "pressure/io",
                            "9/schedstat",
                        ]
                    ),
                    max_size=4,
                )
            ):
                raw = data.draw(
                    st.binary(max_size=40) | st.sampled_from([b"", stat_line(9, rss=1 << 70), b"9" * 40, b"-1 -1 -1"])
                )
                tree.write(name, raw)
            shot = watch.take()
            assert 8 in by_pid(shot)
            for made in shot.processes.values():
                wire.check("process", {"ts": 0.0, "seq": 0, **made})
    finally:
        watch.host.close()
        shutil.rmtree(tree.path.parent)


def test_tree_that_goes_away(watch: Watch) -> None:
    """Once running, a tree that cannot be listed is an error of the tick, not the end."""
    watch.tree.process(9)
    watch.take()
    shutil.rmtree(watch.tree.path)
    shot = watch.take()
    assert shot.errors >= 1 and shot.exited == ((9, 1000),)


def test_tree_that_cannot_be_listed_at_first(watch: Watch) -> None:
    """At the first reading it is the end, with the reason."""
    shutil.rmtree(watch.tree.path)
    with pytest.raises(HostError, match="No such file"):
        watch.take()


CHILD = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from rogue_hunter.host.linux.exits import ExitReader
from rogue_hunter.host.linux.host import LinuxHost
host = LinuxHost(Path(sys.argv[2]))
for _ in range(3):
    shot = host.snapshot()
print(sorted(k[0] for k in shot.processes), shot.unreadable, shot.errors,
      sorted({"disk_read_bytes_total", "wakeups_total", "uid", "cmdline"} & shot.processes[10, 1000].keys()))
"""


def as_nobody(code: str, *args: str) -> str:
    """What a child that is not root says."""
    prefix = unprivileged()
    if prefix is None:
        pytest.skip("needs an interpreter that another user may run, and setpriv")
    run = subprocess.run(
        [*prefix, PYTHON, "-B", "-c", code, *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_denied(tree: Tree) -> None:
    """What may not be read is counted as unreadable, its fields are unknown, and the other processes are reported."""
    for pid in (9, 10, 11, 12):
        tree.process(pid, cmdline=b"x\0")
    for place in tree.path.rglob("*"):      # independent of the umask
        place.chmod(0o755 if place.is_dir() else 0o644)
    for name in ("10/io", "10/status", "10/cmdline", "11/stat"):
        (tree.path / name).chmod(0)
    (tree.path / "12").chmod(0)
    # What pytest closed to others: the directories of the test, the worker, the run.
    for place in (tree.path, *tree.path.parents[:4]):
        place.chmod(place.stat().st_mode | 0o055)
    try:
        assert as_nobody(CHILD, str(REPO), str(tree.path)) == "[9, 10] 3 0 []\n"
    finally:
        (tree.path / "12").chmod(0o755)


# -- what costs ------------------------------------------------------------------------------------------------------


def test_list_every() -> None:
    """Thirty seconds at 3 Hz: long enough to cost nothing, short enough to find what the last pid hides."""
    assert LIST_EVERY == 30


def rows_of(shot: Snapshot) -> dict[int, Row]:
    return by_pid(shot)


@pytest.mark.parametrize("seed", range(3))
def test_any_course_of_a_machine(watch: Watch, seed: int) -> None:
    """However processes begin, run, end and are reused, each snapshot holds exactly the living ones, once."""
    import random

    r = random.Random(seed)
    alive: dict[int, tuple[int, int]] = {}
    started = 1000
    before: set[tuple[int, int]] = set()
    act: dict[str, Callable[[int], None]] = {
        "begin": lambda pid: alive.update({pid: (started, 0)}),
        "run": lambda pid: alive.update(
            {pid: (alive[pid][0], alive[pid][1] + r.randint(1, 9))} if pid in alive else {}
        ),
        "end": lambda pid: alive.pop(pid, None) and None,
    }
    for _ in range(60):
        for _ in range(r.randint(0, 6)):
            started += 1
            pid = r.randint(10, 30)
            act[r.choice(("begin", "run", "run", "end"))](pid)
            if pid in alive:
                watch.tree.process(pid, start=alive[pid][0], utime=alive[pid][1])
            elif (watch.tree.path / str(pid)).exists():
                watch.tree.remove(pid)
        shot = watch.take(r.choice((0.3, 1.0, 5.0)))
        now = {(pid, start) for pid, (start, _) in alive.items()}
        assert set(shot.processes) == now
        assert set(shot.exited) == before - now and shot.started == len(now - before)
        assert shot.changed <= now and now - before <= shot.changed
        assert (shot.errors, shot.unreadable) == (0, 0)
        assert all(
            shot.processes[pid, start]["cpu_seconds_total"] == ticks / HZ for pid, (start, ticks) in alive.items()
        )
        before = now


# -- kept descriptors, on a tree that is taken for a live one --------------------------------------------------------


@pytest.fixture
def kept(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A host that keeps descriptors as on a live /proc, of files that the test writes."""
    monkeypatch.setattr(linux, "is_procfs", lambda root: True)
    tree.write("self/schedstat", b"1 1 1\n")
    for pid in range(10, 15):
        tree.process(pid)
        tree.write(f"{pid}/schedstat", b"1 1 1\n")
    made = Watch(tree)
    made.host._files.hot_limit = 2
    yield made
    made.host.close()


def overwrite(file: Path, data: bytes) -> None:
    """Write into the existing file: processes that have it open see the change."""
    with open(file, "r+b") as stream:
        stream.write(data)
        stream.truncate()


def ran(watch: Watch, pid: int, ticks: int) -> None:
    """The process used so many clock ticks in all."""
    overwrite(watch.tree.path / f"{pid}/stat", stat_line(pid, utime=ticks))
    overwrite(watch.tree.path / f"{pid}/schedstat", b"%d 1 1\n" % (ticks * 10**9 // HZ))


def test_least_recently_used_descriptors_are_closed(kept: Watch) -> None:
    """Of the processes that ran, the last ones keep their descriptors; the others are opened again when they run."""
    kept.take()
    assert len(kept.host._files.hot) == 0, "most processes do not run again soon"
    for pid in range(10, 15):
        ran(kept, pid, 1)
    kept.take()
    assert len(kept.host._files.hot) == 2
    before = len(os.listdir("/proc/self/fd"))
    order = []
    for ticks, pid in enumerate((10, 11, 12, 11, 10, 14, 14, 13), 2):
        ran(kept, pid, ticks)
        shot = kept.take()
        assert by_pid(shot)[pid]["cpu_seconds_total"] == ticks / HZ and shot.active == 1
        order = [other for other in order if other != pid] + [pid]
        assert [k[0] for k in kept.host._files.hot][-len(order[-2:]) :] == order[-2:]
        assert {p.key for p in kept.host._table.processes.values() if p.fds is not None} == set(kept.host._files.hot)
        assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_to_be_had(kept: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the limit is lower than reported, hot descriptors are given back until there is one; all are reported."""
    kept.take()
    real = Process.open
    free = [1]

    def limited(self: Process, root: Path, schedstat: bool) -> Descriptors:
        if len(kept.host._files.hot) >= free[0]:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self, root, schedstat)

    monkeypatch.setattr(Process, "open", limited)
    for ticks, pid in enumerate((10, 11, 12, 13, 14, 10, 11), 2):
        ran(kept, pid, ticks)
        shot = kept.take()
        assert by_pid(shot)[pid]["cpu_seconds_total"] == ticks / HZ and shot.errors == 0
    assert kept.host._files.hot_limit == 1


def test_pid_that_changes_hands_within_a_tick(kept: Watch) -> None:
    """The gate reported that the process ran; when its other files are opened they are another's. Nothing of that one is
    reported as if it were the first."""
    kept.take()
    pid = next(p.key[0] for p in kept.host._table.processes.values() if p.fds is None)
    ran(kept, pid, 5)
    (kept.tree.path / str(pid)).rename(kept.tree.path / "dead")
    kept.tree.process(pid, comm=b"other", start=2000, utime=900)
    kept.tree.write(f"{pid}/schedstat", b"9 9 9\n")
    for _ in range(3):
        shot = kept.take()
        made = shot.processes.get((pid, 1000))
        assert made is None or (made["command"], made["cpu_seconds_total"]) == ("x", 0)
        assert shot.errors == 0
    assert shot.processes[pid, 2000]["command"] == "other", "what is read without having run finds the change as well"


def test_idle_files_are_not_opened(kept: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two ticks in which no process ran no file of a process is opened."""
    kept.take()
    kept.take()
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *args, **more: opened.append(str(path)) or real(path, *args, **more))  # type: ignore[func-returns-value]
    shot = kept.take(0.001)
    assert shot.active == 0
    assert [path for path in opened if any(f"/{pid}/" in path for pid in range(10, 15))] == []


def test_gate_without_a_descriptor(kept: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """When not even a gate can be opened any more, the process is opened again at each tick, and nothing is lost."""
    real = os.open

    def limited(path: Any, *args: Any, **more: Any) -> int:
        if str(path).endswith("/schedstat") and "/1" in str(path):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", limited)
    shot = kept.take()
    assert set(by_pid(shot)) == {10, 11, 12, 13, 14} and shot.errors == 0
    assert len(kept.host._files.cold) == 5 and len(kept.host._files.sched) == 0
    ran(kept, 12, 7)
    shot = kept.take()
    assert by_pid(shot)[12]["cpu_seconds_total"] == 7 / HZ and (shot.active, shot.errors) == (1, 0)
    kept.tree.remove(12)
    assert kept.take().exited == ((12, 1000),)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE])
def test_every_call_may_fail(tree: Tree, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The first, the second, ... the last call of a snapshot fails once, in every way that the kernel knows: the
    snapshot is taken all the same, and the ticks after it are whole again."""
    monkeypatch.setattr(linux, "is_procfs", lambda root: True)
    tree.write("self/schedstat", b"1 1 1\n")
    for pid in (10, 11):
        tree.process(pid)
        tree.write(f"{pid}/schedstat", b"1 1 1\n")
    real = {name: getattr(os, name) for name in ("open", "pread", "read", "listdir")}
    calls = 0
    fails_at = 0

    def failing(name: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal calls
            if threading.current_thread() is threading.main_thread():
                calls += 1
                if calls == fails_at:
                    raise OSError(code, os.strerror(code))
            return real[name](*args, **more)

        return call

    while calls >= fails_at:
        fails_at, calls = fails_at + 1, 0
        watch = Watch(tree)
        watch.host._files.sched._pread = watch.host._files.stat._pread = failing("pread")
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, failing(name))
            with suppress(HostError):
                watch.take()
                ran(watch, 10, fails_at + 1)
                watch.take()
        made, calls = calls, -1000
        watch.take()
        last = watch.take()
        assert set(by_pid(last)) == {10, 11} and last.errors == 0, fails_at
        watch.host.close()
        calls = made
    assert fails_at > 25


def test_children_that_no_parent_waits_for_are_counted_for_the_parent_of_one_of_them(tree: Tree) -> None:
    """A supervisor ignores SIGCHLD: the kernel names no parent. One of its children is seen, and then it is known."""
    tree.process(9)
    tree.process(100, ppid=9)
    line: list[bytes] = []

    class Line:
        def recv(self, _size: int, /) -> bytes:
            if not line:
                raise BlockingIOError
            return line.pop()

        def close(self) -> None:
            line.clear()

    host = LinuxHost(tree.path, exits=ExitReader(Line()))
    (key,) = [key for key in host.snapshot().processes if key[0] == 9]
    tree.remove(100)
    line += [exit_message(100, 0, 256)]
    while 100 in by_pid(host.snapshot()):
        line += [exit_message(100, 0, 256)]
    line += [exit_message(pid, 0) for pid in range(200, 204)]
    assert host.snapshot().processes[key]["children_exited"] == 4
    host.close()


def test_children_that_ended_are_in_the_row_of_their_parent(tree: Tree) -> None:
    """For one tick: the next one, in which none ends, has the row without them, and says that it changed."""
    tree.process(9)
    line = [exit_message(100, 9), exit_message(101, 9, 256)]

    class Line:
        def recv(self, _size: int, /) -> bytes:
            if not line:
                raise BlockingIOError
            return line.pop()

        def close(self) -> None:
            line.clear()

    host = LinuxHost(tree.path, exits=ExitReader(Line()))
    (key,) = [key for key in host.snapshot().processes if key[0] == 9]
    shot = host.snapshot()
    assert "children_exited" not in shot.processes[key] and key in shot.changed
    line += [exit_message(102, 9)]
    shot = host.snapshot()
    assert (shot.processes[key]["children_exited"], shot.processes[key]["children_failed"]) == (1, 0)
    assert key in shot.changed
    host.close()
