"""What a process is called: read once, off the beat, of exactly that process, secrets masked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rogue_hunter.files import read_start
from rogue_hunter.host.linux.describe import Describer, cgroup_path, describe
from rogue_hunter.host.linux.parse import parse_stat
from rogue_hunter.text.redact import LIMIT
from tests.tools.processes import Tree, stat_line


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "proc", recorded=True)


def test_recorded_process(tree: Tree) -> None:
    """Program, command line and control group; the secret is gone."""
    fields, denied = describe(tree.path, (1000, 426727))
    assert fields["exe"] == "/usr/bin/python3.11" and fields["cgroup"] == "/system.slice/demo.service"
    assert fields["cmdline"].startswith("/usr/bin/python3 -c import time") and "hunter2" not in fields["cmdline"]
    assert fields["cmdline"].endswith("--token ***") and not denied


@pytest.mark.parametrize(
    ("pid", "field", "value"),
    [
        (1008, "exe", "/usr/bin/gone (deleted)"),
        (1009, "cmdline", None),
        (1010, "cmdline", "postgres: user db password=*** idle"),
        (1002, "cmdline", None),
        (1002, "exe", None),
    ],
)
def test_odd_processes(tree: Tree, pid: int, field: str, value: str | None) -> None:
    """A deleted program keeps the kernel's word for it; existing arguments that read as nothing are unknown, as are those
    of a zombie; a title is redacted as well."""
    start = int((tree.path / f"{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    fields, denied = describe(tree.path, (pid, start))
    assert fields.get(field) == value and not denied


@pytest.mark.parametrize(("start", "end", "cmdline"), [
    (4096, 4096, ""), (4096, 4105, None), (4096, 0, None), (0, 0, None)])
def test_arguments_that_read_as_nothing(tree: Tree, start: int, end: int, cmdline: str | None) -> None:
    """They are empty only if the kernel shows that. In the middle of an exec they have no end yet, and a process may have
    given back the memory that they lie in; of others' processes the kernel does not tell."""
    words = stat_line(1009).split()
    words[47:49] = [b"%d" % start, b"%d" % end]
    tree.write("1009/stat", b" ".join(words))
    tree.write("1009/cmdline", b"")
    assert describe(tree.path, (1009, 1000))[0].get("cmdline") == cmdline


def test_arguments_without_masks(tree: Tree) -> None:
    argv: list[str] = []
    tree.write("1009/stat", stat_line(1009))
    tree.write("1009/cmdline", b"x\0--token\0farm\0")
    fields, _ = describe(tree.path, (1009, 1000), argv=argv)
    assert (fields["cmdline"], argv) == ("x --token ***", ["x", "--token", "farm"])


def test_another_process_by_now(tree: Tree) -> None:
    """A pid that changed hands is not described as the process that was asked for."""
    assert describe(tree.path, (1000, 1)) == ({}, False)


@pytest.mark.parametrize("pid", [1012, 1013, 1014, 9999])
def test_what_is_cut_short_or_gone(tree: Tree, pid: int) -> None:
    """Vanished or malformed: nothing is reported, nothing raised."""
    assert describe(tree.path, (pid, 1)) == ({}, False)


@pytest.mark.skipif(sys.platform != "linux", reason="reads its own /proc")
def test_pages_shared_since_a_fork() -> None:
    """A worker that its parent has filled with 80 MiB, as servers do before they fork."""
    forks = ("import os, sys\nfilled = b'x' * (80 << 20)\npid = os.fork()\nif pid:\n    print(pid, flush=True)\n"
             "sys.stdin.read()\nif pid:\n    os.waitpid(pid, 0)")
    with subprocess.Popen([sys.executable, "-c", forks], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        pid = int(parent.stdout.readline())
        start = parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).start
        shared = describe(Path("/proc"), (pid, start), shared=True)[0]["shared_bytes"]
        parent.stdin.close()
    assert shared >= 80 << 20


def test_kernel_thread_is_not_asked(tree: Tree) -> None:
    """A kernel thread has neither program nor arguments."""
    fields, denied = describe(tree.path, (2, 24), kernel_thread=True)
    assert fields == {"cgroup": "/system.slice/demo.service"} and not denied


def test_denied(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be read is reported as unreadable; the rest is read."""

    def readlink(path: object, **_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "readlink", readlink)
    fields, denied = describe(tree.path, (1000, 426727))
    assert denied and "exe" not in fields and "cmdline" in fields


def test_huge_command_line(tree: Tree) -> None:
    """10 MB of arguments are read and kept to a few KiB."""
    tree.write("1000/cmdline", b"prog\0" + b"x" * 10_000_000)
    fields, _ = describe(tree.path, (1000, 426727))
    assert len(fields["cmdline"]) == LIMIT
    tree.write("1000/cmdline", b"a\0" * 5_000_000)
    fields, _ = describe(tree.path, (1000, 426727))
    assert fields["cmdline"] == ("a " * (LIMIT // 2))


def test_program_name_of_any_bytes(tmp_path: Path) -> None:
    """The path of a program that is no UTF-8 becomes text without surrogates."""
    tree = Tree(tmp_path / "proc")
    tree.write("5/stat", stat_line(5))
    os.symlink(b"/opt/\xff\xfe", os.fsencode(tree.path / "5/exe"))
    fields, _ = describe(tree.path, (5, 1000))
    assert fields["exe"] == "/opt/\\xff\\xfe"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"0::/user.slice/a.scope\n", "/user.slice/a.scope"),
        (b"0::/\n", "/"),
        (b"12:cpu:/\n1:name=systemd:/system.slice/x.service\n0::/\n", "/system.slice/x.service"),
        (b"4:memory:/docker/abc\n1:name=systemd:/\n0::/\n", "/docker/abc"),
        (b"0::/a:b:c\n", "/a:b:c"),
        (b"0::/\xff\n", "/\\xff"),
        (b"", None),
        (b"nonsense", None),
        (b"::\n", None),
    ],
)
def test_cgroup_path(data: bytes, path: str | None) -> None:
    """The unified hierarchy's path, else systemd's, else the longest of version 1."""
    assert cgroup_path(data) == path


def test_describer_answers_off_the_beat(tree: Tree) -> None:
    """Asking costs nothing, answers come when they are ready, and the thread ends on request."""
    describer = Describer(tree.path)
    assert describer.answers() == []
    describer.ask((1000, 426727), False)
    describer.ask((9999, 1), False)
    describer.wait(10)
    answers = {key: (fields, denied) for key, fields, denied in describer.answers()}
    assert answers[1000, 426727][0]["exe"] == "/usr/bin/python3.11"
    assert answers[9999, 1] == ({}, False)
    assert describer.answers() == []
    describer.close()
    describer.close()


def test_describer_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot be read (its memory is locked) holds up the names, never the beat."""
    tree = Tree(tmp_path / "proc")
    tree.write("5/stat", stat_line(5))
    tree.write("5/cmdline", b"at last\0")
    unlocked = threading.Event()

    def read(name: str, size: int, *, dir_fd: int) -> bytes:
        assert unlocked.wait(60)
        return read_start(name, size, dir_fd=dir_fd)

    monkeypatch.setattr("rogue_hunter.host.linux.describe.read_start", read)
    describer = Describer(tree.path)
    describer.ask((5, 1000), False)
    describer.wait(0.05)
    assert describer.answers() == []
    unlocked.set()
    describer.wait(10)
    ((_, fields, _),) = describer.answers()
    assert fields["cmdline"] == "at last"
    describer.close()
