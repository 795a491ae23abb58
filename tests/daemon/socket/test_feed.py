"""What clients of the socket get."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from jsonschema import Draft202012Validator

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.socket.requests import Broadcast
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick
from rogue_hunter.tracking.events import Track
from tests.tools.docs import json_schema
from tests.tools.sockets import Served, received, ticks
from tests.tools.ticks import at_once, key, row, stream


def test_a_client_gets_the_state_and_then_every_tick(serve: Callable[..., Served]) -> None:
    """initial_state, the last tick, and each tick with its rogues and events; every record is valid."""
    served = serve(queue_ticks=100)
    stage = chain(ticks(60), Broadcast(served.feed, served.server))
    for _ in range(20):
        next(stage)
    client = served.connect()
    sent = list(stage)
    got = received(client, served)
    assert got[0]["type"] == "initial_state"
    assert [each["seq"] for each in got if each["type"] == "tick"][1:] == [t.row["seq"] for t in sent if t.row]
    assert len(got[0]["history"]) == 20
    assert got[0]["ts"] == next(each["ts"] for each in got if each["type"] == "tick")
    events = [each for each in got if each["type"] == "event"]
    assert events == [r for t in sent for r in t.records if r["type"] == "event"] != []
    for each in got:
        Draft202012Validator(json_schema(each["type"])).validate(each)
    known = {event["event"] for event in got[0]["events"]}
    assert {e["event"] for e in events if e["kind"] not in ("enter",)} <= known | {
        e["event"] for e in events if e["kind"] == "enter"}


def test_only_rogues_are_sent_and_bulky_records_are_not(serve: Callable[..., Served]) -> None:
    """Ten thousand idle processes and a capture's stacks stay here."""
    served = serve()
    client = served.connect()
    rows = [row(n) for n in range(100, 400)] + [row(7, cpu_percent=100.0, state="running")]

    def captured(tick: Tick) -> Tick:
        tick.records = []
        if tick.row is not None and tick.row["seq"] == 1:
            tick.records = [{"type": "spindump_thread", "v": 1}, {"type": "capture", "v": 1}]
        return tick

    list(chain(stream([rows, rows]), Score(Config()), Track(at_once(Config())), captured,
               Broadcast(served.feed, served.server)))
    got = received(client, served)
    assert [each["pid"] for each in got if each["type"] == "process"] == [7, 7]
    assert [each["processes"] for each in got if each["type"] == "tick"] == [301, 301]
    assert {each["type"] for each in got} == {"initial_state", "process", "tick", "capture"}


def test_nothing_is_encoded_without_a_client(serve: Callable[..., Served]) -> None:
    """Without a client a tick is not turned into bytes."""
    served = serve()
    served.feed.frame = lambda tick: pytest.fail("encoded")  # type: ignore[method-assign,misc]
    assert len(list(chain(ticks(5), Broadcast(served.feed, served.server)))) >= 5


def test_rows_are_sorted_as_selected(serve: Callable[..., Served]) -> None:
    """The rogue with the highest score stands first."""
    served = serve()
    client = served.connect()
    rows = [row(11, cpu_percent=20.0), row(12, cpu_percent=100.0), row(13, cpu_percent=60.0)]
    list(chain(stream([rows]), Score(Config()), Track(at_once(Config())), Broadcast(served.feed, served.server)))
    got = received(client, served)
    assert [key(each) for each in got if each["type"] == "process"] == [(12, 1000), (13, 1000), (11, 1000)]
