"""What runs beside the stages of rh-pipe, while it waits for the next beat: socket, reload, watchdog, power."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rogue_hunter import __version__
from rogue_hunter.capture.request import Request
from rogue_hunter.capture.stage import Captures
from rogue_hunter.config.options import Config
from rogue_hunter.daemon.cpu_budget import CpuBudget
from rogue_hunter.daemon.log import Log
from rogue_hunter.daemon.loop import Loop
from rogue_hunter.daemon.power import keep_awake
from rogue_hunter.daemon.reload import POLL_S, SETTLE_S, WATCHED_POLL_S, Reloader
from rogue_hunter.daemon.sd_notify import Notifier, Notify
from rogue_hunter.daemon.socket.address import Place, Taken
from rogue_hunter.daemon.socket.feed import Broadcast, Feed
from rogue_hunter.daemon.socket.requests import PRUNE_S, Pruner, logging, slices
from rogue_hunter.daemon.socket.server import Server
from rogue_hunter.store.wal_watch import WalAlarm
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.pipeline import Stage
from rogue_hunter.stream.tick import Record

if TYPE_CHECKING:
    from rogue_hunter.capture.worker import CaptureProcess

Say = Callable[[str, str], object]
"""(level, message)."""

SLOW_HZ = 0.05
"""At a slower beat the first tick comes too late for the service manager, which is asked for more time."""

FINISH_S = 1.0
"""Seconds that the end of rh-pipe waits for a capture under way: most take less, and it is to end within two."""


@dataclass(frozen=True, slots=True)
class Running:
    """What services need of a running pipe: its writer, the writing connection as it is now, its rate, how to apply a
    new configuration, and the slice records in memory."""

    writer: Writer
    connection: Callable[[], sqlite3.Connection | None]
    rate: Rate
    configure: Callable[[Config], None]
    recent_slices: Callable[[], list[Record]] = list


@dataclass(frozen=True, slots=True)
class Services:
    """The stages that belong to services, None where there is no such service; and the facts of daemon_state that no
    stage has. The values of `facts` are read at each write, so a dict in it may change."""

    budget: Stage | None = None
    wal: Stage | None = None
    broadcast: Stage | None = None
    notify: Stage | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Start = Callable[[Running], AbstractContextManager[Services]]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where things are. `socket` None: none is served; `must` says that `config_file` was named on the command line;
    `now` is the wall clock, epoch seconds."""

    database: Path
    config_file: Path | None = None
    must: bool = False
    socket: Path | None = None
    now: Callable[[], float] = time.time


def background(config: Config, loop: Loop, setting: Setting, say: Say, log: Log | None = None,
               notifier: Notifier | None = None) -> Start:
    """All services. What it returns is entered once the database is ours. Raises SocketError, PathError."""

    @contextmanager
    def start(running: Running) -> Iterator[Services]:
        tell = notifier or Notifier({})

        def warn(message: str) -> None:
            say("warning", message)

        with ExitStack() as stack:
            reloader = _reloading(config, loop, setting, say, tell, running, stack)
            budget = CpuBudget(config.budget, running.rate, warn)
            pruner = Pruner(loop, running.connection, setting.database, say, setting.now,
                            lambda: (reloader.config if reloader else config).retention)
            loop.hurry(loop.every(PRUNE_S, pruner.routine), 60.0)
            server, feed = _serving(config, loop, setting, say, log, running, reloader, budget, pruner)
            if server is not None:
                stack.callback(server.close)
            if tell.wanted:
                announce(loop, tell, running.rate, stack)
            if log is not None:
                _watch_log(log, running.writer)
            stack.enter_context(keep_awake(config.power.keep_awake, warn))
            say("info", f"watching at {running.rate.hz:g} Hz, writing to {setting.database}, process {os.getpid()}, "
                        f"version {__version__}")
            try:
                yield Services(budget, WalAlarm(setting.database, running.writer, warn),
                               Broadcast(feed, server) if server is not None else None,
                               Notify(tell) if tell.wanted else None,
                               {"config": reloader.status if reloader else {}, "socket": {},
                                "log": str(log.path) if log else None})
            finally:
                say("info", "stopped")

    return start


