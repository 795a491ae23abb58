"""What the tests of forensics share: fixtures, the samples, a check of records against their declarations."""

from __future__ import annotations

import base64
import io
import plistlib
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.capture.reports.detect import parse_file
from rogue_hunter.schema.field import VERSION, Field
from rogue_hunter.schema.sampling import ERROR
from rogue_hunter.stream.wire import dumps

REPO = Path(__file__).resolve().parents[2]
FIXTURES = REPO / "tests" / "fixtures" / "forensics"
SAMPLES = REPO.parent / "shared" / "samples"

Record = dict[str, Any]


def declared() -> dict[str, tuple[Field, ...]]:
    """Every record that forensics may give out."""
    from rogue_hunter.schema import capture

    return {**capture.RECORDS, "error": ERROR}


def check(records: Iterable[Record], **more: tuple[Field, ...]) -> list[Record]:
    """The records, each with only declared fields of the declared type and choice, and fit for the wire. `more` are
    declarations of other rooms."""
    kinds = {**declared(), **more}
    held = list(records)
    for each in held:
        fields = {f.name: f for f in kinds[each["type"]]}
        assert each["v"] == VERSION
        for name, value in each.items():
            if name in ("type", "v"):
                continue
            assert name in fields, f"{each['type']}.{name} is not declared"
            field = fields[name]
            allowed = (float, int) if field.type is float else (field.type,)
            assert type(value) in allowed, f"{each['type']}.{name} is {value!r}"
            assert not field.choices or value in field.choices, f"{each['type']}.{name} is {value!r}"
            assert type(value) is not int or -(2**63) <= value < 2**63
        for field in fields.values():
            assert not field.required or field.name in each, f"{each['type']} without {field.name}"
        dumps(each)
    return held


def parsed(data: bytes) -> list[Record]:
    """Records of a report or a log, checked."""
    return check(parse_file(io.BytesIO(data)))


def of(records: Iterable[Record], kind: str) -> list[Record]:
    """The records of one type."""
    return [each for each in records if each["type"] == kind]


def fixture(name: str) -> bytes:
    """The bytes of a fixture."""
    return (FIXTURES / name).read_bytes()


def binary_report(start: float = 1893618360.0, **values: object) -> bytes:
    """A spindump of 10 s in binary form only, written by plistlib; `values` replace or add what its root has."""
    stamps = b"".join(struct.pack("<Hddd", 0x101, 0.0, 0.0, start + i - 978307200) for i in (0, 10))
    table = struct.pack("<QQQ", 2, 0, len(stamps) // 2) + stamps
    objects: list[object] = ["$null"]

    def put(value: object) -> plistlib.UID:
        objects.append(value)
        return plistlib.UID(len(objects) - 1)

    root: dict[str, object] = {}
    objects.append(root)
    root |= {
        "_event": put("shutdown stall"), "_reason": plistlib.UID(0), "_hardwareModel": put("MacTest1,1"),
        "_osProductName": put("macOS"), "_osProductVersion": put("99.1"), "_osBuildVersion": put("99A1"),
        "_durationNote": put({"NS.string": "sampling started after 2 seconds"}), "_numActiveCPUs": 8,
        "_attemptedSamplingInterval": 0.01, "_targetProcessId": -1,
        "_sampleTimestamps": put(struct.pack("<QQ", 0, 1)),
        "SerializedDataDictionary": put({"NS.keys": [put("SATimestamp")], "NS.objects": [put(table)]}), **values}
    archive = {"$version": 100000, "$archiver": "NSKeyedArchiver", "$top": {"root": plistlib.UID(1)}, "$objects": objects}
    packed = bytes(8) + zlib.compress(plistlib.dumps(archive, fmt=plistlib.FMT_BINARY))
    return (b"Use spindump -i to generate textual report\n\nSpindump binary format\n" + base64.encodebytes(packed)).rstrip()


def samples(pattern: str) -> list[Any]:
    """Parameters for the real files, or one that skips where they are missing."""
    found = sorted(SAMPLES.glob(pattern)) if SAMPLES.is_dir() else []
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason="the folder of real samples is not here"))]
    return [pytest.param(path, id=path.name) for path in found]
