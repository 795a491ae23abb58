"""A hub among hosts that send garbage, that are two with one identity, and without its stream."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from rogue_hunter.fleet.bus import BusError, Received
from rogue_hunter.fleet.demo import SimulatedHost
from rogue_hunter.fleet.hub import Hub
from rogue_hunter.fleet.intake import SUBJECT
from rogue_hunter.fleet.source import SETTLE_S, Shipper, begin

pytest.importorskip("duckdb", reason="duckdb is not installed: no row was stored")

from rogue_hunter.fleet.warehouse import Warehouse

START = 1_795_000_020


class Stream:
    """An Inbox with these messages: number of the host, payload, time of receipt."""

    def __init__(self, *messages: tuple[int, bytes, float]) -> None:
        self.left = [Received(SUBJECT.format(f"sim-{number:05d}"), payload, at, None) for number, payload, at in messages]
        self.acknowledged = 0

    async def fetch(self, subject: str, consumer: str, count: int, wait_s: float) -> list[Received]:
        found, self.left = self.left, []
        return found

    async def acknowledge(self, received: Sequence[Received]) -> None:
        self.acknowledged += len(received)

    async def tell(self, subject: str, payload: bytes) -> None:
        """Hosts do not answer."""


class Machine(SimulatedHost):
    """A simulated host that was started for the nth time, or a copy of it."""

    def __init__(self, number: int, boot: str) -> None:
        super().__init__(number, START)
        self.boot = boot

    def facts(self) -> dict[str, object]:
        return {**super().facts(), "boot_id": self.boot}


def payload(number: int, minute: int = 0, boot: str = "b") -> bytes:
    host, start = Machine(number, boot), START + 60 * minute
    message = Shipper(host, begin(host, host.identity, start), lambda: start + 60 + SETTLE_S).next()
    assert message is not None
    return message.payload(5.0)


def with_value(value: bytes, line: int = 1) -> bytes:
    """A message of which a line has one more value."""
    lines = payload(3).split(b"\n")
    lines[line] = lines[line].replace(b'{"type"', b'{"x":' + value + b',"type"', 1)
    return b"\n".join(lines)


GARBAGE = {
    "nested too deeply": with_value(b"[" * 600 + b"]" * 600),
    "nested too deeply, in the head": with_value(b'{"a":' * 300 + b"1" + b"}" * 300, 0),
    "nested without end": with_value(b"[" * 100_000),
    "not a number": with_value(b"NaN"),
    "infinite": with_value(b"1e999"),
    "not UTF-8": with_value(b'"\xff\xfe"'),
    "half a character": with_value(b'"\\ud800"'),
    "compressed": gzip.compress(payload(3)),
    "another encoding": payload(3).decode().encode("utf-16"),
    "cut": payload(3)[:-5],
    "empty": b"",
    "a time that no calendar has": payload(3).replace(b'"slice":%d' % START, b'"slice":1e300', 1),
    "a time before all": payload(3).replace(b'"slice":%d' % START, b'"slice":-1e300', 1),
    "sent at no time": payload(3).replace(b'"sent":5.0', b'"sent":1e300'),
}


def test_garbage_of_one_host_is_refused_and_the_rows_of_others_are_stored(tmp_path: Path) -> None:
    """In one transaction with them; it is reported once and recorded each time, and does not come again."""
    stream = Stream((4, payload(4), 9.0), *((3, each, 9.0) for each in GARBAGE.values()), (5, payload(5), 9.0))
    warehouse, said = Warehouse(tmp_path / "x.duckdb"), list[str]()
    hub = Hub(warehouse, stream, lambda: 10.0, keep_s=1e9, report=said.append)
    asyncio.run(hub.step())
    assert warehouse.query("SELECT host_id, count(*) FROM process_slices GROUP BY 1 ORDER BY 1")[1] == [["sim-00004", 36], ["sim-00005", 36]]
    assert stream.acknowledged == len(GARBAGE) + 2 and hub.refused == len(GARBAGE)
    assert warehouse.query("SELECT count(*) FROM refused WHERE host_id = 'sim-00003'")[1] == [[len(GARBAGE)]]
    assert said == ["refused: host sim-00003: malformed message: nested too deeply"]
    stream.left = Stream((3, with_value(b"[" * 200 + b"]" * 200), 9.0)).left     # unusual, and in order
    asyncio.run(hub.step())
    assert warehouse.query("SELECT count(*) FROM process_slices WHERE host_id = 'sim-00003'")[1] == [[36]]
    warehouse.close()


def test_two_machines_with_one_identity_are_noticed_and_a_restart_is_not(tmp_path: Path) -> None:
    """The one that came later is refused from the moment at which both send; messages that come twice prove nothing."""
    warehouse, said = Warehouse(tmp_path / "x.duckdb"), list[str]()
    first = [(3, payload(3, 0, "a"), 1.0), (3, payload(3, 1, "a"), 2.0), (3, payload(3, 2, "b"), 3.0)]
    stream = Stream(*first, *first, (3, payload(3, 3, "c"), 4.0))
    hub = Hub(warehouse, stream, lambda: 10.0, keep_s=1e9, report=said.append)
    asyncio.run(hub.step())
    assert hub.refused == 0 and said == []
    stream.left = Stream((3, payload(3, 4, "b"), 5.0), (3, payload(3, 5, "c"), 6.0), (3, payload(3, 6, "b"), 7.0), (4, payload(4), 8.0)).left
    asyncio.run(hub.step())
    stream.left = Stream((3, payload(3, 6, "c"), 9.0)).left
    asyncio.run(hub.step())
    assert said == ["refused: host sim-00003: two machines send with this identity, one of them is 'host-00003.example': "
                    "give it another --host-id, then start rh-hub again"]
    minutes = warehouse.query("SELECT minute FROM machine_minutes WHERE host_id = 'sim-00003' ORDER BY 1")[1]
    assert minutes == [[START + 60 * n] for n in (0, 1, 2, 3, 4, 6)] and hub.refused == 2
    warehouse.close()


def test_the_stream_is_made_again_after_it_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Stream):
        async def fetch(self, subject: str, consumer: str, count: int, wait_s: float) -> list[Received]:
            if len(made) == 1:
                raise BusError("stream not found")
            hub.stop()
            return []

    async def make() -> None:
        made.append("made")

    made: list[str] = []
    said: list[str] = []
    warehouse = Warehouse(tmp_path / "x.duckdb")
    hub = Hub(warehouse, Gone(), lambda: 10.0, keep_s=1e9, report=said.append, prepare=make)
    asyncio.run(hub.run())
    assert made == ["made", "made"] and said == ["stream not found; trying again"]
    warehouse.close()
