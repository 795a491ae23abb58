"""How the benchmark counts, what it prints and what its command line refuses. No timing is asserted."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections import Counter
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bench import __main__ as command
from tests.bench import (
    chart,
    compare,
    goals,
    loads,
    measure,
    memory,
    readme,
    report,
    run,
    slope,
    startup,
    subjects,
    words,
)
from tests.bench.beats import Beats
from tests.bench.build import Tools, build, compiler
from tests.bench.lateness import Late, loops
from tests.bench.loads import Load
from tests.bench.measure import Marks, Turn
from tests.bench.report import Outcome, Spread
from tests.bench.run import Plan
from tests.bench.slope import Slope
from tests.bench.startup import StartUp
from tests.bench.syscalls import Syscalls, parse_strace

linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads Linux's /proc")
compiled = pytest.mark.skipif(compiler() is None, reason="no C compiler")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("bench"))


def test_plan_has_every_kind() -> None:
    made = loads.plan(loads.KINDS, [100, 1000], [1000], 0.05)
    assert [(load.kind, load.size, load.active) for load in made] == [
        ("idle", 100, 0), ("idle", 1000, 0), ("active", 1000, 50), ("sparse", 1000, 20), ("work", 1001, 1), ("threads", 100, 0),
        ("storm", 100, 0),
    ]
    assert made[2].name == "1,000, 50 of them active"
    assert loads.plan(["active"], [], [3], 0.05)[0].active == 1         # never none


def context(tools: Tools, scratch: Path) -> subjects.Context:
    return subjects.Context(tools, scratch, hz=10)


@pytest.mark.slow
@linux
@compiled
def test_a_turn_counts_ticks_cpu_time_and_memory_of_the_subject(tools: Tools, tmp_path: Path) -> None:
    turn = measure.take_turn(subjects.SUBJECTS["floor"], context(tools, tmp_path), 1, 0, seconds=0.5)
    assert turn.ticks == round(turn.window_s * 10) >= 5
    assert turn.cpu_s > 0
    assert turn.memory_bytes > 100_000


@pytest.mark.slow
@linux
@compiled
def test_a_turn_counts_the_marks_of_a_subject_that_prints_each_tick(tools: Tools, tmp_path: Path) -> None:
    """Whole ticks, from one mark to another, also of a subject that is slower than its beat."""
    slow = replace(subjects.added("slow=sh -c 'while :; do echo tick; echo more; sleep 0.15; done'"),
                   marker=re.compile(rb"^tick$", re.M), warm_s=0.0, warm_ms_each=0.0)
    turn = measure.take_turn(slow, context(tools, tmp_path), 1, 0, seconds=0.6)
    assert 2 <= turn.ticks <= 5
    assert turn.window_s >= 0.13 * turn.ticks


@linux
@compiled
def test_a_subject_that_ends_early_is_an_error_with_its_last_words(tools: Tools, tmp_path: Path) -> None:
    broken = subjects.added("broken=sh -c 'echo first; echo last; exit 3'")
    with pytest.raises(subjects.SubjectError, match="ended with 3: last"):
        measure.take_turn(broken, context(tools, tmp_path), 1, 0, seconds=1)


def test_a_mark_is_counted_once_its_line_is_whole() -> None:
    output = BytesIO(b"tick\nti")
    marks = Marks(re.compile(rb"^tick$", re.M), output)
    assert marks.count() == 1
    output.write(b"ck\nnot a tick\ntick")
    output.seek(7)
    assert marks.count() == 2
    output.write(b"\n")
    output.seek(-1, 2)
    assert (marks.count(), marks.count()) == (3, 3)


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
    assert measure.parse_busy_ticks(b"cpu  1 2 4 1000 1000 8 16 1000 1000 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == 31
    assert parse_strace("""\
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


def everything(rounds: int = 3) -> Plan:
    return Plan(loads.plan(loads.KINDS, [1000, 5000], [1000], 0.05), list(subjects.SUBJECTS.values()), rounds, 4, True,
                beats_s=20)


