"""Beats in, ticks out: read the host once a beat and report what the reading cost and what delayed it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from rogue_hunter.host.linux.cgroups import Cgroups, Group
from rogue_hunter.host.protocol import Facts, Host, Snapshot
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.clock import Beat, Clock, Rate, beats, sleep
from rogue_hunter.stream.tick import Row, Tick


@dataclass(frozen=True, slots=True)
class Own:
    """Totals since the start: CPU time of the process (s), time the sampling thread waited for a CPU (s, None where the
    system does not report it), how often the process was stopped and continued, and time that the CPU quota of its
    control group took from all processes of that group (s, None without a quota)."""

    cpu_s: float
    run_delay_s: float | None = None
    continued: int = 0
    throttled_s: float | None = None


QUOTA_CALLS = 30
QUOTA_LATE_NS = 1_000_000_000
"""Calls between two looks for a CPU quota on our own control group: 10 s at 3 Hz. Without one a call costs nothing. A
call that comes so long after the one before looks at once: a new quota may be why."""


class OwnUse:
    """Reads Own when called. Must be made and called on the thread that samples.

    Counts SIGCONT, which also a process that handles it nowhere else gets; only the main thread may ask for it.
    """

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._cgroups = cgroups or Cgroups()
        self._limited: dict[Group, float] = {}
        self._calls = self._called_ns = 0
        self._throttled_s = 0.0
        self._continued = 0
        self._schedstat = -1
        with suppress(ValueError):
            signal.signal(signal.SIGCONT, self._count)
        with suppress(OSError):
            self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def _count(self, _number: int, _frame: object) -> None:
        self._continued += 1

    def __call__(self) -> Own:
        """What was used so far."""
        delay = None
        if self._schedstat >= 0:
            with suppress(OSError, ValueError, IndexError):
                delay = int(os.pread(self._schedstat, 64, 0).split()[1]) / 1e9
        return Own(time.process_time(), delay, self._continued, self._throttled())

    def _throttled(self) -> float | None:
        """Seconds taken by the quotas of our own control group and its ancestors."""
        known = bool(self._limited)
        for group, before in self._limited.items():     # also when the quota has just been lifted
            self._limited[group] = now = self._cgroups.throttled(group)[1]
            self._throttled_s += max(0.0, now - before)
        now_ns = time.monotonic_ns()
        if self._calls % QUOTA_CALLS == 0 or now_ns - self._called_ns >= QUOTA_LATE_NS:
            self._limited = {group: limit.throttled_s for group in self._cgroups.groups(os.getpid())
                             if (limit := self._cgroups.cpu(group))}
        self._calls, self._called_ns = self._calls + 1, now_ns
        return self._throttled_s if known or self._limited else None

    def close(self) -> None:
        """Give the descriptor back."""
        if self._schedstat >= 0:
            with suppress(OSError):     # it is freed even if close fails
                os.close(self._schedstat)
            self._schedstat = -1


def beats_of(host: Host, rate: Rate, sleep: Callable[[float], bool] = sleep, *, count: int | None = None,
             seconds: float | None = None, clock: Clock | None = None) -> Iterator[Beat]:
    """The beat for a host: the recorded one of a recording, else the clock's."""
    replay = getattr(host, "beats", None)
    if replay is not None:
        return islice(replay(), count)
    return beats(rate, sleep, clock or getattr(host, "clock", None), count=count, seconds=seconds)


CLOCK_STEP_S = 0.5
"""The wall clock counts as set when it and the monotonic clock differ by this much in one interval: NTP slews by at
most 0.5 ms a second, and steps from 0.128 s on; between lies what a loaded machine adds between two readings."""


