"""The processes that are known: finding new ones, reading them, and the rows of a snapshot.

New processes are found by listing /proc when a pid was given out. Processes that did not run are read now and then,
spread over the ticks, for what others can change of them. That is memory, which the kernel reclaims when it is short of
it. Where it reclaimed none (PSI counts the time that tasks, and kswapd, spend on it), a process that did not run holds
what it held. A process whose gate is not exact (stat counts CPU time in steps of 10 ms) is read as often in any case:
what took less shows in its other counters.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

from rogue_hunter.host.linux.describe import (
    DESCRIBED,
    LARGE_BYTES,
    THREADS_CPU_PERCENT,
    THREADS_MAX,
    Describer,
    live_thread,
)
from rogue_hunter.host.linux.files import Files, GateValue
from rogue_hunter.host.linux.gate import GONE
from rogue_hunter.host.linux.machine import Machine, own_namespace, shows_own_pids
from rogue_hunter.host.linux.parse import (
    Stat,
    fits,
    parse_loadavg_last_pid,
    parse_stat,
    parse_status,
    parse_touched,
)
from rogue_hunter.host.linux.process import PAGE, STAT_MAX, STATUS_MAX, Process, Reading
from rogue_hunter.host.protocol import HostError, Snapshot, Users
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

LIST_EVERY = 30
"""Ticks after which /proc is listed even when no pid was given out: 10 s at 3 Hz, against what the last pid hides."""

MISSED_MAX = 2
"""When a listing found new processes so often although the last pid stood still, it is no longer trusted: gVisor and
other sandboxes print a constant."""

SWEEP_S = 60.0
"""Every process is read at least this often while memory is reclaimed."""

CALM_SWEEP_S = 600.0
"""And this often while none is. A reading costs 28 us: at 1,000 processes 0.15 ms a tick at the first rate, of 4."""

DESCRIBE_AGAIN = ((25.0, 3_000_000_000), (1.0, 10_000_000_000), (0.0, 60_000_000_000))
"""CPU use in percent from which a process that runs is described again after so long: it may have written a title over
its arguments, moved to another control group, or (where another user's exec cannot be seen) become another program."""

SHARED_AGAIN_NS = 60_000_000_000
"""A large process that runs is asked again after so long what it shares: its pages become its own as it writes."""

_DENIED = (errno.EACCES, errno.EPERM)


class Scan:
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
        """The snapshot's rows, to be changed: a copy of the last snapshot's from the first change on."""
        if not self._copied:
            self._copied = True
            self.shot.processes = self.shot.processes.copy()
        return self.shot.processes


class Table:
    """`files` reads the tree, `mono` is a monotonic clock in nanoseconds, `boot_time` is epoch seconds. `errors` counts
    failed readings of the snapshot in progress."""

    def __init__(self, files: Files, describer: Describer, users: Users, mono: Callable[[], int], boot_time: float,
                 ) -> None:
        self._files = files
        self._describer = describer
        self._users = users
        self._mono = mono
        self.boot_time = boot_time
        self.processes: dict[Key, Process] = {}
        self.names: dict[str, Process | None] = {}
        """Names in /proc and the process of each, None for a name that is no process."""
        self.denied: set[Key] = set()
        """Processes of which something may not be read."""
        self.errors = 0

    def close(self) -> None:
        """Release every descriptor."""
        for process in self.processes.values():
            self._files.unwatch(process)
        self.processes.clear()

    def reread(self, process: Process, value: GateValue, scan: Scan) -> None:
        """Read a process that ran in full; `value` is its gate's value."""
        try:
            cores = self.read(process, value, scan, polled=True)
        except OSError as error:
            if error.errno in GONE:
                # Gone between two reads of one tick. A kept-open file shows that in the next one; a clock may then be
                # that of another process with its pid.
                if process.gate is None or process.gate is self._files.clock:
                    self.forget(process, scan)
            else:
                self.errors += 1
            return
        except ValueError:
            self.errors += 1
            return
        scan.active += 1
        scan.cores += cores
        scan.unsettled.add(process)
        self.publish(process, scan)

    def read(self, process: Process, value: GateValue, scan: Scan, polled: bool = False, data: bytes = b"") -> float:
        """Read stat, status, io and schedstat of a process and make its row. Returns its CPU use in cores.

        `value` is the value of its gate, read now or with all others at the beginning of the tick (`polled`); `data` is
        its stat, if that was just read. Raises OSError, ValueError.
        """
        data, status, io, sched = self._files.full(process, value, data)
        now = self._mono()
        stat = parse_stat(data)
        if stat.start != process.key[1]:
            raise ProcessLookupError(errno.ESRCH, "another process with its pid")
        if stat.threads > 1 and stat.state == b"Z":
            stat, status = self._without_leader(process, stat, status)
        elif process.leader_ended:
            process.leader_ended = False
        uptime_s = scan.uptime_s + (now - scan.shot.mono_ns) / 1e9
        before = process.row
        try:
            cores, changed = process.update(Reading(
                stat, status, io, sched, value if isinstance(value, int) else None, now,
                scan.shot.mono_ns if polled else now, scan.before_ns, scan.interval_s, uptime_s))
            if not self._files.live and not fits(process.row):
                raise OverflowError
        except OverflowError:
            process.row = before
            raise ValueError("a number of more than 64 bits") from None
        if process.leader_ended:
            process.row["state_raw"] = "Z"
        percent = process.row.get("cpu_percent", 0.0)
        if 1 < stat.threads <= THREADS_MAX and percent >= THREADS_CPU_PERCENT and not process.own:
            # Of this process they would cost 0.14 ms a tick, a twentieth of all that it uses.
            process.add_thread_sums(self._files.root, now)
        self._files.keep(process, stat, data)
        if process.key in self.processes and (
                changed or now - process.described_ns >= next(ns for least, ns in DESCRIBE_AGAIN if percent >= least)
                or self._may_share(process, now)):
            self.describe(process)
        return cores

    def _without_leader(self, process: Process, stat: Stat, status: bytes) -> tuple[Stat, bytes]:
        """stat and status of a process whose leader has ended and whose threads live: state and memory are those of a
        living thread. Nothing changes when none can be read."""
        found = live_thread(self._files.root, process.key[0])
        if found is None:
            return stat, status
        tid, thread = found
        process.leader_ended = True
        try:
            status = self._files.read_file(f"{process.key[0]}/task/{tid}/status", STATUS_MAX)
        except OSError:
            status = b""
        return stat._replace(state=thread.state, rss=thread.rss, policy=thread.policy, priority=thread.priority,
                             nice=thread.nice, image=thread.image), status

    def describe(self, process: Process) -> None:
        """Have program, arguments, control group and user read, off the beat."""
        process.described_ns = now = self._mono()
        shared = self._may_share(process, now)
        if shared:
            process.shared_ns = now
        self._describer.ask(process.key, process.kernel_thread, shared)
        self._name_user(process)

    def _may_share(self, process: Process, now: int) -> bool:
        return process.row["memory_bytes"] >= LARGE_BYTES and (
            not process.shared_ns or now - process.shared_ns >= SHARED_AGAIN_NS)

    def _name_user(self, process: Process) -> bool:
        uid = process.static.get("uid")
        name = None if uid is None else self._users.name(uid)
        if name is None or process.static.get("user") == name:
            return False
        process.static["user"] = name
        return True

    def take_descriptions(self, scan: Scan) -> None:
        """Add to the rows what the describing threads have found."""
        for key, fields, denied in self._describer.answers():
            process = self.processes.get(key)
            if process is None or not (fields or denied):
                continue
            process.denied = denied
            process.shared = fields.pop("shared_bytes", process.shared)
            if process.shared >= LARGE_BYTES and process.row:
                process.row = {**process.row,
                               "shared_bytes": max(process.shared, process.row.get("shared_bytes", 0))}
            self._name_user(process)
            for name in DESCRIBED:
                process.static.pop(name, None)
            process.static.update(fields)
            self._refresh(process, scan)
        if self._users.found():
            for process in self.processes.values():
                if self._name_user(process):
                    self._refresh(process, scan)

    def set_boot_time(self, boot_time: float, scan: Scan) -> None:
        """The wall clock was set: start times move with it, ages stay."""
        self.boot_time = boot_time
        for process in self.processes.values():
            process.static["start_time"] = round(boot_time + process.started_s, 2)
            self._refresh(process, scan)

    def _refresh(self, process: Process, scan: Scan) -> None:
        """Give out the row with what does not come from a reading."""
        if process.row:
            process.row = {**process.row, **process.static}
            for name in DESCRIBED:
                if name not in process.static:
                    process.row.pop(name, None)
            self.publish(process, scan)

    def touch(self, process: Process, scan: Scan) -> bool:
        """Read what others can change of a process that does not run: its memory and its parent. False when its pid is
        another process's by now."""
        try:
            start, ppid, rss = parse_touched(self._files.read(process, "stat", STAT_MAX))
        except (OSError, ValueError):
            return True
        row = process.row
        if start != process.key[1]:
            self.forget(process, scan)
            return False
        memory = row["memory_bytes"] if process.leader_ended else rss * PAGE + process.elsewhere
        if row["memory_bytes"] != memory or row["ppid"] != ppid:
            more: Row = {}
            with contextlib.suppress(OSError, ValueError):  # what was reclaimed may have been swapped out
                status = parse_status(self._files.read(process, "status", STATUS_MAX))
                if status.swap is not None and not process.leader_ended:
                    process.elsewhere = status.swap + status.huge
                    more = {"memory_bytes": rss * PAGE + process.elsewhere}
                    if status.swap or "swap_bytes" in row:
                        more["swap_bytes"] = status.swap
            process.row = {**row, "memory_bytes": memory, "ppid": ppid, **more}
            self.publish(process, scan)
        return True

    def forget(self, process: Process, scan: Scan) -> None:
        """The process is gone."""
        key = process.key
        if self.processes.pop(key, None) is None:
            return
        self._files.unwatch(process)
        self.names.pop(str(key[0]), None)
        self.denied.discard(key)
        if key in scan.shot.processes:
            del scan.rows()[key]
            scan.gone.append(key)

    def publish(self, process: Process, scan: Scan) -> None:
        """Give out the row unless it is equal to the one before."""
        key = process.key
        if process.denied or process.io_denied:
            self.denied.add(key)
        else:
            self.denied.discard(key)
        before = scan.shot.processes.get(key)
        if before is not None and before == process.row:
            process.row = before
            return
        scan.rows()[key] = process.row
        scan.shot.changed.add(key)


class Newcomers:
    """Finds processes that started since the last tick and adds them to `table`."""

    def __init__(self, table: Table, files: Files, machine: Machine) -> None:
        self._table = table
        self._files = files
        self._machine = machine
        # In a tree of another pid namespace, the last pid is not one of its own: then list at every tick.
        own = files.live and own_namespace(files.root)
        self._last_pid_counts = own and shows_own_pids(files.root)
        self._own_pid = os.getpid() if own else -1
        self.unreadable: set[str] = set()
        """Names in /proc below which nothing may be read at all (hidepid=1)."""
        self.strays: list[Process] = []
        """New ones whose parent was gone before it was found: the next tick reads who their parent is now."""
        self._last_pid = b""
        self._moved = True
        self._missed = 0
        self._first = True
        self._tick = 0

    def find(self, scan: Scan) -> None:
        """Add the new processes. Raises HostError when the first listing fails."""
        self._tick += 1
        if self._none(scan):
            return
        unmoved = self._last_pid_counts and not self._moved
        try:
            names = os.listdir(self._files.root)
        except OSError as error:
            if self._first:
                raise HostError(f"{self._files.root}: {error.strerror}") from None
            self._try_again()
            return
        known = self._table.names
        self.unreadable.clear()
        for name in names:
            if name not in known:
                if name.isascii() and name.isdigit():
                    self._add(name, scan)
                else:
                    known[name] = None
        if scan.shot.started:
            if unmoved:
                self._missed += 1
                self._last_pid_counts = self._missed < MISSED_MAX
            met = islice(reversed(self._table.processes.values()), scan.shot.started)
            self.strays = [p for p in met if p.row["ppid"] and str(p.row["ppid"]) not in known]
        if not self._files.live:
            for name in known.keys() - set(names):
                process = known[name]
                if process is not None:
                    self._table.forget(process, scan)
        self._first = False

    def look_again(self) -> None:
        """List /proc at the next tick, new pids or not."""
        self._last_pid = b""

    def _none(self, scan: Scan) -> bool:
        """True when no pid was given out since the last tick."""
        self._moved = True
        if not self._last_pid_counts:
            return False
        loadavg = self._machine.read("loadavg", 128)
        last = parse_loadavg_last_pid(loadavg) if loadavg else b""
        # A pid that was freed in this tick may have been given out again without the number moving.
        self._moved = not last or last != self._last_pid or any(b"%d" % key[0] == last for key in scan.gone)
        self._last_pid = last
        return not self._moved and self._tick % LIST_EVERY != 0

    def _add(self, name: str, scan: Scan) -> None:
        """A process seen for the first time."""
        pid = int(name)
        try:
            data = self._files.read_file(f"{name}/stat", STAT_MAX)
            stat = parse_stat(data)
        except OSError as error:
            if error.errno in _DENIED:
                self.unreadable.add(name)
            elif error.errno not in GONE:
                self._try_again()
            return
        except ValueError:
            self._table.errors += 1
            return
        key = (pid, stat.start)
        process = Process(key, stat, self._table.boot_time, own=pid == self._own_pid)
        try:
            cores = self._table.read(process, self._files.watch(process, stat, data), scan, data=data)
        except (OSError, ValueError) as error:
            self._files.unwatch(process)
            if not (isinstance(error, OSError) and error.errno in GONE):
                self._try_again()
            return
        self._table.processes[key] = process
        self._table.names[name] = process
        scan.shot.started += 1
        if not self._first:
            scan.cores += cores
            scan.active += 1
        scan.unsettled.add(process)
        self._table.describe(process)
        if "user" in process.static:
            process.row["user"] = process.static["user"]
        self._table.publish(process, scan)

    def _try_again(self) -> None:
        """A process that could not be read for a passing reason is looked for at the next tick."""
        self._table.errors += 1
        self.look_again()


class Sweep:
    """Which processes are read although they did not run, spread over the ticks."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._exact = _Round()
        self._others = _Round()

    def due(self, interval_s: float, calm: bool) -> Iterator[Process]:
        """The processes to read in a tick of this length; some may be gone by now."""
        files = self._files
        yield from self._exact.due((files.clock.owners, files.sched.owners),
                                   interval_s / (CALM_SWEEP_S if calm else SWEEP_S))
        cold = [process for process, _ in files.cold.values()] if files.cold else []
        yield from self._others.due((files.stat.owners, cold), interval_s / SWEEP_S)


class _Round:
    """One process after the other, and how many are owed."""

    def __init__(self) -> None:
        self._left: Iterator[Process] = iter(())
        self._owed = 0.0

    def due(self, processes: Sequence[Sequence[Process]], part: float) -> Iterator[Process]:
        count = sum(map(len, processes))
        self._owed = min(self._owed + count * part, float(count))
        while self._owed >= 1.0:
            self._owed -= 1.0
            process = next(self._left, None)
            if process is None:
                self._left = chain.from_iterable([list(some) for some in processes])
                process = next(self._left)
            yield process
