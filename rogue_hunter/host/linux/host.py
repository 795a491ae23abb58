"""Linux: processes from /proc, with the gate.

A process whose CPU clock is the same as a tick ago did not run, so nothing changed that it alone can change: its row is
kept. A tick is therefore one cheap read for each idle process and a full reading of those that ran. What others can
change (memory that is reclaimed) is read from time to time, spread over the ticks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.host.linux.describe import Describer
from rogue_hunter.host.linux.exits import ExitReader, Exits, in_first_pid_namespace, listen
from rogue_hunter.host.linux.files import Files
from rogue_hunter.host.linux.gate import clocks_tell
from rogue_hunter.host.linux.gpu import GpuThread, Use
from rogue_hunter.host.linux.gpu import start as start_gpu
from rogue_hunter.host.linux.machine import Machine, is_procfs, read_facts
from rogue_hunter.host.linux.machine import uptime as read_uptime
from rogue_hunter.host.linux.process import STAT_MAX, Process
from rogue_hunter.host.linux.table import Newcomers, Scan, Sweep, Table
from rogue_hunter.host.protocol import Facts, Snapshot, Users
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

LIGHT_EVERY_NS = 700_000_000
"""What uses next to nothing (and this process itself, which runs at every beat) is read once a second at 3 Hz, all in
the same tick: the other two change no row of an idle machine, so no stage has to copy its rows or to make new ones. A
late tick has all of them too: lateness that counts as a pause is longer."""

CHILDREN_FIELDS = ("children_exited", "children_failed")

DESCRIBE_WAIT_S = 2.0
"""The first snapshot waits for descriptions at most so long; it is not on a beat yet."""
USERS_WAIT_S = 0.5
"""And for user names at most so long after that."""

CLOCK_STEP_S = 0.5
"""The wall clock counts as set when it moves by so much against the clock since boot; below lies what NTP corrects."""


class LinuxHost:
    """Reads `root` (a live /proc, or a recorded tree, whose files are opened at each reading).

    Raises HostError when the tree cannot be listed. `mono` is a monotonic clock in nanoseconds, `uptime` the seconds
    since boot that start times count in, `wall` the epoch in seconds, None for a tree without one.
    """

    def __init__(self, root: Path = Path("/proc"), mono: Callable[[], int] = time.monotonic_ns,
                 uptime: Callable[[], float] | None = None, wall: Callable[[], float] | None = None,
                 exits: ExitReader | None = None) -> None:
        self._mono = mono
        self._live = is_procfs(root)
        self._machine = Machine(root, self._live)
        self._describer = Describer(root)
        self._gpu: GpuThread | None = start_gpu(root) if self._live else None
        self._facts, boot_time = read_facts(self._machine, root, self._live)
        self._uptime = uptime or read_uptime(self._machine, self._live)
        self._wall = wall or (time.time if self._live and uptime is None else None)
        self._booted = None if self._wall is None else self._wall() - self._uptime()
        self._files = Files(root, self._live, self._live and clocks_tell(root))
        self._users = Users(mono)
        self._table = Table(self._files, self._describer, self._users, mono, boot_time)
        self._newcomers = Newcomers(self._table, self._files, self._machine)
        self._sweep = Sweep(self._files)
        self._exits = exits or (listen() if self._live and in_first_pid_namespace() else ExitReader())
        self._losing: set[Process] = set()
        """Those whose rows count children that ended in the last tick."""
        self._careless: dict[int, float] = {}
        """Processes that do not wait for their children, and how many of these were seen to end, lately."""
        self._unwaited: set[int] = set()
        """Children of such a process that ended in the last tick: one is missed a tick later."""
        self._rows: dict[Key, Row] = {}
        self._restless: set[Process] = set()
        """Those that ran in the last tick."""
        self._before_ns: int | None = None
        self._light_ns: int | None = None
        """Clock of the last tick in which light processes were read."""

    def facts(self) -> Facts:
        """Facts of this boot."""
        return self._facts

    def close(self) -> None:
        """Close every descriptor and end the threads."""
        self._describer.close()
        self._users.close()
        if self._gpu is not None:
            self._gpu.close()
        self._table.close()
        self._machine.close()
        self._exits.close()

    def snapshot(self) -> Snapshot:
        """Read every process; see rogue_hunter.host.protocol.Host."""
        now = self._mono()
        before = self._before_ns
        self._table.errors = self._files.errors = 0
        shot = Snapshot(now, self._rows, set())
        interval_s = 0.0 if before is None else (now - before) / 1e9
        scan = Scan(shot, before if before is not None else now, interval_s, self._uptime())
        ran, gone = self._files.poll()
        for process in gone:
            self._table.forget(process, scan)
        all_due = self._light_ns is None or now - self._light_ns >= LIGHT_EVERY_NS
        waiting = {process.row.get("ppid") for process in gone}
        for process, value in ran:
            if not all_due and process.stays_light(value, now) and process.key[0] not in waiting:
                scan.active += 1
                scan.cores += process.row.get("cpu_percent", 0.0) / 100
                scan.unsettled.add(process)
            else:
                self._table.reread(process, value, scan)
        self._forget_reaped(scan)
        self._ask_orphans(scan)
        self._newcomers.find(scan)
        self._settle(scan, all_due)
        if all_due:
            self._sweep_some(scan, 0.0 if self._light_ns is None else (now - self._light_ns) / 1e9)
            self._light_ns = now
        self._take_exits(scan)
        self._table.take_descriptions(scan)
        if before is None:
            self._describer.wait(DESCRIBE_WAIT_S)
            self._users.wait(USERS_WAIT_S)
            self._table.take_descriptions(scan)
        self._follow_clock(scan)
        if self._gpu is not None and (use := self._gpu.latest()) is not None:
            self._take_gpu(use, scan)
        shot.changed -= set(scan.gone)
        shot.exited = tuple(scan.gone)
        shot.machine = self._machine.fields(now)
        shot.active = scan.active
        shot.unreadable = len(self._table.denied) + len(self._newcomers.unreadable)
        shot.errors = self._table.errors + self._files.errors + self._machine.errors
        if before is not None:
            shot.cpu_cores = scan.cores
        self._rows = shot.processes
        self._before_ns = now
        return shot

    # -- the parts of a snapshot, in order -------------------------------------------------------------------------

    def _forget_reaped(self, scan: Scan) -> None:
        """A child may have ended after the poll and before its parent was read: its parent's counters hold what it
        used, so it must not be there any more."""
        parents = {process.key[0] for process in scan.unsettled if process.reaped}
        if parents:
            for process in [p for p in self._table.processes.values() if p.row.get("ppid") in parents]:
                if self._files.clock.ended(process):
                    self._table.forget(process, scan)

    def _ask_orphans(self, scan: Scan) -> None:
        """A process does not run to get another parent: those whose parent is gone are read for the new one."""
        asked, self._newcomers.strays = self._newcomers.strays, []
        if scan.gone:
            dead = {key[0] for key in scan.gone}
            asked += [p for p in self._table.processes.values() if p.row.get("ppid") in dead]
        for process in asked:
            if process.read_ns < scan.shot.mono_ns and process.key in self._table.processes:
                self._touch(process, scan)

    def _touch(self, process: Process, scan: Scan) -> None:
        if not self._table.touch(process, scan):
            self._newcomers.look_again()

    def _settle(self, scan: Scan, all_due: bool) -> None:
        """Set to 0 the rates of those that ran a tick ago and did not in this one; of light ones, when they are due."""
        for process in self._restless:
            if process in scan.unsettled or process.key not in self._table.processes or process.own:
                continue
            if process.light and not all_due:
                scan.unsettled.add(process)
            elif process.gate is None or process.was_idle(value := process.gate.last_value(process)):
                process.rest()
                self._table.publish(process, scan)
            else:
                self._table.reread(process, value, scan)
        self._restless = scan.unsettled
        self._files.trim()

    def _sweep_some(self, scan: Scan, seconds: float) -> None:
        """Read a few of those that did not run: their memory may have been reclaimed. `seconds`: since last time."""
        for process in self._sweep.due(seconds, self._machine.calm):
            if process.key not in self._table.processes or process in scan.unsettled:
                continue
            if process.gate is not None and process.gate.exact:
                self._touch(process, scan)
                continue
            try:
                self._table.read(process, self._files.read(process, "stat", STAT_MAX), scan)
            except (OSError, ValueError):
                continue
            scan.unsettled.add(process)
            self._table.publish(process, scan)

    def _follow_clock(self, scan: Scan) -> None:
        """When the wall clock was set, start times are computed again: an age is that of the boot clock."""
        if self._wall is None or self._booted is None:
            return
        booted = self._wall() - self._uptime()
        step = booted - self._booted
        if abs(step) >= CLOCK_STEP_S:
            self._booted = booted
            self._table.set_boot_time(self._table.boot_time + step, scan)

    def _take_exits(self, scan: Scan) -> None:
        """Add how many children of each process ended since the last tick, and remove it from last tick's rows."""
        exits = self._exits.read()
        self._share_unwaited(exits, scan)
        losing = set()
        if exits.children:
            for process in self._table.processes.values():
                ended = exits.children.get(process.key[0])
                if ended:
                    losing.add(process)
                    process.row = {**process.row, "children_exited": ended,
                                   "children_failed": exits.failed.get(process.key[0], 0)}
                    self._table.publish(process, scan)
        for process in self._losing - losing:
            if process.key in self._table.processes and "children_exited" in process.row:
                process.row = {name: value for name, value in process.row.items() if name not in CHILDREN_FIELDS}
                self._table.publish(process, scan)
        self._losing = losing

    def _share_unwaited(self, exits: Exits, scan: Scan) -> None:
        """Count children that the kernel reports without a parent for the parents of those of them that were seen: one
        that ignores SIGCHLD. Most of its children live for less than a tick and are seen by none."""
        lately, self._unwaited = exits.unwaited | self._unwaited, exits.unwaited
        if not lately and not self._careless:
            return
        alive = {key[0] for key in self._table.processes}
        self._careless = {pid: much / 2 for pid, much in self._careless.items() if pid in alive and much > 0.01}
        for key in scan.gone:
            parent = self._rows[key].get("ppid")
            if key[0] in lately and parent in alive:
                self._careless[parent] = self._careless.get(parent, 0.0) + 1
        whole = sum(self._careless.values())
        for pid, much in self._careless.items():
            if part := round(len(exits.unwaited) * much / whole):
                exits.children[pid] = exits.children.get(pid, 0) + part

    def _take_gpu(self, use: dict[int, Use], scan: Scan) -> None:
        """GPU time that the other thread read. A process that gave its GPU back keeps its total and uses none."""
        for process in [p for p in self._table.processes.values() if p.key[0] in use or "gpu_ms_per_s" in p.static]:
            total, rate = use.get(process.key[0], (None, 0.0))
            fields = {"gpu_seconds_total": total, "gpu_ms_per_s": rate}
            known = {name: value for name, value in fields.items() if value is not None}
            process.static.update(known)
            process.row = {**process.row, **known}
            self._table.publish(process, scan)
