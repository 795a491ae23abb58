"""The stage of the flight recorder: keeps the rings open, and copies them at a pause or a capture.

On the beat it copies the rings, half a millisecond, and only then. A background thread passes the copy to a helper
process with nice 19 (rogue_hunter.recorder.decode) and waits for its records, which leave with a later tick.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rogue_hunter
from rogue_hunter.config.options import Config
from rogue_hunter.config.options import Recorder as Settings
from rogue_hunter.recorder.perf import DISABLE, ENABLE, Job, Known, Rings, dump_job, open_rings, paranoid
from rogue_hunter.sampling.naming import name_of
from rogue_hunter.schema.field import Key
from rogue_hunter.stream import wire
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.worker import Worker

HZ = 49
"""Samples a second of a busy CPU: not a divisor of the rates at which programs work."""
CHECK_NS = 10_000_000_000
"""Between two looks at the rate of context switches: reading a counter interrupts the other CPU."""
REST_NS = 60_000_000_000
"""For how long a CPU that switches too often is not asked for its switches."""
BEFORE_S, AFTER_S = 1.0, 10.0
"""Seconds before a capture and while it was made, of which stacks are shown, at most."""
ATTACHED_MAX, THREADS_MAX = 12, 16
"""Processes that are recorded one by one, and threads of each, where other users' cannot be recorded."""
ATTACH_PERCENT = 10.0
"""CPU use from which such a process is recorded."""
DEADLINE_S = 20.0
DOMINANT = 0.5
"""Part of all writing, or of all growth of memory, from which kernel threads worked for the process."""

Decode = Callable[[Job], list[Record]]


def decode_apart(job: Job, deadline_s: float = DEADLINE_S) -> list[Record]:
    """The records of a job, made by a helper process. Raises OSError and ValueError; the helper is gone then too."""
    home = str(Path(rogue_hunter.__file__).resolve().parent.parent)
    path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
    with subprocess.Popen([sys.executable, "-P", "-m", "rogue_hunter.recorder.decode"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
                          env={**os.environ, "PYTHONPATH": path}) as child:
        try:
            answer, _ = child.communicate(dump_job(job), deadline_s)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"no stacks within {deadline_s:g} s") from error
        finally:
            if child.poll() is None:
                child.kill()
    if child.returncode:
        raise OSError(f"the helper for stacks ended with {child.returncode}")
    return [wire.loads(line) for line in answer.split(b"\n") if line]


