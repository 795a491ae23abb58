"""The tables of a rule file as conditions, rules and settings, and a project's file laid over the user's rules.

A file that comes with a cloned repository is not trusted. It can protect more processes and never fewer: its
conditions are evaluated in addition to the user's, never in their place. A file that would widen a rule is rejected as
a whole, so that it does not look as if it had taken effect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from rogue_hunter.config.toml import Place, choice, flag, known_keys, number, tables, text, whole
from rogue_hunter.config.toml import table as table_of
from rogue_hunter.rules.conditions import Age, Band, Called, Held, Level, Node, Orphan, State, User, Written
from rogue_hunter.rules.logic import AllOf, AnyOf, NoneOf, cost
from rogue_hunter.rules.model import (
    ACTIONS,
    HOOKS,
    LOG_LEVELS,
    MIN_PID,
    PRIORITIES,
    SIGNALS,
    Action,
    Example,
    Rule,
    RuleError,
    RuleSet,
    Safety,
    web_address,
)
from rogue_hunter.rules.patterns import PatternError, PatternSet, Probe, compile_pattern
from rogue_hunter.schema.field import BANDS, STATES
from rogue_hunter.schema.sampling import PROCESS

DEPTH = 8
"""How deep any, all and not may be nested."""

WINDOW_MAX_S = 7 * 86400
"""The longest window: a week of readings."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
"""A rule's name is shown in logs, metrics and notifications."""

_LEVELS: Mapping[str, Callable[[str, float], Level]] = {
    "cpu_percent_min": partial(Level, field="cpu_percent", scale=1.0, totals=("cpu_seconds_total",),
                               total_scale=100.0),
    "cpu_percent_max": partial(Level, field="cpu_percent", scale=1.0, at_least=False, totals=("cpu_seconds_total",),
                               total_scale=100.0),
    "memory_mb_min": partial(Level, field="memory_bytes", scale=1e-6),
    "disk_mb_per_s_min": partial(Level, field="disk_bytes_per_s", scale=1e-6, total_scale=1e-6,
                                 totals=("disk_read_bytes_total", "disk_write_bytes_total")),
    "gpu_percent_min": partial(Level, field="gpu_ms_per_s", scale=0.1, totals=("gpu_seconds_total",),
                               total_scale=100.0),
    "wakeups_per_s_min": partial(Level, field="wakeups_per_s", scale=1.0, totals=("wakeups_total",)),
    "score_min": partial(Level, field="score", scale=1.0),
}
_AGES = {"age_hours": 3600.0, "age_seconds": 1.0}
_PATTERNS = ("command_patterns", "cmdline_patterns", "exclude_patterns")
_NESTED = ("any", "all", "not")
KEYS = (*_LEVELS, *_AGES, "written_mb_per_day_min", "duration_seconds", "band_min", "orphan", "state", "user",
        *_PATTERNS, *_NESTED)
"""Every condition there is."""

_ROW_TYPES = {f.name: f.type for f in PROCESS}


def place_in(source: str) -> Place:
    """The top of a rule file, whose errors are RuleErrors."""
    return Place(source, kind=RuleError)


def rule_of(table: Mapping[str, Any], place: Place, inherited: Rule | None = None) -> Rule:
    """One [[rules]] table. A table that names `inherited` and gives no conditions takes its conditions, and its action
    where it gives none. Raises RuleError."""
    known_keys(table, ("name", "enabled", "priority", "conditions", "action", "example", "description"), place)
    name = text(table.get("name"), place.at("name"))
    if not _NAME.match(name):
        raise place.at("name").error(f"{name!r}: a name is letters, digits, '_', '.' and '-', at most 64")
    place = replace(place, path=f"rule {name}")
    given = table.get("conditions")
    if given is None and inherited is not None:
        given = inherited.table
    if not isinstance(given, Mapping) or not given:
        raise place.error("has no conditions; a rule without conditions would match every process")
    return Rule(
        name=name, table=given, condition=conditions(given, place.at("conditions")),
        enabled=flag(table.get("enabled", True), place.at("enabled")),
        priority=choice(table.get("priority", inherited.priority if inherited else "medium"), PRIORITIES,
                        place.at("priority")),
        action=_action(table["action"], place.at("action")) if "action" in table
        else inherited.action if inherited else Action(),
        examples=tuple(_example(e, place.at(f"example {i}")) for i, e in enumerate(
            tables(table.get("example", []), place.at("example")), 1)),
        source=place.source)


def conditions(table: Mapping[str, Any], place: Place) -> AllOf:
    """The conditions of a rule. Raises RuleError, also for conditions that only say what is not meant."""
    if not any(key not in ("exclude_patterns", "duration_seconds", "not") for key in table):
        raise place.error("has only exclusions; add a condition that must hold")
    return _conditions(table, place, DEPTH)


