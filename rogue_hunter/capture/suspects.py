"""Processes that a report points at without a wait: unresponsive, its target, those that use CPU or memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rogue_hunter.capture.wait_graph import OBSERVERS
from rogue_hunter.stream.tick import Record, record

BUSY = 0.5
"""Part of the sampled time that a process must have used, in cores, to be named for it."""
LARGE = 0.5
"""Part of the machine's memory that a process must hold to be named for it."""
MOST = 5


def suspects(records: Iterable[Record], capture: str | None = None) -> Iterator[Record]:
    """The suspects of one report as `suspect` records: first those that did not respond, then the report's target, then
    those that used most CPU time, then those that hold most memory. Each process is named once.

    A process with a huge footprint can be both the one that hangs and the reason; its record has all of it.
    """
    report: Mapping[str, Any] = {}
    processes: list[Record] = []
    mains: dict[int, Record] = {}
    for each in records:
        if each["type"] == "spindump_report":
            report = each
        elif each["type"] == "spindump_process" and each.get("command") not in OBSERVERS:
            processes.append(each)
        elif each["type"] == "spindump_thread" and each.get("main") is True:
            mains.setdefault(each["process"], each)
    if report.get("format") == "snapshot":
        return  # a capture of Linux: its CPU times are those of whole lives
    span = report.get("sampled_s") or report.get("duration_s")
    memory = report.get("memory_total_bytes")
    target = report.get("pid") if report.get("event") != "panic" else None
    used = sorted((p for p in processes if span and (p.get("cpu_seconds") or 0.0) >= BUSY * span and p.get("pid") != 0),
                  key=lambda p: -float(p["cpu_seconds"]))
    held = sorted((p for p in processes if memory and (p.get("memory_bytes") or 0) >= LARGE * memory),
                  key=lambda p: -int(p["memory_bytes"]))
    named: set[int] = set()
    for reason, some in (
            ("unresponsive", [p for p in processes if p.get("unresponsive") is True]),
            ("target", [p for p in processes if target is not None and p.get("pid") == target]),
            ("cpu", used[:MOST] if report.get("format") != "stackshot" else []), ("memory", held[:MOST])):
        for process in some:
            if process["process"] not in named and len(named) < 4 * MOST:
                named.add(process["process"])
                yield _suspect(reason, process, mains.get(process["process"], {}), span, memory, capture)


def _suspect(reason: str, process: Record, main: Mapping[str, Any], span: float | None, memory: int | None,
             capture: str | None) -> Record:
    state, of = main.get("state"), main.get("samples")
    awake = sum(main.get(f"{word}_samples") or 0 for word in ("running", "runnable", "blocked", "suspended"))
    samples = max(0, of - awake) if of is not None and state in (None, "sleeping") else main.get(f"{state}_samples")
    return record(
        "suspect", capture=capture, reason=reason, pid=process.get("pid"), command=process["command"],
        thread_id=main.get("thread_id"), state=state, leaf=main.get("leaf"),
        samples=samples, of_samples=of,
        unresponsive_s=process.get("unresponsive_s"), cpu_seconds=process.get("cpu_seconds"), sampled_s=span,
        memory_bytes=process.get("memory_bytes"), memory_total_bytes=memory)
