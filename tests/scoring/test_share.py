"""The share model: the worked examples of its definition, its laws, and what it may skip without changing a score."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import exp, log2
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.config.options import Bands, Config, Share
from rogue_hunter.schema.field import RESOURCES, Key
from rogue_hunter.scoring.share import ShareModel, points, scarcity
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.ticks import GIB, Machine, closing, key, row, stream

SETTINGS = Share()
LARGE = 10 << 20
"""Bytes from which a process is active without running."""


def score(ticks: Iterable[Tick], settings: Share = SETTINGS, explain: bool = False) -> list[Tick]:
    return list(chain(ticks, ShareModel(settings, Bands(), explain)))


def crowd(count: int) -> list[Row]:
    """Processes that are active and use nothing but memory that is not scarce."""
    return [row(1000 + i, memory_bytes=LARGE) for i in range(count)]


def one(hogs: list[Row], n: int, explain: bool = False, **machine: Any) -> dict[int, Row]:
    """The scored rows by pid of one tick with `n` active processes, the hogs among them."""
    (tick,) = score(stream([[*hogs, *crowd(n - len(hogs))]], **machine), explain=explain)
    return {k[0]: made for k, made in tick.processes.items()}


def hog(pid: int, percent: float, **fields: Any) -> Row:
    return row(pid, **{"cpu_percent": percent, "state": "running", "memory_bytes": LARGE, **fields})


# -- worked examples -------------------------------------------------------------------------------------------------

WORKED = [
    # cpus, N, loops, percent each, busy cores, PSI cpu, score, band
    (1, 100, 1, 11.0, 0.15, 0, 35, "medium"),
    (1, 100, 1, 100.0, 1.0, 0, 86, "critical"),
    (2, 100, 1, 100.0, 1.0, 0, 66, "high"),
    (2, 100, 2, 100.0, 2.0, 0, 76, "high"),
    (8, 300, 1, 11.0, 0.3, 0, 40, "medium"),
    (8, 300, 1, 100.0, 1.1, 0, 72, "high"),
    (8, 100, 1, 100.0, 1.1, 0, 56, "elevated"),
    (8, 100, 8, 100.0, 8.0, 0, 56, "elevated"),
    (32, 100, 1, 11.0, 0.3, 0, 18, "low"),
    (32, 100, 1, 100.0, 1.1, 0, 50, "elevated"),
    (32, 300, 1, 100.0, 1.1, 0, 52, "elevated"),
    (32, 100, 32, 100.0, 32.0, 900, 56, "elevated"),
    (128, 100, 1, 11.0, 0.3, 0, 18, "low"),
    (128, 100, 1, 100.0, 1.1, 0, 50, "elevated"),
    (128, 100, 1, 1600.0, 16.5, 0, 56, "elevated"),
    (128, 400, 128, 100.0, 128.0, 900, 56, "elevated"),
]
"""The examples of rogue-hunter(7), by which the model was chosen."""


@pytest.mark.parametrize(("cpus", "n", "loops", "percent", "busy", "psi", "expected", "band"), WORKED)
def test_worked_example(
    cpus: int, n: int, loops: int, percent: float, busy: float, psi: int, expected: int, band: str
) -> None:
    """To the point; and the score is the same in every tick while nothing changes."""
    hogs = [hog(1 + i, percent) for i in range(loops)]
    ticks = score(stream([[*hogs, *crowd(n - loops)]] * 10, cpus=cpus, cpu_busy_cores=busy,
                         pressure_cpu_some_ms_per_s=psi))
    for tick in ticks:
        for made in hogs:
            scored = tick.processes[key(made)]
            assert (scored["score"], scored["band"]) == (expected, band)
            assert scored["dominant_resource"] == "cpu" and scored["model"] == "share"
        assert tick.row is not None and tick.row["max_score"] == expected
        assert tick.scored == {key(made) for made in hogs}


CORES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@pytest.mark.parametrize("cpus", CORES)
def test_a_busy_core_is_elevated_on_machines_of_any_size(cpus: int) -> None:
    """One loop at 95 % of a core on an otherwise quiet machine, with few processes or with many."""
    for n in (40, 300, 2000):
        made = one([hog(1, 95.0)], n, cpus=cpus, cpu_busy_cores=1.0)[1]
        assert made["score"] >= 45, (cpus, n, made["score"])


@pytest.mark.parametrize("psi", [None, 0.0, 900.0])
@pytest.mark.parametrize("cpus", CORES)
def test_every_loop_of_a_full_machine_is_elevated(cpus: int, psi: float | None) -> None:
    """One loop at 99 % on each core and 40 idle daemons; and two loops on each core at 50 %, with PSI or without."""
    for loops, percent in ((cpus, 99.0), (2 * cpus, 49.5)):
        hogs = [hog(1 + i, percent) for i in range(loops)]
        made = one(hogs, loops + 40, cpus=cpus, cpu_busy_cores=float(cpus), pressure_cpu_some_ms_per_s=psi)
        assert min(made[r["pid"]]["score"] for r in hogs) >= 45, (cpus, loops)


@pytest.mark.parametrize("cpus", [1, 4, 16, 64])
def test_loops_that_wait_for_each_other_are_elevated(cpus: int) -> None:
    """Four and eight loops for each core: each runs or waits all the time. Not who waits for a quota on a machine with
    idle cores, not a pool of threads that wait in turn, and not a process that gets nearly nothing."""
    for each in (4, 8):
        waits = {"run_delay_ms_per_s": 990 - 990 / each}
        hogs = [{**hog(1 + i, 99 / each), **waits} for i in range(each * cpus)]
        full = one(hogs, each * cpus + 40, cpus=cpus, cpu_busy_cores=0.99 * cpus, pressure_cpu_some_ms_per_s=900.0)
        assert min(full[r["pid"]]["score"] for r in hogs) >= 45, (cpus, each)
    assert one([{**hog(1, 10.0), "run_delay_ms_per_s": 890.0}], 100, cpus=8, cpu_busy_cores=0.1)[1]["score"] < 45
    rest = [hog(10 + i, 99.0) for i in range(8)]
    for victim in ({**hog(1, 10.0), "threads": 8, "run_delay_ms_per_s": 890.0}, {**hog(1, 2.0), "run_delay_ms_per_s": 980.0}):
        assert one([victim, *rest], 100, cpus=8, cpu_busy_cores=8.0)[1]["score"] < 45


@pytest.mark.parametrize("cpus", CORES)
def test_nothing_is_elevated_on_an_idle_machine(cpus: int) -> None:
    """Processes that use 5 % of a core between them, and one that uses a fifth of one steadily, have no event."""
    rests = [row(10 + i, cpu_percent=0.1, memory_bytes=LARGE) for i in range(50)]
    made = one([hog(1, 20.0), *rests], 100, cpus=cpus, cpu_busy_cores=0.3)
    assert max(r["score"] for r in made.values()) < 45


def test_more_cores_than_one_do_not_raise_the_minimum() -> None:
    """Ten cores of 256 are 4 % of the machine: elevated as one busy core is, not critical."""
    assert one([hog(1, 1000.0)], 100, cpus=256, cpu_busy_cores=10.0)[1]["score"] == 50
    (tick,) = score(stream([[hog(1, 100.0), *crowd(99)]], cpus=256), Share(core_times=0.0))
    assert tick.processes[1, 1000]["score"] == 6


@pytest.mark.parametrize(("cpus", "loops", "nice", "expected"), [
    (2, 2, 0, 76), (2, 2, 14, 76), (2, 2, 15, 46), (2, 2, 19, 46), (2, 2, 18, 46), (2, 1, 19, 56), (8, 1, 19, 46), (128, 1, 19, 40),
    (128, 128, 19, 40), (2, 2, None, 76)])
def test_a_process_that_yields_scores_less(cpus: int, loops: int, nice: int | None, expected: int) -> None:
    """Loops at nice 15 or more: their CPU use counts by half, and pressure does not raise it. So does SCHED_IDLE."""
    policy = "idle" if nice == 18 else "other"
    hogs = [hog(1 + i, 100.0, nice=0 if nice == 18 else nice, policy=policy) for i in range(loops)]
    made = one(hogs, max(100, loops), explain=True, cpus=cpus, cpu_busy_cores=float(loops))
    assert {made[r["pid"]]["score"] for r in hogs} == {expected}
    assert round(made[1]["terms"][0]["points"]) == expected
    other = one([*hogs, hog(999, 10.0, disk_bytes_per_s=200e6)], 100 + loops, cpus=cpus, cpu_busy_cores=float(cpus))
    assert other[999]["dominant_resource"] == "disk"


@pytest.mark.parametrize(
    ("times", "value"), [(0, 0), (1, 0), (8, 30), (22.63, 45), (64, 60), (256, 80), (1024, 100), (1e9, 100)]
)
def test_scale(times: float, value: int) -> None:
    """10 points a doubling: 8 times the fair share is medium, 256 times is critical."""
    assert round(points(times)) == value


@pytest.mark.parametrize(("available", "scarce"), [(1.0, 0), (0.5, 0), (0.3, 0.5), (0.1, 1), (0.05, 1), (0, 1)])
def test_scarcity(available: float, scarce: float) -> None:
    """0 while half of the memory is available, 1 from a tenth down, linear between; 0 where it is not known."""
    assert scarcity(SETTINGS, available * 8 * GIB, 8 * GIB) == pytest.approx(scarce)
    assert scarcity(SETTINGS, None, 8 * GIB) == scarcity(SETTINGS, 1.0, 0) == scarcity(SETTINGS, 1.0, None) == 0


def test_floor_of_cpu() -> None:
    """3 % of a core on an idle machine is little: shares are of a quarter of the CPUs, at least one core."""
    assert one([hog(1, 3.0)], 100, cpus=8)[1]["cpu_share"] == pytest.approx(0.03 / 2)
    assert one([hog(1, 3.0)], 100, cpus=2)[1]["cpu_share"] == pytest.approx(0.03)
    assert one([hog(1, 3.0)], 100, cpus=8)[1]["score"] == 6


def test_disk() -> None:
    """100 MB/s alone is the whole of the floor; storage that stalls everybody quadruples what it counts."""
    made = one([row(1, disk_bytes_per_s=100e6, memory_bytes=LARGE)], 100)[1]
    assert (made["score"], made["dominant_resource"], made["disk_share"]) == (66, "disk", 1.0)
    made = one([row(1, disk_bytes_per_s=100e6, memory_bytes=LARGE)], 100, pressure_io_full_ms_per_s=1000.0)[1]
    assert made["score"] == 86


def test_wakeups_and_gpu_weigh_half() -> None:
    """2,000 wakeups a second, or a whole GPU, are half as bad as a whole core."""
    made = one([row(1, wakeups_per_s=2000.0, memory_bytes=LARGE)], 100)[1]
    assert (made["score"], made["dominant_resource"], made["wakeups_share"]) == (56, "wakeups", 1.0)
    made = one([row(1, gpu_ms_per_s=1000.0, gpu_seconds_total=1.0, memory_bytes=LARGE)], 100)[1]
    assert (made["score"], made["dominant_resource"], made["gpu_share"]) == (56, "gpu", 1.0)


def test_memory_counts_when_it_is_scarce() -> None:
    """Half of the memory is nothing while the other half is free, and 57 points when a tenth is left."""
    big = row(1, memory_bytes=8 * GIB)
    assert one([big], 100, memory_available_bytes=8 * GIB)[1]["score"] == 0
    made = one([big], 100, memory_available_bytes=1 * GIB)[1]
    assert (made["score"], made["dominant_resource"], made["memory_share"]) == (56, "memory", 0.5)


def test_pressure_by_psi_or_by_use() -> None:
    """The larger of what PSI says and how far the CPUs are used beyond 80 %."""
    assert one([hog(1, 100.0)], 100, cpu_busy_cores=6.4)[1]["score"] == 56
    assert one([hog(1, 100.0)], 100, cpu_busy_cores=8.0)[1]["score"] == 76
    assert one([hog(1, 100.0)], 100, pressure_cpu_some_ms_per_s=1000.0)[1]["score"] == 76
    assert one([hog(1, 100.0)], 100, cpu_busy_cores=8.0, pressure_cpu_some_ms_per_s=500.0)[1]["score"] == 76
    assert one([hog(1, 100.0)], 100, cpu_busy_cores=None)[1]["score"] == 56


# -- averages --------------------------------------------------------------------------------------------------------


def test_average_over_a_second() -> None:
    """A process that starts to burn has moved 1 - 1/e of the way after a second of measured time."""
    quiet, loud = hog(1, 0.0), hog(1, 100.0)
    ticks = score(stream([[quiet, *crowd(99)], *[[loud, *crowd(99)]] * 3], cpus=4, interval_s=1 / 3, mono_ns=0))
    assert [t.processes[key(loud)].get("cpu_share", 0.0) for t in ticks] == pytest.approx(
        [0, 1 - exp(-1 / 3), 1 - exp(-2 / 3), 1 - exp(-1)], abs=1e-5
    )


def test_average_begins_at_the_first_known_value() -> None:
    """What is unknown is not taken for 0, and the first known value counts in full."""
    unknown = hog(1, 0.0, **dict.fromkeys(("cpu_percent", "disk_bytes_per_s", "wakeups_per_s")))
    ticks = score(stream([[unknown], [hog(1, 100.0)]], cpus=4))
    first, second = (t.processes[1, 1000] for t in ticks)
    assert first["score"] == 0 and not {"cpu_share", "disk_share", "wakeups_share", "gpu_share"} & first.keys()
    assert second["cpu_share"] == 1.0


def test_a_process_that_stopped_is_forgotten() -> None:
    """After the end of the load the score falls in seconds to 0, and the row then stands."""
    loud, quiet, others = hog(1, 100.0), hog(1, 0.0), crowd(99)
    ticks = score(stream([[loud, *others], *[[quiet, *others]] * 40], cpus=4))
    scores = [t.processes[key(loud)]["score"] for t in ticks]
    assert scores[0] == 66 and scores[-1] == 0
    assert scores == sorted(scores, reverse=True)
    assert scores.index(0) < 3 * 7
    assert ticks[-1].processes[key(loud)] is ticks[-2].processes[key(loud)]
    assert ticks[-1].changed == set() and ticks[-1].scored == set()


def test_unknown_resource_has_no_share() -> None:
    """A process whose io and switches may not be read has no disk and no wakeups share, whether it runs or rests."""
    for percent in (0.0, 50.0):
        made = one([hog(1, percent, disk_bytes_per_s=None, wakeups_per_s=None)], 100)[1]
        assert ("cpu_share" in made) is bool(percent) and not {"disk_share", "wakeups_share", "gpu_share"} & made.keys()


def test_a_share_of_zero_is_left_out() -> None:
    """A measured 0 is a share of 0."""
    made = one([row(1, memory_bytes=0)], 100)[1]
    assert not [name for name in made if name.endswith("_share")]
    assert made["disproportionality"] == 0 and "dominant_resource" not in made and made["band"] == "low"


def test_fair_share_follows_slowly() -> None:
    """A thousand processes that appear at once do not change the fair share at once: its average takes 5 s."""
    loud = hog(1, 100.0)
    ticks = score(stream([[loud, *crowd(99)]] + [[loud, *crowd(999)]] * 60, cpus=4, interval_s=1 / 3))
    times = [t.processes[key(loud)]["disproportionality"] for t in ticks]
    assert times[0] == 100 and times[1] == pytest.approx(100 + 900 * (1 - exp(-1 / 15)), abs=1)
    assert times[-1] == pytest.approx(1000, abs=20)


def test_active_processes() -> None:
    """A process is active for 10 s after it ran, and as long as it holds 10 MiB; the rest does not count."""
    runs = [row(i, cpu_percent=0.1) for i in range(1, 201)]
    rests = [row(i, cpu_percent=0.0) for i in range(1, 201)]
    loud = hog(999, 100.0)
    ticks = score(stream([[loud, *runs], *[[loud, *rests]] * 33], cpus=4))
    times = [t.processes[key(loud)]["disproportionality"] / t.processes[key(loud)]["cpu_share"] for t in ticks]
    assert times[0] == pytest.approx(201, abs=0.1)
    assert times[28] == pytest.approx(201, abs=0.1)
    assert times[33] < 190


# -- laws ------------------------------------------------------------------------------------------------------------

FLOWS = {
    "cpu_percent": 800.0,
    "disk_bytes_per_s": 1e10,
    "wakeups_per_s": 1e6,
    "gpu_ms_per_s": 4000.0,
    "memory_bytes": float(16 * GIB),
}


@given(
    st.sampled_from(sorted(FLOWS)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 64),
    st.floats(0, 1),
    st.floats(0, 1000),
    st.fixed_dictionaries({name: st.floats(0, top) for name, top in FLOWS.items()}),
)
def test_more_use_is_never_less_rogue(
    name: str, a: float, b: float, cpus: int, free: float, psi: float, others: dict[str, float]
) -> None:
    """Score and share of a process do not fall when it alone uses more, and those of the others do not rise."""
    low, high = sorted((a * FLOWS[name], b * FLOWS[name]))
    if name == "memory_bytes":
        low, high = int(low), int(high)
    others["memory_bytes"] = int(others["memory_bytes"])
    machine = {"cpus": cpus, "memory_available_bytes": int(free * 16 * GIB), "pressure_cpu_some_ms_per_s": psi}
    made = [one([row(1, **{name: use}), row(2, **others)], 50, **machine) for use in (low, high)]
    assert made[0][1]["score"] <= made[1][1]["score"]
    assert made[0][1]["disproportionality"] <= made[1][1]["disproportionality"]
    assert made[0][2]["score"] >= made[1][2]["score"]
    for rows in made:
        for scored in rows.values():
            assert 0 <= scored["score"] <= 100
            assert scored["band"] == Bands().of(scored["score"])
            assert all(0 <= scored[f"{r}_share"] <= 1 for r in RESOURCES if f"{r}_share" in scored)


@given(
    st.fixed_dictionaries({name: st.floats(0, top) for name, top in FLOWS.items()}), st.floats(0, 1000), st.floats(0, 1)
)
def test_terms_explain_the_score(use: dict[str, float], psi: float, free: float) -> None:
    """The largest term is the score, named by its resource, and every term's points follow from its parts."""
    use["memory_bytes"] = int(use["memory_bytes"])
    made = one(
        [row(1, **use)], 100, explain=True, memory_available_bytes=int(free * 16 * GIB), pressure_cpu_some_ms_per_s=psi
    )[1]
    terms = made["terms"]
    assert {t["resource"] for t in terms} == set(RESOURCES)
    assert terms == sorted(terms, key=lambda t: -t["times"])
    assert abs(terms[0]["points"] - made["score"]) <= 0.56
    assert terms[0]["times"] == pytest.approx(made["disproportionality"], abs=2e-3)
    if made["disproportionality"]:
        assert terms[0]["resource"] == made["dominant_resource"]
    for term in terms:
        weight = getattr(SETTINGS, term["resource"] + "_weight")
        times = weight * term["share"] * 100 * (1 + 3 * term["pressure"])
        if term["resource"] == "cpu":
            times = max(times, 32 * min(1.0, term["use"]) * (1 + 0.5 * term["pressure"]))
        assert term["times"] == pytest.approx(times, rel=0.01, abs=0.02)
        assert (
            term["points"] == pytest.approx(10 * log2(term["times"]) if term["times"] > 1 else 0, abs=0.2)
            or term["points"] == 100
        )