def _conditions(table: Any, place: Place, depth: int) -> AllOf:
    if not isinstance(table, Mapping) or not table:
        raise place.error("must be a table with at least one condition")
    if depth == 0:
        raise place.error(f"nested deeper than {DEPTH}")
    known_keys(table, KEYS, place)
    measured: list[Node] = [_level(key, table[key], place.at(key)) for key in _LEVELS if key in table]
    if table.get("cpu_percent_min", 0) > table.get("cpu_percent_max", math.inf):
        raise place.error("cpu_percent_min is above cpu_percent_max: nothing can be both")
    measured += [make(table[key], place.at(key)) for key, make in _MEASURED.items() if key in table]
    measured += _nested(table, place, depth)
    now: list[Node] = [Age(number(table[key], place.at(key), 0) * unit, key, unit)
                       for key, unit in _AGES.items() if key in table]
    now += [make(table[key], place.at(key)) for key, make in _OF_NOW.items() if key in table]
    now += [_called(key, table[key], place.at(key)) for key in _PATTERNS if key in table]
    seconds = number(table["duration_seconds"], place.at("duration_seconds"), 0, WINDOW_MAX_S) \
        if "duration_seconds" in table else 0.0
    if seconds > 0:
        if not measured:
            raise place.at("duration_seconds").error(
                "needs something to last: a cpu, memory, disk, gpu, wakeups, score, band or state condition")
        now.append(Held(AllOf(tuple(sorted(measured, key=cost))), seconds))
    else:
        now += measured
    return AllOf(tuple(sorted(now, key=cost)))


_MEASURED: dict[str, Callable[[Any, Place], Node]] = {
    "band_min": lambda value, place: Band(choice(value, BANDS, place)),
    "state": lambda value, place: State(tuple(choice(each, STATES, place) for each in _listed(value, place)))}
"""Conditions that can last, besides levels and nested ones."""
_OF_NOW: dict[str, Callable[[Any, Place], Node]] = {
    "written_mb_per_day_min": lambda value, place: Written(number(value, place, 1)),
    "user": lambda value, place: User(_listed(value, place)),
    "orphan": lambda value, place: Orphan(flag(value, place))}
"""Conditions that cannot last, besides ages and patterns."""


def _level(key: str, value: Any, place: Place) -> Level:
    return _LEVELS[key](key, number(value, place, 0, 100 if key == "score_min" else None))


def _nested(table: Mapping[str, Any], place: Place, depth: int) -> list[Node]:
    nodes: list[Node] = []
    for key, kind in (("all", AllOf), ("any", AnyOf)):
        if key in table:
            parts = tables(table[key], place.at(key))
            if not parts:
                raise place.at(key).error("must hold at least one table of conditions")
            nodes.append(kind(tuple(_conditions(part, place.at(f"{key} {i}"), depth - 1)
                                    for i, part in enumerate(parts, 1))))
    if "not" in table:
        nodes.append(NoneOf(_conditions(table["not"], place.at("not"), depth - 1)))
    return nodes


def _called(key: str, value: Any, place: Place) -> Called:
    if not isinstance(value, list) or not value:
        raise place.error("must be an array of at least one pattern")
    probes: list[Probe] = []
    for written in value:
        try:
            pattern = compile_pattern(written)
        except PatternError as error:
            raise place.error(str(error)) from None
        if key != "exclude_patterns" and pattern.search("") is not None:
            raise place.error(f"{written!r} hits every name")
        if key == "exclude_patterns":
            probes += [Probe("names", pattern, written), Probe("line", pattern, written)]
        elif key == "cmdline_patterns":
            probes.append(Probe("line", pattern, written))
        else:
            probes.append(Probe("names", pattern, written))
            # No program is called `tail -f`: a command pattern with a blank means a command line, from its beginning,
            # so that `cargo test` is not found in `vim cargo test`.
            if re.search(r" |\\s", written):
                probes.append(Probe("line" if written.startswith(".*") else "head", pattern, written))
    return Called(key, PatternSet(tuple(probes)), excluded=key == "exclude_patterns")


