"""What rh-pipe has around its chain: socket, log, reload, watchdog, budget; all of it while the beat waits."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rogue_hunter import __version__
from rogue_hunter.daemon.cpu_budget import Budget, budgeted
from rogue_hunter.daemon.live import Live
from rogue_hunter.daemon.log import Log
from rogue_hunter.daemon.loop import Loop
from rogue_hunter.daemon.power import keep_awake
from rogue_hunter.daemon.reload import POLL_S, SETTLE_S, WATCHED_POLL_S, Reloader
from rogue_hunter.daemon.sd_notify import Notifier, notifying
from rogue_hunter.daemon.socket.address import Place, Taken
from rogue_hunter.daemon.socket.feed import Feed, broadcast
from rogue_hunter.daemon.socket.requests import Pruner, logging, slices
from rogue_hunter.daemon.socket.server import Server
from rogue_hunter.store.wal_watch import WalAlarm
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.tick import Stage, Tick

Say = Callable[[str, str], object]
"""(level, message)."""

SLOW_HZ = 0.05
"""At a slower beat the service manager is told READY before the first tick."""


@dataclass(frozen=True, slots=True)
class Around:
    """What is added to a chain: stages behind the store, and what daemon_state says. The values of `facts` are read at
    each write, so a dict in it may change."""

    stages: tuple[Stage, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


Connection = Callable[[], sqlite3.Connection | None]
"""The writing connection as it is now."""

Surround = Callable[[Writer, Connection], AbstractContextManager[Around]]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where things are. `socket` None: none is served; `must` says that `config_file` was named on the command line;
    `now` is the wall clock, epoch seconds."""

    database: Path
    config_file: Path | None = None
    must: bool = False
    socket: Path | None = None
    now: Callable[[], float] = time.time


def background(live: Live, loop: Loop, setting: Setting, say: Say, log: Log | None = None,
               notifier: Notifier | None = None) -> Surround:
    """All of it. What it gives is entered once the database is ours. Raises SocketError, PathError."""

    @contextmanager
    def surround(writer: Writer, connection: Connection) -> Iterator[Around]:
        tell = notifier or Notifier({})

        def warn(message: str) -> None:
            say("warning", message)

        with ExitStack() as stack:
            budget = Budget()
            reloader = _reloading(live, loop, setting, say, tell, stack)
            facts: dict[str, Any] = {"config": reloader.status if reloader else {}, "socket": {}, "budget": {},
                                     "log": str(log.path) if log else None}
            stages = [notifying(tell)] if tell.wanted else []
            stages += [budgeted(live, budget, warn), WalAlarm(setting.database, writer, warn).stage]
            if setting.socket is not None:
                server, feed = _serving(live, loop, setting, say, log, writer, connection, facts)
                if server is not None:
                    stack.callback(server.close)
                    stages.append(broadcast(feed, server))
            else:
                server = None
            stages.append(_account(live, writer, facts, budget, server))
            if tell.wanted:
                # READY comes with the first tick, but systemd gives up a service that is not ready within 90 s.
                early = {"READY": 1} if live.hz < SLOW_HZ else {}
                loop.soon(lambda: tell.tell(**early, STATUS="waiting for the first tick"))
                if tell.watchdog_s:
                    loop.every(tell.watchdog_s / 2, tell.alive)
                stack.callback(lambda: tell.tell(STOPPING=1))
            stack.enter_context(keep_awake(live.config.power.keep_awake, warn))
            say("info", f"watching at {live.hz:g} Hz, writing to {setting.database}, process {os.getpid()}, "
                        f"version {__version__}")
            try:
                yield Around(tuple(stages), facts)
            finally:
                say("info", "stopped")

    return surround


def _reloading(live: Live, loop: Loop, setting: Setting, say: Say, tell: Notifier,
               stack: ExitStack) -> Reloader | None:
    if setting.config_file is None:
        return None
    reloader = Reloader(live, setting.config_file, setting.must, say)

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


def _serving(live: Live, loop: Loop, setting: Setting, say: Say, log: Log | None, writer: Writer,
             connection: Connection, facts: dict[str, Any]) -> tuple[Server | None, Feed]:
    began = setting.now()

    def state() -> dict[str, Any]:
        config = facts["config"]
        return {"pid": os.getpid(), "version": __version__, "started_at": began, "hz": live.hz, "slowed": live.slowed,
                "model": live.config.scoring.model, "database": os.fsencode(setting.database).decode(
                    "utf-8", "backslashreplace"),
                "degraded": writer.degraded or writer.alarm, "dropped": writer.dropped,
                "config_file": config.get("file"), "config_error": config.get("error"),
                "self_cpu_percent_average": facts["budget"].get("used_percent")}

    feed = Feed(live.rogues, state)
    if setting.socket is None:
        return None, feed
    try:
        place = Place(setting.socket)
    except Taken as taken:
        # Not a reason to stop: two databases may be written at once, but one of the two is followed.
        say("warning", f"{taken}; this one goes on without a socket")
        return None, feed
    try:
        server = Server(place, loop, live.config.socket, feed.greeting, say)
    except BaseException:
        place.leave()
        raise
    server.handle("prune_request", Pruner(loop, connection, setting.database, say, setting.now).handle)
    server.handle("slices_request", slices(live.recent_slices, setting.now))
    if log is not None:
        server.handle("log", logging(log.write))
    return server, feed


def _account(live: Live, writer: Writer, facts: dict[str, Any], budget: Budget, server: Server | None) -> Stage:
    """The stage that keeps daemon_state's facts of all this up to date."""

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        config = live.config
        for tick in ticks:
            facts["budget"].update(limit_percent=live.config.budget.cpu_percent, used_percent=budget.used_percent,
                                   slowed=live.slowed)
            if server is not None:
                facts["socket"].update(server.state())
            if live.config is not config:
                config = live.config
                writer.finish({"hz": live.hz, "model": config.scoring.model})
            yield tick

    return stage
