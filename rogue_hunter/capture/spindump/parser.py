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

from rogue_hunter.capture.spindump import header
from rogue_hunter.capture.spindump.assembly import (
    MAX_LISTED,
    Process,
    Report,
    Thread,
    close_process,
    close_thread,
    finish,
    note_state,
    open_powerstats,
    open_process,
    open_thread,
)
from rogue_hunter.capture.spindump.decode import text
from rogue_hunter.capture.spindump.lines import is_thread_line, state_of
from rogue_hunter.capture.spindump.stacks import MAX_FRAMES
from rogue_hunter.stream.tick import Record

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
        if self.report.in_section or self.report.binary:
            held, self.held = self.held, b""
            if held and line.startswith(_SECOND_LINE[held[:8]]):
                self.report.in_section = False
                yield from self._next_report(held) if held[:1] == b"D" else self._take(held)
            elif line.startswith(BINARY_FORMAT):
                self.report.binary = True
                return
            elif line[:8] in _SECOND_LINE and (line[:1] == b"D" or not self.report.binary):
                self.held = line
                return
            else:
                if not self.report.binary:
                    self._section(line)
                return
        yield from self._take(line)

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
        elif line.startswith(b"Process:"):
            yield from self._close()
            self.process = open_process(report, line, self.frames_of)
        elif line.startswith(b"Powerstats for:"):
            yield from self._close()
            self.process = open_powerstats(report, line)
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
        ended = last.endswith(b"\n") or not last.strip() or report.binary
        if report.last_images and not report.sections and not ended and report.processes and not _whole_image(last):
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
            self._outside(bare)

    def _inside(self, line: bytes, process: Process) -> Iterator[Record]:
        """A line at the left margin after `Process:`."""
        report, thread = self.report, self.thread
        if process.stack is not None:
            if line.startswith(b"Date/Time:"):
                yield from self._next_report(line)
            else:
                header.process_line(line, process.fields, report.page_bytes, powerstats=True)
        elif is_thread_line(line) and not process.images:
            yield from self._open_thread(process, line)
        elif thread is None and not process.images and process.listed == 0 and \
                not (process.after_blank and header.begins_section(line)):
            header.process_line(line, process.fields, report.page_bytes)
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
        if line.startswith(b"Process:"):
            self.process = open_process(report, line, self.frames_of)
        elif report.processes:
            self._section(line)
        elif line.startswith(b"Heaviest stack"):
            report.in_heaviest = True
        elif header.report_line(line, report.fields, report.extra):
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
        header.report_line(line, self.report.fields, self.report.extra)
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
