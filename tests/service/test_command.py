"""rh-service as a command."""

from __future__ import annotations

import json
import os
import plistlib
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.service.launchd import LABEL
from rogue_hunter.service.systemd import lingers


def test_print_writes_and_changes_nothing(rh: Callable[..., subprocess.CompletedProcess[bytes]],
                                          tmp_path: Path) -> None:
    """Of either manager, and the rule."""
    home = {"HOME": str(tmp_path)}
    done = rh("service", "install", "--print", "--manager", "systemd", "--hz", "2", "--db", "x.db", **home)
    assert done.returncode == 0 and b"Type=notify" in done.stdout
    assert f"--db {Path.cwd() / 'x.db'} --hz 2\n".encode() in done.stdout
    done = rh("service", "install", "--print", "--manager", "launchd", **home)
    assert plistlib.loads(done.stdout)["Label"] == LABEL
    done = rh("service", "install", "--print", "--tailspin", "--manager", "launchd", **home)
    assert b"NOPASSWD: /usr/bin/tailspin save -l 30 " in done.stdout
    done = rh("service", "install", "--print", "--system", **home)
    assert done.returncode == 0 and b"AmbientCapabilities=CAP_PERFMON" in done.stdout
    assert rh("service", "status", "--system", "--manager", "systemd", **home).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_without_a_manager(rh: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path) -> None:
    """One line, 69, nothing written."""
    empty = tmp_path / "bin"
    empty.mkdir()
    for verb in ("install", "status", "start"):
        done = rh("service", verb, "--manager", "systemd", HOME=str(tmp_path / "h"), PATH=str(empty))
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (69, b"", 1)
    assert not (tmp_path / "h").exists()


def test_uninstall_keeps_the_history_by_default(rh: Callable[..., subprocess.CompletedProcess[bytes]],
                                                 tmp_path: Path) -> None:
    """--purge deletes data, state and runtime directories, asks first, and leaves the configuration."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    (bin_ / "systemctl").chmod(0o755)
    env = {"HOME": str(tmp_path), "PATH": f"{bin_}:{os.environ['PATH']}"}
    kept = [tmp_path / ".local/share/rogue-hunter/rogue-hunter.db", tmp_path / ".local/state/rogue-hunter/rh-pipe.log",
            tmp_path / ".config/rogue-hunter/config.toml"]
    for file in kept:
        file.parent.mkdir(parents=True, mode=0o700)
        file.write_text("")
    assert rh("service", "uninstall", "--manager", "systemd", **env).returncode == 0
    assert all(file.exists() for file in kept)
    done = rh("service", "uninstall", "--purge", "--manager", "systemd", **env)
    assert done.returncode == 1 and b"--yes" in done.stderr and all(file.exists() for file in kept)
    assert rh("service", "uninstall", "--purge", "--yes", "--manager", "systemd", **env).returncode == 0
    assert [file.parent.exists() for file in kept] == [False, False, True]


def test_logs_are_records_in_a_pipe(rh: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path) -> None:
    """The last N entries; none is no error."""
    log = tmp_path / ".local/state/rogue-hunter/rh-pipe.log"
    assert rh("service", "logs", HOME=str(tmp_path)).stdout == b""
    log.parent.mkdir(parents=True)
    entries = [{"type": "log", "v": 1, "ts": 1.0, "level": "info", "source": "rh-pipe", "message": f"{n}"}
               for n in range(30)]
    log.write_text("".join(json.dumps(e) + "\n" for e in entries))
    done = rh("service", "logs", "-n", "5", HOME=str(tmp_path))
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["25", "26", "27", "28", "29"]


def test_whether_a_user_lingers(tmp_path: Path) -> None:
    """It is a file with the user's name."""
    assert not lingers(tmp_path)
    (tmp_path / pwd.getpwuid(os.geteuid()).pw_name).touch()
    assert lingers(tmp_path)
