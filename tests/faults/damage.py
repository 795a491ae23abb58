"""The database under fire: kill -9, flipped bytes, cut files, a file system that cannot be written."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rogue_hunter.stream import wire
from tests.tools import ticks as ticktools

from .statements import BEATS, Faults, contents, run
from .table import REPO, SEED, Bench, Skip, case, clean


@case("kill -9", "0 acknowledged commits lost, integrity_check ok each time, events open once and closed once")
def kill(bench: Bench) -> str:
    rng = random.Random(SEED)
    machine = ticktools.Machine(SEED, processes=60, cpus=2)
    encode = wire.Encoder().tick
    database = bench.tmp / "x.db"
    acknowledged: list[tuple[str, str, float]] = []
    rounds = 200 if bench.long else 5
    ticks = 0
    for number in range(rounds + 1):
        child = bench.start([sys.executable, "-P", "-m", "tests.faults.committer", database], cwd=REPO,
                            env={**bench.env, "PYTHONPATH": f"{REPO}:{REPO / 'tests'}"},
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdin is not None and child.stdout is not None
        said: list[bytes] = []
        reader = threading.Thread(target=lambda out=child.stdout, said=said: said.extend(out))
        reader.start()
        last = number == rounds
        end = None
        with suppress(BrokenPipeError):
            while not last or ticks % 50 or end is None:
                child.stdin.write(encode(machine.tick()))
                ticks += 1
                if said and end is None:
                    end = time.monotonic() + rng.uniform(0.0, 0.3)
                if not last and end is not None and time.monotonic() > end:
                    break
        if last:
            with suppress(BrokenPipeError):
                child.stdin.close()
            child.stdin = None
            child.wait(60)
        else:
            child.kill()
            child.wait(30)
        reader.join(30)
        assert child.stderr is not None
        clean(child.stderr.read(), lines=0)
        # The kill may have cut the last line; what is not a whole line was not acknowledged.
        for line in said:
            if line.endswith(b"\n"):
                acknowledged += [(event, kind, ts) for event, kind, ts in json.loads(line)]
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), number
            twice = connection.execute(
                "SELECT count(*) FROM (SELECT boot_id, pid, start_ticks FROM process_events WHERE exit_time IS NULL"
                " GROUP BY 1, 2, 3 HAVING count(*) > 1)").fetchone()
            assert twice == (0,), number
    with closing(sqlite3.connect(database)) as connection:
        there = set(connection.execute("SELECT e.event, snapshot_type, captured_at FROM process_snapshots s"
                                       " JOIN process_events e ON e.id = s.event_id"))
        # Of the peaks of an event only the last is kept.
        peaks: dict[str, float] = {}
        for event, kind, ts in there:
            if kind == "peak":
                peaks[event] = max(ts, peaks.get(event, 0.0))
        lost = [a for a in acknowledged if a not in there and not (a[1] == "peak" and a[2] <= peaks.get(a[0], -1.0))]
        assert not lost, lost[:5]
        exits = connection.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM process_snapshots"
                                   " WHERE snapshot_type = 'exit' GROUP BY event_id)").fetchone()[0]
        opened = connection.execute("SELECT count(*) FROM process_events WHERE exit_time IS NULL").fetchone()[0]
        crashed = connection.execute("SELECT count(*) FROM process_events WHERE reason = 'crashed'").fetchone()[0]
        events = connection.execute("SELECT count(*) FROM process_events").fetchone()[0]
    assert (exits, opened) == (1, 0)
    assert len(acknowledged) > 5 * rounds
    return (f"{rounds} kills, {ticks} ticks, {len(acknowledged)} acknowledged commits of event records, 0 lost; "
            f"{events} events, each closed once, {crashed} of them as crashed")


def _report(bench: Bench, database: Path, *args: str) -> None:
    done = bench.rh("report", "--db", database, *args)
    clean(done.stderr)
    assert done.returncode in (0, 69, 74, 78), (done.returncode, done.stderr)


@case("one byte flipped", "read as it is, or moved aside and a new one begun; every tick taken; never a traceback")
def flips(bench: Bench) -> str:
    rng = random.Random(SEED)
    template = bench.tmp / "template.db"
    run(template, Faults())
    with closing(sqlite3.connect(template)) as connection:
        connection.execute("UPDATE process_events SET exit_time = NULL, reason = NULL WHERE id IN (1, 3)")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = template.read_bytes()
    moved = refused = unharmed = 0
    beats = BEATS if bench.long else 30     # some seconds: it is opened, taken up, written to and closed
    used = [i for i, byte in enumerate(data) if byte]
    for number in range(300 if bench.long else 40):
        place = bench.tmp / "run"
        place.mkdir()
        damaged = bytearray(data)
        # Half of them in bytes that hold something, and those in the header first: most of a young file is empty.
        at = number if number < 25 else rng.choice(used) if number % 2 else rng.randrange(len(data))
        damaged[at] ^= 1 << rng.randrange(8)
        (place / "x.db").write_bytes(damaged)
        try:
            if number % (1 if bench.long else 20) == 7 % (1 if bench.long else 20):
                _report(bench, place / "x.db", "--since", "3000d")
            outcome = run(place / "x.db", Faults(), beats)
        except Exception as error:
            raise AssertionError(f"byte {at} of {len(data)}: {damaged[at]:#x}") from error
        aside = list(place.glob("x.db.corrupt-*[0-9]"))
        if outcome.refused:
            refused += 1
            assert "\n" not in outcome.refused and (place / "x.db").read_bytes() == damaged, (at, outcome)
        else:
            assert outcome.ticks == beats - 1, f"byte {at}: {outcome}"
            assert len(outcome.said) < 8 and not any("\n" in line for line in outcome.said), (at, outcome.said)
            if aside:
                moved += 1
                assert any("corrupt" in line for line in outcome.said), f"byte {at}"
                contents(place / "x.db")
            else:
                unharmed += 1
        shutil.rmtree(place)
    return (f"{number + 1} flips: {unharmed} harmless or in a value, {moved} moved aside, {refused} refused untouched "
            f"(another program's, or newer)")


@case("a file cut short", "the same, for the file and its -wal cut at 30 places")
def truncated(bench: Bench) -> str:
    rng = random.Random(SEED)
    template = bench.tmp / "template.db"
    run(template, Faults())
    with closing(sqlite3.connect(template, isolation_level=None)) as connection:
        # As kill -9 leaves it: copied while the -wal is in use.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("UPDATE process_events SET exit_time = NULL, reason = NULL WHERE id IN (1, 3)")
        connection.execute("DELETE FROM command_minutes")
        data, wal = template.read_bytes(), Path(f"{template}-wal").read_bytes()
    assert len(wal) > 4096
    moved = refused = 0
    cuts = 30 if bench.long else 15
    for number in range(cuts):
        place = bench.tmp / "run"
        place.mkdir()
        cut, cut_wal = rng.randrange(len(data)), rng.randrange(len(wal))
        (place / "x.db").write_bytes(data[:cut] if number % 3 else data)
        if number % 3 != 1:
            (place / "x.db-wal").write_bytes(wal[:cut_wal])
        try:
            outcome = run(place / "x.db", Faults(), 30)
        except Exception as error:
            raise AssertionError(f"cut at {cut}, -wal at {cut_wal}, number {number}") from error
        assert outcome.refused or outcome.ticks == 29
        refused += bool(outcome.refused)
        moved += bool(list(place.glob("x.db.corrupt-*[0-9]")))
        if not outcome.refused:
            contents(place / "x.db")
        shutil.rmtree(place)
    assert moved
    return f"{cuts} cuts: {moved} moved aside, {refused} refused, the others whole; integrity_check ok after each"


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """A small file system of its own. Raises Skip where that may not be."""
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", place], capture_output=True, check=False).returncode:
        raise Skip("may not mount here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False)


@case("a read-only mount", "rh-pipe refuses in one line, exit 74; readers read, or say why not in one line")
def read_only(bench: Bench) -> str:
    with mounted(bench.tmp / "mount") as place:
        database = place / "x.db"
        run(database, Faults())
        before = database.read_bytes()
        assert subprocess.run(["mount", "-o", "remount,ro", place], check=False).returncode == 0
        done = bench.rh("pipe", "--quiet", "--for", "5s", "--db", database)
        assert done.returncode == 74, done
        clean(done.stderr, lines=1)
        read = bench.rh("report", "--db", database, "--since", "3000d", "--json")
        clean(read.stderr)
        pruned = bench.rh("prune", "--db", database, "--older-than", "1d")
        clean(pruned.stderr, lines=1)
        assert pruned.returncode == 74, pruned
        assert database.read_bytes() == before
    return f"rh-pipe 74, rh-report {read.returncode}, rh-prune {pruned.returncode}: {read.stderr.decode().strip()[:90]}"
