"""The mark of rogue-hunter's own processes: what has it is own, and nothing that only looks like it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter import OWN_MARK
from rogue_hunter.host.linux.describe import LINK, describe
from rogue_hunter.host.linux.parse import parse_stat
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row
from tests.tools.processes import REPO, Tree, ready, status_text, unprivileged, wait_for

Spawn = Callable[..., "subprocess.Popen[bytes]"]
PROC = Path("/proc")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd_create is Linux'")


def described(pid: int) -> Row:
    key: Key = (pid, parse_stat((PROC / str(pid) / "stat").read_bytes()).start)
    return describe(PROC, key)[0]


def test_a_real_command_is_own(spawn: Spawn) -> None:
    """One that waits for its input, which it has when its name is set."""
    child = spawn([sys.executable, "-P", "-m", "rogue_hunter", "score"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                  cwd=REPO)
    wait_for(lambda: (PROC / str(child.pid) / "comm").read_text() == "rh-score\n", 30)
    assert described(child.pid)["own"] is True


IMPOSTORS = {
    "argv[0]": ["-c", "exec -a rh-pipe sleep 60"],
    "module in argv[0]": ["-c", "exec -a 'python -P -m rogue_hunter pipe' sleep 60"],
    "arguments": ["-c", "sleep 60; :", "-m", "rogue_hunter", "pipe"],
    "copy": ["-c", "cp $(command -v sleep) rh-pipe; exec ./rh-pipe 60"],
    "script": ["-c", "echo 'sleep 60; :' > rh-pipe; exec sh rh-pipe"],
    "directory": ["-c", "mkdir rogue_hunter; cp $(command -v sleep) rogue_hunter/x; exec rogue_hunter/x 60"],
    "module": ["-c", "echo 'import time; time.sleep(60)' > rogue_hunter.py; exec \"$0\" -m rogue_hunter pipe", sys.executable],
    "program": ["-c", "echo 'import time; time.sleep(60)' > rh-pipe; exec \"$0\" ./rh-pipe", sys.executable],
    "file": ["-c", f"exec 3> '{OWN_MARK}'; exec -a rh-pipe sleep 60"],
    "shell of a command": ["-c", "read x; rh-report; :"],
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_an_impostor_is_not_own(spawn: Spawn, tmp_path: Path, name: str) -> None:
    """A program of another origin is never own by its names, path or arguments."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    child = spawn([bash, *IMPOSTORS[name]], stdin=subprocess.PIPE, cwd=tmp_path)
    wait_for(lambda: b"rh-" in (line := (PROC / str(child.pid) / "cmdline").read_bytes()) or b"rogue_hunter" in line)
    assert "own" not in described(child.pid)


def test_a_program_that_a_command_becomes_is_not_own(spawn: Spawn) -> None:
    """The mark is closed on exec."""
    code = "from rogue_hunter.commandline.run import mark; import os; mark(); os.execvp('sleep', ['rh-pipe', '60'])"
    child = spawn([sys.executable, "-P", "-c", code], cwd=REPO)
    wait_for(lambda: (PROC / str(child.pid) / "cmdline").read_bytes().startswith(b"rh-pipe"))
    assert "own" not in described(child.pid)


def test_another_users_mark_does_not_count(spawn: Spawn) -> None:
    """Root's rh-pipe does not take an ordinary user's word for it."""
    user = unprivileged()
    if not user:
        pytest.skip("needs root and an interpreter that others may run")
    code = f"import os; fd = os.memfd_create('{OWN_MARK}'); print('x', flush=True); input()"
    child = spawn([*user, "/usr/bin/python3", "-c", code, "rogue_hunter"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ready(child)
    assert "own" not in described(child.pid)


@pytest.mark.parametrize(("uid", "own"), [(0, True), (os.geteuid(), True), (4242, None)])
def test_a_recorded_mark(tmp_path: Path, uid: int, own: bool | None) -> None:
    tree = Tree(tmp_path / "proc")
    tree.process(7, cmdline=b"python\0-m\0rogue_hunter\0pipe\0")
    tree.write("7/status", status_text(uid))
    (tree.path / "7/fd").mkdir()
    os.symlink("/dev/null", tree.path / "7/fd/0")
    os.symlink(LINK, tree.path / "7/fd/3")
    assert describe(tree.path, (7, 1000))[0].get("own") is own
