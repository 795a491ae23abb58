"""When a Mac slept and woke: `pmset -g log` as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rogue_hunter.host.macos.sleepwake import SleepWakeEvent, event_of
from rogue_hunter.stream.tick import Record, record


def parse(lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """A sleep_wake record for each sleep and wake; the other lines of the log are skipped."""
    for line in lines:
        if (event := event_of(line[:4096].decode("utf-8", "backslashreplace"))) is not None:
            yield sleep_record(event, capture)


def sleep_record(event: SleepWakeEvent, capture: str | None = None) -> Record:
    """One event as a record."""
    return record("sleep_wake", capture=capture, ts=event.at, kind=event.type.value,
                  reason=event.reason[:1024] or None, duration_s=event.duration_s, power=event.power,
                  charge_percent=event.charge_percent)
