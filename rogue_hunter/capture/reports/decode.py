"""Decode numbers, sizes, times, names, keys and JSON of a report, the binary header of a spindump, and call trees.

Reports are untrusted. Every number is bounded before it is converted (5,000 digits are not a number here), and every
text is cut, so that no field grows beyond the limits of the database.

    1001  start + 1 (libdyld.dylib + 91093) [0x7fff57e143d5]
      1001  main + 12 (tool + 2490) [0x1064309ba]
       *1001  ipc_mqueue_receive_continue + 0 (kernel + 1651808) [0xffffff8000393460]

The indentation is the depth; `*` marks a frame of the kernel. The heaviest stack is the one whose innermost frame has
the most samples; among equals the first (a heavy report sorts by count, a timeline by time).

The binary form is base64 of 8 bytes and a compressed NSKeyedArchiver property list. The tables of processes, threads
and waits in it change with each version of macOS and are not read.
"""

from __future__ import annotations

import binascii
import plistlib
import re
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

from rogue_hunter.schema.capture import FRAME_LIMIT, MAX_FRAMES

NAME_LIMIT = 256
TEXT_LIMIT = 1024

_WHOLE = re.compile(rb"\s*([+-]?[0-9]{1,18})(?![0-9])")
_FRACTION = re.compile(rb"\s*<?\s*([+-]?[0-9]{1,15}(?:\.[0-9]{1,12})?)")
_SIZE = re.compile(rb"\s*([+-]?[0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(bytes|pages|[KMGT]i?B|B)(?![A-Za-z])")
_UNITS = {b"B": 1, b"bytes": 1, b"K": 1 << 10, b"M": 1 << 20, b"G": 1 << 30, b"T": 1 << 40}
_TIME = re.compile(rb"\s*([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?"
                   rb"\s*(Z|[+-][0-9]{2}:?[0-9]{2})?")
_COUNTS = re.compile(rb"\(([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT]?) cycles"
                     rb"(?:, ([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT]?) instructions"
                     rb"(?:, ([0-9]{1,9}(?:\.[0-9]{1,6})?)c/i)?)?")
_THOUSANDS = {b"": 1, b"K": 10**3, b"M": 10**6, b"G": 10**9, b"T": 10**12}
_PID = re.compile(rb"\s*\[([0-9]{1,10})\]$")
_UNIQUE = re.compile(rb"\s*\[unique pid ([0-9]{1,18})\]$")
_FLAG = re.compile(rb"\s*\((suspended|zombie|translated|exited|terminated|frozen)\)$")


def text(data: bytes, limit: int = TEXT_LIMIT) -> str:
    """`data` as text of at most `limit` characters; bytes that are not UTF-8 become `\\xNN`."""
    return data[: 4 * limit].decode("utf-8", "backslashreplace")[:limit]


def whole(data: bytes) -> int | None:
    """The whole number at the start of `data`."""
    found = _WHOLE.match(data)
    return int(found.group(1)) if found else None


def fraction(data: bytes) -> float | None:
    """The number at the start of `data`; `<0.001s` is 0.001, its upper bound."""
    found = _FRACTION.match(data)
    return float(found.group(1)) if found else None


def size(data: bytes, page_bytes: int = 4096) -> int | None:
    """Bytes of `4668 KB`, `55.62 MB`, `16  B`, `5548 pages`. Apple's units are powers of 1024."""
    found = _SIZE.match(data)
    if found is None:
        return None
    unit = found.group(2)
    factor = page_bytes if unit == b"pages" else _UNITS.get(unit) or _UNITS[unit[:1]]
    return _bounded(float(found.group(1)) * factor)


def counts(data: bytes) -> dict[str, int | float | None]:
    """cycles, instructions and cycles_per_instruction of `(3.2G cycles, 15.4G instructions, 0.21c/i)`; the prefixes are
    powers of 1000. Empty without such a bracket."""
    found = _COUNTS.search(data)
    if found is None:
        return {}
    cycles, instructions = (_bounded(float(found[i]) * _THOUSANDS[found[i + 1]]) if found[i] else None for i in (1, 3))
    return {"cycles": cycles, "instructions": instructions,
            "cycles_per_instruction": float(found[5]) if found[5] else None}


