"""What the helper process is given to decode: the rings of a pause or a capture, and what is known of processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from rogue_hunter.recorder.perf import Copy
from rogue_hunter.stream import wire

Known = tuple[int, str, str]
"""What is known of a process: when it started, its name, its program."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be decoded. `key` is {"pause": key} or {"capture": key}; times in ns of CLOCK_MONOTONIC; `processes`
    by pid; `work` names, by resource, the process that kernel threads probably worked for, and why."""

    key: dict[str, str]
    begin_ns: int
    end_ns: int
    hz: int
    rings: tuple[Copy, ...]
    processes: Mapping[int, Known]
    work: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    shares: bool = True


def dump(job: Job) -> bytes:
    """A job as the helper reads it."""
    head = {name: getattr(job, name) for name in ("key", "begin_ns", "end_ns", "hz", "work", "shares")}
    head |= {"rings": [[ring.cpu, ring.chains, len(ring.data)] for ring in job.rings],
             "processes": [[pid, *known] for pid, known in job.processes.items()]}
    return b"".join([wire.dumps(head), b"\n", *(ring.data for ring in job.rings)])


def load(source: BinaryIO) -> Job:
    """The job that `dump` wrote. Raises ValueError, KeyError or TypeError for other bytes."""
    head = wire.loads(source.readline())
    rings = tuple(Copy(cpu, chains, source.read(size)) for cpu, chains, size in head.pop("rings"))
    processes = {pid: (start, name, exe) for pid, start, name, exe in head.pop("processes")}
    work = {resource: (pid, why) for resource, (pid, why) in head.pop("work").items()}
    return Job(rings=rings, processes=processes, work=work, **head)
