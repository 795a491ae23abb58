"""How much may be ended, and the note that says that a kill failed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rogue_hunter.reaper.guards import HOUR_S, MANUAL, Budget, Refusal, disarm, disarmed, rearm
from rogue_hunter.rules.model import Safety

SAFETY = Safety(max_per_run=4, max_per_rule_per_hour=2)


def entry(rule: str, run: str = "other", kind: str = "intent") -> dict[str, str]:
    return {"kind": kind, "rule": rule, "run": run}


def test_an_hour_is_one() -> None:
    assert HOUR_S == 60 * 60


def test_a_rule_may_end_so_many_an_hour() -> None:
    budget = Budget()
    for _ in range(2):
        assert budget.refusal("r", SAFETY) is None
        budget.spend("r")
    assert budget.refusal("r", SAFETY) == Refusal("over_budget", "the limit of 2 processes an hour is reached for rule r (safety.max_per_rule_per_hour)")
    assert budget.refusal("another", SAFETY) is None


def test_a_run_may_end_so_many_by_all_rules() -> None:
    budget = Budget()
    for rule in ("a", "b", "c"):
        budget.spend(rule)
    assert budget.refusal("d", SAFETY) is None and budget.refusal(MANUAL, SAFETY) is None
    budget.spend(MANUAL)
    for rule in ("d", MANUAL):
        assert budget.refusal(rule, SAFETY) == Refusal("over_budget", "the limit of 4 processes a run is reached (safety.max_per_run)")


def test_a_person_has_no_budget_by_the_hour() -> None:
    assert MANUAL == "manual"
    budget = Budget([entry(MANUAL)] * 9, "mine")
    assert budget.refusal(MANUAL, SAFETY) is None


def test_what_others_spent_counts_for_the_rule_and_what_this_run_spent_for_both() -> None:
    """By intents: each signal has its intent before it, and an outcome after it that is not counted again."""
    assert Budget([entry("r")] * 1, "mine").refusal("r", SAFETY) is None
    assert Budget([entry("r")] * 2, "mine").refusal("r", SAFETY) is not None
    assert Budget([entry("r", kind="outcome")] * 9, "mine").refusal("r", SAFETY) is None
    assert Budget([entry(f"r{i}") for i in range(9)], "mine").refusal("r", SAFETY) is None
    own = [entry(f"r{i}", run="mine") for i in range(4)]
    assert Budget(own[:3], "mine").refusal("r", SAFETY) is None
    assert Budget(own, "mine").refusal("r", SAFETY) is not None
    assert Budget([entry("r", kind="outcome"), entry("r"), {"kind": "intent"}, {}], "mine").refusal("r", SAFETY) is None


class TestTheNote:
    def test_says_why_until_a_person_lifts_it(self, tmp_path: Path) -> None:
        assert disarmed(tmp_path) is None
        disarm(tmp_path, "pid 7 survived\nSIGKILL \x1b[2J and more than the next reason")
        assert (tmp_path / "disarmed").read_text() == (
            "pid 7 survived\\nSIGKILL \\x1b[2J and more than the next reason\n")
        disarm(tmp_path, "pid 8 survived")
        assert disarmed(tmp_path) == "pid 8 survived"
        assert rearm(tmp_path) is True and disarmed(tmp_path) is None and rearm(tmp_path) is False

    def test_is_for_its_owner_only(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            disarm(tmp_path, "x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "disarmed").stat().st_mode) == 0o600

    def test_is_not_written_through_a_link(self, tmp_path: Path) -> None:
        """Its target is another user's choice. A note that cannot be read disarms as well."""
        (tmp_path / "precious").write_text("precious")
        (tmp_path / "disarmed").symlink_to(tmp_path / "precious")
        disarm(tmp_path, "x")
        assert (tmp_path / "precious").read_text() == "precious"

        assert disarmed(tmp_path) == "the note that disarms cannot be read: Too many levels of symbolic links"

    @pytest.mark.usefixtures("patience")
    def test_a_pipe_in_its_place_does_not_block(self, tmp_path: Path) -> None:
        """Without a writer; with a writer that writes nothing; with input."""
        os.mkfifo(tmp_path / "disarmed")
        disarm(tmp_path, "x")
        assert disarmed(tmp_path) == "a kill failed"
        other = os.open(tmp_path / "disarmed", os.O_RDWR)
        try:
            assert disarmed(tmp_path) == (
                "the note that disarms cannot be read: Resource temporarily unavailable")
            disarm(tmp_path, "why")
            assert disarmed(tmp_path) == "why"
        finally:
            os.close(other)

    def test_is_read_as_far_as_a_note_of_ours_goes(self, tmp_path: Path) -> None:
        (tmp_path / "disarmed").write_bytes(b"x" * 5000)
        assert disarmed(tmp_path) == "x" * 4096

    def test_leaves_no_descriptor_open(self, tmp_path: Path) -> None:
        free = os.dup(0)
        os.close(free)
        disarm(tmp_path, "x")
        disarmed(tmp_path)
        rearm(tmp_path)
        (tmp_path / "disarmed").mkdir()
        for _ in range(2):
            disarm(tmp_path, "x")
            disarmed(tmp_path)
        again = os.dup(0)
        os.close(again)
        assert again == free

    @pytest.mark.parametrize(("found", "said"), [
        (b"", "a kill failed"), (b" \n", "a kill failed"), (b"why\xff\n", "why\ufffd")], ids=repr)
    def test_disarms_with_any_content(self, tmp_path: Path, found: bytes, said: str) -> None:
        (tmp_path / "disarmed").write_bytes(found)
        assert disarmed(tmp_path) == said

    def test_that_cannot_be_read_disarms(self, tmp_path: Path) -> None:
        (tmp_path / "disarmed").mkdir()
        assert disarmed(tmp_path) == "the note that disarms cannot be read: Is a directory"

    def test_that_cannot_be_written_is_no_error_of_its_own(self, tmp_path: Path) -> None:
        disarm(tmp_path / "missing", "x")
        assert disarmed(tmp_path / "missing") is None
