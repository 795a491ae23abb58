"""The share model: how many times its fair share of a scarce resource does a process use?

    share   = use / max(use of all processes, floor)          cpu, gpu, disk, wakeups
    share   = memory / memory of the machine * scarcity       memory
    times   = weight * share * N * (1 + gain * pressure)      N: active processes; 1/N is the fair share
    cpu     : at least weight * core_times * min(1, cores used) * (1 + gain / 6 * pressure)
    score   = 10 * log2(max of times)                         clamped to 0..100

The floor keeps the only process of an idle machine from being a hog at 3 %. Scarcity keeps a resident editor from
being critical all the time. Averages over a second keep the score steady while the process does nothing new.
Pressure separates a hog on a starved machine from the same hog on an idle one.

The share of one core shrinks as the machine grows, and N does not grow with it: without the line `cpu`, a busy loop
would score 33 on a quiet machine of 32 cores and 24 on a full one of 128. A busy core means the same to a person on
any machine: most likely a loop. So a whole core counts as at least 32 fair shares (50 points, elevated), and
as 48 (56 points, the score of eight loops on eight cores) when all cores are busy. More cores than one do not raise
this minimum: 10 cores of 256 are judged by their share. Of four loops for each core none gets more than a quarter of
one: on a full machine a process that runs or waits for a CPU all the time counts as a whole core, as long as it gets
an eighth of one. One that gets less is starved.

A process at nice 15 or more, or with the policy SCHED_IDLE, yields to others: its CPU use counts by half (`nice_weight`
is 0.5, 10 points less), and the pressure of others is not counted against it.

Only what can have changed is scored again: rows that changed, and processes whose averages still move. A low score that
comes out the same, or one of rogue-hunter's own, makes no new row for up to a second: its shares are those of the row
that is kept. While no other score is above LOW and no row changes, nothing is scored for up to a second: averages
follow in one step, which is as exact, because what they are averages of has not changed. A process that does nothing
and holds less memory than its fair share keeps its row until the row changes or the scale (scarcity times N) has moved
by a twelfth.
"""

from __future__ import annotations

from math import exp, log2
from typing import Any

from rogue_hunter.config.options import Bands, Share
from rogue_hunter.schema.field import RESOURCES, Key
from rogue_hunter.stream.pipeline import RowMap
from rogue_hunter.stream.tick import Row, Tick, lived

_CPU, _GPU, _MEMORY, _DISK, _WAKEUPS = range(5)

_NOTHING = 1e-3
"""An average below this part of its floor is 0: with tau 1 s the use of a whole core is forgotten after 7 s."""

_YIELDS_FROM = 15
"""Nice values from which a process yields to others: weight 36 of 1024 and less in the Linux scheduler."""

_SCALE_STEPS = 8
"""Steps of the scale of memory in one doubling: 2 ** (1/8) is 1.09, or 1.25 points."""

_FULL = 0.9
"""Part of all cores that is busy on a full machine, and part of the time for which a loop there runs or waits."""
_STARVED = 1 / 8
"""Part of a core below which a process that would run all the time counts by what it gets."""

LOW = 30
"""Scores below this are in no band that is shown."""
LOW_S = 0.9
"""How long a row with such a score is kept: a second, less what beats are late."""

Flows = tuple[float | None, float | None, float | None, float | None]
"""Averages of cpu (cores), gpu (s/s), disk (bytes/s), wakeups (1/s)."""

_SHARES = tuple(name + "_share" for name in RESOURCES)

_UNKNOWN: Flows = (None, None, None, None)
_IDLE: Flows = (0.0, 0.0, 0.0, 0.0)


def scarcity(settings: Share, available: float | None, total: float | None) -> float:
    """0 while at least `memory_free_at` of memory is available, 1 from `memory_scarce_at` down, linear between."""
    if not total or available is None:
        return 0.0
    part = available / total
    return min(1.0, max(0.0, (settings.memory_free_at - part) / (settings.memory_free_at - settings.memory_scarce_at)))


def points(times: float) -> float:
    """10 * log2, clamped to 0..100."""
    return min(100.0, 10.0 * log2(times)) if times > 1.0 else 0.0


