"""Picking the host of this platform."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.host.protocol import Host, HostError


def here(proc_root: str | Path = "/proc", libproc: str | None = None) -> Host:
    """The host of this machine.

    `libproc` (or ROGUE_HUNTER_LIBPROC) names a library from which every libproc and libSystem function is taken; the
    macOS host is then chosen on any platform. Raises HostError where neither host fits.
    """
    library = _library(libproc)
    if library or sys.platform == "darwin":
        from rogue_hunter.host.macos.host import DarwinHost

        return DarwinHost(library=library)
    if sys.platform == "linux" or str(proc_root) != "/proc":
        root = Path(proc_root)
        if root != Path("/proc"):
            from rogue_hunter.host.linux.recording import Replay, is_recording

            if is_recording(root):
                return Replay(root)
        from rogue_hunter.host.linux.host import LinuxHost

        return LinuxHost(root)
    raise HostError(f"cannot read processes on {sys.platform}")


def lister(proc_root: str | Path = "/proc", libproc: str | None = None) -> Callable[[], int]:
    """A function that lists the processes and returns their number. Raises HostError where there is no list."""
    library = _library(libproc)
    if library or sys.platform == "darwin":
        from rogue_hunter.host.macos.libproc import PidLister, load

        pids = PidLister(load(library))
        return lambda: len(pids())
    if not os.path.isdir(proc_root):
        raise HostError(f"{proc_root} is no directory")
    return lambda: sum(name.isdigit() for name in os.listdir(proc_root))


def suspended(pid: int, proc_root: Path = Path("/proc")) -> str | None:
    """Why a process cannot run at all: stopped by a signal, or its control group is frozen. None if it can, or where
    that is not known (macOS)."""
    if sys.platform != "linux":
        return None
    from rogue_hunter.host.linux.cgroups import Cgroups
    from rogue_hunter.host.linux.parse import parse_stat

    try:
        state = parse_stat((proc_root / str(pid) / "stat").read_bytes()).state
    except (OSError, ValueError):
        return None
    if state == b"T":
        return f"it is stopped by a signal (kill -CONT {pid} continues it)"
    trees = Cgroups(proc_root)
    frozen = next(filter(trees.frozen, trees.groups(pid)), None)
    return None if frozen is None else f"its control group {frozen.path} is frozen"


def _library(libproc: str | None) -> str | None:
    return libproc or os.environ.get("ROGUE_HUNTER_LIBPROC") or None
