"""A rule's table read: what each key asks of a process, its defaults and limits, and the words of every refusal."""

from __future__ import annotations

from typing import Any

import pytest

from rogue_hunter.rules.conditions import Held, Subject, Verdict
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.model import Action, Example, Rule, RuleError
from rogue_hunter.rules.parse import DEPTH, WINDOW_MAX_S, place_in, rule_of
from rogue_hunter.rules.patterns import Patterns


def one(conditions: dict[str, Any], **more: Any) -> Rule:
    return rule_of({"name": "r", "conditions": conditions, **more}, place_in("f.toml"))


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(RuleError) as error:
        rule_of(table, place_in("f.toml"))
    return str(error.value)


def holds(conditions: dict[str, Any], row: dict[str, Any], *, age_s: float | None = None, lifetime: bool = False,
          orphan: bool | None = None, cpus: int = 8) -> bool | None:
    """The answer about one process. A sustained condition counts as one that held all the time."""

    def held(node: Held, s: Subject) -> Verdict:
        return node.node.verdict(s)

    subject = Subject({"exe": "", "cmdline": "", **row}, age_s, Patterns(), held, orphan=orphan, cpus=cpus)
    subject.rule, subject.lifetime = "r", lifetime
    return one(conditions).condition.verdict(subject)[0]


@pytest.mark.parametrize(("key", "limit", "field", "at", "beyond"), [
    ("cpu_percent_min", 90, "cpu_percent", 90.0, 89.99), ("cpu_percent_max", 5, "cpu_percent", 5.0, 5.01),
    ("memory_mb_min", 500, "memory_bytes", 500_000_000, 499_999_999),
    ("disk_mb_per_s_min", 50, "disk_bytes_per_s", 50e6, 49.99e6),
    ("gpu_percent_min", 40, "gpu_ms_per_s", 400.0, 399.9),
    ("wakeups_per_s_min", 1000, "wakeups_per_s", 1000.0, 999.9), ("score_min", 45, "score", 45, 44),
])
def test_a_limit_and_the_unit_it_is_given_in(key: str, limit: float, field: str, at: float, beyond: float) -> None:
    """MB are 10^6 bytes; 100 % is one core, or one GPU. A value at its limit matches, an unknown one never does."""
    assert holds({key: limit}, {field: at}) is True
    assert holds({key: limit}, {field: beyond}) is False
    assert holds({key: limit}, {}) is None


@pytest.mark.parametrize(("key", "limit", "at", "beyond"), [
    ("cpu_percent_min", 90, {"cpu_seconds_total": 90.0, "threads": 1}, {"cpu_seconds_total": 89.9, "threads": 1}),
    ("cpu_percent_max", 5, {"cpu_seconds_total": 5.0}, {"cpu_seconds_total": 5.1}),
    ("disk_mb_per_s_min", 50, {"disk_read_bytes_total": 2 * 10**9, "disk_write_bytes_total": 3 * 10**9},
     {"disk_read_bytes_total": 2 * 10**9, "disk_write_bytes_total": 299 * 10**7}),
    ("gpu_percent_min", 40, {"gpu_seconds_total": 40.0}, {"gpu_seconds_total": 39.9}),
    ("wakeups_per_s_min", 1000, {"wakeups_total": 100_000}, {"wakeups_total": 99_999}),
])
def test_the_average_over_a_life_of_100_s(key: str, limit: float, at: dict[str, float],
                                          beyond: dict[str, float]) -> None:
    """Counters over age replace a window, in the same unit; unless every counter is known, nothing is."""
    assert holds({key: limit}, at, age_s=100.0, lifetime=True) is True
    assert holds({key: limit}, beyond, age_s=100.0, lifetime=True) is False
    for missing in at:
        row = {name: value for name, value in at.items() if name != missing}
        assert holds({key: limit}, row, age_s=100.0, lifetime=True) is None


@pytest.mark.parametrize(("key", "row"), [("memory_mb_min", {"memory_bytes": 10**12}), ("score_min", {"score": 100})])
def test_what_has_no_average(key: str, row: dict[str, Any]) -> None:
    assert holds({key: 1}, row, age_s=100.0, lifetime=True) is None


def test_hours_and_seconds_of_age() -> None:
    for conditions in ({"age_hours": 2}, {"age_seconds": 7200}):
        assert holds({**conditions, "score_min": 0}, {"score": 1}, age_s=7200.0) is True
        assert holds({**conditions, "score_min": 0}, {"score": 1}, age_s=7199.9) is False


