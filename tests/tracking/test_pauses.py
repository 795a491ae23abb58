"""Pauses: what is one, and what caused it. Who is named: tests/report/test_live_verdict.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.config.options import Pause
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.tracking.pauses import Pauses, cause
from tests.tools.ticks import START, row, stream

SETTINGS = Pause()


def run(ticks: list[list[Row]], rows: dict[int, dict[str, Any]]) -> list[Record]:
    """The pauses of ticks whose closing rows are changed as `rows` says, by tick; time passes as they say."""
    made = []
    ts, mono = START, 10**12
    for tick in stream(ticks):
        assert tick.row is not None
        more = rows.get(tick.row["seq"], {})
        interval = more.get("interval_s", 0.333333)
        ts, mono = ts + interval + more.get("asleep_s", 0.0), mono + int(interval * 1e9)
        tick.row.update({"ts": round(ts, 3), "mono_ns": mono, **more})
        made.append(tick)
    return [r for t in chain(made, Pauses(SETTINGS)) for r in t.records if r["type"] == "pause"]


def hog(cpu: float, pid: int = 7, **more: Any) -> Row:
    return row(pid, command=f"hog{pid}", cpu_seconds_total=cpu, **more)


OTHERS = [row(8, state="uninterruptible"), row(9, pageins_per_s=100.0)]
LATE = {"late_s": 2.0, "interval_s": 2.333}


def test_starved_of_cpu() -> None:
    """The beat stood in the run queue: cause cpu."""
    found = run([[hog(1.0), hog(1.0, 8)]] * 2 + [[hog(3.0), hog(2.0, 8)]],
                {2: {**LATE, "cpus": 2, "cpu_busy_cores": 1.9, "self_run_delay_ms": 1900.0}})
    (pause,) = found
    assert (pause["cause"], pause["duration_s"]) == ("cpu", 2.0)
    assert pause["end"] - pause["start"] == pytest.approx(2.0)


def test_stopped_itself_blames_no_process() -> None:
    """SIGSTOP and SIGCONT of the toolkit: cause stopped, no culprit, with any activity of others."""
    (pause,) = run([[hog(1.0)]] * 2 + [[hog(3.0)]], {2: {**LATE, "continued": 1, "self_run_delay_ms": 1900.0}})
    assert (pause["cause"], pause["culprits"], "unexplained_share" in pause) == ("stopped", [], False)


@pytest.mark.parametrize(("late_s", "late_again", "causes"), [
    (0.0, 2.0, ["stopped"]), (2.0, 2.0, ["stopped", "cpu"]), (0.0, 0.0, [])])
def test_stopped_in_the_middle_of_a_tick(late_s: float, late_again: float, causes: list[str]) -> None:
    """That tick has counted the SIGCONT and was not late; the next one is."""
    starved = {"interval_s": 2.333, "self_run_delay_ms": 1900.0}
    found = run([[hog(1.0)]] * 5, {2: {**starved, "late_s": late_s, "continued": 1}, 3: {**starved, "late_s": late_again}})
    assert [pause["cause"] for pause in found] == causes


def test_suspension_is_no_pause() -> None:
    """An hour asleep: the beat is not late, there is no pause, only asleep_s."""
    assert run([[hog(1.0)]] * 4, {2: {"asleep_s": 3600.0}}) == []


def test_a_clock_that_is_set_is_no_pause() -> None:
    """A step of the wall clock by a day, either way, makes no pause."""
    assert run([[hog(1.0)]] * 4, {2: {"clock_step_s": 86400.0}, 3: {"clock_step_s": -86400.0}}) == []


@pytest.mark.parametrize("more", [{"cpu_steal_cores": 1.0}, {"cpu_counted_cores": 0.5}])
def test_the_hypervisor_is_never_a_process(more: dict[str, Any]) -> None:
    """Stolen CPUs, or a machine that stood still: cause steal, no culprit."""
    (pause,) = run([[hog(1.0)]] * 2 + [[hog(3.0)]], {2: {**LATE, "cpus": 2, "cpu_busy_cores": 2.0, **more}})
    assert (pause["cause"], pause["culprits"]) == ("steal", [])


@pytest.mark.parametrize(("more", "cause_"), [
    ({"pressure_memory_full_ms_per_s": 600.0, "pressure_io_full_ms_per_s": 700.0}, "memory"),
    ({"pressure_io_full_ms_per_s": 700.0}, "io")])
def test_all_tasks_waited(more: dict[str, float], cause_: str) -> None:
    """For memory, which needs storage to be freed, or for storage alone."""
    (pause,) = run([[hog(1.0)]] * 3, {2: {**LATE, **more}})
    assert pause["cause"] == cause_


def test_no_evidence_is_reported() -> None:
    """Late, and nothing was short: unknown, no process is named."""
    (pause,) = run([[hog(1.0)]] * 2 + [[hog(1.1)]], {2: {**LATE, "self_run_delay_ms": 3.0, "cpu_busy_cores": 0.1}})
    assert (pause["cause"], pause["culprits"]) == ("unknown", [])
    assert pause["evidence"]["self_run_delay_ms"] == 3.0


def test_stall_without_a_late_beat() -> None:
    """All tasks waiting for storage for two seconds is a pause though the beat was on time, once, with its culprit."""
    busy = {"pressure_io_full_ms_per_s": 900.0}
    ticks = [[hog(1.0, disk_write_bytes_total=i * 10**6, state="uninterruptible"), *OTHERS] for i in range(12)]
    (pause,) = run(ticks, dict.fromkeys(range(3, 9), busy))
    assert pause["cause"] == "io"
    assert pause["duration_s"] == pytest.approx(2.0, abs=0.01)


def test_one_task_that_waits_for_its_own_storage_is_no_pause() -> None:
    """A backup that is all that runs: full pressure, and no other process waits. Kernel threads work for it."""
    kernel = row(99, ppid=2, state="uninterruptible")
    ticks = [[hog(1.0, disk_write_bytes_total=i * 10**6, state="uninterruptible"), row(8), kernel] for i in range(60)]
    full = {"pressure_io_full_ms_per_s": 990.0}
    assert run(ticks, dict.fromkeys(range(3, 50), full)) == []


def test_a_quota_of_our_own_blames_no_process() -> None:
    """Throttled time counts as run delay: with an idle machine beside it is no shortage of CPU."""
    (pause,) = run([[hog(1.0)]] * 2 + [[hog(3.0)]], {2: {**LATE, "cpus": 2, "cpu_busy_cores": 0.09,
                                                         "self_run_delay_ms": 1900.0, "self_throttled_ms": 1800.0}})
    assert (pause["cause"], pause["culprits"]) == ("throttled", [])


def test_half_a_second_is_a_pause_if_the_cause_is_known() -> None:
    """Real-time loops leave 5 % to others: beats are 0.7 s late and stood in the run queue all the time."""
    short = {"late_s": 0.7, "interval_s": 1.033}
    (pause,) = run([[hog(1.0)]] * 2 + [[hog(3.0)]], {2: {**short, "cpus": 2, "cpu_busy_cores": 2.0,
                                                         "self_run_delay_ms": 690.0}})
    assert (pause["cause"], pause["duration_s"]) == ("cpu", 0.7)
    assert run([[hog(1.0)]] * 4, {2: {**short, "self_run_delay_ms": 3.0}}) == []
    assert run([[hog(1.0)]] * 4, {2: {**short, "late_s": 0.4, "self_run_delay_ms": 390.0}}) == []


def test_late_for_its_own_work_is_no_pause() -> None:
    """The sampler computed for most of the time: the machine did not keep it from running."""
    assert run([[hog(1.0)]] * 4, {2: {**LATE, "self_run_delay_ms": 100.0, "self_cpu_percent": 80.0}}) == []


def test_a_clock_that_is_set_in_a_pause_changes_no_duration() -> None:
    """Durations are measured: two seconds late stay two seconds, and a stall lasts by the monotonic clock."""
    (pause,) = run([[hog(1.0)]] * 2 + [[hog(3.0)]], {2: {**LATE, "ts": START + 86_400, "clock_step_s": 86_400.0,
                                                         "self_run_delay_ms": 1900.0}})
    assert pause["duration_s"] == 2.0
    full = {"pressure_io_full_ms_per_s": 900.0}
    (pause,) = run([[hog(1.0), *OTHERS]] * 12, {**dict.fromkeys(range(3, 9), full),
                                                6: {**full, "ts": START - 86_400, "clock_step_s": -86_400.0}})
    assert pause["duration_s"] == pytest.approx(2.0, abs=0.01)


def test_a_short_stall_is_no_pause() -> None:
    """Two thirds of a second of full pressure are no pause."""
    assert run([[hog(1.0)]] * 9, {i: {"pressure_io_full_ms_per_s": 1000.0} for i in (3, 4)}) == []


def test_a_long_stall_is_reported_in_parts() -> None:
    """A stall of several minutes is reported every minute, not only at its end."""
    found = run([[hog(1.0), *OTHERS]] * 600, {i: {"pressure_memory_full_ms_per_s": 950.0} for i in range(10, 500)})
    assert [round(p["duration_s"]) for p in found] == [60, 60, 43]


def test_a_stall_that_makes_the_beat_late_is_one_pause() -> None:
    """A stall that ends in a late beat is one pause from the stall's beginning."""
    full = {"pressure_memory_full_ms_per_s": 900.0}
    (pause,) = run([[hog(1.0)]] * 8, {3: full, 4: full, 5: {**LATE, **full}})
    assert pause["cause"] == "memory"
    assert pause["duration_s"] == pytest.approx(2.333 + 2 / 3, abs=0.01)


def test_another_boot_is_no_gap() -> None:
    """The first tick after a reboot is compared with nothing."""
    assert run([[hog(1.0)]] * 3, {2: {**LATE, "boot_id": "other"}}) == []


READINGS = ("cpus", "cpu_busy_cores", "cpu_steal_cores", "cpu_counted_cores", "self_run_delay_ms", "self_pageins",
            "pressure_memory_full_ms_per_s", "pressure_io_full_ms_per_s", "memory_available_bytes", "memory_total_bytes")


@given(st.dictionaries(st.sampled_from(READINGS), st.floats(0, 1e6)), st.floats(1, 100))
def test_every_evidence_has_a_cause(evidence: Row, gap: float) -> None:
    """With any fields missing, one of the causes is given; stopped needs a SIGCONT."""
    assert cause(evidence, gap) in ("cpu", "memory", "io", "steal", "unknown")


def test_ticks_pass_unchanged() -> None:
    """The stage adds records and changes nothing else; batches of records pass."""
    ticks = list(stream([[hog(1.0)]] * 2))
    batch = Tick(records=[{"type": "x", "v": 1}])
    assert list(chain([*ticks, batch], Pauses(SETTINGS))) == [*ticks, batch]