def test_no_terms_unless_asked() -> None:
    """Explanations cost: they are made only for --explain."""
    assert "terms" not in one([hog(1, 100.0)], 100)[1]


def test_rows_are_not_changed() -> None:
    """A stage never changes a row that it was handed, nor a tick that it gave out."""
    machine = Machine(5)
    ticks = list(machine.ticks(40))
    copies = [{k: dict(made) for k, made in t.processes.items()} for t in ticks]
    given_out, said = [], []
    for tick in chain(ticks, ShareModel(SETTINGS, Bands())):
        given_out.append(tick)
        said.append({k: dict(made) for k, made in tick.processes.items()})
    assert [t.processes for t in ticks] == copies
    assert [t.processes for t in given_out] == said and [len(t) for t in said] == [len(c) for c in copies]


def test_a_tick_without_activity_keeps_the_rows_of_the_one_before() -> None:
    """Row for row and as a mapping: 1,000 idle processes are not even copied."""
    rows = crowd(50)
    first, second, third = score([at(0, 0, rows, rows), at(1, 1, rows), at(2, 2, rows)])
    assert second.processes is first.processes is third.processes and second.changed == set()


# -- skipping --------------------------------------------------------------------------------------------------------


class Reference:
    """The definition, written down once more: every process of every tick from its averages, nothing skipped."""

    def __init__(self) -> None:
        self.flows: dict[Key, list[float | None]] = {}
        self.ran: dict[Key, float] = {}
        self.n: float | None = None
        self.pressure: dict[str, float] = {}

    def _mean(self, name: str, value: float, dt: float) -> float:
        value = min(1.0, max(0.0, value))
        old = self.pressure.get(name, value)
        self.pressure[name] = old + (1 - exp(-dt)) * (value - old)
        return self.pressure[name]

    def score(self, tick: Tick) -> dict[Key, float]:
        """Points of every process, unrounded."""
        assert tick.row is not None
        end, rows = tick.row, tick.processes
        dt, now = end["interval_s"], end["mono_ns"] / 1e9
        self.flows = {k: flows for k, flows in self.flows.items() if k in rows}
        self.ran = {k: at for k, at in self.ran.items() if k in rows}
        for k, made in rows.items():
            if made.get("cpu_percent") is not None:
                use = [made["cpu_percent"] / 100, made.get("disk_bytes_per_s"), made.get("wakeups_per_s")]
                old = self.flows.setdefault(k, [None] * 3)
                factor = 1 - exp(-dt) if dt else 1.0
                new = [
                    a if x is None else x if a is None else a + factor * (x - a) for a, x in zip(old, use, strict=True)
                ]
                if not any(use) and all(
                    (x or 0) < 1e-3 * floor for x, floor in zip(new, (1, 100e6, 2000), strict=True)
                ):
                    new = [0.0] * 3
                self.flows[k] = new
            if made.get("cpu_percent") or made.get("context_switches_per_s"):
                self.ran[k] = now
        self.ran = {k: at for k, at in self.ran.items() if at > now - 10}
        active = len(self.ran.keys() | {k for k, made in rows.items() if made.get("memory_bytes", 0) >= LARGE})
        self.n = active if self.n is None else self.n + (1 - exp(-dt / 5)) * (active - self.n)
        n = max(100, round(self.n))
        busy = end.get("cpu_busy_cores")
        cpu = self._mean(
            "cpu",
            max(end["pressure_cpu_some_ms_per_s"] / 1000, 0 if busy is None else (busy / end["cpus"] - 0.8) / 0.2),
            dt,
        )
        disk = self._mean("disk", end["pressure_io_full_ms_per_s"] / 1000, dt)
        full = self._mean("busy", (busy or 0) / end["cpus"], dt) >= 0.9
        sums = [sum(flows[i] or 0 for flows in self.flows.values()) for i in range(3)]
        bottom = [max(x, floor) for x, floor in zip(sums, (max(1, end["cpus"] / 4), 100e6, 2000), strict=True)]
        free = end["memory_available_bytes"] / end["memory_total_bytes"]
        scarce = min(1.0, max(0.0, (0.5 - free) / 0.4))
        found = {}
        for k, made in rows.items():
            flows = self.flows.get(k, [None] * 3)
            times = [
                (x or 0) / b * n * w * (1 + 3 * p)
                for x, b, w, p in zip(flows, bottom, (1, 1, 0.5), (cpu, disk, 0), strict=True)
            ]
            wanted = (flows[0] or 0) + made.get("run_delay_ms_per_s", 0) / 1000
            whole = 8 if full and wanted >= 0.9 * made["threads"] else 1
            times[0] = max(times[0], 32 * min(1, whole * (flows[0] or 0)) * (1 + cpu / 2))
            times.append(made.get("memory_bytes", 0) / end["memory_total_bytes"] * scarce * n)
            found[k] = points(max(times))
        return found


