"""Logs as records: the unified log of macOS, the journal of systemd, the ring buffer of the Linux kernel.

Each parser takes lines of bytes and yields `log_entry` records; any other line becomes an `error` record with its line
number. `log show --style ndjson` ends with `{"count":N,"finished":1}`; `log stream` begins with a line that is not JSON
(`Filtering the log data using ...`). Keys may be missing, and entries other than log events (activities,
signposts) have no messageType. Messages hold what programs wrote into them: secrets are masked as in command lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rogue_hunter.capture.reports.decode import NAME_LIMIT, int_of, loads, text, text_of, time_of, timestamp
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.redact import redact

MESSAGE_LIMIT = 4096
MAX_ERRORS = 20
"""Error records of one log; the rest is counted. In a file of another format every line is an error."""

PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""The names of syslog(3) for the priorities 0 to 7."""

_KMSG = re.compile(rb"([0-9]{1,9}),([0-9]{1,18}),([0-9]{1,18}),[^;]{0,64};(.*)$", re.DOTALL)


def message_text(value: object) -> str | None:
    """A message with its secrets masked, cut to MESSAGE_LIMIT characters; None for anything but text."""
    return redact([value[: 2 * MESSAGE_LIMIT]])[:MESSAGE_LIMIT] if isinstance(value, str) else None


KERNEL_FACTS = ("limit_hit", "jetsam_kill")
"""Kinds of entries by which the kernel of macOS reports a process over a limit, and one that it killed for memory."""
_KERNEL_FACTS = tuple((kind, re.compile(pattern)) for kind, pattern in (
    ("limit_hit", r"process (?P<name>.{0,256}?)\[(?P<pid>[0-9]{1,10})\] (?:thread [0-9]{1,20} )?caught "
                  r"(?:waking the CPU|burning CPU|causing excessive)"),
    ("jetsam_kill", r"memorystatus: killing.{0,64}? pid (?P<pid>[0-9]{1,10}) \[(?P<name>[^\]]{0,256})\]"),
    ("jetsam_kill", r"memorystatus: killing.{0,64}? process (?P<pid>[0-9]{1,10}) \[(?P<name>[^\]]{0,256})\]"),
    ("jetsam_kill", r"memorystatus: killing.{0,64}? process (?P<name>.{1,256}?) \[(?P<pid>[0-9]{1,10})\]")))
"""What the kernel logs about a process over one of its limits, and about one that it kills for memory (xnu: task.c,
thread.c, kern_memorystatus.c)."""


def tagged(entry: Record) -> Record:
    """The entry; one in which the kernel reports a limit or a kill also has its kind and the process concerned. Only
    the kernel's own entries count: any program can log such words."""
    message = entry.get("message")
    if message and (entry.get("pid") == 0 or "pid" not in entry) and entry.get("command") in ("kernel", "kernel_task"):
        for kind, pattern in _KERNEL_FACTS:
            if found := pattern.search(message):
                entry["kind"], entry["about_pid"] = kind, int(found["pid"])
                if found["name"].strip():
                    entry["about_command"] = found["name"].strip()
                break
    return entry


