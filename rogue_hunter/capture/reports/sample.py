"""The text that sample(1) prints about one process: its header, the call graph of each thread, the top of all stacks.

    Analysis of sampling NAME (pid 1828) every 1 millisecond
    Call graph:
        2449 Thread_16614993   DispatchQueue_1: com.apple.main-thread  (serial)
        + 2449 start  (in dyld) + 462  [0x1077c151e]
        +   2449 ???  (in NAME)  load address 0x103c0a000 + 0x3eb0  [0x103c0deb0]

The column of the count is the depth; `+ ! : |` draw the branches. A process may have threads without end, and none of
them is kept: memory holds one stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rogue_hunter.capture.spindump.decode import (
    NAME_LIMIT,
    Keys,
    Stack,
    frame_text,
    keyed,
    named,
    named_as,
    one,
    plain,
    size,
    text,
    timestamp,
)
from rogue_hunter.capture.spindump.parser import FramesOf
from rogue_hunter.stream.tick import Record, record

MAX_TOP = 32
_TITLE = re.compile(rb"Analysis of sampling (.{1,1024}) \(pid ([0-9]{1,10})\) every ([0-9]{1,9}) (milli|micro)?second")
_SPAN = re.compile(rb"Sampling process [0-9]{1,10} for ([0-9]{1,9}) seconds?")
_LINE = re.compile(rb"([ +!:|]{1,4096})([0-9]{1,12}) ")
_THREAD = re.compile(rb"Thread_(<[^>]{1,64}>|[0-9a-fA-FxX]{1,18})(?::? ([^ ].{0,1024}?))?"
                     rb"(?:   ?(DispatchQueue_.{1,1024}))?$")
_IN = re.compile(rb"  \(in (.{1,1024})\)(?:  load address 0x[0-9a-f]{1,16} \+ 0x[0-9a-f]{1,16})?")
_OFFSETS = re.compile(rb" \+ [0-9,.]{1,256}$")
_TOP_LINE = re.compile(rb" {2,64}(\S.{0,1024}?) {2,1024}([0-9]{1,12})$")

_KEYS: Keys = {
    b"Path": one("path", plain), b"Identifier": one("identifier", plain), b"Version": one("version", plain),
    b"Code Type": one("architecture", plain), b"Parent Process": named_as("parent"),
    b"Responsible": named_as("responsible"),
    b"Date/Time": one("ts", timestamp), b"Launch Time": one("start_ts", timestamp),
    b"OS Version": one("os_version", plain), b"Report Version": one("report_version", plain),
    b"Physical footprint": one("memory_bytes", lambda value: size(value + b"B")),
    b"Physical footprint (peak)": one("memory_peak_bytes", lambda value: size(value + b"B")),
}
_OF_REPORT = ("ts", "os_version", "report_version", "architecture")


class _Parser:
    def __init__(self, frames_of: FramesOf | None, capture: str | None) -> None:
        self.frames_of, self.capture = frames_of, capture
        self.report: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}
        self.section = self.lines = self.threads = 0
        self.top: list[dict[str, Any]] = []
        self.thread: dict[str, Any] | None = None
        self.stack = Stack(True)

    def line(self, line: bytes) -> Iterator[Record]:
        self.lines += 1
        bare = line[:16384].rstrip()
        if found := _TITLE.match(bare):
            self.fields.update(command=text(found[1], NAME_LIMIT), pid=int(found[2]))
            self.report["interval_ms"] = int(found[3]) * {b"milli": 1.0, b"micro": 0.001}.get(found[4], 1000.0)
        elif found := _SPAN.match(bare):
            self.report["duration_s"] = float(found[1])
        elif bare.startswith(b"Process:"):
            who = named(bare[len(b"Process:"):])
            self.fields.setdefault("command", f"{who.command} ({who.display})" if who.display else who.command)
            self.fields.setdefault("pid", who.pid)
        elif bare.startswith((b"Call graph:", b"Total number in stack", b"Sort by top of stack", b"Binary Images:")):
            yield from self._close()
            self.section = {b"Cal": 1, b"Sor": 2}.get(bare[:3], 3)
        elif self.section == 1:
            yield from self._graph(bare)
        elif self.section == 2 and len(self.top) < MAX_TOP and (found := _TOP_LINE.match(bare)):
            self.top.append({"frame": _frame(found[1]), "samples": int(found[2])})
        elif not self.section:
            keyed(bare, _KEYS, self.fields)

    def _graph(self, bare: bytes) -> Iterator[Record]:
        found = _LINE.match(bare)
        if found is None:
            return
        rest = bare[found.end():]
        if rest.startswith(b"Thread_") and found.end(1) <= 8:
            yield from self._close()
            title = _THREAD.match(rest)
            name, queue = (title[2] or b"", title[3]) if title else (rest[7:], None)
            name = name.strip(b": ")
            if queue is None and name.startswith(b"DispatchQueue_"):
                name, queue = b"", name
            self.threads += 1
            self.stack = Stack(self.frames_of is None or self.frames_of(self.fields.get("pid")))
            self.thread = {
                "thread_id": text(title[1], 64) if title else "?", "samples": int(found[2]),
                "thread_name": text(name, NAME_LIMIT) or None,
                "queue": text(queue, NAME_LIMIT) if queue else None,
            }
            self.report["steps"] = max(self.report.get("steps", 0), int(found[2]))
        elif self.thread is not None:
            self.stack.add(found.end(1), found[2] + b" " + _spindump_form(rest))

    def _close(self) -> Iterator[Record]:
        if self.thread is None:
            return
        if self.threads == 1:
            yield self._process()
        frames, leaf = self.stack.heaviest()
        yield record("spindump_thread", capture=self.capture, process=1, pid=self.fields.get("pid"),
                     command=self.fields.get("command", ""), main=True if self.threads == 1 else None,
                     frames=frames or None, leaf=leaf, **self.thread)
        self.thread = None

    def _process(self) -> Record:
        return record("spindump_process", capture=self.capture, process=1, **{
            "command": "", **{k: v for k, v in self.fields.items() if k not in ("ts", "os_version", "report_version")}})

    def end(self) -> Iterator[Record]:
        """The records that are open at the end, and the report's."""
        yield from self._close()
        if not self.threads:
            yield self._process()
        fields = self.fields
        yield record(
            "spindump_report", capture=self.capture, format="sample", event="sample", data_source="sample",
            pid=fields.get("pid"), command=fields.get("command"), path=fields.get("path"),
            **{name: fields[name] for name in _OF_REPORT if name in fields}, **self.report, top=self.top or None,
            processes=1, threads=self.threads, threads_aggregated=0, blockers=0, edges=0, lines=self.lines,
            complete=self.section > 1, problems=None if self.section > 1 else [
                "ends inside of the call graph" if self.section else "no call graph"])


def _spindump_form(rest: bytes) -> bytes:
    """`start  (in dyld) + 462  [0x1]` as spindump writes it: `start (dyld) + 462`."""
    return _OFFSETS.sub(b"", _IN.sub(rb" (\1)", rest.split(b"  [0x", 1)[0]))


def _frame(rest: bytes) -> str:
    return frame_text(b"1 " + _spindump_form(rest))


def parse(lines: Iterable[bytes], *, frames_of: FramesOf | None = None, capture: str | None = None) -> Iterator[Record]:
    """The process, its threads, and a spindump_report of the format `sample`; of several reports one after the other.

    Never raises because of the content. A thread has no state: sample does not print it, the leaf shows it.
    """
    parser = _Parser(frames_of, capture)
    for line in lines:
        if line.startswith(b"Analysis of sampling ") and parser.fields:
            yield from parser.end()
            parser = _Parser(frames_of, capture)
        yield from parser.line(line)
    yield from parser.end()