def test_band_state_user_orphan() -> None:
    assert [holds({"band_min": "elevated"}, {"band": b}) for b in ("medium", "elevated", "critical")] == [
        False, True, True]
    for state in ("stopped", ["defunct", "stopped"]):
        assert holds({"state": state}, {"state": "stopped"}) is True
        assert holds({"state": state}, {"state": "running"}) is False
    for user in ("me", ["you", "me"], "501"):
        assert holds({"user": user, "score_min": 0}, {"user": "me", "uid": 501, "score": 0}) is True
        assert holds({"user": user, "score_min": 0}, {"user": "he", "uid": 502, "score": 0}) is False
    for wanted in (True, False):
        assert holds({"orphan": wanted, "score_min": 0}, {"score": 0}, orphan=True) is wanted


def test_no_program_is_called_with_a_blank() -> None:
    """A command pattern with a blank in it is looked for at the beginning of the command line, or all through it when
    it begins with `.*`; one without is looked for in names only."""
    cargo, vim = {"command": "cargo", "cmdline": "cargo test --lib"}, {"command": "vim", "cmdline": "vim cargo test"}
    for pattern, expected in (("cargo test", (True, False)), (r"cargo\stest", (True, False)),
                              (".*cargo test", (True, True)), ("cargo test.*", (True, False)),
                              ("test", (False, False)), ("cargo", (True, False)), ("argo", (True, False)),
                              ("argo test", (False, False))):
        assert (holds({"command_patterns": [pattern]}, cargo), holds({"command_patterns": [pattern]}, vim)) == expected


def test_where_each_kind_of_pattern_is_looked_for() -> None:
    row = {"command": "python3", "exe": "/usr/bin/python3", "cmdline": "python3 serve.py --port 80", "score": 1}
    for key, pattern, expected in (
        ("command_patterns", "^serve", True), ("command_patterns", "port", False), ("command_patterns", "/bin/", True),
        ("cmdline_patterns", "port 80$", True), ("cmdline_patterns", "^serve", False),
        ("cmdline_patterns", "/bin/", False),
    ):
        assert holds({key: [pattern]}, row) is expected, (key, pattern)
    for pattern in ("^serve", "port 80$", "^python3 serve.py$", "/bin/", "x*"):
        assert holds({"exclude_patterns": [pattern], "score_min": 0}, row) is False, pattern
    assert holds({"exclude_patterns": ["^port"], "score_min": 0}, row) is True
    assert holds({"command_patterns": ["nothing", "^serve"]}, row) is True


@pytest.mark.parametrize("seconds", [0.5, 1, WINDOW_MAX_S])
def test_a_duration_makes_what_is_measured_last(seconds: float) -> None:
    """Numbers, band, state and what is nested last; age, user, parent and names are what they are."""
    rule = one({"duration_seconds": seconds, "score_min": 1, "band_min": "low", "state": "running",
                "any": [{"cpu_percent_min": 1}], "age_hours": 1, "user": "me", "orphan": True,
                "command_patterns": ["^x"]})
    (window,) = rule.windows
    assert window.seconds == seconds and len(window.node.nodes) == 4    # type: ignore[attr-defined]
    assert len(rule.condition.nodes) == 5


def test_a_duration_of_nothing_asks_for_now() -> None:
    assert one({"duration_seconds": 0, "score_min": 1}).windows == ()
    assert one({"duration_seconds": 0, "command_patterns": ["^x"]}).windows == ()


@pytest.mark.parametrize("key", ["any", "all", "not"])
def test_how_deep_conditions_may_be_nested(key: str) -> None:
    """The table itself is the first of DEPTH."""
    assert DEPTH == 8

    def nested(levels: int) -> dict[str, Any]:
        table: dict[str, Any] = {"score_min": 1}
        for _ in range(levels):
            table = {"score_min": 0, key: table if key == "not" else [table]}
        return table

    assert one(nested(DEPTH - 1))
    step = f".{key}" if key == "not" else f".{key} 1"
    assert refused({"name": "r", "conditions": nested(DEPTH)}) == (
        f"f.toml: rule r.conditions{step * DEPTH}: nested deeper than 8")


def test_limits_that_touch_leave_something_to_match() -> None:
    assert holds({"cpu_percent_min": 5, "cpu_percent_max": 5}, {"cpu_percent": 5.0}) is True
    assert holds({"cpu_percent_max": 0.5}, {"cpu_percent": 0.25}) is True
    assert holds({"score_min": 100}, {"score": 100}) is True


def test_an_action_that_says_nothing() -> None:
    """SIGTERM, five seconds, then SIGKILL; no notification; the same without an action."""
    usual = Action("kill", "SIGTERM", 5.0, True, False, "warning")
    assert one({"score_min": 1}).action == usual == one({"score_min": 1}, action={}).action == Action()


