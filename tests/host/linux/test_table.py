"""The table of processes on a tree that is taken for our own /proc: which ones are found, read, touched, reported again, forgotten."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rogue_hunter.host.linux import host, table
from rogue_hunter.host.linux.describe import THREADS_MAX
from rogue_hunter.host.linux.host import LIGHT_EVERY_NS, LinuxHost
from rogue_hunter.host.linux.parse import PF_KTHREAD
from rogue_hunter.host.linux.table import LIST_EVERY, SWEEP_S
from rogue_hunter.host.protocol import Snapshot
from tests.tools.processes import HZ, PAGE, Tree, by_pid, stat_line, status_text


class Kept:
    """A host that keeps gates open and lists only when a pid was given out, beat by beat."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.listed = 0
        tree.write("self/schedstat", b"1 1 1\n")
        tree.write("loadavg", b"0.00 0.00 0.00 1/9 100\n")

    def start(self) -> None:
        self.host = LinuxHost(self.tree.path, mono=lambda: self.tree.mono_ns, uptime=lambda: self.tree.uptime_s)

    def put(self, pid: int, **fields: Any) -> None:
        """A process that no counter shows yet."""
        self.tree.process(pid, **fields)
        self.tree.write(f"{pid}/schedstat", b"1 1 1\n")

    def last_pid(self, pid: int) -> None:
        self.overwrite("loadavg", b"0.00 0.00 0.00 1/9 %d\n" % pid)

    def overwrite(self, name: str, data: bytes) -> None:
        """Write into the existing file: processes that have it open see the change."""
        with open(self.tree.path / name, "r+b") as stream:
            stream.write(data)
            stream.truncate()

    def ran(self, pid: int, ticks: int, **fields: Any) -> None:
        """The process used so many clock ticks in all."""
        self.overwrite(f"{pid}/stat", stat_line(pid, utime=ticks, **fields))
        self.overwrite(f"{pid}/schedstat", b"%d 1 1\n" % (ticks * 10**9 // HZ))

    def settled(self) -> None:
        """All are found, and have rested."""
        self.take()
        self.take()

    def take(self, seconds: float = 1.0) -> Snapshot:
        self.tree.beat(seconds)
        return self.host.snapshot()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr(host, "is_procfs", lambda root: True)
    monkeypatch.setattr(table, "own_namespace", lambda root: True)
    made = Kept(Tree(tmp_path / "proc"))
    made.put(10)
    made.start()
    real = os.listdir

    def listdir(path: Any = ".") -> list[str]:
        made.listed += path == made.tree.path
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    yield made
    made.host.close()


def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> Callable[[], None]:
    """Opening files that end so fails, until what is given is called."""
    real = os.open

    def limited(path: Any, *args: Any, **more: Any) -> int:
        if str(path).endswith(name):
            raise OSError(code, os.strerror(code))
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", limited)
    return lambda: monkeypatch.setattr(os, "open", real)


# -- finding processes ------------------------------------------------------------------------------------------------------


def test_there_is_no_search_while_no_pid_was_given_out(kept: Kept) -> None:
    """One listing at first, then one in LIST_EVERY ticks, independent of the last pid; a process that it hid is found
    by that."""
    kept.take()
    kept.put(20)
    found = [20 in by_pid(kept.take()) for _ in range(3 * LIST_EVERY)]
    assert kept.listed == 1 + 3
    assert found == [False] * (LIST_EVERY - 2) + [True] * (2 * LIST_EVERY + 2)


def test_a_pid_that_is_given_out_is_looked_for_at_once(kept: Kept) -> None:
    kept.take()
    kept.put(101)
    kept.last_pid(101)
    shot = kept.take()
    assert (set(by_pid(shot)), shot.started, shot.active, kept.listed) == ({10, 101}, 1, 1, 2)
    assert kept.take().started == 0 and kept.listed == 2


def test_a_pid_that_is_given_out_again_is_looked_for(kept: Kept) -> None:
    """The last pid died and was used again between two ticks: the number stands, and who had it is gone."""
    kept.put(100)
    kept.settled()
    (kept.tree.path / "100").rename(kept.tree.path / "dead")
    for name in ("stat", "schedstat"):
        (kept.tree.path / "dead" / name).write_bytes(b"")     # what a kept descriptor of the dead reads is no number
    gone = kept.host._table.processes[100, 1000]
    kept.put(100, start=2000, comm=b"other")
    kept.host._files.poll = lambda: ([], [gone])    # type: ignore[method-assign]
    shot = kept.take()
    assert shot.exited == ((100, 1000),) and (100, 2000) in shot.processes
    assert shot.processes[100, 2000]["command"] == "other" and shot.changed == {(100, 2000)}


def test_without_a_last_pid_every_tick_lists(kept: Kept) -> None:
    kept.take()
    kept.overwrite("loadavg", b"")
    for _ in range(3):
        kept.take()
    assert kept.listed == 4


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("name", ["20/stat", "20/schedstat", "/20"])
def test_a_process_that_cannot_be_read_now_is_read_at_the_next_tick(
        kept: Kept, monkeypatch: pytest.MonkeyPatch, code: int, name: str) -> None:
    kept.take()
    kept.put(20)
    kept.last_pid(101)
    heal = failing(monkeypatch, name, code)
    shot = kept.take()
    heal()
    assert 20 in by_pid(shot) or shot.errors == 1
    shot = kept.take()
    assert 20 in by_pid(shot) and shot.errors == 0
    assert kept.take().errors == 0 and (20, 1000) in kept.host._table.processes


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH])
def test_an_exit_before_the_first_reading_is_silent(kept: Kept, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    kept.take()
    kept.put(20)
    kept.last_pid(101)
    failing(monkeypatch, "20/stat", code)
    shot = kept.take()
    assert (set(by_pid(shot)), shot.errors, shot.unreadable, shot.started) == ({10}, 0, 0, 0)
    kept.take()
    assert kept.listed == 2, "nobody waits for it"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_whose_stat_may_not_be_read_is_counted(kept: Kept, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    kept.put(20)
    heal = failing(monkeypatch, "20/stat", code)
    for _ in range(3):
        shot = kept.take()
        assert (set(by_pid(shot)), shot.errors, shot.unreadable) == ({10}, 0, 1)
    heal()
    kept.last_pid(101)
    shot = kept.take()
    assert (set(by_pid(shot)), shot.unreadable) == ({10, 20}, 0)


def test_what_may_not_be_read_of_a_process_is_counted_as_long_as_it_lives(
        kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put(20)
    failing(monkeypatch, "io", errno.EACCES)
    assert [kept.take().unreadable for _ in range(2)] == [2, 2]
    gone = kept.host._table.processes[20, 1000]
    kept.host._files.poll = lambda: ([], [gone])    # type: ignore[method-assign]
    assert kept.take().unreadable == 1


def test_a_newcomer_counts_with_what_it_used(kept: Kept) -> None:
    """In the first snapshot no process is known to have run; from then on a new process is active with its CPU time."""
    shot = kept.take()
    assert (shot.started, shot.active, shot.cpu_cores) == (1, 0, None)
    kept.put(20, start=round(kept.tree.uptime_s * HZ) + HZ // 2, utime=HZ // 4)
    kept.overwrite("20/schedstat", b"250000000 0 1\n")
    kept.last_pid(101)
    kept.ran(10, HZ // 2)
    shot = kept.take()
    assert (shot.started, shot.active) == (1, 2) and shot.cpu_cores == pytest.approx(0.5 + 0.5)
    assert kept.take().cpu_cores == 0.0


# -- who did not run -------------------------------------------------------------------------------------------------


def test_children_of_the_dead_are_asked_for_their_new_parent(kept: Kept) -> None:
    """They do not run for it, so nothing else would tell; who has a living parent is not asked."""
    for pid, ppid in ((20, 1), (21, 20), (22, 20), (23, 10)):
        kept.put(pid, ppid=ppid)
    kept.settled()
    for pid in (21, 22, 23):
        kept.overwrite(f"{pid}/stat", stat_line(pid, ppid=7))
    gone = kept.host._table.processes[20, 1000]
    kept.host._files.poll = lambda: ([], [gone])    # type: ignore[method-assign]
    shot = kept.take()
    assert {pid: made["ppid"] for pid, made in by_pid(shot).items()} == {10: 1, 21: 7, 22: 7, 23: 10}
    assert shot.changed == {(21, 1000), (22, 1000)} and shot.active == 0


def test_newcomers_whose_parent_is_nowhere_are_asked_at_the_next_tick(kept: Kept) -> None:
    """It died before it was seen. Who has a parent that is known, or none, is not asked."""
    kept.take()
    for pid, ppid in ((20, 99), (21, 10), (22, 0)):
        kept.put(pid, ppid=ppid)
    kept.last_pid(101)
    assert {pid: made["ppid"] for pid, made in by_pid(kept.take()).items()} == {10: 1, 20: 99, 21: 10, 22: 0}
    for pid in (20, 21, 22):
        kept.overwrite(f"{pid}/stat", stat_line(pid, ppid=7))
    kept.tree.beat(1.0)
    shot = kept.host.snapshot()
    assert {pid: made["ppid"] for pid, made in by_pid(shot).items()} == {10: 1, 20: 7, 21: 10, 22: 0}


def test_memory_that_is_taken_is_seen_within_a_minute(kept: Kept) -> None:
    """And nothing else of the row changes; a process of which nothing was taken keeps its row."""
    kept.put(20)
    kept.take()
    before = by_pid(kept.take())
    kept.overwrite("20/stat", stat_line(20, rss=50))
    changed = [shot.changed for shot in (kept.take() for _ in range(int(SWEEP_S) + 1))]
    after = {key[0]: row for key, row in kept.host._rows.items()}
    assert after[20] == {**before[20], "memory_bytes": 50 * PAGE} and after[10] is before[10]
    assert [some for some in changed if some] == [{(20, 1000)}]


def test_a_pid_in_other_hands_is_found_by_a_look_at_it(kept: Kept) -> None:
    """A gate that shows nothing (two idle processes with equal files) does not hide who it is."""
    kept.put(20)
    kept.take()
    kept.overwrite("20/stat", stat_line(20, start=3000, comm=b"other"))
    shots = [kept.take() for _ in range(int(SWEEP_S) + 2)]
    (gone,) = [shot for shot in shots if shot.exited]
    assert gone.exited == ((20, 1000),) and (20, 1000) not in gone.processes
    assert shots[-1].processes[20, 3000]["command"] == "other" and sum(shot.started for shot in shots) == 1
    assert all(shot.errors == 0 for shot in shots)


def test_who_ran_rests_once(kept: Kept) -> None:
    """Rates of 0 in the first tick without a run; after that the row stands."""
    kept.take()
    kept.ran(10, HZ)
    ran = kept.take()
    rest, still = kept.take(), kept.take()
    row = by_pid(rest)[10]
    assert by_pid(ran)[10]["cpu_percent"] == 100.0 and row["cpu_percent"] == 0.0
    assert (ran.active, rest.active, still.active) == (1, 0, 0)
    assert (rest.changed, still.changed) == ({(10, 1000)}, set()) and by_pid(still)[10] is row


# -- our own row -----------------------------------------------------------------------------------------------------


def test_our_own_row_is_kept_for_two_beats_of_three(kept: Kept) -> None:
    """We run in all of them and count in all of them, with what our row says; we are never put to rest."""
    own = os.getpid()
    kept.put(own)
    kept.take()
    rows, said, steady = [], [], []
    for i in range(1, 11):
        kept.ran(own, i * HZ // 10)
        shot = kept.take(0.3)
        steady.append(not shot.changed)
        rows.append(by_pid(shot)[own])
        said.append((shot.active, round(shot.cpu_cores or 0.0, 3)))
    new = [i for i in range(10) if i == 0 or rows[i] is not rows[i - 1]]
    assert new == [0, 2, 5, 8] and 2 * 0.3e9 < LIGHT_EVERY_NS < 3 * 0.3e9
    assert [i for i in range(10) if not steady[i]] == new, "the others change no row"
    assert {row["cpu_percent"] for row in rows} == {33.33}
    assert said == [(1, 0.333)] * 10
    idle = kept.take(0.3)
    assert by_pid(idle)[own] is rows[-1] and idle.active == 0
    kept.ran(own, 2 * HZ)
    assert by_pid(kept.take(5.0))[own]["cpu_seconds_total"] == 2.0, "a late tick has it always"


# -- threads, GPU, names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "ticks", "told"), [
    (2, 1, True), (THREADS_MAX, 5, True), (THREADS_MAX + 1, 5, False), (2, 0, False)])
def test_whose_threads_are_asked_for_their_delay(kept: Kept, threads: int, ticks: int, told: bool) -> None:
    """A process of a few threads that used a hundredth of a CPU or more."""
    if HZ != 100:
        pytest.skip("a clock tick is not 10 ms")
    kept.put(20, threads=threads)
    for tid in (20, 21):
        kept.tree.write(f"20/task/{tid}/schedstat", b"5 2000000000 1\n")
    kept.take()
    kept.overwrite("20/stat", stat_line(20, utime=ticks, threads=threads, minflt=1))
    kept.host._files.stat.last[:] = [b"-"] * len(kept.host._files.stat.last)   # with any value, it ran
    row = by_pid(kept.take())[20]
    assert (row.get("run_delay_seconds_total") == 4.0) is told and row["cpu_percent"] == float(ticks)


def test_gpu_time_from_the_other_thread(kept: Kept) -> None:
    """What is unknown is left out; one that released the GPU keeps its total and uses none; no other row is touched."""
    kept.put(20)
    kept.settled()
    uses: list[dict[int, tuple[float | None, float | None]] | None] = [
        None, {20: (1.5, None), 99: (1.0, 1.0)}, {20: (2.0, 500.0)}, None, {}, {}]
    kept.host._gpu = SimpleNamespace(latest=lambda: uses.pop(0), close=lambda: None)    # type: ignore[assignment]
    said, changed = [], []
    while uses:
        shot = kept.take()
        row = by_pid(shot)[20]
        said.append((row.get("gpu_seconds_total"), row.get("gpu_ms_per_s")))
        changed.append({key[0] for key in shot.changed})
        assert "gpu_seconds_total" not in by_pid(shot)[10]
    assert said == [(None, None), (1.5, None), (2.0, 500.0), (2.0, 500.0), (2.0, 0.0), (2.0, 0.0)]
    assert changed[1:] == [{20}, {20}, set(), {20}, set()]
    kept.ran(20, HZ)
    uses.append(None)
    row = by_pid(kept.take())[20]
    assert (row["cpu_percent"], row["gpu_seconds_total"]) == (100.0, 2.0), "a new reading keeps what the GPU said"


def test_a_new_name_is_described_again(kept: Kept) -> None:
    kept.tree.write("10/cmdline", b"old\0")
    assert by_pid(kept.take())[10]["cmdline"] == "old"
    kept.tree.write("10/cmdline", b"new\0-x\0")
    kept.ran(10, HZ, comm=b"new")
    assert by_pid(kept.take())[10]["command"] == "new"
    kept.host._describer.wait(10)
    row = by_pid(kept.take())[10]
    assert (row["command"], row["cmdline"]) == ("new", "new -x")
    asked: list[Any] = []
    kept.host._describer.ask = lambda *what: asked.append(what)    # type: ignore[method-assign]
    kept.ran(10, 2 * HZ, comm=b"new")
    kept.take()
    assert asked == []
    kept.ran(10, 3 * HZ, comm=b"newer", flags=0)
    kept.take()
    assert asked == [((10, 1000), False, False)]


def test_a_kernel_thread_with_a_new_name_is_not_described_again(kept: Kept) -> None:
    """A kworker takes another name with each queue that it serves, and has no program."""
    kept.put(20, comm=b"kworker/0:1-events", flags=PF_KTHREAD)
    kept.last_pid(200)
    kept.settled()
    asked: list[Any] = []
    kept.host._describer.ask = lambda *what: asked.append(what)    # type: ignore[method-assign]
    kept.ran(20, 1, comm=b"kworker/0:1-mm", flags=PF_KTHREAD)
    assert by_pid(kept.take())[20]["command"] == "kworker/0:1-mm" and asked == []


def test_everything_is_given_back(kept: Kept) -> None:
    """Every descriptor, gates and hot ones, and the thread."""
    before = len(os.listdir("/proc/self/fd"))
    for pid in range(20, 40):
        kept.put(pid)
    kept.take()
    assert len(os.listdir("/proc/self/fd")) > before + 20
    kept.host.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    kept.host.close()


def test_a_last_pid_of_another_file_system_is_not_used(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """lxcfs mounts a loadavg of its own over that of the kernel: every tick lists."""
    monkeypatch.setattr(table, "shows_own_pids", lambda root: False)
    kept.host.close()
    kept.start()
    kept.take()
    kept.put(30)
    assert 30 in by_pid(kept.take())


def test_a_constant_last_pid_is_not_used(kept: Kept) -> None:
    """gVisor always prints the same number: after two late finds every tick lists."""
    kept.take()
    for pid in (30, 31):
        kept.put(pid)
        for _ in range(LIST_EVERY):
            kept.take()
        assert pid in by_pid(kept.take())
    kept.put(32)
    assert 32 in by_pid(kept.take())


@pytest.mark.parametrize(("seconds", "used", "within"), [(1.0, HZ // 2, 5), (1.0, HZ // 20, 12), (20.0, 1, 5)],
                         ids=["busy", "works", "now and then"])
def test_a_process_that_runs_is_described_again(kept: Kept, seconds: float, used: int, within: int) -> None:
    """A title written over the arguments, or another control group, shows within 3, 10 or 60 s."""
    kept.tree.write("10/cmdline", b"old\0")
    kept.take()
    kept.tree.write("10/cmdline", b"new\0")
    kept.tree.write("10/cgroup", b"0::/moved.scope\n")
    for tick in range(1, within):
        kept.ran(10, tick * used)
        kept.take(seconds)
        kept.host._describer.wait(10)
    row = by_pid(kept.take(seconds))[10]
    assert (row["cmdline"], row["cgroup"]) == ("new", "/moved.scope")


def test_a_large_process_is_asked_for_what_it_shares_when_it_grows_and_once_a_minute(kept: Kept) -> None:
    """It takes the kernel milliseconds, in which the process cannot change its memory map."""
    asked: list[bool] = []
    kept.host._describer.ask = lambda *what: asked.append(what[2])     # type: ignore[method-assign]
    for tick in range(1, 121):
        kept.ran(10, tick * HZ, rss=10 if tick < 5 else 1 << 20)
        kept.take()
    assert asked[0] is False and asked.count(True) == 2 and len(asked) > 30


def test_a_clock_that_is_set_leaves_ages_right(kept: Kept) -> None:
    """The wall clock goes two hours ahead: start times go with it, also of those that do not run."""
    wall = 1_800_000_000.0
    kept.host.close()
    kept.host = LinuxHost(kept.tree.path, mono=lambda: kept.tree.mono_ns, uptime=lambda: kept.tree.uptime_s,
                          wall=lambda: wall)
    before = kept.take()
    started = by_pid(before)[10]["start_time"]
    for step in (7200.0, -86400.0, 0.2):
        wall += 1.0 + step
        shot = kept.take()
        if abs(step) > 0.5:
            started += step
            assert set(shot.changed) == set(shot.processes)
        assert by_pid(shot)[10]["start_time"] == pytest.approx(started, abs=0.02)


def test_a_leader_that_has_ended_is_described_from_its_threads(kept: Kept) -> None:
    """It has no memory, program and arguments any more; its threads have them. Without threads it is defunct."""
    kept.put(20, comm=b"jobs", state=b"Z", threads=2, rss=0, cmdline=b"")
    kept.tree.write("20/task/20/stat", stat_line(20, b"jobs", b"Z", rss=0))
    kept.tree.write("20/task/21/stat", stat_line(21, b"jobs", b"R", rss=77))
    kept.tree.write("20/task/21/status", status_text(peak_kb=4000))
    kept.tree.write("20/task/21/cmdline", b"./jobs\0--port\0008080\0")
    os.symlink("/opt/jobs", kept.tree.path / "20/task/21/exe")
    kept.put(30, comm=b"dead", state=b"Z", rss=0, cmdline=b"")
    rows = by_pid(kept.take())
    assert (rows[20]["state"], rows[20]["memory_bytes"], rows[20]["memory_peak_bytes"]) == ("running", 77 * PAGE, 4096000)
    assert (rows[20]["exe"], rows[20]["cmdline"]) == ("/opt/jobs", "./jobs --port 8080")
    assert rows[30]["state"] == "defunct" and "cmdline" not in rows[30] and "exe" not in rows[30]
