"""What counts as short, and how much: the points of every resource, by hand and for any minute."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.report.shortage import COLUMNS, NOTICED, extremes, judge, may_be_short, median, usual

GIB = 1 << 30


def minute(**more: Any) -> dict[str, Any]:
    """A quiet minute of a machine of 4 CPUs and 16 GiB, with `more` over it; None leaves a column out."""
    quiet = {"minute": 60_000, "seconds": 60.0, "cpus": 4, "cpu_busy_cores": 0.4, "pressure_cpu_some_ms_per_s": 5.0,
             "memory_total_bytes": 16 * GIB, "memory_available_bytes": 10 * GIB, "pressure_memory_full_ms_per_s": 0.0,
             "pressure_io_full_ms_per_s": 2.0, "disk_bytes": 10**7, "cpu_steal_cores": 0.0, "asleep_s": 0.0,
             "late_s": 0.01, "self_cpu_percent": 0.7, "started": 20}
    return {k: v for k, v in {**quiet, **more}.items() if v is not None}


@pytest.mark.parametrize(("more", "cause", "points"), [
    ({}, "cpu", 0.5),
    ({"pressure_cpu_some_ms_per_s": 870.0, "cpu_busy_cores": 4.0}, "cpu", 87.0),
    # All CPUs used and nobody waits: not as bad, but it is told.
    ({"cpu_busy_cores": 4.0}, "cpu", 60.0),
    ({"cpu_busy_cores": 4.0, "pressure_cpu_some_ms_per_s": None}, "cpu", 100.0),
    ({"cpu_busy_cores": 2.8, "pressure_cpu_some_ms_per_s": None}, "cpu", 0.0),
    ({"pressure_memory_full_ms_per_s": 50.0}, "memory", 20.0),
    ({"memory_available_bytes": 0, "pressure_memory_full_ms_per_s": None}, "memory", 100.0),
    ({"memory_available_bytes": 0}, "memory", 50.0),
    ({"pressure_io_full_ms_per_s": 100.0}, "io", 30.0),
    ({"disk_bytes": 18 * 10**9, "pressure_io_full_ms_per_s": None}, "io", 100.0),
    ({"disk_bytes": 18 * 10**9}, "io", 50.0),
    ({"cpu_steal_cores": 0.4}, "steal", 20.0),
    ({"cpu_steal_cores": 4.0}, "steal", 100.0),
    ({"asleep_s": 4.0}, "asleep", 50.0),
    ({"asleep_s": 300.0}, "asleep", 95.0),
    ({"late_s": 0.6}, "unknown", 24.0),
    # The pauses of the minute say it already.
    ({"late_s": 3.0, "pauses": 1}, "unknown", 0.0),
    ({"self_cpu_percent": 40.0}, "rogue-hunter", 40.0),
])
def test_points(more: dict[str, Any], cause: str, points: float) -> None:
    """The part of the time in which somebody waited, weighed; where that is not known, what was in use."""
    assert judge(minute(**more), {})[cause].points == pytest.approx(points, abs=0.05)


@pytest.mark.parametrize(("cause", "missing"), [
    ("cpu", "cpu_busy_cores"), ("memory", "memory_available_bytes"), ("steal", "cpu_steal_cores"),
    ("asleep", "asleep_s"), ("unknown", "late_s"), ("rogue-hunter", "self_cpu_percent")])
def test_what_is_not_known_is_not_judged(cause: str, missing: str) -> None:
    """A resource of which there is no reading is neither a cause nor ruled out."""
    assert cause in judge(minute(), {}) and cause not in judge(minute(**{missing: None}), {})
    assert "io" not in judge(minute(pressure_io_full_ms_per_s=None, disk_bytes=None), {})


def test_usual_traffic_is_no_shortage() -> None:
    """The same traffic is nothing where it is usual, if nobody waits for it."""
    busy = minute(disk_bytes=12 * 10**9)
    assert judge(busy, {"disk_bytes": 10e6})["io"].points > NOTICED
    assert judge(busy, {"disk_bytes": 150e6})["io"].points < NOTICED


def test_words() -> None:
    """Numbers with units, and the usual beside them."""
    said = judge(minute(cpu_busy_cores=3.25, started=3245, unattributed_cpu_cores=1.0),
                 {"cpu_busy_cores": 0.5, "started": 0.2, "memory_available_bytes": 8 * GIB})
    assert said["cpu"].words == ("3.25 of 4 cores busy (usually 0.5), some task waited for a CPU <1 % of the time; "
                                 "3245 processes were begun (usually 12 a minute); 1 cores are of nobody seen: the "
                                 "kernel, or processes gone at once")
    assert said["memory"].words == "62 % available, 10.0 GiB of 16.0 GiB (usually 50 %), pressure 0 %"
    assert said["cpu"].numbers["started"] == 3245


def test_usual_is_the_median_of_enough() -> None:
    """Of ten minutes at least; a rate where the column is a sum; one wild minute changes nothing."""
    assert usual([minute()] * 9) == {}
    normal = usual([*[minute()] * 10, minute(cpu_busy_cores=4.0, seconds=1.0)])
    assert normal["cpu_busy_cores"] == 0.4 and normal["disk_bytes"] == pytest.approx(10**7 / 60)
    assert "unattributed_cpu_cores" not in normal and normal.keys() <= set(COLUMNS)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_the_median_is_one_of_them(values: list[float]) -> None:
    """At most half of the values are above it, and at most half below."""
    middle = median(values)
    assert middle in values
    assert sum(v > middle for v in values) <= len(values) / 2 + 0.5
    assert sum(v < middle for v in values) <= len(values) / 2


_ANY = st.fixed_dictionaries({}, optional={
    "cpu_busy_cores": st.floats(0, 5), "pressure_cpu_some_ms_per_s": st.floats(0, 1000),
    "memory_available_bytes": st.integers(0, 16 * GIB), "pressure_memory_full_ms_per_s": st.floats(0, 1000),
    "pressure_io_full_ms_per_s": st.floats(0, 1000), "disk_bytes": st.integers(0, 10**11),
    "cpu_steal_cores": st.floats(0, 4), "asleep_s": st.floats(0, 100), "late_s": st.floats(0, 5),
    "self_cpu_percent": st.floats(0, 200), "pauses": st.integers(0, 3), "started": st.integers(0, 10**5)})


@given(_ANY)
def test_the_quick_look_misses_nothing(more: dict[str, Any]) -> None:
    """Whatever judge would notice, may_be_short lets through; points are within 0 and 100; words are never empty."""
    made = {"seconds": 60.0, "cpus": 4, "memory_total_bytes": 16 * GIB, **more}
    judged = judge(made, {})
    assert may_be_short(made) or all(one.points < NOTICED for one in judged.values())
    assert all(0 <= one.points <= 100 and one.words for one in judged.values())


@given(st.lists(_ANY, max_size=20))
def test_extremes_hold_the_worst_of_each(several: list[dict[str, Any]]) -> None:
    """Each once, and with them the highest points of every resource that is measured by one column."""
    minutes = [{"seconds": 60.0, "cpus": 4, "memory_total_bytes": 16 * GIB, "minute": n, **more}
               for n, more in enumerate(several)]
    worst = extremes(minutes)
    assert len({m["minute"] for m in worst}) == len(worst) and all(m in minutes for m in worst)
    for cause in ("steal", "rogue-hunter"):
        points = [judge(m, {})[cause].points for m in minutes if cause in judge(m, {})]
        chosen = [judge(m, {})[cause].points for m in worst if cause in judge(m, {})]
        assert not points or max(points) == max(chosen, default=-1)
