"""Slices of five seconds: sums that agree with the ticks, identities, units, floors, and what ends a slice early."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.slices import KEPT, MEMORY_LEAST, Slicer
from tests.tools.ticks import GIB, START, Machine, row, stream

CONFIG = Config()


def run(ticks: Iterable[Tick]) -> tuple[list[Record], History]:
    """All slice records, and the history that made them."""
    made = History(CONFIG)
    records = [each for tick in chain(ticks, made) for each in tick.records]
    return [each for each in records if each["type"].endswith("_slice")], made


def of(records: Iterable[Record], kind: str, **fields: Any) -> list[Record]:
    return [r for r in records if r["type"] == kind and all(r.get(n) == v for n, v in fields.items())]


def ticks_of(*rows: Row, count: int = 45, **fields: Any) -> list[Tick]:
    """`count` ticks in which every row is new, as that of an active process is."""
    return list(stream([[{**r, "cpu_seconds_total": float(i)} for r in rows] for i in range(count)], **fields))


def test_sums_agree_with_the_ticks() -> None:
    """A core for 15 s is 15 CPU seconds over the slices, and every tick is in one of them."""
    made, _ = run(ticks_of(row(7, cpu_percent=100.0)))
    machine = of(made, "machine_slice")
    assert sum(m["ticks"] for m in machine) == 45
    assert sum(m["seconds"] for m in machine) == pytest.approx(15, abs=0.01)
    assert all(m["slice"] % 5 == 0 for m in machine[1:])
    assert sum(p["cpu_seconds"] for p in of(made, "process_slice", pid=7)) == pytest.approx(15, abs=0.01)


def test_a_row_that_stays_the_same_counts_in_each_tick() -> None:
    """A process that uses exactly as much in each tick keeps its row object; its use counts all the same."""
    same = row(7, cpu_percent=50.0)
    made, _ = run(stream([[same]] * 30))
    assert sum(p["cpu_seconds"] for p in of(made, "process_slice", pid=7)) == pytest.approx(5, abs=0.01)
    slicer = Slicer(45)
    for tick in stream([[same]] * 6):
        slicer.add(tick, tick.row or {})
    (now,) = of(slicer.current(), "process_slice")
    assert now["cpu_seconds"] == pytest.approx(1, abs=0.01), "the running slice too, whenever it is asked for"


def test_two_processes_of_one_name_are_two_rows() -> None:
    """A slice row belongs to an identity: one name and one pid do not make one process."""
    made, _ = run(ticks_of(row(7, 10, command="sh", cpu_percent=50.0), row(8, 11, command="sh", cpu_percent=30.0)))
    assert {(p["pid"], p["start_ticks"]) for p in of(made, "process_slice", command="sh")} == {(7, 10), (8, 11)}


def test_children_are_apart() -> None:
    """The use of ended children is kept apart from a process's own, for CPU and for disk."""
    made, _ = run(ticks_of(row(7, cpu_percent=10.0, children_cpu_percent=80.0, children_disk_bytes_per_s=3e6)))
    first = of(made, "process_slice", pid=7)[1]
    assert first["cpu_seconds"] == pytest.approx(0.5, abs=0.05)
    assert first["children_cpu_seconds"] == pytest.approx(4.0, abs=0.3)
    assert first["children_disk_bytes"] == pytest.approx(15e6, rel=0.1) and first["disk_bytes"] == 0


def test_what_is_not_known_is_left_out() -> None:
    """Without readable I/O there is no disk_bytes; 0 means measured and none."""
    made, _ = run(ticks_of(row(7, cpu_percent=50.0, disk_bytes_per_s=None), row(8, cpu_percent=50.0)))
    assert all("disk_bytes" not in p for p in of(made, "process_slice", pid=7))
    assert all(p["disk_bytes"] == 0 for p in of(made, "process_slice", pid=8))
    assert all("gpu_seconds" not in p and "children_cpu_seconds" not in p for p in of(made, "process_slice"))


def test_growth_of_memory() -> None:
    """What was allocated in the slice: of an old process against the slice before, of a new one all of it."""
    rows = [[row(7, memory_bytes=(1 + i) << 24)] + ([row(9, START_OF_9, start_time=START + 20 / 3, memory_bytes=GIB)]
                                                     if i >= 21 else []) for i in range(45)]
    made, _ = run(stream(rows))
    assert sum(p["memory_growth_bytes"] for p in of(made, "process_slice", pid=7)) == pytest.approx(44 << 24)
    assert sum(p["memory_growth_bytes"] for p in of(made, "process_slice", pid=9)) == GIB


