"""The hub's file: each row once, retention by the hour, SQL that only reads, an export for Datasette."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from rogue_hunter.fleet.demo import SimulatedHost
from rogue_hunter.fleet.intake import SUBJECT, Batch, parse
from rogue_hunter.fleet.source import SETTLE_S, Shipper, State, begin
from rogue_hunter.fleet.tables import QUERIES, ROLLUPS, TABLES, question

pytest.importorskip("duckdb", reason="duckdb is not installed: no row was stored")

from rogue_hunter.fleet.warehouse import Warehouse, WarehouseError

START = 1_795_000_020
NUMBERS = {"since": START - 86_400.0, "now": START + 86_400.0, "hosts": 1, "silent": 60.0, "skew": 5.0, "limit": 20}


def history(number: int, minutes: int) -> list[Batch]:
    """The messages of a simulated host, as a hub reads them: its clock is 700 s behind."""
    host = SimulatedHost(number, START)
    shipper = Shipper(host, begin(host, host.identity, START), lambda: START + 60 * minutes + SETTLE_S)
    batches = []
    while (message := shipper.next()) is not None:
        batches.append(parse(SUBJECT.format(host.identity), message.payload(float(message.minute)), message.minute + 700.0))
        shipper.done(message)
    return batches


def test_the_file_is_whole_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is killed while it makes its file can start again: DuckDB refuses a file that is half made."""
    import duckdb

    place, connect, early = tmp_path / "x.duckdb", duckdb.connect, []

    def watched(name: str, *args: object, **more: object) -> object:
        early.append(name == str(place) and not place.exists())
        return connect(name, *args, **more)

    monkeypatch.setattr(duckdb, "connect", watched)
    Warehouse(place).close()
    assert early == [False, False] and [file.name for file in (tmp_path / "x.duckdb.in").iterdir()] == []


def count(warehouse: Warehouse) -> int:
    return sum(warehouse.query(f"SELECT count(*) FROM {t.name}")[1][0][0] for t in TABLES)


def rows_of(batches: list[Batch]) -> int:
    return sum(len(rows) for batch in batches for rows in batch.rows.values())


def test_rows_arrive_once_in_any_order_and_after_a_restart(tmp_path: Path) -> None:
    """Every message twice, shuffled over several transactions, the file opened again between them."""
    batches = [batch for n in range(2) for batch in history(n, 6)]
    twice = batches * 2
    random.Random(5).shuffle(twice)
    stored = 0
    for at in range(0, len(twice), 7):
        warehouse = Warehouse(tmp_path / "x.duckdb")
        stored += warehouse.store(twice[at:at + 7])
        warehouse.close()
    warehouse = Warehouse(tmp_path / "x.duckdb")
    assert stored == count(warehouse) == rows_of(batches)
    assert warehouse.query("SELECT count(*) FROM batches")[1] == [[len(batches)]]
    assert list(warehouse.gaps()) == []
    warehouse.close()


def test_rows_that_are_missing_are_known(tmp_path: Path) -> None:
    """The gap has exactly the rows of the lost message; it closes when they come."""
    batches = history(3, 5)
    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store([*batches[:2], *batches[3:]])
    lost = batches[2]
    assert list(warehouse.gaps()) == [(lost.host_id, {t: [[after, through]] for t, (_, after, through) in lost.spans.items()
                                                         if after < through})]
    assert [lost.host_id, "machine_minutes", batches[1].spans["machine_minutes"][2], 1] in warehouse.missing()[1]
    warehouse.store([lost])
    assert list(warehouse.gaps()) == [] and count(warehouse) == rows_of(batches)
    warehouse.close()


