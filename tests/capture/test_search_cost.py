"""What looking at waits costs when very many processes wait: counted in files read, not in seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from rogue_hunter.capture.linux import lookups, waiting
from rogue_hunter.capture.linux.lookups import Index
from rogue_hunter.capture.linux.waiting import LOCKS_MAX, PATHS_MAX, SEARCH_AGAIN_S, SEARCH_PART, Looker, Seen
from rogue_hunter.capture.waiting import OTHERS, RECENT, Waits
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Tick
from tests.tools.processes import Tree

PROCESSES, BLOCKED = 400, 100
FILE_S = 20e-6
"""Of CPU for one small file of /proc, measured."""


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """Processes of which a quarter wait for as many locks, whose takers have ended; one of the others holds them all."""
    tmp_path = tmp_path / "proc"
    made = Tree(tmp_path)
    for pid in range(100, 100 + PROCESSES):
        made.process(pid, b"x", start=pid)
        for kind in ("fd", "fdinfo"):
            (tmp_path / str(pid) / kind).mkdir()
        made.write(f"{pid}/fdinfo/0", b"pos:\t0\nflags:\t02\n")
    locks = [b"%d: FLOCK  ADVISORY  WRITE 9 08:01:%d 0 EOF\n%d: -> FLOCK  ADVISORY  WRITE %d 08:01:%d 0 EOF\n"
             % (n, n, n, 100 + n, n) for n in range(BLOCKED)]
    made.write("locks", b"".join(locks))
    made.write("480/fdinfo/3", b"flags:\t02\n" + b"".join(
        b"lock:\t%d: FLOCK  ADVISORY  WRITE 9 08:01:%d 0 EOF\n" % (n, n) for n in range(BLOCKED)))
    return tmp_path


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many files were opened and directories listed since the test began."""
    count = [0]

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            count[0] += 1
            return real(*args, **more)
        return call

    for module in (lookups, waiting):
        monkeypatch.setattr(module, "read_or", counting(module.read_or))
    monkeypatch.setattr(os, "listdir", counting(os.listdir))
    return lambda: count[0]


def test_one_search_answers_for_all_who_wait(crowd: Path, files: Callable[[], int]) -> None:
    """The open files of each process are read once, not once for each lock; and not again in the next round."""
    index = Index(crowd)
    found = index.locks()
    assert len(found) == BLOCKED and {wait.holder for wait in found} == {480}
    once = files()
    assert once <= 2 * PROCESSES + 10
    index.forget_locks()
    assert {wait.holder for wait in index.locks()} == {480} and files() - once <= 2


def test_holders_that_cannot_be_found_cost_one_search(crowd: Path, files: Callable[[], int]) -> None:
    """No process has the files open, as far as may be read."""
    (crowd / "480/fdinfo/3").unlink()
    assert {wait.holder for wait in Index(crowd).locks()} == {None}
    assert files() <= 2 * PROCESSES + 10


@pytest.mark.slow
def test_looks_have_a_budget(crowd: Path, files: Callable[[], int]) -> None:
    """A look a second for five minutes: searches use their part of a core, and a look without one a bounded number of
    files; each lock still gets its holder."""
    now = [1000.0]
    looker = Looker(crowd, clock=lambda: now[0], cpu=lambda: files() * FILE_S)
    searches, holders = [], set()
    for _ in range(300):
        before = files()
        found = looker([])
        assert len(found) <= LOCKS_MAX
        holders |= {one.holder for one in found}
        used = files() - before
        if used > PROCESSES:
            searches.append(now[0])
        else:
            assert used <= 1 + LOCKS_MAX * (PATHS_MAX + 2)
        now[0] += 1.0
    assert holders >= {480}
    gaps = [b - a for a, b in pairwise(searches)]
    assert searches and min(gaps) >= PROCESSES * FILE_S / SEARCH_PART
    assert len(searches) <= 300 / SEARCH_AGAIN_S + 2


def test_a_look_asks_few_of_very_many() -> None:
    """Two thousand processes of which five hundred are blocked, and all ran a moment ago: each look asks 28 at most."""
    asked: list[int] = []

    def reads(candidates: Iterable[Key], busiest: Key | None, restless: Collection[Key]) -> list[Seen]:
        asked.append(len(list(candidates)))
        return [Seen("uninterruptible", "x", None, tuple(range(1, 501)))]

    stage = Waits(reads=reads)
    processes = {(pid, 1): {"pid": pid, "start_ticks": 1, "cmdline": "x", "cpu_percent": 1.0, "threads": 1,
                            "state": "uninterruptible" if pid <= 500 else "running"} for pid in range(1, 2001)}
    for second in range(30):
        row = {"ts": float(second), "mono_ns": second * 10**9 + 1, "boot_id": "b"}
        stage(Tick(row, processes, set(processes) if second % 2 else set()))
        deadline = time.monotonic() + 10
        while stage._worker.pending and time.monotonic() < deadline:
            time.sleep(0.001)
    stage.close()
    assert len(asked) >= 20 and max(asked) <= 2 * RECENT + RECENT + OTHERS
