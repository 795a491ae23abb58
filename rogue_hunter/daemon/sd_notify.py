"""Messages to systemd: ready, watchdog, status. Protocol: sd_notify(3). Does nothing without NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from rogue_hunter.stream.tick import Tick
from rogue_hunter.text.format import visible

STATUS_S = 5.0
"""Seconds between two status lines: each is a signal on the bus."""


class Notifier:
    """Sends messages to the service manager. Never waits and never raises."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.watchdog_s = _watchdog(environment)
        self._socket: socket.socket | None = None
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @property
    def wanted(self) -> bool:
        """True when the service manager expects messages."""
        return self._socket is not None

    def tell(self, **fields: object) -> bool:
        """Send `NAME=value` lines; False when they could not be sent."""
        if self._socket is None:
            return False
        text = "\n".join(f"{name}={visible(str(value))}" for name, value in fields.items())
        try:
            self._socket.sendto(text.encode("utf-8", "backslashreplace"), self._address)
        except OSError:
            return False
        return True

    def alive(self) -> None:
        """Feed the watchdog."""
        self.tell(WATCHDOG=1)

    def reloading(self) -> None:
        """A reload begins; READY=1 ends it."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """Seconds after which the service manager's watchdog acts; None if it does not watch this process."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) <= 0:
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(usec) / 1e6


class Notify:
    """The stage: the first tick sends READY, every tick feeds the watchdog, and the status shows what is wrong.

    `words` gives that, at a time in epoch seconds, as the verdict sees it; it is asked only when a score is at or above
    `enter`. This is the last stage, so READY means that a tick went through all others: the events that the last run
    left open have been taken up or closed.
    """

    def __init__(self, notifier: Notifier, now: Callable[[], float] = time.monotonic,
                 words: Callable[[float], str] = lambda at: "", enter: int = 0) -> None:
        self._notifier, self._now, self._words, self._enter = notifier, now, words, enter
        self._told_at = float("-inf")
        self._ready: dict[str, object] = {"READY": 1}

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged."""
        if tick.row is not None:
            if self._now() - self._told_at >= STATUS_S:
                self._told_at = self._now()
                score = tick.row.get("max_score", 0)
                wrong = self._words(tick.row["ts"]) if score >= max(1, self._enter) else ""
                if self._notifier.tell(**self._ready, WATCHDOG=1, STATUS=status(tick, wrong)):
                    self._ready = {}
            else:
                self._notifier.alive()
        return tick


def status(tick: Tick, wrong: str = "") -> str:
    """The state of the machine in one line."""
    row = tick.row or {}
    text = f"score {row.get('max_score', 0)}, {row.get('processes', 0)} processes"
    return f"{text}; {wrong}" if wrong else text
