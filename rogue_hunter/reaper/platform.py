"""Picking the reaper's view of the machine on this platform."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rogue_hunter.reaper.process import Machine


def here(proc_root: str | Path = "/proc", libproc: str | None = None) -> Machine:
    """The machine that this runs on. `libproc` (or ROGUE_HUNTER_LIBPROC) names the library of the macOS one, which is
    then chosen on any platform. Raises HostError where neither fits."""
    library = libproc or os.environ.get("ROGUE_HUNTER_LIBPROC") or None
    if library or sys.platform == "darwin":
        from rogue_hunter.reaper.macos import DarwinMachine

        return DarwinMachine.load(library)
    from rogue_hunter.reaper.linux import LinuxMachine

    return LinuxMachine(Path(proc_root))
