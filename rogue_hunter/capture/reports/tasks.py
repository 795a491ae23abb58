"""The output of powermetrics, top and taskinfo: one `task` record a process, and for each sample of it.

    *** Sampled system activity (Sat Nov  8 15:54:21 2025 +0900) (5021.96ms elapsed) ***
    Name                               ID     CPU ms/s  User%  Deadlines (<2 ms, 2-5 ms)  Wakeups (Intr, Pkg idle)
    WindowServer                       178    65.32     61.28  26.54   0.00               127.68  0.00

    PID    COMMAND          %CPU TIME     #TH   #WQ  #PORTS MEM    PURG   CMPRS  PGRP  PPID STATE
    93420  Some Helper (Re  12.5 00:01.23 15    3    120    12M+   0B     0B     93420 2284 sleeping

    process: "launchd" [1] [unique ID: 1]
    virtual bytes: 389.03 GB; phys_footprint bytes: 12.23 MB; phys_footprint lifetime maximum bytes: 12.36 MB

Columns are found by their titles, as options of the programs add and move them; a name may hold blanks and digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from rogue_hunter.capture.spindump.decode import (
    NAME_LIMIT,
    Fields,
    Keys,
    fraction,
    keyed,
    one,
    plain,
    size,
    text,
    whole,
)
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
