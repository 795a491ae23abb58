"""Slices made by hand, and whole days of them: idle, busy as usual, and the worst that can be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rogue_hunter.store.database import open_writer
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.writer import SliceBudget
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from tests.tools.ticks import BOOT, START

DAY = 17_280
"""Slices of a day."""
FIRST = START // 60 * 60


def machine(at: float, **more: Any) -> Record:
    """A slice of a busy machine of 8 CPUs."""
    usual = {"slice": at, "boot_id": BOOT, "seconds": 5.0, "ticks": 15, "cpus": 8, "cpu_busy_cores": 7.912,
             "cpu_busy_cores_max": 8.0, "unattributed_cpu_cores": 0.213, "run_delay_ms_per_s": 812.44,
             "memory_total_bytes": 1 << 34, "memory_available_bytes": 9_123_456_789, "pressure_cpu_some_ms_per_s": 412.5,
             "pressure_memory_some_ms_per_s": 0.0, "pressure_memory_full_ms_per_s": 0.0,
             "pressure_io_some_ms_per_s": 91.25, "pressure_io_full_ms_per_s": 12.125, "disk_bytes": 123_456_789,
             "late_s": 0.012, "self_cpu_percent": 1.03, "self_run_delay_ms": 13.52, "processes": 512, "started": 44,
             "exited": 43, "unreadable": 0, "uninterruptible": 1, "max_score": 71}
    return record("machine_slice", **{**usual, **more})


def process(at: float, pid: int, start: int = 1, **more: Any) -> Record:
    usual = {"slice": at, "boot_id": BOOT, "seconds": 5.0, "pid": pid, "start_ticks": start, "ppid": 1, "uid": 1000,
             "user": "someone", "command": "cc1plus", "cmdline": "/usr/libexec/gcc/cc1plus -quiet -I . " + "x" * 300,
             "cgroup": "/user.slice/user-1000.slice/session-2.scope", "unit": f"make[{pid // 64}]", "nice": 0,
             "state": "running", "cpu_seconds": 1.234, "children_cpu_seconds": 0.0, "disk_bytes": 234_567,
             "memory_bytes": 345_678_901, "memory_growth_bytes": 45_678_901, "wakeups": 456, "pageins": 3,
             "run_delay_s": 0.321, "uninterruptible_s": 0.33, "stopped_s": 0.0, "max_score": 47, "rogue_s": 3.33}
    return record("process_slice", **{**usual, **more})


def group(at: float, unit: str, **more: Any) -> Record:
    usual = {"slice": at, "boot_id": BOOT, "seconds": 5.0, "unit": unit, "name": "cc1plus", "pid": 77, "start_ticks": 5,
             "processes": 40, "started": 38, "cpu_seconds": 9.5, "children_cpu_seconds": 1.25, "disk_bytes": 2_345_678,
             "memory_bytes": 3_456_789_012, "memory_growth_bytes": 1_234_567, "wakeups": 4567, "pageins": 33,
             "run_delay_s": 4.321, "uninterruptible_s": 0.0, "stopped_s": 0.0, "max_score": 47, "rogue_s": 5.0}
    return record("group_slice", **{**usual, **more})


def minute(at: float, **more: Any) -> Record:
    """The minute of the machine that begins at `at`."""
    return record("machine_minute", **{"minute": int(at), "boot_id": BOOT, "ticks": 180, "seconds": 60.0, "cpus": 8,
                                       "cpu_busy_cores": 2.0, "late_s": 0.01, "pauses": 0, **more})


def idle_day() -> Iterator[list[Record]]:
    """A day on which a timer runs every ten minutes and a person types now and then."""
    calm = {"pressure_cpu_some_ms_per_s": 2.0, "pressure_io_some_ms_per_s": 0.5, "uninterruptible": 0,
            "cpu_busy_cores": 0.04}
    for n in range(17280):
        at = FIRST + 5 * n
        batch = [machine(at, **calm)]
        if n % 12 == 0:  # who holds memory, once a minute
            batch += [process(at, pid, cpu_seconds=0.01) for pid in range(100, 106)]
        if n % 120 == 7 or n % 50 == 3:
            batch += [process(at, 1000 + n, n), process(at, 100, children_cpu_seconds=0.5), group(at, "cron.service")]
        yield batch


def busy_day(slices: int) -> Iterator[list[Record]]:
    """The worst: in each slice other processes lead, each with a long command line, in other units."""
    for n in range(slices):
        at = FIRST + 5 * n
        yield [machine(at), *(process(at, 1000 + (64 * n + i) % 60000, n) for i in range(40)),
               *(group(at, f"make[{(8 * n + i) % 60000}]") for i in range(8))]


def usual_day(slices: int) -> Iterator[list[Record]]:
    """A busy one: 25 processes lead, two of them new in each slice."""
    for n in range(slices):
        at = FIRST + 5 * n
        yield [machine(at), *(process(at, 100 + i) for i in range(23)), *(process(at, 5000 + n, n + i) for i in range(2)),
               *(group(at, f"u{i}") for i in range(6))]


def build_busy_day(path: Path, slices: int = DAY) -> None:
    """Write a day on which something waits for a CPU most of the time, 20 processes last and two are new in each slice."""
    rnd = random.Random(3)
    connection, _ = open_writer(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    budget = SliceBudget()
    for n in range(slices):
        at, busy = FIRST + 5 * n, rnd.random()
        batch = [machine(at, pressure_cpu_some_ms_per_s=800 * busy, run_delay_ms_per_s=1500 * busy,
                         cpu_busy_cores=8 * busy),
                 *(process(at, 100 + i, cpu_seconds=3 * rnd.random(), run_delay_s=rnd.random()) for i in range(20)),
                 *(process(at, 5000 + n, n + i, cpu_seconds=2 * rnd.random()) for i in range(2)),
                 *(group(at, f"u{i}", cpu_seconds=9 * rnd.random()) for i in range(6))]
        for each in budget.chosen(batch):
            WRITES[each["type"]](connection, each)
        if n % 12 == 11:
            WRITES["machine_minute"](connection, minute(at - 55, cpu_busy_cores=6.0))
    last = wire.dumps({"ts": FIRST + 5 * slices, "boot_id": BOOT}).decode()
    connection.execute("INSERT INTO daemon_state VALUES ('last_tick', ?, 0)", (last,))
    connection.execute("COMMIT")
    connection.close()
