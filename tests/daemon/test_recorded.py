"""Resource reports of macOS as matches: of a process that still runs, once, and of no other one."""

from __future__ import annotations

from rogue_hunter.daemon.rules_stage import Recorded
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, Tick
from tests.tools.ticks import BOOT, START, row


def tick(at: float, *rows: Record) -> Tick:
    """One tick with these processes."""
    closing = {"type": "tick", "v": 1, "ts": at, "seq": 1, "boot_id": BOOT}
    return Tick(processes={(r["pid"], r["start_ticks"]): r for r in rows}, row=closing)


def report(pid: int, command: str, ts: float = START) -> Record:
    """A report of wakeups."""
    return {"type": "resource_report", "v": 1, "ts": ts, "end_ts": ts + 10, "event": "wakeups", "pid": pid,
            "command": command, "average": 2450.0, "limit": 150.0, "unit": "wakeups", "processes": 1, "lines": 9}


def test_a_report_about_a_running_process_is_a_match() -> None:
    """Once, with the words of macOS; a process that started later, or has another name, is not meant."""
    now = [0.0]
    asked: list[float] = []

    def read(since: float) -> list[Record]:
        asked.append(since)
        return [report(7, "Crawler"), report(8, "Other"), report(9, "late"), report(10, "gone")]

    stage = Recorded(read, lambda: now[0])
    rows = [row(7, command="Crawler", start_time=START - 50), row(8, command="unlike", start_time=START - 50),
            row(9, command="late", start_time=START + 60)]
    found: list[Record] = []
    for _ in range(4):
        found += stage(tick(START + now[0] + 20, *rows)).records
        assert stage._worker.wait(5)
        now[0] += 31
    stage.close()
    (match,) = found
    assert (match["type"], match["rule"], match["pid"], match["action"]) == ("match", "macos_recorded", 7, "log")
    assert match["reason"] == "macOS recorded wakeups: 2,450 wakeups/s, limit 150"
    wire.check("match", {k: v for k, v in match.items() if k not in ("type", "v")})
    assert asked == [START + 20 - 120, START + 82 - 120]
