"""Waits without use: real ones of every kind, and the stage that reports them, with the clock handed in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from rogue_hunter.capture.linux.waiting import STEPS, Looker, Seen, _merged, contended, fanotify_listener
from rogue_hunter.capture.waiting import Waits
from rogue_hunter.host.linux.exits import in_first_pid_namespace
from rogue_hunter.host.linux.parse import parse_stat
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, Tick

Spawn = Callable[..., "subprocess.Popen[bytes]"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the /proc of Linux")
PROC = Path("/proc")

LOCKS = "import fcntl, sys, time\nf = open(sys.argv[1], 'w')\nprint(flush=True)\nfcntl.flock(f, fcntl.LOCK_EX)\nprint(flush=True)\ntime.sleep(600)"


def key_of(pid: int) -> Key:
    return pid, parse_stat((PROC / str(pid) / "stat").read_bytes()).start


def until(seen: Callable[[], list[Seen]]) -> list[Seen]:
    """What `seen` gives, once it gives something."""
    end = time.monotonic() + 20
    while not (found := seen()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def started(spawn: Spawn, code: str, *args: str, lines: int = 1) -> subprocess.Popen[bytes]:
    child = spawn([sys.executable, "-c", code, *args], stdout=subprocess.PIPE)
    for _ in range(lines):
        child.stdout.readline()     # type: ignore[union-attr]
    return child


@linux
def test_a_file_lock_names_file_holder_and_waiters(spawn: Spawn, tmp_path: Path) -> None:
    """The holder sleeps, two others wait: nothing of them is used, and all three are named, the file too."""
    file = tmp_path / "state"
    holder = started(spawn, LOCKS, str(file), lines=2)
    waiters = {started(spawn, LOCKS, str(file)).pid for _ in range(2)}

    def seen() -> list[Seen]:
        return [one for one in Looker(PROC)(()) if one.kind == "file_lock" and set(one.waiters) >= waiters]

    (one,) = until(seen)
    assert (one.holder, one.object, one.holder_state, set(one.waiters)) == (holder.pid, str(file), "sleeping", waiters)
    os.kill(holder.pid, signal.SIGSTOP)
    (one,) = until(lambda: [one for one in seen() if one.holder_state == "stopped"])
    assert one.holder == holder.pid


@linux
def test_a_lock_whose_taker_ended_is_held_by_its_heir(spawn: Spawn, tmp_path: Path) -> None:
    """/proc/locks names the process that took the lock, which has ended; its child, which has the file open, holds it."""
    if not in_first_pid_namespace():
        pytest.skip("A PID NAMESPACE: /proc/locks leaves out what an ended process took (fs/locks.c, locks_show)")
    file = tmp_path / "state"
    code = ("import fcntl, os, sys, time\nf = open(sys.argv[1], 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\nchild = os.fork()\n"
            "if child: os._exit(0)\nprint(os.getpid(), flush=True)\ntime.sleep(600)")
    taker = spawn([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    heir = int(taker.stdout.readline())         # type: ignore[union-attr]
    taker.wait(20)
    try:
        waiter = started(spawn, LOCKS, str(file))
        looker = Looker(PROC)
        (one,) = until(lambda: [one for one in looker(()) if waiter.pid in one.waiters and one.holder])
        assert (one.holder, one.object) == (heir, str(file))
    finally:
        os.kill(heir, signal.SIGKILL)


@linux
@pytest.mark.parametrize("named", [False, True])
def test_a_full_pipe_names_the_reader_that_does_not_read(spawn: Spawn, tmp_path: Path, named: bool) -> None:
    """The writer sleeps in the kernel until its reader takes something; a named pipe is no other."""
    if named:
        os.mkfifo(tmp_path / "jobs")
        away = os.open(tmp_path / "jobs", os.O_RDONLY | os.O_NONBLOCK)
        into = os.open(tmp_path / "jobs", os.O_WRONLY)
    else:
        away, into = os.pipe()
    reader = spawn([sys.executable, "-c", "import time; time.sleep(600)"], stdin=away)
    writer = spawn([sys.executable, "-c", "import os\nwhile True: os.write(1, b'x' * 65536)"], stdout=into)
    os.close(away)
    os.close(into)
    looker = Looker(PROC)
    (one,) = until(lambda: [one for one in looker([key_of(writer.pid)]) if one.kind == "pipe"])
    # Under load the search of all processes may run out of time: then the reader is the only one that was found.
    assert (one.holder, one.waiters, one.certainty in ("proven", "guessed")) == (reader.pid, (writer.pid,), True)
    assert one.object == str(tmp_path / "jobs") if named else one.object and one.object.startswith("pipe:[")


@linux
def test_a_traced_process_names_its_tracer(spawn: Spawn) -> None:
    """A tracee that its tracer stopped and left."""
    code = ("import ctypes, os, sys, time\nlibc = ctypes.CDLL(None, use_errno=True)\nchild = os.fork()\n"
            "if not child:\n time.sleep(600)\n"
            "libc.ptrace(16, child, None, None)\nos.waitpid(child, 0)\nprint(child, flush=True)\ntime.sleep(600)")
    tracer = spawn([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child = int(tracer.stdout.readline())       # type: ignore[union-attr]
    try:
        def traced(*restless: Key) -> list[Seen]:
            return [one for one in Looker(PROC)([key_of(child)], None, restless) if one.kind == "traced"]

        (one,) = until(traced)
        assert (one.object, one.holder, one.waiters) == (None, tracer.pid, (child,))
        (one,) = traced(key_of(child))
        assert (one.object, one.holder, one.waiters) == (STEPS, tracer.pid, (child,))
        assert traced(key_of(tracer.pid)) == traced()
    finally:
        os.kill(child, signal.SIGKILL)


@contextmanager
def frozen_group(name: str) -> Iterator[Path]:
    group = Path("/sys/fs/cgroup/freezer") / name
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"NO FREEZER of version 1: {error.strerror}")
    try:
        yield group
    finally:
        (group / "freezer.state").write_text("THAWED")
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a control group: needs root")
def test_a_frozen_group_is_named(spawn: Spawn) -> None:
    """The process does not run because its control group is frozen; no process holds it."""
    with frozen_group(f"rogue-hunter-test-{os.getpid()}") as group:
        sleeper = spawn([sys.executable, "-c", "import time; time.sleep(600)"])
        (group / "cgroup.procs").write_text(str(sleeper.pid))
        (group / "freezer.state").write_text("FROZEN")
        (one,) = until(lambda: [one for one in Looker(PROC)([key_of(sleeper.pid)]) if one.kind == "frozen"])
        assert (one.object, one.holder, one.waiters) == (f"/{group.name}", None, (sleeper.pid,))
        (group / "freezer.state").write_text("THAWED")


LISTEN = """import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.fanotify_init(4, 0)                   # FAN_CLASS_CONTENT
ok = libc.fanotify_mark(fd, 1, ctypes.c_uint64(0x08010000), -100, sys.argv[1].encode())     # opens below the directory
print(fd if ok == 0 else -1, flush=True)
time.sleep(600)
"""


@linux
def test_a_listener_that_does_not_answer_is_named(spawn: Spawn, tmp_path: Path) -> None:
    """An open waits for the permission of a fanotify listener, which is idle."""
    (tmp_path / "file").touch()
    listener = spawn([sys.executable, "-c", LISTEN, str(tmp_path)], stdout=subprocess.PIPE)
    if int(listener.stdout.readline()) < 0:         # type: ignore[union-attr]
        pytest.skip("NO FANOTIFY: it needs root and a kernel that has it")
    opener = spawn([sys.executable, "-c", "import sys; open(sys.argv[1])", str(tmp_path / "file")])
    looker = Looker(PROC)
    (one,) = until(lambda: [one for one in looker([key_of(opener.pid)]) if one.kind == "fanotify" and one.holder])
    assert (one.holder, one.waiters) == (listener.pid, (opener.pid,))
    listener.kill()     # the kernel then allows what waits


@linux
def test_what_sleeps_or_is_gone_gives_nothing(spawn: Spawn) -> None:
    """A process that waits for time, one that runs, and one that has ended."""
    sleeper = spawn([sys.executable, "-c", "import time; time.sleep(600)"])
    loop = spawn([sys.executable, "-c", "while True: pass"])
    mine = {sleeper.pid, loop.pid, 1 << 22}
    found = Looker(PROC)([key_of(sleeper.pid), key_of(loop.pid), (1 << 22, 5), (sleeper.pid, 1)])
    assert not [one for one in found if mine & set(one.waiters)]


CONVOY = """#include <pthread.h>
#include <unistd.h>
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static void *take(void *a) { pthread_mutex_lock(&m); return a; }
static void *idle(void *a) { pthread_mutex_lock(&m); for (;;) pthread_cond_wait(&c, &m); }
int main(int n, char **v) { pthread_t t; if (n == 1) pthread_mutex_lock(&m);
    for (int i = 0; i < 20; i++) pthread_create(&t, 0, n == 1 ? take : idle, 0);
    usleep(300000); write(1, "\\n", 1); for (;;) pause(); }
