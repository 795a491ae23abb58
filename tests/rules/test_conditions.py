"""Each condition alone: when it holds, when it cannot be known, for how long the answer is valid, and its text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.rules.conditions import (
    NEVER,
    Age,
    Band,
    Called,
    Level,
    Node,
    Orphan,
    State,
    Subject,
    User,
    Verdict,
    Written,
)
from rogue_hunter.rules.patterns import Patterns, PatternSet, Probe, compile_pattern
from rogue_hunter.schema.field import BANDS

CPU = Level("cpu_percent_min", 50.0, "cpu_percent", 1.0, True, ("cpu_seconds_total",), 100.0)
CALM = Level("cpu_percent_max", 5.0, "cpu_percent", 1.0, False, ("cpu_seconds_total",), 100.0)
MEMORY = Level("memory_mb_min", 100.0, "memory_bytes", 1e-6)
DISK = Level("disk_mb_per_s_min", 5.0, "disk_bytes_per_s", 1e-6, True,
             ("disk_read_bytes_total", "disk_write_bytes_total"), 1e-6)
GPU = Level("gpu_percent_min", 50.0, "gpu_ms_per_s", 0.1, True, ("gpu_seconds_total",), 100.0)


def subject(age_s: float | None = 60.0, *, lifetime: bool = False, rule: str = "r", orphan: bool | None = None,
            cpus: int = 1, slack: float = 0.0, **row: Any) -> Subject:
    def held(node: Node, s: Subject) -> Verdict:
        raise AssertionError

    made = Subject({"exe": "", "cmdline": "", **row}, age_s, Patterns(), held, orphan=orphan, cpus=cpus, slack=slack)
    made.lifetime, made.rule = lifetime, rule
    return made


def answer(node: Node, *age: float | None, **fields: Any) -> bool | None:
    """The answer alone, which stands as long as the row does."""
    value, stands = node.verdict(subject(*age, **fields))
    assert stands == NEVER == math.inf
    return value


def told(node: Node, *age: float | None, **fields: Any) -> list[dict[str, Any]]:
    return list(node.explain(subject(*age, **fields)))


def test_every_condition_walks_itself_alone() -> None:
    for node in (CPU, Band("high"), State(("running",)), User(("u",)), Age(5.0, "age_seconds", 1.0), Orphan(True)):
        assert list(node.walk()) == [node]


class TestLevel:
    @pytest.mark.parametrize(("node", "field", "limit"), [
        (CPU, "cpu_percent", 50.0), (MEMORY, "memory_bytes", 100_000_000), (DISK, "disk_bytes_per_s", 5_000_000.0),
        (GPU, "gpu_ms_per_s", 500.0)])
    def test_at_least(self, node: Level, field: str, limit: float) -> None:
        assert answer(node, **{field: limit}) is True
        assert answer(node, **{field: limit * 1.01}) is True
        assert answer(node, **{field: limit * 0.99}) is False
        assert answer(node, **{field: 0}) is False
        assert answer(node) is None

    def test_at_most(self) -> None:
        assert answer(CALM, cpu_percent=0.0) is True and answer(CALM, cpu_percent=5.0) is True
        assert answer(CALM, cpu_percent=5.01) is False and answer(CALM) is None

    @given(st.floats(0, 1e9), st.floats(0, 1e9))
    def test_the_two_are_opposites_but_for_the_limit_itself(self, value: float, limit: float) -> None:
        least, most = (Level("x", limit, "score", 1.0, which) for which in (True, False))
        both = answer(least, score=value), answer(most, score=value)
        assert both == ((True, True) if value == limit else (value > limit, value < limit))

    @pytest.mark.parametrize(("cpu", "least", "most"), [(45.1, True, False), (44.9, False, False),
                                                        (14.9, False, True), (15.1, False, False)])
    def test_a_tenth_may_be_forgiven_to_a_cpu_reading(self, cpu: float, least: bool, most: bool) -> None:
        """A tenth of a limit below it; ten percent of a core above it, because a tenth of 5 % is nothing."""
        assert answer(CPU, cpu_percent=cpu, slack=0.1) is least
        assert answer(CALM, cpu_percent=cpu, slack=0.1) is most

    @pytest.mark.parametrize(("node", "field", "missed"), [
        (MEMORY, "memory_bytes", 99_000_000), (DISK, "disk_bytes_per_s", 4_990_000.0), (GPU, "gpu_ms_per_s", 499.0)])
    def test_and_to_no_other(self, node: Level, field: str, missed: float) -> None:
        assert answer(node, slack=0.1, **{field: missed}) is False

    def test_its_text(self) -> None:
        assert told(CPU, cpu_percent=99.456) == [
            {"condition": "cpu_percent_min", "limit": 50.0, "value": 99.46, "evidence": "reading"}]
        assert told(CPU, 10.0, lifetime=True, cpu_seconds_total=9.0, threads=1) == [
            {"condition": "cpu_percent_min", "limit": 50.0, "value": 90.0, "evidence": "lifetime"}]
        assert told(MEMORY) == [
            {"condition": "memory_mb_min", "limit": 100.0, "value": None, "evidence": "reading"}]


class TestLifetime:
    """Without a history: the average over the process's whole life."""

    def test_of_cpu(self) -> None:
        assert answer(CPU, 100.0, lifetime=True, cpu_seconds_total=50.0, cpu_percent=0.0, threads=1) is True
        assert answer(CPU, 100.0, lifetime=True, cpu_seconds_total=49.9, cpu_percent=99.0, threads=1) is False
        assert answer(CPU, 0.5, lifetime=True, cpu_seconds_total=0.25, threads=1) is True

    def test_of_both_directions_of_the_disk(self) -> None:
        both = {"disk_read_bytes_total": 300_000_000, "disk_write_bytes_total": 200_000_000}
        assert answer(DISK, 100.0, lifetime=True, **both) is True
        assert answer(DISK, 100.1, lifetime=True, **both) is False
        del both["disk_write_bytes_total"]
        assert answer(DISK, 1.0, lifetime=True, **both) is None

    def test_of_a_counter_in_the_unit_of_the_limit(self) -> None:
        wakeups = Level("wakeups_per_s_min", 50.0, "wakeups_per_s", 1.0, totals=("wakeups_total",))
        assert answer(wakeups, 100.0, lifetime=True, wakeups_total=5000) is True
        assert answer(wakeups, 100.0, lifetime=True, wakeups_total=4999) is False

    @pytest.mark.parametrize("age_s", [None, 0.0, -1.0])
    def test_of_a_life_of_no_known_length_is_unknown(self, age_s: float | None) -> None:
        assert answer(CPU, age_s, lifetime=True, cpu_seconds_total=50.0) is None

    def test_of_what_is_no_flow_is_unknown(self) -> None:
        assert answer(MEMORY, 100.0, lifetime=True, memory_bytes=10 ** 9) is None
        assert answer(Level("score_min", 1.0, "score", 1.0), 100.0, lifetime=True, score=99.0) is None

    @pytest.mark.parametrize(("threads", "cpus", "proved"), [
        (1, 8, True), (2, 8, True), (3, 8, False), (8, 2, True), (8, 3, False), (0, 8, True), (8, 0, True),
        (None, 8, None)])
    def test_threads_side_by_side_prove_less(self, threads: int | None, cpus: int, proved: bool | None) -> None:
        """100 s of CPU time in 100 s: one core all the time, or two threads half of it; three threads may have been
        done after 33 s. As many as there are cores count, and no fewer than one."""
        known = {} if threads is None else {"threads": threads}
        assert answer(CPU, 100.0, lifetime=True, cpus=cpus, cpu_seconds_total=100.0, **known) is proved

    @pytest.mark.parametrize("known", [{"threads": 0}, {"threads": 1}], ids=str)
    def test_one_thread_is_one_core(self, known: dict[str, int]) -> None:
        """As a process whose threads have ended is."""
        assert answer(CPU, 100.0, lifetime=True, cpus=8, cpu_seconds_total=99.0, **known) is True

    def test_but_not_that_little_was_used_or_anything_else(self) -> None:
        four = {"threads": 4, "cpus": 4, "lifetime": True}
        assert CALM.verdict(subject(100.0, cpu_seconds_total=10.0, **four))[0] is False
        assert answer(GPU, 100.0, gpu_seconds_total=50.0, **four) is True

    def test_an_idle_process_becomes_calm_by_growing_old(self) -> None:
        """10 s of CPU time: 10 % at 100 s of age and 5 % at 200 s, which is 100 s from now."""
        aging = subject(100.0, lifetime=True, cpu_seconds_total=10.0)
        assert CALM.verdict(aging) == (False, pytest.approx(100.0))
        assert CALM.verdict(subject(200.0, lifetime=True, cpu_seconds_total=10.0)) == (True, NEVER)
        assert CALM.verdict(subject(100.0, cpu_percent=10.0)) == (False, NEVER)
        assert CALM.verdict(subject(None, cpu_percent=10.0)) == (False, NEVER)

    def test_and_never_less_than_nothing(self) -> None:
        none = Level("cpu_percent_max", 0.0, "cpu_percent", 1.0, False, ("cpu_seconds_total",), 100.0)
        assert none.verdict(subject(100.0, lifetime=True, cpu_seconds_total=1.0)) == (False, NEVER)
        assert none.verdict(subject(100.0, lifetime=True, cpu_seconds_total=0.0)) == (True, NEVER)
        small = Level("cpu_percent_max", 0.5, "cpu_percent", 1.0, False, ("cpu_seconds_total",), 100.0)
        assert small.verdict(subject(100.0, lifetime=True, cpu_seconds_total=1.0)) == (False, pytest.approx(100.0))


