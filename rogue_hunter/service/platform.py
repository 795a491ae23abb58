"""Picking the service manager of this platform."""

from __future__ import annotations

import sys
from pathlib import Path

from rogue_hunter.service.launchd import Launchd
from rogue_hunter.service.manager import Manager, Run, ServiceError, run_command
from rogue_hunter.service.program import Program
from rogue_hunter.service.systemd import Systemd


def here(program: Program, log: Path, run: Run = run_command, platform: str = sys.platform) -> Manager:
    """This machine's service manager. `log` is where a manager without a journal keeps standard error."""
    if platform == "darwin":
        return Launchd(program, log, run)
    if platform == "linux":
        return Systemd(program, run)
    raise ServiceError(f"no service manager is known for {platform}")