class Errors:
    """The first MAX_ERRORS error records; `rest` reports how many more there were."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, line: int, message: str) -> Iterator[Record]:
        self.count += 1
        if self.count <= MAX_ERRORS:
            yield record("error", stage="forensics", line=line, message=message)

    def rest(self) -> Iterator[Record]:
        if self.count > MAX_ERRORS:
            yield record("error", stage="forensics",
                         message=f"{self.count - MAX_ERRORS} more lines are not log entries")


def unified(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """Entries of `log show --style ndjson`, `--style json` or `log stream --style ndjson`."""
    errors = Errors()
    entries = 0
    finished: int | None = None
    for number, data in _objects(lines):
        if data.startswith(b"Filtering the log data using"):
            continue
        try:
            value = loads(data)
        except (ValueError, RecursionError):
            yield from errors.add(number, "not JSON: not a log entry, or one that is cut off")
            continue
        if not isinstance(value, dict):
            yield from errors.add(number, "not a log entry")
        elif "finished" in value and "eventMessage" not in value:
            finished = int_of(value.get("count"))
        elif "timestamp" not in value and "eventMessage" not in value and "processID" not in value:
            yield from errors.add(number, "JSON, but not a log entry")
        else:
            entries += 1
            yield tagged(_unified_entry(value, capture))
    yield from errors.rest()
    if finished is not None and finished != entries + errors.count:
        yield record("error", stage="forensics",
                     message=f"the log reports {finished} entries, {entries} could be read")


def _objects(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """JSON texts with the number of their first line: one a line, or over several lines as with `--style json`.

    That style prints one array: `[{` or `},{` begins an entry, `}` at the left margin ends one.
    """
    held: list[bytes] = []
    first, size = 0, 0
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        if not bare:
            continue
        if held:
            if line.startswith(b"}"):
                yield first, b"{" + b"".join(held[1:]) + b"}"
                held, size = ([b"{"], 1) if bare.endswith(b"{") else ([], 0)
                first = number
            else:
                held.append(line)
                size += len(line)
                if size > 1 << 20:
                    yield first, b"".join(held)
                    held, size = [], 0
        elif bare in (b"[{", b"{", b"},{"):
            held, first, size = [b"{"], number, 1
        elif bare not in (b"[", b"]", b"[]"):
            yield number, bare
    if held:
        yield first, b"".join(held)


def _unified_entry(value: dict[str, Any], capture: str | None) -> Record:
    path = text_of(value.get("processImagePath"))
    level, kind = text_of(value.get("messageType"), 32), text_of(value.get("eventType"), 64)
    thread = int_of(value.get("threadID"))
    sender = text_of(value.get("senderImagePath"))
    return record(
        "log_entry", capture=capture, ts=time_of(value.get("timestamp")), source="unified",
        level=level.lower() if level else None,
        kind=None if kind in ("logEvent", None) else str(kind).removesuffix("Event"),
        pid=int_of(value.get("processID")), thread_id=None if thread is None else hex(thread),
        uid=int_of(value.get("userID")), command=path.rsplit("/", 1)[-1][:NAME_LIMIT] if path else None, path=path,
        sender=sender.rsplit("/", 1)[-1] if sender else None, subsystem=text_of(value.get("subsystem"), NAME_LIMIT),
        category=text_of(value.get("category"), NAME_LIMIT), mach_ticks=int_of(value.get("machTimestamp")),
        message=message_text(value.get("eventMessage")),
    )


def journal(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """Entries of `journalctl -o json`. A message that is not UTF-8 is an array of numbers."""
    errors = Errors()
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        if not bare or bare.startswith(b"-- "):
            continue
        try:
            value = loads(bare)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not any(k in value for k in ("__REALTIME_TIMESTAMP", "MESSAGE", "__CURSOR")):
            yield from errors.add(number, "not a journal entry")
            continue
        yield _journal_entry(value, capture)
    yield from errors.rest()


def _journal_entry(value: dict[str, Any], capture: str | None) -> Record:
    micros = int_of(value.get("__REALTIME_TIMESTAMP")) or int_of(value.get("_SOURCE_REALTIME_TIMESTAMP"))
    priority = int_of(value.get("PRIORITY"))
    message = value.get("MESSAGE")
    if isinstance(message, list):
        numbers = [b for b in message[: 4 * MESSAGE_LIMIT] if isinstance(b, int) and 0 <= b < 256]
        message = bytes(numbers).decode("utf-8", "backslashreplace")
    kernel = value.get("_TRANSPORT") == "kernel"
    return record(
        "log_entry", capture=capture, ts=None if micros is None else micros / 1e6,
        source="kernel" if kernel else "journal",
        level=PRIORITIES[priority] if priority is not None and 0 <= priority < 8 else None,
        pid=int_of(value.get("_PID")), uid=int_of(value.get("_UID")), command=text_of(value.get("_COMM"), NAME_LIMIT),
        path=text_of(value.get("_EXE")), sender=text_of(value.get("_SYSTEMD_UNIT") or value.get("SYSLOG_IDENTIFIER")),
        message=message_text(message),
    )


def kernel(lines: Iterable[bytes], boot_ts: float | None, capture: str | None = None) -> Iterator[Record]:
    """Entries of /dev/kmsg, one record of the device a line: `priority,sequence,microseconds,flags;message`.

    `boot_ts` is the epoch second at which the kernel's clock was 0. Lines that begin with a space have key=value
    pairs of the entry before and are skipped.
    """
    errors = Errors()
    for number, line in enumerate(lines, 1):
        if line.startswith(b" ") or not line.strip():
            continue
        found = _KMSG.match(line.rstrip(b"\n")[: 2 * MESSAGE_LIMIT])
        if found is None:
            yield from errors.add(number, "not an entry of the kernel log")
            continue
        facility, level = divmod(int(found.group(1)), 8)
        seconds = int(found.group(3)) / 1e6
        yield record(
            "log_entry", capture=capture, ts=None if boot_ts is None else round(boot_ts + seconds, 6),
            source="kernel", level=PRIORITIES[level], sender=None if facility == 0 else f"facility {facility}",
            message=message_text(_unescape(found.group(4))),
        )
    yield from errors.rest()


_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def _unescape(data: bytes) -> str:
    """The kernel writes bytes outside of printable ASCII as `\\xNN`."""
    return _ESCAPED.sub(lambda m: bytes([int(m.group(1), 16)]), data).decode("utf-8", "backslashreplace")


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
