"""The hub's DuckDB file: rows of all hosts, each exactly once, which rows are missing, retention, and read-only SQL."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rogue_hunter.fleet.intake import Batch, Coverage, new_rows
from rogue_hunter.fleet.tables import HOUR_S, MADE, ROLLUPS, STORED, TABLES, Table, duckdb_tables, duckdb_type, stored
from rogue_hunter.stream import wire
from rogue_hunter.text.errors import BAD_INPUT, CONFIG_ERROR, IO_ERROR, UNAVAILABLE, RogueHunterError

FORMAT = 3
"""Version of the tables. A file of a newer version is refused untouched."""
LIMIT_S = 30.0
"""A query that takes longer is cancelled."""
MOST_ROWS = 200_000
"""Maximum number of rows of one answer."""
REMEMBER_S = 365 * 86_400.0
"""A command is new again if it was not rogue for so long before the oldest rows that are kept."""
REASON_MAX = 300
"""Characters of a reason that are kept."""


class WarehouseError(RogueHunterError):
    """The file or a query cannot be used. `code`: 65 SQL, 69 in use or not installed, 74 the file, 78 its version."""

    code = IO_ERROR


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        if (error.name or "").split(".")[0] != "duckdb":
            raise
        raise WarehouseError("duckdb is not installed; in the checkout: pip install '.[fleet]'", UNAVAILABLE) from None
    return duckdb


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or str(error).splitlines()[0])


class Warehouse:
    """The open file. One process has it; threads may query while another one stores."""

    def __init__(self, path: Path, *, read_only: bool = False, memory_mb: int = 512) -> None:
        """Open or make the file (mode 0600). Raises WarehouseError."""
        duckdb = _duckdb()
        self.path = path
        self._in = path.with_name(path.name + ".in")
        self._lock = threading.Lock()
        self._coverage: dict[str, dict[str, Coverage]] = {}
        if read_only and not path.exists():
            raise WarehouseError(f"{path}: no such file; rh-hub run makes it", UNAVAILABLE)
        try:
            if not read_only:
                self._in.mkdir(mode=0o700, exist_ok=True)
                for left in self._in.iterdir():     # of a process that was killed
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                if not path.exists():   # a file that a killed process has half made would be refused ever after
                    new = self._in / "new"
                    duckdb.connect(str(new)).close()
                    with suppress(FileExistsError):     # another process was faster
                        os.link(new, path)
                    new.unlink()
            self._db = duckdb.connect(str(path), read_only=read_only, config={
                "threads": min(4, os.cpu_count() or 1), "memory_limit": f"{memory_mb}MB"})
            # SQL of a user reaches no other file; rows come in through one directory.
            self._db.execute(f"SET allowed_directories = ['{str(self._in).replace(chr(39), chr(39) * 2)}']")
            self._db.execute("SET enable_external_access = false")
            self._db.execute("SET preserve_insertion_order = false")
            self._db.execute("SET lock_configuration = true")
            if not read_only:
                self._prepare()
            for host, spans in self._db.execute("SELECT host_id, spans FROM coverage").fetchall():
                self._coverage[host] = {table: Coverage(*value) for table, value in wire.loads(spans.encode()).items()}
        except duckdb.Error as error:
            text = _reason(error)
            in_use = "set lock" in text
            raise WarehouseError(f"{path}: {'another rh-hub uses it' if in_use else text}",
                                 UNAVAILABLE if in_use else IO_ERROR) from None
        except OSError as error:
            raise WarehouseError(f"{error.filename or path}: {error.strerror}") from None

    def _prepare(self) -> None:
        for statement in duckdb_tables():
            self._db.execute(statement)
        found = self._db.execute("SELECT max(version) FROM format").fetchone()[0]
        if found is None:
            self._db.execute("INSERT INTO format VALUES (?)", [FORMAT])
        elif found == 2:
            self._db.execute("ALTER TABLE batches ADD COLUMN boot_id VARCHAR")
            self._db.execute("ALTER TABLE pauses ADD COLUMN culprit_release VARCHAR")
            self._db.execute(f"UPDATE pauses SET culprit_release = {MADE['culprit_release']}")
            self._db.execute("UPDATE format SET version = ?", [FORMAT])
        elif found != FORMAT:
            age = "a newer" if found > FORMAT else "an older"
            raise WarehouseError(f"{self.path}: made by {age} rh-hub (version {found}, here {FORMAT})", CONFIG_ERROR)
        with suppress(OSError):
            os.chmod(self.path, 0o600)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- rows in -------------------------------------------------------------------------------------------------------

    def store(self, batches: Sequence[Batch], refused: Sequence[tuple[str, float, str]] = ()) -> int:
        """Store the rows that are new, which rows a host has sent, and refusals (host, received, reason), in one
        transaction; gives the number of rows. Afterwards everything is on disk. Raises WarehouseError."""
        before = {host: wire.dumps(self._texts(host)) for host in {b.host_id for b in batches}}
        lines: dict[str, list[bytes]] = {}
        count = 0
        for batch in batches:
            count += self._take(batch, lines)
        lines["coverage"] = [wire.dumps({"host_id": host, "spans": wire.dumps(self._texts(host)).decode()})
                             for host in before]
        lines["refused"] = [wire.dumps({"host_id": host, "received": at, "reason": reason[:REASON_MAX]})
                            for host, at, reason in refused]
        try:
            with self._lock:
                self._write(lines)
        except Exception as error:
            for host, text in before.items():       # as it is in the file
                self._coverage[host] = {table: Coverage(*value) for table, value in wire.loads(text).items()}
            if isinstance(error, (_duckdb().Error, OSError)):
                raise WarehouseError(f"{self.path}: {_reason(error)}") from None
            raise
        return count

    def _take(self, batch: Batch, lines: dict[str, list[bytes]]) -> int:
        """Add the new rows of a batch as lines of NDJSON; gives their number."""
        known = self._coverage.setdefault(batch.host_id, {})
        count = 0
        any_new = False
        for table, (base, after, through) in batch.spans.items():
            parts = known.setdefault(table, Coverage(base, base)).add(base, after, through)
            any_new = any_new or bool(parts)
            rows = batch.rows[table] if parts == [(after, through)] else new_rows(batch.rows[table], parts)
            key = {"host_id": batch.host_id, "received": batch.received}
            lines.setdefault(table, []).extend(wire.dumps({**row, **key}) for row in rows)
            count += len(rows)
        if any_new:
            lines.setdefault("batches", []).append(
                wire.dumps({**batch.head, "host_id": batch.host_id, "received": batch.received}))
        return count

    def _write(self, lines: Mapping[str, Sequence[bytes]]) -> None:
        self._db.execute("BEGIN")
        try:
            for table in STORED:
                columns = {c.name: duckdb_type(c.type) for c in stored(table)}
                self._insert(table.name, columns, lines.get(table.name, ()))
            if lines["coverage"]:
                columns = {"host_id": "VARCHAR", "spans": "VARCHAR"}
                self._insert("coverage", columns, lines["coverage"], replace=True)
            self._insert("refused", {"host_id": "VARCHAR", "received": "DOUBLE", "reason": "VARCHAR"}, lines["refused"])
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(Exception):
                self._db.execute("ROLLBACK")
            raise

    def _insert(self, table: str, columns: Mapping[str, str], lines: Sequence[bytes], *, replace: bool = False) -> None:
        """Through a file: DuckDB reads NDJSON 20 times as fast as values that are bound one by one."""
        if not lines:
            return
        file = self._in / f"{table}.ndjson"
        file.write_bytes(b"\n".join(lines) + b"\n")
        names = ", ".join(f'"{name}"' for name in columns)
        kinds = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
        source = f"read_json(?, format = 'newline_delimited', columns = {{{kinds}}})"
        if replace:
            self._db.execute(f"DELETE FROM {table} WHERE host_id IN (SELECT host_id FROM {source})", [str(file)])
        values = ", ".join(MADE.get(name, f'"{name}"') for name in columns)
        self._db.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM {source}", [str(file)])
        for each in ROLLUPS:
            if each.source.name == table:
                self._db.execute(each.merge(source), [str(file)])
        file.unlink()

    def _texts(self, host: str) -> dict[str, Any]:
        return {table: [c.base, c.sent, c.spans] for table, c in self._coverage.get(host, {}).items()}

    # -- what is missing -----------------------------------------------------------------------------------------------

    def gaps(self) -> Iterator[tuple[str, dict[str, list[list[int]]]]]:
        """Host and table -> spans that were sent and are missing, of every host that has some."""
        for host, tables in self._coverage.items():
            found = {table: gaps for table, coverage in tables.items() if (gaps := coverage.gaps())}
            if found:
                yield host, found

    def missing(self) -> tuple[list[str], list[list[Any]]]:
        """Names and rows, as of a query: the tables of hosts of which rows are missing."""
        rows = [[host, table, coverage.contiguous, len(gaps)] for host, tables in sorted(self._coverage.items())
                for table, coverage in list(tables.items()) if (gaps := coverage.gaps())]
        return ["host_id", "table", "complete_to", "gaps"], rows

    def hosts(self) -> int:
        """Number of hosts that have sent something."""
        return len(self._coverage)

    def prune(self, before: float) -> int:
        """Delete the rows that arrived before the hour of that time (epoch seconds); gives their number. Which rows a
        host has sent is kept, so nothing is asked for again. Raises WarehouseError."""
        cutoff = before // HOUR_S * HOUR_S
        gone = 0
        try:
            with self._lock:
                for name in (*(t.name for t in STORED), "refused"):
                    gone += self._db.execute(f"DELETE FROM {name} WHERE received < ?", [cutoff]).fetchone()[0]
                self._db.execute("DELETE FROM host_hours WHERE hour < ?", [cutoff])
                for name in ("commands", "culprits"):
                    self._db.execute(f"DELETE FROM {name} WHERE last_ts < ?", [before - REMEMBER_S])
                if gone:
                    self._db.execute("CHECKPOINT")
        except _duckdb().Error as error:
            raise WarehouseError(f"{self.path}: {_reason(error)}") from None
        return gone

    # -- rows out ------------------------------------------------------------------------------------------------------

    def query(self, sql: str) -> tuple[list[str], list[list[Any]]]:
        """Names of the columns and rows of one SELECT, at most MOST_ROWS. Raises WarehouseError."""
        duckdb = _duckdb()
        try:
            statements = duckdb.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise WarehouseError("only one SELECT is allowed", BAD_INPUT)
            with self._cursor() as cursor:
                cursor.execute(sql)
                names = [column[0] for column in cursor.description]
                rows = cursor.fetchmany(MOST_ROWS + 1)
        except duckdb.InterruptException:
            raise WarehouseError(f"the query took longer than {LIMIT_S:.0f} s and was cancelled", UNAVAILABLE) from None
        except duckdb.Error as error:
            raise WarehouseError(f"SQL: {_reason(error)}", BAD_INPUT) from None
        if len(rows) > MOST_ROWS:
            raise WarehouseError(f"more than {MOST_ROWS} rows; put a LIMIT into the query", UNAVAILABLE)
        return names, [[_plain(value) for value in row] for row in rows]

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        cursor = self._db.cursor()
        timer = threading.Timer(LIMIT_S, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield cursor
        finally:
            timer.cancel()
            cursor.close()

    def export(self, file: Path, since: float) -> int:
        """Write the rows that arrived since then into a new SQLite file, which Datasette reads; gives their number.
        Raises WarehouseError for a file that exists or cannot be written."""
        if file.exists():
            raise WarehouseError(f"{file}: exists; an export never overwrites a file")
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        cursor = self._db.cursor()
        count = 0
        try:
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            target = sqlite3.connect(beside, isolation_level=None)
            try:
                target.execute("PRAGMA journal_mode = MEMORY")
                target.execute("BEGIN")
                for table in STORED:
                    count += _copy(cursor, target, table, since)
                target.execute("COMMIT")
            finally:
                target.close()
            os.replace(beside, file)
        except (OSError, sqlite3.Error, _duckdb().Error) as error:
            with suppress(OSError):
                beside.unlink()
            raise WarehouseError(f"{file}: {_reason(error)}") from None
        finally:
            cursor.close()
        return count


    def export_parquet(self, directory: Path, since: float) -> int:
        """Write the rows that arrived since then into a new directory, as TABLE/hour=YYYY-MM-DDTHH/*.parquet (UTC);
        gives their number. Raises WarehouseError for one that exists or cannot be written."""
        if directory.exists():
            raise WarehouseError(f"{directory}: exists; an export never overwrites a file")
        beside, count = self._in / f"parquet.{os.getpid()}", 0
        try:
            beside.mkdir(mode=0o700, parents=True)
            with self._db.cursor() as cursor:
                for table in STORED:
                    target = str(beside / table.name).replace("'", "''")
                    cursor.execute("COPY (SELECT *, strftime(make_timestamp(CAST(received * 1e6 AS BIGINT)), "
                                   f"'%Y-%m-%dT%H') AS hour FROM {table.name} WHERE received >= ?) "
                                   f"TO '{target}' (FORMAT parquet, PARTITION_BY (hour))", [since])
                    count += cursor.fetchone()[0]
            shutil.move(beside, directory)
        except (OSError, _duckdb().Error) as error:
            shutil.rmtree(beside, ignore_errors=True)
            text = _reason(error)
            raise WarehouseError(f"{directory}: {text}") from None
        return count


def _copy(cursor: Any, target: sqlite3.Connection, table: Table, since: float) -> int:
    names = [c.name for c in stored(table)]
    quoted = ", ".join(f'"{name}"' for name in names)
    columns = ", ".join(f'"{c.name}" {c.sql}' for c in stored(table))
    target.execute(f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY (host_id, row)) WITHOUT ROWID")
    cursor.execute(f"SELECT {quoted} FROM {table.name} WHERE received >= ?", [since])
    insert = f"INSERT OR IGNORE INTO {table.name} ({quoted}) VALUES ({', '.join('?' * len(names))})"
    count = 0
    while rows := cursor.fetchmany(10_000):
        target.executemany(insert, rows)
        count += len(rows)
    if table in TABLES:
        time = table.columns[0].name
        target.execute(f'CREATE INDEX {table.name}_time ON {table.name} ("{time}")')
    return count


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)

