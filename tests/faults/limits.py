"""Little memory, few descriptors, other namespaces, clocks that are set, processes by the thousand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.daemon import pipe
from rogue_hunter.store.database import DatabaseError, open_reader
from rogue_hunter.stream.clock import Clock
from rogue_hunter.stream.tick import Tick
from tests.tools import ticks as ticktools
from tests.tools.processes import PYTHON, python, wait_for

from .statements import Scripted
from .table import REPO, Bench, Skip, case, clean


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the database answers."""
    with closing(open_reader(database)) as connection:
        connection.row_factory = None
        return connection.execute(sql).fetchall()


def state(database: Path) -> dict[str, Any]:
    """daemon_state."""
    return {key: json.loads(value) for key, value in rows(database, "SELECT key, value FROM daemon_state")}


def _works(prefix: Sequence[str]) -> None:
    """Raise Skip where a command cannot be run so."""
    found = shutil.which(prefix[0])
    if found is None or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        raise Skip(f"cannot run {' '.join(prefix)[:60]}")


@case("little memory", "works, or ends with one line and exit 69 or 74, or dies inside of a library; no hang")
def memory(bench: Bench) -> str:
    _works(["prlimit", "--as=1000000000"])
    seen = []
    for megabytes in (*range(20, 200, 6),) if bench.long else (24, 72, 400):
        # The interpreter starts with its usual limit: what it cannot load is not ours to handle.
        code = ("import resource, sys, unicodedata; import rogue_hunter.daemon.pipe; import rogue_hunter.cli.pipe as pipe; sys.argv = sys.argv[1:];"
                f"resource.setrlimit(resource.RLIMIT_AS, ({megabytes << 20},) * 2); pipe.main()")
        args = ["rh-pipe", "--quiet", "--for", "0.4s", "--hz", "10", "--no-socket", "--db", bench.tmp / f"{megabytes}.db"]
        done = subprocess.run([sys.executable, "-P", "-c", code, *args], env=bench.env, capture_output=True, timeout=60,
                              check=False)
        # orjson and Python's own re and typing end by a signal, an IndexError or a SystemError when malloc gives them nothing.
        if done.returncode < 0 or any(text in done.stderr for text in (
                b"bytearray index out of range", b"SystemError: error return without exception set")):
            seen.append(f"{megabytes} MB: dies in a library")
            continue
        assert done.returncode in (0, 69, 74), (megabytes, done)
        clean(done.stderr)
        seen.append(f"{megabytes} MB: {done.returncode}")
    assert seen[-1].endswith(": 0")
    return ", ".join(seen)


@case("40 descriptors", "rh-pipe with its socket and log: exit 0, every tick, 0 errors; rh-report reads it meanwhile")
def descriptors(bench: Bench) -> str:
    _works(["prlimit", "--nofile=40"])
    database = bench.tmp / "x.db"
    done = bench.rh("pipe", "--quiet", "--for", "2s", "--hz", "10", "--db", database, prefix=["prlimit", "--nofile=40"])
    clean(done.stderr, lines=0)
    assert done.returncode == 0
    told = state(database)
    assert told["ticks"] >= 2 and told["last_tick"]["errors"] == 0 and told["last_tick"]["processes"] > 2
    return f"{told['ticks']} ticks of {told['last_tick']['processes']} processes, 0 errors"


HALF = """
import time
while True:
    end = time.thread_time() + 0.01
    while time.thread_time() < end: pass
    time.sleep(0.01)
"""
"""It uses half of a core."""


