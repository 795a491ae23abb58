"""Names that processes, rules and files may have, through everything that a person or a program reads."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from html import escape as html_escape
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Log as LogSettings
from rogue_hunter.daemon.log import Log
from rogue_hunter.metrics import Metrics
from rogue_hunter.reaper.notify import Notifier
from rogue_hunter.report.live_view import View
from rogue_hunter.rules.load import parse as parse_rules
from rogue_hunter.rules.model import RuleError, Settings
from rogue_hunter.stream.tick import Tick, record
from rogue_hunter.stream.wire import Encoder
from tests.tools import ticks as ticktools

from . import statements
from .table import Bench, Skip, case, clean

NAMES = (
    "\x1b[2J\x1b]0;owned\x07", "\x1b]52;c;cm0gLXJm\x07", "a\nb\r\nrh-pipe: forged line", "\u202etxt.exe\u2066",
    "\x9b31mC1", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "'; DROP TABLE process_events; --", "%s%n%x", "\"},{\"type\":\"x", "\\ud800", "${HOME}`id`$(id)", "x\0y",
    "\u2028line\u2029", "{{7*7}}", "\xad\u200bzero", "a" * 300, "\"} 1\nevil_metric{x=\"y", "--help", "-rf",
    "rule\n",
)
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")
"""What a terminal obeys or hides; a line feed is looked at apart."""


class Hostile(ticktools.Machine):
    """The seeded machine, its processes called by these names."""

    NAMES = NAMES

    def _begin(self) -> Any:
        key = super()._begin()
        name = self.rows[key]["command"]
        self.rows[key].update(cmdline=f"{name} {name}", exe=f"/tmp/{name}", user=name[:30], cgroup=f"/{name}")
        return key


def _history(database: Path) -> None:
    """A database with all of these names in it."""
    class Host(statements.Scripted):
        def __init__(self) -> None:
            super().__init__()
            self.machine = Hostile(5, processes=60, cpus=2)

    before = statements.Scripted
    statements.Scripted = Host  # type: ignore[misc]
    try:
        assert statements.run(database, statements.Faults()).ticks
    finally:
        statements.Scripted = before  # type: ignore[misc]


def _harmless(shown: bytes, what: str) -> None:
    text = shown.decode()
    found = _OBEYED.search(text)
    assert found is None, f"{what}: {found.group()!r} in {text[max(0, found.start() - 60):found.start() + 60]!r}"
    assert "\nrh-pipe: forged" not in text, what


VIEWS = (("summary",), ("why", "--at", "@1700001010"), ("pauses",), ("offenders",), ("timeline",), ("minutes",),
         ("events",), ("event", "1"), ("captures",), ("top",), ("actions",), ("matches",), ("status",), ("usage",),
         ("html",))


@case("names on a terminal", "every view of rh-report, rh-tail and every message: nothing that a terminal obeys")
def terminal(bench: Bench) -> str:
    database = bench.tmp / "x.db"
    _history(database)
    shown = 0
    for view, *more in VIEWS if bench.long else VIEWS[::3] + VIEWS[-2:]:
        period = [] if view in ("event", "status", "why") else ["--since", "@1699999000", "--until", "@1700009000"]
        form = [] if view == "html" else ["--table"]
        done = bench.rh("report", view, *more, *period, *form, "--db", database)
        clean(done.stderr)
        assert done.returncode in (0, 1), (view, done)
        _harmless(done.stdout, view)
        _harmless(done.stderr, view)
        shown += len(done.stdout)
    view_of_tail = View()
    encode = Encoder().tick
    for tick in Hostile(5, processes=60, cpus=2).ticks(5):
        rows = {key: {**row, "score": 50, "band": "high"} for key, row in tick.processes.items()}
        view_of_tail.take(encode(Tick(tick.row, rows)).splitlines())
        for line in view_of_tail.lines(100, 60, False):
            _harmless(line.encode("utf-8", "surrogatepass"), "rh-tail")
            shown += len(line)
    for name in NAMES:
        if "\0" not in name and "/" not in name:
            done = bench.rh("report", "--db", bench.tmp / name[:200])
            clean(done.stderr, lines=1)
            _harmless(done.stderr, "a file's name")
        if not bench.long and shown > 0 and name == NAMES[4]:
            break
    return f"{len(NAMES)} names, {shown:,} characters shown: 0 that a terminal obeys"


@case("names in CSV", "RFC 4180, control characters escaped, a quote before what a spreadsheet would compute")
def comma_separated(bench: Bench) -> str:
    database = bench.tmp / "x.db"
    _history(database)
    done = bench.rh("report", "events", "--since", "@1699999000", "--until", "@1700009000", "--csv", "-n", "0", "--db",
                    database)
    assert done.returncode == 0, done
    read = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
    columns = len(read[0])
    assert len(read) > 10 and all(len(row) == columns and None not in row for row in read)
    cells = [cell for row in read for cell in row.values()]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t", "\r")]
    assert not [cell for cell in cells if cell[:1] == "-" and not re.fullmatch(r"-[0-9.e+-]+", cell)]
    names = {row["command"] for row in read}
    assert "'=cmd|' /C calc'!A0" in names or "'@SUM(A1)" in names or "'+1" in names, names
    return f"{len(read)} rows of {columns} cells, {len(names)} names: 0 that compute"


@case("names in HTML", "a page of Datasette on the database: no tag that a name brought")
def html(bench: Bench) -> str:
    database = bench.tmp / "x.db"
    _history(database)
    tags = [name for name in NAMES if name.startswith("<")]
    with closing(sqlite3.connect(database)) as connection, connection:
        # Which processes have events is up to the seed.
        for number, name in enumerate(tags, 1):
            changed = connection.execute("UPDATE process_events SET command = ?1, cmdline = ?1 WHERE id = ?2",
                                         (name, number))
            assert changed.rowcount == 1
    command = [sys.executable, "-m", "datasette", database, "--get"]
    if subprocess.run([sys.executable, "-c", "import datasette"], capture_output=True, check=False).returncode:
        raise Skip("no Datasette")
    done = subprocess.run([*command, "/x/process_events?_size=max"], capture_output=True, check=False, timeout=60,
                          env=bench.env)
    assert done.returncode == 0, done.stderr[-500:]
    shown = [name for name in tags if html_escape(name).encode() in done.stdout]
    assert shown == tags and b"<script>alert" not in done.stdout and b"<img src=x" not in done.stdout
    return f"{len(done.stdout):,} bytes of HTML: 0 tags from {len(tags)} names"


@case("names for Prometheus", "no name that a process chose and no pid is in a label; rule names are words of ours")
def prometheus(bench: Bench) -> str:
    from prometheus_client.parser import text_string_to_metric_families

    metrics = Metrics()
    for name in NAMES:
        known = {"boot_id": name, "pid": 424242, "start_ticks": 1, "command": name, "cmdline": name}
        metrics.observe(Tick(records=[record("match", rule="r", priority="high", **known),
                                      record("action", rule="r", outcome="killed", **known)]))
    for tick in Hostile(5, processes=30).ticks(3):
        metrics.observe(tick)
    page = metrics.render().decode()
    families = {family.name for family in text_string_to_metric_families(page)}
    assert all(name.startswith("rogue_hunter_") for name in families), families
    assert "424242" not in page and not [name for name in NAMES if len(name) > 4 and name in page]
    for name in NAMES:
        text = json.dumps(name)     # a basic string of TOML escapes as JSON does
        try:
            parse_rules(f"[[rules]]\nname = {text}\n[rules.conditions]\nscore_min = 1\n".encode(), "x")
        except RuleError as error:
            assert "name" in str(error) and "\n" not in str(error)
        else:
            assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name), name
    return f"{len(NAMES)} names: 0 in {len(page):,} bytes and {len(families)} metrics; as rules' names refused"


@case("names in notifications", "argv without a shell, -- before what is not ours, markup escaped, one line")
def notifications(bench: Bench) -> str:
    sent: list[list[str]] = []
    for platform in ("linux", "darwin"):
        for name in NAMES:
            notifier = Notifier(Settings(notify=True), run=lambda argv: bool(sent.append(list(argv)) or True),
                                platform=platform)
            notifier.show(f"killed: {name}", name)
    assert len(sent) == 2 * len(NAMES)
    for argv in sent:
        title, body = argv[-2:]
        if argv[0] == "notify-send":
            assert argv[-3] == "--" and "<" not in body and not re.search("&(?!amp;|lt;|gt;)", body)
        else:
            assert argv[-3] == "-e" or argv[-3] == "end run"
        _harmless((title + body).encode(), "notification")
        assert "\n" not in title + body
    return f"{len(sent)} notifications: 0 that a desktop obeys"


@case("names in the log", "one JSON line an entry, whatever it says; nothing forged")
def log(bench: Bench) -> str:
    path = bench.tmp / "x.log"
    made = Log(path, LogSettings(path=str(path)))
    for name in (*NAMES, "\ud800"):
        assert made.write("warning", f"client {name} says {name}")
    made.close()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) == len(NAMES) + 1
    for line in lines:
        assert json.loads(line)["type"] == "log"
        assert not re.search(rb"[\x00-\x1f\x7f]", line)
    return f"{len(lines)} entries on {len(lines)} lines"
