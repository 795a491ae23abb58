"""A tick between stages: what is left out is unknown, and a chain is what a shell pipeline would be."""

from __future__ import annotations

from collections.abc import Iterator

from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick, record
from tests.tools.ticks import closing, key, row


def test_record_leaves_out_what_is_unknown() -> None:
    """None is unknown and is left out; 0, false and the empty text were measured and stay."""
    made = record("event", a=None, b=0, c="", d=False)
    assert made == {"type": "event", "v": 1, "b": 0, "c": "", "d": False}
    assert list(made)[:2] == ["type", "v"]


def test_record_may_have_a_field_called_kind() -> None:
    """The type of a record does not shut out a field of that name."""
    assert record("event", kind="enter")["kind"] == "enter"


def test_partial() -> None:
    """A tick is partial when it holds fewer rows than the closing row counts: then a missing process is not gone."""
    a = row(1)
    assert Tick(closing(0, 2), {key(a): a}).partial
    assert not Tick(closing(0, 1), {key(a): a}).partial
    assert not Tick(records=[{"type": "x", "v": 1}]).partial


def test_chain_applies_stages_in_order_and_lazily() -> None:
    """The first stage sees the ticks first; nothing is taken before the end asks for it."""
    seen: list[str] = []

    def source() -> Iterator[Tick]:
        seen.append("source")
        yield Tick()

    def stage(name: str):  # type: ignore[no-untyped-def]
        def run(tick: Tick) -> Tick:
            seen.append(name)
            return tick

        return run

    chained = chain(source(), stage("one"), stage("two"))
    assert seen == []
    assert len(list(chained)) == 1
    assert seen == ["source", "one", "two"]


def test_chain_closes_what_is_upstream() -> None:
    """Closing the end closes the source: that is how `head` stops a pipeline."""
    closed = []

    def source() -> Iterator[Tick]:
        try:
            while True:
                yield Tick()
        finally:
            closed.append(True)

    chained = chain(source())
    next(chained)
    chained.close()  # type: ignore[attr-defined]
    assert closed == [True]