def test_an_action_that_says_everything() -> None:
    said = {"type": "log", "signal": "SIGKILL", "timeout_seconds": 0.1, "fallback_signal": "none", "notify": True,
            "log_level": "error"}
    assert one({"score_min": 1}, action=said).action == Action("log", "SIGKILL", 0.1, False, True, "error")
    longest = one({"score_min": 1}, action={"timeout_seconds": 600, "fallback_signal": "SIGKILL"}).action
    assert (longest.timeout_s, longest.fallback) == (600.0, True)


def test_what_is_inherited() -> None:
    """A table without conditions is the rule it names, with what it says changed."""
    old = one({"score_min": 7}, priority="critical", action={"notify": True}, example=[{"match": False, "score": 1}])
    bare = rule_of({"name": "r"}, place_in("g.toml"), old)
    assert (bare.table, bare.priority, bare.action, bare.enabled, bare.examples, bare.source) == (
        {"score_min": 7}, "critical", old.action, True, (), "g.toml")
    own = rule_of({"name": "r", "enabled": False, "priority": "low", "action": {"type": "log"},
                   "conditions": {"score_min": 9}}, place_in("g.toml"), old)
    assert (own.table, own.priority, own.action, own.enabled) == ({"score_min": 9}, "low", Action("log"), False)
    assert one({"score_min": 1}).priority == "medium"


def test_examples_of_a_rule() -> None:
    rule = one({"score_min": 1}, description="any text", example=[
        {"match": True, "score": 5},
        {"match": False, "cpu_percent": 7, "age_s": 90.0, "command": "x", "why": "too quiet", "orphan": False},
        {"match": True, "pid": 1, "age_s": 90.0, "held_s": 3, "orphan": True}])
    first, second, third = rule.examples
    assert first.match and first.row == {"score": 5} and first.why == "an example"
    assert (first.held_s, first.orphan) == (0.0, None)
    assert second == Example(False, {"cpu_percent": 7.0, "age_s": 90.0, "command": "x"}, "too quiet", 90.0, False)
    assert type(second.row["cpu_percent"]) is float
    assert third == Example(True, {"pid": 1, "age_s": 90.0}, "an example", 3.0, True)
    below = one({"score_min": 1}, example=[{"match": True, "cpu_percent": -5}])
    assert below.examples[0].row == {"cpu_percent": -5.0}


HUGE = 10**400
"""More than any float: TOML has whole numbers of any length."""


