"""Why a rule matched, in words."""

from __future__ import annotations

from typing import Any

import pytest

from rogue_hunter.rules.logic import evidence, reason


def term(condition: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"condition": condition, "limit": "^tail", "value": value, "evidence": "reading", **more}


def lasting(proof: str, held_s: float) -> dict[str, Any]:
    return term("cpu_percent_min", 99.9, evidence=proof, window_s=300.0, held_s=held_s)


def test_the_weakest_proof_is_reported() -> None:
    reading, window, lifetime = term("score_min", 60), lasting("window", 300.0), lasting("lifetime", 900.0)
    assert evidence([]) == evidence([reading]) == "reading"
    assert evidence([reading, window]) == "window" and evidence([window, lifetime, reading]) == "lifetime"


@pytest.mark.parametrize(("condition", "value", "words"), [
    ("cpu_percent_min", 99.9, "cpu 99.9 %"), ("cpu_percent_max", 0.0, "cpu only 0 %"),
    ("memory_mb_min", 2048.5, "memory 2048.5 MB"), ("disk_mb_per_s_min", 50.0, "disk 50 MB/s"),
    ("gpu_percent_min", 40.0, "gpu 40 %"), ("wakeups_per_s_min", 1000.0, "wakeups 1000/s"),
    ("score_min", 60.0, "score 60"), ("band_min", "high", "band high"), ("orphan", True, "its parent exited"),
    ("orphan", False, "its parent is running"), ("command_patterns", "tail -f x", "name matches ^tail"),
    ("cmdline_patterns", "tail -f x", "name matches ^tail"), ("state", "stopped", "state stopped"),
    ("user", "alice", "user alice"), ("user", 1000, "user 1000"),
])
def test_each_condition_in_words(condition: str, value: Any, words: str) -> None:
    assert reason([term(condition, value)], None) == words


def test_for_how_long_as_far_as_that_is_known() -> None:
    assert reason([lasting("window", 300.0)], None) == "cpu 99.9 % for 5m 00s"
    assert reason([lasting("lifetime", 900.0)], None) == "cpu 99.9 % on average over 15m 00s of life"
    assert reason([lasting("reading", 0.0)], None) == "cpu 99.9 %"


def test_all_of_them_and_the_age_once_at_the_end() -> None:
    terms = [term("age_hours", 5.2), lasting("window", 300.0), term("age_seconds", 18_720.0), term("orphan", True)]
    assert reason(terms, 18_720.0) == "cpu 99.9 % for 5m 00s; its parent exited; age 5h 12m"
    assert reason(terms, None) == "cpu 99.9 % for 5m 00s; its parent exited"
    assert reason([], 0.0) == "age 0.0s" and reason([], None) == ""
