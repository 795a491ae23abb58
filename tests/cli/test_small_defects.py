"""Small defects of texts that people read: each was seen once, and must not come back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import parse
from rogue_hunter.daemon.reload import changes
from rogue_hunter.metrics import Metrics

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_changes_of_the_configuration_are_shown_as_toml() -> None:
    """As the file holds them: true, not True."""
    now, _ = changes(Config(), parse(b"[reap]\nmode = \"armed\"\n[forensics]\nenabled = false\n"))
    assert sorted(now) == ['forensics.enabled true -> false', 'reap.mode "observe" -> "armed"']


@pytest.mark.parametrize("name", ["score", "track", "match", "reap", "metrics"])
def test_a_filter_that_is_given_a_file_says_how_to_read_it(rh: Run, name: str) -> None:
    done = rh(name, "a.ndjson")
    assert done.returncode == 2 and f"to read a file: rh-{name} < FILE\n".encode() in done.stderr


def test_a_counter_has_no_second_gauge() -> None:
    assert b"_created" not in Metrics().render()


def test_fish_shows_the_whole_help(rh: Run) -> None:
    """A help text holds commas; only the first comma separates."""
    shown = rh("config", "completion", "fish").stdout
    assert b'string split -m 1 ","' in shown and b'string split ","' not in shown


def test_a_second_rh_pipe_writes_nothing_to_the_log_of_the_first(rh: Run, spawn: Callable[..., subprocess.Popen[bytes]],
                                                                 tmp_path: Path, clean_env: dict[str, str]) -> None:
    home = {**clean_env, "HOME": str(tmp_path)}
    first = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--hz", "5", "--tee", "--no-socket"], env=home,
                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert first.stdout is not None and first.stdout.readline()
    log = tmp_path / ".local/state/rogue-hunter"
    second = rh("pipe", "--for", "1s", "--no-socket", HOME=str(tmp_path))
    assert second.returncode == 69
    first.terminate()
    first.stdout.close()
    first.wait(20)
    assert not [path for path in log.rglob("*") if path.is_file() and b"DatabaseError" in path.read_bytes()]


@pytest.mark.parametrize(("command", "code", "words"), [
    ("score <&-", 74, "standard input is closed"), ("pipe --tee --no-socket --for 1s >&-", 74, "standard output is closed"),
    ("report diff - x <&-", 65, "holds no tick"), ("mcp <&-", 74, "standard input is closed")])
def test_a_closed_standard_stream_is_not_the_next_file_that_is_opened(clean_env: dict[str, str], command: str, code: int,
                                                                     words: str) -> None:
    """The lowest free number is given to the next file: what is read and printed must not be that file's."""
    done = subprocess.run(["sh", "-c", f"exec {sys.executable} -P -m rogue_hunter {command}"], env=clean_env,
                          stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.returncode == code and words in done.stderr.decode() and b"Traceback" not in done.stderr
