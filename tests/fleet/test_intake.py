"""What a hub accepts, and how it knows which rows are new and which are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.fleet.demo import SimulatedHost
from rogue_hunter.fleet.intake import SUBJECT, Coverage, Refused, parse
from rogue_hunter.fleet.source import SETTLE_S, Shipper, begin
from rogue_hunter.stream import wire

START = 1_795_000_020


def payload(change: Callable[[list[dict[str, Any]]], object] = lambda lines: None) -> bytes:
    """A message of host sim-00003, its lines changed."""
    host = SimulatedHost(3, START)
    message = Shipper(host, begin(host, host.identity, START), lambda: START + 60 + SETTLE_S).next()
    assert message is not None
    lines = [wire.loads(line) for line in message.payload(5.0).splitlines()]
    change(lines)
    return b"".join(wire.dumps(line) + b"\n" for line in lines)


def set_all(**values: Any) -> Callable[[list[dict[str, Any]]], object]:
    return lambda lines: [line.update(values) for line in lines]


def test_a_message_is_accepted() -> None:
    batch = parse(SUBJECT.format("sim-00003"), payload(), 9.0)
    assert batch.host_id == "sim-00003" and batch.received == 9.0 and len(batch.rows["process_slices"]) == 36


@pytest.mark.parametrize(("change", "reason"), [
    (set_all(v=2), "records of version 2, this hub reads 1: update the hub"),
    (set_all(v=0), "records of version 0, this hub reads 1: update rogue-hunter on the host"),
    (lambda lines: lines[0].update(host_id="sim-00004"), "in the name of host 'sim-00004'"),
    (lambda lines: lines.pop(), "rows, announced as"),
    (lambda lines: lines.append(lines[-1]), "out of order"),
    (lambda lines: lines[1].update(row=1), "outside of the message"),
    (lambda lines: lines[1].update(ticks="many"), "ticks is text"),
    (lambda lines: lines[1].pop("boot_id"), "without boot_id"),
    (lambda lines: lines[1].update(type="process"), "does not announce"),
    (lambda lines: lines[0]["tables"].update(x={}), "unknown table 'x'"),
    (lambda lines: lines[0]["tables"]["pauses"].update(through=-1), "not base <= after <= through"),
    (lambda lines: lines.pop(0), "does not begin with a record fleet_batch"),
    (lambda lines: lines.clear(), "malformed"),
])  # fmt: skip
def test_a_message_that_is_refused_says_why(change: Callable[[list[dict[str, Any]]], object], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse(SUBJECT.format("sim-00003"), payload(change), 9.0)


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_message_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(Refused):
        parse(SUBJECT.format("sim-00003"), payload()[:-cut], 9.0)


@pytest.mark.parametrize("subject", ["rh.v1.a b.minute", "rh.v1.x.other", "rh.v2.x.minute", "rh.v1.minute", "x"])
def test_a_subject_of_another_form_is_refused(subject: str) -> None:
    with pytest.raises(Refused, match="not of the form"):
        parse(subject, payload(), 9.0)


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30)


@given(SPANS)
def test_coverage_is_a_set_of_numbers(spans: list[tuple[int, int]]) -> None:
    """Added in any order, with overlaps: each number is new once, and the gaps are what is missing."""
    coverage, seen = Coverage(0, 0), set[int]()
    for after, length in spans:
        whole = set(range(after + 1, after + length + 1))
        parts = coverage.add(0, after, after + length)
        new = {n for a, t in parts for n in range(a + 1, t + 1)}
        assert new == whole - seen
        seen |= whole
    assert all(a[1] < b[0] for a, b in zip(coverage.spans, coverage.spans[1:], strict=False))
    missing = {n for a, t in coverage.gaps() for n in range(a + 1, t + 1)}
    assert missing == set(range(1, max(seen, default=0) + 1)) - seen
    assert coverage.contiguous == next(n for n in range(200) if n + 1 not in seen)


def test_a_loss_in_a_table_without_later_rows_is_noticed() -> None:
    """A head lists every table with the number up to which its rows were sent."""
    coverage = Coverage(10, 10)
    assert coverage.add(10, 10, 12) == [(10, 12)] and coverage.gaps() == []
    assert coverage.add(10, 15, 15) == [] and coverage.gaps() == [[12, 15]] and coverage.contiguous == 12
    untouched = Coverage(10, 10)
    untouched.add(10, 11, 11)
    assert untouched.gaps() == [[10, 11]]
