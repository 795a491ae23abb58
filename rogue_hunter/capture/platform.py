"""The capturer of this platform, and the keys of captures."""

from __future__ import annotations

import os
import sys
import time

from rogue_hunter.capture.request import Capturer
from rogue_hunter.config.options import Forensics


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
