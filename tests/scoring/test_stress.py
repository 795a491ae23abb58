"""The stress model: its formula, what is unknown, what a state multiplies, and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.config.options import Config, Stress
from rogue_hunter.schema.field import CATEGORIES, STATES
from rogue_hunter.scoring.stage import Least, Score
from rogue_hunter.scoring.stress import INPUTS, StressModel, score_row
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.ticks import Machine, key, row, stream

SETTINGS = Stress()
NORMS = {name: getattr(SETTINGS, name) for inputs in INPUTS.values() for name, _ in inputs if name != "ipc"}


def bare(**fields: Any) -> Row:
    """A row that knows nothing but `fields`."""
    return {"pid": 1, "start_ticks": 1, "state": "running", **fields}


def scored(**fields: Any) -> Row:
    return score_row(SETTINGS, bare(**fields), explain=True)


# -- the formula -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "category", "expected"),
    [
        ({"pageins_per_s": 100.0, "disk_bytes_per_s": 0.0, "faults_per_s": 0.0}, "blocking", 35),
        ({"pageins_per_s": 0.0, "disk_bytes_per_s": 50e6, "faults_per_s": 0.0}, "blocking", 17.5),
        ({"pageins_per_s": 0.0, "disk_bytes_per_s": 0.0, "faults_per_s": 10e3}, "blocking", 30),
        (
            {
                "run_delay_ms_per_s": 100.0,
                "context_switches_per_s": 0.0,
                "cpu_percent": 0.0,
                "qos_interactive_ms_per_s": 0.0,
            },
            "contention",
            30,
        ),
        (
            {
                "run_delay_ms_per_s": 0.0,
                "context_switches_per_s": 10e3,
                "cpu_percent": 0.0,
                "qos_interactive_ms_per_s": 0.0,
            },
            "contention",
            30,
        ),
        (
            {
                "run_delay_ms_per_s": 0.0,
                "context_switches_per_s": 0.0,
                "cpu_percent": 50.0,
                "qos_interactive_ms_per_s": 0.0,
            },
            "contention",
            12.5,
        ),
        (
            {
                "run_delay_ms_per_s": 0.0,
                "context_switches_per_s": 0.0,
                "cpu_percent": 0.0,
                "qos_interactive_ms_per_s": 100.0,
            },
            "contention",
            15,
        ),
        (
            {"memory_bytes": 8 << 30, "wakeups_per_s": 0.0, "syscalls_per_s": 0.0, "mach_messages_per_s": 0.0},
            "pressure",
            35,
        ),
        ({"memory_bytes": 0, "wakeups_per_s": 1e3, "syscalls_per_s": 0.0, "mach_messages_per_s": 0.0}, "pressure", 25),
        (
            {"memory_bytes": 0, "wakeups_per_s": 0.0, "syscalls_per_s": 100e3, "mach_messages_per_s": 0.0},
            "pressure",
            20,
        ),
        ({"memory_bytes": 0, "wakeups_per_s": 0.0, "syscalls_per_s": 0.0, "mach_messages_per_s": 10e3}, "pressure", 20),
        ({"ipc": 0.0, "threads": 0}, "efficiency", 60),
        ({"ipc": 0.25, "threads": 0}, "efficiency", 30),
        ({"ipc": 4.0, "threads": 100}, "efficiency", 40),
    ],
)
def test_points_of_an_input(fields: dict[str, float], category: str, expected: float) -> None:
    """Each input gives its points at its norm, in proportion below it."""
    made = scored(**fields)
    assert made[f"{category}_score"] == expected
    assert [made[f"{other}_score"] for other in CATEGORIES if other != category] == [0, 0, 0]
    weight = {"blocking": 0.4, "contention": 0.3, "pressure": 0.2, "efficiency": 0.1}[category]
    assert made["score"] == round(weight * expected)
    assert made["dominant_category"] == category


def test_worked_example() -> None:
    """A compiler that pages: 0.40 x 45.5 + 0.30 x 46.5 + 0.20 x 16.25 + 0.10 x 16 = 37."""
    made = scored(
        pageins_per_s=50.0,
        disk_bytes_per_s=20e6,
        faults_per_s=7e3,
        run_delay_ms_per_s=40.0,
        context_switches_per_s=1e3,
        cpu_percent=90.0,
        qos_interactive_ms_per_s=60.0,
        memory_bytes=2 << 30,
        wakeups_per_s=200.0,
        syscalls_per_s=10e3,
        mach_messages_per_s=250.0,
        ipc=0.4,
        threads=10,
    )
    assert made["blocking_score"] == 17.5 + 7 + 21
    assert made["contention_score"] == 12 + 3 + 22.5 + 9
    assert made["pressure_score"] == pytest.approx(8.75 + 5 + 2 + 0.5, abs=0.06)
    assert made["efficiency_score"] == 12 + 4
    assert made["score"] == 37 and made["band"] == "medium" and made["model"] == "stress"
    assert made["dominant_category"] == "contention"
    assert made["dominant_metrics"] == ["cpu_percent:90", "run_delay_ms_per_s:40", "qos_interactive_ms_per_s:60"]


def test_everything_at_its_norm_is_100() -> None:
    """The scale ends at 100, and more than the norm counts no more."""
    assert scored(**NORMS, ipc=0.0)["score"] == 100
    assert scored(**{name: 1e6 * norm for name, norm in NORMS.items()}, ipc=0.0)["score"] == 100


def test_nothing_is_0() -> None:
    """A process that does nothing, and one of which nothing is known, score 0, without a dominant category."""
    for fields in (dict.fromkeys(NORMS, 0.0), {}):
        made = scored(**fields)
        assert made["score"] == 0 and made["band"] == "low"
        assert not {"dominant_category", "dominant_metrics"} & made.keys()


def test_unknown_inputs_drop_out() -> None:
    """What cannot be measured here does not make a process look harmless: the rest is scaled to 100."""
    assert scored(disk_bytes_per_s=100e6)["blocking_score"] == 100
    assert scored(run_delay_ms_per_s=100.0, cpu_percent=0.0)["contention_score"] == pytest.approx(
        100 * 30 / 55, abs=0.05
    )
    assert scored(memory_bytes=8 << 30, wakeups_per_s=0.0)["pressure_score"] == pytest.approx(100 * 35 / 60, abs=0.05)
    assert scored(threads=50)["efficiency_score"] == 50


def test_stuck() -> None:
    """An uninterruptible process has the full blocking score."""
    made = scored(state="uninterruptible", disk_bytes_per_s=0.0)
    assert made["blocking_score"] == 100 and made["score"] == 40 and made["band"] == "elevated"
    assert made["dominant_metrics"] == ["state:uninterruptible"]


@pytest.mark.parametrize(
    ("state", "factor"),
    [
        ("running", 1),
        ("uninterruptible", 1),
        ("idle", 0.5),
        ("sleeping", 0.5),
        ("stopped", 0.7),
        ("halted", 0.8),
        ("defunct", 0.9),
    ],
)
def test_multiplier_of_a_state(state: str, factor: float) -> None:
    """A process that does not run counts less; one that used 1 % of a CPU in the tick counts as running."""
    fields = {**dict.fromkeys(NORMS, 0.0), "disk_bytes_per_s": 100e6, "faults_per_s": 10e3, "pageins_per_s": 100.0}
    assert scored(**fields, state=state)["score"] == round(40 * factor)
    assert scored(**{**fields, "cpu_percent": 1.0}, state=state)["score"] >= 40


@pytest.mark.parametrize("state", ["bands", "memory_bytes", "blocking_weight", "__class__", "", "no such state", None])
def test_state_made_up(state: str | None) -> None:
    """A state that a record made up is no name of an option: it multiplies by 1."""
    fields = dict.fromkeys(NORMS, 0.0) | {"disk_bytes_per_s": 100e6}
    made = scored(**fields, **({} if state is None else {"state": state}))
    assert made["score"] == 14


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **{name: st.floats(-1e12, 1e12) for name in NORMS},
            "ipc": st.floats(-10, 100),
            "state": st.sampled_from(STATES),
        },
    )
)
def test_any_row(fields: dict[str, Any]) -> None:
    """Every score and category lies in 0..100; the terms add up to the score; the dominant category has the most."""
    made = scored(**fields)
    assert 0 <= made["score"] <= 100
    parts = [made[f"{name}_score"] for name in CATEGORIES]
    assert all(0 <= p <= 100 for p in parts)
    assert sum(t["points"] for t in made["terms"]) == pytest.approx(made["score"], abs=0.6)
    assert made["terms"] == sorted(made["terms"], key=lambda t: -t["points"])
    if "dominant_category" in made:
        assert made[made["dominant_category"] + "_score"] == max(parts)
        assert 1 <= len(made["dominant_metrics"]) <= 3
    assert made["band"] == SETTINGS.bands.of(made["score"])


@given(st.sampled_from(sorted(NORMS)), st.floats(0, 3), st.floats(0, 3), st.sampled_from(STATES))
def test_more_is_never_less(name: str, a: float, b: float, state: str) -> None:
    """The score does not fall when one input rises."""
    low, high = sorted((a * NORMS[name], b * NORMS[name]))
    usual = dict.fromkeys(NORMS, 0.0)
    assert scored(**{**usual, name: low}, state=state)["score"] <= scored(**{**usual, name: high}, state=state)["score"]


# -- the stage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_what_is_skipped_changes_no_score(seed: int) -> None:
    """Rows that stand are not scored again, and every row says what scoring it alone would say."""
    before: dict[Any, Row] = {}
    for tick in chain(_keep := Machine(seed, processes=50).ticks(100), StressModel(SETTINGS)):
        assert all(made == score_row(SETTINGS, _unscored(made)) for made in tick.processes.values())
        assert tick.changed == {k for k, made in tick.processes.items() if before.get(k) is not made}
        assert tick.scored == {k for k, made in tick.processes.items() if made["score"]}
        assert tick.row is not None and tick.row["max_score"] == max(made["score"] for made in tick.processes.values())
        before = tick.processes
    assert next(_keep, None) is None


ADDED = {"model", "score", "band", "dominant_category", "dominant_metrics", *(f"{name}_score" for name in CATEGORIES)}


def _unscored(made: Row) -> Row:
    return {name: value for name, value in made.items() if name not in ADDED}


def test_rows_are_not_changed() -> None:
    """A stage never changes a row that it was handed."""
    ticks = list(Machine(7).ticks(20))
    copies = [{k: dict(made) for k, made in t.processes.items()} for t in ticks]
    list(chain(ticks, StressModel(SETTINGS, explain=True)))
    assert [t.processes for t in ticks] == copies


def test_score_takes_the_configured_model() -> None:
    """Without a name the configured model scores, and the bands are that model's."""
    tick = next(chain(stream([[row(1, state="uninterruptible")]]), Score(Config(), "stress")))
    assert tick.processes[1, 1000]["model"] == "stress" and tick.processes[1, 1000]["band"] == "elevated"
    assert next(chain(stream([[row(1)]]), Score(Config()))).processes[1, 1000]["model"] == "share"