@pytest.mark.parametrize("seed", range(6 if "RH_LONG" in os.environ else 3))
def test_what_is_skipped_changes_no_score(seed: int) -> None:
    """Over hundreds of ticks of a machine whose processes live, burn, rest, die and are reused, the scores are those of
    the definition; a process that uses nothing may be one step of the scale of memory behind it, 2 points."""
    reference = Reference()
    for made in chain(ticks := iter(_both(Machine(seed, processes=60), 250, reference)), ShareModel(SETTINGS, Bands())):
        wanted = reference.last  # type: ignore[attr-defined]
        assert made.processes.keys() == wanted.keys()
        for k, exact in wanted.items():
            got = made.processes[k]["score"]
            still = not any(reference.flows.get(k, ()))
            assert abs(got - exact) <= (2.0 if still and not got else 0.51), (made.row, made.processes[k], exact)
        assert made.scored == {k for k, r in made.processes.items() if r["score"]}
        assert made.row is not None and made.row["max_score"] == max(
            (r["score"] for r in made.processes.values()), default=0
        )
    assert next(ticks, None) is None


def _both(machine: Machine, count: int, reference: Reference) -> Iterable[Tick]:
    for tick in machine.ticks(count):
        reference.last = reference.score(tick)  # type: ignore[attr-defined]
        yield tick