@case("no threads", "where none can be begun: every tick, events, captures that say why not; exit 0")
def threads(bench: Bench) -> str:
    burner = bench.start(python(HALF))
    code = ("import threading, sys\n"
            "def start(self): raise RuntimeError(\"can't start new thread\")\n"
            "threading.Thread.start = start\n"
            "import rogue_hunter.cli.pipe as pipe; sys.argv = sys.argv[1:]; pipe.main()")
    database, config, err = bench.tmp / "x.db", bench.tmp / "c.toml", bench.tmp / "err"
    config.write_text("[bands]\nmedium = 10\nelevated = 11\nhigh = 12\ncritical = 13\n")
    with err.open("wb") as stderr:
        child = bench.start([sys.executable, "-P", "-c", code, "rh-pipe", "--hz", "10", "--db", database, "-c", config], stderr=stderr)

    def events() -> list[tuple[Any, ...]]:
        with suppress(DatabaseError):
            return rows(database, "SELECT pid, command FROM process_events")
        return []

    # Beside other loops of the test run the event is that of the unit to which all of them belong.
    wait_for(lambda: child.poll() is not None or events(), 60)
    child.terminate()
    assert child.wait(60) == 0, (child.returncode, err.read_bytes())
    clean(err.read_bytes())
    told = state(database)
    assert told["ticks"] >= 2 and told["last_tick"]["errors"] == 0, told
    found = next((event for event in events() if event[0] == burner.pid), events()[0])
    captures = rows(database, "SELECT status FROM forensic_captures")
    return f"{told['ticks']} ticks, event {found}, captures {captures}"


@case("12 descriptors", "refused in one line, or works")
def fewest(bench: Bench) -> str:
    _works(["prlimit", "--nofile=12"])
    seen = []
    for number in (6, 8, 10, 12, 14, 16, 20) if bench.long else (6, 14, 20):
        done = bench.rh("pipe", "--quiet", "--for", "0.3s", "--db", bench.tmp / f"{number}.db",
                        prefix=["prlimit", f"--nofile={number}"])
        # Below that Python itself cannot import.
        if b"Traceback" in done.stderr and b"rogue_hunter/" not in done.stderr.rpartition(b"File ")[2]:
            seen.append(f"{number}: Python cannot start")
            continue
        clean(done.stderr)
        assert done.returncode in (0, 69, 74), (number, done)
        seen.append(f"{number}: {done.returncode}")
    return ", ".join(seen)


UID = 61_007
"""No other test runs processes of this user."""
NOBODY = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")


@case("another user and a hidden /proc", "rh-pipe as another user, /proc with hidepid=2: its own processes only, 0 errors, "
      "exit 0")
def hidden(bench: Bench) -> str:
    if os.geteuid() != 0:
        raise Skip("needs root")
    prefix = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh", *NOBODY]
    _works(prefix)
    packages = [p for p in sys.path if p.endswith("site-packages")]
    args = [PYTHON, "-B", "-m", "rogue_hunter", "pipe"]
    env = {**bench.env, "PYTHONPATH": ":".join([str(REPO), *packages])}
    home = Path(env["HOME"])
    for place in (bench.tmp, home):
        os.chown(place, UID, UID)
    if subprocess.run([*prefix, *args, "--version"], env=env, capture_output=True, check=False).returncode:
        raise Skip("no interpreter that another user may run")
    done = subprocess.run([*prefix, *args, "--quiet", "--for", "2s", "--hz", "5"], env=env, capture_output=True,
                          timeout=60, check=False)
    clean(done.stderr, lines=0)
    assert done.returncode == 0, done
    told = state(home / ".local/share/rogue-hunter/rogue-hunter.db")
    assert told["last_tick"]["errors"] == 0 and 1 <= told["last_tick"]["processes"] < 20
    return f"{told['last_tick']['processes']} processes, {told['ticks']} ticks, 0 errors"


@case("a pid namespace", "pids from 1 on, its own processes only, exit 0, 0 errors")
def pid_namespace(bench: Bench) -> str:
    prefix = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    _works(prefix)
    done = bench.rh("pipe", "--quiet", "--for", "1s", "--hz", "10", "--tee", "--no-socket", "--db", bench.tmp / "x.db",
                    prefix=prefix)
    clean(done.stderr, lines=0)
    assert done.returncode == 0
    read = [json.loads(line) for line in done.stdout.splitlines()]
    pids = {row["pid"] for row in read if row["type"] == "process"}
    errors = {row["errors"] for row in read if row["type"] == "tick"}
    assert 1 in pids and max(pids) < 100 and errors == {0}, (pids, errors)
    return f"pids {sorted(pids)}, 0 errors"


