"""Every call of the sampling loop to the operating system fails in turn: its first, second, ... Nth use, with each
error that it can give, once, for a while, and permanently, until a run passes that no fault touched.

The whole of rh-pipe's loop runs in this process: beat, host, score, track, pauses, minutes, database, on a small /proc
of files, by a clock that only waiting moves.
"""

from __future__ import annotations

import builtins
import errno
import os
import random
import resource
import shutil
import signal
import sqlite3
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from rogue_hunter.config.options import Config
from rogue_hunter.daemon import pipe
from rogue_hunter.daemon.loop import Loop
from rogue_hunter.host.linux import describe as linux_describe
from rogue_hunter.host.linux import host as linux
from rogue_hunter.host.linux.gate import ClockGate, FileGate, cpu_clock
from rogue_hunter.host.linux.gpu import Gpu
from rogue_hunter.host.linux.host import LinuxHost
from rogue_hunter.host.protocol import HostError
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream.clock import Clock
from rogue_hunter.stream.tick import Row, Tick
from rogue_hunter.worker import Worker
from tests.tools.processes import Tree

from .table import SEED, Bench, case

ERRORS = tuple(getattr(errno, name) for name in (
    "ENOENT", "ESRCH", "EACCES", "EPERM", "EIO", "EMFILE", "ENFILE", "ENOMEM", "EINTR"))
SILENT = (errno.ENOENT, errno.ESRCH)
"""To these, a process that vanished is the right answer."""

BEATS, MENDED = 10, 5
"""Beats of a run, and the one at which a fault that lasts for a while has ended."""

ONCE, WHILE, EVER = "once", "for a while", "for ever"


@dataclass
class Faults:
    """Counts the calls that are made while `armed`, and lets one fail, or all from there on."""

    nth: int = 0
    code: int = 0
    how: str = ONCE
    armed: bool = False
    count: int = 0
    hit: str = ""
    made: Counter[str] = field(default_factory=Counter)

    def call(self, name: str, what: object = "") -> None:
        """To be called in the place of each call. Raises OSError."""
        if not self.armed:
            return
        self.count += 1
        self.made[name] += 1
        if self.nth and (self.count == self.nth or (self.how != ONCE and self.count > self.nth)):
            self.hit = self.hit or f"{name}({what})"
            raise OSError(self.code, os.strerror(self.code))

    @contextmanager
    def off(self) -> Iterator[None]:
        """What the harness itself does is not counted."""
        before, self.armed = self.armed, False
        try:
            yield
        finally:
            self.armed = before


class Inline(Worker[Any, Any]):
    """A worker whose jobs are done by the caller: what would end the thread ends the run."""

    def submit(self, job: Any) -> bool:
        self.post(self._work(job))
        return True


