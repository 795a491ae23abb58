"""rh-pipe as a service of its user: systemd's user manager on Linux, launchd on macOS."""

from rogue_hunter.service.manager import Manager, Run, ServiceError, State, here, run_command
from rogue_hunter.service.program import Program, program

__all__ = ["Manager", "Program", "Run", "ServiceError", "State", "here", "program", "run_command"]
