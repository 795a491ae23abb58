"""The benchmark's C programs: the floor reads what it must, loads and namespaces leave nothing behind."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.bench import loads, measure
from tests.bench.build import BuildError, Tools, build, compiler
from tests.bench.loads import Load

linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads Linux's /proc")
compiled = pytest.mark.skipif(compiler() is None, reason="no C compiler")

STAT = "{pid} (a b) R {pid}) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 100 1000 1 18446744073709551615"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("bench"))


def fake_process(root: Path, pid: int, threads: int, runs: bool) -> None:
    """A process in a made-up /proc. One that runs has the floor's own schedstat: another at each tick."""
    place = root / str(pid)
    place.mkdir()
    (place / "stat").write_text(STAT.format(pid=pid, threads=threads))
    for name in ("io", "status", "cmdline", "cgroup"):
        (place / name).write_text(f"{name} of {pid}\n")
    if runs:
        (place / "schedstat").symlink_to("/proc/self/schedstat")
    else:
        (place / "schedstat").write_text("1 2 3\n")


def floor(tools: Tools, *options: str) -> dict[str, float]:
    done = subprocess.run([tools.floor, *options], capture_output=True, text=True, check=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


def children(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@contextmanager
def handles(pids: set[int]) -> Iterator[list[int]]:
    """A handle of each process: it stays that process's, even if the pid is reused."""
    opened = [os.pidfd_open(pid) for pid in pids]
    try:
        yield opened
    finally:
        for handle in opened:
            os.close(handle)


def ended(handle: int, within_s: float = 10) -> bool:
    return bool(select.select([handle], [], [], within_s)[0])


@linux
@compiled
def test_floor_by_clock_reads_in_full_whose_clock_moved(tools: Tools, tmp_path: Path) -> None:
    """Three made-up folders with the pids of real processes: one at rest, one that runs, one that is gone."""
    (tmp_path / "loadavg").write_text("0.1 0.1 0.1 1/5 42\n")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy, subprocess.Popen(["sleep", "60"]) as idle:
        try:
            gone = subprocess.Popen(["true"])
            gone.wait()
            for process in (busy, idle, gone):
                fake_process(tmp_path, process.pid, threads=1, runs=False)
            said = floor(tools, "--proc", str(tmp_path), "--seconds", "0.5", "--hz", "10", "--gate", "clock")
        finally:
            busy.kill()
            idle.kill()
    assert (said["ticks"], said["processes"], said["started"]) == (5, 2, 2)
    assert 1 <= said["active"] == said["full_reads"] <= 5


@linux
@compiled
def test_floor_reads_each_process_and_in_full_only_those_that_ran(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.1 0.1 0.1 1/5 42\n")
    fake_process(tmp_path, 7, threads=1, runs=False)
    fake_process(tmp_path, 8, threads=1, runs=False)
    fake_process(tmp_path, 42, threads=1, runs=True)
    said = floor(tools, "--proc", str(tmp_path), "--seconds", "0.5", "--hz", "10")
    assert (said["ticks"], said["processes"], said["started"], said["exited"]) == (5, 3, 3, 0)
    assert said["active"] == said["full_reads"] == 4               # in all ticks but the first, in which it is found
    assert said["skipped"] == 0


@linux
@compiled
def test_floor_gates_a_process_of_several_threads_on_its_stat(tools: Tools, tmp_path: Path) -> None:
    fake_process(tmp_path, 9, threads=3, runs=True)
    said = floor(tools, "--proc", str(tmp_path), "--seconds", "0.3", "--hz", "10")
    assert (said["processes"], said["active"]) == (1, 0)


@pytest.mark.slow
@linux
@compiled
def test_floor_lists_processes_only_when_one_started(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.1 0.1 0.1 1/5 42\n")
    fake_process(tmp_path, 7, threads=1, runs=False)
    assert floor(tools, "--proc", str(tmp_path), "--seconds", "0.5", "--hz", "10")["lists"] == 1
    (tmp_path / "loadavg").unlink()
    (tmp_path / "loadavg").symlink_to("/proc/self/schedstat")              # another last word at each tick
    assert floor(tools, "--proc", str(tmp_path), "--seconds", "0.5", "--hz", "10")["lists"] == 5


@pytest.mark.slow
@linux
@compiled
def test_floor_sweeps_every_process_when_asked(tools: Tools, tmp_path: Path) -> None:
    for pid in range(2, 12):
        fake_process(tmp_path, pid, threads=1, runs=False)
    said = floor(tools, "--proc", str(tmp_path), "--seconds", "1", "--hz", "10", "--sweep", "0.5")
    assert said["active"] == 0
    assert said["full_reads"] >= 10


@linux
@compiled
@pytest.mark.parametrize("arguments", [["--hz", "0"], ["--seconds"], ["--what", "1"]])
def test_floor_refuses_bad_usage(tools: Tools, arguments: list[str]) -> None:
    done = subprocess.run([tools.floor, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: floor")


@linux
@compiled
def test_isolate_shows_a_command_no_process_but_its_own(tools: Tools) -> None:
    def isolated(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([tools.isolate, "sh", "-c", script], capture_output=True, text=True, check=False)

    if "isolate: " in isolated("true").stderr:
        pytest.skip("there can be no pid namespace here")
    assert isolated("cd /proc; echo [0-9]*").stdout == "1 2\n"
    assert isolated("exit 3").returncode == 3
    assert isolated("kill -9 $$").returncode == 128 + 9
    assert isolated("id -u").stdout == f"{os.getuid()}\n"


@linux
@compiled
def test_isolate_passes_the_end_on_and_leaves_nothing(tools: Tools) -> None:
    script = "sleep 60 & trap 'echo ended; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    outside = subprocess.Popen([tools.isolate, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert outside.stdout and outside.stderr
    try:
        if outside.stdout.readline() != b"ready\n":
            pytest.skip("there can be no pid namespace here")
        with handles(set(measure.descendants(outside.pid)) - {outside.pid}) as opened:
            outside.terminate()
            assert outside.wait(10) == 7
            assert outside.stdout.read() == b"ended\n"
            assert len(opened) >= 3 and all(ended(handle) for handle in opened)
    finally:
        outside.kill()
        outside.wait()
        outside.stdout.close()
        outside.stderr.close()


@linux
@compiled
def test_isolate_ends_with_the_process_that_started_it(tools: Tools) -> None:
    script = f"{tools.isolate} sh -c 'echo ready; sleep 60'; exit 1"
    shell = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert shell.stdout and shell.stderr
    try:
        if shell.stdout.readline() != b"ready\n":
            pytest.skip("there can be no pid namespace here")
        with handles(set(measure.descendants(shell.pid)) - {shell.pid}) as opened:
            assert len(opened) >= 3
            shell.kill()
            assert all(ended(handle) for handle in opened)
    finally:
        shell.kill()
        shell.wait()
        shell.stdout.close()
        shell.stderr.close()


def test_what_does_not_compile_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BuildError, match="no C compiler"):
        build(tmp_path)
    monkeypatch.setenv("CC", "false")
    with pytest.raises(BuildError, match=r"floor\.c: compiler ended with 1"):
        build(tmp_path)


MIXED = Load("mixed", "active", idle=5, active=2, threaded=2, storm_per_s=20)


@linux
@compiled
def test_a_load_stands_inside_of_its_block_and_is_gone_behind_it(tools: Tools) -> None:
    before = children(os.getpid())
    with ExitStack() as stack:
        with loads.running(tools.load, MIXED) as number:
            (load,) = children(os.getpid()) - before
            below = children(load)
            assert number == len(below) == 10                      # the parent of the short ones is the tenth
            assert sorted(len(os.listdir(f"/proc/{pid}/task")) for pid in below) == [1] * 8 + [loads.THREADS_EACH] * 2
            opened = stack.enter_context(handles({load, *below}))
            assert not any(ended(handle, 0) for handle in opened)
        assert all(ended(handle) for handle in opened)


@linux
@compiled
def test_a_load_that_is_killed_takes_its_processes_with_it(tools: Tools) -> None:
    load = subprocess.Popen([tools.load, *MIXED.arguments()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert load.stdin and load.stdout
    try:
        assert load.stdout.readline() == b"ready 10\n"
        with handles(children(load.pid)) as opened:
            load.kill()
            assert all(ended(handle) for handle in opened)
    finally:
        load.kill()
        load.wait()
        load.stdin.close()
        load.stdout.close()


@linux
@compiled
def test_a_load_that_the_machine_refuses_is_reported_and_leaves_nothing(tools: Tools) -> None:
    before = children(os.getpid())
    # More threads than any kernel allows one process; the ones that stand already must go, too.
    arguments = ["--idle", "3", "--threaded", "1", "--threads", "5000000"]
    done = subprocess.run([tools.load, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**27, 2**27)), check=False)
    assert (done.returncode, done.stdout) == (71, "")
    assert done.stderr.startswith("load: threads: ")
    assert children(os.getpid()) == before


@linux
def test_a_load_that_does_not_start_is_one_clear_error() -> None:
    with pytest.raises(loads.LoadError, match="x: not ready"), loads.running(Path("/bin/true"), Load("x", "idle")):
        pass
