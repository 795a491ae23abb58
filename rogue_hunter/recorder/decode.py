"""From copied rings to records: who had each CPU, and the stacks. Runs in a helper process of its own.

The helper has nice 19. It reads one job from standard input, a line of JSON and the bytes of the rings, writes a record
a line, and exits; its parent kills it after a deadline. Reading the names of kernel functions takes a tenth of
a second, so none of this is done in rh-pipe.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rogue_hunter.recorder.perf import Job, load_job
from rogue_hunter.recorder.symbols import EXITED, NO_MAPS, NOWHERE, Address, Symbols, python_frames, script_line
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import visible

SAMPLE, COMM, FORK = 9, 3, 7
"""Types of records (enum perf_event_type, include/uapi/linux/perf_event.h)."""
COMM_EXEC = 1 << 13
"""Flag of a COMM record: the name changed because another program was executed."""
CONTEXT_MIN = (1 << 64) - 4095
"""From this value on an entry of a call chain is no address but a mark (PERF_CONTEXT_MAX)."""
CONTEXT_KERNEL, CONTEXT_USER = (1 << 64) - 128, (1 << 64) - 512
CHAIN_MAX = 127
"""Entries of a call chain that are read: kernel.perf_event_max_stack is 127."""
UNKNOWN_PID = (1 << 32) - 1
"""The pid of a task that has exited."""

_HEADER = struct.Struct("=IHH")
_WHO = struct.Struct("=IIQ")
_COUNT = struct.Struct("=Q")


class Sample(NamedTuple):
    """A task on a CPU: `ns` of CLOCK_MONOTONIC; `chain`: addresses and marks, innermost first, empty in a ring of
    context switches, where the task left the CPU at `ns`."""

    ns: int
    pid: int
    tid: int
    chain: tuple[int, ...] = ()


class Name(NamedTuple):
    """A task got a name; `executed`: by executing a program."""

    ns: int
    pid: int
    name: bytes
    executed: bool


class Fork(NamedTuple):
    """A process was made by another one."""

    ns: int
    pid: int
    ppid: int


Entry = Sample | Name | Fork


def entries(data: bytes, *, chains: bool) -> Iterator[Entry]:
    """The records of a ring that is written backwards, newest first; `data` begins at its head.

    Ends at the first record that cannot be one: the oldest is overwritten in part. `chains`: samples carry a call
    chain. Records of other types and of threads that were made are skipped.
    """
    at, end = 0, len(data)
    while at + 8 <= end:
        kind, misc, size = _HEADER.unpack_from(data, at)
        if size < 8 or size % 8 or at + size > end:
            return
        made = _entry(kind, misc, data[at + 8: at + size], chains)
        if made is not None:
            yield made
        at += size


def _entry(kind: int, misc: int, body: bytes, chains: bool) -> Entry | None:
    if kind == SAMPLE and len(body) >= 16:
        pid, tid, ns = _WHO.unpack_from(body)
        if not chains:
            return Sample(ns, pid, tid)
        if len(body) < 24:
            return None
        count = min(_COUNT.unpack_from(body, 16)[0], CHAIN_MAX, (len(body) - 24) // 8)
        return Sample(ns, pid, tid, struct.unpack_from(f"={count}Q", body, 24))
    if kind == COMM and len(body) >= 32:  # pid, tid, the name, then pid, tid and time of the record itself
        pid, tid = struct.unpack_from("=II", body)
        if pid != tid:
            return None
        return Name(_WHO.unpack_from(body, len(body) - 16)[2], pid, body[8:-16].split(b"\0", 1)[0],
                    bool(misc & COMM_EXEC))
    if kind == FORK and len(body) >= 24:
        pid, ppid, tid, _, ns = struct.unpack_from("=IIIIQ", body)
        return Fork(ns, pid, ppid) if pid == tid and pid != ppid else None
    return None


def addresses(chain: tuple[int, ...]) -> Iterator[tuple[int, bool]]:
    """The addresses of a call chain, innermost first, each with whether it is the kernel's. Return addresses are moved
    back by one, into the call."""
    kernel, first = False, True
    for value in chain:
        if value >= CONTEXT_MIN:
            kernel, first = value == CONTEXT_KERNEL, True
        else:
            yield value if first or value == 0 else value - 1, kernel
            first = False


IDLE = 0
"""The pid of a CPU's idle task."""


