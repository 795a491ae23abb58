"""How the benchmark counts, what it prints and what its command line refuses. No timing is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import __main__ as command
from tests.bench import chart, loads, measure, report, subjects
from tests.bench.build import Tools, build, compiler
from tests.bench.loads import Load
from tests.bench.measure import Syscalls, Turn
from tests.bench.run import Plan

linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads Linux's /proc")
compiled = pytest.mark.skipif(compiler() is None, reason="no C compiler")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("bench"))


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


def test_more_processes_get_a_longer_warm_up_and_no_strace() -> None:
    small, large = loads.plan(["idle"], [100, 5000], 0.05)
    plan = Plan([small, large], [subjects.SUBJECTS["floor"]] * 2, rounds=3, seconds=4, warmup_s=2, syscalls=True)
    assert (plan.warmup_for(small), plan.warmup_for(large)) == (2.05, 4.5)
    assert (plan.counts_syscalls(small), plan.counts_syscalls(large)) == (True, False)
    assert plan.duration_s() == pytest.approx(2 * (3 * 6.55 + 6.55 + 3 * 9))


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
