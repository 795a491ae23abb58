"""rh-bench: every part is measured, and what it says hangs together."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from rogue_hunter import schema
from rogue_hunter.bench import TICK_PARTS, Measure, measures
from rogue_hunter.config import Config
from rogue_hunter.host import here
from rogue_hunter.rules import builtin


def test_every_part_is_measured_once() -> None:
    """On this machine, without waiting: each part once, in CPU time above 0, a core's share for what recurs."""
    found = list(measures(here, builtin(), Config(), 1.0, sleep=lambda _: None))
    assert [r["part"] for r in found] == [
        "enumerate", "full_read", "gate", "score_all", "match_all", "serialise", "tick", "memory"]
    for made in found[:-1]:
        assert 0 < made["min_ms"] <= made["median_ms"] <= made["max_ms"], made
        assert ("core_percent" in made) == (made["part"] in TICK_PARTS)
    assert found[-1]["memory_bytes"] > 5_000_000


def test_median_by_process_and_by_core() -> None:
    """2 ms at 3 Hz is 0.6 % of a core, and for 100 processes 20 us each."""
    made = Measure("tick", "a tick", (1.0, 2.0, 9.0)).as_record(100, 3.0)
    assert (made["median_ms"], made["core_percent"], made["us_per_process"]) == (2.0, 0.6, 20.0)


def test_command(rh: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """NDJSON in a pipe, a table when asked for; every field is declared."""
    done = rh("bench", "--seconds", "1")
    assert (done.returncode, done.stderr) == (0, b"")
    names = {f.name for f in schema.BENCH} | {"type", "v"}
    for line in done.stdout.splitlines():
        assert set(json.loads(line)) <= names
    table = rh("bench", "--seconds", "1", "--table").stdout.decode()
    assert "full_read" in table and "MB at its highest" in table