def test_our_own_pair_takes_part_in_every_round_and_all_where_all_are_compared() -> None:
    plan = everything()
    taking: dict[str, list[int]] = {load.name: [] for load in plan.loads}
    for load in plan.loads:
        for number in (1, 2, 3):
            taking[load.name].append(sum(plan.takes_part(s, load, number) for s in plan.subjects))
    among = len(plan.subjects)
    assert taking == {"1,000 idle": [among] * 3, "5,000 idle": [among, 2, 2], "1,000, 50 of them active": [among, 2, 2],
                      "1,000, 20 of them active": [2, 2, 2], "100 processes of 50 threads": [among, 2, 2],
                      "100 idle and 200 short processes a second": [among, 2, 2],
                      "1,000 idle beside one that computes": [2, 0, 0]}
    top, ours = subjects.SUBJECTS["top"], subjects.SUBJECTS["rh-pipe"]
    counted = {load.name: [s.name for s in (top, ours) if plan.counts_syscalls(s, load)] for load in plan.loads}
    assert counted["1,000 idle"] == ["top", "rh-pipe"] and counted["5,000 idle"] == []
    assert counted["1,000, 50 of them active"] == ["rh-pipe"]
    assert [load.name for load in plan.loads if plan.hears_beats(load)] == [
        "1,000 idle", "100 idle and 200 short processes a second"]


def test_the_whole_run_fits_into_its_time() -> None:
    """As planned: nearly all turns of everything, start-up and memory beside them, in 15 minutes."""
    made = command.settings_of(command.parser().parse_args([]))
    plan = Plan(loads.plan(made["loads"], made["sizes"], made["active_sizes"], made["active"]),
                [subjects.SUBJECTS[name] for name in made["subjects"]], made["rounds"], made["seconds"], True,
                made["beats_s"])
    assert made["minutes"] * 60 + run.GRACE_S <= 15 * 60
    assert plan.duration_s(3.0) < 1.1 * made["minutes"] * 60


