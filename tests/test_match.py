"""Matching: what a rule says of processes over time. Clocks are turned by hand; no test sleeps."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruletools import Machine, rules

from rogue_hunter.match import match
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.rules.window import Window
from rogue_hunter.tick import Tick

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


def test_a_wall_clock_that_is_set_makes_nobody_old() -> None:
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
    """A single run has no history: the average over the life of a process may stand in for it, and says so."""

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
        ("init", "", True), ("systemd", "/user.slice/session-1.scope", True),
        ("systemd", "/system.slice/cron.service", False), ("bash", "/user.slice/session-1.scope", False),
    ])
    def test_at_first_sight(self, parent: str, cgroup: str, expected: bool) -> None:
        m = Machine(rules(*self.RULE))
        m.set(1 if parent == "init" else 800, command=parent)
        m.set(1000, command="tail", ppid=1 if parent == "init" else 800, **({"cgroup": cgroup} if cgroup else {}))
        assert bool(m.tick()) is expected

    @pytest.mark.parametrize("shell", ["bash", "sh", "zsh"])
    def test_children_of_a_container_s_shell_may_be_its_own(self, shell: str) -> None:
        """Where pid 1 is a shell, nobody can tell what it started from what fell to it; what was seen to fall is one."""
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
    m.set(1002, command="kworker/0:0", ppid=2, cpu_percent=99.0)
    m.set(1003, command="claudette", cpu_percent=99.0)
    assert [r["pid"] for r in m.tick()] == [1003]


def test_unknown_is_never_a_match() -> None:
    for conditions in (("cpu_percent_min = 0",), ("not = { cpu_percent_min = 90 }", "age_seconds = 0"),
                       ("gpu_percent_min = 0",), ('band_min = "low"',), ('state = "running"',), ("score_min = 0",)):
        m = Machine(rules(*conditions))
        m.set(1000, age_s=10)
        assert m.tick() == [], conditions


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


def test_a_rule_that_backtracks_for_ever_is_disabled_and_matches_nothing() -> None:
    """It ends within its budget, says so once, and the other rules go on."""
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


def test_an_idle_machine_is_asked_nothing() -> None:
    """1,000 idle processes against 20 rules: after the first tick no condition is looked at and no pattern run."""
    text = "".join(f'[[rules]]\nname = "r{i}"\nconditions = {{ command_patterns = ["^n{i}x", "_test{i}"], '
                   f'age_seconds = 1, cpu_percent_max = 5, duration_seconds = {60 + i} }}\n' for i in range(20))
    from rogue_hunter.rules import parse

    patterns = Counting()
    m = Machine(parse(text.encode()), patterns=patterns, lifetime=False)
    asked: list[int] = []
    original = m.matcher._ask
    m.matcher._ask = lambda *a: (asked.append(1), original(*a))[1]  # type: ignore[method-assign,func-returns-value]
    for pid in range(1000, 2000):
        m.set(pid, age_s=500, command=f"daemon{pid % 50}", cpu_percent=0.0)
    m.tick()
    assert len(asked) == 1000
    m.run(50)
    assert len(asked) == 1000
    m.run(40)  # the windows fill, once for each process and rule at most
    assert patterns.evaluated == 50 * 20
    before = patterns.asked, len(asked)
    m.run(100)
    assert (patterns.asked, len(asked)) == before


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
    assert list(match(iter(ticks), rules("cpu_percent_min = 1"))) == ticks


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


def test_the_same_stream_gives_the_same_records_whatever_is_called_changed() -> None:
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
