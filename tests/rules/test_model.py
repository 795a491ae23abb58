"""What a rule file may leave out, the words that it may use, and which of its rules count."""

from __future__ import annotations

from typing import Any

import pytest

from rogue_hunter.rules.conditions import Held
from rogue_hunter.rules.load import builtin, parse
from rogue_hunter.rules.logic import AllOf
from rogue_hunter.rules.model import (
    ACTIONS,
    LOG_LEVELS,
    MIN_PID,
    PRIORITIES,
    SIGNALS,
    URGENCIES,
    Action,
    Example,
    Rule,
    RuleError,
    RuleSet,
    Safety,
    Settings,
)

RULE = '[[rules]]\nname = "r"\nconditions = {{ score_min = 1 }}\n{}\n'


def one(more: str = "") -> Rule:
    (rule,) = parse(RULE.format(more).encode(), "f.toml").rules
    return rule


def test_a_rule_that_says_no_more_than_its_conditions() -> None:
    """Ended with SIGTERM, five seconds, then SIGKILL; no notification. In the middle of the order, and on."""
    rule = one()
    assert (rule.priority, rule.enabled, rule.examples, rule.source) == ("medium", True, (), "f.toml")
    assert rule.action == Action("kill", "SIGTERM", 5.0, True, False, "warning") == Action()
    bare = Rule("r", AllOf(()), {})
    assert (bare.priority, bare.enabled, bare.action, bare.examples, bare.source) == ("medium", True, Action(), (), "")


def test_an_example_that_says_no_more_than_its_process() -> None:
    example = Example(True, {"command": "x"})
    assert (example.why, example.held_s, example.orphan) == ("", 0.0, None)


def test_a_file_that_says_nothing_protects_and_bounds_all_the_same() -> None:
    assert Safety() == Safety(whitelist=(), min_pid=None, max_per_run=20, max_per_rule_per_hour=5)
    assert parse(b"").safety == Safety(builtin().safety.whitelist) and MIN_PID == 1000


def test_a_file_that_says_nothing_of_the_reaper() -> None:
    """It is on and no dry run; it sends no notification and serves no metrics; its log is 5 files of 100 MB."""
    assert parse(b"").settings == Settings(
        enabled=True, scan_interval_s=60.0, dry_run=False, log_file=None, log_level="info", log_max_bytes=100_000_000,
        log_keep=5, notify=False, notify_urgency="normal", notify_timeout_ms=5000, metrics=False, metrics_port=9090,
        metrics_path="/metrics") == Settings()


def test_a_rule_set_by_hand_has_the_same() -> None:
    rules = RuleSet(())
    assert (rules.safety, rules.settings, rules.sources, rules.enabled) == (Safety(), Settings(), (), ())


@pytest.mark.parametrize(("words", "expected"), [
    (PRIORITIES, "critical high medium low"), (SIGNALS, "SIGTERM SIGKILL"), (ACTIONS, "kill renice stop freeze notify log exec webhook"),
    (LOG_LEVELS, "debug info warning error"), (URGENCIES, "low normal critical")])
def test_the_words_and_their_order(words: tuple[str, ...], expected: str) -> None:
    assert words == tuple(expected.split())


@pytest.mark.parametrize(("line", "words", "read"), [
    ('priority = "{}"', PRIORITIES, lambda rule: rule.priority),
    ('action = {{ signal = "{}" }}', SIGNALS, lambda rule: rule.action.signal),
    ('action = {{ log_level = "{}" }}', LOG_LEVELS, lambda rule: rule.action.log_level),
])
def test_each_word_is_taken_as_it_is_written(line: str, words: tuple[str, ...], read: Any) -> None:
    assert [read(one(line.format(word))) for word in words] == list(words)
    for wrong in ("", words[0].swapcase(), words[0] + " ", "x"):
        with pytest.raises(RuleError, match=f"must be one of {', '.join(words)}, not "):
            one(line.format(wrong))


def test_each_type_of_action_is_taken_as_it_is_written() -> None:
    """A hook needs what it runs."""
    more = {"exec": ', command = ["/x"]', "webhook": ', url = "https://x/"'}
    for kind in ACTIONS:
        assert one(f'action = {{ type = "{kind}"{more.get(kind, "")} }}').action.type == kind
    with pytest.raises(RuleError, match=f"must be one of {', '.join(ACTIONS)}, not "):
        one('action = { type = "KILL" }')


def test_a_file_that_cannot_be_used_is_exit_78() -> None:
    """EX_CONFIG of sysexits(3)."""
    assert RuleError.code == 78


def test_rules_by_name_are_those_that_are_enabled() -> None:
    on, off = Rule("on", AllOf(()), {}), Rule("off", AllOf(()), {}, enabled=False)
    rules = RuleSet((off, on))
    assert rules.enabled == (on,) and rules.rule("on") is on and rules.rule("off") is rules.rule("other") is None
    again = Rule("on", AllOf(()), {}, priority="low")
    assert RuleSet((Rule("on", AllOf(()), {}, enabled=False), again)).rule("on") is again


def test_the_windows_of_a_rule_wherever_they_stand() -> None:
    text = '[rules.conditions]\nduration_seconds = 5\ncpu_percent_min = 1\n' \
           'not = { duration_seconds = 7, score_min = 50 }'
    (rule,) = parse(f'[[rules]]\nname = "r"\n{text}\n'.encode()).rules
    assert sorted(held.seconds for held in rule.windows) == [5.0, 7.0]
    assert all(isinstance(held, Held) for held in rule.windows) and one().windows == ()
