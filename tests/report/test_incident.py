"""The incident page: one file that is complete, inert, accessible and small; and the trace of the same time."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import itertools
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.cli.report import command
from rogue_hunter.commandline import run as cli_run
from rogue_hunter.report.chart import Markup, Timeline, axis, flame, stairs, tag, timeline
from rogue_hunter.report.incident_page import merged
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick, record
from tests.report.test_datasette import CHROMIUM
from tests.tools.captures import capture, parts
from tests.tools.history import CONFIG, GIB, MIB, Case, Proc, during, play, stages

HOSTILE = "</title><script>alert(1)</script>'\"><img src=x onerror=alert(1)>\x1b[2J\u202e{{}}"
START = 1_790_000_040.0
VOID = {"meta", "img", "br", "link"}
LIMIT = 300_000
"""Bytes of a page."""


def machine(t: float) -> dict[str, Any]:
    """A shortage of CPUs with a pause in it, then one of storage."""
    told: dict[str, Any] = {}
    if 15 <= t < 45:
        told |= {"pressure_cpu_some_ms_per_s": 900.0, "self_run_delay_ms": 20.0}
    if 22 <= t < 23:
        told |= {"late_s": 3.0, "self_run_delay_ms": 2900.0, "pressure_cpu_some_ms_per_s": 990.0}
    if 80 <= t < 100:
        told |= {"pressure_io_full_ms_per_s": 650.0}
    return told


CASE = Case("incident", "cpu", "ffmpeg", [
    Proc(7, "ffmpeg", during(3.2, 15, 45)), Proc(8, HOSTILE, during(0.7, 15, 60), memory=lambda t: (0.2 + max(0, t) / 40) * GIB),
    Proc(9, "rsync", during(0.2, 75, 100), disk=during(90e6, 75, 100)), Proc(11, "make", children=during(0.5, 0, 50))],
    machine)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four minutes: a pause, events, slices, a capture; names that try to be markup."""
    path = tmp_path_factory.mktemp("incident") / "x.db"
    end = START
    writer = Writer(path, CONFIG.store, lambda: end, lambda _: None)
    for tick in chain(play(CASE, START, random.Random(5)), *stages(writer)):
        end = tick.row["ts"] if tick.row else end
    stacks = [record("stack", capture="k1", pid=7, cpu=0, samples=n, stack=stack) for n, stack in (
        (60, "ffmpeg;main;decode_frame;idct"), (25, "ffmpeg;main;write_[k];copy_[k]"), (9, f"{HOSTILE};run"), (1, "[other stacks]"))]
    writer.take(Tick(records=[capture("k1", START + 26, command=HOSTILE), *parts("k1", START + 26), *stacks]))
    writer.close()
    return path


Report = Callable[..., str]


@pytest.fixture
def report(database: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes],
           tmp_path: Path) -> Iterator[Report]:
    """Run rh-report in this process, in UTC; gives standard output, or standard error if that is empty."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    time.tzset()

    def run(*args: str, code: int = 0, db: Path = database) -> str:
        assert cli_run.run(command, [*args, "--db", str(db)]) == code
        printed = capfdbinary.readouterr()
        return (printed.out or printed.err).decode()

    yield run
    monkeypatch.undo()
    time.tzset()


PERIOD = ("--since", f"@{START - 60:.0f}", "--until", f"@{START + 140:.0f}")


class Seen(HTMLParser):
    """What a browser would find: tags with their attributes, texts, and whether all tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


# -- the page ------------------------------------------------------------------------------------------------------------

