"""What is looked up across all processes, on trees of files: holders of locks, other ends, what takes too long."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from rogue_hunter.capture.linux import lookups as module
from rogue_hunter.capture.linux.lookups import SEARCH_S, Index, tcp_peers, unix_peers
from tests.tools.processes import Tree

LOCKS = (b"1: FLOCK  ADVISORY  WRITE 4711 08:01:77 0 EOF\n"    # 4711 is dead: a child inherited its file
         b"1: -> FLOCK  ADVISORY  WRITE 11 08:01:77 0 EOF\n"
         b"2: POSIX  ADVISORY  WRITE 10 08:01:88 0 EOF\n"
         b"2: -> POSIX  ADVISORY  READ 12 08:01:88 0 EOF\n"
         b"nonsense\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tmp_path = tmp_path / "proc"
    made = Tree(tmp_path)
    for pid, start in ((10, 300), (11, 100), (12, 200)):
        made.process(pid, b"x", ppid=1 if pid == 10 else 10, start=start)
        for kind in ("fd", "fdinfo"):
            (tmp_path / str(pid) / kind).mkdir()
    made.write("locks", LOCKS)
    made.write("10/fdinfo/3", b"pos:\t0\nflags:\t02\nlock:\t1: FLOCK  ADVISORY  WRITE 4711 08:01:77 0 EOF\n")
    made.write("12/fdinfo/3", b"pos:\t0\nflags:\t02\nlock:\t1: -> FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF\n")
    return made


def test_a_holder_that_only_fdinfo_names(tree: Tree) -> None:
    found = Index(tree.path)
    assert [(w.waiter, w.holder, w.kind, w.file) for w in found.locks()] == [
        (11, 10, "flock", "08:01:77"), (12, 10, "posix lock", "08:01:88")]
    assert found.locks() is found.locks() and not found.incomplete
    tree.write("locks", b"")
    assert found.locks()
    found.forget_locks()
    assert found.locks() == []


def test_a_holder_that_the_kernel_does_not_name(tree: Tree) -> None:
    (tree.path / "10/fdinfo/3").unlink()
    assert [w.holder for w in Index(tree.path).locks()] == [None, 10]


def test_a_search_ends_when_its_time_is_over(tree: Tree) -> None:
    clock = count(0.0, SEARCH_S)
    found = Index(tree.path, lambda: next(clock) * 1.01)
    assert found.locks()[0].holder is None and found.incomplete
    clock = count(0.0, SEARCH_S)
    found = Index(tree.path, lambda: next(clock) * 1.01)
    assert found.ends("pipe", 5) == [] and found.incomplete


def test_children_oldest_first_without_exited_ones(tree: Tree) -> None:
    tree.write("13/stat", b"")
    tree.write("notapid", b"")
    found = Index(tree.path)
    assert found.children(10) == [11, 12] and found.children(99) == [] and set(found.stats()) == {10, 11, 12}
    assert Index(tree.path / "none").stats() == {}


def test_both_ends_of_a_pipe(tree: Tree) -> None:
    (tree.path / "10/fd/4").symlink_to("pipe:[77]")
    (tree.path / "11/fd/0").symlink_to("pipe:[77]")
    (tree.path / "12/fd/0").symlink_to("/dev/null")
    (tree.path / "12/fd/x").symlink_to("pipe:[77]")
    found = Index(tree.path)
    assert found.ends("pipe", 77) == [(10, 4), (11, 0)] and found.ends("socket", 77) == [] and not found.incomplete
    assert found.pipe_ends("pipe:[77]") == [(10, 4), (11, 0)] and found.pipe_ends("/dev/null") == [(12, 0)]


def test_descriptors_that_may_not_be_read(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.descriptors

    def refused(root: Path, pid: int) -> list[tuple[int, str]]:
        if pid == 10:
            raise PermissionError
        if pid == 11:
            raise FileNotFoundError
        return real(root, pid)

    monkeypatch.setattr(module, "descriptors", refused)
    (tree.path / "12/fd/1").symlink_to("socket:[5]")
    found = Index(tree.path)
    assert found.ends("socket", 5) == [(12, 1)] and found.incomplete


TCP = b"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 900 1 x 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 901 1 x 20 4 30 10 -1
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 902 1 x 20 4 30 10 -1
   3: 0100007F:C351 0A000001:01BB 01 00000000:00000000 00:00000000 00000000     0        0 903 1 x 20 4 30 10 -1
garbage
"""


def test_both_ends_of_a_connection_of_this_machine(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write("10/net/tcp", TCP)
    assert tcp_peers(tree.path, 10) == {901: 902, 902: 901} and tcp_peers(tree.path, 99) == {}
    monkeypatch.setattr(module, "unix_peers", lambda: {5: 6})
    found = Index(tree.path)
    assert (found.socket_peer(10, 5), found.socket_peer(10, 901), found.socket_peer(10, 903)) == (6, 902, None)


def test_the_process_of_a_thread(tree: Tree) -> None:
    tree.write("500/status", b"Name:\tx\nTgid:\t10\nPid:\t500\n")
    found = Index(tree.path)
    assert found.thread_owner(500) == 10 and found.thread_owner(501) is None


def test_a_kernel_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr("socket.socket", refused)
    assert unix_peers() == {}
