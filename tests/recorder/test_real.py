"""What this machine really shows: profiles of loops, a pause that a real-time loop makes, refusals of the kernel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click
import orjson
import pytest

from rogue_hunter.cli.forensics import command as forensics
from rogue_hunter.cli.report import command as report
from rogue_hunter.recorder.perf import open_rings
from rogue_hunter.store.database import open_reader
from tests.report.test_flame import LINE, check_speedscope
from tests.tools.processes import wait_for

REPO = Path(__file__).resolve().parents[2]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
InProcess = Callable[[click.Command], Run]

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="perf events are Linux's"), pytest.mark.slow]

C_LOOP = "__attribute__((noinline)) int hot_c_loop(int x) { volatile int y = x; for (;;) y = y * 3 + 1; return y; }\n" \
         "int main(int c, char **v) { return hot_c_loop(c); }\n"
PY_LOOP = "def hot_py_loop():\n    n = 0\n    while True:\n        n = (n * 3 + 1) % 1000003\n\nhot_py_loop()\n"
SH_LOOP = "hot_sh_loop() { while :; do i=$((i+1)); (( i % 5000 )) || /bin/true; done; }\nhot_sh_loop\nexit 0\n"
HOG = """
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline)) static unsigned spin_in_hog(unsigned n) {
  volatile unsigned x = n; for (unsigned i = 0; i < 100000; i++) x = x * 3 + 1; return x; }
int main(int c, char **v) {
  cpu_set_t set; struct timespec a, b; struct sched_param p = {.sched_priority = 50}; unsigned x = 0;
  CPU_ZERO(&set); CPU_SET(atoi(v[1]), &set);
  if (sched_setaffinity(0, sizeof set, &set) || sched_setscheduler(0, SCHED_FIFO, &p)) return 3;
  clock_gettime(CLOCK_MONOTONIC, &a);
  do { x += spin_in_hog(x); clock_gettime(CLOCK_MONOTONIC, &b); }
  while ((b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9 < 1.1);
  p.sched_priority = 0; sched_setscheduler(0, SCHED_OTHER, &p);
  sleep(30); return x == 7; }
"""


@pytest.fixture(scope="module", autouse=True)
def permitted() -> None:
    """Skip where this kernel permits no perf events."""
    rings, why = open_rings(49)
    if rings is None:
        pytest.skip(f"PERF EVENTS NOT TESTED: {why}")
    rings.close()


def compiled(folder: Path, name: str, text: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    (folder / f"{name}.c").write_text(text)
    subprocess.run(["gcc", "-O1", "-fno-omit-frame-pointer", "-o", folder / name, folder / f"{name}.c"], check=True)
    return folder / name


def profiled(in_process: InProcess, spawn: Spawn, *argv: str | Path, forms: Sequence[str] = ("--flame",)) -> list[bytes]:
    """The profile of a program that loops, once in each form."""
    loop = spawn([str(word) for word in argv], stdin=subprocess.DEVNULL)
    time.sleep(0.1)
    run, printed = in_process(forensics), []
    for form in forms:
        done = run("profile", "--pid", str(loop.pid), "--for", "500ms", form)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    loop.kill()
    return printed


def test_profile_of_a_c_program(in_process: InProcess, spawn: Spawn, tmp_path: Path) -> None:
    """The hottest frame is the function that loops: as collapsed stacks, as a file of speedscope, and as records."""
    made = profiled(in_process, spawn, compiled(tmp_path, "hot", C_LOOP), forms=("--flame", "--speedscope", "--ndjson"))
    lines = made[0].decode().splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert lines[0].startswith("hot;") and lines[0].rpartition(" ")[0].endswith(";main;hot_c_loop")
    check_speedscope(json.loads(made[1]))
    first = json.loads(made[2].splitlines()[0])
    assert first["type"] == "stack" and first["command"] == "hot" and first["stack"].endswith("hot_c_loop")


def test_profiles_of_scripts(in_process: InProcess, spawn: Spawn, tmp_path: Path) -> None:
    """Of a loop in Python the function and line with py-spy; without it, and in a shell, the interpreter's function below
    the script and the line of the loop."""
    (tmp_path / "hot.py").write_text(PY_LOOP)
    (tmp_path / "hot.sh").write_text(SH_LOOP)
    python = profiled(in_process, spawn, sys.executable, tmp_path / "hot.py")[0].decode().splitlines()
    assert all(line.startswith("hot.py;") for line in python)
    if shutil.which("py-spy"):
        assert ";hot_py_loop (hot.py:4) " in python[0]
    else:
        assert any("PyEval" in line for line in python)     # a leaf without a frame pointer has no caller
    shell = profiled(in_process, spawn, "bash", tmp_path / "hot.sh")[0].decode().splitlines()
    assert shell[0].startswith("hot.sh;hot.sh (read to line 2);"), shell[0]


def test_refused_profiles(in_process: InProcess) -> None:
    """A process that does not exist, a period that is too long; one's own process is no error."""
    run = in_process(forensics)
    assert run("profile", "--pid", "4194303").returncode == 69
    assert run("profile", "--pid", "1", "--for", "1h").returncode == 2
    assert run("profile", "--pid", str(os.getpid()), "--for", "100ms").returncode in (0, 1)


# -- rh-pipe -----------------------------------------------------------------------------------------------------------

def ask(db: Path, sql: str) -> list[dict[str, Any]]:
    """The rows of a query; none while there is no database yet."""
    try:
        with closing(open_reader(db)) as reader:
            return [dict(row) for row in reader.execute(sql)]
    except Exception:
        return []


@pytest.fixture
def watched(spawn: Spawn, clean_env: Mapping[str, str], tmp_path: Path) -> Iterator[Path]:
    """The database of an rh-pipe that writes."""
    db = tmp_path / "x.db"
    pipe = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--no-socket", "--db", str(db)],
                 env=dict(clean_env), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: ask(db, "SELECT 1 FROM daemon_state WHERE key = 'last_tick'"), 30)
    time.sleep(1)
    yield db
    with suppress(OSError):
        pipe.send_signal(signal.SIGTERM)


