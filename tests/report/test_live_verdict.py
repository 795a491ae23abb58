"""Who is behind a pause: named by the verdict, with the numbers that `why` gives about the same time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.report import history as reading
from rogue_hunter.report.queries import Period, source
from rogue_hunter.report.verdict_text import now_words, pause_culprits
from rogue_hunter.report.views.why import why
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.pauses import Pauses
from tests.tools.reports import CONFIG
from tests.tools.ticks import GIB, START, row, stream

CPU = {"cpus": 2, "cpu_busy_cores": 1.9, "pressure_cpu_some_ms_per_s": 900.0, "self_run_delay_ms": 1900.0}
LATE = {"late_s": 2.0, "interval_s": 2.333}
QUIET = {"cpus": 2, "cpu_busy_cores": 0.1, "pressure_cpu_some_ms_per_s": 1.0, "pressure_io_full_ms_per_s": 0.0,
         "pressure_memory_full_ms_per_s": 0.0, "self_run_delay_ms": 1.0}


def hog(pid: int = 7, **more: Any) -> Row:
    return row(pid, command=f"hog{pid}", unit=f"u{pid}", cmdline=f"hog{pid} -x", **more)


def ticks_of(ticks: list[list[Row]], rows: Mapping[int, Mapping[str, Any]]) -> list[Tick]:
    """Ticks whose closing rows are changed as `rows` says, by tick; time passes as they say."""
    made, ts, mono = [], START, 10**12
    for tick in stream(ticks, **QUIET):
        assert tick.row is not None
        more = rows.get(tick.row["seq"], {})
        interval = more.get("interval_s", 0.333333)
        ts, mono = ts + interval, mono + int(interval * 1e9)
        tick.row.update({"ts": round(ts, 3), "mono_ns": mono, **more})
        made.append(tick)
    return made


def played(path: Path, ticks: list[Tick]) -> tuple[list[Record], History]:
    """The pauses of ticks that are stored as rh-pipe would, and the stage that holds their slices."""
    history = History(CONFIG, judge=pause_culprits)
    writer = Writer(path, CONFIG.store, lambda: START, lambda message: None)
    stored = Store(writer)
    writer.tells(lambda: {"pid": 4242, "started_at": START - 100, "hz": 3.0, "model": "share", **stored.state()})
    found = [r for t in chain(ticks, Pauses(CONFIG.pause), history, stored) for r in t.records if r["type"] == "pause"]
    writer.close()
    return found, history


def asked(path: Path, pause: Record) -> Record:
    """The answer of `why` about the time of a pause."""
    with source(path, pause["end"] + 100, CONFIG) as found:
        (one,) = why(found, Period(pause["start"], pause["end"]), None).records
        (stored,) = reading.pauses(found.reader, Period(pause["start"], pause["end"]))
    assert stored["culprits"] == [{k: v for k, v in c.items() if k != "user"} for c in pause["culprits"]]
    return one


def before(n: int, *rows: Row) -> list[list[Row]]:
    return [list(rows)] * n


def test_starved_of_cpu(tmp_path: Path) -> None:
    """The one that used most in the pause, not the one that used most before it; the numbers are those of `why`."""
    calm = [hog(7), hog(8, cpu_percent=100.0, run_delay_ms_per_s=1.0), hog(9)]
    busy = [hog(7, cpu_percent=150.0, run_delay_ms_per_s=5.0), hog(8, cpu_percent=30.0, run_delay_ms_per_s=700.0), hog(9)]
    (pause,), _ = played(tmp_path / "x.db", ticks_of([*before(8, *calm), busy, *before(30, *calm)], {8: {**LATE, **CPU}}))
    assert (pause["cause"], [c["pid"] for c in pause["culprits"]]) == ("cpu", [7, 8])
    first = pause["culprits"][0]
    assert (first["resource"], first["start_ticks"]) == ("cpu", 1000)
    assert first["amount"] == pytest.approx(1.5 * 2.333, abs=1e-3)
    assert first["share"] == pytest.approx(1.5 / 1.9, abs=1e-3)
    assert pause["unexplained_share"] == pytest.approx(1 - 1.8 / 1.9, abs=1e-2)
    one = asked(tmp_path / "x.db", pause)
    assert (one["verdict"], one["cause"], one["pid"]) == ("found", "cpu", 7)
    assert (one["causes"][0]["total"], one["causes"][0]["share"]) == (first["amount"], first["share"])


def test_a_stall_of_storage(tmp_path: Path) -> None:
    """A stall of several ticks, in slices that end with it; own processes and those that only wait are not named."""
    stuck = hog(8, state="uninterruptible")
    mine = row(5, own=True, command="rh-pipe", cmdline="rh-pipe", disk_bytes_per_s=9e8)
    calm = [hog(7, disk_bytes_per_s=1e3), hog(8), hog(9), mine]
    busy = [hog(7, disk_bytes_per_s=2e8, cpu_percent=20.0, state="uninterruptible"), stuck, hog(9, pageins_per_s=90.0), mine]
    full = {"pressure_io_full_ms_per_s": 900.0, "pressure_io_some_ms_per_s": 950.0}
    (pause,), _ = played(tmp_path / "x.db", ticks_of(
        [*before(4, *calm), *[[*map(dict, busy)] for _ in range(9)], *before(30, *calm)], dict.fromkeys(range(4, 13), full)))
    assert (pause["cause"], pause["culprits"][0]["command"], pause["culprits"][0]["resource"]) == ("io", "hog7", "disk")
    assert pause["culprits"][0]["amount"] == pytest.approx(2e8 * 3, rel=0.02)
    one = asked(tmp_path / "x.db", pause)
    assert (one["cause"], one["pid"], one["causes"][0]["total"]) == ("io", 7, pause["culprits"][0]["amount"])


def test_memory_that_grew(tmp_path: Path) -> None:
    """All tasks waited for memory: the one that took it, not the one that has long held more."""
    calm = [hog(7, memory_bytes=GIB), hog(8, memory_bytes=4 * GIB)]
    grown = [hog(7, memory_bytes=9 * GIB, cpu_percent=10.0), hog(8, memory_bytes=4 * GIB)]
    short = {**LATE, "pressure_memory_full_ms_per_s": 600.0, "pressure_memory_some_ms_per_s": 700.0,
             "memory_available_bytes": GIB // 2}
    (pause,), _ = played(tmp_path / "x.db", ticks_of([*before(8, *calm), grown, *before(9, *grown)], {8: short}))
    assert [(c["command"], c["resource"], c["amount"]) for c in pause["culprits"][:1]] == [("hog7", "memory", 8 * GIB)]
    assert "unexplained_share" not in pause
    assert asked(tmp_path / "x.db", pause)["pid"] == 7


def test_several_of_one_name_are_each_named(tmp_path: Path) -> None:
    """Loops whose parent is not known: each is a culprit with its own amount, ahead of all others."""
    loops = [row(pid, command="loop", cmdline="/bin/loop", ppid=50, unit="loops") for pid in (7, 8)]
    calm = [*loops, hog(9)]
    busy = [*({**each, "cpu_percent": 90.0, "run_delay_ms_per_s": 100.0} for each in loops),
            hog(9, cpu_percent=5.0, run_delay_ms_per_s=900.0)]
    (pause,), _ = played(tmp_path / "x.db", ticks_of([*before(8, *calm), busy, *before(9, *calm)], {8: {**LATE, **CPU}}))
    assert [c["pid"] for c in pause["culprits"][:2]] in ([7, 8], [8, 7])
    assert all(c["amount"] == pytest.approx(0.9 * 2.333, abs=0.01) and c["share"] == pytest.approx(0.9 / 1.9, abs=0.01)
               and c["name"] == "loop" for c in pause["culprits"][:2])
    one = asked(tmp_path / "x.db", pause)
    assert one["command"] == "loop"


@pytest.mark.parametrize("more", [
    {"continued": 1}, {"cpu_steal_cores": 1.0}, {"self_throttled_ms": 1900.0}, {"self_run_delay_ms": 1.0}])
def test_a_pause_that_is_nobodys_fault(tmp_path: Path, more: dict[str, Any]) -> None:
    """Stopped, the hypervisor, the quota of rh-pipe, without evidence: no process is named."""
    busy = [hog(7, cpu_percent=150.0)]
    (pause,), _ = played(tmp_path / "x.db", ticks_of([*before(8, hog(7)), busy, busy], {8: {**LATE, **CPU, **more}}))
    assert (pause["culprits"], "unexplained_share" in pause) == ([], False)


def test_many_small_ones_are_not_accused(tmp_path: Path) -> None:
    """Thirty with three percent each: none of them is the culprit."""
    calm = [hog(pid) for pid in range(10, 40)]
    busy = [hog(pid, cpu_percent=6.0, run_delay_ms_per_s=100.0) for pid in range(10, 40)]
    (pause,), _ = played(tmp_path / "x.db", ticks_of([*before(8, *calm), busy, busy], {8: {**LATE, **CPU}}))
    assert pause["culprits"] == [] and "pid" not in asked(tmp_path / "x.db", pause)


def test_a_pause_has_slices_of_its_own(tmp_path: Path) -> None:
    """The slice of a late beat is that beat; the one before ends, and the one after begins, where it does."""
    _, history = played(tmp_path / "x.db", ticks_of([[hog(cpu_percent=1.0)]] * 20, {5: {**LATE, **CPU}}))
    machine = [each for each in history.slicer.recent() if each["type"] == "machine_slice"]
    ends = [(round(each["slice"] - START, 2), round(each["seconds"], 2), each["late_s"]) for each in machine]
    assert (1.67, 2.33, 2.0) in ends and len({each["slice"] for each in machine}) == len(machine)
    assert all(a["slice"] + a["seconds"] <= b["slice"] + 0.34 for a, b in pairwise(machine))
    assert sum(each["seconds"] for each in machine) == pytest.approx(19 * 0.333333 + 2.333, abs=0.01)


def test_what_is_wrong_now_in_a_few_words(tmp_path: Path) -> None:
    """For the status line of the service: the verdict's name; nothing on a quiet machine."""
    busy = [hog(7, cpu_percent=180.0, run_delay_ms_per_s=5.0), hog(8, cpu_percent=15.0, run_delay_ms_per_s=700.0)]
    ticks = ticks_of(before(40, *busy), {n: {**CPU, "self_run_delay_ms": 1.0} for n in range(40)})
    _, history = played(tmp_path / "x.db", ticks)
    assert ticks[-1].row is not None
    assert now_words(history.slicer.recent(), ticks[-1].row["ts"]) == "cpu: hog7 (pid 7)"
    _, calm = played(tmp_path / "y.db", ticks_of(before(40, hog(7)), {}))
    assert now_words(calm.slicer.recent(), ticks[-1].row["ts"]) == ""