class World:
    """Processes as files: one burns, one idles, one has threads, one dies, one is born, one becomes an orphan."""

    def __init__(self, place: Path) -> None:
        self.tree = Tree(place)
        self.dead: set[int] = set()
        self.paths: dict[int, str] = {}
        self.beats = 0
        write, process = self.tree.write, self.tree.process
        write("self/schedstat", b"1 1 1\n")
        for name in ("cpu", "memory", "io"):
            write(f"pressure/{name}", b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")
        for pid, comm, ppid in ((10, b"burns", 1), (11, b"idles", 1), (12, b"threads", 1), (13, b"dies", 1),
                                (14, b"orphan", 13)):
            process(pid, comm, ppid=ppid, threads=2 if pid == 12 else 1, cmdline=b"x\0--password=hunter2\0")
            write(f"{pid}/cgroup", b"0::/user.slice/x.service\n")
            (place / str(pid) / "exe").symlink_to(f"/bin/{comm.decode()}")
            write(f"{pid}/schedstat", b"1 1 1\n")
        for tid in (12, 112):
            write(f"12/task/{tid}/schedstat", b"1 1 1\n")
        (place / "self").rename(place / "kept")
        (place / str(os.getpid())).symlink_to("kept")
        (place / "self").symlink_to(str(os.getpid()))
        self._loadavg(14)

    def _loadavg(self, last: int) -> None:
        self.tree.write("loadavg", b"0.00 0.00 0.00 1/5 %d\n" % last)

    def step(self) -> None:
        """A third of a second's work."""
        self.beats += 1
        n, tree = self.beats, self.tree
        tree.process(10, b"burns", b"R", utime=33 * n, voluntary=n, read=n << 20)
        tree.write("10/schedstat", b"%d %d 1\n" % (330_000_000 * n, n))
        tree.process(12, b"threads", b"S", threads=2, utime=5 * n)
        for tid in (12, 112):
            tree.write(f"12/task/{tid}/schedstat", b"%d %d 1\n" % (n, 1_000_000 * n))
        tree.write("stat", b"cpu  %d 0 50 1000 0 0 0 0 0 0\ncpu0 1\ncpu1 1\nintr 1\nbtime 1700000000\n" % (40 * n))
        if n == 2:
            self.dead.add(13)
            shutil.rmtree(tree.path / "13")
            tree.process(14, b"orphan", ppid=1)
        if n == 3:
            tree.process(15, b"born", start=400_000)
            tree.write("15/schedstat", b"1 1 1\n")
            self._loadavg(15)

    def cpu_ns(self, pid: int) -> int:
        """What the CPU clock of a process says. Raises OSError when it is gone."""
        if pid in self.dead or not (self.tree.path / str(pid)).exists():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return 1 + {10: 330_000_000, 12: 50_000_000}.get(pid, 0) * self.beats

    def dead_read(self, fd: int) -> None:
        """A kept descriptor of a process that is gone. Raises ProcessLookupError."""
        pid = self.paths.get(fd, "").removeprefix(str(self.tree.path) + "/").partition("/")[0]
        if pid.isdigit() and int(pid) in self.dead:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


@contextmanager
def failing(faults: Faults, world: World, clocks: bool = True) -> Iterator[None]:
    """The calls of this process, counted and failing. With `clocks` the gates are CPU clocks, else files."""
    real = {name: getattr(os, name) for name in ("open", "pread", "read", "listdir", "readlink", "close")}
    real_open = builtins.open

    def opened(path: Any, flags: int, *args: Any, **more: Any) -> int:
        faults.call("open", path)
        fd: int = real["open"](path, flags, *args, **more)
        at = world.paths.get(more.get("dir_fd"), "") + "/" if more.get("dir_fd") is not None else ""
        world.paths[fd] = at + os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        return fd

    def closed(fd: int) -> None:
        real["close"](fd)       # Linux closes the descriptor even when close(2) fails
        world.paths.pop(fd, None)
        faults.call("close", fd)

    def reading(name: str) -> Callable[..., bytes]:
        def call(fd: int, *args: Any) -> bytes:
            faults.call(name, world.paths.get(fd, fd))
            world.dead_read(fd)
            data: bytes = real[name](fd, *args)
            return data
        return call

    def naming(name: str) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **more: Any) -> Any:
            faults.call(name, path)
            return real[name](path, *args, **more)
        return call

    def limits(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            faults.call(name)
            return (256, 512) if name == "getrlimit" else None
        return call

    def builtin(path: Any, *args: Any, **more: Any) -> Any:
        faults.call("open()", path)
        return real_open(path, *args, **more)

    def gettime(clock: int) -> int:
        pid = ~(clock >> 3)
        assert cpu_clock(pid) == clock
        faults.call("clock_gettime", pid)
        return world.cpu_ns(pid)

    pread = reading("pread")
    with ExitStack() as stack:
        for name, made in (("open", opened), ("pread", pread), ("read", reading("read")), ("close", closed),
                           ("listdir", naming("listdir")), ("readlink", naming("readlink"))):
            stack.enter_context(mock.patch.object(os, name, made))
        stack.enter_context(mock.patch.object(builtins, "open", builtin))
        for name in ("getrlimit", "setrlimit"):
            stack.enter_context(mock.patch.object(resource, name, limits(name)))
        stack.enter_context(mock.patch.object(FileGate.__init__, "__defaults__", (pread,)))
        stack.enter_context(mock.patch.object(ClockGate.__init__, "__defaults__", (gettime,)))
        for name, value in (("is_procfs", lambda root: True), ("start_gpu", lambda root: None),
                            ("clocks_tell", lambda root: clocks)):
            stack.enter_context(mock.patch.object(linux, name, value))
        stack.enter_context(mock.patch.object(linux_describe, "Worker", Inline))
        before = signal.getsignal(signal.SIGCONT)
        stack.callback(lambda: signal.signal(signal.SIGCONT, before))
        yield


@dataclass
class Outcome:
    """Ticks as (closing row, rows by pid); the messages; the error at the start, if the run was refused."""

    ticks: list[tuple[Row, dict[int, Row]]]
    said: list[str]
    refused: str
    waits: int


def run(place: Path, faults: Faults, template: Path | None = None, clocks: bool = True) -> Outcome:
    """One run of the whole loop. Raises what is not handled."""
    place.mkdir()
    world = World(place / "proc")
    tree = world.tree
    database = place / "x.db"
    if template is not None:
        shutil.copyfile(template, database)
    # A wait takes a microsecond more than was asked for, as a real one does.
    loop = Loop(stops=(), clock=lambda: tree.mono_ns / 1e9, nap=lambda seconds: tree.beat(seconds + 1e-6))
    waits = 0

    def select(timeout: float | None = None) -> list[Any]:
        nonlocal waits
        waits += 1
        assert waits < 1000 * BEATS, f"spins after {faults.hit}"
        faults.call("select")
        tree.beat((timeout or 0.0) + 1e-6)
        return []

    def sleep(seconds: float) -> bool:
        go = loop.sleep(seconds)
        with faults.off():
            world.step()
        if world.beats >= MENDED and faults.how != EVER:
            faults.armed = False
        return go and world.beats < BEATS

    ticks: list[tuple[Row, dict[int, Row]]] = []

    def spy(tick: Tick) -> Tick:
        if tick.row is not None:
            ticks.append((tick.row, {key[0]: row for key, row in tick.processes.items()}))
        return tick

    clock = Clock(lambda: tree.mono_ns, lambda: 1.7e9 + tree.mono_ns / 1e9, lambda: tree.mono_ns)
    said: list[str] = []
    refused = ""
    with failing(faults, world, clocks), mock.patch.object(loop._selector, "select", select):
        faults.armed = True
        try:
            host = LinuxHost(tree.path, mono=lambda: tree.mono_ns, uptime=lambda: tree.uptime_s)
            try:
                pipe.run(Config(), host, database, hz=3.0, sleep=sleep, clock=clock, warn=said.append, captures=spy)
            finally:
                host.close()
        except (HostError, DatabaseError) as error:
            refused = str(error)
        finally:
            faults.armed = False
            loop.close()
    return Outcome(ticks, said, refused, waits)


TRUE = ("cpu_seconds_total", "memory_bytes", "state", "ppid", "threads", "context_switches_total", "uid", "command",
        "disk_read_bytes_total", "cmdline", "exe", "cgroup")
"""What a row may leave out or tell, but not wrongly without a word."""

SLOW = {"cmdline", "exe", "cgroup", "ppid"}
"""Asked once in a process's life: what could not be read then stays unknown. Another parent is learnt within a minute
where the old one was never seen to go."""


def lies(outcome: Outcome, truth: Outcome) -> list[str]:
    """Where a tick says something else than what was, and does not say that something could not be read."""
    found = []
    for (row, rows), (_, true) in zip(outcome.ticks, truth.ticks, strict=False):
        if row["errors"] or row["unreadable"]:
            continue
        for pid, was in rows.items():
            if pid in true:
                found += [f"{row['seq']}: {pid} {n} {was[n]!r}, not {true[pid].get(n)!r}" for n in TRUE
                          if n in was and n not in SLOW and was[n] != true[pid].get(n)]
    return found


@case("calls/every call fails", "every tick is taken, no error is unhandled, nothing spins, what is missing is said, "
      "all is whole again after it")
def every_call(bench: Bench) -> str:
    return _every_call(bench, clocks=True, step=1 if bench.long else 4)


@case("calls/every call fails, without CPU clocks", "the same where the gates are files")
def every_call_of_files(bench: Bench) -> str:
    return _every_call(bench, clocks=False, step=1 if bench.long else 8)


def _every_call(bench: Bench, clocks: bool, step: int) -> str:
    template = bench.tmp / "template.db"
    run(bench.tmp / "first", Faults(), clocks=clocks)
    shutil.copyfile(bench.tmp / "first" / "x.db", template)
    usual = Faults()
    truth = run(bench.tmp / "truth", usual, template, clocks)
    assert len(truth.ticks) == BEATS - 1 and not truth.refused
    assert all(usual.made[name] for name in ("open", "pread", "read", "listdir", "readlink", "close", "getrlimit",
                                             "setrlimit", "select", "open()")), usual.made
    assert bool(usual.made["clock_gettime"]) is clocks
    rng = random.Random(SEED)
    runs = refused = told = 0
    problems: list[str] = []
    nth = 1 - step
    while True:
        nth += step
        touched = False
        codes = ERRORS if bench.long else rng.sample(ERRORS, 1)
        for code in codes:
            for how in (ONCE, WHILE, EVER) if bench.long else (rng.choice((ONCE, WHILE, EVER)),):
                faults = Faults(nth, code, how)
                place = bench.tmp / "run"
                try:
                    outcome = _checked(place, faults, template, usual.count, truth, clocks)
                except AssertionError as error:
                    problems.append(str(error))
                else:
                    refused += bool(outcome.refused)
                    told += any(row["errors"] or row["unreadable"] for row, _ in outcome.ticks)
                touched |= bool(faults.hit)
                runs += 1
                shutil.rmtree(place)
        if not touched:
            break
    assert not problems, f"{len(problems)} of {runs}:\n" + "\n".join(problems)
    assert nth > 100
    return (f"{usual.count} calls, {runs} runs: 0 unhandled, 0 spins, 0 stale without a word; {told} told by the tick, "
            f"{refused} refused to begin in a line, the others made good")


def _checked(place: Path, faults: Faults, template: Path, usual: int, truth: Outcome, clocks: bool) -> Outcome:
    def where() -> str:
        return f"{faults.how}: call {faults.nth}, {faults.hit}: {errno.errorcode[faults.code]}"

    try:
        outcome = run(place, faults, template, clocks)
    except (Exception, SystemExit) as error:
        place_of = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in place_of if "rogue_hunter" in f.filename][-2:]
        raise AssertionError(f"{where()}: {type(error).__name__} unhandled: {' '.join(ours)}") from error
    if outcome.refused:
        assert "\n" not in outcome.refused and not outcome.ticks, where()
        return outcome
    assert len(outcome.ticks) == BEATS - 1, f"{where()}: {len(outcome.ticks)} ticks"
    assert faults.count < 4 * usual, f"{where()}: spins, {faults.count} calls"
    with sqlite3.connect(place / "x.db") as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",), where()
    connection.close()
    if faults.how != EVER:
        last, whole = outcome.ticks[-1], truth.ticks[-1]
        seen = last[1].keys() if faults.code not in SILENT else whole[1].keys()
        assert last[0]["errors"] == 0, f"{where()}: errors to the end"
        if not last[0]["unreadable"]:
            assert seen == whole[1].keys(), f"{where()}: not whole again"
            wrong = {(pid, name) for pid, row in last[1].items() for name in TRUE
                     if row.get(name) != whole[1][pid].get(name)}
            assert not {name for _, name in wrong} - SLOW, f"{where()}: {wrong}"
    if faults.code not in SILENT and (false := lies(outcome, truth)):
        raise AssertionError(f"{where()}: not admitted: {false}")
    return outcome


@case("calls/GPU", "what cannot be read has no GPU time; the reader goes on")
def gpu(bench: Bench) -> str:
    nth = runs = 0
    while True:
        nth += 1
        touched = False
        for code in ERRORS:
            for how in (ONCE, WHILE):
                place = bench.tmp / "gpu"
                tree = Tree(place)
                tree.write("7/fdinfo/3", b"drm-driver:\ti915\ndrm-client-id:\t1\ndrm-engine-render:\t5000 ns\n")
                (place / "7/fd").mkdir()
                (place / "7/fd/3").symlink_to("/dev/dri/renderD128")
                faults = Faults(nth, code, how)
                times = iter((1.0, 2.0, 40.0, 41.0))
                reader = Gpu(place, mono=times.__next__)
                world = World(bench.tmp / "none")
                with failing(faults, world):
                    faults.armed = True
                    reader.read()
                    reader.read()
                    faults.armed = False
                reader.read()
                seen = reader.read()
                assert set(seen) == {7}, (nth, code, how)
                touched |= bool(faults.hit)
                runs += 1
                shutil.rmtree(place)
                shutil.rmtree(bench.tmp / "none")
        if not touched:
            return f"{nth - 1} calls, {runs} runs: 0 unhandled, read again afterwards"
