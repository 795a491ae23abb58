"""The tables of a rule file as conditions, rules and settings. Everything that is not understood is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from rogue_hunter.config.check import Place, choice, flag, known_keys, number, tables, text
from rogue_hunter.rules.conditions import Age, Band, Called, Held, Level, Node, Orphan, State, User
from rogue_hunter.rules.logic import AllOf, AnyOf, NoneOf, cost
from rogue_hunter.rules.model import ACTIONS, LOG_LEVELS, PRIORITIES, SIGNALS, Action, Example, Rule, RuleError
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
KEYS = (*_LEVELS, *_AGES, "duration_seconds", "band_min", "orphan", "state", "user", *_PATTERNS, *_NESTED)
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
    if "band_min" in table:
        measured.append(Band(choice(table["band_min"], BANDS, place.at("band_min"))))
    if "state" in table:
        measured.append(State(tuple(choice(s, STATES, place.at("state"))
                                    for s in _listed(table["state"], place.at("state")))))
    measured += _nested(table, place, depth)
    now: list[Node] = [Age(number(table[key], place.at(key), 0) * unit, key, unit)
                       for key, unit in _AGES.items() if key in table]
    if "user" in table:
        now.append(User(_listed(table["user"], place.at("user"))))
    if "orphan" in table:
        now.append(Orphan(flag(table["orphan"], place.at("orphan"))))
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
    known_keys(table, ("type", "signal", "timeout_seconds", "fallback_signal", "notify", "log_level"), place)
    return Action(
        type=choice(table.get("type", "kill"), ACTIONS, place.at("type")),
        signal=choice(table.get("signal", "SIGTERM"), SIGNALS, place.at("signal")),
        timeout_s=number(table.get("timeout_seconds", 5), place.at("timeout_seconds"), 0.1, 600),
        fallback=choice(table.get("fallback_signal", "SIGKILL"), ("SIGKILL", "none"),
                        place.at("fallback_signal")) == "SIGKILL",
        notify=flag(table.get("notify", False), place.at("notify")),
        log_level=choice(table.get("log_level", "warning"), LOG_LEVELS, place.at("log_level")))


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
