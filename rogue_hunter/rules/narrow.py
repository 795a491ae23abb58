"""A project's rule file laid over the user's rules.

A file that comes with a cloned repository is not trusted. It can protect more processes and never fewer: its
conditions are evaluated in addition to the user's, never in their place. A file that would widen a rule is rejected as
a whole, so that it does not look as if it had taken effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rogue_hunter.config.check import Place, flag, known_keys, number, tables, text
from rogue_hunter.config.check import table as table_of
from rogue_hunter.rules.logic import AllOf
from rogue_hunter.rules.model import MIN_PID, PRIORITIES, Action, Rule, RuleSet, Safety
from rogue_hunter.rules.parse import place_in, rule_of
from rogue_hunter.schema.field import BANDS

_LEAST = ("cpu_percent_min", "duration_seconds", "age_seconds", "memory_mb_min", "disk_mb_per_s_min",
          "gpu_percent_min", "wakeups_per_s_min", "score_min")
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
    if rule.enabled and not base.enabled and "enabled" in table:
        raise place.at("enabled").error("a project cannot enable a rule that you disabled")
    if PRIORITIES.index(rule.priority) < PRIORITIES.index(base.priority):
        raise place.at("priority").error(f"a project cannot raise it above {base.priority}")
    _gentler(base.action, rule.action, place.at("action"))
    condition, both = base.condition, base.table
    if "conditions" in table:
        _narrower(base.table, table["conditions"], place.at("conditions"))
        condition, both = AllOf((base.condition, rule.condition)), {"all": [base.table, table["conditions"]]}
    return replace(base, condition=condition, table=both, enabled=base.enabled and rule.enabled,
                   priority=rule.priority, action=rule.action, examples=(), source=place.source)


def _gentler(base: Action, action: Action, place: Place) -> None:
    if action.type == "kill" != base.type:
        raise place.at("type").error(f"a project cannot make {base.type} a kill")
    if action.signal == "SIGKILL" != base.signal:
        raise place.at("signal").error("a project cannot make it SIGKILL")
    if action.timeout_s < base.timeout_s:
        raise place.at("timeout_seconds").error(f"{action.timeout_s:g} is below {base.timeout_s:g}")
    if action.fallback and not base.fallback:
        raise place.at("fallback_signal").error("a project cannot make it SIGKILL")


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
