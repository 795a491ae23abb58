"""Checks what arrives at a hub: whose it is, whether it is well formed, which rows are new, and which are missing."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.fleet.source import HOST_ID
from rogue_hunter.fleet.tables import BY_KIND, BY_NAME
from rogue_hunter.schema.field import VERSION
from rogue_hunter.stream import wire
from rogue_hunter.text.errors import RogueHunterError

SUBJECT = "rh.v1.{}.minute"
"""Subject of the messages of one host. The server lets a host publish to its own only."""
ALL = SUBJECT.format("*")
ASK = "rh.ask.{}"
"""Subject on which a host is asked to send rows again."""


NESTED = 200
"""JSON can be read that is nested too deeply to be written (254): with more brackets than this it is tried."""


class Refused(RogueHunterError):
    """A message that is not stored. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A message that was checked: its head, and the rows of each table with their numbers, in order."""

    host_id: str
    received: float
    head: dict[str, Any]
    spans: dict[str, tuple[int, int, int]]
    """table -> base, after, through"""
    rows: dict[str, list[dict[str, Any]]]


def sender(subject: str) -> str:
    """The host in a subject. Raises Refused."""
    parts = subject.split(".")
    if len(parts) != 4 or parts[:2] != ["rh", "v1"] or parts[3] != "minute" or not HOST_ID.fullmatch(parts[2]):
        raise Refused(f"subject {subject[:100]!r}: not of the form {SUBJECT.format('HOST')}")
    return parts[2]


def parse(subject: str, payload: bytes, received: float) -> Batch:
    """Check a message. `received`: epoch seconds at which the server stored it. Raises Refused."""
    host = sender(subject)
    lines = payload.split(b"\n")
    if lines.pop():
        raise Refused(f"host {host}: the message is cut short")
    try:
        head = _record(host, lines[0] if lines else b"")
        if head.get("type") != "fleet_batch":
            raise ValueError("does not begin with a record fleet_batch")
        wire.check("fleet_batch", head)
        if head["host_id"] != host:
            raise Refused(f"host {host}: sends rows in the name of host {str(head['host_id'])[:64]!r}")
        _times("fleet_batch", head, "sent", "minute")
        spans = _spans(head["tables"])
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in spans}
        reached = {name: after for name, (_, after, _) in spans.items()}
        for line in lines[1:]:
            row = _record(host, line)
            table = BY_KIND.get(row.get("type", ""))
            if table is None or table.name not in spans:
                raise ValueError(f"a row of type {str(row.get('type'))[:32]!r}, which the head does not announce")
            number = row.get("row")
            if type(number) is not int or not reached[table.name] < number <= spans[table.name][2]:
                raise ValueError(f"{table.name}: row {str(number)[:32]} is out of order or outside of the message")
            reached[table.name] = number
            wire.check(table.kind, row)
            _times(table.kind, row, table.columns[0].name)
            rows[table.name].append(row)
        for name, made in rows.items():
            if len(made) != head["tables"][name]["rows"]:
                raise ValueError(f"{name}: {len(made)} rows, announced as {head['tables'][name]['rows']}")
    except ValueError as error:
        raise Refused(f"host {host}: malformed message: {error}") from None
    return Batch(host, received, head, spans, rows)


def _times(kind: str, row: dict[str, Any], *names: str) -> None:
    """Raise ValueError unless these fields are times that a calendar has."""
    for name in names:
        if not 0 <= row.get(name, -1) < wire.TIME_END:
            raise ValueError(f"{kind}: {name} is not a time")


def _record(host: str, line: bytes) -> dict[str, Any]:
    """A line as a record of this version. Raises Refused, ValueError."""
    row = wire.loads(line)
    if type(row) is not dict:
        raise ValueError("a line is not an object")
    if line.count(b"[") + line.count(b"{") > NESTED:
        wire.writable(row)
    version = row.get("v")
    if type(version) is not int:
        raise ValueError("a line without v")
    if version != VERSION:
        newer = version > VERSION
        raise Refused(f"host {host}: sends records of version {version}, this hub reads {VERSION}: "
                      f"update {'the hub' if newer else 'rogue-hunter on the host'}; its rows are sent again then")
    return row


def _spans(tables: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    made = {}
    for name, span in tables.items():
        if name not in BY_NAME or not isinstance(span, dict):
            raise ValueError(f"unknown table {name[:32]!r}")
        numbers = [n for key in ("base", "after", "through", "rows") if type(n := span.get(key)) is int
                   and -1 << 62 < n < 1 << 62]
        if len(numbers) != 4:
            raise ValueError(f"{name}: base, after, through and rows must be whole numbers")
        base, after, through, _ = numbers
        if not base <= after <= through:
            raise ValueError(f"{name}: not base <= after <= through")
        made[name] = base, after, through
    return made


# -- which rows a hub has ----------------------------------------------------------------------------------------------

@dataclass
class Coverage:
    """The rows of one table of one host that were stored: sorted, disjoint spans (after, through]; where the host
    began, and up to where it has sent."""

    base: int
    sent: int
    spans: list[list[int]] = field(default_factory=list)

    def add(self, base: int, after: int, through: int) -> list[tuple[int, int]]:
        """Mark a span as stored; gives the parts of it that were not."""
        self.base, self.sent = min(self.base, base), max(self.sent, through)
        if after >= through:
            return []
        spans = self.spans
        first = bisect_left(spans, after, key=lambda span: span[1])
        new, at, last = [], after, first
        while last < len(spans) and spans[last][0] <= through:
            if spans[last][0] > at:
                new.append((at, spans[last][0]))
            at = max(at, spans[last][1])
            last += 1
        if at < through:
            new.append((at, through))
        touched = spans[first:last]
        spans[first:last] = [[min([after, *(s[0] for s in touched)]), max([through, *(s[1] for s in touched)])]]
        return new

    def gaps(self) -> list[list[int]]:
        """The spans that were sent and are missing."""
        edges = [self.base, *(n for span in self.spans for n in span), self.sent]
        return [[edges[i], edges[i + 1]] for i in range(0, len(edges), 2) if edges[i] < edges[i + 1]]

    @property
    def contiguous(self) -> int:
        """The highest row up to which nothing is missing."""
        return self.spans[0][1] if self.spans and self.spans[0][0] <= self.base else self.base


def new_rows(rows: list[dict[str, Any]], parts: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """The rows in these parts."""
    return [row for row in rows if any(after < row["row"] <= through for after, through in parts)]
