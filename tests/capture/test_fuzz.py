"""Reports and logs that were damaged, on purpose or not: records or errors, never a traceback, never a hang.

RH_LONG=1 makes 100,000 mutations, ROGUE_HUNTER_FUZZ=N makes N; the seed is fixed, so a failure can be run again.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.capture.blame import blame, blame_records
from rogue_hunter.capture.linux.lookups import parse_locks, parse_tcp, parse_unix_diag
from rogue_hunter.capture.linux.process import is_native, parse_memory, parse_pressure_avg10, parse_stack, parse_syscall
from rogue_hunter.capture.linux.waits import mutex_owner
from rogue_hunter.capture.logs import kernel
from rogue_hunter.capture.reports.decode import fraction, named, size, timestamp, whole
from rogue_hunter.capture.reports.detect import parse_file
from rogue_hunter.capture.reports.spindump_lines import state_of, thread_line, wait_of
from rogue_hunter.report.capture_text import blame_lines
from tests.tools.spindump import SAMPLES, check, fixture

ROUNDS = int(os.environ.get("ROGUE_HUNTER_FUZZ", "100000" if "RH_LONG" in os.environ else "500"))

_WORDS = (b"blocked by ", b" [", b"] (", b"[0x1] (", b"Process: ", b"  Thread 0x", b"  Binary Images:\n", b"\n",
          b"\r\n", b"\0", b"\xff\xfe", b"\x1b]0;x\x07", b"\xe2\x80\xae", b" after 99999999999999999999 hops",
          b"thread 0x", b"{", b"}",
          b'"eventMessage":', b"samples (", b" waiting for ", b" owned by ", b"9" * 400, b"-1", b"\xed\xa0\x80",
          b"Footprint: ", b"Date/Time: ", b"*", b"<multiple>", b"(" * 200, b"NaN", b"1e999", b"'; DROP TABLE x; --")


def seeds() -> list[bytes]:
    """The fixtures, and pieces of real files where they are there."""
    found = [fixture(n) for n in ("heavy.txt", "deadlock.spin", "unified.ndjson", "journal.ndjson")]
    found.append(b"6,1,22,-;hi\\x0athere\n SUB=x\n3,2,33,c;oops\n")
    for path in sorted(SAMPLES.glob("spindump/*")) + sorted(SAMPLES.glob("logshow/*")):
        data = path.read_bytes()
        at = data.find(b"blocked by")
        found.append(data[:6000])
        if at > 0:
            start = data.rfind(b"\nProcess:", 0, at) + 1
            found.append(b"Report Version: 60\n" + data[start : start + 8000])
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few cuts, copies, changed bytes and inserted words."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0:
            out[at : at + rng.randint(1, 300)] = b""
        elif kind == 1:
            out[at:at] = rng.choice(_WORDS)
        elif kind == 2 and out:
            out[rng.randrange(len(out))] = rng.randrange(256)
        elif kind == 3:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.randint(1, 500)]
        elif kind == 4:
            out = out[:at]
        elif kind == 5:
            lines = bytes(out).split(b"\n")
            rng.shuffle(lines) if len(lines) < 200 and rng.random() < 0.2 else lines.reverse()
            out = bytearray(b"\n".join(lines))
        else:
            out[at:at] = rng.randbytes(rng.randint(1, 40))
    return bytes(out)


def test_mutated_reports_and_logs() -> None:
    """Each gives records that fit their declarations and the wire, an answer about blame, and the next one."""
    rng = random.Random(20300102)
    grown = seeds()
    for i in range(ROUNDS):
        data = mutate(rng.choice(grown), rng)
        try:
            records = list(parse_file(io.BytesIO(data)))
            if i % 5 == 0:
                check(records)
            answer = blame(records)
            check(blame_records(answer))
            assert not any(c in line for line in blame_lines(answer) for c in "\x1b\x07\n\0\u202e")
        except Exception as error:
            raise AssertionError(f"mutation {i} of seed 20300102: {data[:2000]!r}") from error


LINES: list[Callable[[bytes], object]] = [
    state_of, wait_of, thread_line, named, size, timestamp, whole, fraction, parse_locks, parse_pressure_avg10,
    is_native, parse_tcp, parse_unix_diag, parse_memory, parse_stack, lambda d: parse_syscall(d, "x86_64"),
    lambda d: mutex_owner(0, d), lambda d: mutex_owner(6, d), lambda d: list(kernel([d], 0.0)),
]


@pytest.mark.parametrize("take", LINES)
@given(data=st.binary(max_size=300))
def test_any_bytes(take: Callable[[bytes], object], data: bytes) -> None:
    """No parser raises, for any bytes."""
    take(data)


@given(st.lists(st.sampled_from(_WORDS), max_size=30))
def test_words_of_reports_in_any_order(words: list[bytes]) -> None:
    """Pieces of reports put together at random are read without a traceback."""
    check(parse_file(io.BytesIO(b"Report Version: 60\nProcess: p [1]\n  Thread 0x1  1 sample (1)\n" + b"".join(words))))


@pytest.mark.parametrize("line", [
    b"  *1  " + b"[0x1] (" * 20_000 + b")\n", b"  *1  x [0x1] (" + b"a, " * 20_000 + b"blocked by x)\n",
    b"  Thread 0x1    " + b"5 samples (1-5) " * 5000 + b"\n", b"  Thread 0x1    Thread name \"" + b'"' * 60_000 + b"\n",
    b"Process:  " + b"(" * 60_000 + b")" * 60_000 + b" [1]\n", b"Process:  " + b" (suspended)" * 9000 + b"\n",
    b"  *1  x [0x1] (blocked by turnstile waiting for " + b" owned by" * 9000 + b" [5])\n",
    b"Footprint: " + b"-> " * 20_000 + b"\n", b"  1" + b" " * 60_000 + b"x\n",
])
def test_lines_that_are_made_to_take_long(line: bytes) -> None:
    """50 of them are read well within the time that any test has: no pattern takes more than linear time."""
    data = b"Report Version: 60\nProcess: p [1]\n  Thread 0x1  1 sample (1)\n" + line * 50
    assert list(parse_file(io.BytesIO(data)))