START_OF_9 = 100_667


def test_growth_of_one_that_was_killed() -> None:
    """A program that the kernel kills for want of memory holds none afterwards, and took it all the same."""
    grows = [[row(7, 7, memory_bytes=(n + 1) * 10 * MEMORY_LEAST)] for n in range(6)]
    dead = [[row(7, 7, state="defunct", memory_bytes=0)]] * 3
    made, _ = run(stream([[row(8)], *grows, *dead]))
    assert of(made, "process_slice", pid=7)[0]["memory_growth_bytes"] == 60 * MEMORY_LEAST


def test_waiting_states_are_timed() -> None:
    """A process in D state for the whole slice is listed though it uses nothing, with its state; so is a stopped one."""
    blocked, stopped = row(7, state="uninterruptible"), row(8, state="stopped")
    made, _ = run(stream([[blocked, stopped]] * 45))
    found = of(made, "process_slice", pid=7)
    assert found and all(p["state"] == "uninterruptible" for p in found)
    assert sum(p["uninterruptible_s"] for p in found) == pytest.approx(15, abs=0.1)
    assert of(made, "process_slice", pid=8)[0]["stopped_s"] > 0
    assert all(m["uninterruptible"] == 1 for m in of(made, "machine_slice"))


def test_an_idle_machine_has_machine_rows_only() -> None:
    """200 idle processes: no process row but the holders of memory, and those once a minute."""
    idle = [row(100 + i, memory_bytes=MEMORY_LEAST + (i << 20)) for i in range(200)]
    made, _ = run(stream([idle] * 540))
    assert len(of(made, "machine_slice")) >= 36
    assert len(of(made, "process_slice")) <= 6 * 4


def test_a_group_short_of_memory_lists_who_holds_it() -> None:
    """The machine has memory left, but a control group waits for it: the process that fills it does nothing any more."""
    rows = [row(7, command="greedy", memory_bytes=800 << 20), row(8, command="reader", cpu_percent=60.0)]

    def holder(waited: float) -> list[Record]:
        made, _ = run(ticks_of(*rows, count=90, pressure_memory_some_ms_per_s=waited))
        return of(made, "process_slice", pid=7)

    assert all(one["memory_bytes"] == 800 << 20 for one in holder(20.0))
    assert (len(holder(20.0)), len(holder(1.0))) == (6, 1)      # in each slice; once a minute


def test_a_unit_is_the_sum_of_all_its_processes() -> None:
    """Thirty small processes of one unit: its row has the sum over all of them, listed or not, and its root."""
    made, _ = run(ticks_of(*(row(100 + i, 50 + i, unit="job[100]", command=f"w{i}", cpu_percent=6.0) for i in range(30))))
    group = of(made, "group_slice", unit="job[100]")[1]
    assert (group["processes"], group["pid"], group["start_ticks"]) == (30, 100, 50)
    assert group["cpu_seconds"] == pytest.approx(9, abs=0.7)
    assert group["memory_bytes"] == 30 << 20


def test_a_program_that_starts_rogue_hunter_does_not_use_what_that_uses() -> None:
    """S4: a runner with rh-report and rh-pipe below it, and with two workers."""
    own = [row(100 + i, unit="runner[7]", command="rh-report", ppid=7, own=True, cpu_percent=50.0) for i in range(3)]
    work = [row(200 + i, unit="runner[7]", command="worker", ppid=7, cpu_percent=5.0) for i in range(2)]
    made, _ = run(ticks_of(row(7, command="python3", name="runner", unit="runner[7]", cmdline="python3 runner"), *own, *work))
    groups = of(made, "group_slice", unit="runner[7]")
    assert groups and all(one["cpu_seconds"] <= 0.6 for one in groups)


def test_a_unit_of_one_process_has_no_row() -> None:
    """Its process row says it all."""
    made, _ = run(ticks_of(row(7, unit="a.service", cpu_percent=90.0)))
    assert of(made, "group_slice") == []


