"""Clients that never read, vanish, flood, lie: none can delay the beat or make rh-pipe grow or fail."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rogue_hunter.daemon.socket.server import CHUNK, LINE, LINES_BURST
from tests.tools.docs import json_schema
from tests.tools.sockets import Served, received


def test_a_client_that_never_reads(serve: Callable[..., Served]) -> None:
    """Its queue stays bounded, others get everything, and it receives the number of dropped ticks; then it is disconnected."""
    served = serve(queue_ticks=16, stall_s=30)
    stuck, reader = served.connect(), served.connect()
    got: list[Any] = received(reader, served)
    for n in range(500):
        served.server.broadcast(json.dumps({"type": "tick", "v": 1, "seq": n, "pad": "x" * 20_000}).encode() + b"\n")
        got += received(reader, served, lambda found, n=n: found[-1].get("seq") == n)
    assert [each["seq"] for each in got if each["type"] == "tick"] == list(range(500))
    (held,) = [c for c in served.server._clients.values() if c.waiting]
    assert len(held.frames) == 16
    late = received(stuck, served)
    seen = [each.get("seq") for each in late if each["type"] == "tick"]
    (gap,) = [each for each in late if each["type"] == "dropped"]
    at = late.index(gap)
    assert late[at + 1]["seq"] - late[at - 1]["seq"] - 1 == gap["ticks"] == 500 - len(seen) == gap["total"]
    assert seen == sorted(seen) and seen[-1] == 499
    Draft202012Validator(json_schema("dropped")).validate(gap)

    for n in range(100):
        served.server.broadcast(json.dumps({"type": "tick", "v": 1, "seq": n, "pad": "x" * 20_000}).encode() + b"\n")
        received(reader, served)
    served.now += 29
    served.server.check()
    assert served.server.clients == 2
    served.now += 2
    served.server.check()
    assert served.server.clients == 1
    assert any("read nothing for 30 s" in message for message in served.said)


def test_clients_that_vanish(serve: Callable[..., Served]) -> None:
    """A thousand come and go, half of them in the middle of a line: no descriptor stays."""
    served = serve()
    served.connect().close()
    served.turn()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else len(os.listdir("/dev/fd"))
    for n in range(1000):
        client = served.connect()
        if n % 2:
            client.sendall(b'{"type":"log","v":1,"level":"inf')
        served.server.broadcast(b"x\n")
        client.close()
        served.turn()
    served.server.broadcast(b"x\n")
    served.turn()
    assert served.server.clients == 0
    assert served.server.state()["clients_total"] == 1001
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else len(os.listdir("/dev/fd"))
    assert after == before


def test_ten_megabytes_without_a_line_feed(serve: Callable[..., Served]) -> None:
    """Cut off after 64 KiB: what is held stays small however much is sent."""
    served = serve()
    client = served.connect()
    client.setblocking(False)
    sent = 0
    most = 0
    try:
        while sent < 10_000_000:
            try:
                sent += client.send(b"x" * 65536)
            except BlockingIOError:
                served.turn(1)
                most = max([most, *(len(c.received) for c in served.server._clients.values())])
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < 10_000_000
    assert most <= LINE + CHUNK
    assert served.server.clients == 0
    assert any("line of more than" in message for message in served.said)


def test_lines_beyond_the_rate_wait(serve: Callable[..., Served]) -> None:
    """Ten thousand short lines at once: so many are taken, the rest stays with the sender until time has passed."""
    served = serve()
    client = served.connect()
    client.setblocking(False)
    line = b'{"type":"log","v":1,"level":"info","message":"m"}\n'
    sent = client.send(line * 10_000)
    served.turn(50)
    assert len(served.written) == LINES_BURST
    (held,) = served.server._clients.values()
    assert len(held.received) <= LINE + CHUNK
    served.now += 1
    served.server.check()
    served.turn(50)
    assert len(served.written) == LINES_BURST + 20
    assert sent > 10_000


@pytest.mark.parametrize("line", [
    b"", b"null", b"[]", b"1", b'"x"', b"{}", b'{"type":"log"}', b'{"type":"log","v":2,"level":"info","message":"x"}',
    b'{"type":"log","v":1}', b'{"type":"log","v":1,"level":"loud","message":"x"}',
    b'{"type":"log","v":1,"level":"info","message":7}', b'{"type":["log"],"v":1}', b'{"type":"tick","v":1}',
    b"\xff\xfe", b'{"type":"log","v":1,"level":"info","message":"\xed\xa0\x80"}', b"[" * 60_000, b"NaN",
    b'{"type":"log","v":1,"level":"info","message":"x","pid":' + b"9" * 5000 + b"}",
])
def test_a_line_that_is_no_request_is_answered(serve: Callable[..., Served], line: bytes) -> None:
    """With an error record; nothing is done, and the client stays."""
    served = serve()
    client = served.connect()
    client.sendall(line + b"\n")
    served.turn(12)
    got = received(client, served)
    assert [each["type"] for each in got] == ["initial_state", "error"]
    assert (served.written, served.server.clients) == ([], 1)


def test_a_client_that_talks_nonsense_is_disconnected(serve: Callable[..., Served]) -> None:
    """After twenty lines of it."""
    served = serve()
    client = served.connect()
    client.sendall(b"nonsense\n" * 30)
    served.turn(10)
    assert served.server.clients == 0
    assert served.written == []


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_no_bytes_raise(chunks: list[bytes]) -> None:
    """After any input the loop continues and the next client is served."""
    place = Path(tempfile.mkdtemp(prefix="rh-"))
    served = Served(place)
    try:
        client = served.connect()
        for chunk in chunks:
            try:
                client.sendall(chunk + b"\n")
            except OSError:
                break
            served.turn(2)
        assert received(served.connect(), served)[0]["type"] == "initial_state"
    finally:
        served.close()
        shutil.rmtree(place)


def test_the_log_is_not_forged(serve: Callable[..., Served]) -> None:
    """A client's entry is tagged with its pid and a name that is not ours; too many are dropped and counted."""
    served = serve()
    client = served.connect()
    for source in ("rh-tail", "rh-pipe", "x" * 40, "a\nb"):
        client.sendall(json.dumps({"type": "log", "v": 1, "level": "error", "message": "e\x1b[2J\nforged",
                                   "source": source, "pid": 1}).encode() + b"\n")
    served.turn(10)
    assert [(w[0], w[2], w[3]) for w in served.written] == [
        ("error", "rh-tail", {"pid": os.getpid()}), *[("error", "client", {"pid": os.getpid()})] * 3]
    for n in range(12):
        served.now += 2
        client.sendall(b'{"type":"log","v":1,"level":"info","message":"m"}\n' * 40)
        served.server.check()
        served.turn(10)
        del n
    served.now += 100
    client.sendall(b'{"type":"log","v":1,"level":"info","message":"last"}\n')
    served.server.check()
    served.turn(10)
    said = [w for w in served.written if "were dropped" in w[1]]
    assert said and len(served.written) < 400


def test_too_many_clients(serve: Callable[..., Served]) -> None:
    """A client beyond the limit gets an error and is closed; the others are not affected."""
    served = serve(clients=3)
    clients = [served.connect() for _ in range(4)]
    got = received(clients[3], served)
    assert [each["type"] for each in got] == ["error"] and "3 clients" in got[0]["message"]
    assert served.server.clients == 3
    assert served.server.state()["refused"] == 1


def test_no_descriptors_left(serve: Callable[..., Served]) -> None:
    """The listener is not asked again at once, which would spin; a second later the client is served."""
    served = serve()
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 40, before[1]))
        try:
            while True:
                spare.append(os.dup(0))
        except OSError:
            pass
        client.connect(str(served.place.path))
        served.turn(3)
        assert served.server.clients == 0
        assert any("cannot accept" in message for message in served.said)
        assert len(served.loop._selector.get_map()) == 1
    finally:
        for fd in spare:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    served.server.check()
    served.turn()
    assert served.server.clients == 1
    client.close()
