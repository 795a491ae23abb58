"""rh-pipe as a process: it watches, is stopped, is killed, and its database says what happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rogue_hunter.store.database import Lock, open_writer
from tests.tools.processes import HZ, Tree
from tests.tools.reports import wait_for

pytestmark = pytest.mark.waits

REPO = Path(__file__).resolve().parent.parent.parent
Pipe = Callable[..., "subprocess.Popen[bytes]"]
Rh = Callable[..., "subprocess.CompletedProcess[bytes]"]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
LONG = "RH_LONG" in os.environ


@pytest.fixture
def pipe(spawn: Spawn, clean_env: Mapping[str, str], tmp_path: Path) -> Pipe:
    """Start `rh-pipe --db tmp/x.db ...`."""
    def start(*args: str, **options: object) -> subprocess.Popen[bytes]:
        return spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--db", str(tmp_path / "x.db"), *args],
                     env=dict(clean_env), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    return start


@pytest.fixture
def loop(burn: Callable[[], int]) -> int:
    """The pid of a shell that burns a core."""
    return burn()


@pytest.mark.slow
def test_loop_is_an_event(pipe: Pipe, loop: int, tmp_path: Path) -> None:
    """A busy loop that runs while rh-pipe watches is in the database, with its resource and its command line."""
    run = pipe("--for", "6s", "--quiet")
    _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (0, b"")
    (row,) = wait_for(tmp_path / "x.db",
                      "SELECT dominant_resource, reason, cmdline, peak_score >= 45 FROM process_events"
                                         f" WHERE pid = {loop}")
    assert row == ("cpu", "stopped", "/bin/sh -c while kill -0 $PPID; do :; done", 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly(pipe: Pipe, loop: int, tmp_path: Path,
                                number: int) -> None:
    """SIGTERM and SIGINT: open events are closed as stopped, exit code 0, the lock is free."""
    run = pipe("--quiet")
    wait_for(tmp_path / "x.db", f"SELECT 1 FROM process_events WHERE pid = {loop}")
    run.send_signal(number)
    _, err = run.communicate(timeout=10)
    assert (run.returncode, err) == (0, b"")
    assert wait_for(tmp_path / "x.db", f"SELECT reason FROM process_events WHERE pid = {loop}") == [("stopped",)]
    assert wait_for(tmp_path / "x.db", "SELECT count(*) FROM process_events WHERE exit_time IS NULL") == [(0,)]
    ((stopped,),) = wait_for(tmp_path / "x.db", "SELECT value FROM daemon_state WHERE key = 'stopped_at'")
    assert json.loads(str(stopped)) > 0


@pytest.mark.slow
def test_kill_loses_nothing(pipe: Pipe, loop: int, tmp_path: Path) -> None:
    """kill -9 at random moments: what was committed stays, the event of a living process is one event through all
    runs, and no process has two open events."""
    db = tmp_path / "x.db"
    random.seed(23)
    seen: set[str] = set()
    for _ in range(50 if LONG else 8):
        run = pipe("--quiet", "--hz", "20")
        wait_for(db, f"SELECT 1 FROM process_events WHERE pid = {loop} AND exit_time IS NULL")
        time.sleep(random.uniform(0, 0.5))
        committed = {str(event) for (event,) in wait_for(db, "SELECT event FROM process_events")}
        run.kill()
        run.communicate(timeout=10)
        seen |= committed
    run = pipe("--quiet", "--for", "2s")
    run.communicate(timeout=30)
    assert {str(event) for (event,) in wait_for(db, "SELECT event FROM process_events")} >= seen
    told = wait_for(db, f"SELECT count(*), count(DISTINCT event) FROM process_events WHERE pid = {loop}")
    assert told == [(1, 1)]
    assert wait_for(db, "SELECT count(*) FROM process_events WHERE exit_time IS NULL") == [(0,)]
    assert wait_for(db, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_second_pipe_is_refused(pipe: Pipe, tmp_path: Path) -> None:
    """Two rh-pipe on one database: the second exits 69 and names the first, which continues."""
    first = pipe("--quiet")
    wait_for(tmp_path / "x.db", "SELECT 1 FROM daemon_state")
    second = pipe("--quiet")
    _, err = second.communicate(timeout=30)
    assert second.returncode == 69
    assert str(first.pid).encode() in err and err.count(b"\n") == 1
    assert first.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's short name is Linux's")
def test_ps_shows_its_name(pipe: Pipe, tmp_path: Path) -> None:
    """`pgrep rh-pipe` finds it: not one python among many."""
    run = pipe("--quiet", "--no-socket")
    wait_for(tmp_path / "x.db", "SELECT 1 FROM daemon_state")
    assert Path(f"/proc/{run.pid}/comm").read_text() == "rh-pipe\n"


@pytest.mark.slow
def test_tee_continues_without_its_reader(pipe: Pipe, tmp_path: Path) -> None:
    """The reader of --tee may exit; the pipe continues."""
    run = pipe("--quiet", "--tee", "--for", "3s", stdout=subprocess.PIPE)
    assert run.stdout is not None
    first = json.loads(run.stdout.readline())
    assert first["type"] == "process"
    run.stdout.close()
    run.stdout = None
    assert run.wait(30) == 0
    assert int(str(wait_for(tmp_path / "x.db", "SELECT value FROM daemon_state WHERE key = 'ticks'")[0][0])) >= 6


def recording(place: Path, begin: float, seconds: float = 12.0) -> Path:
    """A machine of two CPUs, three times a second: a loop, a process that uses a third of a core, and ten idle ones."""
    place.mkdir()
    for number in range(int(3 * seconds)):
        at = number / 3
        tree = Tree(place / f"{number:06d}")
        loop, other = round(at * HZ), round(at * HZ / 3)
        tree.write("stat", b"cpu  %d 0 0 %d 0 0 0 0 0 0\ncpu0 1\ncpu1 1\nintr 0\nbtime 1700000000\n" % (
            1000 + loop + other, 1000 + 2 * round(at * HZ) - loop - other))
        tree.write("uptime", b"%.2f 1.0\n" % (5000 + at))
        tree.process(500, b"spinner", b"R", utime=500 + loop, cmdline=b"spinner\0--for-ever\0")
        tree.process(501, b"helper", utime=500 + other, cmdline=b"helper\0")
        for pid in range(510, 520):
            tree.process(pid, cmdline=b"idle\0")
        (tree.path / "clock").write_text(json.dumps({
            "mono_ns": 10**12 + round(at * 1e9), "ts": begin + at, "interval_s": 1 / 3 if number else 0.0, "late_s": 0.0,
            "asleep_s": 0.0}))
    return place


def test_report_names_the_loop_first(pipe: Pipe, rh: Rh, tmp_path: Path) -> None:
    """Of a recorded machine, so that nothing else runs: the first line names the loop with its use and its share."""
    begin = round(time.time()) - 60
    run = pipe("--quiet", "--no-socket", "--proc-root", str(recording(tmp_path / "machine", begin)))
    _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (0, b"")
    done = rh("report", "--db", tmp_path / "x.db", "--table", "--since", f"@{begin}", "--until", f"@{begin + 12}")
    first = done.stdout.decode().splitlines()[0]
    assert "spinner (pid 500)" in first and "1.0 of 2 cores" in first and "75 %" in first, first


@pytest.mark.slow
def test_report_at_the_end_of_a_run(pipe: Pipe, loop: int, tmp_path: Path) -> None:
    """`rh-pipe --for 3s --report` prints the summary of what it watched, and the loop is an event."""
    run = pipe("--quiet", "--for", "3s", "--report", stdout=subprocess.PIPE)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and b"(pid " in out.splitlines()[0]
    assert wait_for(tmp_path / "x.db", f"SELECT 1 FROM process_events WHERE pid = {loop}")


@pytest.mark.slow
def test_prune_goes_through_the_running_pipe(spawn: Spawn, clean_env: Mapping[str, str], rh: Rh,
                                             tmp_path: Path) -> None:
    """rh-prune has the rh-pipe that writes to the database prune it; one that writes to another is not touched."""
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    env = {**clean_env, "XDG_RUNTIME_DIR": str(run)}
    spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--db", str(tmp_path / "x.db")], env=env)
    wait_for(tmp_path / "x.db", "SELECT 1 FROM daemon_state WHERE key = 'last_tick'")
    done = rh("prune", "--older-than", "1d", "--db", tmp_path / "x.db", XDG_RUNTIME_DIR=str(run))
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads(done.stdout)
    assert (answer["type"], answer["database"], answer["removed"]) == ("prune", str(tmp_path / "x.db"), {})
    lock = Lock(tmp_path / "other.db")
    open_writer(tmp_path / "other.db")[0].close()
    done = rh("prune", "--db", tmp_path / "other.db", XDG_RUNTIME_DIR=str(run))
    lock.release()
    assert done.returncode == 69 and b"another database" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("make", "code"), [
    (lambda db: db.parent.rmdir(), 74),
    (lambda db: db.mkdir(), 74),
    (lambda db: db.symlink_to("/etc/passwd"), 74),
    (lambda db: sqlite3.connect(db).execute("CREATE TABLE theirs (x)").connection.close(), 78),
], ids=["no directory", "a directory", "a link", "another program's"])
def test_unusable_database(rh: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path,
                           make: Callable[[Path], object], code: int) -> None:
    """One line, the exit code, nothing sampled."""
    db = tmp_path / "sub" / "x.db"
    db.parent.mkdir()
    make(db)
    done = rh("pipe", "--quiet", "--for", "5s", "--db", db)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
def test_what_cannot_be_written_at_the_end_is_an_error(pipe: Pipe, tmp_path: Path) -> None:
    """Another program keeps the write lock: the number of records is reported, and the exit code is not 0."""
    run = pipe("--for", "3s")
    wait_for(tmp_path / "x.db", "SELECT 1 FROM daemon_state WHERE key = 'last_tick'")
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        _, err = run.communicate(timeout=60)
    assert run.returncode == 74
    assert b"records could not be written" in err and b"Traceback" not in err


def test_a_hangup_before_the_configuration_is_read_does_not_end_it(clean_env: Mapping[str, str], tmp_path: Path,
                                                                   ) -> None:
    """systemctl reload, or a script that sends SIGHUP, may come in the first moments."""
    program = ("import signal, sys, rogue_hunter.config.toml as toml, rogue_hunter.__main__ as command; load = toml.load; "
               "toml.load = lambda *given: (signal.raise_signal(signal.SIGHUP), load(*given))[1]; "
               "sys.exit(command.main())")
    done = subprocess.run([sys.executable, "-P", "-c", program, "pipe", "--quiet", "--for", "0.5s", "--no-socket", "--db",
                           str(tmp_path / "x.db")], env=dict(clean_env), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_full_disk_degrades_and_recovers(pipe: Pipe, loop: int,
                                         tmp_path: Path) -> None:
    """On a full file system sampling continues; when there is room again, every tick is in the database."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        filler = place / "filler"
        run = pipe("--db", str(place / "x.db"), "--hz", "10", "--for", "12s")
        wait_for(place / "x.db", "SELECT 1 FROM process_events")
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        time.sleep(6)  # at least one slice ends in it
        filler.unlink()
        _, err = run.communicate(timeout=60)
        assert run.returncode == 0
        assert b"Traceback" not in err
        assert wait_for(place / "x.db", "SELECT (SELECT sum(ticks) FROM machine_slices) = CAST(value AS INTEGER) "
                                        "FROM daemon_state WHERE key = 'ticks'") == [(1,)]
        assert wait_for(place / "x.db", "PRAGMA integrity_check") == [("ok",)]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
