"""One process: counters into rates over the time in which they grew, and unknown where they cannot be computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.host.linux.parse import parse_stat
from rogue_hunter.host.linux.process import STATES, USUAL_STATES, Process
from rogue_hunter.host.linux.process import Reading as Files
from tests.tools.processes import HZ, PAGE, Tree, io_text, stat_line, status_text

SECOND = 1_000_000_000
BOOT = 1_700_000_000.0
OLD = 5000.0
"""Uptime at the first reading; the process started 10 s after the boot."""


class Reading:
    """A process that is read again and again; the test moves the clock."""

    def __init__(self, **fields: Any) -> None:
        self.now = 0
        self.before = 0
        stat = parse_stat(stat_line(5, **{"start": 1000, **fields}))
        self.process = Process((5, stat.start), stat, BOOT)

    def take(
        self,
        seconds: float = 1.0,
        *,
        first: bool = False,
        sched: tuple[int, int] | None = (0, 0),
        status: bytes | None = None,
        io: bytes | None = None,
        uptime: float = OLD,
        interval: float | None = None,
        spent: float = 0.0,
        clock: int | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """The row of a reading `seconds` after the tick before, `spent` seconds after the poll."""
        self.now += round(seconds * SECOND)
        made = self.process.update(Files(
            parse_stat(stat_line(5, **{"start": 1000, **fields})),
            status_text() if status is None else status,
            io_text() if io is None else io,
            b"" if sched is None else b"%d %d 9\n" % sched,
            clock,
            self.now + round(spent * SECOND),
            self.now,
            self.before,
            (0.0 if first else seconds) if interval is None else interval,
            uptime,
        ))
        self.before = self.now
        self.cores, self.renamed = made
        return self.process.row

    def tick(self, seconds: float = 1.0) -> None:
        """A tick in which the process did not run."""
        self.now += round(seconds * SECOND)
        self.before = self.now


RATES = [
    "cpu_percent",
    "pageins_per_s",
    "faults_per_s",
    "disk_bytes_per_s",
    "context_switches_per_s",
    "wakeups_per_s",
    "run_delay_ms_per_s",
]


def test_first_sight_of_an_old_process() -> None:
    """Totals are known at once, rates are not: they would be averages over days."""
    made = Reading().take(
        first=True,
        sched=(7_000_000_000, 2_000_000_000),
        status=status_text(1000, 2048, 30, 12),
        io=io_text(100, 200),
        utime=500,
        stime=200,
        cutime=30,
        cstime=20,
        minflt=90,
        majflt=10,
        rss=512,
        nice=5,
        priority=25,
        ppid=3,
    )
    assert (
        made
        == {
            "pid": 5,
            "start_ticks": 1000,
            "start_time": BOOT + 1000 / HZ,
            "command": "x",
            "uid": 1000,
            "ppid": 3,
            "session": 1,
            "state": "sleeping",
            "priority": 25,
            "nice": 5,
            "threads": 1,
            "cpu_seconds_total": 7.0,
            "cpu_user_seconds_total": 5.0,
            "cpu_system_seconds_total": 2.0,
            "children_cpu_seconds_total": 0.5,
            "memory_bytes": 512 * PAGE,
            "memory_peak_bytes": 2048 * 1024,
            "pageins_total": 10,
            "faults_total": 100,
            "disk_read_bytes_total": 100,
            "disk_write_bytes_total": 200,
            "context_switches_total": 42,
            "wakeups_total": 30,
            "run_delay_seconds_total": 2.0,
        }
        or HZ != 100
    )
    assert not set(RATES) & made.keys()


def test_rates() -> None:
    """Growth over the measured time: CPU to the nanosecond by schedstat, everything else by its counter."""
    reading = Reading()
    reading.take(first=True)
    made = reading.take(
        2.0,
        sched=(500_000_000, 100_000_000),
        status=status_text(1000, 4, 40, 20),
        io=io_text(3_000_000, 1_000_000),
        minflt=500,
        majflt=100,
    )
    assert {name: made[name] for name in RATES} == {
        "cpu_percent": 25.0,
        "pageins_per_s": 50.0,
        "faults_per_s": 300.0,
        "disk_bytes_per_s": 2_000_000.0,
        "context_switches_per_s": 30.0,
        "wakeups_per_s": 20.0,
        "run_delay_ms_per_s": 50.0,
    }
    assert reading.cores == 0.25


def test_growth_after_idle_ticks_belongs_to_the_last_interval() -> None:
    """The gate proves that nothing ran before the last tick: what grew, grew in this interval."""
    reading = Reading()
    reading.take(first=True)
    for _ in range(3600):
        reading.tick()
    made = reading.take(0.5, sched=(250_000_000, 0), status=status_text(1000, 4, 10, 0), io=io_text(0, 1000))
    assert (made["cpu_percent"], made["wakeups_per_s"], made["disk_bytes_per_s"]) == (50.0, 20.0, 2000.0)


def test_reading_late_in_a_busy_tick() -> None:
    """CPU time is what the poll saw, and is divided by the time between polls: a reading that came 100 ms later in one
    tick and at once in the next changes no percentage of a process that uses a whole core."""
    reading = Reading()
    reading.take(first=True)
    on_cpu = 0
    for spent in (0.1, 0.0, 0.1, 0.0):
        on_cpu += 333_000_000
        assert reading.take(0.333, sched=(on_cpu, 0), spent=spent)["cpu_percent"] == pytest.approx(100.0, abs=0.01)


def test_young_process_has_rates_over_its_life() -> None:
    """A process younger than the interval used all of it in this interval; its age counts, not the interval."""
    made = Reading(start=499_950).take(
        1.0,
        uptime=5000.0,
        start=499_950,
        sched=(250_000_000, 50_000_000),
        status=status_text(1000, 4, 5, 5),
        io=io_text(0, 1000),
        minflt=10,
    )
    assert made["cpu_percent"] == 50.0 and made["context_switches_per_s"] == 20.0
    assert made["disk_bytes_per_s"] == 2000.0 and made["faults_per_s"] == 20.0 and made["run_delay_ms_per_s"] == 100.0


def test_process_that_began_just_now() -> None:
    """An age of less than a clock tick counts as one: no use becomes infinite."""
    made = Reading(start=500_000).take(1.0, uptime=5000.0, start=500_000, sched=(5_000_000, 0))
    assert made["cpu_percent"] == 50.0


@pytest.mark.parametrize(
    ("age", "known"), [(0.9, True), (1.0, True), (1.0 + 0.4 / HZ, True), (1.5, False), (4000, False)]
)
def test_where_youth_ends(age: float, known: bool) -> None:
    """Up to the interval, and the clock tick that a start time may lie before the truth."""
    start = round((OLD - age) * HZ)
    made = Reading(start=start).take(1.0, start=start, sched=(1_000_000, 0))
    assert ("cpu_percent" in made) is known


def test_first_snapshot_knows_no_youth() -> None:
    """Without an interval there are no rates, however young a process is."""
    assert "cpu_percent" not in Reading(start=499_999).take(first=True, start=499_999)


def test_several_threads() -> None:
    """schedstat is the leader's alone: several threads are measured by stat, the rest since it was read."""
    reading = Reading(threads=4)
    reading.take(first=True, threads=4, sched=None)
    for _ in range(9):
        reading.tick()
    made = reading.take(
        1.0, threads=4, sched=None, utime=3 * HZ, status=status_text(1000, 4, 100, 0), io=io_text(0, 1000)
    )
    assert made["cpu_percent"] == 300.0
    assert made["disk_bytes_per_s"] == 100.0
    assert "wakeups_per_s" not in made, "status counts the leader's switches only"
    assert "run_delay_ms_per_s" not in made