@pytest.mark.parametrize("seed", range(3))
def test_changed_is_what_changed(seed: int) -> None:
    """`changed` names exactly the rows that are another object than in the tick before, and order follows the input."""
    before: dict[Key, Row] = {}
    for tick in chain(Machine(seed).ticks(80), ShareModel(SETTINGS, Bands())):
        assert tick.changed == {k for k, made in tick.processes.items() if before.get(k) is not made}
        before = tick.processes


def test_idle_processes_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick in which one of 500 processes ran scores one row: those of the others stand, object for object."""
    calls: list[int] = []
    real = ShareModel._row

    def counted(self: Any, made: Row, *rest: Any) -> Row:
        calls.append(made["pid"])
        return real(self, made, *rest)

    monkeypatch.setattr(ShareModel, "_row", counted)
    others = crowd(500)
    ticks = chain(stream([[hog(1, float(p)), *others] for p in range(10, 20)]), ShareModel(SETTINGS, Bands()))
    first = next(ticks)
    assert len(calls) == 501
    calls.clear()
    for tick in ticks:
        assert calls == [1]
        assert all(tick.processes[key(o)] is first.processes[key(o)] for o in others)
        calls.clear()


def test_scale_of_memory_that_moves_is_followed() -> None:
    """When memory becomes scarce the processes that only hold it are scored again."""
    big, others = row(1, memory_bytes=8 * GIB), crowd(99)
    ticks = [*stream([[big, *others]] * 3), *stream([[big, *others]] * 3, memory_available_bytes=GIB, mono_ns=10**13)]
    for tick in ticks[3:]:
        tick.changed = set()
    scores = [t.processes[key(big)]["score"] for t in score(ticks)]
    assert scores == [0, 0, 0, 56, 56, 56]


def test_partial_ticks() -> None:
    """Where rows are left out, averages of what is not listed are dropped: it may be gone."""
    loud, other = hog(1, 100.0), hog(2, 10.0)
    ticks = list(stream([[loud, other], [other], [loud, other]], cpus=4))
    ticks[1].row = closing(1, 2, cpus=4)
    ticks[1].exited = ()
    made = score(ticks)
    assert [set(t.processes) for t in made] == [{key(loud), key(other)}, {key(other)}, {key(loud), key(other)}]
    assert made[1].processes[key(other)]["cpu_share"] == pytest.approx(0.1)


def test_a_reused_pid_has_no_averages() -> None:
    """A process that got the pid of one that burned has none of its averages."""
    first, second = hog(1, 100.0), hog(1, 0.0)
    second["start_ticks"] = 2000
    ticks = score(stream([[first], [second]], cpus=4))
    assert ticks[1].processes[1, 2000]["score"] == 0
    assert (1, 1000) not in ticks[1].processes


@pytest.mark.parametrize(
    "fields",
    [
        {"interval_s": -1e9},
        {"interval_s": 0.0},
        {"cpus": 0},
        {"cpus": -4},
        {"memory_total_bytes": 0},
        {"memory_total_bytes": -5},
        {"mono_ns": -(1 << 62)},
        {"cpu_busy_cores": 1e308},
        {"pressure_cpu_some_ms_per_s": -1.0},
        {"memory_available_bytes": None, "memory_total_bytes": None},
    ],
)
def test_nonsense_in_a_closing_row(fields: dict[str, Any]) -> None:
    """With any closing row, every process gets a score from 0 to 100."""
    for tick in score(
        stream([[hog(1, 100.0), row(2, cpu_percent=-5.0, memory_bytes=-1)], [hog(1, 1e308), row(2)]] * 2, **fields)
    ):
        assert all(0 <= made["score"] <= 100 for made in tick.processes.values())


def test_records_pass() -> None:
    """A batch of records only goes through as it is."""
    batch = Tick(records=[{"type": "error", "v": 1}])
    assert score([batch]) == [batch]


def test_configured_weights_count() -> None:
    """The numbers are those of the configuration."""
    (tick,) = score(stream([[hog(1, 100.0), *crowd(99)]], cpus=4), Share(cpu_weight=0.25, fair_minimum=1))
    assert tick.processes[1, 1000]["disproportionality"] == 25
    assert Config().scoring.share == SETTINGS


# -- to the digit ----------------------------------------------------------------------------------------------------


def at(seq: int, seconds: float, rows: list[Row], changed: Iterable[Row] = (), of: int | None = None,
       **fields: Any) -> Tick:
    """A tick at a moment of one's own, an interval of one second behind the last unless given; `of` so many
    processes where not all are shown."""
    told = {"ts": 1_700_000_000 + seconds, "mono_ns": round((1000 + seconds) * 1e9), "interval_s": 1.0, "cpus": 4}
    return Tick(closing(seq, of or len(rows), **{**told, **fields}), {key(r): r for r in rows}, {key(r) for r in changed})


def fast(**options: Any) -> Share:
    """Without memory: averages follow at once, and N is the number of active processes."""
    return Share(**{"tau_s": 0.01, "fair_tau_s": 0.01, "fair_minimum": 1, "core_times": 0.0, **options})


def test_terms_to_the_digit() -> None:
    """One row by hand: 12 CPUs (a floor of 3 cores), N 100, a third of memory's scarcity, PSI of cpu and disk.

    cpu 1/3 * 100 * (1 + 3 * 0.12345); gpu 0.5 * 0.2345678 * 100; memory 1/7 * 0.345678 * 100;
    disk 0.22222222 * 100 * (1 + 3 * 0.25); wakeups 0.5 * 0.1111 * 100.
    """
    made = one([row(1, cpu_percent=100.0, gpu_ms_per_s=234.5678, disk_bytes_per_s=22.222222e6, wakeups_per_s=222.2222,
                    memory_bytes=10**9)], 100, explain=True, cpus=12, memory_total_bytes=7 * 10**9,
               memory_available_bytes=round((0.5 - 0.4 * 0.345678) * 7e9), pressure_cpu_some_ms_per_s=123.45,
               pressure_io_full_ms_per_s=250.0)[1]
    assert made["terms"] == [
        {"resource": "cpu", "use": 1.0, "share": 0.33333, "pressure": 0.123, "times": 45.678, "points": 55.1},
        {"resource": "disk", "use": 22222222.0, "share": 0.22222, "pressure": 0.25, "times": 38.889, "points": 52.8},
        {"resource": "gpu", "use": 0.235, "share": 0.23457, "pressure": 0.0, "times": 11.728, "points": 35.5},
        {"resource": "wakeups", "use": 222.222, "share": 0.11111, "pressure": 0.0, "times": 5.556, "points": 24.7},
        {"resource": "memory", "use": 10**9, "share": 0.04938, "pressure": 0.0, "times": 4.938, "points": 23.0}]
    assert {name: made[name] for name in ("disproportionality", "score", "dominant_resource", "cpu_share", "gpu_share",
                                          "disk_share", "wakeups_share", "memory_share")} == {
        "disproportionality": 45.678, "score": 55, "dominant_resource": "cpu", "cpu_share": 0.33333,
        "gpu_share": 0.23457, "disk_share": 0.22222, "wakeups_share": 0.11111, "memory_share": 0.04938}


@pytest.mark.parametrize("disk", [99_999_501.0, 100e6])
def test_the_first_term_is_the_dominant_resource(disk: float) -> None:
    """Also where two say the same, or the same to the digits that are shown."""
    made = one([row(1, disk_bytes_per_s=disk, memory_bytes=17_179_783_285 if disk < 100e6 else 16 * GIB)], 100,
               explain=True, memory_available_bytes=0)[1]
    assert [t["times"] for t in made["terms"][:2]] == [made["disproportionality"]] * 2
    assert made["terms"][0]["resource"] == made["dominant_resource"] == "disk"
    assert [t["resource"] for t in made["terms"]] == ["disk", "memory", "cpu", "wakeups"]


def test_terms_of_what_is_known() -> None:
    """Unknown resources are skipped, and those after them are still reported."""
    made = one([row(1, cpu_percent=50.0, disk_bytes_per_s=None, memory_bytes=None)], 100, explain=True)[1]
    assert {t["resource"]: t["use"] for t in made["terms"]} == {"cpu": 0.5, "wakeups": 0.0}
    made = one([row(1, cpu_percent=None, memory_bytes=5)], 100, explain=True)[1]
    assert [t["resource"] for t in made["terms"]] == ["memory"]


def test_no_terms_by_default() -> None:
    (tick,) = chain(stream([[hog(1, 100.0)]]), ShareModel(SETTINGS, Bands()))
    assert "terms" not in tick.processes[1, 1000]


@pytest.mark.parametrize(("rate", "large", "name"), [
    ("cpu_percent", 1000.0, "cpu"), ("gpu_ms_per_s", 2000.0, "gpu"), ("disk_bytes_per_s", 1e9, "disk"),
    ("wakeups_per_s", 9000.0, "wakeups")])
def test_beyond_the_floor_shares_are_of_the_sum(rate: str, large: float, name: str) -> None:
    """Two that use the same have a half each; three quarters and a quarter where one uses three times as much."""
    made = one([row(1, **{rate: large}), row(2, **{rate: large})], 100, cpus=4)
    assert [made[pid][f"{name}_share"] for pid in (1, 2)] == [0.5, 0.5]
    made = one([row(1, **{rate: 3 * large}), row(2, **{rate: large})], 100, cpus=4)
    assert [made[pid][f"{name}_share"] for pid in (1, 2)] == [0.75, 0.25]


@pytest.mark.parametrize(("rate", "value", "name"), [
    ("cpu_percent", 50.0, "cpu"), ("gpu_ms_per_s", 500.0, "gpu"), ("disk_bytes_per_s", 50e6, "disk"),
    ("wakeups_per_s", 1000.0, "wakeups")])
@pytest.mark.parametrize("weight", [0.25, 2.0, 8.0])
def test_weights_multiply(rate: str, value: float, name: str, weight: float) -> None:
    """Half of the floor, N 100: 50 times the weight; without pressure exactly."""
    (tick,) = score(stream([[row(1, **{rate: value}), *crowd(99)]], cpus=4), Share(**{f"{name}_weight": weight}))
    assert tick.processes[1, 1000]["disproportionality"] == 50 * weight


def test_memory_weight_multiplies() -> None:
    settings = Share(memory_weight=4.0)
    (tick,) = score(stream([[row(1, memory_bytes=8 * GIB)]], memory_available_bytes=GIB), settings)
    assert tick.processes[1, 1000]["disproportionality"] == 200


def test_children_are_credited() -> None:
    """A shell whose short-lived children burn a core is a hog, though it sleeps itself."""
    made = one([row(1, cpu_percent=0.0, children_cpu_percent=75.0), row(2, cpu_percent=25.0)], 100, cpus=4)
    assert [made[pid]["cpu_share"] for pid in (1, 2)] == [0.75, 0.25]


def test_disk_traffic_of_children_is_credited() -> None:
    """The same for a shell whose children move data."""
    made = one([row(1, cpu_percent=0.0, disk_bytes_per_s=0.0, children_disk_bytes_per_s=3e8),
                row(2, cpu_percent=0.0, disk_bytes_per_s=1e8)], 100, cpus=4)
    assert [made[pid]["disk_share"] for pid in (1, 2)] == [0.75, 0.25]


def test_a_gpu_that_is_not_used_has_no_share() -> None:
    made = one([row(1, gpu_ms_per_s=0.0), row(2, gpu_ms_per_s=0.0, cpu_percent=5.0), row(3)], 100)
    assert not any("gpu_share" in made[pid] for pid in (1, 2, 3))


@pytest.mark.parametrize("settings", [Share(), Share(pressure_gain=0.0), Share(pressure_gain=2.0)])
def test_pressure_is_at_most_all_of_the_time(settings: Share) -> None:
    """PSI and use beyond their scale count as 1, and a gain of 0 means that pressure does not count."""
    for fields in ({"pressure_cpu_some_ms_per_s": 5000.0, "pressure_io_full_ms_per_s": 5000.0},
                   {"pressure_cpu_some_ms_per_s": 1000.0, "pressure_io_full_ms_per_s": 1000.0}):
        (tick,) = score(stream([[row(1, cpu_percent=10.0), row(2, disk_bytes_per_s=10e6)]], cpus=4, **fields),
                        settings, explain=True)
        for pid, name in ((1, "cpu"), (2, "disk")):
            made = tick.processes[pid, 1000]
            assert made["disproportionality"] == 10 * (1 + settings.pressure_gain)
            term = next(t for t in made["terms"] if t["resource"] == name)
            assert term["pressure"] == (1.0 if settings.pressure_gain else 0.0)


def test_use_beyond_four_fifths_is_pressure() -> None:
    """0.9 of one CPU, whose number is unknown, is half of the way; 8 of 8 all of it; below 0.8 none."""
    for cpus, busy, pressure in ((None, 0.9, 0.5), (8, 8.0, 1.0), (8, 7.2, 0.5), (8, 6.4, 0.0), (8, 1.0, 0.0)):
        made = one([hog(1, 10.0)], 100, explain=True, cpus=cpus, cpu_busy_cores=busy)[1]
        assert next(t for t in made["terms"] if t["resource"] == "cpu")["pressure"] == pressure, (cpus, busy)


def test_memory_of_an_unknown_size_is_never_scarce() -> None:
    for fields in ({"memory_total_bytes": None}, {"memory_total_bytes": None, "memory_available_bytes": 0},
                   {"memory_available_bytes": None}, {"memory_total_bytes": 0, "memory_available_bytes": 0}):
        made = one([row(1, memory_bytes=8 * GIB)], 100, **fields)[1]
        assert (made["score"], made.get("memory_share", 0.0), made["disproportionality"]) == (0, 0.0, 0.0), fields


# -- averages, to the digit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau_s", [0.5, 1.0, 4.0])
def test_the_time_constant_is_the_configured_one(tau_s: float) -> None:
    """Flows and pressure, on the way up: 1 - exp(-dt / tau) of the way."""
    settings, quiet, loud = Share(tau_s=tau_s), hog(1, 0.0), hog(1, 100.0)
    ticks = score([at(0, 0, [quiet], [quiet]), at(1, 1, [loud], [loud], pressure_cpu_some_ms_per_s=1000.0)], settings,
                  explain=True)
    (term,) = [t for t in ticks[1].processes[key(loud)]["terms"] if t["resource"] == "cpu"]
    way = 1 - exp(-1 / tau_s)
    assert term["share"] == pytest.approx(way, abs=1e-5) and term["pressure"] == pytest.approx(way, abs=6e-4)


@pytest.mark.parametrize("interval_s", [0.0, None, -1.0])
def test_without_time_between_two_readings_the_last_one_counts(interval_s: float | None) -> None:
    quiet, loud = hog(1, 0.0), hog(1, 100.0)
    ticks = score([at(0, 0, [quiet], [quiet], cpus=16), at(1, 0, [loud], [loud], cpus=16, interval_s=interval_s)])
    assert ticks[1].processes[key(loud)]["cpu_share"] == 0.25


def test_the_first_use_counts_for_the_time_it_lasted() -> None:
    """Born 0.1 s before the end of an interval of 1 s, and at 100 % since: a tenth of a core. The next reading is of a
    whole interval. A process that existed before but could not be read has its first known reading in full."""
    born = hog(1, 100.0, start_time=1_700_000_000.9, gpu_ms_per_s=None)
    old = hog(2, 100.0, start_time=1_600_000_000.0)
    unread = hog(3, 0.0, cpu_percent=None, start_time=1_700_000_000.9)
    later = hog(3, 300.0, start_time=1_700_000_000.9)
    ticks = score([at(0, 0, [old], [old], cpus=40), at(1, 1, [old, born, unread], [born, unread], cpus=40),
                   at(2, 2, [old, born, later], [later], cpus=40)])
    first, second = (t.processes[key(born)]["cpu_share"] for t in ticks[1:])
    assert first == 0.1 / 10 and second == pytest.approx((0.1 + 0.9 * (1 - exp(-1))) / 10, abs=1e-5)
    assert [t.processes[key(old)]["cpu_share"] for t in ticks] == [0.1] * 3
    assert ticks[2].processes[key(later)]["cpu_share"] == 0.3


@pytest.mark.parametrize(("percent", "rests"), [(3.0, True), (100.0, False)])
def test_averages_of_rows_that_stay_follow_in_one_step(percent: float, rests: bool) -> None:
    """While no score is high and no row changes, ticks are not scored for up to a second; the average is then what it
    would have been. A high score is made again at every tick."""
    quiet, loud = hog(1, 0.0), hog(1, percent)
    many = score([at(0, 0, [quiet], [quiet]), *(at(n, n / 4, [loud], [loud] if n == 1 else [], interval_s=0.25)
                                                for n in range(1, 10))])
    few = score([at(0, 0, [quiet], [quiet]), at(1, 0.25, [loud], [loud], interval_s=0.25),
                 at(2, 1.25, [loud]), at(3, 2.25, [loud])])
    assert many[9].processes[key(loud)]["cpu_share"] == few[3].processes[key(loud)]["cpu_share"]
    made = [tick.processes[key(loud)] for tick in many]
    assert (made[2] is made[1] and made[4] is made[1] and made[5] is not made[1]) is rests
    assert all(tick.row is not None and tick.row["max_score"] == made[n]["score"] for n, tick in enumerate(many))


@pytest.mark.parametrize(("rate", "value", "name"), [
    ("cpu_percent", 100.0, "cpu"), ("gpu_ms_per_s", 1000.0, "gpu"), ("disk_bytes_per_s", 100e6, "disk"),
    ("wakeups_per_s", 2000.0, "wakeups")])
def test_what_falls_below_a_thousandth_of_its_floor_is_0(rate: str, value: float, name: str) -> None:
    """exp(-6.5) is 0.0015 and exp(-7) 0.00091: from 7 s on the share is 0 and the row stands. In between, a score of 0
    makes no new row for a second."""
    loud, quiet = row(1, **{rate: value}), row(1, **{rate: 0.0})
    ticks = score([at(0, 0, [loud], [loud]), at(1, 6.5, [quiet], [quiet], interval_s=6.5),
                   at(2, 6.9, [quiet], interval_s=0.4), at(3, 7.4, [quiet], interval_s=0.5), at(4, 8.4, [quiet])])
    assert [t.processes[key(loud)].get(f"{name}_share") for t in ticks] == [1.0, 0.0015, 0.0015, None, None]
    assert ticks[4].processes[key(loud)] is ticks[3].processes[key(loud)] and ticks[4].changed == set()


def test_little_is_not_nothing() -> None:
    """A process that uses a little all the time keeps its share, however small; only what is over is forgotten."""
    little = hog(1, 0.05)
    ticks = score([at(i, i, [little], [little]) for i in range(3)])
    assert [t.processes[key(little)]["cpu_share"] for t in ticks] == [0.0005] * 3


def test_unreadable_processes_hide_no_other() -> None:
    """Among many that may not be read, those that are read get their scores, in any order."""
    rows = [made for i in range(20) for made in (hog(2 * i, 0.0, cpu_percent=None), hog(2 * i + 1, 100.0))]
    again = [dict(made) for made in rows]
    ticks = score([at(0, 0, rows, rows), at(1, 1, again, again), at(2, 2, [hog(r["pid"], 50.0) for r in again],
                                                                   [hog(r["pid"], 50.0) for r in again])])
    for tick, shares in zip(ticks, ((None, 0.05), (None, 0.05)), strict=False):
        assert [made.get("cpu_share") for made in tick.processes.values()] == list(shares) * 20
    assert all(made["score"] for made in ticks[2].processes.values())


# -- how many are active ---------------------------------------------------------------------------------------------


def fair(ticks: Iterable[Tick], settings: Share) -> list[float]:
    """N of each tick, shown by a process that has the whole of the CPU floor."""
    return [t.processes[999, 1000]["disproportionality"] for t in score(ticks, settings)]


def test_who_ran_counts_for_ten_seconds_and_not_for_longer() -> None:
    """By CPU or by a context switch alone; to the second."""
    loud = hog(999, 100.0)
    runs = [*(row(i, cpu_percent=0.1) for i in range(1, 6)), *(row(i, context_switches_per_s=2.0) for i in range(6, 11))]
    rests = [row(i) for i in range(1, 11)]
    found = fair([at(0, 0, [loud, *runs], [loud, *runs], cpus=1), at(1, 1, [loud, *rests], rests, cpus=1),
                  at(2, 9.999, [loud, *rests], interval_s=8.999, cpus=1), at(3, 10, [loud, *rests], cpus=1)], fast())
    assert [round(n) for n in found] == [11, 11, 11, 1]


def test_who_holds_memory_counts_as_long_as_it_does() -> None:
    loud = hog(999, 100.0, memory_bytes=1)
    holds, little = ([row(i, memory_bytes=size) for i in range(1, 11)] for size in (LARGE, LARGE - 1))
    unknown = [row(i, memory_bytes=None) for i in range(1, 11)]
    found = fair([at(0, 0, [loud, *holds], [loud, *holds], cpus=1), at(1, 60, [loud, *holds], cpus=1),
                  at(2, 61, [loud, *little], little, cpus=1), at(3, 62, [loud, *unknown], unknown, cpus=1)], fast())
    assert [round(n) for n in found] == [11, 11, 1, 1]


def test_an_exited_process_is_not_active() -> None:
    loud, runs = hog(999, 100.0), [row(i, cpu_percent=0.1, memory_bytes=LARGE) for i in range(1, 11)]
    last = at(1, 1, [loud], cpus=1)
    last.exited = tuple(key(r) for r in runs)
    assert [round(n) for n in fair([at(0, 0, [loud, *runs], [loud, *runs], cpus=1), last], fast())] == [11, 1]


def test_n_moves_by_its_own_time_constant() -> None:
    """From 1 to 11 by 1 - exp(-1 s / tau) of the way, rounded to a whole number of processes."""
    loud, runs = hog(999, 100.0), [row(i, memory_bytes=LARGE) for i in range(1, 101)]
    for tau_s in (1.0, 5.0, 20.0):
        found = fair([at(0, 0, [loud], [loud], cpus=1), at(1, 1, [loud, *runs], runs, cpus=1)],
                     fast(fair_tau_s=tau_s))
        assert [round(n) for n in found] == [1, round(1 + 100 * (1 - exp(-1 / tau_s)))]


# -- skipping, to the row --------------------------------------------------------------------------------------------


def test_an_idle_machine_has_no_score() -> None:
    (tick,) = score(stream([[row(1), row(2)]]))
    assert tick.row is not None and tick.row["max_score"] == 0 and tick.scored == set()


def test_an_equal_row_is_no_change() -> None:
    """A host may read a process again and find nothing new: the scored row stands. What else changed is scored."""
    rows = [hog(i, 100.0) for i in range(1, 21)]
    again = [hog(i, 100.0) if i % 2 else hog(i, 0.0) for i in range(1, 21)]
    first, second = score([at(0, 0, rows, rows, cpus=400), at(1, 1, again, again, cpus=400)])
    assert second.changed == {key(r) for r in again if r["pid"] % 2 == 0}
    for made in again:
        same = second.processes[key(made)] is first.processes[key(made)]
        assert same is bool(made["pid"] % 2)


def test_order_follows_the_input() -> None:
    """New processes stand where the input has them: at the end, many at once, in front, and in a tick cut short."""
    rows = [hog(i, float(i % 50)) for i in range(1, 200)]
    for order in (rows, rows[::-1], rows[100:] + rows[:100]):
        for begin in (1, 50, 198):
            first = order[:begin]
            ticks = score([at(0, 0, first, first), at(1, 1, order, order[begin:]), at(2, 2, rows, []),
                           at(3, 3, order[149::-1], [], of=199), at(4, 4, order[::-1], order[150:])])
            assert list(ticks[0].processes) == [key(r) for r in first]
            assert list(ticks[1].processes) == [key(r) for r in order]
            assert list(ticks[3].processes) == [key(r) for r in order[149::-1]]
            assert list(ticks[4].processes) == [key(r) for r in order[::-1]]
            assert [t.processes.keys() for t in ticks[1:3]] == [{key(r) for r in rows}] * 2


def test_a_process_that_was_left_out_has_no_averages() -> None:
    """Its use in between is unknown: its first reading counts in full again."""
    loud, other = hog(1, 100.0), hog(2, 0.0)
    quiet = hog(1, 0.0)
    ticks = score([at(0, 0, [quiet, other], [quiet, other]), at(1, 1, [other], [], of=2),
                   at(2, 2, [loud, other], [loud])])
    assert ticks[2].processes[key(loud)]["cpu_share"] == 1.0


@pytest.mark.parametrize("course", ["scarcer", "more of them", "both in step"])
def test_who_only_holds_memory_follows_it_step_by_step(course: str) -> None:
    """Memory runs out slowly while all are idle, or others appear, or both: a kept row is never more than two
    points (a step of the scale and the rounding) from what the definition says, whether it holds much or little."""
    total = 1 << 40
    holders = [row(1 + i, memory_bytes=total // part) for i, part in enumerate((2, 16, 64, 128))]
    others = [row(1000 + i, memory_bytes=LARGE) for i in range(800)]
    ticks, exact = [], []
    for i in range(1, 401):
        count, scarce = {"scarcer": (400, i / 400), "more of them": (2 * i, 0.5), "both in step": (i, i / 400)}[course]
        available = round(total * (0.5 - 0.4 * scarce))
        crowded = others[:max(0, count - len(holders))]
        rows = [*holders, *crowded]
        ticks.append(at(i, i, rows, rows if i == 1 else crowded[-2:], memory_total_bytes=total,
                        memory_available_bytes=available))
        scarce = scarcity(SETTINGS, available, total)
        exact.append([points(made["memory_bytes"] / total * scarce * len(rows)) for made in holders])
    for tick, wanted in zip(score(ticks, fast()), exact, strict=True):
        got = [tick.processes[key(made)]["score"] for made in holders]
        assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= 2.0, (got, wanted)


def test_a_byte_of_disk_is_counted() -> None:
    """No part of the sum is made up: with a floor of one byte two that write ten each have half."""
    rows = [row(1, disk_bytes_per_s=10.0), row(2, disk_bytes_per_s=10.0)]
    (tick,) = score(stream([rows]), Share(disk_floor_bytes_per_s=1.0))
    assert [made["disk_share"] for made in tick.processes.values()] == [0.5, 0.5]
