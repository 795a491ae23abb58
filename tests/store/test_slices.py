"""Slices in the database: what is written is what the views give, and a day of them stays small."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.store.database import open_reader, open_writer
from rogue_hunter.store.prune import files_size, prune
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.writer import BURST_BYTES, SliceBudget, Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Tick, record
from rogue_hunter.tracking.minutes import History
from tests.tools.slices import FIRST, busy_day, group, idle_day, machine, process, usual_day
from tests.tools.ticks import BOOT, START, Machine

CONFIG = Config()
def write(path: Path, batches: Iterable[list[Record]]) -> list[str]:
    said: list[str] = []
    writer = Writer(path, CONFIG.store, lambda: START, said.append)
    for batch in batches:
        writer.take(Tick(records=batch))
    writer.close()
    assert writer.dropped == 0
    return said


def read(path: Path, kind: str) -> list[Record]:
    with open_reader(path) as reader:
        return [record(kind, **{k: row[k] for k in row.keys()})  # noqa: SIM118
                for row in reader.execute(f"SELECT * FROM v_{kind}s")]


def test_what_is_written_is_what_the_views_give(tmp_path: Path) -> None:
    """Every field of every record comes back, with the identity of the boot and seconds as seconds."""
    made = [machine(FIRST), process(FIRST, 7, cmdline="short", own=True, name="x.py"), group(FIRST, "u[77]")]
    assert write(tmp_path / "x.db", [made]) == []
    for each in made:
        assert read(tmp_path / "x.db", each["type"]) == [each]


def test_a_machine_through_the_stage_and_back(tmp_path: Path) -> None:
    """What the stage makes of a machine that a seed decides is what the views give; waits and limits are stored too."""
    made = History(CONFIG)
    source = Machine(7)
    records = [each for tick in chain((source.tick() for _ in range(200)), made) for each in tick.records
               if each["type"].endswith("_slice")]
    wait = record("wait", ts=FIRST, boot_id=BOOT, kind="file_lock", object="/tmp/x", since_s=3.0, holder_pid=7,
                  holder_start_ticks=1, holder="sleep", waiters=[{"pid": 8}], certainty="proven")
    limit = record("limit", ts=FIRST, boot_id=BOOT, kind="cpu_quota", cgroup="/a", limit=0.2, use=0.2, held_back_s=4.0)
    write(tmp_path / "x.db", [[*records, wait, limit]])
    for kind in ("process_slice", "group_slice"):
        want = [{k: v for k, v in each.items() if k != "cmdline"} for each in records if each["type"] == kind]
        have = [{k: v for k, v in each.items() if k != "cmdline"} for each in read(tmp_path / "x.db", kind)]
        names = ("slice", "pid", "unit", "cpu_seconds", "memory_bytes", "rogue_s", "max_score")
        assert sorted(map(repr, ([e.get(n) for n in names] for e in have))) == \
            sorted(map(repr, ([e.get(n) for n in names] for e in want)))
    with open_reader(tmp_path / "x.db") as reader:
        assert reader.execute("SELECT holder, waiters FROM waits").fetchall()[0][:] == ("sleep", '[{"pid":8}]')
        assert tuple(reader.execute('SELECT kind, "limit" FROM limits').fetchone()) == ("cpu_quota", 0.2)


def test_a_process_that_changes_is_described_as_it_is_now(tmp_path: Path) -> None:
    """After exec the same identity has another command; what is not known any more stays."""
    write(tmp_path / "x.db", [[machine(FIRST), process(FIRST, 7, command="sh", name="a.sh")],
                              [machine(FIRST + 5), process(FIRST + 5, 7, command="worker", name=None)]])
    assert [(p["command"], p["name"]) for p in read(tmp_path / "x.db", "process_slice")] == [("worker", "a.sh")] * 2


def test_the_first_parent_of_a_process_is_kept(tmp_path: Path) -> None:
    """When the parent ends, process 1 is the parent, which did not start it."""
    write(tmp_path / "a.db", [[machine(START), process(START, 7, ppid=5)],
                              [machine(START + 5), process(START + 5, 7, ppid=1)]])
    assert [one["ppid"] for one in read(tmp_path / "a.db", "process_slice")] == [5, 5]


def test_quiet_slices_of_a_minute_are_one_row(tmp_path: Path) -> None:
    """Averages by time, extremes, sums; a slice with waits is a row of its own."""
    calm = {"pressure_cpu_some_ms_per_s": 1.0, "pressure_io_some_ms_per_s": 0.0, "uninterruptible": 0}
    batches = [[machine(FIRST + 5 * n, **calm, cpu_busy_cores=0.1 * n, self_run_delay_ms=1.0)] for n in range(12)]
    batches[6] = [machine(FIRST + 30)]
    write(tmp_path / "x.db", batches)
    rows = read(tmp_path / "x.db", "machine_slice")
    assert [(r["slice"] - FIRST, r["seconds"], r["ticks"]) for r in rows] == [(0, 30, 90), (30, 5, 15), (35, 25, 75)]
    assert rows[0]["cpu_busy_cores"] == pytest.approx(0.25) and rows[0]["self_run_delay_ms"] == pytest.approx(6)


@pytest.mark.slow
@pytest.mark.parametrize("day", [busy_day, usual_day])
def test_a_busy_day_takes_20_MB_at_most(tmp_path: Path, day: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Two hours at the limit, once the burst is used up, times twelve, and the burst. The first of each is always kept."""
    before = 720
    batches = list(day(before + 1440))
    write(tmp_path / "x.db", batches[:before])
    first = files_size(tmp_path / "x.db")
    budget = SliceBudget()
    budget._left = 0.0
    connection, _ = open_writer(tmp_path / "x.db")
    connection.execute("BEGIN")
    for batch in batches[before:]:
        for each in budget.chosen(batch):
            WRITES[each["type"]](connection, each)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    each = connection.execute("SELECT count(*) * 1.0 / count(DISTINCT slice) FROM process_slices").fetchone()[0]
    connection.close()
    grown = 12 * (files_size(tmp_path / "x.db") - first) + BURST_BYTES
    with capsys.disabled():
        print(f"\n{day.__name__}: {grown / 1e6:.1f} MB a day, {each:.1f} processes a slice")
    assert grown <= 20e6
    assert {p["pid"] for p in read(tmp_path / "x.db", "process_slice")} >= {batches[-1][1]["pid"]}


