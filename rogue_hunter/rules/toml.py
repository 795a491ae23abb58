"""Rules and their settings as TOML: what `rh-config init`, `rh-config show` and `rh-match rules --toml` print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rogue_hunter.config.check import toml_value
from rogue_hunter.rules.model import Rule, RuleSet

Section = tuple[str, list[tuple[str, Any, str]]]
"""A table's name, and key, value and reason of each of its settings; a value None is not set."""

_UNSET = {"file": '"/path/to/file"', "min_pid": "1000"}
"""What is shown for a setting that is not set."""


def settings_of(rules: RuleSet) -> list[Section]:
    """The tables of a rule file beside [[rules]], with the values in force."""
    given, safe = rules.settings, rules.safety
    return [
        ("safety", [
            ("whitelist_processes", list(safe.whitelist), "programs that are never ended; added to the built-in list"),
            ("min_pid", safe.min_pid, "lower pids are never signalled; 1000 if not set, 2 in a container"),
            ("protect_shell_ancestors", True, "rh-reap never ends its own ancestors; cannot be turned off"),
            ("max_per_run", safe.max_per_run, "processes ended by one run at most (1 to 1000)"),
            ("max_per_rule_per_hour", safe.max_per_rule_per_hour, "processes ended for one rule an hour (1 to 1000)")]),
        ("daemon", [
            ("enabled", given.enabled, "rh-pipe asks the rules"),
            ("scan_interval_seconds", given.scan_interval_s, "not used: rules are evaluated in every tick"),
            ("dry_run", given.dry_run, "rh-reap and rh-pipe send no signal")]),
        ("logging", [
            ("level", given.log_level, "the lowest level that is logged (debug, info, warning, error)"),
            ("file", given.log_file, "the audit file; by default in the state directory"),
            ("max_size_mb", given.log_max_bytes / 1e6, "rotate the audit file at this size (0.1 to 10000)"),
            ("rotate_count", given.log_keep, "rotated audit files to keep (1 to 100)")]),
        ("notifications", [
            ("enabled", given.notify, "show notifications on the desktop"),
            ("urgency", given.notify_urgency, "low, normal or critical"),
            ("timeout_ms", given.notify_timeout_ms, "how long one is shown, 0 = until closed (0 to 600000)")]),
        ("metrics", [
            ("enabled", given.metrics, "rh-pipe serves a page for Prometheus on 127.0.0.1"),
            ("http_port", given.metrics_port, "the port of that page (0 to 65535)"),
            ("path", given.metrics_path, "the path of that page")]),
    ]  # fmt: skip


def rules_toml(rules: RuleSet, *, comment: bool = False) -> str:
    """All tables of a rule file with the values in force; with `comment` all of it as comments, for a file to edit: a
    table's header in a configuration file would make it the file of rules.

    Examples are left out. Reading the text gives the same rules and settings.
    """
    mark = "# " if comment else ""
    lines: list[str] = []
    for name, keys in settings_of(rules):
        lines += ["", f"{mark}[{name}]"]
        for key, value, doc in keys:
            lines.append(f"# {doc}")
            lines += [f"{mark}{key} = {toml_value(value)}"] if value is not None else [f"# {key} = {_UNSET[key]}"]
    if comment:
        lines[:0] = ["# Rules and their settings. To change a key, remove the # of its table's [header] too."]
        lines += ["", "# The built-in rules, in the order of evaluation. Your own list replaces them; a rule",
                  "# with one of these names and no conditions is the built-in one."]
    for rule in rules.rules:
        lines += ["", *(mark + line for line in _rule(rule))]
    return "\n".join(lines).lstrip("\n") + "\n"


def _rule(rule: Rule) -> Iterator[str]:
    act = rule.action
    yield "[[rules]]"
    yield f"name = {toml_value(rule.name)}"
    yield f"enabled = {toml_value(rule.enabled)}"
    yield f"priority = {toml_value(rule.priority)}"
    action: dict[str, Any] = {"type": act.type}
    if act.type == "kill":
        action |= {"signal": act.signal, "timeout_seconds": act.timeout_s,
                   "fallback_signal": "SIGKILL" if act.fallback else "none"}
    yield f"action = {toml_value(action | {'notify': act.notify, 'log_level': act.log_level})}"
    yield "[rules.conditions]"
    for key, value in rule.table.items():
        yield f"{key} = {toml_value(value)}"