# -- least -----------------------------------------------------------------------------------------------------------


def rated(pid: int, points: int) -> Row:
    return row(pid, score=points)


def ranked(*scores: int) -> list[Row]:
    return [rated(pid, points) for pid, points in enumerate(scores, 1)]


def cut(rows: list[Row], **options: Any) -> list[int]:
    """The pids that are left of one tick."""
    tick = next(chain(stream([rows]), Least(**options)))
    return [k[0] for k in tick.processes]


def test_least() -> None:
    """Below the minimum nothing is left; of the rest the highest, highest first, equals in the order they came."""
    rows = ranked(10, 50, 45, 90, 50, 0)
    assert cut(rows, min_score=45) == [2, 3, 4, 5]
    assert cut(rows, top=3) == [4, 2, 5]
    assert cut(rows, min_score=50, top=9) == [4, 2, 5]
    assert cut([row(1), row(2)], min_score=1) == []


def test_least_reports_what_changed() -> None:
    """A row that is shown again is new to the next stage; an exited process and one left out look the same."""
    a, b, low = rated(1, 90), rated(2, 50), rated(2, 10)
    ticks = list(chain(stream([[a, b], [a, low], [a, b], [b]]), Least(min_score=45)))
    assert [t.changed for t in ticks] == [{key(a), key(b)}, set(), {key(b)}, set()]
    assert [t.exited for t in ticks] == [(), (), (), (key(a),)]
    assert [t.partial for t in ticks] == [False, True, False, False]
    batch = Tick(records=[{"type": "x", "v": 1}])
    assert list(chain([batch], Least(top=1))) == [batch]