class ShareModel:
    """The share model as a stage: keeps the averages from tick to tick."""

    def __init__(self, settings: Share, bands: Bands, explain: bool = False) -> None:
        self._set = settings
        self._bands = bands
        self._explain = explain
        self._flows: dict[Key, Flows] = {}
        self._known: set[Key] = set()
        self._ran: dict[Key, float] = {}
        self._large: set[Key] = set()
        self._scored: set[Key] = set()
        self._made: dict[Key, float] = {}
        """When the row of a process with a low score was made, in seconds of the monotonic clock."""
        self._map = RowMap()
        self._n: float | None = None
        self._pressures: dict[str, float] = {}
        self._scale = 0
        self._top = 0
        """The highest score of the last tick."""
        self._all_low = False
        """True when all scores of the last tick but rogue-hunter's own were below LOW."""
        self._owed_s = 0.0
        """Time of the last ticks, in which nothing was scored."""

    def __call__(self, tick: Tick) -> Tick:
        """The tick with every process scored."""
        return tick if tick.row is None else self._score(tick, tick.row)

    def _score(self, tick: Tick, closing: Row) -> Tick:
        processes = tick.processes
        dt = self._owed_s + max(0.0, closing.get("interval_s") or 0.0)
        if tick.steady and self._all_low and dt < LOW_S:
            self._owed_s = dt
            return self._made_of(tick, closing, set())
        self._owed_s = 0.0
        gone = [key for key in self._map.rows if key not in processes] if tick.partial else tick.exited
        for key in gone:
            self._forget(key)
        moved = self._average(tick, dt)
        n = self._fair(tick, closing, dt)
        scope = self._scope(closing, n, dt)
        every = scope.scale != self._scale or tick.partial or not self._map.rows
        self._scale = scope.scale
        now, before, fresh = closing.get("mono_ns", 0) / 1e9, self._map.rows, tick.changed

        def made(key: Key, row: Row) -> Row:
            flows = self._flows.get(key, _IDLE if key in self._known else _UNKNOWN)
            terms = self._times(row, flows, scope)
            value = round(points(terms[0]))
            if value >= LOW and not row.get("own"):
                self._made.pop(key, None)
            elif key not in fresh and not every and key in before and before[key]["score"] == value \
                    and now - self._made.get(key, 0.0) < LOW_S:
                return before[key]
            elif value or key in self._flows:
                self._made[key] = now
            return self._row(row, flows, scope, value, *terms)

        changed = self._map.update(processes, moved | self._scored, gone, made, every=every)
        rows = self._map.rows
        for key in changed:
            (self._scored.add if rows[key]["score"] else self._scored.discard)(key)
        scored = [rows[key] for key in self._scored]
        self._top = max((row["score"] for row in scored), default=0)
        self._all_low = not any(row["score"] >= LOW and not row.get("own") for row in scored)
        return self._made_of(tick, closing, changed)

    def _made_of(self, tick: Tick, closing: Row, changed: set[Key]) -> Tick:
        return Tick({**closing, "max_score": self._top}, self._map.rows, changed, tick.exited, self._scored.copy(),
                    tick.records)

    # -- averages ------------------------------------------------------------------------------------------------

    def _average(self, tick: Tick, dt: float) -> set[Key]:
        """Update the averages of every process that used something, now or recently; return those processes."""
        factor = 1.0 - exp(-dt / self._set.tau_s) if dt > 0 else 1.0
        flows, known = self._flows, self._known
        ts = tick.row["ts"] if tick.row else 0.0
        moved = tick.changed | flows.keys()
        for key in moved:
            row = tick.processes.get(key)
            if row is None:
                continue
            use = _use(row)
            if key not in known and use is not _UNKNOWN:
                part = lived(row, ts, dt)
                use = use if part == 1.0 else tuple(None if x is None else x * part for x in use)  # type: ignore[assignment]
            old = flows.get(key, _IDLE if key in known else _UNKNOWN)
            if use is _UNKNOWN:
                continue
            known.add(key)
            if use == _IDLE and old is _IDLE:
                continue
            new: Flows = tuple(  # type: ignore[assignment]
                a if x is None else x if a is None else a + factor * (x - a) for a, x in zip(old, use, strict=True)
            )
            if self._decayed(new, use):
                flows.pop(key, None)
                self._made.pop(key, None)
            else:
                flows[key] = new
        return moved

    def _decayed(self, flows: Flows, use: Flows) -> bool:
        """True when nothing is used now and the averages have decayed below what counts."""
        if any(use):
            return False
        floors = (self._set.cpu_floor_cores, self._set.gpu_floor, self._set.disk_floor_bytes_per_s,
                  self._set.wakeups_floor_per_s)
        return all(not x or x < _NOTHING * floor for x, floor in zip(flows, floors, strict=True))

    def _fair(self, tick: Tick, closing: Row, dt: float) -> int:
        """N: the average of active processes, at least `fair_minimum`."""
        now = closing.get("mono_ns", 0) / 1e9
        ran, large = self._ran, self._large
        # A process that ran twice in the same way has an equal row and is not in `changed`, but its averages are
        # above 0.
        for key in tick.changed | self._flows.keys():
            row = tick.processes.get(key)
            if row is None:
                continue
            if row.get("cpu_percent") or row.get("context_switches_per_s"):
                ran.pop(key, None)
                ran[key] = now
            if row.get("memory_bytes", 0) >= self._set.active_memory_bytes:
                large.add(key)
            else:
                large.discard(key)
        while ran:
            key = next(iter(ran))
            if ran[key] > now - self._set.active_within_s:
                break
            del ran[key]
        active = len(ran.keys() | large)
        if self._n is None:
            self._n = float(active)
        else:
            self._n += (1.0 - exp(-dt / self._set.fair_tau_s)) * (active - self._n)
        return max(self._set.fair_minimum, round(self._n))

    def _pressure(self, name: str, value: float, dt: float) -> float:
        old = self._pressures.get(name)
        new = value if old is None else old + (1.0 - exp(-dt / self._set.tau_s)) * (value - old)
        self._pressures[name] = new
        return new if new > 1e-4 else 0.0

    def _scope(self, closing: Row, n: int, dt: float) -> Scope:
        """What all processes of this tick are measured by."""
        s = self._set
        cpus = closing.get("cpus") or 1
        busy = closing.get("cpu_busy_cores")
        cpu = max(closing.get("pressure_cpu_some_ms_per_s", 0.0) / 1000,
                  0.0 if busy is None else (busy / cpus - 0.8) / 0.2)
        disk = closing.get("pressure_io_full_ms_per_s", 0.0) / 1000
        sums = [0.0, 0.0, 0.0, 0.0]
        for flows in self._flows.values():
            for i, x in enumerate(flows):
                if x:
                    sums[i] += x
        total = closing.get("memory_total_bytes") or 0
        scarce = scarcity(s, closing.get("memory_available_bytes"), total)
        floors = (max(s.cpu_floor_cores, cpus / 4), s.gpu_floor, s.disk_floor_bytes_per_s, s.wakeups_floor_per_s)
        # Without a gain pressure does not count, and is not shown in the terms.
        cpu_pressure = self._pressure("cpu", min(1.0, max(0.0, cpu)), dt) if s.pressure_gain else 0.0
        disk_pressure = self._pressure("disk", min(1.0, max(0.0, disk)), dt) if s.pressure_gain else 0.0
        return Scope(
            n, tuple(max(x, floor) for x, floor in zip(sums, floors, strict=True)),
            scarce / total if total else 0.0,
            (n * s.cpu_weight * (1.0 + s.pressure_gain * cpu_pressure), n * s.gpu_weight, n * s.memory_weight,
             n * s.disk_weight * (1.0 + s.pressure_gain * disk_pressure), n * s.wakeups_weight),
            s.cpu_weight * s.core_times * (1.0 + s.pressure_gain / 6.0 * cpu_pressure),
            (n * s.cpu_weight * s.nice_weight, s.cpu_weight * s.core_times * s.nice_weight),
            (cpu_pressure, 0.0, 0.0, disk_pressure, 0.0), self._pressure("busy", (busy or 0.0) / cpus, dt) >= _FULL,
            round(_SCALE_STEPS * log2(scarce * n)) if scarce * n >= 1e-3 else -1000,
        )

    # -- one row -------------------------------------------------------------------------------------------------

    def _times(self, row: Row, flows: Flows, scope: Scope) -> tuple[float, int, list[float | None]]:
        """How many fair shares of a resource the process uses at most, of which one (-1: none), and its share of
        each."""
        memory = row.get("memory_bytes")
        shares: list[float | None] = [None] * 5
        best, dominant = 0.0, -1
        cpu, gpu, disk, wakeups = flows
        factors = scope.factors
        denominators = scope.denominators
        for i, x in ((_GPU, gpu), (_DISK, disk), (_WAKEUPS, wakeups)):
            if x is None:
                continue
            part = x / denominators[i if i < _MEMORY else i - 1]
            shares[i] = part
            if part * factors[i] > best:
                best, dominant = part * factors[i], i
        if cpu is not None:
            shares[_CPU] = cpu / denominators[_CPU]
            times = scope.cpu_times(cpu, row) if cpu else 0.0
            if times and times >= best:
                best, dominant = times, _CPU
        if memory is not None:
            part = memory * scope.memory_factor
            shares[_MEMORY] = part
            if part * factors[_MEMORY] > best:
                best, dominant = part * factors[_MEMORY], _MEMORY
        return best, dominant, shares

    def _row(self, row: Row, flows: Flows, scope: Scope, value: int, best: float, dominant: int,
             shares: list[float | None]) -> Row:
        """A copy of the row with its score."""
        out = row.copy()
        out["model"] = "share"
        out["score"] = value
        out["band"] = self._bands.of(value)
        out["disproportionality"] = round(best, 3)
        if dominant >= 0:
            out["dominant_resource"] = RESOURCES[dominant]
        for name, known in zip(_SHARES, shares, strict=True):
            if known and (part := round(known, 5)):
                out[name] = part
        if self._explain:
            out["terms"] = _terms(row, flows, shares, scope, dominant)
        return out

    def _forget(self, key: Key) -> None:
        self._flows.pop(key, None)
        self._known.discard(key)
        self._ran.pop(key, None)
        self._large.discard(key)
        self._scored.discard(key)
        self._made.pop(key, None)


