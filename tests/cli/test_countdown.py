"""The countdown of rh-pipe --for, and the facts of rh-pipe --version."""

from __future__ import annotations

import io
import os
import platform
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rogue_hunter.cli.pipe import Countdown
from rogue_hunter.host.facts import facts

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_the_line_is_rewritten_once_a_second_and_removed() -> None:
    now = [96.0]
    out = io.StringIO()
    line = Countdown("x", 10, out, lambda: now[0])
    now[0] = 100.0      # opening the host took a while: the time starts with the first line
    line.show()
    line.show()
    assert out.getvalue() == "\rx: 10 s left"
    now[0] = 100.9
    line.show()
    assert out.getvalue() == "\rx: 10 s left"
    now[0] = 101.0
    line.show()
    assert out.getvalue() == "\rx: 10 s left\rx: 9 s left "
    line.clear()
    line.clear()
    assert out.getvalue().endswith("\r           \r") and out.getvalue().count("\r") == 4
    now[0] = 200.0
    line.show()
    assert out.getvalue().endswith("\rx: 0 s left")


def test_a_closed_terminal_is_ignored() -> None:
    out = io.StringIO()
    line = Countdown("x", 10, out)
    out.close()
    line.show()
    line.clear()


@pytest.mark.parametrize(("options", "shown"), [((), True), (("--quiet",), False)])
def test_rh_pipe_counts_down_on_a_terminal(
    clean_env: Mapping[str, str], tmp_path: Path, options: tuple[str, ...], shown: bool
) -> None:
    """On standard error, and nothing of it is left when the report comes."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--for", "1s", "--hz", "5", "--report", "--no-socket",
               "--db", str(tmp_path / "x.db"), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL, env=dict(clean_env),
                          timeout=60, check=False)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert done.returncode == 0 and b"s left" not in done.stdout
    assert (b"rh-pipe: 1 s left" in seen) is shown, seen


def test_no_countdown_in_a_pipe(rh: Run, tmp_path: Path) -> None:
    done = rh("pipe", "--for", "1s", "--hz", "5", "--no-socket", "--db", tmp_path / "x.db")
    assert done.returncode == 0 and b"s left" not in done.stderr and b"\r" not in done.stderr


def test_the_version_of_rh_pipe_holds_what_a_bug_report_needs(rh: Run) -> None:
    shown = rh("pipe", "--version").stdout.decode()
    assert shown.startswith("rh-pipe, version ")
    for fact in (f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}", platform.release(), "orjson "):
        assert fact in shown
    assert rh("score", "--version").stdout.decode().count("\n") == 1


def test_facts_of_a_machine_without_pressure_and_os_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown facts are left out; a pressure file that cannot be read is no pressure."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert "pressure (PSI): no" in facts(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('NAME=x\nPRETTY_NAME="Some Linux 1"\n')
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/pressure/cpu").write_text("some avg10=0.00\n")
    found = facts(tmp_path)
    assert "Some Linux 1" in found and "pressure (PSI): yes" in found
