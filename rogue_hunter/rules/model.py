"""The contents of a rule file as values: rules, what is protected, and the settings of the reaper."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rogue_hunter.rules.conditions import Held
from rogue_hunter.rules.logic import AllOf
from rogue_hunter.text.errors import CONFIG_ERROR, RogueHunterError

PRIORITIES = ("critical", "high", "medium", "low")
"""From the first to the last that is evaluated."""

SIGNALS = ("SIGTERM", "SIGKILL")
REMEDIES = ("kill", "renice", "stop", "freeze")
"""What rh-reap may do to a process: terminate it, lower its priority, stop it for a time, freeze its control group for
a time."""

HOOKS = ("exec", "webhook")
"""What rh-pipe runs when a process begins to match; the process is not touched."""

ACTIONS = (*REMEDIES, "notify", "log", *HOOKS)
"""notify, log and the hooks only report the match; rh-reap refuses it."""

LOG_LEVELS = ("debug", "info", "warning", "error")
URGENCIES = ("low", "normal", "critical")

MIN_PID = 1000
"""Lower pids belong to processes that a system started with; a configuration may raise this, not lower it."""

MIN_PID_NAMESPACE = 2
"""In a pid namespace of its own (a container) only pid 1 is special; a configuration may raise this."""


class RuleError(RogueHunterError):
    """A rule file that cannot be used; the text names file, rule, key and reason. A command exits 78 (`code`) and
    scans nothing."""

    code = CONFIG_ERROR


@dataclass(frozen=True, slots=True)
class Action:
    """What a rule asks for. SIGTERM always comes first: `signal` SIGKILL only shortens the wait before SIGKILL.

    `timeout_s` is how long SIGTERM has, or a hook, seconds. With `fallback` False SIGKILL never follows.
    `nice` is for renice; `seconds` is how long stop and freeze last. `command` is the argv of exec; a webhook has its
    address in `url` or in the file `url_file`, and perhaps a token in `token_file`; `per_hour` limits hooks.
    """

    type: str = "kill"
    signal: str = "SIGTERM"
    timeout_s: float = 5.0
    fallback: bool = True
    notify: bool = False
    log_level: str = "warning"
    nice: int = 10
    seconds: float = 30.0
    command: tuple[str, ...] = ()
    url: str = ""
    url_file: str = ""
    token_file: str = ""
    per_hour: int = 60


_ADDRESS = re.compile(r"(https://[^\s/@?#]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?)([/?]\S*)?")


def web_address(url: str) -> bool:
    """True for an https address without a user in it, and for http on this machine."""
    return url.isascii() and url.isprintable() and _ADDRESS.fullmatch(url) is not None


@dataclass(frozen=True, slots=True)
class Example:
    """A process that a rule must match, or must not: `row` holds the fields of a process record; `held_s` says for
    how long its numbers have been what they are, `orphan` whether its parent has exited."""

    match: bool
    row: Mapping[str, Any]
    why: str = ""
    held_s: float = 0.0
    orphan: bool | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `condition` is what must hold; `table` the conditions as the file gave them."""

    name: str
    condition: AllOf
    table: Mapping[str, Any]
    priority: str = "medium"
    enabled: bool = True
    action: Action = Action()
    examples: tuple[Example, ...] = ()
    source: str = ""

    @property
    def windows(self) -> tuple[Held, ...]:
        """The sustained conditions in it."""
        return tuple(node for node in self.condition.walk() if isinstance(node, Held))


@dataclass(frozen=True, slots=True)
class Safety:
    """What is protected from every rule. `min_pid` is None unless a file sets it. `max_per_run` and
    `max_per_rule_per_hour` limit how many processes may be terminated."""

    whitelist: tuple[str, ...] = ()
    min_pid: int | None = None
    max_per_run: int = 20
    max_per_rule_per_hour: int = 5

    def with_(self, other: Safety) -> Safety:
        """Protect what either protects, and keep the lower limits."""
        pids = [pid for pid in (self.min_pid, other.min_pid) if pid is not None]
        # One that is not set means 1000 on a whole system, less in a container: the other one cannot be below that.
        return Safety(tuple(dict.fromkeys((*self.whitelist, *other.whitelist))), max(pids) if pids else None,
                      min(self.max_per_run, other.max_per_run),
                      min(self.max_per_rule_per_hour, other.max_per_rule_per_hour))

    def least_pid(self, *, own_namespace: bool) -> int:
        """The lowest pid that may be signalled, in a pid namespace of its own or on the whole system."""
        return max(MIN_PID_NAMESPACE if own_namespace else MIN_PID, self.min_pid or 0)


@dataclass(frozen=True, slots=True)
class Settings:
    """The rest of a reaper.toml. None means that the file does not set it."""

    enabled: bool = True
    scan_interval_s: float = 60.0
    dry_run: bool = False
    log_file: str | None = None
    log_level: str = "info"
    log_max_bytes: int = 100_000_000
    log_keep: int = 5
    notify: bool = False
    notify_urgency: str = "normal"
    notify_timeout_ms: int = 5000
    metrics: bool = False
    metrics_port: int = 9090
    metrics_path: str = "/metrics"


def _find_sha256() -> Callable[[bytes], Any]:
    # hashlib brings OpenSSL, 3.4 MB of memory, which a pipe that only matches has no use for.
    for name in ("_sha2", "_sha256"):
        with suppress(ImportError):
            return import_module(name).sha256  # type: ignore[no-any-return]
    return import_module("hashlib").sha256  # type: ignore[no-any-return]


_sha256 = _find_sha256()
"""Found when the module is loaded: later, all descriptors may be in use, and an import needs one."""


@functools.lru_cache(maxsize=8)
def _digest(contents: tuple[bytes, ...]) -> str:
    return str(_sha256(b"".join(_sha256(content).digest() for content in contents)).hexdigest())


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything that decides. `rules` in order of evaluation; `sources` the files that it was read from, for people.

    `file` and `project` are the absolute paths of the user's and the project's file, None if there is none; `contents`
    is what was read, the built-in rules if there is no user's file.
    """

    rules: tuple[Rule, ...]
    safety: Safety = Safety()
    settings: Settings = Settings()
    sources: tuple[str, ...] = field(default=())
    file: str | None = None
    project: str | None = None
    contents: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def digest(self) -> str | None:
        """SHA-256 of all that was read, in hexadecimal: the same for the same rules. None for rules from no file."""
        return _digest(self.contents) if self.contents else None

    @property
    def enabled(self) -> tuple[Rule, ...]:
        """The rules that are evaluated."""
        return tuple(rule for rule in self.rules if rule.enabled)

    def rule(self, name: str) -> Rule | None:
        """The enabled rule of that name."""
        return next((r for r in self.rules if r.name == name and r.enabled), None)