@pytest.mark.slow
@linux
@compiled
def test_what_there_is_no_time_for_is_left_out_and_reported(tools: Tools, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances a second with each reading; a turn takes 1.7."""
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=count().__next__))
    plan = Plan(loads.plan(["idle"], [3], [], 0.05), [subjects.SUBJECTS["floor"]], 4, 0.4, False, until=4)
    going = run.Run(plan, context(tools, tmp_path), lambda _: None)
    going.go()
    assert len(going.results[0].turns["floor"]) == 2
    assert going.left_out == ["3 idle, round 3 of 4: floor", "3 idle, round 4 of 4: floor"]


@pytest.mark.slow
@linux
@compiled
def test_what_hangs_is_cut_off_and_ended(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subject whose mark never comes: the run ends, and so does the subject."""
    monkeypatch.setattr(run, "GRACE_S", -98.0)
    mute = replace(subjects.added("mute=sh -c 'echo $$ > {scratch}/pid; exec sleep 60'"), marker=re.compile(b"never"),
                   warm_s=0.0, warm_ms_each=0.0)
    plan = Plan(loads.plan(["idle"], [3], [], 0.05), [mute], 1, 0.1, False, until=time.monotonic() + 100)
    going = run.Run(plan, context(tools, tmp_path), lambda _: None)
    going.go()
    assert going.left_out == ["all behind a turn that hung"]
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def turns(*ms: float) -> list[Turn]:
    """Ten ticks in each round, of so many CPU ms."""
    return [Turn(number, 3.3, 10, one / 100, 2_000_000, (one,) * 10) for number, one in enumerate(ms, 1)]


def result(name: str = "1,000 idle", kind: str = "idle", size: int = 1000) -> report.Result:
    return report.Result(Load(name, kind, idle=size), size + 80,
                         {"floor": turns(2, 4, 2), "rh-pipe": turns(3, 4.8, 3.2), "top": turns(40, 48, 32)},
                         {"floor": Syscalls(1090, (("pread64", 1080.0),))}, {"atop": "ended with 1: no"})


SETTINGS = {"hz": 3.0, "rounds": 3, "seconds": 12.0, "alone": True}


def made(*results: report.Result, **more: Any) -> report.Document:
    """A document as a run would leave it."""
    found = Outcome(results or [result()], SETTINGS, more.pop("missing", {}), load_average={"before": 0.1}, **more)
    return json.loads(json.dumps(report.document(found, "2026-11-21"), allow_nan=False))  # type: ignore[no-any-return]


def test_a_ratio_is_taken_within_a_round() -> None:
    found = report.ratio(result().turns["rh-pipe"], result().turns["floor"])
    assert found and [found.low, found.median, found.high, found.count] == pytest.approx([1.2, 1.5, 1.6, 3])
    assert report.ratio(turns(3), []) is None
    late = [Turn(2, 3.3, 10, 0.08, 0)]
    assert report.ratio(late, turns(1, 4)) == Spread(2, 2, 2)


@pytest.mark.parametrize(("value", "text"), [
    (None, "-"), (float("nan"), "-"), (0, "0"), (0.01234, "0.0123"), (1.5, "1.50"), (38.04, "38.0"),
    (12345.6, "12,346"),
])
def test_numbers_have_three_digits_and_no_exponent(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_percentile() -> None:
    values = [float(v) for v in range(1, 101)]
    assert [report.percentile(values, share) for share in (0.99, 0.5, 0)] == [99, 50, 1]
    assert report.percentile([5], 0.99) == 5
    assert report.percentile([], 0.5) is None


def test_the_table_lines_up_and_names_what_failed_or_is_missing() -> None:
    text = words.markdown(made(missing={"glances": "glances is not installed"}, left_out=["round 3"]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(words.HEAD)
    assert cells[2][:2] + cells[2][4:6] == ["floor", "2.00 (2.00 to 4.00)", "1", "0.667 (0.625 to 0.833)"]
    assert cells[2][7] == "1,090"
    assert cells[3] == ["rh-pipe", "3.20 (3.00 to 4.80)", "4.80", "0.960", "1.50 (1.20 to 1.60)", "1", "2.00", "-"]
    assert cells[4][5] == "10.0 (10.0 to 13.3)"
    assert "**1,000 idle** (1,080 processes seen)" in text
    assert "atop: failed: ended with 1: no" in text
    assert "Missing: glances (glances is not installed)." in text
    assert "Left out, because the time was up: 1 turns, of which the first was round 3." in text
    assert "NOT QUIET" not in text


def test_a_machine_that_others_use_is_reported() -> None:
    loaded = made()
    loaded["load_average"]["before"] = 3.5
    assert "NOT QUIET: load average 3.50" in words.markdown(loaded) and "NOT QUIET" in readme.block(loaded)
    others = result()
    others.turns["top"] = [replace(turn, other_cores=1.5) for turn in others.turns["top"]]
    others.turns["floor"] = others.turns["rh-pipe"] = others.turns["top"]
    assert "others kept 1.50 of" in words.busy(made(others))


def test_the_document_holds_every_turn_and_no_name_of_the_machine() -> None:
    subject = made()["loads"][0]["subjects"]["rh-pipe"]
    assert [turn["cpu_s"] for turn in subject["turns"]] == [0.03, 0.048, 0.032]
    assert subject["times_floor"] == {"median": 1.5, "low": 1.2, "high": 1.6, "count": 3}
    assert subject["tick_cpu_ms_p99"] == 4.8
    assert made()["machine"].keys() == {"cpu", "cpus", "memory_bytes", "kernel", "python"}
    assert os.uname().nodename not in json.dumps(made())


def whole() -> report.Document:
    """A run of everything that goals need."""
    loaded = result("10,000 idle", size=10_000)
    loaded.beats = Beats([0.5] * 60, [40.0] * 59 + [120.0])
    storm = result("100 idle and 200 short processes a second", "storm", 100)
    storm.beats = Beats([1.0] * 59 + [30.0], [3.0] * 60, Counter(storm=50, load=10), "storm")
    main = result()
    main.first_cpu_s = 0.9
    return made(result("100 idle", size=100), main, result("5,000 idle", size=5000), loaded, storm,
                result("work", "work"), result("active", "active"), result("2 %", "sparse"), result("threads", "threads", 100),
                start_up=[StartUp("rh-report why", (200.0, 250.0, 900.0), (1.0,) * 3),
                          StartUp("rh-sample --help", (90.0,) * 3, (60.0,) * 3)],
                slope=Slope(100_000, 0.05, 20.0, 20.1, 60.0))


def test_every_goal_has_a_verdict_with_its_figure() -> None:
    found = {v.goal: (v.word, v.told) for v in goals.verdicts(whole())}
    assert found == {
        "1,000 idle: at most 1.4 x the floor": ("NOT REACHED", "1.50 x (1.20 to 1.60)"),
        "1,000 idle: top at least 10 x rh-pipe": ("reached", "10.0 x (10.0 to 13.3)"),
        "1,000 idle: psutil at least 50 x rh-pipe": ("not measured", "-"),
        "1,000 idle: glances at least 50 x rh-pipe": ("not measured", "-"),
        "1,000 idle beside one that computes, captures on: top at least 10 x rh-pipe": ("reached",
                                                                                        "10.0 x (10.0 to 13.3)"),
        "1,000 idle: at most 0.7 s of CPU in the first 25 s": ("NOT REACHED", "0.900 s"),
        "1,000, 5 % active: at most 2 x the floor": ("reached", "1.50 x (1.20 to 1.60)"),
        "100 processes of 50 threads: at most 1.5 x the floor": ("reached", "1.50 x (1.20 to 1.60)"),
        "10,000 idle: p99 of a tick under 100 ms": ("NOT REACHED", "120 ms over 60 ticks"),
        "fork storm: no beat late by more than 50 ms": ("reached", "30.0 ms over 60 ticks"),
        "fork storm: its parent named": ("reached", "highest score: storm in 50 of 60 ticks; rh-report why: storm"),
        "1,000, 2 % active: under 1 % of a core": ("reached", "0.960 % (0.900 to 1.44)"),
        "1,000 idle: memory under 35 MB": ("reached", "2.00 MB (2.00 to 2.00)"),
        "memory for each idle process from 1,000 to 5,000: under 1 KB": ("reached", "0 KB"),
        "memory: under 0.1 MB for 100,000 ticks": ("reached", "+0.050 MB"),
        "rh-report why on a month: under 300 ms": ("reached", "250 ms (200 to 900)"),
        "rh-report of a busy day: under 300 ms": ("not measured", "-"),
        "rh-sample --help: under 80 ms": ("NOT REACHED", "90.0 ms (90.0 to 90.0)"),
    }
    assert {v.reached for v in goals.verdicts(made())} == {True, False, None}


def test_two_runs_are_compared_and_only_what_moved_is_marked() -> None:
    faster = result()
    faster.turns["rh-pipe"] = turns(1.5, 1.9, 1.6)
    cells = {(c.where, c.figure): c for c in compare.cells(made(), made(faster))}
    ours = cells["1,000 idle: rh-pipe", "CPU ms a tick"]
    assert (ours.ratio, ours.outside) == (0.5, True)
    top = cells["1,000 idle: top", "CPU ms a tick"]
    assert (top.ratio, top.outside) == (1.0, False)
    text = compare.text(made(), made(faster))
    told = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert [row[-1] for row in told if row[1] == "CPU ms a tick"] == ["1.00", "0.500 *", "1.00"]
    other = made()
    other["machine"]["kernel"] = "9.9"
    assert "Another machine: kernel" in compare.text(made(), other) and "Another machine" not in text
    alone = Spread(1.0, 1.0, 1.0)
    assert [compare.Cell("", "", alone, Spread(v, v, v)).outside for v in (1.05, 1.2)] == [False, True]


def test_readme_says_what_the_kept_run_found() -> None:
    """Both blocks, the picture and the document are of one run, and of this form."""
    kept = json.loads(readme.DOCUMENT.read_bytes())
    text, tables = readme.README.read_text(), readme.TABLES.read_text()
    assert kept["version"] == report.VERSION
    stale = "stale: python -m tests.bench --readme --from tests/bench/overhead.json"
    assert readme.replaced(text, readme.summary(kept)) == text, stale
    assert readme.replaced(tables, readme.block(kept)) == tables, stale
    assert readme.CHART.read_text() == chart.svg(kept)
    assert f"({readme.CHART.relative_to(readme.REPO).as_posix()})" in text and f"({readme.CHART.name})" in tables
    assert "|---" not in readme.summary(kept) and readme.summary(kept).count("\n- ") < 4


def test_the_block_is_written_between_its_markers(tmp_path: Path) -> None:
    front, page, document, picture = (tmp_path / name for name in ("front.md", "README.md", "o.json", "c.svg"))
    for each in (front, page):
        each.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    readme.write(whole(), front, page, document, picture)
    text = page.read_text()
    assert front.read_text().startswith(f"before\n{readme.BEGIN}\n- ") and "of CPU time a tick" in front.read_text()
    assert "\nold\n" not in front.read_text() and front.read_text().endswith(f"{readme.END}\nafter\n")
    assert text.startswith(f"before\n{readme.BEGIN}\nWhole processes at 3 Hz") and text.endswith(f"{readme.END}\nafter\n")
    assert "old" not in text.splitlines() and "2026-11-21" in text and platform.release() in text
    assert os.uname().nodename not in text
    assert "| rh-pipe " in text and "10.0 (10.0 to 13.3)" in text and "30.0 ms" in text
    assert "Not reached: 1,000 idle: at most 1.4 x the floor (1.50 x (1.20 to 1.60))" in text
    assert "Missing: atop on 100 idle (ended with 1: no)" in text.replace("\n", " ")
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "!"))) <= 120
    assert json.loads(document.read_text()) == whole() and picture.read_text() == chart.svg(whole())
    page.write_text("nothing")
    with pytest.raises(readme.ReadmeError, match="lacks"):
        readme.write(whole(), front, page, document, picture)


def test_the_chart_is_a_picture_with_a_line_for_each_subject() -> None:
    root = ElementTree.fromstring(chart.svg(whole()))
    space = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f"{space}polyline")
    assert [len((line.get("points") or "").split()) for line in lines] == [4, 4, 4]
    said = {text.text for text in root.findall(f"{space}text")}
    assert {"floor 2.0", "rh-pipe 3.2", "top 40", "100", "10,000"} <= said
    assert ElementTree.fromstring(chart.svg(made(result("x", "storm")))).tag == f"{space}svg"


