"""Waits as evidence: a stage that reports, off the beat, who waits for whom without using anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from rogue_hunter.capture.linux.waiting import STEPS, Looker, Seen
from rogue_hunter.sampling.units import KTHREADD
from rogue_hunter.schema.field import Key
from rogue_hunter.schema.slices import SLICE_S
from rogue_hunter.stream.tick import Record, Row, Tick, record, shown_name
from rogue_hunter.worker import Worker

EVERY_S = 1.0
"""Seconds between two looks."""

LASTING_S = 1.0
"""Seconds from which a wait is reported: shorter ones are how programs work."""

SAY_EVERY_S = float(SLICE_S)
SAY_LONG_EVERY_S = 60.0
LONG_S = 600.0
"""A wait that lasts is reported once a slice, and once a minute after ten minutes: some daemons wait for good."""

RECENT = 8
OTHERS = 4
"""Processes asked in one look: of those that ran lately and do not run now, and of all others in turn. One takes 25 us,
so a look takes 0.3 ms: 0.1 ms a tick at 3 Hz. Kernel threads are asked only while their wait is uninterruptible."""

RECENT_S = 30.0
"""Seconds for which a process counts as one that ran lately."""

Wait = tuple[str, str | None, int | None]
"""What makes two looks see the same wait: kind, object, holder."""

Job = tuple[tuple[Key, ...], Key | None, tuple[Key, ...]]
"""Candidates, the busiest process of many threads, and those that wake up all the time."""

IDLE_PERCENT = 5.0
"""CPU use below which a process that ran in the last tick may wait all the same: it looks again and again."""
BUSY_PERCENT = 30.0
"""CPU use from which a process of many threads is asked whether they wait for each other."""
RESTLESS = 5000.0
RESTLESS_MOST = 4
"""Wakeups a second from which a process is asked whether it is traced, and how many are asked. strace wakes it twice a
system call, each time for about 20 us: a tenth of its time."""
TRACING = 0.2
"""A tracer that wakes up this often for each wakeup of its process stops it; a debugger that lets it run does not."""


class Waits:
    """A stage: adds `wait` records to the ticks. A background thread does the reading.

    `reads` replaces the reading of /proc: candidates in, waits out. On a system without /proc nothing is read.
    """

    def __init__(self, root: Path = Path("/proc"),
                 reads: Callable[[Iterable[Key], Key | None, Collection[Key]], list[Seen]] | None = None) -> None:
        look = reads or Looker(root)
        self._worker: Worker[Job, list[Seen]] = Worker("rh-waits", lambda job: look(*job), limit=1)
        self._readable = reads is not None or (root / "self/stat").exists()
        self._ran_ns: dict[Key, int] = {}
        """When each process was last seen to run; those that were not are missing."""
        self._first_ns: int | None = None
        """The first tick. What has not run since waited already then."""
        self._asked: dict[Key, int] = {}
        self._turn: list[Key] = []
        self._still: dict[Key, None] = {}
        """Processes in an uninterruptible wait, and stopped ones."""
        self._then_ns = 0
        self._lasting: dict[Wait, tuple[int, int]] = {}
        """Each wait: when it was seen first, and when it was reported last (0: not yet), on the monotonic clock."""
        self._waiters: list[Key] = []
        """The processes in those waits: they are asked at every look, until one does not see them wait."""

    def __call__(self, tick: Tick) -> Tick:
        """Submit a look once in EVERY_S, and report what the last one saw."""
        if tick.row is None or not self._readable:
            return tick
        now: int = tick.row["mono_ns"]
        if self._first_ns is None:
            self._first_ns = now
        for key in tick.changed:
            if (row := tick.processes.get(key)) is None:
                continue
            if row.get("cpu_percent") or row.get("wakeups_per_s"):
                self._ran_ns[key] = now
            if row.get("state") in ("uninterruptible", "stopped"):
                self._still[key] = None
            else:
                self._still.pop(key, None)
        for key in tick.exited:
            self._still.pop(key, None)
            self._ran_ns.pop(key, None)
        for found in self._worker.collect():
            tick.records += self._report(found, tick, tick.row, now)
        if now - self._then_ns >= EVERY_S * 1e9 and not self._worker.pending:
            self._then_ns = now
            self._worker.submit((self._candidates(tick, now), _busiest(tick), _restless(tick)))
        return tick

    def close(self) -> tuple[Record, ...]:
        """End the thread."""
        self._worker.close()
        return ()

    def _candidates(self, tick: Tick, now: int) -> tuple[Key, ...]:
        """Those that stopped running most recently or run little, least recently asked first; then some of the others
        in turn."""
        recent = {key for key, ran in self._ran_ns.items() if now - ran < RECENT_S * 1e9 and key in tick.processes}
        self._asked = {key: asked for key, asked in self._asked.items() if key in recent}
        still = [key for key in recent if (row := tick.processes[key]).get("ppid") != KTHREADD
                 and (self._ran_ns[key] < now or (row.get("cpu_percent") or 0.0) < IDLE_PERCENT)]
        still.sort(key=lambda key: (self._asked.get(key, 0), -self._ran_ns[key]))
        chosen = still[:RECENT]
        self._asked.update(dict.fromkeys(chosen, now))
        if not self._turn:
            self._turn = [key for key, row in tick.processes.items() if row.get("cmdline")]
        others, self._turn = self._turn[:OTHERS], self._turn[OTHERS:]
        waiting = [key for key in self._still if key in tick.processes][:RECENT]
        return tuple(dict.fromkeys((*self._waiters, *chosen, *waiting, *others)))

    def _report(self, found: list[Seen], tick: Tick, machine: Row, now: int) -> list[Record]:
        rows = {key[0]: (key, row) for key, row in tick.processes.items()} if found else {}
        lasting: dict[Wait, tuple[int, int]] = {}
        records = []
        for one in found:
            if not any(pid in rows for pid in (one.holder, *one.waiters)):
                continue        # all of them have ended since
            if one.object == STEPS and not _steps(one, rows):
                continue
            wait = (one.kind, one.object, one.holder) if one.holder or one.object else (one.kind, None, -one.waiters[0])
            first, said = self._lasting.get(wait, (now, 0))
            ran = [self._last_ran(*rows[pid], machine, now) for pid in one.waiters if pid in rows]
            if one.kind == "uninterruptible" or (one.kind == "file_lock" and one.certainty == "proven"):
                # What ran in between waits again and again, for a device that answers or a lock that changes hands.
                first = max(first, min(ran, default=first))
            if now - first >= LASTING_S * 1e9:
                # None begins to wait or to hold without running, and a run is seen within a second: neither waiter nor
                # holder has done anything else since they ran last.
                held = self._last_ran(*rows[one.holder], machine, now) if one.holder in rows else 0
                began = min(first, max(held, min(ran, default=first)))
                pause_s = SAY_EVERY_S if now - began < LONG_S * 1e9 else SAY_LONG_EVERY_S
                if not said or now - said >= pause_s * 1e9:
                    said = now
                    records.append(_record(one, rows, machine, (now - began) / 1e9, began == self._first_ns))
            lasting[wait] = first, said
        self._lasting = lasting
        self._waiters = [rows[pid][0] for one in found if one.kind not in ("file_lock", "mutex", "stopped")
                         or one.certainty == "guessed" for pid in one.waiters if pid in rows][:RECENT]
        return records

    def _last_ran(self, key: Key, row: Row, machine: Row, now: int) -> int:
        """When a process was last seen to run: at the first tick or its own start, the later, if it was not since."""
        age_s = max(0.0, machine["ts"] - row.get("start_time", 0.0))
        return self._ran_ns.get(key) or max(self._first_ns or now, now - int(age_s * 1e9))


def _busiest(tick: Tick) -> Key | None:
    """The process that uses most CPU, if it is busy and has several threads."""
    most = max((key for key in tick.changed if key in tick.processes),
               key=lambda key: tick.processes[key].get("cpu_percent") or 0.0, default=None)
    row = tick.processes[most] if most is not None else {}
    busy = (row.get("cpu_percent") or 0.0) >= BUSY_PERCENT and (row.get("threads") or 1) > 1
    return most if busy else None


def _restless(tick: Tick) -> tuple[Key, ...]:
    """The processes that wake up most often, if that is very often."""
    awake = [key for key in tick.changed if (tick.processes.get(key, {}).get("wakeups_per_s") or 0.0) >= RESTLESS]
    return tuple(sorted(awake, key=lambda key: -float(tick.processes[key]["wakeups_per_s"]))[:RESTLESS_MOST])


def _steps(one: Seen, rows: dict[int, tuple[Key, Row]]) -> bool:
    """True when a tracer wakes up as its tracee does, because it stops it again and again."""
    tracer, tracee = (rows[pid][1].get("wakeups_per_s") or 0.0 if pid in rows else 0.0
                      for pid in (one.holder, one.waiters[0]))
    return tracee > 0 and tracer >= TRACING * tracee


def _record(one: Seen, rows: dict[int, tuple[Key, Row]], machine: Row, since_s: float, standing: bool) -> Record:
    held: Row = {}
    if one.holder in rows:
        key, row = rows[one.holder]
        held = {"holder_pid": key[0], "holder_start_ticks": key[1], "holder": shown_name(row),
                "holder_state": one.holder_state or row.get("state")}
    elif one.holder is not None:
        held = {"holder_pid": one.holder}
    waiters = []
    for pid in one.waiters:
        if pid in rows:
            (_, start_ticks), row = rows[pid]
            waiters.append({"pid": pid, "start_ticks": start_ticks, "name": shown_name(row)})
        else:
            waiters.append({"pid": pid})
    return record("wait", ts=machine["ts"], boot_id=machine["boot_id"], kind=one.kind, object=one.object,
                  since_s=round(since_s, 3), standing=standing, waiters=waiters, certainty=one.certainty, **held)
