"""Known workloads on the live machine: what is reported is what they did, and agrees with other tools.

Tolerances: CPU is compared over the same stretch with the kernel's own account of the process (times in clock ticks of
10 ms), so 3 ticks and 5 %; bytes are exact but for the file system's own pages (1 %); memory to the allocator's slack.
Whether a loop gets a whole core is the machine's affair: the others' figures are the measure, not 100 %.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.host.linux.host import LinuxHost
from rogue_hunter.host.protocol import Snapshot
from rogue_hunter.sampling.sample import sample
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream.clock import Beat
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Row
from tests.tools.processes import HZ, by_pid, python, ready, state_of, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads a live /proc")

Spawn = Callable[..., "subprocess.Popen[bytes]"]
MIB = 1 << 20
STRETCH = 0.6
"""Seconds over which a load is measured: 60 clock ticks."""


@pytest.fixture
def host() -> Iterator[LinuxHost]:
    made = LinuxHost()
    yield made
    made.close()


def told(spawn: Spawn, code: str, *args: str) -> subprocess.Popen[bytes]:
    """A child that reports when it is ready, and continues when it gets a line."""
    child = spawn(python(code, *args), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ready(child)
    return child


def go(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()


READY = "print('ready', flush=True)\n"
DONE = "print('done', flush=True)\ninput()\n"
LOOP = READY + "while True: pass"


@pytest.mark.slow
def test_busy_loops(host: LinuxHost, spawn: Spawn) -> None:
    """Three loops on any number of CPUs: each has the CPU time that psutil gives it, and together they have no
    more than there is."""
    loops = [told(spawn, LOOP) for _ in range(3)]
    idle = told(spawn, "print('ready', flush=True)\ninput()")
    others = [psutil.Process(child.pid) for child in loops]
    host.snapshot()

    def read() -> tuple[list[float], float]:
        return [sum(p.cpu_times()[:2]) for p in others], time.monotonic()

    # psutil's readings on both sides of each of ours: beside other work there is time between any two.
    outer, begin = read()
    first = by_pid(host.snapshot())
    inner, began = read()
    time.sleep(STRETCH)
    inner_end, ending = read()
    shot = host.snapshot()
    outer_end, end = read()
    rows = by_pid(shot)
    tick = 2 / HZ
    for child, *times in zip(loops, outer, inner, inner_end, outer_end, strict=True):
        grown = rows[child.pid]["cpu_seconds_total"] - first[child.pid]["cpu_seconds_total"]
        assert times[2] - times[1] - tick <= grown <= times[3] - times[0] + tick
        least, most = (grown - tick) / (end - begin), (grown + tick) / (ending - began)
        assert 100 * least <= rows[child.pid]["cpu_percent"] <= 100 * most
        assert rows[child.pid]["state"] == "running"
    assert rows[idle.pid]["cpu_percent"] == 0
    total = sum(rows[child.pid]["cpu_percent"] for child in loops)
    assert shot.cpu_cores is not None and total / 100 <= shot.cpu_cores + 0.05
    assert total <= 100 * (os.cpu_count() or 1) * 1.05


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_totals_agree_with_ps(host: LinuxHost, spawn: Spawn) -> None:
    """CPU time, resident memory, threads, nice value and state of a process are those that ps prints."""
    child = told(spawn, "x=bytearray(20<<20)\nfor i in range(4000000): pass\nprint('ready', flush=True)\ninput()")
    wait_for(lambda: state_of(child.pid) == "S")
    made = by_pid(host.snapshot())[child.pid]
    done = subprocess.run(
        ["ps", "-o", "pid=,ppid=,cputimes=,rss=,nlwp=,ni=,stat=,euid=", "-p", str(child.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    pid, ppid, cpu, rss, threads, nice, state, uid = done.stdout.split()
    assert (made["pid"], made["ppid"], made["threads"], made["nice"], made["uid"]) == tuple(
        map(int, (pid, ppid, threads, nice, uid))
    )
    assert made.get("state_raw", {"running": "R", "sleeping": "S", "uninterruptible": "D", "stopped": "T", "defunct": "Z",
                                      "idle": "I"}[made["state"]]) == state[0]
    assert int(cpu) <= made["cpu_seconds_total"] < int(cpu) + 1
    # The kernel keeps a part of these counts by CPU and adds it up now and then: within 64 pages of each.
    assert made["memory_bytes"] == pytest.approx(int(rss) * 1024, abs=(os.cpu_count() or 1) * 64 * 4096)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pidstat") is None, reason="needs pidstat")
def test_cpu_agrees_with_pidstat(host: LinuxHost, spawn: Spawn) -> None:
    """pidstat over the same second of a loop that works and sleeps."""
    child = told(
        spawn, "import time\nprint('ready', flush=True)\nwhile True:\n x=sum(range(20000))\n time.sleep(0.002)"
    )
    wait_for(lambda: child.pid in by_pid(host.snapshot()))
    host.snapshot()
    done = subprocess.run(
        ["pidstat", "-u", "-p", str(child.pid), "1", "1"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    made = by_pid(host.snapshot())[child.pid]
    header = next(line for line in done.stdout.splitlines() if "%CPU" in line).split()
    average = next(line for line in done.stdout.splitlines() if line.startswith("Average") and str(child.pid) in line)
    theirs = float(average.split()[header.index("%CPU") - len(header)])
    assert made["cpu_percent"] == pytest.approx(theirs, rel=0.15, abs=6)


def real_directory(tmp_path: Path) -> Path | None:
    """A directory on a file system with a device below it: what is written to memory is not written to storage."""
    for place in (tmp_path, Path("/var/tmp"), Path.cwd()):
        device = os.stat(place).st_dev
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            head, _, tail = line.partition(" - ")
            if head.split()[2] == f"{os.major(device)}:{os.minor(device)}" and tail.split()[0] in (
                "ext4",
                "xfs",
                "btrfs",
                "ext3",
                "f2fs",
            ):
                return place
    return None


def test_23_mebibytes(host: LinuxHost, spawn: Spawn, tmp_path: Path) -> None:
    """A process that has 23 MiB on the disk wrote 23 MiB: as a total, and as a rate over the interval."""
    place = real_directory(tmp_path)
    if place is None:
        pytest.skip("needs a file system on a device")
    target = place / f"rogue-hunter-test-{os.getpid()}"
    code = (
        f"import os,sys\nprint('ready', flush=True)\ninput()\nf=open({str(target)!r},'wb',0)\nb=os.urandom(1<<20)\n"
        "for i in range(23): f.write(b)\nos.fsync(f.fileno())\nprint('done', flush=True)\ninput()"
    )
    try:
        child = told(spawn, code)
        wait_for(lambda: state_of(child.pid) == "S")
        host.snapshot()
        before = by_pid(host.snapshot())[child.pid]
        begin = host._before_ns or 0
        go(child)
        ready(child)
        wait_for(lambda: state_of(child.pid) == "S")
        shot, end = host.snapshot(), time.monotonic_ns()
        made = by_pid(shot)[child.pid]
        wrote = made["disk_write_bytes_total"] - before["disk_write_bytes_total"]
        assert wrote == pytest.approx(23 * MIB, rel=0.01) and wrote >= 23 * MIB
        assert wrote == psutil.Process(child.pid).io_counters().write_bytes - before["disk_write_bytes_total"]
        read = made["disk_read_bytes_total"] - before["disk_read_bytes_total"]
        # It is read after the beginning of the snapshot, and before its end.
        least, most = ((wrote + read) / ((at - begin) / 1e9) for at in (end, shot.mono_ns))
        assert 0.99 * least <= made["disk_bytes_per_s"] <= 1.01 * most
        assert made["pageins_total"] >= before["pageins_total"]
        rested = by_pid(host.snapshot())[child.pid]
        assert rested["disk_bytes_per_s"] == 0 and rested["disk_write_bytes_total"] == made["disk_write_bytes_total"]
    finally:
        target.unlink(missing_ok=True)


def test_memory(host: LinuxHost, spawn: Spawn) -> None:
    """64 MiB that are touched are 64 MiB more; given back, they are gone, and the peak remembers them."""
    code = (
        f"import mmap\n{READY}input()\nm=mmap.mmap(-1,64<<20)\nfor i in range(0,64<<20,4096): m[i]=1\n"
        "print('held', flush=True)\n"
        "input()\nm.close()\nprint('free', flush=True)\ninput()"
    )
    child = told(spawn, code)
    seen: list[Row] = []
    for _ in range(3):
        wait_for(lambda: state_of(child.pid) == "S")
        seen.append(by_pid(host.snapshot())[child.pid])
        go(child)
        if len(seen) < 3:
            ready(child)
    small, held, free = (r["memory_bytes"] for r in seen)
    assert held - small == pytest.approx(64 * MIB, abs=MIB)
    assert held - free == pytest.approx(64 * MIB, abs=MIB)
    assert seen[2]["memory_peak_bytes"] >= held - MIB
    assert seen[1]["faults_total"] - seen[0]["faults_total"] >= 64 * MIB // (2 * MIB)


def test_sleeper_is_idle(host: LinuxHost, spawn: Spawn) -> None:
    """A process that sleeps has rates of 0, all of them measured."""
    child = spawn(["sleep", "600"])
    wait_for(lambda: Path(f"/proc/{child.pid}/comm").read_bytes() == b"sleep\n" and state_of(child.pid) == "S")
    host.snapshot()
    host.snapshot()
    made = by_pid(host.snapshot())[child.pid]
    assert {
        made[name]
        for name in (
            "cpu_percent",
            "pageins_per_s",
            "faults_per_s",
            "disk_bytes_per_s",
            "context_switches_per_s",
            "wakeups_per_s",
            "run_delay_ms_per_s",
        )
    } == {0}


def test_wakeups(host: LinuxHost, spawn: Spawn) -> None:
    """A process that sleeps a hundred times wakes up a hundred times."""
    child = told(spawn, f"import time\n{READY}input()\nfor i in range(100): time.sleep(0.001)\n{DONE}")
    wait_for(lambda: state_of(child.pid) == "S")
    before = by_pid(host.snapshot())[child.pid]
    go(child)
    ready(child)
    wait_for(lambda: state_of(child.pid) == "S")
    made = by_pid(host.snapshot())[child.pid]
    assert 100 <= made["wakeups_total"] - before["wakeups_total"] <= 110
    switches = psutil.Process(child.pid).num_ctx_switches()
    assert (
        made["context_switches_total"] == switches.voluntary + switches.involuntary
        and made["wakeups_total"] == switches.voluntary
    )


@pytest.mark.slow
def test_waiting_for_a_cpu(host: LinuxHost, spawn: Spawn) -> None:
    """Three loops that may use one CPU only: together they have one, and each waits for two thirds of the time."""
    cpu = sorted(os.sched_getaffinity(0))[0]
    loops = [
        told(spawn, f"import os\nos.sched_setaffinity(0,{{{cpu}}})\nprint('ready', flush=True)\nwhile True: pass")
        for _ in range(3)
    ]
    host.snapshot()
    host.snapshot()
    time.sleep(STRETCH)
    rows = by_pid(host.snapshot())
    mine = [rows[child.pid] for child in loops]
    assert sum(r["cpu_percent"] for r in mine) <= 105
    for r in mine:
        # What it did not get, it waited for.
        assert r["cpu_percent"] * 10 + r["run_delay_ms_per_s"] == pytest.approx(1000, abs=300)
    assert sum(r["run_delay_ms_per_s"] for r in mine) >= 1800


@pytest.mark.slow
def test_several_threads(host: LinuxHost, spawn: Spawn) -> None:
    """Work outside of the main thread belongs to the process (its schedstat would not show it)."""
    code = (
        f"import threading\ndef f():\n while True: pass\nthreading.Thread(target=f,daemon=True).start()\n{READY}input()"
    )
    child = told(spawn, code)
    host.snapshot()
    other = psutil.Process(child.pid)
    host.snapshot()
    was, begin = sum(other.cpu_times()[:2]), time.monotonic()
    time.sleep(STRETCH)
    made = by_pid(host.snapshot())[child.pid]
    theirs = 100 * (sum(other.cpu_times()[:2]) - was) / (time.monotonic() - begin)
    assert made["threads"] == 2
    assert made["cpu_percent"] == pytest.approx(theirs, rel=0.15, abs=100 * 3 / HZ / STRETCH)


def test_children_that_ended(host: LinuxHost, spawn: Spawn) -> None:
    """A hundred children that each used some CPU and are gone: their time is the parent's, as children's CPU time."""
    code = (
        "import os\nprint('ready', flush=True)\ninput()\n"
        f"for i in range(100):\n p=os.fork()\n if p==0:\n  sum(range(150000))\n  os._exit(0)\n os.waitpid(p,0)\n{DONE}"
    )
    child = told(spawn, code)
    wait_for(lambda: state_of(child.pid) == "S")
    host.snapshot()
    before = by_pid(host.snapshot())
    go(child)
    ready(child)
    wait_for(lambda: state_of(child.pid) == "S")
    shot = host.snapshot()
    made = by_pid(shot)[child.pid]
    times = psutil.Process(child.pid).cpu_times()
    assert made["children_cpu_seconds_total"] == pytest.approx(
        times.children_user + times.children_system, abs=1.5 / HZ
    )
    assert made["children_cpu_seconds_total"] - before[child.pid].get("children_cpu_seconds_total", 0.0) > 0.05
    assert shot.errors == 0


def test_spawn_storm(host: LinuxHost, spawn: Spawn) -> None:
    """While processes are made and end as fast as can be, every tick is whole: no error, no process twice."""
    child = told(
        spawn,
        "import os\nprint('ready', flush=True)\nwhile True:\n p=os.fork()\n if p==0: os._exit(0)\n os.waitpid(p,0)",
    )
    host.snapshot()
    first = host.snapshot()
    for _ in range(15):
        shot = host.snapshot()
        assert shot.errors == 0
        assert len({k[0] for k in shot.processes}) == len(shot.processes)
        assert not set(shot.exited) & shot.processes.keys()
        assert by_pid(shot)[child.pid]["ppid"] == os.getpid()
    child.kill()
    child.wait(10)
    wait_for(lambda: not any(r["ppid"] == child.pid for r in by_pid(host.snapshot()).values()))
    last = host.snapshot()
    assert child.pid not in by_pid(last) and abs(len(last.processes) - len(first.processes)) < max(
        50, len(first.processes) // 2
    )


def test_stopped_uses_nothing(host: LinuxHost, spawn: Spawn) -> None:
    """A loop that is stopped has no rate and the state of a stopped process until it is continued."""
    child = told(spawn, LOOP)
    host.snapshot()
    child.send_signal(signal.SIGSTOP)
    wait_for(lambda: state_of(child.pid) == "T")
    host.snapshot()
    host.snapshot()
    made = by_pid(host.snapshot())[child.pid]
    assert (made["state"], made["cpu_percent"], made["run_delay_ms_per_s"]) == ("stopped", 0, 0)
    child.send_signal(signal.SIGCONT)
    wait_for(lambda: by_pid(host.snapshot())[child.pid]["cpu_percent"] > 0)


@pytest.mark.slow
def test_the_loop_is_found(host: LinuxHost, spawn: Spawn) -> None:
    """The chain on this machine: among the processes started here, the loop has the highest score, for its CPU."""
    loop, idle = told(spawn, LOOP), told(spawn, "print('ready', flush=True)\ninput()")
    last: dict[int, Row] = {}

    def beats() -> Iterator[Beat]:
        before = time.monotonic_ns()
        for seq in range(4):
            now = time.monotonic_ns()
            yield Beat(seq, now, time.time(), (now - before) / 1e9, 0.0, 0.0)
            before = now
            time.sleep(0.25)

    for tick in chain(sample(host, beats(), silent_first=True), Score(Config())):
        last = {k[0]: made for k, made in tick.processes.items()}
    assert last[loop.pid]["dominant_resource"] == "cpu"
    assert last[loop.pid]["score"] >= Config().bands.medium > last[idle.pid]["score"]
    assert last[loop.pid]["band"] in ("medium", "elevated", "high", "critical")


@pytest.mark.slow
def test_whole_machine_adds_up(host: LinuxHost, spawn: Spawn) -> None:
    """What all processes together use is what the machine says is used, but for what no process owns (interrupts, those
    that ended) and the clock ticks of each side."""
    for _ in range(2):
        told(spawn, LOOP)
    host.snapshot()
    shots: list[Snapshot] = [host.snapshot()]
    time.sleep(0.8)     # our own row is read once in 0.7 s
    shots.append(host.snapshot())
    busy, seen = shots[1].machine["cpu_busy_cores"], shots[1].cpu_cores
    assert seen is not None
    assert seen <= busy + 0.5 * (os.cpu_count() or 1)
    assert 0.5 <= busy <= (os.cpu_count() or 1)
