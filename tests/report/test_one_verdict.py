"""One verdict: the summary, `why`, the row of a pause and the status line name the same process with the same numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from rogue_hunter.report import history as reading
from rogue_hunter.report.queries import Period, source
from rogue_hunter.report.verdict_text import now_words, pause_culprits
from rogue_hunter.report.views.summary import summary
from rogue_hunter.report.views.why import why
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Tick
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.pauses import Pauses
from tests.tools.reports import CONFIG
from tests.tools.ticks import START, Machine

SAME = ("cause", "kind", "confidence", "command", "pid", "start_ticks", "name", "victims", "own_cpu_percent", "causes")
WHO = ("pid", "start_ticks", "command", "name", "unit", "share")


def late(ticks: Iterator[Tick]) -> Iterator[Tick]:
    """Beats that came late stood in the run queue; all tasks waited for storage or memory now and then."""
    for tick in ticks:
        assert tick.row is not None
        row = tick.row
        row["late_s"] = max(0.0, round(row["interval_s"] - 0.34, 3))
        row["self_run_delay_ms"] = 900 * row["late_s"]
        if row["seq"] % 40 > 34:
            row["pressure_io_full_ms_per_s"] = 930.0
        if row["seq"] % 90 > 84:
            row["pressure_memory_full_ms_per_s"] = 910.0
        yield tick


def recorded(path: Path, seed: int) -> tuple[History, float]:
    """A machine that a seed decides, through the stages of rh-pipe; and when it ended."""
    history = History(CONFIG, judge=pause_culprits)
    writer = Writer(path, CONFIG.store, lambda: START, lambda message: None)
    stored = Store(writer)
    writer.tells(lambda: {"pid": 4242, "started_at": START - 100, "hz": 3.0, "model": "share", **stored.state()})
    end = START
    for tick in chain(late(Machine(seed).ticks(240)), Score(CONFIG), Track(CONFIG), Pauses(CONFIG.pause), history, stored):
        end = tick.row["ts"] if tick.row is not None else end
    assert writer.dropped == 0
    writer.close()
    return history, end


@pytest.mark.slow
@settings(max_examples=60 if "RH_LONG" in os.environ else 3, deadline=None, phases=(Phase.explicit, Phase.generate),
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), windows=st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 1)), min_size=2, max_size=4))
@example(seed=588, windows=[(0.1, 0.9)])
def test_every_answer_is_the_same(tmp_path: Path, seed: int, windows: list[tuple[float, float]]) -> None:
    """For any window of any history, and for each of its pauses."""
    path = tmp_path / f"{seed}.db"
    path.unlink(missing_ok=True)
    history, end = recorded(path, seed)
    with source(path, end, CONFIG) as found:
        for begin, length in windows:
            since = START + begin * (end - START)
            period = Period(since, since + length * (end - START))
            (short,), (long,) = summary(found, period, 5).records, why(found, period, None).records
            assert [short.get(name) for name in SAME] == [long.get(name) for name in SAME]
        pauses = reading.pauses(found.reader, Period(START - 10, end + 10))
        for pause in pauses:
            _same(pause, why(found, Period(pause["start"], pause["end"]), None).records[0])
        live = history.slicer.recent()
        words = now_words(live, end)
        if words:
            (now,) = why(found, Period(0, 0), end, live=lambda _: live).records
            assert words.startswith(now["cause"]) and ("pid" not in now or f"(pid {now['pid']})" in words)


def _same(pause: Record, one: Record) -> None:
    """A pause's row and the answer about its time."""
    cause = next((each for each in one["causes"] if each["cause"] == pause["cause"]
                  and each["kind"] in ("shortage", "limit", "device")), None)
    if not pause["culprits"]:
        assert cause is None or "pid" not in cause
        return
    assert cause is not None
    first = pause["culprits"][0]
    if "members" in cause:
        assert {name: first[name] for name in ("pid", "start_ticks", "name")} in [
            {name: member[name] for name in ("pid", "start_ticks", "name")} for member in cause["members"]]
        return
    named = cause if "pid" in cause else cause["who"][0]    # no process alone: the highest is named
    assert {name: first.get(name) for name in WHO} == {name: named.get(name) for name in WHO}
    assert first["amount"] == named["total"]
    assert {each["pid"] for each in cause["who"] if "pid" in each} >= {each["pid"] for each in pause["culprits"][:1]}