"""


@linux
def test_threads_that_queue_for_one_lock_are_no_idle_pool(spawn: Spawn, tmp_path: Path) -> None:
    """Twenty threads want a mutex; twenty others wait for work."""
    (tmp_path / "convoy.c").write_text(CONVOY)
    try:
        subprocess.run(["cc", "-pthread", "-o", tmp_path / "convoy", tmp_path / "convoy.c"], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("NO COMPILER")
    for arguments, expected in (((), True), (("pool",), False)):
        child = spawn([str(tmp_path / "convoy"), *arguments], stdout=subprocess.PIPE)
        child.stdout.readline()                 # type: ignore[union-attr]
        assert contended(PROC, child.pid, os.uname().machine) is expected


@linux
def test_a_script_that_waits_for_a_stopped_step(spawn: Spawn) -> None:
    """The shell waits in the kernel for its child, which is stopped."""
    shell = spawn(["/bin/sh", "-c", f"{sys.executable} -c 'import time; print(flush=True); time.sleep(600)'; :"],
                  stdout=subprocess.PIPE)
    shell.stdout.readline()                     # type: ignore[union-attr]
    child = int((PROC / f"{shell.pid}/task/{shell.pid}/children").read_text())
    try:
        os.kill(child, signal.SIGSTOP)
        (one,) = until(lambda: [one for one in Looker(PROC)([key_of(child)]) if one.kind == "stopped"])
        assert (one.holder, one.waiters, one.holder_state) == (child, (shell.pid,), "stopped")
    finally:
        os.kill(child, signal.SIGKILL)


@linux
def test_clients_of_a_stopped_server(spawn: Spawn) -> None:
    """They wait for an answer on a socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = spawn([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[ours.fileno()])
        client = spawn([sys.executable, "-c", f"import socket\nsocket.socket(fileno={theirs.fileno()}).recv(1)"],
                       pass_fds=[theirs.fileno()])
    os.kill(server.pid, signal.SIGSTOP)
    looker = Looker(PROC, clock=iter(range(0, 10**6, 100)).__next__)
    (one,) = until(lambda: [one for one in looker([key_of(server.pid)]) if one.kind == "stopped"])
    assert (one.holder, one.waiters) == (server.pid, (client.pid,))


@linux
def test_who_tries_again_for_a_database_that_is_locked(spawn: Spawn, tmp_path: Path) -> None:
    """SQLite's writers sleep between attempts: the kernel knows the holder, and who has the file open."""
    file = tmp_path / "x.db"
    holder = started(spawn, "import sqlite3, sys, time\nd = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                     "d.execute('create table t(x)')\nd.execute('begin immediate')\nprint(flush=True)\ntime.sleep(600)",
                     str(file))
    writer = spawn([sys.executable, "-c", "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1], timeout=600)\n"
                    "d.execute('insert into t values (1)')", str(file)])
    looker = Looker(PROC)
    (one,) = until(lambda: [one for one in looker([key_of(writer.pid)]) if writer.pid in one.waiters])
    assert (one.kind, one.holder, one.object, one.certainty) == ("file_lock", holder.pid, str(file), "guessed")


@linux
def test_a_directory_called_fanotify_is_no_listener(spawn: Spawn, tmp_path: Path) -> None:
    """Only the kernel's own name of the descriptor counts."""
    file = tmp_path / "fanotify"
    file.touch()
    with file.open() as opened:
        child = spawn([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[opened.fileno()])
    until(lambda: [Seen("", None, None, ())] if os.listdir(PROC / f"{child.pid}/fd") else [])
    assert fanotify_listener(PROC) != child.pid


def test_waiters_for_the_same_thing_are_one_wait() -> None:
    """Six processes in one frozen group; two in uninterruptible sleep each for itself."""
    found = _merged([Seen("frozen", "/g", None, (1,)), Seen("frozen", "/g", None, (2,)),
                     Seen("uninterruptible", None, None, (3,)), Seen("uninterruptible", None, None, (4,))])
    assert [one.waiters for one in found] == [(1, 2), (3,), (4,)]


def test_a_process_that_runs_in_between_does_not_wait_for_one_device() -> None:
    """It was in uninterruptible sleep at every look, each time for another request."""
    def last(percent: float) -> float:
        stage = Waits(reads=Reads([Seen("uninterruptible", "io_schedule", None, (1,))]))
        rows = {(1, 1): {"pid": 1, "command": "dd", "cmdline": "dd", "cpu_percent": percent}}
        since = 0.0
        for second in range(1, 9):
            rows[1, 1] = {**rows[1, 1], "seq": second}
            tick = Tick({"ts": 1000.0 + second, "mono_ns": int(second * 1e9), "boot_id": "b"}, rows, {(1, 1)})
            since = max([since, *(made["since_s"] for made in stage(tick).records)])
            stage._worker.wait(5)
        stage.close()
        return since

    assert last(0.0) >= 5 and last(2.0) == 0.0


class Reads:
    """What looks see, one after the other; the last one stays."""

    def __init__(self, *looks: list[Seen]) -> None:
        self.looks = list(looks)
        self.asked: list[list[Key]] = []

    def __call__(self, keys: Iterable[Key], busiest: Key | None = None, restless: Collection[Key] = ()) -> list[Seen]:
        self.asked.append(list(keys))
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def ticks(reads: Reads, seconds: int, step_s: float = 1.0) -> list[tuple[float, Record]]:
    """The wait records of so many seconds, each with the second of its tick."""
    stage = Waits(reads=reads)
    rows = {(pid, 1): {"pid": pid, "command": f"p{pid}", "cmdline": f"p{pid}", "start_time": 0.0} for pid in range(1, 40)}
    found = []
    for second in range(int(seconds / step_s) + 1):
        now = 1 + second * step_s
        changed = {(1, 1)} if second == 0 else set()
        rows[1, 1] = {**rows[1, 1], "cpu_percent": 5.0 if second == 0 else 0.0}
        tick = Tick({"ts": 1000 + now, "mono_ns": int(now * 1e9), "boot_id": "b"}, rows, changed)
        found += [(now, one) for one in stage(tick).records]
        stage._worker.wait(5)
    stage.close()
    return found


LOCK = Seen("file_lock", "/var/lock/x", 2, (3, 4), holder_state="stopped")


def test_a_wait_is_reported_from_the_second_second_on_and_once_a_slice() -> None:
    """Names come from the rows; the state is the one that the look saw."""
    found = ticks(Reads([LOCK]), 13)
    assert [now for now, _ in found] == [3.0, 8.0, 13.0]
    assert [one["since_s"] for _, one in found] == [2.0, 7.0, 12.0] and all(one["standing"] for _, one in found)
    one = found[0][1]
    assert (one["type"], one["kind"], one["object"], one["holder_pid"], one["holder"], one["holder_state"]) == \
        ("wait", "file_lock", "/var/lock/x", 2, "p2", "stopped")
    assert one["waiters"] == [{"pid": 3, "start_ticks": 1, "name": "p3"}, {"pid": 4, "start_ticks": 1, "name": "p4"}]


def test_a_wait_begins_when_waiter_and_holder_ran_last() -> None:
    """However late it is looked at. What began since the first tick does not count as older; a holder that took over
    from another one, or runs, has been waited for since it was seen to hold."""
    def begins(holder_ran: int | None, waiter_ran: int | None, waiter_started: int = -100) -> tuple[float, bool]:
        stage = Waits(reads=Reads(*[[]] * 10, [Seen("pipe", "pipe:[7]", 1, (2,))]))
        for second in range(1, 20):
            rows = {(pid, 1): {"pid": pid, "command": f"p{pid}", "cmdline": "x", "start_time": 1000.0 + start,
                               "cpu_percent": 5.0 if second == ran else 0.0}
                    for pid, start, ran in ((1, -100, holder_ran), (2, waiter_started, waiter_ran))}
            changed = {(pid, 1) for pid, ran in ((1, holder_ran), (2, waiter_ran)) if second == ran}
            made = stage(Tick({"ts": 1000.0 + second, "mono_ns": int(second * 1e9), "boot_id": "b"}, rows, changed)).records
            stage._worker.wait(5)
            if made:
                stage.close()
                return second - made[0]["since_s"], made[0]["standing"]
        raise AssertionError("no wait")

    assert begins(None, None) == (1, True)
    assert begins(3, 5) == begins(5, 3) == begins(5, None) == begins(None, 5) == (5, False)
    assert begins(None, None, waiter_started=4) == (4, False)
    assert begins(12, 5) == (12, False)


def test_a_passing_wait_is_not_reported() -> None:
    """A lock that changes hands within a second is how programs work; one that comes again begins again."""
    assert ticks(Reads([LOCK], [], [LOCK], [], [LOCK], []), 12) == []


@pytest.mark.parametrize(("tracer", "tracee", "reported"), [(9000.0, 9000.0, True), (900.0, 9000.0, False),
                                                            (None, 9000.0, False), (4000.0, 4000.0, False)])
def test_a_tracer_slows_down_what_it_stops_at_each_step(tracer: float | None, tracee: float, reported: bool) -> None:
    """Both wake up all the time. A debugger that lets a busy server run does not wake up with it."""
    class Traced(Reads):
        def __call__(self, keys: Iterable[Key], busiest: Key | None = None, restless: Collection[Key] = ()) -> list[Seen]:
            return super().__call__(keys, busiest, restless) if (2, 1) in restless else []

    stage, made = Waits(reads=Traced([Seen("traced", STEPS, 3, (2,))])), []
    for second in range(1, 9):
        rows = {(pid, 1): {"pid": pid, "command": f"p{pid}", "start_time": 0.0, "cpu_percent": 40.0, "wakeups_per_s": rate}
                for pid, rate in ((2, tracee), (3, tracer))}
        tick = Tick({"ts": 1000.0 + second, "mono_ns": second * 10**9, "boot_id": "b"}, rows, set(rows))
        made += stage(tick).records
        stage._worker.wait(5)
    stage.close()
    assert bool(made) == reported
    if reported:
        assert (made[0]["kind"], made[0]["holder"], made[0]["since_s"] >= 1) == ("traced", "p3", True)


@pytest.mark.parametrize(("certainty", "reported"), [("proven", False), ("guessed", True)])
def test_processes_that_take_turns_do_not_wait_for_one_holder(certainty: str, reported: bool) -> None:
    """Two looks met the same holder; its waiters had the lock in between. One that tries again and again runs, too."""
    stage, made = Waits(reads=Reads([LOCK._replace(certainty=certainty)])), []
    for second in range(1, 9):
        rows = {(pid, 1): {"pid": pid, "command": f"p{pid}", "start_time": 0.0, "wakeups_per_s": 2.0} for pid in (2, 3, 4)}
        tick = Tick({"ts": 1000.0 + second, "mono_ns": second * 10**9, "boot_id": "b"}, rows, set(rows))
        made += stage(tick).records
        stage._worker.wait(5)
    stage.close()
    assert bool(made) == reported


def test_a_wait_of_ten_minutes_is_reported_once_a_minute() -> None:
    """Some daemons wait for a lock for good."""
    late = [now for now, _ in ticks(Reads([LOCK]), 800) if now > 620]
    assert len(late) in (2, 3) and all(b - a >= 60 for a, b in pairwise(late))


def test_kernel_threads_are_asked_only_while_they_cannot_be_interrupted() -> None:
    """They run and rest all the time, and wait for no process."""
    reads = Reads([])
    stage = Waits(reads=reads)
    idle: Row = {"pid": 5, "ppid": 2, "wakeups_per_s": 3.0, "state": "idle", "start_time": 0.0}
    stuck: Row = {**idle, "pid": 6, "state": "uninterruptible"}
    for second in range(1, 4):
        rows = {(row["pid"], 1): {**row, "wakeups_per_s": 3.0 if second == 1 else 0.0} for row in (idle, stuck)}
        stage(Tick({"ts": 1000.0 + second, "mono_ns": second * 10**9, "boot_id": "b"}, rows, set(rows)))
        stage._worker.wait(5)
    stage.close()
    assert reads.asked == [[(6, 1)]] * 3


def test_who_waits_is_asked_again_and_all_are_asked_in_turn() -> None:
    """A process seen waiting is in every look; those that ran lately come first; the others follow in turn."""
    reads = Reads([Seen("pipe", "pipe:[7]", 2, (30,))])
    ticks(reads, 12)
    assert (1, 1) in reads.asked[1]
    assert all((30, 1) in asked for asked in reads.asked[2:])
    assert {key[0] for asked in reads.asked for key in asked} >= set(range(2, 40))
    assert max(map(len, reads.asked)) <= 14
