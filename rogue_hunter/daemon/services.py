"""What runs beside the stages of rh-pipe, while it waits for the next beat: socket, reload, watchdog, CPU limit."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rogue_hunter import __version__
from rogue_hunter.capture.request import Request
from rogue_hunter.capture.stage import Captures
from rogue_hunter.config.options import Budget as Settings
from rogue_hunter.config.options import Config
from rogue_hunter.daemon.log import Log
from rogue_hunter.daemon.loop import Loop
from rogue_hunter.daemon.reload import POLL_S, SETTLE_S, WATCHED_POLL_S, Reloader
from rogue_hunter.daemon.sd_notify import Notifier, Notify
from rogue_hunter.daemon.socket.address import Place, Taken
from rogue_hunter.daemon.socket.requests import PRUNE_S, Broadcast, Feed, Pruner, logging, processes, slices
from rogue_hunter.daemon.socket.server import Server
from rogue_hunter.report.verdict_text import now_words
from rogue_hunter.store.writer import WalAlarm, Writer
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.pipeline import Stage
from rogue_hunter.stream.tick import Record, Tick
from rogue_hunter.text.format import path_text

if TYPE_CHECKING:
    from rogue_hunter.capture.worker import CaptureProcess


class Budget:
    """The average of the last `over_s` seconds, and by what the beat is divided: 1, 2, 4, ... up to `slowest`."""

    def __init__(self) -> None:
        self.slowed = 1
        self.used_percent: float | None = None
        self._spent: deque[tuple[float, float]] = deque()
        self._cpu_s = 0.0
        self._time_s = 0.0

    def spend(self, settings: Settings, cpu_percent: float, interval_s: float) -> str | None:
        """Account for one interval; the text says what changed, None when nothing did.

        Slows down when the average is above the limit, and goes back when it is below half of it, since twice the
        beats cost at most twice as much. After each change the measurement of `over_s` starts again.
        """
        self._spent.append((cpu_percent * interval_s / 100, interval_s))
        self._cpu_s += self._spent[-1][0]
        self._time_s += interval_s
        while self._time_s - self._spent[0][1] >= settings.over_s:
            cpu_s, time_s = self._spent.popleft()
            self._cpu_s -= cpu_s
            self._time_s -= time_s
        self.used_percent = round(100 * self._cpu_s / self._time_s, 2) if self._time_s > 0 else None
        if self._time_s < settings.over_s or self.used_percent is None:
            return None
        limit = settings.cpu_percent
        if limit and self.used_percent > limit and self.slowed * 2 <= settings.slowest:
            return self._change(self.slowed * 2, limit)
        if self.slowed > 1 and (not limit or self.used_percent < limit / 2):
            return self._change(self.slowed // 2, limit)
        return None

    def _change(self, slowed: int, limit: float) -> str:
        self.slowed, before = slowed, self.slowed
        used = self.used_percent
        self._spent.clear()
        self._cpu_s = self._time_s = 0.0
        verb = "slows down to" if slowed > before else "goes back to"
        part = f"1/{slowed} of its rate" if slowed > 1 else "its full rate"
        return f"used {used:g} % of a core, the budget is {limit:g} %: the beat {verb} {part}"


class CpuBudget:
    """The stage: adds up `self_cpu_percent` and slows the clock down."""

    def __init__(self, settings: Settings, rate: Rate, warn: Callable[[str], object]) -> None:
        self._set, self._rate, self._warn = settings, rate, warn
        self._budget = Budget()

    def configure(self, config: Config) -> None:
        """Use this limit from the next tick on."""
        self._set = config.budget

    def __call__(self, tick: Tick) -> Tick:
        """The tick, unchanged."""
        used = tick.row.get("self_cpu_percent") if tick.row is not None else None
        if tick.row is not None and used is not None:
            changed = self._budget.spend(self._set, used, tick.row["interval_s"])
            self._rate.slowed = self._budget.slowed
            if changed:
                self._warn(changed)
        return tick

    @property
    def used_percent(self) -> float | None:
        """Average CPU usage of rh-pipe, percent of a core."""
        return self._budget.used_percent

    def state(self) -> dict[str, Any]:
        """Limit, use, and by what the beat is divided."""
        return {"budget": {"limit_percent": self._set.cpu_percent, "used_percent": self.used_percent,
                           "slowed": self._rate.slowed}}


Spawn = Callable[..., "subprocess.Popen[bytes]"]


def _which(program: str) -> str | None:
    import shutil  # with three libraries for compression

    return shutil.which(program)


def inhibitor(platform: str = sys.platform, which: Callable[[str], str | None] = _which) -> list[str] | None:
    """The command that keeps the machine awake as long as its standard input is open; None if there is none.

    It ends with this process however that ends: `caffeinate -w` watches the process, and `cat` ends with its input.
    """
    if platform == "darwin":
        return ["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())]
    program = which("systemd-inhibit")
    if program is None:
        return None
    return [program, "--what=idle:sleep", "--who=rogue-hunter", "--why=watching the machine", "--mode=block", "cat"]


@contextmanager
def keep_awake(wanted: bool, warn: Callable[[str], None], command: Sequence[str] | None = None,
               spawn: Spawn = subprocess.Popen) -> Iterator[None]:
    """Keep the machine awake inside `with`, if `wanted`; a failure is reported to `warn` and otherwise ignored."""
    argv = list(command) if command is not None else inhibitor() if wanted else None
    child = None
    if wanted and argv is None:
        warn("cannot keep the machine awake: there is no systemd-inhibit")
    elif wanted and argv is not None:
        try:
            child = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError as error:
            warn(f"cannot keep the machine awake: {argv[0]}: {error.strerror}")
    try:
        yield
    finally:
        if child is not None:
            _end(child, warn)


def _end(child: subprocess.Popen[bytes], warn: Callable[[str], None]) -> None:
    if child.poll() not in (None, 0):
        warn(f"the command that keeps the machine awake ended, exit code {child.returncode}")
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()
    child.terminate()
    try:
        child.wait(0.5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


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

    bands = config.bands_of(config.scoring.model)

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
            for first in TRIM_FIRST_S:
                loop.hurry(loop.every(TRIM_S, trim_memory), first)
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
                               Notify(tell, words=lambda at: now_words(running.recent_slices(), at),
                                    enter=bands.start(bands.tracking)) if tell.wanted else None,
                               {"config": reloader.status if reloader else {}, "socket": {},
                                "socket_path": path_text(setting.socket) if server and setting.socket else None,
                                "log": path_text(log.path) if log else None})
            finally:
                say("info", "stopped")

    return start


TRIM_S, TRIM_FIRST_S = 3600.0, (5.0, 15.0)
"""How often freed memory is given back, and when first: reading and describing all processes leaves 1.1 MB unused."""


def trim_memory() -> None:
    """Give freed memory back to the system (malloc_trim(3)); without effect where the C library has no such call."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
                "database": path_text(setting.database),
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
    server.handle("processes_request", processes(lambda: feed.last, loop.soon))
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