@case("600 days up", "in a time namespace: ages and start times right, nothing wraps at 32 bits")
def long_uptime(bench: Bench) -> str:
    prefix = ["unshare", "--time", "--boottime", "51840000", "--monotonic", "51840000", "--fork"]
    _works(prefix)
    done = bench.rh("sample", "-n", "2", "--hz", "5", prefix=prefix)
    clean(done.stderr, lines=0)
    read = [json.loads(line) for line in done.stdout.splitlines()]
    here = [row for row in read if row["type"] == "process" and row.get("command", "").startswith("python")][-1:]
    ticks = [row for row in read if row["type"] == "tick"]
    assert ticks[-1]["mono_ns"] > 51_840_000 * 10**9 and ticks[-1]["errors"] == 0
    newest = max(row["start_ticks"] for row in read if row["type"] == "process")
    assert newest > 1 << 32, newest
    ages = {row["pid"]: row["age_s"] for row in read if row["type"] == "process" and row["start_ticks"] == newest}
    assert all(0 <= age < 60 for age in ages.values()), ages
    assert all(abs(row["start_time"] - time.time()) < 1e9 for row in here)
    days = ticks[-1]["mono_ns"] / 86400e9
    return f"start_ticks {newest} (over 2^32), age {min(ages.values())} s, uptime {days:.0f} days"


@case("the clock is set", "by a day forward and two back: events, scores, snapshots as without; the steps are said")
def clock_steps(bench: Bench) -> str:
    def run(name: str, steps: dict[int, float]) -> tuple[list[Any], list[float]]:
        host = Scripted()
        moved = beats = 0.0
        said: list[float] = []

        def sleep(seconds: float) -> bool:
            nonlocal moved, beats
            beats += 1
            host.mono_ns += round(seconds * 1e9) + 1
            moved += steps.get(int(beats), 0.0)
            return beats < 90

        def spy(tick: Tick) -> Tick:
            if tick.row is not None and "clock_step_s" in tick.row:
                said.append(round(tick.row["clock_step_s"]))
            return tick

        host.clock = Clock(host.clock.mono, lambda: ticktools.START + host.mono_ns / 1e9 + moved)
        pipe.run(Config(), host, bench.tmp / name, hz=3.0, sleep=sleep, clock=host.clock, warn=lambda line: None,
                 captures=spy)
        found = rows(bench.tmp / name, "SELECT e.pid, e.start_ticks, e.peak_score, e.reason, count(*)"
                     " FROM process_events e JOIN process_snapshots s ON s.event_id = e.id GROUP BY e.id"
                     " ORDER BY 1, 2, 3, 4, 5")
        return found, said

    usual, none = run("usual.db", {})
    stepped, said = run("stepped.db", {20: 86400.0, 50: -172800.0})
    assert none == [] and said == [86400.0, -172800.0], said
    assert len(usual) > 5 and stepped == usual, set(usual) ^ set(stepped)
    return f"{len(usual)} events, the same as without; steps told: {said}"


