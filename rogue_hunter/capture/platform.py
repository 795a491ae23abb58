"""A capture on this machine, whichever it is."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable

from rogue_hunter.capture.request import Capturer, Request, Target
from rogue_hunter.config.options import Forensics
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record


def new_capture_key(ts: float) -> str:
    """A key that sorts by time and is not met twice: `20250803T045458Z-1f2e3d4c`."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, ts))) + "-" + os.urandom(4).hex()


def capturer(settings: Forensics | None = None) -> Capturer:
    """What makes captures on this platform."""
    mine = settings or Forensics()
    if sys.platform == "darwin":
        from rogue_hunter.capture.macos import capture_macos

        return lambda request, cancel: capture_macos(request, cancel, settings=mine)
    from rogue_hunter.capture.linux.capture import capture_linux

    return lambda request, cancel: capture_linux(request, cancel, settings=mine)


def capture(identities: Iterable[Key], settings: Forensics | None = None, *, trigger: str = "manual",
            boot_id: str | None = None) -> list[Record]:
    """Capture now, in this thread. The first identity, (pid, start_ticks), is the culprit; there may be none.

    Returns the `capture` record first, then its children. An identity that is gone is said in `targets` and not
    mistaken for whoever has its pid now.
    """
    now = time.time()
    targets = tuple(Target(key, role="rogue" if i else "culprit") for i, key in enumerate(identities))
    request = Request(new_capture_key(now), now, trigger, targets, boot_id=boot_id)
    return capturer(settings)(request, threading.Event())
