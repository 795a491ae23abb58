"""The examples of a rule file: processes that a rule must match, and processes that it must not."""

from __future__ import annotations

import math

from rogue_hunter.rules.model import Example, Rule, RuleSet
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.rules.program import listed
from rogue_hunter.rules.subject import HELD_SHARE, NEVER, Held, Subject, Verdict


def check_examples(rules: RuleSet) -> list[str]:
    """What is wrong, a sentence for each example that does not come out as it says; empty when all do."""
    patterns = Patterns()
    return [f"{rule.source}: rule {rule.name}: {_wanted(example)}: {example.why}"
            for rule in rules.rules for example in rule.examples
            if matches(rules, rule, example, patterns) != example.match]


def _wanted(example: Example) -> str:
    return "must match and does not" if example.match else "must not match and does"


def matches(rules: RuleSet, rule: Rule, example: Example, patterns: Patterns) -> bool:
    """Would `rule` match the process of `example`, whitelist included?"""
    patterns.new_tick()

    def held(node: Held, s: Subject) -> Verdict:
        holds = node.node.verdict(s)[0]
        return (holds if example.held_s >= HELD_SHARE * node.seconds else False), NEVER

    row = dict(example.row)
    age_s = row.pop("age_s", math.inf)
    subject = Subject(row, age_s, patterns, held, orphan=example.orphan)
    subject.rule = rule.name
    return rule.condition.verdict(subject)[0] is True and listed(subject.program, rules.safety.whitelist) is None
