"""How a run goes (workers, order, `serial`, `--golden`), and what every test may ask for."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, settings

from rogue_hunter.commandline import run as cli_run
from tests.tools import forked

REPO = Path(__file__).resolve().parent.parent
LAST = 12
"""How many tests a run of several workers keeps for its end: more than there are `serial` ones."""
LONG = "RH_LONG" in os.environ

settings.register_profile(
    "house",
    deadline=None,
    database=None,
    print_blob=True,
    max_examples=100 if LONG else 40,
    derandomize=not LONG,       # the same examples in each ordinary run: it does not fail by chance
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


def pytest_configure() -> None:
    """SIGTERM ends the run as Ctrl-C does: what tests began is taken down, directories are removed."""
    _handle_signals()


def _handle_signals() -> None:
    """SIGINT too: a shell that starts the run in the background has it ignored. Every child inherits what is ignored, and
    a shell cannot trap it, so it is set again after a test that ran a command in this process."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --golden` writes the present output of the commands into the golden cases; read git diff afterwards."""
    parser.addoption("--golden", action="store_true", help="rewrite the expected output of the golden cases")
    parser.addoption("--pairs", metavar="N", type=int, default=100_000,
                     help="random pairs of rule and process (tests/rules/test_unknown.py)")
    parser.addoption("--random-order", metavar="SEED", help="run the tests in an order drawn from SEED")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs in a worker for each CPU and two more, as many tests wait for a process or a clock; a choice by
    -m, which is the quick form, with one more. Files that are named run here, as the start of workers costs more.

    worksteal keeps the tests of a file together, which share what the file prepares. `-n` on the command line comes first.
    """
    option = config.option
    if hasattr(config, "workerinput") or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return      # a worker that began workers would never come to an end of them
    if not option.usepdb and getattr(option, "numprocesses", 0) is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        option.numprocesses = cpus + (1 if option.markexpr else 2)
        option.dist = "worksteal"


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Each worker imports the test files from another one on: in a fresh checkout a file is then compiled by the first that
    comes to it, and read by the others, where all would compile it at the same time. The collection that follows reports
    what cannot be imported."""
    worker = getattr(session.config, "workerinput", None)
    if worker is not None:
        files = sorted((REPO / "tests").rglob("test_*.py"))
        first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
        for file in (*files[first:], *files[:first]):
            with suppress(Exception, pytest.skip.Exception):
                import_module(".".join(file.relative_to(REPO).with_suffix("").parts))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each worker begins with long tests, so that none ends with one while others are idle: two with those that wait, the
    others with those that compute. Tests that need the machine for themselves are last."""
    seed = config.getoption("--random-order")
    if seed is not None:
        random.Random(seed).shuffle(items)
    else:
        workers = getattr(config, "workerinput", {}).get("workercount", 1)
        items[:] = _dealt(items, workers) if workers > 1 else items
    items.sort(key=_is_serial)


def _dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in the order in which xdist's worksteal deals them: a part of equal length to each worker. Of a file,
    the tests that wait stay together, and so do the others if some are long: they share what the file prepares."""
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    waits = [item for item in items if _is(item, "waits")]
    long = {item.path for item in items if _is(item, "slow") and not _is(item, "waits")}
    computes = [item for item in items if item.path in long and not _is(item, "waits")]
    cut = -2 if workers > 3 else -1
    for hosts, tests in ((parts[cut:], waits), (parts[:cut], computes)):
        for _, group in groupby(tests, lambda item: item.path):
            min(hosts, key=lambda part: (sum(_is(item, "slow") for item in part), len(part))).extend(group)
    begun = {id(item) for part in parts for item in part}
    short = [item for item in items if id(item) not in begun]
    for index, part in enumerate(parts):
        left = sum(map(len, parts[index:])) + len(short)
        room = max(0, left // (workers - index) - len(part))
        part += short[:room]
        del short[:room]
    return [item for part in parts for item in part]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """worksteal, but the last tests, which need the machine for themselves, are given out when no other is left: the other
    workers would have to come to the end of their files and then to wait."""
    from xdist.scheduler.worksteal import MIN_PENDING, WorkStealingScheduling

    class SerialLast(WorkStealingScheduling):
        kept: list[int] | None = None

        def check_schedule(self) -> None:
            if self.kept is None and self.pending:      # all tests, in their order
                self.kept, self.pending[-LAST:] = self.pending[-LAST:], []
            longest = max((len(queue) for node, queue in self.node2pending.items() if not node.shutting_down), default=0)
            if self.kept and not self.pending and not self.steal_requested_from_node and longest <= MIN_PENDING:
                self.pending, self.kept = self.kept, []
            super().check_schedule()

        @property
        def tests_finished(self) -> bool:
            return not self.kept and super().tests_finished

    return SerialLast(config, log) if config.option.dist == "worksteal" else None


def pytest_collection_finish() -> None:
    """The thousands of tests are left out of each search for garbage: 5 % of the CPU."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """The process from which commands are forked ends."""
    forked.close()


HELD = pytest.StashKey[bool]()
"""Whether this worker still holds the lock that it took for the test before."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """While a `serial` test runs in one worker, the others wait: it holds this file's lock alone, every other test shares it.

    Each takes the lock behind a gate, the lock of another file, which a serial test closes: of the others one would always
    hold the first lock. It stays closed for the serial tests that follow. A worker shares the lock to the end of a file:
    what its fixtures have started runs until then.
    """
    mask = os.umask(0o022)      # a command that runs in this process sets another one
    os.umask(mask)
    if not hasattr(item.config, "workerinput"):
        try:
            return (yield)
        finally:
            os.umask(mask)
    lock, gate = _locks()
    serial = _is_serial(item)
    if not item.config.stash.get(HELD, False):
        _take(gate, fcntl.LOCK_EX)
        _take(lock, fcntl.LOCK_EX if serial else fcntl.LOCK_SH)
        if not serial:
            fcntl.flock(gate, fcntl.LOCK_UN)
    try:
        return (yield)
    finally:
        _handle_signals()
        os.umask(mask)
        held = nextitem is not None and _is_serial(nextitem) == serial and (serial or nextitem.path == item.path)
        item.config.stash[HELD] = held
        if not held:
            for file in (lock, gate):
                fcntl.flock(file, fcntl.LOCK_UN)


def _is(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None


def _is_serial(item: pytest.Item) -> bool:
    return _is(item, "serial")


def _take(file: int, how: int) -> None:
    """Lock it. A process that is blocked by a file lock is what rh-pipe reports: no test may do it beside a scenario."""
    while True:
        try:
            return fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)


@cache
def _locks() -> tuple[int, int]:
    """Descriptors of the two files, open as long as this worker is. A child that a test forked has them too: only LOCK_UN
    releases a lock, not its end."""
    return os.open(__file__, os.O_RDONLY | os.O_CLOEXEC), os.open(REPO / "pyproject.toml", os.O_RDONLY | os.O_CLOEXEC)


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """once(name, make): the directory that `make` fills, filled once in a run: workers share it and only read it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base

    def filled(name: str, make: Callable[[Path], object]) -> Path:
        place = shared / name
        with (shared / f"{name}.lock").open("wb") as lock:
            _take(lock.fileno(), fcntl.LOCK_EX)
            if not place.exists():
                part = shared / f"{name}.part"
                part.mkdir()
                make(part)
                part.rename(place)
        return place

    return filled


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Popen whose processes are killed and waited for at the end of the test, each by its own id."""
    started: list[subprocess.Popen[bytes]] = []

    def start(args: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        process = forked.popen(args, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def burn(spawn: Callable[..., subprocess.Popen[bytes]]) -> Callable[[], int]:
    """Start a shell that burns a core, and return its pid. It ends with the test, or when it is killed.

    The shell that starts it is stepped over in the search for its unit, so that it is a unit of its own: the loops of
    all workers would otherwise be parts of one unit, the test run, and their event would be that unit's.
    """
    def start() -> int:
        starter = spawn(["/bin/sh", "-c", "/bin/sh -c 'while kill -0 $PPID; do :; done' 2>/dev/null & echo $!; wait"],
                        stdout=subprocess.PIPE)
        assert starter.stdout is not None
        return int(starter.stdout.readline())

    return start


@pytest.fixture
def patience() -> Iterator[None]:
    """A process that waits for the other end of a fifo is woken, and the test fails."""

    def waited(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def clean_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which a command finds this checkout and no configuration or data of a user."""
    home = tmp_path_factory.mktemp("home")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "LC_ALL", "TZ", "COVERAGE_PROCESS_CONFIG")
    }
    return {**kept, "HOME": str(home), "PYTHONPATH": str(REPO)}


@pytest.fixture(scope="session")
def rh(clean_env: Mapping[str, str]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run `rh-NAME ARGUMENT...` as a process of its own: rh("score", "--top", "3", stdin=bytes)."""

    def run(
        name: str, *args: str | Path, stdin: bytes = b"", timeout: float = 60, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        return forked.run([name, *args], {**clean_env, **env}, stdin, timeout)

    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
               ) -> Iterator[Callable[[click.Command], Callable[..., subprocess.CompletedProcess[bytes]]]]:
    """A command as a function that runs it here, in UTC, without a configuration: a start of Python for each run would
    take long. Keyword arguments are variables of its environment."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.delenv("COLUMNS", raising=False)
    time.tzset()
    mask = os.umask(0o077)

    def made(command: click.Command) -> Callable[..., subprocess.CompletedProcess[bytes]]:
        def run(*args: str | Path, **env: str) -> subprocess.CompletedProcess[bytes]:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in env.items():
                    patch.setenv(name, value)
                code = cli_run.run(command, [str(arg) for arg in args])
            printed = capfdbinary.readouterr()
            return subprocess.CompletedProcess(args, code, printed.out, printed.err)
        return run

    yield made
    os.umask(mask)
    monkeypatch.undo()
    time.tzset()
