"""Linux: processes from /proc, with the gate.

A process whose CPU clock says the same as a tick ago did not run, so nothing changed that it alone can change: its row
stands. A tick is therefore one question for each idle process and a full reading of those that ran. What others can
change (memory that is reclaimed) is read from time to time, spread over the ticks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.host.linux import boot
from rogue_hunter.host.linux.boot import read_facts
from rogue_hunter.host.linux.describe import Describer
from rogue_hunter.host.linux.exits import ExitReader, in_first_pid_namespace, listen
from rogue_hunter.host.linux.files import Files
from rogue_hunter.host.linux.gate import clocks_tell
from rogue_hunter.host.linux.gpu import GpuThread, Use
from rogue_hunter.host.linux.gpu import start as start_gpu
from rogue_hunter.host.linux.machine import Machine, is_procfs
from rogue_hunter.host.linux.newcomers import Newcomers
from rogue_hunter.host.linux.process import STAT_MAX, Process
from rogue_hunter.host.linux.sweep import Sweep
from rogue_hunter.host.linux.table import Reading, Table
from rogue_hunter.host.protocol import Facts, Snapshot
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

OWN_EVERY_NS = 700_000_000
"""We run at every beat, so our own row is always worth a reading: at 3 Hz it is made once a second. It cost 0.3 ms a
tick in all stages, of 4 at 1,000 processes. A late tick has it always: lateness that counts as a pause begins above."""

CHILDREN_FIELDS = ("children_exited", "children_failed")

DESCRIBE_WAIT_S = 2.0
"""The first snapshot waits for names at most so long; it is not on a beat yet."""


class LinuxHost:
    """Reads `root` (a live /proc, or a recorded tree, whose files are then opened anew at each reading).

    Raises HostError when the tree cannot be listed. `mono` is a monotonic clock in nanoseconds, `uptime` the seconds
    since boot that start times count in.
    """

    def __init__(self, root: Path = Path("/proc"), mono: Callable[[], int] = time.monotonic_ns,
                 uptime: Callable[[], float] | None = None, exits: ExitReader | None = None) -> None:
        self._root = root
        self._mono = mono
        self._live = is_procfs(root)
        self._machine = Machine(root, self._live)
        self._describer = Describer(root)
        self._gpu: GpuThread | None = start_gpu(root) if self._live else None
        self._facts, boot_time = read_facts(self._machine, root, self._live)
        self._uptime = uptime or boot.uptime(self._machine, self._live)
        self._files = Files(root, self._live, self._live and clocks_tell(root))
        self._table = Table(root, self._live, self._files, self._describer, mono)
        self._newcomers = Newcomers(root, self._live, self._table, self._files, self._machine, self._describer,
                                    boot_time)
        self._sweep = Sweep(self._files)
        self._exits = exits or (listen() if self._live and in_first_pid_namespace() else ExitReader())
        self._losing: set[Process] = set()
        """Those whose rows tell of children that ended in the last tick."""
        self._rows: dict[Key, Row] = {}
        self._restless: set[Process] = set()
        """Those that ran in the last tick."""
        self._before_ns: int | None = None

    def facts(self) -> Facts:
        """Facts of this boot."""
        return self._facts

    def close(self) -> None:
        """Close every descriptor and end the describing thread."""
        self._describer.close()
        if self._gpu is not None:
            self._gpu.close()
        self._table.close()
        self._machine.close()
        self._exits.close()

    def snapshot(self) -> Snapshot:
        """Read every process; see rogue_hunter.host.Host."""
        now = self._mono()
        before = self._before_ns
        self._table.errors = self._files.errors = 0
        shot = Snapshot(now, self._rows, set())
        interval_s = 0.0 if before is None else (now - before) / 1e9
        tick = Reading(shot, before if before is not None else now, interval_s, self._uptime())
        ran, gone = self._files.poll()
        for process in gone:
            self._table.forget(process, tick)
        for process, said in ran:
            if process.own and now - process.read_ns < OWN_EVERY_NS and "cpu_percent" in process.row:
                self._stand(process, tick)
            else:
                self._table.reread(process, said, tick)
        self._forget_reaped(tick)
        self._ask_orphans(tick)
        self._newcomers.find(tick)
        self._settle(tick)
        self._sweep_some(tick)
        self._take_exits(tick)
        self._take_descriptions(tick)
        if before is None:
            self._describer.wait(DESCRIBE_WAIT_S)
            self._take_descriptions(tick)
        if self._gpu is not None and (use := self._gpu.latest()) is not None:
            self._take_gpu(use, tick)
        shot.changed -= set(tick.gone)
        shot.exited = tuple(tick.gone)
        shot.machine = self._machine.fields(now)
        shot.active = tick.active
        shot.unreadable = len(self._table.denied) + len(self._newcomers.shut)
        shot.errors = self._table.errors + self._files.errors + self._machine.errors
        if before is not None:
            shot.cpu_cores = tick.cores
        self._rows = shot.processes
        self._before_ns = now
        return shot

    # -- the parts of a snapshot, in order -------------------------------------------------------------------------

    def _stand(self, process: Process, tick: Reading) -> None:
        """A process that ran and whose row stands all the same."""
        tick.active += 1
        tick.cores += process.row.get("cpu_percent", 0.0) / 100
        tick.unsettled.add(process)

    def _forget_reaped(self, tick: Reading) -> None:
        """A child may have ended after the poll and before its parent was read: its parent's counters hold what it
        used, so it must not be there any more."""
        parents = {process.key[0] for process in tick.unsettled if process.reaped}
        if parents:
            for process in [p for p in self._table.processes.values() if p.row.get("ppid") in parents]:
                if self._files.clock.ended(process):
                    self._table.forget(process, tick)

    def _ask_orphans(self, tick: Reading) -> None:
        """A process does not run to get another parent: those whose parent is gone are asked who it is now."""
        asked, self._newcomers.strays = self._newcomers.strays, []
        if tick.gone:
            dead = {key[0] for key in tick.gone}
            asked += [p for p in self._table.processes.values() if p.row.get("ppid") in dead]
        for process in asked:
            if process not in tick.unsettled and process.key in self._table.processes:
                self._touch(process, tick)

    def _touch(self, process: Process, tick: Reading) -> None:
        if not self._table.touch(process, tick):
            self._newcomers.look_again()

    def _settle(self, tick: Reading) -> None:
        """Those that ran a tick ago and did not in this one: their rates are 0 now."""
        for process in self._restless:
            if process not in tick.unsettled and process.key in self._table.processes and not process.own:
                process.rest()
                self._table.publish(process, tick)
        self._restless = tick.unsettled
        self._files.trim()

    def _sweep_some(self, tick: Reading) -> None:
        """A few of those that did not run: their memory may have been taken."""
        for process in self._sweep.due(tick.interval_s, self._machine.calm):
            if process.key not in self._table.processes or process in tick.unsettled:
                continue
            if process.gate is not None and process.gate.exact:
                self._touch(process, tick)
                continue
            try:
                self._table.read(process, self._files.read(process, "stat", STAT_MAX), tick)
            except (OSError, ValueError):
                continue
            tick.unsettled.add(process)
            self._table.publish(process, tick)

    def _take_descriptions(self, tick: Reading) -> None:
        for key, fields, denied in self._describer.answers():
            process = self._table.processes.get(key)
            if process is None:
                continue
            process.static.update(fields)
            process.row = {**process.row, **fields}
            process.denied = denied
            self._table.publish(process, tick)

    def _take_exits(self, tick: Reading) -> None:
        """How many children of each process ended since the last tick; the rows of the last tick's are put back."""
        exits = self._exits.read()
        losing = set()
        if exits.children:
            for process in self._table.processes.values():
                ended = exits.children.get(process.key[0])
                if ended:
                    losing.add(process)
                    process.row = {**process.row, "children_exited": ended,
                                   "children_failed": exits.failed.get(process.key[0], 0)}
                    self._table.publish(process, tick)
        for process in self._losing - losing:
            if process.key in self._table.processes and "children_exited" in process.row:
                process.row = {name: value for name, value in process.row.items() if name not in CHILDREN_FIELDS}
                self._table.publish(process, tick)
        self._losing = losing

    def _take_gpu(self, use: dict[int, Use], tick: Reading) -> None:
        """GPU time that the other thread read. A process that gave its GPU back keeps its total and uses none."""
        for process in [p for p in self._table.processes.values() if p.key[0] in use or "gpu_ms_per_s" in p.static]:
            total, rate = use.get(process.key[0], (None, 0.0))
            fields = {"gpu_seconds_total": total, "gpu_ms_per_s": rate}
            known = {name: value for name, value in fields.items() if value is not None}
            process.static.update(known)
            process.row = {**process.row, **known}
            self._table.publish(process, tick)