def announce(loop: Loop, tell: Notifier, rate: Rate, stack: ExitStack) -> None:
    """Keep the service manager informed until the first tick sends READY, and at the end."""
    more: dict[str, object] = {}
    if rate.hz < SLOW_HZ:
        # systemd stops a service that is not ready within 90 s; the first tick comes with the second beat.
        more = {"EXTEND_TIMEOUT_USEC": int(1e6 * (2 / rate.hz + 30))}
    loop.soon(lambda: tell.tell(**more, STATUS="waiting for the first tick"))
    if tell.watchdog_s:
        loop.every(tell.watchdog_s / 2, tell.alive)
    stack.callback(lambda: tell.tell(STOPPING=1, STATUS="stopped"))


def _watch_log(log: Log, writer: Writer) -> None:
    """Report in the state that log entries are lost, while that lasts."""
    def hear(problem: str | None) -> None:
        if problem is None:
            writer.alarms.pop("log", None)
        else:
            writer.alarms["log"] = problem

    log.listeners.append(hear)
    hear(log.problem)


def _reloading(config: Config, loop: Loop, setting: Setting, say: Say, tell: Notifier, running: Running,
               stack: ExitStack) -> Reloader | None:
    if setting.config_file is None:
        return None
    reloader = Reloader(config, setting.config_file, setting.must, say, running.configure)

    def hangup() -> None:
        tell.reloading()
        reloader.read()
        tell.tell(READY=1)

    loop.on(signal.SIGHUP, hangup)

    def look() -> None:
        reloader.look()
        if reloader.unsettled:
            loop.hurry(timer, SETTLE_S + 0.02)

    timer = loop.every(POLL_S, look)
    if reloader.watch(lambda: loop.hurry(timer, SETTLE_S + 0.02)):
        timer.period = WATCHED_POLL_S
    stack.callback(reloader.close)
    return reloader


def _serving(config: Config, loop: Loop, setting: Setting, say: Say, log: Log | None, running: Running,
             reloader: Reloader | None, budget: CpuBudget, pruner: Pruner) -> tuple[Server | None, Feed]:
    began, writer, rate = setting.now(), running.writer, running.rate

    def state() -> dict[str, Any]:
        status = reloader.status if reloader else {}
        return {"pid": os.getpid(), "version": __version__, "started_at": began, "hz": rate.hz, "slowed": rate.slowed,
                "model": (reloader.config if reloader else config).scoring.model,
                "database": os.fsencode(setting.database).decode("utf-8", "backslashreplace"),
                "degraded": writer.degraded or writer.alarm, "dropped": writer.dropped,
                "config_file": status.get("file"), "config_error": status.get("error"),
                "self_cpu_percent_average": budget.used_percent}

    feed = Feed(state)
    if setting.socket is None:
        return None, feed
    try:
        place = Place(setting.socket)
    except Taken as taken:
        # Not a reason to stop: two databases may be written at once, but one of the two is followed.
        say("warning", f"{taken}; this one runs without a socket")
        return None, feed
    try:
        server = Server(place, loop, config.socket, feed.greeting, say)
    except BaseException:
        place.leave()
        raise
    server.handle("prune_request", pruner.handle)
    server.handle("slices_request", slices(running.recent_slices, setting.now))
    if log is not None:
        server.handle("log", logging(log.write))
    return server, feed


@contextmanager
def capturing(config: Config) -> Iterator[Captures]:
    """The stage that makes captures of the machine that this process runs on. The process that makes them is started
    with the first request and ends with the context."""
    made = _LateCapturer()
    stage = made.stage = Captures(config.forensics, made, band=config.bands_of(config.scoring.model).forensics,
                                  finish_s=FINISH_S, own_pid=os.getpid(), cpu_seconds=lambda: made.cpu_seconds)
    try:
        yield stage
    finally:
        made.close()


class _LateCapturer:
    """A Capturer that costs nothing before its first request. Requests come one at a time."""

    stage: Captures

    def __init__(self) -> None:
        self._process: CaptureProcess | None = None

    @property
    def cpu_seconds(self) -> float:
        """CPU time that captures have used so far."""
        return self._process.cpu_seconds if self._process is not None else 0.0

    def __call__(self, request: Request, cancel: threading.Event) -> list[Record]:
        from rogue_hunter.capture.worker import CaptureProcess

        settings = self.stage.settings
        if self._process is None:
            self._process = CaptureProcess(settings)
        self._process.settings = settings
        return self._process(request, cancel)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
