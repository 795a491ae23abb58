"""What rules would have done in recorded history, on the database's own tables."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any

import pytest

from rogue_hunter.rules import backtest as module
from rogue_hunter.rules.backtest import Firing, Summary, backtest, history, summary
from rogue_hunter.rules.load import builtin, parse
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.store.tables import PROCESS_EVENTS, PROCESS_SNAPSHOTS
from tests.tools.rules import rules

T0 = 1_700_000_000.0


class History:
    """A database in memory, filled with what processes did."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:")
        for table in (PROCESS_EVENTS, PROCESS_SNAPSHOTS):
            for statement in table.create():
                self.db.execute(statement)
        self.events = 0

    def process(self, pid: int, cpu: list[float], *, every_s: float = 30.0, ended: str | None = None,
                after_s: float = 0.0, age_s: float = 1000.0, skip: range = range(0), **fields: Any) -> None:
        """A process that used so many CPU seconds between snapshots; its event ended `after_s` after the last."""
        self.events += 1
        who = {"boot_id": "b", "pid": pid, "start_ticks": 7, "command": "victim", "exe": "/bin/victim",
               "cmdline": "victim", "ppid": 500, "start_time": T0 - age_s, **fields}
        last = T0 + every_s * (len(cpu) - 1)
        self._insert(PROCESS_EVENTS, id=self.events, event=f"e{self.events}", entry_time=T0, last_seen=last,
                     reason=ended, exit_time=last + after_s if ended else None, **who)
        total = 0.0
        for i, used in enumerate(cpu):
            total += used
            if i not in skip:
                self._insert(PROCESS_SNAPSHOTS, event_id=self.events, snapshot_type="checkpoint",
                             captured_at=T0 + every_s * i, cpu_seconds_total=total, cpu_percent=5.0, **who)

    def _insert(self, table: Any, **values: Any) -> None:
        statement = table.insert(*(c.name for c in table.columns)) if "id" in values else table.insert()
        self.db.execute(statement, defaultdict(lambda: None, values))

    def firings(self, ruleset: Any) -> list[Firing]:
        return backtest(ruleset, history(self.db, T0 - 1, T0 + 10**6))


LOOP = rules("cpu_percent_min = 90", "duration_seconds = 300", name="loop")


def test_a_loop_fires_when_its_window_is_full_and_says_what_that_saves() -> None:
    h = History()
    h.process(2000, [0.0] + [29.9] * 40)
    (firing,) = h.firings(LOOP)
    # The level is the average between two snapshots (99.7 %), not the reading in them (5 %).
    assert (firing.rule, firing.ts - T0, firing.evidence) == ("loop", 270.0, "window")
    assert firing.regret == firing.ended == ""
    assert firing.cpu_seconds_saved == round(29.9 * 31, 2) and firing.reason.startswith("cpu 99.67 % for 4m 30s")
    assert summary([firing])[0].cpu_seconds_saved == 926.9


def test_bursts_and_gaps_do_not_fire() -> None:
    h = History()
    h.process(2000, [0.0, 29.9, 29.9, 29.9, 29.9, 0.1, 0.1] * 10)
    h.process(2001, [0.0] + [29.9] * 14, skip=range(5, 11))  # no history for three minutes
    assert h.firings(LOOP) == []


def test_regrets() -> None:
    h = History()
    busy = [0.0] + [29.9] * 12
    h.process(2000, busy, ended="exited", after_s=10)
    h.process(2001, busy, ended="below_threshold")
    h.process(2002, busy, tty="pts/3")
    h.process(2003, [0.0] + [29.9] * 30, ended="exited")
    h.process(2004, busy, ended="stopped")
    assert {f.pid: f.regret for f in h.firings(LOOP)} == {
        2000: "it ended by itself 100 s later", 2001: "it calmed down by itself", 2002: "it had a terminal: pts/3",
        2003: "it ended by itself later", 2004: ""}
    (row,) = summary(h.firings(LOOP))
    assert (row.rule, row.firings, row.regrets) == ("loop", 5, 4)


def test_the_whitelist_exclusions_and_other_rules_count_as_they_do_live() -> None:
    h = History()
    busy = [0.0] + [29.9] * 12
    h.process(2000, busy, command="vim")
    h.process(2001, busy, command="rustc")
    h.process(2002, busy, command="test_ch04_debug", exe="/tmp/test_ch04_debug", age_s=4000.0)
    assert [(f.pid, f.rule) for f in h.firings(builtin())] == [
        (2002, "zombie_test_binary"), (2001, "macos_cpu_limit"), (2002, "macos_cpu_limit"), (2002, "infinite_loop")]


