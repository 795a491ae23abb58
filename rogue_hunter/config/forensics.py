"""What forensics may cost and where it keeps things."""

from __future__ import annotations

from dataclasses import dataclass

from rogue_hunter.config.declare import option


@dataclass(frozen=True, slots=True)
class Forensics:
    """Captures: when, how many, how much they may read, what is kept."""

    enabled: bool = option(True, "capture evidence when an event reaches the forensics band, and at a pause")
    debounce_s: float = option(2.0, "seconds between two captures: a score that hovers crosses its band often",
                              0, 3600)
    per_hour: int = option(20, "captures an hour: each costs up to a second of a CPU and a megabyte", 0, 10_000)
    per_identity_per_hour: int = option(3, "of them for one process: the first shows the cause, two more the course",
                                        0, 10_000)
    targets: int = option(5, "processes with the highest scores that are looked at beside the culprit", 0, 100)
    processes: int = option(32, "processes of one capture, with those that stand in each other's way", 1, 1000)
    threads: int = option(256, "threads of one process that are read; a thread costs 0.1 ms", 1, 100_000)
    rounds: int = option(3, "times the threads are looked at: what is there each time is stuck, not passing", 1, 100)
    round_s: float = option(0.1, "seconds between two looks", 0, 10)
    process_timeout_s: float = option(2.0, "seconds for one process: reading one that is stuck can block", 0.1, 60)
    timeout_s: float = option(60.0, "seconds for a whole capture; decoding a tailspin takes 5 to 20", 1, 600)
    log_seconds: float = option(60.0, "seconds of log before the capture", 0, 3600)
    log_entries: int = option(500, "log entries of one capture; warnings and errors are kept first", 0, 100_000)
    journal: bool = option(True, "read the journal, where there is one")
    kernel_log: bool = option(True, "read the kernel's log, where that is allowed")
    keep_idle: bool = option(False, "keep the threads of processes that neither ran nor waited for anybody")
    tailspin_file: str = option("/var/db/rogue-hunter/capture.tailspin",
                                 "where tailspin saves; the sudoers rule names exactly this file")
    keep_raw: bool = option(False, "keep a copy of the tailspin file of each capture (25 MB)")
    raw_directory: str = option("", "where copies are kept; empty: captures below the state directory")
    raw_quota_mb: int = option(500, "megabytes of copies; the oldest are deleted beyond it", 1, 1_000_000)
    free_mb: int = option(1000, "megabytes that must be free on the disk, or no copy is kept", 0, 1_000_000)
