"""Reading what forensics said before: records of captures and parsed reports, taken apart report by report."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from rogue_hunter.capture.spindump.detect import parse_file
from rogue_hunter.capture.spindump.input import plain
from rogue_hunter.capture.spindump.parser import FramesOf
from rogue_hunter.schema.capture import RECORDS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record


def read(stream: io.BufferedReader, *, frames_of: FramesOf | None = None) -> Iterator[Record]:
    """The records of a report or a log as somebody sent it, or of a stream of records that was made of some.

    A compressed file is unpacked on the way. What cannot be used is said in `error` records.
    """
    stream, problem = plain(stream)
    if stream.peek(64).lstrip().startswith(b'{"type":'):
        yield from _checked(stream)
    else:
        yield from parse_file(stream, frames_of=frames_of)
    if problem.text:
        yield record("error", stage="forensics", message=problem.text)


def _checked(stream: io.BufferedReader) -> Iterator[Record]:
    """Records of forensics that are what they are declared to be; others are passed over."""
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
        # In a file the report's own record comes last; a capture is as long as its key stands in the records.
        if kind == "spindump_report" and capture is None:
            yield None, held
            held = []
    if held:
        yield key, held
