"""Right before a signal: is the process still what matched?"""

from __future__ import annotations

import re
from typing import Any

import pytest

from rogue_hunter.reaper.candidate import LEVELS, still_matches
from rogue_hunter.reaper.process import live
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.model import Rule
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.stream.tick import Record

NOW = 1_700_000_000.0


def rule(conditions: str) -> Rule:
    (found,) = parse(f'[[rules]]\nname = "r"\n[rules.conditions]\n{conditions}\n'.encode()).rules
    return found


def match(**fields: Any) -> Record:
    """A match of this moment, of a process that is named victim."""
    return {"type": "match", "ts": NOW, "pid": 4000, "start_ticks": 7, "command": "victim", "exe": "/bin/victim",
            **fields}


def why(conditions: str | None, matched: Record, now: dict[str, Any], *, age_s: float = 60.0, later_s: float = 0.0,
        levels: bool = True, patterns: Patterns | None = None) -> str | None:
    """Why a process that was matched so and is `now` so is spared; `later_s` after the match."""
    row = {"command": "victim", "exe": "/bin/victim", "cmdline": "victim", **now}
    process = live((4000, 7), row, (1000,) * 4, leader=4000, age_s=age_s)
    found, text = still_matches(matched, process, None if conditions is None else rule(conditions),
                                patterns or Patterns(), NOW + later_s, levels=levels)
    assert (found is True) is (text == "")
    return text or None


GONE = "rule r no longer matches it"


class TestWithoutARule:
    """A person named the process: it must be the program that the person saw."""

    def test_the_same_program_is_not_spared_at_any_use(self) -> None:
        assert why(None, match(cpu_percent=99.0), {"cpu_percent": 0.0, "state": "stopped"}) is None

    @pytest.mark.parametrize("now", [{"command": "other"}, {"exe": "/bin/other"}], ids=str)
    def test_another_program_is(self, now: dict[str, Any]) -> None:
        assert why(None, match(), now) == f"it runs another program now: {now.get('command', 'victim')}"

    def test_another_script_of_the_same_interpreter_is(self) -> None:
        """A launcher that has run another script since the question was asked."""
        seen = match(command="python3", exe="/usr/bin/python3", cmdline="python3 build.py")
        now = {"command": "python3", "exe": "/usr/bin/python3"}
        assert why(None, seen, {**now, "cmdline": "python3 deploy.py"}) == "it runs another program now: deploy.py"
        assert why(None, seen, {**now, "cmdline": "python3 -u build.py --again"}) is None

    def test_what_was_not_known_of_it_must_still_not_be(self) -> None:
        seen = match()
        del seen["exe"]
        assert why(None, seen, {}) == "it runs another program now: victim"


@pytest.mark.parametrize(("field", "conditions", "high", "low"), [
    ("memory_bytes", "memory_mb_min = 100", 100_000_000, 99_999_999),
    ("disk_bytes_per_s", "disk_mb_per_s_min = 5", 5_000_000.0, 4_999_999.0),
    ("gpu_ms_per_s", "gpu_percent_min = 50", 500.0, 499.0),
    ("wakeups_per_s", "wakeups_per_s_min = 1000", 1000.0, 999.0),
    ("score", "score_min = 60", 60.0, 59.9),
    ("band", 'band_min = "high"', "high", "elevated"),
    ("state", 'state = "uninterruptible"', "uninterruptible", "sleeping"),
    ("cpu_percent", "cpu_percent_min = 50", 45.0, 44.9),
])
class TestLevels:
    """What is used: as it is now where one reading shows it, else as the match had it."""

    def test_as_the_match_had_it(self, field: str, conditions: str, high: Any, low: Any) -> None:
        assert why(conditions, match(**{field: high}), {}) is None
        assert why(conditions, match(**{field: low}), {}) == GONE

    def test_as_it_is_now_where_the_reading_says(self, field: str, conditions: str, high: Any, low: Any) -> None:
        if field == "cpu_percent":
            return  # one reading has no rate: see TestCpu
        assert why(conditions, match(**{field: high}), {field: low}) == GONE
        assert why(conditions, match(**{field: low}), {field: high}) is None

    def test_a_process_that_winds_up_uses_little(self, field: str, conditions: str, high: Any, low: Any) -> None:
        """Between SIGTERM and SIGKILL what it was judged for counts."""
        assert why(conditions, match(**{field: high}), {field: low}, levels=False) is None
        assert why(conditions, match(**{field: low}), {field: high}, levels=False) == GONE

    def test_unknown_in_both_is_no_proof(self, field: str, conditions: str, high: Any, low: Any) -> None:
        reason = why(conditions, match(), {})
        assert reason is not None and re.fullmatch(r"rule r cannot be evaluated: its [\w ]+ is not known", reason)


