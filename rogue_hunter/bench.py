"""Measure what rogue-hunter costs on this machine: the CPU time of each part, on the processes that run now.

The comparison with other tools is in tests/bench; this is the short measurement for any machine.
"""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rogue_hunter.config.options import Config
from rogue_hunter.host.protocol import Host, Snapshot
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.sample import sample
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream import wire
from rogue_hunter.stream.clock import Beat
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Tick, record
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.pauses import Pauses

Cpu = Callable[[], float]
"""CPU time of this thread, seconds. The clock of the process becomes coarse (4 ms) for a while after a CPU timer was
set, as the rules do. The thread that reads names at the start is then not counted."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One part, and the milliseconds of each repetition."""

    part: str
    doc: str
    ms: tuple[float, ...]

    def as_record(self, processes: int, hz: float) -> Record:
        """The `bench` record: median, average, least and most; for a part of a tick, its share of one core at `hz`."""
        middle = statistics.median(self.ms)
        return record("bench", part=self.part, meaning=self.doc, median_ms=round(middle, 3),
                      mean_ms=round(statistics.fmean(self.ms), 3),
                      min_ms=round(min(self.ms), 3), max_ms=round(max(self.ms), 3), runs=len(self.ms),
                      processes=processes,
                      us_per_process=round(1000 * middle / max(1, processes), 2),
                      core_percent=round(middle * hz / 10, 3) if self.part in TICK_PARTS else None)


TICK_PARTS = ("tick", "gate")
"""Parts that a running rh-pipe pays at every beat."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits: `seconds` for everything, and at most `runs` of one part (at least three; more than
    1,000 do not change its median)."""

    seconds: float = 10.0
    runs: int = 1000

    def times(self, work: Callable[[], object], share: float, cpu: Cpu) -> tuple[float, ...]:
        """Milliseconds of each run, within a share of the time."""
        times: list[float] = []
        used = 0.0
        while len(times) < min(3, self.runs) or (len(times) < self.runs and used < share * self.seconds):
            before = cpu()
            work()
            taken = cpu() - before
            used += taken
            times.append(1000 * taken)
        return tuple(times)

    def beats(self, share: float, hz: float) -> int:
        """Number of beats within a share of the time."""
        return min(self.runs, max(3, round(self.seconds * share * hz)))


def measures(make: Callable[[], Host], listed: Callable[[], int], rules: RuleSet, config: Config, limits: Limits,
             cpu: Cpu = time.thread_time, sleep: Callable[[float], object] = time.sleep) -> Iterator[Record]:
    """Measure within `limits`, and yield a `bench` record for each part when it is done. `make` makes a host; `listed`
    only lists the processes."""
    hz = config.system.hz
    full, scan, tick = _cold(make, rules, config, limits, cpu)
    count = len(tick.processes)
    fresh = _as_tick(tick)
    yield Measure("enumerate", "list the processes", limits.times(listed, 0.02, cpu)).as_record(count, hz)
    yield Measure("full_read", "read every process completely, as at the start", full).as_record(count, hz)
    yield Measure("gate", "one reading at the beat: idle processes by the gate, others completely",
                  _gate(make, limits.beats(0.3, hz), 1 / hz, cpu, sleep)).as_record(count, hz)
    yield Measure("score_all", "score every process without history",
                  limits.times(lambda: Score(config)(fresh), 0.04, cpu)).as_record(count, hz)
    yield Measure("match_all", "match every process against every rule, without history",
                  limits.times(lambda: Matcher(rules)(fresh), 0.04, cpu)).as_record(count, hz)
    yield Measure("scan", "a full scan: list, read, score and match every process, without history",
                  scan).as_record(count, hz)
    yield Measure("serialise", "write every process as NDJSON",
                  limits.times(lambda: wire.Encoder().tick(fresh), 0.02, cpu)).as_record(count, hz)
    yield Measure("tick", "a whole tick of rh-pipe: read, score, track, match, keep; without the database",
                  _whole(make, rules, config, limits.beats(0.4, hz), cpu, sleep)).as_record(count, hz)
    yield record("bench", part="memory", meaning="peak resident memory of this command",
                 memory_bytes=_peak_memory(), processes=count)


def _cold(make: Callable[[], Host], rules: RuleSet, config: Config, limits: Limits,
          cpu: Cpu) -> tuple[tuple[float, ...], tuple[float, ...], Snapshot]:
    """Milliseconds of complete readings, and of whole scans; and the last reading."""
    read: list[float] = []
    shots: list[Snapshot] = []

    def scan() -> None:
        before = cpu()
        host = make()
        try:
            shots[:] = [host.snapshot()]
            read.append(1000 * (cpu() - before))
            Matcher(rules)(Score(config)(_as_tick(shots[0])))
        finally:
            host.close()

    scans = limits.times(scan, 0.08, cpu)
    return tuple(read), scans, shots[0]


def _gate(make: Callable[[], Host], beats: int, period: float, cpu: Cpu,
          sleep: Callable[[float], object]) -> tuple[float, ...]:
    host = make()
    try:
        host.snapshot()
        times = []
        for _ in range(beats):
            sleep(period)
            before = cpu()
            host.snapshot()
            times.append(1000 * (cpu() - before))
        return tuple(times)
    finally:
        host.close()


def _as_tick(shot: Snapshot) -> Tick:
    row = {"ts": time.time(), "seq": 0, "mono_ns": shot.mono_ns, "boot_id": "bench", "os": sys.platform,
           "interval_s": 1.0, "late_s": 0.0, "processes": len(shot.processes), **shot.machine}
    return Tick(row, shot.processes, set(shot.processes))


def _whole(make: Callable[[], Host], rules: RuleSet, config: Config, ticks: int, cpu: Cpu,
           sleep: Callable[[float], object]) -> tuple[float, ...]:
    """CPU time of whole ticks through all stages, including the wait between them; the first three are warm-up."""
    host = make()
    try:
        period = 1 / config.system.hz
        times = []
        before = cpu()
        stream = chain(sample(host, _beats(ticks + 4, period, sleep), silent_first=True), Lineage(), Score(config),
                       Track(config), Pauses(config.pause), History(config), Matcher(rules))
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
    """Peak resident memory, bytes. On Linux ru_maxrss includes the program before exec; VmHWM does not."""
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        status = b""
    if own := re.search(rb"^VmHWM:\s+(\d+) kB", status, re.M):
        return int(own[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
