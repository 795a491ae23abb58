"""Records of perf rings: what the kernel writes, and bytes that nothing wrote."""

from __future__ import annotations

import os
import random

from rogue_hunter.recorder.decode import (
    CONTEXT_USER,
    Fork,
    Job,
    Name,
    Sample,
    addresses,
    entries,
    read,
    share_records,
    stack_records,
)
from rogue_hunter.recorder.perf import Copy
from rogue_hunter.recorder.symbols import Symbols
from tests.recorder.rings import comm, fork, head, newest_first, sample, switch

BUFFERS = 100_000 if "RH_LONG" in os.environ else 2_000
"""Mutated buffers of one run; RH_LONG=1 is the long run (last: no exception in 100,000)."""


def test_samples_names_and_forks() -> None:
    """Newest first; a name that a thread sets, and a thread that is made, are no process."""
    data = newest_first(sample(1, 7, (0x1000, 0x2000), (0xffff,)), comm(2, 8, b"hog"), comm(3, 9, b"worker", tid=10),
                        fork(4, 8, 7), head(2, b"\0" * 16), sample(5, 7, (0x1000,)))
    found = list(entries(data, chains=True))
    assert [each.ns for each in found] == [5, 4, 2, 1]
    assert found[1] == Fork(4, 8, 7) and found[2] == Name(2, 8, b"hog", True)
    last = found[3]
    assert isinstance(last, Sample) and list(addresses(last.chain)) == [(0xffff, True), (0x1000, False), (0x1fff, False)]
    assert list(entries(newest_first(switch(1, 7), switch(2, 0)), chains=False)) == [Sample(2, 0, 0), Sample(1, 7, 7)]


def test_the_overwritten_end() -> None:
    """The oldest record is overwritten in part: what is before it is whole, and nothing is made of the rest."""
    data = b"".join(sample(9 - i, 7, tuple(range(1, 20))) for i in range(8))
    for size in range(0, len(data), 8):
        found = list(entries(data[:size], chains=True))
        assert len(found) == size // len(sample(1, 7, tuple(range(1, 20))))
    assert list(entries(b"", chains=True)) == [] == list(entries(b"\1" * 7, chains=True))


def test_a_chain_that_claims_more_than_it_has() -> None:
    """The count of a chain is bounded by its record."""
    body = sample(1, 7, (5, 6))
    lying = body[:24] + b"\xff" * 8 + body[32:]
    (found,) = entries(lying, chains=True)
    assert isinstance(found, Sample) and found.chain == (CONTEXT_USER, 5, 6)


def test_mutated_buffers() -> None:
    """No exception, and bounded answers, for rings with changed, removed and repeated bytes, up to their records."""
    rng = random.Random(17)
    whole = newest_first(*(r for i in range(12) for r in (
        sample(100 + i, 7 + i % 3, (0x1000 + i, 0x2000), (0xffffffff81000000,)), comm(100 + i, 8, b"\xff;\n\x1b[2J"),
        fork(100 + i, 9, 8))), size=4096)
    flat = newest_first(*(switch(100 + i, i % 4) for i in range(100)), size=4096)
    symbols = Symbols(root=__import__("pathlib").Path("/nonexistent"))
    for number in range(BUFFERS):
        data = bytearray(rng.choice((whole, flat)))
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data))
            what = rng.randrange(4)
            if what == 0:
                data[at] = rng.randrange(256)
            elif what == 1:
                del data[at: at + rng.randint(1, 64)]
                data += b"\0" * 64
            elif what == 2:
                data[at:at + 8] = rng.randbytes(8)
            else:
                data[at:at] = data[at: at + 40]
        chains = rng.random() < 0.5
        assert len(list(entries(bytes(data), chains=chains))) <= len(data) // 8
        if number % 20 == 0:  # and through all of the decoder
            job = Job({"pause": "p"}, 0, 1000, 49, (Copy(0, chains, bytes(data)), Copy(1, not chains, flat)), {})
            scene = read(job)
            stacks = stack_records(scene, symbols, dumps=False)
            for each in (*stacks, *share_records(scene, stacks)):
                assert 0 <= each["share"] <= 1 and each.get("stack", "").isprintable()