def _action(table: Any, place: Place) -> Action:
    if not isinstance(table, Mapping):
        raise place.error("must be a table")
    kind = choice(table.get("type", "kill"), ACTIONS, place.at("type"))
    known_keys(table, ("type", "notify", "log_level", *ACTION_KEYS.get(kind, ACTION_KEYS["kill"])), place)
    usual = Action()
    made = Action(
        type=kind,
        signal=choice(table.get("signal", "SIGTERM"), SIGNALS, place.at("signal")),
        timeout_s=number(table.get("timeout_seconds", 10 if kind in HOOKS else 5), place.at("timeout_seconds"), 0.1,
                         600),
        fallback=choice(table.get("fallback_signal", "SIGKILL"), ("SIGKILL", "none"),
                        place.at("fallback_signal")) == "SIGKILL",
        notify=flag(table.get("notify", False), place.at("notify")),
        log_level=choice(table.get("log_level", "warning"), LOG_LEVELS, place.at("log_level")),
        nice=whole(table.get("nice", usual.nice), place.at("nice"), 1, 19),
        seconds=number(table.get("seconds", usual.seconds), place.at("seconds"), 0.1, 3600),
        command=_listed(table["command"], place.at("command")) if "command" in table else (),
        **{key: text(table.get(key, ""), place.at(key)) if key in table else "" for key in ("url", "url_file",
                                                                                         "token_file")},
        per_hour=whole(table.get("per_hour", usual.per_hour), place.at("per_hour"), 1, 10_000))
    program = "".join(made.command[:1])
    place.refuse(
        (kind == "exec" and not made.command, "",
         "exec needs `command`, an array: the program by its absolute path, then its arguments"),
        (kind == "exec" and not program.startswith("/"), "command",
         f"{program!r}: name the program by its absolute path"),
        (kind == "webhook" and bool(made.url) == bool(made.url_file), "",
         "a webhook needs `url` or `url_file`, and not both"),
        (made.url and not web_address(made.url), "url",
         "must be an https address without a user (http only for this machine)"))
    return made


ACTION_KEYS = {"kill": ("signal", "timeout_seconds", "fallback_signal"), "renice": ("nice",), "stop": ("seconds",),
                "freeze": ("seconds",), "exec": ("command", "timeout_seconds", "per_hour"),
                "webhook": ("url", "url_file", "token_file", "timeout_seconds", "per_hour")}
"""Keys of an action besides type, notify and log_level."""


def _example(table: Mapping[str, Any], place: Place) -> Example:
    extra = ("match", "why", "held_s", "orphan")
    known_keys(table, (*_ROW_TYPES, *extra), place)
    row: dict[str, Any] = {}
    for key, value in table.items():
        if key in extra:
            continue
        kind = _ROW_TYPES[key]
        if kind is float and type(value) is int:
            value = number(value, place.at(key))
        if type(value) is not kind:
            raise place.at(key).error(f"must be {kind.__name__}")
        row[key] = value
    if "match" not in table or not row:
        raise place.error("needs `match` and at least one field of a process")
    return Example(flag(table["match"], place.at("match")), row, text(table.get("why", "an example"), place.at("why")),
                   number(table.get("held_s", row.get("age_s", 0.0)), place.at("held_s"), 0),
                   flag(table["orphan"], place.at("orphan")) if "orphan" in table else None)


def _listed(value: Any, place: Place) -> tuple[str, ...]:
    """A text or an array of texts. Raises RuleError."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise place.error("must not be empty")
    return tuple(text(v, place) for v in values)


_LEAST = ("cpu_percent_min", "duration_seconds", "age_seconds", "memory_mb_min", "disk_mb_per_s_min",
          "gpu_percent_min", "wakeups_per_s_min", "score_min", "written_mb_per_day_min")
"""Limits that narrow a rule when they rise."""


def narrow(rules: RuleSet, values: Mapping[str, Any], source: str) -> RuleSet:
    """`rules` narrowed by a project's file. Raises RuleError for what would widen them, and for what is not a
    project's to say."""
    place = place_in(source)
    for section in ("logging", "notifications", "metrics"):
        if section in values:
            raise place.at(section).error("belongs into your own file; a project may only narrow rules")
    known_keys(values, ("daemon", "safety", "rules"), place)
    dry_run = rules.settings.dry_run
    if "daemon" in values:
        dry_run = _dry_run(table_of(values["daemon"], place.at("daemon")), place.at("daemon"), dry_run)
    safety = rules.safety
    if "safety" in values:
        safety = _safety(table_of(values["safety"], place.at("safety")), place.at("safety"), safety)
    found = {rule.name: rule for rule in rules.rules}
    for i, table in enumerate(tables(values.get("rules", []), place.at("rules")), 1):
        name = table.get("name")
        if not isinstance(name, str) or name not in found:
            raise place.at(f"rules {i}").error(f"there is no rule {name!r}; a project cannot add one")
        found[name] = _rule(found[name], table, place.at(f"rules {i}"))
    order = sorted(found.values(), key=lambda rule: PRIORITIES.index(rule.priority))
    return replace(rules, rules=tuple(order), safety=safety, settings=replace(rules.settings, dry_run=dry_run),
                   sources=(*rules.sources, source))


