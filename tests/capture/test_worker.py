"""Captures made by a process of its own."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from rogue_hunter.capture.request import Parts, Request, Target, capture_record
from rogue_hunter.capture.worker import NICENESS, CaptureProcess, parse_request, request_line, serve
from rogue_hunter.config.options import Forensics
from rogue_hunter.stream.wire import loads
from tests.tools.spindump import Record, check, of

QUICK = Forensics(rounds=1, log_entries=0, timeout_s=30.0)
REQUEST = Request("c1", 12.5, "event", (Target((1, 10), "a\x1b\n", "culprit"), Target((2, 20), "", "rogue")), "e", "b")


def test_a_request_and_its_settings_survive_encoding() -> None:
    """One line each, for any name."""
    line = request_line(REQUEST, QUICK)
    assert line.count(b"\n") == 1 and parse_request(line) == (REQUEST, QUICK)


def test_the_child_answers_each_line() -> None:
    """Two requests, two answers: a line for each record, the CPU time, an empty line; it returns at the end of input."""
    def made(request: Request, cancel: threading.Event) -> list[Record]:
        return [capture_record(request, Parts({"threads": "ok"}), "linux", 0.0, [])] * 2

    sink = io.BytesIO()
    serve(io.BytesIO(request_line(REQUEST, QUICK) * 2), sink, lambda settings: made)
    lines = [line and loads(line) for line in sink.getvalue().split(b"\n")]
    assert [line["capture"] if isinstance(line, dict) else type(line) for line in lines] == \
        ["c1", "c1", float, bytes] * 2 + [bytes]


def test_a_real_capture_and_the_next_one_by_the_same_child() -> None:
    """The records are those of a capture; the child is kept, gives way to others, and is gone at the end."""
    if sys.platform != "linux":
        pytest.skip("reads the /proc of Linux")
    from rogue_hunter.host.linux.parse import parse_stat

    key = os.getpid(), parse_stat(Path("/proc/self/stat").read_bytes()).start
    with CaptureProcess(QUICK) as beside:
        first = check(beside(Request("c1", 1.0, targets=(Target(key, "me"),)), threading.Event()))
        child = beside._child
        assert child is not None
        used = beside.cpu_seconds
        assert 0.01 < used < 30
        second = check(beside(Request("c2", 2.0), threading.Event()))
        assert beside.cpu_seconds > used
        assert Path(f"/proc/{child.pid}/comm").read_text() == "rh-capture\n"
        assert beside._child is child and child is not None and child.poll() is None
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    assert beside.cpu_seconds >= used
    assert first[0]["targets"][0]["outcome"] == "ok" and of(first, "spindump_thread")
    assert second[0]["capture"] == "c2" and child.poll() is not None


def test_a_child_that_dies_or_talks_nonsense_is_replaced() -> None:
    """The capture is reported as failed; the next request starts a new child."""
    for program in ("exit 0", "read x; exit 3", "read x; echo nonsense"):
        with CaptureProcess(QUICK, argv=["sh", "-c", program]) as beside:
            for _ in range(2):
                (own,) = check(beside(REQUEST, threading.Event()))
                assert own["status"] == "failed" and own["problems"][0].startswith("no capture: ")


def test_a_cancelled_or_late_request_stops_the_child() -> None:
    """Cancelled, the child is stopped; late, it is given up."""
    cancel = threading.Event()
    with CaptureProcess(QUICK, argv=["sleep", "600"]) as beside:
        threading.Timer(0.05, cancel.set).start()
        (own,) = beside(REQUEST, cancel)
        assert "cancelled" in own["problems"][0] and beside._child is None
    ticking = iter(range(0, 100_000, 50))
    with CaptureProcess(QUICK, argv=["sleep", "600"], clock=lambda: float(next(ticking))) as beside:
        (own,) = beside(REQUEST, threading.Event())
        assert "no answer within 40 s" in own["problems"][0]
