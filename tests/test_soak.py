"""Half an hour of rh-pipe in seconds: the clock is handed in, the database, the socket and its clients are real.

7,000 ticks in every run; RH_LONG=1 takes 7,776,000, thirty days at 3 Hz.
"""

from __future__ import annotations

import gc
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rogue_hunter.config.toml import parse
from rogue_hunter.daemon import pipe
from rogue_hunter.daemon.log import Log
from rogue_hunter.daemon.loop import Loop
from rogue_hunter.daemon.services import Running, Services, Setting, background
from rogue_hunter.stream.clock import NS, Clock
from tests.tools.soak import FastHost, memory

TICKS = 7_776_000 if "RH_LONG" in os.environ else 7_000
WARM = max(2_400, TICKS // 5)
START = 1_700_000_000.0


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name."""
    made = Path(tempfile.mkdtemp(prefix="rh-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(0 if "RH_LONG" in os.environ else 300)
def test_hours_leave_nothing_behind(place: Path) -> None:
    """Descriptors, threads, memory and the write-ahead log are as large at the end as after the warm-up, while clients
    come and go, the configuration is read again and again, and the database is pruned through the socket."""
    now = [10**12]
    clock = Clock(lambda: now[0], lambda: START + now[0] / NS - 1000, lambda: now[0])
    file, database, path = place / "c.toml", place / "x.db", place / "run" / "s"
    file.write_text(f'[log]\npath = "{place / "log"}"\nmax_mb = 0.1\n')
    config = parse(file.read_bytes())
    running: list[Running] = []
    log = Log(place / "log", config.log, clock.wall)
    seen: dict[str, tuple[int, int, int, int]] = {}
    wal = [0, 0]
    ticks = [0]
    clients: list[socket.socket] = []

    def measure(name: str) -> None:
        seen[name] = (len(os.listdir("/dev/fd")), threading.active_count(), memory(), len(gc.get_objects()))

    def busy(loop: Loop) -> None:
        """What others do in the meantime."""
        n = ticks[0]
        if n % 500 == 0:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].connect(str(path))
            clients[-1].sendall(b'{"type":"log","v":1,"level":"info","message":"hello"}\n')
            if n % 5000 == 0:
                clients[-1].sendall(b'{"type":"prune_request","v":1,"older_than_s":3600.0,"max_bytes":100000000}\n')
        if n % 1000 == 250 and clients:
            clients.pop(0).close()
        if n % 20_000 == 10_000:
            file.write_text(file.read_text() + "\n")
            running[0].configure(parse(file.read_bytes() + f"\n[tracking]\nexit_ticks = {10 + n // 10_000 % 5}\n".encode()))
        if n % 1000 == 999:
            at = 0 if n < WARM else 1
            wal[at] = max(wal[at], Path(f"{database}-wal").stat().st_size)
        loop.sleep(0.0)

    with Loop() as loop:
        def sleep(seconds: float) -> bool:
            now[0] += round(seconds * NS)
            ticks[0] += 1
            busy(loop)
            if ticks[0] in (WARM, TICKS):
                while clients:
                    clients.pop().close()
                for _ in range(5):
                    loop.sleep(0.05)
                measure("warm" if ticks[0] == WARM else "end")
            return ticks[0] < TICKS

        setting = Setting(database, file, True, path, clock.wall)
        host = FastHost(clock)
        services = background(config, loop, setting, log.write, log)

        def start(made: Running) -> AbstractContextManager[Services]:
            running.append(made)
            return services(made)

        count, _ = pipe.run(config, host, database, hz=3.0, sleep=sleep, clock=clock, warn=lambda message: None,
                         start=start)
    log.close()
    assert count == TICKS - 1
    warm, end = seen["warm"], seen["end"]
    print(f"\n{TICKS} ticks: descriptors, threads, bytes, objects: {warm} -> {end}; WAL {wal}")
    assert end[0] <= warm[0] and end[1] <= warm[1]
    assert end[2] - warm[2] < 3_000_000
    assert end[3] - warm[3] < 3_000
    assert wal[1] <= max(wal[0], 8_388_608)
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM process_events WHERE exit_time IS NULL").fetchone() == (0,)
    oldest, newest = connection.execute("SELECT min(exit_time), max(exit_time) FROM process_events").fetchone()
    connection.close()
    # Pruned to an hour every 5,000 ticks, which are 28 minutes.
    assert newest - oldest < 3600 + 2 * 5000 / 3
    assert sum(p.stat().st_size for p in place.glob("log*")) <= 4 * 100_000
    assert not path.exists()