@dataclass(slots=True)
class Occupancy:
    """One CPU in a stretch of `seconds`: CPU seconds by pid (IDLE included), and how many seconds of it context
    switches covered; the rest was estimated from samples."""

    cpu: int
    seconds: float
    by_pid: dict[int, float] = field(default_factory=dict)
    switched_s: float = 0.0

    @property
    def source(self) -> str:
        """What most of it was measured by."""
        return "switches" if self.switched_s >= self.seconds / 2 else "samples"


def occupancy(cpu: int, begin_ns: int, end_ns: int, switches: Sequence[tuple[int, int]],
              samples: Iterable[tuple[int, int]], period_s: float) -> Occupancy:
    """Occupancy between two times of CLOCK_MONOTONIC, ns.

    `switches` are (time, pid that left the CPU), oldest first: that task had the CPU since the switch before. `samples`
    are (time, pid), one each `period_s` seconds in which the CPU was not idle; they fill what switches do not cover:
    the time before the first switch that is left, and since the last one.
    """
    found = Occupancy(cpu, max(0.0, (end_ns - begin_ns) / 1e9))
    covered_from = covered_to = end_ns
    used: Counter[int] = Counter()
    if len(switches) > 1:
        covered_from, covered_to = max(begin_ns, switches[0][0]), min(end_ns, switches[-1][0])
        for (start, _), (end, pid) in pairwise(switches):
            start, end = max(start, begin_ns), min(end, end_ns)
            if end > start:
                used[pid] += end - start
    covered_ns = max(0, covered_to - covered_from)
    found.switched_s = covered_ns / 1e9
    by_pid: dict[int, float] = {pid: ns / 1e9 for pid, ns in used.items()}
    left = found.seconds - found.switched_s
    rest: Counter[int] = Counter()
    for at, pid in samples:
        if begin_ns <= at <= end_ns and not (covered_ns and covered_from <= at <= covered_to):
            rest[pid] += 1
    scale = period_s * min(1.0, left / (rest.total() * period_s)) if rest else 0.0
    for pid, count in rest.items():
        by_pid[pid] = by_pid.get(pid, 0.0) + count * scale
    idle = left - rest.total() * scale
    if idle > 0:
        by_pid[IDLE] = by_pid.get(IDLE, 0.0) + idle
    found.by_pid = by_pid
    return found


STACKS_MAX = 60
"""Stacks of one pause or capture that are kept; the samples of the rest are added up in one."""
STACK_CHARS = 4000
FRAME_CHARS = 200
SAMPLES_MAX = 20_000
CPUS_MAX, TENANTS_MAX = 64, 5
"""CPUs with shares, and processes of each."""
SHARE_MIN = 0.01
"""A process with a smaller part of the time of a CPU is not listed."""
DUMPS_MAX = 2
"""Processes of Python whose frames are asked for."""
DUMP_SHARE = 0.2
REST = "[other stacks]"


@dataclass(slots=True)
class Scene:
    """What the rings hold of the stretch of a job, oldest first."""

    job: Job
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    switches: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    executed: dict[int, int] = field(default_factory=dict)

    def name(self, pid: int) -> str:
        """The name of a process; of one that no tick has seen, the one that the kernel gave when it began."""
        if pid == IDLE:
            return "idle"
        known = self.job.processes.get(pid)
        return known[1] if known else self.names.get(pid, "?")

    def start(self, pid: int) -> int | None:
        """When it started, if that is known."""
        known = self.job.processes.get(pid)
        return known[0] if known else None


