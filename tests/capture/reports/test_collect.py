"""What macOS recorded in a time: a directory of mixed reports, what cannot be read in it, and the views that show it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.capture.reports import collect
from rogue_hunter.capture.reports.collect import recorded, timeline
from rogue_hunter.report.capture_text import report_text
from rogue_hunter.report.queries import Period, Source
from rogue_hunter.report.render import Style
from rogue_hunter.report.views.events import events
from rogue_hunter.report.views.events import timeline as timeline_view
from rogue_hunter.report.views.view import Asked
from rogue_hunter.report.views.why import why_view
from rogue_hunter.schema.report import REPORT_TIMELINE
from rogue_hunter.stream.tick import record
from tests.capture.reports.test_kinds import MAC, mac
from tests.tools.reports import CONFIG, connect, hog, record_run, seconds, ticks_of
from tests.tools.spindump import check
from tests.tools.ticks import START

DAY = 1893538800.0
"""2030-01-02 00:00 +0100, the day of the fixtures."""
AT = 1893591200.0
"""14:33:20: inside of the span of the report about wakeups."""
Rh = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A directory of 30 mixed reports of two days."""
    place = tmp_path / "DiagnosticReports"
    place.mkdir()
    files = sorted(MAC.iterdir())
    for i in range(30):
        file, day = files[i % len(files)], 2 + i // len(files)
        data = file.read_bytes().replace(b"2030-01-02", b"2030-01-%02d" % day)
        (place / file.name.replace("2030-01-02", f"2030-01-{day:02d}")).write_bytes(data)
    assert len(list(place.iterdir())) == 30
    (place / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (place / "Retired").mkdir()
    (place / "link.diag").symlink_to(files[0])
    return place


def test_a_directory_gives_one_timeline(reports: Path) -> None:
    """All kinds in the order of time, the newest first; each line fits its declaration and names its file."""
    found, problems = recorded(DAY, DAY + 3 * 86400, [reports])
    assert problems == []
    check(found, report_timeline=REPORT_TIMELINE)
    times = [each["ts"] for each in found]
    assert times == sorted(times, reverse=True) and len({each["file"] for each in found}) >= 24
    first = [(each["what"], each.get("command"), each["detail"]) for each in found if each["ts"] < DAY + 86400]
    assert ("limit", "Crawler", "2,450 wakeups/s, limit 150") in first
    assert ("limit", "Burner", "99 % CPU, limit 50, Process killed") in first
    assert ("limit", "Writer", "186 KiB/s written, limit 24.3 KiB/s") in first
    assert ("crash", "Crashy", "EXC_BAD_ACCESS, SIGSEGV, SIGNAL, code 11, Segmentation fault: 11") in first
    assert ("reset", None, "switched off by the power button (btn_rst, finger_reset, force_off)") in first
    assert {what for what, _, _ in first} == {"limit", "jetsam", "crash", "panic", "reset", "sleep", "wake", "report"}
    assert any(what == "limit" and who == "Burner" and words.startswith("kernel log: process Burner[99] thread")
               for what, who, words in first)
    assert ("jetsam", "suggestd", "killed for memory (vm-compressor-space-shortage); largest is node; 66.8 MiB free") \
        in first


def test_only_the_span_asked_for(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report belongs to a time that its samples overlap; older files are not opened."""
    opened: list[Path] = []
    read = collect.records_of
    monkeypatch.setattr(collect, "records_of", lambda path: [opened.append(path), *read(path)][1:])
    found, _ = recorded(AT, AT + 1, [reports])
    assert {each.get("command") for each in found} == {"Crawler", "Writer"}
    opened.clear()
    assert recorded(DAY + 86400 * 9, DAY + 86400 * 10, [reports]) == ([], []) and opened == []


def test_what_cannot_be_read_is_reported(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A protected directory (TCC), reports of other users, a missing directory: each in words; the rest is read."""
    found, problems = recorded(DAY, DAY + 86400, [reports / "missing", reports])
    assert problems == [f"{reports / 'missing'}: no such directory"] and found
    read = collect.records_of

    def denied(path: Path) -> Any:
        if "Crawler" in path.name:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(collect, "records_of", denied)
    found, problems = recorded(DAY, DAY + 86400, [reports])
    assert not any("Crawler" in each["file"] for each in found) and len(found) > 5
    assert re.search(r": \d reports of other users cannot be read \(use an administrator\)$", problems[0])
    monkeypatch.setattr(Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    assert "Operation not permitted (macOS: allow the terminal Full Disk Access" in recorded(0, 1, [reports])[1][0]


def test_sleep_log() -> None:
    """The output of pmset is in the timeline; None where it cannot be run."""
    events = [record("sleep_wake", ts=AT, kind="sleep", reason="Software Sleep"),
              record("sleep_wake", ts=AT + 9, kind="dark_wake", reason="rtc")]
    found, _ = recorded(AT - 10, AT + 10, [], lambda within: events)
    assert found == [] or [each["what"] for each in found] == ["wake", "sleep"]
    assert [each["what"] for each in timeline(events)] == ["sleep", "wake"]
    assert recorded(0, 1e9, [], lambda within: None) == ([], [])


# -- the views ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A history with one event, as a view sees it."""
    path = tmp_path / "h.db"
    record_run(path, ticks_of(60, seconds(5, 50, hog(7, 80, command="Crawler"))))
    return Source(path, START + 100, CONFIG, connect(path))


def asked(at: float | None = None, text: str = "") -> Asked:
    """A question while macOS has recorded one report, of the first 50 s of the history."""
    made = {"type": "report_timeline", "v": 1, "ts": START, "end_ts": START + 50, "what": "limit", "command": "Craw\x1bler",
            "pid": 7, "detail": "2,450 wakeups/s, limit 150", "file": "x.diag"}
    return Asked(Period(START - 10, START + 100, text), people=True, at=at,
                 recorded=lambda since, until: [made] if since <= START + 50 and until >= START else [])


def test_why_names_what_macos_recorded(source: Source) -> None:
    """A moment inside of a resource report's span is answered with it, with or without a history of that time."""
    look = Style(120, False, START + 100)
    answer = why_view(source, asked(START + 20))
    assert answer.records[0]["recorded"][0]["detail"] == "2,450 wakeups/s, limit 150"
    (line,) = [line for line in answer.text(look).splitlines() if line.startswith("macOS recorded:")]
    assert line.startswith("macOS recorded: Craw") and ", 2,450 wakeups/s, limit 150 (pid 7, " in line
    assert "\x1b" not in line
    assert "recorded" not in why_view(source, asked(START + 90)).records[0]
    early = why_view(source, asked(START - 3))
    assert "macOS recorded: Craw" in early.records[0]["headline"] or "recorded" in early.records[0]
    assert "recorded" not in why_view(source, asked(START + 20, "vim")).records[0]


def test_events_and_timeline_show_it(source: Source) -> None:
    """Both have the line beside their own; CSV keeps the columns of events."""
    look = Style(120, False, START + 100)
    answer = events(source, asked())
    assert "macOS recorded: Craw" in answer.text(look)
    assert [each["type"] for each in answer.records] == ["report_event", "report_timeline"]
    assert answer.csv_rows is not None and len(answer.csv_rows) == 1
    found = timeline_view(source, asked())
    assert "limit" in {each["what"] for each in found.records}
    assert [each["ts"] for each in found.records] == sorted((each["ts"] for each in found.records), reverse=True)


def test_from_the_command_line(reports: Path, rh: Rh) -> None:
    """parse of a directory: records, or a timeline for people; a file of another kind is exit 65, and the rest is
    printed; rh-report takes the directory too."""
    done = rh("forensics", "parse", reports, "--table", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, b"")
    table = done.stdout.decode()
    assert table.splitlines()[0].split() == ["TIME", "WHAT", "PID", "FILE", "COMMAND", "DETAIL"]
    assert "2,450 wakeups/s, limit 150" in table and len(table.splitlines()) > 20
    (reports / "notes.txt").write_text("hello\n")
    os.utime(reports / "notes.txt", (0, 0))
    done = rh("forensics", "parse", reports)
    assert done.returncode == 65 and b"notes.txt: not a spindump report and not a log" in done.stderr
    assert done.stdout.count(b"\n") > 60
    done = rh("forensics", "blame", reports, "--table")
    assert done.returncode == 0 and b"diskd [7]" in done.stdout


def test_rh_report_reads_the_directory(reports: Path, rh: Rh, tmp_path: Path) -> None:
    """why --at inside of a resource report's span names it; timeline and events list what was recorded."""
    db = tmp_path / "h.db"
    record_run(db, ticks_of(30, seconds(5, 25, hog(7, 80))))
    done = rh("report", "why", "--at", f"@{AT}", "--reports", reports, "--db", db, "--table")
    assert done.returncode == 0 and done.stderr == b""
    assert b"macOS recorded: Crawler, 2,450 wakeups/s, limit 150 (pid 4711, " in done.stdout
    span = ("--since", f"@{AT - 60}", "--until", f"@{AT + 60}", "--reports", reports, "--db", db, "--table")
    for view in ("events", "timeline"):
        done = rh("report", view, *span, COLUMNS="160")
        assert done.returncode == 0 and b"2,450 wakeups/s, limit 150" in done.stdout, view
    done = rh("report", "why", "--at", f"@{AT}", "--reports", tmp_path / "none", "--db", db)
    assert b"no such directory" in done.stderr


@pytest.mark.parametrize(("start", "parts"), [
    ("Crawler", ["2,450 wakeups/s, limit 150", "Heaviest stack, innermost frame first:\n  tick (Crawler)", "67.0 %"]),
    ("JetsamEvent", ["killed for memory", "vm-compressor-space-shortage", "2.9 GiB"]),
    ("Crashy", ["EXC_BAD_ACCESS", "Stack of the thread that crashed", "boom (Crashy)"]),
    ("ResetCounter", ["switched off by the power button"]), ("pmset", ["Software Sleep"]),
    ("panic-full", ["watchdog timeout", "diskd [7]", "5 processes, 8 threads, 5 waits"]),
    ("Editor", ["is the subject of the report", "3 threads, 0 waits"]),
    ("log-2030-01-02-220000", ["caught waking the CPU", "killing_specific_process"]),
])
def test_one_report_for_people(start: str, parts: list[str]) -> None:
    """Each kind has text of its own: no report is an empty page."""
    made = report_text(mac(start), Style(200, False, DAY))
    for part in parts:
        assert part in made, made
