"""The share model: the worked examples of its definition, its laws, and what it may skip without changing a score."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log2
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ticktools import GIB, Machine, closing, key, row, stream

from rogue_hunter.config import Bands, Config, Share
from rogue_hunter.schema import RESOURCES, Key
from rogue_hunter.score.share import Model, points, scarcity, share
from rogue_hunter.tick import Row, Tick

SETTINGS = Share()
LARGE = 10 << 20
"""Bytes from which a process is active without running."""


def score(ticks: Iterable[Tick], settings: Share = SETTINGS, explain: bool = False) -> list[Tick]:
    return list(share(settings, Bands(), explain)(iter(ticks)))


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


@pytest.mark.parametrize(
    ("cpus", "n", "loops", "percent", "busy", "expected", "band"),
    [
        (8, 300, 1, 11.0, 0.3, 40, "medium"),
        (8, 300, 1, 100.0, 1.1, 72, "high"),
        (2, 100, 1, 100.0, 1.0, 66, "high"),
        (2, 100, 2, 100.0, 2.0, 76, "high"),
        (8, 100, 8, 100.0, 8.0, 56, "elevated"),
    ],
)
def test_worked_example(cpus: int, n: int, loops: int, percent: float, busy: float, expected: int, band: str) -> None:
    """The examples by which the model was chosen, to the point; and the score stays while nothing changes."""
    hogs = [hog(1 + i, percent) for i in range(loops)]
    ticks = score(stream([[*hogs, *crowd(n - loops)]] * 10, cpus=cpus, cpu_busy_cores=busy))
    for tick in ticks:
        for made in hogs:
            scored = tick.processes[key(made)]
            assert (scored["score"], scored["band"]) == (expected, band)
            assert scored["dominant_resource"] == "cpu" and scored["model"] == "share"
        assert tick.row is not None and tick.row["max_score"] == expected
        assert tick.scored == {key(made) for made in hogs}


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
    assert [t.processes[key(loud)]["cpu_share"] for t in ticks] == pytest.approx(
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
        assert "cpu_share" in made and not {"disk_share", "wakeups_share", "gpu_share"} & made.keys()


def test_known_zero_has_a_share_of_zero() -> None:
    """A measured 0 is a share of 0."""
    made = one([row(1, memory_bytes=0)], 100)[1]
    assert [made[f"{name}_share"] for name in ("cpu", "disk", "wakeups", "memory")] == [0, 0, 0, 0]
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
        assert term["times"] == pytest.approx(
            weight * term["share"] * 100 * (1 + 3 * term["pressure"]), rel=0.01, abs=0.01
        )
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
    given_out, sizes = [], []
    for tick in share(SETTINGS, Bands())(iter(ticks)):
        given_out.append(tick)
        sizes.append(len(tick.processes))
    assert [t.processes for t in ticks] == copies
    assert [len(t.processes) for t in given_out] == sizes == [len(c) for c in copies]


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
            times.append(made.get("memory_bytes", 0) / end["memory_total_bytes"] * scarce * n)
            found[k] = points(max(times))
        return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_skipped_changes_no_score(seed: int) -> None:
    """Over hundreds of ticks of a machine whose processes live, burn, rest, die and are reused, the scores are those of
    the definition; a process that uses nothing may be one step of the scale of memory behind it, 2 points."""
    reference = Reference()
    for made in share(SETTINGS, Bands())(ticks := iter(_both(Machine(seed, processes=60), 250, reference))):
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
    for tick in share(SETTINGS, Bands())(Machine(seed).ticks(80)):
        assert tick.changed == {k for k, made in tick.processes.items() if before.get(k) is not made}
        before = tick.processes


def test_idle_processes_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick in which one of 500 processes ran scores one row: those of the others stand, object for object."""
    calls: list[int] = []
    real = Model._row

    def counted(self: Any, made: Row, *rest: Any) -> Row:
        calls.append(made["pid"])
        return real(self, made, *rest)

    monkeypatch.setattr(Model, "_row", counted)
    others = crowd(500)
    ticks = share(SETTINGS, Bands())(stream([[hog(1, float(p)), *others] for p in range(10, 20)]))
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


def test_reused_pid_begins_anew() -> None:
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
    """Whatever a closing row says, every process gets a score from 0 to 100."""
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
