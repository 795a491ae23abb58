"""Databases to report on: made by the same stages that rh-pipe runs, from ticks made by hand."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.schema.field import BANDS
from rogue_hunter.store.database import DatabaseError, Lock, open_reader
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Row, Tick
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.minutes import History
from tests.tools.ticks import START, at_once, row, stream

CONFIG = Config()
HZ = 3


def hog(pid: int, score: int, **fields: Any) -> Row:
    """The scored row of a process that uses a core."""
    band = CONFIG.bands.of(score) if score else BANDS[0]
    usual: dict[str, Any] = {
        "state": "running", "user": "ada", "cmdline": f"/usr/bin/p{pid} --work", "cpu_percent": 98.4, "model": "share",
        "score": score, "band": band, "dominant_resource": "cpu", "cpu_share": 0.82, "memory_share": 0.01,
        "disproportionality": float(2 ** (score / 10)),
    }
    return row(pid, **{**usual, **fields})


def seconds(start: float, end: float, made: Row) -> tuple[float, float, Row]:
    """The row `made` from `start` to `end`, seconds after the first tick; its CPU time grows by its cpu_percent."""
    return start, end, made


def ticks_of(length: float, *lives: tuple[float, float, Row]) -> list[list[Row]]:
    """Ticks of `length` seconds at 3 Hz in which every row lives for its time, beside an idle process."""
    made = []
    for n in range(int(length * HZ) + 1):
        now = n / HZ
        rows = [row(2, command="idle", score=0, band="low", model="share")]
        for start, end, life in lives:
            if start <= now < end:
                used = life.get("cpu_percent", 0.0) / 100 * (now - start)
                rows.append({**life, "cpu_seconds_total": round(1 + used, 3)})
        made.append(rows)
    return made


def scored(ticks: Iterable[Tick]) -> Iterable[Tick]:
    """What a score stage would say of rows that carry their scores already."""
    for tick in ticks:
        tick.scored = {key for key, made in tick.processes.items() if made.get("score")}
        if tick.row is not None:
            tick.row["max_score"] = max((tick.processes[key]["score"] for key in tick.scored), default=0)
        yield tick


def record_run(path: Path, ticks: Sequence[Sequence[Row]], *, crash: bool = False, config: Config = CONFIG,
               **facts: Any) -> float:
    """Write the ticks to the database as rh-pipe would; gives the time of the last one.

    With `crash` the events stay open, as after kill -9.
    """
    lock = Lock(path)
    last = START + (len(ticks) - 1) / HZ
    writer = Writer(path, config.store, lambda: last, lambda message: None)
    told = {"pid": 4242, "started_at": START, "hz": 3.0, "model": "share", "stopped_at": None, **facts}
    stored = Store(writer)
    writer.tells(lambda: {**told, **stored.state()})
    stages = chain(scored(stream(ticks)), Track(at_once(config), restored=writer.open_events()),
                   History(config), stored)
    for n, _ in enumerate(stages, 1):
        if crash and n == len(ticks):
            break
    if not crash:
        writer.finish({"stopped_at": last})
    writer.flush()
    writer.close()
    lock.release()
    return last


def connect(path: Path) -> sqlite3.Connection:
    """The database, for a look that no reader of the package gives."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    return connection


def wait_for(db: Path, sql: str, made: Callable[[sqlite3.Row], Any] = tuple, seconds: float = 40) -> list[Any]:
    """Ask a database that rh-pipe writes until it answers with rows, each passed through `made`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(DatabaseError, sqlite3.Error), closing(open_reader(db)) as connection:
            if found := [made(row) for row in connection.execute(sql)]:
                return found
        time.sleep(0.05)
    raise AssertionError(f"no answer to {sql}")
