"""A capture on Linux as records: the same record types as those of a spindump report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rogue_hunter.capture.linux.read import read_or
from rogue_hunter.capture.linux.threads import Process, Thread, age
from rogue_hunter.capture.linux.waits import Wait
from rogue_hunter.capture.request import Request
from rogue_hunter.capture.spindump.decode import NAME_LIMIT
from rogue_hunter.config.options import Forensics
from rogue_hunter.host.linux.parse import STATES, parse_meminfo
from rogue_hunter.stream.tick import Record, record

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
