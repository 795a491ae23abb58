"""rh-report as it is called: what it prints in each form, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.cli.report import command
from rogue_hunter.report.queries import Period, source
from rogue_hunter.report.render import Style, render
from rogue_hunter.report.views.summary import print_summary, summary
from rogue_hunter.schema import RECORDS
from rogue_hunter.store.database import Lock
from rogue_hunter.stream import wire
from rogue_hunter.text.format import columns, visible
from tests.tools.reports import CONFIG, connect, hog, record_run, seconds, ticks_of
from tests.tools.ticks import START, row

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
REPO = Path(__file__).resolve().parent.parent.parent
SINCE = f"@{START:.0f}"
UNTIL = f"@{START + 61:.0f}"
HOSTILE = "evil\x1b[2J\u202e\n=1+1"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute with a compiler, a loop that runs on, and a process with a hostile name."""
    path = tmp_path_factory.mktemp("report") / "x.db"
    record_run(path, ticks_of(
        60, seconds(5, 25, hog(100, 85, command="cc1", cmdline="/usr/lib/cc1 -O2 big.c")),
        seconds(30, 99, hog(200, 66, command="sh", cmdline="sh -c while :; do :; done", cpu_share=0.97)),
        seconds(40, 55, hog(300, 62, command=HOSTILE, cmdline=HOSTILE, user="=cmd"))))
    return path


@pytest.fixture
def call(in_process: Callable[..., Run]) -> Run:
    """rh-report in this process."""
    return in_process(command)


@pytest.fixture
def report(call: Run, database: Path) -> Run:
    """The same, on the database."""
    return partial(call, "--db", database)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Standard output of a run that went well."""
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


PERIOD = ("--since", SINCE, "--until", UNTIL)


# -- the summary -------------------------------------------------------------------------------------------------------


def test_the_first_line_names_who_hogs_it(report: Run) -> None:
    """Who, how much, for how long, from when, whether others waited, command line: in the first line."""
    first, *rest = said(report("--table", *PERIOD)).splitlines()
    assert first == ("sh (pid 200) used 0.98 of 8 cores for 30s from 2023-11-14 22:13:50 (46 % of what was used); nothing "
                     "waited for it; user ada; sh -c while :; do :; done.")
    assert rest[0].startswith("Also used: cpu: cc1 (pid 100) used 0.98 of 8 cores for 20s from 2023-11-14 22:13:25 ")
    assert "3 events of 3 processes from 2023-11-14 22:13:20 to 2023-11-14 22:14:21, 0 open." in rest


def test_the_summary_is_one_object(report: Run) -> None:
    """In JSON and as the one line of NDJSON; the worst come first, as in the table."""
    one = json.loads(said(report("--json", *PERIOD)))
    (line,) = said(report("--ndjson", *PERIOD)).splitlines()
    assert [w["pid"] for w in one["worst"]] == [w["pid"] for w in json.loads(line)["worst"]] == [200, 100, 300]
    assert one["type"] == "report_summary"
    assert one["headline"].startswith("sh (pid 200) used 0.98 of 8 cores for 30s")
    assert (one["verdict"], one["cause"], one["kind"], one["pid"]) == ("found", "cpu", "use", 200)
    assert [c["pid"] for c in one["causes"]] == [200, 100, 300]
    assert (one["events"], one["rogue_processes"], one["watch"]) == (3, 3, "stopped")


def test_a_closed_event_is_in_the_past_tense(report: Run) -> None:
    """And the causes are those of the period."""
    first = said(report("--table", "--since", SINCE, "--until", f"@{START + 28:.0f}")).splitlines()[0]
    assert first == ("cc1 (pid 100) used 0.98 of 8 cores for 20s from 2023-11-14 22:13:25 (100 % of what was used); "
                     "nothing waited for it; user ada; /usr/lib/cc1 -O2 big.c.")


def test_an_event_open_at_an_old_end_of_history_is_past(report: Run) -> None:
    """A period of years: the same numbers, and nothing in the present tense."""
    text = said(report("--table", "--since", SINCE))
    assert "sh (pid 200) used 0.98 of 8 cores for 30s from 2023-11-14 22:13:50" in text.splitlines()[0]
    assert " uses " not in text and " now " not in text


def test_print_summary_ends_a_run(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same first line; nothing about rh-pipe, which has just ended."""
    monkeypatch.setenv("COLUMNS", "90")
    out = io.BytesIO()
    print_summary(database, START, START + 60.2, CONFIG, out)
    lines = out.getvalue().decode().splitlines()
    assert lines[0].startswith("sh (pid 200) used 0.98 of 8 cores for 30s from 22:13:50 ")
    assert "rh-pipe" not in out.getvalue().decode()
    head = next(n for n, line in enumerate(lines) if line.startswith("PEAK"))
    assert [line.split()[-1] for line in lines[head + 1:head + 3]] == ["done", "big.c"]
    assert max(map(len, lines[head:])) <= 90


