"""How evenly rh-pipe beats on a load, how long its ticks take on the wall, and whom it names.

A turn of its own, because listening costs rh-pipe something: a client of its socket gets every tick's rogues, so the
moment at which the closing row arrives, less the moment of the beat (`mono_ns`, the same clock), is the whole tick as
a reader outside sees it: read, scored, tracked, judged, stored and sent. `late_s` is rh-pipe's own reading.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.bench.build import REPO
from tests.bench.measure import warm_up
from tests.bench.subjects import SUBJECTS, Context, Running, SubjectError, started

RH_REPORT = str(REPO / "bin" / "rh-report")
CONNECT_S = 10.0
REPORT_S = 30.0
SILENCE_S = 10.0
"""A pipe that sends nothing for so long has failed."""


@dataclass(slots=True)
class Beats:
    """Of each tick, ms: how late the beat was, and how long after the beat its closing row was here. `leaders` counts
    the commands that had the highest score (45 at least) in a tick; `reported` is the one that `rh-report why` names."""

    late_ms: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    leaders: Counter[str] = field(default_factory=Counter)
    reported: str | None = None

    def take(self, line: bytes, arrived_ns: int) -> None:
        """One line of the socket, complete at `arrived_ns` of the monotonic clock."""
        row = json.loads(line)
        if row["type"] == "process":
            self._rows.append((row.get("score", 0), row.get("command", "")))
        elif row["type"] == "tick":
            self.late_ms.append(row["late_s"] * 1000)
            self.took_ms.append((arrived_ns - row["mono_ns"]) / 1e6)
            score, command = max(self._rows, default=(0, ""))
            if score >= MEDIUM:
                self.leaders[command] += 1
            self._rows.clear()

    _rows: list[tuple[float, str]] = field(default_factory=list)


MEDIUM = 30
"""Eight times the fair share; below it no process is noticeable. The children of load.c do nothing, so that 200 of them a second
take 6 % of a core, and their parent has a score of 33."""


def take_beats(context: Context, processes: int, seconds: float, ask: bool = False) -> Beats:
    """Run rh-pipe, listen for so long behind its warm-up, and with `ask` have rh-report say who it was.

    Raises SubjectError.
    """
    place = context.scratch / f"beats-{time.monotonic_ns()}"
    place.mkdir(0o700)
    database, path = place / "x.db", place / "s"
    ours = SUBJECTS["rh-pipe"]
    heard = replace(ours, command=lambda c: [*_without_db(ours.command(c)), "--db", str(database), "--socket", str(path)])
    found = Beats()
    with started(heard, context) as running:
        warm_up(heard, context, running, processes)
        with _connected(path, running) as connection:
            _listen(connection, found, seconds)
        running.check()
    if ask:
        found.reported = _why(database)
    return found


def _without_db(command: list[str]) -> list[str]:
    at = command.index("--db")
    return command[:at] + command[at + 2:]


@contextmanager
def _connected(path: Path, running: Running) -> Iterator[socket.socket]:
    until = time.monotonic() + CONNECT_S
    with socket.socket(socket.AF_UNIX) as connection:
        while True:
            try:
                connection.connect(str(path))
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise SubjectError(f"its socket: {error.strerror}") from None
                running.check()
                time.sleep(0.05)
        yield connection


def _listen(connection: socket.socket, found: Beats, seconds: float) -> None:
    begin, rest, greeted = time.monotonic_ns(), b"", False
    while (left := begin / 1e9 + seconds - time.monotonic()) > 0:
        readable, _, _ = select.select([connection], [], [], min(left, SILENCE_S))
        if not readable:
            if left > SILENCE_S:
                raise SubjectError("its socket is silent")
            return
        data = connection.recv(1 << 18)
        arrived = time.monotonic_ns()
        if not data:
            raise SubjectError("it closed its socket")
        whole, end, rest = (rest + data).rpartition(b"\n")
        for line in (whole + end).splitlines():
            if greeted:
                found.take(line, arrived)
            elif line.startswith(b'{"type":"tick"'):
                greeted = True         # the tick before we came: it is part of the greeting


def _why(database: Path) -> str | None:
    """The command that `rh-report why` names for the last moments; None when it names none."""
    command = [RH_REPORT, "why", "--json", "--db", str(database)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=REPORT_S, check=False)
        answer: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return answer.get("command")