@pytest.mark.parametrize(("cmdline", "listed"), [("bash fanout.sh", True), ("-bash", False)])
def test_a_script_is_listed_with_all_its_children(cmdline: str, listed: bool) -> None:
    """Thirty programs of thirty names, each a unit of its own; what is started at a prompt has nothing in common."""
    loops = [row(100 + n, command=f"job_{n}", ppid=7, unit=f"job_{n}[{100 + n}]", cpu_percent=6.0) for n in range(30)]
    made, _ = run(ticks_of(row(7, command="bash", name="fanout.sh", cmdline=cmdline), *loops))
    groups = of(made, "group_slice", unit="fanout.sh[7]")
    assert bool(groups) == listed
    assert all(g["pid"] == 7 and g["processes"] >= 30 for g in groups)
    assert sum(g["cpu_seconds"] for g in groups) == pytest.approx(27.0 if listed else 0.0, abs=0.1)


def test_a_script_that_ends_with_its_children_is_listed_in_the_last_slice_too() -> None:
    """It waits for them and does nothing itself: in the slice of its end it is known by nothing else."""
    script = row(7, command="bash", name="fanout.sh", cmdline="bash fanout.sh")
    work = [[script, *(row(100 + n, command=f"job_{n}", ppid=7, unit=f"job_{n}[{100 + n}]", cpu_percent=20.0,
                           cpu_seconds_total=float(i)) for n in range(9))] for i in range(25)]
    made, _ = run(stream([*work, *[[row(8)]] * 15]))
    assert [g["slice"] - START for g in of(made, "group_slice", unit="fanout.sh[7]")][1:] == [5.0]


def test_a_family_reaches_down_to_the_children_of_its_shells() -> None:
    """A scheduler starts shells that start gzip, below a runner of which it is nearly all: the scheduler is listed."""
    rows = [row(7, command="python3", name="crond.py", ppid=6, unit="crond.py[7]"),
            row(6, command="python3", name="runner.py", ppid=1, unit="runner.py[6]", cpu_percent=3.0)]
    for n in range(20):
        rows += [row(100 + n, command="sh", cmdline="sh -c gzip", ppid=7, unit="crond.py[7]"),
                 row(200 + n, command="gzip", ppid=100 + n, unit=f"gzip[{200 + n}]", cpu_percent=8.0)]
    made, _ = run(ticks_of(*rows))
    assert {g["unit"] for g in of(made, "group_slice")} >= {"crond.py[7]"}
    assert not of(made, "group_slice", unit="runner.py[6]")
    groups = of(made, "group_slice", unit="crond.py[7]")
    assert all((g["pid"], g["name"]) == (7, "gzip") or g["pid"] == 7 for g in groups)
    assert sum(g["cpu_seconds"] for g in groups) == pytest.approx(24.0, abs=0.1)


def test_storms_are_counted() -> None:
    """A unit that starts processes all the time is listed for it, those that have ended among its processes."""
    shell = row(7, 1, unit="storm[7]", command="sh")
    rows = [[shell] + [row(1000 + 3 * i + n, 100 + i, unit="storm[7]", ppid=7, cpu_percent=5.0) for n in range(3)]
            for i in range(45)]
    made, _ = run(stream(rows))
    group = of(made, "group_slice", unit="storm[7]")[1]
    assert group["started"] == pytest.approx(45, abs=3) and group["processes"] == pytest.approx(46, abs=4)
    assert group["pid"] == 7


@pytest.mark.parametrize("broken", [{"clock_step_s": 7200.0}, {"asleep_s": 30.0}, {"interval_s": 8.0}])
def test_a_break_ends_the_slice_early(broken: dict[str, float]) -> None:
    """A set clock, a suspension, a gap: what was before is a slice of its own, and the break is in the next one."""
    ticks = ticks_of(row(7, cpu_percent=50.0), count=12)
    last = ticks[7].row
    assert last is not None
    last.update(broken)
    made, _ = run(ticks)
    machine = of(made, "machine_slice")
    cut = next(n for n, m in enumerate(machine) if any(m.get(name) == value for name, value in broken.items())
               or ("interval_s" in broken and m["seconds"] > 8))
    assert cut >= 1 and sum(m["ticks"] for m in machine[:cut]) == 7
    assert sum(m["seconds"] for m in machine[:cut]) == pytest.approx(7 / 3, abs=0.01)


