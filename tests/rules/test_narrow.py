"""A project's file over the user's rules: with any content, it adds no process that may be killed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.rules.backtest import matches
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.model import Action, Example, RuleError, RuleSet
from rogue_hunter.rules.parse import narrow
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.schema.field import BANDS

LIMITS: dict[str, float] = {
    "cpu_percent_min": 50, "duration_seconds": 60, "age_seconds": 3600, "memory_mb_min": 100, "disk_mb_per_s_min": 5,
    "gpu_percent_min": 10, "wakeups_per_s_min": 100, "score_min": 45,
}
"""The limits of the user's rule that narrow it when they rise."""

USER = b"""
[safety]
whitelist_processes = ["my-editor", "my-shell"]
min_pid = 2000
max_per_run = 10
max_per_rule_per_hour = 3

[[rules]]
name = "bare"
priority = "low"
conditions = { command_patterns = ["^y"] }
action = { signal = "SIGKILL", timeout_seconds = 0.5 }
example = [{ match = true, command = "yy" }]

[[rules]]
name = "full"
priority = "high"
conditions = { cpu_percent_min = 50, cpu_percent_max = 90, duration_seconds = 60, age_hours = 1, memory_mb_min = 100, \
disk_mb_per_s_min = 5, gpu_percent_min = 10, wakeups_per_s_min = 100, score_min = 45, band_min = "elevated", \
command_patterns = ["^x"] }
action = { type = "kill", signal = "SIGTERM", timeout_seconds = 10, fallback_signal = "none" }

[[rules]]
name = "told"
conditions = { cpu_percent_max = 0.5 }
action = { type = "notify" }

[[rules]]
name = "off"
enabled = false
conditions = { score_min = 1 }
"""


def user() -> RuleSet:
    """The user's own rules."""
    return parse(USER, "user.toml")


def over(values: dict[str, Any], base: RuleSet | None = None) -> RuleSet:
    return narrow(base or user(), values, "p.toml")


def rule(name: str, **values: Any) -> dict[str, Any]:
    """A project's file with one rule."""
    return {"rules": [{"name": name, **values}]}


def refused(values: dict[str, Any], base: RuleSet | None = None) -> str:
    """The message for a file that is rejected."""
    with pytest.raises(RuleError) as error:
        over(values, base)
    return str(error.value)


def test_an_empty_file_changes_nothing_but_is_named() -> None:
    before = user()
    after = over({}, before)
    assert after.rules == before.rules and after.safety == before.safety and after.settings == before.settings
    assert after.sources == ("user.toml", "p.toml")
    assert over({"daemon": {}, "safety": {}, "rules": []}).safety == before.safety


