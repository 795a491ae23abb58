"""The large run of many machines: `python -m tests.fleet [chaos] [cost] [queries]`. Minutes of two cores and 3 GB of disk.

    chaos     1,000 hosts x 10 minutes, one of them with a day to send; server and hub killed 20 times each; every row counted
    cost      CPU time of rh-ship a host-minute, rows a second of a hub
    small     the run of the suite
    queries   best of nine times of the named questions with a million and ten million rows, DuckDB and ClickHouse's engine
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rogue_hunter.fleet.bus import Access, Bus
from rogue_hunter.fleet.demo import Server, SimulatedHost
from rogue_hunter.fleet.intake import ALL, SUBJECT, parse
from rogue_hunter.fleet.source import SETTLE_S, HostDatabase, Shipper, begin, clean
from rogue_hunter.fleet.tables import QUERIES, ROLLUPS, question
from rogue_hunter.fleet.warehouse import Warehouse
from tests.fleet import chaos
from tests.fleet.database import START, make
from tests.fleet.statements import statements_without_nats

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(Path(__file__).parents[2])}


LARGE: dict[str, Any] = {"hosts": 1000, "minutes": 10, "kills": 20, "pace": 0.3, "days_off": (3,), "between_s": 2.0, "wait_s": 240.0}
SMALL: dict[str, Any] = {"hosts": 20, "minutes": 5, "kills": 2, "pace": 3.0}


def run_chaos(place: Path, size: dict[str, Any]) -> None:
    """Print the outcome as JSON."""
    print(json.dumps(asdict(asyncio.run(chaos.run(place, ENVIRON, **size)))))


def run_cost(place: Path) -> None:
    minutes = 120
    host = HostDatabase(make(place / "h.db", minutes))
    shipper = Shipper(host, begin(host, "h1", START), lambda: START + 60 * minutes + SETTLE_S)
    began, size, rows = time.process_time(), 0, 0
    while (message := shipper.next()) is not None:
        size += len(message.payload(1.0))
        rows += sum(message.rows.values())
        shipper.done(message)
    used = time.process_time() - began
    print(f"cost: rh-ship {1000 * used / minutes:.2f} ms CPU a host-minute, {rows / minutes:.0f} rows, {size / minutes:.0f} bytes")
    clean.cache_clear()
    payloads = []
    for number in range(500):
        one = SimulatedHost(number, START, commands=20)
        made = Shipper(one, begin(one, one.identity, START), lambda: START + 60 + SETTLE_S).next()
        assert made is not None
        payloads.append((SUBJECT.format(one.identity), made.payload(1.0)))
    warehouse = Warehouse(place / "x.duckdb")
    began = time.process_time()
    batches = [parse(subject, payload, time.time()) for subject, payload in payloads]
    parsed = time.process_time() - began
    rows = warehouse.store(batches)
    whole = time.process_time() - began
    warehouse.close()
    print(f"cost: hub {rows / whole:.0f} rows a CPU second ({rows} rows of 500 messages in {whole:.2f} s of CPU, of which {parsed:.2f} s checking)")
    asyncio.run(server_cost(place, payloads * 10))


async def server_cost(place: Path, payloads: list[tuple[str, bytes]]) -> None:
    """Messages a second that one server has on disk before it acknowledges them."""
    server = Server(place)
    server.start()
    bus = Bus(Access((server.url,)), "cost")
    try:
        await bus.make_stream([ALL], 4 << 30, 3600.0, 1)
        left = list(enumerate(payloads))

        async def publish() -> None:
            while left:
                number, (subject, payload) = left.pop()
                await bus.publish(subject, payload, str(number))

        ticks = sum(cpu_ticks(server.pid))
        began = time.perf_counter()
        await asyncio.gather(*(publish() for _ in range(200)))
        took = time.perf_counter() - began
        used = (sum(cpu_ticks(server.pid)) - ticks) / os.sysconf("SC_CLK_TCK")
        size = sum(len(payload) for _, payload in payloads)
        print(f"cost: server {len(payloads) / took:.0f} messages/s of {size / len(payloads):.0f} bytes, each on disk; "
              f"{1000 * used / len(payloads):.2f} ms CPU a message; {chaos.rss_mb(server.pid):.0f} MB resident; the sender is one process")
    finally:
        await bus.close()
        server.stop()


def cpu_ticks(pid: int) -> tuple[int, int]:
    """User and system time of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


