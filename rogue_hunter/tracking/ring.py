"""The last 20 s of selected processes.

It gives the lowest and highest value of each metric for a snapshot, the culprits of a pause and the context of a
capture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from rogue_hunter.schema.field import Key
from rogue_hunter.schema.sampling import METRICS
from rogue_hunter.stream.tick import Recent, Row

_NAMES = tuple(f.name for f in METRICS)


class Ring:
    """A bounded queue of (closing row, selected rows). Rows are shared with the ticks, never copied."""

    def __init__(self, ticks: int) -> None:
        self._ticks: deque[tuple[Row, Mapping[Key, Row]]] = deque(maxlen=ticks)

    @property
    def size(self) -> int:
        """How many ticks are held at most."""
        return self._ticks.maxlen or 0

    def __len__(self) -> int:
        return len(self._ticks)

    def push(self, closing: Row, rows: Mapping[Key, Row]) -> None:
        """Add a tick; the oldest falls out."""
        self._ticks.append((closing, rows))

    def ticks(self) -> Recent:
        """What is held, oldest first."""
        return tuple(self._ticks)

    def history(self, key: Key) -> list[Row]:
        """The rows of one process, oldest first."""
        return [rows[key] for _, rows in self._ticks if key in rows]

    def ranges(self, key: Key, row: Row) -> dict[str, Any]:
        """`name_low` and `name_high` of every metric of the process over the ring and `row`."""
        return ranges([*self.history(key), row])


def ranges(rows: Iterable[Row]) -> dict[str, Any]:
    """`name_low` and `name_high` of every metric over the rows in which it is known."""
    held = list(rows)
    found: dict[str, Any] = {}
    for name in _NAMES:
        values = [row[name] for row in held if name in row]
        if values:
            found[name + "_low"] = min(values)
            found[name + "_high"] = max(values)
    return found