def test_a_transaction_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are new again afterwards: they are not taken for stored."""
    batches = history(1, 2)
    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store(batches[:1])
    good = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "coverage.ndjson":
            raise OSError(28, "No space left on device")
        return good(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WarehouseError, match="No space left"):
        warehouse.store(batches[1:])
    monkeypatch.undo()
    assert count(warehouse) == rows_of(batches[:1])
    assert warehouse.store(batches[1:]) == rows_of(batches[1:])
    warehouse.close()


def test_hostile_values_are_stored_as_they_are(tmp_path: Path) -> None:
    """Quotes, control characters, keys of other hosts, unknown keys, a NUL: text is text."""
    (batch,) = history(2, 1)
    text = "a'\"\\;\x1b[2J\u202e\n\x00\U0001f600"
    batch.rows["process_slices"][0].update(command=text, host_id="other", received=0.0, unknown={"x": [1]})
    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store([batch], [("", 1.0, text)])
    assert warehouse.query("SELECT DISTINCT host_id FROM process_slices")[1] == [["sim-00002"]]
    assert [text] in warehouse.query("SELECT command FROM process_slices")[1]
    assert warehouse.query("SELECT reason FROM refused")[1] == [[text]]
    warehouse.close()


def test_sql_only_reads_and_reaches_no_other_file(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "x.duckdb")
    for sql in ("DELETE FROM events", "SELECT 1; SELECT 2", "COPY events TO 'x'", "ATTACH 'x.db'", "SET threads = 1",
                "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM nothing", ""):
        with pytest.raises(WarehouseError) as error:
            warehouse.query(sql)
        assert error.value.code == 65, sql
    warehouse.close()


def test_retention_deletes_whole_hours_and_asks_for_nothing_again(tmp_path: Path) -> None:
    """Rows of before the hour are gone; what was sent is still known."""
    batches = history(1, 90)
    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store(batches)
    edge = (batches[-1].received - 600) // 3600 * 3600
    gone = warehouse.prune(batches[-1].received - 600)
    assert gone > 0 and count(warehouse) == rows_of([b for b in batches if b.received >= edge])
    assert warehouse.store(batches) == 0 and list(warehouse.gaps()) == []
    # A command is not new because its earlier rows are gone.
    since = edge - 760.0        # by the clock of the host
    left = warehouse.query(f"SELECT command FROM events GROUP BY command HAVING min(ts) >= {since}")[1]
    assert len(left) == 10 and warehouse.query(question("new", {**NUMBERS, "since": since}))[1] == []
    warehouse.prune(batches[-1].received + 2 * 365 * 86_400.0)
    assert warehouse.query("SELECT count(*) FROM commands")[1] == warehouse.query("SELECT count(*) FROM host_hours")[1] == [[0]]
    warehouse.close()


def test_small_tables_are_what_follows_from_all_rows(tmp_path: Path) -> None:
    """Kept while rows arrive in any order and twice, they equal one query over everything."""
    batches = [batch for n in range(3) for batch in history(n, 15)]
    random.Random(7).shuffle(batches)
    warehouse = Warehouse(tmp_path / "x.duckdb")
    for at in range(0, len(batches), 9):
        warehouse.store(batches[max(0, at - 4):at + 9])
    for each in ROLLUPS:
        kept, whole = (sorted(warehouse.query(sql)[1]) for sql in (f"SELECT * FROM {each.name}", each.select(each.source.name)))
        assert kept == whole and len(kept) >= 3, each.name
    warehouse.close()


def test_named_questions(tmp_path: Path) -> None:
    """Each has the answer that follows from the simulated hosts."""
    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store([batch for n in range(10) for batch in history(n, 30)])
    answers = {name: warehouse.query(question(name, NUMBERS)) for name in QUERIES}
    assert all(answers[name][1] for name in QUERIES)
    names, skewed = answers["skewed"]
    assert len(skewed) == 10 and {row[names.index("behind_s")] for row in skewed} == {700.0}
    names, rogue = answers["rogue"]
    hosts = [row[names.index("hosts")] for row in rogue]
    assert hosts == sorted(hosts, reverse=True) and max(hosts) <= 10
    later = warehouse.query(question("rogue", {**NUMBERS, "since": START + 80_000.0}))
    assert later[1] == [] and warehouse.query(question("rogue", {**NUMBERS, "hosts": 11}))[1] == []
    assert warehouse.query(question("silent", {**NUMBERS, "now": START + 1800.0}))[1] == []
    warehouse.close()


def test_an_export_is_a_sqlite_file_with_every_row(tmp_path: Path) -> None:
    """It has keys and indexes, is private, and never overwrites a file."""
    batches = history(4, 5)
    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store(batches)
    target = tmp_path / "fleet.db"
    assert warehouse.export(target, 0.0) == rows_of(batches) + len(batches)
    assert target.stat().st_mode & 0o777 == 0o600
    db = sqlite3.connect(target)
    assert db.execute("SELECT count(*) FROM process_slices").fetchone()[0] == 36 * 5
    assert db.execute("SELECT typeof(dry_run), typeof(ts) FROM actions").fetchall() in ([], [("integer", "real")])
    db.close()
    with pytest.raises(WarehouseError, match="never overwrites"):
        warehouse.export(target, 0.0)
    warehouse.close()


def test_an_export_to_parquet_has_a_file_for_each_table_and_hour(tmp_path: Path) -> None:
    """As one that was made from the file of a hub that is closed; DuckDB reads it back with the hour as a column."""
    import duckdb

    batches = history(4, 90)
    warehouse = Warehouse(tmp_path / "it's.duckdb")
    warehouse.store(batches)
    warehouse.close()
    warehouse = Warehouse(tmp_path / "it's.duckdb", read_only=True)
    assert warehouse.export_parquet(tmp_path / "out", 0.0) == rows_of(batches) + len(batches)
    (found,) = duckdb.sql(f"SELECT count(*), count(DISTINCT hour) FROM read_parquet('{tmp_path}/out/machine_minutes/*/*.parquet')"
                          ).fetchall()
    assert found == (90, len({batch.received // 3600 for batch in batches}))
    with pytest.raises(WarehouseError, match="never overwrites"):
        warehouse.export_parquet(tmp_path / "out", 0.0)
    with pytest.raises(WarehouseError):
        warehouse.export_parquet(warehouse.path / "out", 0.0)
    assert not list((tmp_path / "it's.duckdb.in").iterdir())
    warehouse.close()


def test_a_file_of_another_version_or_in_use_is_refused(tmp_path: Path) -> None:
    import duckdb

    Warehouse(tmp_path / "x.duckdb").close()
    db = duckdb.connect(str(tmp_path / "x.duckdb"))
    db.execute("UPDATE format SET version = 9")
    db.close()
    with pytest.raises(WarehouseError, match="made by a newer rh-hub") as error:
        Warehouse(tmp_path / "x.duckdb")
    assert error.value.code == 78
    with pytest.raises(WarehouseError, match="rh-hub run makes it"):
        Warehouse(tmp_path / "none.duckdb", read_only=True)
    (tmp_path / "bad.duckdb").write_bytes(b"x" * 5000)
    with pytest.raises(WarehouseError):
        Warehouse(tmp_path / "bad.duckdb")


def test_a_file_of_the_version_before_gets_the_new_columns(tmp_path: Path) -> None:
    """Its rows stay, and the questions have the same answers."""
    import duckdb

    warehouse = Warehouse(tmp_path / "x.duckdb")
    warehouse.store(history(4, 30))
    answer = warehouse.query(question("pauses", NUMBERS))
    warehouse.close()
    db = duckdb.connect(str(tmp_path / "x.duckdb"))
    db.execute("UPDATE format SET version = 2")
    db.execute("ALTER TABLE pauses DROP COLUMN culprit_release")
    db.execute("ALTER TABLE batches DROP COLUMN boot_id")
    db.close()
    warehouse = Warehouse(tmp_path / "x.duckdb")
    assert warehouse.query(question("pauses", NUMBERS)) == answer and len(answer[1]) > 1
    warehouse.close()


def test_a_state_begins_where_it_is_asked_to() -> None:
    made: State = begin(SimulatedHost(0, START), "h", START)
    assert made.after == made.base and made.minute == START
