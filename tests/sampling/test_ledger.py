"""The ledger of what reaped children used: each amount is credited once, to the process that used it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Row, Tick, lived
from tests.tools.ticks import START, row, stream

INTERVAL = 1.0


def proc(pid: int, ppid: int = 1, cpu: float = 0.0, kids: float = 0.0, disk: int = 0, **more: Any) -> Row:
    """A process of Linux with the counters that the ledger reads; `kids` is the CPU time of its reaped children."""
    usual: dict[str, Any] = {
        "ppid": ppid, "cpu_seconds_total": cpu, "children_cpu_seconds_total": kids, "pageins_total": 0,
        "children_pageins_total": 0, "children_faults_total": round(kids * 1000), "disk_write_bytes_total": disk,
        "disk_bytes_per_s": 0.0}
    return row(pid, pid * 10, **{**usual, **more})


def run(ticks: list[list[Row]], **closing: Any) -> list[dict[int, Row]]:
    """The rows by pid of each tick, one second apart."""
    made = chain(stream(ticks, **{"interval_s": INTERVAL, "cpus": 8, **closing}), Lineage())
    return [{k[0]: r for k, r in tick.processes.items()} for tick in made]


def test_disk_of_a_reaped_child_is_not_its_parents() -> None:
    """dd wrote 600 MB and was seen to; its shell, whose counters grow by as much when it ends, sleeps."""
    shell, loud = proc(50), proc(50, kids=0.5, disk=600_000_000, disk_bytes_per_s=6e8)
    dd = proc(60, 50, 0.5, disk=600_000_000, disk_bytes_per_s=6e8)
    _, _, after, later = run([[shell, proc(60, 50)], [shell, dd], [loud], [loud]])
    assert after[50]["disk_bytes_per_s"] == 0.0
    assert after[50]["disk_write_bytes_total"] == later[50]["disk_write_bytes_total"] == 0
    assert after[50].get("children_disk_bytes_per_s", 0.0) == 0.0


def test_disk_of_a_child_never_seen_is_its_parents_childrens() -> None:
    """What no row showed is credited to the parent, as use of its children."""
    _, after = run([[proc(50)], [proc(50, kids=0.1, disk=90_000_000, disk_bytes_per_s=9e7)]])
    assert (after[50]["disk_bytes_per_s"], after[50].get("children_disk_bytes_per_s", 0.0)) == (0.0, 9e7)
    assert after[50]["disk_write_bytes_total"] == 0


def test_own_disk_use_stays() -> None:
    """A process that reaped nothing wrote what its counters grew by."""
    _, after = run([[proc(50)], [proc(50, disk=5_000_000, disk_bytes_per_s=5e6)]])
    assert (after[50]["disk_bytes_per_s"], after[50].get("children_disk_bytes_per_s", 0.0)) == (5e6, 0.0)
    assert after[50]["disk_write_bytes_total"] == 5_000_000


def test_a_parent_that_ignores_its_children_keeps_its_own_disk_use() -> None:
    """With SIGCHLD ignored nothing is added to the parent, so nothing is subtracted from what it writes itself."""
    quiet, busy = proc(50), proc(50, disk=5_000_000, disk_bytes_per_s=5e6)
    child = proc(60, 50, 0.5, disk=600_000_000)
    _, after = run([[quiet, child], [busy]])
    assert after[50]["disk_bytes_per_s"] == 5e6


def test_macos_adds_no_disk_use_of_children() -> None:
    """macOS counts the disk I/O of a task only: the parent's counters are its own."""
    child = proc(60, 50, 0.5, disk=600_000_000)
    _, after = run([[proc(50), child], [proc(50, kids=0.5, disk=5_000_000, disk_bytes_per_s=5e6)]], os="macos")
    assert after[50]["disk_bytes_per_s"] == 5e6


def test_a_chain_that_ends_in_one_tick_is_not_the_waiting_shells() -> None:
    """bash -> timeout -> work, all gone between two ticks: work's 3 s were seen, so the shell is credited with none."""
    start = [proc(50), proc(60, 50), proc(61, 60), proc(62, 61, 0.1)]
    busy = [proc(50), proc(60, 50), proc(61, 60), proc(62, 61, 3.0, cpu_percent=100.0)]
    ticks = run([start, busy, [proc(50, kids=3.2)], [proc(50, kids=3.2)]])
    assert ticks[2][50].get("children_cpu_percent", 0.0) == 0.0
    assert ticks[2][62]["ended"] is True
    assert ticks[2][62]["cpu_percent"] == pytest.approx(20.0)
    assert 62 not in ticks[3]


