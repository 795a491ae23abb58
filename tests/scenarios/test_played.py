"""Five of the scenarios, played in each run of the suite: loops, a held lock, a full pipe, and two in which nothing is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.scenarios import catalogue
from tests.scenarios.__main__ import Pipe, Record
from tests.scenarios.judge import mark
from tests.scenarios.scenario import Scenario, find
from tests.scenarios.stage import Missing, Stage
from tests.tools.processes import wait_for

assert catalogue.__doc__     # it fills the list of scenarios
pytestmark = [pytest.mark.slow, pytest.mark.serial,
              pytest.mark.skipif(sys.platform != "linux", reason="the scenarios are of Linux")]

PLAYED = {("cpu-two-pythons",): 4.5, ("lock-flock", "lock-pipe"): 6.0, ("ok-video", "ok-lock"): 4.5}
"""Which are played together, and for how many seconds. Two locks do not hide each other; a wait is reported once it has
lasted some seconds."""
Rh = Callable[..., "subprocess.CompletedProcess[bytes]"]
SETTLE_S = 1.0
CALM = 0.25
"""Part of the CPUs that other work may use: beside more, that work is a right answer too."""


@contextmanager
def playing(directory: Path) -> Iterator[tuple[Pipe, Stage]]:
    """An rh-pipe and a stage, both taken down at the end."""
    pipe, stage = Pipe(directory), Stage(directory)
    pipe.start()
    try:
        wait_for(pipe.db.exists, 20)
        yield pipe, stage
    finally:
        stage.close()
        pipe.stop()


def busy(seconds: float) -> float:
    """Part of the CPUs in use."""
    def read() -> tuple[int, int]:
        words = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(words), words[3] + words[4]

    before = read()
    time.sleep(seconds)
    after = read()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def answers(scenarios: list[Scenario], seconds: float, directory: Path, rh: Rh) -> tuple[dict[str, Record], bool]:
    """What `why` about the time and the summary say, and whether the machine was calm before and after."""
    directory.mkdir()
    directory.chmod(0o755)
    with playing(directory) as (pipe, stage):
        before = busy(SETTLE_S)
        begin = time.time()
        try:
            for scenario in scenarios:
                scenario.play(stage)
        except Missing as error:
            pytest.skip(str(error))
        time.sleep(seconds)
        end = time.time()
        stage.close()
        after = busy(0.5)
        pipe.stop()
        at = datetime.fromtimestamp((begin + end) / 2).strftime("%Y-%m-%dT%H:%M:%S")
        since = datetime.fromtimestamp(begin).strftime("%Y-%m-%dT%H:%M:%S")
        said = {name: json.loads(rh("report", *words, "--ndjson", "--db", pipe.db).stdout.splitlines()[0])
                for name, words in {"why": ("why", "--at", at), "summary": ("--since", since)}.items()}
    return said, max(before, after) <= CALM


@pytest.mark.parametrize("names", PLAYED, ids="+".join)
def test_the_culprit_is_named(tmp_path: Path, rh: Rh, names: tuple[str, ...]) -> None:
    """The culprits are among the first three names, and no process is blamed beside a player; if other work has the CPUs,
    it is tried once more."""
    scenarios = find(list(names))
    for attempt in range(2):
        said, calm = answers(scenarios, PLAYED[names], tmp_path / str(attempt), rh)
        marks = [(way, scenario.kind, mark(scenario, one.get("verdict"), one.get("causes") or [], one.get("victims") or [],
                                           str(one.get("headline")))) for way, one in said.items() for scenario in scenarios]
        if all(not each.blamed if kind == "benign" else each.third for _, kind, each in marks):
            return
        wrong = [(way, each.cell(), each.said) for way, _, each in marks]
        assert not calm, wrong
    pytest.skip(f"other work has the CPUs: {wrong}")
