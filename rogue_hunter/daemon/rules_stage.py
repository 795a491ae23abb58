"""The rules in rh-pipe: matches are logged and stored; if the configuration says armed, the processes are killed.

The rule files are reloaded like the configuration: an invalid file is rejected and the old rules stay. On macOS the
resource reports of the system about running processes are matches too, of the rule macos_recorded.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rogue_hunter.config.options import Config, Reap
from rogue_hunter.config.toml import ConfigError, load
from rogue_hunter.daemon.hooks import Hooks
from rogue_hunter.daemon.reload import SETTLE_S, stamp
from rogue_hunter.paths import config_file, rules_file, state_dir
from rogue_hunter.reaper.audit import FollowAudit, audit_log, audit_path
from rogue_hunter.reaper.notify import Notifier, sentence
from rogue_hunter.reaper.process import Machine, Stop
from rogue_hunter.reaper.run import Setup
from rogue_hunter.reaper.stage import BackgroundProve, BackgroundReap
from rogue_hunter.rules.load import user_rules
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.model import LOG_LEVELS, REMEDIES, RuleError, RuleSet, Settings
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.schema.field import Key
from rogue_hunter.schema.rules import MATCH
from rogue_hunter.stream.pipeline import Stage
from rogue_hunter.stream.tick import Recent, Record, Row, Tick, record
from rogue_hunter.worker import Worker

Say = Callable[[str, str], object]
"""(level, message)."""

LOOK_S = 2.0
"""Poll interval of the rule files; after a change every tick polls until the file is no longer being written."""

END_S = 1.5
"""Seconds that the end of rh-pipe waits for the reaper to stop: rh-pipe has to end within two."""

LOGGED_MAX = 10_000
"""Matches that are remembered as logged."""


class Rules:
    """The rules in force, from `file` or else from the user's files. Raises RuleError."""

    def __init__(self, file: Path | None, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._say, self._clock = file, say, clock
        self._files = (file,) if file is not None else (config_file(), rules_file())
        self._stamps = self._seen = [stamp(each) for each in self._files]
        self._looked = self._moved = clock()
        self.now = user_rules(file)

    def look(self) -> RuleSet:
        """The rules; read again when a file has changed and is no longer being written."""
        now = self._clock()
        if now - self._looked >= LOOK_S or self._seen != self._stamps:
            self._looked = now
            stamps = [stamp(each) for each in self._files]
            if stamps != self._seen:
                self._seen, self._moved = stamps, now
            if stamps != self._stamps and now - self._moved >= SETTLE_S:
                self._stamps = stamps
                self._read()
        return self.now

    def _read(self) -> None:
        try:
            load(self._file, config_file())
            rules = user_rules(self._file)
        except ConfigError:
            return  # the Reloader reports it
        except RuleError as error:
            self._say("error", f"the rules stay as they were: {error}")
            return
        if rules != self.now:
            self.now = rules
            self._say("info", f"rules read again: {len(rules.enabled)} in force, from {', '.join(rules.sources)}")


@dataclass(slots=True)
class RuleStages:
    """The stages that belong to rules, None where one is not needed."""

    match: Stage | None = None
    reap: Stage | None = None
    others: Stage | None = None
    prove: Stage | None = None
    tell: Stage | None = None
    metrics: Stage | None = None
    recorded: Stage | None = None


@contextmanager
def ruling(config: Config, file: Path | None, say: Say, machine: Callable[[], Machine] | None = None,
           ) -> Iterator[RuleStages]:
    """The stages. `machine` is that of this process; without one (a recording) nothing is ever ended. Raises
    RuleError."""
    with ExitStack() as stack:
        made = _Rules(config, Rules(file, say), say, machine)
        stack.callback(made.teller.close)
        stack.callback(made.hooks.close)
        yield RuleStages(made.match, *made.reaping(), made.tell, _metrics(made.rules.now.settings, say, stack),
                         Recorded() if sys.platform == "darwin" else None)


class _Rules:
    def __init__(self, config: Config, rules: Rules, say: Say, machine: Callable[[], Machine] | None) -> None:
        self.reap, self.rules, self.say = config.reap, rules, say
        self.teller = Teller()
        self.hooks = Hooks(self._loud)
        self.recent: Recent = ()
        self.match = _Match(self)
        self._machine = machine() if machine is not None else None
        self._run, self._stop = os.urandom(6).hex(), Stop()
        self._setup: Setup | None = None
        self._made_of: tuple[RuleSet, Reap] | None = None
        self._logged: dict[tuple[Key, str], None] = {}

    # -- stages ------------------------------------------------------------------------------------------------------

    def reaping(self) -> tuple[Stage | None, Stage | None, Stage | None]:
        """The stages of the reaper, of other reapers' actions and of proofs; none without a machine to act on."""
        machine = self._machine
        if machine is None:
            return None, None, None
        first = self._made(machine, self.rules.now, self.reap, Patterns())

        def path() -> Path:
            setup = self._setup
            return setup.audit.path if setup is not None else _path(self.reap, self.rules.now)

        def proving() -> Setup | None:
            return self._made(machine, self.rules.now, self.reap, Patterns()) if self.reap.prove else None

        return (BackgroundReap(first, wait_s=END_S, current=lambda: self._setup), FollowAudit(path, self._run),
                BackgroundProve(proving))

    def tell(self, tick: Tick) -> Tick:
        """Log matches and actions, and show them on the desktop if the rule asks for it."""
        for each in tick.records:
            if each["type"] == "match":
                self._match(each)
            elif each["type"] == "action":
                self._action(each)
        self.hooks.tell()
        return tick

    # -- inside ------------------------------------------------------------------------------------------------------

    def _made(self, machine: Machine, rules: RuleSet, reap: Reap, patterns: Patterns) -> Setup:
        return Setup(rules, machine, audit_log(reap, rules.settings), state_dir(), host=os.uname().nodename,
                     rules_fixed=True, dry_run=rules.settings.dry_run, samples=self._samples, patterns=patterns,
                     stop=self._stop, run=self._run)

    def arm(self, rules: RuleSet, patterns: Patterns) -> None:
        """Make the setup that is in force from this tick on."""
        reap = self.reap
        if self._machine is None or self._made_of == (rules, reap):
            return
        was = self._setup is not None
        self._setup = None
        if reap.mode == "armed":
            try:
                self._setup = self._made(self._machine, rules, reap, patterns)
            except ConfigError as error:
                self.say("error", f"nothing is killed: {error}")
        if self._setup is not None and not was:
            self.say("warning", "armed: processes that match a kill rule are killed without asking"
                     + (" (but daemon.dry_run is true)" if rules.settings.dry_run else ""))
        elif was and self._setup is None:
            self.say("info", "no longer armed: matches are logged and stored")
        self._made_of = rules, reap

    def _samples(self, key: Key) -> list[Row]:
        return [rows[key] for _, rows in self.recent if key in rows]

    def _loud(self, level: str, message: str) -> None:
        if LOG_LEVELS.index(level) >= LOG_LEVELS.index(self.rules.now.settings.log_level):
            self.say(level, message)

    def _match(self, match: Record) -> None:
        key = (match["pid"], match["start_ticks"]), match["rule"]
        if key in self._logged:
            return
        self._logged[key] = None
        if len(self._logged) > LOGGED_MAX:
            del self._logged[next(iter(self._logged))]
        self._loud(match.get("log_level", "warning"), f"rule {match['rule']} matches {match.get('command', '?')} "
                                                      f"[{match['pid']}]: {match['reason']}")
        settings, rule = self.rules.now.settings, self.rules.now.rule(match["rule"])
        if rule is not None and not settings.dry_run:
            self.hooks.match(rule, match)
        if match.get("notify") and (self._setup is None or settings.dry_run or match["action"] not in REMEDIES):
            self.teller.tell(settings, lambda notifier: notifier.match(match))

    def _action(self, action: Record) -> None:
        if "not_a_kill" in action.get("refusals", ()):
            return  # the match was logged
        rules = self.rules.now
        rule = rules.rule(action["rule"])
        self._loud(rule.action.log_level if rule is not None else "warning", sentence(action))
        if action.get("run") == self._run and not action["dry_run"]:
            self.teller.tell(rules.settings, lambda notifier: notifier.action(action, rules))


class _Match:
    """Adds match records. Durations of new rules are measured from the time they are loaded."""

    def __init__(self, of: _Rules) -> None:
        self._of = of
        self._used: RuleSet | None = None
        self._matcher: Matcher | None = None
        self._patterns = Patterns()

    def configure(self, config: Config) -> None:
        """Use these settings of the reaper from the next tick on."""
        self._of.reap = config.reap

    def __call__(self, tick: Tick) -> Tick:
        rules = self._of.rules.look()
        asked = tick
        if tick.row is not None:
            self._of.recent = tick.recent
            if rules is not self._used:
                self._used, self._patterns = rules, Patterns()
                self._matcher = (Matcher(rules, lifetime=False, patterns=self._patterns) if rules.settings.enabled
                                 else None)
                asked = Tick(tick.row, tick.processes, set(tick.processes), tick.exited, tick.scored)
        self._of.arm(rules, self._patterns)
        if self._matcher is not None:
            tick.records.extend(self._matcher.tick(asked))
        return tick


def _path(reap: Reap, rules: RuleSet) -> Path:
    try:
        return audit_path(reap, rules.settings)
    except ConfigError:
        return audit_path(Reap(), Settings())


class Teller:
    """Shows notifications in a thread of its own: a desktop may take seconds, a beat may not."""

    def __init__(self) -> None:
        self._worker: Worker[Callable[[], object], object] = Worker("notify", lambda show: show(), limit=100)
        self._notifier = Notifier(Settings())
        self._settings = Settings()

    def tell(self, settings: Settings, show: Callable[[Notifier], object]) -> None:
        """Have `show` called with a notifier of these settings. What is refused because too many wait is in the log."""
        if not settings.notify:
            return
        if settings != self._settings:
            self._settings, self._notifier = settings, Notifier(settings)
        notifier = self._notifier
        self._worker.submit(lambda: show(notifier))
        self._worker.collect()

    def close(self) -> None:
        """Stop without waiting: what was not shown by now is in the log."""
        self._worker.close(0.0)


def _metrics(settings: Settings, say: Say, stack: ExitStack) -> Stage | None:
    """The stage that counts for the metrics page, if the rule file asks for it; a failure is logged."""
    if not settings.metrics:
        return None
    from rogue_hunter.metrics import Metrics, Server

    try:
        metrics = Metrics()
        server = Server(metrics, settings.metrics_port, settings.metrics_path)
        stack.callback(server.close)
        server.start()
    except (OSError, ImportError, RuntimeError) as error:
        say("warning", f"no metrics are served on port {settings.metrics_port}: {error}")
        return None
    say("info", f"metrics are on http://127.0.0.1:{server.port}{settings.metrics_path}")
    return metrics


RECORDED_RULE = "macos_recorded"
RECORDED_EVERY_S = 60.0
"""Seconds between two looks at the directories. macOS writes a report some seconds after the limit was exceeded."""
_MATCH_FIELDS = tuple(f.name for f in MATCH if f.name in (
    "pid", "start_ticks", "start_time", "ppid", "uid", "user", "command", "exe", "cmdline", "tty", "state", "age_s",
    "cpu_percent", "memory_bytes", "wakeups_per_s", "disk_bytes_per_s", "score", "band"))


def _new_reports(since: float) -> list[Record]:
    from rogue_hunter.capture.reports.collect import reports_between  # 13 modules that rh-pipe on Linux has no use for

    return [each for each in reports_between(since, time.time(), None)[0] if each["type"] == "resource_report"]


class Recorded:
    """A stage that adds a `match` record for each new report about a process that still runs: it is stored and logged
    as those of rules are, and nothing is done to the process.

    `read` gives the resource reports written since a time, epoch seconds; it runs in a thread.
    """

    def __init__(self, read: Callable[[float], list[Record]] = _new_reports,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._worker: Worker[float, list[Record]] = Worker("rh-recorded", read, limit=2)
        self._clock = clock
        self._due = clock()
        self._seen: set[tuple[object, ...]] = set()

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the matches; reports of before the first tick count if their process runs."""
        ts = float((tick.row or {}).get("ts") or 0.0)
        if ts and self._clock() >= self._due:
            self._due = self._clock() + RECORDED_EVERY_S
            self._worker.submit(ts - 2 * RECORDED_EVERY_S)
        for reports in self._worker.collect():
            tick.records += [made for each in reports if (made := self._match(tick, each)) is not None]
        self._worker.failures()
        return tick

    def close(self) -> list[Record]:
        """End the thread."""
        self._worker.close()
        return []

    def _match(self, tick: Tick, report: Record) -> Record | None:
        what = (report.get("pid"), report.get("event"), report.get("ts"))
        row = next((row for key, row in tick.processes.items() if key[0] == report.get("pid")), None)
        if what in self._seen or row is None or tick.row is None or not _is_of(row, report):
            return None
        self._seen.add(what)
        from rogue_hunter.capture.reports.collect import limit_words

        return record(
            "match", ts=tick.row["ts"], seq=tick.row.get("seq"), boot_id=tick.row["boot_id"],
            **{name: row.get(name) for name in _MATCH_FIELDS}, rule=RECORDED_RULE, priority="low", action="log",
            notify=False, log_level="info", evidence="reading",
            reason=f"macOS recorded {report.get('event', 'a limit')}: {limit_words(report)}")


def _is_of(row: Row, report: Record) -> bool:
    """Whether the report means this process: the names agree (the kernel cuts them), and it had started by the end of
    the report."""
    name, told = str(row.get("command", "")), str(report.get("command", ""))
    started = row.get("start_time")
    return bool(name) and (told.startswith(name[:15]) or name.startswith(told[:15])) and (
        started is None or started <= float(report.get("end_ts") or report.get("ts") or 0.0))
