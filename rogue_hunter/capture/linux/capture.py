"""One capture on Linux: read the processes, follow their waits, read kernel log and journal, make the records."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rogue_hunter.capture import logs
from rogue_hunter.capture.command import RunCommand, default_runner, first_words, part_status
from rogue_hunter.capture.linux.lookups import Index
from rogue_hunter.capture.linux.process import (
    Gone,
    Late,
    Process,
    Thread,
    age,
    bounded,
    look_again,
    parse_pressure_avg10,
    proportional,
    read_or,
    read_process,
    uptime,
)
from rogue_hunter.capture.linux.waits import Wait, mutex_waits, waits_of
from rogue_hunter.capture.reports.decode import NAME_LIMIT
from rogue_hunter.capture.reports.detect import tail
from rogue_hunter.capture.request import Parts, Request, Sleep, capture_record
from rogue_hunter.config.options import Forensics
from rogue_hunter.host.linux.parse import PF_KTHREAD, STATES, parse_meminfo
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, record

KMSG_RECORD = 8192
"""Bytes of one record of /dev/kmsg at most (CONSOLE_EXT_LOG_MAX in the kernel)."""
KMSG_RECORDS = 200_000


def kernel_lines(path: str = "/dev/kmsg") -> Iterator[bytes]:
    """Every record in the kernel's ring buffer, oldest first, without waiting for more. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for _ in range(KMSG_RECORDS):
            try:
                data = os.read(fd, KMSG_RECORD)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while it was read: read the oldest that is left
                    continue
                if error.errno == errno.EINVAL:  # a record longer than the buffer
                    continue
                raise
            if not data:
                return
            yield from data.splitlines(keepends=True)
    finally:
        os.close(fd)


def kernel_log(since: float, capture: str, parts: Parts, limit: int,
               path: str = "/dev/kmsg") -> tuple[list[Record], int]:
    """Entries of the kernel since the epoch second `since`, and how many were left out."""
    # printk's clock does not advance in suspend, like CLOCK_MONOTONIC.
    boot_ts = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        entries = (each for each in logs.kernel(kernel_lines(path), boot_ts, capture)
                   if each["type"] == "log_entry" and each.get("ts", since) >= since)
        kept = tail(entries, limit)
    except PermissionError:
        parts.done("kernel_log", "denied", "no permission to read the kernel log (kernel.dmesg_restrict)")
    except FileNotFoundError:
        parts.done("kernel_log", "unavailable")
    except OSError as error:
        parts.done("kernel_log", "failed", f"the kernel log: {error.strerror}")
    else:
        parts.done("kernel_log", "ok")
        return kept
    return [], 0


def journal(since: float, capture: str, parts: Parts, limit: int, make: RunCommand, timeout_s: float,
            cancel: threading.Event | None) -> tuple[list[Record], int]:
    """Entries of the journal since the epoch second `since`, newest `limit`; kernel messages are skipped, because they
    are read from the kernel itself."""
    argv = ["journalctl", "--no-pager", "-q", "-o", "json", f"--since=@{since:.0f}", "-n", str(max(1, 4 * limit))]
    command = make(argv, timeout_s, 1 << 25, cancel)
    kept, left = tail((each for each in logs.journal(command.lines(), capture)
                       if each["type"] == "log_entry" and each["source"] != "kernel"), limit)
    status = part_status(command.outcome)
    if status == "failed" and "permission" in command.outcome.error.lower():
        status = "denied"
    said = f"no answer within {timeout_s:g} s" if status == "timeout" else first_words(command.outcome)
    parts.done("journal", status, None if status in ("ok", "unavailable") else f"journalctl: {said}")
    return kept, left


PSS_LIMIT_BYTES = 1 << 30
"""Pss is read only of smaller processes: the kernel walks every page for it and locks the memory map for that time."""


@dataclass(slots=True)
class _Scene:
    """The processes that were read so far."""

    root: Path
    machine: str
    settings: Forensics
    parts: Parts
    processes: dict[int, Process] = field(default_factory=dict)
    outcomes: dict[Key, str] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)