def sample(host: Host, beat_stream: Iterable[Beat], *, silent_first: bool = False,
           own: Callable[[], Own] | None = None) -> Iterator[Tick]:
    """Read `host` at every beat.

    With `silent_first` the first reading makes no tick, so that the first tick carries rates. `own` reads what this
    process itself uses.
    """
    if own is None:
        used = OwnUse()
        try:
            yield from sample(host, beat_stream, silent_first=silent_first, own=used)
        finally:
            used.close()
        return
    facts = host.facts()
    then = own()
    last: Beat | None = None
    own_key: Key | None = None
    pageins = None
    for beat in beat_stream:
        shot = host.snapshot()
        now = own()
        if own_key not in shot.processes:
            own_key = next((key for key in shot.processes if key[0] == facts.own_pid), None)
        if not (silent_first and last is None):
            row = _closing_row(facts, beat, beat.seq - silent_first, shot)
            if last is not None:
                _add_own_use(row, beat, last, then, now)
            if own_key is not None:
                row["self_pid"] = own_key[0]
                pageins = _add_own_row(row, shot.processes[own_key], pageins)
            yield Tick(row, shot.processes, shot.changed, shot.exited)
        then, last = now, beat


def _add_own_row(row: Row, own: Row, pageins: int | None) -> int | None:
    """Add what the row of this very process shows; returns its page-ins so far."""
    if "memory_bytes" in own:
        row["self_memory_bytes"] = own["memory_bytes"]
    now: int | None = own.get("pageins_total")
    if now is not None and pageins is not None:
        row["self_pageins"] = now - pageins
    return now


def _add_own_use(row: Row, beat: Beat, last: Beat, then: Own, now: Own) -> None:
    """Add what this process used and waited for in the interval, and whether the clock was set."""
    interval = beat.interval_s
    if interval > 0:
        row["self_cpu_percent"] = round(100 * (now.cpu_s - then.cpu_s) / interval, 2)
    if now.run_delay_s is not None and then.run_delay_s is not None:
        row["self_run_delay_ms"] = round(1000 * (now.run_delay_s - then.run_delay_s), 2)
    if now.throttled_s is not None and then.throttled_s is not None and now.throttled_s >= then.throttled_s:
        row["self_throttled_ms"] = round(1000 * (now.throttled_s - then.throttled_s), 2)
    if now.continued != then.continued:
        row["continued"] = now.continued - then.continued
    step = beat.ts - last.ts - interval - beat.asleep_s
    if abs(step) >= CLOCK_STEP_S:
        row["clock_step_s"] = round(step, 3)


def _closing_row(facts: Facts, beat: Beat, seq: int, shot: Snapshot) -> Row:
    row: Row = {
        "ts": round(beat.ts, 3), "seq": seq, "mono_ns": beat.mono_ns, "host": facts.host,
        "boot_id": facts.boot_id, "os": facts.os, "interval_s": round(beat.interval_s, 6),
        "late_s": round(beat.late_s, 6), "asleep_s": round(beat.asleep_s, 3), "cpus": facts.cpus,
    }
    if facts.memory_total_bytes is not None:
        row["memory_total_bytes"] = facts.memory_total_bytes
    row.update(shot.machine)
    row.update(processes=len(shot.processes), active=shot.active, started=shot.started, exited=len(shot.exited),
               unreadable=shot.unreadable, errors=shot.errors)
    busy = row.get("cpu_busy_cores")
    if busy is not None and shot.cpu_cores is not None:
        row["unattributed_cpu_cores"] = round(max(0.0, busy - shot.cpu_cores), 3)
    return row


class Select:
    """A stage that leaves out rows: only the processes that ran, of these pids, of these users, the `top` by CPU."""

    def __init__(self, *, active: bool = False, pids: Iterable[int] = (), users: Iterable[str] = (),
                 top: int | None = None) -> None:
        self._active, self._pids, self._users, self._top = active, frozenset(pids), frozenset(users), top
        self._before: dict[Key, Row] = {}

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the selected rows."""
        if tick.row is None:
            return tick
        kept = {key: row for key, row in tick.processes.items() if self._keep(row)}
        if self._top is not None:
            ranked = sorted(kept.items(), key=lambda item: -(item[1].get("cpu_percent") or 0.0))
            kept = dict(ranked[:self._top])
        made = tick.with_rows(kept, self._before)
        self._before = kept
        return made

    def _keep(self, row: Row) -> bool:
        ran = any(map(row.get, ("cpu_percent", "children_cpu_percent", "context_switches_per_s"))) \
            or row.get("state") == "running"
        if self._active and not ran:
            return False
        if self._pids and row["pid"] not in self._pids:
            return False
        return not self._users or row.get("user") in self._users or str(row.get("uid")) in self._users