def test_cpu_clock() -> None:
    """It counts the work of all threads to the nanosecond, so every counter's growth is of this interval: no process ran
    unnoticed before. The delay of one thread is read later than the clock, with everything else."""
    reading = Reading(threads=4)
    reading.take(first=True, threads=4, sched=None, clock=7 * SECOND)
    for _ in range(9):
        reading.tick()
    made = reading.take(0.5, threads=4, sched=None, utime=3 * HZ, clock=7 * SECOND + 1_250_000_000,
                        status=status_text(1000, 4, 100, 0), io=io_text(0, 1000))
    assert made["cpu_percent"] == 250.0
    assert made["disk_bytes_per_s"] == 2000.0
    assert "wakeups_per_s" not in made
    assert "run_delay_ms_per_s" not in made
    reading = Reading()
    reading.take(first=True, sched=(5, 100_000_000), clock=5)
    made = reading.take(1.0, spent=0.25, sched=(10**9, 600_000_000), clock=5 + SECOND // 2)
    assert made["cpu_percent"] == 50.0 and made["run_delay_ms_per_s"] == 400.0
    assert reading.take(1.0, sched=None, clock=5)["cpu_percent"] == 0.0, "a clock does not go back; if it does, no rate is negative"


def test_cpu_clock_of_a_newcomer() -> None:
    """All that its clock says, it used since it began."""
    start = round((OLD - 0.25) * HZ)
    made = Reading(start=start).take(1.0, start=start, sched=(1_000_000, 0), clock=125_000_000)
    assert made["cpu_percent"] == 50.0


def test_second_thread_comes_and_goes() -> None:
    """The source of CPU time changes with the number of threads; no rate is made of two different sources."""
    reading = Reading()
    reading.take(first=True, sched=(10**12, 0))
    # The gate is still schedstat in the tick that finds the second thread.
    assert reading.take(threads=2, sched=(10**12 + 5, 0), utime=HZ)["cpu_percent"] == 100.0
    made = reading.take(threads=1, sched=(10**12 + 1, 10**12), utime=HZ + HZ // 2)
    assert made["cpu_percent"] == 50.0 and "run_delay_ms_per_s" not in made
    assert reading.take(sched=(10**12 + 1 + 250_000_000, 10**12), utime=HZ + HZ // 2)["cpu_percent"] == 25.0


def test_without_schedstat() -> None:
    """A kernel that does not keep schedstat: CPU by stat, run delay unknown."""
    reading = Reading()
    reading.take(first=True, sched=None)
    made = reading.take(sched=None, utime=HZ // 2)
    assert made["cpu_percent"] == 50.0 and "run_delay_seconds_total" not in made and "run_delay_ms_per_s" not in made


def test_what_may_not_be_read() -> None:
    """Another user's io and status: those fields are unknown, never 0, and the rest is read."""
    reading = Reading()
    reading.take(first=True, io=b"", status=b"")
    made = reading.take(io=b"", status=b"", sched=(100_000_000, 0))
    assert made["cpu_percent"] == 10.0
    assert (
        not {
            "disk_read_bytes_total",
            "disk_bytes_per_s",
            "wakeups_total",
            "wakeups_per_s",
            "context_switches_per_s",
            "uid",
            "memory_peak_bytes",
        }
        & made.keys()
    )


def test_what_may_be_read_from_now_on() -> None:
    """The first value of a counter makes no rate."""
    reading = Reading()
    reading.take(first=True, io=b"")
    made = reading.take(io=io_text(10**9, 10**9))
    assert made["disk_read_bytes_total"] == 10**9 and "disk_bytes_per_s" not in made
    assert reading.take(io=io_text(10**9, 10**9 + 5))["disk_bytes_per_s"] == 5.0


def test_counters_that_fall() -> None:
    """A counter that went back has no rate in this interval, and is a new baseline for the next."""
    reading = Reading()
    reading.take(
        first=True,
        sched=(10**9, 10**9),
        status=status_text(1000, 4, 50, 50),
        io=io_text(500, 500),
        minflt=50,
        majflt=50,
        utime=50,
    )
    made = reading.take(sched=(5, 5), status=status_text(1000, 4, 1, 1), io=io_text(1, 1), minflt=1, majflt=1, utime=1)
    assert all(made.get(name, 0) >= 0 for name in RATES)
    assert not {"disk_bytes_per_s", "wakeups_per_s", "pageins_per_s", "run_delay_ms_per_s"} & made.keys()
    assert reading.take(sched=(5 + 10**8, 5), io=io_text(1, 11), utime=1)["disk_bytes_per_s"] == 10.0


def test_rest() -> None:
    """A process that stopped running has rates of 0 and keeps the rest; what was unknown stays so."""
    reading = Reading()
    before = reading.take(first=True, sched=(5, 5), io=b"")
    reading.process.rest()
    made = reading.process.row
    assert made is not before and not set(RATES) & before.keys()
    assert {name: made.get(name) for name in RATES} == {**dict.fromkeys(RATES, 0.0), "disk_bytes_per_s": None}
    assert {name: v for name, v in made.items() if name not in RATES} == before


@pytest.mark.parametrize(
    ("letter", "state"),
    [
        (b"R", "running"),
        (b"S", "sleeping"),
        (b"D", "uninterruptible"),
        (b"T", "stopped"),
        (b"t", "stopped"),
        (b"Z", "defunct"),
        (b"I", "idle"),
        (b"?", "sleeping"),
        (b"\xff", "sleeping"),
    ],
)
def test_states(letter: bytes, state: str) -> None:
    """The kernel's letters in the field's words; a letter of a later kernel is no error."""
    made = Reading().take(first=True, state=letter)
    assert made["state"] == state
    raw = made.get("state_raw", letter.decode("ascii", "replace"))
    assert raw.isprintable() and (letter not in STATES or raw == letter.decode())
    assert ("state_raw" in made) is (letter not in USUAL_STATES)


def test_new_name_and_new_user() -> None:
    """An exec and a setuid are seen; the name of the user before does not appear beside the new id."""
    reading = Reading()
    reading.take(first=True)
    assert not reading.renamed
    reading.process.static["user"] = "somebody"
    assert reading.take()["user"] == "somebody" and not reading.renamed
    made = reading.take(comm=b"new) S")
    assert reading.renamed and made["command"] == "new) S"
    made = reading.take(comm=b"new) S", status=status_text(0))
    assert reading.renamed and made["uid"] == 0 and "user" not in made


@pytest.mark.parametrize("status", [b"\nUid:\t1\n", b"\nvoluntary_ctxt_switches:\t5\n", b"\nVmHWM:\t\n"])
def test_nonsense_leaves_the_process_as_it_was(status: bytes) -> None:
    """Files that make no sense are a ValueError, and the next good reading is whole again."""
    reading = Reading()
    before = reading.take(first=True)
    with pytest.raises(ValueError, match=r"."):
        reading.take(status=status)
    assert reading.process.row is before
    assert reading.take(sched=(10**8, 0))["uid"] == 1000


def threads(tree: Tree, delays: dict[int, int]) -> None:
    for tid, ns in delays.items():
        tree.write(f"5/task/{tid}/schedstat", b"1 %d 1\n" % ns)


def test_run_delay_of_threads(tmp_path: Path) -> None:
    """The sum over the threads, at most once a second; between two measurements the last one stands."""
    tree = Tree(tmp_path / "proc")
    reading = Reading(threads=2)

    def delay(seconds: float) -> tuple[Any, Any]:
        made = reading.take(seconds, threads=2, sched=None)
        reading.process.add_thread_sums(tree.path, reading.now)
        return made.get("run_delay_seconds_total"), made.get("run_delay_ms_per_s")

    threads(tree, {5: 1_000_000_000, 6: 500_000_000})
    assert delay(10) == (1.5, None)
    threads(tree, {5: 1_200_000_000, 6: 600_000_000})
    assert delay(0.5) == (1.5, None)
    assert delay(0.5) == (1.8, 300.0)
    threads(tree, {5: 9_000_000_000})
    assert delay(0.3) == (1.8, 300.0)
    (tree.path / "5/task/6/schedstat").unlink()
    (tree.path / "5/task/6").rmdir()
    threads(tree, {5: 1_300_000_000, 7: 100_000_000})
    assert delay(0.7) == (2.0, 200.0)


def test_run_delay_of_threads_that_vanish(tmp_path: Path) -> None:
    """A thread that ends while it is read, or all of them: the measurement is left out, nothing is raised."""
    tree = Tree(tmp_path / "proc")
    reading = Reading(threads=2)
    made = reading.take(first=True, threads=2, sched=None)
    reading.process.add_thread_sums(tree.path, SECOND)
    threads(tree, {5: 5})
    (tree.path / "5/task/6").mkdir()
    reading.process.add_thread_sums(tree.path, SECOND)
    assert "run_delay_seconds_total" not in made


def test_descriptors(tmp_path: Path) -> None:
    """Opened together, given back together; what is missing is -1 and reported; without stat nothing stays open."""
    tree = Tree(tmp_path / "proc")
    tree.process(5)
    process = Reading().process
    tree.write("5/schedstat", b"1 1 1\n")
    fds = process.open(tree.path, schedstat=True)
    assert len(set(fds)) == 4 and min(fds) > 2 and not process.io_denied
    process.close()
    assert process.open(tree.path, schedstat=False)[3] == -1
    process.close()
    assert process.fds is None
    (tree.path / "5/io").unlink()
    (tree.path / "5/schedstat").unlink()
    assert process.open(tree.path, schedstat=True)[2:] == (-1, -1) and process.io_denied
    process.close()
    (tree.path / "5/stat").unlink()
    with pytest.raises(FileNotFoundError):
        process.open(tree.path, schedstat=False)
    assert process.fds is None


# -- to the digit ----------------------------------------------------------------------------------------------------

BEFORE: dict[str, Any] = {"utime": 1000, "stime": 500, "minflt": 70, "majflt": 30, "sched": (10**10, 2 * 10**9),
                          "status": status_text(1000, 4, 60, 40), "io": io_text(5000, 3000)}
"""A reading whose counters are all different and none of them 0."""


def test_every_total_to_the_digit() -> None:
    made = Reading(tty=34817).take(
        first=True, utime=123, stime=45, cutime=6, cstime=7, minflt=800, majflt=90, threads=1, nice=-3, priority=17,
        ppid=11, session=12, rss=13, tty=34817, state=b"D", sched=(1, 1_234_567_890), status=status_text(501, 3, 21, 22),
        io=io_text(31, 32))
    assert made == {
        "pid": 5, "start_ticks": 1000, "start_time": BOOT + round(1000 / HZ, 2), "command": "x", "tty": "pts/1",
        "uid": 501, "ppid": 11, "session": 12, "state": "uninterruptible", "priority": 17, "nice": -3,
        "threads": 1, "cpu_seconds_total": 168 / HZ, "cpu_user_seconds_total": 123 / HZ,
        "cpu_system_seconds_total": 45 / HZ, "children_cpu_seconds_total": 13 / HZ, "memory_bytes": 13 * PAGE,
        "memory_peak_bytes": 3072, "pageins_total": 90, "faults_total": 890, "disk_read_bytes_total": 31,
        "disk_write_bytes_total": 32, "context_switches_total": 43, "wakeups_total": 21,
        "run_delay_seconds_total": 1.234568}


def test_every_rate_to_the_digit() -> None:
    """What grew in three seconds, a third of it: two digits of percents and delays, one of counts."""
    reading = Reading()
    reading.take(first=True, **BEFORE)
    made = reading.take(3.0, utime=1000, stime=500, minflt=121, majflt=130, sched=(10**10 + 1_234_567_890, 2 * 10**9 + 10**8),
                        status=status_text(1000, 4, 100, 70), io=io_text(6000, 4000))
    assert {name: made[name] for name in RATES} == {
        "cpu_percent": 41.15, "pageins_per_s": 33.3, "faults_per_s": 50.3, "disk_bytes_per_s": 666.7,
        "context_switches_per_s": 23.3, "wakeups_per_s": 13.3, "run_delay_ms_per_s": 33.33}
    assert reading.cores == pytest.approx(1.23456789 / 3) and reading.renamed is False
    again = reading.take(1.0, utime=1000, stime=500, minflt=122, majflt=132, sched=(10**10 + 1_734_567_890, 2 * 10**9 + 10**8),
                         status=status_text(1000, 4, 101, 75), io=io_text(6001, 4010))
    assert {name: again[name] for name in RATES} == {
        "cpu_percent": 50.0, "pageins_per_s": 2.0, "faults_per_s": 3.0, "disk_bytes_per_s": 11.0,
        "context_switches_per_s": 6.0, "wakeups_per_s": 1.0, "run_delay_ms_per_s": 0.0}


def test_nothing_grew() -> None:
    """A measured 0 is a rate of 0, with any of the three sources of CPU time."""
    for source in ({}, {"clock": 77}, {"sched": None}):
        reading = Reading()
        reading.take(first=True, **{**BEFORE, **source})
        made = reading.take(**{**BEFORE, **source})
        wanted = [name for name in RATES if source.get("sched", 1) or name != "run_delay_ms_per_s"]
        assert {name: made.get(name) for name in wanted} == dict.fromkeys(wanted, 0.0), source
        assert reading.cores == 0.0


def test_cpu_time_of_stat_to_the_digit() -> None:
    """User and system time together, where neither a clock nor schedstat has it."""
    reading = Reading()
    reading.take(first=True, sched=None, utime=HZ, stime=HZ)
    made = reading.take(4.0, sched=None, utime=2 * HZ, stime=3 * HZ)
    assert made["cpu_percent"] == 75.0 and reading.cores == 0.75
    assert reading.take(1.0, sched=None, utime=2 * HZ, stime=3 * HZ)["cpu_percent"] == 0.0


@pytest.mark.parametrize(("name", "fell"), [
    ("cpu_percent", {"sched": (10**10 - 1, 2 * 10**9), "utime": 999}),
    ("pageins_per_s", {"majflt": 29}), ("faults_per_s", {"majflt": 29}), ("disk_bytes_per_s", {"io": io_text(5000, 2999)}),
    ("disk_bytes_per_s", {"io": io_text(4999, 3000)}), ("context_switches_per_s", {"status": status_text(1000, 4, 59, 99)}),
    ("wakeups_per_s", {"status": status_text(1000, 4, 59, 99)}), ("run_delay_ms_per_s", {"sched": (10**10, 2 * 10**9 - 1)})])
def test_a_counter_that_fell_has_no_rate(name: str, fell: dict[str, Any]) -> None:
    """Not even a rate of 0; every other counter has its own. CPU use that cannot be computed is left out."""
    reading = Reading()
    reading.take(first=True, **BEFORE)
    made = reading.take(**{**BEFORE, **fell})
    assert made.get(name) == (0.0 if name == "cpu_percent" else None)
    others = set(RATES) - {name, *({"pageins_per_s", "faults_per_s"} if "majflt" in fell else ()),
                           *({"context_switches_per_s", "wakeups_per_s"} if "status" in fell else ())}
    assert all(made[other] == 0.0 for other in others)


def test_schedstat_that_fell_leaves_the_word_to_stat() -> None:
    reading = Reading()
    reading.take(first=True, **BEFORE)
    made = reading.take(**{**BEFORE, "sched": (5, 2 * 10**9), "utime": 1000 + HZ // 4})
    assert made["cpu_percent"] == 25.0


def test_a_first_value_makes_no_rate() -> None:
    """Counters that were not readable a tick ago have a total and no rate yet; then both."""
    reading = Reading()
    reading.take(first=True, **{**BEFORE, "status": b"", "io": b"", "sched": None})
    made = reading.take(**BEFORE)
    unknown = {"disk_bytes_per_s", "context_switches_per_s", "wakeups_per_s", "run_delay_ms_per_s"}
    assert {name for name in RATES if name not in made} == unknown
    assert {"disk_read_bytes_total", "wakeups_total", "run_delay_seconds_total"} <= made.keys()
    made = reading.take(**{**BEFORE, "status": b"", "io": b"", "sched": None})
    assert not (unknown | {"disk_read_bytes_total", "wakeups_total", "run_delay_seconds_total"}) & made.keys()
    assert not unknown & reading.take(**BEFORE).keys(), "what was unknown for a tick begins anew"
    assert unknown <= reading.take(**BEFORE).keys()


def test_all_that_a_newcomer_used_it_used_since_it_began() -> None:
    """Half a second old, of one that the interval lasts: totals over its age, from nothing."""
    start = round((OLD - 0.5) * HZ)
    made = Reading(start=start).take(1.0, start=start, utime=10, stime=5, minflt=3, majflt=1, sched=(2 * 10**8, 10**7),
                                     status=status_text(1000, 4, 6, 4), io=io_text(50, 30))
    assert {name: made[name] for name in RATES} == {
        "cpu_percent": 40.0, "pageins_per_s": 2.0, "faults_per_s": 8.0, "disk_bytes_per_s": 160.0,
        "context_switches_per_s": 20.0, "wakeups_per_s": 12.0, "run_delay_ms_per_s": 20.0}
    for clock, sched, cpu in ((10**8, (2 * 10**8, 0), 20.0), (None, None, 30.0 * 100 / HZ)):
        made = Reading(start=start).take(1.0, start=start, utime=10, stime=5, sched=sched, clock=clock)
        assert made["cpu_percent"] == pytest.approx(cpu)


@pytest.mark.parametrize(("ticks_beyond", "known"), [(0.0, True), (0.9, True), (1.1, False), (2.0, False)])
def test_a_newcomer_may_look_a_clock_tick_too_old(ticks_beyond: float, known: bool) -> None:
    """Start times are whole clock ticks: up to one more than the interval, the process began in it."""
    start = round((OLD - 1.0) * HZ)
    made = Reading(start=start).take(1.0, start=start, sched=(10**8, 0), uptime=OLD + ticks_beyond / HZ)
    assert ("cpu_percent" in made) is known


def test_our_own_row_is_of_all_the_time_since_its_last_reading() -> None:
    """This process runs at every beat and is not read at each, so that what it used between belongs to the rate."""
    for own, percent, waited in ((True, 25.0, 100.0), (False, 100.0, 400.0)):
        reading = Reading()
        stat = parse_stat(stat_line(5, start=1000))
        reading.process = Process((5, 1000), stat, BOOT, own) if own else Process((5, 1000), stat, BOOT)
        reading.take(first=True, clock=SECOND, io=io_text(0, 0))
        for _ in range(3):
            reading.tick()
        made = reading.take(1.0, clock=2 * SECOND, sched=(0, 4 * 10**8), io=io_text(0, 4000), spent=0.0)
        assert (made["cpu_percent"], made["run_delay_ms_per_s"]) == (percent, waited)
        assert made["disk_bytes_per_s"] == (1000.0 if own else 4000.0)


@pytest.mark.parametrize(("how", "disk"), [
    ({"clock": 5}, 4000.0), ({"sched": (5, 5)}, 4000.0), ({"sched": None}, 1000.0), ({"sched": (5, 5), "threads": 2}, 1000.0),
    ({"clock": 5, "threads": 2, "sched": None}, 4000.0)])
def test_how_long_counters_had_to_grow(how: dict[str, Any], disk: float) -> None:
    """With a gate that sees every run of every thread nothing grew before the tick before; stat's clock ticks do not
    see a short one, so what it wrote may be as old as the last reading."""
    reading = Reading(**{name: how[name] for name in how if name == "threads"})
    reading.take(first=True, **how)
    for _ in range(3):
        reading.tick()
    assert reading.take(**{**how, "io": io_text(0, 4000)})["disk_bytes_per_s"] == disk


def test_a_reading_late_in_its_tick() -> None:
    """The gate was asked at the beginning; what is read with everything else is read later, and grew for longer."""
    reading = Reading()
    reading.take(first=True, clock=0)
    made = reading.take(1.0, clock=SECOND // 2, io=io_text(0, 1250), sched=(0, 10**8), spent=0.25)
    assert (made["cpu_percent"], made["disk_bytes_per_s"], made["run_delay_ms_per_s"]) == (50.0, 1000.0, 80.0)
    made = reading.take(1.0, clock=SECOND, io=io_text(0, 2000), sched=(0, 175 * 10**6), spent=0.0)
    assert (made["cpu_percent"], made["disk_bytes_per_s"], made["run_delay_ms_per_s"]) == (50.0, 1000.0, 100.0)
    old = Reading()
    old.take(first=True, sched=(0, 0))
    made = old.take(1.0, sched=(SECOND // 2, 10**8), spent=0.25)  # schedstat is the gate, so both are of the poll
    assert (made["cpu_percent"], made["run_delay_ms_per_s"]) == (50.0, 100.0)


@pytest.mark.parametrize(("total", "rate"), [
    ("cpu_seconds_total", "cpu_percent"), ("pageins_total", "pageins_per_s"), ("faults_total", "faults_per_s"),
    ("disk_read_bytes_total", "disk_bytes_per_s"), ("context_switches_total", "context_switches_per_s"),
    ("wakeups_total", "wakeups_per_s"), ("run_delay_seconds_total", "run_delay_ms_per_s")])
def test_a_rest_is_a_rate_of_0_where_the_total_is_known(total: str, rate: str) -> None:
    process = Reading().process
    process.row = {"state": "sleeping", total: 5}
    process.rest()
    assert process.row == {"state": "sleeping", total: 5, rate: 0.0}
    process.row = {"state": "sleeping", rate: 7.0}
    process.rest()
    assert process.row == {"state": "sleeping", rate: 0.0}


def test_what_a_new_process_is() -> None:
    """Only its stat is known; a kernel thread is recognised by its flag."""
    for flags, thread in ((0, False), (0x00200000, True), (0x00400040, False), (0x00208040, True)):
        stat = parse_stat(stat_line(5, b"new", flags=flags, threads=3, start=777))
        process = Process((5, 777), stat, BOOT)
        assert (process.kernel_thread, process.threads, process.comm, process.key) == (thread, 3, b"new", (5, 777))
        assert process.started_s == 777 / HZ and process.static["start_time"] == round(BOOT + 777 / HZ, 2)
        assert (process.gate, process.fds, process.thread_sums, process.row) == (None, None, None, {})
        assert not (process.own or process.denied or process.io_denied)


def test_only_another_user_is_news() -> None:
    """Real and saved ids may change, and ids may be unreadable for a tick: the user is who it is in effect."""
    reading = Reading()

    def status(*ids: int) -> bytes:
        return status_text().replace(b"1000\t1000\t1000\t1000", b"\t".join(b"%d" % i for i in ids))

    reading.take(first=True, status=status(1, 2, 3, 4))
    reading.process.static["user"] = "two"
    for ids, uid, renamed in (((9, 2, 9, 9), 2, False), ((9, 5, 9, 9), 5, True), ((9, 5, 9, 9), 5, False)):
        made = reading.take(status=status(*ids))
        assert (made["uid"], reading.renamed, "user" in made) == (uid, renamed, uid == 2)
    assert reading.take(status=b"")["uid"] == 5 and not reading.renamed
    assert reading.take(comm=b"y", status=status(9, 5, 9, 9))["command"] == "y" and reading.renamed
    assert reading.take(comm=b"y", status=status(9, 5, 9, 9))["command"] == "y" and not reading.renamed


def test_descriptors_are_opened_below_their_directory_and_all_given_back(tmp_path: Path) -> None:
    """After any error on the way; none is left open, and none leaks into a child."""
    tree = Tree(tmp_path / "proc")
    tree.process(5)
    process = Reading().process
    before = set(os.listdir("/proc/self/fd"))
    fds = process.open(tree.path, False)
    assert process.fds == fds and fds[3] == -1 and not any(os.get_inheritable(fd) for fd in fds[:3])
    assert [os.pread(fd, 4096, 0) for fd in fds[:3]] == [
        (tree.path / "5" / name).read_bytes() for name in ("stat", "status", "io")]
    assert {str(fd) for fd in fds[:3]} == set(os.listdir("/proc/self/fd")) - before
    process.close()
    process.close()
    assert set(os.listdir("/proc/self/fd")) == before and process.fds is None
    (tree.path / "5/status").unlink()
    assert process.open(tree.path, False)[1] == -1 and process.io_denied
    process.close()
    tree.write("5/schedstat", b"1 2 3\n")
    tree.process(5)
    assert min(process.open(tree.path, True)) >= 0 and not process.io_denied
    process.close()
    (tree.path / "5/schedstat").unlink()
    assert process.open(tree.path, True)[3] == -1 and not process.io_denied, "it is told without schedstat"
    process.close()
    (tree.path / "5/io").unlink()
    (tree.path / "5/io").symlink_to("io")   # ELOOP: no reason that is known
    with pytest.raises(OSError, match=r"."):
        process.open(tree.path, False)
    assert process.fds is None and set(os.listdir("/proc/self/fd")) == before


def test_a_newcomer_late_in_the_life_of_the_machine() -> None:
    """The interval is what lies between two ticks, independent of what the clock counted before."""
    for age, known in ((0.5, True), (1.5, False), (100.0, False)):
        start = round((OLD - age) * HZ)
        reading = Reading(start=start)
        for _ in range(500):
            reading.tick()
        assert ("cpu_percent" in reading.take(1.0, start=start, sched=(10**8, 0))) is known


def test_schedstat_is_believed_before_stat() -> None:
    """It counts nanoseconds: where it says that a process did not run, a clock tick of stat is one of before."""
    reading = Reading()
    reading.take(first=True, sched=(10**9, 0), utime=100)
    assert reading.take(sched=(10**9, 0), utime=101)["cpu_percent"] == 0.0


def test_two_readings_at_one_time_have_no_rates() -> None:
    """Nothing can be divided by no time; what was read is the baseline of the next."""
    reading = Reading()
    reading.take(first=True, **BEFORE)
    made = reading.take(0.0, **{**BEFORE, "sched": (10**10 + 10**8, 3 * 10**9), "threads": 1})
    assert not set(RATES) & made.keys()
    made = reading.take(1.0, **{**BEFORE, "sched": (10**10 + 2 * 10**8, 3 * 10**9 + 10**8)})
    assert (made["cpu_percent"], made["run_delay_ms_per_s"]) == (10.0, 100.0)


def test_the_number_of_threads_is_that_of_the_last_reading() -> None:
    reading = Reading()
    for threads in (1, 5, 2):
        assert reading.take(threads=threads)["threads"] == threads == reading.process.threads


def test_switches_of_all_threads(tmp_path: Path) -> None:
    """Wakeups happen in any thread: the sum over all, each thread from its start."""
    tree = Tree(tmp_path / "proc")
    reading = Reading(threads=2)

    def wakeups(seconds: float, counts: dict[int, int]) -> tuple[Any, ...]:
        for tid, count in counts.items():
            tree.write(f"5/task/{tid}/status", status_text(voluntary=count, involuntary=count))
        made = reading.take(seconds, threads=2, sched=None)
        reading.process.add_thread_sums(tree.path, reading.now)
        return made.get("wakeups_total"), made.get("wakeups_per_s"), made.get("context_switches_per_s")

    assert wakeups(1, {5: 10, 6: 1000}) == (1010, None, None)
    assert wakeups(1, {5: 10, 6: 7400}) == (7410, 6400.0, 12800.0)
    assert "run_delay_seconds_total" not in reading.process.row


def test_another_program_is_another_process_to_a_person() -> None:
    """After exec the program is at another place in memory, even with the same name."""
    def line(start: int, arguments: int) -> bytes:
        fields = stat_line(5).split()
        fields[25], fields[47] = b"%d" % start, b"%d" % arguments
        return b" ".join(fields)

    process = Process((5, 1000), parse_stat(line(1, 2)), BOOT)
    changed = [process.update(Files(parse_stat(data), b"", b"", b"", None, 1, 1, 0, 0.0, 9e9))[1]
               for data in (line(1, 2), line(1, 2), line(7, 2), line(7, 8), stat_line(5), line(7, 8))]
    assert changed == [False, False, True, True, False, False]


def test_a_program_whose_place_in_memory_is_known_late_is_described_again() -> None:
    """The first reading may fall into an exec, in which the kernel shows no arguments."""
    process = Process((5, 1000), parse_stat(stat_line(5)), BOOT)
    assert process.image is None
    words = stat_line(5).split()
    for place, changed in ((b"0", False), (b"8192", True), (b"8192", False), (b"0", False), (b"4096", True)):
        words[47] = place
        stat = parse_stat(b" ".join(words))
        found = process.update(Files(stat, status_text(), io_text(), b"0 0 9\n", None, SECOND, SECOND, 0, 1.0, OLD))
        assert found[1] is changed
