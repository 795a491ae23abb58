"""The watchers: how each is started at the beat's rate, or as near as it can, and how its ticks are counted.

A subject that is not installed is named as missing, never left out in silence.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.build import HERE, REPO, Tools

RH_PIPE = str(REPO / "bin" / "rh-pipe")
LONG_S = 86_400
"""For programs that want to know how long they shall run: until they are ended."""

STOP_S = 5
PREPARE_S = 300
ASK_S = 10
"""tmux answers at once, or not at all."""

SCRAPE_S = 20
"""An answer about 10,000 processes takes it four seconds of CPU time."""

EXPORTER = "127.0.0.1:19256"


class SubjectError(Exception):
    """The subject did not start, or ended before its turn was over; the text carries its last words."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a subject's command needs: compiled tools, a scratch directory, the beat in Hz, the floor's sweep in s.

    `warm` stretches every subject's warm-up by that factor.
    """

    tools: Tools
    scratch: Path
    hz: float
    sweep_s: float = 0
    warm: float = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """A watcher.

    `command(context)` is its argv. `period_s(hz)` is the time between its ticks: that of the beat, or the nearest that
    it can be instructed. `marker` occurs once in its output for each tick; None: it keeps its beat, its ticks
    are window / period. `warm_s` and `warm_ms_each`, for each process: from its start to the first tick that counts.
    `terminal`: it draws on a terminal, and gets one from tmux. `scrape`: an address that must be fetched once a tick.
    `prepare` is run once before the first turn, in the user's own environment.
    """

    name: str
    what: str
    command: Callable[[Context], list[str]]
    period_s: Callable[[float], float] = lambda hz: 1 / hz
    marker: re.Pattern[bytes] | None = None
    terminal: bool = False
    scrape: str = ""
    needs: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    keeps_home: bool = False
    warm_s: float = 0.5
    warm_ms_each: float = 0.0

    def warm_up_s(self, processes: int) -> float:
        """Seconds from its start among so many processes to the mark."""
        return self.warm_s + self.warm_ms_each * processes / 1000

    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        for need in self.needs:
            if need.startswith("python:"):
                if importlib.util.find_spec(need.removeprefix("python:")) is None:
                    return f"{need.removeprefix('python:')} is not installed in this Python"
            elif not (shutil.which(need) or os.access(need, os.X_OK)):
                return f"{Path(need).name} is not installed"
        return ""


def _exporter_config(context: Context) -> str:
    path = context.scratch / "process-exporter.yml"
    path.write_text('process_names:\n  - name: "{{.Comm}}"\n    cmdline: [".+"]\n')      # the example of its README
    return str(path)


def _floor(context: Context, gate: str) -> list[str]:
    return [str(context.tools.floor), "--seconds", str(LONG_S), "--hz", str(context.hz), "--sweep",
            str(context.sweep_s), "--gate", gate]


def _exporter() -> str:
    return shutil.which("prometheus-process-exporter") or "process-exporter"


SUBJECTS: dict[str, Subject] = {subject.name: subject for subject in (
    Subject(
        "floor", "the least in C by the files of /proc: one pread a process, a full read of those that ran",
        lambda c: _floor(c, "file"), warm_ms_each=0.1,
    ),
    Subject(
        "floor-clock", "the same, but each process is asked for its CPU clock, as rh-pipe does",
        lambda c: _floor(c, "clock"), warm_ms_each=0.1,
    ),
    Subject(
        "rh-pipe", "all of rh-pipe: reading, scoring, tracking, SQLite",
        lambda c: [RH_PIPE, "--hz", str(c.hz), "--for", f"{LONG_S}s", "--db",
                   str(c.scratch / f"bench-{time.monotonic_ns()}.db"), "--quiet"],
        needs=(RH_PIPE,),
        prepare=(RH_PIPE, "--version"),        # the first use makes its environment
        keeps_home=True,                       # which may lie there
        # Beside its beat it first reads the command lines of all, two seconds for 5,000.
        warm_s=2.5, warm_ms_each=0.5,
    ),
    Subject(
        "top", "top -b -d 0.333",
        lambda c: ["top", "-b", "-d", f"{1 / c.hz:.3f}"],
        marker=re.compile(rb"^top - ", re.M), needs=("top",),
    ),
    Subject(
        "psutil", "a Python loop over psutil, the same fields",
        lambda c: [sys.executable, str(HERE / "psutil_loop.py"), str(c.hz)],
        marker=re.compile(rb"^tick$", re.M), needs=("python:psutil",),
    ),
    Subject(
        "pidstat", "pidstat -u -r -d -w, all processes, each second (its shortest interval)",
        lambda c: ["pidstat", "-u", "-r", "-d", "-w", "-p", "ALL", "-h", "1"],
        period_s=lambda hz: 1.0, marker=re.compile(rb"^# +Time", re.M), needs=("pidstat",),
    ),
    Subject(
        "atop", "atop -P PRC,PRM,PRD each second (its shortest interval)",
        lambda c: ["atop", "-a", "-P", "PRC,PRM,PRD", "1"],
        period_s=lambda hz: 1.0, marker=re.compile(rb"^SEP$", re.M), needs=("atop",),
    ),
    Subject(
        "htop", "htop -d 3 in a terminal of 50 lines",
        lambda c: ["htop", "-d", str(max(1, round(10 / c.hz)))],
        period_s=lambda hz: max(1, round(10 / hz)) / 10, terminal=True, needs=("htop", "tmux"),
    ),
    Subject(
        "glances", "glances in a terminal of 50 lines, at its own rate of 2 s",
        lambda c: ["glances", "--disable-check-update", "--time", "2"],
        period_s=lambda hz: 2.0, terminal=True, needs=("glances", "tmux"), warm_s=3.0, warm_ms_each=0.5,
    ),
    Subject(
        "process-exporter", "process-exporter scraped at the beat",
        lambda c: [_exporter(), "-config.path", _exporter_config(c), "-web.listen-address", EXPORTER],
        scrape=f"http://{EXPORTER}/metrics", needs=(_exporter(),),
    ),
)}


def added(text: str) -> Subject:
    """A subject from `NAME=COMMAND`, such as rh-pipe of another checkout; {hz} and {scratch} in COMMAND are filled in.

    It must keep the beat's rate. Raises ValueError.
    """
    name, _, command = text.partition("=")
    if not name or not command or name in SUBJECTS:
        raise ValueError(f"{text}: NAME=COMMAND with a new name was expected")
    words = shlex.split(command)
    return Subject(name, command, lambda c: [w.format(hz=c.hz, scratch=c.scratch) for w in words], needs=(words[0],),
                   keeps_home=True, warm_s=2.5, warm_ms_each=0.5)


def prepare(subject: Subject) -> None:
    """What must be done once before the first turn. Raises SubjectError."""
    if not subject.prepare:
        return
    try:
        done = subprocess.run(subject.prepare, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=PREPARE_S)
    except subprocess.TimeoutExpired:
        raise SubjectError(f"{subject.prepare[0]}: not ready within {PREPARE_S} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise SubjectError(f"{' '.join(subject.prepare)}: {lines[-1] if lines else f'ended with {done.returncode}'}")


@dataclass(slots=True)
class Running:
    """A started subject: its root process and the file that its output goes to. `ended` returns its exit status."""

    pid: int
    output: Path
    ended: Callable[[], int | None]
    scraped: list[int] = field(default_factory=lambda: [0])

    def check(self) -> None:
        """Raises SubjectError when it is no longer there."""
        status = self.ended()
        if status is not None:
            lines = self.output.read_bytes()[-2000:].decode(errors="backslashreplace").strip().splitlines()
            raise SubjectError(f"ended with {status}: {lines[-1] if lines else 'without a word'}")


@contextmanager
def started(subject: Subject, context: Context) -> Iterator[Running]:
    """The subject runs inside of the block and is gone behind it. Raises SubjectError."""
    opener = _in_terminal if subject.terminal else _plain
    with opener(subject, context) as running:
        if not subject.scrape:
            yield running
            return
        with _scraping(subject.scrape, context.hz, running.scraped):
            yield running


def _environment(subject: Subject, context: Context) -> dict[str, str]:
    # No user settings: no ~/.toprc, no ~/.config/htop, no database or socket of theirs.
    places = ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"]
    places += [] if subject.keeps_home else ["HOME"]
    return {**os.environ, **dict.fromkeys(places, str(context.scratch)), "LC_ALL": "C.UTF-8"}


@contextmanager
def _plain(subject: Subject, context: Context) -> Iterator[Running]:
    output = context.scratch / f"{subject.name}-{time.monotonic_ns()}.out"
    # `load run` makes the kernel end the subject should this process be killed.
    command = [str(context.tools.load), "run", *subject.command(context)]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                   env=_environment(subject, context), cwd=context.scratch)
    try:
        yield Running(process.pid, output, process.poll)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _in_terminal(subject: Subject, context: Context) -> Iterator[Running]:
    """In a tmux server of its own, on a socket in the scratch directory; each turn has another, because the one before
    may still be on its way out."""
    tmux = ["tmux", "-S", str(context.scratch / f"tmux-{time.monotonic_ns()}"), "-f", "/dev/null"]
    environment = _environment(subject, context)
    environment.pop("TMUX", None)

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run([*tmux, *words], env=environment, capture_output=True, text=True, check=False,
                                  timeout=ASK_S)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 1, "", "no answer")

    made = ask("new-session", "-d", "-P", "-F", "#{pane_pid}", "-x", "160", "-y", "50", "exec " +
               " ".join(subject.command(context)))
    if made.returncode:
        raise SubjectError(f"tmux: {made.stderr.strip()}")
    pid = int(made.stdout)
    output = context.scratch / f"{subject.name}.out"
    output.touch()
    try:
        yield Running(pid, output, lambda: None if ask("has-session").returncode == 0 else 1)
    finally:
        ask("kill-server")


@contextmanager
def _scraping(address: str, hz: float, fetched: list[int]) -> Iterator[None]:
    """Fetch `address` at `hz` from a thread; `fetched[0]` counts the answers."""
    done = threading.Event()

    def loop() -> None:
        due = time.monotonic()
        while not done.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / hz, time.monotonic())
            try:
                with urllib.request.urlopen(address, timeout=SCRAPE_S) as answer:
                    answer.read()
                fetched[0] += 1
            except OSError:
                time.sleep(0.05)       # it is still starting; check() notices when it ended

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(SCRAPE_S + 1)