@pytest.mark.parametrize(("lives", "first"), [
    ((seconds(3, 9, hog(7, 28, command="tar", cpu_share=0.05)),),
     r"Nothing was short from .* to .*, and nothing waited\. Used most: tar \(pid 7\) used 0\.\d\d of 8 cores for \d\.\ds "
     r"from .*22:13:2[234] \(.*\); user ada; /usr/bin/p7 --work\."),
    ((seconds(3, 9, hog(7, 28, command="tar", cpu_share=0.05, cpu_percent=5.0)),),
     r"Nothing was short from .* to .*, and no process reached the tracking band\. The highest was tar \(pid 7\): "
     r"score 28 low, cpu share 5 % \(5 % of a core\), at .*22:13:23; tar: /usr/bin/p7 --work"),
    ((), r"Nothing was short from [-0-9: ]* to [-0-9: ]*, and no process reached the tracking band\."),
])
def test_a_quiet_machine(call: Run, tmp_path: Path, lives: Any, first: str) -> None:
    """Nothing reached the band: reported, with what came nearest; exit 0 and an object all the same."""
    record_run(tmp_path / "x.db", ticks_of(12, *lives))
    args = ("--since", SINCE, "--until", f"@{START + 13:.0f}", "--db", tmp_path / "x.db")
    assert re.fullmatch(first, said(call("--table", *args)).splitlines()[0])
    one = json.loads(said(call("--json", *args)))
    assert (one["events"], one["worst"]) == (0, [])
    assert one.get("highest", {}).get("pid") == (7 if lives else None)


def test_a_period_without_a_watch_is_not_called_quiet(report: Run) -> None:
    """Nothing was recorded: that is no statement about the machine."""
    first = said(report("--table", "--since", "1h")).splitlines()[0]
    assert re.fullmatch(r"Nothing was recorded in the last 1 h: the last tick was \d+d \d\dh ago\.", first)
    last = said(report("events", "--table", "--since", "1h"))
    assert re.fullmatch(r"Nothing was recorded since .*\. The last one before that began 2023-11-14 22:14:00\.\n", last)


def test_a_database_without_a_tick(call: Run, tmp_path: Path) -> None:
    """Made, and nothing written yet."""
    record_run(tmp_path / "x.db", ticks_of(5))
    connection = connect(tmp_path / "x.db")
    connection.execute("DELETE FROM daemon_state")
    connection.commit()
    connection.close()
    for view in ("summary", "events", "top"):
        assert said(call(view, "--table", "--db", tmp_path / "x.db")).startswith("Nothing was recorded yet.\n")
    assert said(call("status", "--table", "--db", tmp_path / "x.db")).startswith("state ")


