"""Matching: what a rule says of processes over time. Clocks are turned by hand; no test sleeps."""

from __future__ import annotations

import random
import threading
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rogue_hunter.rules.logic import Window
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick
from tests.tools.rules import EPOCH, Machine, rules

SUSTAINED = ("cpu_percent_min = 90", "duration_seconds = 300")


def test_a_burst_in_an_old_process_is_not_a_loop() -> None:
    """Six minutes old and over 90 % for a while: the duration is how long it lasted, not the age."""
    m = Machine(rules(*SUSTAINED), lifetime=False)
    m.set(1000, age_s=360, cpu_percent=0.0)
    assert m.run(30) == []
    m.set(1000, cpu_percent=150.0)
    assert m.run(100) == []
    m.set(1000, cpu_percent=0.0)
    assert m.run(400) == []


def test_a_sustained_load_matches_once_nine_tenths_of_the_window_are_full() -> None:
    m = Machine(rules(*SUSTAINED), lifetime=False)
    m.set(1000, age_s=1000, cpu_percent=99.0)
    assert m.run(269) == []
    (found,) = m.run(3)
    assert (found["type"], found["rule"], found["pid"], found["evidence"]) == ("match", "r", 1000, "window")
    (term,) = found["evidence_terms"]
    assert term["window_s"] == 300 and 270 <= term["held_s"] < 272 and term["value"] == 99.0
    assert found["reason"].startswith("cpu 99 % for 4m 3")


