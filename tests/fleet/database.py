"""A host's database with one row of every kind each minute."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from rogue_hunter.store import tables
from rogue_hunter.store.database import open_writer

START = 1_795_000_020
SECRET = "mysql -phunter2 --host db"
"""A command line as no version of the sampler stores it."""


def add(db: sqlite3.Connection, table: tables.Table, **values: Any) -> None:
    db.execute(table.insert(*values), values)


def minute(db: sqlite3.Connection, n: int) -> None:
    """The rows of minute number n, and the id of each that has one is n + 1."""
    at, one = START + 60 * n, n + 1
    add(db, tables.MACHINE_MINUTES, minute=at, boot_id="b", ticks=180, seconds=60.0, cpus=4, cpu_busy_cores=1.5)
    for command in ("cc1plus", "node"):
        add(db, tables.COMMAND_MINUTES, minute=at, command=command, processes=2, cpu_seconds=3.25)
    for i in range(12):
        add(db, tables.MACHINE_SLICES, slice=at + 5 * i, boot=1, seconds=5.0, ticks=15)
        for process in range(1, 6):
            add(db, tables.PROCESS_SLICES, slice=at + 5 * i, process=process, cpu_ms=100 * process)
    add(db, tables.PROCESS_SNAPSHOTS, event_id=1, snapshot_type="checkpoint", captured_at=at + 30.0, pid=7, start_ticks=70,
        command="cc1plus", cmdline="cc1plus -O2 x.c", score=50 + n % 40, band="elevated", duration_s=float(n))
    add(db, tables.PAUSES, id=one, pause=f"p{n}", boot_id="b", start_time=at + 10.0, end_time=at + 12.0, duration_s=2.0,
        cause="cpu", evidence='{"late_s": 2.0}')
    add(db, tables.PAUSE_CULPRITS, pause_id=one, rank=1, pid=7, start_ticks=70, command="cc1plus", resource="cpu", share=0.75)
    add(db, tables.FORENSIC_CAPTURES, id=one, captured_at=at + 13.0, capture=f"c{n}", trigger="pause", status="ok", pause=f"p{n}")
    add(db, tables.ACTIONS, id=one, ts=at + 14.0, boot_id="b", pid=7, start_ticks=70, command="mysql", cmdline=SECRET,
        rule="runaway", outcome="terminated", dry_run=0, run="r", audit_seq=n)


def make(path: Path, minutes: int) -> Path:
    """A database of so many minutes from START."""
    db, _ = open_writer(path)
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("BEGIN")
    add(db, tables.SLICE_BOOTS, id=1, boot_id="b")
    for process in range(1, 6):
        add(db, tables.SLICE_PROCESSES, id=process, boot=1, pid=process, start_ticks=1, command=f"c{process}", last_seen=0.0)
    add(db, tables.PROCESS_EVENTS, id=1, event="e1", boot_id="b", pid=7, start_ticks=70, entry_time=START + 0.0,
        last_seen=START + 30.0)
    add(db, tables.DAEMON_STATE, key="last_tick", value='{"boot_id": "b", "host": "h.example", "os": "linux"}', updated_at=0.0)
    for n in range(minutes):
        minute(db, n)
    db.execute("COMMIT")
    db.close()
    return path