@case("SIGSTOP", "rh-pipe stopped for 2 s: no pause is blamed on anybody, ticks go on, exit 0")
def stopped(bench: Bench) -> str:
    database = bench.tmp / "x.db"
    burner = bench.start(python(HALF))
    child = bench.start(bench.command("pipe", "--quiet", "--hz", "10", "--no-socket", "--tee", "--db", database),
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    seen = 0
    while seen < 5:
        line = child.stdout.readline()
        assert line
        seen += b'"type":"tick"' in line
    child.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    child.send_signal(signal.SIGCONT)
    read = []
    while seen < 12:
        line = child.stdout.readline()
        assert line
        read.append(json.loads(line))
        seen += read[-1]["type"] == "tick"
    child.terminate()
    read += [json.loads(line) for line in child.stdout]     # communicate() would leave out what is read ahead
    clean(child.stderr.read(), lines=0)
    assert child.wait(30) == 0
    assert any(row.get("continued") for row in read if row["type"] == "tick")
    found = [row for row in read if row["type"] == "pause"]
    assert all(pause["cause"] == "stopped" and not pause.get("culprits") for pause in found), found
    burner.kill()
    return f"late by {max(r['late_s'] for r in read if r['type'] == 'tick'):.1f} s, " \
           f"{len(found)} pause, cause {', '.join(p['cause'] for p in found) or 'none'}, 0 culprits"


FORKS = """
import os, sys, time
made = 0
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pids = []
    for _ in range(50):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    made += 50
    time.sleep(0.02)
print(made, flush=True)
"""


@case("a fork storm", "processes that die while they are read: 0 errors in every tick, exit 0, the parent is found")
def storm(bench: Bench) -> str:
    child = bench.start(python(FORKS, "30" if bench.long else "3"), stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    done = bench.rh("pipe", "--quiet", "--for", "25s" if bench.long else "2s", "--hz", "5", "--tee", "--no-socket",
                    "--db", bench.tmp / "x.db")
    clean(done.stderr, lines=0)
    ticks = [json.loads(line) for line in done.stdout.splitlines() if b'"type":"tick"' in line]
    made = int(child.stdout.readline())
    assert done.returncode == 0 and len(ticks) >= 2
    assert {tick["errors"] for tick in ticks} == {0}, [tick["errors"] for tick in ticks]
    return f"{made} processes made, {sum(t['started'] for t in ticks)} of them seen, {len(ticks)} ticks, 0 errors"


CROWD = """
import os, signal, sys, time
pids = []
try:
    for _ in range(int(sys.argv[1])):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
    print(len(pids), flush=True)
    sys.stdin.read()
finally:
    if os.getpid() == int(open("/proc/self/stat").read().split()[0]) and pids:
        for pid in pids:
            os.kill(pid, 9)
        for pid in pids:
            os.waitpid(pid, 0)
"""


@case("10,000 processes", "every tick taken, every process in it, 0 errors", long_only=True)
def crowd(bench: Bench) -> str:
    child = bench.start(["nice", "-n", "19", *python(CROWD, "10000")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    try:
        if child.stdout.readline() != b"10000\n":
            raise Skip("so many processes may not be made here")
        done = bench.rh("pipe", "--quiet", "--for", "10s", "--no-socket", "--db", bench.tmp / "x.db", prefix=["nice"])
        clean(done.stderr)
        told = state(bench.tmp / "x.db")
        last = told["last_tick"]
        assert done.returncode == 0 and last["processes"] > 10_000 and last["errors"] == 0
        return (f"{last['processes']} processes, {told['ticks']} ticks in 10 s, {last['self_cpu_percent']} % of a "
                f"core, {last['self_memory_bytes'] >> 20} MiB")
    finally:
        child.stdin.close()
        child.stdin = None
        child.wait(120)


@case("2 MB of arguments", "100,000 arguments, and 15 of 128 KiB: told cut to 4 KiB, 0 errors")
def arguments(bench: Bench) -> str:
    code = "import sys; print(len(sys.argv), flush=True); sys.stdin.read()"
    many = bench.start([*python(code), *map(str, range(100_000))], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    large = bench.start([*python(code), "x" * 131_000, *["y" * 131_000] * 14], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE)
    for child in (many, large):
        assert child.stdout is not None and child.stdout.readline()
    sizes = [len(Path(f"/proc/{child.pid}/cmdline").read_bytes()) for child in (many, large)]
    assert sizes[1] > 1_900_000
    done = bench.rh("sample", "-n", "2", "--hz", "3")
    clean(done.stderr, lines=0)
    read = [json.loads(line) for line in done.stdout.splitlines()]
    told = {row["pid"]: row for row in read if row["type"] == "process"}
    for child in (many, large):
        assert 1000 < len(told[child.pid]["cmdline"].encode()) <= 4096
    assert {row["errors"] for row in read if row["type"] == "tick"} == {0}
    return f"{sizes[0]:,} and {sizes[1]:,} bytes of arguments: {len(told[many.pid]['cmdline'])} and " \
           f"{len(told[large.pid]['cmdline'])} characters told, 0 errors"
