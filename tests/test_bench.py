"""The pieces of the benchmark: what it compiles, starts, counts and prints. No timing is asserted."""

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
from xml.etree import ElementTree

import pytest

from tests.bench import __main__ as command
from tests.bench import chart, loads, measure, report, subjects
from tests.bench.build import BuildError, Tools, build, compiler
from tests.bench.loads import Load
from tests.bench.measure import Syscalls, Turn

linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads Linux's /proc")
compiled = pytest.mark.skipif(compiler() is None, reason="no C compiler")

STAT = "{pid} (a b) R {pid}) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 100 1000 1 18446744073709551615"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("bench"))


def fake_process(root: Path, pid: int, threads: int, runs: bool) -> None:
    """A process in a made-up /proc. /proc/uptime is another text at each tick: so is the schedstat of one that runs."""
    place = root / str(pid)
    place.mkdir()
    (place / "stat").write_text(STAT.format(pid=pid, threads=threads))
    for name in ("io", "status", "cmdline", "cgroup"):
        (place / name).write_text(f"{name} of {pid}\n")
    if runs:
        (place / "schedstat").symlink_to("/proc/uptime")
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
    """A handle of each process: it stays that process's, whoever gets the pid next."""
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
def test_floor_reads_each_process_and_in_full_only_those_that_ran(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.1 0.1 0.1 1/5 42\n")
    fake_process(tmp_path, 7, threads=1, runs=False)
    fake_process(tmp_path, 8, threads=1, runs=False)
    fake_process(tmp_path, 42, threads=1, runs=True)
    said = floor(tools, "--proc", str(tmp_path), "--seconds", "0.5", "--hz", "10")
    assert (said["ticks"], said["processes"], said["started"], said["exited"]) == (5, 3, 3, 0)
    assert 1 <= said["active"] == said["full_reads"] <= 4         # ticks that came late share a reading of the clock
    assert said["skipped"] == 0


@linux
@compiled
def test_floor_gates_a_process_of_several_threads_on_its_stat(tools: Tools, tmp_path: Path) -> None:
    fake_process(tmp_path, 9, threads=3, runs=True)
    said = floor(tools, "--proc", str(tmp_path), "--seconds", "0.3", "--hz", "10")
    assert (said["processes"], said["active"]) == (1, 0)


@linux
@compiled
def test_floor_lists_processes_only_when_one_started(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.1 0.1 0.1 1/5 42\n")
    fake_process(tmp_path, 7, threads=1, runs=False)
    assert floor(tools, "--proc", str(tmp_path), "--seconds", "0.5", "--hz", "10")["lists"] == 1
    (tmp_path / "loadavg").unlink()
    (tmp_path / "loadavg").symlink_to("/proc/uptime")              # another last word at each tick
    assert floor(tools, "--proc", str(tmp_path), "--seconds", "0.5", "--hz", "10")["lists"] > 1


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
def test_isolate_ends_with_whoever_started_it(tools: Tools) -> None:
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
def test_a_load_that_the_machine_refuses_says_so_and_leaves_nothing(tools: Tools) -> None:
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


def test_plan_has_every_kind_at_every_size() -> None:
    made = loads.plan(loads.KINDS, [100, 1000], 0.05)
    assert [(load.kind, load.size, load.active) for load in made] == [
        ("idle", 100, 0), ("idle", 1000, 0), ("active", 100, 5), ("active", 1000, 50),
        ("threads", 100, 0), ("storm", 100, 0),
    ]
    assert made[3].name == "1,000, 50 of them active"
    assert loads.plan(["active"], [3], 0.05)[0].active == 1         # never none


def context(tools: Tools, scratch: Path) -> subjects.Context:
    return subjects.Context(tools, scratch, hz=10)


@linux
@compiled
def test_a_turn_counts_ticks_cpu_time_and_memory_of_the_subject(tools: Tools, tmp_path: Path) -> None:
    turn = measure.take_turn(subjects.SUBJECTS["floor"], context(tools, tmp_path), 1, warmup_s=0.2, seconds=0.5)
    assert turn.ticks == round(turn.window_s * 10) >= 5
    assert turn.cpu_s > 0
    assert turn.memory_bytes > 100_000


@linux
@compiled
def test_a_turn_counts_the_marks_of_a_subject_that_prints_each_tick(tools: Tools, tmp_path: Path) -> None:
    if reason := subjects.SUBJECTS["psutil"].missing():
        pytest.skip(reason)
    turn = measure.take_turn(subjects.SUBJECTS["psutil"], context(tools, tmp_path), 1, warmup_s=2, seconds=1)
    assert 1 <= turn.ticks <= 12
    assert turn.cpu_s > 0


@linux
@compiled
def test_a_subject_that_ends_early_is_an_error_with_its_last_words(tools: Tools, tmp_path: Path) -> None:
    broken = subjects.added("broken=sh -c 'echo first; echo last; exit 3'")
    with pytest.raises(subjects.SubjectError, match="ended with 3: last"):
        measure.take_turn(broken, context(tools, tmp_path), 1, warmup_s=5, seconds=1)


def test_an_added_subject_is_named_and_its_command_filled_in(tmp_path: Path) -> None:
    subject = subjects.added("old=other/rh-pipe --hz {hz} --db '{scratch}/old.db'")
    given = subjects.Context(Tools(tmp_path, tmp_path, tmp_path), Path("/scratch"), hz=3)
    assert subject.command(given) == ["other/rh-pipe", "--hz", "3", "--db", "/scratch/old.db"]
    assert subject.missing() == "rh-pipe is not installed"
    for bad in ("nothing", "=command", "name=", "top=command"):
        with pytest.raises(ValueError, match="NAME=COMMAND"):
            subjects.added(bad)


def test_parsers() -> None:
    assert measure.parse_children_ticks(b"1 (x) 1 2 3) S " + b" ".join(b"%d" % n for n in range(4, 53))) == 16 + 17
    assert measure.parse_rss_bytes(b"Name:\tVmRSS: 5 kB\nVmRSS:\t    1234 kB\n") == 1234 * 1024
    assert measure.parse_rss_bytes(b"Name:\tkthreadd\n") == 0
    assert measure.parse_strace("""\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           3       200           pread64
 40.00    0.000400           4       100        12 openat
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           3       300        12 total
""") == {"pread64": 200, "openat": 100}


def test_a_tick_lies_between_quiet_stretches() -> None:
    ms = 1_000_000
    assert measure.split_ticks([0, 2 * ms, ms, 0, 0, 0, 4 * ms, 0, 5 * ms, 0, 0]) == (3.0, 9.0)
    assert measure.split_ticks([0, 0, 7 * ms]) == (7.0,)
    assert measure.split_ticks([0, 0]) == ()


def test_a_window_is_a_whole_number_of_periods() -> None:
    assert measure.whole_periods(10, 1 / 3) == pytest.approx(10)
    assert measure.whole_periods(5, 2) == 4
    assert measure.whole_periods(0.1, 2) == 4


def turns(*ms: float) -> list[Turn]:
    """Ten ticks in each round, of so many CPU ms."""
    return [Turn(number, 3.3, 10, one / 100, 2_000_000, (one,) * 10) for number, one in enumerate(ms, 1)]


def result(name: str = "1,000 idle", kind: str = "idle", processes: int = 1080) -> report.Result:
    return report.Result(Load(name, kind, idle=1000), processes,
                         {"floor": turns(2, 4, 2), "rh-pipe": turns(3, 4.8, 3.2), "top": turns(40, 48, 32)},
                         {"floor": Syscalls(1090, (("pread64", 1080.0),))}, {"atop": "ended with 1: no"})


def test_a_ratio_is_taken_within_a_round() -> None:
    found = report.ratio(result().turns["rh-pipe"], result().turns["floor"])
    assert found and [found.low, found.median, found.high] == pytest.approx([1.2, 1.5, 1.6])
    assert report.ratio(turns(3), []) is None
    late = [Turn(2, 3.3, 10, 0.08, 0)]
    assert report.ratio(late, turns(1, 4)) == report.Spread(2, 2, 2)


@pytest.mark.parametrize(("value", "text"), [
    (None, "-"), (float("nan"), "-"), (0, "0"), (0.01234, "0.0123"), (1.5, "1.50"), (38.04, "38.0"),
    (12345.6, "12,346"),
])
def test_numbers_have_three_digits_and_no_exponent(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_percentile() -> None:
    values = [float(v) for v in range(1, 101)]
    assert [report.percentile(values, share) for share in (0.99, 0.5, 0)] == [99, 50, 1]
    assert report.percentile([5], 0.99) == 5
    assert report.percentile([], 0.5) is None


SETTINGS = {"hz": 3.0, "rounds": 3, "seconds": 12.0, "alone": True}


def test_the_table_lines_up_and_names_what_failed_or_is_missing() -> None:
    text = report.markdown([result()], SETTINGS, {"glances": "glances is not installed"})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(report.HEAD)
    assert cells[2][:2] + cells[2][4:6] == ["floor", "2.00 (2.00 to 4.00)", "1", "0.667 (0.625 to 0.833)"]
    assert cells[2][7] == "1,090"
    assert cells[3] == ["rh-pipe", "3.20 (3.00 to 4.80)", "4.80", "0.960", "1.50 (1.20 to 1.60)", "1", "2.00", "-"]
    assert cells[4][5] == "10.0 (10.0 to 13.3)"
    assert "**1,000 idle** (1,080 processes seen)" in text
    assert "atop: failed: ended with 1: no" in text
    assert text.endswith("Missing: glances (glances is not installed).\n")


def test_the_document_holds_every_turn_and_no_infinity() -> None:
    made = json.loads(json.dumps(report.document([result()], SETTINGS, {}), allow_nan=False))
    subject = made["loads"][0]["subjects"]["rh-pipe"]
    assert [turn["cpu_s"] for turn in subject["turns"]] == [0.03, 0.048, 0.032]
    assert subject["times_floor"]["median"] == 1.5
    assert subject["tick_cpu_ms_p99"] == 4.8
    assert made["machine"].keys() == {"cpu", "cpus", "memory_bytes", "kernel", "python"}


def test_the_chart_is_a_picture_with_a_line_for_each_subject() -> None:
    results = [result("100 idle", processes=180), result(), result("active", "active"), result("threads", "threads")]
    root = ElementTree.fromstring(chart.svg(results))
    space = "{http://www.w3.org/2000/svg}"
    panels = root.findall(f"{space}g")
    assert len(panels) == 2
    lines = panels[0].findall(f"{space}polyline")
    assert [len((line.get("points") or "").split()) for line in lines] == [2, 2, 2]
    assert {"floor", "rh-pipe", "top"} <= {text.text for text in panels[0].findall(f"{space}text")}
    assert ElementTree.fromstring(chart.svg([])).tag == f"{space}svg"


def test_labels_do_not_lie_on_each_other() -> None:
    assert chart.spread_out([10, 100, 12, 13], 14) == [10, 100, 24, 38]


@linux
@compiled
def test_the_command_prints_the_table_and_writes_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    what = ["--sizes", "5", "--loads", "idle", "--subjects", "floor", "--no-syscalls"]
    how = ["--rounds", "2", "--seconds", "0.4", "--warmup", "0.2", "--hz", "10"]
    status = command.main([*what, *how, "--json", str(out), "--svg", str(picture)])
    said = capfd.readouterr()
    assert status == 0
    assert "**5 idle**" in said.out
    assert "5 idle, round 2 of 2: floor" in said.err
    made = json.loads(out.read_text())
    assert len(made["loads"][0]["subjects"]["floor"]["turns"]) == 2
    assert ElementTree.parse(picture).getroot().get("viewBox")


@pytest.mark.parametrize("arguments", [
    ["--sizes", "0"], ["--sizes", "x"], ["--active", "2"], ["--loads", "none"], ["--subjects", "floor,nothing"],
    ["--seconds", "nan"], ["--rounds", "0"], ["--add", "x"], ["--json", "/nowhere/out.json"],
])
def test_bad_usage_is_refused_before_anything_starts(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended_with:
        command.main(arguments)
    assert ended_with.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_quick_is_less_than_everything_and_options_win() -> None:
    def settings(*words: str) -> dict[str, object]:
        return command.settings_of(command.parser().parse_args(words))

    assert settings()["sizes"] == [100, 1000, 5000, 10_000]
    assert set(subjects.SUBJECTS) == set(settings()["subjects"])        # type: ignore[call-overload]
    assert settings("--quick")["sizes"] == [100, 1000]
    assert settings("--quick", "--sizes", "7", "--rounds", "9")["sizes"] == [7]
