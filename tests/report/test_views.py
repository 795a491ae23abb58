"""pauses, pause, offenders, timeline, minutes, why, datasette and status as they are called: forms, words, periods."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.cli.report import VIEWS, command
from rogue_hunter.report.queries import Period
from rogue_hunter.report.views.view import spark
from rogue_hunter.schema import RECORDS
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import chain
from tests.tools.history import CONFIG, FIRST, Case, Proc, during, late, play, stages, through
from tests.tools.ticks import BOOT

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
HOSTILE = "evil\x1b[2J\u202e\n=1+1"
START = float(FIRST)
"""The minute in which all begins to go wrong: 12:07:00 UTC."""
PERIOD = ("--since", f"@{START - 300:.0f}", "--until", f"@{START + 900:.0f}")

TROUBLE = (
    Case("hog", "cpu", "hog", [Proc(7, "hog", during(3.8, 10, 40)), Proc(8, HOSTILE, during(0.9, 6, 40), ppid=7)],
         late(22, 3.0, self_run_delay_ms=2900.0, pressure_cpu_some_ms_per_s=990.0)),
    Case("stopped", "stopped", None, [], late(30, 6.0, continued=1)),
    Case("nap", "asleep", None, [], lambda t: {"asleep_s": 30.0} if 10 <= t < 11.5 else {}),
    Case("io", "io", "dd", [Proc(9, "dd", disk=during(300e6))], through(0, 40, pressure_io_full_ms_per_s=920.0)),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four troubles, four minutes apart, through the stages of rh-pipe."""
    path = tmp_path_factory.mktemp("views") / "x.db"
    now = 0.0
    writer = Writer(path, CONFIG.store, lambda: now, lambda message: None)
    for n, case in enumerate(TROUBLE):
        for tick in chain(play(case, START + 240 * n, random.Random(n), -60, 120), *stages(writer)):
            now = tick.row["ts"] if tick.row else now
    writer.close()
    return path


