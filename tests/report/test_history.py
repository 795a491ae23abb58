"""A simulated month: what was planted is what `why` answers, in time, in little room, without disturbing the writer."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rogue_hunter.report import history, queries
from rogue_hunter.report.queries import Period, Source, source
from rogue_hunter.report.render import Answer, Style
from rogue_hunter.report.views.why import why
from rogue_hunter.store.database import Lock, open_reader, open_writer
from rogue_hunter.store.prune import HISTORY, files_size, prune
from rogue_hunter.store.rows import WRITES
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.tracking.minutes import History
from tests.tools import docs
from tests.tools.history import CASES, CONFIG, CPUS, FIRST, LAST, MONTH, Case, build_month, planted, play, stages
from tests.tools.ticks import row, stream

pytestmark = pytest.mark.slow
LONG = "RH_LONG" in os.environ
DAYS = 100 if LONG else 40

ALWAYS = Period(0, 2 * LAST)
PLAIN = Style(110, False, float(LAST))


@pytest.fixture(scope="session")
def month(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The month, built once."""
    return once("month", lambda place: build_month(place / "rogue-hunter.db")) / "rogue-hunter.db"


@pytest.fixture
def opened(month: Path) -> Iterator[Source]:
    """The month as a view sees it at its end."""
    with source(month, float(LAST), CONFIG) as found:
        yield found


def ask(found: Source, at: float, **more: Any) -> tuple[Record, Answer]:
    """The answer to `why --at`, and its record, which is as declared."""
    answer = why(found, ALWAYS, at, **more)
    (one,) = answer.records
    wire.check("report_why", {k: v for k, v in one.items() if k not in ("type", "v")})
    return one, answer


# -- the answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case.name.replace(" ", "-") for case in CASES])
def test_why_names_what_was_planted(opened: Source, index: int) -> None:
    """The first cause and the command that is named for it; the headline says both; what is ruled out is something
    else, with its numbers."""
    case = CASES[index]
    one, answer = ask(opened, planted(index) + case.at)
    assert (one["verdict"], one.get("cause", ""), one.get("command")) == (case.verdict, case.cause, case.command)
    assert (case.command or "") in one["headline"] and (case.verdict == "use" or case.cause in one["headline"])
    assert [c["points"] for c in one["causes"]] == sorted((c["points"] for c in one["causes"]), reverse=True)
    assert not {c["cause"] for c in one["causes"]} & {c["cause"] for c in one["not_causes"]}
    assert all(any(isinstance(v, (int, float)) for v in c.values()) for c in one["not_causes"])
    if case.verdict == "no_evidence":
        assert one["headline"].startswith("No data: nothing was recorded between") and not one["not_causes"]
    else:
        assert one["causes"][0]["words"] in one["headline"]
    assert max(map(len, answer.text(PLAIN).splitlines())) <= 110


