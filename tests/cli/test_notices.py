"""What commands print on standard error when there is nothing to print on standard output, and for wrong names."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Tick
from tests.tools.ticks import closing, key, row

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def stream(*rows: dict[str, object], before: bytes = b"") -> bytes:
    """One tick of these processes as NDJSON."""
    made = {key(each): each for each in rows}
    return before + wire.Encoder().tick(Tick(closing(0, len(made)), made, set(made)))


def test_a_filter_that_matches_nothing_says_how_many_it_looked_at(rh: Run) -> None:
    done = rh("match", "--no-project", stdin=stream(row(2000), row(2001)))
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"rh-match: 2 processes, no rule matches\n"
    assert rh("match", "--no-project", stdin=b"").stderr == b""


def test_reap_all_reports_it_too(rh: Run, tmp_path: Path) -> None:
    rules = tmp_path / "r.toml"
    rules.write_text('[[rules]]\nname = "none"\nconditions = { command_patterns = ["^no-such-program-here$"] }\n')
    done = rh("reap", "--all", "--dry-run", "-c", rules, "--no-project", HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, b"")
    assert b" processes, no rule matches" in done.stderr
    assert rh("reap", "--all", "--dry-run", "-q", "-c", rules, "--no-project", HOME=str(tmp_path)).stderr == b""


def test_match_passes_other_records_on_only_with_tee(rh: Run) -> None:
    """rh-tail's initial_state and events are no matches: jq on matches must not see them."""
    event = b'{"type":"event","v":1,"kind":"exit","event_id":1,"ts":1.0,"pid":5,"command":"x"}\n'
    assert rh("match", "--no-project", stdin=stream(row(2000), before=event)).stdout == b""
    teed = rh("match", "--no-project", "--tee", stdin=stream(row(2000), before=event)).stdout
    assert [json.loads(line)["type"] for line in teed.splitlines()].count("event") == 1


def test_sample_refuses_a_user_who_does_not_exist(rh: Run) -> None:
    done = rh("sample", "-n", "1", "--user", "no such user")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"rh-sample: --user no such user: no such user\n"
    assert rh("sample", "-n", "1", "--hz", "10", "--user", "4294967000").returncode == 0


def test_sample_names_a_pid_that_does_not_exist(rh: Run) -> None:
    done = rh("sample", "-n", "2", "--hz", "10", "--pid", "4194303", "--pid", str(os.getpid()))
    assert done.returncode == 0
    assert done.stderr == b"rh-sample: 4194303: no such process\n"


def test_config_path_on_a_terminal_is_aligned_text(clean_env: Mapping[str, str]) -> None:
    """In a pipe a tab separates the two; a terminal shows no escape for it."""
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-P", "-m", "rogue_hunter", "config", "path"], stdout=theirs, env=dict(clean_env),
                          check=False, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "\\t" not in shown and "\t" not in shown
    assert [line.split()[0] for line in shown.splitlines()] == ["config", "database", "state", "runtime"]


def test_a_file_with_wrong_rules_is_not_reported_as_good_first(rh: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[[rules]]\nname = "x"\naction = "kill"\n')
    done = rh("config", "validate", file)
    assert (done.returncode, done.stdout) == (78, b"")


def test_show_holds_the_rules_and_their_tables(rh: Run, tmp_path: Path) -> None:
    """Printed, it is a file that gives the same rules."""
    shown = rh("config", "show").stdout
    for table in (b"[safety]", b"[metrics]", b"[notifications]", b"[logging]", b"[daemon]", b"[[rules]]", b"[system]"):
        assert b"\n" + table + b"\n" in b"\n" + shown
    (tmp_path / "shown.toml").write_bytes(shown)
    assert rh("config", "show", "-c", tmp_path / "shown.toml").stdout == shown
    tables = json.loads(rh("config", "show", "--json").stdout)
    assert tables["metrics"]["enabled"] is False and "infinite_loop" in tables["rules"]


def test_track_refuses_rows_without_scores(rh: Run, tmp_path: Path) -> None:
    """rh-score was forgotten: an event can never come of that. A stream without processes is no mistake."""
    for command in (("track",), ("track", "--db", str(tmp_path / "x.db"))):
        done = rh(*command, stdin=stream(row(2000), row(2001)))
        assert (done.returncode, done.stdout) == (65, b"")
        assert b"the input holds no scores; run it through rh-score" in done.stderr
    assert rh("track", stdin=stream(row(2000, score=0))).returncode == 0
    assert rh("track", stdin=b"").returncode == 0
