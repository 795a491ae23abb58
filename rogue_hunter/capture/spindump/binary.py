"""The header of a spindump in binary form: base64 of 8 bytes and a compressed NSKeyedArchiver property list.

The tables of processes, threads and waits change with each version of macOS and are not read. A property list of
Apple's binary format is an array of objects that name each other by number; only the objects that are asked for are
decoded here, so that a hostile file costs no more than its size.
"""

from __future__ import annotations

import binascii
import struct
import zlib
from typing import Any, NamedTuple

MAX_TEXT = 1 << 24
"""Bytes of base64 that are kept. Real ones have 1 to 5 MB."""
MAX_UNPACKED = 1 << 26
_MAX_ITEMS = 4096
_EPOCH_2001 = 978_307_200
"""Cocoa's times count from 2001-01-01."""
_TEXTS = {"event": "_event", "reason": "_reason", "hardware": "_hardwareModel"}
_NOTES = {"Event note": "_eventNote", "Duration note": "_durationNote", "Action taken": "_actionTaken"}


class _Uid(NamedTuple):
    """The number of an object of the archive."""

    number: int


class _Plist:
    """A binary property list, read on demand. Raises ValueError, IndexError or struct.error if it is damaged."""

    def __init__(self, data: bytes) -> None:
        if not data.startswith(b"bplist00"):
            raise ValueError("not a property list")
        self.data = data
        self.offset_bytes, self.ref_bytes, self.count, self.top, self.table = struct.unpack(">6xBBQQQ", data[-32:])

    def _number(self, at: int, length: int) -> int:
        if not 0 < length <= 8 or not 0 <= at <= len(self.data) - length:
            raise ValueError("cut short")
        return int.from_bytes(self.data[at:at + length], "big")

    def _refs(self, at: int, count: int) -> list[int]:
        return [self._number(at + i * self.ref_bytes, self.ref_bytes) for i in range(min(count, _MAX_ITEMS))]

    def read(self, index: int) -> Any:
        """The object of a number: an int, float, bool, str, bytes, _Uid, a list of numbers, or a dict from text to
        number; None for any other."""
        if not 0 <= index < self.count:
            raise ValueError("no such object")
        at = self._number(self.table + index * self.offset_bytes, self.offset_bytes)
        kind, count = divmod(self.data[at], 16)
        at += 1
        if kind in (4, 5, 6, 10, 13) and count == 15:
            length = 1 << (self.data[at] & 3)
            count, at = self._number(at + 1, length), at + 1 + length
        if kind == 0:
            return count == 9
        if kind == 1:
            return self._number(at + max(0, (1 << count) - 8), min(8, 1 << count))
        if kind == 2:
            return struct.unpack_from(">f" if count == 2 else ">d", self.data, at)[0]
        if kind == 4:
            return self.data[at:at + count]
        if kind in (5, 6):
            size = min(count, 8192)
            return self.data[at:at + size].decode("ascii", "replace") if kind == 5 else \
                self.data[at:at + 2 * size].decode("utf-16-be", "replace")
        if kind == 8:
            return _Uid(self._number(at, count + 1))
        if kind == 10:
            return self._refs(at, count)
        if kind == 13:
            names = [self.read(ref) for ref in self._refs(at, count)]
            values = self._refs(at + count * self.ref_bytes, count)
            return {name: ref for name, ref in zip(names, values, strict=True) if isinstance(name, str)}
        return None


class _Archive:
    """The objects of an NSKeyedArchiver, by name."""

    def __init__(self, data: bytes) -> None:
        self.plist = _Plist(data)
        top = self.plist.read(self.plist.top)
        self.objects: list[int] = self.plist.read(top["$objects"])
        self.root: dict[str, int] = self.follow(self.plist.read(top["$top"])["root"])

    def follow(self, ref: int) -> Any:
        """The object of a reference; `$null`, which stands for none, as None."""
        value = self.plist.read(ref)
        if isinstance(value, _Uid):
            value = self.plist.read(self.objects[value.number])
        if isinstance(value, dict):
            for key in ("NS.string", "NS.data"):
                if key in value:
                    return self.plist.read(value[key])
        return None if value == "$null" else value

    def get(self, name: str, kind: type) -> Any:
        """What the root has under a name, if it is of this type."""
        value = self.follow(self.root[name]) if name in self.root else None
        return value if type(value) is kind else None

    def table(self, name: str) -> bytes:
        """The table of a class: how many entries, the place of each, and the entries."""
        tables = self.follow(self.root["SerializedDataDictionary"])
        pairs = zip(self.plist.read(tables["NS.keys"]), self.plist.read(tables["NS.objects"]), strict=True)
        return next(bytes(self.follow(value)) for key, value in pairs if self.follow(key) == name)


def header(encoded: bytes | bytearray) -> dict[str, Any]:
    """What the binary form says about the report as a whole, as fields of a spindump_report; empty if it cannot be
    read."""
    try:
        packed = binascii.a2b_base64(encoded[:len(encoded) // 4 * 4])
        archive = _Archive(zlib.decompressobj().decompress(packed[8:], MAX_UNPACKED))
        return {name: value for name, value in _fields(archive).items() if value not in (None, "")}
    except (ValueError, KeyError, IndexError, TypeError, RecursionError, StopIteration, zlib.error, struct.error):
        return {}


def _fields(archive: _Archive) -> dict[str, Any]:
    product, version, build = (archive.get(f"_os{part}", str) for part in (
        "ProductName", "ProductVersion", "BuildVersion"))
    pid, interval = archive.get("_targetProcessId", int), archive.get("_attemptedSamplingInterval", float)
    cpus = archive.get("_numActiveCPUs", int)
    fields: dict[str, Any] = {name: (archive.get(key, str) or "")[:1024] for name, key in _TEXTS.items()}
    notes = {name: words[:1024] for name, key in _NOTES.items() if (words := archive.get(key, str))}
    fields |= {
        "os_version": " ".join(filter(None, (product, version, f"(Build {build})" if build else "")))[:1024],
        "pid": pid if pid is not None and 0 <= pid < 2**31 else None,
        "interval_ms": interval * 1000 if interval and 0 < interval < 1e6 else None,
        "cpus": cpus if cpus and cpus < 2**16 else None, "header": notes or None}
    stamps = archive.get("_sampleTimestamps", bytes)
    if stamps and len(stamps) >= 8:
        table = archive.table("SATimestamp")
        first, last = stamps[:8], stamps[len(stamps) // 8 * 8 - 8:]
        start, end = (_wall(table, int.from_bytes(at[:8], "little")) for at in (first, last))
        fields |= {"ts": start, "end_ts": end, "steps": len(stamps) // 8,
                   "duration_s": round(end - start, 3) if start and end and end >= start else None}
    return fields


def _wall(table: bytes, index: int) -> float | None:
    """The time of one entry, epoch seconds: after two bytes three numbers, of which the last is the wall clock."""
    (count,) = struct.unpack_from("<Q", table)
    if not 0 <= index < count <= len(table) // 8:
        return None
    (place,) = struct.unpack_from("<Q", table, 8 + 8 * index)
    (wall,) = struct.unpack_from("<18xd", table, 8 + 8 * count + place)
    return wall + _EPOCH_2001 if 0 < wall < 1e10 else None
