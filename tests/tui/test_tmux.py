"""rh-top in a real terminal (tmux), on a real rh-pipe: keys, a restart, a process that is terminated or refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.tools.processes import wait_for

pytest.importorskip("textual")

pytestmark = [pytest.mark.waits, pytest.mark.slow, pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: rh-top "
                                                   "was not tried in a real terminal")]

Spawn = Callable[..., "subprocess.Popen[bytes]"]


class Terminal:
    """A tmux server of its own with one window, which ends with the command."""

    def __init__(self, directory: Path, env: Mapping[str, str], width: int, height: int) -> None:
        self.env, self._socket = env, directory / "t"
        self._size = ["-x", str(width), "-y", str(height)]

    def tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-f", "/dev/null", "-S", str(self._socket), *words], capture_output=True,
                              text=True, env={**self.env, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}, timeout=30,
                              check=False)
        return done.stdout

    def start(self, *command: str) -> None:
        """Run a command in it."""
        self.tmux("new-session", "-d", *self._size, *command, ";", "set", "-g", "remain-on-exit", "on")

    def screen(self) -> str:
        """The text on it."""
        return self.tmux("capture-pane", "-p")

    def keys(self, *keys: str) -> None:
        """Press keys, by their names in tmux."""
        self.tmux("send-keys", *keys)

    def wait(self, text: str, seconds: float = 30.0, *, gone: bool = False) -> str:
        """The screen once the text is on it (or is not any more)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (text in (now := self.screen())) is not gone:
                return now
            time.sleep(0.05)
        raise AssertionError(f"no {text!r}:\n{self.screen()}")

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name."""
    made = Path(tempfile.mkdtemp(prefix="rh-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def env(clean_env: Mapping[str, str], place: Path) -> dict[str, str]:
    """Its own home, so that rules and audit file are there."""
    return {**clean_env, "HOME": str(place), "PATH": os.environ["PATH"]}


@pytest.fixture
def pipe(spawn: Spawn, env: Mapping[str, str], place: Path) -> Callable[[], subprocess.Popen[bytes]]:
    """Start rh-pipe."""
    def start() -> subprocess.Popen[bytes]:
        return spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "-q", "--socket", str(place / "run" / "s"),
                      "--db", str(place / "x.db")], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
    return start


@pytest.fixture
def terminal(env: Mapping[str, str], place: Path) -> Iterator[Callable[[int, int], Terminal]]:
    """Start rh-top in a terminal of a size."""
    made: list[Terminal] = []

    def start(width: int, height: int) -> Terminal:
        made.append(Terminal(place, env, width, height))
        made[-1].start(sys.executable, "-P", "-m", "rogue_hunter", "top", "--socket", str(place / "run" / "s"))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_keys(pipe: Callable[[], subprocess.Popen[bytes]], terminal: Callable[[int, int], Terminal],
              burn: Callable[[], int]) -> None:
    """What people press: sort, filter, tree, detail, help, pause; the terminal is given back by q."""
    pid = burn()
    pipe()
    top = terminal(80, 24)
    top.wait("COMMAND")
    top.keys("/", *str(pid), "Enter")       # below busier processes its row may be outside of the screen
    screen = top.wait(f"/{pid} 1 of")
    top.keys("s")
    top.wait("CPU%▼")
    assert "while kill -0" in screen and len(screen.splitlines()) <= 24
    top.keys("Enter")
    top.wait("threads")
    top.keys("Escape")
    top.wait("TRACKED")
    top.keys("Escape")      # with the next key behind it at once, it would be Alt
    top.wait(f"/{pid} 1 of", gone=True)
    top.keys("t")
    top.wait("▾")
    top.keys("?")
    top.wait("fold or unfold")
    top.keys("q")
    top.wait("TRACKED")
    top.keys("Space")
    top.wait("PAUSED")
    top.keys("q")
    wait_for(lambda: top.tmux("display-message", "-p", "#{pane_dead}").strip() == "1", 30)


def test_terminate_under_the_guards_of_rh_reap(pipe: Callable[[], subprocess.Popen[bytes]], place: Path,
                                               terminal: Callable[[int, int], Terminal], burn: Callable[[], int]) -> None:
    """The question names the process; only y confirms. Root's processes are refused, as everywhere."""
    pid = burn()
    pipe()
    top = terminal(120, 30)
    top.wait("COMMAND")
    top.keys("/", *str(pid), "Enter")
    top.wait(f"/{pid} 1 of")
    top.keys("k")
    if os.geteuid() == 0:
        top.wait("one of its user ids is root's")
    else:
        assert "while kill -0" in top.wait("Proceed? [y/N]")
        top.keys("y")
        top.wait("terminated by SIGTERM")
        assert "rh-top" in (place / ".local/state/rogue-hunter/rh-pipe.log").read_text()
    assert (place / ".local/state/rogue-hunter/audit.log").exists()


def test_a_restart_of_rh_pipe_is_followed_within_two_seconds(pipe: Callable[[], subprocess.Popen[bytes]], place: Path,
                                                             terminal: Callable[[int, int], Terminal]) -> None:
    """From the moment at which the socket is there; in the meantime the head counts down, and keys work."""
    first = pipe()
    top = terminal(100, 30)
    top.wait(f"[{first.pid}]")
    first.send_signal(signal.SIGTERM)
    first.wait(20)
    top.wait("trying again in")
    top.keys("?")
    top.wait("fold or unfold")
    top.keys("q")
    second = pipe()
    deadline = time.monotonic() + 30
    while not (place / "run" / "s").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    top.wait(f"rh-pipe 0.1.0 [{second.pid}] again")
    assert time.monotonic() - began < 2.0 + 3       # three seconds for starts of tmux on a busy machine
    top.wait("trying again", gone=True)
