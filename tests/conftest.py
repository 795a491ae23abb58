"""What every test may ask for: `--golden`, a bounded hypothesis profile, children that never outlive a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from proctools import dies_with_us

REPO = Path(__file__).resolve().parent.parent

settings.register_profile(
    "house",
    deadline=None,
    database=None,
    print_blob=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


def pytest_configure() -> None:
    """Whoever ends the run by SIGTERM ends it as Ctrl-C does: what tests began is taken down, directories are removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --golden` writes what the commands say now into the golden cases; read git diff afterwards."""
    parser.addoption("--golden", action="store_true", help="rewrite the expected output of the golden cases")


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Popen whose processes are killed and waited for at the end of the test, each by its own id."""
    started: list[subprocess.Popen[bytes]] = []

    def start(args: Sequence[str | Path], **options: object) -> subprocess.Popen[bytes]:
        options.setdefault("preexec_fn", dies_with_us)
        process = subprocess.Popen(args, **options)  # type: ignore[call-overload]
        started.append(process)
        return process  # type: ignore[no-any-return]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def patience() -> Iterator[None]:
    """Whoever waits for the other end of a fifo is woken, and the test fails."""

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
        return subprocess.run(
            [sys.executable, "-P", "-m", "rogue_hunter", name, *args],
            input=stdin,
            timeout=timeout,
            capture_output=True,
            env={**clean_env, **env},
            check=False,
        )

    return run
