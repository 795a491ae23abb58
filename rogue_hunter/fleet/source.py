"""Reads a host's database for rh-ship: rows by number, as NDJSON without secrets, and the messages made of them."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import rogue_hunter
from rogue_hunter import files
from rogue_hunter.fleet.tables import BY_NAME, PER_TIME, TABLES, Table
from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.field import VERSION
from rogue_hunter.store.database import open_reader
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import record
from rogue_hunter.text.errors import CONFIG_ERROR, UNAVAILABLE, USAGE, RogueHunterError
from rogue_hunter.text.redact import redact

HOST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""One token of a subject: no dot, no wildcard, no space."""
SETTLE_S = 90
"""A minute is sent so long after its end: its last rows are written within seconds, unless the machine stalls."""
BUDGET = 900_000
"""Bytes of rows in one message: NATS takes 1 MiB unless it is configured otherwise."""


class Source(Protocol):
    """A host whose rows are sent."""

    def facts(self) -> dict[str, Any]:
        """host, boot_id, os, os_version, version."""
        ...

    def last(self, table: Table, after: int, end: int) -> int:
        """The highest row of those after `after` that is complete at `end` (epoch seconds)."""
        ...

    def next_minute(self, since: int) -> int | None:
        """Epoch seconds of the first minute with rows that begins at `since` or later."""
        ...

    def lines(self, table: Table, after: int, through: int) -> Iterator[tuple[int, bytes]]:
        """Number and line of each row after `after`, up to and with `through`."""
        ...

    redacted: int


@lru_cache(8192)
def clean(text: str) -> str:
    """The text with secrets masked. The sampler has done that already; here it is verified before a text leaves."""
    return redact([text]) if " " in text or "=" in text or ":" in text else text


class HostDatabase:
    """The SQLite database of rh-pipe on this host, read only."""

    def __init__(self, path: Path) -> None:
        """Raises DatabaseError."""
        self._path, self._db = path, open_reader(path)
        self._inode = os.stat(path).st_ino
        self._db.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        self.offsets: dict[str, int] = {}     # added to the rows of a table, so that the numbers of a host grow
        self.redacted = 0
        self._boot, self._host, self._os = "", platform.node(), platform.system().lower().replace("darwin", "macos")
        with suppress(sqlite3.Error, ValueError, TypeError, KeyError):
            (value,) = self._db.execute("SELECT value FROM daemon_state WHERE key = 'last_tick'").fetchone()
            tick = wire.loads(value.encode())
            self._boot, self._host, self._os = tick["boot_id"], tick["host"], tick["os"]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def facts(self) -> dict[str, Any]:
        """host, boot_id, os, os_version, version."""
        return {"host": self._host, "boot_id": self._boot, "os": self._os, "os_version": platform.release(),
                "version": rogue_hunter.__version__}

    def highest(self, table: Table) -> int:
        """The highest id of a table; 0 if it is empty."""
        return int(self._db.execute(table.last, {"after": 0, "end": 1 << 60}).fetchone()[0])

    def last(self, table: Table, after: int, end: int) -> int:
        """See Source."""
        if table.timed:
            return end * PER_TIME - 1
        offset = self.offsets.get(table.name, 0)
        found = self._db.execute(table.last, {"after": max(0, after - offset), "end": end}).fetchone()[0]
        return max(after, int(found) + offset)

    def next_minute(self, since: int) -> int | None:
        """See Source. Raises RogueHunterError if the file was replaced: a restart continues with the new one."""
        try:
            same = os.stat(self._path).st_ino == self._inode
        except OSError:
            same = False
        if not same:
            raise RogueHunterError(f"{self._path}: was replaced by another file; start again", UNAVAILABLE)
        found = self._db.execute("SELECT min(minute) FROM machine_minutes WHERE minute >= ?", (since,)).fetchone()[0]
        return None if found is None else int(found)

    def lines(self, table: Table, after: int, through: int) -> Iterator[tuple[int, bytes]]:
        """See Source. Values have the types of the record; unknown ones are left out."""
        offset = self.offsets.get(table.name, 0)
        cursor = self._db.execute(table.rows, {"after": after - offset, "through": through - offset})
        names = [column[0] for column in cursor.description]
        kinds = {f.name: f.type for f in RECORDS[table.kind]}
        for values in cursor:
            row = {name: self._typed(kinds.get(name, str), value)
                   for name, value in zip(names, values, strict=True) if value is not None}
            number = row.pop("row") + offset
            if table.name == "pauses" and row.get("boot_id") == self._boot:
                row["os_version"] = platform.release()
            yield number, wire.dumps({"type": table.kind, "v": VERSION, "row": number, **row}) + b"\n"

    def _typed(self, kind: type, value: Any) -> Any:
        if kind in (list, dict):
            return self._verified(wire.loads(value.encode()))
        return bool(value) if kind is bool else self._verified(value)

    def _verified(self, value: Any) -> Any:
        """A value, and lists and objects, with every text verified."""
        if isinstance(value, dict):
            return {key: self._verified(each) for key, each in value.items() if each is not None}
        if isinstance(value, list):
            return [self._verified(each) for each in value]
        if not isinstance(value, str):
            return value
        made = clean(value)
        self.redacted += made != value
        return made


