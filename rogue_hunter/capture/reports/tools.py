"""The output of programs of macOS: powermetrics, top, taskinfo, pmset and sample(1).

powermetrics, top and taskinfo: one `task` record a process, and for each sample of it.

    *** Sampled system activity (Sat Nov  8 15:54:21 2025 +0900) (5021.96ms elapsed) ***
    Name                               ID     CPU ms/s  User%  Deadlines (<2 ms, 2-5 ms)  Wakeups (Intr, Pkg idle)
    WindowServer                       178    65.32     61.28  26.54   0.00               127.68  0.00

    PID    COMMAND          %CPU TIME     #TH   #WQ  #PORTS MEM    PURG   CMPRS  PGRP  PPID STATE
    93420  Some Helper (Re  12.5 00:01.23 15    3    120    12M+   0B     0B     93420 2284 sleeping

    process: "launchd" [1] [unique ID: 1]
    virtual bytes: 389.03 GB; phys_footprint bytes: 12.23 MB; phys_footprint lifetime maximum bytes: 12.36 MB

Columns are found by their titles, as options of the programs add and move them; a name may hold blanks and digits.

pmset: when the Mac slept and woke, as `sleep_wake` records. The sampler detects a sleep by two clocks that drift apart.
The log also covers the time before the sampler started: a pause just after a wake is caused by the wake, not by a
process. It is made for people. Real ones contain (macOS 10.14 to 15): columns padded with blanks or tabs, `Using BATT`,
`Using Batt` and `Using AC(Charge: 0)` beside `Using AC (Charge:10%)`, a header that comes again in the middle, a zone
offset that changes with travel, a clock that steps backwards, bytes that are not UTF-8. A line that is not an event is
skipped.

sample(1): one process, its header, the call graph of each thread, the top of all stacks.

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
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from rogue_hunter.capture.reports.decode import (
    NAME_LIMIT,
    Fields,
    Keys,
    Stack,
    fraction,
    frame_text,
    keyed,
    named,
    named_as,
    one,
    plain,
    size,
    text,
    timestamp,
    whole,
)
from rogue_hunter.capture.reports.spindump import FramesOf
from rogue_hunter.stream.tick import Record, record

MAX_ROWS = 20_000
"""Rows of one table that are held until it ends."""
_SAMPLE = re.compile(rb"\*\*\* Sampled system activity \((.{1,64}?)\) \(([0-9]{1,12}(?:\.[0-9]{1,6})?)ms elapsed\)")
_TITLES = re.compile(rb"(\S.{0,63}?)(?: {2,}|$)")
_PROCESS = re.compile(rb'process: "(.{0,1024})" \[([0-9]{1,10})\] \[unique ID: [0-9]{1,20}\]$')
_FOOTPRINT = re.compile(rb"phys_footprint (bytes|lifetime max[a-z ]*): ([0-9.]{1,20} [KMGT]?i?B)")
_COMMAND = re.compile(rb"(?<=\s)COMMAND(?:\s+|$)")
_LIMIT = re.compile(rb"([0-9]{1,9})% CPU over ([0-9]{1,9}) seconds")
_CLOCK = re.compile(rb"[0-9]{1,9}(?::[0-9]{2}){1,2}(?:\.[0-9]{1,3})?")


def _seconds(value: bytes) -> float | None:
    """`12:34.56` and `01:02:03`."""
    if not _CLOCK.match(value):
        return None
    total = 0.0
    for part in value.split(b":"):
        total = total * 60 + (fraction(part) or 0.0)
    return total


def _times(value: bytes) -> float | None:
    """User and system time together, of `0.145469 s / 0.000000 s`."""
    both = [fraction(part) for part in value.split(b"/")]
    return None if None in both else sum(filter(None, both))


def _footprint(value: bytes) -> Fields:
    return {"memory_bytes" if kind == b"bytes" else "memory_peak_bytes": size(amount)
            for kind, amount in _FOOTPRINT.findall(value)}


def _monitor(value: bytes) -> Fields:
    found = _LIMIT.match(value)
    return {"cpu_limit_percent": float(found[1]), "cpu_limit_over_s": float(found[2])} if found else {}


_TASKINFO: Keys = {
    b"run time": one("age_s", fraction), b"virtual bytes": _footprint, b"CPU usage monitor": _monitor,
    b"user/system time    (current threads)": one("_current", _times),
    b"user/system time (terminated threads)": one("_ended", _times),
    b"interrupt wakeups": one("wakeups_total", whole), b"CPU wakes monitor": one("wakeups_limit", fraction),
}
_TOP: Keys = {
    b"%CPU": one("cpu_percent", fraction), b"TIME": one("cpu_seconds", _seconds), b"#TH": one("threads", whole),
    b"MEM": one("memory_bytes", lambda value: size(value.rstrip(b"+-") + b"B")), b"PPID": one("parent_pid", whole),
    b"STATE": one("state", plain), b"PID": one("pid", whole),
}
_POWERMETRICS: Keys = {
    b"CPU ms/s": lambda value: {"cpu_percent": round((fraction(value) or 0.0) / 10, 4)},
    b"Wakeups": one("wakeups_per_s", fraction), b"Energy Impact": one("energy_impact", fraction),
}


def taskinfo(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """The processes of taskinfo, as sysdiagnose keeps it."""
    fields: Fields = {}
    number = 0
    for line in lines:
        bare = line[:16384].strip()
        if found := _PROCESS.match(bare):
            yield from _task("taskinfo", number, fields, capture)
            fields, number = {"command": text(found[1], NAME_LIMIT), "pid": int(found[2]), "threads": 0}, number + 1
        elif fields and bare.startswith(b"thread ID: "):
            fields["threads"] += 1
        elif fields and not fields["threads"]:
            keyed(bare, _TASKINFO, fields)
    yield from _task("taskinfo", number, fields, capture)


def _task(source: str, number: int, fields: Fields, capture: str | None) -> Iterator[Record]:
    if fields:
        parts = [fields.pop(name, None) for name in ("_current", "_ended")]
        if None not in parts:
            fields["cpu_seconds"] = round(sum(parts), 6)
        yield record("task", capture=capture, source=source, process=number,
                     **{**fields, "threads": fields.get("threads") or None})


def top(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """The rows of `top -l`. Its clock has no zone, so the time of a sample is not known."""
    titles: list[bytes] = []
    start = end = number = 0
    for line in lines:
        bare = line[:16384].rstrip()
        if bare.startswith(b"Processes:"):
            titles, number = [], 0
        elif bare.startswith(b"PID ") and (found := _COMMAND.search(bare)):
            titles, start = bare.split(), found.start()
            end = found.end() if found.end() < len(bare) else 16384
        elif titles and bare[:1].isdigit():
            at = titles.index(b"COMMAND")
            values = dict(zip(titles[:at], bare[:start].split(), strict=False))
            values |= dict(zip(titles[at + 1:], bare[end:].split(), strict=False))
            number += 1
            name = text(bare[start:end].strip(), NAME_LIMIT)
            yield from _task("top", number, {"command": name, **_read(values, _TOP)}, capture)


def _read(values: dict[bytes, bytes], keys: Keys) -> Fields:
    found: Fields = {}
    for title, value in values.items():
        found |= keys[title](value) if title in keys else {}
    return found


def powermetrics(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """The rows of `powermetrics --samplers tasks`, of each sample."""
    span: Fields = {}
    titles: list[bytes] = []
    rows: list[tuple[bool, Fields]] = []
    start = 0
    for line in lines:
        bare = line[:16384].rstrip()
        if found := _SAMPLE.match(bare):
            yield from _sampled(rows, span, capture)
            rows, titles, span = [], [], _span(found[1], float(found[2]) / 1000)
        elif bare.startswith(b"Name ") and b" ID " in bare:
            start = bare.index(b" ID ") + 1
            titles = [name for title in _TITLES.findall(bare[start + 2:].strip()) for name in _columns(title)]
        elif bare.startswith(b"***"):
            titles = []
        elif titles and (values := bare[start:].split()) and len(rows) < MAX_ROWS:
            pid = whole(values[0])
            if pid is not None and bare[:10] != b"ALL_TASKS ":
                fields = {"command": text(bare[:start].strip(), NAME_LIMIT), "pid": pid if pid >= 0 else None,
                          **_read(dict(zip(titles, values[1:], strict=False)), _POWERMETRICS)}
                rows.append((bare[:1] == b" ", fields))
    yield from _sampled(rows, span, capture)


def _columns(title: bytes) -> list[bytes]:
    """The columns of one title: `Wakeups (Intr, Pkg idle)` has two, of which the first is the sum."""
    name, bracket, parts = title.partition(b" (")
    return [name, *(name + b"," + part for part in parts.split(b",")[1:])] if bracket else [title]


def _span(stamp: bytes, seconds: float) -> Fields:
    """`Sat Nov  8 15:54:21 2025 +0900`, the end of a sample of that many seconds."""
    try:
        end = datetime.strptime(stamp.decode("ascii", "replace"), "%a %b %d %H:%M:%S %Y %z").timestamp()
    except (ValueError, OverflowError):
        return {"duration_s": seconds}
    return {"ts": round(end - seconds, 3), "end_ts": end, "duration_s": seconds}


def _sampled(rows: list[tuple[bool, Fields]], span: Fields, capture: str | None) -> Iterator[Record]:
    """The records of one table. Below a group of processes (a coalition) its processes are indented; the group's own
    row, which has no process id, is left out."""
    grouped = any(indented for indented, _ in rows)
    kept: list[dict[str, Any]] = [fields for indented, fields in rows
                                  if indented or not grouped or fields["pid"] is None]
    for number, fields in enumerate(kept, 1):
        yield from _task("powermetrics", number, {**fields, **span}, capture)


PMSET = ("/usr/bin/pmset", "-g", "log")
PMSET_TIMEOUT_S = 20.0
"""The log of a year is tens of megabytes; reading it is for a worker, never for the beat."""
_PMSET_KINDS = {"Sleep": "sleep", "Wake": "wake", "DarkWake": "dark_wake"}
_PMSET_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}) (Sleep|Wake|DarkWake)(?: {2}|\t)\s*(\S.*)",
                         re.ASCII)
# Two blanks or a tab end the domain's column: one blank is within a name ("Wake Requests").
_PMSET_POWER = re.compile(r"[\s:]*\bUsing (AC|BATT)\s*\(\s*Charge:\s*(\d{1,3})%?\s*\)", re.IGNORECASE)
_PMSET_SECONDS = re.compile(r"(\d{1,12}) secs\s*$")
_PMSET_REASON = re.compile(r"due to\s*:?\s*(.*)$")
_PMSET_TCP = re.compile(r"\s*:?\s*TCPKeepAlive=\w+")


def pmset(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """The events, in the log's order, which is the order in which they happened: where the clock was set back, `ts`
    falls."""
    for line in lines:
        text = line[:4096].decode("utf-8", "backslashreplace").rstrip()
        found = _PMSET_LINE.match(text)
        at = timestamp(found[1].encode()) if found else None
        if found and at is not None:    # a month 13 is no date
            yield _sleep_wake(_PMSET_KINDS[found[2]], at, found[3], capture)


def _sleep_wake(kind: str, at: float, message: str, capture: str | None) -> Record:
    seconds, power = _PMSET_SECONDS.search(message), _PMSET_POWER.search(message)
    text = message[: power.start()] if power else message[: seconds.start()] if seconds else message
    text = _PMSET_TCP.sub("", text)
    reason = found[1] if (found := _PMSET_REASON.search(text)) else text
    return record(
        "sleep_wake", capture=capture, ts=at, kind=kind, reason=reason.strip(" '\t:")[:1024] or None,
        duration_s=float(seconds[1]) if seconds else None,
        power={"ac": "ac", "batt": "battery"}[power[1].lower()] if power else None,
        charge_percent=int(power[2]) if power else None)


def _read_pmset(argv: Sequence[str]) -> bytes:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=PMSET_TIMEOUT_S, check=True).stdout


def get_recent_sleep_events(within_s: float = 86400.0, *, now: float | None = None,
                            run: Callable[[Sequence[str]], bytes] = _read_pmset) -> list[Record] | None:
    """The events of the last `within_s` seconds, oldest first; None where pmset cannot be asked."""
    try:
        return recent(list(pmset(run(PMSET).splitlines())), within_s, time.time() if now is None else now)
    except (OSError, subprocess.SubprocessError):
        return None


def recent(events: list[Record], within_s: float, now: float) -> list[Record]:
    """Those not older than `within_s`. Read from the newest back to the first that is older: beyond it, times that look
    recent are from before the clock was set back."""
    kept: list[Record] = []
    for event in reversed(events):
        if event["ts"] < now - within_s:
            break
        if event["ts"] <= now:
            kept.append(event)
    return kept[::-1]


MAX_TOP = 32
_SAMPLE_TITLE = re.compile(rb"Analysis of sampling (.{1,1024}) \(pid ([0-9]{1,10})\) every ([0-9]{1,9}) "
                           rb"(milli|micro)?second")
_SAMPLE_SPAN = re.compile(rb"Sampling process [0-9]{1,10} for ([0-9]{1,9}) seconds?")
_SAMPLE_LINE = re.compile(rb"([ +!:|]{1,4096})([0-9]{1,12}) ")
_SAMPLE_THREAD = re.compile(rb"Thread_(<[^>]{1,64}>|[0-9a-fA-FxX]{1,18})(?::? ([^ ].{0,1024}?))?"
                            rb"(?:   ?(DispatchQueue_.{1,1024}))?$")
_SAMPLE_IN = re.compile(rb"  \(in (.{1,1024})\)(?:  load address 0x[0-9a-f]{1,16} \+ 0x[0-9a-f]{1,16})?")
_SAMPLE_OFFSETS = re.compile(rb" \+ [0-9,.]{1,256}$")
_SAMPLE_TOP = re.compile(rb" {2,64}(\S.{0,1024}?) {2,1024}([0-9]{1,12})$")

_SAMPLE_KEYS: Keys = {
    b"Path": one("path", plain), b"Identifier": one("identifier", plain), b"Version": one("version", plain),
    b"Code Type": one("architecture", plain), b"Parent Process": named_as("parent"),
    b"Responsible": named_as("responsible"),
    b"Date/Time": one("ts", timestamp), b"Launch Time": one("start_ts", timestamp),
    b"OS Version": one("os_version", plain), b"Report Version": one("report_version", plain),
    b"Physical footprint": one("memory_bytes", lambda value: size(value + b"B")),
    b"Physical footprint (peak)": one("memory_peak_bytes", lambda value: size(value + b"B")),
}
_SAMPLE_REPORT = ("ts", "os_version", "report_version", "architecture")


class _Sample:
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
        if found := _SAMPLE_TITLE.match(bare):
            self.fields.update(command=text(found[1], NAME_LIMIT), pid=int(found[2]))
            self.report["interval_ms"] = int(found[3]) * {b"milli": 1.0, b"micro": 0.001}.get(found[4], 1000.0)
        elif found := _SAMPLE_SPAN.match(bare):
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
        elif self.section == 2 and len(self.top) < MAX_TOP and (found := _SAMPLE_TOP.match(bare)):
            self.top.append({"frame": _sample_frame(found[1]), "samples": int(found[2])})
        elif not self.section:
            keyed(bare, _SAMPLE_KEYS, self.fields)

    def _graph(self, bare: bytes) -> Iterator[Record]:
        found = _SAMPLE_LINE.match(bare)
        if found is None:
            return
        rest = bare[found.end():]
        if rest.startswith(b"Thread_") and found.end(1) <= 8:
            yield from self._close()
            title = _SAMPLE_THREAD.match(rest)
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
            **{name: fields[name] for name in _SAMPLE_REPORT if name in fields}, **self.report, top=self.top or None,
            processes=1, threads=self.threads, threads_aggregated=0, blockers=0, edges=0, lines=self.lines,
            complete=self.section > 1, problems=None if self.section > 1 else [
                "ends inside of the call graph" if self.section else "no call graph"])


def _spindump_form(rest: bytes) -> bytes:
    """`start  (in dyld) + 462  [0x1]` as spindump writes it: `start (dyld) + 462`."""
    return _SAMPLE_OFFSETS.sub(b"", _SAMPLE_IN.sub(rb" (\1)", rest.split(b"  [0x", 1)[0]))


def _sample_frame(rest: bytes) -> str:
    return frame_text(b"1 " + _spindump_form(rest))


def sample(lines: Iterable[bytes], *, frames_of: FramesOf | None = None,
           capture: str | None = None) -> Iterator[Record]:
    """The process, its threads, and a spindump_report of the format `sample`; of several reports one after the other.

    Never raises because of the content. A thread has no state: sample does not print it, the leaf shows it.
    """
    parser = _Sample(frames_of, capture)
    for line in lines:
        if line.startswith(b"Analysis of sampling ") and parser.fields:
            yield from parser.end()
            parser = _Sample(frames_of, capture)
        yield from parser.line(line)
    yield from parser.end()
