"""The service manager of this platform."""

from __future__ import annotations

import sys
from pathlib import Path

from rogue_hunter.service.launchd import Launchd
from rogue_hunter.service.manager import Program, Run, ServiceError, run_command
from rogue_hunter.service.systemd import Systemd, SystemSystemd

Manager = Systemd | Launchd
"""Every method raises ServiceError; the texts that methods return report what was done."""


def here(program: Program, log: Path, run: Run = run_command, platform: str = sys.platform, *,
         system: bool = False) -> Manager:
    """This machine's service manager. `log`: the file for standard error, for a manager without a journal. `system`:
    that of the whole system. Raises ServiceError where there is none."""
    if system:
        if platform != "linux":
            raise ServiceError("--system is for systemd on Linux", 1)
        return SystemSystemd(program, run)
    if platform == "darwin":
        return Launchd(program, log, run)
    if platform == "linux":
        return Systemd(program, run)
    raise ServiceError(f"rh-service does not support {platform}")
