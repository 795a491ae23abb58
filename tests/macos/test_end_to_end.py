"""The commands on a scripted Mac: rh-sample, rh-score and rh-pipe, each a process, through the fake libproc."""

from __future__ import annotations

import json
import plistlib
import sqlite3
import statistics
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jsonschema
import pytest

from tests.macos.fake import build

pytestmark = pytest.mark.waits

REPO = Path(__file__).resolve().parent.parent.parent
SCHEMAS = REPO / "rogue_hunter" / "schemas"
Rh = Callable[..., CompletedProcess[bytes]]

TIMEBASES = {"apple silicon": "timebase=125/3 tbfrequency=24000000", "intel": "timebase=1/1 tbfrequency=1000000000",
             "rosetta": "timebase=1/1 tbfrequency=24000000"}

SCRIPT = """
machine clock=real ncpu=8 busy=+5/s free=400000 external=300000 {}
process launchd pid=1 ppid=0 uid=0 denied=1 path=/sbin/launchd
process hog pid=100 ppid=1 path=/opt/hog user=10+3/s system=1+1/s delay=+0.5/s footprint=5000000000 wakeups=+3000/s \
pageins=+600/s faults=+9000/s csw=+6000/s read=+9e6/s written=+3e6/s instructions=+4e9/s cycles=+2e9/s energy=+5e9/s \
running=4 threads=9 args=/opt/hog|--password=hunter2|file
process idle pid=200 user=5 footprint=3000000
process dead pid=300 ppid=100 zombie=1
process early pid=400 user=100+0.5/s footprint=1000 to={}
process late pid=400 from={} start={} user=0+0.2/s footprint=2000
process hostile pid=500 comm=evil\x1b[2J\xff
"""


@pytest.fixture
def mac(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a machine of this timebase; a pid changes hands `reuse` seconds after the start."""
    def make(timebase: str = "", reuse: float = 1e9) -> dict[str, str]:
        text = SCRIPT.format(timebase, reuse, reuse, reuse)
        (tmp_path / "script").write_bytes(text.encode("latin-1"))
        (tmp_path / "gpu").write_bytes(plistlib.dumps([{"IORegistryEntryChildren": [
            {"IOUserClientCreator": "pid 100, hog", "AppUsage": [{"accumulatedGPUTime": 2_500_000_000}]}]}]))
        return {"ROGUE_HUNTER_LIBPROC": str(build()), "FAKE_LIBPROC_SCRIPT": str(tmp_path / "script"),
                "ROGUE_HUNTER_IOREG": str(tmp_path / "gpu")}

    return make


def records(done: CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """What a command printed, each record held to its schema."""
    assert done.returncode == 0, done.stderr
    got = [json.loads(line) for line in done.stdout.splitlines()]
    for kind in ("process", "tick"):
        validator = jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))
        for record in got:
            if record["type"] == kind:
                validator.validate(record)
    return got


def of(got: list[dict[str, Any]], pid: int) -> list[dict[str, Any]]:
    """The rows of one pid, in order."""
    return [r for r in got if r["type"] == "process" and r["pid"] == pid]


@pytest.mark.slow
@pytest.mark.parametrize("timebase", TIMEBASES.values(), ids=TIMEBASES.keys())
def test_sample_and_score(rh: Rh, mac: Callable[..., dict[str, str]], timebase: str) -> None:
    """rh-sample -n 3 | rh-score: records that fit the schemas, numbers that are the script's in any unit."""
    sampled = rh("sample", "-n", "3", **mac(timebase))
    got = records(rh("score", stdin=sampled.stdout))
    assert [r["seq"] for r in got if r["type"] == "tick"] == [0, 1, 2]
    hog = of(got, 100)
    expected = {"cpu_percent": 400, "wakeups_per_s": 3000, "pageins_per_s": 600, "faults_per_s": 9000,
                "context_switches_per_s": 6000, "disk_bytes_per_s": 12e6, "energy_watts": 5, "run_delay_ms_per_s": 500,
                "ipc": 2, "memory_bytes": 5_000_000_000, "gpu_seconds_total": 2.5, "threads": 9}
    for name, value in expected.items():
        # The machine's clock is the real one: the median of three is not moved by one reading that was interrupted.
        assert statistics.median(row[name] for row in hog) == pytest.approx(value, rel=0.03), name
    assert {row["cmdline"] for row in hog} == {"/opt/hog --password=*** file"}
    assert all(row["dominant_resource"] == "cpu" and row["score"] >= 60 for row in hog)
    assert all(row["cpu_percent"] == 0.0 and row["state"] == "sleeping" for row in of(got, 200))
    assert all(row["state"] == "defunct" and row["ppid"] == 100 for row in of(got, 300))
    assert all("cpu_percent" not in row and row["command"] == "launchd" for row in of(got, 1))
    assert of(got, 500)[0]["command"] == "evil\x1b[2J\\xff"
    for tick in (r for r in got if r["type"] == "tick"):
        assert (tick["os"], tick["cpus"], tick["unreadable"], tick["errors"]) == ("macos", 8, 1, 0)
        assert tick["cpu_busy_cores"] == pytest.approx(5, abs=0.3)


@pytest.mark.slow
def test_a_reused_pid(rh: Rh, mac: Callable[..., dict[str, str]]) -> None:
    """A pid that changes hands between two ticks is two identities, and neither has a spike."""
    got = records(rh("sample", "-n", "10", **mac(reuse=1.5)))
    rows = of(got, 400)
    assert {row["command"] for row in rows} == {"early", "late"}
    assert len({row["start_ticks"] for row in rows}) == 2
    early, late = ([row["cpu_percent"] for row in rows if row["command"] == name and "cpu_percent" in row]
                   for name in ("early", "late"))
    assert statistics.median(early) == pytest.approx(50, rel=0.1) and max(early) < 100
    # Its first rate is over its own short life, and the script gave it 0.3 s of CPU time to begin with.
    assert statistics.median(late[1:]) == pytest.approx(20, rel=0.1)


@pytest.mark.slow
def test_pipe(rh: Rh, mac: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    """rh-pipe on the scripted machine writes the hog's stay into the database."""
    done = rh("pipe", "--for", "4s", "--quiet", "--db", tmp_path / "x.db", **mac())    # an event begins after 2 s
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(f"file:{tmp_path / 'x.db'}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT command, pid, boot_id FROM process_events").fetchall()
    db.close()
    assert ("hog", 100, "6F1C3A52-0000-4000-8000-0123456789AB") in rows
