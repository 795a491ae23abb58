"""The chain of an audit file: every line ends with the SHA-256 of itself and of the line before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

START = "0" * 64
"""The link before the first line."""

TAIL = b',"hash":"'
_LINK = len(TAIL) + 64 + 2
"""Bytes at the end of a line that hold its link: `,"hash":"...64..."}`."""


class Damage(NamedTuple):
    """Where the chain does not hold: file, line number from 1, what is wrong."""

    file: str
    line: int
    text: str


class Verdict(NamedTuple):
    """What a check of the chain found: lines that were read, and damages (none when all is well)."""

    lines: int
    damages: tuple[Damage, ...]


def numbered(path: Path, number: int) -> Path:
    """The name of a file that was rotated away."""
    return Path(f"{path}.{number}")


def link_of(link: str, body: bytes) -> str:
    """The link of a line that follows `link`: SHA-256 over both."""
    # A damaged line may hold a link that is no text; it is then the link of nothing.
    return sha256(link.encode("utf-8", "surrogatepass") + b"\n" + body)


def sha256(data: bytes) -> str:
    """The SHA-256 in hexadecimal digits."""
    import hashlib  # it brings OpenSSL, 3.4 MB of memory: a pipe that ends nothing does without

    return hashlib.sha256(data).hexdigest()


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, None when it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def own_link(line: bytes) -> str | None:
    """The link at the end of a line, None when there is none."""
    if len(line) <= _LINK or line[-_LINK:-_LINK + len(TAIL)] != TAIL or not line.endswith(b'"}'):
        return None
    return line[-66:-2].decode("utf-8", "replace")


def verify(path: Path) -> Verdict:
    """Check the chain over `path` and what was rotated away from it."""
    files = [path]
    while numbered(path, len(files)).exists():
        files.append(numbered(path, len(files)))
    damages: list[Damage] = []
    lines, seq, link = 0, 0, ""
    for file in reversed(files):
        if not file.exists():
            continue
        data = file.read_bytes()
        if data and not data.endswith(b"\n"):
            damages.append(Damage(str(file), data.count(b"\n") + 1, "the last line does not end"))
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            lines += 1
            first = lines == 1 and len(files) == 1
            wrong, seq, link = _check(line, seq, link)
            if first and seq != 1 and not wrong:
                wrong = f"begins at number {seq}; what was before it is gone"
            if wrong:
                damages.append(Damage(str(file), number, wrong))
    damages += _check_head(path, seq, link)
    return Verdict(lines, tuple(damages))


def _check(line: bytes, seq: int, link: str) -> tuple[str, int, str]:
    """What is wrong with a line after (seq, link), and number and link after it."""
    entry, own = entry_of(line), own_link(line)
    if entry is None or own is None or type(entry.get("seq")) is not int or type(entry.get("prev")) is not str:
        return "not a line of the audit file", seq + 1, link
    wrong = ""
    if not link:  # the oldest file that is left: what it follows is gone, or it is the first of all
        if entry["seq"] == 1 and entry["prev"] != START:
            wrong = "the first line follows nothing"
    elif entry["prev"] != link:
        wrong = "does not follow the line before it"
    elif entry["seq"] != seq + 1:
        wrong = f"number {entry['seq']} after {seq}"
    if link_of(entry["prev"], line[:-_LINK] + b"}") != own:
        wrong = "was changed after it was written"
    return wrong, entry["seq"], own


def _check_head(path: Path, seq: int, link: str) -> list[Damage]:
    try:
        number, raw = Path(f"{path}.head").read_bytes().split()
        last, head = int(number), raw.decode("utf-8", "replace")
    except (OSError, ValueError):
        return []
    if last > seq:
        return [Damage(str(path), 0, f"ends at number {seq}, but number {last} was written")]
    return [Damage(str(path), 0, "does not end with the line that was written last")] if last == seq and head != link \
        else []
