"""Reports as Macs, mail and people change them: each gives its record, or an error that names the kind."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.capture.reports.collect import recorded
from rogue_hunter.capture.reports.detect import read
from tests.capture.reports.test_kinds import MAC
from tests.tools.spindump import FIXTURES, Record, binary_report, check, of

LIMIT = (MAC / "Crawler_2030-01-02-143600_test.diag").read_bytes()
CRASH = (MAC / "Crashy-2030-01-02-190000.ips").read_bytes()
JETSAM = (MAC / "JetsamEvent-2030-01-02-180000.ips").read_bytes()
PANIC = (MAC / "panic-full-2030-01-02-200000.0002.ips").read_bytes()
AT = 1893591200.0
"""Inside of the span of LIMIT."""


def records(data: bytes) -> list[Record]:
    """What rh-forensics parse prints of a file."""
    return check(read(io.BufferedReader(io.BytesIO(data))))  # type: ignore[arg-type]


def put(path: Path, data: bytes) -> None:
    """Write a file, with the time at which the fixtures were written."""
    path.write_bytes(data)
    os.utime(path, (AT + 86400, AT + 86400))


def localised(data: bytes) -> bytes:
    """The times in words of another language, without a zone."""
    lines = data.split(b"\n")
    return b"\n".join(b"Date/Time:        mercredi 2 janvier 2030 \xc3\xa0 14:33" if line.startswith(b"Date/Time:") else
                      b"End time:         02.01.30, 14:36" if line.startswith(b"End time:") else line for line in lines)


SAME: dict[str, Callable[[bytes], bytes]] = {
    "crlf": lambda data: data.replace(b"\n", b"\r\n"), "cr": lambda data: data.replace(b"\n", b"\r"),
    "bom": lambda data: b"\xef\xbb\xbf" + data, "gzip": gzip.compress,
    "utf-16": lambda data: data.decode().encode("utf-16"), "utf-16-be": lambda data: data.decode().encode("utf-16-be"),
    "utf-16-le with marks": lambda data: b"\xff\xfe" + data.decode().encode("utf-16-le"),
    "blank lines before": lambda data: b"\n\n" + data, "no last line feed": lambda data: data.rstrip(b"\n"),
}
"""Changes that leave the content as it is."""


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
@pytest.mark.parametrize("data", [LIMIT, CRASH], ids=["text", "json"])
def test_the_same_report_in_another_form(data: bytes, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """The same records, from a file of any name, by parse and in the timeline of why."""
    def bare(found: list[Record]) -> list[Record]:
        return [{name: value for name, value in each.items() if name != "lines"} for each in found]

    assert bare(records(change(data))) == bare(records(data))
    put(tmp_path / "holiday.jpg", change(data))
    lines, problems = recorded(AT - 86400, AT + 86400, [tmp_path])
    assert [line["what"] for line in lines] == ["limit" if data is LIMIT else "crash"] and problems == []


@pytest.mark.parametrize("version", [b"80", b"72.3"])
def test_a_version_to_come(version: bytes) -> None:
    """What a report is follows from its lines, not from the number of its form."""
    for data in (LIMIT, (FIXTURES / "heavy.txt").read_bytes()):
        assert b"Report Version:" in data
        line = data[data.index(b"Report Version:"):].split(b"\n")[0]
        found, before = records(data.replace(line, b"Report Version:   " + version)), records(data)
        assert [each["type"] for each in found] == [each["type"] for each in before]
        assert found[-1]["report_version"] == version.decode()


@pytest.mark.parametrize(("data", "what", "detail"), [
    (localised(LIMIT), "limit", "2,450 wakeups/s, limit 150"),
    (binary_report(_sampleTimestamps=b""), "hang", "shutdown stall"),
])
def test_a_report_without_a_time(data: bytes, what: str, detail: str, tmp_path: Path) -> None:
    """The date in the name of its file is its time, so that why finds it."""
    assert "ts" not in records(data)[-1]
    (tmp_path / "x_2030-01-02-143600_mac.diag").write_bytes(data)
    (line,) = recorded(0, AT + 86400, [tmp_path])[0]
    assert (line["what"], line["detail"]) == (what, detail)


def test_two_reports_in_one_file() -> None:
    """Reports in JSON one after the other; the second may be damaged."""
    found = records(CRASH + b"\n" + JETSAM)
    assert [each["type"] for each in found] == ["crash_report", *["jetsam_process"] * 3, "jetsam_report"]
    crash, error = records(CRASH.rstrip() + b"\n" + JETSAM[:300])
    assert crash["type"] == "crash_report" and "bug_type 298" in error["message"]


@pytest.mark.parametrize("pack", [lambda data: data, bz2.compress], ids=["plain", "bzip2"])
def test_a_panic_that_holds_its_stackshot(pack: Callable[[bytes], bytes]) -> None:
    """The stackshot within a panic of macOS gives the processes and waits that one beside it does."""
    head, body = PANIC.split(b"\n", 1)
    fields = json.loads(body)
    inner = json.dumps({"processByPid": fields.pop("processByPid")}).encode()
    fields["macOSPanicString"] = fields.pop("panicString")
    fields["macOSProcessedStackshotData"] = base64.b64encode(pack(inner)).decode()
    assert records(head + b"\n" + json.dumps(fields).encode()) == records(PANIC)


def test_a_panic_within_a_panic() -> None:
    """It has no stackshot: its reason, and no process of the lines that its text quotes."""
    body = {"macOSProcessedStackshotData": base64.b64encode(b"no on disk panic stackshot found").decode(),
            "macOSPanicString": "Nested panic detected - entry count: 2\nProcess:   x [1]\nReport Version: 28\n"}
    (report,) = records(b'{"bug_type":"210","timestamp":"2030-01-02 20:00:00.00 +0100"}\n' + json.dumps(body).encode())
    assert (report["event"], report["reason"], report["processes"]) == (
        "panic", "Nested panic detected - entry count: 2", 0)
    assert records(json.dumps(body).encode())[0]["event"] == "panic"


@pytest.mark.parametrize(("data", "words"), [
    (b"", "empty"), (b"\n\n", "not a spindump report and not a log"), (b"x" * 3_000_000, "not a spindump report"),
    (gzip.compress(gzip.compress(LIMIT)), "gzip once more"), (LIMIT[:900], "a resource report that was cut off"),
    (CRASH[:400], "a diagnostic report (.ips, bug_type 309): cut short"), (gzip.compress(LIMIT)[:-20], "cut short"),
    (b"Process:  a [1]\nException Type:  EXC_CRASH\nThread 0 Cra", "a crash report that was cut off"),
])
def test_what_cannot_be_read_whole(data: bytes, words: str) -> None:
    """The last record is an error with the reason."""
    assert words in records(data)[-1]["message"]


def test_a_line_of_megabytes_within() -> None:
    """It is skipped, and the rest is read."""
    at = LIMIT.index(b"\n\n") + 1
    found = records(LIMIT[:at] + b"x" * 3_000_000 + b"\n" + LIMIT[at:])
    assert [each["type"] for each in found] == [each["type"] for each in records(LIMIT)]
    assert of(found, "resource_report")[0]["average"] == of(records(LIMIT), "resource_report")[0]["average"]


def test_links_that_loop(tmp_path: Path) -> None:
    """Links in a directory are not followed."""
    (tmp_path / "a.diag").symlink_to("b.diag")
    (tmp_path / "b.diag").symlink_to("a.diag")
    (tmp_path / "up").symlink_to(tmp_path)
    put(tmp_path / "x.diag", LIMIT)
    assert [line["file"] for line in recorded(AT, AT + 1, [tmp_path])[0]] == ["x.diag"]
