"""Memory that several processes hold together counts once, and a machine never holds more than it has."""

from __future__ import annotations

import random

import pytest

from rogue_hunter.sampling.lineage import Lineage, SharedMemory
from tests.tools.ticks import row, stream

GIB = 1 << 30


def backend(pid: int, private: int = 10 << 20, shared: int = 6 * GIB, **more: object) -> dict[str, object]:
    return row(pid, pid * 10, command="postgres", cgroup="/system.slice/pg.service", memory_bytes=private + shared,
               shared_bytes=shared, **more)


def held(*ticks: list[dict[str, object]]) -> list[dict[int, int]]:
    """Memory by pid in each tick."""
    return [{key[0]: made["memory_bytes"] for key, made in tick.processes.items()}
            for tick in map(Lineage(), stream(list(ticks)))]


def test_ten_backends_hold_their_buffers_once() -> None:
    """The machine has 25 GiB; counted ten times the buffers would be 60. Already the first tick is right."""
    (first,) = held([backend(pid) for pid in range(50, 60)])
    assert sum(first.values()) == pytest.approx(6 * GIB + 10 * (10 << 20), abs=10)
    assert len(set(first.values())) == 1


def test_workers_that_name_themselves_share_with_their_parent() -> None:
    """A pool of workers, each with a title of its own, and one so young that its program has not been read."""
    program = {"exe": "/usr/bin/python3", "ppid": 50}
    young = {**backend(53), "command": "worker 3", "ppid": 50}
    (first,) = held([{**backend(50), **program, "ppid": 1},
                     *({**backend(pid), **program, "command": f"worker {pid}"} for pid in (51, 52)), young])
    assert sum(first.values()) == pytest.approx(6 * GIB + 4 * (10 << 20), abs=10)


def test_the_largest_part_counts_when_parts_differ() -> None:
    """A backend that touched a tenth of the buffers has a tenth of the part of one that touched all."""
    (first,) = held([backend(50, 0, 5 * GIB), backend(51, 0, GIB // 2)])
    assert sum(first.values()) == pytest.approx(5 * GIB, abs=2) and first[50] == pytest.approx(10 * first[51], abs=10)


def test_parts_follow_who_comes_and_goes() -> None:
    alone, two, again = held([backend(50)], [backend(50), backend(51)], [backend(51)])
    assert alone[50] == 6 * GIB + (10 << 20)
    assert two[50] == two[51] == 3 * GIB + (10 << 20)
    assert again == {51: 6 * GIB + (10 << 20)}


def test_other_commands_and_units_share_nothing() -> None:
    other = {**backend(60), "command": "java"}
    elsewhere = {**backend(70), "cgroup": "/system.slice/other.service"}
    (first,) = held([backend(50), other, elsewhere])
    assert set(first.values()) == {6 * GIB + (10 << 20)}


def test_reclaimed_below_what_was_shared() -> None:
    """The shared part is read with the process, memory more often: it is never more than what is held."""
    (first,) = held([{**backend(50), "memory_bytes": GIB}, {**backend(51), "memory_bytes": GIB}])
    assert sum(first.values()) == GIB


@pytest.mark.parametrize("seed", range(20))
def test_any_course(seed: int) -> None:
    """After all that moved were asked again, each group holds its private memory and its largest shared part."""
    rng = random.Random(seed)
    memory = SharedMemory()
    now: dict[tuple[int, int], tuple[tuple[str, str], int, int]] = {}
    parts: dict[tuple[int, int], int] = {}
    for _ in range(200):
        key = (rng.randrange(12), 1)
        if rng.random() < 0.3:
            memory.forget(key)
            now.pop(key, None)
            parts.pop(key, None)
        else:
            now[key] = (rng.choice("ab"), "x"), rng.randrange(1000), rng.choice([0, 100, 5000])
        for each in [key, *memory.moved] if key in now else list(memory.moved):
            group, private, shared = now[each]
            parts[each] = memory.held(each, group, private + shared, shared)
        while memory.moved:
            for each in list(memory.moved):
                group, private, shared = now[each]
                parts[each] = memory.held(each, group, private + shared, shared)
        for group in {each[0] for each in now.values()}:
            members = [each for each in now if now[each][0] == group]
            whole = sum(now[each][1] for each in members) + max(now[each][2] for each in members)
            assert whole - len(members) <= sum(parts[each] for each in members) <= whole
