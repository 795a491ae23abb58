"""Matching: ticks in, ticks out, with a `match` record for each process that matches a rule.

A process whose row did not change is not evaluated again before time alone can change the answer: when its age reaches
a limit, or a condition has lasted long enough. A tick in which no process ran costs a look at a heap.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rogue_hunter.config.options import Config
from rogue_hunter.host.platform import here
from rogue_hunter.rules.conditions import NEVER, Held, Subject
from rogue_hunter.rules.logic import NS, Lasting, Window, decide, evidence, names_needed, reason
from rogue_hunter.rules.model import PRIORITIES, REMEDIES, Rule, RuleSet
from rogue_hunter.rules.patterns import Patterns, Program, program_of
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.sample import beats_of, sample
from rogue_hunter.sampling.units import ADOPTERS, SERVICE_MANAGERS, in_service
from rogue_hunter.schema.field import Key
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.pipeline import Stage, chain
from rogue_hunter.stream.tick import Record, Row, Tick, record


@dataclass(slots=True)
class Kin:
    """What is known of a process's parent: its pid, `name[pid]`, whether it exited (None: unknown), and which one did.

    `adopted` is true while its first known parent is pid 1 or a service manager and it is not known whether the process
    is a service, and so a child of it by design.
    """

    ppid: int
    parent: str = ""
    orphan: bool | None = None
    orphan_of: str = ""
    adopted: bool = False

    def update(self, row: Row) -> None:
        """Take over what a row says: the parent, the parent that exited, the control group of a service."""
        if "ppid" in row and row["ppid"] != self.ppid:
            # A process's parent changes only when the parent exits.
            if self.ppid > 0:
                self.parent_exited()
            self.ppid = row["ppid"]
        if "orphan_of" in row:
            self.orphan, self.orphan_of, self.adopted = True, row["orphan_of"], False
        if self.adopted and "cgroup" in row:
            self.orphan, self.adopted = not in_service(row["cgroup"]), False

    def parent_exited(self) -> None:
        """The parent exited."""
        self.orphan, self.orphan_of, self.adopted = True, self.orphan_of or self.parent, False


class Family:
    """Parents and children of one boot. With `cgroups`, rows have a control group once they are described."""

    def __init__(self, *, cgroups: bool = True) -> None:
        self._cgroups = cgroups
        self._by_pid: dict[int, Key] = {}
        self._children: dict[Key, dict[Key, Kin]] = {}
        self._parents: dict[Key, Key] = {}

    def register(self, keys: Iterable[Key]) -> None:
        """These exist now. All of a tick are registered before any is added: a child may come before its parent."""
        for key in keys:
            self._by_pid[key[0]] = key

    def add(self, key: Key, row: Row, processes: dict[Key, Row]) -> Kin:
        """A process that is seen for the first time.

        A child of pid 1 or of a service manager has lost another parent, unless it is a service. If pid 1 is another
        program, as in a container, its children may be its own: then it is unknown, unless the child is in the session
        of a third process.
        """
        kin = Kin(row.get("ppid", 0))
        manager = own = False
        parent = self._by_pid.get(kin.ppid, key)
        if parent != key and parent in processes:
            command = processes[parent].get("command")
            kin.parent = f"{command or ''}[{kin.ppid}]"
            manager = command in SERVICE_MANAGERS
            own = kin.ppid == 1 and command not in ADOPTERS and \
                row.get("session") in (None, key[0], processes[parent].get("session"))
            self._children.setdefault(parent, {})[key] = kin
            self._parents[key] = parent
        if kin.ppid > 0 and not own:
            kin.adopted = (kin.ppid == 1 or manager) and self._cgroups
            kin.orphan = None if kin.adopted else kin.ppid == 1 or manager
        kin.update(row)
        return kin

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove processes that may still be running: their children are no orphans by it."""
        for key in keys:
            self._remove(key)

    def remove(self, keys: Iterable[Key]) -> set[Key]:
        """These have exited. Returns their children, whose rows may still name the old parent: a process that does not
        run is not read again."""
        orphans: set[Key] = set()
        for key in keys:
            for child, kin in self._remove(key).items():
                kin.parent_exited()
                orphans.add(child)
        return orphans

    def _remove(self, key: Key) -> dict[Key, Kin]:
        """Remove one process; returns its children."""
        if self._by_pid.get(key[0]) == key:
            del self._by_pid[key[0]]
        parent = self._parents.pop(key, None)
        if parent in self._children:
            self._children[parent].pop(key, None)
        children = self._children.pop(key, {})
        for child in children:
            del self._parents[child]
        return children


