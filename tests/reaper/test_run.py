"""One run of the reaper on a machine of dictionaries: order, refusals, budget, questions, records."""

from __future__ import annotations

import json
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.reaper.audit import AuditLog
from rogue_hunter.reaper.candidate import check_match, manual
from rogue_hunter.reaper.guards import disarm, disarmed, rearm
from rogue_hunter.reaper.run import exit_code, reap_batch
from rogue_hunter.reaper.stage import BackgroundReap, Reap
from rogue_hunter.rules.load import parse
from rogue_hunter.schema.field import Field
from rogue_hunter.schema.rules import ACTION, MATCH, METHODS, OUTCOMES, REFUSALS
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick
from tests.reaper.fakes import NOW, RULES, FakeMachine, FakeProcess, match_of, setup


def valid(record: dict[str, Any], fields: tuple[Field, ...]) -> None:
    """The record has the declared fields, with their types and choices, and no other."""
    known = {f.name: f for f in fields}
    for name, value in record.items():
        if name in ("type", "v"):
            continue
        field = known[name]
        assert type(value) in ((int, float) if field.type is float else (field.type,)), (name, value)
        assert not field.choices or value in field.choices, (name, value)
    assert all(f.name in record for f in fields if f.required)


def only(tmp_path: Path, process: FakeProcess, match: dict[str, Any] | None = None, **more: Any) -> Any:
    machine = FakeMachine(process)
    chosen = setup(tmp_path, machine, **more)
    (action,) = reap_batch([match or match_of(process)], chosen)
    valid(action, ACTION)
    assert all(h.closed for h in machine.handles)
    return action, machine, chosen


def test_an_obedient_process(tmp_path: Path) -> None:
    action, machine, chosen = only(tmp_path, FakeProcess(2000, exe="/bin/victim", user="u", uid=1000))
    assert machine.sent == [(2000, 15)] and action["outcome"] == "terminated"
    assert action["signals"] == ["SIGTERM"] and action["signal"] == "SIGTERM" and action["method"] == "pidfd"
    assert action["cpu_recovered_percent"] == 99.0 and action["bundle"]["wchan"] == "do_nothing"
    assert action["config_file"] == "rules" and action["dry_run"] is False and action["audit_seq"] == 2
    assert exit_code([action]) == 0
    intent, outcome = chosen.audit.recent(1e10)
    assert (intent["kind"], intent["signal"], intent["pid"], intent["rule"]) == ("intent", "SIGTERM", 2000, "r")
    assert {"timestamp", "action", "hostname", "memory_mb", "age_hours", "user", "reason", "config_file"} <= set(intent)
    assert outcome["outcome"] == "terminated" and intent["hash"] == outcome["prev"]


def test_the_intent_is_on_disk_before_the_signal(tmp_path: Path) -> None:
    process = FakeProcess(2000)
    seen: list[int] = []

    def look(p: FakeProcess) -> None:
        seen.append(len((tmp_path / "state" / "audit.log").read_bytes().splitlines()))
        if len(seen) == 2:
            p.die()

    process.on = {15: look, 9: look}
    action, machine, _ = only(tmp_path, process)
    assert seen == [1, 2] and [n for _, n in machine.sent] == [15, 18, 9] and action["outcome"] == "killed"


def test_it_is_looked_at_again_between_the_signals(tmp_path: Path) -> None:
    """After SIGTERM it became a protected program, or another user's: no SIGKILL."""
    for change, code in (({"command": "systemd"}, "whitelist"), ({}, "not_my_uid")):
        process = FakeProcess(2000)

        def become(p: FakeProcess, change: dict[str, str] = change) -> None:
            p.row.update(change)
            p.uids = p.uids if change else (1000, 0, 0, 0)

        process.on = {15: become}
        action, machine, _ = only(tmp_path, process)
        assert [n for _, n in machine.sent] == [15, 18] and action["outcome"] == "refused"
        assert code in action["refusals"] and action["signals"] == ["SIGTERM", "SIGCONT"]


def test_the_calm_of_winding_up_does_not_save_from_sigkill(tmp_path: Path) -> None:
    process = FakeProcess(2000)
    process.on = {15: lambda p: p.row.update(state="sleeping"), 9: FakeProcess.die}
    action, _, _ = only(tmp_path, process, match_of(process, ts=NOW - 5, cpu_seconds_total=45.0))
    assert action["outcome"] == "killed"


