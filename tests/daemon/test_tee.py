"""rh-pipe --tee never delays the beat: a reader that is slow, stops or ends costs ticks of the output only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.daemon.pipe import QUEUE_BYTES, QUEUE_TICKS, Tee
from rogue_hunter.report.record_text import Texts
from rogue_hunter.report.render import Style
from rogue_hunter.store.database import open_reader
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Tick
from tests.tools.ticks import closing, key, row

pytestmark = pytest.mark.waits

Spawn = Callable[..., "subprocess.Popen[bytes]"]


class Reader:
    """Takes what is written; blocks the writer while `go` is not set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.data = b""

    def write(self, data: bytes) -> None:
        assert self.go.wait(60)
        self.data += data

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]


def tick(seq: int) -> Tick:
    each = row(7, cpu_percent=float(seq))
    return Tick(closing(seq, 1), {key(each): each}, {key(each)})


def test_all_ticks_are_written_in_order() -> None:
    reader, said = Reader(), list[str]()
    reader.go.set()
    stage = Tee(reader.write, said.append)
    ticks = [tick(n) for n in range(20)]
    assert [stage(each) for each in ticks] == ticks
    assert stage.close() == []
    encode = wire.Encoder().tick
    assert reader.data == b"".join(encode(each) for each in ticks)
    assert (said, stage.dropped) == ([], 0)


def test_reader_that_stops_costs_ticks_and_no_time() -> None:
    """What does not fit in the queue is dropped; the gap is reported where it is."""
    reader, said = Reader(), list[str]()
    stage = Tee(reader.write, said.append)
    before = time.monotonic()
    for n in range(QUEUE_TICKS + 50):
        stage(tick(n))
    assert time.monotonic() - before < 5
    assert 48 <= stage.dropped <= 50
    assert said == ["standard output is not read fast enough: ticks are dropped"]
    reader.go.set()
    assert stage._worker.wait(60)
    dropped = stage.dropped
    stage(tick(1000))
    stage.close()
    got = [(r["type"], r.get("seq", r.get("ticks"))) for r in reader.records if r["type"] != "process"]
    kept = QUEUE_TICKS + 50 - dropped
    assert got == [*(("tick", n) for n in range(kept)), ("dropped", dropped), ("tick", 1000)]
    assert stage.state() == {"tee": {"dropped_ticks": dropped, "open": True}}


def test_a_gap_is_printed_in_the_form_of_the_output() -> None:
    """Text for people holds no record, and has how many ticks are missing."""
    reader = Reader()
    stage = Tee(reader.write, lambda message: None, Texts(Style(80, False, 0)).utf8)
    for n in range(QUEUE_TICKS + 30):
        stage(tick(3 * n))      # a table each second
    reader.go.set()
    assert stage._worker.wait(60)
    stage(tick(3 * QUEUE_TICKS + 90))
    stage.close()
    shown = reader.data.decode()
    assert "{" not in shown and "CPU%" in shown and stage.dropped and f"{stage.dropped} ticks" in shown


def test_bytes_that_wait_are_bounded() -> None:
    reader, said = Reader(), list[str]()
    stage = Tee(reader.write, said.append)
    for n in range(20):
        made = tick(n)
        made.records = [{"type": "note", "v": 1, "text": "x" * (1 << 20)}]
        stage(made)
    assert stage.dropped == 20 - QUEUE_BYTES // (1 << 20)
    reader.go.set()
    stage.close()


def test_end_does_not_wait_for_the_reader() -> None:
    reader, said = Reader(), list[str]()
    stage = Tee(reader.write, said.append)
    for n in range(3):
        stage(tick(n))
    before = time.monotonic()
    stage.close()
    assert time.monotonic() - before < 5
    assert said == ["standard output is not read: ticks not written: 3"]
    reader.go.set()


@pytest.mark.parametrize(("error", "expected"), [(BrokenPipeError(), []), (
    OSError(28, "No space left on device"),
    ["nothing more is written to standard output: [Errno 28] No space left on device"])])
def test_error_ends_the_output_only(error: OSError, expected: list[str]) -> None:
    """A closed pipe is quiet; any other error is reported once."""
    def fail(_: bytes) -> None:
        raise error

    said: list[str] = []
    stage = Tee(fail, said.append)
    for n in range(3):
        stage(tick(n))
        assert stage._worker.wait(60)
    stage.close()
    assert said == expected
    assert stage.state()["tee"] == {"dropped_ticks": 0, "open": False}


def test_output_that_is_not_read_stops_neither_beat_nor_end(spawn: Spawn, clean_env: Mapping[str, str],
                                                            tmp_path: Path) -> None:
    """A pipe takes 64 KiB, about one tick: with the old writer the second tick never came, and SIGTERM was ignored."""
    db = tmp_path / "x.db"
    run = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "-q", "--tee", "--no-socket", "--db", str(db),
                 "--hz", "20"], env=dict(clean_env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    count = 0
    while count < 150 and time.monotonic() < deadline:
        time.sleep(0.1)
        count = ticks_in(db)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 0
    assert count >= 150
    assert run.stderr is not None and b"ticks are dropped" in run.stderr.read()
    with open_reader(db) as connection:
        assert connection.execute("SELECT count(*) AS n FROM pauses WHERE cause = 'unknown'").fetchone()["n"] == 0


def test_standard_error_that_is_not_read_stops_nothing(spawn: Spawn, clean_env: Mapping[str, str],
                                                       tmp_path: Path) -> None:
    """A full pipe: with the old messages rh-pipe hung before its first tick."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        run = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--for", "1s", "--hz", "10", "--no-socket", "--db",
                     str(tmp_path / "x.db")], env=dict(clean_env), stdin=subprocess.DEVNULL, stderr=writing)
        assert run.wait(30) == 0
        assert ticks_in(tmp_path / "x.db") >= 2
    finally:
        os.close(reading)
        os.close(writing)


def ticks_in(db: Path) -> int:
    """The number of ticks in daemon_state; it is written every 10 s, so events of the log count too."""
    try:
        connection = open_reader(db)
    except Exception:
        return 0
    try:
        found = connection.execute("SELECT value FROM daemon_state WHERE key = 'ticks'").fetchone()
        return int(found["value"]) if found else 0
    finally:
        connection.close()
