"""Detect what a file is (a report, a log, or records of captures) and read it."""

from __future__ import annotations

import codecs
import io
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from rogue_hunter.capture import logs
from rogue_hunter.capture.reports import ips, spindump, tools
from rogue_hunter.capture.reports.spindump import FramesOf
from rogue_hunter.schema.capture import RECORDS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record

MAX_LINE = 1 << 16
"""Bytes of one line of a report that are parsed; the longest real line has 3,400 (a Swift symbol)."""
MAX_LOG_LINE = 1 << 20
HEAD_LINES = 400
"""Lines that are read to detect what a file is. A report may come after a page of other output."""

_MAGIC = (
    (b"\x1f\x8b", "compressed with gzip once more: uncompress it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\xfd7zXZ", "compressed with xz: uncompress it first"),
    (b"BZh", "compressed with bzip2: uncompress it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: uncompress it first"),
    (b"bplist", "a binary property list"),
    (b"SQLite format 3", "a database"),
    (b"<?xml", "XML, as of a property list: of powermetrics the text form is read"),
)
_KMSG = re.compile(rb"[0-9]{1,9},[0-9]{1,18},[0-9]{1,18},")
_HINT_LINES = 64
"""Lines after the first hint of a report in which a line may name the kind. The keys of a crash or sample report begin
like those of a spindump."""

_NAMED = re.compile(
    rb"\s{0,16}(?:"
    rb"(?P<sample>Analysis of sampling |Analysis Tool: *\S*/sample\s)"
    rb"|(?P<crash>Exception Type: |Crashed Thread: |Triggered by Thread: |Exception Codes: )"
    rb"|(?P<reset>Boot faults:|Boot failure count:)"
    rb"|(?P<report>Report Version: *(?:1[6-9]|[2-9][0-9])|Data Source: |Powerstats for:|Thread 0x[0-9a-f]+ "
    rb"|End time: |Steps: |Event: |Spindump binary format|Use spindump -i to generate textual report)"
    rb"|(?P<heap>Analysis Tool: *\S*/(?:heap|leaks|vmmap|malloc_history|stringdups)\s)"
    rb"|(?P<pmset>PM ASL data store:|Time stamp +Domain +Message|[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} "
    rb"[+-][0-9]{4} (?:Sleep|Wake|DarkWake|Assertions|PM Client Acks|Wake Requests|Start|Notification)[\s])"
    rb"|(?P<powermetrics>\*\*\* Sampled system activity \()|(?P<top>Processes: [0-9]{1,9} total, )"
    rb"|(?P<taskinfo>process: \".{0,1024}\" \[[0-9]{1,10}\] \[unique ID: )"
    rb"|(?P<fs_usage>[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3,6}  [A-Za-z_]{1,32} .{0,4096} [0-9]{1,6}\.[0-9]{6} {1,16}"
    rb"(?:W {1,16})?\S)"
    rb"|(?P<panic>\*\*\* Panic Report \*\*\*|panic\(cpu [0-9]{1,4} caller 0x))")
"""A line that names the kind of the file it is in."""
_HINT = re.compile(rb"\s{0,16}(?:Report Version:|Date/Time: |Process:  )")
_UNREAD = {
    "heap": "a report of heap, leaks or vmmap: it holds memory of one process, no stacks and no waits",
    "fs_usage": "a trace of fs_usage: it lists calls, no load of processes",
    "panic": "a kernel panic as text, as macOS wrote it before 10.15",
}
"""Kind that is recognised and not read -> the words that refuse it."""


def bounded_lines(stream: BinaryIO, limit: int = MAX_LINE) -> Iterator[bytes]:
    """Lines of `stream`, each at most `limit` bytes; the rest of a longer line is dropped."""
    readline = stream.readline
    while line := readline(limit):
        yield line
        while len(line) == limit and not line.endswith(b"\n"):
            line = readline(limit)


