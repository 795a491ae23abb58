"""rh-pipe makes captures: of a loop, of a lock convoy, beside the beat, and ends in time during a capture."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.tools import reports

pytestmark = [pytest.mark.waits, pytest.mark.skipif(sys.platform != "linux", reason="captures of living processes are tried on Linux")]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Pipe = Callable[..., "subprocess.Popen[bytes]"]
Burn = Callable[[], int]

SPIN = "import fcntl, sys\nf = open(sys.argv[1], 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('held', flush=True)\nwhile 1: pass"
WAIT = "import fcntl, sys\nf = open(sys.argv[1], 'w')\nprint('waits', flush=True)\nfcntl.flock(f, fcntl.LOCK_EX)"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def pipe(spawn: Spawn, clean_env: Mapping[str, str], tmp_path: Path, db: Path) -> Pipe:
    """Start rh-pipe on a database of its own; captures begin at the band in which one loop is on any machine."""
    def start(*args: str, config: str = "log_entries = 0", **options: Any) -> subprocess.Popen[bytes]:
        file = tmp_path / "x.toml"
        file.write_text(f'[bands]\ntracking = "medium"\nforensics = "medium"\n[forensics]\n'
                        f'same_trouble_s = 0\ncpu_percent = 0\n{config}\n')
        return spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--no-socket", "--db", str(db),
                      "-c", str(file), *args], env=dict(clean_env), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                     **options)
    return start


@pytest.fixture
def loop(burn: Burn) -> int:
    """The pid of a shell that burns a core."""
    return burn()


wait_for = partial(reports.wait_for, made=dict)


def helpers(pid: int) -> list[Path]:
    """The processes that a process has started and that live."""
    from rogue_hunter.host.linux.parse import parse_stat

    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = parse_stat((place / "stat").read_bytes())
        except OSError:
            continue
        if stat.ppid == pid and stat.state != b"Z":
            found.append(place)
    return found


@pytest.mark.slow
def test_a_loop_is_captured(pipe: Pipe, burn: Burn, db: Path) -> None:
    """Within seconds the threads of the loop are in the database, with the event, and the ticks before."""
    run = pipe(config="log_entries = 0\ndebounce_s = 0\nper_hour = 1000")
    own = {"status": "skipped"}
    for _ in range(10):     # the capture of another process of this machine may be under way when the loop's event begins
        (last,) = wait_for(db, "SELECT coalesce(max(id), 0) AS id FROM forensic_captures")
        loop = burn()
        # Several skipped requests are one record, which has no event.
        (own,) = wait_for(db, f"""
            SELECT c.id, c.status, c.os, c.threads_status, e.pid AS event_pid FROM forensic_captures c
            LEFT JOIN process_events e ON e.id = c.event_id
            WHERE c.pid = {loop} OR (c.status = 'skipped' AND c.event_id IS NULL AND c.id > {last['id']}
                                     AND EXISTS (SELECT 1 FROM process_events WHERE pid = {loop}))
            ORDER BY c.status = 'skipped', c.id LIMIT 1""")
        if own["status"] != "skipped":
            break
        os.kill(loop, signal.SIGKILL)
    assert own["status"] in ("ok", "partial") and own["os"] == "linux" and own["event_pid"] == loop
    (thread,) = wait_for(db, f"SELECT * FROM spindump_threads WHERE capture_id = {own['id']} AND pid = {loop}")
    assert thread["state"] == "running" and thread["thread_id"] == str(loop) and thread["samples"] == 3
    (role,) = wait_for(db, f"SELECT role FROM spindump_processes WHERE capture_id = {own['id']} AND pid = {loop}")
    assert role["role"] == "culprit"
    (ring,) = wait_for(db, f"SELECT * FROM buffer_context WHERE capture_id = {own['id']}")
    assert loop in {c["pid"] for c in json.loads(ring["culprits"])} and ring["sample_count"] >= 1
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=20)
    assert (run.returncode, err) == (0, b"")


@pytest.mark.slow
def test_a_convoy_names_its_holder(pipe: Pipe, spawn: Spawn, rh: Run, db: Path, tmp_path: Path) -> None:
    """Two processes wait for the file lock of a third one, which burns a core: rh-report says whom they wait for."""
    lock = str(tmp_path / "lock")
    holder = spawn([sys.executable, "-c", SPIN, lock], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    waiters = [spawn([sys.executable, "-c", WAIT, lock], stdout=subprocess.PIPE) for _ in range(2)]
    for each in waiters:
        assert each.stdout is not None and each.stdout.readline()
    pipe()
    (found,) = wait_for(db, f"""
        SELECT min(capture_id) AS id FROM spindump_blockers WHERE on_pid = {holder.pid}
        GROUP BY on_pid HAVING count(DISTINCT pid) >= 2""")
    (named,) = wait_for(db, f"SELECT capture FROM forensic_captures WHERE id = {found['id']}")
    for which in (str(found["id"]), named["capture"]):
        done = rh("report", "capture", which, "--blame", "--db", str(db))
        roots = [json.loads(line) for line in done.stdout.splitlines()]
        (root,) = [r for r in roots if r["pid"] == holder.pid]
        assert root["waiters"] == 2 and root["certainty"] == "proven"
    words = rh("report", "capture", str(found["id"]), "--blame", "--table", "--db", str(db)).stdout.decode()
    assert f"[{holder.pid}] thread {holder.pid} blocks 2 threads of 2 other processes" in words
    again = rh("forensics", "blame", "-", stdin=rh("report", "capture", named["capture"], "--db", str(db)).stdout)
    assert holder.pid in {json.loads(line)["pid"] for line in again.stdout.splitlines()}


@pytest.mark.slow
def test_it_ends_in_time_while_a_capture_hangs(pipe: Pipe, loop: int, db: Path) -> None:
    """SIGTERM in the middle of a capture that takes a minute: the capture is cut off, which is in the database, the
    event is closed, and no process is left behind."""
    run = pipe(config="rounds = 100\nround_s = 10.0\nlog_entries = 0")
    wait_for(db, f"SELECT 1 FROM process_events WHERE pid = {loop}")
    deadline = time.monotonic() + 30
    while not (made := helpers(run.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=20)
    assert (run.returncode, err) == (0, b"")
    (own,) = wait_for(db, "SELECT status, problems FROM forensic_captures WHERE status != 'skipped' LIMIT 1")
    assert own["status"] == "failed" and "cancelled" in own["problems"]
    assert wait_for(db, f"SELECT reason FROM process_events WHERE pid = {loop}") == [{"reason": "stopped"}]
    assert not [place for place in made if place.exists() and b"capture" in (place / "cmdline").read_bytes()]


@pytest.mark.slow
def test_a_storm_stays_within_its_budget(pipe: Pipe, burn: Burn, db: Path) -> None:
    """One capture an hour, many that ask for one: skipped ones are reported, with the reason."""
    for _ in range(3):
        burn()
    pipe("--for", "9s", config="per_hour = 1\nlog_entries = 0").communicate(timeout=60)
    found = {row["reason"]: row["n"] for row in wait_for(
        db, "SELECT coalesce(reason, 'made') AS reason, sum(coalesce(skipped, 1)) AS n FROM forensic_captures GROUP BY 1")}
    assert found["made"] == 1 and set(found) - {"made"} <= {"busy", "debounce", "hour_budget", "cpu_budget"} and len(found) > 1


@pytest.mark.slow
def test_it_can_be_switched_off(pipe: Pipe, loop: int, db: Path) -> None:
    """No capture, none skipped, no process started."""
    pipe("--for", "3s", config="enabled = false").communicate(timeout=60)
    assert wait_for(db, f"SELECT 1 FROM process_events WHERE pid = {loop}")
    assert wait_for(db, "SELECT count(*) AS n FROM forensic_captures") == [{"n": 0}]


def test_before_the_first_request_it_costs_next_to_nothing(clean_env: Mapping[str, str]) -> None:
    """What makes captures is not even imported; nothing comes with the stage that rh-pipe did not have."""
    code = ("import sys, rogue_hunter.store.writer, rogue_hunter.daemon.log\nbefore = set(sys.modules)\n"
            "import rogue_hunter.capture.stage\n"
            "print(*sorted(m for m in set(sys.modules) - before if 'rogue_hunter' not in m and '.' not in m))\n"
            "print(*sorted(m for m in sys.modules if 'forensics' in m))")
    run = subprocess.run([sys.executable, "-P", "-c", code], env=dict(clean_env), capture_output=True, check=True)
    others, ours = run.stdout.decode().splitlines()
    assert others == ""
    assert not {name for name in ours.split() if name.endswith((".beside", ".blame", ".parse", ".spindump", ".macos"))
                or ".linux" in name}


@pytest.mark.slow
def test_a_recording_is_not_captured(burn: Burn, clean_env: Mapping[str, str], tmp_path: Path, db: Path) -> None:
    """Its processes are not those of this machine, even with equal pids."""
    config = tmp_path / "x.toml"
    config.write_text('[bands]\ntracking = "medium"\nforensics = "medium"\n[tracking]\nenter_s = 0.0\n')
    recorded = tmp_path / "recorded"
    base = [sys.executable, "-P", "-m", "rogue_hunter"]
    load = burn()
    done = subprocess.run([*base, "sample", "-n", "4", "--record", str(recorded)], env=dict(clean_env),
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=120)
    os.kill(load, signal.SIGKILL)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*base, "pipe", "--quiet", "--no-socket", "--proc-root", str(recorded), "--db", str(db), "-c",
                           str(config)], env=dict(clean_env), capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert wait_for(db, f"SELECT 1 FROM process_events WHERE pid = {load}")
    assert wait_for(db, "SELECT count(*) AS n FROM forensic_captures") == [{"n": 0}]


@pytest.mark.slow
def test_settings_are_taken_up_while_it_runs(pipe: Pipe, loop: int, burn: Burn, db: Path,
                                             tmp_path: Path) -> None:
    """Switched on in the file and reloaded by SIGHUP: the next event is captured."""
    run = pipe(config="enabled = false")
    wait_for(db, f"SELECT 1 FROM process_events WHERE pid = {loop}")
    (tmp_path / "x.toml").write_text('[bands]\nforensics = "elevated"\n[forensics]\nlog_entries = 0\n')
    run.send_signal(signal.SIGHUP)
    burn()
    assert wait_for(db, "SELECT 1 FROM forensic_captures WHERE status != 'skipped'")
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait(20) == 0
