"""The examples of a rule file, tried."""

from __future__ import annotations

from typing import Any

import pytest

from rogue_hunter.rules.backtest import check_examples, matches
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.model import Example, RuleSet
from rogue_hunter.rules.patterns import Patterns


def rules(conditions: str, examples: str = "", head: str = "") -> RuleSet:
    return parse(f'{head}\n[[rules]]\nname = "r"\n[rules.conditions]\n{conditions}\n{examples}\n'.encode(), "f.toml")


def tried(found: RuleSet, held_s: float = 0.0, orphan: bool | None = None, patterns: Patterns | None = None,
          **row: Any) -> bool:
    return matches(found, found.rules[0], Example(True, row, "", held_s, orphan), patterns or Patterns())


def test_what_is_wrong_names_the_file_the_rule_and_the_example() -> None:
    examples = """
[[rules.example]]
match = true
why = "busy"
cpu_percent = 10
[[rules.example]]
match = false
why = "calm"
cpu_percent = 90
[[rules.example]]
match = true
why = "right"
cpu_percent = 90
[[rules.example]]
match = false
cpu_percent = 10
"""
    assert check_examples(rules("cpu_percent_min = 50", examples)) == [
        "f.toml: rule r: must match and does not: busy", "f.toml: rule r: must not match and does: calm"]


@pytest.mark.parametrize(("held_s", "cpu", "expected"), [
    (270.0, 90.0, True), (269.9, 90.0, False), (300.0, 40.0, False), (1e9, 90.0, True)])
def test_what_lasts_has_lasted_for_nine_tenths(held_s: float, cpu: float, expected: bool) -> None:
    assert tried(rules("cpu_percent_min = 50\nduration_seconds = 300"), held_s, cpu_percent=cpu) is expected


def test_what_is_unknown_is_no_match() -> None:
    busy = rules("cpu_percent_min = 50\nduration_seconds = 300")
    assert not tried(busy, 1e9, command="x")
    assert not tried(rules("not = { cpu_percent_min = 50, duration_seconds = 300 }\nuser = 'u'"), 1e9, user="u")
    assert tried(rules("not = { cpu_percent_min = 50, duration_seconds = 300 }\nuser = 'u'"), 0.0, user="u",
                 cpu_percent=90.0)
    assert not tried(rules("orphan = true"), command="x") and tried(rules("orphan = true"), orphan=True, command="x")


def test_it_is_as_old_as_the_example_says_and_else_old_enough() -> None:
    old = rules("age_seconds = 100")
    assert tried(old, command="x") and tried(old, age_s=100.0) and not tried(old, age_s=99.0)


def test_the_whitelist_protects_here_too() -> None:
    found = rules("cpu_percent_min = 50", head='[safety]\nwhitelist_processes = ["mine"]')
    assert tried(found, command="yours", cpu_percent=90.0)
    assert not tried(found, command="mine", cpu_percent=90.0) and not tried(found, command="vim", cpu_percent=90.0)


def test_each_example_has_the_whole_patience_of_its_rule() -> None:
    """And the rule that exceeds the limit is named."""
    ticks = iter(range(1000))
    patterns = Patterns(budget_s=1.5, cpu_clock=lambda: float(next(ticks)))
    called = rules('command_patterns = ["^vic"]')
    assert all(tried(called, patterns=patterns, command=f"victim{i}") for i in range(5))
    spent = Patterns(budget_s=0.0)
    assert not tried(called, patterns=spent, command="victim") and list(spent.disabled) == ["r"]