@pytest.mark.slow
def test_an_idle_day_takes_3_MB_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole day of 17,280 slices."""
    open_writer(tmp_path / "x.db")[0].close()
    empty = files_size(tmp_path / "x.db")
    connection, _ = open_writer(tmp_path / "x.db")
    budget = SliceBudget()
    connection.execute("BEGIN")
    for batch in idle_day():
        for each in budget.chosen(batch):
            WRITES[each["type"]](connection, each)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    grown = files_size(tmp_path / "x.db") - empty
    with capsys.disabled():
        print(f"\nidle day: {grown / 1e6:.2f} MB")
    assert grown <= 3e6


def test_slices_are_pruned_earlier_than_the_rest(tmp_path: Path) -> None:
    """After two days; minutes stay, with the processes and units that they name, and go with the rest by age."""
    hour = 3600.0
    write(tmp_path / "x.db", [[machine(FIRST + n * hour), process(FIRST + n * hour, n, cmdline="a"),
                               group(FIRST + n * hour, f"u{n}"),
                               record("machine_minute", minute=int(FIRST + n * hour), boot_id=BOOT, ticks=1, seconds=60.0)]
                              for n in range(72)])
    connection, _ = open_writer(tmp_path / "x.db")
    list(prune(connection, 0.0, 1 << 40, 20, fine_before=FIRST + 24 * hour))

    def counts(*names: str) -> set[int]:
        return {connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}

    fine = ("machine_slices", "process_slices", "group_slices")
    coarse = ("machine_minutes", "process_minutes", "group_minutes", "slice_processes", "slice_units")
    assert (counts(*fine), counts(*coarse)) == ({48}, {72})
    list(prune(connection, FIRST + 36 * hour, 1 << 40, 20, fine_before=FIRST + 24 * hour))
    assert (counts(*fine), counts(*coarse[:3])) == ({36}, {36}) and counts(*coarse[3:]) <= {36, 37}
    connection.close()
