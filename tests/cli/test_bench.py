"""rh-bench: every part is measured, and what it says hangs together."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from rogue_hunter import bench, schema
from rogue_hunter.bench import TICK_PARTS, Limits, Measure, measures
from rogue_hunter.cli import bench as command
from rogue_hunter.config.options import Config
from rogue_hunter.host.platform import here, lister
from rogue_hunter.host.protocol import Facts, HostError, Snapshot
from rogue_hunter.report.render import Style
from rogue_hunter.rules.load import builtin
from rogue_hunter.stream import wire
from tests.tools.ticks import key, row

PARTS = ["enumerate", "full_read", "gate", "score_all", "match_all", "scan", "serialise", "tick", "memory"]


def test_every_part_is_measured_once() -> None:
    """On this machine, without waiting: each part once, in CPU time above 0, a core's share for what recurs."""
    found = list(measures(here, lister(), builtin(), Config(), Limits(1.0, 4), sleep=lambda _: None))
    assert [r["part"] for r in found] == PARTS
    for made in found[:-1]:
        assert 0 < made["min_ms"] <= made["median_ms"] <= made["max_ms"], made
        assert made["min_ms"] <= made["mean_ms"] <= made["max_ms"] and made["runs"] <= 4
        assert ("core_percent" in made) == (made["part"] in TICK_PARTS)
    assert 5_000_000 < found[-1]["memory_bytes"] < 1 << 30
    assert found[5]["mean_ms"] > found[1]["mean_ms"]            # a scan reads, and does more


class FourProcesses:
    """The same four, always."""

    def __init__(self) -> None:
        rows = [row(pid, command=f"p{pid}", cpu_percent=1.0) for pid in (1001, 1002, 1003, 1004)]
        self.rows = {key(each): each for each in rows}

    def facts(self) -> Facts:
        return Facts("linux", "here", "boot", 2, 1 << 30)

    def snapshot(self) -> Snapshot:
        return Snapshot(0, dict(self.rows), set(self.rows), cpu_cores=0.04)

    def close(self) -> None:
        """Nothing to give back."""


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that advances a millisecond a reading: the parts with average, least and most, as a table and as
    valid records."""
    monkeypatch.setattr(bench, "_peak_memory", lambda: 26_200_000)
    clock = count()
    found = list(measures(FourProcesses, lambda: 4, builtin(), Config(), Limits(10.0, 5), lambda: next(clock) / 1000,
                          lambda _: None))
    assert command._text(found, Style(100, False, 0.0)) == """\
4 processes; milliseconds of CPU time

PART       MEDIAN  AVERAGE  LEAST  MOST  RUNS  US/PROC    CORE  WHAT
enumerate    1.00     1.00   1.00  1.00     5    250.0          list the processes
full_read    1.00     1.00   1.00  1.00     5    250.0          read every process completely, as a…
gate         1.00     1.00   1.00  1.00     5    250.0  0.30 %  one reading at the beat: idle proce…
score_all    1.00     1.00   1.00  1.00     5    250.0          score every process without history
match_all    1.00     1.00   1.00  1.00     5    250.0          match every process against every r…
scan         3.00     3.00   3.00  3.00     5    750.0          a full scan: list, read, score and …
serialise    1.00     1.00   1.00  1.00     5    250.0          write every process as NDJSON
tick         1.00     1.00   1.00  1.00     5    250.0  0.30 %  a whole tick of rh-pipe: read, scor…

memory 26.2 MB at its highest
"""
    for made in found:
        wire.check("bench", {name: value for name, value in made.items() if name not in ("type", "v")})


def test_a_part_is_repeated_in_its_share_of_the_time() -> None:
    """Three times at the least, or as few as were asked for."""
    clock = count()

    def runs(seconds: float, limit: int) -> int:
        return len(Limits(seconds, limit).times(lambda: None, 0.02, lambda: next(clock) / 1024))

    assert [runs(10, 1000), runs(10, 50), runs(0.01, 1000), runs(10, 1)] == [205, 50, 3, 1]
    assert [Limits(10, 1000).beats(0.3, 3), Limits(1, 1000).beats(0.3, 3), Limits(10, 4).beats(0.3, 3)] == [9, 3, 4]


def test_what_lists_processes(tmp_path: Path) -> None:
    """A directory in the form of /proc; another directory is an error."""
    for name in ("1", "20", "self", "uptime"):
        (tmp_path / name).mkdir()
    assert lister(tmp_path)() == 2
    with pytest.raises(HostError, match="is no directory"):
        lister(tmp_path / "1" / "none")


def test_on_a_mac() -> None:
    """Through libproc, enumeration and gate too."""
    from tests.macos.fake import build

    path = str(build())
    text = "process a pid=10 user=1\nprocess b pid=11\n"
    ctypes.CDLL(path).fake_load(text.encode())
    found = {r["part"]: r for r in measures(lambda: here(libproc=path), lister(libproc=path), builtin(), Config(),
                                            Limits(1.0, 3), sleep=lambda _: None)}
    assert list(found) == PARTS
    assert found["enumerate"]["processes"] == lister(libproc=path)() == 2


def test_median_by_process_and_by_core() -> None:
    """2 ms at 3 Hz is 0.6 % of a core, and for 100 processes 20 us each."""
    made = Measure("tick", "a tick", (1.0, 2.0, 9.0)).as_record(100, 3.0)
    assert (made["median_ms"], made["core_percent"], made["us_per_process"]) == (2.0, 0.6, 20.0)


@pytest.mark.waits
@pytest.mark.slow
def test_command(rh: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """NDJSON in a pipe, a table when asked for; every field is declared."""
    done = rh("bench", "--seconds", "1", "--iterations", "5")
    assert (done.returncode, done.stderr) == (0, b"")
    names = {f.name for f in schema.RECORDS["bench"]} | {"type", "v"}
    for line in done.stdout.splitlines():
        assert set(json.loads(line)) <= names
    table = rh("bench", "--seconds", "1", "--iterations", "3", "--table").stdout.decode()
    assert "full_read" in table and "MB at its highest" in table
