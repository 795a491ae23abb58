"""A fleet under faults: server and hub are killed at random, and every row is counted afterwards."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rogue_hunter.fleet.bus import Access, Bus
from rogue_hunter.fleet.demo import Fleet, Server
from rogue_hunter.fleet.hub import asked, socket_path
from rogue_hunter.fleet.intake import ALL
from rogue_hunter.text.errors import RogueHunterError


@dataclass
class Outcome:
    """What was counted."""

    rows: int
    messages: int
    faults: dict[str, int]
    kills: int
    seconds: float
    server_rss_mb: float
    wrong: list[str]


class HubProcess:
    """rh-hub run as a process that can be killed."""

    def __init__(self, database: Path, url: str, environ: Mapping[str, str], log: Path) -> None:
        self._database, self._url, self._environ, self._log = database, url, environ, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [sys.executable, "-P", "-m", "rogue_hunter", "hub", "run", "-s", self._url, "-d", str(self._database), "--ask", "1s"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, env=dict(self._environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self) -> None:
        """Until it answers."""
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            with suppress(RogueHunterError):
                if asked(self._database, {"sql": "SELECT 1"}) is not None:
                    return
            assert self._process is not None and self._process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"the hub does not answer: {socket_path(self._database)}")

    def end(self, *, kill: bool) -> None:
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(30)
            self._process = None

    def query(self, sql: str) -> tuple[list[str], list[list[Any]]]:
        made = asked(self._database, {"sql": sql})
        assert made is not None, self._log.read_text()
        return made["names"], made["rows"]


def rss_mb(pid: int) -> float:
    """Memory of a process (Linux); 0 elsewhere."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


async def run(place: Path, environ: Mapping[str, str], *, hosts: int, minutes: int, kills: int, pace: float,
              days_off: tuple[int, ...] = (), between_s: float = 0.3, seed: int = 1, wait_s: float = 60.0,
              commands: int = 5) -> Outcome:
    """A server, a hub and simulated hosts; `kills` times each of server and hub are killed while rows are sent."""
    dice, began = random.Random(seed), time.monotonic()
    server = Server(place)
    hub = HubProcess(place / "hub.duckdb", server.url, environ, place / "hub.log")
    inbox, carrier = Bus(Access((server.url,)), "setup"), Bus(Access((server.url,)), "hosts")
    fleet = Fleet(carrier, hosts, minutes, time.time(), pace=pace, days_off=days_off, commands=commands)

    async def killing() -> int:
        for _ in range(kills):
            await asyncio.sleep(dice.uniform(0.2, 1) * between_s)
            server.kill()
            await asyncio.sleep(dice.uniform(0, 0.2))
            await asyncio.to_thread(server.start)
            await asyncio.sleep(dice.uniform(0.2, 1) * between_s)
            hub.end(kill=True)
            hub.start()
        return 2 * kills

    try:
        server.start()
        await inbox.make_stream([ALL], 4 << 30, 86_400.0, 1)
        await inbox.close()
        hub.start()
        _, killed = await asyncio.gather(fleet.send(), killing())
        await asyncio.to_thread(hub.wait)
        await fleet.finish()
        await fleet.until_stored(hub.query, wait_s)
        rss = rss_mb(server.pid)
        await fleet.stop()
        return Outcome(fleet.rows(), fleet.messages, dict(fleet.faults), killed, time.monotonic() - began, rss,
                       fleet.differences(hub.query))
    finally:
        await carrier.close()
        hub.end(kill=False)
        server.stop()
