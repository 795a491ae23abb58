"""What rh-pipe sends, made by hand: ticks, answers with processes, and a reader of them without a socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Row
from rogue_hunter.tui.model import Model
from tests.tools.ticks import START, closing, row

HOSTILE = "\x1b[2J[red]x[/red]\u202eevil\nline[b"


def line(kind: str, /, **fields: Any) -> bytes:
    """A record as a line."""
    return wire.dumps({"type": kind, "v": 1, **fields}) + b"\n"


def state(**fields: Any) -> bytes:
    """The first record of a connection."""
    return line("initial_state", **{"pid": 4242, "version": "0.1.0", "started_at": START, "hz": 3.0, "slowed": 1,
                                    "model": "share", "database": "x.db", "events": [],
                                    "history": [{"ts": START, "max_score": 40}] * 5, **fields})


def processes() -> list[Row]:
    """Five processes: a loop and its sibling in one unit, a reader of the disk, a hostile name, one that rests."""
    return [
        row(4001, cmdline="/usr/bin/python3 backup.py --all", command="python3", name="backup.py", user="ann",
            unit="make[4000]", score=72, band="high", dominant_resource="cpu", cpu_percent=99.5),
        row(4002, cmdline="cc1 -O2 main.c", command="cc1", user="ann", unit="make[4000]", score=40, band="medium",
            dominant_resource="cpu", cpu_percent=45.0, memory_bytes=900 << 20),
        row(4003, cmdline="dd if=/dev/sda", command="dd", user="root", unit="cron.service", score=50, band="elevated",
            dominant_resource="disk", disk_bytes_per_s=3e8, cpu_percent=7.0),
        row(4004, cmdline=HOSTILE, command=HOSTILE, name=HOSTILE, user=HOSTILE, unit=HOSTILE, score=1, band="low"),
        row(4005, command="idle", user="bob", unit="sleep[4005]"),
    ]


def tick(seq: int, rogues: Sequence[Row], **fields: Any) -> list[bytes]:
    """A tick as rh-pipe sends it: the rogues, then the closing row."""
    end = closing(seq, 200, max_score=max((each.get("score", 0) for each in rogues), default=0), **fields)
    return [*(line("process", ts=end["ts"], seq=seq, **each) for each in rogues), line("tick", **end)]


def answer(rows: Sequence[Row]) -> list[bytes]:
    """The answer to a request for the processes."""
    return [line("processes", ts=START, total=len(rows), rows=list(rows))]


def event(kind: str, made: Row, key: str = "e1", **fields: Any) -> list[bytes]:
    """One record of an event of a process."""
    return [line("event", ts=START, kind=kind, event=key, boot_id="b", entered=START - 60, duration_s=60.0,
                 peak_score=made.get("score", 0), peak_band=made.get("band", "low"), **{**made, **fields})]


class Feed:
    """A reader without a thread: `give` hands it what a socket would bring. Keeps what it is asked for."""

    def __init__(self, _path: Path, model: Model, paint: Callable[[], object]) -> None:
        self.lock = threading.Lock()
        self.error: Any = None
        self.model, self.paint = model, paint
        self.asked: list[str] = []
        self.answers = False
        self.logged: list[str] = []
        self.running = False

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False

    def ask(self, search: str = "") -> bool:
        self.asked.append(search)
        return self.answers

    def log(self, level: str, message: str) -> None:
        self.logged.append(f"{level}: {message}")

    def give(self, *batches: Sequence[bytes]) -> None:
        """Take these batches."""
        for batch in batches:
            self.model.take(batch)


def running(rows: Sequence[Row] | None = None) -> list[Sequence[bytes]]:
    """A connection with three ticks and an answer."""
    rows = processes() if rows is None else rows
    rogues = sorted(rows, key=lambda each: -each.get("score", 0))[:4]
    return [[state()], *(tick(n, rogues) for n in range(3)), answer(rows)]
