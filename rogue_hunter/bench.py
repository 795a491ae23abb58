"""What rogue-hunter costs on this machine: each part measured by itself, in CPU time, on the processes that run now.

The comparison with other tools is in tests/bench; this is the short answer for a user's own machine.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rogue_hunter import wire
from rogue_hunter.beat import Beat
from rogue_hunter.config import Config
from rogue_hunter.host import Host, Snapshot
from rogue_hunter.lineage import lineage
from rogue_hunter.match import match
from rogue_hunter.minutes import minutes
from rogue_hunter.pause import pauses
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.sample import sample
from rogue_hunter.score import score
from rogue_hunter.tick import Record, Tick, chain, record
from rogue_hunter.track import track

Cpu = Callable[[], float]
"""CPU time of this thread, seconds. That of the process turns coarse (4 ms) for a while after a CPU timer was set, as
the rules do; the thread that reads names at the start is then not counted."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One part: what it is and the milliseconds of each repetition."""

    part: str
    doc: str
    ms: tuple[float, ...]

    def as_record(self, processes: int, hz: float) -> Record:
        """The `bench` record: median, least and most; for a part of a tick, its share of one core at `hz`."""
        middle = statistics.median(self.ms)
        return record("bench", part=self.part, meaning=self.doc, median_ms=round(middle, 3),
                      min_ms=round(min(self.ms), 3), max_ms=round(max(self.ms), 3), runs=len(self.ms),
                      processes=processes,
                      us_per_process=round(1000 * middle / max(1, processes), 2),
                      core_percent=round(middle * hz / 10, 3) if self.part in TICK_PARTS else None)


TICK_PARTS = ("tick", "gate", "score", "match")
"""Parts that a running rh-pipe pays at every beat."""


def measures(make: Callable[[], Host], rules: RuleSet, config: Config, seconds: float, cpu: Cpu = time.thread_time,
             sleep: Callable[[float], object] = time.sleep) -> Iterator[Record]:
    """Measure for about `seconds` and give a `bench` record for each part, as it is known."""
    hz = config.system.hz
    runs = max(3, round(seconds / 5))
    full, tick = _cold(make, runs, cpu)
    count = len(tick.processes)
    yield Measure("enumerate", "list the processes", _times(_enumerate, runs * 5, cpu)).as_record(count, hz)
    yield Measure("full_read", "read every process in full, as at the start", full).as_record(count, hz)
    host = make()
    try:
        host.snapshot()
        gate = []
        for _ in range(max(3, round(seconds * 0.3 * hz))):
            sleep(1 / hz)
            before = cpu()
            host.snapshot()
            gate.append(1000 * (cpu() - before))
        yield Measure("gate", "one reading at the beat: idle processes by the gate, others in full",
                      tuple(gate)).as_record(count, hz)
    finally:
        host.close()
    fresh = _as_tick(tick)
    yield Measure("score_all", "score every process from nothing",
                  _times(lambda: list(score(config)(iter([fresh]))), runs, cpu)).as_record(count, hz)
    yield Measure("match_all", "ask every process every rule, from nothing",
                  _times(lambda: list(match(iter([fresh]), rules)), runs, cpu)).as_record(count, hz)
    yield Measure("serialise", "write every process as NDJSON",
                  _times(lambda: wire.Encoder().tick(fresh), runs, cpu)).as_record(count, hz)
    yield Measure("tick", "a whole tick of rh-pipe: read, score, track, judge, keep; without the database",
                  _whole(make, rules, config, max(3, round(seconds * 0.4 * hz)), cpu, sleep)).as_record(count, hz)
    yield record("bench", part="memory", meaning="resident memory of this command, at its highest",
                 memory_bytes=_peak_memory(), processes=count)


def _cold(make: Callable[[], Host], runs: int, cpu: Cpu) -> tuple[tuple[float, ...], Snapshot]:
    times = []
    for _ in range(runs):
        host = make()
        try:
            before = cpu()
            shot = host.snapshot()
            times.append(1000 * (cpu() - before))
        finally:
            host.close()
    return tuple(times), shot


def _enumerate() -> int:
    """The number of processes that this system lists; through /proc where there is one."""
    return len(os.listdir("/proc")) if os.path.isdir("/proc/self") else 0


def _as_tick(shot: Snapshot) -> Tick:
    row = {"ts": time.time(), "seq": 0, "mono_ns": shot.mono_ns, "boot_id": "bench", "os": sys.platform,
           "interval_s": 1.0, "late_s": 0.0, "processes": len(shot.processes), **shot.machine}
    return Tick(row, shot.processes, set(shot.processes))


def _times(work: Callable[[], object], runs: int, cpu: Cpu) -> tuple[float, ...]:
    times = []
    for _ in range(runs):
        before = cpu()
        work()
        times.append(1000 * (cpu() - before))
    return tuple(times)


def _whole(make: Callable[[], Host], rules: RuleSet, config: Config, ticks: int, cpu: Cpu,
           sleep: Callable[[float], object]) -> tuple[float, ...]:
    """CPU time of whole ticks through all stages, the wait between them included; the first three are warming up."""
    host = make()
    try:
        period = 1 / config.system.hz
        times = []
        before = cpu()
        stream = chain(sample(host, _beats(ticks + 4, period, sleep), silent_first=True), lineage, score(config),
                       track(config), pauses(config.pause), minutes(config), lambda ticks: match(ticks, rules))
        for tick in stream:
            now = cpu()
            if tick.row is not None:
                times.append(1000 * (now - before))
            before = now
        return tuple(times[3:])
    finally:
        host.close()


def _beats(count: int, period: float, sleep: Callable[[float], object]) -> Iterator[Beat]:
    last = time.monotonic_ns()
    for seq in range(count):
        if seq:
            sleep(period)
        now = time.monotonic_ns()
        yield Beat(seq, now, time.time(), (now - last) / 1e9, 0.0, 0.0)
        last = now


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
