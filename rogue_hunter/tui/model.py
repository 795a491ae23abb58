"""What rh-top knows: processes, their last minutes, the machine, open events, what happened; and the thread that reads.

The thread follows the socket: every batch goes to the model, and a complete reading asks for a picture.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rogue_hunter.daemon.socket.address import SocketError
from rogue_hunter.daemon.socket.client import connect, follow
from rogue_hunter.report.record_text import clock
from rogue_hunter.report.record_text import line as record_line
from rogue_hunter.schema.field import Key
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Row, matches, record
from rogue_hunter.text.format import visible

HISTORY = 120
"""Points kept of each process, one for each complete reading: two minutes at one a second."""

SCORES = 400
"""Ticks of the sparkline of the machine: more than a wide terminal has columns."""

LOG = 500
"""Lines of what happened that are kept."""

TIME = len("14:02:03 ")

ENDED = 20
"""Ended events that the tracked panel keeps."""

HISTORIES = 2000
"""Histories that are kept while only the processes that match a filter are received."""


class Point(NamedTuple):
    """What a process did at one moment; None where it is not known."""

    score: float | None
    cpu_percent: float | None
    memory_bytes: float | None
    disk_bytes_per_s: float | None


class Entry(NamedTuple):
    """A row of the table. `row` is a process, or the sums of a unit of `members` processes; `depth` 1 below a unit."""

    key: Key | str
    row: Row
    depth: int = 0
    members: int = 0


@dataclass(slots=True)
class Order:
    """How the table is arranged: by which field, which part, as a tree of units or not. `folded` units hide their
    processes; `only_rogues` leaves out what rh-pipe does not select as rogue."""

    sort: str = "score"
    ascending: bool = False
    filter: str = ""
    tree: bool = False
    only_rogues: bool = False
    folded: set[str] = field(default_factory=set)


class Model:
    """Takes the records of the socket. `now` is the wall clock, epoch seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.state: Row = {}
        self.tick: Row = {}
        self.scores: deque[float | None] = deque(maxlen=SCORES)
        self.rows: dict[Key, Row] = {}
        self.rogues: dict[Key, Row] = {}
        self.histories: dict[Key, deque[Point]] = {}
        self.open: dict[str, Row] = {}
        self.ended: deque[Row] = deque(maxlen=ENDED)
        self.log: deque[tuple[str, str]] = deque(maxlen=LOG)
        self.connected = False
        self.retry_at = self.tick_at = 0.0
        self.problem = ""
        self.answers_processes = True

    # -- records -----------------------------------------------------------------------------------------------------

    def take(self, batch: Sequence[bytes]) -> str:
        """Update from the lines of one tick, its closing row last, or from one line of another record. Returns the type
        of the last one; a line that is no record is ignored."""
        kind = ""
        rows: list[Row] = []
        for line in batch:
            try:
                found = wire.loads(line)
                kind = str(found["type"])
                if kind == "process":
                    rows.append(found)
                elif kind == "tick":
                    self._tick(found, rows)
                else:
                    self._record(kind, found)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return kind

    def _tick(self, closing: Row, rows: Iterable[Row]) -> None:
        self.connected, self.problem = True, ""
        self.tick, self.tick_at = closing, self._now()
        self.scores.append(closing.get("max_score"))
        self.rogues = {key_of(row): row for row in rows if not row.get("ended")}
        if not self.answers_processes:
            self._rows(self.rogues)

    def _rows(self, rows: Mapping[Key, Row], complete: bool = True) -> None:
        """Replace the processes. Unless the reading is `complete`, the histories of others are kept too."""
        self.rows = dict(rows)
        kept = self.histories
        others = [] if complete else [each for each in kept.items() if each[0] not in rows]
        self.histories = dict(others[-HISTORIES:])
        for key, row in rows.items():
            history = self.histories[key] = kept.get(key) or deque(maxlen=HISTORY)
            history.append(Point(*(row.get(name) for name in Point._fields)))

    def _record(self, kind: str, found: Row) -> None:
        if kind == "processes":
            self._rows({key_of(row): row for row in found["rows"] if not row.get("ended")}, "filter" not in found)
        elif kind == "initial_state":
            self._begin(found)
        elif kind == "error" and "processes_request" not in str(found.get("message")) \
                and "takes records of the types" in str(found.get("message")):
            self.answers_processes = False      # an rh-pipe of an older version sends the rogues only
        elif kind == "event":
            self._event(found)
        band = _band(kind, found)
        # What people call a process by, where that is another name than the kernel's.
        text = record_line({**found, "command": found["name"]} if found.get("name") else found) if band else ""
        # rh-pipe reports from the audit file what rh-top itself did a moment before.
        known = kind == "action" and any(text[TIME:] == told[TIME:] for _, told in list(self.log)[-10:])
        if text and not known:
            self.log.append((band, text))

    def _begin(self, state: Row) -> None:
        again = bool(self.state)
        self.state = state
        self.connected, self.problem, self.answers_processes = True, "", True
        self.scores.clear()
        self.scores.extend(each.get("max_score") for each in state.get("history", ())[:-1])
        self.open = {str(each["event"]): each for each in state.get("events", ())}
        self.note("low", f"connected to rh-pipe {state.get('version', '')} [{state.get('pid', '?')}]"
                  + (" again" if again else ""))

    def _event(self, event: Row) -> None:
        key = str(event["event"])
        if event["kind"] == "exit":
            self.open.pop(key, None)
            self.ended.appendleft(event)
        else:
            self.open[key] = {**self.open.get(key, {}), **event}

    def note(self, band: str, text: str) -> None:
        """Add a line of rh-top's own to what happened."""
        self.log.append((band, f"{clock(self._now())} {visible(text)}"))

    def disconnected(self, problem: str, retry_s: float) -> None:
        """rh-pipe cannot be reached: why, and how long until the next try."""
        if self.connected:
            self.note("critical", problem)
        self.connected, self.problem, self.retry_at = False, problem, self._now() + retry_s

    # -- what is shown -----------------------------------------------------------------------------------------------

    def find(self, key: Key | str | None) -> Row | None:
        """The process of a key, if it is among those that were read last."""
        return None if key is None or isinstance(key, str) else self.rows.get(key)

    def entries(self, order: Order) -> list[Entry]:
        """The rows of the table, in order."""
        if order.only_rogues:
            rows = [self.rows.get(key, row) for key, row in self.rogues.items()]
        else:
            rows = list(self.rows.values())
        if order.filter:
            rows = [row for row in rows if matches(row, order.filter)]
        if not order.tree:
            return [Entry(key_of(row), row) for row in ordered(rows, order)]
        units: dict[str, list[Row]] = {}
        for row in rows:
            units.setdefault(str(row.get("unit") or "(no unit)"), []).append(row)
        sums = ordered([_sum(unit, members) for unit, members in units.items()], order)
        return list(chain.from_iterable(_branch(total, units[total["unit"]], order) for total in sums))


