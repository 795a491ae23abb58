"""tailspin: whether macOS records its trace of the last seconds, and switching that on. It is off by default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rogue_hunter import files
from rogue_hunter.service.manager import Run, ServiceError, read, run_command

TAILSPIN = "/usr/bin/tailspin"


def enabled_by(text: str) -> bool | None:
    """What `tailspin info` says: `tailspin has been disabled (default behavior)` is False; None if it says neither."""
    words = text.lower()
    return False if "disabled" in words else True if "enabled" in words else None


class Tailspin:
    """The setting of this machine. `before` is a file that remembers that it was off, for uninstall."""

    def __init__(self, before: Path, root: Sequence[str], run: Run = run_command) -> None:
        self._before, self._root, self._run = before, list(root), run

    def enabled(self) -> bool | None:
        """Whether the trace is recorded; None if that cannot be known."""
        done = self._run([TAILSPIN, "info"])
        return enabled_by(done.out + done.error)

    def install(self) -> list[str]:
        """Switch it on; the setting persists over reboots. Raises ServiceError."""
        if self.enabled():
            return ["tailspin is enabled already"]
        self._set("enable")
        try:
            files.replace(self._before, b"disabled\n", mode=0o600)
        except OSError as error:
            raise ServiceError(f"{self._before}: {error.strerror}", 74) from None
        return ["enabled tailspin: macOS records a trace of the last seconds in memory"]

    def uninstall(self) -> list[str]:
        """Back to what it was before install. Raises ServiceError."""
        if read(self._before) is None:
            return []
        self._set("disable")
        self._before.unlink(missing_ok=True)
        return ["disabled tailspin, as it was before"]

    def _set(self, verb: str) -> None:
        done = self._run([*self._root, TAILSPIN, verb])
        if done.code != 0:
            raise ServiceError(f"tailspin {verb}: {done.words}", 69)