@pytest.mark.parametrize(("values", "words"), [
    ({"logging": {}}, "logging: belongs into your own file; a project may only narrow rules"),
    ({"notifications": {}}, "notifications: belongs into your own file; a project may only narrow rules"),
    ({"metrics": {}}, "metrics: belongs into your own file; a project may only narrow rules"),
    ({"daemons": {}}, "daemons: unknown key; did you mean daemon?"),
    ({"system": {}}, "system: unknown key"),
    ({"daemon": 1}, "daemon: must be a table, not 1"),
    ({"daemon": {"dry_run": 1}}, "daemon.dry_run: must be true or false, not 1"),
    ({"daemon": {"scan_interval_seconds": 5}}, "daemon.scan_interval_seconds: unknown key"),
    ({"safety": []}, "safety: must be a table, not []"),
    ({"safety": {"max_per_hour": 1}}, "safety.max_per_hour: unknown key; did you mean max_per_run?"),
    ({"safety": {"protect_shell_ancestors": 1}}, "safety.protect_shell_ancestors: must be true or false, not 1"),
    ({"safety": {"protect_shell_ancestors": False}}, "safety.protect_shell_ancestors: ancestors are always protected"),
    ({"safety": {"whitelist_processes": "vim"}},
     "safety.whitelist_processes: a project can add to the whitelist, not empty it"),
    ({"safety": {"whitelist_processes": []}},
     "safety.whitelist_processes: a project can add to the whitelist, not empty it"),
    ({"safety": {"whitelist_processes": [""]}}, "safety.whitelist_processes: must not be empty"),
    ({"safety": {"min_pid": "x"}}, "safety.min_pid: must be a number, not \"x\""),
    ({"safety": {"min_pid": 1999}}, "safety.min_pid: 1999 is below 2000; a project can only raise it"),
    ({"safety": {"max_per_run": 11}}, "safety.max_per_run: 11 is above 10; a project can only lower it"),
    ({"safety": {"max_per_run": -1}}, "safety.max_per_run: must be at least 0, not -1"),
    ({"safety": {"max_per_rule_per_hour": 4}},
     "safety.max_per_rule_per_hour: 4 is above 3; a project can only lower it"),
    ({"rules": {}}, "rules: must be an array of tables, not {  }"),
    ({"rules": [{"name": "full"}, {"name": "new", "conditions": {"score_min": 1}}]},
     "rules 2: there is no rule 'new'; a project cannot add one"),
    ({"rules": [{"enabled": False}]}, "rules 1: there is no rule None; a project cannot add one"),
    ({"rules": [{"name": "full"}, {"name": "bare", "prio": "low"}]}, "rules 2.prio: unknown key; did you mean priority?"),
    (rule("off", enabled=True), "rule off.enabled: a project cannot enable a rule that you disabled"),
    (rule("bare", priority="medium"), "rule bare.priority: a project cannot raise it above low"),
    (rule("full", priority="critical"), "rule full.priority: a project cannot raise it above high"),
    (rule("told", action={"type": "kill"}), "rule told.action.type: a project cannot make notify a kill"),
    (rule("full", action={"signal": "SIGKILL"}), "rule full.action.signal: a project cannot make it SIGKILL"),
    (rule("full", action={"timeout_seconds": 9.5, "fallback_signal": "none"}),
     "rule full.action.timeout_seconds: 9.5 is below 10"),
    (rule("full", action={"timeout_seconds": 10, "fallback_signal": "SIGKILL"}),
     "rule full.action.fallback_signal: a project cannot make it SIGKILL"),
    (rule("full", conditions={"cpu_percent_max": 91}),
     "rule full.conditions.cpu_percent_max: 91 would widen the rule, whose limit is 90"),
    (rule("told", conditions={"cpu_percent_max": 0.75}),
     "rule told.conditions.cpu_percent_max: 0.75 would widen the rule, whose limit is 0.5"),
    (rule("full", conditions={"band_min": "medium"}),
     "rule full.conditions.band_min: medium would widen the rule, whose limit is elevated"),
    (rule("full", conditions={"age_hours": 0.5}),
     "rule full.conditions.age_seconds: 1800 would widen the rule, whose limit is 3600"),
    *((rule("full", conditions={"score_min": 50, key: limit - 1}), f"rule full.conditions.{key}: {limit - 1:g} would "
       f"widen the rule, whose limit is {limit:g}") for key, limit in LIMITS.items()),
])
def test_what_is_refused_and_in_which_words(values: dict[str, Any], words: str) -> None:
    """All of the line: it names the file, the place and the reason, so that its author finds it."""
    assert refused(values) == f"p.toml: {words}"


@pytest.mark.parametrize(("now", "wanted", "then"), [
    (False, None, False), (False, False, False), (False, True, True), (True, None, True), (True, True, True)])
def test_a_dry_run_may_begin_and_never_end(now: bool, wanted: bool | None, then: bool) -> None:
    base = parse(b"[daemon]\ndry_run = " + str(now).lower().encode())
    assert over({"daemon": {} if wanted is None else {"dry_run": wanted}}, base).settings.dry_run is then
    assert over({}, base).settings.dry_run is now
    if now:
        assert refused({"daemon": {"dry_run": False}}, base) == "p.toml: daemon.dry_run: a project cannot end a dry run"


def test_what_is_protected_grows() -> None:
    safety = over({"safety": {"whitelist_processes": ["mine", "my-editor"], "min_pid": 3000, "max_per_run": 9,
                              "max_per_rule_per_hour": 0, "protect_shell_ancestors": True}}).safety
    assert safety.whitelist == (*user().safety.whitelist, "mine")
    assert user().safety.whitelist[-2:] == ("my-editor", "my-shell")
    assert (safety.min_pid, safety.max_per_run, safety.max_per_rule_per_hour) == (3000, 9, 0)


def test_the_same_again_is_no_wider() -> None:
    """Limits that are equal to the user's are taken as they are."""
    before = user()
    same = over({"safety": {"min_pid": 2000, "max_per_run": 10, "max_per_rule_per_hour": 3}, "rules": [
        {"name": "full", "priority": "high", "enabled": True,
         "conditions": {**LIMITS, "cpu_percent_max": 90, "band_min": "elevated"},
         "action": {"timeout_seconds": 10, "fallback_signal": "none"}},
        {"name": "bare", "action": {"signal": "SIGKILL", "timeout_seconds": 0.5}},
        {"name": "told", "conditions": {"command_patterns": ["^z"]}}]})
    assert same.safety == before.safety
    assert [(r.name, r.priority, r.enabled, r.action) for r in same.rules] == [
        (r.name, r.priority, r.enabled, r.action) for r in before.rules]