def _band(kind: str, found: Row) -> str:
    """The band whose colour a record has among what happened; empty for one that is not shown there."""
    if kind == "event":
        return {"enter": str(found.get("band", "low")), "band": str(found.get("band", "low")), "exit": "low"}.get(
            str(found.get("kind")), "")
    if kind == "action":
        return "high" if found.get("outcome") in ("survived", "terminated", "killed") else "medium"
    if kind == "capture" and found.get("status") == "skipped":
        return ""
    return {"pause": "pause", "match": "elevated", "capture": "low", "dropped": "medium"}.get(kind, "")


def _branch(total: Row, members: list[Row], order: Order) -> list[Entry]:
    unit = total["unit"]
    if len(members) == 1:
        return [Entry(key_of(members[0]), members[0])]
    head = Entry(unit, total, 0, len(members))
    if unit in order.folded:
        return [head]
    return [head, *(Entry(key_of(row), row, 1) for row in ordered(members, order))]


ADDED = ("cpu_percent", "children_cpu_percent", "memory_bytes", "disk_bytes_per_s", "wakeups_per_s", "faults_per_s",
         "pageins_per_s", "context_switches_per_s", "run_delay_ms_per_s", "gpu_ms_per_s", "threads")
"""Fields of which the row of a unit has the sum."""


