"""The picture of rh-top: it fits any terminal, and a name that a process chose is only text."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("textual")

from rogue_hunter.report.sentences import command_line
from rogue_hunter.text.format import columns
from rogue_hunter.tui import view
from rogue_hunter.tui.app import STYLES
from rogue_hunter.tui.model import Model, Order
from rogue_hunter.tui.view import COLUMNS, whole
from tests.tools.ticks import START
from tests.tui.feed import HOSTILE, event, processes, running


@pytest.fixture
def model() -> Model:
    """With an open event of the hostile process, and one that ended."""
    made = Model(lambda: START + 1)
    for batch in [*running(), event("enter", processes()[3]), event("enter", processes()[0], "e2"),
                  event("exit", processes()[2], "e3", reason="below_threshold")]:
        made.take(batch)
    return made


def picture(model: Model, width: int, height: int, **order: object) -> list[view.Line]:
    """All parts, one below the other, and the views of one process and of help."""
    sizes = view.Sizes.of(height)
    arranged = Order(**order)  # type: ignore[arg-type]
    entries = model.entries(arranged)
    layout = view.Layout.of(entries, width, 0)
    lines = [*view.head(model, width, START)[:sizes.head],
             view.header(layout, arranged, width, len(entries), len(entries)),
             *(view.row_line(entry, layout, width, n == 1, False, False) for n, entry in enumerate(entries)),
             *(view.panels(model, width, sizes.panels, START) if sizes.panels else []), view.foot(width)]
    return [*lines, *view.detail(model, (4004, 1000), {}, width), *view.help_lines(width)]


def plain(line: view.Line) -> str:
    return "".join(text for text, _ in line)


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (60, 20), (40, 10), (20, 5), (100, 30), (300, 90)])
def test_every_line_has_the_width_of_the_terminal(model: Model, width: int, height: int, tree: bool) -> None:
    for line in picture(model, width, height, tree=tree):
        text = plain(line)
        assert columns(text) <= width, text
        assert not [c for c in text if ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c == "\u202e"], text


def test_the_parts_share_the_lines_of_the_terminal() -> None:
    for height in range(1, 120):
        sizes = view.Sizes.of(height)
        assert sizes.head + sizes.table + sizes.panels + sizes.foot <= max(height, 2)
        assert sizes.table >= 1


def test_the_command_is_never_squeezed_out(model: Model) -> None:
    """At 80 columns the name of the program is there, its directory is not."""
    lines = [plain(line) for line in picture(model, 80, 24)]
    (loop,) = (text for text in lines if " 4001 " in text and "99.5" in text)
    assert loop.startswith("    72    4001") and "python3 backup.py --all" in loop
    assert any(text.rstrip().endswith("[idle]") for text in lines)


def test_a_program_is_shown_by_its_name_and_a_command_of_ours_as_it_is_typed() -> None:
    """The directory says little in a narrow column; one that is not the program's own is left."""
    for line, command, exe, shown in (
            ("/usr/lib/x/firefox -p", "firefox", "", "firefox -p"), ("./venv/bin/python a.py", "python", "", "python a.py"),
            ("/opt/a/b c", "other", "/opt/a/b", "b c"), ("[x/y] z", "w", "", "[x/y] z"), ("", "kworker", "", "[kworker]"),
            ("/v/bin/python -P -m rogue_hunter pipe -q", "rh-pipe", "/v/bin/python", "rh-pipe -q")):
        assert view.command_text({"cmdline": line, "command": command, "exe": exe}) == shown
    assert command_line({"cmdline": "/v/bin/python -P -m rogue_hunter pipe -q", "command": "rh-pipe"}) == "rh-pipe -q"