def capture_linux(request: Request, cancel: threading.Event | None = None, *,
                  settings: Forensics | None = None, root: Path = Path("/proc"), sleep: Sleep = time.sleep,
                  clock: Callable[[], float] = time.monotonic, make: RunCommand | None = None,
                  kmsg: str = "/dev/kmsg") -> list[Record]:
    """Capture the targets, processes in uninterruptible sleep, and the processes that block any of them.

    Returns the capture record, the report, processes with threads and waits, log entries. Failures are reported in the
    records, not raised. `make` starts journalctl.
    """
    settings = settings or Forensics()
    cancel = cancel or threading.Event()
    start = clock()
    deadline = start + settings.timeout_s
    parts = Parts()
    scene = _Scene(root, os.uname().machine, settings, parts)
    pressure = _pressure(root, parts)
    index = Index(root, clock)

    def going_on() -> bool:
        return not cancel.is_set() and clock() < deadline

    for target in request.targets:
        if going_on():
            scene.outcomes[target.key] = _read(scene, target.key, target.role)
    # Half of the limit is reserved for processes that turn out to block others.
    crowd = max(len(scene.processes) + 1, settings.processes // 2)
    for pid, role in _bystanders(index, scene.machine):
        if going_on() and len(scene.processes) < crowd:
            _read(scene, pid, role)
    _follow(scene, index, going_on)
    for _ in range(settings.rounds - 1):
        if not going_on():
            break
        sleep(settings.round_s)
        for process in scene.processes.values():
            _guarded(scene, process, lambda process=process: look_again(root, process, scene.machine))  # type: ignore[misc]
    index.forget_locks()
    waits = _follow(scene, index, going_on)
    _weigh_memory(scene, request, going_on)
    parts.done("threads", _threads_status(scene, request), _threads_problem(scene))
    parts.done("waits", "partial" if index.incomplete or "memory" in scene.denied else "ok",
               "some descriptors cannot be read: some waits have no holder" if index.incomplete else None)
    children = list(_process_records(scene, request, waits, uptime(root)))
    children.insert(0, report_record(request, children, settings, clock() - start, root))
    entries, left = _logs(request, settings, parts, make or default_runner(), cancel, kmsg) if going_on() else ([], 0)
    for process in scene.processes.values():
        parts.problems.extend(process.problems[: max(0, 32 - len(parts.problems))])
    everything = [*children, *entries]
    targets = [{"pid": t.key[0], "start_ticks": t.key[1], "command": t.command,
                "outcome": scene.outcomes.get(t.key, "skipped")} for t in request.targets]
    return [capture_record(request, parts, "linux", clock() - start, everything, targets=targets or None,
                           log_entries_left_out=left or None, **pressure), *everything]


def _read(scene: _Scene, key: Key | int, role: str) -> str:
    """Read one process into the scene; returns ok, gone, failed, left_out, or timeout (less of it was read)."""
    pid = key if isinstance(key, int) else key[0]
    if pid in scene.processes:
        return "ok"
    if len(scene.processes) >= scene.settings.processes:
        return "left_out"
    limit, seconds = scene.settings.threads, scene.settings.process_timeout_s
    outcome = "ok"
    try:
        try:
            process = bounded(lambda: read_process(scene.root, key, role, scene.machine, limit), seconds)
        except Late:
            outcome = "timeout"
            scene.parts.problems.append(f"process {pid} could not be read within {seconds:g} s: it holds a lock that "
                                        f"reading needs; its stacks and system calls are left out")
            process = bounded(lambda: read_process(scene.root, key, role, scene.machine, limit, without_locks=True),
                              seconds)
    except Gone:
        return "gone"
    except Late:
        return "timeout"
    except OSError as error:
        scene.parts.problems.append(f"process {pid}: {error.strerror}")
        return "failed"
    scene.processes[pid] = process
    scene.denied |= process.denied
    return outcome


def _guarded(scene: _Scene, process: Process, call: Callable[[], None]) -> None:
    try:
        bounded(call, scene.settings.process_timeout_s)
    except Late:
        process.problems.append(f"process {process.key[0]} no longer answers")
    except OSError:
        pass


def _bystanders(index: Index, machine: str) -> Iterator[tuple[int, str]]:
    """Processes in uninterruptible sleep, and waiters and holders of file locks and of mutexes between processes."""
    for pid, stat in index.stats().items():
        if stat.state == b"D" and not stat.flags & PF_KTHREAD:
            yield pid, "uninterruptible"
    for wait in index.locks():
        yield wait.waiter, "waiter"
        if wait.holder is not None:
            yield wait.holder, "holder"
    for waiter, owner in mutex_waits(index.root, index.stats().items(), machine):
        yield waiter, "waiter"
        holder = index.thread_owner(owner)
        if holder is not None:
            yield holder, "holder"


def _follow(scene: _Scene, index: Index, going_on: Callable[[], bool]) -> dict[int, list[Wait]]:
    """The waits of every process in the scene; holders that are not in it yet are read too."""
    found: dict[int, list[Wait]] = {}
    try:
        namespace: str | None = os.readlink(scene.root / "self" / "ns" / "pid")
    except OSError:
        namespace = None
    queue = list(scene.processes)
    for pid in queue:
        if not going_on():
            break
        process = scene.processes[pid]
        try:
            found[pid] = bounded(lambda p=process: list(waits_of(p, index, namespace)),  # type: ignore[misc]
                                 scene.settings.process_timeout_s)
        except (Late, OSError):
            process.problems.append(f"process {pid}: timeout while reading what it waits for")
            continue
        scene.denied |= process.denied
        for wait in found[pid]:
            if wait.on_pid is not None and wait.on_pid not in scene.processes and \
                    _read(scene, wait.on_pid, "holder") in ("ok", "timeout") and wait.on_pid in scene.processes:
                queue.append(wait.on_pid)
    return found


def _weigh_memory(scene: _Scene, request: Request, going_on: Callable[[], bool]) -> None:
    """Read the Pss of the culprit."""
    culprit = request.culprit
    process = scene.processes.get(culprit.key[0]) if culprit else None
    if process is None or not going_on() or process.fields.get("memory_bytes", 0) > PSS_LIMIT_BYTES:
        return
    try:
        process.fields["memory_proportional_bytes"] = bounded(lambda: proportional(scene.root, process.key), 1.0)
    except Late:
        process.problems.append(f"process {process.key[0]}: its memory map is locked for more than a second")
    except OSError:
        pass


def _threads_status(scene: _Scene, request: Request) -> str:
    outcomes = [scene.outcomes.get(t.key, "skipped") for t in request.targets]
    if outcomes and all(o != "ok" for o in outcomes) and not scene.processes:
        return "failed"
    if scene.denied & {"kernel stack", "system call"} or any(o != "ok" for o in outcomes):
        return "partial"
    return "ok"


def _threads_problem(scene: _Scene) -> str | None:
    gone = [str(key[0]) for key, how in scene.outcomes.items() if how == "gone"]
    words = [f"no permission to read, of some processes: {', '.join(sorted(scene.denied))}"] if scene.denied else []
    if gone:
        words.append(f"exited before they could be read: {', '.join(gone[:20])}")
    return "; ".join(words) or None


def _process_records(scene: _Scene, request: Request, waits: dict[int, list[Wait]],
                     uptime_s: float | None) -> Iterable[Record]:
    threads = {tid for found in waits.values() for wait in found for tid in (wait.tid, wait.on_tid)}
    for number, process in enumerate(scene.processes.values(), 1):
        yield from process_records(number, process, waits.get(process.key[0], []), scene.processes, threads,
                                   request.capture, uptime_s, keep_idle=scene.settings.keep_idle)


def _pressure(root: Path, parts: Parts) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    hows: list[str] = []
    for resource in ("cpu", "memory", "io"):
        data, how = read_or(None, root / "pressure" / resource, 4096)
        hows.append(how)
        averages = parse_pressure_avg10(data)
        found[f"pressure_{resource}_some_percent"] = averages.some
        found[f"pressure_{resource}_full_percent"] = averages.full
    if all(how == "ok" for how in hows):
        parts.done("pressure", "ok")
    elif "denied" in hows:
        parts.done("pressure", "denied")
    else:
        # A kernel without PSI has no such files; one booted with psi=0 has them, but reading fails with EOPNOTSUPP.
        parts.done("pressure", "partial" if "ok" in hows else "unavailable")
    return found


def _logs(request: Request, settings: Forensics, parts: Parts, make: RunCommand, cancel: threading.Event,
          kmsg: str) -> tuple[list[Record], int]:
    since = request.ts - settings.log_seconds
    entries: list[Record] = []
    left = 0
    for part, wanted in (("kernel_log", settings.kernel_log), ("journal", settings.journal)):
        if not wanted or not settings.log_entries:
            parts.done(part, "skipped")
            continue
        if part == "kernel_log":
            kept, more = kernel_log(since, request.capture, parts, settings.log_entries, kmsg)
        else:
            kept, more = journal(since, request.capture, parts, settings.log_entries, make,
                                      min(10.0, settings.timeout_s), cancel)
        entries += kept
        left += more
    entries.sort(key=lambda each: each.get("ts", 0.0))
    return entries, left


_TARGETS = ("culprit", "rogue")


def process_records(number: int, process: Process, waits: Sequence[Wait], known: Mapping[int, Process],
                    involved: set[Any], capture: str, uptime_s: float | None, *, keep_idle: bool) -> Iterator[Record]:
    """One process, its threads and waits. Idle threads without a wait are skipped, but not those of targets."""
    by_thread: dict[int, list[Wait]] = {}
    for wait in waits:
        by_thread.setdefault(wait.tid, []).append(wait)
    pid = process.key[0]
    name = process.command[:NAME_LIMIT]
    shown = [t for t in process.threads.values()
             if keep_idle or process.role in _TARGETS or t.tid == pid or t.tid in involved or t.last[0] != "S"]
    yield record(
        "spindump_process", capture=capture, process=number, pid=pid, start_ticks=process.key[1], command=name,
        **process.fields, age_s=age(process, uptime_s), threads_listed=len(shown), role=process.role,
        parent_command=known[process.stat.ppid].command[:NAME_LIMIT] if process.stat.ppid in known else None,
        notes=[f"no permission to read: {', '.join(sorted(process.denied))}"] if process.denied else None,
    )
    for thread in shown:
        mine = by_thread.get(thread.tid, [])
        yield _thread(number, process, thread, mine, capture)
        for wait in mine:
            yield _blocker(number, process, thread, wait, known, capture)


def _thread(number: int, process: Process, thread: Thread, waits: Sequence[Wait], capture: str) -> Record:
    letters = [look[0] for look in thread.looks]
    _, wchan, call = thread.last
    # If two states were seen equally often: the later one.
    most = max(dict.fromkeys(reversed(letters)), key=letters.count)
    state = STATES.get(most.encode("ascii", "replace"), "sleeping")
    blocked = thread.same_wait() if waits else None
    return record(
        "spindump_thread", capture=capture, process=number, pid=process.key[0], command=process.command[:NAME_LIMIT],
        thread_id=str(thread.tid), main=True if thread.tid == process.key[0] else None,
        thread_name=thread.name[:NAME_LIMIT],
        state="blocked" if waits and state == "sleeping" else state, state_raw=thread.last[0], samples=len(letters),
        running_samples=letters.count("R") or None, uninterruptible_samples=letters.count("D") or None,
        blocked_samples=blocked, priority=thread.priority, cpu_seconds=thread.cpu_seconds,
        blocked_by=_words(waits[0]) if waits else None, wchan=wchan, syscall=call.words() if call else None,
        frames=list(thread.stack) or None, leaf=thread.stack[0] if thread.stack else None,
    )


def _words(wait: Wait) -> str:
    who = f" on {wait.on_pid}" if wait.on_pid is not None else ""
    return f"{wait.kind}{who} ({wait.evidence})"[:1024]


def _blocker(number: int, process: Process, thread: Thread, wait: Wait, known: Mapping[int, Process],
             capture: str) -> Record:
    on_tid = wait.on_tid
    holder = known.get(wait.on_pid) if wait.on_pid is not None else None
    if on_tid is None and holder is not None and holder.threads_total == 1:
        on_tid = wait.on_pid  # its only thread
    on_command = holder.command[:NAME_LIMIT] if holder is not None else None
    return record(
        "spindump_blocker", capture=capture, process=number, pid=process.key[0], command=process.command[:NAME_LIMIT],
        thread_id=str(thread.tid), blocked_by=wait.kind, on_pid=wait.on_pid,
        on_command=on_command, on_thread_id=None if on_tid is None else str(on_tid),
        on_self=True if wait.on_pid == process.key[0] and on_tid == thread.tid else None, on_what=wait.on_what, hops=1,
        samples=thread.same_wait(), certainty=wait.certainty, detail=wait.evidence[:1024],
    )


def report_record(request: Request, children: Sequence[Record], settings: Forensics, duration_s: float,
                  root: Path) -> Record:
    """The report as a whole."""
    counts: dict[str, int] = {}
    for each in children:
        counts[each["type"]] = counts.get(each["type"], 0) + 1
    system = os.uname()
    meminfo, _ = read_or(None, root / "meminfo", 8192)
    try:
        memory: int | None = parse_meminfo(meminfo)[0]
    except (ValueError, IndexError):
        memory = None
    culprit = request.culprit
    waits = [each for each in children if each["type"] == "spindump_blocker"]
    return record(
        "spindump_report", capture=request.capture, ts=round(request.ts, 3), format="snapshot", data_source="procfs",
        os_version=f"{system.sysname} {system.release}", architecture=system.machine, memory_total_bytes=memory,
        cpus=os.cpu_count(), page_bytes=os.sysconf("SC_PAGE_SIZE"), pid=culprit.key[0] if culprit else None,
        command=(culprit.command or None) if culprit else None, event=request.trigger, duration_s=round(duration_s, 3),
        steps=settings.rounds, interval_ms=settings.round_s * 1000, processes=counts.get("spindump_process", 0),
        threads=counts.get("spindump_thread", 0), threads_aggregated=0, blockers=len(waits),
        edges=sum("on_pid" in each for each in waits), lines=0, complete=True,
    )