@pytest.mark.parametrize(("more", "words"), [
    ({"conditions": {"score_min": 101}}, "conditions.score_min: must be from 0 to 100, not 101"),
    ({"conditions": {"memory_mb_min": -1}}, "conditions.memory_mb_min: must be at least 0, not -1"),
    ({"conditions": {"memory_mb_min": HUGE}}, "conditions.memory_mb_min: must be finite, not 100000000000000000000000000000000000000000000000000000000000..."),
    ({"conditions": {"score_min": "5"}}, "conditions.score_min: must be a number, not \"5\""),
    ({"conditions": {"score_mn": 1}}, "conditions.score_mn: unknown key; did you mean score_min?"),
    ({"conditions": {"gnu": 1}}, "conditions.gnu: unknown key"),
    ({"conditions": {"cpu_percent_min": 5.1, "cpu_percent_max": 5}},
     "conditions: cpu_percent_min is above cpu_percent_max: nothing can be both"),
    ({"conditions": {"band_min": "hot"}},
     "conditions.band_min: must be one of low, medium, elevated, high, critical, not \"hot\""),
    ({"conditions": {"state": []}}, "conditions.state: must not be empty"),
    ({"conditions": {"state": [5]}}, "conditions.state: must be a text, not 5"),
    ({"conditions": {"user": []}}, "conditions.user: must not be empty"),
    ({"conditions": {"orphan": "yes"}}, "conditions.orphan: must be true or false, not \"yes\""),
    ({"conditions": {"age_hours": "4"}}, "conditions.age_hours: must be a number, not \"4\""),
    ({"conditions": {"score_min": 1, "duration_seconds": WINDOW_MAX_S + 1}},
     "conditions.duration_seconds: must be from 0 to 604800, not 604801"),
    ({"conditions": {"command_patterns": ["^x"], "duration_seconds": 1}},
     "conditions.duration_seconds: needs something to last: a cpu, memory, disk, gpu, wakeups, score, band or state "
     "condition"),
    ({"conditions": {"exclude_patterns": ["^x"], "duration_seconds": 1, "not": {"score_min": 1}}},
     "conditions: has only exclusions; add a condition that must hold"),
    ({"conditions": {"all": []}}, "conditions.all: must hold at least one table of conditions"),
    ({"conditions": {"any": 1}}, "conditions.any: must be an array of tables, not 1"),
    ({"conditions": {"all": [{"score_min": 1}, {}]}}, "conditions.all 2: must be a table with at least one condition"),
    ({"conditions": {"score_min": 1, "not": 5}}, "conditions.not: must be a table with at least one condition"),
    ({"conditions": {"command_patterns": "x"}}, "conditions.command_patterns: must be an array of at least one pattern"),
    ({"conditions": {"cmdline_patterns": ["a", "b*"]}}, "conditions.cmdline_patterns: 'b*' hits every name"),
    ({"conditions": {"score_min": 1, "exclude_patterns": [""]}},
     "conditions.exclude_patterns: an empty pattern hits everything"),
    ({"conditions": {}}, "has no conditions; a rule without conditions would match every process"),
    ({"conditions": []}, "has no conditions; a rule without conditions would match every process"),
    ({"enabled": "no"}, "enabled: must be true or false, not \"no\""),
    ({"priority": 1}, "priority: must be one of critical, high, medium, low, not 1"),
    ({"action": "kill"}, "action: must be a table"),
    ({"action": {"sig": 1}}, "action.sig: unknown key; did you mean signal?"),
    ({"action": {"type": "end"}}, "action.type: must be one of kill, renice, stop, freeze, notify, log, exec, webhook, not \"end\""),
    ({"action": {"signal": "SIGHUP"}}, "action.signal: must be one of SIGTERM, SIGKILL, not \"SIGHUP\""),
    ({"action": {"timeout_seconds": 0.09}}, "action.timeout_seconds: must be from 0.1 to 600, not 0.09"),
    ({"action": {"timeout_seconds": 601}}, "action.timeout_seconds: must be from 0.1 to 600, not 601"),
    ({"action": {"fallback_signal": "SIGTERM"}}, "action.fallback_signal: must be one of SIGKILL, none, not \"SIGTERM\""),
    ({"action": {"notify": 1}}, "action.notify: must be true or false, not 1"),
    ({"action": {"log_level": "loud"}}, "action.log_level: must be one of debug, info, warning, error, not \"loud\""),
    ({"example": {}}, "example: must be an array of tables, not {  }"),
    ({"example": [{"match": True, "pid": 1}, {"match": 1, "pid": 1}]}, "example 2.match: must be true or false, not 1"),
    ({"example": [{"match": True}]}, "example 1: needs `match` and at least one field of a process"),
    ({"example": [{"pid": 1}]}, "example 1: needs `match` and at least one field of a process"),
    ({"example": [{"match": True, "pid": 1, "why": ""}]}, "example 1.why: must not be empty"),
    ({"example": [{"match": True, "pid": 1, "held_s": "x"}]}, "example 1.held_s: must be a number, not \"x\""),
    ({"example": [{"match": True, "pid": 1, "orphan": 1}]}, "example 1.orphan: must be true or false, not 1"),
    ({"example": [{"match": True, "pid": 1.0}]}, "example 1.pid: must be int"),
    ({"example": [{"match": True, "cpu_percent": HUGE}]}, "example 1.cpu_percent: must be finite, not 100000000000000000000000000000000000000000000000000000000000..."),
    ({"example": [{"match": True, "hot": 1}]}, "example 1.hot: unknown key"),
])
def test_what_is_refused_and_in_which_words(more: dict[str, Any], words: str) -> None:
    """All of the line: it names the file, the rule, the place in it and the reason."""
    said = refused({"name": "r", "conditions": {"score_min": 1}, **more})
    assert said == f"f.toml: rule r{': ' if words.startswith('has no') else '.'}{words}"


def test_names_of_rules() -> None:
    for name in ("a", "9", "A-b_c.d", "x" * 64):
        assert one({"score_min": 1}, name=name).name == name
    for name in ("-a", "a b", "x" * 65, "a\n", "é"):
        said = refused({"name": name, "conditions": {"score_min": 1}})
        assert said == f"f.toml: name: {name!r}: a name is letters, digits, '_', '.' and '-', at most 64"
    assert refused({"conditions": {"score_min": 1}}) == "f.toml: name: must be a text, not None"
    assert refused({"name": "r", "prio": 1}) == "f.toml: prio: unknown key; did you mean priority?"


def test_a_place_in_a_file_without_a_path() -> None:
    assert str(place_in("f.toml").error("why")) == "f.toml: why"
    with pytest.raises(RuleError, match=r"^f.toml: rules: must be an array of tables, not 5$"):
        parse(b"rules = 5", "f.toml")
