"""Logs of three kinds as records."""

from __future__ import annotations

from pathlib import Path

import pytest

from rogue_hunter.capture import logs
from rogue_hunter.capture.reports.detect import tail
from rogue_hunter.stream.tick import record
from tests.tools.spindump import check, fixture, of, parsed, samples


@pytest.mark.parametrize("path", samples("logshow/*"))
def test_real_logs(path: Path) -> None:
    """Every line of a real log is an entry with its time, process and level; the trailer is not one."""
    data = path.read_bytes()
    entries = of(parsed(data), "log_entry")
    assert len(entries) == sum(b'"eventMessage"' in line for line in data.splitlines())
    assert all({"ts", "pid", "level", "message", "subsystem", "mach_ticks"} <= entry.keys() for entry in entries)
    assert not of(parsed(data), "error")


def test_unified() -> None:
    """Fields, the line that is no JSON, the trailer, entries that lack everything, a secret."""
    first, second, third = parsed(fixture("unified.ndjson"))
    assert (first["level"], first["pid"], first["thread_id"], first["command"]) == ("error", 501, "0xa1", "Editor")
    assert (first["ts"], first["sender"]) == (1893549846.5, "libexample.dylib")
    assert first["mach_ticks"] == 20147685217463
    assert "abc123" not in first["message"] and first["message"].startswith("cannot save")
    assert second["kind"] == "activityCreate" and "level" not in second and "message" not in second
    assert third == {"type": "log_entry", "v": 1, "source": "unified"}


def test_a_log_in_the_other_style() -> None:
    """`--style json` is one array over many lines."""
    data = b'[{\n  "traceID" : 3,\n  "eventMessage" : "x}",\n  "processID" : 3\n},{\n  "eventMessage" : "y"\n}]\n'
    assert [entry["message"] for entry in parsed(data)] == ["x}", "y"]


def test_a_log_that_was_cut_off() -> None:
    """The half entry is an error with its line, and the trailer's count is compared."""
    whole = fixture("unified.ndjson").splitlines(keepends=True)
    records = parsed(whole[1] + whole[2][:50])
    assert [r["type"] for r in records] == ["log_entry", "error"] and records[1]["line"] == 2
    (error,) = of(parsed(whole[1] + whole[4]), "error")
    assert "3 entries, 1 could be read" in error["message"]


def test_a_file_that_is_something_else_has_few_errors() -> None:
    """Errors are counted after the first ones."""
    records = parsed(fixture("unified.ndjson").splitlines(keepends=True)[1] + b"nothing\n" * 5000)
    assert len(of(records, "error")) == logs.MAX_ERRORS + 1
    assert records[-1]["message"] == f"{5000 - logs.MAX_ERRORS} more lines are not log entries"


def test_journal() -> None:
    """Numbers come as text, bytes as numbers."""
    first, second, third = parsed(fixture("journal.ndjson"))
    assert (first["ts"], first["level"], first["pid"], first["uid"]) == (1893553446.5, "err", 77, 1000)
    assert (first["command"], first["sender"], first["source"]) == ("worker", "worker.service", "journal")
    assert second["source"] == "kernel" and second["message"] == "hi\\xff"
    assert "message" not in third


def test_kernel() -> None:
    """Priority, time since boot, escaped bytes; continuation lines are left out."""
    lines = [b"3,17,2500000,-;oops: x\\x0ay\n", b" SUBSYSTEM=usb\n", b"30,18,2600000,c;unit started\n", b"rubbish\n"]
    first, second, error = check(logs.kernel(lines, 1000.0))
    assert (first["level"], first["ts"], first["message"]) == ("err", 1002.5, "oops: x\ny")
    assert (second["level"], second["sender"]) == ("info", "facility 3")
    assert error["type"] == "error" and error["line"] == 4


def test_the_newest_are_kept_and_warnings_before_others() -> None:
    """Of 100 entries with one early error, the error and the newest stay, in their order."""
    entries = [record("log_entry", source="journal", level="err" if i == 3 else "info", pid=i) for i in range(100)]
    kept, left = tail(iter(entries), 10)
    assert [e["pid"] for e in kept] == [3, *range(91, 100)] and left == 90
    assert tail(iter(entries[:4]), 10)[1] == 0


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"eventMessage":' + b"9" * 5000 + b"}", b'{"processID":1e999}',
                                  b'{"eventMessage":"\\ud800"}', b'{"processID":123456789012345678901234567890}'])
def test_json_that_is_meant_to_hurt(line: bytes) -> None:
    """Deep nesting, numbers without end, lone surrogates: an error or an entry, never more."""
    records = check(logs.unified([line + b"\n"]))
    assert len(records) == 1