@pytest.mark.parametrize(("process", "match", "code"), [
    ({"uids": (1001,) * 4}, {}, "not_my_uid"), ({"uids": (1000, 0, 0, 0)}, {}, "root"), ({"pid": 500}, {}, "low_pid"),
    ({"pid": 5000}, {}, "self"), ({"pid": 4000}, {}, "ancestor"), ({"pid": 4000}, {}, "session_leader"),
    ({"command": "victim", "exe": "/x/rh-pipe"}, {}, "rogue_hunter"), ({"leader": 1999}, {}, "thread"),
    ({"exe": "/usr/bin/nvim"}, {}, "whitelist"), ({}, {"age_s": 0.5}, "too_young"), ({}, {"ts": NOW - 100}, "stale"),
    ({}, {"ts": NOW + 100}, "stale"), ({}, {"rule": "unheard"}, "no_rule"), ({}, {"rule": "watch"}, "not_a_kill"),
])
def test_every_refusal_by_rule(tmp_path: Path, process: dict[str, Any], match: dict[str, Any], code: str) -> None:
    victim = FakeProcess(**{"pid": 2000, **process})
    action, machine, _ = only(tmp_path, victim, match_of(victim, **match))
    assert machine.sent == [] and action["outcome"] == "refused" and code in action["refusals"]
    assert action["detail"] and exit_code([action]) == 1 and set(action["refusals"]) <= set(REFUSALS)


@pytest.mark.parametrize(("process", "code"), [
    ({"uids": (1001,) * 4}, "not_my_uid"), ({"pid": 1, "uids": (0,) * 4}, "root"), ({"pid": 500}, "low_pid"),
    ({"pid": 5000}, "self"), ({"pid": 4000}, "ancestor"), ({"command": "rh-score"}, "rogue_hunter"),
    ({"command": "vim"}, "whitelist"), ({"leader": 1999}, "thread"),
])
def test_every_refusal_by_pid(tmp_path: Path, process: dict[str, Any], code: str) -> None:
    victim = FakeProcess(**{"pid": 2000, **process})
    action, machine, _ = only(tmp_path, victim, manual(FakeMachine(victim), victim.key[0], NOW))
    assert machine.sent == [] and action["outcome"] == "refused" and code in action["refusals"]
    assert action["rule"] == "manual" and action["evidence"] == "person"


def test_without_pidfds_and_for_threads_nothing_is_sent(tmp_path: Path) -> None:
    machine = FakeMachine(FakeProcess(2000), FakeProcess(2001))
    machine.threads = {2001}
    chosen = setup(tmp_path, machine)
    (action,) = reap_batch([match_of(machine.processes[2001])], chosen)
    assert action["refusals"] == ["thread"]
    machine.pidfds = False
    (action,) = reap_batch([match_of(machine.processes[2000])], chosen)
    assert action["refusals"] == ["no_pidfd"] and machine.sent == []


@pytest.mark.parametrize(("change", "outcome"), [
    ({"boot_id": "before"}, "already_gone"), ({"start_ticks": 8}, "already_gone"), ({"pid": 2999}, "already_gone"),
])
def test_another_process_of_the_pid_is_not_touched(tmp_path: Path, change: dict[str, Any], outcome: str) -> None:
    process = FakeProcess(2000)
    action, machine, _ = only(tmp_path, process, match_of(process, **change))
    assert (action["outcome"], machine.sent, exit_code([action])) == (outcome, [], 0)


def test_a_dead_one_that_waits_for_its_parent_is_a_zombie(tmp_path: Path) -> None:
    process = FakeProcess(2000, state="defunct")
    process.dead = True
    action, machine, _ = only(tmp_path, process)
    assert (action["outcome"], machine.sent) == ("zombie", [])


@pytest.mark.parametrize(("change", "spared"), [
    ({"command": "harmless", "exe": "/bin/harmless", "cmdline": ""}, True), ({"cpu_seconds_total": 50.5}, True), ({"cpu_seconds_total": 55.0}, False),
    ({"cpu_seconds_total": 52.4}, False), ({"memory_bytes": 0}, False)])