@pytest.mark.parametrize(("busy", "idle", "expected"), [(10, 1, True), (10, 2, False), (1, 1, False), (30, 3, True)])
def test_dips_are_forgiven_up_to_a_tenth_of_the_time(busy: int, idle: int, expected: bool) -> None:
    m = Machine(rules(*SUSTAINED), lifetime=False)
    found = []
    for _ in range(900 * 2 // (busy + idle)):
        for count, cpu in ((busy, 99.0), (idle, 20.0)):
            for _ in range(count):
                m.set(1000, age_s=9, cpu_percent=cpu)
                found += m.tick()
    assert bool(found) is expected


def test_time_is_measured_and_not_counted_in_ticks() -> None:
    """One tick that covers four minutes counts for four minutes; 800 hurried ones count for what they last."""
    m = Machine(rules(*SUSTAINED), lifetime=False)
    m.set(1000, age_s=1000, cpu_percent=99.0)
    m.tick()
    assert m.tick(interval_s=240) == []
    assert [r["rule"] for r in m.tick(interval_s=40)] == ["r"]
    hurried = Machine(rules(*SUSTAINED), lifetime=False)
    hurried.set(1000, age_s=1000, cpu_percent=99.0)
    assert all(hurried.tick(interval_s=0.1) == [] for _ in range(800))


def test_lost_ticks_count_as_not_held() -> None:
    m = Machine(rules(*SUSTAINED), lifetime=False)
    m.set(1000, age_s=1000, cpu_percent=99.0)
    m.run(200)
    assert m.tick(lost=250) == []
    assert m.run(200) == []
    assert m.run(80)


def test_a_row_left_out_of_a_tick_holds_nothing() -> None:
    """`rh-sample --active` leaves rows out: what is not shown is not known to be busy."""
    m = Machine(rules(*SUSTAINED), lifetime=False)
    key = m.set(1000, age_s=1000, cpu_percent=99.0)
    m.set(1001, cpu_percent=0.0)
    m.run(200)
    for _ in range(3 * 100):
        m.tick(hidden=[key])
    m.set(1000, cpu_percent=99.0)
    assert m.run(200) == []


def test_no_rule_is_meant_for_rogue_hunter() -> None:
    """A rule that notifies or runs a command does so neither for rh-report nor for rh-pipe itself."""
    m = Machine(rules("cpu_percent_min = 90"), lifetime=False)
    m.set(1000, cpu_percent=99.0, own=True)
    assert m.run(90) == []
    m.set(1001, cpu_percent=99.0)
    assert {each["pid"] for each in m.run(90)} == {1001}


def test_the_match_stops_with_its_cause_and_is_repeated_while_it_lasts() -> None:
    m = Machine(rules("cpu_percent_min = 90"), lifetime=False, repeat_s=60)
    m.set(1000, age_s=5, cpu_percent=99.0)
    assert len(m.run(59)) == 1
    assert len(m.run(61)) == 1
    m.set(1000, cpu_percent=10.0)
    assert m.run(200) == []


def first_match(ruleset: Any, ticks: int, *, replayed: bool, **process: Any) -> int | None:
    """The number of the tick in which an idle process first matches. `replayed`: by a reader that cannot tell old rows
    from new ones, and asks about each every time."""
    m = Machine(ruleset)
    key = m.set(1000, **process)
    for i in range(ticks):
        if replayed:
            m.changed.add(key)
        if m.tick():
            return i
    return None


def test_only_time_can_make_an_idle_process_old_enough() -> None:
    """An idle row is never new again; the match still comes at the tick in which the age is reached."""
    ruleset = rules("age_seconds = 100", "cpu_percent_max = 1")
    first = [first_match(ruleset, 400, replayed=replayed, age_s=0, cpu_percent=0.0) for replayed in (False, True)]
    assert first[0] == first[1] == pytest.approx(300, abs=1)


def test_a_reused_pid_starts_from_nothing() -> None:
    m = Machine(rules(*SUSTAINED), lifetime=False)
    old = m.set(1000, age_s=1000, cpu_percent=99.0)
    m.run(269)
    m.end(old)
    m.set(1000, start_ticks=8, cpu_percent=99.0)
    assert m.run(200) == []


def test_another_boot_and_a_clock_that_goes_back_are_other_streams() -> None:
    m = Machine(rules(*SUSTAINED), lifetime=False)
    m.set(1000, age_s=1000, cpu_percent=99.0)
    m.run(260)
    m.boot = "another"
    m.changed = set(m.rows)
    assert m.run(200) == []
    m.now_s -= 500
    m.changed = set(m.rows)
    assert m.run(200) == []


def test_a_clock_step_makes_no_process_old() -> None:
    m = Machine(rules("age_hours = 4"))
    m.set(1000, age_s=60, cpu_percent=0.0)
    m.tick()
    assert m.tick(ts_step_s=86_400) == []
    m.set(1000, cpu_percent=1.0)
    assert m.run(5) == []


def test_suspend_is_no_clock_step() -> None:
    """A process that slept with the machine is as old as the wall clock says."""
    m = Machine(rules("age_hours = 4"))
    m.set(1000, age_s=60, cpu_percent=0.0)
    m.tick()
    m.set(1000, cpu_percent=1.0)
    assert m.tick(ts_step_s=86_400, asleep_s=86_400.0)


class TestLifetime:
    """A single run has no history: the average over the life of a process may replace it, and is marked."""

    def run(self, *, age_s: float, cpu_s: float, now: float = 99.0, threads: int = 1) -> list[dict[str, Any]]:
        m = Machine(rules(*SUSTAINED))
        m.set(1000, age_s=age_s, cpu_percent=now, cpu_seconds_total=cpu_s, threads=threads)
        return m.tick()

    def test_it_proves_a_loop(self) -> None:
        (found,) = self.run(age_s=600, cpu_s=590)
        assert found["evidence"] == "lifetime"
        assert found["evidence_terms"][0]["value"] == pytest.approx(98.33, abs=0.01)
        assert found["reason"].startswith("cpu 98.33 % on average over 10m 00s of life")

    @pytest.mark.parametrize("case", [
        {"age_s": 360, "cpu_s": 30}, {"age_s": 600, "cpu_s": 590, "now": 10.0}, {"age_s": 200, "cpu_s": 200},
        {"age_s": 600, "cpu_s": 800, "threads": 4},
    ], ids=["a burst", "calm now", "too young", "a burst of four threads"])
    def test_it_does_not_prove(self, case: dict[str, Any]) -> None:
        assert self.run(**case) == []

    def test_it_is_not_used_when_the_stream_has_its_own_history(self) -> None:
        m = Machine(rules(*SUSTAINED))
        m.set(1, cpu_percent=0.0)
        m.run(301)
        m.set(1000, age_s=600, cpu_percent=99.0, cpu_seconds_total=600.0)
        assert m.tick() == []

    def test_it_is_not_used_by_a_pipe(self) -> None:
        m = Machine(rules(*SUSTAINED), lifetime=False)
        m.set(1000, age_s=600, cpu_percent=99.0, cpu_seconds_total=600.0)
        assert m.tick() == []

    def test_memory_has_no_average(self) -> None:
        m = Machine(rules("memory_mb_min = 100", "duration_seconds = 60"))
        m.set(1000, age_s=6000, memory_bytes=10**9)
        assert m.tick() == []
        assert [r["evidence"] for r in m.run(60)] == ["window"]

    def test_an_average_that_falls_with_age_is_asked_again_in_time(self) -> None:
        ruleset = rules("cpu_percent_max = 5", "duration_seconds = 3000")
        first = [first_match(ruleset, 400, replayed=replayed, age_s=10_000, cpu_percent=0.0, cpu_seconds_total=501.0)
                 for replayed in (False, True)]
        assert first[0] == first[1] == pytest.approx(60, abs=1)


class TestOrphans:
    RULE = ("orphan = true", 'command_patterns = ["^tail"]')

    def test_the_parent_is_remembered_from_before_it_died(self) -> None:
        m = Machine(rules(*self.RULE))
        shell = m.set(900, command="bash")
        m.set(1000, command="tail", ppid=900)
        assert m.tick() == []
        m.end(shell)  # the idle child's row does not change
        (found,) = m.tick()
        assert found["orphan"] is True and found["orphan_of"] == "bash[900]"

    def test_a_new_parent_is_only_ever_had_by_losing_one(self) -> None:
        m = Machine(rules(*self.RULE))
        m.set(900, command="bash")
        m.set(1000, command="tail", ppid=900)
        m.tick()
        m.set(1000, ppid=77)
        assert m.tick()[0]["orphan_of"] == "bash[900]"

    def test_what_a_stage_before_has_seen_counts(self) -> None:
        m = Machine(rules(*self.RULE))
        m.set(900, command="bash")
        m.set(1000, command="tail", ppid=900, orphan_of="make[77] of cron.service")
        assert m.tick()[0]["orphan_of"] == "make[77] of cron.service"

    @pytest.mark.parametrize(("parent", "cgroup", "expected"), [
        ("init", "", False), ("init", "/", True), ("systemd", "/user.slice/session-1.scope", True),
        ("systemd", "/system.slice/cron.service", False), ("bash", "/user.slice/session-1.scope", False),
    ])
    def test_at_first_sight(self, parent: str, cgroup: str, expected: bool) -> None:
        m = Machine(rules(*self.RULE))
        m.set(1 if parent == "init" else 800, command=parent)
        m.set(1000, command="tail", ppid=1 if parent == "init" else 800, **({"cgroup": cgroup} if cgroup else {}))
        assert bool(m.tick()) is expected

    @pytest.mark.parametrize("shell", ["bash", "sh", "zsh"])
    def test_children_of_a_container_s_shell_may_be_its_own(self, shell: str) -> None:
        """Where pid 1 is a shell, its own children look like orphans; one whose parent was seen to exit is one."""
        for wanted in ("true", "false"):
            m = Machine(rules(f"orphan = {wanted}", 'command_patterns = ["^tail"]'))
            m.set(1, command=shell)
            m.set(1000, command="tail", ppid=1)
            assert m.tick() == []
        m = Machine(rules(*self.RULE))
        m.set(1, command=shell)
        m.set(900, command="make", ppid=1)
        m.set(1000, command="tail", ppid=900)
        assert m.tick() == []
        m.set(1000, ppid=1)
        assert m.tick()[0]["orphan_of"] == "make[900]"

    def test_a_parent_outside_of_the_namespace_is_unknown(self) -> None:
        for wanted in ("true", "false"):
            m = Machine(rules(f"orphan = {wanted}", 'command_patterns = ["^tail"]'))
            m.set(1000, command="tail", ppid=0)
            assert m.tick() == []

    def test_nothing_is_remembered_of_children_that_came_and_went(self) -> None:
        m = Machine(rules(*self.RULE))
        m.set(900, command="make")
        for i in range(200):
            key = m.set(2000 + i, command="cc1", ppid=900)
            m.tick()
            m.end(key)
        m.tick()
        family = m.matcher._family
        assert sum(map(len, family._children.values())) == 0 and len(family._by_pid) == 1 and len(m.matcher._seen) == 1


def test_of_several_rules_the_most_urgent_speaks_and_the_others_are_named() -> None:
    ruleset = rules("cpu_percent_min = 50", name="low", extra='''
[[rules]]
name = "high"
priority = "critical"
conditions = { cpu_percent_min = 60 }
''')
    m = Machine(ruleset)
    m.set(1001, cpu_percent=55.0)
    m.set(1000, cpu_percent=70.0)
    first, second = m.tick()
    assert (first["pid"], first["rule"], first["also"]) == (1000, "high", ["low"])
    assert (second["pid"], second["rule"]) == (1001, "low") and "also" not in second


def test_the_whitelist_and_kernel_threads_never_match() -> None:
    m = Machine(rules("cpu_percent_min = 50"))
    m.set(1000, command="claude", cpu_percent=99.0)
    m.set(1001, command="node", cmdline="node /usr/local/bin/claude --resume", cpu_percent=99.0)
    m.set(1002, command="kworker/0:0", ppid=2, exe=None, cmdline=None, cpu_percent=99.0)
    m.set(1003, command="claudette", cpu_percent=99.0)
    assert [r["pid"] for r in m.tick()] == [1003]


def test_unknown_is_never_a_match() -> None:
    for conditions in (("cpu_percent_min = 0",), ("not = { cpu_percent_min = 90 }", "age_seconds = 0"),
                       ("gpu_percent_min = 0",), ('band_min = "low"',), ('state = "running"',), ("score_min = 0",)):
        m = Machine(rules(*conditions))
        m.set(1000, age_s=10)
        assert m.tick() == [], conditions


@pytest.mark.parametrize("action", ["log", "notify", "kill"])
def test_what_a_mask_hides_may_be_what_excludes(action: str) -> None:
    """A rule that acts by itself waits for what is known; what ends a process is judged again with all arguments."""
    for condition in ('exclude_patterns = ["--token build-farm"]', 'not = { cmdline_patterns = ["build-farm"] }'):
        m = Machine(rules("cpu_percent_min = 50", condition, action=f'[rules.action]\ntype = "{action}"'))
        m.set(1000, cpu_percent=99.0, cmdline="victim --token ***")
        m.set(1001, cpu_percent=99.0, cmdline="victim --port 1")
        m.set(1002, cpu_percent=99.0, cmdline="victim --token build-farm")
        assert [r["pid"] for r in m.tick()] == ([1000, 1001] if action == "kill" else [1001])
    m = Machine(rules("cpu_percent_min = 50", 'not = { command_patterns = ["^other"] }', action='[rules.action]\ntype = "log"'))
    m.set(1000, cpu_percent=99.0, cmdline="victim --token ***")
    assert [r["pid"] for r in m.tick()] == [1000]      # no arguments are asked for


def test_nesting() -> None:
    ruleset = rules('''any = [
        { all = [ { cpu_percent_min = 90 }, { not = { user = "build" } } ] },
        { memory_mb_min = 1000, state = ["stopped", "sleeping"] },
    ]''')
    cases = [
        ({"cpu_percent": 95.0, "user": "me", "memory_bytes": 1, "state": "running"}, True),
        ({"cpu_percent": 95.0, "user": "build", "memory_bytes": 1, "state": "running"}, False),
        ({"cpu_percent": 5.0, "user": "build", "memory_bytes": 2 * 10**9, "state": "stopped"}, True),
        ({"cpu_percent": 5.0, "user": "build", "memory_bytes": 2 * 10**9, "state": "running"}, False),
        ({"user": "me", "memory_bytes": 2 * 10**9, "state": "sleeping"}, True),
    ]
    for fields, expected in cases:
        m = Machine(ruleset)
        m.set(1000, **fields)
        assert bool(m.tick()) is expected, fields


def test_a_rule_that_backtracks_endlessly_is_disabled_and_matches_nothing() -> None:
    """It ends within its budget, is reported once, and the other rules continue."""
    ruleset = rules('command_patterns = ["^(a+)+$"]', name="slow", extra='''
[[rules]]
name = "good"
conditions = { command_patterns = ["^victim"] }
''')
    m = Machine(ruleset)
    m.set(1000, command="victim", cmdline="a" * 40 + "b")
    m.set(1001, command="other", exe="/bin/" + "a" * 40 + "b")
    said = m.tick()
    assert [r.get("rule") for r in said if r["type"] == "match"] == ["good"]
    (error,) = [r for r in said if r["type"] == "error"]
    assert error["message"].startswith("rule slow is disabled") and error["stage"] == "rh-match"
    m.set(1002, command="aaaa")  # what it would have matched
    assert m.run(10) == []


def test_off_the_main_thread_patterns_match_nothing() -> None:
    said: list[Any] = []

    def run() -> None:
        m = Machine(rules('command_patterns = ["^victim"]'))
        m.set(1000)
        said.extend(m.tick())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert said == []


class Counting(Patterns):
    """Counts the evaluations that are not answered from memory."""

    evaluated = asked = 0

    def hits(self, *args: Any) -> bool | None:
        self.asked += 1
        return super().hits(*args)

    def _search(self, *args: Any) -> bool | None:
        self.evaluated += 1
        return super()._search(*args)


@pytest.mark.slow
def test_an_idle_machine_is_asked_nothing() -> None:
    """300 idle processes against 20 rules: after the first tick no condition is looked at and no pattern run."""
    text = "".join(f'[[rules]]\nname = "r{i}"\nconditions = {{ command_patterns = ["^n{i}x", "_test{i}"], '
                   f'age_seconds = 1, cpu_percent_max = 5, duration_seconds = {60 + i} }}\n' for i in range(20))
    from rogue_hunter.rules.load import parse

    patterns = Counting()
    m = Machine(parse(text.encode()), patterns=patterns, lifetime=False)
    asked: list[int] = []
    original = m.matcher._evaluate
    m.matcher._evaluate = lambda *a: (asked.append(1), original(*a))[1]  # type: ignore[method-assign,func-returns-value]
    for pid in range(1000, 1300):
        m.set(pid, age_s=500, command=f"daemon{pid % 50}", cpu_percent=0.0)
    m.tick()
    assert len(asked) == 300
    m.run(50)
    assert len(asked) == 300
    m.run(40)  # the windows fill, once for each process and rule at most
    assert patterns.evaluated == 50 * 20
    before = patterns.asked, len(asked)
    m.run(100)
    assert (patterns.asked, len(asked)) == before


def steady(*conditions: str, repeat_s: float = 1.0, **process: Any) -> Machine:
    """A machine that beats once a second, and a process that is reported in every tick in which it matches."""
    m = Machine(rules(*conditions), hz=1, lifetime=False, repeat_s=repeat_s)
    m.set(1000, **process)
    return m


def when(m: Machine, ticks: int, *, every: bool = True) -> list[int]:
    """The numbers of the next `ticks`, from 1, in which process 1000 is reported; `every`: its row is new each time."""
    told = []
    for i in range(1, ticks + 1):
        m.changed |= {key for key in m.rows if every and key[0] == 1000}
        if any(r["type"] == "match" and r["pid"] == 1000 for r in m.tick()):
            told.append(i)
    return told


LASTS_TEN = ("score_min = 1", "duration_seconds = 10")


class TestWindow:
    """A condition that lasts ten seconds matches when it held for nine of the last ten, to the nanosecond."""

    def test_at_nine_seconds_and_not_before(self) -> None:
        assert when(steady(*LASTS_TEN, score=5, age_s=100), 12) == [9, 10, 11, 12]
        assert when(steady(*LASTS_TEN, score=5, age_s=100), 12, every=False)[0] == 9

    def test_a_process_that_was_absent_did_nothing(self) -> None:
        """A tick that covers ten seconds counts for a process only from its birth on."""
        for age_s, expected in ((2.0, []), (8.9, []), (9.0, [1]), (500.0, [1])):
            m = Machine(rules(*LASTS_TEN), hz=0.1, lifetime=False)
            m.set(1000, score=5, age_s=age_s)
            assert when(m, 1) == expected, age_s

    def test_of_unknown_age_the_whole_interval_counts(self) -> None:
        m = Machine(rules(*LASTS_TEN), hz=0.1, lifetime=False)
        m.set(1000, score=5)
        del m.rows[1000, 7]["start_time"]
        (found,) = m.tick()
        assert "age_s" not in found and found["evidence_terms"][0]["held_s"] == 10.0

    @pytest.mark.parametrize(("gap_s", "expected"), [(0.0, 10), (0.001, 9), (0.001000001, 10)])
    def test_a_gap_of_up_to_a_millisecond_is_ignored(self, gap_s: float, expected: int) -> None:
        """The first tick is a millisecond short of its second, so that the gap decides whether the ninth suffices."""
        m = steady(*LASTS_TEN, score=5, age_s=100)
        m.tick(interval_s=0.999)
        m.changed = set(m.rows)
        m.tick(lost=gap_s)
        assert when(m, 10)[0] + 2 == expected

    def test_after_a_gap_the_window_continues_at_once(self) -> None:
        """Held for 5 s, unknown for 2, held again: the two are the tenth and more until they are over ten seconds ago,
        16 s after the beginning. The row does not change, so it is not evaluated in between."""
        m = steady(*LASTS_TEN, score=5, age_s=100)
        assert when(m, 5, every=False) == []
        assert m.tick(lost=2) == []
        assert when(m, 10, every=False)[0] + 8 == 16

    def test_a_tick_of_no_time_is_no_other_stream(self) -> None:
        m = steady(*LASTS_TEN, score=5, age_s=100)
        assert when(m, 5) == [] and m.tick(interval_s=0) == []
        assert when(m, 4) == [4]


class TestAge:
    """The age of a process follows its life and not the clock on the wall."""

    def ages(self, m: Machine, *steps: dict[str, float]) -> list[float]:
        return [m.tick(**step)[0]["age_s"] for step in ({}, *steps)]    # type: ignore[arg-type]

    def machine(self, age_s: float = 100) -> Machine:
        return steady("score_min = 1", score=5, age_s=age_s)

    def test_it_grows_by_the_time_that_passes(self) -> None:
        assert self.ages(self.machine(), {}, {"interval_s": 30.0}, {}) == [100, 101, 131, 132]

    @pytest.mark.parametrize("step_s", [86_400.0, 1.5, 0.5, -0.5, -1.5, -86_400.0])
    def test_a_clock_that_is_set_changes_no_age(self, step_s: float) -> None:
        assert self.ages(self.machine(), {"ts_step_s": step_s}, {}) == [100, 101, 102]

    @pytest.mark.parametrize("step_s", [86_400.0, -86_400.0])
    def test_start_times_that_move_with_the_clock_change_no_age(self, step_s: float) -> None:
        """A host that knows the time since boot computes start times again when the clock is set."""
        m = self.machine()
        assert self.ages(m) == [100]
        ((key, row),) = m.rows.items()
        m.rows[key] = {**row, "start_time": row["start_time"] + step_s}
        m.changed.add(key)
        assert [r["age_s"] for r in m.tick(ts_step_s=step_s)] == [101]
        assert [r["age_s"] for r in m.tick()] == [102]

    def test_the_step_is_known_for_as_long_as_the_process_lives(self) -> None:
        m = self.machine()
        assert self.ages(m, {"ts_step_s": 500.0}, {"ts_step_s": 700.0}, {}) == [100, 101, 102, 103]

    def test_who_came_after_the_step_was_born_by_the_new_clock(self) -> None:
        m = self.machine()
        self.ages(m, {"ts_step_s": 86_400.0})
        m.set(1001, age_s=7, score=5)
        assert [r["age_s"] for r in m.tick()] == [102, 7]
        assert [r["age_s"] for r in m.tick(ts_step_s=-86_400.0)] == [103, 8]

    def test_sleep_counts(self) -> None:
        m = self.machine()
        assert self.ages(m, {"ts_step_s": 3600.0, "asleep_s": 3600.0}, {}) == [100, 3701, 3702]

    def test_no_age_is_below_zero(self) -> None:
        assert self.ages(self.machine(-5)) == [0]


class TestLifetimeLimits:
    """To the second: as soon as the stream is as long as the window it speaks for itself."""

    PROCESS: ClassVar = {"cpu_percent": 99.0, "cpu_seconds_total": 600.0}

    @pytest.mark.parametrize(("watched", "expected"), [(8, ["lifetime"]), (9, [])])
    def test_a_stream_as_long_as_the_window(self, watched: int, expected: list[str]) -> None:
        m = Machine(rules("cpu_percent_min = 90", "duration_seconds = 10"), hz=1)
        m.set(1, cpu_percent=0.0)
        m.run(watched)
        m.set(1000, age_s=600, **self.PROCESS)
        assert [r["evidence"] for r in m.tick()] == expected

    @pytest.mark.parametrize(("age_s", "expected"), [(10.0, ["lifetime"]), (9.99, [])])
    def test_a_process_as_old_as_the_window(self, age_s: float, expected: list[str]) -> None:
        m = Machine(rules("cpu_percent_min = 90", "duration_seconds = 10"), hz=1)
        m.set(1000, age_s=age_s, **self.PROCESS)
        assert [r["evidence"] for r in m.tick()] == expected

    def test_an_idle_process_that_grows_old_enough_is_asked_then(self) -> None:
        """50 s old, idle all its life: at 100 s its average proves it, forty seconds before the window would."""
        ruleset = rules("cpu_percent_max = 5", "duration_seconds = 100")
        first = [first_match(ruleset, 400, replayed=replayed, age_s=50, cpu_percent=0.0, cpu_seconds_total=0.5)
                 for replayed in (False, True)]
        assert first[0] == first[1] == pytest.approx(150, abs=1)

    def test_what_is_asked_after_it_is_asked_of_now(self) -> None:
        """The average that did not prove the first alternative is nothing that the second is held against."""
        m = Machine(rules("any = [ { cpu_percent_min = 90, duration_seconds = 300 }, { memory_mb_min = 5 } ]"))
        m.set(1000, age_s=600, cpu_percent=99.0, cpu_seconds_total=6.0, memory_bytes=10**7)
        assert [r["evidence_terms"][0]["condition"] for r in m.tick()] == ["memory_mb_min"]

    @pytest.mark.parametrize(("closing", "threads", "expected"), [
        ({"cpus": 2}, 2, False), ({"cpus": 1}, 2, True), ({}, 2, False), ({}, 1, True)])
    def test_a_burst_of_several_threads(self, closing: dict[str, int], threads: int, expected: bool) -> None:
        """133 % over its life is a proof for one CPU, and none for two; where their number is unknown, none either."""
        usual = Tick({"ts": EPOCH, "seq": 0, "mono_ns": 10**12, "boot_id": "b", "os": "linux", "interval_s": 1.0,
                      "processes": 1, **closing},
                     {(9, 7): {"pid": 9, "start_ticks": 7, "start_time": EPOCH - 600, "cpu_percent": 99.0,
                               "command": "x", "exe": "/x", "cmdline": "x", "cpu_seconds_total": 800.0,
                               "threads": threads}}, {(9, 7)})
        (tick,) = chain([usual], Matcher(rules(*SUSTAINED)))
        assert bool(tick.records) is expected


def test_what_a_record_says() -> None:
    """The fields of the process that a reader needs to know it and to judge the verdict, and no others; the verdict."""
    process = {"pid": 1000, "start_ticks": 7, "start_time": EPOCH - 99.5, "ppid": 500, "uid": 501, "user": "me",
               "command": "victim", "exe": "/bin/victim", "cmdline": "victim -x", "cgroup": "/user.slice", "tty": "pts/1",
               "state": "running", "threads": 3, "cpu_seconds_total": 12.5, "cpu_percent": 99.5, "memory_bytes": 10**7,
               "disk_bytes_per_s": 1.5, "gpu_ms_per_s": 2.5, "wakeups_per_s": 3.5, "score": 61, "band": "high"}
    m = Machine(rules("cpu_percent_min = 90", "score_min = 60", action='[rules.action]\ntype = "log"\nnotify = true\n'
                      'log_level = "error"', extra='''
[[rules]]
name = "other"
conditions = { score_min = 1 }
'''), repeat_s=0.1)
    m.set(**process, nice=5, syscalls_per_s=7.0)
    verdict = {
        "type": "match", "v": 1, "boot_id": "boot", "rule": "r", "priority": "medium", "also": ["other"],
        "action": "log", "notify": True, "log_level": "error", "evidence": "reading", "orphan": False,
        "evidence_terms": [
            {"condition": "cpu_percent_min", "limit": 90.0, "value": 99.5, "evidence": "reading"},
            {"condition": "score_min", "limit": 60.0, "value": 61.0, "evidence": "reading"}]}
    assert m.tick() == [{**verdict, **process, "ts": EPOCH + 0.333, "seq": 0, "age_s": 99.83, "matched_s": 0.0,
                         "reason": "cpu 99.5 %; score 61; age 1m 40s"}]
    assert m.tick() == [{**verdict, **process, "ts": EPOCH + 0.667, "seq": 1, "age_s": 100.17, "matched_s": 0.33,
                         "reason": "cpu 99.5 %; score 61; age 1m 40s"}]


def test_a_match_is_repeated_after_a_minute_unless_another_rule_matches() -> None:
    m = Machine(rules("score_min = 1", extra='''
[[rules]]
name = "urgent"
priority = "critical"
conditions = { score_min = 80 }
'''), hz=1)
    m.set(1000, score=5)
    assert when(m, 125) == [1, 61, 121]
    m.set(1000, score=90)
    (found,) = m.tick()
    assert (found["rule"], found["also"], found["matched_s"]) == ("urgent", ["r"], 125.0)


def test_a_match_that_ended_begins_again() -> None:
    m = steady("score_min = 1", score=5)
    m.run(10)
    m.set(1000, score=0)
    m.tick()
    m.set(1000, score=5)
    assert [r["matched_s"] for r in m.run(2)] == [0.0, 1.0]


def test_of_one_priority_the_lowest_pid_comes_first() -> None:
    m = Machine(rules("score_min = 1"))
    for pid in (1005, 1001, 1003):
        m.set(pid, score=5)
    assert [r["pid"] for r in m.tick()] == [1001, 1003, 1005]


def test_an_exited_process_has_no_match() -> None:
    m = steady("score_min = 1", score=5)
    assert when(m, 3) == [1, 2, 3]
    m.end((1000, 7))
    assert m.run(5) == []


def test_a_process_that_is_not_shown_has_no_match() -> None:
    """A row that is left out ends the match; when it is back, the match begins."""
    m = steady("score_min = 1", score=5)
    m.set(1001)
    assert [r["matched_s"] for r in m.run(3)] == [0.0, 1.0, 2.0]
    for _ in range(5):
        assert m.tick(hidden=[(1000, 7)]) == []
    m.changed = set(m.rows)
    assert [r["matched_s"] for r in m.run(2)] == [0.0, 1.0]


def test_who_died_while_rows_were_left_out_is_gone() -> None:
    """In a stream of rows that ran, no tick reports exits; the next whole one does, by leaving the process out."""
    m = Machine(rules("orphan = true"))
    parent = m.set(900, command="bash")
    m.set(1000, command="tail", ppid=900)
    assert m.run(1) == []
    assert [m.tick(hidden=[parent]) for _ in range(3)] == [[], [], []]  # it lives, and is not shown
    assert m.run(1) == []
    m.tick(hidden=[parent])
    m.end(parent)
    m.exited = []
    assert [r["orphan_of"] for r in m.tick()] == ["bash[900]"]


def test_a_row_left_out_once_is_not_forgotten() -> None:
    """Nine seconds of ten, with one between in which the process was not shown."""
    m = steady(*LASTS_TEN, score=5, age_s=100)
    m.set(1001)
    assert when(m, 8) == []
    m.tick(hidden=[(1000, 7)])
    assert when(m, 3) == [1, 2, 3]


def test_a_stream_of_rows_that_ran_remembers_no_more_than_there_are() -> None:
    """Exits of processes that are not shown are not reported. Their memory is freed, and no process is taken for an
    orphan by it: the parent of who is shown sleeps, and is not."""
    m = Machine(rules("orphan = true"))
    parent, child = m.set(900, command="bash"), m.set(1000, command="tail", ppid=900)
    m.tick()
    for i in range(200):
        short, shown = m.set(2000 + i, ppid=900), m.set(5000 + i, ppid=2000 + i)
        assert m.tick(hidden=[parent]) == []
        m.changed.add(child)
        assert m.tick(hidden=[parent, short]) == []
        del m.rows[short], m.rows[shown]    # without a report
        assert len(m.matcher._seen) <= len(m.rows) + 4
    family = m.matcher._family
    assert len(family._by_pid) < 8 and len(family._parents) < 8 and sum(map(len, family._children.values())) < 8
    m.set(1000, ppid=1)
    assert [r["orphan_of"] for r in m.tick()] == ["bash[900]"]


def test_pid_2_and_its_children_are_processes_like_others() -> None:
    """In a container pid 2 is an ordinary process. Kernel threads have neither program nor arguments."""
    m = Machine(rules("score_min = 1"))
    m.set(2, ppid=0, score=5)
    m.set(1000, ppid=2, score=5)
    m.set(1001, ppid=2, score=5, exe=None, cmdline=None)
    assert [r["pid"] for r in m.tick()] == [2, 1000]


class TestPatternTime:
    """What a pattern costs is charged to the rule that contains it, and each tick has a new one."""

    def test_the_account_is_the_rules_own(self) -> None:
        class Accounts(Patterns):
            def hits(self, rule: str, patterns: Any, program: Any) -> bool | None:
                asked.add((rule, patterns.probes[0].text))
                return super().hits(rule, patterns, program)

        asked: set[tuple[str, str]] = set()
        m = Machine(rules('any = [ { command_patterns = ["^r"] } ]', "duration_seconds = 1", extra='''
[[rules]]
name = "s"
conditions = { any = [ { command_patterns = ["^s"] } ], duration_seconds = 1 }
[[rules]]
name = "t"
conditions = { command_patterns = ["^t"] }
'''), patterns=Accounts(), lifetime=False)
        for pid, command in ((1000, "run"), (1001, "stop"), (1002, "tail")):
            m.set(pid, command=command)
        assert {r["rule"] for r in m.run(2)} == {"r", "s", "t"}
        assert asked == {("r", "^r"), ("s", "^s"), ("t", "^t")}

    def test_it_is_renewed_every_tick(self) -> None:
        """Each search takes 20 ms of 50: two a tick are well, three are not."""
        spent = iter(range(1000))
        patterns = Patterns(0.05, lambda: next(spent) * 0.02)
        m = Machine(rules('command_patterns = ["^x"]'), patterns=patterns)
        for i in range(10):
            for pid in (1000 + 2 * i, 1001 + 2 * i):
                m.set(pid, command=f"c{pid}")
            assert m.tick() == []
        for pid in range(2000, 2004):
            m.set(pid, command=f"c{pid}")
        (error,) = m.tick()
        assert error["message"] == "rule r is disabled: its patterns took more than 50 ms of CPU time in one tick"


def test_appointments_are_kept_when_the_dead_are_cleared_away() -> None:
    """Five processes that come of age one after the other, among many that die before."""
    m = Machine(rules("age_seconds = 1000"), hz=1)
    for i in range(5):
        m.set(1000 + i, age_s=900 + 10 * i)
    for i in range(20):
        keys = [m.set(2000 + 10 * i + j) for j in range(10)]
        m.tick()
        for key in keys:
            m.end(key)
    assert len(m.matcher._due) < 100
    assert [(i, r["pid"]) for i in range(21, 110) for r in m.tick()] == [
        (61, 1004), (71, 1003), (81, 1002), (91, 1001), (101, 1000)]


def test_appointments_do_not_pile_up() -> None:
    """Processes that die long before their age counts leave nothing behind."""
    m = Machine(rules("age_hours = 4"))
    for i in range(3000):
        key = m.set(1000 + i, cpu_percent=0.0)
        m.tick()
        m.end(key)
    assert len(m.matcher._due) < 100


def test_the_stage_passes_everything_on() -> None:
    ticks = [Tick(records=[{"type": "x", "v": 1}]), Tick()]
    assert list(chain(ticks, Matcher(rules("cpu_percent_min = 1")))) == ticks


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=60), st.integers(5, 200))
def test_a_window_is_the_sum_of_its_parts(parts: list[tuple[int, bool]], length: int) -> None:
    """Against a list with one entry a time unit."""
    window, units, now = Window(), [], 0
    for span, holds in parts:
        window.note(holds, now)
        now += span
        units += [holds] * span
        assert window.held(now, length) == sum(units[-length:])