def _bounded(value: float) -> int | None:
    return round(value) if abs(value) < 2**62 else None


def timestamp(data: bytes) -> float | None:
    """Epoch seconds of `2024-03-18 08:12:21 +1100`, with or without a fraction; None without a zone."""
    found = _TIME.match(data)
    if found is None or found.group(8) is None:
        return None
    year, month, day, hour, minute, second = (int(found.group(i)) for i in range(1, 7))
    zone = found.group(8)
    if zone == b"Z":
        tz: timezone = UTC
    else:
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        if offset >= timedelta(hours=24):
            return None
        tz = timezone(-offset if zone[:1] == b"-" else offset)
    # A leap second is written as 60, which datetime refuses.
    try:
        moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=tz).timestamp()
    except (ValueError, OverflowError):
        return None
    fraction_digits = found.group(7)
    return moment + (float(b"0." + fraction_digits) if fraction_digits else 0.0) + (1.0 if second == 60 else 0.0)


class Named(NamedTuple):
    """`Electron (Antigravity) [584] (suspended)` taken apart. `flags` are the words in brackets after the pid."""

    command: str
    display: str | None
    pid: int | None
    unique_pid: int | None
    flags: frozenset[str]


def named(data: bytes) -> Named:
    """A process as spindump names it. A name may hold anything: brackets, spaces, brackets that do not close."""
    rest = data.strip()[:TEXT_LIMIT]
    flags: set[str] = set()
    while found := _FLAG.search(rest):
        flags.add(found.group(1).decode())
        rest = rest[: found.start()]
    unique = pid = None
    if found := _UNIQUE.search(rest):
        unique, rest = int(found.group(1)), rest[: found.start()]
    if found := _PID.search(rest):
        pid, rest = int(found.group(1)), rest[: found.start()]
    command, display = _display(rest.strip())
    return Named(text(command, NAME_LIMIT), text(display, NAME_LIMIT) if display else None, pid, unique,
                 frozenset(flags))


def _display(name: bytes) -> tuple[bytes, bytes | None]:
    """The name and, where it ends with a balanced bracket after a space, the text in that bracket.

    `Core Audio Driver (eqMac.driver (com.example.helper)` exists: the kernel cut the name inside of its bracket.
    """
    if not name.endswith(b")"):
        return name, None
    depth = 0
    for i in range(len(name) - 1, 0, -1):
        char = name[i : i + 1]
        if char == b")":
            depth += 1
        elif char == b"(":
            depth -= 1
            if depth == 0:
                return (name[: i - 1], name[i + 1 : -1]) if name[i - 1 : i] == b" " and i > 1 else (name, None)
    return name, None


_COUNT = re.compile(rb"\*?[0-9]{1,12}\s+")
_TAIL = re.compile(rb"\s*\[0x[0-9a-fA-F]{1,16}\].*$", re.DOTALL)
_OFFSETS = re.compile(rb" \+ [0-9]{1,20}(?=[ )]|$)")


