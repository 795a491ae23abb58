"""Patterns with an end to their patience."""

from __future__ import annotations

import re
import signal
import threading
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.rules.patterns import (
    BUDGET_S,
    CACHED_PROGRAMS,
    PATTERN_LIMIT,
    PatternError,
    Patterns,
    PatternSet,
    Probe,
    Program,
    _trim,
    compile_pattern,
)


def patterns_of(*texts: str, where: str = "names") -> PatternSet:
    return PatternSet(tuple(Probe(where, compile_pattern(text), text) for text in texts))


EVIL = [(r"^(a+)+$", "a" * 60 + "b"), (r"(a|aa)+$", "a" * 60 + "b"), (r"(.*)*x", "a" * 60),
        (r"(?:a?){40}a{40}$", "a" * 39 + "b"), (r"([a-z]+)*\d", "a" * 4096), (r"(?:x?x?)+y", "x" * 100)]


@pytest.mark.parametrize(("text", "subject"), EVIL, ids=[e[0] for e in EVIL])
def test_backtracking_ends_within_the_budget_and_is_no_match(text: str, subject: str) -> None:
    patterns = Patterns()
    before = time.thread_time()
    assert patterns.hits("r", patterns_of(text), Program((subject,), subject)) is None
    # Not a speed test: without an end this takes years. A tick of the kernel and a slow machine are allowed for.
    assert time.thread_time() - before < 20 * BUDGET_S
    assert patterns.disabled["r"] == "its patterns took more than 50 ms of CPU time in one tick"
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_a_disabled_rule_answers_only_what_it_knew() -> None:
    patterns = Patterns()
    slow = patterns_of("^(a+)+$")
    assert patterns.hits("r", slow, Program(("aaa",), "")) is True
    assert patterns.hits("r", slow, Program(("a" * 60 + "b",), "")) is None
    assert patterns.hits("r", slow, Program(("aaa",), "")) is True
    assert patterns.hits("r", slow, Program(("aa",), "")) is None
    assert patterns.hits("another", slow, Program(("aa",), "")) is True


def test_the_budget_is_of_all_patterns_of_a_rule_in_one_tick() -> None:
    """With a clock turned by hand: each evaluation takes 20 ms."""
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    patterns = Patterns(budget_s=0.05, cpu_clock=clock)
    some = patterns_of("x")
    for i in range(5):
        assert patterns.hits("r", some, Program((f"n{i}",), "")) is False
    assert patterns.hits("r", some, Program(("n5",), "")) is None
    fresh = Patterns(budget_s=0.05, cpu_clock=clock)
    for i in range(20):
        fresh.new_tick()
        assert fresh.hits("r", some, Program((f"n{i}",), "")) is False


def test_a_budget_that_is_spent_to_the_last_is_spent() -> None:
    """A timer of no time at all would never ring."""
    ticks = iter(range(1000))
    patterns = Patterns(budget_s=2.0, cpu_clock=lambda: float(next(ticks)))
    assert [patterns.hits("r", patterns_of("x"), Program((name,), "")) for name in "xyx"] == [True, False, None]
    assert patterns.disabled == {"r": "its patterns took more than 2000 ms of CPU time in one tick"}
    patterns.new_tick()
    assert patterns.hits("r", patterns_of("x"), Program(("x",), "")) is None


def test_after_a_search_there_is_quiet() -> None:
    """No timer is left running, and a late signal has no effect."""
    patterns = Patterns()
    assert patterns.hits("r", patterns_of("x"), Program(("x",), "")) is True
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    signal.raise_signal(signal.SIGVTALRM)
    assert patterns.hits("r", patterns_of("y"), Program(("x",), "")) is False


def test_the_handler_is_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = Patterns()
    assert patterns.hits("r", patterns_of("x"), Program(("x",), "")) is True
    monkeypatch.delattr(signal, "signal")
    assert patterns.hits("r", patterns_of("y"), Program(("x",), "")) is False


def test_results_are_kept_for_as_many_programs_as_a_busy_machine_has() -> None:
    """A search reads the clock; what is known does not. Beyond the limit the one that came first goes first."""
    reads = [0]

    def clock() -> float:
        reads[0] += 1
        return 0.0

    patterns, some = Patterns(cpu_clock=clock), patterns_of("7$")
    programs = [Program((f"n{i}",), "") for i in range(CACHED_PROGRAMS + 1)]
    assert CACHED_PROGRAMS == 4096

    def searched(program: Program) -> bool:
        before = reads[0]
        assert patterns.hits("r", some, program) is program.names[0].endswith("7")
        return reads[0] > before

    assert all(searched(p) for p in programs[:-1])
    assert not any(searched(p) for p in programs[:-1])
    assert searched(programs[-1]) and not searched(programs[1]) and not searched(programs[-1])
    assert searched(programs[0]) and searched(programs[1]) and not searched(programs[3])