def test_what_no_longer_matches_is_spared(tmp_path: Path, change: dict[str, Any], spared: bool) -> None:
    """Five seconds after a match at 50 %: a calm process is spared; one that misses by less than a tenth is not."""
    process = FakeProcess(2000)
    match = match_of(process, ts=NOW - 4.8, age_s=55.2)
    process.row.update(change if "cpu_seconds_total" in change else {**change, "cpu_seconds_total": 55.0})
    action, machine, _ = only(tmp_path, process, match)
    assert (action["outcome"] == "spared") is spared and bool(machine.sent) is not spared


def test_on_a_thread_only_known_programs_are_judged(tmp_path: Path) -> None:
    """Patterns cannot be interrupted there: another program is refused, and the thread does not hang."""
    rules = parse(b'[[rules]]\nname = "r"\nconditions = { command_patterns = ["^(a+)+$", "^victim"] }\n')
    process = FakeProcess(2000)
    chosen = setup(tmp_path, FakeMachine(process), rules)
    match = match_of(process)
    process.row["command"] = "a" * 60 + "b"
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(reap_batch([match], chosen)))
    thread.start()
    thread.join(10)
    assert (found[0]["outcome"], found[0]["refusals"]) == ("refused", ["unreadable"])
    assert found[0]["detail"] == "rule r cannot be evaluated: patterns are searched on the main thread only"


def test_a_dry_run_says_what_would_be_done_and_sends_nothing(tmp_path: Path) -> None:
    action, machine, chosen = only(tmp_path, FakeProcess(2000), dry_run=True)
    assert (action["outcome"], action["dry_run"], machine.sent, exit_code([action])) == ("dry_run", True, [], 0)
    (entry,) = chosen.audit.recent(1e10)
    assert entry["dry_run"] is True and entry["kind"] == "outcome"
    refused, _, _ = only(tmp_path / "b", FakeProcess(2001, command="vim"), dry_run=True)
    assert refused["outcome"] == "refused"


def test_a_person_is_asked_about_what_may_be_ended_only(tmp_path: Path) -> None:
    asked: list[list[int]] = []
    machine = FakeMachine(FakeProcess(2000), FakeProcess(2001, exe="/usr/bin/vim"), FakeProcess(2002))
    for answer, outcomes in ((False, ["declined", "refused", "declined"]),
                             (True, ["terminated", "refused", "terminated"])):

        def confirm(candidates: Any, answer: bool = answer) -> bool:
            asked.append([c.match["pid"] for c in candidates])
            return answer

        matches = [match_of(p) for p in machine.processes.values()]
        actions = reap_batch(matches, setup(tmp_path, machine, confirm=confirm))
        assert [a["outcome"] for a in actions] == outcomes and exit_code(actions) == 1
        assert bool(machine.sent) is answer
    assert asked == [[2000, 2002], [2000, 2002]]


def test_without_candidates_there_is_no_question(tmp_path: Path) -> None:
    def confirm(_: Any) -> bool:
        raise AssertionError

    only(tmp_path, FakeProcess(2000, command="vim"), confirm=confirm)
    assert reap_batch([], setup(tmp_path, FakeMachine())) == []


def test_the_budget_of_a_rule_and_of_a_run(tmp_path: Path) -> None:
    machine = FakeMachine(*(FakeProcess(2000 + i) for i in range(9)))
    matches = [match_of(p) for p in machine.processes.values()]
    first = reap_batch(matches[:3], setup(tmp_path, machine))
    second = reap_batch(matches[3:], setup(tmp_path, machine))
    assert [a["outcome"] for a in first + second] == ["terminated"] * 5 + ["refused"] * 4
    assert second[-1]["refusals"] == ["over_budget"]
    assert "the limit of 5 processes an hour is reached for rule r" in second[-1]["detail"]
    later = setup(tmp_path, machine, now=lambda: NOW + 4000)
    hour_later = time.monotonic_ns() + 4000 * 10**9
    later = replace(later, audit=AuditLog(later.audit.path, now=later.now, mono_ns=lambda: hour_later))
    more = reap_batch([{**m, "ts": NOW + 4000.0} for m in matches[5:]], later)
    assert [a["outcome"] for a in more] == ["terminated"] * 4


