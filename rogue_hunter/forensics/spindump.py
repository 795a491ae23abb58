"""A spindump report, heavy or timeline, report versions 21 to 72: lines of bytes in, records out, one pass.

A report is a header, then one block a process (`Process:` at the start of a line, keys, threads with their stacks,
`Binary Images:`), then sections about the machine. A process's records come together: first itself, then its threads
and their waits; the report's own record comes last, with what was counted. Nothing is kept beyond one process.

Read against real reports of versions 28, 29, 35.1 and 60. The text that `spindump -i` makes of a tailspin (`Data
Source: KPerf Lightweight PET`, `(running, p-core)`, I/O counts, histograms at the end) is known from a description
only: it is read, and untested by real data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rogue_hunter.forensics import header
from rogue_hunter.forensics.stacks import MAX_FRAMES, Stack, frame_text
from rogue_hunter.forensics.threads import ThreadLine, is_thread_line, thread_line
from rogue_hunter.forensics.values import named, text
from rogue_hunter.forensics.waits import State, Wait, state_of
from rogue_hunter.tick import Record, record

MAX_PENDING = 20_000
"""Records of one process that are held back until it ends. The largest real process (kernel_task) has under 1,000."""
MAX_LISTED = 32
"""Entries of a list in one record: notes, problems, sections."""

FramesOf = Callable[[int | None], bool]


@dataclass(slots=True)
class _Thread:
    line: ThreadLine
    main: bool
    stack: Stack
    qos: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    blocked_by: str | None = None
    blocked_most: int = 0


@dataclass(slots=True)
class _Process:
    number: int
    fields: dict[str, object]
    frames_wanted: bool
    pending: list[Record] = field(default_factory=list)
    listed: int = 0
    images: bool = False
    flushed: bool = False


@dataclass(slots=True)
class _Report:
    fields: dict[str, object] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    heaviest: list[bytes] | None = None
    seen_key: bool = False
    processes: int = 0
    threads: int = 0
    aggregated: int = 0
    blockers: int = 0
    edges: int = 0
    last_images: bool = True
    powerstats: int = 0
    lines: int = 0
    page_bytes: int = 4096
    sections: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _always(_: int | None) -> bool:
    return True


def parse(lines: Iterable[bytes], *, frames_of: FramesOf = _always, capture: str | None = None) -> Iterator[Record]:
    """The records of one report, or of several one after the other.

    `lines` end in LF, as a binary file gives them. `frames_of(pid)` says of which processes the main thread's heaviest
    stack is kept. Never raises for what stands in the report. The last record is the spindump_report; its `complete`
    and `problems` say what is missing.
    """
    report, process, thread = _Report(), None, None
    indent = b""
    for line in lines:
        report.lines += 1
        if indent and line.startswith(indent):
            line = line[len(indent) :]
        lead = line[:1]
        if lead in (b" ", b"\t"):
            bare = line.lstrip(b" \t")
            if is_thread_line(bare) and (process is None or not process.images):
                yield from _close_thread(report, process, thread, capture)
                process = process or _Process(0, {"command": ""}, frames_of(None))
                thread = _open_thread(report, process, bare)
            elif thread is not None and process is not None:
                if b"] (" in line or b"blocked by " in line:
                    state = state_of(line)
                    if state is not None:
                        _note_state(report, process, thread, state, bare, capture)
                first = bare[:1]
                if first.isdigit() or first == b"*":
                    thread.stack.add(len(line) - len(bare), bare)
                elif first == b"<" and thread.qos is None:
                    thread.qos = text(bare.strip()[1:-1])
                    # Only a timeline says so; watchdog reports leave the line out that names their format.
                    report.fields.setdefault("format", "timeline")
                elif bare.startswith(b"Binary Images"):
                    yield from _close_thread(report, process, thread, capture)
                    thread, process.images = None, True
            elif process is not None and bare.startswith(b"Binary Images"):
                process.images = True
            elif process is None and report.heaviest is not None and (bare[:1].isdigit() or bare[:1] == b"*"):
                report.heaviest.append(bare)  # a list without a tree: the last line is the innermost frame
            elif not report.seen_key and not indent and bare.startswith((b"Date/Time:", b"Process:")):
                # The whole report is indented, as in a block of code that someone pasted.
                indent = line[: len(line) - len(bare)]
                report.seen_key = True
                process = _start_key(report, bare, process, frames_of)
        elif lead in (b"\n", b"\r", b""):
            continue
        elif line.startswith(b"Process:"):
            yield from _close_thread(report, process, thread, capture)
            yield from _close_process(report, process, capture)
            thread, process = None, _open_process(report, line, frames_of)
        elif is_thread_line(line) and process is not None and not process.images:
            yield from _close_thread(report, process, thread, capture)
            thread = _open_thread(report, process, line)
        elif process is not None and thread is None and not process.images and process.listed == 0:
            header.process_line(line, process.fields, report.page_bytes)
        elif line.startswith(b"Date/Time:") and report.processes:
            yield from _close_thread(report, process, thread, capture)
            yield from _close_process(report, process, capture)
            yield _finish(report, capture)
            report, process, thread = _Report(lines=1), None, None
            header.report_line(line, report.fields, report.extra)
            report.seen_key = True
        elif process is not None and thread is not None and (lead.isdigit() or lead == b"*"):
            # A report whose indentation was lost: its waits still count, its stacks have no shape.
            state = state_of(line) if b"] (" in line or b"blocked by " in line else None
            if state is not None:
                _note_state(report, process, thread, state, line, capture)
        elif process is not None:
            yield from _close_thread(report, process, thread, capture)
            yield from _close_process(report, process, capture)
            thread = process = None
            _section(report, line)
        elif report.processes:
            _section(report, line)
        else:
            process = _start_key(report, line, process, frames_of)
    yield from _close_thread(report, process, thread, capture)
    yield from _close_process(report, process, capture)
    yield _finish(report, capture)


def _start_key(report: _Report, line: bytes, process: _Process | None, frames_of: FramesOf) -> _Process | None:
    """A line at the left margin before the first process."""
    if line.startswith(b"Process:"):
        return _open_process(report, line, frames_of)
    if line.startswith(b"Heaviest stack"):
        report.heaviest = []
    elif line.startswith(b"Powerstats for:"):
        report.powerstats += 1
    elif not report.powerstats and header.report_line(line, report.fields, report.extra):
        report.seen_key = True
        page = report.fields.get("page_bytes")
        if isinstance(page, int) and page > 0:
            report.page_bytes = page
    return process


def _section(report: _Report, line: bytes) -> None:
    if line.startswith(b"Powerstats for:"):
        report.powerstats += 1
        return
    name, colon, _ = line.rstrip().partition(b":")
    if colon and len(report.sections) < MAX_LISTED and name[:1].isalpha() and len(name) <= 64:
        label = text(name, 64)
        if label not in report.sections:
            report.sections.append(label)


def _open_process(report: _Report, line: bytes, frames_of: FramesOf) -> _Process:
    report.processes += 1
    who = named(line[len(b"Process:") :])
    fields: dict[str, object] = {
        "pid": who.pid, "unique_pid": who.unique_pid, "command": who.command, "display_name": who.display,
        "suspended": True if "suspended" in who.flags else None, "defunct": True if "zombie" in who.flags else None,
    }
    return _Process(report.processes, fields, frames_of(who.pid))


def _open_thread(report: _Report, process: _Process, line: bytes) -> _Thread:
    parts = thread_line(line)
    report.threads += 1
    report.aggregated += parts.aggregated
    process.listed += 1
    main = process.listed == 1
    return _Thread(parts, main, Stack(main and process.frames_wanted))


def _note_state(report: _Report, process: _Process, thread: _Thread, state: State, bare: bytes,
                capture: str | None) -> None:
    weight = _leading_count(bare)
    counts = thread.counts
    for word, key in ((b"running", "running"), (b"runnable", "runnable"), (b"suspended", "suspended")):
        if word in state.words:
            counts[key] = counts.get(key, 0) + weight
    wait = state.wait
    if wait is None:
        return
    counts["blocked"] = counts.get("blocked", 0) + weight
    if weight > thread.blocked_most or thread.blocked_by is None:
        thread.blocked_by, thread.blocked_most = wait.detail, weight
    report.blockers += 1
    own = wait.on_self
    report.edges += own or wait.on_pid is not None
    process.pending.append(_blocker(process, thread, wait, weight, state, capture))


def _blocker(process: _Process, thread: _Thread, wait: Wait, weight: int, state: State,
             capture: str | None) -> Record:
    own, fields = wait.on_self, process.fields
    return record(
        "spindump_blocker", capture=capture, process=process.number, pid=fields.get("pid"), command=fields["command"],
        thread_id=thread.line.thread_id, blocked_by=wait.kind,
        on_pid=fields.get("pid") if own else wait.on_pid,
        on_command=fields["command"] if own else wait.on_command,
        on_thread_id=thread.line.thread_id if own else wait.on_thread_id,
        on_self=True if own else None, on_what=wait.on_what, hops=wait.hops, deadlock=True if wait.deadlock else None,
        samples=weight, sample_first=state.first, sample_last=state.last, certainty="proven", detail=wait.detail,
    )


def _leading_count(bare: bytes) -> int:
    """The samples of a frame, `*12  name ...`; 1 where no number stands."""
    digits = bare[1:14] if bare[:1] == b"*" else bare[:13]
    head = digits.split(b" ", 1)[0]
    return int(head) if head.isdigit() else 1


def _close_thread(report: _Report, process: _Process | None, thread: _Thread | None,
                  capture: str | None) -> Iterator[Record]:
    if thread is None or process is None:
        return
    line, counts = thread.line, thread.counts
    samples = line.samples
    frames, leaf = thread.stack.heaviest()
    waits = len(process.pending)
    at = waits
    while at and process.pending[at - 1]["type"] == "spindump_blocker" and \
            process.pending[at - 1]["thread_id"] == line.thread_id:
        at -= 1
    # A thread stands before its own waits.
    process.pending.insert(at, record(
        "spindump_thread", capture=capture, process=process.number, pid=process.fields.get("pid"),
        command=process.fields["command"], thread_id=line.thread_id, main=thread.main or None, thread_name=line.name,
        queue=line.queue, state=_dominant(counts, samples), samples=samples, sample_first=line.first,
        sample_last=line.last, **{f"{k}_samples": counts.get(k) for k in ("running", "runnable", "blocked", "suspended")},
        priority=line.priority, priority_high=line.priority_high, base_priority=line.base_priority,
        cpu_seconds=line.cpu_seconds, idle_seconds=line.idle_seconds, last_ran_s=line.last_ran_s, qos=thread.qos,
        blocked_by=thread.blocked_by, frames=frames or None, leaf=leaf,
    ))
    if len(process.pending) >= MAX_PENDING:
        yield from _flush(process, capture)


def _dominant(counts: dict[str, int], samples: int | None) -> str:
    """The state with the most samples; those without a bracket were asleep."""
    known = sum(counts.values())
    asleep = max(0, (samples or 0) - known)
    best = max(counts, key=lambda k: counts[k], default="sleeping")
    return best if counts.get(best, 0) >= asleep and counts else "sleeping"


def _flush(process: _Process, capture: str | None) -> Iterator[Record]:
    if not process.flushed:
        process.flushed = True
        if process.number:
            yield record("spindump_process", capture=capture, process=process.number, **process.fields,
                         threads_listed=process.listed)
    yield from process.pending
    process.pending.clear()


def _close_process(report: _Report, process: _Process | None, capture: str | None) -> Iterator[Record]:
    if process is None:
        return
    report.last_images = process.images
    if process.number == 0 and process.listed:
        _problem(report, f"{process.listed} threads stand before the first process")
    yield from _flush(process, capture)


def _problem(report: _Report, words: str) -> None:
    if len(report.problems) < MAX_LISTED:
        report.problems.append(words)


def _finish(report: _Report, capture: str | None) -> Record:
    complete = bool(report.processes)
    if report.processes and not report.last_images:
        # Every process of every whole report ends with its binary images.
        complete = False
        _problem(report, "ends inside of a process")
    if report.powerstats:
        report.fields["format"] = "microstackshots"
        complete = True
        _problem(report, f"a microstackshots report: {report.powerstats} sections `Powerstats for`, no threads")
    elif not report.processes:
        _problem(report, "no line `Process:`")
    if report.heaviest:
        report.fields["frames"] = [frame_text(f) for f in reversed(report.heaviest[-MAX_FRAMES:])]
    return record(
        "spindump_report", capture=capture, **report.fields, header=report.extra or None, processes=report.processes,
        threads=report.threads, threads_aggregated=report.aggregated, blockers=report.blockers, edges=report.edges,
        sections=report.sections or None, lines=report.lines, complete=complete, problems=report.problems or None,
    )