class Stack:
    """The heaviest stack of one thread; add its frames in the order of the report."""

    __slots__ = ("_best", "_best_count", "_keep", "_last", "_last_indent", "_path")

    def __init__(self, keep_frames: bool) -> None:
        self._keep = keep_frames
        self._path: list[tuple[int, bytes]] = []
        self._last: bytes = b""
        self._last_indent = -1
        self._best: list[bytes] = []
        self._best_count = -1

    def add(self, indent: int, frame: bytes) -> None:
        """Add a frame; `frame` is the line without its indentation."""
        if indent <= self._last_indent:
            self._leaf()
            if self._keep:
                path = self._path
                while path and path[-1][0] >= indent:
                    path.pop()
        if self._keep:
            self._path.append((indent, frame))
            if len(self._path) > 4 * MAX_FRAMES:
                del self._path[: 2 * MAX_FRAMES]
        self._last, self._last_indent = frame, indent

    def _leaf(self) -> None:
        """The frame added last was the innermost of its stack."""
        last = self._last
        digits = (last[1:14] if last[:1] == b"*" else last[:13]).split(b" ", 1)[0]
        count = int(digits) if digits.isdigit() else 0
        if count > self._best_count:
            self._best_count = count
            self._best = [f for _, f in self._path[-MAX_FRAMES:]] if self._keep else [last]

    def heaviest(self) -> tuple[list[str], str | None]:
        """The frames, innermost first (empty unless they are kept), and the innermost one."""
        if self._last_indent >= 0:
            self._leaf()
        if not self._best:
            return [], None
        frames = [frame_text(f) for f in reversed(self._best)]
        return (frames if self._keep else []), frames[0]


def frame_text(frame: bytes) -> str:
    """`start (libdyld.dylib)` of a whole frame line: without samples, offsets, address and what follows."""
    frame = _COUNT.sub(b"", frame[:4096].strip(), count=1)
    return text(_OFFSETS.sub(b"", _TAIL.sub(b"", frame)), FRAME_LIMIT)


Fields = dict[str, Any]
Keys = dict[bytes, Callable[[bytes], Fields]]
"""Key of a line -> the fields that its value gives."""

KEY = re.compile(rb"([A-Za-z][A-Za-z0-9/ ._()-]{0,39}):[ \t]*(.*)$")


def plain(data: bytes) -> str | None:
    """The value as text; None for an empty one."""
    return text(data.strip()) or None


def one(name: str, convert: Callable[[bytes], Any]) -> Callable[[bytes], Fields]:
    """A value that is one field."""
    return lambda data: {name: convert(data)}


def named_as(prefix: str) -> Callable[[bytes], Fields]:
    """`NAME [pid]` as two fields."""
    def take(value: bytes) -> Fields:
        who = named(value)
        return {f"{prefix}_pid": who.pid, f"{prefix}_command": who.command or None}

    return take


def keyed(line: bytes, keys: Keys, fields: Fields) -> bool:
    """Add what one line says to `fields`, unless it is known already; False if the line has no key of the table."""
    found = KEY.match(line[:16384].rstrip())
    take = keys.get(found[1]) if found else None
    if found is None or take is None:
        return False
    for name, value in take(found[2]).items():
        if value is not None:
            fields.setdefault(name, value)
    return True


# -- values of JSON ----------------------------------------------------------------------------------------------------

_I64 = 1 << 63


def loads(data: bytes) -> Any:
    """JSON of any kind. Raises ValueError or RecursionError."""
    from rogue_hunter.stream.wire import loads as read

    return read(data)


def text_of(value: object, limit: int = TEXT_LIMIT) -> str | None:
    """A text, cut to `limit` characters; None for anything else or an empty text."""
    return value[:limit] if isinstance(value, str) and value else None


def int_of(value: object) -> int | None:
    """A whole number that fits the database, also one in digits; None for anything else."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    return value if isinstance(value, int) and not isinstance(value, bool) and -_I64 <= value < _I64 else None


def time_of(value: object) -> float | None:
    """Epoch seconds of a time with a zone, in text; None for anything else."""
    return timestamp(value.encode("utf-8", "replace")) if isinstance(value, str) else None


MAX_BINARY = 1 << 24
"""Bytes of base64 that are kept. Real ones have 1 to 5 MB."""
MAX_UNPACKED = 1 << 26
_MAX_ITEMS = 1 << 16
"""Objects, and entries of lists. Real archives have 50."""
_EPOCH_2001 = 978_307_200
"""Cocoa's times count from 2001-01-01."""
_HEADER_TEXTS = {"event": "_event", "reason": "_reason", "hardware": "_hardwareModel"}
_HEADER_NOTES = {"Event note": "_eventNote", "Duration note": "_durationNote", "Action taken": "_actionTaken"}


