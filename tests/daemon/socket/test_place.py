"""Where the socket stands and who may connect."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.daemon.socket.address import Peer, Place, SocketError, Taken, peer_of
from rogue_hunter.daemon.socket.client import ask, connect
from rogue_hunter.paths import PathError
from tests.tools.sockets import Served, received


@pytest.mark.parametrize("who", [Peer(os.geteuid() + 1, 99), None])
def test_another_user_is_refused(serve: Callable[..., Served], who: Peer | None) -> None:
    """By what the kernel says of it, and also when it says nothing."""
    served = serve(peer=lambda _: who)
    got = received(served.connect(), served)
    assert [each["type"] for each in got] == ["error"]
    assert served.server.clients == 0


def test_a_real_other_user_is_refused(serve: Callable[..., Served], directory: Path) -> None:
    """Even when the directory is open to the world."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    served = serve()
    directory.chmod(0o755)
    (directory / "run").chmod(0o777)
    served.place.path.chmod(0o666)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(20)
            client.connect(str(served.place.path))
            os.write(writing, client.recv(1000))
        finally:
            os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + 20
    while not served.server.state()["refused"] and time.monotonic() < deadline:
        served.loop.sleep(0.05)
    said = os.read(reading, 1000)
    os.close(reading)
    os.waitpid(child, 0)
    assert b"not for this user" in said and b"initial_state" not in said
    assert served.server.clients == 0


def test_the_peer_is_known(serve: Callable[..., Served]) -> None:
    """Our own connection: our uid and pid, from the kernel; a macOS answer is read as its header says."""
    served = serve()
    served.connect()
    (client,) = served.server._clients.values()
    assert client.peer == Peer(os.geteuid(), os.getpid())

    class Darwin:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert level == 0
            if option == 1:
                return (0).to_bytes(4, "little") + (501).to_bytes(4, "little") + bytes(68)
            return (4242).to_bytes(4, "little")

    assert peer_of(Darwin(), "darwin") == Peer(501, 4242)  # type: ignore[arg-type]
    assert peer_of(Darwin(), "plan9") is None  # type: ignore[arg-type]


# -- where the socket stands -----------------------------------------------------------------------------------------

def foreign(run: Path) -> None:
    """The directory of another user."""
    if os.geteuid() != 0:
        pytest.skip("giving a directory to another user needs root")
    run.mkdir(0o700)
    os.chown(run, 12345, 12345)


def linked(run: Path) -> None:
    """A link to a directory of ours."""
    (run.parent / "elsewhere").mkdir(0o700)
    run.symlink_to(run.parent / "elsewhere")


def open_to_all(run: Path) -> None:
    """Mode 0777."""
    run.mkdir()
    run.chmod(0o777)


def a_file(run: Path) -> None:
    """No directory at all."""
    run.write_text("mine")


@pytest.mark.parametrize("prepare", [foreign, linked, open_to_all, a_file])
def test_a_prepared_directory_is_refused(directory: Path, prepare: Callable[[Path], None]) -> None:
    """With the reason; a foreign file, a socket too, is left as it is."""
    run = directory / "run"
    prepare(run)
    bait = socket.socket(socket.AF_UNIX)
    if run.is_dir():
        bait.bind(str(run / "s"))
    before = sorted((str(p), os.lstat(p).st_mode, os.lstat(p).st_ino) for p in directory.rglob("*"))
    with pytest.raises((PathError, SocketError)) as caught:
        Place(run / "s")
    assert str(run) in str(caught.value)
    assert sorted((str(p), os.lstat(p).st_mode, os.lstat(p).st_ino) for p in directory.rglob("*")) == before
    bait.close()


def test_a_path_that_is_too_long_is_refused(directory: Path) -> None:
    """Before anything is made."""
    with pytest.raises(SocketError) as caught:
        Place(directory / ("x" * 100) / "s")
    assert caught.value.code == 78 and "at most" in str(caught.value)
    assert list(directory.iterdir()) == []
    with pytest.raises(SocketError):
        connect(directory / ("x" * 100) / "s")


