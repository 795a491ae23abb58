"""Looking at real processes of this machine, and holding them by a pidfd."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.reap.identity import Unreadable
from rogue_hunter.reap.linux import LinuxMachine
from rogue_hunter.reap.signals import Gone, NotAProcess, Pidfd, Unsupported

REAP = Path(__file__).parents[2] / "rogue_hunter" / "reap"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

Spawn = Callable[..., "subprocess.Popen[bytes]"]


def test_ourselves() -> None:
    p = LinuxMachine().read(os.getpid())
    assert p.uids == (*os.getresuid(), os.geteuid()) and p.leader == p.pid == os.getpid() and p.session == os.getsid(0)
    assert p.row["ppid"] == os.getppid() and not p.kernel_thread and not p.dead and p.age_s > 0
    assert "python" in p.program.line and p.row["cpu_seconds_total"] > 0 and p.row["memory_bytes"] > 1 << 20


def test_our_ancestors() -> None:
    me = LinuxMachine().me()
    assert os.getppid() in me.ancestors and me.pid == os.getpid() and os.getpid() not in me.ancestors
    assert me.session == os.getsid(0) and me.uids == os.getresuid()


def test_the_identity_is_that_of_the_sampler(spawn: Spawn) -> None:
    from rogue_hunter.host.linux import LinuxHost

    child = spawn(["sleep", "60"])
    host = LinuxHost()
    try:
        keys = {key[0]: key for key in host.snapshot().processes}
        assert LinuxMachine().read(child.pid).key == keys[child.pid]
        assert LinuxMachine().boot_id() == host.facts().boot_id
    finally:
        host.close()


def test_cmdline_is_redacted_and_read_like_the_samplers(spawn: Spawn) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = spawn(["sh", "-c", "echo; read x", "sh", "--password=hunter2"], **pipes)
    child.stdout.readline()  # type: ignore[union-attr]  # in the middle of exec a process has no arguments
    row = LinuxMachine().read(child.pid).row
    assert "hunter2" not in str(row) and row["cmdline"].startswith("sh -c")


def test_a_held_process(spawn: Spawn) -> None:
    child = spawn(["sleep", "60"])
    handle = Pidfd(child.pid)
    assert not handle.gone() and handle.send(signal.SIGTERM) is None
    child.wait()
    assert handle.gone()
    with pytest.raises(Gone):
        handle.send(signal.SIGTERM)
    with pytest.raises(Gone):
        LinuxMachine().read(child.pid)
    with pytest.raises(Gone):
        Pidfd(child.pid)
    handle.close()
    handle.close()


def test_a_defunct_process_is_gone_and_dead(spawn: Spawn) -> None:
    child = spawn(["sleep", "60"])
    handle = Pidfd(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert handle.gone() and LinuxMachine().read(child.pid).dead
    handle.close()


def test_a_thread_is_no_process() -> None:
    found: list[int] = []
    started, end = threading.Event(), threading.Event()

    def work() -> None:
        found.append(threading.get_native_id())
        started.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    try:
        with pytest.raises(NotAProcess):
            Pidfd(found[0])
        assert LinuxMachine().read(found[0]).leader == os.getpid()
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("pid", [1, 0, -1, -500])
def test_the_numbers_that_mean_groups_are_never_held(pid: int) -> None:
    with pytest.raises(Unsupported):
        Pidfd(pid)


def test_a_kernel_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    with pytest.raises(Unsupported, match="Function not implemented"):
        Pidfd(os.getpid())
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(Unsupported, match="knows no pidfd_open"):
        Pidfd(os.getpid())


def test_kernel_threads_are_known() -> None:
    try:
        assert LinuxMachine().read(2).kernel_thread
    except (Gone, Unreadable):
        pytest.skip("no kernel threads are seen here")


HOSTILE = b"4242 (a) Z 1 2 3) S 77 4242 9 34817 -1 4194304 0 0 0 0 150 50 0 0 20 0 3 0 500 0 25 " + b"0 " * 30
STATUS = b"Name:\tx\\nUid:\t0\nTgid:\t4242\nUid:\t1000\t1000\t1000\t1000\nUid:\t0\t0\t0\t0\n"


def tree(root: Path, stat: bytes, status: bytes) -> LinuxMachine:
    folder = root / "4242"
    folder.mkdir()
    (folder / "stat").write_bytes(stat)
    (folder / "status").write_bytes(status)
    (folder / "cmdline").write_bytes(b"/opt/x\0--token\0abc\0")
    (folder / "cgroup").write_bytes(b"0::/user.slice\n")
    return LinuxMachine(root, boottime=lambda: 65.0)


def test_hostile_names_move_no_field(tmp_path: Path) -> None:
    p = tree(tmp_path, HOSTILE, STATUS).read(4242)
    assert p.row["command"] == "a) Z 1 2 3" and p.row["ppid"] == 77 and p.session == 9 and p.row["tty"] == "pts/1"
    assert p.uids == (1000,) * 4 and p.key == (4242, 500) and p.age_s == 60.0 and p.row["cpu_seconds_total"] == 2.0
    assert p.row["cmdline"] == "/opt/x --token ***" and p.row["threads"] == 3


@pytest.mark.parametrize(("stat", "status"), [
    (b"", STATUS), (b"4242 (x) S", STATUS), (b")", STATUS), (HOSTILE, b""), (HOSTILE, b"Uid:\tx\nTgid:\t4242\n"),
    (HOSTILE, b"Uid:\t1000 1000 1000 1000\n"), (b"\0" * 300, STATUS)])
def test_what_is_not_understood_is_unreadable(tmp_path: Path, stat: bytes, status: bytes) -> None:
    with pytest.raises(Unreadable):
        tree(tmp_path, stat, status).read(4242)


def test_a_bundle_of_ourselves_and_of_nobody() -> None:
    found = LinuxMachine().bundle(os.getpid())
    assert found["open_files"] > 2 and found["threads"][0]["tid"] == os.getpid()
    assert LinuxMachine().bundle(1 << 22) == {}


def test_no_number_is_ever_given_to_kill() -> None:
    """Only the macOS module may name kill(2), for kernels without audit tokens; the rest sends through handles."""
    for file in REAP.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in (
                    "kill", "killpg", "pthread_kill", "send_signal", "raise_signal", "terminate", "tgkill"):
                owner = ast.unparse(node.value)
                where = f"{file.name}:{node.lineno}: {owner}.{node.attr}"
                assert (file.name == "darwin.py" and owner in ("handle", "self", "self._signaller")) or \
                    (file.name == "escalate.py" and owner == "victim"), where
