"""rh-reap as people run it: in a namespace of its own, as an ordinary user, each time with a bystander that must live."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.reaper import commands
from tests.reaper.arena import run

Rh = Callable[..., "CompletedProcess[bytes]"]


@pytest.mark.slow
def test_the_incident_through_the_pipeline() -> None:
    """Sample, match, reap: the dry run says exactly what then happens, and sends no signal."""
    seen = run(commands.incident, strace=shutil.which("strace") or "")
    wanted = {"loop": "infinite_loop", "hung": "hung_test", "binary": "zombie_test_binary", "tail": "orphaned_monitor"}
    dry = {name: rule for name, (rule, outcome) in seen["dry"].items() if outcome == "dry_run"}
    assert dry == wanted and seen["dry_rc"] == 0 and all(seen["lived"].values())
    assert {name: rule for name, (rule, _) in seen["real"].items()} == wanted and seen["real_rc"] == 0
    assert {outcome for _, outcome in seen["real"].values()} == {"terminated"}
    assert sorted(name for name, lives in seen["alive"].items() if lives) == seen["people"]
    assert seen["check"]["whole"] and seen["check"]["lines"] >= 2 * len(wanted)
    if shutil.which("strace") is None:
        pytest.skip("SYSTEM CALLS NOT CHECKED: needs strace")
    sent = {name: [line for line in trace.splitlines() if re.search(r"SIG(TERM|KILL|CONT)", line)]
            for name, trace in seen["traces"].items()}
    assert sent["dry.trace"] == []
    assert len(sent["real.trace"]) >= len(wanted) and all("pidfd_send_signal(" in line for line in sent["real.trace"])


@pytest.mark.waits
@pytest.mark.slow
def test_every_refusal_by_pid_and_by_rule() -> None:
    """With --yes and --all: the reason is given, the process lives, the exit code is 1."""
    seen = run(commands.refusals)
    for name, done in seen["found"].items():
        (action,) = done["out"]
        expected = {"root_saved": "root"}.get(name, name)
        if name == "root" and "root" not in action["refusals"]:
            expected = "low_pid"  # the first process belongs to root only when the suite runs as root
        assert (done["rc"], action["outcome"]) == (1, "refused") and expected in action["refusals"], (name, done)
        assert "signals" not in action and action["detail"] and "not killed" in done["err"]
    by_rule = {a["pid"]: a for a in seen["all"]["out"] if a["type"] == "action"}
    assert seen["all"]["rc"] == 1
    for name in ("low_pid", "rogue_hunter"):
        action = by_rule[seen["pids"][name]]
        assert action["outcome"] == "refused" and name in action["refusals"] and action["rule"] == "idler"
    assert seen["pids"]["whitelist"] not in by_rule  # no rule matches it at all
    assert all(seen["alive"].values()) and seen["bystander"]
    assert (seen["missing"]["rc"], seen["missing"]["out"]) == (1, []) and "no such process" in seen["missing"]["err"]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "outcome", "code"), [("y", "terminated", 0), ("n", "declined", 1), ("", "declined", 1),
                                                         ("^C", "interrupted", 130)])
def test_the_question_on_the_terminal(answer: str, outcome: str, code: int) -> None:
    """Only a yes is a yes; without a terminal and without --yes nothing is done and the exit code is 2."""
    seen = run(commands.asked, answer=answer)
    assert "About to terminate 1 process:" in seen["seen"] and "victim" in seen["seen"]
    assert [a["outcome"] for a in seen["out"]] == [outcome] and seen["rc"] == code
    assert seen["victim"] is (outcome != "terminated") and seen["bystander"]
    assert "intent" not in seen["kinds"] or outcome == "terminated"
    assert (seen["unasked"]["rc"], seen["unasked"]["out"]) == (2, []) and "--yes" in seen["unasked"]["err"]


@pytest.mark.slow
def test_without_an_audit_nothing_is_ended() -> None:
    seen = run(commands.no_audit)
    (action,) = seen["done"]["out"]
    assert seen["done"]["rc"] == 1 and action["refusals"] == ["no_audit"] and seen["victim"]


@pytest.mark.waits
@pytest.mark.slow
def test_two_at_once_are_one_chain_and_a_changed_byte_is_found() -> None:
    seen = run(commands.twice)
    assert sorted(each["out"][0]["outcome"] for each in seen["runs"]) in (["already_gone", "killed"], ["killed", "zombie"])
    assert seen["signals"] == ["SIGTERM", "SIGKILL"] and [each["rc"] for each in seen["runs"]] == [0, 0]
    assert not seen["victim"] and seen["bystander"]
    (check,) = seen["whole"]["out"]
    assert (seen["whole"]["rc"], check["whole"], check["lines"]) == (0, True, 4)
    (check,) = seen["changed"]["out"]
    assert (seen["changed"]["rc"], check["whole"]) == (1, False)
    assert check["damages"][0]["text"] == "was changed after it was written" and "line 1" in seen["changed"]["err"]


@pytest.mark.waits
@pytest.mark.slow
def test_many_matches_of_a_pipeline_are_one_run() -> None:
    """Three that ignore SIGTERM are waited for side by side."""
    seen = run(commands.crowd)
    actions = [a for a in seen["done"]["out"] if a["type"] == "action"]
    assert [a["outcome"] for a in actions] == ["killed"] * 3, actions
    assert seen["kinds"] == ["intent"] * 3 + ["escalate"] * 3 + ["outcome"] * 3
    assert seen["alive"] == [False] * 3 and seen["bystander"]


@pytest.mark.slow
def test_actions_are_kept_in_the_database() -> None:
    """In the one that was named; in the user's own, if it exists and no other user can write to it."""
    seen = run(commands.kept)
    for which, run_of, victim in (("named", "first", seen["victims"][0]), ("own", "second", seen["victims"][1])):
        (row,), (action,) = seen[which], seen[run_of]["out"]
        assert (row["type"], row["pid"], row["outcome"]) == ("report_action", victim, "terminated")
        assert {k: v for k, v in row.items() if k not in ("id", "type")} == {
            k: v for k, v in action.items() if k != "type"}
    assert seen["alive"] == [False, False] and seen["bystander"]


