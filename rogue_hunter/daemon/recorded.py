"""On macOS: the system's own resource reports about running processes, as matches of the rule macos_recorded."""

from __future__ import annotations

import time
from collections.abc import Callable

from rogue_hunter.schema.rules import MATCH
from rogue_hunter.stream.tick import Record, Row, Tick, record
from rogue_hunter.worker import Worker

RULE = "macos_recorded"
EVERY_S = 60.0
"""Seconds between two looks at the directories. macOS writes a report some seconds after the limit was exceeded."""
_WHO = tuple(f.name for f in MATCH if f.name in (
    "pid", "start_ticks", "start_time", "ppid", "uid", "user", "command", "exe", "cmdline", "tty", "state", "age_s",
    "cpu_percent", "memory_bytes", "wakeups_per_s", "disk_bytes_per_s", "score", "band"))


def _new(since: float) -> list[Record]:
    from rogue_hunter.capture.reports.collect import reports_between  # 13 modules that rh-pipe on Linux has no use for

    return [each for each in reports_between(since, time.time(), None)[0] if each["type"] == "resource_report"]


class Recorded:
    """A stage that adds a `match` record for each new report about a process that still runs: it is stored and logged
    as those of rules are, and nothing is done to the process.

    `read` gives the resource reports written since a time, epoch seconds; it runs in a thread.
    """

    def __init__(self, read: Callable[[float], list[Record]] = _new,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._worker: Worker[float, list[Record]] = Worker("rh-recorded", read, limit=2)
        self._clock = clock
        self._due = clock()
        self._since: float | None = None
        self._seen: set[tuple[object, ...]] = set()

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the matches; reports of before the first tick count if their process runs."""
        ts = float((tick.row or {}).get("ts") or 0.0)
        if ts and self._clock() >= self._due:
            self._due = self._clock() + EVERY_S
            self._worker.submit(ts - 2 * EVERY_S)
        for reports in self._worker.collect():
            tick.records += [made for each in reports if (made := self._match(tick, each)) is not None]
        self._worker.failures()
        return tick

    def close(self) -> list[Record]:
        """End the thread."""
        self._worker.close()
        return []

    def _match(self, tick: Tick, report: Record) -> Record | None:
        what = (report.get("pid"), report.get("event"), report.get("ts"))
        row = next((row for key, row in tick.processes.items() if key[0] == report.get("pid")), None)
        if what in self._seen or row is None or tick.row is None or not _same(row, report):
            return None
        self._seen.add(what)
        from rogue_hunter.capture.reports.collect import limit_words

        return record(
            "match", ts=tick.row["ts"], seq=tick.row.get("seq"), boot_id=tick.row["boot_id"],
            **{name: row.get(name) for name in _WHO}, rule=RULE, priority="low", action="log", notify=False,
            log_level="info", evidence="reading",
            reason=f"macOS recorded {report.get('event', 'a limit')}: {limit_words(report)}")


def _same(row: Row, report: Record) -> bool:
    """Whether the report means this process: the names agree (the kernel cuts them), and it had started by the end of
    the report."""
    name, told = str(row.get("command", "")), str(report.get("command", ""))
    started = row.get("start_time")
    return bool(name) and (told.startswith(name[:15]) or name.startswith(told[:15])) and (
        started is None or started <= float(report.get("end_ts") or report.get("ts") or 0.0))
