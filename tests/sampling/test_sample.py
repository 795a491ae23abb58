"""Beats and snapshots into ticks: the closing row, and what options leave out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from rogue_hunter.host.protocol import Facts, Snapshot
from rogue_hunter.sampling.sample import Own, Select, sample
from rogue_hunter.schema.sampling import TICK
from rogue_hunter.stream import wire
from rogue_hunter.stream.clock import Beat
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.ticks import key, row, stream

SECOND = 10**9


class Script:
    """A host with prepared answers."""

    def __init__(self, *shots: Snapshot) -> None:
        self.shots = list(shots)
        self.taken = 0

    def facts(self) -> Facts:
        return Facts("linux", "testhost", "boot-1", 4, 8 << 30)

    def snapshot(self) -> Snapshot:
        self.taken += 1
        return self.shots[self.taken - 1]

    def close(self) -> None:
        raise AssertionError("whoever made the host closes it")


def shot(*rows: Row, **fields: Any) -> Snapshot:
    held = {key(made): made for made in rows}
    return Snapshot(fields.pop("mono_ns", 0), held, set(held), **fields)


def beat(seq: int, **fields: Any) -> Beat:
    return Beat(
        **{
            "seq": seq,
            "mono_ns": (100 + seq) * SECOND,
            "ts": 1_700_000_000.1239 + seq,
            "interval_s": 1.0 if seq else 0.0,
            "late_s": 0.0,
            "asleep_s": 0.0,
            **fields,
        }
    )


def uses(*seconds: float) -> Any:
    """What rogue-hunter itself has used at each reading."""
    left = iter(seconds)
    return lambda: Own(next(left))


def ticks(host: Script, *beats: Beat, **options: Any) -> list[Tick]:
    return list(sample(host, beats, own=uses(*(0.0 for _ in range(len(beats) + 1))), **options))


def test_closing_row() -> None:
    """The machine, the beat, the counts of the snapshot, and unattributed use."""
    machine = {"cpus": 6, "cpu_busy_cores": 2.5, "memory_total_bytes": 9 << 30, "memory_available_bytes": 1 << 30}
    host = Script(
        shot(row(1)),
        shot(
            row(1),
            row(2),
            exited=((9, 9), (8, 8)),
            started=1,
            active=2,
            unreadable=3,
            errors=4,
            cpu_cores=1.75,
            machine=machine,
        ),
    )
    tick = list(
        sample(host, [beat(0), beat(1, late_s=0.25, asleep_s=2.0, ts=1_700_000_003.1239)], own=uses(1.0, 1.0, 1.125))
    )[1]
    assert tick.row is not None
    wanted = {
        "ts": 1_700_000_003.124,
        "seq": 1,
        "mono_ns": 101 * SECOND,
        "host": "testhost",
        "boot_id": "boot-1",
        "os": "linux",
        "interval_s": 1.0,
        "late_s": 0.25,
        "asleep_s": 2.0,
        **machine,
        "processes": 2,
        "active": 2,
        "started": 1,
        "exited": 2,
        "unreadable": 3,
        "errors": 4,
        "unattributed_cpu_cores": 0.75,
        "self_cpu_percent": 12.5,
    }
    assert {name: tick.row.get(name) for name in wanted} == wanted
    wire.check("tick", tick.row)
    assert set(tick.row) <= {f.name for f in TICK}
    assert tick.exited == ((9, 9), (8, 8)) and tick.changed == set(tick.processes)


def test_what_is_not_known_is_left_out() -> None:
    """The first beat has no interval, so no rate of our own; from a machine that reports nothing nothing is invented."""
    (tick,) = ticks(Script(shot(row(1))), beat(0))
    assert tick.row is not None
    assert (
        not {"self_cpu_percent", "cpu_busy_cores", "unattributed_cpu_cores", "memory_available_bytes"} & tick.row.keys()
    )
    assert tick.row["cpus"] == 4 and tick.row["memory_total_bytes"] == 8 << 30
    assert None not in tick.row.values()


def test_unattributed_is_never_negative() -> None:
    """The clocks of the machine and of its processes differ by a tick: more seen than busy is nothing unowned."""
    host = Script(shot(row(1), cpu_cores=2.0, machine={"cpu_busy_cores": 1.9}))
    (tick,) = ticks(host, beat(0))
    assert tick.row is not None and tick.row["unattributed_cpu_cores"] == 0.0


def test_own_memory() -> None:
    """The toolkit is a row among the others, and its memory is reported; where it does not see itself, it is left out."""
    own = row(os.getpid(), memory_bytes=12345)
    (tick,) = ticks(Script(shot(row(1), own)), beat(0))
    assert tick.row is not None and tick.row["self_memory_bytes"] == 12345
    (tick,) = ticks(Script(shot(row(1))), beat(0))
    assert tick.row is not None and "self_memory_bytes" not in tick.row


def test_silent_first() -> None:
    """The first reading is taken and not given out, so the first tick carries rates, and is numbered 0."""
    host = Script(shot(row(1, cpu_percent=None)), shot(row(1, cpu_percent=5.0)), shot(row(1, cpu_percent=6.0)))
    got = ticks(host, beat(0), beat(1), beat(2), silent_first=True)
    assert host.taken == 3
    assert [(t.row["seq"], t.row["interval_s"], t.processes[1, 1000]["cpu_percent"]) for t in got if t.row] == [
        (0, 1.0, 5.0),
        (1, 1.0, 6.0),
    ]


def test_one_snapshot_a_beat_and_none_ahead() -> None:
    """A tick is read when it is requested: a reader that stops reading stops the host."""
    host = Script(shot(row(1)), shot(row(1)))
    stream_ = sample(host, [beat(0), beat(1)], own=uses(0.0, 0.0, 0.0))
    next(stream_)
    assert host.taken == 1


def test_wall_clock_that_was_set() -> None:
    """A step of the wall clock is detected by the two clocks, with its sign; slewing by NTP is not a step."""
    host = Script(*(shot(row(1)) for _ in range(4)))
    got = ticks(
        host,
        beat(0),
        beat(1, ts=1_700_003_601.12),
        beat(2, ts=1_700_003_602.12 - 7200),
        beat(3, ts=1_700_003_603.22 - 7200),
    )
    assert [t.row.get("clock_step_s") for t in got if t.row] == [
        None,
        pytest.approx(3600, abs=0.01),
        pytest.approx(-7200, abs=0.01),
        None,
    ]


def test_suspend_is_no_step() -> None:
    """The wall clock continues while the machine sleeps: that is not a clock step."""
    host = Script(shot(row(1)), shot(row(1)))
    got = ticks(host, beat(0), beat(1, ts=1_700_000_001.12 + 3600, asleep_s=3600.0))
    assert got[1].row is not None and "clock_step_s" not in got[1].row


# -- select ----------------------------------------------------------------------------------------------------------

ROWS = [
    row(1, user="root", uid=0),
    row(2, user="ann", uid=1000, cpu_percent=5.0),
    row(3, user="bob", uid=1001, context_switches_per_s=1.0),
    row(4, uid=1002, state="running"),
    row(5, user="ann", uid=1000, cpu_percent=50.0),
    row(6, user="1000", uid=7, cpu_percent=None),
]


def chosen(**options: Any) -> list[int]:
    (tick,) = chain(stream([ROWS]), Select(**options))
    return [k[0] for k in tick.processes]


@pytest.mark.parametrize(
    ("options", "pids"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"active": True}, [2, 3, 4, 5]),
        ({"pids": [3, 1, 99]}, [1, 3]),
        ({"users": ["ann"]}, [2, 5]),
        ({"users": ["1001", "root"]}, [1, 3]),
        ({"users": ["1000"]}, [2, 5, 6]),
        ({"users": ["nobody"]}, []),
        ({"top": 2}, [5, 2]),
        ({"top": 99}, [5, 2, 1, 3, 4, 6]),
        ({"active": True, "users": ["ann"], "top": 1}, [5]),
        ({"pids": [2], "users": ["root"]}, []),
    ],
)
def test_select(options: dict[str, Any], pids: list[int]) -> None:
    """Those that ran; these pids; these users, by name or id; the most CPU first. All wishes hold together."""
    assert chosen(**options) == pids


def test_select_says_what_changed() -> None:
    """A row that comes back into view is new to the next stage; exits are reported where nothing is left out."""
    busy, idle = row(1, cpu_percent=5.0), row(1)
    other = row(2, cpu_percent=1.0)
    got = list(chain(stream([[busy, other], [idle, other], [busy, other], [other]]), Select(active=True)))
    assert [sorted(k[0] for k in t.processes) for t in got] == [[1, 2], [2], [1, 2], [2]]
    assert [sorted(k[0] for k in t.changed) for t in got] == [[1, 2], [], [1], []]
    assert [t.exited for t in got] == [(), (), (), (key(busy),)]
    assert [t.partial for t in got] == [False, True, False, False]


def test_select_passes_records() -> None:
    """A batch of records only goes through as it is, and the closing row keeps the numbers of the whole machine."""
    batch = Tick(records=[{"type": "x", "v": 1}])

    def both() -> Iterator[Tick]:
        yield batch
        yield from stream([ROWS])

    first, second = chain(both(), Select(top=1))
    assert first is batch
    assert second.row is not None and second.row["processes"] == 6