@pytest.mark.slow
def test_an_armed_pipe_ends_what_the_rules_ask_to_end() -> None:
    seen = run(commands.pipe, mode="armed")
    assert not seen["survived"] and seen["bystander"]
    (action,) = seen["actions"]
    assert (action["pid"], action["rule"], action["outcome"]) == (seen["victim"], "burner", "terminated")
    assert action["evidence"] == "window" and action["cpu_recovered_percent"] > 10
    assert [m["rule"] for m in seen["matches"]] == ["burner"]
    assert [line["detail"] for line in seen["timeline"] if line["what"] == "action"] == [
        "terminated by SIGTERM for rule burner"]
    assert any(line.startswith("armed:") for line in seen["log"])
    assert 'rogue_hunter_actions_total{outcome="terminated",rule="burner"} 1.0' in seen["metrics"]


@pytest.mark.slow
def test_a_pipe_that_observes_ends_nothing() -> None:
    """It keeps and says what matched; what a person does beside it, it takes over from the audit file."""
    seen = run(commands.pipe, mode="observe")
    assert seen["survived"] and seen["bystander"]
    assert [(m["rule"], m["pid"]) for m in seen["matches"]] == [("burner", seen["victim"])]
    assert any(line.startswith("rule burner matches victim") for line in seen["log"])
    (action,) = seen["actions"]
    assert (action["pid"], action["rule"], action["outcome"]) == (seen["victim"], "manual", "terminated")


@pytest.mark.slow
def test_disarming_counts_at_once() -> None:
    seen = run(commands.disarming)
    assert seen["armed"] and seen["disarmed"] and seen["matched"] and seen["victim"]
    assert not [action for action in seen["actions"] if action["rule"] == "burner"]


# -- without a namespace: nothing is signalled ------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--pid", "5", "--all"), ("--verify", "--rearm"), ("--pid", "0"), ("--pid", "x"),
                                   ("stray",)])
def test_usage(rh: Rh, words: tuple[str, ...]) -> None:
    done = rh("reap", *words)
    assert (done.returncode, done.stdout) == (2, b"") and done.stderr


def match_record(**more: Any) -> dict[str, Any]:
    import time

    return {"type": "match", "v": 1, "ts": time.time(), "boot_id": "another boot", "pid": 4000, "start_ticks": 7,
            "rule": "infinite_loop", "priority": "critical", "action": "kill", "reason": "cpu", "evidence": "window",
            **more}


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)


def test_the_output_is_actions_and_what_is_not_understood(rh: Rh, tmp_path: Path) -> None:
    """A match of another boot is gone; one that cannot be acted on is an error record; others pass on; --tee passes all."""
    stdin = lines(match_record(), match_record(pid=True), {"type": "note", "v": 1, "text": "x"})
    done = rh("reap", "--yes", "--dry-run", "--no-project", stdin=stdin, HOME=str(tmp_path))
    kinds = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["type"] for each in kinds] == ["action", "error", "note"] and done.returncode == 0
    assert kinds[0]["outcome"] == "already_gone" and kinds[1]["message"] == "match without a valid pid"
    tee = rh("reap", "--yes", "--dry-run", "--tee", stdin=stdin, HOME=str(tmp_path))
    assert [json.loads(line)["type"] for line in tee.stdout.splitlines()] == ["match", "action", "match", "error", "note"]
    bad = rh("reap", "--yes", stdin=b"no json\n", HOME=str(tmp_path))
    assert bad.returncode == 65 and json.loads(bad.stdout)["type"] == "error"


def test_rules_that_cannot_be_used_end_everything(rh: Rh, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('[[rules]]\nname = "all"\n')
    done = rh("reap", "--all", "--yes", "-c", file)
    assert (done.returncode, done.stdout) == (78, b"") and b"a rule without conditions" in done.stderr
    file.write_text('[reap]\naudit = "relative.log"\n')
    done = rh("reap", "--verify", "-c", file)
    assert done.returncode == 78 and b"must be an absolute path" in done.stderr


@pytest.mark.slow
def test_verify_and_rearm_without_anything(rh: Rh, tmp_path: Path) -> None:
    done = rh("reap", "--verify", HOME=str(tmp_path))
    check = json.loads(done.stdout)
    assert (done.returncode, check["lines"], check["whole"]) == (0, 0, True)
    state = tmp_path / ".local" / "state" / "rogue-hunter"
    state.mkdir(parents=True, mode=0o700)
    (state / "disarmed").write_text("pid 5 survived\n")
    done = rh("reap", "--rearm", HOME=str(tmp_path))
    assert done.returncode == 0 and b"pid 5 survived" in done.stderr and not (state / "disarmed").exists()
    assert b"were not disabled" in rh("reap", "--rearm", HOME=str(tmp_path)).stderr


def test_an_action_in_the_input_is_another_run_s(rh: Rh, tmp_path: Path) -> None:
    """It is passed on, but neither counted nor stored again, and its values are not looked at."""
    given = b'{"type":"action","v":1,"ts":1.0,"outcome":[],"cpu_recovered_percent":"x","run":"other"}\n'
    done = rh("reap", "--yes", "--db", tmp_path / "x.db", stdin=given, HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, given, b"") and not (tmp_path / "x.db").exists()
