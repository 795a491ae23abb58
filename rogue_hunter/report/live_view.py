"""What rh-tail draws on a terminal: the machine in a line, the highest score as a sparkline, the rogues in a table."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from rogue_hunter.schema.field import Key
from rogue_hunter.stream import wire
from rogue_hunter.text.format import clip, columns, duration, size, sparkline

TREND = 12
"""Ticks of the sparkline of a process: 4 s at 3 Hz."""

EVENTS = 5
"""Events below the table."""

_COLOURS = {"critical": "\x1b[1;31m", "high": "\x1b[31m", "elevated": "\x1b[33m", "medium": "", "low": "\x1b[2m"}
_OFF = "\x1b[0m"
_HEAD = f"{'SCORE':>5} {'TREND':<{TREND}} {'BAND':<8} {'USES':<7} {'CPU%':>6} {'MEMORY':>8} {'DISK/s':>8} {'PID':>7} " \
        f"{'USER':<8} COMMAND"


class View:
    """What is known from the batches so far."""

    def __init__(self) -> None:
        self.ticks = 0
        self.note = ""
        self._closing: dict[str, Any] = {}
        self._rows: list[dict[str, Any]] = []
        self._history: deque[float | None] = deque(maxlen=240)
        self._trends: dict[Key, deque[float | None]] = {}
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._state: dict[str, Any] = {}

    def take(self, batch: Sequence[bytes]) -> None:
        """Update from the lines of one tick, its closing row last, or from one line of another record."""
        rows: list[dict[str, Any]] = []
        for line in batch:
            found = wire.loads(line)
            kind = found.get("type")
            if kind == "process":
                rows.append(found)
            elif kind == "tick":
                self._tick(found, rows)
            elif kind == "initial_state":
                self._state = found
                self._history.clear()
                self._history.extend(each.get("max_score") for each in found.get("history", ())[:-1])
            elif kind == "event" and found.get("kind") in ("enter", "exit"):
                self._events.append(_event(found))
            elif kind == "pause":
                self._events.append(_pause(found))
            elif kind == "dropped":
                self._events.append(f"{found['ticks']} ticks were left out: this terminal is too slow")

    def _tick(self, closing: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self.ticks += 1
        self.note = ""
        self._closing, self._rows = closing, rows
        self._history.append(closing.get("max_score"))
        trends: dict[Key, deque[float | None]] = {}
        for row in rows:
            key = row["pid"], row["start_ticks"]
            trend = trends[key] = self._trends.get(key) or deque(maxlen=TREND)
            trend.append(row.get("score"))
        self._trends = trends

    # -- drawing -----------------------------------------------------------------------------------------------------

    def lines(self, width: int, height: int, colour: bool) -> list[str]:
        """The picture: at most `height` lines of `width` columns each."""
        head = [clip(self._machine(), width), self._spark(width)]
        events = list(self._events)[-max(0, min(EVENTS, height // 4)):] if height >= 8 else []
        foot = ["", *(clip(text, width) for text in events)] if events else []
        room = max(0, height - len(head) - 1 - len(foot))
        table = [_row(row, self._trends[row["pid"], row["start_ticks"]], width, colour) for row in self._rows[:room]]
        if self._closing and not self._rows:
            table = [clip("nothing is rogue", width)]
        return [*head, clip(_HEAD, width), *table[:room], *foot][:height]

    def _machine(self) -> str:
        if self.note:
            return self.note
        row = self._closing
        if not row:
            return "waiting for the first tick"
        parts = [time.strftime("%H:%M:%S", time.localtime(row["ts"])), str(row.get("host", ""))]
        if "cpu_busy_cores" in row:
            parts.append(f"{row['cpu_busy_cores']:.1f} of {row.get('cpus', '?')} CPUs busy")
        if "memory_available_bytes" in row:
            parts.append(f"{size(row['memory_available_bytes'])} available")
        parts.append(f"{row['processes']} processes")
        if row.get("late_s", 0) >= 0.5:
            parts.append(f"LATE {duration(row['late_s'])}")
        slowed = self._state.get("slowed", 1)
        parts += [f"slowed to 1/{slowed}"] if slowed > 1 else []
        parts += ["DEGRADED"] if self._state.get("degraded") else []
        return "  ".join(parts)

    def _spark(self, width: int) -> str:
        score = self._closing.get("max_score")
        label = f"highest {score if score is not None else '-':>3} "
        room = max(0, width - len(label))
        return (label + sparkline(list(self._history)[-room:] if room else [], 100.0))[:width]


def _row(row: dict[str, Any], trend: Sequence[float | None], width: int, colour: bool) -> str:
    band = str(row.get("band", ""))
    name = str(row.get("cmdline") or row.get("command", "?"))
    cells = (f"{row.get('score', ''):>5}", _left(sparkline(trend, 100.0).rjust(TREND), TREND), _left(band, 8),
             _left(str(row.get("dominant_resource") or row.get("dominant_category") or ""), 7),
             f"{row['cpu_percent']:>6.1f}" if "cpu_percent" in row else " " * 6,
             f"{size(row.get('memory_bytes')):>8}", f"{size(row.get('disk_bytes_per_s')):>8}", f"{row['pid']:>7}",
             _left(str(row.get("user", row.get("uid", ""))), 8), name)
    text = clip(" ".join(cells), width)
    mark = _COLOURS.get(band, "") if colour else ""
    return f"{mark}{text}{_OFF}" if mark else text


def _left(text: str, width: int) -> str:
    text = clip(text, width)
    return text + " " * (width - columns(text))


def _event(found: dict[str, Any]) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(found["ts"]))
    who = f"{found.get('command', '?')} ({found['pid']})"
    if found["kind"] == "enter":
        return f"{when} {who} is rogue: score {found.get('score', '?')}"
    return f"{when} {who} ended as {found.get('reason', '?')} after {duration(found.get('duration_s'))}, " \
           f"peak {found.get('peak_score', '?')}"


def _pause(found: dict[str, Any]) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(found.get("end", found.get("ts", 0.0))))
    by = ", ".join(str(each.get("command", "?")) for each in found.get("culprits", ())[:3])
    return f"{when} PAUSE of {duration(found.get('duration_s'))}, {found.get('cause', '?')}" + (f": {by}" if by else "")


@contextmanager
def screen(terminal: bool, out: BinaryIO) -> Iterator[Callable[[list[str]], None]]:
    """Gives the function that prints one picture: over the last one, on the alternate screen of the terminal, or below
    it if there is no `terminal`."""
    def put(text: str) -> None:
        out.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
        out.flush()

    def below(lines: list[str]) -> None:
        put("\n".join(lines) + "\n\n")

    def over(lines: list[str]) -> None:
        put("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1]) + f"{lines[-1]}\x1b[K\x1b[J")

    if not terminal:
        yield below
        return

    def leave(number: int, _frame: object) -> None:
        # Not through `out`: the signal may have come while it was writing.
        with suppress(OSError):
            os.write(1, b"\x1b[?25h\x1b[?1049l")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    put("\x1b[?1049h\x1b[?25l\x1b[2J")
    try:
        yield over
    finally:
        put("\x1b[?25h\x1b[?1049l")
        for number, handler in before.items():
            signal.signal(number, handler)
