"""Looking at real processes of this machine, and holding them by a pidfd."""

from __future__ import annotations

import ast
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rogue_hunter.reaper import linux
from rogue_hunter.reaper.linux import LinuxMachine
from rogue_hunter.reaper.process import Gone, NotAProcess, Pidfd, Unreadable, Unsupported

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
    from rogue_hunter.host.linux.host import LinuxHost

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


def test_rules_see_what_masks_cover(spawn: Spawn) -> None:
    """A rule may protect by an argument that looks like a secret, or that lies behind a very long one."""
    for argv, seen in ((["--token", "build-farm"], "--token build-farm"), (["--token=" + "x" * 9000, "--keep"], None)):
        child = spawn(["sh", "-c", "echo; read x", "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()  # type: ignore[union-attr]
        found = LinuxMachine().read(child.pid)
        assert "--token" in found.row["cmdline"] and not found.row["cmdline"].endswith(("farm", "x"))
        if seen is None:
            assert found.program.line is None and found.program.line_unread
        else:
            assert found.program.line is not None and found.program.line.endswith(seen)


def test_a_relative_script_is_known_by_its_whole_path(spawn: Spawn, tmp_path: Path) -> None:
    """So that a whitelist of paths protects it."""
    (tmp_path / "worker.sh").write_text("echo; read x\n")
    child = spawn(["sh", "./worker.sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)
    child.stdout.readline()  # type: ignore[union-attr]  # in the middle of exec a process has no arguments
    assert str(tmp_path / "worker.sh") in LinuxMachine().read(child.pid).located.names


def test_a_held_process(spawn: Spawn) -> None:
    child = spawn(["sleep", "60"])
    handle = LinuxMachine().open(child.pid)
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


def stat_of(pid: int = 4242, *, comm: bytes = b"x", state: bytes = b"S", ppid: int = 77, flags: int = 0x400000,
            tty: int = 0) -> bytes:
    return b"%d (%s) %s %d 4242 9 %d -1 %d 0 0 0 0 150 50 0 0 20 0 3 0 500 0 25 " % (
        pid, comm, state, ppid, tty, flags) + b"0 " * 30


def status_of(*uids: int) -> bytes:
    return b"Tgid:\t4242\nUid:\t" + b"\t".join(b"%d" % uid for uid in uids) + b"\n"


MINE = status_of(1000, 1001, 1002, 1003)


class TestReading:
    def test_everything_that_a_decision_needs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The user is the effective one; memory is in pages."""
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name=f"user{uid}"))
        p = tree(tmp_path, stat_of(), MINE).read(4242)
        assert {k: v for k, v in p.row.items() if k not in ("cmdline", "cgroup", "exe")} == {
            "pid": 4242, "start_ticks": 500, "ppid": 77, "uid": 1001, "user": "user1001", "command": "x",
            "state": "sleeping", "threads": 3, "memory_bytes": 25 * os.sysconf("SC_PAGE_SIZE"), "cpu_seconds_total": 2.0}
        assert (p.key, p.uids, p.leader, p.session, p.kernel_thread, p.age_s) == (
            (4242, 500), (1000, 1001, 1002, 1003), 4242, 9, False, 60.0)

    def test_a_user_without_a_name_and_a_state_without_a_word(self, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
        p = tree(tmp_path, stat_of(state=b"Q"), MINE).read(4242)
        assert "user" not in p.row and p.row["state"] == "sleeping" and "tty" not in p.row

    @pytest.mark.parametrize(("state", "word"), [
        (b"R", "running"), (b"D", "uninterruptible"), (b"T", "stopped"), (b"Z", "defunct")])
    def test_states(self, tmp_path: Path, state: bytes, word: str) -> None:
        assert tree(tmp_path, stat_of(state=state), MINE).read(4242).row["state"] == word

    @pytest.mark.parametrize(("ppid", "flags", "kernel"), [
        (77, 0x400000, False), (77, 0x200000, True), (77, 0x600000, True), (2, 0, False), (0, 0x200000, True)])
    def test_a_kernel_thread_by_its_flag_alone(self, tmp_path: Path, ppid: int, flags: int, kernel: bool) -> None:
        """kthreadd is 2, but in a container 2 is an ordinary process."""
        assert tree(tmp_path, stat_of(ppid=ppid, flags=flags), MINE).read(4242).kernel_thread is kernel

    @pytest.mark.parametrize(("link", "own"), [
        ("pid:[4026531836]", False), ("pid:[4026532201]", True), (None, False)])
    def test_the_pid_namespace(self, tmp_path: Path, link: str | None, own: bool) -> None:
        """The initial one has a fixed number; without an answer, low pids are the system's."""
        (tmp_path / "self/ns").mkdir(parents=True)
        if link is not None:
            (tmp_path / "self/ns/pid").symlink_to(link)
        assert LinuxMachine(tmp_path).me().own_pid_namespace is own

    def test_no_age_is_below_zero(self, tmp_path: Path) -> None:
        tree(tmp_path, stat_of(), MINE)
        assert LinuxMachine(tmp_path, boottime=lambda: 4.0).read(4242).age_s == 0.0
        assert LinuxMachine(tmp_path, boottime=lambda: 5.25).read(4242).age_s == 0.25

    @pytest.mark.parametrize(("fields", "unread"), [
        ({}, "its arguments cannot be read"), ({"cmdline": "x"}, "its program cannot be read"),
        ({"exe": "/x"}, "its arguments cannot be read"), ({"exe": "/x", "cmdline": ""}, "")])
    def test_names_that_cannot_be_read_are_unknown(
            self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], unread: str) -> None:
        """Whether reading them is denied or fails makes no difference: they may be protected."""
        for denied in (True, False):
            monkeypatch.setattr(linux, "describe", lambda *_, denied=denied, **more: (fields, denied))
            root = tmp_path / str(denied)
            root.mkdir()
            assert tree(root, stat_of(), MINE).read(4242).program.names_unread == unread

    def test_what_may_not_be_read_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(*_: object) -> bytes:
            raise PermissionError(13, "Permission denied")

        machine = tree(tmp_path, stat_of(), MINE)
        with pytest.raises(Gone):
            machine.read(4243)
        monkeypatch.setattr(linux, "_read", denied)
        with pytest.raises(Unreadable, match=r"4242: Permission denied$"):
            machine.read(4242)

    def test_a_long_status_is_read_as_far_as_the_user_ids(self, tmp_path: Path) -> None:
        """Many groups are in it, and a name of 64 escaped bytes before them."""
        padding = b"Name:\t" + b"x" * 6000 + b"\n"
        assert tree(tmp_path, stat_of(), padding + MINE).read(4242).uids == (1000, 1001, 1002, 1003)


class TestAncestors:
    @staticmethod
    def me(monkeypatch: pytest.MonkeyPatch, root: Path, parents: dict[int, int]) -> set[int]:
        for pid, ppid in parents.items():
            (root / str(pid)).mkdir()
            (root / str(pid) / "stat").write_bytes(stat_of(pid, ppid=ppid))
        monkeypatch.setattr(os, "getppid", lambda: 40)
        return set(LinuxMachine(root).me().ancestors)

    @pytest.mark.parametrize(("parents", "ancestors"), [
        ({40: 30, 30: 1, 1: 0}, {40, 30, 1}), ({40: 0}, {40}), ({40: 30}, {40, 30}), ({40: 30, 30: 40}, {40, 30}),
        ({}, {40}), ({40: 40}, {40})], ids=str)
    def test_up_to_the_first_as_far_as_they_can_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        parents: dict[int, int], ancestors: set[int]) -> None:
        assert self.me(monkeypatch, tmp_path, parents) == ancestors

    @pytest.mark.parametrize(("parents", "hidden_before"), [
        ({40: 30, 30: 1, 1: 0}, 0), ({40: 30, 30: 1}, 0), ({40: 30}, 500), ({}, sys.maxsize)], ids=str)
    def test_above_one_that_is_hidden_any_older_process_may_be_one(
            self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parents: dict[int, int], hidden_before: int) -> None:
        """Such as sudo under hidepid. The first process has no parent."""
        self.me(monkeypatch, tmp_path, parents)
        assert LinuxMachine(tmp_path).me().hidden_before == hidden_before

    def test_outside_of_our_namespace_there_is_no_parent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "getppid", lambda: 0)
        assert LinuxMachine(tmp_path).me().ancestors == frozenset()

    def test_a_broken_tree_does_not_hang(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(linux, "_read", lambda path: stat_of(ppid=int(path.parent.name) + 1))
        assert len(self.me(monkeypatch, tmp_path, {})) == linux.ANCESTORS_MAX == 1000


@pytest.mark.parametrize(("nspid", "found"), [(b"7", []), (b"7 2", []), (b"7 1", [8, 9, 11])])
def test_what_ends_with_the_first_process_of_a_pid_namespace(tmp_path: Path, nspid: bytes, found: list[int]) -> None:
    """Those of its namespace, of one that may not be read, and of any further down; 10 is in another one."""
    for pid, pids, space in ((7, nspid, "a"), (8, b"8 2", "a"), (9, b"9 3", None), (10, b"10 1", "b"),
                             (11, b"11 4 1", "c"), (12, b"12", "host")):
        (tmp_path / str(pid) / "ns").mkdir(parents=True)
        (tmp_path / str(pid) / "status").write_bytes(b"Name:\tx\nNSpid:\t" + pids + b"\n")
        if space is not None:
            (tmp_path / str(pid) / "ns/pid").symlink_to(space)
    assert sorted(LinuxMachine(tmp_path).ends_with(7)) == found
    assert LinuxMachine(tmp_path).ends_with(99) == []


class TestBundle:
    def test_what_it_waits_for_holds_open_and_runs(self, tmp_path: Path) -> None:
        folder = tmp_path / "4242"
        (folder / "fd").mkdir(parents=True)
        for i in range(3):
            (folder / "fd" / str(i)).touch()
        for name, data in (("wchan", b"do_wait"), ("syscall", b"61 0x1\n"), ("stack", b"[<0>] do_wait\n")):
            (folder / name).write_bytes(data)
        for tid, state, wchan in ((10, b"D", b"io_schedule"), (9, b"Q", b"0"), (4242, b"R", b"")):
            (folder / "task" / str(tid)).mkdir(parents=True)
            (folder / "task" / str(tid) / "stat").write_bytes(stat_of(tid, comm=b"t%d" % tid, state=state))
            (folder / "task" / str(tid) / "wchan").write_bytes(wchan)
        (folder / "task" / "11").mkdir()
        assert LinuxMachine(tmp_path).bundle(4242) == {
            "wchan": "do_wait", "syscall": "61 0x1", "stack": "[<0>] do_wait", "open_files": 3, "threads": [
                {"tid": 4242, "command": "t4242", "state": "running"},
                {"tid": 9, "command": "t9", "state": "sleeping"},
                {"tid": 10, "command": "t10", "state": "uninterruptible", "wchan": "io_schedule"}]}

    @pytest.mark.parametrize("wchan", [b"0", b"", b"\n"])
    def test_a_process_that_waits_for_nothing_has_no_wait(self, tmp_path: Path, wchan: bytes) -> None:
        (tmp_path / "4242").mkdir()
        (tmp_path / "4242" / "wchan").write_bytes(wchan)
        assert LinuxMachine(tmp_path).bundle(4242) == {}

    def test_no_more_than_a_person_reads(self, tmp_path: Path) -> None:
        """16 threads, the first of the process before all, and 4 KiB of a stack."""
        folder = tmp_path / "4242"
        for tid in (*range(1, 30), 4242):
            (folder / "task" / str(tid)).mkdir(parents=True)
            (folder / "task" / str(tid) / "stat").write_bytes(stat_of(tid))
            (folder / "task" / str(tid) / "wchan").write_bytes(b"0")
        (folder / "stack").write_bytes(b"x" * 5000)
        found = LinuxMachine(tmp_path).bundle(4242)
        assert [t["tid"] for t in found["threads"]] == [4242, *range(1, 16)] and found["stack"] == "x" * 4096

    def test_no_descriptor_is_left_open(self, tmp_path: Path) -> None:
        machine = tree(tmp_path, stat_of(), MINE)
        free = os.dup(0)
        os.close(free)
        machine.read(4242)
        machine.bundle(4242)
        again = os.dup(0)
        os.close(again)
        assert again == free


def test_the_boot_as_the_tree_says(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_bytes(b"abc\xff\n")
    assert LinuxMachine(tmp_path).boot_id() == "abc\ufffd"


def test_a_bundle_of_ourselves_and_none() -> None:
    found = LinuxMachine().bundle(os.getpid())
    assert found["open_files"] > 2 and os.getpid() in [each["tid"] for each in found["threads"]]
    assert LinuxMachine().bundle(1 << 22) == {}


def test_no_number_is_ever_given_to_kill() -> None:
    """Only the macOS module may name kill(2), for kernels without audit tokens; the rest sends through handles."""
    for file in REAP.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in (
                    "kill", "killpg", "pthread_kill", "send_signal", "raise_signal", "terminate", "tgkill"):
                owner = ast.unparse(node.value)
                where = f"{file.name}:{node.lineno}: {owner}.{node.attr}"
                assert (file.name == "macos.py" and owner in ("handle", "self", "self._signaller")) or \
                    (file.name == "signals.py" and owner == "victim"), where