@pytest.fixture
def call(in_process: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """rh-report in this process, on 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")
    return in_process(command)


@pytest.fixture
def report(call: Run, database: Path) -> Run:
    """The same, on the database."""
    return partial(call, "--db", database)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Standard output of a run that went well."""
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def records(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """The lines of a run that went well."""
    return [json.loads(line) for line in said(done).splitlines()]


# -- pauses ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pauses(report: Run) -> None:
    """The newest first: when, how long, for want of what, who and how much; a line of blocks and the sum above."""
    text = said(report("pauses", "--table", *PERIOD))
    head, blocks, _, heads, *lines = text.splitlines()
    assert head == ("3 pauses from 2026-11-18 11:02:00 to 2026-11-18 11:22:00, 49s in all: io 40s, stopped 6.0s, cpu "
                    "3.0s")
    assert len(blocks) == 60 and blocks.count("█") == 1 and len(blocks.replace(" ", "")) == 3
    assert heads.split() == ["ID", "AT", "FOR", "CAUSE", "SHARE", "UNATTRIBUTED", "PID", "CULPRIT"]
    assert [line.split()[4] for line in lines] == ["io", "stopped", "cpu"]
    assert lines[0].endswith("  9  dd") and lines[1].endswith("(only rh-pipe was stopped)")
    assert lines[2].split()[4:] == ["cpu", "75", "%", "0", "%", "7", "hog"]


def test_one_pause(report: Run) -> None:
    """Everybody who is named, what it was not, who was rogue then, and the readings; hostile names made visible."""
    (found,) = [p for p in records(report("pauses", *PERIOD)) if p["cause"] == "cpu"]
    text = said(report("pause", str(found["id"]), "--table"))
    assert f"Pause {found['id']}, {found['pause']}\n" in text
    assert "paused 3.0s from 2026-11-18 11:07:23 to 2026-11-18 11:07:26 for want of cpu\n" in text
    assert "First: hog (pid 7) used 15s of CPU time, 75 %." in text
    assert r"evil\x1b[2J\u202e\n=1+1" in text and not set(text) & {"\x1b", "\u202e"}
    assert "not memory        62 % available, 10.0 GiB of 16.0 GiB, pressure 0 %\n" in text
    assert "hog (pid 7) score 8" in text and "self_run_delay_ms" in text
    one = json.loads(said(report("pause", found["pause"], "--json")))
    assert one == found and one["evidence"]["self_run_delay_ms"] == 2900.0
    rows = list(csv.DictReader(io.StringIO(said(report("pause", str(found["id"]), "--csv")), newline="")))
    assert [row["rank"] for row in rows] == [str(n) for n in range(1, len(rows) + 1)] and rows[0]["command"] == "hog"
    (stopped,) = [p for p in records(report("pauses", *PERIOD)) if p["cause"] == "stopped"]
    assert "No process is named: only rh-pipe was stopped." in said(report("pause", str(stopped["id"]), "--table"))


@pytest.mark.parametrize(("text", "causes"), [("hog", ["cpu"]), ("EVIL", ["cpu"]), ("dd", ["io"]), ("nobody", [])])
def test_pauses_of_a_command(report: Run, text: str, causes: list[str]) -> None:
    """Those in which it is named, at any rank."""
    assert [p["cause"] for p in records(report("pauses", *PERIOD, "--command", text))] == causes


@pytest.mark.parametrize(("since", "until", "count"), [(-300, 900, 3), (24, 26, 1), (27, 200, 0), (240, 300, 1)])
def test_a_period_takes_the_pauses_that_overlap_it(report: Run, since: float, until: float, count: int) -> None:
    """Also one that began before and ends after it."""
    args = ("--since", f"@{START + since}", "--until", f"@{START + until}")
    assert len(records(report("pauses", *args))) == count


# -- offenders, top by unit --------------------------------------------------------------------------------------------


def test_offenders(report: Run) -> None:
    """Minutes of pause owed: of each pause, its share; and the time in events."""
    dd, hog, *others = records(report("offenders", *PERIOD))
    assert (dd["command"], hog["command"]) == ("dd", "hog")
    assert dd["pause_minutes"] == pytest.approx(0.68, abs=0.03) and dd["pauses"] == 1
    assert hog["pause_minutes"] == pytest.approx(3.0 * 0.73 / 60, abs=0.002) and hog["peak_score"] >= 80
    assert hog["pause_share"] == pytest.approx(60 * hog["pause_minutes"] / 49, abs=0.01)
    assert hog["rogue_minutes"] > 0.3 and others
    text = said(report("offenders", "--table", *PERIOD))
    heads, first, *_, last = text.splitlines()
    assert heads.split()[-2:] == ["WHEN", "COMMAND"] and first.split()[-2:] == ["█", "dd"]
    assert last == "3 pauses, 49s in all, 6.0s of it unattributed"


def test_by_unit(report: Run) -> None:
    """A program and what it started are one: the pause is counted once, the minutes add up."""
    units = {o["unit"]: o for o in records(report("offenders", *PERIOD, "--by", "unit"))}
    commands = {o["command"]: o for o in records(report("offenders", *PERIOD))}
    hog = units["hog[7]"]
    assert hog["pauses"] == 1 and "command" not in hog
    assert hog["pause_minutes"] == pytest.approx(
        commands["hog"]["pause_minutes"] + commands[HOSTILE]["pause_minutes"], abs=0.002)
    tops = {t["unit"]: t for t in records(report("top", *PERIOD, "--by", "unit"))}
    assert tops["hog[7]"]["processes"] == 2 and "dd[9]" in tops
    assert "UNIT" in said(report("top", "--table", *PERIOD, "--by", "unit")).splitlines()[0]


# -- timeline, minutes -------------------------------------------------------------------------------------------------


def test_timeline(report: Run) -> None:
    """Pauses, events and sleep, the newest first."""
    found = records(report("timeline", *PERIOD))
    assert [t["ts"] for t in found] == sorted((t["ts"] for t in found), reverse=True)
    what = [(t["what"], t.get("command")) for t in found if t.get("command") in ("hog", "dd", None)]
    assert what[-3:] == [("exit", "hog"), ("pause", "hog"), ("enter", "hog")]
    assert ("asleep", None) in what and ("pause", "dd") in what and ("pause", None) in what
    text = said(report("timeline", "--table", *PERIOD))
    assert text.startswith("pauses  ") and "cpu for 3.0 s" in text and "for 30.0 s" in text
    assert {t["command"] for t in records(report("timeline", *PERIOD, "--command", "dd"))} == {"dd"}


def test_minutes(report: Run) -> None:
    """The newest first, each with its commands by CPU time; blocks over the period above the table."""
    found = records(report("minutes", *PERIOD))
    assert [m["minute"] for m in found] == sorted((m["minute"] for m in found), reverse=True)
    (bad,) = [m for m in found if m["minute"] == START]
    assert bad["commands"][0]["command"] == "hog" and bad["pauses"] == 1
    assert [c["cpu_seconds"] for c in bad["commands"]] == sorted((c["cpu_seconds"] for c in bad["commands"]),
                                                                 reverse=True)
    text = said(report("minutes", "--table", *PERIOD))
    assert text.startswith("cpu     ") and "\nmemory      ▃" in text and "\npauses  " in text and "CORES, TOP" in text
    assert "... and" in said(report("minutes", "--table", "-n", "2", *PERIOD))
    of_dd = records(report("minutes", *PERIOD, "--command", "DD"))
    assert of_dd and all({c["command"] for c in m["commands"]} == {"dd"} for m in of_dd)


# -- why ---------------------------------------------------------------------------------------------------------------


def test_why(report: Run) -> None:
    """Causes, who, what it was not, blocks around the time; every name visible; the same as a record and as CSV."""
    at = f"@{START + 25:.0f}"
    text = said(report("why", "--at", at, "--table"))
    assert text.startswith("At 2026-11-18 11:07:25: cpu: hog (pid 7) used ")
    assert said(report("why", "--at", f"@{START:.0f}", "--table")).startswith("From 2026-11-18 11:07:00 to 2026-11-18 11:08:00: ")
    assert "the\nmachine paused 3.0s" in text or "the machine paused 3.0s" in text.replace("\n", " ")
    assert "\nLikely causes, 0 to 100 points:\n" in text and "\nNot the cause:\n" in text
    assert "\ncpu     " in text and "\npauses  " in text
    assert r"evil\x1b[2J" in text and not set(text) & {"\x1b", "\u202e"}
    assert max(map(len, text.splitlines())) <= 120
    one = json.loads(said(report("why", "--at", at, "--json")))
    assert (one["cause"], one["command"], one["at"]) == ("cpu", "hog", START + 25)
    assert not set(one["headline"]) & {"\x1b", "\u202e", "\n"}
    rows = list(csv.DictReader(io.StringIO(said(report("why", "--at", at, "--csv")), newline="")))
    assert rows[0]["cause"] == "cpu" and rows[0]["is_cause"] == "true" and rows[-1]["is_cause"] == "false"
    period = json.loads(said(report("why", *PERIOD, "--json")))
    assert {c["cause"] for c in period["causes"]} >= {"cpu", "stopped", "asleep"} and "at" not in period


def test_why_now_of_a_watch_that_ended(report: Run) -> None:
    """Without --at it explains now, when rh-pipe is not running."""
    one = json.loads(said(report("why")))
    assert one["verdict"] == "no_evidence" and "rh-pipe is not running" in one["headline"]


# -- all views ---------------------------------------------------------------------------------------------------------


LISTS = ("pauses", "offenders", "timeline", "minutes")


@pytest.mark.parametrize("view", LISTS)
def test_lists_in_all_forms_say_the_same(report: Run, view: str) -> None:
    """One array, one object a line, one row a line with a header of fixed names; -n limits them all."""
    listed = json.loads(said(report(view, "--json", *PERIOD)))
    assert records(report(view, *PERIOD)) == listed and len(listed) >= 3
    kind = listed[0]["type"]
    rows = list(csv.DictReader(io.StringIO(said(report(view, "--csv", *PERIOD)), newline="")))
    assert list(rows[0]) == [f.name for f in RECORDS[kind] if f.name != "commands"] and len(rows) == len(listed)
    assert records(report(view, "-n", "2", *PERIOD)) == listed[:2]
    assert "... and " in said(report(view, "-n", "1", "--table", *PERIOD))


@pytest.mark.parametrize("view", [*LISTS, "why"])
def test_every_record_keeps_its_declaration(report: Run, view: str) -> None:
    """The declared fields with their types, none that is not declared, none that is null."""
    for made in records(report(view, *PERIOD)):
        kind = made.pop("type")
        assert made.pop("v") == 1 and None not in made.values()
        wire.check(kind, made)
        assert made.keys() <= {f.name for f in RECORDS[kind]}


@pytest.mark.parametrize("view", LISTS)
def test_nothing_found_is_no_error(report: Run, view: str) -> None:
    """A sentence for people, an empty list for programs."""
    args = (view, *PERIOD, "--command", "no such thing")
    assert said(report(*args, "--json")) == "[]\n"
    assert said(report(*args, "--table")).startswith("No ")
    before = (view, "--since", "@1000", "--until", "@2000")
    assert said(report(*before)) == ""


@pytest.mark.parametrize("view", LISTS)
def test_a_hostile_name_never_reaches_a_terminal(report: Run, view: str) -> None:
    """Escapes, line feeds and marks that turn the order of text are made visible in every table."""
    text = said(report(view, "--table", "-n", "0", *PERIOD, *(("--command", "evil") if view != "pauses" else ())))
    assert not set(text) & {"\x1b", "\u202e"}
    assert view == "pauses" or r"evil\x1b[2J" in text


def test_one_loop_over_all_views_with_the_same_options(report: Run) -> None:
    """A script gives every view without an argument the same period: it is used, or ignored where it means nothing."""
    for name, view in VIEWS.items():
        if not view.names and view.period != "refused":
            assert report(name, *PERIOD, "--command", "hog").returncode == 0, name


def test_datasette_prints_a_runnable_line(call: Run, tmp_path: Path) -> None:
    """For people only comments and the command: it may be piped into sh; no database is needed to say it."""
    path = tmp_path / "it's here" / "rogue-hunter.db"
    lines = [line for line in said(call("datasette", "--table", "--db", path)).splitlines() if line[:1] != "#"]
    (line,) = lines
    done = subprocess.run(["sh", "-c", f"datasette() {{ printf '%s\\n' \"$@\"; }}\n{line}"], capture_output=True,
                          check=True, timeout=10)
    file, option, metadata, plugin, folder = done.stdout.decode().splitlines()
    assert (file, option, plugin) == (str(path), "-m", "--plugins-dir") and (Path(folder) / "cells.py").exists() and json.loads(Path(metadata).read_bytes())["databases"]["rogue-hunter"]
    made = json.loads(said(call("datasette", "--json", "--db", path)))
    assert made["type"] == "report_datasette" and made["databases"]["rogue-hunter"]["queries"]


@pytest.mark.parametrize(("points", "line"), [
    ([], ""), ([(0.0, 1.0)], "█   "), ([(3.99, 1.0)], "   █"), ([(0, 8.0), (2, 0.001)], "█ ▁ "),
    ([(-50, 1.0), (99, 1.0)], "█  █"), ([(1, 2.0), (1.5, 2.0), (2, 2.0)], " █▄ ")])
def test_blocks_over_a_period(points: list[tuple[float, float]], line: str) -> None:
    """Sums a slot, the highest full; a little is visible; what reaches in from outside counts at the edge."""
    assert spark(Period(0, 4), points, 4) == line


def test_the_boot_is_that_of_the_ticks(report: Run) -> None:
    """Records carry the boot, so that a pause can be joined with what a log says of that boot."""
    assert {p["boot_id"] for p in records(report("pauses", *PERIOD))} == {BOOT}
