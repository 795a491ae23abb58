"""rh-report --hub: the usual views, of the history that a hub has of one host."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

pytest.importorskip("duckdb", reason="duckdb is not installed: no history was read")

from rogue_hunter.cli.report import command
from rogue_hunter.config.options import Config
from rogue_hunter.fleet.history import find_host, write_history
from rogue_hunter.fleet.warehouse import Warehouse
from rogue_hunter.report import history, queries
from rogue_hunter.report.queries import Period, source
from rogue_hunter.text.errors import RogueHunterError
from tests.fleet.test_warehouse import START
from tests.fleet.test_warehouse import history as messages

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
MINUTES = 90
HOST = "sim-00003"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a hub that knows two hosts, and a row that no database takes."""
    warehouse = Warehouse(tmp_path_factory.mktemp("hub") / "hub.duckdb")
    batches = messages(3, MINUTES)
    broken = next(batch for batch in batches if batch.rows.get("pauses"))
    broken.rows["pauses"][0].update(culprits=[{"command": "x"}])
    warehouse.store([*batches, *messages(4, 5)])
    warehouse.close()
    return warehouse.path


def test_what_a_hub_has_of_a_host_is_a_database_for_every_view(hub: Path, tmp_path: Path) -> None:
    """Minutes, commands, events, pauses; the processes of each minute from the slices that were sent."""
    warehouse = Warehouse(hub, read_only=True)
    asked: list[str] = []

    def ask(sql: str) -> tuple[list[str], list[list[object]]]:
        asked.append(sql)
        return warehouse.query(sql)

    wrong = write_history(ask, find_host(ask, HOST), START, START + 60.0 * MINUTES, tmp_path / "h.db")
    assert wrong == 1
    period = Period(START, START + 60.0 * MINUTES)
    with source(tmp_path / "h.db", START + 86_400.0, Config()) as found:
        assert found.watch == "hub"
        assert history.minute_count(found.reader, period) == MINUTES
        (pauses,) = warehouse.query(f"SELECT count(*) FROM pauses WHERE host_id = '{HOST}'")[1]
        made = history.pauses(found.reader, period)
        assert len(made) == pauses[0] - 1 and all(p["culprits"][0]["share"] == 0.8 for p in made)
        (events,) = warehouse.query(f"SELECT count(DISTINCT event) FROM events WHERE host_id = '{HOST}' AND ts < {period.until}")[1]
        assert len(queries.events(found.reader, period, found.watched)) == events[0] > 0
        assert found.reader.execute("SELECT count(DISTINCT slice) FROM process_minutes").fetchone()[0] == MINUTES
        assert found.reader.execute("SELECT DISTINCT active_ms FROM process_minutes").fetchall()[0][0] == 60_000
        assert found.reader.execute("SELECT count(*) FROM machine_slices").fetchone()[0] == 0
    warehouse.close()


def test_a_host_is_found_by_its_name_and_nothing_else(hub: Path) -> None:
    warehouse = Warehouse(hub, read_only=True)
    assert find_host(warehouse.query, "host-00003.example") == find_host(warehouse.query, HOST) == HOST
    for wrong in ("sim-00009", "", "' OR 1=1 --", "sim-%"):
        with pytest.raises(RogueHunterError, match="no host"):
            find_host(warehouse.query, wrong)
    warehouse.close()


def test_a_view_of_a_hub(in_process: Callable[[click.Command], Run], hub: Path) -> None:
    """Whether rh-pipe runs on that host is not known, and not reported."""
    period = ("--since", f"@{START}", "--until", f"@{START + 60 * MINUTES}", "--hub", HOST, "-d", str(hub))
    done = in_process(command)("summary", "--table", *period)
    assert done.returncode == 0 and b"1 row of this host malformed and left out" in done.stderr, done.stderr
    assert b"From a hub; its history was last written" in done.stdout and b"not running" not in done.stdout