# -- to the digit ----------------------------------------------------------------------------------------------------


def test_terms_to_the_digit() -> None:
    """Every known input's points, times the category's weight and the state's multiplier, the largest first."""
    made = score_row(SETTINGS, {"state": "sleeping", "pageins_per_s": 33.333, "cpu_percent": 0.5, "ipc": 0.4,
                                "wakeups_per_s": 123.0, "memory_bytes": 1 << 30}, explain=True)
    assert made["terms"] == [
        {"category": "blocking", "input": "pageins_per_s", "value": 33.333, "points": 6.67},
        {"category": "efficiency", "input": "ipc", "value": 0.4, "points": 1.0},
        {"category": "pressure", "input": "memory_bytes", "value": 1 << 30, "points": 0.73},
        {"category": "pressure", "input": "wakeups_per_s", "value": 123.0, "points": 0.51},
        {"category": "contention", "input": "cpu_percent", "value": 0.5, "points": 0.07}]
    assert [made[f"{name}_score"] for name in ("blocking", "contention", "pressure", "efficiency")] == [
        33.3, 0.5, 12.4, 20.0]
    assert made["score"] == 9


def test_no_terms_by_default() -> None:
    assert "terms" not in score_row(SETTINGS, bare(cpu_percent=5.0))
    assert "terms" in score_row(SETTINGS, bare(cpu_percent=5.0), explain=True)
    for stage in (StressModel(SETTINGS), Score(Config(), "stress"), Score(Config(), "share")):
        assert "terms" not in next(chain(stream([[row(1, cpu_percent=50.0)]]), stage)).processes[1, 1000]
    for model in ("stress", "share"):
        explained = Score(Config(), model, explain=True)
        assert "terms" in next(chain(stream([[row(1, cpu_percent=50.0)]]), explained)).processes[1, 1000]


