"""What could not be read is unknown: it never makes a rule match, and never removes a protection."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.rules.backtest import backtest
from rogue_hunter.rules.conditions import Subject
from rogue_hunter.rules.load import from_values, parse
from rogue_hunter.rules.logic import decide, lasted, unknown
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.rules.patterns import CUT, NO_ARGUMENTS, NO_NAME, NO_PROGRAM, Patterns, program_of, whitelisted
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.processes import dies_with_us
from tests.tools.rules import EPOCH, Machine, rules

WHOLE: Row = {
    "pid": 1000, "start_ticks": 7, "start_time": EPOCH - 500.0, "ppid": 1, "uid": 1000, "user": "me",
    "command": "java", "exe": "/usr/bin/java", "cmdline": "java -jar app.jar --port 80", "cgroup": "/user.slice/x.scope",
    "state": "running", "threads": 4, "cpu_seconds_total": 480.0, "cpu_percent": 96.0, "memory_bytes": 10**9,
    "disk_bytes_per_s": 1e7, "gpu_ms_per_s": 500.0, "wakeups_per_s": 2000.0, "score": 80, "band": "high",
}
"""A process of which everything is known."""


def answer(conditions: dict[str, Any], row: Row, *, age_s: float | None = 500.0, orphan: bool | None = True,
           whitelist: tuple[str, ...] = ()) -> bool | None:
    (rule,) = from_values({"rules": [{"name": "r", "conditions": conditions}]}, base=RuleSet(())).rules
    subject = Subject(row, age_s, Patterns(), lasted(1e9), orphan=orphan)
    subject.rule = "r"
    value = decide(rule.condition, subject, whitelist)[0]
    assert (unknown(rule.condition, subject) != "") is (value is None) or value is not None
    return value


def without(*names: str) -> Row:
    return {name: value for name, value in WHOLE.items() if name not in names}


CONDITIONS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"cpu_percent_min": 90}, "cpu_percent"), ({"cpu_percent_max": 99}, "cpu_percent"),
    ({"memory_mb_min": 900}, "memory_bytes"), ({"disk_mb_per_s_min": 5}, "disk_bytes_per_s"),
    ({"gpu_percent_min": 40}, "gpu_ms_per_s"), ({"wakeups_per_s_min": 1000}, "wakeups_per_s"),
    ({"score_min": 60}, "score"), ({"band_min": "high"}, "band"), ({"state": "running"}, "state"),
    ({"user": "me"}, "user"), ({"user": "1000"}, "uid"), ({"command_patterns": ["app"]}, "exe"),
    ({"command_patterns": ["app"]}, "cmdline"), ({"cmdline_patterns": ["port"]}, "cmdline"),
)


@pytest.mark.parametrize(("conditions", "field"), CONDITIONS, ids=str)
def test_a_condition_on_an_unknown_field_is_unknown_also_under_not(conditions: dict[str, Any], field: str) -> None:
    assert answer(conditions, WHOLE) is True and answer(conditions, without(field)) is None
    opposite = {"not": conditions, "age_seconds": 1}
    assert answer(opposite, WHOLE) is False and answer(opposite, without(field)) is None


def test_age_and_parent_may_be_unknown_too() -> None:
    assert answer({"age_seconds": 100}, WHOLE, age_s=None) is None
    assert answer({"orphan": True}, WHOLE, orphan=None) is answer({"orphan": False}, WHOLE, orphan=None) is None


FIELDS = ("command", "exe", "cmdline")


@pytest.mark.parametrize("missing", [m for n in (1, 2, 3) for m in itertools.combinations(FIELDS, n)], ids="-".join)
def test_an_exclusion_needs_every_name(missing: tuple[str, ...]) -> None:
    """Every combination of unread names; the exclusion is one that does not apply, so with all names there is a match."""
    busy = {"cpu_percent_min": 90, "exclude_patterns": ["--port 8080"]}
    assert answer(busy, WHOLE) is True and answer(busy, without(*missing)) is None
    assert answer({"cpu_percent_min": 90}, without(*missing), whitelist=("vim",)) is None


def test_a_name_that_was_read_protects_with_all_else_unknown() -> None:
    java = {"cpu_percent_min": 90, "exclude_patterns": ["^java$"]}
    assert answer(java, without("exe", "cmdline")) is False
    assert answer({"cpu_percent_min": 90}, without("exe", "cmdline"), whitelist=("java",)) is False


def test_a_process_that_was_not_described_is_not_judged() -> None:
    """Also where no name matters: without a whitelist, by a rule without patterns."""
    assert answer({"cpu_percent_min": 90}, WHOLE) is True
    assert answer({"cpu_percent_min": 90}, without("cmdline")) is None
    assert answer({"cpu_percent_min": 90}, {**WHOLE, "cmdline": ""}) is True


@pytest.mark.parametrize(("row", "names", "line", "why"), [
    ({}, (), None, NO_ARGUMENTS),
    ({"exe": "/b/x", "cmdline": "x -v"}, ("x", "/b/x"), "x -v", NO_NAME),
    ({"command": "x", "cmdline": "y -v"}, ("x", "y"), "y -v", NO_PROGRAM),
    ({"command": "x", "cmdline": "/opt/My App/y -v"}, ("x",), None, NO_PROGRAM),
    ({"command": "sh", "cmdline": "sh run.sh"}, ("sh",), "sh run.sh", NO_PROGRAM),
    ({"command": "x", "exe": "/b/x"}, ("x", "/b/x"), None, NO_ARGUMENTS),
    ({"command": "x", "exe": "/b/x", "cmdline": ""}, ("x", "/b/x"), "", ""),
    ({"command": "x", "exe": "", "cmdline": ""}, ("x",), "", ""),
    ({"command": "x", "cmdline": "", "state": "defunct", "threads": 1}, ("x",), "", ""),
    ({"command": "x", "cmdline": "", "state": "defunct", "threads": 2}, ("x",), "", NO_PROGRAM),
    ({"command": "x", "cmdline": "", "state": "defunct"}, ("x",), "", NO_PROGRAM),
])
def test_only_what_is_certain_is_a_name(row: Row, names: tuple[str, ...], line: str | None, why: str) -> None:
    program = program_of(row)
    assert (program.names, program.line, program.names_unread) == (names, line, why)
    assert whitelisted(program, ("other",)) is (None if why else False) and whitelisted(program, ()) is False


def test_a_command_line_that_was_cut_may_hold_anything_behind_the_cut() -> None:
    """4 KiB are read: an exclusion that looks for an argument further on is not proven false."""
    long = {**WHOLE, "cmdline": "java " + "-cp " + "x" * 4200}
    assert answer({"cpu_percent_min": 90, "exclude_patterns": ["--port 8080"]}, long) is None
    assert program_of(long).names_unread == CUT                       # its main class is behind the cut
    server = {**long, "command": "server", "exe": "/bin/server", "cmdline": "server " + "x" * 4200}
    assert program_of(server).names_unread == "" and program_of(server).line_unread == CUT
    assert answer({"cpu_percent_min": 90}, server, whitelist=("vim",)) is True
    assert answer({"cpu_percent_min": 90, "cmdline_patterns": ["x$"]}, server) is None


@pytest.mark.parametrize(("missing", "age_s", "why"), [
    ({"cmdline"}, 5.0, "its arguments cannot be read"), ({"exe"}, 5.0, "its program cannot be read"),
    ({"cpu_percent"}, 5.0, "its CPU use is not known"), ({"user"}, 5.0, "its user is not known"),
    ({"state"}, 5.0, "its state is not known"), (set(), None, "its age is not known")])
def test_the_reason_is_given_in_words(missing: set[str], age_s: float | None, why: str) -> None:
    (rule,) = rules("cpu_percent_min = 90", "age_seconds = 1", 'user = "me"', 'state = "running"',
                    'exclude_patterns = ["nothing"]').rules
    subject = Subject(without(*missing), age_s, Patterns(), lasted(1e9), orphan=None)
    subject.rule = "r"
    assert unknown(rule.condition, subject) == why


# -- over time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["kill", "notify", "log"])
def test_a_newcomer_matches_once_it_is_described(action: str) -> None:
    """Hosts read names a tick after the first sight of a process. Its CPU time counts from the beginning."""
    found = rules("cpu_percent_min = 50", "duration_seconds = 1", 'exclude_patterns = ["--port 8080"]',
                  action=f'[rules.action]\ntype = "{action}"')
    for described, expected in (("loop", ["r"]), ("loop --port 8080", [])):
        m = Machine(found, hz=1.0, lifetime=False)
        m.set(1000, cpu_percent=99.0, exe=None, cmdline=None)
        assert m.tick() == [] == m.tick()
        m.set(1000, exe="/bin/loop", cmdline=described)
        assert [each["rule"] for each in m.tick()] == expected


def test_processes_that_may_match_but_for_their_names_are_counted() -> None:
    m = Machine(rules("cpu_percent_min = 50"))
    m.set(1000, cpu_percent=99.0, exe=None)
    m.set(1001, cpu_percent=99.0, cmdline=None)
    m.set(1002, cpu_percent=5.0, cmdline=None)
    m.set(1003, cpu_percent=None)
    m.set(1004, cpu_percent=99.0, exe=None, cmdline=None, memory_bytes=0)  # a kernel thread
    assert m.tick() == [] and m.matcher.undecided == 2
    m.set(1000, exe="/bin/vim")
    m.set(1001, cmdline="x")
    assert len(m.tick()) == 1 and m.matcher.undecided == 0


def test_the_last_row_of_a_process_that_ended_does_not_match() -> None:
    m = Machine(rules("cpu_percent_min = 50"), repeat_s=0.5)
    m.set(1000, cpu_percent=99.0)
    assert {each["pid"] for each in m.run(1)} == {1000}
    m.set(1000, cpu_percent=99.0, ended=True)
    m.set(1001, cpu_percent=99.0, ended=True)
    assert m.run(2) == []


def test_history_without_names_has_no_firings() -> None:
    snapshot = {**WHOLE, "boot_id": "b", "captured_at": EPOCH}
    found = rules("cpu_percent_min = 90")
    assert [f.rule for f in backtest(found, [snapshot])] == ["r"]
    for name in FIELDS:
        assert backtest(found, [{k: v for k, v in snapshot.items() if k != name}]) == []


# -- at random ---------------------------------------------------------------------------------------------------------

COMMANDS = ("java", "worker", "vim", "sh", "python3")
EXES = ("/usr/bin/java", "/opt/My App/worker", "/usr/bin/vim", "/bin/dash", "/usr/bin/python3.12", "")
LINES = ("", "java -jar app.jar --port 8080", "/opt/My App/worker --port 80", "vim x", "sh -c loop", "python3 job.py",
         "x" * 4096)
PATTERNS = ("^java$", "--port 8080", "App", "job", "^sh ", "worker$", "80", "x$")


def some_row(draw: random.Random) -> Row:
    row = {**WHOLE, "command": draw.choice(COMMANDS), "exe": draw.choice(EXES), "cmdline": draw.choice(LINES),
           "user": draw.choice(("me", "you")), "uid": draw.choice((0, 1000)), "cpu_percent": draw.choice((5.0, 95.0)),
           "memory_bytes": draw.choice((10**6, 10**10)), "state": draw.choice(("running", "defunct")),
           "threads": draw.choice((1, 4)), "band": draw.choice(("low", "high"))}
    dead = row["state"] == "defunct" and row["threads"] == 1
    return {**row, "exe": "", "cmdline": ""} if dead else row


def some_conditions(draw: random.Random, depth: int = 2) -> dict[str, Any]:
    kinds = {
        "cpu_percent_min": lambda: draw.choice((1, 50)), "cpu_percent_max": lambda: draw.choice((50, 99)),
        "memory_mb_min": lambda: draw.choice((0, 100)), "band_min": lambda: draw.choice(("low", "high")),
        "state": lambda: draw.choice(("running", "defunct")), "user": lambda: draw.choice(("me", "0", "1000")),
        "orphan": lambda: draw.random() < 0.5, "age_seconds": lambda: draw.choice((1, 1000)),
        "command_patterns": lambda: draw.sample(PATTERNS, 2), "cmdline_patterns": lambda: draw.sample(PATTERNS, 2),
        "exclude_patterns": lambda: draw.sample(PATTERNS, draw.choice((1, 2))),
    }
    if depth:
        kinds["any"] = kinds["all"] = lambda: [some_conditions(draw, depth - 1) for _ in range(draw.choice((1, 2)))]
        kinds["not"] = lambda: some_conditions(draw, depth - 1)
    found = {name: kinds[name]() for name in draw.sample(sorted(kinds), draw.choice((1, 2, 3)))}
    if found.get("cpu_percent_min", 0) > found.get("cpu_percent_max", 100):
        del found["cpu_percent_max"]
    return found


def some_rules(draw: random.Random) -> RuleSet:
    """One to three rules that end a process; conditions that are refused are drawn again."""
    head = "age_seconds"  # a rule must say what it means, not only what it does not
    made = [{"name": f"r{i}", "conditions": {**some_conditions(draw), head: 1}} for i in range(draw.choice((1, 3)))]
    whitelist = draw.choice(((), ("vim",), ("job.py",)))
    return from_values({"rules": made, "safety": {"whitelist_processes": list(whitelist)}}, base=RuleSet(()))


@pytest.mark.slow
def test_random_rules_and_processes(request: pytest.FixtureRequest) -> None:
    """--pairs rules and processes, each with and without some of its fields.

    What is decided with less known is decided alike with more, so no protection can be hidden in what was not read;
    and nothing is matched of which program or arguments are unknown while a pattern or the whitelist asks for them.
    """
    draw = random.Random(20261127)
    left, matches, blocked = int(request.config.getoption("--pairs")), 0, 0
    patterns = Patterns()
    while left > 0:
        found = some_rules(draw)
        for _ in range(200):
            row = some_row(draw)
            hidden = draw.sample(sorted(row), draw.choice((0, 1, 2, 4)))
            less = {name: value for name, value in row.items() if name not in hidden}
            age_s, orphan = draw.choice(((500.0, True), (500.0, False)))
            for rule in found.rules:
                left -= 1
                answers = []
                for known, age, parent in ((row, age_s, orphan), (less, draw.choice((age_s, None)),
                                                                   draw.choice((orphan, None)))):
                    patterns.new_tick()
                    subject = Subject(known, age, patterns, lasted(1e9), orphan=parent)
                    subject.rule = rule.name
                    answers.append(decide(rule.condition, subject, found.safety.whitelist)[0])
                full, partial = answers
                assert partial is None or partial is full, (rule.table, row, hidden)
                asks = "patterns" in json.dumps(rule.table) or bool(found.safety.whitelist)
                assert not (partial is True and "cmdline" in hidden)
                if partial is True:
                    matches += 1
                    # A dead process has no program to be read.
                    unread = {"exe", "cmdline", "command"} & set(hidden) - ({"exe"} if row["exe"] == "" else set())
                    assert not (rule.table.get("exclude_patterns") and unread), (rule.table, less)
                blocked += full is True and partial is None and asks
    assert matches and blocked  # the draw is one that could fail
    assert not patterns.disabled


# -- real processes ----------------------------------------------------------------------------------------------------

LEADER = """
import ctypes, threading, sys, time
def burn():
    end = time.time() + 60
    while time.time() < end:
        pass
