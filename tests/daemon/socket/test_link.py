"""The other end of the socket: missing, silent, malformed, or another user's."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.socket.address import Peer, SocketError
from rogue_hunter.daemon.socket.client import ask, connect, lines_of, place_of
from rogue_hunter.store.database import Lock, open_writer


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rh-") as place:   # a socket's path must be short
        yield Path(place) / "s"


@pytest.fixture
def answering(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Answer the next client with these bytes and hang up."""
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def serve(data: bytes) -> None:
        listener.bind(str(path))
        listener.listen(1)

        def work() -> None:
            client, _ = listener.accept()
            with client:
                client.settimeout(10)
                client.recv(4096)
                client.sendall(data)

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield serve
    listener.close()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize(("data", "code", "words"), [
    (b'{"type":"tick","v":1}\n{"type":"error","v":1,"message":"no \\u001b[2J"}\n', 74, "rh-pipe: no"),
    (b'{"type":"tick","v":1}\n', 69, "ended before it answered"), (b"", 69, "ended before it answered"),
    (b"[1]\n", 74, "malformed record"), (b"garbage\n", 74, "malformed record"), (b"\xff\xfe\n", 74, "malformed record"),
    (b'{"type":"prune_res', 69, "ended before it answered"),
])
def test_answers_that_are_none(path: Path, answering: Callable[[bytes], None], data: bytes, code: int, words: str) -> None:
    answering(data)
    with pytest.raises(SocketError, match=words) as refused:
        ask(path, {"type": "prune_request"}, "prune_result", timeout=10)
    assert refused.value.code == code


def test_an_answer_among_ticks(path: Path, answering: Callable[[bytes], None]) -> None:
    answering(b'{"type":"tick"}\n{"type":"prune_result","n":3}\n{"type":"tick"}\n')
    assert ask(path, {"type": "prune_request"}, "prune_result", timeout=10) == {"type": "prune_result", "n": 3}


def test_one_that_says_nothing_is_given_up(path: Path) -> None:
    """By a clock that is passed in, so the test does not wait."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        clock = iter((0.0, 600.5)).__next__
        with pytest.raises(SocketError, match="no answer in 600 s") as refused:
            ask(path, {"type": "x"}, "y", clock=clock)
    assert refused.value.code == 69


def test_an_endless_line_is_not_collected() -> None:
    parts = iter([b"a\nb" * 10, b"c" * 100])
    with pytest.raises(SocketError, match="endless") as refused:
        list(lines_of(lambda: next(parts), limit=50))
    assert refused.value.code == 74


def test_a_backlog_that_is_full_is_no_answer(path: Path) -> None:
    """A full accept queue blocks connect, and the client times out."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        held = []
        try:
            with pytest.raises(SocketError, match=r"does not answer|temporarily") as refused:
                for _ in range(20):
                    held.append(connect(path, timeout=0.05))
        finally:
            for each in held:
                each.close()
    assert refused.value.code in (69, 74)


def test_no_socket_at_all(path: Path) -> None:
    for there, code in ((path, 69), (path / "below" / "x", 69), (path.parent, 69)):
        with pytest.raises(SocketError) as refused:
            connect(there)
        assert refused.value.code in (code, 74)
    path.write_bytes(b"")
    with pytest.raises(SocketError) as refused:
        connect(path / "x")
    assert refused.value.code == 69


@pytest.mark.parametrize("who", [Peer(4711), None])
def test_socket_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, who: Peer | None) -> None:
    """A user does not read from another user's socket; root may read every user's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(SocketError, match="served by") as refused:
            connect(path, peer=lambda _: who)
        assert refused.value.code == 74
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        connect(path, peer=lambda _: who).close()


def test_the_socket_of_a_running_pipe_is_found_without_its_runtime_directory(path: Path, tmp_path: Path,
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """After su and in a crontab XDG_RUNTIME_DIR is not set: the database names the socket, while rh-pipe holds it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
    database = tmp_path / "x.db"
    writer, _ = open_writer(database)
    writer.execute("INSERT INTO daemon_state (key, value, updated_at) VALUES ('socket_path', ?, 0)", (f'"{path}"',))
    usual = tmp_path / "other/rogue-hunter/rh-pipe.sock"
    assert place_of(Config(), None, database) == usual
    lock = Lock(database)
    assert place_of(Config(), None, database) == path
    assert place_of(Config(), tmp_path / "s", database) == tmp_path / "s"
    usual.parent.mkdir(parents=True)
    usual.touch()
    assert place_of(Config(), None, database) == usual
    lock.release()
    writer.close()
