"""macOS: processes through libproc, with the gate.

One proc_pid_rusage a process and tick is the gate: when all of its bytes are the same as a tick ago, the process did
not run and nothing of it changed, so its row is kept. Those that ran are also read by PROC_PIDTASKALLINFO. What others
can do to a process at rest (stop it, become its parent) is seen when every process is read in full, spread over
REFRESH_S. A process of another user is described by what may be read of every process, and its unique id is its gate.

A process's `start_ticks` is its start time in microseconds since the epoch, as the kernel took it from the wall clock
when it forked; with the pid it is unique in a boot, and both of the calls that return it may be made for some processes
only (proc_bsdinfo: own; sysctl kern.proc.pid: everybody's), with the same result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rogue_hunter.host.macos.abi import ESRCH, QOS_CLASS_USER_INITIATED
from rogue_hunter.host.macos.iokit import GpuReader
from rogue_hunter.host.macos.libproc import Library, PidLister, load, seconds_per_tick, set_thread_qos
from rogue_hunter.host.macos.machine import Machine, darwin_clock, monotonic_ns, read_facts
from rogue_hunter.host.macos.process import DENIED, Gate, Gone, Looker, Process, Unclear
from rogue_hunter.host.macos.slow import Slow
from rogue_hunter.host.protocol import Facts, Snapshot
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.clock import Clock
from rogue_hunter.stream.tick import Row

REFRESH_S = 20.0
"""Every process is read in full at least so often: 17 calls more a tick for 1,000 processes at 3 Hz."""
CLOCK_STEP_S = 0.5
"""The wall clock counts as set when it moves by so much against mach_continuous_time; below lies what NTP corrects."""
FIRST_WAIT_S = 2.0
"""How long the first snapshot waits for the worker. KERN_PROCARGS2 of 500 processes took 21 ms on an M1 Ultra."""


@dataclass(slots=True)
class _Scan:
    """What one snapshot gathers. `reused` are pids that belong to another process by now; `leaving` and `arriving` wait
    for the gates until these are through."""

    rows: dict[Key, Row]
    changed: set[Key] = field(default_factory=set)
    exited: list[Key] = field(default_factory=list)
    dead_pids: set[int] = field(default_factory=set)
    started: int = 0
    active: int = 0
    errors: int = 0
    cpu_percent: float = 0.0
    reused: list[int] = field(default_factory=list)
    leaving: list[Process] = field(default_factory=list)
    arriving: list[Process] = field(default_factory=list)


class DarwinHost:
    """A Mac, or what `library` makes of one. Raises HostError when it cannot be loaded or lacks a function.

    `mono` is a monotonic clock in nanoseconds, `wall` the epoch in seconds, `gpu` reads GPU time in the worker.
    """

    def __init__(self, library: str | Library | None = None, *, mono: Callable[[], int] | None = None,
                 wall: Callable[[], float] = time.time, gpu: GpuReader | None = None,
                 refresh_s: float = REFRESH_S, first_wait_s: float = FIRST_WAIT_S) -> None:
        self._library = library if isinstance(library, Library) else load(library)
        self._mono = mono or monotonic_ns(self._library)
        self._wall = wall
        self._continuous = darwin_clock(self._library).sleeping
        self._offset_s, self._mono_offset_s = self._clock_offset(), self._wall() - self._mono() / 1e9
        self._tick_s = seconds_per_tick(self._library)
        self._facts = read_facts(self._library)
        self._machine = Machine(self._library, self._mono)
        self._list = PidLister(self._library)
        self._looker = Looker(self._library)
        self._own, self._denied = Gate(self._looker.rusage, self._mono), Gate(self._looker.unique, self._mono)
        self._listed: list[int] = []
        self._slow = Slow(self._library, self._mono, gpu, self._machine.refresh)
        self._refresh_ns = int(refresh_s * 1e9)
        self._first_wait_s = first_wait_s
        self._by_pid: dict[int, Process] = {}
        self._rows: dict[Key, Row] = {}
        self._before_ns: int | None = None
        self._qos_thread = 0

    def facts(self) -> Facts:
        """Facts of this boot."""
        return self._facts

    @property
    def clock(self) -> Clock:
        """The clocks for the beat, time asleep included."""
        return darwin_clock(self._library)

    def close(self) -> None:
        """End the worker thread."""
        self._slow.close()

    def snapshot(self) -> Snapshot:
        """Read every process; see rogue_hunter.host.Host."""
        self._raise_priority()
        now = self._mono()
        first = self._before_ns is None
        r = _Scan(self._rows.copy())
        self._slow.failed = 0
        machine = self._machine.read(now)
        self._pick_up(r)
        self._visit_all(r)
        for process in self._by_pid.values() if r.dead_pids else ():
            if process.who.ppid in r.dead_pids:
                # Its parent is gone: it has another one without having run. Read it in full next time.
                process.refresh_ns = 1
        self._slow.ask(now, self._by_pid)
        if first:
            self._slow.wait(self._first_wait_s)
            self._pick_up(r)
        self._follow_clock(now, r)
        self._rows, self._before_ns = r.rows, now
        return Snapshot(
            now, r.rows, r.changed & r.rows.keys(), tuple(r.exited), r.started, r.active,
            unreadable=len(self._denied), errors=r.errors + self._slow.failed,
            cpu_cores=None if first else r.cpu_percent / 100, machine=machine)

    def _clock_offset(self) -> float:
        """The wall clock minus the one that also runs while the machine sleeps."""
        return self._wall() - (self._continuous() / 1e9 if self._continuous is not None else 0.0)

    def _follow_clock(self, now: int, r: _Scan) -> None:
        """When the wall clock was set, start times are moved with it: ages stay. A sleep moves it against the clock of
        the beat only."""
        mono_offset = self._wall() - now / 1e9
        if abs(mono_offset - self._mono_offset_s) < CLOCK_STEP_S or self._continuous is None:
            return
        self._mono_offset_s = mono_offset
        offset = self._clock_offset()
        step = offset - self._offset_s
        if abs(step) >= CLOCK_STEP_S:
            self._offset_s = offset
            for process in self._by_pid.values():
                process.start_shift_s += step
                self._publish(process, r)

    def _raise_priority(self) -> None:
        # A sampler that is put off when the machine is short of CPU would miss what it looks for.
        if self._qos_thread != threading.get_ident():
            self._qos_thread = threading.get_ident()
            set_thread_qos(self._library, QOS_CLASS_USER_INITIATED)

    def _visit_all(self, r: _Scan) -> None:
        pids, before = self._list(), self._listed
        self._listed = pids
        # The list is the same object while nothing changed; a pid that could not be read before is tried again.
        same = pids is before and len(pids) == len(self._by_pid)
        new = [] if same else [pid for pid in pids if pid not in self._by_pid]
        for process, raw, errno in self._own.poll():
            self._visit(process, raw, errno, r)
        for process, raw, _ in self._denied.poll():
            self._visit_denied(process, raw, r)
        if not same:
            listed = set(pids)
            for gone in [process for pid, process in self._by_pid.items() if pid not in listed]:
                self._forget(gone, r)
        for pid in sorted(new + r.reused):
            self._add(pid, r)
        for process in r.leaving:
            if process.place >= 0:
                self._gate(process).remove(process)
        for process in r.arriving:
            if self._by_pid.get(process.key[0]) is process:     # it may have come and gone within the round
                self._gate(process).add(process)

    def _gate(self, process: Process) -> Gate:
        return self._denied if process.usage is None else self._own

    # -- one process -----------------------------------------------------------------------------------------------

    def _visit(self, process: Process, raw: bytes | None, errno: int, r: _Scan) -> None:
        """Read a known process whose answer changed, or that is due."""
        try:
            if raw is not None:
                self._reread(process, raw, self._mono(), r)
                self._own.keep(process)
            elif errno in DENIED or errno == ESRCH:
                self._look_again(process, r)
            else:
                r.errors += 1
        except Gone:
            self._forget(process, r)
        except Unclear:
            r.errors += 1

    def _reread(self, process: Process, raw: bytes, now: int, r: _Scan) -> None:
        before = process.usage
        usage = before if before is not None and raw == process.pulse else self._looker.decode(raw)
        who, task = process.who, process.task
        if process.restless or now >= process.refresh_ns or process.outdated_by(usage):
            who, task = self._looker.who_and_task(process.key[0], usage)
            if (who.pid, who.start_us or 0) != process.key:
                self._forget(process, r)
                r.reused.append(process.key[0])
                return
            process.refresh_ns = now + self._refresh_ns
        before_exec = (process.who.command, process.who.uid, before.uuid if before else b"")
        process.pulse = raw
        r.active += process.advance(who, usage, task, now, self._tick_s)
        if before_exec != (who.command, who.uid, usage.uuid):
            self._describe(process)
        if not process.settled:
            self._slow.note(process)
        r.cpu_percent += process.rates.get("cpu_percent", 0.0)
        self._publish(process, r)

    def _visit_denied(self, process: Process, raw: bytes | None, r: _Scan) -> None:
        try:
            if raw is None and self._mono() < process.refresh_ns and \
                    self._looker.poor_pulse(process.key[0]) == process.pulse:
                return
            self._look_again(process, r)
        except Gone:
            self._forget(process, r)
        except Unclear:
            r.errors += 1

    def _look_again(self, process: Process, r: _Scan) -> None:
        """Take a known process as if it were new: what may be read of it has changed, or might have."""
        look = self._looker.look(process.key[0])
        again = Process(look, self._mono())
        if again.key != process.key:
            self._forget(process, r)
            r.reused.append(process.key[0])
            return
        again.refresh_ns = 1 if look.passing else again.read_ns + self._refresh_ns
        again.extra, again.gpu, again.row = process.extra, process.gpu, process.row
        again.start_shift_s = process.start_shift_s
        self._by_pid[process.key[0]] = again
        r.leaving.append(process)
        r.arriving.append(again)
        if (again.who.command, again.who.uid, again.usage is None) != (
                process.who.command, process.who.uid, process.usage is None):
            self._describe(again)
        self._publish(again, r)

    def _add(self, pid: int, r: _Scan) -> None:
        try:
            look = self._looker.look(pid)
        except Gone:
            return
        except Unclear:
            r.errors += 1
            return
        process = Process(look, self._mono())
        # Spread by pid, so that the full readings do not all fall on one tick.
        half = self._refresh_ns // 2
        process.refresh_ns = 1 if look.passing else process.read_ns + half + half * (pid * 2654435761 % 2**32) // 2**32
        if self._before_ns is not None and process.who.start_us:
            age_s = self._wall() - process.who.start_us / 1e6
            interval_s = (process.read_ns - self._before_ns) / 1e9
            if process.begin_rates(age_s, interval_s, self._tick_s):
                r.active += 1
                # Its part of the interval, not of its own shorter life: this is a sum over the machine.
                r.cpu_percent += process.rates.get("cpu_percent", 0.0) * age_s / interval_s
        r.started += 1
        self._by_pid[pid] = process
        r.arriving.append(process)
        self._describe(process)
        self._publish(process, r)

    def _forget(self, process: Process, r: _Scan) -> None:
        self._by_pid.pop(process.key[0], None)
        r.leaving.append(process)
        r.dead_pids.add(process.key[0])
        if r.rows.pop(process.key, None) is not None:
            r.exited.append(process.key)

    def _describe(self, process: Process) -> None:
        # The path on the beat: it is one cheap call, and the worker comes too late for a short life.
        path = self._looker.path(process.key[0])
        process.extra = {"exe": path} if path else {}
        self._slow.describe(process)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _pick_up(self, r: _Scan) -> None:
        """Take what the worker has found out into the rows."""
        for process in self._slow.take(self._by_pid).values():
            self._publish(process, r)

    def _publish(self, process: Process, r: _Scan) -> None:
        """Give out the row unless it is equal to the one before."""
        row = process.compose(self._slow.user(process.who.uid), self._slow.terminal(process.who.tty_device),
                              self._tick_s)
        if row == process.row and process.key in r.rows:
            return
        if row.get("state") == "defunct" != process.row.get("state"):
            r.dead_pids.add(process.key[0])   # its children have a new parent from now on, not when it is waited for
        process.row = row
        r.rows[process.key] = row
        r.changed.add(process.key)