def _dry_run(table: Mapping[str, Any], place: Place, now: bool) -> bool:
    known_keys(table, ("dry_run",), place)
    wanted = flag(table.get("dry_run", now), place.at("dry_run"))
    if now and not wanted:
        raise place.at("dry_run").error("a project cannot end a dry run")
    return wanted


def _safety(table: Mapping[str, Any], place: Place, base: Safety) -> Safety:
    known_keys(table, ("whitelist_processes", "min_pid", "protect_shell_ancestors", "max_per_run",
                  "max_per_rule_per_hour"), place)
    if not flag(table.get("protect_shell_ancestors", True), place.at("protect_shell_ancestors")):
        raise place.at("protect_shell_ancestors").error("ancestors are always protected")
    whitelist = base.whitelist
    if "whitelist_processes" in table:
        own = table["whitelist_processes"]
        if not isinstance(own, list) or not own:
            raise place.at("whitelist_processes").error("a project can add to the whitelist, not empty it")
        whitelist = tuple(dict.fromkeys((*whitelist, *(text(e, place.at("whitelist_processes")) for e in own))))
    min_pid = base.min_pid
    if "min_pid" in table:
        min_pid, least = int(number(table["min_pid"], place.at("min_pid"), 0)), base.min_pid or MIN_PID
        if min_pid < least:
            raise place.at("min_pid").error(f"{min_pid} is below {least}; a project can only raise it")
    limits = {}
    for name, now in (("max_per_run", base.max_per_run), ("max_per_rule_per_hour", base.max_per_rule_per_hour)):
        limits[name] = int(number(table.get(name, now), place.at(name), 0))
        if limits[name] > now:
            raise place.at(name).error(f"{limits[name]} is above {now}; a project can only lower it")
    return replace(base, whitelist=whitelist, min_pid=min_pid, **limits)


def _rule(base: Rule, table: Mapping[str, Any], place: Place) -> Rule:
    rule = rule_of(table, place, base)
    place = replace(place, path=f"rule {base.name}")
    place.refuse(
        (rule.enabled and not base.enabled and "enabled" in table, "enabled",
         "a project cannot enable a rule that you disabled"),
        (PRIORITIES.index(rule.priority) < PRIORITIES.index(base.priority), "priority",
         f"a project cannot raise it above {base.priority}"))
    _gentler(base.action, rule.action, place.at("action"))
    condition, both = base.condition, base.table
    if "conditions" in table:
        _narrower(base.table, table["conditions"], place.at("conditions"))
        condition, both = AllOf((base.condition, rule.condition)), {"all": [base.table, table["conditions"]]}
    return replace(base, condition=condition, table=both, enabled=base.enabled and rule.enabled,
                   priority=rule.priority, action=rule.action, examples=(), source=place.source)


def _gentler(base: Action, action: Action, place: Place) -> None:
    same = replace(action, notify=base.notify, log_level=base.log_level) == base
    place.refuse(
        (action.type not in (base.type, "notify", "log"), "type",
         f"a project cannot make {base.type} a {action.type}"),
        (action.type in HOOKS and not same, "", f"a project cannot change what {base.type} runs"),
        (action.nice > base.nice or action.seconds > base.seconds, "", "a project cannot make it harsher"),
        (action.signal == "SIGKILL" != base.signal, "signal", "a project cannot make it SIGKILL"),
        (action.timeout_s < base.timeout_s and action.type == base.type, "timeout_seconds",
         f"{action.timeout_s:g} is below {base.timeout_s:g}"),
        (action.fallback and not base.fallback, "fallback_signal", "a project cannot make it SIGKILL"))


def _narrower(base: Mapping[str, Any], own: Mapping[str, Any], place: Place) -> None:
    """Raise RuleError for a limit that is wider than the rule's own. It would have no effect, because both are
    evaluated."""
    old, new = _in_seconds(base), _in_seconds(own)
    for key in _LEAST:
        if key in old and key in new and new[key] < old[key]:
            raise place.at(key).error(f"{new[key]:g} would widen the rule, whose limit is {old[key]:g}")
    if "cpu_percent_max" in old and new.get("cpu_percent_max", 0) > old["cpu_percent_max"]:
        raise place.at("cpu_percent_max").error(
            f"{new['cpu_percent_max']:g} would widen the rule, whose limit is {old['cpu_percent_max']:g}")
    if "band_min" in old and "band_min" in new and BANDS.index(new["band_min"]) < BANDS.index(old["band_min"]):
        raise place.at("band_min").error(f"{new['band_min']} would widen the rule, whose limit is {old['band_min']}")


def _in_seconds(table: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions with their age in one unit: the larger of the two when both are given."""
    values = dict(table)
    ages = [values.pop(key) * unit for key, unit in (("age_hours", 3600), ("age_seconds", 1)) if key in values]
    if ages:
        values["age_seconds"] = max(ages)
    return values
