"""`log show` and `log stream` in their text styles: default, compact, syslog.

    2019-07-25 10:14:30.123456+0200 0x1a2b  Default  0x0  123  0  kernel: (AppleACPI) [com.example:sub] message
    2019-07-25 10:14:30.123 Df kernel[0:1a2b] (AppleACPI) [com.example:sub] message
    2019-07-25 10:14:30.123456+0200  localhost kernel[0]: (AppleACPI) [com.example:sub] message

A message may have several lines. The compact style prints no zone: the time of its entries is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rogue_hunter.capture.logs import MESSAGE_LIMIT, Errors, message_text, tagged
from rogue_hunter.capture.spindump.decode import NAME_LIMIT, text, timestamp
from rogue_hunter.stream.tick import Record, record

_STAMP = rb"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{1,9})"
_DEFAULT = re.compile(_STAMP + rb"([+-][0-9]{4}) (0x[0-9a-f]{1,16}) {1,32}([A-Z][A-Za-z]{2,31}) {1,32}"
                      rb"0x[0-9a-f]{1,16} {1,32}([0-9]{1,10}) {1,32}[0-9]{1,10} {1,32}([^:\n]{1,256}): ?(.*)$",
                      re.DOTALL)
_COMPACT = re.compile(_STAMP + rb" ([A-Z][a-z ]) {0,8}(.{1,256}?)\[([0-9]{1,10}):([0-9a-f]{1,16})\] ?(.*)$", re.DOTALL)
_SYSLOG = re.compile(_STAMP + rb"([+-][0-9]{4}) {1,8}\S{1,256} ([^\[\n]{1,256})\[([0-9]{1,10})\]: ?(.*)$", re.DOTALL)
_SENDER = re.compile(rb"\(([^()\n]{1,256})\) ?")
_SUBSYSTEM = re.compile(rb"\[([^\[\]:\n]{1,256}):([^\[\]\n]{0,256})\] ?")
_LEVEL = re.compile(rb"<(Notice|Error|Fault|Info|Debug)>:? ?")
_BEGIN = re.compile(_STAMP)
_NO_ENTRY = (b"Timestamp ", b"Filtering the log data", b"Skipping info and debug", b"=====", b"-----", b"Log      - ",
             b"Activity - ")
_SHORT = {b"Df": "default", b"I ": "info", b"In": "info", b"Db": "debug", b"E ": "error", b"Er": "error",
          b"F ": "fault", b"Ft": "fault"}
_NOT_MESSAGES = ("activity", "create", "useraction", "signpost", "trace", "loss", "state", "statedump")


def is_entry(line: bytes) -> bool:
    """True for the first line of an entry in one of the styles, and for the heading above them."""
    return line.startswith((b"Timestamp                ", b"Timestamp\t")) or any(
        style.match(line[:4096]) for style in (_DEFAULT, _COMPACT, _SYSLOG))


def parse(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """The entries, each with all lines of its message."""
    errors = Errors()
    held: dict[str, Any] | None = None
    for number, line in enumerate(lines, 1):
        if _BEGIN.match(line):
            if held is not None:
                yield _made(held, capture)
            held = _entry(line[: 2 * MESSAGE_LIMIT].rstrip(b"\r\n"))
            if held is None:
                yield from errors.add(number, "not an entry of log show")
        elif line.startswith(_NO_ENTRY) or not line.strip():
            continue
        elif held is None:
            yield from errors.add(number, "not an entry of log show")
        elif len(held["message"]) < MESSAGE_LIMIT:
            held["message"] += b"\n" + line[:MESSAGE_LIMIT].rstrip()
    if held is not None:
        yield _made(held, capture)
    yield from errors.rest()


def _entry(line: bytes) -> dict[str, Any] | None:
    if found := _DEFAULT.match(line):
        level = found[4].decode().lower()
        fields: dict[str, Any] = {"ts": found[1] + found[2], "thread_id": found[3].decode(), "pid": found[5],
                                  "command": found[6], "message": found[7]}
        fields["kind" if level in _NOT_MESSAGES else "level"] = level
        return fields
    if found := _COMPACT.match(line):
        fields = {"command": found[3], "pid": found[4], "thread_id": "0x" + found[5].decode(), "message": found[6]}
        if found[2] in _SHORT:
            fields["level"] = _SHORT[found[2]]
        else:
            fields["kind"] = "activity" if found[2][:1] == b"A" else found[2].decode().strip()
        return fields
    if found := _SYSLOG.match(line):
        return {"ts": found[1] + found[2], "command": found[3], "pid": found[4], "message": found[5]}
    return None


def _made(fields: dict[str, Any], capture: str | None) -> Record:
    message: bytes = fields.pop("message")
    if found := _SENDER.match(message):
        fields["sender"], message = text(found[1], NAME_LIMIT), message[found.end():]
    if found := _SUBSYSTEM.match(message):
        fields["subsystem"], fields["category"] = text(found[1], NAME_LIMIT), text(found[2], NAME_LIMIT) or None
        message = message[found.end():]
    if found := _LEVEL.match(message):
        level = found[1].decode().lower()
        fields.setdefault("level", "default" if level == "notice" else level)
        message = message[found.end():]
    stamp = fields.pop("ts", None)
    return tagged(record(
        "log_entry", capture=capture, source="unified", ts=timestamp(stamp) if stamp else None,
        message=message_text(text(message, 2 * MESSAGE_LIMIT)), command=text(fields.pop("command").strip(), NAME_LIMIT),
        pid=int(fields.pop("pid")), **fields))
