"""rh-ship and rh-hub as a person runs them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from rogue_hunter.cli import hub, service, ship
from rogue_hunter.fleet.demo import example
from tests.fleet.database import START, make

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


COMMANDS = {"ship": ship.command, "hub": hub.command, "service": service.command}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("history") / "h.db", 4)


@pytest.fixture
def run(in_process: Callable[[click.Command], Run]) -> Run:
    """A command by its name, in this process."""
    return lambda name, *args: in_process(COMMANDS[name])(*args)


def test_stdout_prints_the_messages_and_changes_nothing(run: Run, database: Path, tmp_path: Path) -> None:
    """Records that the schemas describe, without the secret."""
    state = tmp_path / "ship.json"
    words = ("ship", "--db", database, "--state", state, "--host-id", "h1", "--from", f"@{START}")
    done = run(*words, "--stdout")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["type"] == "fleet_batch" and rows[0]["host_id"] == "h1"
    assert {row["type"] for row in rows} == {"fleet_batch", "machine_minute", "command_minute", "process_slice", "event", "pause",
                                             "capture", "action"}
    assert b"hunter2" not in done.stdout and not state.exists()
    counted = run(*words, "--dry-run")
    assert counted.returncode == 0 and counted.stdout == b"" and not state.exists()
    assert b"144 process_slices" in counted.stderr and b"rh.v1.h1.minute" in counted.stderr and b"4 texts masked" in counted.stderr


@pytest.mark.parametrize(("words", "code", "reason"), [
    (("--dry-run", "--stdout"), 2, "exclude each other"),
    (("--creds", "a", "--nkey", "b"), 2, "exclude each other"),
    (("--key", "a"), 2, "needs --cert"),
    (("--host-id", "a.b", "--dry-run"), 2, "letters, digits"),
    (("--db", "/nonexistent/x.db", "--dry-run"), 69, "no history yet"),
    (("--nkey", "/nonexistent/x.nk", "--once"), 78, "No such file"),
])  # fmt: skip
def test_errors_are_one_line(run: Run, database: Path, tmp_path: Path, words: tuple[str, ...], code: int, reason: str) -> None:
    pytest.importorskip("nats", reason="nats-py is not installed")
    more = () if "--db" in words else ("--db", str(database))
    done = run("ship", "--state", tmp_path / "s.json", "--from", f"@{START}", *more, *words)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr.decode() and b"Traceback" not in done.stderr


def test_the_examples_are_printed_as_they_are_shipped(run: Run) -> None:
    for name in ("clickhouse.sql", "nats-node.conf", "nats-leaf.conf"):
        assert run("hub", "print", name).stdout == example(name)


def test_a_hub_that_has_no_file_reports_it(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    done = run("hub", "query", "rogue", "--db", tmp_path / "x.duckdb")
    assert done.returncode == 69 and b"rh-hub run makes it" in done.stderr
    assert run("hub", "query", "sql").returncode == 2 and run("hub", "query", "rogue", "SELECT 1").returncode == 2


@pytest.mark.slow
def test_the_demonstration_has_no_differences_and_answers_every_question(rh: Run, database: Path) -> None:
    """One command: server, hub, hosts that send one recording, faults, counts, questions."""
    for package in ("nats", "duckdb"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    done = rh("hub", "demo", "--hosts", "11", "--minutes", "2", "--recording", database)
    if b"nats-server is not installed" in done.stderr:
        pytest.skip("nats-server is not installed: the demonstration was not tried")
    assert done.returncode == 0, done.stderr
    assert b"no differences" in done.stderr and b"rh-hub query skewed" in done.stderr and b"sim-00010" in done.stdout
    assert b"COMMAND" in done.stdout.upper() and b"BEHIND_S" in done.stdout.upper()


def test_queries_and_an_export_of_a_file(run: Run, tmp_path: Path) -> None:
    """Without a running hub the file itself answers."""
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    from rogue_hunter.fleet.warehouse import Warehouse
    from tests.fleet.test_warehouse import history

    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store(history(3, 20))
    warehouse.close()
    where = ("--db", tmp_path / "x.duckdb")
    done = run("hub", "query", "worst", "--since", "@1", "--ndjson", *where)
    assert done.returncode == 0 and json.loads(done.stdout)["host_id"] == "sim-00003", done.stderr
    assert b"SIM-00003" in run("hub", "query", "worst", "--since", "@1", "--table", *where).stdout.upper()
    bad = run("hub", "query", "sql", "DROP TABLE events", *where)
    assert bad.returncode == 65 and b"only one SELECT" in bad.stderr
    done = run("hub", "export", tmp_path / "out.db", "--since", "@1", *where)
    assert done.returncode == 0, done.stderr
    db = sqlite3.connect(tmp_path / "out.db")
    assert db.execute("SELECT count(*) FROM machine_minutes").fetchone() == (20,)
    db.close()


@pytest.mark.parametrize(("program", "words"), [("rh-ship", ("-s", "tls://a:4222")), ("rh-hub", ("--keep", "7d"))])
@pytest.mark.parametrize("manager", ["systemd", "launchd"])
def test_a_service_runs_the_command_with_its_arguments(run: Run, program: str, words: tuple[str, ...], manager: str) -> None:
    done = run("service", "install", "--print", "--manager", manager, "--program", program, "--", *words)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert program.removeprefix("rh-") in text and all(word in text for word in words)
    assert ("rh-hub" not in program) or ("run" in text)


def test_a_service_refuses_the_options_of_another_command(run: Run) -> None:
    assert b"for rh-pipe" in run("service", "install", "--print", "--program", "rh-ship", "--hz", "1").stderr
    assert b"no arguments" in run("service", "install", "--print", "--", "x").stderr
