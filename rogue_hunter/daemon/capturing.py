"""Captures in rh-pipe: the stage with the configuration in force, and the process beside it that makes them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rogue_hunter.capture.request import Request
from rogue_hunter.capture.stage import forensics
from rogue_hunter.config.options import Forensics
from rogue_hunter.daemon.live import Live
from rogue_hunter.stream.tick import Record, Stage, Tick

if TYPE_CHECKING:
    from rogue_hunter.capture.worker import CaptureProcess

FINISH_S = 1.0
"""Seconds that the end of rh-pipe waits for a capture under way: most take less, and it is to end within two."""


@contextmanager
def capturing(live: Live) -> Iterator[Stage]:
    """The stage, for the machine that this process runs on. The process that makes captures is started with the first
    request and ends with the context."""
    made = _Late(live)

    def now() -> tuple[Forensics, str]:
        config = live.config
        return config.forensics, config.bands_of(config.scoring.model).forensics

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        return forensics(ticks, live.config.forensics, made, ring=live.before, finish_s=FINISH_S,
                         own_pid=os.getpid(), live=now, cpu_seconds=lambda: made.cpu_seconds)

    try:
        yield stage
    finally:
        made.close()


class _Late:
    """A Capturer that costs nothing before its first request. Requests come one at a time."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._process: CaptureProcess | None = None

    @property
    def cpu_seconds(self) -> float:
        """CPU time that captures have used so far."""
        return self._process.cpu_seconds if self._process is not None else 0.0

    def __call__(self, request: Request, cancel: threading.Event) -> list[Record]:
        from rogue_hunter.capture.worker import CaptureProcess

        settings = self._live.config.forensics
        if self._process is None:
            self._process = CaptureProcess(settings)
        self._process.settings = settings
        return self._process(request, cancel)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
