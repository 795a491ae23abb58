"""What rh-top keeps of the records, and how its table is arranged."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rogue_hunter.tui.model import Model, Order
from rogue_hunter.tui.view import COLUMNS, SORTS, brief, known
from tests.tools.ticks import START, key, row
from tests.tui.feed import answer, event, line, processes, running, state, tick


@pytest.fixture
def model() -> Model:
    """After three ticks and an answer."""
    made = Model(lambda: START)
    for batch in running():
        made.take(batch)
    return made


def pids(model: Model, **order: Any) -> list[int | str]:
    return [entry.row.get("pid", entry.key) for entry in model.entries(Order(**order))]


def test_the_answer_replaces_the_processes_and_adds_a_point_to_their_history(model: Model) -> None:
    rows = processes()
    assert list(model.rows) == [key(each) for each in rows]
    model.take(answer(rows[:2]))
    assert list(model.rows) == [(4001, 1000), (4002, 1000)] == list(model.histories)
    assert [point.cpu_percent for point in model.histories[4001, 1000]] == [99.5, 99.5]
    assert model.find((4003, 1000)) is None and model.find("make[4000]") is None


def test_a_filter_keeps_the_histories_of_the_other_processes(model: Model) -> None:
    """What matches a filter comes alone; the bound is of all that are kept."""
    rows = processes()
    model.take([line("processes", ts=START, total=5, filter="x", rows=rows[2:3])])
    assert list(model.rows) == [(4003, 1000)] and set(model.histories) == {key(each) for each in rows}
    model.take(answer(rows))
    assert [len(model.histories[key(each)]) for each in rows] == [2, 2, 3, 2, 2]


def test_the_table_is_sorted_by_any_field_and_unknown_values_come_last(model: Model) -> None:
    assert pids(model) == [4001, 4003, 4002, 4004, 4005]
    assert pids(model, sort="memory_bytes")[0] == 4002
    assert pids(model, sort="user", ascending=True)[1:] == [4001, 4002, 4005, 4003]
    assert pids(model, sort="score", ascending=True) == [4004, 4002, 4003, 4001, 4005]
    for field in SORTS:
        assert sorted(map(str, pids(model, sort=field))) == ["4001", "4002", "4003", "4004", "4005"], field


def test_a_filter_is_searched_in_names_arguments_users_units_and_pids(model: Model) -> None:
    assert pids(model, filter="BACKUP") == [4001]
    assert pids(model, filter="make") == [4001, 4002] and pids(model, filter="root") == [4003]
    assert pids(model, filter="4005") == [4005] and pids(model, filter="[red]") == [4004]
    assert pids(model, filter="no such") == []


def test_a_tree_has_the_sums_of_each_unit_and_its_processes_below(model: Model) -> None:
    entries = model.entries(Order(tree=True))
    first, *below = entries[:3]
    assert (first.key, first.members, first.depth) == ("make[4000]", 2, 0)
    assert first.row["cpu_percent"] == 144.5 and first.row["score"] == 72 and first.row["band"] == "high"
    assert [(entry.row["pid"], entry.depth) for entry in below] == [(4001, 1), (4002, 1)]
    folded = model.entries(Order(tree=True, folded={"make[4000]"}))
    assert len(folded) == len(entries) - 2 and folded[1].key == (4003, 1000)


def test_only_the_rogues(model: Model) -> None:
    assert pids(model, only_rogues=True) == [4001, 4003, 4002, 4004]


def test_an_older_rh_pipe_sends_the_rogues_only(model: Model) -> None:
    """It answers the request with an error; the ticks are the table then, until another one is connected."""
    model.take([line("error", stage="rh-pipe", message="takes records of the types log, prune_request")])
    assert not model.answers_processes
    model.take(tick(9, processes()[:2]))
    assert pids(model) == [4001, 4002]
    model.take([state()])
    assert model.answers_processes


def test_events_are_tracked_until_they_end(model: Model) -> None:
    loop = processes()[0]
    model.take(event("enter", loop))
    model.take(event("band", {**loop, "band": "critical", "score": 81}))
    assert list(model.open) == ["e1"] and model.open["e1"]["band"] == "critical"
    model.take(event("exit", loop, reason="exited"))
    assert not model.open and model.ended[0]["event"] == "e1"
    texts = [text[9:] for _, text in model.log]
    assert texts[-3:] == [
        "backup.py (pid 4001) began to hog cpu: score 72 high, 100 % of a core; backup.py: /usr/bin/python3 backup.py --all",
        "backup.py (pid 4001) changed to score 81 critical after 1m 00s", "backup.py (pid 4001) exited after 1m 00s, peak 72"]
    model.take([state(events=[{"event": "e2", "pid": 1, "start_ticks": 1, "entered": START}])])
    assert list(model.open) == ["e2"] and list(model.scores) == [40] * 4


def test_what_rh_top_did_is_not_reported_twice(model: Model) -> None:
    """rh-pipe sends the action too, which it read from the audit file."""
    done = line("action", ts=START + 2, outcome="terminated", rule="manual", command="p", pid=7, signal="SIGTERM", wait_s=0.1)
    model.note("high", "p [7] terminated by SIGTERM after 0.1 s (manual)")
    before = len(model.log)
    model.take([done])
    assert len(model.log) == before
    model.take([done.replace(b'"pid":7', b'"pid":8')])
    assert len(model.log) == before + 1


def test_what_is_no_record_is_ignored(model: Model) -> None:
    before = pids(model)
    for wrong in (b"no json\n", b"[]\n", b'{"v":1}\n', line("processes", rows=[{"pid": 1}], total=1), line("event"),
                  line("processes"), line("unheard", x=1)):
        model.take([wrong])
    assert pids(model) == before


def test_a_lost_connection_is_noted_once_and_the_table_stays(model: Model) -> None:
    for _ in range(3):
        model.disconnected("rh-pipe is not running", 1.5)
    assert not model.connected and model.retry_at == START + 1.5 and len(model.rows) == 5
    assert sum("is not running" in text for _, text in model.log) == 1


def test_processes_that_ended_are_not_listed(model: Model) -> None:
    model.take(answer([row(1), row(2, ended=True)]))
    assert pids(model) == [1]


def test_every_metric_of_the_schema_is_a_column() -> None:
    from rogue_hunter.schema.sampling import METRICS

    assert {f.name for f in METRICS} - {column.field for column in COLUMNS} == {"score"}
    rows = processes()
    for column in known(rows):
        for each in rows:
            assert len(column.cell(each)) == column.width
    assert [brief(v) for v in (0, 812, 1200, 34_000, 5_600_000, 2e9, 3e12)] == [
        "0", "812", "1.2k", "34k", "5.6M", "2.0G", "3000G"]


def test_ten_thousand_processes_are_arranged_in_a_tenth_of_a_second() -> None:
    """One reading with its history, a sort and a tree, by the CPU time of the thread: 30 ms here."""
    made = Model(lambda: START)
    batch = answer([row(n, cpu_percent=n % 97 / 10, unit=f"u{n % 300}", cmdline=f"program{n} --x") for n in range(2, 10_002)])
    made.take(batch)
    took = []
    for _ in range(3):
        began = time.thread_time()
        made.take(batch)
        assert len(made.entries(Order(sort="cpu_percent"))) == 10_000
        took.append(time.thread_time() - began)
    assert min(took) < 0.5
    assert len(made.entries(Order(tree=True))) == 10_300
