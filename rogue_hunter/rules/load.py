"""Rule files: where they are, what they may contain, how they are combined, and how they are printed.

The built-in file comes first. The user's file replaces its rules (a rule with a built-in name and no conditions is that
built-in rule) and adds to its whitelist. A project's file may only narrow the result.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import (
    FILE_LIMIT,
    RULE_TABLES,
    Place,
    choice,
    flag,
    known_keys,
    number,
    table,
    tables,
    text,
    toml_value,
    values_of,
    whole,
)
from rogue_hunter.files import FileError, read_trusted
from rogue_hunter.paths import config_file, rules_file
from rogue_hunter.rules.model import LOG_LEVELS, PRIORITIES, URGENCIES, Rule, RuleError, RuleSet, Safety, Settings
from rogue_hunter.rules.parse import ACTION_KEYS, narrow, place_in, rule_of
from rogue_hunter.text.format import path_of, path_text

PROJECT_FILES = (".rogue-hunter.toml", ".reaper.toml")
"""Names of a project's file; the first that exists is used."""

OTHERS = tuple(f.name for f in dataclasses.fields(Config))
"""The tables of a configuration file, which may contain rules too."""


BUILTIN = Path(__file__).resolve().parent.parent / "data" / "rules.toml"


@functools.cache
def builtin() -> RuleSet:
    """The rules that are in force without any file. Raises RuleError only if the installation is broken."""
    data = BUILTIN.read_bytes()     # importlib.resources brings zipfile and tempfile: 1 MB of memory
    return dataclasses.replace(parse(data, "built-in rules", base=RuleSet(())), contents=(data,))


def user_file(config: Path | None = None) -> Path | None:
    """The file that rules are read from; None for the built-in ones.

    `config` is a file that was named: it alone counts. Else the user's configuration file if it holds a table of rules,
    else reaper.toml beside it. Rules in both are an error, so that it is clear which of them are in force. Raises
    RuleError.
    """
    if config is not None:
        return config
    main, beside = config_file(), rules_file()
    in_main = _holds_rules(main)
    if in_main and beside.exists():
        raise RuleError(f"{main} has a table {in_main}, and {beside} exists too: keep the rules in one of the two")
    return main if in_main else beside if beside.exists() else None


def user_rules(config: Path | None = None, project: Path | None = None) -> RuleSet:
    """The rules in force for this user, narrowed by a project's file. Raises RuleError."""
    return load(user_file(config), project)


def _holds_rules(file: Path) -> str | None:
    """The first table of rules in a configuration file; None if it holds none or cannot be read: errors in it are
    reported where the configuration itself is read."""
    try:
        values = values_of(read_trusted(file, FILE_LIMIT), place_in(path_text(file)))
    except (FileError, RuleError):
        return None
    return next((name for name in RULE_TABLES if name in values), None)


def load(config: Path | None = None, project: Path | None = None) -> RuleSet:
    """The rules of the user's file (`config`, which must exist), without one the built-in ones, narrowed by the
    project's file. Both must be regular files of this user or root that no other user may write to.
    Raises RuleError."""
    if config is None:
        rules = builtin()
    else:
        data = _read(config)
        rules = dataclasses.replace(parse(data, path_text(config)), file=path_text(config.absolute()), contents=(data,))
    if project is not None:
        data, name = _read(project, follow=False), path_text(project)
        rules = dataclasses.replace(narrow(rules, values_of(data, place_in(name)), name),
                                    project=path_text(project.absolute()), contents=(*rules.contents, data))
    return rules


def load_named(file: str | None, project: str | None, digest: str) -> RuleSet:
    """The rules that another command has read from these files (absolute paths, None for the built-in rules and for no
    project). Raises RuleError, also if their content is not that of `digest` any more."""
    named = [None if path is None else Path(path_of(path)) for path in (file, project)]
    paths = [path for path in named if path is not None]
    if not all(path.is_absolute() for path in paths):
        raise RuleError("the match does not name its rules by an absolute path")
    rules = load(*named)
    if rules.digest != digest:
        raise RuleError(f"{' or '.join(map(str, paths)) or 'the built-in rules'}: changed since the match")
    return rules


def find_project(start: Path) -> Path | None:
    """The project's file in `start` or the nearest directory above that belongs to the same user. Directories of
    others (/tmp, /) are not searched, except for `start` itself, so that no other user can plant one."""
    start = start.absolute()
    for folder in (start, *start.parents):
        try:
            if folder != start and os.stat(folder).st_uid != os.geteuid():
                return None
            for name in PROJECT_FILES:
                if os.path.lexists(folder / name):
                    return folder / name
        except OSError:
            return None
    return None


def _read(path: Path, *, follow: bool = True) -> bytes:
    try:
        return read_trusted(path, FILE_LIMIT, follow=follow)
    except FileError as error:
        raise RuleError(str(error)) from None


def parse(data: bytes, source: str = "rules", base: RuleSet | None = None) -> RuleSet:
    """A rule file as a RuleSet, laid over `base` (the built-in rules). Raises RuleError."""
    return from_values(values_of(data, place_in(source)), source, base=base)