def test_a_slow_pattern_ends_the_rule_and_not_the_backtest() -> None:
    h = History()
    h.process(2000, [0.0, 1.0], command="a" * 40 + "b")
    h.process(2001, [0.0, 1.0], command="aaa")
    both = parse(b'[[rules]]\nname = "slow"\nconditions = { command_patterns = ["^(a+)+$"] }\n'
                 b'[[rules]]\nname = "good"\nconditions = { command_patterns = ["^a"] }\n')
    assert [(f.pid, f.rule) for f in h.firings(both)] == [(2000, "good"), (2001, "good")]


def test_only_the_time_that_was_asked_for() -> None:
    h = History()
    h.process(2000, [0.0] + [29.9] * 40)
    assert backtest(LOOP, history(h.db, T0, T0 + 200)) == []


def snapshot(at_s: float, **fields: Any) -> dict[str, Any]:
    """One as the database gives it, so long after the beginning."""
    return {"boot_id": "b", "pid": 2000, "start_ticks": 7, "captured_at": T0 + at_s, "command": "victim",
            "exe": "", "cmdline": "", **fields}


def when(found: list[Firing]) -> list[float]:
    return [f.ts - T0 for f in found]


BUSY = rules("cpu_percent_min = 50", name="busy")


class TestCpu:
    """Between two snapshots by the counter, else by the reading."""

    @pytest.mark.parametrize(("gap_s", "fires"), [(120.0, [120.0]), (120.5, [])])
    def test_up_to_two_minutes_are_one_stretch(self, gap_s: float, fires: list[float]) -> None:
        rows = [snapshot(0, cpu_seconds_total=1.0, cpu_percent=1.0),
                snapshot(gap_s, cpu_seconds_total=1.0 + gap_s * 0.6, cpu_percent=1.0)]
        assert when(backtest(BUSY, rows)) == fires

    @pytest.mark.parametrize(("first", "then", "fires"), [
        ({"cpu_seconds_total": 10.0}, {"cpu_seconds_total": 25.0}, True),
        ({"cpu_seconds_total": 10.0}, {"cpu_seconds_total": 24.9}, False),
        ({"cpu_seconds_total": 10.0}, {"cpu_seconds_total": 10.0, "cpu_percent": 99.0}, False),
        ({"cpu_seconds_total": 10.0}, {"cpu_seconds_total": 9.0, "cpu_percent": 99.0}, True),
        ({"cpu_seconds_total": 10.0}, {"cpu_percent": 99.0}, True),
        ({}, {"cpu_seconds_total": 900.0, "cpu_percent": 1.0}, False), ({}, {}, False),
    ], ids=str)
    def test_a_counter_that_is_missing_or_falls_says_nothing(self, first: dict[str, float], then: dict[str, float],
                                                             fires: bool) -> None:
        assert bool(backtest(BUSY, [snapshot(0, **first), snapshot(30, **then)])) is fires

    def test_two_snapshots_of_one_moment_have_no_rate(self) -> None:
        rows = [snapshot(0, cpu_seconds_total=1.0), snapshot(0, cpu_seconds_total=2.0, cpu_percent=1.0),
                snapshot(0.5, cpu_seconds_total=2.3, cpu_percent=1.0)]
        assert when(backtest(BUSY, rows)) == [0.5]

    @pytest.mark.parametrize(("total", "last", "saved"), [(10.0, 25.128, 15.13), (10.0, 9.0, 0.0), (None, 25.0, 0.0),
                                                          (10.0, None, 0.0)])
    def test_what_an_end_would_have_saved(self, total: float | None, last: float | None, saved: float) -> None:
        first = {} if total is None else {"cpu_seconds_total": total}
        rows = [snapshot(0, cpu_percent=90.0, **first),
                snapshot(300, **({} if last is None else {"cpu_seconds_total": last}))]
        (firing,) = backtest(BUSY, rows)
        assert firing.cpu_seconds_saved == saved