threading.Thread(target=burn, daemon=True).start()
time.sleep(0.3)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[__import__("platform").machine()], 0)
"""
"""Its main thread ends while another one runs: /proc/PID/exe and cmdline of such a process cannot be read."""


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    if not sys.platform.startswith("linux"):
        pytest.skip("threads outlive their leader on Linux only")
    process = subprocess.Popen([sys.executable, "-c", LEADER, "--port", "8080"], preexec_fn=dies_with_us)  # noqa: PLW1509
    try:
        deadline = time.monotonic() + 20
        while b"State:\tZ" not in Path(f"/proc/{process.pid}/status").read_bytes():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


EXCLUDED = """
[[rules]]
name = "busy"
conditions = { cpu_percent_min = 10, command_patterns = ["python"], exclude_patterns = ["--port 8080"] }
"""


@pytest.mark.slow
def test_a_process_whose_leader_ended_is_not_matched_past_its_exclusion(
        leader: subprocess.Popen[bytes], tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(EXCLUDED)
    env = {**os.environ, "HOME": str(tmp_path)}
    sample = subprocess.run([sys.executable, "-m", "rogue_hunter", "sample", "-n", "3", "--hz", "2"], env=env,
                            capture_output=True, check=True, timeout=60)
    assert any(f'"pid":{leader.pid},'.encode() in line for line in sample.stdout.splitlines())
    found = subprocess.run([sys.executable, "-m", "rogue_hunter", "match", "-c", str(file), "--no-project"], env=env,
                           input=sample.stdout, capture_output=True, check=True, timeout=60)
    assert leader.pid not in [json.loads(line)["pid"] for line in found.stdout.splitlines()]


def test_a_stream_matched_from_the_first_sight_of_a_process() -> None:
    """As the host gives it: a row without exe and cmdline in the first tick, with both in the second."""
    matcher = Matcher(parse(EXCLUDED.encode()))
    key = (1000, 7)
    first = {name: value for name, value in WHOLE.items() if name not in ("exe", "cmdline")} | {"command": "python3"}
    closing = {"ts": EPOCH, "seq": 0, "mono_ns": 10**12, "boot_id": "b", "os": "linux", "interval_s": 1.0,
               "processes": 1}
    assert matcher.tick(Tick(closing, {key: first}, {key})) == []
    second = {**first, "exe": "/usr/bin/python3", "cmdline": "python3 job.py"}
    then = {**closing, "ts": EPOCH + 1, "mono_ns": 10**12 + 10**9}
    assert [each["rule"] for each in matcher.tick(Tick(then, {key: second}, {key}))] == ["busy"]
