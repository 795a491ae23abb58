"""From a match to a process that may be signalled, or to the reasons why not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.reaper.candidate import (
    MATCH_AGE_S,
    PID_MAX,
    YOUNGEST_S,
    Candidate,
    Judge,
    check_match,
    distinct,
    manual,
)
from rogue_hunter.reaper.guards import Refusal
from rogue_hunter.reaper.process import Live, Unreadable
from rogue_hunter.reaper.run import reap_batch
from rogue_hunter.rules.load import load, parse
from rogue_hunter.rules.patterns import Patterns
from rogue_hunter.schema.rules import MATCH
from rogue_hunter.stream.tick import Record, Row
from tests.reaper.fakes import NOW, RULES, FakeMachine, FakeProcess, match_of, setup

GOOD: Record = {"type": "match", "v": 1, "pid": 2000, "start_ticks": 7, "boot_id": "boot", "rule": "r", "ts": NOW}


def judge(machine: FakeMachine, rules: Any = RULES) -> Judge:
    return Judge(machine, machine.me(), rules, Patterns())


def assess(process: FakeProcess, match: Record | None = None, **more: Any) -> tuple[Candidate, FakeMachine]:
    machine = FakeMachine(process)
    return judge(machine).assess(match or match_of(process, **more), NOW), machine


class TestARecordThatCanBeActedOn:
    def test_needs_no_more_than_who_where_when_and_why(self) -> None:
        check_match(GOOD)

    @pytest.mark.parametrize(("name", "wrong"), [
        ("pid", "2000"), ("pid", True), ("pid", 2000.0), ("start_ticks", "7"), ("start_ticks", 7.0), ("boot_id", 5),
        ("rule", ["r"]), ("ts", "now"), ("ts", True)], ids=str)
    def test_each_of_them_is_there_and_of_its_type(self, name: str, wrong: Any) -> None:
        for bad in ({**GOOD, name: wrong}, {**GOOD, name: None}, {k: v for k, v in GOOD.items() if k != name}):
            with pytest.raises(ValueError, match=f"^match without a valid {name}$"):
                check_match(bad)

    WRONG: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("start_time", 1.5, ("1", True)), ("age_s", 60, ("1", None)), ("command", "x", (5, None)),
        ("cpu_percent", 99.5, ("99", True)), ("cpu_seconds_total", 5, ("5",)), ("orphan", True, (1, "true")),
        ("evidence_terms", [], ({}, "x")), ("memory_bytes", 5, (5.0, "5")), ("disk_bytes_per_s", 5.5, ("5",)),
        ("gpu_ms_per_s", 1, ("1",)), ("wakeups_per_s", 1.5, ("1",)), ("threads", 4, (4.0, "4")), ("score", 80, ("80",)),
        ("band", "high", (3,)), ("state", "running", (3,)), ("reason", "x", (3,)), ("evidence", "window", (3,)),
        ("priority", "high", (3,)),
    )

    @pytest.mark.parametrize(("name", "right", "wrong"), WRONG, ids=[w[0] for w in WRONG])
    def test_what_else_is_read_of_it_is_of_its_type_too(self, name: str, right: Any, wrong: tuple[Any, ...]) -> None:
        check_match({**GOOD, name: right})
        for value in wrong:
            with pytest.raises(ValueError, match=f"^match with an invalid {name}$"):
                check_match({**GOOD, name: value})

    def test_whole_numbers_may_stand_for_others(self) -> None:
        check_match({**GOOD, "ts": 1, "start_time": 1, "age_s": 1, "cpu_percent": 1, "cpu_seconds_total": 1,
                     "disk_bytes_per_s": 1, "gpu_ms_per_s": 1, "wakeups_per_s": 1, "score": 1})

    @pytest.mark.parametrize(("pid", "start", "good"), [
        (1, 7, True), (0, 7, False), (-1, 7, False), (4_194_304, 7, True), (4_194_305, 7, False), (2000, 0, True),
        (2000, -1, False)])
    def test_a_pid_is_one_that_there_can_be(self, pid: int, start: int, good: bool) -> None:
        """0 and below name groups of processes to kill(2); 2^22 is the most that Linux gives out."""
        if good:
            check_match({**GOOD, "pid": pid, "start_ticks": start})
        else:
            with pytest.raises(ValueError, match=f"^match with pid {pid}$"):
                check_match({**GOOD, "pid": pid, "start_ticks": start})

    def test_the_words_that_are_looked_at_are_those_of_a_match(self) -> None:
        known = {f.name for f in MATCH}
        assert {name for name, _, _ in self.WRONG} <= known and GOOD.keys() - {"type", "v"} <= known


class TestByTheMatchAlone:
    @pytest.mark.parametrize(("age_s", "stale"), [(60.0, False), (60.5, True), (-60.0, False), (-60.5, True)])
    def test_a_match_counts_for_a_minute(self, age_s: float, stale: bool) -> None:
        """One of the future is as wrong: the clocks do not agree."""
        assert MATCH_AGE_S == 60.0
        found, _ = assess(FakeProcess(2000), ts=NOW - age_s)
        assert ("stale" in {r.code for r in found.refusals}) is stale
        if age_s == 60.5:
            assert found.text == "the match is 60 s old" and found.outcome == "refused"

    @pytest.mark.parametrize(("fields", "young"), [
        ({"age_s": 2.0}, False), ({"age_s": 1.99}, True), ({"age_s": None, "start_time": NOW - 2.0}, False),
        ({"age_s": None, "start_time": NOW - 1.9}, True), ({"age_s": None}, True),
        ({"age_s": 60.0, "start_time": NOW}, False),
    ], ids=str)
    def test_a_process_younger_than_two_seconds_is_no_certain_one(self, fields: dict[str, Any], young: bool) -> None:
        """Its age in the match, else since its start; unknown is too young."""
        assert YOUNGEST_S == 2.0
        process = FakeProcess(2000)
        match = {k: v for k, v in match_of(process, **fields).items() if v is not None}
        found, _ = assess(process, match)
        assert [r.code for r in found.refusals] == (["too_young"] if young else [])

    @pytest.mark.parametrize(("rule", "refusal"), [
        ("unheard", Refusal("no_rule", "no enabled rule is named 'unheard'")),
        ("watch", Refusal("not_a_kill", "the action of rule watch is notify, which leaves the process alone")),
    ])
    def test_the_rule_is_known_and_wants_an_end(self, rule: str, refusal: Refusal) -> None:
        found, _ = assess(FakeProcess(2000), rule=rule)
        assert refusal in found.refusals and found.outcome == "refused"

    def test_a_person_needs_no_rule_and_no_age(self) -> None:
        process = FakeProcess(2000, age_s=0.1)
        found, _ = assess(process, {**manual(FakeMachine(process), 2000, NOW), "ts": NOW - 500})
        assert (found.outcome, found.refusals, found.rule) == ("", [], None)

    def test_every_reason_is_reported(self) -> None:
        found, _ = assess(FakeProcess(2000, exe="/usr/bin/vim"), ts=NOW - 100, age_s=0.0)
        assert [r.code for r in found.refusals] == ["stale", "too_young", "whitelist"]
        assert found.text.count("; ") == 2 and found.text.endswith(found.refusals[-1].text)


class TestTakingHold:
    def test_of_what_is_to_be_ended(self) -> None:
        process = FakeProcess(2000)
        found, machine = assess(process)
        assert (found.outcome, found.text, found.key) == ("", "", (2000, 7))
        assert found.handle is machine.handles[0] and found.live is not None and found.live.key == (2000, 7)
        assert found.rule is RULES.rule("r")
        assert (found.signals, found.bundle, found.wait_s, found.read_at) == ([], {}, 0.0, NOW)
        found.close()
        assert machine.handles[0].closed

    def test_another_boot_is_not_even_looked_at(self) -> None:
        found, machine = assess(FakeProcess(2000), boot_id="before")
        assert (found.outcome, found.text) == ("already_gone", "it belongs to another boot")
        assert machine.handles == [] and found.live is None
        found.close()

    def test_an_exited_process_is_gone(self) -> None:
        found, _ = assess(FakeProcess(2000), pid=2999)
        assert (found.outcome, found.text, found.refusals) == ("already_gone", "", [])

    def test_a_thread_is_no_candidate(self) -> None:
        machine = FakeMachine(FakeProcess(2000))
        machine.threads = {2000}
        found = judge(machine).assess(match_of(machine.processes[2000]), NOW)
        assert (found.outcome, found.refusals) == ("refused", [Refusal("thread", "2000 is a thread, not a process")])
        assert found.live is None

    @pytest.mark.parametrize(("pid", "held"), [(1, False), (2, True)])
    def test_numbers_that_mean_groups_are_never_held(self, pid: int, held: bool) -> None:
        process = FakeProcess(pid)
        found, machine = assess(process)
        assert bool(machine.handles) is held and found.outcome == "refused"
        assert {r.code for r in found.refusals} == ({"low_pid"} if held else {"low_pid", "ancestor"})

    def test_what_cannot_be_held_is_refused_with_what_the_machine_says(self) -> None:
        machine = FakeMachine(FakeProcess(2000))
        machine.pidfds = False
        found = judge(machine).assess(match_of(machine.processes[2000]), NOW)
        assert found.refusals == [Refusal("no_pidfd", "no pidfds here")] and found.outcome == "refused"
        assert found.live is not None and found.handle is None

    def test_a_guard_passed_without_a_handle_is_refused(self) -> None:
        """Looked at without a handle: no guard objects, and that is not enough."""
        process = FakeProcess(2000)
        machine = FakeMachine(process)
        found = Candidate(match_of(process), RULES)
        judge(machine).look(found, NOW)
        assert (found.outcome, found.refusals) == ("refused", [Refusal("no_pidfd", "no handle of it is open")])
        found = Candidate(match_of(FakeProcess(2001, exe="/bin/vim")), RULES)
        judge(FakeMachine(FakeProcess(2001, exe="/bin/vim"))).look(found, NOW)
        assert [r.code for r in found.refusals] == ["whitelist"]


class TestLooking:
    def test_unreadable_is_refused_with_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def read(self: FakeMachine, pid: int) -> Live:
            raise Unreadable("/proc/2000: Permission denied")

        monkeypatch.setattr(FakeMachine, "read", read)
        found, _ = assess(FakeProcess(2000))
        assert found.refusals == [Refusal("unreadable", "/proc/2000: Permission denied")] and found.live is None
        assert found.outcome == "refused"

    def test_gone_between_the_hold_and_the_look(self) -> None:
        process = FakeProcess(2000)
        found, machine = assess(process)
        process.die()
        judge(machine).look(found, NOW)
        assert (found.outcome, found.text) == ("already_gone", "")

    def test_the_pid_has_another_owner(self) -> None:
        process = FakeProcess(2000, start_ticks=8)
        found, _ = assess(process, start_ticks=7)
        assert (found.outcome, found.text) == ("already_gone", "its pid belongs to another process now")
        assert found.live is None

    @pytest.mark.parametrize(("threads", "outcome", "text"), [
        (1, "zombie", "it has exited; its parent has not waited for it"), (2, "already_gone", "")])
    def test_the_handle_says_whether_it_lives(self, threads: int, outcome: str, text: str) -> None:
        process = FakeProcess(2000, state="defunct", threads=threads)
        process.dead = True
        found, _ = assess(process)
        assert (found.outcome, found.text, found.live) == (outcome, text, None)

    def test_what_it_uses_is_asked_again_unless_it_winds_up(self) -> None:
        process = FakeProcess(2000)
        machine = FakeMachine(process)
        match = match_of(process, ts=NOW - 5, age_s=55.0, cpu_seconds_total=50.0)
        found = judge(machine).assess(match, NOW)
        assert (found.outcome, found.text) == ("spared", "rule r no longer matches it")
        for levels, outcome in ((False, ""), (True, "spared")):
            again = Candidate(match, RULES, machine.open(2000))
            judge(machine).look(again, NOW, levels=levels)
            assert again.outcome == outcome and again.live is not None
        last = Candidate(match, RULES, machine.open(2000))
        judge(machine).look(last, NOW)
        assert last.outcome == "spared"

    @pytest.mark.parametrize(("clock_set_s", "outcome"), [(0.0, "spared"), (-8.5, "spared"), (30.0, "spared")])
    def test_what_it_uses_does_not_depend_on_the_wall_clock(self, clock_set_s: float, outcome: str) -> None:
        """3 s of CPU time in 10 s. With the clock set back by 8.5 s they would have been 200 %."""
        process = FakeProcess(2000, age_s=70.0, cpu_seconds_total=103.0)
        match = match_of(process, ts=NOW, age_s=60.0, cpu_seconds_total=100.0)
        found = judge(FakeMachine(process)).assess(match, NOW + 10 + clock_set_s)
        assert (found.outcome, found.text) == (outcome, "rule r no longer matches it")

    @pytest.mark.parametrize(("argv", "outcome"), [(("victim", "--token", "farm"), "spared"), (("victim", "--token", "x"), "")])
    def test_an_exclusion_sees_what_masks_cover(self, argv: tuple[str, ...], outcome: str) -> None:
        rules = parse(b"""