def test_every_number_that_a_rule_may_ask_for_is_a_level() -> None:
    assert LEVELS == ("cpu_percent", "cpu_seconds_total", "memory_bytes", "disk_bytes_per_s", "gpu_ms_per_s",
                      "wakeups_per_s", "score", "band", "state", "threads")


class TestCpu:
    """The CPU time since the match, where that is a second ago; a tenth below the limit is forgiven."""

    @pytest.mark.parametrize(("used_s", "spared"), [(4.5, False), (4.49, True)])
    def test_is_measured_since_the_match(self, used_s: float, spared: bool) -> None:
        found = why("cpu_percent_min = 50", match(cpu_percent=99.0, cpu_seconds_total=100.0),
                    {"cpu_seconds_total": 100.0 + used_s}, later_s=10.0)
        assert (found == GONE) is spared and (found is None) is not spared

    @pytest.mark.parametrize(("used_s", "spared"), [(1.49, False), (1.51, True)])
    def test_at_most_is_forgiven_ten_percent_of_a_core(self, used_s: float, spared: bool) -> None:
        found = why("cpu_percent_max = 5", match(cpu_percent=1.0, cpu_seconds_total=100.0),
                    {"cpu_seconds_total": 100.0 + used_s}, later_s=10.0)
        assert (found == GONE) is spared

    def test_too_early_a_reading_keeps_that_of_the_match(self) -> None:
        calm = {"cpu_seconds_total": 100.0}
        busy = match(cpu_percent=99.0, cpu_seconds_total=100.0)
        assert why("cpu_percent_min = 50", busy, calm, later_s=0.9) is None
        assert why("cpu_percent_min = 50", busy, calm, later_s=1.0) == GONE

    def test_is_not_asked_between_the_signals(self) -> None:
        busy = match(cpu_percent=99.0, cpu_seconds_total=100.0)
        assert why("cpu_percent_min = 50", busy, {"cpu_seconds_total": 100.0}, later_s=5.0, levels=False) is None

    def test_nothing_else_is_forgiven(self) -> None:
        """The tenth is for the grain of CPU time. Memory and scores have none."""
        assert why("memory_mb_min = 100", match(memory_bytes=10 ** 9), {"memory_bytes": 99_000_000}) == GONE


class TestTheRest:
    def test_a_window_is_taken_as_proved(self) -> None:
        """What it holds now is asked, not for how long."""
        conditions = "cpu_percent_min = 50\nduration_seconds = 300"
        assert why(conditions, match(cpu_percent=80.0), {}) is None
        assert why(conditions, match(cpu_percent=20.0), {}) == GONE

    def test_the_age_is_the_one_of_now(self) -> None:
        assert why("age_seconds = 100", match(age_s=5.0), {}, age_s=100.0) is None
        assert why("age_seconds = 100", match(age_s=500.0), {}, age_s=99.9) == GONE

    @pytest.mark.parametrize(("orphan", "expected"), [
        (True, None), (False, GONE), (None, "rule r cannot be evaluated: it is not known whether its parent exited")])
    def test_whose_parent_died_is_remembered_by_the_match(self, orphan: bool | None, expected: str | None) -> None:
        seen = match() if orphan is None else match(orphan=orphan)
        assert why("orphan = true", seen, {}) == expected

    @pytest.mark.parametrize("levels", [True, False])
    def test_the_name_is_the_one_of_now(self, levels: bool) -> None:
        """A process may become another program by exec: pid and start stay."""
        assert why('command_patterns = ["^victim$"]', match(), {}, levels=levels) is None
        assert why('command_patterns = ["^victim$"]', match(), {"command": "editor", "exe": "/bin/editor", "cmdline": "editor"},
                   levels=levels) == GONE

    def test_a_slow_pattern_spares_and_its_rule_is_named(self) -> None:
        """Each question has the whole budget; the rule that overran it is the one that is switched off."""
        ticks = iter(range(1000))
        patterns = Patterns(budget_s=1.5, cpu_clock=lambda: float(next(ticks)))
        conditions = 'command_patterns = ["^vic"]'
        for i in range(5):
            assert why(conditions, match(), {"command": f"victim{i}"}, patterns=patterns) is None
        spent = Patterns(budget_s=0.0)
        assert why(conditions, match(), {}, patterns=spent) == (
            "rule r cannot be evaluated: its patterns took more than 0 ms of CPU time in one tick")
        assert list(spent.disabled) == ["r"]
