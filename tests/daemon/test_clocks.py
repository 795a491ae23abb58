"""What wall clocks do, as one table: ages, events, minutes, `--since` and rules are right under each history.

rh-pipe watches a machine of a recorded tree. All clocks are handed in: `true_s` is the time that passes, asleep or not;
the wall clock is what each history makes of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.daemon import pipe
from rogue_hunter.daemon.rules_stage import RuleStages
from rogue_hunter.host.linux.host import LinuxHost
from rogue_hunter.report.queries import Period, Watched, events
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.logic import HELD_SHARE
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.stream.clock import Clock
from rogue_hunter.stream.tick import Tick
from tests.tools.processes import HZ, Tree

pytestmark = pytest.mark.slow

EPOCH = 1_800_000_000.0
SPRING, AUTUMN = 1_774_746_000.0, 1_792_890_000.0
"""2026-03-29 01:00 and 2026-10-25 01:00 UTC: Central Europe sets its clocks."""

BEGIN, TURN, END, STOP = 20.0, 40.0, 80.0, 110.0
"""Seconds of a run: the loop begins, the clock does what it does, the loop ends, rh-pipe ends."""

BUSY_S, AGED_S = 30.0, 25.0
RULES = f"""
[[rules]]
name = "busy"
conditions = {{ cpu_percent_min = 50, duration_seconds = {BUSY_S:g}, command_patterns = ["^loop$"] }}
action = {{ type = "log" }}
[[rules]]
name = "aged"
conditions = {{ age_seconds = {AGED_S:g}, command_patterns = ["^loop$"] }}
action = {{ type = "log" }}
[[rules]]
name = "never"
conditions = {{ age_seconds = 50000, command_patterns = ["^loop$", "^old$"] }}
action = {{ type = "log" }}
""".encode()


class History(NamedTuple):
    """`wall(true_s)` is the wall clock; `asleep_s` how long the machine sleeps at TURN; `offset_s` what a namespace or
    another base adds to the monotonic clock."""

    wall: Callable[[float], float]
    asleep_s: float = 0.0
    offset_s: float = 1000.0
    zone: str = "UTC"


def step(seconds: float, at: float = TURN, start: float = EPOCH) -> Callable[[float], float]:
    return lambda t: start + t + (seconds if t >= at else 0.0)


def ntp(t: float) -> float:
    """Steps of 0.3 s forward and back, as ntpd makes them from 0.128 s on."""
    return EPOCH + t + (0.3 if int(t / 7) % 2 else 0.0)


HISTORIES = {
    "steady": History(lambda t: EPOCH + t),
    "forward": History(step(7200.0)),
    "back": History(step(-7200.0)),
    "from 1970": History(lambda t: t if t < TURN else EPOCH + t),
    "to 1970": History(lambda t: EPOCH + t if t < TURN else t),
    "summer time begins": History(lambda t: SPRING - TURN + t, zone="Europe/Berlin"),
    "summer time ends": History(lambda t: AUTUMN - TURN + t, zone="Europe/Berlin"),
    "leap second smeared": History(lambda t: EPOCH + t * (1 - 1 / 86_400)),
    "leap second repeated": History(step(-1.0)),
    "suspended": History(lambda t: EPOCH + t, asleep_s=3600.0),
    "time namespace": History(lambda t: EPOCH + t, offset_s=86_400.0 * 400),
    "ntp steps": History(ntp),
    "dual boot": History(step(-7200.0, at=3.0)),
}


@dataclass
class Machine:
    """A tree in which a loop runs from BEGIN to END, beside a process that is 1,000 s old."""

    tree: Tree
    history: History
    true_s: float = 0.0
    slept_s: float = 0.0
    described: Callable[[], object] = lambda: None
    ages: list[tuple[float, float]] = field(default_factory=list)
    matched: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree.uptime_s = 5000.0
        self.write()

    def mono(self) -> int:
        return round((self.history.offset_s + self.true_s - self.slept_s) * 1e9)

    def sleeping(self) -> int:
        return round((self.history.offset_s + self.true_s) * 1e9)

    def wall(self) -> float:
        return self.history.wall(self.true_s)

    def write(self) -> None:
        awake = self.true_s - self.slept_s
        begin, end = BEGIN, END + self.history.asleep_s
        running = begin <= self.true_s < end
        used = max(0.0, min(awake, END) - BEGIN)
        self.tree.process(10, b"old", start=round(4000 * HZ), cmdline=b"old\0")
        if running:
            self.tree.process(11, b"loop", b"R", start=round((5000 + begin) * HZ), utime=round(used * HZ), cmdline=b"loop\0")
        elif (self.tree.path / "11").exists():
            self.tree.remove(11)
        total = 1000 + round(awake * HZ)
        for pid in (10, 11):
            if (self.tree.path / str(pid)).exists() and not (self.tree.path / f"{pid}/exe").is_symlink():
                (self.tree.path / f"{pid}/exe").symlink_to("/opt/program")
        self.tree.write("stat", b"cpu  %d 0 0 %d 0 0 0 0 0 0\ncpu0 1\ncpu1 1\nintr 0\nbtime %d\n" % (
            1000 + round(used * HZ), 2 * total - round(used * HZ), self.history.wall(0.0) - 5000))

    def sleep(self, seconds: float) -> bool:
        """Wait for the next beat; the machine is suspended within one of these waits."""
        before = self.true_s
        self.true_s += seconds
        if before < TURN <= self.true_s and self.history.asleep_s:
            self.true_s += self.history.asleep_s
            self.slept_s += self.history.asleep_s
        self.write()
        self.described()
        return True

    def spy(self, matcher: Matcher) -> Callable[[Tick], Tick]:
        def stage(tick: Tick) -> Tick:
            tick = matcher(tick)
            for each in tick.records:
                if each["type"] == "match":
                    for rule in (each["rule"], *each.get("also", ())):
                        self.matched.setdefault(rule, self.true_s)
                    self.ages.append((each["age_s"], self.true_s - BEGIN))
            if tick.row is not None:
                ts = tick.row["ts"]
                for key, row in tick.processes.items():
                    self.ages.append((ts - row["start_time"], self.true_s - (BEGIN if key[0] == 11 else -1000)))
            return tick

        return stage


@pytest.fixture(params=HISTORIES, scope="module")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, sqlite3.Connection]:
    """A run of rh-pipe under one history, and its database."""
    history = HISTORIES[request.param]
    place = tmp_path_factory.mktemp("clock")
    machine = Machine(Tree(place / "proc"), history)
    host = LinuxHost(machine.tree.path, mono=machine.mono, uptime=lambda: 5000.0 + machine.true_s, wall=machine.wall)
    machine.described = lambda: host._describer.wait(10)
    clock = Clock(mono=machine.mono, wall=machine.wall, sleeping=machine.sleeping)
    rules = RuleStages(match=machine.spy(Matcher(parse(RULES), lifetime=False)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", history.zone)
        pipe.run(Config(), host, place / "x.db", hz=3.0, seconds=STOP, sleep=machine.sleep, clock=clock,
                 warn=lambda message: None, rules=rules)
    host.close()
    return machine, sqlite3.connect(place / "x.db")


def lasted(machine: Machine) -> float:
    return END - BEGIN + machine.history.asleep_s


def test_ages_are_true(run: tuple[Machine, sqlite3.Connection]) -> None:
    """Of all processes, in every tick and match; small steps of NTP may show."""
    machine, _ = run
    assert len(machine.ages) > 500
    assert max(abs(told - true) for told, true in machine.ages) <= 0.85


def test_events_last_as_long_as_they_lasted(run: tuple[Machine, sqlite3.Connection]) -> None:
    machine, connection = run
    rows = connection.execute("SELECT duration_s, exit_time IS NULL, reason FROM process_events WHERE command = 'loop'")
    ((duration, still_open, reason),) = rows.fetchall()
    assert abs(duration - lasted(machine)) < 3 and not still_open and reason == "exited"


def test_minutes_add_up(run: tuple[Machine, sqlite3.Connection]) -> None:
    """CPU time of the loop, and the seconds that were watched: nothing twice, nothing lost."""
    _, connection = run
    ((used,),) = connection.execute("SELECT sum(cpu_seconds) FROM command_minutes WHERE command = 'loop'").fetchall()
    assert abs(used - (END - BEGIN)) < 1.5
    ((watched,),) = connection.execute("SELECT sum(seconds) FROM machine_minutes").fetchall()
    assert abs(watched - STOP) < 1.5


def test_since_finds_what_was_then(run: tuple[Machine, sqlite3.Connection]) -> None:
    """An event counts with the part of it that lies within the period, by the clock as it is now."""
    machine, connection = run
    connection.row_factory = sqlite3.Row
    now = machine.wall()
    ((boot, seen),) = connection.execute("SELECT boot_id, last_seen FROM process_events").fetchall()
    watched = Watched(boot, seen)
    for back_s, names in ((60.0, ["loop"]), (15.0, [])):
        found = events(connection, Period(now - back_s, now + 1.0), watched)
        assert [each["command"] for each in found] == names, back_s


def test_rules_fire_in_their_time(run: tuple[Machine, sqlite3.Connection]) -> None:
    """Neither too early nor too late, however the clock was set in between; sleep counts as age, not as use."""
    machine, _ = run
    asleep = machine.history.asleep_s
    assert set(machine.matched) == {"busy", "aged"}
    assert abs(machine.matched["busy"] - asleep - (BEGIN + HELD_SHARE * BUSY_S)) < 1.0
    due = TURN + asleep if asleep else BEGIN + AGED_S
    assert 0 <= machine.matched["aged"] - due < 1.5
