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

from rogue_hunter.capture.spindump import header
from rogue_hunter.capture.spindump.assembly import (
    MAX_LISTED,
    Process,
    Report,
    close_process,
    close_thread,
    finish,
    note_state,
    open_process,
    open_thread,
)
from rogue_hunter.capture.spindump.decode import text
from rogue_hunter.capture.spindump.threads import is_thread_line
from rogue_hunter.capture.spindump.waits import state_of
from rogue_hunter.stream.tick import Record

FramesOf = Callable[[int | None], bool]


def _always(_: int | None) -> bool:
    return True


def parse(lines: Iterable[bytes], *, frames_of: FramesOf = _always, capture: str | None = None) -> Iterator[Record]:
    """The records of one report, or of several one after the other.

    `lines` end in LF, as a binary file gives them. `frames_of(pid)` says of which processes the main thread's heaviest
    stack is kept. Never raises for what stands in the report. The last record is the spindump_report; its `complete`
    and `problems` say what is missing.
    """
    report, process, thread = Report(), None, None
    indent, line = b"", b""
    for line in lines:
        report.lines += 1
        if indent and line.startswith(indent):
            line = line[len(indent) :]
        lead = line[:1]
        if lead in (b" ", b"\t"):
            bare = line.lstrip(b" \t")
            if is_thread_line(bare) and (process is None or not process.images):
                yield from close_thread(report, process, thread, capture)
                process = process or Process(0, {"command": ""}, frames_of(None))
                thread = open_thread(report, process, bare)
            elif thread is not None and process is not None:
                if b"] (" in line or b"blocked by " in line:
                    state = state_of(line)
                    if state is not None:
                        note_state(report, process, thread, state, bare, capture)
                first = bare[:1]
                if first.isdigit() or first == b"*":
                    thread.stack.add(len(line) - len(bare), bare)
                elif first == b"<" and thread.qos is None:
                    thread.qos = text(bare.strip()[1:-1])
                    # Only a timeline says so; watchdog reports leave the line out that names their format.
                    report.fields.setdefault("format", "timeline")
                elif bare.startswith(b"Binary Images"):
                    yield from close_thread(report, process, thread, capture)
                    thread, process.images = None, True
            elif process is not None and bare.startswith(b"Binary Images"):
                process.images = True
            elif report.heaviest is not None and not report.processes and (bare[:1].isdigit() or bare[:1] == b"*"):
                report.heaviest.append(bare)  # a list without a tree: the last line is the innermost frame
            elif not report.seen_key and not indent and bare.startswith((b"Date/Time:", b"Process:")):
                # The whole report is indented, as in a block of code that someone pasted.
                indent = line[: len(line) - len(bare)]
                report.seen_key = True
                process = _start_key(report, bare, process, frames_of)
        elif lead in (b"\n", b"\r", b""):
            if process is not None:
                process.after_blank = True
            continue
        elif line.startswith(b"Process:"):
            yield from close_thread(report, process, thread, capture)
            yield from close_process(report, process, capture)
            thread, process = None, open_process(report, line, frames_of)
        elif is_thread_line(line) and process is not None and not process.images:
            yield from close_thread(report, process, thread, capture)
            thread = open_thread(report, process, line)
        elif process is not None and thread is None and not process.images and process.listed == 0 and \
                not (process.after_blank and header.begins_section(line)):
            header.process_line(line, process.fields, report.page_bytes)
        elif line.startswith(b"Date/Time:") and report.processes:
            yield from close_thread(report, process, thread, capture)
            yield from close_process(report, process, capture)
            yield finish(report, capture, ended=True)
            report, process, thread = Report(lines=1), None, None
            header.report_line(line, report.fields, report.extra)
            report.seen_key = True
        elif process is not None and thread is not None and (lead.isdigit() or lead in (b"*", b"<")):
            # A report whose indentation was lost: its waits still count, its stacks have no shape.
            state = state_of(line) if b"] (" in line or b"blocked by " in line else None
            if state is not None:
                note_state(report, process, thread, state, line, capture)
        elif process is not None:
            yield from close_thread(report, process, thread, capture)
            yield from close_process(report, process, capture)
            thread = process = None
            _section(report, line)
        elif report.processes:
            _section(report, line)
        else:
            process = _start_key(report, line, process, frames_of)
    yield from close_thread(report, process, thread, capture)
    yield from close_process(report, process, capture)
    ended = line.endswith(b"\n") or not line.strip()
    if report.last_images and not report.sections and not ended and report.processes and not _whole_image(line):
        report.last_images = False  # cut off inside of the last list of images
    yield finish(report, capture, ended=ended)


def _start_key(report: Report, line: bytes, process: Process | None, frames_of: FramesOf) -> Process | None:
    """A line at the left margin before the first process."""
    if line.startswith(b"Process:"):
        return open_process(report, line, frames_of)
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


def _whole_image(line: bytes) -> bool:
    """A line of `Binary Images` with its path: many a whole report ends in one without a line feed."""
    return b">" in line and b"/" in line.rsplit(b">", 1)[1]


def _section(report: Report, line: bytes) -> None:
    if line.startswith(b"Powerstats for:"):
        report.powerstats += 1
        return
    name, colon, _ = line.rstrip().partition(b":")
    if colon and len(report.sections) < MAX_LISTED and name[:1].isalpha() and len(name) <= 64:
        label = text(name, 64)
        if label not in report.sections:
            report.sections.append(label)