def test_as_a_command_in_time(month: Path, rh: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """Every third of the twenty (RH_LONG: each) as `rh-report why --at`, start of Python included. The goal is 0.3 s on a quiet machine; here
    only a limit that a loaded one keeps."""
    validate = Draft202012Validator(docs.json_schema("report_why")).validate
    took = []
    for index, case in list(enumerate(CASES))[:: 1 if LONG else 3]:
        begun = time.perf_counter()
        done = rh("report", "why", "--at", f"@{planted(index) + case.at:.0f}", "--json", "--db", month)
        took.append(time.perf_counter() - begun)
        assert done.returncode == 0, done.stderr
        one = json.loads(done.stdout)
        validate(one)
        assert (one["verdict"], one.get("cause", ""), one.get("command")) == (case.verdict, case.cause, case.command)
    print(f"rh-report why --at, {len(took)} times: least {min(took):.3f} s, median {median(took):.3f} s, "
          f"most {max(took):.3f} s")
    assert median(took) < 2


def test_what_it_was_not(opened: Source) -> None:
    """Of a CPU hog: not memory, storage, the hypervisor or sleep, each with the number of that very minute."""
    one, answer = ask(opened, planted(0) + 30)
    minute = history.machine(opened.reader, planted(0), planted(0) + 60)[0]
    out = {c["cause"]: c for c in one["not_causes"]}
    assert out.keys() == {"memory", "io", "steal", "asleep", "rogue-hunter", "pause"}
    free = minute["memory_available_bytes"] / minute["memory_total_bytes"]
    assert out["memory"]["words"].startswith(f"{100 * free:.0f} % available, ")
    assert "pressure 0 %" in out["memory"]["words"]
    assert out["memory"]["memory_available_bytes"] == minute["memory_available_bytes"]
    assert out["steal"]["cpu_steal_cores"] == 0.0 and "took 0 of 4 CPUs" in out["steal"]["words"]
    assert "Not the cause:\n     memory        62 % available" in answer.text(PLAIN)


def test_numbers_behind_a_cause(opened: Source) -> None:
    """Cores, share of all that was used, the usual, and who else: the numbers of the minute's row."""
    one, answer = ask(opened, planted(0) + 30)
    first = one["causes"][0]
    assert first["cpus"] == CPUS and first["cpu_busy_cores"] == pytest.approx(3.9, abs=0.2)
    hog, second = first["who"][:2]
    assert hog["amount"] == first["amount"] == pytest.approx(3.6, abs=0.1)
    assert hog["share"] == pytest.approx(3.6 / first["cpu_busy_cores"], abs=0.03)
    assert hog["total"] == pytest.approx(hog["amount"] * hog["used_s"], rel=0.01)
    assert second["command"] == "firefox" and "stress (pid 7) used 3.6 of 4 cores for 10s from " in first["words"]
    assert one["usual_minutes"] > 1000 and f"median of {one['usual_minutes']} other minutes" in answer.text(PLAIN)


def test_as_usual_is_no_evidence(opened: Source) -> None:
    """A quiet minute: nothing was short, with every number as proof; what used most is use, of less than a tenth of the
    machine."""
    one, answer = ask(opened, FIRST + 60 * 250)
    assert (one["verdict"], one["minutes"], {c["kind"] for c in one["causes"]}) == ("use", 1, {"use"})
    assert all(c["amount"] < 0.1 * CPUS for c in one["causes"]) and ": nothing was short and nothing waited." in one["headline"]
    out = {c["cause"] for c in one["not_causes"]}
    assert out >= {"memory", "io", "steal", "rogue-hunter", "pause"} and "Not the cause:\n     memory " in answer.text(PLAIN)


@pytest.mark.parametrize(("at", "words"), [
    (FIRST - 86400, "the history begins at"), (LAST + 86400, "that time has not come yet"),
    (LAST - 1, "nothing was recorded after")])
def test_outside_of_the_history(opened: Source, at: float, words: str) -> None:
    """Before it, and after it."""
    one, _ = ask(opened, at)
    assert (one["verdict"], one["minutes"]) == ("no_evidence", 0)
    assert one["headline"].startswith("No data: ") and words in one["headline"]


def test_a_minute_beside_is_another_time(opened: Source) -> None:
    """N1: what happened a minute before or after is no answer."""
    index = next(i for i, case in enumerate(CASES) if case.name == "steal")
    assert ask(opened, planted(index) + 30)[0]["cause"] == "steal"
    assert ask(opened, planted(index) + 150)[0]["verdict"] == "use"


def test_a_period(opened: Source) -> None:
    """An hour: the bad minute in it is found, and how many there were."""
    period = Period(planted(6) - 1800, planted(6) + 1800)
    one = why(opened, period, None).records[0]
    assert (one["cause"], one["command"]) == ("io", "dd") and one["minutes"] >= 58
    assert "dd (pid 7) moved 16.8 GiB for 1m 00s from " in one["headline"] and "at" not in one
    day = why(opened, Period(planted(6) - 86400, planted(6) + 86400), None).records[0]
    assert (day["cause"], day["command"]) == ("io", "dd")


def test_many_causes_of_a_month(opened: Source) -> None:
    """The whole month at once: every kind of cause that was planted is in the answer."""
    one = why(opened, Period(FIRST, LAST), None).records[0]
    assert {c["cause"] for c in one["causes"]} >= {"cpu", "memory", "io", "steal", "asleep", "stopped", "unknown"}
    assert one["minutes"] > MONTH - 640
    assert len(why(opened, Period(FIRST, LAST), None, limit=2).records[0]["causes"]) == 2


# -- what is not in the month ------------------------------------------------------------------------------------------


def small(path: Path, *minutes: dict[str, Any], commands: tuple[dict[str, Any], ...] = (),
          state: dict[str, Any] | None = None) -> Path:
    """A database with these rows of machine_minutes and command_minutes."""
    connection, _ = open_writer(path)
    for made in minutes:
        usual = {"boot_id": "a", "ticks": 180, "seconds": 60.0, "cpus": 2, "cpu_busy_cores": 0.1}
        WRITES["machine_minute"](connection, record("machine_minute", **{**usual, **made}))
    for made in commands:
        WRITES["command_minute"](connection, record("command_minute", **{"processes": 1, "memory_bytes": 0, **made}))
    for key, value in (state or {}).items():
        connection.execute("INSERT INTO daemon_state VALUES (?, ?, 0)", (key, json.dumps(value)))
    connection.close()
    return path


def of(path: Path, at: float, now: float | None = None) -> Record:
    """The answer of a small database."""
    with source(path, at if now is None else now, CONFIG) as found:
        return ask(found, at)[0]


def test_a_restart_is_no_sleep(tmp_path: Path) -> None:
    """Nothing is known of the time between two boots."""
    path = small(tmp_path / "x.db", {"minute": 60_000}, {"minute": 61_200, "boot_id": "b"})
    assert "the machine was rebooted in between" in of(path, 60_600)["headline"]


def test_nothing_was_recorded_yet(tmp_path: Path) -> None:
    """An empty database."""
    one = of(small(tmp_path / "x.db"), 60_000)
    assert one["verdict"] == "no_evidence" and "nothing was recorded yet" in one["headline"]


def test_without_pressure_the_load_decides(tmp_path: Path) -> None:
    """Where the kernel does not say who waited (macOS): the CPUs in use, memory left, traffic against the usual."""
    quiet = [{"minute": 60_000 + 60 * n, "memory_total_bytes": 16 << 30, "memory_available_bytes": 9 << 30,
              "disk_bytes": 10**6} for n in range(40)]
    path = small(tmp_path / "x.db", *quiet, {"minute": 66_000, "cpu_busy_cores": 1.95},
                 {"minute": 66_600, "memory_total_bytes": 16 << 30, "memory_available_bytes": 1 << 29},
                 {"minute": 67_200, "disk_bytes": 9 * 10**9},
                 commands=({"minute": 66_000, "command": "loop", "cpu_seconds": 115.0, "pid": 5},
                           {"minute": 66_600, "command": "eater", "cpu_seconds": 0.0, "memory_bytes": 12 << 30},
                           {"minute": 67_200, "command": "dd", "cpu_seconds": 1.0, "disk_bytes": 8 * 10**9}))
    assert [(of(path, at, 99_999)["cause"], of(path, at, 99_999)["command"]) for at in (66_030, 66_630, 67_230)] == [
        ("cpu", "loop"), ("memory", "eater"), ("io", "dd")]
    assert "waited" not in of(path, 66_030, 99_999)["causes"][0]["words"]


def test_no_single_culprit(tmp_path: Path) -> None:
    """All CPUs are in use by many, or by no observed process: no command is named, and the answer reports that."""
    many = tuple({"minute": 60_000, "command": f"c{n}", "cpu_seconds": 10.0, "pid": n} for n in range(12))
    path = small(tmp_path / "x.db", {"minute": 60_000, "cpu_busy_cores": 2.0, "pressure_cpu_some_ms_per_s": 600.0},
                 {"minute": 60_600, "cpu_busy_cores": 2.0, "unattributed_cpu_cores": 1.5,
                  "pressure_cpu_some_ms_per_s": 600.0}, commands=many)
    one = of(path, 60_030, 61_000)
    assert one["cause"] == "cpu" and "command" not in one and "no process alone: the highest was c" in one["headline"]
    assert "1.5 cores not attributed to any process" in of(path, 60_630, 61_000)["headline"]


def test_a_minute_that_is_not_over(tmp_path: Path) -> None:
    """Now: based on the last tick and its rogues, and the answer notes that."""
    now = 1_795_000_030.0
    tick = {"ts": now - 1, "boot_id": "a", "cpus": 2, "cpu_busy_cores": 1.99, "interval_s": 0.333, "late_s": 0.01,
            "pressure_cpu_some_ms_per_s": 950.0, "memory_total_bytes": 100, "memory_available_bytes": 60,
            "processes": 9}
    rogue = {"pid": 7, "start_ticks": 1, "command": "loop\x1b[2J", "cpu_percent": 99.0, "score": 76, "band": "high"}
    import os

    path = small(tmp_path / "x.db", state={"last_tick": tick, "rogues": [rogue], "pid": os.getpid(), "hz": 3.0})
    lock = Lock(path)
    try:
        with source(path, now, CONFIG) as found:
            one, answer = ask(found, now)
            text = answer.text(PLAIN)
    finally:
        lock.release()
    assert (one["verdict"], one["cause"], one["command"]) == ("found", "cpu", "loop\x1b[2J")
    assert r"loop\x1b[2J" in one["headline"] and "\x1b" not in text
    assert one["headline"].startswith("In the last 1.3s: cpu: ")


def test_the_usual_is_of_other_minutes(tmp_path: Path) -> None:
    """Fewer than ten other minutes are too few for a usual value: none is printed."""
    path = small(tmp_path / "x.db", *({"minute": 60_000 + 60 * n} for n in range(8)))
    one = of(path, 60_030, 61_000)
    assert one["usual_minutes"] == 0 and "usually" not in json.dumps(one)


@pytest.mark.parametrize("length", [1, 10, 1440, 44_640, 500_000])
def test_the_sample_meets_every_hour_of_the_day(tmp_path: Path, length: int) -> None:
    """The step shares no factor with the minutes of an hour or a day: nothing that runs at a fixed time is missed or
    met each time."""
    path = small(tmp_path / "x.db", {"minute": 60_000}, {"minute": 60_000 + 60 * (length - 1)})
    with closing(open_reader(path)) as reader:
        steps = history.spread(reader, 1500)
    step = steps["step"] // 60
    assert step == 1 or all(step % factor for factor in (2, 3, 5))
    assert length / step <= 2000 and (length < 2000 or length / step >= 1000)


# -- room, and who waits -----------------------------------------------------------------------------------------------


def test_a_month_takes_little_room(month: Path) -> None:
    """Under 120 MB, with as many commands a minute as the stage keeps of a machine of 70 processes."""
    with closing(open_reader(month)) as reader:
        kept = reader.execute("SELECT count(*) FROM machine_minutes").fetchone()[0]
        commands = reader.execute("SELECT count(*) FROM command_minutes").fetchone()[0]
    size = files_size(month)
    print(f"{kept} minutes, {commands} rows of commands, {size / 1e6:.1f} MB, {size / kept:.0f} bytes a minute")
    assert MONTH - 100 < kept <= MONTH and commands / kept > 10
    assert size < 120e6 * MONTH / 44_640


def test_as_many_commands_as_can_be_kept_take_little_room(tmp_path: Path) -> None:
    """The worst case: other commands lead each list of each minute. A day of it, times 31, is under 120 MB still."""
    rnd = random.Random(5)
    connection, _ = open_writer(tmp_path / "x.db")
    connection.execute("BEGIN")
    for n in range(1440):
        rows = [row(pid, command=f"program-{pid}", score=0) for pid in range(100, 130)]
        leads = [("cpu_percent", 9.5), ("memory_bytes", 123456789), ("disk_bytes_per_s", 4321.5),
                 ("wakeups_per_s", 77.7), ("gpu_ms_per_s", 12.5), ("score", 33)]
        for at, (name, value) in enumerate(leads * 5):
            rows[at][name] = type(value)(value * rnd.uniform(1, 2))
            rows[at]["unit"] = f"app-gnome-program-{at}.scope"
        for tick in chain(stream([rows], ts=FIRST + 60.0 * n, interval_s=60.0), History(CONFIG)):
            for made in (each for each in tick.records if each["type"].endswith("_minute")):
                WRITES[made["type"]](connection, made)
    connection.execute("COMMIT")
    each = connection.execute("SELECT count(*) / 1440.0 FROM command_minutes").fetchone()[0]
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    print(f"{each:.1f} commands a minute, {31 * files_size(tmp_path / 'x.db') / 1e6:.0f} MB a month")
    assert each >= 20 and 31 * files_size(tmp_path / "x.db") < 120e6


def written(path: Path, writer: Writer, seconds: int, start: float) -> int:
    """Ticks that went through the stages into the writer; it never had to wait with any."""
    count = 0
    for _ in chain(play(Case("busy", ""), start, random.Random(3), 0, seconds), *stages(writer)):
        assert writer.degraded is None and writer.dropped == 0
        count += 1
    return count


def test_a_reader_in_a_transaction_does_not_stop_the_writer(tmp_path: Path) -> None:
    """For as long as a reader stays (here: 600 ticks, which are ten minutes) all is written; it sees what it saw,
    others see all, and the log shrinks when it has gone."""
    path = tmp_path / "x.db"
    now = 0.0
    writer = Writer(path, CONFIG.store, lambda: now, lambda message: None)
    written(path, writer, 200, FIRST)
    holding = open_reader(path)
    holding.execute("BEGIN")
    before = holding.execute("SELECT count(*) FROM machine_minutes").fetchone()[0]
    assert before >= 3
    now = 1e6
    written(path, writer, 600, FIRST + 600)
    assert holding.execute("SELECT count(*) FROM machine_minutes").fetchone()[0] == before
    with closing(open_reader(path)) as other:
        assert other.execute("SELECT count(*) FROM machine_minutes").fetchone()[0] >= before + 9
    log = path.with_name(path.name + "-wal").stat().st_size
    holding.close()
    writer.close()
    assert files_size(path) < path.stat().st_size + log
    assert writer.degraded is None and writer.dropped == 0


def test_queries_under_load_do_not_keep_the_writer_waiting(month: Path, tmp_path: Path) -> None:
    """Two readers ask for the dearest things all the time; not one transaction of the writer fails or waits."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(month)) as old, closing(sqlite3.connect(path)) as new:
        old.backup(new)
    stop = threading.Event()
    asked: list[str] = []
    wrong: list[BaseException] = []

    def reader(n: int) -> None:
        try:
            while not stop.is_set():
                with source(path, float(LAST), CONFIG) as found:
                    if n:
                        why(found, Period(LAST - 40 * 86400, LAST), None)
                    else:
                        history.offenders(found.reader, ALWAYS, found.watched, "command")
                        history.minutes(found.reader, Period(LAST - 86400, LAST))
                        sums = "SELECT command, sum(cpu_seconds) FROM command_minutes GROUP BY 1"
                        found.reader.execute(sums).fetchall()
                asked.append("x")
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=reader, args=(n,)) for n in range(2)]
    writer = Writer(path, CONFIG.store, lambda: 1e9, lambda message: None)
    for thread in threads:
        thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)     # else each page of a reader waits 5 ms for the interpreter, and not for the writer
    try:
        ticks = 0
        deadline = time.monotonic() + 60
        while not wrong and time.monotonic() < deadline and (ticks < 300 or len(asked) < 6):
            ticks += written(path, writer, 300, LAST + 300 + ticks)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join(60)
        writer.close()
    assert not wrong and len(asked) >= 6
    assert (writer.degraded, writer.dropped) == (None, 0)


# -- one answer for all views -------------------------------------------------------------------------------------------


def test_the_views_of_the_database_say_the_same(opened: Source) -> None:
    """v_pauses, v_offenders, v_timeline and v_minutes against the records of rh-report, over the whole month."""
    reader = opened.reader

    def view(name: str) -> list[dict[str, Any]]:
        return [dict(row) for row in reader.execute(f"SELECT * FROM {name}")]

    pauses = history.pauses(reader, ALWAYS)
    assert [(p["id"], p["cause"], p["duration_s"], p["culprit"]) for p in view("v_pauses")] == [
        (p["id"], p["cause"], round(p["duration_s"], 1), (p["culprits"] or [{}])[0].get("command")) for p in pauses]
    assert len(pauses) == 6
    keys = ("command", "pause_minutes", "pauses", "events", "rogue_minutes", "peak_score")
    assert [tuple(o[k] for k in keys) for o in view("v_offenders")] == [
        tuple(o.get(k) for k in keys) for o in history.offenders(reader, ALWAYS, opened.watched, "command")]
    line = [(t["ts"], t["what"], t["command"], t["id"]) for t in view("v_timeline")]
    assert line == [(t["ts"], t["what"], t.get("command"), t.get("id")) for t in history.timeline(reader, ALWAYS)]
    last = history.minutes(reader, Period(LAST - 86400, LAST))
    shown = {m["minute"]: m for m in view("v_minutes")}
    for minute in last:
        assert shown[minute["minute"]]["busy_percent"] == pytest.approx(100 * minute["cpu_busy_cores"] / CPUS, abs=0.06)
        assert shown[minute["minute"]]["top_command"] == minute["commands"][0]["command"]


def test_pause_minutes_add_up(opened: Source) -> None:
    """What all commands caused and what is unattributed add up to the length of all pauses with culprits."""
    owed = sum(o["pause_minutes"] for o in history.offenders(opened.reader, ALWAYS, opened.watched, "command"))
    pauses = [p for p in history.pauses(opened.reader, ALWAYS) if p["culprits"]]
    shares = sum(p["duration_s"] * sum(c["share"] for c in p["culprits"]) for p in pauses)
    assert 60 * owed == pytest.approx(shares, abs=0.5)
    assert 60 * owed <= sum(p["duration_s"] for p in pauses) + 0.5


def test_by_unit_adds_up_to_by_command(opened: Source) -> None:
    """The same minutes, pauses counted once a unit; the thirty compilers of one make are one unit."""
    by = {by: history.offenders(opened.reader, ALWAYS, opened.watched, by) for by in ("command", "unit")}
    total = {name: sum(o["pause_minutes"] for o in found) for name, found in by.items()}
    assert total["unit"] == pytest.approx(total["command"], abs=0.01)
    assert sum(o["events"] for o in by["unit"]) == sum(o["events"] for o in by["command"])
    tops = {by: queries.top(opened.reader, ALWAYS, opened.watched, 0, by) for by in ("command", "unit")}
    assert {t["unit"] for t in tops["unit"]} >= {"stress[7]", "dd[7]"} and not any("command" in t for t in tops["unit"])
    assert sum(t["duration_s"] for t in tops["unit"]) == pytest.approx(sum(t["duration_s"] for t in tops["command"]))


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_months_of_everything_stay_below_the_limit(tmp_path: Path) -> None:
    """Minutes, commands, pauses and events of forty days (RH_LONG: a hundred), pruned daily: the file is below its limit after each
    day, the newest day is whole, and no open event is touched."""
    path, limit = tmp_path / "x.db", 3_000_000
    rnd = random.Random(11)
    opened_events: list[str] = []
    for day in range(DAYS):
        end = FIRST + 86400.0 * (day + 1)
        connection, _ = open_writer(path, check=False)
        connection.execute("BEGIN")
        for n in range(144):
            minute = int(end - 86400 + 600 * n) // 60 * 60
            WRITES["machine_minute"](connection, record(
                "machine_minute", minute=minute, boot_id="b", ticks=180, seconds=60.0, cpus=4, late_s=0.01,
                cpu_busy_cores=rnd.random(), memory_available_bytes=rnd.randrange(1 << 34),
                disk_bytes=rnd.randrange(10**9)))
            for c in range(13):
                WRITES["command_minute"](connection, record(
                    "command_minute", minute=minute, command=f"command-{c}", processes=2, pid=rnd.randrange(30_000),
                    cpu_seconds=round(rnd.random(), 3), memory_bytes=rnd.randrange(10**9),
                    disk_bytes=rnd.randrange(10**6), wakeups=rnd.randrange(9999), run_delay_s=0.1, max_score=rnd.randrange(60), rogue_s=0.0))
        for n in range(3):
            start = end - 86400 * rnd.random()
            WRITES["pause"](connection, record(
                "pause", ts=start + 2, pause=f"p{day}-{n}", boot_id="b", start=start, end=start + 2, duration_s=2.0,
                cause="cpu", unexplained_share=0.1, evidence={"late_s": 2.0},
                culprits=[{"pid": n, "start_ticks": 1, "command": "hog", "resource": "cpu", "amount": 1.0,
                           "share": 0.5}]))
            event = {"event": f"e{day}-{n}", "boot_id": "b", "pid": 100 * day + n + 1, "start_ticks": day + 1,
                     "command": "hog", "entered": start, "peak_score": 70, "peak_band": "high", "score": 70,
                     "band": "high"}
            WRITES["event"](connection, record("event", ts=start, kind="enter", duration_s=0.0, **event))
            if n == 0 and day % 10 == 0:
                opened_events.append(event["event"])
            else:
                WRITES["event"](connection, record("event", ts=start + 5, kind="exit", duration_s=5.0, reason="exited",
                                                   **event))
        connection.execute("COMMIT")
        list(prune(connection, end - 30 * 86400, limit))
        connection.close()
        assert files_size(path) <= limit, day
        with closing(open_reader(path)) as reader:
            live = {row[0] for row in reader.execute("SELECT event FROM process_events WHERE exit_time IS NULL")}
            assert live == set(opened_events)
            day_ago = "SELECT count(*) FROM machine_minutes WHERE minute >= ?"
            assert reader.execute(day_ago, (end - 86400,)).fetchone()[0] >= 143
            # Of every history, what is left begins at about the same time.
            alone = "SELECT count(*) FROM pause_culprits WHERE pause_id NOT IN (SELECT id FROM pauses)"
            assert reader.execute(alone).fetchone()[0] == 0
    assert len(opened_events) == DAYS // 10
    with closing(open_reader(path)) as reader:
        oldest = [reader.execute(f"SELECT min({h.ended}) FROM {h.table}").fetchone()[0] for h in HISTORY
                  if h.table in ("pauses", "machine_minutes", "command_minutes")]
        assert reader.execute("PRAGMA quick_check").fetchone()[0] == "ok"
    assert max(oldest) - min(oldest) < 2 * 86400
