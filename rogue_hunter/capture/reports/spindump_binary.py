"""The header of a spindump in binary form: base64 of 8 bytes and a compressed NSKeyedArchiver property list.

The tables of processes, threads and waits change with each version of macOS and are not read.
"""

from __future__ import annotations

import binascii
import plistlib
import struct
import zlib
from typing import Any

MAX_BINARY = 1 << 24
"""Bytes of base64 that are kept. Real ones have 1 to 5 MB."""
MAX_UNPACKED = 1 << 26
_MAX_ITEMS = 1 << 16
"""Objects, and entries of lists. Real archives have 50."""
_EPOCH_2001 = 978_307_200
"""Cocoa's times count from 2001-01-01."""
_TEXTS = {"event": "_event", "reason": "_reason", "hardware": "_hardwareModel"}
_NOTES = {"Event note": "_eventNote", "Duration note": "_durationNote", "Action taken": "_actionTaken"}


def binary_header(encoded: bytes | bytearray) -> dict[str, Any]:
    """What the binary form says about the report as a whole, as fields of a spindump_report; empty if it cannot be
    read."""
    try:
        packed = binascii.a2b_base64(encoded[:len(encoded) // 4 * 4])
        archive = _plist(zlib.decompressobj().decompress(packed[8:], MAX_UNPACKED))
        fields = _fields(archive["$objects"], archive["$top"]["root"])
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


def _fields(objects: list[Any], top: plistlib.UID) -> dict[str, Any]:
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
    notes = {name: words[:1024] for name, key in _NOTES.items() if (words := get(key, str))}
    fields: dict[str, Any] = {name: (get(key, str) or "")[:1024] for name, key in _TEXTS.items()} | {
        "os_version": " ".join(filter(None, (product, version, f"(Build {build})" if build else "")))[:1024],
        "pid": pid if pid is not None and 0 <= pid < 2**31 else None,
        "interval_ms": interval * 1000 if interval and 0 < interval < 1e6 else None,
        "cpus": cpus if cpus and 0 < cpus < 2**16 else None, "header": notes or None}
    stamps = get("_sampleTimestamps", bytes)
    if stamps and len(stamps) >= 8:
        tables = follow(root["SerializedDataDictionary"])
        table = follow(dict(zip(map(follow, tables["NS.keys"]), tables["NS.objects"], strict=True))["SATimestamp"])
        places = struct.unpack(f"<{len(stamps) // 8}Q", stamps[:len(stamps) // 8 * 8])
        start, end = _wall(table, places[0]), _wall(table, places[-1])
        fields |= {"ts": start, "end_ts": end, "steps": len(places),
                   "duration_s": round(end - start, 3) if start and end and end >= start else None}
    return fields


def _wall(table: bytes, index: int) -> float | None:
    """The time of one entry, epoch seconds. The table: how many entries, the place of each, the entries; of an entry
    after two bytes three numbers, of which the last is the wall clock."""
    (count,) = struct.unpack_from("<Q", table)
    if not index < count <= len(table) // 8:
        return None
    (place,) = struct.unpack_from("<Q", table, 8 + 8 * index)
    (wall,) = struct.unpack_from("<18xd", table, 8 + 8 * count + place)
    return wall + _EPOCH_2001 if 0 < wall < 1e10 else None