@pytest.mark.slow
def test_the_same_stream_gives_the_same_records_with_any_rows_marked_changed() -> None:
    """A reader of NDJSON that takes every row for a new one must find what the pipe finds."""
    ruleset = rules("cpu_percent_min = 90", "duration_seconds = 20", name="a", extra='''
[[rules]]
name = "b"
conditions = { age_seconds = 30, cpu_percent_max = 10, duration_seconds = 15 }
[[rules]]
name = "c"
conditions = { memory_mb_min = 5, not = { cpu_percent_min = 50 } }
''')
    for seed in range(5):
        outputs = []
        for every in (False, True):
            rng = random.Random(seed)
            m, said = Machine(ruleset, repeat_s=10), []
            for _ in range(300):
                for pid in range(1000, 1010):
                    if rng.random() < 0.1:
                        m.set(pid, cpu_percent=rng.choice([0.0, 5.0, 95.0, 99.0]), cpu_seconds_total=rng.random(),
                              memory_bytes=rng.choice([1, 10**7]))
                if every:
                    m.changed = set(m.rows)
                said += m.tick()
            outputs.append(said)
        assert outputs[0] == outputs[1] and outputs[0]


def test_the_last_row_of_a_process_that_ended_matches_nothing() -> None:
    """It carries what the process still used; there is no process to act on any more."""
    m = Machine(rules("cpu_percent_min = 50"), lifetime=False)
    m.set(1000, age_s=1000, cpu_percent=99.0, ended=True)
    assert m.tick() == []
    m.set(1000, ended=None)
    assert [found["rule"] for found in m.tick()] == ["r"]


def test_rules_that_the_names_rule_out_are_not_followed() -> None:
    """Only what a rule means has a window; under the name that it means, a process begins to count."""
    m = Machine(rules('command_patterns = ["^spin$"]', *SUSTAINED), lifetime=False)
    m.set(1000, age_s=1000, cpu_percent=99.0, command="work", exe="/usr/bin/work", cmdline="work")
    m.set(1001, age_s=1000, cpu_percent=99.0, command="spin", exe="/usr/bin/spin", cmdline="spin")
    found = m.run(280)
    assert [each["pid"] for each in found] == [1001]
    assert {key[0]: len(seen.windows) for key, seen in m.matcher._seen.items()} == {1000: 0, 1001: 1}
    m.set(1000, cpu_percent=99.0, command="spin", exe="/usr/bin/spin", cmdline="spin")
    assert not [each for each in m.run(260) if each["pid"] == 1000]
    assert [each for each in m.run(40) if each["pid"] == 1000]
