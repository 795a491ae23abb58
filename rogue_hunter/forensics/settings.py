"""What forensics may cost and where it keeps things. rogue_hunter.config takes this class in as its section."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, doc: str, low: float | None = None, high: float | None = None,
            choices: tuple[str, ...] = ()) -> Any:
    """A field as rogue_hunter.config declares them; config imports this module, so not the other way round."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class ForensicsSettings:
    """Captures: when, how many, how much."""

    enabled: bool = _option(True, "capture evidence when an event reaches the forensics band, and at a pause")
    debounce_s: float = _option(2.0, "seconds between two captures: a score that hovers crosses its band often",
                               0, 3600)
    per_hour: int = _option(20, "captures an hour: each costs up to a second of a CPU and a megabyte", 0, 10_000)
    per_identity_per_hour: int = _option(3, "of them for one process: the first shows the cause, two more the course",
                                         0, 10_000)
    targets: int = _option(5, "processes with the highest scores that are looked at beside the culprit", 0, 100)
    processes: int = _option(32, "processes of one capture, with those that stand in each other's way", 1, 1000)
    threads: int = _option(256, "threads of one process that are read; a thread costs 0.1 ms", 1, 100_000)
    rounds: int = _option(3, "times the threads are looked at: what is there each time is stuck, not passing", 1, 100)
    round_s: float = _option(0.1, "seconds between two looks", 0, 10)
    process_timeout_s: float = _option(2.0, "seconds for one process: reading one that is stuck can block", 0.1, 60)
    timeout_s: float = _option(60.0, "seconds for a whole capture; decoding a tailspin takes 5 to 20", 1, 600)
    log_seconds: float = _option(60.0, "seconds of log before the capture", 0, 3600)
    log_entries: int = _option(500, "log entries of one capture; warnings and errors are kept first", 0, 100_000)
    journal: bool = _option(True, "read the journal, where there is one")
    kernel_log: bool = _option(True, "read the kernel's log, where that is allowed")
    keep_idle: bool = _option(False, "keep the threads of processes that neither ran nor waited for anybody")
    tailspin_file: str = _option("/var/db/rogue-hunter/capture.tailspin",
                                 "where tailspin saves; the sudoers rule names exactly this file")
    keep_raw: bool = _option(False, "keep a copy of the tailspin file of each capture (25 MB)")
    raw_directory: str = _option("", "where copies are kept; empty: captures below the state directory")
    raw_quota_mb: int = _option(500, "megabytes of copies; the oldest are deleted beyond it", 1, 1_000_000)
    free_mb: int = _option(1000, "megabytes that must be free on the disk, or no copy is kept", 0, 1_000_000)