@pytest.mark.parametrize(("fields", "words"), [
    ({"dominant_resource": "memory", "memory_share": 0.4, "memory_bytes": 6 << 30}, "memory share 40 % (6.0 GiB)"),
    ({"dominant_resource": "disk", "disk_share": 0.9, "disk_bytes_per_s": 3e8}, "disk share 90 % (286 MiB/s)"),
    ({"dominant_resource": "gpu", "gpu_share": 0.004}, "gpu share <1 %"),
    ({"dominant_resource": "wakeups", "wakeups_share": 0.5, "wakeups_per_s": 9000.0}, "wakeups share 50 % (9000/s)"),
    ({"dominant_resource": None, "model": "stress", "dominant_category": "blocking",
      "dominant_metrics": ["pageins_per_s:412", "faults_per_s:9000"]}, "pageins_per_s:412, faults_per_s:9000"),
    ({"dominant_resource": None}, ""),
    ({"cpu_share": None}, "98 % of a core"),
    ({"cpu_share": None, "cpu_percent": None}, ""),
])
def test_an_event_in_words(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    """What is unknown is left out. History from which only events are left is answered from those."""
    record_run(tmp_path / "x.db", ticks_of(15, seconds(0, 99, hog(7, 70, **fields))))
    connection = connect(tmp_path / "x.db")
    for table in ("machine_slices", "process_slices", "group_slices", "machine_minutes", "command_minutes"):
        connection.execute(f"DELETE FROM {table}")
    connection.commit()
    connection.close()
    with source(tmp_path / "x.db", START + 15, CONFIG) as found:
        (one,) = summary(found, Period(START, START + 15), 5).records
    told = ", ".join(part for part in ("score 70 high", words, "for 15s") if part)
    assert one["headline"] == (f"p7 (pid 7) reached the tracking band in the last 15s: {told}; /usr/bin/p7 --work; there "
                               "are no slices of that time to judge it by.")
    assert one["verdict"] == "no_evidence"


# -- the other views ---------------------------------------------------------------------------------------------------


def test_events_table(report: Run) -> None:
    """The newest first, one a line, what is too long cut at the width of the terminal."""
    head, *lines = said(report("events", "--table", *PERIOD, COLUMNS="110")).splitlines()
    assert head.split() == ["ID", "ENTERED", "FOR", "END", "PEAK", "BAND", "CAUSE", "SHARE", "PID", "USER", "COMMAND"]
    assert [line.split()[0] for line in lines] == ["3", "2", "1"]
    assert re.search(r"20s\s+exited\s+85\s+critical\s+cpu\s+82 %\s+100\s+ada\s+/usr/lib/cc1 -O2 big.c$", lines[2])
    assert max(map(len, [head, *lines])) <= 110
    narrow = said(report("events", "--table", *PERIOD, COLUMNS="40")).splitlines()
    assert all(line.endswith("…") for line in narrow[1:]) and max(map(len, narrow)) < 110


@pytest.mark.parametrize("view", ["events", "top", "summary", "event"])
def test_a_hostile_name_never_reaches_a_terminal(report: Run, view: str) -> None:
    """Escapes, line feeds and marks that turn the order of text are made visible."""
    args = ("event", "3") if view == "event" else (view, *PERIOD)
    text = said(report(*args, "--table"))
    assert r"evil\x1b[2J\u202e\n=1+1" in text
    assert not set(text) & {"\x1b", "\u202e"}
    if view != "event":
        headline = json.loads(said(report("--json", *PERIOD, "--command", "evil")))["headline"]
        assert not set(headline) & {"\x1b", "\u202e", "\n"}


def test_one_event(report: Run) -> None:
    """Its story, its snapshots, and low, peak and high of each metric."""
    text = said(report("event", "1", "--table"))
    assert "cc1 (pid 100) of ada: /usr/lib/cc1 -O2 big.c\n" in text
    assert "with score 85 critical, ended 2023-11-14 22:13:45, exited, lasted 20s\n" in text
    assert re.search(r"^2023-11-14 22:13:25 +enter +85 +critical +cpu +98.4 % ", text, re.MULTILINE)
    assert re.search(r"^cpu_percent +98.4 % +98.4 % +98.4 %$", text, re.MULTILINE)
    assert re.search(r"^always 0: .*wakeups_per_s", text, re.MULTILINE)
    whole = json.loads(said(report("event", "1", "--json")))
    by_key = json.loads(said(report("event", whole["event"], "--json")))
    assert whole == by_key and whole["snapshots"][0]["type"] == "report_snapshot"
    lines = [json.loads(line) for line in said(report("event", "1")).splitlines()]
    assert [line["type"] for line in lines] == ["report_event", "report_snapshot", "report_snapshot"]
    assert lines[0] == {key: value for key, value in whole.items() if key != "snapshots"}
    assert lines[1:] == whole["snapshots"]
    table = list(csv.DictReader(io.StringIO(said(report("event", "1", "--csv")))))
    assert [line["snapshot_type"] for line in table] == ["enter", "exit"]


def test_top(report: Run) -> None:
    """By time, with events, processes, peak, cause and CPU time."""
    head, *lines = said(report("top", "--table", *PERIOD)).splitlines()
    assert head.split() == ["TIME", "EVENTS", "PROCESSES", "PEAK", "BAND", "CAUSE", "CPU-TIME", "LAST", "COMMAND"]
    assert [re.split(" {2,}", line.strip())[:6] for line in lines] == [
        ["30s", "1", "1", "66", "high", "cpu"], ["20s", "1", "1", "85", "critical", "cpu"],
        ["15s", "1", "1", "62", "high", "cpu"]]
    assert "20s" in lines[1] and re.search(r"  (19|20)s  ", lines[1])


@pytest.mark.parametrize("view", ["events", "top"])
def test_lists_in_all_forms_say_the_same(report: Run, view: str) -> None:
    """One array, one object a line, one row a line with a header of fixed names."""
    listed = json.loads(said(report(view, "--json", *PERIOD)))
    assert len(listed) == 3
    assert [json.loads(line) for line in said(report(view, "--ndjson", *PERIOD)).splitlines()] == listed
    assert said(report(view, *PERIOD)) == said(report(view, "--ndjson", *PERIOD))
    kind = listed[0]["type"]
    rows = list(csv.DictReader(io.StringIO(said(report(view, "--csv", *PERIOD)), newline="")))
    assert list(rows[0]) == [f.name for f in RECORDS[kind] if f.name not in ("snapshots", "ranges")]
    assert [row["command"] for row in rows] == [visible(e["command"]) for e in listed]
    assert [float(row["duration_s"]) for row in rows] == [e["duration_s"] for e in listed]


def test_csv_holds_no_formula(report: Run) -> None:
    """A cell that a spreadsheet would compute begins with an apostrophe; numbers stay numbers."""
    rows = list(csv.DictReader(io.StringIO(said(report("events", "--csv", *PERIOD)), newline="")))
    assert rows[0]["user"] == "'=cmd"
    assert (rows[0]["command"], rows[0]["peak_score"], rows[0]["open"]) == (visible(HOSTILE), "62", "false")


@pytest.mark.parametrize(("view", "json_", "ndjson", "rows"), [("events", "[]\n", "", 1), ("top", "[]\n", "", 1)])
def test_nothing_found_is_no_error(report: Run, view: str, json_: str, ndjson: str, rows: int) -> None:
    """A sentence for people; an empty list, no line, and a header alone for programs."""
    args = (view, *PERIOD, "--command", "no such thing")
    assert said(report(*args, "--json")) == json_
    assert said(report(*args, "--ndjson")) == ndjson
    assert len(said(report(*args, "--csv")).splitlines()) == rows
    assert said(report(*args, "--table")) == "No event of a command like 'no such thing' since 2023-11-14 22:13:20.\n"


def test_limit(report: Run) -> None:
    """Tables say what they left out; programs get all unless they ask for less."""
    text = said(report("events", "--table", "-n", "1", *PERIOD))
    assert text.splitlines()[-1] == "... and 2 more: -n 0 shows all"
    assert len(said(report("events", "-n", "2", *PERIOD)).splitlines()) == 2
    assert len(said(report("top", "-n", "1", *PERIOD)).splitlines()) == 1
    assert "... and 1 more" in said(report("--table", "-n", "2", *PERIOD))
    assert "more" not in said(report("events", "--table", "-n", "0", *PERIOD))


@pytest.mark.parametrize("args", [(), ("events",), ("event", "3"), ("top",), ("status",)])
def test_every_record_keeps_its_declaration(report: Run, args: tuple[str, ...]) -> None:
    """The fields that are declared, with their types, none that is not, none that is null."""
    period = () if args and args[0] in ("event", "status") else PERIOD
    lines = [json.loads(line) for line in said(report(*args, *period)).splitlines()]
    assert lines
    for record in [*lines, *lines[0].get("worst", [])]:
        kind = record.pop("type")
        assert record.pop("v") == 1
        wire.check(kind, record)
        known = {f.name for f in RECORDS[kind]}
        if kind == "report_snapshot":
            known |= {f.name for f in RECORDS["event"]}
        assert record.keys() <= known


# -- status ------------------------------------------------------------------------------------------------------------


def test_status_of_a_pipe_that_ended(report: Run, database: Path) -> None:
    """Not running, and what is known of its end; exit 1 only on request."""
    text = said(report("status", "--table"))
    assert text.startswith("state          stopped: rh-pipe is not running; its history was last written ")
    one = json.loads(said(report("status", "--json")))
    assert (one["watch"], one["running"], one["events_total"], one["open_events"]) == ("stopped", False, 3, 0)
    assert one["stopped_at"] == pytest.approx(START + 60, abs=0.01)
    assert one["database_bytes"] == database.stat().st_size
    assert one["sqlite_version"].startswith("3.") and "config_file" not in one and "degraded" not in one
    assert report("status", "--exit-code").returncode == 1


def test_status_without_a_database(call: Run, tmp_path: Path) -> None:
    """A machine on which rh-pipe has never run: an answer, no error, and nothing made."""
    path = tmp_path / "none" / "x.db"
    one = json.loads(said(call("status", "--json", "--db", path)))
    assert (one["watch"], one["running"], one["database"]) == ("stopped", False, str(path))
    assert "database_bytes" not in one and "events_total" not in one
    assert "none yet" in said(call("status", "--table", "--db", path))
    assert call("status", "--exit-code", "--db", path).returncode == 1
    assert not path.parent.exists()


@pytest.mark.parametrize(("age", "watch", "code"), [(1, "running", 0), (600, "stale", 1)])
def test_status_while_the_lock_is_held(call: Run, tmp_path: Path, age: float, watch: str, code: int) -> None:
    """A fresh tick and a holder: running. An old one: it holds the database and does not write."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(5), pid=os.getpid())
    connection = connect(path)
    tick = json.loads(connection.execute("SELECT value FROM daemon_state WHERE key = 'last_tick'").fetchone()[0])
    now = time.time()
    for name, value in (("last_tick", {**tick, "ts": now - age}), ("started_at", now - 700)):
        connection.execute("UPDATE daemon_state SET value = ? WHERE key = ?", (json.dumps(value), name))
    connection.commit()
    connection.close()
    lock = Lock(path)
    try:
        done = call("status", "--json", "--exit-code", "--db", path)
        words = said(call("status", "--table", "--db", path))
    finally:
        lock.release()
    one = json.loads(done.stdout)
    assert (done.returncode, one["watch"], one["running"], one["pid"]) == (code, watch, True, os.getpid())
    assert one["uptime_s"] == pytest.approx(700, abs=60)
    assert ("degraded" in one) == (watch == "stale")
    assert f"(pid {os.getpid()})" in words and ("does not write" in words) == (watch == "stale")


# -- forms, errors, endings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "code", "words"), [
    (("nonsense",), 2, "nonsense"),
    (("event",), 2, "event: missing ID (see rh-report events)"),
    (("events", "7"), 2, "unexpected extra argument (7)"),
    (("event", "1", "--since", "1h"), 2, "No such option '--since'"),
    (("pause",), 2, "pause: missing ID (see rh-report pauses)"),
    (("diff", "a"), 2, "diff: missing B"),
    (("sql", "SELECT 1", "SELECT 2"), 2, "unexpected extra argument (SELECT 2)"),
    (("sql", "SELECT 1", "--since", "1h"), 2, "No such option '--since'"),
    (("top", "--at", "14:32"), 2, "top has no option --at; why, html and trace have"),
    (("events", "--by", "unit"), 2, "events has no option --by; offenders, usage and top have"),
    (("why", "--at", "1h", "--since", "2h"), 2, "--at is a moment"),
    (("pause", "99"), 65, "99: no such pause"),
    (("top", "--exit-code"), 2, "top has no option --exit-code; status has"),
    (("--since", "soon"), 2, "'soon' is not a time"),
    (("--since", "1h", "--until", "2h"), 2, ") is later than --until (20"),
    (("-n", "-1"), 2, "-1"),
    (("event", "99"), 65, "99: no such event"),
    (("event", "\x1b[2J"), 65, r"\x1b[2J: no such event"),
    (("-c", "/nonexistent/c.toml"), 78, "/nonexistent/c.toml"),
])
def test_mistakes(report: Run, args: tuple[str, ...], code: int, words: str) -> None:
    """One clear line, the exit code of its kind, nothing on standard output."""
    done = report(*args)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode() and b"Traceback" not in done.stderr and b"\x1b" not in done.stderr


@pytest.mark.parametrize(("content", "code"), [(None, 69), (b"no database at all " * 99, 74), (b"", 69)])
def test_no_database(call: Run, tmp_path: Path, content: bytes | None, code: int) -> None:
    """Absent, another kind of file, empty: reported, never made or changed."""
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    for view in ("summary", "events", "top"):
        done = call(view, "--db", path)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1)
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["x.db"])


def on_terminal(clean_env: dict[str, str], *args: str | Path, **env: str) -> str:
    """What rh-report prints on a terminal of 100 columns."""
    main, side = pty.openpty()
    try:
        environ = {**clean_env, "TERM": "xterm", "TZ": "UTC", "COLUMNS": "100", **env}
        child = subprocess.Popen([sys.executable, "-P", "-m", "rogue_hunter", "report", *args], stdout=side,
                                 stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ)
        os.close(side)
        side = -1
        data = b""
        while True:
            try:
                more = os.read(main, 65536)
            except OSError:
                break
            if not more:
                break
            data += more
        _, errors = child.communicate(timeout=60)
        assert (child.returncode, errors) == (0, b"")
        return data.decode().replace("\r\n", "\n")
    finally:
        os.close(main)
        if side >= 0:
            os.close(side)


@pytest.mark.slow
def test_a_terminal_gets_a_table_in_colour(clean_env: dict[str, str], database: Path) -> None:
    """Bands are coloured on a terminal, unless NO_COLOR or a dumb one; columns stand as without colour."""
    args = ("events", *PERIOD, "--db", database)
    coloured = on_terminal(clean_env, *args)
    assert "\x1b[1;31mcritical\x1b[0m" in coloured
    plain = on_terminal(clean_env, *args, NO_COLOR="1")
    assert "\x1b" not in plain and on_terminal(clean_env, *args, TERM="dumb") == plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert max(len(line) for line in plain.splitlines()) <= 100
    assert "\x1b[31mhigh\x1b[0m" in on_terminal(clean_env, *PERIOD, "--db", database)
    assert json.loads(on_terminal(clean_env, *args, "--json"))


def test_wide_and_combining_letters_keep_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is the last column, and is cut by the terminal columns that it takes."""
    monkeypatch.setenv("COLUMNS", "120")
    record_run(tmp_path / "x.db", ticks_of(12, seconds(0, 99, hog(7, 70, command="数据处理程序", cmdline="数据" * 40)),
                                           seconds(0, 11, hog(8, 60, command="é́", cmdline=None))))
    out = io.BytesIO()
    print_summary(tmp_path / "x.db", START, START + 12, CONFIG, out)
    lines = out.getvalue().decode().splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("PEAK"))
    assert lines[head + 1].endswith("数据…") or lines[head + 1].endswith("数…")
    assert 118 <= columns(lines[head + 1]) <= 120 and lines[head + 2].endswith("[é́]")