def test_what_a_project_may_change() -> None:
    found = over({"rules": [
        {"name": "full", "enabled": False},
        {"name": "bare", "action": {"type": "log", "signal": "SIGKILL", "timeout_seconds": 600, "notify": True}},
        {"name": "told", "priority": "low", "conditions": {"score_min": 20}}]})
    assert [r.name for r in found.rules] == ["full", "off", "told", "bare"]    # in the order in which they are asked
    full, bare, told = (next(r for r in found.rules if r.name == name) for name in ("full", "bare", "told"))
    assert not full.enabled and full.table == user().rule("full").table    # type: ignore[union-attr]
    assert bare.action == Action("log", "SIGKILL", 600.0, True, True) and bare.enabled
    assert told.priority == "low" and told.action.type == "notify" and told.source == "p.toml"
    assert all(r.examples == () for r in (full, bare, told)), "an example of the wider rule need not hold any more"


def test_a_disabled_rule_stays_disabled_without_a_word_about_it() -> None:
    found = over(rule("off", conditions={"score_min": 2}))
    assert not next(r for r in found.rules if r.name == "off").enabled


def test_conditions_without_a_limit_of_their_own_are_added() -> None:
    """A project may ask for what the user's rule does not ask for at all, with any limit."""
    for key, limit in {**LIMITS, "cpu_percent_max": 5.0, "band_min": "low"}.items():
        if key == "duration_seconds":
            continue
        base = user()
        found = over(rule("bare", conditions={key: limit}), base).rule("bare")
        assert found is not None and found.table == {"all": [base.rule("bare").table, {key: limit}]}  # type: ignore[union-attr]


def test_the_larger_of_two_ages_counts() -> None:
    """A rule that gives its age in hours and in seconds means both, so the larger; a project is held against that."""
    base = parse(b'[[rules]]\nname = "r"\nconditions = { age_hours = 1, age_seconds = 7200, score_min = 1 }\n')
    words = "p.toml: rule r.conditions.age_seconds: 5000 would widen the rule, whose limit is 7200"
    assert refused(rule("r", conditions={"age_seconds": 5000}), base) == words
    assert over(rule("r", conditions={"age_hours": 2}), base).rule("r")
    other = parse(b'[[rules]]\nname = "r"\nconditions = { age_hours = 2, age_seconds = 60, score_min = 1 }\n')
    assert refused(rule("r", conditions={"age_seconds": 7199}), other).endswith("7199 would widen the rule, whose limit is "
                                                                               "7200")


def test_what_was_narrowed_can_be_narrowed_again() -> None:
    """The conditions of both files are in the rule, as a table that any rule could have."""
    once = over(rule("bare", conditions={"cpu_percent_min": 90}))
    twice = narrow(once, rule("bare", enabled=True), "deeper.toml")
    found = twice.rule("bare")
    assert found is not None and twice.sources == ("user.toml", "p.toml", "deeper.toml")
    assert found.table == {"all": [{"command_patterns": ["^y"]}, {"cpu_percent_min": 90}]}
    for cpu, expected in ((90.0, True), (89.0, False)):
        example = Example(True, {"command": "yes", "cpu_percent": cpu})
        assert matches(twice, found, example, Patterns()) is expected


ANY_CONDITIONS = st.fixed_dictionaries({}, optional={
    "cpu_percent_min": st.integers(0, 100), "age_seconds": st.integers(0, 9000), "age_hours": st.integers(0, 3),
    "memory_mb_min": st.integers(0, 300), "score_min": st.integers(0, 100), "band_min": st.sampled_from(BANDS),
    "command_patterns": st.just(["^x"]), "exclude_patterns": st.just(["z$"])})
ANY_PROCESS = st.fixed_dictionaries({
    "command": st.sampled_from(["x", "xz", "y"]), "cpu_percent": st.floats(0, 100), "age_s": st.floats(0, 9000),
    "memory_bytes": st.integers(0, 3 * 10**8), "score": st.integers(0, 100), "band": st.sampled_from(BANDS)})


@given(ANY_CONDITIONS, ANY_CONDITIONS, st.lists(ANY_PROCESS, max_size=10))
def test_no_file_makes_a_rule_match_what_it_did_not(
        mine: dict[str, Any], theirs: dict[str, Any], processes: list[dict[str, Any]]) -> None:
    base = RuleSet((_rule_of({"score_min": 0, **mine}),))
    try:
        found = over(rule("r", conditions={"cpu_percent_min": 0, **theirs}), base)
    except RuleError:
        return
    patterns = Patterns()
    for row in processes:
        example = Example(True, row)
        wide, tight = (matches(rules, rules.rules[0], example, patterns) for rules in (base, found))
        assert wide or not tight


def _rule_of(conditions: dict[str, Any]) -> Any:
    from rogue_hunter.rules.parse import place_in, rule_of

    return rule_of({"name": "r", "conditions": conditions}, place_in("user.toml"))
