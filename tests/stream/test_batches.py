"""Ticks from a thread: what comes, nothing in between, and what reading raises."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rogue_hunter.stream.pipeline import AHEAD, gathered, pumped
from rogue_hunter.stream.tick import Tick, record


def tick(n: int) -> Tick:
    return Tick(records=[record("error", stage="x", message=str(n))])


def test_all_of_them_in_order() -> None:
    """As many as came, and the end."""
    assert [t.records[0]["message"] for t in pumped(iter([tick(n) for n in range(50)]), 60) if t.records] == [
        str(n) for n in range(50)]


def test_an_empty_one_while_none_comes() -> None:
    """The reader gets a turn while the source sleeps; then the source continues."""
    go = threading.Event()

    def source() -> Iterator[Tick]:
        go.wait(20)
        yield tick(1)

    stream = pumped(source(), 0.001)
    assert not next(stream).records
    go.set()
    assert [t.records[0]["message"] for t in stream if t.records] == ["1"]


def test_reading_is_not_far_ahead() -> None:
    """A slow reader is not overrun: the writer has to wait, as with any pipe."""
    made: list[int] = []

    def source() -> Iterator[Tick]:
        for n in range(1000):
            made.append(n)
            yield tick(n)

    stream = pumped(source(), 60)
    for n in range(100):
        next(stream)
        assert len(made) <= n + AHEAD + 3
    assert len(list(stream)) == 900


def test_an_error_is_handed_on() -> None:
    """What reading raises is raised here, after what was read."""
    def source() -> Iterator[Tick]:
        yield tick(1)
        raise OSError("gone")

    stream = pumped(source(), 60)
    assert next(stream).records
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_what_was_made_together_stays_together() -> None:
    """Records of one tick are one batch; a tick, another time or silence ends it; nothing is lost or changes place."""
    go = threading.Event()

    def loose(ts: float, name: str) -> Tick:
        return Tick(records=[{"type": "match", "ts": ts, "seq": int(ts), "name": name}])

    def source() -> Iterator[Tick]:
        yield loose(1, "a")
        yield loose(1, "b")
        yield loose(2, "c")
        yield Tick({"seq": 2}, records=[{"type": "match", "ts": 2, "seq": 2, "name": "d"}])
        yield loose(2, "e")
        go.wait(20)
        yield loose(2, "f")

    stream = gathered(source(), 0.05)
    batches = [[r["name"] for r in next(stream).records] for _ in range(4)]
    go.set()
    batches += [[r["name"] for r in tick.records] for tick in stream]
    assert batches == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