class Scope:
    """What all processes of one tick are measured by.

    `n`: 1/n is the fair share. `denominators` of the four flows. `memory_factor`: scarcity / total. `factors`: weight
    * n * (1 + gain * pressure) by resource. `core`: times of one whole core, at least. `nice`: the factor of the CPU
    share and `core` of processes that yield to others. `pressures` by resource. `full`: all cores are busy. `scale`:
    the step of scarcity * n.
    """

    __slots__ = ("core", "denominators", "factors", "full", "memory_factor", "n", "nice", "pressures", "scale")

    def __init__(self, n: int, denominators: tuple[float, ...], memory_factor: float, factors: tuple[float, ...],
                 core: float, nice: tuple[float, float], pressures: tuple[float, ...], full: bool,
                 scale: int) -> None:
        self.n = n
        self.denominators = denominators
        self.memory_factor = memory_factor
        self.factors = factors
        self.core = core
        self.nice = nice
        self.pressures = pressures
        self.full = full
        self.scale = scale

    def cpu_times(self, cores: float, row: Row) -> float:
        """The use of `cores` in fair shares: by the share, and at least by the cores themselves."""
        yields = (row.get("nice") or 0) >= _YIELDS_FROM or row.get("policy") == "idle"
        factor, core = self.nice if yields else (self.factors[_CPU], self.core)
        share = cores / self.denominators[_CPU] * factor
        if self.full and cores + row.get("run_delay_ms_per_s", 0.0) / 1000 >= _FULL * row.get("threads", 1):
            cores /= _STARVED
        return max(share, min(1.0, cores) * core)


