"""Detect what a file is (a report, a log, or records of captures) and read it."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import BinaryIO

from rogue_hunter.capture import logs
from rogue_hunter.capture.spindump import parser
from rogue_hunter.capture.spindump.input import plain, quote_of, unquoted
from rogue_hunter.capture.spindump.parser import FramesOf
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
    (b"\xff\xfe", "text in UTF-16: convert it to UTF-8 first"),
    (b"\xfe\xff", "text in UTF-16: convert it to UTF-8 first"),
)
_REPORT = re.compile(rb"\s{0,16}(?:\xef\xbb\xbf)?(?:Report Version:|Date/Time: |Process:  |Data Source: "
                     rb"|Powerstats for:|Thread 0x[0-9a-f]+ )")
_KMSG = re.compile(rb"[0-9]{1,9},[0-9]{1,18},[0-9]{1,18},")


def bounded_lines(stream: BinaryIO, limit: int = MAX_LINE) -> Iterator[bytes]:
    """Lines of `stream`, each at most `limit` bytes; the rest of a longer line is dropped."""
    readline = stream.readline
    while line := readline(limit):
        yield line
        while len(line) == limit and not line.endswith(b"\n"):
            line = readline(limit)


def parse_file(stream: BinaryIO, *, frames_of: FramesOf | None = None, capture: str | None = None) -> Iterator[Record]:
    """Records of a spindump report, a log of macOS, a journal or a kernel log, detected from the content of `stream`.

    Memory does not grow with the file. Lines that cannot be read, an unknown format and a file that was cut off become
    `error` records; a command that saw one exits 65. Raises only what reading raises.
    """
    lines = bounded_lines(stream, MAX_LOG_LINE)
    head = list(islice(lines, 1))
    kind = _kind_of_one(head[0]) if head else ""
    quote = quote_of(head[0]) if head else b""
    size = sum(map(len, head))
    while not kind and not quote and head and len(head) < HEAD_LINES and size < 1 << 20:
        more = next(lines, None)
        if more is None:
            break
        head.append(more)
        size += len(more)
        kind, quote = _kind_of_one(more), quote_of(more)
    whole: Iterable[bytes] = chain(head, lines)
    if quote:  # the lines before it are the answer to the e-mail
        yield from _report(unquoted(chain(head[-1:], lines), quote), frames_of, capture)
    elif kind == "report":
        yield from _report(whole, frames_of, capture)
    elif kind == "unified":
        yield from logs.unified(whole, capture)
    elif kind == "journal":
        yield from logs.journal(whole, capture)
    elif kind == "kernel":
        yield from logs.kernel(whole, None, capture)
    else:
        yield record("error", stage="forensics", message=_refusal(head))


def _kind_of_one(line: bytes) -> str:
    if _REPORT.match(line):
        return "report"
    if line.startswith(b"Filtering the log data using"):
        return "unified"
    if _KMSG.match(line):
        return "kernel"
    if line.startswith((b"{", b"[{")):
        if b'"__REALTIME_TIMESTAMP"' in line or b'"__CURSOR"' in line:
            return "journal"
        if b'"eventMessage"' in line or b'"machTimestamp"' in line or b'"finished"' in line:
            return "unified"
    if b'"traceID" :' in line or b'"eventMessage" :' in line:
        return "unified"
    return ""


def _report(lines: Iterable[bytes], frames_of: FramesOf | None, capture: str | None) -> Iterator[Record]:
    more = {} if frames_of is None else {"frames_of": frames_of}
    for each in parser.parse(lines, capture=capture, **more):
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
    sample = b"".join(head)[:65536]
    strange = sum(b < 9 or 13 < b < 32 for b in sample)
    if b"\0" in sample or strange > len(sample) // 10:
        return "not a report but binary data: a tailspin or stackshot file is decoded by `spindump -i FILE -stdout`"
    if any(line.startswith(b"Analysis of sampling") for line in head):
        return "not a spindump but a report of `sample`: it has no waits and no other processes"
    if any(b'"bug_type"' in line for line in head):
        return "not a spindump: a diagnostic report (.ips) without text of stacks"
    return "not a spindump report and not a log: no line begins with `Report Version:`, `Process:` or a log entry"


def tail(records: Iterable[Record], limit: int) -> tuple[list[Record], int]:
    """The last `limit` records, and how many were left out. Warnings and worse are kept before anything else."""
    grave: deque[tuple[int, Record]] = deque(maxlen=limit)
    other: deque[tuple[int, Record]] = deque(maxlen=limit)
    count = 0
    for count, each in enumerate(records, 1):
        (grave if each.get("level") in _GRAVE else other).append((count, each))
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
        if kind == "spindump_report" and capture is None:
            yield None, held
            held = []
    if held:
        yield key, held