def test_the_text_of_a_firing() -> None:
    (firing,) = backtest(BUSY, [snapshot(0, cpu_percent=90.0, ended="exited")])
    assert firing == Firing("busy", "medium", "kill", "b", 2000, 7, "victim", T0, "cpu 90 %", "reading", 0.0, "exited",
                            "it ended by itself later")
    (running,) = backtest(BUSY, [snapshot(0, cpu_percent=90.0)])
    assert (running.command, running.ended, running.regret) == ("victim", "", "")


@pytest.mark.parametrize(("fields", "orphan"), [
    ({"orphan_of": "make[7]", "ppid": 900}, True), ({"ppid": 1, "cgroup": "/"}, True), ({"ppid": 1}, None),
    ({"ppid": 1, "cgroup": "/a.service"}, False), ({"ppid": 900}, False), ({"ppid": 2}, False),
    ({}, None)], ids=str)
def test_whose_parent_died(fields: dict[str, Any], orphan: bool | None) -> None:
    for wanted in (True, False):
        ruleset = rules(f"orphan = {str(wanted).lower()}", 'command_patterns = ["^victim"]')
        assert bool(backtest(ruleset, [snapshot(0, **fields)])) is (orphan is wanted)


@pytest.mark.parametrize(("age_s", "fires"), [(100.0, True), (99.0, False), (None, False)])
def test_its_age_is_the_one_of_then(age_s: float | None, fires: bool) -> None:
    known = {} if age_s is None else {"start_time": T0 + 30 - age_s}
    assert bool(backtest(rules("age_seconds = 100"), [snapshot(30, **known)])) is fires


@pytest.mark.parametrize(("later_s", "words"), [
    (300.0, "it ended by itself 300 s later"), (300.5, "it ended by itself later"), (0.0, "it ended by itself 0 s later"),
    (None, "it ended by itself later")])
def test_so_soon_it_would_have_ended_anyway(later_s: float | None, words: str) -> None:
    known = {} if later_s is None else {"ended_at": T0 + later_s}
    (firing,) = backtest(BUSY, [snapshot(0, cpu_percent=90.0, ended="exited", tty="pts/3", **known)])
    assert firing.regret == f"{words}; it had a terminal: pts/3"


def test_firings_in_order_of_time_and_summaries_of_what_they_save() -> None:
    def fired(rule: str, saved: float, regret: str = "") -> Firing:
        return Firing(rule, "high", "kill", "b", 1, 7, "x", T0, "", "", saved, "", regret)

    assert summary([fired("a", 1.26), fired("c", 2.0), fired("b", 2.0, "tty"), fired("a", 1.0)]) == [
        Summary("a", 2, 0, 2.3), Summary("b", 1, 1, 2.0), Summary("c", 1, 0, 2.0)]
    both = parse(b'[[rules]]\nname = "z"\nconditions = { cpu_percent_min = 50 }\n'
                 b'[[rules]]\nname = "a"\nconditions = { cpu_percent_min = 60 }\n')
    rows = [snapshot(0, cpu_percent=90.0, pid=2001), snapshot(9, cpu_percent=90.0, pid=1999),
            snapshot(0, cpu_percent=55.0, pid=2000), snapshot(300, cpu_percent=90.0, pid=2000)]
    assert [(f.ts - T0, f.pid, f.rule) for f in backtest(both, rows)] == [
        (0, 2000, "z"), (0, 2001, "a"), (0, 2001, "z"), (9, 1999, "a"), (9, 1999, "z"), (300, 2000, "a")]


def test_patience_is_each_snapshots_and_each_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search takes 20 ms here, and a rule has 50: two names at a moment, and all of them over time. What overruns
    inside of a window is its own rule and no other."""
    reads = iter(range(10_000))
    monkeypatch.setattr(module, "Patterns", lambda: Patterns(0.05, lambda: next(reads) * 0.02))
    rows = [snapshot(30 * i, command=f"n{i}", cpu_percent=90.0) for i in range(9)]
    assert when(backtest(rules('command_patterns = ["^n8$"]'), rows)) == [240]
    lasting = "[[rules]]\nname = \"{}\"\nconditions = {{ duration_seconds = 60, any = [{}] }}\n"
    slow = lasting.format("slow", ", ".join(f'{{ command_patterns = ["x{i}"] }}' for i in range(9)))
    quick = lasting.format("quick", '{ command_patterns = ["^n"] }')
    assert [f.rule for f in backtest(parse((slow + quick).encode()), rows)] == ["quick"]
