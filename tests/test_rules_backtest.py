"""What rules would have done in recorded history, on the database's own tables."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any

from ruletools import rules

from rogue_hunter.rules import builtin, parse
from rogue_hunter.rules.backtest import Firing, backtest, history, summary
from rogue_hunter.store.tables import PROCESS_EVENTS, PROCESS_SNAPSHOTS

T0 = 1_700_000_000.0


class History:
    """A database in memory that is told what processes did."""

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
        who = {"boot_id": "b", "pid": pid, "start_ticks": 7, "command": "victim", "ppid": 500,
               "start_time": T0 - age_s, **fields}
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
    h.process(2001, [0.0] + [29.9] * 14, skip=range(5, 11))  # nobody watched for three minutes
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
        2000: "it ended by itself 100 s later", 2001: "it calmed down by itself", 2002: "somebody had it on pts/3",
        2003: "it ended by itself later", 2004: ""}
    (row,) = summary(h.firings(LOOP))
    assert (row.rule, row.firings, row.regrets) == ("loop", 5, 4)


def test_the_whitelist_exclusions_and_other_rules_count_as_they_do_live() -> None:
    h = History()
    busy = [0.0] + [29.9] * 12
    h.process(2000, busy, command="vim")
    h.process(2001, busy, command="rustc")
    h.process(2002, busy, command="test_ch04_debug", exe="/tmp/test_ch04_debug", age_s=4000.0)
    assert [(f.pid, f.rule) for f in h.firings(builtin())] == [(2002, "zombie_test_binary"), (2002, "infinite_loop")]


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