[[rules]]
name = "r"
conditions = { command_patterns = ["^victim"], exclude_patterns = ["--token farm"] }
""")
        process = FakeProcess(2000, cmdline="victim --token ***", argv=argv)
        assert judge(FakeMachine(process), rules).assess(match_of(process), NOW).outcome == outcome

    @pytest.mark.parametrize(("row", "refusals"), [
        ({"exe": "/usr/bin/vim"}, ["whitelist"]), ({"cmdline": None}, ["unreadable"]), ({}, [])])
    def test_what_would_end_with_it_protects_it(self, row: Row, refusals: list[str]) -> None:
        """The first process of a pid namespace takes all of it along."""
        process = FakeProcess(2000)
        machine = FakeMachine(process, FakeProcess(2001, first=2000, **row), FakeProcess(2002, exe="/usr/bin/vim"))
        rules = replace(RULES, safety=replace(RULES.safety, whitelist=("vim",)))
        found = judge(machine, rules).assess(match_of(process), NOW)
        assert [r.code for r in found.refusals] == refusals
        assert found.text == "" or found.text.startswith("process 2001 would end with it: ")

    def test_a_guard_comes_before_the_rule(self) -> None:
        """What is protected is refused and not spared: the message names which of the two."""
        process = FakeProcess(2000, exe="/usr/bin/vim")
        found, _ = assess(process, match_of(process, ts=NOW - 5, cpu_seconds_total=50.0))
        assert found.outcome == "refused" and found.live is not None


def test_the_match_of_a_person() -> None:
    process = FakeProcess(2000, exe="/bin/victim", age_s=61.23456)
    match = manual(FakeMachine(process), 2000, NOW + 0.12345)
    assert match == {
        "type": "match", "v": 1, "ts": NOW + 0.123, "boot_id": "boot", "rule": "manual", "action": "kill",
        "reason": "named by its pid", "evidence": "person", "age_s": 61.23, **process.row}
    check_match(match)


def test_one_match_for_each_process() -> None:
    first, again = {**GOOD, "rule": "a"}, {**GOOD, "rule": "b"}
    others = [{**GOOD, "pid": 2001}, {**GOOD, "start_ticks": 8}, {**GOOD, "boot_id": "before"}]
    assert distinct([first, again, *others, *others]) == [first, *others]
    assert distinct([]) == []


def test_the_rules_of_a_court_are_those_that_are_enabled() -> None:
    rules = parse(b'[[rules]]\nname = "r"\nenabled = false\nconditions = { cpu_percent_min = 50 }\n')
    process = FakeProcess(2000)
    found = judge(FakeMachine(process), rules).assess(match_of(process), NOW)
    assert [r.code for r in found.refusals] == ["no_rule"]


def test_the_most_that_a_pid_can_be() -> None:
    """PID_MAX_LIMIT of Linux on 64 bits; macOS gives out 99999 at most."""
    assert PID_MAX == 4_194_304


class TestRulesOfTheMatch:
    """rh-match and rh-reap may be given different files: a match is judged by the rules that made it."""

    TEXT = '[[rules]]\nname = "theirs"\nconditions = { command_patterns = ["^victim"] }\n'

    def file(self, tmp_path: Path, text: str = "", name: str = "r.toml") -> Path:
        path = tmp_path / name
        path.write_text(text or self.TEXT)
        path.chmod(0o600)
        return path

    def of(self, path: Path, **more: Any) -> dict[str, Any]:
        """What a match says of the rules in this file."""
        return {"rule": "theirs", "rules_file": str(path), "rules_sha256": load(path).digest, **more}

    def test_are_read_from_the_file_that_it_names(self, tmp_path: Path) -> None:
        found, _ = assess(FakeProcess(2000), **self.of(self.file(tmp_path)))
        assert (found.outcome, found.rules.sources) == ("", (str(tmp_path / "r.toml"),))
        assert found.rule is not None and found.rule.name == "theirs"

    def test_of_a_project_narrow_those_of_the_user(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        project = self.file(tmp_path, "[safety]\nwhitelist_processes = [\"victim\"]\n", ".reaper.toml")
        found, _ = assess(FakeProcess(2000), **self.of(path, rules_project=str(project),
                                                      rules_sha256=load(path, project).digest))
        assert [r.code for r in found.refusals] == ["whitelist"]

    def test_protect_no_less_than_the_reapers_own(self, tmp_path: Path) -> None:
        own = parse(b'[safety]\nwhitelist_processes = ["victim"]\nmin_pid = 3000\nmax_per_run = 2\n' + self.TEXT.encode())
        machine = FakeMachine(FakeProcess(2000))
        match = match_of(machine.processes[2000], **self.of(self.file(tmp_path)))
        found = judge(machine, own).assess(match, NOW)
        assert [r.code for r in found.refusals] == ["low_pid", "whitelist"] and found.rules.safety.max_per_run == 2

    def test_that_changed_or_are_not_to_be_trusted_refuse(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        named = self.of(path)
        for change, reason in (
            (lambda: path.write_text(self.TEXT + "# more\n"), "changed since the match"),
            (lambda: path.chmod(0o666), "other users may write to the file"),
            (path.unlink, "No such file or directory"), (lambda: os.mkfifo(path), "not a regular file")):
            change()
            found, _ = assess(FakeProcess(2000), **named)
            assert (found.outcome, [r.code for r in found.refusals]) == ("refused", ["rules_file"])
            assert found.text.startswith("its rules cannot be used: ") and reason in found.text
        found, _ = assess(FakeProcess(2000), **named | {"rules_file": "r.toml"})
        assert "absolute path" in found.text

    def test_that_are_the_same_are_not_read_again(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        own, machine = load(path), FakeMachine(FakeProcess(2000))
        match = match_of(machine.processes[2000], **self.of(path))
        path.unlink()
        assert judge(machine, own).assess(match, NOW).outcome == ""

    def test_do_not_count_where_the_reapers_own_are_fixed(self, tmp_path: Path) -> None:
        """rh-reap -c FILE, and rh-pipe."""
        machine = FakeMachine(FakeProcess(2000))
        match = match_of(machine.processes[2000], **self.of(self.file(tmp_path)))
        fixed = replace(judge(machine), rules_fixed=True)
        assert [r.code for r in fixed.assess(match, NOW).refusals] == ["no_rule"]

    def test_may_ask_for_a_dry_run(self, tmp_path: Path) -> None:
        path = self.file(tmp_path, "[daemon]\ndry_run = true\n" + self.TEXT)
        machine = FakeMachine(FakeProcess(2000), FakeProcess(2001))
        matches = [match_of(machine.processes[2000], **self.of(path)), match_of(machine.processes[2001])]
        actions = reap_batch(matches, setup(tmp_path, machine))
        assert [(a["outcome"], a["dry_run"]) for a in actions] == [("dry_run", True), ("terminated", False)]