def test_the_head_says_what_the_machine_does(model: Model) -> None:
    first, gauge, scores = (plain(line) for line in view.head(model, 100, START, ["PAUSED"]))
    assert first.startswith("PAUSED  testhost") and "0.1 of 8 CPUs" in first and "200 processes" in first
    assert gauge.startswith("score  72 high     ██████████████████████░░░░░░░░  backup.py [4001]  cpu")
    assert "no tick for 4.0s" in plain(view.head(model, 100, START + 5)[0]) and "no tick" not in first
    assert scores.startswith("highest ") and scores.rstrip().endswith("▆▆▆")
    model.disconnected("rh-pipe is not running", 1.5)
    assert "trying again in 1.5s" in plain(view.head(model, 100, START + 1)[0])


def test_a_hostile_name_is_shown_and_does_nothing(model: Model) -> None:
    """Escapes are visible, and brackets, which are markup elsewhere, stay brackets."""
    text = "\n".join(map(plain, picture(model, 200, 50)))
    assert "\\x1b[2J[red]x[/red]\\u202eevil\\nline[b" in text and HOSTILE not in text


def test_what_happened_is_wrapped(model: Model) -> None:
    """The reason of a refusal is at its end; the last lines are those that are shown."""
    model.note("high", "sh [8843] not killed: one of its user ids is root's, and it is a session leader")
    lines = [plain(line).split("│")[0].rstrip() for line in view.panels(model, 80, 6, START)]
    assert lines[-1].strip().endswith("session leader") and lines[-1].startswith("         ")
    assert "sh [8843] not killed: one of its" in lines[-2] and len(lines) == 6


def test_work_of_children_is_named(model: Model) -> None:
    """A score of 72 beside a CPU use of 1 % needs its reason; a disk's does not change."""
    uses = next(column for column in COLUMNS if column.field == "dominant_resource")
    made = {"score": 72, "dominant_resource": "cpu", "cpu_percent": 1.0}
    assert uses.cell({**made, "children_cpu_percent": 80.0}) == "children" and uses.cell(made) == "cpu     "
    assert uses.cell({**made, "children_cpu_percent": 80.0, "dominant_resource": "disk"}) == "disk    "
    assert whole("cpu_share", 0.349) == "35 %"


def test_pressure_says_that_it_is_waiting(model: Model) -> None:
    """`cpu 48%` beside the busy CPUs reads like a use of them."""
    model.tick["pressure_cpu_some_ms_per_s"] = 480.0
    assert "wait for CPU 48%" in plain(view.head(model, 200, START)[0])


def test_the_titles_can_be_read_on_any_palette() -> None:
    """Black on cyan: 7 to 1 and more in the usual palettes, where white on blue has as little as 2."""
    title = STYLES["title"]
    assert title.color is not None and title.bgcolor is not None and (title.color.name, title.bgcolor.name) == ("black", "cyan")


def test_more_metrics_are_further_right(model: Model) -> None:
    entries = model.entries(Order())
    first, later = view.Layout.of(entries, 80, 0), view.Layout.of(entries, 80, 5)
    assert first.columns[0].title == "CPU%" and first.more > 0 and first.command >= view.COMMAND
    assert later.columns[0] not in first.columns[:5] and view.Layout.of(entries, 80, 99).columns


def test_the_view_of_one_process_has_every_metric_and_survives_its_end(model: Model) -> None:
    loop = processes()[0]
    text = "\n".join(map(plain, view.detail(model, (4001, 1000), loop, 100)))
    assert "backup.py [4001]  score 72 high" in text and "/usr/bin/python3 backup.py --all" in text
    assert re.search(r"cpu +99\.5 %", text) and "make[4000]" in text and "_per_s" not in text
    shared = "\n".join(map(plain, view.detail(model, (4001, 1000), {**loop, "pid": 1, "cpu_share": 0.349}, 100)))
    assert "0.349" not in shared
    model.take([b'{"type":"processes","v":1,"total":0,"rows":[]}\n'])
    assert "GONE" in plain(view.detail(model, (4001, 1000), loop, 100)[0])


def test_tracked_events_and_what_ended(model: Model) -> None:
    text = "\n".join(map(plain, view.panels(model, 120, 8, START)))
    assert "TRACKED 2" in text and " 72  1m 00s backup.py [4001]" in text and "ended" in text
    assert "dd (pid 4003) calmed down after 1m 00s, peak 50" in text