def parse_file(stream: BinaryIO, *, frames_of: FramesOf | None = None, capture: str | None = None) -> Iterator[Record]:
    """Records of a report of macOS, a log of macOS, a journal or a kernel log, detected from the content of `stream`.

    Memory does not grow with the file (a report in JSON is bounded). Lines that cannot be read, an unknown format and a
    file that was cut off become `error` records; a command that saw one exits 65. Raises only what reading raises.
    """
    yield from _detected(bounded_lines(stream, MAX_LOG_LINE), stream, frames_of, capture)


def _detected(lines: Iterator[bytes], stream: BinaryIO | None, frames_of: FramesOf | None,
              capture: str | None) -> Iterator[Record]:
    """The records of `lines`; a report in JSON is read from `stream`, as its lines have no bound."""
    head: list[bytes] = []
    kind, quote, size, hint = "", b"", 0, -1
    first: ips.Json | None = None
    while (line := next(lines, None)) is not None:
        line = line if head else line.removeprefix(codecs.BOM_UTF8)
        if stream is not None and first is None and (first := ips.header_of(line)) is not None:
            while (line := stream.readline(MAX_LOG_LINE)) and not line.strip():
                pass
            if line.lstrip()[:1] == b"{":
                yield from ips.parse(first, chain([line], iter(lambda: stream.readline(MAX_LOG_LINE), b"")), capture)
                return
        head.append(line)
        size += len(line)
        kind, quote = _kind_of_one(line), b"" if stream is None else quote_of(line)
        if hint < 0 and _HINT.match(line):
            hint = len(head)
        if kind or quote or size >= 1 << 20 or len(head) >= (HEAD_LINES if hint < 0 else hint + _HINT_LINES):
            break
    kind = kind or ("report" if hint >= 0 else "ips" if _bare_ips(head) else "")
    whole = chain(head, lines)
    if quote:  # the lines before it are the answer to the e-mail
        yield from _detected(unquoted(chain(head[-1:], lines), quote), None, frames_of, capture)
    elif kind in _READERS:
        yield from _READERS[kind](whole, frames_of, capture, ips.common(first) if first else {})
    else:
        yield record("error", stage="forensics",
                     message=f"not read: {_UNREAD[kind]}" if kind in _UNREAD else _refusal(head))


_READERS: dict[str, Callable[[Iterable[bytes], FramesOf | None, str | None, dict[str, Any]], Iterator[Record]]] = {
    "report": lambda lines, frames_of, capture, _: _whole(
        spindump.parse(lines, capture=capture, **({} if frames_of is None else {"frames_of": frames_of}))),
    "sample": lambda lines, frames_of, capture, _: _whole(tools.sample(lines, frames_of=frames_of, capture=capture)),
    "crash": lambda lines, _, capture, known: ips.text_crash(lines, capture, known),
    "reset": lambda lines, _, capture, known: ips.text_reset(lines, capture, known),
    "ips": lambda lines, _, capture, known: ips.parse(known, lines, capture),
    "pmset": lambda lines, _, capture, known: tools.pmset(lines, capture),
    "powermetrics": lambda lines, _, capture, known: tools.powermetrics(lines, capture),
    "top": lambda lines, _, capture, known: tools.top(lines, capture),
    "taskinfo": lambda lines, _, capture, known: tools.taskinfo(lines, capture),
    "show": lambda lines, _, capture, known: logs.parse(lines, capture),
    "unified": lambda lines, _, capture, known: logs.unified(lines, capture),
    "journal": lambda lines, _, capture, known: logs.journal(lines, capture),
    "kernel": lambda lines, _, capture, known: logs.kernel(lines, None, capture),
}
"""Kind of a file -> its parser, given the lines, `frames_of`, the capture's key, and what a first line in JSON has."""


def _bare_ips(head: list[bytes]) -> bool:
    """The JSON of an .ips file whose first line was lost."""
    start = b"".join(head)[:65536]
    return start.lstrip()[:1] == b"{" and any(key in start for key in (
        b'"crashReporterKey"', b'"procName"', b'"largestProcess"', b'"processByPid"', b'"panicString"',
        b'"macOSPanicString"', b'"macOSProcessedStackshotData"'))


