"""The capturer of this platform, and the keys of captures."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from rogue_hunter.capture.request import Capturer, Request, Target
from rogue_hunter.config.options import Forensics
from rogue_hunter.host.platform import here
from rogue_hunter.stream.tick import Record


def new_capture_key(ts: float) -> str:
    """A unique key that sorts by time: `20250803T045458Z-1f2e3d4c`."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, ts))) + "-" + os.urandom(4).hex()


def capturer(settings: Forensics | None = None) -> Capturer:
    """The function that makes captures on this platform."""
    mine = settings or Forensics()
    if sys.platform == "darwin":
        from rogue_hunter.capture.macos import capture_macos

        return lambda request, cancel: capture_macos(request, cancel, settings=mine)
    from rogue_hunter.capture.linux.capture import capture_linux

    return lambda request, cancel: capture_linux(request, cancel, settings=mine)


def capture_now(pids: Sequence[int], settings: Forensics) -> tuple[list[Record], list[int]]:
    """The records of a capture of these processes, the first one as culprit, and the pids that do not exist.

    Without pids the capturer chooses processes itself; if none of the pids exists, there are no records.
    """
    host = here()
    try:
        boot_id, rows = host.facts().boot_id, host.snapshot().processes
    finally:
        host.close()
    known = {key[0]: Target(key, str(row.get("command") or "")) for key, row in rows.items()}
    found = [known[pid] for pid in dict.fromkeys(pids) if pid in known]
    missing = [pid for pid in pids if pid not in known]
    if missing and not found:
        return [], missing
    now = time.time()
    targets = tuple(each if i == 0 else replace(each, role="rogue") for i, each in enumerate(found))
    request = Request(new_capture_key(now), now, "manual", targets, boot_id=boot_id)
    return capturer(settings)(request, threading.Event()), missing
