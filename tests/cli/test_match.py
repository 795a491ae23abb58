"""rh-match as people run it: a filter, the list of rules, history. Nothing is done to any process."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.rules.load import builtin
from rogue_hunter.schema import RECORDS
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.reports import hog, record_run, seconds, ticks_of
from tests.tools.ticks import START, closing, key
from tests.tools.ticks import named_row as row

Rh = Callable[..., "subprocess.CompletedProcess[bytes]"]

LOOP = """
[[rules]]
name = "loop"
priority = "critical"
conditions = { cpu_percent_min = 90, duration_seconds = 2, exclude_patterns = ["^rustc$"] }
action = { notify = true }
[[rules]]
name = "hog"
conditions = { memory_mb_min = 1000 }
action = { type = "notify" }
"""

SPEC = """
[daemon]
enabled = true
scan_interval_seconds = 60
dry_run = false
[logging]
level = "info"
file = "~/.local/share/reaper/reaper.log"
max_size_mb = 100
rotate_count = 5
[notifications]
enabled = true
urgency = "normal"
timeout_ms = 5000
[metrics]
enabled = true
http_port = 9090
path = "/metrics"
[safety]
whitelist_processes = ["systemd", "claude", "vim"]
min_pid = 1000
protect_shell_ancestors = true
[[rules]]
name = "hung_test"
enabled = true
priority = "high"
[rules.conditions]
age_hours = 4
cpu_percent_max = 5.0
command_patterns = ["cargo-nextest", "cargo test", ".*_test.*", "test_.*", "proptest", "mutation.*test"]
[rules.action]
type = "kill"
signal = "SIGTERM"
timeout_seconds = 5
fallback_signal = "SIGKILL"
notify = true
log_level = "warning"
"""

PROJECT = """
[[rules]]
name = "hung_test"
enabled = true
[rules.conditions]
age_hours = 12
cpu_percent_max = 5.0
command_patterns = ["cargo mutants", "cargo-nextest"]
"""


def stream(count: int, *rows: Row, hz: float = 1.0) -> bytes:
    """`count` ticks of these rows."""
    encode = wire.Encoder().tick
    made = b""
    for seq in range(count):
        step = seq / hz
        row_of = closing(seq, len(rows), ts=START + step, mono_ns=10**12 + round(step * 1e9), interval_s=1 / hz)
        made += encode(Tick(row_of, {key(each): each for each in rows}))
    return made


def said(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(LOOP)
    return file


YOUNG = row(4001, start=100_000, command="young", cpu_percent=100.0, cpu_seconds_total=1.0, start_time=START - 0.5)
BUSY = row(4000, command="busy", cpu_percent=99.0, cpu_seconds_total=980.1)


def test_matches_come_out_and_ticks_only_with_tee(rh: Rh, rules: Path) -> None:
    """One record for what lasts, with its reason and evidence; a burst is not a match. Everything is a declared record."""
    stdin = stream(4, BUSY, row(4002, command="rustc", cpu_percent=99.0, cpu_seconds_total=990.0), row(4003))
    done = rh("match", "-c", rules, stdin=stdin)
    (match,) = said(done)
    assert (match["type"], match["pid"], match["rule"], match["priority"]) == ("match", 4000, "loop", "critical")
    assert match["evidence"] == "lifetime" and match["reason"].startswith("cpu 99 %") and done.returncode == 0
    assert set(match) - {"type", "v"} <= {field.name for field in RECORDS["match"]}
    tee = said(rh("match", "-c", rules, "--tee", stdin=stdin))
    assert [each["type"] for each in tee].count("tick") == 4 and [e for e in tee if e["type"] == "match"] == [match]


def test_what_has_to_last_must_be_seen_to_last(rh: Rh, rules: Path) -> None:
    done = rh("match", "-c", rules, "--no-lifetime", "--exit-code", stdin=stream(1, BUSY))
    assert (done.returncode, done.stdout) == (0, b"")
    done = rh("match", "-c", rules, "--no-lifetime", "--exit-code", stdin=stream(4, BUSY, YOUNG))
    assert done.returncode == 1 and {m["evidence"] for m in said(done)} == {"window"}
    assert [m["pid"] for m in said(rh("match", "-c", rules, stdin=stream(1, YOUNG)))] == []


def test_a_malformed_line_and_a_rule_that_never_ends(rh: Rh, tmp_path: Path) -> None:
    """Both are error records and a line on standard error; the rule matches nothing, and others continue."""
    file = tmp_path / "slow.toml"
    file.write_text("[[rules]]\nname = 'slow'\nconditions = { cmdline_patterns = ['^(a+)+$'] }\n" + LOOP)
    victim = {**BUSY, "cmdline": "a" * 60 + "!"}
    done = rh("match", "-c", file, stdin=b"nonsense\n" + stream(2, victim))
    kinds = [(each["type"], each.get("rule") or each.get("message", "")[:12]) for each in said(done)]
    assert ("match", "loop") in kinds and ("error", "rule slow is") in kinds and done.returncode == 65
    assert b"rule slow is disabled" in done.stderr and b"1 line of input" in done.stderr
    assert ("match", "slow") not in kinds


@pytest.mark.parametrize(("text", "reason"), [
    ("[[rules]]\nname = 'x'\n", b"a rule without conditions would match every process"),
    ("[[rules]]\nname = 'x'\nconditions = { cpu_percent_mim = 1 }\n", b"did you mean cpu_percent_min?"),
    ("[[rules]]\nname = 'x'\nconditions = { cpu_percent_min = -1 }\n", b"must be at least 0"),
    ("[[rules]]\nname = 'x'\nconditions = { command_patterns = ['('] }\n", b"bad pattern"),
    ("[systm]\n", b"systm: unknown key; did you mean system?"),
    ("rules = 3\n", b"must be an array of tables"),
])
def test_rules_that_cannot_be_used_scan_nothing(rh: Rh, tmp_path: Path, text: str, reason: bytes) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    done = rh("match", "-c", file, stdin=stream(2, BUSY))
    assert (done.returncode, done.stdout) == (78, b"") and reason in done.stderr and done.stderr.count(b"\n") == 1


def run_in(folder: Path, env: Mapping[str, str], *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-P", "-m", "rogue_hunter", *words], cwd=folder, env=dict(env),
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


def test_the_files_of_the_specification(clean_env: Mapping[str, str], tmp_path: Path) -> None:
    """reaper.toml and .reaper.toml load unchanged; the project narrows."""
    folder = tmp_path / "project" / "below"
    folder.mkdir(parents=True)
    (tmp_path / "project" / ".reaper.toml").write_text(PROJECT)
    home = tmp_path / "home"
    (home / ".config" / "rogue-hunter").mkdir(parents=True)
    (home / ".config" / "rogue-hunter" / "reaper.toml").write_text(SPEC)
    env = {**clean_env, "HOME": str(home)}
    alone, narrowed = (said(run_in(folder, env, "match", "rules", *more))
                       for more in (("--no-project",), ()))
    assert [r["name"] for r in alone] == ["hung_test"] and alone[0]["conditions"]["age_hours"] == 4
    assert narrowed[0]["conditions"]["all"][1]["age_hours"] == 12
    valid = run_in(folder, env, "config", "validate")
    assert valid.returncode == 0 and b".reaper.toml: ok" in valid.stdout
    named = run_in(tmp_path, env, "match", "--project", tmp_path / "project" / ".reaper.toml", "rules")
    assert said(named) == narrowed


@pytest.mark.parametrize(("text", "reason"), [
    ("[safety]\nmin_pid = 500\n", b"a project can only raise it"),
    ("[safety]\nwhitelist_processes = []\n", b"a project can add to the whitelist, not empty it"),
    ("[[rules]]\nname = 'all'\nconditions = { age_hours = 0 }\n", b"a project cannot add one"),
])
def test_a_project_that_would_widen_is_refused(clean_env: Mapping[str, str], tmp_path: Path, text: str,
                                               reason: bytes) -> None:
    (tmp_path / ".rogue-hunter.toml").write_text(text)
    for words in (("match", "rules"), ("reap", "--all", "--yes", "--dry-run"), ("config", "validate")):
        done = run_in(tmp_path, clean_env, *words)
        assert done.returncode == 78 and reason in done.stderr, words


def test_the_list_of_rules(rh: Rh, rules: Path) -> None:
    found = said(rh("match", "rules", "--no-project"))
    assert [r["name"] for r in found] == [rule.name for rule in builtin().rules]
    assert all(set(r) - {"type", "v"} <= {field.name for field in RECORDS["rule"]} for r in found)
    table = rh("match", "-c", rules, "rules", "--table").stdout.decode()
    assert "loop" in table and "cpu_percent_min=90" in table and "pids below 1000" in table
    assert rh("match", "rules", "-c", rules, "--table").stdout.decode() == table


def test_backtest(rh: Rh, tmp_path: Path, rules: Path) -> None:
    """The first firing of each process, what it would have saved, and the regrets; by rule in the end."""
    db = tmp_path / "x.db"
    record_run(db, ticks_of(200, seconds(0, 190, hog(4000, 72, command="busy", exe="/usr/bin/busy", cpu_percent=98.4, tty="pts/3")),
                            seconds(0, 10, hog(4001, 72, command="burst", exe="/usr/bin/burst"))))
    long = tmp_path / "long.toml"
    long.write_text(LOOP.replace("duration_seconds = 2", "duration_seconds = 60"))
    done = rh("match", "backtest", "-c", long, "--db", db, "--since", f"@{START - 10}", "--until", f"@{START + 1000}")
    firing, total = said(done)
    assert (firing["type"], firing["pid"], firing["rule"], firing["ended"]) == ("firing", 4000, "loop", "exited")
    assert 50 <= firing["ts"] - START <= 100 and 80 < firing["cpu_seconds_saved"] < 140
    assert "ended by itself" in firing["regret"] and "pts/3" in firing["regret"]
    assert (total["type"], total["firings"], total["regrets"]) == ("backtest", 1, 1)
    for each in (firing, total):
        assert set(each) - {"type", "v"} <= {field.name for field in RECORDS[each["type"]]}
    table = rh("match", "backtest", "-c", long, "--db", db, "--since", f"@{START - 10}", "--table").stdout.decode()
    assert "REGRET" in table and "busy" in table
    assert rh("match", "backtest", "--db", db, "--since", f"@{START + 50}", "--table").stdout.startswith(b"The rules would")
    assert rh("match", "backtest", "--db", tmp_path / "none.db").returncode == 69


def test_a_terminal_is_no_input(clean_env: Mapping[str, str]) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run([sys.executable, "-P", "-m", "rogue_hunter", "match"], stdin=theirs, capture_output=True,
                              env=dict(clean_env), timeout=60, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2 and b"rh-match" in done.stderr