def test_twenty_in_one_run(tmp_path: Path) -> None:
    machine = FakeMachine(*(FakeProcess(2000 + i) for i in range(30)))
    matches = [manual(machine, pid, NOW) for pid in machine.processes]
    chosen = setup(tmp_path, machine)
    outcomes = [a["outcome"] for a in [*reap_batch(matches[:15], chosen), *reap_batch(matches[15:], chosen)]]
    assert outcomes == ["terminated"] * 20 + ["refused"] * 10
    dry = [a["outcome"] for a in reap_batch(matches[20:], setup(tmp_path, machine, dry_run=True))]
    assert dry == ["dry_run"] * 10


@pytest.mark.slow
def test_a_thousand_at_once(tmp_path: Path) -> None:
    """Twenty are signalled, and all of them before any is waited for; of the others each gets its answer and its line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("may not open so many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    machine = FakeMachine(*(FakeProcess(2000 + i) for i in range(1000)))
    chosen = setup(tmp_path, machine)
    actions = reap_batch([manual(machine, pid, NOW) for pid in machine.processes], chosen)
    assert [a["outcome"] for a in actions] == ["terminated"] * 20 + ["refused"] * 980
    assert {tuple(a["refusals"]) for a in actions[20:]} == {("over_budget",)}
    assert machine.sent == [(2000 + i, 15) for i in range(20)] and exit_code(actions) == 1
    assert all(h.closed for h in machine.handles) and len(chosen.audit.recent(1e10)) == 1020
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_failure_disarms_until_a_person_looks(tmp_path: Path) -> None:
    stubborn = FakeProcess(2000)
    stubborn.on = {}
    action, machine, chosen = only(tmp_path, stubborn)
    assert action["outcome"] == "survived" and [n for _, n in machine.sent] == [15, 18, 9] and exit_code([action]) == 1
    assert "pid 2000 survived" in (disarmed(chosen.state_dir) or "")
    other, machine, chosen = only(tmp_path, FakeProcess(2001))
    assert other["refusals"] == ["disarmed"] and machine.sent == []
    asked, machine, _ = only(tmp_path, FakeProcess(2002), confirm=lambda _: True)
    assert asked["outcome"] == "terminated"
    assert rearm(chosen.state_dir) and not rearm(chosen.state_dir) and disarmed(chosen.state_dir) is None
    disarm(chosen.state_dir, "x\x1b[2J")
    assert disarmed(chosen.state_dir) == r"x\x1b[2J"


def test_stopped_before_anything_is_sent(tmp_path: Path) -> None:
    def confirm(_: Any) -> bool:
        raise KeyboardInterrupt

    action, machine, chosen = only(tmp_path, FakeProcess(2000), confirm=confirm)
    assert (action["outcome"], machine.sent, exit_code([action])) == ("interrupted", [], 130) and chosen.stop


def test_the_audit_fails_between_the_signals(tmp_path: Path) -> None:
    """SIGTERM was recorded and sent; SIGKILL cannot be recorded, so it is not sent."""
    process = FakeProcess(2000)

    def break_it(_: FakeProcess) -> None:
        (tmp_path / "state" / "audit.log").unlink()
        (tmp_path / "state" / "audit.log").mkdir()

    process.on = {15: break_it}
    action, machine, _ = only(tmp_path, process)
    assert [n for _, n in machine.sent] == [15, 18] and action["outcome"] == "survived"
    assert action["refusals"] == ["no_audit"]


def test_the_first_match_of_a_process_counts(tmp_path: Path) -> None:
    process = FakeProcess(2000)
    actions = reap_batch([match_of(process), match_of(process, rule="watch")], setup(tmp_path, FakeMachine(process)))
    assert [a["rule"] for a in actions] == ["r"]


BAD = [{"pid": "2000"}, {"pid": True}, {"pid": 2000.0}, {"pid": -5}, {"pid": 0}, {"pid": 1 << 31},
       {"start_ticks": None}, {"start_ticks": "7"}, {"boot_id": 5}, {"rule": None}, {"ts": "now"},
       {"cpu_percent": "99"}, {"age_s": []},
       {"command": 5}, {"orphan": 1}]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_a_bad_match_is_an_error_and_the_rest_is_handled(tmp_path: Path, change: dict[str, Any]) -> None:
    good = FakeProcess(2000)
    bad = {k: v for k, v in {**match_of(good), **change}.items() if v is not None}
    with pytest.raises(ValueError, match="match with"):
        check_match(bad)
    machine = FakeMachine(good)
    (tick,) = chain([Tick(records=[bad, match_of(good)])], Reap(setup(tmp_path, machine)))
    kinds = [r["type"] for r in tick.records]
    assert kinds == ["match", "match", "error", "action"] and machine.sent == [(2000, 15)]


def test_the_stage_acts_once_on_what_is_settled(tmp_path: Path) -> None:
    """A match is repeated each minute; who was refused for good, or shown in a dry run, is not reported again."""
    vim, victim = FakeProcess(2000, exe="/usr/bin/vim"), FakeProcess(2001)
    ticks = [Tick(records=[match_of(vim), match_of(victim)]) for _ in range(3)]
    out = list(chain(ticks, Reap(setup(tmp_path, FakeMachine(vim, victim), dry_run=True))))
    assert [[r["type"] for r in t.records].count("action") for t in out] == [2, 0, 0]


def test_the_stage_off_the_beat_gives_its_records_later_and_stops(tmp_path: Path) -> None:
    obeys, stays = FakeProcess(2000), FakeProcess(2001)
    stays.on = {}
    machine = FakeMachine(obeys, stays)
    rules = parse(b'[[rules]]\nname = "r"\nconditions = { cpu_percent_min = 50 }\naction = { timeout_seconds = 60 }\n')
    chosen = setup(tmp_path, machine, rules)
    done = threading.Event()
    chosen_told = setup(tmp_path, machine, rules, report=lambda _: done.set(), audit=chosen.audit)

    def ticks() -> Any:
        yield Tick(records=[match_of(obeys)])
        assert done.wait(10)
        yield Tick()
        yield Tick(records=[match_of(stays)])
        while (2001, 15) not in machine.sent:
            threading.Event().wait(0.01)

    records = [r for t in chain(ticks(), BackgroundReap(chosen_told)) for r in t.records if r["type"] == "action"]
    assert [(r["pid"], r["outcome"]) for r in records] == [(2000, "terminated"), (2001, "interrupted")]
    assert (2001, 9) not in machine.sent


def test_the_matcher_and_the_reaper_speak_of_the_same_fields() -> None:
    from tests.tools.rules import Machine

    m = Machine(RULES)
    m.set(2000, cpu_percent=99.0, exe="/x", cmdline="x", user="u", uid=1, state="running", memory_bytes=5)
    (match,) = m.tick()
    valid(match, MATCH)
    check_match(match)
    assert json.dumps(match)


def test_the_words_of_the_schema_are_the_ones_in_use() -> None:
    from rogue_hunter.reaper.guards import GUARDS
    from rogue_hunter.rules.model import PRIORITIES
    from rogue_hunter.schema.rules import PRIORITIES as SAME

    assert set(GUARDS) < set(REFUSALS) and PRIORITIES == SAME and len(set(OUTCOMES)) == len(OUTCOMES) == 13
    assert METHODS == ("pidfd", "audittoken", "kill")


@pytest.mark.parametrize("answer_s", [0.1, 4.0, 300.0])
def test_the_cpu_use_that_is_freed_is_measured_after_the_question(tmp_path: Path, answer_s: float) -> None:
    """However long the answer takes, a process that uses a core frees a core."""
    clock = [1000.0]
    process = FakeProcess(2000)
    machine = FakeMachine(process)

    def confirm(_: Any) -> bool:
        clock[0] += answer_s
        process.row["cpu_seconds_total"] += answer_s * 0.98
        return True

    (action,) = reap_batch([match_of(process)], setup(tmp_path, machine, confirm=confirm, clock=lambda: clock[0]))
    assert action["outcome"] == "terminated" and 97 <= action["cpu_recovered_percent"] <= 99


def test_a_clock_that_is_set_during_the_question_changes_nothing(tmp_path: Path) -> None:
    """By the wall clock the process would have used nothing for an hour."""
    wall, clock = [NOW + 0.2], [1000.0]
    process = FakeProcess(2000)

    def confirm(_: Any) -> bool:
        clock[0] += 5.0
        wall[0] += 3600.0
        process.row["cpu_seconds_total"] += 4.9
        return True

    (action,) = reap_batch([match_of(process)], setup(tmp_path, FakeMachine(process), confirm=confirm,
                                                      now=lambda: wall[0], clock=lambda: clock[0]))
    assert action["outcome"] == "terminated" and action["cpu_recovered_percent"] == pytest.approx(98.0)
