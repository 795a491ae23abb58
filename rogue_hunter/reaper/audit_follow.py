"""Actions of other reapers, copied from the audit file by the process that writes the database.

Every reaper writes there before it acts, and one process alone may write to the database: so an rh-reap beside a
running rh-pipe need not notify it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rogue_hunter.reaper.audit_chain import entry_of, numbered
from rogue_hunter.schema.rules import ACTION
from rogue_hunter.stream.tick import Record, Tick, record

_NAMES = frozenset(f.name for f in ACTION) - {"ts", "host", "audit_seq"}
_REQUIRED = tuple(f.name for f in ACTION if f.required and f.name != "ts")
CHUNK = 1 << 16
MOST = 1 << 22
"""Bytes that are read at most at one time: 1,500 actions of 3 KB."""
LOOK_S = 2.0
"""What others did is history: looking for it at every tick cost 0.12 ms a tick, which is 3 % of a tick of 1,000
processes."""


def action_of(entry: dict[str, Any]) -> Record | None:
    """The action record of an entry; None when it tells of no outcome."""
    if entry.get("kind") != "outcome" or any(name not in entry for name in _REQUIRED):
        return None
    fields = {name: value for name, value in entry.items() if name in _NAMES}
    return record("action", ts=entry.get("ts"), host=entry.get("hostname"), audit_seq=entry.get("seq"), **fields)


def last_seq(path: Path) -> int:
    """The number of the line that was written last; 0 when there is none."""
    try:
        return int(Path(f"{path}.head").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def after(path: Path, seq: int) -> list[dict[str, Any]]:
    """The entries with a higher number than `seq`, oldest first. Nothing is locked: a line that is just being written
    has no end yet and is left for the next time. Raises OSError."""
    found: list[dict[str, Any]] = []
    for file in (path, numbered(path, 1)):
        entries = _tail(file, seq)
        found = entries + found
        if not entries or entries[0]["seq"] <= seq + 1:
            break
    return [entry for entry in found if entry["seq"] > seq]


def _tail(file: Path, seq: int) -> list[dict[str, Any]]:
    """The last entries of a file: so many that `seq` is among them, if it is in the file and not too far back."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    with os.fdopen(fd, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        take = CHUNK
        while True:
            stream.seek(max(0, size - take))
            lines = stream.read(take).split(b"\n")[:-1]
            whole = [entry for entry in map(entry_of, lines if take >= size else lines[1:])
                     if entry is not None and type(entry.get("seq")) is int]
            if take >= min(size, MOST) or (whole and whole[0]["seq"] <= seq + 1):
                return whole
            take *= 4


class FollowAudit:
    """A stage that adds the action records of other reapers than `own_run`, from its first tick on, every `look_s`
    seconds. `path` is called each time; a file that cannot be read adds nothing."""

    def __init__(self, path: Callable[[], Path], own_run: str, look_s: float = LOOK_S) -> None:
        self._path, self._own_run, self._look_ns = path, own_run, look_s * 1e9
        self._place = path()
        self._seq = last_seq(self._place)
        self._looked: int | None = None

    def __call__(self, tick: Tick) -> Tick:
        """The tick with what others did since the last look."""
        now = tick.row["mono_ns"] if tick.row is not None else None
        if now is not None and (self._looked is None or not 0 <= now - self._looked < self._look_ns):
            self._looked = now
            place = self._path()
            if place != self._place:
                self._place, self._seq = place, last_seq(place)
            tick.records += self.close()
        return tick

    def close(self) -> list[Record]:
        """What others did since the last look."""
        new, self._seq = _new(self._place, self._seq, self._own_run)
        return new


def _new(path: Path, seq: int, own_run: str) -> tuple[list[Record], int]:
    last = last_seq(path)
    if last <= seq:
        return [], min(last, seq)  # a new file begins with 1
    try:
        entries = after(path, seq)
    except OSError:
        return [], last
    actions = [action_of(entry) for entry in entries if entry.get("run") != own_run]
    return [action for action in actions if action is not None], max((e["seq"] for e in entries), default=last)