@pytest.mark.parametrize(("name", "mode"), [("rogue-hunter", 0o700), ("run", 0o755)])
def test_a_directory_that_others_may_look_into(directory: Path, name: str, mode: int) -> None:
    """Our own runtime directory is closed; /run, which --socket may name, stays open. The socket is private in both."""
    (directory / name).mkdir()
    (directory / name).chmod(0o755)
    place = Place(directory / name / "s")
    assert stat.S_IMODE((directory / name).stat().st_mode) == mode
    place.listen().close()
    assert stat.S_IMODE(os.lstat(place.path).st_mode) == 0o600
    place.leave()


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_a_foreign_file_is_not_removed(directory: Path, kind: str) -> None:
    """A file, a link to a file, a directory under the socket's name."""
    (directory / "run").mkdir(0o700)
    path = directory / "run" / "s"
    target = directory / "precious"
    target.write_text("keep")
    if kind == "file":
        path.write_text("keep")
    elif kind == "link":
        path.symlink_to(target)
    else:
        path.mkdir()
    place = Place(path)
    with pytest.raises(SocketError, match="not replaced"):
        place.listen()
    place.leave()
    assert os.path.lexists(path) and target.read_text() == "keep"


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_the_lock_is_a_file_of_ours(directory: Path, kind: str) -> None:
    """A link or a fifo in its place is neither followed nor waited for."""
    (directory / "run").mkdir(0o700)
    lock = directory / "run" / "s.lock"
    if kind == "link":
        lock.symlink_to(directory / "new")
    else:
        os.mkfifo(lock)
    with pytest.raises(SocketError):
        Place(directory / "run" / "s")
    assert not (directory / "new").exists()


def test_one_serves_at_a_time(serve: Callable[..., Served], directory: Path) -> None:
    """The second reports who does; the socket of the first stays. After it, a stale socket is replaced."""
    served = serve()
    inode = os.lstat(served.place.path).st_ino
    with pytest.raises(Taken) as caught:
        Place(directory / "run" / "s")
    assert str(os.getpid()) in str(caught.value) and caught.value.code == 69
    assert os.lstat(served.place.path).st_ino == inode
    served.server.close()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(directory / "run" / "s"))
    stale.close()
    place = Place(directory / "run" / "s")
    place.listen().close()
    place.leave()
    assert not os.path.lexists(directory / "run" / "s")


def test_a_socket_that_was_removed_is_made_again(serve: Callable[..., Served], directory: Path) -> None:
    """A cleaner of temporary files took the directory; a second later clients find it again."""
    served = serve()
    shutil.rmtree(directory / "run")
    served.server.check()
    assert received(served.connect(), served)[0]["type"] == "initial_state"
    assert any("created again" in message for message in served.said)
    # Another process's socket is not removed at the end.
    os.unlink(served.place.path)
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(served.place.path))
    served.server.close()
    assert os.path.lexists(served.place.path)
    other.close()


def test_ask_without_a_server(directory: Path) -> None:
    """No socket, a stale one: 69; one of another user: 74."""
    with pytest.raises(SocketError) as caught:
        ask(directory / "s", {"type": "prune_request"}, "prune")
    assert caught.value.code == 69
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(directory / "s"))
    stale.close()
    with pytest.raises(SocketError) as caught:
        ask(directory / "s", {"type": "prune_request"}, "prune")
    assert caught.value.code == 69


def test_a_stranger_is_not_listened_to(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that another user serves is not trusted, unless we are root and may look at anything."""
    served = serve()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(SocketError) as caught:
        connect(served.place.path, peer=lambda _: Peer(4712, 1))
    assert caught.value.code == 74 and "4712" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("prepare", "code"), [
    (open_to_all, 74), (linked, 74), (a_file, 74), (foreign, 74), (None, 78)])
def test_rh_pipe_refuses_with_a_reason(rh: Callable[..., subprocess.CompletedProcess[bytes]], directory: Path,
                                       prepare: Callable[[Path], None] | None, code: int) -> None:
    """One line and the exit code, nothing removed, nothing sampled; without a socket it continues."""
    run = directory / ("run" if prepare else "x" * 100)
    if prepare is not None:
        prepare(run)
    database = directory / "x.db"
    done = rh("pipe", "--quiet", "--for", "1s", "--db", str(database), "--socket", str(run / "s"))
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1), done.stderr
    assert str(run).encode() in done.stderr
    assert not os.path.lexists(run / "s")
    reader = sqlite3.connect(database)
    assert reader.execute("SELECT count(*) FROM daemon_state WHERE key = 'last_tick'").fetchone() == (0,)
    reader.close()
    done = rh("pipe", "--quiet", "--for", "1s", "--db", str(database), "--no-socket")
    assert (done.returncode, done.stderr) == (0, b"")


def test_both_are_too_much(rh: Callable[..., subprocess.CompletedProcess[bytes]], directory: Path) -> None:
    """A socket and none."""
    assert rh("pipe", "--socket", "/x", "--no-socket").returncode == 2