def _sum(unit: str, members: Sequence[Row]) -> Row:
    """The row of a unit: sums, the highest score with its band and resource."""
    worst = max(members, key=lambda row: row.get("score", 0))
    total: Row = {name: worst[name] for name in ("score", "band", "dominant_resource") if name in worst}
    for name in ADDED:
        known = [row[name] for row in members if name in row]
        if known:
            total[name] = sum(known)
    return {**total, "unit": unit}


def ordered(rows: Iterable[Row], order: Order) -> list[Row]:
    """Sorted by a field, unknown values last whichever the direction; equal ones by CPU use, memory and pid."""
    known: list[Row] = []
    unknown: list[Row] = []
    for row in rows:
        (known if order.sort in row else unknown).append(row)
    text = any(isinstance(row[order.sort], str) for row in known)
    known.sort(key=lambda row: (row.get("cpu_percent", 0.0), row.get("memory_bytes", 0), row.get("pid", 0)),
               reverse=True)
    known.sort(key=lambda row: str(row[order.sort]).casefold() if text else row[order.sort],
               reverse=not order.ascending)
    return known + unknown


def key_of(row: Mapping[str, Any]) -> Key:
    """The identity of a process within the boot."""
    return row["pid"], row["start_ticks"]


LINE_BYTES = 16 << 20
"""Bytes of the longest line: an answer with 10,000 processes is 9 MB."""

ROWS_ASKED = 1000
"""Processes that are asked for: the most conspicuous ones of all, or of those that match the filter."""


class _Closed(Exception):
    """The reader was closed."""


class Reader:
    """`paint` is called in the reader's thread when there is something new to show: a complete reading, a connection
    that was lost. `lock` is held while the model changes."""

    def __init__(self, path: Path, model: Model, paint: Callable[[], object],
                 connecting: Callable[[Path], socket.socket] = connect) -> None:
        self.lock = threading.Lock()
        self.error: SocketError | None = None
        self._path, self._model, self._paint, self._connecting = path, model, paint, connecting
        self._connection: socket.socket | None = None
        self._woken, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        os.write(self._waker, b"x")
        if self._thread.is_alive():
            self._thread.join(2.0)
        os.close(self._woken)
        os.close(self._waker)

    def ask(self, search: str = "") -> bool:
        """Ask for the processes, or those that match a filter; False if that cannot be asked."""
        wanted = {"filter": search} if search.strip() else {}
        return self._model.answers_processes and self._send(record("processes_request", limit=ROWS_ASKED, **wanted))

    def log(self, level: str, message: str) -> None:
        """Have rh-pipe write a line to its log; lost if there is no connection."""
        self._send(record("log", level=level, source="rh-top", message=message))

    def _send(self, request: dict[str, object]) -> bool:
        connection = self._connection
        if connection is None or not self._model.connected:
            return False
        with suppress(OSError):
            return connection.send(wire.dumps(request) + b"\n") > 0
        return False

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for batch in follow(self._path, self._wait, self._said, connecting=self._connect, limit=LINE_BYTES):
                if not batch:
                    continue
                with self.lock:
                    kind = self._model.take(batch)
                if kind in ("processes", "initial_state") or (kind == "tick" and not self._model.answers_processes):
                    self._paint()
        except _Closed:
            return
        except SocketError as error:
            self.error = error      # another user's socket, an endless line: trying again does not help
            self._paint()

    def _connect(self, path: Path) -> socket.socket:
        self._connection = None
        self._connection = self._connecting(path)
        return self._connection

    def _said(self, message: str) -> None:
        """What follow reports is shown with the countdown instead."""

    def _wait(self, connection: socket.socket | None, seconds: float | None) -> bool:
        if connection is None and seconds is not None:
            with self.lock:
                self._model.disconnected("rh-pipe is not running", seconds)
            self._paint()
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if connection is not None:
            poll.register(connection, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)]
        if self._woken in ready:
            raise _Closed
        return bool(ready)
