"""Tables and sentences fit the terminal; the arguments of views; --columns, --epoch and CSV."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from rogue_hunter.cli.match import command as match_command
from rogue_hunter.cli.report import VIEWS, command
from rogue_hunter.commandline import run as cli_run
from rogue_hunter.report.render import TIMES, Answer, Style, render, table, wrapped
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.tick import Tick, record
from rogue_hunter.text.format import columns
from tests.store.test_rows_reap import NOW, a_match, an_action
from tests.tools.captures import capture, parts
from tests.tools.reports import CONFIG, hog, record_run, seconds, ticks_of
from tests.tools.ticks import START, lines, stream

HOSTILE = "evil\x1b[2J\x07\x9b2J\u202e=1+1"
LONG = "/opt/a/very/long/path/to/a/program --with many --options and=arguments " * 3
SINCE = f"@{min(START, NOW) - 3600:.0f}"
UNTIL = f"@{max(START, NOW) + 3600:.0f}"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events with long and hostile names, captures, matches and actions."""
    path = tmp_path_factory.mktemp("layout") / "x.db"
    record_run(path, ticks_of(
        130, seconds(5, 25, hog(100, 85, command="a-very-long-command-name", cmdline=LONG, user="someone-with-a-name")),
        seconds(30, 120, hog(200, 66, command="sh", cmdline="sh -c while :; do :; done", cpu_share=0.97)),
        seconds(40, 115, hog(300, 62, command=HOSTILE, cmdline=HOSTILE, user="=cmd"))))
    writer = Writer(path, CONFIG.store, lambda: START, lambda _: None)
    writer.take(Tick(records=[
        capture("k1", START + 20, command=LONG), *({**each, **({"command": LONG} if "command" in each else {})}
                                                   for each in parts("k1", START + 20)),
        an_action(ts=NOW - 30, command=LONG, cpu_recovered_percent=80.0, audit_seq=1),
        an_action(ts=NOW - 20, command=HOSTILE, outcome="refused", signals=None, signal=None, pid=4001,
                  refusals=["not_my_uid"], detail="it belongs to another user, " * 4, audit_seq=2),
        record("pause", ts=START + 60, pause="p1", boot_id="b", start=START + 55, end=START + 60, duration_s=5.0, cause="cpu",
               culprits=[{"pid": 300 + n, "start_ticks": 1, "command": name, "unit": LONG, "resource": "cpu", "amount": 2.0,
                          "share": 0.4} for n, name in enumerate((HOSTILE, LONG))],
               unexplained_share=0.2, evidence={"late_s": 5.0, "cpu_busy_cores": 2.0, "cpus": 2}),
        a_match(NOW - 5, rule="a_rule_with_a_long_name", command=HOSTILE, pid=4001, reason="cpu 99 % for an hour " * 5)]))
    writer.close()
    return path


@pytest.fixture
def report(database: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes],
           tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Run rh-report in this process, in UTC; returns standard output."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    time.tzset()

    def run(*args: str, code: int = 0) -> str:
        given = cli_run.run(command, ["--db", str(database), *args])
        printed = capfdbinary.readouterr()
        assert given == code, printed
        return (printed.out or printed.err).decode()

    yield run
    monkeypatch.undo()
    time.tzset()


def arguments(view: str) -> Sequence[str]:
    """What the view is called with."""
    named = {"event": ["1"], "capture": ["k1"], "pause": ["p1"], "diff": ["a", "b"], "sql": ["SELECT * FROM process_events"]}
    return [view, *named.get(view, ()), *((
        "--since", SINCE, "--until", UNTIL) if VIEWS[view].period != "refused" else ())]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("view", [name for name, view in VIEWS.items() if name not in ("diff", "datasette") and not view.file])
