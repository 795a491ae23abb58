"""Captures for the tests of those who store and show them: made by hand, and out of a fixture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rogue_hunter.capture.reports.detect import parse_file
from rogue_hunter.stream.tick import Record, record
from tests.tools.ticks import START

FIXTURES = Path(__file__).parent.parent / "fixtures" / "forensics"


def capture(key: str = "k1", ts: float = START, **more: Any) -> Record:
    """The record of a capture."""
    usual: dict[str, Any] = {"trigger": "event", "status": "partial", "pid": 7, "start_ticks": 70, "command": "hog",
                             "os": "linux", "duration_s": 0.25, "threads_status": "ok", "waits_status": "partial",
                             "pressure_cpu_some_percent": 12.5, "problems": ["a\x1b[31mb"],
                             "targets": [{"pid": 7, "start_ticks": 70, "command": "hog", "outcome": "ok"}]}
    return record("capture", ts=ts, capture=key, **{**usual, **more})


def parts(key: str = "k1", ts: float = START) -> list[Record]:
    """A lock convoy: 7 holds what 8 and 9 wait for, in three looks; a log, a ring."""
    made = [record("buffer_context", capture=key, ts=ts, first_ts=ts - 20, sample_count=60, peak_score=85,
                   culprits=[{"pid": 7, "start_ticks": 70, "command": "hog", "score": 85, "band": "critical"}]),
            record("spindump_report", capture=key, ts=ts, format="snapshot", processes=3, threads=3,
                   threads_aggregated=0, blockers=2, edges=2, lines=0, complete=True, steps=3)]
    for number, (pid, role) in enumerate(((7, "culprit"), (8, "waiter"), (9, "waiter")), 1):
        made += [record("spindump_process", capture=key, process=number, pid=pid, start_ticks=10 * pid,
                        command="hog" if pid == 7 else f"p{pid}", role=role, threads=1, memory_bytes=1 << 20,
                        notes=["x"] if pid == 7 else None),
                 record("spindump_thread", capture=key, process=number, pid=pid, thread_id=str(pid), main=True,
                        state="running" if pid == 7 else "blocked", samples=3,
                        running_samples=3 if pid == 7 else None, wchan=None if pid == 7 else "flock_lock",
                        frames=["a", "b"])]
        if pid != 7:
            made.append(record("spindump_blocker", capture=key, process=number, pid=pid, command=f"p{pid}",
                               thread_id=str(pid), blocked_by="flock", on_pid=7, on_command="hog", on_thread_id="7",
                               hops=1, samples=3, certainty="proven"))
    made += [record("log_entry", capture=key, ts=ts - 3, source="kernel", level="warning", message="tick\x1b[2Jtock"),
             record("log_entry", capture=key, ts=ts - 2, source="journal", level="info", pid=8, command="p8",
                    message="a quiet word")]
    return made


def parsed(name: str, key: str) -> list[Record]:
    """The records of a fixture as a capture would have them."""
    with io.BytesIO((FIXTURES / name).read_bytes()) as stream:
        return [each for each in parse_file(stream, capture=key) if each["type"] != "error"]
