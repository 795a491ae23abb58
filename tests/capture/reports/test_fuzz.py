"""Damaged reports of each kind: records or errors, never a traceback, in bounded time and memory.

RH_LONG=1 makes 100,000 mutations of each kind, ROGUE_HUNTER_FUZZ=N makes N; the seed is fixed, so a failure can be run
again.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import random
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.capture.blame import blame, suspects
from rogue_hunter.capture.reports.collect import timeline
from rogue_hunter.capture.reports.detect import parse_file
from rogue_hunter.report.capture_text import blame_lines
from rogue_hunter.schema.report import REPORT_TIMELINE
from tests.capture.reports.test_kinds import MAC
from tests.capture.test_fuzz import mutate
from tests.tools.spindump import SAMPLES, binary_report, check

ROUNDS = int(os.environ.get("ROGUE_HUNTER_FUZZ", "100000" if "RH_LONG" in os.environ else "40"))
SEED = 20300103
KINDS = {path.name: path.read_bytes() for path in sorted(MAC.iterdir())} | {"binary": binary_report()}


def words(data: bytes) -> list[bytes]:
    """The lines of a report, which mutations put in other places."""
    return [line + b"\n" for line in data.split(b"\n") if line.strip()]


HOSTILE = (None, True, -1, 2**63, 2**70, 1.5e308, "", "\x1b]0;x\x07\u202e", "x" * 5000, "9" * 400, "-1", [], {}, [[[]]], {"a": {}},
           "thread 100: owned by pid 99999999999", "thread 100: (owner 100, ", ["thread 600: pid 7"], "2030-99-02 99:00:00 +9900")


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """A report in JSON in which a few values are others, or other parts of it; it stays JSON."""
    head, body = data.split(b"\n", 1)
    tree = json.loads(body)
    places: list[tuple[Any, Any]] = []
    todo = [tree]
    for node in todo:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        places += ((node, key) for key, _ in pairs)
        todo += (value for value in (node.values() if isinstance(node, dict) else node) if isinstance(value, dict | list))
    for _ in range(rng.randint(1, 8)):
        node, key = rng.choice(places)
        other, at = rng.choice(places)
        node[key] = copy.deepcopy(other[at]) if rng.random() < 0.3 else rng.choice(HOSTILE)
    return head + b"\n" + json.dumps(tree).encode()


def damaged(data: bytes, lines: list[bytes], rng: random.Random) -> bytes:
    """The report with changed bytes, and in part of the cases with lines moved, doubled, and numbers changed; of half of
    the reports in JSON, which such changes make unreadable, values are changed."""
    if data.split(b"\n", 1)[1].startswith(b"{") and rng.random() < 0.5:
        return damaged_json(data, rng)
    out = mutate(data, rng)
    for _ in range(rng.choice((0, 0, 1, 3))):
        at = rng.randrange(len(out) + 1)
        out = out[:at] + rng.choice(lines) + out[at:]
    if rng.random() < 0.2:
        out = out.replace(b"1", rng.choice((b"-1", b"9" * 25, b"1e999", b"null", b"{}", b"\xff")), rng.randint(1, 20))
    return out


@pytest.mark.timeout(0 if "RH_LONG" in os.environ else 300)
@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_mutations(data: bytes) -> None:
    """All of them are read without a traceback; what comes out fits its declaration, a terminal, and the next one."""
    rng = random.Random(SEED)
    lines = words(data)
    for i in range(ROUNDS):
        broken = damaged(data, lines, rng)
        try:
            records = list(parse_file(io.BytesIO(broken)))
            if i % 5 == 0:
                check(records)
            check(timeline(records), report_timeline=REPORT_TIMELINE)
            told = list(suspects(records))
            assert not any(c in line for line in blame_lines(blame(records), suspects=told) for c in "\x1b\x07\n\0\u202e")
        except Exception as error:
            raise AssertionError(f"mutation {i} of seed {SEED}: {broken[:3000]!r}") from error


@pytest.mark.timeout(0 if "RH_LONG" in os.environ else 300)
def test_damaged_property_lists() -> None:
    """The binary form with a damaged archive inside: the report without a header, or with one that fits."""
    plist, rng = zlib.decompress(base64.b64decode(binary_report().split(b"format\n")[1])[8:]), random.Random(SEED)
    for i in range(ROUNDS):
        broken = bytearray(plist)
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(len(broken))] = rng.choice((0, 1, 0x0F, 0x5F, 0xAF, 0xDF, 0xFF, rng.randrange(256)))
        try:
            report, error = check(parse_file(io.BytesIO(b"Spindump binary format\n" + base64.encodebytes(
                bytes(8) + zlib.compress(bytes(broken), 1)))))
        except Exception as problem:
            raise AssertionError(f"mutation {i} of seed {SEED}: {bytes(broken)!r}") from problem
        assert report["complete"] is False and error["type"] == "error"


@pytest.mark.slow
def test_a_property_list_made_to_grow() -> None:
    """Lists that name each other, and a text that unpacks to a thousand times its size, take little memory."""
    def peak(unpacked: bytes) -> int:
        text = base64.b64encode(bytes(8) + zlib.compress(unpacked))
        tracemalloc.start()
        try:
            list(parse_file(io.BytesIO(b"Spindump binary format\n" + text)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    lists = b"bplist00" + b"\xdf\x12\x7f\xff\xff\xff" + bytes(100_000)
    assert peak(lists + bytes(6) + struct.pack(">BBQQQ", 1, 1, 1, 0, 8)) < 4 << 20
    assert peak(bytes(200 << 20)) < 160 << 20


@pytest.mark.slow
@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_cut_anywhere(data: bytes) -> None:
    """A file that was cut off gives records or an error."""
    for at in range(0, len(data), max(1, len(data) // 30)):
        records = check(parse_file(io.BytesIO(data[:at])))
        assert isinstance(records, list), at


@pytest.mark.parametrize("line", [
    b"+ " * 30_000 + b"5 Thread_1\n", b"    5 Thread_" + b"a" * 60_000 + b"\n", b"    5 f  (in " + b"(in " * 15_000 + b")\n",
    b"2030-01-02 22:00:00.123456+0100 0x1a2b     Default     0x0   0 0 " + b"k" * 60_000 + b"\n",
    b"2030-01-02 22:00:00.123 Df " + b"[1:2" * 15_000 + b"] x\n", b"2030-01-02 22:00:00.1+0100  h " + b"a[1" * 20_000 + b"\n",
    b"CPU: " + b"9" * 15 + b" seconds cpu time" + b" over" * 12_000 + b"\n", b"Advisory levels: " + b"a -> 1, " * 8000 + b"\n",
    b"Thread 0 Crashed:\n0   " + b"a " * 30_000 + b" 0x1 f\n", b"Boot faults: " + b"a," * 30_000 + b"\n",
    b"Sort by top of stack\n      f" + b"  " * 30_000 + b"5x\n", b"Parent: " + b"(a " * 20_000 + b") [1]\n",
    b'{"bug_type":"210"}\n' + b"[" * 60_000, b'{"bug_type":"210"}\n' + b'{"a":' * 60_000,
])
@pytest.mark.parametrize("head", [b"Analysis of sampling a (pid 1) every 1 millisecond\nCall graph:\n", b"Boot faults: x\n",
                                  b"Data Source: Microstackshots\n", b"Exception Type: X\n", b"Timestamp                  \n", b""])
def test_lines_that_are_made_to_take_long(head: bytes, line: bytes) -> None:
    """20 of them take less than two seconds of CPU time: no pattern takes more than linear time."""
    before = time.process_time()
    list(parse_file(io.BytesIO(head + line * 20)))
    assert time.process_time() - before < 2


@pytest.mark.slow
@pytest.mark.parametrize("make", [
    lambda n: b"Analysis of sampling a (pid 1) every 1 millisecond\nCall graph:\n" + (
        b"    9 Thread_1: w\n" + b"".join(b"    + %s9 f  (in lib) + 1  [0x1]\n" % (b"  " * d) for d in range(60))) * n,
    lambda n: b"Data Source: Microstackshots\nEvent: wakeups\n" + (
        b"Powerstats for:  a [1]\nNum samples: 9 (1%)\n" + b"  9  f + 1 (k + 1) [0x1]\n" * 60) * n,
    lambda n: b"Exception Type:  X\n" + b"Thread 1:\n" + b"0   lib   0x1 f + 1\n" * 60 * n,
    lambda n: b"2030-01-02 22:00:00.123456+0100 0x1 Default 0x0 0 0 kernel: x\n" + b"more of the message\n" * 60 * n,
    lambda n: b"2030-01-02 22:59:44 +0100 Sleep               \tEntering Sleep state due to 'x' 14 secs\n" * 18 * n,
])
def test_memory_does_not_grow_with_the_file(make: object) -> None:
    """A file five times as long takes no more memory."""
    def peak(count: int) -> int:
        stream = io.BytesIO(make(count))  # type: ignore[operator]
        tracemalloc.start()
        try:
            for _ in parse_file(stream):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    limit = peak(20) + 100_000
    # Threads of other tests allocate too: the lesser of two is the parser's own.
    assert peak(100) < limit or peak(100) < limit


def test_json_is_bounded() -> None:
    """More than 32 MB of JSON are refused in words, and not held."""
    from rogue_hunter.capture.reports import ips

    def endless() -> object:
        yield b"{"
        while True:
            yield b" " * (1 << 20)

    (error,) = ips.parse({"bug_type": "298"}, endless())  # type: ignore[arg-type]
    assert "more than 32 MB" in error["message"]


@pytest.mark.parametrize("path", [pytest.param(p, id=p.name) for p in sorted(SAMPLES.glob("diag/*")) + sorted(
    SAMPLES.glob("sample/*"))] or [pytest.param(None, marks=pytest.mark.skip(reason="the samples are not here"))])
def test_mutations_of_real_reports(path: Path) -> None:
    """The same for the real ones."""
    test_mutations(path.read_bytes())
