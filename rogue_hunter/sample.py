"""Beats in, ticks out: read the host once a beat and say what the reading cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from rogue_hunter.beat import Beat
from rogue_hunter.host import Facts, Host, Snapshot
from rogue_hunter.schema import Key
from rogue_hunter.tick import Row, Stage, Tick


def sample(host: Host, beats: Iterable[Beat], *, silent_first: bool = False,
           cpu_time: Callable[[], float] = time.process_time) -> Iterator[Tick]:
    """Read `host` at every beat.

    With `silent_first` the first reading is taken and not given out, so that the first tick carries rates.
    `cpu_time` is the CPU time of rogue-hunter itself, seconds.
    """
    facts = host.facts()
    before = cpu_time()
    own: Key | None = None
    for beat in beats:
        shot = host.snapshot()
        now = cpu_time()
        if own not in shot.processes:
            own = _own_key(shot)
        if not (silent_first and beat.seq == 0):
            if silent_first:
                beat = replace(beat, seq=beat.seq - 1)
            own_row = shot.processes[own] if own else None
            yield Tick(_closing_row(facts, beat, shot, now - before, own_row), shot.processes, shot.changed,
                       shot.exited)
        before = now


def _own_key(shot: Snapshot) -> Key | None:
    pid = os.getpid()
    return next((key for key in shot.processes if key[0] == pid), None)


def _closing_row(facts: Facts, beat: Beat, shot: Snapshot, own_cpu_s: float, own_row: Row | None) -> Row:
    row: Row = {
        "ts": round(beat.ts, 3), "seq": beat.seq, "mono_ns": beat.mono_ns, "host": facts.host,
        "boot_id": facts.boot_id, "os": facts.os, "interval_s": round(beat.interval_s, 6),
        "late_s": round(beat.late_s, 6), "asleep_s": round(beat.asleep_s, 3), "cpus": facts.cpus,
        "memory_total_bytes": facts.memory_total_bytes,
    }
    row.update(shot.machine)
    row.update(processes=len(shot.processes), active=shot.active, started=shot.started, exited=len(shot.exited),
               unreadable=shot.unreadable, errors=shot.errors)
    busy = row.get("cpu_busy_cores")
    if busy is not None and shot.cpu_cores is not None:
        row["unattributed_cpu_cores"] = round(max(0.0, busy - shot.cpu_cores), 3)
    if beat.interval_s > 0:
        row["self_cpu_percent"] = round(100 * own_cpu_s / beat.interval_s, 2)
    if own_row is not None and "memory_bytes" in own_row:
        row["self_memory_bytes"] = own_row["memory_bytes"]
    return row


def select(*, active: bool = False, pids: Iterable[int] = (), users: Iterable[str] = (),
           top: int | None = None) -> Stage:
    """A stage that leaves out rows: only the processes that ran, of these pids, of these users, the `top` by CPU."""
    wanted_pids, wanted_users = frozenset(pids), frozenset(users)

    def keep(row: Row) -> bool:
        ran = row.get("cpu_percent") or row.get("context_switches_per_s") or row.get("state") == "running"
        if active and not ran:
            return False
        if wanted_pids and row["pid"] not in wanted_pids:
            return False
        return not wanted_users or row.get("user") in wanted_users or str(row.get("uid")) in wanted_users

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        before: dict[Key, Row] = {}
        for tick in ticks:
            if tick.row is None:
                yield tick
                continue
            kept = {key: row for key, row in tick.processes.items() if keep(row)}
            if top is not None:
                ranked = sorted(kept.items(), key=lambda item: -(item[1].get("cpu_percent") or 0.0))
                kept = dict(ranked[:top])
            changed = {key for key, row in kept.items() if before.get(key) is not row}
            yield Tick(tick.row, kept, changed, tick.exited, tick.scored & kept.keys(), tick.records)
            before = kept

    return stage