class TestBand:
    @pytest.mark.parametrize("limit", BANDS)
    def test_this_one_or_a_higher(self, limit: str) -> None:
        for band in BANDS:
            assert answer(Band(limit), band=band) is (BANDS.index(band) >= BANDS.index(limit))

    def test_unknown(self) -> None:
        assert answer(Band("low")) is None and answer(Band("low"), band="severe") is None
        assert answer(Band("low"), lifetime=True, band="high") is None

    def test_its_text(self) -> None:
        assert told(Band("high"), band="critical") == [
            {"condition": "band_min", "limit": "high", "value": "critical", "evidence": "reading"}]


class TestState:
    def test_one_of_these(self) -> None:
        node = State(("defunct", "stopped"))
        assert answer(node, state="stopped") is True and answer(node, state="running") is False
        assert answer(node) is None and answer(node, lifetime=True, state="stopped") is None

    def test_its_text(self) -> None:
        assert told(State(("defunct", "stopped")), state="stopped") == [
            {"condition": "state", "limit": "defunct,stopped", "value": "stopped", "evidence": "reading"}]


class TestUser:
    def test_by_name_or_number(self) -> None:
        node = User(("alice", "1000"))
        assert answer(node, user="alice") is True and answer(node, uid=1000) is True
        assert answer(node, user="alice", uid=7) is True and answer(node, user="bob", uid=1000) is True
        assert answer(node, user="bob", uid=1001) is False and answer(node) is None
        assert answer(User(("None",)), user="bob") is False and answer(User(("0",)), uid=7) is False

    def test_a_name_or_number_that_is_not_known_may_be_any(self) -> None:
        assert answer(User(("alice", "1000")), user="bob") is None and answer(User(("1000",)), user="bob") is None
        assert answer(User(("alice",)), uid=100) is None and answer(User(("None",)), uid=7) is None

    def test_its_text(self) -> None:
        """The name where there is one."""
        said = {"condition": "user", "limit": "alice,1000", "evidence": "reading"}
        node = User(("alice", "1000"))
        assert told(node, user="alice", uid=7) == [{**said, "value": "alice"}]
        assert told(node, uid=1000) == [{**said, "value": 1000}]


