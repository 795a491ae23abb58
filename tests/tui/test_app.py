"""rh-top by its keys, in Textual's own driver; the socket is a feed made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual")

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.socket.address import SocketError
from rogue_hunter.reaper.candidate import Candidate
from rogue_hunter.tui import app as application
from rogue_hunter.tui.app import Ask, Detail, Lines, Top
from tests.reaper.fakes import RULES
from tests.tools.ticks import START, row
from tests.tui.feed import HOSTILE, Feed, answer, event, processes, running

Steps = Callable[[Top, Any], Awaitable[None]]


def drive(steps: Steps, size: tuple[int, int] = (100, 30), batches: Any = None) -> Top:
    """Run rh-top with a feed, do the steps, and end it."""
    top = Top(Path("/none"), Config(), lambda: START, Feed)  # type: ignore[arg-type]

    async def run() -> None:
        async with top.run_test(size=size) as pilot:
            for batch in running() if batches is None else batches:
                feed(top).give(batch)
            top.paint()
            await pilot.pause()
            await steps(top, pilot)

    asyncio.run(run())
    return top


def feed(top: Top) -> Feed:
    assert isinstance(top.reader, Feed)
    return top.reader


def part(top: Top, name: str) -> str:
    return top.screen_stack[0].query_one(f"#{name}", Lines).text()


def table(top: Top) -> list[str]:
    return part(top, "table").splitlines()[1:]


def test_the_parts_are_painted() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        assert "testhost" in part(top, "head") and "score  72 high" in part(top, "head")
        assert table(top)[0].startswith("    72    4001") and "COMMAND" in part(top, "table")
        assert "connected to rh-pipe 0.1.0 [4242]" in part(top, "panels") and "TRACKED 0" in part(top, "panels")
        assert "q quit" in part(top, "foot") and feed(top).running

    top = drive(steps)
    assert not feed(top).running


def test_sorting_reversing_and_other_metrics() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("s")
        assert top.order.sort == "cpu_percent" and "CPU%▼" in part(top, "table")
        await pilot.press("s")
        assert top.order.sort == "memory_bytes" and " 4002 " in table(top)[0]
        await pilot.press("r")
        assert " 4002 " in table(top)[-1]
        await pilot.press("S", "S")
        assert top.order.sort == "score"
        await pilot.press("right")
        assert "CPU%" not in part(top, "table")
        await pilot.press("left", "left")
        assert "CPU%" in part(top, "table")

    drive(steps)


def test_a_filter_while_it_is_typed() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("slash", *"backup")
        assert len(table(top)) == 1 and "4001" in table(top)[0]
        await pilot.press("q", "t", "k")        # letters of the filter, not commands
        assert table(top) == ["no process matches the filter"] and top.order.filter == "backupqtk"
        assert "backupqtk▏" in part(top, "foot")
        await pilot.press("backspace", "backspace", "backspace", "enter")
        assert top.order.filter == "backup" and "/backup 1 of 200" in part(top, "table")
        # rh-pipe searches in all processes, rh-top in those that it was sent: it asks again with each letter.
        assert "backupqtk" in feed(top).asked and feed(top).asked[-1] == "backup"
        await pilot.press("t")
        assert top.order.tree
        await pilot.press("t", "escape")
        assert top.order.filter == "" and len(table(top)) == 5

    drive(steps)


def test_a_tree_that_folds() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("t")
        assert table(top)[0].rstrip().endswith("▾ make[4000] (2)") and "python3 backup.py" in table(top)[1]
        assert "dd if=/dev/sda" in table(top)[3]       # a unit of one process is that process
        await pilot.press("home", "enter")
        assert table(top)[0].rstrip().endswith("▸ make[4000] (2)") and "backup" not in table(top)[1]
        await pilot.press("k")
        assert "select a process" in part(top, "foot")

    drive(steps)


def test_the_selection_stays_with_its_process() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("down", "down")
        assert top.selected is not None and top.selected.row["pid"] == 4002
        risen = [{**each, "score": 90} if each["pid"] == 4002 else each for each in processes()]
        feed(top).give(answer(risen))
        top.paint()
        assert top.selected.row["pid"] == 4002 and " 4002 " in table(top)[0]
        feed(top).give(answer([each for each in processes() if each["pid"] != 4002]))
        top.paint()
        assert top.selected.row["pid"] == 4001      # it is gone: the cursor stays on its line

    drive(steps)


def test_one_process_with_its_history_and_the_help() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("down", "up", "enter")
        assert isinstance(top.screen, Detail)
        text = top.screen.query_one(Lines).text()
        assert "backup.py [4001]  score 72 high" in text and "CPU" in text and "run_delay" not in text
        feed(top).give(answer([{**processes()[0], "score": 83, "band": "critical"}]))
        top.paint()
        assert "score 83 critical" in top.screen.query_one(Lines).text()
        await pilot.press("pagedown", "t", "escape")
        assert not isinstance(top.screen, Detail) and not top.order.tree
        await pilot.press("question_mark")
        assert "fold or unfold a unit" in top.screen.query_one(Lines).text()
        await pilot.press("q")
        assert not isinstance(top.screen, Detail) and top.is_running

    drive(steps)


def test_pause_stops_the_table_and_nothing_else() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("space")
        feed(top).give(answer([row(5000)]), event("enter", processes()[0]))
        top.paint()
        assert " 4001 " in table(top)[0] and part(top, "head").startswith("PAUSED") and "TRACKED 1" in part(top, "panels")
        await pilot.press("space")
        assert " 5000 " in table(top)[0] and "PAUSED" not in part(top, "head")

    drive(steps)


def test_only_what_changed_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(top: Top, pilot: Any) -> None:
        painted: list[int] = []
        lines = top.query_one("#table", Lines)
        monkeypatch.setattr(lines, "refresh", lambda region: painted.append(region.y))
        top.paint()
        assert painted == []
        feed(top).give(answer([{**each, "cpu_percent": 50.0} if each["pid"] == 4002 else each for each in processes()]))
        top.paint()
        assert painted == [3]

    drive(steps)


@pytest.mark.parametrize("size", [(20, 5), (80, 24), (200, 50), (10, 2)])
def test_any_size(size: tuple[int, int]) -> None:
    async def steps(top: Top, pilot: Any) -> None:
        assert table(top) or size[1] <= 2
        await pilot.press("down", "enter", "escape", "t", "s", "question_mark", "escape")
        await pilot.resize_terminal(90, 28)
        await pilot.pause()
        assert part(top, "foot").strip() and "testhost" in part(top, "head")

    drive(steps, size)


def test_disconnected_and_connected_again() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        top.model.disconnected("rh-pipe is not running", 1.5)
        top.paint()
        assert "rh-pipe is not running; trying again in 1.5s" in part(top, "head")
        assert " 4001 " in table(top)[0]
        for batch in running():
            feed(top).give(batch)
        top.paint()
        assert "testhost" in part(top, "head")
        assert "again" in part(top, "panels")

    drive(steps)


def test_an_rh_pipe_that_does_not_answer_is_still_painted() -> None:
    """It is connected and stopped: requests go out, nothing comes back."""
    async def steps(top: Top, pilot: Any) -> None:
        feed(top).answers = True
        top._beat()
        top.model.tick_at -= 10
        top._beat()
        assert "no tick for 10s" in part(top, "head")

    drive(steps)


def test_a_socket_of_another_user_ends_it() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        feed(top).error = SocketError("/s: served by user 7", 74)
        top.paint()
        await pilot.pause()

    assert drive(steps).return_value == 74


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("ctrl+c", 130)])
def test_it_ends_by_a_key(key: str, code: int) -> None:
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press(key)

    assert drive(steps).return_value == code


def test_hostile_names_are_text(tmp_path: Path) -> None:
    """Neither in the table nor in the screens is a bracket markup or an escape an escape."""
    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("end", "up", "enter")
        shown = top.screen.query_one(Lines).text()
        assert "[red]x[/red]" in shown and HOSTILE not in shown
        await pilot.press("escape", "slash", *"[red]", "enter")
        assert len(table(top)) == 1 and "\\x1b[2J[red]x[/red]" in table(top)[0]
        assert "\x1b" not in top.export_screenshot()

    drive(steps, (160, 40))


@pytest.mark.slow
def test_ten_thousand_processes() -> None:
    async def steps(top: Top, pilot: Any) -> None:
        assert len(table(top)) > 10
        await pilot.press("end", "s", "t", "home", "pagedown")
        assert "10000" in part(top, "table")

    rows = [row(n, cpu_percent=n % 97 / 10, unit=f"u{n % 300}", cmdline=f"program{n} --x") for n in range(2, 10_002)]
    drive(steps, batches=running(rows))


# -- terminate ---------------------------------------------------------------------------------------------------------


def killed(monkeypatch: pytest.MonkeyPatch, key: str) -> tuple[Top, list[str], list[tuple[int, bool]]]:
    """Press k and then a key; what was shown, and what was asked for."""
    shown: list[str] = []
    done: list[tuple[int, bool]] = []

    def stand_in(target: tuple[int, int], config: Config, confirm: Callable[[list[Candidate]], bool], stop: Any) -> str:
        match = {"pid": target[0], "rule": "manual", "command": HOSTILE, "cmdline": HOSTILE, "reason": "named by its pid"}
        answer_ = confirm([Candidate(match, RULES)])
        done.append((target[0], answer_))
        return f"p [{target[0]}] {'terminated' if answer_ else 'not killed: you declined'}"

    monkeypatch.setattr(application, "terminate", stand_in)

    async def steps(top: Top, pilot: Any) -> None:
        await pilot.press("down", "up", "k")
        for _ in range(200):
            await pilot.pause(0.02)
            if isinstance(top.screen, Ask):
                break
        shown.append(top.screen.query_one(Lines).text())
        await pilot.press(key)
        await top.workers.wait_for_complete()
        await pilot.pause()
        shown.append(part(top, "panels"))

    return drive(steps, (120, 30)), shown, done


@pytest.mark.slow
@pytest.mark.parametrize(("key", "does"), [("y", True), ("n", False), ("enter", False), ("escape", False), ("q", False)])
def test_the_question_of_rh_reap_decides(monkeypatch: pytest.MonkeyPatch, key: str, does: bool) -> None:
    top, (question, panel), done = killed(monkeypatch, key)
    assert "About to terminate 1 process" in question and "Proceed? [y/N]" in question
    assert HOSTILE not in question and "[red]x[/red]" in question
    assert done == [(4001, does)]
    assert ("terminated" if does else "you declined") in panel
    assert feed(top).logged == [f"warning: p [4001] {'terminated' if does else 'not killed: you declined'}"]