def test_the_slope_is_that_of_a_line() -> None:
    assert slope.fit([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == 2


def test_lateness_is_given_in_percentiles() -> None:
    assert Late([float(n) for n in range(1, 101)], 7).line("captures on") == (
        "captures on    ticks   100  captures   7  late in ms: p50 50.000  p90 90.000  p99 99.000  max 100.000")
    assert Late().line("x").endswith("p50 -  p90 -  p99 -  max -")


@linux
def test_a_loop_takes_a_core_and_is_gone_afterwards() -> None:
    """One after another, none of which is left."""
    with loops(0.1):
        time.sleep(0.3)
        assert len(measure.descendants(os.getpid())) >= 2
    assert not [pid for pid in measure.descendants(os.getpid())[1:] if b"while :; do" in
                Path(f"/proc/{pid}/cmdline").read_bytes()]


@linux
def test_a_start_is_timed_by_the_wall_and_on_the_cpu() -> None:
    wall, cpu = startup.timed([sys.executable, "-c", "import time; time.sleep(0.05)"], dict(os.environ)) or (0, 0)
    assert wall >= 50 and 0 < cpu < wall
    assert startup.timed([sys.executable, "-c", "raise SystemExit(1)"], dict(os.environ)) is None


def test_beats_are_read_off_the_socket() -> None:
    found = Beats()
    for line in (b'{"type":"process","v":1,"command":"x","score":20}', b'{"type":"process","v":1,"command":"storm","score":60}',
                 b'{"type":"tick","v":1,"late_s":0.002,"mono_ns":1000000}', b'{"type":"event","v":1,"kind":"enter"}',
                 b'{"type":"process","v":1,"command":"x","score":29}', b'{"type":"tick","v":1,"late_s":0.0,"mono_ns":0}'):
        found.take(line, 5_000_000)
    assert (found.late_ms, found.took_ms, found.leaders) == ([2.0, 0.0], [4.0, 5.0], {"storm": 1})


def test_labels_do_not_lie_on_each_other() -> None:
    """Those that would are moved apart around the middle of where they belong; others stay."""
    assert chart.spread_out([10, 100, 12, 14], 14) == [-2, 100, 12, 26]


@pytest.mark.slow
@linux
@compiled
def test_the_command_prints_the_table_and_writes_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    what = ["--sizes", "5", "--loads", "idle", "--subjects", "floor", "--no-syscalls", "--ticks-only"]
    how = ["--rounds", "2", "--seconds", "0.4", "--warmup", "0.2", "--hz", "10"]
    status = command.main([*what, *how, "--json", str(out), "--svg", str(picture)])
    said = capfd.readouterr()
    assert status == 0
    assert "**5 idle**" in said.out
    assert "5 idle, round 2 of 2: floor" in said.err
    found = json.loads(out.read_text())
    assert len(found["loads"][0]["subjects"]["floor"]["turns"]) == 2
    assert ElementTree.parse(picture).getroot().get("viewBox")
    assert "1,000 idle: at most 1.4 x the floor" in said.out
    assert command.main(["--from", str(out), "--compare", str(out)]) == 0
    said = capfd.readouterr()
    assert "**5 idle**" in said.out and "new / old" in said.out and "*" not in said.out.split("new / old")[1].split("goal")[0]


@pytest.mark.parametrize("arguments", [
    ["--sizes", "0"], ["--sizes", "x"], ["--active", "2"], ["--loads", "none"], ["--subjects", "floor,nothing"],
    ["--seconds", "nan"], ["--rounds", "0"], ["--add", "x"], ["--json", "/nowhere/out.json"],
    ["--from", "/nowhere/out.json"], ["--compare", "pyproject.toml"], ["--minutes", "0"],
])
def test_bad_usage_is_refused_before_anything_starts(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended_with:
        command.main(arguments)
    assert ended_with.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_quick_is_less_than_everything_and_options_win() -> None:
    def settings(*words: str) -> dict[str, Any]:
        return command.settings_of(command.parser().parse_args(words))

    assert settings()["sizes"] == [100, 1000, 5000, 10_000]
    assert set(subjects.SUBJECTS) == set(settings()["subjects"])
    assert settings("--quick")["sizes"] == [100, 1000]
    assert settings("--quick", "--sizes", "7", "--rounds", "9")["sizes"] == [7]
    assert settings("--quick")["minutes"] < settings()["minutes"] <= 14 < settings("--long")["minutes"]
    assert settings("--ticks-only")["start_ups"] == settings("--ticks-only")["beats_s"] == 0


@linux
def test_memory_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines are the largest of all, the rest and the sum stand below, and rows are what most of it is."""
    monkeypatch.setattr(memory, "TICKS", 3)
    monkeypatch.setattr(memory, "INTERVAL_S", 0.0)
    count, found = memory.profile(12)
    *shown, others, together = found
    assert count >= 1 and len(shown) == 12 and (others[0], together[0]) == ("all others", "together")
    sizes = [size for _, size, _ in shown]
    assert sizes == sorted(sizes, reverse=True)
    assert together[1] == sum(sizes) + others[1]
    assert any(place.startswith("lineage.py:") for place, _, _ in shown)
