"""The processes that are known, all reading of one of them, and the rows that are given out."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.host.linux.delay import DELAY_CPU_PERCENT, DELAY_THREADS
from rogue_hunter.host.linux.describe import Describer
from rogue_hunter.host.linux.files import Files, Said
from rogue_hunter.host.linux.gate import GONE
from rogue_hunter.host.linux.parse import fits, parse_stat, parse_touched
from rogue_hunter.host.linux.process import PAGE, STAT_MAX, Process
from rogue_hunter.host.protocol import Snapshot
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row


class Reading:
    """What the parts of one snapshot share: the snapshot, its time, and what was found so far."""

    __slots__ = ("_copied", "active", "before_ns", "cores", "gone", "interval_s", "shot", "unsettled", "uptime_s")

    def __init__(self, shot: Snapshot, before_ns: int, interval_s: float, uptime_s: float) -> None:
        self.shot = shot
        self.before_ns = before_ns
        self.interval_s = interval_s
        self.uptime_s = uptime_s
        self.gone: list[Key] = []
        self.unsettled: set[Process] = set()
        self.active = 0
        self.cores = 0.0
        self._copied = False

    def rows(self) -> dict[Key, Row]:
        """The snapshot's rows, to be changed: they are those of the last one until somebody does."""
        if not self._copied:
            self._copied = True
            self.shot.processes = self.shot.processes.copy()
        return self.shot.processes


class Table:
    """`root` is the tree that `files` reads, `live` says that it is a mounted procfs, `mono` is a monotonic clock in
    nanoseconds. `errors` counts what could not be read in the snapshot under way."""

    def __init__(self, root: Path, live: bool, files: Files, describer: Describer, mono: Callable[[], int]) -> None:
        self._root = root
        self._live = live
        self._files = files
        self._describer = describer
        self._mono = mono
        self.processes: dict[Key, Process] = {}
        self.names: dict[str, Process | None] = {}
        """Names in /proc and the process that each stands for, None for what is no process."""
        self.denied: set[Key] = set()
        """Processes of which something may not be read."""
        self.errors = 0

    def close(self) -> None:
        """Give back every descriptor."""
        for process in self.processes.values():
            self._files.unwatch(process)
        self.processes.clear()

    def reread(self, process: Process, said: Said, tick: Reading) -> None:
        """Read in full a process that ran, as its gate `said`."""
        try:
            cores = self.read(process, said, tick, polled=True)
        except OSError as error:
            if error.errno in GONE:
                # Gone between two reads of one tick. A kept-open file says so at the next; a clock may then be that of
                # another process with its pid.
                if process.gate is None or process.gate is self._files.clock:
                    self.forget(process, tick)
            else:
                self.errors += 1
            return
        except ValueError:
            self.errors += 1
            return
        tick.active += 1
        tick.cores += cores
        tick.unsettled.add(process)
        self.publish(process, tick)

    def read(self, process: Process, said: Said, tick: Reading, polled: bool = False) -> float:
        """stat, status, io and schedstat of a process; its row is made anew. Gives its CPU use in cores.

        `said` is what its gate says now, or said when all were polled at the beginning of the tick. Raises OSError,
        ValueError.
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
        if renamed and process.key in self.processes:
            self._describer.ask(process.key, process.static.get("uid", -1), process.kernel_thread)
        return cores

    def touch(self, process: Process, tick: Reading) -> bool:
        """Read what others can change of a process that does not run: its memory and its parent. False when its pid is
        another process's by now."""
        try:
            start, ppid, rss = parse_touched(self._files.read(process, "stat", STAT_MAX))
        except (OSError, ValueError):
            return True
        row = process.row
        if start != process.key[1]:
            self.forget(process, tick)
            return False
        if row["memory_bytes"] != rss * PAGE or row["ppid"] != ppid:
            process.row = {**row, "memory_bytes": rss * PAGE, "ppid": ppid}
            self.publish(process, tick)
        return True

    def forget(self, process: Process, tick: Reading) -> None:
        """The process is gone."""
        key = process.key
        if self.processes.pop(key, None) is None:
            return
        self._files.unwatch(process)
        self.names.pop(str(key[0]), None)
        self.denied.discard(key)
        if key in tick.shot.processes:
            del tick.rows()[key]
            tick.gone.append(key)

    def publish(self, process: Process, tick: Reading) -> None:
        """Give out the row unless it says what the one before said."""
        key = process.key
        if process.denied or process.io_denied:
            self.denied.add(key)
        else:
            self.denied.discard(key)
        before = tick.shot.processes.get(key)
        if before is not None and before == process.row:
            process.row = before
            return
        tick.rows()[key] = process.row
        tick.shot.changed.add(key)