def binary_header(encoded: bytes | bytearray) -> dict[str, Any]:
    """What the binary form says about the report as a whole, as fields of a spindump_report; empty if it cannot be
    read."""
    try:
        packed = binascii.a2b_base64(encoded[:len(encoded) // 4 * 4])
        archive = _plist(zlib.decompressobj().decompress(packed[8:], MAX_UNPACKED))
        fields = _header_fields(archive["$objects"], archive["$top"]["root"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error,
            struct.error):
        return {}
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _plist(data: bytes) -> Any:
    """A binary property list. Its objects name each other by number, so that a small file could stand for lists of any
    size: what all of them hold together is counted first."""
    width, count, table = struct.unpack(">6xBxQ8xQ", data[-32:])
    items, extent = count, 0
    for at in range(table, table + min(count, _MAX_ITEMS) * width, width or 1):
        place = int.from_bytes(data[at:at + width], "big")
        kind, length = divmod(data[place], 16)
        if length == 15 and kind > 1:
            length = int.from_bytes(data[place + 2:place + 2 + (1 << (data[place + 1] & 3))], "big")
        extent += length
        items += length if kind >= 10 else 0
    if items > _MAX_ITEMS or extent > len(data):
        raise ValueError("it holds more than it has bytes")
    return plistlib.loads(data, fmt=plistlib.FMT_BINARY)


def _header_fields(objects: list[Any], top: plistlib.UID) -> dict[str, Any]:
    def follow(value: Any) -> Any:
        """The object that a reference stands for; `$null` stands for none."""
        value = objects[value.data] if isinstance(value, plistlib.UID) else value
        if isinstance(value, dict) and value.keys() & {"NS.string", "NS.data"}:
            value = value.get("NS.string", value.get("NS.data"))
        return None if value == "$null" else value

    root = {name: follow(value) for name, value in follow(top).items()}

    def get(name: str, kind: type) -> Any:
        return root[name] if type(root.get(name)) is kind else None

    product, version, build = (get(f"_os{part}", str) for part in ("ProductName", "ProductVersion", "BuildVersion"))
    pid, cpus = get("_targetProcessId", int), get("_numActiveCPUs", int)
    interval = get("_attemptedSamplingInterval", float)
    notes = {name: words[:1024] for name, key in _HEADER_NOTES.items() if (words := get(key, str))}
    fields: dict[str, Any] = {name: (get(key, str) or "")[:1024] for name, key in _HEADER_TEXTS.items()} | {
        "os_version": " ".join(filter(None, (product, version, f"(Build {build})" if build else "")))[:1024],
        "pid": pid if pid is not None and 0 <= pid < 2**31 else None,
        "interval_ms": interval * 1000 if interval and 0 < interval < 1e6 else None,
        "cpus": cpus if cpus and 0 < cpus < 2**16 else None, "header": notes or None}
    stamps = get("_sampleTimestamps", bytes)
    if stamps and len(stamps) >= 8:
        tables = follow(root["SerializedDataDictionary"])
        table = follow(dict(zip(map(follow, tables["NS.keys"]), tables["NS.objects"], strict=True))["SATimestamp"])
        places = struct.unpack(f"<{len(stamps) // 8}Q", stamps[:len(stamps) // 8 * 8])
        start, end = _wall_time(table, places[0]), _wall_time(table, places[-1])
        fields |= {"ts": start, "end_ts": end, "steps": len(places),
                   "duration_s": round(end - start, 3) if start and end and end >= start else None}
    return fields


def _wall_time(table: bytes, index: int) -> float | None:
    """The time of one entry, epoch seconds. The table: how many entries, the place of each, the entries; of an entry
    after two bytes three numbers, of which the last is the wall clock."""
    (count,) = struct.unpack_from("<Q", table)
    if not index < count <= len(table) // 8:
        return None
    (place,) = struct.unpack_from("<Q", table, 8 + 8 * index)
    (wall,) = struct.unpack_from("<18xd", table, 8 + 8 * count + place)
    return wall + _EPOCH_2001 if 0 < wall < 1e10 else None
