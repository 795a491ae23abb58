"""A spindump report, heavy or timeline, report versions 21 to 72: lines of bytes in, records out, one pass.

A report is a header, then one block a process (`Process:` at the start of a line, keys, threads with their stacks,
`Binary Images:`), then sections about the machine. A process's records come together: first itself, then its threads
and their waits; the report's own record comes last, with the counts. Memory does not grow beyond one process.

Read against real reports of versions 28, 29, 35.1 and 60. The text that `spindump -i` makes of a tailspin (`Data
Source: KPerf Lightweight PET`, `(running, p-core)`, I/O counts, histograms at the end) is known from a description
only and untested with real data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rogue_hunter.capture.reports.decode import MAX_BINARY, Fields, Stack, binary_header, frame_text, named, text
from rogue_hunter.capture.reports.spindump_lines import (
    State,
    Wait,
    begins_section,
    is_thread_line,
    process_line,
    report_line,
    state_of,
    thread_line,
)
from rogue_hunter.schema.capture import MAX_FRAMES, RECORDS
from rogue_hunter.stream.tick import Record, record

MAX_PENDING = 20_000
"""Records of one process that are held back until it ends. The largest real process (kernel_task) has under 1,000."""
MAX_LISTED = 32
"""Entries of a list in one record: notes, problems, sections."""
_OWN_OF_RESOURCE = frozenset(f.name for f in RECORDS["resource_report"])
_OWN_OF_SPINDUMP = frozenset(f.name for f in RECORDS["spindump_report"])


@dataclass(slots=True)
class Thread:
    fields: Fields
    main: bool
    stack: Stack
    qos: str | None = None
    idle: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    blocked_by: str | None = None
    blocked_most: int = 0


@dataclass(slots=True)
class Process:
    number: int
    fields: dict[str, object]
    frames_wanted: bool
    pending: list[Record] = field(default_factory=list)
    listed: int = 0
    images: bool = False
    flushed: bool = False
    after_blank: bool = False
    stack: Stack | None = None
    """The stack of a section `Powerstats for:`, which has no threads."""


@dataclass(slots=True)
class Report:
    fields: dict[str, object] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    heaviest: list[bytes] | None = None
    in_heaviest: bool = False
    seen_key: bool = False
    processes: int = 0
    threads: int = 0
    aggregated: int = 0
    blockers: int = 0
    edges: int = 0
    with_images: int = 0
    last_images: bool = True
    powerstats: int = 0
    idle_seconds: float = 0.0
    idle_threads: int = 0
    in_section: bool = False
    binary: bool = False
    encoded: bytearray = field(default_factory=bytearray)
    """The base64 of a report that has its binary form only."""
    lines: int = 0
    page_bytes: int = 4096
    sections: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def open_process(report: Report, line: bytes, frames_wanted: Callable[[int | None], bool]) -> Process:
    """A line `Process: NAME (DISPLAY) [PID]`, or `Powerstats for:` of a microstackshots report."""
    key, _, value = line.partition(b":")
    who = named(value)
    if key == b"Powerstats for":
        report.powerstats += 1
        return Process(report.powerstats, {"pid": who.pid, "command": who.command, "display_name": who.display}, True,
                       stack=Stack(True))
    report.processes += 1
    fields: dict[str, object] = {
        "pid": who.pid, "unique_pid": who.unique_pid, "command": who.command, "display_name": who.display,
        "suspended": True if "suspended" in who.flags else None, "defunct": True if "zombie" in who.flags else None,
    }
    return Process(report.processes, fields, frames_wanted(who.pid))


def open_thread(report: Report, process: Process, line: bytes) -> Thread:
    parts = thread_line(line)
    report.threads += 1
    report.aggregated += parts["thread_id"].startswith("<") or "," in parts["thread_id"]
    process.listed += 1
    main = process.listed == 1
    kernel = process.fields.get("pid") == 0
    idle = kernel and (parts.get("idle_seconds") is not None or str(parts.get("thread_name")).startswith("idle #"))
    if idle:
        report.idle_threads += 1
        report.idle_seconds += parts.get("idle_seconds") or 0.0
    return Thread(parts, main, Stack(main and process.frames_wanted), idle=idle)


def note_state(report: Report, process: Process, thread: Thread, state: State, bare: bytes,
                capture: str | None) -> None:
    weight = _leading_count(bare)
    counts = thread.counts
    # The idle thread of a CPU counts as running, and means that nothing else ran.
    for word, key in ((b"running", "running"), (b"runnable", "runnable"), (b"suspended", "suspended")):
        if word in state.words and not thread.idle:
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


def _blocker(process: Process, thread: Thread, wait: Wait, weight: int, state: State,
             capture: str | None) -> Record:
    own, fields = wait.on_self, process.fields
    return record(
        "spindump_blocker", capture=capture, process=process.number, pid=fields.get("pid"), command=fields["command"],
        thread_id=thread.fields["thread_id"], blocked_by=wait.kind,
        on_pid=fields.get("pid") if own else wait.on_pid,
        on_command=fields["command"] if own else wait.on_command,
        on_thread_id=thread.fields["thread_id"] if own else wait.on_thread_id,
        on_self=True if own else None, on_what=wait.on_what, hops=wait.hops, deadlock=True if wait.deadlock else None,
        samples=weight, sample_first=state.first, sample_last=state.last, certainty="proven", detail=wait.detail,
    )


def _leading_count(bare: bytes) -> int:
    """The samples of a frame, `*12  name ...`; 1 if it has no number."""
    digits = bare[1:14] if bare[:1] == b"*" else bare[:13]
    head = digits.split(b" ", 1)[0]
    return int(head) if head.isdigit() else 1


def close_thread(report: Report, process: Process | None, thread: Thread | None,
                  capture: str | None) -> Iterator[Record]:
    if thread is None or process is None:
        return
    counts = thread.counts
    frames, leaf = thread.stack.heaviest()
    waits = len(process.pending)
    at = waits
    while at and process.pending[at - 1]["type"] == "spindump_blocker" and \
            process.pending[at - 1]["thread_id"] == thread.fields["thread_id"]:
        at -= 1
    # The record of a thread comes before those of its waits.
    process.pending.insert(at, record(
        "spindump_thread", capture=capture, process=process.number, pid=process.fields.get("pid"),
        command=process.fields["command"], main=thread.main or None,
        state="idle" if thread.idle else _dominant(counts, thread.fields.get("samples")),
        running_samples=counts.get("running"), runnable_samples=counts.get("runnable"),
        blocked_samples=counts.get("blocked"), suspended_samples=counts.get("suspended"),
        qos=thread.qos, blocked_by=thread.blocked_by, frames=frames or None, leaf=leaf, **thread.fields,
    ))
    if len(process.pending) >= MAX_PENDING:
        yield from _flush(process, capture)


def _dominant(counts: dict[str, int], samples: int | None) -> str:
    """The state with the most samples; those without a bracket were asleep."""
    known = sum(counts.values())
    asleep = max(0, (samples or 0) - known)
    best = max(counts, key=lambda k: counts[k], default="sleeping")
    return best if counts.get(best, 0) >= asleep and counts else "sleeping"


def _flush(process: Process, capture: str | None) -> Iterator[Record]:
    if not process.flushed:
        process.flushed = True
        _suspended(process.fields)
        if process.number:
            yield record("spindump_process", capture=capture, process=process.number, **process.fields,
                         threads_listed=process.listed)
    yield from process.pending
    process.pending.clear()


def _suspended(fields: dict[str, object]) -> None:
    """`Note: Suspended for N samples`: it was suspended if that is all of them."""
    some, samples = fields.get("suspended_samples"), fields.get("samples")
    if isinstance(some, int) and isinstance(samples, int) and some >= samples:
        fields["suspended"] = True


def close_process(report: Report, process: Process | None, capture: str | None) -> Iterator[Record]:
    if process is None:
        return
    if process.stack is not None:
        frames, leaf = process.stack.heaviest()
        yield record("resource_process", capture=capture, process=process.number, **process.fields,
                     frames=frames or None, leaf=leaf)
        return
    report.with_images += process.images
    # A process that exited before the first sample has no threads and no images.
    gone = not process.listed and process.after_blank and process.fields.get("defunct") is True
    report.last_images = process.images or gone
    if process.number == 0 and process.listed:
        problem(report, f"{process.listed} threads come before the first process")
    yield from _flush(process, capture)


def problem(report: Report, words: str) -> None:
    if len(report.problems) < MAX_LISTED:
        report.problems.append(words)


def finish(report: Report, capture: str | None, *, ended: bool) -> Iterator[Record]:
    """The record of the report as a whole: a resource_report, a spindump_report, or both."""
    complete: bool | None = True
    if not report.last_images:
        # Every process of a complete report ends with its binary images; an excerpt may omit all of them.
        complete = None if ended and not report.with_images else False
        problem(report, "ends inside of a process")
    if report.heaviest:
        report.fields["frames"] = [frame_text(f) for f in reversed(report.heaviest[-MAX_FRAMES:])]
    if report.powerstats or report.fields.get("data_source") == "Microstackshots" or "over_s" in report.fields:
        yield record(
            "resource_report", capture=capture, processes=report.powerstats, lines=report.lines,
            header=report.extra or None,
            **{name: value for name, value in report.fields.items() if name in _OWN_OF_RESOURCE})
        if not ended:
            yield record("error", stage="forensics", line=report.lines, message="a resource report that was cut off")
        if not report.processes:
            return
    if not report.processes:
        complete = False
        known = binary_header(report.encoded)
        report.extra.update(known.pop("header", {}))
        report.fields = {**known, **report.fields}
        problem(report, "a spindump in binary form only: `spindump -i FILE -stdout` prints its text" if report.binary
                else "no line `Process:`")
    cpus, sampled = report.fields.get("cpus"), report.fields.get("sampled_s") or report.fields.get("duration_s")
    if report.idle_seconds and isinstance(cpus, int) and report.idle_threads >= cpus and isinstance(sampled, float):
        report.fields["idle_seconds"] = round(report.idle_seconds, 3)
        if sampled > 0:
            report.fields["cpu_busy_cores"] = round(max(0.0, cpus - report.idle_seconds / sampled), 3)
    yield record(
        "spindump_report", capture=capture, binary=report.binary or None,
        **{name: value for name, value in report.fields.items() if name in _OWN_OF_SPINDUMP},
        header=report.extra or None, processes=report.processes,
        threads=report.threads, threads_aggregated=report.aggregated, blockers=report.blockers, edges=report.edges,
        sections=report.sections or None, lines=report.lines, complete=complete, problems=report.problems or None,
    )


BINARY_FORMAT = b"Spindump binary format"
"""The line after which the text has ended: what follows is base64."""
_SECOND_LINE = {b"Process:": b"UUID:", b"Date/Tim": b"End time:"}
"""The line that follows the first one of a process and of a report; the output of heap(1) and vmmap(1) has others."""

FramesOf = Callable[[int | None], bool]


def _always(_: int | None) -> bool:
    return True


def parse(lines: Iterable[bytes], *, frames_of: FramesOf = _always, capture: str | None = None) -> Iterator[Record]:
    """The records of one report, or of several one after the other.

    `lines` end in LF, as a binary file gives them. `frames_of(pid)`: whether to keep the heaviest stack of the main
    thread of this process. Never raises because of the content of a report. The last record is the spindump_report;
    its `complete` and `problems` say what is missing.
    """
    parser = _Parser(frames_of, capture)
    line = b""
    for line in lines:
        yield from parser.line(line)
    yield from parser.end(line)


class _Parser:
    """The state between two lines: the report, the process and the thread that they belong to."""

    def __init__(self, frames_of: FramesOf, capture: str | None) -> None:
        self.frames_of = frames_of
        self.capture = capture
        self.report = Report()
        self.process: Process | None = None
        self.thread: Thread | None = None
        self.indent = b""
        """Indentation of the whole report, as in a block of code that someone pasted."""
        self.held = b""
        """A line of a section that opens a process or a report if the next line is that of one."""

    def line(self, line: bytes) -> Iterator[Record]:
        """The records that are complete with this line."""
        self.report.lines += 1
        if self.indent and line.startswith(self.indent):
            line = line[len(self.indent):]
        return self._after_text(line) if self.report.in_section or self.report.binary else self._take(line)

    def _after_text(self, line: bytes) -> Iterator[Record]:
        """A line of a section or of the binary form."""
        held, self.held = self.held, b""
        if held and line.startswith(_SECOND_LINE[held[:8]]):
            self.report.in_section = False
            yield from self._next_report(held) if held[:1] == b"D" else self._take(held)
            yield from self._take(line)
        elif line.startswith(BINARY_FORMAT):
            self.report.binary = True
        elif line[:8] in _SECOND_LINE and (line[:1] == b"D" or not self.report.binary):
            self.held = line
        elif not self.report.binary:
            self._section(line)
        elif not self.report.processes and len(self.report.encoded) < MAX_BINARY:
            self.report.encoded += line.strip()

    def _take(self, line: bytes) -> Iterator[Record]:
        report = self.report
        lead = line[:1]
        if report.in_heaviest and (lead not in (b" ", b"\t") or not line.strip()):
            report.in_heaviest = not report.heaviest and not line.strip()
        if lead in (b" ", b"\t"):
            yield from self._indented(line, line.lstrip(b" \t"))
        elif lead in (b"\n", b"\r", b""):
            if self.process is not None:
                self.process.after_blank = True
        elif line.startswith((b"Process:", b"Powerstats for:")):
            yield from self._close()
            self.process = open_process(report, line, self.frames_of)
        elif line.startswith(BINARY_FORMAT):
            yield from self._close()
            report.binary = report.last_images = True
        elif self.process is not None:
            yield from self._inside(line, self.process)
        elif line.startswith(b"Date/Time:") and (report.processes or report.powerstats):
            yield from self._next_report(line)
        else:
            self._outside(line)

    def end(self, last: bytes) -> Iterator[Record]:
        """The records that are open at the end of the input; `last` is its last line."""
        yield from self._close()
        report = self.report
        ended = last.endswith(b"\n") or not last.strip() or report.binary or _whole_image(last)
        if report.last_images and not report.sections and not ended and report.processes:
            report.last_images = False  # cut off inside of the last list of images
        yield from finish(report, self.capture, ended=ended)

    # -- kinds of lines ------------------------------------------------------------------------------------------------

    def _indented(self, line: bytes, bare: bytes) -> Iterator[Record]:
        """A thread, a frame, the quality of service of a thread, or the list of images. `bare`: without indentation."""
        report, process, thread = self.report, self.process, self.thread
        if process is not None and process.stack is not None:
            if not process.images and (bare[:1].isdigit() or bare[:1] == b"*"):
                process.stack.add(len(line) - len(bare), bare)
            process.images = process.images or bare.startswith(b"Binary Images")
        elif is_thread_line(bare) and (process is None or not process.images):
            self.process = process or Process(0, {"command": ""}, self.frames_of(None))
            yield from self._open_thread(self.process, bare)
        elif thread is not None and process is not None:
            self._state(process, thread, line, bare)
            first = bare[:1]
            if first.isdigit() or first == b"*":
                thread.stack.add(len(line) - len(bare), bare)
            elif first == b"<" and thread.qos is None:
                thread.qos = text(bare.strip()[1:-1])
                # Only a timeline has this line; watchdog reports lack the one that names their format.
                report.fields.setdefault("format", "timeline")
            elif bare.startswith(b"Binary Images"):
                yield from close_thread(report, process, thread, self.capture)
                self.thread, process.images = None, True
        elif process is not None and bare.startswith(b"Binary Images"):
            process.images = True
        elif report.in_heaviest and (bare[:1].isdigit() or bare[:1] == b"*"):
            # A list without a tree, until a blank line: the last line is the innermost frame.
            report.heaviest = [*(report.heaviest or [])[-MAX_FRAMES:], bare]
        elif not report.seen_key and not self.indent and bare.startswith((b"Date/Time:", b"Process:")):
            self.indent = line[: len(line) - len(bare)]
            report.seen_key = True
            yield from self._take(bare)

    def _inside(self, line: bytes, process: Process) -> Iterator[Record]:
        """A line at the left margin after `Process:`."""
        report, thread = self.report, self.thread
        if process.stack is not None:
            if line.startswith(b"Date/Time:"):
                yield from self._next_report(line)
            else:
                process_line(line, process.fields, report.page_bytes, powerstats=True)
        elif is_thread_line(line) and not process.images:
            yield from self._open_thread(process, line)
        elif thread is None and not process.images and process.listed == 0 and \
                not (process.after_blank and begins_section(line)):
            process_line(line, process.fields, report.page_bytes)
        elif line.startswith(b"Date/Time:") and report.processes:
            yield from self._next_report(line)
        elif thread is not None and (line[:1].isdigit() or line[:1] in (b"*", b"<")):
            # A report whose indentation was lost: its waits still count, its stacks have no shape.
            self._state(process, thread, line, line)
        else:
            yield from self._close()
            self._section(line)

    def _outside(self, line: bytes) -> None:
        """A line at the left margin before the first process, or after the last."""
        report = self.report
        if report.processes:
            self._section(line)
        elif line.startswith(b"Heaviest stack"):
            report.in_heaviest = True
        elif report_line(line, report.fields, report.extra):
            report.seen_key = True
            page = report.fields.get("page_bytes")
            if isinstance(page, int) and page > 0:
                report.page_bytes = page

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _open_thread(self, process: Process, line: bytes) -> Iterator[Record]:
        yield from close_thread(self.report, process, self.thread, self.capture)
        self.thread = open_thread(self.report, process, line)

    def _state(self, process: Process, thread: Thread, line: bytes, bare: bytes) -> None:
        """Add the state at the end of a frame, if it has one."""
        state = state_of(line) if b"] (" in line or b"blocked by " in line else None
        if state is not None:
            note_state(self.report, process, thread, state, bare, self.capture)

    def _close(self) -> Iterator[Record]:
        """The records of the thread and the process that end here."""
        yield from close_thread(self.report, self.process, self.thread, self.capture)
        yield from close_process(self.report, self.process, self.capture)
        self.process = self.thread = None

    def _next_report(self, line: bytes) -> Iterator[Record]:
        yield from self._close()
        yield from finish(self.report, self.capture, ended=True)
        self.report = Report(lines=1)
        report_line(line, self.report.fields, self.report.extra)
        self.report.seen_key = True

    def _section(self, line: bytes) -> None:
        """A section about the machine, after the processes: its title is `Name:` alone on a line.

        A section may hold the output of another tool, with lines like those of a report.
        """
        report = self.report
        name, colon, value = line.rstrip().partition(b":")
        if colon and not value and name[:1].isalpha() and len(name) <= 64:
            report.in_section = report.in_section or report.last_images
            label = text(name, 64)
            if label not in report.sections and len(report.sections) < MAX_LISTED:
                report.sections.append(label)


def _whole_image(line: bytes) -> bool:
    """True for a line of `Binary Images` with its path: many complete reports end with one, without a line feed."""
    return b">" in line and b"/" in line.rsplit(b">", 1)[1]