def test_the_rest_of_a_seen_child_is_its_own() -> None:
    """A loop that ran for two ticks and ends in the third has a last row with what it still used."""
    ticks = run([[proc(50), proc(60, 50, 0.0)], [proc(50), proc(60, 50, 1.0, cpu_percent=100.0)],
                 [proc(50, kids=1.8)], [proc(50, kids=1.8)]], unattributed_cpu_cores=1.0)
    assert ticks[2][60]["cpu_percent"] == pytest.approx(80.0)
    assert ticks[2][60]["cpu_seconds_total"] == pytest.approx(1.8)
    assert ticks[2][50].get("children_cpu_percent", 0.0) == 0.0


def test_a_loop_of_short_children_is_the_shells() -> None:
    """Of a storm of children one is seen now and then; what the others used is not its, but the shell's."""
    young = proc(60, 50, 0.001, cpu_percent=90.0, start_time=START + 0.99)
    ticks = run([[proc(50)], [proc(50, kids=0.9), young], [proc(50, kids=1.9)]])
    assert ticks[2][50].get("children_cpu_percent", 0.0) == pytest.approx(100.0, abs=0.2)
    assert 60 not in ticks[2]


def test_a_service_that_is_stopped_whole_charges_no_other_process() -> None:
    """Its main process and 50 workers, reaped by process 1: neither the manager nor process 1 used that."""
    def service(cpu: float) -> list[Row]:
        return [proc(50, cpu=1.0, kids=10.0),
                *(proc(100 + i, 50, cpu, cpu_percent=10.0, disk=1000) for i in range(50))]

    whole = 1.0 + 10.0 + 50 * 2.0
    before, gone = [proc(1, 0), *service(1.9)], [proc(1, 0, kids=whole + 5.0, disk=60_000)]
    ticks = run([before, [proc(1, 0), *service(2.0)], gone, gone])
    assert ticks[2][1].get("children_cpu_percent", 0.0) == 0.0
    assert ticks[2][1]["disk_bytes_per_s"] == 0.0
    assert sum(r["cpu_percent"] for r in ticks[2].values() if r.get("ended")) == pytest.approx(500.0)


def test_an_orphan_that_a_manager_reaped_is_looked_for_above() -> None:
    """Parent and child end between two ticks, the parent first: the grandparent gets one, process 1 the other."""
    rows = [proc(1, 0), proc(50), proc(60, 50, 1.0), proc(70, 60, 2.0)]
    _, after = run([rows, [proc(1, 0, kids=2.0), proc(50, kids=1.0)]])
    assert after[1].get("children_cpu_percent", 0.0) == after[50].get("children_cpu_percent", 0.0) == 0.0


def test_a_parent_read_a_tick_late_is_waited_for() -> None:
    """Its child is gone in one tick, its counters have grown in the next: still the child's."""
    ticks = run([[proc(50), proc(60, 50, 2.0)], [proc(50)], [proc(50, kids=2.0, disk=7)], [proc(50, kids=2.5, disk=7)]])
    assert [made[50].get("children_cpu_percent") for made in ticks] == [None, None, None, 50.0]


def test_what_never_arrives_is_forgotten() -> None:
    """A parent without a known child owes nothing when it reaps others later."""
    shell = proc(50)
    ticks = run([[shell, proc(60, 50, 2.0)], *[[shell]] * 6, [proc(50, kids=0.5)]])
    assert ticks[-1][50].get("children_cpu_percent", 0.0) == 50.0


# -- property: over any history, what was credited is what was used --------------------------------------------------


@dataclass
class Simulated:
    """One process; `kids` holds what it reaped, `cpu`, `pageins` and `disk` are integers: 10 ms, faults and bytes."""

    pid: int
    start: float
    parent: Simulated | None
    cpu: int = 0
    pageins: int = 0
    disk: int = 0
    kids: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    children: list[Simulated] = field(default_factory=list)
    rate: tuple[int, int, int] = (0, 0, 0)


