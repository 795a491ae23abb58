"""Where the reaper puts things on record."""

from __future__ import annotations

from pathlib import Path

from rogue_hunter.config.check import ConfigError
from rogue_hunter.config.options import Reap
from rogue_hunter.paths import state_dir
from rogue_hunter.reaper.audit import AuditLog
from rogue_hunter.rules.model import Settings


def audit_path(reap: Reap, settings: Settings) -> Path:
    """The audit file: reap.audit, else logging.file of the rules, else audit.log in the state directory.

    Every reaper of a user must mean the same file, wherever it runs: raises ConfigError for a relative one.
    """
    named = reap.audit or settings.log_file
    if not named:
        return state_dir() / "audit.log"
    path = Path(named).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"audit file {named}: must be an absolute path, or begin with ~/")
    return path


def audit_log(reap: Reap, settings: Settings) -> AuditLog:
    """The audit file, with the size and number of files that the rules say. Raises ConfigError."""
    return AuditLog(audit_path(reap, settings), max_bytes=settings.log_max_bytes, keep=settings.log_keep)