def test_stuck_in_terms() -> None:
    """Blocking is the state's alone: 100 points, times its weight."""
    made = scored(state="uninterruptible", disk_bytes_per_s=100e6)
    assert made["terms"] == [{"category": "blocking", "input": "state", "value": "uninterruptible", "points": 40.0}]


def test_the_score_ends_at_100_with_any_weights() -> None:
    heavy = Stress(blocking_weight=1.0, contention_weight=1.0)
    assert score_row(heavy, bare(state="uninterruptible", cpu_percent=100.0))["score"] == 100


@pytest.mark.parametrize(("ipc", "expected"), [(-3.0, 60.0), (0.0, 60.0), (0.375, 15.0), (0.5, 0.0), (2.0, 0.0)])
def test_instructions_a_cycle(ipc: float, expected: float) -> None:
    """Nothing lost at half an instruction a cycle, everything at none; less than none is no more than that."""
    assert scored(ipc=ipc, threads=0)["efficiency_score"] == expected


@pytest.mark.parametrize(("cpu", "expected"), [(None, 16), (0.99, 16), (1.0, 33), (50.0, 33)])
def test_one_percent_of_a_cpu_is_running(cpu: float | None, expected: int) -> None:
    """A sleeping process below it, or whose CPU use is unknown, counts half of 0.4 x 82.5."""
    fields = {"disk_bytes_per_s": 100e6, "faults_per_s": 10e3, "pageins_per_s": 50.0, "cpu_percent": cpu}
    known = {name: value for name, value in fields.items() if value is not None}
    made = score_row(Stress(contention_weight=0.0), bare(state="sleeping", **known))
    assert (made["blocking_score"], made["score"]) == (82.5, expected)


