"""Format numbers, durations and sizes for people, and escape control characters in names of processes."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence

# C0 controls, DEL, C1 controls, line and paragraph separators, bidirectional marks and isolates, zero-width and
# other format characters, surrogates: each can move the cursor, hide text or reverse its order on a terminal.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U00013430-\U0001345f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """`text` with control and formatting characters of a terminal replaced by visible escapes."""
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code in (9, 10, 13):
        return {9: r"\t", 10: r"\n", 13: r"\r"}[code]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_json(data: bytes) -> bytes:
    """JSON in which the same characters are escapes of JSON, for a terminal: it means the same."""
    return data if data.isascii() and b"\x7f" not in data else _UNSAFE.sub(_json_escape, data.decode()).encode()


def _json_escape(found: re.Match[str]) -> str:
    if found.group() < " ":     # JSON has no others than between its values
        return found.group()
    pair = found.group().encode("utf-16-be").hex()
    return "".join(f"\\u{pair[at:at + 4]}" for at in range(0, len(pair), 4))


def clip(text: str, width: int) -> str:
    """`visible(text)` cut to `width` columns, with an ellipsis if something was cut."""
    text = visible(text)
    used = fits = 0
    for i, char in enumerate(text):
        used += columns(char)
        if used > width:
            return text[:fits] + "…" if width > 0 else ""
        if used < width:
            fits = i + 1
    return text


def cut(text: str, length: int) -> str:
    """The first characters of a text that is longer, with an ellipsis as the last; control characters stay."""
    return text if len(text) <= length else f"{text[:length - 1]}…"


def path_text(path: str | os.PathLike[str]) -> str:
    """A path as text for a record: bytes that are not UTF-8, and half a pair, become escapes."""
    whole = _HALF.sub(lambda found: f"\\u{ord(found[0]):04x}", os.fspath(path))
    return whole.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def path_of(text: str) -> str:
    """The path that `path_text` made a text of; a text that is a path as it is stays so."""
    if os.path.lexists(text):
        return text
    return _BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode()).decode("utf-8", "surrogateescape")


_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


def columns(text: str) -> int:
    """Terminal columns of `text`."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def csv_cell(value: object) -> str:
    """A cell of CSV that a spreadsheet does not read as a formula, with control characters escaped for a terminal."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)
    return "'" * (value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")) + visible(value)


def duration(seconds: float | None) -> str:
    """Seconds as `1h 02m`, `2m 03s`, `4.5s`; the two largest units."""
    if seconds is None:
        return ""
    sign, s = ("-", -seconds) if seconds < 0 else ("", seconds)
    if s < 9.95:
        return f"{sign}{s:.1f}s"
    whole = round(s)
    if whole < 60:
        return f"{sign}{whole}s"
    if whole < 3600:
        return f"{sign}{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{sign}{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{sign}{whole // 86400}d {whole % 86400 // 3600:02d}h"


def size(count: float | None) -> str:
    """Bytes as `1.5 GiB`: binary units, three digits."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        # A number that would need four digits is written in the next unit: 1000 KiB is 1.0 MiB.
        if abs(value) < 999.5 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 99.95 else f"{value:.1f} {unit}"


def sparkline(values: Iterable[float | None], top: float | None = None) -> str:
    """One character for each value, from empty to full block; a space for an unknown value."""
    blocks = " ▁▂▃▄▅▆▇█"
    known: Sequence[float | None] = list(values)
    high = top or max((v for v in known if v is not None), default=0.0) or 1.0
    return "".join(" " if v is None else blocks[max(0, min(8, round(8 * v / high)))] for v in known)