@pytest.mark.serial
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take a CPU from everything else")
def test_a_pause_names_the_loop_with_its_stack(watched: Path, spawn: Spawn, in_process: InProcess, tmp_path: Path) -> None:
    """A loop at a real-time priority on every CPU for a second: rh-pipe cannot run. Afterwards the pause has the loop's
    function, and the loop had the CPUs for most of the pause."""
    program = compiled(tmp_path, "rthog", HOG)
    hogs = [spawn([program, str(cpu)], stdin=subprocess.DEVNULL) for cpu in sorted(os.sched_getaffinity(0))]
    try:
        time.sleep(0.5)
        if any(hog.poll() == 3 for hog in hogs):
            pytest.skip("REAL-TIME LOOP NOT TESTED: this container may not have real-time priorities")
        # On a loaded machine a capture of the loop may come first, and have its stack.
        wait_for(lambda: ask(watched, "SELECT 1 FROM stacks JOIN cpu_shares USING (pause_id) "
                                      "WHERE stack LIKE 'rthog;%' AND cpu_shares.command = 'rthog'"), 30)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    rh = in_process(report)
    (row,) = ask(watched, "SELECT pause_id FROM cpu_shares WHERE command = 'rthog' ORDER BY cpu_seconds DESC LIMIT 1")
    found = json.loads(rh("pause", str(row["pause_id"]), "--json", "--db", watched).stdout)
    firsts = {s["cpu"]: s for s in found["cpu_shares"] if s["rank"] == 1}
    assert {s["command"] for s in firsts.values()} == {"rthog"}
    assert all(s["share"] >= 0.6 for s in firsts.values()), firsts
    assert found["stacks"][0]["stack"].endswith(";main;spin_in_hog")
    flame = rh("flame", "--pause", str(row["pause_id"]), "--db", watched).stdout.decode().splitlines()
    assert all(LINE.fullmatch(line) for line in flame) and "spin_in_hog" in flame[0]
    check_speedscope(json.loads(rh("flame", "--pause", str(row["pause_id"]), "--speedscope", "--db", watched).stdout))
    text = rh("pause", str(row["pause_id"]), "--table", "--db", watched).stdout.decode()
    assert "Who had each CPU during the pause:" in text and "spin_in_hog < main" in text
    status = json.loads(rh("status", "--json", "--db", watched).stdout)
    assert status["recorder"] == "system" and 0 < status["recorder_bytes"] <= 3 << 20
    assert rh("flame", "--command", "rthog", "--db", watched).stdout.decode().splitlines() == flame
    assert rh("flame", "--pause", "1", "--capture", "1", "--db", watched).returncode == 2
    assert rh("flame", "--pause", "999999", "--db", watched).returncode == 65


REFUSED = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
action = 0x00050000 | int(sys.argv[1])  # SECCOMP_RET_ERRNO
number = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
def op(code, jt, jf, k): return struct.pack("=HBBI", code, jt, jf, k)
program = op(0x20, 0, 0, 0) + op(0x15, 0, 1, number) + op(6, 0, 0, action) + op(6, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(program, len(program))
filter_ = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 4, ctypes.addressof(buffer)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(filter_), 0, 0) == 0
sys.path.insert(0, sys.argv[2])
from rogue_hunter.recorder.perf import open_rings
rings, why = open_rings(49)
print(rings is None, why)
"""


@pytest.mark.parametrize("number, words", [(1, "no permission"), (38, "no perf_event_open"), (13, "no permission")])
def test_a_sandbox_that_refuses(number: int, words: str) -> None:
    """seccomp with EPERM, as containers have it, with ENOSYS, and with EACCES: nothing is recorded, and the reason is logged."""
    done = subprocess.run([sys.executable, "-c", REFUSED, str(number), str(REPO)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True") and words in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user() -> None:
    """Without the capability: own processes where perf_event_paranoid is 2 or less, else nothing; a reason either
    way."""
    for python in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run([python, "-c", USER, str(REPO), "65534", str(Path(orjson.__file__).parents[1])],
                              capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
    else:
        pytest.skip(f"no interpreter that an ordinary user can read: {done.stderr[-200:]}")
    level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    mode, seen = done.stdout.split()[:2]
    assert mode == ("own" if level <= 2 else "off") if level > 0 else "system"
    assert seen == "True" or mode == "off"


USER = """
import os, struct, sys
os.setgroups([]); os.setresgid(*[int(sys.argv[2])] * 3); os.setresuid(*[int(sys.argv[2])] * 3)
import ctypes
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
sys.path[:0] = sys.argv[1::2]
from rogue_hunter.recorder.perf import open_rings
rings, why = open_rings(499)
if rings is None:
    print("off", False, why)
else:
    if rings.mode == "own":
        rings.attach(os.getpid(), [os.getpid()])
    sum(i * i for i in range(2000000))
    print(rings.mode, any(struct.pack("=II", os.getpid(), os.getpid()) in each.data for each in rings.copies()), why)
"""