def test_a_closed_pipe_is_quiet_and_a_full_disk_is_reported(database: Path, clean_env: dict[str, str]) -> None:
    """141 without a word; 74 with one line."""
    line = [sys.executable, "-P", "-m", "rogue_hunter", "report", "events", "--db", str(database), *PERIOD]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, env=clean_env, timeout=60, check=False,
                          preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN))
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, env=clean_env, timeout=60, check=False)
        assert (done.returncode, done.stderr.count(b"\n")) == (74, 1)


def test_reading_disturbs_no_writer(call: Run, tmp_path: Path) -> None:
    """While a writer is in the middle of a transaction, every view answers from before it."""
    path = tmp_path / "x.db"
    record_run(path, ticks_of(20, seconds(5, 15, hog(100, 85))))
    writer = connect(path)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE process_events SET peak_score = 99")
    try:
        for view in ("summary", "events", "top", "status"):
            done = call(view, *(() if view == "status" else PERIOD), "--db", path)
            assert done.returncode == 0, done.stderr
        assert json.loads(call("events", *PERIOD, "--db", path).stdout)["peak_score"] == 85
        writer.execute("COMMIT")
    finally:
        writer.close()
    assert json.loads(call("events", *PERIOD, "--db", path).stdout)["peak_score"] == 99


