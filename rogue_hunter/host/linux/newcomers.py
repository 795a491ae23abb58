"""Processes that were not there a tick ago: who they are, by a listing of /proc when a pid was given out."""

from __future__ import annotations

import errno
import os
from itertools import islice
from pathlib import Path

from rogue_hunter.host.linux.boot import own_namespace
from rogue_hunter.host.linux.describe import Describer
from rogue_hunter.host.linux.files import Files
from rogue_hunter.host.linux.gate import GONE
from rogue_hunter.host.linux.machine import Machine
from rogue_hunter.host.linux.parse import PF_KTHREAD, parse_loadavg_last_pid, parse_stat
from rogue_hunter.host.linux.process import STAT_MAX, Process
from rogue_hunter.host.linux.table import Reading, Table
from rogue_hunter.host.protocol import HostError

LIST_EVERY = 30
"""Ticks after which /proc is listed even when no pid was given out: 10 s at 3 Hz, against what the last pid hides."""

_DENIED = (errno.EACCES, errno.EPERM)


class Newcomers:
    """Finds them and adds them to `table`. `live` says that `root` is a mounted procfs; `boot_time` is epoch seconds.
    """

    def __init__(self, root: Path, live: bool, table: Table, files: Files, machine: Machine, describer: Describer,
                 boot_time: float) -> None:
        self._root = root
        self._live = live
        self._table = table
        self._files = files
        self._machine = machine
        self._describer = describer
        self._boot_time = boot_time
        # A tree of another pid namespace shows another loadavg than ours counts: then list at every tick.
        self._last_pid_tells = live and own_namespace(root)
        self._own_pid = os.getpid() if self._last_pid_tells else -1
        self.shut: set[str] = set()
        """Names in /proc below which nothing may be read at all (hidepid=1)."""
        self.strays: list[Process] = []
        """New ones whose parent was gone before it was met: who their parent is now, the next tick asks."""
        self._last_pid = b""
        self._first = True
        self._tick = 0

    def find(self, tick: Reading) -> None:
        """Add who is new. Raises HostError when not even the first listing succeeds."""
        self._tick += 1
        if self._nobody(tick):
            return
        try:
            names = os.listdir(self._root)
        except OSError as error:
            if self._first:
                raise HostError(f"{self._root}: {error.strerror}") from None
            self._try_again()
            return
        known = self._table.names
        self.shut.clear()
        for name in names:
            if name not in known:
                if name.isascii() and name.isdigit():
                    self._meet(name, tick)
                else:
                    known[name] = None
        if tick.shot.started:
            met = islice(reversed(self._table.processes.values()), tick.shot.started)
            self.strays = [p for p in met if p.row["ppid"] and str(p.row["ppid"]) not in known]
        if not self._live:
            for name in known.keys() - set(names):
                process = known[name]
                if process is not None:
                    self._table.forget(process, tick)
        self._first = False

    def look_again(self) -> None:
        """List /proc at the next tick, new pids or not."""
        self._last_pid = b""

    def _nobody(self, tick: Reading) -> bool:
        """True when no pid was given out since the last tick."""
        if not self._last_pid_tells:
            return False
        loadavg = self._machine.read("loadavg", 128)
        last = parse_loadavg_last_pid(loadavg) if loadavg else b""
        # A pid that was freed in this tick may have been given out again without the number moving.
        unmoved = last == self._last_pid and loadavg and not any(b"%d" % key[0] == last for key in tick.gone)
        self._last_pid = last
        return bool(unmoved and self._tick % LIST_EVERY)

    def _meet(self, name: str, tick: Reading) -> None:
        """A process seen for the first time."""
        pid = int(name)
        try:
            said = self._files.read_file(f"{name}/stat", STAT_MAX)
            stat = parse_stat(said)
        except OSError as error:
            if error.errno in _DENIED:
                self.shut.add(name)
            elif error.errno not in GONE:
                self._try_again()
            return
        except ValueError:
            self._table.errors += 1
            return
        key = (pid, stat.start)
        process = Process(key, stat, self._boot_time, own=pid == self._own_pid)
        try:
            cores = self._table.read(process, self._files.watch(process, stat, said), tick)
        except (OSError, ValueError) as error:
            self._files.unwatch(process)
            if not (isinstance(error, OSError) and error.errno in GONE):
                self._try_again()
            return
        self._table.processes[key] = process
        self._table.names[name] = process
        tick.shot.started += 1
        if not self._first:
            tick.cores += cores
            tick.active += 1
        tick.unsettled.add(process)
        self._table.publish(process, tick)
        self._describer.ask(key, process.static.get("uid", -1), bool(stat.flags & PF_KTHREAD))

    def _try_again(self) -> None:
        """Whoever could not be met for a passing reason is looked for at the next tick."""
        self._table.errors += 1
        self.look_again()
