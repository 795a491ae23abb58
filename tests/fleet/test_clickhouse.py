"""The same SQL has the same answers in DuckDB and in ClickHouse (chdb is its engine as a library)."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.fleet.demo import SimulatedHost
from rogue_hunter.fleet.intake import SUBJECT, parse
from rogue_hunter.fleet.source import SETTLE_S, Shipper, begin
from rogue_hunter.fleet.tables import QUERIES, STORED, question

pytest.importorskip("duckdb", reason="duckdb is not installed: no row was stored")
if find_spec("chdb") is None:
    pytest.skip("chdb is not installed: the SQL was not tried with ClickHouse's engine", allow_module_level=True)

from rogue_hunter.fleet.warehouse import Warehouse
from tests.fleet.statements import statements_without_nats

RUN = """
import json, sys
from chdb.session import Session
session = Session(sys.argv[1])
for statement in json.load(sys.stdin):
    made = str(session.query(statement, "JSONCompactEachRow"))
    print(json.dumps([json.loads(line) for line in made.splitlines()]), flush=True)
"""


def clickhouse(place: Path, statements: Sequence[str], environ: Mapping[str, str]) -> list[list[list[Any]]]:
    """The rows of each statement, from a process of its own: the engine has some 50 threads."""
    done = subprocess.run([sys.executable, "-c", RUN, str(place)], input=json.dumps(statements), capture_output=True,
                          text=True, timeout=120, check=False, env=dict(environ))
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)
    return bool(one == other)


@pytest.mark.slow
def test_both_engines_give_the_same_answers(tmp_path: Path, clean_env: Mapping[str, str]) -> None:
    """Real messages of 8 hosts, each twice: every named question, and the sums of every numeric column."""
    warehouse = Warehouse(tmp_path / "x.duckdb")
    now = time.time()
    start = int(now) // 60 * 60 - 3600
    wire, batches = [], []
    for number in range(8):
        host = SimulatedHost(number, start)
        shipper = Shipper(host, begin(host, host.identity, start), lambda: start + 900 + SETTLE_S)
        while (message := shipper.next()) is not None:
            payload = message.payload(message.minute + 0.2)
            received = message.minute + (0.5 if number % 7 else 600.5)
            batches.append(parse(SUBJECT.format(host.identity), payload, received))
            wire += [json.dumps({"line": line, "_subject": SUBJECT.format(host.identity), "at": received})
                     for line in payload.decode().splitlines()]
            shipper.done(message)
    warehouse.store(batches * 2)
    numbers = {"since": start - 60.0, "now": now, "hosts": 2, "silent": 1500.0, "skew": 5.0, "limit": 50}
    sums = {t.name: "SELECT count(*), " + ", ".join(f'round(sum("{c.name}"), 3)' for c in t.columns if c.type in (int, float))
            + f" FROM {t.name}" for t in STORED}
    asked = {**{name: question(name, numbers) for name in QUERIES}, **sums}
    insert = "INSERT INTO rogue_hunter.wire FORMAT JSONEachRow\n" + "\n".join(wire) + "\n"
    made = clickhouse(tmp_path / "ch", [*statements_without_nats(), insert, insert, "USE rogue_hunter", *asked.values()], clean_env)
    for (name, sql), rows in zip(asked.items(), made[-len(asked):], strict=True):
        _, own = warehouse.query(sql)
        assert len(own) == len(rows) > 0, name
        assert all(equal(a, b) for x, y in zip(own, rows, strict=True) for a, b in zip(x, y, strict=True)), (name, own, rows)
    warehouse.close()