class TestAge:
    def test_at_least_this_old_and_when_it_will_be(self) -> None:
        node = Age(60.0, "age_seconds", 1.0)
        assert node.verdict(subject(60.0)) == (True, NEVER) and node.verdict(subject(1e9)) == (True, NEVER)
        assert node.verdict(subject(59.0)) == (False, 1.0) and node.verdict(subject(0.0)) == (False, 60.0)
        assert node.verdict(subject(None)) == (None, NEVER)

    def test_its_text_uses_the_words_of_the_file(self) -> None:
        hours = {"condition": "age_hours", "limit": 4.0, "evidence": "reading"}
        assert told(Age(14_400.0, "age_hours", 3600.0), 20_000.0) == [{**hours, "value": 5.56}]
        assert told(Age(14_400.0, "age_hours", 3600.0), None) == [{**hours, "value": None}]
        assert told(Age(60.0, "age_seconds", 1.0), 61.236) == [
            {"condition": "age_seconds", "limit": 60.0, "value": 61.24, "evidence": "reading"}]


class TestOrphan:
    @pytest.mark.parametrize("wanted", [True, False])
    def test_the_parent_died_or_did_not_or_it_is_unknown(self, wanted: bool) -> None:
        assert answer(Orphan(wanted), orphan=True) is wanted
        assert answer(Orphan(wanted), orphan=False) is not wanted
        assert answer(Orphan(wanted)) is None

    def test_its_text(self) -> None:
        assert told(Orphan(True), orphan=True) == [
            {"condition": "orphan", "limit": True, "value": True, "evidence": "reading"}]


