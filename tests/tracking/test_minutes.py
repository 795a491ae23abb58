"""The history by minute: sums that agree with the ticks, top lists, and what they cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.tracking.minutes import LEAST, History
from tests.tools.ticks import GIB, START, Machine, row, stream

CONFIG = Config()
FIRST = int(START // 60) * 60


def run(ticks: Iterator[Tick]) -> tuple[list[Record], list[Record]]:
    """Machine and command records of all minutes."""
    made = [r for t in chain(ticks, Score(CONFIG), History(CONFIG)) for r in t.records]
    return ([r for r in made if r["type"] == "machine_minute"], [r for r in made if r["type"] == "command_minute"])


def hog(i: int, **more: Any) -> Row:
    return row(7, command="hog", cpu_percent=100.0, cpu_seconds_total=i / 3, **more)


def test_sums_agree_with_what_was_used() -> None:
    """A core for 90 s is 90 CPU seconds over the minutes; every tick and second is in one of them."""
    machine, commands = run(stream([[hog(i), row(8)] for i in range(270)]))
    assert sum(m["ticks"] for m in machine) == 270
    assert sum(m["seconds"] for m in machine) == pytest.approx(90, abs=0.01)
    assert [m["minute"] % 60 for m in machine] == [0] * len(machine)
    assert sum(c["cpu_seconds"] for c in commands if c["command"] == "hog") == pytest.approx(90, abs=0.01)
    assert sum(c["rogue_s"] for c in commands if c["command"] == "hog") == pytest.approx(90, abs=0.2)


def test_a_command_is_all_of_its_processes() -> None:
    """Ten small processes of one name are one command, with the pid of the busiest."""
    rows = [row(pid, command="worker", cpu_percent=float(pid), cpu_seconds_total=1.0, memory_bytes=1 << 24)
            for pid in range(10, 20)]
    _, commands = run(stream([[{**r, "cpu_seconds_total": i} for r in rows] for i in range(3)]))
    (worker,) = [c for c in commands if c["command"] == "worker"]
    assert (worker["processes"], worker["pid"], worker["memory_bytes"]) == (10, 19, 10 << 24)
    assert worker["cpu_seconds"] == pytest.approx(1.45, abs=0.01)


def test_a_foreign_program_with_a_name_of_ours_counts_by_itself() -> None:
    """Minutes of rogue-hunter itself are never a cause; those of a program that is only called rh-pipe may be."""
    rows = [row(10, command="rh-pipe", cpu_percent=1.0, own=True), row(11, command="rh-pipe", cpu_percent=90.0)]
    _, commands = run(stream([[{**r, "cpu_seconds_total": i} for r in rows] for i in range(30)]))
    used = {c["command"]: c["cpu_seconds"] for c in commands}
    assert used == {"rh-pipe (other)": pytest.approx(9.0, abs=0.1), "rh-pipe": pytest.approx(0.1, abs=0.01)}


def test_memory_of_a_command_is_never_above_the_machines() -> None:
    """Pages that parent and children share are in the sum of each."""
    rows = [row(pid, command="worker", cpu_percent=1.0, memory_bytes=9 * GIB) for pid in range(10, 14)]
    _, commands = run(stream([[{**r, "cpu_seconds_total": i} for r in rows] for i in range(3)]))
    assert [c["memory_bytes"] for c in commands if c["command"] == "worker"] == [16 * GIB]


def test_short_lived_children_count_for_their_parent() -> None:
    """children_cpu_percent is the command's CPU time too."""
    _, commands = run(stream([[row(7, command="sh", cpu_percent=10.0, children_cpu_percent=80.0, cpu_seconds_total=i)]
                              for i in range(30)]))
    assert commands[0]["command"] == "sh"
    assert sum(c["cpu_seconds"] for c in commands) == pytest.approx(9, abs=0.05)


def test_top_lists_are_by_each_resource() -> None:
    """The largest holder of memory and the busiest writer are kept though they use no CPU; small fry is not."""
    rows = [row(100 + i, command=f"cpu{i}", cpu_percent=50.0 + i) for i in range(9)]
    rows += [row(200, command="db", memory_bytes=4 * GIB)]
    rows += [row(201, command="dd", disk_bytes_per_s=5e7, cpu_percent=0.1)]
    rows += [row(300 + i, command=f"small{i}") for i in range(50)]
    _, commands = run(stream([[{**r, "cpu_seconds_total": i} for r in rows] for i in range(9)]))
    names = {c["command"] for c in commands}
    assert {"cpu4", "cpu5", "cpu6", "cpu7", "cpu8", "db", "dd"} <= names
    assert not any(name.startswith("small") for name in names)


def test_pauses_are_counted_in_their_minute() -> None:
    """Pause records of the ticks are summed up in the machine's row."""
    ticks = list(stream([[row(7)]] * 6))
    ticks[3].records.append({"type": "pause", "v": 1, "duration_s": 2.5})
    made = [r for t in chain(ticks, History(CONFIG)) for r in t.records if r["type"] == "machine_minute"]
    assert (made[0]["pauses"], made[0]["pause_s"]) == (1, 2.5)


def test_a_gap_of_an_hour_does_not_fill_a_minute() -> None:
    """After a suspension the first tick's rate is not counted for the hour: a minute has at most a minute."""
    ticks = list(stream([[hog(i)] for i in range(3)]))
    assert ticks[2].row is not None
    ticks[2].row["interval_s"] = 3600.0
    machine, _ = run(iter(ticks))
    assert all(m["seconds"] <= 61 for m in machine)


def test_another_boot_begins_another_row() -> None:
    """A reboot within a minute gives two rows, one a boot."""
    first, second = list(stream([[hog(i)] for i in range(3)])), list(stream([[hog(i)] for i in range(3)], boot_id="b2"))
    machine, _ = run(iter(first + second))
    assert [m["boot_id"] for m in machine] == [first[0].row["boot_id"], "b2"]  # type: ignore[index]


def test_a_minute_cut_in_two_by_a_restart_is_added_up(tmp_path: Path) -> None:
    """Two runs in one minute: its row has the command's use of both."""
    for _ in range(2):
        writer = Writer(tmp_path / "x.db", CONFIG.store, lambda: START, [].append)
        for tick in chain(stream([[hog(i)] for i in range(30)]), Score(CONFIG), History(CONFIG)):
            writer.take(tick)
        writer.close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        ((total,),) = connection.execute("SELECT sum(cpu_seconds) FROM command_minutes WHERE command = 'hog'")
        ((ticks, seconds, busy),) = connection.execute("SELECT ticks, seconds, cpu_busy_cores FROM machine_minutes")
    assert total == pytest.approx(20, abs=0.1)
    assert (ticks, seconds, busy) == (60, pytest.approx(20, abs=0.01), 0.1)


def test_any_machine(tmp_path: Path) -> None:
    """A machine that a seed decides: rows fit the table, none is below the least in everything."""
    machine = Machine(5)
    made = list(chain((machine.tick() for _ in range(400)), Score(CONFIG), History(CONFIG)))
    writer = Writer(tmp_path / "x.db", CONFIG.store, lambda: START, [].append)
    for tick in made:
        writer.take(tick)
    writer.close()
    assert writer.dropped == 0
    for r in (r for t in made for r in t.records if r["type"] == "command_minute"):
        assert any((r.get(name) or 0) >= least for name, least in LEAST.items()), r
