"""A month of a machine: quiet minutes in bulk, and planted troubles that go through the stages of rh-pipe."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.report.verdict_text import pause_culprits
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.schema.field import Key
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.database import open_writer
from rogue_hunter.store.tables import COMMAND_MINUTES, MACHINE_MINUTES
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.pauses import Pauses
from tests.tools.ticks import GIB, closing, key, row

CONFIG = Config()
MONTH = 44_640 if "RH_LONG" in os.environ else 14_880
"""Minutes of a month of 31 days; of a third of it, with all the troubles, where RH_LONG is not set."""
FIRST = 1_795_000_020
"""Epoch seconds of its first minute."""
LAST = FIRST + 60 * MONTH
CPUS, MEMORY = 4, 16 * GIB
MIB = 1 << 20

Course = Callable[[float], float]
"""Something over time: t in seconds, 0 at the beginning of the planted minute."""


def during(value: float, start: float = 0.0, end: float = 60.0, otherwise: float = 0.0) -> Course:
    """`value` from `start` up to `end`."""
    return lambda t: value if start <= t < end else otherwise


def steady(value: float) -> Course:
    """Always the same."""
    return lambda t: value


NOTHING = steady(0.0)

@dataclass(frozen=True)
class Proc:
    """A process: cores, bytes held, bytes/s written, cores of children that are gone in a moment, GPUs."""

    pid: int
    command: str
    cores: Course = NOTHING
    memory: Course = steady(40 * MIB)  # noqa: RUF009  (a constant)
    disk: Course = NOTHING
    children: Course = NOTHING
    gpu: Course | None = None
    wakeups: Course = NOTHING
    ppid: int = 1


@dataclass(frozen=True)
class Case:
    """A trouble: who does what, what the machine's row says at time t, and the answer that is wanted.

    `at` is when the question is asked, s after the beginning of the planted minute.
    """

    name: str
    cause: str
    command: str | None = None
    procs: Sequence[Proc] = ()
    machine: Callable[[float], dict[str, Any]] = field(default=lambda t: {})
    at: float = 30.0
    verdict: str = "found"
    gap: tuple[float, float] | None = None


QUIET = (
    ("firefox", 0.12, 1400, 40_000), ("gnome-shell", 0.05, 420, 0), ("code", 0.06, 1900, 20_000),
    ("slack", 0.02, 700, 4_000), ("postgres", 0.01, 600, 90_000), ("dockerd", 0.01, 150, 2_000),
    ("systemd-journal", 0.005, 60, 30_000), ("Xwayland", 0.02, 130, 0), ("pipewire", 0.01, 25, 0),
    ("rh-pipe", 0.007, 34, 3_000), ("thunderbird", 0.02, 800, 9_000), ("spotify", 0.04, 380, 6_000),
)
"""What usually runs: command, cores, MiB held, bytes/s written."""


def usual_procs(rnd: random.Random, count: int = 70) -> list[Proc]:
    """The processes of a desktop that does not do much."""
    made = []
    for i in range(count):
        name, cores, mib, disk = QUIET[i % len(QUIET)] if i < len(QUIET) else (
            f"daemon-{i:02d}", 0.002 * rnd.random(), rnd.choice((4, 9, 22, 48)), rnd.choice((0, 0, 500, 3000)))
        made.append(Proc(1000 + 7 * i, name, steady(cores * rnd.uniform(0.5, 1.5)),
                         steady(mib * rnd.uniform(0.9, 1.1) * MIB), steady(disk * rnd.uniform(0, 2)),
                         wakeups=steady(rnd.choice((0.2, 2, 8, 30)))))
    return made


def play(case: Case, start: float, rnd: random.Random, begin: int = -90, end: int = 150,
         seq: int = 0) -> Iterator[Tick]:
    """The ticks of a case, one a second, around the minute that begins at `start`."""
    procs = [*usual_procs(rnd, 40), *case.procs]
    used = {p.pid: [100.0, 0.0, 0.0, 0.0] for p in procs}  # CPU, bytes written, children's CPU, GPU
    rows: dict[Key, Row] = {}
    t, mono = float(begin), 10**13 + int(start * 1e9) % 10**15
    while t < end:
        told = {"pressure_cpu_some_ms_per_s": 3.0, "pressure_memory_full_ms_per_s": 0.0,
                "pressure_io_full_ms_per_s": 1.0, "cpu_steal_cores": 0.0, "self_run_delay_ms": 2.0,
                "cpu_counted_cores": float(CPUS), "self_cpu_percent": 0.7, "memory_available_bytes": 10 * GIB,
                "late_s": 0.002, "asleep_s": 0.0, **case.machine(t)}
        dt = 1.0 + told["late_s"]
        t += dt + told["asleep_s"]
        mono += int(dt * 1e9)
        if case.gap and case.gap[0] <= t < case.gap[1]:
            continue
        now: dict[Key, Row] = {}
        busy = 0.05
        for p in procs:
            cores, children, disk = p.cores(t), p.children(t), p.disk(t)
            busy += cores + children
            counts = used[p.pid]
            counts[0] += cores * dt
            counts[1] += disk * dt
            counts[2] += children * dt
            # Each trouble has processes of its own; the usual ones live through all of them.
            born = 500 + p.pid + (int(start) - FIRST if p.pid < 1000 else 0)
            waits = told["pressure_io_full_ms_per_s"] >= 100 and p.pid in (1000, 1007)
            made = row(p.pid, born, command=p.command, ppid=p.ppid, user="ada", start_time=start - 10_000,
                       state="uninterruptible" if waits else "running" if cores > 0.5 else "sleeping",
                       cpu_percent=round(100 * cores, 2), cpu_seconds_total=round(counts[0], 2), memory_bytes=int(p.memory(t)),
                       disk_write_bytes_total=int(counts[1]), disk_bytes_per_s=disk, wakeups_per_s=p.wakeups(t),
                       children_cpu_seconds_total=round(counts[2], 2))
            if p.gpu is not None:
                made["gpu_ms_per_s"] = 1000 * p.gpu(t)
            now[key(made)] = made
        yield Tick(closing(seq, len(now), ts=round(start + t, 3), mono_ns=mono, interval_s=round(dt, 3), cpus=CPUS,
                           memory_total_bytes=MEMORY, **{"cpu_busy_cores": round(min(busy, CPUS), 3), **told}),
                   now, {k for k, made in now.items() if rows.get(k) != made}, (), set())
        rows = now
        seq += 1


def stages(writer: Writer) -> list[Any]:
    """What rh-pipe runs."""
    stored = Store(writer)
    writer.tells(lambda: {"pid": 4242, "started_at": float(FIRST), "hz": 3.0, "model": "share", **stored.state()})
    return [Lineage(), Score(CONFIG), Track(CONFIG), Pauses(CONFIG.pause),
            History(CONFIG, judge=pause_culprits), stored]


def late(at: float, seconds: float, **more: Any) -> Callable[[float], dict[str, Any]]:
    """A beat that comes `seconds` late, `at` s into the minute, with these readings."""
    return lambda t: {"late_s": seconds, **more} if at <= t < at + 1 else {}


def through(start: float = 0.0, end: float = 60.0, **more: Any) -> Callable[[float], dict[str, Any]]:
    """Readings from `start` to `end`."""
    return lambda t: more if start <= t < end else {}


def grows(to: float, usual: float = 100 * MIB) -> Course:
    """Memory that grows during the planted minute, and is given back after it."""
    return lambda t: usual + (to - usual) * min(1.0, max(0.0, t / 40)) if t < 60 else usual


CASES = (
    Case("cpu hog", "cpu", "stress", [Proc(7, "stress", during(3.6))], through(pressure_cpu_some_ms_per_s=870.0)),
    Case("one loop", "cpu", "loop", [Proc(7, "loop", during(1.0))], verdict="use"),
    Case("cpu pause", "cpu", "ffmpeg", [Proc(7, "ffmpeg", during(3.8, 20, 28))],
         late(22, 3.0, self_run_delay_ms=2900.0, pressure_cpu_some_ms_per_s=990.0)),
    Case("memory eater", "memory", "eater", [Proc(7, "eater", during(0.3), grows(13 * GIB))],
         lambda t: {"memory_available_bytes": int((10 - 9.4 * min(1, max(0, t / 40))) * GIB),
                    "pressure_memory_full_ms_per_s": 300.0} if 0 <= t < 60 else {}),
    Case("memory pause", "memory", "leaky", [Proc(7, "leaky", during(0.1), grows(12 * GIB))],
         late(35, 4.0, pressure_memory_full_ms_per_s=700.0, pressure_io_full_ms_per_s=600.0,
              memory_available_bytes=GIB // 4), at=37),
    Case("heap", "memory", "java", [Proc(7, "java", steady(0.1), lambda t: (11 if 0 <= t < 60 else 2) * GIB)],
         through(pressure_memory_full_ms_per_s=80.0, memory_available_bytes=GIB)),
    Case("disk writer", "io", "dd", [Proc(7, "dd", during(0.2), disk=during(300e6))],
         through(pressure_io_full_ms_per_s=400.0)),
    Case("storage stall", "io", "rsync", [Proc(7, "rsync", during(0.2), disk=during(90e6, 10, 20))],
         through(12, 17, pressure_io_full_ms_per_s=920.0), at=15),
    Case("many reads", "io", "updatedb", [Proc(7, "updatedb", during(0.15), disk=during(40e6))],
         through(pressure_io_full_ms_per_s=150.0)),
    Case("fork storm", "cpu", "sh", [Proc(7, "sh", during(0.2), children=during(2.6))],
         through(pressure_cpu_some_ms_per_s=420.0, started=55, exited=55)),
    Case("steal", "steal", None, [], through(cpu_steal_cores=2.5)),
    Case("stood still", "steal", None, [], late(30, 5.0, cpu_counted_cores=0.4)),
    Case("stopped", "stopped", None, [], late(30, 6.0, continued=1)),
    Case("asleep", "asleep", None, [], lambda t: {"asleep_s": 2400.0} if 10 <= t < 12 else {}, at=1200),
    Case("dozed", "asleep", None, [], lambda t: {"asleep_s": 30.0} if 10 <= t < 11.5 else {}),
    Case("unknown", "unknown", None, [], late(30, 2.5, self_run_delay_ms=4.0)),
    Case("many compilers", "cpu", "cc1plus", [Proc(100 + i, "cc1plus", during(0.13), grows(200 * MIB), ppid=90)
                                              for i in range(30)], through(pressure_cpu_some_ms_per_s=900.0)),
    Case("gpu", "gpu", "blender", [Proc(7, "blender", during(0.2), gpu=during(0.97))]),
    Case("two hogs", "cpu", "chrome", [Proc(7, "make", during(1.2)), Proc(8, "chrome", during(2.5))],
         through(pressure_cpu_some_ms_per_s=760.0)),
    Case("not watched", "", None, [], at=900, verdict="no_evidence", gap=(10, 1810)),
)
"""Twenty troubles, each with the cause that was planted."""


def planted(index: int) -> int:
    """The minute (epoch seconds) in which case `index` begins."""
    return FIRST + 60 * (MONTH * (15 + 21 * index) // 446 + 37 * index * index % 101)


def _holes() -> set[int]:
    """Minutes that the background leaves to the cases."""
    holes = set()
    for index, case in enumerate(CASES):
        length = 45 if case.name == "asleep" else 32 if case.gap else 4
        holes |= set(range(planted(index) - 120, planted(index) + 60 * length, 60))
    return holes


def _templates(rnd: random.Random, count: int = 40) -> list[tuple[Record, list[Record]]]:
    """Minutes as the stage makes them of a quiet machine at 1 tick in 5 s, each with another set of processes."""
    made = []
    for _ in range(count):
        procs = usual_procs(rnd)
        burst = rnd.choice(procs[:12]).pid
        ticks = []
        for n in range(12):
            now = {}
            for p in procs:
                cores = p.cores(0) * rnd.uniform(0.6, 1.4) + (rnd.random() if p.pid == burst and n < 2 else 0)
                new = row(p.pid, 500, command=p.command, cpu_percent=100 * cores, memory_bytes=int(p.memory(0)),
                          disk_bytes_per_s=p.disk(0), wakeups_per_s=p.wakeups(0), run_delay_ms_per_s=rnd.random(),
                          score=int(10 * cores), unit=f"app-{p.command}-{p.pid}.scope")
                now[key(new)] = new
            busy = sum(r["cpu_percent"] for r in now.values()) / 100
            ticks.append(Tick(closing(n, len(now), ts=FIRST + 5.0 * n, interval_s=5.0, cpus=CPUS, cpu_busy_cores=busy,
                                      memory_total_bytes=MEMORY, memory_available_bytes=int(rnd.uniform(9, 11) * GIB),
                                      pressure_cpu_some_ms_per_s=rnd.uniform(0, 8), pressure_memory_full_ms_per_s=0.0,
                                      pressure_io_full_ms_per_s=rnd.uniform(0, 3), cpu_steal_cores=0.0,
                                      unattributed_cpu_cores=0.05, self_cpu_percent=0.7, late_s=rnd.random() / 50,
                                      started=rnd.randrange(3), max_score=9),
                              now, set(now), (), set(now)))
        records = [r for t in chain(iter(ticks), History(CONFIG)) for r in t.records if r["type"].endswith("_minute")]
        made.append((records[0], records[1:]))
    return made


def build_month(path: Path, seed: int = 23) -> None:
    """Write the month: the background at once, then the cases, tick by tick, and a last quiet minute."""
    rnd = random.Random(seed)
    connection, _ = open_writer(path)
    machine = [c.name for c in MACHINE_MINUTES.columns]
    command = [c.name for c in COMMAND_MINUTES.columns]
    templates = [([m.get(n) for n in machine], [[c.get(n) for n in command] for c in cs])
                 for m, cs in _templates(rnd)]
    holes = _holes()
    at = [FIRST + 60 * n for n in range(MONTH - 2) if FIRST + 60 * n not in holes]
    chosen = rnd.choices(templates, k=len(at))
    pid = command.index("pid")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -64000")
    connection.execute("BEGIN")
    insert = "INSERT INTO {} VALUES ({})"
    connection.executemany(insert.format("machine_minutes", ", ".join("?" * len(machine))),
                           ([minute, *m[1:]] for minute, (m, _) in zip(at, chosen, strict=True)))
    connection.executemany(insert.format("command_minutes", ", ".join("?" * len(command))),
                           ([minute, *c[1:pid], c[pid] + n % 9000, *c[pid + 1:]]
                            for n, (minute, (_, cs)) in enumerate(zip(at, chosen, strict=True)) for c in cs))
    connection.execute("COMMIT")
    connection.close()
    end = 0.0
    writer = Writer(path, CONFIG.store, lambda: end, lambda message: None)
    for index, case in enumerate(CASES):
        start = planted(index)
        ticks = play(case, start, random.Random(index), end=1900 if case.gap else 150)
        for tick in chain(ticks, *stages(writer)):
            end = tick.row["ts"] if tick.row else end
    for tick in chain(play(Case("quiet", ""), LAST - 120, random.Random(99), 0, 119), *stages(writer)):
        end = tick.row["ts"] if tick.row else end
    assert writer.degraded is None and writer.dropped == 0
    writer.close()