def test_costly_imports_wait(clean_env: dict[str, str], database: Path) -> None:
    """Only a table needs tabulate; nothing here needs sqlite_utils or jsonschema."""
    program = ("import sys; from rogue_hunter.cli import report; from rogue_hunter.commandline import run\n"
               "code = run.run(report.command, sys.argv[1:])\n"
               "sys.stderr.write(','.join(sorted({'tabulate', 'sqlite_utils', 'watchdog'} & set(sys.modules))))\n"
               "sys.exit(code)")
    for form, modules in (("--json", b""), ("--csv", b""), ("--table", b"tabulate")):
        done = subprocess.run([sys.executable, "-P", "-c", program, "events", form, "--db", str(database), *PERIOD],
                              capture_output=True, env=clean_env, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, modules)


@pytest.mark.parametrize("form", ["table", "json", "ndjson", "csv"])
def test_what_no_encoding_can_hold_is_escaped(tmp_path: Path, form: str) -> None:
    """A name that was written to the database with half a character does not end the report."""
    record_run(tmp_path / "x.db", ticks_of(12, seconds(0, 99, hog(7, 70, command="caf\\xe9"))))
    with source(tmp_path / "x.db", START + 12, CONFIG) as found:
        answer = summary(found, Period(START, START + 12), 5)
    assert rb"caf\\xe9" in (data := render(answer, form, Style(100, False, START))) or rb"caf\xe9" in data


def test_idle_rows_are_no_events(tmp_path: Path) -> None:
    """A process that scores nothing is in no list."""
    record_run(tmp_path / "x.db", [[row(5, score=0, band="low")]] * 9)
    with source(tmp_path / "x.db", START + 3, CONFIG) as found:
        (one,) = summary(found, Period(START, START + 3), 5).records
    assert (one["events"], one["worst"], "highest" in one) == (0, [], False)