DAYS = 30.0
AT = "{now} - 86400.0 * {days} * (1 - {n} / {count}.0)"
COMMAND = "concat('c', cast(cast(floor(pow({n} * 48271 % 2147483647 / 2147483647.0, 3) * 20) as {int}) * 50 + {n} % 50 as {text}))"
RELEASE = "concat('6.', cast({n} % 5 as {text}))"
FILL = {
    "events": ("host_id, row, received, ts, kind, event, boot_id, entered, duration_s, peak_score, pid, start_ticks, command, score",
               f"concat('h', cast({{n}} % 1000 as {{text}})), {{n}}, {AT}, {AT}, case when {{n}} % 2 = 0 then 'enter' else 'exit' end, "
               f"cast({{n}} as {{text}}), 'b', {AT}, 1.0, 50, 7, 7, {COMMAND}, {{n}} % 100"),
    "pauses": ("host_id, row, received, ts, pause, boot_id, start, \"end\", duration_s, cause, culprit, os_version, culprit_release",
               f"concat('h', cast({{n}} % 1000 as {{text}})), {{n}}, {AT}, {AT}, cast({{n}} as {{text}}), 'b', {AT}, {AT}, {{n}} % 50 / 10.0, 'cpu', "
               f"{COMMAND}, {RELEASE}, concat({COMMAND}, ' ', {RELEASE})"),
    "batches": ("host_id, row, received, sent, host",
                f"concat('h', cast({{n}} % 1000 as {{text}})), {{n}}, {AT}, {AT} - 0.2, concat('n', cast({{n}} % 1000 as {{text}}))"),
}
"""Table -> columns and values of row number n of {count}: a month of 1,000 hosts as it arrives, by time; each host
has 20 of 1,000 commands, some of them often and most of them rarely."""

TIMED = """
import json, sys, time
from chdb.session import Session
session = Session(sys.argv[1])
asked = json.load(sys.stdin)
for statement in asked["setup"]:
    session.query(statement)
for name, sql in asked["queries"].items():
    times = []
    for _ in range(9):
        began = time.perf_counter()
        session.query(sql, "JSONCompactEachRow")
        times.append(time.perf_counter() - began)
    print(name, round(1000 * min(times), 1), sep='=', flush=True)
"""


def run_queries(place: Path, count: int) -> None:
    now = 1_795_000_000.0
    numbers = {"now": now, "hosts": 5, "silent": 60.0, "skew": 5.0, "limit": 20}
    asked = {f"{name} {days}d": question(name, {**numbers, "since": now - 86_400.0 * days})
             for name in QUERIES for days in (1, 7, 30)}
    warehouse = Warehouse(place / f"q{count}.duckdb", memory_mb=2048)
    for table, (columns, values) in FILL.items():
        values = values.format(n="range", now=now, days=DAYS, count=count, text="varchar", int="bigint")
        warehouse._db.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM range({count})")
    for each in ROLLUPS:
        warehouse._db.execute(each.merge(each.source.name))
    warehouse._db.execute("CHECKPOINT")
    took = {}
    for name, sql in asked.items():
        times = []
        for _ in range(9):
            began = time.perf_counter()
            warehouse.query(sql)
            times.append(1000 * (time.perf_counter() - began))
        took[name] = round(min(times), 1)
    size = sum(file.stat().st_size for file in place.glob(f"q{count}.duckdb*") if file.is_file()) >> 20
    warehouse.close()
    print(f"queries: DuckDB, {count} rows a table, {size} MB, ms: {took}", flush=True)
    if find_spec("chdb") is None:
        print("queries: chdb is not installed: SKIPPED")
        return
    setup = [*statements_without_nats(), "USE rogue_hunter"]
    for table, (columns, values) in FILL.items():
        values = values.format(n="toInt64(number)", now=now, days=DAYS, count=count, text="String", int="Int64")
        setup.append(f"INSERT INTO {table}_rows ({columns}) SELECT {values} FROM numbers({count})")
    # The rows are of a fixed time: without this they would be older than the retention some day.
    setup = [statement.replace("TTL toDateTime(received) + INTERVAL 30 DAY", "") for statement in setup]
    # As it is ten minutes after the last insert: min_age_to_force_merge_seconds.
    setup += [f"OPTIMIZE TABLE {table}_rows FINAL" for table in (*FILL, *(each.name for each in ROLLUPS))]
    done = subprocess.run([sys.executable, "-c", TIMED, str(place / f"ch{count}")], input=json.dumps({"setup": setup, "queries": asked}),
                          capture_output=True, text=True, check=False)
    print(f"queries: ClickHouse's engine, {count} rows a table, ms: {dict(line.split('=') for line in done.stdout.splitlines())}"
          f"{done.stderr[-500:] if done.returncode else ''}", flush=True)


def main(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="rh-fleet-") as name:
        place = Path(name)
        if parts == ["small"]:
            run_chaos(place, SMALL)
            return
        if not parts or "cost" in parts:
            run_cost(place)
        if not parts or "queries" in parts:
            for count in (1_000_000, 10_000_000):
                run_queries(place, count)
        if not parts or "chaos" in parts:
            run_chaos(place, LARGE)


if __name__ == "__main__":
    main(sys.argv[1:])