def _kind_of_one(line: bytes) -> str:
    if found := _NAMED.match(line):
        return str(found.lastgroup)
    if _KMSG.match(line):
        return "kernel"
    if line.startswith((b"{", b"[{")):
        if b'"__REALTIME_TIMESTAMP"' in line or b'"__CURSOR"' in line:
            return "journal"
        if b'"eventMessage"' in line or b'"machTimestamp"' in line or b'"finished"' in line:
            return "unified"
    if b'"traceID" :' in line or b'"eventMessage" :' in line:
        return "unified"
    return "show" if logs.is_entry(line) else ""


def _whole(records: Iterable[Record]) -> Iterator[Record]:
    """The records; an `error` record after a report that is incomplete."""
    for each in records:
        yield each
        if each["type"] == "spindump_report" and each.get("complete") is False:
            said = "; ".join(each.get("problems", ()))
            yield record("error", stage="forensics", line=each["lines"],
                         message=f"the report is incomplete: {said}; {each['processes']} processes and "
                                 f"{each['threads']} threads could be read")


def _refusal(head: list[bytes]) -> str:
    """The reason why this file cannot be read, in one line."""
    if not head:
        return "the input is empty"
    first = head[0]
    for magic, words in _MAGIC:
        if first.startswith(magic):
            return f"not a report: {words}"
    start = b"".join(head)[:65536]
    strange = sum(b < 9 or 13 < b < 32 for b in start)
    if b"\0" in start or strange > len(start) // 10:
        return "not a report but binary data: a tailspin or stackshot file is decoded by `spindump -i FILE -stdout`"
    if any(b'"bug_type"' in line for line in head):
        return "a diagnostic report (.ips) of a kind that is not read, or only its first line"
    return "not a spindump report and not a log: no line begins with `Report Version:`, `Process:` or a log entry"


def tail(records: Iterable[Record], limit: int) -> tuple[list[Record], int]:
    """The last `limit` records, and how many were left out. Warnings and worse are kept before anything else."""
    grave: deque[tuple[int, Record]] = deque(maxlen=limit)
    other: deque[tuple[int, Record]] = deque(maxlen=limit)
    count = 0
    for count, each in enumerate(records, 1):
        (grave if each.get("level") in _GRAVE or each.get("kind") in logs.KERNEL_FACTS else other).append((count, each))
    room = max(0, limit - len(grave))
    kept = sorted([*grave, *islice(other, max(0, len(other) - room), None)], key=lambda pair: pair[0])
    return [each for _, each in kept], count - len(kept)


_GRAVE = frozenset(("error", "fault", "emerg", "alert", "crit", "err", "warning"))


def read(stream: io.BufferedReader, *, frames_of: FramesOf | None = None) -> Iterator[Record]:
    """The records of a report or a log, or of a stream of records of captures.

    A compressed file is unpacked. Lines that cannot be used become `error` records.
    """
    stream, problem = plain(stream)
    if stream.peek(64).lstrip().startswith(b'{"type":'):
        yield from _checked(stream)
    else:
        yield from parse_file(stream, frames_of=frames_of)
    if problem.text:
        yield record("error", stage="forensics", message=problem.text)


def _checked(stream: io.BufferedReader) -> Iterator[Record]:
    """The valid records of captures; other record types are ignored."""
    reader = wire.Reader(stream, "forensics")
    for tick in reader.ticks():
        for each in tick.records:
            if each["type"] == "error":
                yield each
            elif each["type"] in RECORDS:
                try:
                    wire.check(each["type"], each)
                except ValueError as error:
                    yield record("error", stage="forensics", message=f"not a record of a capture: {error}")
                else:
                    yield each
    if reader.truncated:
        yield record("error", stage="forensics", message=f"cut short: {reader.truncated}")