def _use(row: Row) -> Flows:
    cpu = row.get("cpu_percent")
    if cpu is None:
        return _UNKNOWN
    # A shell that uses CPU and disk through short-lived children is as much of a hog as one that uses them itself.
    cpu += row.get("children_cpu_percent", 0.0)
    gpu, disk, wakeups = row.get("gpu_ms_per_s"), row.get("disk_bytes_per_s"), row.get("wakeups_per_s")
    if disk is not None:
        disk += row.get("children_disk_bytes_per_s", 0.0)
    if not cpu and not gpu and not disk and not wakeups:
        return _IDLE
    return cpu / 100.0, None if gpu is None else gpu / 1000.0, disk, wakeups


def _terms(row: Row, flows: Flows, shares: list[float | None], scope: Scope, dominant: int) -> list[dict[str, Any]]:
    """What each resource contributed, the largest first; the largest one's points are the score."""
    uses = (flows[0], flows[1], row.get("memory_bytes"), flows[2], flows[3])
    ranked = []
    for i, name in enumerate(RESOURCES):
        part, use = shares[i], uses[i]
        if part is None or use is None:
            continue
        times = scope.cpu_times(use, row) if i == _CPU else part * scope.factors[i]
        ranked.append((-times, i != dominant, i, {
            "resource": name, "use": round(use, 3), "share": round(part, 5), "pressure": round(scope.pressures[i], 3),
            "times": round(times, 3), "points": round(points(times), 1)}))
    return [term for _, _, _, term in sorted(ranked)]
