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

from rogue_hunter.capture.reports.keys import int_of, loads, text_of, time_of
from rogue_hunter.capture.spindump.decode import NAME_LIMIT
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
