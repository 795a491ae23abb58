"""NDJSON in and out: the only place where a record becomes bytes and bytes become a record.

A tick is written as its process rows, its other records and its closing row, in one write. Reading turns these lines
into the same tick again, so a stage behaves the same in a shell pipeline and inside one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import orjson

from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.field import VERSION, Field, Key
from rogue_hunter.stream.tick import Record, Row, Tick, record

MAX_LINE = 1 << 20
"""Bytes of one line. The longest real row, with a command line of 4 KiB, is under 10 KB."""

_I64 = 1 << 63
TIME_END = 1e11
"""Epoch seconds of the year 5138: a later time is garbage, and calendar functions fail on it."""

Stamp = tuple[float, int]
"""ts and seq, by which the rows of one tick belong together."""

_STAMPS = frozenset({"ts", "seq", "age_s"})
"""Fields that the writer adds to a row."""


class Sink(Protocol):
    """A file that ticks are written to."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


def dumps(value: Any) -> bytes:
    """JSON of `value`, no line feed. Raises TypeError for what JSON cannot hold (a surrogate, an int over 64 bits)."""
    return orjson.dumps(value)


def dumps_pretty(value: Any) -> bytes:
    """The same, indented for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def loads(data: bytes) -> Any:
    """The value of one JSON text. Raises ValueError with a short reason."""
    return orjson.loads(data)


class Encoder:
    """Ticks to bytes. A row that is the same object as in the tick before is not encoded again."""

    def __init__(self) -> None:
        self._bodies: dict[Key, tuple[Row, bytes]] = {}

    def tick(self, tick: Tick) -> bytes:
        """All lines of one tick, or of a batch of records."""
        lines: list[bytes] = []
        if tick.row is not None:
            self._rows(tick, tick.row, lines)
        lines += [orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in tick.records]
        if tick.row is not None:
            lines.append(orjson.dumps({"type": "tick", "v": VERSION, **tick.row}, option=orjson.OPT_APPEND_NEWLINE))
        return b"".join(lines)

    def _rows(self, tick: Tick, closing: Row, lines: list[bytes]) -> None:
        bodies = self._bodies
        ts = closing["ts"]
        head = b'{"type":"process","v":%d,"ts":%s,"seq":%d,' % (VERSION, orjson.dumps(ts), closing["seq"])
        for key, row in tick.processes.items():
            known = bodies.get(key)
            if known is not None and known[0] is row:
                body = known[1]
            else:
                body = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)[1:]
                bodies[key] = (row, body)
            start = row.get("start_time")
            if start is None:
                lines.append(head + body)
            else:
                lines.append(b'%b"age_s":%.2f,%b' % (head, max(0.0, ts - start), body))
        if len(bodies) > 2 * len(tick.processes) + 64:
            self._bodies = {key: bodies[key] for key in tick.processes}


def write(ticks: Iterator[Tick], sink: Sink, *, encode: Callable[[Tick], bytes] | None = None) -> None:
    """Write every tick to `sink`, one write and one flush each."""
    encode = encode or Encoder().tick
    for tick in ticks:
        data = encode(tick)
        if data:
            sink.write(data)
            sink.flush()


def only_records(tick: Tick, keep: Callable[[Record], bool] | None = None) -> bytes:
    """An encoding without the rows of the tick, for stages that print records only; `keep` selects records."""
    return b"".join([orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in tick.records
                     if keep is None or keep(r)])


def _checker(fields: tuple[Field, ...]) -> dict[str, tuple[type, ...]]:
    return {f.name: (float, int) if f.type is float else (f.type,) for f in fields}


_TYPES = {name: _checker(fields) for name, fields in RECORDS.items()}
_REQUIRED = {name: tuple(f.name for f in fields if f.required) for name, fields in RECORDS.items()}


def check(kind: str, fields: Row) -> None:
    """Raise ValueError unless the known fields of a `kind` record have their types and the required ones are there."""
    types = _TYPES.get(kind)
    if types is None:
        return
    for name, value in fields.items():
        allowed = types.get(name)
        if allowed is None:
            continue
        if type(value) not in allowed:
            raise ValueError(f"{name} is {_json_type(value)}, not {allowed[0].__name__}")
        if type(value) in (int, float) and not -_I64 <= value < _I64:    # sums and products of it stay finite
            raise ValueError(f"{name} is beyond 64 bits")
    for name in _REQUIRED[kind]:
        if name not in fields:
            raise ValueError(f"{kind} without {name}")


def _stamp(kind: str, fields: Row) -> Stamp:
    """ts and seq of a row. Raises ValueError."""
    ts: Any = fields.get("ts")
    seq: Any = fields.get("seq")
    if type(seq) is not int or type(ts) not in (float, int) or not 0 <= ts < TIME_END:
        check(kind, fields)
        raise ValueError("ts is not a time")
    return ts, seq


def writable(value: Row) -> bytes:
    """The value as bytes. JSON that can be read may be nested too deeply to be written: raises ValueError."""
    try:
        return orjson.dumps(value)
    except TypeError:
        raise ValueError("nested too deeply") from None


def _json_type(value: object) -> str:
    return {bool: "true or false", str: "text", dict: "an object", list: "an array", int: "a whole number",
            float: "a fraction"}.get(type(value), type(value).__name__)


class Reader:
    """Lines to ticks.

    A malformed line becomes an `error` record in the tick. `bad` counts such lines and `first_bad` describes the first;
    `truncated` says how the input ended inside a tick or a line, empty if it did not.
    """

    def __init__(self, stream: BinaryIO, stage: str) -> None:
        self._stream = stream
        self._stage = stage
        self._line = 0
        self._before: dict[Key, tuple[Row, bytes]] = {}
        self.bad = 0
        self.first_bad = ""
        self.truncated = ""

    def ticks(self) -> Iterator[Tick]:
        """Every complete tick of the input, and every batch of records between two ticks."""
        rows: dict[Key, tuple[Row, bytes]] = {}
        stamp: Stamp = (0.0, 0)
        extra: list[Record] = []
        for line in self._lines():
            try:
                kind, fields = self._parse(line)
                if kind == "process" or kind == "tick":
                    before, stamp = stamp, _stamp(kind, fields)
                    if rows and before != stamp:
                        # The closing row of these rows was lost: their tick is truncated.
                        extra.append(self._error(f"{len(rows)} process rows without a closing tick row"))
                        rows = {}
                if kind == "process":
                    key, row = self._row(fields)
                    if key in rows:
                        raise ValueError(f"process {key[0]} twice in one tick")
                    rows[key] = row
                elif kind == "tick":
                    check("tick", fields)
                    yield self._tick(fields, rows, extra)
                    rows, extra = {}, []
                else:
                    writable(fields)
                    extra.append({"type": kind, "v": VERSION, **fields})
            except ValueError as error:
                extra.append(self._error(str(error)))
            if extra and not rows:
                yield Tick(records=extra)
                extra = []
        if rows:
            self.truncated = self.truncated or f"{len(rows)} process rows without a closing tick row"
        if extra:
            yield Tick(records=extra)

    def _lines(self) -> Iterator[bytes]:
        while line := self._stream.readline(MAX_LINE):
            self._line += 1
            if not line.endswith(b"\n"):
                if len(line) < MAX_LINE:
                    self.truncated = "the last line does not end"
                    return
                while line and not line.endswith(b"\n"):
                    line = self._stream.readline(MAX_LINE)
                line = b""
            yield line

    def _parse(self, line: bytes) -> tuple[str, Row]:
        if not line:
            raise ValueError(f"line longer than {MAX_LINE} bytes")
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ValueError("not UTF-8" if "UTF-8" in error.msg else f"not JSON: {error.msg}") from None
        if type(value) is not dict:
            raise ValueError(f"not a record but {_json_type(value)}")
        kind, version = value.pop("type", None), value.pop("v", None)
        if type(kind) is not str:
            raise ValueError("no type")
        if type(version) is not int:
            raise ValueError("no v")
        if version != VERSION:
            raise ValueError(f"v is {version}; this is version {VERSION}")
        return kind, {k: v for k, v in value.items() if v is not None} if None in value.values() else value

    def _row(self, fields: Row) -> tuple[Key, tuple[Row, bytes]]:
        """The identity and the row with its bytes; the row object of the previous tick if it is equal."""
        body = {name: value for name, value in fields.items() if name not in _STAMPS}
        pid, start = body.get("pid"), body.get("start_ticks")
        before = self._before.get((pid, start)) if type(pid) is int and type(start) is int else None
        # Compared as bytes: 0, 0.0 and false are equal in Python and not on the wire.
        data = writable(body)
        if before is None or before[1] != data:
            check("process", fields)
            before = body, data
        if body["pid"] < 0 or body["start_ticks"] < 0:
            raise ValueError("pid or start_ticks below 0")
        return (body["pid"], body["start_ticks"]), before

    def _tick(self, closing: Row, held: dict[Key, tuple[Row, bytes]], extra: list[Record]) -> Tick:
        writable(closing)
        before = self._before
        changed = {key for key, row in held.items() if before.get(key) is not row}
        rows = {key: row for key, (row, _) in held.items()}
        scored = {key for key, row in rows.items() if row.get("score")}
        tick = Tick(closing, rows, changed, (), scored, extra)
        if not tick.partial:
            tick.exited = tuple(key for key in before if key not in rows)
        self._before = held
        return tick

    def _error(self, message: str) -> Record:
        self.bad += 1
        self.first_bad = self.first_bad or f"line {self._line}: {message}"
        return record("error", stage=self._stage, line=self._line, message=message)