def test_every_view_fits(report: Callable[..., str], monkeypatch: pytest.MonkeyPatch, view: str, width: int) -> None:
    """No line of a table or a sentence is wider than the terminal; a word that is longer alone may be."""
    monkeypatch.setenv("COLUMNS", str(width))
    made = report(*arguments(view), "--table").splitlines()
    assert made and not any("\x1b" in line or "\x9b" in line for line in made)
    assert [line for line in made if columns(line) > width and " " in line.strip()] == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_tables_of_other_commands_fit(monkeypatch: pytest.MonkeyPatch, width: int, tmp_path: Path,
                                          capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """rh-match rules, rh-report diff, rh-bench: all use the one table."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    scored = [hog(7, 76, command=HOSTILE, cmdline=LONG), hog(8, 50, command=LONG[:60])]
    for name, score in (("a", 0), ("b", 80)):
        (tmp_path / name).write_bytes(lines(list(stream([[{**one, "score": score, "band": CONFIG.bands.of(score)}
                                                          for one in scored]] * 3))))
    for made, args in ((command, ["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--table"]),
                       (match_command, ["rules", "--no-project", "--table"])):
        assert cli_run.run(made, args) == 0
        printed = capfdbinary.readouterr().out.decode().splitlines()
        assert len(printed) > 2 and [one for one in printed if columns(one) > width and " " in one.strip()] == []


def test_columns_are_dropped_by_priority() -> None:
    """The first ones named by `drop` go first; the last column is cut only then."""
    rows = [["1", "12:00:00", "ada", "x" * 40]]
    heads = ["ID", "AT", "USER", "COMMAND"]
    assert table(heads, rows, Style(80, False, 0), drop="USER ID").split()[:4] == heads
    assert table(heads, rows, Style(35, False, 0), drop="USER ID").split()[:3] == ["ID", "AT", "COMMAND"]
    assert table(heads, rows, Style(31, False, 0), drop="USER ID").split()[:2] == ["AT", "COMMAND"]
    narrow = table(heads, rows, Style(20, False, 0), drop="USER ID").splitlines()
    assert max(map(columns, narrow)) <= 20 and narrow[1].endswith("…")


def test_a_wide_table_without_columns_to_drop_is_cut_cell_by_cell() -> None:
    rows = [["a" * 50, "b" * 50, "c" * 50]]
    made = table(["A", "B", "C"], rows, Style(60, False, 0)).splitlines()
    assert max(map(columns, made)) <= 60 and [word[0] for word in made[1].split()] == ["a", "b", "c"]


@pytest.mark.parametrize(("text", "width", "lines"), [
    ("one two three four", 9, ["one two", "  three", "  four"]),
    ("  five six seven", 10, ["  five six", "    seven"]),
    ("short", 9, ["short"]), ("", 9, [""]), ("muchlongerthanall", 9, ["muchlongerthanall"]),
    ("\x1b[31mone\x1b[0m two", 7, ["\x1b[31mone\x1b[0m two"]), ("数据 数据", 6, ["数据", "  数据"]),
    ("label   words that go on", 16, ["label   words", "  that go on"]),
])
def test_sentences_wrap_at_words(text: str, width: int, lines: list[str]) -> None:
    assert wrapped(text, width).split("\n") == lines


@pytest.mark.parametrize("width", [60, 80])
def test_lines_of_blocks_fit(report: Callable[..., str], monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """A sparkline has as many blocks as fit: it is not wrapped."""
    monkeypatch.setenv("COLUMNS", str(width))
    for view in ("minutes", "timeline", "why"):
        made = report(view, "--since", f"@{START - 4000:.0f}", "--until", f"@{START + 70:.0f}", "--table").splitlines()
        blocks = [n for n, line in enumerate(made) if set("▁▂▃▄▅▆▇█") & set(line)]
        assert all(columns(made[n]) <= width for n in blocks)
        assert not [made[n - 1:n + 1] for n in blocks if not made[n].lstrip()[0].isalnum()]


def test_what_is_copied_from_the_screen_is_not_wrapped() -> None:
    text = "datasette " + "/a/path " * 30
    assert render(Answer([], lambda _: text, raw=True), "table", Style(60, False, 0)).decode() == text


def test_a_views_help_lists_its_own_options(report: Callable[..., str]) -> None:
    assert "--by" in report("top", "--help") and "--by" not in report("events", "-h")
    assert "--since" not in report("event", "-h") and "ID" in report("event", "-h")
    listed = report("--help")
    assert all(f"\n  {view}" in listed for view in VIEWS) and "--since" in listed
    assert report("--version") == report("events", "--version")


@pytest.mark.parametrize("args", [
    ("events", "--since", SINCE, "-n", "1"), ("--since", SINCE, "events", "-n", "1"), ("-n", "1", "--since", SINCE, "events"),
    ("-n1", f"--since={SINCE}", "events"), ("--since", SINCE, "-n", "1", "--columns", "pid,event", "events")])
def test_options_stand_before_or_after_the_view(report: Callable[..., str], args: Sequence[str]) -> None:
    assert report(*args).count('"pid":') == 1


def test_without_a_view_it_is_the_summary(report: Callable[..., str]) -> None:
    args = ("--since", SINCE, "--until", UNTIL, "--csv")
    assert report(*args) == report("summary", *args) == report(*args, "--", "summary")
    assert "no such view: 'event\\x1b'" in report("event\x1b", code=2)
    assert report("status", "--since", "1h", "-n", "3", "--command", "x").startswith('{"type":"report_status"')


def test_csv_is_readable_in_a_spreadsheet_and_on_a_terminal(report: Callable[..., str]) -> None:
    """Local times, unless --epoch; nothing that a terminal obeys."""
    args = ("events", "--since", SINCE, "--until", UNTIL, "--csv")
    for made in (report(*args), report("sql", "SELECT command, entry_time FROM process_events", "--csv")):
        assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", made)
    (row,) = csv.DictReader(io.StringIO(report(*args, "-n", "1")))
    (numbers,) = csv.DictReader(io.StringIO(report(*args, "-n", "1", "--epoch")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{3})?", row["entry_time"])
    assert abs(float(numbers["entry_time"]) - START) < 200 and row["duration_s"] == numbers["duration_s"]
    assert {"ts", "entry_time", "minute", "since", "last_tick"} <= TIMES
    assert not {"duration_s", "cpu_seconds", "cpu_seconds_total", "late_s"} & TIMES


def test_columns_selects_fields_in_every_form(report: Callable[..., str]) -> None:
    args = ("events", "--since", SINCE, "--until", UNTIL, "--columns", "pid,command", "--command", "sh -c")
    assert report(*args, "--csv") == "pid,command\r\n200,sh\r\n"
    assert report(*args, "--ndjson") == '{"pid":200,"command":"sh"}\n'
    assert report(*args, "--table").split() == ["PID", "COMMAND", "200", "sh"]
    assert "no such field: 'nme'; fields: id, " in report("events", "--columns", "nme", code=2)


def test_a_template_makes_a_line_of_each_record(report: Callable[..., str]) -> None:
    """Fields by name, times local, names harmless; the fields of the answer itself where its rows lack one."""
    args = ("events", "--since", SINCE, "--until", UNTIL, "--command", "sh -c")
    assert report(*args, "--format", r"{pid:>5}\t{command}: {peak_score}{reason!r}{tty}").startswith("  200\tsh: 66")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\n", report(*args, "--format", "{entry_time}"))
    hostile = report("events", "--since", SINCE, "--until", UNTIL, "--format", "{command} {cmdline}")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", hostile) and hostile.count("\n") == 3
    assert report("--since", SINCE, "--until", UNTIL, "--format", "{headline}").count("\n") == 1
    assert report("--since", SINCE, "--until", UNTIL, "--format", "{peak_score} {command}").count("\n") == 3
    assert report("status", "--format", "{watch}") == "stopped\n"
    for wrong in ("{nosuch}", "{pid.real}", "{", "{command:d}", "{}"):
        assert "--format" in report("events", "--since", SINCE, "--until", UNTIL, "--format", wrong, code=2)
