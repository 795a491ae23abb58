"""The event loop of rh-pipe: wait for the next beat and handle descriptors, timers and signals in the meantime.

One selector, no threads. A callback does a bounded piece of work and returns; when the beat is due, descriptors
that are still ready wait until after the tick.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Protocol


class HasFileno(Protocol):
    """What can be watched."""

    def fileno(self) -> int: ...


Watched = int | HasFileno
Callback = Callable[[int], object]
"""Called with the events that came: selectors.EVENT_READ, EVENT_WRITE."""

PIECE_S = 0.02
"""A piece of work is started only if the beat is further away than this, which is more than a piece takes."""

FALLBACK_POLL_S = 0.1
"""Interval of checking signals and timers when select() fails."""

SWITCH_S = 0.0005
"""Seconds that another thread may hold the interpreter lock when the beat is due. With Python's default of 5 ms the
beat would be late by as much; threads here read an answer or resolve a name and do not need it."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@dataclass(slots=True)
class Timer:
    """When a callback is due next, and how often. Seconds of the loop's clock."""

    due: float
    period: float
    callback: Callable[[], object]


class Loop(AbstractContextManager["Loop"]):
    """Waits between beats. Inside `with`, the signals `stops` end it: after the first one `sleep` returns False, a
    second one ends the process at once. A signal wakes the loop through a socket, so none is missed between the check
    and the wait. A timer that is due waits for the end of a sleep that is at most `patience` seconds away: waking up
    costs 0.1 ms of CPU time, and more of a laptop's battery.
    """

    def __init__(self, stops: Iterable[int] = (signal.SIGTERM, signal.SIGINT),
                 clock: Callable[[], float] = time.monotonic, nap: Callable[[float], object] = time.sleep,
                 patience: float = 0.0) -> None:
        self.stopping = False
        self._patience = patience
        self._stops = tuple(stops)
        self._clock = clock
        self._nap = nap
        self._selector = selectors.DefaultSelector()
        self._awake, self._waker = socket.socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._awake, READ, self._drain)
        self._timers: list[Timer] = []
        self._soon: deque[Callable[[], object]] = deque()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._came: set[int] = set()
        self._before: dict[int, object] = {}
        self._wakeup = -1
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> Loop:
        self._wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in self._stops:
            self._before[number] = signal.signal(number, self._stop)
        sys.setswitchinterval(SWITCH_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        sys.setswitchinterval(self._switch_s)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        self._selector.close()
        self._awake.close()
        self._waker.close()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.stopping = True

    # -- registration ------------------------------------------------------------------------------------------------

    def watch(self, file: Watched, events: int, callback: Callback) -> None:
        """Call `callback` while waiting, when `file` is ready for `events`; 0 unregisters it."""
        known = file in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(file)
        elif known:
            self._selector.modify(file, events, callback)
        else:
            self._selector.register(file, events, callback)

    def every(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` every so many seconds while waiting."""
        timer = Timer(self._clock() + seconds, seconds, callback)
        self._timers.append(timer)
        return timer

    def hurry(self, timer: Timer, seconds: float) -> None:
        """Call a timer's callback after `seconds` at the latest; may be called from another thread."""
        timer.due = min(timer.due, self._clock() + seconds)
        self.wake()

    def on(self, number: int, callback: Callable[[], object]) -> None:
        """Call `callback` while waiting, after the signal `number` was received. Only inside `with`."""
        self._handlers[number] = callback
        if number not in self._before:
            self._before[number] = signal.signal(number, lambda n, _frame: self._came.add(n))

    def soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, when there is time before the beat: a piece of longer work."""
        self._soon.append(callback)

    def wake(self) -> None:
        """End the current wait; may be called from another thread."""
        with suppress(OSError):
            self._waker.send(b"\0")

    def _drain(self, _events: int) -> None:
        with suppress(BlockingIOError):
            self._awake.recv(4096)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> bool:
        """Wait, and run callbacks that are due; False when it is time to stop."""
        clock = self._clock
        deadline = clock() + seconds
        while not self.stopping:
            self._due(clock())
            left = deadline - clock()
            piece = bool(self._soon) and left > min(PIECE_S, seconds / 2)
            self._look(0.0 if piece else self._wait(left), deadline)
            if piece and not self.stopping:
                self._soon.popleft()()
            if clock() >= deadline:
                break
        return not self.stopping

    def _wait(self, left: float) -> float:
        """Seconds until the beat, or until a timer that cannot wait for the beat."""
        if left <= self._patience:
            return max(0.0, left)
        due = min((timer.due for timer in self._timers), default=float("inf"))
        return max(0.0, min(left, due - self._clock()))

    def _look(self, seconds: float, deadline: float) -> None:
        """Wait for registered descriptors and call their callbacks."""
        try:
            ready = self._selector.select(seconds)
        except OSError:
            # kqueue may lack memory. The beat continues; descriptors are checked again after the next wait.
            self._nap(min(seconds, FALLBACK_POLL_S))
            return
        for key, events in ready:
            key.data(events)
            # The rest is still ready after the tick: the beat does not wait for a busy client.
            if self.stopping or self._clock() >= deadline:
                return

    def _due(self, now: float) -> None:
        for number in list(self._came):
            self._came.discard(number)
            self._handlers[number]()
        for timer in self._timers:
            if timer.due <= now:
                timer.due = now + timer.period
                timer.callback()
