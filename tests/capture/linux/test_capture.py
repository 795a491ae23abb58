"""Captures on Linux: real processes that hold each other up, and the parsers of what /proc says about them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rogue_hunter.capture.blame import blame
from rogue_hunter.capture.linux.capture import capture_linux
from rogue_hunter.capture.linux.lookups import Index, held_files, inode_of, parse_locks, parse_tcp, parse_unix_diag
from rogue_hunter.capture.linux.process import (
    Call,
    Late,
    bounded,
    is_native,
    parse_memory,
    parse_pressure_avg10,
    parse_stack,
    parse_syscall,
    parse_wchan,
)
from rogue_hunter.capture.linux.waits import futex_word, mutex_owner, mutex_waits
from rogue_hunter.capture.request import Request, Target, new_capture_key
from rogue_hunter.capture.worker import capturer
from rogue_hunter.config.options import Forensics
from rogue_hunter.host.linux.parse import parse_stat
from rogue_hunter.schema.field import Key
from tests.tools.processes import wait_for
from tests.tools.spindump import Record, check, of


def capture(identities: Iterable[Key], settings: Forensics) -> list[Record]:
    """A capture of these processes, made in this thread; the first is the culprit."""
    targets = tuple(Target(key, role="rogue" if i else "culprit") for i, key in enumerate(identities))
    now = time.time()
    return capturer(settings)(Request(new_capture_key(now), now, "manual", targets), threading.Event())


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the /proc of Linux")
Spawn = Callable[..., "subprocess.Popen[bytes]"]
QUICK = Forensics(rounds=2, round_s=0.02, log_entries=0)


def key_of(pid: int) -> tuple[int, int]:
    """The identity that `pid` has now."""
    return pid, parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).start


def python(spawn: Spawn, code: str, *args: str, **options: object) -> subprocess.Popen[bytes]:
    """A Python that has printed a line: it is where it should be."""
    child = spawn([sys.executable, "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    assert child.stdout.readline()
    return child


def until(pid: int, there: Callable[[list[Record]], bool]) -> list[Record]:
    """Captures of `pid` until `there`; a process that has printed its line may need a moment to fall asleep."""
    for _ in range(50):
        records = check(capture([key_of(pid)], QUICK))
        if there(records):
            return records
        denied = [p for p in records[0].get("problems", ()) if "no permission to read" in p and "system call" in p]
        if denied:
            pytest.skip(f"this kernel does not let a process look at its children: {denied[0]}")
    raise AssertionError(records)


def edges(records: list[Record]) -> set[tuple[int, str, int]]:
    """(waiter, kind, holder) of every wait with a name."""
    return {(b["pid"], b["blocked_by"], b["on_pid"]) for b in of(records, "spindump_blocker") if "on_pid" in b}


LOCK = """
import fcntl, sys
f = open(sys.argv[1], "w")
print("ready", flush=True)
if sys.argv[2] == "flock": fcntl.flock(f, fcntl.LOCK_EX)
else: fcntl.lockf(f, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@linux
@pytest.mark.parametrize(("how", "kind"), [("flock", "flock"), ("lockf", "posix lock")])
def test_a_lock_convoy(spawn: Spawn, tmp_path: Path, how: str, kind: str) -> None:
    """Two processes wait for a third one's file lock: the kernel names all three, and blame names the third."""
    lock = str(tmp_path / "lock")
    holder = python(spawn, LOCK, lock, how)
    assert holder.stdout.readline() == b"held\n"
    waiters = [python(spawn, LOCK, lock, how) for _ in range(2)]
    wanted = {(w.pid, kind, holder.pid) for w in waiters}
    records = until(waiters[0].pid, lambda r: wanted <= edges(r))
    mine = [b for b in of(records, "spindump_blocker") if b.get("on_pid") == holder.pid]
    assert {b["certainty"] for b in mine} == {"proven"} and all(b["samples"] >= 1 for b in mine)
    root = next(r for r in blame(records).roots if r.node[0] == holder.pid)
    assert root.processes == 2 and root.waits_for is not None
    roles = {p["pid"]: p["role"] for p in of(records, "spindump_process")}
    assert (roles[waiters[0].pid], roles[holder.pid]) == ("culprit", "holder")
    (report,) = of(records, "spindump_report")
    assert report["data_source"] == "procfs" and report["edges"] >= 2


@linux
def test_a_busy_loop(spawn: Spawn) -> None:
    """A loop is running in every reading, and blocks no process."""
    loop = python(spawn, "print('x', flush=True)\nwhile True: pass")
    records = until(loop.pid, lambda r: any(t.get("running_samples") == 2 for t in of(r, "spindump_thread")))
    own, process = records[0], of(records, "spindump_process")[0]
    assert own["pid"] == loop.pid and own["status"] in ("ok", "partial")
    assert own["targets"][0]["outcome"] == "ok"
    thread = of(records, "spindump_thread")[0]
    assert (thread["state"], thread["state_raw"], thread["main"]) == ("running", "R", True)
    assert process["state"] == "running" and process["memory_bytes"] > 0 and process["open_files"] >= 3
    assert process["age_s"] >= 0 and process["parent_pid"] == os.getpid() and process["uid"] == os.geteuid()


VFORK = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
stack = ctypes.create_string_buffer(1 << 16)
top = ctypes.addressof(stack) + len(stack) - 64 & ~15
print("ready", flush=True)
CLONE_VFORK, SIGCHLD = 0x4000, 17
libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), ctypes.c_void_p(top), CLONE_VFORK | SIGCHLD, None)
"""


@pytest.mark.slow
@linux
def test_a_process_in_uninterruptible_wait(spawn: Spawn) -> None:
    """The maker of a process by vfork is in state D until that one ends; it is found without being asked for."""
    parent = python(spawn, VFORK)
    child = 0
    try:
        records = until(parent.pid, lambda r: any(b[0] == parent.pid for b in edges(r)))
        thread = next(t for t in of(records, "spindump_thread") if t["pid"] == parent.pid)
        assert (thread["state"], thread["state_raw"]) == ("uninterruptible", "D")
        assert thread["uninterruptible_samples"] >= 1 and thread["wchan"]
        ((_, kind, child),) = [e for e in edges(records) if e[0] == parent.pid]
        assert kind == "vfork"
        # A capture of another process finds it as well.
        others = check(capture([], QUICK))
        assert any(p["pid"] == parent.pid and p["role"] == "uninterruptible" for p in of(others, "spindump_process"))
    finally:
        if child:
            os.kill(child, 9)


@pytest.mark.slow
@linux
@pytest.mark.parametrize("line", ["sleep 600 | exec cat", "mkfifo jobs; sleep 600 >jobs & exec cat jobs"])
def test_pipes(spawn: Spawn, tmp_path: Path, line: str) -> None:
    """Who reads waits for the only one who could write, whether the pipe has a name or not."""
    pipe = spawn(["sh", "-c", line], stdout=subprocess.DEVNULL, cwd=tmp_path)

    def names() -> dict[str, int]:
        """The processes of the pipeline by name: `sh` until each has become what it runs."""
        return {Path(f"/proc/{pid}/comm").read_text().strip(): pid
                for pid in [*Index(Path("/proc")).children(pipe.pid), pipe.pid]}

    try:
        wait_for(lambda: {"cat", "sleep"} <= names().keys())
        cat, sleep = (names()[name] for name in ("cat", "sleep"))
        records = until(cat, lambda r: any(e[0] == cat and e[1] == "pipe read" for e in edges(r)))
        assert (cat, "pipe read", sleep) in edges(records)
    finally:
        for child in Index(Path("/proc")).children(pipe.pid):
            with suppress(ProcessLookupError):  # the end of one may have ended the other
                os.kill(child, 9)


@pytest.mark.slow
@linux
def test_sockets(spawn: Spawn) -> None:
    """The peer of a socket is known."""
    code = ("import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\nprint('x', flush=True)\ns.recv(1)")
    import socket

    one, two = socket.socketpair()
    with one, two:
        reader = python(spawn, code, str(two.fileno()), pass_fds=[two.fileno()])
        two.close()
        records = until(reader.pid, lambda r: any(e[:2] == (reader.pid, "socket read") for e in edges(r)))
        assert (reader.pid, "socket read", os.getpid()) in edges(records)


@linux
def test_waiting_for_a_child(spawn: Spawn) -> None:
    """wait4 of one child names that child."""
    code = "import subprocess\np = subprocess.Popen(['sleep', '600'])\nprint(p.pid, flush=True)\np.wait()"
    parent = spawn([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    try:
        records = until(parent.pid, lambda r: any(e[0] == parent.pid for e in edges(r)))
        assert {e[1:] for e in edges(records) if e[0] == parent.pid} <= {("wait4", child), ("waitid", child)}
    finally:
        os.kill(child, 9)


MUTEX = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
at = mmap.mmap(-1, 4096)
m = ctypes.byref((ctypes.c_char * 4096).from_buffer(at))
attr = ctypes.create_string_buffer(64)
libc.pthread_mutexattr_init(attr)
libc.pthread_mutexattr_setpshared(attr, 1)
if sys.argv[1] == "inherit": assert libc.pthread_mutexattr_setprotocol(attr, 1) == 0
if sys.argv[1] == "robust": assert libc.pthread_mutexattr_setrobust(attr, 1) == 0
assert libc.pthread_mutex_init(m, attr) == 0
assert libc.pthread_mutex_lock(m) == 0
r, w = os.pipe()
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
    libc.pthread_mutex_lock(m)
    os._exit(0)
sys.stdin.read()
"""


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("kind", "certainty"), [("inherit", "proven"), ("robust", "guessed"), ("plain", "guessed")])
def test_the_owner_of_a_mutex_between_two_processes(spawn: Spawn, kind: str, certainty: str) -> None:
    """The kernel knows the owner of a priority-inheriting mutex; of others the C library's layout shows it."""
    holder = spawn([sys.executable, "-c", MUTEX, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    waiter = int(holder.stdout.readline())
    try:
        records = until(waiter, lambda r: any(e[0] == waiter for e in edges(r)) or "memory" in str(r[0]))
        found = [b for b in of(records, "spindump_blocker") if b["pid"] == waiter]
        if not found and kind != "inherit":
            pytest.skip("this C library keeps no owner beside the word")
        assert [(b["blocked_by"], b["on_pid"], b["on_thread_id"], b["certainty"]) for b in found] == \
            [("futex", holder.pid, str(holder.pid), certainty)]
        # A capture of another process finds both as well, though the kernel has no list of mutexes.
        others = check(capture([], QUICK))
        roles = {p["pid"]: p["role"] for p in of(others, "spindump_process")}
        assert (roles.get(waiter), roles.get(holder.pid)) == ("waiter", "holder")
        assert (waiter, "futex", holder.pid) in edges(others)
    finally:
        os.kill(waiter, 9)


@linux
def test_the_mutex_of_a_thread_pool_is_its_own_affair(spawn: Spawn) -> None:
    """Threads that wait for another thread of their process are not added to the capture of another process."""
    code = ("import threading\nlock = threading.Lock()\nlock.acquire()\n"
            "for _ in range(3): threading.Thread(target=lock.acquire, daemon=True).start()\n"
            "print('x', flush=True)\nimport sys\nsys.stdin.read()")
    child = python(spawn, code)
    stats = [(child.pid, parse_stat(Path(f"/proc/{child.pid}/stat").read_bytes()))]
    assert mutex_waits(Path("/proc"), stats, os.uname().machine) == []


def test_the_search_for_mutexes_ends_in_time() -> None:
    """After the deadline no process is read; a process that has exited is skipped."""
    stat = parse_stat(Path("/proc/self/stat").read_bytes())._replace(state=b"S", threads=1)
    clock = iter((0.0, 9.0))
    assert mutex_waits(Path("/proc"), [(os.getpid(), stat)], "x86_64", lambda: next(clock)) == []
    assert mutex_waits(Path("/nowhere"), [(1 << 30, stat)], "x86_64") == []


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """`pid` in a control group that is frozen; skips where this process may not make one."""
    place = next((base for base in (Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup"))
                  if (base / "cgroup.procs").exists() and os.access(base, os.W_OK)), None)
    if place is None:
        pytest.skip("control groups cannot be made here")
    group = place / f"rh-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error.strerror}")
    name, on, off = ("freezer.state", "FROZEN", "THAWED") if place.name == "freezer" else ("cgroup.freeze", "1", "0")
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / name).write_text(on)
        yield
    finally:
        (group / name).write_text(off)
        (place / "cgroup.procs").write_text(str(pid))
        group.rmdir()


@linux
def test_a_process_that_was_frozen(spawn: Spawn) -> None:
    """It waits for its thaw, and not for the child that it waited for before."""
    parent = spawn([sys.executable, "-c", "import subprocess\np = subprocess.Popen(['sleep', '600'])\n"
                    "print(p.pid, flush=True)\np.wait()"], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    try:
        with frozen(parent.pid):
            records = until(parent.pid, lambda r: any(
                b["pid"] == parent.pid and b["blocked_by"] == "freezer" for b in of(r, "spindump_blocker")))
        (wait,) = [b for b in of(records, "spindump_blocker") if b["pid"] == parent.pid]
        assert "on_pid" not in wait and "froze" in wait["on_what"]
    finally:
        os.kill(child, 9)


@linux
def test_another_process_with_the_pid_is_not_looked_at(spawn: Spawn) -> None:
    """An identity whose start time is not that of the pid now is gone; nothing of the stranger is in the capture."""
    child = python(spawn, "print('x', flush=True)\nimport sys\nsys.stdin.read()")
    pid, start = key_of(child.pid)
    records = check(capture([(pid, start - 1)], QUICK))
    assert records[0]["targets"] == [{"pid": pid, "start_ticks": start - 1, "command": "", "outcome": "gone"}]
    assert not any(p["pid"] == pid and p["role"] == "culprit" for p in of(records, "spindump_process"))
    assert "exited before" in str(records[0]["problems"])


@linux
def test_a_hostile_name_is_data(spawn: Spawn, tmp_path: Path) -> None:
    """A name with a line feed, brackets and bytes that are no UTF-8 comes through as one value."""
    program = os.fsencode(tmp_path) + b"/) R 1\n\x1b[2J\xff"
    os.symlink(sys.executable, program)
    child = spawn([program, "-c", "print('x', flush=True)\nimport sys\nsys.stdin.read()"], stdin=subprocess.PIPE,
                  stdout=subprocess.PIPE)
    assert child.stdout.readline()
    records = check(capture([key_of(child.pid)], QUICK))
    assert of(records, "spindump_process")[0]["command"] == ") R 1\n\x1b[2J\\xff"


@linux
def test_threads_are_limited_and_the_limit_is_reported(spawn: Spawn) -> None:
    """Of 20 threads 5 are read; the rest is counted."""
    code = ("import threading, sys\nfor _ in range(19): threading.Thread(target=sys.stdin.buffer.peek).start()\n"
            "print('x', flush=True)\nthreading.Event().wait()")
    child = python(spawn, code)
    records = check(capture([key_of(child.pid)], Forensics(rounds=1, threads=5, log_entries=0)))
    process = of(records, "spindump_process")[0]
    assert process["threads"] == 20 and process["threads_listed"] == 5
    assert "the first 5 were read" in str(records[0]["problems"])


@linux
def test_processes_are_limited(spawn: Spawn) -> None:
    """At most the allowed number of processes is read."""
    children = [python(spawn, "print('x', flush=True)\nimport sys\nsys.stdin.read()") for _ in range(4)]
    records = check(capture([key_of(c.pid) for c in children], Forensics(rounds=1, processes=2, log_entries=0)))
    assert len(of(records, "spindump_process")) == 2
    assert [t["outcome"] for t in records[0]["targets"]] == ["ok", "ok", "left_out", "left_out"]


@linux
def test_cancelled_at_once() -> None:
    """A cancelled capture ends early and still answers."""
    cancel = threading.Event()
    cancel.set()
    records = check(capturer(QUICK)(Request("c", 0.0, targets=(Target(key_of(os.getpid())),)), cancel))
    assert records[0]["targets"][0]["outcome"] == "skipped"


@linux
def test_logs_of_the_last_minute(tmp_path: Path) -> None:
    """The journal by a stand-in, the kernel's log from a file that may not be there; each part has its status."""
    fake = tmp_path / "journalctl"
    fake.write_text("#!/bin/sh\necho \"$@\" >&2\nprintf '%s\\n' '{\"__REALTIME_TIMESTAMP\":\"1\",\"MESSAGE\":\"m\"}'\n")
    fake.chmod(0o755)

    def make(argv: object, timeout_s: float, limit: int, cancel: object) -> object:
        from rogue_hunter.capture.command import Command

        return Command([str(fake), *list(argv)[1:]], timeout_s, limit, cancel)  # type: ignore[call-overload,arg-type]

    request = Request("c", 1000.0)
    found = capture_linux(request, settings=Forensics(rounds=1), make=make,  # type: ignore[arg-type]
                          kmsg=str(tmp_path / "none"))
    records = check(found)
    own = records[0]
    assert (own["journal_status"], own["kernel_log_status"], own["log_entries"]) == ("ok", "unavailable", 1)
    assert of(records, "log_entry")[0]["capture"] == "c"


@linux
def test_what_hangs_is_left_behind() -> None:
    """A reading that does not come back costs its time limit and no more."""
    stop = threading.Event()
    with pytest.raises(Late):
        bounded(stop.wait, 0.05)
    stop.set()
    assert bounded(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, 5)


@linux
def test_a_process_that_cannot_be_read_is_read_in_part(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stacks do not come, state and wait channel still do, and the capture says what is missing."""
    from rogue_hunter.capture.linux import capture as module

    child = python(spawn, "print('x', flush=True)\nimport sys\nsys.stdin.read()")
    real, stop = module.read_process, threading.Event()

    def stuck(root: Path, key: object, *more: object, without_locks: bool = False) -> object:
        if key == key_of(child.pid) and not without_locks:
            stop.wait(60)
        return real(root, key, *more, without_locks=without_locks)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "read_process", stuck)
    try:
        records = check(capture([key_of(child.pid)], Forensics(rounds=2, process_timeout_s=0.2, log_entries=0)))
    finally:
        stop.set()
    assert records[0]["targets"][0]["outcome"] == "timeout" and records[0]["threads_status"] == "partial"
    thread = next(t for t in of(records, "spindump_thread") if t["pid"] == child.pid)
    assert thread["state_raw"] in "SR" and "syscall" not in thread
    assert "could not be read" in str(records[0]["problems"])


def test_locks() -> None:
    """Holder and waiters of /proc/locks; further waiters wait for the holder too; -1 is no process."""
    data = (b"1: POSIX  ADVISORY  WRITE 10 08:01:5 0 EOF\n2: FLOCK  ADVISORY  WRITE 20 00:1b:77 0 EOF\n"
            b"2: -> FLOCK  ADVISORY  WRITE 21 00:1b:77 0 EOF\n2:  -> FLOCK  ADVISORY  READ 22 00:1b:77 0 EOF\n"
            b"3: OFDLCK ADVISORY  WRITE -1 08:01:9 0 EOF\n3: -> POSIX  ADVISORY  WRITE 31 08:01:9 0 9\nrubbish\n")
    assert [(w.kind, w.mode, w.waiter, w.holder, w.file) for w in parse_locks(data)] == [
        ("flock", "write", 21, 20, "00:1b:77"), ("flock", "read", 22, 20, "00:1b:77"),
        ("posix lock", "write", 31, None, "08:01:9")]
    assert held_files(b"pos:\t0\nlock:\t1: OFDLCK ADVISORY  WRITE -1 08:01:9 0 EOF\n") == {b"08:01:9"}
    assert held_files(b"lock:\t1: -> OFDLCK ADVISORY  WRITE -1 08:01:9 0 EOF\n") == set()


@pytest.mark.parametrize(("data", "words"), [
    (b"202 0x7f00 0x80 0x2 0x0 0x0 0xffffffff 0x7ffd 0x7f\n", "futex(0x7f00, 128, 2)"),
    (b"9999 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8\n", "syscall 9999(1, 2, 3)"),
    (b"-1 0x7ffd 0x7f\n", "none"),
    (b"running\n", None), (b"", None), (b"x y z w\n", None),
])
def test_syscalls(data: bytes, words: str | None) -> None:
    """Number and arguments; what runs is in no call."""
    call = parse_syscall(data, "x86_64")
    assert (call.words() if call else None) == words


def test_futex_words() -> None:
    """Proof, convention, layout: what each kind of word shows."""
    inherit = mutex_owner(6, struct.pack("=I", 0x80000000 | 77))
    assert inherit is not None and (inherit.tid, inherit.certainty, inherit.shared) == (77, "proven", True)
    robust = mutex_owner(128, struct.pack("=I", 0x80000000 | 78))
    assert robust is not None and (robust.tid, robust.certainty, robust.shared) == (78, "guessed", False)
    plain = mutex_owner(128, struct.pack("=IIiIi", 2, 0, 79, 1, 0))
    assert plain is not None and (plain.tid, plain.certainty) == (79, "guessed")
    for memory in (b"", struct.pack("=I", 0), struct.pack("=I", 2), struct.pack("=IIiIi", 2, 0, 0, 1, 0),
                   struct.pack("=IIiIi", 2, 0, 79, 0, 0), struct.pack("=IIiIi", 1, 0, 79, 1, 0)):
        assert mutex_owner(0, memory) is None
    assert futex_word(Call(202, "futex", (64, 128, 2, 0, 0, 0))) == (64, 128)
    assert futex_word(Call(202, "futex", (64, 1, 2, 0, 0, 0))) is None


def test_small_files() -> None:
    """Stack, wait channel, memory, pressure, sockets, architecture."""
    stack = b"[<0>] futex_wait+0xb1/0x150\n[<0>] do_syscall_64+0x7/0x9 [mod]\n[<ffff>] 0xffffffffffffffff\n"
    assert parse_stack(stack) == ("futex_wait", "do_syscall_64")
    assert (parse_wchan(b"0"), parse_wchan(b"pipe_read")) == (None, "pipe_read")
    assert parse_memory(b"VmRSS:\t  12 kB\nVmSwap:\t x kB\nName:\tVmRSS: 9\n") == {"memory_bytes": 12288}
    assert parse_pressure_avg10(b"some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=x\n") == (1.5, None)
    assert inode_of("pipe:[12]") == ("pipe", 12) and inode_of("/dev/null") is None and inode_of("socket:[²]") is None
    line = b"   0: 0100007F:1F90 0100007F:D431 01 0:0 0:0 0 0 0 4242 1 0\n"
    assert parse_tcp(b"header\n" + line) == {(b"0100007F:1F90", b"0100007F:D431"): 4242}
    message = struct.pack("=IHHII", 40, 20, 2, 1, 0) + struct.pack("=BBBBIII", 1, 1, 1, 0, 55, 0, 0) + \
        struct.pack("=HHI", 8, 2, 66)
    assert parse_unix_diag(message + struct.pack("=IHHII", 16, 3, 2, 1, 0)) == ({55: 66}, True)
    assert is_native(struct.pack("=QQQQ", 33, 0x7FFC00000000, 16, 1))
    assert not is_native(struct.pack("=IIIIIIII", 32, 0xF7F00000, 33, 0xF7F01000, 16, 1, 6, 4096))
