"""What rh-tail draws on a terminal: the machine in a line, the highest score as a sparkline, the rogues in a table."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from rogue_hunter.report.record_text import clock, machine
from rogue_hunter.report.record_text import line as record_line
from rogue_hunter.report.sentences import cause, command_line, program_first
from rogue_hunter.schema.field import Key
from rogue_hunter.stream import wire
from rogue_hunter.text.format import clip, columns, size, sparkline

TREND = 12
"""Ticks of the sparkline of a process: 4 s at 3 Hz."""

EVENTS = 100
"""Lines of the log that are kept."""
COMMAND = 24
"""Terminal columns of the command line, before other columns are left out for it."""

_COLOURS = {"critical": "\x1b[1;31m", "high": "\x1b[31m", "elevated": "\x1b[33m", "medium": "", "low": "\x1b[2m"}
_OFF = "\x1b[0m"
_WIDTHS = {"SCORE": 5, "TREND": TREND, "BAND": 8, "USES": 7, "CPU%": 6, "MEMORY": 8, "DISK/S": 8, "PID": 7, "USER": 8}
"""Fixed, so that the picture does not shake."""
_RIGHT = ("SCORE", "CPU%", "MEMORY", "DISK/S", "PID")
_DROP = ("TREND", "USER", "DISK/S", "BAND", "USES", "MEMORY", "SCORE", "PID", "CPU%")


class View:
    """What is known from the batches so far."""

    def __init__(self) -> None:
        self.ticks = 0
        self.note = ""
        self._closing: dict[str, Any] = {}
        self._rows: list[dict[str, Any]] = []
        self._history: deque[float | None] = deque(maxlen=240)
        self._trends: dict[Key, deque[float | None]] = {}
        self._log: deque[str] = deque(maxlen=EVENTS)
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
            elif text := record_line(found):
                self._log.append(text)

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
        head = [clip(self._machine(width), width), self._spark(width)]
        # The log has a quarter of the height, and what the table leaves.
        room = height - len(head) - 1
        events = list(self._log)[-max(height // 4, room - 1 - len(self._rows)):] if height >= 8 else []
        foot = ["", *(clip(text, width) for text in events)] if events else []
        room = max(0, room - len(foot))
        shown = _shown(width)
        table = [_row(row, self._trends[row["pid"], row["start_ticks"]], shown, width, colour and not self.note)
                 for row in self._rows[:room]]
        if self._closing and not self._rows:
            table = [clip("nothing is rogue", width)]
        heads = " ".join([*(_aligned(name, name) for name in shown), "COMMAND"])
        made = [*head, clip(heads, width), *table[:room], *foot][:height]
        # What is left of the last connection is dim.
        return [made[0], *(f"\x1b[2m{text}{_OFF}" for text in made[1:])] if self.note and colour else made

    def _machine(self, width: int) -> str:
        if self.note:
            return self.note
        row = self._closing
        if not row:
            return "waiting for the first tick"
        slowed = self._state.get("slowed", 1)
        alarms = ["DEGRADED"] if self._state.get("degraded") else []
        alarms += [f"slowed to 1/{slowed}"] if slowed > 1 else []
        parts = [clock(row["ts"]), *alarms, *machine(row)]
        while len(parts) > 1 and columns("  ".join(parts)) > width:
            parts.pop()      # whole facts, the least important ones last
        return "  ".join(parts)

    def _spark(self, width: int) -> str:
        score = self._closing.get("max_score")
        label = f"highest {score if score is not None else '-':>3} "
        room = max(0, width - len(label))
        return (label + sparkline(list(self._history)[-room:] if room else [], 100.0))[:width]


def _shown(width: int) -> list[str]:
    """The columns before the command line that leave it COMMAND columns, or half of a narrow terminal."""
    shown = list(_WIDTHS)
    for name in _DROP:
        if sum(_WIDTHS[one] + 1 for one in shown) + min(COMMAND, width // 2) <= width:
            break
        shown.remove(name)
    return shown


def _row(row: dict[str, Any], trend: Sequence[float | None], shown: Sequence[str], width: int, colour: bool) -> str:
    band = str(row.get("band", ""))
    cells = {"SCORE": str(row.get("score", "")), "TREND": sparkline(trend, 100.0).rjust(TREND), "BAND": band,
             "USES": cause(row), "CPU%": f"{row['cpu_percent']:.1f}" if "cpu_percent" in row else "",
             "MEMORY": size(row.get("memory_bytes")), "DISK/S": size(row.get("disk_bytes_per_s")),
             "PID": str(row["pid"]), "USER": str(row.get("user", row.get("uid", "")))}
    text = clip(" ".join([*(_aligned(name, cells[name]) for name in shown), program_first(command_line(row))]), width)
    mark = _COLOURS.get(band, "") if colour else ""
    return f"{mark}{text}{_OFF}" if mark else text


def _aligned(name: str, text: str) -> str:
    text = clip(text, _WIDTHS[name])
    fill = " " * (_WIDTHS[name] - columns(text))
    return fill + text if name in _RIGHT else text + fill


@contextmanager
def screen(terminal: bool, out: BinaryIO, keys: int | None = None) -> Iterator[Callable[[list[str]], None]]:
    """Yields the function that prints one picture: over the last one, on the alternate screen of the terminal, or below
    it if there is no `terminal`. Keys that are pressed on the terminal `keys` are not shown and need no Enter."""
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

    mode = None if keys is None else termios.tcgetattr(keys)

    def restore() -> None:
        if keys is not None and mode is not None:
            with suppress(termios.error):
                termios.tcsetattr(keys, termios.TCSADRAIN, mode)

    def leave(number: int, _frame: object) -> None:
        restore()
        # Not through `out`: the signal may have come while it was writing.
        with suppress(OSError):
            os.write(1, b"\x1b[?25h\x1b[?1049l")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    put("\x1b[?1049h\x1b[?25l\x1b[2J")
    if keys is not None:
        tty.setcbreak(keys)
    try:
        yield over
    finally:
        restore()
        put("\x1b[?25h\x1b[?1049l")
        for number, handler in before.items():
            signal.signal(number, handler)
