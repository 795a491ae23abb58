"""actions and matches: what was done, what was asked for, in words and in records, by period, limit and text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Store
from rogue_hunter.report.queries import Period, Source, source
from rogue_hunter.report.render import Style, render
from rogue_hunter.report.views.events import actions, matches
from rogue_hunter.report.views.view import Asked
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream.tick import Record, Tick, record
from tests.store.test_rows_reap import NOW, a_match, an_action
from tests.tools.reports import CONFIG

HOSTILE = "x\x1b[2J\u202e\ny"
LOOK = Style(160, False, NOW + 60)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    writer = Writer(tmp_path / "x.db", Store(), lambda: NOW, lambda _: None)
    done: list[Record] = [
        an_action(ts=NOW - 30, command="first", cpu_recovered_percent=80.0, audit_seq=1),
        an_action(ts=NOW - 20, command=HOSTILE, outcome="refused", signals=None, signal=None, pid=4001,
                  refusals=["not_my_uid"], detail=f"belongs to {HOSTILE}", audit_seq=2),
        an_action(ts=NOW - 10, command="third", outcome="dry_run", signals=None, signal=None, pid=4002, dry_run=True,
                  reason=f"cpu 99 % of {HOSTILE}", rule="hung_test", audit_seq=3),
    ]
    asked = [a_match(NOW - 15), a_match(NOW - 5, rule="hung_test", command=HOSTILE, pid=4001, reason=HOSTILE)]
    writer.take(Tick(records=[*done, *asked]))
    writer.close()
    return tmp_path / "x.db"


@pytest.fixture
def opened(database: Path) -> Iterator[Source]:
    with source(database, NOW, CONFIG) as found:
        yield found


def asked(text: str = "", since: float = NOW - 100, limit: int | None = None, **more: Any) -> Asked:
    return Asked(Period(since, NOW + 1, text), limit, people=True, **more)


def words(answer: Any) -> str:
    shown = render(answer, "table", LOOK).decode()
    assert not set(shown) & set("\x1b\u202e\r"), shown
    return shown


def test_actions_newest_first_with_what_they_gave_back(opened: Source) -> None:
    answer = actions(opened, asked())
    assert [a["pid"] for a in answer.records] == [4002, 4001, 4000]
    assert answer.records[2]["signals"] == ["SIGTERM", "SIGKILL"] and answer.records[2]["bundle"] == {"wchan": "do_nanosleep"}
    assert answer.records[0]["dry_run"] is True and answer.records[1]["refusals"] == ["not_my_uid"]
    shown = words(answer)
    head, _, body = shown.partition("\n\n")
    assert set(head.partition(";")[0].split(", ")) == {"1 killed", "1 refused", "1 dry run"} and "80 % CPU given back" in head
    assert "SIGTERM SIGKILL" in body and r"x\x1b[2J\u202e\ny" in body and r"belongs to x\x1b" in body
    assert "cpu 99 % of" in body


def test_experiments_behind_the_actions(tmp_path: Path) -> None:
    """The verdicts of rh-reap prove, in a table of their own and as records; also where nothing else was done. A text
    chooses the suspect or the victim."""
    writer = Writer(tmp_path / "x.db", Store(), lambda: NOW, lambda _: None)
    writer.take(Tick(records=[
        record("proof", ts=NOW - 20, boot_id="b", pid=7, command=HOSTILE, victim_pid=8, victim_command="editor",
               verdict="not_proven", detail=f"too few trials of {HOSTILE}", trials=[[1.0, 2.0]], run="r", audit_seq=1),
        record("proof", ts=NOW - 10, boot_id="b", pid=9, command="hog", victim_pid=8, victim_command="editor",
               verdict="proven", detail="waited 80 % less", run="r", audit_seq=2)]))
    writer.close()
    with source(tmp_path / "x.db", NOW, CONFIG) as found:
        answer = actions(found, asked())
        assert [(each["type"], each["pid"]) for each in answer.records] == [("proof", 9), ("proof", 7)]
        assert answer.records[1]["trials"] == [[1.0, 2.0]] and answer.csv_rows == []
        shown = words(answer)
        assert shown.startswith("Experiments (rh-reap prove):") and "waited 80 % less" in shown and "not proven" in shown
        assert [each["pid"] for each in actions(found, asked("HOG")).records] == [9]
        assert len(actions(found, asked("editor")).records) == 2


def test_matches_newest_first(opened: Source) -> None:
    answer = matches(opened, asked())
    assert [m["rule"] for m in answer.records] == ["hung_test", "infinite_loop"]
    shown = words(answer)
    assert "PRIORITY" in shown and "infinite_loop" in shown and r"\x1b[2J" in shown


@pytest.mark.parametrize(("text", "pids"), [("FIRST", [4000]), ("hung_test", [4002]), ("third", [4002]), ("nobody", [])])
def test_a_text_chooses(opened: Source, text: str, pids: list[int]) -> None:
    assert [a["pid"] for a in actions(opened, asked(text)).records] == pids


def test_a_limit_says_what_is_left_out(opened: Source) -> None:
    answer = actions(opened, asked(limit=1))
    assert len(answer.records) == 1 and "2 more" in words(answer)
    assert len(matches(opened, asked(limit=1)).records) == 1


def test_no_actions_is_a_sentence(opened: Source) -> None:
    for view in (actions, matches):
        answer = view(opened, asked(since=NOW + 0.5))
        assert answer.records == [] and words(answer).count("\n") <= 2 and words(answer).strip()