REPEAT_S = 60.0
"""A match that lasts is repeated this often, for a reader that came later or could not act."""

COPIED = ("pid", "start_ticks", "start_time", "ppid", "uid", "user", "command", "exe", "cmdline", "cgroup", "tty",
          "state", "threads", "cpu_seconds_total", "cpu_percent", "memory_bytes", "disk_bytes_per_s", "gpu_ms_per_s",
          "wakeups_per_s", "score", "band")
"""Fields of the process row that a match record carries."""


PROGRAMS = 4096
"""Programs of which the rules that may match are remembered."""


@dataclass(frozen=True, slots=True)
class Open:
    """The rules that the names of a program do not rule out, and their lasting conditions."""

    rules: tuple[Rule, ...]
    windows: tuple[tuple[str, Held], ...]


@dataclass(slots=True)
class Seen:
    """What is remembered of one process.

    `open` are the rules that its names leave, None before they were looked at. `born` is when it started, None while
    that is not known, and `due` when it must be evaluated again, 0 for never, both in ns of a clock that counts from
    the first tick on, time asleep included, and is never set. `since` is when the rules in `rules` began to match,
    `reported` when that was last reported and `reported_rule` for which rule.
    `undecided` is true while a rule may match but for names that cannot be read.
    """

    kin: Kin
    open: Open | None = None
    born: int | None = None
    due: int = 0
    windows: dict[Held, Window] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    since: int = field(init=False)
    reported: int = field(init=False)
    reported_rule: str = ""
    undecided: bool = False