def reports(records: Iterable[Record]) -> Iterator[tuple[str | None, list[Record]]]:
    """The records of each report or capture together, with the capture's key; `error` records are left out."""
    held: list[Record] = []
    key: str | None = None
    for each in records:
        kind, capture = each["type"], each.get("capture")
        if kind == "error":
            continue
        if capture != key and held:
            yield key, held
            held = []
        key = capture
        held.append(each)
        # In a file the report's own record comes last; a capture ends where its key ends.
        if capture is None and (kind == "spindump_report" or (kind.endswith("_report") and not any(
                one["type"] == "spindump_process" for one in held))):
            yield None, held
            held = []
    if held:
        yield key, held


# -- the input as lines of text ----------------------------------------------------------------------------------------

MAX_UNPACKED = 1 << 30
"""Bytes that are unpacked from a compressed file. The largest real report has 40 MB; a gzip file can unpack to a
thousand times its size."""

GZIP = b"\x1f\x8b"

_BUFFER = 1 << 16


class Problem:
    """`text`: what was wrong with the input, known once it is read; empty if nothing was."""

    text = ""


def plain(stream: io.BufferedReader, limit: int = MAX_UNPACKED) -> tuple[io.BufferedReader, Problem]:
    """The stream as UTF-8 with line feeds: gzip is unpacked up to `limit` bytes, UTF-16 is decoded, carriage returns
    end the lines of a file that has no line feeds.

    The stream ends where unpacking fails; the Problem has the reason. Raises nothing itself.
    """
    problem = Problem()
    if stream.peek(2).startswith(GZIP):
        stream = _buffered(_unpacked(stream, limit, problem))
    start, pieces = stream.peek(_BUFFER), iter(lambda: stream.read1(_BUFFER), b"")
    if wide := _utf_16(start[:64]):
        pieces = (text.encode("utf-8", "replace") for text in codecs.iterdecode(pieces, wide, "replace"))
        start = start.replace(b"\0", b"")
    returns = b"\r" in start and b"\n" not in start
    if returns:
        pieces = (piece.replace(b"\r", b"\n") for piece in pieces)
    return (_buffered(pieces) if wide or returns else stream), problem


def _utf_16(start: bytes) -> str:
    """The name of this encoding, by the mark at the start or by Latin letters; empty for any other."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    empty = [len(start) > 1 and not any(start[at::2]) for at in (0, 1)]
    return "" if empty[0] == empty[1] else "utf-16-be" if empty[0] else "utf-16-le"


class _Pieces(io.RawIOBase):
    """A stream of the pieces of an iterator."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; 0 at the end."""
        data = self._rest or next(filter(None, self._pieces), b"")
        count = min(len(buffer), len(data))
        buffer[:count], self._rest = data[:count], data[count:]
        return count


def _buffered(pieces: Iterator[bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Pieces(pieces), _BUFFER)


def _unpacked(stream: io.BufferedReader, limit: int, problem: Problem) -> Iterator[bytes]:
    """The bytes of a gzip file, up to a limit."""
    import gzip

    packed, most = gzip.GzipFile(fileobj=stream), limit
    try:
        while limit >= 0 and (data := packed.read1(_BUFFER)):
            yield data[:limit]
            limit -= len(data)
    except (EOFError, zlib.error, OSError) as error:
        # An OSError with a number is a read error of the disk, not a damaged file.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        cut = isinstance(error, EOFError)
        problem.text = f"compressed with gzip, and {'cut short' if cut else f'damaged: {error}'}"
    if limit < 0:
        problem.text = f"it unpacks to more than {most >> 20} MiB: the rest is not read"


_QUOTED = re.compile(rb"((?:> ?){1,8})(?:Report Version:|Date/Time: |Process:  |Data Source: |Powerstats for:)")


def quote_of(line: bytes) -> bytes:
    """The e-mail quote marks before the first line of a report; empty if there are none."""
    found = _QUOTED.match(line)
    return found.group(1) if found else b""


def unquoted(lines: Iterable[bytes], quote: bytes) -> Iterator[bytes]:
    """The lines without `quote`. An empty line often lacks the space after its mark."""
    bare = quote.rstrip()
    for line in lines:
        if line.startswith(quote):
            yield line[len(quote):]
        elif line.rstrip() == bare:
            yield b"\n"
        else:
            yield line