def test_each_set_of_patterns_has_its_own_answer() -> None:
    patterns, program = Patterns(), Program(("x",), "")
    assert patterns.hits("r", patterns_of("x"), program) is True
    assert patterns.hits("r", patterns_of("y"), program) is False
    assert patterns_of("x") != patterns_of("x")


def test_off_the_main_thread_only_what_is_known_is_answered() -> None:
    patterns, some, answers = Patterns(), patterns_of("^a"), []
    assert patterns.hits("r", some, Program(("a",), "")) is True
    thread = threading.Thread(target=lambda: answers.extend(
        patterns.hits("r", some, Program((name,), "")) for name in ("a", "ab")))
    thread.start()
    thread.join()
    assert answers == [True, None]


def test_where_a_pattern_looks() -> None:
    program = Program(("bash", "/bin/bash", "run.sh"), "bash run.sh --fast")
    patterns = Patterns()
    for where, text, expected in (("names", r"^run\.sh$", True), ("names", "fast", False), ("line", "fast", True),
                                  ("head", "bash run", True), ("head", "run", False)):
        assert patterns.hits("r", patterns_of(text, where=where), program) is expected


def test_the_pattern_that_hit_is_the_first_as_it_was_written() -> None:
    some = patterns_of(".*b.*", "a", "b")
    assert some.first(Program(("xb",), "")) == ".*b.*" and some.first(Program(("a",), "")) == "a"
    assert some.first(Program(("x",), "b")) is None


def test_a_pattern_may_be_so_long_and_be_odd_without_a_word() -> None:
    """Python warns of `[[` on standard error, which is for people and about their processes."""
    assert PATTERN_LIMIT == 512 and compile_pattern("x" * 512).pattern == "x" * 512
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compile_pattern("[[a]").search("[") is not None


@pytest.mark.parametrize(("text", "words"), [
    (7, "a pattern must be a text"), (" ", "an empty pattern hits everything"),
    ("x" * 513, "a pattern of 513 characters; at most 512"),
    ("(", "bad pattern '(': missing ), unterminated subpattern at position 0"),
    ("x{99999999999}", "bad pattern 'x{99999999999}': the repetition number is too large"),
])
def test_why_it_is_no_pattern(text: object, words: str) -> None:
    with pytest.raises(PatternError) as error:
        compile_pattern(text)
    assert str(error.value) == words


@pytest.mark.parametrize("text", ["", "   ", "(", "[a", "x" * 513, "(?P<a>x)(?P<a>y)", "a{99999999999}", 7, None])
def test_what_is_no_pattern(text: object) -> None:
    with pytest.raises(PatternError):
        compile_pattern(text)


@pytest.mark.parametrize(("text", "trimmed"), [
    (".*_test.*", "_test"), (r"x\.*", r"x\.*"), (r"x\\.*", r"x\\"), (".*?x", ".*?x"), (".*+x", ".*+x"), (".*", ".*"),
    (".*.*x", "x"), ("a|.*", "a|"), (".*a|b", "a|b"), ("^.*x", "^.*x"), (".*{2}", ".*{2}"),
])
def test_a_free_end_is_cut_off(text: str, trimmed: str) -> None:
    assert _trim(text) == trimmed


@given(st.text(alphabet=".*ab\\|()?", min_size=1, max_size=8), st.text(alphabet="ab.|*", max_size=8))
def test_cutting_changes_no_answer(text: str, subject: str) -> None:
    try:
        whole = re.compile(text)
    except re.error:
        return
    assert (re.compile(_trim(text)).search(subject) is None) == (whole.search(subject) is None)


def test_a_dot_is_a_line_feed_too() -> None:
    """What protects a process may follow several lines of code."""
    line = "python3 -c import time\nwhile True: time.sleep(1) --keep"
    program = Program(("python3",), line)
    assert patterns_of("python3 .*--keep", where="line").found(program) is True
    assert patterns_of("^python3 .*--keep", where="head").found(program) is True
    assert patterns_of("^a.b$").found(Program(("a\nb",), "")) is True
