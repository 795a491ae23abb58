"""The ring holds the last ticks and no more, shares their rows, and gives lows and highs of what is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.schema.sampling import METRICS
from rogue_hunter.tracking.events import Ring, ranges
from tests.tools.ticks import closing, key, row


def test_bounded() -> None:
    """The oldest tick falls out; what is held is given oldest first."""
    ring = Ring(3)
    assert (len(ring), ring.size, ring.ticks()) == (0, 3, ())
    for seq in range(5):
        ring.push(closing(seq, 0), {})
    assert [end["seq"] for end, _ in ring.ticks()] == [2, 3, 4]
    assert (len(ring), ring.size) == (3, 3)


def test_history() -> None:
    """The rows of one process, oldest first, as the same objects; ticks without it are left out."""
    ring = Ring(10)
    a, b, other = row(1, cpu_percent=1.0), row(1, cpu_percent=2.0), row(2)
    reused = row(1, 2000)
    for rows in ([a, other], [other], [b], [reused]):
        ring.push(closing(0, 0), {key(r): r for r in rows})
    assert [r is s for r, s in zip(ring.history(key(a)), (a, b), strict=True)] == [True, True]
    assert ring.history(key(reused)) == [reused]
    assert ring.history((9, 9)) == []


def test_ranges() -> None:
    """Lowest and highest over the ring and the row itself; what was never known has neither, and text has none."""
    ring = Ring(10)
    for percent in (5.0, 90.0, None):
        made = row(1, cpu_percent=percent, disk_bytes_per_s=None)
        ring.push(closing(0, 0), {key(made): made})
    found = ring.ranges((1, 1000), row(1, cpu_percent=1.0, score=70, disk_bytes_per_s=None))
    assert (found["cpu_percent_low"], found["cpu_percent_high"]) == (1.0, 90.0)
    assert (found["score_low"], found["score_high"]) == (70, 70)
    assert "disk_bytes_per_s_low" not in found and "command_low" not in found and "pid_low" not in found


@given(st.lists(st.dictionaries(st.sampled_from([m.name for m in METRICS]), st.integers(-5, 5)), max_size=6))
def test_ranges_of_anything(rows: list[dict[str, int]]) -> None:
    """Each known metric lies between its low and its high, and both were seen; one that is left out when it is 0 was 0
    in the rows without it."""
    found = ranges(iter(rows))
    names = {name for made in rows for name in made}
    assert found.keys() == {name + tail for name in names for tail in ("_low", "_high")}
    for name in names:
        values = [made[name] for made in rows if name in made]
        if len(values) < len(rows) and name in {m.name for m in METRICS if m.sparse}:
            values.append(0)
        assert (found[name + "_low"], found[name + "_high"]) == (min(values), max(values))