class FlightRecorder:
    """The stage. It adds `cpu_share` and `stack` records for each pause, and `stack` records for each capture that was
    made for an event.

    `rate` is set by the pipe: while the beat is slowed down because rh-pipe exceeded its CPU budget, nothing is
    recorded. `warn` takes a line for people, once for each change.
    """

    rate: Rate | None = None

    def __init__(self, settings: Settings, warn: Callable[[str], object] = lambda _: None, *,
                 opener: Callable[[int], tuple[Rings | None, str]] = open_rings, decode: Decode = decode_apart,
                 threads: Callable[[int], list[int]] | None = None, uid: int | None = None,
                 level: Callable[[], int | None] = paranoid,
                 mono_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._set, self._warn, self._opener, self._mono_ns = settings, warn, opener, mono_ns
        self._threads = threads or threads_of
        self._uid = os.geteuid() if uid is None else uid
        self._level = level
        self._worker: Worker[Job, list[Record]] = Worker("rh-stacks", decode, limit=2)
        self._rings: Rings | None = None
        self._why = "not started"
        self._cpus: int | None = None
        self._before: Mapping[Key, Row] = {}
        self._check_ns = 0
        self._resting: dict[int, int] = {}
        self._counts: dict[int, tuple[int, int]] = {}
        self._jobs: deque[int] = deque()
        self._opened = False
        self.skipped = 0

    def configure(self, config: Config) -> None:
        """Use these settings from the next tick on."""
        if config.recorder != self._set:
            self._set = config.recorder
            self._shut("changed")

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the records of pauses and captures of before."""
        if tick.row is not None:
            self._keep_open(tick)
            if self._rings is not None:
                self._look_after(tick, self._rings)
        # Copied before anything else: the rings are overwritten.
        for each in tick.records:
            if self._rings is not None and each["type"] in ("pause", "capture"):
                self._request(each, tick, self._rings)
        if tick.row is not None:
            self._before = tick.processes
        for records in self._worker.collect():
            tick.records.extend(records)
        for _, error in self._worker.failures():
            self._warn(f"no stacks of a pause or capture: {error}")
        return tick

    def close(self) -> list[Record]:
        """Close the rings; the records that are done."""
        self._shut("closed")
        self._worker.close(1.0, finish=True)
        return [each for records in self._worker.collect() for each in records]

    def abort(self) -> None:
        """Close the rings."""
        self._shut("closed")
        self._worker.close(0.0)

    def state(self) -> dict[str, Any]:
        """Mode, why there is no more, memory, and how many pauses and captures have no stacks because of the limit."""
        rings = self._rings
        return {"recorder": {"mode": rings.mode if rings else "off", "why": self._why, "paranoid": self._level(),
                             "bytes": rings.bytes if rings else 0, "skipped": self.skipped,
                             "switches": bool(rings and rings.switches)}}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _keep_open(self, tick: Tick) -> None:
        """Open, close and open again: by the settings, by the CPU budget, when a CPU went or came."""
        row = tick.row or {}
        if not self._set.enabled:
            if self._rings is not None or self._why != "disabled":
                self._shut("disabled")
            return
        if self.rate is not None and self.rate.slowed > 1:
            if self._rings is not None:
                self._shut("rh-pipe exceeded its CPU budget")
            return
        cpus = row.get("cpus")
        if self._opened and cpus == self._cpus:
            return
        self._shut("")
        self._cpus, self._opened = cpus, True
        was = self._why
        self._rings, self._why = self._opener(HZ)
        if self._why != was and self._why:
            mode = "only processes of this user" if self._rings else "off"
            self._warn(f"flight recorder: {mode}: {self._why}; see rh-report status")

    def _shut(self, why: str) -> None:
        rings, self._rings, self._opened = self._rings, None, False
        if rings is not None:
            rings.close()
        self._counts.clear()
        self._resting.clear()
        if why:
            self._why = why

    def _look_after(self, tick: Tick, rings: Rings) -> None:
        """Follow the processes of this user, or limit what context switches cost."""
        if rings.mode == "own":
            self._follow(tick, rings)
            return
        now = self._mono_ns()
        if now < self._check_ns:
            return
        self._check_ns = now + CHECK_NS
        for ring in rings.switches:
            try:
                if ring.cpu in self._resting:
                    if now >= self._resting[ring.cpu]:
                        del self._resting[ring.cpu]
                        self._counts.pop(ring.cpu, None)
                        ring.control(ENABLE)
                    continue
                before, found = self._counts.get(ring.cpu), ring.count()
                self._counts[ring.cpu] = found
                if before is not None and found[1] == before[1]:
                    # Its CPU went offline and came back between two ticks, as all but one do when a machine sleeps:
                    # the kernel has ended the event.
                    self._opened = False
                elif before is not None and found[0] - before[0] > self._set.switches_per_s * CHECK_NS / 1e9:
                    ring.control(DISABLE)
                    self._resting[ring.cpu] = now + REST_NS
            except OSError:  # its CPU is offline: all are opened again when the number of CPUs is known
                continue

    def _follow(self, tick: Tick, rings: Rings) -> None:
        for pid, _ in tick.exited:
            rings.detach(pid)
        attached = set(rings.attached)
        for pid, start in tick.changed:
            row = tick.processes[pid, start]
            if row.get("cpu_percent", 0.0) < ATTACH_PERCENT or row.get("uid") != self._uid or row.get("own") or \
                    pid in attached:
                continue
            if len(attached) >= ATTACHED_MAX:
                oldest = rings.attached[0]
                rings.detach(oldest)
                attached.discard(oldest)
            if rings.attach(pid, self._threads(pid)[:THREADS_MAX]):
                attached.add(pid)

    def _request(self, each: Record, tick: Tick, rings: Rings) -> None:
        """Copy the rings and have them decoded."""
        now = self._mono_ns()
        if each["type"] == "pause":
            end = (tick.row or {}).get("mono_ns", now)
            key, begin, shares = {"pause": each["pause"]}, end - round(each["duration_s"] * 1e9), True
        elif each.get("status") in ("skipped", "failed") or each.get("trigger") != "event":
            return  # a capture for a pause: the pause has the stacks
        else:
            seconds = BEFORE_S + min(AFTER_S, each.get("duration_s", 0.0) + 1.0)
            key, begin, end, shares = {"capture": each["capture"]}, now - round(seconds * 1e9), now, False
        while self._jobs and now - self._jobs[0] > 3600e9:
            self._jobs.popleft()
        if len(self._jobs) >= self._set.per_hour:
            self.skipped += 1
            return
        job = Job(key, begin, end, HZ, tuple(rings.copies()), _known(self._before, tick.processes),
                  _work(self._before, tick.processes), shares and rings.mode == "system")
        if self._worker.submit(job):
            self._jobs.append(now)
        else:
            self.skipped += 1


def threads_of(pid: int) -> list[int]:
    """The threads of a process; none if it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _known(*rows: Mapping[Key, Row]) -> dict[int, Known]:
    """What is known of the processes before and after a pause."""
    return {pid: (start, name_of(row), str(row.get("exe", ""))) for each in rows for (pid, start), row in each.items()}


def _work(before: Mapping[Key, Row], after: Mapping[Key, Row]) -> dict[str, tuple[int, str]]:
    """Resource -> the process that wrote most, or whose memory grew most, if it did more than all others together."""
    found: dict[str, tuple[int, str]] = {}
    for resource, field, words in (("disk", "disk_write_bytes_total", "it wrote {:.0f} MB in that time, {:.0%} of all"),
                                   ("memory", "memory_bytes", "its memory grew by {:.0f} MB, {:.0%} of all growth")):
        grown = {key: row[field] - before.get(key, {}).get(field, 0) for key, row in after.items()
                 if field in row and before.get(key) is not row}
        grown = {key: by for key, by in grown.items() if by > 0}
        total = sum(grown.values())
        if total >= 1 << 20:
            (pid, _), most = max(grown.items(), key=lambda pair: pair[1])
            if most >= DOMINANT * total:
                found[resource] = (pid, words.format(most / 1e6, most / total))
    return found
