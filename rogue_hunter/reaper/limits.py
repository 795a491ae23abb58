"""How much may be ended: so many in one run, so many an hour for each rule, and nothing after a failure.

What was spent is read from the audit file, which is the one record that every reaper writes, so two of them share one
budget and a restart forgets nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rogue_hunter.reaper.guards import Refusal
from rogue_hunter.rules.model import Safety
from rogue_hunter.text.format import visible

HOUR_S = 3600.0

NOTE_LIMIT = 4096
"""Bytes of the note that are read; ours are a line."""

MANUAL = "manual"
"""The rule of what a person named by pid. It has no hourly budget: the person is there."""


class Budget:
    """What is left to the run `run`. `entries` are the audit entries of the last hour: a run that takes longer
    (rh-pipe) has its budget for each hour."""

    def __init__(self, entries: Iterable[Mapping[str, Any]] = (), run: str = "") -> None:
        spent = [e for e in entries if e.get("kind") == "intent"]
        self._run = sum(e.get("run") == run for e in spent)
        self._hour = Counter(str(e.get("rule")) for e in spent)

    def refusal(self, rule: str, safety: Safety) -> Refusal | None:
        """Why this rule may terminate no further process now; None if it may."""
        if self._run >= safety.max_per_run:
            return Refusal("over_budget", f"the limit of {safety.max_per_run} processes a run is reached "
                                          "(safety.max_per_run)")
        if rule != MANUAL and self._hour[rule] >= safety.max_per_rule_per_hour:
            return Refusal("over_budget", f"the limit of {safety.max_per_rule_per_hour} processes an hour is reached "
                                          f"for rule {rule} (safety.max_per_rule_per_hour)")
        return None

    def spend(self, rule: str) -> None:
        """One process was signalled."""
        self._run += 1
        self._hour[rule] += 1


def _file(state_dir: Path) -> Path:
    return state_dir / "disarmed"


def disarm(state_dir: Path, why: str) -> None:
    """From now on nothing is ended without a person: a kill failed, so something is not as believed."""
    with contextlib.suppress(OSError):
        fd = os.open(_file(state_dir), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(visible(why) + "\n")


def disarmed(state_dir: Path) -> str | None:
    """Why nothing is ended without a person; None when it may be."""
    try:
        # Anything of this name disarms, also a fifo, which is not waited for.
        fd = os.open(_file(state_dir), os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            return os.read(fd, NOTE_LIMIT).decode("utf-8", "replace").strip() or "a kill failed"
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"the note that disarms cannot be read: {error.strerror}"  # it may say that a kill failed


def rearm(state_dir: Path) -> bool:
    """A person has looked. False when there was nothing to lift."""
    try:
        _file(state_dir).unlink()
    except FileNotFoundError:
        return False
    return True
