"""What clients ask for: pruning, and the slices in memory."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rogue_hunter.config.options import Retention
from rogue_hunter.daemon.socket.requests import CMDLINE, Pruner, processes, slices
from rogue_hunter.store.database import open_writer
from rogue_hunter.stream.tick import Tick
from rogue_hunter.text.format import path_text
from tests.tools.docs import json_schema
from tests.tools.sockets import Served, received
from tests.tools.ticks import closing, key, row


def test_prune_through_the_socket(serve: Callable[..., Served], tmp_path: Path) -> None:
    """In pieces between the beats, of a database with any name; the answer says what rh-prune would say."""
    database = tmp_path / (os.fsdecode(b"x\xff.db") if sys.platform == "linux" else "x.db")
    connection, _ = open_writer(database)
    for n in range(100):
        connection.execute(
            "INSERT INTO process_events (event, boot_id, pid, start_ticks, entry_time, exit_time, last_seen)"
            " VALUES (?, 'b', ?, 1, ?, ?, ?)", (f"e{n}", n, n, None if n < 3 else n + 1, n + 1))
    served = serve()
    served.server.handle("prune_request", Pruner(served.loop, lambda: connection, database,
                                                 lambda level, message: None).handle)
    client = served.connect()
    received(client, served)
    client.setblocking(True)
    client.sendall(json.dumps({"type": "prune_request", "v": 1, "older_than_s": 60.0, "max_bytes": 100000000,
                               "database": path_text(database)}).encode() + b"\n")
    deadline = time.monotonic() + 20
    while connection.execute("SELECT count(*) FROM process_events").fetchone()[0] > 3 and time.monotonic() < deadline:
        served.loop.sleep(0.03)
    served.loop.sleep(0.1)
    (answer,) = received(client, served)
    Draft202012Validator(json_schema("prune")).validate(answer)
    assert answer["removed"] == {"process_events": 97} and answer["open_events"] == 3
    connection.close()


def test_slices_through_the_socket(serve: Callable[..., Served]) -> None:
    """One record with the slice records in memory."""
    kept = [{"type": "machine_slice", "v": 1, "slice": 5.0, "boot_id": "b", "seconds": 5.0, "ticks": 15}]
    served = serve()
    served.server.handle("slices_request", slices(lambda: kept, lambda: 7.0))
    client = served.connect()
    received(client, served)
    client.setblocking(True)
    client.sendall(b'{"type":"slices_request","v":1}\n')
    served.loop.sleep(0.1)
    (answer,) = received(client, served)
    Draft202012Validator(json_schema("slices")).validate(answer)
    assert answer == {"type": "slices", "v": 1, "ts": 7.0, "records": kept}


def asked(served: Served, request_: bytes) -> dict[str, Any]:
    """The answer to a request."""
    client = served.connect()
    received(client, served)
    client.setblocking(True)
    client.sendall(request_ + b"\n")
    served.loop.sleep(0.1)
    found: dict[str, Any] = received(client, served)[-1]
    return found


def test_processes_through_the_socket(serve: Callable[..., Served]) -> None:
    """Those with the highest score, the most CPU, the most memory; of the last tick, rogue or not."""
    served = serve()
    served.server.handle("processes_request", processes(lambda: served.feed.last, served.loop.soon))
    none = asked(served, b'{"type":"processes_request","v":1,"limit":5}')
    assert none == {"type": "processes", "v": 1, "total": 0, "rows": []}
    rows = [row(2, score=9), row(3, cpu_percent=50.0), row(4, memory_bytes=1 << 40, cmdline="x" * 4000), row(5)]
    served.feed.take(Tick(closing(7, 4), {key(each): each for each in rows}))
    answer = asked(served, b'{"type":"processes_request","v":1,"limit":3}')
    Draft202012Validator(json_schema("processes")).validate(answer)
    assert [each["pid"] for each in answer["rows"]] == [2, 3, 4] and answer["total"] == 4
    assert answer["rows"][0] == rows[0] and len(answer["rows"][2]["cmdline"]) == CMDLINE
    assert answer["rows"][2]["cmdline"].endswith("x…") and "filter" not in answer
    found = asked(served, b'{"type":"processes_request","v":1,"limit":1,"filter":" XXX "}')     # not among the first two
    assert [each["pid"] for each in found["rows"]] == [4] and (found["total"], found["filter"]) == (4, " XXX ")
    for wrong in (b"0", b"10001", b"-1", b'"5"'):
        refused = asked(served, b'{"type":"processes_request","v":1,"limit":' + wrong + b"}")
        assert refused["type"] == "error" and "limit" in refused["message"]


@pytest.mark.parametrize("request_", [
    {"older_than_s": -1.0, "max_bytes": 10**9}, {"older_than_s": 1.0, "max_bytes": 5},
    {"older_than_s": 1.0}, {"older_than_s": "1", "max_bytes": 10**9},
])
def test_a_wrong_prune_request_is_refused(serve: Callable[..., Served], tmp_path: Path,
                                          request_: dict[str, Any]) -> None:
    """Nothing is pruned by numbers that make no sense."""
    served = serve()
    pruner = Pruner(served.loop, lambda: pytest.fail("asked"), tmp_path / "x", lambda level, message: None)
    served.server.handle("prune_request", pruner.handle)
    client = served.connect()
    client.sendall(json.dumps({"type": "prune_request", "v": 1, **request_}).encode() + b"\n")
    served.turn()
    served.loop.sleep(0.1)
    assert received(client, served)[-1]["type"] == "error"


def test_prune_without_a_connection(serve: Callable[..., Served], tmp_path: Path) -> None:
    """The disk is full: the answer is an error, and so it is when the file gives up in the middle."""
    served = serve()
    closed = sqlite3.connect(":memory:")
    closed.close()
    for connection in (None, closed):
        served.server.handle("prune_request", Pruner(served.loop, lambda c=connection: c, tmp_path / "x",
                                                     lambda level, message: None).handle)
        client = served.connect()
        client.sendall(b'{"type":"prune_request","v":1,"older_than_s":60.0,"max_bytes":100000000}\n')
        served.turn()
        for _ in range(3):
            served.loop.sleep(0.1)
        assert received(client, served)[-1]["type"] == "error"


def test_rh_pipe_prunes_by_itself(serve: Callable[..., Served], tmp_path: Path) -> None:
    """By the configured age, in pieces, without a request; not while there is no connection."""
    connection, _ = open_writer(tmp_path / "x.db")
    now = 100 * 86400.0
    for minute in (1.0, 2.0, now - 60):
        connection.execute("INSERT INTO machine_minutes (minute, boot_id, ticks, seconds) VALUES (?, 'b', 1, 1)",
                           (minute,))
        connection.execute("INSERT INTO machine_slices (slice, boot, seconds, ticks) VALUES (?, 1, 5, 1)",
                           (now - 49 * 3600 + minute % 100,))
    served = serve()
    held: list[sqlite3.Connection | None] = [None]
    pruner = Pruner(served.loop, lambda: held[0], tmp_path / "x.db", lambda level, message: None, lambda: now,
                    lambda: Retention(days=30.0))
    pruner.routine()
    held[0] = connection
    assert connection.execute("SELECT count(*) FROM machine_minutes").fetchone()[0] == 3
    pruner.routine()
    deadline = time.monotonic() + 20
    while connection.execute("SELECT count(*) FROM machine_slices").fetchone()[0] and time.monotonic() < deadline:
        served.loop.sleep(0.03)
    assert connection.execute("SELECT minute FROM machine_minutes").fetchall() == [(int(now - 60),)]
    connection.close()
