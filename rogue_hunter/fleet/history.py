"""The history of one host out of a hub's file, as a database that the views of rh-report read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rogue_hunter.fleet.tables import BY_NAME, TABLES, Ask, Table
from rogue_hunter.schema import RECORDS
from rogue_hunter.store.database import open_writer
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.tables import DAEMON_STATE
from rogue_hunter.store.writer import UNUSABLE
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.errors import USAGE, RogueHunterError

BEFORE_S = 86_400.0
"""What is usual on a host is taken from so much time before the period."""
PAGE = 100_000
"""Rows of one answer of a hub."""

_ORDER = (BY_NAME["process_slices"], *(table for table in TABLES if table.name != "process_slices"))
"""Minutes of processes are made of slices when the machine's minute is written; captures refer to events and pauses."""


def find_host(ask: Ask, text: str) -> str:
    """The identity of the host with this identity or name. Raises RogueHunterError if there is none, or several."""
    found: list[str] = []
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", text):
        _, rows = ask(f"SELECT DISTINCT host_id FROM host_hours WHERE host_id = '{text}' OR name = '{text}'")
        found = sorted(row[0] for row in rows)
    if len(found) != 1:
        raise RogueHunterError(f"{text!r} is the name of {len(found)} hosts: {', '.join(found[:5])}" if found else
                               f"no host {text!r} has sent anything (see rh-hub query silent --silent 0s)", USAGE)
    return found[0]


def write_history(ask: Ask, host: str, since: float, until: float, file: Path) -> int:
    """Write what a hub has of a host (its identity) about a time, epoch seconds by the clock of the host, into a new
    database; gives the number of rows that it cannot take. It has the minutes: slices of the whole machine are not
    sent. Raises RogueHunterError, sqlite3.Error."""
    db, _ = open_writer(file)
    wrong = 0
    try:
        db.execute("BEGIN")
        last: Record = {}
        timed: tuple[Any, ...] = ()
        for table in _ORDER:
            early = 60.0 if table.name == "process_slices" else BEFORE_S
            for each in _records(ask, table, host, since - early, until):
                if each["type"] == "process_slice" and timed != (each["slice"], each["boot_id"]):
                    timed = each["slice"], each["boot_id"]
                    WRITES["machine_slice"](db, {"slice": timed[0], "boot_id": timed[1], "seconds": each["seconds"],
                                                 "ticks": 0})
                db.execute("SAVEPOINT one")
                try:
                    WRITES[each["type"]](db, each)
                except UNUSABLE:
                    db.execute("ROLLBACK TO one")
                    wrong += 1
                    continue
                finally:
                    db.execute("RELEASE one")
                if each["type"] == "machine_minute":
                    last = each
        db.execute("DELETE FROM process_slices")
        db.execute("DELETE FROM machine_slices")
        if last:
            tick = {"boot_id": last["boot_id"], "host": host, "ts": last["minute"] + 60.0}
            for key, value in (("last_tick", tick), ("hub", True)):
                db.execute(DAEMON_STATE.insert(), {"key": key, "value": wire.dumps(value).decode(),
                                                   "updated_at": tick["ts"]})
        db.execute("COMMIT")
    finally:
        db.close()
    return wrong


def _records(ask: Ask, table: Table, host: str, since: float, until: float) -> Iterator[Record]:
    """The rows of a table as the records that were sent, in order."""
    kinds = {f.name: f.type for f in RECORDS[table.kind]}
    time = table.columns[0].name
    after = -1 << 62
    while True:
        names, rows = ask(f"SELECT * FROM {table.name} WHERE host_id = '{host}' AND row > {after} AND {time} >= {since}"
                          f" AND {time} < {until} ORDER BY row LIMIT {PAGE}")
        for row in rows:
            values: dict[str, Any] = {name: wire.loads(value.encode()) if kinds.get(name) in (list, dict) else value
                                      for name, value in zip(names, row, strict=True) if value is not None}
            after = values["row"]
            yield {"type": table.kind, **values}
        if len(rows) < PAGE:
            return