class TestCalled:
    @staticmethod
    def node(text: str, name: str = "command_patterns", excluded: bool = False) -> Called:
        return Called(name, PatternSet((Probe("names", compile_pattern(text), text),)), excluded)

    def test_by_its_names(self) -> None:
        assert answer(self.node("^vic"), command="victim") is True
        assert answer(self.node("^vic"), command="other") is False
        assert answer(self.node("^vic")) is None

    def test_or_not(self) -> None:
        assert answer(self.node("^vic", excluded=True), command="victim") is False
        assert answer(self.node("^vic", excluded=True), command="other") is True

    def test_who_excludes_a_command_means_it_with_options_too(self) -> None:
        build = {"command": "cargo", "cmdline": "cargo build --release"}
        assert answer(self.node("^cargo build$", excluded=True), **build) is False
        assert answer(self.node("^cargo build$"), **build) is False

    def test_too_slow_to_find_out_is_unknown(self) -> None:
        for excluded in (True, False):
            slow = subject(command="victim")
            slow.patterns = Patterns(budget_s=0.0)
            assert self.node("^vic", excluded=excluded).verdict(slow) == (None, NEVER)
            assert list(slow.patterns.disabled) == ["r"]

    def test_a_subject_without_a_rule_is_asked_as_well(self) -> None:
        assert subject(rule="").rule == Subject({}, None, Patterns(), lambda n, s: (None, NEVER)).rule == ""

    def test_its_text_is_the_pattern_and_the_line(self) -> None:
        assert told(self.node("^vic"), command="victim", cmdline="/bin/victim -x") == [
            {"condition": "command_patterns", "limit": "^vic", "value": "victim -x", "evidence": "reading"}]
        assert told(self.node("^vic", "cmdline_patterns"), command="victim")[0]["condition"] == "cmdline_patterns"
        assert told(self.node("x", "exclude_patterns", excluded=True), command="victim") == []


@pytest.mark.parametrize(("total", "age_s", "held", "valid_s"), [
    (3e9, 3600.0, True, 3000 / 2147 * 86400 - 3600), (2.1e9, 3600.0, False, NEVER), (3e9, 172_800.0, False, NEVER),
    (None, 3600.0, None, NEVER), (3e9, None, None, NEVER),
])
def test_written_a_day(total: float | None, age_s: float | None, held: bool | None, valid_s: float) -> None:
    """The average a day of its life, of one day at least; it falls with age while nothing is written."""
    row = {} if total is None else {"disk_write_bytes_total": int(total)}
    subject = Subject(row, age_s, Patterns(), lambda node, s: (None, NEVER))
    assert Written(2147.0).verdict(subject) == (held, pytest.approx(valid_s))