class Matcher:
    """The stage: appends `match` records to the ticks, and an `error` record for a rule that had to be disabled.

    With `lifetime` a window longer than what was seen of the stream may be proved by the average over the process's
    life; the record contains that. rh-pipe, which watches all the time, does not need it. Must run on the main thread,
    where the time of patterns can be bounded: elsewhere rules with patterns match nothing.
    """

    def __init__(self, rules: RuleSet, *, lifetime: bool = True, repeat_s: float = REPEAT_S,
                 patterns: Patterns | None = None) -> None:
        self._rules = rules.enabled
        self._origin = rules
        self._needed = {rule.name: names_needed(rule.condition) for rule in self._rules}
        self._open: dict[Program, Open] = {}
        self._opens: dict[tuple[str, ...], Open] = {}
        self._whitelist = rules.safety.whitelist
        self._lifetime = lifetime
        self._repeat_ns = int(repeat_s * NS)
        self._patterns = patterns or Patterns()
        self._reported: set[str] = set()
        self._seen: dict[Key, Seen] = {}
        self._boot: str | None = None  # the first tick's is another than that, so it begins the stream

    @property
    def undecided(self) -> int:
        """How many processes may match but for their program or arguments, which cannot be read."""
        return sum(seen.undecided for seen in self._seen.values())

    def _restart(self, system: str) -> None:
        self._seen = {}
        self._family = Family(cgroups=system == "linux")
        self._due: list[tuple[int, Key]] = []
        self._matched: dict[Key, Seen] = {}
        self._began = self._now = self._begin = self._alive = 0
        self._ts = 0.0
        self._was_partial = False

    def __call__(self, tick: Tick) -> Tick:
        """The tick with its matches."""
        tick.records.extend(self.tick(tick))
        return tick

    def tick(self, tick: Tick) -> list[Record]:
        """The records of this tick, the highest priority first."""
        if tick.row is None:
            return []
        self._clock(tick.row)
        self._patterns.new_tick()
        processes = tick.processes
        self._family.register(tick.changed)
        todo = tick.changed | self._gone(tick) | self._are_due()
        for key in todo:
            process = processes.get(key)
            # A last row: there is no process to act on; and no rule is meant for rogue-hunter, whose budget limits it.
            if process is not None and (process.get("ended") or process.get("own")):
                self._seen.pop(key, None)
                self._matched.pop(key, None)
            elif process is not None:
                self._evaluate(key, process, processes)
        if tick.partial:
            self._unwatched(processes, tick.row["processes"])
        return [*self._report(tick.row, processes), *self._disabled()]

    def _clock(self, row: Row) -> None:
        """Follow the clocks. Another boot, or a monotonic clock that went back, is another stream."""
        now = row["mono_ns"]
        if row["boot_id"] != self._boot or now < self._now:
            self._boot = row["boot_id"]
            self._restart(row["os"])
        begin = now - int(row["interval_s"] * NS)
        if self._now == 0:
            self._began = begin
        elif begin > self._now + 1_000_000:
            self._break(self._now, begin)
        if self._now:
            self._alive += max(0, now - self._now)
        self._alive += int(row.get("asleep_s", 0.0) * NS)
        self._now, self._begin, self._ts = now, begin, row["ts"]
        self._cpus = row.get("cpus", sys.maxsize)  # unknown: then an average must prove it for every thread

    def _break(self, end: int, begin: int) -> None:
        """Ticks are missing: what happened in between is not known and counts as not held."""
        for seen in self._seen.values():
            for window in seen.windows.values():
                window.interrupt(end, begin)

    def _are_due(self) -> set[Key]:
        """The processes for which time alone may have changed an answer."""
        found: set[Key] = set()
        while self._due and self._due[0][0] <= self._alive:
            due, key = heapq.heappop(self._due)
            seen = self._seen.get(key)
            if seen is not None and seen.due == due:
                seen.due = 0
                found.add(key)
        if len(self._due) > 2 * len(self._seen) + 64:  # what died long before its time
            self._due = [(seen.due, key) for key, seen in self._seen.items() if seen.due]
            heapq.heapify(self._due)
        return found

    def _gone(self, tick: Tick) -> set[Key]:
        """Forget what exited. Returns its children: they are orphans now, even while their rows name the old parent."""
        gone = set(tick.exited)
        if self._was_partial and not tick.partial:  # exits were not reported while rows were left out
            gone |= self._seen.keys() - tick.processes.keys()
        self._was_partial = tick.partial
        for key in gone:
            self._seen.pop(key, None)
            self._matched.pop(key, None)
        return self._family.remove(gone)

    def _unwatched(self, processes: dict[Key, Row], alive: int) -> None:
        """Rows that were left out of the tick: what those processes do is not known, so nothing is held.

        Their exits are not reported. When more are remembered than are alive, all of them are forgotten.
        """
        hidden = self._seen.keys() - processes.keys()
        for key in hidden:
            for window in self._seen[key].windows.values():
                window.note(False, self._begin)
            self._matched.pop(key, None)
            self._seen[key].rules = ()
        if len(self._seen) > alive:
            self._family.forget(hidden)
            for key in hidden:
                del self._seen[key]

    def _evaluate(self, key: Key, row: Row, processes: dict[Key, Row]) -> None:
        """Evaluate every rule for one process, and note when to do so again."""
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = Seen(self._family.add(key, row, processes))
        else:
            seen.kin.update(row)
        subject = self._subject(seen, row)
        when = NEVER
        found: list[Rule] = []
        seen.undecided = False
        for rule in seen.open.rules if seen.open else ():
            subject.rule, subject.final = rule.name, rule.action.type not in REMEDIES
            value, valid_s = decide(rule.condition, subject, self._whitelist)
            when = min(when, valid_s)
            if value:
                found.append(rule)
            elif value is None and subject.program.names_unread and row.get("memory_bytes") != 0:
                seen.undecided = True  # a kernel thread holds no memory; it has neither program nor arguments
        if found and not seen.rules:
            seen.since = self._now
        seen.rules = tuple(found)
        if found:
            self._matched[key] = seen
        else:
            self._matched.pop(key, None)
        if when < NEVER:
            self._evaluate_again(key, seen, self._alive + int(when * NS))

    def _evaluate_again(self, key: Key, seen: Seen, due: int) -> None:
        """Keep an earlier time: evaluating once too early is cheaper than two entries in the heap."""
        if not seen.due or due < seen.due:
            seen.due = due
            heapq.heappush(self._due, (due, key))

    def _subject(self, seen: Seen, row: Row) -> Subject:
        """The process as the rules see it now, its windows brought up to date."""
        if seen.born is None and "start_time" in row:
            # Once: start times are of the wall clock, which may be set, and move with it on some hosts only.
            seen.born = self._alive - round(max(0.0, self._ts - row["start_time"]) * NS)
        age_s = None if seen.born is None else (self._alive - seen.born) / NS
        open_ = self._still_open(seen, program_of(row))
        lasting = Lasting(seen.windows, self._now, self._began, lifetime=self._lifetime)
        subject = Subject(row, age_s, self._patterns, lasting, orphan=seen.kin.orphan, cpus=self._cpus)
        lasting.note(open_.windows, subject,
                     self._begin if age_s is None else max(self._begin, self._now - int(age_s * NS)))
        return subject

    def _still_open(self, seen: Seen, program: Program) -> Open:
        """The rules that may match a program of these names: of 1,000 processes most have none. Under another name its
        lasting conditions begin again."""
        found = self._open.get(program)
        if found is None:
            rules = tuple(rule for rule in self._rules if not any(
                self._patterns.hits(rule.name, node.patterns, program) is False for node in self._needed[rule.name]))
            found = self._opens.setdefault(tuple(rule.name for rule in rules), Open(
                rules, tuple((rule.name, node) for rule in rules for node in rule.windows)))
            if len(self._open) >= PROGRAMS:
                self._open.clear()
            self._open[program] = found
        if seen.open is not found:
            seen.open = found
            nodes = {node for _, node in found.windows}
            seen.windows = {node: window for node, window in seen.windows.items() if node in nodes}
        return found

    def _report(self, row: Row, processes: dict[Key, Row]) -> list[Record]:
        """The records of matches that were not reported recently."""
        news: list[Key] = []
        for key, seen in self._matched.items():
            rule = seen.rules[0]
            if rule.name != seen.reported_rule or self._now - seen.reported >= self._repeat_ns:
                seen.reported, seen.reported_rule = self._now, rule.name
                news.append(key)
        news.sort(key=lambda key: (PRIORITIES.index(self._matched[key].rules[0].priority), key))
        return [self._record(row, processes[key], self._matched[key]) for key in news]

    def _record(self, tick: Row, row: Row, seen: Seen) -> Record:
        rule = seen.rules[0]
        subject = self._subject(seen, row)
        subject.rule, subject.final = rule.name, rule.action.type not in REMEDIES
        rule.condition.verdict(subject)  # for its proofs
        terms = list(rule.condition.explain(subject))
        return record(
            "match", ts=tick["ts"], seq=tick["seq"], boot_id=tick["boot_id"],
            **{name: row[name] for name in COPIED if name in row},
            age_s=None if subject.age_s is None else round(subject.age_s, 2),
            rule=rule.name, priority=rule.priority, also=[r.name for r in seen.rules[1:]] or None,
            action=rule.action.type, notify=rule.action.notify, log_level=rule.action.log_level,
            rules_file=self._origin.file, rules_project=self._origin.project, rules_sha256=self._origin.digest,
            reason=reason(terms, subject.age_s), evidence=evidence(terms), evidence_terms=terms,
            matched_s=round((self._now - seen.since) / NS, 2), orphan=seen.kin.orphan,
            orphan_of=seen.kin.orphan_of or None)

    def _disabled(self) -> list[Record]:
        new = self._patterns.disabled.keys() - self._reported
        self._reported |= new
        return [record("error", stage="rh-match", message=f"rule {rule} is disabled: {self._patterns.disabled[rule]}")
                for rule in sorted(new)]


def scan(config: Config, *stages: Stage) -> Iterator[Tick]:
    """One tick of all processes, a second after a silent reading, scored, through `stages`."""
    host = here()
    try:
        beat = beats_of(host, Rate(1.0), count=2)
        ticks = sample(host, beat, silent_first=True)
        yield from chain(ticks, Lineage(), Score(config), *stages)
    finally:
        host.close()


def named(ticks: Iterator[Tick], text: str, uid: int) -> list[Row]:
    """The processes of a user, not of rogue-hunter itself, with `text` in their name or arguments, in any case; the
    most CPU first. An empty text is in all of them."""
    word = text.casefold()
    rows = [row for tick in ticks for row in tick.processes.values()
            if row.get("uid") == uid and not row.get("own") and not row.get("ended")
            and any(word in str(row.get(name, "")).casefold() for name in ("name", "command", "cmdline"))]
    return sorted(rows, key=lambda row: (-row.get("cpu_percent", 0.0), -row.get("memory_bytes", 0), row["pid"]))