def read(job: Job) -> Scene:
    """Parse the rings."""
    scene = Scene(job)
    seen: set[tuple[int, int, int]] = set()
    for ring in job.rings:
        for each in entries(ring.data, chains=ring.chains):
            if isinstance(each, Sample) and each.pid != UNKNOWN_PID:
                if not ring.chains:
                    scene.switches.setdefault(ring.cpu, []).append((each.ns, each.pid))
                elif job.begin_ns <= each.ns <= job.end_ns and (once := (ring.cpu, each.tid, each.ns)) not in seen:
                    seen.add(once)  # a ring may be copied more than once
                    scene.samples.setdefault(ring.cpu, []).append(each)
            elif isinstance(each, Name):
                scene.names.setdefault(each.pid, each.name.decode("utf-8", "backslashreplace"))
                if each.executed:
                    scene.executed.setdefault(each.pid, each.ns)
            elif isinstance(each, Fork):
                scene.parents.setdefault(each.pid, each.ppid)
    for kept in scene.switches.values():
        kept.sort()
    for pid, parent in scene.parents.items():
        if pid not in scene.names:  # a child that executed nothing has its parent's name
            scene.names[pid] = scene.name(parent)
    return scene


def occupancies(scene: Scene) -> list[Occupancy]:
    """Who had each CPU of which something is known."""
    job = scene.job
    return [occupancy(cpu, job.begin_ns, job.end_ns, scene.switches.get(cpu, ()),
                      [(s.ns, s.pid) for s in scene.samples.get(cpu, ())], 1 / job.hz)
            for cpu in sorted({ring.cpu for ring in job.rings})[:CPUS_MAX]]


