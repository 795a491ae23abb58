"""Real processes, real signals, as an ordinary user, each time with a bystander that must live."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.reaper import scenarios
from tests.reaper.arena import REPO, environment, run, unshare

pytestmark = [pytest.mark.slow, pytest.mark.waits]

REUSES = int(os.environ.get("RH_REUSES", "40"))
"""Forced reuses of a pid in each way; RH_REUSES=1000 is the long run (five minutes, last: 0 of 3,000 harmed)."""


def test_who_obeys_gets_no_kill() -> None:
    for kind in ("obey", "catch", "loop"):
        seen = run(scenarios.one, kind=kind)
        (action,) = seen["actions"]
        assert (action["outcome"], action["signals"]) == ("terminated", ["SIGTERM", "SIGCONT"]), kind
        assert action["method"] == "pidfd" and action["wait_s"] < 4 and action["cpu_recovered_percent"] == 99.0
        assert seen["audit"] == ["intent:SIGTERM", "outcome:SIGTERM"] and seen["verdict"] == [2, []]
        assert not seen["victim"] and seen["bystander"] and seen["exit"] == 0 and seen["disarmed"] is None
        assert {"open_files", "threads", "state", "memory_bytes"} <= set(seen["bundle"])


def test_who_ignores_sigterm_dies_after_five_seconds() -> None:
    seen = run(scenarios.one, kind="ignore")
    (action,) = seen["actions"]
    assert (action["outcome"], action["signals"]) == ("killed", ["SIGTERM", "SIGCONT", "SIGKILL"])
    assert 5.0 <= action["wait_s"] < 5.5
    assert seen["audit"] == ["intent:SIGTERM", "escalate:SIGKILL", "outcome:SIGKILL"]
    assert not seen["victim"] and seen["bystander"]


def test_a_rule_that_names_sigkill_only_shortens_the_wait() -> None:
    seen = run(scenarios.one, kind="ignore", rule="quick")
    (action,) = seen["actions"]
    assert action["signals"] == ["SIGTERM", "SIGCONT", "SIGKILL"] and 1.0 <= action["wait_s"] < 1.5
    obeys = run(scenarios.one, kind="obey", rule="quick")["actions"][0]
    assert (obeys["outcome"], obeys["signals"]) == ("terminated", ["SIGTERM", "SIGCONT"])


def test_a_stopped_process_can_obey() -> None:
    seen = run(scenarios.one, kind="stopped")
    assert seen["actions"][0]["outcome"] == "terminated" and seen["actions"][0]["wait_s"] < 4
    assert not seen["victim"] and seen["bystander"]


def test_a_zombie_whose_other_threads_live_is_alive() -> None:
    """Its first thread ended, /proc says Z, the process runs: program and arguments are read from another thread, and
    it is ended as any other."""
    seen = run(scenarios.one, kind="headless")
    (action,) = seen["actions"]
    assert (action["outcome"], action["signals"]) == ("terminated", ["SIGTERM", "SIGCONT"]), action
    assert not seen["victim"] and seen["bystander"]


def test_a_rule_without_sigkill_lets_live_and_disarms() -> None:
    seen = run(scenarios.one, kind="ignore", rule="gentle")
    assert seen["actions"][0]["outcome"] == "survived" and seen["victim"] and seen["bystander"] and seen["exit"] == 1
    assert "SIGKILL" not in seen["actions"][0]["signals"] and "survived" in seen["disarmed"]


def test_many_die_side_by_side() -> None:
    seen = run(scenarios.many, count=12)
    assert {a["outcome"] for a in seen["actions"]} == {"killed"} and not any(seen["alive"]) and seen["bystander"]
    assert all(1.0 <= a["wait_s"] < 6 for a in seen["actions"]) and seen["took"] < 12   # not one second after the other


def test_of_a_crowd_twenty_are_ended() -> None:
    """Side by side, not one after the other; the others are refused by the budget, each with its line of the audit."""
    seen = run(scenarios.crowd, count=60)
    assert seen["outcomes"] == {"killed": 20, "refused": 40} and seen["refusals"] == {"over_budget": 40}
    assert seen["alive"] and seen["bystander"] and seen["exit"] == 1
    assert seen["audit"] == {"intent": 20, "escalate": 20, "outcome": 60} and seen["verdict"] == [100, []]


@pytest.mark.parametrize("by_rule", [False, True], ids=["by pid", "by rule"])
def test_every_refusal(by_rule: bool) -> None:
    seen = run(scenarios.named, by_rule=by_rule)
    for name, action in seen["found"].items():
        expected = {"root_saved": "root"}.get(name, name)
        if name == "thread":
            assert action["outcome"] == "refused" and "thread" in action["refusals"]
            continue
        if name in ("root", "ancestor", "session_leader", "self") and expected not in action["refusals"]:
            # The first process belongs to root only when the suite runs as root.
            assert name == "root" and "low_pid" in action["refusals"]
            continue
        assert action["outcome"] == "refused" and expected in action["refusals"], (name, action)
        assert action["signals"] is None and action["detail"]
    assert all(seen["alive"].values()) and seen["bystander"] and seen["threaded"]


@pytest.mark.parametrize(("between", "outcomes"), [
    ("term", {"already_gone:"}), ("kill", {"terminated:SIGTERM"}), ("kill-lie", {"terminated:SIGTERM"})])
def test_a_pid_that_changes_hands_is_never_signalled(between: str, outcomes: set[str]) -> None:
    """Between match and SIGTERM, after SIGTERM, and after SIGTERM with a handle that claims that all is as before."""
    seen = run(scenarios.reuse, timeout_s=1200, rounds=REUSES, between=between)
    assert seen["harmed"] == 0 and seen["same_pid"] == REUSES
    assert set(seen["counts"]) == outcomes and sum(seen["counts"].values()) == REUSES


def test_interrupted_in_the_wait_sends_no_kill() -> None:
    seen = run(scenarios.interrupted)
    (action,) = seen["actions"]
    assert (action["outcome"], action["signals"]) == ("interrupted", ["SIGTERM", "SIGCONT"])
    assert seen["took"] < 4 and seen["victim"] and seen["bystander"] and seen["exit"] == 130
    assert seen["audit"] == "interrupted"


def test_two_reapers_make_one_chain_of_signals() -> None:
    seen = run(scenarios.both)
    outcomes = sorted(a["outcome"] for a in seen["actions"])
    assert outcomes in (["already_gone", "killed"], ["killed", "zombie"])  # zombie: its parent has not collected it yet
    assert seen["signals"] == ["SIGTERM", "SIGKILL"] and seen["verdict"] == [4, []]
    assert not seen["victim"] and seen["bystander"]


@pytest.mark.parametrize("how", ["directory", "link", "damaged", "full", "closed"])
def test_without_an_audit_nothing_is_ended(how: str) -> None:
    seen = run(scenarios.no_audit, how=how)
    (action,) = seen["actions"]
    assert action["outcome"] == "refused" and action["refusals"] == ["no_audit"] and action["signals"] is None
    assert seen["victim"] and seen["exit"] == 1


@pytest.mark.parametrize(("how", "outcome"), [("renamed", "spared"), ("calm", "spared"), ("whitelisted", "refused"),
                                              ("ended", "already_gone"), ("zombie", "zombie")])
def test_it_must_still_be_what_was_judged(how: str, outcome: str) -> None:
    seen = run(scenarios.changed, how=how)
    (action,) = seen["actions"]
    assert action["outcome"] == outcome and action["signals"] is None
    assert seen["victim"] is (None if how == "zombie" else how != "ended")
    assert seen["exit"] == (1 if outcome == "refused" else 0)


@pytest.mark.parametrize("stopped", [False, True])
def test_what_a_debugger_holds_is_ended_and_nothing_else(stopped: bool) -> None:
    """The signal goes to the debugger first; held at a breakpoint the process ends by SIGKILL at the latest."""
    seen = run(scenarios.traced, stopped=stopped)
    (action,) = seen["actions"]
    assert action["outcome"] in ("terminated", "killed"), action
    assert not seen["victim"] and seen["bystander"]


@pytest.mark.parametrize("kind", ["user", "mount", "container"])
def test_what_lives_in_other_namespaces_is_ended_by_its_identity_or_refused_with_a_reason(kind: str) -> None:
    seen = run(scenarios.elsewhere, kind=kind)
    (action,) = seen["actions"]
    if action["outcome"] == "refused":
        assert action["refusals"] and action["signals"] is None and seen["victim"], action
    else:
        assert action["outcome"] == "terminated" and not seen["victim"], action
    assert seen["bystander"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's process")
@pytest.mark.parametrize("saved", [False, True])
def test_who_became_another_user_is_refused(saved: bool) -> None:
    """Its user at the time of the match does not count, and a saved id of root does: it may be root at any moment."""
    seen = run(scenarios.other_user, saved=saved)
    (action,) = seen["actions"]
    assert action["outcome"] in ("refused", "spared") and action["signals"] is None, action
    assert seen["victim"]


def test_who_cannot_die_ends_the_wait_as_a_survivor() -> None:
    freezer = Path("/sys/fs/cgroup/freezer")
    if os.geteuid() != 0 or not (freezer / "cgroup.procs").exists():
        pytest.skip("UNKILLABLE NOT TESTED WITH A REAL PROCESS: needs root and the version 1 freezer")
    folder = freezer / f"rh-test-{os.getpid()}"
    folder.mkdir()
    try:
        seen = run(scenarios.frozen, folder=str(folder))
        (action,) = seen["actions"]
        assert (action["outcome"], action["signals"]) == ("survived", ["SIGTERM", "SIGCONT", "SIGKILL"])
        assert seen["took"] < 10 and seen["bystander"] and seen["exit"] == 1 and "survived" in seen["disarmed"]
    finally:
        folder.rmdir()


def test_the_incident_again() -> None:
    """Loop, hung test, orphaned tail, test binary die; editor, pager, build, browser live. A dry run announces it first."""
    seen = run(scenarios.incident)
    wanted = {"loop": "infinite_loop", "hung": "hung_test", "binary": "zombie_test_binary", "tail": "orphaned_monitor"}
    assert {n: rule for n, (rule, outcome) in seen["dry"].items() if outcome == "dry_run"} == wanted
    assert {n: rule for n, (rule, _) in seen["real"].items()} == wanted
    assert {outcome for _, outcome in seen["real"].values()} == {"terminated"}
    assert sorted(name for name, lives in seen["alive"].items() if lives) == seen["people"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_which_system_calls_send(dry_run: bool, tmp_path: Path) -> None:
    """By strace: a dry run sends nothing; a real one only through the pidfd, and no number ever reaches kill(2)."""
    if shutil.which("strace") is None:
        pytest.skip("SYSTEM CALLS NOT CHECKED: needs strace")
    seen, trace = _straced(tmp_path, dry_run)
    sent = [line for line in trace.splitlines() if "SIGKILL" in line or "SIGTERM" in line or "SIGCONT" in line]
    ours = [line for line in sent if re.search(r"\b(kill|tkill|tgkill|rt_sigqueueinfo|pidfd_send_signal)\(", line)]
    numbered = [line for line in ours if re.search(rf"\b(kill|tkill|tgkill)\({seen['pid']}\b", line)]
    if dry_run:
        assert seen["alive"] and seen["actions"][0]["outcome"] == "dry_run" and not ours
    else:
        assert not seen["alive"] and len([x for x in ours if "pidfd_send_signal" in x]) >= 1 and not numbered


def _straced(tmp_path: Path, dry_run: bool) -> tuple[Any, str]:
    import json
    import sys

    out = tmp_path / "trace"
    calls = "trace=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo"
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-e", "signal=none", "-o", str(out), *unshare(), sys.executable,
               "-m", "tests.reaper.inside", "tests.reaper.scenarios", "system_calls", json.dumps({"dry_run": dry_run})]
    done = subprocess.run(command, capture_output=True, check=False, cwd=REPO, env=environment(), timeout=120)
    if done.returncode != 0:
        pytest.skip(f"SYSTEM CALLS NOT CHECKED: strace: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return json.loads(done.stdout), out.read_text()