def test_the_page_is_one_inert_file(report: Report) -> None:
    """No script, no handler, nothing that is loaded; the policy forbids all of it and names the style by its hash."""
    page = report("html", *PERIOD)
    seen = Seen(page)
    assert len(page.encode()) < LIMIT and page.startswith("<!DOCTYPE html>")
    assert not {"script", "iframe", "object", "embed", "link", "img", "base", "form", "use", "foreignobject", "a"} & {
        name for name, _ in seen.tags}
    assert not [attrs for _, attrs in seen.tags if any(
        name.startswith("on") or name in ("src", "href", "style", "xlink:href", "action") for name in attrs)]
    (style,) = [text for inside, text in seen.texts if inside == "style"]
    assert "url(" not in style and "@import" not in style and "http" not in page.replace("http-equiv", "")
    (policy,) = [attrs["content"] for attrs in seen.of("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_hostile_names_stay_names(report: Report) -> None:
    """In texts, attributes and titles; control characters are visible."""
    page = report("html", *PERIOD)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    said = " ".join(text for _, text in Seen(page).texts)
    assert "<script>alert(1)</script>" in said and r"\x1b[2J\u202e" in said
    made = tag("p", HOSTILE, title=HOSTILE, data_x=None, class_="c")
    assert made.startswith('<p title="&lt;/title&gt;&lt;script&gt;') and made.count("<") == 2
    assert tag("b", Markup("<i>x</i>"), ["a", None, 1], 2.0) == "<b><i>x</i>a12.0</b>"


def test_the_verdict_comes_first_and_is_that_of_why(report: Report) -> None:
    """One engine: the sentence of the page is the sentence of why."""
    page = report("html", *PERIOD)
    (why,) = map(json.loads, report("why", *PERIOD, "--ndjson").splitlines())
    seen = Seen(page)
    heads = [text for inside, text in seen.texts if inside in ("h1", "h2")]
    assert heads[0] == why["headline"].replace("2026-09-21 ", "") and "ffmpeg" in heads[0]
    assert heads[1:] == ["Timeline", "Likely causes, 0 to 100 points", *(["Processes that waited"] if why["victims"] else []), "Not the cause",
                         "Pauses", "On the CPUs", "Events", "Captures: which process blocks which", "The machine"]
    said = " ".join(text for _, text in seen.texts)
    for cause in why["causes"][:3]:
        assert cause["words"].replace("2026-09-21 ", "") in said
    assert "blocks" in said and "rh-report html --since" in said


def test_it_is_accessible(report: Report) -> None:
    """A language and a title; each drawing has a name, the timeline a description and a table; heads of columns are heads."""
    seen = Seen(report("html", *PERIOD))
    assert seen.of("html")[0]["lang"] == "en" and next(text for inside, text in seen.texts if inside == "title").startswith("Incident ")
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) == 6
    for attrs in seen.of("svg"):
        if attrs.get("role") == "img":
            assert attrs.get("aria-label") or set((attrs["aria-labelledby"] or "").split()) <= set(ids)
        else:
            assert attrs["aria-hidden"] == "true"
    described = [text for inside, text in seen.texts if inside == "desc"]
    assert described and "CPU usage was highest with" in described[0] and "1 pause of the machine" in described[0]
    assert all(attrs["scope"] == "col" for attrs in seen.of("th")) and len(seen.of("details")) == 2
    assert sum(name == "h1" for name, _ in seen.tags) == 1


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.1)."""
    parts = [int(colour[n:n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2])
def test_contrast(scheme: int) -> None:
    """WCAG 2.1: 4.5 for text and 3 for lines, in the light and the dark scheme and in print."""
    css = (Path(cli_run.__file__).parent.parent / "data" / "incident.css").read_text()
    found = [dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", part)) for part in re.findall(r":root \{[^}]*\}", css)]
    colours = found[scheme]
    for ground in (colours["ground"], colours["panel"]):
        assert contrast(colours["text"], ground) >= 7
        assert min(contrast(colours[name], ground) for name in ("muted", "bad")) >= 4.5
        assert min(contrast(colours[name], ground) for name in ("cpu", "memory", "disk")) >= 3
    assert contrast(colours["muted"], colours["asked"]) >= 4.5


@pytest.mark.parametrize("args", [("--pause", "1"), ("--event", "1"), ("--at", f"@{START + 23:.0f}"), PERIOD, ("--at", f"@{START - 9000:.0f}")])
def test_a_pause_an_event_a_moment_a_period(report: Report, args: tuple[str, ...]) -> None:
    page = report("html", *args)
    heads = [text for inside, text in Seen(page).texts if inside == "h1"]
    assert len(heads) == 1 and len(page) < LIMIT
    assert heads[0].startswith("No data:") == (args == ("--at", f"@{START - 9000:.0f}"))


def test_stacks_of_a_capture_that_was_made_just_after(report: Report) -> None:
    """A capture is made after its pause began and may be stored after the time that is asked for: its stacks are shown
    beside its blame."""
    made = report("html", "--since", f"@{START:.0f}", "--until", f"@{START + 20:.0f}")
    assert "On the CPUs" in made and "decode_frame" in made


def test_missing_parts(report: Report, tmp_path: Path) -> None:
    assert "no such pause" in report("html", "--pause", "99", code=65)
    assert "no such event" in report("trace", "--event", "99", code=65)
    assert "exclude each other" in report("html", "--pause", "1", "--at", "@1", code=2)
    assert "--at is a moment" in report("html", "--since", "1h", "--at", "@1", code=2)
    empty = tmp_path / "empty.db"
    Writer(empty, CONFIG.store, lambda: START, lambda _: None).close()
    assert "No data: nothing was recorded yet." in report("html", db=empty)


def test_the_timeline_is_of_the_time_that_is_recorded(report: Report) -> None:
    """Of a day of which four minutes are known, the minutes are drawn; around a pause both sides are."""
    for args in (("--since", f"@{START - 40000:.0f}", "--until", f"@{START + 40000:.0f}"), ("--pause", "1")):
        named = next(text for inside, text in Seen(report("html", *args)).texts if inside == "title" and text.startswith("Timeline"))
        since, until = re.findall(r"\d\d:\d\d:\d\d", named)
        assert ("14:12:00" if args[0] == "--pause" else "14:11:00") <= since <= "14:12:40" and "14:16:00" <= until <= "14:17:10", named


def test_what_the_colours_mean(report: Report) -> None:
    """Only what can be seen is explained; a pause in which nothing was measured is not one of the machine."""
    page = report("html", *PERIOD)
    assert "the time of this report" in page and "the machine paused" in page
    assert "program: its share of 95 samples is its width" in page and ">kernel<" in page
    pause = report("html", "--pause", "1")      # the pause covers the time in question
    assert "the time of this report" not in pause and 'class="asked"' not in pause and 'class="paused"' in pause


def test_a_stop_of_rh_pipe_is_no_pause_of_the_machine(database: Path, report: Report, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped.db"
    shutil.copy(database, stopped)
    with closing(sqlite3.connect(stopped)) as connection, connection:
        connection.execute("UPDATE pauses SET cause = 'stopped'")
    page = report("html", *PERIOD, db=stopped)
    assert "rh-pipe was stopped: not measured" in page and "the machine paused</span>" not in page


def test_into_a_file_that_others_cannot_read(report: Report, tmp_path: Path) -> None:
    file = tmp_path / "incident.html"
    assert report("html", *PERIOD, "-o", str(file)) == ""
    assert file.read_text("utf-8").endswith("</html>\n") and file.stat().st_mode & 0o777 == 0o600


def test_a_day_stays_small() -> None:
    """However many slices there are, the timeline has a few hundred steps; the worst of each is kept."""
    rows = [{"slice": START + 5 * n, "seconds": 5.0, "cpu_busy_cores": 0.5 + (n == 8000), "cpus": 4, "disk_bytes": 5 << 20,
             "memory_total_bytes": 100, "memory_available_bytes": 40, "pressure_io_full_ms_per_s": 10.0} for n in range(17280)]
    made = merged(rows, START, START + 86400)
    assert len(made) <= 151 and max(one["cpu"] for one in made) == 1.5
    assert {(one["memory"], one["disk"], one["io_wait"]) for one in made} == {(0.6, float(MIB), 0.01)}
    assert "cpu_wait" not in made[0]


def test_gaps_are_gaps_and_times_are_round() -> None:
    """Nothing is drawn where nothing was recorded; labels of the axis are at round times and do not touch."""
    assert stairs([(0, 5, 1.0), (5, 10, 2.0), (60, 65, 3.0)], lambda x: x, lambda y: y) == "M0.0 1.0H5.0V2.0H10.0M60.0 3.0H65.0"
    assert stairs([], lambda x: x, lambda y: y) == ""
    for length in (3, 61, 600, 4000, 90_000, 3_000_000):
        ticks = axis(START, START + length, 300)
        assert len(ticks) <= 4 and all(later - sooner >= length / 5 for (sooner, _), (later, _) in itertools.pairwise(ticks))
    drawn = timeline(Timeline(START, START + 60, (START, START + 60), [(START + 5, START + 8)]), 360, "p", "t", "d")
    assert drawn.count("<rect") == 1 and 'class="paused"' in drawn


def test_a_flame_graph_is_as_wide_as_its_samples() -> None:
    """Children lie within their parent, next to each other; what is narrower than two pixels is left out."""
    drawn = flame([("a;b;c", 60), ("a;b", 20), ("a;d_[k]", 19), ("z", 1)], 102, "p", "t")
    rects = [(title, float(x), float(y), float(wide)) for title, x, y, wide in re.findall(
        r"<title>(\S+): [^<]*</title><rect class=\"[a-z ]+\" x=\"([0-9.]+)\" y=\"([0-9.]+)\" width=\"([0-9.]+)\"", drawn)]
    assert [(name, x, y) for name, x, y, _ in rects] == [("a", 1.0, 0.0), ("b", 1.0, 17.0), ("d_[k]", 81.0, 17.0), ("c", 1.0, 34.0)]
    assert [wide for *_, wide in rects] == [98.5, 79.5, 18.5, 59.5] and drawn.count("kernel") == 1
    assert "&lt;b&gt;: 5 samples" in flame([("<b>", 5)], 100, "p", "t") and "<svg" in flame([], 100, "p", "t")


# -- in a browser --------------------------------------------------------------------------------------------------------

FRAME = """<!DOCTYPE html><body style="margin:0"><iframe id="f" src="incident.html" style="border:0;width:{width}px;height:2000px"></iframe>
<script>addEventListener("load", () => {{ const d = document.getElementById("f").contentDocument;
const wide = [...d.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > {width} + 1 && e.tagName != "THEAD" && !e.closest("thead"));
const shown = [...d.querySelectorAll("svg.timeline")].filter(e => e.getBoundingClientRect().width > 0).map(e => e.getAttribute("class"));
document.title = JSON.stringify({{scroll: d.documentElement.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 120)), shown: shown,
height: d.documentElement.scrollHeight, colour: getComputedStyle(d.body).backgroundColor}}); }});</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., bytes]:
    """Run headless Chromium with these arguments."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]

    def run(*args: str) -> bytes:
        return subprocess.run([str(CHROMIUM), *flags, *args], capture_output=True, timeout=120, check=True).stdout

    return run


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the page was not looked at in a browser")
@pytest.mark.parametrize(("width", "shown", "dark"), [(1280, "timeline wide", False), (400, "timeline narrow", False),
                                                      (1280, "timeline wide", True)])
def test_a_real_browser_shows_it(report: Report, browser: Callable[..., bytes], tmp_path: Path, width: int, shown: str, dark: bool) -> None:
    """Nothing is wider than the window, the drawing for that width is shown, the scheme is followed, from a file without
    a server. RH_SCREENSHOTS keeps the pictures."""
    (tmp_path / "incident.html").write_text(report("html", "--pause", "1"), "utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width), "utf-8")
    handler = functools.partial(Quiet, directory=str(tmp_path))
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        drawn = browser(*scheme, "--virtual-time-budget=4000", "--window-size=1400,2000", "--dump-dom",
                        f"http://127.0.0.1:{server.server_address[1]}/frame.html").decode()
        server.shutdown()
    found = json.loads(re.sub("&quot;", '"', re.search("<title>(.*?)</title>", drawn, re.S).group(1)))  # type: ignore[union-attr]
    assert found["scroll"] <= width and found["wide"] == [] and found["shown"] == [shown]
    picture = tmp_path / "page.png"
    browser(*scheme, f"--window-size={width},{min(found['height'], 6000)}", f"--screenshot={picture}", (tmp_path / "incident.html").as_uri())
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 40_000
    if place := os.environ.get("RH_SCREENSHOTS"):
        shutil.copy(picture, Path(place) / f"incident-{width}{'-dark' if dark else ''}.png")


# -- the trace -----------------------------------------------------------------------------------------------------------

def test_the_trace_is_of_chrome_trace_events(report: Report) -> None:
    """Spans with times in microseconds that do not overlap on a track, counters with numbers, names for all tracks."""
    trace = json.loads(report("trace", *PERIOD))
    events = trace["traceEvents"]
    assert trace["displayTimeUnit"] == "ms" and {e["ph"] for e in events} == {"M", "X", "C", "i"}
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names[1] == "machine" and any(name == "ffmpeg (pid 7)" for name in names.values())
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for e in events:
        assert isinstance(e["pid"], int) and isinstance(e["tid"], int) and e["pid"] in names
        if e["ph"] != "M":
            assert isinstance(e["ts"], int) and (START - 70) * 1e6 <= e["ts"] <= (START + 160) * 1e6
        if e["ph"] == "C":
            assert isinstance(e["args"]["value"], (int, float))
        if e["ph"] == "X":
            assert e["dur"] >= 1
            tracks.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
    for spans in tracks.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    (pause,) = [e for e in events if e.get("cat") == "pause"]
    assert pause["name"] == "pause: cpu" and pause["args"]["culprits"][0].startswith("ffmpeg (pid 7)")
    assert [e["s"] for e in events if e["ph"] == "i"] == ["g"]
    assert {e["name"] for e in events if e["ph"] == "C" and e["pid"] == 1} >= {"busy cores", "disk, MiB/s", "available memory, MiB"}


# -- usage ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("by", "command"), [("cpu", "ffmpeg"), ("disk", "rsync"), ("memory", HOSTILE), ("wakeups", None)])
def test_usage_is_ranked_by_the_resource_that_was_asked_for(report: Report, by: str, command: str | None) -> None:
    """Sums of the minutes, the highest minute of memory, and the minute in which a command used most."""
    rows = [json.loads(line) for line in report("usage", "--by", by, *PERIOD, "--ndjson").splitlines()]
    column = {"cpu": "cpu_seconds", "memory": "memory_bytes", "disk": "disk_bytes", "wakeups": "wakeups"}[by]
    amounts = [row[column] for row in rows]
    assert amounts == sorted(amounts, reverse=True) and amounts[-1] > 0
    assert command is None or "".join(c for c in rows[0]["command"] if c.isprintable())[:12] == "".join(
        c for c in command if c.isprintable())[:12]
    assert all(row["peak_minute"] % 60 == 0 and START - 120 <= row["peak_minute"] <= START + 180 for row in rows)
    assert report("usage", "--by", by, *PERIOD, "--table", "-n", "1").count("\n") == 3