@pytest.mark.parametrize(("value", "said"), [
    (412.0, "412"), (412.5, "412.5"), (0.25, "0.25"), (1234.56, "1235"), (1e15, "1000000000000000"), (3, "3")])
def test_how_a_metric_is_formatted(value: float, said: str) -> None:
    """Whole numbers in full, others to four digits; only what contributed."""
    made = scored(pageins_per_s=value, disk_bytes_per_s=0.0)
    assert made["dominant_metrics"] == [f"pageins_per_s:{said}"]


def test_what_is_small_is_named_too() -> None:
    made = scored(disk_bytes_per_s=1e6, faults_per_s=0.0, pageins_per_s=0.0)
    assert (made["blocking_score"], made["score"]) == (0.4, 0)
    assert (made["dominant_category"], made["dominant_metrics"]) == ("blocking", ["disk_bytes_per_s:1000000"])


def test_three_metrics_at_most_the_largest_first() -> None:
    made = scored(run_delay_ms_per_s=10.0, context_switches_per_s=9e3, cpu_percent=100.0, qos_interactive_ms_per_s=90.0)
    assert made["dominant_metrics"] == ["context_switches_per_s:9000", "cpu_percent:100", "qos_interactive_ms_per_s:90"]


# -- the stage, row by row -------------------------------------------------------------------------------------------


def test_an_unchanged_row_is_the_same_object_and_a_changed_one_is_scored() -> None:
    still, busy = row(1, cpu_percent=10.0), row(2, cpu_percent=10.0)
    ticks = list(chain(stream([[still, busy], [still, row(2, cpu_percent=90.0)], [still]]), StressModel(SETTINGS)))
    assert ticks[1].processes[key(still)] is ticks[0].processes[key(still)]
    assert ticks[1].changed == {key(busy)} and ticks[2].changed == set()
    assert ticks[1].processes[key(busy)] == score_row(SETTINGS, row(2, cpu_percent=90.0))
    assert ticks[2].exited == (key(busy),)


def test_an_idle_machine_has_no_score() -> None:
    (tick,) = chain(stream([[row(1, threads=0)]]), StressModel(SETTINGS))
    assert tick.row is not None and tick.row["max_score"] == 0 and tick.scored == set()


@pytest.mark.parametrize("stage", [StressModel(SETTINGS), Least(min_score=1)], ids=["stress", "least"])
def test_batches_of_records_pass(stage: Any) -> None:
    """What came between two ticks stays between them."""
    batch = Tick(records=[{"type": "x", "v": 1}])
    first, second = stream([[rated(1, 5)], [rated(1, 6)]])
    got = list(chain([first, batch, second], stage))
    assert got[1] is batch and len(got) == 3
    assert [t.row["seq"] for t in got if t.row] == [0, 1]


def test_least_keeps_the_scored_of_the_selected() -> None:
    (tick,) = stream([ranked(10, 50, 90, 0)])
    tick.scored = {(1, 1000), (2, 1000), (3, 1000)}
    (cut_down,) = chain([tick], Least(min_score=50))
    assert cut_down.scored == {(2, 1000), (3, 1000)} and cut_down.records is tick.records
    assert cut(ranked(1, 0), min_score=0) == [1, 2]
