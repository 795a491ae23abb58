"""Linux: processes from /proc, with the gate.

A process whose CPU clock says the same as a tick ago did not run, so nothing changed that it alone can change: its row
stands. A tick is therefore one question for each idle process and a full reading of those that ran. What others can
change (memory that is reclaimed) is read from time to time, spread over the ticks.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from rogue_hunter.host import Facts, HostError, Snapshot
from rogue_hunter.host.linux import boot
from rogue_hunter.host.linux.boot import own_namespace, read_facts
from rogue_hunter.host.linux.delay import DELAY_CPU_PERCENT, DELAY_THREADS
from rogue_hunter.host.linux.describe import Describer
from rogue_hunter.host.linux.files import GONE, Files, Said
from rogue_hunter.host.linux.gate import clocks_tell
from rogue_hunter.host.linux.gpu import GpuThread, Use
from rogue_hunter.host.linux.gpu import start as start_gpu
from rogue_hunter.host.linux.machine import Machine, is_procfs
from rogue_hunter.host.linux.parse import PF_KTHREAD, fits, parse_loadavg_last_pid, parse_stat, parse_touched
from rogue_hunter.host.linux.process import PAGE, STAT_MAX, Process
from rogue_hunter.host.linux.sweep import Sweep
from rogue_hunter.schema import Key
from rogue_hunter.tick import Row

LIST_EVERY = 30
"""Ticks after which /proc is listed even when no pid was given out: 10 s at 3 Hz, against what the last pid hides."""

OWN_EVERY_NS = 700_000_000
"""We run at every beat, so our own row is always worth a reading: at 3 Hz it is made once a second. It cost 0.3 ms a
tick in all stages, of 4 at 1,000 processes. A late tick has it always: lateness that counts as a pause begins above."""

DESCRIBE_WAIT_S = 2.0
"""The first snapshot waits for names at most so long; it is not on a beat yet."""

_DENIED = (errno.EACCES, errno.EPERM)


class LinuxHost:
    """Reads `root` (a live /proc, or a recorded tree, whose files are then opened anew at each reading).

    Raises HostError when the tree cannot be listed. `mono` is a monotonic clock in nanoseconds, `uptime` the seconds
    since boot that start times count in.
    """

    def __init__(self, root: Path = Path("/proc"), mono: Callable[[], int] = time.monotonic_ns,
                 uptime: Callable[[], float] | None = None) -> None:
        self._root = root
        self._mono = mono
        self._live = is_procfs(root)
        # A tree of another pid namespace shows another loadavg than ours counts: then list at every tick.
        self._last_pid_tells = self._live and own_namespace(root)
        self._own_pid = os.getpid() if self._last_pid_tells else -1
        self._machine = Machine(root, self._live)
        self._describer = Describer(root)
        self._gpu: GpuThread | None = start_gpu(root) if self._live else None
        self._facts, self._boot_time = read_facts(self._machine, root, self._live)
        self._uptime = uptime or boot.uptime(self._machine, self._live)
        self._files = Files(root, self._live, self._live and clocks_tell(root))
        self._processes: dict[Key, Process] = {}
        self._names: dict[str, Process | None] = {}
        self._rows: dict[Key, Row] = {}
        self._restless: set[Process] = set()
        self._denied: set[Key] = set()
        self._shut: set[str] = set()
        """Names in /proc below which nothing may be read at all (hidepid=1)."""
        self._sweep = Sweep(self._files)
        self._strays: list[Process] = []
        """New ones whose parent was gone before it was met: who their parent is now, the next tick asks."""
        self._last_pid = b""
        self._before_ns: int | None = None
        self._tick = 0
        self._errors = 0

    def facts(self) -> Facts:
        """Facts of this boot."""
        return self._facts

    def close(self) -> None:
        """Close every descriptor and end the describing thread."""
        self._describer.close()
        if self._gpu is not None:
            self._gpu.close()
        for process in self._processes.values():
            process.close()
            if process.gate is not None:
                process.gate.remove(process)
        self._machine.close()
        self._processes.clear()

    def snapshot(self) -> Snapshot:
        """Read every process; see rogue_hunter.host.Host."""
        now = self._mono()
        before = self._before_ns
        self._errors = self._files.errors = 0
        shot = Snapshot(now, self._rows.copy(), set())
        interval_s = 0.0 if before is None else (now - before) / 1e9
        tick = _Tick(shot, before if before is not None else now, interval_s, self._uptime())
        ran, gone = self._files.poll()
        for process in gone:
            self._forget(process, tick)
        for process, said in ran:
            if process.own and now - process.read_ns < OWN_EVERY_NS and "cpu_percent" in process.row:
                self._stand(process, tick)
            else:
                self._reread(process, said, tick)
        self._ask_orphans(tick)
        self._find_new(tick)
        self._settle(tick)
        self._sweep_some(tick)
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
        shot.unreadable = len(self._denied) + len(self._shut)
        shot.errors = self._errors + self._files.errors + self._machine.errors
        if before is not None:
            shot.cpu_cores = tick.cores
        self._rows = shot.processes
        self._before_ns = now
        self._tick += 1
        return shot

    # -- the parts of a snapshot, in order -------------------------------------------------------------------------

    def _reread(self, process: Process, said: Said, tick: _Tick) -> None:
        """Full reading of a process that ran."""
        try:
            cores = self._read_full(process, said, tick, polled=True)
        except OSError as error:
            if error.errno in GONE:
                # Gone between two reads of one tick. A kept-open file says so at the next; a clock may then be that of
                # another process with its pid.
                if process.gate is None or process.gate is self._files.clock:
                    self._forget(process, tick)
            else:
                self._errors += 1
            return
        except ValueError:
            self._errors += 1
            return
        tick.active += 1
        tick.cores += cores
        tick.unsettled.add(process)
        self._publish(process, tick)

    def _stand(self, process: Process, tick: _Tick) -> None:
        """A process that ran and whose row stands all the same."""
        tick.active += 1
        tick.cores += process.row.get("cpu_percent", 0.0) / 100
        tick.unsettled.add(process)

    def _ask_orphans(self, tick: _Tick) -> None:
        """A process does not run to get another parent: those whose parent is gone are asked who it is now."""
        asked, self._strays = self._strays, []
        if tick.gone:
            dead = {key[0] for key in tick.gone}
            asked += [p for p in self._processes.values() if p.row.get("ppid") in dead]
        for process in asked:
            if process not in tick.unsettled and process.key in self._processes:
                self._touch(process, tick)

    def _find_new(self, tick: _Tick) -> None:
        if self._last_pid_tells:
            loadavg = self._machine.read("loadavg", 128)
            last = parse_loadavg_last_pid(loadavg) if loadavg else b""
            # A pid that was freed in this tick may have been given out again without the number moving.
            unmoved = last == self._last_pid and loadavg and not any(b"%d" % key[0] == last for key in tick.gone)
            self._last_pid = last
            if unmoved and self._tick % LIST_EVERY:
                return
        try:
            names = os.listdir(self._root)
        except OSError as error:
            if self._before_ns is None:
                raise HostError(f"{self._root}: {error.strerror}") from None
            self._try_again()
            return
        known = self._names
        self._shut.clear()
        for name in names:
            if name not in known:
                if name.isascii() and name.isdigit():
                    self._meet(name, tick)
                else:
                    known[name] = None
        if tick.shot.started:
            met = islice(reversed(self._processes.values()), tick.shot.started)
            self._strays = [p for p in met if p.row["ppid"] and str(p.row["ppid"]) not in known]
        if not self._live:
            for name in known.keys() - set(names):
                process = known[name]
                if process is not None:
                    self._forget(process, tick)

    def _meet(self, name: str, tick: _Tick) -> None:
        """A process seen for the first time."""
        pid = int(name)
        try:
            said = self._files.read_file(f"{name}/stat", STAT_MAX)
            stat = parse_stat(said)
        except OSError as error:
            if error.errno in _DENIED:
                self._shut.add(name)
            elif error.errno not in GONE:
                self._try_again()
            return
        except ValueError:
            self._errors += 1
            return
        key = (pid, stat.start)
        process = Process(key, stat, self._boot_time, own=pid == self._own_pid)
        try:
            cores = self._read_full(process, self._files.watch(process, stat, said), tick)
        except (OSError, ValueError) as error:
            self._files.unwatch(process)
            if not (isinstance(error, OSError) and error.errno in GONE):
                self._try_again()
            return
        self._processes[key] = process
        self._names[name] = process
        tick.shot.started += 1
        if self._before_ns is not None:
            tick.cores += cores
            tick.active += 1
        tick.unsettled.add(process)
        self._publish(process, tick)
        self._describer.ask(key, process.static.get("uid", -1), bool(stat.flags & PF_KTHREAD))

    def _try_again(self) -> None:
        """Whoever could not be met for a passing reason is looked for at the next tick, new pids or not."""
        self._errors += 1
        self._last_pid = b""

    def _settle(self, tick: _Tick) -> None:
        """Those that ran a tick ago and did not in this one: their rates are 0 now."""
        for process in self._restless:
            if process not in tick.unsettled and process.key in self._processes and not process.own:
                process.rest()
                self._publish(process, tick)
        self._restless = tick.unsettled
        self._files.trim()

    def _sweep_some(self, tick: _Tick) -> None:
        """A few of those that did not run: their memory may have been taken."""
        for process in self._sweep.due(tick.interval_s, self._machine.calm):
            if process.key not in self._processes or process in tick.unsettled:
                continue
            if process.gate is not None and process.gate.exact:
                self._touch(process, tick)
                continue
            try:
                self._read_full(process, self._files.read(process, "stat", STAT_MAX), tick)
            except (OSError, ValueError):
                continue
            tick.unsettled.add(process)
            self._publish(process, tick)

    def _touch(self, process: Process, tick: _Tick) -> None:
        """Read what others can change of a process that does not run: its memory and its parent."""
        try:
            start, ppid, rss = parse_touched(self._files.read(process, "stat", STAT_MAX))
        except (OSError, ValueError):
            return
        row = process.row
        if start != process.key[1]:
            self._forget(process, tick)
            self._last_pid = b""
            return
        if row["memory_bytes"] == rss * PAGE and row["ppid"] == ppid:
            return
        process.row = {**row, "memory_bytes": rss * PAGE, "ppid": ppid}
        self._publish(process, tick)

    def _take_descriptions(self, tick: _Tick) -> None:
        for key, fields, denied in self._describer.answers():
            process = self._processes.get(key)
            if process is None:
                continue
            process.static.update(fields)
            process.row = {**process.row, **fields}
            process.denied = denied
            self._publish(process, tick)

    def _take_gpu(self, use: dict[int, Use], tick: _Tick) -> None:
        """GPU time that the other thread read. A process that gave its GPU back keeps its total and uses none."""
        for process in [p for p in self._processes.values() if p.key[0] in use or "gpu_ms_per_s" in p.static]:
            total, rate = use.get(process.key[0], (None, 0.0))
            fields = {"gpu_seconds_total": total, "gpu_ms_per_s": rate}
            known = {name: value for name, value in fields.items() if value is not None}
            process.static.update(known)
            process.row = {**process.row, **known}
            self._publish(process, tick)

    # -- one process ----------------------------------------------------------------------------------------------

    def _read_full(self, process: Process, said: Said, tick: _Tick, polled: bool = False) -> float:
        """stat, status, io and schedstat of a process; its row is made anew. Gives its CPU use in cores.

        `said` is what its gate says now, or said when all were polled at the beginning of the tick.
        """
        data, status, io, sched = self._files.full(process, said)
        now = self._mono()
        stat = parse_stat(data)
        if stat.start != process.key[1]:
            raise ProcessLookupError(errno.ESRCH, "another process by now")
        uptime_s = tick.uptime_s + (now - tick.shot.mono_ns) / 1e9
        before = process.row
        try:
            cores, renamed = process.update(stat, status, io, sched, said if isinstance(said, int) else None, now,
                                            tick.shot.mono_ns if polled else now, tick.before_ns, tick.interval_s,
                                            uptime_s)
            if not self._live and not fits(process.row):
                raise OverflowError
        except OverflowError:
            process.row = before
            raise ValueError("a number of more than 64 bits") from None
        if 1 < stat.threads <= DELAY_THREADS and process.row.get("cpu_percent", 0.0) >= DELAY_CPU_PERCENT:
            process.thread_delay(self._root, now)
        self._files.keep(process, stat, data)
        if renamed and process.key in self._processes:
            self._describer.ask(process.key, process.static.get("uid", -1), process.kernel_thread)
        return cores

    def _forget(self, process: Process, tick: _Tick) -> None:
        key = process.key
        if self._processes.pop(key, None) is None:
            return
        self._files.unwatch(process)
        self._names.pop(str(key[0]), None)
        self._denied.discard(key)
        if tick.shot.processes.pop(key, None) is not None:
            tick.gone.append(key)

    def _publish(self, process: Process, tick: _Tick) -> None:
        """Give out the row unless it says what the one before said."""
        key = process.key
        if process.denied or process.io_denied:
            self._denied.add(key)
        else:
            self._denied.discard(key)
        before = tick.shot.processes.get(key)
        if before is not None and before == process.row:
            process.row = before
            return
        tick.shot.processes[key] = process.row
        tick.shot.changed.add(key)


class _Tick:
    """What the parts of one snapshot share."""

    __slots__ = ("active", "before_ns", "cores", "gone", "interval_s", "shot", "unsettled", "uptime_s")

    def __init__(self, shot: Snapshot, before_ns: int, interval_s: float, uptime_s: float) -> None:
        self.shot = shot
        self.before_ns = before_ns
        self.interval_s = interval_s
        self.uptime_s = uptime_s
        self.gone: list[Key] = []
        self.unsettled: set[Process] = set()
        self.active = 0
        self.cores = 0.0
