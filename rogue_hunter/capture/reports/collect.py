"""What macOS recorded in a time: its diagnostic reports and its sleep log, as lines of a timeline.

macOS writes a report when a process exceeds a limit (CPU, wakeups, disk writes), when it kills one for memory, when
one crashes or hangs, after a panic, and after a reset by the power button. The directories hold weeks of them. Reports
of other users and of the system can be read by administrators only; a directory that macOS protects (TCC) cannot be
listed.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rogue_hunter.capture.reports.detect import plain, read
from rogue_hunter.capture.reports.spindump import BINARY_FORMAT
from rogue_hunter.capture.reports.tools import get_recent_sleep_events
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import duration, size

MAX_FILES = 500
"""Reports of one directory that are read, newest first. macOS keeps a few hundred."""
TEXT_BYTES = 1 << 18
"""Bytes that are read of a text report: what is needed is in its header."""
JSON_BYTES = 1 << 23

WHOLE = ("spindump_report", "resource_report", "jetsam_report", "crash_report", "reset_report", "sleep_wake")
"""Records of a report as a whole, which name its file."""

_DATE = re.compile(r"[_-](\d{4}-\d{2}-\d{2}-\d{6})")

SleepLog = Callable[[float], "list[Record] | None"]
"""Returns the sleeps and wakes of the last so many seconds, None where they cannot be read."""


def directories() -> tuple[Path, ...]:
    """Where this system keeps its reports; empty off macOS."""
    bases = (Path("/"), Path.home()) if sys.platform == "darwin" else ()
    return tuple(place for base in bases for place in (
        base / "Library/Logs/DiagnosticReports", base / "Library/Logs/DiagnosticReports/Retired"))


def written(path: Path, info: os.stat_result) -> float:
    """When a report was written, epoch seconds: by the date in its name, which a copy keeps, else by the file's own."""
    found = _DATE.search(path.name)
    try:
        return time.mktime(time.strptime(found[1], "%Y-%m-%d-%H%M%S")) if found else info.st_mtime
    except (ValueError, OverflowError):
        return info.st_mtime


def newest_first(directory: Path) -> list[tuple[float, Path]]:
    """The regular files of a directory with the time at which each was written, the newest first; hidden ones and
    links are left out. Raises OSError if it cannot be listed."""
    found = []
    for path in directory.iterdir():
        try:
            info = path.lstat()
        except OSError:
            continue  # it was deleted
        if stat.S_ISREG(info.st_mode) and not path.name.startswith("."):
            found.append((written(path, info), path))
    return sorted(found, key=lambda pair: (-pair[0], pair[1].name))


def reports_between(since: float, until: float, places: Sequence[Path] | None) -> tuple[list[Record], list[str]]:
    """The records of the reports that were written between two times, epoch seconds, newest report first, each report
    with the name of its file; and what could not be read, in words."""
    found: list[Record] = []
    problems: list[str] = []
    for place in directories() if places is None else places:
        try:
            files = newest_first(place)
        except FileNotFoundError:
            if places is not None:
                problems.append(f"{place}: no such directory")
            continue
        except OSError as error:
            problems.append(f"{place}: {error.strerror} (macOS: allow the terminal Full Disk Access, or use an "
                            "administrator)")
            continue
        denied = 0
        for at, path in files[:MAX_FILES]:
            if at < since - 60:
                break
            try:
                if at <= until:
                    found += (placed(each, path) for each in records_of(path))
            except PermissionError:
                denied += 1
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
        if denied:
            problems.append(f"{place}: {denied} reports of other users cannot be read (use an administrator)")
    return found, problems


def placed(each: Record, path: Path) -> Record:
    """The record with its file; a report whose own time is not known (another calendar, binary form) has the time at
    which the file was written. Raises OSError."""
    if each["type"] in WHOLE and "ts" not in each:
        return {**each, "ts": written(path, path.stat()), "file": path.name}
    return {**each, "file": path.name} if each["type"] in (*WHOLE, "log_entry") else each


def recorded(since: float, until: float, places: Sequence[Path] | None = None,
             sleep_log: SleepLog | None = None) -> tuple[list[Record], list[str]]:
    """The lines of the timeline (report_timeline records, newest first) of what macOS recorded between two times, epoch
    seconds; and what could not be read, in words.

    `places` are directories of reports, by default those of this system. `sleep_log` returns sleeps, by default
    by pmset on macOS.
    """
    found, problems = reports_between(since, math.inf, places)
    lines = list(timeline(found))
    if sleep_log is None and sys.platform == "darwin" and places is None:
        sleep_log = get_recent_sleep_events
    if sleep_log is not None and since < time.time():
        lines += timeline(sleep_log(time.time() - since) or ())
    inside = {(each["ts"], each["what"], each.get("pid"), each.get("detail")): each for each in lines
              if each["ts"] <= until and max(each["ts"], each.get("end_ts") or 0.0) >= since}
    return sorted(inside.values(), key=lambda each: -float(each["ts"])), problems


