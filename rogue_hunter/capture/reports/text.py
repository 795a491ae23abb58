"""Reports of a crash in the text form of before macOS 12, and ResetCounter reports: tables of keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rogue_hunter.capture.reports.keys import Keys, keyed, named_as, one, plain
from rogue_hunter.capture.spindump.decode import NAME_LIMIT, named, text, timestamp, whole
from rogue_hunter.stream.tick import Record, record

MAX_FRAMES = 40

_CRASHED = re.compile(rb"Thread ([0-9]{1,9}) Crashed:+ *(.*)$")
_FRAME = re.compile(rb"[0-9]{1,9}\s{1,8}(\S(?:.{0,256}?\S)?)\s+0x[0-9a-fA-F]{1,16} (.{1,1024})$")
_OFFSET = re.compile(rb" \+ [0-9]{1,20}(?: \(.*\))?$")


def _process(value: bytes) -> dict[str, Any]:
    who = named(value)
    return {"command": who.command or None, "pid": who.pid}


def _exception(value: bytes) -> dict[str, Any]:
    kind, _, signal = value.rstrip(b" )").partition(b" (")
    return {"exception": plain(kind), "signal": plain(signal)}


def faults(value: str) -> list[str]:
    """`btn_rst,finger_reset force_off` as words."""
    return [word[:64] for word in re.split(r"[,\s]+", value[:1024]) if word][:32]


CRASH: Keys = {
    b"Process": _process, b"Path": one("path", plain), b"Identifier": one("identifier", plain),
    b"Version": one("version", plain), b"Parent Process": named_as("parent"), b"Responsible": named_as("responsible"),
    b"User ID": one("uid", whole), b"Date/Time": one("ts", timestamp), b"Launch Time": one("start_ts", timestamp),
    b"OS Version": one("os_version", plain), b"Hardware Model": one("hardware", plain),
    b"Model": one("hardware", plain), b"Crashed Thread": one("thread", whole), b"Exception Type": _exception,
    b"Termination Reason": one("termination", plain), b"Termination Signal": one("termination", plain),
}
RESET: Keys = {
    b"Date": one("ts", timestamp), b"Date/Time": one("ts", timestamp), b"Reset count": one("reset_count", whole),
    b"Boot faults": one("boot_faults", lambda value: faults(text(value))), b"OS Version": one("os_version", plain),
    b"Hardware Model": one("hardware", plain),
}


def crash(lines: Iterable[bytes], capture: str | None = None, known: dict[str, Any] | None = None) -> Iterator[Record]:
    """The crash_report of a crash in text form: its keys, and the stack of the thread that crashed."""
    fields: dict[str, Any] = dict(known or {})
    frames: list[str] = []
    inside = images = False
    line = b"\n"
    for line in lines:
        bare = line[:16384].rstrip()
        if found := _CRASHED.match(bare):
            inside = True
            fields.setdefault("thread", int(found[1]))
            name = text(found[2].removeprefix(b"Dispatch queue: "), NAME_LIMIT)
            fields["thread_name"] = name or None
        elif inside and (found := _FRAME.match(bare)):
            if len(frames) < MAX_FRAMES:
                frames.append(text(_OFFSET.sub(b"", found[2]) + b" (" + found[1] + b")", 160))
        elif inside:
            inside = False
        else:
            keyed(bare, CRASH, fields)
            images = images or bare == b"Binary Images:"
    yield record("crash_report", capture=capture, **fields, frames=frames or None)
    if not images and not line.endswith(b"\n"):
        yield record("error", stage="forensics", message="a crash report that was cut off")


def reset(lines: Iterable[bytes], capture: str | None = None, known: dict[str, Any] | None = None) -> Iterator[Record]:
    """The reset_report of a ResetCounter file."""
    fields: dict[str, Any] = {}
    for line in lines:
        keyed(line, RESET, fields)
    yield reset_record(capture, **{"boot_faults": [], **(known or {}), **fields})


def reset_record(capture: str | None, boot_faults: list[str], **fields: Any) -> Record:
    """The record of these boot faults: whether the power button or a watchdog was the reason follows from them."""
    return record("reset_report", capture=capture, boot_faults=boot_faults, **fields,
                  forced=any(word.startswith(("btn_", "force_off", "finger_reset")) for word in boot_faults) or None,
                  watchdog=any("wdog" in word for word in boot_faults) or None)