def test_no_two_slices_begin_at_the_same_time() -> None:
    """A tick that ends at the multiple is a slice that begins there, and so does that of the pause after it; in the
    store they were one, and the pause's culprits had other shares than the answer about the same time."""
    ticks = ticks_of(row(7, cpu_percent=50.0), count=17)
    pause = ticks[16].row
    assert pause is not None and ticks[15].row is not None and ticks[15].row["ts"] == START + 5
    pause.update(ts=START + 6.7, interval_s=1.7)
    ticks[16].records.append({"type": "pause", "start": START + 5.34, "end": START + 6.7, "duration_s": 1.36, "cause": "cpu"})
    made, _ = run(ticks)
    begins = [(m["slice"], m["seconds"]) for m in of(made, "machine_slice")]
    assert begins[-2:] == [(START + 5, 0.333), (START + 5.001, 1.7)]


def test_another_boot_has_slices_of_its_own() -> None:
    """A recording that spans a restart of the machine: nothing of before is in the new slice."""
    ticks = ticks_of(row(7, cpu_percent=50.0), count=4) + ticks_of(row(7, cpu_percent=50.0), count=4, boot_id="b2")
    made, _ = run(ticks)
    assert {m["boot_id"]: m["ticks"] for m in of(made, "machine_slice")} == {ticks[0].row["boot_id"]: 4, "b2": 4}  # type: ignore[index]


def test_the_first_tick_is_never_late() -> None:
    """Describing thousands of processes at the start makes the first beat late: that is no lateness of the machine."""
    ticks = ticks_of(row(7, cpu_percent=50.0), count=3, late_s=0.1)
    assert ticks[0].row is not None
    ticks[0].row["late_s"] = 3.3
    made, _ = run(ticks)
    assert of(made, "machine_slice")[0]["late_s"] == 0.1


def test_recent_slices_are_in_memory() -> None:
    """The running slice can be asked for at any time, with the last complete ones; asking changes nothing."""
    made = History(CONFIG)
    seen: list[Record] = []
    for tick in ticks_of(row(7, cpu_percent=50.0), count=895):
        assert tick.row is not None
        seen += made(tick).records
        made.slicer.recent()
    recent = of(made.slicer.recent(), "machine_slice")
    assert len(recent) == KEPT + 1 and recent[-1]["seconds"] < 5
    assert recent[:-1] == of(seen, "machine_slice")[-KEPT:]


def test_any_machine_fits_the_declared_records() -> None:
    """Each record of a machine that a seed decides has declared fields of the declared types only."""
    machine = Machine(3)
    made, _ = run(machine.tick() for _ in range(400))
    assert of(made, "process_slice") and of(made, "machine_slice")
    for each in made:
        wire.check(each["type"], {name: value for name, value in each.items() if name not in ("type", "v")})


def test_children_that_are_not_waited_for_are_credited_to_their_parent() -> None:
    """A supervisor that ignores SIGCHLD: its children's CPU time is in no counter, but the kernel reports their exits.
    A parent that waits has its children's time already, and gets nothing more. What is credited is attributed."""
    machine = {"unattributed_cpu_cores": 0.8, "cpu_busy_cores": 1.0, "cpus": 2}
    quick = {"pid": 7, "start_ticks": 1, "command": "supervise", "cpu_percent": 5.0, "children_cpu_percent": 0.0,
             "children_exited": 40, "children_failed": 40}
    waits = {"pid": 8, "start_ticks": 1, "command": "make", "cpu_percent": 5.0, "children_cpu_percent": 60.0,
             "children_exited": 30}
    slicer = Slicer(45)
    for second in range(1, 5):
        rows = {(7, 1): dict(quick), (8, 1): dict(waits)}
        closing = {"ts": 1000.0 + second, "mono_ns": second * 10**9, "boot_id": "b", "interval_s": 1.0, **machine}
        slicer.add(Tick(closing, rows, set(rows)), closing)
    for _ in range(2):      # asked twice, the answer is the same
        by = {one["pid"]: one for one in slicer.current() if one["type"] == "process_slice"}
        assert by[7]["children_cpu_seconds"] == pytest.approx(0.8 * by[7]["seconds"], rel=0.01)
        assert by[8]["children_cpu_seconds"] == pytest.approx(0.6 * by[8]["seconds"], rel=0.01)
        assert by[7]["children"] == 160
        assert [one["unattributed_cpu_cores"] for one in slicer.current() if one["type"] == "machine_slice"] == [0.0]
