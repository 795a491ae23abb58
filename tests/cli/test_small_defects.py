"""Small defects of texts that people read: each was seen once, and must not come back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import ConfigError, parse
from rogue_hunter.daemon.reload import changes
from rogue_hunter.metrics import Metrics

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.mark.parametrize(("text", "message"), [
    ('[system]\nhz = "fast"\n', 'system.hz: "fast": must be a number'),
    ("[system]\nring_ticks = 2.5\n", "system.ring_ticks: 2.5: must be a whole number"),
    ("[log]\nenabled = 1\n", "log.enabled: 1: must be true or false"),
    (f'[system]\nhz = "{"x" * 1000}"\n', "system.hz: must be a number"),
])
def test_a_wrong_value_is_shown(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "f")
    assert str(caught.value) == f"f: {message}"


def test_changes_of_the_configuration_are_shown_as_toml() -> None:
    """As the file holds them: true, not True."""
    now, _ = changes(Config(), parse(b"[reap]\nmode = \"armed\"\n[forensics]\nenabled = false\n"))
    assert sorted(now) == ['forensics.enabled true -> false', 'reap.mode "observe" -> "armed"']


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