def share_records(scene: Scene, stacks: Iterable[Record]) -> list[Record]:
    """The `cpu_share` records: of each CPU, the processes with the largest parts of the time."""
    made: list[Record] = []
    frames: dict[int, str] = {}
    for each in stacks:
        if "pid" in each:       # the last one is of all the rest
            frames[each["pid"]] = f"{frames.get(each['pid'], '')};{each['stack']}"
    for found in occupancies(scene):
        ranked = sorted(found.by_pid.items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [pair for pair in ranked if pair[1] >= SHARE_MIN * found.seconds][:TENANTS_MAX]
        for rank, (pid, seconds) in enumerate(shown, 1):
            name = scene.name(pid)
            work = works_for(name, frames.get(pid, ""), scene.job.work) if pid != IDLE else None
            made.append(record(
                "cpu_share", **scene.job.key, cpu=found.cpu, rank=rank, pid=pid, start_ticks=scene.start(pid),
                command=name, parent_pid=scene.parents.get(pid), cpu_seconds=round(seconds, 4),
                share=round(min(1.0, seconds / found.seconds), 4) if found.seconds else 0.0, source=found.source,
                for_pid=work[0] if work else None, for_command=scene.name(work[0]) if work else None,
                for_reason=work[1] if work else None))
    return made


_WORK = (
    ("disk", re.compile(r"^(?:kworker/.*(?:flush|writeback|loop|kcryptd|dio)|jbd2|loop\d|kcryptd|dmcrypt)|"
                        r";(?:wb_workfn|wb_writeback|do_writepages|jbd2_\w+|loop_\w+|kcryptd_\w+)_\[k\]")),
    ("memory", re.compile(r"^(?:kswapd|kcompactd)|;(?:balance_pgdat|shrink_node|shrink_lruvec|compact_zone)_\[k\]")),
)
"""Resource -> the names and functions of kernel threads that work for the processes that use it."""


def works_for(name: str, stack: str, work: Mapping[str, tuple[int, str]]) -> tuple[int, str] | None:
    """The process that a kernel thread works for, and why; None if neither its name nor its stack shows it."""
    if stack and "_[k]" not in stack:
        return None
    for resource, pattern in _WORK:
        if pattern.search(f"{name};{stack}") and resource in work:
            return work[resource]
    return None


Folded = Counter[tuple[int, int, tuple[Address, ...]]]
"""Samples by pid, CPU and addresses, innermost first."""


_OLD_CODE: Address = (-1, False)
"""No address, for the code of the program that a process ran before it executed another one: its map is gone."""


def fold(samples: Mapping[int, Sequence[Sample]], executed: Mapping[int, int]) -> Folded:
    """Count samples by stack: of a CPU with very many, evenly spread ones. `executed`: when a process executed the
    program that it runs now."""
    found: Folded = Counter()
    limit = max(1, SAMPLES_MAX // max(1, len(samples)))
    for cpu, taken in samples.items():
        step = -(-len(taken) // limit) if taken else 1
        for sample in taken[::step]:
            chain = tuple(addresses(sample.chain))
            if sample.ns < executed.get(sample.pid, 0):
                chain = (*(each for each in chain if each[1]), _OLD_CODE)
            found[sample.pid, cpu, chain] += step
    return found


def stack_records(scene: Scene, symbols: Symbols, *, dumps: bool = True) -> list[Record]:
    """The `stack` records, the most frequent first."""
    folded = fold(scene.samples, scene.executed)
    wanted: dict[int, set[Address]] = {}
    by_pid: Counter[int] = Counter()
    for (pid, _, chain), count in folded.items():
        wanted.setdefault(pid, set()).update(chain)
        by_pid[pid] += count
    named = {pid: {**symbols.names(pid, scene.start(pid), chain), _OLD_CODE: EXITED} for pid, chain in wanted.items()}
    total = by_pid.total()
    python: dict[int, list[str]] = {}
    scripts: dict[int, str] = {}
    for pid, count in by_pid.most_common(DUMPS_MAX) if dumps else ():
        exe = scene.job.processes.get(pid, (0, "", ""))[2]
        if count < DUMP_SHARE * total:
            break
        if frames := python_frames(pid, exe):
            python[pid] = frames
        elif line := script_line(pid, exe):
            scripts[pid] = line
    counts: Counter[tuple[int, int, str]] = Counter()
    for (pid, cpu, chain), count in folded.items():
        frames = walked([named[pid][address] for address in chain])
        if pid in python:
            frames = _woven(frames, python[pid])
        elif pid in scripts:
            frames = [scripts[pid], *frames]
        counts[pid, cpu, collapsed([scene.name(pid), *frames])] += count
    made = []
    for (pid, cpu, stack), count in counts.most_common(STACKS_MAX):
        made.append(record(
            "stack", **scene.job.key, pid=pid, start_ticks=scene.start(pid), command=scene.name(pid), cpu=cpu,
            samples=count, share=round(count / total, 4), stack=stack,
            note="its Python frames are of one later look" if pid in python else
            "the line of its script is of one later look" if pid in scripts else None))
    rest = total - sum(each["samples"] for each in made)
    if rest:
        made.append(record("stack", **scene.job.key, samples=rest, share=round(rest / total, 4), stack=REST))
    return made


def walked(names: Sequence[str]) -> list[str]:
    """Frames, outermost first, of names, innermost first. Code without frame pointers makes the kernel follow values
    that are no return addresses: from the first one that lies in no code, nothing is kept. What cannot be named because
    the process is gone is one frame."""
    kept: list[str] = []
    for i, name in enumerate(names):
        if name == NOWHERE and i:
            break
        if not (kept and name == kept[-1] and name in (EXITED, NO_MAPS)):
            kept.append(name)
    return kept[::-1]


def _woven(frames: list[str], python: Sequence[str]) -> list[str]:
    """The Python frames instead of the interpreter's: what is outside of its loop, then Python's, then what it calls.
    A stack outside of the interpreter's loop stays."""
    places = [i for i, name in enumerate(frames) if "PyEval_EvalFrame" in name]
    return [*frames[: places[0]], *python, *frames[places[-1] + 1:]] if places else frames


def collapsed(frames: Iterable[str]) -> str:
    """Frames, outermost first, as one line of collapsed stacks has them. Names are made safe for a terminal; a `;` in
    a name becomes `:`."""
    words = [visible(frame[:FRAME_CHARS]).replace(";", ":").strip() or "?" for frame in frames]
    while len(words) > 2 and sum(map(len, words)) + len(words) > STACK_CHARS:
        del words[1]  # the outermost say least
    return ";".join(words)


def decode(job: Job, symbols: Symbols | None = None, *, dumps: bool = True) -> list[Record]:
    """The records of a job: `cpu_share`, then `stack`."""
    scene = read(job)
    stacks = stack_records(scene, symbols or Symbols(), dumps=dumps)
    return [*(share_records(scene, stacks) if job.shares else ()), *stacks]


if __name__ == "__main__":
    os.nice(19)
    Path("/proc/self/comm").write_text("rh-stacks")
    for each in decode(load_job(sys.stdin.buffer)):
        sys.stdout.buffer.write(wire.dumps(each) + b"\n")
