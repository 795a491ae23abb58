"""Ticks made by hand, and a seeded machine whose processes live, burn, rest, die and are reused."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.schema.field import Key
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Row, Tick

BOOT = "0b00710d-0000-4000-8000-000000000001"
START = 1_700_000_000.0
"""Wall clock of the first tick."""
GIB = 1 << 30


def at_once(config: Config) -> Config:
    """The configuration with events that begin with the first tick at or above the band: short courses have events."""
    return replace(config, tracking=replace(config.tracking, enter_s=0.0, enter_critical_s=0.0))


def row(pid: int, start: int = 1000, **fields: Any) -> Row:
    """The row of a process that sleeps and holds 1 MiB, with `fields` over it; None leaves a field out."""
    usual: Row = {
        "pid": pid,
        "start_ticks": start,
        "start_time": START - 1000 + start / 100,
        "ppid": 1,
        "uid": 1000,
        "command": f"p{pid}",
        "state": "sleeping",
        "threads": 1,
        "cpu_seconds_total": 1.0,
        "cpu_percent": 0.0,
        "memory_bytes": 1 << 20,
        "pageins_per_s": 0.0,
        "faults_per_s": 0.0,
        "disk_read_bytes_total": 0,
        "disk_write_bytes_total": 0,
        "disk_bytes_per_s": 0.0,
        "context_switches_per_s": 0.0,
        "wakeups_per_s": 0.0,
    }
    usual.update(fields)
    return {name: value for name, value in usual.items() if value is not None}


def named_row(pid: int, start: int = 1000, **fields: Any) -> Row:
    """The row of a process whose program and arguments have been read, as rules need it."""
    name = fields.get("command", f"p{pid}")
    return row(pid, start, **{"exe": f"/usr/bin/{name}", "cmdline": name, **fields})


def closing(seq: int, processes: int, **fields: Any) -> Row:
    """The closing row of tick `seq` of a quiet machine of 8 CPUs that beats three times a second."""
    usual: Row = {
        "ts": round(START + seq / 3, 3),
        "seq": seq,
        "mono_ns": 10**12 + seq * 10**9 // 3,
        "host": "testhost",
        "boot_id": BOOT,
        "os": "linux",
        "interval_s": 0.333333,
        "late_s": 0.0,
        "asleep_s": 0.0,
        "cpus": 8,
        "memory_total_bytes": 16 * GIB,
        "memory_available_bytes": 12 * GIB,
        "cpu_busy_cores": 0.1,
        "processes": processes,
        "active": 1,
        "started": 0,
        "exited": 0,
        "unreadable": 0,
        "errors": 0,
    }
    usual.update(fields)
    return {name: value for name, value in usual.items() if value is not None}


def key(made: Row) -> Key:
    """The identity of a row."""
    return made["pid"], made["start_ticks"]


def stream(ticks: Iterable[Iterable[Row]], **fields: Any) -> Iterator[Tick]:
    """Whole ticks of the given rows with the sets that a host would fill; `fields` go into every closing row."""
    before: dict[Key, Row] = {}
    for seq, rows in enumerate(ticks):
        now = {key(made): made for made in rows}
        changed = {k for k, made in now.items() if before.get(k) is not made}
        exited = tuple(k for k in before if k not in now)
        yield Tick(
            closing(seq, len(now), **{"started": len(now.keys() - before.keys()), "exited": len(exited), **fields}),
            now,
            changed,
            exited,
        )
        before = now


def lines(ticks: Iterable[Tick]) -> bytes:
    """The ticks as NDJSON."""
    sink = io.BytesIO()
    wire.write(iter(ticks), sink)
    return sink.getvalue()


def read(data: bytes, stage: str = "test") -> tuple[list[Tick], wire.Reader]:
    """All ticks of some NDJSON, and the reader, which knows what was wrong."""
    reader = wire.Reader(io.BytesIO(data), stage)
    return list(reader.ticks()), reader


class Machine:
    """A machine that a seed decides.

    Every process has a mood (idle, burn, disk, churn, large); moods change, processes end, and their pids are given
    out again at once, some with the same name. A process that does nothing keeps its row object, as with a real host.
    """

    MOODS = ("idle", "idle", "idle", "idle", "burn", "disk", "churn", "large")
    NAMES = ("cc1plus", "backup) R", "tab\there", "naïve", "esc\x1b[2J", "postgres", "kworker/0:1")

    def __init__(self, seed: int, processes: int = 30, cpus: int = 4) -> None:
        self.random = random.Random(seed)
        self.cpus = cpus
        self.seq = 0
        self.mono_ns = 5 * 10**11
        self.ts = START
        self.clock = 100
        self.rows: dict[Key, Row] = {}
        self.moods: dict[Key, str] = {}
        self.free = list(range(200, 200 + 2 * processes))
        for _ in range(processes):
            self._begin()

    def _begin(self) -> Key:
        self.clock += self.random.randint(1, 50)
        # The lowest free pid: what was freed last is soon in use again.
        pid = self.free.pop(self.random.choice((0, 0, -1)))
        made = row(
            pid,
            self.clock,
            command=self.random.choice(self.NAMES),
            memory_bytes=self.random.choice((0, 1 << 20, 3 * GIB)),
            cpu_percent=None,
            disk_bytes_per_s=None,
            context_switches_per_s=None,
            wakeups_per_s=None,
        )
        self.rows[key(made)] = made
        self.moods[key(made)] = self.random.choice(self.MOODS)
        return key(made)

    def _live(self, k: Key) -> Row:
        r, before = self.random, self.rows[k]
        mood = self.moods[k]
        if r.random() < 0.08:
            mood = self.moods[k] = r.choice(self.MOODS)
        if mood in ("idle", "large") and before.get("cpu_percent") == 0.0 and r.random() < 0.97:
            return before
        new = dict(before)
        burn = mood == "burn"
        new["state"] = "running" if burn else r.choice(("sleeping", "sleeping", "uninterruptible", "defunct"))
        new["cpu_percent"] = (
            round(r.uniform(60, 100), 2) if burn else round(r.uniform(0, 5), 2) if mood != "idle" else 0.0
        )
        new["cpu_seconds_total"] = round(before["cpu_seconds_total"] + new["cpu_percent"] / 300, 2)
        new["disk_bytes_per_s"] = round(r.uniform(1e6, 3e8), 1) if mood == "disk" else 0.0
        new["context_switches_per_s"] = new["wakeups_per_s"] = (
            round(r.uniform(10, 20_000), 1) if mood == "churn" else 0.0
        )
        new["run_delay_ms_per_s"] = round(r.uniform(0, 900), 2) if burn else 0.0
        new["memory_bytes"] = r.choice((4, 6, 8)) * GIB if mood == "large" else before["memory_bytes"]
        return new

    def tick(self) -> Tick:
        """One beat later."""
        r = self.random
        interval = r.choice((0.333333, 0.333333, 0.334, 1.7)) if self.seq else 0.0
        self.mono_ns += int(interval * 1e9)
        self.ts = round(self.ts + interval, 3)
        before = dict(self.rows)
        gone = [k for k in self.rows if r.random() < 0.02]
        for k in gone:
            del self.rows[k], self.moods[k]
            self.free.insert(0, k[0])
        for k in list(self.rows):
            self.rows[k] = self._live(k)
        new = [self._begin() for _ in range(len(gone) if r.random() < 0.9 else 0)]
        busy = sum(made.get("cpu_percent", 0.0) for made in self.rows.values()) / 100
        tick = Tick(
            closing(
                self.seq,
                len(self.rows),
                ts=self.ts,
                mono_ns=self.mono_ns,
                interval_s=interval,
                cpus=self.cpus,
                cpu_busy_cores=round(min(busy, self.cpus), 3) if self.seq else None,
                memory_available_bytes=r.choice((12, 7, 5, 2, 1)) * GIB if r.random() < 0.2 else 6 * GIB,
                pressure_cpu_some_ms_per_s=round(r.uniform(0, 1000), 1),
                pressure_io_full_ms_per_s=round(r.uniform(0, 300), 1),
                started=len(new),
                exited=len(gone),
                active=len(self.rows),
            ),
            dict(self.rows),
            {k for k, made in self.rows.items() if before.get(k) is not made},
            tuple(gone),
        )
        self.seq += 1
        return tick

    def ticks(self, count: int) -> Iterator[Tick]:
        """The next `count` beats."""
        return (self.tick() for _ in range(count))