def records_of(path: Path) -> Iterator[Record]:
    """The records of one report; of a text of more than TEXT_BYTES those of its beginning. Raises OSError."""
    with path.open("rb") as file:
        stream, _ = plain(file)
        start = stream.read(TEXT_BYTES)
        if start[:1] == b"{" or BINARY_FORMAT in start[:4096]:
            start += stream.read(JSON_BYTES)
    yield from read(io.BufferedReader(io.BytesIO(start)), frames_of=lambda _: False)


def timeline(records: Iterable[Record]) -> Iterator[Record]:
    """What the records of reports tell, as lines of a timeline. Records without a time give none."""
    for each in records:
        made = _LINES.get(each["type"])
        if made is None or each.get("ts") is None:
            continue
        line = made(each)
        if line is not None:
            what, detail = line
            # Of a kill for memory the process is the victim, not the largest one.
            who = (each.get("victims") or [each])[0]
            if each["type"] == "log_entry":
                who = {"command": each.get("about_command"), "pid": each.get("about_pid")}
            yield record("report_timeline", ts=each["ts"], end_ts=each.get("end_ts"), what=what, detail=detail[:512],
                         command=who.get("command"), pid=who.get("pid"),
                         file=each.get("file"))


def limit_words(each: Record) -> str:
    """`2,450 wakeups/s, limit 150`, `99 % CPU, limit 50`, `190 KiB/s written, limit 24 KiB/s`."""
    average, limit, unit = each.get("average"), each.get("limit"), each.get("unit")
    if average is None and each.get("amount") is not None and each.get("over_s"):
        average = each["amount"] / each["over_s"] * (100 if unit == "cpu_seconds" else 1)
    if unit == "bytes":
        words = [f"{size(average)}/s written" if average is not None else "", f"limit {size(limit)}/s" if limit else ""]
    else:
        name = "wakeups/s" if unit == "wakeups" else "% CPU"
        words = [f"{average:,.0f} {name}" if average is not None else "", f"limit {limit:,.6g}" if limit else ""]
    taken = each.get("action_taken")
    return ", ".join([w for w in words if w] + ([str(taken)] if taken and taken.lower() != "none" else []))


def _limit(each: Record) -> tuple[str, str] | None:
    return ("limit", limit_words(each)) if each.get("unit") else None


def _jetsam(each: Record) -> tuple[str, str]:
    victims = each.get("victims") or ()
    more = f", with {len(victims) - 1} more" if len(victims) > 1 else ""
    facts = [f"largest is {each['largest_process']}" if "largest_process" in each else "",
             f"{size(each['free_bytes'])} free" if "free_bytes" in each else ""]
    why = f" ({each['reason']})" if "reason" in each else ""
    return "jetsam", "; ".join([f"{'killed for memory' if victims else 'memory was short'}{why}{more}",
                                *filter(None, facts)])


def _crash(each: Record) -> tuple[str, str]:
    return "crash", ", ".join(str(w) for w in (each.get("exception"), each.get("signal"), each.get("termination")) if w)


def _reset(each: Record) -> tuple[str, str]:
    why = "switched off by the power button" if each.get("forced") else \
        "reset by a watchdog" if each.get("watchdog") else "abnormal shutdown"
    return "reset", f"{why} ({', '.join(map(str, each['boot_faults']))})"


def _report(each: Record) -> tuple[str, str] | None:
    event, reason = each.get("event"), each.get("reason")
    if event == "panic":
        return "panic", str(reason or "")
    if event in ("hang", "service process watchdog", "shutdown stall") or "unresponsive_s" in each:
        lasted = each.get("unresponsive_s") or each.get("duration_s")
        return "hang", ", ".join(str(w) for w in (event, lasted and duration(lasted), reason) if w)
    return "report", str(event or "spindump")


def _logged(each: Record) -> tuple[str, str] | None:
    what = {"limit_hit": "limit", "jetsam_kill": "jetsam"}.get(str(each.get("kind")))
    return (what, f"kernel log: {each.get('message', '')}") if what else None


def _sleep(each: Record) -> tuple[str, str]:
    return ("sleep" if each["kind"] == "sleep" else "wake"), str(each.get("reason", ""))


_LINES: dict[str, Callable[[Record], tuple[str, str] | None]] = {
    "resource_report": _limit, "jetsam_report": _jetsam, "crash_report": _crash, "reset_report": _reset,
    "spindump_report": _report, "sleep_wake": _sleep, "log_entry": _logged}
