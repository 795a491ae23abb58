"""A request for a capture with its key, and the record of a capture with the status of its parts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, record


def new_capture_key(ts: float) -> str:
    """A unique key that sorts by time: `20250803T045458Z-1f2e3d4c`."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, ts))) + "-" + os.urandom(4).hex()


@dataclass(frozen=True, slots=True)
class Target:
    """A process to capture: its identity, its name when the request was made, and its role."""

    key: Key
    command: str = ""
    role: str = "culprit"


@dataclass(frozen=True, slots=True)
class Request:
    """One capture to make.

    `capture` is its key, `ts` the epoch second of the record that requested it. The first target is the culprit, if
    there is one. `troubles`: the names of each trouble that the capture examines (see capture.limits).
    """

    capture: str
    ts: float
    trigger: str = "manual"
    targets: tuple[Target, ...] = ()
    event: str | None = None
    boot_id: str | None = None
    pause: str | None = None
    troubles: tuple[tuple[str, ...], ...] = ()

    @property
    def culprit(self) -> Target | None:
        """The first target, if its role is culprit."""
        return self.targets[0] if self.targets and self.targets[0].role == "culprit" else None


class Capturer(Protocol):
    """Makes one capture and returns its records, the `capture` record first. Failures are reported in the records.

    `cancel` is set when the answer is no longer wanted.
    """

    def __call__(self, request: Request, cancel: threading.Event) -> list[Record]: ...


@dataclass(slots=True)
class Parts:
    """The status of each part of a capture. `status[part]` becomes the field `part_status`."""

    status: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def done(self, part: str, status: str, problem: str | None = None) -> None:
        """Set the status of `part`; `problem` is the reason if it is not ok."""
        self.status[part] = status
        if problem and len(self.problems) < 32:
            self.problems.append(problem[:512])

    @property
    def overall(self) -> str:
        """ok: all parts are; failed: no part has a result; partial: anything else. Parts that this machine does not
        have, or that were not requested, do not count."""
        counted = [s for s in self.status.values() if s not in ("unavailable", "skipped")]
        if counted and all(s == "ok" for s in counted):
            return "ok"
        return "partial" if any(s in ("ok", "partial") for s in counted) else "failed"


def capture_record(request: Request, parts: Parts, os: str, duration_s: float, children: Sequence[Record],
                   **more: object) -> Record:
    """The `capture` record of a capture that was made, with the counts of its child records."""
    counts: dict[str, int] = {}
    for each in children:
        counts[each["type"]] = counts.get(each["type"], 0) + 1
    culprit = request.culprit
    return record(
        "capture", ts=round(request.ts, 3), capture=request.capture, trigger=request.trigger, status=parts.overall,
        event=request.event, pause=request.pause, boot_id=request.boot_id, pid=culprit.key[0] if culprit else None,
        start_ticks=culprit.key[1] if culprit else None, command=(culprit.command or None) if culprit else None,
        os=os, duration_s=round(duration_s, 3), processes=counts.get("spindump_process", 0),
        threads=counts.get("spindump_thread", 0), blockers=counts.get("spindump_blocker", 0),
        log_entries=counts.get("log_entry", 0), **{f"{k}_status": v for k, v in parts.status.items()},
        problems=list(parts.problems) or None, **more,
    )


Sleep = Callable[[float], object]
