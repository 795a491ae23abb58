"""Datasette on the live file, with the metadata that comes with the package, in a real browser."""

from __future__ import annotations

import functools
import html
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.cli.report import command
from rogue_hunter.commandline import run as cli_run
from rogue_hunter.report.views.sql import USUAL, describe, metadata, metadata_file
from rogue_hunter.store.database import open_reader, open_writer
from rogue_hunter.store.tables import TABLES, VIEWS
from rogue_hunter.stream import wire
from tests.tools.docs import datasette_tables
from tests.tools.processes import wait_for

DATASETTE = Path(sys.executable).parent / "datasette"
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
                None)
needs_datasette = pytest.mark.skipif(not DATASETTE.exists(), reason="Datasette is not in this environment")


# -- the metadata ------------------------------------------------------------------------------------------------------


def test_every_query_runs_and_is_described(tmp_path: Path) -> None:
    """Each canned query is one SELECT on the tables as they are, with a title, a description and no table's name."""
    open_writer(tmp_path / "x.db")[0].close()
    reader = open_reader(tmp_path / "x.db")
    queries = metadata()["databases"][USUAL]["queries"]
    assert len(queries) >= 8
    for name, query in queries.items():
        names = dict.fromkeys(re.findall(r":([a-z]+)\b", query["sql"]), "")
        reader.execute(query["sql"], names).fetchall()
        assert query["title"] and query["hide_sql"] and query["description"].endswith((".", "empty.")), name
        # Every parameter is described, and what an empty one means.
        assert all(f"{parameter}:" in query["description"] for parameter in names), name
    first = next(iter(queries.values()))["sql"]
    plan = " ".join(row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {first}", {"hours": ""}))
    assert "SCAN" not in plan      # the first page that people open is quick, however long the history is
    reader.close()
    # Datasette 1.0 takes such a name for the table.
    assert not queries.keys() & ({table.name for table in TABLES} | VIEWS.keys())


def test_the_command_line_fits_the_name_of_the_file(tmp_path: Path) -> None:
    """The packaged metadata for the usual name; for another one the record itself, under that name."""
    file = tmp_path / "a dir" / "rogue-hunter.db"
    usual = describe(file)
    plugins = ["--plugins-dir", str(metadata_file().parent / "datasette")]
    assert shlex.split(usual["command"]) == ["datasette", str(file), "-m", str(metadata_file()), *plugins]
    assert " -c " in usual["command_1_0"] and list(usual["databases"]) == [USUAL]
    other = describe(tmp_path / "other.db")
    assert "other.db -m - --plugins-dir" in other["command"] and {
        chart["db"] for chart in other["plugins"]["datasette-dashboards"][USUAL]["charts"].values()} == {"other"} and list(other["databases"]) == ["other"]
    assert other["databases"]["other"] == usual["databases"][USUAL]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 there")
def test_a_path_of_other_bytes_goes_into_the_record() -> None:
    made = describe(Path(os.fsdecode(b"/a\xff/b\xff.db")))
    assert wire.dumps(made).count(b"/a\\\\xff/b\\\\xff.db") == 5 and list(made["databases"]) == [r"b\xff"]


def test_tables_are_described() -> None:
    """From the declarations; labels, order and facets are of columns that exist."""
    shown = metadata()["databases"][USUAL]["tables"]
    assert shown == datasette_tables()
    for table in TABLES:
        about, names = shown[table.name], {column.name for column in table.columns}
        assert about.get("hidden") or table.doc[1:] in about["description"]
        assert {about.get("sort_desc", "id"), about.get("label_column", "id"), *about.get("facets", ())} <= {*names, "id"}


def test_the_dashboard_runs(tmp_path: Path) -> None:
    """Every chart is in the layout, and its query is one SELECT that has the fields which are drawn."""
    open_writer(tmp_path / "x.db")[0].close()
    reader = open_reader(tmp_path / "x.db")
    board = metadata()["plugins"]["datasette-dashboards"][USUAL]
    assert {name for row in board["layout"] for name in row} == board["charts"].keys()
    for chart in board["charts"].values():
        found = reader.execute(chart["query"])
        names = {column[0] for column in found.description}
        drawn = {one["field"] for one in chart["display"].get("encoding", {}).values()} or {chart["display"]["field"]}
        assert drawn == names and chart["title"] and chart["db"] == USUAL
        axes = chart["display"].get("encoding", {})
        assert not (axes.get("y", {}).get("title") or "").startswith("%") or axes["y"]["scale"] == {"domain": [0, 100]}
        # Without a pause the box is not empty.
        assert "JOIN pauses" not in chart["query"] or [tuple(row) for row in found] == [("(none in the last day)", 0)]
    reader.close()


def plugin() -> dict[str, Any]:
    """The names of the plugin, with stand-ins for what Datasette brings."""
    code = (metadata_file().parent / "datasette" / "cells.py").read_text()
    datasette_, markupsafe = types.ModuleType("datasette"), types.ModuleType("markupsafe")
    datasette_.hookimpl = lambda function: function  # type: ignore[attr-defined]
    markupsafe.escape = html.escape  # type: ignore[attr-defined]
    markupsafe.Markup = type("Markup", (str,), {"format": lambda text, *args: str.format(text, *(html.escape(str(a)) for a in args))})  # type: ignore[attr-defined]
    held = {name: sys.modules.get(name) for name in ("datasette", "markupsafe")}
    try:
        sys.modules.update(datasette=datasette_, markupsafe=markupsafe)
        made: dict[str, Any] = {}
        exec(compile(code, "cells.py", "exec"), made)
        return made
    finally:
        for name, module in held.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def test_cells_have_links_units_and_times() -> None:
    """Numbers only: a text that a process chose is never made a link."""
    cell = functools.partial(plugin()["render_cell"], database="x", datasette=types.SimpleNamespace(
        urls=types.SimpleNamespace(row=lambda database, table, key: f"/{database}/{table}/{key}")))
    assert cell(value=12, column="pause_id", table=None) == '<a href="/x/pauses/12">12</a>'
    assert cell(value=12, column="event_id", table="v_timeline") == '<a href="/x/process_events/12">12</a>'
    assert cell(value=12, column="pause_id", table="pauses") is None
    assert cell(value='{"href":"javascript:alert(1)"}', column="pause_id", table=None) is None
    assert ">1.5 GiB<" in cell(value=3 << 29, column="memory_bytes", table="process_snapshots")
    assert ">82.0 %<" in cell(value=0.82, column="share", table="pause_culprits")
    assert re.search(r">2027-01-1\d \d\d:\d\d:\d\d<", cell(value=1_800_000_000.5, column="entry_time", table="process_events"))
    assert cell(value="2026-11-28 <b>", column="at", table=None).endswith(">2026-11-28 &lt;b&gt;</span>")
    long = "<b> " * 60
    assert cell(value=long, column="cmdline", table=None).endswith(f"overflow: auto\">{html.escape(long)}</div>")
    assert cell(value="sh -c x", column="cmdline", table=None) is None
    boot = "2ce6a2cf-6ebb-4767-b8c6-db2171b9c394"       # would make each row four lines high
    assert re.fullmatch(rf'<span title="{boot}" [^>]*>2ce6a2cf…</span>', cell(value=boot, column="boot_id", table="pauses"))
    assert cell(value=None, column="ts", table=None) is None and cell(value=3.0, column="duration_s", table=None) is None


# -- on the live file --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, clean_env: Mapping[str, str]) -> Iterator[tuple[Path, str, subprocess.Popen[bytes]]]:
    """A database that rh-pipe writes, with an event and a pause in it, the address of its Datasette, and the loop of the event."""
    place = tmp_path_factory.mktemp("datasette")
    db = place / "rogue-hunter.db"
    begun: list[subprocess.Popen[bytes]] = []

    def start(*args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(args, stdin=subprocess.DEVNULL, env=dict(clean_env), **options))
        return begun[-1]

    try:
        start("/bin/sh", "-c", "while :; do :; done")
        pipe = start(sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--no-socket", "--db", db,
                     stderr=subprocess.DEVNULL)
        wait_for(lambda: db.exists() and rows(db, "SELECT 1 FROM process_events"), 30)
        for _ in range(6):      # on a busy machine the first stop may fall into a beat that was late anyway
            os.kill(pipe.pid, signal.SIGSTOP)
            time.sleep(1.6)
            os.kill(pipe.pid, signal.SIGCONT)
            with suppress(AssertionError):
                wait_for(lambda: rows(db, "SELECT 1 FROM pauses"), 6)
                break
        assert rows(db, "SELECT 1 FROM pauses")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        asked = [sys.executable, "-P", "-m", "rogue_hunter", "report", "datasette", "--table", "--db", str(db)]
        told = subprocess.run(asked, env=dict(clean_env), capture_output=True, check=True, timeout=60).stdout.decode()
        (line,) = [one for one in told.splitlines() if not one.startswith("#")]
        words = shlex.split(line)
        assert words[0] == "datasette"
        with (place / "log").open("wb") as log:
            start(DATASETTE, *words[1:], "-p", str(port), stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(address), 40)
        yield db, address, begun[0]
        # It was the live file all the time.
        assert pipe.poll() is None
    finally:
        for child in begun:
            child.kill()
            child.wait(10)


def rows(db: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query; none while there is no database yet."""
    try:
        reader = open_reader(db)
    except Exception:
        return []
    try:
        return [tuple(row) for row in reader.execute(sql)]
    finally:
        reader.close()


def answers(address: str) -> bool:
    """A server listens on the port."""
    try:
        with urllib.request.urlopen(address + "/-/versions.json", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def canned(address: str, query: str, **values: object) -> list[dict[str, Any]]:
    """The rows of a canned query."""
    asked = urllib.parse.urlencode({"_shape": "array", "_size": "max", **values})
    with urllib.request.urlopen(f"{address}/{USUAL}/{query}.json?{asked}", timeout=20) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
        return found


@pytest.mark.waits
@needs_datasette
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rh-pipe's live run here is of Linux")
def test_the_same_numbers_as_rh_report_while_rh_pipe_writes(live: tuple[Path, str, subprocess.Popen[bytes]],
                                                            capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Pauses, offenders, timeline, events, open events: what both show of the same moment is the same."""
    mask = os.umask(0o077)
    db, address, _ = live

    def said(*args: str) -> list[dict[str, Any]]:
        # In this process: a command that starts is an event itself.
        assert cli_run.run(command, [*args, "--ndjson", "--db", str(db)]) == 0
        return [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

    def same() -> None:
        pauses = canned(address, "recent_pauses")
        assert [(p["pause_id"], p["cause"], p["duration_s"], p["culprit"]) for p in pauses] == [
            (p["id"], p["cause"], round(p["duration_s"], 1), (p["culprits"] or [{}])[0].get("command"))
            for p in said("pauses")] and pauses
        offenders = canned(address, "offenders")
        reported = {o["command"]: o for o in said("offenders")}
        assert {o["command"] for o in offenders} == reported.keys() and offenders
        for one in offenders:
            told = reported[one["command"]]
            assert (one["pause_minutes"], one["pauses"], one["events"], one["peak_score"]) == (
                told["pause_minutes"], told["pauses"], told["events"], told.get("peak_score"))
        line = [(t["what"], t["command"], t["event_id"] or t["pause_id"]) for t in canned(address, "timeline")]
        assert line == [(t["what"], t.get("command"), t.get("id")) for t in said("timeline")] and line
        events = [(e["event_id"], e["pid"], e["peak_score"]) for e in canned(address, "events")]
        assert events == [(e["id"], e["pid"], e["peak_score"]) for e in said("events")]
        assert {e["event_id"] for e in canned(address, "open_events")} == {e["id"] for e in said("events") if e["open"]}

    # Between the two questions rh-pipe may write: then they are asked again.
    ticks = int(rows(db, "SELECT value FROM daemon_state WHERE key = 'ticks'")[0][0])
    for attempt in range(5):
        try:
            same()
            break
        except AssertionError:
            if attempt == 4:
                raise
    os.umask(mask)
    wait_for(lambda: int(rows(db, "SELECT value FROM daemon_state WHERE key = 'ticks'")[0][0]) > ticks, 30)


PAGES = {page: f"/{USUAL}/{page}" for page in ("recent_pauses", "offenders", "timeline", "pauses/1")} | {
    "index": f"/{USUAL}", "dashboard": f"/-/dashboards/{USUAL}"}
"""Name -> path on the server."""


def check_page(page: str, text: str, db: Path) -> None:
    """The rows and the words of the page are in its HTML."""
    queries = metadata()["databases"][USUAL]["queries"]
    if page == "dashboard":
        titles = [chart["title"] for chart in metadata()["plugins"]["datasette-dashboards"][USUAL]["charts"].values()]
        assert all(title in text for title in titles)
    elif page == "pauses/1":
        assert "pause_culprits" in text and re.search(r">\d{4}-\d\d-\d\d \d\d:\d\d:\d\d<", text)
    elif page == "index":
        assert all(query["title"] in text for query in queries.values())
    else:
        assert queries[page]["title"] in text and (page != "recent_pauses" or f'href="/{USUAL}/pauses/1"' in text)
        shown = "cause FROM pauses WHERE id = 1" if page == "recent_pauses" else "command FROM process_events LIMIT 1"
        assert f">{rows(db, f'SELECT {shown}')[0][0]}<" in text


@pytest.mark.waits      # with the test before: a worker without it would need a live run of its own
@needs_datasette
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rh-pipe's live run here is of Linux")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_its_rows(live: tuple[Path, str, subprocess.Popen[bytes]], page: str) -> None:
    """As the server sends it, before a browser draws it."""
    db, address, _ = live
    with urllib.request.urlopen(address + PAGES[page], timeout=20) as answer:
        check_page(page, html.unescape(answer.read().decode()), db)


@pytest.mark.waits
@needs_datasette
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rh-pipe's live run here is of Linux")
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the pages were not looked at in a browser")
@pytest.mark.parametrize("page", PAGES if "RH_LONG" in os.environ else ["dashboard"])
def test_a_real_browser_shows_it(live: tuple[Path, str, subprocess.Popen[bytes]], tmp_path: Path, page: str) -> None:
    """Headless Chromium draws the page: the rows are in it, and the picture is not blank. The dashboard is the only page that
    a script draws; a browser takes 7 s of CPU time for each, so the others are left to RH_LONG."""
    db, address, loop = live
    loop.kill()     # its event is recorded
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900"]
    if page == "dashboard":
        flags.append("--virtual-time-budget=5000")      # the charts are fetched and drawn
    picture = tmp_path / "page.png"
    browser = [str(CHROMIUM), *flags]
    drawn = subprocess.run([*browser, f"--screenshot={picture}", "--dump-dom", address + PAGES[page]], capture_output=True,
                           timeout=120, check=True).stdout.decode()
    check_page(page, drawn, db)
    assert page != "dashboard" or drawn.count("vega-embed") >= 6
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 15_000
    if place := os.environ.get("RH_SCREENSHOTS"):
        shutil.copy(picture, Path(place) / f"datasette-{page.replace('/', '-')}.png")
