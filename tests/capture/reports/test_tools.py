"""Sleep and wake out of pmset's log, on real logs and on damaged ones."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.capture.reports.tools import PMSET, get_recent_sleep_events, pmset, recent
from rogue_hunter.stream.tick import Record
from tests.tools.spindump import SAMPLES, check

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")

SLEEP, WAKE, DARK = "sleep", "wake", "dark_wake"

LOG = b"""PM ASL data store: /var/log/powermanagement
Time stamp                Domain              \tMessage                        \tDuration  \tDelay
==========                ======              \t=======                        \t========  \t=====
UUID: 02752674-980A-419B-89FE-89D172AD974D
2025-02-07 07:00:05 -0500 Sleep               \tEntering Sleep state due to 'Maintenance Sleep':TCPKeepAlive=active \
Using Batt (Charge:76%) 2 secs    \n\
2025-02-07 07:00:06 -0500 Wake Requests       \t[*process=dasd request=SleepService deltaSecs=960]
2025-02-07 07:00:07 -0500 DarkWake            \tDarkWake from Deep Idle [CDNP] : due to SMC.OutboxNotEmpty \
smc.70070000 wifibt/ Using BATT (Charge:76%) 7 secs    \n\
2025-02-07 07:00:07 -0500 WakeTime            \tWakeTime: 0.343 sec                \t
2025-02-07 21:30:00 +0900 Wake                \tWake from Safe Sleep [CDNVA] due to /User: Using AC(Charge: 0)
2025-13-40 00:00:00 -0500 Sleep               \tEntering Sleep state due to 'Clamshell Sleep': Using AC (Charge:5%)
2025-02-07 21:31 Sleep
Total Sleep/Wakes since boot at 2025-02-06 17:30:44 -0400 :0   Dark Wake Count in this sleep cycle:0
"""


def events(data: bytes) -> list[Record]:
    """The records of a log."""
    return check(pmset(data.splitlines()))


def test_lines() -> None:
    """The three kinds of event, their reasons, power and durations; everything else is skipped."""
    assert [[each.get(name) for name in ("kind", "ts", "reason", "duration_s", "power", "charge_percent")]
            for each in events(LOG)] == [
        [SLEEP, 1738929605.0, "Maintenance Sleep", 2.0, "battery", 76],
        [DARK, 1738929607.0, "SMC.OutboxNotEmpty smc.70070000 wifibt/", 7.0, "battery", 76],
        [WAKE, 1738931400.0, "/User", None, "ac", 0],
    ]


@needs_samples
@pytest.mark.parametrize(("name", "counts"), [
    ("macos-10.14.5-pmset-log-first-600-lines.txt", {SLEEP: 6, DARK: 5, WAKE: 2}),
    ("apple-silicon-2025-02-excerpt.txt", {SLEEP: 1, DARK: 1}),
    ("macos-15.7-2026-09-lineshapes.txt", {SLEEP: 1, DARK: 1, WAKE: 1}),
])
def test_real_logs(name: str, counts: dict[str, int]) -> None:
    """Every event of the real logs is found, with a reason and its power source."""
    found = events((SAMPLES / "pmset" / name).read_bytes())
    assert Counter(e["kind"] for e in found) == counts
    assert all(e["reason"] and e["power"] in ("ac", "battery") and "charge_percent" in e for e in found)


@needs_samples
def test_real_clock_step() -> None:
    """The real log's order is kept, and what looks recent from before a step back is not taken for recent."""
    found = events((SAMPLES / "pmset" / "macos-10.14.5-pmset-log-first-600-lines.txt").read_bytes())
    near = recent(found, 3600, found[-1]["ts"] + 60)
    assert near == found[-len(near):] and near[-1] is found[-1]


def test_recent_stops_at_the_clock_step() -> None:
    """Events before the clock was set back carry later times; they are not recent."""
    found: list[Record] = [{"ts": at} for at in (5000.0, 5010.0, 100.0, 990.0, 995.0)]
    assert [e["ts"] for e in recent(found, 50, 1000)] == [990.0, 995.0]
    assert [e["ts"] for e in recent(found, 2000, 1000)] == [100.0, 990.0, 995.0]


def test_asking() -> None:
    """pmset is asked by its absolute path; where it is missing, fails or hangs the answer is unknown."""
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> bytes:
        asked.append(argv)
        return LOG

    got = get_recent_sleep_events(2000, now=1738931500.0, run=run)
    assert got is not None and [e["kind"] for e in got] == [SLEEP, DARK, WAKE] and asked == [PMSET]
    for error in (FileNotFoundError("pmset"), subprocess.TimeoutExpired("pmset", 20),
                  subprocess.CalledProcessError(1, "pmset")):
        def fail(argv: Sequence[str], error: Exception = error) -> bytes:
            raise error

        assert get_recent_sleep_events(run=fail) is None


@given(st.binary(max_size=400), st.sampled_from(LOG.splitlines()))
def test_any_bytes(junk: bytes, line: bytes) -> None:
    """No bytes make the parser fail, and a damaged line does not take the whole one after it along."""
    found = events(junk.replace(b"\r", b"") + b"\n" + LOG.splitlines()[4] + b"\n" + line[: len(junk)] + junk)
    assert any(e["ts"] == 1738929605.0 for e in found)
