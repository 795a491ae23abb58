"""Tables of `Key: value` lines and the values of JSON, shared by the parsers of reports and logs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rogue_hunter.capture.spindump.decode import TEXT_LIMIT, named, text, timestamp

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
