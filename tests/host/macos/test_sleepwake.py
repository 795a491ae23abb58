"""Sleep and wake out of pmset's log, on real logs and on damaged ones."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.macos.sleepwake import (
    PMSET,
    SleepWakeEvent,
    SleepWakeType,
    get_recent_sleep_events,
    parse_pmset_log,
    recent,
)

SAMPLES = Path(__file__).resolve().parent.parent.parent.parent.parent / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")

SLEEP, WAKE, DARK = SleepWakeType.SLEEP, SleepWakeType.WAKE, SleepWakeType.DARK_WAKE

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


def test_lines() -> None:
    """The three kinds of event, their reasons, power and durations; everything else is skipped."""
    assert parse_pmset_log(LOG) == [
        SleepWakeEvent(SLEEP, 1738929605.0, "Maintenance Sleep", 2.0, "battery", 76),
        SleepWakeEvent(DARK, 1738929607.0, "SMC.OutboxNotEmpty smc.70070000 wifibt/", 7.0, "battery", 76),
        SleepWakeEvent(WAKE, 1738931400.0, "/User", None, "ac", 0),
    ]


@needs_samples
@pytest.mark.parametrize(("name", "counts"), [
    ("macos-10.14.5-pmset-log-first-600-lines.txt", {SLEEP: 6, DARK: 5, WAKE: 2}),
    ("apple-silicon-2025-02-excerpt.txt", {SLEEP: 1, DARK: 1}),
    ("macos-15.7-2026-09-lineshapes.txt", {SLEEP: 1, DARK: 1, WAKE: 1}),
])
def test_real_logs(name: str, counts: dict[SleepWakeType, int]) -> None:
    """Every event of the real logs is found, with a reason and its power source."""
    events = parse_pmset_log((SAMPLES / "pmset" / name).read_bytes())
    assert Counter(e.type for e in events) == counts
    assert all(e.reason and e.power in ("ac", "battery") and e.charge_percent is not None for e in events)


@needs_samples
def test_real_clock_step() -> None:
    """The real log's order is kept, and what looks recent from before a step back is not taken for recent."""
    events = parse_pmset_log((SAMPLES / "pmset" / "macos-10.14.5-pmset-log-first-600-lines.txt").read_bytes())
    now = events[-1].at + 60
    near = recent(events, 3600, now)
    assert near == events[-len(near):] and near[-1] is events[-1]


def test_recent_stops_at_the_clock_step() -> None:
    """Events before the clock was set back carry later times; they are not recent."""
    events = [SleepWakeEvent(SLEEP, at, "x") for at in (5000.0, 5010.0, 100.0, 990.0, 995.0)]
    assert [e.at for e in recent(events, 50, 1000)] == [990.0, 995.0]
    assert [e.at for e in recent(events, 2000, 1000)] == [100.0, 990.0, 995.0]


def test_asking() -> None:
    """pmset is asked by its absolute path; where it is missing, fails or hangs the answer is unknown."""
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> bytes:
        asked.append(argv)
        return LOG

    got = get_recent_sleep_events(2000, now=1738931500.0, run=run)
    assert got is not None and [e.type for e in got] == [SLEEP, DARK, WAKE] and asked == [PMSET]
    for error in (FileNotFoundError("pmset"), subprocess.TimeoutExpired("pmset", 20),
                  subprocess.CalledProcessError(1, "pmset")):
        def fail(argv: Sequence[str], error: Exception = error) -> bytes:
            raise error

        assert get_recent_sleep_events(run=fail) is None


@given(st.binary(max_size=400), st.sampled_from(LOG.splitlines()))
def test_any_bytes(junk: bytes, line: bytes) -> None:
    """No bytes make the parser fail, and a damaged line does not take the whole one after it along."""
    events = parse_pmset_log(junk.replace(b"\r", b"") + b"\n" + LOG.splitlines()[4] + b"\n" + line[: len(junk)] + junk)
    assert any(e.at == 1738929605.0 for e in events)