# -- where a host is ---------------------------------------------------------------------------------------------------

@dataclass
class State:
    """What was sent: everything up to `minute` (epoch seconds), and of each table the rows after `base` up to `after`.

    `offsets`: added to the ids of the present database, so that row numbers grow although a database was replaced.
    """

    host_id: str
    minute: int = 0
    base: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)


class Cursor:
    """The file that holds a State. Written after every acknowledged message, never before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> State | None:
        """The state; None if there is no file. Raises RogueHunterError for a file that is not one of ours."""
        try:
            value = wire.loads(files.read_trusted(self._path, 1 << 16)) if self._path.exists() else None
            return None if value is None else State(**value)
        except (ValueError, TypeError) as error:
            raise RogueHunterError(f"{self._path}: not a state of rh-ship ({error}); move it away to begin with --from",
                                   CONFIG_ERROR) from None

    def save(self, state: State) -> None:
        """Replace the file. Raises OSError."""
        files.replace(self._path, wire.dumps({name: getattr(state, name) for name in State.__dataclass_fields__}))


def host_id(chosen: str | None = None, machine_id: Path = Path("/etc/machine-id")) -> str:
    """The identity of this host: as chosen, else made from the machine's own (hashed, as machine-id(5) asks), else
    random. Raises RogueHunterError for one that a subject cannot hold."""
    if chosen is not None:
        if not HOST_ID.fullmatch(chosen):
            raise RogueHunterError(f"host id {chosen!r}: letters, digits, - and _ only, 64 at most", USAGE)
        return chosen
    try:
        seed = machine_id.read_bytes().strip() or os.urandom(16)
    except OSError:
        seed = os.urandom(16)
    return hashlib.sha256(b"rogue-hunter host:" + seed).hexdigest()[:16]


def begin(source: Source, identity: str, start: int) -> State:
    """The state of a host that has sent nothing, to begin at `start` (epoch seconds)."""
    base = {t.name: start * PER_TIME - 1 if t.timed else source.last(t, 0, start) for t in TABLES}
    return State(identity, start, base, dict(base))


def resume(source: HostDatabase, state: State) -> bool:
    """Continue row numbers if the database is a new file, whose ids begin again at 1; True if it is."""
    source.offsets = state.offsets
    replaced = False
    for table in TABLES:
        if not table.timed and source.highest(table) + state.offsets.get(table.name, 0) < state.after[table.name]:
            state.offsets[table.name] = state.after[table.name]
            replaced = True
    return replaced


# -- messages ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Message:
    """Rows of one host up to `minute`. `spans`: table -> the (after, through] that is in it; `sent`: table -> the
    number up to which rows were sent before, of all tables, so that a loss is noticed also in one without new rows. Not
    `whole`: more rows of that minute follow. `id` is the same whenever the same rows are sent."""

    host_id: str
    minute: int
    spans: dict[str, tuple[int, int]]
    rows: dict[str, int]
    base: dict[str, int]
    sent: dict[str, int]
    body: bytes
    facts: dict[str, Any]
    redacted: int
    whole: bool = True

    @property
    def id(self) -> str:
        """The value of Nats-Msg-Id: not that of another machine with the same identity."""
        same = [self.facts.get("boot_id"), sorted(self.spans.items())]
        return f"{self.host_id}-{hashlib.sha256(wire.dumps(same)).hexdigest()[:24]}"

    def payload(self, sent: float) -> bytes:
        """The message as bytes; `sent` is the present by the clock of the host."""
        tables = {}
        for name, base in self.base.items():
            after, through = self.spans.get(name, (self.sent[name], self.sent[name]))
            tables[name] = {"base": base, "after": after, "through": through, "rows": self.rows.get(name, 0)}
        head = record("fleet_batch", row=int(sent * 1000), host_id=self.host_id, sent=sent, minute=self.minute,
                      redacted=self.redacted, tables=tables, **self.facts)
        return wire.dumps(head) + b"\n" + self.body


def message(source: Source, state: State, wanted: Mapping[str, tuple[int, int]], minute: int,
            budget: int = BUDGET) -> Message:
    """The rows that are wanted (table -> after, through), as many as fit into `budget` bytes. A row that is larger than
    that is left out."""
    before, size = source.redacted, 0
    body: list[bytes] = []
    spans: dict[str, tuple[int, int]] = {}
    counts: dict[str, int] = {}
    whole = True
    for name, (after, through) in wanted.items():
        reached, count = through, 0
        for number, line in source.lines(BY_NAME[name], after, through):
            if len(line) > budget:
                continue
            if size + len(line) > budget:
                reached, whole = number - 1, False
                break
            body.append(line)
            size += len(line)
            count += 1
        if reached > after:
            spans[name], counts[name] = (after, reached), count
        if not whole:
            break
    return Message(state.host_id, minute, spans, counts, dict(state.base), dict(state.after), b"".join(body),
                   source.facts(), source.redacted - before, whole)


class Shipper:
    """Decides what is sent next. Nothing here waits, and only `done` changes the state."""

    def __init__(self, source: Source, state: State, clock: Callable[[], float],
                 save: Callable[[State], object] = lambda state: None, budget: int = BUDGET) -> None:
        self.state = state
        self._source, self._clock, self._save, self._budget = source, clock, save, budget

    def behind(self) -> int:
        """Minutes that are complete and not sent; negative if the clock is behind what was sent."""
        return (self._end() - self.state.minute) // 60

    def wait_s(self) -> float:
        """Seconds until the next minute is complete."""
        return max(0.0, self._end() + 60 + SETTLE_S - self._clock())

    def _end(self) -> int:
        return int(self._clock() - SETTLE_S) // 60 * 60

    def next(self) -> Message | None:
        """The next minute that is complete; None if all were sent. Minutes without rows are passed together."""
        state, end = self.state, self._end()
        if state.minute >= end:
            return None
        found = self._source.next_minute(state.minute)
        minute = end if found is None else min(end, max(found, state.minute) + 60)
        wanted = {}
        for table in TABLES:
            after = state.after[table.name]
            through = self._source.last(table, after, minute)
            if through > after:
                wanted[table.name] = after, through
        return message(self._source, state, wanted, minute, self._budget)

    def done(self, sent: Message) -> None:
        """The server has stored it."""
        for name, (_, through) in sent.spans.items():
            self.state.after[name] = through
        if sent.whole:
            self.state.minute = sent.minute
        self._save(self.state)

    def again(self, asked: Any) -> Iterator[Message]:
        """The messages that a hub asks for: {table: [[after, through], ...]}. Only rows that were sent before; what is
        malformed is ignored."""
        for name, spans in asked.items() if isinstance(asked, dict) else ():
            if name not in BY_NAME or not isinstance(spans, list):
                continue
            for span in spans[:SPANS]:
                if not (isinstance(span, list) and len(span) == 2 and all(type(n) is int for n in span)):
                    continue
                after, through = max(span[0], self.state.base[name]), min(span[1], self.state.after[name])
                while after < through:
                    made = message(self._source, self.state, {name: (after, through)}, self.state.minute, self._budget)
                    if name not in made.spans:
                        break
                    yield made
                    after = made.spans[name][1]


SPANS = 100
"""Gaps of one table that are answered at once; a hub asks again."""