class Kernel:
    """Processes that spawn, work, exit and are reaped at random between ticks, as the kernel accounts for them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = START
        self.next_pid = 100
        self.init = Simulated(1, START - 1000, None)
        self.alive = [self.init]
        self.used = [0, 0, 0]
        self.seen: dict[int, tuple[Any, ...]] = {}
        for _ in range(6):
            self.spawn()

    def spawn(self) -> None:
        parent = self.random.choice(self.alive)
        made = Simulated(self.next_pid, self.now, parent)
        made.rate = self.random.choice([(0, 0, 0), (30, 0, 0), (100, 5, 4000), (20, 0, 900_000), (100, 0, 0)])
        self.next_pid += 1
        parent.children.append(made)
        self.alive.append(made)

    def work(self, seconds: float) -> None:
        for p in self.alive:
            amounts = [round(rate * seconds * self.random.uniform(0.5, 1.0)) for rate in p.rate]
            p.cpu, p.pageins, p.disk = p.cpu + amounts[0], p.pageins + amounts[1], p.disk + amounts[2]
            self.used = [a + b for a, b in zip(self.used, amounts, strict=True)]

    def exit(self, p: Simulated) -> None:
        """The process ends and is reaped at once; its children go to process 1."""
        if p is self.init:
            return
        self.alive.remove(p)
        for child in p.children:
            child.parent = self.init
            self.init.children.append(child)
        parent = p.parent
        assert parent is not None
        parent.children.remove(p)
        parent.kids[0] += p.cpu + p.kids[0]
        parent.kids[1] += p.pageins + p.kids[1]
        parent.kids[2] += 50 + p.kids[2]
        parent.kids[3] += p.disk + p.kids[3]

    def step(self) -> None:
        """A part of an interval."""
        part = INTERVAL / 4
        for _ in range(4):
            for _ in range(self.random.choice((0, 0, 1, 3))):
                self.spawn()
            self.work(part)
            self.now += part
            for _ in range(self.random.choice((0, 0, 1, 2, 5))):
                p = self.random.choice(self.alive)
                if self.random.random() < 0.2:
                    for child in list(p.children) if p is not self.init else []:
                        self.exit(child)
                self.exit(p)

    def rows(self) -> Iterator[Row]:
        for p in self.alive:
            total = p.disk + p.kids[3]
            cpu, disk, age = self.seen.get(p.pid, (0, 0, self.now - p.start))
            seconds = INTERVAL if p.pid in self.seen else max(age, 0.01)
            yield row(p.pid, p.pid, start_time=p.start, ppid=p.parent.pid if p.parent else 0,
                      cpu_seconds_total=p.cpu / 100, cpu_percent=round((p.cpu - cpu) / seconds, 6),
                      children_cpu_seconds_total=p.kids[0] / 100, pageins_total=p.pageins,
                      children_pageins_total=p.kids[1], children_faults_total=p.kids[2],
                      disk_write_bytes_total=total, disk_bytes_per_s=(total - disk) / seconds)
            self.seen[p.pid] = (p.cpu, total, 0.0)


@pytest.mark.parametrize("seed", range(150))
def test_all_that_was_used_is_credited_once(seed: int) -> None:
    """CPU time and disk I/O: the sum of all rates times their time is what the processes used."""
    kernel = Kernel(seed)
    kernel.work(0.3)
    list_of_rows = [list(kernel.rows())]
    base = list(kernel.used)
    times = [kernel.now]
    for _ in range(12):
        kernel.step()
        list_of_rows.append(list(kernel.rows()))
        times.append(kernel.now)
    for _ in range(2):      # nothing runs any more: what is owed arrives
        kernel.now += INTERVAL
        list_of_rows.append([{**r, "cpu_percent": 0.0, "disk_bytes_per_s": 0.0} for r in list_of_rows[-1]])
        times.append(kernel.now)
    credited, ended = [0.0, 0.0], set[Key]()
    ticks = list(stream(list_of_rows, interval_s=INTERVAL, cpus=1000))
    for tick, ts in zip(ticks, times, strict=True):
        assert tick.row is not None
        tick.row["ts"] = ts
    for tick in list(chain(ticks, Lineage()))[1:]:
        _count(tick, credited, ended)
    used = [(kernel.used[0] - base[0]) / 100, kernel.used[2] - base[2]]
    assert credited[0] == pytest.approx(used[0], abs=0.05)
    assert credited[1] == pytest.approx(used[1], rel=1e-3, abs=500)


def _count(tick: Tick, credited: list[float], ended: set[Key]) -> None:
    """Add what a tick credits, as the minutes do."""
    assert tick.row is not None
    for key, made in tick.processes.items():
        if made.get("ended"):
            assert key not in ended, "one last row"
            ended.add(key)
        seconds = INTERVAL * lived(made, tick.row["ts"], INTERVAL)
        credited[0] += (made.get("cpu_percent", 0.0) + made.get("children_cpu_percent", 0.0)) / 100 * seconds
        credited[1] += (made.get("disk_bytes_per_s", 0.0) + made.get("children_disk_bytes_per_s", 0.0)) * seconds