def from_values(values: Mapping[str, Any], source: str = "rules", base: RuleSet | None = None,
                others: Collection[str] = OTHERS) -> RuleSet:
    """The same from parsed TOML. `others` are tables of the configuration, which are ignored."""
    base = builtin() if base is None else base
    place = place_in(source)
    known_keys(values, (*RULE_TABLES, *others), place)
    rules = base.rules
    if "rules" in values:
        rules = _rules(tables(values["rules"], place.at("rules")), place, base)
        if not rules:
            raise place.at("rules").error("an empty list of rules; leave it out for the built-in ones")
    order = sorted(rules, key=lambda rule: PRIORITIES.index(rule.priority))
    return RuleSet(tuple(order), _safety(_section(values, "safety", place), place.at("safety"), base.safety),
                   _settings(values, place), (source,))


def _rules(given: list[Mapping[str, Any]], place: Place, base: RuleSet) -> tuple[Rule, ...]:
    inherited = {rule.name: rule for rule in base.rules}
    found: dict[str, Rule] = {}
    for i, each in enumerate(given, 1):
        name = each.get("name")
        rule = rule_of(each, place.at(f"rules {i}"), inherited.get(name) if isinstance(name, str) else None)
        if rule.name in found:
            raise place.at(f"rule {rule.name}").error("defined twice")
        found[rule.name] = rule
    return tuple(found.values())


def _section(values: Mapping[str, Any], name: str, place: Place) -> Mapping[str, Any]:
    return table(values.get(name, {}), place.at(name))


def whitelist(value: Any, place: Place) -> tuple[str, ...]:
    """A list of program names. Raises RuleError."""
    if not isinstance(value, list):
        raise place.error("must be an array of program names")
    return tuple(text(entry, place) for entry in value)


def _safety(given: Mapping[str, Any], place: Place, base: Safety) -> Safety:
    known_keys(given, ("whitelist_processes", "min_pid", "protect_shell_ancestors", "max_per_run",
                  "max_per_rule_per_hour"), place)
    if not flag(given.get("protect_shell_ancestors", True), place.at("protect_shell_ancestors")):
        raise place.at("protect_shell_ancestors").error("ancestors are always protected; leave it true")
    own = whitelist(given.get("whitelist_processes", []), place.at("whitelist_processes"))
    return Safety(
        tuple(dict.fromkeys((*base.whitelist, *own))),
        whole(given["min_pid"], place.at("min_pid"), 1, 1 << 22) if "min_pid" in given else base.min_pid,
        whole(given.get("max_per_run", base.max_per_run), place.at("max_per_run"), 1, 1000),
        whole(given.get("max_per_rule_per_hour", base.max_per_rule_per_hour), place.at("max_per_rule_per_hour"), 1,
               1000))


def _settings(values: Mapping[str, Any], place: Place) -> Settings:
    daemon, log = _section(values, "daemon", place), _section(values, "logging", place)
    note, metrics = _section(values, "notifications", place), _section(values, "metrics", place)
    usual = Settings()
    known_keys(daemon, ("enabled", "scan_interval_seconds", "dry_run"), place.at("daemon"))
    known_keys(log, ("level", "file", "max_size_mb", "rotate_count"), place.at("logging"))
    known_keys(note, ("enabled", "urgency", "timeout_ms"), place.at("notifications"))
    known_keys(metrics, ("enabled", "http_port", "path"), place.at("metrics"))
    path = text(metrics.get("path", usual.metrics_path), place.at("metrics.path"))
    if not path.startswith("/"):
        raise place.at("metrics.path").error("must begin with /")
    return Settings(
        enabled=flag(daemon.get("enabled", usual.enabled), place.at("daemon.enabled")),
        scan_interval_s=number(daemon.get("scan_interval_seconds", usual.scan_interval_s),
                               place.at("daemon.scan_interval_seconds"), 0.1, 86_400),
        dry_run=flag(daemon.get("dry_run", usual.dry_run), place.at("daemon.dry_run")),
        log_file=text(log["file"], place.at("logging.file")) if "file" in log else None,
        log_level=choice(log.get("level", usual.log_level), LOG_LEVELS, place.at("logging.level")),
        log_max_bytes=round(1e6 * number(log.get("max_size_mb", usual.log_max_bytes / 1e6),
                                         place.at("logging.max_size_mb"), 0.1, 10_000)),
        log_keep=whole(log.get("rotate_count", usual.log_keep), place.at("logging.rotate_count"), 1, 100),
        notify=flag(note.get("enabled", usual.notify), place.at("notifications.enabled")),
        notify_urgency=choice(note.get("urgency", usual.notify_urgency), URGENCIES, place.at("notifications.urgency")),
        notify_timeout_ms=whole(note.get("timeout_ms", usual.notify_timeout_ms), place.at("notifications.timeout_ms"),
                                 0, 600_000),
        metrics=flag(metrics.get("enabled", usual.metrics), place.at("metrics.enabled")),
        metrics_port=whole(metrics.get("http_port", usual.metrics_port), place.at("metrics.http_port"), 0, 65_535),
        metrics_path=path)


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
    given = {"signal": act.signal, "timeout_seconds": act.timeout_s, "seconds": act.seconds, "nice": act.nice,
             "fallback_signal": "SIGKILL" if act.fallback else "none", "command": list(act.command), "url": act.url,
             "url_file": act.url_file, "token_file": act.token_file, "per_hour": act.per_hour}
    keys = ACTION_KEYS.get(act.type, ())
    action: dict[str, Any] = {"type": act.type, **{key: given[key] for key in keys if given[key] not in ("", [])}}
    yield f"action = {toml_value(action | {'notify': act.notify, 'log_level': act.log_level})}"
    yield "[rules.conditions]"
    for key, value in rule.table.items():
        yield f"{key} = {toml_value(value)}"
